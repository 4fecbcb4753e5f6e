//! Short datagrams of a connected socket that come one at a time.
//!
//! To hear what came with a datagram (`recvmsg`) takes longer than a short one itself (`recvfrom`).
//! A connected socket that asks for no more than UDP_GRO's segment sizes does without them while
//! nothing comes in trains: the kernel cuts what does then, and never hands over two datagrams as
//! one. Long datagrams, or many in a row, have it ask for trains again.

use super::super::socket::Socket;
use super::super::sockopt;

/// Datagrams that have to come alone, one after another, before trains are turned down.
const ENOUGH: u32 = 64;
/// Looks that have to find nothing after that: whoever saw the option as it was is through then.
/// Of a train that came later nobody would tell the segments' size; it would not pass its check.
const LOOKS: usize = 8;
/// The longest short datagram, bytes.
pub(super) const SHORT: usize = 1024;
/// Datagrams without a look between that finds nothing: trains are worth while.
const MANY: u32 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The socket has more to tell than segment sizes, or nothing.
    Never,
    /// It takes trains; so many single datagrams came last.
    Trains(u32),
    /// It hands over single datagrams; so many came in a row.
    Alone(u32),
}

/// How a socket's datagrams come.
#[derive(Debug)]
pub(super) struct Alone(State);

impl Alone {
    pub(super) fn of(socket: &Socket) -> Self {
        let apt = socket.peer.is_some() && socket.simple && socket.gro && !socket.wildcard;
        Self(if apt { State::Trains(0) } else { State::Never })
    }

    /// Whether each receive is one datagram, of which there is no more to know.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        matches!(self.0, State::Alone(_))
    }

    /// What a receive brought that tells segment sizes: one short datagram, or something else.
    #[inline]
    pub(super) fn heard(&mut self, single: bool) {
        if let State::Trains(n) = &mut self.0 {
            *n = if single { n.saturating_add(1) } else { 0 };
        }
    }

    /// A datagram of `len` bytes came alone.
    #[inline]
    pub(super) fn came(&mut self, socket: &Socket, len: usize) {
        if let State::Alone(row) = &mut self.0 {
            *row += 1;
            if len > SHORT || *row >= MANY {
                self.0 = trains(socket, true);
            }
        }
    }

    /// A look found nothing.
    #[inline]
    pub(super) fn missed(&mut self, socket: &Socket) {
        match &mut self.0 {
            State::Trains(ENOUGH..) => self.0 = turn_down(socket),
            State::Alone(row) => *row = 0,
            _ => {}
        }
    }
}

/// Has the kernel hand over trains from now on, or not.
#[cold]
fn trains(socket: &Socket, on: bool) -> State {
    match sockopt::set(socket.fd(), libc::SOL_UDP, libc::UDP_GRO, on.into()) {
        Ok(()) if on => State::Trains(0),
        Ok(()) => State::Alone(0),
        Err(errno) => {
            tracing::warn!(%errno, "UDP_GRO stays as it is");
            State::Never
        }
    }
}

/// Has it hand over single datagrams, unless something has just come.
#[cold]
fn turn_down(socket: &Socket) -> State {
    let state = trains(socket, false);
    if state == State::Never || (0..LOOKS).all(|_| is_empty(socket)) {
        return state;
    }
    trains(socket, true)
}

/// Whether the socket has nothing to tell, errors included. Takes nothing from it.
fn is_empty(socket: &Socket) -> bool {
    let mut poll = libc::pollfd {
        fd: socket.fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one entry, which outlives the call.
    let n = unsafe { libc::poll(&raw mut poll, 1, 0) };
    n == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::mmsg::Mmsg;
    use crate::io::{Arrival, IoConfig, SocketOptions};
    use crate::io::{SocketId, Transmit};
    use std::net::UdpSocket;

    const BARE: SocketOptions = SocketOptions {
        recv_buffer: 1 << 20,
        send_buffer: 1 << 20,
        gro: true,
        gso: true,
        bare: true,
        checked: true,
    };

    /// Two sockets, connected to each other.
    fn pair() -> [UdpSocket; 2] {
        let [a, b] = [(); 2].map(|()| UdpSocket::bind("[::1]:0").unwrap());
        a.connect(b.local_addr().unwrap()).unwrap();
        b.connect(a.local_addr().unwrap()).unwrap();
        [a, b]
    }

    fn takes_trains(socket: &Socket) -> bool {
        sockopt::get(socket.fd(), libc::SOL_UDP, libc::UDP_GRO) == Ok(1)
    }

    /// A backend with one end, and the other end.
    struct Rig {
        backend: Mmsg,
        id: SocketId,
        peer: Mmsg,
        from: SocketId,
    }

    impl Rig {
        fn new() -> Self {
            let [mut backend, mut peer] =
                [(); 2].map(|()| Mmsg::new(&IoConfig::default()).unwrap());
            let [ours, theirs] = pair();
            let id = backend.add_socket(ours, BARE).unwrap();
            let from = peer.add_socket(theirs, BARE).unwrap();
            Self {
                backend,
                id,
                peer,
                from,
            }
        }

        /// The peer sends so many bytes in segments.
        fn send(&mut self, len: usize, segment_size: usize) {
            let mut buffer = self.peer.tx_buffer().unwrap();
            for (n, byte) in buffer.iter_mut().take(len).enumerate() {
                *byte = (n / segment_size) as u8;
            }
            let at = self.peer.local_addr(self.from).unwrap();
            let transmit = Transmit {
                socket: self.from,
                path: crate::base::FourTuple::new(at, self.backend.local_addr(self.id).unwrap()),
                ecn: crate::base::Ecn::NotEct,
                segment_size,
                len,
            };
            self.peer.send(buffer, transmit);
            self.peer.flush().unwrap();
        }

        /// What comes until there are so many bytes: each train's length and segments' size. Every
        /// segment is as it was sent.
        fn receive(&mut self, len: usize) -> Vec<(usize, usize)> {
            let (mut got, mut bytes, mut segment) = (Vec::new(), 0, 0);
            for _ in 0..1_000_000 {
                let mut take = |arrival: Arrival<'_>| {
                    if let Arrival::Train(meta, data) = arrival {
                        for part in data.chunks(meta.segment_size) {
                            assert!(part.iter().all(|b| *b == segment), "segment {segment}");
                            segment += 1;
                        }
                        bytes += data.len();
                        got.push((data.len(), meta.segment_size));
                    }
                    true
                };
                self.backend.recv(&mut take).unwrap();
                if bytes >= len {
                    return got;
                }
            }
            panic!("{bytes} of {len} bytes came");
        }

        fn look(&mut self) {
            let none = &mut |_: Arrival<'_>| panic!("nothing was sent");
            assert_eq!(self.backend.recv(none).unwrap(), 0);
        }

        fn socket(&self) -> &Socket {
            self.backend.socket(self.id).unwrap()
        }

        /// Short datagrams, each looked for in vain before.
        fn ping(&mut self, times: u32) {
            for _ in 0..times {
                self.look();
                self.send(100, 100);
                assert_eq!(self.receive(100), [(100, 100)]);
            }
        }

        /// To where datagrams are handed over alone.
        fn settle(&mut self) {
            self.ping(ENOUGH);
            self.look();
            assert!(!takes_trains(self.socket()));
            self.ping(1);
        }
    }

    #[test]
    fn short_datagrams_that_come_alone_turn_trains_down() {
        let mut rig = Rig::new();
        rig.ping(ENOUGH - 1);
        rig.look();
        assert!(takes_trains(rig.socket()));
        rig.settle();
        let before = rig.backend.stats().syscalls;
        rig.ping(1000);
        assert!(!takes_trains(rig.socket()));
        assert!(rig.backend.stats().syscalls >= before + 2000);
    }

    #[test]
    fn what_comes_in_trains_is_cut_and_then_trains_come_again() {
        let mut rig = Rig::new();
        rig.settle();
        rig.look();
        rig.send(1000, 100);
        assert_eq!(rig.receive(1000), [(100, 100); 10]);
        assert!(!takes_trains(rig.socket()));
        rig.look();
        rig.send(1990, 100);
        let cut = rig.receive(1990);
        assert_eq!((cut.len(), cut[19]), (20, (90, 90)));
        assert!(takes_trains(rig.socket()));
        rig.send(1990, 100);
        assert_eq!(rig.receive(1990), [(1990, 100)]);
        // And again.
        rig.settle();
    }

    #[test]
    fn a_long_datagram_has_trains_come_again() {
        let mut rig = Rig::new();
        rig.settle();
        rig.send(SHORT, SHORT);
        assert_eq!(rig.receive(SHORT), [(SHORT, SHORT)]);
        assert!(!takes_trains(rig.socket()));
        rig.send(SHORT + 1, SHORT + 1);
        assert_eq!(rig.receive(SHORT + 1), [(SHORT + 1, SHORT + 1)]);
        assert!(takes_trains(rig.socket()));
    }

    #[test]
    fn trains_that_have_just_come_are_taken_apart() {
        let mut rig = Rig::new();
        rig.ping(ENOUGH);
        rig.send(500, 100);
        let id = rig.id.index();
        // As a look would that found nothing before it came.
        let entry = rig.backend.sockets[id].as_mut().unwrap();
        entry.alone.missed(&entry.socket);
        assert!(takes_trains(rig.socket()));
        assert_eq!(rig.receive(500), [(500, 100)]);
        rig.settle();
    }

    #[test]
    fn sockets_with_more_to_tell_stay_as_they_are() {
        let [connected, _peer] = pair();
        let unconnected = UdpSocket::bind("[::1]:0").unwrap();
        let plain = SocketOptions {
            bare: false,
            ..BARE
        };
        let single = SocketOptions { gro: false, ..BARE };
        let unchecked = SocketOptions {
            checked: false,
            ..BARE
        };
        let third = connected.try_clone().unwrap();
        let again = || third.try_clone().unwrap();
        let all = [
            (connected, plain),
            (unconnected, BARE),
            (again(), single),
            (again(), unchecked),
        ];
        for (os, options) in all {
            let socket = Socket::new(os, &options).unwrap();
            assert_eq!(Alone::of(&socket).0, State::Never);
        }
        let socket = Socket::new(third, &BARE).unwrap();
        assert_eq!(Alone::of(&socket).0, State::Trains(0));
    }
}
