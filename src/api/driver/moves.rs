//! The shard's side of moves: sockets bound and closed, connections sent to them, handles told.

use super::Driver;
use super::socket_for;
use crate::api::error::MigrationError;
use crate::api::shared::{Move, Reply};
use crate::base::{FourTuple, SocketId, Timestamp};
use crate::conn::ConnId;
use crate::shard::Context;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// How often sockets that connections have left are looked at whether they are unused.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// A handle that waits for a connection's move.
pub(super) struct Moving {
    to: FourTuple,
    reply: Reply<Result<SocketAddr, MigrationError>>,
}

/// Sockets that came after the shard's first ones.
#[derive(Default)]
pub(super) struct Added {
    /// Those of them that are closed once nothing uses them.
    pub(super) sockets: Vec<SocketId>,
    /// Where new connections leave from.
    pub(super) newest: Option<SocketId>,
    /// When to look for unused ones again: an address that was left is in use for a while.
    pub(super) look_at: Option<Timestamp>,
}

impl Driver {
    /// The socket for a new connection.
    pub(super) fn way_to(&self, ctx: &Context<'_>, remote: SocketAddr) -> Option<SocketId> {
        let newest = ctx
            .sockets()
            .iter()
            .find(|s| Some(s.0) == self.added.newest);
        newest
            .and_then(|s| socket_for(std::slice::from_ref(s), remote))
            .or_else(|| socket_for(ctx.sockets(), remote))
    }

    pub(super) fn begin_move(&mut self, ctx: &mut Context<'_>, order: Move) {
        let Move {
            shared,
            path,
            local,
            reply,
        } = order;
        let Some(id) = shared.id.get().copied() else {
            return;
        };
        let moved = self.socket_at(ctx, local).and_then(|socket| {
            let moved = match path {
                Some(path) => ctx.migrate_path(id, path, socket),
                None => ctx.migrate(id, socket),
            };
            moved.map_err(MigrationError::Refused)
        });
        match (moved, self.conn(id)) {
            (Ok(to), Some(driver)) => {
                // One at a time: an earlier handle learns of it by an event.
                driver.moving.push(Moving { to, reply });
            }
            (Err(e), _) => {
                let _ = reply.set(Err(e));
                shared.waiters.notify();
                self.close_unused(ctx);
            }
            // The connection is over, which its handles know.
            (Ok(_), None) => {}
        }
    }

    /// The socket that is bound to an address, opened where there is none.
    pub(super) fn socket_at(
        &mut self,
        ctx: &mut Context<'_>,
        local: SocketAddr,
    ) -> Result<SocketId, MigrationError> {
        if let Some((id, _)) = ctx.sockets().iter().find(|(_, addr)| *addr == local) {
            return Ok(*id);
        }
        let socket =
            UdpSocket::bind(local).map_err(|e| MigrationError::Bind(local, Arc::new(e)))?;
        let id = ctx.add_socket(socket)?;
        self.added.sockets.push(id);
        Ok(id)
    }

    pub(super) fn rebind(&mut self, ctx: &mut Context<'_>, socket: UdpSocket) {
        let id = match ctx.add_socket(socket) {
            Ok(id) => id,
            Err(error) => {
                tracing::error!(%error, "connections stay where they are");
                return;
            }
        };
        self.added.sockets.push(id);
        self.added.newest = Some(id);
        let conns: Vec<ConnId> = self.conns.iter().flatten().map(|c| c.id).collect();
        for conn in conns {
            // Those that are accepted, or that may not move, stay.
            if let Err(error) = ctx.migrate(conn, id) {
                tracing::debug!(%error, "a connection stays where it is");
            }
        }
        self.close_unused(ctx);
    }

    /// A connection's move is over, one way or the other.
    pub(super) fn on_moved(
        &mut self,
        ctx: &mut Context<'_>,
        conn: ConnId,
        tuple: FourTuple,
        outcome: &Result<SocketAddr, MigrationError>,
    ) {
        if let Some(driver) = self.conn(conn) {
            for moving in driver.moving.extract_if(.., |m| m.to == tuple) {
                let _ = moving.reply.set(outcome.clone());
            }
            driver.shared.waiters.notify();
        }
        self.close_unused(ctx);
    }

    /// Closes added sockets that no connection uses. The newest stays for new ones.
    pub(super) fn close_unused(&mut self, ctx: &mut Context<'_>) {
        self.added.look_at = None;
        if self.added.sockets.is_empty() {
            return;
        }
        let now = ctx.now();
        let endpoint = ctx.endpoint();
        let (mut used, mut left) = (Vec::new(), Vec::new());
        for id in endpoint.ids().collect::<Vec<ConnId>>() {
            let Some(conn) = endpoint.connection(id) else {
                continue;
            };
            used.extend(conn.path_sockets());
            let others = self.added.sockets.iter().filter(|s| conn.uses_socket(**s));
            left.extend(others);
        }
        used.extend(self.added.newest);
        used.extend(self.opening.iter().filter_map(|o| o.socket));
        let gone = |s: &mut SocketId| !used.contains(s) && !left.contains(s);
        for socket in self.added.sockets.extract_if(.., gone) {
            ctx.remove_socket(socket);
        }
        if self.added.sockets.iter().any(|s| !used.contains(s)) {
            self.added.look_at = Some(now + LINGER);
        }
    }
}
