//! What is sent arrives: bytes, order, trains, ECN marks and addresses.

use crate::rig::{Got, Rig, to};
use corelane::base::{Ecn, FourTuple};
use corelane::io::{AHEAD, Arrival, IoConfig, IoError, SocketId, SocketOptions};
use socket2::{Domain, Socket, Type};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

pub fn echo(b: &mut Rig) {
    let (a, a_addr) = b.bind("127.0.0.1:0");
    let (c, c_addr) = b.bind("127.0.0.1:0");
    b.put(b"ping", to(a, a_addr, c_addr, 4));
    let got = b.receive(1);
    assert_eq!(got[0].data, b"ping");
    assert_eq!(got[0].meta.socket, c);
    assert_eq!(got[0].meta.path, FourTuple::new(c_addr, a_addr));
    assert_eq!(
        (got[0].meta.ecn, got[0].meta.segment_size),
        (Ecn::NotEct, 4)
    );
    b.put(b"pong!", to(c, c_addr, got[0].meta.path.remote, 5));
    let got = b.receive(1);
    assert_eq!((&got[0].data[..], got[0].meta.socket), (&b"pong!"[..], a));
    let s = b.stats();
    assert_eq!((s.tx_datagrams, s.tx_bytes, s.tx_dropped), (2, 9, 0));
    assert_eq!((s.rx_datagrams, s.rx_bytes, s.rx_trains), (2, 9, 2));
}

pub fn ipv6_and_dual_stack(b: &mut Rig) {
    if !b.has("[::]:0") {
        eprintln!("skipped: this machine has no IPv6");
        return;
    }
    let (w, w_addr) = b.bind("[::]:0");
    let port = w_addr.port();
    // An IPv4 peer of the dual-stack socket is IPv4 to us, in both directions.
    let (v4, v4_addr) = b.bind("127.0.0.1:0");
    let local = SocketAddr::from(([127, 0, 0, 3], port));
    b.put(b"four", to(v4, v4_addr, local, 4));
    let got = b.receive(1);
    assert_eq!(got[0].meta.path, FourTuple::new(local, v4_addr));
    let mut reply = to(w, local, v4_addr, 4);
    reply.ecn = Ecn::Ect0;
    b.put(b"back", reply);
    let got = b.receive(1);
    assert_eq!(got[0].meta.path, FourTuple::new(v4_addr, local));
    assert_eq!(got[0].meta.ecn, Ecn::Ect0);
    if !b.has("[::1]:0") {
        return;
    }
    let (v6, v6_addr) = b.bind("[::1]:0");
    let local = SocketAddr::new("::1".parse().unwrap(), port);
    let mut t = to(v6, v6_addr, local, 3000);
    (t.segment_size, t.ecn) = (1000, Ecn::Ce);
    b.put(&[6; 3000], t);
    let got = b.receive_bytes(3000);
    assert_eq!(got[0].meta.path, FourTuple::new(local, v6_addr));
    assert_eq!(got[0].meta.ecn, Ecn::Ce);
    // And back, from the address that was asked.
    b.put(b"six", to(w, local, v6_addr, 3));
    let got = b.receive(1);
    assert_eq!(got[0].meta.path, FourTuple::new(v6_addr, local));
}

pub fn a_train_arrives_as_its_segments_in_order(b: &mut Rig) {
    let (a, a_addr) = b.bind("127.0.0.1:0");
    let (_, c_addr) = b.bind("127.0.0.1:0");
    // A full train with a short tail, the most segments, and one single datagram after them.
    for (len, segment_size) in [(53 * 1200 + 7, 1200), (64 * 1000, 1000), (65_507, 65_507)] {
        let data: Vec<u8> = (0..len).map(|i| (i / segment_size) as u8).collect();
        let mut t = to(a, a_addr, c_addr, len);
        t.segment_size = segment_size;
        b.put(&data, t);
        let got = b.receive_bytes(len);
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

pub fn without_segmentation_segments_leave_one_by_one(b: &mut Rig) {
    let plain = SocketOptions {
        gso: false,
        gro: false,
        ..SocketOptions::default()
    };
    let (a, a_addr) = b.bind_with("127.0.0.1:0", plain);
    let (_, c_addr) = b.bind_with("127.0.0.1:0", plain);
    let data: Vec<u8> = (0..40 * 1000 + 10).map(|i| (i / 1000) as u8).collect();
    for _ in 0..3 {
        let mut t = to(a, a_addr, c_addr, data.len());
        t.segment_size = 1000;
        b.put(&data, t);
        let got = b.receive(41);
        assert_eq!(got.len(), 41);
        for (i, g) in got.iter().enumerate() {
            assert_eq!(g.meta.segment_size, g.data.len());
            assert!(g.data.iter().all(|&x| x == i as u8), "segment {i} in order");
        }
    }
    assert_eq!(b.stats().tx_datagrams, 3 * 41);
}

pub fn ecn_marks_arrive(b: &mut Rig) {
    for local in ["127.0.0.1:0", "[::1]:0"] {
        if !b.has(local) {
            continue;
        }
        let (a, a_addr) = b.bind(local);
        let (_, c_addr) = b.bind(local);
        for ecn in [Ecn::Ect0, Ecn::Ect1, Ecn::Ce, Ecn::NotEct] {
            // A train and a datagram alone are different calls to the kernel.
            for len in [2400, 1000] {
                let mut t = to(a, a_addr, c_addr, len);
                (t.segment_size, t.ecn) = (1200.min(len), ecn);
                b.put(&vec![1; len], t);
                let got = b.receive_bytes(len);
                assert!(got.iter().all(|g| g.meta.ecn == ecn), "{ecn:?}: {got:?}");
            }
        }
    }
}

pub fn a_wildcard_socket_replies_from_the_address_it_was_asked_at(b: &mut Rig) {
    let (w, w_addr) = b.bind("0.0.0.0:0");
    let (c, c_addr) = b.bind("127.0.0.1:0");
    for last in [1, 2, 77] {
        let ip = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
        let target = SocketAddr::new(ip, w_addr.port());
        b.put(b"q", to(c, c_addr, target, 1));
        let got = b.receive(1);
        assert_eq!(got[0].meta.path.local, target);
        b.put(b"a", to(w, got[0].meta.path.local, c_addr, 1));
        let got = b.receive(1);
        assert_eq!((got[0].meta.socket, got[0].meta.path.remote), (c, target));
    }
    // An unspecified local address leaves the choice to the kernel.
    b.put(b"a", to(w, w_addr, c_addr, 1));
    assert_eq!(b.receive(1)[0].meta.path.remote.port(), w_addr.port());
}

pub fn empty_datagrams_are_counted_and_not_shown(b: &mut Rig) {
    let (_, addr) = b.bind("127.0.0.1:0");
    let outside = b.world().outside();
    outside.send_to(b"", addr);
    outside.send_to(b"full", addr);
    assert_eq!(b.receive(1)[0].data, b"full");
    assert_eq!((b.stats().rx_empty, b.stats().rx_datagrams), (1, 1));
}

/// Between trains too, where the kernel merges datagrams of one flow.
pub fn empty_datagrams_among_trains_stop_nothing(b: &mut Rig) {
    let (_, addr) = b.bind("127.0.0.1:0");
    let outside = b.world().outside();
    for n in 0..40u8 {
        for _ in 0..3 {
            outside.send_to(&[n; 1200], addr);
        }
        outside.send_to(b"", addr);
        outside.send_to(&[n; 7], addr);
        outside.send_to(b"", addr);
    }
    let got = b.receive_bytes(40 * (3 * 1200 + 7));
    let segments = got.iter().flat_map(Got::segments).map(<[u8]>::len);
    assert_eq!(
        segments.collect::<Vec<_>>(),
        [1200, 1200, 1200, 7].repeat(40)
    );
    b.until(|_| true);
    assert_eq!(b.stats().rx_datagrams, 160);
    assert!(b.stats().rx_empty <= 80);
    outside.send_to(b"last", addr);
    assert_eq!(b.receive(1)[0].data, b"last");
    assert_eq!(b.stats().rx_empty, 80);
}

/// A sink that has enough gets the rest later, in order; nothing is lost in between. What it is
/// told of comes, once and soon.
pub fn a_sink_that_has_enough_gets_the_rest_later(b: &mut Rig) {
    let (_, addr) = b.bind("127.0.0.1:0");
    let outside = b.world().outside();
    (0..100u8).for_each(|n| outside.send_to(&[n; 9], addr));
    let (mut got, mut told) = (Vec::new(), Vec::new());
    while got.len() < 100 {
        b.wait(None).unwrap();
        let before = got.len();
        b.recv_ahead(&mut |arrival| match arrival {
            Arrival::Coming(data) => {
                assert!((got.len()..=got.len() + AHEAD).contains(&data[0].into()));
                told.push(data[0]);
                true
            }
            Arrival::Train(_, data) => {
                got.push(data[0]);
                got.len() < before + 3
            }
        })
        .unwrap();
        if b.name() == "uring" {
            assert!(got.len() <= before + 3);
        }
    }
    assert_eq!(got, (0..100).collect::<Vec<_>>());
    assert!(told.is_sorted_by(|a, b| a < b));
    assert_eq!(told.is_empty(), b.name() == "sim");
}

pub fn what_is_sent_at_once_leaves_behind_what_was_queued(b: &mut Rig) {
    let (a, a_addr) = b.bind("127.0.0.1:0");
    let (c, c_addr) = b.bind("127.0.0.1:0");
    b.put_now(b"first", to(a, a_addr, c_addr, 5));
    b.put(b"queued", to(a, a_addr, c_addr, 6));
    b.put_now(b"behind it", to(a, a_addr, c_addr, 9));
    // A train of several datagrams may be asked for, too, and another peer in between.
    let mut train = to(a, a_addr, c_addr, 10);
    train.segment_size = 4;
    b.put_now(b"abcdefghij", train);
    b.put_now(b"back", to(c, c_addr, a_addr, 4));
    b.put_now(b"last", to(a, a_addr, c_addr, 4));
    let got = b.receive_bytes(5 + 6 + 9 + 10 + 4 + 4);
    let of = |socket| {
        let trains = got.iter().filter(|g| g.meta.socket == socket);
        let segments = trains.flat_map(Got::segments).map(<[u8]>::to_vec);
        segments.collect::<Vec<_>>()
    };
    let there: [&[u8]; 7] = [
        b"first",
        b"queued",
        b"behind it",
        b"abcd",
        b"efgh",
        b"ij",
        b"last",
    ];
    assert_eq!(of(c), there);
    assert_eq!(of(a), [b"back"]);
    assert_eq!((b.stats().tx_datagrams, b.stats().tx_bytes), (8, 38));
    // Each in a buffer that is free again.
    let all = b.free_buffers();
    assert_eq!((all, b.tx_lent()), (IoConfig::default().tx_buffers, 0));
}

pub fn a_train_in_pieces_arrives_whole(b: &mut Rig) {
    let (a, a_addr) = b.bind("127.0.0.1:0");
    let plain = SocketOptions {
        gso: false,
        ..SocketOptions::default()
    };
    let (one_by_one, from) = b.bind_with("127.0.0.1:0", plain);
    let (_, c_addr) = b.bind("127.0.0.1:0");
    let data: Vec<u8> = (0..8 * 4000).map(|i| (i / 7) as u8).collect();
    for (socket, from) in [(a, a_addr), (one_by_one, from)] {
        // Headers and trailers of 12 and 4 bytes around 4,000.
        let (mut held, mut pieces, mut whole) = (Vec::new(), Vec::new(), Vec::new());
        for (n, piece) in data.chunks(4000).enumerate() {
            held.extend([n as u8; 12]);
            pieces.push((held.len(), piece));
            held.extend([0xff - n as u8; 4]);
            whole.extend([n as u8; 12]);
            whole.extend_from_slice(piece);
            whole.extend([0xff - n as u8; 4]);
        }
        let mut t = to(socket, from, c_addr, whole.len());
        t.segment_size = 4016;
        b.put_gathered(&held, t, &pieces);
        let got = b.receive_bytes(whole.len());
        let segments: Vec<&[u8]> = got.iter().flat_map(Got::segments).collect();
        assert_eq!(segments, whole.chunks(4016).collect::<Vec<_>>());
    }
    assert_eq!(b.stats().tx_datagrams, 16);
    assert_eq!((b.stats().tx_dropped, b.stats().tx_bytes), (0, 16 * 4016));
    let all = b.free_buffers();
    assert_eq!((all, b.tx_lent()), (IoConfig::default().tx_buffers, 0));
}

pub fn a_train_in_pieces_leaves_behind_what_was_queued(b: &mut Rig) {
    let (a, a_addr) = b.bind("127.0.0.1:0");
    let (_, c_addr) = b.bind("127.0.0.1:0");
    b.put(b"queued", to(a, a_addr, c_addr, 6));
    b.put_gathered(b"<>", to(a, a_addr, c_addr, 5), &[(1, b"two")]);
    b.put_now(b"last", to(a, a_addr, c_addr, 4));
    let got = b.receive_bytes(6 + 5 + 4);
    let there: Vec<&[u8]> = got.iter().flat_map(Got::segments).collect();
    assert_eq!(there, [&b"queued"[..], b"<two>", b"last"]);
}

pub fn a_socket_beside_another_has_what_its_peer_sends(b: &mut Rig) {
    for addr in ["127.0.0.1:0", "[::1]:0"] {
        if !b.has(addr) {
            continue;
        }
        let (own, at) = b.bind(addr);
        let peer = UdpSocket::bind(addr).unwrap();
        let stranger = UdpSocket::bind(addr).unwrap();
        let from = peer.local_addr().unwrap();
        let made = b.socket_beside(own, at, from).unwrap();
        let beside = b.add_socket(made, SocketOptions::default()).unwrap();
        assert_eq!(
            (b.local_addr(beside), b.peer_addr(beside)),
            (Some(at), Some(from))
        );
        // Nobody else may have the address, now or while there was none beside.
        let other = Socket::new(Domain::for_address(at), Type::DGRAM, None);
        let other = other.unwrap();
        other.set_reuse_port(true).unwrap();
        other.set_reuse_address(true).unwrap();
        assert!(other.bind(&at.into()).is_err());
        for _ in 0..20 {
            for (socket, to) in [(&peer, beside), (&stranger, own)] {
                let from = socket.local_addr().unwrap();
                socket.send_to(b"hello", at).unwrap();
                let got = b.receive(1);
                assert_eq!((got[0].meta.socket, got[0].meta.path.remote), (to, from));
                assert_eq!(got[0].meta.path.local, at);
            }
        }
        b.put(b"answer", to(beside, at, from, 6));
        b.flush().unwrap();
        let mut answer = [0; 10];
        assert_eq!(peer.recv_from(&mut answer).unwrap(), (6, at));
        // Once it is gone the other has everything.
        b.remove_socket(beside);
        let got = b.until(|got| {
            peer.send_to(b"again", at).unwrap();
            !got.is_empty()
        });
        assert!(got.iter().all(|g| g.meta.socket == own));
        b.remove_socket(own);
    }
    let somewhere = "127.0.0.1:9".parse().unwrap();
    let unknown = b.socket_beside(SocketId(77), somewhere, somewhere);
    assert!(matches!(unknown, Err(IoError::System { .. })));
}

pub fn a_socket_beside_one_of_many_leaves_the_address_to_all(b: &mut Rig) {
    let open = |addr: SocketAddr| {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&addr.into()).map(|()| UdpSocket::from(socket))
    };
    let own = open("127.0.0.1:0".parse().unwrap()).unwrap();
    let at = own.local_addr().unwrap();
    let own = b.add_socket(own, SocketOptions::default()).unwrap();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let made = b.socket_beside(own, at, peer.local_addr().unwrap());
    assert!(open(at).is_ok(), "with {made:?} beside");
    drop(made);
    assert!(open(at).is_ok(), "and without");
}
