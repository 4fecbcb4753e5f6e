//! The Retry Integrity Tag (RFC 9001 §5.8).
//!
//! Its key is public: the tag shows that a Retry belongs to the Initial it answers and arrived
//! whole, not who sent it. Comparing it therefore needs no constant time.

use crate::wire::header::RETRY_TAG_LEN;
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use smallvec::SmallVec;
use std::sync::LazyLock;

const KEY: [u8; 16] = [
    0xbe, 0x0c, 0x69, 0x0b, 0x9f, 0x66, 0x57, 0x5a, 0x1d, 0x76, 0x6b, 0x54, 0xe3, 0x68, 0xc8, 0x4e,
];
const NONCE: [u8; 12] = [
    0x46, 0x15, 0x99, 0xd3, 0x5d, 0x63, 0x2b, 0xf2, 0x23, 0x98, 0x25, 0xbb,
];

// `None` cannot happen with a key of the right length; it makes every Retry invalid.
static AEAD: LazyLock<Option<LessSafeKey>> = LazyLock::new(|| {
    UnboundKey::new(&AES_128_GCM, &KEY)
        .ok()
        .map(LessSafeKey::new)
});

/// The tag of a Retry packet of version 1. `retry` is the packet without its tag, `odcid` the
/// Destination Connection ID of the Initial that it answers.
///
/// `None` when `odcid` is longer than its length byte can say.
pub fn integrity_tag(odcid: &[u8], retry: &[u8]) -> Option<[u8; RETRY_TAG_LEN]> {
    // The Retry pseudo-packet; those that we send fit inline.
    let mut pseudo_packet = SmallVec::<[u8; 256]>::new();
    pseudo_packet.push(u8::try_from(odcid.len()).ok()?);
    pseudo_packet.extend_from_slice(odcid);
    pseudo_packet.extend_from_slice(retry);
    let tag = AEAD
        .as_ref()?
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(NONCE),
            Aad::from(pseudo_packet.as_slice()),
            &mut [],
        )
        .ok()?;
    tag.as_ref().try_into().ok()
}

/// Whether a received Retry packet (with its tag) answers an Initial sent to `odcid`.
pub fn is_valid(odcid: &[u8], packet: &[u8]) -> bool {
    packet
        .split_last_chunk::<RETRY_TAG_LEN>()
        .is_some_and(|(retry, tag)| integrity_tag(odcid, retry).as_ref() == Some(tag))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::testing::hex;

    fn appendix_a4() -> (Vec<u8>, Vec<u8>) {
        (
            hex("8394c8f03e515708"),
            hex("ff000000010008f067a5502a4262b574 6f6b656e04a265ba2eff4d829058fb3f 0f2496ba"),
        )
    }

    #[test]
    fn rfc_9001_a4() {
        let (odcid, packet) = appendix_a4();
        let (retry, tag) = packet.split_at(packet.len() - RETRY_TAG_LEN);
        assert_eq!(integrity_tag(&odcid, retry).unwrap(), tag);
        assert!(is_valid(&odcid, &packet));
    }

    #[test]
    fn every_bit_and_every_length_counts() {
        let (odcid, packet) = appendix_a4();
        for bit in 0..packet.len() * 8 {
            let mut flipped = packet.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_valid(&odcid, &flipped), "bit {bit}");
        }
        for len in 0..packet.len() {
            assert!(!is_valid(&odcid, &packet[..len]), "{len} bytes");
        }
        assert!(!is_valid(&odcid[1..], &packet));
        assert!(!is_valid(&[0; 256], &packet));
    }
}
