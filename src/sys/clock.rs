//! The one place that reads a clock.
//!
//! [`Clock::now`] is monotonic and has the same origin on every thread of the machine, so that
//! timestamps may travel between shards. Wall-clock time exists only for what outlives the
//! process: the issue time inside address-validation tokens.

use crate::base::Timestamp;
use std::time::Duration;

/// The system's clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clock;

impl Clock {
    /// Monotonic time, in nanoseconds since an origin that all threads share.
    #[inline]
    pub fn now() -> Timestamp {
        let mut t = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: `t` is a valid timespec for the call to write to, and CLOCK_MONOTONIC exists on
        // every Linux, so the call cannot fail.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
        let secs = u64::try_from(t.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(t.tv_nsec).unwrap_or(0);
        Timestamp::from_nanos(secs.saturating_mul(1_000_000_000).saturating_add(nanos))
    }

    /// Time since the Unix epoch; zero on a machine whose clock is set before it.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that may read the clock"
    )]
    pub fn unix_time() -> Duration {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_share_the_origin_and_time_does_not_run_backwards() {
        let before = Clock::now();
        let between = std::thread::spawn(Clock::now).join().unwrap();
        let after = Clock::now();
        assert!(before <= between && between <= after);
        assert!(Clock::unix_time() > Duration::from_secs(1_600_000_000));
    }
}
