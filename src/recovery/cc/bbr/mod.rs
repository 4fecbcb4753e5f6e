//! BBR version 3 (draft-ietf-ccwg-bbr-06): a model of the path, made of delivery rate, round-trip
//! time and loss, decides how fast to send and how much may be in flight.
//!
//! Names are the draft's. This file has the events and what they share; `rate.rs` samples the
//! delivery rate, `model.rs` filters, `states.rs` is the state machine, `bounds.rs` answers loss,
//! CE marks and spurious losses, `control.rs` sets pacing rate, quantum and window.
//!
//! Left open by the draft and decided here: a CE mark counts as the loss of one datagram (§3.7 asks
//! that it be treated as congestion); the random part of the probing interval comes from a
//! generator seeded by time and bytes delivered, which differ from flow to flow and repeat in a
//! simulation.

mod bounds;
mod control;
mod model;
mod rate;
mod states;

use super::window::initial;
use super::{AckEvent, Congestion};
use crate::base::Timestamp;
use bounds::Bounds;
use model::{ExtraAcked, MaxBw, MinRtt};
use rate::{RateSample, Sampler};
use states::{AckPhase, State};
use std::time::Duration;

/// Datagrams in the smallest window that BBR aims at (`MinPipeCwnd`).
const MIN_PIPE_DATAGRAMS: u64 = 4;
/// Datagrams in the window after persistent congestion (RFC 9002 §7.2).
const MINIMUM_DATAGRAMS: u64 = 2;
/// `Infinity` of a volume.
const UNBOUNDED: u64 = u64::MAX;

/// How fast to send, and how much at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PacingRate {
    /// Bytes per second.
    pub rate: f64,
    /// Bytes that may leave back to back.
    pub quantum: u64,
}

/// Growth of the delivery rate: `full_bw` and its companions (§5.3.1.2).
#[derive(Clone, Copy, Debug, Default)]
struct FullBw {
    bw: f64,
    count: u32,
    /// The pipe is full since the search last began.
    now: bool,
    /// It was full once.
    reached: bool,
}

impl FullBw {
    fn restart(&mut self, bw: f64) {
        self.bw = bw;
        self.count = 0;
        self.now = false;
    }
}

/// The BBR controller.
#[derive(Clone, Debug)]
pub struct Bbr {
    mtu: u64,
    cwnd: u64,
    initial_cwnd: u64,
    /// The last window that neither recovery nor ProbeRTT had cut.
    prior_cwnd: u64,
    pacing: PacingRate,
    has_rtt: bool,
    sampler: Sampler,
    state: State,
    max_bw: MaxBw,
    min_rtt: MinRtt,
    extra_acked: ExtraAcked,
    /// `BBR.bw`.
    bw: f64,
    full_bw: FullBw,
    bounds: Bounds,
    /// Packet-timed round trips (§5.5.1).
    round_count: u64,
    round_start: bool,
    next_round_delivered: u64,
    /// The window was full in this round trip, and in the last.
    cwnd_limited: [bool; 2],
    idle_restart: bool,
    drain_start_round: u64,
    ack_phase: AckPhase,
    rounds_since_probe_up: u64,
    bw_probe_wait: Duration,
    cycle_stamp: Timestamp,
    bw_probe_up_acked: u64,
    probe_up_acked_per_inc: u64,
    bw_probe_up_rounds: u32,
    probe_rtt_done: Option<Timestamp>,
    probe_rtt_round_done: bool,
    /// When persistent congestion was established, until a packet sent since is acknowledged.
    collapsed_at: Option<Timestamp>,
}

impl Bbr {
    /// A controller in Startup.
    pub(super) fn new(mtu: usize) -> Self {
        let mtu = mtu as u64;
        let cwnd = initial(mtu);
        let mut bbr = Self {
            mtu,
            cwnd,
            initial_cwnd: cwnd,
            prior_cwnd: 0,
            pacing: PacingRate {
                rate: 0.0,
                quantum: 2 * mtu,
            },
            has_rtt: false,
            sampler: Sampler::new(),
            state: State::Startup,
            max_bw: MaxBw::default(),
            min_rtt: MinRtt::new(),
            extra_acked: ExtraAcked::new(),
            bw: 0.0,
            full_bw: FullBw::default(),
            bounds: Bounds::new(),
            round_count: 0,
            round_start: false,
            next_round_delivered: 0,
            cwnd_limited: [false; 2],
            idle_restart: false,
            drain_start_round: 0,
            ack_phase: AckPhase::Init,
            rounds_since_probe_up: 0,
            bw_probe_wait: Duration::ZERO,
            cycle_stamp: Timestamp::ZERO,
            bw_probe_up_acked: 0,
            probe_up_acked_per_inc: UNBOUNDED,
            bw_probe_up_rounds: 0,
            probe_rtt_done: None,
            probe_rtt_round_done: false,
            collapsed_at: None,
        };
        bbr.init_pacing_rate(Duration::from_millis(1));
        bbr
    }

    #[inline]
    pub(super) const fn congestion_window(&self) -> u64 {
        self.cwnd
    }

    #[inline]
    pub(super) const fn pacing(&self) -> PacingRate {
        self.pacing
    }

    pub(super) fn in_startup(&self) -> bool {
        self.state == State::Startup
    }

    pub(super) const fn spurious_events(&self) -> u64 {
        self.bounds.spurious_events()
    }

    /// A new datagram size. The initial window follows it.
    pub(super) fn on_mtu(&mut self, mtu: usize) {
        self.mtu = mtu as u64;
        let untouched = self.cwnd == self.initial_cwnd && self.sampler.delivered == 0;
        self.initial_cwnd = initial(self.mtu);
        if untouched {
            self.cwnd = self.initial_cwnd;
        }
        self.cwnd = self.cwnd.max(MINIMUM_DATAGRAMS * self.mtu);
    }

    /// Everything that waited has left, at `now`.
    pub(super) fn on_out_of_data(&mut self, now: Timestamp) {
        // A train waits for the next quantum anyway; less than that is no gap.
        let wait = Duration::from_secs_f64(self.pacing.quantum as f64 / self.pacing.rate.max(1.0));
        let most = self.min_rtt.value.unwrap_or(wait) / 4;
        self.sampler.on_out_of_data(now + wait.min(most));
    }

    pub(super) fn on_packet_sent(&mut self, now: Timestamp, bytes: u64, bytes_in_flight: u64) {
        self.sampler
            .check_app_limited(now, bytes_in_flight, self.cwnd);
        if bytes_in_flight == 0 && self.sampler.is_app_limited() {
            self.restart_from_idle(now);
        }
        self.sampler.on_sent(now, bytes, bytes_in_flight);
        // No further datagram would fit.
        if bytes_in_flight + bytes + self.mtu > self.cwnd {
            self.cwnd_limited[0] = true;
        }
    }

    /// §5.2.3.
    pub(super) fn on_ack(&mut self, ack: &AckEvent<'_>) {
        self.sampler
            .check_app_limited(ack.now, ack.bytes_in_flight, self.cwnd);
        let min_rtt = ack.rtt.min();
        let sent = ack.largest_acked_sent;
        let sample = self.sampler.on_ack(ack.now, ack.acked_bytes, sent, min_rtt);
        self.sampler.forget(ack.now, sent, ack.rtt.loss_delay());
        if !self.has_rtt && ack.rtt.has_sample() {
            self.has_rtt = true;
            self.init_pacing_rate(ack.rtt.smoothed());
        }
        if self.collapsed_at.is_some_and(|at| sent > at) {
            self.collapsed_at = None;
            self.restore_cwnd();
        }
        let Some(rs) = sample else { return };
        self.update_model_and_state(ack.now, &rs, ack.bytes_left);
        self.set_pacing_rate(self.state.pacing_gain());
        self.set_send_quantum();
        self.set_cwnd(&rs);
    }

    fn update_model_and_state(&mut self, now: Timestamp, rs: &RateSample, in_flight: u64) {
        self.update_round(rs);
        let loss_round_start = self.bounds.update_latest(rs, self.sampler.delivered);
        self.update_max_bw(rs);
        if loss_round_start {
            self.adapt_lower_bounds();
        }
        self.extra_acked.update(
            now,
            rs.newly_acked,
            self.bw,
            self.cwnd,
            self.round_count,
            !self.full_bw.reached,
        );
        self.check_full_bw_reached(rs);
        self.check_startup_high_loss(rs, loss_round_start);
        if self.state == State::Startup && self.full_bw.reached {
            self.enter_drain();
        }
        self.check_drain_done(now, in_flight);
        self.update_probe_bw_phase(now, rs, in_flight);
        self.min_rtt.update(now, rs.rtt);
        self.check_probe_rtt(now, rs, in_flight);
        if loss_round_start {
            self.bounds.advance_latest(rs);
        }
        self.bw = self.max_bw.get().min(self.bounds.bw_shortterm);
    }

    /// §5.5.1.
    fn update_round(&mut self, rs: &RateSample) {
        self.round_start = rs.prior_delivered >= self.next_round_delivered;
        if self.round_start {
            self.start_round();
            self.round_count += 1;
            self.rounds_since_probe_up += 1;
            self.cwnd_limited = [false, self.cwnd_limited[0]];
        }
    }

    fn start_round(&mut self) {
        self.next_round_delivered = self.sampler.delivered;
    }

    /// §5.5.5.
    fn update_max_bw(&mut self, rs: &RateSample) {
        let rate = rs.delivery_rate;
        if rate > 0.0 && (rate >= self.max_bw.get() || !rs.app_limited) {
            self.max_bw.update(rate);
        }
    }

    /// §5.3.1.2: three rounds without a quarter more mean that the pipe is full.
    fn check_full_bw_reached(&mut self, rs: &RateSample) {
        if self.full_bw.now || !self.round_start || rs.app_limited {
            return;
        }
        if rs.delivery_rate >= self.full_bw.bw * 1.25 {
            self.full_bw.restart(rs.delivery_rate);
            return;
        }
        self.full_bw.count += 1;
        self.full_bw.now = self.full_bw.count >= 3;
        self.full_bw.reached |= self.full_bw.now;
    }

    fn is_cwnd_limited(&self) -> bool {
        self.cwnd_limited[0] || self.cwnd_limited[1]
    }

    /// Of packets declared lost, number `pn` of `bytes` bytes that was sent at `sent`.
    pub(super) fn on_packet_lost(&mut self, now: Timestamp, pn: u64, sent: Timestamp, bytes: u64) {
        let follows = self.bounds.note_lost_packet(pn);
        self.note_congestion(now, sent, bytes, !follows);
    }

    /// Returns whether an episode of congestion began. Losses were told one by one before.
    pub(super) fn on_congestion_event(
        &mut self,
        now: Timestamp,
        sent: Timestamp,
        congestion: Congestion,
    ) -> bool {
        if let Congestion::Ecn(marks) = congestion {
            let bytes = marks.saturating_mul(self.mtu).min(self.cwnd);
            self.note_congestion(now, sent, bytes, true);
            self.bounds.cannot_be_refuted();
        }
        self.bounds.take_begun()
    }

    /// RFC 9002 §7.6.2: the minimum window, until what is sent now is acknowledged (§5.6.4.4).
    pub(super) fn on_persistent_congestion(&mut self, now: Timestamp) {
        self.save_cwnd();
        self.collapsed_at = Some(now);
        self.cwnd = MINIMUM_DATAGRAMS * self.mtu;
        self.bounds.cannot_be_refuted();
    }
}

#[cfg(test)]
mod tests;
