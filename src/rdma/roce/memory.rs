//! Memory regions: who may touch which bytes, and touching them.
//!
//! The device owns the bytes. A peer's WRITE and the application's view of it are both borrows of
//! the device, so neither sees the other half done within a packet, and no byte is raced for. Keys
//! are 32 random bits and addresses are random pages: neither tells anything about the process or
//! about another region. What is not the domain's own does not exist for it.

use crate::base::Rng;
use crate::mem::{Owned, Pages};
use crate::rdma::access::Access;
use crate::rdma::attr::DeviceAttr;
use crate::rdma::error::RdmaError;
use crate::rdma::ids::MemoryRegionId;
use crate::rdma::slots::{Key, Slots};
use crate::rdma::work::{MemoryRegion, Sge};
use std::collections::HashMap;

/// Bytes of a region that were checked against one domain's rights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    region: Option<Key>,
    offset: u64,
    pub len: u32,
}

#[derive(Debug)]
struct Region {
    pd: Key,
    bytes: Owned,
    len: usize,
    addr: u64,
    access: Access,
    key: u32,
}

impl Region {
    /// These bytes of it, if they are all there and for this domain and use.
    #[inline]
    fn span(&self, at: Key, pd: Key, addr: u64, len: u32, needed: Access) -> Option<Span> {
        let offset = addr.checked_sub(self.addr)?;
        let end = offset.checked_add(len.into())?;
        let inside = end <= self.len as u64;
        (inside && self.pd == pd && self.access.has(needed)).then_some(Span {
            region: Some(at),
            offset,
            len,
        })
    }
}

#[derive(Debug)]
pub(super) struct Memory {
    regions: Slots<Region>,
    keys: HashMap<u32, Key, foldhash::quality::RandomState>,
    registered: usize,
    max_registered: u64,
    max_region: u64,
}

impl Memory {
    pub fn new(attr: &DeviceAttr) -> Self {
        Self {
            regions: Slots::new(attr.max_mr as usize),
            keys: HashMap::default(),
            registered: 0,
            max_registered: attr.max_registered,
            max_region: attr.max_mr_size,
        }
    }

    /// Regions, and their bytes.
    pub fn counts(&self) -> (usize, usize) {
        (self.regions.len(), self.registered)
    }

    pub fn register(
        &mut self,
        pd: Key,
        len: usize,
        access: Access,
        rng: &mut Rng,
    ) -> Result<MemoryRegion, RdmaError> {
        let limit = |what, limit| Err(RdmaError::Limit { what, limit });
        if self.regions.is_full() {
            return limit("memory regions", self.regions.limit() as u64);
        }
        if len as u64 > self.max_region {
            return limit("bytes in one region", self.max_region);
        }
        if (self.registered as u64).saturating_add(len as u64) > self.max_registered {
            return limit("registered bytes", self.max_registered);
        }
        if access.remote_changes() && !access.has(Access::LOCAL_WRITE) {
            return Err(RdmaError::Attribute {
                name: "access",
                value: 0,
                allowed: "remote write and atomic need local write",
            });
        }
        let bytes =
            Owned::new(len, Pages::Base).map_err(|e| RdmaError::system("mmap of a region", &e))?;
        let mut key = rng.next_u64() as u32;
        while key == 0 || self.keys.contains_key(&key) {
            key = rng.next_u64() as u32;
        }
        // Some page of 47 bits: no sum of it and a region's length overflows.
        let addr = rng.next_u64() & 0x7fff_ffff_f000;
        let region = Region {
            pd,
            bytes,
            len,
            addr,
            access,
            key,
        };
        let Ok(at) = self.regions.insert(region) else {
            return limit("memory regions", self.regions.limit() as u64);
        };
        self.keys.insert(key, at);
        self.registered += len;
        Ok(MemoryRegion {
            id: MemoryRegionId(at),
            addr,
            len,
            lkey: key,
            rkey: key,
        })
    }

    /// Unmaps a region; its domain.
    pub fn deregister(&mut self, id: MemoryRegionId) -> Option<Key> {
        let region = self.regions.remove(id.0)?;
        self.keys.remove(&region.key);
        self.registered -= region.len;
        Some(region.pd)
    }

    /// The owner's view of a region.
    pub fn bytes(&self, id: MemoryRegionId) -> Option<&[u8]> {
        let region = self.regions.get(id.0)?;
        region.bytes.get(..region.len)
    }

    /// The owner's view of a region, to write to.
    pub fn bytes_mut(&mut self, id: MemoryRegionId) -> Option<&mut [u8]> {
        let region = self.regions.get_mut(id.0)?;
        region.bytes.get_mut(..region.len)
    }

    /// What an SGE of the domain's owner names. A queue's requests are mostly in one region: `near`
    /// is where the last one was.
    #[inline]
    pub fn local(&self, pd: Key, sge: &Sge, writes: bool, near: &mut Option<Key>) -> Option<Span> {
        let needed = if writes {
            Access::LOCAL_WRITE
        } else {
            Access::NONE
        };
        let found = near.and_then(|at| Some((at, self.regions.get(at)?)));
        let (at, region) = match found.filter(|(_, region)| region.key == sge.lkey) {
            Some(found) => found,
            None => self.region(sge.lkey)?,
        };
        *near = Some(at);
        region.span(at, pd, sge.addr, sge.length, needed)
    }

    /// What a peer of the domain's queue pairs names. Of no bytes nothing is checked, as the
    /// standard has it.
    pub fn remote(&self, pd: Key, rkey: u32, addr: u64, len: u32, needed: Access) -> Option<Span> {
        if len == 0 {
            return Some(Span::default());
        }
        let (at, region) = self.region(rkey)?;
        region.span(at, pd, addr, len, needed)
    }

    /// The region of a key.
    fn region(&self, key: u32) -> Option<(Key, &Region)> {
        let at = *self.keys.get(&key)?;
        Some((at, self.regions.get(at)?))
    }

    /// `len` bytes of `span` from `at`; `None` once the region is gone.
    #[inline]
    pub fn slice(&self, span: &Span, at: u32, len: usize) -> Option<&[u8]> {
        let Some(key) = span.region else {
            return (len == 0).then_some(&[]);
        };
        let range = span.range(at, len)?;
        self.regions.get(key)?.bytes.get(range)
    }

    /// The same to write to.
    #[inline]
    pub fn slice_mut(&mut self, span: &Span, at: u32, len: usize) -> Option<&mut [u8]> {
        let Some(key) = span.region else {
            return (len == 0).then_some(&mut []);
        };
        let range = span.range(at, len)?;
        self.regions.get_mut(key)?.bytes.get_mut(range)
    }

    /// Copies from `at` of what `spans` are together; false when it is not all there.
    #[inline]
    pub fn gather(&self, spans: &[Span], mut at: u32, mut out: &mut [u8]) -> bool {
        for span in spans {
            if at >= span.len {
                at -= span.len;
                continue;
            }
            let n = out.len().min((span.len - at) as usize);
            let (head, rest) = out.split_at_mut(n);
            let Some(bytes) = self.slice(span, at, n) else {
                return false;
            };
            head.copy_from_slice(bytes);
            (out, at) = (rest, 0);
            if out.is_empty() {
                break;
            }
        }
        out.is_empty()
    }

    /// Where `len` bytes from `at` of what `spans` are together stand, if they do so in one piece.
    #[inline]
    pub fn piece(&self, spans: &[Span], mut at: u32, len: usize) -> Option<(Span, u32)> {
        for span in spans {
            if at < span.len {
                return self.slice(span, at, len).map(|_| (*span, at));
            }
            at -= span.len;
        }
        None
    }

    /// Copies to `at` of what `spans` are together; false when it is not all there.
    #[inline]
    pub fn scatter(&mut self, spans: &[Span], mut at: u32, mut data: &[u8]) -> bool {
        for span in spans {
            if data.is_empty() {
                break;
            }
            if at >= span.len {
                at -= span.len;
                continue;
            }
            let n = data.len().min((span.len - at) as usize);
            let (head, rest) = data.split_at(n);
            let Some(bytes) = self.slice_mut(span, at, n) else {
                return false;
            };
            bytes.copy_from_slice(head);
            (data, at) = (rest, 0);
        }
        data.is_empty()
    }
}

impl Span {
    #[inline]
    fn range(&self, at: u32, len: usize) -> Option<std::ops::Range<usize>> {
        let inside = (at as usize).checked_add(len)? <= self.len as usize;
        let begin = usize::try_from(self.offset)
            .ok()?
            .checked_add(at as usize)?;
        inside.then_some(begin..begin.checked_add(len)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rdma::roce::DEVICE_ATTR;

    fn domain(slot: u32) -> Key {
        Key {
            slot,
            generation: 0,
        }
    }

    #[test]
    fn keys_domains_ranges_and_rights_are_checked() {
        let mut m = Memory::new(&DEVICE_ATTR);
        let mut rng = Rng::from_u64(1);
        let access = Access::LOCAL_WRITE | Access::REMOTE_READ;
        let r = m.register(domain(1), 100, access, &mut rng).unwrap();
        let read = Access::REMOTE_READ;
        let span = m.remote(domain(1), r.rkey, r.addr, 100, read).unwrap();
        assert_eq!(m.slice(&span, 0, 100).map(<[u8]>::len), Some(100));
        assert_eq!(m.slice(&span, 1, 100), None);
        for (pd, rkey, addr, len, needed) in [
            (2, r.rkey, r.addr, 100, read),
            (1, r.rkey ^ 1, r.addr, 100, read),
            (1, r.rkey, r.addr, 101, read),
            (1, r.rkey, r.addr - 1, 2, read),
            (1, r.rkey, r.addr + 100, 1, read),
            (1, r.rkey, u64::MAX, 2, read),
            (1, r.rkey, r.addr, 1, Access::REMOTE_WRITE),
        ] {
            assert_eq!(m.remote(domain(pd), rkey, addr, len, needed), None);
        }
        // Nothing at all may be anywhere.
        let nothing = m.remote(domain(9), 0, 7, 0, read).unwrap();
        assert_eq!(
            (m.slice(&nothing, 0, 0), m.slice(&nothing, 0, 1)),
            (Some(&[][..]), None)
        );
        assert_eq!(m.deregister(r.id), Some(domain(1)));
        assert_eq!((m.slice(&span, 0, 1), m.counts()), (None, (0, 0)));
        assert_eq!(m.deregister(r.id), None);
    }

    #[test]
    fn where_the_last_piece_was_does_not_decide_about_the_next() {
        let mut m = Memory::new(&DEVICE_ATTR);
        let mut rng = Rng::from_u64(4);
        let mut register = |m: &mut Memory| {
            let made = m.register(domain(1), 32, Access::LOCAL_WRITE, &mut rng);
            made.unwrap()
        };
        let (a, b) = (register(&mut m), register(&mut m));
        let mut near = None;
        for region in [&a, &a, &b, &a, &b, &b] {
            let sge = region.sge(4, 8);
            let found = m.local(domain(1), &sge, true, &mut near);
            assert_eq!(found, m.local(domain(1), &sge, true, &mut None));
            assert_eq!((found.is_some(), near), (true, Some(region.id.0)));
            // Neither another domain's, nor more than there is.
            assert_eq!(m.local(domain(2), &sge, true, &mut near), None);
            let long = region.sge(0, 33);
            assert_eq!(m.local(domain(1), &long, true, &mut near), None);
        }
        m.deregister(b.id).unwrap();
        assert_eq!(m.local(domain(1), &b.sge(4, 8), true, &mut near), None);
        // Another in its place.
        let c = register(&mut m);
        assert_eq!(c.id.0.slot, b.id.0.slot);
        assert_eq!(m.local(domain(1), &b.sge(4, 8), true, &mut near), None);
        assert!(m.local(domain(1), &c.sge(4, 8), true, &mut near).is_some());
    }

    #[test]
    fn pieces_are_gathered_and_scattered_in_order() {
        let mut m = Memory::new(&DEVICE_ATTR);
        let mut rng = Rng::from_u64(2);
        let r = m
            .register(domain(1), 32, Access::LOCAL_WRITE, &mut rng)
            .unwrap();
        let spans: Vec<Span> = [(20, 3), (0, 0), (4, 5), (10, 2)]
            .map(|(at, len)| {
                m.local(domain(1), &r.sge(at, len), true, &mut None)
                    .unwrap()
            })
            .into();
        assert!(m.scatter(&spans, 0, b"abcdefgh"));
        assert!(m.scatter(&spans, 8, b"ij"));
        assert!(!m.scatter(&spans, 8, b"ijk"), "longer than the pieces");
        let bytes = m.bytes(r.id).unwrap();
        assert_eq!(
            (&bytes[20..23], &bytes[4..9], &bytes[10..12]),
            (&b"abc"[..], &b"defgh"[..], &b"ij"[..])
        );
        let mut out = [0; 6];
        assert!(m.gather(&spans, 2, &mut out));
        assert_eq!(&out, b"cdefgh");
        assert!(!m.gather(&spans, 5, &mut out), "longer than the pieces");
    }

    #[test]
    fn limits_and_contradictions_are_errors() {
        let mut m = Memory::new(&DeviceAttr {
            max_mr: 1,
            max_mr_size: 50,
            max_registered: 40,
            ..DEVICE_ATTR
        });
        let mut rng = Rng::from_u64(3);
        let mut register = |len, access| m.register(domain(0), len, access, &mut rng);
        assert!(matches!(
            register(51, Access::NONE),
            Err(RdmaError::Limit { limit: 50, .. })
        ));
        assert!(matches!(
            register(41, Access::NONE),
            Err(RdmaError::Limit { limit: 40, .. })
        ));
        assert!(register(1, Access::REMOTE_WRITE).is_err());
        assert!(register(40, Access::NONE).is_ok());
        assert!(matches!(
            register(0, Access::NONE),
            Err(RdmaError::Limit { limit: 1, .. })
        ));
    }
}
