//! Clients that move on purpose, to another address of theirs or to the server's preferred one:
//! two endpoints against each other.

use crate::common::pair::{CLIENT, Pair, Passing, SERVER, Setup};
use bytes::Bytes;
use corelane::base::{Ecn, FourTuple, SocketId, limits};
use corelane::conn::{ConnId, Event, MigrateError, MigrationFailure, PortGuard};
use corelane::wire::{Dir, header};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What makes a setup one in which a client may not move.
type Change = Box<dyn Fn(&mut Setup)>;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const BYTES: usize = 3_000_000;

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A second address of the client, on another host than the first.
fn new_home() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 77], 1001))
}

/// A second address of the server.
fn preferred() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 99], 2001))
}

/// Where each destination connection ID was seen: from and to.
type Ways = Arc<Mutex<BTreeMap<Vec<u8>, BTreeSet<(SocketAddr, SocketAddr)>>>>;

fn watch(pair: &mut Pair) -> Ways {
    let ways = Ways::default();
    let seen = ways.clone();
    pair.filter = Box::new(move |p| {
        note(&seen, &p);
        vec![p]
    });
    ways
}

fn note(ways: &Ways, p: &Passing) {
    let dcid = header::dcid(&p.bytes, 8).expect("a datagram").to_vec();
    let mut ways = ways.lock().expect("one thread");
    ways.entry(dcid).or_default().insert((p.source, p.to));
}

/// RFC 9000 §9.5: no connection ID was seen on two paths.
fn assert_unlinkable(ways: &Ways) {
    for (cid, ways) in &*ways.lock().expect("one thread") {
        assert_eq!(ways.len(), 1, "{cid:x?} went {ways:?}");
    }
}

fn transfer(pair: &mut Pair, ids: [ConnId; 2]) {
    let data = Bytes::from(vec![7; BYTES]);
    for (side, id) in [CLIENT, SERVER].into_iter().zip(ids) {
        let streams = pair.conn(side, id).streams_mut();
        let stream = streams.open(Dir::Uni).expect("a stream");
        assert_eq!(streams.write_bytes(stream, data.clone()), Ok(data.len()));
        streams.finish(stream).expect("open");
    }
}

#[track_caller]
fn assert_delivered(pair: &Pair) {
    for side in [CLIENT, SERVER] {
        assert_eq!(pair.closed(side), None);
        let got: usize = pair.sides[side].app.received.values().map(Vec::len).sum();
        assert_eq!(got % BYTES, 0);
        assert!(got > 0);
    }
}

fn moved_to(pair: &Pair, tuple: FourTuple) -> bool {
    pair.saw(CLIENT, &Event::Migrated(tuple))
}

fn failed(pair: &Pair) -> Vec<MigrationFailure> {
    let events = pair.sides[CLIENT].events.iter();
    events
        .filter_map(|(_, e)| match e {
            Event::MigrationFailed(_, why) => Some(*why),
            _ => None,
        })
        .collect()
}

/// RFC 9000 §9.2, §9.5: probed, then moved to, with connection IDs of its own both ways.
#[test]
fn a_client_moves_in_mid_transfer() {
    for at_once in [false, true] {
        let mut pair = Pair::new(Setup::default());
        pair.sides[CLIENT].more.push(new_home());
        let (client, server) = pair.connected();
        transfer(&mut pair, [client, server]);
        pair.run(60 * MS);
        let ways = watch(&mut pair);
        let tuple = FourTuple::new(new_home(), at(2000));
        let now = pair.now;
        let conn = pair.conn(CLIENT, client);
        let done = if at_once {
            conn.migrate_at_once(now, SocketId(1), tuple)
        } else {
            conn.migrate(now, SocketId(1), tuple)
        };
        assert_eq!(done, Ok(()));
        assert_eq!(conn.path() == tuple, at_once, "a probe moves nothing");
        pair.run(30 * SECOND);
        assert_delivered(&pair);
        assert!(moved_to(&pair, tuple), "at once: {at_once}");
        assert!(failed(&pair).is_empty());
        assert_eq!(pair.conn(CLIENT, client).path(), tuple);
        assert_eq!(pair.conn(SERVER, server).path().remote, new_home());
        assert!(pair.conn(SERVER, server).is_address_validated());
        assert!(pair.saw(SERVER, &Event::PeerAddressValidated));
        assert_unlinkable(&ways);
    }
}

/// RFC 9000 §13.4: a path that carries the marks is found to do so after a move as before.
#[test]
fn marks_are_validated_anew_after_a_move() {
    let mut pair = Pair::new(Setup::default());
    pair.sides[CLIENT].more.push(new_home());
    let (client, server) = pair.connected();
    transfer(&mut pair, [client, server]);
    pair.run(60 * MS);
    let marked = Arc::new(Mutex::new([0u32; 2]));
    let count = marked.clone();
    pair.filter = Box::new(move |p| {
        let there = p.source == new_home() || p.to == new_home();
        if there && p.ecn == Ecn::Ect0 {
            count.lock().expect("one thread")[p.from] += 1;
        }
        vec![p]
    });
    let tuple = FourTuple::new(new_home(), at(2000));
    let now = pair.now;
    let conn = pair.conn(CLIENT, client);
    assert_eq!(conn.migrate(now, SocketId(1), tuple), Ok(()));
    pair.run(30 * SECOND);
    assert_delivered(&pair);
    let marked = *marked.lock().expect("one thread");
    assert!(marked.iter().all(|n| *n > 100), "{marked:?}");
}

/// RFC 9000 §8.2.4, §9.1: an address that does not answer costs the attempt and nothing else, as
/// often as it is tried (CVE-2025-29785 class: every probe is lost while paths change).
#[test]
fn a_move_to_nowhere_fails_and_changes_nothing() {
    let mut pair = Pair::new(Setup::default());
    pair.sides[CLIENT].more.push(new_home());
    let (client, server) = pair.connected();
    transfer(&mut pair, [client, server]);
    let dead = |p: &Passing| p.source == new_home() || p.to == new_home();
    pair.filter = Box::new(move |p| if dead(&p) { vec![] } else { vec![p] });
    let tuple = FourTuple::new(new_home(), at(2000));
    for n in 1..=20 {
        let now = pair.now;
        let conn = pair.conn(CLIENT, client);
        assert_eq!(conn.migrate(now, SocketId(1), tuple), Ok(()), "{n}");
        pair.run(5 * SECOND);
        assert_eq!(failed(&pair).len(), n);
    }
    assert!(
        failed(&pair)
            .iter()
            .all(|f| *f == MigrationFailure::NoAnswer)
    );
    assert_delivered(&pair);
    assert_eq!(pair.conn(SERVER, server).stats().migrations, 0);
    // The address comes to life: it is moved to as if nothing had been.
    pair.filter = Box::new(|p| vec![p]);
    let now = pair.now;
    let conn = pair.conn(CLIENT, client);
    assert_eq!(conn.migrate(now, SocketId(1), tuple), Ok(()));
    pair.run(SECOND);
    assert!(moved_to(&pair, tuple));
}

/// Probes are lost in every pattern while the client moves, and moves again before it knows.
#[test]
fn moves_upon_moves_with_lost_probes_end_somewhere() {
    for pattern in 0..64u32 {
        let mut pair = Pair::new(Setup::default());
        let homes: Vec<SocketAddr> = (1..4).map(|n| at(1000 + n)).collect();
        pair.sides[CLIENT].more.extend(&homes);
        let (client, server) = pair.connected();
        transfer(&mut pair, [client, server]);
        let mut count = 0;
        pair.filter = Box::new(move |p| {
            // Probes have the smallest full size, and the transfer's datagrams do not.
            count += u32::from(p.bytes.len() == limits::MIN_UDP_PAYLOAD);
            let lost = p.bytes.len() == limits::MIN_UDP_PAYLOAD && pattern >> (count % 6) & 1 == 1;
            if lost { vec![] } else { vec![p] }
        });
        for round in 0..12 {
            let n = round % 3;
            let tuple = FourTuple::new(homes[n], at(2000));
            let (now, socket) = (pair.now, SocketId(n as u32 + 1));
            let conn = pair.conn(CLIENT, client);
            let done = if round % 4 == 3 {
                conn.migrate_at_once(now, socket, tuple)
            } else {
                conn.migrate(now, socket, tuple)
            };
            assert!(
                matches!(done, Ok(()) | Err(MigrateError::NoConnectionId)),
                "{done:?}"
            );
            pair.run(Duration::from_millis(7 * (1 + u64::from(pattern % 5))));
        }
        pair.run(20 * SECOND);
        assert_delivered(&pair);
        // A server whose every challenge was lost is back where the client was last proven to be,
        // until it hears from the client again.
        pair.filter = Box::new(|p| vec![p]);
        transfer(&mut pair, [client, server]);
        pair.run(20 * SECOND);
        assert_delivered(&pair);
        let here = pair.conn(CLIENT, client).path().local;
        assert_eq!(pair.conn(SERVER, server).path().remote, here, "{pattern}");
    }
}

/// RFC 9000 §9.3, §9.4: a long row of moves is no loss of packets that were not lost.
#[test]
fn a_hundred_moves_deliver_everything_in_good_time() {
    let mut pair = Pair::new(Setup::default());
    pair.sides[CLIENT].more.extend([at(1001), at(1002)]);
    let (client, server) = pair.connected();
    transfer(&mut pair, [client, server]);
    let mut done = 0;
    for n in 0..400u32 {
        let socket = SocketId(n % 2 + 1);
        let tuple = FourTuple::new(at(1001 + (n % 2) as u16), at(2000));
        let now = pair.now;
        let conn = pair.conn(CLIENT, client);
        done += u32::from(conn.migrate(now, socket, tuple).is_ok());
        pair.run(100 * MS);
    }
    assert!(done >= 100, "{done} moves");
    assert_delivered(&pair);
    assert_eq!(pair.conn(CLIENT, client).stats().packets_lost, 0);
    assert_eq!(pair.conn(SERVER, server).stats().packets_lost, 0);
}

/// What a client may not do says why (RFC 9000 §9, §9.5, §18.2).
#[test]
fn a_move_that_may_not_be_is_refused_with_the_reason() {
    let mut setup = Setup::default();
    setup.server.disable_active_migration = true;
    let mut pair = Pair::new(setup);
    let id = pair.connect();
    let tuple = FourTuple::new(new_home(), at(2000));
    let now = pair.now;
    let conn = pair.conn(CLIENT, id);
    let done = conn.migrate(now, SocketId(1), tuple);
    assert_eq!(done, Err(MigrateError::NotConfirmed));
    pair.run(SECOND);
    let (now, server) = (pair.now, pair.sides[SERVER].app.accepted[0]);
    let done = pair.conn(SERVER, server).migrate(now, SocketId(1), tuple);
    assert_eq!(done, Err(MigrateError::Server));
    for at_once in [false, true] {
        let conn = pair.conn(CLIENT, id);
        let done = match at_once {
            false => conn.migrate(now, SocketId(1), tuple),
            true => conn.migrate_at_once(now, SocketId(1), tuple),
        };
        assert_eq!(done, Err(MigrateError::Disabled));
    }
    pair.conn(CLIENT, id).close(now, 0, b"");
    let done = pair.conn(CLIENT, id).migrate(now, SocketId(1), tuple);
    assert_eq!(done, Err(MigrateError::Closed));

    let mut pair = Pair::new(Setup::default());
    let (client, _) = pair.connected();
    let now = pair.now;
    let conn = pair.conn(CLIENT, client);
    let stranger = FourTuple::new(new_home(), at(2999));
    let done = conn.migrate(now, SocketId(1), stranger);
    assert_eq!(done, Err(MigrateError::Remote(at(2999))));
    // Each move takes a connection ID; there are no more than the server has issued.
    let done: Vec<_> = (0..limits::ACTIVE_CIDS)
        .map(|n| {
            conn.migrate(
                now,
                SocketId(1),
                FourTuple::new(at(3000 + n as u16), at(2000)),
            )
        })
        .collect();
    assert_eq!(done.first(), Some(&Ok(())));
    assert_eq!(done.last(), Some(&Err(MigrateError::NoConnectionId)));
    pair.run(20 * SECOND);
    assert!(failed(&pair).contains(&MigrationFailure::Replaced));
    assert_eq!(pair.closed(CLIENT), None);
}

fn preferring(change: impl FnOnce(&mut Setup)) -> Pair {
    let mut setup = Setup::default();
    setup.server.preferred_address.set(preferred());
    change(&mut setup);
    let mut pair = Pair::new(setup);
    pair.sides[SERVER].more.push(preferred());
    pair
}

/// RFC 9000 §9.6: the client goes there once it is confirmed and the address has answered, under a
/// connection ID of its own; so does the server.
#[test]
fn a_client_goes_to_the_preferred_address() {
    let mut pair = preferring(|s| s.server.disable_active_migration = true);
    let ways = watch(&mut pair);
    let (client, server) = pair.connected();
    let tuple = FourTuple::new(at(1000), preferred());
    assert!(moved_to(&pair, tuple));
    assert_eq!(pair.conn(CLIENT, client).path(), tuple);
    let theirs = pair.conn(SERVER, server).path();
    assert_eq!((theirs.local, theirs.remote), (preferred(), at(1000)));
    assert!(
        !pair.saw(SERVER, &Event::PeerAddressChanged),
        "the client's is the same"
    );
    transfer(&mut pair, [client, server]);
    pair.run(30 * SECOND);
    assert_delivered(&pair);
    let seen = ways.lock().expect("one thread").clone();
    for (cid, ways) in seen {
        let servers: BTreeSet<_> = ways.iter().flat_map(|w| [w.0, w.1]).collect();
        assert_eq!(servers.len(), 2, "{cid:x?} went {ways:?}");
    }
    // RFC 9000 §18.2: what was forbidden was to move away from the first address.
    pair.sides[CLIENT].more.push(new_home());
    let tuple = FourTuple::new(new_home(), preferred());
    let now = pair.now;
    let conn = pair.conn(CLIENT, client);
    assert_eq!(conn.migrate(now, SocketId(1), tuple), Ok(()));
    pair.run(SECOND);
    assert!(moved_to(&pair, tuple));
}

/// RFC 9000 §9.6.1: a preferred address that does not answer is not used.
#[test]
fn a_preferred_address_that_does_not_answer_is_not_used() {
    let mut pair = preferring(|_| {});
    pair.filter = Box::new(|p| {
        let dead = p.to == preferred() || p.source == preferred();
        if dead { vec![] } else { vec![p] }
    });
    let (client, server) = pair.connected();
    transfer(&mut pair, [client, server]);
    pair.run(30 * SECOND);
    assert_delivered(&pair);
    assert_eq!(failed(&pair), [MigrationFailure::NoAnswer]);
    assert_eq!(pair.conn(CLIENT, client).path().remote, at(2000));
    assert_eq!(pair.conn(SERVER, server).path().local, at(2000));
}

/// RFC 9000 §21.5.3, §21.5.6: not one datagram goes where a client must not be sent.
#[test]
fn a_preferred_address_may_be_declined() {
    let to = |addr: SocketAddr| {
        move |s: &mut Setup| {
            s.server.preferred_address = Default::default();
            s.server.preferred_address.set(addr);
        }
    };
    let off = |s: &mut Setup| s.client.follow_preferred_address = false;
    let dns = SocketAddr::from(([127, 0, 0, 99], 53));
    let metadata = SocketAddr::from(([169, 254, 169, 254], 8000));
    let changes: [(&str, Change); 4] = [
        ("turned off", Box::new(off)),
        ("a service's port", Box::new(to(dns))),
        ("the local link", Box::new(to(metadata))),
        ("the address in use", Box::new(to(at(2000)))),
    ];
    for (what, change) in changes {
        let mut pair = preferring(|s| change(s));
        let ways = watch(&mut pair);
        let (client, server) = pair.connected();
        transfer(&mut pair, [client, server]);
        pair.run(30 * SECOND);
        assert_delivered(&pair);
        for (cid, ways) in &*ways.lock().expect("one thread") {
            let from_client = ways.iter().filter(|w| w.0 == at(1000));
            assert!(
                from_client.map(|w| w.1).all(|to| to == at(2000)),
                "{what}: {cid:x?}"
            );
        }
    }
    // An operator who knows better may say so.
    let mut pair = preferring(|s| {
        to(dns)(s);
        s.client.port_guard = PortGuard::off();
    });
    pair.sides[SERVER].more.push(dns);
    pair.connected();
    assert!(moved_to(&pair, FourTuple::new(at(1000), dns)));
}

/// RFC 9000 §9.6.3: a client that moves before it has reached the preferred address reaches it
/// from its new address.
#[test]
fn a_move_and_the_preferred_address_go_together() {
    for (delayed, at_once) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut pair = preferring(|_| {});
        pair.sides[CLIENT].more.push(new_home());
        // What goes to the preferred address from the old home is lost.
        pair.filter = Box::new(move |p| {
            let lost = p.to == preferred() && p.source == at(1000);
            if lost { vec![] } else { vec![p] }
        });
        let client = pair.connect();
        pair.run(100 * MS);
        if delayed {
            pair.run(300 * MS);
        }
        let now = pair.now;
        let tuple = FourTuple::new(new_home(), at(2000));
        let conn = pair.conn(CLIENT, client);
        let done = match at_once {
            false => conn.migrate(now, SocketId(1), tuple),
            true => conn.migrate_at_once(now, SocketId(1), tuple),
        };
        assert_eq!(done, Ok(()));
        let server = pair.sides[SERVER].app.accepted[0];
        transfer(&mut pair, [client, server]);
        pair.run(30 * SECOND);
        assert_delivered(&pair);
        let both = FourTuple::new(new_home(), preferred());
        assert_eq!(pair.conn(CLIENT, client).path(), both);
        let theirs = pair.conn(SERVER, server).path();
        assert_eq!((theirs.local, theirs.remote), (preferred(), new_home()));
    }
}

/// RFC 9000 §9.3: NAT rebinding of an idle client, which begins to speak again from elsewhere.
#[test]
fn an_idle_client_is_found_again_behind_its_new_address() {
    for to_preferred in [false, true] {
        let mut pair = if to_preferred {
            preferring(|_| {})
        } else {
            Pair::new(Setup::default())
        };
        let (client, server) = pair.connected();
        pair.run(20 * SECOND);
        pair.filter = Box::new(|mut p| {
            if p.from == CLIENT {
                p.source = new_home();
            }
            vec![p]
        });
        transfer(&mut pair, [client, server]);
        pair.run(20 * SECOND);
        assert_delivered(&pair);
        assert_eq!(pair.conn(SERVER, server).path().remote, new_home());
        let moves = pair.conn(SERVER, server).stats().migrations;
        assert_eq!(moves, 1 + u64::from(to_preferred));
    }
}

/// RFC 9000 §9: the handshake goes on where it began, whatever the addresses of its packets.
#[test]
fn a_rebinding_during_the_handshake_moves_nothing_before_it_is_confirmed() {
    let mut pair = Pair::new(Setup::default());
    let mut count = 0;
    let wandering = Arc::new(Mutex::new(Vec::new()));
    let to = wandering.clone();
    pair.filter = Box::new(move |mut p| {
        if p.from == CLIENT {
            count += 1;
            if count > 1 {
                p.source = new_home();
            }
        } else {
            let long = p.bytes[0] & 0x80 != 0;
            to.lock().expect("one thread").push((long, p.to));
        }
        vec![p]
    });
    let (client, server) = pair.connected();
    for (long, to) in &*wandering.lock().expect("one thread") {
        assert!(!long || *to == at(1000), "a handshake packet went to {to}");
    }
    transfer(&mut pair, [client, server]);
    pair.run(30 * SECOND);
    assert_delivered(&pair);
    assert_eq!(pair.conn(SERVER, server).path().remote, new_home());
}
