//! What to ask of the peer's acknowledgements (ACK frequency §4, §8): the sender's side.
//!
//! A large window needs few acknowledgements: an eighth of it may pass without one, so that at
//! least eight come in a round trip, and growth, pacing and loss detection go on as before. Gaps
//! are still reported at once (a Reordering Threshold of 1), because the time threshold of RFC 9002
//! §6.1.2 starts from that report when the end of a burst is lost. The delay is never asked to be
//! longer than the peer declared, so probe timeouts computed with that value stay right (§7).

use super::rtt::Rtt;
use crate::base::Timestamp;
use crate::wire::frame::AckFrequency;
use std::time::Duration;

/// Acknowledgements that a window's worth of packets brings, at least.
const ACKS_PER_WINDOW: u64 = 8;
/// Packets without an acknowledgement, at most: a train, after which it comes anyway.
const MOST_PACKETS: u64 = 63;
/// RFC 9000's rule, every second packet, as a threshold.
const DEFAULT_THRESHOLD: u64 = 1;

/// One path's requests.
#[derive(Clone, Debug, Default)]
pub struct AckFrequencyRequests {
    /// The shortest delay that the peer takes, and the longest that it declared.
    range: Option<(Duration, Duration)>,
    /// Whether lower rates are asked for; IMMEDIATE_ACK is sent without it.
    active: bool,
    asked: Option<Request>,
    asked_at: Timestamp,
    /// What the peer goes by may not fit the path any more.
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
    /// The peer takes the extension's frames: `min_ack_delay` and `max_ack_delay` are its transport
    /// parameters. `active` asks for lower rates.
    pub fn enable(&mut self, min_ack_delay: Duration, max_ack_delay: Duration, active: bool) {
        self.range = Some((min_ack_delay, max_ack_delay.max(min_ack_delay)));
        self.active = active;
    }

    /// Whether the peer takes IMMEDIATE_ACK frames.
    #[inline]
    pub const fn is_supported(&self) -> bool {
        self.range.is_some()
    }

    /// An acknowledgement came: decides what to ask for now that `window` packets fit the
    /// congestion window. At most one request a round trip, and only for what changed by half.
    #[inline]
    pub fn on_ack(&mut self, now: Timestamp, rtt: &Rtt, window: u64, in_slow_start: bool) {
        let Some((min, max)) = self.range.filter(|_| self.active) else {
            return;
        };
        let smoothed = rtt.smoothed();
        if self.asked.is_some() && now < self.asked_at + smoothed {
            return;
        }
        let threshold = if in_slow_start {
            // The window grows by what is acknowledged.
            DEFAULT_THRESHOLD
        } else {
            (window / ACKS_PER_WINDOW).clamp(DEFAULT_THRESHOLD, MOST_PACKETS)
        };
        let delay = smoothed.clamp(min, max);
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

    /// The path leads elsewhere (§8.4).
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

    fn rtt(ms: u64) -> Rtt {
        let mut rtt = Rtt::new(Duration::from_millis(333));
        rtt.on_sample(at(0), Duration::from_millis(ms), Duration::ZERO);
        rtt
    }

    fn requests() -> AckFrequencyRequests {
        let mut r = AckFrequencyRequests::default();
        r.enable(MIN, MAX, true);
        r
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
            r.on_ack(at(100), &rtt(10), window, false);
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
            r.on_ack(at(1000), &rtt(ms), 100, false);
            assert_eq!(r.poll(at(1000)).map(|f| f.max_ack_delay), Some(micros));
        }
    }

    #[test]
    fn nothing_is_asked_of_a_peer_that_does_not_listen_nor_in_slow_start() {
        let mut r = AckFrequencyRequests::default();
        r.on_ack(at(100), &rtt(10), 1000, false);
        assert!(!r.wants_to_send() && !r.is_supported());
        r.enable(MIN, MAX, false);
        r.on_ack(at(100), &rtt(10), 1000, false);
        assert!(!r.wants_to_send() && r.is_supported());
        r.enable(MIN, MAX, true);
        r.on_ack(at(100), &rtt(10), 1000, true);
        assert!(!r.wants_to_send());
    }

    #[test]
    fn requests_follow_large_changes_once_a_round_trip() {
        let mut r = requests();
        r.on_ack(at(100), &rtt(10), 80, false);
        assert_eq!(r.poll(at(100)).map(|f| f.threshold), Some(10));
        r.on_ack(at(105), &rtt(10), 800, false);
        assert!(!r.wants_to_send(), "too soon");
        r.on_ack(at(110), &rtt(10), 120, false);
        assert!(!r.wants_to_send(), "too little");
        r.on_ack(at(110), &rtt(10), 160, false);
        let frame = r.poll(at(110)).expect("a request");
        assert_eq!((frame.seq, frame.threshold), (1, 20));
        // Back in slow start: every second packet again.
        r.on_ack(at(120), &rtt(10), 10, true);
        assert_eq!(r.poll(at(120)).map(|f| f.threshold), Some(1));
    }

    #[test]
    fn the_newest_request_is_repeated_when_lost() {
        let mut r = requests();
        r.on_ack(at(100), &rtt(10), 80, false);
        r.poll(at(100));
        r.on_ack(at(200), &rtt(10), 800, false);
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
        r.on_ack(at(50), &rtt(10), 10, true);
        assert!(!r.wants_to_send(), "nothing was asked before");
        r.on_ack(at(100), &rtt(10), 80, false);
        r.poll(at(100));
        r.on_new_path();
        r.on_ack(at(200), &rtt(10), 80, false);
        assert!(r.wants_to_send());
    }
}
