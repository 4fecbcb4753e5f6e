//! Bytes in order in one block: appended behind, consumed in front, never split.
//!
//! A block has at most about twice the most bytes that ever were in it at a time. Bytes move only
//! when at least as many in front of them were consumed, so that each moves once on average.

use std::fmt;

/// The first block, in bytes.
const FIRST: usize = 2048;

/// A queue of bytes; allocates with the first.
#[derive(Default)]
pub(super) struct Arena {
    block: Vec<u8>,
    start: usize,
    end: usize,
}

impl Arena {
    /// What was appended and not consumed.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.block[self.start..self.end]
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Appends `n` bytes, which the caller writes: they are whatever was there before.
    #[inline]
    pub(super) fn append(&mut self, n: usize) -> &mut [u8] {
        if self.block.len() - self.end < n {
            self.make_room(n);
        }
        let at = self.end;
        self.end += n;
        &mut self.block[at..self.end]
    }

    /// Takes `n` bytes from the front; there are as many.
    #[inline]
    pub(super) fn consume(&mut self, n: usize) {
        debug_assert!(n <= self.end - self.start);
        self.start += n;
        if self.start == self.end {
            // The same memory again, which is in the cache.
            (self.start, self.end) = (0, 0);
        }
    }

    #[cold]
    fn make_room(&mut self, n: usize) {
        let kept = self.end - self.start;
        if self.start >= kept && self.block.len() - kept >= n {
            self.block.copy_within(self.start..self.end, 0);
        } else {
            let mut block = vec![0; (2 * (kept + n)).max(FIRST)];
            block[..kept].copy_from_slice(self.bytes());
            self.block = block;
        }
        (self.start, self.end) = (0, kept);
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("len", &self.bytes().len())
            .field("block", &self.block.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;
    use std::collections::VecDeque;

    #[test]
    fn bytes_come_out_in_order_from_a_bounded_block() {
        let mut rng = Rng::from_u64(7);
        let (mut arena, mut model) = (Arena::default(), VecDeque::new());
        let (mut next, mut most) = (0u8, 0);
        for _ in 0..20_000 {
            if model.len() < 4000 && rng.below(2) == 0 {
                let n = rng.below(300) as usize;
                for b in arena.append(n) {
                    *b = next;
                    model.push_back(next);
                    next = next.wrapping_add(1);
                }
            } else {
                let n = rng.below(model.len() as u64 + 1).min(350) as usize;
                let front: Vec<u8> = model.drain(..n).collect();
                assert_eq!(arena.bytes()[..n], front);
                arena.consume(n);
            }
            most = most.max(model.len());
            assert_eq!(arena.bytes().len(), model.len());
            assert_eq!(arena.is_empty(), model.is_empty());
        }
        assert!(arena.block.len() <= 2 * (most + 300), "{arena:?}");
    }
}
