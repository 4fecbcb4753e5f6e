//! Minimum RTT with a bias: between the fastest path alone and equal shares.
//!
//! The score is `b * minRTT/RTT + (1 - b) * (1 - share)`; the highest wins. `share` is a path's
//! part of the bytes sent lately: what is older counts ever less, so a late path does not get
//! everything until it has caught up with a history.

use super::table::PathTable;
use super::{Decision, Scheduler, SchedulerContext};
use crate::base::Timestamp;
use crate::path::PathId;
use std::time::Duration;

/// Bytes after which all counts are halved.
const WINDOW: u64 = 128 * 1024;

/// The scheduler with a bias towards the lowest RTT.
#[derive(Clone, Debug)]
pub struct MinRtt {
    bias: f64,
    recent: PathTable,
    total: u64,
}

impl MinRtt {
    /// 1 looks at round-trip times alone, 0 at shares alone; others are brought into that range.
    pub const fn new(bias: f64) -> Self {
        Self {
            bias: clamp(bias),
            recent: PathTable::new(),
            total: 0,
        }
    }

    /// The bias, in 0 to 1.
    pub const fn bias(&self) -> f64 {
        self.bias
    }

    fn score(&self, id: PathId, latency: Duration, least: Duration) -> f64 {
        let latency = latency.as_secs_f64();
        let speed = if latency > 0.0 {
            least.as_secs_f64() / latency
        } else {
            1.0
        };
        let recent = self.recent.get(id).unwrap_or(0);
        let share = recent as f64 / self.total.max(1) as f64;
        self.bias * speed + (1.0 - self.bias) * (1.0 - share)
    }
}

/// Into 0 to 1; what is not a number becomes 1, the fastest path.
pub(super) const fn clamp(bias: f64) -> f64 {
    if bias.is_nan() {
        1.0
    } else {
        bias.clamp(0.0, 1.0)
    }
}

impl Scheduler for MinRtt {
    fn name(&self) -> &'static str {
        "min-rtt"
    }

    fn select(&mut self, ctx: &SchedulerContext<'_>) -> Decision {
        let candidates = ctx.candidates();
        if let Some(id) = ctx.to_measure(&candidates) {
            return Decision::Send(id);
        }
        let sendable = || candidates.sendable(ctx.paths);
        let Some(least) = sendable().map(|p| p.latency()).min() else {
            return ctx.wait(&candidates);
        };
        let mut best: Option<(f64, PathId)> = None;
        for path in sendable() {
            let score = self.score(path.id, path.latency(), least);
            let wins =
                best.is_none_or(|(most, id)| score > most || (score == most && path.id < id));
            if wins {
                best = Some((score, path.id));
            }
        }
        best.map_or(Decision::Nothing, |(_, id)| Decision::Send(id))
    }

    fn on_sent(&mut self, _: Timestamp, path: PathId, bytes: u64) {
        let recent = self.recent.entry(path, 0);
        *recent = recent.saturating_add(bytes);
        self.total = self.total.saturating_add(bytes);
        if self.total >= WINDOW {
            self.total = 0;
            for recent in self.recent.values_mut() {
                *recent /= 2;
                self.total += *recent;
            }
        }
    }

    fn path_removed(&mut self, path: PathId) {
        let gone = self.recent.remove(path).unwrap_or(0);
        self.total = self.total.saturating_sub(gone);
    }
}
