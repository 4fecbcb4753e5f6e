//! Every frame about paths in every state, packet type and range that it may not come in, at either
//! side: the connection ends with the code that the text names, or nothing happens.

use crate::common::attack::{Attack, Plan};
use crate::common::raw_peer::{ack_frame, payload};
use crate::scripted::*;
use corelane::conn::{ConnectionError, OpenPathError};
use corelane::crypto::Keys;
use corelane::path::{PathId, PathState, PathStatus};
use corelane::wire::frame::{NewConnectionId, PathFrame};
use corelane::wire::{Code, ConnectionId, PacketType};
use std::time::Duration;

/// The largest varint.
const MOST: u64 = (1 << 62) - 1;

fn either(plan: fn() -> Plan) -> [Several; 2] {
    [Several::server(plan()), Several::client(plan())]
}

/// A frame from its type and fields, whatever they are.
fn raw(ty: u64, fields: &[u64], rest: &[u8]) -> Vec<u8> {
    payload(|w| {
        w.varint(ty);
        for field in fields {
            w.varint(*field);
        }
        w.bytes(rest);
    })
}

/// A PATH_NEW_CONNECTION_ID frame of any length of connection ID, said and real.
fn raw_new_cid(path: u64, (seq, retire_prior_to): (u64, u64), len: u8, real: usize) -> Vec<u8> {
    let mut rest = vec![len];
    rest.extend(vec![0xab; real]);
    rest.extend([7; 16]);
    raw(0x3e78, &[path, seq, retire_prior_to], &rest)
}

/// Every frame of multipath §4 about a path, or with it as the largest.
fn all(path: u64) -> Vec<Vec<u8>> {
    let mut out = vec![raw(0x3e, &[path, 0, 0, 0, 0], &[])];
    out.push(raw(0x3f, &[path, 0, 0, 0, 0, 0, 0, 0], &[]));
    for ty in [0x3e75, 0x3e76, 0x3e77, 0x3e79, 0x3e7c] {
        out.push(raw(ty, &[path, 0], &[]));
    }
    out.push(raw_new_cid(path, (0, 0), 8, 8));
    out.push(raw(0x3e7a, &[path], &[]));
    out.push(raw(0x3e7b, &[path], &[]));
    out
}

#[track_caller]
fn refused(mut s: Several, frame: &[u8], code: Code) {
    s.a.one_rtt(frame);
    let start = frame.get(..frame.len().min(12)).unwrap_or_default();
    s.expect_error(code, &format!("{start:x?}"));
}

/// Multipath §2: whoever of the two did not declare the extension.
#[test]
fn what_was_not_negotiated_is_unknown_to_either_side() {
    let plans: [fn() -> Plan; 2] = [
        || {
            let mut plan = plan();
            plan.transport.max_paths = 1;
            plan
        },
        || {
            let mut plan = plan();
            plan.params.initial_max_path_id = None;
            plan
        },
    ];
    for plan in plans {
        for frame in all(0) {
            for s in either(plan) {
                refused(s, &frame, Code::FRAME_ENCODING_ERROR);
            }
        }
    }
}

/// Multipath §4: in early data.
#[test]
fn frames_of_paths_in_early_data_are_a_violation() {
    for frame in all(0) {
        let mut plan = plan();
        plan.early = true;
        let mut a = Attack::server_with(plan);
        a.end();
        a.new_client(8);
        let session = a.peer.session.as_ref().expect("a session");
        let key = || session.zero_rtt_keys().expect("early data");
        let (local, remote) = (key(), key());
        a.peer.spaces[2].keys = Some(Keys { local, remote });
        for datagram in a.peer.flight() {
            a.send(&datagram);
        }
        let packet = a.peer.packet(PacketType::ZeroRtt, &frame);
        a.send(&packet);
        assert_eq!(a.blamed(), Some(Code::PROTOCOL_VIOLATION), "{frame:x?}");
    }
}

/// Multipath §4: in the handshake's packets, to a client; `rules` has it of a server.
#[test]
fn frames_of_paths_in_the_handshakes_packets_are_a_violation_to_a_client() {
    for frame in all(0) {
        for ty in [PacketType::Initial, PacketType::Handshake] {
            let mut a = Attack::on_client(plan());
            a.start_server(|_| {});
            if ty == PacketType::Handshake {
                let hello = a.peer.flight().remove(0);
                a.send(&hello);
            }
            let datagram = match ty {
                PacketType::Initial => a.peer.padded_initial(&frame, 1200),
                _ => a.peer.packet(ty, &frame),
            };
            a.send(&datagram);
            assert_eq!(
                a.blamed(),
                Some(Code::PROTOCOL_VIOLATION),
                "{ty:?} {frame:x?}"
            );
        }
    }
}

/// Before the handshake is confirmed to a client they mean what they mean afterwards, but that it
/// opens no path yet.
#[test]
fn frames_of_paths_before_the_handshake_is_confirmed() {
    let unconfirmed = || {
        let mut a = Attack::on_client(plan());
        a.start_server(|_| {});
        a.exchange();
        Several::around(a)
    };
    for (n, frame) in all(1).iter().enumerate() {
        let mut s = unconfirmed();
        s.a.one_rtt(frame);
        match n {
            0 | 1 => s.expect_error(Code::PROTOCOL_VIOLATION, "PATH_ACK of nothing"),
            // MAX_PATH_ID below the first.
            8 => s.expect_error(Code::PROTOCOL_VIOLATION, "MAX_PATH_ID"),
            _ => {
                s.expect_alive();
                assert_eq!(s.open_path(), None);
                s.a.one_rtt(&[0x1e]);
                for path in 1..4 {
                    s.issue(path, 1);
                }
                assert!(s.open_path().is_some());
                s.expect_alive();
            }
        }
    }
    // The only path there is.
    let mut s = unconfirmed();
    s.a.one_rtt(&abandon(0));
    let (now, tuple) = (s.a.now, s.a.connection().path());
    let conn = s.a.connection();
    let socket = corelane::base::SocketId(0);
    let why = conn.open_path(now, socket, tuple, PathStatus::Available);
    assert_eq!(why, Err(OpenPathError::NotConfirmed));
    s.a.run(Duration::from_secs(10));
    assert_eq!(s.a.closed(), Some(ConnectionError::NoPath(Code::NO_ERROR)));
    s.a.run(Duration::from_secs(60));
    assert!(s.a.endpoint.is_empty());
}

/// Multipath §4: above what was announced, and above all that can be.
#[test]
fn identifiers_out_of_range_are_a_violation_to_either_side() {
    for path in [4, u32::MAX.into(), 1 << 32, MOST] {
        for frame in all(path) {
            let max_path_id = frame[..2] == [0x7e, 0x7a];
            for mut s in either(plan) {
                if max_path_id && path < 1 << 32 {
                    s.a.one_rtt(&frame);
                    s.expect_alive();
                } else {
                    refused(s, &frame, Code::PROTOCOL_VIOLATION);
                }
            }
        }
    }
}

/// RFC 9000 §19.15 by multipath §4.4: malformed.
#[test]
fn connection_ids_of_impossible_length_or_order_are_malformed() {
    let bad = [
        raw_new_cid(1, (0, 1), 8, 8),
        raw_new_cid(1, (5, 6), 8, 8),
        raw_new_cid(1, (0, MOST), 8, 8),
        raw_new_cid(1, (0, 0), 0, 0),
        raw_new_cid(1, (0, 0), 21, 21),
        raw_new_cid(1, (0, 0), 255, 255),
        raw_new_cid(1, (0, 0), 20, 3),
    ];
    for frame in bad {
        for s in either(plan) {
            refused(s, &frame, Code::FRAME_ENCODING_ERROR);
        }
    }
    for len in [1, 20] {
        for mut s in either(plan) {
            s.a.one_rtt(&raw_new_cid(1, (0, 0), len, len.into()));
            s.expect_alive();
        }
    }
}

/// RFC 9000 §12.4: cut short anywhere.
#[test]
fn frames_of_paths_cut_short_are_malformed() {
    for frame in all(0) {
        for len in 1..frame.len() {
            if len == 1 && frame[0] & 0xc0 != 0 || len > 1 {
                let s = Several::server(plan());
                refused(s, &frame[..len], Code::FRAME_ENCODING_ERROR);
            }
        }
    }
}

fn new_of(path: u32, seq: u64, cid: ConnectionId, token: u8) -> Vec<u8> {
    let new = NewConnectionId {
        seq,
        retire_prior_to: 0,
        cid,
        reset_token: [token; 16],
    };
    let path = PathId(path);
    bytes(&PathFrame::NewConnectionId { path, new })
}

/// RFC 9000 §5.1, §19.15: the same number or connection ID for something else.
#[test]
fn a_connection_id_that_changes_is_a_violation() {
    let (one, two) = (cid_of(9, 1), cid_of(9, 2));
    for path in [0, 1, 3] {
        for other in [
            new_of(path, 2, two, 1),
            new_of(path, 3, one, 1),
            new_of(path, 2, one, 2),
            new_of(2, 2, one, 1),
        ] {
            for mut s in either(plan) {
                s.a.one_rtt(&new_of(path, 2, one, 1));
                s.a.one_rtt(&new_of(path, 2, one, 1));
                s.expect_alive();
                refused(s, &other, Code::PROTOCOL_VIOLATION);
            }
        }
    }
    // The one of the handshake, for another path.
    for s in either(plan) {
        let first = s.a.peer.scid;
        refused(s, &new_of(1, 0, first, 1), Code::PROTOCOL_VIOLATION);
    }
}

/// Numbers at the end of their range: refused where nothing can have them, and else the last.
#[test]
fn the_largest_numbers() {
    for ty in [0x3e79, 0x3e7c] {
        for path in [0, 1, 3] {
            for s in either(plan) {
                refused(s, &raw(ty, &[path, MOST], &[]), Code::PROTOCOL_VIOLATION);
            }
        }
    }
    for mut s in either(plan) {
        for path in 0..4 {
            s.a.one_rtt(&status(path, PathStatus::Backup, MOST));
            s.a.one_rtt(&status(path, PathStatus::Available, MOST));
            s.a.one_rtt(&raw(0x3e75, &[3, MOST], &[]));
        }
        let info = s.a.connection().path_info(PathId(0)).expect("there");
        assert_eq!(info.peer_status, Some(PathStatus::Backup));
        s.issue(1, 0);
        let last = |rpt| {
            let new = NewConnectionId {
                seq: MOST,
                retire_prior_to: rpt,
                cid: cid_of(1, 77),
                reset_token: [7; 16],
            };
            let path = PathId(1);
            bytes(&PathFrame::NewConnectionId { path, new })
        };
        s.a.one_rtt(&last(0));
        s.a.one_rtt(&last(MOST));
        s.expect_alive();
        // There is none after it.
        s.issue(1, 3);
        s.a.one_rtt(&new_of(2, MOST, cid_of(2, 1), 1));
        s.expect_alive();
    }
    // A close code of any size is told in kind.
    let mut s = Several::server(plan());
    s.a.one_rtt(&raw(0x3e75, &[0, MOST], &[]));
    s.a.run(Duration::from_secs(3));
    assert_eq!(s.a.closed(), Some(ConnectionError::NoPath(Code(MOST))));
}

/// Multipath §4: of a path that was abandoned, and of one that is forgotten, nothing is heard, by
/// whichever frame.
#[test]
fn an_abandoned_path_is_never_heard_of() {
    let mut s = Several::client(plan());
    for path in 1..4 {
        s.issue(path, 0);
        s.issue(path, 1);
    }
    // The second path answers, and then the first is abandoned.
    assert_eq!(s.open_path(), Some(PathId(1)));
    s.a.collect();
    let home = s.a.peer_addr;
    s.settle(1, home);
    s.acknowledge();
    for path in [0, 2] {
        s.send(1, home, &abandon(path));
    }
    let mut about: Vec<Vec<u8>> = [0, 2].into_iter().flat_map(all).collect();
    about.retain(|frame| frame[..2] != [0x7e, 0x7a]);
    about.push(ack_frame(&[0..=0]));
    about.push(raw(0x18, &[0, 0], &{
        let mut cid = vec![8];
        cid.extend([5; 24]);
        cid
    }));
    about.push(raw(0x19, &[0], &[]));
    about.push(raw(0x3e79, &[0, 9], &[]));
    about.push(raw(0x3e7c, &[2, MOST], &[]));
    for round in 0..2 {
        for frame in &about {
            s.send(1, home, frame);
            assert_eq!(s.a.closed(), None, "{round}: {frame:x?}");
        }
        s.a.run(Duration::from_secs(5));
        s.read();
        let ranges = s.ranges(1);
        s.send(1, home, &path_ack(1, &ranges));
    }
    assert_eq!((s.state(0), s.state(2)), (None, None), "forgotten");
    assert_eq!(s.state(1), Some(PathState::Open));
}

/// Multipath §2.1: of a server that uses no connection ID, and by a client that uses none itself.
#[test]
fn no_connection_ids_and_no_several_paths() {
    let mut a = Attack::on_client(plan());
    a.peer.scid = ConnectionId::EMPTY;
    a.start_server(|_| {});
    a.exchange();
    assert_eq!(a.blamed(), Some(Code::PROTOCOL_VIOLATION));
    let mut plan = plan();
    plan.transport.zero_length_cid = true;
    let mut a = Attack::on_client(plan);
    a.start_server(|_| {});
    a.exchange();
    assert_eq!(a.closed(), None);
    assert!(!a.connection().is_multipath());
}

/// Multipath §4.3: what is said of a path ahead of its use holds once it is used.
#[test]
fn a_status_ahead_of_the_path_holds() {
    let mut s = Several::server(plan());
    s.a.one_rtt(&status(1, PathStatus::Backup, 7));
    s.establish(1, second());
    let of = |s: &mut Several| s.a.connection().path_info(PathId(1)).unwrap().peer_status;
    assert_eq!(of(&mut s), Some(PathStatus::Backup));
    s.a.one_rtt(&status(1, PathStatus::Available, 6));
    assert_eq!(of(&mut s), Some(PathStatus::Backup));
    s.a.one_rtt(&status(1, PathStatus::Available, 8));
    assert_eq!(of(&mut s), Some(PathStatus::Available));
}
