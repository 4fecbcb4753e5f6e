//! Descriptors that are no sockets of a backend and end its sleep all the same: a device's events,
//! a timer, another loop's.
//!
//! A backend holds its own duplicate of each, so closing the original takes nothing away under it.
//! It tells that one was readable, and again after more has come; whoever is told reads all there
//! is, for a backend may tell of the same bytes once only.

use super::IoError;
use crate::base::limits;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Names a watched descriptor of one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WatchId(pub(super) u32);

#[derive(Debug)]
struct Place {
    fd: OwnedFd,
    /// The kernel has an operation on it.
    armed: bool,
    /// No longer wanted; kept until the operation has ended.
    gone: bool,
}

/// The watched descriptors of one backend.
#[derive(Debug, Default)]
pub(super) struct Watches {
    places: Vec<Option<Place>>,
    /// A bit for each that was readable and is not told of.
    readable: u64,
    /// A bit for each that the kernel is to be asked for.
    unarmed: u64,
}

const _: () = assert!(limits::WATCHES <= 64);

impl Watches {
    /// Takes a descriptor in.
    pub(super) fn add(&mut self, fd: OwnedFd) -> Result<WatchId, IoError> {
        let place = Place {
            fd,
            armed: false,
            gone: false,
        };
        let index = match self.places.iter().position(Option::is_none) {
            Some(free) => free,
            None if self.places.len() < limits::WATCHES => {
                self.places.push(None);
                self.places.len() - 1
            }
            None => {
                let limit = limits::WATCHES;
                return Err(IoError::TooManyWatches { limit });
            }
        };
        if let Some(slot) = self.places.get_mut(index) {
            *slot = Some(place);
        }
        self.unarmed |= 1 << index;
        Ok(WatchId(index as u32))
    }

    fn place(&mut self, id: WatchId) -> Option<&mut Place> {
        self.places.get_mut(id.0 as usize)?.as_mut()
    }

    /// The descriptor, while it is wanted.
    pub(super) fn fd(&self, id: WatchId) -> Option<RawFd> {
        let place = self.places.get(id.0 as usize)?.as_ref()?;
        (!place.gone).then(|| place.fd.as_raw_fd())
    }

    /// Gives a descriptor up; whether an operation on it has to be cancelled, after whose end
    /// [`Watches::ended`] frees its place.
    pub(super) fn remove(&mut self, id: WatchId) -> bool {
        let bit = 1u64.checked_shl(id.0).unwrap_or(0);
        self.readable &= !bit;
        self.unarmed &= !bit;
        let Some(place) = self.place(id) else {
            return false;
        };
        if place.armed {
            return !std::mem::replace(&mut place.gone, true);
        }
        if let Some(slot) = self.places.get_mut(id.0 as usize) {
            *slot = None;
        }
        false
    }

    /// The next one to ask the kernel for.
    #[inline]
    pub(super) fn next_unarmed(&self) -> Option<WatchId> {
        (self.unarmed != 0).then(|| WatchId(self.unarmed.trailing_zeros()))
    }

    /// It is asked for.
    pub(super) fn armed(&mut self, id: WatchId) {
        self.unarmed &= !(1 << id.0);
        if let Some(place) = self.place(id) {
            place.armed = true;
        }
    }

    /// Its operation has ended and is to begin anew, unless it failed or is unwanted.
    pub(super) fn ended(&mut self, id: WatchId, again: bool) {
        let Some(place) = self.place(id) else {
            return;
        };
        place.armed = false;
        if place.gone {
            self.remove(id);
        } else if again {
            self.unarmed |= 1 << id.0;
        }
    }

    /// It is readable.
    pub(super) fn note(&mut self, id: WatchId) {
        if self.fd(id).is_some() {
            self.readable |= 1 << id.0;
        }
    }

    /// Whether there is one to tell of.
    #[inline]
    pub(super) fn any_readable(&self) -> bool {
        self.readable != 0
    }

    /// One that was readable; each is told of once.
    #[inline]
    pub(super) fn next_readable(&mut self) -> Option<WatchId> {
        let any = self.any_readable();
        any.then(|| {
            let id = WatchId(self.readable.trailing_zeros());
            self.readable &= self.readable - 1;
            id
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn fd() -> OwnedFd {
        File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn a_place_is_free_again_once_its_operation_has_ended() {
        let mut watches = Watches::default();
        let ids: Vec<WatchId> = (0..limits::WATCHES)
            .map(|_| watches.add(fd()).unwrap())
            .collect();
        let limit = limits::WATCHES;
        assert_eq!(watches.add(fd()), Err(IoError::TooManyWatches { limit }));
        let (a, b) = (ids[0], ids[limit - 1]);
        assert_eq!(watches.next_unarmed(), Some(a));
        watches.armed(a);
        watches.note(a);
        watches.note(b);
        assert!(!watches.remove(b) && watches.fd(b).is_none());
        assert!(watches.remove(a) && !watches.remove(a));
        assert_eq!((watches.next_readable(), watches.fd(a)), (None, None));
        assert_eq!(watches.add(fd()), Ok(b));
        watches.ended(a, true);
        assert_eq!(watches.add(fd()), Ok(a));
        watches.note(a);
        assert_eq!(
            (watches.next_readable(), watches.next_readable()),
            (Some(a), None)
        );
    }
}
