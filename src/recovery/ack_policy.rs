//! When to acknowledge: the receiver's side of one packet number space (RFC 9000 §13.2), and what
//! its peer asked for (ACK frequency §6).
//!
//! Packets arrive in trains. Within a train nothing is decided unless it must be (reordering, a
//! gap, congestion experienced); the end of the train asks once whether enough ack-eliciting
//! packets wait. Single packets are trains of one, so sparse traffic is acknowledged every second
//! packet and bulk traffic once a train.
//!
//! All ranges are remembered as far as `limits::ACK_RANGES` allows; what the peer knows to be
//! acknowledged is no longer reported, yet still recognised as a duplicate.

use super::ack_ranges::AckRanges;
use crate::base::time::nanos;
use crate::base::{Ecn, Timestamp, limits};
use crate::wire::frame::EcnCounts;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Ack-eliciting packets that make an acknowledgement due (RFC 9000 §13.2.2).
pub const DEFAULT_THRESHOLD: u32 = 2;
/// Acknowledgements sent without one of them being acknowledged after which the next should elicit
/// that (RFC 9000 §13.2.4).
const ELICIT_EVERY: u32 = 32;

/// Decides when to acknowledge and knows what.
#[derive(Clone, Debug)]
pub struct AckPolicy {
    ranges: AckRanges,
    /// Ranges that end below are known to be known to the peer.
    report_from: u64,
    /// When the largest packet arrived.
    largest_time: Timestamp,
    largest_ack_eliciting: Option<u64>,
    /// Ack-eliciting packets since the last acknowledgement.
    waiting: u32,
    /// When the first of those arrived, plus the longest delay we allow ourselves.
    deadline: Timestamp,
    due: bool,
    /// Packets of any kind arrived since the last acknowledgement.
    news: bool,
    threshold: u32,
    /// In nanoseconds.
    max_ack_delay: u64,
    /// Gaps are reported at once from this distance on; 1 is RFC 9000's rule, 0 is never.
    reordering: u64,
    /// The largest packet that an acknowledgement reported.
    largest_acked: Option<u64>,
    /// The packet before had a CE mark.
    last_was_ce: bool,
    ecn: EcnCounts,
    acks_since_elicited: u32,
}

impl AckPolicy {
    /// Gives back memory that gaps left behind.
    pub fn rest(&mut self) {
        self.ranges.rest();
    }

    /// A policy for the Initial and Handshake spaces: acknowledge at once (RFC 9000 §13.2.1).
    pub const fn immediate() -> Self {
        Self::with(Duration::ZERO, 1)
    }

    /// A policy for the Data space; `max_ack_delay` is the transport parameter that we sent.
    pub const fn delayed(max_ack_delay: Duration) -> Self {
        Self::with(max_ack_delay, DEFAULT_THRESHOLD)
    }

    const fn with(max_ack_delay: Duration, threshold: u32) -> Self {
        Self {
            ranges: AckRanges::new(),
            report_from: 0,
            largest_time: Timestamp::ZERO,
            largest_ack_eliciting: None,
            waiting: 0,
            deadline: Timestamp::NEVER,
            due: false,
            news: false,
            threshold,
            max_ack_delay: nanos(max_ack_delay),
            reordering: 1,
            largest_acked: None,
            last_was_ce: false,
            ecn: EcnCounts {
                ect0: 0,
                ect1: 0,
                ce: 0,
            },
            acks_since_elicited: 0,
        }
    }

    /// Changes how many ack-eliciting packets (at least one) and how much time make an
    /// acknowledgement due, and from which distance in packet numbers on a gap does (never by 0).
    pub fn set_frequency(&mut self, threshold: u32, max_ack_delay: Duration, reordering: u64) {
        self.threshold = threshold.max(1);
        self.max_ack_delay = nanos(max_ack_delay);
        self.reordering = reordering;
    }

    /// Acknowledges as often as another space does.
    pub fn set_frequency_of(&mut self, other: &Self) {
        self.threshold = other.threshold;
        self.max_ack_delay = other.max_ack_delay;
        self.reordering = other.reordering;
    }

    /// The peer asked for an acknowledgement now (ACK frequency §5).
    pub fn on_immediate_ack(&mut self) {
        self.due = true;
    }

    /// Whether `pn` was received before, or is too old to tell. Asked after decryption and before
    /// [`AckPolicy::on_packet`] (RFC 9000 §12.3).
    #[inline]
    pub fn is_duplicate(&self, pn: u64) -> bool {
        self.ranges.contains(pn)
    }

    /// Takes in a packet that was decrypted. False when it is a duplicate, which must not be
    /// processed and was not counted.
    #[inline]
    pub fn on_packet(&mut self, now: Timestamp, pn: u64, ack_eliciting: bool, ecn: Ecn) -> bool {
        let largest = self.ranges.largest();
        if !self.ranges.insert(pn) {
            return false;
        }
        if largest.is_none_or(|l| pn > l) {
            self.largest_time = now;
        }
        // A packet that comes late must be reported, however old.
        self.report_from = self.report_from.min(pn);
        self.news = true;
        match ecn {
            Ecn::NotEct => {}
            Ecn::Ect0 => self.ecn.ect0 += 1,
            Ecn::Ect1 => self.ecn.ect1 += 1,
            Ecn::Ce => self.ecn.ce += 1,
        }
        if ack_eliciting {
            self.on_ack_eliciting(now, pn, ecn);
        }
        true
    }

    #[inline]
    fn on_ack_eliciting(&mut self, now: Timestamp, pn: u64, ecn: Ecn) {
        if self.waiting == 0 {
            let deadline = now.as_nanos().saturating_add(self.max_ack_delay);
            self.deadline = Timestamp::from_nanos(deadline);
        }
        self.waiting += 1;
        // RFC 9000 §13.2.1: at once when the packet came out of order, when numbers are missing
        // between it and the ack-eliciting one before, and when it was marked.
        let disordered = if self.reordering == 1 {
            self.largest_ack_eliciting.is_some_and(|largest| {
                pn < largest || self.ranges.top().is_some_and(|top| *top.start() > largest)
            })
        } else {
            self.is_disordered_for_peer(pn)
        };
        // ACK frequency §6.3: with a threshold above RFC 9000's, only the first of a run of marks.
        let ce = ecn == Ecn::Ce && !(self.last_was_ce && self.threshold > DEFAULT_THRESHOLD);
        self.last_was_ce = ecn == Ecn::Ce;
        if disordered || ce {
            self.due = true;
        }
        if self.largest_ack_eliciting.is_none_or(|l| pn > l) {
            self.largest_ack_eliciting = Some(pn);
        }
    }

    /// ACK frequency §6.2: whether packet `pn` lets the peer declare one lost, or comes so late
    /// that the peer has. What would be forgotten before it is reported counts too (§6).
    fn is_disordered_for_peer(&self, pn: u64) -> bool {
        let distance = self.reordering;
        let reported = self.largest_acked.and_then(|l| l.checked_sub(distance));
        if distance > 0 && reported.is_some_and(|reported| pn <= reported) {
            return true;
        }
        if self.ranges.len() > limits::ACK_RANGES / 2 {
            return true;
        }
        let from = reported.map_or(0, |reported| reported + 1);
        let largest = self.largest_ack_eliciting.map_or(pn, |l| l.max(pn));
        distance > 0
            && self
                .smallest_missing(from)
                .is_some_and(|missing| largest.saturating_sub(missing) >= distance)
    }

    /// The smallest packet number from `from` on that lies between received ones.
    fn smallest_missing(&self, from: u64) -> Option<u64> {
        let mut missing = None;
        let mut above: Option<u64> = None;
        for range in self.ranges.iter_desc() {
            if above.is_some() {
                missing = Some(from.max(range.end() + 1));
            }
            if *range.start() <= from {
                break;
            }
            above = Some(*range.start());
        }
        missing
    }

    /// All packets that came together were taken in: decides whether they make an acknowledgement
    /// due.
    #[inline]
    pub fn end_of_train(&mut self) {
        if self.waiting >= self.threshold {
            self.due = true;
        }
    }

    /// Time passed: an acknowledgement whose deadline is reached becomes due.
    pub fn on_timeout(&mut self, now: Timestamp) {
        if self.deadline().is_some_and(|at| at <= now) {
            self.due = true;
        }
    }

    /// Whether an acknowledgement is due, even in a packet of its own.
    #[inline]
    pub const fn should_ack_now(&self) -> bool {
        self.due
    }

    /// Whether something arrived that the last acknowledgement did not report: worth adding to a
    /// packet that is sent anyway.
    #[inline]
    pub const fn has_news(&self) -> bool {
        self.news
    }

    /// When an acknowledgement becomes due by itself; `None` when it is due already or nothing
    /// waits for one.
    #[inline]
    pub fn deadline(&self) -> Option<Timestamp> {
        (self.waiting > 0 && !self.due).then_some(self.deadline)
    }

    /// The ranges to report, highest first. Empty only before the first packet.
    pub fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u64>> + Clone + '_ {
        let from = self.report_from;
        self.ranges
            .iter_desc()
            .enumerate()
            // The highest range always leads: an ACK frame cannot be empty.
            .take_while(move |(i, range)| *i == 0 || *range.end() >= from)
            .map(|(_, range)| range)
    }

    /// The largest packet number received: the one that [`AckPolicy::ranges`] begins with.
    #[inline]
    pub fn largest(&self) -> Option<u64> {
        self.ranges.largest()
    }

    /// How long the largest packet has waited for its acknowledgement (RFC 9000 §13.2.5).
    #[inline]
    pub fn ack_delay(&self, now: Timestamp) -> Duration {
        now - self.largest_time
    }

    /// Packets received with each ECN mark; `None` when none had one (RFC 9000 §13.4.1).
    #[inline]
    pub fn ecn_counts(&self) -> Option<EcnCounts> {
        (self.ecn.ect0 | self.ecn.ect1 | self.ecn.ce != 0).then_some(self.ecn)
    }

    /// An acknowledgement that starts with the largest packet left.
    #[inline]
    pub fn on_ack_sent(&mut self) {
        self.waiting = 0;
        self.deadline = Timestamp::NEVER;
        self.due = false;
        self.news = false;
        self.largest_acked = self.ranges.largest();
        self.acks_since_elicited = self.acks_since_elicited.saturating_add(1);
    }

    /// Whether the packet with the next acknowledgement should ask for one itself (a PING), so that
    /// the reported ranges can shrink (RFC 9000 §13.2.4). The caller says so by
    /// [`AckPolicy::on_elicited`].
    /// Keeps RFC 9000 §13.2.1.
    pub fn should_elicit(&self) -> bool {
        self.acks_since_elicited >= ELICIT_EVERY && self.ranges().nth(1).is_some()
    }

    /// An acknowledgement left in an ack-eliciting packet.
    #[inline]
    pub fn on_elicited(&mut self) {
        self.acks_since_elicited = 0;
    }

    /// The peer acknowledged a packet of ours whose ACK frame began with `largest`: ranges up to
    /// there need no more reporting (RFC 9000 §13.2.4).
    #[inline]
    pub fn on_ack_of_ack(&mut self, largest: u64) {
        self.report_from = self.report_from.max(largest.saturating_add(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_DELAY: Duration = Duration::from_millis(25);

    fn at(us: u64) -> Timestamp {
        Timestamp::from_nanos(us * 1000)
    }

    fn policy() -> AckPolicy {
        AckPolicy::delayed(MAX_DELAY)
    }

    /// A train of ack-eliciting packets.
    fn train(p: &mut AckPolicy, now: Timestamp, pns: std::ops::Range<u64>) {
        for pn in pns {
            assert!(p.on_packet(now, pn, true, Ecn::NotEct));
        }
        p.end_of_train();
    }

    #[test]
    fn sparse_packets_are_acknowledged_in_pairs() {
        let mut p = policy();
        train(&mut p, at(10), 0..1);
        assert!(!p.should_ack_now() && p.has_news());
        assert_eq!(p.deadline(), Some(at(10) + MAX_DELAY));
        train(&mut p, at(20), 1..2);
        assert!(p.should_ack_now());
        assert_eq!(p.deadline(), None);
        assert_eq!(p.ack_delay(at(50)), Duration::from_micros(30));
        p.on_ack_sent();
        assert!(!p.should_ack_now() && !p.has_news() && p.deadline().is_none());
    }

    #[test]
    fn a_train_is_acknowledged_once_at_its_end() {
        let mut p = policy();
        for pn in 0..64 {
            p.on_packet(at(1), pn, true, Ecn::NotEct);
            assert!(!p.should_ack_now());
        }
        p.end_of_train();
        assert!(p.should_ack_now());
        assert_eq!(p.ranges().collect::<Vec<_>>(), vec![0..=63]);
    }

    #[test]
    fn a_lone_packet_is_acknowledged_at_its_deadline() {
        let mut p = policy();
        train(&mut p, at(0), 0..1);
        p.on_timeout(at(24_999));
        assert!(!p.should_ack_now());
        p.on_timeout(at(25_000));
        assert!(p.should_ack_now());
    }

    #[test]
    fn packets_that_elicit_nothing_are_never_due() {
        let mut p = policy();
        for pn in [0, 1, 2, 9, 4] {
            assert!(p.on_packet(at(0), pn, false, Ecn::NotEct));
            p.end_of_train();
        }
        assert!(!p.should_ack_now() && p.deadline().is_none());
        assert!(p.has_news(), "but a packet sent anyway may carry them");
    }

    #[test]
    fn gaps_reordering_and_marks_are_due_at_once() {
        let mut p = policy();
        train(&mut p, at(0), 0..2);
        p.on_ack_sent();
        p.on_packet(at(1), 3, true, Ecn::NotEct);
        assert!(p.should_ack_now(), "2 is missing");
        p.on_ack_sent();
        p.on_packet(at(2), 4, true, Ecn::NotEct);
        assert!(!p.should_ack_now(), "the gap was reported");
        p.on_packet(at(3), 2, true, Ecn::NotEct);
        assert!(p.should_ack_now(), "2 came late");
        p.on_ack_sent();
        p.on_packet(at(4), 5, true, Ecn::Ce);
        assert!(p.should_ack_now(), "congestion experienced");
    }

    #[test]
    fn a_gap_before_packets_that_elicit_nothing_counts() {
        let mut p = policy();
        p.on_packet(at(0), 0, true, Ecn::NotEct);
        p.on_packet(at(0), 5, false, Ecn::NotEct);
        assert!(!p.should_ack_now());
        p.on_packet(at(0), 6, true, Ecn::NotEct);
        assert!(p.should_ack_now());
    }

    #[test]
    fn handshake_spaces_acknowledge_every_packet() {
        let mut p = AckPolicy::immediate();
        train(&mut p, at(0), 0..1);
        assert!(p.should_ack_now());
    }

    #[test]
    fn duplicates_are_refused_and_not_counted() {
        let mut p = policy();
        assert!(!p.is_duplicate(7));
        assert!(p.on_packet(at(0), 7, true, Ecn::Ect0));
        assert!(p.is_duplicate(7));
        assert!(!p.on_packet(at(0), 7, true, Ecn::Ce));
        let counts = p.ecn_counts().expect("one mark");
        assert_eq!((counts.ect0, counts.ect1, counts.ce), (1, 0, 0));
        assert!(policy().ecn_counts().is_none());
    }

    #[test]
    fn the_delay_is_the_largest_packets() {
        let mut p = policy();
        p.on_packet(at(10), 5, true, Ecn::NotEct);
        p.on_packet(at(90), 3, true, Ecn::NotEct);
        assert_eq!(p.largest(), Some(5));
        assert_eq!(p.ack_delay(at(100)), Duration::from_micros(90));
    }

    #[test]
    fn what_the_peer_knows_is_not_reported_again() {
        let mut p = policy();
        for pn in [0, 1, 4, 5, 8, 9] {
            p.on_packet(at(0), pn, true, Ecn::NotEct);
        }
        p.on_ack_of_ack(5);
        assert_eq!(p.ranges().collect::<Vec<_>>(), vec![8..=9]);
        assert!(p.is_duplicate(1) && !p.is_duplicate(3));
        // One that comes late is news, and is reported with the range it joins.
        assert!(p.on_packet(at(1), 3, true, Ecn::NotEct));
        assert_eq!(p.ranges().collect::<Vec<_>>(), vec![8..=9, 3..=5]);
        p.on_ack_of_ack(9);
        assert_eq!(p.ranges().collect::<Vec<_>>(), vec![8..=9]);
        p.on_ack_of_ack(u64::MAX);
        assert_eq!(p.ranges().count(), 1);
    }

    #[test]
    fn unacknowledged_gaps_ask_for_an_acknowledgement_now_and_then() {
        let mut p = policy();
        let send = |p: &mut AckPolicy, pn| {
            p.on_packet(at(0), pn, true, Ecn::NotEct);
            p.on_ack_sent();
        };
        for pn in 0..100 {
            send(&mut p, pn);
        }
        assert!(!p.should_elicit(), "one range has nothing to shrink");
        send(&mut p, 200);
        assert!(p.should_elicit());
        p.on_elicited();
        assert!(!p.should_elicit());
        p.on_ack_of_ack(200);
        for pn in 201..300 {
            send(&mut p, pn);
        }
        assert!(!p.should_elicit());
    }

    #[test]
    fn the_frequency_can_change() {
        let mut p = policy();
        p.set_frequency(10, Duration::from_millis(5), 1);
        for pn in 0..9 {
            train(&mut p, at(0), pn..pn + 1);
            assert!(!p.should_ack_now());
        }
        assert_eq!(p.deadline(), Some(at(5_000)));
        train(&mut p, at(0), 9..10);
        assert!(p.should_ack_now());
    }

    /// The packets after which an acknowledgement was due, which was then sent.
    fn acknowledged_at(p: &mut AckPolicy, pns: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut out = Vec::new();
        for pn in pns {
            assert!(p.on_packet(at(0), pn, true, Ecn::NotEct));
            if p.should_ack_now() {
                out.push(pn);
                p.on_ack_sent();
            }
        }
        out
    }

    /// The tables of ACK frequency §6.2.1.
    #[test]
    fn the_drafts_examples_of_reordering() {
        let mut p = policy();
        p.set_frequency(1000, MAX_DELAY, 3);
        let order = [0, 1, 3, 4, 5, 8, 9, 10];
        assert_eq!(acknowledged_at(&mut p, order), [5, 9, 10]);
        let mut p = policy();
        p.set_frequency(1000, MAX_DELAY, 5);
        let order = [0, 1, 3, 5, 6, 7, 8, 9];
        assert_eq!(acknowledged_at(&mut p, order), [7, 9]);
    }

    #[test]
    fn a_packet_that_the_peer_gave_up_is_reported_at_once() {
        let mut p = policy();
        p.set_frequency(1000, MAX_DELAY, 3);
        assert_eq!(acknowledged_at(&mut p, [0, 2, 3, 4]), [4]);
        assert_eq!(acknowledged_at(&mut p, [1]), [1], "1 <= 4 - 3");
        // Inside the window, disorder says nothing yet.
        assert!(acknowledged_at(&mut p, [7, 6, 5]).is_empty());
    }

    #[test]
    fn disorder_can_be_ignored_but_never_forgotten() {
        let mut p = policy();
        p.set_frequency(1000, MAX_DELAY, 0);
        let gaps = limits::ACK_RANGES as u64 / 2 + 1;
        let odd = (0..gaps).map(|n| 2 * n);
        assert_eq!(acknowledged_at(&mut p, odd), [2 * (gaps - 1)]);
        assert_eq!(p.ranges().count() as u64, gaps);
    }

    #[test]
    fn only_the_first_of_a_run_of_marks_is_urgent() {
        let mut p = policy();
        p.set_frequency(1000, MAX_DELAY, 1);
        let mut due = |pn, ecn| {
            p.on_packet(at(0), pn, true, ecn);
            let due = p.should_ack_now();
            p.on_ack_sent();
            due
        };
        assert!(due(0, Ecn::Ce));
        assert!(!due(1, Ecn::Ce));
        assert!(!due(2, Ecn::Ect0));
        assert!(due(3, Ecn::Ce));
    }

    #[test]
    fn an_acknowledgement_can_be_asked_for() {
        let mut p = policy();
        p.set_frequency(1000, MAX_DELAY, 0);
        p.on_immediate_ack();
        p.on_packet(at(0), 0, true, Ecn::NotEct);
        assert!(p.should_ack_now());
    }
}
