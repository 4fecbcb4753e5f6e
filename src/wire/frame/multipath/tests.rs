//! The frames of multipath and of our own extension, by the bytes that the texts give them.

use super::*;
use crate::wire::cid::ConnectionId;
use crate::wire::frame::address::{AddAddress, AddressFrame};
use crate::wire::frame::tests::{fails, one, written};
use crate::wire::frame::{EcnCounts, ack};
use crate::wire::varint::MAX;

const NEW: NewConnectionId = NewConnectionId {
    seq: 3,
    retire_prior_to: 2,
    cid: ConnectionId::EMPTY,
    reset_token: [5; 16],
};

fn new_cid() -> NewConnectionId {
    let cid = ConnectionId::new(&[0xc; 20]).unwrap();
    NewConnectionId { cid, ..NEW }
}

/// One frame of every type, written.
pub(in crate::wire::frame) fn samples() -> Vec<(u64, Vec<u8>)> {
    let ecn = Some(EcnCounts {
        ect0: 70,
        ect1: 0,
        ce: 20_000,
    });
    let ranges = [90..=100, 70..=80, 3..=3];
    let close = AddressFrame::ClosePath {
        path: PathId(1),
        error: Code::PATH_UNSTABLE_OR_POOR,
        reason: b"weak",
    };
    let [v4, v6] = ["192.0.2.7:4433", "[2001:db8::7]:1"].map(|addr| AddAddress {
        id: 1,
        seq: 70,
        addr: addr.parse().unwrap(),
    });
    let acked =
        |path, ecn| written(|w| assert_eq!(ack::write_path(w, path, ranges.clone(), 9, ecn), 3));
    let frame = |f: PathFrame| (f.ty(), written(|w| f.write(w)));
    let address = |f: AddressFrame<'_>| (f.ty(), written(|w| f.write(w)));
    vec![
        (0x3e, acked(PathId(1), None)),
        (0x3f, acked(PathId::MAX, ecn)),
        frame(PathFrame::Abandon {
            path: PathId(1),
            error: Code::NO_ERROR,
        }),
        frame(PathFrame::Status {
            path: PathId(64),
            status: PathStatus::Backup,
            seq: MAX,
        }),
        frame(PathFrame::Status {
            path: PathId(0),
            status: PathStatus::Available,
            seq: 0,
        }),
        frame(PathFrame::NewConnectionId {
            path: PathId::MAX,
            new: new_cid(),
        }),
        frame(PathFrame::RetireConnectionId {
            path: PathId(2),
            seq: 1 << 20,
        }),
        frame(PathFrame::MaxPathId(PathId::MAX)),
        frame(PathFrame::PathsBlocked(PathId(3))),
        frame(PathFrame::CidsBlocked {
            path: PathId(3),
            next_seq: 8,
        }),
        address(AddressFrame::AddAddress(v4)),
        address(AddressFrame::AddAddress(v6)),
        address(AddressFrame::Paths {
            available: 4,
            active: 2,
        }),
        address(close),
    ]
}

#[test]
fn types_and_fields_are_those_of_the_text() {
    assert_eq!(
        one(&[0x7e, 0x75, 3, 0x3e]),
        Frame::Path(PathFrame::Abandon {
            path: PathId(3),
            error: Code::APPLICATION_ABANDON_PATH
        })
    );
    for (ty, status) in [(0x76, PathStatus::Backup), (0x77, PathStatus::Available)] {
        let path = PathId(3);
        let frame = PathFrame::Status {
            path,
            status,
            seq: 9,
        };
        assert_eq!(one(&[0x7e, ty, 3, 9]), Frame::Path(frame));
    }
    let mut bytes = vec![0x7e, 0x78, 1, 3, 2, 20];
    bytes.extend([0xc; 20]);
    bytes.extend([5; 16]);
    let path = PathId(1);
    let new = new_cid();
    let frame = PathFrame::NewConnectionId { path, new };
    assert_eq!(one(&bytes), Frame::Path(frame));
    assert_eq!(written(|w| frame.write(w)), bytes);
    let frame = PathFrame::RetireConnectionId { path, seq: 7 };
    assert_eq!(one(&[0x7e, 0x79, 1, 7]), Frame::Path(frame));
    let max = one(&[0x7e, 0x7a, 5]);
    assert_eq!(max, Frame::Path(PathFrame::MaxPathId(PathId(5))));
    let blocked = one(&[0x7e, 0x7b, 5]);
    assert_eq!(blocked, Frame::Path(PathFrame::PathsBlocked(PathId(5))));
    let frame = PathFrame::CidsBlocked { path, next_seq: 7 };
    assert_eq!(one(&[0x7e, 0x7c, 1, 7]), Frame::Path(frame));
}

#[test]
fn a_path_ack_is_an_ack_behind_a_path() {
    for (ty, ecn, tail) in [(0x3e, None, &[][..]), (0x3f, Some((1, 2, 3)), &[1, 2, 3])] {
        let mut bytes = vec![ty, 6, 10, 25, 1, 2, 0, 3];
        bytes.extend(tail);
        let Frame::PathAck { path, ack } = one(&bytes) else {
            panic!("no PATH_ACK");
        };
        assert_eq!((path, ack.largest, ack.delay), (PathId(6), 10, 25));
        assert_eq!(ack.ranges.collect::<Vec<_>>(), [8..=10, 3..=6]);
        let counts = ack.ecn.map(|e| (e.ect0, e.ect1, e.ce));
        assert_eq!(counts, ecn);
        // RFC 9000 §19.3.1 holds for it too.
        bytes[5] = 11;
        fails(&bytes, Code::FRAME_ENCODING_ERROR, ty.into());
    }
}

#[test]
fn a_path_ack_takes_the_room_that_it_needs_and_no_more() {
    let ranges = || [90..=100, 70..=80];
    let whole = written(|w| assert_eq!(ack::write_path(w, PathId(1), ranges(), 9, None), 2));
    for room in 0..=whole.len() {
        let mut buf = vec![0; room];
        let mut w = Writer::new(&mut buf);
        let ranges = ack::write_path(&mut w, PathId(1), ranges(), 9, None);
        let expected = match room {
            0..7 => 0,
            7..9 => 1,
            _ => 2,
        };
        assert_eq!(ranges, expected, "{room}");
        assert_eq!(w.position(), [0, 7, whole.len()][ranges]);
    }
}

/// Multipath §4: what is above 2^32 − 1 is above any limit announced; §4.6 says so of MAX_PATH_ID.
#[test]
fn a_path_identifier_beyond_32_bits_is_a_protocol_violation() {
    for (ty, body) in [
        (0x3e, &[10, 25, 0, 2][..]),
        (0x3f, &[10, 25, 0, 2, 1, 2, 3]),
        (0x3e75, &[0]),
        (0x3e76, &[0]),
        (0x3e77, &[0]),
        (0x3e78, &[1; 40]),
        (0x3e79, &[0]),
        (0x3e7a, &[]),
        (0x3e7b, &[]),
        (0x3e7c, &[0]),
        (0x42, &[0, 0]),
    ] {
        let with = |id: u64| {
            written(|w| {
                w.varint(ty);
                w.varint(id);
                w.bytes(body);
            })
        };
        let largest = with(u32::MAX.into());
        let parsed = Frame::parse(&mut Reader::new(&largest));
        assert_eq!(parsed.map(|f| f.ty()), Ok(ty));
        for id in [1 << 32, MAX] {
            fails(&with(id), Code::PROTOCOL_VIOLATION, ty);
        }
    }
}

/// Multipath §4.4 with RFC 9000 §19.15.
#[test]
fn connection_ids_keep_their_limits() {
    let frame = |seq: u64, retire: u64, len: usize| {
        written(|w| {
            w.bytes(&[0x7e, 0x78, 1]);
            w.varint(seq);
            w.varint(retire);
            w.u8(len as u8);
            w.zeros(len + 16);
        })
    };
    for len in 1..=20 {
        one(&frame(1, 1, len));
    }
    for len in [0].into_iter().chain(21..=255) {
        fails(&frame(1, 1, len), Code::FRAME_ENCODING_ERROR, 0x3e78);
    }
    fails(&frame(1, 2, 8), Code::FRAME_ENCODING_ERROR, 0x3e78);
}

#[test]
fn advertised_addresses_are_of_a_version_and_have_a_port() {
    let v4 = [0x40, 0x40, 1, 70, 4, 192, 0, 2, 7, 0x11, 0x51];
    let addr = "192.0.2.7:4433".parse().unwrap();
    let frame = AddAddress {
        id: 1,
        seq: 70 - 64,
        addr,
    };
    let mut short = v4;
    short[3] = 6;
    assert_eq!(one(&short), Frame::Address(AddressFrame::AddAddress(frame)));
    for version in [0, 5, 7, 255] {
        let mut bytes = short.to_vec();
        bytes[4] = version;
        bytes.extend([0; 12]);
        fails(&bytes, Code::FRAME_ENCODING_ERROR, 0x40);
    }
    let mut portless = short;
    portless[9..].fill(0);
    fails(&portless, Code::FRAME_ENCODING_ERROR, 0x40);
}
