//! A table of objects under keys that do not come back: a slot's generation changes with each use,
//! so a key that outlived its object finds nothing.

/// Where an object is and which of the slot's objects it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub slot: u32,
    pub generation: u32,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    object: Option<T>,
}

/// At most `limit` objects.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    limit: usize,
}

impl<T> Slots<T> {
    pub fn new(limit: usize) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            limit: limit.min(u32::MAX as usize),
        }
    }

    /// Live objects.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The greatest number of objects.
    pub fn limit(&self) -> usize {
        self.limit
    }

    pub fn is_full(&self) -> bool {
        self.len() >= self.limit
    }

    /// Stores `object`; gives it back when the table is full.
    pub fn insert(&mut self, object: T) -> Result<Key, T> {
        if self.is_full() {
            return Err(object);
        }
        if let Some(slot) = self.free.pop() {
            if let Some(entry) = self.slots.get_mut(slot as usize) {
                entry.object = Some(object);
                let generation = entry.generation;
                return Ok(Key { slot, generation });
            }
            return Err(object);
        }
        let slot = self.slots.len() as u32;
        self.slots.push(Slot {
            generation: 0,
            object: Some(object),
        });
        Ok(Key {
            slot,
            generation: 0,
        })
    }

    /// The key of the object that is in a slot.
    #[cfg(feature = "rdma-verbs")]
    pub fn key_at(&self, slot: u32) -> Option<Key> {
        let generation = self.slots.get(slot as usize)?.generation;
        let key = Key { slot, generation };
        self.get(key).map(|_| key)
    }

    #[inline]
    pub fn get(&self, key: Key) -> Option<&T> {
        let slot = self.slots.get(key.slot as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        slot.object.as_ref()
    }

    #[inline]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        slot.object.as_mut()
    }

    pub fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        let object = slot.object.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.slot);
        Some(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_finds_its_object_and_no_later_one() {
        let mut slots = Slots::new(2);
        let a = slots.insert('a').unwrap();
        let b = slots.insert('b').unwrap();
        assert_eq!((slots.insert('c'), slots.is_full()), (Err('c'), true));
        assert_eq!(slots.remove(a), Some('a'));
        assert_eq!((slots.remove(a), slots.get(a)), (None, None));
        let c = slots.insert('c').unwrap();
        assert_eq!((c.slot, slots.get(a)), (a.slot, None));
        assert_eq!(slots.get_mut(a), None);
        assert_eq!(
            (slots.get(b), slots.get(c), slots.len()),
            (Some(&'b'), Some(&'c'), 2)
        );
    }
}
