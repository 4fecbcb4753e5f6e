//! Whether long writes go packet by packet: where both ends are in user space and both say so.

use crate::place::is_native;
use crate::rig::{DEADLINE, Options, Order, Pair, Told};
use corelane::shard::lanes::{Operation, Returns};
use std::time::Duration;

/// Queue pairs of the server and of the client that split what they write, after a write and with
/// `again` after another queue pair took the first one's place.
fn split(server: bool, client: bool, again: bool) -> [usize; 2] {
    let side = |splits| {
        let mut options = Options::new();
        options.config.splits_writes = splits;
        options.config.returns = again.then_some(Returns {
            first: Duration::from_millis(100),
            most: Duration::from_millis(200),
            tries: 16,
        });
        options
    };
    let (server, client) = (side(server), side(client));
    let pair = Pair::new(&server, &client);
    let (lane, other, info) = pair.connect();
    assert!(info.rdma);
    let pattern: Vec<u8> = (0..15_000u32).map(|n| (n * 7 + n / 256) as u8).collect();
    pair.client.order(Order::Fill(lane, 0, pattern.clone()));
    let write = |op, remote| {
        let (local, len) = (0, 15_000);
        let write = Operation::Write { local, remote, len };
        pair.client.order(Order::Operate(lane, op, write));
        assert_eq!(pair.client.done(), (op, Ok(())));
        assert_eq!(pair.server.look(other, remote, 15_000), pattern);
    };
    write(1, 1);
    if again {
        pair.client.order(Order::FallBack(lane));
        while !matches!(
            pair.client.told.recv_timeout(DEADLINE).expect("told"),
            Told::Return
        ) {}
        write(2, 1001);
    }
    pair.finish();
    [server.faults.split(), client.faults.split()]
}

#[test]
fn both_have_to_say_so() {
    let both = usize::from(is_native());
    assert_eq!(split(true, true, false), [both; 2]);
    assert_eq!(split(true, false, false), [0; 2]);
    assert_eq!(split(false, true, false), [0; 2]);
}

#[test]
fn the_next_queue_pair_does_as_the_first() {
    let each = 2 * usize::from(is_native());
    assert_eq!(split(true, true, true), [each; 2]);
    assert_eq!(split(true, false, true), [0; 2]);
}
