//! Several paths at once (multipath, RFC 10069): what the connection knows beyond its paths.
//!
//! Per-path code runs for the path in hand (`crate::path::set`); here is what decides which that
//! is, and what is about path identifiers: their limits, connection IDs issued ahead, paths opened
//! (`open`), abandoned (`abandon`), chosen (`select`, `pins`), used (`send`), suspected
//! (`failure`), coupled (`coupling`), what goes on several (`copies`), what waits for one
//! (`queued`), the frames of all that (`frames`), what an application may ask (`info`), and sockets
//! that take nothing (`sockets`). A connection that did not negotiate the extension has none of it.

mod abandon;
mod addresses;
mod auto;
mod config;
mod copies;
mod coupling;
mod duplication;
mod failure;
mod frames;
mod hooks;
mod info;
mod open;
mod pins;
mod queued;
mod reinjection;
mod select;
mod send;
mod sockets;

pub use abandon::ClosePathError;
pub use addresses::{AddressConfig, AdvertiseError};
pub use auto::LocalSocket;
pub use config::MultipathConfig;
pub use copies::CopyStats;
pub(super) use failure::failure_deadline;
pub use hooks::{PathController, PathControllers};
pub use info::PathInfo;
pub(super) use info::stats_of;
pub use open::OpenPathError;
pub(super) use open::TakenUp;
pub use pins::PinError;
pub(super) use send::write_acks_away;

use super::Connection;
use super::events::Event;
use super::params;
use super::space::SentFrame;
use crate::base::{Timestamp, limits};
use crate::path::cids::ResetToken;
use crate::path::schedule::Selector;
use crate::path::{LocalCids, Path, PathId, PathLimits, PathStatus, RemoteCids, Statuses};
use crate::wire::{Code, ConnectionId, TransportError, TransportParameters};
use hooks::Hooks;
use pins::Pinned;
use select::Choice;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

/// Something that happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathEvent {
    /// The client opened a path, which has yet to be validated; at the client itself, one of its
    /// automatic paths.
    Opened(PathId),
    /// The peer answered on a new path: it is used from now on.
    Validated(PathId),
    /// A path is used no more; its identifier is never used again.
    Abandoned {
        /// Which.
        id: PathId,
        /// Why: one of the codes of multipath §4.2.1, or NO_ERROR.
        error: Code,
        /// It was the peer's doing.
        by_peer: bool,
    },
    /// The peer would have a path used otherwise than before.
    Status(PathId, PathStatus),
    /// A path has not acknowledged anything for so long that it may have failed: others are used
    /// while there are any (`MultipathConfig::failure`).
    PotentiallyFailed(PathId),
    /// A path that might have failed acknowledged something: it is used again.
    Recovered(PathId),
    /// The peer goes on from another address on a path, of one or several; it may not be validated
    /// yet.
    PeerMoved {
        /// Which path.
        id: PathId,
        /// Where the peer is now.
        remote: SocketAddr,
    },
    /// The peer answered at the address that it moved to.
    PeerMoveValidated {
        /// On which path.
        id: PathId,
        /// Where the peer is.
        remote: SocketAddr,
    },
    /// The peer named an address that a path may be tried to.
    PeerAddress {
        /// Its name for the address: a later one takes its place.
        id: u64,
        /// The address.
        addr: SocketAddr,
    },
    /// The peer says how many paths it has.
    PeerPaths {
        /// Paths that it could use.
        available: u64,
        /// Paths that it uses.
        active: u64,
    },
    /// The peer asked that a path be abandoned, and it is.
    CloseAsked {
        /// Which.
        id: PathId,
        /// Why.
        error: Code,
    },
    /// The peer could open no path for want of an identifier beyond this one.
    Blocked(PathId),
}

/// What both sides have issued for a path that is not in use yet.
#[derive(Debug)]
struct Ahead {
    id: PathId,
    local_cids: LocalCids,
    remote_cids: RemoteCids,
    status: Statuses,
    /// It was abandoned before it was used; until then its connection IDs are known.
    gone_at: Option<Timestamp>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Multipath {
    limits: PathLimits,
    /// Paths not in use yet, in the order of their identifiers.
    ahead: Vec<Ahead>,
    /// The peer's active_connection_id_limit.
    cid_limit: u64,
    /// The server's address during the handshake.
    first_remote: SocketAddr,
    /// PATH_ABANDON frames that wait to be sent.
    abandons: Vec<(PathId, Code)>,
    /// PATHS_BLOCKED is to be sent.
    paths_blocked: bool,
    /// PATH_CIDS_BLOCKED is to be sent.
    cids_blocked: Option<PathId>,
    /// Connection IDs of paths that are forgotten.
    retired: Vec<ConnectionId>,
    /// What paths had counted when they were forgotten.
    past: Vec<PathInfo>,
    /// The last path was abandoned: the connection ends then, unless another is opened.
    last_chance: Option<(Timestamp, Code)>,
    /// Times that the only path left was asked again since one answered.
    last_asked: u8,
    /// What is sent on several paths, while anything is.
    copies: Option<Box<copies::Copies>>,
    /// Addresses that are told, where both sides do that.
    addresses: Option<Box<addresses::Addresses>>,
    /// What opens paths by itself, if anything does.
    auto: Option<Box<auto::Automatic>>,
    /// Chooses the paths of trains.
    choice: Choice,
    /// Datagrams that wait for paths of their own.
    pinned: Pinned,
    /// The embedder's controller.
    hooks: Hooks,
}

impl Multipath {
    fn new(
        config: &MultipathConfig,
        (local, peer): (PathId, PathId),
        cid_limit: u64,
        first_remote: SocketAddr,
    ) -> Self {
        let mut m = Self {
            limits: PathLimits::new(local, peer),
            ahead: Vec::new(),
            cid_limit,
            first_remote,
            abandons: Vec::new(),
            paths_blocked: false,
            cids_blocked: None,
            retired: Vec::new(),
            past: Vec::new(),
            last_chance: None,
            last_asked: 0,
            copies: None,
            addresses: None,
            auto: None,
            choice: Choice::new(Selector::new(&config.scheduler)),
            pinned: Pinned::default(),
            hooks: Hooks::default(),
        };
        m.admit(1..=local.0);
        m
    }

    /// Keeps what is issued for these identifiers from now on.
    fn admit(&mut self, ids: RangeInclusive<u32>) {
        for id in ids {
            let mut local_cids = LocalCids::default();
            local_cids.set_peer_limit(self.cid_limit);
            self.ahead.push(Ahead {
                id: PathId(id),
                local_cids,
                remote_cids: RemoteCids::waiting(),
                status: Statuses::default(),
                gone_at: None,
            });
        }
    }

    /// The path of that identifier, if it is not in use yet and was not abandoned.
    fn ahead(&mut self, id: PathId) -> Option<&mut Ahead> {
        let ahead = self.ahead.iter_mut().find(|a| a.id == id)?;
        Some(ahead).filter(|a| a.gone_at.is_none())
    }

    /// A path was abandoned; its peer is told.
    fn on_abandoned(&mut self, id: PathId, error: Code) {
        self.repeat_abandon(id, error);
        let ids = self.limits.on_abandoned();
        self.admit(ids);
    }

    fn repeat_abandon(&mut self, id: PathId, error: Code) {
        // A probe timeout may repeat what waits already; there is one of each path.
        let waits = self.abandons.iter().any(|(path, _)| *path == id);
        if !waits && self.abandons.len() < limits::PATH_ABANDONS {
            self.abandons.push((id, error));
        }
    }

    /// What is known of a path is forgotten.
    fn on_forgotten(&mut self, mut local_cids: LocalCids) {
        self.retired.extend(local_cids.iter());
        while let Some(cid) = local_cids.poll_retired() {
            self.retired.push(cid);
        }
        let ids = self.limits.on_forgotten();
        self.admit(ids);
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let gone = self.ahead.iter().filter_map(|a| a.gone_at).min();
        let end = self.last_chance.map(|(at, _)| at);
        let wait = self.choice.wait_until;
        gone.into_iter().chain(end).chain(wait).min()
    }
}

/// Our limit on path identifiers, if we would have several paths (multipath §2.1).
pub(super) fn initial_max_path_id(config: &super::TransportConfig) -> Option<PathId> {
    let paths = config.max_paths.min(limits::PATHS as u32);
    (paths > 1).then(|| PathId(paths - 1))
}

/// Whether addresses may be told, if several paths are taken too.
pub(super) fn advertises_addresses(config: &super::TransportConfig) -> bool {
    initial_max_path_id(config).is_some() && config.multipath.addresses.is_some()
}

impl Connection {
    /// Whether both sides take several paths.
    pub fn is_multipath(&self) -> bool {
        self.multipath.is_some()
    }

    /// The peer's parameters came: several paths are possible if both sides say so
    /// (multipath §2, §2.1).
    pub(super) fn begin_multipath(
        &mut self,
        params: &TransportParameters,
    ) -> Result<(), TransportError> {
        let ids = &self.ids;
        let own = params::local(&self.config, ids.local_scid).initial_max_path_id;
        let (Some(own), Some(peer)) = (own, params.initial_max_path_id) else {
            return Ok(());
        };
        if ids.remote_scid.is_none_or(|cid| cid.is_empty()) {
            return Err(TransportError::protocol_violation(
                "several paths are declared with a zero-length connection ID",
            ));
        }
        let remote = self.paths.current().tuple.remote;
        let limit = params.active_connection_id_limit;
        let config = &self.config.multipath;
        let mut multipath = Multipath::new(config, (own, peer), limit, remote);
        multipath.hooks = Hooks::new(config, self.side);
        let (id, tuple) = (self.paths.current().id, self.paths.current().tuple);
        let mut selector = None;
        if let Some(hook) = multipath.hook() {
            hook.path_registered(id, tuple);
            selector = hook.target_selector();
        }
        self.multipath = Some(Box::new(multipath));
        self.watch_for_failure();
        self.begin_copies(selector);
        self.begin_addresses();
        self.chooses_path = true;
        Ok(())
    }

    /// The path to go by where none is named: the first of those that are not abandoned.
    #[inline]
    pub(super) fn main_path(&self) -> &Path<SentFrame> {
        match self.paths.is_single() {
            true => self.paths.current(),
            false => self.main_path_of_several(),
        }
    }

    fn main_path_of_several(&self) -> &Path<SentFrame> {
        let hand = self.paths.current();
        let order = |p: &&Path<SentFrame>| (p.is_abandoned(), !p.remote_cids.is_usable(), p.id);
        let first = self.paths.iter().min_by_key(order);
        first.unwrap_or(hand)
    }

    /// Takes that path up.
    pub(super) fn take_main_path(&mut self) {
        let id = self.main_path().id;
        self.paths.select(id);
    }

    /// Connection IDs to issue to the peer, for no path beyond its limit (multipath §3.2.1); give
    /// them to [`Connection::issue_cid`].
    #[inline]
    pub(crate) fn cids_wanted(&self) -> usize {
        match self.multipath.as_deref() {
            _ if !self.state.is_established() => 0,
            None => self.paths.current().local_cids.wanted(),
            Some(m) => self.cids_wanted_for(m),
        }
    }

    /// Whether the endpoint has to issue or forget connection IDs or tokens, where `token` is the
    /// one that resets the connection as far as it knows. Looked at closely only once there is
    /// nothing but one path.
    #[inline]
    pub(crate) fn wants_upkeep(&self, token: Option<&ResetToken>) -> bool {
        if self.multipath.is_some() || !self.state.is_confirmed() {
            return true;
        }
        let path = self.paths.current();
        path.local_cids.wants_upkeep()
            || path.remote_cids.active_token_ref() != token
            || self.wants_tokens_passed()
    }

    fn cids_wanted_for(&self, m: &Multipath) -> usize {
        let max = m.limits.usable_max();
        let ahead = m.ahead.iter().filter(|a| a.id <= max);
        let ahead: usize = ahead.map(|a| a.local_cids.wanted_ahead()).sum();
        let open = self.paths.iter().map(|p| p.local_cids.wanted());
        ahead + open.sum::<usize>()
    }

    /// Issues a connection ID that now routes here, for a path that wants one (multipath §3.2.1:
    /// without gaps).
    pub(crate) fn issue_cid(&mut self, cid: ConnectionId, token: ResetToken) {
        let Some(m) = self.multipath.as_deref_mut() else {
            return self.paths.current_mut().local_cids.issue(cid, token);
        };
        let max = m.limits.usable_max();
        let open = self.paths.iter_mut().find(|p| p.local_cids.wanted() > 0);
        let ahead = m.ahead.iter_mut().filter(|a| a.id <= max);
        let mut ahead = ahead.filter(|a| a.local_cids.wanted_ahead() > 0);
        match open {
            Some(path) => path.local_cids.issue(cid, token),
            None => match ahead.next() {
                Some(ahead) => ahead.local_cids.issue(cid, token),
                None => m.retired.push(cid),
            },
        }
    }

    /// A connection ID that no longer routes here.
    #[inline]
    pub(crate) fn poll_retired_cid(&mut self) -> Option<ConnectionId> {
        match self.multipath.is_none() {
            true => self.paths.current_mut().local_cids.poll_retired(),
            false => self.poll_retired_cid_of_any(),
        }
    }

    fn poll_retired_cid_of_any(&mut self) -> Option<ConnectionId> {
        let m = self.multipath.as_deref_mut()?;
        let ahead = m.ahead.iter_mut().map(|a| &mut a.local_cids);
        let open = self.paths.iter_mut().map(|p| &mut p.local_cids);
        let mut all = open.chain(ahead);
        all.find_map(LocalCids::poll_retired)
            .or_else(|| m.retired.pop())
    }

    /// Every connection ID that routes here.
    pub(crate) fn local_cids(&self) -> impl Iterator<Item = &ConnectionId> {
        let ahead = self.multipath.iter().flat_map(|m| m.ahead.iter());
        let ahead = ahead.flat_map(|a| a.local_cids.iter());
        let open = self.paths.iter().flat_map(|p| p.local_cids.iter());
        open.chain(ahead)
    }

    /// Whether there are more paths than one.
    pub(crate) fn has_other_paths(&self) -> bool {
        !self.paths.is_single()
    }

    /// The tokens by which the peer resets the connection on paths that are not in hand.
    pub(crate) fn other_reset_tokens(&self) -> impl Iterator<Item = ResetToken> {
        let closed = self.state.is_closed();
        let others = self.paths.iter().skip(if closed { usize::MAX } else { 0 });
        others
            .filter(|p| p.id != PathId::ZERO && !p.is_abandoned())
            .filter_map(|p| p.remote_cids.active_token())
    }

    /// The time of something about path identifiers has come.
    pub(super) fn handle_multipath_timeout(&mut self, now: Timestamp) {
        let Some(m) = self.multipath.as_deref_mut() else {
            return;
        };
        let gone = |a: &mut Ahead| a.gone_at.is_some_and(|at| at <= now);
        let gone: Vec<Ahead> = m.ahead.extract_if(.., gone).collect();
        for ahead in gone {
            m.on_forgotten(ahead.local_cids);
        }
        m.choice.wait_until = m.choice.wait_until.filter(|at| *at > now);
        if let Some((_, code)) = m.last_chance.filter(|(at, _)| *at <= now) {
            m.last_chance = None;
            self.end_without_path(now, code);
        }
    }

    pub(super) fn push_path_event(&mut self, event: PathEvent) {
        self.hook_event(event);
        match event {
            PathEvent::Status(..)
            | PathEvent::Blocked(_)
            | PathEvent::PeerPaths { .. }
            | PathEvent::PeerAddress { .. } => self.events.push_hint(Event::Path(event)),
            _ => self.events.push(Event::Path(event)),
        }
    }
}

#[cfg(test)]
mod tests;
