//! Frames as the qlog schema of QUIC events shows them.

use super::event::{code, cut};
use super::json::{Array, Object};
use super::multipath;
use crate::wire::Dir;
use crate::wire::frame::{Ack, ConnectionClose, Frame, NewConnectionId};
use std::time::Duration;

fn direction(dir: Dir) -> &'static str {
    match dir {
        Dir::Bi => "bidirectional",
        Dir::Uni => "unidirectional",
    }
}

pub(super) fn frame(d: &mut Object<'_>, f: &Frame<'_>, exponent: u8, end: usize) {
    d.text("frame_type", frame_name(f));
    match f {
        Frame::Padding | Frame::Ping | Frame::HandshakeDone | Frame::ImmediateAck => {}
        Frame::PathAck { path, ack: a } => {
            d.number("path_id", path.0.into());
            ack(d, a, exponent, end);
        }
        Frame::Path(f) => multipath::path_frame(d, f),
        Frame::Address(f) => multipath::address_frame(d, f),
        Frame::Ack(a) => ack(d, a, exponent, end),
        Frame::ResetStream(r) => {
            d.number("stream_id", r.id);
            d.number("error_code", r.code);
            d.number("final_size", r.final_size);
        }
        Frame::StopSending { id, code } => {
            d.number("stream_id", *id);
            d.number("error_code", *code);
        }
        Frame::Crypto { offset, data } => {
            d.number("offset", *offset);
            d.number("length", data.len() as u64);
        }
        // Tokens open doors: only their length is told.
        Frame::NewToken(token) => d.object("token").number("length", token.len() as u64),
        Frame::Stream(s) => {
            d.number("stream_id", s.id);
            d.number("offset", s.offset);
            d.number("length", s.data.len() as u64);
            d.bool("fin", s.fin);
        }
        Frame::MaxData(max) => d.number("maximum", *max),
        Frame::MaxStreamData { id, max } => {
            d.number("stream_id", *id);
            d.number("maximum", *max);
        }
        Frame::MaxStreams { dir, max } => {
            d.text("stream_type", direction(*dir));
            d.number("maximum", *max);
        }
        Frame::DataBlocked(limit) => d.number("limit", *limit),
        Frame::StreamDataBlocked { id, limit } => {
            d.number("stream_id", *id);
            d.number("limit", *limit);
        }
        Frame::StreamsBlocked { dir, limit } => {
            d.text("stream_type", direction(*dir));
            d.number("limit", *limit);
        }
        Frame::NewConnectionId(n) => new_connection_id(d, n),
        Frame::RetireConnectionId(seq) => d.number("sequence_number", *seq),
        Frame::PathChallenge(data) | Frame::PathResponse(data) => d.hex("data", data),
        Frame::ConnectionClose(close) => connection_close(d, close),
        Frame::Datagram(data) => d.number("length", data.len() as u64),
        Frame::AckFrequency(f) => {
            d.number("sequence_number", f.seq);
            d.number("ack_eliciting_threshold", f.threshold);
            d.number("requested_max_ack_delay", f.max_ack_delay);
            d.number("reordering_threshold", f.reordering);
        }
    }
}

pub(super) fn new_connection_id(d: &mut Object<'_>, n: &NewConnectionId) {
    d.number("sequence_number", n.seq);
    d.number("retire_prior_to", n.retire_prior_to);
    d.number("connection_id_length", n.cid.len() as u64);
    d.hex("connection_id", n.cid.as_slice());
}

fn frame_name(f: &Frame<'_>) -> &'static str {
    match f {
        Frame::Padding => "padding",
        Frame::Ping => "ping",
        Frame::Ack(_) => "ack",
        Frame::ResetStream(_) => "reset_stream",
        Frame::StopSending { .. } => "stop_sending",
        Frame::Crypto { .. } => "crypto",
        Frame::NewToken(_) => "new_token",
        Frame::Stream(_) => "stream",
        Frame::MaxData(_) => "max_data",
        Frame::MaxStreamData { .. } => "max_stream_data",
        Frame::MaxStreams { .. } => "max_streams",
        Frame::DataBlocked(_) => "data_blocked",
        Frame::StreamDataBlocked { .. } => "stream_data_blocked",
        Frame::StreamsBlocked { .. } => "streams_blocked",
        Frame::NewConnectionId(_) => "new_connection_id",
        Frame::RetireConnectionId(_) => "retire_connection_id",
        Frame::PathChallenge(_) => "path_challenge",
        Frame::PathResponse(_) => "path_response",
        Frame::ConnectionClose(_) => "connection_close",
        Frame::HandshakeDone => "handshake_done",
        Frame::Datagram(_) => "datagram",
        Frame::AckFrequency(_) => "ack_frequency",
        Frame::ImmediateAck => "immediate_ack",
        Frame::PathAck { .. } => "path_ack",
        Frame::Path(f) => multipath::path_frame_name(f),
        Frame::Address(f) => multipath::address_frame_name(f),
    }
}

fn ack(d: &mut Object<'_>, a: &Ack<'_>, exponent: u8, end: usize) {
    let micros = a.delay.saturating_mul(1 << exponent);
    d.millis("ack_delay", Duration::from_micros(micros));
    let mut ranges = d.array("acked_ranges");
    let mut omitted = 0;
    for r in a.ranges {
        if ranges.written() < end {
            range(&mut ranges.array(), *r.start(), *r.end());
        } else {
            omitted += 1;
        }
    }
    drop(ranges);
    if omitted > 0 {
        d.number("ranges_omitted", omitted);
    }
    if let Some(ecn) = a.ecn {
        d.number("ect0", ecn.ect0);
        d.number("ect1", ecn.ect1);
        d.number("ce", ecn.ce);
    }
}

fn range(pair: &mut Array<'_>, start: u64, end: u64) {
    pair.number(start);
    pair.number(end);
}

fn connection_close(d: &mut Object<'_>, close: &ConnectionClose<'_>) {
    match close.frame_type {
        Some(ty) => {
            d.text("error_space", "transport");
            code(d, "error_code", close.error);
            d.number("trigger_frame_type", ty);
        }
        None => {
            d.text("error_space", "application");
            d.number("error_code", close.error.0);
        }
    }
    d.number("raw_error_code", close.error.0);
    d.text("reason", cut(&String::from_utf8_lossy(close.reason)));
}
