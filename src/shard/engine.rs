//! Shards on threads of their own: sockets bound, threads pinned, loops run, all of it undone when
//! the last word is said.
//!
//! A listening engine gives every shard a socket of one SO_REUSEPORT group, in the order of their
//! numbers, and a BPF program that steers by the shard number inside the connection ID; where the
//! kernel refuses the program, shards still hand each other what they find. A connecting engine
//! gives every shard a socket with a port of its own.

use super::mailbox::{CommandSender, Mailbox};
use super::steer::{CidCodec, CodecError};
use super::{CodecCids, Shard, ShardApp, ShardStats};
use crate::base::{Rng, Timestamp, limits};
use crate::conn::endpoint::EndpointStats;
use crate::conn::{Endpoint, EndpointConfig, TokenMemory, TokenStore, TransportConfig};
use crate::crypto::{ConfigError, random};
use crate::io::{Backend, Choice, IoConfig, IoError, IoStats, SocketOptions, Waker};
use crate::sys::affinity::{self, Core};
use crate::sys::clock::Clock;
use crate::sys::reuseport;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{IpAddr, SocketAddr, UdpSocket};
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

/// Which sockets the shards get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bind {
    /// One address for all shards, steered by connection ID.
    Shared(SocketAddr),
    /// A socket of its own for each shard, at this address with a port that the system chooses.
    Each(std::net::IpAddr),
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
    /// What to do when idle.
    pub idle: Idle,
    /// Transport behaviour.
    pub transport: Arc<TransportConfig>,
    /// TLS for accepted connections; `None` accepts none.
    pub server: Option<Arc<rustls::ServerConfig>>,
    /// Accepted connections of one shard whose handshake has not finished, at most.
    pub max_half_open: usize,
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
            idle: Idle::default(),
            transport: Arc::default(),
            server: None,
            max_half_open: limits::HALF_OPEN,
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
    #[error("cannot bind a UDP socket to {addr}: {source}")]
    Bind {
        /// Where to.
        addr: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
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
}

/// A shard's thread tells that it is ready: the backend that it got.
type Ready = Result<&'static str, EngineError>;

/// What a shard's thread is started with.
struct Seat<A: ShardApp> {
    index: usize,
    config: EngineConfig,
    /// The shard's own and the further ones.
    sockets: Vec<UdpSocket>,
    mailbox: Mailbox<A::Command>,
    codec: Arc<CidCodec>,
    secret: [u8; 32],
    wakers: Wakers,
    stop: Arc<AtomicBool>,
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
        let codecs = (0..config.shards)
            .map(|shard| codec(config, steering, shard).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        let mut groups = bind_all(config, &codecs)?;
        let addrs = |sockets: &[UdpSocket]| {
            let addrs = sockets.iter().map(UdpSocket::local_addr);
            addrs
                .collect::<Result<Vec<_>, _>>()
                .map_err(EngineError::Spawn)
        };
        let local_addrs = addrs(groups.first().map_or(&[], Vec::as_slice))?;
        let firsts = groups
            .iter()
            .skip(1)
            .filter_map(|g| g.first()?.local_addr().ok());
        let also: Vec<SocketAddr> = firsts.collect();
        let config = &named_ports(config, &also);
        let wakers: Wakers = Arc::new((0..config.shards).map(|_| OnceLock::new()).collect());
        let mailboxes = Mailbox::<A::Command>::build(config.shards);
        let senders = mailboxes
            .iter()
            .enumerate()
            .map(|(shard, mailbox)| {
                let wakers = wakers.clone();
                mailbox.command_sender(move || wake(&wakers, shard))
            })
            .collect();
        let stop = Arc::new(AtomicBool::new(false));
        let mut engine = Self {
            senders,
            threads: Vec::new(),
            local_addrs,
            also,
            backend: "",
            stop: stop.clone(),
            wakers: wakers.clone(),
        };
        let (ready, readiness) = mpsc::channel::<Ready>();
        for (index, mailbox) in mailboxes.into_iter().enumerate() {
            // One of each group, in the order in which they were bound.
            let sockets = groups.iter_mut().map(|group| group.remove(0)).collect();
            let seat = Seat {
                index,
                config: config.clone(),
                sockets,
                mailbox,
                codec: codecs[index].clone(),
                secret,
                wakers: wakers.clone(),
                stop: stop.clone(),
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

    /// A way to send commands to each shard's application, from any thread.
    pub fn senders(&self) -> &[CommandSender<A::Command>] {
        &self.senders
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

fn codec(config: &EngineConfig, secret: u64, shard: usize) -> Result<CidCodec, CodecError> {
    let (shard, shards) = (shard as u8, config.shards as u8);
    CidCodec::new(secret, limits::DEFAULT_CID_LEN, shard, shards, None)
}

/// Ends a shard's sleep, if its backend is open.
fn wake(wakers: &Wakers, shard: usize) {
    if let Some(waker) = wakers.get(shard).and_then(OnceLock::get) {
        waker.wake();
    }
}

/// Binds one socket for each shard, in order, and attaches the steering program to a shared group.
fn bind(
    config: &EngineConfig,
    bind: Bind,
    codecs: &[Arc<CidCodec>],
) -> Result<Vec<UdpSocket>, EngineError> {
    let mut out: Vec<UdpSocket> = Vec::with_capacity(config.shards);
    for _ in 0..config.shards {
        let (mut addr, shared) = match bind {
            Bind::Shared(addr) => (addr, config.shards > 1),
            Bind::Each(ip) => (SocketAddr::new(ip, 0), false),
        };
        // With port 0 the first socket's port is everyone's.
        if let (true, Some(first)) = (shared, out.first())
            && let Ok(first) = first.local_addr()
        {
            addr = first;
        }
        let socket = bind_one(addr, shared).map_err(|source| EngineError::Bind { addr, source })?;
        out.push(socket);
    }
    if let (Bind::Shared(_), Some(socket), [codec, _, ..]) = (bind, out.first(), codecs)
        && let Err(error) = reuseport::attach(socket, &codec.program())
    {
        tracing::warn!(%error, "no kernel steering by connection ID; shards forward instead");
    }
    Ok(out)
}

/// The shards' sockets, and further ones for each address that they share.
fn bind_all(
    config: &EngineConfig,
    codecs: &[Arc<CidCodec>],
) -> Result<Vec<Vec<UdpSocket>>, EngineError> {
    let mut groups = vec![bind(config, config.bind, codecs)?];
    for addr in &config.also {
        groups.push(bind(config, Bind::Shared(*addr), codecs)?);
    }
    Ok(groups)
}

/// The configuration with the ports that the system chose in place of preferred addresses' zeroes.
fn named_ports(config: &EngineConfig, also: &[SocketAddr]) -> EngineConfig {
    let mut preferred = config.transport.preferred_address;
    let port_at = |ip: IpAddr| also.iter().find(|a| a.ip() == ip).map(SocketAddr::port);
    if let Some(v4) = preferred.v4.as_mut().filter(|a| a.port() == 0) {
        v4.set_port(port_at((*v4.ip()).into()).unwrap_or(0));
    }
    if let Some(v6) = preferred.v6.as_mut().filter(|a| a.port() == 0) {
        v6.set_port(port_at((*v6.ip()).into()).unwrap_or(0));
    }
    let mut config = config.clone();
    if preferred != config.transport.preferred_address {
        Arc::make_mut(&mut config.transport).preferred_address = preferred;
    }
    config
}

fn bind_one(addr: SocketAddr, shared: bool) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
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
    drive(&mut shard, idle, &stop)?;
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
        let backend = Backend::open(c.backend, &c.io)?;
        if let Some(slot) = self.wakers.get(self.index) {
            // Set once, by this thread alone.
            let _ = slot.set(backend.waker());
        }
        let endpoint = Endpoint::new(EndpointConfig {
            transport: c.transport.clone(),
            server: c.server.clone(),
            cids: Box::new(CodecCids(self.codec.clone())),
            seed: random::seed()?,
            secret: self.secret,
            max_half_open: c.max_half_open,
            tokens: c.tokens.clone(),
        })?;
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
        for socket in self.sockets {
            shard.add_socket(socket, c.socket)?;
        }
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
