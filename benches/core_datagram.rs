//! What the state machine costs for datagrams: two endpoints in memory on one thread, trains handed
//! over without a network. Prints nanoseconds per datagram for queueing, sending, receiving and
//! handing over to the application, AEAD and header protection included.
//!
//! `cargo bench --bench core_datagram [-- MILLIONS]`

#[path = "../tests/common/certs.rs"]
#[expect(dead_code, reason = "the tests use the rest of it")]
mod certs;
#[path = "../tests/common/datagrams.rs"]
mod datagrams;

use datagrams::{Datagrams, Step, Taking};
use std::time::Duration;

fn main() {
    let millions: u64 = std::env::args()
        .filter_map(|a| a.parse().ok())
        .next()
        .unwrap_or(20);
    println!("ns/datagram     queue    send receive    take    acks     sum");
    for len in [100, 1100] {
        for taking in [Taking::Shown, Taking::Batch, Taking::Single] {
            measure(len, taking, millions * 1_000_000 * 100 / len as u64);
        }
    }
}

fn measure(len: usize, taking: Taking, count: u64) {
    let mut load = Datagrams::connect(len, taking);
    let mut sum = Step::default();
    while load.app.count < count {
        let step = load.step();
        sum.queueing += step.queueing;
        sum.sending += step.sending;
        sum.receiving += step.receiving;
        sum.taking += step.taking;
        sum.acking += step.acking;
        sum.packets += step.packets;
        sum.queued += step.queued;
    }
    let per = |d: Duration| d.as_nanos() as f64 / load.app.count as f64;
    let parts = [
        sum.queueing,
        sum.sending,
        sum.receiving,
        sum.taking,
        sum.acking,
    ];
    let cells: String = parts
        .iter()
        .chain([&parts.iter().sum()])
        .map(|d| format!("{:8.1}", per(*d)))
        .collect();
    let per_packet = load.app.count as f64 / sum.packets as f64;
    let name = format!("{taking:?}").to_lowercase();
    println!("{len:5} {name:6} {cells}   {per_packet:.2} a packet");
    assert_eq!(load.app.bytes, load.app.count * len as u64);
    assert!(load.app.count <= sum.queued, "none came twice");
}
