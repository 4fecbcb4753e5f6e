//! Paths that a client opens and gives up by itself: one for each usable pair of an address of this
//! host and one of the peer's, up to a number.
//!
//! The driver says which addresses there are and by which sockets they are left
//! ([`Connection::set_local_addresses`]); `crate::path::candidates` says which pairs are worth a
//! path. What does not answer is tried again later and later. A path from an address that is gone
//! is abandoned, as long as another works.

use super::super::{Connection, Event, SentFrame};
use super::{OpenPathError, PathEvent};
use crate::base::{FourTuple, LocalAddress, SocketId, Timestamp, limits};
use crate::path::candidates::{Choice, Failures, candidates};
use crate::path::{Path, PathId, PathState, PathStatus};
use crate::wire::Code;
use std::net::SocketAddr;
use std::time::Duration;

/// How soon is asked again after the server had no room for a path.
const RETRY: Duration = Duration::from_millis(100);

/// An address of this host, and the socket by which packets leave from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalSocket {
    /// The socket.
    pub socket: SocketId,
    /// Its port.
    pub port: u16,
    /// The address.
    pub address: LocalAddress,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Automatic {
    /// Paths wanted at once.
    max: usize,
    locals: Vec<LocalSocket>,
    failures: Failures,
    /// When to look for paths next.
    due: Option<Timestamp>,
}

impl Automatic {
    pub(super) fn new(max: u32) -> Self {
        Self {
            max: (max as usize).min(limits::PATHS),
            locals: Vec::new(),
            failures: Failures::default(),
            due: None,
        }
    }

    /// The best pairs that no path has yet.
    fn wanted(
        &self,
        now: Timestamp,
        present: &[FourTuple],
        remotes: &[SocketAddr],
    ) -> Vec<FourTuple> {
        let locals: Vec<_> = self.locals.iter().map(|l| l.address).collect();
        let ports: Vec<_> = self.locals.iter().map(|l| l.port).collect();
        let choice = Choice {
            locals: &locals,
            ports: &ports,
            local_port: 0,
            remotes,
            present,
            failures: &self.failures,
            max: self.max.saturating_sub(present.len()),
        };
        candidates(now, &choice)
    }

    fn socket_of(&self, local: SocketAddr) -> Option<SocketId> {
        let is = |l: &&LocalSocket| l.port == local.port() && l.address.ip == local.ip();
        self.locals.iter().find(is).map(|l| l.socket)
    }

    /// Whether a path can't go on because its address is gone.
    fn is_gone(&self, path: &Path<SentFrame>) -> bool {
        let ip = path.tuple.local.ip();
        !self.locals.is_empty()
            && !ip.is_unspecified()
            && !self.locals.iter().any(|l| l.address.ip == ip)
    }
}

impl Connection {
    /// Says which addresses this host has now, each with a socket. Where the configuration asks for
    /// automatic paths (`MultipathConfig::auto_paths`), paths are opened from those that are new,
    /// and abandoned where their address is not among them any more, the next time that the
    /// connection is polled. False where that changes nothing or paths are not automatic.
    pub fn set_local_addresses(&mut self, now: Timestamp, locals: &[LocalSocket]) -> bool {
        let m = self.multipath.as_deref_mut();
        let Some(auto) = m.and_then(|m| m.auto.as_deref_mut()) else {
            return false;
        };
        let locals = locals.get(..limits::INTERFACES).unwrap_or(locals);
        if auto.locals == locals {
            return false;
        }
        for local in locals {
            if !auto.locals.contains(local) {
                auto.failures.clear_local(local.address.ip);
            }
        }
        auto.locals = locals.to_vec();
        auto.due = Some(now);
        true
    }

    /// How many paths a client wants to have by itself; `None` where they are not automatic.
    pub fn auto_paths(&self) -> Option<usize> {
        let auto = self.multipath.as_deref()?.auto.as_deref()?;
        Some(auto.max)
    }

    /// Looks for paths with the next poll.
    pub(super) fn consider_paths(&mut self) {
        let m = self.multipath.as_deref_mut();
        if let Some(auto) = m.and_then(|m| m.auto.as_deref_mut()) {
            auto.due = Some(Timestamp::ZERO);
        }
    }

    /// When paths are to be looked for.
    pub(in super::super) fn auto_deadline(&self) -> Option<Timestamp> {
        let auto = self.multipath.as_deref()?.auto.as_deref()?;
        auto.due.filter(|_| self.state.is_confirmed())
    }

    /// A path came up.
    pub(super) fn note_path_up(&mut self, tuple: FourTuple) {
        let m = self.multipath.as_deref_mut();
        if let Some(auto) = m.and_then(|m| m.auto.as_deref_mut()) {
            auto.failures.clear(tuple);
        }
        self.consider_paths();
        self.count_paths();
    }

    /// A path did not come up, or went: it is not tried again at once.
    pub(super) fn note_path_gone(&mut self, now: Timestamp, tuple: FourTuple) {
        let m = self.multipath.as_deref_mut();
        if let Some(auto) = m.and_then(|m| m.auto.as_deref_mut()) {
            auto.failures.note(now, tuple);
        }
        self.consider_paths();
        self.count_paths();
    }

    /// Opens and abandons paths, if that is due.
    pub(in super::super) fn settle_paths(&mut self, now: Timestamp) {
        if self.auto_deadline().is_none_or(|due| now < due) {
            return;
        }
        let Some(m) = self.multipath.as_deref_mut() else {
            return;
        };
        let Some(mut auto) = m.auto.take() else {
            return;
        };
        auto.due = None;
        let hand = self.paths.current().id;
        self.abandon_gone(now, &auto);
        let retry = self.open_wanted(now, &mut auto);
        self.paths.select(hand);
        let next = auto.failures.next(now).into_iter().chain(retry);
        auto.due = next.min();
        if let Some(m) = self.multipath.as_deref_mut() {
            m.auto = Some(auto);
        }
    }

    fn abandon_gone(&mut self, now: Timestamp, auto: &Automatic) {
        for id in self.paths.ids() {
            let works =
                |p: &Path<SentFrame>| p.id != id && p.state == PathState::Open && !auto.is_gone(p);
            let gone = |p: &Path<SentFrame>| !p.is_abandoned() && auto.is_gone(p);
            if self.paths.get(id).is_some_and(gone) && self.paths.iter().any(works) {
                self.abandon_path(now, id, Code::PATH_UNSTABLE_OR_POOR, false);
            }
        }
    }

    /// Opens what is wanted; returns when to try again what could not be.
    fn open_wanted(&mut self, now: Timestamp, auto: &mut Automatic) -> Option<Timestamp> {
        let present = self.paths.iter().filter(|p| !p.is_abandoned());
        let present: Vec<_> = present.map(|p| p.tuple).collect();
        let mut remotes: Vec<_> = vec![self.main_path().tuple.remote];
        for remote in self.peer_addresses() {
            if !remotes.contains(&remote) {
                remotes.push(remote);
            }
        }
        for tuple in auto.wanted(now, &present, &remotes) {
            let Some(socket) = auto.socket_of(tuple.local) else {
                continue;
            };
            match self.open_path(now, socket, tuple, PathStatus::Available) {
                Ok(id) => self.note_opened(id),
                Err(
                    OpenPathError::NoPathId
                    | OpenPathError::NoConnectionId
                    | OpenPathError::TooSoon(_),
                ) => return Some(now + self.largest_pto().max(RETRY)),
                Err(_) => auto.failures.note(now, tuple),
            }
        }
        None
    }

    fn note_opened(&mut self, id: PathId) {
        // The controller of paths knows it already.
        self.events.push(Event::Path(PathEvent::Opened(id)));
    }
}
