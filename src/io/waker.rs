//! Waking a shard from another thread, for nothing while it is awake.
//!
//! Two flags decide. A waker sets `pending` and then reads `sleeping`; the shard, before it
//! sleeps, sets `sleeping` and then reads `pending`. All four are sequentially consistent, so at
//! least one side sees the other's flag: either the shard does not sleep, or the waker writes the
//! eventfd. Only the waker that set `pending` first looks further, so a burst of wakes costs one
//! write at most, and none while the shard runs.

use super::error::IoError;
use crossbeam::utils::CachePadded;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug)]
struct Shared {
    /// Written by wakers, cleared by the shard after a sleep.
    pending: CachePadded<AtomicBool>,
    /// Written by the shard alone.
    sleeping: CachePadded<AtomicBool>,
    /// None for a backend that never sleeps.
    event: Option<OwnedFd>,
}

/// Ends the sleep of one backend from any thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Shared>);

impl Waker {
    /// A waker with an eventfd, which it owns and which blocks on read: io_uring polls a blocking
    /// descriptor instead of failing with EAGAIN.
    pub(super) fn new() -> Result<Self, IoError> {
        // SAFETY: the call takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(IoError::last("eventfd"));
        }
        // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self::with(Some(event)))
    }

    /// A waker for a backend that never sleeps, such as a simulated one: `wake` leaves a mark that
    /// [`take_pending`](Self::take_pending) finds.
    pub fn detached() -> Self {
        Self::with(None)
    }

    fn with(event: Option<OwnedFd>) -> Self {
        Self(Arc::new(Shared {
            pending: CachePadded::new(AtomicBool::new(false)),
            sleeping: CachePadded::new(AtomicBool::new(false)),
            event,
        }))
    }

    /// Makes the shard's current or next `wait` return. What the caller published before is
    /// visible to the shard after that `wait`.
    pub fn wake(&self) {
        if self.0.pending.swap(true, Ordering::SeqCst) {
            return; // Whoever set it first sees to the rest.
        }
        if self.0.sleeping.load(Ordering::SeqCst) {
            self.ring();
        }
    }

    fn ring(&self) {
        if let Some(event) = &self.0.event {
            let one = 1u64.to_ne_bytes();
            // SAFETY: `one` is eight readable bytes. The counter cannot overflow: there is one
            // write per sleep and each write is read. A failure would need a closed descriptor,
            // which the `Arc` rules out.
            unsafe { libc::write(event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        }
    }

    /// Announces sleep. False when a wake came since the last sleep: the caller then must not
    /// block, and calls [`awake`](Self::awake) as after a sleep.
    pub(super) fn prepare_sleep(&self) -> bool {
        self.0.sleeping.store(true, Ordering::SeqCst);
        !self.0.pending.load(Ordering::SeqCst)
    }

    /// Takes the announcement back.
    pub(super) fn awake(&self) {
        self.0.sleeping.store(false, Ordering::SeqCst);
        self.take_pending();
    }

    /// Whether a wake came since the last sleep; forgets it.
    pub fn take_pending(&self) -> bool {
        self.0.pending.swap(false, Ordering::SeqCst)
    }

    /// The eventfd, to be watched by the backend that owns this waker.
    pub(super) fn event_fd(&self) -> RawFd {
        self.0.event.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rings(w: &Waker) -> bool {
        let mut p = libc::pollfd {
            fd: w.event_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid pollfd, no timeout.
        unsafe { libc::poll(&mut p, 1, 0) == 1 }
    }

    #[test]
    fn an_awake_shard_is_not_written_to() {
        let w = Waker::new().unwrap();
        w.wake();
        w.wake();
        assert!(!rings(&w));
        assert!(!w.prepare_sleep(), "the wake before the sleep is not lost");
        w.awake();
        assert!(w.prepare_sleep());
    }

    #[test]
    fn a_sleeping_shard_is_written_to_once() {
        let w = Waker::new().unwrap();
        assert!(w.prepare_sleep());
        for _ in 0..3 {
            w.clone().wake();
        }
        let mut count = [0u8; 8];
        assert!(rings(&w));
        // SAFETY: eight writable bytes.
        unsafe { libc::read(w.event_fd(), count.as_mut_ptr().cast(), 8) };
        assert_eq!(u64::from_ne_bytes(count), 1);
    }

    #[test]
    fn a_detached_waker_leaves_a_mark() {
        let w = Waker::detached();
        assert!(!w.take_pending());
        w.wake();
        assert!(w.take_pending() && !w.take_pending());
    }
}
