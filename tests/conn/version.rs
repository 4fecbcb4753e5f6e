//! Version negotiation (RFC 9368) between versions 1 and 2 (RFC 9369): every outcome, under loss,
//! and what a forger can make of it.

use crate::common::attack::{Attack, Plan};
use crate::common::pair::{CLIENT, Pair, Passing, SERVER, Setup};
use crate::common::raw_peer::{crypto_frame, payload};
use corelane::base::{FourTuple, Rng, SocketId};
use corelane::conn::{ConnId, ConnectionError, Decision, Event, TransportConfig};
use corelane::crypto::initial_keys;
use corelane::wire::header::{self, Header, LongType, VERSION_1, VERSION_2};
use corelane::wire::version::{Versions, is_reserved};
use corelane::wire::{Code, ConnectionId, Dir, Side, Version, VersionInformation, Writer};
use rustls::pki_types::ServerName;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use Version::{V1, V2};

const SECOND: Duration = Duration::from_secs(1);

fn config(versions: &[Version], preferred: Option<Version>) -> TransportConfig {
    let mut config = TransportConfig::default();
    config.versions = versions.to_vec();
    config.preferred_version = preferred;
    config
}

fn setup(client: &[Version], server: &[Version], preferred: Option<Version>) -> Setup {
    Setup {
        client: config(client, None),
        server: config(server, preferred),
        seed: 1,
    }
}

/// What the two should come to.
fn expected(client: &[Version], server: &[Version], preferred: Option<Version>) -> Option<Version> {
    let first = client[0];
    if !server.contains(&first) {
        return client.iter().copied().find(|v| server.contains(v));
    }
    match preferred {
        Some(p) if server.contains(&p) && client.contains(&p) => Some(p),
        _ => Some(first),
    }
}

/// Every pair of configurations.
fn cases() -> Vec<(&'static [Version], &'static [Version], Option<Version>)> {
    let mut out = Vec::new();
    let clients: [&[Version]; 4] = [&[V1], &[V2], &[V1, V2], &[V2, V1]];
    let servers: [&[Version]; 4] = [&[V1], &[V2], &[V1, V2], &[V2, V1]];
    for client in clients {
        for server in servers {
            for preferred in [None, Some(V1), Some(V2)] {
                out.push((client, server, preferred));
            }
        }
    }
    out
}

/// Streams in both directions, over key updates of either side.
fn exchange(pair: &mut Pair, ids: [ConnId; 2]) {
    let mut updates = 0;
    for round in 0..3u8 {
        for side in [CLIENT, SERVER] {
            let streams = pair.conn(side, ids[side]).streams_mut();
            let stream = streams.open(Dir::Uni).expect("a stream");
            assert_eq!(streams.write(stream, &[round; 5000]), Ok(5000));
            streams.finish(stream).expect("open");
            updates += u64::from(pair.conn(side, ids[side]).update_keys());
            pair.run(SECOND);
        }
    }
    assert!(updates >= 3, "{updates}");
    for side in [CLIENT, SERVER] {
        assert_eq!(pair.closed(side), None);
        let received = pair.sides[side].app.received.values();
        assert_eq!(received.map(Vec::len).collect::<Vec<_>>(), [5000; 3]);
        let stats = pair.conn(side, ids[side]).stats();
        assert_eq!(
            (stats.key_updates, stats.packets_undecryptable),
            (updates, 0)
        );
    }
}

#[test]
fn every_pair_of_configurations_comes_to_the_version_that_both_would_choose() {
    for (client, server, preferred) in cases() {
        for retry in [false, true] {
            let what = format!("{client:?} {server:?} {preferred:?} {retry}");
            let mut pair = Pair::new(setup(client, server, preferred));
            pair.sides[SERVER].app.prove = retry;
            let Some(version) = expected(client, server, preferred) else {
                pair.connect();
                pair.run(10 * SECOND);
                assert_eq!(pair.closed(CLIENT), Some(ConnectionError::VersionMismatch));
                assert!(pair.sides[SERVER].app.accepted.is_empty());
                continue;
            };
            let (c, s) = pair.connected();
            assert_eq!(pair.conn(CLIENT, c).version(), version, "{what}");
            assert_eq!(pair.conn(SERVER, s).version(), version, "{what}");
            let stats = pair.sides[SERVER].endpoint.stats();
            assert_eq!(stats.retries, u64::from(retry), "{what}");
            let negotiated = u64::from(!server.contains(&client[0]));
            assert_eq!(stats.version_negotiations, negotiated, "{what}");
            exchange(&mut pair, [c, s]);
        }
    }
}

/// RFC 9368 §6: what is preferred and what is tried first need not be the same; one that is not
/// spoken is not tried.
#[test]
fn a_client_may_begin_with_a_version_that_it_prefers_less() {
    for (first, server, then) in [
        (Some(V1), &[V1, V2][..], V1),
        (Some(V1), &[V2], V2),
        (Some(V2), &[V1, V2], V2),
        (None, &[V1, V2], V2),
    ] {
        let mut s = setup(&[V2, V1], server, None);
        s.client.first_version = first;
        let mut pair = Pair::new(s);
        let seen = watch(&mut pair);
        let (c, _) = pair.connected();
        assert_eq!(pair.conn(CLIENT, c).version(), then);
        assert_eq!(seen.borrow()[0].2, first.unwrap_or(V2).number());
    }
    let mut s = setup(&[V1], &[V1, V2], None);
    s.client.first_version = Some(V2);
    let mut pair = Pair::new(s);
    let (c, _) = pair.connected();
    assert_eq!(pair.conn(CLIENT, c).version(), V1);
}

/// The versions and types of every long header packet that passes, by sender.
type Seen = Rc<RefCell<Vec<(usize, &'static str, u32)>>>;

fn long_headers(bytes: &[u8]) -> Vec<(&'static str, u32)> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while let Ok(parsed) = Header::parse_greased(rest, 8) {
        match parsed {
            Header::Long {
                ty, version, len, ..
            } => {
                let name = match ty {
                    LongType::Initial => "Initial",
                    LongType::ZeroRtt => "0-RTT",
                    LongType::Handshake => "Handshake",
                };
                out.push((name, version));
                rest = &rest[len..];
            }
            Header::Retry { version, .. } => {
                out.push(("Retry", version));
                break;
            }
            _ => break,
        }
    }
    out
}

fn watch(pair: &mut Pair) -> Seen {
    let seen: Seen = Rc::default();
    let log = seen.clone();
    pair.filter = Box::new(move |p| {
        let headers = long_headers(&p.bytes);
        log.borrow_mut()
            .extend(headers.into_iter().map(|(ty, v)| (p.from, ty, v)));
        vec![p]
    });
    seen
}

/// RFC 9369 §4.1: which packets have which version.
#[test]
fn packets_change_their_version_as_the_rfc_says() {
    for (first, then) in [(V1, V2), (V2, V1)] {
        let mut pair = Pair::new(setup(&[first, then], &[V1, V2], Some(then)));
        pair.sides[SERVER].app.prove = true;
        let seen = watch(&mut pair);
        let (c, s) = pair.connected();
        assert_eq!(pair.conn(CLIENT, c).version(), then);
        assert_eq!(pair.conn(SERVER, s).version(), then);
        let seen = seen.borrow();
        let (first, then) = (first.number(), then.number());
        assert_eq!(seen[0], (CLIENT, "Initial", first));
        assert_eq!(seen[1], (SERVER, "Retry", first));
        assert_eq!(seen[2], (CLIENT, "Initial", first), "with the token");
        let server_initial = seen.iter().find(|s| (s.0, s.1) == (SERVER, "Initial"));
        assert_eq!(server_initial.map(|s| s.2), Some(then));
        assert!(
            seen.iter()
                .filter(|s| s.1 == "Handshake")
                .all(|s| s.2 == then)
        );
        let client_handshakes = seen.iter().filter(|s| (s.0, s.1) == (CLIENT, "Handshake"));
        assert!(client_handshakes.count() > 0);
    }
}

#[test]
fn negotiation_survives_loss_and_reordering() {
    let mut switched = 0;
    for seed in 0..150 {
        let mut rng = Rng::from_u64(seed);
        let all = cases();
        let (client, server, preferred) = all[rng.below(all.len() as u64) as usize];
        let Some(version) = expected(client, server, preferred) else {
            continue;
        };
        let mut s = setup(client, server, preferred);
        s.seed = seed;
        s.client.handshake_deadline = 120 * SECOND;
        s.server.handshake_deadline = 120 * SECOND;
        s.client.max_idle_timeout = 600 * SECOND;
        s.server.max_idle_timeout = 600 * SECOND;
        let mut pair = Pair::new(s);
        pair.sides[SERVER].app.prove = rng.chance(0.3);
        let mut held: Vec<Passing> = Vec::new();
        pair.filter = Box::new(move |p| match rng.below(10) {
            0..2 => vec![],
            2..5 if held.is_empty() => {
                held.push(p);
                vec![]
            }
            5 => {
                let copy = Passing {
                    bytes: p.bytes.clone(),
                    ..p
                };
                vec![p, copy]
            }
            _ => std::iter::once(p).chain(held.drain(..)).collect(),
        });
        let c = pair.connect();
        pair.run(100 * SECOND);
        assert!(pair.saw(CLIENT, &Event::Connected), "seed {seed}");
        assert_eq!(pair.conn(CLIENT, c).version(), version, "seed {seed}");
        switched += u32::from(version != client[0]);
    }
    assert!(switched > 20, "{switched}");
}

/// A Version Negotiation packet for the client's first packet.
fn version_negotiation(first: &[u8], versions: &[u32]) -> Vec<u8> {
    let Ok(Header::Long { dcid, scid, .. }) = Header::parse(first, 8) else {
        panic!("an Initial packet");
    };
    payload(|w| {
        header::write_version_negotiation(w, 7, scid.as_slice(), dcid.as_slice(), versions);
    })
}

/// A pair whose first client packet `forge` answers in the server's name, at once; it passes too.
fn forging(s: Setup, forge: impl Fn(&[u8]) -> Vec<Vec<u8>> + 'static) -> Pair {
    let mut pair = Pair::new(s);
    let server = pair.sides[SERVER].addr;
    let mut done = false;
    pair.filter = Box::new(move |p| {
        let mut out = Vec::new();
        if p.from == CLIENT && !std::mem::replace(&mut done, true) {
            out.extend(forge(&p.bytes).into_iter().map(|bytes| Passing {
                from: SERVER,
                source: server,
                bytes,
                ..p
            }));
        }
        out.push(p);
        out
    });
    pair
}

/// RFC 9368 §4: a forged Version Negotiation packet cannot lead to a version that the two would
/// not have come to.
#[test]
fn a_forged_version_negotiation_packet_is_found_out() {
    let s = setup(&[V2, V1], &[V1, V2], None);
    let mut pair = forging(s, |first| {
        vec![version_negotiation(first, &[VERSION_1, 0x0a0a_0a0a])]
    });
    pair.connect();
    pair.run(10 * SECOND);
    assert!(!pair.saw(CLIENT, &Event::Connected));
    let Some(ConnectionError::PeerMisbehaved(e)) = pair.closed(CLIENT) else {
        panic!("{:?}", pair.closed(CLIENT));
    };
    assert_eq!(e.code, Code::VERSION_NEGOTIATION_ERROR);
    let told = pair.sides[SERVER].events.iter().any(|(_, e)| {
        matches!(e, Event::Closed(ConnectionError::ClosedByPeer { code, .. })
            if *code == Code::VERSION_NEGOTIATION_ERROR)
    });
    assert!(told, "{:?}", pair.sides[SERVER].events);
}

/// RFC 9368 §4: packets that offer the original version, and those after the first that counted.
#[test]
fn version_negotiation_packets_that_do_not_count() {
    let s = setup(&[V1, V2], &[V1, V2], None);
    let mut pair = forging(s, |first| {
        let mut other = version_negotiation(first, &[VERSION_2]);
        other[7] ^= 1;
        vec![version_negotiation(first, &[VERSION_2, VERSION_1]), other]
    });
    let (c, _) = pair.connected();
    assert_eq!(pair.conn(CLIENT, c).version(), V1);
    // A client that reacted once: the second packet, right in all its fields, is ignored.
    let mut pair = Pair::new(setup(&[V2, V1], &[V1], None));
    let server = pair.sides[SERVER].addr;
    let mut initials = 0;
    pair.filter = Box::new(move |p| {
        if p.from == CLIENT && matches!(Header::parse(&p.bytes, 8), Ok(Header::Long { .. })) {
            initials += 1;
            if initials == 2 {
                let forged = Passing {
                    from: SERVER,
                    source: server,
                    bytes: version_negotiation(&p.bytes, &[VERSION_2]),
                    ..p
                };
                return vec![forged, p];
            }
        }
        vec![p]
    });
    let (c, _) = pair.connected();
    assert_eq!(pair.conn(CLIENT, c).version(), V1);
}

/// An Initial packet in the server's name: its keys are no secret.
fn forged_initial(version: u32, first: &[u8], frames: &[u8]) -> Vec<u8> {
    let Ok(Header::Long { dcid, scid, .. }) = Header::parse(first, 8) else {
        panic!("an Initial packet");
    };
    let mut peer = crate::common::raw_peer::RawPeer::server(ConnectionId::new(&[9; 8]).expect("8"));
    peer.version = version;
    peer.dcid = scid;
    peer.spaces[0].keys = initial_keys(version, dcid.as_slice(), Side::Server);
    peer.padded_initial(frames, 1200)
}

/// A forger makes the client follow a version that the server did not choose: no connection comes
/// of it, in any version.
#[test]
fn a_forged_switch_ends_without_a_connection() {
    for frames in [vec![1], crypto_frame(0, &[2, 0, 0, 4, 1, 2, 3, 4])] {
        let mut pair = forging(setup(&[V1, V2], &[V1, V2], None), move |first| {
            vec![forged_initial(VERSION_2, first, &frames)]
        });
        pair.connect();
        pair.run(40 * SECOND);
        assert!(!pair.saw(CLIENT, &Event::Connected));
        assert!(pair.closed(CLIENT).is_some());
    }
    // A version that was not offered is not followed.
    let mut pair = forging(setup(&[V1], &[V1, V2], None), |first| {
        vec![forged_initial(VERSION_2, first, &[1])]
    });
    let (c, _) = pair.connected();
    assert_eq!(pair.conn(CLIENT, c).version(), V1);
}

fn information(chosen: u32, available: &[Version]) -> Option<VersionInformation> {
    Some(VersionInformation {
        chosen,
        available: available.iter().copied().collect::<Versions>(),
    })
}

/// RFC 9368 §4, what a client checks: the server's word must fit the packets.
#[test]
fn a_server_that_says_another_version_than_it_speaks_is_refused() {
    for (said, code) in [
        (None, None),
        (information(VERSION_1, &[V1]), None),
        (information(VERSION_1, &[]), None),
        (information(VERSION_1, &[V2]), None),
        (
            information(VERSION_2, &[V1, V2]),
            Some(Code::VERSION_NEGOTIATION_ERROR),
        ),
        (
            information(0x1a2a_3a4a, &[V1]),
            Some(Code::VERSION_NEGOTIATION_ERROR),
        ),
        (information(0, &[V1]), Some(Code::TRANSPORT_PARAMETER_ERROR)),
    ] {
        let mut a = Attack::on_client(Plan::default());
        a.start_server(|p| p.version_information = said.clone());
        for _ in 0..4 {
            for datagram in a.peer.flight() {
                a.send(&datagram);
            }
        }
        assert_eq!(a.blamed(), code, "{said:?}");
        assert_eq!(a.events.contains(&Event::Connected), code.is_none());
    }
}

/// RFC 9368 §4, what a server checks.
#[test]
fn a_client_that_says_another_version_than_it_speaks_is_refused() {
    for (said, code) in [
        (None, None),
        (information(VERSION_1, &[V1]), None),
        (information(VERSION_1, &[V2, V1]), None),
        (
            information(VERSION_2, &[V1, V2]),
            Some(Code::VERSION_NEGOTIATION_ERROR),
        ),
        (
            information(VERSION_1, &[V2]),
            Some(Code::TRANSPORT_PARAMETER_ERROR),
        ),
        (
            information(VERSION_1, &[]),
            Some(Code::TRANSPORT_PARAMETER_ERROR),
        ),
    ] {
        // One server keeps the client's version, one would rather have another.
        for preferred in [None, Some(V2)] {
            let mut plan = Plan::default();
            plan.transport.preferred_version = preferred;
            plan.params.version_information = said.clone();
            let offers = said.as_ref().is_some_and(|s| s.available.contains(&V2));
            if preferred.is_some() && offers && code.is_none() {
                continue; // The scripted client does not follow.
            }
            let mut a = Attack::on_server(plan);
            for _ in 0..4 {
                for datagram in a.peer.flight() {
                    a.send(&datagram);
                }
            }
            assert_eq!(a.blamed(), code, "{said:?} {preferred:?}");
            assert_eq!(a.events.contains(&Event::Connected), code.is_none());
        }
    }
}

/// RFC 9368 §8: after a Version Negotiation packet, a server of version 1 may say nothing about
/// versions; and the list that a server gives must lead where the packet did.
#[test]
fn what_a_server_must_say_after_a_version_negotiation_packet() {
    for (said, code) in [
        (None, None),
        (information(VERSION_1, &[V1]), None),
        (
            information(VERSION_1, &[V1, V2]),
            Some(Code::VERSION_NEGOTIATION_ERROR),
        ),
        (
            information(VERSION_1, &[V2]),
            Some(Code::VERSION_NEGOTIATION_ERROR),
        ),
        (
            information(VERSION_1, &[]),
            Some(Code::VERSION_NEGOTIATION_ERROR),
        ),
    ] {
        let mut plan = Plan::default();
        plan.transport.versions = vec![V2, V1];
        let mut a = Attack::on_client(plan);
        let first = a.datagrams.remove(0).1;
        a.inbox.clear();
        a.peer.spaces[0].keys = None;
        a.send(&version_negotiation(&first, &[VERSION_1]));
        assert_eq!(a.inbox.len(), 1, "a new first flight");
        a.start_server(|p| p.version_information = said.clone());
        for _ in 0..4 {
            for datagram in a.peer.flight() {
                a.send(&datagram);
            }
        }
        assert_eq!(a.blamed(), code, "{said:?}");
        assert_eq!(a.events.contains(&Event::Connected), code.is_none());
    }
}

/// RFC 9369 §4.1: a Retry in another version than the client's is ignored.
#[test]
fn a_retry_of_another_version_is_ignored() {
    let forge = |version: Version| {
        move |first: &[u8]| {
            let Ok(Header::Long { dcid, scid, .. }) = Header::parse(first, 8) else {
                panic!("an Initial packet");
            };
            let retry_scid = ConnectionId::new(&[3; 8]).expect("8 bytes");
            let write = |w: &mut Writer<'_>| {
                header::write_retry(w, version.number(), &scid, &retry_scid, b"a token");
            };
            let mut retry = payload(write);
            let odcid = dcid.as_slice();
            let tag = corelane::crypto::retry::integrity_tag(version, odcid, &retry);
            retry.extend_from_slice(&tag.expect("a tag"));
            vec![retry]
        }
    };
    let mut pair = forging(setup(&[V1, V2], &[V1, V2], None), forge(V2));
    pair.connected();
    // The same in the right version leads away from the server.
    let mut pair = forging(setup(&[V1, V2], &[V1, V2], None), forge(V1));
    pair.connect();
    pair.run(SECOND);
    assert!(!pair.saw(CLIENT, &Event::Connected));
}

#[test]
fn stateless_answers_have_the_clients_version() {
    for version in [V1, V2] {
        let mut pair = Pair::new(setup(&[version], &[V1, V2], None));
        pair.sides[SERVER].app.decision = Some(Decision::Refuse);
        let seen = watch(&mut pair);
        pair.connect();
        pair.run(SECOND);
        let Some(ConnectionError::ClosedByPeer { code, .. }) = pair.closed(CLIENT) else {
            panic!("{:?}", pair.closed(CLIENT));
        };
        assert_eq!(code, Code::CONNECTION_REFUSED);
        assert!(
            seen.borrow()
                .contains(&(SERVER, "Initial", version.number()))
        );
    }
}

/// RFC 9000 §6.1, §6.3: every version that is spoken, and a reserved one.
#[test]
fn a_version_negotiation_packet_lists_what_is_spoken() {
    for spoken in [vec![V1], vec![V2], vec![V1, V2], vec![]] {
        let mut plan = Plan::default();
        plan.transport.versions = spoken.clone();
        let mut a = Attack::on_server(plan);
        let mut hello = a.peer.flight().remove(0);
        hello[1..5].copy_from_slice(&0x1a2a_3a4a_u32.to_be_bytes());
        a.send(&hello[..1199]);
        assert!(a.datagrams.is_empty(), "too small to answer");
        a.send(&hello);
        let Ok(Header::VersionNegotiation { versions, .. }) = Header::parse(&a.datagrams[0].1, 8)
        else {
            panic!("no Version Negotiation packet");
        };
        let listed: Vec<u32> = versions.iter().filter(|v| !is_reserved(*v)).collect();
        let spoken = if spoken.is_empty() { vec![V1] } else { spoken };
        assert_eq!(
            listed,
            spoken.iter().map(|v| v.number()).collect::<Vec<_>>()
        );
        assert_eq!(versions.iter().count(), listed.len() + 1);
    }
}

fn connect_in(pair: &mut Pair, versions: &[Version]) -> ConnId {
    let tuple = FourTuple::new(pair.sides[CLIENT].addr, pair.sides[SERVER].addr);
    let name = ServerName::try_from("localhost").expect("a name");
    let (now, tls) = (pair.now, pair.tls.clone());
    let transport = Some(Arc::new(config(versions, None)));
    let endpoint = &mut pair.sides[CLIENT].endpoint;
    let id = endpoint
        .connect(now, SocketId(0), tuple, tls, name, transport)
        .expect("connects");
    pair.run(SECOND);
    assert!(pair.conn(CLIENT, id).is_established());
    id
}

/// RFC 9369 §5: a session ticket is good in its own version.
#[test]
fn tickets_do_not_cross_versions() {
    let mut pair = Pair::new(setup(&[V1], &[V1, V2], None));
    for (versions, resumed) in [(V1, false), (V1, true), (V2, false), (V2, true)] {
        // What the client has left of the version before is used up first.
        let mut last = None;
        for _ in 0..8 {
            let id = connect_in(&mut pair, &[versions]);
            last = pair.conn(CLIENT, id).session().is_resumed();
            let now = pair.now;
            pair.conn(CLIENT, id).close(now, 0, b"");
            pair.run(SECOND);
            if last == Some(resumed) {
                break;
            }
        }
        assert_eq!(last, Some(resumed), "{versions:?}");
    }
}

/// RFC 9369 §5: a ticket of the negotiated version is none for the version that the client begins
/// with; a client that begins with the negotiated version has it.
#[test]
fn a_client_that_was_moved_keeps_no_ticket() {
    for (versions, server, resumed) in [
        (&[V1, V2][..], &[V1, V2][..], false),
        (&[V2, V1], &[V1, V2], true),
        (&[V2, V1], &[V1], false),
    ] {
        let preferred = server.contains(&V2).then_some(V2);
        let mut pair = Pair::new(setup(versions, server, preferred));
        for n in 0..3 {
            let id = connect_in(&mut pair, versions);
            let conn = pair.conn(CLIENT, id);
            assert_eq!(conn.version(), preferred.unwrap_or(V1));
            assert_eq!(conn.session().is_resumed(), Some(resumed && n > 0));
            let now = pair.now;
            pair.conn(CLIENT, id).close(now, 0, b"");
            pair.run(SECOND);
        }
    }
}

/// RFC 9369 §5: a token of another version proves nothing.
#[test]
fn tokens_do_not_cross_versions() {
    for (version, valid) in [(VERSION_1, true), (VERSION_2, false)] {
        let mut a = Attack::on_server(Plan::default());
        a.app.prove = true;
        let hello = a.peer.flight().remove(0);
        a.send(&hello);
        let (scid, token) = a.peer.retries.pop().expect("a Retry");
        a.peer.token = token;
        a.peer.dcid = scid;
        a.peer.version = version;
        a.peer.set_initial_keys(scid);
        let crypto = a.peer.spaces[0].crypto_out.clone();
        let again = a.peer.padded_initial(&crypto_frame(0, &crypto), 1200);
        a.app.incoming.clear();
        a.send(&again);
        assert_eq!(a.app.incoming, [valid]);
    }
}

/// A server that would rather speak version 2 waits for the whole ClientHello, in whatever pieces
/// it comes, and a message that is none goes to TLS.
#[test]
fn a_client_hello_in_pieces_is_put_together_before_the_version_is_chosen() {
    let prefers = || {
        let mut plan = Plan::default();
        plan.transport.preferred_version = Some(V2);
        plan.params.version_information = information(VERSION_1, &[V1, V2]);
        Attack::on_server(plan)
    };
    let mut a = prefers();
    let hello = a.peer.spaces[0].crypto_out.clone();
    let mut at: Vec<usize> = (0..hello.len()).step_by(37).collect();
    at.reverse();
    let last = at.pop().expect("the first piece");
    for start in at {
        let end = (start + 37).min(hello.len());
        let piece = crypto_frame(start as u64, &hello[start..end]);
        let p = a.peer.padded_initial(&piece, 1200);
        a.send(&p);
    }
    assert_eq!(a.connection().version(), V1);
    assert!(
        a.datagrams
            .iter()
            .all(|d| long_headers(&d.1)[0].1 == VERSION_1)
    );
    a.datagrams.clear();
    let p = a
        .peer
        .padded_initial(&crypto_frame(last as u64, &hello[..37]), 1200);
    a.send(&p);
    assert_eq!(a.connection().version(), V2);
    let answers: Vec<_> = a
        .datagrams
        .iter()
        .flat_map(|d| long_headers(&d.1))
        .collect();
    assert!(
        answers.len() >= 2 && answers.iter().all(|h| h.1 == VERSION_2),
        "{answers:?}"
    );
    // The client has not heard yet: what it sends again in its own version is still read.
    let before = a.connection().stats().packets_received;
    let p = a.peer.padded_initial(&[1], 1200);
    a.send(&p);
    assert_eq!(a.connection().stats().packets_received, before + 1);
}

/// `limits::CLIENT_HELLO`: what pretends to be longer is not collected.
#[test]
fn a_client_hello_of_absurd_length_goes_to_tls_at_once() {
    let mut plan = Plan::default();
    plan.transport.preferred_version = Some(V2);
    let mut a = Attack::on_server(plan);
    let p = a
        .peer
        .padded_initial(&crypto_frame(0, &[1, 0xff, 0xff, 0xff, 3, 3]), 1200);
    a.send(&p);
    let blamed = a.blamed().expect("TLS refuses it");
    assert!(blamed.alert().is_some(), "{blamed:?}");
}

/// RFC 9287 §3.1: both values of the bit come once the peer's parameters are known, and only from
/// endpoints whose peer declared to take them.
#[test]
fn the_fixed_bit_is_greased_for_peers_that_take_it() {
    for (client, server) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut s = setup(&[V1], &[V1], None);
        s.client.grease_quic_bit = client;
        s.server.grease_quic_bit = server;
        let mut pair = Pair::new(s);
        let cleared: Rc<RefCell<[u32; 2]>> = Rc::default();
        let count = cleared.clone();
        let mut first = true;
        pair.filter = Box::new(move |p| {
            let clear = p.bytes[0] & header::FIXED_BIT == 0;
            if std::mem::take(&mut first) {
                assert!(!clear, "nothing is known of the peer yet");
            }
            count.borrow_mut()[p.from] += u32::from(clear);
            vec![p]
        });
        let (c, s) = pair.connected();
        exchange(&mut pair, [c, s]);
        let both = client && server;
        for (side, n) in cleared.borrow().iter().enumerate() {
            assert_eq!(
                *n > 0,
                both,
                "{side}: {n}, client {client}, server {server}"
            );
        }
        for (side, id) in [(CLIENT, c), (SERVER, s)] {
            assert_eq!(pair.conn(side, id).stats().packets_dropped, 0);
        }
    }
}

/// RFC 9287 §3 with RFC 9000 §10.3: a stray whose fixed bit is greased is answered with a reset,
/// which has the bit set, and the reset is heard.
#[test]
fn stateless_resets_cope_with_greased_packets() {
    let mut pair = Pair::new(setup(&[V1], &[V1], None));
    let (c, s) = pair.connected();
    // The server forgets; the client's packets all come without the bit.
    let now = pair.now;
    pair.filter = Box::new(|_| vec![]);
    pair.conn(SERVER, s).close(now, 0, b"");
    pair.run(5 * SECOND);
    pair.filter = Box::new(|mut p| {
        if p.from == CLIENT {
            p.bytes[0] &= !header::FIXED_BIT;
        } else {
            assert_ne!(p.bytes[0] & header::FIXED_BIT, 0);
        }
        vec![p]
    });
    let streams = pair.conn(CLIENT, c).streams_mut();
    let id = streams.open(Dir::Uni).expect("a stream");
    streams.write(id, &[1; 100]).expect("room");
    pair.run(SECOND);
    assert_eq!(pair.closed(CLIENT), Some(ConnectionError::Reset));
}

/// RFC 9000 §17.4: the bit turns once a round trip on most connections, and carries nothing where
/// it is off.
#[test]
fn the_spin_bit_turns_where_it_is_on() {
    let turns = |on: bool, seed: u64| {
        let mut s = setup(&[V1], &[V1], None);
        s.seed = seed;
        s.client.spin_bit = on;
        s.server.spin_bit = on;
        let mut pair = Pair::new(s);
        let (c, _) = pair.connected();
        let bits: Rc<RefCell<Vec<u8>>> = Rc::default();
        let log = bits.clone();
        pair.filter = Box::new(move |p| {
            if p.from == CLIENT && p.bytes[0] & header::FORM_LONG == 0 {
                log.borrow_mut().push(p.bytes[0] & header::SPIN);
            }
            vec![p]
        });
        for _ in 0..10 {
            let streams = pair.conn(CLIENT, c).streams_mut();
            let id = streams.open(Dir::Uni).expect("a stream");
            streams.write(id, b"x").expect("room");
            pair.run(SECOND / 10);
        }
        let bits = bits.borrow();
        bits.windows(2).filter(|w| w[0] != w[1]).count()
    };
    let mut spinning = 0;
    for seed in 0..40 {
        assert_eq!(turns(false, seed), 0);
        spinning += u32::from(turns(true, seed) >= 5);
    }
    assert!(
        (25..40).contains(&spinning),
        "{spinning} of 40, less two sixteenths"
    );
}
