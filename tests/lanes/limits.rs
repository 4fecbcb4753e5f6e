//! Limits of a device: who comes up against one is told, and nobody else notices; and what a device
//! tells of itself reaches the lanes that it concerns.

use crate::place::is_native;
use crate::rig::{Options, Order, Pair, Told};
use corelane::rdma::AsyncEvent;
use corelane::rdma::bootstrap::Refusal;
use corelane::shard::lanes::{LaneEnd, LaneId, Operation};
use std::process::Command;

fn status(pair: &Pair) -> serde_json::Value {
    pair.client.order(Order::Status(pair.target.clone()));
    let json = pair.client.wait("the status", |t| match t {
        Told::Status(json) => Some(json),
        _ => None,
    });
    assert_eq!(pair.client.closed(), LaneEnd::Finished);
    pair.server.closed();
    serde_json::from_str(&json).expect("JSON")
}

fn limit(pair: &Pair, what: &str) -> (u64, u64, bool) {
    let status = status(pair);
    let limits = status["limits"].as_array().expect("limits");
    let of = limits.iter().find(|l| l["what"] == what).expect("listed");
    let number = |name: &str| of[name].as_u64().expect("a number");
    let near = of["near"].as_bool().expect("whether it is near");
    (number("used"), number("limit"), near)
}

fn talk(pair: &Pair, lane: LaneId, other: LaneId, text: &[u8]) {
    pair.client.order(Order::Send(lane, 1, text.to_vec()));
    assert_eq!(pair.server.message(), (other, 1, text.to_vec()));
}

#[test]
fn a_client_too_many_at_once_for_the_completion_queue_is_refused_alone() {
    let mut options = Options::new();
    // Of a client: 40 requests of its own, and 20 receives where they are not shared; of the shard,
    // what is shared. Room for two either way, and not for three.
    options.config.receives = 40;
    options.config.completions = 125;
    let pair = Pair::new(&options, &Options::new());
    let (first, at_first, info) = pair.connect();
    assert!(info.rdma);
    let (used, most, near) = limit(&pair, "completions");
    assert!(used >= 60 && used < most && !near, "{used} of {most}");
    let (second, at_second, _) = pair.connect();
    let (used, most, near) = limit(&pair, "completions");
    assert!(near, "{used} of {most}");
    let before = pair.server.count().2;
    pair.client.order(Order::Connect(pair.target.clone()));
    assert_eq!(pair.client.closed(), LaneEnd::Refused(Refusal::Resources));
    pair.server.closed();
    assert_eq!(pair.server.count().1.refused, 1);
    assert_eq!(pair.server.count().2, before, "what was made is undone");
    talk(&pair, first, at_first, b"first");
    talk(&pair, second, at_second, b"second");
    // Room that is given back is room for others.
    pair.client.order(Order::Close(first));
    assert_eq!(pair.client.closed(), LaneEnd::Finished);
    assert_eq!(pair.server.closed(), LaneEnd::Finished);
    while limit(&pair, "completions").2 {}
    let (third, at_third, info) = pair.connect();
    assert!(info.rdma);
    talk(&pair, third, at_third, b"third");
    pair.finish();
}

#[test]
fn what_was_begun_before_a_goodbye_is_done_before_the_end() {
    for client in [Options::new(), Options::new().quic()] {
        let pair = Pair::new(&Options::new(), &client);
        let (lane, ..) = pair.connect();
        let (local, remote, len) = (0, 0, 16 * 1024);
        for op in 0..16 {
            let write = Operation::Write { local, remote, len };
            pair.client.order(Order::Operate(lane, op, write));
        }
        pair.client.order(Order::Close(lane));
        for op in 0..16 {
            assert_eq!(pair.client.done(), (op, Ok(())));
        }
        assert_eq!(pair.client.closed(), LaneEnd::Finished);
        pair.server.emptied();
        pair.finish();
    }
}

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status();
    assert!(status.expect("ip runs").success(), "ip {words}");
}

/// Only a device of the kernel's has a port that can go down; the QUIC connection goes elsewhere.
#[test]
fn lanes_leave_a_port_that_goes_down_and_later_ones_use_it_again() {
    if is_native() {
        return;
    }
    let pair = Pair::new(&Options::new(), &Options::new());
    let (lane, other, info) = pair.connect();
    assert!(info.rdma);
    for n in 0..50u32 {
        let data = n.to_be_bytes().to_vec();
        pair.client.order(Order::Send(lane, n, data));
        if n == 25 {
            ip("link set veth1 down");
        }
    }
    for n in 0..50u32 {
        let data = n.to_be_bytes().to_vec();
        assert_eq!(pair.server.message(), (other, n, data));
    }
    let (_, _, info) = pair.connect();
    assert!(!info.rdma, "the port is down");
    ip("link set veth1 up");
    ip("route replace 10.99.0.1 dev veth1 src 10.99.0.2 table 101");
    ip("neigh replace 10.99.0.1 lladdr 02:00:00:00:00:01 dev veth1 nud permanent");
    for end in [&pair.server, &pair.client] {
        end.wait("the port to be up", |t| match t {
            Told::Device(AsyncEvent::PortActive) => Some(()),
            _ => None,
        });
    }
    let (again, at_again, info) = pair.connect();
    assert!(info.rdma, "the port is up");
    talk(&pair, again, at_again, b"again");
    assert!(pair.server.count().1.fallbacks >= 1);
    pair.finish();
}
