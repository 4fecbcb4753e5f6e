//! Paths go out of use (multipath §3.4).
//!
//! Either side abandons a path, the other answers in kind, and from then on neither sends there.
//! What is still on its way is taken and acknowledged over other paths for three PTO; then the path
//! is forgotten, and what was not acknowledged of it is sent again. A path whose peer has not
//! answered is kept, for its packets would otherwise be answered with stateless resets.

use super::super::Connection;
use super::super::error::ConnectionError;
use super::super::state::CloseFrame;
use super::PathEvent;
use crate::base::Timestamp;
use crate::path::{PathId, PathState, Probes};
use crate::wire::{Code, TransportError};

/// Why a path cannot be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClosePathError {
    /// The connection is over.
    #[error("the connection is over")]
    Closed,
    /// One side does not take several paths: close the connection instead.
    #[error("one side does not take several paths: close the connection instead")]
    NotNegotiated,
    /// There is no such path, or not any more.
    #[error("there is no such path, or not any more")]
    Unknown,
}

impl Connection {
    /// Abandons a path: nothing is sent there any more, and what was on its way there is sent again
    /// over others where it does not arrive. `error` is one of the codes of multipath §4.2.1, or
    /// NO_ERROR. Abandoning the last path closes the connection with that code.
    ///
    /// # Errors
    /// [`ClosePathError`].
    pub fn close_path(
        &mut self,
        now: Timestamp,
        id: PathId,
        error: Code,
    ) -> Result<(), ClosePathError> {
        if self.state.is_closed() {
            return Err(ClosePathError::Closed);
        }
        if self.multipath.is_none() {
            return Err(ClosePathError::NotNegotiated);
        }
        if self.paths.get(id).is_none_or(|p| p.is_abandoned()) {
            return Err(ClosePathError::Unknown);
        }
        if self.is_last(id) {
            self.end_without_path(now, error);
        } else {
            self.abandon_path(now, id, error, false);
        }
        Ok(())
    }

    /// Whether every other path is abandoned.
    pub(super) fn is_last(&self, id: PathId) -> bool {
        !self.paths.iter().any(|p| p.id != id && !p.is_abandoned())
    }

    /// Stops using a path, and says so.
    pub(in super::super) fn abandon_path(
        &mut self,
        now: Timestamp,
        id: PathId,
        error: Code,
        by_peer: bool,
    ) {
        let (last, pto) = (self.is_last(id), self.largest_pto());
        let Some(m) = self.multipath.as_deref_mut() else {
            return;
        };
        let Some(path) = self.paths.get_mut(id).filter(|p| !p.is_abandoned()) else {
            return;
        };
        path.state = PathState::Abandoned(by_peer.then(|| now + pto * 3));
        path.validation.stop();
        path.probes = Probes::default();
        path.former = None;
        path.owed_probes = 0;
        path.ping = false;
        path.paced_until = None;
        path.acks_away = true;
        path.sent.rest();
        path.local_cids.abandon();
        if last {
            // Its connection ID serves to say goodbye (multipath §3.4), if no other path comes.
            m.last_chance = Some((now + pto, error));
        } else {
            path.remote_cids.abandon();
        }
        let tuple = path.tuple;
        m.on_abandoned(id, error);
        self.stats.paths_abandoned += 1;
        m.choice.selector.scheduler().path_removed(id);
        self.note_path_gone(now, tuple);
        self.restart_foreign_rtts(id);
        self.push_path_event(PathEvent::Abandoned { id, error, by_peer });
    }

    /// Acknowledgements no longer come over that path: what it was good for in the smallest RTTs of
    /// others is past (multipath §5.4).
    fn restart_foreign_rtts(&mut self, id: PathId) {
        for path in self.paths.iter_mut() {
            if path.id != id && !path.has_own_sample() {
                path.rtt.restart_min();
            }
        }
    }

    /// PATH_ABANDON came (multipath §3.4): it is answered in kind.
    pub(super) fn on_path_abandon(&mut self, now: Timestamp, id: PathId, error: Code) {
        let forget_at = now + self.largest_pto() * 3;
        match self.paths.get_mut(id).map(|p| &mut p.state) {
            // It answers ours.
            Some(PathState::Abandoned(until)) => {
                until.get_or_insert(forget_at);
            }
            Some(_) => self.abandon_path(now, id, error, true),
            None => {
                let Some(m) = self.multipath.as_deref_mut() else {
                    return;
                };
                if let Some(ahead) = m.ahead(id) {
                    ahead.gone_at = Some(forget_at);
                    ahead.local_cids.abandon();
                    ahead.remote_cids.abandon();
                    m.on_abandoned(id, error);
                }
            }
        }
    }

    /// Forgets a path that was abandoned: what it had in flight is lost (multipath §3.4.3).
    pub(in super::super) fn forget_path(&mut self, now: Timestamp, id: PathId) {
        if self.paths.is_single() || !self.paths.select(id) {
            return;
        }
        self.resend_in_flight(now);
        self.keep_past(id);
        if let (Some(path), Some(m)) = (self.paths.remove(id), self.multipath.as_deref_mut()) {
            m.on_forgotten(path.local_cids);
        }
    }

    /// Whether the path in hand was abandoned and its time is over.
    pub(in super::super) fn is_path_over(&self, now: Timestamp) -> bool {
        let state = self.paths.current().state;
        matches!(state, PathState::Abandoned(Some(until)) if until <= now)
    }

    /// No path is left: the connection ends with the code that the last one was abandoned with.
    pub(super) fn end_without_path(&mut self, now: Timestamp, code: Code) {
        let frame = CloseFrame {
            code,
            frame_type: Some(0),
            reason: b"the last path was abandoned".to_vec(),
        };
        if self.state.move_to_closing(frame) {
            self.events.push_closed(ConnectionError::NoPath(code));
            self.start_drain_timer(now);
        }
    }
}

/// A path identifier above what we announced (multipath §4).
#[cold]
pub(super) fn beyond_limit() -> TransportError {
    TransportError::protocol_violation("a path identifier above the limit")
}
