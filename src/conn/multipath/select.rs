//! Which path the next train takes: the scheduler's answer to plain views of the open paths.
//!
//! Asked once a train, so that a train has one path and its datagrams stay one call to the kernel.
//! The views live in an array that is used again. What a path sends of its own accord
//! (acknowledgements, answers, probes) asks nobody (`send`).

use super::super::train::MIN_PACKET;
use super::super::{Connection, SentFrame};
use super::queued;
use crate::base::{Timestamp, limits};
use crate::path::schedule::{
    self, Candidates, Decision, PacketView, PathStatus, PathView, Pin, SchedulerContext, Selector,
};
use crate::path::{Path, PathId, PathState};
use crate::recovery::rtt::GRANULARITY;
use crate::stream::Outlook;
use std::time::Duration;

/// The urgency of a stream of priority 0 (RFC 9218 §4.1).
const USUAL_URGENCY: i8 = 3;

/// How often a path is asked that is left out for a round-trip time which may be past.
const MEASURE_AGAIN: Duration = Duration::from_millis(200);

/// The scheduler of a connection, and what its last answer was beyond a path.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) selector: Selector,
    /// One for each open path; kept for its capacity.
    views: Vec<PathView>,
    /// When to ask again, while the scheduler would rather wait.
    pub(super) wait_until: Option<Timestamp>,
    /// Where the train goes besides the path that was chosen.
    pub(super) copies: schedule::PathIds,
}

impl Choice {
    pub(super) fn new(mut selector: Selector) -> Self {
        selector.scheduler().path_added(PathId::ZERO);
        Self {
            selector,
            views: Vec::with_capacity(limits::PATH_RECORDS),
            wait_until: None,
            copies: schedule::PathIds::default(),
        }
    }
}

impl Connection {
    /// The path that the next train of what belongs to none leaves by, if one is to leave now.
    pub(super) fn select_path(&mut self, now: Timestamp) -> Option<PathId> {
        // What is asked of a path whose probe timeout fired is made of the data itself where no
        // other works (RFC 9002 §6.2.4), whatever the window says.
        if let Some(id) = self.last_resort() {
            return Some(id);
        }
        let decision = self.decide(now, None)?;
        let choice = &mut self.multipath.as_deref_mut()?.choice;
        choice.copies = schedule::PathIds::default();
        choice.wait_until = None;
        match decision {
            Decision::Send(id) => Some(id),
            Decision::Redundant(ids) => {
                let (first, others) = ids.as_slice().split_first()?;
                others.iter().for_each(|id| {
                    choice.copies.push(*id);
                });
                Some(*first)
            }
            Decision::Wait { until } => {
                choice.wait_until = until.map(|at| at.max(now + GRANULARITY));
                None
            }
            Decision::Nothing => None,
        }
    }

    /// The path that owes most probes, while none works.
    fn last_resort(&self) -> Option<PathId> {
        let open = |p: &&Path<SentFrame>| p.state == PathState::Open && p.can_send();
        let mut most: Option<(u8, PathId)> = None;
        for path in self.paths.iter().filter(open) {
            if !path.is_suspect() {
                return None;
            }
            if path.owed_probes > 0 {
                most = most.max(Some((path.owed_probes, path.id)));
            }
        }
        most.map(|(_, id)| id)
    }

    /// The scheduler's decision about the next train; `pin` names the path that it is for. Notes
    /// of each path what holds it back.
    pub(super) fn decide(&mut self, now: Timestamp, pin: Option<Pin>) -> Option<Decision> {
        let outlook = self.streams.outlook();
        let datagrams = self.datagrams.wants_to_send();
        let m = self.multipath.as_deref_mut()?;
        let Choice {
            selector, views, ..
        } = &mut m.choice;
        views.clear();
        for path in self.paths.iter_mut() {
            if path.state == PathState::Open && path.can_send() {
                views.push(view(path, now));
            }
        }
        let copies = m.copies.as_deref();
        for view in views.iter_mut() {
            view.queue_delay = queued::delay(view, copies, &m.pinned, &self.streams);
        }
        let mut ctx = SchedulerContext::new(now, views);
        ctx.packet = packet(&outlook, datagrams);
        let deadlines = copies.and_then(|c| c.reinjection.as_ref());
        ctx.packet.deadline = deadlines
            .zip(outlook.next)
            .and_then(|(r, id)| r.deadline_of(id));
        ctx.flow_credit = outlook.credit;
        ctx.pin = pin;
        let custom = |ctx: &SchedulerContext<'_>| m.hooks.0.as_deref_mut()?.select_path(ctx);
        let decision = selector.select_unless(&ctx, custom);
        let candidates = Candidates::of(now, views);
        let usable = candidates.usable(views);
        // A pin may name a path that is used for nothing else.
        let usable = usable.filter(|_| pin.is_none());
        let named = views
            .iter()
            .filter(|v| pin.is_some_and(|pin| pin.path == v.id));
        for view in usable.chain(named) {
            if let Some(path) = self.paths.get_mut(view.id) {
                path.window_limited |= !view.has_room();
                if view.has_room() {
                    path.paced_until = view.pacing_release;
                }
            }
        }
        if let (Decision::Send(id), None) = (decision, pin) {
            self.measure_again(now, id);
        }
        Some(decision)
    }

    /// Who looks at round-trip times leaves a path out after a queue that is long gone, and would
    /// never know: one that was faster than what was chosen now is asked from time to time.
    fn measure_again(&mut self, now: Timestamp, chosen: PathId) {
        let Some(rtt) = self.paths.get(chosen).map(|p| p.rtt.smoothed()) else {
            return;
        };
        let idle = |p: &&mut Path<SentFrame>| p.bytes_in_flight == 0 && p.id != chosen;
        for path in self.paths.iter_mut().filter(idle) {
            path.ping |= may_be_faster(path, now, rtt);
        }
    }

    /// Nothing more leaves now: the scheduler hears whether the peer's flow control is why.
    pub(super) fn note_flow_blocked(&mut self, now: Timestamp) {
        if !self.streams.outlook().blocked {
            return;
        }
        let room = |p: &Path<SentFrame>| {
            p.state == PathState::Open && p.window_room() >= p.mtu.current() as u64
        };
        if self.paths.iter().any(room)
            && let Some(m) = self.multipath.as_deref_mut()
        {
            m.choice.selector.scheduler().on_flow_blocked(now);
        }
    }
}

/// A path as a scheduler sees it, but for what waits for it.
pub(super) fn view(path: &mut Path<SentFrame>, now: Timestamp) -> PathView {
    let mtu = path.mtu.current().min(path.allowance());
    let paced = path.pacing_budget(now) < mtu as u64;
    PathView {
        id: path.id,
        smoothed_rtt: path.rtt.smoothed(),
        rtt_var: path.rtt.var(),
        min_rtt: path.rtt.min(),
        has_rtt_sample: path.rtt.has_sample(),
        // Nothing more can be remembered of what is sent there: as good as no window.
        congestion_window: match path.is_full() {
            true => path.cc.window().min(path.bytes_in_flight),
            false => path.cc.window(),
        },
        bytes_in_flight: path.bytes_in_flight,
        pacing_release: if paced { path.pacing_release() } else { None },
        pacing_rate: path.pacing_rate(),
        validated: mtu >= MIN_PACKET,
        our_status: path.status.ours(),
        peer_status: path.status.theirs().unwrap_or(PathStatus::Available),
        potentially_failed: path.is_suspect(),
        queue_delay: Duration::ZERO,
        mtu,
        bytes_sent: path.counters.bytes_sent,
    }
}

/// Whether a path that has nothing in flight was faster than `rtt`, is not as far as is known, and
/// that is old.
fn may_be_faster(path: &Path<SentFrame>, now: Timestamp, rtt: Duration) -> bool {
    let times = path.rtt.min() < rtt && rtt < path.rtt.smoothed();
    let old = |at: Timestamp| now >= at + MEASURE_AGAIN;
    let backup = |status: PathStatus| status == PathStatus::Backup;
    times
        && path.counters.last_ack.is_some_and(old)
        && path.state == PathState::Open
        && path.can_send()
        && !path.is_suspect()
        && !backup(path.status.ours())
        && !path.status.theirs().is_some_and(backup)
}

/// The next packet as a scheduler sees it.
fn packet(outlook: &Outlook, datagrams: bool) -> PacketView {
    let urgency = USUAL_URGENCY.saturating_sub(outlook.priority).clamp(0, 7);
    PacketView {
        acks_only: false,
        retransmission: outlook.again,
        bytes_pending: outlook.bytes.max(u64::from(datagrams)),
        urgency: urgency as u8,
        deadline: None,
    }
}
