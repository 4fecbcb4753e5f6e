//! What BBR's model says about sending (draft-ietf-ccwg-bbr-06 §5.6): the pacing rate, how much may
//! leave at once, and the congestion window.

use super::rate::RateSample;
use super::states::State;
use super::{Bbr, MIN_PIPE_DATAGRAMS};
use std::time::Duration;

/// The rate is this share of what the model and gain say (`PacingMarginPercent`).
const PACING_MARGIN: f64 = 0.99;
/// Time whose bytes make a quantum, in seconds.
const QUANTUM_SECONDS: f64 = 1e-3;
/// Bytes in a quantum at most.
const MAX_QUANTUM: u64 = 65_536;

impl Bbr {
    /// `InitPacingRate`: the initial window in a round trip of `rtt`.
    pub(super) fn init_pacing_rate(&mut self, rtt: Duration) {
        let rtt = rtt.max(Duration::from_micros(1));
        let nominal = self.initial_cwnd as f64 / rtt.as_secs_f64();
        self.pacing.rate = State::Startup.pacing_gain() * nominal;
        self.set_send_quantum();
    }

    /// `SetPacingRateWithGain`: until the pipe was full once the rate only rises.
    pub(super) fn set_pacing_rate(&mut self, gain: f64) {
        let rate = gain * self.bw * PACING_MARGIN;
        if rate > 0.0 && (self.full_bw.reached || rate > self.pacing.rate) {
            self.pacing.rate = rate;
        }
    }

    pub(super) fn set_send_quantum(&mut self) {
        let quantum = (self.pacing.rate * QUANTUM_SECONDS) as u64;
        self.pacing.quantum = quantum.min(MAX_QUANTUM).max(2 * self.mtu);
    }

    pub(super) fn min_pipe_cwnd(&self) -> u64 {
        MIN_PIPE_DATAGRAMS * self.mtu
    }

    /// `BDPMultiple` of the rate in use.
    pub(super) fn bdp(&self, gain: f64) -> f64 {
        self.bdp_of(self.bw, gain)
    }

    fn bdp_of(&self, bw: f64, gain: f64) -> f64 {
        match self.min_rtt.value {
            Some(rtt) => gain * bw * rtt.as_secs_f64(),
            None => self.initial_cwnd as f64,
        }
    }

    /// `QuantizationBudget`.
    fn quantized(&self, cap: u64) -> u64 {
        let cap = cap.max(self.pacing.quantum).max(self.min_pipe_cwnd());
        if self.state == State::Up {
            cap.saturating_add(2 * self.mtu)
        } else {
            cap
        }
    }

    /// `Inflight`: the flight that gives `gain` times the pipe at rate `bw`.
    pub(super) fn inflight(&self, bw: f64, gain: f64) -> u64 {
        self.quantized(self.bdp_of(bw, gain) as u64)
    }

    fn max_inflight(&self) -> u64 {
        let cap = self.bdp(self.state.cwnd_gain()) as u64;
        self.quantized(cap.saturating_add(self.extra_acked.get()))
    }

    /// `TargetInflight`.
    pub(super) fn target_inflight(&self) -> u64 {
        (self.bdp(1.0) as u64).min(self.cwnd)
    }

    pub(super) fn probe_rtt_cwnd(&self) -> u64 {
        let gain = State::ProbeRtt.cwnd_gain();
        (self.bdp(gain) as u64).max(self.min_pipe_cwnd())
    }

    /// `SaveCwnd`.
    pub(super) fn save_cwnd(&mut self) {
        let cut = self.state == State::ProbeRtt || self.collapsed_at.is_some();
        self.prior_cwnd = if cut {
            self.prior_cwnd.max(self.cwnd)
        } else {
            self.cwnd
        };
    }

    /// `RestoreCwnd`.
    pub(super) fn restore_cwnd(&mut self) {
        self.cwnd = self.cwnd.max(self.prior_cwnd);
    }

    /// `SetCwnd` (§5.6.4.6).
    pub(super) fn set_cwnd(&mut self, rs: &RateSample) {
        let most = self.max_inflight();
        if self.full_bw.reached {
            self.cwnd = self.cwnd.saturating_add(rs.newly_acked).min(most);
        } else if self.cwnd < most || self.sampler.delivered < self.initial_cwnd {
            self.cwnd = self.cwnd.saturating_add(rs.newly_acked);
        }
        if self.state == State::ProbeRtt {
            self.cwnd = self.cwnd.min(self.probe_rtt_cwnd());
        }
        self.cwnd = self.cwnd.max(self.min_pipe_cwnd()).min(self.cwnd_cap());
    }

    /// `BoundCwndForModel`.
    fn cwnd_cap(&self) -> u64 {
        let longterm = match self.state {
            State::Down | State::Refill | State::Up => self.bounds.inflight_longterm,
            State::Cruise | State::ProbeRtt => self.inflight_with_headroom(),
            State::Startup | State::Drain => u64::MAX,
        };
        longterm
            .min(self.bounds.inflight_shortterm)
            .max(self.min_pipe_cwnd())
    }
}
