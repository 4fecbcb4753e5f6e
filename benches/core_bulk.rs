//! What the state machine costs in bulk transfer: two endpoints in memory on one thread, trains
//! handed over without a network. Prints nanoseconds per packet for sending, receiving and
//! acknowledging, AEAD and header protection included.
//!
//! `cargo bench --bench core_bulk [-- MEGABYTES]`

#[path = "../tests/common/bulk.rs"]
#[expect(dead_code, reason = "the other counts and benches use the rest of it")]
mod bulk;
#[path = "../tests/common/certs.rs"]
#[expect(dead_code, reason = "the tests use the rest of it")]
mod certs;

use bulk::{Bulk, Step};
use std::time::Duration;

fn main() {
    let megabytes: u64 = std::env::args()
        .filter_map(|a| a.parse().ok())
        .next()
        .unwrap_or(2_000);
    let mut bulk = Bulk::connect();
    let mut sum = Step::default();
    while bulk.app.bytes < megabytes << 20 {
        let step = bulk.step();
        sum.sending += step.sending;
        sum.receiving += step.receiving;
        sum.acking += step.acking;
        sum.packets += step.packets;
        sum.acks += step.acks;
    }
    let per = |d: Duration| d.as_nanos() as f64 / sum.packets as f64;
    let all = (sum.sending + sum.receiving + sum.acking).as_nanos() as f64;
    println!("packets {}, acknowledgements {}", sum.packets, sum.acks);
    println!("send      {:7.1} ns/packet", per(sum.sending));
    println!("receive   {:7.1} ns/packet, ACKs built", per(sum.receiving));
    println!("be acked  {:7.1} ns/packet", per(sum.acking));
    println!(
        "one core  {:7.2} Gbit/s of stream data",
        bulk.app.bytes as f64 * 8.0 / all
    );
}
