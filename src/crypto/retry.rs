//! The Retry Integrity Tag (RFC 9001 §5.8, RFC 9369 §3.3.3).
//!
//! Its key is public: the tag shows that a Retry belongs to the Initial it answers and arrived
//! whole, not who sent it. Comparing it therefore needs no constant time.

use crate::wire::Version;
use crate::wire::header::RETRY_TAG_LEN;
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use smallvec::SmallVec;
use std::sync::LazyLock;

const KEY_1: [u8; 16] = [
    0xbe, 0x0c, 0x69, 0x0b, 0x9f, 0x66, 0x57, 0x5a, 0x1d, 0x76, 0x6b, 0x54, 0xe3, 0x68, 0xc8, 0x4e,
];
const NONCE_1: [u8; 12] = [
    0x46, 0x15, 0x99, 0xd3, 0x5d, 0x63, 0x2b, 0xf2, 0x23, 0x98, 0x25, 0xbb,
];
const KEY_2: [u8; 16] = [
    0x8f, 0xb4, 0xb0, 0x1b, 0x56, 0xac, 0x48, 0xe2, 0x60, 0xfb, 0xcb, 0xce, 0xad, 0x7c, 0xcc, 0x92,
];
const NONCE_2: [u8; 12] = [
    0xd8, 0x69, 0x69, 0xbc, 0x2d, 0x7c, 0x6d, 0x99, 0x90, 0xef, 0xb0, 0x4a,
];

// `None` cannot happen with a key of the right length; it makes every Retry invalid.
static AEADS: LazyLock<[Option<LessSafeKey>; 2]> = LazyLock::new(|| {
    [KEY_1, KEY_2].map(|key| {
        UnboundKey::new(&AES_128_GCM, &key)
            .ok()
            .map(LessSafeKey::new)
    })
});

/// The tag of a Retry packet of `version`. `retry` is the packet without its tag, `odcid` the
/// Destination Connection ID of the Initial that it answers.
///
/// `None` when `odcid` is longer than its length byte can say.
pub fn integrity_tag(version: Version, odcid: &[u8], retry: &[u8]) -> Option<[u8; RETRY_TAG_LEN]> {
    let [aead_1, aead_2] = &*AEADS;
    let (aead, nonce) = match version {
        Version::V1 => (aead_1, NONCE_1),
        Version::V2 => (aead_2, NONCE_2),
    };
    // The Retry pseudo-packet; those that we send fit inline.
    let mut pseudo_packet = SmallVec::<[u8; 256]>::new();
    pseudo_packet.push(u8::try_from(odcid.len()).ok()?);
    pseudo_packet.extend_from_slice(odcid);
    pseudo_packet.extend_from_slice(retry);
    let tag = aead
        .as_ref()?
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(pseudo_packet.as_slice()),
            &mut [],
        )
        .ok()?;
    tag.as_ref().try_into().ok()
}

/// Whether a received Retry packet (with its tag) answers an Initial of `version` sent to `odcid`.
pub fn is_valid(version: Version, odcid: &[u8], packet: &[u8]) -> bool {
    packet
        .split_last_chunk::<RETRY_TAG_LEN>()
        .is_some_and(|(retry, tag)| integrity_tag(version, odcid, retry).as_ref() == Some(tag))
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

    fn rfc_9369_a4() -> (Vec<u8>, Vec<u8>) {
        (
            hex("8394c8f03e515708"),
            hex("cf6b3343cf0008f067a5502a4262b574 6f6b656ec8646ce8bfe33952d9555436 65dcc7b6"),
        )
    }

    #[test]
    fn the_rfcs_retry_packets() {
        for (version, other, (odcid, packet)) in [
            (Version::V1, Version::V2, appendix_a4()),
            (Version::V2, Version::V1, rfc_9369_a4()),
        ] {
            let (retry, tag) = packet.split_at(packet.len() - RETRY_TAG_LEN);
            assert_eq!(integrity_tag(version, &odcid, retry).unwrap(), tag);
            assert!(is_valid(version, &odcid, &packet));
            assert!(!is_valid(other, &odcid, &packet));
        }
    }

    #[test]
    fn every_bit_and_every_length_counts() {
        for (version, (odcid, packet)) in
            [(Version::V1, appendix_a4()), (Version::V2, rfc_9369_a4())]
        {
            for bit in 0..packet.len() * 8 {
                let mut flipped = packet.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(!is_valid(version, &odcid, &flipped), "bit {bit}");
            }
            for len in 0..packet.len() {
                assert!(!is_valid(version, &odcid, &packet[..len]), "{len} bytes");
            }
            assert!(!is_valid(version, &odcid[1..], &packet));
            assert!(!is_valid(version, &[0; 256], &packet));
        }
    }
}
