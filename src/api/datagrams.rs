//! Datagrams through a handle, many at a time: one hand-over to the shard and one wake-up for all
//! of them. One at a time is `connection`'s.

use super::Connection;
use super::error::SendDatagramError;
use super::shared::{ConnShared, Datagrams};
use crate::conn::ConnectionError;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Connection {
    /// Queues datagrams (RFC 9221) from the front of `batch` until it is empty, waiting while the
    /// queue is full. Each is treated as by [`Connection::send_datagram`].
    ///
    /// Cancel-safe: what has not been queued is still in `batch`.
    ///
    /// # Errors
    /// [`SendDatagramError`]; what was not queued is still in `batch`, and begins with the one that
    /// is too large, if that is why.
    pub async fn send_datagrams(
        &self,
        batch: &mut VecDeque<Bytes>,
    ) -> Result<(), SendDatagramError> {
        let shared = self.shared();
        let max = self.max_datagram_size();
        let max = max.ok_or(SendDatagramError::Unsupported)?;
        let out = shared.outbox.make(Datagrams::default);
        let push = || {
            if let Some(why) = shared.closed.get() {
                return Some(Err(SendDatagramError::ConnectionLost(why.clone())));
            }
            let before = batch.len();
            while batch.front().is_some_and(|data| data.len() <= max)
                && let Some(data) = batch.pop_front()
            {
                if let Err(data) = out.queue.push(data) {
                    batch.push_front(data);
                    break;
                }
            }
            if batch.len() < before {
                shared.call();
            }
            match batch.front() {
                None => Some(Ok(())),
                Some(data) if data.len() > max => Some(Err(SendDatagramError::TooLarge { max })),
                Some(_) => None,
            }
        };
        out.waiters.until(push).await
    }

    /// Appends the datagrams that were received to `out`, at least one, as
    /// [`Connection::read_datagram`] would give them; returns how many.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// The connection is over, and all that it received was read.
    pub async fn read_datagrams(&self, out: &mut Vec<Bytes>) -> Result<usize, ConnectionError> {
        let shared = self.shared();
        let inbox = inbox(shared);
        let take = || {
            let waiting = std::iter::from_fn(|| inbox.queue.pop());
            let before = out.len();
            // Not more than one queue: a fast peer must not hold the reader here.
            out.extend(waiting.take(inbox.queue.capacity()));
            ask_for_more(shared, inbox);
            match out.len() - before {
                0 => shared.closed.get().map(|why| Err(why.clone())),
                n => Some(Ok(n)),
            }
        };
        inbox.waiters.until(take).await
    }
}

/// Where the shard puts received datagrams once somebody reads them.
pub(super) fn inbox(shared: &Arc<ConnShared>) -> &Datagrams {
    shared.inbox.make(|| {
        let inbox = Datagrams::default();
        // The shard brings them once it sees this.
        inbox.more.store(true, Ordering::SeqCst);
        inbox
    })
}

/// Calls the shard when it has more datagrams than there was room for.
#[inline]
pub(super) fn ask_for_more(shared: &Arc<ConnShared>, inbox: &Datagrams) {
    if inbox.more.load(Ordering::SeqCst) && inbox.more.swap(false, Ordering::SeqCst) {
        shared.call();
    }
}
