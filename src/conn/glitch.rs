//! A budget for frames that lead nowhere (RFC 9000 §21.9): streams opened and abandoned, limits
//! that raise nothing, empty STREAM frames, connection IDs and tokens exchanged without end.
//!
//! Each has a use and none is an error, so a peer may send many at once and go on at some rate: a
//! token bucket. Who empties it costs more than it does, and its connection is closed. Only what
//! the peer itself sealed counts, once: duplicated, forged and reordered packets and changes of
//! address, which anyone on the path can cause, spend nothing.

use super::Connection;
use crate::base::Timestamp;
use crate::wire::{PacketType, TransportError, frame::Frame};

/// What the budget refills to, and how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlitchLimit {
    /// Frames that lead nowhere, at once.
    pub burst: u32,
    /// And so many more every second.
    pub per_second: u32,
}

/// One connection's budget.
#[derive(Debug)]
pub(super) struct Glitches {
    /// What is left, in billionths of a frame.
    left: u64,
    refilled: Timestamp,
    /// Frames of the packet at hand.
    noted: u32,
}

const FRAME: u64 = 1_000_000_000;

impl Glitches {
    /// A full budget.
    pub(super) fn new(now: Timestamp, limit: Option<GlitchLimit>) -> Self {
        Self {
            left: limit.map_or(0, |l| u64::from(l.burst) * FRAME),
            refilled: now,
            noted: 0,
        }
    }

    /// Spends `n` frames; false when they are not there.
    fn spend(&mut self, now: Timestamp, n: u32, limit: GlitchLimit) -> bool {
        let nanos = now.as_nanos().saturating_sub(self.refilled.as_nanos());
        let gained = nanos.saturating_mul(u64::from(limit.per_second));
        let full = u64::from(limit.burst) * FRAME;
        self.left = self.left.saturating_add(gained).min(full);
        self.refilled = self.refilled.max(now);
        let rest = self.left.checked_sub(u64::from(n) * FRAME);
        self.left = rest.unwrap_or(0);
        rest.is_some()
    }
}

impl Connection {
    /// Notes a frame that is not about streams, which note their own.
    #[inline]
    pub(super) fn note_glitch(&mut self, ty: PacketType, frame: &Frame<'_>) {
        let counts = match frame {
            // Session tickets and tokens come in handfuls, connection IDs as they are used up.
            Frame::Crypto { .. } => ty == PacketType::OneRtt,
            Frame::NewToken(_)
            | Frame::NewConnectionId(_)
            | Frame::RetireConnectionId(_)
            | Frame::HandshakeDone
            | Frame::Path(_)
            | Frame::Address(_) => true,
            _ => false,
        };
        self.glitches.noted += u32::from(counts);
    }

    /// Charges what a packet's frames noted.
    #[inline]
    pub(super) fn charge_glitches(&mut self, now: Timestamp) -> Result<(), TransportError> {
        let n = self.streams.take_glitches() + std::mem::take(&mut self.glitches.noted);
        if n == 0 { Ok(()) } else { self.charge(now, n) }
    }

    #[cold]
    fn charge(&mut self, now: Timestamp, n: u32) -> Result<(), TransportError> {
        self.stats.glitches += u64::from(n);
        match self.config.glitches {
            Some(limit) if !self.glitches.spend(now, n, limit) => Err(
                TransportError::protocol_violation("more frames that lead nowhere than admitted"),
            ),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const LIMIT: GlitchLimit = GlitchLimit {
        burst: 10,
        per_second: 2,
    };

    #[test]
    fn a_burst_is_admitted_and_one_more_is_not() {
        let now = Timestamp::from_nanos(5);
        let mut g = Glitches::new(now, Some(LIMIT));
        assert!((0..10).all(|_| g.spend(now, 1, LIMIT)));
        assert!(!g.spend(now, 1, LIMIT));
        let mut g = Glitches::new(now, Some(LIMIT));
        assert!(!g.spend(now, 11, LIMIT));
    }

    #[test]
    fn the_rate_refills_what_was_spent_and_no_more_than_the_burst() {
        let mut now = Timestamp::ZERO;
        let mut g = Glitches::new(now, Some(LIMIT));
        assert!(g.spend(now, 10, LIMIT));
        for _ in 0..1000 {
            now += Duration::from_millis(500);
            assert!(g.spend(now, 1, LIMIT));
        }
        assert!(!g.spend(now, 1, LIMIT));
        now += Duration::from_secs(1 << 30);
        assert!(g.spend(now, 10, LIMIT));
        assert!(!g.spend(now, 1, LIMIT));
        // A clock that stands still or goes back gives nothing.
        assert!(!g.spend(Timestamp::ZERO, 1, LIMIT));
        now += Duration::from_millis(499);
        assert!(!g.spend(now, 1, LIMIT));
    }
}
