//! The CRYPTO data of one encryption level (RFC 9000 §7.5): ordered, without flow control but with
//! a window, and repeated in packets of the level that it began in (RFC 9001 §4, §4.9).

use crate::base::limits;
use crate::stream::{Assembler, RangeSet};
use crate::wire::frame::{crypto_fit, write_crypto_header};
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
            Some(range) => range,
            None if self.next < self.end() => (self.next, self.end()),
            None => return None,
        };
        let fit = crypto_fit(w.remaining(), start).min(usize::from(u16::MAX));
        let len = fit.min((end - start) as usize);
        let at = (start - self.base) as usize;
        let data = self.out.get(at..at + len).filter(|d| !d.is_empty())?;
        write_crypto_header(w, start, len);
        w.bytes(data);
        let end = start + len as u64;
        self.lost.remove(start, end);
        self.next = self.next.max(end);
        Some((start, len as u16))
    }

    /// Writes a copy of the first of `len` sent bytes at `offset` that are not acknowledged in
    /// order. Returns what was written; `None` when there are none, or they do not fit.
    pub(crate) fn write_copy(
        &self,
        w: &mut Writer<'_>,
        offset: u64,
        len: u16,
    ) -> Option<(u64, u16)> {
        let (start, end) = (offset.max(self.base), offset + u64::from(len));
        let len = end.min(self.next).checked_sub(start)?;
        let at = (start - self.base) as usize;
        let fit = crypto_fit(w.remaining(), start).min(len as usize);
        let data = self.out.get(at..at + fit).filter(|d| !d.is_empty())?;
        write_crypto_header(w, start, fit);
        w.bytes(data);
        Some((start, fit as u16))
    }

    /// Whether some of `len` sent bytes at `offset` are not acknowledged in order.
    pub(crate) fn is_open(&self, offset: u64, len: u16) -> bool {
        offset.max(self.base) < (offset + u64::from(len)).min(self.next)
    }

    /// A frame was acknowledged; bytes acknowledged up to some offset are freed.
    pub(crate) fn on_acked(&mut self, offset: u64, len: u16) {
        let end = offset + u64::from(len);
        self.lost.remove(offset, end);
        self.acked.insert(offset.max(self.base), end.max(self.base));
        if let Some((_, end)) = self.acked.first().filter(|(start, _)| *start <= self.base) {
            let n = (end.saturating_sub(self.base) as usize).min(self.out.len());
            self.out.drain(..n);
            self.base += n as u64;
            self.acked.remove(0, self.base);
        }
    }

    /// A frame was lost: what is not acknowledged otherwise is sent again.
    pub(crate) fn on_lost(&mut self, offset: u64, len: u16) {
        let start = offset.max(self.base);
        let end = offset + u64::from(len);
        if start >= end {
            return;
        }
        self.lost.insert(start, end);
        for (start, end) in self.acked.iter() {
            self.lost.remove(start, end);
        }
    }

    /// Sends everything unacknowledged again, as after a Retry.
    pub(crate) fn resend_all(&mut self) {
        self.next = self.base;
        self.lost = RangeSet::default();
    }

    /// Gives back what an idle connection can do without.
    pub(crate) fn rest(&mut self) {
        self.out.shrink_to(0);
        self.lost.rest();
        self.acked.rest();
        self.incoming.rest();
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
            return Err(TransportError::crypto_buffer_exceeded(
                "CRYPTO data too far ahead",
            ));
        }
        self.incoming.insert(offset, data).map_err(|_| {
            TransportError::crypto_buffer_exceeded("CRYPTO data in too many pieces")
        })?;
        while self.incoming.readable() > 0 {
            let chunk = self.incoming.chunk();
            let end = self.incoming.read_offset() + chunk.len() as u64;
            read(chunk)?;
            self.incoming.advance_to(end);
        }
        Ok(())
    }
}
