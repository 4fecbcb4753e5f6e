//! The ACK frequency extension between two endpoints: fewer acknowledgements, nothing slower.

use crate::common::attack::{Attack, Plan};
use crate::common::pair::{CLIENT, Pair, SERVER, Setup};
use bytes::Bytes;
use corelane::base::Rng;
use corelane::wire::Dir;
use corelane::wire::frame::Frame;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// How a transfer to the server went.
#[derive(Clone, Copy, Debug)]
struct Course {
    took: Duration,
    acks: u64,
    lost: u64,
    ptos: u64,
}

/// Sends `len` bytes with `loss` of a thousand datagrams lost, once.
fn transfer(ask: bool, seed: u64, len: usize, loss: u64) -> Course {
    let mut setup = Setup {
        seed,
        ..Setup::default()
    };
    setup.client.ack_frequency = ask;
    setup.server.max_udp_payload_size = 1400;
    let mut pair = Pair::new(setup);
    pair.delay = Duration::from_millis(20);
    let (client, server) = pair.connected();
    let mut rng = Rng::from_u64(seed);
    pair.filter = Box::new(move |p| {
        if rng.below(1000) < loss {
            vec![]
        } else {
            vec![p]
        }
    });
    let streams = pair.conn(CLIENT, client).streams_mut();
    let id = streams.open(Dir::Uni).expect("a stream");
    let data = Bytes::from(vec![7; len]);
    assert_eq!(streams.write_bytes(id, data), Ok(len));
    streams.finish(id).expect("open");
    let start = pair.now;
    while pair.sides[SERVER].app.finished.is_empty() {
        pair.run(Duration::from_millis(5));
        assert!(pair.now < start + 300 * SECOND, "seed {seed}");
    }
    let took = pair.now - start;
    pair.run(SECOND);
    let (s, c) = (
        pair.conn(SERVER, server).stats(),
        pair.conn(CLIENT, client).stats(),
    );
    Course {
        took,
        acks: s.acks_sent,
        lost: c.packets_lost,
        ptos: c.ptos,
    }
}

#[test]
fn a_large_window_brings_fewer_acknowledgements_in_the_same_time() {
    // One loss in a while ends slow start, in which nothing is asked for. Which packets are lost
    // decides much of how long it takes, so several courses are compared.
    let sum = |ask| {
        let courses = (0..8).map(|seed| transfer(ask, seed, 4_000_000, 10));
        courses.fold((Duration::ZERO, 0), |sum, c| {
            (sum.0 + c.took, sum.1 + c.acks)
        })
    };
    let (with, without) = (sum(true), sum(false));
    assert!(with.1 * 5 < without.1 * 4, "{with:?} {without:?}");
    assert!(with.0 < without.0 * 11 / 10, "{with:?} {without:?}");
}

/// Over many seeds: the same losses are found, without more probe timeouts and without more time.
#[test]
fn loss_recovery_does_not_suffer() {
    let sum = |ask| {
        let mut sum = (Duration::ZERO, 0, 0, 0);
        for seed in 0..40 {
            let c = transfer(ask, seed, 400_000, 20);
            sum = (
                sum.0 + c.took,
                sum.1 + c.acks,
                sum.2 + c.lost,
                sum.3 + c.ptos,
            );
        }
        sum
    };
    let (with, without) = (sum(true), sum(false));
    assert!(with.1 < without.1, "{with:?} {without:?}");
    assert!(with.0 < without.0 * 11 / 10, "{with:?} {without:?}");
    assert!(with.3 <= without.3 + without.3 / 5, "{with:?} {without:?}");
}

/// ACK frequency §7: probes ask for an answer at once, of a peer that understands.
#[test]
fn probes_carry_immediate_ack_where_the_peer_takes_it() {
    for takes in [true, false] {
        let mut plan = Plan::default();
        plan.params.min_ack_delay = takes.then(|| Duration::from_millis(1));
        let mut a = Attack::client_with(plan);
        a.run_acking(SECOND, Duration::from_millis(50));
        a.inbox.clear();
        let streams = a.connection().streams_mut();
        let id = streams.open(Dir::Uni).expect("a stream");
        streams.write(id, b"nobody answers").expect("room");
        a.collect();
        assert!(!a.inbox.iter().any(|p| p.has(|f| *f == Frame::ImmediateAck)));
        a.inbox.clear();
        a.run(2 * SECOND);
        let probes = a.inbox.iter().filter(|p| p.is_ack_eliciting());
        let (mut asking, mut all) = (0, 0);
        for p in probes {
            all += 1;
            asking += u32::from(p.has(|f| *f == Frame::ImmediateAck));
        }
        assert!(all >= 2);
        assert_eq!(asking, if takes { all } else { 0 });
    }
}
