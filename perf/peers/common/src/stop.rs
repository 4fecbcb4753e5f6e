//! The word that a side has to end: a flag to look at, and a descriptor to wait for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::event::{EventfdFlags, eventfd};

/// Set once, for all its clones.
#[derive(Clone)]
pub struct Stop(Arc<Inner>);

struct Inner {
    is_set: AtomicBool,
    event: OwnedFd,
}

impl Stop {
    /// One that is not set.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Inner {
            is_set: AtomicBool::new(false),
            event,
        })))
    }

    /// Sets it.
    pub fn set(&self) {
        self.0.is_set.store(true, Relaxed);
        // A counter of 64 bits takes a few ones.
        let _ = rustix::io::write(&self.0.event, &1u64.to_ne_bytes());
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.0.is_set.load(Relaxed)
    }
}

/// Readable once it is set, and for ever.
impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}
