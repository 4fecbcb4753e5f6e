//! Room in a completion queue that many queue pairs share: each claims what it can fill at the
//! worst, so that one more than fit is refused, and none loses completions to another.

use super::error::RdmaError;
use super::port::Usage;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const WHAT: &str = "completions";

/// The entries of one queue.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<(u32, AtomicU32)>);

impl Room {
    pub fn new(entries: u32) -> Self {
        Self(Arc::new((entries, AtomicU32::new(0))))
    }

    /// So many entries, if they are left.
    pub fn claim(&self, entries: u32) -> Result<Claimed, RdmaError> {
        let (limit, used) = &*self.0;
        let more = |n: u32| n.checked_add(entries).filter(|n| n <= limit);
        match used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(Claimed(self.clone(), entries)),
            Err(_) => Err(RdmaError::Limit {
                what: WHAT,
                limit: (*limit).into(),
            }),
        }
    }

    pub fn usage(&self) -> Usage {
        Usage {
            what: WHAT,
            used: self.0.1.load(Ordering::Relaxed).into(),
            limit: self.0.0.into(),
        }
    }
}

/// Entries that are claimed until this is dropped.
#[derive(Debug)]
pub(super) struct Claimed(Room, u32);

impl Drop for Claimed {
    fn drop(&mut self) {
        self.0.0.1.fetch_sub(self.1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_claimed_than_there_is() {
        let room = Room::new(10);
        let first = room.claim(6).unwrap();
        assert!(matches!(
            room.claim(5),
            Err(RdmaError::Limit { limit: 10, .. })
        ));
        let second = room.claim(4).unwrap();
        assert_eq!((room.usage().used, room.usage().is_near()), (10, true));
        drop(first);
        assert!(room.claim(u32::MAX).is_err() && room.claim(6).is_ok());
        drop(second);
        assert_eq!(room.usage().used, 0);
    }
}
