//! An epoll instance: which descriptors are worth asking, and sleeping until one is.

use super::super::IoError;
use super::super::errno::Errno;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Descriptors that are watched until they can be read.
pub(super) struct Epoll(OwnedFd);

impl Epoll {
    pub(super) fn new() -> Result<Self, IoError> {
        // SAFETY: the call takes no pointers.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(IoError::last("epoll_create1"));
        }
        // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Watches a descriptor, which is reported as `data`; `room` watches for send space as well.
    pub(super) fn add(&self, fd: i32, data: u64, room: bool) -> Result<(), IoError> {
        self.control(libc::EPOLL_CTL_ADD, fd, data, room)
    }

    /// Changes what a watched descriptor is watched for.
    pub(super) fn change(&self, fd: i32, data: u64, room: bool) -> Result<(), IoError> {
        self.control(libc::EPOLL_CTL_MOD, fd, data, room)
    }

    /// Watches a descriptor no longer.
    pub(super) fn remove(&self, fd: i32) {
        // It cannot fail: the descriptor was added.
        let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0, false);
    }

    fn control(&self, op: i32, fd: i32, data: u64, room: bool) -> Result<(), IoError> {
        let mut event = libc::epoll_event {
            events: (libc::EPOLLIN | if room { libc::EPOLLOUT } else { 0 }) as u32,
            u64: data,
        };
        // SAFETY: `event` is valid for the call, which copies it.
        if unsafe { libc::epoll_ctl(self.0.as_raw_fd(), op, fd, &mut event) } == 0 {
            Ok(())
        } else {
            Err(IoError::last("epoll_ctl"))
        }
    }

    /// How many `events` there are now. `epoll_pwait2` for its nanoseconds, `epoll_wait` rounded up
    /// to milliseconds on kernels before 5.11.
    pub(super) fn wait(
        &self,
        events: &mut [libc::epoll_event],
        timeout: Option<Duration>,
    ) -> Result<usize, Errno> {
        let max = i32::try_from(events.len()).unwrap_or(i32::MAX);
        let fd = self.0.as_raw_fd();
        if timeout != Some(Duration::ZERO) {
            let spec = timeout.map(|t| libc::timespec {
                tv_sec: libc::time_t::try_from(t.as_secs()).unwrap_or(libc::time_t::MAX),
                tv_nsec: t.subsec_nanos() as _,
            });
            let spec = spec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
            let mask = std::ptr::null::<libc::sigset_t>();
            // SAFETY: `events` has room for `max` events, `spec` is null or valid, and no signal
            // mask is given.
            let n = unsafe {
                libc::syscall(
                    libc::SYS_epoll_pwait2,
                    fd,
                    events.as_mut_ptr(),
                    max,
                    spec,
                    mask,
                    8usize,
                )
            };
            match usize::try_from(n) {
                Ok(n) => return Ok(n),
                Err(_) => match Errno::last() {
                    Errno(libc::ENOSYS) | Errno(libc::EPERM) => {}
                    errno => return Err(errno),
                },
            }
        }
        let millis = timeout.map_or(-1, |t| {
            i32::try_from(t.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
        });
        // SAFETY: `events` has room for `max` events.
        let n = unsafe { libc::epoll_wait(fd, events.as_mut_ptr(), max, millis) };
        usize::try_from(n).map_err(|_| Errno::last())
    }
}
