//! Bytes in order in one block that is used in a circle: what was appended together stays together.
//!
//! A block has at most about twice the most bytes that ever were in it at a time.

use std::fmt;

/// The first block, in bytes.
const FIRST: usize = 2048;

/// A queue of pieces; allocates with the first.
#[derive(Default)]
pub(super) struct Arena {
    block: Box<[u8]>,
    start: usize,
    end: usize,
    /// Where the older pieces end, when the newer ones begin at the front of the block again; 0
    /// while none do.
    turn: usize,
}

impl Arena {
    /// The oldest pieces, as many as lie side by side; empty when there are none.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        let end = if self.turn > 0 { self.turn } else { self.end };
        &self.block[self.start..end]
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end && self.turn == 0
    }

    /// Appends a piece of `n` bytes, which the caller writes: they are whatever was there before.
    #[inline]
    pub(super) fn append(&mut self, n: usize) -> &mut [u8] {
        let limit = if self.turn > 0 {
            self.start
        } else {
            self.block.len()
        };
        if limit - self.end < n {
            self.make_room(n);
        }
        let at = self.end;
        self.end += n;
        &mut self.block[at..self.end]
    }

    /// Takes `n` bytes from the front: one piece or several that lie side by side.
    #[inline]
    pub(super) fn consume(&mut self, n: usize) {
        self.start += n;
        if self.start == self.turn {
            (self.start, self.turn) = (0, 0);
        }
        if self.start == self.end && self.turn == 0 {
            // The same memory again, which is in the cache.
            (self.start, self.end) = (0, 0);
        }
    }

    /// Gives the block back, unless something is in it.
    pub(super) fn rest(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Goes on at the front of the block if there is room, or moves to one of twice the size.
    #[cold]
    fn make_room(&mut self, n: usize) {
        if self.turn == 0 && self.start > n {
            (self.turn, self.end) = (self.end, 0);
            return;
        }
        let len = self.len();
        let mut block = vec![0; (2 * (len + n)).max(FIRST)];
        let (older, newer) = block[..len].split_at_mut(self.bytes().len());
        older.copy_from_slice(self.bytes());
        newer.copy_from_slice(&self.block[..newer.len()]);
        self.block = block.into_boxed_slice();
        (self.start, self.end, self.turn) = (0, len, 0);
    }

    fn len(&self) -> usize {
        match self.turn {
            0 => self.end - self.start,
            turn => turn - self.start + self.end,
        }
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("len", &self.len())
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
    fn pieces_come_out_whole_and_in_order_from_a_bounded_block() {
        let mut rng = Rng::from_u64(7);
        let (mut arena, mut model) = (Arena::default(), VecDeque::<Vec<u8>>::new());
        let (mut kept, mut most) = (0, 0);
        for i in 0..20_000 {
            if kept < 4000 && rng.below(2) == 0 {
                let piece = vec![i as u8; 1 + rng.below(300) as usize];
                arena.append(piece.len()).copy_from_slice(&piece);
                kept += piece.len();
                model.push_back(piece);
            } else {
                // One, or several that lie side by side.
                let most = if rng.chance(0.5) { 1 } else { 3 };
                let mut n = 0;
                for _ in 0..most {
                    let Some(piece) = model.front() else { break };
                    if arena.bytes().len() == n && n > 0 {
                        break;
                    }
                    assert_eq!(&arena.bytes()[n..n + piece.len()], piece);
                    n += piece.len();
                    model.pop_front();
                }
                arena.consume(n);
                kept -= n;
            }
            most = most.max(kept);
            assert_eq!(arena.len(), kept);
            assert_eq!(arena.is_empty(), model.is_empty());
            assert_eq!(arena.bytes().is_empty(), model.is_empty());
            if rng.below(16) == 0 {
                arena.rest();
                assert!(kept > 0 || arena.block.is_empty());
            }
        }
        assert!(arena.block.len() <= 2 * (most + 300), "{arena:?}");
    }
}
