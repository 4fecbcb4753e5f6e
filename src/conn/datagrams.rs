//! A connection's datagrams (RFC 9221): what the application queues, one or many at a time, and
//! what it is shown of those that arrive.
//!
//! The frames that follow each other in a packet are handled in one pass: one check of what the
//! peer may send, one event. The queues themselves are `crate::stream`'s.

use super::events::Event;
use super::input::Packet;
use super::space::SentFrame;
use super::{Connection, params};
use crate::crypto::TAG_LEN;
use crate::path::{Path, PathState};
use crate::stream::{DatagramError, Datagrams, StreamSink};
use crate::wire::frame::{datagram_size, next_datagram, ty, write_datagram_header};
use crate::wire::{PacketType, Reader, TransportError, Writer};
use bytes::Bytes;

/// Queues many datagrams: what holds for all of them was found out once. See
/// [`Connection::datagram_batch`].
#[derive(Debug)]
pub struct DatagramBatch<'a> {
    queue: &'a mut Datagrams,
    max: usize,
}

impl DatagramBatch<'_> {
    /// The longest datagram that can be sent now, in bytes.
    pub fn max_len(&self) -> usize {
        self.max
    }

    /// Queues a copy of a datagram.
    ///
    /// # Errors
    /// As [`Connection::send_datagram`].
    #[inline]
    pub fn push(&mut self, data: &[u8]) -> Result<(), DatagramError> {
        self.push_with(data.len(), |to| to.copy_from_slice(data))
    }

    /// Queues a datagram, a long one without a copy; it comes back with the error.
    pub(crate) fn push_bytes(&mut self, data: Bytes) -> Result<(), (DatagramError, Bytes)> {
        self.queue.send_within(self.max, data)
    }

    /// Queues a datagram of `len` bytes that `fill` writes where it waits to be sent. `fill` is not
    /// called when the datagram is refused, and writes every byte: they hold what was sent before.
    ///
    /// # Errors
    /// As [`Connection::send_datagram`].
    #[inline]
    pub fn push_with(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), DatagramError> {
        self.queue.push(self.max, len, fill)
    }
}

/// Appends a DATAGRAM frame, without a length where it does not fit with one; false when it does
/// not fit at all.
pub(super) fn write_datagram(w: &mut Writer<'_>, data: &[u8]) -> bool {
    if datagram_size(data.len(), true) <= w.remaining() {
        write_datagram_header(w, Some(data.len()));
    } else if let Some(padding) = w.remaining().checked_sub(datagram_size(data.len(), false)) {
        w.zeros(padding);
        write_datagram_header(w, None);
    } else {
        return false;
    }
    w.bytes(data);
    true
}

impl Connection {
    /// Queues a datagram (RFC 9221). It is sent at most once.
    /// Keeps RFC 9000 §19.21.
    ///
    /// # Errors
    /// The peer takes no datagrams, this one is larger than it takes or than the path carries, or
    /// the queue is full; [`Event::DatagramsUnblocked`] follows in the last case.
    pub fn send_datagram(&mut self, data: Bytes) -> Result<(), DatagramError> {
        let max = self.max_datagram_size();
        let max = max.ok_or(DatagramError::Unsupported)?;
        self.datagrams.send_within(max, data).map_err(|(e, _)| e)
    }

    /// Queues many datagrams, copied or written in place, without an allocation for each:
    ///
    /// ```
    /// # use corelane::conn::Connection;
    /// # use corelane::stream::DatagramError;
    /// # fn f(connection: &mut Connection, samples: &[[u8; 100]]) -> Result<(), DatagramError> {
    /// let mut batch = connection.datagram_batch()?;
    /// for sample in samples {
    ///     batch.push(sample)?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The peer takes no datagrams.
    pub fn datagram_batch(&mut self) -> Result<DatagramBatch<'_>, DatagramError> {
        let max = self.max_datagram_size();
        let max = max.ok_or(DatagramError::Unsupported)?;
        let queue = &mut self.datagrams;
        Ok(DatagramBatch { queue, max })
    }

    /// The largest datagram that can be sent now, in bytes; `None` when the peer takes none.
    pub fn max_datagram_size(&self) -> Option<usize> {
        let others = self.paths.others().filter(|p| p.state == PathState::Open);
        let room = others.map(|p| self.datagram_room_of(p));
        let room = room.fold(self.datagram_room(), usize::min);
        self.datagrams.max_len(room)
    }

    /// Bytes for frames in a full 1-RTT packet of the path in hand.
    pub(super) fn datagram_room(&self) -> usize {
        self.datagram_room_of(self.paths.current())
    }

    pub(super) fn datagram_room_of(&self, path: &Path<SentFrame>) -> usize {
        let header = if self.zero_rtt.can_send() {
            self.zero_rtt_header()
        } else {
            1 + path.remote_cids.active().len() + 4
        };
        path.mtu.current().saturating_sub(header + TAG_LEN)
    }

    /// The oldest received datagram.
    pub fn recv_datagram(&mut self) -> Option<Bytes> {
        self.datagrams.recv()
    }

    /// Shows `see` every received datagram that waits, oldest first, without an allocation for
    /// each; returns how many there were.
    pub fn recv_datagrams(&mut self, mut see: impl FnMut(&[u8])) -> usize {
        let mut count = 0;
        while self.datagrams.recv_with(&mut see) {
            count += 1;
        }
        count
    }

    /// Takes a datagram and those of the DATAGRAM frames that follow in its packet. What the sink
    /// does not take waits for the application, and so does all that comes after it.
    pub(super) fn on_datagrams(
        &mut self,
        packet: &Packet<'_>,
        first: &[u8],
        r: &mut Reader<'_>,
        sink: &mut dyn StreamSink,
    ) -> Result<(), TransportError> {
        let max = params::max_datagram_frame_size(&self.config);
        // What is early may be another's copy: it is told by an event before it is read.
        let mut offer = packet.ty == PacketType::OneRtt && !self.datagrams.has_received();
        let (mut taken, mut queued) = (0, false);
        let mut next = Some(first);
        while let Some(data) = next {
            // RFC 9221 §3: frames count in full, and none come where none were asked for.
            if max == 0 || datagram_size(data.len(), false) as u64 > max {
                return Err(TransportError::protocol_violation(
                    "a datagram that was not asked for",
                )
                .with_frame(ty::DATAGRAM));
            }
            offer = offer && sink.on_datagram(data);
            if offer {
                taken += 1;
            } else {
                self.datagrams.on_datagram(data);
                queued = true;
            }
            next = next_datagram(r)?;
        }
        self.datagrams.note_taken(taken);
        if queued {
            self.events.push(Event::DatagramReceived);
        }
        Ok(())
    }
}
