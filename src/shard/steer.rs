//! Which shard owns a connection ID: the codec of the IDs we issue, and the kernel's copy of it.
//!
//! An ID is random bytes (or a QUIC-LB body, [`super::quic_lb`]) and one last byte that is the
//! shard, blurred and masked:
//! `last = mix(all bytes before) ^ v`, with `v` random among the bytes that are the shard modulo
//! the number of shards. The mix is keyed and made of what classic BPF can compute on words:
//! multiply, xor, shift. Without the secret the last byte is as random as the rest, so IDs cannot
//! be linked by their shard (RFC 9000 §5.1); one that a client made up falls to some shard, always
//! the same.
//!
//! This hides a load-balancing hint; it protects no data. Attaching is `sys::reuseport`'s.

use super::quic_lb::QuicLb;
use crate::base::Rng;
use crate::base::limits::MAX_CID_LEN;
use crate::wire::ConnectionId;
use libc::sock_filter;
use std::fmt;

/// The shortest connection ID that carries a shard: fewer random bytes would collide.
pub const MIN_CID_LEN: usize = 8;
/// 32-bit words that cover the bytes before the last one.
const WORDS: usize = MAX_CID_LEN.div_ceil(4);
/// Where the DCID of a short header begins (RFC 8999 §5.2).
const SHORT_DCID: usize = 1;
/// Where the DCID length of a long header is, and the DCID begins (RFC 8999 §5.1).
const LONG_DCID_LEN: usize = 5;
const LONG_DCID: usize = 6;
/// Shifts of the mix; part of its definition, as the kernel's program repeats them.
const ROUND_SHIFT: u32 = 15;
const FINAL_SHIFTS: [u32; 2] = [16, 13];

/// Why a codec cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The length is outside of 8 to 20 bytes.
    #[error("connection IDs that carry a shard have 8 to 20 bytes, not {0}")]
    Length(usize),
    /// The shard's number is not below the number of shards.
    #[error("there is no shard {shard} of {shards}")]
    Shard {
        /// The shard asked for.
        shard: u8,
        /// The number of shards.
        shards: u8,
    },
    /// The load balancer's part does not leave exactly the one byte for the shard.
    #[error("a QUIC-LB ID of {body} bytes and the shard's byte do not make {cid_len} bytes")]
    Body {
        /// Bytes of the load balancer's part.
        body: usize,
        /// The configured length.
        cid_len: usize,
    },
}

/// Keys of the mix, all from the secret.
#[derive(Clone, PartialEq, Eq)]
struct MixKeys {
    start: u32,
    /// Odd, so that a multiplication loses nothing.
    multipliers: [u32; WORDS],
    last: u32,
}

impl MixKeys {
    fn new(secret: u64) -> Self {
        let mut state = secret;
        let mut next = || {
            // SplitMix64: one well mixed word a step.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 32) as u32
        };
        Self {
            start: next(),
            multipliers: std::array::from_fn(|_| next() | 1),
            last: next() | 1,
        }
    }

    /// The low byte of the keyed mix of `bytes`, which are at least four: big-endian words, the
    /// last of which overlaps the one before where the length is no multiple of four.
    #[inline]
    fn mix(&self, bytes: &[u8]) -> u8 {
        let mut h = self.start;
        for (at, multiplier) in word_offsets(bytes.len()).zip(self.multipliers) {
            let word = bytes.get(at..).and_then(<[u8]>::first_chunk::<4>);
            h = (h ^ word.map_or(0, |w| u32::from_be_bytes(*w))).wrapping_mul(multiplier);
            h ^= h >> ROUND_SHIFT;
        }
        h ^= h >> FINAL_SHIFTS[0];
        h = h.wrapping_mul(self.last);
        h ^= h >> FINAL_SHIFTS[1];
        h as u8
    }
}

/// Where the words of `len` bytes begin.
fn word_offsets(len: usize) -> impl Iterator<Item = usize> {
    let last = len.saturating_sub(4);
    (0..len.div_ceil(4)).map(move |i| (i * 4).min(last))
}

/// Issues and reads the connection IDs of one shard.
#[derive(Clone)]
pub struct CidCodec {
    keys: MixKeys,
    cid_len: usize,
    shard: u8,
    shards: u8,
    server: Option<QuicLb>,
}

impl fmt::Debug for CidCodec {
    // Without the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CidCodec")
            .field("cid_len", &self.cid_len)
            .field("shard", &self.shard)
            .field("shards", &self.shards)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl CidCodec {
    /// A codec for IDs of `cid_len` bytes that name `shard` of `shards`. All shards of a process
    /// take one random `secret`, and clones of one `server`.
    pub fn new(
        secret: u64,
        cid_len: usize,
        shard: u8,
        shards: u8,
        server: Option<QuicLb>,
    ) -> Result<Self, CodecError> {
        if !(MIN_CID_LEN..=MAX_CID_LEN).contains(&cid_len) {
            return Err(CodecError::Length(cid_len));
        }
        if shard >= shards {
            return Err(CodecError::Shard { shard, shards });
        }
        if let Some(body) = server.as_ref().map(QuicLb::len)
            && body + 1 != cid_len
        {
            return Err(CodecError::Body { body, cid_len });
        }
        Ok(Self {
            keys: MixKeys::new(secret),
            cid_len,
            shard,
            shards,
            server,
        })
    }

    /// Bytes of every ID.
    pub fn cid_len(&self) -> usize {
        self.cid_len
    }

    /// Shards that share the secret.
    pub fn shards(&self) -> u8 {
        self.shards
    }

    /// A new ID of this shard.
    pub fn issue(&self, rng: &mut Rng) -> ConnectionId {
        let mut bytes: [u8; MAX_CID_LEN] = rng.array();
        let body = self.cid_len - 1;
        if let Some(server) = &self.server {
            server.encode(rng, &mut bytes[..body]);
        }
        // Any byte that is the shard modulo their number: the mask then hides less than a byte
        // even from someone who has learned the mix.
        let count = (255 - u64::from(self.shard)) / u64::from(self.shards) + 1;
        let blurred = u64::from(self.shard) + rng.below(count) * u64::from(self.shards);
        bytes[body] = self.keys.mix(&bytes[..body]) ^ blurred as u8;
        ConnectionId::new(&bytes[..self.cid_len]).unwrap_or(ConnectionId::EMPTY)
    }

    /// The shard that owns an ID of our length; `None` for any other length, and then the shard on
    /// which the packet landed keeps it.
    #[inline]
    pub fn shard_of(&self, cid: &[u8]) -> Option<u8> {
        if cid.len() != self.cid_len {
            return None;
        }
        let (last, body) = cid.split_last()?;
        Some((self.keys.mix(body) ^ last) % self.shards)
    }

    /// The classic BPF program that does [`shard_of`](Self::shard_of) in the kernel, for the
    /// sockets of a group bound in the order of the shards. A datagram that is too short, or has a
    /// long header with another length of DCID, gets a number that is no socket's, and the kernel
    /// falls back to its hash of the addresses.
    pub fn program(&self) -> Vec<sock_filter> {
        let len = self.cid_len;
        let long = self.decode_at(LONG_DCID);
        let short = self.decode_at(SHORT_DCID);
        let mut p = vec![
            // Shorter than a short header with our DCID: nobody's.
            op(bpf::LD_LEN, 0),
            jump(bpf::JGE, (SHORT_DCID + len) as u32, 1, 0),
            op(bpf::RET_K, NOBODY),
            op(bpf::LD_BYTE, 0),
            // Over the jump below, to the part for long headers.
            jump(bpf::JSET, 0x80, 1, 0),
            // A jump of this form reaches as far as the program is long.
            op(bpf::JA, 6 + long.len() as u32),
            // A long header with a DCID of our length, whole.
            op(bpf::LD_LEN, 0),
            jump(bpf::JGE, (LONG_DCID + len) as u32, 1, 0),
            op(bpf::RET_K, NOBODY),
            op(bpf::LD_BYTE, LONG_DCID_LEN as u32),
            jump(bpf::JEQ, len as u32, 1, 0),
            op(bpf::RET_K, NOBODY),
        ];
        p.extend(long);
        p.extend(short);
        p
    }

    /// Instructions that return the shard of the ID at an offset.
    fn decode_at(&self, at: usize) -> Vec<sock_filter> {
        let body = self.cid_len - 1;
        // The state of the mix is in X whenever a word is loaded into A.
        let mut p = vec![op(bpf::LDX_IMM, self.keys.start)];
        for (offset, multiplier) in word_offsets(body).zip(self.keys.multipliers) {
            p.push(op(bpf::LD_WORD, (at + offset) as u32));
            p.push(op(bpf::XOR_X, 0));
            p.push(op(bpf::MUL_K, multiplier));
            xor_shifted(&mut p, ROUND_SHIFT);
            p.push(op(bpf::TAX, 0));
        }
        p.push(op(bpf::TXA, 0));
        xor_shifted(&mut p, FINAL_SHIFTS[0]);
        p.push(op(bpf::MUL_K, self.keys.last));
        xor_shifted(&mut p, FINAL_SHIFTS[1]);
        p.push(op(bpf::TAX, 0));
        p.push(op(bpf::LD_BYTE, (at + body) as u32));
        p.push(op(bpf::XOR_X, 0));
        p.push(op(bpf::AND_K, 0xff));
        p.push(op(bpf::MOD_K, u32::from(self.shards)));
        p.push(op(bpf::RET_A, 0));
        p
    }
}

/// A return value that is no socket's number.
const NOBODY: u32 = u32::MAX;

/// The operations used, from the kernel's `bpf_common.h`.
mod bpf {
    pub const LD_WORD: u16 = 0x20;
    pub const LD_BYTE: u16 = 0x30;
    pub const LD_LEN: u16 = 0x80;
    pub const LDX_IMM: u16 = 0x01;
    pub const TAX: u16 = 0x07;
    pub const TXA: u16 = 0x87;
    pub const MUL_K: u16 = 0x24;
    pub const MOD_K: u16 = 0x94;
    pub const AND_K: u16 = 0x54;
    pub const RSH_K: u16 = 0x74;
    pub const XOR_X: u16 = 0xac;
    pub const JA: u16 = 0x05;
    pub const JEQ: u16 = 0x15;
    pub const JGE: u16 = 0x35;
    pub const JSET: u16 = 0x45;
    pub const RET_K: u16 = 0x06;
    pub const RET_A: u16 = 0x16;
}

const fn op(code: u16, k: u32) -> sock_filter {
    jump(code, k, 0, 0)
}

const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// `A ^= A >> shift`, through X.
fn xor_shifted(p: &mut Vec<sock_filter>, shift: u32) {
    p.extend([op(bpf::TAX, 0), op(bpf::RSH_K, shift), op(bpf::XOR_X, 0)]);
}

#[cfg(test)]
mod tests;
