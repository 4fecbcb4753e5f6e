//! Where the state of streams lives: slots with numbers, used again when their stream is gone.

use super::set::Slot;
use crate::mem::{prefetch, prefetch_at};
use crate::wire::StreamId;

/// The ID in a slot that no stream has.
const NO_STREAM: StreamId = StreamId(u64::MAX);

/// See the module. A slot that no stream has holds neither half of one, and no stream's ID.
#[derive(Debug, Default)]
pub(super) struct Slots {
    all: Vec<Slot>,
    free: Vec<u32>,
}

impl Slots {
    /// Streams that have a slot.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.all.len() - self.free.len()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether memory is held.
    pub(super) fn has_memory(&self) -> bool {
        self.all.capacity() > 0
    }

    #[inline]
    pub(super) fn get(&self, slot: usize) -> Option<&Slot> {
        self.all.get(slot)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut Slot> {
        self.all.get_mut(slot)
    }

    /// The slots that streams have, with their numbers.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Slot)> {
        let all = self.all.iter_mut().enumerate();
        all.filter(|(_, s)| s.id != NO_STREAM)
            .map(|(slot, s)| (slot as u32, s))
    }

    /// Brings the first slots near; a hint.
    #[inline]
    pub(super) fn warm(&self) {
        if let Some(first) = self.all.first() {
            prefetch(first);
        }
        prefetch_at(&self.free, 0);
    }

    /// A slot for `id`: its number, and its state with neither half.
    #[inline]
    pub(super) fn take(&mut self, id: StreamId) -> (u32, Option<&mut Slot>) {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => self.grow(),
        };
        let mut place = self.all.get_mut(slot as usize);
        if let Some(s) = &mut place {
            (s.id, s.control, s.events) = (id, 0, 0);
            (s.stop_code, s.reset_code) = (None, 0);
        }
        (slot, place)
    }

    #[cold]
    fn grow(&mut self) -> u32 {
        self.all.push(Slot {
            id: NO_STREAM,
            send: None,
            recv: None,
            control: 0,
            events: 0,
            stop_code: None,
            reset_code: 0,
        });
        (self.all.len() - 1) as u32
    }

    /// Gives back the slot of a stream that has neither half any more.
    #[inline]
    pub(super) fn give_back(&mut self, slot: u32) {
        if let Some(s) = self.all.get_mut(slot as usize) {
            s.id = NO_STREAM;
            self.free.push(slot);
        }
    }
}
