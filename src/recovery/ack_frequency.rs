//! What to ask of the peer's acknowledgements (ACK frequency §4, §8): the sender's side.
//!
//! A large window needs few acknowledgements: an eighth of it may pass without one, so that at
//! least eight come in a round trip, and growth, pacing and loss detection go on as before. Gaps
//! are still reported at once (a Reordering Threshold of 1), because the time threshold of RFC 9002
//! §6.1.2 starts from that report when the end of a burst is lost. The delay is never asked to be
//! longer than the peer declared, so probe timeouts computed with that value stay right (§7).
//!
//! A request is about every path of the connection, and its number one of the connection's. So it
//! is what suits the path that needs acknowledgements soonest.

use crate::base::Timestamp;
use crate::wire::frame::AckFrequency;
use std::time::Duration;

/// Acknowledgements that a window's worth of packets brings, at least.
const ACKS_PER_WINDOW: u64 = 8;
/// Packets without an acknowledgement, at most: a train, after which it comes anyway.
const MOST_PACKETS: u64 = 63;
/// RFC 9000's rule, every second packet, as a threshold.
const DEFAULT_THRESHOLD: u64 = 1;

/// What would suit a path, or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckNeed {
    threshold: u64,
    /// Its smoothed round-trip time; of several the shortest.
    delay: Duration,
    /// How long a request takes to show; of several the longest.
    pause: Duration,
}

impl AckNeed {
    /// What suits a path of that smoothed round-trip time whose congestion window holds `window`
    /// packets; every second is to be acknowledged if `often`, as in slow start, where the window
    /// grows by what is acknowledged.
    #[inline]
    pub fn of(smoothed: Duration, window: u64, often: bool) -> Self {
        let threshold = match often {
            true => DEFAULT_THRESHOLD,
            false => (window / ACKS_PER_WINDOW).clamp(DEFAULT_THRESHOLD, MOST_PACKETS),
        };
        Self {
            threshold,
            delay: smoothed,
            pause: smoothed,
        }
    }

    /// What suits both: acknowledgements as soon as either needs them.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            threshold: self.threshold.min(other.threshold),
            delay: self.delay.min(other.delay),
            pause: self.pause.max(other.pause),
        }
    }
}

/// One connection's requests.
#[derive(Clone, Debug)]
pub struct AckFrequencyRequests {
    /// The shortest delay that the peer takes, and the longest that it declared.
    range: (Duration, Duration),
    /// Whether lower rates are asked for; IMMEDIATE_ACK is sent without it.
    active: bool,
    asked: Option<Request>,
    asked_at: Timestamp,
    /// What the peer goes by may not fit the paths any more.
    stale: bool,
    wanted: Option<Request>,
    next_seq: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Request {
    threshold: u64,
    delay: Duration,
}

impl AckFrequencyRequests {
    /// Requests to a peer that takes the extension's frames: `min_ack_delay` and `max_ack_delay`
    /// are its transport parameters. `active` asks for lower rates.
    pub fn new(min_ack_delay: Duration, max_ack_delay: Duration, active: bool) -> Self {
        Self {
            range: (min_ack_delay, max_ack_delay.max(min_ack_delay)),
            active,
            asked: None,
            asked_at: Timestamp::ZERO,
            stale: false,
            wanted: None,
            next_seq: 0,
        }
    }

    /// Whether lower rates are asked for at all.
    #[inline]
    pub const fn is_active(&self) -> bool {
        self.active
    }

    /// An acknowledgement came: decides what to ask for now that the paths in use have that `need`.
    /// At most one request a round trip, and only for what changed by half.
    #[inline]
    pub fn on_ack(&mut self, now: Timestamp, need: AckNeed) {
        let too_soon = self.asked.is_some() && now < self.asked_at + need.pause;
        if !self.active || too_soon {
            return;
        }
        let (min, max) = self.range;
        let (threshold, delay) = (need.threshold, need.delay.clamp(min, max));
        let request = Request { threshold, delay };
        let differs = match self.asked {
            // Before the first request the peer does what RFC 9000 says.
            None => threshold >= 2 * DEFAULT_THRESHOLD,
            Some(asked) => self.stale || asked.differs(&request),
        };
        self.wanted = differs.then_some(request);
    }

    /// Whether a frame waits.
    #[inline]
    pub const fn wants_to_send(&self) -> bool {
        self.wanted.is_some()
    }

    /// The frame that waits; it leaves at `now`.
    pub fn poll(&mut self, now: Timestamp) -> Option<AckFrequency> {
        let request = self.wanted.take()?;
        let seq = self.next_seq;
        self.next_seq += 1;
        self.asked = Some(request);
        self.asked_at = now;
        self.stale = false;
        Some(AckFrequency {
            seq,
            threshold: request.threshold,
            max_ack_delay: u64::try_from(request.delay.as_micros()).unwrap_or(u64::MAX >> 2),
            reordering: 1,
        })
    }

    /// Frame `seq` was lost: what it said is asked again, unless a later one did.
    pub fn on_lost(&mut self, seq: u64) {
        if seq + 1 == self.next_seq && self.wanted.is_none() {
            self.wanted = self.asked;
        }
    }

    /// A path leads elsewhere (§8.4).
    pub fn on_new_path(&mut self) {
        self.stale = self.asked.is_some();
        self.wanted = None;
    }
}

impl Request {
    /// Whether a value changed by half or more.
    fn differs(&self, other: &Self) -> bool {
        let far = |a: u128, b: u128| a.max(b) >= 2 * a.min(b) && a != b;
        far(self.threshold.into(), other.threshold.into())
            || far(self.delay.as_micros(), other.delay.as_micros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(1);
    const MAX: Duration = Duration::from_millis(25);

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_nanos(ms * 1_000_000)
    }

    fn need(ms: u64, window: u64, often: bool) -> AckNeed {
        AckNeed::of(Duration::from_millis(ms), window, often)
    }

    fn requests() -> AckFrequencyRequests {
        AckFrequencyRequests::new(MIN, MAX, true)
    }

    #[test]
    fn an_eighth_of_the_window_may_pass() {
        for (window, threshold) in [
            (15, None),
            (16, Some(2)),
            (160, Some(20)),
            (1 << 40, Some(63)),
        ] {
            let mut r = requests();
            r.on_ack(at(100), need(10, window, false));
            let frame = r.poll(at(100));
            assert_eq!(frame.map(|f| f.threshold), threshold, "{window}");
            if let Some(f) = frame {
                assert_eq!((f.seq, f.max_ack_delay, f.reordering), (0, 10_000, 1));
            }
        }
    }

    #[test]
    fn the_delay_stays_within_what_the_peer_declared() {
        for (ms, micros) in [(0, 1_000), (5, 5_000), (25, 25_000), (300, 25_000)] {
            let mut r = requests();
            r.on_ack(at(1000), need(ms, 100, false));
            assert_eq!(r.poll(at(1000)).map(|f| f.max_ack_delay), Some(micros));
        }
    }

    #[test]
    fn nothing_is_asked_unless_it_is_wanted_nor_in_slow_start() {
        let mut r = AckFrequencyRequests::new(MIN, MAX, false);
        r.on_ack(at(100), need(10, 1000, false));
        assert!(!r.wants_to_send() && !r.is_active());
        let mut r = requests();
        r.on_ack(at(100), need(10, 1000, true));
        assert!(!r.wants_to_send());
    }

    #[test]
    fn requests_follow_large_changes_once_a_round_trip() {
        let mut r = requests();
        r.on_ack(at(100), need(10, 80, false));
        assert_eq!(r.poll(at(100)).map(|f| f.threshold), Some(10));
        r.on_ack(at(105), need(10, 800, false));
        assert!(!r.wants_to_send(), "too soon");
        r.on_ack(at(110), need(10, 120, false));
        assert!(!r.wants_to_send(), "too little");
        r.on_ack(at(110), need(10, 160, false));
        let frame = r.poll(at(110)).expect("a request");
        assert_eq!((frame.seq, frame.threshold), (1, 20));
        // Back in slow start: every second packet again.
        r.on_ack(at(120), need(10, 10, true));
        assert_eq!(r.poll(at(120)).map(|f| f.threshold), Some(1));
    }

    #[test]
    fn the_newest_request_is_repeated_when_lost() {
        let mut r = requests();
        r.on_ack(at(100), need(10, 80, false));
        r.poll(at(100));
        r.on_ack(at(200), need(10, 800, false));
        r.poll(at(200));
        r.on_lost(0);
        assert!(!r.wants_to_send(), "an older one");
        r.on_lost(1);
        let again = r.poll(at(210)).expect("again");
        assert_eq!((again.seq, again.threshold), (2, 63));
    }

    #[test]
    fn a_new_path_is_asked_anew() {
        let mut r = requests();
        r.on_new_path();
        r.on_ack(at(50), need(10, 10, true));
        assert!(!r.wants_to_send(), "nothing was asked before");
        r.on_ack(at(100), need(10, 80, false));
        r.poll(at(100));
        r.on_new_path();
        r.on_ack(at(200), need(10, 80, false));
        assert!(r.wants_to_send());
    }

    #[test]
    fn of_several_paths_the_one_that_needs_them_soonest_decides() {
        let slow = need(60, 400, false);
        let fast = need(10, 80, false);
        for both in [slow.and(fast), fast.and(slow)] {
            let mut r = requests();
            r.on_ack(at(100), both);
            let f = r.poll(at(100)).expect("a request");
            assert_eq!((f.seq, f.threshold, f.max_ack_delay), (0, 10, 10_000));
            // Until the slower has shown what it made of that, there is no other.
            r.on_ack(at(159), slow);
            assert!(!r.wants_to_send());
            r.on_ack(at(160), slow);
            let f = r.poll(at(160)).expect("a request");
            assert_eq!((f.seq, f.threshold, f.max_ack_delay), (1, 50, 25_000));
            // One of them starts slowly again.
            r.on_ack(at(220), slow.and(need(10, 10, true)));
            let f = r.poll(at(220)).expect("a request");
            assert_eq!((f.seq, f.threshold, f.max_ack_delay), (2, 1, 10_000));
        }
    }
}
