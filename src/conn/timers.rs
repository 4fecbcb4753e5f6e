//! Everything with a deadline: one place that says when to wake and what to do then.
//!
//! A connection has one entry in its shard's wheel: the earliest of what [`Connection::poll_timeout`]
//! looks at.

use super::error::ConnectionError;
use super::{Connection, TransportConfig};
use crate::base::Timestamp;
use crate::path::validate::ValidationTimeout;
use crate::recovery::pto;
use crate::wire::{PacketType, Side};
use std::time::Duration;

/// Deadlines that no other part of the connection holds.
#[derive(Debug)]
pub(super) struct Timers {
    pub(super) handshake: Option<Timestamp>,
    pub(super) drain: Option<Timestamp>,
    pub(super) closing_heard: u32,
    pub(super) closing_answer_at: u32,
    /// When an idle connection ends.
    idle: Option<Timestamp>,
    idle_timeout: Option<Duration>,
    /// An ack-eliciting packet left since something was received (RFC 9000 §10.1).
    sent_since_received: bool,
    keep_alive_interval: Option<Duration>,
    keep_alive: Option<Timestamp>,
    /// When the pacer lets the next train go, while it holds one back.
    pub(super) pacing: Option<Timestamp>,
}

impl Timers {
    pub(super) fn new(now: Timestamp, config: &TransportConfig) -> Self {
        let idle_timeout = Some(config.max_idle_timeout).filter(|d| !d.is_zero());
        Self {
            handshake: Some(now + config.handshake_deadline),
            drain: None,
            closing_heard: 0,
            closing_answer_at: 1,
            idle: idle_timeout.map(|d| now + d),
            idle_timeout,
            sent_since_received: false,
            keep_alive_interval: config.keep_alive_interval,
            keep_alive: None,
            pacing: None,
        }
    }

    /// The peer's max_idle_timeout came: the smaller one counts (RFC 9000 §10.1).
    pub(super) fn set_peer_idle(&mut self, peer: Duration) {
        if !peer.is_zero() {
            self.idle_timeout = Some(self.idle_timeout.map_or(peer, |own| own.min(peer)));
        }
    }

    #[inline]
    pub(super) fn on_packet_received(&mut self, now: Timestamp) {
        self.sent_since_received = false;
        self.restart_idle(now);
        self.keep_alive = self.keep_alive_interval.map(|d| now + d);
    }

    #[inline]
    pub(super) fn on_ack_eliciting_sent(&mut self, now: Timestamp) {
        if !self.sent_since_received {
            self.sent_since_received = true;
            self.restart_idle(now);
        }
    }

    #[inline]
    fn restart_idle(&mut self, now: Timestamp) {
        if let Some(d) = self.idle_timeout {
            self.idle = Some(now + d);
        }
    }

    pub(super) fn clear(&mut self) {
        self.handshake = None;
        self.idle = None;
        self.keep_alive = None;
        self.pacing = None;
        self.drain = None;
    }
}

/// The earlier of two optional deadlines.
#[inline]
fn earlier(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

impl Connection {
    /// When to call [`Connection::handle_timeout`]; `None` when nothing waits for time.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        if self.state.is_closed() {
            return self.timers.drain;
        }
        let t = &self.timers;
        let path = self.paths.primary();
        let mut at = earlier(t.idle, t.handshake);
        at = earlier(at, t.keep_alive);
        at = earlier(at, t.pacing);
        at = earlier(at, path.acks.deadline());
        at = earlier(at, path.validation.deadline());
        at = earlier(at, path.mtu.deadline());
        for space in [&self.initial, &self.handshake].into_iter().flatten() {
            at = earlier(at, space.acks.deadline());
        }
        earlier(at, self.loss_timer().map(|(at, _, _)| at))
    }

    /// The loss detection timer (RFC 9002 §A.8): a time-threshold loss before a probe timeout.
    fn loss_timer(&self) -> Option<(Timestamp, PacketType, LossTimer)> {
        let path = self.paths.primary();
        let spaces = [
            (PacketType::Initial, self.initial.as_ref().map(|s| &s.sent)),
            (PacketType::Handshake, self.handshake.as_ref().map(|s| &s.sent)),
            (PacketType::OneRtt, Some(&path.sent)),
        ];
        let loss = spaces
            .iter()
            .filter_map(|(ty, sent)| Some((sent.as_ref()?.loss_time()?, *ty, LossTimer::Loss)))
            .min_by_key(|(at, ..)| *at);
        if loss.is_some() {
            return loss;
        }
        if path.validation.allowance() == 0 {
            // RFC 9002 §6.2.2.1: a server that may not send waits for the client.
            return None;
        }
        let mut out: Option<(Timestamp, PacketType, LossTimer)> = None;
        let mut in_flight = false;
        for (ty, sent) in spaces {
            let Some(sent) = sent else { continue };
            if sent.ack_eliciting_in_flight() == 0 {
                continue;
            }
            in_flight = true;
            // RFC 9002 §6.2.1: no 1-RTT probe before the handshake is confirmed.
            if ty == PacketType::OneRtt && !self.state.is_confirmed() {
                continue;
            }
            let Some(sent_at) = sent.last_ack_eliciting_sent() else { continue };
            let delay = match ty {
                PacketType::OneRtt => self.peer_params.max_ack_delay,
                _ => Duration::ZERO,
            };
            let at = sent_at + pto::backoff(path.rtt.pto(delay), path.pto_count);
            if out.is_none_or(|(best, ..)| at < best) {
                out = Some((at, ty, LossTimer::Probe));
            }
        }
        let stuck = !in_flight || out.is_none();
        if stuck && self.side == Side::Client && !self.state.is_confirmed() {
            // RFC 9002 §6.2.2.1: the server may wait for bytes of ours to be allowed to send.
            let ty = match (&self.handshake, &self.initial) {
                (Some(_), _) => PacketType::Handshake,
                (None, Some(_)) => PacketType::Initial,
                (None, None) => return out,
            };
            let base = path.last_received.max(self.last_handshake_sent());
            let at = base + pto::backoff(path.rtt.pto(Duration::ZERO), path.pto_count);
            return Some((at, ty, LossTimer::Probe));
        }
        out
    }

    fn last_handshake_sent(&self) -> Timestamp {
        [&self.initial, &self.handshake]
            .into_iter()
            .flatten()
            .filter_map(|s| s.sent.last_ack_eliciting_sent())
            .max()
            .unwrap_or(Timestamp::ZERO)
    }

    /// Does what is due at `now`. Poll afterwards.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let due = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
        if self.state.is_closed() {
            if due(self.timers.drain) {
                self.timers.drain = None;
                self.state.to_drained();
            }
            return;
        }
        if due(self.timers.idle) {
            self.end_silently(ConnectionError::TimedOut);
            return;
        }
        if due(self.timers.handshake) {
            self.end_silently(ConnectionError::HandshakeTimedOut);
            return;
        }
        if due(self.timers.keep_alive) {
            self.timers.keep_alive = None;
            self.pending.ping = true;
        }
        if due(self.timers.pacing) {
            self.timers.pacing = None;
        }
        self.handle_path_timeouts(now);
        if let Some((at, ty, what)) = self.loss_timer()
            && at <= now
        {
            match what {
                LossTimer::Loss => self.detect_lost(now, ty),
                LossTimer::Probe => self.on_pto(ty),
            }
        }
    }

    fn handle_path_timeouts(&mut self, now: Timestamp) {
        let path = self.paths.primary_mut();
        path.mtu.on_timeout(now);
        path.acks.on_timeout(now);
        for space in [&mut self.initial, &mut self.handshake].into_iter().flatten() {
            space.acks.on_timeout(now);
        }
        if let ValidationTimeout::Failed(previous) = path.validation.on_timeout(now) {
            match previous {
                Some((socket, tuple)) => {
                    path.socket = socket;
                    path.tuple = tuple;
                    path.reset_for_new_address(&self.config.path(), now);
                }
                None => self.end_silently(ConnectionError::TimedOut),
            }
        }
    }
}

/// What the loss detection timer stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LossTimer {
    Loss,
    Probe,
}
