//! Steps computed by hand, and what holds for any paths.

use super::*;
use crate::recovery::cc::{Algorithm, Controller};
use crate::recovery::{PacingRate, Rtt};
use proptest::prelude::*;
use std::time::Duration;

const MTU: u64 = 1200;
const COUPLED: [Algorithm; 3] = [Algorithm::Lia, Algorithm::Olia, Algorithm::Balia];

fn at(ms: u64) -> Timestamp {
    Timestamp::from_nanos(ms * 1_000_000)
}

fn rtt(ms: u64) -> Rtt {
    let mut rtt = Rtt::default();
    rtt.on_sample(at(0), Duration::from_millis(ms), Duration::ZERO);
    rtt
}

/// A path in congestion avoidance with that window, and so many bytes acknowledged since.
fn path(algorithm: Algorithm, window: u64, run: u64) -> Controller {
    let mut controller = Controller::new(algorithm, MTU as usize);
    if let Controller::Coupled(c) = &mut controller {
        c.window.set(2 * window);
        c.on_congestion_event(at(100), at(50), Congestion::Loss(1));
        c.run = run;
    }
    assert_eq!(
        (controller.window(), controller.in_slow_start()),
        (window, false)
    );
    controller
}

struct Paths(Vec<(Controller, Rtt)>);

impl Paths {
    /// Of windows, milliseconds and bytes since the last loss.
    fn new(algorithm: Algorithm, paths: &[(u64, u64, u64)]) -> Self {
        let paths = paths.iter();
        Self(
            paths
                .map(|p| (path(algorithm, p.0, p.2), rtt(p.1)))
                .collect(),
        )
    }

    fn couple(&mut self, i: usize) {
        let mut group = CoupledGroup::default();
        for (key, (controller, rtt)) in self.0.iter().enumerate() {
            group.push(key as u32, controller, rtt);
        }
        self.0[i].0.couple(&group, i as u32);
    }

    fn coupling(&mut self, i: usize) -> (f64, f64) {
        self.couple(i);
        let Controller::Coupled(c) = &self.0[i].0 else {
            panic!("coupled");
        };
        (c.coupling.gain, c.coupling.decrease)
    }

    /// `bytes` of a full window are acknowledged on path `i`.
    fn ack(&mut self, i: usize, bytes: u64) {
        self.couple(i);
        let (controller, rtt) = &mut self.0[i];
        ack(controller, rtt, 1000, bytes);
    }

    fn window(&self, i: usize) -> u64 {
        self.0[i].0.window()
    }
}

fn ack(c: &mut Controller, rtt: &Rtt, now: u64, bytes: u64) {
    let flight = c.window();
    c.on_packet_sent(at(now - 10), flight, 0);
    c.on_ack(&AckEvent {
        now: at(now),
        acked_bytes: bytes,
        largest_acked_sent: at(now - 10),
        rtt,
        app_limited: false,
        bytes_in_flight: flight,
        bytes_left: flight - bytes,
    });
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

/// Windows of 60,000 and 120,000 bytes, 50 and 100 ms: x is 1,200,000 bytes/s on both, S 2,400,000.
/// max(w/RTT^2) = 60,000 / 0.05^2 = 24,000,000. alpha = 180,000 * 24e6 / 2.4e6^2 = 0.75.
/// Gains: alpha * w / w_total = 0.75 / 3 = 0.25 and 0.75 * 2 / 3 = 0.5.
#[test]
fn lia_by_hand() {
    let mut paths = Paths::new(Algorithm::Lia, &[(60_000, 50, 0), (120_000, 100, 0)]);
    let (one, two) = (paths.coupling(0), paths.coupling(1));
    assert!(close(one.0, 0.25) && close(two.0, 0.5), "{one:?} {two:?}");
    assert_eq!((one.1, two.1), (0.5, 0.5));
    // A datagram more after 60,000 / 0.25 = 240,000 bytes, four windows.
    for n in 1..=4 {
        paths.ack(0, 60_000);
        assert_eq!(paths.window(0), if n < 4 { 60_000 } else { 61_200 });
    }
}

/// RFC 6356 §3: never more than a flow of its own would take. 100,000 bytes at 100 ms beside 10,000
/// at 10 ms: S = 2e6, max = 10,000 / 0.01^2 = 1e8, and path 0 would gain 100,000 * 1e8 / 4e12 =
/// 2.5.
#[test]
fn lia_is_capped_at_newreno() {
    let paths = [(100_000, 100, 0), (10_000, 10, 0)];
    let mut paths = Paths::new(Algorithm::Lia, &paths);
    assert_eq!(paths.coupling(0).0, 1.0);
    // And path 1 gains 10,000 * 1e8 / 4e12 = 0.25.
    assert!(close(paths.coupling(1).0, 0.25));
}

/// The paths of the first test: (x / S)^2 = 0.25 on both. Both ran 600,000 bytes since a loss, so
/// path 0 is best by l / RTT^2; path 1 has the largest window. The one is collected and gets
/// 1 / (2 * 1), the other gives as much: gains of 0.75 and -0.25.
#[test]
fn olia_by_hand() {
    let paths = [(60_000, 50, 600_000), (120_000, 100, 600_000)];
    let mut paths = Paths::new(Algorithm::Olia, &paths);
    let (one, two) = (paths.coupling(0), paths.coupling(1));
    assert!(close(one.0, 0.75) && close(two.0, -0.25), "{one:?} {two:?}");
    // 60,000 / 0.75 = 80,000 bytes for a datagram more.
    paths.ack(0, 60_000);
    assert_eq!(paths.window(0), 60_000);
    paths.ack(0, 20_000);
    assert_eq!(paths.window(0), 61_200);
    // Fresh ones: 120,000 / 0.25 = 480,000 bytes for one less.
    let again = [(60_000, 50, 600_000), (120_000, 100, 600_000)];
    let mut paths = Paths::new(Algorithm::Olia, &again);
    for n in 1..=4 {
        paths.ack(1, 120_000);
        // What path 1 brings across makes it no better: 600,000 + 480,000 over 0.1^2 is less.
        assert_eq!(paths.window(1), if n < 4 { 120_000 } else { 118_800 });
    }
}

/// The best path is the one with most bytes between losses over RTT^2, and not the worst.
#[test]
fn olia_favours_the_best_path() {
    // 900,000 / 0.05^2 against 100,000 / 0.05^2; the worse has the larger window.
    let paths = [(60_000, 50, 900_000), (72_000, 50, 100_000)];
    let mut paths = Paths::new(Algorithm::Olia, &paths);
    let share = |own: f64| (own / 132_000.0) * (own / 132_000.0);
    assert!(close(paths.coupling(0).0, share(60_000.0) + 0.5));
    assert!(close(paths.coupling(1).0, share(72_000.0) - 0.5));
}

/// Where the largest window is on the best path already, nothing is moved; and a path that is
/// neither best nor largest keeps what it has: 1 / (3 * 1) goes from path 1 to path 0.
#[test]
fn olia_leaves_others_alone() {
    let paths = [(60_000, 50, 100_000), (72_000, 50, 900_000)];
    let mut paths = Paths::new(Algorithm::Olia, &paths);
    let share = |own: f64, all: f64| (own / all) * (own / all);
    assert!(close(paths.coupling(0).0, share(60_000.0, 132_000.0)));
    assert!(close(paths.coupling(1).0, share(72_000.0, 132_000.0)));

    let paths = [
        (60_000, 50, 900_000),
        (72_000, 50, 100_000),
        (48_000, 50, 100_000),
    ];
    let mut paths = Paths::new(Algorithm::Olia, &paths);
    let share = |own| share(own, 180_000.0);
    assert!(close(paths.coupling(0).0, share(60_000.0) + 1.0 / 3.0));
    assert!(close(paths.coupling(1).0, share(72_000.0) - 1.0 / 3.0));
    assert!(close(paths.coupling(2).0, share(48_000.0)));
}

/// The other path's RTT counts, not one's own twice: rates of 60,000 / 0.05 and 60,000 / 0.15.
#[test]
fn olia_weighs_round_trip_times() {
    let paths = [(60_000, 50, 1), (60_000, 150, 1)];
    let mut paths = Paths::new(Algorithm::Olia, &paths);
    // x = 3 : 1, equal windows, so no path is collected: (3/4)^2 and (1/4)^2.
    assert!(close(paths.coupling(0).0, 9.0 / 16.0));
    assert!(close(paths.coupling(1).0, 1.0 / 16.0));
}

/// `l` is the longer of the span before the last loss and that since.
#[test]
fn olia_remembers_the_span_before_the_last_loss() {
    let mut c = Coupled::new(Kind::Olia, MTU as usize);
    c.run = 500_000;
    assert!(c.on_congestion_event(at(100), at(50), Congestion::Loss(1)));
    assert_eq!((c.run, c.last_run, c.run()), (0, 500_000, 500_000));
    // The same recovery period is not another loss.
    assert!(!c.on_congestion_event(at(110), at(90), Congestion::Loss(3)));
    assert_eq!(c.run(), 500_000);
    c.run = 700_000;
    assert_eq!(c.run(), 700_000);
    assert!(c.on_congestion_event(at(300), at(250), Congestion::Ecn(1)));
    assert!(c.on_congestion_event(at(500), at(450), Congestion::Loss(1)));
    assert_eq!(c.run(), 0);
    // A loss that was none ended nothing.
    c.run = 40;
    assert!(c.on_congestion_event(at(700), at(650), Congestion::Loss(1)));
    c.run = 2;
    assert!(c.on_spurious(1, at(700)));
    assert_eq!(c.run(), 42);
}

/// 60,000 bytes at 50 ms and 120,000 at 200: x = 1.2e6 and 0.6e6, S = 1.8e6.
/// Path 0: a = 1, (2/3)^2 * 1 * 1 = 4/9. Path 1: a = 2, (1/3)^2 * 3/2 * 6/5 = 0.2.
/// Decreases: 1/2 * 1, and 1/2 * min(2, 1.5) = 3/4.
#[test]
fn balia_by_hand() {
    let mut paths = Paths::new(Algorithm::Balia, &[(60_000, 50, 0), (120_000, 200, 0)]);
    let (one, two) = (paths.coupling(0), paths.coupling(1));
    assert!(
        close(one.0, 4.0 / 9.0) && close(two.0, 0.2),
        "{one:?} {two:?}"
    );
    assert!(close(one.1, 0.5) && close(two.1, 0.75), "{one:?} {two:?}");
    // 120,000 / 0.2 = 600,000 bytes, five windows.
    for n in 1..=5 {
        paths.ack(1, 120_000);
        assert_eq!(paths.window(1), if n < 5 { 120_000 } else { 121_200 });
    }
    // A quarter of 121,200 stays. x1 is 606,000 by now, a = 1.98, and the cap holds still.
    paths.couple(1);
    let two = &mut paths.0[1].0;
    assert!(two.on_congestion_event(at(1100), at(1050), Congestion::Loss(1)));
    assert_eq!((two.window(), two.ssthresh()), (30_300, 30_300));
    assert!(!two.on_congestion_event(at(1110), at(1060), Congestion::Loss(1)));
    assert_eq!(two.window(), 30_300, "once a recovery period");
}

/// Two paths with the same window and RTT: each gains a quarter, so both together half of what a
/// flow on either alone would.
#[test]
fn equal_paths_share_one_flows_increase() {
    for algorithm in COUPLED {
        let mut paths = Paths::new(algorithm, &[(60_000, 50, 9), (60_000, 50, 9)]);
        for i in 0..2 {
            let (gain, decrease) = paths.coupling(i);
            // LIA: 60,000 * (60,000 / r^2) / (120,000 / r)^2; the others (1/2)^2.
            assert!(close(gain, 0.25) && close(decrease, 0.5), "{algorithm:?}");
        }
    }
}

/// What the others said holds for one acknowledgement: paths may close without a word here.
#[test]
fn coupling_does_not_outlive_its_acknowledgement() {
    for algorithm in COUPLED {
        let mut paths = Paths::new(algorithm, &[(60_000, 50, 9), (60_000, 50, 9)]);
        paths.ack(0, 60_000);
        let (c, rtt) = &mut paths.0[0];
        assert_eq!(c.window(), 60_000);
        // A quarter of a window is there; three quarters at a gain of 1 complete it.
        ack(c, rtt, 1100, 45_000);
        assert_eq!(c.window(), 61_200, "{algorithm:?}");
    }
}

#[test]
fn the_group_takes_what_counts_and_no_more_than_fit() {
    use crate::base::limits;
    let c = path(Algorithm::Lia, 60_000, 0);
    let mut group = CoupledGroup::default();
    group.push(0, &c, &rtt(50));
    // Neither what is not coupled nor what was never measured.
    group.push(1, &Controller::new(Algorithm::Cubic, 1200), &rtt(50));
    group.push(2, &c, &Rtt::default());
    group.push(3, &c, &rtt(0));
    assert_eq!(group.coupling(Kind::Lia, 0), Coupling::ALONE);
    for key in 10..10 + limits::PATHS as u32 {
        group.push(key, &c, &rtt(50));
    }
    let last = 10 + limits::PATHS as u32 - 1;
    let n = limits::PATHS as f64;
    assert!(close(group.coupling(Kind::Lia, 0).gain, 1.0 / (n * n)));
    // Who is not in the group is alone.
    assert_eq!(group.coupling(Kind::Lia, last), Coupling::ALONE);
    assert_eq!(group.coupling(Kind::Balia, 99), Coupling::ALONE);
}

#[test]
fn names_and_questions() {
    for algorithm in COUPLED {
        let c = Controller::new(algorithm, 1200);
        assert!(c.algorithm() == algorithm && c.is_coupled());
        assert!(c.pacing().map(|p: PacingRate| p.rate).is_none());
    }
    assert!(!Controller::new(Algorithm::NewReno, 1200).is_coupled());
}

/// What may happen on one of several paths: bytes acknowledged, congestion, persistent congestion.
fn any_step() -> impl Strategy<Value = (usize, u8, u64)> {
    (0usize..3, 0u8..20, 1u64..100_000)
}

proptest! {
    /// No window leaves its bounds, and LIA's never grows faster than NewReno's on the same path.
    #[test]
    fn windows_keep_their_bounds(
        algorithm in proptest::sample::select(&COUPLED[..]),
        rtts in proptest::collection::vec(1u64..500, 3),
        steps in proptest::collection::vec(any_step(), 1..200),
    ) {
        let paths: Vec<_> = rtts.iter().map(|r| (60_000, *r, 1)).collect();
        let mut paths = Paths::new(algorithm, &paths);
        let mut now = 1000;
        for (i, op, bytes) in steps {
            now += 50;
            paths.couple(i);
            let (c, rtt) = &mut paths.0[i];
            let before = c.window();
            let bytes = bytes.min(before);
            match op {
                0..=16 => {
                    let Controller::Coupled(coupled) = &*c else { panic!("coupled") };
                    let gain = coupled.coupling.gain;
                    let most = if algorithm == Algorithm::Olia { 1.5 } else { 1.0 };
                    prop_assert!((-0.5..=most).contains(&gain), "{algorithm:?} {gain}");
                    ack(c, rtt, now, bytes);
                    prop_assert!(c.window() <= before + bytes.max(MTU));
                    prop_assert!(algorithm == Algorithm::Olia || c.window() >= before);
                }
                17 | 18 => {
                    c.on_congestion_event(at(now), at(now - 5), Congestion::Loss(1));
                    prop_assert!(c.window() <= before);
                    prop_assert!(c.window() >= (before / 4).min(before));
                }
                _ => c.on_persistent_congestion(at(now)),
            }
            prop_assert!(c.window() >= 2 * MTU);
        }
    }

    /// The same events, on NewReno and on LIA beside two others: LIA is never ahead.
    #[test]
    fn lia_is_never_faster_than_newreno(
        rtts in proptest::collection::vec(1u64..500, 3),
        windows in proptest::collection::vec(2_400u64..1_000_000, 2),
        acks in proptest::collection::vec(1u64..=100, 1..300),
    ) {
        let others = [(60_000, rtts[0], 1), (windows[0], rtts[1], 1), (windows[1], rtts[2], 1)];
        let mut paths = Paths::new(Algorithm::Lia, &others);
        let mut alone = path(Algorithm::Lia, 60_000, 1);
        let mut now = 1000;
        for percent in acks {
            now += 50;
            paths.couple(0);
            let (c, rtt) = &mut paths.0[0];
            let bytes = c.window() * percent / 100;
            ack(c, rtt, now, bytes);
            ack(&mut alone, rtt, now, bytes);
            prop_assert!(c.window() <= alone.window());
        }
    }

    /// One path: NewReno to the byte, whether the group of one is told or nothing is.
    #[test]
    fn alone_they_are_newreno(
        steps in proptest::collection::vec((0u8..20, 1u64..200_000), 1..300),
        told: bool,
    ) {
        for algorithm in COUPLED {
            let mut pair = [Algorithm::NewReno, algorithm].map(|a| Controller::new(a, 1200));
            let rtt = rtt(50);
            let mut now = 1000;
            for (op, bytes) in &steps {
                now += 50;
                for c in &mut pair {
                    if told {
                        let mut group = CoupledGroup::default();
                        group.push(0, c, &rtt);
                        c.couple(&group, 0);
                    }
                    match op {
                        0..=16 => ack(c, &rtt, now, *bytes.min(&c.window())),
                        17 => {
                            c.on_congestion_event(at(now), at(now - 5), Congestion::Loss(2));
                        }
                        18 => {
                            c.on_spurious(2, at(now));
                        }
                        _ => c.on_persistent_congestion(at(now)),
                    }
                }
                prop_assert_eq!(pair[0].window(), pair[1].window());
                prop_assert_eq!(pair[0].ssthresh(), pair[1].ssthresh());
            }
        }
    }
}
