//! Connections without a connection ID of their own: told by their addresses, beside others on the
//! same socket and even between the same addresses.

use crate::common::attack::{Attack, Plan, params};
use crate::common::pair::{CLIENT, Pair, SERVER, Setup};
use crate::common::raw_peer::{payload, stream_frame};
use bytes::Bytes;
use corelane::base::{Ecn, FourTuple, RecvMeta, Rng, SocketId};
use corelane::conn::endpoint::ConnectError;
use corelane::conn::{ConnectionError, Event, TransportConfig};
use corelane::wire::frame::{self, NewConnectionId};
use corelane::wire::header::{self, Header};
use corelane::wire::{Code, ConnectionId, Dir, PacketType, Side};
use std::net::SocketAddr;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn without() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport.zero_length_cid = true;
    transport
}

fn plan() -> Plan {
    let mut plan = Plan::default();
    plan.transport.zero_length_cid = true;
    plan
}

/// Both kinds between the very same addresses, each with a megabyte each way.
#[test]
fn one_without_a_connection_id_and_many_with_share_a_four_tuple() {
    let mut pair = Pair::new(Setup::default());
    let bare = pair.connect_with(Some(without())).expect("connects");
    let mut all = vec![bare];
    all.extend((0..3).map(|_| pair.connect()));
    pair.run(SECOND);
    let data = Bytes::from((0..1_000_000u32).map(|i| i as u8).collect::<Vec<_>>());
    let servers = pair.sides[SERVER].app.accepted.clone();
    assert_eq!(servers.len(), 4);
    for (side, ids) in [(CLIENT, all), (SERVER, servers)] {
        for id in ids {
            let streams = pair.conn(side, id).streams_mut();
            let stream = streams.open(Dir::Uni).expect("a stream");
            assert_eq!(streams.write_bytes(stream, data.clone()), Ok(data.len()));
            streams.finish(stream).expect("open");
        }
    }
    pair.run(30 * SECOND);
    for side in [CLIENT, SERVER] {
        assert_eq!(pair.closed(side), None);
        let app = &pair.sides[side].app;
        assert_eq!(app.received.len(), 4);
        assert!(app.received.values().all(|got| *got == data));
    }
    let conn = pair.conn(CLIENT, bare);
    assert!(conn.has_zero_length_cid());
    let stats = conn.stats();
    assert_eq!(
        (stats.packets_undecryptable, stats.packets_dropped),
        (0, 0),
        "nothing of the others came here"
    );
    let now = pair.now;
    pair.sides[CLIENT].endpoint.close_all(now, 0, b"");
    pair.run(30 * SECOND);
    for side in &pair.sides {
        assert_eq!((side.endpoint.len(), side.endpoint.routes()), (0, 0));
    }
}

#[test]
fn a_second_one_between_the_same_addresses_is_refused_until_the_first_is_gone() {
    let mut pair = Pair::new(Setup::default());
    let first = pair.connect_with(Some(without())).expect("connects");
    let refused = pair.connect_with(Some(without()));
    let Err(why @ ConnectError::SameAddresses(_)) = refused else {
        panic!("{refused:?}");
    };
    let text = why.to_string();
    for part in ["127.0.0.1:2000", "no connection ID", "another socket"] {
        assert!(text.contains(part), "{text}");
    }
    pair.run(SECOND);
    let now = pair.now;
    pair.conn(CLIENT, first).close(now, 0, b"");
    pair.run(10 * SECOND);
    pair.connect_with(Some(without())).expect("free again");
    pair.run(SECOND);
    assert!(pair.sides[CLIENT].endpoint.routes() == 1 && pair.closed(CLIENT).is_some());
}

#[test]
fn shards_that_share_an_address_take_none() {
    let mut pair = Pair::new(Setup::default());
    pair.sides[CLIENT].endpoint.set_steered();
    let refused = pair.connect_with(Some(without()));
    assert!(matches!(refused, Err(ConnectError::Steered)), "{refused:?}");
    pair.connect();
}

#[test]
fn a_retry_finds_it() {
    let mut pair = Pair::new(Setup::default());
    pair.sides[SERVER].app.prove = true;
    let with = pair.connect();
    pair.connect_with(Some(without())).expect("connects");
    pair.run(2 * SECOND);
    assert_eq!(pair.sides[SERVER].endpoint.stats().retries, 2);
    assert_eq!(pair.sides[SERVER].app.accepted.len(), 2);
    let connected = |e: &&(_, Event)| e.1 == Event::Connected;
    assert_eq!(
        pair.sides[CLIENT].events.iter().filter(connected).count(),
        2
    );
    assert!(!pair.conn(CLIENT, with).has_zero_length_cid());
}

#[test]
fn version_negotiation_finds_it() {
    let mut a = Attack::on_client(plan());
    let first = a.inbox.first().expect("the client's Initial");
    assert!(first.scid.is_empty());
    let dcid = first.dcid;
    let negotiation = |versions: &[u32]| {
        payload(|w| header::write_version_negotiation(w, 0, &[], dcid.as_slice(), versions))
    };
    a.send(&negotiation(&[0x1a2a_3a4a]));
    assert_eq!(a.closed(), Some(ConnectionError::VersionMismatch));
}

#[test]
fn a_stateless_reset_finds_it_and_the_one_beside_it() {
    for bare in [false, true] {
        let mut pair = Pair::new(Setup::default());
        let mine = pair.connect_with(Some(without())).expect("connects");
        let other = pair.connect();
        pair.run(SECOND);
        let target = if bare { mine } else { other };
        // The server has lost everything but its secret: it answers what it does not know.
        let setup = Setup::default();
        let fresh = Pair::new(setup);
        let [_, forgetful] = fresh.sides;
        pair.sides[SERVER].endpoint = forgetful.endpoint;
        let streams = pair.conn(CLIENT, target).streams_mut();
        let stream = streams.open(Dir::Uni).expect("a stream");
        streams.write(stream, &[1; 500]).expect("room");
        pair.run(Duration::from_millis(100));
        let ends: Vec<_> = pair.sides[CLIENT]
            .events
            .iter()
            .filter(|(_, e)| matches!(e, Event::Closed(_)))
            .collect();
        assert_eq!(ends, [&(target, Event::Closed(ConnectionError::Reset))]);
    }
}

/// RFC 9000 §19.16, §5.1.1: neither side's frames about connection IDs have a place here.
#[test]
fn connection_ids_are_neither_issued_nor_retired() {
    let mut a = Attack::client_with(plan());
    a.run(SECOND);
    let issued = |f: &frame::Frame<'_>| matches!(f, frame::Frame::NewConnectionId(_));
    assert!(!a.inbox.iter().any(|p| p.has(issued)));
    let retire = payload(|w| frame::write_retire_connection_id(w, 0));
    a.one_rtt(&retire);
    a.expect_error(Code::PROTOCOL_VIOLATION, "nothing to retire");

    // A peer without one that issues one.
    let mut params = params();
    params.initial_source_connection_id = Some(ConnectionId::EMPTY);
    let mut encoded = Vec::new();
    params.encode(Side::Client, &mut encoded, &mut Rng::from_u64(1));
    let mut a = Attack::on_server(Plan::default());
    let dcid = ConnectionId::new(&[9; 8]).expect("8 bytes");
    a.new_client_with(ConnectionId::EMPTY, dcid, encoded);
    a.handshake();
    a.expect_alive();
    let new = NewConnectionId {
        seq: 1,
        retire_prior_to: 0,
        cid: dcid,
        reset_token: [1; 16],
    };
    a.one_rtt(&payload(|w| frame::write_new_connection_id(w, &new)));
    a.expect_error(Code::PROTOCOL_VIOLATION, "it uses none");
}

/// Packets of one train go to their connection in one piece, though the bytes where a connection ID
/// would be differ in each; those of other connections among them go to theirs.
#[test]
fn a_mixed_train_is_taken_apart() {
    let mut a = Attack::client_with(plan());
    a.run(SECOND);
    let before = a.connection().stats().packets_received;
    let frame = stream_frame(3, 0, &[7; 100], false);
    let mut train = Vec::new();
    let packets: Vec<Vec<u8>> = (0..8)
        .map(|_| a.peer.packet(PacketType::OneRtt, &frame))
        .collect();
    let size = packets[0].len();
    for (n, packet) in packets.iter().enumerate() {
        assert_eq!(packet.len(), size);
        train.extend_from_slice(packet);
        if n == 3 {
            // A long header for nobody here.
            let mut stray = vec![0xd0; size];
            stray[1..6].copy_from_slice(&[0, 0, 0, 1, 8]);
            assert!(matches!(header::dcid(&stray, 8), Some(d) if d.len() == 8));
            train.extend_from_slice(&stray);
        }
    }
    let meta = RecvMeta {
        socket: SocketId(0),
        path: FourTuple::new(a.addr, a.peer_addr),
        ecn: Ecn::NotEct,
        segment_size: size,
    };
    let now = a.now;
    a.endpoint.handle_train(now, &meta, &mut train, &mut a.app);
    assert_eq!(a.connection().stats().packets_received, before + 8);
    assert_eq!(a.endpoint.stats().unroutable, 1);
    // From another address it is for nobody.
    let elsewhere: SocketAddr = "192.0.2.9:1000".parse().expect("an address");
    let p = a.peer.packet(PacketType::OneRtt, &frame);
    a.send_from(elsewhere, &p);
    assert_eq!(a.connection().stats().packets_received, before + 8);
    assert!(matches!(Header::parse(&p, 0), Ok(Header::Short { dcid, .. }) if dcid.is_empty()));
}
