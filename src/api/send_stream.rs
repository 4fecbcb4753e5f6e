//! The sending half of a stream.

use super::connection::ConnHandle;
use super::error::WriteError;
use super::shared::{SendShared, ask_send, send_state};
use crate::conn::ConnectionError;
use crate::wire::StreamId;
use bytes::Bytes;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

/// The sending half of a stream.
///
/// Dropping it finishes the stream: what was written is delivered, and then the end, as long as
/// the connection lives. A peer cannot tell that from a [`SendStream::finish`]: where a task may
/// fail or be cancelled midway, [`SendStream::reset`] the stream then, or mark the end in your
/// protocol.
pub struct SendStream {
    conn: Arc<ConnHandle>,
    shared: Arc<SendShared>,
    /// This side finished or reset the stream.
    ended: bool,
}

impl SendStream {
    pub(super) fn new(conn: Arc<ConnHandle>, shared: Arc<SendShared>) -> Self {
        Self {
            conn,
            shared,
            ended: false,
        }
    }

    /// The stream's ID.
    pub fn id(&self) -> StreamId {
        self.shared.id
    }

    /// Why nothing can be written, if so.
    fn refusal(&self) -> Option<WriteError> {
        match self.shared.state.load(Ordering::SeqCst) {
            send_state::STOPPED => Some(WriteError::Stopped(
                self.shared.stop_code.load(Ordering::SeqCst),
            )),
            send_state::LOST => Some(WriteError::ConnectionLost(self.conn.shared.why_closed())),
            _ if self.ended => Some(WriteError::Closed),
            _ => self
                .conn
                .shared
                .closed
                .get()
                .cloned()
                .map(WriteError::ConnectionLost),
        }
    }

    /// Bytes that may be queued now: at least one.
    fn poll_room(&mut self, cx: &Context<'_>) -> Poll<Result<usize, WriteError>> {
        for last in [false, true] {
            if let Some(why) = self.refusal() {
                return Poll::Ready(Err(why));
            }
            match self.shared.room() {
                0 if !last => self.shared.waker.register(cx.waker()),
                0 => {}
                room => return Poll::Ready(Ok(room)),
            }
        }
        Poll::Pending
    }

    fn queue(&self, data: Bytes) {
        if !data.is_empty() {
            self.shared.queued.fetch_add(data.len(), Ordering::SeqCst);
            // There is room, and only this handle adds.
            let _ = self.shared.queue.push(data);
            self.conn.shared.call_send(&self.shared);
        }
    }

    /// Writes a prefix of `data`, at least one byte; returns how many.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<Result<usize, WriteError>> {
        let Poll::Ready(room) = self.poll_room(cx)? else {
            return Poll::Pending;
        };
        let part = &data[..data.len().min(room)];
        self.queue(Bytes::copy_from_slice(part));
        Poll::Ready(Ok(part.len()))
    }

    /// Writes a prefix of `data`, at least one byte; returns how many. Waits while as much as the
    /// stream holds is under way to the peer.
    ///
    /// Cancel-safe: a dropped future wrote nothing.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn write(&mut self, data: &[u8]) -> Result<usize, WriteError> {
        poll_fn(|cx| self.poll_write(cx, data)).await
    }

    /// Writes all of `data`.
    ///
    /// Not cancel-safe: a dropped future may have written some of it.
    ///
    /// # Errors
    /// [`WriteError`]; some of it may have been written.
    pub async fn write_all(&mut self, mut data: &[u8]) -> Result<(), WriteError> {
        while !data.is_empty() {
            let n = self.write(data).await?;
            data = &data[n..];
        }
        Ok(())
    }

    /// Writes all of `data` without copying it. Waits until less than a window is under way, then
    /// takes the whole chunk, whatever its size.
    ///
    /// Cancel-safe: a dropped future wrote nothing.
    ///
    /// # Errors
    /// [`WriteError`]; nothing was written then.
    pub async fn write_chunk(&mut self, data: Bytes) -> Result<(), WriteError> {
        poll_fn(|cx| self.poll_room(cx)).await?;
        self.queue(data);
        Ok(())
    }

    /// Ends the stream after what was written.
    ///
    /// # Errors
    /// [`WriteError`]: it was ended before, or the peer or the connection ended it.
    pub fn finish(&mut self) -> Result<(), WriteError> {
        if let Some(why) = self.refusal() {
            return Err(why);
        }
        self.ended = true;
        self.ask(ask_send::FINISH);
        Ok(())
    }

    /// Abandons the stream: what was not delivered is dropped, and the peer told `code`.
    ///
    /// # Errors
    /// [`WriteError`]: it was reset before, or the peer or the connection ended it.
    pub fn reset(&mut self, code: u64) -> Result<(), WriteError> {
        match self.refusal() {
            // A finished stream can still be abandoned.
            None | Some(WriteError::Closed) => {}
            Some(why) => return Err(why),
        }
        self.ended = true;
        self.shared.reset_code.store(code, Ordering::Relaxed);
        self.ask(ask_send::RESET);
        Ok(())
    }

    /// Has streams of higher priority send first; 0 is the default. Streams of equal priority take
    /// turns.
    pub fn set_priority(&mut self, priority: i8) {
        self.shared.priority.store(priority, Ordering::Relaxed);
        self.ask(ask_send::PRIORITY);
    }

    fn ask(&self, what: u8) {
        self.shared.asked.fetch_or(what, Ordering::SeqCst);
        self.conn.shared.call_send(&self.shared);
    }

    /// Waits until the peer needs no more of the stream: `None` when it has acknowledged all of it
    /// after [`SendStream::finish`], and the code when it asked to stop. Never comes after a reset,
    /// unless the connection ends.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// The connection ended before.
    pub async fn stopped(&mut self) -> Result<Option<u64>, ConnectionError> {
        let state = || match self.shared.state.load(Ordering::SeqCst) {
            send_state::FINISHED => Some(Ok(None)),
            send_state::STOPPED => Some(Ok(Some(self.shared.stop_code.load(Ordering::SeqCst)))),
            send_state::LOST => Some(Err(self.conn.shared.why_closed())),
            _ => self.conn.shared.closed.get().map(|why| Err(why.clone())),
        };
        poll_fn(|cx| {
            if let Some(done) = state() {
                return Poll::Ready(done);
            }
            self.shared.waker.register(cx.waker());
            state().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        if !self.ended {
            self.ask(ask_send::FINISH);
        }
    }
}

impl fmt::Debug for SendStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendStream")
            .field("id", &self.shared.id)
            .finish_non_exhaustive()
    }
}
