//! The application's verbs on streams: open, accept, write, end, reset, read, stop.

use super::event::{OpenError, ReadChunk, ReadError, ReadOutcome, WriteError, bit};
use super::ids::Known;
use super::recv::RecvHalf;
use super::send::{Closed, SendHalf};
use super::set::Streams;
use crate::wire::varint::MAX;
use crate::wire::{Dir, StreamId};
use bytes::Bytes;

impl Streams {
    /// Opens a stream. The peer learns of it with its first frame.
    ///
    /// # Errors
    ///
    /// [`OpenError::Limit`] while the peer permits no more.
    pub fn open(&mut self, dir: Dir) -> Result<StreamId, OpenError> {
        let ids = self.local.get_mut(dir as usize).ok_or(OpenError::Limit)?;
        match ids.open() {
            Some(index) => {
                let id = StreamId::new(self.side, dir, index);
                self.make(id);
                Ok(id)
            }
            None => {
                if self.has_peer_limits() {
                    self.control.raise_streams_blocked(dir);
                }
                Err(OpenError::Limit)
            }
        }
    }

    /// The next stream that the peer opened, in the order of their IDs; each once. Streams that
    /// came and went before are passed over.
    pub fn accept(&mut self, dir: Dir) -> Option<StreamId> {
        loop {
            let ids = self.peer.get_mut(dir as usize)?;
            let index = ids.accept()?;
            let known = ids.make(index);
            let id = StreamId::new(self.side.peer(), dir, index);
            if known == Known::Unmade {
                self.make(id);
                return Some(id);
            }
            if self.find(id).is_some() {
                return Some(id);
            }
        }
    }

    /// Appends a copy of `data`, as much as there is room for; returns how many bytes.
    /// [`super::StreamEvent::Writable`] follows when not all of it fit.
    ///
    /// # Errors
    ///
    /// [`WriteError`] when the stream takes no more, ever.
    pub fn write(&mut self, id: StreamId, data: &[u8]) -> Result<usize, WriteError> {
        self.with_send(id, |send, room| send.write(data, room))
    }

    /// Like [`Streams::write`], keeping a reference to `data` instead of a copy until it is
    /// acknowledged.
    ///
    /// # Errors
    ///
    /// [`WriteError`] when the stream takes no more, ever.
    pub fn write_bytes(&mut self, id: StreamId, data: Bytes) -> Result<usize, WriteError> {
        self.with_send(id, |send, room| send.write_bytes(data, room))
    }

    /// Ends the stream after what was written. [`super::StreamEvent::Finished`] follows when the
    /// peer has acknowledged all of it.
    ///
    /// # Errors
    ///
    /// [`WriteError`] when the stream was ended before.
    pub fn finish(&mut self, id: StreamId) -> Result<(), WriteError> {
        self.with_send(id, |send, _| send.finish())
    }

    fn with_send<T>(
        &mut self,
        id: StreamId,
        verb: impl FnOnce(&mut SendHalf, usize) -> Result<T, Closed>,
    ) -> Result<T, WriteError> {
        let slot = self.find(id).ok_or(WriteError::Unknown)?;
        let room = self.config.send_buffer;
        let s = self.slot(slot).ok_or(WriteError::Unknown)?;
        let stopped = s.stop_code;
        let send = s.send.as_mut().ok_or(WriteError::Unknown)?;
        let done = verb(send, room).map_err(|closed| match (closed, stopped) {
            (Closed::Finished, _) => WriteError::Finished,
            (Closed::Reset, None) => WriteError::Reset,
            (Closed::Reset, Some(code)) => WriteError::Stopped(code),
        })?;
        self.update_send(slot);
        self.note_data_blocked();
        Ok(done)
    }

    /// Abandons sending: what was not acknowledged is dropped and the peer told `code` (at most
    /// 2^62 − 1; a larger one is cut to that). Without effect on a stream reset before.
    ///
    /// # Errors
    ///
    /// [`WriteError::Unknown`].
    pub fn reset(&mut self, id: StreamId, code: u64) -> Result<(), WriteError> {
        let slot = self.find(id).ok_or(WriteError::Unknown)?;
        if self.send(slot).is_none() {
            return Err(WriteError::Unknown);
        }
        self.reset_slot(slot, code.min(MAX));
        Ok(())
    }

    /// Has streams of higher `priority` send first; 0 is the default. Streams of equal priority
    /// take turns.
    ///
    /// # Errors
    ///
    /// [`WriteError::Unknown`].
    pub fn set_priority(&mut self, id: StreamId, priority: i8) -> Result<(), WriteError> {
        let slot = self.find(id).ok_or(WriteError::Unknown)?;
        self.send(slot).ok_or(WriteError::Unknown)?;
        self.schedule.set_priority(slot, priority);
        Ok(())
    }

    /// Bytes written on the stream that the peer has not acknowledged in order.
    pub fn unacknowledged(&mut self, id: StreamId) -> Option<u64> {
        let slot = self.find(id)?;
        self.send(slot).map(|s| s.buffered())
    }

    /// Copies what is readable into `out`.
    ///
    /// # Errors
    ///
    /// [`ReadError`] when nothing will ever be readable again.
    pub fn read(&mut self, id: StreamId, out: &mut [u8]) -> Result<ReadOutcome, ReadError> {
        let (slot, recv) = self.readable_half(id)?;
        let n = recv.assembler.as_mut().map_or(0, |a| a.read(out));
        if n > 0 || (out.is_empty() && recv.readable() > 0) {
            self.on_taken(slot, n as u64);
            return Ok(ReadOutcome::Data(n));
        }
        Ok(if self.read_end(slot) {
            ReadOutcome::Finished
        } else {
            ReadOutcome::Blocked
        })
    }

    /// Takes up to `max` readable bytes (0 counts as 1) without copying them.
    ///
    /// # Errors
    ///
    /// [`ReadError`] when nothing will ever be readable again.
    pub fn read_bytes(&mut self, id: StreamId, max: usize) -> Result<ReadChunk, ReadError> {
        let (slot, recv) = self.readable_half(id)?;
        let chunk = recv
            .assembler
            .as_mut()
            .and_then(|a| a.read_bytes(max.max(1)));
        if let Some(data) = chunk {
            self.on_taken(slot, data.len() as u64);
            return Ok(ReadChunk::Data(data));
        }
        Ok(if self.read_end(slot) {
            ReadChunk::Finished
        } else {
            ReadChunk::Blocked
        })
    }

    fn readable_half(&mut self, id: StreamId) -> Result<(u32, &mut RecvHalf), ReadError> {
        let slot = self.find(id).ok_or(ReadError::Unknown)?;
        let recv = self.recv(slot).ok_or(ReadError::Unknown)?;
        if let Some(code) = recv.reset_code() {
            recv.on_reset_read();
            if let Some(s) = self.slots.get_mut(slot as usize) {
                self.events.clear(slot, &mut s.events, bit::RESET);
            }
            self.end_recv(slot);
            return Err(ReadError::Reset(code));
        }
        match self.recv(slot) {
            Some(recv) if recv.is_wanted() => Ok((slot, recv)),
            Some(_) => Err(ReadError::Stopped),
            None => Err(ReadError::Unknown),
        }
    }

    /// Whether the end is next; the application learns of it with this.
    fn read_end(&mut self, slot: u32) -> bool {
        let Some(recv) = self.recv(slot) else {
            return false;
        };
        if !recv.ends_at(recv.read_offset()) {
            return false;
        }
        recv.on_read(0, true);
        self.end_recv(slot);
        true
    }

    /// Counts bytes that the application took, and queues the credit that is due.
    #[inline]
    pub(super) fn on_taken(&mut self, slot: u32, n: u64) {
        if let Some(recv) = self.recv(slot) {
            recv.on_read(n, false);
        }
        self.update_window(slot);
        self.on_consumed(n);
    }

    /// Queues MAX_STREAM_DATA when it is due.
    #[inline]
    fn update_window(&mut self, slot: u32) {
        let (now, rtt) = self.clock;
        let max = self.config.stream_window_max;
        let Some(s) = self.slots.get_mut(slot as usize) else {
            return;
        };
        let Some(recv) = s.recv.as_mut() else {
            return;
        };
        let read = recv.read_offset();
        if recv.window.is_due(read)
            && recv.needs_credit()
            && self.control.raise_max_stream_data(slot, &mut s.control)
        {
            recv.window.tune(now, rtt, read, max);
        }
    }

    /// Counts bytes as consumed for the connection, and queues MAX_DATA when it is due.
    #[inline]
    pub(super) fn on_consumed(&mut self, n: u64) {
        self.flow.consumed += n;
        let consumed = self.flow.consumed;
        if self.flow.window.is_due(consumed) && self.control.raise_max_data() {
            let (now, rtt) = self.clock;
            let max = self.config.connection_window_max;
            self.flow.window.tune(now, rtt, consumed, max);
        }
    }

    /// Wants no more of the stream: what is buffered is dropped and, unless everything came
    /// already, the peer is asked to stop with `code` (at most 2^62 − 1; a larger one is cut).
    ///
    /// # Errors
    ///
    /// [`ReadError::Unknown`].
    pub fn stop_sending(&mut self, id: StreamId, code: u64) -> Result<(), ReadError> {
        let slot = self.find(id).ok_or(ReadError::Unknown)?;
        let recv = self.recv(slot).ok_or(ReadError::Unknown)?;
        let (dropped, send) = recv.stop(code.min(MAX));
        let done = recv.state().is_terminal();
        self.on_consumed(dropped);
        if let Some(s) = self.slots.get_mut(slot as usize) {
            self.events
                .clear(slot, &mut s.events, bit::READABLE | bit::RESET);
            if send {
                self.control.raise_stop_sending(slot, &mut s.control);
            }
        }
        if done {
            self.end_recv(slot);
        }
        Ok(())
    }
}
