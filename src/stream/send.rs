//! The sending part of one stream: RFC 9000 §3.1's states over a send buffer.
//!
//! ```text
//! Ready ─ STREAM sent ─► Send ─ FIN sent ─► DataSent ─ all acked ─► DataRecvd
//!   └───────────────────── reset ─────────────┴► ResetSent ─ acked ─► ResetRecvd
//! ```
//!
//! It decides what the next STREAM frame carries and writes it; who sends next and connection flow
//! control are the caller's.

use super::SentFrame;
use super::schedule::Need;
use super::send_buffer::SendBuffer;
use crate::wire::frame::stream::{header_size, write_header};
use crate::wire::{StreamId, Writer};
use bytes::Bytes;

/// A part of a stream's data shorter than this is not worth a frame of its own at the end of a
/// packet.
const MIN_FRAGMENT: u64 = 16;

/// The state of a stream's sending part (RFC 9000 §3.1), which says what may still be sent (§3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendState {
    /// Nothing was sent.
    Ready,
    /// Data was sent, the end was not.
    Send,
    /// Everything was sent, the end included, and not all of it is acknowledged.
    DataSent,
    /// The stream was reset and the peer has not acknowledged that.
    ResetSent,
    /// Everything is acknowledged.
    DataRecvd,
    /// The reset is acknowledged.
    ResetRecvd,
}

impl SendState {
    /// Whether nothing is left to do.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::DataRecvd | Self::ResetRecvd)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fin {
    /// The application has not ended the stream.
    Open,
    /// To be sent, or to be sent again.
    Pending,
    InFlight,
    Acked,
}

/// Why the application cannot write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    Finished,
    Reset,
}

/// See the module.
#[derive(Debug)]
pub(super) struct SendHalf {
    buffer: SendBuffer,
    /// The peer's MAX_STREAM_DATA.
    max_data: u64,
    /// The limit at which STREAM_DATA_BLOCKED was last queued, plus one; 0 for never.
    blocked_at: u64,
    state: SendState,
    fin: Fin,
    /// The application was refused bytes and waits for room.
    wants_room: bool,
    /// The code of the RESET_STREAM.
    reset_code: u64,
}

/// What one call of [`SendHalf::emit`] wrote.
#[derive(Clone, Copy, Debug)]
pub(super) struct Emitted {
    pub(super) frame: SentFrame,
    /// Bytes in the frame.
    pub(super) bytes: u32,
    /// Of those, bytes that were never sent before and cost connection credit.
    pub(super) fresh: u64,
}

/// What one call of [`SendHalf::emit_again`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// So many bytes at this offset.
    Wrote { offset: u64, len: u32, fin: bool },
    /// What begins at this offset does not fit.
    NoRoom(u64),
    /// Nothing is left to repeat.
    Nothing,
}

impl SendHalf {
    pub(super) fn new(max_data: u64) -> Self {
        Self {
            buffer: SendBuffer::default(),
            max_data,
            blocked_at: 0,
            state: SendState::Ready,
            fin: Fin::Open,
            wants_room: false,
            reset_code: 0,
        }
    }

    pub(super) const fn state(&self) -> SendState {
        self.state
    }

    /// Bytes written by the application and not acknowledged in order.
    pub(super) const fn buffered(&self) -> u64 {
        self.buffer.len()
    }

    /// Bytes that were never sent and that the peer's limit for the stream admits.
    pub(super) fn waiting(&self) -> u64 {
        let end = self.buffer.end().min(self.max_data);
        end.saturating_sub(self.buffer.next())
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.buffer.memory()
    }

    /// The code and final size of the RESET_STREAM to send, while one is to be sent.
    pub(super) fn reset_frame(&self) -> Option<(u64, u64)> {
        let reset = self.state == SendState::ResetSent;
        reset.then(|| (self.reset_code, self.buffer.next()))
    }

    fn writable(&self) -> Result<(), Closed> {
        match self.state {
            SendState::ResetSent | SendState::ResetRecvd => Err(Closed::Reset),
            _ if self.fin != Fin::Open => Err(Closed::Finished),
            _ => Ok(()),
        }
    }

    /// How many of `want` bytes fit in a buffer of `capacity`.
    fn room(&mut self, want: usize, capacity: usize) -> usize {
        let used = usize::try_from(self.buffer.len()).unwrap_or(usize::MAX);
        let room = capacity.saturating_sub(used);
        self.wants_room |= room < want;
        room.min(want)
    }

    pub(super) fn write(&mut self, data: &[u8], capacity: usize) -> Result<usize, Closed> {
        self.writable()?;
        let n = self.room(data.len(), capacity);
        self.buffer.copy(data.get(..n).unwrap_or_default());
        Ok(n)
    }

    pub(super) fn write_bytes(&mut self, data: Bytes, capacity: usize) -> Result<usize, Closed> {
        self.writable()?;
        let n = self.room(data.len(), capacity);
        if n == data.len() {
            self.buffer.push(data);
        } else if n > 0 {
            self.buffer.push(data.slice(..n));
        }
        Ok(n)
    }

    /// Sets the final size; nothing is written beyond it (RFC 9000 §4.5).
    pub(super) fn finish(&mut self) -> Result<(), Closed> {
        self.writable()?;
        self.fin = Fin::Pending;
        self.wants_room = false;
        Ok(())
    }

    /// Resets the stream, as the application or the peer's STOP_SENDING asks (RFC 9000 §11.2). Code
    /// and final size stand from then on (§13.3). False when it was reset already or everything is
    /// acknowledged.
    pub(super) fn reset(&mut self, code: u64) -> bool {
        match self.state {
            SendState::Ready | SendState::Send | SendState::DataSent => {
                self.state = SendState::ResetSent;
                self.reset_code = code;
                self.wants_room = false;
                self.buffer.discard();
                true
            }
            _ => false,
        }
    }

    pub(super) fn on_reset_acked(&mut self) {
        if self.state == SendState::ResetSent {
            self.state = SendState::ResetRecvd;
        }
    }

    /// The peer's limit.
    pub(super) fn max_data(&self) -> u64 {
        self.max_data
    }

    /// Raises the stream's limit; a lower one is old news (RFC 9000 §4.1, §13.3).
    /// Keeps RFC 9000 §19.10.
    pub(super) fn on_max_data(&mut self, max: u64) {
        self.max_data = self.max_data.max(max);
    }

    /// Counts nothing as sent any more, under another limit of the peer.
    pub(super) fn restart(&mut self, max_data: u64) {
        self.buffer.rewind();
        self.max_data = max_data;
        self.blocked_at = 0;
        if self.fin == Fin::InFlight {
            self.fin = Fin::Pending;
        }
        if matches!(self.state, SendState::Send | SendState::DataSent) {
            self.state = SendState::Ready;
        }
    }

    /// Whether the application waits for room and at least half of `capacity` is free; true once.
    #[inline]
    pub(super) fn take_writable(&mut self, capacity: usize) -> bool {
        let now = self.wants_room && self.buffer.len() <= capacity as u64 / 2;
        if now {
            self.wants_room = false;
        }
        now
    }

    /// What the stream needs to send its next frame: credit for new data (RFC 9000 §2.2), nothing
    /// for a repetition.
    #[inline]
    pub(super) fn need(&self) -> Need {
        match self.state {
            SendState::Ready | SendState::Send | SendState::DataSent => {}
            _ => return Need::Idle,
        }
        if self.buffer.lost().is_some() {
            return Need::Nothing;
        }
        let (next, end) = (self.buffer.next(), self.buffer.end());
        if next < end.min(self.max_data) {
            Need::Credit
        } else if next == end && self.fin == Fin::Pending {
            Need::Nothing
        } else {
            Need::Idle
        }
    }

    /// The limit to state in STREAM_DATA_BLOCKED, while stream flow control holds data back.
    pub(super) fn blocked(&self) -> Option<u64> {
        let open = matches!(self.state, SendState::Ready | SendState::Send);
        let next = self.buffer.next();
        (open && next == self.max_data && next < self.buffer.end()).then_some(self.max_data)
    }

    /// Whether STREAM_DATA_BLOCKED is due: blocked, and not announced at this limit yet.
    #[inline]
    pub(super) fn take_blocked(&mut self) -> bool {
        if self.buffer.next() < self.max_data {
            return false;
        }
        match self.blocked() {
            Some(limit) if self.blocked_at != limit + 1 => {
                self.blocked_at = limit + 1;
                true
            }
            _ => false,
        }
    }

    /// Appends the stream's next frame, of at most `credit` new bytes; `None` when nothing is to be
    /// sent or nothing worth it fits.
    ///
    /// A frame that takes the rest of the packet has no length. Where only the length field would
    /// not fit, PADDING goes in front instead, so that the data is not split for a byte or two.
    #[inline]
    pub(super) fn emit(
        &mut self,
        w: &mut Writer<'_>,
        id: StreamId,
        credit: u64,
    ) -> Option<Emitted> {
        let need = self.need();
        let (start, limit) = match (need, self.buffer.lost()) {
            (Need::Idle, _) => return None,
            (_, Some(range)) => range,
            (_, None) => {
                let next = self.buffer.next();
                let allowed = self.max_data.min(next.saturating_add(credit));
                (next, self.buffer.end().min(allowed).max(next))
            }
        };
        let room = w.remaining().checked_sub(header_size(id.0, start, None))?;
        let want = limit - start;
        let n = want.min(room as u64);
        if n < want.min(MIN_FRAGMENT) {
            return None;
        }
        let len = n as usize;
        let fin = self.fin == Fin::Pending && start + n == self.buffer.end();
        if n == 0 && !fin {
            return None;
        }
        self.write_frame(w, id, (start, len), room, fin);
        let fresh = (start + n).saturating_sub(self.buffer.next());
        self.buffer.on_sent(start, n);
        if fin {
            self.fin = Fin::InFlight;
        }
        self.on_emitted();
        Some(Emitted {
            frame: SentFrame::Stream {
                id,
                offset: start,
                len: len as u32,
                fin,
            },
            bytes: len as u32,
            fresh,
        })
    }

    /// Appends a frame of the `len` bytes at `start`, of which there is room for `room`.
    #[inline]
    fn write_frame(
        &mut self,
        w: &mut Writer<'_>,
        id: StreamId,
        (start, len): (u64, usize),
        room: usize,
        fin: bool,
    ) {
        let stated = header_size(id.0, start, Some(len)) + len <= w.remaining();
        if stated && len < room {
            write_header(w, id.0, start, Some(len), fin);
        } else {
            if room > len {
                w.zeros(room - len);
            }
            write_header(w, id.0, start, None, fin);
        }
        self.buffer.write(w, start, len);
    }

    /// Appends one frame of what was sent of the bytes `from..to`, with the end that went with them
    /// if `fin`: the first part that is not acknowledged, or with `lost` that is to be sent again,
    /// which counts as done then.
    pub(super) fn emit_again(
        &mut self,
        w: &mut Writer<'_>,
        id: StreamId,
        (from, to): (u64, u64),
        fin: bool,
        lost: bool,
    ) -> Again {
        if !matches!(self.state, SendState::Send | SendState::DataSent) {
            return Again::Nothing;
        }
        let fin = fin
            && match self.fin {
                Fin::Pending => self.state == SendState::DataSent,
                Fin::InFlight => !lost,
                Fin::Open | Fin::Acked => false,
            };
        let (start, end) = match self.buffer.first_open(from, to, lost) {
            Some(range) => range,
            None if fin => (to, to),
            None => return Again::Nothing,
        };
        let room = w.remaining();
        let Some(room) = room.checked_sub(header_size(id.0, start, None)) else {
            return Again::NoRoom(start);
        };
        let n = (end - start).min(room as u64);
        if n < (end - start).min(MIN_FRAGMENT) {
            return Again::NoRoom(start);
        }
        let fin = fin && start + n == to && to == self.buffer.end();
        if n == 0 && !fin {
            return Again::Nothing;
        }
        let len = n as usize;
        self.write_frame(w, id, (start, len), room, fin);
        if lost {
            self.buffer.on_sent(start, n);
            if fin {
                self.fin = Fin::InFlight;
            }
        }
        Again::Wrote {
            offset: start,
            len: len as u32,
            fin,
        }
    }

    fn on_emitted(&mut self) {
        if self.state == SendState::Ready {
            self.state = SendState::Send;
        }
        // The FIN goes with the last byte, so when it is out everything was sent once.
        if self.state == SendState::Send && self.fin == Fin::InFlight {
            self.state = SendState::DataSent;
        }
    }

    /// Notes an acknowledged frame; true when with it the stream reached DataRecvd.
    #[inline]
    pub(super) fn on_acked(&mut self, offset: u64, len: u32, fin: bool) -> bool {
        self.buffer
            .on_acked(offset, offset.saturating_add(u64::from(len)));
        // A FIN that was declared lost and is acknowledged after all need not be sent again.
        if fin && self.fin != Fin::Open {
            self.fin = Fin::Acked;
        }
        let done =
            self.state == SendState::DataSent && self.fin == Fin::Acked && self.buffer.is_acked();
        if done {
            self.state = SendState::DataRecvd;
        }
        done
    }

    pub(super) fn on_lost(&mut self, offset: u64, len: u32, fin: bool) {
        match self.state {
            SendState::Ready | SendState::Send | SendState::DataSent => {}
            _ => return,
        }
        self.buffer
            .on_lost(offset, offset.saturating_add(u64::from(len)));
        if fin && self.fin == Fin::InFlight {
            self.fin = Fin::Pending;
        }
    }
}
