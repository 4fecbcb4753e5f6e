//! Streams and early data (RFC 9001 §4.6): which of a client's streams may be a replay, and the
//! beginning anew of those whose early data was rejected.

use super::set::Streams;
use crate::wire::{StreamId, TransportParameters};

/// Which streams of the peer were opened by early data.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Early {
    /// Whatever comes is early data.
    open: bool,
    /// By direction: numbers below were opened by it.
    below: [u64; 2],
}

impl Streams {
    /// From now on streams of the peer are opened by early data.
    pub fn begin_early(&mut self) {
        self.early.open = true;
    }

    /// From now on they are not. Without effect where none were.
    pub fn end_early(&mut self) {
        if std::mem::take(&mut self.early.open) {
            let opened = self.peer.iter().map(|ids| ids.opened());
            for (below, opened) in self.early.below.iter_mut().zip(opened) {
                *below = opened;
            }
        }
    }

    /// Whether the peer opened stream `id` by early data. What comes on it before the handshake is
    /// complete may be somebody's copy of what the peer said on another connection.
    pub fn is_early(&self, id: StreamId) -> bool {
        let below = self.early.below.get(id.dir() as usize).copied();
        id.initiator() != self.side && (self.early.open || below > Some(id.index()))
    }

    /// Counts nothing as sent any more and starts over under the limits of `params`, which may be
    /// lower than those before (RFC 9001 §4.6.2). False when more streams are open than they
    /// permit; these are of no use then.
    #[must_use]
    pub fn restart(&mut self, params: &TransportParameters) -> bool {
        self.flow.sent = 0;
        self.flow.peer_limit = 0;
        self.flow.blocked_at = 0;
        for ids in &mut self.local {
            ids.limit = 0;
        }
        for (_, slot) in self.slots.iter_mut() {
            if let Some(send) = &mut slot.send {
                send.restart(0);
            }
        }
        self.set_peer_limits(params);
        self.local.iter().all(|ids| ids.next <= ids.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{SentFrame, StreamConfig};
    use crate::wire::frame::{Frame, Stream};
    use crate::wire::{Dir, Reader, Side, Writer};

    fn params(streams: u64, data: u64, per_stream: u64) -> TransportParameters {
        TransportParameters {
            initial_max_data: data,
            initial_max_stream_data_bidi_remote: per_stream,
            initial_max_streams_bidi: streams,
            ..TransportParameters::default()
        }
    }

    fn client(p: &TransportParameters) -> Streams {
        let mut s = Streams::new(Side::Client, &StreamConfig::default());
        s.set_peer_limits(p);
        s
    }

    /// The STREAM frames of a packet: ID, offset, length, end.
    fn written(s: &mut Streams) -> Vec<(u64, u64, usize, bool)> {
        let mut buf = vec![0; 4096];
        let mut w = Writer::new(&mut buf);
        let mut records: Vec<SentFrame> = Vec::new();
        s.write_control(&mut w, &mut |f| records.push(f));
        s.write_data(&mut w, &mut |f| records.push(f));
        let mut r = Reader::new(w.written());
        let mut out = Vec::new();
        while !r.is_empty() {
            if let Frame::Stream(Stream {
                id,
                offset,
                data,
                fin,
            }) = Frame::parse(&mut r).unwrap()
            {
                out.push((id, offset, data.len(), fin));
            }
        }
        out
    }

    #[test]
    fn everything_is_sent_again_from_the_start() {
        let mut s = client(&params(4, 10_000, 5_000));
        let (a, b) = (s.open(Dir::Bi).unwrap(), s.open(Dir::Bi).unwrap());
        s.write(a, &[1; 1000]).unwrap();
        s.finish(a).unwrap();
        s.write(b, &[2; 500]).unwrap();
        let first = written(&mut s);
        assert_eq!(first, [(0, 0, 1000, true), (4, 0, 500, false)]);
        assert!(written(&mut s).is_empty());
        assert!(s.restart(&params(4, 10_000, 5_000)));
        assert_eq!(written(&mut s), first);
        assert_eq!(s.stats().tx_bytes, 1500);
    }

    #[test]
    fn lower_limits_hold_back_what_higher_ones_had_let_go() {
        let mut s = client(&params(2, 10_000, 5_000));
        let (a, b) = (s.open(Dir::Bi).unwrap(), s.open(Dir::Bi).unwrap());
        for id in [a, b] {
            s.write(id, &[1; 1000]).unwrap();
        }
        assert_eq!(written(&mut s).len(), 2);
        assert!(s.restart(&params(2, 500, 300)));
        let total = |frames: Vec<(u64, u64, usize, bool)>| -> usize {
            frames.iter().map(|(_, _, len, _)| len).sum()
        };
        assert_eq!(total(written(&mut s)), 500);
        s.on_max_data(2_000);
        assert_eq!(total(written(&mut s)), 100);
        for id in [a, b] {
            s.on_max_stream_data(id.0, 1_000).unwrap();
        }
        assert_eq!(total(written(&mut s)), 1_400);
        // More streams than the server permits cannot be helped.
        assert!(!s.restart(&params(1, 500, 300)));
    }

    #[test]
    fn a_stream_that_was_reset_early_costs_the_server_nothing() {
        let mut s = client(&params(1, 1000, 1000));
        let id = s.open(Dir::Bi).unwrap();
        s.write(id, &[1; 1000]).unwrap();
        written(&mut s);
        s.reset(id, 7).unwrap();
        assert!(s.restart(&params(1, 1000, 1000)));
        s.on_lost(SentFrame::ResetStream(id));
        let mut buf = vec![0; 100];
        let mut w = Writer::new(&mut buf);
        s.write_control(&mut w, &mut |_| {});
        let frame = Frame::parse(&mut Reader::new(w.written())).unwrap();
        assert!(matches!(frame, Frame::ResetStream(f) if f.final_size == 0));
        assert_eq!(s.stats().tx_bytes, 0);
    }

    #[test]
    fn streams_are_early_until_the_handshake_and_remain_so() {
        let mut s = Streams::new(Side::Server, &StreamConfig::default());
        let id = |n| StreamId::new(Side::Client, Dir::Uni, n);
        assert!(!s.is_early(id(0)));
        s.begin_early();
        assert!(s.is_early(id(0)) && s.is_early(id(5)));
        assert!(!s.is_early(StreamId::new(Side::Server, Dir::Uni, 0)));
        s.on_stream_data_blocked(id(1).0, 0).unwrap();
        s.end_early();
        assert!(s.is_early(id(0)) && s.is_early(id(1)));
        assert!(!s.is_early(id(2)));
        assert!(!s.is_early(StreamId::new(Side::Client, Dir::Bi, 0)));
    }
}
