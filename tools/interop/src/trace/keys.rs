//! Packet protection as a bystander with the key log computes it (RFC 9001 §5, RFC 9369 §3.3).

use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey, quic};
use ring::hkdf::{self, KeyType, Prk};
use std::collections::HashMap;

/// QUIC version 2 (RFC 9369).
pub const VERSION_2: u32 = 0x6b33_43cf;

const SALT_1: [u8; 20] = [
    0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad,
    0xcc, 0xbb, 0x7f, 0x0a,
];
const SALT_2: [u8; 20] = [
    0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb,
    0xf9, 0xbd, 0x2e, 0xd9,
];

/// A key log in the format of NSS: secrets by label and client random.
#[derive(Debug, Default)]
pub struct KeyLog(HashMap<(String, Vec<u8>), Vec<u8>>);

impl KeyLog {
    /// Takes the lines of a key log; others are passed over.
    pub fn read(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            if let (Some(label), Some(random), Some(secret)) = (
                words.next(),
                words.next().and_then(hex),
                words.next().and_then(hex),
            ) {
                self.0.insert((label.into(), random), secret);
            }
        }
    }

    pub(super) fn get(&self, label: &str, random: &[u8]) -> Option<&[u8]> {
        let found = self.0.get(&(label.to_owned(), random.to_vec()));
        found.map(Vec::as_slice)
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: &u8| (*b as char).to_digit(16).map(|d| d as u8);
    let digits: Vec<u8> = text.as_bytes().iter().map(digit).collect::<Option<_>>()?;
    Some(digits.chunks_exact(2).map(|p| p[0] << 4 | p[1]).collect())
}

/// A TLS 1.3 cipher suite.
#[derive(Clone, Copy)]
pub struct Suite {
    aead: &'static aead::Algorithm,
    header: &'static quic::Algorithm,
    hash: hkdf::Algorithm,
}

impl Suite {
    /// What protects Initial packets.
    pub fn initial() -> Self {
        Self {
            aead: &aead::AES_128_GCM,
            header: &quic::AES_128,
            hash: hkdf::HKDF_SHA256,
        }
    }

    /// The suite of a ServerHello.
    pub fn named(id: u16) -> Option<Self> {
        Some(match id {
            0x1301 => Self::initial(),
            0x1302 => Self {
                aead: &aead::AES_256_GCM,
                header: &quic::AES_256,
                hash: hkdf::HKDF_SHA384,
            },
            0x1303 => Self {
                aead: &aead::CHACHA20_POLY1305,
                header: &quic::CHACHA20,
                hash: hkdf::HKDF_SHA256,
            },
            _ => return None,
        })
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-Expand-Label with an empty context (RFC 8446 §7.1).
fn expand(prk: &Prk, label: &str, out: &mut [u8]) {
    let full = format!("tls13 {label}");
    let len = (out.len() as u16).to_be_bytes();
    let info = [&len[..], &[full.len() as u8], full.as_bytes(), &[0]];
    let done = prk
        .expand(&info, Length(out.len()))
        .and_then(|okm| okm.fill(out));
    debug_assert!(done.is_ok(), "lengths of keys are within HKDF's bound");
}

fn prefix(version: u32) -> &'static str {
    if version == VERSION_2 {
        "quicv2"
    } else {
        "quic"
    }
}

/// The keys of one direction at one level and generation.
pub struct Keys {
    secret: Vec<u8>,
    suite: Suite,
    version: u32,
    packet: LessSafeKey,
    iv: [u8; 12],
    header: quic::HeaderProtectionKey,
}

impl Keys {
    /// The client's and the server's Initial keys for the client's destination connection ID.
    pub fn initial(version: u32, dcid: &[u8]) -> [Option<Self>; 2] {
        let salt = if version == VERSION_2 { SALT_2 } else { SALT_1 };
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, &salt).extract(dcid);
        ["client in", "server in"].map(|label| {
            let mut secret = [0; 32];
            expand(&prk, label, &mut secret);
            Self::new(version, Suite::initial(), &secret)
        })
    }

    /// The keys of a traffic secret.
    pub fn new(version: u32, suite: Suite, secret: &[u8]) -> Option<Self> {
        let prk = Prk::new_less_safe(suite.hash, secret);
        let mut key = vec![0; suite.aead.key_len()];
        let mut hp = vec![0; suite.header.key_len()];
        let mut iv = [0; 12];
        let name = prefix(version);
        expand(&prk, &format!("{name} key"), &mut key);
        expand(&prk, &format!("{name} iv"), &mut iv);
        expand(&prk, &format!("{name} hp"), &mut hp);
        Some(Self {
            secret: secret.to_vec(),
            suite,
            version,
            packet: LessSafeKey::new(UnboundKey::new(suite.aead, &key).ok()?),
            iv,
            header: quic::HeaderProtectionKey::new(suite.header, &hp).ok()?,
        })
    }

    /// The keys after the next update; header protection stays (RFC 9001 §6.1).
    pub fn next(&self) -> Option<Self> {
        let prk = Prk::new_less_safe(self.suite.hash, &self.secret);
        let mut secret = vec![0; self.secret.len()];
        expand(&prk, &format!("{} ku", prefix(self.version)), &mut secret);
        Self::new(self.version, self.suite, &secret)
    }

    /// The mask of header protection for the packet whose number starts at `at`.
    pub fn mask(&self, packet: &[u8], at: usize) -> Option<[u8; 5]> {
        let sample = packet.get(at + 4..at + 4 + self.header.algorithm().sample_len())?;
        self.header.new_mask(sample).ok()
    }

    /// Decrypts a payload, if it is authentic.
    pub fn open(&self, pn: u64, header: &[u8], payload: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = self.iv;
        for (n, p) in nonce[4..].iter_mut().zip(pn.to_be_bytes()) {
            *n ^= p;
        }
        let mut data = payload.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let plain = self
            .packet
            .open_in_place(nonce, Aad::from(header), &mut data);
        let len = plain.ok()?.len();
        data.truncate(len);
        Some(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initial_keys_are_those_of_the_rfcs() {
        let dcid = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];
        // RFC 9001 appendix A.1, RFC 9369 appendix A.1.
        for (version, iv) in [
            (1, "fa044b2f42a3fd3b46fb255c"),
            (VERSION_2, "91f73e2351d8fa91660e909f"),
        ] {
            let [client, _] = Keys::initial(version, &dcid);
            assert_eq!(client.unwrap().iv.to_vec(), hex(iv).unwrap());
        }
    }

    #[test]
    fn a_key_log_is_read() {
        let mut log = KeyLog::default();
        log.read("# comment\nCLIENT_TRAFFIC_SECRET_0 00ff 0102\nbad line\n");
        let got = log.get("CLIENT_TRAFFIC_SECRET_0", &[0, 0xff]);
        assert_eq!(got, Some(&[1, 2][..]));
    }
}
