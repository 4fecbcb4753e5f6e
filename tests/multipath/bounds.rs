//! What a peer can make of several paths is bounded: paths, connection IDs, challenges, all capped.
//! The scripted peer of each test goes past the cap, and the connection stays or says why it ends.

use crate::common::attack::{Attack, Plan};
use crate::common::pair::{CLIENT, SERVER};
use crate::common::raw_peer::payload;
use crate::rig::*;
use corelane::base::{FourTuple, limits};
use corelane::conn::{Event, OpenPathError, PathEvent};
use corelane::path::{PathId, PathState, PathStatus};
use corelane::wire::frame::{Frame, NewConnectionId, PathFrame};
use corelane::wire::{Code, ConnectionId, PacketType};
use std::time::Duration;

fn server() -> Attack {
    let mut plan = Plan::default();
    plan.transport.max_paths = 4;
    plan.params.initial_max_path_id = Some(PathId(3));
    let mut a = Attack::server_with(plan);
    a.run(Duration::from_millis(200));
    a.ack_all();
    a
}

/// Opens paths until there are no more identifiers; returns how many.
fn open_all(rig: &mut Rig) -> usize {
    let tuple = FourTuple::new(at(CLIENT_1), at(SERVER_0));
    for n in 0..100 {
        match rig.open_over(1, tuple, PathStatus::Available) {
            Ok(_) => {}
            Err(OpenPathError::NoConnectionId) => rig.run_ms(100),
            Err(why) => {
                assert_eq!(why, OpenPathError::NoPathId);
                return n;
            }
        }
    }
    panic!("paths without end");
}

/// The cap on open paths, whatever the configuration asks for (multipath §7.1).
#[test]
fn open_paths_are_capped() {
    let mut rig = Rig::new(1000);
    assert_eq!(open_all(&mut rig), limits::PATHS - 1);
    rig.run_ms(500);
    for side in [CLIENT, SERVER] {
        let id = rig.ids()[side];
        let open = rig.pair.conn(side, id).paths();
        let open = open.filter(|p| p.state == PathState::Open).count();
        assert_eq!(open, limits::PATHS, "side {side}");
        rig.deliver(side, 500_000, 2000);
    }
    rig.expect_alive();
}

/// The cap on paths that validate at once, and on what an address that is not proven gets of all of
/// them together (multipath §7.2).
#[test]
fn paths_that_validate_are_capped_and_amplify_nothing() {
    let mut rig = Rig::new(1000);
    rig.traffic.lock().unwrap().deaf.push(at(CLIENT_1));
    assert_eq!(open_all(&mut rig), limits::PATHS - 1);
    for _ in 0..100 {
        rig.run_ms(20);
        let id = rig.server;
        let paths = rig.pair.conn(SERVER, id).paths();
        let validating = paths.filter(|p| p.state == PathState::Validating).count();
        assert!(validating < limits::PATHS, "{validating}");
        let t = rig.traffic.lock().unwrap();
        let (to, from) = (t.bytes_to.get(&at(CLIENT_1)), t.bytes.get(&at(CLIENT_1)));
        assert!(to <= from.map(|n| n * 3).as_ref(), "{to:?} for {from:?}");
    }
    rig.deliver(SERVER, 500_000, 2000);
    rig.expect_alive();
}

/// CVE-2023-6193 and its kin with several paths: challenges queue up to a cap.
#[test]
fn challenges_are_answered_a_few_at_a_time() {
    let mut a = server();
    for round in 0..2000u64 {
        a.inbox.clear();
        let challenges = payload(|w| {
            for n in 0..100u64 {
                let data = (round * 100 + n).to_be_bytes();
                corelane::wire::frame::write_path_challenge(w, &data);
            }
        });
        a.one_rtt(&challenges);
        let answers = a.inbox.iter().flat_map(|p| p.frames());
        let answers = answers.filter(|f| matches!(f, Frame::PathResponse(_)));
        assert!(answers.count() <= limits::PATH_RESPONSES);
        if a.closed().is_some() {
            return;
        }
    }
    a.expect_alive_on_paths();
}

trait AliveOnPaths {
    fn expect_alive_on_paths(&mut self);
}

impl AliveOnPaths for Attack {
    #[track_caller]
    fn expect_alive_on_paths(&mut self) {
        self.inbox.clear();
        assert_eq!(self.closed(), None);
        self.one_rtt(&[0x01]);
        self.one_rtt(&[0x01]);
        self.run(Duration::from_millis(100));
        let acked = |f: &Frame<'_>| matches!(f, Frame::PathAck { .. });
        assert!(self.inbox.iter().any(|p| p.has(acked)));
    }
}

/// CVE-2024-1410 for each path: retire_prior_to that rises while nothing is acknowledged
/// (RFC 9000 §5.1.2 by multipath §4.4).
#[test]
fn retirements_of_a_path_are_capped() {
    for path in 0..4u32 {
        let mut a = server();
        let first = if path == 0 { 1 } else { 0 };
        for n in 0..100u64 {
            let seq = first + n;
            let cid = [path as u8 + 1, n as u8, 9, 9, 9, 9, 9, 9];
            let new = NewConnectionId {
                seq,
                retire_prior_to: seq,
                cid: ConnectionId::new(&cid).expect("8 bytes"),
                reset_token: [n as u8; 16],
            };
            let path = PathId(path);
            a.one_rtt(&payload(|w| {
                PathFrame::NewConnectionId { path, new }.write(w);
            }));
            if a.closed().is_some() {
                break;
            }
        }
        a.expect_error(Code::CONNECTION_ID_LIMIT_ERROR, &format!("path {path}"));
    }
}

/// CVE-2025-7054 on all paths: connection IDs of paths that are not in use may all be retired, and
/// are replaced; the one that carries the frame may not (RFC 9000 §19.16).
#[test]
fn connection_ids_of_all_paths_are_retired_and_replaced() {
    let mut a = server();
    let routes = a.endpoint.routes();
    for seq in 0..200u64 {
        for path in 1..4 {
            let path = PathId(path);
            a.one_rtt(&payload(|w| {
                PathFrame::RetireConnectionId { path, seq }.write(w);
            }));
        }
        a.run(Duration::from_millis(30));
        a.ack_all();
        assert_eq!(a.closed(), None, "{seq}");
        assert!(a.endpoint.routes() <= routes + 4, "{}", a.endpoint.routes());
    }
    a.expect_alive_on_paths();
    let path = PathId::ZERO;
    a.one_rtt(&payload(|w| {
        PathFrame::RetireConnectionId { path, seq: 0 }.write(w);
    }));
    a.expect_error(Code::PROTOCOL_VIOLATION, "the one in use");
}

/// What the application does not take of events about paths is bounded (CVE-2026-12707).
#[test]
fn events_of_paths_are_bounded() {
    let mut a = server();
    a.events.clear();
    let (path, mut seq) = (PathId::ZERO, 0);
    while seq < 2 * limits::EVENTS as u64 {
        let frames = payload(|w| {
            for _ in 0..50 {
                for status in [PathStatus::Backup, PathStatus::Available] {
                    seq += 1;
                    PathFrame::Status { path, status, seq }.write(w);
                }
            }
        });
        let packet = a.peer.packet(PacketType::OneRtt, &frames);
        // Nobody asks for events meanwhile.
        a.deliver(a.peer_addr, &packet);
    }
    a.collect();
    let status = |e: &&Event| matches!(e, Event::Path(PathEvent::Status(..)));
    let told = a.events.iter().filter(status).count();
    let most = limits::EVENTS;
    // What a peer repeats has a share of the places.
    assert!(told <= most && told > most / 8, "{told} of {seq}");
    a.expect_alive_on_paths();
}

/// Multipath §3.4: paths that are opened, used and abandoned without end; an identifier is never
/// used twice, and nothing stays of those that are gone.
#[test]
fn paths_opened_and_abandoned_without_end_leave_nothing() {
    let mut rig = Rig::new(3);
    let mut last = PathId(0);
    let mut cycles = |rig: &mut Rig, n: u32| {
        for side in (0..n).map(|n| [CLIENT, SERVER][n as usize % 2]) {
            let id = loop {
                match rig.open(PathStatus::Available) {
                    Ok(id) => break id,
                    Err(OpenPathError::NoPathId | OpenPathError::NoConnectionId) => rig.run_ms(100),
                    Err(why) => panic!("{why}"),
                }
            };
            assert!(id > last, "{id} after {last}");
            last = id;
            rig.send(side, 5000);
            rig.run_ms(100);
            let (now, conn) = (rig.pair.now, rig.ids()[side]);
            let conn = rig.pair.conn(side, conn);
            conn.close_path(now, id, Code::NO_ERROR).expect("open");
            rig.run_ms(50);
            for side in [CLIENT, SERVER] {
                let conn = rig.ids()[side];
                let paths = rig.pair.conn(side, conn).paths().count();
                assert!(paths <= 2 * 3, "{paths}");
                let past: Vec<_> = rig.pair.conn(side, conn).past_paths().collect();
                assert!(past.len() <= limits::PATHS, "{}", past.len());
                assert!(past.iter().all(|p| p.packets_sent > 0), "{past:?}");
                assert!(rig.pair.sides[side].endpoint.routes() < 40);
                rig.pair.sides[side].events.clear();
                rig.pair.sides[side].app = Default::default();
                rig.pair.sides[side].app.accepted = vec![conn];
            }
        }
    };
    cycles(&mut rig, 100);
    let before = crate::common::counting::live();
    cycles(&mut rig, 300);
    let grown = crate::common::counting::live() - before;
    assert!(grown < 128 * 1024, "{grown} bytes");
    rig.run_ms(5000);
    rig.deliver(SERVER, 100_000, 1000);
    rig.expect_alive();
}
