//! Doubly linked lists over slot numbers: which streams have something to send, to announce or to
//! report, in which order.
//!
//! Joining, leaving from anywhere and taking the first are O(1) and allocate nothing once a slot
//! number was seen. A slot is in at most one list of each [`Links`]; who owns the lists keeps track
//! of membership.

use crate::mem::prefetch_at;

/// No slot.
const NIL: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Link {
    prev: u32,
    next: u32,
}

const UNLINKED: Link = Link {
    prev: NIL,
    next: NIL,
};

/// The links of every slot, shared by lists that exclude each other.
#[derive(Debug, Default)]
pub(super) struct Links(Vec<Link>);

impl Links {
    /// Gives back the memory; no slot may be in a list.
    pub(super) fn rest(&mut self) {
        self.0 = Vec::new();
    }

    /// Brings the first slots' near; a hint.
    #[inline]
    pub(super) fn warm(&self) {
        prefetch_at(&self.0, 0);
    }

    #[inline]
    fn get(&self, slot: u32) -> Link {
        self.0.get(slot as usize).copied().unwrap_or(UNLINKED)
    }

    #[inline]
    fn set(&mut self, slot: u32, link: Link) {
        match self.0.get_mut(slot as usize) {
            Some(place) => *place = link,
            None => self.grow(slot, link),
        }
    }

    /// Makes room for a slot number that was not seen before.
    #[cold]
    fn grow(&mut self, slot: u32, link: Link) {
        self.0.resize(slot as usize, UNLINKED);
        self.0.push(link);
    }

    #[inline]
    fn set_next(&mut self, slot: u32, next: u32) {
        if let Some(link) = self.0.get_mut(slot as usize) {
            link.next = next;
        }
    }

    #[inline]
    fn set_prev(&mut self, slot: u32, prev: u32) {
        if let Some(link) = self.0.get_mut(slot as usize) {
            link.prev = prev;
        }
    }
}

/// One list.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    head: u32,
    tail: u32,
}

impl List {
    pub(super) const EMPTY: Self = Self {
        head: NIL,
        tail: NIL,
    };

    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.head == NIL
    }

    /// The first slot.
    #[inline]
    pub(super) const fn front(&self) -> Option<u32> {
        if self.head == NIL {
            None
        } else {
            Some(self.head)
        }
    }

    /// The slots in their order.
    pub(super) fn iter(&self, links: &Links) -> impl Iterator<Item = u32> {
        let next = |slot: &u32| Some(links.get(*slot).next).filter(|slot| *slot != NIL);
        std::iter::successors(self.front(), next)
    }

    /// Appends `slot`, which is in no list of `links`.
    #[inline]
    pub(super) fn push_back(&mut self, links: &mut Links, slot: u32) {
        links.set(
            slot,
            Link {
                prev: self.tail,
                next: NIL,
            },
        );
        match self.tail {
            NIL => self.head = slot,
            tail => links.set_next(tail, slot),
        }
        self.tail = slot;
    }

    /// Takes `slot`, which is in this list, out of it.
    #[inline]
    pub(super) fn unlink(&mut self, links: &mut Links, slot: u32) {
        let Link { prev, next } = links.get(slot);
        match prev {
            NIL => self.head = next,
            _ => links.set_next(prev, next),
        }
        match next {
            NIL => self.tail = prev,
            _ => links.set_prev(next, prev),
        }
    }

    /// Moves the first slot to the end.
    pub(super) fn rotate(&mut self, links: &mut Links) {
        if self.head != self.tail {
            let slot = self.head;
            self.unlink(links, slot);
            self.push_back(links, slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_like_a_queue(ops in prop::collection::vec((0u8..3, 0u32..8), 1..100)) {
            let (mut links, mut list, mut model) = (Links::default(), List::EMPTY, Vec::new());
            for (verb, slot) in ops {
                match verb {
                    0 if !model.contains(&slot) => {
                        list.push_back(&mut links, slot);
                        model.push(slot);
                    }
                    1 if model.contains(&slot) => {
                        list.unlink(&mut links, slot);
                        model.retain(|s| *s != slot);
                    }
                    2 if !model.is_empty() => {
                        list.rotate(&mut links);
                        model.rotate_left(1);
                    }
                    _ => {}
                }
                let (mut at, mut seen) = (list, Vec::new());
                while let Some(slot) = at.front() {
                    seen.push(slot);
                    at.head = links.get(slot).next;
                }
                prop_assert_eq!(&seen, &model);
                prop_assert_eq!(list.is_empty(), model.is_empty());
                prop_assert_eq!(list.tail, model.last().copied().unwrap_or(NIL));
            }
        }
    }
}
