//! Session resumption and early data: sent, accepted, rejected, lost, reordered, replayed.

use crate::common::attack::{Attack, Plan};
use crate::common::certs::Identity;
use crate::common::pair::{CLIENT, Pair, Passing, SERVER, Setup};
use crate::common::raw_peer::{ack_frame, crypto_frame, payload, stream_frame};
use bytes::Bytes;
use corelane::base::{FourTuple, Rng, SocketId};
use corelane::conn::{
    ConnId, ConnectionError, Decision, EarlyData, Endpoint, EndpointConfig, Event, TransportConfig,
};
use corelane::crypto::{ConfigError, Keys};
use corelane::wire::header::{Header, LongType};
use corelane::wire::{Code, Dir, PacketType, StreamId, TransportParameters, frame};
use std::sync::Arc;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A pair that offers early data both ways, with a session at the client.
fn warm(setup: Setup) -> Pair {
    let mut pair = cold(setup);
    warm_up(&mut pair);
    pair
}

fn cold(setup: Setup) -> Pair {
    Pair::with_tls(
        setup,
        |server| server.max_early_data_size = u32::MAX,
        |client| client.enable_early_data = true,
    )
}

/// Connects and closes, so that a session is stored; forgets what was recorded.
fn warm_up(pair: &mut Pair) {
    let (client, _) = pair.connected();
    assert_eq!(pair.conn(CLIENT, client).early_data(), EarlyData::None);
    let now = pair.now;
    pair.conn(CLIENT, client).close(now, 0, b"");
    pair.run(20 * SECOND);
    forget(pair);
}

fn forget(pair: &mut Pair) {
    for side in &mut pair.sides {
        assert!(side.endpoint.is_empty());
        side.events.clear();
        side.app.accepted.clear();
        side.app.received.clear();
        side.app.finished.clear();
        side.app.incoming.clear();
    }
}

/// Connects and at once writes `data` to a new stream and ends it.
fn send_early(pair: &mut Pair, data: &[u8]) -> (ConnId, StreamId) {
    let client = pair.connect();
    let conn = pair.conn(CLIENT, client);
    assert_eq!(conn.early_data(), EarlyData::Offered);
    let streams = conn.streams_mut();
    let id = streams.open(Dir::Bi).expect("the remembered limit");
    assert_eq!(streams.write(id, data), Ok(data.len()));
    streams.finish(id).expect("open");
    (client, id)
}

fn bytes(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i % 251) as u8).collect()
}

/// What the server received on its only stream.
fn received(pair: &Pair) -> Vec<u8> {
    let mut streams = pair.sides[SERVER].app.received.values();
    let one = streams.next().cloned().unwrap_or_default();
    assert!(streams.next().is_none(), "one stream");
    one
}

#[track_caller]
fn delivered(pair: &Pair, data: &[u8]) {
    assert!(received(pair) == data, "what arrived is what was sent");
    assert_eq!(pair.sides[SERVER].app.finished.len(), 1);
    for side in [CLIENT, SERVER] {
        assert_eq!(pair.closed(side), None);
    }
}

/// The types of the long-header packets of a datagram.
fn types(datagram: &[u8]) -> Vec<LongType> {
    let mut out = Vec::new();
    let mut rest = datagram;
    while let Ok(Header::Long { ty, len, .. }) = Header::parse_greased(rest, 8) {
        out.push(ty);
        rest = &rest[len..];
    }
    out
}

#[test]
fn early_data_arrives_with_the_first_flight() {
    let mut pair = warm(Setup::default());
    let (client, id) = send_early(&mut pair, b"early");
    pair.run(11 * MS);
    // One way, and the server has read it.
    delivered(&pair, b"early");
    assert!(pair.saw(CLIENT, &Event::EarlyData) && pair.saw(SERVER, &Event::EarlyData));
    assert!(!pair.saw(SERVER, &Event::Connected));
    let server = pair.sides[SERVER].app.accepted[0];
    let conn = pair.conn(SERVER, server);
    assert_eq!(conn.early_data(), EarlyData::Accepted);
    assert!(conn.streams().is_early(id));
    assert!(conn.stats().zero_rtt_packets_received > 0);
    assert_eq!(
        pair.sides[SERVER].app.incoming,
        [true],
        "a token came along"
    );

    pair.run(SECOND);
    assert!(pair.saw(CLIENT, &Event::Connected) && pair.saw(SERVER, &Event::Connected));
    let conn = pair.conn(CLIENT, client);
    assert_eq!(conn.early_data(), EarlyData::Accepted);
    assert_eq!(conn.session().is_resumed(), Some(true));
    assert_eq!(conn.path_stats().bytes_in_flight, 0, "all acknowledged");
    assert_eq!(conn.stats().packets_lost, 0);
    // Streams of later are not early.
    let streams = pair.conn(CLIENT, client).streams_mut();
    let later = streams.open(Dir::Bi).expect("a stream");
    streams.write(later, b"late").expect("room");
    let before = pair.conn(CLIENT, client).stats();
    pair.run(SECOND);
    let after = pair.conn(CLIENT, client).stats();
    assert!(after.packets_sent > before.packets_sent);
    assert_eq!(after.zero_rtt_packets_sent, before.zero_rtt_packets_sent);
    let streams = pair.conn(SERVER, server).streams();
    assert!(streams.is_early(id) && !streams.is_early(later));
}

/// A server may answer before the handshake is complete, in 1-RTT packets.
#[test]
fn an_answer_to_early_data_comes_after_one_round_trip() {
    let mut pair = warm(Setup::default());
    let (_, id) = send_early(&mut pair, b"question");
    pair.run(11 * MS);
    let server = pair.sides[SERVER].app.accepted[0];
    let streams = pair.conn(SERVER, server).streams_mut();
    streams.write(id, b"answer").expect("room");
    pair.run(11 * MS);
    let answers: Vec<_> = pair.sides[CLIENT].app.received.values().collect();
    assert_eq!(answers, [b"answer"]);
}

#[test]
fn early_datagrams_arrive_early() {
    let mut pair = warm(Setup::default());
    let client = pair.connect();
    let conn = pair.conn(CLIENT, client);
    let max = conn.max_datagram_size().expect("the remembered limit");
    assert!(max > 1000, "{max}");
    for size in [1, max, 100] {
        conn.send_datagram(Bytes::from(vec![7; size]))
            .expect("room");
    }
    pair.run(11 * MS);
    let server = pair.sides[SERVER].app.accepted[0];
    let conn = pair.conn(SERVER, server);
    let sizes: Vec<usize> = std::iter::from_fn(|| conn.recv_datagram())
        .map(|d| d.len())
        .collect();
    assert_eq!(sizes, [1, max, 100]);
}

/// RFC 9000 §14.1, §12.2: what leaves first is one Initial with 0-RTT behind it, of full size.
#[test]
fn the_first_datagram_has_an_initial_and_0_rtt() {
    let mut pair = warm(Setup::default());
    send_early(&mut pair, &bytes(5_000));
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = seen.clone();
    pair.filter = Box::new(move |p| {
        if p.from == CLIENT {
            let mut seen = log.lock().expect("one thread");
            seen.push((p.bytes.len(), types(&p.bytes)));
        }
        vec![p]
    });
    pair.run(Duration::ZERO);
    let seen = seen.lock().expect("one thread").clone();
    assert_eq!(seen[0].0, 1200);
    assert_eq!(seen[0].1, [LongType::Initial, LongType::ZeroRtt]);
    assert!(seen.len() > 3);
    for (_, types) in &seen[1..] {
        assert_eq!(*types, [LongType::ZeroRtt]);
    }
}

#[test]
fn nothing_is_sent_early_unless_both_sides_ask_for_it() {
    type Tls = (fn(&mut rustls::ServerConfig), fn(&mut rustls::ClientConfig));
    let without: [Tls; 2] = [
        (|_| {}, |c| c.enable_early_data = true),
        (|s| s.max_early_data_size = u32::MAX, |_| {}),
    ];
    for (server, client) in without {
        let mut pair = Pair::with_tls(Setup::default(), server, client);
        warm_up(&mut pair);
        let id = pair.connect();
        let conn = pair.conn(CLIENT, id);
        assert_eq!(conn.early_data(), EarlyData::None);
        assert!(conn.streams_mut().open(Dir::Bi).is_err());
        pair.run(SECOND);
        let conn = pair.conn(CLIENT, id);
        assert_eq!(conn.session().is_resumed(), Some(true));
        assert_eq!(conn.stats().zero_rtt_packets_sent, 0);
    }
}

/// RFC 9001 §8.3: a session storage of its own, so that the server knows nothing of the session.
fn forget_sessions(pair: &mut Pair, transport: TransportConfig, identity: &Identity) {
    let mut tls = identity.server_config(&[]);
    tls.max_early_data_size = u32::MAX;
    let mut config = EndpointConfig::new([9; 32]);
    config.server = Some(Arc::new(tls));
    config.transport = Arc::new(transport);
    pair.sides[SERVER].endpoint = Endpoint::new(config).expect("a valid configuration");
}

/// A pair whose server has lost its sessions, and permits what `transport` says.
fn rejecting(before: TransportConfig, transport: TransportConfig) -> Pair {
    let identity = Identity::generate();
    let setup = Setup {
        server: before,
        ..Setup::default()
    };
    let mut pair = Pair::with_identity(
        setup,
        &identity,
        |server| server.max_early_data_size = u32::MAX,
        |client| client.enable_early_data = true,
    );
    warm_up(&mut pair);
    forget_sessions(&mut pair, transport, &identity);
    pair
}

#[test]
fn rejected_early_data_is_sent_again_by_itself() {
    let mut pair = rejecting(TransportConfig::default(), TransportConfig::default());
    let data = bytes(50_000);
    let (client, _) = send_early(&mut pair, &data);
    pair.conn(CLIENT, client)
        .send_datagram(Bytes::from_static(b"lost"))
        .expect("room");
    pair.run(2 * SECOND);
    delivered(&pair, &data);
    assert!(pair.saw(CLIENT, &Event::EarlyDataRejected));
    assert!(!pair.saw(SERVER, &Event::EarlyData));
    let conn = pair.conn(CLIENT, client);
    assert_eq!(conn.early_data(), EarlyData::Rejected);
    assert_eq!(conn.session().is_resumed(), Some(false));
    assert_eq!(conn.path_stats().bytes_in_flight, 0);
    assert_eq!(conn.stats().packets_lost, 0, "rejection is not loss");
    let server = pair.sides[SERVER].app.accepted[0];
    let conn = pair.conn(SERVER, server);
    assert_eq!(conn.stats().zero_rtt_packets_received, 0);
    assert_eq!(conn.recv_datagram(), None, "datagrams are sent once");
    assert!(!conn.streams().is_early(StreamId(0)));
}

/// The application hears of the rejection before anything is sent again.
#[test]
fn an_application_may_close_instead_of_sending_again() {
    let mut pair = rejecting(TransportConfig::default(), TransportConfig::default());
    pair.sides[CLIENT].close_at_once = Some(3);
    send_early(&mut pair, b"only early");
    pair.run(SECOND);
    let events: Vec<_> = pair.sides[CLIENT].events.iter().map(|(_, e)| e).collect();
    let at = |event| events.iter().position(|e| **e == event);
    assert!(at(Event::EarlyDataRejected) < at(Event::Connected));
    assert!(pair.sides[SERVER].app.received.is_empty());
}

#[test]
fn after_a_rejection_the_new_limits_hold() {
    let mut small = TransportConfig::default();
    small.streams.stream_window = 1_000;
    small.streams.connection_window = 1_500;
    small.streams.stream_window_max = 1_000;
    small.streams.connection_window_max = 1_500;
    let mut pair = rejecting(TransportConfig::default(), small);
    let data = bytes(9_000);
    let (client, _) = send_early(&mut pair, &data);
    pair.run(10 * SECOND);
    delivered(&pair, &data);
    assert_eq!(pair.conn(CLIENT, client).early_data(), EarlyData::Rejected);
}

#[test]
fn more_streams_than_a_rejecting_server_permits_end_the_connection() {
    let mut few = TransportConfig::default();
    few.streams.max_streams_bidi = 1;
    let mut pair = rejecting(TransportConfig::default(), few);
    let (client, _) = send_early(&mut pair, b"one");
    pair.conn(CLIENT, client)
        .streams_mut()
        .open(Dir::Bi)
        .expect("the remembered limit");
    pair.run(SECOND);
    assert_eq!(
        pair.closed(CLIENT),
        Some(ConnectionError::EarlyDataRejected)
    );
    assert!(pair.closed(SERVER).is_some());
    assert!(pair.sides[SERVER].app.received.is_empty());
}

/// RFC 9000 §7.4.1: the sessions are the same, but the limits fell: a server that would have to
/// accept less than it promised forgets the session instead.
#[test]
fn a_server_does_not_accept_early_data_under_lower_limits() {
    for (stream_window, accepted) in [(1 << 20, true), (1 << 21, true), (1 << 19, false)] {
        let identity = Identity::generate();
        let mut pair = Pair::with_identity(
            Setup::default(),
            &identity,
            |server| server.max_early_data_size = u32::MAX,
            |client| client.enable_early_data = true,
        );
        warm_up(&mut pair);
        let mut config = EndpointConfig::new([9; 32]);
        config.server = Some(pair.server_tls.clone());
        let mut transport = TransportConfig::default();
        transport.streams.stream_window = stream_window;
        config.transport = Arc::new(transport);
        pair.sides[SERVER].endpoint = Endpoint::new(config).expect("a valid configuration");
        let (client, _) = send_early(&mut pair, b"early");
        pair.run(SECOND);
        delivered(&pair, b"early");
        let early = pair.conn(CLIENT, client).early_data();
        assert_eq!(early == EarlyData::Accepted, accepted, "{stream_window}");
    }
}

/// The anti-replay rule: a copy of the whole first flight, at any time, delivers nothing.
#[test]
fn a_replayed_first_flight_delivers_no_early_data() {
    let mut pair = warm(Setup::default());
    let log = Arc::new(std::sync::Mutex::new(Vec::new()));
    let captured = log.clone();
    pair.filter = Box::new(move |p| {
        if p.from == CLIENT {
            captured.lock().expect("one thread").push(p.bytes.clone());
        }
        vec![p]
    });
    let (client, _) = send_early(&mut pair, &bytes(3_000));
    pair.run(Duration::ZERO);
    pair.filter = Box::new(|p| vec![p]);
    let flight = std::mem::take(&mut *log.lock().expect("one thread"));
    assert!(flight.len() > 1 && types(&flight[0]).contains(&LongType::ZeroRtt));
    pair.run(SECOND);
    delivered(&pair, &bytes(3_000));
    // While the connection is there, it knows its packets.
    let source = pair.sides[CLIENT].addr;
    let replay = |pair: &mut Pair, source| {
        for datagram in &flight {
            pair.inject(SERVER, source, datagram.clone());
        }
        pair.run(SECOND);
    };
    replay(&mut pair, source);
    assert_eq!(pair.sides[SERVER].app.accepted.len(), 1);
    delivered(&pair, &bytes(3_000));
    // When it is gone, and from another address.
    let now = pair.now;
    pair.conn(CLIENT, client).close(now, 0, b"");
    pair.run(40 * SECOND);
    forget(&mut pair);
    for port in [1000, 1001] {
        pair.filter = Box::new(|_| Vec::new());
        replay(
            &mut pair,
            std::net::SocketAddr::from(([127, 0, 0, 1], port)),
        );
        let server = *pair.sides[SERVER].app.accepted.last().expect("a handshake");
        let conn = pair.conn(SERVER, server);
        assert_eq!(conn.early_data(), EarlyData::None);
        assert_eq!(conn.stats().zero_rtt_packets_received, 0);
        pair.run(30 * SECOND);
        assert!(pair.sides[SERVER].endpoint.is_empty());
    }
    assert!(pair.sides[SERVER].app.received.is_empty());
    assert!(!pair.saw(SERVER, &Event::EarlyData));
}

/// Two endpoints that share a TLS configuration, as the shards of a process do: the copy that goes
/// to the other one is no better.
#[test]
fn a_first_flight_replayed_to_another_shard_delivers_no_early_data() {
    let mut pair = warm(Setup::default());
    let mut config = EndpointConfig::new([9; 32]);
    config.server = Some(pair.server_tls.clone());
    let mut other = Endpoint::new(config).expect("a valid configuration");
    let log = Arc::new(std::sync::Mutex::new(Vec::new()));
    let captured = log.clone();
    pair.filter = Box::new(move |p| {
        if p.from == CLIENT {
            captured.lock().expect("one thread").push(p.bytes.clone());
        }
        vec![p]
    });
    send_early(&mut pair, b"once");
    pair.run(11 * MS);
    delivered(&pair, b"once");
    let mut app = crate::common::pair::Recorder::default();
    let path = FourTuple::new(pair.sides[SERVER].addr, pair.sides[CLIENT].addr);
    for mut datagram in log.lock().expect("one thread").clone() {
        let meta = corelane::base::RecvMeta {
            socket: SocketId(0),
            path,
            ecn: corelane::base::Ecn::NotEct,
            segment_size: datagram.len(),
        };
        other.handle_train(pair.now, &meta, &mut datagram, &mut app);
    }
    assert_eq!(app.accepted.len(), 1);
    assert!(app.received.is_empty());
    let conn = other.connection(app.accepted[0]).expect("a connection");
    assert_eq!(conn.early_data(), EarlyData::None);
}

#[test]
fn early_data_goes_on_after_a_retry() {
    let mut pair = warm(Setup::default());
    pair.sides[SERVER].app.decision = Some(Decision::Retry);
    let data = bytes(8_000);
    let (client, _) = send_early(&mut pair, &data);
    pair.run(11 * MS);
    assert!(pair.sides[SERVER].app.accepted.is_empty());
    pair.sides[SERVER].app.decision = None;
    pair.run(20 * MS);
    delivered(&pair, &data);
    assert!(!pair.saw(SERVER, &Event::Connected), "it came early");
    pair.run(SECOND);
    let conn = pair.conn(CLIENT, client);
    assert_eq!(conn.early_data(), EarlyData::Accepted);
    assert_eq!(conn.path_stats().bytes_in_flight, 0);
}

/// 0-RTT packets that overtake the Initial wait for it; RFC 9000 §5.2.2.
#[test]
fn early_data_may_come_before_the_initial() {
    let mut pair = warm(Setup::default());
    let data = bytes(6_000);
    let mut held: Vec<Passing> = Vec::new();
    pair.filter = Box::new(move |p| {
        if p.from == SERVER {
            return vec![p];
        }
        let first = types(&p.bytes).first() == Some(&LongType::Initial);
        let now = p.now;
        if first && held.is_empty() {
            held.push(p);
            return Vec::new();
        }
        // All others of the flight first, in one direction reversed.
        let mut out = vec![p];
        out.extend(held.drain(..).map(|h| Passing { now, ..h }));
        out
    });
    send_early(&mut pair, &data);
    pair.run(11 * MS);
    assert!(received(&pair).len() > 3_000, "what came ahead was kept");
    pair.run(SECOND);
    delivered(&pair, &data);
}

/// While the application makes up its mind, 0-RTT packets wait with the Initial.
#[test]
fn early_data_waits_for_a_held_attempt() {
    let mut pair = warm(Setup::default());
    pair.sides[SERVER].app.decision = Some(Decision::Hold);
    let data = bytes(6_000);
    send_early(&mut pair, &data);
    pair.run(11 * MS);
    let (id, now) = (pair.sides[SERVER].app.held[0], pair.now);
    let side = &mut pair.sides[SERVER];
    side.endpoint
        .decide(now, id, Decision::Accept, &mut side.app)
        .expect("accepted");
    pair.run(Duration::ZERO);
    delivered(&pair, &data);
    assert!(!pair.saw(SERVER, &Event::Connected));
}

/// A flood of 0-RTT packets for connections that never begin costs a bounded amount, and the
/// endpoint serves on.
#[test]
fn early_data_without_an_initial_is_bounded() {
    let mut pair = warm(Setup::default());
    let source = std::net::SocketAddr::from(([127, 0, 0, 9], 9));
    let mut rng = Rng::from_u64(5);
    for _ in 0..2_000 {
        let mut w = vec![0xd0, 0, 0, 0, 1, 8];
        w.extend(rng.array::<8>());
        w.extend([8, 1, 2, 3, 4, 5, 6, 7, 8, 0x44, 0x00]);
        w.extend(rng.array::<1024>());
        pair.inject(SERVER, source, w);
    }
    pair.run(MS);
    assert!(pair.sides[SERVER].endpoint.is_empty());
    send_early(&mut pair, b"still");
    pair.run(SECOND);
    delivered(&pair, b"still");
}

#[test]
fn early_data_survives_the_loss_of_any_datagram() {
    for lost in 0..14 {
        let mut pair = warm(Setup::default());
        let mut n = 0;
        pair.filter = Box::new(move |p| {
            n += 1;
            if n == lost + 1 { Vec::new() } else { vec![p] }
        });
        let data = bytes(6_000);
        send_early(&mut pair, &data);
        pair.run(10 * SECOND);
        delivered(&pair, &data);
    }
}

#[test]
fn early_data_survives_random_faults_with_retry_and_rejection() {
    for seed in 0..300 {
        let mut pair = if seed % 3 == 0 {
            rejecting(TransportConfig::default(), TransportConfig::default())
        } else {
            warm(Setup {
                seed,
                ..Setup::default()
            })
        };
        pair.sides[SERVER].app.prove = seed % 2 == 0;
        let mut rng = Rng::from_u64(seed);
        let mut held: Vec<Passing> = Vec::new();
        pair.filter = Box::new(move |p| {
            let now = p.now;
            let mut out = Vec::new();
            match rng.below(10) {
                0 => {}
                1 => {
                    let bytes = p.bytes.clone();
                    out.push(Passing { bytes, ..p });
                    out.push(Passing {
                        from: out[0].from,
                        source: out[0].source,
                        to: p.to,
                        ecn: out[0].ecn,
                        bytes: out[0].bytes.clone(),
                        now,
                    });
                }
                2 | 3 => held.push(p),
                _ => out.push(p),
            }
            if rng.chance(0.6) {
                out.extend(held.drain(..).map(|h| Passing { now, ..h }));
            }
            out
        });
        let data = bytes(20_000);
        send_early(&mut pair, &data);
        pair.run(60 * SECOND);
        let ends = (pair.closed(CLIENT), pair.closed(SERVER));
        assert!(received(&pair) == data, "seed {seed}: {ends:?}");
        assert_eq!(pair.sides[SERVER].app.finished.len(), 1, "seed {seed}");
    }
}

/// RFC 9001 §4.9.3: a 0-RTT packet that comes after the handshake is opened for three PTO, and
/// dropped afterwards.
#[test]
fn a_server_keeps_the_0_rtt_key_for_a_while() {
    for (late, opened) in [(60 * MS, true), (10 * SECOND, false)] {
        let mut pair = warm(Setup::default());
        let log = Arc::new(std::sync::Mutex::new(Vec::new()));
        let held = log.clone();
        pair.filter = Box::new(move |p| {
            if p.from == CLIENT && types(&p.bytes) == [LongType::ZeroRtt] {
                held.lock().expect("one thread").push(p);
                return Vec::new();
            }
            vec![p]
        });
        let (_, id) = send_early(&mut pair, &bytes(2_000));
        pair.run(late);
        assert!(pair.saw(SERVER, &Event::Connected));
        let server = pair.sides[SERVER].app.accepted[0];
        let before = pair.conn(SERVER, server).stats();
        for p in log.lock().expect("one thread").drain(..) {
            pair.inject(SERVER, p.source, p.bytes);
        }
        pair.run(Duration::ZERO);
        let after = pair.conn(SERVER, server).stats();
        let count = after.zero_rtt_packets_received - before.zero_rtt_packets_received;
        assert_eq!(count > 0, opened, "{late:?}");
        assert_eq!(after.packets_dropped > before.packets_dropped, !opened);
        pair.filter = Box::new(|p| vec![p]);
        pair.run(10 * SECOND);
        delivered(&pair, &bytes(2_000));
        assert!(pair.conn(SERVER, server).streams().is_early(id));
    }
}

#[test]
fn a_configuration_that_could_be_replayed_is_refused() {
    let identity = Identity::generate();
    let refused = |change: &dyn Fn(&mut rustls::ServerConfig)| {
        let mut tls = identity.server_config(&[]);
        tls.max_early_data_size = u32::MAX;
        change(&mut tls);
        let mut config = EndpointConfig::new([1; 32]);
        config.server = Some(Arc::new(tls));
        Endpoint::new(config).err()
    };
    assert_eq!(refused(&|_| {}), None);
    assert_eq!(
        refused(&|tls| {
            tls.ticketer = rustls::crypto::ring::Ticketer::new().expect("a ticketer");
        }),
        Some(ConfigError::EarlyDataTicketer)
    );
    assert_eq!(
        refused(&|tls| {
            tls.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        }),
        Some(ConfigError::EarlyDataStorage)
    );
    assert_eq!(
        refused(&|tls| tls.max_early_data_size = 4096),
        Some(ConfigError::EarlyDataSize(4096))
    );
}

fn early() -> Plan {
    Plan {
        early: true,
        ..Plan::default()
    }
}

/// A client endpoint that resumes and has sent early data to the scripted server.
fn resuming_client() -> Attack {
    let mut a = Attack::client_with(early());
    a.end();
    a.begin_client();
    assert_eq!(a.connection().early_data(), EarlyData::Offered);
    let streams = a.connection().streams_mut();
    let id = streams.open(Dir::Bi).expect("the remembered limit");
    streams.write(id, b"early").expect("room");
    a.collect();
    a
}

/// RFC 9000 §7.4.1: who accepts early data keeps to the limits it was sent under.
#[test]
fn limits_that_fall_with_accepted_early_data_are_a_violation() {
    let lower: [fn(&mut TransportParameters); 7] = [
        |p| p.active_connection_id_limit -= 1,
        |p| p.initial_max_data -= 1,
        |p| p.initial_max_stream_data_bidi_local -= 1,
        |p| p.initial_max_stream_data_bidi_remote -= 1,
        |p| p.initial_max_stream_data_uni -= 1,
        |p| p.initial_max_streams_bidi -= 1,
        |p| p.max_datagram_frame_size -= 1,
    ];
    for (n, change) in lower.into_iter().enumerate() {
        let mut a = resuming_client();
        a.start_server(change);
        a.exchange();
        a.expect_error(Code::PROTOCOL_VIOLATION, &format!("limit {n}"));
    }
    // Higher ones, and others that may change, are fine.
    let mut a = resuming_client();
    a.start_server(|p| {
        p.initial_max_data += 1;
        p.initial_max_streams_uni += 1;
        p.ack_delay_exponent = 7;
        p.max_idle_timeout = Duration::from_secs(100);
    });
    a.handshake();
    assert_eq!(a.connection().early_data(), EarlyData::Accepted);
    a.expect_alive();
}

/// RFC 9001 §4.6.2.
#[test]
fn an_acknowledgement_of_rejected_early_data_is_a_violation() {
    let mut a = resuming_client();
    a.lose_sessions();
    a.start_server(|_| {});
    a.handshake();
    assert_eq!(a.connection().early_data(), EarlyData::Rejected);
    a.expect_alive();
    let zero_rtt = a.connection().stats().zero_rtt_packets_sent;
    assert!(zero_rtt > 0);
    let newest = *a.peer.spaces[2].received.last().expect("1-RTT packets");
    a.one_rtt(&ack_frame(&[newest..=newest, 0..=0]));
    a.expect_error(Code::PROTOCOL_VIOLATION, "ACK of 0-RTT");
}

/// A server endpoint whose scripted client resumes; it can seal 0-RTT packets.
fn resuming_peer() -> Attack {
    let mut a = Attack::server_with(early());
    a.end();
    a.new_client(8);
    let session = a.peer.session.as_ref().expect("a session");
    let key = || session.zero_rtt_keys().expect("early data");
    let (local, remote) = (key(), key());
    a.peer.spaces[2].keys = Some(Keys { local, remote });
    a
}

fn begin(a: &mut Attack) {
    for datagram in a.peer.flight() {
        a.send(&datagram);
    }
    assert_eq!(a.connection().early_data(), EarlyData::Accepted);
}

/// RFC 9000 §12.5.
#[test]
fn frames_that_cannot_be_in_0_rtt_are_a_violation() {
    let barred = [
        ack_frame(&[0..=0]),
        crypto_frame(0, b"x"),
        payload(|w| frame::write_new_token(w, b"token")),
        payload(|w| frame::write_path_response(w, &[1; 8])),
        payload(|w| frame::write_retire_connection_id(w, 0)),
        payload(frame::write_handshake_done),
    ];
    for frames in barred {
        let mut a = resuming_peer();
        begin(&mut a);
        let packet = a.peer.packet(PacketType::ZeroRtt, &frames);
        a.send(&packet);
        assert_eq!(a.blamed(), Some(Code::PROTOCOL_VIOLATION), "{frames:?}");
    }
    let mut a = resuming_peer();
    begin(&mut a);
    let packet = a
        .peer
        .packet_at(PacketType::ZeroRtt, 0, &[1], |b| *b |= 0x08);
    a.send(&packet);
    assert_eq!(a.blamed(), Some(Code::PROTOCOL_VIOLATION), "reserved bits");
}

/// RFC 9000 §12.3: one packet number space for 0-RTT and 1-RTT.
#[test]
fn zero_rtt_and_1_rtt_packets_share_their_numbers() {
    let mut a = resuming_peer();
    // The first comes before the ClientHello is whole: it waits with the connection.
    let hello = a.peer.spaces[0].crypto_out.clone();
    let (one, two) = hello.split_at(100);
    let first = a.peer.padded_initial(&crypto_frame(0, one), 1200);
    a.send(&first);
    let packet = a
        .peer
        .packet(PacketType::ZeroRtt, &stream_frame(0, 0, b"ab", false));
    a.send(&packet);
    assert!(a.app.received.is_empty());
    let second = a.peer.padded_initial(&crypto_frame(100, two), 1200);
    a.peer.spaces[0].crypto_sent = hello.len();
    a.send(&second);
    let got = |a: &Attack| a.app.received.values().next().cloned();
    assert_eq!(got(&a).as_deref(), Some(&b"ab"[..]));
    a.send(&packet);
    assert_eq!(a.connection().stats().packets_duplicate, 1);

    a.handshake();
    let bytes = stream_frame(0, 2, b"xx", false);
    let again = a.peer.packet_at(PacketType::OneRtt, 0, &bytes, |_| {});
    a.send(&again);
    assert_eq!(a.connection().stats().packets_duplicate, 2);
    a.one_rtt(&stream_frame(0, 2, b"cd", true));
    assert_eq!(got(&a).as_deref(), Some(&b"abcd"[..]));
    a.expect_alive();
}

/// RFC 9001 §5.6: servers send no 0-RTT packets, and a client opens none, with whatever key.
#[test]
fn a_client_drops_0_rtt_packets() {
    let mut a = resuming_client();
    a.start_server(|_| {});
    let session = a.peer.session.as_ref().expect("a session");
    let key = || session.zero_rtt_keys().expect("early data");
    let (local, remote) = (key(), key());
    a.peer.spaces[2].keys = Some(Keys { local, remote });
    let before = a.connection().stats();
    let packet = a.peer.packet(PacketType::ZeroRtt, &[1]);
    a.send(&packet);
    let after = a.connection().stats();
    assert_eq!(after.packets_dropped, before.packets_dropped + 1);
    assert_eq!(after.packets_received, before.packets_received);
    a.peer.spaces[2].next_pn = 0;
    a.handshake();
    a.expect_alive();
}
