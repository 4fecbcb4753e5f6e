//! Several paths of one connection (multipath, RFC 10069): opened, moved, closed and watched
//! through handles. Which sockets there are for them is `sockets`'s.

use super::connection::{ConnHandle, Connection};
use super::error::{MigrationError, PathError};
use super::shared::{Command, ConnShared, Move, OpenPath, Reply, Request};
use crate::base::limits;
use crate::conn::{ClosePathError, ConnectionError, PathEvent, PathInfo};
use crate::path::schedule::Pin;
use crate::path::{PathId, PathStatus};
use crate::wire::{Code, StreamId};
use bytes::Bytes;
use crossbeam::queue::ArrayQueue;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

/// A path to open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathOptions {
    /// Our end. A socket of the connection's shard that is bound there serves it, or else one that
    /// is bound to all addresses and the same port, or else a new one; with port 0 always a new
    /// one, closed when no path uses it any more. `None` takes the socket of the first path.
    pub local: Option<SocketAddr>,
    /// The server's end; `None` for its address on the first path.
    pub remote: Option<SocketAddr>,
    /// What either side shall use the path for.
    pub status: Option<PathStatus>,
}

impl PathOptions {
    /// A path from `local` to where the server is already.
    pub fn from(local: SocketAddr) -> Self {
        Self {
            local: Some(local),
            ..Self::default()
        }
    }

    /// To another address of the server.
    #[must_use]
    pub fn to(mut self, remote: SocketAddr) -> Self {
        self.remote = Some(remote);
        self
    }

    /// To be used while no path that is available works, by either side.
    #[must_use]
    pub fn backup(mut self) -> Self {
        self.status = Some(PathStatus::Backup);
        self
    }
}

/// What happened to a connection's paths and was not told yet: a queue that drops the oldest.
pub(super) struct PathNews(pub(super) ArrayQueue<PathEvent>);

impl Default for PathNews {
    fn default() -> Self {
        Self(ArrayQueue::new(limits::PATH_EVENTS))
    }
}

impl PathNews {
    /// Where nobody reads, or not fast enough, the oldest is the least use.
    pub(super) fn tell(&self, event: PathEvent) {
        let _ = self.0.force_push(event);
    }
}

impl Connection {
    /// Opens another path of this client's connection, and waits until the server has answered on
    /// it: from then on both sides use it. Right after the handshake this waits, too, until the
    /// server has issued what a path needs. Both sides must take several paths
    /// ([`TransportConfig::max_paths`](super::TransportConfig::max_paths)).
    ///
    /// All paths belong to the connection's shard, whatever sockets they use. Dropping the future
    /// stops the waiting, not the path.
    ///
    /// # Errors
    /// [`PathError`]; the other paths are as before.
    pub async fn open_path(&self, options: PathOptions) -> Result<Path, PathError> {
        let shared = self.shared();
        let reply = Arc::new(OnceLock::new());
        shared.link.send(Command::OpenPath(Box::new(OpenPath {
            shared: shared.clone(),
            options,
            reply: reply.clone(),
        })));
        let id = answer(shared, &reply, PathError::ConnectionLost).await?;
        Ok(self.path(id))
    }

    /// The handle to a path, by its identifier as [`Connection::paths`] and
    /// [`Connection::path_event`] name it.
    pub fn path(&self, id: PathId) -> Path {
        Path {
            handle: self.handle().clone(),
            id,
        }
    }

    /// Whether both sides take several paths; false until the handshake is complete.
    pub fn is_multipath(&self) -> bool {
        self.handshake().is_some_and(|h| h.multipath)
    }

    /// Every path as it stands, those included that were abandoned and are not forgotten yet, in
    /// the order of their identifiers; after the connection's end, as they stood then. A connection
    /// without several paths has the one.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// The connection is over, and its shard with it.
    pub async fn paths(&self) -> Result<Vec<PathInfo>, ConnectionError> {
        let asked = self.ask(Request::Paths).await;
        asked.or_else(|why| {
            let last = self.shared().last_stats.get();
            last.map(|s| s.paths.clone()).ok_or(why)
        })
    }

    /// Has a stream sent by any path again, after [`Path::pin`].
    ///
    /// # Errors
    /// [`PathError::Pin`] or [`PathError::ConnectionLost`].
    pub async fn unpin(&self, stream: StreamId) -> Result<(), PathError> {
        self.set_pin(stream, None).await
    }

    async fn set_pin(&self, id: StreamId, pin: Option<Pin>) -> Result<(), PathError> {
        let request = |reply| Request::PinStream { id, pin, reply };
        let asked = self.ask(request).await;
        asked
            .map_err(PathError::ConnectionLost)?
            .map_err(PathError::Pin)
    }

    /// The next thing that happened to a path. Each is told once, to one reader; while nobody
    /// reads, [`PATH_EVENTS`](limits::PATH_EVENTS) wait and then the oldest is dropped, so that
    /// [`Connection::paths`] has the last word.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// The connection is over, and nothing is left to tell.
    pub async fn path_event(&self) -> Result<PathEvent, ConnectionError> {
        let shared = self.shared();
        let next = || {
            // Looked at first: what came before the end is told before it.
            let over = shared.closed.get();
            let event = shared.path_news.get().and_then(|news| news.0.pop());
            event.map(Ok).or_else(|| over.map(|why| Err(why.clone())))
        };
        shared.waiters.until(next).await
    }
}

/// One path of a connection, of either side. Clones are handles to the same path; a handle keeps
/// the connection open as those of its streams do, and dropping it closes nothing.
#[derive(Clone)]
pub struct Path {
    handle: Arc<ConnHandle>,
    id: PathId,
}

impl Path {
    /// Its identifier, the same for both sides and never used again.
    pub fn id(&self) -> PathId {
        self.id
    }

    /// Says what the path is to be used for, by either side: this one keeps to it, the peer is told
    /// and may.
    ///
    /// # Errors
    /// [`PathError::Unusable`] or [`PathError::ConnectionLost`].
    pub async fn set_status(&self, status: PathStatus) -> Result<(), PathError> {
        let id = self.id;
        self.tell(|reply| Request::SetPathStatus { id, status, reply })
            .await
    }

    /// Stops using the path; what was on its way there is sent again over others where it does not
    /// arrive. Closing the last path closes the connection. What the path counted, [`Path::stats`]
    /// goes on to tell.
    ///
    /// # Errors
    /// [`PathError::Unusable`] or [`PathError::ConnectionLost`].
    pub async fn close(&self) -> Result<(), PathError> {
        self.close_with(Code::APPLICATION_ABANDON_PATH).await
    }

    /// As [`Path::close`], with one of the codes of multipath §4.2.1 for the peer.
    ///
    /// # Errors
    /// As [`Path::close`].
    pub async fn close_with(&self, error: Code) -> Result<(), PathError> {
        let id = self.id;
        self.tell(|reply| Request::ClosePath { id, error, reply })
            .await
    }

    /// How it stands; of a path that was closed, what it had counted at last. That is kept of the
    /// latest [`PATHS`](limits::PATHS) such paths; `None` for those before, and for one that never
    /// was.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// The connection is over, and its shard with it.
    pub async fn stats(&self) -> Result<Option<PathInfo>, ConnectionError> {
        let id = self.id;
        let connection = self.connection();
        let asked = connection.with(move |_, c| {
            let past = || c.past_paths().find(|p| p.id == id);
            c.path_info(id).or_else(past)
        });
        asked.await.or_else(|why| {
            let last = self.handle.shared.last_stats.get().ok_or(why)?;
            let mut all = last.paths.iter().chain(&last.past_paths);
            Ok(all.find(|p| p.id == id).copied())
        })
    }

    /// Moves the path of a client to `local`, as
    /// [`Connection::migrate_to`] moves a connection of one path; the others go on meanwhile.
    ///
    /// Dropping the future stops the waiting, not the move.
    ///
    /// # Errors
    /// [`MigrationError`]; the path stays where it is.
    pub async fn migrate_to(&self, local: SocketAddr) -> Result<SocketAddr, MigrationError> {
        move_to(&self.handle.shared, Some(self.id), local).await
    }

    /// Has this side send a stream by this path. With `fallback` others carry it while this one
    /// does not work; without, it waits. [`Connection::unpin`] undoes it.
    ///
    /// # Errors
    /// [`PathError::Pin`] or [`PathError::ConnectionLost`].
    pub async fn pin(&self, stream: StreamId, fallback: bool) -> Result<(), PathError> {
        let path = self.id;
        let pin = Some(Pin { path, fallback });
        self.connection().set_pin(stream, pin).await
    }

    /// Queues a datagram (RFC 9221) that leaves by this path. It is sent at most once, and dropped
    /// when the path is gone or too small for it, unless `fallback` lets others carry it then.
    ///
    /// # Errors
    /// [`PathError::Datagram`], also when the queue is full, or [`PathError::ConnectionLost`].
    pub async fn send_datagram(&self, data: Bytes, fallback: bool) -> Result<(), PathError> {
        let path = self.id;
        let pin = Pin { path, fallback };
        let request = |reply| Request::SendDatagramOn { pin, data, reply };
        let sent = self.connection().ask(request).await;
        sent.map_err(PathError::ConnectionLost)?
            .map_err(PathError::Datagram)
    }

    /// The connection that it is a path of.
    pub fn connection(&self) -> Connection {
        Connection::from_handle(self.handle.clone())
    }

    async fn tell(
        &self,
        request: impl FnOnce(Reply<Result<(), ClosePathError>>) -> Request,
    ) -> Result<(), PathError> {
        let told = self.connection().ask(request).await;
        told.map_err(PathError::ConnectionLost)?
            .map_err(PathError::Unusable)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Path").field(&self.id).finish()
    }
}

/// Has the shard move a path, or the connection's first one.
pub(super) async fn move_to(
    shared: &Arc<ConnShared>,
    path: Option<PathId>,
    local: SocketAddr,
) -> Result<SocketAddr, MigrationError> {
    let reply = Arc::new(OnceLock::new());
    shared.link.send(Command::Move(Box::new(Move {
        shared: shared.clone(),
        path,
        local,
        reply: reply.clone(),
    })));
    answer(shared, &reply, MigrationError::ConnectionLost).await
}

/// Waits for the shard's answer, or the connection's end.
async fn answer<T: Clone, E: Clone>(
    shared: &ConnShared,
    reply: &Reply<Result<T, E>>,
    lost: fn(ConnectionError) -> E,
) -> Result<T, E> {
    let answer = || {
        let answered = reply.get().cloned();
        if let Some(Ok(_)) = answered {
            return answered;
        }
        // What a connection that is over refuses, it refuses for that.
        let over = shared.closed.get().cloned();
        over.map(|why| Err(lost(why))).or(answered)
    };
    shared.waiters.until(answer).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cap on news that nobody reads.
    #[test]
    fn the_oldest_news_is_dropped() {
        let news = PathNews::default();
        let most = limits::PATH_EVENTS as u32;
        for id in 0..3 * most {
            news.tell(PathEvent::Validated(PathId(id)));
        }
        let told: Vec<PathEvent> = std::iter::from_fn(|| news.0.pop()).collect();
        let newest = (2 * most..3 * most).map(|id| PathEvent::Validated(PathId(id)));
        assert_eq!(told, newest.collect::<Vec<_>>());
    }
}
