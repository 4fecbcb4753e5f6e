//! CPU time and memory of this process, or another one, and its threads, from `/proc`.
//!
//! Two snapshots make a measurement. The process's time includes threads that have ended; a
//! thread's own time is in nanoseconds where the kernel keeps scheduler statistics, else in ticks.
//! Threads that end between two snapshots are missing from the per-thread part, so shards are
//! measured before they are joined.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::machine::{field, kib};

/// A clock tick of `/proc/*/stat`: the kernel's ABI has 100 a second on every architecture of Linux
/// that this program builds for.
const TICK: Duration = Duration::from_millis(10);

/// A snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time in user space, since the process began.
    pub user: Duration,
    /// Time in the kernel.
    pub system: Duration,
    /// Resident memory now.
    pub rss_bytes: Option<u64>,
    /// The most resident memory so far.
    pub rss_bytes_max: Option<u64>,
    /// The threads that exist now.
    pub threads: Vec<ThreadUsage>,
}

/// One thread of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadUsage {
    /// The kernel's thread ID.
    pub tid: u32,
    /// The thread's name, of which the kernel keeps 15 bytes.
    pub name: String,
    /// Time on a processor.
    pub cpu: Duration,
}

/// What was used between two snapshots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Time in user space.
    pub user: Duration,
    /// Time in the kernel.
    pub system: Duration,
    /// Resident memory at the end.
    pub rss_bytes: Option<u64>,
    /// The most resident memory up to the end.
    pub rss_bytes_max: Option<u64>,
    /// Per thread that was there at the end.
    pub threads: Vec<ThreadUsage>,
}

/// The CPU time of this process, in steps of a clock tick; cheaper than a whole snapshot.
pub fn process_cpu() -> Option<Duration> {
    let stat = Stat::parse(&fs::read_to_string("/proc/self/stat").ok()?)?;
    Some(stat.user + stat.system)
}

impl Usage {
    /// Takes a snapshot of this process.
    pub fn read() -> io::Result<Self> {
        Self::read_at(Path::new("/proc/self"))
    }

    /// Takes a snapshot of a process.
    pub fn of(pid: u32) -> io::Result<Self> {
        Self::read_at(&Path::new("/proc").join(pid.to_string()))
    }

    fn read_at(process: &Path) -> io::Result<Self> {
        let mut threads = Vec::new();
        for entry in fs::read_dir(process.join("task"))? {
            let path = entry?.path();
            let file = |name| fs::read_to_string(path.join(name)).ok();
            // A thread may end between the listing and the reading.
            if let Some(stat) = file("stat") {
                threads.extend(ThreadUsage::parse(&stat, file("schedstat").as_deref()));
            }
        }
        let stat = fs::read_to_string(process.join("stat"))?;
        let status = fs::read_to_string(process.join("status"))?;
        Self::parse(&stat, &status, threads)
            .ok_or_else(|| io::Error::other("/proc/*/stat has an unknown form"))
    }

    /// A snapshot from the texts of `stat` and `status`.
    fn parse(stat: &str, status: &str, threads: Vec<ThreadUsage>) -> Option<Self> {
        let stat = Stat::parse(stat)?;
        Some(Self {
            user: stat.user,
            system: stat.system,
            rss_bytes: field(status, "VmRSS").and_then(|v| kib(&v)),
            rss_bytes_max: field(status, "VmHWM").and_then(|v| kib(&v)),
            threads,
        })
    }

    /// What was used since `earlier`.
    pub fn since(&self, earlier: &Self) -> Spent {
        let before = |tid| earlier.threads.iter().find(|t| t.tid == tid).map(|t| t.cpu);
        let threads = self.threads.iter().map(|t| ThreadUsage {
            cpu: t.cpu.saturating_sub(before(t.tid).unwrap_or_default()),
            ..t.clone()
        });
        Spent {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
            rss_bytes: self.rss_bytes,
            rss_bytes_max: self.rss_bytes_max,
            threads: threads.collect(),
        }
    }
}

impl Spent {
    /// Time on a processor, in user space and in the kernel.
    pub fn cpu(&self) -> Duration {
        self.user + self.system
    }

    /// Time of the threads whose name begins with `prefix`.
    pub fn cpu_of(&self, prefix: &str) -> Duration {
        self.threads
            .iter()
            .filter(|t| t.name.starts_with(prefix))
            .map(|t| t.cpu)
            .sum()
    }
}

/// `cpu` as a percentage of `elapsed`: 100 is one core busy all the time.
pub fn percent_of(cpu: Duration, elapsed: Duration) -> f64 {
    if elapsed.is_zero() {
        0.0
    } else {
        100.0 * cpu.as_secs_f64() / elapsed.as_secs_f64()
    }
}

impl ThreadUsage {
    fn parse(stat: &str, schedstat: Option<&str>) -> Option<Self> {
        let stat = Stat::parse(stat)?;
        let exact = schedstat.and_then(|s| s.split_whitespace().next()?.parse().ok());
        let cpu = exact.map_or(stat.user + stat.system, Duration::from_nanos);
        Some(Self {
            tid: stat.id,
            name: stat.name,
            cpu,
        })
    }
}

/// What we read of a `stat` file (proc(5)).
struct Stat {
    id: u32,
    name: String,
    user: Duration,
    system: Duration,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name may itself contain spaces and parentheses.
        let (id, rest) = text.split_once(" (")?;
        let (name, rest) = rest.rsplit_once(") ")?;
        // `rest` begins with field 3; utime and stime are fields 14 and 15.
        let mut times = rest
            .split_whitespace()
            .skip(11)
            .map(|t| t.parse::<u32>().ok());
        let (user, system) = (times.next()??, times.next()??);
        let id = id.trim().parse().ok()?;
        Some(Self {
            id,
            name: name.into(),
            user: TICK * user,
            system: TICK * system,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "42 (a) (b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 3 0 1 2 3";
    const STATUS: &str = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";

    fn thread(tid: u32, name: &str, millis: u64) -> ThreadUsage {
        ThreadUsage {
            tid,
            name: name.into(),
            cpu: Duration::from_millis(millis),
        }
    }

    #[test]
    fn a_snapshot_is_read_from_the_files() {
        let usage = Usage::parse(STAT, STATUS, Vec::new()).unwrap();
        assert_eq!(usage.user, Duration::from_millis(2500));
        assert_eq!(usage.system, Duration::from_millis(500));
        assert_eq!(
            (usage.rss_bytes, usage.rss_bytes_max),
            (Some(1 << 20), Some(2 << 20))
        );
        assert_eq!(Usage::parse("42 (a) S 1", STATUS, Vec::new()), None);
        assert_eq!(Usage::parse(STAT, "", Vec::new()).unwrap().rss_bytes, None);
    }

    #[test]
    fn a_thread_prefers_nanoseconds() {
        assert_eq!(
            ThreadUsage::parse(STAT, None),
            Some(thread(42, "a) (b) c", 3000))
        );
        let exact = ThreadUsage::parse(STAT, Some("3001000000 5 6\n"));
        assert_eq!(exact, Some(thread(42, "a) (b) c", 3001)));
    }

    #[test]
    fn the_difference_is_per_thread() {
        let mut before = Usage::parse(STAT, STATUS, vec![thread(1, "client-0", 100)]).unwrap();
        let mut after = before.clone();
        before.user = Duration::from_millis(2000);
        after.threads = vec![
            thread(1, "client-0", 400),
            thread(2, "server-0", 50),
            thread(3, "server-1", 7),
        ];
        let spent = after.since(&before);
        assert_eq!(spent.cpu(), Duration::from_millis(500));
        assert_eq!(spent.cpu_of("client"), Duration::from_millis(300));
        assert_eq!(spent.cpu_of("server-"), Duration::from_millis(57));
        assert_eq!(percent_of(spent.cpu(), Duration::from_secs(1)), 50.0);
        assert_eq!(percent_of(spent.cpu(), Duration::ZERO), 0.0);
    }

    #[test]
    fn this_process_has_a_thread_and_memory() {
        let usage = Usage::read().unwrap();
        assert!(!usage.threads.is_empty());
        assert!(usage.rss_bytes > Some(0) && usage.rss_bytes_max >= usage.rss_bytes);
        let by_id = Usage::of(std::process::id()).unwrap();
        assert!(by_id.user + by_id.system >= usage.user + usage.system);
        assert!(Usage::of(u32::MAX).is_err());
    }
}
