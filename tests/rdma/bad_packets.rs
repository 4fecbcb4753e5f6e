//! Packets that are dropped and counted, each under its own reason, and change nothing; and numbers
//! that are not the expected ones.

use crate::rig::{RawPeer, Terms, meta};
use corelane::rdma::roce::Stats;
use corelane::rdma::roce::wire::{Ext, Icrc, Opcode, Psn};
use corelane::rdma::*;

const ACK: u8 = 0x1f;
const SEQUENCE: u8 = 0x60;
const INVALID: u8 = 0x61;

fn ready() -> RawPeer {
    let mut peer = RawPeer::new(Terms::new());
    for n in 0..8 {
        let sge = peer.side.mr.sge(n * 4096, 4096);
        peer.side.post_recv(n, &[sge]);
    }
    peer
}

/// Nothing was answered, done or changed, and the next good packet is served as ever.
fn unharmed(peer: &mut RawPeer) {
    assert_eq!(peer.answers(), []);
    assert_eq!(
        (peer.side.completions(), peer.side.state()),
        (vec![], QpState::Rts)
    );
    let psn = peer.psn;
    peer.next(Opcode::SendOnly, Ext::None, b"well");
    assert_eq!(peer.acknowledgement(), (ACK, psn & 0xff_ffff));
    assert_eq!(peer.side.completions().len(), 1);
}

/// A good packet, edited before its ICRC is written.
fn edited(peer: &mut RawPeer, edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let bth = peer.bth(Opcode::SendOnly, peer.psn, true);
    let mut packet = peer.packet(bth, &Ext::None, b"hello");
    edit(&mut packet);
    Icrc::new(peer.addr, peer.side.addr).seal(&mut packet, 0);
    packet
}

#[test]
fn each_reason_to_drop_has_its_counter() {
    type Edit = fn(&mut Vec<u8>);
    type Count = fn(&Stats) -> u64;
    let cases: [(Edit, Count); 8] = [
        (|p| p[1] |= 1, |s| s.malformed),
        (|p| p.truncate(16), |s| s.malformed),
        (|p| p.extend([0; 3]), |s| s.malformed),
        (|p| p[0] = 0x64, |s| s.foreign_opcodes),
        (|p| p[0] = 0x81, |s| s.congestion_notifications),
        (|p| p[2] = 0, |s| s.wrong_path),
        (|p| p[5] ^= 0x80, |s| s.unknown_qp),
        (|p| p[0] = Opcode::ReadRequest as u8, |s| s.malformed),
    ];
    for (n, (edit, count)) in cases.into_iter().enumerate() {
        let mut peer = ready();
        let packet = edited(&mut peer, edit);
        peer.deliver(&packet);
        assert_eq!(count(peer.side.dev.stats()), 1, "case {n}");
        unharmed(&mut peer);
    }
}

#[test]
fn every_length_and_a_wrong_checksum_are_met_with_silence() {
    let mut peer = ready();
    let packet = edited(&mut peer, |_| ());
    for len in 0..packet.len() {
        peer.deliver(&packet[..len]);
    }
    for bit in (0..8 * packet.len()).filter(|bit| !(32..40).contains(bit)) {
        let mut bad = packet.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        peer.deliver(&bad);
    }
    let stats = *peer.side.dev.stats();
    assert!(stats.bad_icrc > 100 && stats.malformed > 10, "{stats:?}");
    unharmed(&mut peer);
}

#[test]
fn other_addresses_are_not_the_peer() {
    for (from, to) in [
        ("[fd00::3]:4791", "[fd00::1]:4791"),
        ("[fd00::2]:4791", "[fd00::9]:4791"),
        ("10.0.0.2:4791", "[fd00::1]:4791"),
    ] {
        let mut peer = ready();
        let packet = edited(&mut peer, |_| ());
        let meta = meta(from.parse().unwrap(), to.parse().unwrap(), packet.len());
        peer.side
            .dev
            .handle_train(peer.now, &meta, &mut packet.clone());
        assert_eq!(peer.side.dev.stats().wrong_path, 1);
        unharmed(&mut peer);
    }
}

#[test]
fn another_port_of_the_peer_is_still_the_peer() {
    let mut peer = ready();
    let mut packet = edited(&mut peer, |_| ());
    let from = "[fd00::2]:49152".parse().unwrap();
    Icrc::new(from, peer.side.addr).seal(&mut packet, 0);
    let meta = meta(from, peer.side.addr, packet.len());
    peer.side.dev.handle_train(peer.now, &meta, &mut packet);
    assert_eq!(peer.acknowledgement(), (ACK, peer.psn));
}

#[test]
fn a_queue_pair_that_does_not_receive_drops() {
    let mut peer = ready();
    let packet = edited(&mut peer, |_| ());
    let id = peer.side.qp.id;
    peer.side.dev.modify_to_reset(id).unwrap();
    peer.deliver(&packet);
    peer.side
        .dev
        .modify_to_init(
            id,
            &InitAttr {
                access: Access::NONE,
            },
        )
        .unwrap();
    peer.deliver(&packet);
    peer.side.dev.modify_to_err(id).unwrap();
    peer.deliver(&packet);
    peer.side.dev.destroy_qp(id).unwrap();
    peer.deliver(&packet);
    assert_eq!(
        (peer.side.dev.stats().unknown_qp, peer.answers()),
        (4, vec![])
    );
}

#[test]
fn a_gap_is_told_once_and_what_is_behind_is_acknowledged_again() {
    let mut peer = ready();
    let first = peer.psn;
    peer.next(Opcode::SendOnly, Ext::None, b"one");
    assert_eq!(peer.acknowledgement(), (ACK, first));
    // Ahead: one refusal with the number expected.
    for n in 1..5 {
        peer.send(Opcode::SendOnly, first + 1 + n, Ext::None, b"later");
    }
    assert_eq!(peer.acknowledgement(), (SEQUENCE, first + 1));
    peer.send(Opcode::SendOnly, first + 3, Ext::None, b"later");
    assert_eq!(peer.answers(), []);
    // Behind: acknowledged again, and not done again.
    peer.send(Opcode::SendOnly, first, Ext::None, b"one");
    assert_eq!(peer.acknowledgement(), (ACK, first));
    assert_eq!(peer.side.outcomes().len(), 1);
    // A number half the space away is ahead or behind, and neither harms.
    for far in [1 << 23, (1 << 23) - 1, (1 << 23) + 1] {
        peer.send(Opcode::SendOnly, first.wrapping_add(far), Ext::None, b"far");
        peer.answers();
    }
    peer.next(Opcode::SendOnly, Ext::None, b"two");
    assert_eq!(peer.acknowledgement(), (ACK, first + 1));
    // The next gap is told again.
    peer.send(Opcode::SendOnly, first + 7, Ext::None, b"later");
    assert_eq!(peer.acknowledgement(), (SEQUENCE, first + 2));
    assert_eq!(peer.side.dev.stats().sequence_naks_sent, 2);
}

#[test]
fn a_train_is_acknowledged_once_at_its_end() {
    let mut peer = ready();
    let first = peer.psn;
    let mut train = Vec::new();
    for n in 0..6 {
        let bth = peer.bth(Opcode::SendOnly, first + n, true);
        train.extend(peer.packet(bth, &Ext::None, &[n as u8; 16]));
    }
    let meta = meta(peer.addr, peer.side.addr, train.len() / 6);
    peer.side.dev.handle_train(peer.now, &meta, &mut train);
    assert_eq!(peer.acknowledgement(), (ACK, Psn::new(first + 5).get()));
    assert_eq!(peer.side.completions().len(), 6);
    // The gap in the middle of one, closed by its own end, is told of no more.
    let at = first + 6;
    let mut train = Vec::new();
    for n in [1, 0] {
        let bth = peer.bth(Opcode::SendOnly, at + n, false);
        train.extend(peer.packet(bth, &Ext::None, &[0; 16]));
    }
    let size = train.len() / 2;
    let meta = crate::rig::meta(peer.addr, peer.side.addr, size);
    peer.side.dev.handle_train(peer.now, &meta, &mut train);
    assert_eq!(peer.acknowledgement(), (ACK, Psn::new(at).get()));
}

#[test]
fn an_opcode_that_is_not_offered_is_an_invalid_request() {
    for opcode in [0x15, 0x16, 0x17, 0x1f] {
        let mut peer = ready();
        let packet = edited(&mut peer, |p| p[0] = opcode);
        peer.deliver(&packet);
        assert_eq!(peer.acknowledgement(), (INVALID, peer.psn));
        assert_eq!(peer.side.events(), [AsyncEvent::QpReqErr(peer.side.qp.id)]);
        assert_eq!(peer.side.state(), QpState::Err);
        let flushed = (0..8).map(|n| (n, Status::WrFlushErr)).collect::<Vec<_>>();
        assert_eq!(peer.side.outcomes(), flushed);
        // Out of turn it is out of turn.
        let mut peer = ready();
        peer.psn += 5;
        let packet = edited(&mut peer, |p| p[0] = opcode);
        peer.psn -= 5;
        peer.deliver(&packet);
        unharmed(&mut peer);
    }
}
