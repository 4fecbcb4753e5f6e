//! A number of a scheduler's own for each path, without allocation and in a fixed order.
//!
//! As many entries as a connection may have paths. When one more comes without an older one having
//! been taken out, the oldest entry gives way, and that path starts afresh.

use crate::base::limits;
use crate::path::PathId;

/// Values by path ID.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PathTable {
    entries: [(PathId, u64); limits::PATHS],
    len: usize,
}

impl PathTable {
    pub const fn new() -> Self {
        Self {
            entries: [(PathId::ZERO, 0); limits::PATHS],
            len: 0,
        }
    }

    #[inline]
    fn entries(&self) -> &[(PathId, u64)] {
        self.entries.get(..self.len).unwrap_or(&[])
    }

    /// The value of `id`, if it has one.
    #[inline]
    pub fn get(&self, id: PathId) -> Option<u64> {
        let found = self.entries().iter().find(|e| e.0 == id);
        found.map(|e| e.1)
    }

    /// The value of `id`; `fresh` at first.
    #[inline]
    pub fn entry(&mut self, id: PathId, fresh: u64) -> &mut u64 {
        let at = self.entries().iter().position(|e| e.0 == id);
        let at = at.unwrap_or_else(|| self.insert(id, fresh));
        &mut self.entries[at].1
    }

    #[cold]
    fn insert(&mut self, id: PathId, fresh: u64) -> usize {
        if self.len == limits::PATHS {
            self.entries.rotate_left(1);
            self.len -= 1;
        }
        self.entries[self.len] = (id, fresh);
        self.len += 1;
        self.len - 1
    }

    /// Takes `id` out; returns the value that it had.
    pub fn remove(&mut self, id: PathId) -> Option<u64> {
        let at = self.entries().iter().position(|e| e.0 == id)?;
        let value = self.entries[at].1;
        self.entries[at..self.len].rotate_left(1);
        self.len -= 1;
        Some(value)
    }

    /// Every value.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut u64> {
        self.entries.iter_mut().take(self.len).map(|e| &mut e.1)
    }
}
