//! Acknowledged STREAM frames that lie behind each other, told to their stream as one: in bulk
//! transfer an ACK frame covers dozens of packets whose data is contiguous.

use super::output::SentFrame;
use super::set::Streams;

/// What was acknowledged and not told yet.
#[derive(Debug, Default)]
pub struct AckedRun(Option<SentFrame>);

impl AckedRun {
    /// Adds a frame, and tells what does not go with it. Call [`AckedRun::finish`] at the end.
    #[inline]
    pub fn add(&mut self, streams: &mut Streams, frame: SentFrame) {
        if let Some(SentFrame::Stream {
            id,
            offset,
            len,
            fin,
        }) = &mut self.0
            && let SentFrame::Stream {
                id: also,
                offset: next,
                len: more,
                fin: last,
            } = frame
            && *id == also
            && offset.checked_add(u64::from(*len)) == Some(next)
            && let Some(both) = len.checked_add(more)
        {
            *len = both;
            *fin |= last;
            return;
        }
        if let Some(before) = self.0.replace(frame) {
            streams.on_acked(before);
        }
    }

    /// Tells what is left.
    #[inline]
    pub fn finish(self, streams: &mut Streams) {
        if let Some(frame) = self.0 {
            streams.on_acked(frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;
    use crate::stream::StreamConfig;
    use crate::wire::{Dir, Side, StreamId, TransportParameters, Writer};

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

    fn is_open(streams: &mut Streams, id: StreamId) -> bool {
        while streams.poll_event().is_some() {}
        streams.find(id).is_some()
    }

    /// Frames of two streams, acknowledged in runs of any length and in any order: each stream is
    /// finished exactly when all of its own are.
    #[test]
    fn runs_are_what_their_frames_are() {
        for seed in 0..200 {
            let mut rng = Rng::from_u64(seed);
            let mut streams = client();
            let ids = [(); 2].map(|()| streams.open(Dir::Uni).expect("a stream"));
            let mut frames = Vec::new();
            for id in ids {
                for _ in 0..1 + rng.below(20) {
                    let data = vec![7; 1 + rng.below(3000) as usize];
                    streams.write(id, &data).expect("room");
                    let mut buf = [0; 1400];
                    let mut w = Writer::new(&mut buf);
                    streams.write_data(&mut w, &mut |f| frames.push(f));
                }
                streams.finish(id).expect("open");
            }
            while streams.has_data() {
                let mut buf = [0; 1400];
                streams.write_data(&mut Writer::new(&mut buf), &mut |f| frames.push(f));
            }
            let kept = frames.remove(rng.below(frames.len() as u64) as usize);
            while !frames.is_empty() {
                let at = rng.below(frames.len() as u64) as usize;
                let n = 1 + rng.below((frames.len() - at) as u64) as usize;
                let mut run = AckedRun::default();
                for frame in frames.drain(at..at + n) {
                    run.add(&mut streams, frame);
                }
                run.finish(&mut streams);
            }
            let SentFrame::Stream { id: waits, .. } = kept else {
                panic!("{kept:?}");
            };
            for id in ids {
                assert_eq!(is_open(&mut streams, id), id == waits, "seed {seed}");
            }
            streams.on_acked(kept);
            assert!(
                !ids.into_iter().any(|id| is_open(&mut streams, id)),
                "seed {seed}"
            );
        }
    }
}
