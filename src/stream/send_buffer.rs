//! The bytes of one stream that the peer has not acknowledged: what was never sent, what is in
//! flight, what was lost. What an offset holds never changes (RFC 9000 §2.2).
//!
//! Large data is kept as the reference that the application gave; small writes are gathered (see
//! `tail`) in chunks of [`GATHER`] bytes, so overhead per byte stays bounded. Chunks go as their
//! last byte is acknowledged. In-order sending and acknowledging is a cursor moving over the
//! chunks; the range sets are touched only after loss or reordering. An idle stream's buffer owns
//! no chunks.

use super::range_set::RangeSet;
use super::tail::Tail;
use crate::wire::Writer;
use bytes::Bytes;
use std::collections::VecDeque;

/// Bytes of small writes that are gathered in one chunk.
const GATHER: usize = 4096;
/// The longest chunk that a copying write makes: memory is given back in pieces of this size.
const COPY_CHUNK: usize = 64 * 1024;
/// A reference to at most this many bytes is copied instead of kept.
const SMALL: usize = 128;

#[derive(Debug)]
struct Chunk {
    start: u64,
    data: Bytes,
}

impl Chunk {
    fn end(&self) -> u64 {
        self.start + self.data.len() as u64
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct SendBuffer {
    /// Consecutive, the first holding `acked_to` unless everything is in `tail`.
    chunks: VecDeque<Chunk>,
    /// The last bytes, up to `end`.
    tail: Tail,
    /// Everything below is acknowledged.
    acked_to: u64,
    /// Everything below was sent at least once.
    next: u64,
    /// Everything below was written by the application.
    end: u64,
    /// The chunk that was read last.
    cursor: usize,
    /// Acknowledged ranges above `acked_to`.
    acked: RangeSet,
    /// Ranges below `next` to be sent again.
    lost: RangeSet,
}

impl SendBuffer {
    /// The highest offset sent.
    #[inline]
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// The highest offset written by the application.
    #[inline]
    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    /// Bytes written and not acknowledged in order.
    #[inline]
    pub(super) const fn len(&self) -> u64 {
        self.end - self.acked_to
    }

    /// The lowest lost range.
    #[inline]
    pub(super) fn lost(&self) -> Option<(u64, u64)> {
        self.lost.first()
    }

    /// Whether every byte written is acknowledged.
    #[inline]
    pub(super) const fn is_acked(&self) -> bool {
        self.acked_to == self.end
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        let chunks: usize = self.chunks.iter().map(|c| c.data.len()).sum();
        chunks + self.chunks.capacity() * size_of::<Chunk>() + self.tail.capacity()
    }

    /// Appends a copy of `data`.
    pub(super) fn copy(&mut self, data: &[u8]) {
        if data.len() < GATHER {
            self.gather(data);
            return;
        }
        for piece in data.chunks(COPY_CHUNK) {
            self.keep(Bytes::copy_from_slice(piece));
        }
    }

    /// Appends `data` by reference.
    pub(super) fn push(&mut self, data: Bytes) {
        if data.len() <= SMALL {
            self.gather(&data);
        } else {
            self.keep(data);
        }
    }

    fn gather(&mut self, data: &[u8]) {
        if !self.tail.is_empty() && self.tail.len() + data.len() > GATHER {
            // Who fills one is likely to fill the next.
            self.seal(GATHER);
        }
        self.tail.extend(data);
        self.end += data.len() as u64;
    }

    fn keep(&mut self, data: Bytes) {
        if !self.tail.is_empty() {
            self.seal(0);
        }
        let start = self.end;
        self.end += data.len() as u64;
        self.chunks.push_back(Chunk { start, data });
    }

    /// Ends the gathered chunk; the next one gets memory of `capacity` bytes.
    fn seal(&mut self, capacity: usize) {
        let data = self.tail.take(capacity);
        let start = self.end - data.len() as u64;
        self.chunks.push_back(Chunk { start, data });
    }

    /// Appends the `n` bytes at `offset`, which are in the buffer, to the packet.
    #[inline]
    pub(super) fn write(&mut self, w: &mut Writer<'_>, offset: u64, n: usize) {
        // Mostly it is all in the chunk of the last time.
        if let Some(chunk) = self.chunks.get(self.cursor)
            && let Some(at) = offset.checked_sub(chunk.start)
            && chunk.data.len() as u64 >= at.saturating_add(n as u64)
        {
            return w.shared(&chunk.data, at as usize, n);
        }
        self.write_across(w, offset, n);
    }

    fn write_across(&mut self, w: &mut Writer<'_>, mut offset: u64, mut n: usize) {
        let tail_start = self.end - self.tail.len() as u64;
        while n > 0 && offset < tail_start {
            self.seek(offset);
            let Some(chunk) = self.chunks.get(self.cursor) else {
                break;
            };
            let at = (offset - chunk.start) as usize;
            let piece = n.min(chunk.data.len().saturating_sub(at));
            if piece == 0 {
                break;
            }
            w.shared(&chunk.data, at, piece);
            offset += piece as u64;
            n -= piece;
        }
        if n > 0 {
            let from = offset.saturating_sub(tail_start) as usize;
            let piece = self.tail.as_slice().get(from..from + n);
            debug_assert!(piece.is_some(), "only bytes in the buffer are sent");
            w.bytes(piece.unwrap_or_default());
        }
    }

    /// Points the cursor at the chunk that holds `offset`: mostly the same or the next one.
    #[inline]
    fn seek(&mut self, offset: u64) {
        for at in [self.cursor, self.cursor + 1] {
            if let Some(chunk) = self.chunks.get(at)
                && chunk.start <= offset
                && offset < chunk.end()
            {
                self.cursor = at;
                return;
            }
        }
        self.cursor = self.chunks.partition_point(|c| c.end() <= offset);
    }

    /// Notes that `n` bytes at `offset` were sent, the first time or again.
    #[inline]
    pub(super) fn on_sent(&mut self, offset: u64, n: u64) {
        let end = offset + n;
        if offset < self.next {
            self.lost.remove(offset, end);
        }
        self.next = self.next.max(end);
    }

    /// Notes that `start..end` was acknowledged.
    #[inline]
    pub(super) fn on_acked(&mut self, start: u64, end: u64) {
        // What was never sent cannot be acknowledged; a caller's mistake must not free bytes.
        let end = end.min(self.next);
        if end <= self.acked_to {
            return;
        }
        self.lost.remove(start, end);
        if start > self.acked_to {
            self.acked.insert(start, end);
            return;
        }
        self.acked_to = end;
        if let Some((first, to)) = self.acked.first() {
            self.absorb(first, to);
        }
        self.free();
    }

    fn absorb(&mut self, mut first: u64, mut to: u64) {
        while first <= self.acked_to {
            self.acked_to = self.acked_to.max(to);
            self.acked.remove(first, to);
            match self.acked.first() {
                Some(range) => (first, to) = range,
                None => break,
            }
        }
        self.acked.shrink();
        self.lost.shrink();
    }

    /// Lets go of what is acknowledged.
    fn free(&mut self) {
        while self
            .chunks
            .front()
            .is_some_and(|c| c.end() <= self.acked_to)
        {
            self.chunks.pop_front();
            self.cursor = self.cursor.saturating_sub(1);
        }
        let tail_start = self.end - self.tail.len() as u64;
        if self.acked_to > tail_start {
            self.tail.advance((self.acked_to - tail_start) as usize);
        }
        if self.is_acked() {
            self.tail.shrink();
            if self.chunks.capacity() > 64 {
                self.chunks = VecDeque::new();
            }
        }
    }

    /// Notes that `start..end` was lost; what of it was acknowledged meanwhile is not sent again.
    pub(super) fn on_lost(&mut self, start: u64, end: u64) {
        let (start, end) = (start.max(self.acked_to), end.min(self.next));
        let lost = &mut self.lost;
        self.acked
            .for_each_missing(start, end, |s, e| lost.insert(s, e));
    }

    /// The first part of what was sent of `start..end` that is not acknowledged, or with `lost`
    /// that is to be sent again.
    pub(super) fn first_open(&self, start: u64, end: u64, lost: bool) -> Option<(u64, u64)> {
        let (start, end) = (start.max(self.acked_to), end.min(self.next));
        if lost {
            let (s, e) = self.lost.first_in(start, end)?;
            return Some((s.max(start), e.min(end)));
        }
        let mut first = None;
        self.acked.for_each_missing(start, end, |s, e| {
            first.get_or_insert((s, e));
        });
        first
    }

    /// Counts nothing as sent any more; nothing was acknowledged.
    pub(super) fn rewind(&mut self) {
        debug_assert!(self.acked.is_empty(), "what was acknowledged was accepted");
        self.lost = RangeSet::default();
        self.next = 0;
        self.cursor = 0;
    }

    /// Drops every byte; only the highest offset sent is still known.
    pub(super) fn discard(&mut self) {
        *self = Self {
            acked_to: self.end,
            next: self.next,
            end: self.end,
            ..Self::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn byte(offset: u64) -> u8 {
        (offset.wrapping_mul(0x9e37_79b9) >> 5) as u8
    }

    fn bytes(offset: u64, len: usize) -> Vec<u8> {
        (offset..offset + len as u64).map(byte).collect()
    }

    fn read(b: &mut SendBuffer, offset: u64, n: usize) -> Vec<u8> {
        let mut out = vec![0; n];
        let mut w = Writer::new(&mut out);
        b.write(&mut w, offset, n);
        assert_eq!(w.position(), n);
        out
    }

    #[test]
    fn small_writes_are_gathered_and_memory_goes_with_the_last_byte() {
        let mut b = SendBuffer::default();
        for i in 0..100_000 {
            b.copy(&[byte(i)]);
        }
        assert!(b.chunks.len() <= 100_000 / GATHER);
        assert_eq!(read(&mut b, 4000, 50_000), bytes(4000, 50_000));
        b.on_sent(0, 100_000);
        b.on_acked(0, 99_999);
        assert!(b.chunks.len() <= 1 && !b.is_acked());
        b.on_acked(99_999, 100_000);
        assert!(b.is_acked() && b.chunks.is_empty());
        assert_eq!(b.tail.capacity(), 0);
    }

    #[test]
    fn references_are_kept_not_copied() {
        let data = Bytes::from(bytes(0, 10_000));
        let mut b = SendBuffer::default();
        b.push(data.clone());
        assert_eq!(b.chunks[0].data.as_ptr(), data.as_ptr());
        b.on_sent(0, 10_000);
        assert!(!data.is_unique());
        b.on_acked(0, 10_000);
        assert!(data.is_unique());
    }

    #[test]
    fn acknowledging_what_was_lost_or_never_sent_is_harmless() {
        let mut b = SendBuffer::default();
        b.copy(&bytes(0, 1000));
        b.on_sent(0, 600);
        b.on_lost(0, 300);
        b.on_acked(100, 200);
        assert_eq!(b.lost.iter().collect::<Vec<_>>(), [(0, 100), (200, 300)]);
        b.on_lost(50, 250);
        assert_eq!(b.lost.iter().collect::<Vec<_>>(), [(0, 100), (200, 300)]);
        b.on_acked(0, u64::MAX);
        assert_eq!((b.acked_to, b.lost()), (600, None));
        b.on_lost(0, u64::MAX);
        assert_eq!(b.lost(), None);
        assert_eq!(read(&mut b, 600, 400), bytes(600, 400));
    }

    proptest! {
        #[test]
        fn every_byte_stays_until_it_is_acknowledged(
            ops in prop::collection::vec(
                (0u8..6, any::<prop::sample::Index>(), 1usize..9000), 1..80)
        ) {
            let mut b = SendBuffer::default();
            let mut acked = Vec::new();
            let mut lost = Vec::new();
            for (verb, at, n) in ops {
                match verb {
                    0 => {
                        let n = if n % 2 == 0 { n } else { n % 50 };
                        b.copy(&bytes(b.end(), n));
                    }
                    1 => b.push(Bytes::from(bytes(b.end(), n))),
                    2 => {
                        let n = (n as u64).min(b.end() - b.next());
                        b.on_sent(b.next(), n);
                    }
                    _ if b.next() == 0 => {}
                    3 | 4 => {
                        let start = at.index(b.next() as usize) as u64;
                        let end = (start + n as u64).min(b.next());
                        acked.resize(b.end() as usize, false);
                        lost.resize(b.end() as usize, false);
                        let range = start as usize..end as usize;
                        if verb == 3 {
                            b.on_acked(start, end);
                            acked[range.clone()].fill(true);
                            lost[range].fill(false);
                        } else {
                            b.on_lost(start, end);
                            for i in range {
                                lost[i] |= !acked[i];
                            }
                        }
                    }
                    _ => {
                        if let Some((start, end)) = b.lost() {
                            let n = (n as u64).min(end - start);
                            b.on_sent(start, n);
                            lost[start as usize..(start + n) as usize].fill(false);
                        }
                    }
                }
                acked.resize(b.end() as usize, false);
                lost.resize(b.end() as usize, false);
                let first = acked.iter().position(|a| !a).unwrap_or(acked.len());
                prop_assert_eq!(b.acked_to, first as u64);
                prop_assert_eq!(b.len(), b.end() - first as u64);
                let end = b.end();
                let n = (end - first as u64).min(5000);
                prop_assert_eq!(read(&mut b, end - n, n as usize), bytes(end - n, n as usize));
                prop_assert_eq!(b.lost.count(), lost.iter().filter(|l| **l).count() as u64);
            }
        }
    }
}
