//! Sorted sets of disjoint half-open ranges of `u64`: acknowledged and lost bytes of a send buffer,
//! received bytes of an assembler, stream numbers that are open but have no state yet.
//!
//! Extending the last range is O(1); everything else is a binary search and at most one move of
//! what lies behind. An empty set owns no memory. Who feeds a set from the wire bounds its length.

/// A set of numbers, held as sorted, disjoint, non-adjacent half-open ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    ranges: Vec<(u64, u64)>,
}

impl RangeSet {
    /// The empty set; allocates nothing.
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// Whether it holds nothing.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Ranges held.
    #[inline]
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// The lowest range, as `(start, end)`.
    #[inline]
    pub fn first(&self) -> Option<(u64, u64)> {
        self.ranges.first().copied()
    }

    /// The ranges in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.ranges.iter().copied()
    }

    /// Numbers held, over all ranges.
    pub fn count(&self) -> u64 {
        self.iter().map(|(start, end)| end - start).sum()
    }

    /// Whether `value` is held.
    pub fn contains(&self, value: u64) -> bool {
        let at = self.ranges.partition_point(|r| r.1 <= value);
        self.ranges.get(at).is_some_and(|r| r.0 <= value)
    }

    /// Adds `start..end`; an empty range adds nothing.
    #[inline]
    pub fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        match self.ranges.last_mut() {
            Some(last) if start < last.0 => self.insert_before_last(start, end),
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => self.ranges.push((start, end)),
        }
    }

    fn insert_before_last(&mut self, start: u64, end: u64) {
        // Ranges `lo..hi` touch the new one and become part of it.
        let lo = self.ranges.partition_point(|r| r.1 < start);
        let hi = self.ranges.partition_point(|r| r.0 <= end);
        if lo >= hi {
            self.ranges.insert(lo, (start, end));
            return;
        }
        let merged_end = self.ranges.get(hi - 1).map_or(end, |r| r.1.max(end));
        if let Some(first) = self.ranges.get_mut(lo) {
            *first = (first.0.min(start), merged_end);
        }
        self.ranges.drain(lo + 1..hi);
    }

    /// Removes `start..end`, whatever of it is held.
    #[inline]
    pub fn remove(&mut self, start: u64, end: u64) {
        if start < end && !self.ranges.is_empty() {
            self.remove_some(start, end);
        }
    }

    fn remove_some(&mut self, start: u64, end: u64) {
        let lo = self.ranges.partition_point(|r| r.1 <= start);
        let hi = self.ranges.partition_point(|r| r.0 < end);
        if lo >= hi {
            return;
        }
        let left = self.ranges.get(lo).map(|r| (r.0, start));
        let right = self.ranges.get(hi - 1).map(|r| (end, r.1));
        let keep = [left, right];
        let keep = keep.into_iter().flatten().filter(|r| r.0 < r.1);
        self.ranges.splice(lo..hi, keep);
    }

    /// The lowest range that has a part in `start..end`.
    pub fn first_in(&self, start: u64, end: u64) -> Option<(u64, u64)> {
        let at = self.ranges.partition_point(|r| r.1 <= start);
        let range = self.ranges.get(at).copied();
        range.filter(|r| r.0 < end && start < end)
    }

    /// Calls `each` with every maximal part of `start..end` that is not held, in ascending order.
    pub fn for_each_missing(&self, start: u64, end: u64, mut each: impl FnMut(u64, u64)) {
        let mut at = start;
        let first = self.ranges.partition_point(|r| r.1 <= start);
        for &(s, e) in self.ranges.get(first..).unwrap_or_default() {
            if s >= end {
                break;
            }
            if at < s {
                each(at, s);
            }
            at = at.max(e);
        }
        if at < end {
            each(at, end);
        }
    }

    /// Gives back what it does not need.
    pub fn rest(&mut self) {
        self.ranges.shrink_to(0);
    }

    /// Gives back memory that a burst left behind, when the set is empty.
    pub fn shrink(&mut self) {
        if self.ranges.is_empty() && self.ranges.capacity() > 16 {
            self.ranges = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn model_ranges(model: &BTreeSet<u64>) -> Vec<(u64, u64)> {
        let mut out: Vec<(u64, u64)> = Vec::new();
        for &v in model {
            match out.last_mut() {
                Some(last) if last.1 == v => last.1 = v + 1,
                _ => out.push((v, v + 1)),
            }
        }
        out
    }

    #[test]
    fn the_top_of_the_number_space_is_no_special_case() {
        let mut set = RangeSet::new();
        set.insert(u64::MAX - 2, u64::MAX);
        set.insert(0, u64::MAX - 2);
        assert_eq!(set.first(), Some((0, u64::MAX)));
        set.remove(5, u64::MAX);
        assert_eq!((set.first(), set.len()), (Some((0, 5)), 1));
    }

    proptest! {
        #[test]
        fn behaves_like_a_set_of_numbers(
            ops in prop::collection::vec((any::<bool>(), 0u64..80, 0u64..20), 1..60)
        ) {
            let mut set = RangeSet::new();
            let mut model = BTreeSet::new();
            for (insert, start, len) in ops {
                let end = start + len;
                if insert {
                    set.insert(start, end);
                    model.extend(start..end);
                } else {
                    set.remove(start, end);
                    model.retain(|v| !(start..end).contains(v));
                }
                prop_assert_eq!(set.iter().collect::<Vec<_>>(), model_ranges(&model));
                prop_assert_eq!(set.count(), model.len() as u64);
                let mut missing = BTreeSet::new();
                set.for_each_missing(10, 70, |s, e| missing.extend(s..e));
                let expected: BTreeSet<u64> = (10..70).filter(|v| !model.contains(v)).collect();
                prop_assert_eq!(missing, expected);
                for v in 0..100 {
                    prop_assert_eq!(set.contains(v), model.contains(&v));
                    let first = model.range(v..).next().filter(|first| **first < v + 9);
                    let found = set.first_in(v, v + 9).map(|(s, _)| s.max(v));
                    prop_assert_eq!(found, first.copied());
                }
            }
        }
    }
}
