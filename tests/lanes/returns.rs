//! Lanes that left their queue pair come back to another: nothing is lost, repeated or overtaken on
//! the way, whatever step fails leaves them where they were, and nobody tries for ever.

use crate::rig::{DEADLINE, Options, Order, Pair, Told};
use corelane::rdma::registry::ObjectKind;
use corelane::shard::lanes::{LaneId, Operation, Returns};
use std::collections::HashSet;
use std::time::Duration;

const ADDED: u64 = 3;

fn options() -> Options {
    let mut options = Options::new();
    options.config.returns = Some(Returns {
        first: Duration::from_millis(100),
        most: Duration::from_millis(200),
        tries: 16,
    });
    options
}

/// One end's view of a lane in use.
#[derive(Default)]
struct Seen {
    messages: u32,
    left: u32,
    returns: u32,
}

impl Seen {
    fn take(&mut self, told: Told) -> bool {
        match told {
            Told::Message(_, tag, data) => {
                let next = (self.messages, self.messages.to_be_bytes());
                assert_eq!((tag, &data[..]), (next.0, &next.1[..]));
                self.messages += 1;
            }
            Told::Fallback => self.left += 1,
            Told::Return => self.returns += 1,
            Told::Done(op, result) => {
                assert_eq!((op, result), (1, Ok(())));
                return true;
            }
            Told::Closed(why) => panic!("closed: {why}"),
            Told::Refused(why) => panic!("refused: {why}"),
            _ => {}
        }
        false
    }
}

fn step(pair: &Pair, lanes: (LaneId, LaneId), n: u32, seen: &mut [Seen; 2]) {
    let send = |lane| Order::Send(lane, n, n.to_be_bytes().to_vec());
    let add = Operation::FetchAdd {
        local: 0,
        remote: 8,
        add: ADDED,
    };
    let both = vec![send(lanes.0), Order::Operate(lanes.0, 1, add)];
    pair.client.order(Order::Together(both));
    pair.server.order(send(lanes.1));
    while !seen[0].take(pair.client.told.recv_timeout(DEADLINE).expect("told")) {}
    for told in pair.server.told.try_iter() {
        seen[1].take(told);
    }
}

#[test]
fn lanes_come_back_and_nothing_is_lost_repeated_or_overtaken() {
    const ROUNDS: u32 = 4;
    let pair = Pair::new(&options(), &options());
    let (lane, other, first) = pair.connect();
    let (mut n, mut seen) = (0, [Seen::default(), Seen::default()]);
    let [qpn, psn, peers, at] = first.numbers;
    let mut numbers = HashSet::from([(qpn, psn), (peers, at)]);
    for round in 1..=ROUNDS {
        match round % 2 {
            0 => pair.client.order(Order::FallBack(lane)),
            _ => pair.server.order(Order::FallBack(other)),
        }
        // With an atomic under way nobody would know whether it was done.
        while seen[0].left < round {
            seen[0].take(pair.client.told.recv_timeout(DEADLINE).expect("told"));
        }
        while seen.iter().any(|s| s.returns < round) {
            step(&pair, (lane, other), n, &mut seen);
            n += 1;
        }
        for _ in 0..20 {
            step(&pair, (lane, other), n, &mut seen);
            n += 1;
        }
        pair.client.order(Order::Info(lane));
        let info = pair.client.wait("what it is", |t| match t {
            Told::Info(info) => Some(info),
            told => {
                seen[0].take(told);
                None
            }
        });
        assert_eq!((info.rdma, info.returns), (true, round));
        // Another queue pair, with another packet number to begin with, at both ends.
        let [qpn, psn, peers, first] = info.numbers;
        assert!(numbers.insert((qpn, psn)) && numbers.insert((peers, first)));
    }
    for (end, seen) in [&pair.client, &pair.server].into_iter().zip(&mut seen) {
        while seen.messages < n {
            seen.take(end.told.recv_timeout(DEADLINE).expect("told"));
        }
        let (_, stats, objects, _) = end.count();
        assert_eq!((stats.fallbacks, stats.returned), (4, 4));
        assert_eq!(objects.map(|o| o.queue_pairs), Some(1));
        let pairs = end.registry.objects().into_iter();
        assert_eq!(pairs.filter(|o| o.kind == ObjectKind::QueuePair).count(), 1);
    }
    let sum = pair.server.look(other, 8, 8);
    assert_eq!(sum, (u64::from(n) * ADDED).to_ne_bytes());
    pair.finish();
}

#[test]
fn whatever_step_of_the_way_back_fails_the_next_try_may_succeed() {
    for server_fails in [false, true] {
        for steps in 0.. {
            let pair_of = [options(), options()];
            let faults = pair_of[usize::from(server_fails)].faults.clone();
            let pair = Pair::new(&pair_of[1], &pair_of[0]);
            let (lane, other, _) = pair.connect();
            faults.fail_after(steps);
            pair.client.order(Order::FallBack(lane));
            let mut back = false;
            while !back && faults.failed() == 0 {
                let told = pair.client.told.recv_timeout(Duration::from_millis(5));
                back = matches!(told, Ok(Told::Return));
            }
            faults.fail_after(u32::MAX);
            if !back {
                let is = |t| matches!(t, Told::Return).then_some(());
                pair.client.wait("a queue pair", is);
            }
            pair.client.order(Order::Send(lane, 4, b"back".to_vec()));
            assert_eq!(pair.server.message(), (other, 4, b"back".to_vec()));
            let (_, stats, objects, _) = pair.server.count();
            assert_eq!(stats.returned, 1 + u64::from(stats.fallbacks == 2));
            assert_eq!(objects.map(|o| o.queue_pairs), Some(1));
            pair.finish();
            if back && faults.failed() == 0 {
                assert!(steps >= 4, "{steps} steps");
                break;
            }
        }
    }
}

#[test]
fn who_gets_no_queue_pair_stops_asking() {
    let (server, mut client) = (options(), options());
    client.config.returns = client.config.returns.map(|r| Returns { tries: 3, ..r });
    let faults = server.faults.clone();
    let pair = Pair::new(&server, &client);
    let (lane, other, _) = pair.connect();
    faults.fail_after(0);
    pair.client.order(Order::FallBack(lane));
    while faults.failed() < 3 {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(faults.failed(), 3);
    pair.client.order(Order::Send(lane, 1, b"still".to_vec()));
    assert_eq!(pair.server.message(), (other, 1, b"still".to_vec()));
    assert_eq!(pair.client.count().1.returned, 0);
    pair.finish();
}

#[test]
fn nobody_asks_a_server_that_does_not_want_it() {
    let pair = Pair::new(&Options::new(), &options());
    let (lane, other, _) = pair.connect();
    pair.client.order(Order::FallBack(lane));
    let left = |t| matches!(t, Told::Fallback).then_some(());
    pair.client.wait("the stream", left);
    // Far longer than it would wait.
    std::thread::sleep(Duration::from_millis(500));
    pair.client.order(Order::Send(lane, 1, b"on".to_vec()));
    assert_eq!(pair.server.message(), (other, 1, b"on".to_vec()));
    for end in [&pair.client, &pair.server] {
        let (lanes, stats, objects, _) = end.count();
        assert_eq!((lanes, stats.returned, stats.misbehaved), (1, 0, 0));
        assert_eq!(objects.map(|o| o.queue_pairs), Some(0));
    }
    pair.finish();
}
