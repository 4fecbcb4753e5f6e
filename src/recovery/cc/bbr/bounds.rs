//! How BBR answers congestion (draft-ietf-ccwg-bbr-06 §5.5.10, §5.5.11): a long-term bound on the
//! flight from probes that went too high, short-term bounds from losses otherwise, and the way back
//! when the losses were none.

use super::rate::RateSample;
use super::states::State;
use super::{Bbr, UNBOUNDED};
use crate::base::Timestamp;

/// The share of a flight that may be lost while probing (`LossThresh`).
const LOSS_THRESHOLD: f64 = 0.02;
/// What is kept at least of rate and flight after a round trip with losses (`Beta`).
const BETA: f64 = 0.7;
/// The share of the long-term bound that is left to others (`Headroom`).
const HEADROOM: f64 = 0.15;
/// Separate ranges of lost packets in a round trip that end Startup (§5.3.1.3).
const STARTUP_LOSS_RANGES: u32 = 6;

/// Bounds learnt from congestion, and what they were before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) bw_shortterm: f64,
    pub(super) inflight_shortterm: u64,
    pub(super) inflight_longterm: u64,
    bw_latest: f64,
    pub(super) inflight_latest: u64,
    loss_in_round: bool,
    loss_round_delivered: u64,
    loss_ranges: u32,
    last_lost: Option<u64>,
    /// Acknowledgements are of packets that probed for bandwidth.
    pub(super) is_bw_probe_sample: bool,
    pub(super) prev_probe_too_high: bool,
    pub(super) prev_probe_precautionary: bool,
    undo: Undo,
    /// An episode of congestion has begun and nobody was told.
    begun: bool,
    spurious_events: u64,
}

/// What a spurious loss episode restores (§2.15).
#[derive(Clone, Copy, Debug)]
struct Undo {
    state: Option<State>,
    bw_shortterm: f64,
    inflight_shortterm: u64,
    inflight_longterm: u64,
    /// When the episode began, and how many of its losses are not refuted; `None` when one of its
    /// signals cannot be.
    since: Timestamp,
    unrefuted: Option<u32>,
}

impl RateSample {
    /// `IsInflightTooHigh`.
    pub(super) fn inflight_too_high(&self) -> bool {
        self.lost as f64 > self.tx_in_flight as f64 * LOSS_THRESHOLD
    }
}

impl Bounds {
    pub(super) const fn new() -> Self {
        Self {
            bw_shortterm: f64::INFINITY,
            inflight_shortterm: UNBOUNDED,
            inflight_longterm: UNBOUNDED,
            bw_latest: 0.0,
            inflight_latest: 0,
            loss_in_round: false,
            loss_round_delivered: 0,
            loss_ranges: 0,
            last_lost: None,
            is_bw_probe_sample: false,
            prev_probe_too_high: false,
            prev_probe_precautionary: false,
            undo: Undo {
                state: None,
                bw_shortterm: f64::INFINITY,
                inflight_shortterm: UNBOUNDED,
                inflight_longterm: UNBOUNDED,
                since: Timestamp::ZERO,
                unrefuted: None,
            },
            begun: false,
            spurious_events: 0,
        }
    }

    pub(super) const fn spurious_events(&self) -> u64 {
        self.spurious_events
    }

    /// `UpdateLatestDeliverySignals`; true when a round trip of loss accounting ends.
    pub(super) fn update_latest(&mut self, rs: &RateSample, delivered: u64) -> bool {
        self.bw_latest = self.bw_latest.max(rs.delivery_rate);
        self.inflight_latest = self.inflight_latest.max(rs.delivered);
        let ends = rs.prior_delivered >= self.loss_round_delivered;
        if ends {
            self.loss_round_delivered = delivered;
        }
        ends
    }

    /// `AdvanceLatestDeliverySignals`.
    pub(super) fn advance_latest(&mut self, rs: &RateSample) {
        self.bw_latest = rs.delivery_rate;
        self.inflight_latest = rs.delivered;
    }

    /// `ResetCongestionSignals`.
    pub(super) fn reset_signals(&mut self) {
        self.loss_in_round = false;
        self.bw_latest = 0.0;
        self.inflight_latest = 0;
    }

    /// `ResetShortTermModel`.
    pub(super) fn reset_shortterm(&mut self) {
        self.bw_shortterm = f64::INFINITY;
        self.inflight_shortterm = UNBOUNDED;
    }

    /// Notes a lost packet; true when the one before it was lost too.
    pub(super) fn note_lost_packet(&mut self, pn: u64) -> bool {
        let follows = self.last_lost.is_some_and(|last| last + 1 == pn);
        self.last_lost = Some(pn);
        follows
    }

    /// Whether the round trip that ends lost enough ranges to end Startup; counts anew.
    pub(super) fn take_loss_ranges(&mut self) -> bool {
        std::mem::take(&mut self.loss_ranges) >= STARTUP_LOSS_RANGES
    }

    /// Congestion made the state machine leave `state`.
    pub(super) fn undo_to(&mut self, state: State) {
        self.undo.state = Some(state);
    }

    /// A signal of the present episode stands whatever arrives late.
    pub(super) fn cannot_be_refuted(&mut self) {
        self.undo.unrefuted = None;
    }

    #[cfg(test)]
    pub(super) fn unrefuted(&self) -> Option<u32> {
        self.undo.unrefuted
    }

    /// Whether an episode of congestion has begun since this was last asked.
    pub(super) fn take_begun(&mut self) -> bool {
        std::mem::take(&mut self.begun)
    }

    /// `NoteLoss` with `SaveStateUponLoss`, of what was sent at `sent`. True when that begins an
    /// episode: what left before the latest began belongs to it, whatever states came since.
    fn note(&mut self, now: Timestamp, sent: Timestamp, delivered: u64, new_range: bool) -> bool {
        if !self.loss_in_round {
            self.loss_in_round = true;
            self.loss_round_delivered = delivered;
        }
        let begins = sent > self.undo.since;
        if begins {
            self.begun = true;
            self.undo = Undo {
                state: None,
                bw_shortterm: self.bw_shortterm,
                inflight_shortterm: self.inflight_shortterm,
                inflight_longterm: self.inflight_longterm,
                since: now,
                unrefuted: Some(0),
            };
        }
        self.loss_ranges = self.loss_ranges.saturating_add(u32::from(new_range));
        self.undo.unrefuted = self.undo.unrefuted.map(|n| n.saturating_add(1));
        begins
    }
}

impl Bbr {
    /// `HandleLostPacket` (§5.5.10.2): `bytes` of what was sent at `sent` are lost or marked.
    pub(super) fn note_congestion(
        &mut self,
        now: Timestamp,
        sent: Timestamp,
        bytes: u64,
        new_range: bool,
    ) {
        self.sampler.lost += bytes;
        if self
            .bounds
            .note(now, sent, self.sampler.delivered, new_range)
        {
            self.save_cwnd();
        }
        if !self.bounds.is_bw_probe_sample {
            return;
        }
        let Some(record) = self.sampler.sent_at(sent) else {
            return;
        };
        let rs = RateSample {
            app_limited: record.app_limited,
            tx_in_flight: record.tx_in_flight,
            lost: self.sampler.lost - record.lost,
            ..RateSample::default()
        };
        if rs.inflight_too_high() {
            self.handle_inflight_too_high(now, &rs, inflight_at_loss(&rs, bytes));
        }
    }

    fn handle_inflight_too_high(&mut self, now: Timestamp, rs: &RateSample, in_flight: u64) {
        self.bounds.prev_probe_too_high = true;
        // One answer a probe.
        self.bounds.is_bw_probe_sample = false;
        if !rs.app_limited {
            let least = (self.target_inflight() as f64 * BETA) as u64;
            self.bounds.inflight_longterm = in_flight.max(least);
        }
        if self.state == State::Up {
            self.bounds.undo_to(State::Up);
            self.start_down(now);
        }
    }

    /// `AdaptLowerBoundsFromCongestion`, at the end of a round trip.
    pub(super) fn adapt_lower_bounds(&mut self) {
        let b = &mut self.bounds;
        if b.loss_in_round && !self.state.accelerates() {
            if b.bw_shortterm.is_infinite() {
                b.bw_shortterm = self.max_bw.get();
            }
            if b.inflight_shortterm == UNBOUNDED {
                b.inflight_shortterm = self.cwnd;
            }
            b.bw_shortterm = b.bw_latest.max(BETA * b.bw_shortterm);
            let least = (BETA * b.inflight_shortterm as f64) as u64;
            b.inflight_shortterm = b.inflight_latest.max(least);
        }
        b.loss_in_round = false;
    }

    /// `InflightWithHeadroom`.
    pub(super) fn inflight_with_headroom(&self) -> u64 {
        let bound = self.bounds.inflight_longterm;
        if bound == UNBOUNDED {
            return UNBOUNDED;
        }
        let headroom = ((HEADROOM * bound as f64) as u64).max(self.mtu);
        bound.saturating_sub(headroom).max(self.min_pipe_cwnd())
    }

    /// `count` packets that were declared lost at `lost_at` or later arrived. True when no loss of
    /// the latest episode was one; then what it changed is taken back (§5.5.11.2).
    pub(in crate::recovery::cc) fn on_spurious(&mut self, count: u32, lost_at: Timestamp) -> bool {
        let Some(left) = self.bounds.undo.unrefuted else {
            return false;
        };
        if lost_at < self.bounds.undo.since || left == 0 {
            return false;
        }
        let left = left.saturating_sub(count);
        self.bounds.undo.unrefuted = Some(left);
        if left > 0 {
            return false;
        }
        self.bounds.spurious_events += 1;
        self.restore_cwnd();
        self.full_bw.restart(0.0);
        let b = &mut self.bounds;
        let undo = b.undo;
        b.loss_in_round = false;
        b.bw_shortterm = b.bw_shortterm.max(undo.bw_shortterm);
        b.inflight_shortterm = b.inflight_shortterm.max(undo.inflight_shortterm);
        b.inflight_longterm = b.inflight_longterm.max(undo.inflight_longterm);
        b.undo.state = None;
        match undo.state {
            Some(State::Startup) if self.state != State::Startup => {
                self.full_bw.reached = false;
                if self.state != State::ProbeRtt {
                    self.state = State::Startup;
                }
            }
            Some(State::Up) if self.state != State::Up && self.state != State::ProbeRtt => {
                self.start_refill();
            }
            _ => {}
        }
        true
    }
}

/// `InflightAtLoss`: what was in flight when the share of lost bytes passed the threshold,
/// somewhere within the last `bytes`.
fn inflight_at_loss(rs: &RateSample, bytes: u64) -> u64 {
    let in_flight_before = rs.tx_in_flight.saturating_sub(bytes) as f64;
    let lost_before = rs.lost.saturating_sub(bytes) as f64;
    let prefix = (LOSS_THRESHOLD * in_flight_before - lost_before) / (1.0 - LOSS_THRESHOLD);
    (in_flight_before + prefix.max(0.0)) as u64
}
