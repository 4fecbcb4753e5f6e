//! Counters of running shards, for other threads to read.
//!
//! A shard copies its counters into atomics of its own cache lines: every 1,024 turns with work,
//! before it sleeps (at most once a millisecond), and when it ends. Reading stops no shard, wakes
//! none and takes no lock; what is read is as old as that, and counters never fall.
//!
//! One table names everything: what is published, what is read back, and what Prometheus sees.

mod prometheus;
mod table;

use super::{Shard, ShardApp, ShardStats};
use crate::base::Timestamp;
use crate::conn::ConnectionStats;
use crate::conn::endpoint::EndpointStats;
use crate::conn::totals::RttHistogram;
use crate::io::IoStats;
use crossbeam::utils::CachePadded;
pub use prometheus::prometheus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use table::SLOTS;
pub use table::{Kind, Metric, list};

/// Turns with work between two copies.
const TURNS: u32 = 1024;
/// Connections that are summed up in one turn.
const SUMMED_PER_TURN: usize = 1024;
/// The least time between two copies before sleep.
const PAUSE: Duration = Duration::from_millis(1);

/// What one shard counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardMetrics {
    /// Its loop.
    pub shard: ShardStats,
    /// Its endpoint.
    pub endpoint: EndpointStats,
    /// Its backend.
    pub io: IoStats,
    /// The sum of its connections, those that are gone included.
    pub connections: ConnectionStats,
    /// Round trips of its connections that are gone.
    pub rtt: RttHistogram,
    /// Connections that exist.
    pub open_connections: u64,
    /// Of these, accepted ones whose handshake has not finished.
    pub half_open: u64,
}

impl ShardMetrics {
    /// Adds another shard's.
    pub fn add(&mut self, other: &Self) {
        let mut slots = [0; SLOTS];
        table::write(other, |slot, n| slots[slot] = n);
        table::write(&self.clone(), |slot, n| slots[slot] += n);
        table::read(self, |slot| slots[slot]);
    }
}

/// What all shards of an engine count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// The engine's name.
    pub engine: String,
    /// Each shard's counters, by its number.
    pub shards: Vec<ShardMetrics>,
}

impl Metrics {
    /// The sum over shards.
    pub fn total(&self) -> ShardMetrics {
        let mut sum = ShardMetrics::default();
        self.shards.iter().for_each(|s| sum.add(s));
        sum
    }
}

type Slots = CachePadded<[AtomicU64; SLOTS]>;

/// Reads the counters of an engine's shards, from any thread, during its life and after it.
#[derive(Clone, Debug)]
pub struct MetricsReader {
    engine: Arc<str>,
    shards: Arc<[Slots]>,
}

impl MetricsReader {
    pub(super) fn new(engine: &str, shards: usize) -> Self {
        let slots = || CachePadded::new([const { AtomicU64::new(0) }; SLOTS]);
        Self {
            engine: engine.into(),
            shards: (0..shards).map(|_| slots()).collect(),
        }
    }

    /// What every shard counted, as of a moment ago.
    pub fn read(&self) -> Metrics {
        let read = |slots: &Slots| {
            let mut out = ShardMetrics::default();
            table::read(&mut out, |slot| slots[slot].load(Relaxed));
            out
        };
        Metrics {
            engine: self.engine.as_ref().to_owned(),
            shards: self.shards.iter().map(read).collect(),
        }
    }
}

/// A shard's end of it.
#[derive(Default)]
pub(super) struct Publisher {
    to: Option<MetricsReader>,
    /// Turns with work since the last copy.
    turns: u32,
    at: Timestamp,
}

impl<A: ShardApp> Shard<A> {
    /// What the shard counts, exactly; for who drives it.
    pub fn metrics(&mut self) -> ShardMetrics {
        self.endpoint.sum_up(usize::MAX);
        self.counted()
    }

    fn counted(&self) -> ShardMetrics {
        let totals = self.endpoint.totals();
        ShardMetrics {
            shard: self.stats,
            endpoint: self.endpoint.stats(),
            io: self.backend.stats().clone(),
            connections: totals.sum,
            rtt: totals.rtt,
            open_connections: self.endpoint.len() as u64,
            half_open: self.endpoint.half_open() as u64,
        }
    }

    /// Copies the counters to `reader` from now on.
    pub(super) fn publish_to(&mut self, reader: &MetricsReader) {
        self.metrics.to = Some(reader.clone());
    }

    #[inline]
    pub(super) fn note_turn(&mut self, now: Timestamp, worked: bool) {
        self.metrics.turns += u32::from(worked);
        if self.metrics.turns >= TURNS {
            self.publish(now, SUMMED_PER_TURN);
        }
    }

    /// Copies the counters if they changed, or has the shard wake up soon to do so; gives the end
    /// of the sleep.
    pub(super) fn publish_before_sleep(
        &mut self,
        now: Timestamp,
        until: Option<Timestamp>,
    ) -> Option<Timestamp> {
        let m = &self.metrics;
        if m.turns == 0 || m.to.is_none() {
            return until;
        }
        if now - m.at >= PAUSE && self.publish(now, SUMMED_PER_TURN) {
            return until;
        }
        let soon = self.metrics.at + PAUSE;
        Some(until.map_or(soon, |at| at.min(soon)))
    }

    /// Copies the counters for the last time.
    pub(super) fn publish_all(&mut self) {
        self.publish(Timestamp::ZERO, usize::MAX);
    }

    /// Copies the counters; false when connections are left to sum up in the next turn.
    fn publish(&mut self, now: Timestamp, limit: usize) -> bool {
        let done = self.endpoint.sum_up(limit);
        self.metrics.turns = if done { 0 } else { TURNS };
        self.metrics.at = now;
        let slots = self
            .metrics
            .to
            .as_ref()
            .and_then(|r| r.shards.get(self.index));
        if let Some(slots) = slots {
            table::write(&self.counted(), |slot, n| slots[slot].store(n, Relaxed));
        }
        done
    }
}

#[cfg(test)]
mod tests;
