//! What the state machine costs in requests of 64 bytes: two endpoints in memory on one thread, one
//! exchange at a time. Prints nanoseconds per exchange for each of its three parts, AEAD and header
//! protection included.
//!
//! `cargo bench --bench core_rr [-- REQUESTS]`

#[path = "../tests/common/bulk.rs"]
#[expect(dead_code, reason = "the other benches use the rest of it")]
mod bulk;
#[path = "../tests/common/certs.rs"]
#[expect(dead_code, reason = "the tests use the rest of it")]
mod certs;

use bulk::Bulk;
use corelane::sys::clock::Clock;

fn main() {
    let requests: u64 = std::env::args()
        .filter_map(|a| a.parse().ok())
        .next()
        .unwrap_or(1_000_000);
    let mut ends = Bulk::connect();
    let mut spent = [0u64; 3];
    for n in 0..requests + requests / 10 {
        let t0 = Clock::now();
        ends.request(64);
        ends.send(t0);
        let t1 = Clock::now();
        ends.receive(t1);
        let t2 = Clock::now();
        ends.be_acked(t2);
        let t3 = Clock::now();
        // The first tenth warms up.
        if n >= requests / 10 {
            for (sum, span) in spent.iter_mut().zip([t1 - t0, t2 - t1, t3 - t2]) {
                *sum += span.as_nanos() as u64;
            }
        }
    }
    let per = |part: u64| part as f64 / requests as f64;
    println!("ask          {:7.1} ns/request", per(spent[0]));
    println!("answer       {:7.1} ns/request", per(spent[1]));
    println!("be answered  {:7.1} ns/request", per(spent[2]));
    println!("all          {:7.1} ns/request", per(spent.iter().sum()));
}
