//! Notices that a path may have failed, from what was sent on it and what was acknowledged.
//!
//! A path is potentially failed when ack-eliciting packets have been outstanding on it without any
//! acknowledgement for longer than the larger of a floor and four smoothed round-trip times, or
//! after a few probe timeouts in a row. Idle time counts for nothing: the clock starts with the
//! first packet after nothing was outstanding. An acknowledgement of a packet that was sent on this
//! path takes the suspicion back, whatever path brought it. What a failed path is good for, and who
//! probes it, is the caller's business.

use crate::base::Timestamp;
use std::time::Duration;

/// Smoothed round-trip times without an acknowledgement that raise suspicion.
const SUSPECT_RTTS: u32 = 4;
/// The lowest floor: below it a delayed acknowledgement and a busy host would do.
pub const MIN_FLOOR: Duration = Duration::from_millis(50);

/// When a path counts as failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureConfig {
    /// The least time without an acknowledgement; 50 ms at least, 200 ms unless set.
    pub floor: Duration,
    /// Probe timeouts in a row that suffice as well; 2 unless set, never if `None`.
    pub ptos: Option<u32>,
    /// Time after which a path that is still silent is to be abandoned, counted from the suspicion;
    /// never if `None`.
    pub abandon_after: Option<Duration>,
    /// How often a path that may have failed is asked at least, whatever the backoff of its probe
    /// timeouts; 50 ms at least, 1 s unless set.
    pub probe_interval: Duration,
}

impl Default for FailureConfig {
    fn default() -> Self {
        Self {
            floor: Duration::from_millis(200),
            ptos: Some(2),
            abandon_after: None,
            probe_interval: Duration::from_secs(1),
        }
    }
}

/// A change of a path's state that the caller acts upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// It may have failed.
    PotentiallyFailed,
    /// It works after all.
    Recovered,
    /// It was silent for so long that it is to be closed. Told once.
    Abandon,
}

/// Where a path stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Working,
    /// Suspected since.
    Failed(Timestamp),
    Abandoned,
}

/// The failure detector of one path.
#[derive(Clone, Debug)]
pub struct FailureDetector {
    config: FailureConfig,
    state: State,
    /// When the silence began: the later of the first packet that is outstanding and the last
    /// acknowledgement. `None` while nothing is outstanding.
    silent_since: Option<Timestamp>,
    ptos: u32,
    smoothed_rtt: Duration,
    /// When the path is to be asked next, while it may have failed.
    probe_at: Option<Timestamp>,
}

impl FailureDetector {
    /// A detector of a path that works, with nothing outstanding.
    pub fn new(mut config: FailureConfig, smoothed_rtt: Duration) -> Self {
        config.floor = config.floor.max(MIN_FLOOR);
        config.probe_interval = config.probe_interval.max(MIN_FLOOR);
        Self {
            config,
            state: State::Working,
            silent_since: None,
            ptos: 0,
            smoothed_rtt,
            probe_at: None,
        }
    }

    /// The path may have failed.
    #[inline]
    pub const fn is_failed(&self) -> bool {
        !matches!(self.state, State::Working)
    }

    /// An ack-eliciting packet left on this path.
    #[inline]
    pub fn on_sent(&mut self, now: Timestamp) {
        if self.silent_since.is_none() {
            self.silent_since = Some(now);
        }
    }

    /// Packets sent on this path were newly acknowledged; its RTT is `smoothed_rtt` since.
    #[inline]
    pub fn on_acked(&mut self, now: Timestamp, smoothed_rtt: Duration) -> Option<Transition> {
        self.smoothed_rtt = smoothed_rtt;
        self.ptos = 0;
        if self.silent_since.is_some() {
            self.silent_since = Some(now);
        }
        match self.state {
            State::Failed(_) => {
                self.state = State::Working;
                self.probe_at = None;
                Some(Transition::Recovered)
            }
            State::Working | State::Abandoned => None,
        }
    }

    /// The probe timeout of this path fired.
    pub fn on_pto(&mut self, now: Timestamp) -> Option<Transition> {
        self.ptos = self.ptos.saturating_add(1);
        let enough = self.config.ptos.is_some_and(|n| self.ptos >= n.max(1));
        if enough { self.suspect(now) } else { None }
    }

    /// No ack-eliciting packet is outstanding on this path: all were acknowledged, or given up.
    #[inline]
    pub fn nothing_outstanding(&mut self) {
        self.silent_since = None;
    }

    /// When [`FailureDetector::poll`] is due next.
    pub fn deadline(&self) -> Option<Timestamp> {
        match self.state {
            State::Working => Some(self.silent_since? + self.patience()),
            State::Failed(since) => Some(since + self.config.abandon_after?),
            State::Abandoned => None,
        }
    }

    /// What the time alone changed. May be called at any time; once is enough per deadline.
    pub fn poll(&mut self, now: Timestamp) -> Option<Transition> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        match self.state {
            State::Working => self.suspect(now),
            State::Failed(_) => {
                self.state = State::Abandoned;
                self.probe_at = None;
                Some(Transition::Abandon)
            }
            State::Abandoned => None,
        }
    }

    /// When a path that may have failed is to be asked next.
    pub const fn probe_deadline(&self) -> Option<Timestamp> {
        self.probe_at
    }

    /// Whether the path is to be asked now; if so, the next time is set.
    pub fn take_probe(&mut self, now: Timestamp) -> bool {
        let due = self.probe_at.is_some_and(|at| at <= now);
        if due {
            self.probe_at = Some(now + self.config.probe_interval);
        }
        due
    }

    /// Gives a silent path its whole time again, if that is over: nothing better is there.
    pub fn postpone(&mut self, now: Timestamp) {
        if matches!(self.state, State::Failed(_)) && self.deadline().is_some_and(|at| at <= now) {
            self.state = State::Failed(now);
        }
    }

    /// The longest silence that is not suspicious.
    fn patience(&self) -> Duration {
        let rtts = self.smoothed_rtt.saturating_mul(SUSPECT_RTTS);
        self.config.floor.max(rtts)
    }

    fn suspect(&mut self, now: Timestamp) -> Option<Transition> {
        if self.state != State::Working {
            return None;
        }
        self.state = State::Failed(now);
        self.probe_at = Some(now + self.config.probe_interval);
        Some(Transition::PotentiallyFailed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RTT: Duration = Duration::from_millis(20);
    const FAILED: Option<Transition> = Some(Transition::PotentiallyFailed);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn at(n: u64) -> Timestamp {
        Timestamp::ZERO + ms(n)
    }

    fn detector() -> FailureDetector {
        FailureDetector::new(FailureConfig::default(), RTT)
    }

    #[test]
    fn silence_beyond_the_floor_is_suspicious() {
        let mut d = detector();
        assert_eq!((d.deadline(), d.poll(at(1_000_000))), (None, None));
        d.on_sent(at(100));
        d.on_sent(at(250));
        // 4 * 20 ms is less than the floor of 200 ms.
        assert_eq!(d.deadline(), Some(at(300)));
        assert_eq!(d.poll(at(299)), None);
        assert_eq!(d.poll(at(300)), FAILED);
        assert!(d.is_failed());
        assert_eq!((d.poll(at(9999)), d.deadline()), (None, None), "told once");
    }

    #[test]
    fn four_round_trips_count_where_they_are_longer() {
        let mut d = FailureDetector::new(FailureConfig::default(), ms(90));
        d.on_sent(at(0));
        assert_eq!(d.deadline(), Some(at(360)));
        // Each acknowledgement brings the present RTT and starts the silence anew.
        assert_eq!(d.on_acked(at(100), ms(60)), None);
        assert_eq!(d.deadline(), Some(at(340)));
    }

    /// Nothing outstanding for a minute, then a packet: its acknowledgement has all its time.
    #[test]
    fn idle_time_is_not_silence() {
        let mut d = detector();
        d.on_sent(at(0));
        d.on_acked(at(10), RTT);
        d.nothing_outstanding();
        assert_eq!((d.deadline(), d.poll(at(60_000))), (None, None));
        d.on_sent(at(60_000));
        assert_eq!(d.poll(at(60_000)), None);
        assert_eq!(d.deadline(), Some(at(60_200)));
        assert!(!d.is_failed());
    }

    #[test]
    fn a_path_that_was_never_acknowledged_fails_too() {
        let mut d = detector();
        d.on_sent(at(0));
        assert_eq!(d.poll(at(200)), FAILED);
    }

    #[test]
    fn probe_timeouts_in_a_row_suffice() {
        let mut d = detector();
        d.on_sent(at(0));
        assert_eq!(d.on_pto(at(40)), None);
        d.on_acked(at(50), RTT);
        assert_eq!(d.on_pto(at(90)), None, "not in a row");
        assert_eq!(d.on_pto(at(130)), FAILED);
        assert_eq!(d.on_pto(at(250)), None, "told once");
        let config = FailureConfig {
            ptos: None,
            ..FailureConfig::default()
        };
        let mut d = FailureDetector::new(config, RTT);
        d.on_sent(at(0));
        assert!((0..100).all(|n| d.on_pto(at(n)).is_none()));
    }

    #[test]
    fn an_acknowledgement_takes_the_suspicion_back() {
        let mut d = detector();
        d.on_sent(at(0));
        assert_eq!(d.poll(at(200)), FAILED);
        assert_eq!(d.on_acked(at(230), RTT), Some(Transition::Recovered));
        assert!(!d.is_failed());
        assert_eq!(d.on_acked(at(231), RTT), None);
        // What is still outstanding may make it fail again.
        assert_eq!(d.deadline(), Some(at(431)));
        assert_eq!(d.poll(at(431)), FAILED);
        // That all was given up as lost proves nothing.
        d.nothing_outstanding();
        assert!(d.is_failed());
    }

    #[test]
    fn the_floor_may_be_set_but_not_below_fifty() {
        for (floor, deadline) in [(60, 60), (50, 50), (0, 50)] {
            let config = FailureConfig {
                floor: ms(floor),
                ..FailureConfig::default()
            };
            let mut d = FailureDetector::new(config, ms(1));
            d.on_sent(at(0));
            assert_eq!(d.deadline(), Some(at(deadline)));
        }
    }

    #[test]
    fn a_path_that_stays_silent_is_abandoned_once() {
        let config = FailureConfig {
            abandon_after: Some(ms(500)),
            ..FailureConfig::default()
        };
        let mut d = FailureDetector::new(config, RTT);
        d.on_sent(at(0));
        assert_eq!(d.poll(at(210)), FAILED);
        assert_eq!(d.deadline(), Some(at(710)));
        assert_eq!((d.poll(at(709)), d.is_failed()), (None, true));
        assert_eq!(d.poll(at(710)), Some(Transition::Abandon));
        assert_eq!((d.poll(at(9999)), d.deadline()), (None, None));
        // Too late: the caller has begun to close it.
        assert_eq!((d.on_acked(at(720), RTT), d.on_pto(at(730))), (None, None));
        assert!(d.is_failed());
    }

    /// It may come back long after, when probe timeouts have become rare.
    #[test]
    fn a_failed_path_is_asked_again_and_again() {
        let config = FailureConfig {
            abandon_after: Some(ms(2500)),
            ..FailureConfig::default()
        };
        let mut d = FailureDetector::new(config, RTT);
        d.on_sent(at(0));
        assert_eq!((d.probe_deadline(), d.take_probe(at(199))), (None, false));
        d.poll(at(200));
        assert_eq!(d.probe_deadline(), Some(at(1200)));
        assert!(!d.take_probe(at(1199)) && d.take_probe(at(1200)) && !d.take_probe(at(1200)));
        d.postpone(at(1300));
        assert_eq!(d.deadline(), Some(at(2700)), "it has time yet");
        d.postpone(at(2700));
        assert_eq!((d.deadline(), d.poll(at(2700))), (Some(at(5200)), None));
        d.on_acked(at(3000), RTT);
        assert_eq!((d.probe_deadline(), d.take_probe(at(9000))), (None, false));
    }

    proptest! {
        /// Whatever happens, a path fails only with something outstanding for 50 ms at least, or by
        /// probe timeouts, and `poll` at the deadline always says something.
        #[test]
        fn no_suspicion_without_a_reason(
            steps in proptest::collection::vec((0u8..5, 0u64..300), 1..100)
        ) {
            let mut d = detector();
            let (mut now, mut quiet_since, mut ptos) = (0, None, 0);
            for (op, dt) in steps {
                now += dt;
                let due = d.deadline().is_some_and(|deadline| deadline <= at(now));
                let change = d.poll(at(now));
                prop_assert_eq!(change.is_some(), due);
                if change == FAILED {
                    let since = quiet_since.expect("something outstanding");
                    prop_assert!(now - since >= 200);
                }
                match op {
                    0 => {
                        d.on_sent(at(now));
                        quiet_since = quiet_since.or(Some(now));
                    }
                    1 => {
                        d.on_acked(at(now), RTT);
                        prop_assert!(!d.is_failed());
                        quiet_since = quiet_since.map(|_| now);
                        ptos = 0;
                    }
                    2 => {
                        d.nothing_outstanding();
                        quiet_since = None;
                    }
                    3 => {
                        ptos += 1;
                        let change = d.on_pto(at(now));
                        prop_assert!(change.is_none() || ptos >= 2);
                    }
                    _ => {}
                }
            }
        }
    }
}
