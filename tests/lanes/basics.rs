//! One lane: what it carries, over either way and from one to the other, and how it ends.

use crate::place::is_native;
use crate::rig::{Options, Order, Pair, Told};
use corelane::rdma::Access;
use corelane::shard::engine::Idle;
use corelane::shard::lanes::{LaneEnd, LaneError, OpError, Operation};

/// Messages both ways, more than the window at once, and every kind of operation.
fn everything(server: &Options, client: &Options, rdma: bool) {
    let pair = Pair::new(server, client);
    let (lane, other, info) = pair.connect();
    assert_eq!(info.rdma, rdma);
    assert_eq!(info.numbers.iter().all(|n| *n != 0), rdma);
    let long = vec![7; info.max_message];
    pair.client.order(Order::Send(lane, 9, long.clone()));
    assert_eq!(pair.server.message(), (other, 9, long.clone()));
    pair.client
        .order(Order::Send(lane, 9, vec![7; info.max_message + 1]));
    assert_eq!(pair.client.refused(), LaneError::TooLong(info.max_message));
    for n in 0..100u32 {
        pair.client
            .order(Order::Send(lane, n, n.to_be_bytes().to_vec()));
        pair.server.order(Order::Send(other, n, vec![n as u8; 3]));
    }
    for n in 0..100u32 {
        assert_eq!(pair.server.message(), (other, n, n.to_be_bytes().to_vec()));
        assert_eq!(pair.client.message(), (lane, n, vec![n as u8; 3]));
    }
    operations(&pair, lane, other);
    pair.client
        .order(Order::Send(lane, 1, b"the last".to_vec()));
    pair.client.order(Order::Close(lane));
    assert_eq!(pair.server.message().2, b"the last");
    assert_eq!(
        (pair.client.closed(), pair.server.closed()),
        (LaneEnd::Finished, LaneEnd::Finished)
    );
    pair.server.emptied();
    pair.finish();
}

fn operations(
    pair: &Pair,
    lane: corelane::shard::lanes::LaneId,
    other: corelane::shard::lanes::LaneId,
) {
    let pattern: Vec<u8> = (0..9000u32).map(|n| (n * 7) as u8).collect();
    let operate = |op, what| {
        pair.client.order(Order::Operate(lane, op, what));
        assert_eq!(pair.client.done(), (op, Ok(())));
    };
    pair.client.order(Order::Fill(lane, 100, pattern.clone()));
    let (local, remote, len) = (100, 2000, 9000);
    operate(1, Operation::Write { local, remote, len });
    assert_eq!(pair.server.look(other, 2000, 9000), pattern);
    operate(
        2,
        Operation::Read {
            local: 0,
            remote: 2000,
            len,
        },
    );
    assert_eq!(pair.client.look(lane, 0, 9000), pattern);
    pair.server
        .order(Order::Fill(other, 8, 40u64.to_ne_bytes().to_vec()));
    // What was asked for before is done before: the server answers its own order first.
    pair.server.look(other, 8, 8);
    operate(
        3,
        Operation::FetchAdd {
            local: 0,
            remote: 8,
            add: 2,
        },
    );
    assert_eq!(pair.client.look(lane, 0, 8), 40u64.to_ne_bytes());
    operate(
        4,
        Operation::CompareSwap {
            local: 0,
            remote: 8,
            compare: 42,
            swap: 5,
        },
    );
    operate(
        5,
        Operation::CompareSwap {
            local: 8,
            remote: 8,
            compare: 42,
            swap: 6,
        },
    );
    assert_eq!(pair.client.look(lane, 0, 8), 42u64.to_ne_bytes());
    assert_eq!(pair.client.look(lane, 8, 8), 5u64.to_ne_bytes());
    assert_eq!(pair.server.look(other, 8, 8), 5u64.to_ne_bytes());
    for (what, error) in [
        (
            Operation::Read {
                local: 0,
                remote: 16 * 1024 - 7,
                len: 8,
            },
            LaneError::Range {
                whose: "the peer's",
                at: 16 * 1024 - 7,
                len: 8,
                region: 16 * 1024,
            },
        ),
        (
            Operation::Read {
                local: u64::MAX,
                remote: 0,
                len: 8,
            },
            LaneError::Range {
                whose: "the own",
                at: u64::MAX,
                len: 8,
                region: 16 * 1024,
            },
        ),
        (
            Operation::FetchAdd {
                local: 0,
                remote: 4,
                add: 1,
            },
            LaneError::Alignment(4),
        ),
    ] {
        pair.client.order(Order::Operate(lane, 6, what));
        assert_eq!(pair.client.refused(), error);
    }
}

#[test]
fn a_lane_over_queue_pairs_carries_everything() {
    everything(&Options::new(), &Options::new(), true);
}

#[test]
fn a_lane_over_ipv6_and_spinning_shards_carries_everything() {
    let options = || Options {
        v6: true,
        // In the guest two that spin would starve the driver.
        idle: if is_native() { Idle::Spin } else { Idle::Park },
        ..Options::new()
    };
    everything(&options(), &options(), true);
}

#[test]
fn a_lane_runs_over_streams_where_one_side_has_no_queue_pairs() {
    everything(&Options::new(), &Options::new().quic(), false);
    everything(&Options::new().quic(), &Options::new(), false);
}

#[test]
fn a_lane_that_leaves_its_queue_pair_loses_and_repeats_nothing() {
    for by_client in [true, false] {
        let pair = Pair::new(&Options::new(), &Options::new());
        let (lane, other, info) = pair.connect();
        assert!(info.rdma);
        for n in 0..400u32 {
            pair.client
                .order(Order::Send(lane, n, n.to_be_bytes().to_vec()));
            pair.server
                .order(Order::Send(other, n, n.to_le_bytes().to_vec()));
            match (n, by_client) {
                (150, true) => pair.client.order(Order::FallBack(lane)),
                (150, false) => pair.server.order(Order::FallBack(other)),
                _ => {}
            }
        }
        for n in 0..400u32 {
            assert_eq!(pair.server.message(), (other, n, n.to_be_bytes().to_vec()));
            assert_eq!(pair.client.message(), (lane, n, n.to_le_bytes().to_vec()));
        }
        operations(&pair, lane, other);
        assert_eq!(pair.server.count().1.fallbacks, 1);
        // The queue pairs are gone, memory and domain stay until the lane goes.
        assert_eq!(
            pair.server.count().2.map(|o| (o.queue_pairs, o.regions)),
            Some((0, 3))
        );
        pair.client.order(Order::Close(lane));
        assert_eq!(pair.client.closed(), LaneEnd::Finished);
        pair.server.emptied();
        pair.finish();
    }
}

#[test]
fn what_the_peer_does_not_allow_is_refused_here_and_there() {
    let mut server = Options::new();
    server.config.plan.access = Access::REMOTE_READ;
    for client in [Options::new(), Options::new().quic()] {
        let pair = Pair::new(&server, &client);
        let (lane, ..) = pair.connect();
        let what = Operation::Write {
            local: 0,
            remote: 0,
            len: 8,
        };
        pair.client.order(Order::Operate(lane, 1, what));
        assert_eq!(pair.client.refused(), LaneError::Access);
        pair.client.order(Order::Operate(
            lane,
            2,
            Operation::Read {
                local: 0,
                remote: 0,
                len: 8,
            },
        ));
        assert_eq!(pair.client.done(), (2, Ok::<(), OpError>(())));
        pair.finish();
    }
}

#[test]
fn any_shard_tells_the_status_of_all() {
    const LANES: u64 = 12;
    let server = Options {
        shards: 2,
        ..Options::new()
    };
    let pair = Pair::new(&server, &Options::new());
    let status = || -> serde_json::Value {
        pair.client.order(Order::Status(pair.target.clone()));
        let json = pair.client.wait("the status", |t| match t {
            Told::Status(json) => Some(json),
            _ => None,
        });
        assert_eq!(pair.client.closed(), LaneEnd::Finished);
        serde_json::from_str(&json).expect("JSON")
    };
    // Lanes that one side has opened are not yet told by the other.
    let until = |lanes: u64| loop {
        let status = status();
        if status["lanes"] == lanes {
            break status;
        }
    };
    let lanes: Vec<_> = (0..LANES).map(|_| pair.connect().0).collect();
    let told = until(LANES);
    let shards = told["shards"].as_array().expect("a list");
    let numbers: Vec<_> = shards.iter().map(|s| s["shard"].as_u64()).collect();
    assert_eq!(numbers, [Some(0), Some(1)]);
    let sum = |name: &str| -> u64 { shards.iter().filter_map(|s| s[name].as_u64()).sum() };
    for name in ["lanes", "opened_rdma", "opened_quic", "ended", "refused"] {
        assert_eq!(told[name], sum(name), "{name}");
    }
    let device = &told["device"];
    for name in ["queue_pairs", "regions", "registered_bytes", "domains"] {
        assert_eq!(device[name], sum(name), "{name}");
    }
    // What a device that all share counts is told once.
    assert!(device["rnr_naks_sent"].is_u64(), "{device}");
    assert_eq!(
        (&told["opened_rdma"], &device["queue_pairs"]),
        (&LANES.into(), &LANES.into())
    );
    let objects = told["objects"].as_array().expect("objects");
    assert_eq!(told["objects_total"], sum("objects"));
    for s in shards {
        let mine = |o: &&serde_json::Value| o["shard"] == s["shard"] && o["kind"] == "QueuePair";
        assert_eq!(s["queue_pairs"], objects.iter().filter(mine).count());
    }
    let limit = |of: &serde_json::Value| -> u64 {
        let all = of["limits"].as_array().expect("limits");
        let lanes = all.iter().find(|l| l["what"] == "lanes");
        lanes.and_then(|l| l["limit"].as_u64()).expect("a number")
    };
    assert_eq!(limit(&told), shards.iter().map(limit).sum::<u64>());
    for lane in lanes {
        pair.client.order(Order::Close(lane));
        assert_eq!(pair.client.closed(), LaneEnd::Finished);
    }
    assert_eq!(until(0)["device"]["queue_pairs"], 0);
    pair.finish();
}

#[test]
fn a_server_tells_its_status() {
    let pair = Pair::new(&Options::new(), &Options::new());
    let (lane, ..) = pair.connect();
    pair.client.order(Order::Status(pair.target.clone()));
    let json = pair.client.wait("the status", |t| match t {
        Told::Status(json) => Some(json),
        _ => None,
    });
    let status: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(status["device"]["queue_pairs"], 1);
    let owners = status["objects"].as_array().expect("objects");
    assert!(
        owners
            .iter()
            .any(|o| o["kind"] == "QueuePair" && o["owner"] == "client 1")
    );
    assert_eq!(pair.client.closed(), LaneEnd::Finished);
    pair.client.order(Order::Close(lane));
    pair.finish();
}
