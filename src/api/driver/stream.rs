//! The shard's side of one stream: bytes from the handle to the stream and back, within windows.

use crate::api::shared::{RecvShared, SendShared, ask_send, recv_state, send_state};
use crate::base::limits;
use crate::stream::{ReadChunk, ReadError, Streams, Taken, WriteError};
use crate::wire::StreamId;
use bytes::{Buf, Bytes, BytesMut};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// Bytes that received chunks are cut from.
const BLOCK: usize = 64 * 1024;

/// Memory that received bytes are copied to, shared by the streams of a shard.
#[derive(Default)]
pub(super) struct Block {
    free: BytesMut,
    /// The stream whose bytes end where the free part begins.
    tail: Option<(u32, StreamId)>,
}

impl Block {
    /// Copies `data`; tells whether it directly follows what the same stream got last.
    fn copy(&mut self, conn: u32, id: StreamId, data: &[u8]) -> (BytesMut, bool) {
        let fits = self.free.capacity() >= data.len();
        if !fits {
            self.free.reserve(BLOCK.max(data.len()));
        }
        let follows = fits && self.tail == Some((conn, id));
        self.tail = Some((conn, id));
        self.free.extend_from_slice(data);
        (self.free.split(), follows)
    }
}

/// The sending half.
pub(super) struct Sending {
    shared: Arc<SendShared>,
    /// Taken from the queue, and not yet by the stream.
    in_hand: Bytes,
    finish: bool,
    finished: bool,
}

impl Sending {
    pub(super) fn new(shared: Arc<SendShared>) -> Self {
        Self {
            shared,
            in_hand: Bytes::new(),
            finish: false,
            finished: false,
        }
    }

    /// Does what the handle asked for. False when nothing more is to be done for this half.
    pub(super) fn work(&mut self, streams: &mut Streams) -> bool {
        self.shared.called.store(false, Ordering::SeqCst);
        // Read before the queue: what was queued before an end was asked for is in it.
        let asked = self.shared.asked.swap(0, Ordering::SeqCst);
        let id = self.shared.id;
        // Neither can fail but for a stream that is gone, and then the handle hears of that.
        if asked & ask_send::PRIORITY != 0 {
            let _ = streams.set_priority(id, self.shared.priority.load(Ordering::Relaxed));
        }
        if asked & ask_send::RESET != 0 {
            let _ = streams.reset(id, self.shared.reset_code.load(Ordering::Relaxed));
            self.discard();
            return false;
        }
        self.finish |= asked & ask_send::FINISH != 0;
        self.pump(streams)
    }

    /// Moves chunks into the stream as it has room. False when the half is over.
    pub(super) fn pump(&mut self, streams: &mut Streams) -> bool {
        let id = self.shared.id;
        let mut moved = 0;
        loop {
            if self.in_hand.is_empty() {
                match self.shared.queue.pop() {
                    Some(chunk) => self.in_hand = chunk,
                    None => break,
                }
            }
            match streams.write_bytes(id, self.in_hand.clone()) {
                Ok(n) => {
                    self.in_hand.advance(n);
                    moved += n;
                    if !self.in_hand.is_empty() {
                        break;
                    }
                }
                Err(e) => {
                    self.fail(e);
                    return false;
                }
            }
        }
        if moved > 0 {
            let before = self.shared.queued.fetch_sub(moved, Ordering::SeqCst);
            // A writer that waits is let at half a window, not at every byte.
            if before - moved <= limits::HANDLE_SEND_WINDOW / 2 {
                self.shared.waker.wake();
            }
        }
        if self.finish && !self.finished && self.in_hand.is_empty() {
            self.finished = true;
            if let Err(e) = streams.finish(id) {
                self.fail(e);
                return false;
            }
        }
        true
    }

    fn fail(&mut self, why: WriteError) {
        match why {
            WriteError::Stopped(code) => self.stopped(code),
            _ => self.over(send_state::LOST),
        }
    }

    /// The peer wants no more.
    pub(super) fn stopped(&mut self, code: u64) {
        self.shared.stop_code.store(code, Ordering::SeqCst);
        self.over(send_state::STOPPED);
    }

    /// The half is over.
    pub(super) fn over(&mut self, state: u8) {
        self.shared.end(state);
        self.discard();
    }

    fn discard(&mut self) {
        self.in_hand = Bytes::new();
        while self.shared.queue.pop().is_some() {}
    }
}

/// The receiving half.
pub(super) struct Receiving {
    shared: Arc<RecvShared>,
    /// Received and not yet in the queue.
    pending: BytesMut,
    /// The end follows `pending`.
    end: bool,
    /// On the list of those to flush.
    pub(super) dirty: bool,
}

impl Receiving {
    pub(super) fn new(shared: Arc<RecvShared>) -> Self {
        Self {
            shared,
            pending: BytesMut::new(),
            end: false,
            dirty: false,
        }
    }

    fn room(&self) -> usize {
        let held = self.shared.queued.load(Ordering::SeqCst) + self.pending.len();
        limits::HANDLE_RECV_WINDOW.saturating_sub(held)
    }

    /// Says that there is more than `want` bytes of room for, then looks once more: the handle may
    /// have made room before it could see that it was asked to call.
    fn block(&self, want: usize) -> bool {
        self.shared.blocked.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.room() < want
    }

    /// Takes bytes from the receive buffer if there is room for all of them.
    #[inline]
    pub(super) fn offer(&mut self, conn: u32, block: &mut Block, data: &[u8], fin: bool) -> Taken {
        if self.room() < data.len() && self.block(data.len()) {
            return Taken::Prefix(0);
        }
        if !data.is_empty() {
            let (chunk, follows) = block.copy(conn, self.shared.id, data);
            if !follows {
                self.flush();
            }
            // Joins without copying when it follows, or when all before was flushed.
            self.pending.unsplit(chunk);
        }
        self.end |= fin;
        Taken::All
    }

    /// Shows the handle what is pending. False when the half is over.
    pub(super) fn flush(&mut self) -> bool {
        if !self.pending.is_empty() && !self.shared.queue.is_full() {
            let chunk = self.pending.split().freeze();
            let small = chunk.len() < BLOCK / 4 && !self.shared.queue.is_empty();
            // A reader that lags must not keep whole blocks for a few bytes of each.
            self.push(if small {
                Bytes::copy_from_slice(&chunk)
            } else {
                chunk
            });
        }
        if !self.pending.is_empty() {
            self.shared.blocked.store(true, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            return self.shared.queue.is_full() || self.flush();
        }
        if self.end {
            self.shared.end(recv_state::FINISHED);
            return false;
        }
        self.shared.waker.wake();
        true
    }

    /// Queues a chunk; there is room.
    fn push(&self, chunk: Bytes) {
        self.shared.queued.fetch_add(chunk.len(), Ordering::SeqCst);
        // Only this thread adds, and it has looked.
        let _ = self.shared.queue.push(chunk);
    }

    /// Does what the handle asked for. False when nothing more is to be done for this half.
    pub(super) fn work(&mut self, streams: &mut Streams) -> bool {
        self.shared.called.store(false, Ordering::SeqCst);
        if let Some(code) = self.shared.stop.get() {
            // An error says that the stream is gone, which is what is wanted.
            let _ = streams.stop_sending(self.shared.id, *code);
            return false;
        }
        self.pull(streams)
    }

    /// Moves what waits in the stream to the handle as there is room. False when the half is over.
    pub(super) fn pull(&mut self, streams: &mut Streams) -> bool {
        let id = self.shared.id;
        while self.flush() {
            if !self.pending.is_empty() || self.shared.queue.is_full() || self.room() == 0 {
                if self.block(1) || self.shared.queue.is_full() {
                    return true;
                }
                continue;
            }
            match streams.read_bytes(id, self.room()) {
                Ok(ReadChunk::Data(chunk)) => self.push(chunk),
                Ok(ReadChunk::Blocked) => return true,
                Ok(ReadChunk::Finished) => self.end = true,
                Err(ReadError::Reset(code)) => {
                    self.reset(code);
                    return false;
                }
                Err(ReadError::Unknown | ReadError::Stopped) => return false,
            }
        }
        false
    }

    /// The peer reset the stream.
    pub(super) fn reset(&mut self, code: u64) {
        self.shared.reset_code.store(code, Ordering::SeqCst);
        self.shared.end(recv_state::RESET);
    }

    /// The connection is over: hands over all that was received in order, the window aside, for it
    /// is not held anywhere else from now on.
    pub(super) fn over(&mut self, streams: Option<&mut Streams>) {
        let mut rest = Vec::new();
        if !self.pending.is_empty() {
            rest.push(self.pending.split().freeze());
        }
        if let Some(streams) = streams.filter(|_| !self.end) {
            loop {
                match streams.read_bytes(self.shared.id, usize::MAX) {
                    Ok(ReadChunk::Data(chunk)) => rest.push(chunk),
                    Ok(ReadChunk::Finished) => self.end = true,
                    Ok(ReadChunk::Blocked) | Err(_) => break,
                }
                if self.end {
                    break;
                }
            }
        }
        let _ = self.shared.rest.set(rest);
        self.shared.end(if self.end {
            recv_state::FINISHED
        } else {
            recv_state::LOST
        });
    }
}
