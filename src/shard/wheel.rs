//! The timers of one shard: a hierarchical timer wheel with one entry per key.
//!
//! Setting, replacing and clearing are O(1) and allocate only when a key larger than any before
//! appears. A timer never fires early; it fires at the first poll at or after its time, rounded up
//! to a tick of 1.024 µs. An idle wheel costs nothing per tick: a poll looks at the first occupied
//! slot, however much time passed.
//!
//! Which timer a key stands for, and what to do when it fires, is the shard's business.

use crate::base::Timestamp;

/// Nanoseconds of a tick, as a power of two. Finer than any timer of QUIC needs (RFC 9002 §6.1.2:
/// 1 ms), so that a pacer may use the wheel as well; the levels below make it free.
const TICK_BITS: u32 = 10;
/// Slots of a level, as a power of two: one occupancy word per level.
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// Levels that cover every timestamp: 10 + 9 * 6 = 64 bits.
const LEVELS: usize = ((u64::BITS - TICK_BITS) / SLOT_BITS) as usize;
/// The last tick there is.
const TICK_MAX: u64 = (1 << (LEVELS as u32 * SLOT_BITS)) - 1;
/// Entries looked at for an exact deadline; a fuller slot answers with its beginning.
const EXACT_SCAN: usize = 16;
/// "No entry" in a link.
const NIL: u32 = u32::MAX;
/// "In no list" in place of a list's index.
const UNSET: u16 = u16::MAX;

const _: () = assert!(TICK_BITS + LEVELS as u32 * SLOT_BITS == u64::BITS);

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: Timestamp,
    prev: u32,
    next: u32,
    /// The list it is in: `level * SLOTS + slot`, or `UNSET`.
    list: u16,
}

impl Entry {
    const FREE: Self = Self {
        at: Timestamp::NEVER,
        prev: NIL,
        next: NIL,
        list: UNSET,
    };
}

/// Timers by key. Keys are small dense numbers: memory is 24 bytes per largest key.
#[derive(Debug)]
pub struct Wheel {
    /// All ticks before this one have fired. An entry's level is the highest base-64 digit in
    /// which its tick differs from this, so a level's occupied slots are ahead of its own digit,
    /// and every entry of a level is due before any entry of a higher one.
    elapsed: u64,
    occupied: [u64; LEVELS],
    heads: Box<[u32; LEVELS * SLOTS]>,
    entries: Vec<Entry>,
    armed: usize,
}

impl Wheel {
    /// An empty wheel whose time starts at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self {
            elapsed: now.as_nanos() >> TICK_BITS,
            occupied: [0; LEVELS],
            heads: Box::new([NIL; LEVELS * SLOTS]),
            entries: Vec::new(),
            armed: 0,
        }
    }

    /// Timers that are set.
    pub fn len(&self) -> usize {
        self.armed
    }

    /// Whether no timer is set.
    pub fn is_empty(&self) -> bool {
        self.armed == 0
    }

    /// When the timer of `key` is set to fire.
    pub fn deadline(&self, key: u32) -> Option<Timestamp> {
        let entry = self.entries.get(key as usize)?;
        (entry.list != UNSET).then_some(entry.at)
    }

    /// Sets the timer of `key` to fire at `at`, in place of what it was set to.
    /// [`Timestamp::NEVER`] clears it.
    pub fn set(&mut self, key: u32, at: Timestamp) {
        if at == Timestamp::NEVER {
            return self.clear(key);
        }
        let index = key as usize;
        if index >= self.entries.len() {
            self.entries.resize(index + 1, Entry::FREE);
        }
        let list = self.list_for(at);
        let old = self.entries[index].list;
        self.entries[index].at = at;
        // A timer that is pushed back a little, as a PTO is by every ACK, stays where it is.
        if old == list {
            return;
        }
        if old == UNSET {
            self.armed += 1;
        } else {
            self.unlink(key);
        }
        self.link(key, list);
    }

    /// Clears the timer of `key`, if it is set.
    pub fn clear(&mut self, key: u32) {
        match self.entries.get(key as usize) {
            Some(entry) if entry.list != UNSET => {
                self.unlink(key);
                self.armed -= 1;
            }
            _ => {}
        }
    }

    /// The key of one timer that is due at `now`, which is thereby cleared. To be called until it
    /// says `None`; keys of one tick come in no particular order.
    pub fn poll(&mut self, now: Timestamp) -> Option<u32> {
        let now_tick = now.as_nanos() >> TICK_BITS;
        while let Some((level, slot)) = self.first_slot() {
            let start = self.slot_start(level, slot);
            if start > now_tick {
                break;
            }
            self.elapsed = start.max(self.elapsed);
            let list = level * SLOTS + slot;
            if level == 0 {
                let key = self.heads[list];
                self.unlink(key);
                self.armed -= 1;
                return Some(key);
            }
            self.cascade(list);
        }
        self.elapsed = self.elapsed.max(now_tick);
        None
    }

    /// When to poll next: never after the earliest timer is due. Exact where the earliest slot
    /// holds few timers; otherwise possibly early, and then a poll at that time brings it closer.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let (level, slot) = self.first_slot()?;
        let start = ticks(self.slot_start(level, slot).max(self.elapsed));
        if level == 0 {
            return Some(start);
        }
        let mut earliest = Timestamp::NEVER;
        let mut key = self.heads[level * SLOTS + slot];
        for _ in 0..EXACT_SCAN {
            let Some(entry) = self.entries.get(key as usize) else {
                return Some(ticks(tick_of(earliest)));
            };
            earliest = earliest.min(entry.at);
            key = entry.next;
        }
        Some(start)
    }

    /// The list that a timer for `at` belongs into, seen from `elapsed`.
    fn list_for(&self, at: Timestamp) -> u16 {
        // What is already due goes into the slot that the next poll looks at.
        let tick = tick_of(at).max(self.elapsed);
        let differs = tick ^ self.elapsed;
        let level = (u64::BITS - 1).saturating_sub(differs.leading_zeros()) / SLOT_BITS;
        let slot = (tick >> (level * SLOT_BITS)) as usize % SLOTS;
        (level as usize * SLOTS + slot) as u16
    }

    /// The slot that holds the earliest timer.
    fn first_slot(&self) -> Option<(usize, usize)> {
        let level = self.occupied.iter().position(|&word| word != 0)?;
        Some((level, self.occupied[level].trailing_zeros() as usize))
    }

    /// The first tick of a slot: `elapsed` with this level's digit replaced and those below zero.
    fn slot_start(&self, level: usize, slot: usize) -> u64 {
        let shift = level as u32 * SLOT_BITS;
        let above = self.elapsed >> shift >> SLOT_BITS << SLOT_BITS << shift;
        above | (slot as u64) << shift
    }

    /// Spreads a slot whose time has come over the levels below.
    fn cascade(&mut self, list: usize) {
        let mut key = self.heads[list];
        self.heads[list] = NIL;
        self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
        while key != NIL {
            let entry = self.entries[key as usize];
            let list = self.list_for(entry.at);
            self.link(key, list);
            key = entry.next;
        }
    }

    fn link(&mut self, key: u32, list: u16) {
        let at = list as usize;
        let next = std::mem::replace(&mut self.heads[at], key);
        if next != NIL {
            self.entries[next as usize].prev = key;
        }
        let entry = &mut self.entries[key as usize];
        entry.prev = NIL;
        entry.next = next;
        entry.list = list;
        self.occupied[at / SLOTS] |= 1 << (at % SLOTS);
    }

    fn unlink(&mut self, key: u32) {
        let entry = &mut self.entries[key as usize];
        let Entry {
            prev, next, list, ..
        } = *entry;
        entry.list = UNSET;
        if next != NIL {
            self.entries[next as usize].prev = prev;
        }
        if prev != NIL {
            self.entries[prev as usize].next = next;
            return;
        }
        let at = list as usize;
        self.heads[at] = next;
        if next == NIL {
            self.occupied[at / SLOTS] &= !(1 << (at % SLOTS));
        }
    }
}

/// The first tick that begins at or after `at`.
fn tick_of(at: Timestamp) -> u64 {
    (at.as_nanos().div_ceil(1 << TICK_BITS)).min(TICK_MAX)
}

/// The beginning of a tick.
fn ticks(tick: u64) -> Timestamp {
    Timestamp::from_nanos(tick << TICK_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    const TICK: Duration = Duration::from_nanos(1 << TICK_BITS);

    fn drain(wheel: &mut Wheel, now: Timestamp) -> Vec<u32> {
        let mut fired: Vec<u32> = std::iter::from_fn(|| wheel.poll(now)).collect();
        fired.sort_unstable();
        fired
    }

    #[test]
    fn fires_once_and_not_early() {
        let t = |ns| Timestamp::from_nanos(ns);
        let mut wheel = Wheel::new(t(5_000_000));
        wheel.set(3, t(9_000_001));
        assert_eq!(wheel.poll(t(9_000_000)), None);
        assert_eq!(
            wheel.next_deadline().map(|d| d - t(9_000_001) < TICK),
            Some(true)
        );
        assert_eq!(wheel.poll(t(9_000_001) + TICK), Some(3));
        assert_eq!(wheel.poll(t(u64::MAX - 1)), None);
        assert_eq!(wheel.next_deadline(), None);
    }

    #[test]
    fn a_time_that_passed_fires_at_the_next_poll() {
        let now = Timestamp::from_nanos(1 << 40);
        let mut wheel = Wheel::new(now);
        wheel.set(0, Timestamp::ZERO);
        assert!(wheel.next_deadline().is_some_and(|d| d <= now));
        assert_eq!(wheel.poll(now), Some(0));
    }

    #[test]
    fn never_clears() {
        let mut wheel = Wheel::new(Timestamp::ZERO);
        wheel.set(0, Timestamp::from_nanos(10));
        wheel.set(0, Timestamp::NEVER);
        assert!(wheel.is_empty() && wheel.deadline(0).is_none());
        assert_eq!(wheel.poll(Timestamp::NEVER), None);
    }

    #[test]
    fn a_slot_of_many_timers_still_names_a_time_not_after_the_first() {
        let mut wheel = Wheel::new(Timestamp::ZERO);
        for key in 0..100 {
            wheel.set(key, Timestamp::from_nanos((1 << 33) + u64::from(key)));
        }
        let mut polls = 0;
        while wheel.len() == 100 {
            let next = wheel.next_deadline().unwrap();
            assert!(next <= Timestamp::from_nanos(1 << 33) + TICK);
            wheel.poll(next);
            polls += 1;
        }
        assert!(polls <= LEVELS, "{polls} polls until the first timer");
    }

    #[derive(Clone, Debug)]
    enum Op {
        Set(u32, u64),
        Clear(u32),
        Advance(u64),
        ToDeadline,
    }

    /// Spans from below a tick to centuries, so that every level is used.
    fn span() -> impl Strategy<Value = u64> {
        (0u32..63, any::<u64>()).prop_map(|(bits, v)| v >> (63 - bits))
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0u32..24, span()).prop_map(|(k, d)| Op::Set(k, d)),
            1 => (0u32..24).prop_map(Op::Clear),
            2 => span().prop_map(|d| Op::Advance(d >> 8)),
            2 => Just(Op::ToDeadline),
        ]
    }

    proptest! {
        /// Against a sorted map: what fires is due, what is due by a whole tick fires, and the
        /// announced deadline is never later than the first timer.
        #[test]
        fn agrees_with_a_sorted_model(
            start in any::<u32>(),
            ops in prop::collection::vec(op(), 1..200),
        ) {
            let mut now = Timestamp::from_nanos(u64::from(start));
            let mut wheel = Wheel::new(now);
            let mut model: BTreeMap<u32, Timestamp> = BTreeMap::new();
            for op in ops {
                match op {
                    Op::Set(key, after) => {
                        let at = now + Duration::from_nanos(after);
                        wheel.set(key, at);
                        if at == Timestamp::NEVER {
                            model.remove(&key);
                        } else {
                            model.insert(key, at);
                        }
                    }
                    Op::Clear(key) => {
                        wheel.clear(key);
                        model.remove(&key);
                    }
                    Op::Advance(by) => now += Duration::from_nanos(by),
                    Op::ToDeadline => now = wheel.next_deadline().map_or(now, |d| d.max(now)),
                }
                for key in drain(&mut wheel, now) {
                    let at = model.remove(&key);
                    let due = at.is_some_and(|at| at <= now);
                        prop_assert!(due, "{key} fired at {now:?}, set {at:?}");
                }
                let first = model.values().min().copied();
                if let Some(first) = first.filter(|f| f.as_nanos() < u64::MAX - 2048) {
                    prop_assert!(now.as_nanos() < first.as_nanos() + (1 << TICK_BITS));
                    let next = wheel.next_deadline();
                    let near = next.is_some_and(|d| d < first + TICK && d > now);
                        prop_assert!(near, "{next:?} {first:?}");
                }
                prop_assert_eq!(wheel.len(), model.len());
                for (key, at) in &model {
                    prop_assert_eq!(wheel.deadline(*key), Some(*at));
                }
            }
        }
    }
}
