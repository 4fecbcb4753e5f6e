//! What streams tell the application and what they refuse it: events, the sink for received bytes,
//! errors of misuse.

use super::Streams;
use super::list::{Links, List};
use crate::wire::{Dir, StreamId};

/// Something that the application is to know.
///
/// Events of one stream are merged: at most one of each kind waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// The peer opened streams; [`Streams::accept`] gives them.
    Opened(Dir),
    /// MAX_STREAMS rose after [`Streams::open`] was refused.
    Available(Dir),
    /// The peer wants no more of this stream, with this code; it was reset in answer.
    Stopped(StreamId, u64),
    /// The peer reset this stream with this code; what was not read is gone.
    Reset(StreamId, u64),
    /// There is something new to read: bytes or the end.
    Readable(StreamId),
    /// There is room again after a write that was not taken in full.
    Writable(StreamId),
    /// The peer acknowledged everything, the end included.
    Finished(StreamId),
}

/// How much of an offer a [`StreamSink`] took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Every byte, and the end where it was offered.
    All,
    /// So many bytes from the front. The rest, and the end, wait for [`Streams::read`].
    Prefix(usize),
}

/// Takes received bytes while they are still in the receive buffer.
pub trait StreamSink {
    /// Offers the next bytes of stream `id`, in order; `fin` when the stream ends after them, and
    /// then `data` may be empty. `streams` may be used at once, the same stream included; nothing
    /// is readable from it during the call.
    ///
    /// After a partial take, nothing more of the stream is offered until what waits was read.
    fn on_stream_data(
        &mut self,
        streams: &mut Streams,
        id: StreamId,
        data: &[u8],
        fin: bool,
    ) -> Taken;

    /// Offers a datagram (RFC 9221) of an authenticated 1-RTT packet; false leaves it to the queue
    /// of received ones. While any wait there, none is offered.
    #[inline]
    fn on_datagram(&mut self, data: &[u8]) -> bool {
        let _ = data;
        false
    }
}

/// The sink that leaves everything to [`Streams::read`].
#[derive(Clone, Copy, Debug, Default)]
pub struct BufferAll;

impl StreamSink for BufferAll {
    fn on_stream_data(&mut self, _: &mut Streams, _: StreamId, _: &[u8], _: bool) -> Taken {
        Taken::Prefix(0)
    }
}

/// Why no stream was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The peer's limit is reached; [`StreamEvent::Available`] follows when it rises.
    #[error("the peer permits no further stream now")]
    Limit,
}

/// Why nothing was written, ended or reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// There is no such stream to send on: never opened, receive-only, or done and forgotten.
    #[error("no such stream to send on")]
    Unknown,
    /// The stream was ended by [`Streams::finish`].
    #[error("the stream was finished")]
    Finished,
    /// The stream was reset by [`Streams::reset`].
    #[error("the stream was reset")]
    Reset,
    /// The peer asked to stop with this code.
    #[error("the peer stopped the stream with code {0}")]
    Stopped(u64),
}

/// Why nothing was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// There is no such stream to receive on: never opened, send-only, or done and forgotten. A
    /// stream is forgotten once its end was read or its reset was reported, by either way.
    #[error("no such stream to receive on")]
    Unknown,
    /// [`Streams::stop_sending`] was called.
    #[error("reading was stopped")]
    Stopped,
    /// The peer reset the stream with this code.
    #[error("the peer reset the stream with code {0}")]
    Reset(u64),
}

/// What a read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// So many bytes; not 0, unless the buffer was empty.
    Data(usize),
    /// Nothing now; [`StreamEvent::Readable`] follows.
    Blocked,
    /// The end: everything was read.
    Finished,
}

/// What a read without copying gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadChunk {
    /// Bytes; not empty.
    Data(bytes::Bytes),
    /// Nothing now; [`StreamEvent::Readable`] follows.
    Blocked,
    /// The end: everything was read.
    Finished,
}

/// Events of one stream that wait, as bits, in the order in which they are reported.
pub(super) mod bit {
    pub const STOPPED: u8 = 1;
    pub const RESET: u8 = 2;
    pub const READABLE: u8 = 4;
    pub const WRITABLE: u8 = 8;
    pub const FINISHED: u8 = 16;
}

/// The streams that have events, and the events of the connection's own.
#[derive(Debug)]
pub(super) struct EventQueue {
    pub(super) opened: [bool; 2],
    pub(super) available: [bool; 2],
    links: Links,
    list: List,
}

impl EventQueue {
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

    pub(super) fn new() -> Self {
        Self {
            opened: [false; 2],
            available: [false; 2],
            links: Links::default(),
            list: List::EMPTY,
        }
    }

    /// Adds `event` to `pending`, the events of `slot`.
    #[inline]
    pub(super) fn raise(&mut self, slot: u32, pending: &mut u8, event: u8) {
        if *pending == 0 {
            self.list.push_back(&mut self.links, slot);
        }
        *pending |= event;
    }

    /// Takes `events` out of `pending`, the events of `slot`.
    #[inline]
    pub(super) fn clear(&mut self, slot: u32, pending: &mut u8, events: u8) {
        if *pending != 0 {
            *pending &= !events;
            if *pending == 0 {
                self.list.unlink(&mut self.links, slot);
            }
        }
    }

    /// The first stream with events.
    #[inline]
    pub(super) fn front(&self) -> Option<u32> {
        self.list.front()
    }

    /// Whether nothing waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.list.front().is_none() && self.opened == [false; 2] && self.available == [false; 2]
    }

    /// A connection event, taken out.
    pub(super) fn pop_own(&mut self) -> Option<StreamEvent> {
        for (at, dir) in [Dir::Bi, Dir::Uni].into_iter().enumerate() {
            if self.opened.get_mut(at).is_some_and(std::mem::take) {
                return Some(StreamEvent::Opened(dir));
            }
            if self.available.get_mut(at).is_some_and(std::mem::take) {
                return Some(StreamEvent::Available(dir));
            }
        }
        None
    }
}
