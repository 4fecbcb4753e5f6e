//! What a connection tells its application.

use super::error::ConnectionError;
use super::migrate::MigrationFailure;
use super::multipath::PathEvent;
use crate::base::{BoundedQueue, FourTuple, limits};
use crate::stream::StreamEvent;

/// Something that the application may want to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The handshake is complete: streams may be opened, and what arrives is authenticated.
    Connected,
    /// Early data flows (RFC 9001 §4.6), before [`Event::Connected`]. At a client: streams can be
    /// opened and datagrams sent at once, under the limits of the connection that is resumed; the
    /// server may receive a copy of them from somebody else, though it takes only one. At a server:
    /// the client's early data is accepted, and until [`Event::Connected`] nothing proves that it
    /// comes from the client now, nor that the client is where it seems to be.
    EarlyData,
    /// The server did not take the early data. What was written to streams is sent again by itself,
    /// datagrams are not. An application that offers several protocols looks at
    /// [`Connection::alpn`](super::Connection::alpn) when [`Event::Connected`] follows: a change
    /// makes what it wrote another protocol's.
    EarlyDataRejected,
    /// The handshake is confirmed (RFC 9001 §4.1.2): the peer has our last handshake message.
    HandshakeConfirmed,
    /// Something happened on a stream.
    Stream(StreamEvent),
    /// A datagram (RFC 9221) can be read.
    DatagramReceived,
    /// Datagrams that did not fit before may be sent again.
    DatagramsUnblocked,
    /// The peer moved to another address, which may not be validated yet.
    PeerAddressChanged,
    /// The peer answered at the address that it moved to.
    PeerAddressValidated,
    /// This client goes on over these addresses, where the server has answered: it moved there, or
    /// the server prefers it.
    Migrated(FourTuple),
    /// This client did not come to use these addresses; everything goes on over the present ones.
    MigrationFailed(FourTuple, MigrationFailure),
    /// Something happened to a path: to one of several, or the peer moved on it.
    Path(PathEvent),
    /// The connection is over; no event follows.
    Closed(ConnectionError),
}

/// Places of the queue that hints may take, which a peer causes as often as it likes.
const HINTS: usize = limits::EVENTS / 4;

/// Events in order, bounded; the last place is kept for the one that must not be lost.
#[derive(Debug)]
pub(crate) struct Events {
    queue: BoundedQueue<Event>,
    closed: Option<Box<ConnectionError>>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            queue: BoundedQueue::new(limits::EVENTS),
            closed: None,
        }
    }
}

impl Events {
    /// Queues an event; one that repeats the newest is merged into it, and one that does not fit
    /// is dropped (only repeatable hints can come that often).
    pub(crate) fn push(&mut self, event: Event) {
        if self.queue.back() != Some(&event) {
            let _ = self.queue.push(event);
        }
    }

    /// The same of one that tells no more than can be asked for: those leave room for others, which
    /// are told once.
    pub(crate) fn push_hint(&mut self, event: Event) {
        if self.queue.len() < HINTS {
            self.push(event);
        }
    }

    /// Puts `event` in the place of the newest one where `outdated` says so.
    pub(crate) fn supersede(
        &mut self,
        event: Event,
        outdated: impl FnOnce(&Event) -> bool,
    ) -> bool {
        match self.queue.back_mut() {
            Some(newest) if outdated(newest) => {
                *newest = event;
                true
            }
            _ => false,
        }
    }

    /// Queues the end.
    pub(crate) fn push_closed(&mut self, why: ConnectionError) {
        self.closed.get_or_insert_with(|| Box::new(why));
    }

    /// The next event that is not the end.
    pub(crate) fn pop(&mut self) -> Option<Event> {
        self.queue.pop()
    }

    /// The end, while nobody has taken it.
    pub(crate) fn closed(&self) -> Option<&ConnectionError> {
        self.closed.as_deref()
    }

    /// The end, once.
    pub(crate) fn take_closed(&mut self) -> Option<ConnectionError> {
        self.closed.take().map(|why| *why)
    }

    /// Gives back memory, when nothing waits.
    pub(crate) fn rest(&mut self) {
        self.queue.rest();
    }

    /// Whether anything waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.closed.is_none()
    }
}
