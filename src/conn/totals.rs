//! The sum of what all connections of an endpoint count, those that are gone included.
//!
//! Connections that had a turn are on a list; [`Endpoint::sum_up`] adds what they counted since it
//! last saw them. So a sum costs nothing per packet and never falls. Who calls it how often decides
//! how old the sum may be.

use super::endpoint::{ConnId, Endpoint};
use super::stats::{ConnectionStats, PathStats};
use std::time::Duration;

/// Upper bounds of the histogram's buckets, in microseconds; one more bucket has the rest.
pub const RTT_BOUNDS_US: [u64; 14] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000,
];

/// Round-trip times of connections, each its smoothed one when it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RttHistogram {
    /// Connections by round trip: at most [`RTT_BOUNDS_US`], and above the last.
    pub buckets: [u64; RTT_BOUNDS_US.len() + 1],
    /// The sum of the round trips, in microseconds.
    pub sum_us: u64,
}

impl RttHistogram {
    fn record(&mut self, rtt: Duration) {
        let us = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
        let at = RTT_BOUNDS_US.partition_point(|bound| *bound < us);
        if let Some(n) = self.buckets.get_mut(at) {
            *n += 1;
        }
        self.sum_us = self.sum_us.saturating_add(us);
    }
}

/// Sums over connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionTotals {
    /// What they counted, as of the last [`Endpoint::sum_up`].
    pub sum: ConnectionStats,
    /// The round trips of those that ended after they had one.
    pub rtt: RttHistogram,
}

/// The totals, and who changed since.
#[derive(Default)]
pub(super) struct Ledger {
    totals: ConnectionTotals,
    changed: Vec<ConnId>,
}

impl Ledger {
    /// A connection has a turn, the first since it was summed up.
    pub(super) fn note(&mut self, id: ConnId) {
        self.changed.push(id);
    }

    /// A connection is gone; `summed` of what it counted is in the sum.
    pub(super) fn on_gone(
        &mut self,
        summed: &ConnectionStats,
        at: &ConnectionStats,
        p: &PathStats,
    ) {
        self.totals.sum.grow(summed, at);
        if !p.min_rtt.is_zero() {
            self.totals.rtt.record(p.smoothed_rtt);
        }
    }
}

impl Endpoint {
    /// Adds what at most `limit` connections counted since they were last summed up; false when
    /// others are left.
    pub fn sum_up(&mut self, limit: usize) -> bool {
        for _ in 0..limit {
            let Some(id) = self.ledger.changed.pop() else {
                return true;
            };
            if let Some((before, now)) = self.take_growth(id) {
                self.ledger.totals.sum.grow(&before, &now);
            }
        }
        self.ledger.changed.is_empty()
    }

    /// Marks a connection as summed up: what it had counted before, and has now.
    fn take_growth(&mut self, id: ConnId) -> Option<(ConnectionStats, ConnectionStats)> {
        let e = self.entry(id)?;
        e.changed = false;
        let now = e.conn.stats();
        Some((std::mem::replace(&mut e.cold.summed, now), now))
    }

    /// Accepted connections whose handshake has not finished.
    pub fn half_open(&self) -> usize {
        self.half_open
    }

    /// The sums; see [`Endpoint::sum_up`].
    pub fn totals(&self) -> &ConnectionTotals {
        &self.ledger.totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_fall_into_their_buckets() {
        let mut h = RttHistogram::default();
        for us in [0, 50, 51, 1_000_000, 1_000_001] {
            h.record(Duration::from_micros(us));
        }
        assert_eq!((h.buckets[0], h.buckets[1]), (2, 1));
        assert_eq!((h.buckets[13], h.buckets[14]), (1, 1));
        assert_eq!(h.sum_us, 2_000_102);
    }
}
