//! The ACK frequency extension: what the peer asks of our acknowledgements, and what we send to ask
//! it of the peer's. When to ask is `recovery`'s decision.

use super::space::SentFrame;
use super::{Connection, TransportConfig};
use crate::base::Timestamp;
use crate::path::{Path, PathState};
use crate::recovery::{AckFrequencyRequests, AckNeed, Algorithm};
use crate::wire::frame::{self, AckFrequency};
use crate::wire::{TransportError, TransportParameters, Writer};
use std::time::Duration;

/// max_ack_delay, and with it what may be asked for, stays below this (RFC 9000 §18.2).
const MAX_ACK_DELAY_BOUND: Duration = Duration::from_millis(1 << 14);

/// Datagrams in flight above which a path of several counts as in use.
const IN_USE: u64 = 2;

/// The min_ack_delay that we declare: never above max_ack_delay.
pub(super) fn min_ack_delay(config: &TransportConfig) -> Option<Duration> {
    config.min_ack_delay.map(|d| d.min(config.max_ack_delay))
}

/// What either side asks of the other.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The least sequence number of a frame from the peer that is not obsolete.
    next: u64,
    /// What we ask, of all paths in one, where the peer takes that.
    requests: Option<AckFrequencyRequests>,
}

/// What we ask, where the peer takes that.
#[inline]
pub(super) fn requests_of(asked: &mut Option<Box<Asked>>) -> Option<&mut AckFrequencyRequests> {
    asked.as_deref_mut().and_then(|a| a.requests.as_mut())
}

impl Connection {
    /// What the peer's parameters permit.
    pub(super) fn enable_ack_frequency(&mut self, params: &TransportParameters) {
        if let Some(min) = params.min_ack_delay {
            // BBR takes its samples of the delivery rate from acknowledgements: with fewer of them
            // it counts more loss against each, and gives up rate that the path has.
            let active = self.config.ack_frequency && self.config.congestion != Algorithm::Bbr;
            let requests = AckFrequencyRequests::new(min, params.max_ack_delay, active);
            self.ack_frequency.get_or_insert_default().requests = Some(requests);
        }
    }

    /// An acknowledgement came for the path in hand, which had so many bytes in flight before:
    /// decides what to ask of those that follow, on whatever path.
    #[inline]
    pub(super) fn request_acks(&mut self, now: Timestamp, in_flight: u64) {
        let asked = self.ack_frequency.as_deref();
        let requests = asked.and_then(|a| a.requests.as_ref());
        if !requests.is_some_and(AckFrequencyRequests::is_active) {
            return;
        }
        let need = self.ack_need(in_flight);
        if let Some(requests) = requests_of(&mut self.ack_frequency)
            && let Some(need) = need
        {
            requests.on_ack(now, need);
        }
    }

    /// Whether a request waits.
    #[inline]
    pub(super) fn ack_request_waits(&self) -> bool {
        let asked = self.ack_frequency.as_deref();
        let requests = asked.and_then(|a| a.requests.as_ref());
        requests.is_some_and(AckFrequencyRequests::wants_to_send)
    }

    /// What suits all paths that are in use; `None` while none is.
    #[inline]
    fn ack_need(&self, in_flight: u64) -> Option<AckNeed> {
        let hand = self.paths.current();
        let elsewhere: u64 = self.paths.others().map(|p| p.bytes_in_flight).sum();
        // Many small messages end with their acknowledgements, and the peer may not begin more
        // than so many before that (RFC 9000 §4.6): as in slow start, none is to wait.
        let mtu = hand.mtu.current();
        let messages = in_flight + elsewhere < (self.streams.len() * mtu) as u64;
        let need = |path: &Path<SentFrame>| {
            let window = path.cc.window() / path.mtu.current().max(1) as u64;
            AckNeed::of(
                path.rtt.smoothed(),
                window,
                messages || path.cc.in_slow_start(),
            )
        };
        if self.paths.is_single() {
            return Some(need(hand));
        }
        // One that is only kept alive or asked about the size of datagrams decides nothing.
        let in_use = |path: &Path<SentFrame>, in_flight: u64| {
            path.state == PathState::Open && in_flight > IN_USE * path.mtu.current() as u64
        };
        let others = self.paths.others();
        let others = others.filter(|p| in_use(p, p.bytes_in_flight)).map(need);
        let hand = in_use(hand, in_flight).then(|| need(hand));
        others.chain(hand).reduce(AckNeed::and)
    }

    pub(super) fn on_ack_frequency(&mut self, f: &AckFrequency) -> Result<(), TransportError> {
        let Some(min) = min_ack_delay(&self.config) else {
            return Err(not_asked_for());
        };
        let delay = Duration::from_micros(f.max_ack_delay);
        if delay < min || delay >= MAX_ACK_DELAY_BOUND {
            return Err(TransportError::protocol_violation(
                "an ACK_FREQUENCY frame asks for an impossible delay",
            ));
        }
        // A frame that came late says what no longer counts.
        let next = &mut self.ack_frequency.get_or_insert_default().next;
        if *next <= f.seq {
            *next = f.seq + 1;
            // The frame counts the packets that may go without, the policy those that may not.
            let threshold = u32::try_from(f.threshold.saturating_add(1)).unwrap_or(u32::MAX);
            for path in self.paths.iter_mut() {
                path.acks.set_frequency(threshold, delay, f.reordering);
            }
        }
        Ok(())
    }

    pub(super) fn on_immediate_ack(&mut self) -> Result<(), TransportError> {
        if self.config.min_ack_delay.is_none() {
            return Err(not_asked_for());
        }
        self.paths.current_mut().acks.on_immediate_ack();
        Ok(())
    }
}

/// RFC 9000 §12.4: a frame of an extension that was not declared is of unknown type.
#[cold]
fn not_asked_for() -> TransportError {
    TransportError::frame_encoding_error("a frame of an extension that was not declared")
}

/// Writes the ACK_FREQUENCY frame that waits if `asks`, and beside what probes after a timeout
/// IMMEDIATE_ACK: the answer then does not wait for the peer's delay (ACK frequency §7).
#[cold]
pub(super) fn write_ack_requests(
    now: Timestamp,
    requests: &mut AckFrequencyRequests,
    w: &mut Writer<'_>,
    scratch: &mut Vec<SentFrame>,
    (probing, asks): (bool, bool),
) {
    if probing && w.remaining() >= frame::IMMEDIATE_ACK_SIZE {
        frame::write_immediate_ack(w);
        scratch.push(SentFrame::Unreliable);
    }
    if asks
        && w.remaining() >= frame::ACK_FREQUENCY_SIZE
        && let Some(f) = requests.poll(now)
    {
        frame::write_ack_frequency(w, &f);
        scratch.push(SentFrame::AckFrequency { seq: f.seq });
    }
}
