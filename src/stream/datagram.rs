//! Unreliable datagrams (RFC 9221): two queues bounded in bytes, one to send and one received.
//!
//! Each datagram counts [`OVERHEAD`] bytes on top of its own, so that empty ones are bounded too. A
//! full receive queue drops its oldest: what is newest is worth most to who uses datagrams. Sent
//! datagrams are never sent again; the fate of a packet that carried one concerns nobody here.

use crate::base::limits;
use crate::wire::Writer;
use crate::wire::frame::{datagram_size, write_datagram_header};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// What a queued datagram counts for beside its bytes.
const OVERHEAD: usize = size_of::<Bytes>();
/// The first and the largest block that received datagrams share.
const BLOCKS: (usize, usize) = (2048, 64 * 1024);

/// Why a datagram was not queued for sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// The peer takes no datagrams.
    #[error("the peer takes no datagrams")]
    Unsupported,
    /// The datagram is longer than the peer takes.
    #[error("the datagram is longer than the {0} bytes that the peer takes")]
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
    outgoing: VecDeque<Bytes>,
    outgoing_bytes: usize,
    incoming: VecDeque<Bytes>,
    incoming_bytes: usize,
    /// The unused rest of the block that received datagrams are copied to.
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

impl Datagrams {
    /// Empty queues of at most so many bytes; allocates nothing yet.
    pub fn new(send_bytes: usize, recv_bytes: usize) -> Self {
        Self {
            outgoing: VecDeque::new(),
            outgoing_bytes: 0,
            incoming: VecDeque::new(),
            incoming_bytes: 0,
            block: BytesMut::new(),
            block_size: BLOCKS.0,
            send_bytes,
            recv_bytes,
            peer_max: 0,
            stats: DatagramStats::default(),
        }
    }

    /// Gives back memory that a burst left behind, of what is empty.
    pub(crate) fn rest(&mut self) {
        self.outgoing.shrink_to(0);
        self.incoming.shrink_to(0);
        self.block = BytesMut::new();
        self.block_size = BLOCKS.0;
    }

    /// Takes over the peer's max_datagram_frame_size, in bytes; 0 means that it takes none.
    pub fn set_peer_max(&mut self, max_datagram_frame_size: u64) {
        self.peer_max = max_datagram_frame_size;
    }

    /// The longest datagram that the peer takes and that a packet with `room` bytes for frames
    /// carries; `None` when the peer takes none.
    pub fn max_len(&self, room: usize) -> Option<usize> {
        // Without a length the frame's overhead is its type; peers count the frame as sent, and
        // one that is not the packet's last has a length of up to four bytes (RFC 9221 §3, §4).
        let peer = usize::try_from(self.peer_max).unwrap_or(usize::MAX);
        let peer = peer.checked_sub(1)?;
        let with_length = datagram_size(0, false) + length_size(peer);
        let peer = (peer + 1).checked_sub(with_length)?;
        Some(peer.min(room.saturating_sub(1)))
    }

    /// Queues a datagram.
    ///
    /// # Errors
    ///
    /// [`DatagramError`]; the datagram is not queued then.
    pub fn send(&mut self, data: Bytes) -> Result<(), DatagramError> {
        let max = self.max_len(usize::MAX).ok_or(DatagramError::Unsupported)?;
        if data.len() > max {
            return Err(DatagramError::TooLarge(max));
        }
        let cost = data.len() + OVERHEAD;
        if self.outgoing_bytes + cost > self.send_bytes {
            return Err(DatagramError::Full);
        }
        self.outgoing_bytes += cost;
        self.outgoing.push_back(data);
        Ok(())
    }

    /// Whether datagrams wait to be sent.
    #[inline]
    pub fn wants_to_send(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Appends the oldest datagram if it fits; false when none waits or it does not. It has no
    /// length when it fills the packet.
    pub fn write(&mut self, w: &mut Writer<'_>) -> bool {
        let Some(data) = self.outgoing.front() else {
            return false;
        };
        if datagram_size(data.len(), true) <= w.remaining() {
            write_datagram_header(w, Some(data.len()));
        } else if let Some(padding) = w.remaining().checked_sub(datagram_size(data.len(), false)) {
            // Too short for the length field: PADDING in front makes the datagram the rest.
            w.zeros(padding);
            write_datagram_header(w, None);
        } else {
            return false;
        }
        w.bytes(data);
        self.outgoing_bytes -= data.len() + OVERHEAD;
        self.outgoing.pop_front();
        self.stats.tx += 1;
        true
    }

    /// Drops waiting datagrams at the front that a packet with `room` bytes for frames can never
    /// carry, after the path's packets became smaller.
    pub fn drop_too_large(&mut self, room: usize) {
        while let Some(data) = self.outgoing.front() {
            if datagram_size(data.len(), false) <= room {
                return;
            }
            self.outgoing_bytes -= data.len() + OVERHEAD;
            self.outgoing.pop_front();
            self.stats.tx_too_large += 1;
        }
    }

    /// Queues a received datagram, in place of the oldest ones where there is no room.
    pub fn on_datagram(&mut self, data: &[u8]) {
        self.stats.rx += 1;
        let cost = data.len() + OVERHEAD;
        while self.incoming_bytes + cost > self.recv_bytes {
            self.stats.rx_dropped += 1;
            match self.incoming.pop_front() {
                Some(old) => self.incoming_bytes -= old.len() + OVERHEAD,
                // Larger than the whole queue.
                None => return,
            }
        }
        if self.block.capacity() < data.len() {
            // One allocation for many datagrams, in small steps while there are few.
            self.block = BytesMut::with_capacity(self.block_size.max(data.len()));
            self.block_size = (self.block_size * 2).min(BLOCKS.1);
        }
        self.block.extend_from_slice(data);
        self.incoming.push_back(self.block.split().freeze());
        self.incoming_bytes += cost;
    }

    /// The oldest received datagram.
    pub fn recv(&mut self) -> Option<Bytes> {
        let data = self.incoming.pop_front()?;
        self.incoming_bytes -= data.len() + OVERHEAD;
        Some(data)
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
mod tests {
    use super::*;
    use crate::wire::{Frame, Reader};

    fn queue(send: usize, recv: usize) -> Datagrams {
        let mut d = Datagrams::new(send, recv);
        d.set_peer_max(65_535);
        d
    }

    fn frames(packet: &[u8]) -> Vec<Vec<u8>> {
        let (mut r, mut out) = (Reader::new(packet), Vec::new());
        while !r.is_empty() {
            match Frame::parse(&mut r).unwrap() {
                Frame::Datagram(d) => out.push(d.to_vec()),
                Frame::Padding => {}
                other => panic!("{other:?}"),
            }
        }
        out
    }

    #[test]
    fn datagrams_share_packets_and_fill_them_exactly() {
        for room in 1..40 {
            let mut d = queue(1 << 20, 1 << 20);
            for len in [10, 0, 20] {
                d.send(Bytes::from(vec![len as u8; len])).unwrap();
            }
            let mut got = Vec::new();
            while d.wants_to_send() {
                let mut buf = vec![0xff; room];
                let mut w = Writer::new(&mut buf);
                let mut wrote = false;
                while d.write(&mut w) {
                    wrote = true;
                }
                if !wrote {
                    let before = d.stats().tx_too_large;
                    d.drop_too_large(room);
                    assert_eq!(d.stats().tx_too_large, before + 1);
                    continue;
                }
                got.extend(frames(w.written()));
            }
            let sent: Vec<Vec<u8>> = [10usize, 0, 20]
                .into_iter()
                .filter(|&len| len < room)
                .map(|len| vec![len as u8; len])
                .collect();
            assert_eq!(got, sent, "{room} bytes of room");
            assert_eq!(d.outgoing_bytes, 0);
        }
    }

    #[test]
    fn the_peer_and_the_queue_bound_what_is_sent() {
        let mut d = Datagrams::new(200, 200);
        assert_eq!(d.send(Bytes::new()), Err(DatagramError::Unsupported));
        d.set_peer_max(50);
        assert_eq!(d.max_len(1200), Some(48));
        assert_eq!(d.max_len(20), Some(19));
        let data = |n| Bytes::from(vec![1; n]);
        assert_eq!(d.send(data(49)), Err(DatagramError::TooLarge(48)));
        assert_eq!(d.send(data(48)), Ok(()));
        assert_eq!(d.send(data(48)), Ok(()));
        assert_eq!(d.send(data(48)), Err(DatagramError::Full));
        // Empty datagrams are not free.
        let mut d = queue(10 * OVERHEAD, 0);
        assert_eq!(
            (0..100).filter(|_| d.send(Bytes::new()).is_ok()).count(),
            10
        );
    }

    #[test]
    fn a_full_receive_queue_drops_the_oldest() {
        let mut d = queue(0, 10 * OVERHEAD);
        for _ in 0..1000 {
            d.on_datagram(&[]);
        }
        assert_eq!(d.incoming.len(), 10);
        assert_eq!((d.stats().rx, d.stats().rx_dropped), (1000, 990));
        d.on_datagram(&[7; 40]);
        assert_eq!(
            d.incoming_bytes,
            d.incoming.iter().map(|b| b.len() + OVERHEAD).sum::<usize>()
        );
        while let Some(b) = d.recv() {
            assert!(b.is_empty() || b == vec![7; 40]);
        }
        assert_eq!(d.incoming_bytes, 0);
        // One that could never fit takes the others' place in vain, and is dropped itself.
        d.on_datagram(&[0; 4000]);
        assert_eq!(d.recv(), None);
    }

    #[test]
    fn received_datagrams_share_blocks() {
        let mut d = queue(0, 1 << 20);
        for i in 0..2000u32 {
            d.on_datagram(&i.to_be_bytes());
        }
        for i in 0..2000u32 {
            assert_eq!(d.recv().unwrap(), i.to_be_bytes().as_slice());
        }
        assert!(d.block_size > BLOCKS.0);
    }
}
