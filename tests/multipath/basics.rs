//! Paths open, carry data both ways, change their status, close and open again.

use crate::common::pair::{CLIENT, SERVER};
use crate::rig::*;
use corelane::base::{FourTuple, limits};
use corelane::conn::{OpenPathError, PathEvent};
use corelane::path::{PathId, PathState, PathStatus};
use corelane::wire::Code;
use std::collections::BTreeMap;

#[test]
fn two_paths_carry_data_both_ways() {
    let mut rig = Rig::two_paths();
    rig.forget_traffic();
    for side in [CLIENT, SERVER] {
        rig.deliver(side, 2_000_000, 2000);
    }
    for source in [CLIENT_0, CLIENT_1] {
        assert!(rig.bytes_from(at(source)) > 200_000, "{source:?}");
    }
    for id in [PathId(0), PathId(1)] {
        for side in [CLIENT, SERVER] {
            let info = rig.info(side, id).expect("there");
            assert!(info.counters.bytes_sent > 200_000, "{id} {side} {info:?}");
            assert!(info.counters.packets_acked > 50, "{info:?}");
        }
    }
    rig.expect_alive();
}

#[test]
fn without_the_peers_consent_there_is_one_path() {
    let mut s = setup(4);
    s.server = config(0);
    let mut rig = Rig::with(s);
    let refused = rig.open(PathStatus::Available);
    assert_eq!(refused, Err(OpenPathError::NotNegotiated));
    rig.deliver(CLIENT, 100_000, 1000);
}

/// Multipath §3.3: a backup carries nothing while another path works.
#[test]
fn a_backup_waits() {
    let mut rig = Rig::two_paths();
    let client = rig.client;
    let conn = rig.pair.conn(CLIENT, client);
    conn.set_path_status(PathId(0), PathStatus::Backup).unwrap();
    rig.run_ms(100);
    assert!(rig.saw(SERVER, PathEvent::Status(PathId(0), PathStatus::Backup)));
    rig.forget_traffic();
    for side in [CLIENT, SERVER] {
        rig.deliver(side, 500_000, 2000);
    }
    assert!(rig.bytes_from(at(CLIENT_1)) > 500_000);
    assert!(rig.bytes_from(at(CLIENT_0)) < 10_000);
}

/// Multipath §3.4, §4.6: abandoned paths make room for others, past the first limit.
#[test]
fn paths_are_reopened_past_the_first_limit() {
    let mut rig = Rig::new(2);
    for n in 1..20 {
        let id = rig.open(PathStatus::Available).expect("opens");
        assert_eq!(id, PathId(n));
        rig.run_ms(200);
        rig.expect_open(id);
        rig.deliver(CLIENT, 100_000, 300);
        let side = if n % 2 == 0 { CLIENT } else { SERVER };
        let (now, conn) = (rig.pair.now, rig.ids()[side]);
        let code = Code::APPLICATION_ABANDON_PATH;
        rig.pair.conn(side, conn).close_path(now, id, code).unwrap();
        rig.run_ms(200);
        for s in [CLIENT, SERVER] {
            let by_peer = s != side;
            let error = code;
            assert!(rig.saw(s, PathEvent::Abandoned { id, error, by_peer }));
        }
        rig.deliver(SERVER, 100_000, 300);
        rig.run_ms(4000);
        assert_eq!(rig.info(CLIENT, id), None);
        assert_eq!(rig.info(SERVER, id), None);
    }
    rig.expect_alive();
}

/// Multipath §5.2.
#[test]
fn two_paths_share_addresses() {
    let mut rig = Rig::new(4);
    let tuple = FourTuple::new(at(CLIENT_0), at(SERVER_0));
    let id = rig.open_over(0, tuple, PathStatus::Available).unwrap();
    rig.run_ms(200);
    rig.expect_open(id);
    rig.deliver(CLIENT, 1_000_000, 2000);
    for id in [PathId(0), id] {
        assert!(rig.info(CLIENT, id).unwrap().counters.bytes_sent > 100_000);
    }
}

/// The first path may go: everything goes on over the second.
#[test]
fn the_first_path_can_be_abandoned() {
    let mut rig = Rig::two_paths();
    let stream = rig.send(CLIENT, 1_000_000);
    rig.run_ms(15);
    let (now, client) = (rig.pair.now, rig.client);
    let conn = rig.pair.conn(CLIENT, client);
    conn.close_path(now, PathId(0), Code::NO_ERROR).unwrap();
    rig.forget_traffic();
    rig.run_ms(3000);
    assert!(rig.has(CLIENT, stream, 1_000_000));
    // Multipath §3.4: its connection IDs are retired at once.
    assert_eq!(rig.bytes_from(at(CLIENT_0)), 0);
    rig.run_ms(4000);
    assert_eq!(rig.info(CLIENT, PathId(0)), None);
    assert_eq!(rig.info(SERVER, PathId(0)), None);
    rig.forget_traffic();
    rig.deliver(SERVER, 100_000, 1000);
    assert_eq!(rig.bytes_from(at(CLIENT_0)), 0);
    let id = rig.open_over(
        0,
        FourTuple::new(at(CLIENT_0), at(SERVER_0)),
        PathStatus::Available,
    );
    rig.run_ms(300);
    rig.expect_open(id.unwrap());
    rig.expect_alive();
}

/// A path that nobody answers on is given up, and the connection lives (multipath §3.1).
#[test]
fn a_path_that_leads_nowhere_is_abandoned() {
    let mut rig = Rig::new(4);
    rig.darken(at(CLIENT_1));
    let id = rig.open(PathStatus::Available).unwrap();
    rig.run_ms(100);
    assert_eq!(rig.info(CLIENT, id).unwrap().state, PathState::Validating);
    rig.run_ms(10_000);
    assert_eq!(rig.info(CLIENT, id), None);
    let error = Code::PATH_UNSTABLE_OR_POOR;
    let by_peer = false;
    assert!(rig.saw(CLIENT, PathEvent::Abandoned { id, error, by_peer }));
    rig.deliver(CLIENT, 10_000, 500);
    rig.expect_alive();
}

/// The data in flight on a path that goes dark moves to the other at the first PTO.
#[test]
fn a_dark_path_holds_nothing_up_for_long() {
    for dark in [CLIENT_0, CLIENT_1] {
        let mut rig = Rig::two_paths();
        rig.deliver(CLIENT, 500_000, 1000);
        let streams: Vec<_> = [CLIENT, SERVER].map(|s| (s, rig.send(s, 1_000_000))).into();
        rig.run_ms(25);
        rig.darken(at(dark));
        rig.run_ms(1200);
        for (side, id) in streams {
            assert!(rig.has(side, id, 1_000_000), "dark {dark:?}, side {side}");
        }
        rig.lighten();
        rig.run_ms(3000);
        for id in [PathId(0), PathId(1)] {
            for side in [CLIENT, SERVER] {
                assert_eq!(rig.info(side, id).unwrap().pto_count, 0, "it recovers");
            }
        }
        rig.expect_alive();
    }
}

/// Paths that work stay: idle ones and those that carry data one way, however long (multipath
/// §5.9: there is no idle timeout of a path).
#[test]
fn a_healthy_path_is_never_abandoned_by_itself() {
    let mut rig = Rig::two_paths();
    let client = rig.client;
    let conn = rig.pair.conn(CLIENT, client);
    conn.set_path_status(PathId(1), PathStatus::Backup).unwrap();
    for _ in 0..40 {
        rig.run_ms(15_000);
        rig.deliver(SERVER, 50_000, 1000);
        rig.expect_open(PathId(0));
        rig.expect_open(PathId(1));
    }
    let conn = rig.pair.conn(CLIENT, client);
    let available = PathStatus::Available;
    conn.set_path_status(PathId(1), available).unwrap();
    for _ in 0..40 {
        rig.deliver(CLIENT, 1_000_000, 1500);
        rig.expect_open(PathId(0));
        rig.expect_open(PathId(1));
    }
    rig.expect_alive();
}

/// Multipath §3.1: a PATH_RESPONSE goes by the path of its challenge, so that a path validates
/// while no other works.
#[test]
fn a_path_validates_while_the_other_is_dark() {
    let mut rig = Rig::new(4);
    rig.run_ms(200);
    rig.darken(at(CLIENT_0));
    let id = rig.open(PathStatus::Available).expect("opens");
    rig.run_ms(200);
    rig.expect_open(id);
    rig.deliver(SERVER, 500_000, 3000);
    rig.expect_alive();
}

/// Multipath §3.1: a path that takes no datagram of 1,200 bytes is not used, and is abandoned.
#[test]
fn a_path_that_is_too_narrow_is_abandoned() {
    let mut rig = Rig::new(4);
    rig.shrink(at(CLIENT_1), 1199);
    let id = rig.open(PathStatus::Available).unwrap();
    for _ in 0..100 {
        rig.run_ms(100);
        let state = rig.info(CLIENT, id).map(|i| i.state);
        assert_ne!(state, Some(PathState::Open));
    }
    assert_eq!(rig.info(CLIENT, id), None);
    let error = Code::PATH_UNSTABLE_OR_POOR;
    let by_peer = false;
    assert!(rig.saw(CLIENT, PathEvent::Abandoned { id, error, by_peer }));
    rig.deliver(CLIENT, 100_000, 1000);
    rig.expect_alive();
}

/// Segmentation offload stays on: whole trains leave on either path.
#[test]
fn trains_of_several_datagrams_leave_on_both_paths() {
    let mut rig = Rig::two_paths();
    rig.deliver(CLIENT, 3_000_000, 5000);
    rig.send(CLIENT, 1_000_000);
    let (now, client) = (rig.pair.now, rig.client);
    let conn = rig.pair.conn(CLIENT, client);
    let mut buf = vec![0; limits::MAX_TRAIN_BYTES];
    let mut longest = BTreeMap::new();
    while let Some(train) = conn.poll_transmit(now, &mut buf) {
        let most: &mut usize = longest.entry(train.path.local).or_default();
        *most = train.segments().max(*most);
    }
    for from in [CLIENT_0, CLIENT_1] {
        assert!(longest.get(&at(from)) > Some(&4), "{longest:?}");
    }
}
