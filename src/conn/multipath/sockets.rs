//! Paths and the sockets that they send by: one that takes nothing, because its queue is full or
//! its interface is gone, holds up its own path and no other.

use super::super::{Connection, SentFrame};
use crate::base::SocketId;
use crate::path::Path;

impl Connection {
    /// The sockets of the paths that are in use or are about to be.
    pub fn path_sockets(&self) -> impl Iterator<Item = SocketId> {
        let live = self.paths.iter().filter(|p| !p.is_abandoned());
        live.map(|p| p.socket)
    }

    /// Keeps trains from the paths whose sockets take none now, until the next call. Tells whether
    /// one of several paths has to wait, so that [`Connection::poll_transmit`] is to be asked again
    /// once [`Connection::may_resume`] says so.
    pub fn hold_paths(&mut self, takes: impl Fn(SocketId) -> bool) -> bool {
        let mut held = false;
        for path in self.paths.iter_mut() {
            path.held = !takes(path.socket);
            held |= path.held && !path.is_abandoned();
        }
        held
    }

    /// Whether a path that was held could send now.
    pub fn may_resume(&self, takes: impl Fn(SocketId) -> bool) -> bool {
        let held = |p: &&Path<SentFrame>| p.held && !p.is_abandoned();
        let mut held = self.paths.iter().filter(held);
        held.any(|p| takes(p.socket))
    }
}
