//! Packets that end with a whole block of the cipher. Sealing and opening a last partial block
//! takes AES-GCM about a tenth of the time of a full packet, so the size of a datagram and the
//! length of its packet number are chosen to leave none.
//!
//! Both are free within RFC 9000: a datagram may be shorter than the path allows, and a packet
//! number longer than it must be (§17.1).

use crate::base::limits;
use crate::crypto::TAG_LEN;

/// A block of AES; of ChaCha20 it is a quarter.
const BLOCK: usize = 16;
/// The longest packet number (RFC 9000 §17.1).
const MAX_LEN: usize = 4;

/// The length of a packet number that takes at least `least` bytes, where `room` bytes are there
/// for it and for the payload.
#[inline]
pub(super) fn packet_number_len(least: usize, room: usize) -> usize {
    (least..=MAX_LEN)
        .find(|len| (room.wrapping_sub(*len)).is_multiple_of(BLOCK))
        .unwrap_or(least)
}

/// The largest size up to `mtu` with which a packet number of two to four bytes leaves whole
/// blocks, behind a header of `header_len` bytes without it. What RFC 9000 §14 asks of a datagram
/// with an address to prove stays: nothing becomes smaller than 1,200 bytes.
#[inline]
pub(super) fn datagram_size(mtu: usize, header_len: usize) -> usize {
    let over = match mtu.wrapping_sub(header_len + TAG_LEN) % BLOCK {
        2..=MAX_LEN => 0,
        few @ 0..2 => few + BLOCK - MAX_LEN,
        more => more - MAX_LEN,
    };
    match mtu.checked_sub(over) {
        Some(size) if size >= limits::MIN_UDP_PAYLOAD => size,
        _ => mtu,
    }
}

/// PADDING after so many bytes of payload that ends it with a whole block.
#[inline]
pub(super) const fn padding(payload: usize) -> usize {
    payload.wrapping_neg() % BLOCK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_leaves_whole_blocks_and_loses_little() {
        for mtu in limits::MIN_UDP_PAYLOAD + BLOCK..=9_000 {
            for header_len in 1..=1 + limits::MAX_CID_LEN {
                let size = datagram_size(mtu, header_len);
                assert!(size <= mtu && mtu - size < BLOCK - 2);
                for least in 1..=2 {
                    let room = size - header_len - TAG_LEN;
                    let len = packet_number_len(least, room);
                    assert!((least..=MAX_LEN).contains(&len));
                    assert_eq!((room - len) % BLOCK, 0, "{mtu} {header_len}");
                }
            }
        }
        // What Ethernet carries with IPv6, and connection IDs of eight bytes: nothing is lost.
        assert_eq!(datagram_size(1452, 9), 1452);
    }

    #[test]
    fn nothing_becomes_smaller_than_a_datagram_must_be() {
        for mtu in 0..limits::MIN_UDP_PAYLOAD + BLOCK {
            let size = datagram_size(mtu, 9);
            assert!(size <= mtu && size >= mtu.min(limits::MIN_UDP_PAYLOAD));
        }
    }

    #[test]
    fn a_packet_number_is_never_shorter_than_it_must_be() {
        for room in 0..100 {
            for least in 1..=MAX_LEN {
                assert!((least..=MAX_LEN).contains(&packet_number_len(least, room)));
            }
        }
    }
}
