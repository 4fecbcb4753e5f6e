//! Wall-clock time, the CPU time of single threads, and on which core they run.

use std::io;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Now, on the monotonic clock.
pub fn now() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "a benchmark measures real time, and this is where it reads it"
    )]
    Instant::now()
}

/// Seconds since 1970: the date of a result.
pub fn unix_seconds() -> u64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "results carry the date on which they were made"
    )]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// How many cores this process may use.
pub fn cores() -> usize {
    core_affinity::get_core_ids().map_or(0, |cores| cores.len())
}

/// Pins the calling thread to `core`.
///
/// # Errors
/// When the process may not use that core.
pub fn pin(core: usize) -> io::Result<()> {
    let may_use = core_affinity::get_core_ids().unwrap_or_default();
    let found = may_use.into_iter().find(|allowed| allowed.id == core);
    if found.is_some_and(core_affinity::set_for_current) {
        Ok(())
    } else {
        Err(io::Error::other(format!("cannot run on core {core}")))
    }
}

/// Starts a thread that is pinned to `core` and named `name`, and returns its CPU clock with it.
///
/// # Errors
/// When it cannot be started or pinned.
pub fn spawn_pinned<T: Send + 'static>(
    name: &str,
    core: usize,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<(CpuClock, Pinned<T>)> {
    let (tell, told) = std::sync::mpsc::channel();
    let (go, gone) = std::sync::mpsc::channel();
    let handle = thread::Builder::new().name(name.into()).spawn(move || {
        // The other end waits for exactly this message, and lets go only of a thread that is ready.
        let _ = tell.send(pin(core).and_then(|()| CpuClock::of_this_thread()));
        gone.recv().ok().map(|()| body())
    })?;
    let clock = told
        .recv()
        .map_err(|_| io::Error::other("the thread ended early"))??;
    go.send(())
        .map_err(|_| io::Error::other("the thread ended early"))?;
    Ok((clock, Pinned(handle)))
}

/// A thread from [`spawn_pinned`].
pub struct Pinned<T>(thread::JoinHandle<Option<T>>);

impl<T> Pinned<T> {
    /// Waits for its end.
    ///
    /// # Errors
    /// When it panicked.
    pub fn join(self) -> io::Result<T> {
        let value = self.0.join().ok().flatten();
        value.ok_or_else(|| io::Error::other("a thread panicked"))
    }
}

/// The CPU clock of one thread, which any thread of the process may read.
#[derive(Clone, Copy, Debug)]
pub struct CpuClock(libc::clockid_t);

impl CpuClock {
    /// The clock of the calling thread. It can be read while that thread lives.
    ///
    /// # Errors
    /// When the system has none.
    pub fn of_this_thread() -> io::Result<Self> {
        let mut id = 0;
        // SAFETY: the calling thread's own handle is valid, and `id` outlives the call.
        let rc = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &mut id) };
        if rc == 0 {
            Ok(Self(id))
        } else {
            Err(io::Error::from_raw_os_error(rc))
        }
    }

    /// Time on a processor since the thread began.
    ///
    /// # Errors
    /// When the thread has ended.
    pub fn read(self) -> io::Result<Duration> {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: `time` is a valid timespec that outlives the call; any clock ID may be passed,
        // an unknown one is an error.
        let rc = unsafe { libc::clock_gettime(self.0, &mut time) };
        if rc != 0 {
            return Err(io::Error::last_os_error());
        }
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        Ok(Duration::new(seconds, nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_counts_its_own_thread_only() {
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let (clock, thread) = spawn_pinned("idle", 0, move || told.recv().is_ok()).unwrap();
        let own = CpuClock::of_this_thread().unwrap();
        let begin = own.read().unwrap();
        let mut spins = 0u64;
        while own.read().unwrap() < begin + Duration::from_millis(20) {
            spins += 1;
        }
        assert!(spins > 0);
        assert!(clock.read().unwrap() < Duration::from_millis(20));
        tell.send(()).unwrap();
        assert!(thread.join().unwrap());
    }

    #[test]
    fn a_core_that_does_not_exist_is_an_error() {
        assert!(pin(1 << 20).is_err());
        assert!(spawn_pinned("nowhere", 1 << 20, || ()).is_err());
    }
}
