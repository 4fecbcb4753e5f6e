//! Watching a connection: packets with their frames, losses, and what changed between two calls.
//!
//! Packets and losses are told where they happen. Everything else (phase, keys, addresses, RTT and
//! window, drops, the end) is found by comparing the connection with what was told last, so that no
//! other file has to remember to tell. A connection that nobody watches pays one branch a packet.
//!
//! Who watches: an [`Observer`] that the configuration makes, and `tracing`, where a subscriber
//! wants the span of the connection (level DEBUG, packets at TRACE) when the connection begins.
//! What a log file looks like is a layer above.

use super::error::ConnectionError;
use super::input::Packet;
use super::space::SentFrame;
use super::state::State;
use super::{Connection, TransportConfig, params};
use crate::base::{FourTuple, Timestamp};
use crate::crypto::TAG_LEN;
use crate::path::{Path, PathId};
use crate::wire::frame::Frame;
use crate::wire::{ConnectionId, PacketType, Reader, Side, TransportParameters};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tracing::{Span, debug, trace};

/// Is told what happens on one connection, on the thread that drives it: it must not block.
pub trait Observer: Send {
    /// Something happened at `now`.
    fn observe(&mut self, now: Timestamp, event: &Observed<'_>);
}

/// What a connection is when it begins.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Begun {
    /// When.
    pub now: Timestamp,
    /// Which side this is.
    pub side: Side,
    /// The destination of the client's very first packet: the same on both sides.
    pub original_dcid: ConnectionId,
    /// The first connection ID of this side.
    pub local_scid: ConnectionId,
    /// The addresses.
    pub path: FourTuple,
}

impl Begun {
    /// A connection that begins.
    pub const fn new(
        now: Timestamp,
        side: Side,
        original_dcid: ConnectionId,
        local_scid: ConnectionId,
        path: FourTuple,
    ) -> Self {
        Self {
            now,
            side,
            original_dcid,
            local_scid,
            path,
        }
    }
}

/// Makes the observer of each connection that begins, or none.
#[derive(Clone)]
pub struct Observers(Arc<Make>);

type Make = dyn Fn(&Begun) -> Option<Box<dyn Observer>> + Send + Sync;

impl Observers {
    /// Observers that `make` makes. A server's connection begins before its first packet has
    /// authenticated: what is costly should wait for an event.
    pub fn new(make: impl Fn(&Begun) -> Option<Box<dyn Observer>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observers(..)")
    }
}

/// One event.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Observed<'a> {
    /// Our transport parameters (`false`), or the peer's (`true`).
    Parameters(bool, &'a TransportParameters),
    /// A packet is being sent.
    PacketSent(SeenPacket<'a>),
    /// A packet was received and authenticated.
    PacketReceived(SeenPacket<'a>),
    /// A packet of ours was declared lost (RFC 9002 §6.1).
    PacketLost {
        /// The path whose packet it was.
        path: PathId,
        /// Its type.
        ty: PacketType,
        /// Its number.
        number: u64,
        /// Its bytes.
        size: usize,
    },
    /// Packets were dropped since the last event of this kind.
    PacketsDropped {
        /// They did not authenticate.
        undecryptable: u64,
        /// They had been received before.
        duplicate: u64,
        /// Anything else: no keys, wrong version, malformed.
        other: u64,
    },
    /// Round trip, window or bytes in flight of a path changed.
    Recovery(PathId, RecoveryState),
    /// The connection's life went on.
    Phase(Phase),
    /// Keys were updated (RFC 9001 §6).
    KeysUpdated {
        /// Updates so far.
        generation: u64,
        /// The peer began it.
        by_peer: bool,
    },
    /// A path's addresses changed (RFC 9000 §9), or there is another path (multipath §3.1).
    PathChanged {
        /// The path.
        path: PathId,
        /// Before; `None` if the path is new.
        from: Option<FourTuple>,
        /// From now on.
        to: FourTuple,
    },
    /// The UDP payload size in use on a path changed, in bytes.
    MtuChanged(PathId, usize),
    /// The connection is over for its application.
    Closed(&'a ConnectionError),
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// TLS is not done.
    Handshaking,
    /// TLS is done; the peer may not know yet.
    Complete,
    /// Both know (RFC 9001 §4.1.2).
    Confirmed,
    /// Closed by this side.
    Closing,
    /// Closed by the peer.
    Draining,
    /// Over.
    Drained,
}

/// What loss recovery and congestion control know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryState {
    /// Smallest round-trip time; zero before the first sample.
    pub min_rtt: Duration,
    /// Smoothed round-trip time.
    pub smoothed_rtt: Duration,
    /// The latest sample; zero before the first.
    pub latest_rtt: Duration,
    /// Round-trip time variation.
    pub rttvar: Duration,
    /// Congestion window in bytes.
    pub congestion_window: u64,
    /// Bytes in flight.
    pub bytes_in_flight: u64,
    /// Slow start threshold in bytes; `u64::MAX` before the first congestion event.
    pub ssthresh: u64,
    /// The window grows as in slow start.
    pub slow_start: bool,
    /// Probe timeouts in a row.
    pub pto_count: u32,
}

/// A packet as an observer sees it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SeenPacket<'a> {
    /// The path whose packet number space it belongs to.
    pub path: PathId,
    /// Its type.
    pub ty: PacketType,
    /// Its number.
    pub number: u64,
    /// Bytes of the whole packet, header and tag included.
    pub size: usize,
    /// Its frames, encoded.
    pub payload: &'a [u8],
}

impl<'a> SeenPacket<'a> {
    /// A packet of `size` bytes whose frames are `payload`.
    pub const fn new(
        path: PathId,
        ty: PacketType,
        number: u64,
        size: usize,
        payload: &'a [u8],
    ) -> Self {
        Self {
            path,
            ty,
            number,
            size,
            payload,
        }
    }

    /// Its frames; ends early at one that is malformed.
    pub fn frames(&self) -> impl Iterator<Item = Frame<'a>> + use<'a> {
        let mut r = Reader::new(self.payload);
        std::iter::from_fn(move || (!r.is_empty()).then(|| Frame::parse(&mut r).ok()).flatten())
    }
}

/// The connection's watcher, if it has one.
#[derive(Default)]
pub(super) struct Watch(Option<Box<Watcher>>);

struct Watcher {
    /// The time of the call that is under way.
    now: Timestamp,
    observer: Option<Box<dyn Observer>>,
    span: Span,
    /// The peer's parameters, once they are known.
    peer_params: Option<Box<TransportParameters>>,
    told: Option<Told>,
    /// What was told last of each path that there is.
    told_of: Vec<ToldOf>,
}

/// What was told last.
#[derive(Clone, Copy, PartialEq)]
struct Told {
    phase: Phase,
    updates: u64,
    drops: [u64; 3],
    peer_params: bool,
    closed: bool,
}

/// What was told last of a path.
#[derive(Clone, Copy, PartialEq)]
struct ToldOf {
    path: PathId,
    tuple: FourTuple,
    mtu: usize,
    recovery: RecoveryState,
}

impl ToldOf {
    fn standing(path: &Path<SentFrame>) -> Self {
        Self {
            path: path.id,
            tuple: path.tuple,
            mtu: path.mtu.current(),
            recovery: RecoveryState {
                min_rtt: path.rtt.min(),
                smoothed_rtt: path.rtt.smoothed(),
                latest_rtt: path.rtt.latest(),
                rttvar: path.rtt.var(),
                congestion_window: path.cc.window(),
                bytes_in_flight: path.bytes_in_flight,
                ssthresh: path.cc.ssthresh(),
                slow_start: path.cc.in_slow_start(),
                pto_count: path.pto_count,
            },
        }
    }
}

impl Watch {
    /// Watches a connection if its configuration asks for it or somebody listens to its span.
    pub(super) fn begin(config: &TransportConfig, begun: &Begun) -> Self {
        let span = tracing::debug_span!(
            "connection",
            odcid = %begun.original_dcid,
            role = role(begun.side),
            remote = %begun.path.remote,
        );
        let observer = config.observers.as_ref().and_then(|make| (make.0)(begun));
        if observer.is_none() && span.is_disabled() {
            return Self(None);
        }
        let mut watcher = Watcher {
            now: begun.now,
            observer,
            span,
            peer_params: None,
            told: None,
            told_of: Vec::new(),
        };
        let ours = params::local(config, begun.local_scid);
        watcher.tell(&Observed::Parameters(false, &ours));
        Self(Some(Box::new(watcher)))
    }

    /// The peer's parameters came: they are to be told, of a connection that is watched.
    pub(super) fn keep_peer_params(&mut self, params: TransportParameters) {
        if let Some(w) = self.0.as_deref_mut() {
            w.peer_params = Some(Box::new(params));
        }
    }

    /// A call begins.
    #[inline]
    pub(super) fn at(&mut self, now: Timestamp) {
        if let Some(w) = &mut self.0 {
            w.now = now;
        }
    }

    /// Whether anybody sees packets.
    #[inline]
    pub(super) const fn is_watching(&self) -> bool {
        self.0.is_some()
    }

    /// A packet that is not sealed yet; its payload begins at `payload_at`, room for the tag is at
    /// its end.
    #[inline]
    pub(super) fn sent(
        &mut self,
        path: PathId,
        (ty, number): (PacketType, u64),
        packet: &[u8],
        payload_at: usize,
    ) {
        if let Some(w) = &mut self.0 {
            w.sent(path, (ty, number), packet, payload_at);
        }
    }

    #[inline]
    pub(super) fn received(&mut self, path: PathId, packet: &Packet<'_>) {
        if let Some(w) = &mut self.0 {
            w.received(path, packet);
        }
    }

    #[inline]
    pub(super) fn lost(&mut self, path: PathId, ty: PacketType, number: u64, size: u16) {
        if let Some(w) = &mut self.0 {
            let size = usize::from(size);
            w.tell(&Observed::PacketLost {
                path,
                ty,
                number,
                size,
            });
        }
    }
}

impl Watcher {
    #[cold]
    fn sent(
        &mut self,
        path: PathId,
        (ty, number): (PacketType, u64),
        packet: &[u8],
        payload_at: usize,
    ) {
        let size = packet.len();
        let payload = packet.get(payload_at..size.saturating_sub(TAG_LEN));
        let seen = SeenPacket::new(path, ty, number, size, payload.unwrap_or_default());
        self.tell(&Observed::PacketSent(seen));
    }

    #[cold]
    fn received(&mut self, path: PathId, packet: &Packet<'_>) {
        let seen = SeenPacket::new(path, packet.ty, packet.pn, packet.size, packet.payload);
        self.tell(&Observed::PacketReceived(seen));
    }

    /// Tells of the peer's parameters, once.
    fn tell_peer_params(&mut self) {
        if let Some(params) = self.peer_params.take() {
            self.tell(&Observed::Parameters(true, &params));
        }
    }

    #[cold]
    fn tell(&mut self, event: &Observed<'_>) {
        if let Some(observer) = &mut self.observer {
            observer.observe(self.now, event);
        }
        let span = &self.span;
        match event {
            Observed::PacketSent(p) => {
                let path = p.path;
                trace!(parent: span, %path, ty = ?p.ty, number = p.number, size = p.size, "sent");
            }
            Observed::PacketReceived(p) => {
                let (path, size) = (p.path, p.size);
                trace!(parent: span, %path, ty = ?p.ty, number = p.number, size, "received");
            }
            Observed::PacketLost {
                path, ty, number, ..
            } => {
                trace!(parent: span, %path, ?ty, number, "lost");
            }
            Observed::Phase(Phase::Handshaking) => debug!(parent: span, "begun"),
            Observed::Phase(Phase::Complete) => debug!(parent: span, "handshake complete"),
            Observed::Phase(Phase::Confirmed) => debug!(parent: span, "handshake confirmed"),
            Observed::Phase(phase) => trace!(parent: span, ?phase, "moved"),
            Observed::KeysUpdated {
                generation,
                by_peer,
            } => debug!(parent: span, generation, by_peer, "keys updated"),
            Observed::PathChanged { path, from, to } => {
                let from = from.map(|f| f.remote);
                debug!(parent: span, %path, ?from, to = %to.remote, "path changed");
            }
            Observed::MtuChanged(path, mtu) => trace!(parent: span, %path, mtu, "MTU changed"),
            Observed::Closed(why) => debug!(parent: span, %why, "closed"),
            Observed::PacketsDropped { .. } | Observed::Parameters(..) | Observed::Recovery(..) => {
            }
        }
    }
}

impl Watcher {
    /// Tells what changed of a path.
    fn tell_path(&mut self, now: &ToldOf) {
        let path = now.path;
        let known = self.told_of.iter_mut().find(|t| t.path == path);
        let before = match known {
            Some(known) => Some(std::mem::replace(known, *now)),
            None => {
                self.told_of.push(*now);
                None
            }
        };
        let from = before.map(|b| b.tuple);
        // The addresses of the first are what the connection began with.
        if from != Some(now.tuple) && (from.is_some() || path != PathId::ZERO) {
            let to = now.tuple;
            self.tell(&Observed::PathChanged { path, from, to });
        }
        if before.is_none_or(|b| b.mtu != now.mtu) {
            self.tell(&Observed::MtuChanged(path, now.mtu));
        }
        if before.is_none_or(|b| b.recovery != now.recovery) {
            self.tell(&Observed::Recovery(path, now.recovery));
        }
    }
}

impl Connection {
    /// Tells what changed since the last time; `by_peer` if the peer's packets did it.
    #[inline]
    pub(super) fn watch_changes(&mut self, by_peer: bool) {
        if self.watch.0.is_some() {
            self.tell_changes(by_peer);
        }
    }

    #[cold]
    fn tell_changes(&mut self, by_peer: bool) {
        let Some(mut w) = self.watch.0.take() else {
            return;
        };
        let (now, before) = (self.standing(), w.told);
        w.told = Some(now);
        if before != Some(now) {
            self.tell_difference(&mut w, before, &now, by_peer);
        }
        for path in self.paths.iter() {
            w.tell_path(&ToldOf::standing(path));
        }
        w.told_of.retain(|t| self.paths.get(t.path).is_some());
        if let Some(why) = self.events.closed()
            && !before.is_some_and(|b| b.closed)
        {
            w.tell(&Observed::Closed(why));
        }
        self.watch.0 = Some(w);
    }

    fn tell_difference(&self, w: &mut Watcher, before: Option<Told>, now: &Told, by_peer: bool) {
        let is_new = |same: &dyn Fn(&Told) -> bool| before.as_ref().is_none_or(|b| !same(b));
        if now.peer_params && is_new(&|b| b.peer_params) {
            w.tell_peer_params();
        }
        if is_new(&|b| b.phase == now.phase) {
            w.tell(&Observed::Phase(now.phase));
        }
        if now.updates > 0 && is_new(&|b| b.updates == now.updates) {
            let generation = now.updates;
            w.tell(&Observed::KeysUpdated {
                generation,
                by_peer,
            });
        }
        let drops = before.map_or([0; 3], |b| b.drops);
        if drops != now.drops {
            let [undecryptable, duplicate, other] =
                std::array::from_fn(|i| now.drops[i].saturating_sub(drops[i]));
            w.tell(&Observed::PacketsDropped {
                undecryptable,
                duplicate,
                other,
            });
        }
    }

    fn standing(&self) -> Told {
        let s = &self.stats;
        Told {
            phase: match self.state {
                State::Handshaking => Phase::Handshaking,
                State::Complete => Phase::Complete,
                State::Confirmed => Phase::Confirmed,
                State::Closing { .. } => Phase::Closing,
                State::Draining => Phase::Draining,
                State::Drained => Phase::Drained,
            },
            updates: self.one_rtt.as_deref().map_or(0, |keys| keys.updates()),
            drops: [
                s.packets_undecryptable,
                s.packets_duplicate,
                s.packets_dropped,
            ],
            peer_params: self.ids.params_applied(),
            closed: self.events.closed().is_some() || self.state.is_closed(),
        }
    }
}

/// `client` or `server`.
pub const fn role(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Server => "server",
    }
}
