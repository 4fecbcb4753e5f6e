//! One anonymous mapping: page-aligned, zeroed, resident, unmapped when dropped.
//!
//! The pages are touched at creation, so that the first packet pays for no page fault. A region
//! gives out its base pointer only; who may touch which bytes when is its owner's business
//! ([`super::pool`], or a kernel that was given the buffers).

use std::io;
use std::ptr::NonNull;

/// Which pages back a region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pages {
    /// The system's base pages.
    #[default]
    Base,
    /// Transparent huge pages where the system has them, base pages otherwise.
    Huge,
}

const HUGE: usize = 2 << 20;

/// A mapping of anonymous memory.
#[derive(Debug)]
pub struct Region {
    map: NonNull<u8>,
    map_len: usize,
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a region is plain memory with no tie to the thread that mapped it.
unsafe impl Send for Region {}
// SAFETY: through a shared region one can only learn its address and length.
unsafe impl Sync for Region {}

impl Region {
    /// Maps `len` bytes (at least one). Fails as `mmap` does: out of memory or over a limit.
    pub fn new(len: usize, pages: Pages) -> io::Result<Self> {
        let slack = if pages == Pages::Huge { HUGE } else { 0 };
        let map_len = len
            .max(1)
            .checked_add(slack)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no
        // existing memory.
        let map = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                map_len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let map = NonNull::new(map.cast::<u8>())
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        let skip = match pages {
            Pages::Base => 0,
            Pages::Huge => map.as_ptr().align_offset(HUGE).min(slack),
        };
        // SAFETY: `skip` is at most `slack`, and the mapping is `slack` longer than `len`.
        let base = unsafe { map.add(skip) };
        let region = Self {
            map,
            map_len,
            base,
            len: len.max(1),
        };
        region.populate(pages);
        Ok(region)
    }

    /// Makes the pages resident. Advice that an old kernel does not know is no error: the pages
    /// then come one fault at a time.
    fn populate(&self, pages: Pages) {
        // The advice wants a page boundary, which both kinds of base are.
        let base = self.base.as_ptr().cast();
        if pages == Pages::Huge {
            // SAFETY: the range is this region's own mapping; the advice changes no contents.
            unsafe { libc::madvise(base, self.len, libc::MADV_HUGEPAGE) };
        }
        // SAFETY: as above.
        unsafe { libc::madvise(base, self.len, libc::MADV_POPULATE_WRITE) };
    }

    /// The first byte; valid for [`len`](Self::len) bytes until the region is dropped.
    pub fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Bytes in the region.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a region has at least one byte.
    pub fn is_empty(&self) -> bool {
        false
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `new` mapped; whoever used the memory kept the region
        // alive while doing so.
        unsafe { libc::munmap(self.map.as_ptr().cast(), self.map_len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_pages_give_zeroed_aligned_memory() {
        for (pages, align) in [(Pages::Base, 4096), (Pages::Huge, HUGE)] {
            let r = Region::new(3 * 4096, pages).unwrap();
            assert_eq!(r.as_ptr() as usize % align, 0);
            assert_eq!((r.len(), r.is_empty()), (3 * 4096, false));
            // SAFETY: the region is alive and nobody else has its pointer.
            let all = unsafe { std::slice::from_raw_parts_mut(r.as_ptr(), r.len()) };
            assert!(all.iter().all(|&b| b == 0));
            all.fill(7);
        }
    }

    #[test]
    fn an_impossible_length_is_an_error() {
        assert!(Region::new(usize::MAX, Pages::Huge).is_err());
        assert!(Region::new(usize::MAX - 4096, Pages::Base).is_err());
    }
}
