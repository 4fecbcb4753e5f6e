//! Addresses of a path, its identifier, and the ECN field of an IP packet.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The two ends of a network path as one endpoint sees them.
///
/// `local` carries the address that the packet was sent to (from packet info), so that a reply
/// leaves from there; its IP is unspecified where the system did not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FourTuple {
    /// Our end.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: SocketAddr,
}

impl FourTuple {
    /// A tuple of two known ends.
    pub const fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        Self { local, remote }
    }

    /// Whether two tuples name the same path: an unspecified local IP matches any.
    pub fn matches(&self, other: &Self) -> bool {
        self.remote == other.remote
            && self.local.port() == other.local.port()
            && (self.local.ip() == other.local.ip()
                || self.local.ip().is_unspecified()
                || other.local.ip().is_unspecified())
    }
}

/// An address of this machine, and whether new paths may start from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalAddress {
    /// The address.
    pub ip: IpAddr,
    /// The index of the interface that has it; the scope of a link-local address.
    pub interface: u32,
    /// How far it can be relied on.
    pub state: AddressState,
}

/// How far an address can be relied on (RFC 4862 §2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AddressState {
    /// It is in use.
    #[default]
    Preferred,
    /// It is valid yet on its way out: what uses it may go on, and nothing new is to begin.
    Deprecated,
    /// It is not known to be unique yet, or known not to be.
    Tentative,
}

/// Identifies a path within its connection; 0 is the one that the handshake ran on (multipath
/// §1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PathId(pub u32);

impl PathId {
    /// The path of the handshake.
    pub const ZERO: Self = Self(0);
    /// The largest that the nonce has room for (multipath §2.4).
    pub const MAX: Self = Self(u32::MAX);
}

impl fmt::Display for PathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// An IPv4-mapped IPv6 address as plain IPv4, any other address as it is.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(IpAddr::V4(v4), addr.port()),
            None => addr,
        },
        IpAddr::V4(_) => addr,
    }
}

/// The unspecified IPv4 address with port 0.
pub const UNSPECIFIED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// One of a shard's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SocketId(pub u32);

impl SocketId {
    /// As an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where a received train came from. Its segments all have `segment_size` bytes but the last,
/// which may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecvMeta {
    /// The socket it arrived on.
    pub socket: SocketId,
    /// Our address (from packet info, with the socket's port) and the sender's.
    pub path: FourTuple,
    /// The ECN field that all of its packets carried.
    pub ecn: Ecn,
    /// Bytes of each segment; the train's length when there is but one.
    pub segment_size: usize,
}

/// Where a train goes and how it is cut into UDP datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The socket it leaves by.
    pub socket: SocketId,
    /// A specified local IP is the source address; the system chooses otherwise.
    pub path: FourTuple,
    /// The ECN field of every packet.
    pub ecn: Ecn,
    /// Bytes of each segment; equal to `len` when there is but one.
    pub segment_size: usize,
    /// Bytes in all.
    pub len: usize,
}

impl Transmit {
    /// Datagrams in the train, at least one.
    #[inline]
    pub fn segments(&self) -> usize {
        // Most are one, and dividing takes as long as twenty other instructions.
        if self.len <= self.segment_size {
            return 1;
        }
        self.len.div_ceil(self.segment_size.max(1))
    }
}

/// The ECN field of an IP header (RFC 3168 §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Ecn {
    /// Not ECN-capable.
    #[default]
    NotEct = 0b00,
    /// ECT(1).
    Ect1 = 0b01,
    /// ECT(0).
    Ect0 = 0b10,
    /// Congestion experienced.
    Ce = 0b11,
}

impl Ecn {
    /// The ECN field in the low two bits of a TOS or traffic-class byte.
    pub const fn from_tos(tos: u8) -> Self {
        match tos & 0b11 {
            0b01 => Self::Ect1,
            0b10 => Self::Ect0,
            0b11 => Self::Ce,
            _ => Self::NotEct,
        }
    }

    /// The byte with this ECN field and the code point of `tos`.
    pub const fn in_tos(self, tos: u8) -> u8 {
        tos & !0b11 | self as u8
    }
}
