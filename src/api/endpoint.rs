//! The endpoint: shards behind one handle, connections begun and accepted through it.

use super::connection::Connecting;
use super::driver::Driver;
use super::error::ConnectError;
use super::incoming::Incoming;
use super::shared::{Attempt, Command, ConnShared, Hub, Link, Ticket};
use crate::conn::{PreferredAddresses, TokenStore, TransportConfig};
use crate::io::Choice;
use crate::shard::added::Binder;
use crate::shard::engine::{Bind, Engine, EngineConfig, EngineError, Idle};
use crate::shard::metrics::{Metrics, MetricsReader};
use crate::sys::affinity::Core;
use rustls::pki_types::ServerName;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Settings of an [`Endpoint`] that is not running yet.
#[derive(Clone)]
pub struct EndpointBuilder {
    config: EngineConfig,
    client: Option<Arc<rustls::ClientConfig>>,
    preferred: PreferredAddresses,
}

impl Default for EndpointBuilder {
    fn default() -> Self {
        Self::from_config(EngineConfig::new("corelane"))
    }
}

impl EndpointBuilder {
    /// Starts from an engine's configuration, which has settings that are not here.
    pub fn from_config(config: EngineConfig) -> Self {
        Self {
            config,
            client: None,
            preferred: PreferredAddresses::default(),
        }
    }

    pub(super) fn config_mut(&mut self) -> &mut EngineConfig {
        &mut self.config
    }

    /// Accepts connections at `addr`, with this TLS configuration as it is.
    #[must_use]
    pub fn server(mut self, tls: Arc<rustls::ServerConfig>, addr: SocketAddr) -> Self {
        self.config.server = Some(tls);
        self.bind(addr)
    }

    /// Connects with this TLS configuration as it is, unless told otherwise for a connection.
    #[must_use]
    pub fn client(mut self, tls: Arc<rustls::ClientConfig>) -> Self {
        self.client = Some(tls);
        self
    }

    /// The local address of all shards. Without it every shard has a port of its own at 0.0.0.0.
    #[must_use]
    pub fn bind(mut self, addr: SocketAddr) -> Self {
        self.config.bind = Bind::Shared(addr);
        self
    }

    /// Names an address at which a server would rather be reached, of either family (RFC 9000
    /// §9.6), and listens there, too. With port 0 the system chooses one.
    #[must_use]
    pub fn preferred_address(mut self, addr: SocketAddr) -> Self {
        self.config.also.push(addr);
        self.preferred.set(addr);
        self
    }

    /// Listens at a further address, too, with a socket for each shard. With port 0 the system
    /// chooses one: [`Endpoint::add_socket`] on the running endpoint tells which.
    #[must_use]
    pub fn also(mut self, addr: SocketAddr) -> Self {
        self.config.also.push(addr);
        self
    }

    /// Shards to run, 1 to 255. Default 1.
    #[must_use]
    pub fn shards(mut self, shards: usize) -> Self {
        self.config.shards = shards;
        self
    }

    /// The cores to pin shards to, in order and over again. Default: not pinned.
    #[must_use]
    pub fn cores(mut self, cores: Vec<Core>) -> Self {
        self.config.cores = cores;
        self
    }

    /// Transport behaviour of all connections.
    #[must_use]
    pub fn transport(mut self, transport: TransportConfig) -> Self {
        self.config.transport = Arc::new(transport);
        self
    }

    /// Where clients keep the tokens that servers give them for later connections. Default: in
    /// memory, for as long as the endpoint lives. (Sessions are kept by rustls's
    /// `ClientConfig::resumption`.)
    #[must_use]
    pub fn tokens(mut self, tokens: Arc<dyn TokenStore>) -> Self {
        self.config.tokens = tokens;
        self
    }

    /// What shards do when there is nothing to do.
    #[must_use]
    pub fn idle(mut self, idle: Idle) -> Self {
        self.config.idle = idle;
        self
    }

    /// The I/O backend. Default: io_uring where it is to be had.
    #[must_use]
    pub fn backend(mut self, backend: Choice) -> Self {
        self.config.backend = backend;
        self
    }

    /// Binds the sockets and starts the shards.
    ///
    /// # Errors
    /// [`EngineError`]; nothing is left running then.
    pub fn build(mut self) -> Result<Endpoint, EngineError> {
        if !self.preferred.is_empty() {
            Arc::make_mut(&mut self.config.transport).preferred_address = self.preferred;
        }
        let hub = Arc::new(Hub::default());
        let links: Vec<Arc<Link>> = (0..self.config.shards)
            .map(|_| Arc::new(Link::new(hub.clone())))
            .collect();
        let engine = Engine::start(&self.config, |shard| {
            Driver::new(hub.clone(), links[shard].clone())
        })?;
        for (link, sender) in links.iter().zip(engine.senders()) {
            // Empty until here: no handle exists yet.
            let _ = link.sender.set(sender.clone());
        }
        Ok(Endpoint {
            inner: Arc::new(Inner {
                hub,
                links,
                next: AtomicUsize::new(0),
                client: self.client,
                local_addrs: engine.local_addrs().to_vec(),
                backend: engine.backend(),
                metrics: engine.metrics_reader(),
                binder: engine.binder().clone(),
                server: self.config.server.is_some(),
            }),
        })
    }
}

pub(super) struct Inner {
    pub(super) hub: Arc<Hub>,
    pub(super) links: Vec<Arc<Link>>,
    /// The shard that the next connection is begun on.
    next: AtomicUsize,
    client: Option<Arc<rustls::ClientConfig>>,
    pub(super) local_addrs: Vec<SocketAddr>,
    backend: &'static str,
    metrics: MetricsReader,
    binder: Binder,
    /// It accepts connections.
    server: bool,
}

impl Inner {
    /// Has every shard look at the hub.
    fn call_all(&self) {
        for link in &self.links {
            link.send(Command::Look);
        }
        // Attempts that nobody took are refused by being dropped.
        while let Some(held) = self.hub.backlog.0.pop() {
            drop(Incoming::new(held));
        }
        self.hub.waiters.notify();
        self.hub.others.waiters.notify();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.hub.abandoned.store(true, Ordering::SeqCst);
        self.call_all();
    }
}

/// QUIC connections over the shards of one engine: a client, a server, or both.
///
/// Clones are handles to the same endpoint. When the last is dropped, no more connections are
/// accepted, those that exist go on, and the shards end with the last of them.
#[derive(Clone)]
pub struct Endpoint {
    pub(super) inner: Arc<Inner>,
}

impl Endpoint {
    /// Settings to start from.
    pub fn builder() -> EndpointBuilder {
        EndpointBuilder::default()
    }

    /// A server at `addr` on one shard.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn server(tls: Arc<rustls::ServerConfig>, addr: SocketAddr) -> Result<Self, EngineError> {
        Self::builder().server(tls, addr).build()
    }

    /// A client over IPv4 on one shard.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn client(tls: Arc<rustls::ClientConfig>) -> Result<Self, EngineError> {
        Self::builder().client(tls).build()
    }

    pub(super) fn links(&self) -> &[Arc<Link>] {
        &self.inner.links
    }

    pub(super) fn binder(&self) -> &Binder {
        &self.inner.binder
    }

    pub(super) fn is_server(&self) -> bool {
        self.inner.server
    }

    /// Begins a connection to `addr`, whose certificate must be for `server_name`.
    ///
    /// The attempt goes on by itself; await the result for the connection, or drop it to abandon
    /// the attempt.
    pub fn connect(&self, addr: SocketAddr, server_name: &str) -> Connecting {
        match &self.inner.client {
            Some(tls) => self.connect_with(addr, server_name, tls.clone(), None),
            None => Connecting::failed(ConnectError::NoClientConfig, addr),
        }
    }

    /// Begins a connection with a TLS configuration and transport behaviour of its own; without
    /// `transport` it behaves as the endpoint's do.
    pub fn connect_with(
        &self,
        addr: SocketAddr,
        server_name: &str,
        tls: Arc<rustls::ClientConfig>,
        transport: Option<Arc<TransportConfig>>,
    ) -> Connecting {
        let Ok(name) = ServerName::try_from(server_name.to_owned()) else {
            return Connecting::failed(ConnectError::ServerName(server_name.to_owned()), addr);
        };
        let inner = &self.inner;
        let at = inner.next.fetch_add(1, Ordering::Relaxed) % inner.links.len();
        let shared = Arc::new(ConnShared::new(inner.links[at].clone(), addr));
        let ticket = Ticket::new(shared.clone());
        // A closed endpoint's shards drop it, and with it the ticket: the future says so.
        Connecting::begin(
            shared,
            Box::new(Attempt::new(ticket, addr, tls, name, transport)),
        )
    }

    /// The next connection attempt of a client; `None` once the endpoint is closed.
    ///
    /// Cancel-safe: dropping the future loses no attempt. At most
    /// [`ACCEPT_BACKLOG`](crate::base::limits::ACCEPT_BACKLOG) attempts wait;
    /// more are ignored, and those that wait longer than a handshake may take are forgotten.
    pub async fn accept(&self) -> Option<Incoming> {
        let hub = &self.inner.hub;
        let next = || {
            if hub.closed.get().is_some() {
                return Some(None);
            }
            hub.backlog.0.pop().map(|held| Some(Incoming::new(held)))
        };
        hub.waiters.until(next).await
    }

    /// Closes every connection with `code` and `reason` (cut to 256 bytes) and refuses new ones.
    /// Data that was not delivered is lost: finish streams and see them through first. The first
    /// call counts. Await [`Endpoint::wait_idle`] before the process ends, so that peers hear of
    /// it.
    pub fn close(&self, code: u64, reason: &[u8]) {
        if self.inner.hub.closed.set((code, reason.to_vec())).is_ok() {
            self.inner.call_all();
        }
    }

    /// Waits until no connection is left: closed, and the peer given the time to hear of it.
    ///
    /// Cancel-safe. Does not close anything itself.
    pub async fn wait_idle(&self) {
        let idle = || (self.open_connections() == 0).then_some(());
        self.inner.hub.waiters.until(idle).await;
    }

    /// Connections that were begun and are not gone.
    pub fn open_connections(&self) -> usize {
        self.inner
            .links
            .iter()
            .map(|link| link.open.load(Ordering::SeqCst))
            .sum()
    }

    /// What every shard counts, as of a moment ago: asking stops no shard and wakes none.
    pub fn metrics(&self) -> Metrics {
        self.inner.metrics.read()
    }

    /// The same as an object of its own, which outlives the endpoint.
    pub fn metrics_reader(&self) -> MetricsReader {
        self.inner.metrics.clone()
    }

    /// The address of the first shard; of all of them when the endpoint was bound to one.
    ///
    /// # Panics
    /// Never: an endpoint has a shard.
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.local_addrs[0]
    }

    /// The address of each shard.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.inner.local_addrs
    }

    /// The I/O backend in use: `uring` or `mmsg`.
    pub fn backend(&self) -> &'static str {
        self.inner.backend
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("local_addrs", &self.inner.local_addrs)
            .field("backend", &self.inner.backend)
            .field("open_connections", &self.open_connections())
            .finish_non_exhaustive()
    }
}
