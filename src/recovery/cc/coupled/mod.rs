//! Coupled congestion control: the paths of one connection together take no more from a shared
//! bottleneck than one flow would.
//!
//! LIA (RFC 6356), OLIA (draft-khalili-mptcp-congestion-control) and BALIA
//! (draft-walid-mptcp-congestion-control) are NewReno with another increase in congestion
//! avoidance, BALIA with another decrease too. Slow start, recovery periods and the floor are
//! NewReno's. What the other paths contribute comes as a [`CoupledGroup`] before each
//! acknowledgement; without one, as with a single path, all three are NewReno exactly.

mod group;

use super::window::Window;
use super::{AckEvent, Congestion};
use crate::base::Timestamp;
pub use group::CoupledGroup;
pub(super) use group::{Coupling, Kind};

/// A controller whose increase depends on the connection's other paths.
#[derive(Clone, Debug)]
pub struct Coupled {
    pub(super) window: Window,
    pub(super) kind: Kind,
    /// What the other paths make of the next acknowledgement or congestion event.
    coupling: Coupling,
    /// Bytes acknowledged in congestion avoidance, scaled by the coupling, that have not yet moved
    /// the window.
    credit: f64,
    /// The window and threshold before the latest reduction.
    before: (u64, u64),
    /// OLIA's `l_2`: bytes acknowledged since the last congestion event.
    run: u64,
    /// OLIA's `l_1`: bytes acknowledged between the last two.
    last_run: u64,
}

impl Coupled {
    /// A controller in slow start.
    pub(super) fn new(kind: Kind, mtu: usize) -> Self {
        Self {
            window: Window::new(mtu),
            kind,
            coupling: Coupling::ALONE,
            credit: 0.0,
            before: (0, 0),
            run: 0,
            last_run: 0,
        }
    }

    /// OLIA's `l`: bytes between congestion events, by whichever of the last two spans is longer.
    const fn run(&self) -> u64 {
        if self.run > self.last_run {
            self.run
        } else {
            self.last_run
        }
    }

    /// Takes in the other paths, until the next acknowledgement.
    pub(super) fn couple(&mut self, group: &CoupledGroup, key: u32) {
        self.coupling = group.coupling(self.kind, key);
    }

    pub(super) fn on_ack(&mut self, ack: &AckEvent<'_>) {
        // Other paths may be gone by the next acknowledgement.
        let coupling = std::mem::replace(&mut self.coupling, Coupling::ALONE);
        self.run = self.run.saturating_add(ack.acked_bytes);
        if self.window.in_recovery(ack.largest_acked_sent) {
            return;
        }
        let acked = if self.window.in_slow_start() {
            self.window.slow_start(ack)
        } else if self.window.is_used(ack) {
            ack.acked_bytes
        } else {
            0
        };
        if acked > 0 {
            self.avoid_congestion(acked as f64 * coupling.gain);
        }
    }

    /// A datagram more per window of credit, as NewReno; less, where OLIA moves window to others.
    fn avoid_congestion(&mut self, credit: f64) {
        self.credit += credit;
        let (cwnd, mtu) = (self.window.congestion_window(), self.window.mtu());
        let full = cwnd as f64;
        if self.credit >= full {
            self.credit = (self.credit - full).min(full);
            self.window.set(cwnd.saturating_add(mtu));
        } else if self.credit <= -full {
            self.credit = (self.credit + full).max(-full);
            self.window.set(cwnd.saturating_sub(mtu));
        }
    }

    pub(super) fn on_congestion_event(
        &mut self,
        now: Timestamp,
        sent: Timestamp,
        congestion: Congestion,
    ) -> bool {
        if !self.window.begin_recovery(now, sent, congestion) {
            return false;
        }
        let cwnd = self.window.congestion_window();
        self.before = (cwnd, self.window.ssthresh());
        self.credit = 0.0;
        self.last_run = std::mem::take(&mut self.run);
        let kept = cwnd as f64 * (1.0 - self.coupling.decrease);
        self.window.shrink(kept as u64);
        true
    }

    pub(super) fn on_persistent_congestion(&mut self) {
        self.credit = 0.0;
        self.window.collapse();
    }

    pub(super) fn on_spurious(&mut self, count: u32, lost_at: Timestamp) -> bool {
        let refuted = self.window.refute(count, lost_at);
        if refuted {
            self.window.restore(self.before.0, self.before.1);
            // Nothing ended the span.
            self.run = self.run.saturating_add(self.last_run);
        }
        refuted
    }
}

#[cfg(test)]
mod tests;
