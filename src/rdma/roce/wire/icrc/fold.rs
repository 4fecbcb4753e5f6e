//! CRC-32 of a short packet by carry-less multiplication: sixteen bytes at a time are folded into
//! one register, which is reduced at the end (Gopal et al., "Fast CRC Computation for Generic
//! Polynomials Using PCLMULQDQ Instruction", Intel 2009).
//!
//! Bytes of zeroes before a message change nothing where the register is zero. So the odd bytes
//! stand first, behind zeroes, and no part of a block is left for the end; and BTH's reserved byte
//! counts as ones without a change to the packet, which would hold up the read that follows.

#[cfg(target_arch = "x86_64")]
pub(super) use x86::crc;

/// From so many bytes on several registers at once are faster.
const LONG: usize = 256;

/// Whether [`crc`] may be asked here.
#[cfg(target_arch = "x86_64")]
pub(super) fn is_supported() -> bool {
    is_x86_feature_detected!("pclmulqdq") && is_x86_feature_detected!("sse4.1")
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn is_supported() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn crc(_: bool, _: u32, _: &[u8]) -> Option<u32> {
    None
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::LONG;
    use crate::rdma::roce::wire::headers::BTH;
    use std::arch::x86_64::{
        __m128i, _mm_and_si128, _mm_clmulepi64_si128, _mm_extract_epi32, _mm_set_epi32,
        _mm_set_epi64x, _mm_srli_si128, _mm_xor_si128,
    };

    /// x^(128+32) and x^(128-32), x^64, the polynomial and its inverse, all reflected.
    const K3: i64 = 0x1_7519_97d0;
    const K4: i64 = 0x0_ccaa_009e;
    const K5: i64 = 0x1_63cd_6124;
    const POLYNOMIAL: i64 = 0x1_db71_0641;
    const INVERSE: i64 = 0x1_f701_1641;

    /// The CRC of `body`, a packet from BTH to before its ICRC, behind what `prefix` is the CRC of.
    /// `None` for lengths that others are better at. `supported` is what
    /// [`is_supported`](super::is_supported) said.
    #[inline]
    pub fn crc(supported: bool, prefix: u32, body: &[u8]) -> Option<u32> {
        let fits = (BTH..LONG).contains(&body.len()) && body.len().is_multiple_of(4);
        // SAFETY: the instructions are there.
        (supported && fits).then(|| unsafe { fold(prefix, body) })
    }

    #[inline]
    #[target_feature(enable = "pclmulqdq", enable = "sse4.1")]
    fn fold(prefix: u32, body: &[u8]) -> u32 {
        let (odd, blocks) = body.split_at(body.len() % 16);
        let mut blocks = blocks.as_chunks::<16>().0.iter();
        let start = u128::from(!prefix);
        // The reserved byte is the fifth: in the odd bytes, or the first behind them.
        let ones = 0xff << 32;
        let mut next = |more: u128| blocks.next().map(|b| u128::from_le_bytes(*b) | more);
        let mut x = match odd {
            [] => vector(next(ones).unwrap_or_default() ^ start),
            [a, b, c, d] => {
                let first = u128::from(u32::from_le_bytes([*a, *b, *c, *d])) ^ start;
                let x = vector(first << 96);
                step(x, vector(next(0xff).unwrap_or_default()))
            }
            _ => {
                let word = |at: usize| {
                    let word = odd.get(at..).and_then(|b| b.first_chunk::<4>());
                    u128::from(word.map_or(0, |b| u32::from_le_bytes(*b)))
                };
                let all = (word(0) | word(4) << 32 | word(8) << 64 | ones) ^ start;
                vector(all << (8 * (16 - odd.len())))
            }
        };
        while let Some(block) = next(0) {
            x = step(x, vector(block));
        }
        reduce(x)
    }

    #[inline]
    #[target_feature(enable = "sse4.1")]
    fn vector(n: u128) -> __m128i {
        _mm_set_epi64x((n >> 64) as i64, n as i64)
    }

    /// Takes the register over the next block.
    #[inline]
    #[target_feature(enable = "pclmulqdq", enable = "sse4.1")]
    fn step(x: __m128i, block: __m128i) -> __m128i {
        let keys = _mm_set_epi64x(K4, K3);
        let low = _mm_clmulepi64_si128(x, keys, 0x00);
        let high = _mm_clmulepi64_si128(x, keys, 0x11);
        _mm_xor_si128(_mm_xor_si128(low, high), block)
    }

    /// The register modulo the polynomial: 128 bits to 96, to 64, then Barrett's way to 32.
    #[inline]
    #[target_feature(enable = "pclmulqdq", enable = "sse4.1")]
    fn reduce(x: __m128i) -> u32 {
        let word = _mm_set_epi32(0, 0, 0, !0);
        let keys = _mm_set_epi64x(K4, K5);
        let x = _mm_xor_si128(_mm_clmulepi64_si128(x, keys, 0x10), _mm_srli_si128(x, 8));
        let low = _mm_clmulepi64_si128(_mm_and_si128(x, word), keys, 0x00);
        let x = _mm_xor_si128(low, _mm_srli_si128(x, 4));
        let barrett = _mm_set_epi64x(INVERSE, POLYNOMIAL);
        let quotient = _mm_clmulepi64_si128(_mm_and_si128(x, word), barrett, 0x10);
        let product = _mm_clmulepi64_si128(_mm_and_si128(quotient, word), barrett, 0x00);
        !(_mm_extract_epi32(_mm_xor_si128(x, product), 1) as u32)
    }
}
