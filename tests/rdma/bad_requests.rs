//! Requests that are wrong: each gets the standard's refusal and ends its own queue pair; requests
//! that come at a bad time wait; what is done twice is done once.

use crate::rig::{REGION, RawPeer, Side, Terms};
use corelane::rdma::roce::wire::{AtomicEth, Ext, Opcode, Reth};
use corelane::rdma::*;

const ACK: u8 = 0x1f;
const RNR: u8 = 0x21;
const INVALID: u8 = 0x61;
const ACCESS: u8 = 0x62;
const FAILED: u8 = 0x63;
const MTU: usize = 1024;

fn reth(mr: MemoryRegion, at: u64, len: u32) -> Reth {
    Reth {
        addr: mr.addr.wrapping_add(at),
        rkey: mr.rkey,
        len,
    }
}

/// The one refusal, after which the queue pair is in error and the memory is as it was.
#[track_caller]
fn refused(peer: &mut RawPeer, syndrome: u8) {
    assert_eq!(peer.acknowledgement(), (syndrome, peer.psn & 0xff_ffff));
    assert_eq!(peer.side.state(), QpState::Err);
    let id = peer.side.qp.id;
    let event = match syndrome {
        ACCESS => AsyncEvent::QpAccessErr(id),
        FAILED => AsyncEvent::QpFatal(id),
        _ => AsyncEvent::QpReqErr(id),
    };
    assert_eq!(peer.side.events().last(), Some(&event));
    assert_eq!(peer.side.dev.stats().error_naks_sent, 1);
    // It hears nothing more.
    peer.send(Opcode::SendOnly, peer.psn, Ext::None, b"more");
    assert_eq!(peer.answers(), []);
}

#[test]
fn packets_out_of_their_message_are_invalid() {
    let begin = |peer: &mut RawPeer| {
        let (sge, reth) = (peer.side.mr.sge(0, 4096), reth(peer.side.mr, 8192, 3000));
        peer.side.post_recv(1, &[sge]);
        reth
    };
    let full = [7; MTU];
    use Opcode::*;
    // Without a message: none of these begins one.
    for opcode in [SendMiddle, SendLast, WriteMiddle, WriteLast] {
        let mut peer = RawPeer::new(Terms::new());
        begin(&mut peer);
        peer.send(opcode, peer.psn, Ext::None, &full);
        refused(&mut peer, INVALID);
        assert_eq!(peer.side.outcomes(), [(1, Status::WrFlushErr)]);
    }
    // Within a SEND: nothing else may come.
    for opcode in [
        SendFirst,
        SendOnly,
        WriteFirst,
        WriteOnly,
        WriteMiddle,
        WriteLast,
        ReadRequest,
    ] {
        let mut peer = RawPeer::new(Terms::new());
        let reth = begin(&mut peer);
        peer.next(SendFirst, Ext::None, &full);
        peer.answers();
        let ext = match opcode {
            WriteFirst | WriteOnly | ReadRequest => Ext::Reth(reth),
            _ => Ext::None,
        };
        let data = if opcode == ReadRequest {
            &[]
        } else {
            &full[..]
        };
        peer.send(opcode, peer.psn, ext, data);
        refused(&mut peer, INVALID);
        assert_eq!(peer.side.outcomes(), [(1, Status::WrFlushErr)]);
    }
    // Within a WRITE.
    for opcode in [SendFirst, SendMiddle, SendLast, WriteFirst] {
        let mut peer = RawPeer::new(Terms::new());
        let reth = begin(&mut peer);
        peer.next(WriteFirst, Ext::Reth(reth), &full);
        peer.answers();
        let ext = if opcode == WriteFirst {
            Ext::Reth(reth)
        } else {
            Ext::None
        };
        peer.send(opcode, peer.psn, ext, &full);
        refused(&mut peer, INVALID);
    }
}

#[test]
fn lying_lengths_are_invalid() {
    use Opcode::*;
    // First packets, with what they claim and what they bring.
    for (opcode, claim, len) in [
        (SendFirst, None, MTU - 4),
        (SendFirst, None, MTU + 4),
        (SendOnly, None, MTU + 4),
        (WriteFirst, Some(3000), MTU - 4),
        (WriteFirst, Some(MTU), MTU),
        (WriteFirst, Some(0), MTU),
        (WriteFirst, Some(100), MTU),
        (WriteOnly, Some(100), 99),
        (WriteOnly, Some(100), 101),
        (WriteOnly, Some(0), 1),
        (WriteOnly, Some(3000), MTU),
        (WriteOnly, Some((1 << 30) + 1), MTU),
        (WriteFirst, Some(u32::MAX as usize), MTU),
    ] {
        let mut peer = RawPeer::new(Terms::new());
        let sge = peer.side.mr.sge(0, 8192);
        peer.side.post_recv(1, &[sge]);
        let ext = claim.map_or(Ext::None, |n| Ext::Reth(reth(peer.side.mr, 0, n as u32)));
        peer.send(opcode, peer.psn, ext, &vec![9; len]);
        refused(&mut peer, INVALID);
        let bytes = peer.side.dev.bytes(peer.side.mr.id).unwrap();
        assert!(bytes.iter().all(|&b| b == 0), "{opcode:?} {claim:?} {len}");
    }
    // Later packets of a WRITE of 2,500 bytes.
    for (opcode, len) in [
        (WriteMiddle, MTU - 4),
        (WriteLast, 0),
        (WriteLast, MTU),
        (WriteLast, 452),
    ] {
        let mut peer = RawPeer::new(Terms::new());
        let first = Ext::Reth(reth(peer.side.mr, 0, 2500));
        peer.next(WriteFirst, first, &[9; MTU]);
        peer.answers();
        peer.send(opcode, peer.psn, Ext::None, &vec![9; len]);
        refused(&mut peer, INVALID);
    }
    // More than was announced.
    let mut peer = RawPeer::new(Terms::new());
    let first = Ext::Reth(reth(peer.side.mr, 0, 2500));
    peer.next(WriteFirst, first, &[9; MTU]);
    peer.next(WriteMiddle, Ext::None, &[9; MTU]);
    peer.answers();
    peer.send(WriteMiddle, peer.psn, Ext::None, &[9; MTU]);
    refused(&mut peer, INVALID);
    let bytes = peer.side.dev.bytes(peer.side.mr.id).unwrap();
    assert!(bytes[2 * MTU..].iter().all(|&b| b == 0));
}

#[test]
fn memory_that_is_not_the_peers_is_refused() {
    type Edit = fn(&mut Side, &mut Reth);
    let edits: [Edit; 9] = [
        |_, r| r.rkey ^= 1,
        |_, r| r.rkey = r.rkey.wrapping_add(0x100),
        |_, r| r.rkey = 0,
        |_, r| r.addr -= 1,
        |_, r| r.addr += REGION as u64 - 7,
        |_, r| r.addr = u64::MAX - 3,
        |_, r| r.addr = 0,
        |side, r| {
            // Another domain's region.
            let pd = side.dev.alloc_pd().unwrap();
            let foreign = side.dev.reg_mr(pd, 4096, crate::rig::all_access()).unwrap();
            (r.addr, r.rkey) = (foreign.addr, foreign.rkey);
        },
        |side, r| {
            // The right domain, without the right.
            let own = side.dev.reg_mr(side.pd, 4096, Access::LOCAL_WRITE).unwrap();
            (r.addr, r.rkey) = (own.addr, own.rkey);
        },
    ];
    for edit in edits {
        for opcode in [Opcode::WriteOnly, Opcode::ReadRequest, Opcode::FetchAdd] {
            let mut peer = RawPeer::new(Terms::new());
            let mut reth = reth(peer.side.mr, 0, 8);
            edit(&mut peer.side, &mut reth);
            let aligned = AtomicEth {
                addr: reth.addr & !7,
                rkey: reth.rkey,
                swap_add: 1,
                compare: 0,
            };
            let (ext, data) = match opcode {
                Opcode::WriteOnly => (Ext::Reth(reth), &[9; 8][..]),
                Opcode::ReadRequest => (Ext::Reth(reth), &[][..]),
                // One of the cases is out of range by its last bytes only.
                _ if aligned.addr != reth.addr => continue,
                _ => (Ext::Atomic(aligned), &[][..]),
            };
            peer.send(opcode, peer.psn, ext, data);
            refused(&mut peer, ACCESS);
            let bytes = peer.side.dev.bytes(peer.side.mr.id).unwrap();
            assert!(bytes.iter().all(|&b| b == 0));
        }
    }
}

#[test]
fn a_queue_pair_without_the_right_refuses_what_its_memory_would_admit() {
    for opcode in [Opcode::WriteOnly, Opcode::ReadRequest, Opcode::CompareSwap] {
        let mut terms = Terms::new();
        terms.access = Access::NONE;
        let mut peer = RawPeer::new(terms);
        let reth = reth(peer.side.mr, 0, 8);
        let ext = match opcode {
            Opcode::CompareSwap => Ext::Atomic(AtomicEth {
                addr: reth.addr,
                rkey: reth.rkey,
                swap_add: 1,
                compare: 0,
            }),
            _ => Ext::Reth(reth),
        };
        let data: &[u8] = if opcode == Opcode::WriteOnly {
            &[1; 8]
        } else {
            &[]
        };
        peer.send(opcode, peer.psn, ext, data);
        refused(&mut peer, INVALID);
    }
}

#[test]
fn of_no_bytes_no_key_is_asked() {
    let mut peer = RawPeer::new(Terms::new());
    let nowhere = Reth {
        addr: 5,
        rkey: 6,
        len: 0,
    };
    peer.next(Opcode::WriteOnly, Ext::Reth(nowhere), &[]);
    assert_eq!(peer.acknowledgement().0, ACK);
    peer.next(Opcode::ReadRequest, Ext::Reth(nowhere), &[]);
    assert_eq!(peer.answers()[0].0, Opcode::ReadResponseOnly);
}

#[test]
fn a_message_longer_than_its_receive_fails_both_sides() {
    let mut peer = RawPeer::new(Terms::new());
    let sge = peer.side.mr.sge(0, MTU as u32 + 10);
    peer.side.post_recv(5, &[sge]);
    peer.next(Opcode::SendFirst, Ext::None, &[1; MTU]);
    peer.answers();
    peer.send(Opcode::SendLast, peer.psn, Ext::None, &[2; 11]);
    refused(&mut peer, INVALID);
    assert_eq!(peer.side.outcomes(), [(5, Status::LocLenErr)]);
    let bytes = peer.side.dev.bytes(peer.side.mr.id).unwrap();
    assert!(
        bytes[MTU..].iter().all(|&b| b == 0),
        "nothing of what does not fit is written"
    );
}

#[test]
fn memory_that_goes_away_fails_what_needs_it() {
    // A receive's.
    let mut peer = RawPeer::new(Terms::new());
    let gone = peer
        .side
        .dev
        .reg_mr(peer.side.pd, 4096, Access::LOCAL_WRITE)
        .unwrap();
    peer.side.post_recv(5, &[gone.sge(0, 100)]);
    peer.side.dev.dereg_mr(gone.id).unwrap();
    peer.send(Opcode::SendOnly, peer.psn, Ext::None, b"x");
    refused(&mut peer, FAILED);
    assert_eq!(peer.side.outcomes(), [(5, Status::LocProtErr)]);
    // A WRITE's, between its packets.
    let mut peer = RawPeer::new(Terms::new());
    let gone = peer
        .side
        .dev
        .reg_mr(peer.side.pd, 4096, crate::rig::all_access())
        .unwrap();
    peer.next(
        Opcode::WriteFirst,
        Ext::Reth(reth(gone, 0, 2000)),
        &[1; MTU],
    );
    peer.answers();
    peer.side.dev.dereg_mr(gone.id).unwrap();
    peer.send(Opcode::WriteLast, peer.psn, Ext::None, &[1; 2000 - MTU]);
    refused(&mut peer, ACCESS);
    // A READ's, before it is answered.
    let mut peer = RawPeer::new(Terms::new());
    let gone = peer
        .side
        .dev
        .reg_mr(peer.side.pd, 4096, crate::rig::all_access())
        .unwrap();
    peer.send(
        Opcode::ReadRequest,
        peer.psn,
        Ext::Reth(reth(gone, 0, 4096)),
        &[],
    );
    peer.side.dev.dereg_mr(gone.id).unwrap();
    peer.psn += 4;
    refused(&mut peer, FAILED);
}

#[test]
fn without_a_receive_the_peer_is_told_to_wait() {
    for shared in [false, true] {
        let mut peer = RawPeer::new(Terms::new());
        if shared {
            // The same, with receives of many queue pairs.
            peer.side = Side::new("[fd00::1]:4791", 7, true, |_| ());
            let name = (peer.addr, crate::rig::PEER_QPN, peer.psn);
            peer.side.connect(name, &Terms::new());
        }
        let first = peer.psn;
        peer.send(Opcode::SendOnly, first, Ext::None, b"a");
        // What follows is ahead, and the peer knows already.
        peer.send(Opcode::SendOnly, first + 1, Ext::None, b"b");
        assert_eq!(peer.acknowledgement(), (RNR, first));
        peer.send(Opcode::SendOnly, first, Ext::None, b"a");
        assert_eq!(peer.acknowledgement(), (RNR, first));
        let sge = peer.side.mr.sge(64, 16);
        peer.side.post_recv(1, &[sge]);
        peer.next(Opcode::SendOnly, Ext::None, b"a");
        assert_eq!(peer.acknowledgement(), (ACK, first));
        // A WRITE with immediate needs one too, and writes nothing before it has one.
        let write = Ext::RethImm(reth(peer.side.mr, 128, 4), 77);
        peer.send(Opcode::WriteOnlyImm, peer.psn, write, b"wxyz");
        assert_eq!(peer.acknowledgement(), (RNR, peer.psn));
        assert_eq!(
            peer.side.dev.bytes(peer.side.mr.id).unwrap()[128..132],
            [0; 4]
        );
        peer.side.post_recv(2, &[]);
        peer.next(Opcode::WriteOnlyImm, write, b"wxyz");
        assert_eq!(peer.acknowledgement().0, ACK);
        let all = peer.side.completions();
        assert_eq!((all.len(), all[1].imm, all[1].byte_len), (2, Some(77), 4));
        assert_eq!(peer.side.dev.stats().rnr_naks_sent, 3);
        assert_eq!(peer.side.state(), QpState::Rts);
    }
}

#[test]
fn reads_beyond_what_was_agreed_are_invalid_and_a_peer_that_takes_nothing_costs_no_more() {
    let terms = Terms {
        rd_atomic: 2,
        ..Terms::new()
    };
    let mut peer = RawPeer::new(terms);
    let read = Ext::Reth(reth(peer.side.mr, 0, 8));
    // Nothing is taken from the device, so nothing is answered: two wait, a third is too many.
    peer.next(Opcode::ReadRequest, read, &[]);
    peer.next(Opcode::ReadRequest, read, &[]);
    peer.send(Opcode::ReadRequest, peer.psn, read, &[]);
    let answers = peer.answers();
    let kinds: Vec<_> = answers.iter().map(|a| a.0).collect();
    let only = Opcode::ReadResponseOnly;
    assert_eq!(kinds, [only, only, Opcode::Acknowledge]);
    assert!(matches!(answers[2].2, Ext::Aeth(a) if a.syndrome == INVALID));
    assert_eq!(peer.side.state(), QpState::Err);
}

#[test]
fn reads_are_answered_again_from_any_packet_and_only_as_they_were() {
    let mut peer = RawPeer::new(Terms::new());
    let mr = peer.side.mr;
    for (at, byte) in peer
        .side
        .dev
        .bytes_mut(mr.id)
        .unwrap()
        .iter_mut()
        .enumerate()
    {
        *byte = (at / 7) as u8;
    }
    let expected = peer.side.dev.bytes(mr.id).unwrap()[10..2510].to_vec();
    let psn = peer.psn;
    peer.send(Opcode::ReadRequest, psn, Ext::Reth(reth(mr, 10, 2500)), &[]);
    let whole = peer.answers();
    let data: Vec<u8> = whole.iter().flat_map(|a| a.3.clone()).collect();
    assert_eq!((whole.len(), data), (3, expected.clone()));
    peer.psn += 3;
    // The rest of it, from its second packet.
    let rest = Ext::Reth(reth(mr, 10 + MTU as u64, 2500 - MTU as u32));
    peer.send(Opcode::ReadRequest, psn + 1, rest, &[]);
    let again = peer.answers();
    let kinds: Vec<_> = again.iter().map(|a| (a.0, a.1)).collect();
    use Opcode::{ReadResponseFirst as First, ReadResponseLast as Last};
    assert_eq!(kinds, [(First, psn + 1), (Last, psn + 2)]);
    let data: Vec<u8> = again.iter().flat_map(|a| a.3.clone()).collect();
    assert_eq!(data, expected[MTU..]);
    // Another address, key or more bytes under the same numbers is nothing that was asked before.
    for other in [
        reth(mr, 0, 2500),
        reth(mr, 10, 2501),
        Reth {
            rkey: 1,
            ..reth(mr, 10, 2500)
        },
    ] {
        peer.send(Opcode::ReadRequest, psn, Ext::Reth(other), &[]);
        assert_eq!(peer.answers(), []);
    }
    assert_eq!(peer.side.dev.stats().forgotten, 3);
    assert_eq!(peer.side.state(), QpState::Rts);
}

#[test]
fn an_atomic_is_done_once_however_often_it_comes() {
    let mut peer = RawPeer::new(Terms::new());
    let mr = peer.side.mr;
    let word = |peer: &RawPeer| {
        let bytes = peer.side.dev.bytes(mr.id).unwrap();
        u64::from_ne_bytes(bytes[64..72].try_into().unwrap())
    };
    let atomic = |swap_add, compare| {
        Ext::Atomic(AtomicEth {
            addr: mr.addr + 64,
            rkey: mr.rkey,
            swap_add,
            compare,
        })
    };
    let found = |peer: &mut RawPeer| match &peer.answers()[..] {
        [(Opcode::AtomicAcknowledge, _, Ext::AtomicAck(_, found), _)] => Some(*found),
        _ => None,
    };
    let first = peer.psn;
    peer.next(Opcode::FetchAdd, atomic(5, 0), &[]);
    assert_eq!((found(&mut peer), word(&peer)), (Some(0), 5));
    peer.next(Opcode::CompareSwap, atomic(100, 5), &[]);
    assert_eq!((found(&mut peer), word(&peer)), (Some(5), 100));
    peer.next(Opcode::CompareSwap, atomic(1, 5), &[]);
    assert_eq!((found(&mut peer), word(&peer)), (Some(100), 100));
    for _ in 0..3 {
        peer.send(Opcode::FetchAdd, first, atomic(5, 0), &[]);
        assert_eq!((found(&mut peer), word(&peer)), (Some(0), 100));
    }
    peer.next(Opcode::FetchAdd, atomic(u64::MAX, 0), &[]);
    assert_eq!((found(&mut peer), word(&peer)), (Some(100), 99));
    // Four are kept: the first makes room for a fifth, and is not done again either.
    peer.next(Opcode::FetchAdd, atomic(1, 0), &[]);
    assert_eq!(found(&mut peer), Some(99));
    peer.send(Opcode::FetchAdd, first, atomic(5, 0), &[]);
    assert_eq!((found(&mut peer), word(&peer)), (None, 100));
    assert_eq!(peer.side.dev.stats().forgotten, 1);
    // Not at any address.
    let odd = Ext::Atomic(AtomicEth {
        addr: mr.addr + 65,
        rkey: mr.rkey,
        swap_add: 1,
        compare: 0,
    });
    peer.send(Opcode::FetchAdd, peer.psn, odd, &[]);
    refused(&mut peer, INVALID);
    assert_eq!(word(&peer), 100);
}

#[test]
fn another_queue_pair_does_not_notice() {
    let mut peer = RawPeer::new(Terms::new());
    let side = &mut peer.side;
    // A second client with a domain of its own on the same device.
    let pd = side.dev.alloc_pd().unwrap();
    let attr = QpInitAttr {
        send_cq: side.cq,
        recv_cq: side.cq,
        srq: None,
        cap: crate::rig::CAP,
        sq_sig_all: false,
    };
    let other = side.dev.create_qp(pd, &attr).unwrap();
    let access = crate::rig::all_access();
    side.dev
        .modify_to_init(other.id, &InitAttr { access })
        .unwrap();
    let rtr = crate::rig::rtr((peer.addr, 77, 1000), &Terms::new());
    side.dev.modify_to_rtr(other.id, &rtr).unwrap();
    let foreign = Ext::Reth(Reth {
        addr: 1,
        rkey: 2,
        len: 4,
    });
    peer.send(Opcode::WriteOnly, peer.psn, foreign, b"evil");
    refused(&mut peer, ACCESS);
    let read = Ext::Reth(Reth {
        addr: 1,
        rkey: 2,
        len: 0,
    });
    let mut bth = peer.bth(Opcode::ReadRequest, 1000, true);
    bth.qpn = other.qpn;
    let packet = peer.packet(bth, &read, &[]);
    peer.deliver(&packet);
    let (train, bytes) = peer.side.transmit(peer.now).unwrap();
    assert_eq!(
        (train.segments(), bytes[0]),
        (1, Opcode::ReadResponseOnly as u8)
    );
    assert_eq!(peer.side.dev.query_qp(other.id), Ok(QpState::Rtr));
}
