//! What a 1-RTT packet is filled with: the frames that wait, most urgent first, each noted for loss
//! recovery. Header, sealing and the train around it are `train`'s.

use super::ack_frequency::{requests_of, write_ack_requests};
use super::blocks;
use super::crypto_stream::CryptoStream;
use super::multipath::write_acks_away;
use super::space::SentFrame;
use super::train::Admission;
use super::{Connection, Load, Pending};
use crate::base::{Timestamp, limits};
use crate::crypto::TAG_LEN;
use crate::path::{Path, PathId};
use crate::recovery::AckPolicy;
use crate::stream::Datagrams;
use crate::wire::Writer;
use crate::wire::frame::{self, ack};

impl Connection {
    /// Writes what waits, most urgent first. Returns whether the datagram must have full size
    /// (RFC 9000 §8.2.1, §8.2.2).
    pub(super) fn write_frames(
        &mut self,
        now: Timestamp,
        w: &mut Writer<'_>,
        admission: Admission,
    ) -> bool {
        let payload_at = w.position();
        let room = match self.datagrams.wants_to_send() {
            true => self.datagram_room(),
            false => 0,
        };
        let as_path = self.multipath.is_some() && self.state.is_established();
        let exponent = self.config.ack_delay_exponent;
        let Self {
            paths,
            streams,
            datagrams,
            scratch,
            load,
            ack_frequency,
            ..
        } = self;
        let (count, path) = (&mut self.stats.acks_sent, paths.current_mut());
        write_ack(now, path, w, scratch, (count, exponent, as_path));
        let control = self.multipath.as_deref_mut();
        let mut control = control.filter(|_| *load != Load::Own);
        if control.is_some() {
            write_acks_away(now, paths, w, scratch, (count, exponent));
        }
        if admission == Admission::AckOnly {
            return false;
        }
        let path = paths.current_mut();
        let mut must_fill = false;
        if path.validation.wants_to_send() {
            must_fill = write_path_frames(now, path, w, scratch);
        }
        if *load == Load::All {
            write_handshake_rest(&mut self.one_rtt_crypto, &mut self.pending, w, scratch);
        }
        let probing = path.owed_probes > 0;
        if let Some(requests) = requests_of(ack_frequency) {
            let asks = *load == Load::All && requests.wants_to_send();
            if probing || asks {
                write_ack_requests(now, requests, w, scratch, (probing, asks));
            }
        }
        match &mut control {
            Some(m) => m.write(paths, w, scratch),
            None if !as_path => write_cid_frames(path, w, scratch),
            None => {}
        }
        if *load == Load::All {
            self.new_tokens.write(w, scratch);
            if streams.has_control() {
                streams.write_control(w, &mut |f| scratch.push(SentFrame::Stream(f)));
            }
            if datagrams.wants_to_send() {
                write_datagrams(datagrams, w, scratch, room, payload_at);
            }
            if streams.wants_to_send() {
                streams.write_data(w, &mut |f| scratch.push(SentFrame::Stream(f)));
            }
        }
        if self.load == Load::Pinned {
            self.write_pinned_load(w);
        }
        self.write_ping(w);
        must_fill
    }

    /// Writes a PING that was asked for, or that makes a packet a probe after a timeout.
    #[inline(always)]
    fn write_ping(&mut self, w: &mut Writer<'_>) {
        let (path, scratch) = (self.paths.current_mut(), &mut self.scratch);
        let elicits = || scratch.iter().any(|f| !f.is_ack());
        // A PING that was asked for goes beside other frames: those may all be probing frames.
        let owed = std::mem::take(&mut path.ping) || (path.owed_probes > 0 && !elicits());
        if owed && w.remaining() > 0 {
            frame::write_ping(w);
            scratch.push(SentFrame::Unreliable);
        }
        if !self.streams.wants_to_send() && !self.datagrams.wants_to_send() {
            path.window_limited = false;
        }
    }

    /// Writes what is pinned to the path in hand.
    #[cold]
    fn write_pinned_load(&mut self, w: &mut Writer<'_>) {
        self.write_pinned(w);
        let Self {
            streams, scratch, ..
        } = self;
        streams.write_data(w, &mut |f| scratch.push(SentFrame::Stream(f)));
    }
}

/// Writes what the handshake has left to say.
#[inline]
fn write_handshake_rest(
    crypto: &mut CryptoStream,
    pending: &mut Pending,
    w: &mut Writer<'_>,
    scratch: &mut Vec<SentFrame>,
) {
    if crypto.wants_to_send() {
        while let Some((offset, len)) = crypto.write(w) {
            scratch.push(SentFrame::Crypto { offset, len });
        }
    }
    if pending.handshake_done && w.remaining() > 0 {
        frame::write_handshake_done(w);
        pending.handshake_done = false;
        scratch.push(SentFrame::HandshakeDone);
    }
}

/// Writes an ACK frame when one is due, or when ack-eliciting packets wait for one anyway; as a
/// PATH_ACK frame once several paths are possible (multipath §2.3).
/// Keeps RFC 9000 §17.2.3.
#[inline]
fn write_ack(
    now: Timestamp,
    path: &mut Path<SentFrame>,
    w: &mut Writer<'_>,
    scratch: &mut Vec<SentFrame>,
    (count, exponent, as_path): (&mut u64, u8, bool),
) {
    let acks = &mut path.acks;
    if !acks.should_ack_now() && acks.deadline().is_none() {
        return;
    }
    let Some(largest) = acks.largest() else {
        return;
    };
    let delay = (acks.ack_delay(now).as_micros() as u64) >> exponent;
    let written = match as_path {
        false => ack::write(w, acks.ranges(), delay, acks.ecn_counts()),
        true => write_path_ack(w, path.id, acks, delay),
    };
    if written > 0 {
        // One question at a time: a peer that answers none must not make us remember many.
        let elicit = acks.should_elicit() && path.sent.ack_eliciting_in_flight() == 0;
        if elicit && w.remaining() > 0 {
            frame::write_ping(w);
            scratch.push(SentFrame::Unreliable);
        }
        acks.on_ack_sent();
        scratch.push(SentFrame::Ack { largest });
        *count += 1;
    }
}

/// Writes a PATH_ACK frame; apart, for it would cost connections of one path.
#[inline(never)]
pub(super) fn write_path_ack(
    w: &mut Writer<'_>,
    id: PathId,
    acks: &AckPolicy,
    delay: u64,
) -> usize {
    ack::write_path(w, id, acks.ranges(), delay, acks.ecn_counts())
}

/// Writes as many DATAGRAM frames as fit; of more, what does not fit the path is dropped. `full` is
/// a full packet's room for frames, and those of this one begin at `payload_at`.
fn write_datagrams(
    datagrams: &mut Datagrams,
    w: &mut Writer<'_>,
    scratch: &mut Vec<SentFrame>,
    full: usize,
    payload_at: usize,
) {
    let payload_max = w.position() - payload_at + w.remaining();
    let room = full.max(payload_max);
    datagrams.drop_too_large(room);
    let written = datagrams.write(w);
    if written == 0 {
        return;
    }
    scratch.push(SentFrame::Unreliable);
    if !datagrams.wants_to_send() {
        return;
    }
    // The first packet of a train may set its size by what it holds, if those that follow will be
    // like it. Otherwise PADDING in a small rest keeps the train's size.
    let sets_size = payload_max >= full && datagrams.wants_to_send_alike(written);
    if w.remaining() <= room / 16 && !sets_size {
        w.zeros(w.remaining());
    } else {
        let padding = blocks::padding(w.position() - payload_at);
        w.zeros(padding.min(w.remaining()));
    }
}

/// Writes PATH_RESPONSE and PATH_CHALLENGE frames; true when one was written.
/// Keeps RFC 9000 §8.2.2.
fn write_path_frames(
    now: Timestamp,
    path: &mut Path<SentFrame>,
    w: &mut Writer<'_>,
    scratch: &mut Vec<SentFrame>,
) -> bool {
    let before = w.position();
    let full = before + w.remaining() + TAG_LEN >= limits::MIN_UDP_PAYLOAD;
    while w.remaining() >= frame::PATH_RESPONSE_SIZE {
        let Some(data) = path.validation.poll_response() else {
            break;
        };
        frame::write_path_response(w, &data);
        scratch.push(SentFrame::Unreliable);
    }
    if w.remaining() >= frame::PATH_CHALLENGE_SIZE
        && let Some(data) = path.validation.poll_challenge(now, full)
    {
        frame::write_path_challenge(w, &data);
        scratch.push(SentFrame::Unreliable);
    }
    w.position() > before
}

/// Writes NEW_CONNECTION_ID and RETIRE_CONNECTION_ID frames.
fn write_cid_frames(path: &mut Path<SentFrame>, w: &mut Writer<'_>, scratch: &mut Vec<SentFrame>) {
    while path.remote_cids.wants_to_send() && w.remaining() >= frame::RETIRE_CONNECTION_ID_SIZE {
        let Some(seq) = path.remote_cids.poll_retire() else {
            break;
        };
        frame::write_retire_connection_id(w, seq);
        scratch.push(SentFrame::RetireConnectionId { seq });
    }
    while path.local_cids.wants_to_send() && w.remaining() >= frame::NEW_CONNECTION_ID_SIZE {
        let Some(a) = path.local_cids.poll_announcement() else {
            break;
        };
        let f = frame::NewConnectionId {
            seq: a.seq,
            retire_prior_to: 0,
            cid: a.cid,
            reset_token: a.token,
        };
        frame::write_new_connection_id(w, &f);
        scratch.push(SentFrame::NewConnectionId { seq: a.seq });
    }
}
