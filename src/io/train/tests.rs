//! Trains: how they are cut, resent and given up.

use super::super::sockopt::SocketOptions;
use super::super::{SocketId, TX_BUFFER_LEN};
use super::*;
use crate::base::{Ecn, FourTuple};
use crate::mem::{Pages, Pool};
use std::net::UdpSocket;

fn socket() -> Socket {
    let os = UdpSocket::bind("127.0.0.1:0").unwrap();
    Socket::new(os, &SocketOptions::default()).unwrap()
}

fn train(len: usize, segment_size: usize, socket: &Socket, stats: &mut IoStats) -> Option<Train> {
    let pool = Pool::new(1, TX_BUFFER_LEN, Pages::Base).unwrap();
    let transmit = Transmit {
        socket: SocketId(0),
        path: FourTuple::new(socket.bound, socket.bound),
        ecn: Ecn::NotEct,
        segment_size,
        len,
    };
    Train::new(TxBuffer::new(pool.take().unwrap()), transmit, socket, stats)
}

#[test]
fn a_connected_socket_needs_no_address_for_its_peer() {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let os = UdpSocket::bind("127.0.0.1:0").unwrap();
    os.connect(peer.local_addr().unwrap()).unwrap();
    let s = Socket::new(os, &SocketOptions::default()).unwrap();
    assert_eq!(s.peer, peer.local_addr().ok());
    let mut stats = IoStats::default();
    let mut t = train(100, 100, &s, &mut stats).unwrap();
    let mut message = Message::new();
    message.prepare(&t, 0, &s);
    assert_ne!(message.header().msg_namelen, 0, "somebody else");
    t.transmit.path.remote = peer.local_addr().unwrap();
    message.prepare(&t, 0, &s);
    let header = message.header();
    assert!(header.msg_name.is_null() && header.msg_namelen == 0);
}

#[test]
fn only_a_mark_that_is_not_the_sockets_own_is_said() {
    let (s, mut stats) = (socket(), IoStats::default());
    let mut t = train(100, 100, &s, &mut stats).unwrap();
    let mut message = Message::new();
    for (ecn, said) in [(Ecn::Ect0, false), (Ecn::NotEct, true), (Ecn::Ce, true)] {
        t.transmit.ecn = ecn;
        message.prepare(&t, 0, &s);
        assert_eq!(!message.header().msg_control.is_null(), said, "{ecn:?}");
    }
}

#[test]
fn a_train_leaves_in_one_message_and_is_counted_by_datagram() {
    let (mut s, mut stats) = (socket(), IoStats::default());
    let mut t = train(2500, 1000, &s, &mut stats).unwrap();
    assert_eq!(t.message_len(0), 2500);
    assert_eq!(t.on_sent(&mut s, &mut stats), Progress::Done);
    assert_eq!(
        (stats.tx_trains, stats.tx_datagrams, stats.tx_bytes),
        (1, 3, 2500)
    );
}

#[test]
fn refused_segmentation_goes_on_singly_and_switches_the_socket_once_that_works() {
    let (mut s, mut stats) = (socket(), IoStats::default());
    let mut t = train(2500, 1000, &s, &mut stats).unwrap();
    let eio = Errno(libc::EIO);
    assert_eq!(t.on_refused(eio, &mut stats), Progress::More);
    assert!(s.gso, "not before a single segment has passed");
    let mut lens = Vec::new();
    loop {
        lens.push(t.message_len(t.sent()));
        if t.on_sent(&mut s, &mut stats) == Progress::Done {
            break;
        }
    }
    assert_eq!(lens, [1000, 1000, 500]);
    assert!(!s.gso);
    assert_eq!(
        (stats.gso_refused, stats.tx_datagrams, stats.tx_dropped),
        (1, 3, 0)
    );
    assert_eq!(
        train(2500, 1000, &s, &mut stats).unwrap().message_len(0),
        1000
    );
}

#[test]
fn an_oversized_segment_does_not_condemn_segmentation() {
    let (s, mut stats) = (socket(), IoStats::default());
    let mut t = train(2500, 1000, &s, &mut stats).unwrap();
    assert_eq!(
        t.on_refused(Errno(libc::EINVAL), &mut stats),
        Progress::More
    );
    let too_large = Errno(libc::EMSGSIZE);
    assert_eq!(t.on_refused(too_large, &mut stats), Progress::Done);
    assert!(s.gso);
    assert_eq!((stats.tx_dropped, stats.gso_refused), (3, 0));
    assert_eq!(stats.errors.of(too_large), 1);
}

#[test]
fn a_connection_refused_drops_the_train_only() {
    let (s, mut stats) = (socket(), IoStats::default());
    let mut t = train(3000, 1000, &s, &mut stats).unwrap();
    assert_eq!(
        t.on_refused(Errno(libc::ECONNREFUSED), &mut stats),
        Progress::Done
    );
    assert_eq!((stats.tx_dropped, stats.tx_datagrams), (3, 0));
}
