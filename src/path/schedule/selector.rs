//! What a connection holds: a scheduler, and around it what no scheduler has to know.
//!
//! A pinned packet goes where it is pinned. Packets of acknowledgements alone are not limited by
//! windows and do not count for anyone's shares: they take the usable path of the lowest latency.
//! With one path there is nothing to schedule. An answer that names a path which must not be used
//! now is not followed, so a scheduler from outside can at worst wait.

use super::{Candidates, Decision, PathView, Scheduler, SchedulerContext, SchedulerKind};
use crate::base::Timestamp;
use crate::path::PathId;
use std::fmt;

/// A connection's choice of paths.
pub struct Selector(Box<dyn Scheduler>);

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Selector").field(&self.0.name()).finish()
    }
}

impl From<Box<dyn Scheduler>> for Selector {
    fn from(scheduler: Box<dyn Scheduler>) -> Self {
        Self(scheduler)
    }
}

impl Selector {
    /// With the scheduler of that kind.
    pub fn new(kind: &SchedulerKind) -> Self {
        Self(kind.build())
    }

    /// The scheduler, for what is to be told to it.
    #[inline]
    pub fn scheduler(&mut self) -> &mut dyn Scheduler {
        &mut *self.0
    }

    /// Where the packet of `ctx` goes now.
    #[inline]
    pub fn select(&mut self, ctx: &SchedulerContext<'_>) -> Decision {
        self.select_unless(ctx, |_| None)
    }

    /// The same, where `custom` is asked before the scheduler.
    #[inline]
    pub fn select_unless(
        &mut self,
        ctx: &SchedulerContext<'_>,
        custom: impl FnOnce(&SchedulerContext<'_>) -> Option<Decision>,
    ) -> Decision {
        if let [only] = ctx.paths
            && ctx.pin.is_none()
        {
            return match only {
                path if !path.validated => Decision::Nothing,
                path => on(ctx, path),
            };
        }
        if let Some(decision) = pinned(ctx) {
            return decision;
        }
        if ctx.packet.acks_only {
            return least_latency(ctx);
        }
        let decision = custom(ctx).unwrap_or_else(|| self.0.select(ctx));
        checked(ctx, decision)
    }
}

/// The packet goes on `path` and nowhere else.
#[inline]
fn on(ctx: &SchedulerContext<'_>, path: &PathView) -> Decision {
    if ctx.packet.acks_only || path.can_send(ctx.now) {
        Decision::Send(path.id)
    } else {
        path.wait()
    }
}

/// What the pin says; `None` without one, or when another path may serve.
#[inline]
fn pinned(ctx: &SchedulerContext<'_>) -> Option<Decision> {
    let pin = ctx.pin?;
    match ctx.path(pin.path) {
        Some(path) if path.validated && !path.potentially_failed => Some(on(ctx, path)),
        _ if pin.fallback => None,
        // It may come back, or be validated yet.
        Some(_) => Some(Decision::Wait { until: None }),
        None => Some(Decision::Nothing),
    }
}

fn least_latency(ctx: &SchedulerContext<'_>) -> Decision {
    let usable = ctx.candidates().usable(ctx.paths);
    match usable.map(|p| (p.latency(), p.id)).min() {
        Some((_, id)) => Decision::Send(id),
        None => Decision::Nothing,
    }
}

/// `decision`, without paths that must not be used now.
#[inline]
fn checked(ctx: &SchedulerContext<'_>, decision: Decision) -> Decision {
    let may = |id: PathId| {
        let path = ctx.paths.iter().take(Candidates::MAX).find(|p| p.id == id);
        path.is_some_and(|p| p.validated && p.can_send(ctx.now))
    };
    match decision {
        Decision::Send(id) if !may(id) => ctx.wait(&ctx.candidates()),
        Decision::Redundant(ids) if !ids.as_slice().iter().all(|id| may(*id)) => {
            ctx.wait(&ctx.candidates())
        }
        _ => decision,
    }
}

/// What is told to the scheduler, passed on.
impl Selector {
    /// See [`Scheduler::on_sent`].
    #[inline]
    pub fn on_sent(&mut self, now: Timestamp, path: PathId, bytes: u64) {
        self.0.on_sent(now, path, bytes);
    }

    /// See [`Scheduler::on_acked`].
    #[inline]
    pub fn on_acked(&mut self, now: Timestamp, path: PathId, bytes: u64) {
        self.0.on_acked(now, path, bytes);
    }

    /// See [`Scheduler::on_lost`].
    #[inline]
    pub fn on_lost(&mut self, now: Timestamp, path: PathId, bytes: u64) {
        self.0.on_lost(now, path, bytes);
    }
}
