//! The paths of one connection.
//!
//! At most [`limits::PATHS`] of them. Path 0 is there for the connection's whole life.

use super::{Path, PathId};
use crate::base::limits;
use smallvec::SmallVec;

/// A connection's paths, in the order of their identifiers.
#[derive(Debug)]
pub struct PathSet<F: Copy> {
    primary: Path<F>,
    others: SmallVec<[Box<Path<F>>; 1]>,
}

impl<F: Copy> PathSet<F> {
    /// The set that holds the handshake's path alone.
    pub fn new(primary: Path<F>) -> Self {
        Self {
            primary,
            others: SmallVec::new(),
        }
    }

    /// The path of the handshake.
    #[inline]
    pub fn primary(&self) -> &Path<F> {
        &self.primary
    }

    /// The path of the handshake.
    #[inline]
    pub fn primary_mut(&mut self) -> &mut Path<F> {
        &mut self.primary
    }

    /// The path of that identifier.
    pub fn get_mut(&mut self, id: PathId) -> Option<&mut Path<F>> {
        if id == self.primary.id {
            return Some(&mut self.primary);
        }
        self.others
            .iter_mut()
            .find(|p| p.id == id)
            .map(|p| &mut **p)
    }

    /// Adds a path; gives it back when the set is full.
    pub fn insert(&mut self, path: Path<F>) -> Result<(), Box<Path<F>>> {
        if self.len() >= limits::PATHS {
            return Err(Box::new(path));
        }
        self.others.push(Box::new(path));
        Ok(())
    }

    /// Every path.
    pub fn iter(&self) -> impl Iterator<Item = &Path<F>> {
        std::iter::once(&self.primary).chain(self.others.iter().map(|p| &**p))
    }

    /// Every path.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Path<F>> {
        std::iter::once(&mut self.primary).chain(self.others.iter_mut().map(|p| &mut **p))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        1 + self.others.len()
    }

    /// Never true: the handshake's path stays.
    pub fn is_empty(&self) -> bool {
        false
    }
}
