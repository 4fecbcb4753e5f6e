//! Where others may make us send to (RFC 9000 §21.5, RFC 9308 §8.1).
//!
//! A source address can be forged, and a server may name any preferred address. Services that
//! answer or act on single datagrams without authentication have well-known ports, and hosts trust
//! their own loopback: neither is sent to because somebody else said so.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

/// Ports of services that a datagram of ours could set off: none of them is a client's.
const BLOCKED: &[u16] = &[0, 17, 19, 53, 111, 123, 137, 138, 161, 389, 500];
/// The same above 1023, where a NAT may put a client.
const THROTTLED: &[u16] = &[1900, 3702, 5353, 5355, 11211];

/// Ports that a peer's address may not have, or only once it is proven.
///
/// ```
/// use corelane::conn::{PortGuard, PortVerdict};
///
/// let guard = PortGuard::default();
/// assert_eq!(guard.verdict(53), PortVerdict::Block);
/// assert_eq!(guard.verdict(11211), PortVerdict::Prove);
/// assert_eq!(guard.verdict(50_000), PortVerdict::Allow);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortGuard {
    blocked: Cow<'static, [u16]>,
    throttled: Cow<'static, [u16]>,
}

/// What a [`PortGuard`] says of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortVerdict {
    /// Nothing is known against it.
    Allow,
    /// A connection attempt from there is asked to prove its address first (RFC 9000 §8.1.2).
    Prove,
    /// Nothing is sent there: attempts are ignored, migrations not followed.
    Block,
}

impl Default for PortGuard {
    /// Blocks 0, 17, 19, 53, 111, 123, 137, 138, 161, 389 and 500; asks 1900, 3702, 5353, 5355 and
    /// 11211 for proof.
    fn default() -> Self {
        Self {
            blocked: Cow::Borrowed(BLOCKED),
            throttled: Cow::Borrowed(THROTTLED),
        }
    }
}

impl PortGuard {
    /// Blocks and asks for proof as told.
    pub fn new(blocked: Vec<u16>, throttled: Vec<u16>) -> Self {
        Self {
            blocked: blocked.into(),
            throttled: throttled.into(),
        }
    }

    /// Allows every port, for networks where nobody forges addresses.
    pub fn off() -> Self {
        Self::new(Vec::new(), Vec::new())
    }

    /// What to do about a peer at `port`.
    pub fn verdict(&self, port: u16) -> PortVerdict {
        if self.blocked.contains(&port) {
            PortVerdict::Block
        } else if self.throttled.contains(&port) {
            PortVerdict::Prove
        } else {
            PortVerdict::Allow
        }
    }

    /// Whether a connection with a peer at `present` may go on with `new`: no blocked port, and
    /// into loopback, or onto the local link, only from there (RFC 9000 §21.5.6).
    pub(super) fn admits(&self, present: SocketAddr, new: SocketAddr) -> bool {
        let nobody = match new.ip() {
            IpAddr::V4(ip) => ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_unspecified() || ip.is_multicast(),
        };
        let (old_reach, reach) = (Reach::of(present.ip()), Reach::of(new.ip()));
        !nobody
            && new.port() != 0
            && self.verdict(new.port()) != PortVerdict::Block
            && (reach == Reach::Routed || reach == old_reach)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Host,
    Link,
    Routed,
}

impl Reach {
    fn of(ip: IpAddr) -> Self {
        let link = match ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        if ip.is_loopback() {
            Self::Host
        } else if link {
            Self::Link
        } else {
            Self::Routed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ports_and_reaches_that_are_safe_are_admitted() {
        let guard = PortGuard::default();
        let home: SocketAddr = "203.0.113.5:443".parse().unwrap();
        for (new, ok) in [
            ("203.0.113.9:443", true),
            ("192.168.1.1:5000", true),
            ("[2001:db8::1]:443", true),
            ("203.0.113.9:123", false),
            ("203.0.113.9:0", false),
            ("0.0.0.0:443", false),
            ("255.255.255.255:443", false),
            ("224.0.0.251:4433", false),
            ("127.0.0.1:443", false),
            ("[::1]:443", false),
            ("169.254.169.254:8000", false),
            ("[fe80::1]:443", false),
        ] {
            assert_eq!(guard.admits(home, new.parse().unwrap()), ok, "{new}");
        }
        let local: SocketAddr = "127.0.0.1:4433".parse().unwrap();
        assert!(guard.admits(local, "127.0.0.2:4433".parse().unwrap()));
        assert!(PortGuard::off().admits(home, "203.0.113.9:123".parse().unwrap()));
    }
}
