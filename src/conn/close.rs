//! Closing, draining and what is answered meanwhile (RFC 9000 §10.2).

use super::Connection;
use super::error::ConnectionError;
use super::state::{CloseFrame, State};
use crate::base::{Timestamp, limits};
use crate::wire::error::Code;
use crate::wire::{PacketType, TransportError};

impl Connection {
    /// Closes the connection with an application error code and a reason (cut to
    /// [`limits::REASON_BYTES`]). What was not delivered yet is not waited for: finish streams and
    /// wait for their end first.
    pub fn close(&mut self, now: Timestamp, code: u64, reason: &[u8]) {
        self.watch.at(now);
        let reason = reason
            .get(..limits::REASON_BYTES)
            .unwrap_or(reason)
            .to_vec();
        let frame = CloseFrame {
            code: Code(code),
            frame_type: None,
            reason,
        };
        if self.state.move_to_closing(frame) {
            self.events.push_closed(ConnectionError::LocallyClosed);
            self.start_drain_timer(now);
        }
    }

    /// The peer broke the protocol: closes with the error's code, in a CONNECTION_CLOSE frame
    /// (RFC 9000 §10.3, §11, §11.1).
    pub(super) fn fail(&mut self, now: Timestamp, error: TransportError) {
        let frame = CloseFrame {
            code: error.code,
            frame_type: Some(error.frame_type),
            reason: error.reason.as_bytes().to_vec(),
        };
        if self.state.move_to_closing(frame) {
            self.events
                .push_closed(ConnectionError::PeerMisbehaved(error));
            self.start_drain_timer(now);
        }
    }

    /// Ends without a word (RFC 9000 §10.1).
    pub(super) fn end_silently(&mut self, why: ConnectionError) {
        self.state.move_to_drained();
        self.events.push_closed(why);
        self.timers.clear();
    }

    /// Closing and draining last three times the PTO of the slowest path.
    pub(super) fn start_drain_timer(&mut self, now: Timestamp) {
        let pto = self.largest_pto();
        self.timers.clear();
        self.timers.drain = now + pto * 3;
        self.timers.closing_heard = 0;
        self.timers.closing_answer_at = 1;
    }

    /// A datagram came while closing: our reason is repeated, ever more rarely
    /// (RFC 9000 §10.2.1). A datagram while draining is ignored (§10.2.2).
    pub(super) fn on_datagram_while_closed(&mut self, now: Timestamp, datagram: &[u8]) {
        let _ = now;
        if let State::Closing { send, .. } = &mut self.state {
            self.paths
                .current_mut()
                .validation
                .on_received(datagram.len());
            self.timers.closing_heard += 1;
            if self.timers.closing_heard >= self.timers.closing_answer_at {
                self.timers.closing_answer_at = self.timers.closing_answer_at.saturating_mul(2);
                self.timers.closing_heard = 0;
                *send = true;
            }
        }
    }

    /// The close frame as a packet of type `ty` may carry it: an application's reason must not
    /// leak before the handshake is complete (RFC 9000 §10.2.3).
    pub(super) fn close_frame_for(frame: &CloseFrame, ty: PacketType) -> CloseFrame {
        if frame.frame_type.is_some() || ty == PacketType::OneRtt {
            return frame.clone();
        }
        CloseFrame {
            code: Code::APPLICATION_ERROR,
            frame_type: Some(0),
            reason: Vec::new(),
        }
    }
}
