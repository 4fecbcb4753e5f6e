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
use crate::wire::frame::{datagram_size, write_datagram_header};
use arena::Arena;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// What a queued datagram counts for beside its bytes.
const OVERHEAD: usize = size_of::<Bytes>();
/// The first and the largest block that datagrams handed out as [`Bytes`] share.
const BLOCKS: (usize, usize) = (2048, 64 * 1024);
/// Up to here a copy costs less than to keep a reference.
const COPIED: usize = 256;
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
    /// What is to be sent, in order.
    runs: VecDeque<Run>,
    /// Those of it that are not held, as DATAGRAM frames with their lengths.
    outgoing: Arena,
    /// Those of it that are.
    held: VecDeque<Bytes>,
    outgoing_bytes: usize,
    /// What the last datagram that was refused for want of room counts for; 0 when none was.
    refused: usize,
    /// What was received, while the application uses it.
    received: Option<Box<Received>>,
    send_bytes: usize,
    recv_bytes: usize,
    /// The peer's max_datagram_frame_size.
    peer_max: u64,
    stats: DatagramStats,
}

/// The receiving half of the queues.
#[derive(Debug)]
struct Received {
    /// Received datagrams, each behind its length.
    incoming: Arena,
    incoming_bytes: usize,
    /// The unused rest of the block that datagrams handed out are copied to.
    block: BytesMut,
    block_size: usize,
}

impl Default for Received {
    fn default() -> Self {
        Self {
            incoming: Arena::default(),
            incoming_bytes: 0,
            block: BytesMut::new(),
            block_size: BLOCKS.0,
        }
    }
}

impl Received {
    fn rest(&mut self) {
        self.incoming.rest();
        self.block = BytesMut::new();
        self.block_size = BLOCKS.0;
    }

    fn push(&mut self, data: &[u8]) {
        let frame = self.incoming.append(LENGTH + data.len());
        let (length, to) = frame.split_at_mut(LENGTH);
        length.copy_from_slice(&(data.len() as u32).to_ne_bytes());
        to.copy_from_slice(data);
        self.incoming_bytes += data.len() + OVERHEAD;
    }

    #[inline]
    fn recv_with(&mut self, see: impl FnOnce(&[u8])) -> bool {
        let Some((length, rest)) = self.incoming.bytes().split_first_chunk::<LENGTH>() else {
            return false;
        };
        let len = u32::from_ne_bytes(*length) as usize;
        see(&rest[..len]);
        self.incoming.consume(LENGTH + len);
        self.incoming_bytes -= len + OVERHEAD;
        true
    }

    fn recv(&mut self) -> Option<Bytes> {
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
}

impl Default for Datagrams {
    fn default() -> Self {
        Self::new(limits::DATAGRAM_SEND_BYTES, limits::DATAGRAM_RECV_BYTES)
    }
}

/// Datagrams of one length that follow each other to be sent.
#[derive(Clone, Copy, Debug)]
struct Run {
    len: u32,
    count: u32,
    /// They are kept by reference, not as frames.
    held: bool,
}

impl Datagrams {
    /// Empty queues of at most so many bytes; allocates nothing yet.
    pub fn new(send_bytes: usize, recv_bytes: usize) -> Self {
        Self {
            runs: VecDeque::new(),
            outgoing: Arena::default(),
            held: VecDeque::new(),
            outgoing_bytes: 0,
            refused: 0,
            received: None,
            send_bytes,
            recv_bytes,
            peer_max: 0,
            stats: DatagramStats::default(),
        }
    }

    /// Gives back memory that a burst left behind, of what is empty.
    pub(crate) fn rest(&mut self) {
        self.outgoing.rest();
        self.runs.shrink_to(0);
        self.held.shrink_to(0);
        match self.received.as_deref_mut() {
            Some(received) if !received.incoming.is_empty() => received.rest(),
            _ => self.received = None,
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
        self.send_within(max, data).map_err(|(e, _)| e)
    }

    /// Queues a datagram of at most `max` bytes, which is at most what [`Datagrams::max_len`] says;
    /// it comes back with the error.
    pub(crate) fn send_within(
        &mut self,
        max: usize,
        data: Bytes,
    ) -> Result<(), (DatagramError, Bytes)> {
        let done = if data.len() <= COPIED {
            self.push(max, data.len(), |to| to.copy_from_slice(&data))
        } else {
            self.claim(max, data.len(), true)
        };
        match done {
            Ok(()) if data.len() > COPIED => self.held.push_back(data),
            Ok(()) => {}
            Err(e) => return Err((e, data)),
        }
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
        self.claim(max, len, false)?;
        let frame = self.outgoing.append(datagram_size(len, true));
        let mut w = Writer::new(frame);
        write_datagram_header(&mut w, Some(len));
        let header = w.position();
        fill(&mut frame[header..]);
        Ok(())
    }

    /// Takes a place in the queue.
    #[inline]
    fn claim(&mut self, max: usize, len: usize, held: bool) -> Result<(), DatagramError> {
        if len > max {
            return Err(DatagramError::TooLarge(max));
        }
        let cost = len + OVERHEAD;
        if self.outgoing_bytes + cost > self.send_bytes {
            self.refused = cost;
            return Err(DatagramError::Full);
        }
        self.outgoing_bytes += cost;
        let len = len as u32;
        match self.runs.back_mut() {
            Some(run) if run.len == len && run.held == held => run.count += 1,
            _ => self.runs.push_back(Run {
                len,
                count: 1,
                held,
            }),
        }
        Ok(())
    }

    /// Whether datagrams wait to be sent.
    #[inline]
    pub fn wants_to_send(&self) -> bool {
        !self.runs.is_empty()
    }

    /// Whether the oldest datagrams to be sent are so many of one length.
    #[inline]
    pub(crate) fn wants_to_send_alike(&self, count: usize) -> bool {
        self.runs.front().is_some_and(|r| r.count as usize >= count)
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
        while let Some(&run) = self.runs.front() {
            let len = run.len as usize;
            let fit = w.remaining() / datagram_size(len, true);
            let fit = if fit > 0 {
                self.write_some(w, run, fit.min(run.count as usize))
            } else if let Some(padding) = w.remaining().checked_sub(datagram_size(len, false)) {
                // Too short for the length field: PADDING in front makes the datagram the rest.
                w.zeros(padding);
                write_datagram_header(w, None);
                self.pass(run, |data| w.bytes(data));
                1
            } else {
                break;
            };
            self.stats.tx += fit as u64;
            self.forget(run, fit);
        }
        (self.stats.tx - before) as usize
    }

    /// Appends `count` of a run, or fewer, but one at least; there is room. Returns how many.
    #[inline]
    fn write_some(&mut self, w: &mut Writer<'_>, run: Run, count: usize) -> usize {
        let len = run.len as usize;
        if run.held {
            write_datagram_header(w, Some(len));
            self.pass(run, |data| w.bytes(data));
            return 1;
        }
        let size = datagram_size(len, true);
        let ready = self.outgoing.bytes();
        let count = if count * size <= ready.len() {
            count
        } else {
            ready.len() / size
        };
        w.bytes(&ready[..count * size]);
        self.outgoing.consume(count * size);
        count
    }

    /// Takes the bytes of the oldest datagram, which is of `run`.
    fn pass(&mut self, run: Run, see: impl FnOnce(&[u8])) {
        if run.held {
            see(&self.held.pop_front().unwrap_or_default());
        } else {
            let size = datagram_size(run.len as usize, true);
            see(&self.outgoing.bytes()[size - run.len as usize..size]);
            self.outgoing.consume(size);
        }
    }

    /// Gives back the places of `count` datagrams of the oldest run.
    #[inline]
    fn forget(&mut self, run: Run, count: usize) {
        self.outgoing_bytes -= count * (run.len as usize + OVERHEAD);
        match self.runs.front_mut() {
            Some(front) if front.count as usize > count => front.count -= count as u32,
            _ => drop(self.runs.pop_front()),
        }
    }

    /// So many datagrams that waited elsewhere were put into packets.
    pub(crate) fn note_sent(&mut self, count: u64) {
        self.stats.tx += count;
    }

    /// Drops waiting datagrams at the front that a packet with `room` bytes for frames can never
    /// carry, after the path's packets became smaller.
    #[inline]
    pub fn drop_too_large(&mut self, room: usize) {
        while let Some(&run) = self.runs.front() {
            if datagram_size(run.len as usize, false) <= room {
                return;
            }
            self.pass(run, |_| {});
            self.forget(run, 1);
            self.stats.tx_too_large += 1;
        }
    }

    /// Datagrams that left the queue, sent or not.
    pub(crate) const fn passed(&self) -> u64 {
        self.stats.tx + self.stats.tx_too_large
    }

    /// What [`Datagrams::passed`] will be when the next one that is queued is about to leave.
    pub(crate) fn next_place(&self) -> u64 {
        let waiting = self.runs.iter().map(|r| u64::from(r.count));
        self.passed() + waiting.sum::<u64>()
    }

    /// Queues a received datagram, in place of the oldest ones where there is no room.
    pub fn on_datagram(&mut self, data: &[u8]) {
        self.stats.rx += 1;
        let cost = data.len() + OVERHEAD;
        let received = self.received.get_or_insert_default();
        while received.incoming_bytes + cost > self.recv_bytes {
            self.stats.rx_dropped += 1;
            if !received.recv_with(|_| {}) {
                // Larger than the whole queue.
                return;
            }
        }
        received.push(data);
    }

    /// Counts received datagrams that the application took before they were queued.
    #[inline]
    pub(crate) fn note_taken(&mut self, count: u64) {
        self.stats.rx += count;
    }

    /// Whether received datagrams wait for the application.
    #[inline]
    pub fn has_received(&self) -> bool {
        let received = self.received.as_deref();
        received.is_some_and(|r| !r.incoming.is_empty())
    }

    /// Shows `see` the oldest received datagram and forgets it; false when there is none.
    #[inline]
    pub fn recv_with(&mut self, see: impl FnOnce(&[u8])) -> bool {
        self.received
            .as_deref_mut()
            .is_some_and(|r| r.recv_with(see))
    }

    /// The oldest received datagram.
    pub fn recv(&mut self) -> Option<Bytes> {
        self.received.as_deref_mut()?.recv()
    }

    /// Counters.
    pub const fn stats(&self) -> DatagramStats {
        self.stats
    }
}

/// Bytes of a length field that states up to `len`.
fn length_size(len: usize) -> usize {
    datagram_size(len, true) - datagram_size(len, false)
}

#[cfg(test)]
mod tests;
