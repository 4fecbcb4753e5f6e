//! Paths under key updates, NATs, migration, loss and reordering; with Retry, early data and ECN.

use crate::common::pair::{CLIENT, Pair, SERVER, Setup};
use crate::rig::*;
use bytes::Bytes;
use corelane::base::{FourTuple, SocketId};
use corelane::conn::{EarlyData, Event, PathEvent};
use corelane::path::schedule::Pin;
use corelane::path::{PathId, PathStatus};
use corelane::wire::{Code, Dir};

/// Multipath §2.5: one key phase for all paths, and updates while both carry data.
#[test]
fn keys_are_updated_while_two_paths_carry_data() {
    let mut s = setup(4);
    for config in [&mut s.client, &mut s.server] {
        config.key_update_packets = Some(60);
    }
    let mut rig = Rig::with(s).and_second();
    rig.trouble(40);
    let streams = [CLIENT, SERVER].map(|side| (side, rig.send(side, 3_000_000)));
    rig.run_ms(20_000);
    for (side, id) in streams {
        assert!(rig.has(side, id, 3_000_000), "side {side}");
    }
    let ids = rig.ids();
    for (side, id) in ids.into_iter().enumerate() {
        let stats = rig.pair.conn(side, id).stats();
        assert!(stats.key_updates >= 4, "{stats:?}");
    }
    rig.expect_alive();
}

/// Multipath §3.1.2: a known path's packet from elsewhere is that path's migration, with connection
/// IDs of that path; the other goes on.
#[test]
fn a_nat_rebinds_the_second_path() {
    let mut rig = Rig::two_paths();
    let streams = [CLIENT, SERVER].map(|side| (side, rig.send(side, 2_000_000)));
    rig.run_ms(40);
    rig.rebind(at(CLIENT_1), 5555);
    rig.run_ms(5000);
    let id = PathId(1);
    let remote = std::net::SocketAddr::new(at(CLIENT_1).ip(), 5555);
    assert!(rig.saw(SERVER, PathEvent::PeerMoved { id, remote }));
    assert!(rig.saw(SERVER, PathEvent::PeerMoveValidated { id, remote }));
    for (side, id) in streams {
        assert!(rig.has(side, id, 2_000_000), "side {side}");
    }
    let [first, second] = [0, 1].map(|id| rig.info(SERVER, PathId(id)).unwrap().tuple.remote);
    assert_eq!(first, at(CLIENT_0));
    assert_eq!(second.port(), 5555);
    rig.forget_traffic();
    rig.deliver(SERVER, 1_000_000, 2000);
    assert!(rig.info(SERVER, PathId(1)).unwrap().counters.bytes_sent > 100_000);
    rig.expect_alive();
}

/// Multipath §3.1.2.
#[test]
fn a_client_migrates_one_path_while_the_other_carries_data() {
    let mut rig = Rig::two_paths();
    rig.pair.sides[CLIENT].more.push(at(([127, 0, 0, 4], 1004)));
    let stream = rig.send(SERVER, 3_000_000);
    rig.run_ms(30);
    let (now, client) = (rig.pair.now, rig.client);
    let tuple = FourTuple::new(at(([127, 0, 0, 4], 1004)), at(SERVER_0));
    let conn = rig.pair.conn(CLIENT, client);
    conn.migrate_path(now, PathId(1), SocketId(2), tuple)
        .unwrap();
    rig.run_ms(5000);
    assert!(rig.pair.saw(CLIENT, &Event::Migrated(tuple)));
    assert!(rig.has(SERVER, stream, 3_000_000));
    let remote = rig.info(SERVER, PathId(1)).unwrap().tuple.remote;
    assert_eq!(remote, tuple.local);
    assert_eq!(
        rig.info(SERVER, PathId(0)).unwrap().tuple.remote,
        at(CLIENT_0)
    );
    rig.deliver(CLIENT, 1_000_000, 2000);
    rig.expect_alive();
}

#[test]
fn loss_and_reordering_on_both_paths() {
    let mut rig = Rig::two_paths();
    rig.trouble(15);
    let streams = [CLIENT, SERVER].map(|side| (side, rig.send(side, 2_000_000)));
    rig.run_ms(30_000);
    for (side, id) in streams {
        assert!(rig.has(side, id, 2_000_000), "side {side}");
    }
    for id in [PathId(0), PathId(1)] {
        assert!(rig.info(CLIENT, id).unwrap().counters.packets_lost > 0);
    }
    rig.expect_alive();
}

/// RFC 9000 §13.4 for each path: PATH_ACK frames carry the counts of their path (multipath §4.1).
#[test]
fn ecn_stays_on_for_both_paths() {
    let mut rig = Rig::two_paths();
    for side in [CLIENT, SERVER] {
        rig.deliver(side, 1_000_000, 2000);
    }
    rig.traffic.lock().unwrap().marked.clear();
    for side in [CLIENT, SERVER] {
        rig.deliver(side, 1_000_000, 2000);
    }
    let marked = rig.traffic.lock().unwrap().marked.clone();
    for source in [CLIENT_0, CLIENT_1, SERVER_0] {
        assert!(marked[&at(source)] > 50, "{source:?}: {marked:?}");
    }
}

#[test]
fn a_retry_comes_before() {
    let mut pair = Pair::new(setup(4));
    pair.sides[SERVER].app.prove = true;
    let mut rig = Rig::from_pair(pair).and_second();
    rig.deliver(CLIENT, 500_000, 1000);
    rig.expect_alive();
}

/// Multipath §2.1: the limit is not remembered, and the new one holds; §2.3: early data is
/// acknowledged by PATH_ACK frames of path 0.
#[test]
fn early_data_comes_before() {
    let setup: Setup = setup(4);
    let mut pair = Pair::with_tls(
        setup,
        |server| server.max_early_data_size = u32::MAX,
        |client| client.enable_early_data = true,
    );
    let (client, _) = pair.connected();
    let now = pair.now;
    pair.conn(CLIENT, client).close(now, 0, b"");
    pair.run(std::time::Duration::from_secs(20));
    for side in &mut pair.sides {
        side.events.clear();
        side.app.accepted.clear();
        side.app.received.clear();
        side.app.finished.clear();
    }
    let client = pair.connect();
    let conn = pair.conn(CLIENT, client);
    assert_eq!(conn.early_data(), EarlyData::Offered);
    assert!(!conn.is_multipath());
    let streams = conn.streams_mut();
    let early = streams.open(corelane::wire::Dir::Uni).unwrap();
    assert_eq!(streams.write(early, &[7; 8000]), Ok(8000));
    streams.finish(early).unwrap();
    pair.run(std::time::Duration::from_millis(500));
    let server = *pair.sides[SERVER].app.accepted.last().unwrap();
    assert_eq!(pair.conn(CLIENT, client).early_data(), EarlyData::Accepted);
    assert!(pair.conn(CLIENT, client).is_multipath());
    let mut rig = Rig::around(pair, client, server);
    assert!(rig.has(CLIENT, early, 8000));
    let acked = rig.info(CLIENT, PathId(0)).unwrap();
    assert_eq!(acked.stats.bytes_in_flight, 0);
    rig = rig.and_second();
    rig.deliver(SERVER, 100_000, 1000);
    rig.expect_alive();
}

/// Multipath §3.4: without a path there is no connection, unless the client opens another.
#[test]
fn the_last_path_ends_the_connection() {
    let mut rig = Rig::two_paths();
    let (now, client) = (rig.pair.now, rig.client);
    for id in [0, 1] {
        let conn = rig.pair.conn(CLIENT, client);
        let code = Code::APPLICATION_ABANDON_PATH;
        conn.close_path(now, PathId(id), code).unwrap();
        rig.run_ms(100);
    }
    for side in [CLIENT, SERVER] {
        assert!(rig.pair.closed(side).is_some(), "side {side}");
    }
}

/// Multipath §3.4: both sides abandon the paths that the other keeps.
#[test]
fn when_both_sides_abandon_at_once_a_client_may_open_another() {
    for reopen in [true, false] {
        let mut rig = Rig::two_paths();
        let ids = rig.ids();
        for (side, id) in ids.into_iter().enumerate() {
            let now = rig.pair.now;
            let conn = rig.pair.conn(side, id);
            let path = PathId(side as u32);
            conn.close_path(now, path, Code::NO_ERROR).unwrap();
        }
        rig.run_ms(11);
        if reopen {
            rig.open(PathStatus::Available).expect("opens");
            rig.run_ms(1000);
            rig.expect_open(PathId(2));
            rig.deliver(SERVER, 100_000, 1000);
            rig.run_ms(5000);
            rig.expect_alive();
        } else {
            rig.run_ms(2000);
            for side in [CLIENT, SERVER] {
                assert!(rig.pair.closed(side).is_some(), "side {side}");
            }
        }
    }
}

/// RFC 9000 §8.1 for each path (multipath §3.1): an address that has not answered gets at most
/// three times what came from it.
#[test]
fn a_new_path_is_no_amplifier() {
    let mut rig = Rig::new(4);
    rig.traffic.lock().unwrap().deaf.push(at(CLIENT_1));
    rig.send(SERVER, 500_000);
    rig.open(PathStatus::Available).unwrap();
    for _ in 0..200 {
        rig.run_ms(50);
        let t = rig.traffic.lock().unwrap();
        let (to, from) = (t.bytes_to.get(&at(CLIENT_1)), t.bytes.get(&at(CLIENT_1)));
        assert!(to <= from.map(|n| n * 3).as_ref(), "{to:?} for {from:?}");
    }
    assert!(rig.bytes_from(at(CLIENT_1)) > 1200);
    rig.expect_alive();
}

/// RFC 9000 §8.2.4: how long a new path may take to answer follows from the slowest in use and from
/// what is assumed of unknown ones, however optimistic the configuration is about those.
#[test]
fn a_new_path_may_be_slow_to_answer() {
    for (delay, late) in [(400, 0), (10, 600)] {
        let mut setup = setup(4);
        for config in [&mut setup.client, &mut setup.server] {
            config.initial_rtt = std::time::Duration::from_millis(50);
        }
        let mut rig = Rig::with(setup);
        rig.pair.delay = std::time::Duration::from_millis(delay);
        rig.deliver(CLIENT, 100_000, 10_000);
        rig.delay(at(CLIENT_1), late);
        let id = rig.open(PathStatus::Available).expect("opens");
        rig.run_ms(3000);
        rig.expect_open(id);
        rig.deliver(CLIENT, 100_000, 10_000);
        rig.expect_alive();
    }
}

/// RFC 9000 §10.1.2: a keep-alive goes by a path that works. One that went dark does not end an
/// idle connection that has another.
#[test]
fn a_dark_path_does_not_end_an_idle_connection() {
    for dark in [CLIENT_0, CLIENT_1] {
        let mut s = setup(4);
        for config in [&mut s.client, &mut s.server] {
            config.max_idle_timeout = std::time::Duration::from_secs(6);
        }
        s.client.keep_alive_interval = Some(std::time::Duration::from_secs(2));
        let mut rig = Rig::with(s).and_second();
        rig.run_ms(1000);
        rig.darken(at(dark));
        rig.run_ms(60_000);
        rig.expect_alive();
        rig.deliver(CLIENT, 100_000, 2000);
    }
}

/// With its last path a connection ends (multipath §3.4): one that does not answer in time is asked
/// again while there is no other, and not for ever.
#[test]
fn the_only_path_left_is_asked_again() {
    for (silent_ms, lives) in [(12_000, true), (120_000, false)] {
        let mut s = setup(4);
        for config in [&mut s.client, &mut s.server] {
            config.max_idle_timeout = std::time::Duration::from_secs(600);
        }
        let mut rig = Rig::with(s);
        rig.traffic.lock().unwrap().deaf.push(at(CLIENT_1));
        let second = rig.open(PathStatus::Available).unwrap();
        rig.run_ms(200);
        let [client, _] = rig.ids();
        let now = rig.pair.now;
        let conn = rig.pair.conn(CLIENT, client);
        conn.close_path(now, PathId(0), Code::NO_ERROR).unwrap();
        rig.run_ms(silent_ms);
        rig.traffic.lock().unwrap().deaf.clear();
        rig.run_ms(10_000);
        if lives {
            assert!(rig.saw(CLIENT, PathEvent::Validated(second)));
            rig.deliver(CLIENT, 100_000, 5000);
            rig.expect_alive();
        } else {
            assert!(rig.pair.closed(CLIENT).is_some());
        }
    }
}

/// Both networks go dark while a path is validated: the client was answered there and closes the
/// other path, and the server, which was not and hears of nothing, keeps what may be its last.
#[test]
fn a_new_path_is_kept_while_no_other_works() {
    let mut s = setup(4);
    for config in [&mut s.client, &mut s.server] {
        config.max_idle_timeout = std::time::Duration::from_secs(600);
    }
    let mut rig = Rig::with(s);
    let second = rig.open(PathStatus::Available).unwrap();
    let until = |rig: &mut Rig, side, event| {
        for _ in 0..1000 {
            if rig.saw(side, event) {
                return;
            }
            rig.run_ms(1);
        }
        panic!("{event:?} does not come");
    };
    until(&mut rig, SERVER, PathEvent::Opened(second));
    rig.lose(at(CLIENT_1), 100);
    until(&mut rig, CLIENT, PathEvent::Validated(second));
    rig.darken(at(CLIENT_0));
    let [client, _] = rig.ids();
    let now = rig.pair.now;
    let conn = rig.pair.conn(CLIENT, client);
    conn.close_path(now, PathId(0), Code::NO_ERROR).unwrap();
    let stream = rig.send(SERVER, 100_000);
    rig.run_ms(6000);
    assert!(!rig.saw(SERVER, PathEvent::Validated(second)));
    // The first network does not come back, the second one does.
    rig.traffic.lock().unwrap().lossy = None;
    rig.run_ms(20_000);
    assert!(rig.saw(SERVER, PathEvent::Validated(second)));
    assert!(rig.has_exactly(SERVER, stream, 100_000));
    rig.deliver(CLIENT, 100_000, 5000);
    rig.expect_alive();
}

/// One path is dark, and the other has just had a probe timeout: what is sent then goes by the dark
/// one, which is the faster of two that do not answer, and by the other as soon as that does.
#[test]
fn what_a_dark_path_took_goes_by_the_first_that_answers() {
    let mut rig = Rig::two_paths();
    rig.delay(at(CLIENT_1), 10);
    for _ in 0..10 {
        rig.deliver(SERVER, 100_000, 500);
    }
    rig.darken(at(CLIENT_0));
    rig.deliver(SERVER, 3000, 3000);
    assert!(rig.saw(SERVER, PathEvent::PotentiallyFailed(PathId(0))));
    rig.traffic.lock().unwrap().deaf.push(at(CLIENT_1));
    let first = rig.send(SERVER, 100);
    rig.run_ms(1);
    rig.traffic.lock().unwrap().deaf.clear();
    let silent = |rig: &mut Rig| rig.info(SERVER, PathId(1)).unwrap().pto_count > 0;
    for _ in 0..1000 {
        if silent(&mut rig) {
            break;
        }
        rig.run_ms(1);
    }
    // The probes left, and are not answered yet.
    assert!(silent(&mut rig));
    let second = rig.send(SERVER, 100);
    rig.run_ms(1000);
    assert!(!silent(&mut rig));
    assert!(rig.has_exactly(SERVER, first, 100));
    assert!(rig.has_exactly(SERVER, second, 100));
    let ids = rig.ids();
    assert_eq!(rig.pair.conn(SERVER, ids[SERVER]).stats().path_failures, 1);
    rig.expect_alive();
}

/// A probe timeout of who receives does not move its acknowledgements to another path: they would
/// come early there, and none would come for a while once the path is trusted again.
#[test]
fn one_probe_timeout_leaves_acknowledgements_where_they_are() {
    let mut rig = Rig::two_paths();
    rig.delay(at(CLIENT_1), 100);
    let [client, server] = rig.ids();
    let conn = rig.pair.conn(CLIENT, client);
    let stream = conn.streams_mut().open(Dir::Uni).unwrap();
    conn.set_stream_path(stream, Some(Pin::only(PathId(1))))
        .unwrap();
    let feed = |rig: &mut Rig, ms| {
        for _ in 0..ms {
            let streams = rig.pair.conn(CLIENT, client).streams_mut();
            streams.write(stream, &[7; 3000]).unwrap();
            rig.run_ms(1);
        }
    };
    feed(&mut rig, 1000);

    // The server's only packet on the path that asks for an acknowledgement is lost.
    rig.traffic.lock().unwrap().deaf.push(at(CLIENT_1));
    let conn = rig.pair.conn(SERVER, server);
    let pin = Pin::only(PathId(1));
    conn.send_datagram_on(pin, Bytes::from_static(b"lost"))
        .unwrap();
    rig.run_ms(1);
    rig.traffic.lock().unwrap().deaf.clear();
    let timed_out = |rig: &mut Rig| rig.info(SERVER, PathId(1)).unwrap().pto_count > 0;
    for _ in 0..1000 {
        feed(&mut rig, 1);
        if timed_out(&mut rig) {
            break;
        }
    }
    assert!(timed_out(&mut rig), "no probe timeout");

    // What is said until the probes are answered.
    let acked = |rig: &mut Rig| rig.info(CLIENT, PathId(1)).unwrap().counters.packets_acked;
    let by_own = |rig: &Rig| rig.traffic.lock().unwrap().bytes_to[&at(CLIENT_1)];
    let (before, bytes) = (acked(&mut rig), by_own(&rig));
    feed(&mut rig, 50);
    assert!(timed_out(&mut rig), "the way there takes 100 ms");
    assert!(acked(&mut rig) > before + 50);
    assert!(by_own(&rig) > bytes + 500, "{} bytes", by_own(&rig) - bytes);
    rig.expect_alive();
}
