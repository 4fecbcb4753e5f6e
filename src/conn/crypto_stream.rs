//! The CRYPTO data of one encryption level (RFC 9000 §7.5): ordered, retransmitted, without flow
//! control but with a window.

use crate::base::limits;
use crate::stream::{Assembler, RangeSet};
use crate::wire::frame::crypto;
use crate::wire::{TransportError, Writer};

/// Both directions of one level's handshake bytes.
#[derive(Debug, Default)]
pub(crate) struct CryptoStream {
    /// Bytes not yet acknowledged from `base` on.
    out: Vec<u8>,
    base: u64,
    /// Offset of the first byte never sent.
    next: u64,
    lost: RangeSet,
    acked: RangeSet,
    incoming: Assembler,
}

impl CryptoStream {
    /// Appends bytes that TLS produced.
    pub(crate) fn send(&mut self, data: &[u8]) {
        self.out.extend_from_slice(data);
    }

    fn end(&self) -> u64 {
        self.base + self.out.len() as u64
    }

    /// Whether something waits to be sent or resent.
    pub(crate) fn wants_to_send(&self) -> bool {
        self.next < self.end() || !self.lost.is_empty()
    }

    /// Writes one CRYPTO frame if something waits and fits. Returns its offset and length.
    pub(crate) fn write(&mut self, w: &mut Writer<'_>) -> Option<(u64, u16)> {
        let (start, end) = match self.lost.first() {
            Some(r) => (r.start, r.end),
            None if self.next < self.end() => (self.next, self.end()),
            None => return None,
        };
        let overhead = crypto::header_size(start, w.remaining());
        let room = w.remaining().checked_sub(overhead).filter(|n| *n > 0)? as u64;
        let len = room.min(end - start).min(u64::from(u16::MAX));
        let at = (start - self.base) as usize;
        let data = self.out.get(at..at + len as usize)?;
        crypto::write(w, start, data);
        self.lost.remove(start..start + len);
        self.next = self.next.max(start + len);
        Some((start, len as u16))
    }

    /// A frame was acknowledged; bytes acknowledged up to some offset are freed.
    pub(crate) fn on_acked(&mut self, offset: u64, len: u16) {
        let range = offset..offset + u64::from(len);
        self.lost.remove(range.clone());
        self.acked.insert(range);
        if let Some(first) = self.acked.first().filter(|r| r.start <= self.base) {
            let n = (first.end.saturating_sub(self.base) as usize).min(self.out.len());
            self.out.drain(..n);
            self.base += n as u64;
            self.acked.remove(0..self.base);
        }
    }

    /// A frame was lost: what is not acknowledged otherwise is sent again.
    pub(crate) fn on_lost(&mut self, offset: u64, len: u16) {
        let start = offset.max(self.base);
        let end = offset + u64::from(len);
        if start >= end {
            return;
        }
        self.lost.insert(start..end);
        for r in self.acked.iter() {
            self.lost.remove(r);
        }
    }

    /// Sends everything unacknowledged again, as after a Retry.
    pub(crate) fn resend_all(&mut self) {
        self.next = self.base;
        self.lost = RangeSet::default();
    }

    /// Offset up to which everything was received and read.
    pub(crate) fn received(&self) -> u64 {
        self.incoming.read_offset()
    }

    /// Takes received bytes; those that are in order come out through `read`.
    pub(crate) fn recv(
        &mut self,
        offset: u64,
        data: &[u8],
        mut read: impl FnMut(&[u8]) -> Result<(), TransportError>,
    ) -> Result<(), TransportError> {
        let end = offset.saturating_add(data.len() as u64);
        if end > self.incoming.read_offset() + limits::CRYPTO_WINDOW {
            return Err(TransportError::crypto_buffer_exceeded("CRYPTO data too far ahead"));
        }
        self.incoming.insert(offset, data)?;
        while let Some(chunk) = self.incoming.read(usize::MAX) {
            read(&chunk)?;
        }
        Ok(())
    }
}
