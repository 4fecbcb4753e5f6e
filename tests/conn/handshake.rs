//! The handshake under every fault that a network has, and what a server may decide about it.

use crate::common::attack::{Attack, Plan};
use crate::common::pair::{CLIENT, Pair, Passing, SERVER, Setup};
use crate::common::raw_peer::{ack_frame, crypto_frame, payload};
use corelane::base::Rng;
use corelane::conn::incoming::Decision;
use corelane::conn::{ConnectionError, Event};
use corelane::wire::frame::{self, Frame};
use corelane::wire::header::{self, VERSION_1};
use corelane::wire::{Code, ConnectionId, Dir, PacketType, Side, TransportParameters, Writer};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Connects, sends a little each way, and expects all of it to arrive.
#[track_caller]
fn completes(pair: &mut Pair, what: &str) {
    let client = pair.connect();
    for _ in 0..110 {
        pair.run(SECOND / 2);
        if pair.saw(CLIENT, &Event::HandshakeConfirmed) && pair.saw(SERVER, &Event::Connected) {
            break;
        }
    }
    assert!(
        pair.saw(CLIENT, &Event::Connected) && pair.saw(CLIENT, &Event::HandshakeConfirmed),
        "{what}: {:?} {:?}",
        pair.sides[CLIENT].events,
        pair.sides[SERVER].events
    );
    assert!(pair.saw(SERVER, &Event::Connected), "{what}");
    assert_eq!(
        (pair.closed(CLIENT), pair.closed(SERVER)),
        (None, None),
        "{what}"
    );
    let streams = pair.conn(CLIENT, client).streams_mut();
    let id = streams.open(Dir::Uni).expect("a stream");
    streams.write(id, b"hello").expect("room");
    streams.finish(id).expect("open");
    // Long enough for several probes whose timeout a lossy handshake has stretched.
    pair.run(20 * SECOND);
    let got: Vec<&Vec<u8>> = pair.sides[SERVER].app.received.values().collect();
    assert_eq!(got, [b"hello"], "{what}");
}

/// Both sides wait long for a handshake to finish.
fn patient(seed: u64) -> Pair {
    let mut setup = Setup {
        seed,
        ..Setup::default()
    };
    setup.client.handshake_deadline = 60 * SECOND;
    setup.server.handshake_deadline = 60 * SECOND;
    setup.client.max_idle_timeout = 120 * SECOND;
    setup.server.max_idle_timeout = 120 * SECOND;
    Pair::new(setup)
}

/// A filter that counts the datagrams of both sides and shows each to `f`.
fn nth(
    mut f: impl FnMut(usize, Passing) -> Vec<Passing> + 'static,
) -> Box<dyn FnMut(Passing) -> Vec<Passing>> {
    let mut n = 0;
    Box::new(move |p| {
        n += 1;
        f(n - 1, p)
    })
}

fn copy(p: &Passing) -> Passing {
    Passing {
        from: p.from,
        source: p.source,
        to: p.to,
        ecn: p.ecn,
        bytes: p.bytes.clone(),
        now: p.now,
    }
}

/// RFC 9002 §6.2: any one datagram of a handshake may be lost.
#[test]
fn the_loss_of_any_one_datagram_is_repaired() {
    for k in 0..14 {
        let mut pair = Pair::new(Setup::default());
        pair.filter = nth(move |n, p| if n == k { vec![] } else { vec![p] });
        completes(&mut pair, &format!("datagram {k} lost"));
    }
}

#[test]
fn the_loss_of_any_two_datagrams_is_repaired() {
    for j in 0..9 {
        for k in j + 1..10 {
            let mut pair = Pair::new(Setup::default());
            pair.filter = nth(move |n, p| if n == k || n == j { vec![] } else { vec![p] });
            completes(&mut pair, &format!("datagrams {j} and {k} lost"));
        }
    }
}

/// RFC 9000 §12.3: duplicates change nothing.
#[test]
fn every_datagram_twice_is_a_handshake_once() {
    let mut pair = Pair::new(Setup::default());
    pair.filter = Box::new(|p| vec![copy(&p), copy(&p), p]);
    completes(&mut pair, "everything three times");
    assert_eq!(pair.sides[SERVER].endpoint.stats().accepted, 1);
}

#[test]
fn a_handshake_whose_datagrams_change_places_completes() {
    for k in 0..12 {
        let held: Rc<RefCell<Option<Passing>>> = Rc::default();
        let mut pair = Pair::new(Setup::default());
        pair.filter = nth(move |n, p| {
            if n == k {
                *held.borrow_mut() = Some(p);
                return vec![];
            }
            let late = held.borrow_mut().take();
            std::iter::once(p).chain(late).collect()
        });
        completes(&mut pair, &format!("datagram {k} late"));
    }
}

#[test]
fn handshakes_complete_under_random_loss_duplication_and_corruption() {
    for seed in 0..200 {
        let mut rng = Rng::from_u64(seed);
        let mut pair = patient(seed);
        let mut left = 30;
        pair.filter = Box::new(move |mut p| {
            if left == 0 {
                return vec![p];
            }
            left -= 1;
            match rng.below(10) {
                0 | 1 => vec![],
                2 => vec![copy(&p), p],
                3 => {
                    let at = rng.below(p.bytes.len() as u64) as usize;
                    p.bytes[at] ^= 1 << rng.below(8);
                    vec![p]
                }
                4 => {
                    let at = rng.below(p.bytes.len() as u64) as usize;
                    p.bytes.truncate(at);
                    vec![p]
                }
                _ => vec![p],
            }
        });
        completes(&mut pair, &format!("seed {seed}"));
    }
}

/// RFC 9000 §21.2, CVE-2026-26080 class: truncation at every byte is survived.
#[test]
fn every_handshake_datagram_cut_at_every_byte_is_survived() {
    for k in 0..5 {
        // A copy cut short comes before each whole one, for as long as there is something to cut.
        for cut in (0..1200).step_by(7) {
            let mut pair = Pair::new(Setup::default());
            pair.filter = nth(move |n, p| {
                let mut short = copy(&p);
                short.bytes.truncate(cut);
                if n == k { vec![short, p] } else { vec![p] }
            });
            pair.connect();
            pair.run(SECOND);
            assert!(
                pair.saw(CLIENT, &Event::HandshakeConfirmed),
                "{k} cut at {cut}"
            );
        }
    }
}

/// RFC 9000 §21.2: a flipped bit anywhere in any handshake datagram costs that packet at most.
#[test]
fn a_bit_flipped_anywhere_in_the_handshake_is_survived() {
    let recorded = {
        let log: Rc<RefCell<Vec<usize>>> = Rc::default();
        let mut pair = Pair::new(Setup::default());
        let writer = log.clone();
        pair.filter = Box::new(move |p| {
            writer.borrow_mut().push(p.bytes.len());
            vec![p]
        });
        pair.connected();
        let sizes = log.borrow();
        sizes.iter().take(5).copied().collect::<Vec<usize>>()
    };
    for (k, size) in recorded.into_iter().enumerate() {
        for at in (0..size).filter(|at| *at < 80 || at % 16 == 0) {
            for with_original in [true, false] {
                let mut pair = Pair::new(Setup::default());
                pair.filter = nth(move |n, mut p| {
                    if n != k || p.bytes.len() <= at {
                        return vec![p];
                    }
                    let whole = copy(&p);
                    p.bytes[at] ^= 1 << (at % 8);
                    if with_original {
                        vec![p, whole]
                    } else {
                        vec![p]
                    }
                });
                pair.connect();
                pair.run(4 * SECOND);
                assert!(
                    pair.saw(CLIENT, &Event::HandshakeConfirmed),
                    "datagram {k}, byte {at}, original {with_original}: {:?} {:?}",
                    pair.sides[CLIENT].events,
                    pair.sides[SERVER].events,
                );
            }
        }
    }
}

/// RFC 9000 §8.1.2, §17.2.5.
#[test]
fn a_retry_proves_the_address_and_the_handshake_goes_on() {
    let mut pair = Pair::new(Setup::default());
    pair.sides[SERVER].app.decision = Some(Decision::Retry);
    let client = pair.connect();
    pair.run(Duration::from_millis(25));
    assert_eq!(pair.sides[SERVER].endpoint.stats().retries, 1);
    assert_eq!(
        pair.sides[SERVER].endpoint.len(),
        0,
        "a Retry keeps no state"
    );
    pair.sides[SERVER].app.decision = Some(Decision::Accept);
    pair.run(SECOND);
    assert!(pair.saw(CLIENT, &Event::HandshakeConfirmed));
    assert_eq!(pair.sides[SERVER].app.incoming, [false, true]);
    assert!(!pair.conn(CLIENT, client).is_handshaking());
}

/// Every datagram of a handshake with Retry may be lost, the first Initial after it included.
#[test]
fn a_handshake_with_retry_survives_the_loss_of_any_datagram() {
    for k in 0..12 {
        let mut pair = Pair::new(Setup::default());
        pair.filter = nth(move |n, p| if n == k { vec![] } else { vec![p] });
        pair.sides[SERVER].app.prove = true;
        completes(&mut pair, &format!("datagram {k} lost"));
        assert!(
            pair.sides[SERVER].app.incoming.contains(&true),
            "the token was used"
        );
    }
}

/// RFC 9000 §17.2.5.2: a second Retry, and one after an Initial, are ignored; packet numbers go on.
#[test]
fn a_client_takes_one_retry_and_no_more() {
    let mut a = Attack::on_client(Plan::default());
    let first = a.inbox[0].clone();
    let retry = |scid: u8, odcid: &ConnectionId| {
        let mut bytes = payload(|w| {
            let scid = ConnectionId::new(&[scid; 8]).expect("8 bytes");
            header::write_retry(w, VERSION_1, &first.scid, &scid, b"a token");
        });
        let tag = corelane::crypto::retry::integrity_tag(
            corelane::wire::Version::V1,
            odcid.as_slice(),
            &bytes,
        );
        bytes.extend(tag.expect("a tag"));
        bytes
    };
    // A forged tag first.
    let mut forged = retry(5, &first.dcid);
    *forged.last_mut().expect("a tag") ^= 1;
    a.inbox.clear();
    a.send(&forged);
    assert!(a.inbox.is_empty() && a.datagrams.len() == 1);
    let scid = ConnectionId::new(&[5; 8]).expect("8 bytes");
    a.peer.set_initial_keys(scid);
    a.send(&retry(5, &first.dcid));
    let again = a.inbox.last().expect("a second Initial").clone();
    assert_eq!(
        (again.token.as_slice(), again.dcid),
        (&b"a token"[..], scid)
    );
    assert!(again.pn > first.pn, "packet numbers are not reset");
    assert!(again.datagram >= 1200);
    a.inbox.clear();
    a.send(&retry(6, &scid));
    a.send(&retry(6, &first.dcid));
    assert!(
        a.inbox.is_empty() && a.peer.undecryptable.is_empty(),
        "one Retry at most"
    );
}

/// RFC 9000 §7.3: a server that hides a Retry, or invents one.
#[test]
fn a_client_checks_the_connection_ids_that_the_parameters_name() {
    type Change = fn(&mut TransportParameters);
    let other = || ConnectionId::new(&[7; 8]);
    let cases: [(&str, Change); 4] = [
        ("retry", |p| {
            p.retry_source_connection_id = ConnectionId::new(&[7; 8])
        }),
        ("original", |p| {
            p.original_destination_connection_id = ConnectionId::new(&[7; 8])
        }),
        ("initial", |p| {
            p.initial_source_connection_id = ConnectionId::new(&[7; 8])
        }),
        ("no initial", |p| p.initial_source_connection_id = None),
    ];
    assert!(other().is_some());
    for (what, change) in cases {
        let mut a = Attack::on_client(Plan::default());
        a.start_server(change);
        for _ in 0..3 {
            for d in a.peer.flight() {
                a.send(&d);
            }
        }
        a.expect_error(Code::TRANSPORT_PARAMETER_ERROR, what);
    }
}

/// RFC 9000 §7.4, §18.2: transport parameters out of range, doubled, cut short, or a server's own.
#[test]
fn a_server_refuses_bad_transport_parameters() {
    let scid = ConnectionId::new(&[3; 8]).expect("8 bytes");
    let valid = || {
        payload(|w| {
            w.varint(0x0f);
            w.varint(8);
            w.bytes(scid.as_slice());
        })
    };
    let with = |extra: &dyn Fn(&mut Writer<'_>)| {
        let mut out = valid();
        out.extend(payload(|w| extra(w)));
        out
    };
    let number = |id: u64, value: u64| {
        with(&|w| {
            w.varint(id);
            w.varint(corelane::wire::varint::size(value) as u64);
            w.varint(value);
        })
    };
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("max_udp_payload_size", number(0x03, 1199)),
        ("ack_delay_exponent", number(0x0a, 21)),
        ("max_ack_delay", number(0x0b, 1 << 14)),
        ("active_connection_id_limit", number(0x0e, 1)),
        ("max_streams_bidi", number(0x08, (1 << 60) + 1)),
        ("a duplicate", [valid(), valid()].concat()),
        ("no initial_source_connection_id", Vec::new()),
        ("cut short", valid()[..5].to_vec()),
        (
            "a length beyond the end",
            with(&|w| w.bytes(&[0x04, 0x3f, 1])),
        ),
        (
            "a varint longer than its parameter",
            with(&|w| w.bytes(&[0x04, 1, 0x40])),
        ),
        (
            "a server's token",
            with(&|w| {
                w.varint(2);
                w.varint(16);
                w.zeros(16);
            }),
        ),
        (
            "a server's original id",
            with(&|w| {
                w.varint(0);
                w.varint(8);
                w.zeros(8);
            }),
        ),
    ];
    for (what, encoded) in bad {
        let mut a = Attack::on_server(Plan::default());
        let dcid = ConnectionId::new(&[4; 8]).expect("8 bytes");
        a.new_client_with(scid, dcid, encoded);
        for d in a.peer.flight() {
            a.send(&d);
        }
        assert_eq!(a.blamed(), Some(Code::TRANSPORT_PARAMETER_ERROR), "{what}");
        assert!(
            a.closes()
                .iter()
                .any(|c| c.1 == Code::TRANSPORT_PARAMETER_ERROR),
            "{what}"
        );
    }
}

/// RFC 9000 §6.1: an unknown version is answered, if the datagram is large enough, and only then.
#[test]
fn a_server_answers_versions_that_it_does_not_speak() {
    let mut a = Attack::on_server(Plan::default());
    let probe = |dcid: usize, scid: usize, size: usize| {
        let mut bytes = payload(|w| {
            w.u8(0xc0);
            w.u32(0x1a2a_3a4a);
            w.u8(dcid as u8);
            w.bytes(&vec![1; dcid]);
            w.u8(scid as u8);
            w.bytes(&vec![2; scid]);
        });
        bytes.resize(size.max(bytes.len()), 0);
        bytes
    };
    a.send(&probe(8, 8, 1199));
    assert!(a.datagrams.is_empty(), "too small to be answered");
    for (dcid, scid) in [(8, 8), (0, 0), (20, 3), (21, 255), (255, 255)] {
        a.datagrams.clear();
        a.send(&probe(dcid, scid, 1200));
        let [(_, answer)] = a.datagrams.as_slice() else {
            panic!("one answer to {dcid} {scid}: {:?}", a.datagrams);
        };
        assert!(answer.len() < 1200);
        match header::Header::parse(answer, 8) {
            Ok(header::Header::VersionNegotiation {
                dcid: d,
                scid: s,
                versions,
            }) => {
                assert_eq!((d, s), (&vec![2; scid][..], &vec![1; dcid][..]));
                assert!(versions.contains(VERSION_1));
            }
            other => panic!("{other:?}"),
        }
    }
    // RFC 9000 §6.1: never in answer to a Version Negotiation packet.
    a.datagrams.clear();
    let mut vn = payload(|w| header::write_version_negotiation(w, 0, &[1; 8], &[2; 8], &[5]));
    vn.resize(1200, 0);
    a.send(&vn);
    assert!(a.datagrams.is_empty());
    assert_eq!(a.endpoint.len(), 0);
}

fn version_negotiation(a: &Attack, versions: &[u32]) -> Vec<u8> {
    let first = &a.inbox[0];
    payload(|w| {
        header::write_version_negotiation(
            w,
            0,
            first.scid.as_slice(),
            first.dcid.as_slice(),
            versions,
        );
    })
}

/// RFC 9000 §6.2.
#[test]
fn a_client_heeds_version_negotiation_only_where_it_must() {
    let mut a = Attack::on_client(Plan::default());
    a.send(&version_negotiation(&a, &[0x1a2a_3a4a, VERSION_1]));
    assert_eq!(a.closed(), None, "it lists the version in use");
    let mut wrong = version_negotiation(&a, &[0x1a2a_3a4a]);
    wrong[6 + 8 + 1] ^= 1;
    a.send(&wrong);
    assert_eq!(a.closed(), None, "it answers nothing of ours");
    a.send(&version_negotiation(&a, &[0x1a2a_3a4a]));
    assert_eq!(a.closed(), Some(ConnectionError::VersionMismatch));
    // After a packet of the server authenticated, no more.
    let mut a = Attack::on_client(Plan::default());
    let vn = version_negotiation(&a, &[0x1a2a_3a4a]);
    a.start_server(|_| {});
    let first = a.peer.flight().remove(0);
    a.send(&first);
    a.send(&vn);
    assert_eq!(a.closed(), None);
}

#[test]
fn a_refused_client_is_told_and_an_ignored_one_is_not() {
    for (decision, why) in [
        (Decision::Refuse, Some(Code::CONNECTION_REFUSED)),
        (Decision::Ignore, None),
    ] {
        let mut pair = Pair::new(Setup::default());
        pair.sides[SERVER].app.decision = Some(decision);
        pair.connect();
        pair.run(2 * SECOND);
        let got = match pair.closed(CLIENT) {
            Some(ConnectionError::ClosedByPeer { code, .. }) => Some(code),
            None => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(got, why);
        assert_eq!(pair.sides[SERVER].endpoint.len(), 0);
        assert!(pair.sent[SERVER] <= 3 * pair.sent[CLIENT]);
        pair.run(20 * SECOND);
        assert!(pair.closed(CLIENT).is_some());
        assert_eq!(
            pair.sides[CLIENT].endpoint.len(),
            0,
            "the client forgets it"
        );
        assert_eq!(pair.sides[CLIENT].endpoint.routes(), 0);
    }
}

/// CVE-2024-45311 class: the same Initial again and again, whatever was decided before.
#[test]
fn a_duplicate_initial_meets_any_decision_in_any_order() {
    let choices = [
        Decision::Accept,
        Decision::Refuse,
        Decision::Retry,
        Decision::Ignore,
        Decision::Hold,
    ];
    for i in 0..125usize {
        let mut a = Attack::on_server(Plan::default());
        let hello = a.peer.flight().remove(0);
        for d in [i % 5, i / 5 % 5, i / 25] {
            a.app.decision = Some(choices[d]);
            a.send(&hello);
            a.send(&hello);
        }
        a.run(30 * SECOND);
        assert_eq!(
            a.endpoint.len(),
            0,
            "{i}: nothing is left of a client that never answered"
        );
        assert!(a.endpoint.routes() <= 1, "a held attempt at most");
        assert!(a.sent_by_endpoint <= 3 * a.sent_to_endpoint);
    }
}

/// CVE-2026-14456 class, §21.6: attempts that never finish are few, and end; half of the room is
/// for clients that have proved their address.
#[test]
fn half_open_connections_are_capped_and_end() {
    let mut a = Attack::on_server(Plan {
        max_half_open: Some(20),
        ..Plan::default()
    });
    for seed in 0..200 {
        a.new_client(1000 + seed);
        let hello = a.peer.flight().remove(0);
        a.send(&hello);
    }
    assert_eq!((a.endpoint.len(), a.endpoint.stats().retries), (10, 190));
    // With their addresses proven they get the rest of the room, and no more.
    for seed in 0..20 {
        a.new_client(5000 + seed);
        let hello = a.peer.flight().remove(0);
        a.send(&hello);
        let Some((scid, token)) = a.peer.retries.pop() else {
            break;
        };
        a.peer.dcid = scid;
        a.peer.set_initial_keys(scid);
        a.peer.token = token;
        a.peer.spaces[0].crypto_sent = 0;
        let hello = a.peer.flight().remove(0);
        a.send(&hello);
    }
    assert_eq!(a.endpoint.len(), 20);
    assert!(a.endpoint.stats().ignored > 0);
    a.run(30 * SECOND);
    assert_eq!((a.endpoint.len(), a.endpoint.routes()), (0, 0));
    a.new_client(5);
    a.events.clear();
    a.handshake();
}

/// A client whose handshake fails stays half open until it is forgotten: bad Initials do not pass
/// the cap.
#[test]
fn failed_handshakes_count_as_half_open_until_they_are_forgotten() {
    let mut a = Attack::on_server(Plan {
        max_half_open: Some(20),
        ..Plan::default()
    });
    for seed in 0..200 {
        a.new_client(1000 + seed);
        let bad = a.peer.padded_initial(&[0x08, 0, 1], 1200);
        a.send(&bad);
    }
    assert!(a.endpoint.len() <= 20, "{} connections", a.endpoint.len());
    a.run(30 * SECOND);
    assert_eq!((a.endpoint.len(), a.endpoint.routes()), (0, 0));
}

#[test]
fn held_attempts_are_capped_and_decided_later() {
    let mut a = Attack::on_server(Plan::default());
    a.app.decision = Some(Decision::Hold);
    for seed in 0..(corelane::base::limits::ACCEPT_BACKLOG as u64 + 100) {
        a.new_client(1000 + seed);
        let hello = a.peer.flight().remove(0);
        a.send(&hello);
    }
    assert_eq!(a.endpoint.len(), 0);
    assert_eq!(a.endpoint.routes(), corelane::base::limits::ACCEPT_BACKLOG);
    assert_eq!(a.endpoint.stats().ignored, 100);
    assert!(a.datagrams.is_empty());
}

/// RFC 9000 §14.1: Initial packets in small datagrams begin nothing and continue nothing.
#[test]
fn a_server_drops_initial_packets_of_small_datagrams() {
    let mut a = Attack::on_server(Plan::default());
    let hello = a.peer.spaces[0].crypto_out.clone();
    let small = a.peer.padded_initial(&crypto_frame(0, &hello), 1199);
    a.send(&small);
    assert_eq!(a.endpoint.len(), 0);
    let whole = a.peer.padded_initial(&crypto_frame(0, &hello), 1200);
    a.send(&whole);
    assert_eq!(a.endpoint.len(), 1);
    a.inbox.clear();
    // A violation inside shows whether it is read.
    let small = a.peer.padded_initial(&[0x08, 0, 1], 1199);
    a.send(&small);
    assert_eq!(a.closed(), None);
    let whole = a.peer.padded_initial(&[0x08, 0, 1], 1200);
    a.send(&whole);
    assert_eq!(a.blamed(), Some(Code::PROTOCOL_VIOLATION));
}

/// RFC 9000 §14.1: both sides pad datagrams with ack-eliciting Initial packets.
#[test]
fn ack_eliciting_initial_packets_come_in_full_datagrams() {
    for k in 0..6 {
        let log: Rc<RefCell<Vec<Vec<u8>>>> = Rc::default();
        let writer = log.clone();
        let mut pair = Pair::new(Setup::default());
        pair.filter = nth(move |n, p| {
            writer.borrow_mut().push(p.bytes.clone());
            if n == k { vec![] } else { vec![p] }
        });
        pair.connect();
        pair.run(5 * SECOND);
        for d in log.borrow().iter().filter(|d| d[0] & 0xf0 == 0xc0) {
            // Only a server's bare acknowledgement may be smaller.
            assert!(
                d.len() >= 1200 || d.len() < 100,
                "an Initial in {} bytes",
                d.len()
            );
        }
    }
}

/// RFC 9000 §7.2: too short a first destination connection ID begins nothing; §17.2: nor one of
/// more than 20 bytes.
#[test]
fn a_first_destination_of_impossible_length_begins_nothing() {
    for len in [0usize, 1, 7, 21, 255] {
        let mut a = Attack::on_server(Plan::default());
        let mut bytes = payload(|w| {
            w.u8(0xc3);
            w.u32(VERSION_1);
            w.u8(len as u8);
            w.bytes(&vec![1; len]);
            w.u8(8);
            w.bytes(&[2; 8]);
            w.varint(0);
            w.varint(600);
        });
        bytes.resize(1300, 7);
        a.send(&bytes);
        assert_eq!((a.endpoint.len(), a.datagrams.len()), (0, 0), "{len}");
    }
}

/// RFC 9000 §17.2.2: a server's Initial carries no token.
#[test]
fn a_client_drops_initial_packets_with_a_token() {
    let mut a = Attack::on_client(Plan::default());
    a.start_server(|_| {});
    a.peer.token = b"what for".to_vec();
    let bad = a.peer.padded_initial(&[0x08, 0, 1], 1200);
    a.send(&bad);
    assert!(matches!(a.blamed(), None | Some(Code::PROTOCOL_VIOLATION)));
    assert_eq!(
        a.closed(),
        None,
        "the frames of a packet with a token are not looked at"
    );
}

/// RFC 9000 §21.2: forged packets after confirmation change nothing.
#[test]
fn forged_packets_after_confirmation_are_ignored() {
    for server in [true, false] {
        let mut a = if server {
            Attack::server()
        } else {
            Attack::client()
        };
        let close = [0x1c, 0x0a, 0, 0];
        let initial = a.peer.padded_initial(&close, 1200);
        a.send(&initial);
        let handshake = a.peer.packet(PacketType::Handshake, &close);
        a.send(&handshake);
        let scid = a.peer.dcid;
        let vn = payload(|w| {
            header::write_version_negotiation(w, 0, scid.as_slice(), a.peer.scid.as_slice(), &[9]);
        });
        a.send(&vn);
        let mut retry = payload(|w| {
            header::write_retry(w, VERSION_1, &scid, &a.peer.scid, b"a token");
        });
        let tag = corelane::crypto::retry::integrity_tag(
            corelane::wire::Version::V1,
            a.peer.scid.as_slice(),
            &retry,
        );
        retry.extend(tag.expect("a tag"));
        a.send(&retry);
        let mut rng = Rng::from_u64(5);
        for first in [0x40u8, 0x43, 0xc0, 0xd0, 0xe0, 0xf0] {
            for size in [20, 21, 40, 100, 1200] {
                let mut junk = vec![0; size];
                rng.fill(&mut junk);
                junk[0] = first;
                junk[1..9].copy_from_slice(scid.as_slice());
                a.send(&junk);
            }
        }
        a.expect_alive();
    }
}

/// RFC 9000 §12.3: a packet twice is one packet.
#[test]
fn replayed_packets_are_ignored() {
    let mut a = Attack::server();
    let p = a.peer.packet(
        PacketType::OneRtt,
        &crate::common::raw_peer::stream_frame(0, 0, b"once", true),
    );
    for _ in 0..100 {
        a.send(&p);
    }
    assert_eq!(a.connection().stats().packets_duplicate, 99);
    assert_eq!(a.app.finished.len(), 1);
    a.expect_alive();
}

/// Sends a thousand 1-RTT packets of `len` bytes before the handshake; the server keeps `kept`.
fn send_before_keys(len: usize, kept: u64) {
    let mut a = Attack::on_server(Plan::default());
    let hello = a.peer.flight().remove(0);
    a.send(&hello);
    let cid = a.peer.dcid;
    let before = a.connection().stats().packets_dropped;
    for n in 0..1000u64 {
        let mut junk = vec![0x55; len];
        junk[0] = 0x40;
        junk[1..9].copy_from_slice(cid.as_slice());
        junk[9..17].copy_from_slice(&n.to_be_bytes());
        a.send(&junk);
    }
    let dropped = a.connection().stats().packets_dropped - before;
    assert_eq!(dropped, 1000 - kept);
    a.handshake();
    assert_eq!(a.connection().stats().packets_undecryptable, kept);
    a.expect_alive();
}

/// RFC 9001 §5.7: packets that come before their keys are kept, but few.
#[test]
fn packets_before_their_keys_are_kept_up_to_a_cap() {
    let cap = corelane::base::limits::UNDECRYPTABLE_PACKETS as u64;
    send_before_keys(1200, cap);
}

/// And no more bytes of them than the cap, however large they are.
#[test]
fn large_packets_before_their_keys_are_kept_up_to_a_cap_of_bytes() {
    let cap = corelane::base::limits::UNDECRYPTABLE_BYTES;
    send_before_keys(cap / 3, 3);
    send_before_keys(cap + 1, 0);
}

/// RFC 9000 §12.2: packets coalesced behind the first go to the same connection or nowhere.
#[test]
fn coalesced_packets_for_another_destination_are_dropped() {
    let mut a = Attack::server();
    let first = a.peer.packet(PacketType::OneRtt, &[1]);
    a.send(&first);
    let mine = a.peer.dcid;
    let mut datagram = Vec::new();
    for n in 0..10u8 {
        let other = ConnectionId::new(&[n; 8]).expect("8 bytes");
        datagram.extend(payload(|w| {
            let o = header::write_long(
                w,
                header::LongType::Handshake,
                VERSION_1,
                if n == 0 { &mine } else { &other },
                &other,
                &[],
                4,
            );
            w.zeros(50);
            o.patch_length(w, w.position());
        }));
    }
    for _ in 0..10_000 {
        a.send(&datagram);
    }
    assert_eq!(
        (a.endpoint.len(), a.endpoint.routes()),
        (1, a.endpoint.routes())
    );
    a.expect_alive();
    // A short packet behind a long one, addressed to nobody.
    let mut mixed = datagram[..datagram.len() / 10].to_vec();
    a.peer.dcid = ConnectionId::new(&[0xee; 8]).expect("8 bytes");
    let foreign = a.peer.packet(PacketType::OneRtt, &[0x1e]);
    a.peer.dcid = mine;
    mixed.extend(foreign);
    a.send(&mixed);
    a.expect_alive();
}

/// RFC 9001 §4.1.3, CVE-2025-61730 class: handshake bytes at another level than TLS is at.
#[test]
fn crypto_data_at_the_wrong_level_is_refused() {
    // More Initial CRYPTO after the server has moved on to Handshake keys.
    let mut a = Attack::on_server(Plan::default());
    let hello = a.peer.flight().remove(0);
    a.send(&hello);
    let n = a.peer.spaces[0].crypto_out.len() as u64;
    let extra = a
        .peer
        .padded_initial(&crypto_frame(n, b"\x01\x00\x00\x04more"), 1200);
    a.send(&extra);
    a.expect_error(Code::PROTOCOL_VIOLATION, "Initial CRYPTO after ClientHello");
    // In one frame with the ClientHello.
    let mut a = Attack::on_server(Plan::default());
    let mut hello = a.peer.spaces[0].crypto_out.clone();
    hello.extend_from_slice(b"\x14\x00\x00\x20");
    hello.extend([0; 32]);
    let both = a.peer.padded_initial(&crypto_frame(0, &hello), 1200);
    a.send(&both);
    assert!(
        a.blamed().is_some(),
        "Finished behind ClientHello in Initial: {:?}",
        a.events
    );
}

/// RFC 9000 §7.5: CRYPTO data beyond what is buffered.
#[test]
fn crypto_data_beyond_the_window_is_crypto_buffer_exceeded() {
    let window = corelane::base::limits::CRYPTO_WINDOW;
    for (offset, code) in [
        (window - 1, None),
        (window, Some(Code::CRYPTO_BUFFER_EXCEEDED)),
        (1 << 40, Some(Code::CRYPTO_BUFFER_EXCEEDED)),
    ] {
        let mut a = Attack::on_server(Plan::default());
        let p = a.peer.padded_initial(&crypto_frame(offset, b"x"), 1200);
        a.send(&p);
        assert_eq!(a.blamed(), code, "{offset}");
    }
}

/// RFC 9000 §19.6, CVE class of split ClientHello: one byte a frame, backwards.
#[test]
fn a_client_hello_in_single_bytes_backwards_is_assembled() {
    let mut a = Attack::on_server(Plan::default());
    let hello = a.peer.spaces[0].crypto_out.clone();
    a.peer.spaces[0].crypto_sent = hello.len();
    let mut frames = Vec::new();
    for (at, byte) in hello.iter().enumerate().rev() {
        frames.extend(crypto_frame(at as u64, &[*byte]));
        if frames.len() > 1000 || at == 0 {
            let d = a.peer.padded_initial(&frames, 1200);
            a.send(&d);
            frames.clear();
        }
    }
    a.handshake();
    a.expect_alive();
}

/// A garbage ClientHello is a CRYPTO_ERROR (RFC 9001 §4.8), not a panic.
#[test]
fn garbage_in_place_of_a_client_hello_is_a_crypto_error() {
    for seed in 0..300 {
        let mut rng = Rng::from_u64(seed);
        let mut a = Attack::on_server(Plan::default());
        let mut hello = a.peer.spaces[0].crypto_out.clone();
        for _ in 0..=rng.below(4) {
            let at = rng.below(hello.len() as u64) as usize;
            hello[at] = rng.next_u64() as u8;
        }
        if seed % 3 == 0 {
            rng.fill(&mut hello);
        }
        let d = a.peer.padded_initial(&crypto_frame(0, &hello), 1200);
        a.send(&d);
        if let Some(code) = a.blamed() {
            assert!(
                code.alert().is_some() || code == Code::TRANSPORT_PARAMETER_ERROR,
                "seed {seed}: {code:?}"
            );
        }
    }
}

/// RFC 9000 §8.1: bytes sent to an unproven address never pass three times those received.
#[test]
fn amplification_is_three_times_at_every_moment() {
    for answer in [false, true] {
        let mut a = Attack::on_server(Plan::default());
        let hello = a.peer.flight().remove(0);
        a.send(&hello);
        assert!(a.sent_by_endpoint > 0);
        for n in 0..200 {
            a.run(Duration::from_millis(50));
            assert!(
                a.sent_by_endpoint <= 3 * a.sent_to_endpoint,
                "after {n} steps"
            );
            if answer && n % 10 == 0 {
                // A client that sends padded Initials but never a Handshake packet.
                let d = a.peer.padded_initial(&[1], 1200);
                a.send(&d);
                assert!(a.sent_by_endpoint <= 3 * a.sent_to_endpoint);
            }
        }
    }
}

/// RFC 9002 §6.2.2.1: the client breaks the deadlock when the server may send no more.
#[test]
fn a_client_breaks_the_amplification_deadlock() {
    // The server's whole first flight is lost, and the client's Initial came only once.
    for lost in 1..4 {
        let mut pair = patient(1);
        let mut from_server = 0;
        pair.filter = Box::new(move |p| {
            if p.from == SERVER {
                from_server += 1;
                if from_server <= 3 * lost {
                    return vec![];
                }
            }
            vec![p]
        });
        completes(
            &mut pair,
            &format!("the server's first {} datagrams lost", 3 * lost),
        );
    }
}

/// The same with a client whose Handshake packets alone must break it.
#[test]
fn a_client_that_has_everything_but_the_servers_last_flight_probes_with_handshake_packets() {
    let mut a = Attack::on_client(Plan::default());
    a.start_server(|_| {});
    // ServerHello only: the client has Handshake keys and nothing in flight.
    let hello = a.peer.spaces[0].crypto_out.clone();
    a.peer.spaces[0].crypto_sent = hello.len();
    let mut frames = ack_frame(&[0..=0]);
    frames.extend(crypto_frame(0, &hello));
    let d = a.peer.padded_initial(&frames, 1200);
    a.send(&d);
    a.inbox.clear();
    a.run(3 * SECOND);
    let probes = a
        .inbox
        .iter()
        .filter(|p| p.ty == PacketType::Handshake && p.is_ack_eliciting())
        .count();
    assert!(probes >= 2, "{:?}", a.inbox);
    let others = a
        .inbox
        .iter()
        .filter(|p| p.has(|f| matches!(f, Frame::Crypto { .. })));
    assert_eq!(others.count(), 0);
}

/// RFC 9002 §6.2.4: a probe of one space takes along what another has in flight.
#[test]
fn a_client_whose_address_changes_before_confirmation_probes_with_1_rtt_packets() {
    let mut pair = patient(37);
    let begin = pair.now;
    let elsewhere = SocketAddr::from(([127, 0, 0, 1], 3000));
    // The NAT forgets the client right after its second flight: what the server says to the old
    // address from then on is lost, and with its Handshake keys gone it hears 1-RTT packets only.
    let rebound = move |lossy: bool| -> Box<dyn FnMut(Passing) -> Vec<Passing>> {
        Box::new(move |mut p| {
            let late = p.now > begin + Duration::from_millis(25);
            if late && p.from == CLIENT {
                p.source = elsewhere;
            }
            if late && lossy && p.from == SERVER {
                return vec![];
            }
            vec![p]
        })
    };
    pair.filter = rebound(true);
    pair.connect();
    pair.run(Duration::from_millis(500));
    assert!(pair.saw(CLIENT, &Event::Connected) && !pair.saw(CLIENT, &Event::HandshakeConfirmed));
    assert!(pair.saw(SERVER, &Event::PeerAddressChanged));
    pair.filter = rebound(false);
    pair.run(Duration::from_secs(3));
    assert!(pair.saw(CLIENT, &Event::HandshakeConfirmed));
}

/// RFC 9002 §6.2.1: acknowledgements in Initial packets do not reset a client's backoff.
#[test]
fn initial_acks_do_not_reset_a_clients_backoff() {
    let mut a = Attack::on_client(Plan::default());
    a.start_server(|_| {});
    let mut gaps = Vec::new();
    let mut last = a.now;
    for _ in 0..4 {
        a.inbox.clear();
        while a.inbox.is_empty() {
            let at = a.timeout().expect("a probe is to come");
            let span = Duration::from_nanos(at.as_nanos() - a.now.as_nanos());
            a.run(span);
        }
        gaps.push(a.now.as_nanos() - last.as_nanos());
        last = a.now;
        let pns: Vec<u64> = a.inbox.iter().map(|p| p.pn).collect();
        let top = *pns.iter().max().expect("a probe");
        // Acknowledged at once, so that the round trip stays what it was.
        let ack = ack_frame(&[top..=top]);
        let d = a.peer.padded_initial(&ack, 1200);
        a.send(&d);
    }
    assert!(gaps[3] > gaps[1], "{gaps:?}");
}

/// RFC 9000 §10.2.3: an application's reason does not leak before the handshake is complete.
#[test]
fn an_application_close_before_completion_hides_its_reason() {
    for server in [true, false] {
        let mut a = if server {
            let mut a = Attack::on_server(Plan::default());
            let hello = a.peer.flight().remove(0);
            a.send(&hello);
            a
        } else {
            Attack::on_client(Plan::default())
        };
        a.inbox.clear();
        let now = a.now;
        a.connection().close(now, 99, b"a secret");
        a.collect();
        let mut seen = 0;
        for p in a.inbox.iter().filter(|p| p.ty != PacketType::OneRtt) {
            for f in p.frames() {
                if let Frame::ConnectionClose(c) = f {
                    seen += 1;
                    assert_eq!(c.error, Code::APPLICATION_ERROR);
                    assert_eq!((c.frame_type, c.reason), (Some(0), &b""[..]));
                }
            }
        }
        assert!(seen > 0, "the peer is told");
        assert!(a.sent_by_endpoint <= 3 * a.sent_to_endpoint || !server);
    }
}

/// RFC 9000 §8.1.3, §8.1.2: tokens that were not made here, or for somebody else.
#[test]
fn a_token_of_another_address_is_invalid_and_garbage_is_no_proof() {
    let mut a = Attack::on_server(Plan::default());
    a.app.decision = Some(Decision::Retry);
    let hello = a.peer.flight().remove(0);
    a.send(&hello);
    let (scid, token) = a.peer.retries[0].clone();
    a.app.decision = None;
    // From another address: INVALID_TOKEN.
    let crypto = a.peer.spaces[0].crypto_out.clone();
    a.peer.dcid = scid;
    a.peer.set_initial_keys(scid);
    a.peer.token = token.clone();
    let first = a.peer.padded_initial(&crypto_frame(0, &crypto), 1200);
    let elsewhere = std::net::SocketAddr::from(([10, 9, 8, 7], 1000));
    a.send_from(elsewhere, &first);
    assert_eq!(a.endpoint.len(), 0);
    assert!(
        a.closes().iter().any(|c| c.1 == Code::INVALID_TOKEN),
        "{:?}",
        a.closes()
    );
    // Bent in any byte: as if there were none.
    for at in 0..token.len() {
        let mut bent = token.clone();
        bent[at] ^= 0x10;
        a.new_client(100 + at as u64);
        a.peer.token = bent;
        let d = a.peer.flight().remove(0);
        a.app.incoming.clear();
        a.send(&d);
        assert!(
            a.app.incoming.iter().all(|validated| !validated),
            "byte {at}"
        );
    }
}

/// An old token proves nothing (RFC 9000 §8.1.3).
#[test]
fn an_expired_retry_token_is_refused() {
    let mut a = Attack::on_server(Plan::default());
    a.app.decision = Some(Decision::Retry);
    let hello = a.peer.flight().remove(0);
    a.send(&hello);
    let (scid, token) = a.peer.retries[0].clone();
    a.app.decision = None;
    a.run(Duration::from_secs(3600));
    let crypto = a.peer.spaces[0].crypto_out.clone();
    a.peer.dcid = scid;
    a.peer.set_initial_keys(scid);
    a.peer.token = token;
    let first = a.peer.padded_initial(&crypto_frame(0, &crypto), 1200);
    a.send(&first);
    assert_eq!(a.endpoint.len(), 0);
    assert!(a.app.incoming.iter().all(|validated| !validated));
}

/// A handshake that never ends is ended (RFC 9000 §21.6), with nothing left behind.
#[test]
fn a_handshake_that_stalls_ends_at_its_deadline() {
    for side in [CLIENT, SERVER] {
        let mut pair = Pair::new(Setup::default());
        let mut n = 0;
        pair.filter = Box::new(move |p| {
            n += 1;
            // Everything of one side is lost from its second datagram on.
            if p.from == side && n > 2 {
                vec![]
            } else {
                vec![p]
            }
        });
        pair.connect();
        pair.run(60 * SECOND);
        for s in &pair.sides {
            assert_eq!((s.endpoint.len(), s.endpoint.routes()), (0, 0));
        }
    }
}

/// RFC 9000 §7.2: packets with another source connection ID than the first are dropped.
#[test]
fn a_changed_source_connection_id_is_dropped() {
    let mut a = Attack::on_server(Plan::default());
    let hello = a.peer.flight().remove(0);
    a.send(&hello);
    let own = a.peer.scid;
    a.peer.scid = ConnectionId::new(&[0x77; 8]).expect("8 bytes");
    let bad = a.peer.padded_initial(&[0x08, 0, 1], 1200);
    a.send(&bad);
    assert_eq!(a.closed(), None);
    a.peer.scid = own;
    a.handshake();
    assert_eq!(a.side(), Side::Server);
    let _ = frame::PING_SIZE;
}
