//! Many clients: one after another, at once, coming and going, doing different things, and killed.

use crate::rig::{End, Options, Order, Pair, Told};
use corelane::rdma::registry::ObjectKind;
use corelane::shard::lanes::{LaneEnd, LaneId, LaneInfo, Operation};
use std::collections::HashSet;
use std::time::Duration;
use std::{fs, thread};

fn echoing() -> Options {
    Options {
        echo: true,
        ..Options::new()
    }
}

/// Opens `n` lanes at once; what each is.
fn open(pair: &Pair, n: usize) -> Vec<(LaneId, LaneInfo)> {
    for _ in 0..n {
        pair.client.order(Order::Connect(pair.target.clone()));
    }
    (0..n).map(|_| pair.client.opened()).collect()
}

/// Both ends' first packet sequence numbers, and their queue pair numbers, are all different.
fn all_different(lanes: &[(LaneId, LaneInfo)]) {
    for n in 0..4 {
        let numbers: HashSet<u32> = lanes.iter().map(|(_, info)| info.numbers[n]).collect();
        assert_eq!(numbers.len(), lanes.len(), "number {n}");
    }
}

/// Messages under way at once: orders wait in a queue of limited length.
const UNDER_WAY: usize = 2000;

/// Each lane sends `each` messages and gets them back.
fn exchange(pair: &Pair, lanes: &[(LaneId, LaneInfo)], each: u32) {
    let mut next: Vec<u32> = vec![0; lanes.len()];
    let mut under_way = 0;
    let mut hear = |n: usize| {
        for _ in 0..n {
            let (lane, tag, data) = pair.client.message();
            let at = lanes
                .iter()
                .position(|(l, _)| *l == lane)
                .expect("a lane of ours");
            let client = lanes[at].1.client;
            assert_eq!((tag, &data[..8]), (next[at], &client.to_be_bytes()[..]));
            next[at] += 1;
        }
    };
    for n in 0..each {
        for (lane, info) in lanes {
            let data = [info.client.to_be_bytes(), u64::from(n).to_be_bytes()].concat();
            pair.client.order(Order::Send(*lane, n, data));
        }
        under_way += lanes.len();
        let over = under_way.saturating_sub(UNDER_WAY);
        hear(over);
        under_way -= over;
    }
    hear(under_way);
    assert!(next.iter().all(|n| *n == each));
}

fn close(pair: &Pair, lanes: &[(LaneId, LaneInfo)]) {
    for (lane, _) in lanes {
        pair.client.order(Order::Close(*lane));
    }
    for _ in lanes {
        assert_eq!(pair.client.closed(), LaneEnd::Finished);
    }
}

fn concurrently(n: usize, each: u32) {
    let pair = Pair::new(&echoing(), &Options::new());
    let begin = pair.server.count().2;
    let lanes = open(&pair, n);
    assert!(lanes.iter().all(|(_, info)| info.rdma));
    all_different(&lanes);
    let kinds = pair.server.registry.objects();
    let queue_pairs = kinds
        .iter()
        .filter(|o| o.kind == ObjectKind::QueuePair)
        .count();
    assert_eq!(queue_pairs, n);
    exchange(&pair, &lanes, each);
    close(&pair, &lanes);
    assert_eq!(pair.server.emptied(), begin);
    pair.finish();
}

#[test]
fn three_clients_one_after_another() {
    let pair = Pair::new(&echoing(), &Options::new());
    let begin = pair.server.count().2;
    let mut all = Vec::new();
    for _ in 0..3 {
        let lanes = open(&pair, 1);
        exchange(&pair, &lanes, 20);
        close(&pair, &lanes);
        all.extend(lanes);
    }
    all_different(&all);
    assert_eq!(pair.server.emptied(), begin);
    pair.finish();
}

#[test]
fn ten_clients_at_once() {
    concurrently(10, 50);
}

#[test]
fn a_hundred_clients_at_once() {
    concurrently(100, 20);
}

#[test]
fn a_thousand_clients_at_once() {
    concurrently(1000, 10);
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").expect("statm");
    let pages = text
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse::<u64>().ok());
    pages.expect("a number") * 4096
}

/// Clients come and go in a process of its own, for other tests have descriptors and memory, too.
fn cycle(rounds: usize, v6: bool) {
    let exe = std::env::current_exe().expect("this test");
    let output = std::process::Command::new(exe)
        .args(["--exact", "scenarios::cycle_alone", "--nocapture"])
        .env("CORELANE_ALONE", format!("{rounds} {v6}"))
        .output()
        .expect("started");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("alone: done"),
        "{text}"
    );
}

#[test]
fn a_thousand_clients_come_and_go_and_leave_nothing() {
    cycle(1000, false);
}

/// As many as can be had in little time.
#[test]
fn descriptors_are_given_back() {
    cycle(300, false);
}

/// In user space each has a connected socket at either end.
#[test]
fn descriptors_of_clients_over_ipv6_are_given_back() {
    cycle(300, true);
}

#[test]
fn cycle_alone() {
    let Ok(rounds) = std::env::var("CORELANE_ALONE") else {
        return;
    };
    let (rounds, v6) = rounds.split_once(' ').expect("two words");
    let rounds: usize = rounds.parse().expect("a number");
    let v6 = v6 == "true";
    let of = |options| Options { v6, ..options };
    let pair = Pair::new(&of(echoing()), &of(Options::new()));
    let begin = pair.server.count().2;
    let (mut fds, mut bytes, mut objects) = (0, 0, Vec::new());
    for round in 0..rounds {
        let lanes = open(&pair, 1);
        exchange(&pair, &lanes, 1);
        close(&pair, &lanes);
        if round == 99 {
            // What is kept for reuse is there by now.
            assert_eq!(pair.server.emptied(), begin);
            (fds, bytes, objects) = (descriptors(), resident(), pair.server.registry.objects());
        }
    }
    assert_eq!(pair.server.emptied(), begin);
    assert_eq!(pair.server.count().1.ended, rounds as u64);
    assert_eq!(pair.server.registry.objects(), objects);
    // A ring closes sockets later.
    for _ in 0..2000 {
        if descriptors() == fds {
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(descriptors(), fds);
    // Of 900 clients, each of which had 40 KiB: a fraction of what they had.
    let grown = resident().saturating_sub(bytes);
    assert!(grown < 2 << 20, "{grown} bytes");
    pair.finish();
    println!("alone: done");
}

#[test]
fn clients_that_do_different_things() {
    let pair = Pair::new(&echoing(), &Options::new());
    let begin = pair.server.count().2;
    let lanes = open(&pair, 5);
    let [sender, writer, reader, idle, adder] = [0, 1, 2, 3, 4].map(|n| lanes[n].0);
    for n in 0..50 {
        pair.client
            .order(Order::Send(sender, n, vec![n as u8; 500]));
        let len = 8000;
        let write = Operation::Write {
            local: 0,
            remote: 0,
            len,
        };
        let read = Operation::Read {
            local: 0,
            remote: 0,
            len,
        };
        let add = Operation::FetchAdd {
            local: 0,
            remote: 0,
            add: 1,
        };
        for (lane, what) in [(writer, write), (reader, read), (adder, add)] {
            pair.client.order(Order::Operate(lane, 1, what));
            assert_eq!(pair.client.done(), (1, Ok(())));
        }
        // One that comes and goes meanwhile.
        if n % 10 == 0 {
            let brief = open(&pair, 1);
            close(&pair, &brief);
        }
    }
    let last = pair.client.look(adder, 0, 8);
    assert_eq!(last, 49u64.to_ne_bytes());
    pair.client.order(Order::Send(idle, 7, b"awake".to_vec()));
    pair.client.wait("the idle one", |t| match t {
        Told::Message(lane, 7, data) if lane == idle => Some(data),
        _ => None,
    });
    close(&pair, &lanes);
    assert_eq!(pair.server.emptied(), begin);
    pair.finish();
}

/// The same test as another process: it connects and sends until it is killed.
#[test]
fn a_client_that_is_killed_in_mid_transfer_is_gone_within_the_idle_timeout() {
    if let Ok(target) = std::env::var("CORELANE_LANES_TARGET") {
        return be_killed(&target);
    }
    let mut options = Options::new();
    options.quic_idle = Duration::from_secs(2);
    let pair = Pair::new(&options, &lasting());
    let begin = pair.server.count().2;
    let ca = std::env::temp_dir().join(format!("corelane-lanes-{}.der", std::process::id()));
    fs::write(&ca, pair.ca.as_ref()).expect("a file");
    let exe = std::env::current_exe().expect("this test");
    let name = "scenarios::a_client_that_is_killed_in_mid_transfer_is_gone_within_the_idle_timeout";
    let mut child = std::process::Command::new(exe)
        .args(["--exact", name])
        .env(
            "CORELANE_LANES_TARGET",
            format!("{} {}", pair.target.addr, ca.display()),
        )
        .spawn()
        .expect("started");
    let (killed, info) = pair.server.opened();
    assert!(info.rdma);
    // It is in the midst of it: more comes than a window holds.
    for _ in 0..100 {
        let (lane, ..) = pair.server.message();
        assert_eq!(lane, killed);
    }
    child.kill().expect("killed");
    child.wait().expect("ended");
    // Another client does not notice.
    let other = open(&pair, 1)[0].0;
    assert!(matches!(pair.server.closed(), LaneEnd::Lost(_)));
    pair.client
        .order(Order::Send(other, 9, b"still here".to_vec()));
    pair.server.wait("the other's message", |t| match t {
        Told::Message(_, 9, data) if data == b"still here" => Some(()),
        _ => None,
    });
    pair.client.order(Order::Close(other));
    assert_eq!(pair.client.closed(), LaneEnd::Finished);
    assert_eq!(pair.server.emptied(), begin);
    fs::remove_file(&ca).expect("removed");
    pair.finish();
}

/// A client whose connection lives as long as it does itself.
fn lasting() -> Options {
    Options {
        keep_alive: Some(Duration::from_millis(200)),
        ..Options::new()
    }
}

fn be_killed(target: &str) {
    let (addr, ca) = target.split_once(' ').expect("two words");
    let ca = fs::read(ca).expect("the authority");
    let tls = crate::certs::client_config(&ca.into(), &[corelane::rdma::bootstrap::ALPN]);
    let client = End::start("killed", &lasting(), None);
    client.order(Order::Connect(corelane::shard::lanes::Target {
        addr: addr.parse().expect("an address"),
        name: crate::certs::SERVER_NAME.try_into().expect("a name"),
        tls: std::sync::Arc::new(tls),
    }));
    let (lane, _) = client.opened();
    loop {
        // Many wait for room at any time.
        for _ in 0..64 {
            client.order(Order::Send(lane, 1, vec![1; 900]));
        }
        client.wait("room", |t| matches!(t, Told::Room).then_some(()));
    }
}
