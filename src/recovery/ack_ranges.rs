//! The packet numbers received in one space: exact, and bounded by `limits::ACK_RANGES`.
//!
//! The highest range lives outside the collection, so that a packet in order costs one comparison
//! and one addition. When there are too many ranges the lowest is forgotten and its end becomes the
//! floor: what lies below counts as received, which makes a late packet a loss but never lets a
//! duplicate through (RFC 9000 §13.2.3).

use crate::base::limits;
use std::collections::VecDeque;
use std::ops::RangeInclusive;

/// Packet numbers from `start` up to, not including, `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Range {
    start: u64,
    end: u64,
}

impl Range {
    const fn is_empty(self) -> bool {
        self.start >= self.end
    }

    const fn contains(self, pn: u64) -> bool {
        self.start <= pn && pn < self.end
    }
}

/// A set of received packet numbers.
#[derive(Clone, Debug, Default)]
pub struct AckRanges {
    /// The highest range; empty (0..0) only when nothing is held above the floor.
    top: Range,
    /// Every other range, ascending, disjoint and not adjacent.
    lower: VecDeque<Range>,
    /// Every number below counts as received.
    floor: u64,
}

impl AckRanges {
    /// An empty set; allocates when the first gap appears.
    pub const fn new() -> Self {
        Self {
            top: Range { start: 0, end: 0 },
            lower: VecDeque::new(),
            floor: 0,
        }
    }

    /// Gives back memory that it does not need.
    pub fn rest(&mut self) {
        self.lower.shrink_to(0);
    }

    /// Adds `pn`. False when it was there already or lies below the floor. `pn` is below 2^62.
    #[inline]
    pub fn insert(&mut self, pn: u64) -> bool {
        if pn == self.top.end && !self.top.is_empty() {
            self.top.end = pn + 1;
            return true;
        }
        self.insert_out_of_order(pn)
    }

    fn insert_out_of_order(&mut self, pn: u64) -> bool {
        if pn < self.floor || self.top.contains(pn) {
            return false;
        }
        if self.top.is_empty() || pn > self.top.end {
            if !self.top.is_empty() {
                self.lower.push_back(self.top);
                self.enforce_bound();
            }
            self.top = Range {
                start: pn,
                end: pn + 1,
            };
            return true;
        }
        // Not above the top range and not in it: below it.
        if pn + 1 == self.top.start {
            self.top.start = pn;
            if let Some(&below) = self.lower.back()
                && below.end == pn
            {
                self.lower.pop_back();
                self.top.start = below.start;
            }
            return true;
        }
        self.insert_lower(pn)
    }

    /// Adds `pn`, which lies at least two below the top range.
    fn insert_lower(&mut self, pn: u64) -> bool {
        // The first range that ends at or above `pn`: the only one that may hold or touch it from
        // below.
        let at = self.lower.partition_point(|r| r.end < pn);
        let touches_next = |next: Option<&Range>| next.is_some_and(|n| n.start == pn + 1);
        match self.lower.get(at).copied() {
            Some(r) if r.contains(pn) => return false,
            Some(r) if r.end == pn => {
                let end = match self.lower.get(at + 1) {
                    next if touches_next(next) => {
                        self.lower.remove(at + 1).map_or(pn + 1, |next| next.end)
                    }
                    _ => pn + 1,
                };
                if let Some(r) = self.lower.get_mut(at) {
                    r.end = end;
                }
            }
            Some(r) if r.start == pn + 1 => {
                if let Some(r) = self.lower.get_mut(at) {
                    r.start = pn;
                }
            }
            _ => {
                let new = Range {
                    start: pn,
                    end: pn + 1,
                };
                self.lower.insert(at, new);
                self.enforce_bound();
            }
        }
        true
    }

    /// Forgets the lowest range when there are too many.
    fn enforce_bound(&mut self) {
        if self.lower.len() >= limits::ACK_RANGES
            && let Some(lowest) = self.lower.pop_front()
        {
            self.floor = self.floor.max(lowest.end);
        }
    }

    /// Whether `pn` was received, or lies below the floor and counts as received.
    #[inline]
    pub fn contains(&self, pn: u64) -> bool {
        if pn < self.floor {
            return true;
        }
        if pn >= self.top.start {
            return pn < self.top.end;
        }
        let at = self.lower.partition_point(|r| r.end <= pn);
        self.lower.get(at).is_some_and(|r| r.contains(pn))
    }

    /// The largest number held.
    #[inline]
    pub fn largest(&self) -> Option<u64> {
        if self.top.is_empty() {
            None
        } else {
            Some(self.top.end - 1)
        }
    }

    /// The highest range held.
    #[inline]
    pub fn top(&self) -> Option<RangeInclusive<u64>> {
        self.largest().map(|largest| self.top.start..=largest)
    }

    /// The ranges, highest first, as an ACK frame lists them.
    pub fn iter_desc(&self) -> impl Iterator<Item = RangeInclusive<u64>> + Clone + '_ {
        self.top().into_iter().chain(
            self.lower
                .iter()
                .rev()
                .map(|r| r.start..=r.end.saturating_sub(1)),
        )
    }

    /// Forgets every number below `pn`: from now on they count as received.
    pub fn remove_below(&mut self, pn: u64) {
        self.floor = self.floor.max(pn);
        while let Some(lowest) = self.lower.front_mut() {
            if lowest.end > pn {
                lowest.start = lowest.start.max(pn);
                return;
            }
            self.lower.pop_front();
        }
        if self.top.end > pn {
            self.top.start = self.top.start.max(pn);
        } else {
            self.top = Range::default();
        }
    }

    /// Numbers below this count as received.
    pub const fn floor(&self) -> u64 {
        self.floor
    }

    /// Ranges held.
    pub fn len(&self) -> usize {
        self.lower.len() + usize::from(!self.top.is_empty())
    }

    /// Whether nothing is held.
    pub const fn is_empty(&self) -> bool {
        self.top.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn ranges(set: &AckRanges) -> Vec<RangeInclusive<u64>> {
        set.iter_desc().collect()
    }

    #[test]
    fn in_order_packets_are_one_range() {
        let mut set = AckRanges::new();
        assert_eq!((set.largest(), set.is_empty()), (None, true));
        for pn in 0..1000 {
            assert!(!set.contains(pn));
            assert!(set.insert(pn));
            assert!(!set.insert(pn));
        }
        assert_eq!(ranges(&set), vec![0..=999]);
        assert_eq!(set.lower.capacity(), 0, "order allocates nothing");
    }

    #[test]
    fn gaps_close_from_both_sides() {
        let mut set = AckRanges::new();
        for pn in [10, 6, 2, 4, 8] {
            assert!(set.insert(pn));
        }
        assert_eq!(ranges(&set), vec![10..=10, 8..=8, 6..=6, 4..=4, 2..=2]);
        for pn in [9, 3, 5] {
            assert!(set.insert(pn));
        }
        assert_eq!(ranges(&set), vec![8..=10, 2..=6]);
        assert!(set.insert(7));
        assert_eq!(ranges(&set), vec![2..=10]);
    }

    #[test]
    fn the_bound_forgets_the_lowest_and_raises_the_floor() {
        let mut set = AckRanges::new();
        let cap = limits::ACK_RANGES as u64;
        for i in 0..=cap {
            assert!(set.insert(2 * i));
        }
        assert_eq!(set.len(), limits::ACK_RANGES);
        assert_eq!(set.floor(), 1);
        assert!(!set.insert(0) && set.contains(0));
        assert!(set.insert(2 * cap + 1) && set.insert(1));
        // A range below all others does not fit either: it is forgotten at once, but not reported
        // as a duplicate the first time, because it was not one.
        let mut set = AckRanges::new();
        for i in 1..=cap {
            assert!(set.insert(10 * i));
        }
        assert!(set.insert(5));
        assert_eq!((set.len(), set.floor()), (limits::ACK_RANGES, 6));
        assert!(!set.insert(5));
    }

    #[test]
    fn removing_below_cuts_ranges() {
        let mut set = AckRanges::new();
        for pn in [0, 1, 2, 5, 6, 7, 9] {
            set.insert(pn);
        }
        set.remove_below(6);
        assert_eq!(ranges(&set), vec![9..=9, 6..=7]);
        assert!(!set.insert(4) && !set.insert(5));
        set.remove_below(20);
        assert_eq!((set.largest(), set.len()), (None, 0));
        assert!(!set.insert(19) && set.insert(20));
        assert_eq!(ranges(&set), vec![20..=20]);
    }

    /// The same set, naively: numbers, a floor, and the bound applied by counting runs.
    #[derive(Default)]
    struct Model {
        set: BTreeSet<u64>,
        floor: u64,
    }

    impl Model {
        fn runs(&self) -> Vec<RangeInclusive<u64>> {
            let mut out: Vec<RangeInclusive<u64>> = Vec::new();
            for &pn in self.set.iter().rev() {
                match out.last_mut() {
                    Some(run) if *run.start() == pn + 1 => *run = pn..=*run.end(),
                    _ => out.push(pn..=pn),
                }
            }
            out
        }

        fn insert(&mut self, pn: u64) -> bool {
            if pn < self.floor || !self.set.insert(pn) {
                return false;
            }
            let runs = self.runs();
            if runs.len() > limits::ACK_RANGES {
                self.remove_below(runs[limits::ACK_RANGES].end() + 1);
            }
            true
        }

        fn remove_below(&mut self, pn: u64) {
            self.floor = self.floor.max(pn);
            self.set = self.set.split_off(&pn);
        }
    }

    proptest! {
        #[test]
        fn it_behaves_like_a_set_of_numbers(
            ops in proptest::collection::vec((0u8..20, 0u64..400), 1..600)
        ) {
            let (mut set, mut model) = (AckRanges::new(), Model::default());
            for (op, pn) in ops {
                if op == 0 {
                    set.remove_below(pn / 8);
                    model.remove_below(pn / 8);
                } else {
                    prop_assert_eq!(set.insert(pn), model.insert(pn));
                }
                prop_assert!(set.len() <= limits::ACK_RANGES);
                prop_assert_eq!(set.floor(), model.floor);
                prop_assert_eq!(ranges(&set), model.runs());
                prop_assert_eq!(set.largest(), model.set.last().copied());
            }
            for pn in 0..410 {
                prop_assert_eq!(set.contains(pn), pn < model.floor || model.set.contains(&pn));
            }
        }
    }
}
