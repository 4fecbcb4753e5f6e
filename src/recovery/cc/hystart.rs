//! HyStart++: ends the first slow start when the round-trip time rises, before packets are lost.
//!
//! A round ends when a packet sent in it is acknowledged. The draft marks rounds by sequence
//! numbers; the time of sending orders packets as well, and needs no packet number here.

use crate::base::Timestamp;
use crate::base::time::nanos;
use std::time::Duration;

/// The smallest rise that counts: `MIN_RTT_THRESH`.
const MIN_RTT_THRESH: u64 = 4_000_000;
/// The largest rise asked for: `MAX_RTT_THRESH`.
const MAX_RTT_THRESH: u64 = 16_000_000;
/// Samples a round needs: `N_RTT_SAMPLE`.
const N_RTT_SAMPLE: u32 = 8;
/// How much slower conservative slow start grows: `CSS_GROWTH_DIVISOR`.
const CSS_GROWTH_DIVISOR: u64 = 4;
/// Rounds of conservative slow start: `CSS_ROUNDS`.
const CSS_ROUNDS: u32 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    SlowStart,
    /// Conservative slow start: the delay rose above `baseline` (ns); `rounds` are complete.
    Conservative {
        baseline: u64,
        rounds: u32,
    },
    Done,
}

/// The state of HyStart++.
#[derive(Clone, Debug)]
pub(super) struct HyStart {
    phase: Phase,
    /// When the current round began: an acknowledgement of a packet sent since then ends it.
    round_start: Timestamp,
    /// Nanoseconds; `u64::MAX` is infinity.
    last_round_min: u64,
    current_round_min: u64,
    samples: u32,
}

impl HyStart {
    pub(super) const fn new() -> Self {
        Self {
            phase: Phase::SlowStart,
            round_start: Timestamp::ZERO,
            last_round_min: u64::MAX,
            current_round_min: u64::MAX,
            samples: 0,
        }
    }

    /// How much the window grows for `acked` bytes. The pacer spreads them, so `L` is infinite.
    #[inline]
    pub(super) const fn growth(&self, acked: u64) -> u64 {
        match self.phase {
            Phase::Conservative { .. } => acked / CSS_GROWTH_DIVISOR,
            Phase::SlowStart | Phase::Done => acked,
        }
    }

    /// Congestion ended the first slow start.
    pub(super) const fn stop(&mut self) {
        self.phase = Phase::Done;
    }

    /// Takes the RTT sample of an ACK whose largest packet was sent at `sent`. True when slow start
    /// is over.
    pub(super) fn on_ack(&mut self, now: Timestamp, sent: Timestamp, rtt: Duration) -> bool {
        if self.phase == Phase::Done {
            return false;
        }
        self.current_round_min = self.current_round_min.min(nanos(rtt));
        self.samples += 1;
        if self.samples >= N_RTT_SAMPLE {
            self.judge();
        }
        // Within a turn, packets are sent after ACKs are taken in: one sent at the very time the
        // round began was sent in it.
        if sent >= self.round_start {
            self.end_round(now);
        }
        self.phase == Phase::Done
    }

    fn judge(&mut self) {
        match self.phase {
            Phase::SlowStart if self.last_round_min != u64::MAX => {
                let rise = (self.last_round_min / 8).clamp(MIN_RTT_THRESH, MAX_RTT_THRESH);
                if self.current_round_min >= self.last_round_min.saturating_add(rise) {
                    self.phase = Phase::Conservative {
                        baseline: self.current_round_min,
                        rounds: 0,
                    };
                }
            }
            Phase::Conservative { baseline, .. } if self.current_round_min < baseline => {
                // The rise was a spike: slow start goes on.
                self.phase = Phase::SlowStart;
            }
            _ => {}
        }
    }

    fn end_round(&mut self, now: Timestamp) {
        self.round_start = now;
        self.last_round_min = self.current_round_min;
        self.current_round_min = u64::MAX;
        self.samples = 0;
        if let Phase::Conservative { rounds, .. } = &mut self.phase {
            *rounds += 1;
            if *rounds >= CSS_ROUNDS {
                self.phase = Phase::Done;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn at(n: u64) -> Timestamp {
        Timestamp::from_nanos(n * 1_000_000)
    }

    /// A round: `acks` acknowledgements of packets of the round before, of which the last ends it.
    struct Driver {
        hystart: HyStart,
        now: u64,
    }

    impl Driver {
        fn new() -> Self {
            let mut hystart = HyStart::new();
            // The first acknowledgement ends the round that never began.
            assert!(!hystart.on_ack(at(1000), at(900), ms(100)));
            Self { hystart, now: 1000 }
        }

        fn round(&mut self, acks: u64, rtt: Duration) -> bool {
            let before = at(self.now) - Duration::from_nanos(1);
            self.now += 1000;
            for _ in 1..acks {
                if self.hystart.on_ack(at(self.now), before, rtt) {
                    return true;
                }
            }
            self.hystart.on_ack(at(self.now), before + ms(1), rtt)
        }

        fn conservative(&self) -> bool {
            matches!(self.hystart.phase, Phase::Conservative { .. })
        }
    }

    #[test]
    fn a_steady_delay_never_ends_slow_start() {
        let mut d = Driver::new();
        for _ in 0..50 {
            assert!(!d.round(20, ms(100)));
            assert!(!d.conservative());
        }
        assert_eq!(d.hystart.growth(1000), 1000);
    }

    #[test]
    fn a_rise_of_an_eighth_slows_down_and_five_rounds_end_it() {
        let mut d = Driver::new();
        // 100 ms / 8 = 12.5 ms.
        d.round(10, ms(112));
        assert!(!d.conservative());
        let mut d = Driver::new();
        assert!(!d.round(10, Duration::from_micros(112_500)));
        assert!(d.conservative());
        assert_eq!(d.hystart.growth(1000), 250);
        // The round in which the delay rose counts.
        for _ in 0..3 {
            assert!(!d.round(10, ms(113)));
        }
        assert!(d.round(10, ms(113)));
        assert!(!d.hystart.on_ack(at(1 << 20), at(1 << 20), ms(500)), "once");
    }

    #[test]
    fn fewer_than_eight_samples_judge_nothing() {
        let mut d = Driver::new();
        d.round(7, ms(500));
        assert!(!d.conservative());
    }

    #[test]
    fn the_threshold_is_clamped() {
        // 1 ms / 8 would be a trifle: 4 ms it takes.
        let mut d = Driver::new();
        d.round(10, ms(1));
        d.round(10, Duration::from_micros(4_999));
        assert!(!d.conservative());
        let mut d = Driver::new();
        d.round(10, ms(1));
        d.round(10, ms(5));
        assert!(d.conservative());
        // 800 ms / 8 would be 100: 16 ms suffice.
        let mut d = Driver::new();
        for _ in 0..2 {
            d.hystart.last_round_min = nanos(ms(800));
            d.round(10, ms(816));
        }
        assert!(d.conservative());
    }

    #[test]
    fn a_spike_resumes_slow_start() {
        let mut d = Driver::new();
        d.round(10, ms(150));
        assert!(d.conservative());
        assert!(!d.round(10, ms(120)));
        assert!(!d.conservative());
        assert_eq!(d.hystart.growth(1000), 1000);
    }
}
