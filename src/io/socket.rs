//! What both kernel backends know about one of their sockets, and how many send buffers one may
//! hold.

use super::error::IoError;
use super::sockopt::{self, SocketOptions};
use super::{RecvMeta, SocketId, Transmit, cmsg};
use crate::base::FourTuple;
use crate::base::net::canonical;
use socket2::{Domain, Protocol, SockRef, Type};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};

/// More datagrams than come to a socket in the moment before it is connected.
const STRANGERS: u32 = 4096;

/// An open socket.
#[derive(Debug)]
pub(super) struct Socket {
    os: UdpSocket,
    /// The bound address, canonical.
    pub(super) bound: SocketAddr,
    /// The socket's own family, which decides the form of addresses given to the kernel.
    pub(super) v6: bool,
    /// Bound to no particular address: replies name the one they leave from.
    pub(super) wildcard: bool,
    /// The one peer of a connected socket, canonical. Sends to it need no address, which saves
    /// the kernel a look at its routes.
    pub(super) peer: Option<SocketAddr>,
    /// The kernel takes UDP_SEGMENT on this socket.
    pub(super) gso: bool,
    /// It gives trains on it (UDP_GRO), unless told otherwise since.
    pub(super) gro: bool,
    /// It tells nothing else, and its datagrams have a check of their own ([`SocketOptions`]).
    pub(super) simple: bool,
    /// The type of service of an IPv4 datagram whose message does not say it.
    pub(super) tos: u8,
    /// The traffic class of an IPv6 one.
    pub(super) traffic_class: u8,
}

impl Socket {
    pub(super) fn new(os: UdpSocket, options: &SocketOptions) -> Result<Self, IoError> {
        let applied = sockopt::apply(&os, options)?;
        let bound = sockopt::bound(&os)?;
        let peer = os.peer_addr().ok().map(canonical);
        tracing::debug!(local = %bound, ?peer, ?applied, "socket added");
        Ok(Self {
            os,
            peer,
            v6: bound.is_ipv6(),
            wildcard: bound.ip().is_unspecified(),
            bound: canonical(bound),
            gso: applied.gso,
            gro: applied.gro,
            simple: options.bare && options.checked,
            tos: applied.tos,
            traffic_class: applied.traffic_class,
        })
    }

    /// Another socket at `local`, where this one is, connected to `peer`: the kernel gives it what
    /// comes from there, and this one all else.
    pub(super) fn beside(&self, local: SocketAddr, peer: SocketAddr) -> Result<UdpSocket, IoError> {
        let failed = |op| move |e| IoError::from_io(op, &e);
        let family = Domain::for_address(local);
        let made = socket2::Socket::new(family, Type::DGRAM, Some(Protocol::UDP));
        let made = made.map_err(failed("socket"))?;
        let this = SockRef::from(&self.os);
        // As it was, for others may have the address by it: each shard's socket has.
        let before = this.reuse_port().map_err(failed("getsockopt"))?;
        // SO_REUSEPORT, for only sockets of one user share an address by it, and only while both
        // permit it; with SO_REUSEADDR anybody's would for that moment.
        let shared = this
            .set_reuse_port(true)
            .and_then(|()| made.set_reuse_port(true))
            .and_then(|()| made.bind(&local.into()));
        let again = this.set_reuse_port(before);
        let again = again.and_then(|()| made.set_reuse_port(before));
        shared.and(again).map_err(failed("bind"))?;
        made.connect(&peer.into()).map_err(failed("connect"))?;
        let made = UdpSocket::from(made);
        forget_strangers(&made).map_err(failed("recv"))?;
        Ok(made)
    }

    pub(super) fn fd(&self) -> RawFd {
        self.os.as_raw_fd()
    }

    /// Whether calls on the descriptor may block. io_uring wants them to (it then waits by
    /// itself), `recvmmsg` and `sendmmsg` do not.
    pub(super) fn set_blocking(&self, blocking: bool) -> Result<(), IoError> {
        self.os
            .set_nonblocking(!blocking)
            .map_err(|e| IoError::from_io("fcntl", &e))
    }

    /// Whether the kernel knows all about a datagram but its bytes.
    #[inline]
    pub(super) fn is_plain(&self, t: &Transmit) -> bool {
        let v4 = t.path.remote.is_ipv4();
        let default = if v4 { self.tos } else { self.traffic_class };
        !self.wildcard && t.ecn.in_tos(default) == default && self.peer == Some(t.path.remote)
    }

    /// Describes a received train of `len` bytes.
    #[inline]
    pub(super) fn meta(
        &self,
        id: SocketId,
        remote: SocketAddr,
        control: &[u8],
        len: usize,
    ) -> RecvMeta {
        let received = cmsg::parse(control);
        let ip = received.local.unwrap_or(self.bound.ip());
        RecvMeta {
            socket: id,
            path: FourTuple::new(SocketAddr::new(ip, self.bound.port()), remote),
            ecn: received.ecn,
            segment_size: match received.segment_size {
                Some(size) if (1..len).contains(&size) => size,
                _ => len,
            },
        }
    }
}

/// Drops what came before a socket was connected: it would be taken for the peer's, for nobody asks
/// the kernel who sent it. What the kernel is about to queue at this moment may still come, with an
/// ICRC over another address than the peer's.
fn forget_strangers(socket: &UdpSocket) -> std::io::Result<()> {
    socket.set_nonblocking(true)?;
    for _ in 0..STRANGERS {
        let none = |e: std::io::Error| e.kind() == std::io::ErrorKind::WouldBlock;
        if socket.recv(&mut [0]).is_err_and(none) {
            break;
        }
    }
    Ok(())
}

/// The most of `buffers` send buffers that one of `sockets` sockets may hold while the kernel does
/// not take them: a socket whose queue is stuck must leave the others some.
pub(super) fn share(buffers: usize, sockets: usize) -> usize {
    if sockets <= 1 {
        buffers
    } else {
        (buffers - buffers / 4).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_before_a_socket_had_its_peer_is_dropped() {
        let [socket, stranger, peer] = [(); 3].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        let (at, from) = (socket.local_addr().unwrap(), peer.local_addr().unwrap());
        for _ in 0..5 {
            stranger.send_to(b"who", at).unwrap();
        }
        socket.connect(from).unwrap();
        forget_strangers(&socket).unwrap();
        stranger.send_to(b"who", at).unwrap();
        peer.send_to(b"me", at).unwrap();
        let mut bytes = [0; 8];
        assert_eq!(socket.recv(&mut bytes).unwrap(), 2);
        assert_eq!(
            socket.recv(&mut bytes).unwrap_err().kind(),
            std::io::ErrorKind::WouldBlock
        );
    }

    #[test]
    fn a_stuck_socket_leaves_buffers_to_the_others() {
        assert_eq!(share(16, 1), 16);
        assert_eq!(share(16, 2), 12);
        assert_eq!(share(16, 50), 12);
        assert_eq!(share(1, 2), 1);
    }

    #[test]
    fn an_impossible_segment_size_falls_back_to_one_segment() {
        let os = UdpSocket::bind("127.0.0.1:0").unwrap();
        let s = Socket::new(os, &SocketOptions::default()).unwrap();
        let remote = "127.0.0.1:9".parse().unwrap();
        let meta = s.meta(SocketId(4), remote, &[], 1000);
        assert_eq!((meta.segment_size, meta.path.local), (1000, s.bound));
        assert_eq!((meta.socket, meta.path.remote), (SocketId(4), remote));
    }
}
