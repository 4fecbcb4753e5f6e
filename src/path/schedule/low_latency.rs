//! Low latency: the path on which the packet arrives first, as far as round-trip times tell.
//!
//! A path's latency is its smoothed RTT, in which queues on the way show, and the time that what
//! waits for it on this host takes to leave. When the best path is full, the next best serves.

use super::{Decision, Scheduler, SchedulerContext};

/// The low-latency scheduler.
#[derive(Clone, Copy, Debug, Default)]
pub struct LowLatency;

impl Scheduler for LowLatency {
    fn name(&self) -> &'static str {
        "low-latency"
    }

    fn select(&mut self, ctx: &SchedulerContext<'_>) -> Decision {
        let candidates = ctx.candidates();
        if let Some(id) = ctx.to_measure(&candidates) {
            return Decision::Send(id);
        }
        let sendable = candidates.sendable(ctx.paths);
        match sendable.map(|p| (p.latency(), p.id)).min() {
            Some((_, id)) => Decision::Send(id),
            None => ctx.wait(&candidates),
        }
    }
}
