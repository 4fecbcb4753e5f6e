//! One path at a time: the usable one of the lowest ID, the others stand by.
//!
//! The next one takes over when that one may have failed or is gone, not because its window is
//! full, and gives back when it works again.

use super::{Decision, Scheduler, SchedulerContext};

/// The scheduler that keeps all paths but one in reserve.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backup;

impl Scheduler for Backup {
    fn name(&self) -> &'static str {
        "backup"
    }

    fn select(&mut self, ctx: &SchedulerContext<'_>) -> Decision {
        let candidates = ctx.candidates();
        let Some(active) = candidates.usable(ctx.paths).min_by_key(|p| p.id) else {
            return Decision::Nothing;
        };
        if active.can_send(ctx.now) {
            return Decision::Send(active.id);
        }
        active.wait()
    }
}
