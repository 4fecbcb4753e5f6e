//! What a peer may not say of paths, and what is ignored: each rule by a scripted peer's frames.

use crate::common::attack::{Attack, Plan, params};
use crate::common::raw_peer::payload;
use corelane::base::limits;
use corelane::conn::ConnectionError;
use corelane::path::{PathId, PathState, PathStatus};
use corelane::wire::frame::{Frame, NewConnectionId, PathFrame};
use corelane::wire::{Code, ConnectionId, PacketType};

fn plan() -> Plan {
    let mut plan = Plan::default();
    plan.transport.max_paths = 4;
    plan.params.initial_max_path_id = Some(PathId(3));
    plan
}

fn server() -> Attack {
    let mut a = Attack::server_with(plan());
    assert!(a.connection().is_multipath());
    a.run(std::time::Duration::from_millis(200));
    a.ack_all();
    a
}

fn bytes(f: &PathFrame) -> Vec<u8> {
    payload(|w| f.write(w))
}

fn cid(n: u64) -> ConnectionId {
    ConnectionId::new(&n.to_be_bytes()).expect("8 bytes")
}

fn new_cid(path: u32, seq: u64, n: u64) -> PathFrame {
    let new = NewConnectionId {
        seq,
        retire_prior_to: 0,
        cid: cid(n),
        reset_token: [n as u8; 16],
    };
    let path = PathId(path);
    PathFrame::NewConnectionId { path, new }
}

fn path_ack(path: u32) -> Vec<u8> {
    let mut out = vec![0x3e, path as u8];
    out.extend([0, 0, 0, 0]);
    out
}

fn about(path: u32) -> Vec<PathFrame> {
    let path = PathId(path);
    vec![
        PathFrame::Abandon {
            path,
            error: Code::NO_ERROR,
        },
        PathFrame::Status {
            path,
            status: PathStatus::Backup,
            seq: 1,
        },
        PathFrame::Status {
            path,
            status: PathStatus::Available,
            seq: 1,
        },
        new_cid(path.0, 0, 77),
        PathFrame::RetireConnectionId { path, seq: 0 },
        PathFrame::PathsBlocked(path),
        PathFrame::CidsBlocked { path, next_seq: 0 },
    ]
}

/// Multipath §4, §4.7: an identifier above the announced maximum.
#[test]
fn identifiers_beyond_the_limit_are_a_violation() {
    for frame in about(4) {
        let mut a = server();
        a.one_rtt(&bytes(&frame));
        a.expect_error(Code::PROTOCOL_VIOLATION, &format!("{frame:?}"));
    }
    let mut a = server();
    a.one_rtt(&path_ack(4));
    a.expect_error(Code::PROTOCOL_VIOLATION, "PATH_ACK");
}

/// Multipath §4.6.
#[test]
fn the_peers_limit_may_not_fall_below_its_first() {
    let mut a = server();
    for max in [3, 9, 4, u32::MAX] {
        a.one_rtt(&bytes(&PathFrame::MaxPathId(PathId(max))));
    }
    a.expect_alive_with_paths();
    a.one_rtt(&bytes(&PathFrame::MaxPathId(PathId(2))));
    a.expect_error(Code::PROTOCOL_VIOLATION, "MAX_PATH_ID");
}

trait Alive {
    fn expect_alive_with_paths(&mut self);
}

impl Alive for Attack {
    #[track_caller]
    fn expect_alive_with_paths(&mut self) {
        self.inbox.clear();
        assert_eq!(self.closed(), None);
        self.one_rtt(&[0x01]);
        self.one_rtt(&[0x01]);
        self.run(std::time::Duration::from_millis(100));
        let last = self.peer.spaces[2].next_pn - 1;
        let is_ack = |f: &Frame<'_>| match f {
            Frame::PathAck { path, ack } => *path == PathId(0) && ack.largest == last,
            _ => false,
        };
        assert!(
            self.inbox.iter().any(|p| p.has(is_ack)),
            "answered by PATH_ACK"
        );
    }
}

/// Multipath §2.1.
#[test]
fn zero_length_connection_ids_and_several_paths_exclude_each_other() {
    let mut plan = plan();
    plan.params.initial_source_connection_id = Some(ConnectionId::EMPTY);
    let mut a = Attack::on_server(plan);
    let (scid, dcid) = (ConnectionId::EMPTY, cid(5));
    let mut encoded = Vec::new();
    let mut p = params();
    p.initial_max_path_id = Some(PathId(3));
    p.initial_source_connection_id = Some(scid);
    let mut rng = corelane::base::Rng::from_u64(1);
    p.encode(corelane::wire::Side::Client, &mut encoded, &mut rng);
    a.new_client_with(scid, dcid, encoded);
    a.exchange();
    assert_eq!(a.blamed(), Some(Code::PROTOCOL_VIOLATION));
}

/// RFC 9000 §5.1 by multipath §3.2.1: not more than once on a connection, whatever the path.
#[test]
fn a_connection_id_of_two_paths_is_a_violation() {
    let mut a = server();
    a.one_rtt(&bytes(&new_cid(1, 0, 50)));
    a.one_rtt(&bytes(&new_cid(1, 0, 50)));
    a.expect_alive_with_paths();
    a.one_rtt(&bytes(&new_cid(2, 0, 50)));
    a.expect_error(Code::PROTOCOL_VIOLATION, "twice");
}

/// Multipath §2.2: the limit on connection IDs holds for each path.
#[test]
fn connection_ids_are_limited_for_each_path() {
    let mut a = server();
    for path in 1..4u32 {
        for seq in 0..limits::ACTIVE_CIDS as u64 {
            let n = u64::from(path) * 100 + seq;
            a.one_rtt(&bytes(&new_cid(path, seq, n)));
        }
    }
    a.expect_alive_with_paths();
    a.one_rtt(&bytes(&new_cid(2, limits::ACTIVE_CIDS as u64, 999)));
    a.expect_error(Code::CONNECTION_ID_LIMIT_ERROR, "one more");
}

/// Multipath §4.5, §4.7: numbers that were never issued.
#[test]
fn numbers_ahead_of_what_was_issued_are_a_violation() {
    for seq in [3, 1 << 40] {
        let mut a = server();
        let path = PathId(1);
        a.one_rtt(&bytes(&PathFrame::CidsBlocked { path, next_seq: 2 }));
        a.expect_alive_with_paths();
        a.one_rtt(&bytes(&PathFrame::CidsBlocked {
            path,
            next_seq: seq,
        }));
        a.expect_error(Code::PROTOCOL_VIOLATION, "PATH_CIDS_BLOCKED");
        let mut a = server();
        a.one_rtt(&bytes(&PathFrame::RetireConnectionId { path, seq }));
        a.expect_error(Code::PROTOCOL_VIOLATION, "PATH_RETIRE_CONNECTION_ID");
    }
}

/// RFC 9000 §13.1: of a path that was never used nothing can be acknowledged.
#[test]
fn an_acknowledgement_of_nothing_is_a_violation() {
    let mut a = server();
    a.one_rtt(&path_ack(1));
    a.expect_error(Code::PROTOCOL_VIOLATION, "PATH_ACK");
}

/// Multipath §3.4, §4: PATH_ABANDON is answered, also for a path that was not used; what is said of
/// it afterwards is ignored, for good.
#[test]
fn what_is_said_of_an_abandoned_path_is_ignored() {
    let mut a = server();
    let abandon = |path| PathFrame::Abandon {
        path: PathId(path),
        error: Code::NO_ERROR,
    };
    a.inbox.clear();
    a.one_rtt(&bytes(&abandon(1)));
    let answered = |a: &Attack| {
        a.inbox.iter().any(|p| {
            p.has(|f| {
                matches!(
                    f,
                    Frame::Path(PathFrame::Abandon {
                        path: PathId(1),
                        ..
                    })
                )
            })
        })
    };
    assert!(answered(&a), "a corresponding PATH_ABANDON");
    let raised = a
        .inbox
        .iter()
        .any(|p| p.has(|f| matches!(f, Frame::Path(PathFrame::MaxPathId(PathId(4))))));
    assert!(raised, "there is room for another path");
    for _ in 0..2 {
        for frame in about(1) {
            a.one_rtt(&bytes(&frame));
        }
        a.one_rtt(&path_ack(1));
        a.run_acking(
            std::time::Duration::from_secs(20),
            std::time::Duration::from_millis(100),
        );
        a.expect_alive_with_paths();
    }
}

/// The cap on paths: identifiers abandoned without end, and nothing grows.
#[test]
fn paths_abandoned_without_end_are_bounded() {
    let mut a = server();
    let mut next = 1u32;
    for _ in 0..3000 {
        let f = PathFrame::Abandon {
            path: PathId(next),
            error: Code::NO_ERROR,
        };
        a.one_rtt(&bytes(&f));
        if let Some(why) = a.closed() {
            panic!("{next}: {why:?}");
        }
        a.ack_all();
        let max = a
            .inbox
            .iter()
            .flat_map(|p| p.frames())
            .filter_map(|f| match f {
                Frame::Path(PathFrame::MaxPathId(max)) => Some(max.0),
                _ => None,
            });
        let max = max.max().unwrap_or(3);
        if next < max {
            next += 1;
        } else {
            a.run(std::time::Duration::from_millis(300));
        }
        assert!(a.endpoint.routes() < 64, "{} routes", a.endpoint.routes());
        assert!(a.connection().paths().count() <= limits::PATH_RECORDS);
    }
    assert!(
        next > 10,
        "paths are forgotten, and identifiers go on: {next}"
    );
}

/// Multipath §3.4: PATH_ABANDON for the only path.
#[test]
fn abandoning_the_only_path_closes_the_connection() {
    let mut a = server();
    let error = Code::PATH_UNSTABLE_OR_POOR;
    let path = PathId(0);
    a.one_rtt(&bytes(&PathFrame::Abandon { path, error }));
    assert_eq!(a.closed(), None, "the client may open another");
    let state = a.connection().path_info(path).map(|i| i.state);
    assert!(matches!(state, Some(PathState::Abandoned(_))));
    a.run(std::time::Duration::from_secs(2));
    assert_eq!(a.closed(), Some(ConnectionError::NoPath(error)));
    assert!(a.closes().iter().any(|c| c.1 == error));
}

/// Multipath §4.3: an old status changes nothing.
#[test]
fn an_old_status_is_ignored() {
    let mut a = server();
    let say = |a: &mut Attack, status, seq| {
        let path = PathId(0);
        a.one_rtt(&bytes(&PathFrame::Status { path, status, seq }));
        a.connection().path_info(path).unwrap().peer_status
    };
    assert_eq!(say(&mut a, PathStatus::Backup, 4), Some(PathStatus::Backup));
    assert_eq!(
        say(&mut a, PathStatus::Available, 4),
        Some(PathStatus::Backup)
    );
    assert_eq!(
        say(&mut a, PathStatus::Available, 5),
        Some(PathStatus::Available)
    );
}

/// Multipath §3.2.1: connection IDs for every identifier both admit, without gaps, and none beyond.
#[test]
fn connection_ids_are_issued_ahead() {
    for (limit, last) in [(3, 3), (9, 3), (1, 1), (0, 0)] {
        let mut plan = plan();
        plan.params.initial_max_path_id = Some(PathId(limit));
        let mut a = Attack::on_server(plan);
        a.exchange();
        let mut issued: Vec<u32> = a
            .inbox
            .iter()
            .flat_map(|p| p.frames())
            .filter_map(|f| match f {
                Frame::Path(PathFrame::NewConnectionId { path, .. }) => Some(path.0),
                _ => None,
            })
            .collect();
        issued.sort_unstable();
        issued.dedup();
        assert_eq!(issued, (0..=last).collect::<Vec<_>>(), "limit {limit}");
    }
}

/// Multipath §4: in packets other than 1-RTT packets, whatever was negotiated.
#[test]
fn frames_of_paths_outside_1_rtt_packets_are_a_violation() {
    let mut all: Vec<Vec<u8>> = about(0).iter().map(bytes).collect();
    all.push(path_ack(0));
    all.push(bytes(&PathFrame::MaxPathId(PathId(9))));
    for frame in all {
        for packet in [PacketType::Initial, PacketType::Handshake] {
            let mut a = Attack::on_server(plan());
            let hello = a.peer.flight().remove(0);
            a.send(&hello);
            a.inbox.clear();
            let datagram = match packet {
                PacketType::Initial => a.peer.padded_initial(&frame, 1200),
                _ => a.peer.packet(packet, &frame),
            };
            a.send(&datagram);
            let what = format!("{:x?} in {packet:?}", frame.get(..2));
            a.expect_error(Code::PROTOCOL_VIOLATION, &what);
        }
    }
}

/// Multipath §2.3: ACK frames count for path 0 beside PATH_ACK frames.
#[test]
fn an_ack_frame_is_about_the_first_path() {
    for as_path in [false, true] {
        let mut a = server();
        let streams = a.connection().streams_mut();
        let id = streams.open(corelane::wire::Dir::Uni).expect("a stream");
        streams.write(id, &[5; 3000]).expect("room");
        a.run(std::time::Duration::from_millis(10));
        let in_flight = |a: &mut Attack| a.connection().path_stats().bytes_in_flight;
        assert!(in_flight(&mut a) > 0);
        if as_path {
            let last = *a.peer.spaces[2].ranges().first().expect("received").end();
            let mut frame = vec![0x3e, 0];
            frame.extend([0x80 | (last >> 24) as u8, (last >> 16) as u8]);
            frame.extend([(last >> 8) as u8, last as u8, 0, 0, 0]);
            a.one_rtt(&frame);
            a.expect_alive_with_paths();
        } else {
            a.ack_all();
            assert_eq!(in_flight(&mut a), 0);
        }
    }
}

/// Multipath §2: without the extension its frames are unknown, and none is sent.
#[test]
fn without_negotiation_there_are_no_such_frames() {
    let mut plans = [plan(), plan()];
    plans[0].transport.max_paths = 1;
    plans[1].params.initial_max_path_id = None;
    for plan in plans {
        let mut a = Attack::server_with(plan);
        a.run(std::time::Duration::from_millis(300));
        assert!(!a.connection().is_multipath());
        let ours = |f: &Frame<'_>| matches!(f, Frame::Path(_) | Frame::PathAck { .. });
        assert!(!a.inbox.iter().any(|p| p.has(ours)));
        a.one_rtt(&path_ack(0));
        a.expect_error(Code::FRAME_ENCODING_ERROR, "PATH_ACK");
    }
}
