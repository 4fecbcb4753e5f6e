//! Frames of extensions that both ends must declare: unknown without them, and 1-RTT alone.

use crate::common::attack::{Attack, Plan};
use crate::common::raw_peer::payload;
use corelane::base::PathId;
use corelane::wire::frame::{
    AddAddress, AddressFrame, NewConnectionId, PathFrame, PathStatus, ack,
};
use corelane::wire::{Code, ConnectionId, PacketType};

/// One frame of every type, valid in itself.
fn one_of_each() -> Vec<(u64, Vec<u8>)> {
    let path = PathId(1);
    let new = NewConnectionId {
        seq: 0,
        retire_prior_to: 0,
        cid: ConnectionId::new(&[9; 8]).expect("8 bytes"),
        reset_token: [1; 16],
    };
    let paths = [
        PathFrame::Abandon {
            path,
            error: Code::NO_ERROR,
        },
        PathFrame::Status {
            path,
            status: PathStatus::Backup,
            seq: 0,
        },
        PathFrame::Status {
            path,
            status: PathStatus::Available,
            seq: 1,
        },
        PathFrame::NewConnectionId { path, new },
        PathFrame::RetireConnectionId { path, seq: 0 },
        PathFrame::MaxPathId(path),
        PathFrame::PathsBlocked(path),
        PathFrame::CidsBlocked { path, next_seq: 0 },
    ];
    let addresses = [
        AddressFrame::AddAddress(AddAddress {
            id: 1,
            seq: 1,
            addr: "192.0.2.1:443".parse().expect("an address"),
        }),
        AddressFrame::Paths {
            available: 1,
            active: 1,
        },
        AddressFrame::ClosePath {
            path,
            error: Code::NO_ERROR,
            reason: b"",
        },
    ];
    let acked = payload(|w| assert_eq!(ack::write_path(w, path, [0..=0], 0, None), 1));
    let mut out = vec![(0x3e, acked), (0x3f, vec![0x3f, 1, 0, 0, 0, 0, 0, 0, 0])];
    out.extend(paths.map(|f| (f.ty(), payload(|w| f.write(w)))));
    out.extend(addresses.map(|f| (f.ty(), payload(|w| f.write(w)))));
    out
}

/// RFC 9000 §12.4: a frame of an extension that was not negotiated is of unknown type, whatever
/// stands in it.
#[test]
fn without_the_extension_its_frames_are_unknown() {
    let beyond = [0xc0, 0, 0, 1, 0, 0, 0, 0];
    let impossible = [[&[0x3e][..], &beyond].concat(), {
        let mut frame = vec![0x7e, 0x7a];
        frame.extend(beyond);
        frame
    }];
    let valid = one_of_each().into_iter().map(|(_, bytes)| bytes);
    for bytes in valid.chain(impossible) {
        let mut a = Attack::server();
        a.one_rtt(&bytes);
        a.expect_error(Code::FRAME_ENCODING_ERROR, &format!("{bytes:02x?}"));
    }
}

/// Multipath §4.
#[test]
fn outside_of_1rtt_packets_they_are_a_protocol_violation() {
    for (ty, bytes) in one_of_each() {
        for packet in [PacketType::Initial, PacketType::Handshake] {
            let mut a = Attack::on_server(Plan::default());
            let hello = a.peer.flight().remove(0);
            a.send(&hello);
            a.inbox.clear();
            let datagram = match packet {
                PacketType::Initial => a.peer.padded_initial(&bytes, 1200),
                _ => a.peer.packet(packet, &bytes),
            };
            a.send(&datagram);
            a.expect_error(Code::PROTOCOL_VIOLATION, &format!("{ty:#x} in {packet:?}"));
        }
    }
}
