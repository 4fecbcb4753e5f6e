//! Streams and datagrams that are to go by one path.
//!
//! They leave in trains of their own, which hold nothing else that any path could carry: the path
//! may be one that is used for nothing else. Such trains take turns with those that the scheduler
//! sends there. Where a pin admits it, others serve while its path does not work, and for good once
//! that is abandoned.

use super::super::{Connection, Load, SentFrame};
use super::Multipath;
use crate::base::{Timestamp, Transmit, limits};
use crate::path::schedule::{Decision, Pin};
use crate::path::{Path, PathId, PathState};
use crate::stream::{Aim, DatagramError, Lane, LaneError};
use crate::wire::frame::{datagram_size, write_datagram_header};
use crate::wire::{StreamId, Writer};
use bytes::Bytes;
use std::collections::VecDeque;

/// What a datagram costs beside its bytes.
const OVERHEAD: usize = 64;

/// Why a stream cannot be pinned to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// One side does not take several paths.
    #[error("one side does not take several paths (TransportConfig::max_paths)")]
    NotNegotiated,
    /// There is no such path, or not any more.
    #[error("there is no such path, or not any more")]
    UnknownPath,
    /// There is no such stream, or nothing is sent on it any more.
    #[error("there is no such stream, or nothing is sent on it any more")]
    UnknownStream,
    /// Streams are pinned to too many paths.
    #[error("streams are pinned to too many paths: unpin those of paths that are gone")]
    TooMany,
}

/// Datagrams that wait for one path.
#[derive(Debug)]
struct Queue {
    pin: Pin,
    datagrams: VecDeque<Bytes>,
}

/// Datagrams that wait for paths of their own.
#[derive(Debug, Default)]
pub(in super::super) struct Pinned {
    queues: Vec<Queue>,
    /// Bytes in all of them, and what each costs beside.
    bytes: usize,
    /// The last train was of what is pinned: others have their turn.
    turn_over: bool,
}

impl Pinned {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes that wait for a path, those of the first datagrams.
    pub(super) fn bytes_for(&self, path: PathId) -> u64 {
        let queues = self.queues.iter().filter(|q| q.pin.path == path);
        let first = queues.flat_map(|q| q.datagrams.iter().take(limits::MAX_TRAIN_SEGMENTS));
        first.map(|d| d.len() as u64).sum()
    }

    /// The queue of that pin, if there may be one more.
    fn queue(&mut self, pin: Pin) -> Option<&mut Queue> {
        let same = |q: &Queue| q.pin == pin;
        let at = self.queues.iter().position(same);
        let at = match at.or_else(|| self.queues.iter().position(|q| q.datagrams.is_empty())) {
            Some(at) => at,
            None if self.queues.len() < limits::PINNED_PATHS => {
                let datagrams = VecDeque::new();
                self.queues.push(Queue { pin, datagrams });
                self.queues.len() - 1
            }
            None => return None,
        };
        let queue = self.queues.get_mut(at)?;
        if queue.datagrams.is_empty() {
            queue.pin = pin;
        }
        Some(queue)
    }

    fn has_for(&self, path: PathId) -> bool {
        let mut queues = self.queues.iter();
        queues.any(|q| q.pin.path == path && !q.datagrams.is_empty())
    }

    /// The first path behind `after` that something waits for.
    fn next(&self, after: Option<PathId>) -> Option<Pin> {
        let waiting = self.queues.iter().filter(|q| !q.datagrams.is_empty());
        let later = waiting.map(|q| q.pin).filter(|pin| Some(pin.path) > after);
        later.min_by_key(|pin| pin.path)
    }

    /// Takes the datagrams out whose pin is such.
    fn take(&mut self, which: impl Fn(Pin) -> bool) -> Vec<Bytes> {
        let mut out = Vec::new();
        for queue in self.queues.iter_mut().filter(|q| which(q.pin)) {
            out.extend(queue.datagrams.drain(..));
        }
        let freed = out.iter().map(|d| d.len() + OVERHEAD);
        self.bytes = self.bytes.saturating_sub(freed.sum());
        out
    }

    /// Appends those that wait for `path`, as many as fit; returns how many. What no packet with
    /// `room` bytes for frames could carry is dropped.
    fn write(&mut self, path: PathId, w: &mut Writer<'_>, room: usize) -> u64 {
        let mut written = 0;
        for queue in self.queues.iter_mut().filter(|q| q.pin.path == path) {
            while let Some(next) = queue.datagrams.front() {
                let size = datagram_size(next.len(), true);
                let fits = size <= w.remaining();
                if !fits && size <= room {
                    break;
                }
                let cost = next.len() + OVERHEAD;
                if fits {
                    write_datagram_header(w, Some(next.len()));
                    w.bytes(next);
                    written += 1;
                }
                queue.datagrams.pop_front();
                self.bytes = self.bytes.saturating_sub(cost);
            }
        }
        written
    }
}

/// Whether a path can carry what is pinned to it.
fn works(path: &Path<SentFrame>) -> bool {
    path.state == PathState::Open && path.can_send() && !path.is_suspect()
}

impl Connection {
    /// Has a stream sent by one path, or by any. Without a fallback what was written waits while
    /// the path does not work, until another pin is set.
    ///
    /// # Errors
    /// [`PinError`]; nothing changes then.
    pub fn set_stream_path(&mut self, id: StreamId, pin: Option<Pin>) -> Result<(), PinError> {
        if self.multipath.is_none() {
            return Err(PinError::NotNegotiated);
        }
        if let Some(pin) = pin {
            self.has_path(pin.path)?;
        }
        let lane = pin.map(|Pin { path, fallback }| Lane { path, fallback });
        self.streams.pin(id, lane).map_err(|e| match e {
            LaneError::Unknown => PinError::UnknownStream,
            LaneError::TooMany => PinError::TooMany,
        })
    }

    fn has_path(&self, id: PathId) -> Result<(), PinError> {
        let path = self.paths.get(id).filter(|p| !p.is_abandoned());
        path.map(|_| ()).ok_or(PinError::UnknownPath)
    }

    /// Queues a datagram (RFC 9221) that goes by one path. It is sent at most once; it is dropped
    /// when the path is gone or too small for it, unless the pin has a fallback.
    ///
    /// # Errors
    /// As [`Connection::send_datagram`]; a path that is not there takes none.
    pub fn send_datagram_on(&mut self, pin: Pin, data: Bytes) -> Result<(), DatagramError> {
        let room = self.paths.get(pin.path).filter(|p| !p.is_abandoned());
        let room = room.map(|p| self.datagram_room_of(p));
        let max = room.and_then(|room| self.datagrams.max_len(room));
        let max = max.ok_or(DatagramError::Unsupported)?;
        let most = self.config.datagram_send_buffer;
        let m = self.multipath.as_deref_mut();
        let pinned = &mut m.ok_or(DatagramError::Unsupported)?.pinned;
        let cost = data.len() + OVERHEAD;
        // The frame has a length, always.
        let max = max.saturating_sub(2);
        if data.len() > max {
            return Err(DatagramError::TooLarge(max));
        }
        if pinned.bytes + cost > most {
            return Err(DatagramError::Full);
        }
        let queue = pinned.queue(pin).ok_or(DatagramError::Full)?;
        queue.datagrams.push_back(data);
        pinned.bytes += cost;
        Ok(())
    }

    /// Whether something waits, or may wait, for a path of its own.
    #[inline]
    pub(super) fn has_pins(&self) -> bool {
        self.streams.has_lanes()
            || self
                .multipath
                .as_deref()
                .is_some_and(|m| !m.pinned.is_empty())
    }

    /// Whether something waits that the path in hand alone serves.
    pub(in super::super) fn pinned_wait(&self) -> bool {
        let id = self.paths.current().id;
        let datagrams = |m: &Multipath| m.pinned.has_for(id);
        self.streams.has_data() || self.multipath.as_deref().is_some_and(datagrams)
    }

    /// Whether datagrams wait for paths of their own.
    #[inline]
    pub(in super::super) fn pinned_datagrams_wait(&self) -> bool {
        self.multipath
            .as_deref()
            .is_some_and(|m| !m.pinned.is_empty())
    }

    /// The next train of something that is pinned. `others` wait for a path too and have their turn
    /// every other time.
    pub(super) fn poll_pinned(
        &mut self,
        now: Timestamp,
        buf: &mut [u8],
        others: bool,
    ) -> Option<Transmit> {
        self.release_pinned();
        let m = self.multipath.as_deref_mut()?;
        if std::mem::take(&mut m.pinned.turn_over) && others {
            return None;
        }
        let mut after = None;
        loop {
            let pin = self.next_pin(after)?;
            after = Some(pin.path);
            let Some(id) = self.select_pinned(now, pin) else {
                continue;
            };
            if !self.paths.select(id) {
                continue;
            }
            self.streams.aim(Aim::Only(id));
            self.load = Load::Pinned;
            let transmit = self.poll_one_of_paths(now, buf);
            self.load = Load::All;
            self.streams.aim(Aim::Every);
            if transmit.is_some() {
                if let Some(m) = self.multipath.as_deref_mut() {
                    m.pinned.turn_over = true;
                }
                return transmit;
            }
        }
    }

    /// The next path behind `after` that something waits for.
    fn next_pin(&mut self, after: Option<PathId>) -> Option<Pin> {
        let paths = &self.paths;
        let lane = self
            .streams
            .next_lane(after, |id| paths.get(id).is_some_and(works));
        let stream = lane.map(|Lane { path, fallback }| Pin { path, fallback });
        let datagram = self.multipath.as_deref().and_then(|m| m.pinned.next(after));
        let pins = stream.into_iter().chain(datagram);
        pins.min_by_key(|pin| pin.path)
    }

    /// That path, if it may carry a train now; when it may is noted.
    fn select_pinned(&mut self, now: Timestamp, pin: Pin) -> Option<PathId> {
        match self.decide(now, Some(pin))? {
            Decision::Send(id) if id == pin.path => Some(id),
            _ => None,
        }
    }

    /// Datagrams whose path does not work go by any, where their pin admits it; those whose path is
    /// gone are dropped otherwise.
    fn release_pinned(&mut self) {
        let Self {
            multipath, paths, ..
        } = self;
        let Some(m) = multipath.as_deref_mut().filter(|m| !m.pinned.is_empty()) else {
            return;
        };
        let silent = |pin: Pin| !paths.get(pin.path).is_some_and(works);
        let free = m.pinned.take(|pin| pin.fallback && silent(pin));
        m.pinned.take(|pin| {
            let path = paths.get(pin.path);
            path.is_none_or(|p| p.is_abandoned())
        });
        for data in free {
            // What no longer fits is as good as lost.
            let _ = self.send_datagram(data);
        }
    }

    /// Writes the datagrams that wait for the path in hand.
    pub(in super::super) fn write_pinned(&mut self, w: &mut Writer<'_>) {
        let room = self.datagram_room();
        let id = self.paths.current().id;
        let Some(m) = self.multipath.as_deref_mut() else {
            return;
        };
        let written = m.pinned.write(id, w, room);
        if written > 0 {
            self.datagrams.note_sent(written);
            self.scratch.push(SentFrame::Unreliable);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cap on paths that datagrams wait for.
    #[test]
    fn paths_that_datagrams_wait_for_are_capped() {
        let mut pinned = Pinned::default();
        for n in 0..10 * limits::PINNED_PATHS {
            let pin = Pin {
                path: PathId(n as u32),
                fallback: false,
            };
            let queue = pinned.queue(pin);
            assert_eq!(queue.is_some(), n < limits::PINNED_PATHS, "{n}");
            if let Some(queue) = queue {
                queue.datagrams.push_back(Bytes::from_static(b"x"));
                pinned.bytes += 1 + OVERHEAD;
            }
        }
        assert_eq!(pinned.take(|_| true).len(), limits::PINNED_PATHS);
        assert!(pinned.is_empty());
    }
}
