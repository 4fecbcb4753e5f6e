//! Frames against the RFC's tables and limits, each cut at every byte.

use super::*;
use crate::base::limits::REASON_BYTES;
use crate::wire::cid::ConnectionId;
use crate::wire::error::Code;
use crate::wire::varint::fit_prefixed;

/// Parses `bytes` as exactly one frame.
#[track_caller]
pub(super) fn one(bytes: &[u8]) -> Frame<'_> {
    let mut r = Reader::new(bytes);
    let frame = Frame::parse(&mut r).unwrap_or_else(|e| panic!("{e} in {bytes:02x?}"));
    assert!(r.is_empty(), "{} bytes are left", r.remaining());
    frame
}

#[track_caller]
pub(super) fn fails(bytes: &[u8], code: Code, frame_type: u64) {
    match Frame::parse(&mut Reader::new(bytes)) {
        Ok(frame) => panic!("{bytes:02x?} gave {frame:?}"),
        Err(e) => assert_eq!((e.code, e.frame_type), (code, frame_type), "{bytes:02x?}"),
    }
}

pub(super) fn written(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut buf = [0; 4096];
    let mut w = Writer::new(&mut buf);
    write(&mut w);
    w.written().to_vec()
}

/// Every frame type in an encoding whose last field ends the frame, so that every cut shows.
fn samples() -> Vec<(u64, Vec<u8>)> {
    let cid = ConnectionId::new(&[0xc; 8]).unwrap();
    let ecn = Some(EcnCounts {
        ect0: 70,
        ect1: 0,
        ce: 20_000,
    });
    let ranges = [90..=100, 70..=80, 3..=3];
    vec![
        (
            0x02,
            written(|w| assert_eq!(ack::write(w, ranges.clone(), 9, None), 3)),
        ),
        (
            0x03,
            written(|w| assert_eq!(ack::write(w, ranges, 9, ecn), 3)),
        ),
        (0x04, written(|w| write_reset_stream(w, 4, 99, 1 << 20))),
        (0x05, written(|w| write_stop_sending(w, 4, 1 << 40))),
        (
            0x06,
            written(|w| {
                write_crypto_header(w, 1200, 3);
                w.bytes(&[1, 2, 3]);
            }),
        ),
        (0x07, written(|w| write_new_token(w, &[7; 100]))),
        (
            0x0b,
            written(|w| {
                stream::write_header(w, 0, 0, Some(2), true);
                w.bytes(&[1, 2]);
            }),
        ),
        (
            0x0e,
            written(|w| {
                stream::write_header(w, 7, 1 << 30, Some(2), false);
                w.bytes(&[1, 2]);
            }),
        ),
        (0x10, written(|w| write_max_data(w, MAX))),
        (0x11, written(|w| write_max_stream_data(w, 5, 100))),
        (0x12, written(|w| write_max_streams(w, Dir::Bi, 1 << 60))),
        (0x13, written(|w| write_max_streams(w, Dir::Uni, 3))),
        (0x14, written(|w| write_data_blocked(w, 1 << 14))),
        (0x15, written(|w| write_stream_data_blocked(w, 8, 1 << 6))),
        (0x16, written(|w| write_streams_blocked(w, Dir::Bi, 0))),
        (
            0x17,
            written(|w| write_streams_blocked(w, Dir::Uni, 1 << 60)),
        ),
        (
            0x18,
            written(|w| {
                let (seq, retire_prior_to) = (3, 2);
                write_new_connection_id(
                    w,
                    &NewConnectionId {
                        seq,
                        retire_prior_to,
                        cid,
                        reset_token: [5; 16],
                    },
                );
            }),
        ),
        (0x19, written(|w| write_retire_connection_id(w, 1000))),
        (
            0xaf,
            written(|w| {
                let f = AckFrequency {
                    seq: 9,
                    threshold: 63,
                    max_ack_delay: 25_000,
                    reordering: 3,
                };
                write_ack_frequency(w, &f);
            }),
        ),
        (0x1a, written(|w| write_path_challenge(w, b"abcdefgh"))),
        (0x1b, written(|w| write_path_response(w, b"abcdefgh"))),
        (0x1c, close(Some(0x0a), b"why")),
        (0x1d, close(None, b"why")),
        (
            0x31,
            written(|w| {
                write_datagram_header(w, Some(2));
                w.bytes(&[1, 2]);
            }),
        ),
    ]
}

fn close(frame_type: Option<u64>, reason: &[u8]) -> Vec<u8> {
    let error = Code(0x4000);
    written(|w| {
        assert!(write_connection_close(
            w,
            &ConnectionClose {
                error,
                frame_type,
                reason
            }
        ))
    })
}

#[test]
fn every_frame_reads_back_and_every_cut_of_it_is_an_encoding_error() {
    for (ty, bytes) in samples().into_iter().chain(multipath::tests::samples()) {
        let mut r = Reader::new(&bytes);
        assert_eq!(r.varint(), Ok(ty));
        let type_len = r.position();
        let frame = one(&bytes);
        // The flags that only say which fields are there are not part of `ty()`.
        let named = match ty {
            0x0b => 0x09,
            0x0e => 0x08,
            0x31 => 0x30,
            ty => ty,
        };
        assert_eq!(frame.ty(), named);
        for cut in 1..bytes.len() {
            let named = if cut < type_len { 0 } else { ty };
            fails(&bytes[..cut], Code::FRAME_ENCODING_ERROR, named);
        }
        let again = written(|w| assert!(frame.write(w)));
        assert_eq!(one(&again), frame);
        assert!(again.len() <= frame.write_size());
    }
    fails(&[], Code::FRAME_ENCODING_ERROR, 0);
}

#[test]
fn frames_without_fields() {
    assert_eq!(one(&[0x01]), Frame::Ping);
    assert_eq!(one(&[0x1e]), Frame::HandshakeDone);
    assert_eq!(one(&[0x00]), Frame::Padding);
    assert_eq!(one(&[0x00; 1200]), Frame::Padding);
    let mut r = Reader::new(&[0, 0, 0, 1, 0]);
    let mut next = || (Frame::parse(&mut r).unwrap(), r.position());
    assert_eq!(next(), (Frame::Padding, 3));
    assert_eq!(next(), (Frame::Ping, 4));
    assert_eq!(next(), (Frame::Padding, 5));
}

#[test]
fn frame_types_take_one_byte_and_no_other() {
    // RFC 9000 §12.4: every longer encoding of a type below 64, known or not.
    for ty in 0..64u64 {
        for bytes in [
            (0x4000 | ty as u16).to_be_bytes().to_vec(),
            (0x8000_0000 | ty as u32).to_be_bytes().to_vec(),
            (0xc000_0000_0000_0000 | ty).to_be_bytes().to_vec(),
        ] {
            fails(&bytes, Code::PROTOCOL_VIOLATION, ty);
            for cut in 1..bytes.len() {
                fails(&bytes[..cut], Code::FRAME_ENCODING_ERROR, 0);
            }
        }
    }
    // A longer type in its shortest form is merely unknown; in any longer form it is a violation.
    for (ty, shortest) in [
        (0x43, 2),
        (0x3e74, 2),
        (0x3e7d, 2),
        (0x4000, 4),
        (0x4000_0000, 8),
        (MAX, 8),
    ] {
        for len in [2usize, 4, 8] {
            if len < shortest {
                continue;
            }
            let form = (len.trailing_zeros() as u64) << 62 >> (64 - 8 * len);
            let value = (form | ty).to_be_bytes();
            let code = if len == shortest {
                Code::FRAME_ENCODING_ERROR
            } else {
                Code::PROTOCOL_VIOLATION
            };
            fails(&value[8 - len..], code, ty);
        }
    }
}

#[test]
fn unknown_frame_types_are_encoding_errors() {
    for ty in (0x20..0x30).chain(0x32..0x3e) {
        fails(&[ty, 0, 0, 0], Code::FRAME_ENCODING_ERROR, u64::from(ty));
    }
}

#[test]
fn the_table_of_frames_and_packets() {
    // RFC 9000 §12.4, table 3, with "ih" spelled out and less what §12.5 says cannot be in 0-RTT;
    // RFC 9221 §4; and multipath §4.
    let table = [
        (0x00, "IH01"),
        (0x01, "IH01"),
        (0x02, "IH_1"),
        (0x03, "IH_1"),
        (0x04, "__01"),
        (0x05, "__01"),
        (0x06, "IH_1"),
        (0x07, "___1"),
        (0x08, "__01"),
        (0x09, "__01"),
        (0x0f, "__01"),
        (0x10, "__01"),
        (0x11, "__01"),
        (0x12, "__01"),
        (0x13, "__01"),
        (0x14, "__01"),
        (0x15, "__01"),
        (0x16, "__01"),
        (0x17, "__01"),
        (0x18, "__01"),
        (0x19, "___1"),
        (0x1a, "__01"),
        (0x1b, "___1"),
        (0x1c, "IH01"),
        (0x1d, "__01"),
        (0x1e, "___1"),
        (0x30, "__01"),
        (0x31, "__01"),
        (0x3e, "___1"),
        (0x3f, "___1"),
        (0x40, "___1"),
        (0x41, "___1"),
        (0x42, "___1"),
        (0x3e75, "___1"),
        (0x3e76, "___1"),
        (0x3e77, "___1"),
        (0x3e78, "___1"),
        (0x3e79, "___1"),
        (0x3e7a, "___1"),
        (0x3e7b, "___1"),
        (0x3e7c, "___1"),
    ];
    let packets = [
        PacketType::Initial,
        PacketType::Handshake,
        PacketType::ZeroRtt,
        PacketType::OneRtt,
    ];
    for (ty, row) in table {
        for (packet, mark) in packets.into_iter().zip(row.chars()) {
            assert_eq!(
                Frame::allowed_in(ty, packet),
                mark != '_',
                "{ty:#x} in {packet:?}"
            );
        }
    }
}

#[test]
fn what_elicits_an_acknowledgment_and_what_probes() {
    for (ty, bytes) in samples().into_iter().chain(multipath::tests::samples()) {
        let frame = one(&bytes);
        // RFC 9000 §12.4, table 3: marks N and P.
        let quiet = [0x00, 0x02, 0x03, 0x1c, 0x1d, 0x3e, 0x3f];
        let probing = [0x00, 0x18, 0x1a, 0x1b];
        assert_eq!(frame.is_ack_eliciting(), !quiet.contains(&ty), "{ty:#x}");
        assert_eq!(frame.is_probing(), probing.contains(&ty), "{ty:#x}");
    }
    assert!(!Frame::Padding.is_ack_eliciting() && Frame::Padding.is_probing());
    assert!(Frame::Ping.is_ack_eliciting() && !Frame::Ping.is_probing());
    assert!(Frame::HandshakeDone.is_ack_eliciting());
}

#[test]
fn stream_frames_in_all_eight_forms() {
    for flags in 0..8u8 {
        let (off, len, fin) = (flags & 4 != 0, flags & 2 != 0, flags & 1 != 0);
        let mut bytes = vec![0x08 | flags, 0x09];
        bytes.extend(off.then_some([0x44, 0xb0]).into_iter().flatten());
        bytes.extend(len.then_some(3));
        bytes.extend([7, 7, 7]);
        let expected = Stream {
            id: 9,
            offset: if off { 1200 } else { 0 },
            data: &[7, 7, 7],
            fin,
        };
        assert_eq!(one(&bytes), Frame::Stream(expected));
        let stated = len.then_some(3);
        let mut buf = [0; 16];
        let mut w = Writer::new(&mut buf);
        stream::write_header(&mut w, expected.id, expected.offset, stated, fin);
        assert_eq!(
            w.position(),
            stream::header_size(expected.id, expected.offset, stated)
        );
        w.bytes(expected.data);
        assert_eq!(w.written(), &bytes[..]);
    }
}

#[test]
fn no_stream_or_crypto_data_ends_beyond_the_largest_offset() {
    for (ty, id) in [(0x0c, &[4][..]), (0x0e, &[4]), (0x06, &[])] {
        let frame = |offset: u64, data: usize| {
            written(|w| {
                w.u8(ty);
                w.bytes(id);
                w.varint(offset);
                if ty != 0x0c {
                    w.varint(data as u64);
                }
                w.zeros(data);
            })
        };
        one(&frame(MAX, 0));
        one(&frame(MAX - 5, 5));
        fails(
            &frame(MAX - 4, 5),
            Code::FRAME_ENCODING_ERROR,
            u64::from(ty),
        );
        fails(&frame(MAX, 1), Code::FRAME_ENCODING_ERROR, u64::from(ty));
    }
}

#[test]
fn limits_that_frames_must_keep() {
    let over = (1 << 60) + 1;
    for ty in [0x12, 0x13, 0x16, 0x17] {
        let bytes = written(|w| {
            w.u8(ty);
            w.varint(over);
        });
        fails(&bytes, Code::FRAME_ENCODING_ERROR, u64::from(ty));
    }
    fails(&[0x07, 0], Code::FRAME_ENCODING_ERROR, 7);
    let new_cid = |seq: u64, retire: u64, len: usize| {
        written(|w| {
            w.u8(0x18);
            w.varint(seq);
            w.varint(retire);
            w.u8(len as u8);
            w.zeros(len + 16);
        })
    };
    for len in 1..=20 {
        one(&new_cid(1, 1, len));
    }
    for len in [0].into_iter().chain(21..=255) {
        fails(&new_cid(1, 1, len), Code::FRAME_ENCODING_ERROR, 0x18);
    }
    fails(&new_cid(1, 2, 8), Code::FRAME_ENCODING_ERROR, 0x18);
}

#[test]
fn a_close_reason_is_cut_to_the_room_and_at_a_character() {
    let reason = "ä".repeat(REASON_BYTES);
    let frame = ConnectionClose {
        error: Code::NO_ERROR,
        frame_type: Some(0),
        reason: reason.as_bytes(),
    };
    for room in 0..2 * REASON_BYTES {
        let mut buf = vec![0; room];
        let mut w = Writer::new(&mut buf);
        let fits = write_connection_close(&mut w, &frame);
        assert_eq!(fits, room >= 4);
        if !fits {
            assert_eq!(w.position(), 0);
            continue;
        }
        let Frame::ConnectionClose(read) = one(w.written()) else {
            panic!("no close");
        };
        let text = std::str::from_utf8(read.reason).unwrap();
        assert!(reason.starts_with(text));
        // At most a byte of room is lost to a character, and one to the edge of the length.
        let most = fit_prefixed(room - 3).min(REASON_BYTES);
        assert!(text.len() + 1 >= most && text.len() <= most, "{room}");
    }
    // What is not UTF-8 is cut at the byte.
    let binary = ConnectionClose {
        reason: &[0xff; 2 * REASON_BYTES],
        ..frame
    };
    let bytes = written(|w| assert!(write_connection_close(w, &binary)));
    assert_eq!(bytes.len(), 3 + 2 + REASON_BYTES);
}

#[test]
fn crypto_data_fills_its_room() {
    for offset in [0, 63, 64, 1 << 20] {
        for room in 0..300 {
            let n = crypto_fit(room, offset);
            assert!(n == 0 || crypto_header_size(offset, n) + n <= room);
            assert!(crypto_header_size(offset, n + 1) + n + 1 > room);
        }
    }
}

#[test]
fn a_datagram_without_length_takes_the_rest() {
    assert_eq!(one(&[0x30]), Frame::Datagram(&[]));
    assert_eq!(one(&[0x30, 1, 2]), Frame::Datagram(&[1, 2]));
    assert_eq!(one(&[0x31, 0]), Frame::Datagram(&[]));
    for with_length in [false, true] {
        let bytes = written(|w| {
            write_datagram_header(w, with_length.then_some(70));
            w.zeros(70);
        });
        assert_eq!(bytes.len(), datagram_size(70, with_length));
        assert_eq!(one(&bytes), Frame::Datagram(&[0; 70]));
    }
}

#[test]
fn stream_ids_tell_their_kind() {
    // RFC 9000 §2.1, table 1
    for (id, side, dir) in [
        (0, Side::Client, Dir::Bi),
        (1, Side::Server, Dir::Bi),
        (2, Side::Client, Dir::Uni),
        (3, Side::Server, Dir::Uni),
    ] {
        for index in [0, 1, 1000, (1 << 60) - 1] {
            let stream = StreamId::new(side, dir, index);
            assert_eq!(stream.0, 4 * index + id);
            assert_eq!(
                (stream.initiator(), stream.dir(), stream.index()),
                (side, dir, index)
            );
            assert!(stream.0 <= MAX);
        }
    }
    assert_eq!(Side::Client.peer(), Side::Server);
    assert_eq!(Side::Server.peer(), Side::Client);
}
