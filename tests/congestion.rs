//! Congestion control on simulated bottlenecks, in virtual time: what a flow gets out of a path, what
//! queue it leaves there, and what it leaves to others.
//!
//! Bounds are a good part of what is measured away from it: every number here repeats exactly, but a
//! better algorithm may move it.

mod common;
#[path = "congestion/lab.rs"]
mod lab;

use corelane::recovery::Algorithm;
use lab::{Flow, Lab, Path};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// 50 Mbit/s, 40 ms there and back, a queue of one bandwidth-delay product.
const PATH: Path = Path {
    mbps: 50,
    rtt: Duration::from_millis(40),
    queue_bdp: 1.0,
    loss: 0.0,
    mark: None,
};

/// Mbit/s of payload that one flow gets in the last `span` of `time`.
fn goodput(path: Path, algorithm: Algorithm, time: Duration, span: Duration) -> f64 {
    let mut lab = Lab::new(1, path, &[Flow::new(algorithm)]);
    lab.run(time.saturating_sub(span));
    lab.mbps(span)[0]
}

#[test]
fn bbr_fills_a_path_with_a_short_queue() {
    let mut lab = Lab::new(1, PATH, &[Flow::new(Algorithm::Bbr)]);
    lab.run(SECOND);
    let early = lab.mbps(SECOND)[0];
    assert!(early > 40.0, "{early} Mbit/s in the second second");
    let rate = lab.mbps(15 * SECOND)[0];
    assert!(rate > 45.0, "{rate} Mbit/s of 50");
}

#[test]
fn bbr_keeps_a_long_queue_short() {
    let long = Path {
        queue_bdp: 10.0,
        ..PATH
    };
    let delay = |algorithm| {
        let mut lab = Lab::new(1, long, &[Flow::new(algorithm)]);
        lab.run(3 * SECOND);
        let rate = lab.mbps(15 * SECOND)[0];
        assert!(rate > 45.0, "{algorithm:?}: {rate} Mbit/s of 50");
        lab.mean_queue_delay(0)
    };
    let (bbr, cubic) = (delay(Algorithm::Bbr), delay(Algorithm::Cubic));
    assert!(bbr < 20 * MS, "{bbr:?}");
    assert!(bbr * 5 < cubic, "{bbr:?} against CUBIC's {cubic:?}");
}

#[test]
fn bbr_survives_random_loss_better_than_cubic() {
    for (loss, least) in [(0.01, 40.0), (0.02, 15.0), (0.05, 2.0)] {
        let lossy = Path { loss, ..PATH };
        let [bbr, cubic] = [Algorithm::Bbr, Algorithm::Cubic]
            .map(|algorithm| goodput(lossy, algorithm, 20 * SECOND, 15 * SECOND));
        assert!(bbr > least, "{bbr} Mbit/s with {loss} lost");
        assert!(
            bbr > 2.0 * cubic,
            "{bbr} against CUBIC's {cubic} with {loss}"
        );
    }
}
