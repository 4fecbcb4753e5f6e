//! What the tests of streams share: configurations, shorthands, a packet there and back.

use super::*;
use crate::stream::{
    BufferAll, OpenError, ReadError, ReadOutcome, SentFrame, StreamSink, Taken, WriteError,
};
use crate::wire::frame::{Frame, ResetStream, Stream};
use crate::wire::{Code, Reader, Writer};
use bytes::Bytes;

mod pair;
mod rules;
mod sink;

const RTT: Duration = Duration::from_millis(10);

fn params(config: &StreamConfig) -> TransportParameters {
    TransportParameters {
        initial_max_data: config.connection_window,
        initial_max_stream_data_bidi_local: config.stream_window,
        initial_max_stream_data_bidi_remote: config.stream_window,
        initial_max_stream_data_uni: config.stream_window,
        initial_max_streams_bidi: config.max_streams_bidi,
        initial_max_streams_uni: config.max_streams_uni,
        ..TransportParameters::default()
    }
}

fn streams(side: Side, ours: &StreamConfig, theirs: &StreamConfig) -> Streams {
    let mut s = Streams::new(side, ours);
    s.set_peer_limits(&params(theirs));
    s
}

fn client() -> Streams {
    streams(
        Side::Client,
        &StreamConfig::default(),
        &StreamConfig::default(),
    )
}

fn small() -> StreamConfig {
    StreamConfig {
        max_streams_bidi: 4,
        max_streams_uni: 2,
        stream_window: 1000,
        stream_window_max: 4000,
        connection_window: 2500,
        connection_window_max: 10_000,
        send_buffer: 1500,
    }
}

fn server() -> Streams {
    streams(Side::Server, &small(), &small())
}

/// Client-initiated bidirectional.
fn bidi(index: u64) -> StreamId {
    StreamId::new(Side::Client, Dir::Bi, index)
}

/// Client-initiated unidirectional.
fn uni(index: u64) -> StreamId {
    StreamId::new(Side::Client, Dir::Uni, index)
}

fn stream_frame(id: StreamId, offset: u64, data: &[u8], fin: bool) -> Stream<'_> {
    Stream {
        id: id.0,
        offset,
        data,
        fin,
    }
}

/// Hands a STREAM frame over to be buffered.
fn give(s: &mut Streams, id: StreamId, offset: u64, data: &[u8], fin: bool) -> Result<(), Code> {
    s.at(Timestamp::ZERO, RTT);
    s.on_stream(&stream_frame(id, offset, data, fin), &mut BufferAll)
        .map_err(|e| e.code)
}

fn give_reset(s: &mut Streams, id: StreamId, final_size: u64, code: u64) -> Result<(), Code> {
    let frame = ResetStream {
        id: id.0,
        code,
        final_size,
    };
    s.on_reset(&frame).map_err(|e| e.code)
}

fn read_all(s: &mut Streams, id: StreamId) -> (Vec<u8>, Result<ReadOutcome, ReadError>) {
    let (mut out, mut buf) = (Vec::new(), [0; 700]);
    loop {
        match s.read(id, &mut buf) {
            Ok(ReadOutcome::Data(n)) => out.extend_from_slice(&buf[..n]),
            end => return (out, end),
        }
    }
}

fn events(s: &mut Streams) -> Vec<StreamEvent> {
    std::iter::from_fn(|| s.poll_event()).collect()
}

/// One packet of control frames and then data, with its records.
fn packet(s: &mut Streams, size: usize) -> (Vec<u8>, Vec<SentFrame>) {
    let (mut buf, mut sent) = (vec![0; size], Vec::new());
    let mut w = Writer::new(&mut buf);
    s.write_control(&mut w, &mut |f| sent.push(f));
    s.write_data(&mut w, &mut |f| sent.push(f));
    let n = w.position();
    buf.truncate(n);
    (buf, sent)
}

/// The records of everything that is to be sent now.
fn send_all(s: &mut Streams) -> Vec<SentFrame> {
    let mut all = Vec::new();
    while s.wants_to_send() {
        let (bytes, sent) = packet(s, 1200);
        assert!(!bytes.is_empty(), "who wants to send has something to send");
        all.extend(sent);
    }
    all
}

fn ack_all(s: &mut Streams, sent: &[SentFrame]) {
    sent.iter().for_each(|f| s.on_acked(*f));
}

/// Gives every frame of a packet to a receiver.
fn input(
    s: &mut Streams,
    now: Timestamp,
    bytes: &[u8],
    sink: &mut dyn StreamSink,
) -> Result<(), TransportError> {
    let mut r = Reader::new(bytes);
    s.at(now, RTT);
    while !r.is_empty() {
        match Frame::parse(&mut r)? {
            Frame::Stream(f) => s.on_stream(&f, sink)?,
            Frame::ResetStream(f) => s.on_reset(&f)?,
            Frame::StopSending { id, code } => s.on_stop_sending(id, code)?,
            Frame::MaxData(max) => s.on_max_data(max),
            Frame::MaxStreamData { id, max } => s.on_max_stream_data(id, max)?,
            Frame::MaxStreams { dir, max } => s.on_max_streams(dir, max),
            Frame::DataBlocked(limit) => s.on_data_blocked(limit),
            Frame::StreamDataBlocked { id, limit } => s.on_stream_data_blocked(id, limit)?,
            Frame::StreamsBlocked { dir, limit } => s.on_streams_blocked(dir, limit),
            Frame::Padding => {}
            other => panic!("unexpected {other:?}"),
        }
    }
    Ok(())
}
