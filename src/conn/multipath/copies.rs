//! Frames that go out on another path too: newly sealed packets of that path's own packet number
//! space, never a packet twice.
//!
//! What is to be repeated waits here as batches, one for each packet that is repeated and each path
//! that it goes to, and leaves as that path's window and pacer admit. A packet of copies is marked
//! as spare: the first answers for the frames, so that the copy's loss repeats nothing. Where a
//! batch takes the place of the first packet (`reinjection`) it is the other way round. What policy
//! asks for is captured as packets are built (`duplication`).

use super::super::Connection;
use super::super::datagrams::write_datagram;
use super::super::space::SentFrame;
use super::super::train::{Admission, MIN_PACKET, Train};
use super::queued;
use super::reinjection::Reinjection;
use super::select::view;
use crate::base::{Timestamp, Transmit, limits};
use crate::crypto::TAG_LEN;
use crate::path::duplicate::Duplicator;
use crate::path::reinject::TargetSelector;
use crate::path::schedule::{PathIds, PathView};
use crate::path::{PathId, PathState};
use crate::wire::StreamId;
use crate::wire::Writer;
use std::collections::VecDeque;

/// What copies add to a connection's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyStats {
    /// Packets of copies that policy asked for.
    pub duplicated_packets: u64,
    /// Bytes of them, headers included: what the budget bounds.
    pub duplicated_bytes: u64,
    /// Copies that the budget, a full queue or a small path prevented.
    pub duplicates_refused: u64,
    /// Packets of copies that the redundant scheduler asked for.
    pub redundant_packets: u64,
    /// Bytes of them.
    pub redundant_bytes: u64,
    /// Packets whose frames were sent again on another path before they counted as lost there, or
    /// at once when they did.
    pub reinjected_packets: u64,
    /// Bytes of the packets that this made.
    pub reinjected_bytes: u64,
    /// Packets that were not sent again for want of room in a path's queue.
    pub reinjections_refused: u64,
}

/// Why something is sent on another path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Policy: paid from the budget, of which so many bytes are promised.
    Duplicate(u64),
    /// The scheduler sends everything on several paths.
    Redundant,
    /// A deadline: a copy, whose first answers for the frames.
    Early,
    /// In place of that packet of that path, if it still answers for its frames.
    Instead(PathId, u64),
    /// It was lost on another path.
    Lost,
}

impl Why {
    /// Which batches may share a packet.
    const fn class(self) -> u8 {
        match self {
            Self::Duplicate(_) => 0,
            Self::Redundant => 1,
            Self::Early => 2,
            Self::Instead(..) | Self::Lost => 3,
        }
    }

    pub(super) const fn is_reinjection(self) -> bool {
        self.class() >= 2
    }
}

/// Something to repeat.
#[derive(Clone, Copy, Debug)]
pub(super) enum Item {
    /// What that record says, from where it was first written.
    Frame(SentFrame),
    /// A datagram: so many bytes of the batch's own.
    Datagram(usize),
    /// A frame as it was written: so many bytes of the batch's own.
    Verbatim(usize),
}

/// The frames of one packet that are repeated on one path.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) target: PathId,
    pub(super) why: Why,
    /// In order; the first is next.
    pub(super) items: VecDeque<Item>,
    /// What the items own, in order.
    pub(super) bytes: VecDeque<u8>,
    /// Paths on which the frames were before.
    pub(super) was_on: PathIds,
    /// How often they were reinjected, this time included.
    pub(super) times: u8,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Copies {
    queue: VecDeque<Batch>,
    /// Batches that were used, for their memory.
    used: Vec<Batch>,
    pub(super) duplicator: Option<Duplicator>,
    pub(super) reinjection: Option<Reinjection>,
    /// Streams that are copied, in order.
    pub(super) chosen: Vec<StreamId>,
    /// Datagrams that are copied, by their place in the queue.
    pub(super) chosen_datagrams: VecDeque<u64>,
    pub(super) stats: CopyStats,
    /// Refusals of the duplicator that are counted.
    pub(super) told_refused: u64,
}

/// What a packet of copies took.
#[derive(Default)]
struct Taken {
    class: Option<u8>,
    was_on: PathIds,
    times: u8,
    /// Packets that it takes the place of.
    instead: smallvec::SmallVec<[(PathId, u64); 4]>,
    batches: u64,
}

impl Copies {
    /// Whether something waits.
    pub(super) fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Packets that wait for a path.
    pub(super) fn packets_for(&self, path: PathId) -> usize {
        self.queue.iter().filter(|b| b.target == path).count()
    }

    /// Whether another batch may wait.
    pub(super) fn has_room(&self) -> bool {
        self.queue.len() < limits::COPIES
    }

    /// An empty batch, to be given to [`Copies::push`].
    pub(super) fn batch(&mut self, target: PathId, why: Why) -> Batch {
        let mut batch = self.used.pop().unwrap_or_else(|| Batch {
            target,
            why,
            items: VecDeque::new(),
            bytes: VecDeque::new(),
            was_on: PathIds::default(),
            times: 0,
        });
        (batch.target, batch.why, batch.times) = (target, why, 0);
        batch.was_on = PathIds::default();
        batch
    }

    pub(super) fn push(&mut self, batch: Batch) {
        if batch.items.is_empty() || !self.has_room() {
            self.refuse(&batch);
            return self.finish(batch);
        }
        self.queue.push_back(batch);
    }

    /// A batch has left, or is not needed any more.
    fn finish(&mut self, mut batch: Batch) {
        match (batch.why, &mut self.duplicator, &mut self.reinjection) {
            (Why::Duplicate(promised), Some(d), _) => d.release(promised),
            (why, _, Some(r)) if why.is_reinjection() => r.on_dequeued(batch.target),
            _ => {}
        }
        batch.items.clear();
        batch.bytes.clear();
        if self.used.len() < limits::PATHS {
            self.used.push(batch);
        }
    }

    /// Gives up what waits for a path that can't be used.
    fn drop_target(&mut self, id: PathId) {
        while let Some(at) = self.queue.iter().position(|b| b.target == id) {
            let Some(batch) = self.queue.remove(at) else {
                return;
            };
            self.refuse(&batch);
            self.finish(batch);
        }
    }

    /// Gives up what waits to be reinjected.
    pub(super) fn drop_reinjections(&mut self) {
        self.queue.retain(|b| !b.why.is_reinjection());
    }

    fn refuse(&mut self, batch: &Batch) {
        match batch.why {
            Why::Duplicate(_) | Why::Redundant => self.stats.duplicates_refused += 1,
            _ => self.stats.reinjections_refused += 1,
        }
    }

    /// Bytes that the next packet for `target` may have by the budget; `None` when none waits.
    fn next_size(&mut self, target: PathId, size: usize) -> Option<usize> {
        loop {
            let at = self.queue.iter().position(|b| b.target == target)?;
            let Why::Duplicate(promised) = self.queue.get(at).map(|b| b.why)? else {
                return Some(size);
            };
            let most = self.duplicator.as_ref().map_or(0, |d| d.affordable());
            if most >= promised {
                return Some(usize::try_from(most).unwrap_or(usize::MAX).min(size));
            }
            if let Some(batch) = self.queue.remove(at) {
                self.refuse(&batch);
                self.finish(batch);
            }
        }
    }

    /// A packet of copies left on `target` under that number.
    fn on_packet(&mut self, target: PathId, pn: u64, bytes: u64, taken: &Taken) {
        let s = &mut self.stats;
        match taken.class {
            Some(0) => {
                s.duplicated_packets += 1;
                s.duplicated_bytes += bytes;
                if let Some(d) = &mut self.duplicator {
                    d.on_copy(bytes);
                }
            }
            Some(1) => {
                s.redundant_packets += 1;
                s.redundant_bytes += bytes;
            }
            _ => {
                s.reinjected_packets += taken.batches;
                s.reinjected_bytes += bytes;
                if taken.class == Some(3)
                    && let Some(r) = &mut self.reinjection
                {
                    r.remember((target, pn), taken.was_on, taken.times);
                }
            }
        }
    }
}

impl Connection {
    /// What the configuration asks for, of a connection that may have several paths.
    pub(super) fn begin_copies(&mut self, selector: Option<Box<dyn TargetSelector>>) {
        let config = &self.config.multipath;
        let (duplication, reinjection) = (config.duplication, config.reinjection.clone());
        self.set_duplication(duplication);
        self.set_reinjection(reinjection, selector);
    }

    /// The open paths as a scheduler sees them, while the copies are apart.
    pub(super) fn path_views(&mut self, now: Timestamp, copies: &Copies) -> Vec<PathView> {
        let Some(m) = self.multipath.as_deref() else {
            return Vec::new();
        };
        let open = self.paths.iter_mut();
        let open = open.filter(|p| p.state == PathState::Open && p.can_send());
        let mut views: Vec<PathView> = open.map(|p| view(p, now)).collect();
        for view in &mut views {
            view.queue_delay = queued::delay(view, Some(copies), &m.pinned, &self.streams);
        }
        views
    }

    /// Whether copies wait to be sent.
    #[inline]
    pub(in super::super) fn copies_wait(&self) -> bool {
        let copies = self.multipath.as_deref().and_then(|m| m.copies.as_deref());
        copies.is_some_and(Copies::is_waiting)
    }

    /// Does something with what is to be repeated.
    pub(super) fn with_copies<T>(
        &mut self,
        act: impl FnOnce(&mut Self, &mut Copies) -> T,
    ) -> Option<T> {
        let mut copies = self.multipath.as_deref_mut()?.copies.take()?;
        let out = act(self, &mut copies);
        if let Some(m) = self.multipath.as_deref_mut() {
            m.copies = Some(copies);
        }
        Some(out)
    }

    /// The next train of copies, of whatever path.
    pub(super) fn poll_copies(&mut self, now: Timestamp, buf: &mut [u8]) -> Option<Transmit> {
        if !self.copies_wait() {
            return None;
        }
        let out = self.with_copies(|conn, copies| {
            let mut targets = PathIds::default();
            for batch in &copies.queue {
                targets.push(batch.target);
            }
            for id in targets.as_slice() {
                let usable = conn.paths.select(*id) && {
                    let path = conn.paths.current();
                    path.state == PathState::Open && path.can_send()
                };
                if !usable {
                    copies.drop_target(*id);
                    continue;
                }
                let before = conn.paths.current().bytes_in_flight;
                let transmit = conn.copy_train(now, buf, copies);
                if transmit.is_some() {
                    conn.note_train(now, before);
                    return transmit;
                }
            }
            None
        });
        out.flatten()
    }

    /// A train of copies for the path in hand.
    fn copy_train(
        &mut self,
        now: Timestamp,
        buf: &mut [u8],
        copies: &mut Copies,
    ) -> Option<Transmit> {
        let path = self.paths.current_mut();
        path.mark = path.ecn.mark();
        let size = self.datagram_size(buf.len());
        let mut train = Train::new(size);
        while !train.ended && train.count < limits::MAX_TRAIN_SEGMENTS {
            let (len, room) = (train.len, train.size);
            if train.count > 0 && len + room > limits::MAX_TRAIN_BYTES {
                break;
            }
            if room < MIN_PACKET || self.admit(now, len, room) != Admission::Full {
                break;
            }
            let n = match buf.get_mut(len..len + room) {
                Some(room) => self.copy_packet(now, room, copies),
                None => 0,
            };
            train.add(n);
            if train.size < size {
                break;
            }
        }
        (train.len > 0).then(|| self.transmit(train.len, train.size))
    }

    /// One packet of copies for the path in hand. Returns its length; 0 when there is none.
    fn copy_packet(&mut self, now: Timestamp, buf: &mut [u8], copies: &mut Copies) -> usize {
        let id = self.paths.current().id;
        let Some(size) = copies.next_size(id, buf.len()) else {
            return 0;
        };
        let room = size - TAG_LEN;
        let mut w = Writer::new(&mut buf[..room]);
        let dcid = self.paths.current().remote_cids.active();
        let Some(head) = self.begin_one_rtt(now, &mut w, dcid) else {
            return 0;
        };
        let header_len = w.position();
        self.scratch.clear();
        let taken = self.write_batches(&mut w, copies);
        if w.position() == header_len {
            return 0;
        }
        let padded = w.position() < head.least();
        if padded {
            w.zeros(head.least() - w.position());
        }
        let len = w.position() + TAG_LEN;
        let pn = head.packet_number();
        let len = self.finish_one_rtt(now, &mut buf[..len], head, padded, false, &[]);
        if len == 0 {
            return 0;
        }
        if taken.class != Some(3) {
            self.paths.current_mut().sent.set_spare(pn);
        }
        for (path, pn) in &taken.instead {
            if let Some(path) = self.paths.get_mut(*path) {
                path.sent.set_spare(*pn);
            }
        }
        copies.on_packet(id, pn, len as u64, &taken);
        let counters = &mut self.paths.current_mut().counters;
        if taken.class.is_some_and(|class| class >= 2) {
            counters.packets_reinjected += 1;
            counters.bytes_reinjected += len as u64;
        } else {
            counters.packets_duplicated += 1;
            counters.bytes_duplicated += len as u64;
        }
        len
    }

    /// Writes batches for the path in hand, as many as fit and may share a packet.
    fn write_batches(&mut self, w: &mut Writer<'_>, copies: &mut Copies) -> Taken {
        let id = self.paths.current().id;
        let mut taken = Taken::default();
        while w.remaining() > 0
            && let Some(at) = copies.queue.iter().position(|b| b.target == id)
            && let Some(mut batch) = copies.queue.remove(at)
        {
            let class = batch.why.class();
            if taken.class.is_some_and(|c| c != class) {
                copies.queue.insert(at, batch);
                break;
            }
            let before = w.position();
            let first = self.scratch.is_empty();
            let done = self.write_batch(w, &mut batch);
            if w.position() > before {
                taken.class = Some(class);
                taken.times = taken.times.max(batch.times);
                for path in batch.was_on.as_slice() {
                    taken.was_on.push(*path);
                }
                taken.was_on.push(id);
            }
            if !done && w.position() == before && first {
                // Too large for a packet of its own.
                copies.refuse(&batch);
                copies.finish(batch);
                continue;
            }
            if !done {
                copies.queue.insert(at, batch);
                break;
            }
            if w.position() > before {
                taken.batches += 1;
                if let Why::Instead(path, pn) = batch.why {
                    taken.instead.push((path, pn));
                }
            }
            copies.finish(batch);
        }
        taken
    }

    /// Writes what fits of a batch, and notes its frames; true when nothing is left of it.
    fn write_batch(&mut self, w: &mut Writer<'_>, batch: &mut Batch) -> bool {
        // Where the first packet was lost meanwhile, what of it has not been sent again is.
        let lost = match batch.why {
            Why::Lost => true,
            Why::Instead(path, pn) => {
                let path = self.paths.get(path);
                !path.is_some_and(|p| p.sent.answers_for(pn))
            }
            _ => false,
        };
        let scratch = &mut self.scratch;
        while let Some(item) = batch.items.front_mut() {
            match *item {
                Item::Frame(SentFrame::Stream(frame)) => {
                    let mut sent = |f| scratch.push(SentFrame::Stream(f));
                    if let Some(left) = self.streams.write_again(w, frame, lost, &mut sent) {
                        *item = Item::Frame(SentFrame::Stream(left));
                        return false;
                    }
                }
                Item::Frame(SentFrame::Crypto { offset, len }) if !lost => {
                    let written = self.one_rtt_crypto.write_copy(w, offset, len);
                    if let Some((at, n)) = written {
                        scratch.push(SentFrame::Crypto { offset: at, len: n });
                        let (end, done) = (offset + u64::from(len), at + u64::from(n));
                        let len = end.saturating_sub(done) as u16;
                        if len > 0 {
                            *item = Item::Frame(SentFrame::Crypto { offset: done, len });
                            return false;
                        }
                    } else if self.one_rtt_crypto.is_open(offset, len) {
                        return false;
                    }
                }
                Item::Frame(_) => {}
                Item::Datagram(len) => {
                    let data = batch.bytes.make_contiguous();
                    if !write_datagram(w, data.get(..len).unwrap_or_default()) {
                        return false;
                    }
                    batch.bytes.drain(..len.min(batch.bytes.len()));
                    scratch.push(SentFrame::Unreliable);
                }
                Item::Verbatim(len) => {
                    if w.remaining() < len {
                        return false;
                    }
                    let data = batch.bytes.make_contiguous();
                    w.bytes(data.get(..len).unwrap_or_default());
                    batch.bytes.drain(..len.min(batch.bytes.len()));
                    scratch.push(SentFrame::Unreliable);
                }
            }
            batch.items.pop_front();
        }
        true
    }
}
