//! Tokens of NEW_TOKEN frames and of Retry packets: given, used once, refused.

use crate::common::attack::{Attack, Plan};
use crate::common::pair::{CLIENT, Pair, SERVER, Setup};
use crate::common::raw_peer::{crypto_frame, payload};
use corelane::base::Rng;
use corelane::conn::{ConnectionError, Decision, TransportConfig};
use corelane::wire::frame::{self, Frame};
use corelane::wire::{Code, ConnectionId, PacketType};
use std::net::SocketAddr;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Tokens among the packets that came.
fn tokens(a: &Attack) -> Vec<Vec<u8>> {
    let frames = a.inbox.iter().flat_map(|p| p.frames());
    frames
        .filter_map(|f| match f {
            Frame::NewToken(t) => Some(t.to_vec()),
            _ => None,
        })
        .collect()
}

#[test]
fn a_token_proves_the_address_of_the_next_connection_and_no_other() {
    let mut pair = Pair::new(Setup::default());
    pair.connected();
    assert_eq!(pair.sides[SERVER].app.incoming, [false]);
    // The second spends the token; the third begins before the second has another.
    pair.connect();
    pair.connect();
    pair.run(SECOND);
    assert_eq!(pair.sides[SERVER].app.incoming, [false, true, false]);
    // Both have got one each.
    for _ in 0..3 {
        pair.connect();
    }
    pair.run(SECOND);
    assert_eq!(pair.sides[SERVER].app.incoming[3..], [true, true, false]);
}

#[test]
fn a_server_may_ask_for_a_retry_all_the_same() {
    let mut pair = Pair::new(Setup::default());
    pair.connected();
    pair.sides[SERVER].app.decision = Some(Decision::Retry);
    pair.connect();
    pair.run(11 * MS);
    pair.sides[SERVER].app.decision = None;
    pair.run(SECOND);
    assert_eq!(pair.sides[SERVER].app.accepted.len(), 2);
    assert_eq!(pair.sides[SERVER].endpoint.stats().retries, 1);
    assert_eq!(pair.closed(CLIENT), None);
}

#[test]
fn a_server_gives_no_token_where_it_is_told_not_to() {
    let mut server = TransportConfig::default();
    server.new_tokens = false;
    let mut pair = Pair::new(Setup {
        server,
        ..Setup::default()
    });
    pair.connected();
    pair.connected();
    assert_eq!(pair.sides[SERVER].app.incoming, [false, false]);
}

#[test]
fn a_token_is_repeated_until_it_is_acknowledged() {
    let mut a = Attack::on_server(Plan::default());
    for _ in 0..2 {
        for datagram in a.peer.flight() {
            a.send(&datagram);
        }
    }
    a.run(10 * SECOND);
    let seen = tokens(&a);
    assert!(seen.len() > 1, "it is repeated");
    assert!(seen.iter().all(|t| *t == seen[0]), "and the same");
    a.ack_all();
    a.run(SECOND);
    a.ack_all();
    a.inbox.clear();
    a.run(60 * SECOND);
    assert!(tokens(&a).is_empty());
}

#[test]
fn a_client_that_moves_gets_a_token_for_its_new_address() {
    let mut a = Attack::server();
    let there = SocketAddr::from(([192, 0, 2, 1], 4000));
    let ping = a.peer.packet(PacketType::OneRtt, &[1]);
    a.send_from(there, &ping);
    a.run(50 * MS);
    assert!(tokens(&a).is_empty(), "the address is not proven");
    let challenge = a
        .inbox
        .iter()
        .filter(|p| p.to == Some(there))
        .flat_map(|p| p.frames())
        .find_map(|f| match f {
            Frame::PathChallenge(data) => Some(data),
            _ => None,
        });
    let data = challenge.expect("a challenge");
    let answer = payload(|w| frame::write_path_response(w, &data));
    let answer = a.peer.packet(PacketType::OneRtt, &answer);
    a.send_from(there, &answer);
    a.run(50 * MS);
    let seen = tokens(&a);
    assert!(!seen.is_empty());
    // It is good there, from any port, and nowhere else.
    for (from, good) in [
        (SocketAddr::from(([192, 0, 2, 1], 5)), true),
        (a.peer_addr, false),
    ] {
        a.app.incoming.clear();
        a.new_client(u64::from(from.port()));
        a.peer.token = seen[0].clone();
        let hello = a.peer.flight().remove(0);
        a.send_from(from, &hello);
        assert_eq!(a.app.incoming, [good]);
        assert!(a.closes().is_empty(), "a bad token is no token");
    }
}

/// A client keeps few tokens of a server, and none that would crowd its Initial packet.
#[test]
fn a_client_keeps_few_tokens_and_short_ones() {
    let mut a = Attack::client();
    for n in 0..50u8 {
        a.one_rtt(&payload(|w| frame::write_new_token(w, &[n; 100])));
    }
    a.one_rtt(&payload(|w| frame::write_new_token(w, &[99; 513])));
    let mut used = Vec::new();
    for _ in 0..4 {
        a.begin_client();
        a.collect();
        used.push(a.inbox[0].token.clone());
        assert!(a.datagrams.iter().all(|(_, d)| d.len() >= 1200));
    }
    assert_eq!(used, [vec![49; 100], vec![48; 100], vec![], vec![]]);
}

#[test]
fn an_empty_token_is_a_frame_encoding_error() {
    let mut a = Attack::client();
    a.one_rtt(&[0x07, 0x00]);
    a.expect_error(Code::FRAME_ENCODING_ERROR, "an empty token");
}

/// RFC 9000 §8.1.3: a Retry's token is for this connection alone.
#[test]
fn a_retry_token_is_not_used_for_the_next_connection() {
    let mut server = TransportConfig::default();
    server.new_tokens = false;
    let mut pair = Pair::new(Setup {
        server,
        ..Setup::default()
    });
    pair.sides[SERVER].app.prove = true;
    pair.connected();
    pair.connected();
    let attempts = &pair.sides[SERVER].app.incoming;
    assert_eq!(attempts[..], [false, true, false, true]);
}

/// What a client answers to a Retry.
struct Answer {
    token: Vec<u8>,
    scid: ConnectionId,
    datagram: Vec<u8>,
}

fn retried(a: &mut Attack) -> Answer {
    a.app.decision = Some(Decision::Retry);
    let hello = a.peer.flight().remove(0);
    a.send(&hello);
    a.app.decision = None;
    let (scid, token) = a.peer.retries.pop().expect("a Retry");
    let crypto = a.peer.spaces[0].crypto_out.clone();
    a.peer.dcid = scid;
    a.peer.set_initial_keys(scid);
    a.peer.token = token.clone();
    let datagram = a.peer.padded_initial(&crypto_frame(0, &crypto), 1200);
    Answer {
        token,
        scid,
        datagram,
    }
}

/// RFC 9000 §8.1.4: the server side of "each token once".
#[test]
fn a_retry_token_begins_one_connection() {
    let mut a = Attack::on_server(Plan::default());
    let Answer {
        token,
        scid,
        datagram,
    } = retried(&mut a);
    a.send(&datagram);
    assert_eq!(a.app.accepted.len(), 1);
    a.send(&datagram);
    assert_eq!(a.app.accepted.len(), 1, "the same connection");
    let now = a.now;
    a.connection().close(now, 0, b"");
    a.run(4 * SECOND);
    assert!(a.endpoint.is_empty());
    // The same packet again, and another client's with the same token.
    a.inbox.clear();
    a.send(&datagram);
    assert!(a.closes().iter().any(|c| c.1 == Code::INVALID_TOKEN));
    a.new_client(9);
    a.peer.dcid = scid;
    a.peer.set_initial_keys(scid);
    a.peer.token = token;
    a.inbox.clear();
    let hello = a.peer.flight().remove(0);
    a.send(&hello);
    assert!(a.closes().iter().any(|c| c.1 == Code::INVALID_TOKEN));
    assert!(a.endpoint.is_empty());
    assert_eq!(a.app.incoming, [false, true], "nobody was asked again");
}

/// What does not authenticate spends nothing: who sees a token cannot take it away.
#[test]
fn a_forged_packet_does_not_spend_a_retry_token() {
    let mut a = Attack::on_server(Plan::default());
    let Answer { mut datagram, .. } = retried(&mut a);
    let last = datagram.len() - 1;
    datagram[last] ^= 1;
    a.send(&datagram);
    assert!(a.app.accepted.is_empty());
    datagram[last] ^= 1;
    a.send(&datagram);
    assert_eq!(a.app.accepted.len(), 1);
}

/// The answer to a Retry may be lost and repeated any number of times.
#[test]
fn a_client_that_repeats_itself_is_one_connection() {
    let mut accepted = 0;
    for seed in 0..20 {
        let mut pair = Pair::new(Setup {
            seed,
            ..Setup::default()
        });
        pair.sides[SERVER].app.prove = true;
        let mut rng = Rng::from_u64(seed);
        pair.filter = Box::new(move |p| {
            let n = rng.below(3) as usize;
            let copy = |p: &crate::common::pair::Passing| crate::common::pair::Passing {
                bytes: p.bytes.clone(),
                ..*p
            };
            (0..n).map(|_| copy(&p)).collect()
        });
        pair.connect();
        pair.run(30 * SECOND);
        let n = pair.sides[SERVER].app.accepted.len();
        assert!(n <= 1, "seed {seed}: {n}");
        accepted += n;
        let closed = pair.closed(CLIENT);
        let lost = Some(ConnectionError::HandshakeTimedOut);
        assert!(
            closed.is_none() || closed == lost,
            "seed {seed}: {closed:?}"
        );
    }
    assert!(accepted > 10, "{accepted}");
}
