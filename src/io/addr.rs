//! Socket addresses between Rust's form and the kernel's.
//!
//! Everything above this file sees IPv4 peers of a dual-stack socket as IPv4; here they become
//! the mapped form that an IPv6 socket wants, and back.

use crate::base::net::canonical;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Room for either family.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) union Name {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
    family: libc::sa_family_t,
    zero: [u8; size_of::<libc::sockaddr_in6>()],
}

impl Name {
    /// Room for the kernel to write to.
    pub(super) const fn empty() -> Self {
        Self {
            zero: [0; size_of::<libc::sockaddr_in6>()],
        }
    }

    /// The kernel's form of `addr` for a socket of the given family, and its length. An IPv6
    /// address on an IPv4 socket stays IPv6: the kernel answers EAFNOSUPPORT, which is counted.
    #[inline]
    pub(super) fn new(addr: SocketAddr, socket_v6: bool) -> (Self, libc::socklen_t) {
        match addr {
            SocketAddr::V4(a) if !socket_v6 => {
                let mut n = Self::empty();
                n.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: a.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: u32::from_ne_bytes(a.ip().octets()),
                    },
                    sin_zero: [0; 8],
                };
                (n, size_of::<libc::sockaddr_in>() as libc::socklen_t)
            }
            SocketAddr::V4(a) => {
                Self::of_v6(&SocketAddrV6::new(a.ip().to_ipv6_mapped(), a.port(), 0, 0))
            }
            SocketAddr::V6(a) => Self::of_v6(&a),
        }
    }

    fn of_v6(a: &SocketAddrV6) -> (Self, libc::socklen_t) {
        let v6 = libc::sockaddr_in6 {
            sin6_family: libc::AF_INET6 as libc::sa_family_t,
            sin6_port: a.port().to_be(),
            sin6_flowinfo: a.flowinfo(),
            sin6_addr: libc::in6_addr {
                s6_addr: a.ip().octets(),
            },
            sin6_scope_id: a.scope_id(),
        };
        (
            Self { v6 },
            size_of::<libc::sockaddr_in6>() as libc::socklen_t,
        )
    }

    /// The address that the kernel wrote, canonical; `None` for another family.
    #[inline]
    pub(super) fn read(&self) -> Option<SocketAddr> {
        // SAFETY: every variant is plain integers without padding and `empty` initialised all
        // bytes, so any bit pattern may be read as any variant; the family says which is meant.
        unsafe {
            match i32::from(self.family) {
                libc::AF_INET => {
                    let ip = Ipv4Addr::from(self.v4.sin_addr.s_addr.to_ne_bytes());
                    Some(SocketAddr::new(
                        IpAddr::V4(ip),
                        u16::from_be(self.v4.sin_port),
                    ))
                }
                libc::AF_INET6 => {
                    let a = &self.v6;
                    let ip = Ipv6Addr::from(a.sin6_addr.s6_addr);
                    let port = u16::from_be(a.sin6_port);
                    let full = SocketAddrV6::new(ip, port, a.sin6_flowinfo, a.sin6_scope_id);
                    Some(canonical(SocketAddr::V6(full)))
                }
                _ => None,
            }
        }
    }

    /// The name in a receive buffer where the kernel copied it; shorter ones are padded.
    #[inline]
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let mut n = Self::empty();
        let mut zero = [0; size_of::<libc::sockaddr_in6>()];
        let len = bytes.len().min(zero.len());
        zero[..len].copy_from_slice(&bytes[..len]);
        n.zero = zero;
        n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_kernel_form() {
        for (addr, v6, len) in [
            ("10.1.2.3:4433", false, 16),
            ("10.1.2.3:4433", true, 28),
            ("[2001:db8::5]:1", true, 28),
            ("[fe80::1%7]:65535", true, 28),
        ] {
            let addr: SocketAddr = addr.parse().unwrap();
            let (name, got) = Name::new(addr, v6);
            assert_eq!((name.read(), got), (Some(addr), len));
        }
        assert_eq!(Name::empty().read(), None);
        assert_eq!(Name::from_bytes(&[]).read(), None);
    }
}
