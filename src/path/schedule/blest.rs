//! BLEST, blocking estimation (Ferlin, Alay, Mehani, Boreli, IFIP Networking 2016).
//!
//! What is under way on a slow path holds a part of the peer's flow control window until it
//! arrives. When the fastest path is full, the next is used only if the window leaves room for all
//! that the fastest could send meanwhile: `X = MTU * (CWND + (r - 1)/2) * r` with `r = RTT_s /
//! RTT_f`, times a correction that grows by 0.04 whenever the window blocked within a slow round
//! trip and falls by 0.01 otherwise, within 1.0 to 1.3.

use super::patience::Patience;
use super::{Decision, PathView, Scheduler, SchedulerContext};
use crate::base::Timestamp;
use crate::path::PathId;

const LAMBDA_START: f64 = 1.2;
const LAMBDA_RANGE: (f64, f64) = (1.0, 1.3);
const LAMBDA_UP: f64 = 0.04;
const LAMBDA_DOWN: f64 = 0.01;

/// The BLEST scheduler.
#[derive(Clone, Copy, Debug)]
pub struct Blest {
    lambda: f64,
    /// The window blocked since the correction was last adapted.
    blocked: bool,
    adapted: Option<Timestamp>,
    patience: Patience,
}

impl Default for Blest {
    fn default() -> Self {
        Self {
            lambda: LAMBDA_START,
            blocked: false,
            adapted: None,
            patience: Patience::default(),
        }
    }
}

impl Blest {
    /// The correction of the estimate.
    pub const fn lambda(&self) -> f64 {
        self.lambda
    }

    /// Once a round trip of the slow path.
    fn adapt(&mut self, now: Timestamp, slow: &PathView) {
        let since = *self.adapted.get_or_insert(now);
        if now - since < slow.smoothed_rtt || now == since {
            return;
        }
        self.lambda += if self.blocked {
            LAMBDA_UP
        } else {
            -LAMBDA_DOWN
        };
        self.lambda = self.lambda.clamp(LAMBDA_RANGE.0, LAMBDA_RANGE.1);
        self.blocked = false;
        self.adapted = Some(now);
    }

    /// Whether a packet on `slow` would take window from `fast`.
    fn would_block(&self, ctx: &SchedulerContext<'_>, fast: &PathView, slow: &PathView) -> bool {
        let rtt_f = fast.latency().as_secs_f64().max(1e-9);
        let rounds = slow.latency().as_secs_f64() / rtt_f;
        let growth = fast.mtu as f64 * (rounds - 1.0) / 2.0;
        let fast_bytes = (fast.congestion_window as f64 + growth) * rounds;

        // QUIC's credit is what is left of the window: what is under way was taken from it.
        let under_way = ctx.paths.iter().map(|p| p.bytes_in_flight);
        let window = under_way.fold(ctx.flow_credit, u64::saturating_add);
        let held = slow.bytes_in_flight.saturating_add(slow.mtu as u64);
        fast_bytes * self.lambda > window.saturating_sub(held) as f64
    }
}

impl Scheduler for Blest {
    fn name(&self) -> &'static str {
        "blest"
    }

    fn select(&mut self, ctx: &SchedulerContext<'_>) -> Decision {
        let candidates = ctx.candidates();
        if let Some(id) = ctx.to_measure(&candidates) {
            return Decision::Send(id);
        }
        let Some((fast, slow)) = candidates.fastest(ctx.paths) else {
            return ctx.wait(&candidates);
        };
        if fast.id == slow.id {
            self.patience.end();
            return Decision::Send(fast.id);
        }
        self.adapt(ctx.now, slow);
        if !self.would_block(ctx, fast, slow) {
            return Decision::Send(slow.id);
        }
        self.patience.decide(ctx, fast, slow)
    }

    fn on_acked(&mut self, _: Timestamp, path: PathId, _: u64) {
        self.patience.on_acked(path);
    }

    fn on_flow_blocked(&mut self, _: Timestamp) {
        self.blocked = true;
    }
}
