//! A region with one owner, who alone reads and writes it through slices.
//!
//! What a peer's packets are copied into while the application reads elsewhere: both go through the
//! owner, so the borrow checker keeps them apart and no byte is ever raced for. Memory that a
//! device writes on its own is not this.

use super::region::{Pages, Region};
use std::io;
use std::ops::{Deref, DerefMut};

/// Page-aligned, zeroed, resident bytes of one owner.
#[derive(Debug)]
pub struct Owned(Region);

impl Owned {
    /// Maps `len` bytes (at least one). Fails as `mmap` does.
    pub fn new(len: usize, pages: Pages) -> io::Result<Self> {
        Region::new(len, pages).map(Self)
    }
}

impl Deref for Owned {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the region is mapped, zeroed and `len` bytes long, and its pointer never leaves
        // this type, so that `&self` admits readers only.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr(), self.0.len()) }
    }
}

impl DerefMut for Owned {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr(), self.0.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_zeroed_and_hold_what_is_written() {
        let mut owned = Owned::new(5000, Pages::Base).unwrap();
        assert_eq!((owned.len(), owned.iter().any(|&b| b != 0)), (5000, false));
        owned[4999] = 7;
        let moved = owned;
        assert_eq!((moved[4998], moved[4999]), (0, 7));
        assert!(Owned::new(usize::MAX, Pages::Huge).is_err());
    }
}
