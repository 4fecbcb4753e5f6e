//! Packet headers (RFC 9000 §17, RFC 8999): what is readable before protection is removed, and
//! the writers of all packet types.
//!
//! [`Header::parse`] reads one packet; coalesced packets are read by parsing again at its end.
//! [`dcid`] reads only what routing needs. Removing and applying protection lives in `crypto`, and
//! packet numbers in [`packet_number`](super::packet_number). Every length is checked against the
//! slice that was given.

use super::cid::ConnectionId;
use super::varint::{Reader, Truncated, Writer, size};

/// QUIC version 1 (RFC 9000).
pub const VERSION_1: u32 = 0x0000_0001;
/// QUIC version 2 (RFC 9369), whose packets differ in the type's bits alone.
pub const VERSION_2: u32 = 0x6b33_43cf;

/// First byte: the long header form.
pub const FORM_LONG: u8 = 0x80;
/// First byte: set in every packet (RFC 9000 §17.2, §17.3), unless its receiver said that it need
/// not be (RFC 9287).
pub const FIXED_BIT: u8 = 0x40;
/// First byte of a short header: the latency spin bit (RFC 9000 §17.4).
pub const SPIN: u8 = 0x20;
/// First byte of a short header: the key phase (RFC 9001 §6).
pub const KEY_PHASE: u8 = 0x04;
/// First byte of a long header: reserved, zero once protection is removed (RFC 9000 §17.2).
pub const RESERVED_LONG: u8 = 0x0c;
/// First byte of a short header: reserved, zero once protection is removed (RFC 9000 §17.3.1).
pub const RESERVED_SHORT: u8 = 0x18;
/// First byte: the packet number's length less one.
pub const PN_LEN_MASK: u8 = 0x03;
/// Bytes of a Retry packet's integrity tag (RFC 9001 §5.8).
pub const RETRY_TAG_LEN: usize = 16;

const LONG_TYPE_MASK: u8 = 0x30;

/// The long header packets that carry frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LongType {
    /// The first packets of a handshake.
    Initial,
    /// Early data from a client.
    ZeroRtt,
    /// The rest of the handshake.
    Handshake,
}

impl LongType {
    const fn bits(self, version: u32) -> u8 {
        let number = match self {
            Self::Initial => 0,
            Self::ZeroRtt => 1,
            Self::Handshake => 2,
        };
        type_bits(number, version)
    }
}

/// The number of a Retry packet beside those of [`LongType`].
const RETRY: u8 = 3;

/// The type of a long header in its place in the first byte: Initial, 0-RTT, Handshake and Retry
/// are 0 to 3 in version 1 and one more, modulo four, in version 2 (RFC 9369 §3.2).
const fn type_bits(number: u8, version: u32) -> u8 {
    let shift = if version == VERSION_2 { 1 } else { 0 };
    ((number + shift) & 3) << 4
}

/// The inverse of [`type_bits`]; `None` is a Retry.
const fn type_of(first: u8, version: u32) -> Option<LongType> {
    let shift = if version == VERSION_2 { 3 } else { 0 };
    match (((first & LONG_TYPE_MASK) >> 4) + shift) & 3 {
        0 => Some(LongType::Initial),
        1 => Some(LongType::ZeroRtt),
        2 => Some(LongType::Handshake),
        _ => None,
    }
}

/// Why a packet's header could not be read. Such a packet is dropped and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HeaderError {
    /// The packet ends inside its header, or its Length field reaches past the datagram.
    #[error("the packet is shorter than its header says")]
    Truncated,
    /// A packet without the fixed bit (RFC 9000 §17.2, §17.3.1).
    #[error("the fixed bit is not set")]
    FixedBit,
    /// A packet with a connection ID of more than 20 bytes (RFC 9000 §17.2).
    #[error("a connection ID is longer than 20 bytes")]
    ConnectionIdTooLong,
    /// A Retry packet without a token (RFC 9000 §17.2.5.2).
    #[error("a Retry packet carries no token")]
    NoRetryToken,
    /// A Version Negotiation packet with no version or with a part of one (RFC 8999 §6).
    #[error("a Version Negotiation packet's list of versions is empty or cut")]
    VersionList,
}

impl From<Truncated> for HeaderError {
    #[cold]
    fn from(Truncated: Truncated) -> Self {
        Self::Truncated
    }
}

/// The unprotected part of one packet. Offsets index the slice that was parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header<'a> {
    /// An Initial, 0-RTT or Handshake packet of a version that is spoken here.
    Long {
        /// Which of the three.
        ty: LongType,
        /// The version, [`VERSION_1`] or [`VERSION_2`].
        version: u32,
        /// The receiver's connection ID.
        dcid: ConnectionId,
        /// The sender's connection ID.
        scid: ConnectionId,
        /// An Initial packet's token; empty in the others.
        token: &'a [u8],
        /// Where the protected packet number starts.
        pn_offset: usize,
        /// Bytes of the whole packet; where a coalesced packet would start.
        len: usize,
    },
    /// A Retry packet of a version that is spoken here, which takes the whole slice.
    Retry {
        /// The version, [`VERSION_1`] or [`VERSION_2`].
        version: u32,
        /// The client's connection ID.
        dcid: ConnectionId,
        /// The connection ID that the server wants to be addressed by.
        scid: ConnectionId,
        /// The token to bring back; not empty.
        token: &'a [u8],
        /// The tag over the packet (RFC 9001 §5.8), not verified here.
        integrity_tag: [u8; RETRY_TAG_LEN],
    },
    /// A Version Negotiation packet, which takes the whole slice.
    VersionNegotiation {
        /// The receiver's connection ID, up to 255 bytes.
        dcid: &'a [u8],
        /// The sender's connection ID, up to 255 bytes.
        scid: &'a [u8],
        /// The versions that the server offers; at least one.
        versions: Versions<'a>,
    },
    /// A long header of a version that is not spoken here, for an answer with Version Negotiation.
    UnknownVersion {
        /// Its version.
        version: u32,
        /// The receiver's connection ID, up to 255 bytes.
        dcid: &'a [u8],
        /// The sender's connection ID, up to 255 bytes.
        scid: &'a [u8],
    },
    /// A 1-RTT packet, which takes the whole slice.
    Short {
        /// The receiver's connection ID.
        dcid: ConnectionId,
        /// Where the protected packet number starts.
        pn_offset: usize,
    },
}

impl<'a> Header<'a> {
    /// Reads the header at the start of `packet`, the rest of a datagram.
    ///
    /// `local_cid_len` is the length of the connection IDs that the receiver issued, at most 20;
    /// a short header does not say it.
    #[inline]
    pub fn parse(packet: &'a [u8], local_cid_len: usize) -> Result<Self, HeaderError> {
        match packet.first() {
            // Other versions may do without the bit (RFC 8999 §5.1), and Version Negotiation too.
            Some(first) if first & FIXED_BIT == 0 => {
                match Self::parse_greased(packet, local_cid_len)? {
                    Self::Long { .. } | Self::Retry { .. } | Self::Short { .. } => {
                        Err(HeaderError::FixedBit)
                    }
                    other => Ok(other),
                }
            }
            _ => Self::parse_greased(packet, local_cid_len),
        }
    }

    /// Like [`Header::parse`], for a receiver that declared grease_quic_bit: the fixed bit may have
    /// any value (RFC 9287 §3).
    #[inline]
    pub fn parse_greased(packet: &'a [u8], local_cid_len: usize) -> Result<Self, HeaderError> {
        let Some(&first) = packet.first() else {
            return Err(HeaderError::Truncated);
        };
        if first & FORM_LONG != 0 {
            return Self::parse_long(packet, first);
        }
        let pn_offset = 1 + local_cid_len;
        let dcid = packet.get(1..pn_offset).ok_or(HeaderError::Truncated)?;
        let dcid = ConnectionId::new(dcid).ok_or(HeaderError::ConnectionIdTooLong)?;
        Ok(Self::Short { dcid, pn_offset })
    }

    fn parse_long(packet: &'a [u8], first: u8) -> Result<Self, HeaderError> {
        let mut r = Reader::new(packet);
        r.u8()?;
        let version = r.u32()?;
        let dcid_len = r.u8()?;
        let dcid = r.bytes(usize::from(dcid_len))?;
        let scid_len = r.u8()?;
        let scid = r.bytes(usize::from(scid_len))?;
        match version {
            0 => Ok(Self::VersionNegotiation {
                dcid,
                scid,
                versions: Versions::parse(r.rest())?,
            }),
            VERSION_1 | VERSION_2 => Self::parse_known(r, version, first, dcid, scid),
            version => Ok(Self::UnknownVersion {
                version,
                dcid,
                scid,
            }),
        }
    }

    /// Keeps RFC 9000 §17.2.
    fn parse_known(
        mut r: Reader<'a>,
        version: u32,
        first: u8,
        dcid: &[u8],
        scid: &[u8],
    ) -> Result<Self, HeaderError> {
        let dcid = ConnectionId::new(dcid).ok_or(HeaderError::ConnectionIdTooLong)?;
        let scid = ConnectionId::new(scid).ok_or(HeaderError::ConnectionIdTooLong)?;
        let Some(ty) = type_of(first, version) else {
            let (token, &integrity_tag) = r
                .rest()
                .split_last_chunk::<RETRY_TAG_LEN>()
                .ok_or(HeaderError::Truncated)?;
            if token.is_empty() {
                return Err(HeaderError::NoRetryToken);
            }
            return Ok(Self::Retry {
                version,
                dcid,
                scid,
                token,
                integrity_tag,
            });
        };
        let token = match ty {
            LongType::Initial => {
                let len = r.varint()?;
                r.bytes_u64(len)?
            }
            LongType::ZeroRtt | LongType::Handshake => &[],
        };
        let length = r.varint()?;
        let pn_offset = r.position();
        r.bytes_u64(length)?;
        Ok(Self::Long {
            ty,
            version,
            dcid,
            scid,
            token,
            pn_offset,
            len: r.position(),
        })
    }
}

/// The destination connection ID of a datagram's first packet, by RFC 8999 alone: whatever the
/// version, up to 255 bytes. `None` when the datagram ends before it does.
///
/// This is for routing. `local_cid_len` is the length of the connection IDs that we issue.
#[inline]
pub fn dcid(datagram: &[u8], local_cid_len: usize) -> Option<&[u8]> {
    let (&first, rest) = datagram.split_first()?;
    if first & FORM_LONG == 0 {
        return rest.get(..local_cid_len);
    }
    let (&len, rest) = datagram.get(5..)?.split_first()?;
    rest.get(..usize::from(len))
}

/// The destination and the source connection ID of a long header, by RFC 8999 alone.
pub fn long_cids(datagram: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut r = Reader::new(datagram.get(5..)?);
    let dcid_len = r.u8().ok()?;
    let dcid = r.bytes(usize::from(dcid_len)).ok()?;
    let scid_len = r.u8().ok()?;
    Some((dcid, r.bytes(usize::from(scid_len)).ok()?))
}

/// The list of a Version Negotiation packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions<'a>(&'a [[u8; 4]]);

impl<'a> Versions<'a> {
    fn parse(list: &'a [u8]) -> Result<Self, HeaderError> {
        // RFC 8999 §6: an empty list and one with a truncated version are to be ignored.
        match list.as_chunks::<4>() {
            (versions @ [_, ..], []) => Ok(Self(versions)),
            _ => Err(HeaderError::VersionList),
        }
    }

    /// The versions in the order in which they were listed.
    pub fn iter(&self) -> impl Iterator<Item = u32> + 'a {
        self.0.iter().map(|v| u32::from_be_bytes(*v))
    }

    /// Whether `version` is listed.
    pub fn contains(&self, version: u32) -> bool {
        self.iter().any(|v| v == version)
    }
}

/// Where a long header's later-known fields are, as positions of the [`Writer`] that wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongOffsets {
    /// The first byte of the packet.
    pub start: usize,
    /// The two-byte Length field.
    pub length: usize,
    /// The packet number.
    pub packet_number: usize,
}

impl LongOffsets {
    /// Fills in the Length field of a packet that ends at position `end` (AEAD tag included). It
    /// has two bytes: packet number and payload together stay below 16,384.
    #[inline]
    pub fn patch_length(&self, w: &mut Writer<'_>, end: usize) {
        w.patch_varint2(self.length, end - self.packet_number);
    }
}

/// Bytes of a long header up to its packet number, with a two-byte Length field.
pub const fn long_size(ty: LongType, dcid: usize, scid: usize, token: usize) -> usize {
    let token_field = match ty {
        LongType::Initial => size(token as u64) + token,
        LongType::ZeroRtt | LongType::Handshake => 0,
    };
    1 + 4 + 1 + dcid + 1 + scid + token_field + 2
}

/// Appends the header of an Initial, 0-RTT or Handshake packet up to its packet number, which is
/// the caller's to append next in `pn_len` bytes (1 to 4).
///
/// `token` is used in an Initial packet only. The Length field is filled in by
/// [`LongOffsets::patch_length`] once the packet is complete.
pub fn write_long(
    w: &mut Writer<'_>,
    ty: LongType,
    version: u32,
    dcid: &ConnectionId,
    scid: &ConnectionId,
    token: &[u8],
    pn_len: usize,
) -> LongOffsets {
    let start = w.position();
    write_invariants(
        w,
        FORM_LONG | FIXED_BIT | ty.bits(version) | pn_len_bits(pn_len),
        version,
        dcid.as_slice(),
        scid.as_slice(),
    );
    if ty == LongType::Initial {
        w.varint(token.len() as u64);
        w.bytes(token);
    }
    let length = w.reserve_varint2();
    LongOffsets {
        start,
        length,
        packet_number: w.position(),
    }
}

/// Bytes of a short header up to its packet number.
#[inline]
pub const fn short_size(dcid: usize) -> usize {
    1 + dcid
}

/// Appends the header of a 1-RTT packet up to its packet number, which is the caller's to append
/// next in `pn_len` bytes (1 to 4). Returns the position of the packet number.
#[inline]
pub fn write_short(
    w: &mut Writer<'_>,
    dcid: &ConnectionId,
    spin: bool,
    key_phase: bool,
    pn_len: usize,
) -> usize {
    let spin = if spin { SPIN } else { 0 };
    let key_phase = if key_phase { KEY_PHASE } else { 0 };
    w.u8(FIXED_BIT | spin | key_phase | pn_len_bits(pn_len));
    w.bytes(dcid.as_slice());
    w.position()
}

/// Appends a Retry packet up to its integrity tag, which is the caller's to append: it is computed
/// over what this writes (RFC 9001 §5.8).
pub fn write_retry(
    w: &mut Writer<'_>,
    version: u32,
    dcid: &ConnectionId,
    scid: &ConnectionId,
    token: &[u8],
) {
    // The low four bits are unused and arbitrary (RFC 9000 §17.2.5); ones, as in RFC 9001 §A.4.
    let first = FORM_LONG | FIXED_BIT | type_bits(RETRY, version) | 0x0f;
    write_invariants(w, first, version, dcid.as_slice(), scid.as_slice());
    w.bytes(token);
}

/// Bytes of a Version Negotiation packet.
pub const fn version_negotiation_size(dcid: usize, scid: usize, versions: usize) -> usize {
    1 + 4 + 1 + dcid + 1 + scid + 4 * versions
}

/// Appends a Version Negotiation packet (RFC 9000 §17.2.1).
///
/// `dcid` and `scid` are the source and the destination connection ID of the packet that it
/// answers, at most 255 bytes each; `unused` is any byte, of which six bits are sent.
pub fn write_version_negotiation(
    w: &mut Writer<'_>,
    unused: u8,
    dcid: &[u8],
    scid: &[u8],
    versions: &[u32],
) {
    // §17.2.1 asks for 0x40 so that the packet looks like one with the fixed bit.
    let first = FORM_LONG | FIXED_BIT | (unused & 0x3f);
    write_invariants(w, first, 0, dcid, scid);
    for &version in versions {
        w.u32(version);
    }
}

const fn pn_len_bits(pn_len: usize) -> u8 {
    debug_assert!(pn_len >= 1 && pn_len <= 4);
    (pn_len as u8).wrapping_sub(1) & PN_LEN_MASK
}

fn write_invariants(w: &mut Writer<'_>, first: u8, version: u32, dcid: &[u8], scid: &[u8]) {
    debug_assert!(dcid.len() <= 255 && scid.len() <= 255);
    w.u8(first);
    w.u32(version);
    w.u8(dcid.len() as u8);
    w.bytes(dcid);
    w.u8(scid.len() as u8);
    w.bytes(scid);
}

#[cfg(test)]
mod tests;
