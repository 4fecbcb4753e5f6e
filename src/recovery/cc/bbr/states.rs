//! The state machine of BBR (draft-ietf-ccwg-bbr-06 §5.3, §5.4): Startup fills the pipe, Drain
//! empties the queue, ProbeBW sends faster and slower by turns, ProbeRTT looks for the
//! path's delay.

use super::rate::RateSample;
use super::{Bbr, UNBOUNDED};
use crate::base::{Rng, Timestamp};
use std::time::Duration;

/// How long ProbeRTT keeps the flight small (`ProbeRTTDuration`).
const PROBE_RTT_DURATION: Duration = Duration::from_millis(200);
/// Round trips between bandwidth probes at most, so that Reno and CUBIC can coexist (§5.3.3.8).
const RENO_ROUNDS: u64 = 63;
/// Round trips after which Drain ends in any case (§5.3.2).
const DRAIN_ROUNDS: u64 = 3;

/// Where the state machine stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Startup,
    Drain,
    Down,
    Cruise,
    Refill,
    Up,
    ProbeRtt,
}

/// What acknowledgements tell of the latest bandwidth probe (§2.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AckPhase {
    Init,
    Refilling,
    ProbeStarting,
    ProbeFeedback,
    ProbeStopping,
}

impl State {
    /// §5.6.1.
    pub(super) const fn pacing_gain(self) -> f64 {
        match self {
            Self::Startup => 2.77,
            Self::Drain => 0.5,
            Self::Down => 0.9,
            Self::Cruise | Self::Refill | Self::ProbeRtt => 1.0,
            Self::Up => 1.25,
        }
    }

    /// §5.6.1.
    pub(super) const fn cwnd_gain(self) -> f64 {
        match self {
            Self::Up => 2.25,
            Self::ProbeRtt => 0.5,
            _ => 2.0,
        }
    }

    pub(super) const fn is_probe_bw(self) -> bool {
        matches!(self, Self::Down | Self::Cruise | Self::Refill | Self::Up)
    }

    /// `IsProbingBW`.
    pub(super) const fn accelerates(self) -> bool {
        matches!(self, Self::Startup | Self::Refill | Self::Up)
    }
}

impl Bbr {
    /// §5.3.1.3: Startup ends when a round trip loses too much, in several places.
    pub(super) fn check_startup_high_loss(&mut self, rs: &RateSample, loss_round_start: bool) {
        if !loss_round_start {
            return;
        }
        let scattered = self.bounds.take_loss_ranges();
        if self.state == State::Startup && scattered && rs.inflight_too_high() {
            self.bounds.undo_to(State::Startup);
            self.full_bw.reached = true;
            let safe = (self.bdp(1.0) as u64).max(self.bounds.inflight_latest);
            self.bounds.inflight_longterm = safe;
        }
    }

    pub(super) fn enter_drain(&mut self) {
        self.state = State::Drain;
        self.drain_start_round = self.round_count;
    }

    pub(super) fn check_drain_done(&mut self, now: Timestamp, in_flight: u64) {
        if self.state == State::Drain
            && (in_flight <= self.inflight(self.bw, 1.0)
                || self.round_count > self.drain_start_round + DRAIN_ROUNDS)
        {
            self.start_down(now);
        }
    }

    pub(super) fn start_down(&mut self, now: Timestamp) {
        self.bounds.reset_signals();
        self.probe_up_acked_per_inc = UNBOUNDED;
        self.pick_probe_wait(now);
        self.cycle_stamp = now;
        self.ack_phase = AckPhase::ProbeStopping;
        self.start_round();
        self.state = State::Down;
    }

    /// `PickProbeWait`: two to three seconds, and up to one round trip less.
    fn pick_probe_wait(&mut self, now: Timestamp) {
        let mut rng = Rng::from_u64(now.as_nanos() ^ self.sampler.delivered.rotate_left(32));
        self.rounds_since_probe_up = rng.below(2);
        self.bw_probe_wait = Duration::from_millis(2000 + rng.below(1000));
    }

    pub(super) fn start_refill(&mut self) {
        self.bounds.reset_shortterm();
        self.bw_probe_up_rounds = 0;
        self.bw_probe_up_acked = 0;
        self.bounds.prev_probe_precautionary = false;
        self.ack_phase = AckPhase::Refilling;
        self.start_round();
        self.state = State::Refill;
    }

    fn start_up(&mut self, rs: &RateSample) {
        self.ack_phase = AckPhase::ProbeStarting;
        self.start_round();
        self.full_bw.restart(rs.delivery_rate);
        self.state = State::Up;
        self.raise_inflight_longterm_slope();
    }

    /// §5.3.3.9.
    pub(super) fn update_probe_bw_phase(
        &mut self,
        now: Timestamp,
        rs: &RateSample,
        in_flight: u64,
    ) {
        if !self.full_bw.reached || self.adapt_longterm_model(rs) {
            return;
        }
        let state = self.state;
        match state {
            State::Down | State::Cruise if self.is_time_to_probe_bw(now) => self.start_refill(),
            State::Down if self.is_time_to_cruise(in_flight) => self.state = State::Cruise,
            State::Refill if self.round_start => {
                self.bounds.is_bw_probe_sample = true;
                self.start_up(rs);
            }
            State::Up if self.is_time_to_go_down(rs, in_flight) => {
                self.bounds.prev_probe_too_high = false;
                self.start_down(now);
            }
            _ => {}
        }
    }

    fn is_time_to_probe_bw(&self, now: Timestamp) -> bool {
        let reno_rounds = (self.target_inflight() / self.mtu).min(RENO_ROUNDS);
        now > self.cycle_stamp + self.bw_probe_wait || self.rounds_since_probe_up >= reno_rounds
    }

    fn is_time_to_cruise(&self, in_flight: u64) -> bool {
        in_flight <= self.inflight_with_headroom()
            && in_flight <= self.inflight(self.max_bw.get(), 1.0)
    }

    fn is_time_to_go_down(&mut self, rs: &RateSample, in_flight: u64) -> bool {
        // §5.3.3.6: a level that was too high last time is touched, and not held.
        if self.bounds.prev_probe_too_high && in_flight >= self.bounds.inflight_longterm {
            self.bounds.prev_probe_precautionary = true;
            return true;
        }
        if self.is_cwnd_limited() && self.cwnd >= self.bounds.inflight_longterm {
            self.full_bw.restart(rs.delivery_rate);
            return false;
        }
        self.full_bw.now
    }

    /// Follows what acknowledgements tell of the latest probe, and raises the long-term bound while
    /// loss stays low. True when it decided a transition.
    fn adapt_longterm_model(&mut self, rs: &RateSample) -> bool {
        if self.round_start {
            match self.ack_phase {
                AckPhase::ProbeStarting => self.ack_phase = AckPhase::ProbeFeedback,
                AckPhase::ProbeStopping => {
                    self.bounds.is_bw_probe_sample = false;
                    self.ack_phase = AckPhase::Init;
                    if self.state.is_probe_bw() && !rs.app_limited {
                        self.max_bw.advance();
                    }
                    let b = &self.bounds;
                    let again = b.prev_probe_precautionary && !b.prev_probe_too_high;
                    if self.state.is_probe_bw() && again {
                        self.start_refill();
                        return true;
                    }
                }
                _ => {}
            }
        }
        if !rs.inflight_too_high() && self.bounds.inflight_longterm != UNBOUNDED {
            let b = &mut self.bounds;
            b.inflight_longterm = b.inflight_longterm.max(rs.tx_in_flight);
            if self.state == State::Up {
                self.probe_inflight_longterm_upward(rs);
            }
        }
        false
    }

    fn raise_inflight_longterm_slope(&mut self) {
        let growth = 1 << self.bw_probe_up_rounds;
        self.bw_probe_up_rounds = (self.bw_probe_up_rounds + 1).min(30);
        self.probe_up_acked_per_inc = (self.cwnd / growth).max(self.mtu);
    }

    fn probe_inflight_longterm_upward(&mut self, rs: &RateSample) {
        if !self.is_cwnd_limited() || self.cwnd < self.bounds.inflight_longterm {
            return;
        }
        self.bw_probe_up_acked += rs.newly_acked;
        let steps = self.bw_probe_up_acked / self.probe_up_acked_per_inc;
        self.bw_probe_up_acked -= steps * self.probe_up_acked_per_inc;
        self.bounds.inflight_longterm += steps * self.mtu;
        if self.round_start {
            self.raise_inflight_longterm_slope();
        }
    }

    /// §5.3.4.3.
    pub(super) fn check_probe_rtt(&mut self, now: Timestamp, rs: &RateSample, in_flight: u64) {
        if self.state != State::ProbeRtt && self.min_rtt.expired && !self.idle_restart {
            self.save_cwnd();
            self.state = State::ProbeRtt;
            self.probe_rtt_done = None;
            self.ack_phase = AckPhase::ProbeStopping;
            self.start_round();
        }
        if self.state == State::ProbeRtt {
            self.handle_probe_rtt(now, in_flight);
        }
        if rs.delivered > 0 {
            self.idle_restart = false;
        }
    }

    fn handle_probe_rtt(&mut self, now: Timestamp, in_flight: u64) {
        // The rates of a small flight are not the path's.
        self.sampler.mark_app_limited(in_flight);
        if self.probe_rtt_done.is_none() {
            if in_flight <= self.probe_rtt_cwnd() {
                self.probe_rtt_done = Some(now + PROBE_RTT_DURATION);
                self.probe_rtt_round_done = false;
                self.start_round();
            }
            return;
        }
        self.probe_rtt_round_done |= self.round_start;
        if self.probe_rtt_round_done {
            self.check_probe_rtt_done(now);
        }
    }

    fn check_probe_rtt_done(&mut self, now: Timestamp) {
        if self.probe_rtt_done.is_none_or(|at| now <= at) {
            return;
        }
        self.min_rtt.probe_stamp = now;
        self.restore_cwnd();
        self.bounds.reset_shortterm();
        if self.full_bw.reached {
            self.start_down(now);
            self.state = State::Cruise;
        } else {
            self.state = State::Startup;
        }
    }

    /// §5.4.1: the first packet after nothing was in flight.
    pub(super) fn restart_from_idle(&mut self, now: Timestamp) {
        self.idle_restart = true;
        self.extra_acked.interval_start = now;
        if self.state.is_probe_bw() {
            self.set_pacing_rate(1.0);
        } else if self.state == State::ProbeRtt {
            self.check_probe_rtt_done(now);
        }
    }
}
