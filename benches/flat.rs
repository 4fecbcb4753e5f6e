//! Whether a packet costs the same however many connections and streams there are: endpoints in
//! memory on one thread, as in `core_bulk`, timers in a wheel. Prints nanoseconds per packet, both
//! sides together, and the ratio to the first line of each kind; the median of several rounds.
//!
//! `cargo bench --bench flat [-- KIND..]`, KIND being `work`, `bulk` or `streams`.

#[path = "../tests/common/certs.rs"]
#[expect(dead_code, reason = "the tests use the rest of it")]
mod certs;
#[path = "../tests/common/many.rs"]
#[expect(dead_code, reason = "the tests use the rest of it")]
mod many;

use bytes::Bytes;
use corelane::conn::ConnId;
use corelane::sys::clock::Clock;
use corelane::wire::{Dir, StreamId};
use many::Many;
use std::time::Duration;

/// Connections that have a request under way at once, where there are so many.
const BATCH: usize = 32;
/// Rounds of which the median counts.
const ROUNDS: usize = 9;

fn main() {
    let kinds: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |kind: &str| {
        let named = ["work", "bulk", "streams"].map(|k| kinds.iter().any(|a| a == k));
        !named.contains(&true) || kinds.iter().any(|a| a == kind)
    };
    if wanted("work") {
        println!("requests of 64 B, connections in turn");
        let mut many = quick();
        let mut table = Table::default();
        for count in [1, 32, 100, 1_000, 10_000] {
            many.connect(count - many.conns.len());
            table.line("connections", count, work(&mut many));
        }
    }
    if wanted("bulk") {
        println!("bulk on 4 connections among idle ones");
        let mut many = quick();
        let mut table = Table::default();
        for count in [4, 100, 1_000, 10_000] {
            many.connect(count - many.conns.len());
            let step = count / 4;
            let busy = (0..4).map(|i| many.conns[i * step]).collect();
            table.line("connections", count, bulk(&mut many, busy, 1));
        }
    }
    if wanted("streams") {
        println!("bulk on many streams of one connection");
        let mut table = Table::default();
        for count in [1, 10, 100, 1_000] {
            let mut many = quick();
            many.connect(1);
            let busy = vec![many.conns[0]];
            table.line("streams", count, bulk(&mut many, busy, count));
        }
    }
}

fn quick() -> Many {
    let mut many = Many::new();
    // A round through ten thousand connections stays within every delay of theirs.
    many.tick = Duration::from_nanos(500);
    many
}

#[derive(Default)]
struct Table {
    first: Option<f64>,
}

impl Table {
    fn line(&mut self, what: &str, count: usize, mut rounds: Vec<f64>) {
        rounds.sort_by(f64::total_cmp);
        let (low, ns) = (rounds[0], rounds[rounds.len() / 2]);
        let first = *self.first.get_or_insert(ns);
        let ratio = ns / first;
        println!("{count:7} {what:12} {ns:8.1} ns/packet (least {low:.1}), x {ratio:.3}");
    }
}

/// Nanoseconds per packet of each round: every connection has as many requests as makes enough.
fn work(many: &mut Many) -> Vec<f64> {
    let data = Bytes::from_static(&[7; 64]);
    let count = many.conns.len();
    let batch = BATCH.min(count);
    let mut next = 0;
    let mut round = |many: &mut Many, requests: usize| {
        let (mut packets, begun) = (0, Clock::now());
        for _ in 0..requests.div_ceil(batch) {
            for _ in 0..batch {
                many.request(next, &data);
                next = (next + 1) % count;
            }
            packets += many.settle();
        }
        (Clock::now() - begun).as_nanos() as f64 / packets as f64
    };
    // Twice round, so that every connection is past its first request.
    round(many, (2 * count).max(4_000));
    let requests = count.max(20_000);
    (0..ROUNDS).map(|_| round(many, requests)).collect()
}

/// Nanoseconds per packet of each round, with `streams` streams on each of the connections.
fn bulk(many: &mut Many, busy: Vec<ConnId>, streams: usize) -> Vec<f64> {
    let data = Bytes::from(vec![7; 64 * 1024]);
    let mut open: Vec<(ConnId, StreamId)> = Vec::new();
    for _ in 0..streams {
        for &id in &busy {
            let conn = many.client.endpoint.connection(id).expect("open");
            let stream = conn.streams_mut().open(Dir::Uni).expect("a stream");
            open.push((id, stream));
        }
    }
    let mut next = 0;
    let mut feed = |many: &mut Many, chunks: usize| {
        for _ in 0..chunks {
            let (id, stream) = open[next];
            next = (next + 1) % open.len();
            if let Some(conn) = many.client.endpoint.connection(id) {
                let _ = conn.streams_mut().write_bytes(stream, data.clone());
            }
            many.client.endpoint.wake(id);
        }
    };
    feed(many, open_chunks(busy.len() * streams));
    let mut round = |many: &mut Many, least: u64| {
        let (mut packets, mut time) = (0, Duration::ZERO);
        while packets < least {
            feed(many, 8);
            let begun = Clock::now();
            packets += many.exchange();
            time += Clock::now() - begun;
        }
        time.as_nanos() as f64 / packets as f64
    };
    round(many, 60_000);
    let out = (0..ROUNDS).map(|_| round(many, 60_000)).collect();
    for &(id, stream) in &open {
        if let Some(conn) = many.client.endpoint.connection(id) {
            let _ = conn.streams_mut().reset(stream, 0);
        }
        many.client.endpoint.wake(id);
    }
    many.settle();
    out
}

/// Chunks to begin with: all streams have something to send, few have much.
fn open_chunks(streams: usize) -> usize {
    streams.max(16)
}
