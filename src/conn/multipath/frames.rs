//! What the frames of multipath §4 do when they arrive, on whatever path.
//!
//! A path identifier above our limit is a PROTOCOL_VIOLATION; a path that was abandoned and
//! forgotten is one that nothing is known of, and what is said of it is ignored.

use super::super::Connection;
use super::super::input::Packet;
use super::PathEvent;
use super::abandon::beyond_limit;
use crate::base::Timestamp;
use crate::path::{PathId, PathStatus};
use crate::wire::frame::{Ack, NewConnectionId, PathFrame};
use crate::wire::{ConnectionId, Extensions, TransportError};

impl Connection {
    /// PATH_ACK, or an ACK in a 1-RTT packet, which is about path 0 (multipath §2.3).
    pub(in super::super) fn on_path_ack(
        &mut self,
        now: Timestamp,
        packet: &Packet<'_>,
        id: PathId,
        ack: &Ack<'_>,
    ) -> Result<(), TransportError> {
        let Some(m) = self.multipath.as_deref_mut() else {
            return Err(Extensions::unknown(crate::wire::frame::ty::PATH_ACK));
        };
        if id > m.limits.local_max() {
            return Err(beyond_limit());
        }
        let via = self.paths.current().id;
        if id == via {
            return self.on_ack(now, packet, ack);
        }
        if !self.paths.select(id) {
            return match m.ahead(id) {
                Some(_) => Err(TransportError::protocol_violation(
                    "PATH_ACK of a path that was never used",
                )),
                None => Ok(()),
            };
        }
        self.acked_elsewhere = true;
        let out = self.on_ack(now, packet, ack);
        self.acked_elsewhere = false;
        self.paths.select(via);
        out
    }

    /// Every other frame; what is said of a path beyond our limit is a violation (multipath §4,
    /// §4.7).
    pub(in super::super) fn on_path_frame(
        &mut self,
        now: Timestamp,
        used: &[u8],
        frame: &PathFrame,
    ) -> Result<(), TransportError> {
        let Some(m) = self.multipath.as_deref_mut() else {
            return Err(Extensions::unknown(frame.ty()));
        };
        let within = frame.path() <= m.limits.local_max();
        if !within && !matches!(frame, PathFrame::MaxPathId(_)) {
            return Err(beyond_limit());
        }
        match *frame {
            PathFrame::Abandon { path, error } => self.on_path_abandon(now, path, error),
            PathFrame::Status { path, status, seq } => self.on_path_status(path, status, seq),
            PathFrame::NewConnectionId { path, new } => {
                return self.on_path_new_connection_id(path, &new);
            }
            PathFrame::RetireConnectionId { path, seq } => {
                return self.on_path_retire_connection_id(path, seq, used);
            }
            PathFrame::MaxPathId(max) => {
                if !m.limits.on_max_path_id(max) {
                    return Err(TransportError::protocol_violation(
                        "MAX_PATH_ID below initial_max_path_id",
                    ));
                }
            }
            // Multipath §4.7: of an older limit it is ignored.
            PathFrame::PathsBlocked(max) if max < m.limits.local_max() => {}
            PathFrame::PathsBlocked(max) => self.push_path_event(PathEvent::Blocked(max)),
            PathFrame::CidsBlocked { path, next_seq } => {
                return self.on_path_cids_blocked(path, next_seq);
            }
        }
        Ok(())
    }

    fn on_path_status(&mut self, id: PathId, status: PathStatus, seq: u64) {
        let open = self.paths.get_mut(id).filter(|p| !p.is_abandoned());
        let changed = match (open, self.multipath.as_deref_mut()) {
            (Some(path), _) => path.status.on_frame(status, seq),
            (None, Some(m)) => m.ahead(id).is_some_and(|a| a.status.on_frame(status, seq)),
            _ => false,
        };
        if changed {
            self.push_path_event(PathEvent::Status(id, status));
        }
    }

    /// PATH_NEW_CONNECTION_ID, or NEW_CONNECTION_ID, which is about path 0 (multipath §4.4).
    fn on_path_new_connection_id(
        &mut self,
        id: PathId,
        f: &NewConnectionId,
    ) -> Result<(), TransportError> {
        let Some(m) = self.multipath.as_deref_mut() else {
            return Ok(());
        };
        // RFC 9000 §5.1: not more than once on the same connection, whatever the path.
        let known = self.paths.iter().map(|p| (p.id, &p.remote_cids));
        let ahead = m.ahead.iter().map(|a| (a.id, &a.remote_cids));
        if known
            .chain(ahead)
            .any(|(other, cids)| other != id && cids.contains(&f.cid))
        {
            return Err(TransportError::protocol_violation(
                "a connection ID is issued twice",
            ));
        }
        let remote = match self.paths.get_mut(id) {
            Some(path) => Some(&mut path.remote_cids)
                .filter(|_| !matches!(path.state, crate::path::PathState::Abandoned(_))),
            None => m.ahead(id).map(|a| &mut a.remote_cids),
        };
        remote.map_or(Ok(()), |remote| {
            remote.on_new(f.seq, f.retire_prior_to, f.cid, f.reset_token)
        })
    }

    /// PATH_RETIRE_CONNECTION_ID, or RETIRE_CONNECTION_ID, which is about path 0 (multipath §4.5).
    fn on_path_retire_connection_id(
        &mut self,
        id: PathId,
        seq: u64,
        used: &[u8],
    ) -> Result<(), TransportError> {
        let used = ConnectionId::new(used).unwrap_or_default();
        let local = match (self.paths.get_mut(id), self.multipath.as_deref_mut()) {
            (Some(path), _) if path.is_abandoned() => None,
            (Some(path), _) => Some(&mut path.local_cids),
            (None, Some(m)) => m.ahead(id).map(|a| &mut a.local_cids),
            _ => None,
        };
        local.map_or(Ok(()), |local| local.on_retire(seq, &used))
    }

    /// PATH_CIDS_BLOCKED (multipath §4.7): as many connection IDs as the peer takes are issued
    /// anyway.
    fn on_path_cids_blocked(&mut self, id: PathId, next_seq: u64) -> Result<(), TransportError> {
        let next = match (self.paths.get(id), self.multipath.as_deref_mut()) {
            (Some(path), _) => Some(path.local_cids.next_seq()),
            (None, Some(m)) => m.ahead(id).map(|a| a.local_cids.next_seq()),
            _ => None,
        };
        if next.is_some_and(|next| next_seq > next) {
            return Err(TransportError::protocol_violation(
                "PATH_CIDS_BLOCKED is ahead of what was issued",
            ));
        }
        Ok(())
    }
}
