//! Long data that leaves from registered memory: a train's buffer holds its headers, and here
//! stands which bytes come between them.
//!
//! A copy less for each packet, where whoever sends takes pieces. The bytes are looked at twice,
//! for the ICRC and when they leave; the device is not worked on in between.

use super::memory::{Memory, Span};
use crate::base::limits::GATHER_PIECES;

/// From so many bytes on, a copy costs more than one more piece.
const LONG: usize = 2048;

/// Data of one packet.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Bytes of the train's buffer that go before it.
    at: usize,
    span: Span,
    offset: u32,
    len: usize,
}

/// The pieces of one train, in order.
#[derive(Debug)]
pub(super) struct Pieces(Vec<Piece>);

impl Pieces {
    pub fn new() -> Self {
        Self(Vec::with_capacity(GATHER_PIECES))
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether data of `len` bytes is better left where it is. Padding would have to follow it.
    #[inline]
    pub fn take(&self, len: usize) -> bool {
        len >= LONG && len.is_multiple_of(4) && self.0.len() < GATHER_PIECES
    }

    /// `len` bytes of `span` from `offset` go behind `at` bytes of the buffer.
    #[inline]
    pub fn push(&mut self, at: usize, (span, offset): (Span, u32), len: usize) {
        self.0.push(Piece {
            at,
            span,
            offset,
            len,
        });
    }

    /// How many bytes of the buffer go before the `n`th piece, and its bytes.
    #[inline]
    pub fn get<'a>(&self, n: usize, memory: &'a Memory) -> Option<(usize, &'a [u8])> {
        let piece = self.0.get(n)?;
        let bytes = memory.slice(&piece.span, piece.offset, piece.len)?;
        Some((piece.at, bytes))
    }
}
