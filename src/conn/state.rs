//! The connection's life: handshaking, established, confirmed, closing, draining, drained.
//!
//! Only the `move_to_*` methods move it, and only forwards.

use crate::wire::error::Code;

/// What our CONNECTION_CLOSE says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CloseFrame {
    pub(crate) code: Code,
    /// The frame type at fault for a transport close; `None` for the application's.
    pub(crate) frame_type: Option<u64>,
    pub(crate) reason: Vec<u8>,
}

/// Where the connection is in its life (RFC 9000 §10, RFC 9001 §4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// TLS is not done.
    Handshaking,
    /// TLS is done; the peer may not know yet.
    Complete,
    /// Both know (RFC 9001 §4.1.2).
    Confirmed,
    /// We closed and answer with our reason; `send` when it is owed.
    Closing { frame: Box<CloseFrame>, send: bool },
    /// The peer closed: nothing is sent any more.
    Draining,
    /// Over.
    Drained,
}

impl State {
    pub(crate) fn is_handshaking(&self) -> bool {
        matches!(self, Self::Handshaking)
    }

    pub(crate) fn is_established(&self) -> bool {
        matches!(self, Self::Complete | Self::Confirmed)
    }

    pub(crate) fn is_confirmed(&self) -> bool {
        matches!(self, Self::Confirmed)
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self, Self::Closing { .. } | Self::Draining | Self::Drained)
    }

    pub(crate) fn is_drained(&self) -> bool {
        matches!(self, Self::Drained)
    }

    pub(crate) fn move_to_complete(&mut self) {
        if self.is_handshaking() {
            *self = Self::Complete;
        }
    }

    pub(crate) fn move_to_confirmed(&mut self) -> bool {
        let moved = matches!(self, Self::Complete);
        if moved {
            *self = Self::Confirmed;
        }
        moved
    }

    pub(crate) fn move_to_closing(&mut self, frame: CloseFrame) -> bool {
        let moved = !self.is_closed();
        if moved {
            *self = Self::Closing {
                frame: Box::new(frame),
                send: true,
            };
        }
        moved
    }

    pub(crate) fn move_to_draining(&mut self) {
        if !self.is_drained() {
            *self = Self::Draining;
        }
    }

    pub(crate) fn move_to_drained(&mut self) {
        *self = Self::Drained;
    }
}
