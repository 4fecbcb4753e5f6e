//! Pacing (RFC 9002 §7.7): a token bucket that releases trains rather than packets.
//!
//! Tokens come at a multiple of the congestion window per round trip. Sending waits until about a
//! millisecond's worth, at most one train, is there, so that segmentation offload keeps its trains.
//! The bucket is somewhat deeper, because timers fire late: what was missed may be caught up with.
//! Below a millisecond of RTT no timer is fine enough, and the acknowledgements pace. A controller
//! that says itself how fast to send and how much at once (BBR) is obeyed at any RTT.

use super::cc::{PacingRate, initial_window};
use super::rtt::Rtt;
use crate::base::time::nanos;
use crate::base::{Timestamp, limits};
use std::time::Duration;

/// RTTs below this are not paced.
const UNPACED_BELOW: Duration = Duration::from_millis(1);
/// Time whose tokens make a train, in nanoseconds.
const TRAIN_NS: f64 = 1e6;
/// How late a timer may fire without costing throughput, in nanoseconds.
const LATENESS_NS: f64 = 5e5;
/// Multiples of the window sent per RTT. In slow start the window doubles meanwhile.
const GAIN_SLOW_START: f64 = 2.0;
const GAIN: f64 = 1.25;
/// The slowest rate that a controller may ask for, in bytes per second.
const MIN_RATE: f64 = 1000.0;

/// What the rate follows from.
#[derive(Clone, Copy, Debug)]
pub struct Pace<'a> {
    /// The path's round-trip times.
    pub rtt: &'a Rtt,
    /// The congestion window, in bytes.
    pub window: u64,
    /// The window is in slow start.
    pub in_slow_start: bool,
    /// The datagram size, in bytes.
    pub mtu: usize,
    /// The controller's own rate, instead of one that follows from the window.
    pub explicit: Option<PacingRate>,
}

impl Pace<'_> {
    /// Bytes per nanosecond; `None` when nothing is to be paced.
    #[inline]
    fn rate(&self) -> Option<f64> {
        // Before the first sample the initial window bounds what may leave.
        if !self.rtt.has_sample() {
            return None;
        }
        if let Some(pacing) = self.explicit {
            // Some rate at least: what is left of a burst must go some day.
            return Some(pacing.rate.max(MIN_RATE) / 1e9);
        }
        if self.rtt.smoothed() < UNPACED_BELOW {
            return None;
        }
        let gain = if self.in_slow_start {
            GAIN_SLOW_START
        } else {
            GAIN
        };
        Some(self.window as f64 * gain / nanos(self.rtt.smoothed()) as f64)
    }

    /// Bytes to wait for.
    #[inline]
    fn train(&self, rate: f64) -> f64 {
        let most = limits::MAX_TRAIN_SEGMENTS * self.mtu;
        if let Some(pacing) = self.explicit {
            return (pacing.quantum as f64).clamp(self.mtu as f64, most as f64);
        }
        (rate * TRAIN_NS).clamp(self.mtu as f64, most as f64)
    }

    /// Bytes that the bucket holds.
    #[inline]
    fn depth(&self, rate: f64) -> f64 {
        let burst = if self.explicit.is_some() {
            0.0
        } else {
            // RFC 9002 §7.7: no burst above the initial window.
            initial_window(self.mtu as u64) as f64
        };
        (self.train(rate) + rate * LATENESS_NS).max(burst)
    }
}

/// A token bucket for one path.
#[derive(Clone, Debug)]
pub struct Pacer {
    /// Bytes that may leave; negative after sending more than there was.
    tokens: f64,
    refilled: Timestamp,
    enabled: bool,
}

impl Pacer {
    /// A full bucket.
    pub const fn new() -> Self {
        Self {
            tokens: f64::INFINITY,
            refilled: Timestamp::ZERO,
            enabled: true,
        }
    }

    /// A pacer that never holds anything back.
    pub const fn disabled() -> Self {
        Self {
            enabled: false,
            ..Self::new()
        }
    }

    /// Bytes that may leave now; `u64::MAX` when sending is not paced. Asked once a train.
    #[inline]
    pub fn budget(&mut self, now: Timestamp, pace: &Pace<'_>) -> u64 {
        if !self.enabled {
            return u64::MAX;
        }
        let Some(rate) = pace.rate() else {
            self.tokens = f64::INFINITY;
            self.refilled = now;
            return u64::MAX;
        };
        let earned = nanos(now - self.refilled) as f64 * rate;
        self.tokens = (self.tokens + earned).min(pace.depth(rate));
        self.refilled = now;
        self.tokens.max(0.0) as u64
    }

    /// `bytes` left. Packets that must not wait (probes, acknowledgements) may take more than there
    /// is.
    #[inline]
    pub fn on_sent(&mut self, bytes: u64) {
        self.tokens -= bytes as f64;
    }

    /// Bytes per second; zero when sending is not paced.
    pub fn rate(&self, pace: &Pace<'_>) -> u64 {
        let rate = pace.rate().filter(|_| self.enabled);
        rate.map_or(0, |per_nano| (per_nano * 1e9) as u64)
    }

    /// When enough tokens for a train will be there, as of the last [`Pacer::budget`]; `None` when
    /// they are.
    pub fn next_release(&self, pace: &Pace<'_>) -> Option<Timestamp> {
        let rate = pace.rate().filter(|_| self.enabled)?;
        let missing = pace.train(rate) - self.tokens;
        if missing <= 0.0 {
            return None;
        }
        // Rounded up, so that the tokens are there when the timer fires on time.
        let wait = (missing / rate).ceil() as u64;
        Some(self.refilled + Duration::from_nanos(wait.saturating_add(1)))
    }
}

impl Default for Pacer {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MTU: usize = 1200;

    fn at(us: u64) -> Timestamp {
        Timestamp::from_nanos(us * 1000)
    }

    fn rtt(us: u64) -> Rtt {
        let mut rtt = Rtt::default();
        rtt.on_sample(at(0), Duration::from_micros(us), Duration::ZERO);
        rtt
    }

    fn pace(rtt: &Rtt, window: u64) -> Pace<'_> {
        Pace {
            rtt,
            window,
            in_slow_start: false,
            mtu: MTU,
            explicit: None,
        }
    }

    /// Bytes sent in `us` by a sender that always has something, and whose timers fire `late` µs
    /// late; and the largest burst.
    fn send_for(us: u64, late: u64, pace: &Pace<'_>) -> (u64, u64) {
        let mut pacer = Pacer::new();
        let (mut now, mut sent, mut largest) = (at(1), 0, 0);
        pacer.budget(now, pace);
        pacer.tokens = 0.0;
        while now < at(us) {
            let budget = pacer.budget(now, pace) / MTU as u64 * MTU as u64;
            pacer.on_sent(budget);
            sent += budget;
            largest = largest.max(budget);
            let next = pacer.next_release(pace).expect("the bucket was emptied");
            assert!(next > now);
            now = next + Duration::from_micros(late);
        }
        (sent, largest)
    }

    #[test]
    fn the_rate_is_a_quarter_above_the_window_per_rtt() {
        let rtt = rtt(100_000);
        // 1 MB per 100 ms: 12.5 MB/s, of which a tenth of a second is 1.25 MB.
        let (sent, largest) = send_for(100_000, 0, &pace(&rtt, 1_000_000));
        assert!((1_235_000..=1_250_000).contains(&sent), "{sent}");
        assert!(largest <= 12_500 + MTU as u64, "a millisecond's worth");
        let fast = Pace {
            in_slow_start: true,
            ..pace(&rtt, 1_000_000)
        };
        let (sent, _) = send_for(100_000, 0, &fast);
        assert!((1_980_000..=2_000_000).contains(&sent), "{sent}");
    }

    #[test]
    fn slow_rates_send_single_packets() {
        let rtt = rtt(100_000);
        let (sent, largest) = send_for(1_000_000, 0, &pace(&rtt, 12_000));
        assert!((148_000..=150_000).contains(&sent), "{sent}");
        assert_eq!(largest, MTU as u64);
    }

    #[test]
    fn high_rates_release_whole_trains_and_survive_late_timers() {
        let rtt = rtt(10_000);
        // 10 MB per 10 ms: 1.25 GB/s.
        let pace = pace(&rtt, 10_000_000);
        let train = (64 * MTU) as u64;
        let (sent, largest) = send_for(100_000, 0, &pace);
        assert!((124_000_000..=125_000_000).contains(&sent), "{sent}");
        assert!(
            (train..train + MTU as u64).contains(&(largest + MTU as u64 - 1)),
            "{largest}"
        );
        let (sent, _) = send_for(100_000, 400, &pace);
        assert!((123_000_000..=125_000_000).contains(&sent), "{sent}");
    }

    #[test]
    fn a_quiet_sender_may_burst_ten_datagrams_and_no_more() {
        let rtt = rtt(100_000);
        let pace = pace(&rtt, 12_000);
        let mut pacer = Pacer::new();
        assert_eq!(pacer.budget(at(1), &pace), 12_000);
        pacer.on_sent(12_000);
        assert_eq!(pacer.budget(at(1), &pace), 0);
        // 1200 bytes at 150 bytes a millisecond.
        let next = pacer.next_release(&pace).expect("empty");
        assert!((8_000_000..=8_000_002).contains(&nanos(next - at(1))));
        assert!(pacer.budget(next, &pace) >= 1200);
        assert_eq!(pacer.next_release(&pace), None);
        assert_eq!(pacer.budget(at(3_600_000_000), &pace), 12_000);
    }

    #[test]
    fn a_controllers_own_rate_and_quantum_are_obeyed_at_any_rtt() {
        for us in [100, 100_000] {
            let rtt = rtt(us);
            let explicit = Some(PacingRate {
                rate: 2_400_000.0,
                quantum: 4800,
            });
            let own = Pace {
                explicit,
                ..pace(&rtt, 12_000)
            };
            // 2.4 MB/s for a tenth of a second, in quanta of two milliseconds' worth.
            let (sent, largest) = send_for(100_000, 0, &own);
            assert!((235_000..=240_000).contains(&sent), "{sent}");
            assert_eq!(largest, 4800);
            // After silence a quantum may leave, and what a timer may be late by: 1200 bytes.
            let mut pacer = Pacer::new();
            assert_eq!(pacer.budget(at(1), &own), 6000);
        }
    }

    #[test]
    fn debt_is_paid_back() {
        let rtt = rtt(100_000);
        let pace = pace(&rtt, 12_000);
        let mut pacer = Pacer::new();
        pacer.budget(at(1), &pace);
        pacer.on_sent(13_200);
        assert_eq!(pacer.budget(at(8_001), &pace), 0);
        assert!(pacer.budget(at(16_002), &pace) >= 1199);
    }

    #[test]
    fn tiny_rtts_and_disabled_pacers_hold_nothing_back() {
        let tiny = rtt(999);
        let unknown = Rtt::default();
        let normal = rtt(50_000);
        for (rtt, mut pacer) in [
            (&tiny, Pacer::new()),
            (&unknown, Pacer::new()),
            (&normal, Pacer::disabled()),
        ] {
            let pace = pace(rtt, 12_000);
            for _ in 0..100 {
                assert_eq!(pacer.budget(at(5), &pace), u64::MAX);
                pacer.on_sent(1_000_000);
                assert_eq!(pacer.next_release(&pace), None);
            }
        }
        // When the RTT grows, pacing starts with a full bucket.
        let mut pacer = Pacer::new();
        pacer.budget(at(5), &pace(&tiny, 12_000));
        pacer.on_sent(1 << 40);
        pacer.budget(at(6), &pace(&tiny, 12_000));
        assert_eq!(pacer.budget(at(6), &pace(&normal, 12_000)), 12_000);
    }

    proptest! {
        #[test]
        fn over_time_no_more_leaves_than_the_rate_and_a_bucket(
            us in 1_000u64..1_000_000,
            window in 2_400u64..100_000_000,
            late in 0u64..2_000,
            mtu in 1200usize..65_527,
        ) {
            let rtt = rtt(us);
            let pace = Pace { mtu, ..pace(&rtt, window.max(2 * mtu as u64)) };
            let rate = pace.rate().expect("paced");
            let (sent, largest) = send_for(200_000, late, &pace);
            let span = (200_000 + late) as f64 * 1000.0;
            prop_assert!(sent as f64 <= rate * span + pace.depth(rate) + pace.train(rate));
            prop_assert!(largest as f64 <= pace.depth(rate));
        }
    }
}
