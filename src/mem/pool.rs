//! A fixed pool of page-aligned buffers in one mapping, lent out as leases.
//!
//! A lease is the only way to a buffer's bytes and returns the buffer when dropped, on whatever
//! thread that is; the mapping lives as long as the pool or any lease. The lowest free buffer is
//! lent first: a sender that needs two buffers keeps using the same two, and they stay in cache.
//! Taking and returning is one atomic operation each.

use super::region::{Pages, Region};
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const PAGE: usize = 4096;

#[derive(Debug)]
struct Shared {
    region: Region,
    buffer_len: usize,
    stride: usize,
    count: usize,
    /// One bit a buffer, set while it is free.
    free: Box<[AtomicU64]>,
}

/// A fixed number of equal buffers.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Shared>);

/// One buffer of a [`Pool`], returned to it when dropped.
#[derive(Debug)]
pub struct Lease {
    shared: Arc<Shared>,
    index: u32,
}

impl Pool {
    /// A pool of `count` buffers of `buffer_len` bytes. Fails as `mmap` does.
    pub fn new(count: usize, buffer_len: usize, pages: Pages) -> io::Result<Self> {
        let too_large = || io::Error::from_raw_os_error(libc::ENOMEM);
        let stride = buffer_len
            .max(1)
            .checked_next_multiple_of(PAGE)
            .ok_or_else(too_large)?;
        let len = stride.checked_mul(count).ok_or_else(too_large)?;
        if u32::try_from(count).is_err() {
            return Err(too_large());
        }
        let region = Region::new(len, pages)?;
        let free = (0..count.div_ceil(64))
            .map(|word| {
                let bits = (count - word * 64).min(64);
                AtomicU64::new(u64::MAX >> (64 - bits))
            })
            .collect();
        Ok(Self(Arc::new(Shared {
            region,
            buffer_len,
            stride,
            count,
            free,
        })))
    }

    /// Lends the lowest free buffer; `None` when all are lent. Its contents are what the last
    /// holder left.
    #[inline]
    pub fn take(&self) -> Option<Lease> {
        for (word, free) in (0u32..).zip(self.0.free.iter()) {
            let mut bits = free.load(Ordering::Relaxed);
            while bits != 0 {
                let taken = bits & (bits - 1);
                // Acquire: what the last holder wrote happened before we hold the buffer.
                match free.compare_exchange_weak(bits, taken, Ordering::Acquire, Ordering::Relaxed)
                {
                    Ok(_) => {
                        return Some(Lease {
                            shared: self.0.clone(),
                            index: word * 64 + bits.trailing_zeros(),
                        });
                    }
                    Err(now) => bits = now,
                }
            }
        }
        None
    }

    /// Buffers not lent at this moment.
    pub fn available(&self) -> usize {
        let ones = |w: &AtomicU64| w.load(Ordering::Relaxed).count_ones() as usize;
        self.0.free.iter().map(ones).sum()
    }

    /// Buffers in all.
    pub fn count(&self) -> usize {
        self.0.count
    }

    /// Bytes of one buffer.
    pub fn buffer_len(&self) -> usize {
        self.0.buffer_len
    }
}

impl Lease {
    /// Which of the pool's buffers this is, below [`Pool::count`].
    pub fn index(&self) -> usize {
        self.index as usize
    }

    /// The buffer's first byte; valid for its length while the lease lives.
    pub fn as_ptr(&self) -> *mut u8 {
        // SAFETY: `index < count`, and the region is `count * stride` bytes long.
        unsafe {
            self.shared
                .region
                .as_ptr()
                .add(self.index as usize * self.shared.stride)
        }
    }
}

impl Deref for Lease {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the buffer is mapped and initialised (zeroed by the kernel), and its bit in
        // `free` is clear, so that this lease alone refers to it.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.shared.buffer_len) }
    }
}

impl DerefMut for Lease {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.as_ptr(), self.shared.buffer_len) }
    }
}

impl Drop for Lease {
    #[inline]
    fn drop(&mut self) {
        let bit = 1u64 << (self.index % 64);
        if let Some(word) = self.shared.free.get(self.index as usize / 64) {
            // Release: pairs with the acquire in `take`.
            let before = word.fetch_or(bit, Ordering::Release);
            debug_assert_eq!(before & bit, 0, "a buffer is returned once");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_return_themselves_and_the_lowest_is_lent_first() {
        let pool = Pool::new(70, 5000, Pages::Base).unwrap();
        let mut all: Vec<Lease> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!((all.len(), pool.available(), pool.count()), (70, 0, 70));
        for (i, lease) in all.iter_mut().enumerate() {
            assert_eq!((lease.index(), lease.len()), (i, pool.buffer_len()));
            assert_eq!(lease.as_ptr() as usize % PAGE, 0);
            lease.fill(i as u8);
        }
        assert!(all.iter().all(|l| l.iter().all(|&b| b == l.index() as u8)));
        drop(all.remove(65));
        drop(all.remove(3));
        assert_eq!(pool.take().map(|l| l.index()), Some(3));
        assert_eq!(pool.available(), 2);
    }

    #[test]
    fn a_lease_outlives_its_pool_and_may_be_returned_elsewhere() {
        let pool = Pool::new(1, 100, Pages::Base).unwrap();
        let mut lease = pool.take().unwrap();
        let watch = pool.clone();
        drop(pool);
        lease[0] = 1;
        std::thread::spawn(move || assert_eq!(lease[0], 1))
            .join()
            .unwrap();
        assert_eq!(watch.available(), 1);
    }

    #[test]
    fn threads_never_share_a_buffer() {
        let pool = Pool::new(3, 8, Pages::Base).unwrap();
        std::thread::scope(|s| {
            for t in 0..4u8 {
                let pool = &pool;
                s.spawn(move || {
                    for _ in 0..10_000 {
                        if let Some(mut lease) = pool.take() {
                            lease.fill(t);
                            assert!(lease.iter().all(|&b| b == t));
                        }
                    }
                });
            }
        });
        assert_eq!(pool.available(), 3);
    }
}
