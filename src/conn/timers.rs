//! Everything with a deadline: one place that says when to wake and what to do then.
//!
//! A connection has one entry in its shard's wheel: the earliest of what
//! [`Connection::poll_timeout`] looks at.

use super::error::ConnectionError;
use super::multipath::failure_deadline;
use super::space::{HandshakeSpace, SentFrame};
use super::{Connection, TransportConfig};
use crate::base::time::nanos;
use crate::base::{Timestamp, limits};
use crate::path::validate::ValidationTimeout;
use crate::path::{Path, PathState};
use crate::recovery::{SentSpace, pto};
use crate::wire::{PacketType, Side};
use std::time::Duration;

/// Deadlines that no other part of the connection holds.
#[derive(Debug)]
pub(super) struct Timers {
    /// These and `keep_alive` are `NEVER` where nothing waits for them.
    pub(super) handshake: Timestamp,
    pub(super) drain: Timestamp,
    pub(super) closing_heard: u32,
    pub(super) closing_answer_at: u32,
    /// When the idle period began.
    idle_since: Timestamp,
    /// How many nanoseconds it may last; `u64::MAX` for ever.
    idle_timeout: u64,
    /// An ack-eliciting packet left since something was received (RFC 9000 §10.1).
    sent_since_received: bool,
    keep_alive_interval: Option<Duration>,
    keep_alive: Timestamp,
    /// What an idle connection can do without was given back since the idle period began.
    pub(super) rested: bool,
}

impl Timers {
    pub(super) fn new(now: Timestamp, config: &TransportConfig) -> Self {
        Self {
            handshake: now + config.handshake_deadline,
            drain: Timestamp::NEVER,
            closing_heard: 0,
            closing_answer_at: 1,
            idle_since: now,
            idle_timeout: idle_timeout(config.max_idle_timeout),
            sent_since_received: false,
            keep_alive_interval: config.keep_alive_interval,
            keep_alive: Timestamp::NEVER,
            rested: false,
        }
    }

    /// The peer's max_idle_timeout came: the smaller one counts (RFC 9000 §10.1).
    pub(super) fn set_peer_idle(&mut self, peer: Duration) {
        self.idle_timeout = self.idle_timeout.min(idle_timeout(peer));
    }

    #[inline]
    pub(super) fn on_packet_received(&mut self, now: Timestamp) {
        self.sent_since_received = false;
        self.rested = false;
        self.idle_since = now;
        self.keep_alive = self
            .keep_alive_interval
            .map_or(Timestamp::NEVER, |d| now + d);
    }

    #[inline]
    pub(super) fn on_ack_eliciting_sent(&mut self, now: Timestamp) {
        if !self.sent_since_received {
            self.sent_since_received = true;
            self.rested = false;
            self.idle_since = now;
        }
    }

    /// When to give back what an idle connection can do without; `pto` in nanoseconds.
    #[inline]
    pub(super) fn rest_at(&self, pto: u64) -> Timestamp {
        const REST_AFTER: u64 = nanos(limits::REST_AFTER);
        match self.rested {
            true => Timestamp::NEVER,
            false => after(self.idle_since, REST_AFTER.max(pto.saturating_mul(3))),
        }
    }

    /// When the connection has been idle for too long: never before three probe timeouts (`pto`, in
    /// nanoseconds), so that a lost packet is not the end (RFC 9000 §10.1).
    #[inline]
    pub(super) fn idle_at(&self, pto: u64) -> Timestamp {
        let timeout = self.idle_timeout.max(pto.saturating_mul(3));
        after(self.idle_since, timeout)
    }

    pub(super) fn clear(&mut self) {
        self.handshake = Timestamp::NEVER;
        self.idle_timeout = u64::MAX;
        self.keep_alive = Timestamp::NEVER;
        self.drain = Timestamp::NEVER;
    }
}

/// A max_idle_timeout in nanoseconds; zero is none (RFC 9000 §18.2).
fn idle_timeout(max: Duration) -> u64 {
    match max.is_zero() {
        true => u64::MAX,
        false => nanos(max),
    }
}

/// So many nanoseconds after `at`; more than there are is never.
#[inline]
fn after(at: Timestamp, nanos: u64) -> Timestamp {
    Timestamp::from_nanos(at.as_nanos().saturating_add(nanos))
}

/// The earlier of a deadline and another, if there is one.
#[inline]
fn sooner(at: Timestamp, other: Option<Timestamp>) -> Timestamp {
    other.map_or(at, |other| at.min(other))
}

impl Connection {
    /// When to call [`Connection::handle_timeout`]; `None` when nothing waits for time.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        if self.state.is_closed() {
            let at = self.timers.drain;
            return (at != Timestamp::NEVER).then_some(at);
        }
        let (t, pto) = (&self.timers, self.largest_pto_nanos());
        let mut at = t.idle_at(pto);
        if self.state.is_confirmed() {
            at = at.min(t.rest_at(pto));
        }
        at = at.min(t.handshake).min(t.keep_alive);
        at = sooner(at, self.zero_rtt.deadline());
        at = sooner(at, self.one_rtt.as_deref().and_then(|k| k.deadline()));
        for space in [&self.initial, &self.handshake].into_iter().flatten() {
            at = sooner(at, space.acks.deadline());
        }
        if let Some(m) = self.multipath.as_deref() {
            at = sooner(at, m.deadline());
            at = sooner(at, self.reinjection_deadline());
            at = sooner(at, self.auto_deadline());
        }
        at = at.min(self.path_deadline(self.paths.current()));
        for path in self.paths.others() {
            at = at.min(self.path_deadline(path));
        }
        (at != Timestamp::NEVER).then_some(at)
    }

    /// When a path is due for something.
    fn path_deadline(&self, path: &Path<SentFrame>) -> Timestamp {
        let mut at = sooner(Timestamp::NEVER, path.paced_until);
        at = sooner(at, path.acks.deadline());
        if let PathState::Abandoned(until) = path.state {
            at = sooner(at, until);
        }
        at = sooner(at, path.validation.deadline());
        if !path.probes.is_empty() {
            at = sooner(at, path.probes.deadline());
        }
        if path.failure.is_some() {
            at = sooner(at, failure_deadline(path));
        }
        sooner(at, self.loss_timer(path).map(|t| t.at))
    }

    /// The largest probe timeout among the paths (RFC 9002 §6.2).
    #[inline]
    pub(super) fn largest_pto(&self) -> Duration {
        Duration::from_nanos(self.largest_pto_nanos())
    }

    /// The same in nanoseconds, up to [`limits::LONGEST_PTO`]: closing, draining and idling last
    /// three of it (RFC 9000 §10.1, §10.2), and the round trip is what the peer makes of it.
    #[inline]
    pub(super) fn largest_pto_nanos(&self) -> u64 {
        const LONGEST: u64 = nanos(limits::LONGEST_PTO);
        let delay = nanos(self.peer_params.max_ack_delay);
        let pto = self.paths.current().rtt.pto_nanos(delay);
        let others = self.paths.others().map(|p| p.rtt.pto_nanos(delay));
        match others.fold(pto, u64::max) {
            pto if pto <= LONGEST => pto,
            pto => pto.min(self.longest_pto_nanos()),
        }
    }

    /// What is said to be the longest, by who knows of longer round trips (RFC 9002 §6.2.2).
    #[cold]
    fn longest_pto_nanos(&self) -> u64 {
        let initial = self.config.initial_rtt.saturating_mul(3);
        nanos(limits::LONGEST_PTO.max(initial))
    }

    /// When the connection has been idle for too long (RFC 9000 §10.1).
    fn idle_deadline(&self) -> Timestamp {
        self.timers.idle_at(self.largest_pto_nanos())
    }

    /// The loss detection timer (RFC 9002 §A.8): a time-threshold loss before a probe timeout.
    #[inline]
    fn loss_timer(&self, path: &Path<SentFrame>) -> Option<pto::Timer> {
        if !self.state.is_confirmed() || self.initial.is_some() || self.handshake.is_some() {
            return self.loss_timer_in_handshake(path);
        }
        let space = space_times(&path.sent);
        let limited = || path.validation.allowance() < self.least_datagram();
        let delay = self.peer_params.max_ack_delay;
        pto::data_timer(&path.rtt, &space, limited, delay, path.pto_count)
    }

    /// The same while the handshake's spaces may have packets in flight.
    /// Keeps RFC 9000 §8.1.
    fn loss_timer_in_handshake(&self, path: &Path<SentFrame>) -> Option<pto::Timer> {
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
        let due = |at: Timestamp| at <= now;
        if self.state.is_closed() {
            if due(self.timers.drain) {
                self.timers.drain = Timestamp::NEVER;
                self.state.move_to_drained();
            }
            return;
        }
        if self.idle_deadline() <= now {
            self.end_silently(ConnectionError::TimedOut);
            return;
        }
        if due(self.timers.handshake) {
            self.end_silently(ConnectionError::HandshakeTimedOut);
            return;
        }
        if due(self.timers.keep_alive) {
            self.timers.keep_alive = Timestamp::NEVER;
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
        if self.rest_deadline() <= now {
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
            return self.forget_path(now, self.paths.current().id);
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
