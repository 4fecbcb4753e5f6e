//! A connection's handle, and the future that becomes one.

use super::datagrams::{ask_for_more, inbox};
use super::error::{ConnectError, KeyingMaterialError, SendDatagramError};
use super::recv_stream::RecvStream;
use super::send_stream::SendStream;
use super::shared::{
    Attempt, ConnShared, Datagrams, Halves, Handshake, NO_DATAGRAMS, Reply, Request, Supply,
};
use super::waiters::Place;
use crate::conn::{ConnectionError, ConnectionStats, PathStats};
use crate::wire::Dir;
use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, PoisonError};
use std::task::{Context, Poll};

/// What all handles of a connection and of its streams hold. When the last is dropped, nobody can
/// use the connection any more, and it is closed with code 0.
pub(super) struct ConnHandle {
    pub(super) shared: Arc<ConnShared>,
}

impl Drop for ConnHandle {
    fn drop(&mut self) {
        let _ = self.shared.close.set((0, Vec::new()));
        self.shared.call();
    }
}

/// A connection whose handshake is under way. A future: it yields the [`Connection`] when the
/// handshake is complete.
///
/// The handshake goes on whether or not this is polled. Dropping it abandons the connection.
#[must_use = "dropping it abandons the connection"]
pub struct Connecting {
    /// There until the future is done.
    handle: Option<Arc<ConnHandle>>,
    /// Not sent to the shard for want of room there.
    unsent: Option<Box<Attempt>>,
    failure: Option<ConnectError>,
    /// It is done as soon as early data flows.
    early: bool,
    remote: SocketAddr,
    place: Place,
    room: Place,
}

impl Connecting {
    fn new(shared: Option<Arc<ConnShared>>, remote: SocketAddr) -> Self {
        Self {
            handle: shared.map(|shared| Arc::new(ConnHandle { shared })),
            unsent: None,
            failure: None,
            early: false,
            remote,
            place: Place::default(),
            room: Place::default(),
        }
    }

    /// One whose attempt failed at once.
    pub(super) fn failed(why: ConnectError, remote: SocketAddr) -> Self {
        let mut this = Self::new(None, remote);
        this.failure = Some(why);
        this
    }

    /// One that the shard knows of.
    pub(super) fn begun(shared: Arc<ConnShared>) -> Self {
        let remote = remote_of(&shared);
        Self::new(Some(shared), remote)
    }

    /// One that the shard is to begin.
    pub(super) fn begin(shared: Arc<ConnShared>, attempt: Box<Attempt>) -> Self {
        let mut this = Self::begun(shared);
        this.unsent = attempt.launch();
        this
    }

    /// The peer's address.
    pub fn remote_address(&self) -> SocketAddr {
        self.remote
    }

    /// Has this yield the connection as soon as early data (0-RTT, RFC 9001 §4.6) can be sent or
    /// arrives, and not only when the handshake is complete. Without early data it makes no
    /// difference.
    ///
    /// A client has early data when its TLS configuration says `enable_early_data` and holds a
    /// session of the server that permits it. What it sends on streams arrives in any case, early
    /// or, if the server takes no early data, after the handshake; a datagram that the server did
    /// not take early is lost. Somebody who copies the packets may send them again: servers of this
    /// library take no session twice, others might. Send only what does no harm twice.
    ///
    /// A server has early data when its TLS configuration says `max_early_data_size` of `u32::MAX`
    /// and the client sent some. Nothing proves until
    /// [`Connection::early_data_accepted`] is done that it comes from the client now.
    pub fn into_early(mut self) -> Self {
        self.early = true;
        self
    }

    /// Sends the attempt to the shard as soon as there is room.
    fn launch(&mut self, shared: &ConnShared, cx: &Context<'_>) {
        if let Some(attempt) = self.unsent.take() {
            self.unsent = attempt.launch();
        }
        if self.unsent.is_some() {
            shared.link.room.register(&mut self.room, cx.waker());
            self.unsent = self.unsent.take().and_then(Attempt::launch);
        }
        if self.unsent.is_none() {
            shared.link.room.leave(&mut self.room);
        }
    }
}

/// What came of a connection's handshake, if it is over, or with `early` whether early data flows.
fn outcome(shared: &ConnShared, early: bool) -> Option<Result<(), ConnectError>> {
    let flows = early && shared.early.load(Ordering::SeqCst);
    if shared.handshake.get().is_some() || (flows && shared.closed.get().is_none()) {
        return Some(Ok(()));
    }
    let why = shared.closed.get()?;
    Some(Err(
        match (
            shared.failure.get().and_then(|f| f.pop()),
            shared.tls_failure.get(),
        ) {
            (Some(failure), _) => failure,
            (None, Some(tls)) => ConnectError::Tls(tls.clone()),
            (None, None) => ConnectError::Connection(why.clone()),
        },
    ))
}

impl Future for Connecting {
    type Output = Result<Connection, ConnectError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(failure) = this.failure.take() {
            return Poll::Ready(Err(failure));
        }
        let Some(handle) = this.handle.clone() else {
            panic!("a connecting future was polled after it was done");
        };
        let shared = &handle.shared;
        this.launch(shared, cx);
        let mut done = outcome(shared, this.early);
        if done.is_none() {
            shared.waiters.register(&mut this.place, cx.waker());
            done = outcome(shared, this.early);
        }
        let Some(done) = done else {
            return Poll::Pending;
        };
        shared.waiters.leave(&mut this.place);
        this.handle = None;
        Poll::Ready(done.map(|()| Connection { handle }))
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.shared.waiters.leave(&mut self.place);
            handle.shared.link.room.leave(&mut self.room);
        }
    }
}

impl fmt::Debug for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connecting")
            .field("remote_address", &self.remote)
            .finish_non_exhaustive()
    }
}

fn remote_of(shared: &ConnShared) -> SocketAddr {
    *shared.remote.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts a future that waits for a stream.
struct Demand<'a>(&'a Supply);

impl<'a> Demand<'a> {
    fn new(supply: &'a Supply) -> Self {
        supply.want.fetch_add(1, Ordering::SeqCst);
        Self(supply)
    }
}

impl Drop for Demand<'_> {
    fn drop(&mut self) {
        self.0.want.fetch_sub(1, Ordering::SeqCst);
    }
}

/// An established connection, or with [`Connecting::into_early`] one about to be: what the
/// handshake establishes is then `None` or false for a while.
///
/// Clones are handles to the same connection. When the last of them and of the connection's
/// streams is dropped, it is closed with code 0.
#[derive(Clone)]
pub struct Connection {
    handle: Arc<ConnHandle>,
}

impl Connection {
    pub(super) fn shared(&self) -> &Arc<ConnShared> {
        &self.handle.shared
    }

    pub(super) fn handle(&self) -> &Arc<ConnHandle> {
        &self.handle
    }

    pub(super) fn from_handle(handle: Arc<ConnHandle>) -> Self {
        Self { handle }
    }

    pub(super) fn handshake(&self) -> Option<&Handshake> {
        self.shared().handshake.get()
    }

    /// Opens a stream in both directions; waits while the peer permits no more of them. The peer
    /// learns of it when something is written or when it is finished.
    ///
    /// Cancel-safe: a stream that was opened for a dropped future goes to the next one.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn open_bi(&self) -> Result<(SendStream, RecvStream), ConnectionError> {
        self.both(self.shared().open[Dir::Bi as usize].make(Supply::default))
            .await
    }

    /// Opens a stream to send on; waits while the peer permits no more of them. The peer learns of
    /// it when something is written or when it is finished.
    ///
    /// Cancel-safe: a stream that was opened for a dropped future goes to the next one.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn open_uni(&self) -> Result<SendStream, ConnectionError> {
        let halves = self
            .next(self.shared().open[Dir::Uni as usize].make(Supply::default))
            .await?;
        let send = halves.send.ok_or(ConnectionError::EndpointClosed)?;
        Ok(SendStream::new(self.handle.clone(), send))
    }

    /// The next stream that the peer opened in both directions.
    ///
    /// Cancel-safe: a stream that was accepted for a dropped future goes to the next one.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn accept_bi(&self) -> Result<(SendStream, RecvStream), ConnectionError> {
        self.both(self.shared().accept[Dir::Bi as usize].make(Supply::default))
            .await
    }

    /// The next stream that the peer opened to send on.
    ///
    /// Cancel-safe: a stream that was accepted for a dropped future goes to the next one.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn accept_uni(&self) -> Result<RecvStream, ConnectionError> {
        let halves = self
            .next(self.shared().accept[Dir::Uni as usize].make(Supply::default))
            .await?;
        let recv = halves.recv.ok_or(ConnectionError::EndpointClosed)?;
        Ok(RecvStream::new(self.handle.clone(), recv))
    }

    async fn both(&self, supply: &Supply) -> Result<(SendStream, RecvStream), ConnectionError> {
        match self.next(supply).await? {
            Halves {
                send: Some(send),
                recv: Some(recv),
            } => Ok((
                SendStream::new(self.handle.clone(), send),
                RecvStream::new(self.handle.clone(), recv),
            )),
            // A stream in both directions has both halves.
            _ => Err(ConnectionError::EndpointClosed),
        }
    }

    /// The next stream of a kind.
    async fn next(&self, supply: &Supply) -> Result<Halves, ConnectionError> {
        let shared = self.shared();
        let take = || match shared.closed.get() {
            Some(why) => Some(Err(why.clone())),
            None => supply.ready.pop().map(Ok),
        };
        let got = match take() {
            Some(got) => got,
            None => {
                let _demand = Demand::new(supply);
                shared.call();
                supply.waiters.until(take).await
            }
        };
        if supply.lacks() {
            // What we took was brought for another, or there are more who wait than were served.
            shared.call();
        }
        got
    }

    /// Queues a datagram (RFC 9221), waiting while the queue is full. It is sent at most once, and
    /// dropped if the path shrank below its size before its turn came.
    ///
    /// Cancel-safe: dropping the future before it is done sends nothing.
    ///
    /// # Errors
    /// [`SendDatagramError`].
    pub async fn send_datagram(&self, data: Bytes) -> Result<(), SendDatagramError> {
        let shared = self.shared();
        match self.max_datagram_size() {
            None => return Err(SendDatagramError::Unsupported),
            Some(max) if data.len() > max => return Err(SendDatagramError::TooLarge { max }),
            Some(_) => {}
        }
        let out = shared.outbox.make(Datagrams::default);
        let mut data = Some(data);
        let push = || {
            if let Some(why) = shared.closed.get() {
                return Some(Err(SendDatagramError::ConnectionLost(why.clone())));
            }
            data = out.queue.push(data.take()?).err();
            data.is_none().then_some(Ok(()))
        };
        let done = out.waiters.until(push).await;
        shared.call();
        done
    }

    /// The next datagram that was received. Until the first call they wait in a queue that drops
    /// the oldest when it is full, and so do those that come while nobody reads.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn read_datagram(&self) -> Result<Bytes, ConnectionError> {
        let shared = self.shared();
        let inbox = inbox(shared);
        let take = || {
            let data = inbox.queue.pop();
            ask_for_more(shared, inbox);
            data.map(Ok)
                .or_else(|| shared.closed.get().map(|why| Err(why.clone())))
        };
        inbox.waiters.until(take).await
    }

    /// The largest datagram that fits now, in bytes; `None` when the peer takes none.
    pub fn max_datagram_size(&self) -> Option<usize> {
        let max = self.shared().max_datagram.load(Ordering::Relaxed);
        (max != NO_DATAGRAMS).then_some(max)
    }

    /// Closes the connection at once, with a code and a reason (cut to 256 bytes) for the peer's
    /// application. Data that was not delivered is lost: see [`SendStream::stopped`]. The first
    /// call counts.
    pub fn close(&self, code: u64, reason: &[u8]) {
        if self.shared().close.set((code, reason.to_vec())).is_ok() {
            self.shared().call();
        }
    }

    /// Waits until the connection is over, and says why.
    ///
    /// Cancel-safe.
    pub async fn closed(&self) -> ConnectionError {
        let shared = self.shared();
        shared.waiters.until(|| shared.closed.get().cloned()).await
    }

    /// Why the connection is over; `None` while it is not.
    pub fn close_reason(&self) -> Option<ConnectionError> {
        self.shared().closed.get().cloned()
    }

    /// The peer's address, which changes when the peer moves.
    pub fn remote_address(&self) -> SocketAddr {
        remote_of(self.shared())
    }

    /// The protocol that ALPN chose.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.handshake()?.alpn.as_deref()
    }

    /// The name that the client asked for; `None` on the client.
    pub fn server_name(&self) -> Option<&str> {
        self.handshake()?.server_name.as_deref()
    }

    /// The peer's certificates, its own first; `None` when it showed none.
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.handshake()?.certificates.as_deref()
    }

    /// Waits for the end of the handshake. True when early data was sent and the server took it; at
    /// a server, when it came. What was read before from a stream that
    /// [is early](super::RecvStream::is_early) is then known to be the client's own.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// The connection is over, and its handshake never was.
    pub async fn early_data_accepted(&self) -> Result<bool, ConnectionError> {
        let shared = self.shared();
        let known = || match (shared.handshake.get(), shared.closed.get()) {
            (Some(handshake), _) => Some(Ok(handshake.early)),
            (None, Some(why)) => Some(Err(why.clone())),
            (None, None) => None,
        };
        shared.waiters.until(known).await
    }

    /// Whether the handshake resumed an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.handshake().is_some_and(|h| h.resumed)
    }

    /// Fills `out` with keying material that both sides, and nobody else, can compute for the same
    /// `label` and `context` (RFC 8446 §7.5).
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`KeyingMaterialError`].
    pub async fn export_keying_material(
        &self,
        out: &mut [u8],
        label: &[u8],
        context: Option<&[u8]>,
    ) -> Result<(), KeyingMaterialError> {
        let (len, label, context) = (out.len(), label.to_vec(), context.map(<[u8]>::to_vec));
        let asked = self
            .ask(|reply| Request::Export {
                len,
                label,
                context,
                reply,
            })
            .await;
        let material = asked.map_err(KeyingMaterialError::ConnectionLost)??;
        out.copy_from_slice(&material);
        Ok(())
    }

    /// What the connection counted; after its end, what it had counted then.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// The connection is over, and its shard with it.
    pub async fn stats(&self) -> Result<ConnectionStats, ConnectionError> {
        Ok(self.both_stats().await?.0)
    }

    /// What is known of the path in use; after the connection's end, what was known then.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// The connection is over, and its shard with it.
    pub async fn path_stats(&self) -> Result<PathStats, ConnectionError> {
        Ok(self.both_stats().await?.1)
    }

    async fn both_stats(&self) -> Result<(ConnectionStats, PathStats), ConnectionError> {
        let asked = self.ask(Request::Stats).await;
        asked.or_else(|why| {
            let last = self.shared().last_stats.get();
            last.map(|s| (s.connection, s.path)).ok_or(why)
        })
    }

    /// Moves to new packet protection keys (RFC 9001 §6). False when it is too early for that: the
    /// handshake must be confirmed and the peer must have used the keys that are in use.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn update_keys(&self) -> Result<bool, ConnectionError> {
        self.ask(Request::UpdateKeys).await
    }

    /// Asks the shard something.
    pub(super) async fn ask<T: Clone>(
        &self,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Result<T, ConnectionError> {
        let shared = self.shared();
        let reply = Arc::new(OnceLock::new());
        let mut request = Some(request(reply.clone()));
        let answer = || {
            if let Some(unsent) = request.take() {
                match shared.request(unsent) {
                    Ok(()) => shared.call(),
                    Err(unsent) => request = Some(unsent),
                }
            }
            let over = || shared.closed.get().map(|why| Err(why.clone()));
            reply.get().cloned().map(Ok).or_else(over)
        };
        shared.waiters.until(answer).await
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("remote_address", &self.remote_address())
            .field("close_reason", &self.close_reason())
            .finish_non_exhaustive()
    }
}
