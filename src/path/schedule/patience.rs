//! How long a scheduler may hold data back for a better path.
//!
//! Waiting for a path means waiting for its acknowledgements. When they stay away for a probe
//! timeout's time, the path may be dead long before anything else notices, and other paths have to
//! serve.

use super::{Decision, PathView, SchedulerContext};
use crate::base::Timestamp;
use crate::path::PathId;
use crate::recovery::rtt::GRANULARITY;

/// A wait for one path.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Patience {
    waiting: Option<(PathId, Timestamp)>,
}

impl Patience {
    /// The answer of a scheduler that would rather wait for `fast` than use `slow`.
    pub fn decide(
        &mut self,
        ctx: &SchedulerContext<'_>,
        fast: &PathView,
        slow: &PathView,
    ) -> Decision {
        // An acknowledgement's wait, and half a round trip to the peer.
        let arrival = ctx.now + fast.smoothed_rtt + fast.smoothed_rtt / 2;
        let late = ctx.packet.deadline.is_some_and(|d| d < arrival);
        match self.wait_for(ctx.now, fast) {
            Some(until) if !late => Decision::Wait { until: Some(until) },
            _ => Decision::Send(slow.id),
        }
    }

    /// Until when to wait for `path`; `None` when that makes no sense or was done long enough.
    fn wait_for(&mut self, now: Timestamp, path: &PathView) -> Option<Timestamp> {
        let since = match self.waiting {
            Some((id, since)) if id == path.id => since,
            _ => {
                self.waiting = Some((path.id, now));
                now
            }
        };
        // What RFC 9002 §6.2.1 allows an acknowledgement.
        let allowance = (path.rtt_var * 4).max(GRANULARITY);
        let end = since + path.smoothed_rtt + allowance;
        let until = match path.pacing_release {
            Some(release) if path.has_room() => release,
            // Nothing under way: no acknowledgement will come.
            _ if path.bytes_in_flight == 0 => return None,
            _ => end,
        };
        (now < end).then_some(until.min(end))
    }

    /// There is no need to wait.
    #[inline]
    pub fn end(&mut self) {
        self.waiting = None;
    }

    /// `path` showed that it works.
    #[inline]
    pub fn on_acked(&mut self, path: PathId) {
        if self.waiting.is_some_and(|(id, _)| id == path) {
            self.waiting = None;
        }
    }
}
