//! The last bytes of a send buffer: what small writes left, gathered in one piece.
//!
//! As many as a short message has lie in the stream itself, so that a request or an answer needs no
//! memory of its own; more of them, and everything written behind, move to the heap.

use bytes::{Buf, Bytes, BytesMut};

/// Bytes that need no memory of their own: a small message with a header.
const INLINE: usize = 96;
/// Heap memory that is kept while the tail is empty.
const IDLE_CAPACITY: usize = 1024;

/// See the module. Bytes are inline or on the heap, never in both.
#[derive(Debug)]
pub(super) struct Tail {
    inline: [u8; INLINE],
    /// Which of `inline` are there; both 0 when none.
    from: u8,
    to: u8,
    heap: BytesMut,
}

const _: () = assert!(INLINE <= u8::MAX as usize);

impl Default for Tail {
    fn default() -> Self {
        Self {
            inline: [0; INLINE],
            from: 0,
            to: 0,
            heap: BytesMut::new(),
        }
    }
}

impl Tail {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.as_slice().len()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.to == 0 && self.heap.is_empty()
    }

    #[inline]
    pub(super) fn as_slice(&self) -> &[u8] {
        if self.to == 0 {
            return &self.heap;
        }
        let held = usize::from(self.from)..usize::from(self.to);
        self.inline.get(held).unwrap_or_default()
    }

    /// Appends a copy of `data`.
    #[inline]
    pub(super) fn extend(&mut self, data: &[u8]) {
        let to = usize::from(self.to);
        if self.heap.is_empty()
            && let Some(place) = self.inline.get_mut(to..to + data.len())
        {
            place.copy_from_slice(data);
            self.to += data.len() as u8;
        } else {
            self.extend_heap(data);
        }
    }

    fn extend_heap(&mut self, data: &[u8]) {
        self.leave_inline(data.len());
        self.heap.extend_from_slice(data);
    }

    /// Moves what is inline to the heap, with room for `more`.
    fn leave_inline(&mut self, more: usize) {
        let held = usize::from(self.from)..usize::from(self.to);
        if let Some(held) = self.inline.get(held).filter(|held| !held.is_empty()) {
            self.heap.reserve(held.len() + more);
            self.heap.extend_from_slice(held);
        }
        (self.from, self.to) = (0, 0);
    }

    /// Drops the first `n` bytes, or all where there are fewer.
    #[inline]
    pub(super) fn advance(&mut self, n: usize) {
        if self.to == 0 {
            self.heap.advance(n.min(self.heap.len()));
            return;
        }
        if n < self.len() {
            self.from += n as u8;
        } else {
            (self.from, self.to) = (0, 0);
        }
    }

    /// Takes all of it out, and gathers what comes next in memory of `capacity` bytes, which shares
    /// nothing with it: each goes on its own.
    pub(super) fn take(&mut self, capacity: usize) -> Bytes {
        self.leave_inline(0);
        let next = BytesMut::with_capacity(capacity);
        std::mem::replace(&mut self.heap, next).freeze()
    }

    /// Gives back memory that a burst left behind; nothing is held.
    #[inline]
    pub(super) fn shrink(&mut self) {
        if self.heap.capacity() > IDLE_CAPACITY {
            self.heap = BytesMut::new();
        }
    }

    /// Bytes of heap memory.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.heap.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_queue_of_bytes_inline_and_not() {
        let mut rng = crate::base::Rng::from_u64(3);
        for _ in 0..2_000 {
            let (mut tail, mut model) = (Tail::default(), Vec::new());
            for step in 0..20u8 {
                match rng.below(8) {
                    0..4 => {
                        let data = vec![step; rng.below(60) as usize];
                        tail.extend(&data);
                        model.extend(data);
                    }
                    4..7 => {
                        let n = rng.below(80) as usize;
                        tail.advance(n);
                        model.drain(..n.min(model.len()));
                    }
                    _ => {
                        let taken = tail.take(0);
                        assert_eq!(taken, std::mem::take(&mut model));
                    }
                }
                assert_eq!(tail.as_slice(), model);
                assert_eq!(tail.len(), model.len());
                assert_eq!(tail.is_empty(), model.is_empty());
            }
        }
    }

    #[test]
    fn a_small_message_needs_no_memory() {
        let mut tail = Tail::default();
        for _ in 0..1_000 {
            tail.extend(&[1; 24]);
            tail.extend(&[2; 64]);
            tail.advance(88);
            assert_eq!(tail.capacity(), 0);
        }
        tail.extend(&[3; INLINE + 1]);
        assert!(tail.capacity() > INLINE);
    }
}
