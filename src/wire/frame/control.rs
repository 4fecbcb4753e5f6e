//! The frames that carry a few numbers and little else: flow control, stream control, connection
//! IDs, path validation, closing. Their contents, and writers with the sizes that those need.
//!
//! A writer whose size is a constant needs that much room at most; the others say what they do
//! when the room is short.

use super::{Dir, TransportError, ty};
use crate::base::limits::{MAX_CID_LEN, REASON_BYTES, RESET_TOKEN_LEN};
use crate::wire::cid::ConnectionId;
use crate::wire::error::Code;
use crate::wire::varint::{MAX, Reader, Writer, fit_prefixed, size};

/// Bytes of a PING frame.
pub const PING_SIZE: usize = 1;
/// Bytes of a HANDSHAKE_DONE frame.
pub const HANDSHAKE_DONE_SIZE: usize = 1;
/// Bytes of a RESET_STREAM frame at most.
pub const RESET_STREAM_SIZE: usize = 1 + 8 + 8 + 8;
/// Bytes of a STOP_SENDING frame at most.
pub const STOP_SENDING_SIZE: usize = 1 + 8 + 8;
/// Bytes of a MAX_DATA frame at most.
pub const MAX_DATA_SIZE: usize = 1 + 8;
/// Bytes of a MAX_STREAM_DATA frame at most.
pub const MAX_STREAM_DATA_SIZE: usize = 1 + 8 + 8;
/// Bytes of a MAX_STREAMS frame at most.
pub const MAX_STREAMS_SIZE: usize = 1 + 8;
/// Bytes of a DATA_BLOCKED frame at most.
pub const DATA_BLOCKED_SIZE: usize = 1 + 8;
/// Bytes of a STREAM_DATA_BLOCKED frame at most.
pub const STREAM_DATA_BLOCKED_SIZE: usize = 1 + 8 + 8;
/// Bytes of a STREAMS_BLOCKED frame at most.
pub const STREAMS_BLOCKED_SIZE: usize = 1 + 8;
/// Bytes of a NEW_CONNECTION_ID frame at most.
pub const NEW_CONNECTION_ID_SIZE: usize = 1 + 8 + 8 + 1 + MAX_CID_LEN + RESET_TOKEN_LEN;
/// Bytes of a RETIRE_CONNECTION_ID frame at most.
pub const RETIRE_CONNECTION_ID_SIZE: usize = 1 + 8;
/// Bytes of a PATH_CHALLENGE frame.
pub const PATH_CHALLENGE_SIZE: usize = 1 + 8;
/// Bytes of a PATH_RESPONSE frame.
pub const PATH_RESPONSE_SIZE: usize = 1 + 8;

/// Bytes of an ACK_FREQUENCY frame at most.
pub const ACK_FREQUENCY_SIZE: usize = 2 + 4 * 8;
/// Bytes of an IMMEDIATE_ACK frame.
pub const IMMEDIATE_ACK_SIZE: usize = 1;

/// An ACK_FREQUENCY frame (ACK frequency §4): when its receiver is to acknowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckFrequency {
    /// Later frames have larger numbers; a frame that came late is ignored.
    pub seq: u64,
    /// Ack-eliciting packets that may go without an acknowledgement; the next one is due one.
    pub threshold: u64,
    /// The longest delay of an acknowledgement, in microseconds.
    pub max_ack_delay: u64,
    /// The distance in packet numbers from which on a gap is acknowledged at once; 0 is never.
    pub reordering: u64,
}

/// A RESET_STREAM frame (RFC 9000 §19.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetStream {
    /// The stream's ID.
    pub id: u64,
    /// The application's error code.
    pub code: u64,
    /// The stream's final size, in bytes.
    pub final_size: u64,
}

/// A NEW_CONNECTION_ID frame (RFC 9000 §19.15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewConnectionId {
    /// The connection ID's sequence number.
    pub seq: u64,
    /// Connection IDs below this sequence number are to be retired; at most `seq`.
    pub retire_prior_to: u64,
    /// The connection ID, of 1 to 20 bytes.
    pub cid: ConnectionId,
    /// The token of a stateless reset that names this connection ID.
    pub reset_token: [u8; RESET_TOKEN_LEN],
}

/// A CONNECTION_CLOSE frame (RFC 9000 §19.19).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionClose<'a> {
    /// A transport code, or the application's own where `frame_type` is `None`.
    pub error: Code,
    /// The frame type at fault (0: unknown) in a close of type 0x1c; `None` makes it type 0x1d,
    /// the application's.
    pub frame_type: Option<u64>,
    /// A phrase, usually UTF-8.
    pub reason: &'a [u8],
}

impl NewConnectionId {
    pub(super) fn parse(r: &mut Reader<'_>) -> Result<Self, TransportError> {
        let seq = r.varint()?;
        let retire_prior_to = r.varint()?;
        if retire_prior_to > seq {
            return Err(TransportError::frame_encoding_error(
                "Retire Prior To is above the sequence number",
            ));
        }
        let len = usize::from(r.u8()?);
        if !(1..=MAX_CID_LEN).contains(&len) {
            return Err(TransportError::frame_encoding_error(
                "a connection ID of 0 or more than 20 bytes",
            ));
        }
        let cid = ConnectionId::new(r.bytes(len)?).unwrap_or_default();
        Ok(Self {
            seq,
            retire_prior_to,
            cid,
            reset_token: r.array()?,
        })
    }
}

impl<'a> ConnectionClose<'a> {
    pub(super) fn parse(r: &mut Reader<'a>, application: bool) -> Result<Self, TransportError> {
        let error = Code(r.varint()?);
        let frame_type = if application { None } else { Some(r.varint()?) };
        let len = r.varint()?;
        Ok(Self {
            error,
            frame_type,
            reason: r.bytes_u64(len)?,
        })
    }

    pub(super) const fn ty(&self) -> u64 {
        match self.frame_type {
            Some(_) => ty::CONNECTION_CLOSE,
            None => ty::APPLICATION_CLOSE,
        }
    }
}

impl AckFrequency {
    pub(super) fn parse(r: &mut Reader<'_>) -> Result<Self, TransportError> {
        Ok(Self {
            seq: r.varint()?,
            threshold: r.varint()?,
            max_ack_delay: r.varint()?,
            reordering: r.varint()?,
        })
    }
}

const fn dir_bit(dir: Dir) -> u64 {
    match dir {
        Dir::Bi => 0,
        Dir::Uni => 1,
    }
}

/// Appends a PING frame.
#[inline]
pub fn write_ping(w: &mut Writer<'_>) {
    w.u8(ty::PING as u8);
}

/// Appends a HANDSHAKE_DONE frame.
pub fn write_handshake_done(w: &mut Writer<'_>) {
    w.u8(ty::HANDSHAKE_DONE as u8);
}

/// Appends a RESET_STREAM frame.
pub fn write_reset_stream(w: &mut Writer<'_>, id: u64, code: u64, final_size: u64) {
    w.u8(ty::RESET_STREAM as u8);
    w.varint(id);
    w.varint(code);
    w.varint(final_size);
}

/// Appends a STOP_SENDING frame.
pub fn write_stop_sending(w: &mut Writer<'_>, id: u64, code: u64) {
    w.u8(ty::STOP_SENDING as u8);
    w.varint(id);
    w.varint(code);
}

/// Appends a MAX_DATA frame.
#[inline]
pub fn write_max_data(w: &mut Writer<'_>, max: u64) {
    w.u8(ty::MAX_DATA as u8);
    w.varint(max);
}

/// Appends a MAX_STREAM_DATA frame.
#[inline]
pub fn write_max_stream_data(w: &mut Writer<'_>, id: u64, max: u64) {
    w.u8(ty::MAX_STREAM_DATA as u8);
    w.varint(id);
    w.varint(max);
}

/// Appends a MAX_STREAMS frame. `max` is at most 2^60.
pub fn write_max_streams(w: &mut Writer<'_>, dir: Dir, max: u64) {
    w.u8((ty::MAX_STREAMS_BIDI | dir_bit(dir)) as u8);
    w.varint(max);
}

/// Appends a DATA_BLOCKED frame.
pub fn write_data_blocked(w: &mut Writer<'_>, limit: u64) {
    w.u8(ty::DATA_BLOCKED as u8);
    w.varint(limit);
}

/// Appends a STREAM_DATA_BLOCKED frame.
pub fn write_stream_data_blocked(w: &mut Writer<'_>, id: u64, limit: u64) {
    w.u8(ty::STREAM_DATA_BLOCKED as u8);
    w.varint(id);
    w.varint(limit);
}

/// Appends a STREAMS_BLOCKED frame. `limit` is at most 2^60.
pub fn write_streams_blocked(w: &mut Writer<'_>, dir: Dir, limit: u64) {
    w.u8((ty::STREAMS_BLOCKED_BIDI | dir_bit(dir)) as u8);
    w.varint(limit);
}

/// Appends a NEW_CONNECTION_ID frame. Its connection ID is not empty.
pub fn write_new_connection_id(w: &mut Writer<'_>, frame: &NewConnectionId) {
    debug_assert!(!frame.cid.is_empty() && frame.retire_prior_to <= frame.seq);
    w.u8(ty::NEW_CONNECTION_ID as u8);
    write_new_connection_id_body(w, frame);
}

/// What NEW_CONNECTION_ID and PATH_NEW_CONNECTION_ID frames have in common.
pub(super) fn write_new_connection_id_body(w: &mut Writer<'_>, frame: &NewConnectionId) {
    w.varint(frame.seq);
    w.varint(frame.retire_prior_to);
    w.u8(frame.cid.len() as u8);
    w.bytes(frame.cid.as_slice());
    w.bytes(&frame.reset_token);
}

/// Appends a RETIRE_CONNECTION_ID frame.
pub fn write_retire_connection_id(w: &mut Writer<'_>, seq: u64) {
    w.u8(ty::RETIRE_CONNECTION_ID as u8);
    w.varint(seq);
}

/// Appends a PATH_CHALLENGE frame.
pub fn write_path_challenge(w: &mut Writer<'_>, data: &[u8; 8]) {
    w.u8(ty::PATH_CHALLENGE as u8);
    w.bytes(data);
}

/// Appends a PATH_RESPONSE frame.
pub fn write_path_response(w: &mut Writer<'_>, data: &[u8; 8]) {
    w.u8(ty::PATH_RESPONSE as u8);
    w.bytes(data);
}

/// Appends an ACK_FREQUENCY frame.
pub fn write_ack_frequency(w: &mut Writer<'_>, f: &AckFrequency) {
    for field in [
        ty::ACK_FREQUENCY,
        f.seq,
        f.threshold,
        f.max_ack_delay,
        f.reordering,
    ] {
        w.varint(field);
    }
}

/// Appends an IMMEDIATE_ACK frame.
#[inline]
pub fn write_immediate_ack(w: &mut Writer<'_>) {
    w.u8(ty::IMMEDIATE_ACK as u8);
}

/// Bytes of a NEW_TOKEN frame.
pub const fn new_token_size(token: usize) -> usize {
    1 + size(token as u64) + token
}

/// Appends a NEW_TOKEN frame. The token is not empty.
pub fn write_new_token(w: &mut Writer<'_>, token: &[u8]) {
    debug_assert!(!token.is_empty(), "RFC 9000 §19.7 forbids an empty token");
    w.u8(ty::NEW_TOKEN as u8);
    w.varint(token.len() as u64);
    w.bytes(token);
}

/// Bytes of a CRYPTO frame's header before `len` bytes of data.
pub const fn crypto_header_size(offset: u64, len: usize) -> usize {
    1 + size(offset) + size(len as u64)
}

/// The most CRYPTO data at `offset` that fits in `room` bytes together with its header.
pub const fn crypto_fit(room: usize, offset: u64) -> usize {
    fit_prefixed(room.saturating_sub(1 + size(offset)))
}

/// Appends a CRYPTO frame's header ([`crypto_header_size`] bytes); the caller appends `len` bytes
/// of data next.
pub fn write_crypto_header(w: &mut Writer<'_>, offset: u64, len: usize) {
    w.u8(ty::CRYPTO as u8);
    w.varint(offset);
    w.varint(len as u64);
}

/// Bytes of a DATAGRAM frame (RFC 9221 §4), with or without its length.
#[inline]
pub const fn datagram_size(data: usize, with_length: bool) -> usize {
    1 + if with_length { size(data as u64) } else { 0 } + data
}

/// Appends a DATAGRAM frame's header; the caller appends the data next. Without `len` the data
/// takes the rest of the packet.
#[inline]
pub fn write_datagram_header(w: &mut Writer<'_>, len: Option<usize>) {
    match len {
        Some(len) => {
            w.u8(ty::DATAGRAM_LEN as u8);
            w.varint(len as u64);
        }
        None => w.u8(ty::DATAGRAM as u8),
    }
}

/// Appends a CONNECTION_CLOSE frame, its reason cut to what fits and to [`REASON_BYTES`]. Returns
/// `false`, with nothing written, when not even an empty reason fits.
#[must_use]
pub fn write_connection_close(w: &mut Writer<'_>, frame: &ConnectionClose<'_>) -> bool {
    debug_assert!(frame.error.0 <= MAX);
    let fixed = 1 + size(frame.error.0) + frame.frame_type.map_or(0, size);
    let Some(room) = w.remaining().checked_sub(fixed + 1) else {
        return false;
    };
    let reason = cut_reason(frame.reason, fit_prefixed(room + 1).min(REASON_BYTES));
    w.u8(frame.ty() as u8);
    w.varint(frame.error.0);
    if let Some(frame_type) = frame.frame_type {
        w.varint(frame_type);
    }
    w.varint(reason.len() as u64);
    w.bytes(reason);
    true
}

/// At most `max` bytes of `reason`, without the first part of a UTF-8 character at the end.
fn cut_reason(reason: &[u8], max: usize) -> &[u8] {
    match reason.get(..max) {
        None => reason,
        Some(cut) => match std::str::from_utf8(cut) {
            // No error length: the input ended inside a character.
            Err(e) if e.error_len().is_none() => cut.get(..e.valid_up_to()).unwrap_or_default(),
            _ => cut,
        },
    }
}
