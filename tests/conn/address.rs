//! Addresses and connection IDs: rebinding, migration, probing, who may send how much to whom.

use crate::common::attack::{Attack, Plan};
use crate::common::pair::{CLIENT, Pair, SERVER, Setup};
use crate::common::raw_peer::{payload, stream_frame};
use bytes::Bytes;
use corelane::base::limits;
use corelane::conn::Event;
use corelane::wire::frame::{self, Frame, NewConnectionId};
use corelane::wire::{Code, ConnectionId, Dir, PacketType, TransportParameters};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn elsewhere() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 4000))
}

/// Sends frames in a 1-RTT packet from an address of choice.
fn one_rtt_from(a: &mut Attack, from: SocketAddr, frames: &[u8]) {
    let p = a.peer.packet(PacketType::OneRtt, frames);
    a.send_from(from, &p);
}

/// The challenges that went to `to`.
fn challenges(a: &Attack, to: SocketAddr) -> Vec<[u8; 8]> {
    let there = a.inbox.iter().filter(|p| p.to == Some(to));
    let frames = there.flat_map(|p| p.frames());
    frames
        .filter_map(|f| match f {
            Frame::PathChallenge(data) => Some(data),
            _ => None,
        })
        .collect()
}

fn responses(a: &Attack) -> Vec<[u8; 8]> {
    let frames = a.inbox.iter().flat_map(|p| p.frames());
    frames
        .filter_map(|f| match f {
            Frame::PathResponse(data) => Some(data),
            _ => None,
        })
        .collect()
}

/// RFC 9000 §9.3: the server follows its client, challenges the new address and goes on.
#[test]
fn a_rebinding_in_mid_transfer_is_followed() {
    for change_host in [false, true] {
        let mut pair = Pair::new(Setup::default());
        let (client, server) = pair.connected();
        let data = Bytes::from(vec![7; 2_000_000]);
        for (side, id) in [(CLIENT, client), (SERVER, server)] {
            let streams = pair.conn(side, id).streams_mut();
            let stream = streams.open(Dir::Uni).expect("a stream");
            assert_eq!(streams.write_bytes(stream, data.clone()), Ok(data.len()));
            streams.finish(stream).expect("open");
        }
        pair.run(60 * MS);
        let new = if change_host {
            elsewhere()
        } else {
            SocketAddr::from(([127, 0, 0, 1], 1111))
        };
        pair.filter = Box::new(move |mut p| {
            if p.from == CLIENT {
                p.source = new;
            }
            vec![p]
        });
        pair.run(30 * SECOND);
        for side in [CLIENT, SERVER] {
            assert_eq!(pair.closed(side), None);
            let got: usize = pair.sides[side].app.received.values().map(Vec::len).sum();
            assert_eq!(got, data.len(), "host changed: {change_host}");
        }
        assert_eq!(pair.conn(SERVER, server).path().remote, new);
        assert_eq!(pair.conn(SERVER, server).stats().migrations, 1);
        assert!(pair.saw(SERVER, &Event::PeerAddressChanged));
    }
}

/// RFC 9000 §8.2.1, §9.3.1: a small packet from a new address is answered with what three times
/// its size admits, a challenge first of all.
#[test]
fn a_small_packet_from_a_new_address_is_challenged_within_the_limit() {
    let mut a = Attack::server();
    a.run(SECOND);
    a.ack_all();
    a.inbox.clear();
    a.datagrams.clear();
    let id = a
        .connection()
        .streams_mut()
        .open(Dir::Uni)
        .expect("a stream");
    a.connection()
        .streams_mut()
        .write(id, &[1; 100_000])
        .expect("room");
    let p = a.peer.packet(PacketType::OneRtt, &[1]);
    a.send_from(elsewhere(), &p);
    assert_eq!(challenges(&a, elsewhere()).len(), 1);
    // RFC 9000 §9.3.3: the client may never have left.
    assert_eq!(challenges(&a, a.peer_addr).len(), 1);
    for _ in 0..50 {
        a.run(50 * MS);
        let there = a.datagrams.iter().filter(|d| d.0 == elsewhere());
        let bytes: usize = there.map(|d| d.1.len()).sum();
        assert!(bytes <= 3 * p.len(), "{bytes} after {}", p.len());
    }
}

/// RFC 9000 §9.3.2: an address that does not answer is left for the one before.
#[test]
fn an_address_that_does_not_answer_is_left_for_the_one_before() {
    for size in [1, 1000] {
        let mut a = Attack::server();
        let home = a.peer_addr;
        one_rtt_from(&mut a, elsewhere(), &vec![1; size]);
        assert_eq!(a.connection().path().remote, elsewhere());
        a.run(20 * SECOND);
        assert_eq!(
            a.connection().path().remote,
            home,
            "after a packet of {size} frames"
        );
        assert_eq!(a.closed(), None);
        a.expect_alive();
        assert!(a.datagrams.last().is_some_and(|d| d.0 == home));
    }
}

/// RFC 9000 §8.2.3: only the data of the challenge validates, and only after it was sent.
#[test]
fn a_wrong_response_validates_nothing_and_the_right_one_does() {
    let mut a = Attack::server();
    a.inbox.clear();
    one_rtt_from(&mut a, elsewhere(), &[1; 600]);
    let data = challenges(&a, elsewhere())[0];
    let mut wrong = data;
    wrong[0] ^= 1;
    one_rtt_from(
        &mut a,
        elsewhere(),
        &payload(|w| frame::write_path_response(w, &wrong)),
    );
    a.datagrams.clear();
    let id = a
        .connection()
        .streams_mut()
        .open(Dir::Uni)
        .expect("a stream");
    a.connection()
        .streams_mut()
        .write(id, &[1; 50_000])
        .expect("room");
    a.collect();
    let before: usize = a.datagrams.iter().map(|d| d.1.len()).sum();
    assert!(before < 3 * 800, "still limited: {before}");
    a.datagrams.clear();
    one_rtt_from(
        &mut a,
        elsewhere(),
        &payload(|w| frame::write_path_response(w, &data)),
    );
    a.run(100 * MS);
    let after: usize = a.datagrams.iter().map(|d| d.1.len()).sum();
    assert!(after > 5000, "no longer limited: {after}");
    a.run(20 * SECOND);
    assert_eq!(a.connection().path().remote, elsewhere());
}

/// RFC 9000 §9.1, §8.2.2: probing packets move nothing and are answered where they come from, with
/// at most three times their size.
#[test]
fn a_probe_is_answered_where_it_comes_from_and_moves_nothing() {
    let mut a = Attack::server();
    a.ack_all();
    a.inbox.clear();
    a.datagrams.clear();
    let home = a.peer_addr;
    let mut frames = payload(|w| frame::write_path_challenge(w, &[9; 8]));
    frames.resize(1150, 0);
    one_rtt_from(&mut a, elsewhere(), &frames);
    assert_eq!(a.connection().path().remote, home);
    assert_eq!(responses(&a), [[9; 8]]);
    let answer = a.datagrams.iter().find(|d| d.0 == elsewhere());
    assert!(
        answer.is_some_and(|d| d.1.len() == 1200),
        "in a full datagram"
    );
    // Many small ones in one small datagram: an answer as small.
    a.inbox.clear();
    a.datagrams.clear();
    let elsewhere = || SocketAddr::from(([192, 0, 2, 2], 4000));
    let many: Vec<u8> = (0..20u8)
        .flat_map(|n| payload(|w| frame::write_path_challenge(w, &[n; 8])))
        .collect();
    let size = a.sent_to_endpoint;
    one_rtt_from(&mut a, elsewhere(), &many);
    let size = a.sent_to_endpoint - size;
    let there = a.datagrams.iter().filter(|d| d.0 == elsewhere());
    assert!(there.map(|d| d.1.len()).sum::<usize>() <= 3 * size);
    assert!((1..=limits::PATH_RESPONSES).contains(&responses(&a).len()));
    a.expect_alive();
}

/// CVE-2023-6193 class: challenges without end are answered a few at a time, and nothing piles up.
#[test]
fn a_flood_of_challenges_is_answered_a_few_at_a_time() {
    let mut a = Attack::server();
    let addr = a.peer_addr;
    a.inbox.clear();
    // Nothing may leave in between.
    for n in 0..10_000u64 {
        let frames: Vec<u8> = (0..100u64)
            .flat_map(|i| payload(|w| frame::write_path_challenge(w, &(n * 100 + i).to_be_bytes())))
            .collect();
        let p = a.peer.packet(PacketType::OneRtt, &frames);
        a.deliver(addr, &p);
    }
    a.collect();
    assert!(responses(&a).len() <= limits::PATH_RESPONSES);
    // From a different port each.
    a.inbox.clear();
    for port in 1..2000 {
        let p = a.peer.packet(
            PacketType::OneRtt,
            &payload(|w| frame::write_path_challenge(w, &[1; 8])),
        );
        a.deliver(SocketAddr::from(([192, 0, 2, 1], port)), &p);
    }
    a.collect();
    assert!(responses(&a).len() <= limits::PATH_RESPONSES);
    a.expect_alive();
}

/// CVE-2026-12707 class: a new source address with every packet.
#[test]
fn rapid_changes_of_address_keep_no_state() {
    let mut a = Attack::server();
    let home = a.peer_addr;
    for n in 0..20_000u32 {
        let from = SocketAddr::from(((n | 0x0a00_0000).to_be_bytes(), 1000 + (n % 50) as u16));
        let p = a.peer.packet(PacketType::OneRtt, &[1]);
        a.deliver(from, &p);
        if n % 100 == 0 {
            a.collect();
        }
    }
    a.collect();
    assert_eq!(a.endpoint.len(), 1);
    assert!(a.events.len() <= 2 * limits::EVENTS, "{}", a.events.len());
    assert!(a.sent_by_endpoint <= 3 * a.sent_to_endpoint);
    one_rtt_from(&mut a, home, &[1]);
    assert_eq!(
        a.connection().path().remote,
        home,
        "back to the address that was proven"
    );
    a.expect_alive();
}

/// RFC 9000 §9: a client does not take packets from an address that is not its server's.
#[test]
fn a_client_ignores_packets_from_other_addresses() {
    let mut a = Attack::client();
    let before = a.connection().stats().packets_received;
    one_rtt_from(&mut a, elsewhere(), &stream_frame(1, 0, b"x", false));
    assert_eq!(a.connection().stats().packets_received, before);
    a.expect_alive();
}

/// An old packet from another address moves nothing (RFC 9000 §9.3).
#[test]
fn only_the_newest_packet_moves_the_path() {
    let mut a = Attack::server();
    let old = a.peer.packet(PacketType::OneRtt, &[1]);
    a.one_rtt(&[1]);
    let home = a.peer_addr;
    a.send_from(elsewhere(), &old);
    assert_eq!(a.connection().path().remote, home);
}

fn issued(a: &Attack) -> Vec<(u64, ConnectionId)> {
    let frames = a.inbox.iter().flat_map(|p| p.frames());
    frames
        .filter_map(|f| match f {
            Frame::NewConnectionId(n) => Some((n.seq, n.cid)),
            _ => None,
        })
        .collect()
}

fn with_cid_limit(limit: u64) -> Attack {
    let plan = Plan {
        params: TransportParameters {
            active_connection_id_limit: limit,
            ..crate::common::attack::params()
        },
        ..Plan::default()
    };
    let mut a = Attack::on_server(plan);
    for _ in 0..6 {
        for d in a.peer.flight() {
            a.send(&d);
        }
        a.run(MS);
    }
    a
}

/// RFC 9000 §5.1.1: as many as the peer stores, and never more.
#[test]
fn connection_ids_are_issued_up_to_the_peers_limit() {
    for (limit, expected) in [(2, 1), (3, 2), (4, 3), (100, limits::ACTIVE_CIDS - 1)] {
        let a = with_cid_limit(limit);
        let seqs: BTreeSet<u64> = issued(&a).iter().map(|i| i.0).collect();
        assert_eq!(seqs.len(), expected, "limit {limit}");
        // Those, the handshake's and the client's first choice lead to the connection.
        assert_eq!(a.endpoint.routes(), expected + 2);
    }
}

/// RFC 9000 §5.1.2: a retired connection ID is replaced, and leads nowhere any more.
#[test]
fn retired_connection_ids_are_replaced_and_forgotten() {
    let mut a = with_cid_limit(2);
    let mut known = issued(&a);
    for n in 1..200u64 {
        let (seq, cid) = *known.last().expect("one was issued");
        assert_eq!(seq, n);
        a.inbox.clear();
        // Use the new one, retire the one before.
        a.peer.dcid = cid;
        a.one_rtt(&payload(|w| frame::write_retire_connection_id(w, n - 1)));
        a.ack_all();
        known = issued(&a);
        assert_eq!(known.len(), 1, "one for one");
        assert!(a.endpoint.routes() <= 4);
    }
    a.expect_alive();
}

/// RFC 9000 §19.16, CVE-2025-7054 class: the connection ID that carries the packet may not go.
#[test]
fn retiring_the_connection_id_in_use_is_refused() {
    let mut a = with_cid_limit(4);
    a.one_rtt(&payload(|w| frame::write_retire_connection_id(w, 0)));
    a.expect_error(Code::PROTOCOL_VIOLATION, "RETIRE_CONNECTION_ID 0 by 0");
}

fn new_cid(seq: u64, retire_prior_to: u64) -> Vec<u8> {
    let mut cid = [0xab; 8];
    cid[..8].copy_from_slice(&(seq + 1000).to_be_bytes());
    let f = NewConnectionId {
        seq,
        retire_prior_to,
        cid: ConnectionId::new(&cid).expect("8 bytes"),
        reset_token: [seq as u8; 16],
    };
    payload(|w| frame::write_new_connection_id(w, &f))
}

/// CVE-2024-22189 class: retire_prior_to rises while acknowledgements are withheld.
#[test]
fn rising_retire_prior_to_without_acknowledgements_is_stopped() {
    let mut a = Attack::server();
    a.ack_all();
    let mut sent = 0;
    while a.closed().is_none() {
        sent += 1;
        assert!(sent <= 50, "it goes on for ever");
        a.one_rtt(&new_cid(sent, sent));
    }
    a.expect_error(Code::CONNECTION_ID_LIMIT_ERROR, "too many retirements");
    assert!(sent as usize > limits::ACTIVE_CIDS);
}

/// The same with acknowledgements is ordinary life (RFC 9000 §5.1.2).
#[test]
fn connection_ids_rotate_for_ever_when_retirements_are_acknowledged() {
    let mut a = Attack::server();
    for n in 1..500 {
        a.inbox.clear();
        a.one_rtt(&new_cid(n, n));
        let retired = a
            .inbox
            .iter()
            .any(|p| p.has(|f| *f == Frame::RetireConnectionId(n - 1)));
        assert!(retired, "{n}");
        let to = a.inbox.last().expect("an answer").dcid;
        assert_eq!(
            to.as_slice(),
            (n + 1000).to_be_bytes(),
            "the new one is used"
        );
        // The scripted peer reads by its own length alone, so any destination of 8 bytes opens.
        a.ack_all();
    }
    assert_eq!(a.closed(), None);
}

/// RFC 9000 §19.15: one that comes again, or comes after it was to be retired.
#[test]
fn a_connection_id_that_comes_late_is_retired_at_once() {
    let mut a = Attack::server();
    a.one_rtt(&new_cid(5, 5));
    a.inbox.clear();
    a.one_rtt(&new_cid(3, 0));
    let retired = a
        .inbox
        .iter()
        .any(|p| p.has(|f| *f == Frame::RetireConnectionId(3)));
    assert!(retired && a.closed().is_none());
}

/// RFC 9000 §9.5: a client that moves with a new connection ID is answered to a new one; one that
/// was rebound by a NAT need not be.
#[test]
fn a_move_with_a_new_connection_id_is_answered_with_a_new_one() {
    for on_purpose in [true, false] {
        let mut a = with_cid_limit(4);
        a.one_rtt(&new_cid(1, 0));
        let before = a.peer.scid;
        let own = issued(&a)[0].1;
        a.inbox.clear();
        if on_purpose {
            a.peer.dcid = own;
        }
        one_rtt_from(&mut a, elsewhere(), &[1; 500]);
        let there = a.inbox.iter().filter(|p| p.to == Some(elsewhere()));
        let mut to: Vec<_> = there.map(|p| p.dcid).collect();
        to.dedup();
        assert_eq!(to.len(), 1, "{to:?}");
        assert_eq!(!to.contains(&before), on_purpose);
        // The one before goes once the address before is of no more interest.
        let data = challenges(&a, elsewhere())[0];
        one_rtt_from(
            &mut a,
            elsewhere(),
            &payload(|w| frame::write_path_response(w, &data)),
        );
        a.run(20 * SECOND);
        let retired = a
            .inbox
            .iter()
            .any(|p| p.has(|f| *f == Frame::RetireConnectionId(0)));
        assert_eq!(retired, on_purpose);
        assert_eq!(a.closed(), None);
    }
}

/// RFC 9000 §5.1.1: a preferred address's connection ID counts, though the address is not used.
#[test]
fn the_preferred_addresss_connection_id_counts() {
    let mut a = Attack::on_client(Plan::default());
    a.start_server(|p| {
        p.preferred_address = Some(corelane::wire::PreferredAddress {
            v4: None,
            v6: None,
            cid: ConnectionId::new(&[0x31; 8]).expect("8 bytes"),
            reset_token: [4; 16],
        });
    });
    a.handshake();
    a.one_rtt(&[0x1e]);
    a.inbox.clear();
    a.one_rtt(&new_cid(2, 2));
    for seq in [0, 1] {
        let retired = a
            .inbox
            .iter()
            .any(|p| p.has(|f| *f == Frame::RetireConnectionId(seq)));
        assert!(retired, "{seq}");
    }
    let to = a.inbox.last().expect("an answer").dcid;
    assert_eq!(to.as_slice(), 1002u64.to_be_bytes());
}

/// The keys of a handshake prove the address that they came from, and no other (RFC 9000 §8.1).
#[test]
fn a_handshake_packet_from_elsewhere_proves_nothing() {
    let mut a = Attack::on_server(Plan::default());
    let hello = a.peer.flight().remove(0);
    a.send(&hello);
    let home = a.peer_addr;
    for d in a.peer.flight().into_iter().skip(1) {
        a.deliver(elsewhere(), &d);
    }
    a.collect();
    a.run(2 * SECOND);
    let there: usize = a
        .datagrams
        .iter()
        .filter(|d| d.0 == home)
        .map(|d| d.1.len())
        .sum();
    assert!(there <= 3 * hello.len(), "{there}");
    assert_eq!(a.closed(), None);
}
