//! What ring and aws-lc-rs cost: nanoseconds to seal a packet of 1,452 bytes in each way there is,
//! the copy of the payload into the packet included, and microseconds of a handshake's asymmetric
//! steps.
//!
//! `cargo bench --bench seal`

use corelane::sys::clock::Clock;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::quic::{PacketKey, Version};
use rustls::{CipherSuite, NamedGroup, Side, SignatureScheme};
use std::hint::black_box;
use std::time::Duration;

/// UDP payload, short header, tag.
const PACKET: usize = 1452;
const HEADER: usize = 13;
const TAG: usize = 16;
/// One packet's payload after the other is read out of so much memory, as a send buffer is.
const SOURCE: usize = 512 << 10;
/// And written to so much, as trains are.
const TRAINS: usize = 256 << 10;

const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(20);

/// The least time of a call over many rounds: what other programs took is left out.
fn measure(mut call: impl FnMut()) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..ROUNDS {
        let (begin, mut calls) = (Clock::now(), 0u32);
        while Clock::now() - begin < ROUND {
            for _ in 0..8 {
                call();
            }
            calls += 8;
        }
        least = least.min((Clock::now() - begin).as_nanos() as f64 / f64::from(calls));
    }
    least
}

/// Where each packet's payload comes from and where it goes.
struct Packets {
    source: Vec<u8>,
    trains: Vec<u8>,
    read: usize,
    write: usize,
    number: u64,
}

impl Packets {
    fn new() -> Self {
        Self {
            source: vec![0x5a; SOURCE],
            trains: vec![0; TRAINS],
            read: 0,
            write: 0,
            number: 0,
        }
    }

    /// The next packet's number, payload and place.
    fn next(&mut self) -> (u64, &[u8], &mut [u8]) {
        let len = PACKET - HEADER - TAG;
        self.read = if self.read + 2 * len > SOURCE {
            0
        } else {
            self.read + len
        };
        self.write = if self.write + 2 * PACKET > TRAINS {
            0
        } else {
            self.write + PACKET
        };
        self.number += 1;
        let payload = &self.source[self.read..self.read + len];
        (
            self.number,
            payload,
            &mut self.trains[self.write..self.write + PACKET],
        )
    }
}

fn ours(provider: &CryptoProvider) -> Box<dyn PacketKey> {
    let suite = provider
        .cipher_suites
        .iter()
        .find(|s| s.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256)
        .and_then(|s| s.tls13()?.quic_suite())
        .expect("AES-128-GCM");
    suite.keys(&[7; 8], Side::Client, Version::V1).local.packet
}

fn through_rustls(key: &dyn PacketKey) -> f64 {
    let mut packets = Packets::new();
    measure(|| {
        let (number, payload, packet) = packets.next();
        let (header, rest) = packet.split_at_mut(HEADER);
        let (text, tag) = rest.split_at_mut(payload.len());
        text.copy_from_slice(payload);
        let sealed = key.encrypt_in_place(number, header, text).expect("sealed");
        tag.copy_from_slice(sealed.as_ref());
    })
}

fn nonce(number: u64) -> [u8; 12] {
    let mut nonce = [0x33; 12];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    nonce
}

fn ring_directly() -> f64 {
    use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[7; 16]).expect("a key"));
    let mut packets = Packets::new();
    measure(|| {
        let (number, payload, packet) = packets.next();
        let (header, rest) = packet.split_at_mut(HEADER);
        let (text, tag) = rest.split_at_mut(payload.len());
        text.copy_from_slice(payload);
        let nonce = Nonce::assume_unique_for_key(nonce(number));
        let sealed = key.seal_in_place_separate_tag(nonce, Aad::from(header), text);
        tag.copy_from_slice(sealed.expect("sealed").as_ref());
    })
}

/// How the payload gets into the packet.
#[derive(Clone, Copy)]
enum Way {
    /// Before it is sealed in place.
    Before,
    /// Sealing is the copy.
    Fused,
    /// So it is for a stream's data; the header of its frame is in the packet already.
    FusedBehindFrame,
}

/// Bytes of a STREAM frame's header.
const FRAME: usize = 9;

fn aws_lc_directly(way: Way) -> f64 {
    use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[7; 16]).expect("a key"));
    let mut packets = Packets::new();
    measure(|| {
        let (number, payload, packet) = packets.next();
        let (header, rest) = packet.split_at_mut(HEADER);
        let nonce = Nonce::assume_unique_for_key(nonce(number));
        let aad = Aad::from(header);
        let sealed = match way {
            Way::Before => {
                let (text, tag) = rest.split_at_mut(payload.len());
                text.copy_from_slice(payload);
                key.seal_in_place_scatter(nonce, aad, text, &[], tag)
            }
            Way::Fused => {
                let (text, tag) = rest.split_at_mut(payload.len());
                key.seal_out_of_place_scatter(nonce, aad, payload, text, &[], tag)
            }
            Way::FusedBehindFrame => {
                let (frame, data) = rest.split_at_mut(FRAME);
                key.seal_in_place_scatter(nonce, aad, frame, &payload[FRAME..], data)
            }
        };
        sealed.expect("sealed");
    })
}

fn copy_alone() -> f64 {
    let mut packets = Packets::new();
    measure(|| {
        let (_, payload, packet) = packets.next();
        packet[HEADER..HEADER + payload.len()].copy_from_slice(payload);
        black_box(&packet);
    })
}

/// Microseconds of: P-256 signature, its verification, a key share, an agreement on X25519.
fn asymmetric(provider: &CryptoProvider) -> [f64; 4] {
    let made = rcgen::KeyPair::generate().expect("a P-256 key");
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.serialize_der()));
    let key = provider.key_provider.load_private_key(der).expect("loads");
    let scheme = SignatureScheme::ECDSA_NISTP256_SHA256;
    let signer = key.choose_scheme(&[scheme]).expect("a signer");
    let message = [0x64; 130];
    let signature = signer.sign(&message).expect("a signature");
    let sign = measure(|| {
        black_box(signer.sign(&message).expect("a signature"));
    });

    let all = provider.signature_verification_algorithms.mapping;
    let (_, verifiers) = all.iter().find(|(s, _)| *s == scheme).expect("P-256");
    let public = made.public_key_raw();
    let verify = measure(|| {
        let verified = verifiers[0].verify_signature(public, &message, &signature);
        verified.expect("a good signature");
    });

    let mut groups = provider.kx_groups.iter();
    let group = groups
        .find(|g| g.name() == NamedGroup::X25519)
        .expect("X25519");
    let peer = group.start().expect("a share");
    let share = measure(|| {
        black_box(group.start().expect("a share"));
    });
    let both = measure(|| {
        let mine = group.start().expect("a share");
        black_box(mine.complete(peer.pub_key()).expect("a secret"));
    });
    [sign, verify, share, both - share].map(|ns| ns / 1000.0)
}

fn main() {
    let ring = rustls::crypto::ring::default_provider();
    let aws = rustls::crypto::aws_lc_rs::default_provider();
    println!("AES-128-GCM, a packet of {PACKET} bytes, its copy included");
    for (name, ns) in [
        ("the copy alone", copy_alone()),
        ("ring, in place", ring_directly()),
        ("ring by rustls, in place", through_rustls(&*ours(&ring))),
        ("aws-lc, in place", aws_lc_directly(Way::Before)),
        ("aws-lc by rustls, in place", through_rustls(&*ours(&aws))),
        ("aws-lc, out of place", aws_lc_directly(Way::Fused)),
        (
            "aws-lc, the same behind a frame",
            aws_lc_directly(Way::FusedBehindFrame),
        ),
    ] {
        println!("  {name:<32} {ns:7.1} ns");
    }
    println!("                              P-256 sign  verify  X25519 share  agreement");
    for (name, provider) in [("ring", ring), ("aws-lc", aws)] {
        let [sign, verify, share, agree] = asymmetric(&provider);
        println!("  {name:<26} {sign:8.1} µs {verify:5.1} µs {share:10.1} µs {agree:7.1} µs");
    }
}
