//! A whole packet: from bytes to its parts, and from parts to bytes.
//!
//! Parsing checks what one packet alone can be wrong in: its length, transport version, opcode and
//! padding. The ICRC is checked before and written after, over the same bytes.

use super::headers::{
    AETH, ATOMIC_ACK_ETH, ATOMIC_ETH, Aeth, AtomicEth, BTH, Bth, ICRC, IMM, RETH, Reth,
};
use super::opcode::{Opcode, Refusal};

/// What stands between BTH and data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ext {
    /// Nothing.
    None,
    /// An immediate.
    Imm(u32),
    /// A RETH.
    Reth(Reth),
    /// A RETH and an immediate.
    RethImm(Reth, u32),
    /// An AETH.
    Aeth(Aeth),
    /// An AETH and what an atomic found.
    AtomicAck(Aeth, u64),
    /// An AtomicETH.
    Atomic(AtomicEth),
}

impl Ext {
    /// In bytes.
    #[inline]
    pub const fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Imm(_) => IMM,
            Self::Reth(_) => RETH,
            Self::RethImm(..) => RETH + IMM,
            Self::Aeth(_) => AETH,
            Self::AtomicAck(..) => AETH + ATOMIC_ACK_ETH,
            Self::Atomic(_) => ATOMIC_ETH,
        }
    }

    /// Whether there is nothing.
    pub const fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Reads what `opcode` brings; it and the rest.
    #[inline]
    fn parse(opcode: Opcode, bytes: &[u8]) -> Option<(Self, &[u8])> {
        use Opcode as Op;
        let imm = |bytes| {
            let (imm, rest): (&[u8; IMM], _) = take(bytes)?;
            Some((u32::from_be_bytes(*imm), rest))
        };
        Some(match opcode {
            Op::SendLastImm | Op::SendOnlyImm | Op::WriteLastImm => {
                let (imm, rest) = imm(bytes)?;
                (Self::Imm(imm), rest)
            }
            Op::WriteFirst | Op::WriteOnly | Op::ReadRequest => {
                let (reth, rest) = take(bytes)?;
                (Self::Reth(Reth::parse(reth)), rest)
            }
            Op::WriteOnlyImm => {
                let (reth, rest) = take(bytes)?;
                let (imm, rest) = imm(rest)?;
                (Self::RethImm(Reth::parse(reth), imm), rest)
            }
            Op::ReadResponseFirst
            | Op::ReadResponseLast
            | Op::ReadResponseOnly
            | Op::Acknowledge => {
                let (aeth, rest) = take(bytes)?;
                (Self::Aeth(Aeth::parse(aeth)), rest)
            }
            Op::AtomicAcknowledge => {
                let (aeth, rest) = take(bytes)?;
                let (found, rest): (&[u8; ATOMIC_ACK_ETH], _) = take(rest)?;
                (
                    Self::AtomicAck(Aeth::parse(aeth), u64::from_be_bytes(*found)),
                    rest,
                )
            }
            Op::CompareSwap | Op::FetchAdd => {
                let (atomic, rest) = take(bytes)?;
                (Self::Atomic(AtomicEth::parse(atomic)), rest)
            }
            _ => (Self::None, bytes),
        })
    }

    /// Writes it to the beginning of `out`, which is [`len`](Self::len) bytes long.
    #[inline]
    fn write(&self, out: &mut [u8]) -> Option<()> {
        match self {
            Self::None => {}
            Self::Imm(imm) => put(out, &imm.to_be_bytes())?,
            Self::Reth(reth) => put(out, &reth.to_bytes())?,
            Self::RethImm(reth, imm) => {
                put(out, &reth.to_bytes())?;
                put(out.get_mut(RETH..)?, &imm.to_be_bytes())?;
            }
            Self::Aeth(aeth) => put(out, &aeth.to_bytes())?,
            Self::AtomicAck(aeth, found) => {
                put(out, &aeth.to_bytes())?;
                put(out.get_mut(AETH..)?, &found.to_be_bytes())?;
            }
            Self::Atomic(atomic) => put(out, &atomic.to_bytes())?,
        }
        Some(())
    }
}

#[inline]
fn take<const N: usize>(bytes: &[u8]) -> Option<(&[u8; N], &[u8])> {
    bytes.split_first_chunk()
}

#[inline]
fn put<const N: usize>(out: &mut [u8], bytes: &[u8; N]) -> Option<()> {
    *out.first_chunk_mut()? = *bytes;
    Some(())
}

/// What is wrong with a packet by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Too short for its headers, or not a multiple of four, or padding without data.
    Length,
    /// Another version of the transport header.
    Version,
    /// An opcode that is none of ours; the header is good.
    Opcode(Refusal, Bth),
}

/// A packet's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The base header.
    pub bth: Bth,
    /// Its opcode.
    pub opcode: Opcode,
    /// What follows it.
    pub ext: Ext,
    /// The data, without padding.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Takes a UDP payload, ICRC included, apart.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (first, rest) = take::<BTH>(bytes).ok_or(Malformed::Length)?;
        let bth = Bth::parse(first);
        let len = rest.len().checked_sub(ICRC).ok_or(Malformed::Length)?;
        if !bytes.len().is_multiple_of(4) {
            return Err(Malformed::Length);
        }
        if bth.version != 0 {
            return Err(Malformed::Version);
        }
        let opcode = Opcode::from_byte(bth.opcode).map_err(|r| Malformed::Opcode(r, bth))?;
        let rest = rest.get(..len).ok_or(Malformed::Length)?;
        let (ext, data) = Ext::parse(opcode, rest).ok_or(Malformed::Length)?;
        let len = data.len().checked_sub(usize::from(bth.pad));
        let payload = len.and_then(|n| data.get(..n)).ok_or(Malformed::Length)?;
        if !opcode.has_payload() && !data.is_empty() {
            return Err(Malformed::Length);
        }
        Ok(Self {
            bth,
            opcode,
            ext,
            payload,
        })
    }
}

/// Bytes of a packet with `ext` and `payload` bytes of data.
#[inline]
pub const fn packet_len(ext: &Ext, payload: usize) -> usize {
    BTH + ext.len() + payload.next_multiple_of(4) + ICRC
}

/// Writes a packet to the beginning of `out`, all but its ICRC, and lets `fill` write the data.
///
/// The padding is worked out here. Returns the packet's bytes, ICRC included; `None` when it does
/// not fit or `fill` fails.
#[inline]
pub fn write(
    out: &mut [u8],
    mut bth: Bth,
    ext: &Ext,
    payload: usize,
    fill: impl FnOnce(&mut [u8]) -> bool,
) -> Option<usize> {
    let len = packet_len(ext, payload);
    let out = out.get_mut(..len)?;
    let pad = payload.next_multiple_of(4) - payload;
    bth.pad = pad as u8;
    let data = write_headers(out, bth, ext)?;
    if !fill(out.get_mut(data..data + payload)?) {
        return None;
    }
    if pad > 0 {
        out.get_mut(data + payload..data + payload + pad)?.fill(0);
    }
    Some(len)
}

/// Writes what stands before the data to the beginning of `out`; how many bytes it is.
#[inline]
pub fn write_headers(out: &mut [u8], bth: Bth, ext: &Ext) -> Option<usize> {
    put(out, &bth.to_bytes())?;
    ext.write(out.get_mut(BTH..)?)?;
    Some(BTH + ext.len())
}

#[cfg(test)]
mod tests;
