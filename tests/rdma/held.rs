//! Acknowledgements that wait for others, and what does not wait.

use crate::rig::{RawPeer, Terms};
use corelane::base::Timestamp;
use corelane::base::limits::ROCE_HELD_ACKS;
use corelane::rdma::roce::wire::{Ext, Opcode, Reth};
use corelane::rdma::*;
use std::time::Duration;

const ACK: u8 = 0x1f;
const SEQUENCE: u8 = 0x60;
const DELAY: Duration = Duration::from_micros(50);

fn peer() -> RawPeer {
    let mut peer = RawPeer::with(Terms::new(), |c| c.ack_delay = DELAY);
    for n in 0..40 {
        let sge = peer.side.mr.sge(n * 2048, 2048);
        peer.side.post_recv(n, &[sge]);
    }
    peer
}

/// The number of the last packet that was sent.
fn last(peer: &RawPeer) -> u32 {
    (peer.psn - 1) & 0xff_ffff
}

#[test]
fn short_messages_share_an_acknowledgement_that_waits_so_long() {
    let mut peer = peer();
    for _ in 0..3 {
        peer.next(Opcode::SendOnly, Ext::None, b"short");
        peer.now += Duration::from_micros(10);
    }
    assert_eq!(peer.answers(), []);
    let due = Timestamp::from_nanos(1) + DELAY;
    assert_eq!(peer.side.dev.poll_timeout(), due);
    peer.side.dev.handle_timeout(due - Duration::from_nanos(1));
    assert_eq!(peer.answers(), []);
    peer.now = due;
    peer.side.dev.handle_timeout(due);
    assert_eq!(peer.acknowledgement(), (ACK, last(&peer)));
    assert_eq!(peer.side.dev.poll_timeout(), Timestamp::NEVER);
    // What comes later waits as long again.
    peer.next(Opcode::SendOnly, Ext::None, b"short");
    assert_eq!(peer.answers(), []);
    assert_eq!(peer.side.dev.poll_timeout(), due + DELAY);
}

#[test]
fn no_more_than_so_many_messages_share_it() {
    let mut peer = peer();
    for _ in 0..2 {
        for _ in 1..ROCE_HELD_ACKS {
            peer.next(Opcode::SendOnly, Ext::None, b"short");
            assert_eq!(peer.answers(), []);
        }
        peer.next(Opcode::SendOnly, Ext::None, b"short");
        assert_eq!(peer.acknowledgement(), (ACK, last(&peer)));
    }
    // The entry that is left of the first does not let a later one go early.
    peer.now += DELAY / 2;
    peer.next(Opcode::SendOnly, Ext::None, b"short");
    let first = peer.side.dev.poll_timeout();
    peer.side.dev.handle_timeout(first);
    assert_eq!(peer.answers(), []);
    assert_eq!(peer.side.dev.poll_timeout(), peer.now + DELAY);
}

#[test]
fn what_else_is_owed_does_not_wait() {
    let held = || {
        let mut peer = peer();
        peer.next(Opcode::SendOnly, Ext::None, b"short");
        assert_eq!(peer.answers(), []);
        peer
    };
    // A longer message, and a WRITE.
    let mut peer = held();
    peer.next(Opcode::SendOnly, Ext::None, &[7; 1000]);
    assert_eq!(peer.acknowledgement(), (ACK, last(&peer)));
    let mut peer = held();
    let mr = peer.side.mr;
    let reth = Reth {
        addr: mr.addr,
        rkey: mr.rkey,
        len: 8,
    };
    peer.next(Opcode::WriteOnly, Ext::Reth(reth), &[7; 8]);
    assert_eq!(peer.acknowledgement(), (ACK, last(&peer)));
    // A gap, and a message that came twice.
    let mut peer = held();
    peer.send(Opcode::SendOnly, peer.psn + 1, Ext::None, b"ahead");
    assert_eq!(peer.acknowledgement(), (SEQUENCE, peer.psn & 0xff_ffff));
    let mut peer = held();
    peer.send(Opcode::SendOnly, last(&peer), Ext::None, b"short");
    assert_eq!(peer.acknowledgement(), (ACK, last(&peer)));
    // The shard is about to sleep.
    let mut peer = held();
    assert!(peer.side.dev.release());
    assert_eq!(peer.acknowledgement(), (ACK, last(&peer)));
    assert!(!peer.side.dev.release(), "once");
}

#[test]
fn an_answer_leaves_without_it() {
    let mut peer = peer();
    peer.next(Opcode::SendOnly, Ext::None, b"question");
    let request = SendRequest::new(1, SendOp::Send, Data::Inline(b"answer"));
    peer.side.post(request);
    let sent: Vec<_> = peer.answers().into_iter().map(|a| a.0).collect();
    assert_eq!(sent, [Opcode::SendOnly]);
}

#[test]
fn a_queue_pair_that_goes_takes_it_along() {
    let mut peer = peer();
    peer.next(Opcode::SendOnly, Ext::None, b"short");
    let at = peer.side.dev.poll_timeout();
    peer.side.dev.modify_to_err(peer.side.qp.id).unwrap();
    peer.side.dev.handle_timeout(at);
    assert_eq!(peer.answers(), []);
    assert_eq!(peer.side.dev.poll_timeout(), Timestamp::NEVER);
    peer.side.tear_down();
}
