//! The headers of a RoCE v2 packet behind UDP: BTH, RETH, AETH, AtomicETH. All big-endian.

use super::psn::Psn;

/// Bytes of a BTH.
pub const BTH: usize = 12;
/// Bytes of a RETH.
pub const RETH: usize = 16;
/// Bytes of an AETH.
pub const AETH: usize = 4;
/// Bytes of an AtomicETH.
pub const ATOMIC_ETH: usize = 28;
/// Bytes of an AtomicAckETH.
pub const ATOMIC_ACK_ETH: usize = 8;
/// Bytes of an immediate.
pub const IMM: usize = 4;
/// Bytes of an ICRC.
pub const ICRC: usize = 4;
/// The partition that every port is in.
pub const DEFAULT_PKEY: u16 = 0xffff;

/// The base transport header, which begins every packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bth {
    /// The opcode's byte.
    pub opcode: u8,
    /// The receiver's completion is a solicited one.
    pub solicited: bool,
    /// Zeros between data and ICRC, 0 to 3.
    pub pad: u8,
    /// Version of the transport header, 0.
    pub version: u8,
    /// Partition.
    pub pkey: u16,
    /// The receiving queue pair, 24 bits.
    pub qpn: u32,
    /// The sender wants an acknowledgement.
    pub ack_req: bool,
    /// Packet sequence number.
    pub psn: Psn,
}

impl Bth {
    /// Reads the first bytes of a packet.
    #[inline]
    pub fn parse(bytes: &[u8; BTH]) -> Self {
        let [opcode, flags, pk0, pk1, _, q0, q1, q2, ack, p0, p1, p2] = *bytes;
        Self {
            opcode,
            solicited: flags & 0x80 != 0,
            pad: flags >> 4 & 3,
            version: flags & 0xf,
            pkey: u16::from_be_bytes([pk0, pk1]),
            qpn: u32::from_be_bytes([0, q0, q1, q2]),
            ack_req: ack & 0x80 != 0,
            psn: Psn::new(u32::from_be_bytes([0, p0, p1, p2])),
        }
    }

    /// The receiving queue pair of a packet; `None` where it has no whole header.
    #[inline]
    pub fn qpn_of(packet: &[u8]) -> Option<u32> {
        let [_, _, _, _, _, q0, q1, q2, ..] = *packet.first_chunk::<BTH>()?;
        Some(u32::from_be_bytes([0, q0, q1, q2]))
    }

    /// As bytes. The migration state is "migrated", as of every queue pair that never moves.
    #[inline]
    pub fn to_bytes(self) -> [u8; BTH] {
        let flags = u8::from(self.solicited) << 7 | 0x40 | (self.pad & 3) << 4 | self.version & 0xf;
        let [pk0, pk1] = self.pkey.to_be_bytes();
        let [_, q0, q1, q2] = self.qpn.to_be_bytes();
        let [_, p0, p1, p2] = self.psn.get().to_be_bytes();
        let ack = u8::from(self.ack_req) << 7;
        [self.opcode, flags, pk0, pk1, 0, q0, q1, q2, ack, p0, p1, p2]
    }
}

/// RDMA extended transport header: which memory of the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reth {
    /// Address of the first byte.
    pub addr: u64,
    /// The region's key.
    pub rkey: u32,
    /// Bytes of the whole message.
    pub len: u32,
}

impl Reth {
    /// Reads one.
    #[inline]
    pub fn parse(bytes: &[u8; RETH]) -> Self {
        let (addr, rest) = split::<8, 8, RETH>(bytes);
        let (rkey, len) = split::<4, 4, 8>(&rest);
        Self {
            addr: u64::from_be_bytes(addr),
            rkey: u32::from_be_bytes(rkey),
            len: u32::from_be_bytes(len),
        }
    }

    /// As bytes.
    #[inline]
    pub fn to_bytes(self) -> [u8; RETH] {
        let mut out = [0; RETH];
        out[..8].copy_from_slice(&self.addr.to_be_bytes());
        out[8..12].copy_from_slice(&self.rkey.to_be_bytes());
        out[12..].copy_from_slice(&self.len.to_be_bytes());
        out
    }
}

/// ACK extended transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aeth {
    /// ACK, RNR NAK or NAK, and its code.
    pub syndrome: u8,
    /// Messages completed by the responder, 24 bits.
    pub msn: u32,
}

/// What an AETH's syndrome says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syndrome {
    /// Everything up to the packet's number arrived.
    Ack,
    /// No receive is posted: come back after the time of this code.
    RnrNak(u8),
    /// The packet's number is the one expected.
    SequenceError,
    /// The request is invalid.
    InvalidRequest,
    /// The memory is not there or not for the peer.
    RemoteAccess,
    /// The responder failed.
    RemoteOperational,
    /// A code that means nothing on a reliable connection.
    Reserved,
}

impl Syndrome {
    /// Reads a syndrome byte.
    pub const fn parse(byte: u8) -> Self {
        match (byte >> 5, byte & 0x1f) {
            (0, _) => Self::Ack,
            (1, code) => Self::RnrNak(code),
            (3, 0) => Self::SequenceError,
            (3, 1) => Self::InvalidRequest,
            (3, 2) => Self::RemoteAccess,
            (3, 3) => Self::RemoteOperational,
            _ => Self::Reserved,
        }
    }

    /// As a byte; an ACK without credits, which a shared receive queue could not promise.
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Ack => 0x1f,
            Self::RnrNak(code) => 0x20 | code & 0x1f,
            Self::SequenceError => 0x60,
            Self::InvalidRequest => 0x61,
            Self::RemoteAccess => 0x62,
            Self::RemoteOperational => 0x63,
            Self::Reserved => 0x7f,
        }
    }
}

impl Aeth {
    /// Reads one.
    #[inline]
    pub fn parse(bytes: &[u8; AETH]) -> Self {
        let [syndrome, m0, m1, m2] = *bytes;
        Self {
            syndrome,
            msn: u32::from_be_bytes([0, m0, m1, m2]),
        }
    }

    /// As bytes.
    #[inline]
    pub fn to_bytes(self) -> [u8; AETH] {
        let [_, m0, m1, m2] = self.msn.to_be_bytes();
        [self.syndrome, m0, m1, m2]
    }
}

/// Atomic extended transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtomicEth {
    /// Address of the 8 bytes.
    pub addr: u64,
    /// The region's key.
    pub rkey: u32,
    /// What to swap in, or to add.
    pub swap_add: u64,
    /// What to compare with.
    pub compare: u64,
}

impl AtomicEth {
    /// Reads one.
    pub fn parse(bytes: &[u8; ATOMIC_ETH]) -> Self {
        let (addr, rest) = split::<8, 20, ATOMIC_ETH>(bytes);
        let (rkey, rest) = split::<4, 16, 20>(&rest);
        let (swap_add, compare) = split::<8, 8, 16>(&rest);
        Self {
            addr: u64::from_be_bytes(addr),
            rkey: u32::from_be_bytes(rkey),
            swap_add: u64::from_be_bytes(swap_add),
            compare: u64::from_be_bytes(compare),
        }
    }

    /// As bytes.
    pub fn to_bytes(self) -> [u8; ATOMIC_ETH] {
        let mut out = [0; ATOMIC_ETH];
        out[..8].copy_from_slice(&self.addr.to_be_bytes());
        out[8..12].copy_from_slice(&self.rkey.to_be_bytes());
        out[12..20].copy_from_slice(&self.swap_add.to_be_bytes());
        out[20..].copy_from_slice(&self.compare.to_be_bytes());
        out
    }
}

/// An array's two halves; the lengths are the types', so the compiler has checked them.
#[inline]
fn split<const A: usize, const B: usize, const N: usize>(bytes: &[u8; N]) -> ([u8; A], [u8; B]) {
    const { assert!(A + B == N) };
    let (mut a, mut b) = ([0; A], [0; B]);
    a.copy_from_slice(&bytes[..A]);
    b.copy_from_slice(&bytes[A..]);
    (a, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layouts_are_the_standards() {
        // By hand: SEND ONLY, solicited, 3 zeros, partition ffff, QPN 12345, AckReq, PSN fedcba.
        let bytes = [
            4, 0xf0, 0xff, 0xff, 0, 1, 0x23, 0x45, 0x80, 0xfe, 0xdc, 0xba,
        ];
        let bth = Bth {
            opcode: 4,
            solicited: true,
            pad: 3,
            version: 0,
            pkey: DEFAULT_PKEY,
            qpn: 0x12345,
            ack_req: true,
            psn: Psn::new(0xfedcba),
        };
        assert_eq!((Bth::parse(&bytes), bth.to_bytes()), (bth, bytes));
        let bytes: [u8; RETH] = std::array::from_fn(|n| n as u8);
        let reth = Reth {
            addr: 0x0001020304050607,
            rkey: 0x08090a0b,
            len: 0x0c0d0e0f,
        };
        assert_eq!((Reth::parse(&bytes), reth.to_bytes()), (reth, bytes));
        let bytes: [u8; ATOMIC_ETH] = std::array::from_fn(|n| n as u8);
        let atomic = AtomicEth {
            addr: 0x0001020304050607,
            rkey: 0x08090a0b,
            swap_add: 0x0c0d0e0f10111213,
            compare: 0x1415161718191a1b,
        };
        assert_eq!(
            (AtomicEth::parse(&bytes), atomic.to_bytes()),
            (atomic, bytes)
        );
        let aeth = Aeth {
            syndrome: 0x60,
            msn: 0x010203,
        };
        assert_eq!(
            (Aeth::parse(&[0x60, 1, 2, 3]), aeth.to_bytes()),
            (aeth, [0x60, 1, 2, 3])
        );
    }

    #[test]
    fn syndromes_are_the_standards() {
        for byte in 0..=255 {
            match Syndrome::parse(byte) {
                Syndrome::Ack => assert!(byte < 0x20),
                Syndrome::Reserved => assert!(matches!(byte, 0x40..=0x5f | 0x64..)),
                other => assert_eq!(other.to_byte(), byte),
            }
        }
        assert_eq!(Syndrome::Ack.to_byte(), 0x1f);
        assert_eq!(
            Syndrome::parse(Syndrome::Reserved.to_byte()),
            Syndrome::Reserved
        );
    }
}
