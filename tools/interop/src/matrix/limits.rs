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

const fn limit(
    cases: &'static [&'static str],
    peer: Peer,
    roles: Roles,
    why: &'static str,
) -> Limit {
    Limit {
        cases,
        peer,
        client: !matches!(roles, Roles::Server),
        server: !matches!(roles, Roles::Client),
        why,
    }
}

enum Roles {
    Client,
    Server,
    Both,
}

/// Versions are those that the peers' manifests pin; the evidence is in their sources.
const LIMITS: &[Limit] = &[
    limit(
        &["v2"],
        Peer::Quinn,
        Roles::Both,
        "quinn 0.11 speaks version 1 and drafts of it, not version 2.",
    ),
    limit(
        &["connectionmigration"],
        Peer::Quinn,
        Roles::Client,
        "quinn 0.11 as client keeps the connection ID of a preferred address and does not move \
         there (quinn-proto `connection/mod.rs`, `params.preferred_address`).",
    ),
    limit(
        &["v2"],
        Peer::S2n,
        Roles::Both,
        "s2n-quic 1.91 speaks version 1 alone.",
    ),
    limit(
        &["zerortt"],
        Peer::S2n,
        Roles::Both,
        "s2n-quic 1.91 drops 0-RTT packets (s2n-quic-transport `handle_zero_rtt_packet`).",
    ),
    limit(
        &["resumption"],
        Peer::S2n,
        Roles::Both,
        "s2n-quic 1.91 over rustls neither sends nor reads session tickets: `Session` of \
         s2n-quic-rustls has no `process_post_handshake_message`.",
    ),
    limit(
        &["keyupdate"],
        Peer::S2n,
        Roles::Client,
        "s2n-quic 1.91 updates keys only near the AEAD's limit; there is no call for it.",
    ),
    limit(
        &["ecn"],
        Peer::S2n,
        Roles::Both,
        "s2n-quic 1.91 marks packets CE itself to find paths that hide CE \
         (s2n-quic-core `path/ecn.rs`, `CE_SUPPRESSION_TESTING_RTT_MULTIPLIER`).",
    ),
    limit(
        &["connectionmigration"],
        Peer::S2n,
        Roles::Both,
        "s2n-quic 1.91 neither offers a preferred address nor moves to one.",
    ),
    limit(
        &["v2"],
        Peer::Quiche,
        Roles::Both,
        "quiche 0.30 speaks version 1 alone (`version_is_supported`).",
    ),
    limit(
        &["ecn"],
        Peer::Quiche,
        Roles::Both,
        "quiche 0.30 sends no ECN counts (`ecn_counts: None` where it writes ACK frames).",
    ),
    limit(
        &["chacha20"],
        Peer::Quiche,
        Roles::Client,
        "quiche 0.30 has no call to choose TLS 1.3 cipher suites.",
    ),
    limit(
        &["keyupdate"],
        Peer::Quiche,
        Roles::Client,
        "quiche 0.30 follows key updates and has no call to begin one.",
    ),
    limit(
        &["connectionmigration"],
        Peer::Quiche,
        Roles::Both,
        "quiche 0.30 does not read or write the preferred address (`transport_params.rs`, two \
         TODOs).",
    ),
    limit(
        &["rebind-port", "rebind-addr"],
        Peer::Quiche,
        Roles::Server,
        "quiche 0.30 recovers losses path by path: when the very last packets of the old path are \
         lost, it owes them as a probe on that path, which it no longer uses \
         (`on_loss_detection_timeout`), and never sends them again. It happens in some runs.",
    ),
    limit(
        &["ecn"],
        Peer::Aioquic,
        Roles::Both,
        "aioquic 1.7 neither sets nor reads ECN marks (asyncio datagrams do not carry them).",
    ),
    limit(
        &["connectionmigration"],
        Peer::Aioquic,
        Roles::Server,
        "aioquic 1.7 as server has no setting for a preferred address.",
    ),
];

/// The reason of a pair's peer for not passing a case.
pub(super) fn known(case: &str, pair: Pair) -> Option<&'static str> {
    let fits = |l: &&Limit| {
        let role = (l.client && l.peer == pair.client) || (l.server && l.peer == pair.server);
        role && l.cases.contains(&case)
    };
    LIMITS.iter().find(fits).map(|l| l.why)
}

#[cfg(test)]
mod tests {
    use super::LIMITS;
    use crate::matrix::cases;

    #[test]
    fn every_limitation_names_cases_that_exist() {
        let cases = cases();
        for limit in LIMITS {
            let known = |name: &str| cases.iter().any(|c| c.name == name);
            assert!(limit.cases.iter().all(|n| known(n)), "{}", limit.why);
            assert!(limit.client || limit.server);
        }
    }
}
