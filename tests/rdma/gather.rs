//! Trains whose long data stays in registered memory are the same trains.

use crate::rig::{REGION, RawPeer, Terms};
use corelane::base::limits::GATHER_PIECES;
use corelane::rdma::roce::wire::{Ext, Opcode, Reth};
use corelane::rdma::*;

/// Two sides that are alike in everything, their regions full.
fn twins(mtu: Mtu) -> [RawPeer; 2] {
    [(), ()].map(|()| {
        let terms = Terms {
            mtu,
            ..Terms::new()
        };
        let mut peer = RawPeer::new(terms);
        let mr = peer.side.mr.id;
        let bytes = peer.side.dev.bytes_mut(mr).unwrap();
        for (n, byte) in bytes.iter_mut().enumerate() {
            *byte = (n ^ n >> 8 ^ n >> 16) as u8;
        }
        peer
    })
}

/// What both say now, which is the same; how many pieces one had of it.
fn same(twins: &mut [RawPeer; 2]) -> usize {
    let [pieces, copies] = twins;
    let mut all = 0;
    loop {
        let gathered = pieces.side.gather(pieces.now);
        let mut train = vec![0; 65_536];
        let copied = copies.side.dev.poll_transmit(copies.now, &mut train);
        let Some((transmit, bytes, n)) = gathered else {
            assert_eq!(copied, None);
            return all;
        };
        assert_eq!(Some(transmit), copied);
        assert!(bytes == train[..transmit.len], "{transmit:?}");
        all += n;
    }
}

fn post(twins: &mut [RawPeer; 2], op: SendOp, pieces: &[(u64, u32)]) {
    for peer in twins {
        let mr = peer.side.mr;
        let sges: Vec<Sge> = pieces.iter().map(|&(at, len)| mr.sge(at, len)).collect();
        let request = SendRequest::new(1, op, Data::Sges(&sges));
        peer.side.post(request);
    }
}

const REMOTE: Remote = Remote { addr: 1, rkey: 2 };

#[test]
fn writes_leave_as_they_would_have() {
    let mut twins = twins(Mtu::Mtu4096);
    post(&mut twins, SendOp::RdmaWrite(REMOTE), &[(100, 65_536)]);
    assert_eq!(same(&mut twins), 16);
    // Of 16 packets the last but one is long as well, and the last, padded, is copied.
    let imm = SendOp::RdmaWriteWithImm(REMOTE, 7);
    post(&mut twins, imm, &[(1, 15 * 4096 - 1000), (7, 2000)]);
    // The fifteenth packet's data is in two places.
    assert_eq!(same(&mut twins), 14);
    post(&mut twins, SendOp::Send, &[(0, 3000), (8192, 8192 + 2047)]);
    // The first packet's is, and the last is short.
    assert_eq!(same(&mut twins), 2);
    post(&mut twins, SendOp::Send, &[(0, 2047)]);
    post(&mut twins, SendOp::Send, &[(0, 2049)]);
    assert_eq!(same(&mut twins), 0);
    post(&mut twins, SendOp::Send, &[(0, 0), (5, 2048)]);
    assert_eq!(same(&mut twins), 1);
}

#[test]
fn short_packets_are_copied() {
    let mut twins = twins(Mtu::Mtu1024);
    post(&mut twins, SendOp::RdmaWrite(REMOTE), &[(0, 65_536)]);
    assert_eq!(same(&mut twins), 0);
}

#[test]
fn no_train_has_more_pieces_than_are_told_of() {
    let mut twins = twins(Mtu::Mtu2048);
    for n in 0..4 {
        post(&mut twins, SendOp::RdmaWrite(REMOTE), &[(n, 200_000)]);
    }
    let pieces = same(&mut twins);
    assert!(pieces > 2 * GATHER_PIECES, "{pieces}");
}

#[test]
fn what_is_read_leaves_as_it_would_have() {
    let mut twins = twins(Mtu::Mtu4096);
    for peer in &mut twins {
        let reth = Reth {
            addr: peer.side.mr.addr + 3,
            rkey: peer.side.mr.rkey,
            len: 5 * 4096 + 100,
        };
        peer.next(Opcode::ReadRequest, Ext::Reth(reth), &[]);
    }
    assert_eq!(same(&mut twins), 5);
}

#[test]
fn memory_that_is_gone_fails_the_request_either_way() {
    let mut twins = twins(Mtu::Mtu4096);
    post(&mut twins, SendOp::RdmaWrite(REMOTE), &[(0, REGION as u32)]);
    for peer in &mut twins {
        let mr = peer.side.mr.id;
        peer.side.dev.dereg_mr(mr).unwrap();
    }
    assert_eq!(same(&mut twins), 0);
    for peer in &mut twins {
        assert_eq!(peer.side.outcomes(), [(1, Status::LocProtErr)]);
        assert_eq!(peer.side.state(), QpState::Err);
    }
}
