//! Delivery rate samples (draft-ietf-ccwg-bbr-06 §4.1): how fast the path delivered the flight that
//! an acknowledgement ends.
//!
//! The draft keeps a snapshot with every packet. Here all packets of one timestamp, that is of one
//! train, share one, in a ring beside the sent packets and found by the time of sending (§4.1.3.1
//! recommends as much), so that connections without BBR pay nothing for it. The ring is bounded by
//! `limits::SEND_RECORDS`: later trains join the last record, which only coarsens samples.

use crate::base::{Timestamp, limits};
use std::collections::VecDeque;
use std::time::Duration;

/// What was known when a train left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    time: Timestamp,
    /// `P.delivered`.
    pub(super) delivered: u64,
    delivered_time: Timestamp,
    first_send_time: Timestamp,
    /// `P.lost`.
    pub(super) lost: u64,
    /// `P.tx_in_flight`: bytes in flight after the train.
    pub(super) tx_in_flight: u64,
    pub(super) app_limited: bool,
}

/// What one acknowledgement tells: `RS` of the draft.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RateSample {
    /// Bytes per second; zero when the interval is too short to be believed.
    pub(super) delivery_rate: f64,
    pub(super) app_limited: bool,
    /// Bytes delivered over the interval.
    pub(super) delivered: u64,
    pub(super) prior_delivered: u64,
    pub(super) newly_acked: u64,
    pub(super) tx_in_flight: u64,
    /// Bytes lost between sending and acknowledgement.
    pub(super) lost: u64,
    /// From sending to acknowledgement.
    pub(super) rtt: Duration,
}

/// The sampler of one path.
#[derive(Clone, Debug)]
pub(super) struct Sampler {
    /// Bytes delivered so far.
    pub(super) delivered: u64,
    delivered_time: Timestamp,
    first_send_time: Timestamp,
    /// Bytes lost so far, or marked CE.
    pub(super) lost: u64,
    /// The count of delivered bytes at which the latest idle gap has left the path; zero when there
    /// is none (`C.app_limited`).
    app_limited: u64,
    sends: VecDeque<Sent>,
    /// Nothing waited to be sent when the last train had left.
    dry: bool,
    /// When pacing would have let more go.
    ready_at: Timestamp,
}

impl Sampler {
    pub(super) const fn new() -> Self {
        Self {
            delivered: 0,
            delivered_time: Timestamp::ZERO,
            first_send_time: Timestamp::ZERO,
            lost: 0,
            app_limited: 0,
            sends: VecDeque::new(),
            dry: false,
            ready_at: Timestamp::ZERO,
        }
    }

    /// Whether packets that leave now give samples that the application limits.
    pub(super) const fn is_app_limited(&self) -> bool {
        self.app_limited != 0
    }

    /// Everything that waited has left; pacing would let more go at `ready_at`.
    pub(super) fn on_out_of_data(&mut self, ready_at: Timestamp) {
        if !self.dry {
            self.dry = true;
            self.ready_at = ready_at;
        }
    }

    /// `CheckIfApplicationLimited` (§4.1.2.4): more could have left than there was.
    pub(super) fn check_app_limited(&mut self, now: Timestamp, in_flight: u64, window: u64) {
        if self.dry && now > self.ready_at && in_flight < window {
            self.mark_app_limited(in_flight);
        }
    }

    /// Samples count as limited by the application until all that is in flight was delivered.
    pub(super) fn mark_app_limited(&mut self, in_flight: u64) {
        self.app_limited = (self.delivered + in_flight).max(1);
    }

    /// §4.1.2.2: `bytes` leave, with `in_flight` before them.
    pub(super) fn on_sent(&mut self, now: Timestamp, bytes: u64, in_flight: u64) {
        self.dry = false;
        if in_flight == 0 {
            self.first_send_time = now;
            self.delivered_time = now;
        }
        let full = self.sends.len() >= limits::SEND_RECORDS;
        if let Some(last) = self.sends.back_mut()
            && (last.time == now || full)
        {
            last.tx_in_flight = in_flight + bytes;
            return;
        }
        self.sends.push_back(Sent {
            time: now,
            delivered: self.delivered,
            delivered_time: self.delivered_time,
            first_send_time: self.first_send_time,
            lost: self.lost,
            tx_in_flight: in_flight + bytes,
            app_limited: self.app_limited != 0,
        });
    }

    /// The record of the train that left at `time`.
    pub(super) fn sent_at(&self, time: Timestamp) -> Option<Sent> {
        let after = self.sends.partition_point(|s| s.time <= time);
        self.sends.get(after.checked_sub(1)?).copied()
    }

    /// §4.1.2.3: `bytes` were delivered, of which the newest left at `sent`. `None` when that is
    /// too long ago to be remembered.
    pub(super) fn on_ack(
        &mut self,
        now: Timestamp,
        bytes: u64,
        sent: Timestamp,
        min_rtt: Duration,
    ) -> Option<RateSample> {
        self.delivered += bytes;
        self.delivered_time = now;
        let record = self.sent_at(sent);
        if record.is_some() {
            self.first_send_time = sent;
        }
        if self.app_limited != 0 && self.delivered > self.app_limited {
            self.app_limited = 0;
        }
        let record = record?;
        let interval = (sent - record.first_send_time).max(now - record.delivered_time);
        let delivered = self.delivered - record.delivered;
        let believable = interval >= min_rtt && !interval.is_zero();
        let rate = if believable {
            delivered as f64 / interval.as_secs_f64()
        } else {
            0.0
        };
        Some(RateSample {
            delivery_rate: rate,
            app_limited: record.app_limited,
            delivered,
            prior_delivered: record.delivered,
            newly_acked: bytes,
            tx_in_flight: record.tx_in_flight,
            lost: self.lost - record.lost,
            rtt: now - sent,
        })
    }

    /// Forgets trains that left before `newest_acked` and so long before now that what was lost of
    /// them has been declared so.
    pub(super) fn forget(&mut self, now: Timestamp, newest_acked: Timestamp, loss_delay: Duration) {
        let before = newest_acked.min(now - 2 * loss_delay);
        while self.sends.front().is_some_and(|s| s.time < before) {
            self.sends.pop_front();
        }
    }

    #[cfg(test)]
    pub(super) fn records(&self) -> usize {
        self.sends.len()
    }
}
