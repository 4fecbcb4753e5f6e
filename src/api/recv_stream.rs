//! The receiving half of a stream.

use super::connection::ConnHandle;
use super::error::{ReadError, ReadExactError, ReadToEndError};
use super::shared::{RecvShared, recv_state};
use crate::base::limits;
use crate::wire::StreamId;
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::task::{Context, Poll};

/// The receiving half of a stream.
///
/// Dropping it before the end was read asks the peer to stop sending, with code 0.
pub struct RecvStream {
    conn: Arc<ConnHandle>,
    shared: Arc<RecvShared>,
    /// What is left of the last chunk.
    current: Bytes,
    /// What was left when the connection ended, once that was seen.
    rest: Option<VecDeque<Bytes>>,
    /// How the stream ended, once that was seen.
    end: Option<Result<(), ReadError>>,
}

impl RecvStream {
    pub(super) fn new(conn: Arc<ConnHandle>, shared: Arc<RecvShared>) -> Self {
        Self {
            conn,
            shared,
            current: Bytes::new(),
            rest: None,
            end: None,
        }
    }

    /// The stream's ID.
    pub fn id(&self) -> StreamId {
        self.shared.id
    }

    /// Whether the peer opened the stream by early data. What is read from it before
    /// [`Connection::early_data_accepted`](super::Connection::early_data_accepted) is done may be
    /// somebody's copy of what a client sent on another connection, from an address that is not
    /// proven.
    pub fn is_early(&self) -> bool {
        self.shared.early
    }

    /// Fills `current` if it is empty. `None` when there is nothing to read yet.
    fn fill(&mut self) -> Option<Result<(), ReadError>> {
        if !self.current.is_empty() {
            return Some(Ok(()));
        }
        if let Some(end) = &self.end {
            return Some(end.clone());
        }
        // Before the queue: everything was queued before the end was told.
        let state = self.shared.state.load(Ordering::SeqCst);
        if let Some(chunk) = self.shared.queue.pop() {
            let before = self.shared.queued.fetch_sub(chunk.len(), Ordering::SeqCst);
            if before - chunk.len() <= limits::HANDLE_RECV_WINDOW / 2 {
                self.call_if_blocked();
            }
            self.current = chunk;
            return Some(Ok(()));
        }
        if state == recv_state::OPEN {
            self.call_if_blocked();
            return None;
        }
        let shared = &self.shared;
        let rest = self.rest.get_or_insert_with(|| {
            shared
                .rest
                .get()
                .map(|rest| rest.iter().cloned().collect())
                .unwrap_or_default()
        });
        if let Some(chunk) = rest.pop_front() {
            self.current = chunk;
            return Some(Ok(()));
        }
        let end = match state {
            recv_state::FINISHED => Ok(()),
            recv_state::RESET => Err(ReadError::Reset(
                self.shared.reset_code.load(Ordering::SeqCst),
            )),
            _ => Err(ReadError::ConnectionLost(self.conn.shared.why_closed())),
        };
        Some(self.end.insert(end).clone())
    }

    /// Tells the shard that there is room, if it has more than fitted.
    fn call_if_blocked(&self) {
        fence(Ordering::SeqCst);
        if self.shared.blocked.load(Ordering::SeqCst)
            && self.shared.blocked.swap(false, Ordering::SeqCst)
        {
            self.conn.shared.call_recv(&self.shared);
        }
    }

    /// Waits for bytes in `current`, or the end, which leaves it empty.
    fn poll_fill(&mut self, cx: &Context<'_>) -> Poll<Result<(), ReadError>> {
        if let Some(done) = self.fill() {
            return Poll::Ready(done);
        }
        self.shared.waker.register(cx.waker());
        self.fill().map_or(Poll::Pending, Poll::Ready)
    }

    /// Reads into `out`; returns how many bytes, 0 at the end of the stream or when `out` is empty.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<Result<usize, ReadError>> {
        if out.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let Poll::Ready(()) = self.poll_fill(cx)? else {
            return Poll::Pending;
        };
        let mut n = 0;
        // What is there already comes along.
        while n < out.len() && matches!(self.fill(), Some(Ok(()))) && !self.current.is_empty() {
            let part = self.current.len().min(out.len() - n);
            self.current.copy_to_slice(&mut out[n..n + part]);
            n += part;
        }
        Poll::Ready(Ok(n))
    }

    /// Reads into `out` what is there, waiting for at least one byte; returns how many. `None` at
    /// the end of the stream.
    ///
    /// Cancel-safe: a dropped future read nothing.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read(&mut self, out: &mut [u8]) -> Result<Option<usize>, ReadError> {
        let n = poll_fn(|cx| self.poll_read(cx, out)).await?;
        Ok((n > 0 || out.is_empty()).then_some(n))
    }

    /// Fills `out`.
    ///
    /// Not cancel-safe: a dropped future may have read some bytes.
    ///
    /// # Errors
    /// [`ReadExactError`].
    pub async fn read_exact(&mut self, out: &mut [u8]) -> Result<(), ReadExactError> {
        let mut filled = 0;
        while filled < out.len() {
            let Some(n) = self.read(&mut out[filled..]).await? else {
                return Err(ReadExactError::FinishedEarly(filled));
            };
            filled += n;
        }
        Ok(())
    }

    /// The next bytes of the stream as they are, at most `max` (0 counts as 1), without copying
    /// them. `None` at the end of the stream.
    ///
    /// Cancel-safe: a dropped future read nothing.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read_chunk(&mut self, max: usize) -> Result<Option<Bytes>, ReadError> {
        poll_fn(|cx| self.poll_fill(cx)).await?;
        let len = self.current.len().min(max.max(1));
        Ok((len > 0).then(|| self.current.split_to(len)))
    }

    /// Reads to the end, at most `limit` bytes.
    ///
    /// Not cancel-safe: what a dropped future had read is gone.
    ///
    /// # Errors
    /// [`ReadToEndError`]; what was read before is gone then.
    pub async fn read_to_end(&mut self, limit: usize) -> Result<Bytes, ReadToEndError> {
        let mut all = BytesMut::new();
        while let Some(chunk) = self.read_chunk(usize::MAX).await? {
            if all.len() + chunk.len() > limit {
                return Err(ReadToEndError::TooLong(limit));
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }

    /// Wants no more of the stream: asks the peer to stop with `code`. What was received and not
    /// read is dropped. Without effect after the end.
    pub fn stop(&mut self, code: u64) {
        self.current = Bytes::new();
        if self.end.is_none() {
            self.end = Some(Err(ReadError::Stopped));
            // One handle, which comes here once.
            let _ = self.shared.stop.set(code);
            self.conn.shared.call_recv(&self.shared);
        }
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        self.stop(0);
    }
}

impl fmt::Debug for RecvStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvStream")
            .field("id", &self.shared.id)
            .finish_non_exhaustive()
    }
}
