//! Stream numbers of one kind (RFC 9000 §2.1, §4.6): which are open, how many may be.
//!
//! A peer opens every lower number with the one it uses. Those without a frame of their own stay a
//! range here until one arrives or the application accepts them, so that the highest permitted ID
//! costs what any other costs. At most as many ranges exist as streams may be open.

use super::range_set::RangeSet;
use crate::wire::TransportError;
use crate::wire::frame::stream::MAX_STREAMS;

/// Streams that we open.
#[derive(Debug, Default)]
pub(super) struct LocalIds {
    /// The next number.
    pub(super) next: u64,
    /// The peer's MAX_STREAMS.
    pub(super) limit: u64,
    /// The application was refused a stream at this limit and waits.
    pub(super) blocked: bool,
}

impl LocalIds {
    /// The number of a new stream, within the peer's limit.
    pub(super) fn open(&mut self) -> Option<u64> {
        if self.next >= self.limit {
            self.blocked = true;
            return None;
        }
        self.next += 1;
        Some(self.next - 1)
    }

    /// Raises the limit; false when it already was as high: old news (RFC 9000 §19.11).
    pub(super) fn on_max_streams(&mut self, max: u64) -> bool {
        let max = max.min(MAX_STREAMS);
        let raised = max > self.limit;
        self.limit = self.limit.max(max);
        raised
    }

    /// Whether the application waited for a stream and can have one now; once.
    pub(super) fn take_available(&mut self) -> bool {
        let available = self.blocked && self.next < self.limit;
        self.blocked &= !available;
        available
    }
}

/// What a number that the peer used stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Open, without state yet.
    Unmade,
    /// It has state, or had and is closed.
    Made,
}

/// Streams that the peer opens.
#[derive(Debug)]
pub(super) struct PeerIds {
    /// All numbers below are open or closed.
    next: u64,
    /// All numbers below were given to the application, or were closed before.
    accepted: u64,
    /// Open numbers without state.
    unmade: RangeSet,
    /// Streams that may be open at once.
    window: u64,
    /// Streams closed.
    closed: u64,
    /// The announced MAX_STREAMS.
    limit: u64,
}

impl PeerIds {
    pub(super) fn new(window: u64) -> Self {
        let window = window.min(MAX_STREAMS);
        Self {
            next: 0,
            accepted: 0,
            unmade: RangeSet::new(),
            window,
            closed: 0,
            limit: window,
        }
    }

    /// Opens every stream up to `index`; true when that was news.
    ///
    /// RFC 9000 §3.2: lower ones first. §4.6, §19.11: a number beyond the announced limit is
    /// STREAM_LIMIT_ERROR.
    pub(super) fn open(&mut self, index: u64) -> Result<bool, TransportError> {
        if index < self.next {
            return Ok(false);
        }
        if index >= self.limit {
            return Err(TransportError::stream_limit_error(
                "more streams than MAX_STREAMS permits",
            ));
        }
        self.unmade.insert(self.next, index + 1);
        self.next = index + 1;
        Ok(true)
    }

    /// Numbers that are open or closed: all below this one.
    pub(super) fn opened(&self) -> u64 {
        self.next
    }

    /// What an open number stands for. The caller gives state to one that has none.
    pub(super) fn make(&mut self, index: u64) -> Known {
        if !self.unmade.contains(index) {
            return Known::Made;
        }
        self.unmade.remove(index, index + 1);
        Known::Unmade
    }

    /// [`PeerIds::open`] and [`PeerIds::make`] of a number whose first frame is there: mostly the
    /// next one, which then need not wait among the others.
    #[inline]
    pub(super) fn open_to_use(&mut self, index: u64) -> Result<(bool, Known), TransportError> {
        if index == self.next && index < self.limit {
            self.next += 1;
            return Ok((true, Known::Unmade));
        }
        let opened = self.open(index)?;
        Ok((opened, self.make(index)))
    }

    /// The next number that the application has not seen, in order. It may be closed.
    pub(super) fn accept(&mut self) -> Option<u64> {
        if self.accepted >= self.next {
            return None;
        }
        self.accepted += 1;
        Some(self.accepted - 1)
    }

    /// A stream is gone; true when a new limit is to be announced.
    ///
    /// Not with each: as many together as an eighth of the window, or as half of what the peer has
    /// left where that is less, so that it never runs dry while streams are closing.
    pub(super) fn on_closed(&mut self) -> bool {
        self.closed += 1;
        let credit = self.target() - self.limit;
        let left = self.limit - self.next;
        credit > 0 && credit >= (self.window / 8).min(left / 2).max(1)
    }

    /// Whether the peer's limit is below what it could be.
    pub(super) fn can_raise(&self) -> bool {
        self.target() > self.limit
    }

    /// Raises the limit to what is to be announced now, and returns it.
    pub(super) fn raise(&mut self) -> u64 {
        self.limit = self.limit.max(self.target());
        self.limit
    }

    fn target(&self) -> u64 {
        self.window
            .saturating_add(self.closed)
            .min(MAX_STREAMS)
            .max(self.limit)
    }

    #[cfg(test)]
    pub(super) fn unmade_ranges(&self) -> usize {
        self.unmade.len()
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.next, self.closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Code;

    #[test]
    fn the_highest_number_opens_all_lower_ones_in_one_range() {
        let mut ids = PeerIds::new(1 << 60);
        assert_eq!(ids.open((1 << 60) - 1), Ok(true));
        assert_eq!(ids.unmade_ranges(), 1);
        assert_eq!(ids.make(1 << 40), Known::Unmade);
        assert_eq!(ids.make(1 << 40), Known::Made);
        assert_eq!(ids.unmade_ranges(), 2);
        assert_eq!(
            ids.open(1 << 60).unwrap_err().code,
            Code::STREAM_LIMIT_ERROR
        );
        assert_eq!((ids.accept(), ids.accept()), (Some(0), Some(1)));
    }

    #[test]
    fn every_second_stream_left_open_costs_at_most_the_limit() {
        let mut ids = PeerIds::new(64);
        let mut index = 1;
        while ids.open(index).is_ok() {
            assert_eq!(ids.make(index), Known::Unmade);
            ids.on_closed();
            ids.raise();
            index += 2;
        }
        assert!(ids.unmade_ranges() <= 64);
        // Each left-open stream took one of the 64 away, the last one's number is out of reach.
        assert_eq!(index / 2, 63);
    }

    #[test]
    fn credit_is_announced_in_batches_and_never_withheld() {
        let mut ids = PeerIds::new(64);
        ids.open(31).unwrap();
        let raised: Vec<bool> = (0..8).map(|_| ids.on_closed()).collect();
        assert_eq!(raised.iter().filter(|r| **r).count(), 1);
        assert!(raised[7]);
        assert_eq!(ids.raise(), 72);
        // With nothing left, each closed stream is announced at once.
        ids.open(71).unwrap();
        assert!(ids.on_closed());
        assert_eq!(ids.raise(), 73);
        assert!(!ids.can_raise());
    }

    #[test]
    fn our_streams_wait_for_the_limit() {
        let mut ids = LocalIds::default();
        assert_eq!(ids.open(), None);
        assert!(ids.on_max_streams(1) && ids.take_available() && !ids.take_available());
        assert_eq!((ids.open(), ids.open()), (Some(0), None));
        assert!(!ids.on_max_streams(0));
        assert!(ids.on_max_streams(u64::MAX));
        assert_eq!(ids.limit, MAX_STREAMS);
    }
}
