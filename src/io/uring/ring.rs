//! The ring itself: set-up with what the kernel offers, pushing, entering, taking completions.
//!
//! A completion is identified by what kind of operation it ends and by one index, both packed in
//! `user_data`. The ring starts disabled where the kernel allows, and is enabled by the first
//! thread that enters it: that thread alone may enter it from then on.

use super::super::{Errno, IoError, IoStats};
use io_uring::{IoUring, Probe, cqueue, opcode, squeue, types};
use std::os::fd::RawFd;
use std::time::Duration;

/// Submissions between two enters: all send slots, re-armed receives, cancellations.
const ENTRIES: u32 = 256;

/// How the kernel hands over completions that arise outside of our system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskRun {
    /// When we ask (SINGLE_ISSUER, DEFER_TASKRUN; kernel 6.1): nothing interrupts the shard.
    Deferred,
    /// At our next system call (COOP_TASKRUN; kernel 5.19).
    Cooperative,
    /// At once, by an interrupt of the shard's core.
    Interrupting,
}

/// What an operation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The multishot receive of the socket with that index.
    Receive,
    /// The send in the slot with that index.
    Send,
    /// The read of the waker's eventfd.
    Wake,
    /// A cancellation.
    Cancel,
    /// The multishot poll of a watched descriptor.
    Watch,
}

/// The end, or for a multishot operation one result, of an operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub(super) kind: Kind,
    pub(super) index: u32,
    /// What the system call would have returned; a negative errno on failure.
    pub(super) result: i32,
    pub(super) flags: u32,
}

impl Completion {
    /// The provided buffer that the kernel chose.
    #[inline]
    pub(super) fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

pub(super) const fn pack(kind: Kind, index: u32) -> u64 {
    (kind as u64) << 32 | index as u64
}

fn unpack(user_data: u64) -> (Kind, u32) {
    let kind = match user_data >> 32 {
        0 => Kind::Receive,
        1 => Kind::Send,
        2 => Kind::Wake,
        4 => Kind::Watch,
        _ => Kind::Cancel,
    };
    (kind, user_data as u32)
}

/// An io_uring instance.
pub(super) struct Ring {
    uring: IoUring,
    task_run: TaskRun,
    /// Created disabled and not enabled yet.
    disabled: bool,
    entered: bool,
}

impl Ring {
    /// Sets a ring up in the best way that the kernel knows.
    pub(super) fn open() -> Result<Self, IoError> {
        let mut error = Errno(libc::EINVAL);
        for task_run in [
            TaskRun::Deferred,
            TaskRun::Cooperative,
            TaskRun::Interrupting,
        ] {
            match build(task_run) {
                Ok(uring) => {
                    let ring = Self {
                        uring,
                        task_run,
                        disabled: task_run == TaskRun::Deferred,
                        entered: false,
                    };
                    ring.check()?;
                    return Ok(ring);
                }
                Err(e) => error = e,
            }
            if error != Errno(libc::EINVAL) {
                break; // Not a matter of flags: forbidden, missing or out of memory.
            }
        }
        Err(IoError::Unavailable {
            what: "io_uring",
            errno: error,
        })
    }

    /// Whether the kernel has the operations and the guarantees that this backend builds on.
    fn check(&self) -> Result<(), IoError> {
        let lacks = |what| {
            let errno = Errno(libc::ENOSYS);
            Err(IoError::Unavailable { what, errno })
        };
        let p = self.uring.params();
        if !p.is_feature_nodrop() || !p.is_feature_ext_arg() {
            return lacks("io_uring without lost completions (kernel 5.11)");
        }
        let mut probe = Probe::new();
        let probed = self.uring.submitter().register_probe(&mut probe);
        // Multishot recvmsg cannot be probed for; it came with 6.0, as SEND_ZC did.
        if probed.is_err() || !probe.is_supported(opcode::SendZc::CODE) {
            return lacks("multishot recvmsg in io_uring (kernel 6.0)");
        }
        Ok(())
    }

    pub(super) fn task_run(&self) -> TaskRun {
        self.task_run
    }

    /// Whether the kernel may have seen any operation.
    pub(super) fn has_entered(&self) -> bool {
        self.entered
    }

    /// Makes an empty table of up to `wanted` registered files and returns its size: the table
    /// may not exceed the process's limit of open files.
    pub(super) fn register_files(&self, wanted: usize) -> Result<usize, IoError> {
        let mut size = u32::try_from(wanted).unwrap_or(u32::MAX).max(1);
        loop {
            match self.uring.submitter().register_files_sparse(size) {
                Ok(()) => return Ok(size as usize),
                Err(e) if e.raw_os_error() == Some(libc::EMFILE) && size > 1 => size /= 2,
                Err(e) => return Err(IoError::from_io("io_uring_register files", &e)),
            }
        }
    }

    /// Puts a descriptor, or -1 for none, in the table of registered files.
    pub(super) fn set_file(&self, index: u32, fd: RawFd) -> Result<(), IoError> {
        self.uring
            .submitter()
            .register_files_update(index, &[fd])
            .map(drop)
            .map_err(|e| IoError::from_io("io_uring_register file", &e))
    }

    /// Gives the table of registered files up, and with it the last hold on their sockets.
    pub(super) fn unregister_files(&self) {
        // It fails only on a thread that does not own the ring; closing the ring does it then.
        let _ = self.uring.submitter().unregister_files();
    }

    /// Registers a ring of provided buffers as group 0.
    ///
    /// # Safety
    ///
    /// `entries` must be page-aligned zeroed memory for `count` entries, and live until the group
    /// is unregistered or the ring is closed.
    pub(super) unsafe fn register_buffers(&self, entries: u64, count: u16) -> Result<(), IoError> {
        // SAFETY: passed on to the caller.
        unsafe {
            self.uring
                .submitter()
                .register_buf_ring_with_flags(entries, count, 0, 0)
        }
        .map_err(|e| IoError::Unavailable {
            what: "a ring of provided buffers in io_uring (kernel 5.19)",
            errno: Errno(e.raw_os_error().unwrap_or(libc::EIO)),
        })
    }

    /// Queues an operation; enters the kernel only if the queue is full.
    ///
    /// # Safety
    ///
    /// What `entry` points to must stay valid and untouched until the operation's completion.
    #[inline]
    pub(super) unsafe fn push(
        &mut self,
        entry: squeue::Entry,
        kind: Kind,
        index: u32,
        stats: &mut IoStats,
    ) -> Result<(), IoError> {
        let entry = entry.user_data(pack(kind, index));
        // SAFETY: passed on to the caller.
        if unsafe { self.uring.submission().push(&entry) }.is_ok() {
            return Ok(());
        }
        self.submit(stats)?;
        // SAFETY: as above.
        unsafe { self.uring.submission().push(&entry) }.map_err(|_| IoError::System {
            op: "io_uring submission",
            errno: Errno(libc::EBUSY),
        })
    }

    /// Whether entering the kernel would do anything: operations are queued, or it has completions
    /// that it will only deliver in a call.
    #[inline]
    pub(super) fn needs_enter(&mut self) -> bool {
        let sq = self.uring.submission();
        !sq.is_empty() || sq.taskrun() || sq.cq_overflow()
    }

    /// Whether a completion can be taken.
    #[inline]
    pub(super) fn has_completions(&mut self) -> bool {
        !self.uring.completion().is_empty()
    }

    /// Takes the oldest completion.
    #[inline]
    pub(super) fn next(&mut self) -> Option<Completion> {
        let cqe = self.uring.completion().next()?;
        let (kind, index) = unpack(cqe.user_data());
        Some(Completion {
            kind,
            index,
            result: cqe.result(),
            flags: cqe.flags(),
        })
    }

    /// Submits what is queued and has the kernel deliver what it holds back.
    #[inline]
    pub(super) fn submit(&mut self, stats: &mut IoStats) -> Result<(), IoError> {
        self.enter(stats)?;
        tolerate(self.uring.submit())
    }

    /// Submits and sleeps until there is a completion or the time is up.
    pub(super) fn wait(
        &mut self,
        timeout: Option<Duration>,
        stats: &mut IoStats,
    ) -> Result<(), IoError> {
        self.enter(stats)?;
        tolerate(match timeout {
            None => self.uring.submit_and_wait(1),
            Some(t) => {
                let spec = types::Timespec::from(t);
                let args = types::SubmitArgs::new().timespec(&spec);
                self.uring.submitter().submit_with_args(1, &args)
            }
        })
    }

    #[inline]
    fn enter(&mut self, stats: &mut IoStats) -> Result<(), IoError> {
        if self.disabled {
            self.uring
                .submitter()
                .register_enable_rings()
                .map_err(|e| IoError::from_io("io_uring_register enable", &e))?;
            self.disabled = false;
        }
        self.entered = true;
        stats.syscalls += 1;
        Ok(())
    }
}

/// Interruption, the end of a timeout, and a kernel that wants its completions taken first are
/// no failures; what was not submitted stays queued.
#[inline]
fn tolerate(entered: std::io::Result<usize>) -> Result<(), IoError> {
    match entered {
        Ok(_) => Ok(()),
        Err(e) => match e.raw_os_error() {
            Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(IoError::from_io("io_uring_enter", &e)),
        },
    }
}

fn build(task_run: TaskRun) -> Result<IoUring, Errno> {
    let mut b = IoUring::builder();
    // Room for the completions of a burst; what exceeds it the kernel keeps for later.
    b.setup_cqsize(ENTRIES * 4).setup_submit_all();
    match task_run {
        TaskRun::Deferred => b
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_r_disabled(),
        TaskRun::Cooperative => b.setup_coop_taskrun().setup_taskrun_flag(),
        TaskRun::Interrupting => &mut b,
    };
    b.build(ENTRIES)
        .map_err(|e| Errno(e.raw_os_error().unwrap_or(libc::EIO)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_tells_kind_and_index() {
        for kind in [
            Kind::Receive,
            Kind::Send,
            Kind::Wake,
            Kind::Cancel,
            Kind::Watch,
        ] {
            for index in [0, 1, u32::MAX] {
                assert_eq!(unpack(pack(kind, index)), (kind, index));
            }
        }
    }

    #[test]
    fn every_way_of_task_running_that_the_kernel_has_works() {
        let mut stats = IoStats::default();
        for task_run in [
            TaskRun::Deferred,
            TaskRun::Cooperative,
            TaskRun::Interrupting,
        ] {
            let Ok(uring) = build(task_run) else {
                continue;
            };
            let mut ring = Ring {
                uring,
                task_run,
                disabled: task_run == TaskRun::Deferred,
                entered: false,
            };
            assert!(!ring.needs_enter() && !ring.has_completions());
            // SAFETY: a no-op refers to no memory.
            unsafe { ring.push(opcode::Nop::new().build(), Kind::Wake, 9, &mut stats) }.unwrap();
            assert!(ring.needs_enter() && !ring.has_entered());
            ring.wait(None, &mut stats).unwrap();
            let c = ring.next().unwrap();
            assert_eq!((c.kind, c.index, c.result), (Kind::Wake, 9, 0));
            assert!(ring.next().is_none() && !ring.needs_enter());
            ring.wait(Some(Duration::from_micros(1)), &mut stats)
                .unwrap();
        }
    }

    #[test]
    fn a_full_queue_submits_itself_and_completions_beyond_the_ring_are_kept() {
        let mut stats = IoStats::default();
        let Ok(mut ring) = Ring::open() else {
            return;
        };
        let n = ENTRIES * 6;
        for i in 0..n {
            // SAFETY: a no-op refers to no memory.
            unsafe { ring.push(opcode::Nop::new().build(), Kind::Send, i, &mut stats) }.unwrap();
        }
        let mut seen = 0;
        while seen < n {
            ring.submit(&mut stats).unwrap();
            while let Some(c) = ring.next() {
                assert_eq!(c.index, seen);
                seen += 1;
            }
        }
        assert!(ring.next().is_none());
    }
}
