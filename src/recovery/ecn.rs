//! Whether one path carries ECN marks both ways (RFC 9000 §13.4.2).
//!
//! The first packets are sent with ECT(0); what the peer counts decides. A path that strips or
//! bleaches the marks, or a peer that does not report them, turns marking off for good; a path
//! that reports congestion through them spares a loss.

use crate::base::Ecn;
use crate::wire::frame::EcnCounts;

/// Packets marked before the first result (RFC 9000 §A.4 suggests ten).
const TESTING_PACKETS: u64 = 10;
/// Initial, Handshake, Data.
const SPACES: usize = 3;
const NO_COUNTS: EcnCounts = EcnCounts {
    ect0: 0,
    ect1: 0,
    ce: 0,
};

/// The state of validation, named as in RFC 9000 §A.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Marking the first packets.
    Testing,
    /// Enough were marked; waiting for what the peer counts.
    Unknown,
    /// The path carries marks.
    Capable,
    /// It does not, or marking was never wanted: for good (RFC 9000 §13.4.2.2).
    Failed,
}

/// What an ACK frame's counts say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing new.
    Unchanged,
    /// That many more packets met congestion: a congestion event (RFC 9002 §7.1).
    Congestion(u64),
    /// Validation failed just now; packets are no longer marked.
    Failed,
}

/// ECN validation for one path.
#[derive(Clone, Debug)]
pub struct EcnValidator {
    state: State,
    /// Packets sent with ECT(0), by packet number space: the peer counts each space apart.
    marked: [u64; SPACES],
    /// How many were marked since validation began, in all spaces.
    tried: u64,
    /// Of those, how many were declared lost.
    lost: u64,
    /// The counts of the next ACK frame are where validation starts from, and say nothing yet.
    rebase: bool,
    /// The counts last accepted, by packet number space.
    counts: [EcnCounts; SPACES],
}

impl EcnValidator {
    /// Validation that starts now; off for good when not `enabled`.
    pub const fn new(enabled: bool) -> Self {
        Self {
            state: if enabled {
                State::Testing
            } else {
                State::Failed
            },
            marked: [0; SPACES],
            tried: 0,
            lost: 0,
            rebase: false,
            counts: [NO_COUNTS; SPACES],
        }
    }

    /// Validates anew, for another path (RFC 9000 §13.4.2): the peer goes on counting where it was.
    pub fn restart(&mut self, enabled: bool) {
        *self = Self {
            marked: self.marked,
            counts: self.counts,
            rebase: true,
            ..Self::new(enabled)
        };
    }

    /// The state.
    pub const fn state(&self) -> State {
        self.state
    }

    /// The mark for the packets that leave next.
    #[inline]
    pub const fn mark(&self) -> Ecn {
        match self.state {
            State::Testing | State::Capable => Ecn::Ect0,
            State::Unknown | State::Failed => Ecn::NotEct,
        }
    }

    /// `packets` of a packet number space (0 Initial, 1 Handshake, 2 Data) left with the mark that
    /// [`EcnValidator::mark`] gave.
    #[inline]
    pub fn on_sent(&mut self, space: usize, packets: u64, mark: Ecn) {
        if mark == Ecn::Ect0 {
            self.marked[space.min(SPACES - 1)] += packets;
            self.tried += packets;
            if self.state == State::Testing && self.tried >= TESTING_PACKETS {
                self.state = State::Unknown;
            }
        }
    }

    /// Takes the counts of an ACK frame of a packet number space (as in
    /// [`EcnValidator::on_sent`]) that newly acknowledged `newly_acked_ect0` packets sent with
    /// ECT(0). Call it only for frames that raised the largest acknowledged number: the counts of a
    /// reordered one are stale (RFC 9000 §13.4.2.1).
    #[inline]
    pub fn on_ack(
        &mut self,
        space: usize,
        newly_acked_ect0: u64,
        counts: Option<EcnCounts>,
    ) -> Outcome {
        let space = space.min(SPACES - 1);
        if self.state == State::Failed {
            return Outcome::Unchanged;
        }
        let Some(counts) = counts else {
            if newly_acked_ect0 > 0 {
                return self.fail();
            }
            return Outcome::Unchanged;
        };
        if std::mem::take(&mut self.rebase) {
            self.counts[space] = counts;
            return Outcome::Unchanged;
        }
        let old = self.counts[space];
        let (Some(ect0), Some(ce)) = (
            counts.ect0.checked_sub(old.ect0),
            counts.ce.checked_sub(old.ce),
        ) else {
            return self.fail();
        };
        // Marks may turn into CE, never vanish; we never send ECT(1); and the peer cannot count
        // more marks than were sent.
        let total = counts.ect0.saturating_add(counts.ce);
        if ect0.saturating_add(ce) < newly_acked_ect0
            || counts.ect1 > 0
            || total > self.marked[space]
        {
            return self.fail();
        }
        self.counts[space] = counts;
        if newly_acked_ect0 > 0 && self.state != State::Capable {
            self.state = State::Capable;
        }
        if ce > 0 {
            Outcome::Congestion(ce)
        } else {
            Outcome::Unchanged
        }
    }

    /// `ect0` packets that were sent with ECT(0) are lost. When all of the test's are, the marks
    /// may be why (RFC 9000 §13.4.2).
    pub fn on_lost(&mut self, ect0: u64) -> Outcome {
        self.lost = self.lost.saturating_add(ect0);
        if ect0 > 0 && self.state == State::Unknown && self.lost >= self.tried {
            return self.fail();
        }
        Outcome::Unchanged
    }

    fn fail(&mut self) -> Outcome {
        self.state = State::Failed;
        Outcome::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(ect0: u64, ect1: u64, ce: u64) -> Option<EcnCounts> {
        Some(EcnCounts { ect0, ect1, ce })
    }

    /// A validator that has marked ten packets.
    fn tested() -> EcnValidator {
        let mut v = EcnValidator::new(true);
        v.on_sent(2, 10, v.mark());
        v
    }

    #[test]
    fn marking_pauses_after_the_test_and_resumes_when_validated() {
        let mut v = EcnValidator::new(true);
        for _ in 0..10 {
            assert_eq!((v.state(), v.mark()), (State::Testing, Ecn::Ect0));
            v.on_sent(2, 1, v.mark());
        }
        assert_eq!((v.state(), v.mark()), (State::Unknown, Ecn::NotEct));
        v.on_sent(2, 5, v.mark());
        assert_eq!(v.on_ack(2, 3, counts(3, 0, 0)), Outcome::Unchanged);
        assert_eq!((v.state(), v.mark()), (State::Capable, Ecn::Ect0));
    }

    #[test]
    fn marks_may_become_ce_and_that_is_congestion() {
        let mut v = tested();
        assert_eq!(v.on_ack(2, 4, counts(2, 0, 2)), Outcome::Congestion(2));
        assert_eq!(v.on_ack(2, 1, counts(3, 0, 2)), Outcome::Unchanged);
        assert_eq!(v.on_ack(2, 1, counts(3, 0, 3)), Outcome::Congestion(1));
        assert_eq!(v.state(), State::Capable);
    }

    #[test]
    fn marks_that_vanish_fail() {
        assert_eq!(tested().on_ack(2, 1, None), Outcome::Failed);
        assert_eq!(tested().on_ack(2, 3, counts(1, 0, 1)), Outcome::Failed);
        assert_eq!(tested().on_ack(2, 1, counts(0, 1, 0)), Outcome::Failed);
        // More than were ever sent.
        assert_eq!(tested().on_ack(2, 1, counts(11, 0, 0)), Outcome::Failed);
        // Counts that shrink.
        let mut v = tested();
        v.on_ack(2, 4, counts(4, 0, 1));
        assert_eq!(v.on_ack(2, 1, counts(5, 0, 0)), Outcome::Failed);
        assert_eq!(v.mark(), Ecn::NotEct);
        assert_eq!(
            v.on_ack(2, 1, counts(5, 0, 1)),
            Outcome::Unchanged,
            "for good"
        );
    }

    #[test]
    fn acks_of_unmarked_packets_need_no_counts() {
        let mut v = tested();
        assert_eq!(v.on_ack(2, 0, None), Outcome::Unchanged);
        assert_eq!(v.state(), State::Unknown);
    }

    #[test]
    fn losing_the_whole_test_fails() {
        let mut v = tested();
        assert_eq!(v.on_lost(9), Outcome::Unchanged);
        assert_eq!(v.on_lost(0), Outcome::Unchanged);
        assert_eq!(v.on_lost(1), Outcome::Failed);
        // Not when one came through.
        let mut v = tested();
        v.on_ack(2, 1, counts(1, 0, 0));
        assert_eq!(v.on_lost(9), Outcome::Unchanged);
        assert_eq!(v.state(), State::Capable);
    }

    #[test]
    fn each_space_is_counted_apart() {
        let mut v = EcnValidator::new(true);
        v.on_sent(0, 2, Ecn::Ect0);
        v.on_sent(2, 8, Ecn::Ect0);
        assert_eq!(v.on_ack(0, 2, counts(2, 0, 0)), Outcome::Unchanged);
        assert_eq!(v.on_ack(2, 1, counts(1, 0, 0)), Outcome::Unchanged);
        assert_eq!(v.on_ack(0, 0, counts(3, 0, 0)), Outcome::Failed);
    }

    #[test]
    fn what_is_off_stays_off() {
        let mut v = EcnValidator::new(false);
        assert_eq!(v.mark(), Ecn::NotEct);
        assert_eq!(v.on_ack(2, 0, counts(9, 9, 9)), Outcome::Unchanged);
        assert_eq!(v.state(), State::Failed);
    }

    /// RFC 9000 §13.4.2: what the peer counted for another path is no fault of this one.
    #[test]
    fn a_new_path_starts_from_what_was_counted_before() {
        let mut v = tested();
        assert_eq!(v.on_ack(2, 8, counts(8, 0, 0)), Outcome::Unchanged);
        v.restart(true);
        assert_eq!((v.state(), v.mark()), (State::Testing, Ecn::Ect0));
        v.on_sent(2, 4, Ecn::Ect0);
        // Two from before that were marked on the way, and one of these.
        assert_eq!(v.on_ack(2, 1, counts(9, 0, 2)), Outcome::Unchanged);
        assert_eq!(v.on_ack(2, 3, counts(12, 0, 2)), Outcome::Unchanged);
        assert_eq!(v.state(), State::Capable);
        v.restart(true);
        v.on_sent(2, 10, Ecn::Ect0);
        assert_eq!(v.on_ack(2, 1, counts(12, 0, 2)), Outcome::Unchanged);
        assert_eq!(
            v.on_ack(2, 5, counts(12, 0, 2)),
            Outcome::Failed,
            "bleached"
        );
    }
}
