//! What is overdue or lost on one path goes out on another (`crate::path::reinject` decides).
//!
//! A packet that is sent again in place of one that is still under way answers for its frames from
//! then on: the first one's loss repeats nothing any more, its acknowledgement counts. For each
//! such packet it is known on which paths its frames were before, and none gets them again. What
//! was lost is repeated once, on the path chosen here or by loss recovery, whichever comes first.

use super::super::Connection;
use super::super::space::SentFrame;
use super::copies::{Batch, Copies, Item, Why};
use crate::base::{Timestamp, limits};
use crate::path::reinject::{Outstanding, ReinjectionConfig, Reinjector, TargetSelector, Verdict};
use crate::path::schedule::{PathIds, PathView, SchedulerContext};
use crate::path::{Path, PathId};
use crate::recovery::rtt::GRANULARITY;
use crate::stream;
use crate::wire::StreamId;
use std::collections::BTreeMap;

/// How many more packets are remembered before those that are settled are looked for: whatever the
/// peer leaves unacknowledged, a packet costs a bounded share of that.
const FORGET_EVERY: usize = 64;

/// What is known of a packet that was reinjected, or whose frames are on other paths already.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    was_on: PathIds,
    times: u8,
}

/// A stream's deadline.
#[derive(Clone, Copy, Debug)]
struct Deadline {
    at: Timestamp,
    /// When to look at what is under way of the stream.
    look: Timestamp,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Reinjection {
    reinjector: Reinjector,
    /// By path and packet number.
    before: BTreeMap<(PathId, u64), Before>,
    /// Packets that were remembered since settled ones were forgotten.
    fresh: usize,
    /// Packets of a path below this number were looked at.
    seen: BTreeMap<PathId, u64>,
    deadlines: BTreeMap<StreamId, Deadline>,
    /// When the next look is due.
    pub(super) next: Option<Timestamp>,
}

impl Reinjection {
    pub(super) fn new(
        config: ReinjectionConfig,
        selector: Option<Box<dyn TargetSelector>>,
    ) -> Self {
        Self {
            reinjector: Reinjector::new(config, selector),
            before: BTreeMap::new(),
            fresh: 0,
            seen: BTreeMap::new(),
            deadlines: BTreeMap::new(),
            next: None,
        }
    }

    /// A batch for that path has left, or is given up.
    pub(super) fn on_dequeued(&mut self, path: PathId) {
        self.reinjector.on_dequeued(path);
    }

    /// The frames of a packet were on other paths too, and reinjected so often.
    pub(super) fn remember(&mut self, packet: (PathId, u64), was_on: PathIds, times: u8) {
        if self.before.len() >= limits::REINJECTED {
            self.before.pop_first();
        }
        self.before.insert(packet, Before { was_on, times });
        self.fresh += 1;
    }

    fn outstanding(&self, packet: (PathId, u64), sent: Timestamp) -> Outstanding {
        let before = self.before.get(&packet).copied().unwrap_or_default();
        Outstanding {
            path: packet.0,
            sent,
            deadline: None,
            reinjected: before.times,
            was_on: before.was_on,
        }
    }

    /// When the data of a stream is of no use any more.
    pub(super) fn deadline_of(&self, id: StreamId) -> Option<Timestamp> {
        self.deadlines.get(&id).map(|d| d.at)
    }

    fn wait_until(&mut self, at: Timestamp) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// A batch that is to be filled.
    fn batch(&mut self, now: Timestamp, batch: &mut Batch, what: &Outstanding) {
        self.reinjector.on_queued(now, batch.target);
        batch.was_on = what.was_on;
        batch.was_on.push(what.path);
        batch.times = what.reinjected.saturating_add(1);
    }

    /// Forgets what is settled.
    fn forget(&mut self, is_open: impl Fn(PathId, u64) -> bool, exists: impl Fn(PathId) -> bool) {
        if self.fresh >= FORGET_EVERY {
            self.fresh = 0;
            self.before.retain(|(path, pn), _| is_open(*path, *pn));
        }
        let gone = |path: &PathId| !exists(*path);
        for path in self.seen.keys().copied().filter(gone).collect::<Vec<_>>() {
            self.reinjector.path_removed(path);
            self.seen.remove(&path);
        }
    }
}

/// Whether a packet of such frames can be sent again on another path as it is.
pub(super) fn is_movable(frames: &[SentFrame]) -> bool {
    let movable = |f: &SentFrame| {
        matches!(
            f,
            SentFrame::Stream(_)
                | SentFrame::Crypto { .. }
                | SentFrame::Ack { .. }
                | SentFrame::PathAck { .. }
                | SentFrame::Unreliable
        )
    };
    frames.iter().all(movable) && frames.iter().any(is_kept)
}

/// Whether a frame's content is kept until it is acknowledged.
fn is_kept(frame: &SentFrame) -> bool {
    matches!(frame, SentFrame::Stream(_) | SentFrame::Crypto { .. })
}

fn is_of(frame: &SentFrame, stream: StreamId) -> bool {
    matches!(frame, SentFrame::Stream(stream::SentFrame::Stream { id, .. }) if *id == stream)
}

impl Connection {
    /// Sends what is overdue or lost on one path again on another from now on, or no more.
    /// `selector` chooses where to; without one the configuration does. False when there are no
    /// several paths.
    pub fn set_reinjection(
        &mut self,
        config: Option<ReinjectionConfig>,
        selector: Option<Box<dyn TargetSelector>>,
    ) -> bool {
        let Some(m) = self.multipath.as_deref_mut() else {
            return false;
        };
        if config.is_some() || m.copies.is_some() {
            let copies = m.copies.get_or_insert_default();
            copies.drop_reinjections();
            copies.reinjection = config.map(|c| Reinjection::new(c, selector));
        }
        true
    }

    /// Says when the data of a stream is of no use any more, or that it always is: what of it may
    /// come too late on its path is sent on another as well, if reinjection is on and looks at
    /// deadlines. False when it is off, or too many streams have a deadline.
    pub fn set_stream_deadline(&mut self, id: StreamId, deadline: Option<Timestamp>) -> bool {
        let copies = self
            .multipath
            .as_deref_mut()
            .and_then(|m| m.copies.as_mut());
        let Some(r) = copies.and_then(|c| c.reinjection.as_mut()) else {
            return false;
        };
        let Some(at) = deadline else {
            return r.deadlines.remove(&id).is_some();
        };
        if r.deadlines.len() >= limits::CHOSEN && !r.deadlines.contains_key(&id) {
            return false;
        }
        let look = Timestamp::ZERO;
        r.deadlines.insert(id, Deadline { at, look });
        r.next = Some(Timestamp::ZERO);
        true
    }

    /// When reinjection is to be thought about next.
    pub(in super::super) fn reinjection_deadline(&self) -> Option<Timestamp> {
        let copies = self.multipath.as_deref()?.copies.as_deref()?;
        copies.reinjection.as_ref()?.next
    }

    /// Whether what is lost may be sent again on a path of choice.
    pub(in super::super) fn reinjects(&self) -> bool {
        let copies = self.multipath.as_deref().and_then(|m| m.copies.as_deref());
        copies.is_some_and(|c| c.reinjection.is_some())
    }

    /// Does what is due.
    pub(in super::super) fn reinject(&mut self, now: Timestamp) {
        if !self.reinjects() {
            return;
        }
        self.with_copies(|conn, copies| {
            let Some(mut r) = copies.reinjection.take() else {
                return;
            };
            let paths = &conn.paths;
            r.forget(
                |path, pn| paths.get(path).is_some_and(|p| p.sent.answers_for(pn)),
                |path| paths.get(path).is_some(),
            );
            r.next = None;
            let views = conn.path_views(now, copies);
            copies.reinjection = Some(r);
            for path in conn.paths.iter() {
                copies.look_at(now, &views, path);
            }
            conn.look_at_deadlines(now, &views, copies);
        });
    }

    fn look_at_deadlines(&self, now: Timestamp, views: &[PathView], copies: &mut Copies) {
        let Some(r) = &mut copies.reinjection else {
            return;
        };
        let streams = &self.streams;
        r.deadlines
            .retain(|id, d| now <= d.at && streams.is_sending(*id));
        let due: Vec<_> = r.deadlines.iter().map(|(id, d)| (*id, *d)).collect();
        for (id, mut deadline) in due {
            if deadline.look <= now {
                deadline.look = self.look_at_stream(now, views, copies, id, deadline.at);
            }
            if let Some(r) = &mut copies.reinjection {
                r.deadlines.insert(id, deadline);
                r.wait_until(deadline.look);
            }
        }
    }

    /// Copies what of a stream must leave now to arrive in time; returns when to look again.
    fn look_at_stream(
        &self,
        now: Timestamp,
        views: &[PathView],
        copies: &mut Copies,
        id: StreamId,
        at: Timestamp,
    ) -> Timestamp {
        let slowest = views
            .iter()
            .map(PathView::latency)
            .max()
            .unwrap_or_default();
        let mut look =
            Timestamp::from_nanos(at.as_nanos().saturating_sub(slowest.as_nanos() as u64));
        for path in self.paths.iter() {
            let mut from = 0;
            while let Some((pn, packet, frames)) = path.sent.next_outstanding(from) {
                from = pn + 1;
                if packet.spare || !frames.iter().any(|f| is_of(f, id)) {
                    continue;
                }
                let Some(r) = copies.reinjection.as_mut() else {
                    break;
                };
                let mut what = r.outstanding((path.id, pn), packet.time_sent);
                what.deadline = Some(at);
                let ctx = SchedulerContext::new(now, views);
                match r.reinjector.verdict(&ctx, &what) {
                    Verdict::Now(target) if what.reinjected == 0 => {
                        let frames = frames.iter().filter(|f| is_of(f, id));
                        copies.reinject(now, (target, Why::Early), &what, pn, frames);
                    }
                    Verdict::At(at) => look = look.min(at),
                    Verdict::Now(_) | Verdict::Never => {}
                }
            }
        }
        look.max(now + GRANULARITY)
    }

    /// Packets of the path in hand were lost: the frames of each begin at a place in `lost`.
    pub(in super::super) fn reinject_lost(
        &mut self,
        now: Timestamp,
        packets: &[(u64, Timestamp, usize)],
        lost: &[SentFrame],
    ) {
        let id = self.paths.current().id;
        self.with_copies(|conn, copies| {
            let views = conn.path_views(now, copies);
            let ctx = SchedulerContext::new(now, &views);
            for (n, (pn, sent, start)) in packets.iter().enumerate() {
                let end = packets.get(n + 1).map_or(lost.len(), |p| p.2);
                let frames = lost.get(*start..end).unwrap_or_default();
                let data = |f: &&SentFrame| {
                    matches!(f, SentFrame::Stream(stream::SentFrame::Stream { .. }))
                };
                let Some(r) = copies.reinjection.as_mut() else {
                    return;
                };
                if !frames.iter().any(|f| data(&f)) {
                    continue;
                }
                let what = r.outstanding((id, *pn), *sent);
                let target = r.reinjector.target_of_lost(&ctx, &what);
                let Some(target) = target.filter(|_| copies.has_room()) else {
                    copies.stats.reinjections_refused += 1;
                    continue;
                };
                let frames = frames.iter().filter(data);
                copies.reinject(now, (target, Why::Lost), &what, *pn, frames);
            }
        });
    }
}

impl Copies {
    /// Queues what is due of a path, the oldest first.
    fn look_at(&mut self, now: Timestamp, views: &[PathView], path: &Path<SentFrame>) {
        let ctx = SchedulerContext::new(now, views);
        let Some(r) = self.reinjection.as_ref() else {
            return;
        };
        let mut seen = r.seen.get(&path.id).copied().unwrap_or(0);
        while let Some((pn, packet, frames)) = path.sent.next_outstanding(seen) {
            // What lies before was acknowledged or lost: the next look begins here.
            seen = pn;
            let has_room = self.has_room();
            let Some(r) = self.reinjection.as_mut() else {
                return;
            };
            if packet.spare || packet.mtu_probe || !is_movable(frames) {
                seen = pn + 1;
                continue;
            }
            let what = r.outstanding((path.id, pn), packet.time_sent);
            match r.reinjector.verdict(&ctx, &what) {
                Verdict::Now(_) if !has_room => {
                    // A timer would not help: what waits leaves first.
                    break;
                }
                Verdict::Now(target) => {
                    let why = Why::Instead(path.id, pn);
                    let frames = frames.iter().filter(|f| is_kept(f));
                    self.reinject(now, (target, why), &what, pn, frames);
                    seen = pn + 1;
                }
                Verdict::At(at) => {
                    r.wait_until(at);
                    break;
                }
                // It was on every path, or often enough; what follows may not have been.
                Verdict::Never if what.reinjected > 0 || !what.was_on.as_slice().is_empty() => {
                    seen = pn + 1;
                }
                Verdict::Never => break,
            }
        }
        if let Some(r) = &mut self.reinjection {
            r.seen.insert(path.id, seen);
        }
    }

    /// Queues frames of a packet for another path.
    fn reinject<'a>(
        &mut self,
        now: Timestamp,
        (target, why): (PathId, Why),
        what: &Outstanding,
        pn: u64,
        frames: impl Iterator<Item = &'a SentFrame>,
    ) {
        let mut batch = self.batch(target, why);
        batch.items.extend(frames.map(|f| Item::Frame(*f)));
        if let Some(r) = &mut self.reinjection {
            r.batch(now, &mut batch, what);
            if why == Why::Early {
                let mut was_on = what.was_on;
                was_on.push(target);
                r.remember((what.path, pn), was_on, batch.times);
            }
        }
        self.push(batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cap on packets of which is known where their frames were, and that settled ones go.
    #[test]
    fn what_was_reinjected_is_remembered_up_to_a_cap() {
        let mut r = Reinjection::new(ReinjectionConfig::default(), None);
        for pn in 0..10 * limits::REINJECTED as u64 {
            r.remember((PathId(1), pn), PathIds::default(), 1);
            assert!(r.before.len() <= limits::REINJECTED);
        }
        assert_eq!(r.before.len(), limits::REINJECTED);
        let known = r.outstanding(
            (PathId(1), 10 * limits::REINJECTED as u64 - 1),
            Timestamp::ZERO,
        );
        assert_eq!(known.reinjected, 1, "the newest");
        r.forget(|_, _| false, |_| true);
        assert!(r.before.is_empty());
        // A few that are settled may wait for others, so that a look at all of them is paid for.
        r.remember((PathId(1), 1), PathIds::default(), 1);
        r.forget(|_, _| false, |_| true);
        assert_eq!(r.before.len(), 1);
        for pn in 2..=FORGET_EVERY as u64 {
            r.remember((PathId(1), pn), PathIds::default(), 1);
        }
        r.forget(|_, pn| pn == 5, |_| true);
        assert_eq!(r.before.len(), 1);
    }
}
