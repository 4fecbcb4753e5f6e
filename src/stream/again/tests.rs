//! What is written a second time, and what is not.

use super::*;
use crate::base::Rng;
use crate::stream::StreamConfig;
use crate::wire::{Dir, Reader, Side, TransportParameters, frame::Frame};

fn client() -> Streams {
    let mut streams = Streams::new(Side::Client, &StreamConfig::default());
    streams.set_peer_limits(&TransportParameters {
        initial_max_data: 1 << 20,
        initial_max_stream_data_uni: 1 << 20,
        initial_max_streams_uni: 2,
        ..TransportParameters::default()
    });
    streams
}

/// Writes everything that waits in packets of `size` bytes, and returns the records.
fn send(streams: &mut Streams, size: usize) -> Vec<SentFrame> {
    let mut frames = Vec::new();
    while streams.wants_to_send() {
        let mut buf = vec![0; size];
        let mut w = Writer::new(&mut buf);
        streams.write_control(&mut w, &mut |f| frames.push(f));
        streams.write_data(&mut w, &mut |f| frames.push(f));
    }
    frames
}

/// Repeats a frame in packets of `size` bytes; returns what they held: offset, bytes, end.
fn again(
    streams: &mut Streams,
    frame: SentFrame,
    size: usize,
    lost: bool,
) -> Vec<(u64, Vec<u8>, bool)> {
    let (mut out, mut left) = (Vec::new(), Some(frame));
    while let Some(frame) = left {
        let mut buf = vec![0; size];
        let mut w = Writer::new(&mut buf);
        let mut records = 0;
        left = streams.write_again(&mut w, frame, lost, &mut |_| records += 1);
        assert!(left.is_none() || records > 0, "no progress");
        let len = w.position();
        let mut r = Reader::new(&buf[..len]);
        while !r.is_empty() {
            match Frame::parse(&mut r).expect("a frame") {
                Frame::Stream(s) => out.push((s.offset, s.data.to_vec(), s.fin)),
                Frame::Padding => {}
                other => panic!("{other:?}"),
            }
        }
    }
    out
}

fn data(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 7 / 3) as u8).collect()
}

#[test]
fn a_copy_holds_what_is_not_acknowledged_and_changes_nothing() {
    let mut streams = client();
    let id = streams.open(Dir::Uni).unwrap();
    let text = data(3000);
    streams.write(id, &text).unwrap();
    streams.finish(id).unwrap();
    let frames = send(&mut streams, 4000);
    let part = |offset, len, fin| SentFrame::Stream {
        id,
        offset,
        len,
        fin,
    };
    assert_eq!(frames, [part(0, 3000, true)]);
    streams.on_acked(part(1000, 500, false));
    let copy = again(&mut streams, frames[0], 4000, false);
    let expected = [
        (0, text[..1000].to_vec(), false),
        (1500, text[1500..].to_vec(), true),
    ];
    assert_eq!(copy, expected);
    assert!(!streams.wants_to_send());
    assert_eq!(streams.stats().tx_bytes_again, 0);
    // In small packets it is split.
    let copy = again(&mut streams, frames[0], 300, false);
    assert!(copy.len() > 8);
    assert_eq!(copy.iter().map(|c| c.1.len()).sum::<usize>(), 2500);
    // Either acknowledgement ends the stream, once.
    streams.on_acked(frames[0]);
    streams.on_acked(frames[0]);
    let finished = std::iter::from_fn(|| streams.poll_event()).count();
    assert_eq!(finished, 1);
    assert!(again(&mut streams, frames[0], 4000, false).is_empty());
}

#[test]
fn what_was_lost_is_taken_from_loss_recovery() {
    let mut streams = client();
    let id = streams.open(Dir::Uni).unwrap();
    let text = data(3000);
    streams.write(id, &text).unwrap();
    streams.finish(id).unwrap();
    let all = send(&mut streams, 4000)[0];
    assert!(again(&mut streams, all, 4000, true).is_empty(), "not lost");
    streams.on_lost(SentFrame::Stream {
        id,
        offset: 2000,
        len: 1000,
        fin: true,
    });
    assert!(streams.wants_to_send());
    let repeated = again(&mut streams, all, 4000, true);
    assert_eq!(repeated, [(2000, text[2000..].to_vec(), true)]);
    assert!(!streams.wants_to_send());
    assert_eq!(streams.stats().tx_bytes_again, 1000);
    assert!(again(&mut streams, all, 4000, true).is_empty(), "once");
}

#[test]
fn control_frames_are_repeated_while_they_matter() {
    let mut streams = client();
    let id = streams.open(Dir::Uni).unwrap();
    streams.write(id, &data(100)).unwrap();
    let sent = send(&mut streams, 1000);
    assert!(streams.reset(id, 9).is_ok());
    let reset = send(&mut streams, 1000);
    assert_eq!(reset, [SentFrame::ResetStream(id)]);
    assert!(again(&mut streams, sent[0], 1000, false).is_empty());
    let mut buf = [0; 100];
    let mut w = Writer::new(&mut buf);
    let mut records = Vec::new();
    let left = streams.write_again(&mut w, reset[0], false, &mut |f| records.push(f));
    assert_eq!((left, &records), (None, &reset));
    let len = w.position();
    let frame = Frame::parse(&mut Reader::new(&buf[..len])).unwrap();
    assert!(matches!(frame, Frame::ResetStream(f) if f.code == 9 && f.final_size == 100));
    streams.on_acked(reset[0]);
    let mut w = Writer::new(&mut buf);
    streams.write_again(&mut w, reset[0], false, &mut |_| panic!("it is done"));
    assert_eq!(w.position(), 0);
}

/// Whatever is acknowledged, lost and repeated: each byte not acknowledged is in a repetition.
#[test]
fn nothing_is_left_out() {
    for seed in 0..200 {
        let mut rng = Rng::from_u64(seed);
        let mut streams = client();
        let id = streams.open(Dir::Uni).unwrap();
        let text = data(1 + rng.below(20_000) as usize);
        streams.write(id, &text).unwrap();
        let frames = send(&mut streams, 100 + rng.below(1400) as usize);
        let mut open = vec![true; text.len()];
        for frame in &frames {
            let SentFrame::Stream { offset, len, .. } = *frame else {
                panic!("{frame:?}");
            };
            if rng.below(3) == 0 {
                streams.on_acked(*frame);
                open[offset as usize..(offset + u64::from(len)) as usize].fill(false);
            }
        }
        let mut seen = vec![false; text.len()];
        for frame in frames {
            for (offset, bytes, _) in
                again(&mut streams, frame, 60 + rng.below(900) as usize, false)
            {
                let range = offset as usize..offset as usize + bytes.len();
                assert_eq!(bytes, text[range.clone()], "seed {seed}");
                assert!(!seen[range.clone()].contains(&true), "seed {seed}: twice");
                seen[range].fill(true);
            }
        }
        assert_eq!(seen, open, "seed {seed}");
    }
}
