//! What frames may say, where and to whom: every rule whose breach names an error code.

use crate::common::attack::{Attack, Plan};
use crate::common::raw_peer::{ack_frame, crypto_frame, payload, stream_frame};
use corelane::wire::frame::{self, AckFrequency, NewConnectionId};
use corelane::wire::{Code, ConnectionId, Dir, PacketType, StreamId, Writer};

/// An ACK_FREQUENCY frame with that sequence number.
fn request(seq: u64) -> AckFrequency {
    AckFrequency {
        seq,
        threshold: 9,
        max_ack_delay: 5_000,
        reordering: 1,
    }
}

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
        (0x1f, vec![0x1f]),
        (0xaf, f(&|w| frame::write_ack_frequency(w, &request(0)))),
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
                    // A DATAGRAM frame is named without its length flag.
                    let named = ty & if ty == 0x31 { !1 } else { !0 };
                    let named = a.closes().iter().all(|c| c.2 == Some(named));
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
            let mut a = if server {
                Attack::server()
            } else {
                Attack::client()
            };
            // Streams 0 and 1 exist on both sides.
            let id = a
                .connection()
                .streams_mut()
                .open(Dir::Bi)
                .expect("a stream");
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

/// A connected server endpoint after one 1-RTT payload, with the code that it blamed.
fn server_after(frames: &[u8]) -> (Attack, Option<Code>) {
    let mut a = Attack::server();
    a.one_rtt(frames);
    let code = a.blamed();
    (a, code)
}

#[track_caller]
fn refused(frames: &[u8], code: Code) {
    let (mut a, _) = server_after(frames);
    a.expect_error(code, &format!("{frames:02x?}"));
}

/// RFC 9000 §12.4: a packet without frames is a PROTOCOL_VIOLATION, in every packet type.
#[test]
fn a_packet_without_frames_is_a_protocol_violation() {
    refused(&[], Code::PROTOCOL_VIOLATION);
    for packet in [PacketType::Initial, PacketType::Handshake] {
        let mut a = Attack::on_server(Plan::default());
        let hello = a.peer.flight().remove(0);
        a.send(&hello);
        let empty = a.peer.packet(packet, &[]);
        // §14.1: a server drops Initial packets of small datagrams, so this one is coalesced.
        let mut datagram = empty;
        datagram.resize(1200, 0);
        a.send(&datagram);
        a.expect_error(Code::PROTOCOL_VIOLATION, "an empty packet");
    }
}

/// RFC 9000 §17.2, §17.3.1: reserved bits are zero under header protection.
#[test]
fn reserved_bits_are_a_protocol_violation() {
    for bit in [0x08, 0x10] {
        let mut a = Attack::server();
        let p = a
            .peer
            .packet_at(PacketType::OneRtt, 50, &[1], |b| *b |= bit);
        a.send(&p);
        a.expect_error(Code::PROTOCOL_VIOLATION, "a reserved bit of a short header");
    }
    for bit in [0x04, 0x08] {
        let mut a = Attack::on_server(Plan::default());
        let hello = a.peer.flight().remove(0);
        a.send(&hello);
        let p = a
            .peer
            .packet_at(PacketType::Handshake, 0, &[1], |b| *b |= bit);
        a.send(&p);
        a.expect_error(Code::PROTOCOL_VIOLATION, "a reserved bit of a long header");
    }
}

/// RFC 9000 §17.2, §17.3.1: a packet without the fixed bit is dropped, not an error, unless
/// grease_quic_bit was declared (RFC 9287 §3).
#[test]
fn a_packet_without_the_fixed_bit_is_dropped() {
    let mut plan = Plan::default();
    plan.transport.grease_quic_bit = false;
    let mut a = Attack::server_with(plan);
    let p = a
        .peer
        .packet_at(PacketType::OneRtt, 50, &[1], |b| *b &= !0x40);
    a.send(&p);
    a.expect_alive();
}

/// RFC 9000 §12.4: an unknown frame type, or a type longer than need be.
#[test]
fn unknown_and_overlong_frame_types_are_refused() {
    for ty in (0x20..=0x2f).chain(0x32..0x40) {
        refused(&[ty], Code::FRAME_ENCODING_ERROR);
    }
    refused(&[0x40, 0x40], Code::FRAME_ENCODING_ERROR);
    refused(&[0xff; 8], Code::FRAME_ENCODING_ERROR);
    // PING in two bytes.
    refused(&[0x40, 0x01], Code::PROTOCOL_VIOLATION);
}

/// RFC 9000 §19: a frame that ends before its last field.
#[test]
fn a_frame_cut_short_at_any_byte_is_a_frame_encoding_error() {
    for (ty, bytes) in one_of_each() {
        // STREAM with offset and length is type 0x0e; PADDING and PING cannot be cut.
        for cut in 1..bytes.len() {
            let (a, code) = server_after(&bytes[..cut]);
            assert_eq!(
                code,
                Some(Code::FRAME_ENCODING_ERROR),
                "{ty:#x} cut at {cut}"
            );
            drop(a);
        }
    }
}

/// RFC 9000 §19.8, §3: streams that the peer may not send on, or that nobody opened.
#[test]
fn stream_state_errors() {
    let f = |write: &dyn Fn(&mut Writer<'_>)| payload(|w| write(w));
    // Server-initiated, not opened: bidirectional 1, unidirectional 3.
    refused(&stream_frame(1, 0, b"x", false), Code::STREAM_STATE_ERROR);
    refused(&stream_frame(3, 0, b"x", false), Code::STREAM_STATE_ERROR);
    for id in [1, 3] {
        refused(
            &f(&|w| frame::write_max_stream_data(w, id, 9)),
            Code::STREAM_STATE_ERROR,
        );
        refused(
            &f(&|w| frame::write_stop_sending(w, id, 9)),
            Code::STREAM_STATE_ERROR,
        );
        refused(
            &f(&|w| frame::write_reset_stream(w, id, 9, 0)),
            Code::STREAM_STATE_ERROR,
        );
        refused(
            &f(&|w| frame::write_stream_data_blocked(w, id, 9)),
            Code::STREAM_STATE_ERROR,
        );
    }
    // Client-initiated unidirectional: the server does not send on it.
    refused(
        &f(&|w| frame::write_max_stream_data(w, 2, 9)),
        Code::STREAM_STATE_ERROR,
    );
    refused(
        &f(&|w| frame::write_stop_sending(w, 2, 9)),
        Code::STREAM_STATE_ERROR,
    );
}

/// RFC 9000 §19.8: the error names the frame's type.
#[test]
fn a_stream_error_names_the_frame() {
    let (a, _) = server_after(&stream_frame(1, 0, b"x", false));
    let named: Vec<_> = a.closes().iter().map(|c| c.2).collect();
    assert!(
        named.iter().all(|t| matches!(t, Some(0x08..=0x0f))),
        "{named:?}"
    );
}

/// RFC 9000 §4.6: more streams than MAX_STREAMS said.
#[test]
fn stream_limit_errors() {
    let limit = Plan::default().transport.streams.max_streams_bidi;
    let last = StreamId::new(corelane::wire::Side::Client, Dir::Bi, limit - 1);
    let over = StreamId::new(corelane::wire::Side::Client, Dir::Bi, limit);
    let (mut a, code) = server_after(&stream_frame(last.0, 0, b"x", false));
    assert_eq!(code, None);
    // §21.8 (CVE class): one frame for the last stream does not make state for all before it.
    assert!(a.connection().streams().len() <= 1);
    refused(
        &stream_frame(over.0, 0, b"x", false),
        Code::STREAM_LIMIT_ERROR,
    );
    for write in [frame::write_max_streams, frame::write_streams_blocked] {
        let bytes = payload(|w| write(w, Dir::Bi, (1 << 60) + 1));
        let (_, code) = server_after(&bytes);
        assert!(
            matches!(
                code,
                Some(Code::STREAM_LIMIT_ERROR | Code::FRAME_ENCODING_ERROR)
            ),
            "{code:?}"
        );
    }
}

/// RFC 9000 §4.5: the final size is said once and holds.
#[test]
fn final_size_errors() {
    let two = |a: Vec<u8>, b: Vec<u8>| [a, b].concat();
    let reset = |size| payload(|w| frame::write_reset_stream(w, 0, 1, size));
    let fin = || stream_frame(0, 0, b"abc", true);
    let data = || stream_frame(0, 0, b"abc", false);
    for frames in [
        two(
            stream_frame(0, 5, b"xyz", true),
            stream_frame(0, 9, b"x", false),
        ),
        two(
            stream_frame(0, 5, b"xyz", true),
            stream_frame(0, 5, b"x", true),
        ),
        two(stream_frame(0, 5, b"xyz", true), reset(7)),
        two(data(), reset(2)),
        two(data(), stream_frame(0, 0, b"ab", true)),
    ] {
        refused(&frames, Code::FINAL_SIZE_ERROR);
    }
    for frames in [
        two(fin(), fin()),
        two(fin(), reset(3)),
        two(data(), reset(3)),
    ] {
        assert_eq!(server_after(&frames).1, None, "{frames:02x?}");
    }
}

/// RFC 9000 §4.1: bytes beyond MAX_STREAM_DATA and MAX_DATA, also by a gap or a reset.
#[test]
fn flow_control_errors() {
    let s = Plan::default().transport.streams;
    refused(
        &stream_frame(0, s.stream_window, b"x", false),
        Code::FLOW_CONTROL_ERROR,
    );
    let reset = payload(|w| frame::write_reset_stream(w, 0, 1, s.stream_window + 1));
    refused(&reset, Code::FLOW_CONTROL_ERROR);
    // The connection's window, over several streams that are each within theirs.
    let n = s.connection_window / s.stream_window;
    let mut frames = Vec::new();
    for i in 0..n {
        frames.extend(stream_frame(4 * i, s.stream_window - 1, b"x", false));
    }
    let (_, code) = server_after(&frames);
    assert_eq!(code, None);
    frames.extend(stream_frame(4 * n, 0, b"x", false));
    refused(&frames, Code::FLOW_CONTROL_ERROR);
    // RFC 9000 §19.8: an offset past 2^62 - 1.
    let end = stream_frame(0, (1 << 62) - 1, b"x", false);
    let (_, code) = server_after(&end);
    assert!(matches!(
        code,
        Some(Code::FRAME_ENCODING_ERROR | Code::FLOW_CONTROL_ERROR)
    ));
}

/// RFC 9000 §13.1: an acknowledgement of what was never sent.
#[test]
fn an_ack_of_an_unsent_packet_is_a_protocol_violation() {
    refused(&ack_frame(&[1000..=1000]), Code::PROTOCOL_VIOLATION);
    refused(
        &ack_frame(&[(1 << 62) - 1..=(1 << 62) - 1]),
        Code::PROTOCOL_VIOLATION,
    );
    let mut a = Attack::on_server(Plan::default());
    let hello = a.peer.flight().remove(0);
    a.send(&hello);
    let p = a.peer.packet(PacketType::Handshake, &ack_frame(&[77..=77]));
    a.send(&p);
    a.expect_error(Code::PROTOCOL_VIOLATION, "an ACK in the Handshake space");
}

/// RFC 9000 §19.3: ranges that run below zero.
#[test]
fn ack_ranges_below_zero_are_a_frame_encoding_error() {
    refused(&[2, 3, 0, 0, 4], Code::FRAME_ENCODING_ERROR);
    refused(&[2, 3, 0, 1, 0, 2, 0], Code::FRAME_ENCODING_ERROR);
}

/// RFC 9000 §5.1.1, §19.15, §19.16.
#[test]
fn connection_id_errors() {
    let cid = |n: u8| ConnectionId::new(&[n; 8]).expect("8 bytes");
    let new = |seq, retire_prior_to, cid| {
        let f = NewConnectionId {
            seq,
            retire_prior_to,
            cid,
            reset_token: [seq as u8; 16],
        };
        payload(|w| frame::write_new_connection_id(w, &f))
    };
    let mut behind = new(1, 1, cid(1));
    behind[2] = 2;
    refused(&behind, Code::FRAME_ENCODING_ERROR);
    // Length 0 and 21 in the frame.
    for len in [0u8, 21] {
        let mut bytes = vec![0x18, 1, 0, len];
        bytes.extend(vec![5; usize::from(len) + 16]);
        refused(&bytes, Code::FRAME_ENCODING_ERROR);
    }
    refused(
        &[new(1, 0, cid(1)), new(1, 0, cid(2))].concat(),
        Code::PROTOCOL_VIOLATION,
    );
    refused(
        &[new(1, 0, cid(1)), new(2, 0, cid(1))].concat(),
        Code::PROTOCOL_VIOLATION,
    );
    let many: Vec<u8> = (1..5).flat_map(|n| new(n, 0, cid(n as u8))).collect();
    refused(&many, Code::CONNECTION_ID_LIMIT_ERROR);
    // Never issued; and the one that carries the packet (its sequence number is 0).
    refused(
        &payload(|w| frame::write_retire_connection_id(w, 99)),
        Code::PROTOCOL_VIOLATION,
    );
    refused(
        &payload(|w| frame::write_retire_connection_id(w, 0)),
        Code::PROTOCOL_VIOLATION,
    );
}

/// RFC 9000 §5.1.1: an endpoint that uses zero-length connection IDs is issued none.
#[test]
fn a_peer_without_connection_ids_may_not_issue_any() {
    let mut a = Attack::on_server(Plan::default());
    let dcid = a.peer.dcid;
    let mut params = crate::common::attack::params();
    params.initial_source_connection_id = Some(ConnectionId::EMPTY);
    let mut encoded = Vec::new();
    params.encode(
        corelane::wire::Side::Client,
        &mut encoded,
        &mut corelane::base::Rng::from_u64(1),
    );
    a.new_client_with(ConnectionId::EMPTY, dcid, encoded);
    a.handshake();
    let f = NewConnectionId {
        seq: 1,
        retire_prior_to: 0,
        cid: ConnectionId::new(&[3; 8]).expect("8 bytes"),
        reset_token: [1; 16],
    };
    a.one_rtt(&payload(|w| frame::write_new_connection_id(w, &f)));
    a.expect_error(Code::PROTOCOL_VIOLATION, "NEW_CONNECTION_ID");
}

/// RFC 9221 §3: a datagram that was not asked for, or larger than was said.
#[test]
fn datagrams_that_were_not_asked_for_are_a_protocol_violation() {
    let mut plan = Plan::default();
    plan.transport.datagram_receive_buffer = 0;
    let mut a = Attack::server_with(plan);
    a.one_rtt(&[0x31, 1, 7]);
    a.expect_error(Code::PROTOCOL_VIOLATION, "a datagram");
    let mut plan = Plan::default();
    plan.transport.datagram_receive_buffer = 100;
    let mut a = Attack::server_with(plan);
    let mut frame = vec![0x30];
    frame.resize(101, 7);
    let fits = &frame[..100];
    a.one_rtt(fits);
    assert_eq!(a.closed(), None);
    a.one_rtt(&frame);
    a.expect_error(Code::PROTOCOL_VIOLATION, "a datagram too large");
}

/// RFC 9221 §4: a datagram may be empty.
#[test]
fn an_empty_datagram_is_delivered() {
    let mut a = Attack::server();
    a.one_rtt(&[0x31, 0]);
    assert_eq!(a.connection().recv_datagram().as_deref(), Some(&[][..]));
    a.expect_alive();
}

/// ACK frequency §3: frames of an extension that was not declared are of unknown type.
#[test]
fn ack_frequency_frames_that_were_not_asked_for_are_refused() {
    for bytes in [
        vec![0x1f],
        payload(|w| frame::write_ack_frequency(w, &request(0))),
    ] {
        let mut plan = Plan::default();
        plan.transport.min_ack_delay = None;
        let mut a = Attack::server_with(plan);
        a.one_rtt(&bytes);
        a.expect_error(Code::FRAME_ENCODING_ERROR, "an undeclared extension");
    }
}

/// ACK frequency §4: delays below min_ack_delay, and those that max_ack_delay cannot have.
#[test]
fn ack_frequency_asks_for_possible_delays_only() {
    for (max_ack_delay, possible) in [
        (0, false),
        (999, false),
        (1_000, true),
        (16_383_999, true),
        (16_384_000, false),
        ((1 << 62) - 1, false),
    ] {
        for seq in [0, 5] {
            let mut a = Attack::server();
            // A frame that is obsolete is checked all the same.
            let newer = payload(|w| frame::write_ack_frequency(w, &request(3)));
            a.one_rtt(&newer);
            let f = AckFrequency {
                max_ack_delay,
                ..request(seq)
            };
            a.one_rtt(&payload(|w| frame::write_ack_frequency(w, &f)));
            match possible {
                true => assert_eq!(a.closed(), None),
                false => a.expect_error(Code::PROTOCOL_VIOLATION, "an impossible delay"),
            }
        }
    }
}

/// Packets with a PING each, in datagrams of their own, until one is acknowledged.
fn pings_until_acknowledged(a: &mut Attack) -> usize {
    a.inbox.clear();
    for n in 1..200 {
        a.one_rtt(&[0x01]);
        if a.inbox
            .iter()
            .any(|p| p.has(|f| matches!(f, frame::Frame::Ack(_))))
        {
            return n;
        }
    }
    panic!("no acknowledgement");
}

/// ACK frequency §4, §6: the threshold counts, the newest frame counts, and IMMEDIATE_ACK does not
/// wait for it.
#[test]
fn acknowledgements_come_as_often_as_was_asked() {
    let mut a = Attack::server();
    a.run(std::time::Duration::from_millis(100));
    assert_eq!(pings_until_acknowledged(&mut a), 2, "RFC 9000");
    let ask = |a: &mut Attack, seq, threshold| {
        let f = AckFrequency {
            threshold,
            max_ack_delay: 500_000,
            ..request(seq)
        };
        let both = [payload(|w| frame::write_ack_frequency(w, &f)), vec![0x1f]].concat();
        a.one_rtt(&both);
    };
    ask(&mut a, 4, 20);
    assert_eq!(pings_until_acknowledged(&mut a), 21);
    ask(&mut a, 3, 5);
    assert_eq!(pings_until_acknowledged(&mut a), 21, "an older frame");
    ask(&mut a, 4, 5);
    assert_eq!(pings_until_acknowledged(&mut a), 21, "the same frame again");
    ask(&mut a, 5, 0);
    assert_eq!(pings_until_acknowledged(&mut a), 1);
    ask(&mut a, 6, (1 << 62) - 1);
    a.inbox.clear();
    for _ in 0..10 {
        a.one_rtt(&[0x01]);
    }
    assert!(a.inbox.is_empty());
    a.one_rtt(&[0x1f]);
    assert!(!a.inbox.is_empty(), "IMMEDIATE_ACK");
    // And the delay still bounds it.
    a.inbox.clear();
    a.one_rtt(&[0x01]);
    a.run(std::time::Duration::from_millis(499));
    assert!(a.inbox.is_empty());
    a.run(std::time::Duration::from_millis(2));
    assert!(!a.inbox.is_empty());
}
