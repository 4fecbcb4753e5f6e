//! What an idle connection costs: bytes of heap at either side, and timers that fire.

mod common;

use bytes::Bytes;
use common::counting::{Counting, live};
use common::many::Many;
use std::cell::Cell;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a connection may hold at either side, in bytes: what it took when this was written, and a
/// tenth. Keys and sessions of TLS are in their small forms, some hundreds of bytes at either side.
const CEILING: [isize; 2] = [6_100, 6_100];
/// Connections measured.
const COUNT: usize = 256;

thread_local! {
    /// Who works now, what was held when it began, and what client and server hold.
    static WORK: Cell<(bool, isize)> = const { Cell::new((true, 0)) };
    static HELD: Cell<[isize; 2]> = const { Cell::new([0; 2]) };
}

fn charge(client: bool) {
    let (was, since) = WORK.get();
    let now = live();
    let mut held = HELD.get();
    held[usize::from(!was)] += now - since;
    HELD.set(held);
    WORK.set((client, now));
}

/// Bytes that client and server hold.
fn held() -> [isize; 2] {
    charge(true);
    HELD.get()
}

fn per_connection(before: [isize; 2]) -> [isize; 2] {
    let now = held();
    [0, 1].map(|i| (now[i] - before[i]) / COUNT as isize)
}

#[test]
fn an_idle_connection_is_small() {
    let mut many = Many::new();
    many.watch = charge;
    // Tables that grow by doubling, caches of sessions and tokens: filled before.
    many.connect(COUNT);
    many.wait(Duration::from_secs(30));
    let before = held();
    many.connect(COUNT);
    many.wait(Duration::from_secs(30));
    let fresh = per_connection(before);
    let small = Bytes::from_static(&[7; 64]);
    for round in 0..8 {
        for conn in COUNT..2 * COUNT {
            many.request(conn, &small);
            many.settle();
        }
        many.wait(Duration::from_millis(100 + round));
    }
    many.wait(Duration::from_secs(30));
    let used = per_connection(before);
    let large = Bytes::from_static(&[7; 1 << 20]);
    for conn in COUNT..2 * COUNT {
        many.request(conn, &large);
        many.settle();
    }
    many.wait(Duration::from_secs(30));
    let bulk = per_connection(before);
    println!(
        "bytes at client and server: {fresh:?} new, {used:?} after requests, {bulk:?} after bulk"
    );
    for [client, server] in [fresh, used, bulk] {
        assert!(client <= CEILING[0] && server <= CEILING[1]);
    }
}

#[test]
fn an_idle_connection_is_left_alone() {
    let mut many = Many::new();
    many.connect(16);
    // Acknowledgements, what is given back once, and nothing else before the idle timeout.
    let fired = many.wait(Duration::from_secs(30));
    assert!(fired <= 16 * 8, "{fired} timers of 16 connections");
    assert_eq!(many.wait(Duration::from_secs(500)), 0);
    // What rests wakes up.
    many.request(7, &Bytes::from_static(&[7; 64]));
    many.settle();
    assert_eq!((many.server.app.ends, many.client.app.ends), (1, 1));
    assert_eq!(many.client.endpoint.len(), 16);
}
