//! Puts bytes that arrived out of order, twice or in pieces back in order (RFC 9000 §2.2); used by
//! streams and by CRYPTO data.
//!
//! Bytes lie in fixed pages addressed by their offset, beside a set of the ranges that are there.
//! So memory follows the offsets that flow control let the peer use, not the number of frames: a
//! page costs [`PAGE`] bytes however many frames fill it, and the set has at most
//! [`limits::STREAM_GAPS`] gaps. Nothing is allocated before the first byte has to wait, and a page
//! goes as soon as it is read. Data that is in order at arrival need not pass through here.

use super::range_set::RangeSet;
use crate::base::limits;
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;

/// Bytes in one page.
pub const PAGE: usize = 4096;

/// The peer left more gaps than [`limits::STREAM_GAPS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("received data has too many gaps")]
pub struct TooManyGaps;

/// Received bytes from one read offset on, with gaps.
///
/// The caller bounds offsets (by flow control) before inserting: memory is at most what lies
/// between the read offset and the highest offset inserted, plus one page at either end.
#[derive(Debug, Default)]
pub struct Assembler {
    /// Everything below was read.
    read: u64,
    /// What is buffered, all of it at or above `read`.
    received: RangeSet,
    /// Pages from the one that holds `read` on. The first one's bytes below `read` are gone.
    pages: VecDeque<Option<BytesMut>>,
}

impl Assembler {
    /// An empty assembler whose next byte has offset `read`; allocates nothing.
    pub const fn new(read: u64) -> Self {
        Self {
            read,
            received: RangeSet::new(),
            pages: VecDeque::new(),
        }
    }

    /// Gives back memory, when nothing is buffered.
    pub fn rest(&mut self) {
        if self.received.is_empty() {
            self.received.rest();
            self.pages = VecDeque::new();
        }
    }

    /// The offset of the next byte to read.
    #[inline]
    pub const fn read_offset(&self) -> u64 {
        self.read
    }

    /// Whether nothing is buffered, readable or not.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.received.is_empty()
    }

    /// Bytes that can be read now.
    #[inline]
    pub fn readable(&self) -> u64 {
        match self.received.first() {
            Some((start, end)) if start == self.read => end - start,
            _ => 0,
        }
    }

    /// Bytes buffered, readable or not.
    pub fn buffered(&self) -> u64 {
        self.received.count()
    }

    /// Bytes of memory that the buffered data takes.
    pub fn memory(&self) -> usize {
        self.pages.iter().flatten().count() * PAGE
            + self.pages.capacity() * size_of::<Option<BytesMut>>()
            + self.received.len() * 16
    }

    /// Keeps `data`, whose first byte has offset `offset`. What was read or is there already is
    /// skipped or replaced by the same bytes.
    ///
    /// # Errors
    ///
    /// [`TooManyGaps`]; the assembler is of no further use then.
    pub fn insert(&mut self, offset: u64, data: &[u8]) -> Result<(), TooManyGaps> {
        let seen = usize::try_from(self.read.saturating_sub(offset)).unwrap_or(usize::MAX);
        let Some(mut data) = data.get(seen..).filter(|d| !d.is_empty()) else {
            return Ok(());
        };
        let start = offset.max(self.read);
        let Some(end) = start.checked_add(data.len() as u64) else {
            return Ok(());
        };
        self.received.insert(start, end);
        if self.received.len() > limits::STREAM_GAPS {
            return Err(TooManyGaps);
        }
        let mut at = start;
        while !data.is_empty() {
            let room = PAGE - (at % PAGE as u64) as usize;
            let (piece, rest) = data.split_at(room.min(data.len()));
            self.store(at, piece);
            at += piece.len() as u64;
            data = rest;
        }
        Ok(())
    }

    /// Writes `piece`, which does not cross a page boundary, at offset `at`.
    fn store(&mut self, at: u64, piece: &[u8]) {
        let first = self.read / PAGE as u64;
        let index = (at / PAGE as u64 - first) as usize;
        if index >= self.pages.len() {
            self.pages.resize_with(index + 1, || None);
        }
        let Some(page) = self.pages.get_mut(index) else {
            return;
        };
        // The page that holds `read` starts there; every other starts at its boundary.
        let page_start = if index == 0 {
            self.read
        } else {
            at - at % PAGE as u64
        };
        let len = PAGE - (page_start % PAGE as u64) as usize;
        let page = page.get_or_insert_with(|| BytesMut::zeroed(len));
        let from = (at - page_start) as usize;
        if let Some(place) = page.get_mut(from..from + piece.len()) {
            place.copy_from_slice(piece);
        }
    }

    /// The next readable bytes that lie in one piece; empty when the next byte is missing.
    pub fn chunk(&self) -> &[u8] {
        let n = self.readable();
        match self.pages.front() {
            Some(Some(page)) if n > 0 => {
                let n = usize::try_from(n).unwrap_or(usize::MAX).min(page.len());
                page.get(..n).unwrap_or_default()
            }
            _ => &[],
        }
    }

    /// Drops everything below offset `to`, read or never received.
    pub fn advance_to(&mut self, to: u64) {
        if to <= self.read {
            return;
        }
        self.received.remove(self.read, to);
        let gone = to / PAGE as u64 - self.read / PAGE as u64;
        let mut start = self.read;
        for _ in 0..gone {
            if self.pages.pop_front().is_none() {
                break;
            }
            start = (start / PAGE as u64 + 1) * PAGE as u64;
        }
        if self.received.is_empty() {
            self.pages.clear();
            self.received.shrink();
        } else if let Some(Some(page)) = self.pages.front_mut() {
            page.advance(((to - start) as usize).min(page.len()));
        }
        self.read = to;
    }

    /// Reads into `out`; returns how many bytes were there, up to its length.
    pub fn read(&mut self, out: &mut [u8]) -> usize {
        let mut done = 0;
        while let Some(place) = out.get_mut(done..).filter(|p| !p.is_empty()) {
            let chunk = self.chunk();
            let n = chunk.len().min(place.len());
            if n == 0 {
                break;
            }
            if let (Some(to), Some(from)) = (place.get_mut(..n), chunk.get(..n)) {
                to.copy_from_slice(from);
            }
            done += n;
            self.advance_to(self.read + n as u64);
        }
        done
    }

    /// Takes up to `max` readable bytes that lie in one piece, without copying them; `None` when
    /// the next byte is missing or `max` is 0.
    pub fn read_bytes(&mut self, max: usize) -> Option<Bytes> {
        let n = self.chunk().len().min(max);
        if n == 0 {
            return None;
        }
        let page = self.pages.front_mut()?.as_mut()?;
        // What stays in the page keeps its place; `advance_to` must not skip it a second time.
        let taken = page.split_to(n).freeze();
        let to = self.read + n as u64;
        self.received.remove(self.read, to);
        if page.is_empty() {
            self.pages.pop_front();
        }
        if self.received.is_empty() {
            self.pages.clear();
        }
        self.read = to;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn byte(offset: u64) -> u8 {
        (offset.wrapping_mul(0x9e37_79b9) >> 7) as u8
    }

    fn bytes(offset: u64, len: usize) -> Vec<u8> {
        (offset..offset + len as u64).map(byte).collect()
    }

    #[test]
    fn order_returns_across_pages() {
        let mut a = Assembler::new(0);
        a.insert(5000, &bytes(5000, 5000)).unwrap();
        assert_eq!((a.readable(), a.buffered()), (0, 5000));
        assert!(a.chunk().is_empty() && a.read_bytes(10).is_none());
        a.insert(0, &bytes(0, 5001)).unwrap();
        assert_eq!(a.readable(), 10_000);
        let mut out = vec![0; 20_000];
        assert_eq!(a.read(&mut out), 10_000);
        assert_eq!(out[..10_000], bytes(0, 10_000));
        assert!(a.is_empty());
        assert_eq!(a.read_offset(), 10_000);
    }

    #[test]
    fn alternate_single_bytes_cost_no_more_than_the_offsets_they_span() {
        let mut a = Assembler::new(0);
        for i in 0..limits::STREAM_GAPS as u64 {
            assert_eq!(a.insert(1 + 2 * i, &[7]), Ok(()));
        }
        let span = 2 * limits::STREAM_GAPS;
        assert!(a.memory() <= span + 2 * PAGE + 16 * limits::STREAM_GAPS + 4096);
        // One gap more is refused.
        let next = 1 + span as u64;
        assert_eq!(a.insert(next, &[7]), Err(TooManyGaps));
    }

    #[test]
    fn a_stream_of_single_bytes_fills_pages() {
        let mut a = Assembler::new(3);
        for i in 0..40_000u64 {
            a.insert(4 + i, &[byte(4 + i)]).unwrap();
        }
        assert!(a.memory() < 40_000 + 8 * PAGE);
        a.insert(3, &[byte(3)]).unwrap();
        let mut all = Vec::new();
        while let Some(piece) = a.read_bytes(1000) {
            all.extend_from_slice(&piece);
        }
        assert_eq!(all, bytes(3, 40_001));
        assert!(a.is_empty() && a.pages.is_empty());
    }

    #[test]
    fn the_far_end_of_the_offset_space_does_not_overflow() {
        let top = (1 << 62) - 1;
        let mut a = Assembler::new(top - 10);
        a.insert(top - 5, &[1; 5]).unwrap();
        a.insert(u64::MAX - 1, &[1; 5]).unwrap();
        a.insert(top - 10, &[1; 5]).unwrap();
        assert_eq!(a.readable(), 10);
    }

    proptest! {
        #[test]
        fn behaves_like_a_vec(
            start in 0u64..10_000,
            ops in prop::collection::vec(
                (0u64..20_000, 0usize..6_000, 0u8..4, 0usize..9_000), 1..60)
        ) {
            let mut a = Assembler::new(start);
            let mut there = vec![false; 30_000];
            let mut read = start;
            for (offset, len, verb, n) in ops {
                a.insert(start + offset, &bytes(start + offset, len)).unwrap();
                there[offset as usize..offset as usize + len].fill(true);
                let from = (read - start) as usize;
                let run = there[from..].iter().take_while(|t| **t).count();
                prop_assert_eq!(a.readable(), run as u64);
                let got = match verb {
                    0 => {
                        let mut out = vec![0; n];
                        let n = a.read(&mut out);
                        out.truncate(n);
                        prop_assert_eq!(n, out.len().min(run));
                        out
                    }
                    1 => a.read_bytes(n).map(|b| b.to_vec()).unwrap_or_default(),
                    2 => {
                        let out = a.chunk().get(..n.min(a.chunk().len())).unwrap().to_vec();
                        a.advance_to(read + out.len() as u64);
                        out
                    }
                    _ => Vec::new(),
                };
                prop_assert_eq!(&got, &bytes(read, got.len()));
                prop_assert!(got.len() <= run);
                read += got.len() as u64;
                prop_assert_eq!(a.read_offset(), read);
                let left = there[(read - start) as usize..].iter().filter(|t| **t).count();
                prop_assert_eq!(a.buffered(), left as u64);
            }
        }
    }
}
