//! What the peer is to be told, and when: at once, or with what it sends next.
//!
//! An acknowledgement of a short SEND may wait a little. Whoever sends one that is answered by
//! another needs no packet of its own in between, and one acknowledgement covers many. Refusals,
//! bulk data and what came twice are told at once.

use crate::base::Timestamp;
use crate::base::limits::ROCE_HELD_ACKS;
use crate::rdma::roce::wire::headers::Syndrome;

/// See the module's description.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Owed {
    syndrome: Option<Syndrome>,
    /// Messages whose acknowledgement waits; 0 when what is owed is told at once.
    held: u8,
    /// When the first of them came.
    since: Timestamp,
}

impl Owed {
    /// What to tell now.
    #[inline]
    pub fn due(&self) -> Option<Syndrome> {
        self.syndrome.filter(|_| self.held == 0)
    }

    /// Since when something is held back.
    #[inline]
    pub fn held_since(&self) -> Option<Timestamp> {
        (self.held > 0).then_some(self.since)
    }

    /// Tells this, in place of what was owed.
    #[inline]
    pub fn tell(&mut self, syndrome: Syndrome) {
        (self.syndrome, self.held) = (Some(syndrome), 0);
    }

    /// Acknowledges what was served: later, unless something is to be told now anyway.
    #[inline]
    pub fn tell_later(&mut self, now: Timestamp) {
        match (self.syndrome, self.held) {
            (None, _) => (self.held, self.since) = (1, now),
            (Some(_), held) if held > 0 && held + 1 < ROCE_HELD_ACKS => self.held += 1,
            (Some(_), _) => self.held = 0,
        }
        self.syndrome = Some(Syndrome::Ack);
    }

    /// What is held back is told now.
    pub fn release(&mut self) {
        self.held = 0;
    }

    /// Nothing is owed.
    #[inline]
    pub fn clear(&mut self) {
        (self.syndrome, self.held) = (None, 0);
    }
}
