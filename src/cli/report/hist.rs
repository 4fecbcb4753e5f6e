//! Latencies of a run: recorded per shard without a lock, merged when an interval ends.
//!
//! A histogram holds 1 ns to 60 s at three significant digits in about 200 KiB and allocates only
//! when it is made. What lies outside is recorded at the edge and counted, and the exact extremes
//! are kept, so that no outlier disappears in a bucket.
//!
//! An open loop sends on a schedule. Measuring from the moment a late request was really sent would
//! leave out the time it waited because the system was slow (coordinated omission); the response
//! time therefore starts at the intended moment, and the service time is kept beside it.

use std::time::Duration;

use corelane::base::Timestamp;
use corelane::base::time::nanos;
use hdrhistogram::Histogram;
use serde::Serialize;

/// The largest latency that a histogram tells apart from others: 60 s.
pub const MAX_NS: u64 = 60_000_000_000;
/// Decimal digits to which a recorded latency is exact.
pub const SIGNIFICANT_DIGITS: u8 = 3;

/// Latencies in nanoseconds.
#[derive(Clone, Debug)]
pub struct Latency {
    histogram: Histogram<u64>,
    min: u64,
    max: u64,
    over_range: u64,
}

impl Default for Latency {
    fn default() -> Self {
        Self::new()
    }
}

impl Latency {
    /// An empty histogram.
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, MAX_NS, SIGNIFICANT_DIGITS)
            .expect("constant bounds that the histogram accepts");
        Self {
            histogram,
            min: u64::MAX,
            max: 0,
            over_range: 0,
        }
    }

    /// Records one latency.
    pub fn record(&mut self, latency: Duration) {
        self.record_ns(nanos(latency));
    }

    /// Records a latency that so many have.
    pub fn record_many(&mut self, latency: Duration, count: u64) {
        let latency = nanos(latency);
        self.min = self.min.min(latency);
        self.max = self.max.max(latency);
        self.over_range += count * u64::from(latency > MAX_NS);
        let within = latency.clamp(1, MAX_NS);
        self.histogram.saturating_record_n(within, count);
    }

    /// Records one latency in nanoseconds.
    #[inline]
    pub fn record_ns(&mut self, latency: u64) {
        self.min = self.min.min(latency);
        self.max = self.max.max(latency);
        self.over_range += u64::from(latency > MAX_NS);
        self.histogram.saturating_record(latency.clamp(1, MAX_NS));
    }

    /// Adds everything that `other` recorded.
    pub fn merge(&mut self, other: &Self) {
        self.histogram
            .add(&other.histogram)
            .expect("all histograms have the same bounds");
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.over_range += other.over_range;
    }

    /// Recorded latencies.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.histogram.is_empty()
    }

    /// The latency in nanoseconds that the fraction `quantile` (0 to 1) of all did not exceed, to
    /// three digits; 0 when nothing was recorded.
    pub fn at(&self, quantile: f64) -> u64 {
        if self.is_empty() {
            return 0;
        }
        self.histogram
            .value_at_quantile(quantile)
            .clamp(self.min, self.max)
    }

    /// The summary that reports show; `None` when nothing was recorded.
    pub fn summary(&self) -> Option<Percentiles> {
        (!self.is_empty()).then(|| Percentiles {
            count: self.count(),
            over_range_count: self.over_range,
            min: self.min,
            mean: self.histogram.mean(),
            stddev: self.histogram.stdev(),
            p50: self.at(0.5),
            p90: self.at(0.9),
            p99: self.at(0.99),
            p999: self.at(0.999),
            p9999: self.at(0.9999),
            max: self.max,
        })
    }

    /// The counts underneath, for the file formats of HdrHistogram.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.histogram
    }

    /// The percentile spectrum: pairs of a quantile (the last is 1) and its latency in nanoseconds,
    /// `ticks` points for each halving of what remains above.
    pub fn spectrum(&self, ticks: u32) -> Vec<(f64, u64)> {
        let points = self.histogram.iter_quantiles(ticks.max(1));
        points
            .map(|v| {
                (
                    v.quantile_iterated_to(),
                    v.value_iterated_to().min(self.max),
                )
            })
            .collect()
    }
}

/// A latency distribution in a few numbers, all in nanoseconds but the counts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    /// Latencies recorded.
    pub count: u64,
    /// Of these, longer than [`MAX_NS`]: in the percentiles they count as that.
    pub over_range_count: u64,
    /// The exact minimum.
    pub min: u64,
    /// The arithmetic mean.
    pub mean: f64,
    /// The standard deviation.
    pub stddev: f64,
    /// The median.
    pub p50: u64,
    /// 90 % did not exceed this.
    pub p90: u64,
    /// 99 % did not exceed this.
    pub p99: u64,
    /// 99.9 % did not exceed this.
    pub p999: u64,
    /// 99.99 % did not exceed this.
    pub p9999: u64,
    /// The exact maximum.
    pub max: u64,
}

/// Both latencies of an open loop.
#[derive(Clone, Debug, Default)]
pub struct OpenLoop {
    /// From the moment a request was really sent.
    pub service: Latency,
    /// From the moment it should have been sent: what a user of the system would see.
    pub response: Latency,
}

impl OpenLoop {
    /// Records one finished request.
    pub fn record(&mut self, intended: Timestamp, sent: Timestamp, done: Timestamp) {
        self.service.record(done - sent);
        // A request that left early, within the timer's grain, did not gain by it.
        self.response.record(done - intended.min(sent));
    }

    /// Adds everything that `other` recorded.
    pub fn merge(&mut self, other: &Self) {
        self.service.merge(&other.service);
        self.response.merge(&other.response);
    }
}

/// When an open loop should send: `rate` requests a second at even distances, without drift.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    start: Timestamp,
    rate: u64,
    issued: u64,
}

impl Schedule {
    /// A schedule whose first request is due at `start`; a rate of 0 counts as 1.
    pub fn new(start: Timestamp, rate: u64) -> Self {
        Self {
            start,
            rate: rate.max(1),
            issued: 0,
        }
    }

    /// When the next request should be sent.
    pub fn next(&self) -> Timestamp {
        let offset = u128::from(self.issued) * 1_000_000_000 / u128::from(self.rate);
        self.start + Duration::from_nanos(u64::try_from(offset).unwrap_or(u64::MAX))
    }

    /// The intended moment of the next request if it is due; each call takes one request.
    pub fn take_due(&mut self, now: Timestamp) -> Option<Timestamp> {
        let intended = self.next();
        if intended > now {
            return None;
        }
        self.issued += 1;
        Some(intended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    #[test]
    fn percentiles_are_exact_to_three_digits() {
        let mut latency = Latency::new();
        for n in 1..=100_000u64 {
            latency.record_ns(n * 1000);
        }
        let p = latency.summary().unwrap();
        assert_eq!(
            (p.count, p.min, p.max, p.over_range_count),
            (100_000, 1000, 100_000_000, 0)
        );
        for (value, expected) in [
            (p.p50, 50_000_000u64),
            (p.p90, 90_000_000),
            (p.p99, 99_000_000),
            (p.p999, 99_900_000),
            (p.p9999, 99_990_000),
        ] {
            assert!(
                value.abs_diff(expected) * 1000 <= expected,
                "{value} for {expected}"
            );
        }
        assert!((p.mean - 50_000_500.0).abs() < 50_000.0, "{}", p.mean);
    }

    #[test]
    fn nothing_recorded_has_no_summary() {
        let latency = Latency::new();
        assert_eq!(latency.summary(), None);
        assert_eq!(latency.at(0.99), 0);
        assert!(latency.spectrum(5).is_empty());
    }

    #[test]
    fn the_edges_of_the_range_are_counted() {
        let mut latency = Latency::new();
        latency.record_ns(0);
        latency.record(Duration::from_secs(61));
        let p = latency.summary().unwrap();
        assert_eq!(
            (p.count, p.over_range_count, p.min, p.max),
            (2, 1, 0, 61_000_000_000)
        );
    }

    #[test]
    fn one_latency_is_every_percentile() {
        let mut latency = Latency::new();
        latency.record_ns(1_234_567);
        let p = latency.summary().unwrap();
        assert_eq!(
            (p.min, p.p50, p.p9999, p.max),
            (1_234_567, 1_234_567, 1_234_567, 1_234_567)
        );
    }

    #[test]
    fn shards_merge_into_what_one_would_have_recorded() {
        let (mut all, mut a, mut b) = (Latency::new(), Latency::new(), Latency::new());
        for n in 0..1000u64 {
            all.record_ns(n * n);
            if n % 3 == 0 {
                a.record_ns(n * n)
            } else {
                b.record_ns(n * n)
            }
        }
        a.merge(&b);
        assert_eq!(a.summary(), all.summary());
    }

    #[test]
    fn a_stall_shows_in_the_response_time_of_all_that_waited() {
        // 1000 requests a second; each takes 1 µs, but the system stands still for 100 ms.
        let mut schedule = Schedule::new(at(0), 1000);
        let mut open = OpenLoop::default();
        let mut now = at(0);
        for n in 0..1000 {
            now = now.max(schedule.next());
            if n == 500 {
                now += Duration::from_millis(100);
            }
            let intended = schedule.take_due(now).expect("due: we waited for it");
            let sent = now;
            now += Duration::from_micros(1);
            open.record(intended, sent, now);
        }
        assert_eq!(
            open.service.at(1.0),
            1000,
            "the service never knew of the stall"
        );
        let p = open.response.summary().unwrap();
        assert!(p.max >= 100_000_000);
        // About a hundred requests waited 100, 99, 98, ... ms.
        assert!(p.p90 > 1000 && p.p99 > 80_000_000, "{p:?}");
    }

    #[test]
    fn a_schedule_does_not_drift() {
        let mut schedule = Schedule::new(at(5), 3);
        for _ in 0..3_000_000 {
            assert!(schedule.take_due(Timestamp::NEVER).is_some());
        }
        assert_eq!(schedule.next(), at(5) + Duration::from_secs(1_000_000));
        assert_eq!(schedule.take_due(at(0)), None);
    }

    #[test]
    fn early_requests_do_not_shorten_the_response() {
        let mut open = OpenLoop::default();
        open.record(at(100), at(90), at(190));
        assert_eq!(open.response.at(1.0), 100);
    }

    #[test]
    fn the_spectrum_rises_to_the_maximum() {
        let mut latency = Latency::new();
        (1..=1000).for_each(|n| latency.record_ns(n * 1000));
        let spectrum = latency.spectrum(5);
        assert_eq!(spectrum.last(), Some(&(1.0, 1_000_000)));
        assert!(
            spectrum
                .windows(2)
                .all(|w| w[0].0 <= w[1].0 && w[0].1 <= w[1].1)
        );
    }
}
