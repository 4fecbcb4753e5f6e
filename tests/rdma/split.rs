//! WRITEs that are asked for packet by packet.

use crate::rig::{RawPeer, Terms};
use corelane::rdma::roce::wire::headers::{Aeth, Syndrome};
use corelane::rdma::roce::wire::{Ext, Opcode, Reth};
use corelane::rdma::*;

const MTU: u32 = 4096;
const REMOTE: Remote = Remote {
    addr: 0x7000,
    rkey: 9,
};

fn peer() -> RawPeer {
    let mut peer = RawPeer::new(Terms {
        mtu: Mtu::Mtu4096,
        ..Terms::new()
    });
    let mr = peer.side.mr.id;
    let bytes = peer.side.dev.bytes_mut(mr).unwrap();
    for (n, byte) in bytes.iter_mut().enumerate() {
        *byte = (n ^ n >> 8 ^ n >> 16) as u8;
    }
    peer.side.dev.split_writes(peer.side.qp.id).unwrap();
    peer
}

fn post(peer: &mut RawPeer, op: SendOp, at: u64, len: u32) {
    let sges = [peer.side.mr.sge(at, len)];
    let request = SendRequest::new(at, op, Data::Sges(&sges));
    peer.side.post(request);
}

fn acknowledge(peer: &mut RawPeer, psn: u32, syndrome: Syndrome) {
    let aeth = Aeth {
        syndrome: syndrome.to_byte(),
        msn: 0,
    };
    peer.send(Opcode::Acknowledge, psn, Ext::Aeth(aeth), &[]);
}

/// What a write of so many bytes is, from its `skip`th packet on.
fn packets(peer: &RawPeer, psn: u32, len: u32, skip: u32) -> Vec<(Opcode, u32, Ext, Vec<u8>)> {
    let bytes = peer.side.dev.bytes(peer.side.mr.id).unwrap();
    (skip..len.div_ceil(MTU))
        .map(|n| {
            let (at, part) = (n * MTU, MTU.min(len - n * MTU));
            let reth = Reth {
                addr: REMOTE.addr + u64::from(at),
                rkey: REMOTE.rkey,
                len: part,
            };
            let data = bytes[at as usize..][..part as usize].to_vec();
            let psn = (psn + n) & 0xff_ffff;
            (Opcode::WriteOnly, psn, Ext::Reth(reth), data)
        })
        .collect()
}

#[test]
fn each_packet_is_a_write_of_its_own_and_all_are_one_completion() {
    for len in [0, 5, MTU, MTU + 1, 3 * MTU + 5, 64 << 10] {
        let mut peer = peer();
        let first = peer.side.qp.psn;
        post(&mut peer, SendOp::RdmaWrite(REMOTE), 0, len);
        let (sent, last) = (peer.answers(), len.div_ceil(MTU).max(1) - 1);
        if len > 0 {
            assert_eq!(sent, packets(&peer, first, len, 0), "{len}");
        }
        assert_eq!(sent.len() as u32, last + 1);
        if last > 0 {
            acknowledge(&mut peer, first + last - 1, Syndrome::Ack);
            assert_eq!(peer.side.outcomes(), []);
        }
        acknowledge(&mut peer, first + last, Syndrome::Ack);
        assert_eq!(peer.side.outcomes(), [(0, Status::Success)]);
    }
}

#[test]
fn what_was_lost_is_sent_again_from_there() {
    let mut peer = peer();
    let first = peer.side.qp.psn;
    let len = 3 * MTU + 5;
    post(&mut peer, SendOp::RdmaWrite(REMOTE), 0, len);
    peer.answers();
    acknowledge(&mut peer, first + 2, Syndrome::SequenceError);
    assert_eq!(peer.answers(), packets(&peer, first, len, 2));
    acknowledge(&mut peer, first + 3, Syndrome::Ack);
    assert_eq!(peer.side.outcomes(), [(0, Status::Success)]);
}

#[test]
fn trains_go_on_over_the_end_of_a_write() {
    let mut peer = peer();
    for n in 0..2 {
        post(&mut peer, SendOp::RdmaWrite(REMOTE), n << 16, 64 << 10);
    }
    let trains: Vec<usize> = std::iter::from_fn(|| peer.side.transmit(peer.now))
        .map(|(transmit, _)| transmit.segments())
        .collect();
    assert_eq!(trains, [15, 15, 2]);
}

#[test]
fn a_window_is_of_whole_trains() {
    let trains = |window: usize| {
        let mtu = Mtu::Mtu4096;
        let terms = Terms {
            mtu,
            ..Terms::new()
        };
        let mut peer = RawPeer::with(terms, |c| c.window = window);
        peer.side.dev.split_writes(peer.side.qp.id).unwrap();
        let first = peer.side.qp.psn;
        for n in 0..2 {
            post(&mut peer, SendOp::RdmaWrite(REMOTE), n << 16, 64 << 10);
        }
        let mut all = Vec::new();
        loop {
            let sent: Vec<usize> = std::iter::from_fn(|| peer.side.transmit(peer.now))
                .map(|(transmit, _)| transmit.segments())
                .collect();
            if sent.is_empty() {
                break;
            }
            all.extend(sent);
            let last = first + all.iter().sum::<usize>() as u32 - 1;
            acknowledge(&mut peer, last, Syndrome::Ack);
        }
        all
    };
    assert_eq!(trains(64 << 10), [15, 15, 2]);
    assert_eq!(trains(100 << 10), [15, 15, 2]);
    // What is less than a train is left as it is.
    assert_eq!(trains(32 << 10), [8, 8, 8, 8]);
}

#[test]
fn what_tells_the_peer_something_at_its_end_stays_whole() {
    let mut peer = peer();
    post(&mut peer, SendOp::RdmaWriteWithImm(REMOTE, 7), 0, 2 * MTU);
    post(&mut peer, SendOp::Send, 0, 2 * MTU);
    let opcodes: Vec<Opcode> = peer.answers().iter().map(|p| p.0).collect();
    use Opcode::*;
    assert_eq!(opcodes, [WriteFirst, WriteLastImm, SendFirst, SendLast]);
}

#[test]
fn a_queue_pair_with_work_does_not_change() {
    let mut peer = RawPeer::new(Terms::new());
    post(&mut peer, SendOp::RdmaWrite(REMOTE), 0, 3000);
    let qp = peer.side.qp.id;
    assert!(matches!(
        peer.side.dev.split_writes(qp),
        Err(RdmaError::Busy { .. })
    ));
    let opcodes: Vec<Opcode> = peer.answers().iter().map(|p| p.0).collect();
    use Opcode::*;
    assert_eq!(opcodes, [WriteFirst, WriteMiddle, WriteLast]);
    peer.side.dev.destroy_qp(qp).unwrap();
    assert!(matches!(
        peer.side.dev.split_writes(qp),
        Err(RdmaError::Unknown(_))
    ));
}

#[test]
fn asked_again_midway_it_stays_as_it_is() {
    let mut peer = peer();
    let (first, len) = (peer.side.qp.psn, 3 * MTU + 5);
    post(&mut peer, SendOp::RdmaWrite(REMOTE), 0, len);
    peer.answers();
    let qp = peer.side.qp.id;
    assert!(matches!(
        peer.side.dev.split_writes(qp),
        Err(RdmaError::Busy { .. })
    ));
    acknowledge(&mut peer, first + 2, Syndrome::SequenceError);
    assert_eq!(peer.answers(), packets(&peer, first, len, 2));
}
