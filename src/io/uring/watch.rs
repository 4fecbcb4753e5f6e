//! Watched descriptors of a ring: one multishot poll each, which the kernel ends only when it has
//! no room for completions, and which is then begun anew.

use super::super::IoError;
use super::super::watch::WatchId;
use super::Uring;
use super::ring::{Completion, Kind, pack};
use io_uring::{cqueue, opcode, types};
use std::os::fd::OwnedFd;

impl Uring {
    pub(in crate::io) fn watch(&mut self, fd: OwnedFd) -> Result<WatchId, IoError> {
        // Asked for by the thread that drives the ring, which may not be this one.
        self.watches.add(fd)
    }

    pub(in crate::io) fn unwatch(&mut self, id: WatchId) {
        if self.watches.remove(id) {
            let poll = pack(Kind::Watch, id.0);
            self.cancel(types::CancelBuilder::user_data(poll));
        }
    }

    #[inline]
    pub(in crate::io) fn next_readable(&mut self) -> Option<WatchId> {
        self.watches.next_readable()
    }

    /// Asks for those that the kernel does not watch.
    #[inline]
    pub(super) fn arm_watches(&mut self) -> Result<(), IoError> {
        while let Some(id) = self.watches.next_unarmed() {
            let fd = types::Fd(self.watches.fd(id).unwrap_or(-1));
            let poll = opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true);
            let entry = poll.build();
            // SAFETY: a poll refers to no memory; its descriptor is open until it has ended.
            unsafe { self.ring.push(entry, Kind::Watch, id.0, &mut self.stats) }?;
            self.watches.armed(id);
            self.operations += 1;
        }
        Ok(())
    }

    pub(super) fn on_watched(&mut self, c: Completion) {
        let id = WatchId(c.index);
        if c.result > 0 {
            self.watches.note(id);
        }
        if !cqueue::more(c.flags) {
            self.operations -= 1;
            self.watches.ended(id, c.result >= 0);
            if c.result < 0 && c.result != -libc::ECANCELED {
                tracing::error!(errno = -c.result, "a descriptor cannot be watched");
            }
        }
    }
}
