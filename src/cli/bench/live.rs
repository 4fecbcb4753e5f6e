//! Counters that shards raise and the run's coordinator reads while they turn.
//!
//! Each shard writes its own cache lines alone, so a count is a plain load and store; the reader
//! sees sums that are a few nanoseconds old. What happened first of the things that should not is
//! kept as text.

use crossbeam::utils::CachePadded;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A count that one thread raises and others read.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`; only the shard that owns the count calls this.
    #[inline]
    pub fn add(&self, n: u64) {
        // One writer: no need for an atomic addition.
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    /// Replaces the count; only the shard that owns it calls this.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one shard counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Stream bytes received, headers not counted.
    pub bytes: Count,
    /// Datagrams received.
    pub datagrams: Count,
    /// Bytes of these.
    pub datagram_bytes: Count,
    /// Datagrams given to the transport.
    pub datagrams_sent: Count,
    /// Operations finished.
    pub operations: Count,
    /// Operations that failed.
    pub failures: Count,
    /// Connections that were opened and closed before any other.
    pub warmed_up: Count,
    /// Connections established.
    pub connected: Count,
    /// Connections that ended, however.
    pub closed: Count,
    /// Streams whose work is done.
    pub finished: Count,
    /// When the last of them was done, in nanoseconds of the monotonic clock.
    pub finished_at: Count,
    /// Answers of the other host.
    pub answers: Count,
    /// Stream bytes that the other host received, as of its last answer.
    pub remote_bytes: Count,
    /// Datagrams that the other host received, as of its last answer.
    pub remote_datagrams: Count,
    /// Bytes of these.
    pub remote_datagram_bytes: Count,
    /// The other host's CPU time in nanoseconds, as of its last answer.
    pub remote_cpu_ns: Count,
}

/// The counters of all shards of one side.
#[derive(Debug)]
pub struct Live {
    shards: Box<[CachePadded<Counters>]>,
    trouble: Mutex<Option<String>>,
}

impl Live {
    /// Counters at zero.
    pub fn new(shards: usize) -> Arc<Self> {
        let shards = (0..shards)
            .map(|_| CachePadded::new(Counters::default()))
            .collect();
        Arc::new(Self {
            shards,
            trouble: Mutex::new(None),
        })
    }

    /// One shard's counters.
    pub fn shard(&self, shard: usize) -> &Counters {
        &self.shards[shard]
    }

    /// The sum of one counter over all shards.
    pub fn sum(&self, counter: impl Fn(&Counters) -> &Count) -> u64 {
        self.shards.iter().map(|c| counter(c).get()).sum()
    }

    /// The largest of one counter of all shards.
    pub fn max(&self, counter: impl Fn(&Counters) -> &Count) -> u64 {
        self.shards
            .iter()
            .map(|c| counter(c).get())
            .max()
            .unwrap_or(0)
    }

    /// Keeps the first description of what went wrong.
    pub fn report_trouble(&self, what: impl FnOnce() -> String) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.get_or_insert_with(what);
    }

    /// What went wrong first.
    pub fn trouble(&self) -> Option<String> {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_run_over_shards() {
        let live = Live::new(3);
        for shard in 0..3 {
            live.shard(shard).bytes.add(10 + shard as u64);
        }
        live.shard(1).bytes.add(1);
        assert_eq!(live.sum(|c| &c.bytes), 34);
        assert_eq!(live.max(|c| &c.bytes), 12);
        assert_eq!(live.sum(|c| &c.operations), 0);
    }

    #[test]
    fn the_first_trouble_is_kept() {
        let live = Live::new(1);
        assert_eq!(live.trouble(), None);
        live.report_trouble(|| "first".into());
        live.report_trouble(|| "second".into());
        assert_eq!(live.trouble().as_deref(), Some("first"));
    }
}
