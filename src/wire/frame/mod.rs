//! Frames (RFC 9000 §19, RFC 9221, multipath, the ACK frequency extension): one enum, its parser,
//! and free writers.
//!
//! Parsing borrows from the packet and either consumes at least one byte or fails with the error
//! that the connection is to be closed with. What a frame means, and whether a peer may send it
//! now, is decided above; only [`Frame::allowed_in`] lives here, because it is a table of the RFC.

pub mod ack;
pub mod address;
pub mod control;
pub mod multipath;
pub mod stream;

pub use ack::{Ack, AckRanges, EcnCounts};
pub use address::{AddAddress, AddressFrame};
pub use control::*;
pub use multipath::{PathFrame, PathStatus};
pub use stream::{Dir, Side, Stream, StreamId};

use super::error::TransportError;
use super::varint::{MAX, Reader, Writer, size};
use crate::base::PathId;

/// Frame types by name. Types with flags are named without them.
pub mod ty {
    #![expect(
        missing_docs,
        reason = "each name is a frame of the texts above, or of `address`"
    )]
    pub const PADDING: u64 = 0x00;
    pub const PING: u64 = 0x01;
    pub const ACK: u64 = 0x02;
    pub const ACK_ECN: u64 = 0x03;
    pub const RESET_STREAM: u64 = 0x04;
    pub const STOP_SENDING: u64 = 0x05;
    pub const CRYPTO: u64 = 0x06;
    pub const NEW_TOKEN: u64 = 0x07;
    pub const STREAM: u64 = 0x08;
    pub const STREAM_LAST: u64 = 0x0f;
    pub const MAX_DATA: u64 = 0x10;
    pub const MAX_STREAM_DATA: u64 = 0x11;
    pub const MAX_STREAMS_BIDI: u64 = 0x12;
    pub const MAX_STREAMS_UNI: u64 = 0x13;
    pub const DATA_BLOCKED: u64 = 0x14;
    pub const STREAM_DATA_BLOCKED: u64 = 0x15;
    pub const STREAMS_BLOCKED_BIDI: u64 = 0x16;
    pub const STREAMS_BLOCKED_UNI: u64 = 0x17;
    pub const NEW_CONNECTION_ID: u64 = 0x18;
    pub const RETIRE_CONNECTION_ID: u64 = 0x19;
    pub const PATH_CHALLENGE: u64 = 0x1a;
    pub const PATH_RESPONSE: u64 = 0x1b;
    pub const CONNECTION_CLOSE: u64 = 0x1c;
    pub const APPLICATION_CLOSE: u64 = 0x1d;
    pub const HANDSHAKE_DONE: u64 = 0x1e;
    pub const IMMEDIATE_ACK: u64 = 0x1f;
    pub const DATAGRAM: u64 = 0x30;
    pub const DATAGRAM_LEN: u64 = 0x31;
    pub const PATH_ACK: u64 = 0x3e;
    pub const PATH_ACK_ECN: u64 = 0x3f;
    pub const ADD_ADDRESS: u64 = 0x40;
    pub const PATHS: u64 = 0x41;
    pub const CLOSE_PATH: u64 = 0x42;
    pub const ACK_FREQUENCY: u64 = 0xaf;
    pub const PATH_ABANDON: u64 = 0x3e75;
    pub const PATH_STATUS_BACKUP: u64 = 0x3e76;
    pub const PATH_STATUS_AVAILABLE: u64 = 0x3e77;
    pub const PATH_NEW_CONNECTION_ID: u64 = 0x3e78;
    pub const PATH_RETIRE_CONNECTION_ID: u64 = 0x3e79;
    pub const MAX_PATH_ID: u64 = 0x3e7a;
    pub const PATHS_BLOCKED: u64 = 0x3e7b;
    pub const PATH_CIDS_BLOCKED: u64 = 0x3e7c;
}

/// The packets that carry frames (RFC 9000 §12.4, table 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PacketType {
    /// Initial.
    Initial,
    /// Handshake.
    Handshake,
    /// 0-RTT.
    ZeroRtt,
    /// 1-RTT.
    OneRtt,
}

/// One frame, borrowing from the packet that it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A run of PADDING frames.
    Padding,
    /// PING.
    Ping,
    /// ACK.
    Ack(Ack<'a>),
    /// RESET_STREAM.
    ResetStream(ResetStream),
    /// STOP_SENDING.
    StopSending {
        /// The stream's ID.
        id: u64,
        /// The application's error code.
        code: u64,
    },
    /// CRYPTO.
    Crypto {
        /// Where `data` starts in its level's stream; its end is at most 2^62 − 1.
        offset: u64,
        /// The bytes.
        data: &'a [u8],
    },
    /// NEW_TOKEN; the token is not empty.
    NewToken(&'a [u8]),
    /// STREAM.
    Stream(Stream<'a>),
    /// MAX_DATA: the connection's limit, in bytes.
    MaxData(u64),
    /// MAX_STREAM_DATA.
    MaxStreamData {
        /// The stream's ID.
        id: u64,
        /// Its limit, in bytes.
        max: u64,
    },
    /// MAX_STREAMS.
    MaxStreams {
        /// The streams it is about.
        dir: Dir,
        /// How many may be opened in all; at most 2^60.
        max: u64,
    },
    /// DATA_BLOCKED: the limit at which the peer is blocked.
    DataBlocked(u64),
    /// STREAM_DATA_BLOCKED.
    StreamDataBlocked {
        /// The stream's ID.
        id: u64,
        /// The limit at which the peer is blocked.
        limit: u64,
    },
    /// STREAMS_BLOCKED.
    StreamsBlocked {
        /// The streams it is about.
        dir: Dir,
        /// The limit at which the peer is blocked; at most 2^60.
        limit: u64,
    },
    /// NEW_CONNECTION_ID.
    NewConnectionId(NewConnectionId),
    /// RETIRE_CONNECTION_ID: a sequence number.
    RetireConnectionId(u64),
    /// PATH_CHALLENGE.
    PathChallenge([u8; 8]),
    /// PATH_RESPONSE.
    PathResponse([u8; 8]),
    /// CONNECTION_CLOSE.
    ConnectionClose(ConnectionClose<'a>),
    /// HANDSHAKE_DONE.
    HandshakeDone,
    /// DATAGRAM (RFC 9221).
    Datagram(&'a [u8]),
    /// ACK_FREQUENCY (ACK frequency §4).
    AckFrequency(AckFrequency),
    /// IMMEDIATE_ACK (ACK frequency §5).
    ImmediateAck,
    /// PATH_ACK (multipath §4.1).
    PathAck {
        /// The path whose packets are acknowledged.
        path: PathId,
        /// What an ACK frame says.
        ack: Ack<'a>,
    },
    /// The other frames of multipath §4.
    Path(PathFrame),
    /// A frame of our own extension that advertises addresses.
    Address(AddressFrame<'a>),
}

impl<'a> Frame<'a> {
    /// Reads the next frame of a decrypted payload; consumes at least one byte when it succeeds.
    ///
    /// Errors are FRAME_ENCODING_ERROR, or PROTOCOL_VIOLATION for a frame type that is not in its
    /// shortest encoding (RFC 9000 §12.4), and name the frame type.
    #[inline]
    pub fn parse(r: &mut Reader<'a>) -> Result<Self, TransportError> {
        let first = r.u8()?;
        match first {
            0x08..=0x0f => Stream::parse(r, first).map(Frame::Stream),
            0x02 | 0x03 => Ack::parse(r, first).map(Frame::Ack),
            0x3e | 0x3f => multipath::parse_ack(r, first),
            _ => return Self::parse_other(r, first),
        }
        .map_err(|e| e.with_frame(u64::from(first)))
    }

    fn parse_other(r: &mut Reader<'a>, first: u8) -> Result<Self, TransportError> {
        if first >= 0x40 {
            return Self::parse_long_type(r, first);
        }
        Self::parse_body(r, first).map_err(|e| e.with_frame(u64::from(first)))
    }

    /// The frame of a type that takes more than one byte.
    fn parse_long_type(r: &mut Reader<'a>, first: u8) -> Result<Self, TransportError> {
        let second = r.peek_rest().first().copied();
        // All of ours take two bytes, and those only one type.
        let Some(second) = second.filter(|_| first < 0x80) else {
            return Err(long_type(*r, first));
        };
        let ty = u64::from(u16::from_be_bytes([first & 0x3f, second]));
        let mut body = *r;
        body.u8()?;
        let frame = match ty {
            ty::ACK_FREQUENCY => AckFrequency::parse(&mut body).map(Self::AckFrequency),
            ty::PATH_ABANDON..=ty::PATH_CIDS_BLOCKED => {
                PathFrame::parse(&mut body, ty).map(Self::Path)
            }
            ty::ADD_ADDRESS..=ty::CLOSE_PATH => {
                AddressFrame::parse(&mut body, ty).map(Self::Address)
            }
            _ => return Err(long_type(*r, first)),
        };
        *r = body;
        frame.map_err(|e| e.with_frame(ty))
    }

    fn parse_body(r: &mut Reader<'a>, first: u8) -> Result<Self, TransportError> {
        Ok(match u64::from(first) {
            ty::PADDING => {
                r.bytes(leading_zeros(r.peek_rest()))?;
                Self::Padding
            }
            ty::PING => Self::Ping,
            ty::RESET_STREAM => Self::ResetStream(ResetStream {
                id: r.varint()?,
                code: r.varint()?,
                final_size: r.varint()?,
            }),
            ty::STOP_SENDING => Self::StopSending {
                id: r.varint()?,
                code: r.varint()?,
            },
            ty::CRYPTO => parse_crypto(r)?,
            ty::NEW_TOKEN => match prefixed(r)? {
                [] => return Err(TransportError::frame_encoding_error("an empty token")),
                token => Self::NewToken(token),
            },
            ty::MAX_DATA => Self::MaxData(r.varint()?),
            ty::MAX_STREAM_DATA => Self::MaxStreamData {
                id: r.varint()?,
                max: r.varint()?,
            },
            ty::MAX_STREAMS_BIDI | ty::MAX_STREAMS_UNI => Self::MaxStreams {
                dir: dir_of(first),
                max: stream_count(r)?,
            },
            ty::DATA_BLOCKED => Self::DataBlocked(r.varint()?),
            ty::STREAM_DATA_BLOCKED => Self::StreamDataBlocked {
                id: r.varint()?,
                limit: r.varint()?,
            },
            ty::STREAMS_BLOCKED_BIDI | ty::STREAMS_BLOCKED_UNI => Self::StreamsBlocked {
                dir: dir_of(first),
                limit: stream_count(r)?,
            },
            ty::NEW_CONNECTION_ID => Self::NewConnectionId(NewConnectionId::parse(r)?),
            ty::RETIRE_CONNECTION_ID => Self::RetireConnectionId(r.varint()?),
            ty::PATH_CHALLENGE => Self::PathChallenge(r.array()?),
            ty::PATH_RESPONSE => Self::PathResponse(r.array()?),
            ty::CONNECTION_CLOSE => Self::ConnectionClose(ConnectionClose::parse(r, false)?),
            ty::APPLICATION_CLOSE => Self::ConnectionClose(ConnectionClose::parse(r, true)?),
            ty::HANDSHAKE_DONE => Self::HandshakeDone,
            ty::IMMEDIATE_ACK => Self::ImmediateAck,
            ty::DATAGRAM => Self::Datagram(r.rest()),
            ty::DATAGRAM_LEN => Self::Datagram(prefixed(r)?),
            _ => return Err(unknown_type()),
        })
    }

    /// The frame's type, without the flags that only say which fields it has (a STREAM frame's
    /// OFF and LEN, a DATAGRAM frame's LEN).
    pub const fn ty(&self) -> u64 {
        match self {
            Self::Padding => ty::PADDING,
            Self::Ping => ty::PING,
            Self::Ack(ack) => ack.ty(),
            Self::ResetStream(_) => ty::RESET_STREAM,
            Self::StopSending { .. } => ty::STOP_SENDING,
            Self::Crypto { .. } => ty::CRYPTO,
            Self::NewToken(_) => ty::NEW_TOKEN,
            Self::Stream(stream) => stream.ty(),
            Self::MaxData(_) => ty::MAX_DATA,
            Self::MaxStreamData { .. } => ty::MAX_STREAM_DATA,
            Self::MaxStreams { dir: Dir::Bi, .. } => ty::MAX_STREAMS_BIDI,
            Self::MaxStreams { dir: Dir::Uni, .. } => ty::MAX_STREAMS_UNI,
            Self::DataBlocked(_) => ty::DATA_BLOCKED,
            Self::StreamDataBlocked { .. } => ty::STREAM_DATA_BLOCKED,
            Self::StreamsBlocked { dir: Dir::Bi, .. } => ty::STREAMS_BLOCKED_BIDI,
            Self::StreamsBlocked { dir: Dir::Uni, .. } => ty::STREAMS_BLOCKED_UNI,
            Self::NewConnectionId(_) => ty::NEW_CONNECTION_ID,
            Self::RetireConnectionId(_) => ty::RETIRE_CONNECTION_ID,
            Self::PathChallenge(_) => ty::PATH_CHALLENGE,
            Self::PathResponse(_) => ty::PATH_RESPONSE,
            Self::ConnectionClose(close) => close.ty(),
            Self::HandshakeDone => ty::HANDSHAKE_DONE,
            Self::Datagram(_) => ty::DATAGRAM,
            Self::AckFrequency(_) => ty::ACK_FREQUENCY,
            Self::ImmediateAck => ty::IMMEDIATE_ACK,
            Self::PathAck { ack, .. } => ack.path_ty(),
            Self::Path(frame) => frame.ty(),
            Self::Address(frame) => frame.ty(),
        }
    }

    /// Whether a packet with this frame asks for an acknowledgment (RFC 9000 §13.2).
    /// Keeps RFC 9000 §19.21.
    #[inline]
    pub const fn is_ack_eliciting(&self) -> bool {
        !matches!(
            self,
            Self::Padding | Self::Ack(_) | Self::PathAck { .. } | Self::ConnectionClose(_)
        )
    }

    /// Whether the frame alone does not end the probing of a path (RFC 9000 §9.1).
    #[inline]
    pub const fn is_probing(&self) -> bool {
        matches!(
            self,
            Self::Padding
                | Self::NewConnectionId(_)
                | Self::PathChallenge(_)
                | Self::PathResponse(_)
        )
    }

    /// Whether a packet of type `packet` may carry a frame of type `ty` (RFC 9000 §12.4, table 3,
    /// §12.5, §17.2.4; RFC 9221 §4; ACK frequency §3; multipath §4). Where not, it is a
    /// PROTOCOL_VIOLATION.
    #[inline]
    pub const fn allowed_in(ty: u64, packet: PacketType) -> bool {
        match packet {
            PacketType::OneRtt => true,
            PacketType::ZeroRtt => !matches!(
                ty,
                ty::ACK
                    | ty::ACK_ECN
                    | ty::CRYPTO
                    | ty::NEW_TOKEN
                    | ty::PATH_RESPONSE
                    | ty::RETIRE_CONNECTION_ID
                    | ty::HANDSHAKE_DONE
                    | ty::ACK_FREQUENCY
                    | ty::IMMEDIATE_ACK
                    | ty::PATH_ACK
                    | ty::PATH_ACK_ECN
                    | ty::PATH_ABANDON..=ty::PATH_CIDS_BLOCKED
                    | ty::ADD_ADDRESS..=ty::CLOSE_PATH
            ),
            PacketType::Initial | PacketType::Handshake => matches!(
                ty,
                ty::PADDING | ty::PING | ty::ACK | ty::ACK_ECN | ty::CRYPTO | ty::CONNECTION_CLOSE
            ),
        }
    }

    /// Bytes that [`Frame::write`] takes at most.
    pub fn write_size(&self) -> usize {
        match self {
            Self::Ack(ack) => ack_size(ack),
            Self::PathAck { ack, .. } => 8 + ack_size(ack),
            Self::Path(frame) => frame.write_size(),
            Self::Address(frame) => frame.write_size(),
            Self::Crypto { offset, data } => crypto_header_size(*offset, data.len()) + data.len(),
            Self::NewToken(token) => new_token_size(token.len()),
            Self::Stream(s) => {
                stream::header_size(s.id, s.offset, Some(s.data.len())) + s.data.len()
            }
            Self::ConnectionClose(close) => {
                1 + 8 + 8 + size(close.reason.len() as u64) + close.reason.len()
            }
            Self::Datagram(data) => datagram_size(data.len(), true),
            _ => NEW_CONNECTION_ID_SIZE,
        }
    }

    /// Appends the frame with every length stated, so that others may follow it; a run of padding
    /// as one byte. Returns `false`, with nothing written, where it does not fit, and cuts an ACK's
    /// ranges and a close's reason as their writers do.
    ///
    /// The engine builds packets with the free writers, straight from its own state; this is for
    /// whoever has a frame at hand.
    #[must_use]
    pub fn write(&self, w: &mut Writer<'_>) -> bool {
        match self {
            Self::Ack(a) => return ack::write(w, a.ranges, a.delay, a.ecn) > 0,
            Self::PathAck { path, ack: a } => {
                return ack::write_path(w, *path, a.ranges, a.delay, a.ecn) > 0;
            }
            Self::ConnectionClose(close) => return write_connection_close(w, close),
            _ if w.remaining() < self.write_size() => return false,
            Self::Padding => w.zeros(1),
            Self::Ping => write_ping(w),
            Self::ResetStream(f) => write_reset_stream(w, f.id, f.code, f.final_size),
            Self::StopSending { id, code } => write_stop_sending(w, *id, *code),
            Self::Crypto { offset, data } => {
                write_crypto_header(w, *offset, data.len());
                w.bytes(data);
            }
            Self::NewToken(token) => write_new_token(w, token),
            Self::Stream(s) => {
                stream::write_header(w, s.id, s.offset, Some(s.data.len()), s.fin);
                w.bytes(s.data);
            }
            Self::MaxData(max) => write_max_data(w, *max),
            Self::MaxStreamData { id, max } => write_max_stream_data(w, *id, *max),
            Self::MaxStreams { dir, max } => write_max_streams(w, *dir, *max),
            Self::DataBlocked(limit) => write_data_blocked(w, *limit),
            Self::StreamDataBlocked { id, limit } => write_stream_data_blocked(w, *id, *limit),
            Self::StreamsBlocked { dir, limit } => write_streams_blocked(w, *dir, *limit),
            Self::NewConnectionId(f) => write_new_connection_id(w, f),
            Self::RetireConnectionId(seq) => write_retire_connection_id(w, *seq),
            Self::PathChallenge(data) => write_path_challenge(w, data),
            Self::PathResponse(data) => write_path_response(w, data),
            Self::HandshakeDone => write_handshake_done(w),
            Self::Datagram(data) => {
                write_datagram_header(w, Some(data.len()));
                w.bytes(data);
            }
            Self::AckFrequency(f) => write_ack_frequency(w, f),
            Self::ImmediateAck => write_immediate_ack(w),
            Self::Path(frame) => frame.write(w),
            Self::Address(frame) => frame.write(w),
        }
        true
    }
}

/// Bytes of an ACK frame at most, written with as many ranges as it was read with.
fn ack_size(ack: &Ack<'_>) -> usize {
    1 + 5 * 8 + 3 * 8 + ack.ranges.len() * 16
}

/// The error of a type that takes more than one byte and is none of ours.
#[cold]
fn long_type(mut r: Reader<'_>, first: u8) -> TransportError {
    let extra = (1usize << (first >> 6)) - 1;
    let Ok(bytes) = r.bytes(extra) else {
        return TransportError::frame_encoding_error("the frame type ends early");
    };
    let ty = bytes
        .iter()
        .fold(u64::from(first & 0x3f), |v, &b| (v << 8) | u64::from(b));
    // RFC 9000 §12.4: a frame type uses the shortest possible encoding.
    if size(ty) != 1 + extra {
        TransportError::protocol_violation("a frame type is not in its shortest encoding")
    } else {
        unknown_type()
    }
    .with_frame(ty)
}

#[cold]
fn unknown_type() -> TransportError {
    TransportError::frame_encoding_error("unknown frame type")
}

/// How many zeros `bytes` begins with, eight at a time: padding is long, or the packet's last.
#[inline]
fn leading_zeros(bytes: &[u8]) -> usize {
    let (words, _) = bytes.as_chunks::<8>();
    let zeros = words.iter().take_while(|w| **w == [0; 8]).count() * 8;
    let rest = bytes.get(zeros..).unwrap_or_default();
    zeros + rest.iter().take_while(|b| **b == 0).count()
}

/// Reads the next frame if it is a DATAGRAM frame (RFC 9221 §4), and gives its data; any other is
/// left where it is.
///
/// # Errors
/// As [`Frame::parse`].
#[inline]
pub fn next_datagram<'a>(r: &mut Reader<'a>) -> Result<Option<&'a [u8]>, TransportError> {
    let Some(&first) = r.peek_rest().first() else {
        return Ok(None);
    };
    let frame = match u64::from(first) {
        ty::DATAGRAM_LEN => {
            r.u8()?;
            prefixed(r)
        }
        ty::DATAGRAM => {
            r.u8()?;
            Ok(r.rest())
        }
        _ => return Ok(None),
    };
    frame.map(Some).map_err(|e| e.with_frame(u64::from(first)))
}

#[inline]
fn prefixed<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], TransportError> {
    let len = r.varint()?;
    Ok(r.bytes_u64(len)?)
}

fn parse_crypto<'a>(r: &mut Reader<'a>) -> Result<Frame<'a>, TransportError> {
    let offset = r.varint()?;
    let data = prefixed(r)?;
    // RFC 9000 §19.6
    if data.len() as u64 > MAX - offset {
        return Err(TransportError::frame_encoding_error(
            "CRYPTO data ends beyond 2^62 - 1",
        ));
    }
    Ok(Frame::Crypto { offset, data })
}

const fn dir_of(first: u8) -> Dir {
    if first & 1 == 0 { Dir::Bi } else { Dir::Uni }
}

/// A number of streams, at most 2^60 (RFC 9000 §4.6, §19.11, §19.14).
fn stream_count(r: &mut Reader<'_>) -> Result<u64, TransportError> {
    match r.varint()? {
        n if n <= stream::MAX_STREAMS => Ok(n),
        _ => Err(TransportError::frame_encoding_error(
            "a stream limit above 2^60",
        )),
    }
}

#[cfg(test)]
mod tests;
