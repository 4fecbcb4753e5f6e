//! What one path has sent in one packet number space and not yet seen the end of.
//!
//! Packets lie in a ring indexed by packet number, the caller's frame records in a second ring, so
//! sending and acknowledging in order touch consecutive memory and allocate nothing once the rings
//! have grown to the window. Every frame record is handed back exactly once: acknowledged, lost
//! (`loss.rs`) or discarded. Packets declared lost move aside into a short list in which a late
//! acknowledgement is recognised, so that a hole never keeps the ring's start back and the cost of
//! an ACK follows what it newly acknowledges.

use super::loss::LostList;
use super::pto::SpaceTimes;
use crate::base::{Ecn, Timestamp};
use crate::mem::prefetch_at;
use crate::wire::TransportError;
use std::ops::{ControlFlow, RangeInclusive};

/// One packet as loss recovery sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentPacket {
    /// When it was sent.
    pub time_sent: Timestamp,
    /// Bytes of the whole QUIC packet.
    pub size: u16,
    /// It holds a frame that the peer must acknowledge (RFC 9002 §2).
    pub ack_eliciting: bool,
    /// It counts towards bytes in flight: ack-eliciting or padded (RFC 9002 §2).
    pub in_flight: bool,
    /// It probes a larger datagram size; its loss is no congestion signal (RFC 9000 §14.4).
    pub mtu_probe: bool,
    /// The application, not the congestion window, limited sending when it left.
    pub app_limited: bool,
    /// Another packet answers for its frames: its own loss repeats none of them.
    pub spare: bool,
    /// The ECN field it was sent with.
    pub ecn: Ecn,
}

impl SentPacket {
    /// A packet that went to an address that is not the path's: its number is remembered, and its
    /// fate tells nothing.
    pub const fn untracked(time_sent: Timestamp) -> Self {
        Self {
            time_sent,
            ..VOID.packet
        }
    }
}

/// Where a packet of the ring stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Sent; neither acknowledged nor lost.
    Outstanding,
    Acked,
    Lost,
    /// Its number was skipped or its record was forgotten unreported.
    Void,
}

/// A packet and where its frame records lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) packet: SentPacket,
    /// Position in the frame ring, counted from the beginning and wrapping.
    frames_at: u32,
    frames_len: u16,
    pub(super) state: State,
}

const _: () = assert!(size_of::<Slot>() <= 32);

/// A slot that no packet occupies.
const VOID: Slot = Slot {
    packet: SentPacket {
        time_sent: Timestamp::ZERO,
        size: 0,
        ack_eliciting: false,
        in_flight: false,
        mtu_probe: false,
        app_limited: false,
        spare: false,
        ecn: Ecn::NotEct,
    },
    frames_at: 0,
    frames_len: 0,
    state: State::Void,
};

/// Packets that the ring holds before it first grows: few, for most connections are idle.
const FIRST_CAPACITY: usize = 16;
/// Packets tracked beyond which the oldest is forgotten unreported if nothing asked the peer to
/// acknowledge it: a peer that only sends data never acknowledges our ACKs.
const ACK_ONLY_KEPT: u64 = 1024;
/// Skipped packet numbers remembered.
const SKIPPED_KEPT: usize = 4;

/// What one ACK frame newly acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AckSummary {
    /// Packets newly acknowledged.
    pub newly_acked: u32,
    /// Bytes that left flight by it.
    pub acked_bytes: u64,
    /// At least one of them was ack-eliciting.
    pub acked_ack_eliciting: bool,
    /// The largest of them and when it was sent.
    pub largest_newly_acked: Option<(u64, Timestamp)>,
    /// The frame's largest number is newly acknowledged: together with `acked_ack_eliciting` this
    /// makes an RTT sample (RFC 9002 §5.1).
    pub largest_is_new: bool,
    /// The frame raised the largest acknowledged number: its ECN counts may be looked at
    /// (RFC 9000 §13.4.2.1).
    pub largest_advanced: bool,
    /// The largest newly acknowledged packet was sent while the application limited sending.
    pub app_limited: bool,
    /// The size of the largest (in bytes) newly acknowledged packet, for black-hole detection.
    pub max_size: u16,
    /// Newly acknowledged packets that were sent with ECT(0).
    pub ect0: u64,
    /// Newly acknowledged packets that were sent with ECT(1).
    pub ect1: u64,
    /// Packets that had been declared lost and were received after all.
    pub spurious_losses: u32,
    /// When the first of those had been declared lost.
    pub spurious_lost_at: Option<Timestamp>,
}

impl AckSummary {
    /// Whether the frame acknowledged anything not acknowledged or lost before.
    #[inline]
    pub const fn newly_acked_any(&self) -> bool {
        self.newly_acked > 0
    }
}

/// The sender's side of one packet number space on one path. `F` is the caller's record of a frame.
#[derive(Clone, Debug)]
pub struct SentSpace<F: Copy> {
    /// A power of two long; a packet lies at its number modulo the length.
    ring: Vec<Slot>,
    /// A power of two long; the records of one packet lie side by side.
    frames: Vec<F>,
    frames_head: u32,
    /// Where the oldest record still needed lay when that was last asked.
    frames_tail: u32,
    /// The oldest packet number that may be outstanding: all below are settled.
    pub(super) base: u64,
    pub(super) next: u64,
    pub(super) largest_acked: Option<u64>,
    last_ack_eliciting_sent: Option<Timestamp>,
    pub(super) loss_time: Option<Timestamp>,
    pub(super) lost: LostList,
    /// The last numbers skipped; `u64::MAX` where none.
    skipped: [u64; SKIPPED_KEPT],
    skipped_count: usize,
    bytes_in_flight: u64,
    ack_eliciting_in_flight: usize,
}

impl<F: Copy> Default for SentSpace<F> {
    fn default() -> Self {
        Self::new()
    }
}

impl<F: Copy> SentSpace<F> {
    /// An empty space; allocates with the first packet.
    pub const fn new() -> Self {
        Self {
            ring: Vec::new(),
            frames: Vec::new(),
            frames_head: 0,
            frames_tail: 0,
            base: 0,
            next: 0,
            largest_acked: None,
            last_ack_eliciting_sent: None,
            loss_time: None,
            lost: LostList::new(),
            skipped: [u64::MAX; SKIPPED_KEPT],
            skipped_count: 0,
            bytes_in_flight: 0,
            ack_eliciting_in_flight: 0,
        }
    }

    /// Brings the records of the oldest and the next packets near; a hint.
    #[inline]
    pub fn warm(&self) {
        let at = |counter: u64, len: usize| counter as usize & len.wrapping_sub(1);
        for pn in [self.base, self.next] {
            prefetch_at(&self.ring, at(pn, self.ring.len()));
        }
        for frame in [self.frames_tail, self.frames_head] {
            prefetch_at(&self.frames, at(frame.into(), self.frames.len()));
        }
    }

    /// The number that the next packet gets: larger than any before (RFC 9000 §12.3).
    #[inline]
    pub const fn next_packet_number(&self) -> u64 {
        self.next
    }

    /// Packet numbers that are remembered: from the oldest that may be outstanding on. The caller
    /// sends no more once they are as many as it can afford.
    #[inline]
    pub const fn tracked(&self) -> u64 {
        self.next - self.base
    }

    /// Leaves a packet number unused, and returns it. A peer that acknowledges it acknowledges what
    /// it did not receive (RFC 9000 §21.4).
    pub fn skip_packet_number(&mut self) -> u64 {
        let pn = self.next;
        self.make_room();
        *self.slot_mut(pn) = VOID;
        self.next += 1;
        if self.base == pn {
            self.base = self.next;
        }
        self.skipped[self.skipped_count % SKIPPED_KEPT] = pn;
        self.skipped_count += 1;
        pn
    }

    /// Records a packet under the next packet number, which it returns. The caller has asked
    /// [`SentSpace::tracked`], and `time_sent` never decreases. Of more than 65,535 frames the
    /// rest is not recorded. A packet that is not ack-eliciting may be forgotten unreported when
    /// the peer has not acknowledged it 1,024 packets later.
    #[inline]
    pub fn on_packet_sent(&mut self, packet: SentPacket, frames: &[F]) -> u64 {
        let pn = self.next;
        if (pn - self.base) as usize >= self.ring.len() {
            self.make_room();
        }
        let (frames_at, frames_len) = self.push_frames(frames);
        *self.slot_mut(pn) = Slot {
            packet,
            frames_at,
            frames_len,
            state: State::Outstanding,
        };
        self.next = pn + 1;
        if packet.in_flight {
            self.bytes_in_flight += u64::from(packet.size);
        }
        if packet.ack_eliciting {
            self.ack_eliciting_in_flight += 1;
            self.last_ack_eliciting_sent = Some(packet.time_sent);
        } else if pn - self.base >= ACK_ONLY_KEPT {
            self.forget_oldest_ack_only();
        }
        pn
    }

    /// Processes the ranges of an ACK frame, highest first, and hands every newly acknowledged
    /// packet with its frame records to `on_acked`: ranges as they come, ascending within one.
    ///
    /// # Errors
    /// `PROTOCOL_VIOLATION` when the frame acknowledges a number that was never sent
    /// (RFC 9000 §13.1) or that was skipped. Packets of higher ranges may have been handed out by
    /// then; the connection is closed anyway.
    pub fn on_ack_received(
        &mut self,
        ranges_desc: impl Iterator<Item = RangeInclusive<u64>>,
        on_acked: impl FnMut(u64, &SentPacket, &[F]),
    ) -> Result<AckSummary, TransportError> {
        let out = self.ack_ranges(ranges_desc, on_acked);
        self.advance_base();
        out
    }

    fn ack_ranges(
        &mut self,
        ranges_desc: impl Iterator<Item = RangeInclusive<u64>>,
        mut on_acked: impl FnMut(u64, &SentPacket, &[F]),
    ) -> Result<AckSummary, TransportError> {
        let mut out = AckSummary::default();
        let mut first = true;
        let mut cursor = self.lost.len();
        for range in ranges_desc {
            let (start, end) = (*range.start(), *range.end());
            if end >= self.next {
                return Err(TransportError::protocol_violation(
                    "ACK of a packet never sent",
                ));
            }
            if first {
                first = false;
                out.largest_is_new = self.is_outstanding(end);
                out.largest_advanced = self.largest_acked.is_none_or(|l| end > l);
                if out.largest_advanced {
                    self.largest_acked = Some(end);
                }
            }
            if self.skipped.iter().any(|&pn| start <= pn && pn <= end) {
                return Err(TransportError::protocol_violation(
                    "ACK of a skipped packet number",
                ));
            }
            if end < self.base && self.lost.oldest().is_none_or(|pn| end < pn) {
                // This range and all that follow were dealt with before.
                break;
            }
            if let Some((count, lost_at)) = self.lost.take(&mut cursor, start, end) {
                out.spurious_losses += count;
                // Ranges descend, so a later one holds the earlier verdicts.
                out.spurious_lost_at = Some(lost_at);
            }
            if end >= self.base {
                self.ack_range(start, end, &mut out, &mut on_acked);
            }
        }
        Ok(out)
    }

    /// Acknowledges what is outstanding in `start..=end`; `end` is below `next`.
    #[inline]
    fn ack_range(
        &mut self,
        start: u64,
        end: u64,
        out: &mut AckSummary,
        on_acked: &mut impl FnMut(u64, &SentPacket, &[F]),
    ) {
        let start = start.max(self.base);
        let mask = self.ring.len().wrapping_sub(1);
        let mut largest = None;
        for pn in start..=end {
            let slot = &mut self.ring[pn as usize & mask];
            if slot.state != State::Outstanding {
                continue;
            }
            slot.state = State::Acked;
            let slot = *slot;
            let p = slot.packet;
            if p.in_flight {
                self.bytes_in_flight -= u64::from(p.size);
                out.acked_bytes += u64::from(p.size);
            }
            if p.ack_eliciting {
                self.ack_eliciting_in_flight -= 1;
                out.acked_ack_eliciting = true;
            }
            out.newly_acked += 1;
            out.max_size = out.max_size.max(p.size);
            out.ect0 += u64::from(p.ecn == Ecn::Ect0);
            out.ect1 += u64::from(p.ecn == Ecn::Ect1);
            largest = Some((pn, p));
            on_acked(pn, &p, frames_of(&self.frames, &slot));
        }
        if out.largest_newly_acked.is_none()
            && let Some((pn, p)) = largest
        {
            out.largest_newly_acked = Some((pn, p.time_sent));
            out.app_limited = p.app_limited;
        }
        if start == self.base && end >= start {
            self.base = end + 1;
        }
    }

    /// Calls `each` for every packet neither acknowledged nor lost, oldest first, until it breaks.
    /// A probe timeout picks what to send again from here.
    pub fn for_each_outstanding(
        &self,
        mut each: impl FnMut(u64, &SentPacket, &[F]) -> ControlFlow<()>,
    ) {
        for pn in self.base..self.next {
            let slot = self.slot(pn);
            if slot.state == State::Outstanding
                && each(pn, &slot.packet, frames_of(&self.frames, slot)).is_break()
            {
                return;
            }
        }
    }

    /// The first packet from `from` on that is neither acknowledged nor lost.
    pub fn next_outstanding(&self, from: u64) -> Option<(u64, &SentPacket, &[F])> {
        let pn = (from.max(self.base)..self.next).find(|pn| self.is_outstanding(*pn))?;
        let slot = self.slot(pn);
        Some((pn, &slot.packet, frames_of(&self.frames, slot)))
    }

    /// Whether a packet is neither acknowledged nor lost, and answers for its frames.
    pub fn answers_for(&self, pn: u64) -> bool {
        self.is_outstanding(pn) && !self.slot(pn).packet.spare
    }

    /// Another packet answers for the frames of this one from now on.
    pub fn set_spare(&mut self, pn: u64) {
        if self.is_outstanding(pn) {
            self.slot_mut(pn).packet.spare = true;
        }
    }

    /// Forgets everything sent, as when keys are dropped (RFC 9002 §6.4) or 0-RTT is rejected, and
    /// hands out what was outstanding. Returns the bytes that left flight. Packet numbers go on.
    pub fn discard(&mut self, mut each: impl FnMut(u64, &SentPacket, &[F])) -> u64 {
        self.for_each_outstanding(|pn, packet, frames| {
            each(pn, packet, frames);
            ControlFlow::Continue(())
        });
        let bytes = self.bytes_in_flight;
        self.base = self.next;
        self.bytes_in_flight = 0;
        self.ack_eliciting_in_flight = 0;
        self.last_ack_eliciting_sent = None;
        self.loss_time = None;
        self.lost.clear();
        bytes
    }

    /// Gives back the rings, if nothing is in flight. Packets that only acknowledge, and that the
    /// peer therefore need not acknowledge, are forgotten unreported.
    pub fn rest(&mut self) {
        if self.bytes_in_flight > 0 || self.ack_eliciting_in_flight > 0 {
            return;
        }
        self.base = self.next;
        self.loss_time = None;
        self.ring = Vec::new();
        self.frames = Vec::new();
        self.frames_head = 0;
        self.frames_tail = 0;
        self.lost.rest();
    }

    /// When the next packet below the largest acknowledged one becomes lost by time, as the last
    /// [`SentSpace::detect_lost`] found.
    #[inline]
    pub const fn loss_time(&self) -> Option<Timestamp> {
        self.loss_time
    }

    /// When the last ack-eliciting packet was sent.
    #[inline]
    pub const fn last_ack_eliciting_sent(&self) -> Option<Timestamp> {
        self.last_ack_eliciting_sent
    }

    /// What this space contributes to the loss detection timer.
    #[inline]
    pub fn times(&self) -> SpaceTimes {
        SpaceTimes {
            loss_time: self.loss_time,
            last_ack_eliciting_sent: self
                .last_ack_eliciting_sent
                .filter(|_| self.ack_eliciting_in_flight > 0),
        }
    }

    /// Ack-eliciting packets outstanding.
    #[inline]
    pub const fn ack_eliciting_in_flight(&self) -> usize {
        self.ack_eliciting_in_flight
    }

    /// Bytes of the outstanding packets that count as in flight.
    #[inline]
    pub const fn bytes_in_flight(&self) -> u64 {
        self.bytes_in_flight
    }

    /// The largest packet number acknowledged so far.
    #[inline]
    pub const fn largest_acked(&self) -> Option<u64> {
        self.largest_acked
    }

    /// Packets sent, those that were skipped left out.
    #[inline]
    pub const fn packets_sent(&self) -> u64 {
        self.next - self.skipped_count as u64
    }

    /// Whether no packet is outstanding.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.base == self.next
    }

    /// Packets declared lost whose late acknowledgement would still be recognised.
    pub fn lost_remembered(&self) -> usize {
        self.lost.len()
    }

    #[inline]
    pub(super) fn slot(&self, pn: u64) -> &Slot {
        &self.ring[pn as usize & (self.ring.len() - 1)]
    }

    #[inline]
    fn slot_mut(&mut self, pn: u64) -> &mut Slot {
        let mask = self.ring.len() - 1;
        &mut self.ring[pn as usize & mask]
    }

    #[inline]
    fn is_outstanding(&self, pn: u64) -> bool {
        self.base <= pn && pn < self.next && self.slot(pn).state == State::Outstanding
    }

    /// Takes an outstanding packet out of flight as lost and hands out its frame records.
    pub(super) fn settle_lost(
        &mut self,
        pn: u64,
        on_lost: &mut impl FnMut(u64, &SentPacket, &[F]),
    ) -> SentPacket {
        let slot = self.slot_mut(pn);
        slot.state = State::Lost;
        let slot = *slot;
        let p = slot.packet;
        if p.in_flight {
            self.bytes_in_flight -= u64::from(p.size);
        }
        if p.ack_eliciting {
            self.ack_eliciting_in_flight -= 1;
        }
        on_lost(pn, &p, frames_of(&self.frames, &slot));
        p
    }

    /// Moves the start of the ring past everything settled.
    #[inline]
    pub(super) fn advance_base(&mut self) {
        while self.base < self.next && self.slot(self.base).state != State::Outstanding {
            self.base += 1;
        }
    }

    fn forget_oldest_ack_only(&mut self) {
        let pn = self.base;
        if !self.slot(pn).packet.ack_eliciting {
            let packet = self.settle_lost(pn, &mut |_, _, _| {});
            debug_assert!(!packet.ack_eliciting);
            self.slot_mut(pn).state = State::Void;
            self.advance_base();
        }
    }

    /// Makes sure that the ring has a slot for `next`.
    #[cold]
    fn make_room(&mut self) {
        let len = self.ring.len();
        if ((self.next - self.base) as usize) < len {
            return;
        }
        let new_len = (2 * len).max(FIRST_CAPACITY);
        let mut ring = vec![VOID; new_len];
        for pn in self.base..self.next {
            ring[pn as usize & (new_len - 1)] = *self.slot(pn);
        }
        self.ring = ring;
    }

    /// Stores frame records side by side and returns where.
    #[inline]
    fn push_frames(&mut self, frames: &[F]) -> (u32, u16) {
        let len = frames.len().min(usize::from(u16::MAX));
        let Some(&filler) = frames.first() else {
            return (self.frames_head, 0);
        };
        loop {
            if let Some(at) = self.place_frames(frames, len) {
                return (at, len as u16);
            }
            // The start that was known may have moved on since: ask before growing.
            let tail = self.oldest_frame();
            if tail == self.frames_tail {
                self.grow_frames(tail, filler);
            }
            self.frames_tail = tail;
        }
    }

    /// Copies records behind the newest and returns where, if there is room.
    #[inline]
    fn place_frames(&mut self, frames: &[F], len: usize) -> Option<u32> {
        let cap = self.frames.len();
        let mask = cap.wrapping_sub(1);
        let at = self.frames_head as usize & mask;
        // Records that would cross the ring's end start at its beginning instead.
        let pad = if at + len > cap {
            cap.wrapping_sub(at)
        } else {
            0
        };
        let used = self.frames_head.wrapping_sub(self.frames_tail) as usize;
        if used + pad + len > cap {
            return None;
        }
        let start = self.frames_head.wrapping_add(pad as u32);
        let at = start as usize & mask;
        // Most packets carry one frame: spare them the call of a copy.
        if let ([slot], [frame]) = (&mut self.frames[at..at + len], frames) {
            *slot = *frame;
        } else {
            self.frames[at..at + len].copy_from_slice(&frames[..len]);
        }
        self.frames_head = start.wrapping_add(len as u32);
        Some(start)
    }

    /// Where the oldest frame record still needed lies.
    #[inline]
    fn oldest_frame(&self) -> u32 {
        if self.base == self.next {
            self.frames_head
        } else {
            self.slot(self.base).frames_at
        }
    }

    #[cold]
    fn grow_frames(&mut self, tail: u32, filler: F) {
        let cap = self.frames.len();
        let new_cap = (2 * cap).max(FIRST_CAPACITY);
        let mut frames = vec![filler; new_cap];
        let mut at = tail;
        // What lay side by side in the short ring does so in one twice as long.
        while at != self.frames_head {
            frames[at as usize & (new_cap - 1)] = self.frames[at as usize & (cap - 1)];
            at = at.wrapping_add(1);
        }
        self.frames = frames;
    }
}

/// The frame records of a packet.
#[inline]
fn frames_of<'a, F>(frames: &'a [F], slot: &Slot) -> &'a [F] {
    let at = slot.frames_at as usize & frames.len().wrapping_sub(1);
    frames
        .get(at..at + usize::from(slot.frames_len))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
