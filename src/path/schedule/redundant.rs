//! Redundancy: each packet on several paths at once, the fastest first.
//!
//! A path that is full is left out and holds nothing up.

use super::{Decision, PathIds, Scheduler, SchedulerContext};
use crate::base::limits;
use crate::path::PathId;
use std::time::Duration;

/// The redundant scheduler.
#[derive(Clone, Copy, Debug)]
pub struct Redundant {
    paths: u8,
}

impl Redundant {
    /// At most so many paths a packet, one at least.
    pub const fn new(paths: u8) -> Self {
        Self {
            paths: if paths == 0 { 1 } else { paths },
        }
    }
}

impl Default for Redundant {
    fn default() -> Self {
        Self::new(u8::MAX)
    }
}

impl Scheduler for Redundant {
    fn name(&self) -> &'static str {
        "redundant"
    }

    fn select(&mut self, ctx: &SchedulerContext<'_>) -> Decision {
        let candidates = ctx.candidates();
        let mut order = [(Duration::MAX, PathId::ZERO); limits::PATHS];
        let mut len = 0;
        for (slot, path) in order.iter_mut().zip(candidates.sendable(ctx.paths)) {
            *slot = (path.latency(), path.id);
            len += 1;
        }
        let order = order.get_mut(..len).unwrap_or_default();
        order.sort_unstable();
        let mut ids = PathIds::default();
        for (_, id) in order.iter().take(usize::from(self.paths)) {
            ids.push(*id);
        }
        match ids.as_slice() {
            [] => ctx.wait(&candidates),
            [one] => Decision::Send(*one),
            _ => Decision::Redundant(ids),
        }
    }
}
