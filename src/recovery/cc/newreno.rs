//! NewReno as RFC 9002 §7 has it: halve on congestion, one datagram more per window acknowledged.

use super::window::Window;
use super::{AckEvent, Congestion};
use crate::base::Timestamp;

/// The NewReno controller.
#[derive(Clone, Debug)]
pub struct NewReno {
    pub(super) window: Window,
    /// Bytes acknowledged in congestion avoidance that have not yet raised the window.
    credit: u64,
    /// The window and threshold before the latest reduction.
    before: (u64, u64),
}

impl NewReno {
    /// A controller in slow start.
    pub(super) fn new(mtu: usize) -> Self {
        Self {
            window: Window::new(mtu),
            credit: 0,
            before: (0, 0),
        }
    }

    pub(super) fn on_ack(&mut self, ack: &AckEvent<'_>) {
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
        // RFC 9002 §7.3.3, §B.5, cwnd += mtu * acked / cwnd, without losing fractions.
        self.credit = self.credit.saturating_add(acked);
        let cwnd = self.window.congestion_window();
        if acked > 0 && self.credit >= cwnd {
            self.credit = (self.credit - cwnd).min(cwnd);
            self.window.set(cwnd.saturating_add(self.window.mtu()));
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
        self.credit = 0;
        // RFC 9002 §7.3.1 and §7.3.2: out of slow start, and half the window is the threshold.
        // kLossReductionFactor is 0.5 (RFC 9002 §B.1).
        self.window.shrink(cwnd / 2);
        true
    }

    pub(super) fn on_persistent_congestion(&mut self) {
        self.credit = 0;
        self.window.collapse();
    }

    pub(super) fn on_spurious(&mut self, count: u32, lost_at: Timestamp) -> bool {
        let refuted = self.window.refute(count, lost_at);
        if refuted {
            self.window.restore(self.before.0, self.before.1);
        }
        refuted
    }
}
