//! Any number of connections behind one door, without sockets or threads: routing by connection ID,
//! accepting, refusing, Retry, and the list of connections that need attention.
//!
//! Drive it like this, once a turn: [`Endpoint::handle_train`] for what arrived and
//! [`Endpoint::handle_timeout`] for what expired; then, for each [`Endpoint::poll_ready`], take the
//! connection's events and trains and call [`Endpoint::finish`] for its next timeout; then
//! [`Endpoint::poll_transmit`] for stateless packets. A shard is this loop over a real backend.

use super::admission::{Admission, Prefix, PrefixCaps};
use super::ahead::Ahead;
pub use super::error::ConnectError;
use super::handshake::HandshakeIds;
use super::incoming::HeldAttempts;
use super::new_token::tokens_of;
use super::router::{CidGenerator, RandomCids, Route, Router};
use super::space::HandshakeSpace;
use super::spent::SpentTokens;
use super::stateless::Stateless;
use super::token_store::{TokenMemory, TokenStore};
use super::totals::Ledger;
use super::version::{ClientStart, Negotiation, ServerTls};
use super::warm::Expected;
use super::{Connection, ConnectionInit, ConnectionStats, TransportConfig};
use crate::base::{FourTuple, Rng, SocketId, Timestamp, Transmit, limits};
use crate::crypto::{ConfigError, InitialSuite, Lifetimes, ResetKey, Session, TokenKey, early};
use crate::path::cids::ResetToken;
use crate::wire::{ConnectionId, Side, TransportParameters, Version};
use rustls::pki_types::ServerName;
use std::collections::VecDeque;
use std::sync::Arc;

/// Names a connection of one endpoint; never names another one later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    index: u32,
    generation: u32,
}

impl ConnId {
    #[cfg(test)]
    pub(super) fn for_tests(index: u32) -> Self {
        let generation = 0;
        Self { index, generation }
    }

    /// A dense index, reused after the connection is gone; below the number of connections that
    /// the endpoint ever had at once.
    pub const fn index(self) -> u32 {
        self.index
    }
}

/// What an endpoint is made from.
pub struct EndpointConfig {
    /// Transport behaviour of its connections.
    pub transport: Arc<TransportConfig>,
    /// TLS for accepted connections; `None` accepts none. With `max_early_data_size` of `u32::MAX`
    /// it accepts early data, if [`crypto::early`](crate::crypto::early) finds it safe.
    pub server: Option<Arc<rustls::ServerConfig>>,
    /// Where connection IDs come from.
    pub cids: Box<dyn CidGenerator>,
    /// Seeds everything random; [`crypto::random::seed`](crate::crypto::random::seed) on a real
    /// endpoint.
    pub seed: [u8; 32],
    /// The secret behind tokens and stateless resets: the same for all shards of a process.
    pub secret: [u8; 32],
    /// Accepted connections whose handshake has not finished, at most.
    pub max_half_open: usize,
    /// Where tokens of servers are kept for later connections.
    pub tokens: Arc<dyn TokenStore>,
    /// How much of that one network may have.
    pub prefix_caps: PrefixCaps,
}

impl EndpointConfig {
    /// Defaults with random connection IDs and no server role.
    pub fn new(seed: [u8; 32]) -> Self {
        let secret = Rng::from_seed(seed).array();
        Self {
            transport: Arc::default(),
            server: None,
            cids: Box::new(RandomCids),
            seed,
            secret,
            max_half_open: limits::HALF_OPEN,
            tokens: Arc::new(TokenMemory::default()),
            prefix_caps: PrefixCaps::default(),
        }
    }
}

/// What an endpoint counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointStats {
    /// Connections begun by this side.
    pub connected: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Attempts refused with an answer.
    pub refused: u64,
    /// Attempts dropped without an answer, for want of room or by decision.
    pub ignored: u64,
    /// Attempts from a network that had all it may: asked to prove their address, or ignored.
    pub prefix_capped: u64,
    /// Held attempts that were not decided about in time.
    pub held_expired: u64,
    /// Cryptographic operations on behalf of what is no connection yet, or no more: Initial keys
    /// derived, tokens opened and sealed, reset tokens computed.
    pub stateless_crypto: u64,
    /// Retry packets sent.
    pub retries: u64,
    /// Version Negotiation packets sent.
    pub version_negotiations: u64,
    /// Stateless resets sent.
    pub resets: u64,
    /// Datagrams that led nowhere: malformed, too short, or for a connection long gone.
    pub unroutable: u64,
}

pub(super) struct Entry {
    pub(super) conn: Box<Connection>,
    generation: u32,
    /// In the ready list.
    pub(super) queued: bool,
    /// Accepted, and its handshake has not completed; one that failed stays so until it is gone.
    half_open: bool,
    /// It waits for its counters to be added to the endpoint's sum.
    pub(super) changed: bool,
    /// The token by which the router finds the connection.
    reset_token: Option<ResetToken>,
    pub(super) cold: Box<Cold>,
}

const _: () = assert!(size_of::<Option<Entry>>() <= 40);

/// What of an entry no turn looks at; apart, so that the table stays dense.
pub(super) struct Cold {
    /// The destination of the client's first packet, which routes here too.
    initial_dcid: Option<ConnectionId>,
    /// What of its counters is in the endpoint's sum.
    pub(super) summed: ConnectionStats,
    /// The addresses by which the router finds a connection without a connection ID.
    addresses: Option<Box<(SocketId, FourTuple)>>,
    /// The tokens of further paths by which the router finds the connection.
    other_tokens: Option<Box<Tokens>>,
    /// The network that its handshake counts for.
    prefix: Option<Box<Prefix>>,
}

const _: () = assert!(size_of::<Cold>() <= 256);

/// Reset tokens of paths beyond the first.
#[derive(Default)]
struct Tokens(Vec<ResetToken>);

/// What becomes of a connection after its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Call [`Endpoint::handle_timeout`] then, if nothing happens before.
    Timeout(Timestamp),
    /// Nothing is due by time alone.
    Quiet,
    /// The connection is gone.
    Gone,
}

/// Many connections. See the module's documentation.
pub struct Endpoint {
    pub(super) transport: Arc<TransportConfig>,
    pub(super) server: Option<(ServerTls, InitialSuite)>,
    pub(super) cids: Box<dyn CidGenerator>,
    pub(super) max_half_open: usize,
    pub(super) half_open: usize,
    pub(super) rng: Rng,
    pub(super) reset_key: ResetKey,
    /// One for each of [`Version::ALL`]: a token is good in its own version only (RFC 9369 §5).
    pub(super) token_keys: [TokenKey; 2],
    pub(super) token_lifetimes: Lifetimes,
    pub(super) spent: SpentTokens,
    pub(super) tokens: Arc<dyn TokenStore>,
    /// Early data is accepted.
    pub(super) early_data: bool,
    pub(super) ahead: Ahead,
    /// The last time that was told.
    pub(super) clock: Timestamp,
    pub(super) router: Router,
    pub(super) steered: bool,
    /// QUIC is told by the fixed bit from another protocol.
    pub(super) keeps_fixed_bit: bool,
    pub(super) entries: Vec<Option<Entry>>,
    free: Vec<(u32, u32)>,
    pub(super) ready: VecDeque<ConnId>,
    /// See [`warm`](super::warm).
    pub(super) expected: Expected,
    pub(super) admission: Admission,
    pub(super) held: HeldAttempts,
    pub(super) stateless: Stateless,
    pub(super) stats: EndpointStats,
    pub(super) ledger: Ledger,
    /// See [`Endpoint::handshake_trains`].
    pub(super) handshake_trains: u64,
}

impl Endpoint {
    /// An endpoint without connections.
    ///
    /// # Errors
    /// The server's TLS configuration cannot serve QUIC.
    pub fn new(config: EndpointConfig) -> Result<Self, ConfigError> {
        let mut rng = Rng::from_seed(config.seed);
        let mut secret = Rng::from_seed(config.secret);
        let server = match config.server {
            Some(tls) => {
                let suite = InitialSuite::of_server(&tls)?;
                let limits = super::params::server(&config.transport);
                let tls = early::guard(tls, &limits, secret.array())?;
                // What TLS objects to is told here, not with the first client.
                Session::server(tls.clone(), Vec::new())?;
                Some((ServerTls::new(tls, &config.transport), suite))
            }
            None => None,
        };
        let token_lifetimes = Lifetimes::default();
        Ok(Self {
            transport: config.transport,
            early_data: server
                .as_ref()
                .is_some_and(|(tls, _)| early::is_enabled(&tls.of(Version::V1))),
            server,
            cids: config.cids,
            max_half_open: config.max_half_open,
            half_open: 0,
            reset_key: ResetKey::new(secret.array()),
            token_keys: Version::ALL.map(|_| TokenKey::new(secret.array())),
            token_lifetimes,
            spent: SpentTokens::new(token_lifetimes.retry.as_secs()),
            tokens: config.tokens,
            ahead: Ahead::default(),
            clock: Timestamp::ZERO,
            router: Router::default(),
            steered: false,
            keeps_fixed_bit: false,
            entries: Vec::new(),
            free: Vec::new(),
            ready: VecDeque::new(),
            expected: Expected::default(),
            admission: Admission::new(config.prefix_caps),
            held: HeldAttempts::default(),
            stateless: Stateless::new(rng.fork()),
            rng,
            stats: EndpointStats::default(),
            ledger: Ledger::default(),
            handshake_trains: 0,
        })
    }

    /// Begins a connection to `remote`, which must prove to be `name`. `local` is the address of
    /// `socket`, unspecified where the system chooses.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect(
        &mut self,
        now: Timestamp,
        socket: SocketId,
        tuple: FourTuple,
        tls: Arc<rustls::ClientConfig>,
        name: ServerName<'static>,
        transport: Option<Arc<TransportConfig>>,
    ) -> Result<ConnId, ConnectError> {
        if tuple.remote.port() == 0 || tuple.remote.ip().is_unspecified() {
            return Err(ConnectError::Address(tuple.remote));
        }
        let suite = InitialSuite::of_client(&tls)?;
        let config = transport.unwrap_or_else(|| self.transport.clone());
        let config = self.with_fixed_bit(config);
        let local_scid = if config.zero_length_cid {
            self.admit_without_cid(socket, &tuple)?;
            ConnectionId::EMPTY
        } else {
            self.fresh_cid()
        };
        // RFC 9000 §7.2: at least eight unpredictable bytes.
        let odcid = ConnectionId::new(&self.rng.array::<8>()).unwrap_or_default();
        let mut params = super::params::local(&config, local_scid);
        params.active_connection_id_limit = limits::ACTIVE_CIDS as u64;
        let server_name: Box<str> = name.to_str().into();
        let spoken = config.spoken();
        let version = config
            .first_version
            .filter(|v| spoken.contains(v))
            .or(spoken.first().copied())
            .unwrap_or(Version::V1);
        let start = ClientStart { tls, name, params };
        let session = start.session(version, &spoken, &mut self.rng)?;
        let keys = suite
            .keys(version.number(), odcid.as_slice(), Side::Client)
            .ok_or(ConfigError::NoInitialSuite)?;
        let negotiation = Negotiation::client(version, spoken, start);
        let mut ids = HandshakeIds::new(local_scid, odcid, None, None, negotiation);
        let tokens_of = tokens_of(&server_name, version);
        ids.token = self.tokens.take(&tokens_of).unwrap_or_default();
        let init = ConnectionInit {
            side: Side::Client,
            config,
            session,
            ids,
            socket,
            tuple,
            rng: self.rng.fork(),
        };
        let mut conn = Box::new(Connection::new(now, init, HandshakeSpace::new(keys)));
        conn.set_server_name(server_name);
        conn.start(now);
        self.stats.connected += 1;
        Ok(self.add(conn, &[local_scid], None))
    }

    pub(super) fn encode(&mut self, params: &TransportParameters, side: Side) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        params.encode(side, &mut out, &mut self.rng);
        out
    }

    pub(super) fn fresh_cid(&mut self) -> ConnectionId {
        // A random collision with a live connection ID is tried again; eight bytes make two in a
        // row impossible in practice, and a lost race only costs the newer route.
        let cid = self.cids.issue(&mut self.rng);
        if self.router.get(cid.as_slice()).is_none() {
            cid
        } else {
            self.cids.issue(&mut self.rng)
        }
    }

    pub(super) fn add(
        &mut self,
        conn: Box<Connection>,
        cids: &[ConnectionId],
        initial_dcid: Option<ConnectionId>,
    ) -> ConnId {
        let (index, generation) = self.free.pop().unwrap_or((self.entries.len() as u32, 0));
        if index as usize == self.entries.len() {
            self.entries.push(None);
        }
        let id = ConnId { index, generation };
        let mut addresses = None;
        for cid in cids.iter().chain(&initial_dcid) {
            if cid.is_empty() {
                let found_by = (conn.socket(), conn.path());
                self.router.insert_addresses(found_by.0, &found_by.1, id);
                addresses = Some(Box::new(found_by));
            } else {
                self.router.insert(*cid, Route::Connection(id));
            }
        }
        let half_open = initial_dcid.is_some();
        self.half_open += usize::from(half_open);
        if let Some(slot) = self.entries.get_mut(index as usize) {
            *slot = Some(Entry {
                conn,
                generation,
                queued: false,
                half_open,
                changed: false,
                reset_token: None,
                cold: Box::new(Cold {
                    initial_dcid,
                    summed: ConnectionStats::default(),
                    addresses,
                    other_tokens: None,
                    prefix: None,
                }),
            });
        }
        self.wake(id);
        id
    }

    /// The handshake of an accepted connection counts for a network.
    pub(super) fn count_for(&mut self, id: ConnId, prefix: Option<Prefix>) {
        if let Some(e) = self.entry(id) {
            e.cold.prefix = prefix.map(Box::new);
        }
    }

    pub(super) fn entry(&mut self, id: ConnId) -> Option<&mut Entry> {
        self.entries
            .get_mut(id.index as usize)?
            .as_mut()
            .filter(|e| e.generation == id.generation)
    }

    /// The connection of that name. Call [`Endpoint::wake`] after changing it.
    pub fn connection(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.entry(id).map(|e| &mut *e.conn)
    }

    /// The name of the connection at a dense index.
    pub fn id_at(&self, index: u32) -> Option<ConnId> {
        let e = self.entries.get(index as usize)?.as_ref()?;
        Some(ConnId {
            index,
            generation: e.generation,
        })
    }

    /// Connections that exist.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Whether no connection exists.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names of all connections.
    pub fn ids(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.entries.iter().enumerate().filter_map(|(i, e)| {
            e.as_ref().map(|e| ConnId {
                index: i as u32,
                generation: e.generation,
            })
        })
    }

    /// What the endpoint counted.
    pub fn stats(&self) -> EndpointStats {
        self.stats
    }

    /// Trains so far that went to a connection whose handshake was not complete, or began one: each
    /// may have cost signatures and key agreements.
    pub fn handshake_trains(&self) -> u64 {
        self.handshake_trains
    }

    /// Routes in the table: at most a few for each connection.
    pub fn routes(&self) -> usize {
        self.router.len()
    }

    /// Puts a connection on the list that [`Endpoint::poll_ready`] walks.
    #[inline]
    pub fn wake(&mut self, id: ConnId) {
        if let Some(e) = self.entry(id)
            && !e.queued
        {
            e.queued = true;
            self.ready.push_back(id);
        }
    }

    /// A connection with something to do: take its events, then its trains, then call
    /// [`Endpoint::finish`].
    pub fn poll_ready(&mut self) -> Option<ConnId> {
        while let Some(id) = self.ready.pop_front() {
            if let Some(e) = self.entry(id) {
                e.queued = false;
                let noted = std::mem::replace(&mut e.changed, true);
                let upkeep = e.half_open || e.conn.wants_upkeep(e.reset_token.as_ref());
                if !noted {
                    self.ledger.note(id);
                }
                if upkeep {
                    self.upkeep(id);
                }
                self.warm_ready();
                return Some(id);
            }
        }
        None
    }

    /// Whether some connection has something to do.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Issues the connection IDs that a connection wants, forgets those that were retired.
    /// Keeps RFC 9000 §5.1.1.
    fn upkeep(&mut self, id: ConnId) {
        let Some(wanted) = self.entry(id).map(|e| e.conn.cids_wanted()) else {
            return;
        };
        for _ in 0..wanted {
            let cid = self.fresh_cid();
            let token = self.reset_key.reset_token(&cid);
            self.router.insert(cid, Route::Connection(id));
            if let Some(e) = self.entry(id) {
                e.conn.issue_cid(cid, token);
            }
        }
        self.pass_tokens(id);
        if let Some(e) = self.entry(id) {
            let several = e.conn.is_multipath();
            let token = e.conn.reset_token();
            let old = std::mem::replace(&mut e.reset_token, token);
            if old != token {
                self.router.set_reset_token(id, old, token);
            }
            if several {
                self.route_other_resets(id);
            }
        }
        while let Some(cid) = self.entry(id).and_then(|e| e.conn.poll_retired_cid()) {
            self.router.remove(&cid, Route::Connection(id));
        }
        if let Some(e) = self
            .entry(id)
            .filter(|e| e.half_open && e.conn.has_completed())
        {
            e.half_open = false;
            let prefix = e.cold.prefix.take();
            self.half_open -= 1;
            self.admission.end(prefix.map(|prefix| *prefix));
        }
    }

    /// The same for the reset tokens of paths beyond the first.
    fn route_other_resets(&mut self, id: ConnId) {
        let Some(e) = self.entry(id) else {
            return;
        };
        if e.cold.other_tokens.is_none() && !e.conn.has_other_paths() {
            return;
        }
        let before = e.cold.other_tokens.as_deref().map_or(&[][..], |t| &t.0);
        let mut count = 0;
        let same = e.conn.other_reset_tokens().all(|token| {
            count += 1;
            before.contains(&token)
        });
        if same && count == before.len() {
            return;
        }
        let now: Vec<ResetToken> = e.conn.other_reset_tokens().collect();
        let after = (!now.is_empty()).then(|| Box::new(Tokens(now.clone())));
        let before = std::mem::replace(&mut e.cold.other_tokens, after);
        let before = before.map(|tokens| tokens.0).unwrap_or_default();
        for old in before.iter().filter(|t| !now.contains(t)) {
            self.router.set_reset_token(id, Some(*old), None);
        }
        for new in now.iter().filter(|t| !before.contains(t)) {
            self.router.set_reset_token(id, None, Some(*new));
        }
    }

    /// Ends a connection's turn: says when to come back, or removes it when it is over.
    pub fn finish(&mut self, id: ConnId) -> Next {
        let Some(e) = self.entry(id) else {
            return Next::Gone;
        };
        let events = e.conn.has_events();
        if !e.conn.is_drained() || events {
            let next = e.conn.poll_timeout().map_or(Next::Quiet, Next::Timeout);
            if events {
                self.wake(id);
            }
            return next;
        }
        self.remove(id);
        Next::Gone
    }

    pub(super) fn remove(&mut self, id: ConnId) {
        let Some(mut e) = self
            .entries
            .get_mut(id.index as usize)
            .and_then(Option::take)
        else {
            return;
        };
        for cid in e.conn.local_cids().chain(&e.cold.initial_dcid) {
            self.router.remove(cid, Route::Connection(id));
        }
        while let Some(cid) = e.conn.poll_retired_cid() {
            self.router.remove(&cid, Route::Connection(id));
        }
        self.router.set_reset_token(id, e.reset_token, None);
        for token in e.cold.other_tokens.unwrap_or_default().0 {
            self.router.set_reset_token(id, Some(token), None);
        }
        self.ledger
            .on_gone(&e.cold.summed, &e.conn.stats(), &e.conn.path_stats());
        if let Some(found_by) = e.cold.addresses {
            self.router.remove_addresses(found_by.0, &found_by.1, id);
        }
        self.half_open -= usize::from(e.half_open);
        self.admission.end(e.cold.prefix.map(|prefix| *prefix));
        self.free.push((id.index, id.generation.wrapping_add(1)));
    }

    /// A connection's time has come.
    pub fn handle_timeout(&mut self, now: Timestamp, id: ConnId) {
        self.clock = now;
        if let Some(e) = self.entry(id) {
            e.conn.handle_timeout(now);
            self.wake(id);
        }
    }

    /// A stateless packet to send: Retry, Version Negotiation, reset, refusal.
    pub fn poll_transmit(&mut self, buf: &mut [u8]) -> Option<Transmit> {
        self.stateless.poll(buf)
    }

    /// Whether [`Endpoint::poll_transmit`] has something.
    #[inline]
    pub fn has_stateless(&self) -> bool {
        !self.stateless.is_empty()
    }

    /// Closes every connection with an application code; they drain on their own.
    pub fn close_all(&mut self, now: Timestamp, code: u64, reason: &[u8]) {
        let ids: Vec<ConnId> = self.ids().collect();
        for id in ids {
            if let Some(conn) = self.connection(id) {
                conn.close(now, code, reason);
            }
            self.wake(id);
        }
    }
}
