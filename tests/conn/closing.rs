//! How connections end: idle, closed, drained, reset.

use crate::common::attack::{Attack, Plan};
use crate::common::pair::{CLIENT, Pair, SERVER, Setup};
use crate::common::raw_peer::stream_frame;
use corelane::base::Rng;
use corelane::conn::{ConnectionError, Event};
use corelane::wire::frame::Frame;
use corelane::wire::{Code, Dir, PacketType};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn idle_pair(client: u64, server: u64) -> Pair {
    let mut setup = Setup::default();
    setup.client.max_idle_timeout = Duration::from_secs(client);
    setup.server.max_idle_timeout = Duration::from_secs(server);
    Pair::new(setup)
}

/// RFC 9000 §10.1: the smaller of both timeouts ends an idle connection on both sides, silently.
#[test]
fn the_smaller_idle_timeout_counts_on_both_sides() {
    for (client, server) in [(5, 20), (20, 5), (0, 5), (5, 0)] {
        let mut pair = idle_pair(client, server);
        pair.connected();
        pair.run(3 * SECOND);
        assert_eq!((pair.closed(CLIENT), pair.closed(SERVER)), (None, None));
        let sent = pair.sent;
        pair.run(4 * SECOND);
        for side in [CLIENT, SERVER] {
            assert_eq!(pair.closed(side), Some(ConnectionError::TimedOut));
            assert_eq!(
                (
                    pair.sides[side].endpoint.len(),
                    pair.sides[side].endpoint.routes()
                ),
                (0, 0)
            );
        }
        assert_eq!(pair.sent, sent, "not a word");
    }
}

/// RFC 9000 §10.1: three probe timeouts at least, however short the timeout.
#[test]
fn an_idle_timeout_shorter_than_three_probe_timeouts_is_lengthened() {
    let mut setup = Setup::default();
    setup.client.max_idle_timeout = 30 * MS;
    let mut pair = Pair::new(setup);
    // A round trip of 200 ms: a timeout of 30 ms would end every connection at once.
    pair.delay = 100 * MS;
    let (client, _) = {
        let c = pair.connect();
        pair.run(450 * MS);
        (c, ())
    };
    assert_eq!(pair.closed(CLIENT), None, "{:?}", pair.sides[CLIENT].events);
    let streams = pair.conn(CLIENT, client).streams_mut();
    let id = streams.open(Dir::Uni).expect("a stream");
    streams.write(id, b"hello").expect("room");
    pair.run(400 * MS);
    assert_eq!(pair.sides[SERVER].app.received.len(), 1);
    pair.run(5 * SECOND);
    assert_eq!(pair.closed(CLIENT), Some(ConnectionError::TimedOut));
}

/// RFC 9000 §10.1.2.
#[test]
fn keep_alive_keeps_a_connection_alive_and_costs_little() {
    let mut setup = Setup::default();
    setup.client.max_idle_timeout = 3 * SECOND;
    setup.client.keep_alive_interval = Some(SECOND);
    setup.client.mtu.discover = false;
    setup.server.mtu.discover = false;
    let mut pair = Pair::new(setup);
    pair.connected();
    let sent = pair.sent;
    pair.run(60 * SECOND);
    assert_eq!((pair.closed(CLIENT), pair.closed(SERVER)), (None, None));
    assert!(
        pair.sent[CLIENT] - sent[CLIENT] < 60 * 60,
        "{}",
        pair.sent[CLIENT] - sent[CLIENT]
    );
    // The peer is gone: it ends all the same.
    pair.filter = Box::new(|p| if p.from == SERVER { vec![] } else { vec![p] });
    pair.run(30 * SECOND);
    assert_eq!(pair.closed(CLIENT), Some(ConnectionError::TimedOut));
}

/// RFC 9000 §10.2: the application's code and reason arrive; both sides are done soon.
#[test]
fn a_close_is_delivered_and_both_sides_forget() {
    for side in [CLIENT, SERVER] {
        let mut pair = Pair::new(Setup::default());
        let (client, server) = pair.connected();
        let id = [client, server][side];
        let now = pair.now;
        pair.conn(side, id).close(now, 7, b"bye");
        pair.run(3 * SECOND);
        assert_eq!(pair.closed(side), Some(ConnectionError::LocallyClosed));
        assert_eq!(
            pair.closed(1 - side),
            Some(ConnectionError::ApplicationClosed {
                code: 7,
                reason: b"bye".to_vec()
            })
        );
        for s in &pair.sides {
            assert_eq!((s.endpoint.len(), s.endpoint.routes()), (0, 0));
        }
    }
}

/// RFC 9000 §10.2.1: while closing, answers grow rare: their number is logarithmic.
#[test]
fn a_closing_endpoint_answers_ever_more_rarely() {
    let mut a = Attack::server();
    let now = a.now;
    a.connection().close(now, 1, b"");
    a.collect();
    assert_eq!(a.closes().len(), 1);
    a.inbox.clear();
    for _ in 0..1000 {
        a.one_rtt(&[1]);
    }
    let n = a.closes().len();
    assert!((5..=12).contains(&n), "{n} answers to 1000 packets");
    assert!(
        a.inbox.iter().all(|p| p.frames().len() == 1),
        "and say nothing else"
    );
    a.run(5 * SECOND);
    assert_eq!((a.endpoint.len(), a.endpoint.routes()), (0, 0));
}

/// RFC 9000 §10.2.2: a draining endpoint sends nothing at all.
#[test]
fn a_draining_endpoint_is_silent() {
    let mut a = Attack::server();
    let id = a
        .connection()
        .streams_mut()
        .open(Dir::Uni)
        .expect("a stream");
    a.one_rtt(&[0x1d, 5, 2, b'h', b'i']);
    assert_eq!(
        a.closed(),
        Some(ConnectionError::ApplicationClosed {
            code: 5,
            reason: b"hi".to_vec()
        })
    );
    a.datagrams.clear();
    a.connection().streams_mut().write(id, b"more").ok();
    for _ in 0..100 {
        a.one_rtt(&[1]);
    }
    a.run(10 * SECOND);
    assert!(a.datagrams.is_empty());
    assert_eq!((a.endpoint.len(), a.endpoint.routes()), (0, 0));
}

/// RFC 9000 §10.2.3: an error during the handshake is told in packets that the peer can read.
#[test]
fn an_error_during_the_handshake_is_told_in_readable_packets() {
    let mut a = Attack::on_server(Plan::default());
    let hello = a.peer.flight().remove(0);
    a.send(&hello);
    a.inbox.clear();
    let bad = a.peer.padded_initial(&[0x08, 0, 1], 1200);
    a.send(&bad);
    let types: Vec<PacketType> = a.closes().iter().map(|c| c.0).collect();
    assert!(types.contains(&PacketType::Initial) && types.contains(&PacketType::Handshake));
    let mut a = Attack::on_client(Plan::default());
    a.start_server(|_| {});
    a.inbox.clear();
    let bad = a.peer.padded_initial(&[0x08, 0, 1], 1200);
    a.send(&bad);
    assert_eq!(
        a.closes(),
        [(PacketType::Initial, Code::PROTOCOL_VIOLATION, Some(8))]
    );
    assert!(
        a.datagrams.last().is_some_and(|d| d.1.len() >= 1200),
        "RFC 9000 §14.1"
    );
}

/// Frames behind a CONNECTION_CLOSE in the same packet do nothing.
#[test]
fn nothing_after_a_close_counts() {
    let mut a = Attack::server();
    let mut frames = vec![0x1d, 5, 0];
    frames.extend(stream_frame(1, 0, b"a violation", true));
    a.one_rtt(&frames);
    assert!(matches!(
        a.closed(),
        Some(ConnectionError::ApplicationClosed { .. })
    ));
    assert_eq!(a.blamed(), None);
}

/// RFC 9000 §10.3.1: a reset carries a random connection ID; only its token says whom it is for.
#[test]
fn a_stateless_reset_ends_the_connection_whatever_its_size() {
    for size in [21, 22, 28, 29, 42, 100, 1200] {
        let token = [0x5a; 16];
        let mut a = Attack::on_client(Plan::default());
        a.start_server(|p| p.stateless_reset_token = Some(token));
        a.handshake();
        a.one_rtt(&[0x1e]);
        let mut reset = vec![0; size];
        Rng::from_u64(size as u64).fill(&mut reset);
        reset[0] = 0x40 | (reset[0] & 0x3f);
        reset[size - 16..].copy_from_slice(&token);
        a.datagrams.clear();
        // A bit off is no reset.
        let mut off = reset.clone();
        off[size - 1] ^= 1;
        a.send(&off);
        assert_eq!(a.closed(), None, "{size}");
        a.datagrams.clear();
        a.send(&reset);
        assert_eq!(a.closed(), Some(ConnectionError::Reset), "{size}");
        a.run(10 * SECOND);
        assert!(a.datagrams.is_empty(), "a reset is not answered");
        assert_eq!((a.endpoint.len(), a.endpoint.routes()), (0, 0));
    }
}

/// The same with the connection ID in use in front, and too small a datagram.
#[test]
fn a_reset_with_a_known_connection_id_counts_and_a_small_one_does_not() {
    let token = [0x5a; 16];
    let mut a = Attack::on_client(Plan::default());
    a.start_server(|p| p.stateless_reset_token = Some(token));
    a.handshake();
    a.one_rtt(&[0x1e]);
    let mut small = vec![0x41; 20];
    small[4..].copy_from_slice(&token);
    a.send(&small);
    assert_eq!(a.closed(), None);
    let mut reset = vec![0x41; 25];
    reset[1..9].copy_from_slice(a.peer.dcid.as_slice());
    reset[9..].copy_from_slice(&token);
    a.send(&reset);
    assert_eq!(a.closed(), Some(ConnectionError::Reset));
}

/// RFC 9000 §10.3.1: tokens of connection IDs that are not in use, or that we issued, do not count.
#[test]
fn only_the_token_of_the_connection_id_in_use_resets() {
    let mut a = Attack::server();
    let f = corelane::wire::frame::NewConnectionId {
        seq: 1,
        retire_prior_to: 0,
        cid: corelane::wire::ConnectionId::new(&[9; 8]).expect("8 bytes"),
        reset_token: [0x77; 16],
    };
    let frame = crate::common::raw_peer::payload(|w| {
        corelane::wire::frame::write_new_connection_id(w, &f);
    });
    a.one_rtt(&frame);
    let reset = |token: [u8; 16]| [vec![0x41; 30], token.to_vec()].concat();
    a.send(&reset([0x77; 16]));
    assert_eq!(a.closed(), None, "issued, not in use");
    let mut retiring = frame.clone();
    retiring[2] = 1;
    a.one_rtt(&retiring);
    a.send(&reset([0x77; 16]));
    assert_eq!(a.closed(), Some(ConnectionError::Reset));
}

/// RFC 9000 §10.3, §10.3.3: a reset is smaller than what it answers, so two endpoints that answer
/// each other come to an end.
#[test]
fn resets_shrink_and_do_not_loop() {
    let mut a = Attack::on_server(Plan::default());
    let mut b = Attack::on_server(Plan {
        seed: 2,
        ..Plan::default()
    });
    for size in [10, 20, 21, 22, 23, 30, 42, 43, 44, 1200, 9000] {
        a.datagrams.clear();
        let mut stray = vec![0x45; size];
        stray[5] = size as u8;
        a.send(&stray);
        if size <= 21 {
            assert!(a.datagrams.is_empty(), "{size}");
            continue;
        }
        let mut ball = a.datagrams.pop().expect("a reset").1;
        assert!(
            ball.len() < size && ball.len() >= 21 && ball.len() <= 43,
            "{size}"
        );
        assert_eq!(ball[0] & 0xc0, 0x40, "it looks like any short header");
        let mut bounces = 0;
        loop {
            let to = if bounces % 2 == 0 { &mut b } else { &mut a };
            to.datagrams.clear();
            to.send(&ball);
            let Some((_, next)) = to.datagrams.pop() else {
                break;
            };
            assert!(next.len() < ball.len());
            ball = next;
            bounces += 1;
        }
        assert!(bounces <= 22);
    }
}

/// A server that lost its state resets its client, end to end.
#[test]
fn a_server_that_forgot_resets_its_client() {
    let mut pair = Pair::new(Setup::default());
    let (client, server) = pair.connected();
    // The server's side is dropped without a word: nothing of it reaches the client.
    pair.filter = Box::new(|p| if p.from == SERVER { vec![] } else { vec![p] });
    let now = pair.now;
    pair.conn(SERVER, server).close(now, 0, b"");
    pair.run(3 * SECOND);
    assert_eq!(pair.sides[SERVER].endpoint.len(), 0);
    assert_eq!(pair.closed(CLIENT), None);
    pair.filter = Box::new(|p| vec![p]);
    let streams = pair.conn(CLIENT, client).streams_mut();
    let id = streams.open(Dir::Uni).expect("a stream");
    streams.write(id, &[1; 500]).expect("room");
    pair.run(3 * SECOND);
    assert_eq!(pair.closed(CLIENT), Some(ConnectionError::Reset));
}

/// A close that is lost is repeated when the peer keeps sending (RFC 9000 §10.2.1).
#[test]
fn a_lost_close_is_repeated_to_a_peer_that_goes_on() {
    let mut pair = Pair::new(Setup::default());
    let (client, server) = pair.connected();
    let mut lost = false;
    pair.filter = Box::new(move |p| {
        if p.from == SERVER && !lost {
            lost = true;
            return vec![];
        }
        vec![p]
    });
    let now = pair.now;
    pair.conn(SERVER, server).close(now, 3, b"");
    pair.run(5 * MS);
    let streams = pair.conn(CLIENT, client).streams_mut();
    let id = streams.open(Dir::Uni).expect("a stream");
    streams.write(id, b"x").expect("room");
    pair.run(2 * SECOND);
    assert_eq!(
        pair.closed(CLIENT),
        Some(ConnectionError::ApplicationClosed {
            code: 3,
            reason: Vec::new()
        })
    );
}

/// Everything in flight or waiting when the application closes is let go.
#[test]
fn closing_in_the_middle_of_a_transfer_leaves_nothing() {
    let mut pair = Pair::new(Setup::default());
    let (client, _) = pair.connected();
    let streams = pair.conn(CLIENT, client).streams_mut();
    for _ in 0..50 {
        let id = streams.open(Dir::Bi).expect("a stream");
        streams.write(id, &[1; 10_000]).expect("room");
    }
    pair.run(11 * MS);
    let now = pair.now;
    pair.conn(CLIENT, client).close(now, 0, b"");
    pair.run(5 * SECOND);
    for s in &pair.sides {
        assert_eq!((s.endpoint.len(), s.endpoint.routes()), (0, 0));
    }
}

/// A peer that never answers is given up: PTOs back off, the idle timeout ends it.
#[test]
fn a_peer_that_vanishes_is_given_up_with_few_probes() {
    let mut pair = idle_pair(30, 30);
    let (client, _) = pair.connected();
    pair.filter = Box::new(|_| vec![]);
    let streams = pair.conn(CLIENT, client).streams_mut();
    let id = streams.open(Dir::Uni).expect("a stream");
    streams.write(id, b"is anybody there").expect("room");
    let ptos = pair.conn(CLIENT, client).stats().ptos;
    pair.run(29 * SECOND);
    let n = pair.conn(CLIENT, client).stats().ptos - ptos;
    assert!((5..=12).contains(&n), "{n} probe timeouts");
    pair.run(5 * SECOND);
    assert_eq!(pair.closed(CLIENT), Some(ConnectionError::TimedOut));
    let _ = |f: &Frame<'_>| f.ty();
}

/// A client that closes as soon as it is connected still completes the server's handshake, so that
/// the server learns why, and does not keep a half-open connection.
#[test]
fn closing_at_once_after_the_handshake_tells_the_server_why() {
    let mut pair = Pair::new(Setup::default());
    pair.sides[CLIENT].close_at_once = Some(7);
    pair.connect();
    pair.run(SECOND);
    assert!(pair.saw(SERVER, &Event::Connected));
    assert_eq!(
        pair.closed(SERVER),
        Some(ConnectionError::ApplicationClosed {
            code: 7,
            reason: b"at once".to_vec()
        })
    );
}

/// Nor does it count as half-open until it has drained: clients that come and go at once do not
/// use up the room for handshakes.
#[test]
fn connections_closed_at_once_leave_no_half_open_ones() {
    let mut pair = Pair::new(Setup::default());
    pair.sides[CLIENT].close_at_once = Some(0);
    // More than the limit within less time than a connection drains.
    for _ in 0..corelane::base::limits::HALF_OPEN + 10 {
        pair.connect();
        pair.run(Duration::from_micros(100));
    }
    pair.run(SECOND);
    let stats = pair.sides[SERVER].endpoint.stats();
    assert_eq!((stats.ignored, stats.retries), (0, 0));
    assert_eq!(
        stats.accepted as usize,
        corelane::base::limits::HALF_OPEN + 10
    );
}
