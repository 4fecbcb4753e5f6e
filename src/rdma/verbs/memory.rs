//! Registered memory, which a device writes to on its own: bytes go in and out by copies through
//! the raw pointer, and no reference to them ever exists.

use crate::mem::{Pages, Region};
use crate::rdma::error::RdmaError;

/// A mapping that the device may read and write at any time.
#[derive(Debug)]
pub(super) struct Bytes {
    region: Region,
    len: usize,
}

const WORD: usize = size_of::<u64>();

impl Bytes {
    /// Maps `len` zeroed bytes.
    pub fn new(len: usize) -> Result<Self, RdmaError> {
        let region = Region::new(len, Pages::Base);
        let region = region.map_err(|e| RdmaError::system("mmap of a region", &e))?;
        Ok(Self { region, len })
    }

    pub fn as_ptr(&self) -> *mut u8 {
        self.region.as_ptr()
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// The first byte of a range that is all here.
    fn range(&self, offset: u64, len: usize) -> Result<*mut u8, RdmaError> {
        let error = RdmaError::OutOfRange {
            offset,
            len: len as u64,
            region: self.len as u64,
        };
        let begin = usize::try_from(offset).ok();
        let end = begin.and_then(|b| b.checked_add(len));
        match (begin, end) {
            // SAFETY: within the mapping, as just seen.
            (Some(begin), Some(end)) if end <= self.len => Ok(unsafe { self.as_ptr().add(begin) }),
            _ => Err(error),
        }
    }

    /// Copies out. Bytes that the device changes meanwhile come as they were before or after.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), RdmaError> {
        let mut from = self.range(offset, into.len())?.cast_const();
        let mut words = into.chunks_exact_mut(WORD);
        for word in &mut words {
            // SAFETY: `range` checked that all is mapped. Volatile and unaligned, byte by byte
            // where the address is odd: the device may write at the same time.
            unsafe {
                word.copy_from_slice(&from.cast::<[u8; WORD]>().read_volatile());
                from = from.add(WORD);
            }
        }
        for byte in words.into_remainder() {
            // SAFETY: as above.
            unsafe {
                *byte = from.read_volatile();
                from = from.add(1);
            }
        }
        Ok(())
    }

    /// Copies in. Nobody else may read the region's bytes by reference, and nobody can.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), RdmaError> {
        let mut to = self.range(offset, bytes.len())?;
        let mut words = bytes.chunks_exact(WORD);
        for word in &mut words {
            let mut array = [0; WORD];
            array.copy_from_slice(word);
            // SAFETY: as for `read`.
            unsafe {
                to.cast::<[u8; WORD]>().write_volatile(array);
                to = to.add(WORD);
            }
        }
        for byte in words.remainder() {
            // SAFETY: as for `read`.
            unsafe {
                to.write_volatile(*byte);
                to = to.add(1);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_outside() {
        let bytes = Bytes::new(100).unwrap();
        let pattern: Vec<u8> = (1..=30).collect();
        for at in 0..20 {
            bytes.write(at, &pattern).unwrap();
            let mut back = [0; 30];
            bytes.read(at, &mut back).unwrap();
            assert_eq!(back[..], pattern);
        }
        for (at, len) in [(100, 1), (71, 30), (u64::MAX, 2)] {
            let error = bytes.write(at, &pattern[..len]);
            assert!(matches!(error, Err(RdmaError::OutOfRange { .. })));
        }
        assert_eq!(bytes.read(100, &mut []), Ok(()));
    }
}
