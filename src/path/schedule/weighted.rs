//! Weighted shares: bytes in proportion to a weight for each path ID.
//!
//! Each path has a virtual time, its bytes divided by its weight; the one that is behind sends. A
//! path that is held back for long, or comes late, may lag a little and not more: it does not get
//! everything afterwards until it has caught up.

use super::table::PathTable;
use super::{Decision, Scheduler, SchedulerContext};
use crate::base::Timestamp;
use crate::path::PathId;

/// The weight of a path that has none set.
const DEFAULT_WEIGHT: u32 = 1;
/// Virtual time of a byte at weight 1.
const SCALE: u64 = 1 << 16;
/// Bytes at weight 1 that a path may lag behind.
const LAG: u64 = 64 * 1024;
/// Virtual times are set back when they reach this.
const REBASE: u64 = 1 << 62;

/// The weighted scheduler.
#[derive(Clone, Debug, Default)]
pub struct Weighted {
    weights: Vec<(PathId, u32)>,
    times: PathTable,
    /// The virtual time of the latest choice.
    present: u64,
}

impl Weighted {
    /// With these weights; paths that are not named have 1, and zero counts as 1.
    pub fn new(weights: &[(PathId, u32)]) -> Self {
        Self {
            weights: weights.to_vec(),
            ..Self::default()
        }
    }

    fn weight(&self, id: PathId) -> u64 {
        let named = self.weights.iter().find(|w| w.0 == id);
        u64::from(named.map_or(DEFAULT_WEIGHT, |w| w.1).max(1))
    }

    /// Where a path stands, not further behind than the lag admits.
    fn time(&self, id: PathId) -> u64 {
        let floor = self.present.saturating_sub(LAG * SCALE / self.weight(id));
        self.times.get(id).map_or(self.present, |t| t.max(floor))
    }
}

impl Scheduler for Weighted {
    fn name(&self) -> &'static str {
        "weighted"
    }

    fn select(&mut self, ctx: &SchedulerContext<'_>) -> Decision {
        let candidates = ctx.candidates();
        let times = candidates
            .sendable(ctx.paths)
            .map(|p| (self.time(p.id), p.id));
        match times.min() {
            Some((time, id)) => {
                self.present = self.present.max(time);
                Decision::Send(id)
            }
            None => ctx.wait(&candidates),
        }
    }

    fn on_sent(&mut self, _: Timestamp, path: PathId, bytes: u64) {
        let time = self.time(path);
        let step = bytes.saturating_mul(SCALE) / self.weight(path);
        let present = self.present;
        let entry = self.times.entry(path, present);
        *entry = time.saturating_add(step);
        if *entry >= REBASE {
            for time in self.times.values_mut() {
                *time = time.saturating_sub(present);
            }
            self.present = 0;
        }
    }

    fn path_removed(&mut self, path: PathId) {
        self.times.remove(path);
    }
}
