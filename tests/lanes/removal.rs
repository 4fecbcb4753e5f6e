//! A device that fails, goes away, or gives a queue pair or its port up, under lanes that are in
//! use: they go on over QUIC, nothing of the device is left, and what goes on elsewhere is not
//! touched.

use crate::faulty::Faults;
use crate::place::{BRIEF, is_verbs};
use crate::rig::{DEADLINE, Options, Order, Pair, Told};
use corelane::rdma::registry::Owner;
use corelane::rdma::{AsyncEvent, QpState};
use corelane::shard::lanes::{LaneEnd, LaneId, Operation};
use corelane::sys::clock::Clock;
use std::process::{Child, Command};
use std::time::Duration;

const PATTERN: &[u8] = b"what the region held before";

fn operate(pair: &Pair, lane: LaneId, what: Operation) {
    pair.client.order(Order::Operate(lane, 7, what));
    assert_eq!(pair.client.done(), (7, Ok(())));
}

/// Writes the pattern to the server's region at 64, or reads it from there.
fn pattern(pair: &Pair, lane: LaneId, write: bool) {
    let len = PATTERN.len() as u32;
    let (local, remote) = (64, 64);
    let nothing = vec![0; PATTERN.len()];
    let own = if write { PATTERN.to_vec() } else { nothing };
    pair.client.order(Order::Fill(lane, local, own));
    if write {
        operate(pair, lane, Operation::Write { local, remote, len });
    } else {
        operate(pair, lane, Operation::Read { local, remote, len });
        assert_eq!(pair.client.look(lane, local, PATTERN.len()), PATTERN);
    }
}

/// Messages go both ways on every lane, and in their midst `happen` happens: none is lost, repeated
/// or overtaken, and memory holds what it held.
fn through(pair: &Pair, lanes: &[(LaneId, LaneId)], happen: impl FnOnce()) {
    const EACH: u32 = 60;
    let mut happen = Some(happen);
    for (lane, _) in lanes {
        pattern(pair, *lane, true);
    }
    for n in 0..EACH {
        for (lane, other) in lanes {
            let data = n.to_be_bytes().to_vec();
            pair.client.order(Order::Send(*lane, n, data.clone()));
            pair.server.order(Order::Send(*other, n, data));
        }
        if n == EACH / 2 {
            happen.take().expect("once")();
        }
    }
    let (mut there, mut here) = (vec![0; lanes.len()], vec![0; lanes.len()]);
    let at = |lane: LaneId| {
        let is = |(a, b): &(LaneId, LaneId)| *a == lane || *b == lane;
        lanes.iter().position(is).expect("a lane of ours")
    };
    for _ in 0..EACH as usize * lanes.len() {
        for (end, next) in [(&pair.server, &mut there), (&pair.client, &mut here)] {
            let (lane, tag, data) = end.message();
            let next: &mut u32 = &mut next[at(lane)];
            assert_eq!((tag, &data[..]), (*next, &next.to_be_bytes()[..]));
            *next += 1;
        }
    }
    for (lane, _) in lanes {
        pattern(pair, *lane, false);
    }
}

/// Lanes at the two ends: one has but two names, for the ends may be numbered alike.
fn lanes(pair: &Pair, n: usize) -> Vec<(LaneId, LaneId)> {
    let connect = |_| {
        let (lane, other, info) = pair.connect();
        assert!(info.rdma);
        assert_eq!(lane, other, "numbered alike");
        (lane, other)
    };
    (0..n).map(connect).collect()
}

/// The server has lanes, and nothing of a device.
fn is_without_device(pair: &Pair, lanes: usize) {
    let (count, stats, objects, _) = pair.server.count();
    assert_eq!((count, objects), (lanes, None));
    assert_eq!(stats.fallbacks, lanes as u64);
    assert_eq!(pair.server.registry.objects(), []);
    // The memory is there, so it is charged.
    assert_eq!(pair.server.quotas.identities(), 1);
}

fn close(pair: &Pair, lanes: &[(LaneId, LaneId)]) {
    for (lane, _) in lanes {
        pair.client.order(Order::Close(*lane));
        assert_eq!(pair.client.closed(), LaneEnd::Finished);
    }
}

fn takes_no_lane_with_it(fail: impl FnOnce(&Faults)) {
    let server = Options::new();
    let faults = server.faults.clone();
    let pair = Pair::new(&server, &Options::new());
    let all = lanes(&pair, 3);
    through(&pair, &all, || {
        fail(&faults);
        // It turns.
        pair.server.order(Order::Count);
    });
    is_without_device(&pair, 3);
    let (late, other, info) = pair.connect();
    assert!(!info.rdma);
    pair.client.order(Order::Send(late, 5, b"late".to_vec()));
    assert_eq!(pair.server.message(), (other, 5, b"late".to_vec()));
    close(&pair, &all);
    pair.finish();
}

#[test]
fn a_device_that_says_it_failed_takes_no_lane_with_it() {
    takes_no_lane_with_it(|faults| faults.tell(AsyncEvent::DeviceFatal));
}

#[test]
fn a_device_that_answers_nothing_any_more_takes_no_lane_with_it() {
    takes_no_lane_with_it(Faults::take_away);
}

#[test]
fn a_queue_pair_that_fails_by_itself_is_left_by_its_lane_alone() {
    let server = Options::new();
    let faults = server.faults.clone();
    let pair = Pair::new(&server, &Options::new());
    let (first, at_first, _) = pair.connect();
    let (second, at_second, info) = pair.connect();
    // What the server calls its own is what the client was told of the peer.
    let qp = faults.pair(info.numbers[2]);
    through(&pair, &[(first, at_first), (second, at_second)], || {
        faults.tell(AsyncEvent::QpFatal(qp));
        pair.server.order(Order::Count);
    });
    let (count, stats, objects, _) = pair.server.count();
    assert_eq!((count, stats.fallbacks), (2, 1));
    assert_eq!(objects.map(|o| o.queue_pairs), Some(1));
    close(&pair, &[(first, at_first), (second, at_second)]);
    pair.finish();
}

#[test]
fn a_shard_that_sleeps_hears_of_its_port() {
    let mut server = Options::new();
    server.faults = Faults::that_wake();
    let faults = server.faults.clone();
    let pair = Pair::new(&server, &Options::new());
    let (lane, other, _) = pair.connect();
    let heard = |event| {
        faults.tell(event);
        pair.server.wait("an event", |t| match t {
            Told::Device(told) => Some(told),
            _ => None,
        })
    };
    assert_eq!(heard(AsyncEvent::PortErr), AsyncEvent::PortErr);
    let left = |t| matches!(t, Told::Fallback).then_some(());
    pair.client.wait("a fallback", left);
    pair.server.wait("a fallback", left);
    let (.., info) = pair.connect();
    assert!(!info.rdma, "the port is down");
    assert_eq!(heard(AsyncEvent::PortActive), AsyncEvent::PortActive);
    let (.., info) = pair.connect();
    assert!(info.rdma, "the port is up");
    pair.client.order(Order::Send(lane, 3, b"on".to_vec()));
    assert_eq!(pair.server.message(), (other, 3, b"on".to_vec()));
    pair.finish();
}

/// Lost between two steps of the bootstrap, at either end.
#[test]
fn a_device_that_is_lost_while_a_lane_is_made_leaves_a_lane_over_quic() {
    for (at_server, state, rdma) in [(true, QpState::Rts, true), (false, QpState::Init, false)] {
        let (server, client) = (Options::new(), Options::new());
        let faults = if at_server { &server } else { &client }.faults.clone();
        faults.tell_at(state, AsyncEvent::DeviceFatal);
        let pair = Pair::new(&server, &client);
        let (lane, other, info) = pair.connect();
        // Where the server loses it, the client had a queue pair for a moment; and where the client
        // does, unless it hears of that in time, as it does by a simulated device.
        assert!(info.rdma == rdma || (info.rdma && is_verbs()));
        for n in 0..20u32 {
            let data = n.to_be_bytes().to_vec();
            pair.client.order(Order::Send(lane, n, data.clone()));
            pair.server.order(Order::Send(other, n, data.clone()));
            assert_eq!(pair.server.message(), (other, n, data.clone()));
            assert_eq!(pair.client.message(), (lane, n, data));
        }
        let lost = if at_server {
            &pair.server
        } else {
            &pair.client
        };
        assert_eq!(lost.count().2, None);
        assert_eq!(lost.registry.objects(), []);
        let kept = if at_server {
            &pair.client
        } else {
            &pair.server
        };
        // Its own queue pair went, too.
        assert_eq!(kept.count().2.map(|o| o.queue_pairs), Some(0));
        close(&pair, &[(lane, other)]);
        assert!(kept.emptied().is_some());
        let mut left = kept.registry.objects().into_iter();
        assert!(left.all(|o| matches!(o.owner, Owner::Shard(_))));
        pair.finish();
    }
}

fn run(line: &str) -> Child {
    let mut words = line.split(' ');
    let program = words.next().expect("a program");
    let started = Command::new(program).args(words).spawn();
    started.expect("it starts")
}

fn done(line: &str) {
    ended(run(line), line);
}

/// Waits for a command that hangs while somebody has the device open.
fn ended(mut child: Child, line: &str) {
    let until = Clock::now() + DEADLINE;
    loop {
        match child.try_wait().expect("waited") {
            Some(status) => return assert!(status.success(), "{line}"),
            None => assert!(Clock::now() < until, "{line} does not end"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Descriptors of nodes of devices that this process has.
fn open_nodes() -> usize {
    let all = std::fs::read_dir("/proc/self/fd").expect("readable");
    let links = all.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    links.filter(|l| l.starts_with("/dev/infiniband")).count()
}

/// A device of the kernel's is made, used at both ends, and removed by `line` while it is.
fn removed_by(line: &str) {
    done("ip link add veth8 mtu 4200 type veth peer name veth9 mtu 4200");
    // On the loopback interface as well, so that QUIC has its address after the device is gone.
    for line in [
        "ip addr add 10.96.0.1/24 dev veth8",
        "ip addr add 10.96.0.1/32 dev lo",
        "ip link set veth9 up",
        "ip link set veth8 up",
        "rdma link add rxe8 type rxe netdev veth8",
    ] {
        done(line);
    }
    let place = || Options {
        place: Some(BRIEF),
        ..Options::new()
    };
    let pair = Pair::new(&place(), &place());
    let all = lanes(&pair, 4);
    assert!(open_nodes() > 0);
    let mut command = None;
    through(&pair, &all, || command = Some(run(line)));
    // It ends once both ends have closed the device.
    ended(command.expect("run"), line);
    for end in [&pair.server, &pair.client] {
        while end.count().2.is_some() {}
    }
    assert_eq!(open_nodes(), 0);
    is_without_device(&pair, 4);
    assert_eq!(pair.client.registry.objects(), []);
    let listed = Command::new("rdma").arg("link").output().expect("it runs");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(!listed.contains("rxe8"), "{listed}");
    let (.., info) = pair.connect();
    assert!(!info.rdma);
    close(&pair, &all);
    pair.finish();
    if std::path::Path::new("/sys/class/net/veth8").exists() {
        done("ip link del veth8");
    }
    done("ip addr del 10.96.0.1/32 dev lo");
}

#[test]
fn a_device_that_is_deleted_while_in_use_goes_and_takes_no_lane_with_it() {
    if is_verbs() {
        removed_by("rdma link delete rxe8");
    }
}

#[test]
fn a_device_whose_interface_is_deleted_while_in_use_takes_no_lane_with_it() {
    if is_verbs() {
        removed_by("ip link del veth8");
    }
}
