//! The options that every socket of a backend gets, and what the kernel made of them.
//!
//! Buffers, path MTU discovery without the kernel's own guess (the engine does RFC 8899 itself),
//! ECN and packet info in control messages, the mark that most datagrams leave with, GRO. What an
//! older kernel lacks is left out and reported in [`Applied`]; only an option that the engine
//! cannot do without is an error.

use super::error::IoError;
use crate::base::Ecn;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};

/// What to ask of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// SO_RCVBUF in bytes; the system's limit is exceeded where the process may.
    pub recv_buffer: usize,
    /// SO_SNDBUF in bytes; as above.
    pub send_buffer: usize,
    /// Receive trains (UDP_GRO).
    pub gro: bool,
    /// Send trains (UDP_SEGMENT); without it segments leave one by one.
    pub gso: bool,
    /// For a protocol without ECN: what is received does not tell its ECN field, and what is sent
    /// says itself when it has one.
    pub bare: bool,
    /// Datagrams have a check of their own, so that two that were taken for one would be noticed.
    /// A bare and connected socket may then change how it receives while it is in use.
    pub checked: bool,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            recv_buffer: 8 << 20,
            send_buffer: 8 << 20,
            gro: true,
            gso: true,
            bare: false,
            checked: false,
        }
    }
}

/// What the kernel granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// SO_RCVBUF as the kernel accounts it (twice what was granted).
    pub recv_buffer: usize,
    /// SO_SNDBUF, likewise.
    pub send_buffer: usize,
    /// Whether trains are received.
    pub gro: bool,
    /// Whether the kernel knows UDP_SEGMENT.
    pub gso: bool,
    /// The type of service of IPv4 datagrams that do not say theirs: ECT(0) unless the socket is
    /// bare, and the differentiated services code point that it had.
    pub tos: u8,
    /// The traffic class of IPv6 ones, likewise.
    pub traffic_class: u8,
}

/// Sets one integer option; the error is the kernel's.
pub(super) fn set(fd: RawFd, level: i32, option: i32, value: i32) -> Result<(), super::Errno> {
    let len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `value`, which is that long.
    let r = unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), len) };
    if r == 0 {
        Ok(())
    } else {
        Err(super::Errno::last())
    }
}

/// Reads one integer option.
pub(super) fn get(fd: RawFd, level: i32, option: i32) -> Result<i32, super::Errno> {
    let mut value = 0i32;
    let mut len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `value`, which is that long.
    let r = unsafe { libc::getsockopt(fd, level, option, (&raw mut value).cast(), &mut len) };
    if r == 0 {
        Ok(value)
    } else {
        Err(super::Errno::last())
    }
}

/// Applies `options` and whatever else the backends rely on. Nothing is fragmented: DF is set
/// (RFC 9000 §14).
/// Keeps RFC 9000 §14.2.1.
pub fn apply(socket: &UdpSocket, options: &SocketOptions) -> Result<Applied, IoError> {
    let fd = socket.as_raw_fd();
    let local = socket
        .local_addr()
        .map_err(|e| IoError::from_io("getsockname", &e))?;
    let required =
        |op, r: Result<(), super::Errno>| r.map_err(|errno| IoError::System { op, errno });
    buffer(
        fd,
        libc::SO_RCVBUFFORCE,
        libc::SO_RCVBUF,
        options.recv_buffer,
    );
    buffer(
        fd,
        libc::SO_SNDBUFFORCE,
        libc::SO_SNDBUF,
        options.send_buffer,
    );
    let ecn = i32::from(!options.bare);
    // One that is bound to an address has no other.
    let info = i32::from(local.ip().is_unspecified());
    // A dual-stack IPv6 socket takes the IPv4 options, too, and needs them for mapped peers; one
    // that is IPv6 only may refuse them.
    let v4 = [
        (
            "IP_MTU_DISCOVER",
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_PROBE,
        ),
        ("IP_RECVTOS", libc::IP_RECVTOS, ecn),
        ("IP_PKTINFO", libc::IP_PKTINFO, info),
    ];
    for (name, option, value) in v4 {
        let r = set(fd, libc::IPPROTO_IP, option, value);
        if local.is_ipv4() {
            required(name, r)?;
        }
    }
    if local.is_ipv6() {
        let v6 = [
            (
                "IPV6_MTU_DISCOVER",
                libc::IPV6_MTU_DISCOVER,
                libc::IPV6_PMTUDISC_PROBE,
            ),
            ("IPV6_RECVTCLASS", libc::IPV6_RECVTCLASS, ecn),
            ("IPV6_RECVPKTINFO", libc::IPV6_RECVPKTINFO, info),
        ];
        for (name, option, value) in v6 {
            required(name, set(fd, libc::IPPROTO_IPV6, option, value))?;
        }
    }
    let gro = options.gro && set(fd, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
    // Setting 0 changes nothing and tells whether the kernel knows the option.
    let gso = options.gso && set(fd, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok();
    let (tos, traffic_class) = (
        mark(fd, libc::IPPROTO_IP, libc::IP_TOS, options.bare),
        mark(fd, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, options.bare),
    );
    let size = |option| get(fd, libc::SOL_SOCKET, option).map_or(0, |n| n.max(0) as usize);
    Ok(Applied {
        recv_buffer: size(libc::SO_RCVBUF),
        send_buffer: size(libc::SO_SNDBUF),
        gro,
        gso,
        tos,
        traffic_class,
    })
}

/// Has datagrams that do not say otherwise leave with ECT(0), as nearly all of QUIC's do: the
/// kernel need not be told with each. The default then, which of a family that the socket does not
/// have is never asked.
fn mark(fd: RawFd, level: i32, option: i32, bare: bool) -> u8 {
    let tos = || get(fd, level, option).unwrap_or(0) as u8;
    if !bare {
        let _ = set(fd, level, option, i32::from(Ecn::Ect0.in_tos(tos())));
    }
    tos()
}

/// Takes IPv6 datagrams without a UDP checksum, as devices of RoCE v2 send them: their own checksum
/// covers more. A socket of IPv4 takes them anyway.
pub fn accept_unchecked(socket: &UdpSocket) {
    // Not in libc: include/uapi/linux/udp.h. Where it is refused, only such peers are not heard.
    const UDP_NO_CHECK6_RX: i32 = 102;
    let _ = set(socket.as_raw_fd(), libc::SOL_UDP, UDP_NO_CHECK6_RX, 1);
}

/// The forced option needs CAP_NET_ADMIN; the plain one is cut to the system's limit. A small
/// buffer is slow, not wrong.
fn buffer(fd: RawFd, forced: i32, plain: i32, bytes: usize) {
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    if set(fd, libc::SOL_SOCKET, forced, bytes).is_err() {
        let _ = set(fd, libc::SOL_SOCKET, plain, bytes);
    }
}

/// The port and address a socket is bound to, with the family of the socket kept (a mapped or
/// unspecified IPv6 address stays IPv6).
pub(super) fn bound(socket: &UdpSocket) -> Result<SocketAddr, IoError> {
    socket
        .local_addr()
        .map_err(|e| IoError::from_io("getsockname", &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_are_set_on_both_families() {
        for addr in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let Ok(s) = UdpSocket::bind(addr) else {
                // A machine without IPv6 has nothing to test there.
                assert!(addr.starts_with('['));
                continue;
            };
            let fd = s.as_raw_fd();
            let got = apply(&s, &SocketOptions::default()).unwrap();
            assert!(got.recv_buffer > 100_000 && got.send_buffer > 100_000);
            assert_eq!(get(fd, libc::SOL_UDP, libc::UDP_GRO) == Ok(1), got.gro);
            let discover = if s.local_addr().unwrap().is_ipv4() {
                get(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER)
            } else {
                get(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER)
            };
            assert_eq!(discover, Ok(libc::IP_PMTUDISC_PROBE));
        }
    }

    #[test]
    fn a_socket_is_told_its_address_only_where_it_has_several() {
        for bare in [false, true] {
            for (addr, info) in [("127.0.0.1:0", 0), ("0.0.0.0:0", 1)] {
                let s = UdpSocket::bind(addr).unwrap();
                let options = SocketOptions {
                    bare,
                    ..SocketOptions::default()
                };
                apply(&s, &options).unwrap();
                let got = |option| get(s.as_raw_fd(), libc::IPPROTO_IP, option);
                assert_eq!(got(libc::IP_RECVTOS), Ok(i32::from(!bare)));
                assert_eq!(got(libc::IP_PKTINFO), Ok(info));
            }
        }
    }

    #[test]
    fn datagrams_leave_with_ect0_and_the_code_point_that_the_socket_had() {
        for (bare, tos) in [(false, 0xb8 | 0b10), (true, 0xb8)] {
            let s = UdpSocket::bind("127.0.0.1:0").unwrap();
            set(s.as_raw_fd(), libc::IPPROTO_IP, libc::IP_TOS, 0xb8).unwrap();
            let options = SocketOptions {
                bare,
                ..SocketOptions::default()
            };
            assert_eq!(apply(&s, &options).unwrap().tos, tos);
            let got = get(s.as_raw_fd(), libc::IPPROTO_IP, libc::IP_TOS);
            assert_eq!(got, Ok(i32::from(tos)));
        }
    }
}
