//! A shard: one thread's share of the engine. It owns sockets behind one backend, the connections
//! on them, their timers and its mailboxes, and turns all of that by [`Shard::run_once`].
//!
//! A shard never blocks in a turn, takes no lock and allocates nothing per packet. It is driven,
//! rather than driving: an [`engine`] pins it to a core and loops, an
//! embedder may call it from a thread of its own, and a simulator turns several in one thread. What
//! an application on it is, says [`ShardApp`].

pub mod added;
mod also;
pub mod app;
pub mod auto;
mod bind;
pub mod demux;
pub mod engine;
pub mod lanes;
pub mod mailbox;
pub mod metrics;
pub mod paths;
pub mod qlog;
pub mod quic_lb;
mod run;
pub mod steer;
pub mod wheel;

use crate::base::{SocketId, Timestamp};
use crate::conn::{CidGenerator, ConnId, Endpoint};
use crate::io::{Backend, IoError, SocketOptions};
use crate::wire::ConnectionId;
pub use app::{Context, ShardApp};
use demux::{Demux, Outbox};
use mailbox::Mailbox;
use metrics::Publisher;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use steer::CidCodec;
use wheel::Wheel;

/// What a shard counted, beyond its backend's and its endpoint's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardStats {
    /// Turns of the loop.
    pub turns: u64,
    /// Times the shard slept.
    pub parks: u64,
    /// Trains received by this shard's sockets.
    pub trains: u64,
    /// Datagrams handed to other shards.
    pub forwarded: u64,
    /// Datagrams for other shards that were dropped because their ring was full.
    pub forward_dropped: u64,
    /// Trains that other shards handed over.
    pub adopted: u64,
    /// Commands from application handles.
    pub commands: u64,
    /// Datagrams received that are another protocol's.
    pub others: u64,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Something arrived, expired or was sent.
    pub worked: bool,
    /// More is to be done at once: do not sleep.
    pub busy: bool,
    /// When something expires next.
    pub next: Option<Timestamp>,
    /// The application asked the loop to end.
    pub stopped: bool,
}

/// Times that a turn of a shard that never sleeps looks for something received: looking is half of
/// a turn with nothing to do, and what comes meanwhile waits for the other half.
const LOOKS: u32 = 4;

/// Turns that only look.
#[derive(Clone, Copy, Debug, Default)]
struct Glances {
    /// How many more may.
    left: u32,
    /// When something expires.
    until: Option<Timestamp>,
}

/// One thread's share of the engine. See the module's documentation.
pub struct Shard<A: ShardApp> {
    index: usize,
    backend: Backend,
    endpoint: Endpoint,
    wheel: Wheel,
    mailbox: Mailbox<A::Command>,
    codec: Arc<CidCodec>,
    app: A,
    sockets: Vec<(SocketId, SocketAddr)>,
    /// Sockets whose trains are the application's alone.
    own: Vec<SocketId>,
    /// Options of the socket added last, for those that the application adds.
    options: SocketOptions,
    /// Those of them that are connected, with their peers.
    connected: Vec<(SocketId, SocketAddr)>,
    demux: Option<Demux>,
    outbox: Outbox,
    /// Connections whose socket took no more this turn; kept for its capacity.
    blocked: Vec<ConnId>,
    /// Times that a turn looks for something received.
    looks: u32,
    /// Turns to come that may only look, for want of anything else to do.
    glances: Glances,
    stop: bool,
    stats: ShardStats,
    metrics: Publisher,
    /// Wakes another shard that sleeps.
    wake: Box<dyn Fn(usize) + Send>,
}

impl<A: ShardApp> Shard<A> {
    /// A shard over an open backend. Its endpoint's connection IDs must come from `codec`
    /// ([`CodecCids`]), so that other shards can tell whose they are. `wake` ends the sleep of
    /// another shard, by its number.
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts that a shard is put together from"
    )]
    pub fn new(
        now: Timestamp,
        index: usize,
        backend: Backend,
        endpoint: Endpoint,
        codec: Arc<CidCodec>,
        mailbox: Mailbox<A::Command>,
        wake: Box<dyn Fn(usize) + Send>,
        app: A,
    ) -> Self {
        Self {
            index,
            backend,
            endpoint,
            wheel: Wheel::new(now),
            mailbox,
            wake,
            codec,
            app,
            sockets: Vec::new(),
            own: Vec::new(),
            options: SocketOptions::default(),
            connected: Vec::new(),
            demux: None,
            outbox: Outbox::default(),
            blocked: Vec::new(),
            looks: 1,
            glances: Glances::default(),
            stop: false,
            stats: ShardStats::default(),
            metrics: Publisher::default(),
        }
    }

    /// For whoever turns the shard all the time, as [`engine::drive`] does with
    /// [`Idle::Spin`](engine::Idle::Spin): a turn looks for something received more than once, and
    /// while there is nothing else to do most turns only look.
    pub fn never_sleeps(&mut self) {
        self.looks = LOOKS;
    }

    /// Gives the shard a bound socket.
    ///
    /// # Errors
    /// The backend could not take it.
    pub fn add_socket(
        &mut self,
        socket: UdpSocket,
        options: SocketOptions,
    ) -> Result<SocketId, IoError> {
        let id = self.backend.add_socket(socket, options)?;
        self.options = options;
        self.note_socket(id);
        Ok(id)
    }

    /// Makes a socket known that the backend has already, as the simulated one's.
    pub fn note_socket(&mut self, id: SocketId) {
        if let Some(addr) = self.backend.local_addr(id) {
            self.sockets.push((id, addr));
        }
        if let Some(peer) = self.backend.peer_addr(id) {
            self.connected.push((id, peer));
        }
    }

    /// Shares the sockets with another protocol, whose datagrams go to [`ShardApp::on_other`] from
    /// now on.
    pub fn set_demux(&mut self, demux: Option<Demux>) {
        if demux.is_some() {
            self.endpoint.keep_fixed_bit();
        }
        self.demux = demux;
    }

    /// The shard's number.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The application.
    pub fn app(&self) -> &A {
        &self.app
    }

    /// The application.
    pub fn app_mut(&mut self) -> &mut A {
        &mut self.app
    }

    /// The connections.
    pub fn endpoint(&mut self) -> &mut Endpoint {
        &mut self.endpoint
    }

    /// The backend.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// The shard's sockets and their addresses.
    pub fn sockets(&self) -> &[(SocketId, SocketAddr)] {
        &self.sockets
    }

    /// What the shard counted.
    pub fn stats(&self) -> ShardStats {
        self.stats
    }

    /// Calls `f` with the application and the shard as an application sees it.
    pub fn with_context<R>(
        &mut self,
        now: Timestamp,
        f: impl FnOnce(&mut A, &mut Context<'_>) -> R,
    ) -> R {
        let mut ctx = Context {
            now,
            endpoint: &mut self.endpoint,
            backend: &mut self.backend,
            sockets: &mut self.sockets,
            own: &mut self.own,
            options: self.options,
            connected: &self.connected,
            outbox: &mut self.outbox,
            stats: &self.stats,
            stop: &mut self.stop,
            shard: self.index,
        };
        f(&mut self.app, &mut ctx)
    }
}

/// Connection IDs that carry a shard's number, for an [`Endpoint`]: a packet reaches the shard that
/// has the connection before any shard answers with a stateless reset (RFC 9000 §21.11).
pub struct CodecCids(pub Arc<CidCodec>);

impl CidGenerator for CodecCids {
    fn issue(&mut self, rng: &mut crate::base::Rng) -> ConnectionId {
        self.0.issue(rng)
    }

    fn len(&self) -> usize {
        self.0.cid_len()
    }
}

/// The wheel's key of a connection; 0 is the application's.
const fn timer_key(id: ConnId) -> u32 {
    id.index() + 1
}
