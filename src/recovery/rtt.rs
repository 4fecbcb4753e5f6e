//! The round-trip time of one path (RFC 9002 §5) and the two delays that follow from it: the probe
//! timeout (§6.2.1) and the time threshold for loss (§6.1.2).
//!
//! Which acknowledgements give a sample (§5.1) and how the peer's delay is scaled and capped
//! (§5.3) is the caller's business.

use crate::base::Timestamp;
use crate::base::time::nanos;
use std::time::Duration;

/// The RTT assumed before the first sample (RFC 9002 §6.2.2).
pub const INITIAL: Duration = Duration::from_millis(333);
/// The timer granularity that no delay computed from RTTs goes below (RFC 9002 §6.1.2).
pub const GRANULARITY: Duration = Duration::from_millis(1);
/// Probe timeouts without an acknowledgement that establish persistent congestion
/// (RFC 9002 §7.6.1).
pub const PERSISTENT_CONGESTION_THRESHOLD: u32 = 3;

const GRANULARITY_NS: u64 = nanos(GRANULARITY);

/// Round-trip time estimates of one path. Internally nanoseconds in `u64`; all arithmetic
/// saturates, so no sample, however absurd, panics.
#[derive(Clone, Debug)]
pub struct Rtt {
    latest: u64,
    smoothed: u64,
    var: u64,
    min: u64,
    /// When the first sample was taken; `NEVER` before.
    first_sample: Timestamp,
    /// The next sample starts `min` anew.
    renew_min: bool,
}

impl Default for Rtt {
    fn default() -> Self {
        Self::new(INITIAL)
    }
}

impl Rtt {
    /// Estimates that stand at `initial` until the first sample.
    pub const fn new(initial: Duration) -> Self {
        let initial = nanos(initial);
        Self {
            latest: 0,
            smoothed: initial,
            var: initial / 2,
            min: 0,
            first_sample: Timestamp::NEVER,
            renew_min: false,
        }
    }

    /// Takes a sample: `latest` from sending to acknowledgement, of which the peer says that it
    /// held the acknowledgement for `ack_delay` (scaled, and capped where RFC 9002 §5.3 says so).
    pub fn on_sample(&mut self, now: Timestamp, latest: Duration, ack_delay: Duration) {
        let latest = nanos(latest);
        self.latest = latest;
        if self.first_sample == Timestamp::NEVER {
            self.first_sample = now;
            self.min = latest;
            self.smoothed = latest;
            self.var = latest / 2;
            return;
        }
        // RFC 9002 §5.2: min_rtt ignores the acknowledgement delay.
        if self.renew_min {
            self.renew_min = false;
            self.min = latest;
        }
        self.min = self.min.min(latest);
        // RFC 9002 §5.3: the peer's delay is not believed where it would take the sample below
        // the smallest RTT seen.
        let ack_delay = nanos(ack_delay);
        let adjusted = if latest >= self.min.saturating_add(ack_delay) {
            latest - ack_delay
        } else {
            latest
        };
        let deviation = self.smoothed.abs_diff(adjusted);
        self.var = self.var - self.var / 4 + deviation / 4;
        self.smoothed = self.smoothed - self.smoothed / 8 + adjusted / 8;
    }

    /// Forgets the smallest RTT once persistent congestion was established: the path may be another
    /// one now (RFC 9002 §5.2).
    pub fn on_persistent_congestion(&mut self) {
        self.renew_min = self.has_sample();
    }

    /// Acknowledgements come another way from now on: what the smallest RTT was means nothing.
    pub fn restart_min(&mut self) {
        self.renew_min = self.has_sample();
    }

    /// The latest sample; zero before the first.
    #[inline]
    pub const fn latest(&self) -> Duration {
        Duration::from_nanos(self.latest)
    }

    /// `smoothed_rtt`: the moving average, or the initial RTT.
    #[inline]
    pub const fn smoothed(&self) -> Duration {
        Duration::from_nanos(self.smoothed)
    }

    /// `rttvar`: the mean deviation.
    #[inline]
    pub const fn var(&self) -> Duration {
        Duration::from_nanos(self.var)
    }

    /// `min_rtt`: the smallest sample; zero before the first.
    #[inline]
    pub const fn min(&self) -> Duration {
        Duration::from_nanos(self.min)
    }

    /// Whether a sample was taken.
    #[inline]
    pub fn has_sample(&self) -> bool {
        self.first_sample != Timestamp::NEVER
    }

    /// When the first sample was taken.
    #[inline]
    pub fn first_sample(&self) -> Option<Timestamp> {
        self.has_sample().then_some(self.first_sample)
    }

    /// The probe timeout before backoff (RFC 9002 §6.2.1). `max_ack_delay` is zero for the Initial
    /// and Handshake spaces.
    #[inline]
    pub fn pto(&self, max_ack_delay: Duration) -> Duration {
        Duration::from_nanos(self.pto_nanos(nanos(max_ack_delay)))
    }

    /// The same in nanoseconds.
    #[inline]
    pub fn pto_nanos(&self, max_ack_delay: u64) -> u64 {
        let spread = self.var.saturating_mul(4).max(GRANULARITY_NS);
        let ns = self.smoothed.saturating_add(spread);
        ns.saturating_add(max_ack_delay)
    }

    /// How long after its sending a packet is lost once a later one was acknowledged: 9/8 of the
    /// RTT, never below the timer granularity (RFC 9002 §6.1.2).
    #[inline]
    pub fn loss_delay(&self) -> Duration {
        let rtt = self.latest.max(self.smoothed);
        Duration::from_nanos(rtt.saturating_add(rtt / 8).max(GRANULARITY_NS))
    }

    /// How far apart two lost packets are sent that establish persistent congestion when nothing
    /// sent between them was acknowledged (RFC 9002 §7.6.1).
    pub fn persistent_congestion_duration(&self, max_ack_delay: Duration) -> Duration {
        self.pto(max_ack_delay)
            .saturating_mul(PERSISTENT_CONGESTION_THRESHOLD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn before_a_sample_the_initial_rtt_stands() {
        let rtt = Rtt::default();
        assert!(!rtt.has_sample());
        assert_eq!(rtt.first_sample(), None);
        // RFC 9002 §6.2.2: the initial PTO is 333 ms + 4 * 166.5 ms, i.e. three times 333 ms.
        assert_eq!(rtt.pto(Duration::ZERO), ms(999));
    }

    #[test]
    fn the_first_sample_sets_and_later_ones_average() {
        let mut rtt = Rtt::default();
        rtt.on_sample(Timestamp::from_nanos(5), ms(80), ms(40));
        // §5.3: the delay of the first sample is ignored.
        assert_eq!(
            (rtt.smoothed(), rtt.var(), rtt.min(), rtt.latest()),
            (ms(80), ms(40), ms(80), ms(80))
        );
        assert_eq!(rtt.first_sample(), Some(Timestamp::from_nanos(5)));
        // adjusted = 120 - 24 = 96: var = 3/4*40 + 1/4*16 = 34; smoothed = 7/8*80 + 1/8*96 = 82.
        rtt.on_sample(Timestamp::from_nanos(6), ms(120), ms(24));
        assert_eq!((rtt.smoothed(), rtt.var()), (ms(82), ms(34)));
        assert_eq!((rtt.min(), rtt.latest()), (ms(80), ms(120)));
        assert_eq!(rtt.pto(ms(25)), ms(82 + 4 * 34 + 25));
        assert_eq!(rtt.loss_delay(), ms(135)); // 9/8 * max(120, 82)
        assert_eq!(
            rtt.persistent_congestion_duration(ms(25)),
            ms(3 * (82 + 136 + 25))
        );
    }

    #[test]
    fn a_delay_that_would_undercut_the_minimum_is_not_believed() {
        let mut rtt = Rtt::default();
        rtt.on_sample(Timestamp::ZERO, ms(80), Duration::ZERO);
        rtt.on_sample(Timestamp::ZERO, ms(96), ms(20)); // 76 < min
        assert_eq!(rtt.smoothed(), ms(82)); // 70 + 12
    }

    #[test]
    fn delays_never_go_below_the_granularity() {
        let mut rtt = Rtt::default();
        for _ in 0..50 {
            rtt.on_sample(Timestamp::ZERO, Duration::from_micros(40), Duration::ZERO);
        }
        assert_eq!(rtt.loss_delay(), GRANULARITY);
        assert!(rtt.pto(Duration::ZERO) >= GRANULARITY);
        assert!(rtt.pto(Duration::ZERO) < GRANULARITY + Duration::from_micros(60));
    }

    #[test]
    fn persistent_congestion_renews_the_minimum() {
        let mut rtt = Rtt::default();
        rtt.on_persistent_congestion();
        rtt.on_sample(Timestamp::ZERO, ms(10), Duration::ZERO);
        rtt.on_persistent_congestion();
        rtt.on_sample(Timestamp::ZERO, ms(50), Duration::ZERO);
        assert_eq!(rtt.min(), ms(50));
        rtt.on_sample(Timestamp::ZERO, ms(60), Duration::ZERO);
        assert_eq!(rtt.min(), ms(50));
    }

    proptest! {
        #[test]
        fn no_sample_panics_and_the_minimum_is_one(
            samples in proptest::collection::vec((any::<u64>(), any::<u64>()), 1..50)
        ) {
            let mut rtt = Rtt::default();
            for &(latest, delay) in &samples {
                rtt.on_sample(
                    Timestamp::ZERO,
                    Duration::from_nanos(latest),
                    Duration::from_nanos(delay),
                );
                let _ = (rtt.pto(Duration::MAX), rtt.loss_delay());
            }
            let min = samples.iter().map(|s| s.0).min().unwrap_or(0);
            prop_assert_eq!(rtt.min(), Duration::from_nanos(min));
        }
    }
}
