//! What waits to be sent, as far as the choice of its way depends on it.

use super::set::Streams;
use crate::base::PathId;
use crate::wire::StreamId;

/// Streams that are looked at.
const LOOKED_AT: usize = 16;

/// What the streams of a connection have waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Bytes that wait, counted over the first few streams that have some.
    pub bytes: u64,
    /// The stream that sends next.
    pub next: Option<StreamId>,
    /// What is sent next repeats something, or ends a stream.
    pub again: bool,
    /// The priority of the stream that sends next; 0 is the default.
    pub priority: i8,
    /// New bytes that the peer's connection flow control admits.
    pub credit: u64,
    /// It admits none, and some wait.
    pub blocked: bool,
}

impl Streams {
    /// Stream bytes that were sent again so far.
    #[inline]
    pub(crate) const fn bytes_again(&self) -> u64 {
        self.stats.tx_bytes_again
    }

    /// What waits to be sent. Time in proportion to a few streams at most.
    pub fn outlook(&self) -> Outlook {
        let credit = self.flow.credit();
        let next = self.schedule.outlook(credit > 0);
        let mut bytes = 0u64;
        for slot in self.schedule.waiting().take(LOOKED_AT) {
            let slot = self.slots.get(slot as usize);
            let send = slot.and_then(|s| s.send.as_ref());
            bytes = bytes.saturating_add(send.map_or(0, |s| s.waiting()));
        }
        let id = |slot: u32| self.slots.get(slot as usize).map(|s| s.id);
        let stream = next.and_then(|(slot, ..)| id(slot));
        let (_, priority, again) = next.unwrap_or_default();
        Outlook {
            bytes,
            next: stream,
            again,
            priority,
            credit,
            blocked: credit == 0 && self.schedule.needs_credit(),
        }
    }

    /// Bytes that wait on streams that go by that path alone, counted over the first few of them.
    pub(crate) fn bytes_pinned_to(&self, path: PathId) -> u64 {
        let of = |slot: u32| {
            self.slots
                .get(slot as usize)?
                .send
                .as_ref()
                .map(|s| s.waiting())
        };
        let first = self.schedule.waiting_for(path).take(LOOKED_AT);
        first.filter_map(of).sum()
    }
}
