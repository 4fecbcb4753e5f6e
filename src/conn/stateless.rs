//! Packets that need no connection: Version Negotiation, Retry, stateless reset, refusal.
//!
//! Each answers one datagram and is smaller than it, so none amplifies or loops. A bounded queue
//! holds them; what does not fit is not sent, for the peer will ask again.

use crate::base::{BoundedQueue, Ecn, RecvMeta, Rng, Transmit, limits};
use crate::crypto::{Key, TAG_LEN, retry, seal};
use crate::wire::error::Code;
use crate::wire::frame::{self, ConnectionClose};
use crate::wire::header::{self, LongType};
use crate::wire::version::{self, Versions};
use crate::wire::{ConnectionId, Version, Writer, packet_number};
use smallvec::SmallVec;

/// What we send at most, with a length that varies.
const MAX_RESET: usize = 42;
const LARGEST: usize = 512;
const QUEUED: usize = 64;

pub(super) struct Stateless {
    queue: BoundedQueue<(Transmit, Vec<u8>)>,
    rng: Rng,
}

impl Stateless {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            queue: BoundedQueue::new(QUEUED),
            rng,
        }
    }

    /// The next packet, written to `buf`.
    pub(super) fn poll(&mut self, buf: &mut [u8]) -> Option<Transmit> {
        let (transmit, bytes) = self.queue.pop()?;
        buf.get_mut(..bytes.len())?.copy_from_slice(&bytes);
        Some(transmit)
    }

    /// Whether nothing waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether another packet would be kept; asked before work is put into one.
    pub(super) fn has_room(&self) -> bool {
        self.queue.len() < self.queue.capacity()
    }

    fn push(&mut self, meta: &RecvMeta, bytes: Vec<u8>) {
        let transmit = Transmit {
            socket: meta.socket,
            path: meta.path,
            ecn: Ecn::NotEct,
            segment_size: bytes.len(),
            len: bytes.len(),
        };
        // A full queue means that we are asked faster than we can answer; the rest goes unanswered.
        let _ = self.queue.push((transmit, bytes));
    }

    fn write(&mut self, meta: &RecvMeta, size: usize, f: impl FnOnce(&mut Writer<'_>)) {
        let mut bytes = vec![0; size];
        let mut w = Writer::new(&mut bytes);
        f(&mut w);
        let n = w.position();
        bytes.truncate(n);
        self.push(meta, bytes);
    }

    /// Answers a packet of a version that is not spoken here (RFC 9000 §6.1), once (§17.2.1).
    pub(super) fn version_negotiation(
        &mut self,
        meta: &RecvMeta,
        dcid: &[u8],
        scid: &[u8],
        spoken: &Versions,
    ) {
        let unused = self.rng.next_u64() as u8;
        // A reserved version keeps peers from taking the list for fixed (RFC 9000 §6.3).
        let mut versions: SmallVec<[u32; 3]> = SmallVec::new();
        versions.push(version::reserved(&mut self.rng));
        versions.extend(spoken.iter().map(|v| v.number()));
        let size = header::version_negotiation_size(scid.len(), dcid.len(), versions.len());
        self.write(meta, size, |w| {
            header::write_version_negotiation(w, unused, scid, dcid, &versions);
        });
    }

    /// Answers a short-header packet of an unknown connection (RFC 9000 §10.3): smaller than it, so
    /// that two endpoints do not answer each other for ever (§10.3.3).
    pub(super) fn reset(&mut self, meta: &RecvMeta, received: usize, token: [u8; 16]) -> bool {
        if received <= limits::MIN_STATELESS_RESET {
            return false;
        }
        let size = (limits::MIN_STATELESS_RESET
            + self
                .rng
                .below((MAX_RESET - limits::MIN_STATELESS_RESET) as u64) as usize)
            .min(received - 1);
        let mut bytes = vec![0; size];
        self.rng.fill(&mut bytes);
        if let Some(first) = bytes.first_mut() {
            *first = (*first & 0x3f) | header::FIXED_BIT;
        }
        if let Some(end) = bytes.last_chunk_mut() {
            *end = token;
        }
        self.push(meta, bytes);
        true
    }

    /// Asks a client to prove its address (RFC 9000 §17.2.5), with a connection ID of its own
    /// (§17.2.5.1).
    pub(super) fn retry(
        &mut self,
        meta: &RecvMeta,
        version: Version,
        odcid: &ConnectionId,
        client: &ConnectionId,
        scid: &ConnectionId,
        token: &[u8],
    ) {
        let mut bytes = vec![0; LARGEST];
        let mut w = Writer::new(&mut bytes);
        header::write_retry(&mut w, version.number(), client, scid, token);
        let n = w.position();
        bytes.truncate(n);
        if let Some(tag) = retry::integrity_tag(version, odcid.as_slice(), &bytes) {
            bytes.extend_from_slice(&tag);
            self.push(meta, bytes);
        }
    }

    /// Refuses a connection attempt with a close in an Initial packet (RFC 9000 §5.2.2).
    pub(super) fn refuse(
        &mut self,
        meta: &RecvMeta,
        version: Version,
        dcid: &ConnectionId,
        client: &ConnectionId,
        key: &Key,
        code: Code,
    ) {
        let mut bytes = vec![0; limits::MIN_UDP_PAYLOAD];
        let mut w = Writer::new(&mut bytes);
        let number = version.number();
        let offsets = header::write_long(&mut w, LongType::Initial, number, client, dcid, &[], 1);
        packet_number::write(&mut w, 0, 1);
        let close = ConnectionClose {
            error: code,
            frame_type: Some(0),
            reason: &[],
        };
        if !frame::write_connection_close(&mut w, &close) {
            return;
        }
        let len = w.position() + TAG_LEN;
        offsets.patch_length(&mut w, len);
        bytes.truncate(len);
        if seal(key, 0, 0, &mut bytes, offsets.packet_number, 1).is_ok() {
            self.push(meta, bytes);
        }
    }
}
