//! ACK frames (RFC 9000 §19.3) and the body that PATH_ACK frames (multipath §4.1) share with them:
//! read as an iterator over ranges that is proven sound when the frame is parsed, written from any
//! descending sequence of ranges.
//!
//! Which packets to acknowledge and when lives in `recovery`.

use super::TransportError;
use crate::base::PathId;
use crate::base::limits::ACK_FRAME_RANGES;
use crate::wire::varint::{Reader, Writer, size};
use std::ops::RangeInclusive;

/// Without ECN counts; the low bit says that they follow.
const ACK: u8 = 0x02;
const PATH_ACK: u8 = 0x3e;
const ECN: u8 = 0x01;

/// Ranges in one frame that [`write()`] produces at most: what a one-byte count of further ranges
/// allows.
pub const MAX_WRITTEN_RANGES: usize = 64;

/// An ACK frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// The largest packet number that is acknowledged.
    pub largest: u64,
    /// The acknowledgment delay as sent: microseconds shifted right by ack_delay_exponent.
    pub delay: u64,
    /// The acknowledged packet numbers.
    pub ranges: AckRanges<'a>,
    /// ECN counts, where the frame carries them.
    pub ecn: Option<EcnCounts>,
}

/// Cumulative counts of packets received with each ECN mark (RFC 9000 §19.3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EcnCounts {
    /// ECT(0).
    pub ect0: u64,
    /// ECT(1).
    pub ect1: u64,
    /// Congestion experienced.
    pub ce: u64,
}

impl EcnCounts {
    const fn size(&self) -> usize {
        size(self.ect0) + size(self.ect1) + size(self.ce)
    }
}

/// The ranges of an ACK frame in descending order, none empty, no two adjacent or overlapping.
///
/// It yields at most [`ACK_FRAME_RANGES`] of them; what lies below is ignored.
#[derive(Clone, Copy, Debug)]
pub struct AckRanges<'a> {
    /// The next range: its largest packet number, and how many lie below that.
    largest: u64,
    below: u64,
    /// Ranges still to come, the next one included.
    left: usize,
    /// The encoded ranges after the next one; checked to be complete and not to underflow.
    encoded: Reader<'a>,
}

impl Iterator for AckRanges<'_> {
    type Item = RangeInclusive<u64>;

    #[inline]
    fn next(&mut self) -> Option<RangeInclusive<u64>> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let smallest = self.largest.saturating_sub(self.below);
        let range = smallest..=self.largest;
        if self.left > 0 {
            match step(&mut self.encoded, smallest) {
                Ok((largest, below)) => (self.largest, self.below) = (largest, below),
                // Unreachable: `check` has taken the same steps.
                Err(_) => self.left = 0,
            }
        }
        Some(range)
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for AckRanges<'_> {}

/// Equal when they acknowledge the same packets.
impl PartialEq for AckRanges<'_> {
    fn eq(&self, other: &Self) -> bool {
        Iterator::eq(*self, *other)
    }
}

impl Eq for AckRanges<'_> {}

/// Reads the range below one that ends at `smallest`: its largest packet number and how many it
/// has below that.
#[inline]
fn step(r: &mut Reader<'_>, smallest: u64) -> Result<(u64, u64), TransportError> {
    let gap = r.varint()?;
    let below = r.varint()?;
    // RFC 9000 §19.3.1. Both sums stay below 2^63.
    match smallest.checked_sub(gap + 2) {
        Some(largest) if below <= largest => Ok((largest, below)),
        _ => Err(negative()),
    }
}

#[cold]
fn negative() -> TransportError {
    TransportError::frame_encoding_error("an ACK range reaches below packet number 0")
}

impl<'a> Ack<'a> {
    /// Reads what follows the type `ty`, and in a PATH_ACK frame the path identifier; the lowest
    /// bit of the type tells whether ECN counts are there.
    #[inline]
    pub(super) fn parse(r: &mut Reader<'a>, ty: u8) -> Result<Self, TransportError> {
        let largest = r.varint()?;
        let delay = r.varint()?;
        let count = r.varint()?;
        let first = r.varint()?;
        if first > largest {
            return Err(negative());
        }
        let encoded = *r;
        if count > 0 {
            check(r, count, largest - first)?;
        }
        let ecn = if ty & ECN != 0 {
            Some(EcnCounts {
                ect0: r.varint()?,
                ect1: r.varint()?,
                ce: r.varint()?,
            })
        } else {
            None
        };
        Ok(Self {
            largest,
            delay,
            ranges: AckRanges {
                largest,
                below: first,
                left: 1 + count.min(ACK_FRAME_RANGES as u64 - 1) as usize,
                encoded,
            },
            ecn,
        })
    }

    pub(super) const fn ty(&self) -> u64 {
        (ACK | if self.ecn.is_some() { ECN } else { 0 }) as u64
    }

    /// The type of a PATH_ACK frame with this body.
    pub(super) const fn path_ty(&self) -> u64 {
        (PATH_ACK | if self.ecn.is_some() { ECN } else { 0 }) as u64
    }
}

/// Walks `count` further ranges below one that ends at `smallest`. Every range takes at least two
/// bytes, so a frame's bytes bound this loop, whatever `count` says.
fn check(r: &mut Reader<'_>, count: u64, mut smallest: u64) -> Result<(), TransportError> {
    for _ in 0..count {
        let (largest, below) = step(r, smallest)?;
        smallest = largest - below;
    }
    Ok(())
}

/// Appends an ACK frame of as many of `ranges_desc` as fit in the space left and in one frame
/// ([`MAX_WRITTEN_RANGES`]). Returns how many those are; 0 means that nothing was written.
///
/// The ranges descend, and at least one packet number lies between any two of them. `delay` is
/// already shifted right by our ack_delay_exponent.
#[inline]
pub fn write(
    w: &mut Writer<'_>,
    ranges_desc: impl IntoIterator<Item = RangeInclusive<u64>>,
    delay: u64,
    ecn: Option<EcnCounts>,
) -> usize {
    write_for(w, None, ranges_desc, delay, ecn)
}

/// As [`write()`], as a PATH_ACK frame: what is acknowledged are packets of `path`.
#[inline]
pub fn write_path(
    w: &mut Writer<'_>,
    path: PathId,
    ranges_desc: impl IntoIterator<Item = RangeInclusive<u64>>,
    delay: u64,
    ecn: Option<EcnCounts>,
) -> usize {
    write_for(w, Some(path), ranges_desc, delay, ecn)
}

#[inline]
fn write_for(
    w: &mut Writer<'_>,
    path: Option<PathId>,
    ranges_desc: impl IntoIterator<Item = RangeInclusive<u64>>,
    delay: u64,
    ecn: Option<EcnCounts>,
) -> usize {
    let mut ranges = ranges_desc.into_iter();
    let Some(first) = ranges.next() else {
        return 0;
    };
    let (mut smallest, largest) = first.into_inner();
    let below = largest.saturating_sub(smallest);
    let ecn_size = ecn.map_or(0, |e| e.size());
    let id_size = path.map_or(0, |path| size(path.0.into()));
    let fixed = 1 + id_size + size(largest) + size(delay) + 1 + size(below) + ecn_size;
    let Some(mut room) = w.remaining().checked_sub(fixed) else {
        return 0;
    };
    let flag = if ecn.is_some() { ECN } else { 0 };
    if let Some(path) = path {
        w.u8(PATH_ACK | flag);
        w.varint(path.0.into());
    } else {
        w.u8(ACK | flag);
    }
    w.varint(largest);
    w.varint(delay);
    let count_at = w.position();
    w.u8(0);
    w.varint(below);
    let mut written = 1;
    while written < MAX_WRITTEN_RANGES
        && let Some(range) = ranges.next()
    {
        let (low, high) = range.into_inner();
        let Some(gap) = smallest.checked_sub(high.saturating_add(2)) else {
            debug_assert!(false, "ranges descend with a gap between them");
            break;
        };
        let below = high.saturating_sub(low);
        let Some(left) = room.checked_sub(size(gap) + size(below)) else {
            break;
        };
        room = left;
        w.varint(gap);
        w.varint(below);
        smallest = low;
        written += 1;
    }
    w.patch_u8(count_at, (written - 1) as u8);
    if let Some(ecn) = ecn {
        w.varint(ecn.ect0);
        w.varint(ecn.ect1);
        w.varint(ecn.ce);
    }
    written
}

const _: () = assert!(MAX_WRITTEN_RANGES <= 64, "the count is written as one byte");

#[cfg(test)]
mod tests;
