//! Copies on several paths: what is delivered, when, at what price, and that every counter agrees.

use crate::common::pair::{CLIENT, SERVER, Setup};
use crate::rig::*;
use bytes::Bytes;
use corelane::base::Rng;
use corelane::conn::{Connection, CopyStats, Event, TransportConfig};
use corelane::path::duplicate::DuplicationConfig;
use corelane::path::reinject::ReinjectionConfig;
use corelane::path::schedule::SchedulerKind;
use corelane::path::{PathCounters, PathId};
use corelane::stream::StreamEvent;
use corelane::wire::{Dir, StreamId};
use std::time::Duration;

/// All of everything, with budget enough.
fn everything() -> DuplicationConfig {
    DuplicationConfig {
        all: true,
        permille: 2000,
        burst: 1 << 20,
        ..DuplicationConfig::default()
    }
}

fn with(duplication: DuplicationConfig) -> Setup {
    let mut s = setup(4);
    s.client.multipath.duplication = Some(duplication);
    s
}

/// Turns copies and reinjection on or off at random.
pub fn draw(config: &mut TransportConfig, seed: u64) {
    let mut rng = Rng::from_u64(seed);
    if rng.below(2) == 0 {
        config.multipath.duplication = Some(DuplicationConfig {
            all: rng.below(2) == 0,
            paths: 2 + rng.below(2) as u8,
            permille: rng.below(1500) as u32,
            ..DuplicationConfig::default()
        });
    }
    if rng.below(2) == 0 {
        let delay = Duration::from_millis(rng.below(60));
        config.multipath.reinjection = Some(ReinjectionConfig {
            delay: Some(delay).filter(|_| rng.below(4) > 0),
            on_failure: rng.below(2) == 0,
            max_per_frame: rng.below(4) as u8,
            queue_limit: 1 + rng.below(300) as u16,
            min_interval: Duration::from_millis(rng.below(3)),
            ..ReinjectionConfig::default()
        });
    }
}

/// What was copied, if the counters of paths and connection do not contradict each other.
pub fn agreed(conn: &Connection) -> Result<u64, String> {
    let s = conn.copy_stats();
    let paths: Vec<_> = conn.paths().map(|p| p.counters).collect();
    let sum = |f: fn(&PathCounters) -> u64| paths.iter().map(f).sum::<u64>();
    let mut all = conn.past_paths().chain(conn.paths());
    let balanced = all.all(|p| {
        let c = p.counters;
        let settled = c.bytes_acked + c.bytes_lost + p.stats.bytes_in_flight;
        c.packets_acked + c.packets_lost <= p.packets_sent && settled <= c.bytes_sent
    });
    // Paths that are gone took their counts along.
    let fits = sum(|c| c.bytes_duplicated) <= s.duplicated_bytes + s.redundant_bytes
        && sum(|c| c.bytes_reinjected) <= s.reinjected_bytes
        && balanced;
    match fits {
        true => Ok(s.duplicated_packets + s.reinjected_packets),
        false => Err(format!("{s:?} {paths:?}")),
    }
}

/// Two open paths, of which the client's first loses so many datagrams of a hundred.
fn lossy(setup: Setup, percent: u64) -> Rig {
    let rig = Rig::with(setup).and_second();
    rig.lose(at(CLIENT_0), percent);
    rig
}

fn stats(rig: &mut Rig) -> CopyStats {
    let id = rig.client;
    rig.pair.conn(CLIENT, id).copy_stats()
}

/// Sends a datagram every few milliseconds and counts those that arrive.
fn datagrams(rig: &mut Rig, count: u32, chosen: bool) -> usize {
    let (client, server) = (rig.client, rig.server);
    for n in 0..count {
        let data = Bytes::from(n.to_be_bytes().repeat(20));
        let conn = rig.pair.conn(CLIENT, client);
        match chosen {
            true => conn.send_duplicated_datagram(data).unwrap(),
            false => conn.send_datagram(data).unwrap(),
        }
        rig.run_ms(3);
    }
    rig.run_ms(500);
    let mut seen = std::collections::BTreeSet::new();
    let conn = rig.pair.conn(SERVER, server);
    conn.recv_datagrams(|d| seen.extend([d.to_vec()]));
    seen.len()
}

#[test]
fn copies_bring_datagrams_through_loss() {
    let config = DuplicationConfig {
        datagrams: true,
        permille: 2000,
        ..DuplicationConfig::default()
    };
    let mut plain = lossy(setup(4), 30);
    let mut copied = lossy(with(config), 30);
    let (without, with) = (
        datagrams(&mut plain, 300, false),
        datagrams(&mut copied, 300, false),
    );
    assert!(without < 280, "{without} of 300");
    assert_eq!(with, 300);
    let s = stats(&mut copied);
    assert_eq!(s.duplicated_packets, 300, "{s:?}");
    assert_eq!(s.duplicates_refused, 0);
    assert_eq!(stats(&mut plain), CopyStats::default());
    copied.expect_alive();
}

#[test]
fn only_chosen_datagrams_are_copied() {
    let mut rig = lossy(with(DuplicationConfig::default()), 0);
    assert_eq!(datagrams(&mut rig, 20, false), 20);
    let before = stats(&mut rig).duplicated_packets;
    assert_eq!(datagrams(&mut rig, 7, true), 7);
    assert_eq!(stats(&mut rig).duplicated_packets - before, 7);
}

/// How long a request of some kilobytes takes, over and over.
fn request_times(mut rig: Rig, chosen: bool) -> (Vec<Duration>, Rig) {
    let mut times = Vec::new();
    for _ in 0..60 {
        let begin = rig.pair.now;
        let client = rig.client;
        let streams = rig.pair.conn(CLIENT, client).streams_mut();
        let id = streams.open(Dir::Uni).unwrap();
        streams.write(id, &[7; 3000]).unwrap();
        streams.finish(id).unwrap();
        if chosen {
            assert!(rig.pair.conn(CLIENT, client).duplicate_stream(id, true));
        }
        while !rig.has(CLIENT, id, 3000) {
            rig.run_ms(1);
            assert!(rig.pair.now - begin < Duration::from_secs(20), "stalls");
        }
        times.push(rig.pair.now - begin);
        rig.run_ms(100);
    }
    times.sort_unstable();
    (times, rig)
}

#[test]
fn copies_take_the_delay_of_loss_away() {
    let config = DuplicationConfig {
        permille: 2000,
        ..DuplicationConfig::default()
    };
    let (plain, _) = request_times(lossy(setup(4), 30), false);
    let (copied, mut rig) = request_times(lossy(with(config), 30), true);
    let sum = |times: &[Duration]| times.iter().sum::<Duration>();
    assert!(sum(&copied) < sum(&plain), "{copied:?} {plain:?}");
    let ninth = |times: &[Duration]| times[times.len() * 9 / 10];
    assert!(ninth(&copied) <= Duration::from_millis(12), "{copied:?}");
    assert!(ninth(&plain) > Duration::from_millis(20), "{plain:?}");
    assert!(stats(&mut rig).duplicated_packets >= 60);
}

/// The budget bounds what leaves as copies, to the byte.
#[test]
fn the_budget_is_kept_exactly() {
    for (permille, burst) in [(100, 16 * 1024), (0, 5000), (1, 0), (500, 3000)] {
        let config = DuplicationConfig {
            all: true,
            permille,
            burst,
            ..DuplicationConfig::default()
        };
        let mut rig = lossy(with(config), 0);
        let before = stats(&mut rig);
        rig.deliver(CLIENT, 1_000_000, 5000);
        let s = stats(&mut rig);
        let paths: Vec<_> = [0, 1]
            .map(|id| rig.info(CLIENT, PathId(id)).unwrap())
            .into();
        let sent: u64 = paths.iter().map(|p| p.counters.bytes_sent).sum();
        let copied: u64 = paths.iter().map(|p| p.counters.bytes_duplicated).sum();
        assert_eq!(copied, s.duplicated_bytes, "the counters agree");
        let originals = sent - copied;
        let most = burst + originals * u64::from(permille) / 1000;
        assert!(copied <= most, "{copied} of {most}: {s:?}");
        if permille >= 100 {
            assert!(copied > burst, "{copied} of {most}: it is used");
            assert!(s.duplicates_refused > before.duplicates_refused, "{s:?}");
        }
    }
}

/// A lossless run: every byte once, every event once, and the counters say what happened.
#[test]
fn without_loss_every_counter_agrees() {
    let mut s = with(everything());
    s.server.multipath.duplication = Some(everything());
    let mut rig = Rig::with(s).and_second();
    let streams: Vec<_> = (0..20).map(|n| rig.send(n % 2, 50_000 + n * 777)).collect();
    rig.run_ms(10_000);
    for (n, id) in streams.iter().enumerate() {
        assert!(rig.has(n % 2, *id, 50_000 + n * 777), "{n}");
    }
    let ids = rig.ids();
    for (side, id) in ids.into_iter().enumerate() {
        let conn = rig.pair.conn(side, id);
        let (s, copies) = (conn.streams().stats(), conn.copy_stats());
        let stats = conn.stats();
        let paths: Vec<_> = conn.paths().collect();
        let sent: usize = (0..20)
            .filter(|n| n % 2 == side)
            .map(|n| 50_000 + n * 777)
            .sum();
        assert_eq!(s.tx_bytes, sent as u64);
        assert_eq!((s.tx_bytes_again, stats.packets_lost), (0, 0));
        assert_eq!(s.rx_bytes, s.rx_bytes_consumed);
        assert_eq!(s.streams_opened, s.streams_closed);
        assert!(copies.duplicated_bytes > sent as u64, "{copies:?}");
        let sum = |f: &dyn Fn(&corelane::conn::PathInfo) -> u64| paths.iter().map(f).sum::<u64>();
        assert_eq!(
            sum(&|p| p.counters.packets_duplicated),
            copies.duplicated_packets
        );
        assert_eq!(
            sum(&|p| p.counters.bytes_duplicated),
            copies.duplicated_bytes
        );
        assert_eq!(sum(&|p| p.stats.bytes_in_flight), 0, "all is acknowledged");
        let finished = |e: &&(_, Event)| matches!(e.1, Event::Stream(StreamEvent::Finished(_)));
        assert_eq!(
            rig.pair.sides[side].events.iter().filter(finished).count(),
            10
        );
    }
    assert_eq!(rig.pair.conn(CLIENT, ids[0]).stats().packets_duplicate, 0);
    rig.expect_alive();
}

#[test]
fn the_redundant_scheduler_sends_everything_twice() {
    let mut s = setup(4);
    s.client.multipath.scheduler = SchedulerKind::Redundant { paths: 2 };
    let mut rig = Rig::with(s).and_second();
    rig.deliver(CLIENT, 300_000, 10_000);
    let s = stats(&mut rig);
    assert!(s.redundant_bytes > 300_000, "{s:?}");
    rig.lose(at(CLIENT_0), 30);
    let (times, mut rig) = request_times(rig, false);
    assert!(times[50] <= Duration::from_millis(12), "{times:?}");
    let s = stats(&mut rig);
    assert_eq!((s.duplicated_bytes, s.reinjected_bytes), (0, 0));
    rig.expect_alive();
}

/// Small packets of the other path: copies are cut to fit, and arrive whole.
#[test]
fn copies_fit_the_other_path() {
    let rig = Rig::with(with(everything()));
    rig.shrink(at(CLIENT_1), 1250);
    let mut rig = rig.and_second();
    rig.deliver(CLIENT, 500_000, 20_000);
    let sizes = [0, 1].map(|id| rig.info(CLIENT, PathId(id)).unwrap().stats.mtu);
    assert!(sizes[0] > 1300 && sizes[1] <= 1250, "{sizes:?}");
    let before = stats(&mut rig);
    rig.deliver(CLIENT, 20_000, 5000);
    let after = stats(&mut rig);
    let bytes = after.duplicated_bytes - before.duplicated_bytes;
    assert!(bytes > 20_000, "{bytes}");
    rig.expect_alive();
}

/// Copies to a path that goes are given up, and everything arrives.
#[test]
fn paths_come_and_go_under_copies() {
    for seed in 0..20 {
        let mut rng = Rng::from_u64(seed);
        let mut s = with(everything());
        s.seed = seed;
        let mut rig = Rig::with(s).and_second();
        rig.trouble(20);
        let ids: Vec<StreamId> = (0..4).map(|_| rig.send(CLIENT, 100_000)).collect();
        rig.run_ms(5 + rng.below(60));
        let (now, client) = (rig.pair.now, rig.client);
        let id = PathId(rng.below(2) as u32);
        let conn = rig.pair.conn(CLIENT, client);
        let code = corelane::wire::Code::NO_ERROR;
        conn.close_path(now, id, code).unwrap();
        rig.run_ms(30_000);
        assert!(
            ids.iter().all(|id| rig.has(CLIENT, *id, 100_000)),
            "seed {seed}"
        );
        rig.expect_alive();
    }
}

#[test]
fn chosen_streams_are_capped() {
    let mut rig = lossy(with(DuplicationConfig::default()), 0);
    let client = rig.client;
    let conn = rig.pair.conn(CLIENT, client);
    let taken = (0..10_000u64).filter(|n| {
        let open = conn.streams_mut().open(Dir::Uni);
        let id = open.unwrap_or(StreamId(n * 4 + 2));
        conn.duplicate_stream(id, true)
    });
    assert_eq!(taken.count(), corelane::base::limits::CHOSEN);
}
