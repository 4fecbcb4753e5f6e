//! What several paths are worth on links with a rate and a delay: the sum of what each carries, and
//! a transfer that goes on when one of them goes dark.

use crate::common::pair::{CLIENT, SERVER};
use crate::links::{Lab, Link, Net};
use corelane::conn::PathEvent;
use corelane::path::schedule::SchedulerKind;
use corelane::path::{PathId, PathState};
use corelane::wire::{Code, Dir};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// The schedulers that use all paths for all they carry.
const AGGREGATING: [SchedulerKind; 4] = [
    SchedulerKind::LowLatency,
    SchedulerKind::MinRtt { bias: 0.5 },
    SchedulerKind::RoundRobin,
    SchedulerKind::Blest,
];

/// Each scheduler brings a transfer to its end, both ways: every byte once and in its place, and
/// the counters agree.
#[test]
fn every_scheduler_delivers_every_byte_once() {
    const LEN: usize = 3_000_000;
    let data: Vec<u8> = (0..LEN).map(|n| (n * 31 / 7) as u8).collect();
    let weighted = SchedulerKind::Weighted(vec![(PathId(0), 3), (PathId(1), 1)]);
    let others = [
        SchedulerKind::Ecf,
        SchedulerKind::Redundant { paths: 2 },
        SchedulerKind::Backup,
        weighted,
    ];
    for kind in AGGREGATING.into_iter().chain(others) {
        let net = Net::new(&[10, 30].map(|ms| Link::new(20, ms)));
        let mut lab = Lab::new(net, |c| c.multipath.scheduler = kind.clone());
        let ids = lab.rig.ids();
        let streams = [CLIENT, SERVER].map(|side| {
            let streams = lab.rig.pair.conn(side, ids[side]).streams_mut();
            let id = streams.open(Dir::Uni).expect("a stream");
            assert_eq!(streams.write(id, &data), Ok(LEN));
            streams.finish(id).expect("finished");
            id
        });
        lab.rig.run_ms(6000);
        for side in [CLIENT, SERVER] {
            let to = 1 - side;
            assert!(lab.rig.has(side, streams[side], LEN), "{kind} from {side}");
            let key = (ids[to].index(), streams[side].0);
            assert!(lab.rig.pair.sides[to].app.received[&key] == data, "{kind}");
            let conn = lab.rig.pair.conn(to, ids[to]);
            assert_eq!(conn.streams().stats().rx_bytes, LEN as u64, "{kind}");
            assert_eq!(conn.streams().stats().tx_bytes, LEN as u64, "{kind}");
            for id in [0, 1] {
                let info = lab.info(side, id);
                let c = info.counters;
                assert_eq!(info.stats.bytes_in_flight, 0, "{kind}: {info:?}");
                assert!(c.packets_acked <= info.packets_sent, "{info:?}");
                assert!(c.bytes_acked <= c.bytes_sent, "{info:?}");
            }
        }
        lab.rig.expect_alive();
    }
}

/// Two links of 20 Mbit/s carry 38 together once slow start is over, and little less with it,
/// whatever lies between their delays.
#[test]
fn two_paths_carry_the_sum() {
    for kind in AGGREGATING {
        for delays in [[10, 10], [10, 60]] {
            let net = Net::new(&delays.map(|ms| Link::new(20, ms)));
            let mut lab = Lab::new(net, |c| c.multipath.scheduler = kind.clone());
            lab.flow(CLIENT);
            let first = lab.rates(2000)[0];
            let rate = lab.rates(8000)[0];
            assert!(rate >= 38.0, "{kind} over {delays:?} ms: {rate} Mbit/s");
            let all = (first * 2.0 + rate * 8.0) / 10.0;
            assert!(all >= 37.0, "{kind} over {delays:?} ms: {all} Mbit/s");
            lab.rig.expect_alive();
        }
    }
}

/// One of two links goes dark in mid-transfer: the application waits for three probe timeouts or
/// 300 ms at most, with no timeout of paths set, and hears of it; when the link is back, so is the
/// path.
#[test]
fn a_dark_link_stalls_nothing_for_long() {
    for (dark, from) in [(0, CLIENT), (1, CLIENT), (0, SERVER), (1, SERVER)] {
        let net = Net::new(&[10, 30].map(|ms| Link::new(20, ms)));
        let mut lab = Lab::new(net, |_| {});
        let flow = lab.flow(from);
        lab.run_ms(3000);
        let stats = lab.info(from, dark as u32).stats;
        let pto = stats.smoothed_rtt + stats.rttvar * 4 + 25 * MS;
        lab.flows[flow].longest_stall = Duration::ZERO;
        lab.darken(dark, true);
        let rate = lab.rates(3000)[0];
        let (stall, most) = (lab.flows[flow].longest_stall, (pto * 3).max(300 * MS));
        assert!(stall <= most, "link {dark}: {stall:?}, a PTO is {pto:?}");
        assert!(rate > 15.0, "the other link goes on: {rate} Mbit/s");
        let id = PathId(dark as u32);
        assert!(lab.rig.saw(from, PathEvent::PotentiallyFailed(id)));
        lab.darken(dark, false);
        lab.run_ms(4000);
        assert!(lab.rig.saw(from, PathEvent::Recovered(id)));
        assert_eq!(lab.info(from, id.0).pto_count, 0);
        let rate = lab.rates(3000)[0];
        assert!(rate > 34.0, "both links are used again: {rate} Mbit/s");
        lab.rig.expect_alive();
    }
}

/// A silent path is abandoned after the time that was set, and the last one never.
#[test]
fn a_silent_path_is_abandoned_when_its_time_is_over() {
    let net = Net::new(&[10, 10].map(|ms| Link::new(20, ms)));
    let mut lab = Lab::new(net, |c| {
        c.multipath.failure.floor = 50 * MS;
        c.multipath.failure.abandon_after = Some(2000 * MS);
    });
    lab.flow(CLIENT);
    lab.run_ms(1000);
    lab.darken(1, true);
    lab.run_ms(1000);
    let (id, by_peer) = (PathId(1), false);
    assert!(lab.rig.saw(CLIENT, PathEvent::PotentiallyFailed(id)));
    let silent = lab.info(CLIENT, 1);
    assert_eq!(silent.state, PathState::Open);
    assert!(silent.potentially_failed && !lab.info(CLIENT, 0).potentially_failed);
    lab.run_ms(1500);
    let error = Code::PATH_UNSTABLE_OR_POOR;
    assert!(
        lab.rig
            .saw(CLIENT, PathEvent::Abandoned { id, error, by_peer })
    );
    lab.darken(0, true);
    lab.run_ms(10_000);
    assert_eq!(lab.info(CLIENT, 0).state, PathState::Open);
    lab.darken(0, false);
    let rate = lab.rates(8000)[0];
    assert!(rate > 5.0, "the last path recovers: {rate} Mbit/s");
    lab.rig.expect_alive();
}

/// Nothing but silence makes a path fail: not a minute of idle time, a queue of half a second, or
/// the losses that end slow start.
#[test]
fn a_healthy_path_is_never_given_up() {
    let mut links = [10, 60].map(|ms| Link::new(20, ms));
    // A deep queue: round trips grow to half a second.
    links[1].queue = 1_250_000;
    let mut lab = Lab::new(Net::new(&links), |c| {
        c.multipath.failure.abandon_after = Some(500 * MS);
        c.max_idle_timeout = Duration::from_secs(300);
    });
    for _ in 0..2 {
        lab.flow(CLIENT);
        lab.run_ms(10_000);
        lab.flows.clear();
        lab.rig.run_ms(60_000);
    }
    for id in [0, 1] {
        let [client, server] = [CLIENT, SERVER].map(|side| lab.info(side, id));
        assert_eq!([client.state, server.state], [PathState::Open; 2]);
        assert_eq!(client.counters.failures, 0, "{client:?}");
    }
    lab.rig.expect_alive();
}

/// A path that was slow for a while is used again: what leaves it out for its round trip finds out
/// that this is past, at the price of a few packets a second.
#[test]
fn a_path_that_was_slow_for_a_while_is_used_again() {
    for kind in [
        SchedulerKind::LowLatency,
        SchedulerKind::MinRtt { bias: 1.0 },
        SchedulerKind::Ecf,
        SchedulerKind::Blest,
    ] {
        let net = Net::new(&[10, 30].map(|ms| Link::new(20, ms)));
        let mut lab = Lab::new(net, |c| c.multipath.scheduler = kind.clone());
        let ids = lab.rig.ids();
        // A request of a kilobyte every 20 ms; returns the bytes and packets of each path.
        let ask = |lab: &mut Lab, ms: u64, delay: u64| {
            for link in &mut lab.net.lock().expect("no panic").links[0] {
                link.delay = Duration::from_millis(delay);
            }
            let count = |lab: &mut Lab| {
                let paths = [0, 1].map(|id| lab.info(CLIENT, id));
                paths.map(|p| (p.counters.bytes_sent, p.packets_sent))
            };
            let before = count(lab);
            for _ in 0..ms / 20 {
                let streams = lab.rig.pair.conn(CLIENT, ids[CLIENT]).streams_mut();
                let id = streams.open(Dir::Uni).expect("a stream");
                assert_eq!(streams.write(id, &[7; 1000]), Ok(1000));
                streams.finish(id).expect("finished");
                lab.rig.run_ms(20);
            }
            let after = count(lab);
            [0, 1].map(|n| (after[n].0 - before[n].0, after[n].1 - before[n].1))
        };
        let [near, far] = ask(&mut lab, 3000, 10);
        assert!(near.0 > 9 * far.0, "{kind}: {near:?} {far:?}");
        ask(&mut lab, 1000, 300);
        let [near, far] = ask(&mut lab, 5000, 300);
        assert!(
            far.0 > 9 * near.0 && near.1 <= 30,
            "{kind}: {near:?} {far:?}"
        );
        ask(&mut lab, 8000, 10);
        let [near, far] = ask(&mut lab, 3000, 10);
        assert!(near.0 > 9 * far.0, "{kind}: {near:?} {far:?}");
        lab.rig.expect_alive();
    }
}
