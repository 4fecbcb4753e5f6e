//! Which sent packets are lost (RFC 9002 §6.1), and whether the loss establishes persistent
//! congestion (§7.6).
//!
//! The walk starts at the oldest outstanding packet and ends at the first that is not lost yet;
//! packets are sent in order of number and time, so none after that one can be. Packets declared
//! lost are remembered for one probe timeout in a bounded list, which tells a late acknowledgement
//! from a repeated one.

use super::rtt::Rtt;
use super::sent::{SentPacket, SentSpace, State};
use crate::base::{Ecn, Timestamp, limits};
use std::collections::VecDeque;
use std::time::Duration;

/// Packets acknowledged above a packet that make it lost: `kPacketThreshold` (RFC 9002 §6.1.1).
pub const PACKET_THRESHOLD: u64 = 3;

/// What one pass of loss detection found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LostSummary {
    /// Packets lost, probes of the datagram size left out.
    pub count: u32,
    /// Bytes that left flight, those of datagram-size probes included.
    pub bytes: u64,
    /// When the last of the lost packets that were in flight was sent; `None` when the loss is no
    /// congestion signal.
    pub largest_lost_sent: Option<Timestamp>,
    /// The loss spans long enough to establish persistent congestion (RFC 9002 §7.6).
    pub persistent_congestion: bool,
    /// The size of a lost probe of the datagram size (there is at most one on its way).
    pub mtu_probe_lost: Option<u16>,
    /// The size of the largest (in bytes) packet lost, probes left out.
    pub max_size: u16,
    /// Lost packets that were sent with ECT(0).
    pub ect0: u64,
}

impl<F: Copy> SentSpace<F> {
    /// Whether [`SentSpace::detect_lost`] has anything to look at: a packet that a later one has
    /// overtaken, or one that was declared lost. Where not, none can become lost by time.
    #[inline]
    pub fn has_overtaken(&mut self) -> bool {
        let overtaken = self.largest_acked.is_some_and(|l| self.base <= l);
        if overtaken || !self.lost.is_empty() {
            return true;
        }
        self.loss_time = None;
        false
    }

    /// Declares lost what RFC 9002 §6.1 says is lost at `now`, and hands each packet with its
    /// frame records to `on_lost`, oldest first. Sets [`SentSpace::loss_time`] for what may become
    /// so. Every packet from the oldest outstanding one on is looked at (RFC 9002 §7.4).
    ///
    /// `max_ack_delay` is the peer's, for the length of persistent congestion.
    pub fn detect_lost(
        &mut self,
        now: Timestamp,
        rtt: &Rtt,
        max_ack_delay: Duration,
        mut on_lost: impl FnMut(u64, &SentPacket, &[F]),
    ) -> LostSummary {
        let mut out = LostSummary::default();
        self.loss_time = None;
        if !self.lost.is_empty() {
            self.lost.expire(now - rtt.pto(max_ack_delay));
        }
        let Some(largest_acked) = self.largest_acked else {
            return out;
        };
        if self.base > largest_acked {
            return out;
        }
        let loss_delay = rtt.loss_delay();
        let mut span = LossSpan::new(rtt, max_ack_delay);
        for pn in self.base..=largest_acked.min(self.next - 1) {
            let slot = self.slot(pn);
            match slot.state {
                State::Outstanding => {}
                State::Acked => {
                    span.interrupt();
                    continue;
                }
                State::Lost | State::Void => continue,
            }
            let lost_at = slot.packet.time_sent + loss_delay;
            if largest_acked - pn < PACKET_THRESHOLD && lost_at > now {
                self.loss_time = Some(lost_at);
                break;
            }
            let packet = self.settle_lost(pn, &mut on_lost);
            self.lost.push(pn, now);
            out.add(&packet, &mut span);
        }
        self.advance_base();
        out
    }
}

impl LostSummary {
    fn add(&mut self, packet: &SentPacket, span: &mut LossSpan) {
        if packet.in_flight {
            self.bytes += u64::from(packet.size);
        }
        self.ect0 += u64::from(packet.ecn == Ecn::Ect0);
        if packet.mtu_probe {
            self.mtu_probe_lost = Some(packet.size);
            return;
        }
        self.count += 1;
        self.max_size = self.max_size.max(packet.size);
        if packet.in_flight {
            self.largest_lost_sent = Some(packet.time_sent);
        }
        if packet.ack_eliciting {
            self.persistent_congestion |= span.extend(packet.time_sent);
        }
    }
}

/// A run of lost packets with nothing acknowledged in between (RFC 9002 §7.6.2).
struct LossSpan {
    /// Only packets sent after the first RTT sample count.
    after: Timestamp,
    threshold: Duration,
    start: Option<Timestamp>,
}

impl LossSpan {
    fn new(rtt: &Rtt, max_ack_delay: Duration) -> Self {
        Self {
            after: rtt.first_sample().unwrap_or(Timestamp::NEVER),
            threshold: rtt.persistent_congestion_duration(max_ack_delay),
            start: None,
        }
    }

    fn interrupt(&mut self) {
        self.start = None;
    }

    /// Adds a lost ack-eliciting packet; true when the run is long enough.
    fn extend(&mut self, time_sent: Timestamp) -> bool {
        if time_sent <= self.after {
            return false;
        }
        let start = *self.start.get_or_insert(time_sent);
        time_sent - start > self.threshold
    }
}

/// Packets declared lost, ascending, with the time of the verdict.
#[derive(Clone, Debug)]
pub(super) struct LostList {
    packets: VecDeque<(u64, Timestamp)>,
}

impl LostList {
    pub(super) const fn new() -> Self {
        Self {
            packets: VecDeque::new(),
        }
    }

    /// Remembers `pn`, which is above all others; forgets the oldest when full.
    fn push(&mut self, pn: u64, now: Timestamp) {
        if self.packets.len() >= limits::LOST_PACKETS {
            self.packets.pop_front();
        }
        self.packets.push_back((pn, now));
    }

    /// Forgets what was declared lost before `before`.
    fn expire(&mut self, before: Timestamp) {
        while self.packets.front().is_some_and(|&(_, at)| at < before) {
            self.packets.pop_front();
        }
    }

    /// Removes every packet in `start..=end`; returns how many there were and when the first of
    /// them was declared lost.
    ///
    /// The ranges of one ACK frame come highest first: `cursor` starts at [`LostList::len`] and is
    /// carried from one to the next, so that the list is walked once and not searched per range.
    #[inline]
    pub(super) fn take(
        &mut self,
        cursor: &mut usize,
        start: u64,
        end: u64,
    ) -> Option<(u32, Timestamp)> {
        let at_or_above = |i: usize, pn| self.packets.get(i).is_some_and(|&(p, _)| p >= pn);
        while *cursor > 0 && at_or_above(*cursor - 1, end.saturating_add(1)) {
            *cursor -= 1;
        }
        let upper = *cursor;
        while *cursor > 0 && at_or_above(*cursor - 1, start) {
            *cursor -= 1;
        }
        if *cursor == upper {
            return None;
        }
        let mut taken = self.packets.drain(*cursor..upper);
        let (_, lost_at) = taken.next()?;
        Some((1 + taken.count() as u32, lost_at))
    }

    #[inline]
    pub(super) fn oldest(&self) -> Option<u64> {
        self.packets.front().map(|&(pn, _)| pn)
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.packets.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.packets.clear();
    }

    /// Gives back memory that a burst of losses left behind.
    pub(super) fn rest(&mut self) {
        self.packets.shrink_to(0);
    }
}
