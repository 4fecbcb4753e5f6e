//! Who else used the machine: all CPU time of `/proc/stat` but this process's and its children's.
//!
//! The kernel counts both in ticks of 10 ms, so a window has to be long against that. Time that the
//! hypervisor took counts as other people's.

use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::clock::now;

/// A run is noisy when others used more than this, in cores.
pub const LIMIT_CORES: f64 = 0.15;

/// Ticks a second in `/proc`: part of the kernel's ABI.
const TICKS_PER_SECOND: f64 = 100.0;
/// The quiet that a run waits for is seen in windows of this length.
const WINDOW: Duration = Duration::from_millis(300);

/// The counters at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    at: Instant,
    busy: u64,
    own: u64,
}

impl Snapshot {
    /// Reads them.
    ///
    /// # Errors
    /// When `/proc` is not there or looks different.
    pub fn read() -> io::Result<Self> {
        let unknown = || io::Error::other("/proc has an unknown form");
        Ok(Self {
            at: now(),
            busy: busy(&fs::read_to_string("/proc/stat")?).ok_or_else(unknown)?,
            own: own(&fs::read_to_string("/proc/self/stat")?).ok_or_else(unknown)?,
        })
    }

    /// CPU that others used since, in cores. Only children that have ended are known as own.
    ///
    /// # Errors
    /// When the counters cannot be read.
    pub fn others_since(&self) -> io::Result<f64> {
        let later = Self::read()?;
        Ok(others(
            later.busy as f64 - self.busy as f64,
            later.own as f64 - self.own as f64,
            later.at.duration_since(self.at),
        ))
    }
}

/// Waits until nobody else uses the machine, at most for `patience`.
///
/// # Errors
/// When the counters cannot be read.
pub fn wait_for_quiet(patience: Duration) -> io::Result<()> {
    let begin = now();
    while begin.elapsed() < patience {
        let snapshot = Snapshot::read()?;
        thread::sleep(WINDOW);
        if snapshot.others_since()? <= LIMIT_CORES {
            break;
        }
    }
    Ok(())
}

/// Not clamped: what comes out below zero shows how far the two ways of counting differ.
fn others(busy: f64, own: f64, elapsed: Duration) -> f64 {
    let seconds = elapsed.as_secs_f64();
    if seconds == 0.0 {
        return 0.0;
    }
    (busy - own) / TICKS_PER_SECOND / seconds
}

/// Ticks in which any core was not idle: user, nice, system, irq, softirq, steal. Guests' time is
/// part of user already.
fn busy(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line
        .split_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = fields[..] else {
        return None;
    };
    Some(user + nice + system + irq + softirq + steal)
}

/// Ticks of this process and of its children that have ended: utime, stime, cutime, cstime.
fn own(stat: &str) -> Option<u64> {
    // The name, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut sum = 0;
    for field in fields.split_whitespace().skip(11).take(4) {
        sum += field.parse::<u64>().ok()?;
    }
    (fields.split_whitespace().count() > 15).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_everything_but_idle_and_waiting() {
        let stat = "cpu  10 20 30 1000 2000 1 2 3 4 5\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(busy(stat), Some(66));
        assert_eq!(busy("cpu  1 2 3"), None);
        assert_eq!(busy("intr 1"), None);
    }

    #[test]
    fn own_time_survives_a_name_with_parentheses() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4 100 0 0 0 11 22 33 44 20 0 1 0 99";
        assert_eq!(own(stat), Some(110));
        assert_eq!(own("7 (a) S 1 2"), None);
    }

    #[test]
    fn others_are_what_is_left() {
        let two_seconds = Duration::from_secs(2);
        assert_eq!(others(250.0, 150.0, two_seconds), 0.5);
        assert_eq!(others(148.0, 150.0, two_seconds), -0.01);
        assert_eq!(others(100.0, 0.0, Duration::ZERO), 0.0);
    }

    #[test]
    fn this_machine_can_be_read() {
        assert!(
            Snapshot::read()
                .unwrap()
                .others_since()
                .unwrap()
                .is_finite()
        );
    }
}
