//! Single clauses of RFC 9000 and RFC 9001 that no larger test shows in passing; each test names
//! its clause. `tools/spec-coverage` has the whole list.

use crate::common::attack::{Attack, Plan};
use crate::common::pair::{CLIENT, Pair, Passing, SERVER, Setup};
use crate::common::raw_peer::{Packet, ack_frame, crypto_frame, index, payload, stream_frame};
use corelane::base::Ecn;
use corelane::conn::{ConnectionError, Decision, Event};
use corelane::wire::frame::{self, Frame};
use corelane::wire::header::{self, Header, LongType, VERSION_1};
use corelane::wire::{Code, ConnectionId, Dir, PacketType};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn cid(byte: u8) -> ConnectionId {
    ConnectionId::new(&[byte; 8]).expect("8 bytes")
}

fn elsewhere() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 4000))
}

/// The connection ID that the endpoint goes by.
fn scid_of(a: &Attack) -> ConnectionId {
    let long = a.datagrams.iter().flat_map(|d| long_headers(&d.1)).next();
    long.map_or(a.peer.dcid, |h| h.2)
}

/// The scripted server's ServerHello alone, in a full datagram.
fn server_hello(a: &mut Attack) -> Vec<u8> {
    let hello = a.peer.spaces[0].crypto_out.clone();
    a.peer.spaces[0].crypto_sent = hello.len();
    let mut frames = ack_frame(&[0..=0]);
    frames.extend(crypto_frame(0, &hello));
    a.peer.padded_initial(&frames, 1200)
}

/// A Retry in answer to the client's first packet.
fn retry(first: &Packet, scid: ConnectionId, token: &[u8]) -> Vec<u8> {
    let mut bytes = payload(|w| {
        header::write_retry(w, VERSION_1, &first.scid, &scid, token);
    });
    let tag = corelane::crypto::retry::integrity_tag(
        corelane::wire::Version::V1,
        first.dcid.as_slice(),
        &bytes,
    );
    bytes.extend(tag.expect("a tag"));
    bytes
}

/// What a long-header packet says of itself in the clear.
fn long_headers(datagram: &[u8]) -> Vec<(LongType, ConnectionId, ConnectionId)> {
    let mut rest = datagram;
    let mut out = Vec::new();
    while let Ok(Header::Long {
        ty,
        dcid,
        scid,
        len,
        ..
    }) = Header::parse_greased(rest, 8)
    {
        out.push((ty, dcid, scid));
        rest = &rest[len..];
    }
    out
}

/// RFC 9000 §4.1, §4.6, §13.3, §19.11: an outdated limit is taken and changes nothing.
#[test]
fn limits_that_do_not_rise_change_nothing() {
    let mut a = Attack::server();
    a.ack_all();
    let id = a.connection().streams_mut().open(Dir::Uni).expect("open");
    a.one_rtt(&payload(|w| {
        frame::write_max_data(w, 0);
        frame::write_max_stream_data(w, id.0, 0);
        frame::write_max_streams(w, Dir::Uni, 0);
    }));
    let streams = a.connection().streams_mut();
    assert_eq!(streams.write(id, &[1; 3000]), Ok(3000));
    assert!(streams.open(Dir::Uni).is_ok());
    a.inbox.clear();
    a.run(SECOND);
    let sent: usize = a
        .inbox
        .iter()
        .flat_map(|p| p.frames())
        .map(|f| match f {
            Frame::Stream(s) => s.data.len(),
            _ => 0,
        })
        .sum();
    assert!(sent >= 3000, "{sent}");
    a.expect_alive();
}

/// RFC 9000 §5.2.1: a client discards packets of a version that it did not choose.
#[test]
fn a_client_drops_packets_of_another_version() {
    let mut a = Attack::on_client(Plan::default());
    a.start_server(|_| {});
    let hello = server_hello(&mut a);
    let mut other = hello.clone();
    other[1..5].copy_from_slice(&0x1a2a_3a4au32.to_be_bytes());
    let before = a.connection().stats().packets_dropped;
    a.send(&other);
    assert_eq!(a.connection().stats().packets_dropped, before + 1);
    assert_eq!(a.connection().stats().packets_received, 0);
    a.send(&hello);
    assert_eq!(a.connection().stats().packets_received, 1);
}

/// RFC 9000 §7.2: one destination until the server is heard, then the one that it names.
#[test]
fn a_client_keeps_its_first_destination_until_it_hears_from_the_server() {
    let mut a = Attack::on_client(Plan::default());
    a.run(3 * SECOND);
    let first = a.inbox[0].dcid;
    assert!(a.inbox.len() > 2 && first.len() >= 8);
    assert!(a.inbox.iter().all(|p| p.dcid == first));
    a.start_server(|_| {});
    let hello = server_hello(&mut a);
    a.inbox.clear();
    a.send(&hello);
    let scid = a.peer.scid;
    assert!(!a.inbox.is_empty() && a.inbox.iter().all(|p| p.dcid == scid));
}

/// RFC 9000 §7.2: once the server is heard, packets from another source are discarded.
#[test]
fn a_client_drops_packets_from_another_source() {
    let mut a = Attack::on_client(Plan::default());
    a.start_server(|_| {});
    let hello = server_hello(&mut a);
    a.send(&hello);
    let own = std::mem::replace(&mut a.peer.scid, cid(0x77));
    let bad = a.peer.padded_initial(&[0x08, 0, 1], 1200);
    let received = a.connection().stats().packets_received;
    a.send(&bad);
    assert_eq!(a.closed(), None);
    assert_eq!(a.connection().stats().packets_received, received);
    a.peer.scid = own;
    a.handshake();
}

/// RFC 9000 §8.1.3: the token of a Retry goes into no other connection.
#[test]
fn a_retry_token_is_for_one_connection() {
    let mut setup = Setup::default();
    setup.server.new_tokens = false;
    let mut pair = Pair::new(setup);
    pair.sides[SERVER].app.prove = true;
    let seen: Rc<RefCell<Vec<bool>>> = Rc::default();
    let log = seen.clone();
    pair.filter = Box::new(move |p| {
        if let (CLIENT, Ok(Header::Long { token, .. })) = (p.from, Header::parse(&p.bytes, 8)) {
            log.borrow_mut().push(token.is_empty());
        }
        vec![p]
    });
    let (first, _) = pair.connected();
    let now = pair.now;
    pair.conn(CLIENT, first).close(now, 0, b"");
    pair.run(SECOND);
    seen.borrow_mut().clear();
    pair.connected();
    assert_eq!(
        seen.borrow().first(),
        Some(&true),
        "a first packet without token"
    );
}

/// RFC 9000 §8.2.1, §8.2.2: datagrams with path frames are full where the limit admits it.
#[test]
fn challenges_fill_their_datagrams_where_the_limit_admits_it() {
    for (size, full) in [(600, true), (50, false)] {
        let mut a = Attack::server();
        a.run(SECOND);
        a.ack_all();
        a.inbox.clear();
        let p = a.peer.packet(PacketType::OneRtt, &vec![1; size]);
        a.send_from(elsewhere(), &p);
        let challenge = a
            .inbox
            .iter()
            .find(|p| p.to == Some(elsewhere()) && p.has(|f| matches!(f, Frame::PathChallenge(_))))
            .expect("a challenge");
        assert_eq!(challenge.datagram >= 1200, full, "{}", challenge.datagram);
        assert!(challenge.datagram <= 3 * p.len());
    }
}

/// RFC 9000 §8.2.2: a response validates from wherever it comes.
#[test]
fn a_response_counts_wherever_it_comes_from() {
    let mut a = Attack::server();
    a.run(SECOND);
    a.ack_all();
    a.inbox.clear();
    let p = a.peer.packet(PacketType::OneRtt, &[1; 600]);
    a.send_from(elsewhere(), &p);
    let data = a
        .inbox
        .iter()
        .filter(|p| p.to == Some(elsewhere()))
        .flat_map(|p| p.frames())
        .find_map(|f| match f {
            Frame::PathChallenge(data) => Some(data),
            _ => None,
        })
        .expect("a challenge");
    // From the old address; as a probing packet it moves nothing back.
    a.one_rtt(&payload(|w| frame::write_path_response(w, &data)));
    a.run(20 * SECOND);
    assert_eq!(a.connection().path().remote, elsewhere());
}

/// RFC 9000 §8.2.2: one PATH_RESPONSE for one PATH_CHALLENGE, however often packets are lost.
#[test]
fn one_challenge_gets_one_response() {
    let mut a = Attack::server();
    a.ack_all();
    a.inbox.clear();
    a.one_rtt(&payload(|w| frame::write_path_challenge(w, &[9; 8])));
    // The answer is never acknowledged, and later ones are.
    for _ in 0..10 {
        a.one_rtt(&[1]);
        a.run(SECOND);
    }
    let answers = a.inbox.iter().flat_map(|p| p.frames());
    let answers = answers.filter(|f| *f == Frame::PathResponse([9; 8]));
    assert_eq!(answers.count(), 1);
}

/// RFC 9000 §9.4: another host begins with initial estimates; another port of the same does not.
#[test]
fn a_new_host_begins_with_initial_estimates() {
    for (host, fresh) in [([192, 0, 2, 1], true), ([127, 0, 0, 1], false)] {
        let mut a = Attack::server();
        a.run_acking(SECOND, 10 * MS);
        let initial = Plan::default().transport.initial_rtt;
        assert!(a.connection().path_stats().smoothed_rtt < initial);
        let p = a.peer.packet(PacketType::OneRtt, &[1; 600]);
        a.send_from(SocketAddr::from((host, 4000)), &p);
        let rtt = a.connection().path_stats().smoothed_rtt;
        assert_eq!(rtt == initial, fresh, "{rtt:?}");
    }
}

/// RFC 9000 §10.2.3: after confirmation the end is told in a 1-RTT packet.
#[test]
fn a_close_after_confirmation_is_in_a_1_rtt_packet() {
    for mut a in [Attack::server(), Attack::client()] {
        a.inbox.clear();
        let now = a.now;
        a.connection().close(now, 5, b"bye");
        a.collect();
        let types: Vec<PacketType> = a.closes().iter().map(|c| c.0).collect();
        assert_eq!(types, [PacketType::OneRtt]);
    }
}

/// RFC 9000 §10.3: a stateless reset begins as a short packet does.
#[test]
fn a_stateless_reset_looks_like_a_short_packet() {
    let mut a = Attack::on_server(Plan::default());
    for n in 0..50u8 {
        let mut stray = vec![0x40 | n & 0x3f];
        stray.extend([n; 100]);
        a.send(&stray);
    }
    assert!(!a.datagrams.is_empty());
    for (_, reset) in &a.datagrams {
        assert_eq!(reset[0] & 0xc0, 0x40);
        assert!(reset.len() >= 21);
    }
}

/// RFC 9000 §10.3: a datagram that ends in the token is a reset though its header be long.
#[test]
fn a_reset_in_the_form_of_a_long_header_counts() {
    for known in [true, false] {
        let mut a = Attack::on_client(Plan::default());
        a.start_server(|p| p.stateless_reset_token = Some([7; 16]));
        a.handshake();
        a.one_rtt(&[0x1e]);
        let to = if known { scid_of(&a) } else { cid(0xaa) };
        let mut reset = payload(|w| {
            w.u8(0xe5);
            w.u32(0x1a2a_3a4a);
            w.u8(8);
            w.bytes(to.as_slice());
            w.u8(0);
            w.bytes(&[0x33; 40]);
        });
        let mut almost = reset.clone();
        almost.extend([8; 16]);
        a.send(&almost);
        assert_eq!(a.closed(), None);
        reset.extend([7; 16]);
        a.send(&reset);
        assert_eq!(a.closed(), Some(ConnectionError::Reset), "known {known}");
    }
}

/// RFC 9000 §12.2: what is coalesced has one destination.
#[test]
fn coalesced_packets_have_one_destination() {
    let log: Rc<RefCell<Vec<Vec<u8>>>> = Rc::default();
    let writer = log.clone();
    let mut pair = Pair::new(Setup::default());
    pair.filter = Box::new(move |p: Passing| {
        writer.borrow_mut().push(p.bytes.clone());
        vec![p]
    });
    pair.connected();
    let mut coalesced = 0;
    for d in log.borrow().iter() {
        let headers = long_headers(d);
        coalesced += usize::from(headers.len() > 1);
        assert!(headers.windows(2).all(|w| w[0].1 == w[1].1), "{headers:?}");
    }
    assert!(coalesced > 0);
}

/// RFC 9000 §12.2, §13.2.6: packets of one datagram are acknowledged each, in their own space.
#[test]
fn coalesced_packets_are_acknowledged_each() {
    let mut a = Attack::on_client(Plan::default());
    a.start_server(|_| {});
    let hello = a.peer.spaces[0].crypto_out.clone();
    a.peer.spaces[0].crypto_sent = hello.len();
    a.peer.spaces[0].next_pn = 5;
    a.peer.spaces[1].next_pn = 9;
    let mut datagram = a.peer.packet(PacketType::Initial, &crypto_frame(0, &hello));
    datagram.extend(a.peer.packet(PacketType::Handshake, &[1; 30]));
    a.inbox.clear();
    a.send(&datagram);
    a.run(SECOND);
    let acked = |ty: PacketType, pn: u64| {
        let of_type = a.inbox.iter().filter(|p| p.ty == ty);
        let frames: Vec<Frame<'_>> = of_type.flat_map(|p| p.frames()).collect();
        frames
            .iter()
            .any(|f| matches!(f, Frame::Ack(ack) if ack.largest == pn))
    };
    assert!(acked(PacketType::Handshake, 9));
    assert!(acked(PacketType::Initial, 5));
    assert!(!acked(PacketType::Handshake, 5) && !acked(PacketType::Initial, 9));
}

/// RFC 9000 §12.2: a packet that cannot be read does not hide those behind it.
#[test]
fn what_follows_an_unreadable_packet_is_read() {
    let mut a = Attack::on_client(Plan::default());
    a.start_server(|_| {});
    let mut bent = a.peer.packet(PacketType::Initial, &[1; 30]);
    *bent.last_mut().expect("bytes") ^= 1;
    let hello = server_hello(&mut a);
    bent.extend(hello);
    a.send(&bent);
    let stats = a.connection().stats();
    assert_eq!(
        (stats.packets_undecryptable, stats.packets_received),
        (1, 1)
    );
}

/// RFC 9000 §13.4.2.1: an acknowledgement that does not raise the largest says nothing about ECN:
/// those that come behind newer ones have smaller counts, and marking goes on.
#[test]
fn an_old_acknowledgement_does_not_fail_ecn() {
    let mut setup = Setup::default();
    setup.client.max_udp_payload_size = 1300; // many packets, many acknowledgements
    let mut pair = Pair::new(setup);
    let marks: Rc<RefCell<Vec<Ecn>>> = Rc::default();
    let (log, mut held) = (marks.clone(), None);
    pair.filter = Box::new(move |p| {
        if p.from == SERVER {
            log.borrow_mut().push(p.ecn);
            return vec![p];
        }
        // Of the client's datagrams every two change places.
        match held.take() {
            None if p.now.as_nanos() > 1_500_000_000 => {
                held = Some(p);
                vec![]
            }
            late => std::iter::once(p).chain(late).collect(),
        }
    });
    let (_, server) = pair.connected();
    let streams = pair.conn(SERVER, server).streams_mut();
    let id = streams.open(Dir::Uni).expect("a stream");
    streams.write(id, &vec![1; 2_000_000]).expect("room");
    pair.run(20 * SECOND);
    assert_eq!(pair.closed(SERVER), None);
    let stats = pair.conn(SERVER, server).stats();
    assert!(stats.packets_sent > 200, "{stats:?}");
    let marks = marks.borrow();
    let tail = &marks[marks.len() / 2..];
    assert!(tail.contains(&Ecn::Ect0), "{tail:?}");
}

/// RFC 9000 §17.2.5.1: a Retry whose source is the destination that the client chose.
#[test]
fn a_retry_that_changes_nothing_is_dropped() {
    let mut a = Attack::on_client(Plan::default());
    let first = a.inbox[0].clone();
    let datagrams = a.datagrams.len();
    a.send(&retry(&first, first.dcid, b"a token"));
    assert_eq!(a.datagrams.len(), datagrams);
    let before = a.connection().stats().packets_dropped;
    a.send(&retry(&first, first.dcid, b"a token"));
    assert_eq!(a.connection().stats().packets_dropped, before + 1);
}

/// RFC 9000 §17.2.5.1: a datagram of several Initial packets is answered with one Retry.
#[test]
fn one_datagram_gets_one_retry() {
    let mut a = Attack::on_server(Plan::default());
    a.app.decision = Some(Decision::Retry);
    let hello = a.peer.spaces[0].crypto_out.clone();
    let mut datagram = a.peer.packet(PacketType::Initial, &crypto_frame(0, &hello));
    for _ in 0..3 {
        datagram.extend(a.peer.padded_initial(&[1], 1200));
    }
    a.send(&datagram);
    assert_eq!(a.peer.retries.len(), 1);
}

/// RFC 9000 §17.2.5.2, §17.2.5.3: after a Retry the client keeps its source connection ID and its
/// ClientHello.
#[test]
fn a_retry_changes_neither_source_nor_hello() {
    let hello = |p: &Packet| {
        let mut out = Vec::new();
        for f in p.frames() {
            if let Frame::Crypto { offset, data } = f {
                out.push((offset, data.to_vec()));
            }
        }
        out
    };
    let mut a = Attack::on_client(Plan::default());
    let first = a.inbox[0].clone();
    a.peer.set_initial_keys(cid(5));
    a.inbox.clear();
    a.send(&retry(&first, cid(5), b"a token"));
    let again = a.inbox.first().expect("a second Initial");
    assert_eq!(again.scid, first.scid);
    assert_eq!(hello(again), hello(&first));
}

/// RFC 9000 §17.4: the spin bit keeps its first value, and what comes in it is ignored.
#[test]
fn the_spin_bit_is_not_used() {
    const SPIN: u8 = 0x20;
    let mut a = Attack::server();
    for n in 0..20 {
        let pn = 100 + n;
        let p = a
            .peer
            .packet_at(PacketType::OneRtt, pn, &[1], |b| *b |= SPIN);
        a.peer.spaces[2].next_pn = pn + 1;
        a.send(&p);
    }
    let short = a.datagrams.iter().filter(|d| d.1[0] & 0x80 == 0);
    assert!(short.clone().count() > 5);
    let first = a.datagrams[0].1[0] & SPIN;
    assert!(short.clone().all(|d| d.1[0] & SPIN == first));
    a.expect_alive();
}

/// RFC 9000 §19.7: NEW_TOKEN without a token.
#[test]
fn an_empty_token_is_a_frame_encoding_error() {
    let mut a = Attack::client();
    a.one_rtt(&[0x07, 0x00]);
    a.expect_error(Code::FRAME_ENCODING_ERROR, "an empty token");
}

/// RFC 9000 §19.20, RFC 9001 §4.1.2: HANDSHAKE_DONE comes with the handshake's end and not before.
#[test]
fn handshake_done_comes_with_completion() {
    let mut a = Attack::on_server(Plan::default());
    let done = |a: &Attack| {
        a.inbox
            .iter()
            .any(|p| p.has(|f| matches!(f, Frame::HandshakeDone)))
    };
    for _ in 0..6 {
        let complete = a.events.contains(&Event::Connected);
        assert_eq!(done(&a), complete);
        for d in a.peer.flight() {
            a.send(&d);
        }
    }
    assert!(done(&a));
}

/// RFC 9001 §4, §4.1.3, §4.9: handshake bytes are repeated at the level that they belong to, and
/// new ones go at the highest.
#[test]
fn crypto_data_is_repeated_at_its_own_level() {
    let mut a = Attack::on_server(Plan::default());
    let hello = a.peer.flight().remove(0);
    a.send(&hello);
    let levels = |a: &Attack| {
        let mut out: [Vec<u64>; 3] = Default::default();
        for p in &a.inbox {
            for f in p.frames() {
                if let Frame::Crypto { offset, .. } = f {
                    out[index(p.ty)].push(offset);
                }
            }
        }
        out
    };
    let first = levels(&a);
    assert!(first[0] == [0] && first[1].contains(&0) && first[2].is_empty());
    a.inbox.clear();
    // The client proves its address and acknowledges nothing: everything comes again.
    let ping = a.peer.packet(PacketType::Handshake, &[1]);
    for _ in 0..3 {
        let initial = a.peer.padded_initial(&[1], 1200);
        a.send(&initial);
        a.run(SECOND);
    }
    a.send(&ping);
    a.run(SECOND);
    let again = levels(&a);
    assert!(again[0].contains(&0) && again[1].contains(&0), "{again:?}");
    assert!(again[2].is_empty());
}

/// RFC 9001 §4.6.2, §5.6, §8.3: 0-RTT packets are dropped where early data is not taken, with
/// whatever they hold, and by clients always.
#[test]
fn early_data_is_dropped() {
    let zero_rtt = |a: &Attack| {
        let mut out = payload(|w| {
            let (to, from) = (a.peer.dcid, a.peer.scid);
            let o = header::write_long(w, LongType::ZeroRtt, VERSION_1, &to, &from, &[], 4);
            w.bytes(&crypto_frame(0, &[7; 300]));
            let end = w.position();
            o.patch_length(w, end);
        });
        out.resize(1200, 0);
        out
    };
    let mut a = Attack::on_server(Plan::default());
    let hello = a.peer.flight().remove(0);
    a.send(&hello);
    let early = zero_rtt(&a);
    a.send(&early);
    a.handshake();
    let late = zero_rtt(&a);
    a.send(&late);
    a.expect_alive();
    let mut a = Attack::client();
    let early = zero_rtt(&a);
    let received = a.connection().stats().packets_received;
    a.send(&early);
    assert_eq!(a.connection().stats().packets_received, received);
    a.expect_alive();
}

/// RFC 9001 §4.9.1, RFC 9002 §6.2.2, §6.4: a client's Initial keys go with its first Handshake
/// packet, a server's with the first that it reads; nothing of them stays in flight.
#[test]
fn initial_keys_go_with_the_first_handshake_packet() {
    let mut a = Attack::on_client(Plan::default());
    a.start_server(|_| {});
    let hello = server_hello(&mut a);
    a.send(&hello);
    a.run(SECOND);
    let at = a.inbox.iter().position(|p| p.ty == PacketType::Handshake);
    let at = at.expect("a Handshake packet");
    let after = &a.inbox[at + 1..];
    assert!(after.iter().all(|p| p.ty != PacketType::Initial));
    let close = a.peer.padded_initial(&[0x1c, 0, 0, 0], 1200);
    a.send(&close);
    assert_eq!(a.closed(), None, "the client has no Initial keys");

    let mut a = Attack::on_server(Plan::default());
    let hello = a.peer.flight().remove(0);
    a.send(&hello);
    assert!(a.connection().path_stats().bytes_in_flight > 0);
    let done = a.peer.packet(PacketType::Handshake, &[1]);
    a.send(&done);
    a.inbox.clear();
    let ping = a.peer.padded_initial(&[1], 1200);
    a.send(&ping);
    a.run(SECOND);
    assert!(a.inbox.iter().all(|p| p.ty != PacketType::Initial));
    a.handshake();
    a.run_acking(SECOND, 10 * MS);
    assert_eq!(a.connection().path_stats().bytes_in_flight, 0);
}

/// RFC 9001 §5.7: a client with 1-RTT keys reads nothing under them before TLS is done.
#[test]
fn a_client_reads_no_1_rtt_packet_before_it_is_done() {
    let mut a = Attack::on_client(Plan::default());
    a.start_server(|_| {});
    // The server has its keys once it has spoken; the client has not read its Finished yet.
    let data = stream_frame(3, 0, b"early", false);
    let early = a.peer.packet(PacketType::OneRtt, &data);
    let hello = server_hello(&mut a);
    a.send(&hello);
    a.send(&early);
    assert!(a.app.received.is_empty());
    assert_eq!(a.closed(), None);
    a.handshake();
    assert_eq!(a.app.received.len(), 1, "kept until then");
}

/// RFC 9001 §8.4: no compatibility mode: the legacy session ID is empty.
#[test]
fn a_client_hello_has_no_legacy_session() {
    let a = Attack::on_client(Plan::default());
    let frames = a.inbox[0].frames();
    let hello = frames.iter().find_map(|f| match f {
        Frame::Crypto { offset: 0, data } => Some(*data),
        _ => None,
    });
    // Type and length 4, version 2, random 32, then the length of the session ID.
    assert_eq!(hello.map(|h| (h[0], h[38])), Some((1, 0)));
}

/// RFC 9002 §5.1: an acknowledgement of packets that ask for none is no sample of the round trip.
#[test]
fn an_ack_of_acks_alone_is_no_sample() {
    let mut a = Attack::server();
    a.run_acking(SECOND, 10 * MS);
    // The endpoint only acknowledges; what it sends asks for nothing.
    a.inbox.clear();
    a.one_rtt(&[1]);
    a.one_rtt(&[1]);
    let bare = a.inbox.last().expect("an acknowledgement").clone();
    assert!(!bare.is_ack_eliciting());
    let before = a.connection().path_stats();
    a.run(5 * SECOND);
    a.one_rtt(&ack_frame(&[bare.pn..=bare.pn]));
    let after = a.connection().path_stats();
    assert_eq!(before.smoothed_rtt, after.smoothed_rtt);
    assert_eq!(before.min_rtt, after.min_rtt);
}

/// RFC 9000 §9.3.2: where no address was ever valid there is none to return to: the connection ends
/// without a word.
#[test]
fn an_address_that_never_was_valid_is_nothing_to_return_to() {
    let mut a = Attack::on_server(Plan::default());
    let hello = a.peer.flight().remove(0);
    a.send(&hello);
    // Everything else comes from elsewhere, so that the first address is never proven.
    for _ in 0..4 {
        for d in a.peer.flight() {
            a.send_from(elsewhere(), &d);
        }
        let ping = a
            .peer
            .one_rtt
            .is_some()
            .then(|| a.peer.packet(PacketType::OneRtt, &[1; 300]));
        if let Some(ping) = ping {
            a.send_from(elsewhere(), &ping);
        }
    }
    assert!(a.events.contains(&Event::Connected));
    assert_eq!(a.connection().path().remote, elsewhere());
    a.run(60 * SECOND);
    assert_eq!(a.closed(), Some(ConnectionError::TimedOut));
    assert!(a.closes().is_empty() && a.endpoint.is_empty());
}

/// RFC 9000 §19.7, §19.20: a client never sends what is a server's to send.
#[test]
fn a_client_sends_no_frame_of_the_servers() {
    let mut a = Attack::client();
    for n in 0..50 {
        let id = a.connection().streams_mut().open(Dir::Uni).expect("open");
        let streams = a.connection().streams_mut();
        streams.write(id, &[n; 2000]).expect("room");
        streams.finish(id).expect("open");
        a.run_acking(100 * MS, 10 * MS);
    }
    assert!(a.inbox.len() > 50);
    let servers = |f: &Frame<'_>| matches!(f, Frame::NewToken(_) | Frame::HandshakeDone);
    assert!(a.inbox.iter().all(|p| !p.has(servers)));
}
