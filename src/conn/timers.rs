//! Everything with a deadline: one place that says when to wake and what to do then.
//!
//! A connection has one entry in its shard's wheel: the earliest of what
//! [`Connection::poll_timeout`] looks at.

use super::error::ConnectionError;
use super::multipath::failure_deadline;
use super::space::{HandshakeSpace, SentFrame};
use super::{Connection, TransportConfig};
use crate::base::{Timestamp, limits};
use crate::path::validate::ValidationTimeout;
use crate::path::{Path, PathState};
use crate::recovery::{SentSpace, pto};
use crate::wire::{PacketType, Side};
use std::time::Duration;

/// Deadlines that no other part of the connection holds.
#[derive(Debug)]
pub(super) struct Timers {
    pub(super) handshake: Option<Timestamp>,
    pub(super) drain: Option<Timestamp>,
    pub(super) closing_heard: u32,
    pub(super) closing_answer_at: u32,
    /// When the idle period began.
    idle_since: Timestamp,
    /// How long it may last; `None` for ever.
    idle_timeout: Option<Duration>,
    /// An ack-eliciting packet left since something was received (RFC 9000 §10.1).
    sent_since_received: bool,
    keep_alive_interval: Option<Duration>,
    keep_alive: Option<Timestamp>,
    /// What an idle connection can do without was given back since the idle period began.
    pub(super) rested: bool,
}

impl Timers {
    pub(super) fn new(now: Timestamp, config: &TransportConfig) -> Self {
        let idle_timeout = Some(config.max_idle_timeout).filter(|d| !d.is_zero());
        Self {
            handshake: Some(now + config.handshake_deadline),
            drain: None,
            closing_heard: 0,
            closing_answer_at: 1,
            idle_since: now,
            idle_timeout,
            sent_since_received: false,
            keep_alive_interval: config.keep_alive_interval,
            keep_alive: None,
            rested: false,
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
        self.rested = false;
        self.idle_since = now;
        self.keep_alive = self.keep_alive_interval.map(|d| now + d);
    }

    #[inline]
    pub(super) fn on_ack_eliciting_sent(&mut self, now: Timestamp) {
        if !self.sent_since_received {
            self.sent_since_received = true;
            self.rested = false;
            self.idle_since = now;
        }
    }

    /// When to give back what an idle connection can do without.
    pub(super) fn rest_at(&self, pto: Duration) -> Option<Timestamp> {
        (!self.rested).then(|| self.idle_since + limits::REST_AFTER.max(pto * 3))
    }

    pub(super) fn clear(&mut self) {
        self.handshake = None;
        self.idle_timeout = None;
        self.keep_alive = None;
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
        let mut at = earlier(self.idle_deadline(), t.handshake);
        at = earlier(at, t.keep_alive);
        at = earlier(at, self.zero_rtt.deadline());
        at = earlier(at, self.one_rtt.as_deref().and_then(|k| k.deadline()));
        for space in [&self.initial, &self.handshake].into_iter().flatten() {
            at = earlier(at, space.acks.deadline());
        }
        at = earlier(at, self.rest_deadline());
        if let Some(m) = self.multipath.as_deref() {
            at = earlier(at, m.deadline());
            at = earlier(at, self.reinjection_deadline());
            at = earlier(at, self.auto_deadline());
        }
        for path in self.paths.iter() {
            at = earlier(at, self.path_deadline(path));
        }
        at
    }

    /// When a path is due for something.
    fn path_deadline(&self, path: &Path<SentFrame>) -> Option<Timestamp> {
        let mut at = earlier(path.paced_until, path.acks.deadline());
        if let PathState::Abandoned(until) = path.state {
            at = earlier(at, until);
        }
        at = earlier(at, path.validation.deadline());
        if !path.probes.is_empty() {
            at = earlier(at, path.probes.deadline());
        }
        if path.failure.is_some() {
            at = earlier(at, failure_deadline(path));
        }
        earlier(at, self.loss_timer(path).map(|t| t.at))
    }

    /// The largest probe timeout among the paths (RFC 9002 §6.2).
    #[inline]
    pub(super) fn largest_pto(&self) -> Duration {
        let delay = self.peer_params.max_ack_delay;
        let pto = self.paths.current().rtt.pto(delay);
        let others = self.paths.others().map(|p| p.rtt.pto(delay));
        others.fold(pto, Duration::max)
    }

    /// When the connection has been idle for too long: never before three probe timeouts, so that
    /// a lost packet is not the end (RFC 9000 §10.1).
    fn idle_deadline(&self) -> Option<Timestamp> {
        let timeout = self.timers.idle_timeout?.max(self.largest_pto() * 3);
        Some(self.timers.idle_since + timeout)
    }

    /// The loss detection timer (RFC 9002 §A.8): a time-threshold loss before a probe timeout.
    /// Keeps RFC 9000 §8.1.
    fn loss_timer(&self, path: &Path<SentFrame>) -> Option<pto::Timer> {
        let data = path.sent.last_ack_eliciting_sent();
        let initial = self.initial.as_deref().map(|s| handshake_times(s, data));
        let handshake = self.handshake.as_deref().map(|s| handshake_times(s, data));
        let spaces = [
            initial.unwrap_or_default(),
            handshake.unwrap_or_default(),
            space_times(&path.sent),
        ];
        let confirmed = self.state.is_confirmed();
        let handshake_acked = self
            .handshake
            .as_deref()
            .is_some_and(|s| s.sent.largest_acked().is_some());
        let status = pto::HandshakeStatus {
            confirmed,
            has_handshake_keys: self.handshake.is_some(),
            peer_completed_address_validation: self.side == Side::Server
                || confirmed
                || handshake_acked,
            at_anti_amplification_limit: path.validation.allowance() < self.least_datagram(),
        };
        let base = path.last_received.max(self.last_handshake_sent());
        let delay = self.peer_params.max_ack_delay;
        pto::timer(base, &path.rtt, &spaces, status, delay, path.pto_count)
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
        self.watch.at(now);
        let due = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
        if self.state.is_closed() {
            if due(self.timers.drain) {
                self.timers.drain = None;
                self.state.move_to_drained();
            }
            return;
        }
        if due(self.idle_deadline()) {
            self.end_silently(ConnectionError::TimedOut);
            return;
        }
        if due(self.timers.handshake) {
            self.end_silently(ConnectionError::HandshakeTimedOut);
            return;
        }
        if due(self.timers.keep_alive) {
            self.timers.keep_alive = None;
            self.take_best_path();
            self.paths.current_mut().ping = true;
        }
        if let Some(keys) = self.one_rtt.as_deref_mut() {
            keys.on_timeout(now);
        }
        self.zero_rtt.on_timeout(now);
        for space in [&mut self.initial, &mut self.handshake]
            .into_iter()
            .flatten()
        {
            space.acks.on_timeout(now);
        }
        if due(self.rest_deadline()) {
            self.rest();
        }
        self.for_each_path(|c| c.handle_path_timeout(now));
        self.handle_multipath_timeout(now);
        self.settle_paths(now);
        self.reinject(now);
    }

    /// Does something with every path in hand, one after another.
    #[inline]
    pub(super) fn for_each_path(&mut self, mut act: impl FnMut(&mut Self)) {
        if self.paths.is_single() {
            return act(self);
        }
        let hand = self.paths.current().id;
        for id in self.paths.ids() {
            if self.paths.select(id) {
                act(self);
            }
        }
        self.paths.select(hand);
    }

    /// Does what is due at `now` for the path in hand.
    /// Keeps RFC 9000 §9.3.2.
    fn handle_path_timeout(&mut self, now: Timestamp) {
        if self.is_path_over(now) {
            return self.forget_path(self.paths.current().id);
        }
        let path = self.paths.current_mut();
        if path.paced_until.is_some_and(|at| at <= now) {
            path.paced_until = None;
        }
        path.acks.on_timeout(now);
        if path.validation.on_timeout(now) == ValidationTimeout::Failed {
            self.on_path_failed(now);
        }
        self.on_probe_timeout(now);
        let timer = self.loss_timer(self.paths.current());
        if let Some(timer) = timer.filter(|t| t.at <= now) {
            let ty = match timer.space {
                0 => PacketType::Initial,
                1 => PacketType::Handshake,
                _ => PacketType::OneRtt,
            };
            match timer.cause {
                pto::Cause::LossTime => self.detect_lost(now, ty),
                pto::Cause::Probe => self.on_pto(now, ty),
            }
        }
        if self.multipath.is_some() {
            self.check_for_failure(now);
        }
    }
}

/// What a space of the handshake contributes. CRYPTO data that the congestion window keeps back
/// counts as in flight: 0-RTT and 1-RTT packets, of which the last left at `data`, may fill the
/// window, and those are not acknowledged, nor probed for, before the handshake is done.
fn handshake_times(space: &HandshakeSpace, data: Option<Timestamp>) -> pto::SpaceTimes {
    let times = space_times(&space.sent);
    if times.last_ack_eliciting_sent.is_none() && space.crypto.wants_to_send() {
        return pto::SpaceTimes {
            last_ack_eliciting_sent: space.last_sent.or(data),
            ..times
        };
    }
    times
}

/// What one packet number space contributes to the loss detection timer.
fn space_times(sent: &SentSpace<SentFrame>) -> pto::SpaceTimes {
    pto::SpaceTimes {
        loss_time: sent.loss_time(),
        last_ack_eliciting_sent: sent
            .last_ack_eliciting_sent()
            .filter(|_| sent.ack_eliciting_in_flight() > 0),
    }
}
