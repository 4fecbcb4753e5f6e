//! Streams that are to be sent on one path and no other: each path that is named so has a lane of
//! its own beside the queues of [`Schedule`], and what is to be sent is looked for where the
//! present aim says.
//!
//! A connection that pins nothing has no lanes and pays one look at that.

use super::list::Links;
use super::schedule::{Levels, Schedule};
use super::set::Streams;
use crate::base::{PathId, limits};
use crate::wire::StreamId;

/// Where a stream is to be sent, and whether another path may serve while that one does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lane {
    /// The path.
    pub(crate) path: PathId,
    /// Another may serve.
    pub(crate) fallback: bool,
}

/// Which streams are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Aim {
    /// All.
    #[default]
    Every,
    /// Those that any path serves.
    Loose,
    /// Those that this path alone serves.
    Only(PathId),
}

/// Why a stream cannot be pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LaneError {
    /// There is no such stream, or it sends nothing any more.
    Unknown,
    /// Streams are pinned to too many different paths.
    TooMany,
}

#[derive(Debug)]
struct Waiting {
    lane: Lane,
    /// Its path does not work, and another may serve.
    open: bool,
    streams: u32,
    free: Levels,
    paid: Levels,
}

/// The lanes of one connection.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: Vec<Waiting>,
    aim: Aim,
}

impl Lanes {
    fn looks_at(&self, w: &Waiting) -> bool {
        match self.aim {
            Aim::Every => true,
            Aim::Loose => w.open,
            Aim::Only(path) => !w.open && w.lane.path == path,
        }
    }

    fn seen(&self) -> impl Iterator<Item = &Waiting> {
        self.lanes.iter().filter(|w| self.looks_at(w))
    }

    /// Whether the queues of streams that are not pinned are looked at.
    pub(super) fn sees_others(&self) -> bool {
        !matches!(self.aim, Aim::Only(_))
    }

    pub(super) fn has_work(&self, credit: bool) -> bool {
        let works = |w: &Waiting| !w.free.is_empty() || (credit && !w.paid.is_empty());
        self.seen().any(works)
    }

    pub(super) fn needs_credit(&self) -> bool {
        self.lanes.iter().any(|w| !w.paid.is_empty())
    }

    /// The first stream of the highest priority, with that.
    pub(super) fn first(&self, credit: bool) -> Option<(i8, u32)> {
        let free = self.seen().filter_map(|w| w.free.first());
        let paid = self.seen().filter(|_| credit);
        let all = free.chain(paid.filter_map(|w| w.paid.first()));
        all.reduce(|best, next| if next.0 > best.0 { next } else { best })
    }

    /// The queues of lane number `n`, counted from 1.
    pub(super) fn levels(&mut self, n: u8) -> Option<(&mut Levels, &mut Levels)> {
        let at = usize::from(n).checked_sub(1)?;
        let w = self.lanes.get_mut(at)?;
        Some((&mut w.free, &mut w.paid))
    }

    /// The streams with new data that go by that path and no other now.
    pub(super) fn waiting_for<'a>(
        &'a self,
        path: PathId,
        links: &'a Links,
    ) -> impl Iterator<Item = u32> + 'a {
        let lanes = self.lanes.iter();
        let lanes = lanes.filter(move |w| !w.open && w.lane.path == path);
        lanes.flat_map(move |w| w.paid.iter(links))
    }

    /// The streams with new data that are looked at.
    pub(super) fn waiting<'a>(&'a self, links: &'a Links) -> impl Iterator<Item = u32> + 'a {
        self.seen().flat_map(move |w| w.paid.iter(links))
    }

    /// The number of that lane with one stream more in it; `None` when there is no room.
    fn join(&mut self, lane: Lane) -> Option<u8> {
        let at = self.lanes.iter().position(|w| w.lane == lane);
        let at = at.or_else(|| self.lanes.iter().position(|w| w.streams == 0));
        let at = match at {
            Some(at) => at,
            None if self.lanes.len() < limits::PINNED_PATHS => {
                self.lanes.push(Waiting {
                    lane,
                    open: false,
                    streams: 0,
                    free: Levels::default(),
                    paid: Levels::default(),
                });
                self.lanes.len() - 1
            }
            None => return None,
        };
        let w = self.lanes.get_mut(at)?;
        if w.streams == 0 {
            (w.lane, w.open) = (lane, false);
        }
        w.streams += 1;
        u8::try_from(at + 1).ok()
    }

    pub(super) fn leave(&mut self, n: u8) {
        let at = usize::from(n).checked_sub(1);
        if let Some(w) = at.and_then(|at| self.lanes.get_mut(at)) {
            w.streams = w.streams.saturating_sub(1);
        }
    }
}

impl Schedule {
    /// Moves `slot` to a lane, or to where streams wait for any path; false when there is no room.
    fn pin(&mut self, slot: u32, lane: Option<Lane>) -> bool {
        let number = match lane {
            None => 0,
            Some(lane) => match self.ensure_lanes().join(lane) {
                Some(number) => number,
                None => return false,
            },
        };
        self.move_to_lane(slot, number);
        true
    }
}

impl Streams {
    /// Has a stream sent on one path, or on any.
    pub(crate) fn pin(&mut self, id: StreamId, lane: Option<Lane>) -> Result<(), LaneError> {
        let slot = self.find(id).ok_or(LaneError::Unknown)?;
        self.send(slot).ok_or(LaneError::Unknown)?;
        if self.schedule.pin(slot, lane) {
            Ok(())
        } else {
            Err(LaneError::TooMany)
        }
    }

    /// Whether a stream was ever pinned.
    #[inline]
    pub(crate) fn has_lanes(&self) -> bool {
        self.schedule.lanes().is_some()
    }

    /// Says which streams are looked at from now on.
    pub(crate) fn aim(&mut self, aim: Aim) {
        if let Some(lanes) = self.schedule.lanes_mut() {
            lanes.aim = aim;
        }
    }

    /// Says of each lane whether its path works; where it does not, others serve streams that admit
    /// it. Returns the first path for which streams wait that it alone serves, behind `after`.
    pub(crate) fn next_lane(
        &mut self,
        after: Option<PathId>,
        works: impl Fn(PathId) -> bool,
    ) -> Option<Lane> {
        let credit = self.flow.credit() > 0;
        let lanes = self.schedule.lanes_mut()?;
        let mut next: Option<Lane> = None;
        for w in &mut lanes.lanes {
            w.open = w.lane.fallback && !works(w.lane.path);
            let has_work = !w.free.is_empty() || (credit && !w.paid.is_empty());
            if has_work && !w.open && Some(w.lane.path) > after {
                let sooner = next.is_none_or(|n| w.lane.path < n.path);
                next = if sooner { Some(w.lane) } else { next };
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::StreamConfig;
    use crate::wire::{Dir, Side, TransportParameters, Writer};

    fn streams(count: usize) -> (Streams, Vec<StreamId>) {
        let mut s = Streams::new(Side::Client, &StreamConfig::default());
        s.set_peer_limits(&TransportParameters {
            initial_max_data: 1 << 30,
            initial_max_stream_data_uni: 1 << 20,
            initial_max_streams_uni: 1000,
            ..TransportParameters::default()
        });
        let open = |s: &mut Streams| {
            let id = s.open(Dir::Uni).unwrap();
            s.write(id, &[7; 3000]).unwrap();
            id
        };
        let ids = (0..count).map(|_| open(&mut s)).collect();
        (s, ids)
    }

    /// The streams of the frames in one packet.
    fn packet(s: &mut Streams, aim: Aim) -> Vec<StreamId> {
        let (mut buf, mut out) = ([0; 500], Vec::new());
        s.aim(aim);
        s.write_data(&mut Writer::new(&mut buf), &mut |f| {
            if let crate::stream::SentFrame::Stream { id, .. } = f {
                out.push(id);
            }
        });
        s.aim(Aim::Every);
        out
    }

    const fn lane(path: u32, fallback: bool) -> Lane {
        let path = PathId(path);
        Lane { path, fallback }
    }

    #[test]
    fn a_pinned_stream_is_sent_where_it_belongs_and_nowhere_else() {
        let (mut s, ids) = streams(3);
        assert!(!s.has_lanes());
        s.pin(ids[0], Some(lane(1, true))).unwrap();
        s.pin(ids[1], Some(lane(2, false))).unwrap();
        let works = |_: PathId| true;
        assert_eq!(s.next_lane(None, works), Some(lane(1, true)));
        assert_eq!(s.next_lane(Some(PathId(1)), works), Some(lane(2, false)));
        assert_eq!(s.next_lane(Some(PathId(2)), works), None);
        assert_eq!(packet(&mut s, Aim::Only(PathId(1))), [ids[0]]);
        assert_eq!(packet(&mut s, Aim::Only(PathId(2))), [ids[1]]);
        assert!(packet(&mut s, Aim::Only(PathId(3))).is_empty());
        assert_eq!(packet(&mut s, Aim::Loose), [ids[2]]);
        // Path 1 and 2 do not work: the stream that admits it goes with the others.
        assert_eq!(s.next_lane(None, |_| false), Some(lane(2, false)));
        assert!(packet(&mut s, Aim::Only(PathId(1))).is_empty());
        assert_eq!(packet(&mut s, Aim::Loose), [ids[0]]);
        s.reset(ids[0], 0).unwrap();
        assert_eq!(packet(&mut s, Aim::Loose), [ids[2]]);
        s.pin(ids[1], None).unwrap();
        s.reset(ids[2], 0).unwrap();
        assert_eq!(packet(&mut s, Aim::Loose), [ids[1]]);
        assert!(s.has_data());
    }

    #[test]
    fn the_higher_priority_goes_first_pinned_or_not() {
        let (mut s, ids) = streams(2);
        s.pin(ids[0], Some(lane(1, true))).unwrap();
        s.set_priority(ids[1], 3).unwrap();
        assert_eq!(packet(&mut s, Aim::Every), [ids[1]]);
        s.set_priority(ids[0], 5).unwrap();
        assert_eq!(packet(&mut s, Aim::Every), [ids[0]]);
        assert_eq!(s.outlook().priority, 5);
    }

    /// The cap on paths that streams are pinned to, and that streams which are gone make room.
    #[test]
    fn lanes_are_capped_and_used_again() {
        let (mut s, ids) = streams(limits::PINNED_PATHS + 1);
        for (n, id) in ids.iter().enumerate() {
            let pinned = s.pin(*id, Some(lane(n as u32, false)));
            let room = n < limits::PINNED_PATHS;
            assert_eq!(
                pinned,
                if room {
                    Ok(())
                } else {
                    Err(LaneError::TooMany)
                }
            );
        }
        s.reset(ids[3], 0).unwrap();
        s.on_acked(crate::stream::SentFrame::ResetStream(ids[3]));
        assert_eq!(s.pin(ids[3], None), Err(LaneError::Unknown));
        s.pin(ids[limits::PINNED_PATHS], Some(lane(99, false)))
            .unwrap();
        assert_eq!(packet(&mut s, Aim::Only(PathId(99))).len(), 1);
        s.pin(ids[0], Some(lane(1, false))).unwrap();
        assert!(packet(&mut s, Aim::Only(PathId(0))).is_empty());
    }
}
