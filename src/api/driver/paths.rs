//! The shard's side of several paths: opened as soon as the peer has issued what they need, handles
//! told what came of it, sockets kept and given up.

use super::Driver;
use super::conn::ConnDriver;
use super::moves::LINGER;
use crate::api::error::{MigrationError, PathError};
use crate::api::paths::{PathNews, PathOptions};
use crate::api::shared::{OpenPath, Reply};
use crate::base::{FourTuple, SocketId, Timestamp};
use crate::conn::{ConnId, Connection, OpenPathError, PathEvent};
use crate::path::{PathId, PathState};
use crate::shard::Context;
use crate::shard::paths::reaches;
use crate::wire::Code;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// How long a path waits for connection IDs of the peer, which come within a few round trips.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is tried meanwhile. Each try tells the peer what lacks, so not with every turn.
const RETRY: Duration = Duration::from_millis(20);
/// The same while the handshake is not confirmed, which tells nobody anything.
const RETRY_EARLY: Duration = Duration::from_millis(2);

/// A path that a handle asked for and that could not be opened yet.
pub(super) struct Opening {
    conn: ConnId,
    order: OpenPath,
    /// The socket that was found or bound for it.
    pub(super) socket: Option<SocketId>,
    /// When it is tried next.
    next: Timestamp,
    /// When it is given up.
    until: Timestamp,
}

/// A path that was opened; its handle waits for the peer's answer.
pub(super) struct Begun {
    id: PathId,
    local: SocketAddr,
    reply: Reply<Result<PathId, PathError>>,
}

impl Driver {
    pub(super) fn open_path(&mut self, ctx: &mut Context<'_>, order: OpenPath) {
        let Some(conn) = order.shared.id.get().copied() else {
            return;
        };
        let (next, until) = (ctx.now(), ctx.now() + PATIENCE);
        self.try_path(
            ctx,
            Opening {
                conn,
                order,
                socket: None,
                next,
                until,
            },
        );
    }

    /// Tries those again that had to wait; says when to do so next.
    pub(super) fn retry_paths(&mut self, ctx: &mut Context<'_>) -> Option<Timestamp> {
        if self.opening.is_empty() {
            return None;
        }
        let now = ctx.now();
        for opening in std::mem::take(&mut self.opening) {
            if opening.next <= now {
                self.try_path(ctx, opening);
            } else {
                self.opening.push(opening);
            }
        }
        self.opening.iter().map(|o| o.next).min()
    }

    /// Opens a path, or keeps it for later, or says why not.
    fn try_path(&mut self, ctx: &mut Context<'_>, mut opening: Opening) {
        let Some(driver) = self.conn(opening.conn) else {
            // The connection is over, which its handles know.
            return self.close_unused(ctx);
        };
        let shared = driver.shared.clone();
        let now = ctx.now();
        let begun = self.begin_path(ctx, &mut opening);
        let over = match (begun, self.conn(opening.conn)) {
            (Ok((id, local)), Some(driver)) => {
                let reply = opening.order.reply;
                driver.opening.push(Begun { id, local, reply });
                return;
            }
            (Ok(_), None) => return,
            (Err(PathError::Refused(why)), _)
                if now < opening.until && may_change(ctx, opening.conn, why) =>
            {
                let early = why == OpenPathError::NotConfirmed;
                opening.next = now + if early { RETRY_EARLY } else { RETRY };
                self.opening.push(opening);
                return;
            }
            (Err(e), _) => e,
        };
        let _ = opening.order.reply.set(Err(over));
        shared.waiters.notify();
        self.close_unused(ctx);
    }

    fn begin_path(
        &mut self,
        ctx: &mut Context<'_>,
        opening: &mut Opening,
    ) -> Result<(PathId, SocketAddr), PathError> {
        let PathOptions {
            local,
            remote,
            status,
        } = opening.order.options;
        let closed = OpenPathError::Closed;
        let conn = ctx.connection(opening.conn).ok_or(closed)?;
        let (first, at) = (conn.path(), conn.socket());
        let remote = remote.unwrap_or(first.remote);
        let local = local.unwrap_or(first.local);
        if !reaches(local, remote) {
            return Err(PathError::Family { local, remote });
        }
        let socket = match (opening.socket, opening.order.options.local) {
            (Some(socket), _) => socket,
            (None, None) => at,
            (None, Some(local)) => self.path_socket(ctx, local)?,
        };
        opening.socket = Some(socket);
        // The port that the system chose; the IP stays what was asked for.
        let port = ctx.bound_at(socket).map_or(local.port(), |a| a.port());
        let tuple = FourTuple::new(SocketAddr::new(local.ip(), port), remote);
        let status = status.unwrap_or(crate::path::PathStatus::Available);
        let id = ctx.open_path(opening.conn, socket, tuple, status)?;
        Ok((id, tuple.local))
    }

    /// The socket for paths from `local`.
    fn path_socket(
        &mut self,
        ctx: &mut Context<'_>,
        local: SocketAddr,
    ) -> Result<SocketId, PathError> {
        let sockets = ctx.sockets();
        let bound = sockets.iter().find(|(_, addr)| *addr == local);
        let any = |(_, addr): &&(SocketId, SocketAddr)| {
            local.port() == addr.port() && addr.ip().is_unspecified() && reaches(*addr, local)
        };
        if let Some((id, _)) = bound.or_else(|| sockets.iter().find(any)) {
            return Ok(*id);
        }
        self.socket_at(ctx, local).map_err(|e| match e {
            MigrationError::Bind(addr, e) => PathError::Bind(addr, e),
            MigrationError::Socket(e) => PathError::Socket(e),
            _ => PathError::Refused(OpenPathError::Closed),
        })
    }

    /// Takes a socket that stays until it is removed.
    pub(super) fn keep_socket(&mut self, ctx: &mut Context<'_>, socket: UdpSocket) {
        if let Err(error) = ctx.add_socket(socket) {
            tracing::error!(%error, "a socket is not used");
        }
    }

    /// Lets go of the sockets at an address: paths first, then what nothing uses.
    pub(super) fn give_up_sockets(&mut self, ctx: &mut Context<'_>, addr: SocketAddr) {
        let at = |(id, bound): &(SocketId, SocketAddr)| (*bound == addr).then_some(*id);
        let mut gone: Vec<SocketId> = ctx.sockets().iter().filter_map(at).collect();
        let left = |(id, _): &&(SocketId, SocketAddr)| !gone.contains(id);
        if ctx.sockets().iter().find(left).is_none() {
            tracing::warn!(%addr, "the last socket stays");
            return;
        }
        let now = ctx.now();
        let conns: Vec<ConnId> = self.conns.iter().flatten().map(|c| c.id).collect();
        for id in conns {
            let Some(conn) = ctx.endpoint().connection(id) else {
                continue;
            };
            let on = |p: &crate::conn::PathInfo| is_live(p.state) && gone.contains(&p.socket);
            let (there, elsewhere): (Vec<_>, Vec<_>) =
                conn.paths().filter(|p| is_live(p.state)).partition(on);
            if there.is_empty() || !elsewhere.iter().any(|p| p.state == PathState::Open) {
                continue;
            }
            for path in there {
                // It is there, and not the last.
                let _ = conn.close_path(now, path.id, Code::APPLICATION_ABANDON_PATH);
            }
            ctx.endpoint().wake(id);
        }
        self.added.newest = self.added.newest.filter(|s| !gone.contains(s));
        gone.retain(|s| !self.added.sockets.contains(s));
        self.added.sockets.append(&mut gone);
        self.close_unused(ctx);
        self.added.look_at.get_or_insert(now + LINGER);
    }
}

fn is_live(state: PathState) -> bool {
    !matches!(state, PathState::Abandoned(_))
}

/// Whether a path that is refused now may be opened within a few round trips, without anything
/// being done here.
fn may_change(ctx: &mut Context<'_>, conn: ConnId, why: OpenPathError) -> bool {
    match why {
        OpenPathError::NotConfirmed | OpenPathError::NoConnectionId => true,
        // An identifier follows once a path that was abandoned is forgotten.
        OpenPathError::NoPathId => {
            let conn = ctx.endpoint().connection(conn);
            conn.is_some_and(|c| c.paths().any(|p| !is_live(p.state)))
        }
        _ => false,
    }
}

impl ConnDriver {
    /// Something happened to a path: handles that wait for it are told, and the queue of news.
    pub(super) fn on_path_event(&mut self, conn: &Connection, event: PathEvent) {
        let news = self.shared.path_news.make(PathNews::default);
        news.tell(event);
        for begun in self.opening.extract_if(.., |b| is_settled(conn, b.id)) {
            let _ = begun.reply.set(outcome(conn, &begun, event));
        }
        self.shared.waiters.notify();
    }
}

/// Whether a path that was opened has come into use or never will.
fn is_settled(conn: &Connection, id: PathId) -> bool {
    conn.path_info(id)
        .is_none_or(|p| p.state != PathState::Validating)
}

/// What became of a path; `event` is the newest that happened, and maybe about another one.
fn outcome(conn: &Connection, begun: &Begun, event: PathEvent) -> Result<PathId, PathError> {
    let id = begun.id;
    if conn.path_info(id).is_some_and(|p| is_live(p.state)) {
        return Ok(id);
    }
    match event {
        PathEvent::Abandoned {
            id: of,
            error,
            by_peer,
        } if of == id => Err(match (by_peer, error) {
            (true, error) => PathError::Peer(error),
            (false, Code::PATH_UNSTABLE_OR_POOR) => PathError::NoAnswer(begun.local),
            (false, _) => PathError::Closed,
        }),
        _ => Err(PathError::NoAnswer(begun.local)),
    }
}
