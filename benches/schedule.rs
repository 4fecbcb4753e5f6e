//! What a choice of path costs: nanoseconds for each scheduler, with paths whose windows fill and
//! empty; what is told about the packet sent is included. One path shows what is left where there
//! is nothing to choose.
//!
//! `cargo bench --bench schedule`

use corelane::base::{Rng, Timestamp};
use corelane::path::PathId;
use corelane::path::schedule::{Decision, PathView, SchedulerContext, Selector};
use corelane::sys::clock::Clock;
use std::hint::black_box;
use std::time::Duration;

const KINDS: [&str; 8] = [
    "round-robin",
    "low-latency",
    "min-rtt:0.5",
    "ecf",
    "blest",
    "redundant",
    "weighted:0=3,1=1",
    "backup",
];
const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(10);
const MTU: usize = 1452;
/// Situations that follow each other, so that no branch is always the same.
const SITUATIONS: usize = 64;

fn main() {
    println!("{:<18} {:>6} {:>6} {:>6} {:>6}  paths", "", 1, 2, 4, 8);
    for kind in KINDS {
        let costs = [1, 2, 4, 8].map(|paths| cost(kind, paths));
        let [a, b, c, d] = costs;
        println!("{kind:<18} {a:>6.1} {b:>6.1} {c:>6.1} {d:>6.1}  ns per choice");
    }
}

/// The least time of a choice over many rounds: what other programs took is left out.
fn cost(kind: &str, paths: u32) -> f64 {
    let mut selector = Selector::new(&kind.parse().expect("a scheduler's name"));
    let situations = situations(paths);
    let now = Timestamp::from_nanos(1_000_000_000);
    let mut least = f64::INFINITY;
    for _ in 0..ROUNDS {
        let (begin, mut choices) = (Clock::now(), 0u32);
        while Clock::now() - begin < ROUND {
            for views in &situations {
                let mut ctx = SchedulerContext::new(now, black_box(views));
                ctx.packet.bytes_pending = 200_000;
                ctx.flow_credit = 1 << 20;
                match black_box(selector.select(&ctx)) {
                    Decision::Send(id) => selector.on_sent(now, id, MTU as u64),
                    Decision::Redundant(ids) => {
                        for id in ids.as_slice() {
                            selector.on_sent(now, *id, MTU as u64);
                        }
                    }
                    Decision::Wait { .. } | Decision::Nothing => {}
                }
            }
            choices += SITUATIONS as u32;
        }
        let time = (Clock::now() - begin).as_nanos() as f64;
        least = least.min(time / f64::from(choices));
    }
    least
}

/// Measured paths of 10, 20, 30 .. ms; each is full in about a third of the situations.
fn situations(paths: u32) -> Vec<Vec<PathView>> {
    let mut rng = Rng::from_u64(1);
    let mut view = |id: u32| {
        let rtt = Duration::from_millis(u64::from(10 * (id + 1)));
        let window = 100 * MTU as u64;
        PathView {
            rtt_var: rtt / 8,
            min_rtt: rtt,
            has_rtt_sample: true,
            bytes_in_flight: rng.below(window * 3 / 2).min(window),
            ..PathView::new(PathId(id), rtt, MTU, window)
        }
    };
    let all = (0..SITUATIONS).map(|_| (0..paths).map(&mut view).collect());
    all.collect()
}
