//! What a datagram costs that landed on the wrong shard: the mailbox between two shards, each on a
//! thread and, where there are two, a core of its own. Prints, for single datagrams and for trains,
//! nanoseconds per packet that the sender and the receiver spend, and from end to end. With
//! `scale`, what two state machines on two threads do beside one.
//!
//! `cargo bench --bench forward [-- scale]`

#[path = "../tests/common/bulk.rs"]
#[expect(dead_code, reason = "other benches and tests use the rest of it")]
mod bulk;
#[path = "../tests/common/certs.rs"]
#[expect(dead_code, reason = "the tests use the rest of it")]
mod certs;

use corelane::base::{Ecn, FourTuple, RecvMeta, SocketId};
use corelane::shard::mailbox::Mailbox;
use corelane::sys::affinity::{self, Core};
use corelane::sys::clock::Clock;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::time::Duration;

/// Packets of one measurement, roughly.
const PACKETS: usize = 4_000_000;
/// Runs that a shard takes from others in a turn.
const BUDGET: usize = 256;

fn main() {
    if std::env::args().any(|a| a == "scale") {
        scale();
        return;
    }
    for (size, segments) in [(100, 1), (1_452, 1), (1_452, 8), (1_452, 44)] {
        let mut rounds: Vec<[f64; 3]> = (0..7).map(|_| forward(size, segments)).collect();
        rounds.sort_by(|a, b| a[2].total_cmp(&b[2]));
        let [send, take, all] = rounds[rounds.len() / 2];
        println!(
            "{segments:3} x {size:5} B: send {send:6.1}, take {take:6.1}, pass {all:6.1} ns/packet"
        );
    }
}

fn pin(index: usize) {
    if let Some(core) = affinity::cores().get(index) {
        let _: Result<(), affinity::PinError> = affinity::pin_to(Core(core.0));
    }
}

/// Nanoseconds per packet: in calls that sent, in calls that took, from the first to the last.
fn forward(size: usize, segments: usize) -> [f64; 3] {
    let addr = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let meta = RecvMeta {
        socket: SocketId(0),
        path: FourTuple::new(addr(1), addr(2)),
        ecn: Ecn::NotEct,
        segment_size: size,
    };
    let mut boxes = Mailbox::<()>::build(2).into_iter();
    let (Some(mut from), Some(mut to)) = (boxes.next(), boxes.next()) else {
        return [0.0; 3];
    };
    let runs = PACKETS / segments / (1 + segments / 8);
    let start = Barrier::new(2);
    let (sending, (taking, all)) = std::thread::scope(|s| {
        let start = &start;
        let sender = s.spawn(move || {
            pin(0);
            let bytes = vec![7; size * segments];
            start.wait();
            let mut time = Duration::ZERO;
            let mut sent = 0;
            while sent < runs {
                let begun = Clock::now();
                let mut some = 0;
                while some < 64 && sent + some < runs && from.send(1, &meta, &bytes) {
                    some += 1;
                }
                if some > 0 {
                    time += Clock::now() - begun;
                    sent += some;
                } else {
                    std::hint::spin_loop();
                }
            }
            time
        });
        let taker = s.spawn(move || {
            pin(1);
            start.wait();
            let first = Clock::now();
            let (mut time, mut taken, mut seen) = (Duration::ZERO, 0, 0u64);
            while taken < runs {
                let begun = Clock::now();
                let some = to.recv(BUDGET, &mut |meta, bytes| {
                    // What routing looks at: the first bytes of each datagram.
                    for datagram in bytes.chunks(meta.segment_size) {
                        seen += u64::from(datagram[0]) + u64::from(datagram[8]);
                    }
                });
                if some > 0 {
                    time += Clock::now() - begun;
                    taken += some;
                } else {
                    std::hint::spin_loop();
                }
            }
            assert_eq!(seen, 14 * (runs * segments) as u64);
            (time, Clock::now() - first)
        });
        let time = sender.join().expect("the sender");
        (time, taker.join().expect("the receiver"))
    });
    [sending, taking, all].map(|d| d.as_nanos() as f64 / (runs * segments) as f64)
}

/// Packets per second of one state machine, and of two that know nothing of each other.
fn scale() {
    let mut ratios: Vec<(f64, f64)> = (0..5).map(|_| (rate(1), rate(2))).collect();
    ratios.sort_by(|a, b| (a.1 / a.0).total_cmp(&(b.1 / b.0)));
    let (one, two) = ratios[ratios.len() / 2];
    println!(
        "one thread {one:.0} packets/s, two {two:.0}, x {:.2}",
        two / one
    );
}

fn rate(threads: usize) -> f64 {
    let start = Barrier::new(threads);
    std::thread::scope(|s| {
        let work = |index: usize| {
            let start = &start;
            s.spawn(move || {
                pin(index);
                let mut bulk = bulk::Bulk::connect();
                while bulk.app.bytes < 64 << 20 {
                    bulk.step();
                }
                start.wait();
                let (begun, mut packets) = (Clock::now(), 0);
                while Clock::now() - begun < Duration::from_secs(2) {
                    packets += bulk.step().packets;
                }
                packets as f64 / (Clock::now() - begun).as_secs_f64()
            })
        };
        let running: Vec<_> = (0..threads).map(work).collect();
        running
            .into_iter()
            .map(|t| t.join().expect("a thread"))
            .sum()
    })
}
