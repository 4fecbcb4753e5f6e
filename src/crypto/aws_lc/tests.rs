//! Keys of our own against the nonce of the specification and the keys of other providers.

use super::*;
use crate::crypto::nonce::nonce;
use crate::crypto::testing::{Ca, End, handshake, hex, key, localhost, ring_provider};
use crate::crypto::{Key, OneRttKeys, SealError, Session, UsedKeys, open, seal, unprotect};
use rustls::crypto::ring::cipher_suite as rings;

const IV: [u8; 12] = [
    0x6b, 0x26, 0x11, 0x4b, 0x9c, 0xba, 0x2b, 0x63, 0xa9, 0xe8, 0xdd, 0x4f,
];
const HEADER: [u8; 6] = [0x43, 0xaa, 0, 0, 0xd4, 0x31];

fn ours(suite: CipherSuite) -> SupportedCipherSuite {
    let suites = provider().cipher_suites;
    *suites.iter().find(|s| s.suite() == suite).unwrap()
}

/// The suites whose keys have 32 bytes, ours and ring's.
fn suites() -> [(SupportedCipherSuite, SupportedCipherSuite); 2] {
    [
        rings::TLS13_CHACHA20_POLY1305_SHA256,
        rings::TLS13_AES_256_GCM_SHA384,
    ]
    .map(|ring| (ours(ring.suite()), ring))
}

fn text(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7) as u8).collect()
}

#[test]
fn every_path_has_the_nonces_of_the_specification() {
    let expected = hex("6b2611489cba2b63a9e8097e");
    assert_eq!(nonce(IV, 3, 54321).to_vec(), expected);
    for (ours, theirs) in suites() {
        let [ours, theirs] = [ours, theirs].map(|suite| key(suite, [7; 32], IV, [9; 32]));
        let direct = fused::of(&*ours.packet).expect("ours");
        for (path, pn) in [(0, 54321), (1, 0), (3, 54321), (u32::MAX, (1 << 62) - 1)] {
            let packet = [&HEADER[..], &text(40), &[0; TAG_LEN]].concat();
            let sealed = |key| {
                let mut packet = packet.clone();
                seal(key, path, pn, &mut packet, 2, 4).unwrap();
                packet
            };
            assert_eq!(sealed(&ours), sealed(&theirs));
            // The nonce itself, by the same AEAD and without rustls.
            let mut alone = packet.clone();
            let (header, payload) = alone.split_at_mut(6);
            let (head, end) = payload.split_at_mut(40);
            direct.seal(path, pn, header, head, &[], end).unwrap();
            let mut bare = alone.clone();
            let len = open(&*theirs.packet, path, pn, &mut alone, 6).unwrap();
            assert_eq!(alone[6..][..len], text(40));
            let len = open(&*ours.packet, path, pn, &mut bare, 6).unwrap();
            assert_eq!(bare[6..][..len], text(40));
        }
        let mut packet = [&HEADER[..], &text(40), &[0; TAG_LEN]].concat();
        let (header, payload) = packet.split_at_mut(6);
        let (head, end) = payload.split_at_mut(40);
        direct.seal(3, 54321, header, head, &[], end).unwrap();
        let wrong = open(&*ours.packet, 2, 54321, &mut packet, 6);
        assert!(wrong.is_err(), "another path's nonce");
    }
}

#[test]
fn a_tail_makes_the_same_packet_wherever_it_begins() {
    for (ours, theirs) in suites() {
        let [ours, theirs] = [ours, theirs].map(|suite| key(suite, [7; 32], IV, [9; 32]));
        let direct = fused::of(&*ours.packet).expect("ours");
        for len in [0, 1, 15, 16, 17, 255, 1424, 5000] {
            let text = text(len);
            let mut expected = [&HEADER[..], &text, &[0; TAG_LEN]].concat();
            let (header, payload) = expected.split_at_mut(6);
            let (body, tag) = payload.split_at_mut(len);
            let sealed = theirs.packet.encrypt_in_place_for_path(5, 9, header, body);
            tag.copy_from_slice(sealed.unwrap().as_ref());
            for cut in [0, 1, 2, 9, 15, 16, 32, len].map(|cut| cut.min(len)) {
                let room = vec![0xee; len - cut + TAG_LEN];
                let mut packet = [&HEADER[..], &text[..cut], &room].concat();
                let (header, payload) = packet.split_at_mut(6);
                let (head, end) = payload.split_at_mut(cut);
                direct.seal(5, 9, header, head, &text[cut..], end).unwrap();
                assert_eq!(packet, expected, "{len} bytes, {cut} in place");
            }
        }
        // A tail without its room is refused.
        let mut end = [0; TAG_LEN];
        let refused = direct.seal(0, 1, &HEADER, &mut [0; 8], &[1], &mut end);
        assert_eq!(refused, None);
    }
}

#[test]
fn limits_and_lengths_are_rustlss() {
    for own in theirs::ALL_CIPHER_SUITES {
        let Some(theirs) = own.tls13() else { continue };
        let ours = ours(own.suite());
        let ours = ours.tls13().unwrap();
        let keys = [ours, theirs].map(|suite| {
            let suite = suite.quic_suite().unwrap();
            suite
                .keys(&[7; 8], rustls::Side::Client, rustls::quic::Version::V1)
                .local
        });
        let limits = |i: usize| {
            let key: &dyn PacketKey = &*keys[i].packet;
            (
                key.confidentiality_limit(),
                key.integrity_limit(),
                key.tag_len(),
                keys[i].header.sample_len(),
            )
        };
        assert_eq!(limits(0), limits(1));
        assert!(fused::of(&*keys[0].packet).is_some());
        assert!(fused::of(&*keys[1].packet).is_none());
    }
    assert!(provider().cipher_suites.len() >= theirs::DEFAULT_CIPHER_SUITES.len());
}

#[test]
fn keys_are_the_same_in_both_forms_as_rustlss() {
    for own in theirs::ALL_CIPHER_SUITES {
        let keys = [ours(own.suite()), *own].map(|suite| {
            let suite = suite.tls13().unwrap().quic_suite().unwrap();
            let keys = suite.keys(&[7; 8], rustls::Side::Client, rustls::quic::Version::V1);
            Key::from(keys.local)
        });
        let [mut ours, theirs] = keys;
        let plain = [&HEADER[..], &text(40), &[0; TAG_LEN]].concat();
        let sealed = |key: &Key| {
            let mut packet = plain.clone();
            seal(key, 3, 54321, &mut packet, 2, 4).unwrap();
            packet
        };
        let expected = sealed(&theirs);
        for form in [Form::Ready, Form::Small, Form::Small, Form::Ready] {
            resting::packet(&mut ours.packet, form);
            resting::header(&mut ours.header, form);
            assert_eq!(fused::of(&*ours.packet).is_some(), form == Form::Ready);
            assert_eq!(sealed(&ours), expected, "{form:?}");
            let mut packet = expected.clone();
            let header = unprotect(&*ours.header, &mut packet, 2).unwrap();
            assert_eq!((header.pn, header.pn_len), (0xd431, 4));
            let len = open(&*ours.packet, 3, 54321, &mut packet, 6).unwrap();
            assert_eq!(packet[6..][..len], text(40));
            let mut pn = [0; 5];
            let long = ours.header.encrypt_in_place(&[0; 16], &mut 0x43, &mut pn);
            let short = ours
                .header
                .decrypt_in_place(&[0; 15], &mut 0x43, &mut pn[..4]);
            assert!(long.is_err() && short.is_err());
        }
        // Keys with one form only.
        let mut theirs = theirs;
        resting::packet(&mut theirs.packet, Form::Small);
        resting::header(&mut theirs.header, Form::Small);
        assert_eq!(sealed(&theirs), expected);
    }
}

#[test]
fn keys_wake_with_the_first_packet_of_either_direction() {
    let [mut ours, mut ring] = pair(provider());
    ours.rest();
    ring.rest();
    assert!(!ours.takes_tail());
    let bit = ours.begin_packet().unwrap();
    assert!(
        bit == 0 && ours.takes_tail(),
        "awake before the packet is built"
    );
    let packet = sealed(&mut ours, 0, &text(300)).unwrap();
    assert_eq!(opened(&mut ring, packet).1, UsedKeys::Current);
    ours.rest();
    let packet = sealed(&mut ring, 0, &[]).unwrap();
    assert_eq!(opened(&mut ours, packet).1, UsedKeys::Current);
    assert!(ours.takes_tail());
    // An update of our own, straight from rest.
    ours.on_ack(0, 0, UsedKeys::Current).unwrap();
    ours.on_handshake_confirmed();
    ours.rest();
    ours.initiate_update().unwrap();
    assert!(ours.takes_tail());
    let packet = sealed(&mut ours, 1, &text(9)).unwrap();
    assert_eq!(opened(&mut ring, packet).1, UsedKeys::New);
}

/// The 1-RTT keys of a client with `provider` and of a server with ring.
fn pair(provider: CryptoProvider) -> [OneRttKeys; 2] {
    let ca = Ca::new();
    let client = Arc::new(ca.client_with(provider));
    let server = Arc::new(ca.server(|_| {}));
    let mut client = End::new(Session::client(client, localhost(), Vec::new()).unwrap());
    let mut server = End::new(Session::server(server, Vec::new()).unwrap());
    handshake(&mut client, &mut server).unwrap();
    [client, server].map(|end| {
        let (keys, next) = end.one_rtt.unwrap();
        OneRttKeys::new(keys, next)
    })
}

fn sealed(keys: &mut OneRttKeys, pn: u8, tail: &[u8]) -> Result<Vec<u8>, SealError> {
    let bit = keys.begin_packet().unwrap();
    let mut packet = vec![0x43 | bit, 0xaa, 0, 0, 0, pn, 0x0a, 0x01];
    packet.extend(vec![0; tail.len() + TAG_LEN]);
    keys.seal_with_tail(0, pn.into(), &mut packet, (2, 4), tail)
        .map(|()| packet)
}

fn opened(keys: &mut OneRttKeys, mut packet: Vec<u8>) -> (Vec<u8>, UsedKeys) {
    let header = unprotect(keys.header_key(), &mut packet, 2).unwrap();
    let pn = header.pn.into();
    let opened = keys.open(0, pn, None, &mut packet, 6).unwrap();
    (packet[6..][..opened.len].to_vec(), opened.keys)
}

#[test]
fn tails_open_at_a_peer_before_and_after_a_key_update() {
    let [mut ours, mut ring] = pair(provider());
    assert!(ours.takes_tail() && !ring.takes_tail());
    let expected = [&[0x0a, 0x01][..], &text(700)].concat();
    for (pn, keys) in [(0, UsedKeys::Current), (1, UsedKeys::New)] {
        let packet = sealed(&mut ours, pn, &text(700)).unwrap();
        assert_eq!(opened(&mut ring, packet), (expected.clone(), keys));
        ours.on_ack(0, pn.into(), UsedKeys::Current).unwrap();
        ours.on_handshake_confirmed();
        if pn == 0 {
            ours.initiate_update().unwrap();
            assert!(ours.takes_tail());
        }
    }
}

#[test]
fn keys_that_seal_in_place_take_a_whole_packet_and_no_tail() {
    let [mut ring, mut server] = pair(ring_provider());
    let tail = text(20);
    assert_eq!(sealed(&mut ring, 0, &tail), Err(SealError::Refused));
    let packet = sealed(&mut ring, 1, &[]).unwrap();
    assert_eq!(opened(&mut server, packet).0, [0x0a, 0x01]);
}

#[test]
fn the_confidentiality_limit_holds_for_tails() {
    let ca = Ca::new();
    let mut client = End::new({
        let config = Arc::new(ca.client_with(provider()));
        Session::client(config, localhost(), Vec::new()).unwrap()
    });
    let server = Arc::new(ca.server(|_| {}));
    let mut server = End::new(Session::server(server, Vec::new()).unwrap());
    handshake(&mut client, &mut server).unwrap();
    let (keys, next) = client.one_rtt.unwrap();
    let limits = crate::crypto::AeadLimits {
        confidentiality: 2,
        integrity: u64::MAX,
    };
    let mut keys = OneRttKeys::with_limits(keys, next, limits);
    let mut packet = [&HEADER[..], &[0; 20 + TAG_LEN]].concat();
    let mut seal = |pn| keys.seal_with_tail(0, pn, &mut packet, (2, 4), &text(20));
    assert_eq!([seal(0), seal(1)], [Ok(()); 2]);
    assert_eq!(seal(2), Err(SealError::LimitReached));
}
