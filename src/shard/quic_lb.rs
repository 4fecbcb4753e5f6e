//! Connection IDs that a QUIC-LB load balancer can route (QUIC-LB §4): the server's number and a
//! nonce, encrypted under a key that the balancers know.
//!
//! ID = first octet (3 bits of config rotation, 5 of length or noise) ‖ server ID ‖ nonce. With a
//! key, the nonces of all clones count up from one random start and never repeat; once they are
//! used up, IDs are issued unroutable (QUIC-LB §3.1) rather than twice. The shard's byte behind all
//! this is [`super::steer`]'s.

use crate::base::Rng;
use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Server ID and nonce together are at most this long, and at least 5 bytes.
pub const MAX_PLAINTEXT: usize = 19;
/// Bytes of a nonce, at least.
pub const MIN_NONCE: usize = 4;
/// The first octet's rotation bits of an ID that no balancer shall route.
const UNROUTABLE: u8 = 0b111;
/// The length at which the whole plaintext is one block of the cipher.
const ONE_BLOCK: usize = 16;

/// What a configuration agent gives to a server.
#[derive(Clone, PartialEq, Eq)]
pub struct QuicLbConfig {
    /// Config rotation, 0 to 6.
    pub config_id: u8,
    /// This server's ID, in network order.
    pub server_id: Vec<u8>,
    /// Bytes of the nonce.
    pub nonce_len: usize,
    /// The key; without one the server ID is readable by anyone on the path.
    pub key: Option<[u8; 16]>,
    /// Whether the first octet tells the length of the rest, the shard's byte included.
    pub encode_length: bool,
}

impl fmt::Debug for QuicLbConfig {
    // Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicLbConfig")
            .field("config_id", &self.config_id)
            .field("server_id", &self.server_id)
            .field("nonce_len", &self.nonce_len)
            .field("keyed", &self.key.is_some())
            .finish_non_exhaustive()
    }
}

impl QuicLbConfig {
    /// What an AWS network load balancer routes by: config 0, 8 bytes of server ID and 10 of nonce,
    /// in the clear. `server_id` is what the target's registration shows, `0x` and 16 hexadecimal
    /// digits, or what the controller for Kubernetes puts into `AWS_LBC_QUIC_SERVER_ID`, the same
    /// in base64.
    ///
    /// # Errors
    /// [`QuicLbError::Unreadable`].
    pub fn nlb(server_id: &str) -> Result<Self, QuicLbError> {
        let server_id = server_id.trim();
        let bytes = match server_id.strip_prefix("0x") {
            Some(digits) => from_hex(digits),
            None => from_base64(server_id),
        };
        Ok(Self {
            config_id: 0,
            server_id: bytes
                .filter(|bytes| bytes.len() == 8)
                .ok_or(QuicLbError::Unreadable)?,
            nonce_len: 10,
            key: None,
            encode_length: false,
        })
    }
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let digit = |c: &u8| char::from(*c).to_digit(16);
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some((digit(high)? << 4 | digit(low)?) as u8),
        _ => None,
    };
    digits.as_bytes().chunks(2).map(pair).collect()
}

/// RFC 4648 §4, with or without padding.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let (mut bits, mut held) = (0u32, 0);
    for c in text.trim_end_matches('=').bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    Some(out)
}

/// Why a configuration is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuicLbError {
    /// The rotation bits are out of range.
    #[error("a QUIC-LB configuration's ID is 0 to 6, not {0}")]
    ConfigId(u8),
    /// The server ID is not readable.
    #[error(
        "a server ID of an AWS load balancer is `0x` and 16 hexadecimal digits, or 8 bytes in \
         base64"
    )]
    Unreadable,
    /// There is no server ID.
    #[error("a QUIC-LB server ID has at least one byte")]
    NoServerId,
    /// The nonce is too short.
    #[error("a QUIC-LB nonce has at least 4 bytes, not {0}")]
    Nonce(usize),
    /// Server ID and nonce are too long together.
    #[error("a QUIC-LB server ID and nonce, with the shard's byte, have at most 18 bytes, not {0}")]
    TooLong(usize),
}

struct Shared {
    config: QuicLbConfig,
    cipher: Option<Aes128>,
    /// Where the nonces begin.
    start: [u8; ONE_BLOCK],
    /// Nonces used.
    used: AtomicU64,
}

/// Encodes one server's IDs. Clones share the nonces, so that no two of them use the same.
#[derive(Clone)]
pub struct QuicLb(Arc<Shared>);

impl fmt::Debug for QuicLb {
    // Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicLb")
            .field("config_id", &self.0.config.config_id)
            .field("server_id", &self.0.config.server_id)
            .field("nonce_len", &self.0.config.nonce_len)
            .field("keyed", &self.0.cipher.is_some())
            .finish_non_exhaustive()
    }
}

impl QuicLb {
    /// An encoder; the nonces of a keyed configuration begin at random.
    pub fn new(config: QuicLbConfig, rng: &mut Rng) -> Result<Self, QuicLbError> {
        if config.config_id >= UNROUTABLE {
            return Err(QuicLbError::ConfigId(config.config_id));
        }
        if config.server_id.is_empty() {
            return Err(QuicLbError::NoServerId);
        }
        if config.nonce_len < MIN_NONCE {
            return Err(QuicLbError::Nonce(config.nonce_len));
        }
        // The shard's byte takes the last of the 20 that version 1 allows.
        let plaintext = config.server_id.len().saturating_add(config.nonce_len);
        if plaintext > MAX_PLAINTEXT - 1 {
            return Err(QuicLbError::TooLong(plaintext));
        }
        let cipher = config.key.map(|key| Aes128::new(&key.into()));
        Ok(Self(Arc::new(Shared {
            config,
            cipher,
            start: rng.array(),
            used: AtomicU64::new(0),
        })))
    }

    /// Bytes of an ID without the shard's byte.
    pub fn len(&self) -> usize {
        1 + self.0.config.server_id.len() + self.0.config.nonce_len
    }

    /// Never: an ID has at least six bytes.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Writes a new ID into `out`, which is [`len`](Self::len) bytes long and holds random bytes.
    pub(super) fn encode(&self, rng: &mut Rng, out: &mut [u8]) {
        let config = &self.0.config;
        let (random, length) = (rng.next_u64() as u8, out.len() as u8);
        let Some((first, plaintext)) = out.split_first_mut() else {
            return;
        };
        let low = |tell: bool| if tell { length } else { random } & 0x1f;
        let Some((server, nonce)) = plaintext.split_at_mut_checked(config.server_id.len()) else {
            return;
        };
        match &self.0.cipher {
            // Random nonces have no relation to each other (QUIC-LB §4.3).
            None => server.copy_from_slice(&config.server_id),
            Some(cipher) if self.next_nonce(nonce) => {
                server.copy_from_slice(&config.server_id);
                encrypt(cipher, plaintext);
            }
            Some(_) => {
                // Random bytes behind the mark; such an ID tells its length (QUIC-LB §3.1).
                *first = UNROUTABLE << 5 | low(true);
                return;
            }
        }
        *first = config.config_id << 5 | low(config.encode_length);
    }

    /// The next of the nonces; false when all have been used.
    fn next_nonce(&self, nonce: &mut [u8]) -> bool {
        let used = self.0.used.fetch_add(1, Ordering::Relaxed);
        if nonce.len() < 8 && used >> (8 * nonce.len()) != 0 {
            // Stays used up: one step back for the one just taken.
            self.0.used.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        let count = u128::from_be_bytes(self.0.start).wrapping_add(u128::from(used));
        let from = count.to_be_bytes();
        // The low bytes of the count; a nonce of more than 16 has zeroes in front.
        nonce.fill(0);
        for (to, byte) in nonce.iter_mut().rev().zip(from.iter().rev()) {
            *to = *byte;
        }
        true
    }
}

/// Encrypts server ID and nonce in place: one block where they are that long (QUIC-LB §4.3.1),
/// otherwise four passes of a Feistel network (QUIC-LB §4.3.2).
fn encrypt(cipher: &Aes128, plaintext: &mut [u8]) {
    if let Ok(block) = <&mut [u8; ONE_BLOCK]>::try_from(&mut *plaintext) {
        cipher.encrypt_block(block.into());
        return;
    }
    let len = plaintext.len();
    let half = len.div_ceil(2);
    let odd = len % 2 == 1;
    // Halves of an odd length share the middle byte: its high bits left, its low bits right.
    let mut left = [0; ONE_BLOCK];
    let mut right = [0; ONE_BLOCK];
    left[..half].copy_from_slice(&plaintext[..half]);
    right[..half].copy_from_slice(&plaintext[len - half..]);
    let clear = |left: &mut [u8; ONE_BLOCK], right: &mut [u8; ONE_BLOCK]| {
        if odd {
            left[half - 1] &= 0xf0;
            right[0] &= 0x0f;
        }
    };
    clear(&mut left, &mut right);
    for pass in 1..=4u8 {
        let (from, to) = match pass % 2 {
            1 => (&left, &mut right),
            _ => (&right, &mut left),
        };
        let mut block = [0; ONE_BLOCK];
        block[..half].copy_from_slice(&from[..half]);
        block[14] = len as u8;
        block[15] = pass;
        cipher.encrypt_block((&mut block).into());
        for (to, byte) in to.iter_mut().zip(block.iter().take(half)) {
            *to ^= byte;
        }
        clear(&mut left, &mut right);
    }
    plaintext[..half].copy_from_slice(&left[..half]);
    if odd {
        plaintext[half - 1] |= right[0];
        plaintext[half..].copy_from_slice(&right[1..half]);
    } else {
        plaintext[half..].copy_from_slice(&right[..half]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn hex(s: &str) -> Vec<u8> {
        let digits: Vec<u8> = s
            .chars()
            .filter_map(|c| c.to_digit(16))
            .map(|d| d as u8)
            .collect();
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()
    }

    fn cipher(key: &str) -> Aes128 {
        let key: [u8; 16] = hex(key).try_into().unwrap();
        Aes128::new(&key.into())
    }

    /// QUIC-LB, appendix "Encrypted CIDs" and the example of §4.3.2, without the first octet.
    #[test]
    fn the_drafts_ciphertexts() {
        let key = "8f95f09245765f80256934e50c66207f";
        let vectors = [
            (key, "ed793aee080dbf", "20b1d07b359d3c"),
            (
                key,
                "ed793a51d49b8f5fab65ee080dbf48",
                "cc381bc74cb4fbad2823a3d1f8fed2",
            ),
            (
                key,
                "ed793a51d49b8f5fee080dbf48c0d1e5",
                "4dd2d05a7b0de9b2b9907afb5ecf8cc3",
            ),
            (
                key,
                "ed793a51d49b8f5fabee080dbf48c0d1e55d",
                "5779c9cc86beb3a3a4a3ca96fce4bfe0cdbc",
            ),
            (
                "fdf726a9893ec05c0632d3956680baf0",
                "31441a9c69c275",
                "67947d29be054a",
            ),
        ];
        for (key, plaintext, ciphertext) in vectors {
            let mut bytes = hex(plaintext);
            encrypt(&cipher(key), &mut bytes);
            assert_eq!(bytes, hex(ciphertext), "{plaintext}");
        }
    }

    fn config(nonce_len: usize) -> QuicLbConfig {
        QuicLbConfig {
            config_id: 2,
            server_id: hex("ed793a51"),
            nonce_len,
            key: Some([7; 16]),
            encode_length: true,
        }
    }

    fn encode(lb: &QuicLb, rng: &mut Rng) -> Vec<u8> {
        let mut out = vec![0; lb.len()];
        rng.fill(&mut out);
        lb.encode(rng, &mut out);
        out
    }

    #[test]
    fn clones_never_repeat_a_nonce() {
        let mut rng = Rng::from_u64(1);
        let a = QuicLb::new(config(5), &mut rng).unwrap();
        let b = a.clone();
        let mut seen = HashSet::new();
        for _ in 0..1000 {
            for lb in [&a, &b] {
                let cid = encode(lb, &mut rng);
                assert_eq!((cid[0] >> 5, cid[0] & 0x1f, cid.len()), (2, 10, 10));
                assert!(seen.insert(cid));
            }
        }
    }

    #[test]
    fn used_up_nonces_make_unroutable_ids() {
        let mut rng = Rng::from_u64(2);
        let lb = QuicLb::new(config(4), &mut rng).unwrap();
        lb.0.used.store(u64::from(u32::MAX), Ordering::Relaxed);
        assert_eq!(encode(&lb, &mut rng)[0] >> 5, 2);
        for _ in 0..3 {
            let cid = encode(&lb, &mut rng);
            assert_eq!((cid[0] >> 5, cid[0] & 0x1f), (UNROUTABLE, 9));
        }
    }

    #[test]
    fn without_a_key_the_server_is_readable_and_the_nonce_random() {
        let mut rng = Rng::from_u64(3);
        let plain = QuicLbConfig {
            key: None,
            encode_length: false,
            ..config(6)
        };
        let lb = QuicLb::new(plain, &mut rng).unwrap();
        let (a, b) = (encode(&lb, &mut rng), encode(&lb, &mut rng));
        assert_eq!(
            (&a[1..5], &b[1..5]),
            (&hex("ed793a51")[..], &hex("ed793a51")[..])
        );
        assert_ne!(a[5..], b[5..]);
        assert_eq!(a[0] >> 5, 2);
    }

    #[test]
    fn bad_configurations_are_refused() {
        let mut rng = Rng::from_u64(4);
        let mut new = |c: QuicLbConfig| QuicLb::new(c, &mut rng).map(drop);
        assert_eq!(
            new(QuicLbConfig {
                config_id: 7,
                ..config(4)
            }),
            Err(QuicLbError::ConfigId(7))
        );
        assert_eq!(
            new(QuicLbConfig {
                server_id: vec![],
                ..config(4)
            }),
            Err(QuicLbError::NoServerId)
        );
        assert_eq!(new(config(3)), Err(QuicLbError::Nonce(3)));
        assert_eq!(new(config(15)), Err(QuicLbError::TooLong(19)));
        assert_eq!(new(config(14)), Ok(()));
    }

    #[test]
    fn an_aws_server_id_reads_in_both_forms() {
        let config = QuicLbConfig::nlb("0x0123456789abcdef").unwrap();
        assert_eq!(config.server_id, hex("0123456789abcdef"));
        assert_eq!(QuicLbConfig::nlb("ASNFZ4mrze8="), Ok(config.clone()));
        assert_eq!(QuicLbConfig::nlb(" ASNFZ4mrze8\n"), Ok(config.clone()));
        let lb = QuicLb::new(config, &mut Rng::from_u64(1)).unwrap();
        // With the shard's byte, the longest that version 1 allows.
        assert_eq!(lb.len() + 1, crate::base::limits::MAX_CID_LEN);
        for bad in [
            "",
            "0x",
            "0x0123",
            "0x0123456789abcdeg",
            "ASNFZ4mrze8=!",
            "AAAA",
            "\u{e9}",
        ] {
            assert!(QuicLbConfig::nlb(bad).is_err(), "{bad}");
        }
    }
}
