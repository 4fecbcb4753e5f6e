//! Deadlines of many queue pairs, of which few ever come.
//!
//! A deadline moves with every acknowledgement. So an entry stays where it is when its queue pair's
//! deadline moves back, and is put in again when it comes: one entry for many packets.

use crate::base::Timestamp;
use crate::rdma::slots::Key;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Timestamp, Key)>>,
}

/// Entries beyond two for each queue pair before those that mean nothing are thrown out.
const SLACK: usize = 64;

impl Timers {
    /// The earliest entry's time, at or before the earliest deadline.
    pub fn next(&self) -> Timestamp {
        self.heap
            .peek()
            .map_or(Timestamp::NEVER, |Reverse((t, _))| *t)
    }

    /// Sees to an entry at or before `deadline`, where `armed` is the queue pair's earliest one.
    /// Whether that is another one.
    #[inline]
    pub fn arm(&mut self, key: Key, deadline: Timestamp, armed: &mut Timestamp) -> bool {
        let sooner = deadline < *armed;
        if sooner {
            self.push(key, deadline);
            *armed = deadline;
        }
        sooner
    }

    /// Not part of every packet's way.
    #[inline(never)]
    fn push(&mut self, key: Key, deadline: Timestamp) {
        self.heap.push(Reverse((deadline, key)));
    }

    /// The next entry that is due.
    pub fn pop(&mut self, now: Timestamp) -> Option<(Timestamp, Key)> {
        let Reverse((t, _)) = self.heap.peek()?;
        if *t > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// Throws out what means nothing, once there is much: `armed` is a queue pair's earliest entry.
    pub fn trim(&mut self, live: usize, armed: impl Fn(Key) -> Option<Timestamp>) {
        if self.heap.len() > 2 * live + SLACK {
            self.heap
                .retain(|Reverse((t, key))| armed(*key) == Some(*t));
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.heap.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_kept_for_the_earliest_deadline_only() {
        let at = Timestamp::from_nanos;
        let key = Key {
            slot: 1,
            generation: 0,
        };
        let (mut timers, mut armed) = (Timers::default(), Timestamp::NEVER);
        for n in 50..1000 {
            timers.arm(key, at(n), &mut armed);
        }
        assert_eq!(
            (timers.len(), timers.next(), timers.pop(at(49))),
            (1, at(50), None)
        );
        timers.arm(key, at(20), &mut armed);
        assert_eq!(timers.pop(at(60)), Some((at(20), key)));
        assert_eq!(timers.pop(at(60)), Some((at(50), key)));
        assert_eq!(
            (timers.pop(at(60)), timers.next()),
            (None, Timestamp::NEVER)
        );
    }

    #[test]
    fn entries_that_mean_nothing_do_not_pile_up() {
        let key = Key {
            slot: 1,
            generation: 0,
        };
        let (mut timers, mut armed) = (Timers::default(), Timestamp::NEVER);
        for n in (1..10_000).rev() {
            timers.arm(key, Timestamp::from_nanos(n), &mut armed);
            timers.trim(1, |_| Some(armed));
            assert!(timers.len() <= 2 + SLACK);
        }
        assert_eq!(timers.next(), Timestamp::from_nanos(1));
    }
}
