//! Acknowledgements received, packets lost, probe timeouts: where the packet number spaces meet
//! the path's RTT, congestion control, ECN and MTU (RFC 9002).

use super::ack_frequency::requests_of;
use super::crypto_stream::CryptoStream;
use super::input::Packet;
use super::observe::Watch;
use super::space::SentFrame;
use super::{Connection, HandshakeSpace};
use crate::base::{Ecn, Timestamp};
use crate::crypto::UsedKeys;
use crate::path::{Path, PathId};
use crate::recovery::ecn::Outcome;
use crate::recovery::{
    AckEvent, AckSummary, Congestion, Controller, LostSummary, Rtt, SentPacket, SentSpace,
};
use crate::stream::AckedRun;
use crate::wire::frame::{Ack, EcnCounts};
use crate::wire::{PacketType, Side, TransportError};
use std::ops::ControlFlow;
use std::time::Duration;

impl Connection {
    pub(super) fn on_ack(
        &mut self,
        now: Timestamp,
        packet: &Packet<'_>,
        ack: &Ack<'_>,
    ) -> Result<(), TransportError> {
        let ty = packet.ty;
        let summary = match ty {
            PacketType::Initial => ack_handshake(self.initial.as_deref_mut(), ack)?,
            PacketType::Handshake => ack_handshake(self.handshake.as_deref_mut(), ack)?,
            _ => Some(self.ack_one_rtt(packet.used, ack)?),
        };
        let Some(summary) = summary.filter(AckSummary::newly_acked_any) else {
            return Ok(());
        };
        let delay = self.ack_delay(ty, ack.delay);
        self.after_ack(now, ty, &summary, delay, ack.ecn);
        Ok(())
    }

    fn ack_one_rtt(&mut self, used: UsedKeys, ack: &Ack<'_>) -> Result<AckSummary, TransportError> {
        if self.paths.current().id == PathId::ZERO {
            self.zero_rtt.check_ack(ack)?;
        }
        // Frames about other paths than this one.
        self.scratch.clear();
        let Self {
            paths,
            streams,
            one_rtt_crypto,
            new_tokens,
            scratch,
            ..
        } = self;
        let Path {
            id,
            sent,
            acks,
            mtu,
            cc,
            remote_cids,
            first_pn,
            ..
        } = paths.current_mut();
        let mut elsewhere = Elsewhere::since(*first_pn);
        let mut run = AckedRun::default();
        let summary = sent.on_ack_received(ack.ranges, |pn, packet, frames| {
            if elsewhere.counts(pn, packet) {
                // Its frames count wherever they went.
            } else if packet.mtu_probe && mtu.on_probe_acked(usize::from(packet.size)) {
                cc.on_mtu(mtu.current());
            }
            for frame in frames {
                match *frame {
                    SentFrame::Stream(f) => run.add(streams, f),
                    SentFrame::Ack { largest } => acks.on_ack_of_ack(largest),
                    SentFrame::Crypto { offset, len } => one_rtt_crypto.on_acked(offset, len),
                    SentFrame::RetireConnectionId { .. } => remote_cids.on_retire_acked(),
                    SentFrame::NewToken { seq } => new_tokens.on_acked(seq),
                    SentFrame::HandshakeDone
                    | SentFrame::NewConnectionId { .. }
                    | SentFrame::AckFrequency { .. }
                    | SentFrame::PathAbandon { .. }
                    | SentFrame::PathStatus { .. }
                    | SentFrame::PathNewConnectionId { .. }
                    | SentFrame::MaxPathId { .. }
                    | SentFrame::AddAddress { .. }
                    | SentFrame::Paths
                    | SentFrame::ClosePath { .. }
                    | SentFrame::Unreliable => {}
                    SentFrame::PathAck { .. } | SentFrame::PathRetireConnectionId { .. } => {
                        scratch.push(*frame);
                    }
                }
            }
        });
        run.finish(streams);
        let mut summary = summary?;
        if let Some(keys) = self.one_rtt.as_deref_mut() {
            keys.on_ack(id.0, ack.largest, used)?;
        }
        if !self.scratch.is_empty() {
            self.on_path_frames_acked();
        }
        elsewhere.leave_out_of_ack(&mut summary);
        Ok(summary)
    }

    /// The peer's delay, capped as RFC 9002 §5.3 says.
    fn ack_delay(&self, ty: PacketType, raw: u64) -> Duration {
        if ty != PacketType::OneRtt {
            return Duration::ZERO;
        }
        let exponent = self.peer_params.ack_delay_exponent.min(20);
        let delay = Duration::from_micros(raw.saturating_mul(1 << exponent));
        if self.state.is_confirmed() {
            delay.min(self.peer_params.max_ack_delay)
        } else {
            delay
        }
    }

    fn after_ack(
        &mut self,
        now: Timestamp,
        ty: PacketType,
        summary: &AckSummary,
        delay: Duration,
        ecn: Option<EcnCounts>,
    ) {
        self.stats.packets_spuriously_lost += u64::from(summary.spurious_losses);
        let path = self.paths.current_mut();
        let in_flight = path.bytes_in_flight;
        path.bytes_in_flight = in_flight.saturating_sub(summary.acked_bytes);
        let Some((_, sent_at)) = summary.largest_newly_acked else {
            return;
        };
        // RFC 9002 §5.1: only newly acknowledged ack-eliciting packets make a sample.
        if space_index(ty) == 2 {
            // Of the packets that the path counts as sent.
            path.counters.packets_acked += u64::from(summary.newly_acked);
            path.counters.bytes_acked += summary.acked_bytes;
        }
        path.counters.last_ack = Some(now);
        if summary.largest_is_new
            && summary.acked_ack_eliciting
            && path.admits_sample(now, self.acked_elsewhere)
        {
            // RFC 9002 §5.3: an acknowledgement that waited for its keys came when it arrived.
            let arrived = self.waited_since.min(now);
            path.rtt.on_sample(now, arrived - sent_at, delay);
        }
        self.couple();
        let path = self.paths.current_mut();
        if summary.largest_advanced
            && let Outcome::Congestion(marks) = path.ecn.on_ack(space_index(ty), summary.ect0, ecn)
        {
            let signal = Congestion::Ecn(marks);
            let shrank = path.cc.on_congestion_event(now, sent_at, signal);
            self.stats.congestion_events += u64::from(shrank);
        }
        // RFC 9002 §6.2.1: a client whose address the server may not have validated keeps its
        // backoff through acknowledgements of Initial packets.
        let mut answers = 0;
        if self.side == Side::Server || ty != PacketType::Initial {
            answers = std::mem::take(&mut self.paths.current_mut().pto_count);
        }
        if self.multipath.is_some() {
            self.note_acked(now, summary.acked_bytes, answers > 0);
        }
        if space_index(ty) != 2 || self.paths.current_mut().sent.has_overtaken() {
            self.detect_lost(now, ty);
        }
        self.couple();
        let path = self.paths.current_mut();
        if let Some(lost_at) = summary.spurious_lost_at {
            path.cc.on_spurious(summary.spurious_losses, lost_at);
        }
        if summary.acked_bytes > 0 {
            path.cc.on_ack(&AckEvent {
                now,
                acked_bytes: summary.acked_bytes,
                largest_acked_sent: sent_at,
                rtt: &path.rtt,
                app_limited: summary.app_limited,
                bytes_in_flight: in_flight,
                bytes_left: path.bytes_in_flight,
            });
            path.mtu.on_packets_acked(summary.max_size);
        }
        if self.ack_frequency.is_some() && self.state.is_confirmed() {
            self.request_acks(now, in_flight);
        }
    }

    /// Declares packets lost and queues their frames again (RFC 9002 §6.1).
    pub(super) fn detect_lost(&mut self, now: Timestamp, ty: PacketType) {
        let rtt = self.paths.current().rtt.clone();
        let cc = &mut self.paths.current_mut().cc;
        let summary = match ty {
            PacketType::Initial => {
                let space = self.initial.as_deref_mut();
                lose_handshake(now, ty, space, &rtt, cc, &mut self.watch)
            }
            PacketType::Handshake => {
                let space = self.handshake.as_deref_mut();
                lose_handshake(now, ty, space, &rtt, cc, &mut self.watch)
            }
            _ => {
                let reinjects = self.reinjects();
                let mut lost = std::mem::take(&mut self.scratch);
                lost.clear();
                let watch = &mut self.watch;
                let path = self.paths.current_mut();
                let delay = self.peer_params.max_ack_delay;
                let mut elsewhere = Elsewhere::since(path.first_pn);
                let id = path.id;
                let Path { sent, cc, .. } = path;
                let mut packets = Vec::new();
                let mut summary = sent.detect_lost(now, &rtt, delay, |pn, packet, frames| {
                    watch.lost(id, ty, pn, packet.size);
                    if !packet.spare {
                        if reinjects {
                            packets.push((pn, packet.time_sent, lost.len()));
                        }
                        lost.extend_from_slice(frames);
                    }
                    if !elsewhere.counts(pn, packet) {
                        tell_lost(cc, now, pn, packet);
                    }
                });
                elsewhere.leave_out_of_loss(&mut summary);
                if let Some(size) = summary.mtu_probe_lost {
                    path.mtu.on_probe_lost(usize::from(size));
                }
                if summary.count > 0 {
                    if path.mtu.on_packets_lost(now, summary.max_size) {
                        path.cc.on_mtu(path.mtu.current());
                    }
                    path.ecn.on_lost(summary.ect0);
                }
                for frame in &lost {
                    self.send_again(*frame);
                }
                if reinjects {
                    self.reinject_lost(now, &packets, &lost);
                }
                self.scratch = lost;
                Some(summary)
            }
        };
        if let Some(s) = summary.filter(|s| s.bytes > 0 || s.count > 0) {
            self.after_loss(now, ty, &s);
        }
    }

    /// Keeps RFC 9000 §13.3.
    fn after_loss(&mut self, now: Timestamp, ty: PacketType, summary: &LostSummary) {
        self.stats.packets_lost += u64::from(summary.count);
        if self.multipath.is_some() {
            self.note_lost(now, summary.bytes);
        }
        self.couple();
        let path = self.paths.current_mut();
        path.bytes_in_flight = path.bytes_in_flight.saturating_sub(summary.bytes);
        if space_index(ty) == 2 {
            let probe = u64::from(summary.mtu_probe_lost.unwrap_or(0));
            path.counters.packets_lost += u64::from(summary.count);
            path.counters.bytes_lost += summary.bytes.saturating_sub(probe);
        }
        // RFC 9000 §14.4: a lost MTU probe says nothing about congestion.
        if let Some(sent_at) = summary.largest_lost_sent {
            if path
                .cc
                .on_congestion_event(now, sent_at, Congestion::Loss(summary.count))
            {
                self.stats.congestion_events += 1;
            }
            if summary.persistent_congestion {
                path.cc.on_persistent_congestion(now);
                path.rtt.on_persistent_congestion();
            }
        }
    }

    /// Queues a frame of a lost packet anew, where what it said still matters (RFC 9000 §13.3).
    pub(super) fn send_again(&mut self, frame: SentFrame) {
        let path = self.paths.current_mut();
        match frame {
            SentFrame::Stream(f) => self.streams.on_lost(f),
            SentFrame::Crypto { offset, len } => {
                self.one_rtt_crypto.on_lost(offset, len);
            }
            SentFrame::HandshakeDone => self.pending.handshake_done = true,
            SentFrame::NewConnectionId { seq } => path.local_cids.on_lost(seq),
            SentFrame::NewToken { seq } => self.new_tokens.on_lost(seq),
            SentFrame::RetireConnectionId { seq } => {
                path.remote_cids.on_retire_lost(seq);
            }
            SentFrame::AckFrequency { seq } => {
                if let Some(requests) = requests_of(&mut self.ack_frequency) {
                    requests.on_lost(seq);
                }
            }
            SentFrame::Ack { .. } | SentFrame::PathAck { .. } | SentFrame::Unreliable => {}
            SentFrame::PathAbandon { .. }
            | SentFrame::PathStatus { .. }
            | SentFrame::PathNewConnectionId { .. }
            | SentFrame::PathRetireConnectionId { .. }
            | SentFrame::AddAddress { .. }
            | SentFrame::Paths
            | SentFrame::ClosePath { .. }
            | SentFrame::MaxPathId { .. } => self.send_path_frame_again(frame),
        }
    }

    /// A probe timeout fired (RFC 9002 §6.2, §6.2.2.1, §6.2.4): nothing is lost for that, but two
    /// probes are owed, made of the oldest data in flight where there is some.
    pub(super) fn on_pto(&mut self, now: Timestamp, ty: PacketType) {
        const PROBES: u8 = 2;
        self.stats.ptos += 1;
        let path = self.paths.current_mut();
        path.pto_count += 1;
        path.counters.ptos += 1;
        if ty == PacketType::OneRtt && !path.only_probes_outstanding() && path.mtu.on_pto(now) {
            path.cc.on_mtu(path.mtu.current());
        }
        if self.multipath.is_some() {
            self.note_silent(now);
        }
        match ty {
            PacketType::Initial => probe_handshake(self.initial.as_deref_mut(), PROBES),
            PacketType::Handshake => probe_handshake(self.handshake.as_deref_mut(), PROBES),
            _ if self.paths.current().is_abandoned() => self.resend_in_flight(now),
            _ if self.move_in_flight() => {}
            _ => self.probe_one_rtt(PROBES),
        }
        // RFC 9002 §6.2.4: so does what the Handshake space has in flight.
        if ty == PacketType::Initial {
            let in_flight = |s: &HandshakeSpace| s.sent.ack_eliciting_in_flight() > 0;
            let space = self.handshake.as_deref_mut();
            probe_handshake(space.filter(|s| in_flight(s)), 1);
        }
        // RFC 9002 §6.2.4: what the 1-RTT space has in flight goes along, coalesced; of a client
        // even when that is nothing, for a server that has discarded its Handshake keys hears
        // nothing else. The PING makes it more than a probe of a path (RFC 9000 §9.1), so that the
        // server follows a client whose address changed.
        let in_flight = self.paths.current().sent.ack_eliciting_in_flight() > 0;
        let goes_along = in_flight || (self.side == Side::Client && self.may_send_one_rtt());
        if ty != PacketType::OneRtt && goes_along {
            self.probe_one_rtt(1);
            self.paths.current_mut().ping = true;
        }
    }

    /// Owes `probes` packets of the 1-RTT space, made of the oldest data in flight.
    fn probe_one_rtt(&mut self, probes: u8) {
        self.paths.current_mut().owed_probes = probes;
        let mut again = std::mem::take(&mut self.scratch);
        again.clear();
        let mut left = probes;
        self.paths
            .current()
            .sent
            .for_each_outstanding(|_, packet, frames| {
                if packet.ack_eliciting && left > 0 && !packet.mtu_probe && !packet.spare {
                    left -= 1;
                    again.extend_from_slice(frames);
                }
                if left > 0 {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            });
        self.send_all_again(&mut again);
        self.scratch = again;
    }

    /// Queues the frames of packets anew that are not lost yet.
    pub(super) fn send_all_again(&mut self, frames: &mut Vec<SentFrame>) {
        for frame in frames.drain(..) {
            // Retirements are counted once a frame; the loss of this one will repeat it.
            if !matches!(
                frame,
                SentFrame::RetireConnectionId { .. } | SentFrame::PathRetireConnectionId { .. }
            ) {
                self.send_again(frame);
            }
        }
    }
}

/// Packets that went to other addresses than the path's present ones: they contribute nothing to
/// its congestion control and round-trip times (RFC 9000 §9.4).
struct Elsewhere {
    first_pn: u64,
    bytes: u64,
    ect0: u64,
    /// The largest of their packet numbers.
    largest: Option<u64>,
    mtu_probe: bool,
    /// Others were the path's own.
    others: bool,
}

impl Elsewhere {
    fn since(first_pn: u64) -> Self {
        Self {
            first_pn,
            bytes: 0,
            ect0: 0,
            largest: None,
            mtu_probe: false,
            others: false,
        }
    }

    /// Looks at a packet; true when it went elsewhere. One without a size went to an address beside
    /// the path's.
    #[inline]
    fn counts(&mut self, pn: u64, packet: &SentPacket) -> bool {
        let here = pn >= self.first_pn && packet.size > 0;
        if here {
            self.others = true;
        } else {
            self.note(pn, packet);
        }
        !here
    }

    #[cold]
    fn note(&mut self, pn: u64, packet: &SentPacket) {
        if packet.in_flight {
            self.bytes += u64::from(packet.size);
        }
        self.ect0 += u64::from(packet.ecn == Ecn::Ect0);
        self.mtu_probe |= packet.mtu_probe;
        self.largest = self.largest.max(Some(pn));
    }

    fn leave_out_of_ack(&self, summary: &mut AckSummary) {
        if self.largest.is_none() {
            return;
        }
        summary.acked_bytes = summary.acked_bytes.saturating_sub(self.bytes);
        summary.ect0 = summary.ect0.saturating_sub(self.ect0);
        if summary.largest_newly_acked.map(|(pn, _)| pn) == self.largest {
            summary.largest_is_new = false;
            summary.largest_advanced = false;
        }
    }

    fn leave_out_of_loss(&self, summary: &mut LostSummary) {
        if self.largest.is_none() {
            return;
        }
        summary.bytes = summary.bytes.saturating_sub(self.bytes);
        summary.ect0 = summary.ect0.saturating_sub(self.ect0);
        if self.mtu_probe {
            summary.mtu_probe_lost = None;
        }
        if !self.others {
            summary.largest_lost_sent = None;
            summary.persistent_congestion = false;
            summary.max_size = 0;
        }
    }
}

/// The index of a packet type's number space: Initial, Handshake, Data.
pub(super) fn space_index(ty: PacketType) -> usize {
    match ty {
        PacketType::Initial => 0,
        PacketType::Handshake => 1,
        PacketType::ZeroRtt | PacketType::OneRtt => 2,
    }
}

fn ack_handshake(
    space: Option<&mut HandshakeSpace>,
    ack: &Ack<'_>,
) -> Result<Option<AckSummary>, TransportError> {
    let Some(space) = space else { return Ok(None) };
    let HandshakeSpace {
        sent, acks, crypto, ..
    } = space;
    let summary = sent.on_ack_received(ack.ranges, |_, _, frames| {
        for frame in frames {
            match *frame {
                SentFrame::Crypto { offset, len } => crypto.on_acked(offset, len),
                SentFrame::Ack { largest } => acks.on_ack_of_ack(largest),
                _ => {}
            }
        }
    })?;
    Ok(Some(summary))
}

fn lose_handshake(
    now: Timestamp,
    ty: PacketType,
    space: Option<&mut HandshakeSpace>,
    rtt: &Rtt,
    cc: &mut Controller,
    watch: &mut Watch,
) -> Option<LostSummary> {
    let HandshakeSpace { sent, crypto, .. } = space?;
    Some(
        sent.detect_lost(now, rtt, Duration::ZERO, |pn, packet, frames| {
            watch.lost(PathId::ZERO, ty, pn, packet.size);
            tell_lost(cc, now, pn, packet);
            for frame in frames {
                if let SentFrame::Crypto { offset, len } = *frame {
                    crypto.on_lost(offset, len);
                }
            }
        }),
    )
}

/// Tells congestion control of a lost packet. RFC 9000 §14.4: the loss of an MTU probe says nothing
/// about congestion.
fn tell_lost(cc: &mut Controller, now: Timestamp, pn: u64, packet: &SentPacket) {
    if packet.in_flight && !packet.mtu_probe {
        cc.on_packet_lost(now, pn, packet.time_sent, u64::from(packet.size));
    }
}

/// Keeps RFC 9000 §8.1.
fn probe_handshake(space: Option<&mut HandshakeSpace>, probes: u8) {
    let Some(HandshakeSpace {
        sent,
        crypto,
        probes: owed,
        ..
    }) = space
    else {
        return;
    };
    *owed = probes;
    resend_outstanding(sent, crypto);
}

/// Queues the CRYPTO data of every packet in flight again.
pub(super) fn resend_outstanding(sent: &SentSpace<SentFrame>, crypto: &mut CryptoStream) {
    sent.for_each_outstanding(|_, _, frames| {
        for frame in frames {
            if let SentFrame::Crypto { offset, len } = *frame {
                crypto.on_lost(offset, len);
            }
        }
        ControlFlow::Continue(())
    });
}
