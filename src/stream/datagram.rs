//! Unreliable datagrams (RFC 9221): two queues bounded in bytes, one to send and one received.
//!
//! Each datagram counts [`OVERHEAD`] bytes on top of its own, so that empty ones are bounded too. A
//! full receive queue drops its oldest: what is newest is worth most to who uses datagrams. Sent
//! datagrams are never sent again; the fate of a packet that carried one concerns nobody here.
//!
//! Small datagrams cost no allocation: those to send lie in one block as the frames that they will
//! be, so that a packet takes as many as it has room for in one copy; received ones lie in another
//! until the application has seen them.

mod arena;

use crate::base::limits;
use crate::wire::Writer;
use crate::wire::frame::{datagram_size, ty, write_datagram_header};
use arena::Arena;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// What a queued datagram counts for beside its bytes.
const OVERHEAD: usize = size_of::<Bytes>();
/// The first and the largest block that datagrams handed out as [`Bytes`] share.
const BLOCKS: (usize, usize) = (2048, 64 * 1024);
/// Up to here a copy costs less than to keep a reference.
const COPIED: usize = 256;
/// Stands for a datagram in `held` among the frames to send. No frame begins with it.
const HELD: u8 = 0xff;
/// The length in front of a received datagram.
const LENGTH: usize = size_of::<u32>();

/// Why a datagram was not queued for sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// The peer takes no datagrams.
    #[error("the peer takes no datagrams")]
    Unsupported,
    /// The datagram is longer than the peer takes, the path carries or the queue holds.
    #[error("the datagram is longer than the {0} bytes that can be sent")]
    TooLarge(usize),
    /// The queue is full.
    #[error("too many datagrams wait to be sent")]
    Full,
}

/// Counters since the start of the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramStats {
    /// Datagrams put into packets.
    pub tx: u64,
    /// Datagrams that outgrew the path's packets after they were queued, and were dropped.
    pub tx_too_large: u64,
    /// Datagrams received.
    pub rx: u64,
    /// Of those, datagrams dropped because the application did not read in time.
    pub rx_dropped: u64,
}

/// The datagrams of one connection.
#[derive(Debug)]
pub struct Datagrams {
    /// DATAGRAM frames with their lengths, and [`HELD`] marks.
    outgoing: Arena,
    /// Longer datagrams to send, by reference.
    held: VecDeque<Bytes>,
    outgoing_bytes: usize,
    /// What the last datagram that was refused for want of room counts for; 0 when none was.
    refused: usize,
    /// Received datagrams, each behind its length.
    incoming: Arena,
    incoming_bytes: usize,
    /// The unused rest of the block that datagrams handed out are copied to.
    block: BytesMut,
    block_size: usize,
    send_bytes: usize,
    recv_bytes: usize,
    /// The peer's max_datagram_frame_size.
    peer_max: u64,
    stats: DatagramStats,
}

impl Default for Datagrams {
    fn default() -> Self {
        Self::new(limits::DATAGRAM_SEND_BYTES, limits::DATAGRAM_RECV_BYTES)
    }
}

/// The oldest datagram to send.
enum Front {
    /// It lies behind so many bytes of frame header.
    Framed {
        header: usize,
        len: usize,
    },
    Held(usize),
}

impl Front {
    #[inline]
    fn len(&self) -> usize {
        match *self {
            Self::Framed { len, .. } | Self::Held(len) => len,
        }
    }
}

impl Datagrams {
    /// Empty queues of at most so many bytes; allocates nothing yet.
    pub fn new(send_bytes: usize, recv_bytes: usize) -> Self {
        Self {
            outgoing: Arena::default(),
            held: VecDeque::new(),
            outgoing_bytes: 0,
            refused: 0,
            incoming: Arena::default(),
            incoming_bytes: 0,
            block: BytesMut::new(),
            block_size: BLOCKS.0,
            send_bytes,
            recv_bytes,
            peer_max: 0,
            stats: DatagramStats::default(),
        }
    }

    /// Takes over the peer's max_datagram_frame_size, in bytes; 0 means that it takes none.
    pub fn set_peer_max(&mut self, max_datagram_frame_size: u64) {
        self.peer_max = max_datagram_frame_size;
    }

    /// The longest datagram that the peer takes, that a packet with `room` bytes for frames carries
    /// and that the queue holds; `None` when the peer takes none.
    pub fn max_len(&self, room: usize) -> Option<usize> {
        // Without a length the frame's overhead is its type; peers count the frame as sent, and
        // one that is not the packet's last has a length of up to four bytes (RFC 9221 §3, §4).
        let peer = usize::try_from(self.peer_max).unwrap_or(usize::MAX);
        let peer = peer.checked_sub(1)?;
        let with_length = datagram_size(0, false) + length_size(peer);
        let peer = (peer + 1).checked_sub(with_length)?;
        let held = self.send_bytes.saturating_sub(OVERHEAD);
        Some(peer.min(room.saturating_sub(1)).min(held))
    }

    /// Queues a datagram.
    ///
    /// # Errors
    ///
    /// [`DatagramError`]; the datagram is not queued then.
    pub fn send(&mut self, data: Bytes) -> Result<(), DatagramError> {
        let max = self.max_len(usize::MAX).ok_or(DatagramError::Unsupported)?;
        self.send_within(max, data)
    }

    /// Queues a datagram of at most `max` bytes, which is at most what [`Datagrams::max_len`] says.
    pub(crate) fn send_within(&mut self, max: usize, data: Bytes) -> Result<(), DatagramError> {
        if data.len() <= COPIED {
            return self.push(max, data.len(), |to| to.copy_from_slice(&data));
        }
        self.claim(max, data.len())?;
        self.outgoing.append(1).fill(HELD);
        self.held.push_back(data);
        Ok(())
    }

    /// Queues a datagram of `len` bytes, at most `max`, that `fill` writes: all of them, for they
    /// are what was there before.
    #[inline]
    pub(crate) fn push(
        &mut self,
        max: usize,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), DatagramError> {
        self.claim(max, len)?;
        let frame = self.outgoing.append(datagram_size(len, true));
        let mut w = Writer::new(frame);
        write_datagram_header(&mut w, Some(len));
        let header = w.position();
        fill(&mut frame[header..]);
        Ok(())
    }

    /// Takes room in the queue.
    #[inline]
    fn claim(&mut self, max: usize, len: usize) -> Result<(), DatagramError> {
        if len > max {
            return Err(DatagramError::TooLarge(max));
        }
        let cost = len + OVERHEAD;
        if self.outgoing_bytes + cost > self.send_bytes {
            self.refused = cost;
            return Err(DatagramError::Full);
        }
        self.outgoing_bytes += cost;
        Ok(())
    }

    /// Whether datagrams wait to be sent.
    #[inline]
    pub fn wants_to_send(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether a datagram was refused, and by now the queue has room for it and is half empty.
    #[inline]
    pub fn is_unblocked(&self) -> bool {
        self.refused > 0
            && self.outgoing_bytes + self.refused.max(self.send_bytes / 2) <= self.send_bytes
    }

    /// As [`Datagrams::is_unblocked`], once.
    pub fn take_unblocked(&mut self) -> bool {
        let unblocked = self.is_unblocked();
        if unblocked {
            self.refused = 0;
        }
        unblocked
    }

    /// Appends the oldest datagrams, as many as fit; returns how many. The last one has no length
    /// when it fills the packet.
    pub fn write(&mut self, w: &mut Writer<'_>) -> usize {
        let before = self.stats.tx;
        self.write_framed(w);
        while let Some(front) = self.front() {
            let len = front.len();
            if datagram_size(len, true) <= w.remaining() {
                write_datagram_header(w, Some(len));
            } else if let Some(padding) = w.remaining().checked_sub(datagram_size(len, false)) {
                // Too short for the length field: PADDING in front makes the datagram the rest.
                w.zeros(padding);
                write_datagram_header(w, None);
            } else {
                break;
            }
            self.pop(&front, |data| w.bytes(data));
            self.stats.tx += 1;
            self.write_framed(w);
        }
        (self.stats.tx - before) as usize
    }

    /// Appends those of the oldest that lie ready as frames and fit, in one copy.
    #[inline]
    fn write_framed(&mut self, w: &mut Writer<'_>) {
        let queue = self.outgoing.bytes();
        let queue = queue.get(..w.remaining()).unwrap_or(queue);
        let (mut at, mut cost, mut count) = (0, 0, 0);
        while let Some((header, len)) = framed(&queue[at..]) {
            let end = at + header + len;
            if end > queue.len() {
                break;
            }
            at = end;
            cost += len + OVERHEAD;
            count += 1;
        }
        if count > 0 {
            w.bytes(&queue[..at]);
            self.outgoing.consume(at);
            self.outgoing_bytes -= cost;
            self.stats.tx += count;
        }
    }

    #[inline]
    fn front(&self) -> Option<Front> {
        match framed(self.outgoing.bytes()) {
            Some((header, len)) => Some(Front::Framed { header, len }),
            None => self.held.front().map(|data| Front::Held(data.len())),
        }
    }

    /// Takes the oldest datagram to send out of the queue.
    fn pop(&mut self, front: &Front, see: impl FnOnce(&[u8])) {
        match *front {
            Front::Framed { header, len } => {
                see(&self.outgoing.bytes()[header..header + len]);
                self.outgoing.consume(header + len);
            }
            Front::Held(_) => {
                see(&self.held.pop_front().unwrap_or_default());
                self.outgoing.consume(1);
            }
        }
        self.outgoing_bytes -= front.len() + OVERHEAD;
    }

    /// Drops waiting datagrams at the front that a packet with `room` bytes for frames can never
    /// carry, after the path's packets became smaller.
    pub fn drop_too_large(&mut self, room: usize) {
        while let Some(front) = self.front() {
            if datagram_size(front.len(), false) <= room {
                return;
            }
            self.pop(&front, |_| {});
            self.stats.tx_too_large += 1;
        }
    }

    /// Queues a received datagram, in place of the oldest ones where there is no room.
    pub fn on_datagram(&mut self, data: &[u8]) {
        self.stats.rx += 1;
        let cost = data.len() + OVERHEAD;
        while self.incoming_bytes + cost > self.recv_bytes {
            self.stats.rx_dropped += 1;
            if !self.recv_with(|_| {}) {
                // Larger than the whole queue.
                return;
            }
        }
        let (length, to) = self
            .incoming
            .append(LENGTH + data.len())
            .split_at_mut(LENGTH);
        length.copy_from_slice(&(data.len() as u32).to_ne_bytes());
        to.copy_from_slice(data);
        self.incoming_bytes += cost;
    }

    /// Counts received datagrams that the application took before they were queued.
    #[inline]
    pub(crate) fn note_taken(&mut self, count: u64) {
        self.stats.rx += count;
    }

    /// Whether received datagrams wait for the application.
    #[inline]
    pub fn has_received(&self) -> bool {
        !self.incoming.is_empty()
    }

    /// Shows `see` the oldest received datagram and forgets it; false when there is none.
    #[inline]
    pub fn recv_with(&mut self, see: impl FnOnce(&[u8])) -> bool {
        let Some((length, rest)) = self.incoming.bytes().split_first_chunk::<LENGTH>() else {
            return false;
        };
        let len = u32::from_ne_bytes(*length) as usize;
        see(&rest[..len]);
        self.incoming.consume(LENGTH + len);
        self.incoming_bytes -= len + OVERHEAD;
        true
    }

    /// The oldest received datagram.
    pub fn recv(&mut self) -> Option<Bytes> {
        // Out of the way of the borrow; an empty one costs nothing.
        let (mut block, size) = (std::mem::take(&mut self.block), self.block_size);
        let mut grown = false;
        let some = self.recv_with(|data| {
            if block.capacity() < data.len() {
                // One allocation for many datagrams, in small steps while there are few.
                block = BytesMut::with_capacity(size.max(data.len()));
                grown = true;
            }
            block.extend_from_slice(data);
        });
        if grown {
            self.block_size = (size * 2).min(BLOCKS.1);
        }
        let data = some.then(|| block.split().freeze());
        self.block = block;
        data
    }

    /// Counters.
    pub const fn stats(&self) -> DatagramStats {
        self.stats
    }
}

/// The length of the header of the frame that `queue` begins with, and that of its data; `None`
/// when it is empty or begins with a mark.
#[inline]
fn framed(queue: &[u8]) -> Option<(usize, usize)> {
    const TYPE: u8 = ty::DATAGRAM_LEN as u8;
    match *queue {
        [TYPE, a @ ..0x40, ..] => Some((2, a.into())),
        [TYPE, a @ ..0x80, b, ..] => Some((3, u16::from_be_bytes([a & 0x3f, b]).into())),
        [TYPE, a, b, c, d, ..] => {
            let len = u32::from_be_bytes([a & 0x3f, b, c, d]);
            Some((5, len as usize))
        }
        _ => None,
    }
}

/// Bytes of a length field that states up to `len`.
fn length_size(len: usize) -> usize {
    datagram_size(len, true) - datagram_size(len, false)
}

#[cfg(test)]
mod tests;
