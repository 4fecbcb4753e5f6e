//! Sharing a socket with another protocol: which datagrams are QUIC's, and how the others are sent.
//!
//! Without a [`Demux`] everything that arrives is taken for QUIC. With one, each datagram is asked
//! about before anything else looks at it; what is not QUIC goes to `ShardApp::on_other`. Answers,
//! and whatever else the other protocol has to say, leave by an [`Outbox`], which is bounded: those
//! protocols repeat themselves, as everything on UDP must.

use crate::base::{BoundedQueue, Ecn, FourTuple, RecvMeta, SocketId, Transmit, limits};
use std::fmt;
use std::sync::Arc;

/// Says of a datagram, by its addresses and bytes, whether it is QUIC.
pub type IsQuic = Arc<dyn Fn(&FourTuple, &[u8]) -> bool + Send + Sync>;

/// Tells QUIC's datagrams from another protocol's on the same socket.
///
/// QUIC's fixed bit is what tells it here: a shard with one of these does not let peers vary that
/// bit, whatever `TransportConfig::grease_quic_bit` says (RFC 9287 §3.1).
#[derive(Clone)]
pub enum Demux {
    /// By the first byte (RFC 9443 §3): 64 to 127 and 192 to 255 are QUIC; STUN, DTLS, ZRTP, RTP
    /// and RTCP are not. TURN channels are taken for QUIC: clients of a TURN server tell those by
    /// its address, with [`Demux::By`].
    Rfc9443,
    /// By a function, which gets where a datagram came from and its bytes, and says whether it is
    /// QUIC. It is called for every datagram, on the shard's thread.
    By(IsQuic),
}

impl fmt::Debug for Demux {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rfc9443 => "Rfc9443",
            Self::By(_) => "By(..)",
        })
    }
}

impl Demux {
    /// Whether a datagram is QUIC.
    pub fn is_quic(&self, path: &FourTuple, datagram: &[u8]) -> bool {
        match self {
            Self::Rfc9443 => matches!(datagram.first(), Some(64..=127 | 192..=255)),
            Self::By(f) => f(path, datagram),
        }
    }

    /// Takes a train apart: runs of QUIC datagrams stay together, others are shown one by one.
    /// `sink` is told which it gets.
    pub(super) fn split(
        &self,
        meta: &RecvMeta,
        data: &mut [u8],
        sink: &mut dyn FnMut(bool, &RecvMeta, &mut [u8]),
    ) {
        let step = meta.segment_size.max(1);
        let mut rest = data;
        while !rest.is_empty() {
            let run: usize = rest
                .chunks(step)
                .take_while(|datagram| self.is_quic(&meta.path, datagram))
                .map(<[u8]>::len)
                .sum();
            let quic = run > 0;
            let len = if quic { run } else { step.min(rest.len()) };
            let Some((part, after)) = rest.split_at_mut_checked(len) else {
                return;
            };
            let segment_size = step.min(len);
            let meta = RecvMeta {
                segment_size,
                ..*meta
            };
            sink(quic, &meta, part);
            rest = after;
        }
    }
}

/// Why a datagram of another protocol was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutboxError {
    /// Too much waits.
    #[error("too many datagrams wait to be sent: this one is dropped; send it again later")]
    Full,
    /// No UDP datagram is that long, or this one is empty.
    #[error("a datagram has 1 to 65527 bytes, not {0}: split it")]
    Length(usize),
}

/// Datagrams of another protocol that wait to leave by a shard's sockets: at most
/// [`limits::OTHER_DATAGRAMS`], and [`limits::OTHER_BYTES`] bytes.
#[derive(Debug)]
pub struct Outbox {
    queue: BoundedQueue<(Transmit, Vec<u8>)>,
    bytes: usize,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            queue: BoundedQueue::new(limits::OTHER_DATAGRAMS),
            bytes: 0,
        }
    }
}

impl Outbox {
    /// Queues a datagram for the end of the shard's turn. It leaves `socket` from `path.local`,
    /// unless that is unspecified, for `path.remote`; if the socket does not take it then, it is
    /// dropped and counted as the backend counts.
    ///
    /// # Errors
    /// [`OutboxError`].
    pub fn send(
        &mut self,
        socket: SocketId,
        path: FourTuple,
        datagram: &[u8],
    ) -> Result<(), OutboxError> {
        let len = datagram.len();
        if len == 0 || len > limits::MAX_UDP_PAYLOAD {
            return Err(OutboxError::Length(len));
        }
        if self.bytes + len > limits::OTHER_BYTES {
            return Err(OutboxError::Full);
        }
        let transmit = Transmit {
            socket,
            path,
            ecn: Ecn::NotEct,
            segment_size: len,
            len,
        };
        self.queue
            .push((transmit, datagram.to_vec()))
            .map_err(|_| OutboxError::Full)?;
        self.bytes += len;
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The next datagram, written to `buf`.
    pub(super) fn poll(&mut self, buf: &mut [u8]) -> Option<Transmit> {
        let (transmit, bytes) = self.queue.pop()?;
        self.bytes -= bytes.len();
        buf.get_mut(..bytes.len())?.copy_from_slice(&bytes);
        Some(transmit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> FourTuple {
        let a = "127.0.0.1:1".parse().unwrap();
        FourTuple::new(a, a)
    }

    fn meta(segment_size: usize) -> RecvMeta {
        RecvMeta {
            socket: SocketId(3),
            path: path(),
            ecn: Ecn::Ect0,
            segment_size,
        }
    }

    #[test]
    fn the_first_byte_decides_as_rfc_9443_says() {
        let quic = |byte| Demux::Rfc9443.is_quic(&path(), &[byte, 0, 0]);
        for (range, expected) in [
            (0..=63u8, false),
            (64..=127, true),
            (128..=191, false),
            (192..=255, true),
        ] {
            for byte in range {
                assert_eq!(quic(byte), expected, "{byte}");
            }
        }
        assert!(!Demux::Rfc9443.is_quic(&path(), &[]));
    }

    #[test]
    fn a_train_of_both_is_taken_apart_in_order() {
        let mut data = Vec::new();
        for first in [0xc0, 0x40, 0x01, 0x02, 0x41] {
            data.extend([first, 7, 7]);
        }
        data.extend([0x03, 7]);
        let mut got = Vec::new();
        Demux::Rfc9443.split(&meta(3), &mut data, &mut |quic, meta, part| {
            got.push((quic, meta.segment_size, part.len(), part[0]));
        });
        assert_eq!(
            got,
            [
                (true, 3, 6, 0xc0),
                (false, 3, 3, 1),
                (false, 3, 3, 2),
                (true, 3, 3, 0x41),
                (false, 2, 2, 3),
            ]
        );
    }

    #[test]
    fn the_outbox_is_bounded_in_number_and_in_bytes() {
        let mut out = Outbox::default();
        let mut buf = vec![0; 65_536];
        assert_eq!(
            out.send(SocketId(0), path(), &[]),
            Err(OutboxError::Length(0))
        );
        let long = vec![0; limits::MAX_UDP_PAYLOAD + 1];
        assert!(matches!(
            out.send(SocketId(0), path(), &long),
            Err(OutboxError::Length(_))
        ));
        for n in 0..limits::OTHER_DATAGRAMS {
            assert_eq!(out.send(SocketId(0), path(), &[n as u8]), Ok(()));
        }
        assert_eq!(out.send(SocketId(0), path(), &[1]), Err(OutboxError::Full));
        assert_eq!(out.poll(&mut buf).map(|t| t.len), Some(1));
        assert_eq!(out.send(SocketId(0), path(), &[1]), Ok(()));
        while out.poll(&mut buf).is_some() {}
        let large = vec![5; 60_000];
        let fit = (0..100)
            .take_while(|_| out.send(SocketId(0), path(), &large).is_ok())
            .count();
        assert_eq!(fit, limits::OTHER_BYTES / large.len());
        while out.poll(&mut buf).is_some() {}
        assert!(out.is_empty() && out.bytes == 0);
    }
}
