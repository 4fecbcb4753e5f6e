//! What an endpoint does about a peer that moves, seems to move, or is moved by others: scripted
//! peers.

use crate::common::attack::{Attack, Plan};
use crate::common::raw_peer::payload;
use corelane::base::{FourTuple, SocketId, limits};
use corelane::conn::{ConnectionError, Event, MigrateError, MigrationFailure};
use corelane::wire::frame::{self, Frame, NewConnectionId};
use corelane::wire::{Code, ConnectionId, Dir, PacketType};
use std::net::SocketAddr;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn elsewhere() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 4000))
}

fn preferred() -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 7], 443))
}

fn one_rtt_from(a: &mut Attack, from: SocketAddr, frames: &[u8]) {
    let p = a.peer.packet(PacketType::OneRtt, frames);
    a.send_from(from, &p);
}

/// Challenges by where they came from and went to, with the size of their datagram.
fn challenges(a: &Attack) -> Vec<([u8; 8], SocketAddr, SocketAddr, usize)> {
    let mut out = Vec::new();
    for p in &a.inbox {
        for f in p.frames() {
            if let (Frame::PathChallenge(data), Some(from), Some(to)) = (f, p.from, p.to) {
                out.push((data, from, to, p.datagram));
            }
        }
    }
    out
}

fn challenge_to(a: &Attack, to: SocketAddr) -> Option<[u8; 8]> {
    challenges(a).iter().rev().find(|c| c.2 == to).map(|c| c.0)
}

fn response(data: [u8; 8]) -> Vec<u8> {
    payload(|w| frame::write_path_response(w, &data))
}

/// A probing packet that fills its datagram.
fn probe() -> Vec<u8> {
    let mut frames = payload(|w| frame::write_path_challenge(w, &[9; 8]));
    frames.resize(1150, 0);
    frames
}

fn new_cid(seq: u64, retire_prior_to: u64) -> Vec<u8> {
    let f = NewConnectionId {
        seq,
        retire_prior_to,
        cid: ConnectionId::new(&(seq + 1000).to_be_bytes()).expect("8 bytes"),
        reset_token: [seq as u8; 16],
    };
    payload(|w| frame::write_new_connection_id(w, &f))
}

/// The connection IDs that the endpoint issued.
fn issued(a: &Attack) -> Vec<ConnectionId> {
    let frames = a.inbox.iter().flat_map(|p| p.frames());
    frames
        .filter_map(|f| match f {
            Frame::NewConnectionId(n) => Some(n.cid),
            _ => None,
        })
        .collect()
}

/// A server endpoint whose client knows all connection IDs and has issued `spare` of its own.
fn server_with_cids(plan: Plan, spare: u64) -> (Attack, Vec<ConnectionId>) {
    let mut a = Attack::on_server(plan);
    for _ in 0..6 {
        for d in a.peer.flight() {
            a.send(&d);
        }
        a.run(MS);
    }
    let ours = issued(&a);
    for seq in 1..=spare {
        a.one_rtt(&new_cid(seq, 0));
    }
    a.ack_all();
    a.inbox.clear();
    a.datagrams.clear();
    (a, ours)
}

fn fill(a: &mut Attack, bytes: usize) {
    let streams = a.connection().streams_mut();
    let id = streams.open(Dir::Uni).expect("a stream");
    let taken = streams.write(id, &vec![1; bytes]);
    assert_eq!(taken, Ok(bytes));
}

/// RFC 9000 §9.3.3: packets forwarded by somebody beside the path lead the server astray only until
/// the next one comes straight, and what it knew of the straight path is not forgotten.
#[test]
fn forwarded_packets_lead_astray_until_one_comes_straight() {
    let mut a = Attack::server();
    fill(&mut a, 200_000);
    a.run_acking(2 * SECOND, 10 * MS);
    let before = a.connection().path_stats();
    assert!(before.congestion_window > 20_000, "{before:?}");
    let home = a.peer_addr;
    a.inbox.clear();
    for _ in 0..20 {
        one_rtt_from(&mut a, elsewhere(), &[1]);
        assert_eq!(a.connection().path().remote, elsewhere());
        let astray = a.connection().path_stats();
        assert!(astray.congestion_window < before.congestion_window);
        a.run(10 * MS);
        one_rtt_from(&mut a, home, &[1]);
        assert_eq!(a.connection().path().remote, home);
        let after = a.connection().path_stats();
        assert_eq!(after.congestion_window, before.congestion_window);
        assert_eq!(after.smoothed_rtt, before.smoothed_rtt);
        assert!(a.connection().is_address_validated());
        a.run(SECOND);
    }
    // The straight path was asked each time, so that there is a packet to come straight.
    let asked = challenges(&a).iter().filter(|c| c.2 == home).count();
    assert!(asked >= 20, "{asked}");
    assert_eq!(a.closed(), None);
}

/// RFC 9000 §8.2.1, §8.2.3: after an answer to a small challenge a full one follows, with contents
/// of its own.
#[test]
fn a_small_challenge_is_followed_by_a_full_one() {
    let mut a = Attack::server();
    one_rtt_from(&mut a, elsewhere(), &[1]);
    let small = challenges(&a);
    let (data, _, _, size) = *small.iter().find(|c| c.2 == elsewhere()).expect("one");
    assert!(size < limits::MIN_UDP_PAYLOAD);
    a.inbox.clear();
    one_rtt_from(&mut a, elsewhere(), &response(data));
    let full = challenges(&a);
    let (again, _, _, size) = *full.iter().find(|c| c.2 == elsewhere()).expect("another");
    assert!(size >= limits::MIN_UDP_PAYLOAD && again != data);
    assert!(!a.events.contains(&Event::PeerAddressValidated));
    one_rtt_from(&mut a, elsewhere(), &response(again));
    assert!(a.events.contains(&Event::PeerAddressValidated));
    a.run(20 * SECOND);
    assert_eq!(a.connection().path().remote, elsewhere());
}

/// The first packet on a new path holds a challenge, whether the client probes or simply appears,
/// small or large.
#[test]
fn the_first_packet_on_a_new_path_holds_a_challenge() {
    for frames in [vec![1], vec![1; 1150], probe()] {
        let mut a = Attack::server();
        fill(&mut a, 50_000);
        a.collect();
        a.inbox.clear();
        one_rtt_from(&mut a, elsewhere(), &frames);
        let first = a.inbox.iter().find(|p| p.to == Some(elsewhere()));
        let first = first.expect("an answer");
        assert!(first.has(|f| matches!(f, Frame::PathChallenge(_))));
    }
}

/// RFC 9000 §9.3.3: a challenge on the path in use is answered with more than a probe.
#[test]
fn a_challenge_on_the_path_in_use_is_answered_with_more_than_a_probe() {
    for mut a in [Attack::client(), Attack::server()] {
        a.ack_all();
        a.inbox.clear();
        a.one_rtt(&probe());
        let answer = a
            .inbox
            .iter()
            .find(|p| p.has(|f| *f == Frame::PathResponse([9; 8])));
        let answer = answer.expect("an answer");
        assert!(answer.has(|f| !f.is_probing()));
        assert!(answer.datagram >= limits::MIN_UDP_PAYLOAD);
    }
}

/// RFC 9000 §9.3: an address that answered while it was probed is not asked again when it is moved
/// to, and not limited.
#[test]
fn an_address_that_was_probed_is_moved_to_without_a_limit() {
    let (mut a, ours) = server_with_cids(Plan::default(), 2);
    let home = a.peer_addr;
    a.peer.dcid = ours[0];
    one_rtt_from(&mut a, elsewhere(), &probe());
    let data = challenge_to(&a, elsewhere()).expect("a challenge");
    let there = a.inbox.iter().find(|p| p.to == Some(elsewhere()));
    let to = there.expect("an answer").dcid;
    assert_ne!(to, a.peer.scid, "another connection ID for another address");
    one_rtt_from(&mut a, elsewhere(), &response(data));
    assert_eq!(a.connection().path().remote, home, "probes move nothing");
    a.inbox.clear();
    one_rtt_from(&mut a, elsewhere(), &[1]);
    assert_eq!(a.connection().path().remote, elsewhere());
    assert!(a.connection().is_address_validated());
    assert!(a.events.contains(&Event::PeerAddressValidated));
    assert!(
        a.inbox
            .iter()
            .filter(|p| p.to == Some(elsewhere()))
            .all(|p| p.dcid == to)
    );
}

/// RFC 9000 §9.5: without a connection ID for the new address nothing is sent there, until the
/// client issues one.
#[test]
fn without_a_spare_connection_id_nothing_goes_to_a_new_address() {
    let (mut a, ours) = server_with_cids(Plan::default(), 0);
    let home = a.peer_addr;
    a.peer.dcid = ours[0];
    for frames in [probe(), vec![1; 600]] {
        one_rtt_from(&mut a, elsewhere(), &frames);
        assert_eq!(a.connection().path().remote, home);
    }
    assert!(a.datagrams.iter().all(|d| d.0 == home));
    one_rtt_from(&mut a, elsewhere(), &new_cid(1, 0));
    one_rtt_from(&mut a, elsewhere(), &[1; 600]);
    assert_eq!(a.connection().path().remote, elsewhere());
    let data = challenge_to(&a, elsewhere()).expect("a challenge");
    one_rtt_from(&mut a, elsewhere(), &response(data));
    a.run(10 * SECOND);
    assert_eq!(a.closed(), None);
}

/// GHSA-rfhg class: connection IDs run out after a move. The connection goes on with what it has,
/// and ends cleanly when it has nothing.
#[test]
fn running_out_of_connection_ids_after_a_move_is_survived() {
    let mut a = Attack::client();
    for seq in 1..=3 {
        a.one_rtt(&new_cid(seq, 0));
    }
    let (now, remote) = (a.now, a.peer_addr);
    let tuple = |n: u16| FourTuple::new(SocketAddr::from(([127, 0, 0, 1], n)), remote);
    let done = a
        .connection()
        .migrate_at_once(now, SocketId(1), tuple(5001));
    assert_eq!(done, Ok(()));
    a.collect();
    let data = challenge_to(&a, remote).expect("a challenge");
    a.one_rtt(&response(data));
    assert!(a.events.contains(&Event::Migrated(tuple(5001))));
    // The server takes back all but the one in use, then that one, too, in favour of the last.
    a.one_rtt(&new_cid(4, 4));
    a.inbox.clear();
    a.expect_alive();
    assert_eq!(
        a.inbox.last().map(|p| p.dcid.as_slice().to_vec()),
        Some(1004u64.to_be_bytes().to_vec())
    );
    let now = a.now;
    let done = a.connection().migrate(now, SocketId(2), tuple(5002));
    assert_eq!(done, Err(MigrateError::NoConnectionId));
    // One that was long gone leaves none.
    a.one_rtt(&new_cid(9, 9));
    a.run(10 * SECOND);
    a.ack_all();
    a.one_rtt(&new_cid(12, 12));
    a.one_rtt(&new_cid(11, 0));
    assert_eq!(a.closed(), None);
}

/// The connection ID of a probe is taken back while it is used, again and again (CVE-2025-7054
/// class).
#[test]
fn taking_back_every_connection_id_under_a_probe_ends_the_probe() {
    let mut a = Attack::client();
    a.one_rtt(&new_cid(1, 0));
    let (now, remote) = (a.now, a.peer_addr);
    let tuple = FourTuple::new(SocketAddr::from(([127, 0, 0, 1], 5001)), remote);
    assert_eq!(a.connection().migrate(now, SocketId(1), tuple), Ok(()));
    a.collect();
    a.one_rtt(&new_cid(2, 2));
    a.run(10 * SECOND);
    let lost = Event::MigrationFailed(tuple, MigrationFailure::NoConnectionId);
    assert!(a.events.contains(&lost), "{:?}", a.events);
    a.expect_alive();
}

/// CVE-2026-44434 class, RFC 9000 §10.3.1: a reset token counts for the connection ID in use, from
/// the address that it is used towards.
#[test]
fn a_reset_token_counts_on_its_own_path_alone() {
    let reset = |token: u8, dcid: &[u8]| {
        let mut bytes = vec![0x40; 40];
        bytes[1..9].copy_from_slice(dcid);
        bytes[24..].fill(token);
        bytes
    };
    let unknown = [0xee; 8];
    // Tokens: 1 is in use at home, 2 elsewhere where the client probes, 3 not at all, 0 retired.
    let set_up = || {
        let (mut a, ours) = server_with_cids(Plan::default(), 3);
        a.one_rtt(&new_cid(4, 1));
        let own = a.peer.dcid;
        a.peer.dcid = ours[0];
        one_rtt_from(&mut a, elsewhere(), &probe());
        a.peer.dcid = own;
        assert_eq!(a.closed(), None);
        (a, own)
    };
    let (home, third) = (set_up().0.peer_addr, SocketAddr::from(([192, 0, 2, 9], 9)));
    for token in [0, 1, 2, 3, 4] {
        for from in [home, elsewhere(), third] {
            for known in [false, true] {
                let (mut a, own) = set_up();
                let dcid = if known { own.as_slice() } else { &unknown };
                a.send_from(from, &reset(token, dcid));
                let ends = token == 1 && from == home;
                let closed = a.closed() == Some(ConnectionError::Reset);
                assert_eq!(closed, ends, "token {token} from {from}, known {known}");
            }
        }
    }
}

/// RFC 9000 §21.5, RFC 9308 §8.1: no service is answered or moved to.
#[test]
fn service_ports_begin_nothing_and_are_not_moved_to() {
    for port in [0, 17, 19, 53, 111, 123, 137, 138, 161, 389, 500] {
        let from = SocketAddr::from(([192, 0, 2, 1], port));
        let mut a = Attack::on_server(Plan::default());
        let hello = a.peer.flight().remove(0);
        a.send_from(from, &hello);
        // Nor an unknown version, nor a packet of a connection long gone.
        let mut other = hello.clone();
        other[1..5].copy_from_slice(&[0xff; 4]);
        a.send_from(from, &other);
        a.send_from(from, &[0x41; 100]);
        assert!(a.datagrams.is_empty() && a.endpoint.is_empty(), "{port}");
        let mut a = Attack::server();
        a.datagrams.clear();
        let home = a.peer_addr;
        for frames in [vec![1; 600], probe()] {
            one_rtt_from(&mut a, from, &frames);
            a.run(SECOND);
        }
        assert_eq!(a.connection().path().remote, home);
        assert!(a.datagrams.iter().all(|d| d.0 == home), "{port}");
        a.expect_alive();
    }
    for port in [1900, 3702, 5353, 5355, 11211] {
        let mut a = Attack::on_server(Plan::default());
        let hello = a.peer.flight().remove(0);
        a.send_from(SocketAddr::from(([192, 0, 2, 1], port)), &hello);
        assert_eq!(a.peer.retries.len(), 1, "{port}: proof is asked for");
        assert!(a.endpoint.is_empty());
    }
}

/// RFC 9000 §21.5.6: nothing outside can have us talk to our own host.
#[test]
fn a_peer_beyond_the_host_does_not_move_into_it() {
    let mut a = Attack::server();
    one_rtt_from(&mut a, elsewhere(), &[1; 600]);
    let data = challenge_to(&a, elsewhere()).expect("a challenge");
    one_rtt_from(&mut a, elsewhere(), &response(data));
    a.run(20 * SECOND);
    a.datagrams.clear();
    let inside = SocketAddr::from(([127, 0, 0, 1], 8080));
    one_rtt_from(&mut a, inside, &[1; 600]);
    assert_eq!(a.connection().path().remote, elsewhere());
    assert!(a.datagrams.iter().all(|d| d.0 == elsewhere()));
}

/// RFC 9000 §10.2.1: who closes answers no address that is not proven.
#[test]
fn a_rebinding_while_closing_is_not_answered() {
    let mut a = Attack::server();
    let now = a.now;
    a.connection().close(now, 7, b"done");
    a.collect();
    a.datagrams.clear();
    for port in 0..200 {
        one_rtt_from(
            &mut a,
            SocketAddr::from(([192, 0, 2, 1], 4000 + port)),
            &[1; 1000],
        );
    }
    assert!(a.datagrams.is_empty());
    let home = a.peer_addr;
    one_rtt_from(&mut a, home, &[1]);
    assert!(!a.datagrams.is_empty(), "at home it is");
}

/// CVE-2023-6193 class, on an address that is not in use: a million challenges whose answers have
/// no way out.
#[test]
fn a_million_challenges_from_elsewhere_keep_a_few() {
    let mut a = Attack::server();
    for n in 0..10_000u64 {
        let frames: Vec<u8> = (0..100u64)
            .flat_map(|i| payload(|w| frame::write_path_challenge(w, &(n * 100 + i).to_be_bytes())))
            .collect();
        let p = a.peer.packet(PacketType::OneRtt, &frames);
        a.deliver(elsewhere(), &p);
    }
    a.inbox.clear();
    a.collect();
    let frames = a.inbox.iter().flat_map(|p| p.frames());
    let answers = frames
        .filter(|f| matches!(f, Frame::PathResponse(_)))
        .count();
    assert!((1..=limits::PATH_RESPONSES).contains(&answers), "{answers}");
    a.expect_alive();
}

/// A client that probes from many addresses gets answers at a few, and all connection IDs that
/// those took come back.
#[test]
fn probes_from_many_addresses_are_bounded() {
    let (mut a, ours) = server_with_cids(Plan::default(), 3);
    let home = a.peer.dcid;
    for n in 0..2000u16 {
        a.peer.dcid = ours[usize::from(n) % ours.len()];
        let p = a.peer.packet(PacketType::OneRtt, &probe());
        a.deliver(SocketAddr::from(([192, 0, 2, 1], 4000 + n)), &p);
        if n % 50 == 0 {
            a.collect();
        }
    }
    a.collect();
    assert!(a.sent_by_endpoint <= 3 * a.sent_to_endpoint);
    a.peer.dcid = home;
    a.inbox.clear();
    a.run(20 * SECOND);
    assert!(a.inbox.iter().filter(|p| p.to != Some(a.peer_addr)).count() <= 4 * limits::PROBES);
    let retired =
        |p: &crate::common::raw_peer::Packet| p.has(|f| matches!(f, Frame::RetireConnectionId(_)));
    assert!(a.inbox.iter().any(retired), "used once, not kept");
    a.expect_alive();
}

/// RFC 9000 §9.6.2: the server asks from its preferred address, and goes there only once the
/// client has answered and spoken there.
#[test]
fn a_server_moves_to_its_preferred_address_once_the_client_has_answered_there() {
    let plan = || {
        let mut plan = Plan::default();
        plan.transport.preferred_address.set(preferred());
        plan
    };
    let deliver = |a: &mut Attack, frames: &[u8]| {
        let p = a.peer.packet(PacketType::OneRtt, frames);
        a.deliver_at(preferred(), a.peer_addr, &p);
        a.collect();
    };
    for speaks_first in [true, false] {
        let (mut a, ours) = server_with_cids(plan(), 3);
        let original = a.addr;
        a.peer.dcid = ours[0];
        if speaks_first {
            deliver(&mut a, &[1]);
        } else {
            deliver(&mut a, &probe());
        }
        assert_eq!(a.connection().path().local, original);
        let asked = challenges(&a);
        let asked = asked
            .iter()
            .find(|c| c.1 == preferred())
            .expect("a challenge");
        for p in a.inbox.iter().filter(|p| p.from == Some(preferred())) {
            assert!(p.frames().iter().all(Frame::is_probing), "probes alone");
        }
        deliver(&mut a, &response(asked.0));
        if !speaks_first {
            assert_eq!(a.connection().path().local, original);
            deliver(&mut a, &[1]);
        }
        assert_eq!(a.connection().path().local, preferred());
        // From then on it is that address alone, wherever the client's packets go.
        let home = a.peer_addr;
        for from in [home, elsewhere()] {
            one_rtt_from(&mut a, from, &[1; 600]);
            let path = a.connection().path();
            assert_eq!((path.local, path.remote), (preferred(), home));
        }
        a.run(10 * SECOND);
        assert_eq!(a.closed(), None);
    }
    // A client that speaks there and does not answer changes nothing.
    let (mut a, _) = server_with_cids(plan(), 3);
    for _ in 0..50 {
        deliver(&mut a, &[1]);
        a.run(SECOND);
    }
    let original = a.addr;
    assert_eq!(a.connection().path().local, original);
    a.expect_alive();
    // Without a preferred address there is no other address to speak to.
    let (mut a, _) = server_with_cids(Plan::default(), 3);
    deliver(&mut a, &[1]);
    deliver(&mut a, &probe());
    assert!(a.inbox.iter().all(|p| p.from != Some(preferred())));
}

/// RFC 9000 §9.6.1, §18.2: the preferred address's connection ID has number 1, leads to the
/// connection and can be retired like any other.
#[test]
fn the_preferred_connection_id_is_number_one() {
    let mut plan = Plan::default();
    plan.transport.preferred_address.set(preferred());
    let mut a = Attack::server_with(plan);
    let params = a
        .peer
        .session
        .as_ref()
        .and_then(|s| s.peer_params())
        .expect("parameters");
    let params = corelane::wire::TransportParameters::decode(corelane::wire::Side::Server, params);
    let named = params.expect("valid").preferred_address.expect("named");
    assert_eq!(named.v4.map(SocketAddr::V4), Some(preferred()));
    a.peer.dcid = named.cid;
    a.expect_alive();
    a.one_rtt(&payload(|w| frame::write_retire_connection_id(w, 0)));
    a.expect_alive();
    a.one_rtt(&payload(|w| frame::write_retire_connection_id(w, 1)));
    a.expect_error(Code::PROTOCOL_VIOLATION, "RETIRE_CONNECTION_ID 1 by 1");
}

/// A zero-length connection ID of the server's: a client stays (RFC 9000 §9.5).
#[test]
fn a_client_does_not_move_away_from_a_zero_length_connection_id() {
    let mut a = Attack::on_client(Plan::default());
    a.peer.scid = ConnectionId::EMPTY;
    a.start_server(|_| {});
    a.handshake();
    a.one_rtt(&[0x1e]);
    let (now, remote) = (a.now, a.peer_addr);
    let tuple = FourTuple::new(elsewhere(), remote);
    let done = a.connection().migrate(now, SocketId(1), tuple);
    assert_eq!(done, Err(MigrateError::ZeroLength));
}
