//! The nonce, by the multipath text's vector and against the provider.

use super::*;
use crate::crypto::testing::{hex, key};
use crate::crypto::{open, seal};
use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustls::SupportedCipherSuite;
use rustls::crypto::ring::cipher_suite;

const IV: [u8; 12] = [
    0x6b, 0x26, 0x11, 0x4b, 0x9c, 0xba, 0x2b, 0x63, 0xa9, 0xe8, 0xdd, 0x4f,
];

#[test]
fn the_multipath_drafts_example() {
    assert_eq!(
        nonce(IV, 3, 54321).to_vec(),
        hex("6b2611489cba2b63a9e8097e")
    );
}

#[test]
fn path_zero_is_rfc_9001() {
    // RFC 9001 §A.5.
    let iv = hex("e0459b3474bdd0e44a41c144").try_into().unwrap();
    assert_eq!(
        nonce(iv, 0, 654_360_564).to_vec(),
        hex("e0459b3474bdd0e46d417eb0")
    );
}

#[test]
fn no_two_packets_share_a_nonce() {
    let mut seen = std::collections::HashSet::new();
    for path in [0, 1, 2, 255, 256, u32::MAX] {
        for pn in [0, 1, 2, 255, 1 << 32, (1 << 62) - 1] {
            assert!(seen.insert(nonce(IV, path, pn)), "path {path} packet {pn}");
        }
    }
}

/// What the provider seals for a path, ring opens under this nonce, and the other way round.
#[test]
fn the_provider_computes_the_same() {
    same_as_ring([
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
    ]);
}

/// The other provider too.
#[cfg(feature = "aws-lc-rs")]
#[test]
fn aws_lc_rs_computes_the_same() {
    use rustls::crypto::aws_lc_rs::cipher_suite;
    same_as_ring([
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
    ]);
}

fn same_as_ring([chacha, aes]: [SupportedCipherSuite; 2]) {
    for (suite, algorithm) in [(chacha, &CHACHA20_POLY1305), (aes, &AES_256_GCM)] {
        let key = key(suite, [7; 32], IV, [9; 32]);
        let ring = LessSafeKey::new(UnboundKey::new(algorithm, &[7; 32]).unwrap());
        for (path, pn) in [(0, 54321), (1, 0), (3, 54321), (u32::MAX, (1 << 62) - 1)] {
            let nonce = || Nonce::assume_unique_for_key(nonce(IV, path, pn));
            let plain = b"\x43\xaa\x00\x00\xd4\x31payload of the packet".to_vec();
            let (header, payload) = plain.split_at(6);

            let mut packet = plain.clone();
            packet.extend_from_slice(&[0; 16]);
            seal(&key, path, pn, &mut packet, 2, 4).unwrap();
            let opened = ring.open_in_place(nonce(), Aad::from(header), &mut packet[6..]);
            assert_eq!(opened.unwrap(), payload);

            let mut sealed = payload.to_vec();
            ring.seal_in_place_append_tag(nonce(), Aad::from(header), &mut sealed)
                .unwrap();
            let mut packet = [header, &sealed].concat();
            let len = open(key.packet.as_ref(), path, pn, &mut packet, 6).unwrap();
            assert_eq!(packet[6..][..len], *payload);
        }
    }
}

#[test]
#[should_panic(expected = "path 3: packet 7 after 7")]
fn a_packet_number_that_comes_back_is_told() {
    let mut guard = NonceGuard::default();
    for (path, pn) in [(0, 7), (3, 7), (0, 8), (3, 7)] {
        guard.on_seal(path, pn);
    }
}
