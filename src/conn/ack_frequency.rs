//! The ACK frequency extension: what the peer asks of our acknowledgements, and what we send to ask
//! it of the peer's. When to ask is `recovery`'s decision.

use super::space::SentFrame;
use super::{Connection, TransportConfig};
use crate::base::Timestamp;
use crate::path::Path;
use crate::recovery::Algorithm;
use crate::wire::frame::{self, AckFrequency};
use crate::wire::{TransportError, TransportParameters, Writer};
use std::time::Duration;

/// max_ack_delay, and with it what may be asked for, stays below this (RFC 9000 §18.2).
const MAX_ACK_DELAY_BOUND: Duration = Duration::from_millis(1 << 14);

/// The min_ack_delay that we declare: never above max_ack_delay.
pub(super) fn min_ack_delay(config: &TransportConfig) -> Option<Duration> {
    config.min_ack_delay.map(|d| d.min(config.max_ack_delay))
}

impl Connection {
    /// What the peer's parameters permit.
    pub(super) fn enable_ack_frequency(&mut self, params: &TransportParameters) {
        if let Some(min) = params.min_ack_delay {
            // BBR takes its samples of the delivery rate from acknowledgements: with fewer of them
            // it counts more loss against each, and gives up rate that the path has.
            // Of several paths each has a window of its own, and the frame is about all of them.
            let active = self.config.ack_frequency
                && self.config.congestion != Algorithm::Bbr
                && !self.extensions.multipath;
            let requests = &mut self.paths.current_mut().ack_frequency;
            requests.enable(min, params.max_ack_delay, active);
        }
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
        if self.ack_frequency_next <= f.seq {
            self.ack_frequency_next = f.seq + 1;
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

/// Writes the ACK_FREQUENCY frame that waits and, beside what probes after a timeout, IMMEDIATE_ACK
/// where the peer takes it: the answer then does not wait for the peer's delay (ACK frequency §7).
#[cold]
pub(super) fn write_ack_requests(
    now: Timestamp,
    path: &mut Path<SentFrame>,
    w: &mut Writer<'_>,
    scratch: &mut Vec<SentFrame>,
    probing: bool,
) {
    let immediate = probing && path.ack_frequency.is_supported();
    if immediate && w.remaining() >= frame::IMMEDIATE_ACK_SIZE {
        frame::write_immediate_ack(w);
        scratch.push(SentFrame::Unreliable);
    }
    if w.remaining() >= frame::ACK_FREQUENCY_SIZE
        && let Some(f) = path.ack_frequency.poll(now)
    {
        frame::write_ack_frequency(w, &f);
        scratch.push(SentFrame::AckFrequency { seq: f.seq });
    }
}
