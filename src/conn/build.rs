//! The handshake's datagrams: Initial, Handshake and 1-RTT packets coalesced (RFC 9000 §12.2),
//! padded where §14.1 asks for it, and the datagram that says goodbye.
//!
//! Packets are drafted first and sealed last, because padding goes into the last of them.

use super::ack::{resend_outstanding, space_index};
use super::observe::Watch;
use super::space::{HandshakeSpace, SentFrame};
use super::state::State;
use super::train::Admission;
use super::{Connection, HandshakeIds};
use crate::base::{Timestamp, Transmit, limits};
use crate::crypto::{TAG_LEN, seal};
use crate::path::{Path, PathId};
use crate::recovery::SentPacket;
use crate::wire::frame::{self, ConnectionClose, ack};
use crate::wire::header::{self, LongType};
use crate::wire::{PacketType, Side, Writer, packet_number};
use smallvec::SmallVec;

/// A packet written but not sealed; positions are in its datagram.
struct Draft {
    ty: PacketType,
    offsets: header::LongOffsets,
    pn: u64,
    pn_len: usize,
    /// Where the payload ends; the tag follows.
    end: usize,
    ack_eliciting: bool,
    frames: SmallVec<[SentFrame; 4]>,
}

impl Connection {
    /// Builds one datagram while Initial or Handshake keys exist. Returns its length.
    pub(super) fn handshake_datagram(&mut self, now: Timestamp, buf: &mut [u8]) -> usize {
        let size = self.datagram_size(buf.len());
        if (size as u64) < self.least_datagram() {
            return 0;
        }
        let admission = match self.admit(now, 0, size) {
            // Probes of the 1-RTT space do not let the handshake's packets pass the window.
            Admission::None => return 0,
            other => other,
        };
        let Some(buf) = buf.get_mut(..size) else {
            return 0;
        };
        let mut drafts: SmallVec<[Draft; 2]> = SmallVec::new();
        let mut used = 0;
        for ty in [PacketType::Initial, PacketType::Handshake] {
            let space = match ty {
                PacketType::Initial => self.initial.as_deref_mut(),
                _ => self.handshake.as_deref_mut(),
            };
            let Some(space) = space else { continue };
            let remote = self.paths.current().remote_cids.active();
            let may_send = admission != Admission::AckOnly;
            let Some(rest) = buf.get_mut(used..) else {
                break;
            };
            if let Some(mut d) = draft(now, ty, space, &self.ids, &remote, rest, may_send) {
                d.shift(used);
                used = d.end + TAG_LEN;
                drafts.push(d);
            }
        }
        // RFC 9000 §14.1, RFC 9001 §9.3.
        let must_pad = drafts
            .iter()
            .any(|d| d.ty == PacketType::Initial && (self.side == Side::Client || d.ack_eliciting));
        let least = if must_pad {
            limits::MIN_UDP_PAYLOAD.saturating_sub(used)
        } else {
            0
        };
        let mut last = 0;
        if self.may_send_one_rtt() && self.has_one_rtt_to_send() {
            let rest = buf.get_mut(used..).unwrap_or_default();
            last = self.one_rtt_packet(now, rest, least, admission);
        } else if self.zero_rtt.can_send() && self.has_one_rtt_to_send() {
            let rest = buf.get_mut(used..).unwrap_or_default();
            last = self.zero_rtt_packet(now, rest, least, admission);
        }
        if last == 0
            && least > 0
            && let Some(d) = drafts.last_mut()
        {
            pad(buf, d, limits::MIN_UDP_PAYLOAD);
            used = d.end + TAG_LEN;
        }
        for d in &drafts {
            self.seal_draft(now, buf, d);
        }
        if self.side == Side::Client && drafts.iter().any(|d| d.ty == PacketType::Handshake) {
            // RFC 9001 §4.9.1: a client's Initial keys go with its first Handshake packet.
            self.discard_initial();
        }
        used + last
    }

    /// A server may send 1-RTT data once it has the keys; a client once TLS is done.
    pub(super) fn may_send_one_rtt(&self) -> bool {
        self.one_rtt.is_some() && (self.side == Side::Server || !self.state.is_handshaking())
    }

    fn seal_draft(&mut self, now: Timestamp, buf: &mut [u8], d: &Draft) {
        let space = match d.ty {
            PacketType::Initial => self.initial.as_deref_mut(),
            _ => self.handshake.as_deref_mut(),
        };
        let end = d.end + TAG_LEN;
        let Some(space) = space else { return };
        d.offsets.patch_length(&mut Writer::new(buf), end);
        let start = d.offsets.start;
        let Some(packet) = buf.get_mut(start..end) else {
            return;
        };
        let pn_offset = d.offsets.packet_number - start;
        self.fixed_bit.apply(packet, &mut self.rng);
        self.watch
            .sent(PathId::ZERO, (d.ty, d.pn), packet, pn_offset + d.pn_len);
        if seal(&space.keys.local, 0, d.pn, packet, pn_offset, d.pn_len).is_err() {
            return;
        }
        let path = self.paths.current_mut();
        record(now, path, space, d, end - start);
        self.stats.packets_sent += 1;
        if d.ack_eliciting {
            self.timers.on_ack_eliciting_sent(now);
        }
    }

    /// The datagram that carries CONNECTION_CLOSE, once per time it is owed (RFC 9000 §10.2.3): in
    /// every packet type that the peer may be able to read.
    pub(super) fn poll_close(&mut self, _now: Timestamp, buf: &mut [u8]) -> Option<Transmit> {
        let State::Closing { frame, send } = &mut self.state else {
            return None;
        };
        if !std::mem::take(send) {
            return None;
        }
        let close = frame.clone();
        let path = self.paths.current();
        let size = limits::MIN_UDP_PAYLOAD.min(buf.len()).min(path.allowance());
        let remote = path.remote_cids.active();
        let buf = buf.get_mut(..size)?;
        let mut used = 0;
        let (has_handshake, may_send_one_rtt) = (self.handshake.is_some(), self.may_send_one_rtt());
        let last_is_initial = !has_handshake && !may_send_one_rtt;
        for ty in [PacketType::Initial, PacketType::Handshake] {
            let space = match ty {
                PacketType::Initial => self.initial.as_deref_mut(),
                _ => self.handshake.as_deref_mut(),
            };
            let (Some(space), Some(rest)) = (space, buf.get_mut(used..)) else {
                continue;
            };
            // A client has Handshake keys only from a server that has them too.
            if ty == PacketType::Initial && self.side == Side::Client && has_handshake {
                continue;
            }
            let f = Self::close_frame_for(&close, ty);
            let mut f = CloseFrames {
                frame: &f,
                crypto_first: may_send_one_rtt && ty == PacketType::Handshake,
                watch: &mut self.watch,
            };
            // RFC 9000 §14.1: a client's datagram with an Initial packet has full size; its last
            // long packet is padded to it.
            let least = match ty {
                _ if self.side == Side::Server => 0,
                PacketType::Initial if last_is_initial => limits::MIN_UDP_PAYLOAD,
                PacketType::Handshake if used > 0 => limits::MIN_UDP_PAYLOAD - used,
                _ => 0,
            };
            let len = close_packet(ty, space, &self.ids, &remote, rest, &mut f, least);
            self.stats.packets_sent += u64::from(len.is_some());
            used += len.unwrap_or(0);
        }
        if may_send_one_rtt && let Some(rest) = buf.get_mut(used..) {
            used += self.one_rtt_close(rest, &close).unwrap_or(0);
        }
        (used > 0).then(|| self.transmit(used, used))
    }

    fn one_rtt_close(&mut self, buf: &mut [u8], f: &super::state::CloseFrame) -> Option<usize> {
        let path = self.paths.current_mut();
        let keys = self.one_rtt.as_deref_mut()?;
        let pn = path.sent.skip_packet_number();
        let pn_len = packet_number::encode_len(pn, path.sent.largest_acked());
        let room = buf.len().checked_sub(TAG_LEN)?;
        let mut w = Writer::new(buf.get_mut(..room)?);
        let dcid = path.remote_cids.active();
        if w.remaining() < 1 + dcid.len() + 4 + 32 {
            return None;
        }
        let phase = keys.phase_bit() != 0;
        let at = header::write_short(&mut w, &dcid, path.spin.value(), phase, pn_len);
        packet_number::write(&mut w, pn, pn_len);
        if !frame::write_connection_close(&mut w, &wire_close(f)) {
            return None;
        }
        let len = w.position() + TAG_LEN;
        let packet = buf.get_mut(..len)?;
        self.watch
            .sent(path.id, (PacketType::OneRtt, pn), packet, at + pn_len);
        self.nonces.on_seal(path.id.0, pn);
        keys.seal(path.id.0, pn, packet, at, pn_len).ok()?;
        self.stats.packets_sent += 1;
        Some(len)
    }
}

impl Draft {
    fn shift(&mut self, by: usize) {
        self.offsets.start += by;
        self.offsets.length += by;
        self.offsets.packet_number += by;
        self.end += by;
    }
}

fn wire_close(f: &super::state::CloseFrame) -> ConnectionClose<'_> {
    ConnectionClose {
        error: f.code,
        frame_type: f.frame_type,
        reason: &f.reason,
    }
}

/// Writes a long header and the packet number of the space's next packet.
/// Keeps RFC 9000 §8.1.2.
fn long_header(
    w: &mut Writer<'_>,
    ty: PacketType,
    space: &HandshakeSpace,
    ids: &HandshakeIds,
    remote: &crate::wire::ConnectionId,
) -> Option<(header::LongOffsets, u64, usize)> {
    // RFC 9000 §8.1.2, §8.1.3: every Initial packet carries the token, a Retry's or a stored one.
    let (ty, token) = match ty {
        PacketType::Initial => (LongType::Initial, ids.token.as_slice()),
        _ => (LongType::Handshake, &[][..]),
    };
    let pn = space.sent.next_packet_number();
    let pn_len = packet_number::encode_len(pn, space.sent.largest_acked());
    let need = header::long_size(ty, remote.len(), ids.local_scid.len(), token.len()) + 4;
    // Room for a few bytes of CRYPTO, or the packet is not worth its header.
    if w.remaining() < need + 32 {
        return None;
    }
    let version = ids.version.chosen.number();
    let offsets = header::write_long(w, ty, version, remote, &ids.local_scid, token, pn_len);
    packet_number::write(w, pn, pn_len);
    Some((offsets, pn, pn_len))
}

/// Drafts the next packet of a space, if it has anything to say.
fn draft(
    now: Timestamp,
    ty: PacketType,
    space: &mut HandshakeSpace,
    ids: &HandshakeIds,
    remote: &crate::wire::ConnectionId,
    buf: &mut [u8],
    may_send: bool,
) -> Option<Draft> {
    let probing = space.probes > 0;
    if probing && !space.crypto.wants_to_send() {
        // The second probe repeats what the first carried, for it may be the one that arrives.
        resend_outstanding(&space.sent, &mut space.crypto);
    }
    let crypto = (may_send || probing) && space.crypto.wants_to_send();
    if !space.acks.should_ack_now() && !crypto && !probing {
        return None;
    }
    let room = buf.len().checked_sub(TAG_LEN)?;
    let mut w = Writer::new(&mut buf[..room]);
    let (offsets, pn, pn_len) = long_header(&mut w, ty, space, ids, remote)?;
    let mut frames = SmallVec::new();
    let news = space.acks.has_news() || space.acks.should_ack_now();
    if news && let Some(largest) = space.acks.largest() {
        // RFC 9000 §13.2.6: a space acknowledges its own packets.
        // RFC 9000 §18.2: the exponent does not apply to Initial and Handshake packets; the delay
        // is zero there, for these are acknowledged at once.
        let _ = now;
        if ack::write(&mut w, space.acks.ranges(), 0, space.acks.ecn_counts()) > 0 {
            space.acks.on_ack_sent();
            frames.push(SentFrame::Ack { largest });
        }
    }
    if crypto {
        while let Some((offset, len)) = space.crypto.write(&mut w) {
            frames.push(SentFrame::Crypto { offset, len });
        }
    }
    let mut ack_eliciting = frames.iter().any(|f| !matches!(f, SentFrame::Ack { .. }));
    if probing && !ack_eliciting && w.remaining() > 0 {
        frame::write_ping(&mut w);
        frames.push(SentFrame::Unreliable);
        ack_eliciting = true;
    }
    if probing && ack_eliciting {
        space.probes -= 1;
    }
    if frames.is_empty() {
        return None;
    }
    let least = offsets.packet_number + 4;
    if w.position() < least {
        w.zeros(least - w.position());
    }
    Some(Draft {
        ty,
        offsets,
        pn,
        pn_len,
        end: w.position(),
        ack_eliciting,
        frames,
    })
}

/// Extends a draft with PADDING so that the datagram has `size` bytes, as far as it has room.
/// Keeps RFC 9000 §8.1.
fn pad(buf: &mut [u8], d: &mut Draft, size: usize) {
    let end = size.min(buf.len()).saturating_sub(TAG_LEN);
    if let Some(space) = buf.get_mut(d.end..end) {
        space.fill(0);
        d.end = end;
    }
}

fn record(
    now: Timestamp,
    path: &mut Path<SentFrame>,
    space: &mut HandshakeSpace,
    d: &Draft,
    len: usize,
) {
    // A padded Initial counts as in flight even without an ack-eliciting frame (RFC 9002 §2).
    let in_flight = d.ack_eliciting;
    let packet = SentPacket {
        time_sent: now,
        size: len as u16,
        ack_eliciting: d.ack_eliciting,
        in_flight,
        mtu_probe: false,
        app_limited: true,
        spare: false,
        ecn: path.mark,
    };
    path.ecn.on_sent(space_index(d.ty), 1, path.mark);
    space.sent.on_packet_sent(packet, &d.frames);
    if in_flight {
        space.last_sent = Some(now);
        path.cc
            .on_packet_sent(now, len as u64, path.bytes_in_flight);
        path.bytes_in_flight += len as u64;
        path.pacer.on_sent(len as u64);
    }
}

/// What a closing packet of the handshake says. An endpoint that is done with the handshake, and
/// closes before its last handshake message has left, sends that message instead of the close: the
/// peer can then read the close, with its reason, in the 1-RTT packet behind it.
struct CloseFrames<'a> {
    frame: &'a super::state::CloseFrame,
    crypto_first: bool,
    watch: &'a mut Watch,
}

fn close_packet(
    ty: PacketType,
    space: &mut HandshakeSpace,
    ids: &HandshakeIds,
    remote: &crate::wire::ConnectionId,
    buf: &mut [u8],
    f: &mut CloseFrames<'_>,
    least: usize,
) -> Option<usize> {
    let room = buf.len().checked_sub(TAG_LEN)?;
    let mut w = Writer::new(buf.get_mut(..room)?);
    let (offsets, pn, pn_len) = long_header(&mut w, ty, space, ids, remote)?;
    if f.crypto_first {
        while space.crypto.write(&mut w).is_some() {}
    }
    let said = f.crypto_first && w.position() > offsets.packet_number + pn_len;
    if !said && !frame::write_connection_close(&mut w, &wire_close(f.frame)) {
        return None;
    }
    space.sent.skip_packet_number();
    let short = least.saturating_sub(w.position() + TAG_LEN);
    w.zeros(short.min(w.remaining()));
    let len = w.position() + TAG_LEN;
    offsets.patch_length(&mut w, len);
    let payload_at = offsets.packet_number + pn_len;
    f.watch
        .sent(PathId::ZERO, (ty, pn), buf.get(..len)?, payload_at);
    seal(
        &space.keys.local,
        0,
        pn,
        buf.get_mut(..len)?,
        offsets.packet_number,
        pn_len,
    )
    .ok()?;
    Some(len)
}
