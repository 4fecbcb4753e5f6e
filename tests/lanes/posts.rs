//! What one turn posts leaves by one call, and of a list that the device takes in part, what it did
//! not take was never posted: nothing is lost, repeated or overtaken.

use crate::place::is_native;
use crate::rig::{DEADLINE, Options, Order, Pair};
use corelane::shard::lanes::{LaneId, OpError, Operation};
use corelane::sys::clock::Clock;

const ADDED: u64 = 5;

/// Two messages, an atomic, two messages: as many requests.
fn five(lane: LaneId) -> Order {
    let send = |n: u32| Order::Send(lane, n, vec![n as u8; 40]);
    let add = Operation::FetchAdd {
        local: 0,
        remote: 8,
        add: ADDED,
    };
    let atomic = Order::Operate(lane, 9, add);
    Order::Together(vec![send(0), send(1), atomic, send(2), send(3)])
}

fn messages(pair: &Pair, lane: LaneId) {
    for n in 0..4 {
        assert_eq!(pair.server.message(), (lane, n, vec![n as u8; 40]));
    }
}

fn added(pair: &Pair, lane: LaneId) -> u64 {
    let bytes = pair.server.look(lane, 8, 8);
    u64::from_ne_bytes(bytes.try_into().expect("8 bytes"))
}

#[test]
fn what_a_turn_posts_leaves_by_one_call() {
    let client = Options::new();
    let faults = client.faults.clone();
    let pair = Pair::new(&Options::new(), &client);
    let (lane, other, info) = pair.connect();
    assert!(info.rdma && faults.longest() <= 1);
    pair.client.order(five(lane));
    messages(&pair, other);
    assert_eq!(pair.client.done(), (9, Ok(())));
    assert_eq!((faults.longest(), added(&pair, other)), (5, ADDED));
    pair.finish();
}

#[test]
fn what_a_device_refuses_of_a_list_was_not_posted() {
    for posted in 0..5 {
        let client = Options::new();
        let faults = client.faults.clone();
        let pair = Pair::new(&Options::new(), &client);
        let (lane, other, info) = pair.connect();
        assert!(info.rdma);
        faults.post_only(posted);
        pair.client.order(five(lane));
        messages(&pair, other);
        let (op, result) = pair.client.done();
        // Of one that was posted nobody knows, unless it was done before the queue pair was left;
        // one that was not is done by the stream, once.
        match result {
            Err(OpError::Unknown) if posted > 2 => assert_eq!(op, 9),
            _ => assert_eq!((op, result, added(&pair, other)), (9, Ok(()), ADDED)),
        }
        pair.client.order(Order::Send(lane, 7, Vec::new()));
        assert_eq!(
            pair.server.message(),
            (other, 7, Vec::new()),
            "and no other"
        );
        assert_eq!(pair.client.count().1.fallbacks, 1);
        pair.finish();
    }
}

#[test]
fn an_answer_does_not_wait_for_receives_and_they_follow_in_its_turn() {
    if !is_native() {
        return; // other devices may take a message before the answer is posted
    }
    let server = Options {
        echo: true,
        ..Options::new()
    };
    let faults = server.faults.clone();
    let pair = Pair::new(&server, &Options::new());
    let (lane, _, info) = pair.connect();
    assert!(info.rdma);
    for n in 0..20 {
        faults.posted();
        pair.client.order(Order::Send(lane, n, vec![n as u8; 64]));
        assert_eq!(pair.client.message(), (lane, n, vec![n as u8; 64]));
        let mut posted = String::new();
        let until = Clock::now() + DEADLINE;
        while posted.len() < 2 && Clock::now() < until {
            posted += &faults.posted();
        }
        assert_eq!(posted, "sr");
    }
    pair.finish();
}

#[test]
fn receives_that_were_refused_are_posted_later() {
    let mut server = Options::new();
    server.config.receives = 2;
    server.config.plan.window = 2;
    let faults = server.faults.clone();
    let pair = Pair::new(&server, &Options::new());
    let (lane, other, _) = pair.connect();
    faults.fail_after(0);
    for n in 0..12 {
        pair.client.order(Order::Send(lane, n, vec![n as u8]));
        if n == 1 {
            // Both receives were used, and neither could be posted again.
            assert_eq!(pair.server.message(), (other, 0, vec![0]));
            assert_eq!(pair.server.message(), (other, 1, vec![1]));
            faults.fail_after(u32::MAX);
            pair.server.order(Order::Count);
        }
    }
    for n in 2..12 {
        assert_eq!(pair.server.message(), (other, n, vec![n as u8]));
    }
    pair.finish();
}
