//! Randomness as an argument: one seeded, cryptographically strong generator.
//!
//! A real endpoint seeds it from the system once; a simulation seeds it from a number and replays
//! exactly. The same type serves both, so no code path differs between them.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A seeded CSPRNG (ChaCha12). Its working state, which is large, is made with the first draw.
#[derive(Clone, Debug)]
pub struct Rng {
    seed: [u8; 32],
    stream: Option<Box<ChaCha12Rng>>,
}

impl Rng {
    /// A generator whose whole output follows from `seed`.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self { seed, stream: None }
    }

    /// A generator for simulations and tests, from a number.
    pub fn from_u64(seed: u64) -> Self {
        Self {
            seed: [0; 32],
            stream: Some(Box::new(ChaCha12Rng::seed_from_u64(seed))),
        }
    }

    #[inline]
    fn stream(&mut self) -> &mut ChaCha12Rng {
        let begin = || Box::new(ChaCha12Rng::from_seed(self.seed));
        self.stream.get_or_insert_with(begin)
    }

    /// Gives the working state back; what follows is another stream, seeded from this one.
    pub fn rest(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.fill_bytes(&mut self.seed);
            self.stream = None;
        }
    }

    /// A generator of its own, seeded from this one's output.
    pub fn fork(&mut self) -> Self {
        let mut seed = [0; 32];
        self.fill(&mut seed);
        Self::from_seed(seed)
    }

    /// Fills `dest` with random bytes.
    pub fn fill(&mut self, dest: &mut [u8]) {
        self.stream().fill_bytes(dest);
    }

    /// A random array.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }

    /// A random number over the whole range.
    pub fn next_u64(&mut self) -> u64 {
        self.stream().next_u64()
    }

    /// A random number in `0..bound`; 0 when `bound` is 0. The bias is below `bound / 2^64`.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// True with probability `p` (clamped to 0..=1).
    pub fn chance(&mut self, p: f64) -> bool {
        // 53 random bits: every representable step of the unit interval.
        ((self.next_u64() >> 11) as f64) < p * (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_output() {
        let (mut a, mut b) = (Rng::from_u64(7), Rng::from_u64(7));
        assert_eq!(a.array::<32>(), b.array::<32>());
        assert_eq!(a.fork().next_u64(), b.fork().next_u64());
        assert_ne!(Rng::from_u64(8).next_u64(), Rng::from_u64(7).next_u64());
    }

    #[test]
    fn a_rest_changes_the_stream_and_keeps_it_determined() {
        let (mut a, mut b, mut c) = (Rng::from_u64(7), Rng::from_u64(7), Rng::from_u64(7));
        let before = a.array::<32>();
        assert_eq!(b.array::<32>(), before);
        let _ = c.array::<32>();
        a.rest();
        a.rest();
        b.rest();
        let after = a.array::<32>();
        assert_eq!(b.array::<32>(), after);
        assert_ne!(c.array::<32>(), after);
        assert_ne!(before, after);
    }

    #[test]
    fn below_stays_below_and_chance_keeps_its_ends() {
        let mut r = Rng::from_u64(1);
        for bound in [1, 2, 3, 1000, u64::MAX] {
            for _ in 0..100 {
                assert!(r.below(bound) < bound);
            }
        }
        assert_eq!(r.below(0), 0);
        assert!((0..1000).all(|_| r.chance(1.0) && !r.chance(0.0)));
    }
}
