//! All streams of one connection: where their state lives, which exist, when they go.
//!
//! A stream has a slot while a half of it is not done or an event of it is not reported; then it
//! is forgotten, its ID never used again, and frames about it are ignored. A slot owns no buffers
//! until bytes have to wait. The verbs are in `app` (the application), `input` (frames received)
//! and `output` (frames to send).

use super::early::Early;
use super::event::{EventQueue, StreamEvent, bit};
use super::flow::ConnectionFlow;
use super::ids::{Known, LocalIds, PeerIds};
use super::index::Index;
use super::output::Control;
use super::recv::RecvHalf;
use super::schedule::{Need, Schedule};
use super::send::SendHalf;
use super::slots::Slots;
use crate::base::{Timestamp, limits};
use crate::wire::{Dir, Side, StreamId, TransportError, TransportParameters};
use std::time::Duration;

/// What we permit a peer, and how much we hold for the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamConfig {
    /// Bidirectional streams that the peer may have open.
    pub max_streams_bidi: u64,
    /// Unidirectional streams that the peer may have open.
    pub max_streams_uni: u64,
    /// A stream's receive window at the start, in bytes.
    pub stream_window: u64,
    /// What auto-tuning may raise it to, in bytes.
    pub stream_window_max: u64,
    /// The connection's receive window at the start, in bytes.
    pub connection_window: u64,
    /// What auto-tuning may raise it to, in bytes.
    pub connection_window_max: u64,
    /// Bytes that one stream holds for the application until they are acknowledged.
    pub send_buffer: usize,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            max_streams_bidi: limits::STREAMS,
            max_streams_uni: limits::STREAMS,
            stream_window: limits::STREAM_WINDOW,
            stream_window_max: limits::STREAM_WINDOW_MAX,
            connection_window: limits::CONNECTION_WINDOW,
            connection_window_max: limits::CONNECTION_WINDOW_MAX,
            send_buffer: limits::SEND_BUFFER,
        }
    }
}

/// Counters since the start of the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamStats {
    /// Streams that got state here, opened by either side.
    pub streams_opened: u64,
    /// Of those, streams that are done and forgotten.
    pub streams_closed: u64,
    /// Stream bytes sent for the first time.
    pub tx_bytes: u64,
    /// Stream bytes sent again.
    pub tx_bytes_again: u64,
    /// Stream bytes received, each offset once, lost ones below the highest included.
    pub rx_bytes: u64,
    /// Of those, bytes that the application took or that were dropped.
    pub rx_bytes_consumed: u64,
    /// RESET_STREAM frames that ended a stream of the peer.
    pub rx_resets: u64,
    /// STOP_SENDING frames that ended a stream of ours.
    pub rx_stops: u64,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: StreamId,
    /// `None` when done, or when this side never sends on the stream.
    pub(super) send: Option<SendHalf>,
    /// `None` when done, or when this side never receives on the stream.
    pub(super) recv: Option<RecvHalf>,
    /// Control frames to send (`output::frame`).
    pub(super) control: u8,
    /// Events to report (`event::bit`).
    pub(super) events: u8,
    /// The code of the peer's STOP_SENDING.
    pub(super) stop_code: Option<u64>,
    /// The code of the peer's RESET_STREAM.
    pub(super) reset_code: u64,
}

/// Limits that new streams start with, from the peer's transport parameters.
#[derive(Clone, Copy, Debug, Default)]
struct PeerLimits {
    bidi_local: u64,
    bidi_remote: u64,
    uni: u64,
}

/// All streams of a connection and its flow control. See the module.
#[derive(Debug)]
pub struct Streams {
    pub(super) side: Side,
    pub(super) config: StreamConfig,
    pub(super) slots: Slots,
    index: Index,
    /// By direction: `Dir as usize`.
    pub(super) local: [LocalIds; 2],
    pub(super) peer: [PeerIds; 2],
    /// `None` until the peer's transport parameters are known.
    peer_limits: Option<PeerLimits>,
    pub(super) flow: ConnectionFlow,
    pub(super) schedule: Schedule,
    pub(super) control: Control,
    pub(super) events: EventQueue,
    pub(super) early: Early,
    /// The last time and smoothed round trip that a frame came with.
    pub(super) clock: (Timestamp, Duration),
    pub(super) stats: StreamStats,
    /// Frames that led nowhere since [`Streams::take_glitches`].
    pub(super) glitches: u32,
}

impl Streams {
    /// No streams yet. Until [`Streams::set_peer_limits`] none can be opened.
    pub fn new(side: Side, config: &StreamConfig) -> Self {
        Self {
            side,
            config: *config,
            slots: Slots::default(),
            index: Index::default(),
            local: Default::default(),
            peer: [
                PeerIds::new(config.max_streams_bidi),
                PeerIds::new(config.max_streams_uni),
            ],
            peer_limits: None,
            flow: ConnectionFlow::new(config.connection_window),
            schedule: Schedule::default(),
            control: Control::default(),
            events: EventQueue::new(),
            early: Early::default(),
            clock: (Timestamp::ZERO, Duration::ZERO),
            stats: StreamStats::default(),
            glitches: 0,
        }
    }

    /// Brings near what the tables of streams begin with; a hint.
    #[inline]
    pub fn warm(&self) {
        self.slots.warm();
        self.index.warm();
        self.schedule.warm();
        self.control.warm();
        self.events.warm();
    }

    /// Takes over the peer's limits. A second call, after remembered ones for 0-RTT, raises them
    /// (RFC 9000 §7.4.1: they may not fall).
    pub fn set_peer_limits(&mut self, params: &TransportParameters) {
        let new = PeerLimits {
            bidi_local: params.initial_max_stream_data_bidi_local,
            bidi_remote: params.initial_max_stream_data_bidi_remote,
            uni: params.initial_max_stream_data_uni,
        };
        self.peer_limits = Some(new);
        let raise: Vec<(u32, StreamId)> = self
            .slots
            .iter_mut()
            .map(|(slot, s)| (slot, s.id))
            .collect();
        for (slot, id) in raise {
            let max = self.initial_max_data(id);
            self.raise_stream_limit(slot, max);
        }
        self.on_max_streams(Dir::Bi, params.initial_max_streams_bidi);
        self.on_max_streams(Dir::Uni, params.initial_max_streams_uni);
        self.on_max_data(params.initial_max_data);
        // A parameter of zero raises nothing, and is no frame.
        self.glitches = 0;
    }

    /// Whether the peer's transport parameters are known.
    pub(super) const fn has_peer_limits(&self) -> bool {
        self.peer_limits.is_some()
    }

    /// The peer's limit for a new stream's data from us (RFC 9000 §18.2 names them from the
    /// peer's end).
    fn initial_max_data(&self, id: StreamId) -> u64 {
        let limits = self.peer_limits.unwrap_or_default();
        match (id.dir(), id.initiator() == self.side) {
            (Dir::Uni, _) => limits.uni,
            (Dir::Bi, true) => limits.bidi_remote,
            (Dir::Bi, false) => limits.bidi_local,
        }
    }

    /// Counters.
    pub fn stats(&self) -> StreamStats {
        StreamStats {
            rx_bytes: self.flow.received,
            rx_bytes_consumed: self.flow.consumed,
            tx_bytes: self.flow.sent,
            ..self.stats
        }
    }

    /// Frames that led nowhere since the last call: streams abandoned by the peer, limits that
    /// raised nothing, STREAM frames without bytes or end (RFC 9000 §21.9).
    #[inline]
    pub fn take_glitches(&mut self) -> u32 {
        std::mem::take(&mut self.glitches)
    }

    /// Streams that have state now.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether no stream has state.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The slot of a stream that has one.
    #[inline]
    pub(super) fn find(&self, id: StreamId) -> Option<u32> {
        self.index.get(id.0)
    }

    #[inline]
    pub(super) fn slot(&mut self, slot: u32) -> Option<&mut Slot> {
        self.slots.get_mut(slot as usize)
    }

    /// The sending half of a stream that has one.
    #[inline]
    pub(super) fn send(&mut self, slot: u32) -> Option<&mut SendHalf> {
        self.slots.get_mut(slot as usize)?.send.as_mut()
    }

    /// The receiving half of a stream that has one.
    #[inline]
    pub(super) fn recv(&mut self, slot: u32) -> Option<&mut RecvHalf> {
        self.slots.get_mut(slot as usize)?.recv.as_mut()
    }

    /// Whether this side sends on `id`.
    #[inline]
    fn sends(&self, id: StreamId) -> bool {
        id.dir() == Dir::Bi || id.initiator() == self.side
    }

    /// Whether this side receives on `id`.
    #[inline]
    fn receives(&self, id: StreamId) -> bool {
        id.dir() == Dir::Bi || id.initiator() != self.side
    }

    /// Gives a stream its state.
    pub(super) fn make(&mut self, id: StreamId) -> u32 {
        let sends = self.sends(id).then(|| self.initial_max_data(id));
        let receives = self.receives(id);
        let (slot, s) = self.slots.take(id);
        if let Some(s) = s {
            s.send = sends.map(SendHalf::new);
            s.recv = receives.then(|| RecvHalf::new(self.config.stream_window, self.clock.0));
        }
        self.index.insert(id.0, slot);
        self.schedule.add(slot);
        self.stats.streams_opened += 1;
        slot
    }

    /// The slot of a stream that a frame about its data names; `None` when it is closed.
    #[inline]
    pub(super) fn receiving(&mut self, id: StreamId) -> Result<Option<u32>, TransportError> {
        if !self.receives(id) {
            return Err(TransportError::stream_state_error(
                "data on a stream that only this side sends on",
            ));
        }
        self.named(id)
    }

    /// The slot of a stream that a frame about our sending names; `None` when it is closed.
    pub(super) fn sending(&mut self, id: StreamId) -> Result<Option<u32>, TransportError> {
        if !self.sends(id) {
            return Err(TransportError::stream_state_error(
                "flow control of a stream that only the peer sends on",
            ));
        }
        self.named(id)
    }

    #[inline]
    fn named(&mut self, id: StreamId) -> Result<Option<u32>, TransportError> {
        match self.find(id) {
            Some(slot) => Ok(Some(slot)),
            None => self.named_first(id),
        }
    }

    /// RFC 9000 §3: a frame opens a stream of its sender's, never one of its receiver's.
    fn named_first(&mut self, id: StreamId) -> Result<Option<u32>, TransportError> {
        let (at, index) = (id.dir() as usize, id.index());
        if id.initiator() == self.side {
            let opened = self.local.get(at).map_or(0, |l| l.next);
            if index >= opened {
                return Err(TransportError::stream_state_error(
                    "a frame for a stream that this side has not opened",
                ));
            }
            return Ok(None);
        }
        let Some(ids) = self.peer.get_mut(at) else {
            return Ok(None);
        };
        let (opened, known) = ids.open_to_use(index)?;
        if opened && let Some(flag) = self.events.opened.get_mut(at) {
            *flag = true;
        }
        Ok((known == Known::Unmade).then(|| self.make(id)))
    }

    /// Brings the schedule up to date after anything about what `slot` has to send changed.
    #[inline]
    pub(super) fn update_send(&mut self, slot: u32) {
        let Some(s) = self.slots.get_mut(slot as usize) else {
            return;
        };
        let Some(send) = s.send.as_mut() else {
            return;
        };
        self.schedule.set(slot, send.need());
        if send.take_blocked() {
            self.control.raise_stream_blocked(slot, &mut s.control);
        }
    }

    /// The sending half is done.
    pub(super) fn end_send(&mut self, slot: u32) {
        let Some(s) = self.slots.get_mut(slot as usize) else {
            return;
        };
        s.send = None;
        self.schedule.end(slot);
        self.control.clear_send(slot, &mut s.control);
        self.events.clear(slot, &mut s.events, bit::WRITABLE);
        self.free_if_done(slot);
    }

    /// The receiving half is done.
    pub(super) fn end_recv(&mut self, slot: u32) {
        let Some(s) = self.slots.get_mut(slot as usize) else {
            return;
        };
        s.recv = None;
        self.control.clear_recv(slot, &mut s.control);
        self.events.clear(slot, &mut s.events, bit::READABLE);
        self.free_if_done(slot);
    }

    /// Forgets a stream of which nothing is left to do or to report.
    ///
    /// An unreported event keeps it: so a peer's streams cannot come and go faster than the
    /// application hears of them.
    pub(super) fn free_if_done(&mut self, slot: u32) {
        let done = |s: &Slot| s.send.is_none() && s.recv.is_none() && s.events == 0;
        let Some(s) = self.slots.get_mut(slot as usize).filter(|s| done(s)) else {
            return;
        };
        let id = s.id;
        self.control.clear_all(slot, &mut s.control);
        self.schedule.set(slot, Need::Idle);
        self.slots.give_back(slot);
        self.index.remove(id.0);
        self.stats.streams_closed += 1;
        if id.initiator() != self.side {
            let due = self
                .peer
                .get_mut(id.dir() as usize)
                .is_some_and(PeerIds::on_closed);
            if due {
                self.control.raise_max_streams(id.dir());
            }
        }
    }

    /// Gives back memory that streams left behind, while none exists.
    pub(crate) fn rest(&mut self) {
        if self.slots.is_empty() && self.slots.has_memory() {
            self.slots = Slots::default();
            self.index = Index::default();
            self.schedule.rest();
            self.control.rest();
            self.events.rest();
        }
    }

    /// Whether [`Streams::poll_event`] has something.
    #[inline]
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// The next event; `None` when all were reported.
    pub fn poll_event(&mut self) -> Option<StreamEvent> {
        if let Some(event) = self.events.pop_own() {
            return Some(event);
        }
        let slot = self.events.front()?;
        let s = self.slots.get_mut(slot as usize)?;
        let (id, first) = (s.id, s.events & s.events.wrapping_neg());
        self.events.clear(slot, &mut s.events, first);
        let event = match first {
            bit::STOPPED => StreamEvent::Stopped(id, s.stop_code.unwrap_or_default()),
            bit::RESET => {
                let code = s.reset_code;
                s.recv = None;
                StreamEvent::Reset(id, code)
            }
            bit::READABLE => StreamEvent::Readable(id),
            bit::WRITABLE => StreamEvent::Writable(id),
            _ => StreamEvent::Finished(id),
        };
        self.free_if_done(slot);
        Some(event)
    }
}

#[cfg(test)]
mod tests;
