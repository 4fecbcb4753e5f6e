//! What an embedder may see and decide of a connection's paths: one trait with a default for each
//! of its methods, made once for each connection that may have several paths.
//!
//! Called on the thread that drives the connection: it must not block. A connection without a
//! controller pays one look at that for each train and acknowledgement.

use super::super::Connection;
use super::{Multipath, PathEvent, PathInfo};
use crate::base::{FourTuple, Timestamp};
use crate::path::reinject::TargetSelector;
use crate::path::schedule::{Decision, PathView, SchedulerContext};
use crate::path::{PathId, PathStatus};
use crate::wire::{Code, Side};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// Sees what happens to the paths of one connection, and decides where it wants to.
///
/// Times are those of the call that brought it about; bytes are of packets that count as in flight.
pub trait PathController: Send {
    /// Both sides take several paths; the handshake's is the first.
    fn path_registered(&mut self, _path: PathId, _tuple: FourTuple) {}

    /// A path was opened, by this side or the peer. It is not validated yet.
    fn path_added(&mut self, _path: PathId, _tuple: FourTuple) {}

    /// The peer answered on a new path, which may be chosen from now on.
    fn path_validated(&mut self, _path: PathId) {}

    /// A path was abandoned; nothing more is sent there.
    fn path_abandoned(&mut self, _path: PathId, _error: Code, _by_peer: bool) {}

    /// The peer would have a path used in that way from now on.
    fn peer_status(&mut self, _path: PathId, _status: PathStatus) {}

    /// The peer says that it can be reached at that address too, which is not validated.
    fn peer_address(&mut self, _address: SocketAddr) {}

    /// A train left on a path: so many bytes of it.
    fn packet_sent(&mut self, _now: Timestamp, _path: PathId, _bytes: u64) {}

    /// Bytes sent on a path were acknowledged.
    fn packet_acked(&mut self, _now: Timestamp, _path: PathId, _bytes: u64) {}

    /// Bytes sent on a path were declared lost.
    fn packet_lost(&mut self, _now: Timestamp, _path: PathId, _bytes: u64) {}

    /// A path is as `state` says after an acknowledgement, or since it may have failed.
    fn state_updated(&mut self, _now: Timestamp, _state: &PathView) {}

    /// Where the next train goes; `None` leaves that to the scheduler. A path that must not be used
    /// now is not followed.
    fn select_path(&mut self, _ctx: &SchedulerContext<'_>) -> Option<Decision> {
        None
    }

    /// Who chooses where something is reinjected, asked once; `None` leaves that to the
    /// configuration.
    fn target_selector(&mut self) -> Option<Box<dyn TargetSelector>> {
        None
    }
}

/// Makes the controller of each connection, or none.
#[derive(Clone)]
pub struct PathControllers(Arc<Make>);

type Make = dyn Fn(Side) -> Option<Box<dyn PathController>> + Send + Sync;

impl PathControllers {
    /// Controllers that `make` makes, for connections of which this is that side.
    pub fn new(
        make: impl Fn(Side) -> Option<Box<dyn PathController>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(make))
    }
}

impl fmt::Debug for PathControllers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PathControllers(..)")
    }
}

/// The controller of a connection, if it has one.
#[derive(Default)]
pub(super) struct Hooks(pub(super) Option<Box<dyn PathController>>);

impl Hooks {
    pub(super) fn new(config: &super::MultipathConfig, side: Side) -> Self {
        Self(config.controller.as_ref().and_then(|make| (make.0)(side)))
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hooks").field(&self.0.is_some()).finish()
    }
}

impl Multipath {
    #[inline]
    pub(super) fn hook(&mut self) -> Option<&mut (dyn PathController + 'static)> {
        self.hooks.0.as_deref_mut()
    }
}

impl Connection {
    /// Tells the controller of a path that was opened.
    pub(super) fn hook_added(&mut self, id: PathId) {
        let tuple = self.path_info(id).map(|info: PathInfo| info.tuple);
        if let (Some(m), Some(tuple)) = (self.multipath.as_deref_mut(), tuple)
            && let Some(hook) = m.hook()
        {
            hook.path_added(id, tuple);
        }
    }

    /// Tells the controller of an event.
    pub(super) fn hook_event(&mut self, event: PathEvent) {
        let Some(hook) = self.multipath.as_deref_mut().and_then(Multipath::hook) else {
            return;
        };
        match event {
            PathEvent::Validated(id) => hook.path_validated(id),
            PathEvent::Abandoned { id, error, by_peer } => hook.path_abandoned(id, error, by_peer),
            PathEvent::Status(id, status) => hook.peer_status(id, status),
            PathEvent::Opened(id) => self.hook_added(id),
            PathEvent::PeerAddress { addr, .. } => hook.peer_address(addr),
            _ => {}
        }
    }

    /// Tells the controller how the path in hand stands.
    pub(super) fn hook_state(&mut self, now: Timestamp) {
        let Some(m) = self.multipath.as_deref_mut() else {
            return;
        };
        if let Some(hook) = m.hooks.0.as_deref_mut() {
            let mut view = super::select::view(self.paths.current_mut(), now);
            let copies = m.copies.as_deref();
            view.queue_delay = super::queued::delay(&view, copies, &m.pinned, &self.streams);
            hook.state_updated(now, &view);
        }
    }
}
