//! STREAM frames and stream IDs (RFC 9000 §19.8, §2.1): the frame that carries all application
//! data, so its parser and writer are kept short.
//!
//! What streams do with it lives in `stream`.

use super::TransportError;
use crate::wire::varint::{MAX, Reader, Writer, size};
use std::fmt;

/// The lowest STREAM frame type; its low three bits are flags.
const STREAM: u8 = 0x08;
const OFF: u8 = 0x04;
const LEN: u8 = 0x02;
const FIN: u8 = 0x01;

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The end that opened the connection.
    Client,
    /// The end that accepted it.
    Server,
}

impl Side {
    /// The other end.
    #[inline]
    pub const fn peer(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    /// Whether this is the client.
    #[inline]
    pub const fn is_client(self) -> bool {
        matches!(self, Self::Client)
    }

    /// Whether this is the server.
    #[inline]
    pub const fn is_server(self) -> bool {
        matches!(self, Self::Server)
    }
}

/// The directions in which a stream carries data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dir {
    /// Both.
    Bi,
    /// From its initiator only.
    Uni,
}

/// The most streams of one kind that a connection can ever have: 2^60 (RFC 9000 §4.6).
pub const MAX_STREAMS: u64 = 1 << 60;

/// A stream ID (RFC 9000 §2.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

impl StreamId {
    /// The ID of the stream number `index` (from 0, below [`MAX_STREAMS`]) of its kind.
    #[inline]
    pub const fn new(initiator: Side, dir: Dir, index: u64) -> Self {
        debug_assert!(index < MAX_STREAMS);
        Self((index << 2) | ((dir as u64) << 1) | initiator as u64)
    }

    /// Its directions.
    #[inline]
    pub const fn dir(self) -> Dir {
        if self.0 & 0b10 == 0 {
            Dir::Bi
        } else {
            Dir::Uni
        }
    }

    /// The end that opens it.
    #[inline]
    pub const fn initiator(self) -> Side {
        if self.0 & 0b01 == 0 {
            Side::Client
        } else {
            Side::Server
        }
    }

    /// Its number among the streams of its kind, from 0.
    #[inline]
    pub const fn index(self) -> u64 {
        self.0 >> 2
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (initiator, dir) = (self.initiator(), self.dir());
        write!(f, "{}({initiator:?} {dir:?})", self.0)
    }
}

/// A STREAM frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream<'a> {
    /// The stream's ID.
    pub id: u64,
    /// Where `data` starts in the stream; its end is at most 2^62 − 1.
    pub offset: u64,
    /// The bytes.
    pub data: &'a [u8],
    /// Whether the stream ends where `data` does.
    pub fin: bool,
}

impl<'a> Stream<'a> {
    /// Where `data` ends in the stream.
    #[inline]
    pub const fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }

    /// Reads the frame after its type `ty`, which is 0x08 to 0x0f.
    #[inline]
    pub(super) fn parse(r: &mut Reader<'a>, ty: u8) -> Result<Self, TransportError> {
        let id = r.varint()?;
        let offset = if ty & OFF != 0 { r.varint()? } else { 0 };
        let data = if ty & LEN != 0 {
            let len = r.varint()?;
            r.bytes_u64(len)?
        } else {
            r.rest()
        };
        // RFC 9000 §19.8: no offset beyond 2^62 - 1. `offset` itself is at most that.
        if data.len() as u64 > MAX - offset {
            return Err(TransportError::frame_encoding_error(
                "stream data ends beyond 2^62 - 1",
            ));
        }
        Ok(Self {
            id,
            offset,
            data,
            fin: ty & FIN != 0,
        })
    }

    /// Reads the next frame if it is of this type; what most packets hold need not pass through
    /// [`Frame`](super::Frame), which is as large as its largest kind.
    ///
    /// # Errors
    ///
    /// FRAME_ENCODING_ERROR, naming the frame type.
    #[inline]
    pub fn next(r: &mut Reader<'a>) -> Result<Option<Self>, TransportError> {
        match r.peek_rest().first() {
            Some(&ty @ 0x08..=0x0f) => {
                r.u8()?;
                Self::parse(r, ty)
                    .map(Some)
                    .map_err(|e| e.with_frame(u64::from(ty)))
            }
            _ => Ok(None),
        }
    }

    /// Its frame type, the flags about its header left out.
    #[inline]
    pub const fn ty(&self) -> u64 {
        (STREAM | if self.fin { FIN } else { 0 }) as u64
    }
}

/// Bytes of a STREAM frame's header. `len` is the data's length where the frame is to state it,
/// and `None` where the data takes the rest of the packet.
#[inline]
pub const fn header_size(id: u64, offset: u64, len: Option<usize>) -> usize {
    let offset = if offset > 0 { size(offset) } else { 0 };
    let len = match len {
        Some(len) => size(len as u64),
        None => 0,
    };
    1 + size(id) + offset + len
}

/// Appends a STREAM frame's header ([`header_size`] bytes); the caller appends the data next.
#[inline]
pub fn write_header(w: &mut Writer<'_>, id: u64, offset: u64, len: Option<usize>, fin: bool) {
    let mut ty = STREAM;
    if fin {
        ty |= FIN;
    }
    if offset > 0 {
        ty |= OFF;
    }
    if len.is_some() {
        ty |= LEN;
    }
    w.u8(ty);
    w.varint(id);
    if offset > 0 {
        w.varint(offset);
    }
    if let Some(len) = len {
        w.varint(len as u64);
    }
}
