//! The invariant CRC at the end of every RoCE v2 packet: CRC-32 over the IP and UDP headers, with
//! the fields that routers change set to ones, and over everything behind them.
//!
//! A socket does not show IPv4's identification, which is part of it. Linux sends 0 from an
//! unconnected socket with don't-fragment, and counts up within a train that it cuts; rxe sends
//! another in each packet. So IPv4 is checked with the packet's place in its train first. If that
//! fails, the error is a known linear function of the unknown bits: a packet that no identification
//! explains is bad, which finds all but one in 2^15 damaged ones, against one in 2^32 over IPv6.

mod fold;

use super::headers::{BTH, ICRC};
use std::net::{IpAddr, SocketAddr};

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is right.
    Good,
    /// It is right if this was IPv4's identification.
    Identified(u16),
    /// It is wrong.
    Bad,
}

/// One direction between two addresses.
#[derive(Clone, Debug)]
pub struct Icrc {
    from: SocketAddr,
    to: SocketAddr,
    /// The CRC of the headers before BTH, for the two packet lengths that were last seen.
    prefixes: [Prefix; 2],
    /// What takes a difference at the end of so many bytes back to where identifications differ.
    back: (usize, u32),
    /// Whether the processor multiplies without carries.
    folds: bool,
}

#[derive(Clone, Copy, Debug)]
struct Prefix {
    len: usize,
    crc: u32,
}

/// Bytes of the longest prefix: eight of ones, IPv6, UDP.
const PREFIX: usize = 8 + 40 + 8;

impl Icrc {
    /// For packets between two addresses of one family.
    pub fn new(from: SocketAddr, to: SocketAddr) -> Self {
        Self {
            from,
            to,
            prefixes: [Prefix { len: 0, crc: 0 }; 2],
            back: (0, ONE),
            folds: fold::is_supported(),
        }
    }

    /// Whether this is the direction between these addresses.
    #[inline]
    pub fn is_between(&self, from: SocketAddr, to: SocketAddr) -> bool {
        self.from == from && self.to == to
    }

    /// Writes the last four bytes of `packet`, a UDP payload. `identification` is IPv4's.
    #[inline]
    pub fn seal(&mut self, packet: &mut [u8], identification: u16) {
        if let Some((crc, at)) = self.compute(packet, identification)
            && let Some(last) = packet.get_mut(at..)
        {
            last.copy_from_slice(&crc.to_le_bytes());
        }
    }

    /// The same for a packet whose data stands elsewhere: `packet` is its headers and its ICRC, and
    /// `data` comes between them.
    #[inline]
    pub fn seal_around(&mut self, packet: &mut [u8], data: &[u8], identification: u16) {
        let Some((headers, last)) = packet.split_last_chunk_mut::<ICRC>() else {
            return;
        };
        let mut prefix = self.prefix(headers.len() + data.len() + ICRC);
        if self.from.is_ipv4() {
            prefix ^= identification_delta(identification);
        }
        if let Some(crc) = self.behind(prefix, headers) {
            let mut hasher = crc32fast::Hasher::new_with_initial(crc);
            hasher.update(data);
            *last = hasher.finalize().to_le_bytes();
        }
    }

    /// Checks the last four bytes of `packet`, a UDP payload. `identification` is the likely one.
    #[inline]
    pub fn check(&mut self, packet: &mut [u8], identification: u16) -> Verdict {
        let Some((crc, at)) = self.compute(packet, identification) else {
            return Verdict::Bad;
        };
        let sent = packet.get(at..).and_then(|b| b.first_chunk());
        let Some(sent) = sent.map(|b| u32::from_le_bytes(*b)) else {
            return Verdict::Bad;
        };
        if crc == sent {
            Verdict::Good
        } else if self.from.is_ipv4() {
            self.explain(crc ^ sent, at, identification)
        } else {
            Verdict::Bad
        }
    }

    /// The CRC of `packet`, and where in it the ICRC stands.
    #[inline]
    fn compute(&mut self, packet: &mut [u8], identification: u16) -> Option<(u32, usize)> {
        let at = packet.len().checked_sub(ICRC).filter(|&n| n >= BTH)?;
        let mut prefix = self.prefix(packet.len());
        if self.from.is_ipv4() {
            prefix ^= identification_delta(identification);
        }
        let crc = self.behind(prefix, packet.get_mut(..at)?)?;
        Some((crc, at))
    }

    /// The CRC of `body`, which begins with BTH, behind what `prefix` is the CRC of. `body` is as
    /// it was.
    #[inline]
    fn behind(&self, prefix: u32, body: &mut [u8]) -> Option<u32> {
        if let Some(crc) = fold::crc(self.folds, prefix, body) {
            return Some(crc);
        }
        // BTH's reserved byte counts as ones; hashing in one go is faster than in three.
        let reserved = std::mem::replace(body.get_mut(4)?, 0xff);
        let mut hasher = crc32fast::Hasher::new_with_initial(prefix);
        hasher.update(body);
        *body.get_mut(4)? = reserved;
        Some(hasher.finalize())
    }

    /// The CRC of everything before a UDP payload of `len` bytes, with identification 0.
    #[inline]
    fn prefix(&mut self, len: usize) -> u32 {
        let [last, other] = self.prefixes;
        if last.len == len {
            return last.crc;
        }
        if other.len == len {
            self.prefixes = [other, last];
            return other.crc;
        }
        let crc = self.hash_prefix(len);
        self.prefixes = [Prefix { len, crc }, last];
        crc
    }

    #[cold]
    fn hash_prefix(&self, len: usize) -> u32 {
        let mut bytes = [0xff; PREFIX];
        let udp_len = len.saturating_add(8).min(usize::from(u16::MAX)) as u16;
        let udp = match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                // Type of service, time to live and checksum stay ones.
                bytes[8] = 0x45;
                bytes[10..12].copy_from_slice(&udp_len.saturating_add(20).to_be_bytes());
                bytes[12..16].copy_from_slice(&[0, 0, 0x40, 0]);
                bytes[17] = 17;
                bytes[20..24].copy_from_slice(&from.octets());
                bytes[24..28].copy_from_slice(&to.octets());
                28
            }
            (from, to) => {
                let octets = |ip| match ip {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                    IpAddr::V6(v6) => v6.octets(),
                };
                // Traffic class, flow label and hop limit stay ones.
                bytes[8] = 0x6f;
                bytes[12..14].copy_from_slice(&udp_len.to_be_bytes());
                bytes[14] = 17;
                bytes[16..32].copy_from_slice(&octets(from));
                bytes[32..48].copy_from_slice(&octets(to));
                48
            }
        };
        bytes[udp..udp + 2].copy_from_slice(&self.from.port().to_be_bytes());
        bytes[udp + 2..udp + 4].copy_from_slice(&self.to.port().to_be_bytes());
        bytes[udp + 4..udp + 6].copy_from_slice(&udp_len.to_be_bytes());
        // The UDP checksum stays ones.
        crc32fast::hash(bytes.get(..udp + 8).unwrap_or_default())
    }

    /// Whether another identification, or none of don't-fragment, is what made `difference` in a
    /// packet of `body` bytes before its ICRC.
    #[cold]
    fn explain(&mut self, difference: u32, body: usize, identification: u16) -> Verdict {
        // A difference of the four bytes from the identification on, seen as a register, has since
        // been multiplied by x^8 for each of them and each byte behind. Dividing shows it again.
        let bytes = 4 + BEHIND_IDENTIFICATION - 2 + body;
        if self.back.0 != bytes {
            self.back = (bytes, divisor(bytes));
        }
        let [high, low, flags, offset] = multiply(difference, self.back.1).to_le_bytes();
        if flags & !0x40 != 0 || offset != 0 {
            return Verdict::Bad;
        }
        Verdict::Identified(u16::from_be_bytes([high, low]) ^ identification)
    }
}

/// Bytes between an IPv4 header's identification and the end of UDP's header.
const BEHIND_IDENTIFICATION: usize = 22;
/// CRC-32's polynomial, x^31 in the lowest bit.
const POLYNOMIAL: u32 = 0xedb8_8320;
/// The polynomial 1.
const ONE: u32 = 1 << 31;

/// How an identification changes the CRC of a prefix: it is linear.
#[inline]
fn identification_delta(identification: u16) -> u32 {
    match DELTAS.get(usize::from(identification)) {
        Some(&delta) => delta,
        None => delta_of(identification),
    }
}

/// Those of the places in a train.
static DELTAS: [u32; 64] = {
    let mut deltas = [0; 64];
    let mut n = 0;
    while n < deltas.len() {
        deltas[n] = delta_of(n as u16);
        n += 1;
    }
    deltas
};

const fn delta_of(identification: u16) -> u32 {
    let [high, low] = identification.to_be_bytes();
    let mut register = u32::from_le_bytes([high, low, 0, 0]);
    let mut bits = 8 * (2 + BEHIND_IDENTIFICATION);
    while bits > 0 {
        register = times_x(register);
        bits -= 1;
    }
    register
}

/// A polynomial times x.
const fn times_x(a: u32) -> u32 {
    a >> 1 ^ if a & 1 == 1 { POLYNOMIAL } else { 0 }
}

/// A product of polynomials.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let (mut product, mut bit) = (0, ONE);
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        b = times_x(b);
        bit >>= 1;
    }
    product
}

/// 1 / x^(8 · bytes).
fn divisor(bytes: usize) -> u32 {
    // x^-1: what `times_x` takes to ONE.
    let mut power = (ONE ^ POLYNOMIAL) << 1 | 1;
    let (mut product, mut exponent) = (ONE, bytes.saturating_mul(8));
    while exponent > 0 {
        if exponent & 1 == 1 {
            product = multiply(product, power);
        }
        power = multiply(power, power);
        exponent >>= 1;
    }
    product
}

#[cfg(test)]
mod tests;
