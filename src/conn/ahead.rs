//! Datagrams that came ahead of their connection: 0-RTT packets that overtook the Initial, and what
//! follows an Initial whose fate the application has not decided (RFC 9000 §5.2.2).
//!
//! They are kept in the order of arrival, for one connection and in all up to a cap; what is older
//! goes first. Nothing here has authenticated: the connection will open it or drop it.

use crate::base::{RecvMeta, limits};
use crate::wire::ConnectionId;
use std::collections::VecDeque;

struct Kept {
    dcid: ConnectionId,
    meta: RecvMeta,
    bytes: Vec<u8>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Ahead {
    kept: VecDeque<Kept>,
    bytes: usize,
}

impl Ahead {
    /// Keeps a datagram for the connection that `dcid` will lead to; false when that one has as
    /// many as it may.
    pub(super) fn keep(&mut self, dcid: ConnectionId, meta: &RecvMeta, datagram: &[u8]) -> bool {
        let same = self.kept.iter().filter(|k| k.dcid == dcid).count();
        if same >= limits::AHEAD_DATAGRAMS || datagram.len() > limits::AHEAD_BYTES {
            return false;
        }
        while self.bytes + datagram.len() > limits::AHEAD_BYTES
            || self.kept.len() >= limits::AHEAD_ALL_DATAGRAMS
        {
            let Some(old) = self.kept.pop_front() else {
                break;
            };
            self.bytes -= old.bytes.len();
        }
        self.bytes += datagram.len();
        let meta = RecvMeta {
            segment_size: datagram.len(),
            ..*meta
        };
        self.kept.push_back(Kept {
            dcid,
            meta,
            bytes: datagram.to_vec(),
        });
        true
    }

    /// Keeps what follows an Initial whose fate is not decided, rather than have the client repeat
    /// it.
    #[cold]
    pub(super) fn keep_train(&mut self, dcid: ConnectionId, meta: &RecvMeta, train: &[u8]) {
        for datagram in train.chunks(meta.segment_size.max(1)) {
            self.keep(dcid, meta, datagram);
        }
    }

    /// The oldest datagram for `dcid`, taken out.
    pub(super) fn take(&mut self, dcid: &ConnectionId) -> Option<(RecvMeta, Vec<u8>)> {
        let at = self.kept.iter().position(|k| k.dcid == *dcid)?;
        let kept = self.kept.remove(at)?;
        self.bytes -= kept.bytes.len();
        Some((kept.meta, kept.bytes))
    }

    /// Drops what came for `dcid`: no connection will come of it.
    pub(super) fn forget(&mut self, dcid: &ConnectionId) {
        while self.take(dcid).is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Ecn, FourTuple, SocketId};

    fn meta() -> RecvMeta {
        let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        RecvMeta {
            socket: SocketId(0),
            path: FourTuple::new(addr, addr),
            ecn: Ecn::NotEct,
            segment_size: 1,
        }
    }

    fn cid(n: u64) -> ConnectionId {
        ConnectionId::new(&n.to_be_bytes()).unwrap()
    }

    #[test]
    fn one_connection_has_its_share_and_the_oldest_make_room() {
        let mut ahead = Ahead::default();
        for _ in 0..limits::AHEAD_DATAGRAMS {
            assert!(ahead.keep(cid(0), &meta(), &[0; 10]));
        }
        assert!(!ahead.keep(cid(0), &meta(), &[0; 10]));
        for n in 1..10_000 {
            assert!(ahead.keep(cid(n), &meta(), &[0; 1200]));
            assert!(ahead.bytes <= limits::AHEAD_BYTES);
            assert!(ahead.kept.len() <= limits::AHEAD_ALL_DATAGRAMS);
        }
        assert!(ahead.take(&cid(0)).is_none(), "the oldest are gone");
        assert!(ahead.take(&cid(9_999)).is_some());
        for n in 0..10_000 {
            ahead.forget(&cid(n));
        }
        assert_eq!((ahead.bytes, ahead.kept.len()), (0, 0));
        for n in 0..10_000 {
            ahead.keep(cid(n), &meta(), &[]);
        }
        assert_eq!(ahead.kept.len(), limits::AHEAD_ALL_DATAGRAMS);
        assert!(!ahead.keep(cid(1), &meta(), &vec![0; limits::AHEAD_BYTES + 1]));
    }

    #[test]
    fn they_come_back_in_the_order_of_arrival() {
        let mut ahead = Ahead::default();
        for n in [1u8, 2, 3] {
            ahead.keep(cid(7), &meta(), &[n; 5]);
            ahead.keep(cid(8), &meta(), &[n; 9]);
        }
        let order: Vec<u8> = std::iter::from_fn(|| ahead.take(&cid(7)))
            .map(|(meta, bytes)| {
                assert_eq!((meta.segment_size, bytes.len()), (5, 5));
                bytes[0]
            })
            .collect();
        assert_eq!(order, [1, 2, 3]);
    }
}
