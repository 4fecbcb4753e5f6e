//! The receiving part of one stream: RFC 9000 §3.2's states, final size (§4.5), flow control.
//!
//! ```text
//! Recv ─ FIN ─► SizeKnown ─ all there ─► DataRecvd ─ read ─► DataRead
//!   └─── RESET_STREAM ──┴─► ResetRecvd ─ application told ─► ResetRead
//! ```
//!
//! Connection flow control is the caller's: every method says how many bytes it counts for there.

use super::assembler::Assembler;
use super::flow::RecvWindow;
use crate::base::Timestamp;
use crate::wire::TransportError;

/// The final size while none is known; no offset reaches it.
const UNKNOWN: u64 = u64::MAX;

/// The state of a stream's receiving part (RFC 9000 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvState {
    /// Data arrives, the end is not known.
    Recv,
    /// The end is known, not all data is there.
    SizeKnown,
    /// All data is there, the application has not read all of it.
    DataRecvd,
    /// The peer reset the stream, the application does not know.
    ResetRecvd,
    /// The application has read everything, or does not want the rest.
    DataRead,
    /// The application knows of the reset.
    ResetRead,
}

impl RecvState {
    /// Whether nothing is left to do.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::DataRead | Self::ResetRead)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct RecvHalf {
    state: RecvState,
    /// The application called for the peer to stop; what arrives is counted and dropped.
    stopped: bool,
    /// Everything below was taken by the application or dropped.
    read: u64,
    /// The highest offset received.
    highest: u64,
    final_size: u64,
    pub(super) window: RecvWindow,
    /// Data that waits; never allocated while everything is taken in order.
    pub(super) assembler: Option<Box<Assembler>>,
    /// The code of the RESET_STREAM received, or of the STOP_SENDING to send.
    code: u64,
}

impl RecvHalf {
    pub(super) const fn new(window: u64, now: Timestamp) -> Self {
        Self {
            state: RecvState::Recv,
            stopped: false,
            read: 0,
            highest: 0,
            final_size: UNKNOWN,
            window: RecvWindow::new(window, now),
            assembler: None,
            code: 0,
        }
    }

    pub(super) const fn state(&self) -> RecvState {
        self.state
    }

    /// The offset of the next byte for the application.
    #[inline]
    pub(super) const fn read_offset(&self) -> u64 {
        self.read
    }

    /// Whether the application wants what arrives.
    #[inline]
    pub(super) const fn is_wanted(&self) -> bool {
        !self.stopped
            && matches!(
                self.state,
                RecvState::Recv | RecvState::SizeKnown | RecvState::DataRecvd
            )
    }

    /// Whether the peer may still need credit (RFC 9000 §3.2: only in Recv).
    #[inline]
    pub(super) const fn needs_credit(&self) -> bool {
        !self.stopped && matches!(self.state, RecvState::Recv)
    }

    /// Checks and counts a STREAM frame's `offset..end`; returns how many of its bytes are above
    /// everything received before, which count for the connection.
    #[inline]
    pub(super) fn on_stream(
        &mut self,
        offset: u64,
        len: u64,
        fin: bool,
    ) -> Result<u64, TransportError> {
        let end = offset.saturating_add(len);
        if fin {
            self.on_final_size(end)?;
        }
        if end <= self.highest {
            return Ok(0);
        }
        self.on_highest(end)
    }

    /// RFC 9000 §4.1, §4.5, §19.10: raises the highest offset to `end`, within limit and final
    /// size. It counts after a reset, too (§4.4).
    fn on_highest(&mut self, end: u64) -> Result<u64, TransportError> {
        if end > self.final_size {
            return Err(TransportError::final_size_error(
                "data beyond the final size",
            ));
        }
        if end > self.window.limit() {
            return Err(TransportError::flow_control_error(
                "more data than MAX_STREAM_DATA permits",
            ));
        }
        let new = end.saturating_sub(self.highest);
        self.highest = self.highest.max(end);
        Ok(new)
    }

    /// RFC 9000 §4.5: the final size is the same each time and not below what was received.
    fn on_final_size(&mut self, size: u64) -> Result<(), TransportError> {
        if size < self.highest {
            return Err(TransportError::final_size_error(
                "a final size below what was received",
            ));
        }
        if self.final_size != UNKNOWN && self.final_size != size {
            return Err(TransportError::final_size_error("the final size changed"));
        }
        self.final_size = size;
        if self.state == RecvState::Recv {
            self.state = RecvState::SizeKnown;
        }
        Ok(())
    }

    /// Notes that all data is there, when it is: in order to the end, read or buffered.
    #[inline]
    pub(super) fn note_complete(&mut self) {
        if self.state == RecvState::SizeKnown {
            let buffered = self.assembler.as_ref().map_or(0, |a| a.readable());
            if self.read.saturating_add(buffered) == self.final_size {
                self.state = RecvState::DataRecvd;
            }
        }
    }

    /// Whether the byte at `offset` would be the end.
    #[inline]
    pub(super) const fn ends_at(&self, offset: u64) -> bool {
        self.final_size == offset
    }

    /// Handles RESET_STREAM; returns the bytes that count as received by the connection now, and
    /// those that count as consumed, or `None` when there was nothing left to reset.
    pub(super) fn on_reset(
        &mut self,
        final_size: u64,
        code: u64,
    ) -> Result<(u64, Option<u64>), TransportError> {
        self.on_final_size(final_size)?;
        let new = self.on_highest(final_size)?;
        // RFC 9000 §3.2: once all data is there, a reset takes nothing away.
        if self.state != RecvState::SizeKnown {
            return Ok((new, None));
        }
        let dropped = self.drop_data();
        if self.stopped {
            self.state = RecvState::ResetRead;
        } else {
            self.state = RecvState::ResetRecvd;
            self.code = code;
        }
        Ok((new, Some(dropped)))
    }

    /// Drops what is buffered and counts everything received as read. Returns the count.
    fn drop_data(&mut self) -> u64 {
        self.assembler = None;
        let dropped = self.highest.saturating_sub(self.read);
        self.read = self.highest;
        dropped
    }

    /// Counts what arrived after the application stopped wanting it; returns the bytes consumed.
    pub(super) fn discard(&mut self) -> u64 {
        let dropped = self.drop_data();
        if self.stopped && self.final_size != UNKNOWN {
            // The rest, if any is still missing, arrives for nobody; its size is known.
            self.state = RecvState::DataRead;
        }
        dropped
    }

    /// The application wants no more: returns the bytes that count as consumed, and whether
    /// STOP_SENDING is to be sent (RFC 9000 §3.5: not once the end is known).
    pub(super) fn stop(&mut self, code: u64) -> (u64, bool) {
        match self.state {
            RecvState::Recv if !self.stopped => {
                self.stopped = true;
                self.code = code;
                (self.drop_data(), true)
            }
            RecvState::SizeKnown | RecvState::DataRecvd => {
                let dropped = self.drop_data();
                self.stopped = true;
                self.state = RecvState::DataRead;
                (dropped, false)
            }
            RecvState::ResetRecvd => {
                self.state = RecvState::ResetRead;
                (0, false)
            }
            _ => (0, false),
        }
    }

    /// The code of the STOP_SENDING to send, while one is to be sent.
    pub(super) fn stop_frame(&self) -> Option<u64> {
        (self.stopped && self.state == RecvState::Recv).then_some(self.code)
    }

    /// The code of a reset that the application does not know of.
    pub(super) fn reset_code(&self) -> Option<u64> {
        (self.state == RecvState::ResetRecvd).then_some(self.code)
    }

    /// The application learned of the reset.
    pub(super) fn on_reset_read(&mut self) {
        if self.state == RecvState::ResetRecvd {
            self.state = RecvState::ResetRead;
        }
    }

    /// The application took `n` bytes; at the end, with `end` it learned of that too.
    #[inline]
    pub(super) fn on_read(&mut self, n: u64, end: bool) {
        self.read += n;
        if end && self.read == self.final_size {
            self.state = RecvState::DataRead;
        }
    }

    /// Bytes that can be read now.
    pub(super) fn readable(&self) -> u64 {
        self.assembler.as_ref().map_or(0, |a| a.readable())
    }

    /// Keeps bytes for later.
    pub(super) fn keep(&mut self, offset: u64, data: &[u8]) -> Result<(), TransportError> {
        let read = self.read;
        let assembler = self
            .assembler
            .get_or_insert_with(|| Box::new(Assembler::new(read)));
        // In-order data passes the assembler by; it catches up here.
        assembler.advance_to(read);
        assembler
            .insert(offset, data)
            .map_err(|_| TransportError::protocol_violation("too many gaps in stream data"))
    }
}
