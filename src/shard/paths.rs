//! Paths of a shard's connections over its sockets: opened and moved by the application.

use super::app::Context;
use crate::base::{FourTuple, SocketId};
use crate::conn::{ConnId, MigrateError, OpenPathError};
use crate::path::{PathId, PathStatus};
use std::net::SocketAddr;

impl Context<'_> {
    /// Opens a path of a client's connection over one of the shard's sockets; see
    /// [`Connection::open_path`](crate::conn::Connection::open_path).
    ///
    /// # Errors
    /// [`OpenPathError`].
    pub fn open_path(
        &mut self,
        conn: ConnId,
        socket: SocketId,
        tuple: FourTuple,
        status: PathStatus,
    ) -> Result<PathId, OpenPathError> {
        let now = self.now();
        let conn = self.connection(conn).ok_or(OpenPathError::Closed)?;
        conn.open_path(now, socket, tuple, status)
    }

    /// Moves one path of a client's connection to another of the shard's sockets; see
    /// [`Connection::migrate_path`](crate::conn::Connection::migrate_path). Returns the addresses
    /// that the event about the outcome will name.
    ///
    /// # Errors
    /// [`MigrateError`].
    pub fn migrate_path(
        &mut self,
        conn: ConnId,
        path: PathId,
        socket: SocketId,
    ) -> Result<FourTuple, MigrateError> {
        let now = self.now();
        let local = self.bound_at(socket).ok_or(MigrateError::Socket)?;
        let conn = self.connection(conn).ok_or(MigrateError::Closed)?;
        let at = conn.path_info(path).ok_or(MigrateError::NoPath)?;
        let remote = at.tuple.remote;
        if !reaches(local, remote) {
            return Err(MigrateError::Socket);
        }
        let tuple = FourTuple::new(local, remote);
        conn.migrate_path(now, path, socket, tuple).map(|()| tuple)
    }

    /// The address that a socket is bound to.
    pub fn bound_at(&self, socket: SocketId) -> Option<SocketAddr> {
        let bound = self.sockets().iter().find(|(id, _)| *id == socket);
        bound.map(|(_, addr)| *addr)
    }
}

/// Whether a socket bound to `local` can send to `remote`: they are of one family, or it is of IPv6
/// and takes both.
pub fn reaches(local: SocketAddr, remote: SocketAddr) -> bool {
    local.is_ipv4() == remote.is_ipv4() || (local.is_ipv6() && local.ip().is_unspecified())
}
