//! Paths that may have failed: what the detector of each is told, and what follows.
//!
//! Schedulers pass such a path over while another works, what it has in flight went elsewhere with
//! its first probe timeout (`send`), and it is asked again and again until an acknowledgement
//! restores it or its time is over. The last path that works is never given up.

use super::super::{Connection, SentFrame};
use super::PathEvent;
use crate::base::Timestamp;
use crate::path::failure::{FailureDetector, Transition};
use crate::path::{Path, PathState};
use crate::wire::Code;

impl Connection {
    /// Begins to watch the path in hand.
    pub(super) fn watch_for_failure(&mut self) {
        let config = self.config.multipath.failure;
        let path = self.paths.current_mut();
        let detector = FailureDetector::new(config, path.rtt.smoothed());
        path.failure = Some(Box::new(detector));
    }

    /// Packets of the path in hand were acknowledged, after a probe timeout if it `answers`. While
    /// it was silent others may have been no better, and taken what they carry nowhere: that comes
    /// here now, for their own probe timeouts may be far.
    pub(in super::super) fn note_alive(&mut self, now: Timestamp, answers: bool) {
        if answers && !self.paths.is_single() {
            self.move_from_suspects();
        }
        let path = self.paths.current_mut();
        let Some(detector) = path.failure.as_deref_mut() else {
            return;
        };
        let change = detector.on_acked(now, path.rtt.smoothed());
        if path.sent.ack_eliciting_in_flight() == 0 {
            detector.nothing_outstanding();
        }
        self.on_failure_change(now, change);
    }

    /// A probe timeout of the path in hand fired.
    pub(in super::super) fn note_silent(&mut self, now: Timestamp) {
        let path = self.paths.current_mut();
        if path.is_abandoned() {
            return;
        }
        let change = path.failure.as_deref_mut().and_then(|d| d.on_pto(now));
        self.on_failure_change(now, change);
    }

    /// Does what is due at `now` for the path in hand.
    pub(in super::super) fn check_for_failure(&mut self, now: Timestamp) {
        let works = |p: &Path<SentFrame>| p.state == PathState::Open && !p.is_suspect();
        let others = self.paths.others().any(works);
        let path = self.paths.current_mut();
        let Some(detector) = path.failure.as_deref_mut() else {
            return;
        };
        if path.state != PathState::Open {
            return;
        }
        if detector.take_probe(now) {
            path.owed_probes = path.owed_probes.max(1);
        }
        if !others && detector.is_failed() {
            // Something is to be left when the network comes back.
            return detector.postpone(now);
        }
        let change = detector.poll(now);
        self.on_failure_change(now, change);
    }

    /// The path in hand works: what others that do not have in flight comes here, where it could go
    /// nowhere before.
    pub(super) fn move_from_suspects(&mut self) {
        let hand = self.paths.current().id;
        for id in self.paths.ids() {
            let suspect = |p: &Path<SentFrame>| p.state == PathState::Open && p.is_suspect();
            if self.paths.get(id).is_some_and(suspect) && self.paths.select(id) {
                self.move_in_flight();
            }
        }
        self.paths.select(hand);
    }

    /// The path in hand does not answer. It may have been asked by a PING, which moves nowhere:
    /// a keep-alive serves by any path that works.
    fn ask_another(&mut self) {
        let hand = self.paths.current().id;
        let works = |p: &Path<SentFrame>| p.state == PathState::Open && !p.is_suspect();
        let others = self.paths.iter_mut().filter(|p| p.id != hand && works(p));
        if let Some(path) = others
            .filter(|p| p.can_send())
            .min_by_key(|p| p.rtt.smoothed())
        {
            path.ping = true;
        }
    }

    fn on_failure_change(&mut self, now: Timestamp, change: Option<Transition>) {
        let id = self.paths.current().id;
        match change {
            None => {}
            Some(Transition::PotentiallyFailed) => {
                self.paths.current_mut().counters.failures += 1;
                self.push_path_event(PathEvent::PotentiallyFailed(id));
                self.hook_state(now);
                self.stats.path_failures += 1;
                // Before its first probe timeout, where that is longer than the patience.
                self.move_in_flight();
                self.ask_another();
            }
            Some(Transition::Recovered) => {
                self.push_path_event(PathEvent::Recovered(id));
                self.move_from_suspects();
            }
            Some(Transition::Abandon) => {
                self.abandon_path(now, id, Code::PATH_UNSTABLE_OR_POOR, false);
            }
        }
    }
}

/// When a path's failure detector is due.
#[inline]
pub(in super::super) fn failure_deadline(path: &Path<SentFrame>) -> Option<Timestamp> {
    let detector = path.failure.as_deref()?;
    let due = detector.deadline().into_iter();
    let due = due.chain(detector.probe_deadline()).min();
    due.filter(|_| path.state == PathState::Open)
}
