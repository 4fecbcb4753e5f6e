//! What is sent on several paths at once: what policy asks for (`crate::path::duplicate`), and all
//! of it where the scheduler is redundant.
//!
//! A packet that carries such frames is looked at before it is sealed; its copies wait as batches
//! (`copies`). Stream and CRYPTO data is named by its offsets and read again from where it is kept;
//! datagrams, which are not kept, and frames without a record are taken from the packet.

use super::super::Connection;
use super::super::space::SentFrame;
use super::copies::{Copies, CopyStats, Item, Why};
use crate::base::{Timestamp, limits};
use crate::path::duplicate::{Duplicable, DuplicationConfig, Duplicator};
use crate::path::schedule::{PathIds, SchedulerContext};
use crate::stream::{self, DatagramError};
use crate::wire::frame::{self, Frame};
use crate::wire::{Reader, StreamId};
use bytes::Bytes;

/// Bytes of a packet of copies beside its frames, at most.
const PACKET_OVERHEAD: u64 = 64;
/// Bytes of a frame's header, at most.
const FRAME_OVERHEAD: u64 = 24;

/// What of a packet is copied.
#[derive(Default)]
struct Captured {
    /// The class of the first of it.
    what: Option<Duplicable>,
    items: Vec<Item>,
    /// What the items own.
    bytes: Vec<u8>,
    /// Bytes that a packet of it has at most.
    size: u64,
}

impl Captured {
    fn add(&mut self, what: Duplicable, item: Item, bytes: u64) {
        self.what.get_or_insert(what);
        self.items.push(item);
        self.size += bytes + FRAME_OVERHEAD;
    }
}

impl Connection {
    /// Sends some frames on several paths from now on, or none. False when there are no several
    /// paths.
    pub fn set_duplication(&mut self, config: Option<DuplicationConfig>) -> bool {
        let Some(m) = self.multipath.as_deref_mut() else {
            return false;
        };
        if config.is_some() || m.copies.is_some() {
            m.copies.get_or_insert_default().duplicator = config.map(Duplicator::new);
        }
        true
    }

    /// Has the data of a stream sent on several paths, or no more, where the configuration copies
    /// what is chosen. False when too many streams are chosen, or there are no several paths.
    pub fn duplicate_stream(&mut self, id: StreamId, on: bool) -> bool {
        let copies = self
            .multipath
            .as_deref_mut()
            .and_then(|m| m.copies.as_mut());
        let Some(copies) = copies else {
            return false;
        };
        match (copies.chosen.binary_search(&id), on) {
            (Ok(at), false) => drop(copies.chosen.remove(at)),
            (Err(_), true) => {
                if copies.chosen.len() >= limits::CHOSEN {
                    copies.chosen.retain(|id| self.streams.is_sending(*id));
                }
                let at = copies.chosen.binary_search(&id);
                if copies.chosen.len() >= limits::CHOSEN {
                    return false;
                }
                copies.chosen.insert(at.unwrap_or_else(|at| at), id);
            }
            _ => {}
        }
        true
    }

    /// Queues a datagram that is sent on several paths, where the configuration copies what is
    /// chosen.
    ///
    /// # Errors
    /// As [`Connection::send_datagram`].
    pub fn send_duplicated_datagram(&mut self, data: Bytes) -> Result<(), DatagramError> {
        let place = self.datagrams.next_place();
        self.send_datagram(data)?;
        let copies = self
            .multipath
            .as_deref_mut()
            .and_then(|m| m.copies.as_mut());
        if let Some(copies) = copies.filter(|c| c.chosen_datagrams.len() < limits::CHOSEN) {
            copies.chosen_datagrams.push_back(place);
        }
        Ok(())
    }

    /// What copies have added to this connection's packets.
    pub fn copy_stats(&self) -> CopyStats {
        let copies = self.multipath.as_deref().and_then(|m| m.copies.as_deref());
        copies.map_or_else(CopyStats::default, |c| c.stats)
    }

    /// Where the train being built goes besides the path in hand.
    fn redundant_targets(&self) -> PathIds {
        let m = self.multipath.as_deref();
        m.map_or_else(PathIds::default, |m| m.choice.copies)
    }

    /// Whether packets are looked at for what is to be copied.
    #[inline]
    pub(in super::super) fn wants_copies(&self) -> bool {
        self.multipath.is_some() && self.has_duplication()
    }

    fn has_duplication(&self) -> bool {
        let copies = self.multipath.as_deref().and_then(|m| m.copies.as_deref());
        let policy = copies.is_some_and(|c| c.duplicator.is_some());
        !self.paths.is_single() && (policy || !self.redundant_targets().as_slice().is_empty())
    }

    /// Looks at a packet of the path in hand that will have `len` bytes: its number, its frames,
    /// which are in `scratch` too.
    pub(in super::super) fn capture(
        &mut self,
        now: Timestamp,
        pn: u64,
        payload: &[u8],
        len: usize,
    ) {
        let redundant = self.redundant_targets();
        if let Some(m) = self.multipath.as_deref_mut() {
            m.copies.get_or_insert_default();
        }
        self.with_copies(|conn, copies| {
            if !redundant.as_slice().is_empty() {
                let captured = conn.gather(copies, payload, &|_| true);
                conn.queue_copies(copies, pn, &captured, Why::Redundant, &redundant);
                return;
            }
            let Some(mut duplicator) = copies.duplicator.take() else {
                return;
            };
            duplicator.on_original(len as u64);
            let captured = conn.gather(copies, payload, &|what| duplicator.wants(what));
            let mut targets = PathIds::default();
            let size = captured.size + PACKET_OVERHEAD;
            if let Some(what) = captured.what {
                let views = conn.path_views(now, copies);
                let ctx = SchedulerContext::new(now, &views);
                let hand = conn.paths.current().id;
                targets = duplicator.copies(&ctx, what, hand, size);
                copies.stats.duplicates_refused += duplicator.refused() - copies.told_refused;
                copies.told_refused = duplicator.refused();
            }
            copies.duplicator = Some(duplicator);
            conn.queue_copies(copies, pn, &captured, Why::Duplicate(size), &targets);
        });
    }

    fn queue_copies(
        &mut self,
        copies: &mut Copies,
        pn: u64,
        captured: &Captured,
        why: Why,
        targets: &PathIds,
    ) {
        if captured.items.is_empty() || targets.as_slice().is_empty() {
            return;
        }
        let id = self.paths.current().id;
        for target in targets.as_slice() {
            let mut batch = copies.batch(*target, why);
            batch.items.extend(&captured.items);
            batch.bytes.extend(&captured.bytes);
            copies.push(batch);
        }
        if let Some(r) = &mut copies.reinjection {
            r.remember((id, pn), *targets, 0);
        }
    }

    /// The frames of a packet that are wanted.
    fn gather(
        &self,
        copies: &mut Copies,
        payload: &[u8],
        wants: &dyn Fn(Duplicable) -> bool,
    ) -> Captured {
        let mut out = Captured::default();
        let datagrams =
            wants(Duplicable::Datagram { chosen: false }) || !copies.chosen_datagrams.is_empty();
        if datagrams || wants(Duplicable::Other) {
            self.gather_written(copies, payload, wants, &mut out);
        }
        for record in &self.scratch {
            let (what, bytes) = match *record {
                SentFrame::Crypto { len, .. } => (Duplicable::Crypto, u64::from(len)),
                SentFrame::Stream(frame) => match frame {
                    stream::SentFrame::Stream { id, len, .. } => {
                        let chosen = copies.chosen.binary_search(&id).is_ok();
                        (Duplicable::Stream { chosen }, u64::from(len))
                    }
                    stream::SentFrame::ResetStream(_) | stream::SentFrame::StopSending(_) => {
                        (Duplicable::Reset, frame::RESET_STREAM_SIZE as u64)
                    }
                    _ => (Duplicable::Other, frame::RESET_STREAM_SIZE as u64),
                },
                _ => continue,
            };
            if wants(what) {
                out.add(what, Item::Frame(*record), bytes);
            }
        }
        out
    }

    /// Those that are taken as they are written.
    fn gather_written(
        &self,
        copies: &mut Copies,
        payload: &[u8],
        wants: &dyn Fn(Duplicable) -> bool,
        out: &mut Captured,
    ) {
        let mut datagrams = Vec::new();
        let mut r = Reader::new(payload);
        loop {
            let start = r.position();
            // Stream data comes last, and may not be in the packet yet.
            match Frame::parse(&mut r) {
                Err(_) | Ok(Frame::Stream(_)) => break,
                Ok(Frame::Datagram(data)) => datagrams.push(data),
                Ok(
                    Frame::NewToken(_)
                    | Frame::NewConnectionId(_)
                    | Frame::RetireConnectionId(_)
                    | Frame::HandshakeDone
                    | Frame::Path(_)
                    | Frame::Address(_),
                ) if wants(Duplicable::Other) => {
                    let written = payload.get(start..r.position()).unwrap_or_default();
                    out.bytes.extend_from_slice(written);
                    let len = written.len();
                    out.add(Duplicable::Other, Item::Verbatim(len), len as u64);
                }
                Ok(_) => {}
            }
        }
        let first = self.datagrams.passed() - datagrams.len() as u64;
        for (place, data) in (first..).zip(datagrams) {
            while copies.chosen_datagrams.front().is_some_and(|p| *p < place) {
                copies.chosen_datagrams.pop_front();
            }
            let chosen = copies.chosen_datagrams.front() == Some(&place);
            let what = Duplicable::Datagram { chosen };
            if wants(what) {
                out.bytes.extend_from_slice(data);
                out.add(what, Item::Datagram(data.len()), data.len() as u64);
            }
        }
    }
}
