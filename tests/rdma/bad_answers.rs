//! Answers that are wrong, late or missing: what was asked completes once, with the status that
//! says why.

use crate::rig::{RawPeer, Terms};
use corelane::base::Timestamp;
use corelane::rdma::roce::wire::{Aeth, Ext, Opcode};
use corelane::rdma::*;

fn aeth(syndrome: u8) -> Ext {
    Ext::Aeth(Aeth { syndrome, msn: 0 })
}

/// A side with requests under way: SEND 1 (two packets), READ 2 (three), SEND 3, and an atomic 4.
fn under_way(terms: Terms) -> (RawPeer, u32) {
    let mut peer = RawPeer::new(terms);
    let mr = peer.side.mr;
    let remote = Remote {
        addr: 0x1000,
        rkey: 9,
    };
    let add = SendOp::AtomicFetchAndAdd { remote, add: 1 };
    for (wr_id, op, len) in [
        (1, SendOp::Send, 2000),
        (2, SendOp::RdmaRead(remote), 2500),
        (3, SendOp::Send, 10),
        (4, add, 8),
    ] {
        let sges = [mr.sge(wr_id * 8192, len)];
        peer.side
            .post(SendRequest::new(wr_id, op, Data::Sges(&sges)));
    }
    let sent = peer.answers();
    let psn = peer.side.qp.psn;
    let numbers: Vec<u32> = sent
        .iter()
        .map(|p| p.1.wrapping_sub(psn) & 0xff_ffff)
        .collect();
    assert_eq!(numbers, [0, 1, 2, 5, 6]);
    (peer, psn)
}

fn flushed(all: &[u64]) -> Vec<(u64, Status)> {
    all.iter().map(|&n| (n, Status::WrFlushErr)).collect()
}

/// A READ response packet.
fn response(peer: &mut RawPeer, opcode: Opcode, psn: u32, len: usize) {
    let ext = if opcode == Opcode::ReadResponseMiddle {
        Ext::None
    } else {
        aeth(0x1f)
    };
    peer.send(opcode, psn, ext, &vec![3; len]);
}

#[test]
fn each_refusal_is_the_status_of_its_request() {
    for (syndrome, status) in [
        (0x61, Status::RemInvReqErr),
        (0x62, Status::RemAccessErr),
        (0x63, Status::RemOpErr),
        (0x64, Status::BadRespErr),
        (0x9f, Status::BadRespErr),
    ] {
        let (mut peer, psn) = under_way(Terms::new());
        peer.send(Opcode::Acknowledge, psn + 1, aeth(syndrome), &[]);
        let mut expected = vec![(1, status)];
        expected.extend(flushed(&[2, 3, 4]));
        assert_eq!(
            (peer.side.outcomes(), peer.side.state()),
            (expected, QpState::Err)
        );
        // Of a later one: what is before it and was not answered is flushed.
        let (mut peer, psn) = under_way(Terms::new());
        peer.send(Opcode::Acknowledge, psn + 5, aeth(syndrome), &[]);
        let expected = [
            (1, Status::Success),
            (2, Status::WrFlushErr),
            (3, status),
            (4, Status::WrFlushErr),
        ];
        assert_eq!(peer.side.outcomes(), expected);
        // Posted later, flushed at once.
        peer.side
            .post(SendRequest::new(9, SendOp::Send, Data::Inline(b"x")));
        assert_eq!(peer.side.outcomes(), flushed(&[9]));
        assert_eq!(peer.answers(), []);
    }
}

#[test]
fn answers_to_nothing_are_dropped() {
    let (mut peer, psn) = under_way(Terms::new());
    let never = psn.wrapping_add(7) & 0xff_ffff;
    for at in [never, psn.wrapping_sub(1) & 0xff_ffff, psn ^ 0x80_0000] {
        peer.send(Opcode::Acknowledge, at, aeth(0x1f), &[]);
        peer.send(Opcode::Acknowledge, at, aeth(0x62), &[]);
        response(&mut peer, Opcode::ReadResponseOnly, at, 10);
        peer.send(
            Opcode::AtomicAcknowledge,
            at,
            Ext::AtomicAck(
                Aeth {
                    syndrome: 0x1f,
                    msn: 0,
                },
                1,
            ),
            &[],
        );
    }
    // Answers of a kind that the request does not have.
    response(&mut peer, Opcode::ReadResponseOnly, psn, 10);
    response(&mut peer, Opcode::ReadResponseFirst, psn + 6, 1024);
    let found = Ext::AtomicAck(
        Aeth {
            syndrome: 0x1f,
            msn: 0,
        },
        1,
    );
    peer.send(Opcode::AtomicAcknowledge, psn + 2, found, &[]);
    assert_eq!(peer.side.dev.stats().stale_answers, 15);
    assert_eq!(
        (peer.side.outcomes(), peer.side.state()),
        (vec![], QpState::Rts)
    );
    assert_eq!(peer.answers(), []);
}

#[test]
fn a_response_of_the_wrong_length_or_kind_ends_it() {
    for (opcode, len) in [
        (Opcode::ReadResponseFirst, 1020),
        (Opcode::ReadResponseFirst, 1028),
        (Opcode::ReadResponseOnly, 1024),
        (Opcode::ReadResponseLast, 452),
    ] {
        let (mut peer, psn) = under_way(Terms::new());
        response(&mut peer, opcode, psn + 2, len);
        let expected = [
            (1, Status::Success),
            (2, Status::BadRespErr),
            (3, Status::WrFlushErr),
            (4, Status::WrFlushErr),
        ];
        assert_eq!(peer.side.outcomes(), expected, "{opcode:?} {len}");
    }
    let (mut peer, psn) = under_way(Terms::new());
    response(&mut peer, Opcode::ReadResponseFirst, psn + 2, 1024);
    response(&mut peer, Opcode::ReadResponseMiddle, psn + 3, 1024);
    response(&mut peer, Opcode::ReadResponseMiddle, psn + 4, 452);
    assert_eq!(peer.side.outcomes()[1], (2, Status::BadRespErr));
}

#[test]
fn a_response_that_is_missing_is_asked_for_again_from_where_it_is_missing() {
    let (mut peer, psn) = under_way(Terms::new());
    response(&mut peer, Opcode::ReadResponseFirst, psn + 2, 1024);
    response(&mut peer, Opcode::ReadResponseLast, psn + 4, 452);
    let again = peer.answers();
    let Ext::Reth(reth) = again[0].2 else {
        panic!("not a READ: {again:?}");
    };
    assert_eq!((again[0].0, again[0].1), (Opcode::ReadRequest, psn + 3));
    assert_eq!(
        (reth.addr, reth.rkey, reth.len),
        (0x1000 + 1024, 9, 2500 - 1024)
    );
    // And what follows it, as always; but once.
    assert_eq!(again.len(), 3);
    peer.send(Opcode::Acknowledge, psn + 5, aeth(0x1f), &[]);
    assert_eq!(peer.answers(), []);
    response(&mut peer, Opcode::ReadResponseFirst, psn + 3, 1024);
    response(&mut peer, Opcode::ReadResponseLast, psn + 4, 452);
    let found = Ext::AtomicAck(
        Aeth {
            syndrome: 0x1f,
            msn: 0,
        },
        0x0102,
    );
    peer.send(Opcode::AtomicAcknowledge, psn + 6, found, &[]);
    let done = (1..5).map(|n| (n, Status::Success)).collect::<Vec<_>>();
    assert_eq!(peer.side.outcomes(), done);
    let bytes = peer.side.dev.bytes(peer.side.mr.id).unwrap();
    assert!(bytes[2 * 8192..][..2500].iter().all(|&b| b == 3));
    assert_eq!(bytes[4 * 8192..][..8], 0x0102u64.to_ne_bytes());
    // Nothing waits any more but what an old deadline left.
    assert_eq!(silence(&mut peer), []);
}

/// Lets time pass until nothing waits; every packet that was sent meanwhile.
fn silence(peer: &mut RawPeer) -> Vec<(Opcode, u32)> {
    let mut sent = Vec::new();
    while peer.side.dev.poll_timeout() != Timestamp::NEVER {
        peer.now = peer.side.dev.poll_timeout();
        peer.side.dev.handle_timeout(peer.now);
        sent.extend(peer.answers().iter().map(|p| (p.0, p.1)));
        assert!(sent.len() < 1000, "sends for ever");
    }
    sent
}

#[test]
fn a_peer_that_never_answers_is_given_up() {
    let terms = Terms {
        retry_cnt: 3,
        ..Terms::new()
    };
    let (mut peer, _) = under_way(terms);
    // Five packets, four requests and two of the first: sent three times more.
    assert_eq!(silence(&mut peer).len(), 3 * 5);
    let mut expected = vec![(1, Status::RetryExcErr)];
    expected.extend(flushed(&[2, 3, 4]));
    assert_eq!(
        (peer.side.outcomes(), peer.side.state()),
        (expected, QpState::Err)
    );
    assert_eq!(peer.side.dev.stats().timeouts, 4);
}

#[test]
fn a_peer_that_never_reads_is_waited_for_as_often_as_was_agreed() {
    for rnr_retry in [0, 2, 6] {
        let terms = Terms {
            rnr_retry,
            ..Terms::new()
        };
        let (mut peer, psn) = under_way(terms);
        for _ in 0..rnr_retry {
            peer.send(Opcode::Acknowledge, psn, aeth(0x21), &[]);
            // Told twice is told once; and it waits.
            peer.send(Opcode::Acknowledge, psn, aeth(0x21), &[]);
            assert_eq!(peer.answers(), []);
            peer.now = Timestamp::from_nanos(peer.now.as_nanos() + 10_000);
            peer.side.dev.handle_timeout(peer.now);
            assert_eq!(peer.answers().len(), 5);
        }
        peer.send(Opcode::Acknowledge, psn, aeth(0x21), &[]);
        assert_eq!(peer.side.outcomes()[0], (1, Status::RnrRetryExcErr));
    }
    // Seven is without end, and costs one round a wait.
    let (mut peer, psn) = under_way(Terms::new());
    for round in 0..1000 {
        peer.send(Opcode::Acknowledge, psn, aeth(0x21), &[]);
        peer.now = Timestamp::from_nanos(peer.now.as_nanos() + 10_000);
        peer.side.dev.handle_timeout(peer.now);
        assert_eq!(peer.answers().len(), 5, "{round}");
    }
    assert_eq!(peer.side.outcomes(), []);
}

#[test]
fn a_peer_that_says_gap_for_ever_is_given_up() {
    let (mut peer, psn) = under_way(Terms::new());
    for _ in 0..7 {
        peer.send(Opcode::Acknowledge, psn, aeth(0x60), &[]);
        assert_eq!(peer.answers().len(), 5);
    }
    peer.send(Opcode::Acknowledge, psn, aeth(0x60), &[]);
    assert_eq!(peer.side.outcomes()[0], (1, Status::RetryExcErr));
    assert_eq!(peer.answers(), []);
}

#[test]
fn memory_that_goes_away_fails_its_request_in_turn() {
    let mut peer = RawPeer::new(Terms::new());
    let gone = peer
        .side
        .dev
        .reg_mr(peer.side.pd, 4096, Access::NONE)
        .unwrap();
    let psn = peer.side.qp.psn;
    let mr = peer.side.mr;
    let post = |side: &mut crate::rig::Side, wr_id, mr: MemoryRegion| {
        let sges = [mr.sge(0, 10)];
        side.post(SendRequest::new(wr_id, SendOp::Send, Data::Sges(&sges)).unsignaled());
    };
    post(&mut peer.side, 1, mr);
    post(&mut peer.side, 2, gone);
    post(&mut peer.side, 3, mr);
    peer.side.dev.dereg_mr(gone.id).unwrap();
    // The first is sent, and asks for an acknowledgement since the second will not go.
    assert_eq!(peer.answers().len(), 1);
    assert_eq!(peer.side.outcomes(), []);
    peer.send(Opcode::Acknowledge, psn, aeth(0x1f), &[]);
    let expected = [(2, Status::LocProtErr), (3, Status::WrFlushErr)];
    assert_eq!(peer.side.outcomes(), expected);
    // A key that never was, and one that may not be written to.
    for (op, lkey) in [
        (SendOp::Send, 5),
        (SendOp::RdmaRead(Remote { addr: 0, rkey: 0 }), 0),
    ] {
        let mut peer = RawPeer::new(Terms::new());
        let own = peer
            .side
            .dev
            .reg_mr(peer.side.pd, 4096, Access::NONE)
            .unwrap();
        let mut sge = own.sge(0, 10);
        sge.lkey ^= lkey;
        peer.side.post(SendRequest::new(7, op, Data::Sges(&[sge])));
        assert_eq!(peer.side.outcomes(), [(7, Status::LocProtErr)]);
    }
}
