//! What cannot be sent is counted under its errno's name, and everything else goes on.

use crate::rig::{Rig, to};
use corelane::io::{Errno, IoError, SocketId, SocketOptions};
use std::net::{SocketAddr, UdpSocket};

pub fn what_the_network_refuses_is_counted_and_nothing_stops(b: &mut Rig) {
    let (a, a_addr) = b.bind("127.0.0.1:0");
    let (_, c_addr) = b.bind("127.0.0.1:0");
    // Larger than IPv4 carries; the other family; nobody there.
    b.put(&[0; 65_520], to(a, a_addr, c_addr, 65_520));
    b.put(b"six", to(a, a_addr, "[::1]:9".parse().unwrap(), 3));
    let nobody = b.world().nobody();
    b.put(b"void", to(a, a_addr, nobody, 4));
    b.put(b"fine", to(a, a_addr, c_addr, 4));
    assert_eq!(b.receive(1)[0].data, b"fine");
    let s = b.stats();
    assert_eq!(s.errors.of(Errno(libc::EMSGSIZE)), 1, "{s:?}");
    assert_eq!(s.errors.of(Errno(libc::EAFNOSUPPORT)), 1, "{s:?}");
    assert_eq!((s.tx_dropped, s.tx_datagrams), (2, 2), "{s:?}");
}

pub fn what_is_refused_at_once_is_counted_and_nothing_stops(b: &mut Rig) {
    let (a, a_addr) = b.bind("127.0.0.1:0");
    let (_, c_addr) = b.bind("127.0.0.1:0");
    b.put_now(&[0; 65_520], to(a, a_addr, c_addr, 65_520));
    b.put_now(b"six", to(a, a_addr, "[::1]:9".parse().unwrap(), 3));
    b.put_now(b"zz", to(SocketId(7), a_addr, c_addr, 2));
    b.put_now(b"fine", to(a, a_addr, c_addr, 4));
    assert_eq!(b.receive(1)[0].data, b"fine");
    let s = b.stats();
    for errno in [libc::EMSGSIZE, libc::EAFNOSUPPORT, libc::EBADF] {
        assert_eq!(s.errors.of(Errno(errno)), 1, "{s:?}");
    }
    assert_eq!((s.tx_dropped, s.tx_datagrams), (3, 1), "{s:?}");
    assert_eq!((b.tx_lent(), b.can_send(a)), (0, true));
}

pub fn what_is_refused_in_pieces_is_counted_and_nothing_stops(b: &mut Rig) {
    let (a, a_addr) = b.bind("127.0.0.1:0");
    let (_, c_addr) = b.bind("127.0.0.1:0");
    let long = vec![1; 65_518];
    b.put_gathered(b"<>", to(a, a_addr, c_addr, 65_520), &[(1, &long)]);
    b.put_gathered(
        b"<>",
        to(a, a_addr, "[::1]:9".parse().unwrap(), 3),
        &[(1, b"x")],
    );
    b.put_gathered(b"<>", to(SocketId(7), a_addr, c_addr, 3), &[(1, b"x")]);
    b.put_gathered(b"<>", to(a, a_addr, c_addr, 3), &[(1, b"x")]);
    assert_eq!(b.receive(1)[0].data, b"<x>");
    let s = b.stats();
    for errno in [libc::EMSGSIZE, libc::EAFNOSUPPORT, libc::EBADF] {
        assert_eq!(s.errors.of(Errno(errno)), 1, "{s:?}");
    }
    assert_eq!((s.tx_dropped, s.tx_datagrams), (3, 1), "{s:?}");
    assert_eq!((b.tx_lent(), b.can_send(a)), (0, true));
}

pub fn an_icmp_error_on_a_connected_socket_is_counted_and_nothing_stops(b: &mut Rig) {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let peer_addr = peer.local_addr().unwrap();
    let os = UdpSocket::bind("127.0.0.1:0").unwrap();
    os.connect(peer_addr).unwrap();
    drop(peer);
    let a = b.add_socket(os, SocketOptions::default()).unwrap();
    let a_addr = b.local_addr(a).unwrap();
    b.put(b"lost", to(a, a_addr, peer_addr, 4));
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
    assert_eq!(b.receive(1)[0].data, b"hello");
}

pub fn a_send_on_an_unknown_socket_is_counted(b: &mut Rig) {
    let somewhere: SocketAddr = "127.0.0.1:9".parse().unwrap();
    b.put(b"zz", to(SocketId(7), somewhere, somewhere, 2));
    b.flush().unwrap();
    assert_eq!((b.stats().tx_dropped, b.stats().tx_datagrams), (1, 0));
    assert_eq!(b.stats().errors.of(Errno(libc::EBADF)), 1);
    assert_eq!(b.local_addr(SocketId(7)), None);
    b.remove_socket(SocketId(7));
}

pub fn a_simulated_backend_takes_no_socket_of_the_system(b: &mut Rig) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let refused = b.add_socket(socket, SocketOptions::default());
    assert_eq!(refused, Err(IoError::Simulated));
}
