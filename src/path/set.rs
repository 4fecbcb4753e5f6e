//! The paths of one connection, and the one in hand.
//!
//! What RFC 9000 does with its one path, the connection does with the path in hand, whichever it
//! is; [`PathSet::select`] takes another one up. That swaps two pointers, and a connection with one
//! path never does it. There is always a path in hand; at most [`limits::PATH_RECORDS`] exist.

use super::{Path, PathId};
use crate::base::limits;
use smallvec::SmallVec;

/// Identifiers of a connection's paths.
pub type PathIds = SmallVec<[PathId; limits::PATHS]>;

/// A connection's paths, in no order.
#[derive(Debug)]
pub struct PathSet<F: Copy> {
    hand: Box<Path<F>>,
    #[expect(clippy::vec_box, reason = "taking a path up swaps pointers, not paths")]
    others: Vec<Box<Path<F>>>,
}

impl<F: Copy> PathSet<F> {
    /// The set that holds the handshake's path alone.
    pub fn new(first: Path<F>) -> Self {
        Self {
            hand: Box::new(first),
            others: Vec::new(),
        }
    }

    /// The path in hand.
    #[inline]
    pub fn current(&self) -> &Path<F> {
        &self.hand
    }

    /// The path in hand.
    #[inline]
    pub fn current_mut(&mut self) -> &mut Path<F> {
        &mut self.hand
    }

    /// Whether there is no other path than the one in hand.
    #[inline]
    pub fn is_single(&self) -> bool {
        self.others.is_empty()
    }

    /// Takes a path up; false when there is none of that identifier.
    pub fn select(&mut self, id: PathId) -> bool {
        if self.hand.id == id {
            return true;
        }
        let other = self.others.iter_mut().find(|p| p.id == id);
        other.is_some_and(|other| {
            std::mem::swap(&mut self.hand, other);
            true
        })
    }

    /// The path of that identifier.
    pub fn get(&self, id: PathId) -> Option<&Path<F>> {
        self.iter().find(|p| p.id == id)
    }

    /// The path of that identifier.
    pub fn get_mut(&mut self, id: PathId) -> Option<&mut Path<F>> {
        self.iter_mut().find(|p| p.id == id)
    }

    /// Adds a path and takes it up; false when the set is full.
    pub fn insert(&mut self, path: Path<F>) -> bool {
        if !self.has_room() {
            return false;
        }
        let before = std::mem::replace(&mut self.hand, Box::new(path));
        self.others.push(before);
        self.share();
        true
    }

    /// Gives each path as much of what a connection may remember as the others.
    fn share(&mut self) {
        let most = limits::SENT_PACKETS as u64 / self.len() as u64;
        for path in self.iter_mut() {
            path.most_tracked = most;
        }
    }

    /// Takes a path out. `None` when it is not there, or is the last.
    pub fn remove(&mut self, id: PathId) -> Option<Box<Path<F>>> {
        let removed = if self.hand.id == id {
            let next = self.others.pop()?;
            std::mem::replace(&mut self.hand, next)
        } else {
            let at = self.others.iter().position(|p| p.id == id)?;
            self.others.swap_remove(at)
        };
        self.share();
        Some(removed)
    }

    /// Every path, the one in hand first.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = &Path<F>> {
        std::iter::once(&*self.hand).chain(self.others.iter().map(|p| &**p))
    }

    /// Every path, the one in hand first.
    #[inline]
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Path<F>> {
        std::iter::once(&mut *self.hand).chain(self.others.iter_mut().map(|p| &mut **p))
    }

    /// The paths that are not in hand.
    #[inline]
    pub fn others(&self) -> impl Iterator<Item = &Path<F>> {
        self.others.iter().map(|p| &**p)
    }

    /// The identifiers of all paths, in their order.
    pub fn ids(&self) -> PathIds {
        let mut ids: PathIds = self.iter().map(|p| p.id).collect();
        ids.sort_unstable();
        ids
    }

    /// Whether another path can be added.
    pub fn has_room(&self) -> bool {
        self.len() < limits::PATH_RECORDS
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        1 + self.others.len()
    }

    /// Never true: one path is always in hand.
    pub fn is_empty(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{FourTuple, SocketId, Timestamp};
    use crate::path::PathConfig;
    use crate::recovery::{Algorithm, MtuConfig};
    use std::net::SocketAddr;
    use std::time::Duration;

    fn path(id: u32) -> Path<()> {
        let at = SocketAddr::from(([127, 0, 0, 1], 9));
        let config = PathConfig {
            initial_rtt: Duration::from_millis(333),
            congestion: Algorithm::Cubic,
            pacing: true,
            ecn: true,
            max_ack_delay: Duration::from_millis(25),
            mtu: MtuConfig::default(),
        };
        let tuple = FourTuple::new(at, at);
        Path::new(PathId(id), SocketId(0), tuple, &config, Timestamp::ZERO)
    }

    #[test]
    fn the_path_in_hand_is_the_one_that_was_selected() {
        let mut set = PathSet::new(path(0));
        assert!(set.is_single() && set.select(PathId(0)) && !set.select(PathId(1)));
        assert!(set.insert(path(1)) && set.insert(path(2)));
        assert_eq!(set.current().id, PathId(2));
        for id in [0, 1, 0, 2, 1] {
            assert!(set.select(PathId(id)));
            assert_eq!(set.current().id, PathId(id));
            assert_eq!(set.ids()[..], [PathId(0), PathId(1), PathId(2)]);
        }
        assert!(!set.select(PathId(7)));
        assert_eq!(set.current().id, PathId(1));
    }

    /// The cap on paths, and that one always remains.
    #[test]
    fn paths_are_capped_and_the_last_one_stays() {
        let mut set = PathSet::new(path(0));
        let taken = (1..1000).filter(|id| set.insert(path(*id))).count();
        assert_eq!(1 + taken, limits::PATH_RECORDS);
        let ids = set.ids();
        let removed = ids.iter().filter(|id| set.remove(**id).is_some()).count();
        assert_eq!(removed, limits::PATH_RECORDS - 1);
        assert!(set.is_single() && set.remove(PathId(77)).is_none());
    }
}
