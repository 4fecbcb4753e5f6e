//! Error codes of the wire and the error that a peer's fault becomes.
//!
//! [`Code`] is the number in a CONNECTION_CLOSE frame; [`TransportError`] is a fault of the peer
//! with the code that RFC 9000 §20.1 gives it, ready to be sent back. Both come from one table.
//! Misuse by the embedder and failures of the system are other types, in the layers that meet them.

use super::varint::Truncated;
use std::fmt;

/// An error code of a CONNECTION_CLOSE frame of type 0x1c (RFC 9000 §20.1), or an application's
/// own code in one of type 0x1d (§20.2).
///
/// The names shown by `Display` are those of transport codes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub u64);

/// A fault of the peer: what CONNECTION_CLOSE is to say about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {reason}")]
pub struct TransportError {
    /// The transport error code.
    pub code: Code,
    /// The type of the frame at fault; 0 where none is known (RFC 9000 §19.19).
    pub frame_type: u64,
    /// What was wrong, for the reason phrase and for logs.
    pub reason: &'static str,
}

macro_rules! transport_codes {
    ($($(#[$doc:meta])* $name:ident, $constructor:ident = $value:literal;)*) => {
        impl Code {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// The name that the registry of RFC 9000 §22.5 gives this code, if it is known here.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    0x100..=0x1ff => Some("CRYPTO_ERROR"),
                    _ => None,
                }
            }
        }

        impl TransportError {
            $($(#[$doc])*
            #[cold]
            pub const fn $constructor(reason: &'static str) -> Self {
                Self::new(Code::$name, reason)
            })*
        }
    };
}

transport_codes! {
    /// The connection is closed without an error.
    NO_ERROR, no_error = 0x00;
    /// The endpoint cannot continue for a reason of its own.
    INTERNAL_ERROR, internal_error = 0x01;
    /// The server does not take a new connection.
    CONNECTION_REFUSED, connection_refused = 0x02;
    /// More data than the advertised limits permit.
    FLOW_CONTROL_ERROR, flow_control_error = 0x03;
    /// A stream beyond the advertised stream limit.
    STREAM_LIMIT_ERROR, stream_limit_error = 0x04;
    /// A frame that its stream's state does not permit.
    STREAM_STATE_ERROR, stream_state_error = 0x05;
    /// A final size that changed or that is below what was received.
    FINAL_SIZE_ERROR, final_size_error = 0x06;
    /// A badly formatted frame or one of unknown type.
    FRAME_ENCODING_ERROR, frame_encoding_error = 0x07;
    /// Transport parameters that are malformed, invalid, missing or forbidden.
    TRANSPORT_PARAMETER_ERROR, transport_parameter_error = 0x08;
    /// More connection IDs than active_connection_id_limit permits.
    CONNECTION_ID_LIMIT_ERROR, connection_id_limit_error = 0x09;
    /// A fault that no more specific code covers.
    PROTOCOL_VIOLATION, protocol_violation = 0x0a;
    /// A client's Initial carried a token that is not valid.
    INVALID_TOKEN, invalid_token = 0x0b;
    /// The application closed the connection before it could say so in its own code.
    APPLICATION_ERROR, application_error = 0x0c;
    /// More CRYPTO data than is buffered.
    CRYPTO_BUFFER_EXCEEDED, crypto_buffer_exceeded = 0x0d;
    /// A key update that RFC 9001 §6 does not permit.
    KEY_UPDATE_ERROR, key_update_error = 0x0e;
    /// The confidentiality or integrity limit of the AEAD was reached (RFC 9001 §6.6).
    AEAD_LIMIT_REACHED, aead_limit_reached = 0x0f;
    /// No network path can carry QUIC.
    NO_VIABLE_PATH, no_viable_path = 0x10;
    /// What the peer says of its versions does not fit the version in use (RFC 9368 §4).
    VERSION_NEGOTIATION_ERROR, version_negotiation_error = 0x11;
    /// The application gave the path up (multipath §4.2.1).
    APPLICATION_ABANDON_PATH, application_abandon_path = 0x3e;
    /// There is no room for what the path needs (multipath §4.2.1).
    PATH_RESOURCE_LIMIT_REACHED, path_resource_limit_reached = 0x3e75;
    /// The path's interface is unstable, or the path is poor (multipath §4.2.1).
    PATH_UNSTABLE_OR_POOR, path_unstable_or_poor = 0x3e76;
    /// The peer has issued no connection ID for the path (multipath §4.2.1).
    NO_CID_AVAILABLE_FOR_PATH, no_cid_available_for_path = 0x3e77;
}

impl Code {
    /// CRYPTO_ERROR: a TLS alert as a transport error code (RFC 9001 §4.8).
    pub const fn crypto(alert: u8) -> Self {
        Self(0x100 | alert as u64)
    }

    /// The TLS alert of a CRYPTO_ERROR.
    pub const fn alert(self) -> Option<u8> {
        match self.0 {
            0x100..=0x1ff => Some(self.0 as u8),
            _ => None,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name(), self.alert()) {
            (Some(name), Some(alert)) => write!(f, "{name}(alert {alert})"),
            (Some(name), None) => f.write_str(name),
            (None, _) => write!(f, "{:#x}", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TransportError {
    /// An error of this code with no frame type.
    #[cold]
    pub const fn new(code: Code, reason: &'static str) -> Self {
        Self {
            code,
            frame_type: 0,
            reason,
        }
    }

    /// CRYPTO_ERROR: the handshake failed with this TLS alert.
    #[cold]
    pub const fn crypto(alert: u8, reason: &'static str) -> Self {
        Self::new(Code::crypto(alert), reason)
    }

    /// The same error, laid to a frame of type `frame_type`.
    #[must_use]
    pub const fn with_frame(self, frame_type: u64) -> Self {
        Self { frame_type, ..self }
    }
}

/// A frame that ends before its last field does.
impl From<Truncated> for TransportError {
    #[cold]
    fn from(Truncated: Truncated) -> Self {
        Self::frame_encoding_error("the frame ends early")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_bear_the_names_of_the_rfc() {
        assert_eq!(Code::NO_VIABLE_PATH, Code(0x10));
        assert_eq!(Code(0x0a).to_string(), "PROTOCOL_VIOLATION");
        assert_eq!(Code(0x3e).to_string(), "APPLICATION_ABANDON_PATH");
        assert_eq!(Code::PATH_RESOURCE_LIMIT_REACHED, Code(0x3e75));
        assert_eq!(Code::PATH_UNSTABLE_OR_POOR, Code(0x3e76));
        assert_eq!(Code::NO_CID_AVAILABLE_FOR_PATH, Code(0x3e77));
        assert_eq!(format!("{:?}", Code(0x12)), "0x12");
        assert_eq!(Code::crypto(0x28).to_string(), "CRYPTO_ERROR(alert 40)");
        assert_eq!(Code::crypto(0x78), Code(0x178));
        assert_eq!(Code(0x1ff).alert(), Some(255));
        assert_eq!(Code(0x200).alert(), None);
    }

    #[test]
    fn an_error_says_what_and_where() {
        let e = TransportError::final_size_error("the final size changed").with_frame(4);
        assert_eq!((e.code, e.frame_type), (Code::FINAL_SIZE_ERROR, 4));
        assert_eq!(e.to_string(), "FINAL_SIZE_ERROR: the final size changed");
        let e = TransportError::from(Truncated);
        assert_eq!(e.code, Code::FRAME_ENCODING_ERROR);
    }
}
