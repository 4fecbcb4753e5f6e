//! What needs devices of the kernel: two of rxe with each other, rxe crossed with `roce`, and what
//! only a device that several shards share can do.

use crate::Run;
use crate::crossed::Crossed;
use crate::link::{Link, Net, Terms};
use corelane::base::Rng;
use corelane::rdma::verbs::Device;
use corelane::rdma::*;
use std::os::fd::{AsRawFd, RawFd};
use std::process::Command;

/// The guest's devices, as `tools/rdma-vm` makes them.
const PAIR: [&str; 2] = ["rxe0", "rxe1"];

/// Waits until one of these is readable, or a moment.
pub fn wait_readable(fds: &[RawFd], milliseconds: i32) {
    let mut polled: Vec<libc::pollfd> = fds
        .iter()
        .map(|&fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    // SAFETY: an array of so many entries, which the call alone uses until it returns.
    unsafe {
        libc::poll(
            polled.as_mut_ptr(),
            polled.len() as libc::nfds_t,
            milliseconds,
        )
    };
}

/// What becomes readable for a device.
pub fn wake_fds(device: &Device) -> Vec<RawFd> {
    let fds = device.wake_fds();
    fds.iter().map(|(_, fd)| fd.as_raw_fd()).collect()
}

/// A device's address of RoCE v2, of the family that is asked for.
pub fn place(device: &Device, v4: bool) -> AddressVector {
    let gids = device.gids();
    let usable = |(_, gid): &&(u8, Gid)| match gid.ip() {
        std::net::IpAddr::V4(_) => v4,
        std::net::IpAddr::V6(ip) => !v4 && !ip.is_unicast_link_local(),
    };
    let (sgid_index, dgid) = *gids.iter().find(usable).expect("an address");
    AddressVector {
        sgid_index,
        dgid,
        udp_port: 4791,
    }
}

/// Two devices of verbs, and where they are.
struct Kernel([Device; 2], [AddressVector; 2]);

impl Kernel {
    fn new() -> Self {
        Self::on(PAIR, [1, 2])
    }

    fn on(names: [&str; 2], seeds: [u64; 2]) -> Self {
        let open = |end: usize| {
            let rng = Rng::from_u64(seeds[end]);
            Device::open(Some(names[end]), rng).expect("a device")
        };
        let devices = [open(0), open(1)];
        let places = [place(&devices[0], true), place(&devices[1], true)];
        Self(devices, places)
    }
}

impl Net for Kernel {
    fn dev(&mut self, end: usize) -> &mut dyn Provider {
        &mut self.0[end]
    }

    fn place(&self, end: usize) -> AddressVector {
        self.1[end]
    }

    fn is_rxe(&self, _: usize) -> bool {
        true
    }

    fn arm(&mut self, end: usize, cq: CompletionQueueId) {
        self.0[end].req_notify_cq(cq).expect("armed");
    }

    fn wait(&mut self) {
        let fds = [wake_fds(&self.0[0]), wake_fds(&self.0[1])].concat();
        wait_readable(&fds, 20);
        for device in &mut self.0 {
            device.ack_cq_events();
        }
    }
}

/// Two shards of one process share the opening of a device, its numbers and its limits; each has
/// its own objects and its own events.
fn shared_context() {
    let before = descriptors();
    // From one seed, so that both draw the same numbers if they can.
    let mut net = Kernel::on([PAIR[0]; 2], [7; 2]);
    let [a, b] = [wake_fds(&net.0[0]), wake_fds(&net.0[1])];
    assert_eq!(a[1], b[1], "one opening");
    assert!(a[0] != b[0] && a[2] != b[2], "wakers of their own");
    let terms = Terms {
        shared: true,
        ..Terms::default()
    };
    let mut link = Link::new(&mut net, terms);
    let [first, second] = [link.ends[0].qp, link.ends[1].qp];
    assert_ne!(first.psn, second.psn, "numbers are the device's");
    assert_ne!(first.qpn, second.qpn);
    assert_eq!(
        link.dev(0).objects().queue_pairs,
        1,
        "objects are the shard's"
    );
    // An event of the second shard's, taken by the first, reaches and wakes the second.
    let srq = link.ends[1].srq.expect("shared");
    link.recv(1, 1, 0, 64);
    link.dev(1).arm_srq(srq, 1).expect("armed");
    link.request(0, 2, SendOp::Send, 0, 8);
    link.success(0, 2);
    link.success(1, 1);
    wait_readable(&[a[1]], 5000);
    assert_eq!(link.dev(0).get_async_event(), None, "not its own");
    wait_readable(&[b[2]], 5000);
    let event = link.dev(1).get_async_event();
    assert_eq!(event, Some(AsyncEvent::SrqLimitReached(srq)));
    assert_eq!(link.dev(1).get_async_event(), None);
    // What is not removed goes with its owner, in the right order.
    drop(net);
    assert_eq!(resources(), 0, "the kernel has nothing of ours left");
    assert_eq!(descriptors(), before, "no descriptor is left");
}

/// A port that goes down and comes up is told to every shard.
fn port_events() {
    let open = |seed| Device::open(Some(PAIR[1]), Rng::from_u64(seed)).expect("a device");
    let mut shards = [open(1), open(2)];
    for (state, expected) in [
        ("down", AsyncEvent::PortErr),
        ("up", AsyncEvent::PortActive),
    ] {
        ip(&["link", "set", "veth1", state]);
        for shard in &mut shards {
            let mut event = None;
            for _ in 0..100 {
                event = shard.get_async_event();
                if event.is_some() {
                    break;
                }
                wait_readable(&wake_fds(shard), 100);
            }
            assert_eq!(event, Some(expected));
        }
    }
    // Its route and neighbour went with it.
    ip(&[
        "route",
        "replace",
        "10.99.0.1",
        "dev",
        "veth1",
        "src",
        "10.99.0.2",
        "table",
        "101",
    ]);
    let neighbour = [
        "10.99.0.1",
        "lladdr",
        "02:00:00:00:00:01",
        "dev",
        "veth1",
        "nud",
        "permanent",
    ];
    ip(&[&["neigh", "replace"], &neighbour[..]].concat());
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status();
    assert!(status.expect("ip runs").success(), "ip {arguments:?}");
}

/// Queue pairs that the kernel lists for this process.
fn resources() -> usize {
    let output = Command::new("rdma")
        .args(["resource", "show", "qp"])
        .output();
    let output = output.expect("rdma runs");
    let pid = format!("pid {} ", std::process::id());
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    lines.lines().filter(|l| l.contains(&pid)).count()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd")
        .expect("readable")
        .count()
}

/// A device is opened and closed with everything on it, many times.
fn many_openings() {
    let before = descriptors();
    for seed in 0..20 {
        let mut net = Kernel::new();
        let mut link = Link::new(&mut net, Terms::default());
        link.recv(1, 1, 0, 64);
        link.request(0, seed, SendOp::Send, 0, 8);
        link.success(0, seed);
        if seed % 2 == 0 {
            link.tear_down();
        }
    }
    assert_eq!((descriptors(), resources()), (before, 0));
}

fn names() {
    let names = verbs::devices().expect("devices");
    assert!(
        PAIR.iter().all(|name| names.iter().any(|n| n == name)),
        "{names:?}"
    );
    let error = Device::open(Some("none0"), Rng::from_u64(1)).expect_err("no such device");
    assert_eq!(error, verbs::Unavailable::NoSuchDevice("none0".into()));
}

/// Who may lock only so much memory is told so by the device's limits, before the kernel refuses.
fn locked_memory() {
    const MAY: u64 = 1 << 20;
    let mut before = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let less = libc::rlimit {
        rlim_cur: MAY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: reads and sets two numbers.
    let set = unsafe {
        libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut before)
            | libc::setrlimit(libc::RLIMIT_MEMLOCK, &less)
    };
    assert_eq!(set, 0);
    let done = std::thread::spawn(|| {
        // The limit does not hold for who has this capability; a thread gives up its own alone.
        let header = [0x2008_0522u32, 0];
        let mut data = [0u32; 6];
        // SAFETY: a header and two triples of words, as version 3 of the call has them.
        unsafe {
            libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr());
            data[0] &= !(1 << 14);
            let dropped = libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr());
            assert_eq!(dropped, 0);
        }
        let mut device = Device::open(Some(PAIR[0]), Rng::from_u64(1)).expect("a device");
        assert_eq!(device.query_device().max_registered, MAY);
        let pd = device.alloc_pd().expect("made");
        let half = device.reg_mr(pd, MAY as usize / 2, Access::NONE);
        let half = half.expect("as much as may be").id;
        // A page is locked as a whole.
        let error = device.reg_mr(pd, MAY as usize / 2 + 1, Access::NONE);
        let error = error.expect_err("more than may be");
        assert!(
            matches!(error, RdmaError::Limit { limit: MAY, .. }),
            "{error}"
        );
        let rest = device.reg_mr(pd, MAY as usize / 2 - 4096, Access::NONE);
        let rest = rest.expect("as much as is left").id;
        let of = |u: &&Usage| u.what == "registered bytes";
        let usage = device.usage();
        let bytes = usage.iter().find(of).expect("told");
        assert!(bytes.is_near() && bytes.used == MAY - 4096, "{bytes:?}");
        for mr in [half, rest] {
            device.dereg_mr(mr).expect("gone");
        }
        device.dealloc_pd(pd).expect("gone");
    })
    .join();
    // SAFETY: sets what was read above.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &before) };
    done.expect("done");
}

/// The number of a queue pair that is gone may be another's at once: what the first left in the
/// completion queue is not told of the second, and what others have there is not lost.
fn completions_of_the_gone() {
    let mut net = Kernel::new();
    let mut link = Link::new(&mut net, Terms::default());
    // Receives that are flushed into the queue, and never polled.
    for n in 0..8 {
        link.recv(1, n, 0, 64);
    }
    let qp = link.ends[1].qp.id;
    let queue = link.ends[1].cq;
    let dev = link.dev(1);
    dev.modify_to_err(qp).expect("from any state");
    std::thread::sleep(std::time::Duration::from_millis(50));
    dev.destroy_qp(qp).expect("gone");
    let none = Completion {
        wr_id: 99,
        status: Status::GeneralErr,
        opcode: CompletionOpcode::Send,
        byte_len: 0,
        imm: None,
        qp,
        qpn: 0,
    };
    let mut polled = [none; 16];
    assert_eq!(dev.poll_cq(queue, &mut polled), Ok(0));
}

pub fn run(run: &mut Run) {
    run.one("verbs: names".into(), names);
    run.all("verbs", true, Kernel::new);
    run.one("verbs: two shards on one device".into(), shared_context);
    run.one("verbs: port events".into(), port_events);
    run.one("verbs: many openings".into(), many_openings);
    run.one("verbs: locked memory".into(), locked_memory);
    run.one(
        "verbs: completions of the gone".into(),
        completions_of_the_gone,
    );
    for (family, v4) in [("IPv6", false), ("IPv4", true)] {
        let name = format!("roce asks rxe over {family}");
        run.all(&name, false, || Crossed::new(v4, 0));
        let name = format!("rxe asks roce over {family}");
        run.all(&name, v4, || Crossed::new(v4, 1));
    }
}
