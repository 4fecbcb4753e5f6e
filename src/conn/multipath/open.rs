//! Paths come into use (multipath §3.1): a client opens them, a server follows.
//!
//! Nothing but what finds out whether a path works goes over it before the peer has answered there,
//! and to an address that is not proven no more than three times what came from it. A server keeps
//! nothing for a packet that does not authenticate.

use super::super::Connection;
use super::super::space::SentFrame;
use super::{Ahead, PathEvent};
use crate::base::{FourTuple, RecvMeta, SocketId, Timestamp, limits};
use crate::path::{Path, PathId, PathState, PathStatus, Spin};
use crate::wire::{Code, ConnectionId, Side, header};
use std::net::SocketAddr;

/// Why a client may not open a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenPathError {
    /// Servers wait for their clients (multipath §3).
    #[error("only a client opens paths")]
    Server,
    /// The connection is over.
    #[error("the connection is over")]
    Closed,
    /// One side does not take several paths.
    #[error("one side does not take several paths (TransportConfig::max_paths)")]
    NotNegotiated,
    /// It is too early.
    #[error("the handshake is not confirmed yet: wait for the event that says so")]
    NotConfirmed,
    /// The server forbids it (multipath §2.2).
    #[error("the server forbids paths to the address of its handshake (disable_active_migration)")]
    Disabled,
    /// Nothing can be sent there.
    #[error("nothing can be sent to {0}")]
    Remote(SocketAddr),
    /// Every identifier that both sides admit is in use; the server is told so. The lower
    /// [`max_paths`](super::super::TransportConfig::max_paths) of both is the limit.
    #[error(
        "as many paths are in use as both sides admit (TransportConfig::max_paths of either): \
         close one, or try again in a few round trips"
    )]
    NoPathId,
    /// The server has issued no connection ID for the path yet; it is told so.
    #[error("the server has issued no connection ID for the path: try again in a few round trips")]
    NoConnectionId,
    /// The address is known from the server's word alone, and others like it were tried just now.
    #[error("too many paths were tried to addresses of the server's naming: try {0} again later")]
    TooSoon(SocketAddr),
}

/// Where a datagram belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum TakenUp {
    /// To the path that is now in hand.
    Known,
    /// To one that it began: call [`Connection::settle_new_path`] once it was handled.
    New(PathId),
    /// Nowhere.
    None,
}

impl Connection {
    /// Opens a path of a client from `tuple.local`, the address of `socket`, to the server at
    /// `tuple.remote`. [`PathEvent::Validated`] or [`PathEvent::Abandoned`] tells the outcome. The
    /// addresses may be those of another path.
    ///
    /// # Errors
    /// [`OpenPathError`]; nothing was opened then.
    pub fn open_path(
        &mut self,
        now: Timestamp,
        socket: SocketId,
        tuple: FourTuple,
        status: PathStatus,
    ) -> Result<PathId, OpenPathError> {
        self.may_open(tuple.remote)?;
        let named = self.try_named(now, tuple.remote)?;
        let ahead = self
            .take_ahead()
            .inspect_err(|_| self.give_back_try(named))?;
        let id = ahead.id;
        self.begin_path(now, socket, tuple, ahead);
        self.on_path_opened();
        let validation = self.challenge_named(now, named);
        let path = self.paths.current_mut();
        path.validation = validation;
        path.status.set(status);
        self.hook_added(id);
        Ok(id)
    }

    fn may_open(&self, remote: SocketAddr) -> Result<(), OpenPathError> {
        let m = self.multipath.as_deref();
        if self.side == Side::Server {
            Err(OpenPathError::Server)
        } else if self.state.is_closed() {
            Err(OpenPathError::Closed)
        } else if !self.state.is_confirmed() {
            Err(OpenPathError::NotConfirmed)
        } else if m.is_none() {
            Err(OpenPathError::NotNegotiated)
        } else if self.peer_params.disable_active_migration
            && m.is_some_and(|m| m.first_remote == remote)
        {
            Err(OpenPathError::Disabled)
        } else if remote.port() == 0 || remote.ip().is_unspecified() {
            Err(OpenPathError::Remote(remote))
        } else {
            Ok(())
        }
    }

    /// Takes the first identifier that is not in use, if both sides have issued connection IDs for
    /// it; else the peer is told what lacks (multipath §3.2.1).
    fn take_ahead(&mut self) -> Result<Ahead, OpenPathError> {
        let m = self.multipath.as_deref_mut();
        let m = m
            .filter(|_| self.paths.has_room())
            .ok_or(OpenPathError::NotNegotiated)?;
        let max = m.limits.usable_max();
        let first = m.ahead.iter().position(|a| a.gone_at.is_none());
        let Some(at) = first.filter(|at| m.ahead.get(*at).is_some_and(|a| a.id <= max)) else {
            m.paths_blocked |= max == m.limits.peer_max();
            return Err(OpenPathError::NoPathId);
        };
        let ready = m.ahead.get(at).is_some_and(|a| {
            let issued = a.local_cids.iter().next().is_some();
            issued && a.remote_cids.is_usable()
        });
        if !ready {
            m.cids_blocked = m.ahead.get(at).map(|a| a.id);
            return Err(OpenPathError::NoConnectionId);
        }
        Ok(m.ahead.remove(at))
    }

    /// Adds a path over `tuple`, for which there is room, and takes it up.
    fn begin_path(&mut self, now: Timestamp, socket: SocketId, tuple: FourTuple, ahead: Ahead) {
        let Ahead {
            id,
            local_cids,
            mut remote_cids,
            status,
            ..
        } = ahead;
        remote_cids.start_use();
        let mut path = Path::new(id, socket, tuple, &self.config.path(), now);
        path.state = PathState::Validating;
        path.local_cids = local_cids;
        path.remote_cids = remote_cids;
        path.status = status;
        path.skip_packet_number(&mut self.rng);
        path.spin = Spin::new(self.config.spin_bit, &mut self.rng);
        path.set_mtu_ceiling(self.peer_params.max_udp_payload_size.into());
        path.acks.set_frequency_of(&self.paths.current().acks);
        self.paths.insert(path);
        self.watch_for_failure();
    }

    /// Takes up the path that a datagram belongs to. Those of a train mostly say so by one and the
    /// same connection ID: `run` is that of the datagram before, and its path.
    #[inline]
    pub(in super::super) fn take_up_in_run(
        &mut self,
        now: Timestamp,
        meta: &RecvMeta,
        datagram: &[u8],
        run: &mut Option<(ConnectionId, PathId)>,
    ) -> TakenUp {
        let short = datagram.first().is_some_and(|b| b & header::FORM_LONG == 0);
        let dcid = header::dcid(datagram, self.ids.local_scid.len()).filter(|_| short);
        let hand = self.paths.current().id;
        let is_next = |(cid, path): &(ConnectionId, PathId)| {
            *path == hand && dcid.is_some_and(|dcid| cid.is(dcid))
        };
        if run.as_ref().is_some_and(is_next) {
            return TakenUp::Known;
        }
        let taken_up = self.take_up_for(now, meta, datagram);
        let known = taken_up == TakenUp::Known && !self.state.is_closed();
        let dcid = dcid.filter(|_| known).and_then(ConnectionId::new);
        *run = dcid.map(|dcid| (dcid, self.paths.current().id));
        taken_up
    }

    /// Takes up the path that a datagram belongs to; counts it if there is none.
    fn take_up_for(&mut self, now: Timestamp, meta: &RecvMeta, datagram: &[u8]) -> TakenUp {
        if self.state.is_closed() {
            let from = |p: &&Path<SentFrame>| p.tuple.remote == meta.path.remote;
            let there = self.paths.iter().find(from).map(|p| p.id);
            if let Some(id) = there {
                self.paths.select(id);
            }
            return TakenUp::Known;
        }
        let taken_up = self.take_up(now, meta, datagram);
        if taken_up == TakenUp::None {
            self.stats.packets_dropped += 1;
            self.on_undecryptable(now, meta, datagram);
        }
        taken_up
    }

    /// Takes up the path that a datagram came by, as its destination says; from other addresses it
    /// is that path's migration (multipath §3.1.2), and connection IDs rotate within it (§3.2.2).
    fn take_up(&mut self, now: Timestamp, meta: &RecvMeta, datagram: &[u8]) -> TakenUp {
        if datagram.first().is_some_and(|b| b & header::FORM_LONG != 0) {
            // What is left of the handshake, or a reset in its form. The numbers of early data are
            // the first path's: where that is forgotten, nothing tells which came before.
            return match self.paths.select(PathId::ZERO) {
                true => TakenUp::Known,
                false => TakenUp::None,
            };
        }
        let dcid = header::dcid(datagram, self.ids.local_scid.len());
        let Some(dcid) = dcid.and_then(ConnectionId::new) else {
            return TakenUp::None;
        };
        if self.paths.current().local_cids.contains(&dcid) {
            return TakenUp::Known;
        }
        let open = self.paths.others().find(|p| p.local_cids.contains(&dcid));
        if let Some(id) = open.map(|p| p.id) {
            self.paths.select(id);
            return TakenUp::Known;
        }
        match self.follow_to_new_path(now, meta, &dcid) {
            Some(id) => TakenUp::New(id),
            None => TakenUp::None,
        }
    }

    /// A server's client sends on a path that is not in use yet. The path is there for as long as
    /// the datagram is handled, and stays if a packet of it authenticates.
    fn follow_to_new_path(
        &mut self,
        now: Timestamp,
        meta: &RecvMeta,
        dcid: &ConnectionId,
    ) -> Option<PathId> {
        let present = self.main_path().tuple.remote;
        let admitted = self.side == Side::Server
            && self.state.is_confirmed()
            && self.paths.has_room()
            && self.config.port_guard.admits(present, meta.path.remote);
        let m = self.multipath.as_deref_mut().filter(|_| admitted)?;
        let is_for = |a: &Ahead| a.gone_at.is_none() && a.local_cids.contains(dcid);
        let at = m.ahead.iter().position(is_for)?;
        let ahead = m.ahead.remove(at);
        let id = ahead.id;
        self.begin_path(now, meta.socket, meta.path, ahead);
        // RFC 9000 §8.1: nothing but what came from the address counts for it; where the address
        // is proven already, whether it takes full datagrams is asked all the same.
        let proven = self.paths.others().any(|p| {
            !p.is_abandoned() && p.tuple.remote == meta.path.remote && p.validation.is_validated()
        });
        self.paths.current_mut().validation = self.challenge(now, (!proven).then_some(0));
        Some(id)
    }

    /// The datagram that began a path was handled: if nothing of it authenticated, the path is
    /// taken back.
    pub(in super::super) fn settle_new_path(&mut self, id: PathId) {
        let Some(path) = self.paths.get(id) else {
            return;
        };
        if path.acks.largest().is_some() {
            if !path.is_abandoned() {
                self.on_path_opened();
                self.push_path_event(PathEvent::Opened(id));
            }
            return;
        }
        if let (Some(path), Some(m)) = (self.paths.remove(id), self.multipath.as_deref_mut()) {
            let mut ahead = Ahead {
                id,
                local_cids: path.local_cids,
                remote_cids: path.remote_cids,
                status: path.status,
                gone_at: None,
            };
            ahead.remote_cids.end_use();
            let at = m.ahead.iter().position(|a| a.id > id);
            m.ahead.insert(at.unwrap_or(m.ahead.len()), ahead);
        }
    }

    /// There is a path again, if there was none left.
    pub(super) fn on_path_opened(&mut self) {
        self.stats.paths_opened += 1;
        if let Some(m) = self.multipath.as_deref_mut() {
            m.last_chance = None;
        }
    }

    /// The path in hand answered, in full size: it is open now (multipath §3.1).
    pub(in super::super) fn on_new_path_validated(&mut self) {
        let path = self.paths.current_mut();
        path.state = PathState::Open;
        let (id, tuple) = (path.id, path.tuple);
        if let Some(m) = self.multipath.as_deref_mut() {
            m.last_asked = 0;
            m.choice.selector.scheduler().path_added(id);
        }
        self.push_path_event(PathEvent::Validated(id));
        self.note_path_up(tuple);
        self.move_from_suspects();
    }

    /// The path in hand, which is new, did not answer: it is not to be used, and its identifier
    /// never again (multipath §3.1). While no other works it is asked again: the peer may be about
    /// to say that it closed the others, for it was answered here.
    pub(in super::super) fn on_new_path_failed(&mut self, now: Timestamp) {
        let works =
            |p: &Path<SentFrame>| p.state == PathState::Open && p.can_send() && !p.is_suspect();
        if self.paths.others().any(works) {
            if let Some(m) = self.multipath.as_deref_mut() {
                m.last_asked = 0;
            }
        } else if self.paths.current().can_send() && self.may_ask_last() {
            let start = self.challenge_start(None);
            self.paths.current_mut().validation.again(now, &start);
            return;
        }
        let id = self.paths.current().id;
        self.abandon_path(now, id, Code::PATH_UNSTABLE_OR_POOR, false);
    }

    /// Whether a path is worth asking once more while no other works, for with the last one the
    /// connection ends.
    fn may_ask_last(&mut self) -> bool {
        let Some(m) = self.multipath.as_deref_mut() else {
            return false;
        };
        m.last_asked = m.last_asked.saturating_add(1);
        m.last_asked <= limits::LAST_PATH_ASKED
    }
}
