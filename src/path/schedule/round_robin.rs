//! Round robin: each packet on the next path in the order of path IDs.
//!
//! It remembers the last path only, no counts: a path that comes late, or comes back, takes its
//! turn like the others and is not given what it missed.

use super::{Decision, Scheduler, SchedulerContext};
use crate::base::Timestamp;
use crate::path::PathId;

/// The round-robin scheduler.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundRobin {
    last: Option<PathId>,
}

impl Scheduler for RoundRobin {
    fn name(&self) -> &'static str {
        "round-robin"
    }

    fn select(&mut self, ctx: &SchedulerContext<'_>) -> Decision {
        let candidates = ctx.candidates();
        // A path that was not due yet comes before those whose turn is over.
        let turn = |id: PathId| (self.last.is_some_and(|last| id <= last), id);
        let next = candidates.sendable(ctx.paths).map(|p| turn(p.id)).min();
        let Some((_, id)) = next else {
            return ctx.wait(&candidates);
        };
        Decision::Send(id)
    }

    fn on_sent(&mut self, _: Timestamp, path: PathId, _: u64) {
        self.last = Some(path);
    }
}
