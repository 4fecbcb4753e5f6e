//! Which slot a stream has.
//!
//! Numbers of one kind are used in order and those in use lie close together, so a table in which
//! each has its place by its low bits hardly ever has two for one place. The second goes to a hash
//! map: a long-lived stream costs those that pass it by no more than that, whoever chose them. The
//! table has room for twice the streams that exist.

use crate::mem::prefetch;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// The ID of no stream.
const NONE: u64 = u64::MAX;
/// Places of the first table.
const FIRST: usize = 16;

/// Spreads stream IDs, which differ in few bits. A peer picks its IDs only within the open
/// window, too narrow to make many collide in a multiply-and-fold.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.write_u64(self.0 ^ u64::from(b));
        }
    }

    #[inline]
    fn write_u64(&mut self, v: u64) {
        const ODD: u128 = 0xa076_1d64_78bd_642f;
        let wide = u128::from(v ^ 0x9e37_79b9_7f4a_7c15) * ODD;
        self.0 = (wide >> 64) as u64 ^ wide as u64;
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// IDs and slots; as many places as a power of two, or none.
    table: Vec<(u64, u32)>,
    /// Those whose place was taken.
    rest: HashMap<u64, u32, BuildHasherDefault<IdHasher>>,
    len: usize,
}

impl Index {
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where `id` is, if anywhere in the table: neighbours of one kind never share a place, and the
    /// first ones of all kinds do not either.
    #[inline]
    fn place(&self, id: u64) -> usize {
        ((id >> 2) ^ (id << 2)) as usize & self.table.len().wrapping_sub(1)
    }

    /// Brings a small table near; a hint.
    #[inline]
    pub(super) fn warm(&self) {
        if let Some(first) = self.table.get(..FIRST) {
            prefetch(first);
        }
    }

    /// The slot of `id`.
    #[inline]
    pub(super) fn get(&self, id: u64) -> Option<u32> {
        match self.table.get(self.place(id)) {
            Some(&(there, slot)) if there == id => Some(slot),
            _ if self.rest.is_empty() => None,
            _ => self.rest.get(&id).copied(),
        }
    }

    /// Adds `id`, which is not there.
    #[inline]
    pub(super) fn insert(&mut self, id: u64, slot: u32) {
        if self.len * 2 >= self.table.len() {
            self.grow();
        }
        self.len += 1;
        self.put(id, slot);
    }

    #[inline]
    fn put(&mut self, id: u64, slot: u32) {
        let at = self.place(id);
        match self.table.get_mut(at) {
            Some(place) if place.0 == NONE => *place = (id, slot),
            _ => {
                self.rest.insert(id, slot);
            }
        }
    }

    #[cold]
    fn grow(&mut self) {
        let places = (self.table.len() * 2).max(FIRST);
        let table = std::mem::replace(&mut self.table, vec![(NONE, 0); places]);
        let rest = std::mem::take(&mut self.rest);
        let there = table.into_iter().filter(|(id, _)| *id != NONE);
        for (id, slot) in there.chain(rest) {
            self.put(id, slot);
        }
    }

    /// Takes out `id`, which is there.
    #[inline]
    pub(super) fn remove(&mut self, id: u64) {
        self.len = self.len.saturating_sub(1);
        let at = self.place(id);
        match self.table.get_mut(at) {
            Some(place) if place.0 == id => place.0 = NONE,
            _ => {
                self.rest.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    #[test]
    fn it_is_a_map() {
        for seed in 0..50 {
            let mut rng = Rng::from_u64(seed);
            let (mut index, mut map) = (Index::default(), HashMap::new());
            for slot in 0..2_000u32 {
                // Neighbours, streams of all kinds, and numbers that share a place.
                let id = rng.below(60) + 1024 * rng.below(4);
                if map.remove(&id).is_some() {
                    index.remove(id);
                } else {
                    index.insert(id, slot);
                    map.insert(id, slot);
                }
                let id = rng.below(60) + 1024 * rng.below(4);
                assert_eq!(index.get(id), map.get(&id).copied());
                assert_eq!(index.len, map.len());
            }
        }
    }

    #[test]
    fn streams_that_come_and_go_in_order_need_no_more_places() {
        let mut index = Index::default();
        // One that stays, as one that controls the rest would.
        index.insert(0, 0);
        for n in 1..10_000u64 {
            index.insert(n * 4, 1);
            if n > 5 {
                index.remove((n - 5) * 4);
            }
            assert!(index.rest.len() <= 1);
        }
        assert_eq!(index.table.len(), FIRST);
        assert_eq!((index.get(0), index.get(4)), (Some(0), None));
    }
}
