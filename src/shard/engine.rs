//! Shards on threads of their own: sockets bound, threads pinned, loops run, all of it undone when
//! the last word is said.
//!
//! A listening engine gives every shard a socket of one SO_REUSEPORT group, in the order of their
//! numbers, and a BPF program that steers by the shard number inside the connection ID; where the
//! kernel refuses the program, shards still hand each other what they find. A connecting engine
//! gives every shard a socket with a port of its own. How they are bound is in `bind`.

use super::added::Binder;
use super::also::{self, Sockets};
pub use super::bind::Bind;
use super::demux::Demux;
use super::mailbox::{CommandSender, Mailbox};
use super::metrics::{Metrics, MetricsReader};
use super::quic_lb::{QuicLb, QuicLbConfig, QuicLbError};
use super::steer::{CidCodec, CodecError};
use super::{CodecCids, Shard, ShardApp, ShardStats};
use crate::base::{Rng, Timestamp, limits};
use crate::conn::endpoint::EndpointStats;
use crate::conn::{Endpoint, EndpointConfig, PrefixCaps, TokenMemory, TokenStore, TransportConfig};
use crate::crypto::{ConfigError, random};
use crate::io::{Backend, Choice, IoConfig, IoError, IoStats, SocketOptions, Waker};
use crate::sys::affinity::{self, Core};
use crate::sys::clock::Clock;
use crate::sys::device::DeviceError;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

/// What a shard does when there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Keeps turning: the lowest latency, a core burnt.
    Spin,
    /// Keeps turning for this long after the last work, then sleeps.
    Adaptive(Duration),
    /// Sleeps at once: for machines shared with others.
    Park,
}

impl Default for Idle {
    fn default() -> Self {
        // A wake-up from sleep costs tens of microseconds; spinning about as long pays for itself.
        Self::Adaptive(Duration::from_micros(50))
    }
}

/// What an engine is made from.
#[derive(Clone)]
pub struct EngineConfig {
    /// Prefix of the threads' names.
    pub name: String,
    /// Shards to run, 1 to 255.
    pub shards: usize,
    /// The cores to pin them to, in order and over again; empty leaves them unpinned.
    pub cores: Vec<Core>,
    /// Sockets.
    pub bind: Bind,
    /// Further addresses at which every shard listens, steered like [`Bind::Shared`]: preferred
    /// addresses above all (RFC 9000 §9.6).
    pub also: Vec<SocketAddr>,
    /// The backend.
    pub backend: Choice,
    /// Buffers and pages of each shard's backend.
    pub io: IoConfig,
    /// Options of every socket.
    pub socket: SocketOptions,
    /// Tells QUIC from another protocol on the same sockets, which then goes to
    /// [`ShardApp::on_other`]; `None` takes everything for QUIC.
    pub demux: Option<Demux>,
    /// Has connection IDs name this server to QUIC-LB load balancers.
    pub quic_lb: Option<QuicLbConfig>,
    /// What to do when idle.
    pub idle: Idle,
    /// Transport behaviour.
    pub transport: Arc<TransportConfig>,
    /// TLS for accepted connections; `None` accepts none.
    pub server: Option<Arc<rustls::ServerConfig>>,
    /// Accepted connections of one shard whose handshake has not finished, at most.
    pub max_half_open: usize,
    /// How much of that one network may have.
    pub prefix_caps: PrefixCaps,
    /// The secret behind tokens and stateless resets; `None` draws one. Processes that take over
    /// from each other at one address share it, so that a peer of the last one is told at once.
    pub secret: Option<[u8; 32]>,
    /// Where tokens of servers are kept for later connections, for all shards.
    pub tokens: Arc<dyn TokenStore>,
}

impl EngineConfig {
    /// One unpinned shard that connects from any IPv4 address.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            shards: 1,
            cores: Vec::new(),
            bind: Bind::Each(std::net::Ipv4Addr::UNSPECIFIED.into()),
            also: Vec::new(),
            backend: Choice::Auto,
            io: IoConfig::default(),
            socket: SocketOptions::default(),
            demux: None,
            quic_lb: None,
            idle: Idle::default(),
            transport: Arc::default(),
            server: None,
            max_half_open: limits::HALF_OPEN,
            prefix_caps: PrefixCaps::default(),
            secret: None,
            tokens: Arc::new(TokenMemory::default()),
        }
    }
}

/// Why an engine did not start or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The number of shards is impossible.
    #[error("{0} shards: at least 1 and at most 255 are possible")]
    Shards(usize),
    /// A socket could not be bound.
    #[error("cannot bind a UDP socket to {addr}: {source}{hint}")]
    Bind {
        /// Where to.
        addr: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
        /// What to do about it, if that is known.
        hint: &'static str,
    },
    /// A socket could not be connected to its one peer.
    #[error("cannot connect a UDP socket to {peer}: {source}; see `ip route get`")]
    Connect {
        /// The peer.
        peer: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A socket could not be bound to an interface.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The embedder's sockets are not one for each shard.
    #[error("{given} socket(s) for {shards} shard(s): bring one for each")]
    Sockets {
        /// Sockets brought.
        given: usize,
        /// Shards to run.
        shards: usize,
    },
    /// The load balancer's configuration cannot be used.
    #[error(transparent)]
    QuicLb(#[from] QuicLbError),
    /// The backend did not open or broke.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The TLS configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Connection IDs cannot carry the shard's number.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A thread could not be pinned.
    #[error(transparent)]
    Pin(#[from] affinity::PinError),
    /// The system gave no randomness.
    #[error(transparent)]
    Random(#[from] random::RandomError),
    /// A thread could not be started, or a socket not be asked for its address.
    #[error("cannot start a shard: {0}")]
    Spawn(std::io::Error),
    /// A shard's thread panicked; its message is on standard error.
    #[error("a shard's thread panicked")]
    Panicked,
}

/// What a shard left behind.
#[derive(Debug)]
pub struct ShardReport<A> {
    /// The application.
    pub app: A,
    /// The shard's counters.
    pub shard: ShardStats,
    /// Its endpoint's counters.
    pub endpoint: EndpointStats,
    /// Its backend's counters.
    pub io: IoStats,
    /// The backend's name.
    pub backend: &'static str,
    /// Send buffers that were still lent: none once nothing is under way.
    pub tx_lent: usize,
}

type Thread<A> = JoinHandle<Result<ShardReport<A>, EngineError>>;

/// Running shards.
pub struct Engine<A: ShardApp> {
    senders: Vec<CommandSender<A::Command>>,
    threads: Vec<Thread<A>>,
    local_addrs: Vec<SocketAddr>,
    also: Vec<SocketAddr>,
    backend: &'static str,
    stop: Arc<AtomicBool>,
    wakers: Wakers,
    metrics: MetricsReader,
    binder: Binder,
}

/// A shard's thread tells that it is ready: the backend that it got.
type Ready = Result<&'static str, EngineError>;

/// What a shard's thread is started with.
struct Seat<A: ShardApp> {
    index: usize,
    config: EngineConfig,
    /// The shard's own and the further ones.
    sockets: Vec<UdpSocket>,
    steered: bool,
    mailbox: Mailbox<A::Command>,
    codec: Arc<CidCodec>,
    secret: [u8; 32],
    wakers: Wakers,
    stop: Arc<AtomicBool>,
    metrics: MetricsReader,
}

/// Each shard's waker, there once its backend is open.
type Wakers = Arc<Vec<OnceLock<Waker>>>;

impl<A: ShardApp + Send + 'static> Engine<A> {
    /// Binds sockets, starts and pins the threads, and returns once every shard is ready. `app`
    /// makes the application of each shard, by its number.
    ///
    /// # Errors
    /// [`EngineError`]; nothing is left running then.
    pub fn start(
        config: &EngineConfig,
        mut app: impl FnMut(usize) -> A,
    ) -> Result<Self, EngineError> {
        if config.shards == 0 || config.shards > 255 {
            return Err(EngineError::Shards(config.shards));
        }
        let mut rng = Rng::from_seed(random::seed()?);
        let (drawn, steering) = (rng.array(), rng.next_u64());
        let secret = config.secret.unwrap_or(drawn);
        let codecs = codecs(config, steering, &mut rng)?;
        let Sockets {
            of_shards,
            own: local_addrs,
            also,
            steered,
        } = also::open(config, &codecs)?;
        let config = &also::named_ports(config, &also);
        let wakers: Wakers = Arc::new((0..config.shards).map(|_| OnceLock::new()).collect());
        let mailboxes = Mailbox::<A::Command>::build(config.shards);
        let senders = senders(&mailboxes, &wakers);
        let stop = Arc::new(AtomicBool::new(false));
        let mut engine = Self {
            senders,
            threads: Vec::new(),
            local_addrs,
            also,
            backend: "",
            stop: stop.clone(),
            wakers: wakers.clone(),
            metrics: MetricsReader::new(&config.name, config.shards),
            binder: Binder {
                codecs: codecs.as_slice().into(),
            },
        };
        let (ready, readiness) = mpsc::channel::<Ready>();
        for (index, (sockets, mailbox)) in of_shards.into_iter().zip(mailboxes).enumerate() {
            let seat = Seat {
                index,
                config: config.clone(),
                sockets,
                steered,
                mailbox,
                codec: codecs[index].clone(),
                secret,
                wakers: wakers.clone(),
                stop: stop.clone(),
                metrics: engine.metrics.clone(),
            };
            let (app, ready) = (app(index), ready.clone());
            let thread = std::thread::Builder::new()
                .name(format!("{}-{index}", config.name))
                .spawn(move || run(seat, app, &ready));
            match thread {
                Ok(thread) => engine.threads.push(thread),
                Err(e) => return Err(engine.give_up(EngineError::Spawn(e))),
            }
        }
        drop(ready);
        for _ in 0..config.shards {
            match readiness.recv() {
                Ok(Ok(backend)) => engine.backend = backend,
                Ok(Err(e)) => return Err(engine.give_up(e)),
                Err(mpsc::RecvError) => return Err(engine.give_up(EngineError::Panicked)),
            }
        }
        Ok(engine)
    }

    fn give_up(mut self, why: EngineError) -> EngineError {
        self.stop();
        for thread in self.threads.drain(..) {
            // Its own error is the one we return, or follows from it.
            let _ = thread.join();
        }
        why
    }

    /// The addresses that the shards' sockets are bound to: all the same for [`Bind::Shared`].
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.local_addrs
    }

    /// The backend in use: `uring` or `mmsg`.
    pub fn backend(&self) -> &'static str {
        self.backend
    }

    /// The further addresses at which every shard listens, with the ports that the system chose.
    pub fn also(&self) -> &[SocketAddr] {
        &self.also
    }

    /// Binds further sockets for the shards, to be handed to their applications.
    pub fn binder(&self) -> &Binder {
        &self.binder
    }

    /// A way to send commands to each shard's application, from any thread.
    pub fn senders(&self) -> &[CommandSender<A::Command>] {
        &self.senders
    }

    /// What every shard counts, as of a moment ago: asking stops no shard and wakes none.
    pub fn metrics(&self) -> Metrics {
        self.metrics.read()
    }

    /// The same for other threads, also after the engine has ended.
    pub fn metrics_reader(&self) -> MetricsReader {
        self.metrics.clone()
    }

    /// Whether some shard has ended, by itself or because it was asked to.
    pub fn has_ended(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Whether all shards have: [`Engine::join`] returns at once.
    pub fn is_over(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Asks every shard to end after its current turn.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for shard in 0..self.wakers.len() {
            wake(&self.wakers, shard);
        }
    }

    /// Waits until every shard has ended, and returns what they left.
    ///
    /// # Errors
    /// The first shard's failure; all have ended.
    pub fn join(mut self) -> Result<Vec<ShardReport<A>>, EngineError> {
        let mut out = Vec::with_capacity(self.threads.len());
        let mut failure = None;
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(Ok(report)) => out.push(report),
                Ok(Err(e)) => failure = failure.or(Some(e)),
                Err(_) => failure = failure.or(Some(EngineError::Panicked)),
            }
        }
        failure.map_or(Ok(out), Err)
    }
}

/// The way to each shard's application.
fn senders<C: Send + 'static>(mailboxes: &[Mailbox<C>], wakers: &Wakers) -> Vec<CommandSender<C>> {
    let sender = |(shard, mailbox): (usize, &Mailbox<C>)| {
        let wakers = wakers.clone();
        mailbox.command_sender(move || wake(&wakers, shard))
    };
    mailboxes.iter().enumerate().map(sender).collect()
}

/// One codec for each shard.
fn codecs(
    config: &EngineConfig,
    secret: u64,
    rng: &mut Rng,
) -> Result<Vec<Arc<CidCodec>>, EngineError> {
    let balanced = config.quic_lb.clone();
    let balanced = balanced.map(|lb| QuicLb::new(lb, rng)).transpose()?;
    let one = |shard| codec(config, secret, shard, balanced.clone()).map(Arc::new);
    Ok((0..config.shards).map(one).collect::<Result<_, _>>()?)
}

fn codec(
    config: &EngineConfig,
    secret: u64,
    shard: usize,
    balanced: Option<QuicLb>,
) -> Result<CidCodec, CodecError> {
    let (shard, shards) = (shard as u8, config.shards as u8);
    // The shard's byte comes behind what the load balancer reads.
    let len = balanced
        .as_ref()
        .map_or(limits::DEFAULT_CID_LEN, |lb| lb.len() + 1);
    CidCodec::new(secret, len, shard, shards, balanced)
}

/// Ends a shard's sleep, if its backend is open.
fn wake(wakers: &Wakers, shard: usize) {
    if let Some(waker) = wakers.get(shard).and_then(OnceLock::get) {
        waker.wake();
    }
}

/// A shard's thread, from its first word to its last.
fn run<A: ShardApp>(
    seat: Seat<A>,
    app: A,
    ready: &mpsc::Sender<Ready>,
) -> Result<ShardReport<A>, EngineError> {
    let idle = seat.config.idle;
    let stop = seat.stop.clone();
    let mut shard = match seat.take(app) {
        Ok(shard) => shard,
        Err(e) => {
            // Whoever starts the engine gets the reason; what the thread returns is not looked at.
            let _ = ready.send(Err(e));
            return Err(EngineError::Panicked);
        }
    };
    let backend = shard.backend.name();
    // The starter is gone only if it gave up, and then it stops us.
    let _ = ready.send(Ok(backend));
    let ended = drive(&mut shard, idle, &stop);
    shard.publish_all();
    ended?;
    Ok(ShardReport {
        shard: shard.stats,
        endpoint: shard.endpoint.stats(),
        io: shard.backend.stats().clone(),
        backend,
        tx_lent: shard.backend.tx_lent(),
        app: shard.app,
    })
}

impl<A: ShardApp> Seat<A> {
    fn take(self, app: A) -> Result<Shard<A>, EngineError> {
        let c = &self.config;
        if let Some(core) = c.cores.get(self.index % c.cores.len().max(1)) {
            affinity::pin_to(*core)?;
        }
        let choice = match (c.backend, c.idle) {
            (Choice::Auto, Idle::Spin) => c.backend.spinning(self.sockets.len()),
            _ => c.backend,
        };
        let backend = Backend::open(choice, &c.io)?;
        if let Some(slot) = self.wakers.get(self.index) {
            // Set once, by this thread alone.
            let _ = slot.set(backend.waker());
        }
        let mut endpoint = Endpoint::new(EndpointConfig {
            transport: c.transport.clone(),
            server: c.server.clone(),
            cids: Box::new(CodecCids(self.codec.clone())),
            seed: random::seed()?,
            secret: self.secret,
            max_half_open: c.max_half_open,
            tokens: c.tokens.clone(),
            prefix_caps: c.prefix_caps,
        })?;
        if self.steered {
            endpoint.set_steered();
        }
        let wakers = self.wakers.clone();
        let wake = Box::new(move |shard| wake(&wakers, shard));
        let (now, index) = (Clock::now(), self.index);
        let mut shard = Shard::new(
            now,
            index,
            backend,
            endpoint,
            self.codec,
            self.mailbox,
            wake,
            app,
        );
        shard.set_demux(c.demux.clone());
        for socket in self.sockets {
            shard.add_socket(socket, c.socket)?;
        }
        shard.publish_to(&self.metrics);
        Ok(shard)
    }
}

/// Turns a shard until its application stops it or `stop` is set (wake the shard then).
///
/// # Errors
/// The backend is broken for good.
pub fn drive<A: ShardApp>(
    shard: &mut Shard<A>,
    idle: Idle,
    stop: &AtomicBool,
) -> Result<(), EngineError> {
    if idle == Idle::Spin {
        shard.never_sleeps();
    }
    let mut last_work = Clock::now();
    loop {
        let now = Clock::now();
        let turn = shard.run_once(now)?;
        if turn.stopped || stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        if turn.worked || turn.busy {
            last_work = now;
        }
        if turn.busy {
            continue;
        }
        let sleep = match idle {
            Idle::Spin => false,
            Idle::Adaptive(patience) => now - last_work >= patience,
            Idle::Park => true,
        };
        if sleep {
            shard.park(now, turn.next)?;
        } else {
            std::hint::spin_loop();
        }
    }
}

/// Time for embedders that drive a shard themselves: what [`Shard::run_once`] takes.
pub fn now() -> Timestamp {
    Clock::now()
}
