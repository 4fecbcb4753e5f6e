//! The bulk of a bulk transfer: the packets of a train behind its first, while nothing but stream
//! data waits. Nothing can arrive while a train is built, so what else a packet may hold is asked
//! once a train, and what windows and pacing admit is counted once.
//!
//! The packets are those that `train` would build, which also builds whatever comes before and
//! behind them.

use super::space::SentFrame;
use super::train::Train;
use super::{Connection, Load};
use crate::base::{Timestamp, limits};
use crate::crypto::TAG_LEN;
use bytes::Bytes;

impl Connection {
    /// Goes on with a train whose first packet is written. Leaves it where something else is to be
    /// looked at; what that is, and the rest of the train, is the caller's.
    pub(super) fn extend_with_streams(
        &mut self,
        now: Timestamp,
        buf: &mut [u8],
        train: &mut Train,
    ) {
        if !self.only_streams_wait() {
            return;
        }
        let dcid = self.paths.current().remote_cids.active();
        let size = train.size;
        for _ in 0..self.admitted_packets(train) {
            if !self.streams.wants_to_send() || self.streams.has_control() {
                return;
            }
            let Some(packet) = buf.get_mut(train.len..train.len + size) else {
                return;
            };
            let mut tail = Bytes::new();
            let mut w = self.writer(&mut packet[..size - TAG_LEN], &mut tail);
            let Some(head) = self.begin_one_rtt(now, &mut w, dcid) else {
                return;
            };
            let header_len = w.position();
            let Self {
                streams, scratch, ..
            } = self;
            scratch.clear();
            streams.write_data(&mut w, &mut |f| scratch.push(SentFrame::Stream(f)));
            if w.position() == header_len {
                return;
            }
            let padded = w.position() < head.least();
            if padded {
                w.zeros(head.least() - w.position());
            }
            let len = w.position() + TAG_LEN;
            if !self.streams.wants_to_send() {
                self.paths.current_mut().window_limited = false;
            }
            let len = self.finish_one_rtt(now, &mut packet[..len], head, padded, false, &tail);
            train.add(len);
            if train.ended {
                return;
            }
        }
    }

    /// Whether a packet would hold stream data and no other frame.
    fn only_streams_wait(&self) -> bool {
        let path = self.paths.current();
        let owed = path.owed_probes > 0 || path.ping || self.pending.handshake_done;
        !owed
            && !path.acks.should_ack_now()
            && path.acks.deadline().is_none()
            && self.load == Load::All
            && !self.path_control_waits()
            && !self.wants_copies()
            && !self.datagrams.wants_to_send()
            && !self.one_rtt_crypto.wants_to_send()
            && !path.validation.wants_to_send()
            && !path.local_cids.wants_to_send()
            && !path.remote_cids.wants_to_send()
            && !self.ack_request_waits()
            && !self.has_probe_to_send()
            && !self.new_tokens.wants_to_send()
    }

    /// How many more packets `admit` would admit in full, and the train has room for.
    fn admitted_packets(&self, train: &Train) -> usize {
        let path = self.paths.current();
        let size = train.size as u64;
        let sent = train.len as u64;
        let bytes = path
            .window_room()
            .min(path.paced.saturating_sub(sent))
            .min(path.validation.allowance().saturating_sub(sent))
            .min((limits::MAX_TRAIN_BYTES as u64).saturating_sub(sent));
        let packets = usize::try_from(bytes / size).unwrap_or(usize::MAX);
        packets.min(limits::MAX_TRAIN_SEGMENTS - train.count)
    }
}
