//! When what is under way on one path is sent again on another, before it counts as lost.
//!
//! At once when its path may have failed; otherwise when its acknowledgement is overdue by a delay,
//! or when a copy has to leave now to arrive before a deadline. How often a frame may be repeated,
//! how many may wait for a path and how fast they may follow each other is limited. Every answer
//! that is "later" has a time, so a timer drives this and not the next packet. Reinjection declares
//! nothing lost and acknowledges nothing: whichever copy is acknowledged first counts, and the
//! original's loss, when it comes, finds nothing left to repeat.

use super::PathId;
use super::schedule::{PathIds, PathView, SchedulerContext};
use crate::base::{Timestamp, limits};
use smallvec::SmallVec;
use std::time::Duration;

/// The limits of reinjection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReinjectionConfig {
    /// How much later than a round trip an acknowledgement may come; `None`: overdue ones alone
    /// cause nothing.
    pub delay: Option<Duration>,
    /// What is under way on a path that may have failed is sent again at once.
    pub on_failure: bool,
    /// Deadlines are looked at.
    pub deadlines: bool,
    /// How often a frame may be sent again.
    pub max_per_frame: u8,
    /// Frames that may wait for one path.
    pub queue_limit: u16,
    /// The least time between two frames for one path.
    pub min_interval: Duration,
    /// Paths to use first, in that order, where they are usable.
    pub preferred: SmallVec<[PathId; 4]>,
}

impl Default for ReinjectionConfig {
    fn default() -> Self {
        Self {
            delay: Some(Duration::from_millis(50)),
            on_failure: true,
            deadlines: true,
            max_per_frame: 2,
            queue_limit: 256,
            min_interval: Duration::ZERO,
            preferred: SmallVec::new(),
        }
    }
}

/// Something that waits for its acknowledgement: the latest copy of it, once there are several.
/// What was acknowledged or declared lost is none.
#[derive(Clone, Copy, Debug)]
pub struct Outstanding {
    /// The path that it was last sent on.
    pub path: PathId,
    /// When it was last sent.
    pub sent: Timestamp,
    /// When it is of no use any more.
    pub deadline: Option<Timestamp>,
    /// How often it was sent again so far.
    pub reinjected: u8,
    /// Other paths on which it was before: it goes to none of them a second time.
    pub was_on: PathIds,
}

/// What to do with something outstanding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it on that path, and tell [`Reinjector::on_queued`].
    Now(PathId),
    /// Ask again at that time.
    At(Timestamp),
    /// Leave it to loss recovery, unless the paths change.
    Never,
}

/// Chooses the other path, where an application knows better.
pub trait TargetSelector: Send {
    /// A path other than `original`; `None` leaves the choice to the default. A path that cannot be
    /// used is not followed.
    fn target(&mut self, ctx: &SchedulerContext<'_>, original: PathId) -> Option<PathId>;
}

/// One path's queue.
#[derive(Clone, Copy, Debug)]
struct Queue {
    path: PathId,
    waiting: u16,
    last: Timestamp,
}

/// Decides about reinjection for one connection.
pub struct Reinjector {
    config: ReinjectionConfig,
    selector: Option<Box<dyn TargetSelector>>,
    queues: SmallVec<[Queue; limits::PATHS]>,
    reinjected: u64,
}

impl std::fmt::Debug for Reinjector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reinjector")
            .field("config", &self.config)
            .field("queues", &self.queues)
            .field("reinjected", &self.reinjected)
            .finish_non_exhaustive()
    }
}

impl Reinjector {
    /// With that default choice of targets unless there is a `selector`.
    pub fn new(config: ReinjectionConfig, selector: Option<Box<dyn TargetSelector>>) -> Self {
        Self {
            config,
            selector,
            queues: SmallVec::new(),
            reinjected: 0,
        }
    }

    /// What to do about `what` at the time of `ctx`. Within a path the oldest is due first, unless
    /// deadlines say otherwise.
    pub fn verdict(&mut self, ctx: &SchedulerContext<'_>, what: &Outstanding) -> Verdict {
        if what.reinjected >= self.config.max_per_frame {
            return Verdict::Never;
        }
        let Some(target) = self.target(ctx, what) else {
            return Verdict::Never;
        };
        let Some(due) = self.due(ctx, what, target) else {
            return Verdict::Never;
        };
        if due > ctx.now {
            return Verdict::At(due);
        }
        self.admit(ctx.now, target.id)
    }

    /// Where something goes that was lost: to another path at once, or wherever loss recovery sends
    /// it.
    pub fn target_of_lost(
        &mut self,
        ctx: &SchedulerContext<'_>,
        what: &Outstanding,
    ) -> Option<PathId> {
        if what.reinjected >= self.config.max_per_frame {
            return None;
        }
        let target = self.target(ctx, what)?;
        match self.admit(ctx.now, target.id) {
            Verdict::Now(id) => Some(id),
            Verdict::At(_) | Verdict::Never => None,
        }
    }

    /// The limits.
    pub const fn config(&self) -> &ReinjectionConfig {
        &self.config
    }

    /// When a copy is due; `None` for never.
    fn due(
        &self,
        ctx: &SchedulerContext<'_>,
        what: &Outstanding,
        target: &PathView,
    ) -> Option<Timestamp> {
        let original = ctx.path(what.path);
        let failed = original.is_none_or(|p| p.potentially_failed);
        let at_once = (failed && self.config.on_failure).then_some(ctx.now);
        let overdue = self.config.delay.zip(original);
        let overdue = overdue.map(|(delay, path)| what.sent + path.smoothed_rtt + delay);
        let mut deadline = None;
        if let Some(end) = what.deadline.filter(|_| self.config.deadlines) {
            // Half a round trip is the way there.
            if ctx.now + target.latency() / 2 > end {
                return None;
            }
            // The other half is the margin. One copy is what a deadline is worth.
            deadline = (what.reinjected == 0).then(|| end - target.latency());
        }
        let due = [at_once, overdue, deadline].into_iter().flatten().min();
        due.map(|due| due.max(what.sent))
    }

    /// The choice of the application, else the preferred paths, else the lowest latency. A full
    /// window is no hindrance: what is sent again waits for it.
    fn target<'a>(
        &mut self,
        ctx: &SchedulerContext<'a>,
        what: &Outstanding,
    ) -> Option<&'a PathView> {
        let original = what.path;
        let candidates = ctx.candidates();
        let is_new = |p: &&PathView| p.id != original && !what.was_on.as_slice().contains(&p.id);
        let usable = || candidates.usable(ctx.paths).filter(is_new);
        let named = |id: PathId| usable().find(|p| p.id == id);
        let chosen = self.selector.as_mut();
        let chosen = chosen.and_then(|s| s.target(ctx, original));
        // A backup path is worth more here than the one that seems dead.
        let spare = || {
            let others = ctx.paths.iter().filter(is_new);
            others.filter(|p| p.validated && !p.potentially_failed)
        };
        chosen
            .and_then(named)
            .or_else(|| self.config.preferred.iter().find_map(|id| named(*id)))
            .or_else(|| usable().filter(|p| !p.potentially_failed).min_by_key(order))
            .or_else(|| spare().min_by_key(order))
    }

    fn admit(&self, now: Timestamp, target: PathId) -> Verdict {
        let Some(queue) = self.queues.iter().find(|q| q.path == target) else {
            return Verdict::Now(target);
        };
        let next = queue.last + self.config.min_interval;
        if queue.waiting >= self.config.queue_limit {
            return Verdict::Never;
        }
        if now < next {
            return Verdict::At(next);
        }
        Verdict::Now(target)
    }

    /// A frame waits to be sent again on `path`.
    pub fn on_queued(&mut self, now: Timestamp, path: PathId) {
        self.reinjected += 1;
        if let Some(queue) = self.queues.iter_mut().find(|q| q.path == path) {
            queue.waiting = queue.waiting.saturating_add(1);
            queue.last = now;
            return;
        }
        if self.queues.len() == limits::PATHS {
            self.queues.remove(0);
        }
        self.queues.push(Queue {
            path,
            waiting: 1,
            last: now,
        });
    }

    /// It left, or there is no need any more.
    pub fn on_dequeued(&mut self, path: PathId) {
        if let Some(queue) = self.queues.iter_mut().find(|q| q.path == path) {
            queue.waiting = queue.waiting.saturating_sub(1);
        }
    }

    /// `path` is gone, and with it what waited for it.
    pub fn path_removed(&mut self, path: PathId) {
        self.queues.retain(|q| q.path != path);
    }

    /// Frames sent again so far.
    pub const fn reinjected(&self) -> u64 {
        self.reinjected
    }
}

fn order(path: &&PathView) -> (Duration, PathId) {
    (path.latency(), path.id)
}

#[cfg(test)]
mod tests;
