//! Packet numbers on the wire: 1 to 4 low-order bytes of a 62-bit number (RFC 9000 §17.1, §A.2,
//! §A.3).
//!
//! Spaces and what was received live in `recovery`; header protection lives in `crypto`.

use super::varint::{MAX, Writer};

/// Bytes in which to send packet number `pn`: 1 to 4.
///
/// `largest_acked` is the largest packet number of the space that the peer has acknowledged. The
/// result represents more than twice the distance to it, as RFC 9000 §17.1 requires.
#[inline]
pub const fn encode_len(pn: u64, largest_acked: Option<u64>) -> usize {
    let unacked = match largest_acked {
        Some(acked) => pn.saturating_sub(acked),
        None => pn.saturating_add(1),
    };
    match unacked {
        0..0x80 => 1,
        0x80..0x8000 => 2,
        0x8000..0x80_0000 => 3,
        _ => 4,
    }
}

/// Appends the low `len` bytes of `pn`; `len` is 1 to 4.
#[inline]
pub fn write(w: &mut Writer<'_>, pn: u64, len: usize) {
    debug_assert!(matches!(len, 1..=4), "a packet number takes 1 to 4 bytes");
    let pn = pn as u32;
    match len {
        1 => w.u8(pn as u8),
        2 => w.u16(pn as u16),
        3 => {
            w.u8((pn >> 16) as u8);
            w.u16(pn as u16);
        }
        _ => w.u32(pn),
    }
}

/// The packet number whose low `len` bytes are `truncated` and that is closest to
/// `expected_next`, which is one more than the largest packet number received in the space.
///
/// `len` is 1 to 4. The result is at most 2^62 − 1 when `expected_next` is.
#[inline]
pub const fn decode(truncated: u32, len: usize, expected_next: u64) -> u64 {
    debug_assert!(len >= 1 && len <= 4);
    let window = 1u64 << (8 * len as u32);
    let half = window / 2;
    let candidate = (expected_next & !(window - 1)) | (truncated as u64 & (window - 1));
    // RFC 9000 §A.3, with the sums arranged so that none of them underflows.
    if candidate + half <= expected_next && candidate < MAX + 1 - window {
        candidate + window
    } else if candidate > expected_next + half && candidate >= window {
        candidate - window
    } else {
        candidate
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_rfc_examples() {
        // RFC 9000 §A.2
        assert_eq!(encode_len(0xac5c02, Some(0xabe8b3)), 2);
        assert_eq!(encode_len(0xace8fe, Some(0xabe8b3)), 3);
        // RFC 9000 §A.3
        assert_eq!(decode(0x9b32, 2, 0xa82f30ea + 1), 0xa82f9b32);
        // RFC 9001 §A.2, §A.5: the packet numbers of its example packets.
        assert_eq!(decode(2, 4, 0), 2);
        assert_eq!(decode(0x00_bff4, 3, 654_360_564), 654_360_564);
    }

    #[test]
    fn lengths_change_where_twice_the_distance_no_longer_fits() {
        for (unacked, len) in [
            (1, 1),
            (0x7f, 1),
            (0x80, 2),
            (0x7fff, 2),
            (0x8000, 3),
            (0x7f_ffff, 3),
            (0x80_0000, 4),
        ] {
            assert_eq!(encode_len(1000 + unacked, Some(1000)), len, "{unacked:#x}");
            assert_eq!(encode_len(unacked - 1, None), len, "{unacked:#x}");
        }
    }

    #[test]
    fn the_ends_of_the_range_neither_wrap_nor_leave_it() {
        assert_eq!(decode(0xff, 1, 0), 0xff);
        assert_eq!(decode(0, 4, MAX), MAX + 1 - (1 << 32));
        assert_eq!(decode(0xffff_ffff, 4, MAX), MAX);
    }

    proptest! {
        #[test]
        fn what_a_sender_writes_its_peer_decodes(
            acked in 0..MAX - 0x8000_0000,
            ahead in 1u64..0x7fff_ffff,
            // The receiver has the acknowledged packet and at most everything sent.
            received in any::<prop::sample::Index>(),
        ) {
            let pn = acked + ahead;
            let len = encode_len(pn, Some(acked));
            let mut buf = [0; 4];
            let mut w = Writer::new(&mut buf);
            write(&mut w, pn, len);
            prop_assert_eq!(w.position(), len);
            let truncated = w.written().iter().fold(0, |v, &b| (v << 8) | u32::from(b));
            let expected_next = acked + 1 + received.index(ahead as usize) as u64;
            prop_assert_eq!(decode(truncated, len, expected_next), pn);
        }

        #[test]
        fn decoding_keeps_the_low_bytes_and_stays_in_range(
            truncated: u32,
            len in 1usize..=4,
            expected_next in 0..=MAX,
        ) {
            let pn = decode(truncated, len, expected_next);
            let mask = (1u64 << (8 * len)) - 1;
            prop_assert_eq!(pn & mask, u64::from(truncated) & mask);
            prop_assert!(pn <= MAX);
        }
    }
}
