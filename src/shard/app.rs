//! What an application on a shard is: an object that lives on the shard's thread and is called
//! when something happens, with the shard's connections at hand and nothing to lock.

use super::ShardStats;
use super::demux::Outbox;
use crate::base::net::canonical;
use crate::base::{FourTuple, RecvMeta, SocketId, Timestamp, Transmit};
use crate::conn::endpoint::{ConnectError, EndpointStats};
use crate::conn::{ConnId, Connection, Endpoint, Event, TransportConfig};
use crate::conn::{Decision, Incoming, IncomingId, MigrateError};
use crate::io::{Backend, IoError, IoStats, SocketOptions, WatchId, sockopt};
use crate::stream::{Streams, Taken};
use crate::wire::StreamId;
use rustls::pki_types::ServerName;
use std::cell::Cell;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// An application on one shard. Every method runs on the shard's thread and must not block.
pub trait ShardApp {
    /// What handles on other threads send to this application.
    type Command: Send + 'static;

    /// In-order stream bytes, straight from the receive buffer; returns how many were taken. The
    /// rest is kept and can be read from the stream. `streams` are the connection's: an answer may
    /// be written at once.
    fn on_stream_data(
        &mut self,
        conn: ConnId,
        streams: &mut Streams,
        id: StreamId,
        data: &[u8],
        fin: bool,
    ) -> Taken {
        let _ = (conn, streams, id, data, fin);
        Taken::Prefix(0)
    }

    /// A datagram (RFC 9221), straight from the receive buffer. False leaves it in the connection's
    /// queue, for [`Connection::recv_datagram`] after [`Event::DatagramReceived`]; while any wait
    /// there, none is shown here. What comes before the handshake is complete is always queued.
    #[inline]
    fn on_datagram(&mut self, conn: ConnId, data: &[u8]) -> bool {
        let _ = (conn, data);
        false
    }

    /// A connection has something to tell. After [`Event::Closed`] its name is not used again.
    fn on_event(&mut self, ctx: &mut Context<'_>, conn: ConnId, event: Event);

    /// A client wants to connect.
    fn on_incoming(&mut self, incoming: &Incoming) -> Decision {
        let _ = incoming;
        Decision::Accept
    }

    /// A connection attempt was held, as [`ShardApp::on_incoming`] asked; decide by
    /// [`Context::decide`].
    fn on_held(&mut self, id: IncomingId, incoming: &Incoming) {
        let _ = (id, incoming);
    }

    /// A connection was accepted; its handshake has begun.
    fn on_accepted(&mut self, conn: ConnId) {
        let _ = conn;
    }

    /// A datagram came that is not QUIC, where the sockets are shared with another protocol
    /// ([`Demux`](super::demux::Demux)). Answers leave by `out`, at the end of the turn.
    fn on_other(&mut self, out: &mut Outbox, meta: &RecvMeta, datagram: &[u8]) {
        let _ = (out, meta, datagram);
    }

    /// A train came on a socket that the application added for itself
    /// ([`Context::add_own_socket`]): datagrams of `meta.segment_size` bytes each but the last.
    #[inline]
    fn on_own_train(&mut self, now: Timestamp, meta: &RecvMeta, train: &mut [u8]) {
        let _ = (now, meta, train);
    }

    /// [`ShardApp::on_own_train`] was called, and what came with it was shown. What is written to
    /// own trains here leaves before the rest of the turn: somebody may well wait for it.
    #[inline]
    fn on_own_trains(&mut self, now: Timestamp) {
        let _ = now;
    }

    /// The socket that the application's own next train would leave by; `None` without one.
    #[inline]
    fn next_own(&self) -> Option<SocketId> {
        None
    }

    /// Writes the application's own next train to `buf`, which holds the longest one. Asked while
    /// [`ShardApp::next_own`] names a socket that takes it.
    #[inline]
    fn poll_own(&mut self, now: Timestamp, buf: &mut [u8]) -> Option<Transmit> {
        let _ = (now, buf);
        None
    }

    /// The `n`th piece of the last train of [`ShardApp::poll_own`] that is not in its buffer, which
    /// has the rest without gaps: how many bytes of the buffer go before it, and its bytes. At most
    /// [`GATHER_PIECES`](crate::base::limits::GATHER_PIECES); the train's length is that of both.
    #[inline]
    fn own_piece(&self, n: usize) -> Option<(usize, &[u8])> {
        let _ = n;
        None
    }

    /// Whether the application has something to do that its next [`ShardApp::on_turn`] does: the
    /// shard does not sleep before.
    #[inline]
    fn wants_turn(&self) -> bool {
        false
    }

    /// Whether the application has to look for something in every [`ShardApp::on_turn`]. Where it
    /// has not, a shard that never sleeps and has nothing to do looks at its sockets more often.
    #[inline]
    fn polls(&self) -> bool {
        true
    }

    /// A descriptor that [`Context::watch`] was given became readable: read all there is. A shard
    /// that never sleeps may not tell; look now and then.
    fn on_readable(&mut self, ctx: &mut Context<'_>, id: WatchId) {
        let _ = (ctx, id);
    }

    /// The shard is about to sleep: false has it turn once more. What wakes it may be armed here.
    #[inline]
    fn may_sleep(&mut self) -> bool {
        true
    }

    /// A handle's command arrived.
    fn on_command(&mut self, ctx: &mut Context<'_>, command: Self::Command) {
        let _ = (ctx, command);
    }

    /// Once a turn, after everything that arrived was handled and before trains are built. Returns
    /// when to be called again at the latest; `None` leaves it to what arrives.
    fn on_turn(&mut self, ctx: &mut Context<'_>) -> Option<Timestamp> {
        let _ = ctx;
        None
    }
}

/// The shard as its application sees it during a call.
pub struct Context<'a> {
    pub(super) now: Timestamp,
    pub(super) endpoint: &'a mut Endpoint,
    pub(super) backend: &'a mut Backend,
    pub(super) sockets: &'a mut Vec<(SocketId, SocketAddr)>,
    pub(super) own: &'a mut Vec<SocketId>,
    pub(super) options: SocketOptions,
    pub(super) connected: &'a [(SocketId, SocketAddr)],
    pub(super) outbox: &'a mut Outbox,
    pub(super) stats: &'a ShardStats,
    pub(super) stop: &'a mut bool,
    pub(super) shard: usize,
}

impl Context<'_> {
    /// The turn's time.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// This shard's number.
    pub fn shard(&self) -> usize {
        self.shard
    }

    /// The shard's sockets and the addresses they are bound to.
    pub fn sockets(&self) -> &[(SocketId, SocketAddr)] {
        self.sockets
    }

    /// Gives the shard another bound socket, with the options of those it has.
    ///
    /// # Errors
    /// The backend could not take it.
    pub fn add_socket(&mut self, socket: UdpSocket) -> Result<SocketId, IoError> {
        let id = self.backend.add_socket(socket, self.options)?;
        if let Some(addr) = self.backend.local_addr(id) {
            self.sockets.push((id, addr));
        }
        Ok(id)
    }

    /// Gives the shard a bound socket that is the application's alone: its trains go to
    /// [`ShardApp::on_own_train`], whole, and no connection uses it.
    ///
    /// # Errors
    /// The backend could not take it.
    pub fn add_own_socket(&mut self, socket: UdpSocket) -> Result<SocketId, IoError> {
        self.add_own(socket, false)
    }

    fn add_own(&mut self, socket: UdpSocket, checked: bool) -> Result<SocketId, IoError> {
        let options = SocketOptions {
            bare: true,
            checked,
            ..self.options
        };
        let id = self.backend.add_socket(socket, options)?;
        self.own.push(id);
        Ok(id)
    }

    /// Gives the shard another socket that is the application's alone, at `local`, where its socket
    /// `id` is, and connected to `peer`: what comes from there is its, all else the other's. Its
    /// datagrams must have a check of their own, as RoCE's have: in the moment in which it turns
    /// from trains to single datagrams or back, a train may rarely be taken for one datagram.
    ///
    /// # Errors
    /// The system does not permit it, or the backend could not take it.
    pub fn add_own_beside(
        &mut self,
        id: SocketId,
        local: SocketAddr,
        peer: SocketAddr,
    ) -> Result<SocketId, IoError> {
        let socket = self.backend.socket_beside(id, local, peer)?;
        sockopt::accept_unchecked(&socket);
        self.add_own(socket, true)
    }

    /// Ends the shard's sleep whenever `fd` becomes readable, and tells
    /// [`ShardApp::on_readable`]. The shard keeps a duplicate; the application may close its own.
    ///
    /// # Errors
    /// The backend could not take it.
    pub fn watch(&mut self, fd: BorrowedFd<'_>) -> Result<WatchId, IoError> {
        self.backend.watch_duplicate(fd)
    }

    /// Watches a descriptor no longer.
    pub fn unwatch(&mut self, id: WatchId) {
        self.backend.unwatch(id);
    }

    /// Closes a socket. Connections that use it hear nothing any more until they move.
    pub fn remove_socket(&mut self, id: SocketId) {
        self.backend.remove_socket(id);
        self.own.retain(|s| *s != id);
        self.sockets.retain(|(s, _)| *s != id);
    }

    /// Moves a client connection to another of the shard's sockets; see [`Connection::migrate`].
    /// Returns the addresses that [`Event::Migrated`] or [`Event::MigrationFailed`] will name.
    ///
    /// # Errors
    /// [`MigrateError`].
    pub fn migrate(&mut self, conn: ConnId, socket: SocketId) -> Result<FourTuple, MigrateError> {
        let now = self.now;
        self.migrate_with(conn, socket, |c, tuple| c.migrate(now, socket, tuple))
    }

    /// Moves a client connection whose address is lost; see [`Connection::migrate_at_once`].
    ///
    /// # Errors
    /// [`MigrateError`].
    pub fn migrate_at_once(
        &mut self,
        conn: ConnId,
        socket: SocketId,
    ) -> Result<FourTuple, MigrateError> {
        let now = self.now;
        self.migrate_with(conn, socket, |c, tuple| {
            c.migrate_at_once(now, socket, tuple)
        })
    }

    fn migrate_with(
        &mut self,
        conn: ConnId,
        socket: SocketId,
        f: impl FnOnce(&mut Connection, FourTuple) -> Result<(), MigrateError>,
    ) -> Result<FourTuple, MigrateError> {
        let bound = self.sockets.iter().find(|(id, _)| *id == socket);
        let local = bound.map(|(_, addr)| *addr).ok_or(MigrateError::Socket)?;
        let conn = self.connection(conn).ok_or(MigrateError::Closed)?;
        let remote = conn.remote_from(local).ok_or(MigrateError::Socket)?;
        let tuple = FourTuple::new(local, remote);
        f(conn, tuple).map(|()| tuple)
    }

    /// A connection of this shard, to command; it gets its turn to send afterwards.
    pub fn connection(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.endpoint.wake(id);
        self.endpoint.connection(id)
    }

    /// Begins a connection from one of the shard's sockets; see [`Endpoint::connect`].
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect(
        &mut self,
        socket: SocketId,
        remote: SocketAddr,
        tls: Arc<rustls::ClientConfig>,
        name: ServerName<'static>,
        transport: Option<Arc<TransportConfig>>,
    ) -> Result<ConnId, ConnectError> {
        let remote = canonical(remote);
        let peer = self.connected.iter().find(|(id, _)| *id == socket);
        if let Some((_, peer)) = peer.filter(|(_, peer)| *peer != remote) {
            let peer = *peer;
            return Err(ConnectError::Connected { remote, peer });
        }
        let local = self
            .sockets
            .iter()
            .find(|(id, _)| *id == socket)
            .map_or(crate::base::net::UNSPECIFIED, |(_, addr)| *addr);
        let tuple = FourTuple::new(local, remote);
        self.endpoint
            .connect(self.now, socket, tuple, tls, name, transport)
    }

    /// Decides about a held connection attempt; `None` when no connection came of it.
    pub fn decide(&mut self, id: IncomingId, decision: Decision) -> Option<ConnId> {
        self.endpoint.decide(self.now, id, decision, &mut NoData)
    }

    /// The endpoint itself: names of connections, counters.
    pub fn endpoint(&mut self) -> &mut Endpoint {
        self.endpoint
    }

    /// The way out for datagrams of another protocol that shares the shard's sockets.
    pub fn outbox(&mut self) -> &mut Outbox {
        self.outbox
    }

    /// What the shard's backend counted so far.
    pub fn io_stats(&self) -> &IoStats {
        self.backend.stats()
    }

    /// What the shard's endpoint counted so far.
    pub fn endpoint_stats(&self) -> EndpointStats {
        self.endpoint.stats()
    }

    /// What the shard counted so far.
    pub fn shard_stats(&self) -> ShardStats {
        *self.stats
    }

    /// Ends the shard's loop after this turn. Connections are not closed by it.
    pub fn stop(&mut self) {
        *self.stop = true;
    }
}

/// The first flight of a handshake carries no stream data.
struct NoData;

impl crate::conn::Application for NoData {}

/// Shows an endpoint its application and the way to other shards.
pub(super) struct Bridge<'a, A, F> {
    pub(super) app: &'a mut A,
    pub(super) foreign: F,
    /// Counts the ends of streams: of requests, and of answers.
    pub(super) ends: &'a Cell<u64>,
}

impl<A, F> crate::conn::Application for Bridge<'_, A, F>
where
    A: ShardApp,
    F: FnMut(&[u8], &RecvMeta, &mut [u8]) -> bool,
{
    #[inline]
    fn on_stream_data(
        &mut self,
        conn: ConnId,
        streams: &mut Streams,
        id: StreamId,
        data: &[u8],
        fin: bool,
    ) -> Taken {
        self.ends.set(self.ends.get() + u64::from(fin));
        self.app.on_stream_data(conn, streams, id, data, fin)
    }

    #[inline]
    fn on_datagram(&mut self, conn: ConnId, data: &[u8]) -> bool {
        self.app.on_datagram(conn, data)
    }

    fn on_incoming(&mut self, incoming: &Incoming) -> Decision {
        self.app.on_incoming(incoming)
    }

    fn on_held(&mut self, id: IncomingId, incoming: &Incoming) {
        self.app.on_held(id, incoming);
    }

    fn on_accepted(&mut self, conn: ConnId) {
        self.app.on_accepted(conn);
    }

    fn on_foreign(&mut self, dcid: &[u8], meta: &RecvMeta, datagram: &mut [u8]) -> bool {
        (self.foreign)(dcid, meta, datagram)
    }
}
