//! Frames received: STREAM, RESET_STREAM, STOP_SENDING and the flow control frames.
//!
//! Errors carry the code that the RFC gives the fault; the frame type is the caller's to add. A
//! frame about a stream that is done changes nothing.

use super::event::{StreamSink, Taken, bit};
use super::set::Streams;
use crate::base::Timestamp;
use crate::wire::frame::{ResetStream, Stream};
use crate::wire::{Dir, StreamId, TransportError};
use std::time::Duration;

/// What became of an offer to the sink.
enum Offered {
    /// Everything was taken, and there may be more.
    All,
    /// So many bytes were taken; the rest or the end waits.
    Part(usize),
    /// Nothing more of the stream is wanted or to come.
    Over,
}

impl Streams {
    /// It is `now`, and the longest smoothed round trip of a path in use is `rtt`: what windows
    /// grow by from here on. Said once before the frames of a train.
    #[inline]
    pub fn at(&mut self, now: Timestamp, rtt: Duration) {
        self.clock = (now, rtt);
    }

    /// Handles a STREAM frame (RFC 9000 §19.8).
    ///
    /// # Errors
    ///
    /// STREAM_STATE_ERROR, STREAM_LIMIT_ERROR, FLOW_CONTROL_ERROR, FINAL_SIZE_ERROR;
    /// PROTOCOL_VIOLATION for too many gaps.
    #[inline]
    pub fn on_stream(
        &mut self,
        frame: &Stream<'_>,
        sink: &mut dyn StreamSink,
    ) -> Result<(), TransportError> {
        let id = StreamId(frame.id);
        let Some(slot) = self.receiving(id)? else {
            return Ok(());
        };
        let Some(recv) = self.recv(slot) else {
            return Ok(());
        };
        let new = recv.on_stream(frame.offset, frame.data.len() as u64, frame.fin)?;
        let (wanted, read) = (recv.is_wanted(), recv.read_offset());
        let backlog = recv.readable();
        let at_end = recv.ends_at(read);
        self.flow.on_received(new)?;
        if frame.fin {
            self.drop_credit(slot);
        }
        if !wanted {
            self.drop_unwanted(slot);
            return Ok(());
        }
        if frame.data.is_empty() && !frame.fin {
            self.glitches += 1;
        }
        let seen = usize::try_from(read.saturating_sub(frame.offset)).unwrap_or(usize::MAX);
        let data = frame.data.get(seen..).unwrap_or_default();
        if backlog == 0 && frame.offset <= read && (at_end || !data.is_empty()) {
            return self.deliver(slot, id, data, sink);
        }
        if !data.is_empty() {
            self.keep(slot, frame.offset.max(read), data, backlog)?;
        }
        Ok(())
    }

    /// The end is known: credit that was to be announced is of no use (RFC 9000 §3.2).
    fn drop_credit(&mut self, slot: u32) {
        if let Some(s) = self.slots.get_mut(slot as usize) {
            self.control.clear_max_stream_data(slot, &mut s.control);
        }
    }

    fn drop_unwanted(&mut self, slot: u32) {
        let Some(recv) = self.recv(slot) else {
            return;
        };
        let dropped = recv.discard();
        let done = recv.state().is_terminal();
        self.on_consumed(dropped);
        if done {
            self.end_recv(slot);
        }
    }

    /// Keeps bytes that cannot be delivered yet; `backlog` bytes were readable before.
    fn keep(
        &mut self,
        slot: u32,
        offset: u64,
        data: &[u8],
        backlog: u64,
    ) -> Result<(), TransportError> {
        let Some(s) = self.slots.get_mut(slot as usize) else {
            return Ok(());
        };
        let Some(recv) = s.recv.as_mut() else {
            return Ok(());
        };
        recv.keep(offset, data)?;
        recv.note_complete();
        if recv.readable() > backlog {
            self.events.raise(slot, &mut s.events, bit::READABLE);
        }
        Ok(())
    }

    /// Offers `data`, which is next in order, and then what waited behind it.
    fn deliver(
        &mut self,
        slot: u32,
        id: StreamId,
        data: &[u8],
        sink: &mut dyn StreamSink,
    ) -> Result<(), TransportError> {
        match self.offer(slot, id, data, sink) {
            Offered::All => {}
            Offered::Over => return Ok(()),
            Offered::Part(n) => {
                let rest = data.get(n..).unwrap_or_default();
                let Some(s) = self.slots.get_mut(slot as usize) else {
                    return Ok(());
                };
                let Some(recv) = s.recv.as_mut() else {
                    return Ok(());
                };
                recv.keep(recv.read_offset(), rest)?;
                recv.note_complete();
                self.events.raise(slot, &mut s.events, bit::READABLE);
                return Ok(());
            }
        }
        self.deliver_waiting(slot, id, sink);
        Ok(())
    }

    /// Offers what out-of-order frames left, as far as it is in order now.
    fn deliver_waiting(&mut self, slot: u32, id: StreamId, sink: &mut dyn StreamSink) {
        loop {
            let Some(recv) = self.recv(slot) else {
                return;
            };
            let read = recv.read_offset();
            // Outside the stream during the call: nothing is readable then, so that order holds.
            let Some(mut waiting) = recv.assembler.take() else {
                return;
            };
            waiting.advance_to(read);
            let offered = match waiting.readable() {
                0 => None,
                _ => Some(self.offer(slot, id, waiting.chunk(), sink)),
            };
            if let Some(Offered::Over) = offered {
                return;
            }
            let Some(s) = self.slots.get_mut(slot as usize) else {
                return;
            };
            let Some(recv) = s.recv.as_mut() else {
                return;
            };
            waiting.advance_to(recv.read_offset());
            recv.assembler = Some(waiting);
            match offered {
                Some(Offered::All) => {}
                Some(_) => {
                    recv.note_complete();
                    self.events.raise(slot, &mut s.events, bit::READABLE);
                    return;
                }
                None => return,
            }
        }
    }

    /// Makes one offer and counts what was taken of it.
    fn offer(
        &mut self,
        slot: u32,
        id: StreamId,
        data: &[u8],
        sink: &mut dyn StreamSink,
    ) -> Offered {
        let Some(recv) = self.recv(slot) else {
            return Offered::Over;
        };
        let read = recv.read_offset();
        let fin = recv.ends_at(read + data.len() as u64);
        let taken = sink.on_stream_data(self, id, data, fin);
        // The application may have stopped the stream meanwhile, and the slot be another's.
        let Some(s) = self.slot(slot).filter(|s| s.id == id) else {
            return Offered::Over;
        };
        let Some(recv) = s.recv.as_mut().filter(|r| r.is_wanted()) else {
            return Offered::Over;
        };
        let (n, end) = match taken {
            Taken::All => (data.len(), fin),
            Taken::Prefix(n) => (n.min(data.len()), false),
        };
        if end {
            recv.on_read(n as u64, true);
            self.on_consumed(n as u64);
            self.end_recv(slot);
            return Offered::Over;
        }
        self.on_taken(slot, n as u64);
        if n < data.len() || fin {
            Offered::Part(n)
        } else {
            Offered::All
        }
    }

    /// Handles RESET_STREAM (RFC 9000 §19.4).
    ///
    /// # Errors
    ///
    /// STREAM_STATE_ERROR, STREAM_LIMIT_ERROR, FLOW_CONTROL_ERROR, FINAL_SIZE_ERROR.
    pub fn on_reset(&mut self, frame: &ResetStream) -> Result<(), TransportError> {
        self.glitches += 1;
        let Some(slot) = self.receiving(StreamId(frame.id))? else {
            return Ok(());
        };
        let Some(recv) = self.recv(slot) else {
            return Ok(());
        };
        let (new, dropped) = recv.on_reset(frame.final_size, frame.code)?;
        let (done, tell) = (recv.state().is_terminal(), recv.reset_code().is_some());
        self.flow.on_received(new)?;
        let Some(dropped) = dropped else {
            return Ok(());
        };
        self.on_consumed(dropped);
        self.stats.rx_resets += 1;
        if let Some(s) = self.slots.get_mut(slot as usize)
            && tell
        {
            s.reset_code = frame.code;
            self.control.clear_recv(slot, &mut s.control);
            self.events.clear(slot, &mut s.events, bit::READABLE);
            self.events.raise(slot, &mut s.events, bit::RESET);
        }
        if done {
            self.end_recv(slot);
        }
        Ok(())
    }

    /// Handles STOP_SENDING (RFC 9000 §19.5): the stream is reset with the peer's code (§3.5).
    ///
    /// # Errors
    ///
    /// STREAM_STATE_ERROR, STREAM_LIMIT_ERROR.
    pub fn on_stop_sending(&mut self, id: u64, code: u64) -> Result<(), TransportError> {
        self.glitches += 1;
        let Some(slot) = self.sending(StreamId(id))? else {
            return Ok(());
        };
        if self.reset_slot(slot, code)
            && let Some(s) = self.slots.get_mut(slot as usize)
        {
            s.stop_code = Some(code);
            self.events.raise(slot, &mut s.events, bit::STOPPED);
            self.stats.rx_stops += 1;
        }
        Ok(())
    }

    /// Handles MAX_DATA (RFC 9000 §19.9).
    pub fn on_max_data(&mut self, max: u64) {
        if max > self.flow.peer_limit {
            self.flow.peer_limit = max;
            self.control.clear_data_blocked();
            self.note_data_blocked();
        } else {
            self.glitches += 1;
        }
    }

    /// Handles MAX_STREAM_DATA (RFC 9000 §19.10).
    ///
    /// # Errors
    ///
    /// STREAM_STATE_ERROR, STREAM_LIMIT_ERROR.
    pub fn on_max_stream_data(&mut self, id: u64, max: u64) -> Result<(), TransportError> {
        if let Some(slot) = self.sending(StreamId(id))? {
            let known = self.slot(slot).and_then(|s| s.send.as_ref());
            self.glitches += u32::from(known.is_some_and(|s| max <= s.max_data()));
            self.raise_stream_limit(slot, max);
        }
        Ok(())
    }

    pub(super) fn raise_stream_limit(&mut self, slot: u32, max: u64) {
        let Some(s) = self.slots.get_mut(slot as usize) else {
            return;
        };
        let Some(send) = s.send.as_mut() else {
            return;
        };
        send.on_max_data(max);
        if send.blocked().is_none() {
            self.control.clear_stream_blocked(slot, &mut s.control);
        }
        self.update_send(slot);
        self.note_data_blocked();
    }

    /// Handles MAX_STREAMS (RFC 9000 §19.11).
    pub fn on_max_streams(&mut self, dir: Dir, max: u64) {
        let at = dir as usize;
        let Some(ids) = self.local.get_mut(at) else {
            return;
        };
        self.glitches += u32::from(!ids.on_max_streams(max));
        if ids.take_available() {
            self.control.clear_streams_blocked(dir);
            if let Some(flag) = self.events.available.get_mut(at) {
                *flag = true;
            }
        }
    }

    /// Handles DATA_BLOCKED (RFC 9000 §19.12): credit comes as the application reads, not on
    /// demand.
    pub fn on_data_blocked(&mut self, _limit: u64) {}

    /// Handles STREAM_DATA_BLOCKED (RFC 9000 §19.13), which can open a stream.
    ///
    /// # Errors
    ///
    /// STREAM_STATE_ERROR, STREAM_LIMIT_ERROR.
    pub fn on_stream_data_blocked(&mut self, id: u64, _limit: u64) -> Result<(), TransportError> {
        self.receiving(StreamId(id)).map(|_| ())
    }

    /// Handles STREAMS_BLOCKED (RFC 9000 §19.14): announces what closed streams made room for.
    pub fn on_streams_blocked(&mut self, dir: Dir, _limit: u64) {
        let can = self
            .peer
            .get(dir as usize)
            .is_some_and(|ids| ids.can_raise());
        if can {
            self.control.raise_max_streams(dir);
        }
    }
}
