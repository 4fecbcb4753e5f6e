//! Names of a device's objects, and of devices on the network.
//!
//! An object's ID is meaningless to every device but the one that made it, and to that one too once
//! the object is gone. What a peer is told are numbers: QPN, rkey, GID.

use super::slots::Key;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident,)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub(crate) Key);
    )*};
}

ids! {
    /// A protection domain: queue pairs reach the memory regions of their own one only.
    ProtectionDomainId,
    /// A memory region.
    MemoryRegionId,
    /// A completion queue.
    CompletionQueueId,
    /// A shared receive queue.
    SharedReceiveQueueId,
    /// A queue pair.
    QueuePairId,
}

/// A device's address as RoCE v2 has it: an IPv6 address, or an IPv4 address mapped into one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Gid(pub [u8; 16]);

impl Gid {
    /// The IP address; a mapped IPv4 address as plain IPv4.
    pub fn ip(self) -> IpAddr {
        Ipv6Addr::from(self.0).to_canonical()
    }
}

impl From<IpAddr> for Gid {
    fn from(ip: IpAddr) -> Self {
        Self(match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        })
    }
}

impl fmt::Debug for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Ipv6Addr::from(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gid_keeps_both_families() {
        for text in ["192.0.2.7", "2001:db8::1"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(Gid::from(ip).ip(), ip);
        }
        let gid = Gid::from("192.0.2.7".parse::<IpAddr>().unwrap());
        assert_eq!(gid.0[10..], [0xff, 0xff, 192, 0, 2, 7]);
        assert_eq!(format!("{gid:?}"), "::ffff:192.0.2.7");
    }
}
