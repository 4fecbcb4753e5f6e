//! What is overdue or lost on one path goes out on another: sooner than without, within its limits,
//! never twice in one space, and counted once.

use crate::common::pair::{CLIENT, Setup};
use crate::rig::*;
use corelane::conn::CopyStats;
use corelane::path::PathId;
use corelane::path::reinject::{ReinjectionConfig, TargetSelector};
use corelane::path::schedule::SchedulerContext;
use corelane::wire::StreamId;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

fn soon() -> ReinjectionConfig {
    ReinjectionConfig {
        delay: Some(Duration::from_millis(2)),
        ..ReinjectionConfig::default()
    }
}

fn with(config: Option<ReinjectionConfig>) -> Setup {
    let mut s = setup(4);
    s.client.multipath.reinjection = config;
    s
}

/// Two warm paths.
fn two(config: Option<ReinjectionConfig>) -> Rig {
    let mut rig = Rig::with(with(config)).and_second();
    rig.deliver(CLIENT, 300_000, 2000);
    rig
}

fn stats(rig: &mut Rig) -> CopyStats {
    let id = rig.client;
    rig.pair.conn(CLIENT, id).copy_stats()
}

/// Runs until a stream is there; returns how long that took.
fn time_of(rig: &mut Rig, id: StreamId, bytes: usize) -> Duration {
    let begin = rig.pair.now;
    while !rig.has(CLIENT, id, bytes) {
        rig.run_ms(1);
        assert!(rig.pair.now - begin < Duration::from_secs(60), "stalls");
    }
    rig.pair.now - begin
}

/// The client's first path goes dark with data under way: how long that holds a stream up.
fn stall(config: Option<ReinjectionConfig>, dark: ([u8; 4], u16)) -> (Duration, Rig) {
    let mut rig = two(None);
    let client = rig.client;
    let conn = rig.pair.conn(CLIENT, client);
    assert!(conn.set_reinjection(config, None));
    rig.darken(at(dark));
    let id = rig.send(CLIENT, 20_000);
    let took = time_of(&mut rig, id, 20_000);
    (took, rig)
}

/// Virtual time is exact: what is overdue leaves two milliseconds after a round trip, and arrives
/// half a round trip later.
#[test]
fn overdue_data_goes_elsewhere_before_the_probe_timeout() {
    let mut faster = 0;
    for dark in [CLIENT_0, CLIENT_1] {
        let (without, _) = stall(None, dark);
        let (with, mut rig) = stall(Some(soon()), dark);
        assert!(with <= without, "{dark:?}: {with:?} {without:?}");
        if with < without {
            faster += 1;
            assert!(with <= Duration::from_millis(20 + 2 + 10 + 4), "{with:?}");
            assert!(without >= Duration::from_millis(45), "{without:?}");
            assert!(stats(&mut rig).reinjected_packets > 0);
        }
        rig.expect_alive();
    }
    assert!(faster > 0, "neither path carried the data");
}

/// What was lost on one path is repeated on the other, at once.
#[test]
fn lost_data_goes_elsewhere() {
    let config = ReinjectionConfig {
        delay: None,
        ..ReinjectionConfig::default()
    };
    let mut rig = two(Some(config));
    rig.lose(at(CLIENT_0), 10);
    rig.deliver(CLIENT, 500_000, 20_000);
    let s = stats(&mut rig);
    let lost = rig.info(CLIENT, PathId(0)).unwrap().counters.packets_lost;
    assert!(
        s.reinjected_packets > 10 && s.reinjected_packets <= lost,
        "{s:?}"
    );
    let onto = [0, 1].map(|id| rig.info(CLIENT, PathId(id)).unwrap().counters);
    assert_eq!(onto[0].packets_reinjected, 0, "never where it was lost");
    assert!(onto[1].packets_reinjected > 10);
    rig.expect_alive();
}

/// Where nothing is overdue nothing is reinjected, and a spurious reinjection is counted once.
#[test]
fn every_byte_counts_once() {
    let mut rig = two(Some(ReinjectionConfig::default()));
    rig.deliver(CLIENT, 500_000, 5000);
    assert_eq!(stats(&mut rig), CopyStats::default());
    // Acknowledgements are overdue by design now: everything is sent on both paths.
    let config = ReinjectionConfig {
        delay: Some(Duration::ZERO),
        queue_limit: 1000,
        ..ReinjectionConfig::default()
    };
    let mut rig = two(Some(config));
    rig.delay(at(SERVER_0), 9);
    let before = rig.client_stream_stats();
    rig.deliver(CLIENT, 200_000, 8000);
    rig.run_ms(1000);
    let after = rig.client_stream_stats();
    assert_eq!(after.tx_bytes - before.tx_bytes, 200_000);
    let s = stats(&mut rig);
    assert!(s.reinjected_packets > 20, "{s:?}");
    for id in [0, 1] {
        let info = rig.info(CLIENT, PathId(id)).unwrap();
        assert_eq!(info.stats.bytes_in_flight, 0, "{info:?}");
    }
    assert_eq!(after.streams_opened, after.streams_closed);
    let sum: u64 = [0, 1]
        .map(|id| {
            rig.info(CLIENT, PathId(id))
                .unwrap()
                .counters
                .bytes_reinjected
        })
        .iter()
        .sum();
    assert_eq!(sum, s.reinjected_bytes);
    rig.expect_alive();
}

/// Frames a path may have waiting, times a frame may be repeated, and the time between two.
#[test]
fn limits_are_kept() {
    let none = ReinjectionConfig {
        max_per_frame: 0,
        ..soon()
    };
    let (_, mut rig) = stall(Some(none), CLIENT_0);
    assert_eq!(stats(&mut rig).reinjected_packets, 0);
    // One may wait: another follows when it has left.
    let one = ReinjectionConfig {
        queue_limit: 1,
        ..soon()
    };
    let (_, mut rig) = stall(Some(one), CLIENT_0);
    assert!(stats(&mut rig).reinjected_packets > 0);
    // With 30 ms between them, few leave before the probe timeout moves the rest.
    let rare = ReinjectionConfig {
        min_interval: Duration::from_millis(30),
        ..soon()
    };
    let (_, mut all) = stall(Some(soon()), CLIENT_0);
    let (took, mut rig) = stall(Some(rare), CLIENT_0);
    let (few, many) = (stats(&mut rig), stats(&mut all));
    assert!(
        few.reinjected_packets <= 1 + took.as_millis() as u64 / 30,
        "{few:?} {took:?}"
    );
    assert!(
        few.reinjected_packets < many.reinjected_packets,
        "{few:?} {many:?}"
    );
}

/// Chooses one path always, and counts how often it was asked.
struct Only(PathId, Arc<AtomicU32>);

impl TargetSelector for Only {
    fn target(&mut self, _: &SchedulerContext<'_>, _: PathId) -> Option<PathId> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Some(self.0)
    }
}

#[test]
fn the_application_chooses_where_to() {
    for preferred in [false, true] {
        let mut rig = two(None);
        let tuple = corelane::base::FourTuple::new(at(CLIENT_1), at(SERVER_1));
        let third = rig
            .open_over(1, tuple, corelane::path::PathStatus::Available)
            .unwrap();
        rig.run_ms(300);
        rig.expect_open(third);
        let asked = Arc::new(AtomicU32::new(0));
        let client = rig.client;
        let conn = rig.pair.conn(CLIENT, client);
        let mut config = soon();
        let selector: Option<Box<dyn TargetSelector>> = if preferred {
            config.preferred.push(third);
            None
        } else {
            Some(Box::new(Only(third, asked.clone())))
        };
        assert!(conn.set_reinjection(Some(config), selector));
        rig.darken(at(CLIENT_0));
        let id = rig.send(CLIENT, 60_000);
        time_of(&mut rig, id, 60_000);
        let counters = [0, 1, 2].map(|id| rig.info(CLIENT, PathId(id)).unwrap().counters);
        assert!(counters[2].packets_reinjected > 0, "{counters:?}");
        assert_eq!(counters[1].packets_reinjected, 0, "{counters:?}");
        assert_eq!(asked.load(Ordering::Relaxed) > 0, !preferred);
    }
}

/// The tail of a stream with a deadline leaves again in time to arrive before it.
#[test]
fn a_deadline_sends_the_tail_again() {
    let run = |deadline: bool| {
        let config = ReinjectionConfig {
            delay: None,
            on_failure: false,
            ..ReinjectionConfig::default()
        };
        let mut rig = two(Some(config));
        rig.darken(at(CLIENT_0));
        let id = rig.send(CLIENT, 10_000);
        if deadline {
            let (at, client) = (rig.pair.now + Duration::from_millis(30), rig.client);
            assert!(
                rig.pair
                    .conn(CLIENT, client)
                    .set_stream_deadline(id, Some(at))
            );
        }
        let took = time_of(&mut rig, id, 10_000);
        (took, stats(&mut rig).reinjected_packets)
    };
    let (without, none) = run(false);
    let (with, some) = run(true);
    assert!(
        without > Duration::from_millis(30) && none == 0,
        "{without:?} {none}"
    );
    assert!(
        with <= Duration::from_millis(30) && some > 0,
        "{with:?} {some}"
    );
}

#[test]
fn deadlines_are_capped() {
    let mut rig = two(Some(soon()));
    let (now, client) = (rig.pair.now, rig.client);
    let conn = rig.pair.conn(CLIENT, client);
    let at = Some(now + Duration::from_secs(9));
    let taken = (0..5000u64).filter(|n| conn.set_stream_deadline(StreamId(n * 4 + 2), at));
    assert_eq!(taken.count(), corelane::base::limits::CHOSEN);
    // Those of streams that are no more are forgotten.
    rig.run_ms(20);
    let conn = rig.pair.conn(CLIENT, client);
    assert!(conn.set_stream_deadline(StreamId(2), at));
    let mut off = two(None);
    let conn = off.pair.conn(CLIENT, client);
    assert!(!conn.set_stream_deadline(StreamId(2), at));
}
