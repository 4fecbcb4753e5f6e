//! What handles and the shard of a connection have in common.
//!
//! Handles change atomics and push to queues of fixed size, then call the shard: each object is in
//! a shard's mailbox at most once, whatever was changed in it meanwhile. Shards push to queues and
//! wake tasks. Nothing here makes a shard wait for a handle, and nothing grows with what a peer
//! sends: windows in bytes and in chunks bound both ways.

use super::error::{ConnectError, MigrationError, PathError};
use super::lazy::Lazy;
use super::paths::{PathNews, PathOptions};
use super::policy;
use super::waiters::Waiters;
use crate::base::limits;
use crate::conn::incoming::{Decision, IncomingId};
use crate::conn::{ClosePathError, ConnId, ConnectionError, ConnectionStats};
use crate::conn::{PathInfo, PathStats, PinError, TransportConfig};
use crate::crypto::ExportError;
use crate::path::schedule::Pin;
use crate::path::{PathId, PathStatus};
use crate::shard::mailbox::{CommandSender, SendError};
use crate::stream::DatagramError;
use crate::wire::{Code, StreamId};
use atomic_waker::AtomicWaker;
use bytes::Bytes;
use crossbeam::queue::{ArrayQueue, SegQueue};
use rustls::pki_types::{CertificateDer, ServerName};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicI8, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// Streams of one kind that wait for the handle that asked for them.
const SUPPLY: usize = 16;
/// Requests of a connection that wait for the shard.
const REQUESTS: usize = 16;
/// Datagrams of a connection between handle and shard, each way: about a train of small ones.
const DATAGRAMS: usize = 256;

/// What handles say to a shard.
pub(super) enum Command {
    /// Something changed in a connection.
    Conn(Arc<ConnShared>),
    /// Begin a connection.
    Connect(Box<Attempt>),
    /// A held connection attempt was decided about.
    Decide(Box<Verdict>),
    /// Move a connection.
    Move(Box<Move>),
    /// Open another path of a connection.
    OpenPath(Box<OpenPath>),
    /// Take this socket, and keep it.
    AddSocket(UdpSocket),
    /// Give up the sockets that are bound there.
    RemoveSocket(SocketAddr),
    /// Take this socket, and move connections to it.
    Rebind(UdpSocket),
    /// These are the host's addresses; `None` leaves it to the kernel.
    LocalAddresses(Option<Vec<IpAddr>>),
    /// Something changed in the endpoint, or datagrams of another protocol wait to be sent.
    Look,
}

/// A connection to move.
pub(super) struct Move {
    pub(super) shared: Arc<ConnShared>,
    /// Which of several paths; the first one by default.
    pub(super) path: Option<PathId>,
    pub(super) local: SocketAddr,
    pub(super) reply: Reply<Result<SocketAddr, MigrationError>>,
}

/// A path to open.
pub(super) struct OpenPath {
    pub(super) shared: Arc<ConnShared>,
    pub(super) options: PathOptions,
    pub(super) reply: Reply<Result<PathId, PathError>>,
}

/// What all shards of an endpoint and its handles have in common.
#[derive(Default)]
pub(super) struct Hub {
    /// The code and reason that the endpoint was closed with.
    pub(super) closed: OnceLock<(u64, Vec<u8>)>,
    /// No handle to the endpoint is left.
    pub(super) abandoned: AtomicBool,
    /// Who waits for an attempt to accept, or for the end of all connections.
    pub(super) waiters: Waiters,
    /// Attempts that nobody took yet.
    pub(super) backlog: Backlog,
    /// Datagrams of another protocol that nobody took yet.
    pub(super) others: Others,
}

impl Hub {
    pub(super) fn is_closed(&self) -> bool {
        self.closed.get().is_some() || self.abandoned.load(Ordering::SeqCst)
    }
}

/// Attempts that nobody took yet.
pub(super) struct Backlog(pub(super) ArrayQueue<Held>);

impl Default for Backlog {
    fn default() -> Self {
        Self(ArrayQueue::new(limits::ACCEPT_BACKLOG))
    }
}

/// Datagrams of another protocol on QUIC's sockets, between shards and handles.
pub(super) struct Others {
    pub(super) queue: ArrayQueue<OtherDatagram>,
    pub(super) waiters: Waiters,
    /// The shard was told that some wait.
    pub(super) called: AtomicBool,
}

impl Default for Others {
    fn default() -> Self {
        Self {
            queue: ArrayQueue::new(limits::OTHER_DATAGRAMS),
            waiters: Waiters::default(),
            called: AtomicBool::new(false),
        }
    }
}

/// A datagram that is not QUIC, on a socket that QUIC shares with another protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherDatagram {
    /// Our end: where it was received, or shall leave from. Its port names the socket; an
    /// unspecified IP leaves the source address to the system.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: SocketAddr,
    /// The UDP payload.
    pub data: Bytes,
}

/// A connection attempt that a shard holds.
pub(super) struct Held {
    pub(super) link: Arc<Link>,
    pub(super) id: IncomingId,
    pub(super) remote: SocketAddr,
    pub(super) validated: bool,
}

/// The way to one shard.
pub(super) struct Link {
    pub(super) hub: Arc<Hub>,
    /// Set once the shards run.
    pub(super) sender: OnceLock<CommandSender<Command>>,
    /// Commands that found the mailbox full: at most one for each object that exists.
    pub(super) overflow: SegQueue<Command>,
    /// Datagrams of another protocol to send.
    pub(super) others: Others,
    /// Attempts to connect that the shard has not come to.
    pub(super) connects: AtomicUsize,
    /// Who waits to be one of them.
    pub(super) room: Waiters,
    /// Connections that were begun and are not gone.
    pub(super) open: AtomicUsize,
}

impl Link {
    pub(super) fn new(hub: Arc<Hub>) -> Self {
        Self {
            hub,
            sender: OnceLock::new(),
            overflow: SegQueue::new(),
            others: Others::default(),
            connects: AtomicUsize::new(0),
            room: Waiters::default(),
            open: AtomicUsize::new(0),
        }
    }

    /// Sends a command. It is dropped if the shard has ended, and never otherwise.
    pub(super) fn send(&self, command: Command) {
        let Some(sender) = self.sender.get() else {
            return;
        };
        if let Err(SendError::Full(command)) = sender.send(command) {
            self.overflow.push(command);
            // If the mailbox is full still, the shard looks here after emptying it; if not, this
            // one makes it look.
            let _ = sender.send(Command::Look);
            if sender.is_closed() {
                while self.overflow.pop().is_some() {}
            }
        }
    }
}

/// One connection as far as it counts: made with it, dropped when it is gone from its shard or
/// never came about. Whatever drops it, nobody waits for the connection afterwards.
pub(super) struct Ticket {
    pub(super) shared: Arc<ConnShared>,
}

impl Ticket {
    pub(super) fn new(shared: Arc<ConnShared>) -> Self {
        shared.link.open.fetch_add(1, Ordering::SeqCst);
        Self { shared }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let link = &self.shared.link;
        let last = link.open.fetch_sub(1, Ordering::SeqCst) == 1;
        self.shared.end(ConnectionError::EndpointClosed);
        if last {
            link.hub.waiters.notify();
            if link.hub.abandoned.load(Ordering::SeqCst) {
                link.send(Command::Look);
            }
        }
    }
}

/// A connection to begin.
pub(super) struct Attempt {
    pub(super) ticket: Option<Ticket>,
    pub(super) remote: SocketAddr,
    pub(super) tls: Arc<rustls::ClientConfig>,
    pub(super) name: ServerName<'static>,
    pub(super) transport: Option<Arc<TransportConfig>>,
    /// Counted in its link's `connects`.
    counted: Option<Arc<Link>>,
}

impl Attempt {
    pub(super) fn new(
        ticket: Ticket,
        remote: SocketAddr,
        tls: Arc<rustls::ClientConfig>,
        name: ServerName<'static>,
        transport: Option<Arc<TransportConfig>>,
    ) -> Self {
        Self {
            ticket: Some(ticket),
            remote,
            tls,
            name,
            transport,
            counted: None,
        }
    }

    /// Sends the attempt to its shard, or gives it back when too many wait there.
    pub(super) fn launch(mut self: Box<Self>) -> Option<Box<Self>> {
        let link = self.ticket.as_ref()?.shared.link.clone();
        if link.connects.fetch_add(1, Ordering::SeqCst) >= limits::MAILBOX_CONNECTS {
            link.connects.fetch_sub(1, Ordering::SeqCst);
            return Some(self);
        }
        self.counted = Some(link.clone());
        link.send(Command::Connect(self));
        None
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(link) = self.counted.take() {
            link.connects.fetch_sub(1, Ordering::SeqCst);
            link.room.notify();
        }
    }
}

/// What becomes of a held attempt; with a ticket when it is accepted.
pub(super) struct Verdict {
    pub(super) id: IncomingId,
    pub(super) decision: Decision,
    pub(super) ticket: Option<Ticket>,
}

/// What the handshake established.
#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) alpn: Option<Vec<u8>>,
    pub(super) server_name: Option<String>,
    pub(super) certificates: Option<Vec<CertificateDer<'static>>>,
    pub(super) resumed: bool,
    /// Early data was accepted.
    pub(super) early: bool,
    /// Both sides take several paths.
    pub(super) multipath: bool,
}

/// What a connection had counted when it ended.
#[derive(Debug)]
pub(super) struct LastStats {
    pub(super) connection: ConnectionStats,
    pub(super) path: PathStats,
    pub(super) paths: Vec<PathInfo>,
    /// Of paths that were forgotten before.
    pub(super) past_paths: Vec<PathInfo>,
}

/// The answer to a request.
pub(super) type Reply<T> = Arc<OnceLock<T>>;

/// A question to the shard.
pub(super) enum Request {
    Stats(Reply<(ConnectionStats, PathStats)>),
    Export {
        len: usize,
        label: Vec<u8>,
        context: Option<Vec<u8>>,
        reply: Reply<Result<Vec<u8>, ExportError>>,
    },
    UpdateKeys(Reply<bool>),
    Paths(Reply<Vec<PathInfo>>),
    SetPathStatus {
        id: PathId,
        status: PathStatus,
        reply: Reply<Result<(), ClosePathError>>,
    },
    With(policy::Work),
    PinStream {
        id: StreamId,
        pin: Option<Pin>,
        reply: Reply<Result<(), PinError>>,
    },
    SendDatagramOn {
        pin: Pin,
        data: Bytes,
        reply: Reply<Result<(), DatagramError>>,
    },
    ClosePath {
        id: PathId,
        error: Code,
        reply: Reply<Result<(), ClosePathError>>,
    },
}

/// A stream that wants the shard's attention.
pub(super) enum Work {
    Send(Arc<SendShared>),
    Recv(Arc<RecvShared>),
}

/// The halves of a stream that this side has.
pub(super) struct Halves {
    pub(super) send: Option<Arc<SendShared>>,
    pub(super) recv: Option<Arc<RecvShared>>,
}

/// Streams of one kind, brought by the shard as they are asked for.
pub(super) struct Supply {
    pub(super) ready: ArrayQueue<Halves>,
    /// Futures that wait for one.
    pub(super) want: AtomicUsize,
    pub(super) waiters: Waiters,
}

impl Default for Supply {
    fn default() -> Self {
        let ready = ArrayQueue::new(SUPPLY);
        Self {
            ready,
            want: AtomicUsize::new(0),
            waiters: Waiters::default(),
        }
    }
}

impl Supply {
    /// Whether the shard should bring another.
    pub(super) fn lacks(&self) -> bool {
        let ready = self.ready.len();
        ready < SUPPLY && ready < self.want.load(Ordering::SeqCst)
    }
}

/// Datagrams on their way to a handle or from it.
pub(super) struct Datagrams {
    pub(super) queue: ArrayQueue<Bytes>,
    /// The shard has more than fit.
    pub(super) more: AtomicBool,
    pub(super) waiters: Waiters,
}

impl Default for Datagrams {
    fn default() -> Self {
        let queue = ArrayQueue::new(DATAGRAMS);
        Self {
            queue,
            more: AtomicBool::new(false),
            waiters: Waiters::default(),
        }
    }
}

/// [`ConnShared::max_datagram`] when the peer takes none.
pub(super) const NO_DATAGRAMS: usize = usize::MAX;

/// One connection.
pub(super) struct ConnShared {
    pub(super) link: Arc<Link>,
    /// Its name on its shard, once begun.
    pub(super) id: OnceLock<ConnId>,
    /// The peer's address. The shard only tries the lock.
    pub(super) remote: Mutex<SocketAddr>,
    /// Why it was never begun.
    pub(super) failure: Lazy<ArrayQueue<ConnectError>>,
    pub(super) handshake: OnceLock<Handshake>,
    /// Early data flows, or did.
    pub(super) early: AtomicBool,
    /// What TLS objected to.
    pub(super) tls_failure: OnceLock<rustls::Error>,
    pub(super) closed: OnceLock<ConnectionError>,
    /// The counters at the end.
    pub(super) last_stats: OnceLock<Box<LastStats>>,
    /// There once something happened to a path.
    pub(super) path_news: Lazy<PathNews>,
    /// Who waits for the handshake, the end, or an answer.
    pub(super) waiters: Waiters,
    /// Code and reason that the application closes with.
    pub(super) close: OnceLock<(u64, Vec<u8>)>,
    /// In the shard's mailbox already.
    pub(super) called: AtomicBool,
    pub(super) work: SegQueue<Work>,
    requests: Lazy<ArrayQueue<Request>>,
    /// Streams to open, by `Dir as usize`; there once somebody asks for one.
    pub(super) open: [Lazy<Supply>; 2],
    /// Streams of the peer, by `Dir as usize`; there once somebody asks for one.
    pub(super) accept: [Lazy<Supply>; 2],
    /// There once somebody reads datagrams.
    pub(super) inbox: Lazy<Datagrams>,
    /// There once somebody sends datagrams.
    pub(super) outbox: Lazy<Datagrams>,
    pub(super) max_datagram: AtomicUsize,
}

impl ConnShared {
    pub(super) fn new(link: Arc<Link>, remote: SocketAddr) -> Self {
        Self {
            link,
            id: OnceLock::new(),
            remote: Mutex::new(remote),
            failure: Lazy::new(),
            handshake: OnceLock::new(),
            early: AtomicBool::new(false),
            tls_failure: OnceLock::new(),
            closed: OnceLock::new(),
            last_stats: OnceLock::new(),
            path_news: Lazy::new(),
            waiters: Waiters::default(),
            close: OnceLock::new(),
            called: AtomicBool::new(false),
            work: SegQueue::new(),
            requests: Lazy::new(),
            open: [Lazy::new(), Lazy::new()],
            accept: [Lazy::new(), Lazy::new()],
            inbox: Lazy::new(),
            outbox: Lazy::new(),
            max_datagram: AtomicUsize::new(NO_DATAGRAMS),
        }
    }

    /// Leaves a request for the shard; it comes back when too many wait.
    pub(super) fn request(&self, request: Request) -> Result<(), Request> {
        let requests = self.requests.make(|| ArrayQueue::new(REQUESTS));
        requests.push(request)
    }

    /// The oldest request.
    pub(super) fn next_request(&self) -> Option<Request> {
        self.requests.get()?.pop()
    }

    /// It is never begun, for this one reason.
    pub(super) fn fail(&self, why: ConnectError) {
        let _ = self.failure.make(|| ArrayQueue::new(1)).push(why);
    }

    /// Has the shard look at this connection.
    pub(super) fn call(self: &Arc<Self>) {
        if self.closed.get().is_none() && !self.called.swap(true, Ordering::SeqCst) {
            self.link.send(Command::Conn(self.clone()));
        }
    }

    /// Has the shard look at a stream's sending half.
    pub(super) fn call_send(self: &Arc<Self>, stream: &Arc<SendShared>) {
        if self.closed.get().is_none() && !stream.called.swap(true, Ordering::SeqCst) {
            self.work.push(Work::Send(stream.clone()));
            self.call();
        }
    }

    /// Has the shard look at a stream's receiving half.
    pub(super) fn call_recv(self: &Arc<Self>, stream: &Arc<RecvShared>) {
        if self.closed.get().is_none() && !stream.called.swap(true, Ordering::SeqCst) {
            self.work.push(Work::Recv(stream.clone()));
            self.call();
        }
    }

    /// Ends the connection for its handles; the first reason stays.
    pub(super) fn end(&self, why: ConnectionError) {
        if self.closed.set(why).is_ok() {
            self.waiters.notify();
            for supply in self.open.iter().chain(&self.accept).filter_map(Lazy::get) {
                supply.waiters.notify();
            }
            for datagrams in self.inbox.get().into_iter().chain(self.outbox.get()) {
                datagrams.waiters.notify();
            }
        }
    }

    /// Why the connection is over. For streams, which learn of the end by their own state.
    pub(super) fn why_closed(&self) -> ConnectionError {
        self.closed
            .get()
            .cloned()
            .unwrap_or(ConnectionError::EndpointClosed)
    }
}

/// States of [`SendShared::state`].
pub(super) mod send_state {
    /// Taking data.
    pub(in crate::api) const OPEN: u8 = 0;
    /// Everything was acknowledged, the end included.
    pub(in crate::api) const FINISHED: u8 = 1;
    /// The peer wants no more.
    pub(in crate::api) const STOPPED: u8 = 2;
    /// The connection is over.
    pub(in crate::api) const LOST: u8 = 3;
}

/// Bits of [`SendShared::asked`].
pub(super) mod ask_send {
    /// End the stream after what is queued.
    pub(in crate::api) const FINISH: u8 = 1;
    /// Abandon the stream with `reset_code`.
    pub(in crate::api) const RESET: u8 = 2;
    /// Adopt `priority`.
    pub(in crate::api) const PRIORITY: u8 = 4;
}

/// The sending half of a stream.
pub(super) struct SendShared {
    pub(super) id: StreamId,
    /// Chunks that the stream has not taken yet.
    pub(super) queue: ArrayQueue<Bytes>,
    /// Bytes in them, and in the one that the shard has in hand.
    pub(super) queued: AtomicUsize,
    pub(super) asked: AtomicU8,
    pub(super) reset_code: AtomicU64,
    pub(super) priority: AtomicI8,
    pub(super) state: AtomicU8,
    pub(super) stop_code: AtomicU64,
    pub(super) called: AtomicBool,
    pub(super) waker: AtomicWaker,
}

impl SendShared {
    pub(super) fn new(id: StreamId) -> Self {
        Self {
            id,
            queue: ArrayQueue::new(limits::HANDLE_SEND_CHUNKS),
            queued: AtomicUsize::new(0),
            asked: AtomicU8::new(0),
            reset_code: AtomicU64::new(0),
            priority: AtomicI8::new(0),
            state: AtomicU8::new(send_state::OPEN),
            stop_code: AtomicU64::new(0),
            called: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// Bytes that a handle may queue now.
    pub(super) fn room(&self) -> usize {
        if self.queue.is_full() {
            return 0;
        }
        limits::HANDLE_SEND_WINDOW.saturating_sub(self.queued.load(Ordering::SeqCst))
    }

    /// Tells the handle that the stream is over for sending, unless it was already.
    pub(super) fn end(&self, state: u8) {
        let _ = self.state.compare_exchange(
            send_state::OPEN,
            state,
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
        self.waker.wake();
    }
}

/// States of [`RecvShared::state`].
pub(super) mod recv_state {
    /// More may come.
    pub(in crate::api) const OPEN: u8 = 0;
    /// The end follows what is queued.
    pub(in crate::api) const FINISHED: u8 = 1;
    /// The peer reset the stream.
    pub(in crate::api) const RESET: u8 = 2;
    /// The connection is over.
    pub(in crate::api) const LOST: u8 = 3;
}

/// The receiving half of a stream.
pub(super) struct RecvShared {
    pub(super) id: StreamId,
    /// Early data opened it.
    pub(super) early: bool,
    /// Chunks for the handle.
    pub(super) queue: ArrayQueue<Bytes>,
    /// Bytes in them.
    pub(super) queued: AtomicUsize,
    /// What had not been delivered when the connection ended.
    pub(super) rest: OnceLock<Vec<Bytes>>,
    /// The shard has more than fits; the handle calls it when there is room.
    pub(super) blocked: AtomicBool,
    /// The code to stop with.
    pub(super) stop: OnceLock<u64>,
    pub(super) state: AtomicU8,
    pub(super) reset_code: AtomicU64,
    pub(super) called: AtomicBool,
    pub(super) waker: AtomicWaker,
}

impl RecvShared {
    pub(super) fn new(id: StreamId) -> Self {
        Self {
            id,
            early: false,
            queue: ArrayQueue::new(limits::HANDLE_RECV_CHUNKS),
            queued: AtomicUsize::new(0),
            rest: OnceLock::new(),
            blocked: AtomicBool::new(false),
            stop: OnceLock::new(),
            state: AtomicU8::new(recv_state::OPEN),
            reset_code: AtomicU64::new(0),
            called: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// Tells the handle how the stream ends.
    pub(super) fn end(&self, state: u8) {
        self.state.store(state, Ordering::SeqCst);
        self.waker.wake();
    }
}
