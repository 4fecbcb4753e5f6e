//! The QUIC connection as a state machine without sockets, clocks or threads.
//!
//! Four verbs. `handle_*` takes something in: a train of datagrams, a timeout. The application's
//! calls (`streams_mut`, `send_datagram`, `close`) take commands in. `poll_*` gives something out:
//! a train to send, the next timeout, an event. Nothing else has effects, and time and randomness
//! are arguments, so the same code runs under io_uring, epoll and a simulator.
//!
//! After any `handle_*` or application call, poll in this order: [`Connection::poll_event`] until
//! `None`, [`Connection::poll_transmit`] until `None`, then [`Connection::poll_timeout`] once.
//! [`Endpoint`] does this for any number of connections and routes datagrams to them.
//!
//! Everything that RFC 9000 keeps per path is a path's (`crate::path`), though there is one path
//! until the multipath extension opens more.

mod ack;
mod ack_frequency;
mod admission;
mod ahead;
pub mod application;
mod arrivals;
mod blocks;
mod build;
mod close;
pub mod config;
mod crypto_stream;
mod datagrams;
pub mod endpoint;
pub mod error;
mod events;
mod fill;
mod follow;
mod frames;
mod glitch;
mod grease;
mod guard;
mod handshake;
pub mod incoming;
mod input;
mod migrate;
pub mod multipath;
mod new_token;
pub mod observe;
mod params;
mod preferred;
mod probing;
mod resets;
mod rest;
mod router;
mod space;
mod spent;
mod state;
mod stateless;
mod stats;
mod stream_train;
mod timers;
pub mod token_store;
pub mod totals;
mod train;
mod tuples;
mod version;
mod warm;
mod zero_rtt;

use crate::base::{FourTuple, Rng, SocketId, Timestamp};
use crate::crypto::nonce::NonceGuard;
use crate::crypto::{OneRttKeys, Session};
use crate::path::cids::ResetToken;
use crate::path::{Path, PathId, PathSet, Spin};
use crate::stream::{Datagrams, Streams};
use crate::wire::{ConnectionId, Extensions, Side};
use ack_frequency::Asked;
pub use admission::PrefixCaps;
pub use application::Application;
pub use config::TransportConfig;
use crypto_stream::CryptoStream;
pub use datagrams::DatagramBatch;
pub use endpoint::{ConnId, Endpoint, EndpointConfig};
pub use error::ConnectionError;
pub use events::Event;
use events::Events;
pub use glitch::GlitchLimit;
use glitch::Glitches;
use grease::FixedBit;
pub use guard::{PortGuard, PortVerdict};
use handshake::HandshakeIds;
pub use incoming::{Decision, Incoming, IncomingId};
pub use migrate::{MigrateError, MigrationFailure};
use multipath::Multipath;
pub use multipath::{AddressConfig, AdvertiseError, LocalSocket};
pub use multipath::{
    ClosePathError, CopyStats, MultipathConfig, OpenPathError, PathController, PathControllers,
    PathEvent, PathInfo, PinError,
};
use new_token::NewTokens;
use observe::{Begun, Watch};
use params::PeerParams;
pub use preferred::PreferredAddresses;
pub use router::CidGenerator;
use space::{HandshakeSpace, SentFrame};
use state::State;
pub use stats::{ConnectionStats, PathStats};
use std::sync::Arc;
use timers::Timers;
pub use token_store::{TokenMemory, TokenStore};
pub use zero_rtt::EarlyData;
use zero_rtt::ZeroRtt;

/// Frames that wait outside streams, one flag or count each.
#[derive(Debug, Default)]
struct Pending {
    handshake_done: bool,
}

/// What a packet may hold beyond what belongs to its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    /// Nothing.
    Own,
    /// Frames about paths, and acknowledgements of others.
    Control,
    /// Those, and streams and datagrams that are pinned to the path.
    Pinned,
    /// Whatever waits.
    All,
}

/// A packet that came before its keys, kept whole.
#[derive(Debug)]
struct EarlyPacket {
    /// When it arrived.
    at: crate::base::Timestamp,
    meta: crate::base::RecvMeta,
    bytes: Vec<u8>,
}

/// One QUIC connection. See the module's documentation for how to drive it.
pub struct Connection {
    side: Side,
    config: Arc<TransportConfig>,
    state: State,
    session: Session,
    ids: HandshakeIds,
    initial: Option<Box<HandshakeSpace>>,
    handshake: Option<Box<HandshakeSpace>>,
    one_rtt: Option<Box<OneRttKeys>>,
    one_rtt_crypto: CryptoStream,
    paths: PathSet<SentFrame>,
    /// What there is beyond the paths, if both sides take several.
    multipath: Option<Box<Multipath>>,
    nonces: NonceGuard,
    /// A path is chosen before a train is built: there are several, and none was chosen yet.
    chooses_path: bool,
    /// What the path in hand is to carry.
    load: Load,
    /// The acknowledgement in hand came over another path than what it acknowledges.
    acked_elsewhere: bool,
    streams: Streams,
    datagrams: Datagrams,
    peer_params: PeerParams,
    /// What both ends have declared; nothing before the peer's parameters are known.
    extensions: Extensions,
    timers: Timers,
    events: Events,
    pending: Pending,
    early: Vec<EarlyPacket>,
    /// The server's preferred address is in use, or was: clients may move whatever the server said
    /// of the handshake's address.
    at_preferred: bool,
    /// When addresses that were left were last asked.
    looked_back: Timestamp,
    /// When the packet in hand arrived, if it had to wait for its keys; else `NEVER`.
    waited_since: Timestamp,
    zero_rtt: ZeroRtt,
    new_tokens: NewTokens,
    /// Frames of the packet being built; kept for its capacity.
    scratch: Vec<SentFrame>,
    fixed_bit: FixedBit,
    /// What either side asks of the other's acknowledgements.
    ack_frequency: Option<Box<Asked>>,
    rng: Rng,
    stats: ConnectionStats,
    watch: Watch,
    glitches: Glitches,
}

/// What a new connection is made from.
pub(crate) struct ConnectionInit {
    pub(crate) side: Side,
    pub(crate) config: Arc<TransportConfig>,
    pub(crate) session: Session,
    pub(crate) ids: HandshakeIds,
    pub(crate) socket: SocketId,
    pub(crate) tuple: FourTuple,
    pub(crate) rng: Rng,
}

// Allocators round up: a byte more costs half a kilobyte of each connection.
const _: () = assert!(size_of::<Connection>() <= 2048);
const _: () = assert!(size_of::<Path<SentFrame>>() <= 1792);

impl Connection {
    pub(crate) fn new(now: Timestamp, init: ConnectionInit, initial: HandshakeSpace) -> Self {
        let ConnectionInit {
            side,
            config,
            session,
            ids,
            socket,
            tuple,
            mut rng,
        } = init;
        let begun = Begun::new(now, side, ids.original_dcid, ids.local_scid, tuple);
        let mut path = Path::new(PathId::ZERO, socket, tuple, &config.path(), now);
        path.local_cids.set_first(ids.local_scid);
        path.remote_cids.set_first(ids.first_remote());
        path.skip_packet_number(&mut rng);
        path.spin = Spin::new(config.spin_bit, &mut rng);
        if side == Side::Client {
            // The client chose the server's address: it owes no proof to itself.
            path.validation.set_validated();
        }
        Self {
            side,
            streams: Streams::new(side, &config.streams),
            datagrams: Datagrams::new(config.datagram_send_buffer, config.datagram_receive_buffer),
            timers: Timers::new(now, &config),
            state: State::Handshaking,
            session,
            ids,
            initial: Some(Box::new(initial)),
            handshake: None,
            one_rtt: None,
            one_rtt_crypto: CryptoStream::default(),
            paths: PathSet::new(path),
            multipath: None,
            nonces: NonceGuard::default(),
            chooses_path: false,
            load: Load::All,
            acked_elsewhere: false,
            peer_params: PeerParams::default(),
            extensions: Extensions::default(),
            events: Events::default(),
            pending: Pending::default(),
            early: Vec::new(),
            at_preferred: false,
            looked_back: Timestamp::ZERO,
            waited_since: Timestamp::NEVER,
            zero_rtt: ZeroRtt::default(),
            new_tokens: NewTokens::default(),
            scratch: Vec::new(),
            fixed_bit: FixedBit::default(),
            ack_frequency: None,
            rng,
            stats: ConnectionStats::default(),
            watch: Watch::begin(&config, &begun),
            glitches: Glitches::new(now, config.glitches),
            config,
        }
    }

    /// Which side of the connection this is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// Whether the handshake is still running.
    pub fn is_handshaking(&self) -> bool {
        self.state.is_handshaking()
    }

    /// Whether the handshake ever completed, even if the connection is closed by now.
    pub(crate) fn has_completed(&self) -> bool {
        self.ids.completed
    }

    /// Whether the handshake is complete and the connection not closed.
    pub fn is_established(&self) -> bool {
        self.state.is_established()
    }

    /// Whether the connection is over for the application: closing, draining or gone.
    pub fn is_closed(&self) -> bool {
        self.state.is_closed()
    }

    /// Whether nothing is left to send, receive or wait for: it can be dropped.
    pub fn is_drained(&self) -> bool {
        self.state.is_drained()
    }

    /// The connection's streams: open, write, read.
    pub fn streams_mut(&mut self) -> &mut Streams {
        &mut self.streams
    }

    /// The connection's streams.
    pub fn streams(&self) -> &Streams {
        &self.streams
    }

    /// The protocol that ALPN chose.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.session.alpn()
    }

    /// The TLS session: certificates, server name, exporters.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Whether [`Connection::poll_transmit`] may have something to send.
    pub fn wants_to_send(&self) -> bool {
        match self.state {
            State::Closing { send, .. } => send,
            State::Draining | State::Drained => false,
            _ => {
                self.initial.is_some()
                    || self.handshake.is_some()
                    || self.has_one_rtt_to_send()
                    || (self.multipath.is_some() && self.some_path_wants_to_send())
            }
        }
    }

    /// Whether this side has no connection ID: what arrives is told by its addresses, so that the
    /// connection cannot move to another address of this side (RFC 9000 §5.1).
    pub fn has_zero_length_cid(&self) -> bool {
        self.ids.local_scid.is_empty()
    }

    /// The socket in use.
    pub fn socket(&self) -> SocketId {
        self.main_path().socket
    }

    /// Whether the connection sends, probes or may still hear something by that socket.
    pub fn uses_socket(&self, socket: SocketId) -> bool {
        self.paths
            .iter()
            .any(|path| path.socket == socket || path.probes.iter().any(|p| p.socket == socket))
    }

    /// Whether the peer has proven that it is where datagrams go now. A server that decides by its
    /// client's address asks this first: a source address alone may be forged (RFC 9000 §8).
    pub fn is_address_validated(&self) -> bool {
        self.main_path().validation.is_validated()
    }

    /// The addresses in use; of several paths, the first one's.
    pub fn path(&self) -> FourTuple {
        self.main_path().tuple
    }

    /// What the connection counted.
    pub fn stats(&self) -> ConnectionStats {
        ConnectionStats {
            datagrams: self.datagrams.stats(),
            ..self.stats
        }
    }

    /// What is known of the path in use; of several, the first.
    pub fn path_stats(&self) -> PathStats {
        multipath::stats_of(self.main_path())
    }

    /// The next event; `None` when there is none for now.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.watch_changes(false);
        if !self.has_events() {
            return None;
        }
        if let Some(e) = self.events.pop() {
            return Some(e);
        }
        if let Some(e) = self.streams.poll_event() {
            return Some(Event::Stream(e));
        }
        if self.datagrams.take_unblocked() {
            return Some(Event::DatagramsUnblocked);
        }
        self.events.take_closed().map(Event::Closed)
    }

    /// The connection ID of our preferred address, which the transport parameters announce.
    pub(crate) fn set_preferred_cid(&mut self, cid: ConnectionId, token: [u8; 16]) {
        self.paths.current_mut().local_cids.set_second(cid, token);
    }

    /// A token proved the peer's address (RFC 9000 §8.1.2).
    pub(crate) fn set_address_validated(&mut self) {
        self.paths.current_mut().validation.set_validated();
    }

    /// Moves to new packet protection keys (RFC 9001 §6). False when it is too early: the
    /// handshake must be confirmed and the peer must have acknowledged a packet of the keys in use.
    pub fn update_keys(&mut self) -> bool {
        let Some(keys) = self.one_rtt.as_deref_mut() else {
            return false;
        };
        let done = keys.initiate_update().is_ok();
        self.stats.key_updates = keys.updates();
        done
    }

    /// Whether [`Connection::poll_event`] has something.
    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty() || self.streams.has_events() || self.datagrams.is_unblocked()
    }

    /// The token by which the peer resets the connection over its first path, while it can.
    pub(crate) fn reset_token(&self) -> Option<ResetToken> {
        if self.state.is_closed() {
            return None;
        }
        let first = self.paths.get(PathId::ZERO).filter(|p| !p.is_abandoned());
        first.and_then(|p| p.remote_cids.active_token())
    }
}
