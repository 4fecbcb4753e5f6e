//! Earliest completion first (Lim, Nahum, Towsley, Gibbens, CoNEXT 2017).
//!
//! When the fastest path is full, the next is used only if all that waits would not be across
//! earlier by waiting for the fastest. `k` is what waits, `n = 1 + k/CWND` of the fastest, `d` the
//! larger deviation: wait if `n * RTT_f < (1 + b) * (RTT_s + d)`, where `b` applies while it waits
//! already, and if the slow path would need at least `2 * RTT_f + d` for `k`. As in the authors'
//! implementation, less than a window takes a round trip nevertheless.

use super::patience::Patience;
use super::{Decision, PathView, Scheduler, SchedulerContext};
use crate::base::Timestamp;
use crate::path::PathId;

/// The hysteresis of the decision to wait.
const BETA: f64 = 0.25;

/// The ECF scheduler.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ecf {
    waiting: bool,
    patience: Patience,
}

impl Ecf {
    /// Whether waiting for `fast` beats sending on `slow`.
    fn prefers_to_wait(&mut self, pending: u64, fast: &PathView, slow: &PathView) -> bool {
        let rounds = |path: &PathView| {
            let windows = pending as f64 / path.congestion_window.max(1) as f64;
            windows.max(1.0)
        };
        let rtt_f = fast.latency().as_secs_f64();
        let rtt_s = slow.latency().as_secs_f64();
        let delta = fast.rtt_var.max(slow.rtt_var).as_secs_f64();
        let margin = if self.waiting { 1.0 + BETA } else { 1.0 };
        if (1.0 + rounds(fast)) * rtt_f >= margin * (rtt_s + delta) {
            self.waiting = false;
            return false;
        }
        let wait = rounds(slow) * rtt_s >= 2.0 * rtt_f + delta;
        self.waiting |= wait;
        wait
    }
}

impl Scheduler for Ecf {
    fn name(&self) -> &'static str {
        "ecf"
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
        if !self.prefers_to_wait(ctx.packet.bytes_pending, fast, slow) {
            return Decision::Send(slow.id);
        }
        self.patience.decide(ctx, fast, slow)
    }

    fn on_acked(&mut self, _: Timestamp, path: PathId, _: u64) {
        self.patience.on_acked(path);
    }
}
