//! What peers are known not to do, with the evidence, so that a red cell says whose it is.

use super::{Pair, Peer};

/// A limitation: the cases, the peer, whether as client and as server, why.
struct Limit {
    cases: &'static [&'static str],
    peer: Peer,
    client: bool,
    server: bool,
    why: &'static str,
}

const LIMITS: &[Limit] = &[];

/// The reason of a pair's peer for not passing a case.
pub(super) fn known(case: &str, pair: Pair) -> Option<&'static str> {
    let fits = |l: &&Limit| {
        let role = (l.client && l.peer == pair.client) || (l.server && l.peer == pair.server);
        role && l.cases.contains(&case)
    };
    LIMITS.iter().find(fits).map(|l| l.why)
}
