//! Caps of what is kept about paths, hit without a peer.

use super::copies::{Copies, Item, Why};
use super::*;
use std::net::Ipv4Addr;

fn multipath(paths: u32) -> Multipath {
    let remote = SocketAddr::from((Ipv4Addr::LOCALHOST, 443));
    let max = PathId(paths - 1);
    Multipath::new(&MultipathConfig::default(), (max, PathId::MAX), 9, remote)
}

/// Both sides abandon identifiers without end: what is known ahead of use, what was issued for it,
/// and what waits to be said are bounded.
#[test]
fn identifiers_abandoned_without_end_are_bounded() {
    let mut m = multipath(limits::PATHS as u32);
    let mut next = 0;
    for round in 0..100_000u32 {
        m.on_abandoned(PathId(round), Code::NO_ERROR);
        if round % 3 == 0 {
            m.on_forgotten(LocalCids::default());
            m.ahead.remove(0);
        }
        let ids: Vec<u32> = m.ahead.iter().map(|a| a.id.0).collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
        assert!(ids.first() > Some(&next), "never again");
        next = ids.first().map_or(next, |first| first - 1);
        assert!(m.ahead.len() <= limits::PATH_RECORDS);
        assert!(m.abandons.len() <= limits::PATH_ABANDONS);
        for ahead in &mut m.ahead {
            for n in 0..ahead.local_cids.wanted_ahead() {
                let cid = [round.to_be_bytes(), (n as u32).to_be_bytes()].concat();
                let cid = ConnectionId::new(&cid).unwrap_or_default();
                ahead.local_cids.issue(cid, [0; 16]);
            }
            assert_eq!(ahead.local_cids.iter().count(), limits::CIDS_AHEAD);
        }
    }
    assert_eq!(m.abandons.len(), limits::PATH_ABANDONS);
}

/// One PATH_ABANDON frame of a path waits, however often it is to be repeated.
#[test]
fn an_abandonment_waits_once() {
    let mut m = multipath(4);
    for _ in 0..1000 {
        m.repeat_abandon(PathId(2), Code::NO_ERROR);
        m.repeat_abandon(PathId(3), Code::NO_ERROR);
    }
    assert_eq!(m.abandons.len(), 2);
}

/// The cap on packets whose copies wait, and that what is beyond it is counted.
#[test]
fn copies_that_wait_are_capped() {
    let mut copies = Copies::default();
    for n in 0..10 * limits::COPIES {
        assert_eq!(copies.has_room(), n < limits::COPIES);
        let why = [Why::Redundant, Why::Lost][n % 2];
        let mut batch = copies.batch(PathId(n as u32 % 8), why);
        batch.items.push_back(Item::Frame(SentFrame::Unreliable));
        copies.push(batch);
    }
    let refused = copies.stats.duplicates_refused + copies.stats.reinjections_refused;
    assert_eq!(refused as usize, 9 * limits::COPIES);
}
