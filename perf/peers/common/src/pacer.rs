//! Requests at fixed times: which are due, and a timer that is fine enough to wait for the next.
//!
//! What is due stays due: a client that falls behind begins late and counts from the due time, so
//! that a stall is in the latency of every request that it held up.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// How many requests may be under way at a time; more wait, and stay due.
pub const MAX_UNDER_WAY: usize = 4096;

/// The times at which requests are due.
#[derive(Clone, Copy, Debug)]
pub struct Pacer {
    begin: Instant,
    rate: u32,
    begun: u64,
}

impl Pacer {
    /// `rate` requests a second from `begin` on, the first at once.
    pub fn new(begin: Instant, rate: u32) -> Self {
        Self {
            begin,
            rate: rate.max(1),
            begun: 0,
        }
    }

    /// When the next request is due.
    pub fn next(&self) -> Instant {
        let (rate, begun) = (u64::from(self.rate), self.begun);
        let nanos = begun % rate * 1_000_000_000 / rate;
        self.begin + Duration::from_secs(begun / rate) + Duration::from_nanos(nanos)
    }

    /// When the next request was due, if it is; each is given once.
    pub fn take(&mut self, now: Instant) -> Option<Instant> {
        let due = self.next();
        (due <= now).then(|| {
            self.begun += 1;
            due
        })
    }
}

/// A timer of the kernel with nanoseconds, to wait for beside sockets.
pub struct Timer(OwnedFd);

impl Timer {
    /// One that never fires.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self(timerfd_create(TimerfdClockId::Monotonic, flags)?))
    }

    /// Makes its descriptor readable after `wait`, and unreadable until then.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set(&self, wait: Duration) -> io::Result<()> {
        // Nothing at all would turn it off.
        let wait = wait.max(Duration::from_nanos(1));
        let nothing = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let value = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        };
        let value = Itimerspec {
            it_interval: nothing,
            it_value: value,
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &value)?;
        Ok(())
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::now;

    #[test]
    fn each_request_is_due_once_and_at_its_time() {
        let begin = now();
        let mut pacer = Pacer::new(begin, 3);
        assert_eq!(pacer.take(begin), Some(begin));
        assert_eq!(pacer.take(begin), None);
        let late = begin + Duration::from_secs(1);
        let due: Vec<_> = std::iter::from_fn(|| pacer.take(late))
            .map(|due| due.duration_since(begin).as_nanos())
            .collect();
        assert_eq!(due, [333_333_333, 666_666_666, 1_000_000_000]);
        assert!(pacer.next() > late);
    }

    #[test]
    fn years_of_requests_do_not_overflow() {
        let begin = now();
        let mut pacer = Pacer::new(begin, u32::MAX);
        pacer.begun = 100_000_000 * u64::from(u32::MAX);
        assert_eq!(pacer.next(), begin + Duration::from_secs(100_000_000));
    }

    #[test]
    fn a_timer_fires_after_its_time_and_again_when_set_again() {
        use rustix::event::{PollFd, PollFlags, poll};
        let timer = Timer::new().unwrap();
        for wait in [Duration::ZERO, Duration::from_millis(2)] {
            let begin = now();
            timer.set(wait).unwrap();
            let mut fds = [PollFd::new(&timer, PollFlags::IN)];
            assert_eq!(poll(&mut fds, None).unwrap(), 1);
            assert!(begin.elapsed() >= wait);
        }
    }
}
