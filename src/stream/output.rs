//! Frames to send: STREAM frames that fill a packet, control frames, and what becomes of each.
//!
//! Every frame written is reported as a [`SentFrame`], which the caller hands back once the packet
//! is acknowledged or lost. What a lost frame said is said again with its newest value, where it
//! still matters; a record of a stream that is gone means nothing.

use super::event::bit;
use super::list::{Links, List};
use super::schedule::Need;
use super::set::{Slot, Streams};
use crate::wire::frame;
use crate::wire::{Dir, StreamId, Writer};

/// A record of one frame that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SentFrame {
    /// STREAM: `len` bytes at `offset`, with the end when `fin`.
    Stream {
        /// The stream.
        id: StreamId,
        /// Where its data starts.
        offset: u64,
        /// Bytes of data.
        len: u32,
        /// Whether it carried the end.
        fin: bool,
    },
    /// RESET_STREAM.
    ResetStream(StreamId),
    /// STOP_SENDING.
    StopSending(StreamId),
    /// MAX_DATA.
    MaxData,
    /// MAX_STREAM_DATA.
    MaxStreamData(StreamId),
    /// MAX_STREAMS.
    MaxStreams(Dir),
    /// DATA_BLOCKED.
    DataBlocked,
    /// STREAM_DATA_BLOCKED.
    StreamDataBlocked(StreamId),
    /// STREAMS_BLOCKED.
    StreamsBlocked(Dir),
}

const _: () = assert!(size_of::<SentFrame>() <= 24);

/// Control frames of one stream that are to be sent, as bits.
pub(super) mod stream_bit {
    pub const RESET: u8 = 1;
    pub const STOP: u8 = 2;
    pub const MAX_DATA: u8 = 4;
    pub const BLOCKED: u8 = 8;
}

/// Control frames of the connection that are to be sent, as bits; those with a direction are two
/// neighbours.
mod own_bit {
    pub const MAX_DATA: u8 = 1;
    pub const DATA_BLOCKED: u8 = 2;
    pub const MAX_STREAMS: u8 = 4;
    pub const STREAMS_BLOCKED: u8 = 16;
}

/// The control frames that are to be sent.
#[derive(Debug)]
pub(super) struct Control {
    own: u8,
    links: Links,
    list: List,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            own: 0,
            links: Links::default(),
            list: List::EMPTY,
        }
    }
}

impl Control {
    /// Gives back memory; no stream may exist.
    pub(super) fn rest(&mut self) {
        if self.list.is_empty() {
            self.links.rest();
        }
    }

    /// Brings its links near; a hint.
    #[inline]
    pub(super) fn warm(&self) {
        self.links.warm();
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.own == 0 && self.list.is_empty()
    }

    /// Adds a frame to `pending`, those of `slot`; false when it was there.
    fn raise(&mut self, slot: u32, pending: &mut u8, frame: u8) -> bool {
        if *pending & frame != 0 {
            return false;
        }
        if *pending == 0 {
            self.list.push_back(&mut self.links, slot);
        }
        *pending |= frame;
        true
    }

    fn clear(&mut self, slot: u32, pending: &mut u8, frames: u8) {
        if *pending != 0 {
            *pending &= !frames;
            if *pending == 0 {
                self.list.unlink(&mut self.links, slot);
            }
        }
    }

    pub(super) fn raise_stream_blocked(&mut self, slot: u32, pending: &mut u8) {
        self.raise(slot, pending, stream_bit::BLOCKED);
    }

    pub(super) fn raise_stop_sending(&mut self, slot: u32, pending: &mut u8) {
        self.clear(slot, pending, stream_bit::MAX_DATA);
        self.raise(slot, pending, stream_bit::STOP);
    }

    /// False when MAX_STREAM_DATA was queued already.
    pub(super) fn raise_max_stream_data(&mut self, slot: u32, pending: &mut u8) -> bool {
        self.raise(slot, pending, stream_bit::MAX_DATA)
    }

    pub(super) fn clear_max_stream_data(&mut self, slot: u32, pending: &mut u8) {
        self.clear(slot, pending, stream_bit::MAX_DATA);
    }

    pub(super) fn clear_stream_blocked(&mut self, slot: u32, pending: &mut u8) {
        self.clear(slot, pending, stream_bit::BLOCKED);
    }

    /// Drops the frames of a sending half that is done.
    pub(super) fn clear_send(&mut self, slot: u32, pending: &mut u8) {
        self.clear(slot, pending, stream_bit::RESET | stream_bit::BLOCKED);
    }

    /// Drops the frames of a receiving half that is done.
    pub(super) fn clear_recv(&mut self, slot: u32, pending: &mut u8) {
        self.clear(slot, pending, stream_bit::STOP | stream_bit::MAX_DATA);
    }

    pub(super) fn clear_all(&mut self, slot: u32, pending: &mut u8) {
        self.clear(slot, pending, u8::MAX);
    }

    /// False when MAX_DATA was queued already.
    #[inline]
    pub(super) fn raise_max_data(&mut self) -> bool {
        let new = self.own & own_bit::MAX_DATA == 0;
        self.own |= own_bit::MAX_DATA;
        new
    }

    pub(super) fn clear_data_blocked(&mut self) {
        self.own &= !own_bit::DATA_BLOCKED;
    }

    pub(super) fn raise_max_streams(&mut self, dir: Dir) {
        self.own |= own_bit::MAX_STREAMS << dir as u8;
    }

    pub(super) fn raise_streams_blocked(&mut self, dir: Dir) {
        self.own |= own_bit::STREAMS_BLOCKED << dir as u8;
    }

    pub(super) fn clear_streams_blocked(&mut self, dir: Dir) {
        self.own &= !(own_bit::STREAMS_BLOCKED << dir as u8);
    }

    /// Takes the connection's `frame` out when it is queued and `size` bytes fit.
    fn take_own(&mut self, frame: u8, w: &Writer<'_>, size: usize) -> bool {
        let take = self.own & frame != 0 && w.remaining() >= size;
        if take {
            self.own &= !frame;
        }
        take
    }
}

impl Streams {
    /// Whether stream data or control frames are to be sent now. O(1).
    #[inline]
    pub fn wants_to_send(&self) -> bool {
        self.has_control() || self.has_data()
    }

    /// Whether control frames are to be sent. O(1).
    #[inline]
    pub fn has_control(&self) -> bool {
        !self.control.is_empty()
    }

    /// Whether STREAM frames can be sent now, within flow control. O(1).
    #[inline]
    pub fn has_data(&self) -> bool {
        self.schedule.has_work(self.flow.credit() > 0)
    }

    /// Appends control frames, as many as fit, and reports each to `sent`.
    pub fn write_control(&mut self, w: &mut Writer<'_>, sent: &mut impl FnMut(SentFrame)) {
        if self.control.own != 0 {
            self.write_own(w, sent);
        }
        while let Some(slot) = self.control.list.front() {
            if w.remaining() < frame::RESET_STREAM_SIZE {
                return;
            }
            let Some(s) = self.slots.get_mut(slot as usize) else {
                return;
            };
            let first = s.control & s.control.wrapping_neg();
            self.control.clear(slot, &mut s.control, first);
            if let Some(record) = write_one(s, first, w) {
                sent(record);
            }
        }
    }

    fn write_own(&mut self, w: &mut Writer<'_>, sent: &mut impl FnMut(SentFrame)) {
        if self
            .control
            .take_own(own_bit::MAX_DATA, w, frame::MAX_DATA_SIZE)
        {
            frame::write_max_data(w, self.flow.window.raise(self.flow.consumed));
            sent(SentFrame::MaxData);
        }
        let size = frame::DATA_BLOCKED_SIZE;
        if self.control.take_own(own_bit::DATA_BLOCKED, w, size) {
            frame::write_data_blocked(w, self.flow.peer_limit);
            sent(SentFrame::DataBlocked);
        }
        for dir in [Dir::Bi, Dir::Uni] {
            let size = frame::MAX_STREAMS_SIZE;
            if let Some(ids) = self.peer.get_mut(dir as usize)
                && self
                    .control
                    .take_own(own_bit::MAX_STREAMS << dir as u8, w, size)
            {
                frame::write_max_streams(w, dir, ids.raise());
                sent(SentFrame::MaxStreams(dir));
            }
            let size = frame::STREAMS_BLOCKED_SIZE;
            if let Some(ids) = self.local.get(dir as usize)
                && self
                    .control
                    .take_own(own_bit::STREAMS_BLOCKED << dir as u8, w, size)
            {
                frame::write_streams_blocked(w, dir, ids.limit);
                sent(SentFrame::StreamsBlocked(dir));
            }
        }
    }

    /// Appends STREAM frames until the packet is full or nothing is left, and reports each to
    /// `sent`. The last frame has no length when it fills the packet, so nothing may be appended
    /// after a packet that this filled.
    #[inline]
    pub fn write_data(&mut self, w: &mut Writer<'_>, sent: &mut impl FnMut(SentFrame)) {
        while w.remaining() > 0 {
            let credit = self.flow.credit();
            let Some(slot) = self.schedule.next(credit > 0) else {
                break;
            };
            let Some(s) = self.slots.get_mut(slot as usize) else {
                break;
            };
            let Some(send) = s.send.as_mut() else {
                self.schedule.set(slot, Need::Idle);
                continue;
            };
            let Some(emitted) = send.emit(w, s.id, credit) else {
                break;
            };
            sent(emitted.frame);
            self.flow.sent += emitted.fresh;
            let again = u64::from(emitted.bytes).saturating_sub(emitted.fresh);
            self.stats.tx_bytes_again += again;
            self.schedule.charge(slot, emitted.bytes);
            self.update_send(slot);
        }
        self.note_data_blocked();
    }

    /// Queues DATA_BLOCKED, once for each limit, while streams wait for connection credit.
    #[inline]
    pub(super) fn note_data_blocked(&mut self) {
        if self.flow.credit() == 0 && self.schedule.needs_credit() {
            let mark = self.flow.peer_limit.saturating_add(1);
            if self.flow.blocked_at != mark {
                self.flow.blocked_at = mark;
                self.control.own |= own_bit::DATA_BLOCKED;
            }
        }
    }

    /// Resets the sending half; false when there is nothing to reset.
    pub(super) fn reset_slot(&mut self, slot: u32, code: u64) -> bool {
        let Some(s) = self.slots.get_mut(slot as usize) else {
            return false;
        };
        let reset = s.send.as_mut().is_some_and(|send| send.reset(code));
        if reset {
            self.schedule.set(slot, Need::Idle);
            self.control.clear_send(slot, &mut s.control);
            self.control.raise(slot, &mut s.control, stream_bit::RESET);
            self.events.clear(slot, &mut s.events, bit::WRITABLE);
        }
        reset
    }

    /// Notes that a frame was acknowledged.
    #[inline]
    pub fn on_acked(&mut self, frame: SentFrame) {
        match frame {
            SentFrame::Stream {
                id,
                offset,
                len,
                fin,
            } => self.on_stream_acked(id, offset, len, fin),
            SentFrame::ResetStream(id) => {
                let Some(slot) = self.find(id) else {
                    return;
                };
                let Some(send) = self.send(slot) else {
                    return;
                };
                send.on_reset_acked();
                if send.state().is_terminal() {
                    self.end_send(slot);
                }
            }
            // These state a limit or a wish; that the peer has it changes nothing here.
            SentFrame::StopSending(_)
            | SentFrame::MaxData
            | SentFrame::MaxStreamData(_)
            | SentFrame::MaxStreams(_)
            | SentFrame::DataBlocked
            | SentFrame::StreamDataBlocked(_)
            | SentFrame::StreamsBlocked(_) => {}
        }
    }

    #[inline]
    fn on_stream_acked(&mut self, id: StreamId, offset: u64, len: u32, fin: bool) {
        let Some(slot) = self.find(id) else {
            return;
        };
        let room = self.config.send_buffer;
        let Some(s) = self.slots.get_mut(slot as usize) else {
            return;
        };
        let Some(send) = s.send.as_mut() else {
            return;
        };
        let before = send.need();
        if send.on_acked(offset, len, fin) {
            self.events.raise(slot, &mut s.events, bit::FINISHED);
            self.end_send(slot);
            return;
        }
        if send.take_writable(room) {
            self.events.raise(slot, &mut s.events, bit::WRITABLE);
        }
        let need = send.need();
        if need != before {
            // A late acknowledgment of what was to be sent again.
            self.schedule.set(slot, need);
        }
    }

    /// Notes that a frame was lost, or that its content is to be sent once more for another
    /// reason, such as a probe.
    pub fn on_lost(&mut self, frame: SentFrame) {
        match frame {
            SentFrame::Stream {
                id,
                offset,
                len,
                fin,
            } => {
                if let Some(slot) = self.find(id)
                    && let Some(send) = self.send(slot)
                {
                    send.on_lost(offset, len, fin);
                    self.update_send(slot);
                }
            }
            SentFrame::ResetStream(id) => {
                let still = |s: &Slot| s.send.as_ref()?.reset_frame().map(|_| ());
                self.repeat(id, stream_bit::RESET, still);
            }
            SentFrame::StopSending(id) => {
                let still = |s: &Slot| s.recv.as_ref()?.stop_frame().map(|_| ());
                self.repeat(id, stream_bit::STOP, still);
            }
            SentFrame::MaxStreamData(id) => {
                let still = |s: &Slot| s.recv.as_ref().filter(|r| r.needs_credit()).map(|_| ());
                self.repeat(id, stream_bit::MAX_DATA, still);
            }
            SentFrame::StreamDataBlocked(id) => {
                let still = |s: &Slot| s.send.as_ref()?.blocked().map(|_| ());
                self.repeat(id, stream_bit::BLOCKED, still);
            }
            SentFrame::MaxData => self.control.own |= own_bit::MAX_DATA,
            SentFrame::MaxStreams(dir) => self.control.raise_max_streams(dir),
            SentFrame::DataBlocked => {
                if self.flow.credit() == 0 && self.schedule.needs_credit() {
                    self.control.own |= own_bit::DATA_BLOCKED;
                }
            }
            SentFrame::StreamsBlocked(dir) => {
                if self.local.get(dir as usize).is_some_and(|ids| ids.blocked) {
                    self.control.raise_streams_blocked(dir);
                }
            }
        }
    }

    /// Queues a stream's control frame again if it `still` matters.
    fn repeat(&mut self, id: StreamId, frame: u8, still: impl Fn(&Slot) -> Option<()>) {
        if let Some(slot) = self.find(id)
            && let Some(s) = self.slots.get_mut(slot as usize)
            && still(s).is_some()
        {
            self.control.raise(slot, &mut s.control, frame);
        }
    }
}

/// Appends one control frame of a stream, if it still means anything.
pub(super) fn write_one(s: &mut Slot, which: u8, w: &mut Writer<'_>) -> Option<SentFrame> {
    let id = s.id;
    match which {
        stream_bit::RESET => {
            let (code, final_size) = s.send.as_ref()?.reset_frame()?;
            frame::write_reset_stream(w, id.0, code, final_size);
            Some(SentFrame::ResetStream(id))
        }
        stream_bit::STOP => {
            let code = s.recv.as_ref()?.stop_frame()?;
            frame::write_stop_sending(w, id.0, code);
            Some(SentFrame::StopSending(id))
        }
        stream_bit::MAX_DATA => {
            let recv = s.recv.as_mut().filter(|r| r.needs_credit())?;
            let max = recv.window.raise(recv.read_offset());
            frame::write_max_stream_data(w, id.0, max);
            Some(SentFrame::MaxStreamData(id))
        }
        _ => {
            let limit = s.send.as_ref()?.blocked()?;
            frame::write_stream_data_blocked(w, id.0, limit);
            Some(SentFrame::StreamDataBlocked(id))
        }
    }
}
