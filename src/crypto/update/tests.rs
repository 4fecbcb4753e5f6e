//! Key updates and AEAD limits, both sides, with packets out of order.

use super::*;
use crate::crypto::testing::{Ca, End, handshake, localhost};
use crate::crypto::{Session, unprotect};
use crate::wire::Code;
use std::sync::Arc;

const NO_LIMITS: AeadLimits = AeadLimits {
    confidentiality: u64::MAX,
    integrity: u64::MAX,
};

/// The 1-RTT keys of a client and a server that finished a handshake.
fn pair(limits: AeadLimits) -> (OneRttKeys, OneRttKeys) {
    let ca = Ca::new();
    let (client, server) = (Arc::new(ca.client()), Arc::new(ca.server(|_| {})));
    let mut client = End::new(Session::client(client, localhost(), Vec::new()).unwrap());
    let mut server = End::new(Session::server(server, Vec::new()).unwrap());
    handshake(&mut client, &mut server).unwrap();
    let keys = |end: End| {
        let (keys, next) = end.one_rtt.unwrap();
        OneRttKeys::with_limits(keys, next, limits)
    };
    (keys(client), keys(server))
}

/// A pair whose handshake is confirmed and whose first packets are acknowledged.
fn ready(limits: AeadLimits) -> (OneRttKeys, OneRttKeys) {
    let (mut a, mut b) = pair(limits);
    for (from, to) in [(0, 1), (1, 0)] {
        let ends = [&mut a, &mut b];
        let sent = packet(ends[from], 0, 0);
        assert_eq!(
            keys_of(receive(ends[to], 0, 0, None, &sent)),
            UsedKeys::Current
        );
        ends[from].on_ack(0, 0, UsedKeys::Current).unwrap();
        ends[from].on_handshake_confirmed();
        assert!(ends[from].can_update());
    }
    (a, b)
}

fn packet(from: &mut OneRttKeys, path: u32, pn: u32) -> Vec<u8> {
    let bit = from.begin_packet().unwrap();
    packet_in_phase(from, path, pn, bit).unwrap()
}

fn packet_in_phase(
    from: &mut OneRttKeys,
    path: u32,
    pn: u32,
    bit: u8,
) -> Result<Vec<u8>, SealError> {
    let mut packet = vec![0x43 | bit, 1, 2, 3, 4, 5, 6, 7, 8];
    packet.extend(pn.to_be_bytes());
    packet.extend([0; 10 + protect::TAG_LEN]);
    from.seal(path, pn.into(), &mut packet, 9, 4)?;
    Ok(packet)
}

fn receive(
    to: &mut OneRttKeys,
    path: u32,
    pn: u64,
    largest: Option<u64>,
    packet: &[u8],
) -> Result<Opened, OpenError> {
    let mut packet = packet.to_vec();
    let header = unprotect(to.header_key(), &mut packet, 9).unwrap();
    assert_eq!(u64::from(header.pn), pn);
    let opened = to.open(path, pn, largest, &mut packet, 13);
    if let Ok(opened) = opened {
        assert_eq!(packet[13..][..opened.len], [0; 10]);
    }
    opened
}

fn keys_of(opened: Result<Opened, OpenError>) -> UsedKeys {
    opened.unwrap().keys
}

fn code_of<T: std::fmt::Debug>(result: Result<T, OpenError>) -> Code {
    match result.unwrap_err() {
        OpenError::Fatal(error) => error.code,
        OpenError::Undecryptable(_) => panic!("not fatal"),
    }
}

const DROPPED: Result<Opened, OpenError> = Err(OpenError::Undecryptable(Undecryptable));
const LATER: Timestamp = Timestamp::from_nanos(3_000);

#[test]
fn either_side_updates_many_times() {
    let (mut a, mut b) = ready(NO_LIMITS);
    let mut pn = 1;
    for generation in 1..=9 {
        a.initiate_update().unwrap();
        // Packet and answer; each side learns of the update from the first packet that it opens.
        for _ in 0..2 {
            let sent = packet(&mut a, 0, pn);
            let largest = Some(u64::from(pn) - 1);
            assert_eq!(
                keys_of(receive(&mut b, 0, pn.into(), largest, &sent)),
                UsedKeys::New
            );
            let next = packet(&mut a, 0, pn + 1);
            let largest = Some(pn.into());
            let opened = receive(&mut b, 0, u64::from(pn) + 1, largest, &next);
            assert_eq!(keys_of(opened), UsedKeys::Current);
            a.on_ack(0, pn.into(), UsedKeys::Current).unwrap();
            b.keep_previous_until(LATER);
            std::mem::swap(&mut a, &mut b);
        }
        pn += 2;
        for end in [&mut a, &mut b] {
            assert_eq!(
                (end.updates(), end.phase),
                (generation, generation % 2 == 1)
            );
            assert_eq!(end.deadline(), Some(LATER));
            end.on_timeout(LATER);
            assert_eq!((end.deadline(), end.settled), (None, true));
        }
        // The other side starts the next one.
        let sent = packet(&mut b, 0, pn);
        receive(&mut a, 0, pn.into(), None, &sent).unwrap();
        b.on_ack(0, pn.into(), UsedKeys::Current).unwrap();
        pn += 1;
        std::mem::swap(&mut a, &mut b);
    }
}

#[test]
fn both_sides_may_update_at_once() {
    let (mut a, mut b) = ready(NO_LIMITS);
    a.initiate_update().unwrap();
    b.initiate_update().unwrap();
    let (from_a, from_b) = (packet(&mut a, 0, 1), packet(&mut b, 0, 1));
    assert_eq!(
        keys_of(receive(&mut b, 0, 1, Some(0), &from_a)),
        UsedKeys::New
    );
    assert_eq!(
        keys_of(receive(&mut a, 0, 1, Some(0), &from_b)),
        UsedKeys::New
    );
    assert_eq!((a.updates(), b.updates()), (1, 1));
}

#[test]
fn packets_from_before_an_update_open_until_their_key_goes() {
    let (mut a, mut b) = ready(NO_LIMITS);
    let old: Vec<_> = (1..=4).map(|pn| packet(&mut a, 0, pn)).collect();
    a.initiate_update().unwrap();
    let new: Vec<_> = (5..=7).map(|pn| packet(&mut a, 0, pn)).collect();

    // The second packet of the new phase comes first, then the phases interleave.
    assert_eq!(
        keys_of(receive(&mut b, 0, 6, Some(0), &new[1])),
        UsedKeys::New
    );
    b.keep_previous_until(LATER);
    assert_eq!(
        keys_of(receive(&mut b, 0, 1, Some(6), &old[0])),
        UsedKeys::Previous
    );
    assert_eq!(
        keys_of(receive(&mut b, 0, 5, Some(6), &new[0])),
        UsedKeys::Current
    );
    assert_eq!(
        keys_of(receive(&mut b, 0, 2, Some(6), &old[1])),
        UsedKeys::Previous
    );
    b.on_timeout(Timestamp::from_nanos(2_999));
    assert_eq!(
        keys_of(receive(&mut b, 0, 3, Some(6), &old[2])),
        UsedKeys::Previous
    );
    b.on_timeout(LATER);
    assert_eq!(receive(&mut b, 0, 4, Some(6), &old[3]), DROPPED);
    assert_eq!(
        keys_of(receive(&mut b, 0, 7, Some(6), &new[2])),
        UsedKeys::Current
    );
    assert_eq!((b.updates(), b.failures()), (1, 1));
}

/// Who starts an update still gets the old phase until the peer has seen it.
#[test]
fn the_initiator_opens_the_old_phase_until_it_is_answered() {
    let (mut a, mut b) = ready(NO_LIMITS);
    a.initiate_update().unwrap();
    let update = packet(&mut a, 0, 1);
    for pn in 1..=100 {
        let sent = packet(&mut b, 0, pn);
        let opened = receive(&mut a, 0, pn.into(), Some(u64::from(pn) - 1), &sent);
        assert_eq!(keys_of(opened), UsedKeys::Previous);
    }
    // Nothing was opened under the new keys, so no time is set and nothing goes.
    a.on_timeout(Timestamp::NEVER);
    receive(&mut b, 0, 1, Some(0), &update).unwrap();
    let answer = packet(&mut b, 0, 101);
    assert_eq!(
        keys_of(receive(&mut a, 0, 101, Some(100), &answer)),
        UsedKeys::New
    );
}

#[test]
fn an_update_waits_for_its_conditions() {
    let (mut a, mut b) = pair(NO_LIMITS);
    let sent = packet(&mut a, 0, 0);
    receive(&mut b, 0, 0, None, &sent).unwrap();
    assert_eq!(
        a.initiate_update(),
        Err(UpdateNotAllowed),
        "nothing is confirmed"
    );
    a.on_handshake_confirmed();
    assert_eq!(
        a.initiate_update(),
        Err(UpdateNotAllowed),
        "nothing is acknowledged"
    );
    a.on_ack(0, 0, UsedKeys::Current).unwrap();
    a.initiate_update().unwrap();

    let sent = packet(&mut a, 0, 1);
    a.on_ack(0, 0, UsedKeys::Previous).unwrap();
    assert!(
        !a.acked,
        "what was acknowledged belongs to the phase before"
    );
    receive(&mut b, 0, 1, Some(0), &sent).unwrap();
    let answer = packet(&mut b, 0, 1);
    assert_eq!(
        keys_of(receive(&mut a, 0, 1, Some(0), &answer)),
        UsedKeys::New
    );
    a.on_ack(0, 1, UsedKeys::Current).unwrap();
    assert_eq!(
        a.initiate_update(),
        Err(UpdateNotAllowed),
        "the old key is still there"
    );
    a.keep_previous_until(LATER);
    a.on_timeout(LATER);
    a.initiate_update().unwrap();
}

#[test]
fn one_path_acknowledges_for_all_but_only_by_its_own_numbers() {
    let (mut a, _) = ready(NO_LIMITS);
    a.initiate_update().unwrap();
    packet(&mut a, 1, 50);
    packet(&mut a, 2, 7);
    packet(&mut a, 2, 8);
    for (path, pn) in [(0, 1000), (1, 49), (2, 6)] {
        a.on_ack(path, pn, UsedKeys::Current).unwrap();
        assert!(!a.acked, "path {path} packet {pn}");
    }
    a.on_ack(2, 7, UsedKeys::Current).unwrap();
    assert!(a.acked);
}

#[test]
fn paths_tell_old_from_new_by_their_own_numbers() {
    let (mut a, mut b) = ready(NO_LIMITS);
    let old_on_1 = packet(&mut a, 1, 500);
    let old_on_2 = packet(&mut a, 2, 3);
    a.initiate_update().unwrap();
    let new_on_2 = packet(&mut a, 2, 4);
    let new_on_1 = packet(&mut a, 1, 501);
    assert_eq!(
        keys_of(receive(&mut b, 2, 4, None, &new_on_2)),
        UsedKeys::New
    );
    assert_eq!(
        keys_of(receive(&mut b, 1, 500, None, &old_on_1)),
        UsedKeys::Previous
    );
    assert_eq!(
        keys_of(receive(&mut b, 2, 3, Some(4), &old_on_2)),
        UsedKeys::Previous
    );
    assert_eq!(
        keys_of(receive(&mut b, 1, 501, Some(500), &new_on_1)),
        UsedKeys::Current
    );
}

#[test]
fn more_paths_than_are_noted_still_work() {
    let (mut a, mut b) = ready(NO_LIMITS);
    a.initiate_update().unwrap();
    for path in 0..2 * limits::PATH_RECORDS as u32 {
        let sent = packet(&mut a, path, 1);
        receive(&mut b, path, 1, None, &sent).unwrap();
    }
    assert_eq!(a.sent_from.0.len(), limits::PATH_RECORDS);
    assert_eq!(b.received_from.0.len(), limits::PATH_RECORDS);
    // The last that a connection can have at once counts like the first.
    let last = limits::PATH_RECORDS as u32 - 1;
    a.on_ack(last, 1, UsedKeys::Current).unwrap();
    assert!(a.acked);
}

#[test]
fn keys_at_rest_open_packets_of_either_phase() {
    let (mut a, mut b) = ready(NO_LIMITS);
    b.rest();
    let mut forged = packet(&mut a, 0, 20);
    *forged.last_mut().unwrap() ^= 1;
    assert!(receive(&mut b, 0, 20, None, &forged).is_err() && b.updates() == 0);
    b.rest();
    let sent = packet(&mut a, 0, 21);
    let opened = receive(&mut b, 0, 21, None, &sent);
    assert_eq!((keys_of(opened), b.plain), (UsedKeys::Current, true));
    b.rest();
    a.rest();
    a.initiate_update().unwrap();
    let sent = packet(&mut a, 0, 22);
    let opened = receive(&mut b, 0, 22, Some(21), &sent);
    assert_eq!((keys_of(opened), b.updates()), (UsedKeys::New, 1));
    // Not before the keys before the update are gone.
    b.rest();
    let sent = packet(&mut a, 0, 23);
    let opened = receive(&mut b, 0, 23, Some(22), &sent);
    assert_eq!(keys_of(opened), UsedKeys::Current);
}

#[test]
fn a_forged_update_changes_nothing() {
    let (mut a, mut b) = ready(NO_LIMITS);
    for pn in 1..=20 {
        let mut forged = packet(&mut a, 0, pn);
        let last = forged.len() - 1;
        forged[0] ^= KEY_PHASE;
        forged[last] ^= 1;
        assert_eq!(receive(&mut b, 0, pn.into(), Some(0), &forged), DROPPED);
    }
    assert_eq!((b.updates(), b.failures(), b.settled), (0, 20, true));
    let sent = packet(&mut a, 0, 21);
    assert_eq!(
        keys_of(receive(&mut b, 0, 21, Some(0), &sent)),
        UsedKeys::Current
    );
}

#[test]
fn the_second_generation_waits_for_a_packet_or_an_update_that_needs_it() {
    let (mut a, mut b) = ready(NO_LIMITS);
    assert!(a.next.is_none() && b.next.is_none());
    for pn in 1..=READY_AFTER as u32 {
        assert!(a.next.is_none(), "{pn}");
        packet(&mut a, 0, pn);
    }
    packet(&mut a, 0, 20);
    assert!(a.next.is_some());
    // The other side has not come so far when it is told to follow.
    a.initiate_update().unwrap();
    assert!(a.next.is_some());
    let sent = packet(&mut a, 0, 21);
    assert_eq!(
        keys_of(receive(&mut b, 0, 21, Some(0), &sent)),
        UsedKeys::New
    );
    assert!(b.next.is_some());
    // Nor has one that updates at once.
    let (mut a, mut b) = ready(NO_LIMITS);
    a.initiate_update().unwrap();
    let sent = packet(&mut a, 0, 1);
    assert_eq!(
        keys_of(receive(&mut b, 0, 1, Some(0), &sent)),
        UsedKeys::New
    );
}

#[test]
fn new_keys_on_a_lower_packet_number_are_an_error() {
    let (mut a, mut b) = ready(NO_LIMITS);
    let old = packet(&mut a, 0, 9);
    receive(&mut b, 0, 9, Some(0), &old).unwrap();
    a.initiate_update().unwrap();
    let new = packet(&mut a, 0, 8);
    assert_eq!(
        code_of(receive(&mut b, 0, 8, Some(9), &new)),
        Code::KEY_UPDATE_ERROR
    );
}

#[test]
fn two_updates_without_an_answer_are_an_error() {
    let (mut a, mut b) = ready(NO_LIMITS);
    a.initiate_update().unwrap();
    let first = packet(&mut a, 0, 1);
    assert_eq!(
        keys_of(receive(&mut b, 0, 1, Some(0), &first)),
        UsedKeys::New
    );
    a.advance();
    let second = packet(&mut a, 0, 2);
    assert_eq!(
        code_of(receive(&mut b, 0, 2, Some(1), &second)),
        Code::KEY_UPDATE_ERROR
    );
}

#[test]
fn a_second_update_after_an_answer_opens_while_the_first_keys_are_kept() {
    let (mut a, mut b) = ready(NO_LIMITS);
    a.initiate_update().unwrap();
    let first = packet(&mut a, 0, 1);
    receive(&mut b, 0, 1, Some(0), &first).unwrap();
    packet(&mut b, 0, 1);
    a.advance();
    let second = packet(&mut a, 0, 2);
    assert_eq!(
        keys_of(receive(&mut b, 0, 2, Some(1), &second)),
        UsedKeys::New
    );
    assert_eq!(b.updates(), 2);
}

#[test]
fn an_update_acknowledged_under_old_keys_is_an_error() {
    let (mut a, _) = ready(NO_LIMITS);
    a.initiate_update().unwrap();
    packet(&mut a, 0, 1);
    let error = a.on_ack(0, 1, UsedKeys::Previous).unwrap_err();
    assert_eq!(error.code, Code::KEY_UPDATE_ERROR);
}

#[test]
fn the_confidentiality_limit_starts_an_update() {
    let limits = AeadLimits {
        confidentiality: 16,
        ..NO_LIMITS
    };
    let (mut a, mut b) = ready(limits);
    // `ready` sealed one; all paths count together.
    for pn in 1..8 {
        packet(&mut a, pn % 3, pn);
    }
    assert_eq!((a.sealed, a.updates()), (8, 0));
    let sent = packet(&mut a, 0, 8);
    assert_eq!((a.sealed, a.updates()), (1, 1));
    assert_eq!(
        keys_of(receive(&mut b, 0, 8, Some(0), &sent)),
        UsedKeys::New
    );
}

#[test]
fn the_confidentiality_limit_holds_where_no_update_is_possible() {
    let limits = AeadLimits {
        confidentiality: 16,
        ..NO_LIMITS
    };
    let (mut a, mut b) = pair(limits);
    for pn in 0..12 {
        packet(&mut a, 0, pn);
    }
    // A reserve is left for CONNECTION_CLOSE, and not one packet more.
    assert_eq!(a.begin_packet().unwrap_err().code, Code::AEAD_LIMIT_REACHED);
    for pn in 12..16 {
        let bit = a.phase_bit();
        let closing = packet_in_phase(&mut a, 0, pn, bit).unwrap();
        receive(&mut b, 0, pn.into(), None, &closing).unwrap();
    }
    let bit = a.phase_bit();
    assert_eq!(
        packet_in_phase(&mut a, 0, 16, bit),
        Err(SealError::LimitReached)
    );
}

#[test]
fn the_integrity_limit_counts_over_generations_and_levels() {
    let limits = AeadLimits {
        integrity: 5,
        ..NO_LIMITS
    };
    let (mut a, mut b) = ready(limits);
    b.add_failures(1).unwrap();
    let forge = |a: &mut OneRttKeys, b: &mut OneRttKeys, pn: u32| {
        let mut forged = packet(a, 0, pn);
        let last = forged.len() - 1;
        forged[last] ^= 1;
        receive(b, 0, pn.into(), Some(0), &forged)
    };
    assert_eq!(forge(&mut a, &mut b, 1), DROPPED);
    assert_eq!(forge(&mut a, &mut b, 2), DROPPED);
    a.initiate_update().unwrap();
    assert_eq!(forge(&mut a, &mut b, 3), DROPPED);
    let sent = packet(&mut a, 0, 4);
    receive(&mut b, 0, 4, Some(0), &sent).unwrap();
    assert_eq!(forge(&mut a, &mut b, 5), DROPPED);
    assert_eq!(b.failures(), 5);
    assert_eq!(code_of(forge(&mut a, &mut b, 6)), Code::AEAD_LIMIT_REACHED);
}

#[test]
fn limits_only_go_down() {
    let (a, _) = pair(NO_LIMITS);
    assert_eq!(a.limits, AeadLimits::of(&a.local));
    assert!(a.limits.integrity < u64::MAX);
}
