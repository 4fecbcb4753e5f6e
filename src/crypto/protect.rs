//! Packet protection and header protection of one packet, in place (RFC 9001 §5.3, §5.4).
//!
//! Nothing here allocates, and every length is checked: a packet too short to be what its header
//! claims is refused, never read past. Which key applies is the caller's decision; of `path_id` it
//! only matters that 0 is the nonce of RFC 9001 and any other the one of multipath QUIC.

use super::fused::Fused;
use super::keys::Key;
use rustls::quic::{HeaderProtectionKey, PacketKey};

/// Bytes of the authentication tag; the same in every AEAD that QUIC may use (RFC 9001 §5.3).
pub const TAG_LEN: usize = 16;
/// Bytes of ciphertext that header protection samples (RFC 9001 §5.4.2).
pub const SAMPLE_LEN: usize = 16;
/// The sample starts where the payload would if the packet number had its full length.
const PN_MAX_LEN: usize = 4;

/// Why a packet could not be sealed. Each one is a fault of the caller, not of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// There is no room for the tag, or nothing to sample: payload and packet number take fewer
    /// than four bytes together (RFC 9001 §5.4.2 asks to pad).
    #[error("a packet to protect is too short for its tag and the header protection sample")]
    TooShort,
    /// The provider cannot encrypt this: too long, or no nonce for a path other than 0.
    #[error("the crypto provider refused to seal a packet")]
    Refused,
    /// The key has sealed as many packets as its confidentiality limit permits (RFC 9001 §6.6).
    #[error("the packet protection key has reached its confidentiality limit")]
    LimitReached,
}

/// The packet does not authenticate under this key; it is dropped and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the packet does not authenticate")]
pub struct Undecryptable;

/// What header protection had hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unprotected {
    /// The first byte, unmasked. Its reserved bits mean something only once the packet is opened.
    pub first: u8,
    /// The truncated packet number.
    pub pn: u32,
    /// Bytes of the packet number, 1 to 4; the payload starts that far behind `pn_offset`.
    pub pn_len: usize,
}

/// Seals `packet` in place, payload first, then the header.
///
/// `packet` is exactly one packet: the header with its packet number of `pn_len` bytes at
/// `pn_offset`, the payload, and [`TAG_LEN`] bytes of room at the end.
///
/// # Errors
/// [`SealError`]; the packet's content is then of no use.
#[inline]
pub fn seal(
    key: &Key,
    path_id: u32,
    pn: u64,
    packet: &mut [u8],
    pn_offset: usize,
    pn_len: usize,
) -> Result<(), SealError> {
    debug_assert_eq!(
        packet.first().map(|first| usize::from(first & 0x03) + 1),
        Some(pn_len),
        "the first byte states the packet number's length"
    );
    let (header, rest) = packet
        .split_at_mut_checked(pn_offset.saturating_add(pn_len))
        .ok_or(SealError::TooShort)?;
    let (payload, tag) = rest
        .split_last_chunk_mut::<TAG_LEN>()
        .ok_or(SealError::TooShort)?;
    let sealed = if path_id == 0 {
        key.packet.encrypt_in_place(pn, header, payload)
    } else {
        key.packet
            .encrypt_in_place_for_path(path_id, pn, header, payload)
    };
    tag.copy_from_slice(sealed.map_err(|_| SealError::Refused)?.as_ref());
    protect_header(&*key.header, packet, pn_offset, pn_len)
}

/// Like [`seal`], but the last bytes of the payload are `tail`, and only their room is in `packet`.
///
/// # Errors
/// [`SealError`]; the packet's content is then of no use.
#[inline]
pub(super) fn seal_with_tail(
    key: &dyn Fused,
    header_key: &dyn HeaderProtectionKey,
    (path_id, pn): (u32, u64),
    packet: &mut [u8],
    (pn_offset, pn_len): (usize, usize),
    tail: &[u8],
) -> Result<(), SealError> {
    let (header, payload) = packet
        .split_at_mut_checked(pn_offset.saturating_add(pn_len))
        .ok_or(SealError::TooShort)?;
    let (head, end) = payload
        .len()
        .checked_sub(tail.len().saturating_add(TAG_LEN))
        .and_then(|at| payload.split_at_mut_checked(at))
        .ok_or(SealError::TooShort)?;
    key.seal(path_id, pn, header, head, tail, end)
        .ok_or(SealError::Refused)?;
    protect_header(header_key, packet, pn_offset, pn_len)
}

#[inline]
fn protect_header(
    key: &dyn HeaderProtectionKey,
    packet: &mut [u8],
    pn_offset: usize,
    pn_len: usize,
) -> Result<(), SealError> {
    let (first, pn_field, sample) =
        header_protection_parts(packet, pn_offset).ok_or(SealError::TooShort)?;
    let pn_field = pn_field.get_mut(..pn_len).ok_or(SealError::TooShort)?;
    key.encrypt_in_place(sample, first, pn_field)
        .map_err(|_| SealError::Refused)
}

/// Removes header protection in place; `None` when the packet has no room for a sample
/// (RFC 9001 §5.4.2).
///
/// Nothing is authenticated yet: judge the result only after [`open`] (RFC 9001 §5.4, §9.5).
#[inline]
pub fn unprotect(
    key: &dyn HeaderProtectionKey,
    packet: &mut [u8],
    pn_offset: usize,
) -> Option<Unprotected> {
    let (first, pn_field, sample) = header_protection_parts(packet, pn_offset)?;
    key.decrypt_in_place(sample, first, pn_field).ok()?;
    let pn_len = usize::from(*first & 0x03) + 1;
    // Only `pn_len` bytes were unmasked; what follows them is payload and is shifted out.
    let pn = u32::from_be_bytes(*pn_field) >> (8 * (PN_MAX_LEN - pn_len));
    Some(Unprotected {
        first: *first,
        pn,
        pn_len,
    })
}

/// Opens `packet` in place and returns the plaintext's length; it starts at `header_len`.
///
/// `pn` is the whole packet number; the header must already be unprotected.
///
/// # Errors
/// [`Undecryptable`] when it does not authenticate; the payload is then destroyed.
#[inline]
pub fn open(
    key: &dyn PacketKey,
    path_id: u32,
    pn: u64,
    packet: &mut [u8],
    header_len: usize,
) -> Result<usize, Undecryptable> {
    let (header, payload) = packet
        .split_at_mut_checked(header_len)
        .ok_or(Undecryptable)?;
    let opened = if path_id == 0 {
        key.decrypt_in_place(pn, header, payload)
    } else {
        key.decrypt_in_place_for_path(path_id, pn, header, payload)
    };
    match opened {
        Ok(plaintext) => Ok(plaintext.len()),
        Err(_) => Err(Undecryptable),
    }
}

/// The first byte, the four bytes where the packet number may be, and the sample behind them.
#[inline]
fn header_protection_parts(
    packet: &mut [u8],
    pn_offset: usize,
) -> Option<(&mut u8, &mut [u8; PN_MAX_LEN], &[u8; SAMPLE_LEN])> {
    let (first, rest) = packet.split_first_mut()?;
    let rest = rest.get_mut(pn_offset.checked_sub(1)?..)?;
    let (pn_field, rest) = rest.split_first_chunk_mut::<PN_MAX_LEN>()?;
    Some((first, pn_field, rest.first_chunk::<SAMPLE_LEN>()?))
}

#[cfg(test)]
mod tests;
