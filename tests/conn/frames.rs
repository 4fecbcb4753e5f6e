//! What frames may say, where and to whom: every rule whose breach names an error code.

use crate::common::attack::{Attack, Plan};
use crate::common::raw_peer::{ack_frame, crypto_frame, payload, stream_frame};
use corelane::wire::frame::{self, NewConnectionId};
use corelane::wire::{Code, ConnectionId, Dir, PacketType, StreamId, Writer};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// One frame of every type, valid in itself.
fn one_of_each() -> Vec<(u64, Vec<u8>)> {
    let cid = ConnectionId::new(&[9; 8]).expect("8 bytes");
    let f = |write: &dyn Fn(&mut Writer<'_>)| payload(|w| write(w));
    let new_cid = NewConnectionId {
        seq: 1,
        retire_prior_to: 0,
        cid,
        reset_token: [1; 16],
    };
    vec![
        (0x00, vec![0]),
        (0x01, vec![1]),
        (0x02, ack_frame(&[0..=0])),
        (0x03, vec![3, 0, 0, 0, 0, 0, 0, 0]),
        (0x04, f(&|w| frame::write_reset_stream(w, 0, 1, 0))),
        (0x05, f(&|w| frame::write_stop_sending(w, 1, 1))),
        (0x06, crypto_frame(1000, b"later")),
        (0x07, f(&|w| frame::write_new_token(w, b"token"))),
        (0x08, stream_frame(0, 0, b"x", false)),
        (0x10, f(&|w| frame::write_max_data(w, 5))),
        (0x11, f(&|w| frame::write_max_stream_data(w, 1, 5))),
        (0x12, f(&|w| frame::write_max_streams(w, Dir::Bi, 5))),
        (0x13, f(&|w| frame::write_max_streams(w, Dir::Uni, 5))),
        (0x14, f(&|w| frame::write_data_blocked(w, 5))),
        (0x15, f(&|w| frame::write_stream_data_blocked(w, 0, 5))),
        (0x16, f(&|w| frame::write_streams_blocked(w, Dir::Bi, 5))),
        (0x17, f(&|w| frame::write_streams_blocked(w, Dir::Uni, 5))),
        (0x18, f(&|w| frame::write_new_connection_id(w, &new_cid))),
        (0x19, f(&|w| frame::write_retire_connection_id(w, 1))),
        (0x1a, f(&|w| frame::write_path_challenge(w, &[1; 8]))),
        (0x1b, f(&|w| frame::write_path_response(w, &[1; 8]))),
        (0x1c, vec![0x1c, 0, 0, 0]),
        (0x1d, vec![0x1d, 0, 0]),
        (0x1e, vec![0x1e]),
        (0x31, vec![0x31, 1, 7]),
    ]
}

/// RFC 9000 §12.4, table 3, and §12.5.
#[test]
fn every_frame_in_every_packet_type_is_admitted_or_a_protocol_violation() {
    let admitted = |ty: u64| matches!(ty, 0x00..=0x03 | 0x06 | 0x1c);
    for (ty, bytes) in one_of_each() {
        for packet in [PacketType::Initial, PacketType::Handshake] {
            let mut a = Attack::on_server(Plan::default());
            let hello = a.peer.flight().remove(0);
            a.send(&hello);
            assert!(a.peer.spaces[1].keys.is_some(), "the server answered");
            a.inbox.clear();
            let datagram = match packet {
                PacketType::Initial => a.peer.padded_initial(&bytes, 1200),
                _ => a.peer.packet(packet, &bytes),
            };
            a.send(&datagram);
            match (admitted(ty), ty) {
                (true, 0x1c) => assert!(a.closed().is_some() && a.blamed().is_none()),
                (true, _) => assert_eq!(a.closed(), None, "{ty:#x} in {packet:?}"),
                (false, _) => {
                    a.expect_error(Code::PROTOCOL_VIOLATION, &format!("{ty:#x} in {packet:?}"));
                    let named = a.closes().iter().all(|c| c.2 == Some(ty));
                    assert!(named, "{ty:#x}: {:?}", a.closes());
                }
            }
        }
    }
}

/// RFC 9000 §19.7, §19.20: only servers send NEW_TOKEN and HANDSHAKE_DONE.
#[test]
fn every_frame_in_a_1rtt_packet_is_taken_but_for_those_of_the_other_role() {
    for server in [true, false] {
        for (ty, bytes) in one_of_each() {
            let mut a = if server { Attack::server() } else { Attack::client() };
            // Streams 0 and 1 exist on both sides.
            let id = a.connection().streams_mut().open(Dir::Bi).expect("a stream");
            a.connection().streams_mut().write(id, b"x").expect("room");
            let theirs = StreamId::new(a.peer.side, Dir::Bi, 0).0;
            a.one_rtt(&stream_frame(theirs, 0, b"a", false));
            let bytes = match ty {
                0x04 | 0x15 => {
                    let mut b = bytes;
                    b[1] = theirs as u8;
                    if ty == 0x04 {
                        b[3] = 1;
                    }
                    b
                }
                0x05 | 0x11 => {
                    let mut b = bytes;
                    b[1] = id.0 as u8;
                    b
                }
                0x08 => stream_frame(theirs, 1, b"x", false),
                _ => bytes,
            };
            a.one_rtt(&bytes);
            let wrong_role = server && matches!(ty, 0x07 | 0x1e);
            let what = format!("{ty:#x} at a {:?}", a.side());
            if wrong_role {
                a.expect_error(Code::PROTOCOL_VIOLATION, &what);
            } else if matches!(ty, 0x1c | 0x1d) {
                assert!(a.closed().is_some() && a.blamed().is_none());
            } else {
                assert_eq!(a.closed(), None, "{what}");
            }
        }
    }
}
