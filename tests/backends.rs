//! One suite of assertions about backends, run on every one that this machine has.
//!
//! Real sockets on loopback. Nothing depends on how long something takes: where a datagram is
//! awaited, the test waits in the backend itself and fails only after a generous deadline.

use corelane::base::{Ecn, FourTuple};
use corelane::io::{
    Backend, Choice, Errno, IoConfig, IoError, RecvMeta, SocketId, SocketOptions, TX_BUFFER_LEN,
    Transmit,
};
use corelane::sys::clock::Clock;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// What one receive showed, copied out.
#[derive(Debug)]
struct Got {
    meta: RecvMeta,
    data: Vec<u8>,
}

impl Got {
    fn segments(&self) -> Vec<&[u8]> {
        self.data.chunks(self.meta.segment_size).collect()
    }
}

fn open(choice: Choice) -> Option<Backend> {
    open_with(choice, &IoConfig::default())
}

/// The backend, or `None` with a line that says why this machine has none.
fn open_with(choice: Choice, config: &IoConfig) -> Option<Backend> {
    match Backend::open(choice, config) {
        Ok(b) => Some(b),
        Err(e @ IoError::Unavailable { .. }) => {
            eprintln!("skipped: {e}");
            None
        }
        Err(e) => panic!("{e}"),
    }
}

fn add(b: &mut Backend, addr: &str) -> (SocketId, SocketAddr) {
    add_with(b, addr, SocketOptions::default())
}

fn add_with(b: &mut Backend, addr: &str, options: SocketOptions) -> (SocketId, SocketAddr) {
    let socket = UdpSocket::bind(addr).unwrap();
    let id = b.add_socket(socket, options).unwrap();
    (id, b.local_addr(id).unwrap())
}

fn to(socket: SocketId, local: SocketAddr, remote: SocketAddr, len: usize) -> Transmit {
    Transmit {
        socket,
        path: FourTuple::new(local, remote),
        ecn: Ecn::NotEct,
        segment_size: len,
        len,
    }
}

fn send(b: &mut Backend, data: &[u8], transmit: Transmit) {
    let mut buffer = b.tx_buffer().expect("a send buffer is free");
    b.tx_slice(&mut buffer)[..data.len()].copy_from_slice(data);
    b.send(buffer, transmit);
}

/// Receives until `done` says so; each round sleeps in the backend.
fn until(b: &mut Backend, mut done: impl FnMut(&[Got]) -> bool) -> Vec<Got> {
    let mut got = Vec::new();
    b.flush().unwrap();
    for _ in 0..1000 {
        b.recv(&mut |meta, data| {
            got.push(Got {
                meta: *meta,
                data: data.to_vec(),
            });
            data.fill(0xee); // The sink may write.
        })
        .unwrap();
        if done(&got) {
            return got;
        }
        b.wait(Some(Duration::from_millis(20))).unwrap();
    }
    panic!("only {} trains came; {:?}", got.len(), b.stats());
}

/// Send buffers that can be had.
fn all_free(b: &mut Backend) -> usize {
    let held: Vec<_> = std::iter::from_fn(|| b.tx_buffer()).collect();
    held.len()
}

fn receive(b: &mut Backend, trains: usize) -> Vec<Got> {
    until(b, |got| got.len() >= trains)
}

fn receive_bytes(b: &mut Backend, bytes: usize) -> Vec<Got> {
    until(b, |got| {
        got.iter().map(|g| g.data.len()).sum::<usize>() >= bytes
    })
}

fn echo(b: &mut Backend) {
    let (a, a_addr) = add(b, "127.0.0.1:0");
    let (c, c_addr) = add(b, "127.0.0.1:0");
    send(b, b"ping", to(a, a_addr, c_addr, 4));
    let got = receive(b, 1);
    assert_eq!(got[0].data, b"ping");
    assert_eq!(got[0].meta.socket, c);
    assert_eq!(got[0].meta.path, FourTuple::new(c_addr, a_addr));
    assert_eq!(
        (got[0].meta.ecn, got[0].meta.segment_size),
        (Ecn::NotEct, 4)
    );
    send(b, b"pong!", to(c, c_addr, got[0].meta.path.remote, 5));
    let got = receive(b, 1);
    assert_eq!((&got[0].data[..], got[0].meta.socket), (&b"pong!"[..], a));
    let s = b.stats();
    assert_eq!((s.tx_datagrams, s.tx_bytes, s.tx_dropped), (2, 9, 0));
    assert_eq!((s.rx_datagrams, s.rx_bytes, s.rx_trains), (2, 9, 2));
}

fn ipv6_and_dual_stack(b: &mut Backend) {
    let Ok(wild) = UdpSocket::bind("[::]:0") else {
        eprintln!("skipped: this machine has no IPv6");
        return;
    };
    let port = wild.local_addr().unwrap().port();
    let w = b.add_socket(wild, SocketOptions::default()).unwrap();
    // An IPv4 peer of the dual-stack socket is IPv4 to us, in both directions.
    let (v4, v4_addr) = add(b, "127.0.0.1:0");
    let local = SocketAddr::from(([127, 0, 0, 3], port));
    send(b, b"four", to(v4, v4_addr, local, 4));
    let got = receive(b, 1);
    assert_eq!(got[0].meta.path, FourTuple::new(local, v4_addr));
    let mut reply = to(w, local, v4_addr, 4);
    reply.ecn = Ecn::Ect0;
    send(b, b"back", reply);
    let got = receive(b, 1);
    assert_eq!(got[0].meta.path, FourTuple::new(v4_addr, local));
    assert_eq!(got[0].meta.ecn, Ecn::Ect0);
    if UdpSocket::bind("[::1]:0").is_err() {
        return;
    }
    let (v6, v6_addr) = add(b, "[::1]:0");
    let local = SocketAddr::new("::1".parse().unwrap(), port);
    let mut t = to(v6, v6_addr, local, 3000);
    (t.segment_size, t.ecn) = (1000, Ecn::Ce);
    send(b, &[6; 3000], t);
    let got = receive_bytes(b, 3000);
    assert_eq!(got[0].meta.path, FourTuple::new(local, v6_addr));
    assert_eq!(got[0].meta.ecn, Ecn::Ce);
    // And back, from the address that was asked.
    send(b, b"six", to(w, local, v6_addr, 3));
    let got = receive(b, 1);
    assert_eq!(got[0].meta.path, FourTuple::new(v6_addr, local));
}

fn a_train_arrives_as_its_segments_in_order(b: &mut Backend) {
    let (a, a_addr) = add(b, "127.0.0.1:0");
    let (_, c_addr) = add(b, "127.0.0.1:0");
    // A full train with a short tail, the most segments, and one single datagram after them.
    for (len, segment_size) in [(53 * 1200 + 7, 1200), (64 * 1000, 1000), (65_507, 65_507)] {
        let data: Vec<u8> = (0..len).map(|i| (i / segment_size) as u8).collect();
        let mut t = to(a, a_addr, c_addr, len);
        t.segment_size = segment_size;
        send(b, &data, t);
        let got = receive_bytes(b, len);
        let segments: Vec<&[u8]> = got.iter().flat_map(Got::segments).collect();
        assert_eq!(segments.len(), len.div_ceil(segment_size));
        for (i, s) in segments.iter().enumerate() {
            let want = segment_size.min(len - i * segment_size);
            assert!(s.len() == want && s.iter().all(|&x| x == i as u8));
        }
    }
    assert_eq!(b.stats().tx_datagrams, 54 + 64 + 1);
    assert_eq!(b.stats().rx_datagrams, 54 + 64 + 1);
}

fn without_segmentation_segments_leave_one_by_one(b: &mut Backend) {
    let plain = SocketOptions {
        gso: false,
        gro: false,
        ..SocketOptions::default()
    };
    let (a, a_addr) = add_with(b, "127.0.0.1:0", plain);
    let (_, c_addr) = add_with(b, "127.0.0.1:0", plain);
    let data: Vec<u8> = (0..40 * 1000 + 10).map(|i| (i / 1000) as u8).collect();
    for _ in 0..3 {
        let mut t = to(a, a_addr, c_addr, data.len());
        t.segment_size = 1000;
        send(b, &data, t);
        let got = receive(b, 41);
        assert_eq!(got.len(), 41);
        for (i, g) in got.iter().enumerate() {
            assert_eq!(g.meta.segment_size, g.data.len());
            assert!(g.data.iter().all(|&x| x == i as u8), "segment {i} in order");
        }
    }
    assert_eq!(b.stats().tx_datagrams, 3 * 41);
}

fn ecn_marks_arrive(b: &mut Backend) {
    let (a, a_addr) = add(b, "127.0.0.1:0");
    let (_, c_addr) = add(b, "127.0.0.1:0");
    for ecn in [Ecn::Ect0, Ecn::Ect1, Ecn::Ce, Ecn::NotEct] {
        let mut t = to(a, a_addr, c_addr, 2400);
        (t.segment_size, t.ecn) = (1200, ecn);
        send(b, &[1; 2400], t);
        let got = receive_bytes(b, 2400);
        assert!(got.iter().all(|g| g.meta.ecn == ecn), "{ecn:?}: {got:?}");
    }
}

fn a_wildcard_socket_replies_from_the_address_it_was_asked_at(b: &mut Backend) {
    let (w, w_addr) = add(b, "0.0.0.0:0");
    let (c, c_addr) = add(b, "127.0.0.1:0");
    for last in [1, 2, 77] {
        let ip = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
        let target = SocketAddr::new(ip, w_addr.port());
        send(b, b"q", to(c, c_addr, target, 1));
        let got = receive(b, 1);
        assert_eq!(got[0].meta.path.local, target);
        send(b, b"a", to(w, got[0].meta.path.local, c_addr, 1));
        let got = receive(b, 1);
        assert_eq!((got[0].meta.socket, got[0].meta.path.remote), (c, target));
    }
    // An unspecified local address leaves the choice to the kernel.
    send(b, b"a", to(w, w_addr, c_addr, 1));
    assert_eq!(receive(b, 1)[0].meta.path.remote.port(), w_addr.port());
}

fn what_the_network_refuses_is_counted_and_nothing_stops(b: &mut Backend) {
    let (a, a_addr) = add(b, "127.0.0.1:0");
    let (_, c_addr) = add(b, "127.0.0.1:0");
    // Larger than IPv4 carries; the other family; nobody there.
    send(b, &[0; 65_520], to(a, a_addr, c_addr, 65_520));
    send(b, b"six", to(a, a_addr, "[::1]:9".parse().unwrap(), 3));
    let gone = UdpSocket::bind("127.0.0.1:0").unwrap();
    let nobody = gone.local_addr().unwrap();
    drop(gone);
    send(b, b"void", to(a, a_addr, nobody, 4));
    send(b, b"fine", to(a, a_addr, c_addr, 4));
    assert_eq!(receive(b, 1)[0].data, b"fine");
    let s = b.stats();
    assert_eq!(s.errors.of(Errno(libc::EMSGSIZE)), 1, "{s:?}");
    assert_eq!(s.errors.of(Errno(libc::EAFNOSUPPORT)), 1, "{s:?}");
    assert_eq!((s.tx_dropped, s.tx_datagrams), (2, 2), "{s:?}");
}

fn an_icmp_error_on_a_connected_socket_is_counted_and_nothing_stops(b: &mut Backend) {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let peer_addr = peer.local_addr().unwrap();
    let os = UdpSocket::bind("127.0.0.1:0").unwrap();
    os.connect(peer_addr).unwrap();
    drop(peer);
    let a = b.add_socket(os, SocketOptions::default()).unwrap();
    let a_addr = b.local_addr(a).unwrap();
    send(b, b"lost", to(a, a_addr, peer_addr, 4));
    // The refusal comes back to this socket and is reported by its next call.
    let refused = Errno(libc::ECONNREFUSED);
    for _ in 0..1000 {
        b.flush().unwrap();
        b.recv(&mut |_, _| panic!("nothing was sent here")).unwrap();
        if b.stats().errors.of(refused) == 1 {
            break;
        }
    }
    assert_eq!(b.stats().errors.of(refused), 1);
    let peer = UdpSocket::bind(peer_addr).unwrap();
    peer.send_to(b"hello", a_addr).unwrap();
    assert_eq!(receive(b, 1)[0].data, b"hello");
}

fn send_buffers_run_out_and_come_back(b: &mut Backend) {
    let (a, a_addr) = add(b, "127.0.0.1:0");
    let (_, c_addr) = add(b, "127.0.0.1:0");
    let all = IoConfig::default().tx_buffers;
    let mut held: Vec<_> = std::iter::from_fn(|| b.tx_buffer()).collect();
    assert_eq!(held.len(), all);
    assert!(held.iter().all(|h| h.len() == TX_BUFFER_LEN));
    b.release(held.pop().unwrap());
    drop(held.pop());
    held.extend(std::iter::from_fn(|| b.tx_buffer()));
    assert_eq!(held.len(), all);
    // Those that were sent come back by themselves.
    for mut buffer in held.drain(..) {
        buffer[..100].fill(5);
        b.send(buffer, to(a, a_addr, c_addr, 100));
    }
    assert_eq!(receive(b, all).len(), all);
    assert_eq!(all_free(b), all);
}

fn more_trains_than_receive_buffers_all_arrive(b: &mut Backend) {
    let (a, a_addr) = add(b, "127.0.0.1:0");
    let (_, c_addr) = add(b, "127.0.0.1:0");
    b.flush().unwrap();
    // They wait in the kernel before the first `recv`; none may be lost.
    let n = 2 * IoConfig::default().rx_buffers + 3;
    for i in 0..n {
        assert!(b.can_send(a));
        send(b, &[i as u8; 1000], to(a, a_addr, c_addr, 1000));
        b.flush().unwrap();
    }
    let got = receive(b, n);
    assert_eq!(got.len(), n);
    for (i, g) in got.iter().enumerate() {
        assert!(g.data.len() == 1000 && g.data.iter().all(|&x| x == i as u8));
    }
}

fn a_burst_on_one_socket_leaves_the_other_able_to_send(b: &mut Backend) {
    let (a, a_addr) = add(b, "127.0.0.1:0");
    let (c, c_addr) = add(b, "127.0.0.1:0");
    // The first socket takes every buffer it can get.
    let sent = 3 * IoConfig::default().tx_buffers;
    for _ in 0..sent {
        let buffer = match b.tx_buffer() {
            Some(buffer) => buffer,
            None => {
                b.flush().unwrap();
                b.tx_buffer().expect("a flush frees buffers")
            }
        };
        b.send(buffer, to(a, a_addr, c_addr, 200));
    }
    b.flush().unwrap();
    assert_eq!(b.stats().tx_dropped, 0, "loopback takes them all");
    assert!(b.can_send(c));
    send(b, b"me, too", to(c, c_addr, a_addr, 7));
    let got = receive(b, sent + 1);
    assert!(
        got.iter()
            .any(|g| g.meta.socket == a && g.data == b"me, too")
    );
}

fn another_thread_ends_a_wait(b: &mut Backend) {
    add(b, "127.0.0.1:0");
    for _ in 0..20 {
        let waker = b.waker();
        let t = std::thread::spawn(move || waker.wake());
        // Without the wake this would never return.
        b.wait(None).unwrap();
        t.join().unwrap();
    }
    // A wake while awake is kept for the next wait.
    b.waker().wake();
    b.wait(None).unwrap();
    assert_eq!(b.recv(&mut |_, _| {}), Ok(0));
}

fn an_arrival_ends_a_wait(b: &mut Backend) {
    let (_, addr) = add(b, "127.0.0.1:0");
    let t = std::thread::spawn(move || {
        let s = UdpSocket::bind("127.0.0.1:0").unwrap();
        s.send_to(b"knock", addr).unwrap();
    });
    let mut got = 0;
    while got == 0 {
        b.wait(None).unwrap();
        got = b.recv(&mut |_, data| assert_eq!(data, b"knock")).unwrap();
    }
    t.join().unwrap();
}

fn a_wait_times_out(b: &mut Backend) {
    add(b, "127.0.0.1:0");
    for timeout in [0, 1, 1_000_000, 3_000_000] {
        let timeout = Duration::from_nanos(timeout);
        let before = Clock::now();
        b.wait(Some(timeout)).unwrap();
        let slept = Clock::now() - before;
        assert!(slept >= timeout, "{slept:?} of {timeout:?}");
    }
    assert_eq!(b.recv(&mut |_, _| {}), Ok(0));
}

fn an_idle_flush_makes_no_system_call(b: &mut Backend) {
    let (a, a_addr) = add(b, "127.0.0.1:0");
    let (_, c_addr) = add(b, "127.0.0.1:0");
    send(b, b"x", to(a, a_addr, c_addr, 1));
    receive(b, 1);
    b.flush().unwrap();
    b.recv(&mut |_, _| {}).unwrap();
    b.flush().unwrap();
    let before = b.stats().syscalls;
    for _ in 0..100 {
        b.flush().unwrap();
    }
    assert_eq!(b.stats().syscalls, before);
    if b.name() == "uring" {
        // There a look for news is free as well.
        for _ in 0..100 {
            b.recv(&mut |_, _| {}).unwrap();
        }
        assert_eq!(b.stats().syscalls, before);
    }
}

fn many_sockets_take_turns(b: &mut Backend) {
    let (a, a_addr) = add(b, "127.0.0.1:0");
    let targets: Vec<_> = (0..150).map(|_| add(b, "127.0.0.1:0")).collect();
    let mut got = Vec::new();
    for batch in targets.chunks(10) {
        for (id, addr) in batch {
            send(b, &id.0.to_ne_bytes(), to(a, a_addr, *addr, 4));
        }
        got.extend(receive(b, batch.len()));
    }
    assert_eq!(got.len(), targets.len());
    for g in &got {
        assert_eq!(g.data, g.meta.socket.0.to_ne_bytes());
        assert_eq!(b.local_addr(g.meta.socket), Some(g.meta.path.local));
    }
    // All of them at once, more than there are receive buffers.
    let outside = UdpSocket::bind("127.0.0.1:0").unwrap();
    for (_, addr) in &targets {
        outside.send_to(b"!", addr).unwrap();
    }
    let got = receive(b, targets.len());
    let mut seen: Vec<u32> = got.iter().map(|g| g.meta.socket.0).collect();
    seen.sort_unstable();
    assert!(seen.iter().eq(targets.iter().map(|(id, _)| &id.0)));
}

fn a_removed_socket_frees_its_port_and_its_place(b: &mut Backend) {
    let (keep, keep_addr) = add(b, "127.0.0.1:0");
    let outside = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut highest = 0;
    for round in 0..40u8 {
        let (id, addr) = add(b, "127.0.0.1:0");
        highest = highest.max(id.0);
        outside.send_to(&[round], addr).unwrap();
        let got = until(b, |got| got.iter().any(|g| g.meta.socket == id));
        assert!(got.iter().any(|g| g.data == [round]));
        // One datagram waits unread and one send is queued when the socket goes.
        outside.send_to(b"unread", addr).unwrap();
        send(b, b"queued", to(id, addr, keep_addr, 6));
        b.remove_socket(id);
        b.remove_socket(id);
        assert_eq!(b.local_addr(id), None);
        assert!(!b.can_send(id));
        b.flush().unwrap();
        // The port is free again at once.
        drop(UdpSocket::bind(addr).unwrap());
        b.recv(&mut |meta, _| assert_eq!(meta.socket, keep))
            .unwrap();
    }
    assert!(highest < 20, "places are used again: {highest}");
    outside.send_to(b"still", keep_addr).unwrap();
    let got = until(b, |got| got.iter().any(|g| g.data == b"still"));
    assert!(got.iter().all(|g| g.meta.socket == keep));
    assert_eq!(
        all_free(b),
        IoConfig::default().tx_buffers,
        "no send buffer leaked"
    );
}

fn a_send_on_an_unknown_socket_is_counted(b: &mut Backend) {
    let somewhere: SocketAddr = "127.0.0.1:9".parse().unwrap();
    send(b, b"zz", to(SocketId(7), somewhere, somewhere, 2));
    b.flush().unwrap();
    assert_eq!((b.stats().tx_dropped, b.stats().tx_datagrams), (1, 0));
    assert_eq!(b.stats().errors.of(Errno(libc::EBADF)), 1);
    assert_eq!(b.local_addr(SocketId(7)), None);
    b.remove_socket(SocketId(7));
}

fn empty_datagrams_are_counted_and_not_shown(b: &mut Backend) {
    let (_, addr) = add(b, "127.0.0.1:0");
    let outside = UdpSocket::bind("127.0.0.1:0").unwrap();
    outside.send_to(b"", addr).unwrap();
    outside.send_to(b"full", addr).unwrap();
    assert_eq!(receive(b, 1)[0].data, b"full");
    assert_eq!((b.stats().rx_empty, b.stats().rx_datagrams), (1, 1));
}

fn the_table_of_sockets_is_bounded(choice: Choice) {
    let config = IoConfig {
        max_sockets: 2,
        ..IoConfig::default()
    };
    let Some(mut b) = open_with(choice, &config) else {
        return;
    };
    let (first, _) = add(&mut b, "127.0.0.1:0");
    add(&mut b, "127.0.0.1:0");
    let third = || UdpSocket::bind("127.0.0.1:0").unwrap();
    let error = b.add_socket(third(), SocketOptions::default());
    assert_eq!(error, Err(IoError::TooManySockets { limit: 2 }));
    b.flush().unwrap();
    b.remove_socket(first);
    b.add_socket(third(), SocketOptions::default()).unwrap();
}

fn a_backend_may_be_made_here_and_driven_there(choice: Choice) {
    let Some(mut b) = open(choice) else {
        return;
    };
    let (a, a_addr) = add(&mut b, "127.0.0.1:0");
    std::thread::spawn(move || {
        send(&mut b, b"self", to(a, a_addr, a_addr, 4));
        assert_eq!(receive(&mut b, 1)[0].data, b"self");
    })
    .join()
    .unwrap();
}

fn dropping_with_operations_in_flight_is_safe(choice: Choice) {
    for round in 0..20 {
        let Some(mut b) = open(choice) else {
            return;
        };
        let (a, a_addr) = add(&mut b, "127.0.0.1:0");
        let (_, c_addr) = add(&mut b, "127.0.0.1:0");
        let waker = b.waker();
        if round > 0 {
            b.flush().unwrap();
            waker.wake();
            b.wait(None).unwrap();
            for _ in 0..5 {
                let mut t = to(a, a_addr, c_addr, 60_000);
                t.segment_size = 1000;
                send(&mut b, &[9; 60_000], t);
            }
            b.flush().unwrap();
            send(&mut b, b"never flushed", to(a, a_addr, c_addr, 13));
        }
        let mut lent = b.tx_buffer().unwrap();
        drop(b);
        lent.fill(1);
        waker.wake();
        // The ports are free again.
        drop(UdpSocket::bind(a_addr).unwrap());
        drop(UdpSocket::bind(c_addr).unwrap());
    }
}

fn dropping_away_from_the_driving_thread_is_safe(choice: Choice) {
    for _ in 0..5 {
        let Some(mut b) = open(choice) else {
            return;
        };
        let (a, a_addr) = add(&mut b, "127.0.0.1:0");
        send(&mut b, b"self", to(a, a_addr, a_addr, 4));
        assert_eq!(receive(&mut b, 1)[0].data, b"self");
        send(&mut b, b"more", to(a, a_addr, a_addr, 4));
        let waker = b.waker();
        std::thread::spawn(move || drop(b)).join().unwrap();
        waker.wake();
    }
}

macro_rules! suites {
    ($($backend:ident => $choice:expr,)*) => {$(
        mod $backend {
            use super::*;
            suites!(@fresh $backend $choice;
                echo,
                ipv6_and_dual_stack,
                a_train_arrives_as_its_segments_in_order,
                without_segmentation_segments_leave_one_by_one,
                ecn_marks_arrive,
                a_wildcard_socket_replies_from_the_address_it_was_asked_at,
                what_the_network_refuses_is_counted_and_nothing_stops,
                an_icmp_error_on_a_connected_socket_is_counted_and_nothing_stops,
                send_buffers_run_out_and_come_back,
                more_trains_than_receive_buffers_all_arrive,
                a_burst_on_one_socket_leaves_the_other_able_to_send,
                another_thread_ends_a_wait,
                an_arrival_ends_a_wait,
                a_wait_times_out,
                an_idle_flush_makes_no_system_call,
                many_sockets_take_turns,
                a_removed_socket_frees_its_port_and_its_place,
                a_send_on_an_unknown_socket_is_counted,
                empty_datagrams_are_counted_and_not_shown,
            );
            suites!(@own $choice;
                the_table_of_sockets_is_bounded,
                a_backend_may_be_made_here_and_driven_there,
                dropping_with_operations_in_flight_is_safe,
                dropping_away_from_the_driving_thread_is_safe,
            );
        }
    )*};
    (@fresh $backend:ident $choice:expr; $($test:ident,)*) => {$(
        #[test]
        fn $test() {
            if let Some(mut b) = open($choice) {
                assert_eq!(b.name(), stringify!($backend));
                super::$test(&mut b);
            }
        }
    )*};
    (@own $choice:expr; $($test:ident,)*) => {$(
        #[test]
        fn $test() {
            super::$test($choice);
        }
    )*};
}

suites! {
    mmsg => Choice::Mmsg,
    uring => Choice::Uring,
}
