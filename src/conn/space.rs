//! What each packet number space of the handshake holds, and the record of a sent frame.

use super::crypto_stream::CryptoStream;
use crate::base::Timestamp;
use crate::crypto::Keys;
use crate::path::PathId;
use crate::recovery::{AckPolicy, SentSpace};
use crate::stream;
use crate::wire::Code;

/// One frame of a sent packet: enough to act when it is acknowledged or lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SentFrame {
    /// A frame of the stream layer.
    Stream(stream::SentFrame),
    /// CRYPTO bytes of the packet's level.
    Crypto { offset: u64, len: u16 },
    /// An acknowledgement up to `largest`.
    Ack { largest: u64 },
    /// HANDSHAKE_DONE.
    HandshakeDone,
    /// NEW_CONNECTION_ID.
    NewConnectionId { seq: u64 },
    /// NEW_TOKEN.
    NewToken { seq: u64 },
    /// RETIRE_CONNECTION_ID.
    RetireConnectionId { seq: u64 },
    /// ACK_FREQUENCY.
    AckFrequency { seq: u64 },
    /// An acknowledgement up to `largest` of packets of another path than the one that carried it.
    PathAck { path: PathId, largest: u64 },
    /// PATH_ABANDON.
    PathAbandon { path: PathId, error: Code },
    /// PATH_STATUS_BACKUP or PATH_STATUS_AVAILABLE.
    PathStatus { path: PathId, seq: u64 },
    /// PATH_NEW_CONNECTION_ID.
    PathNewConnectionId { path: PathId, seq: u64 },
    /// PATH_RETIRE_CONNECTION_ID.
    PathRetireConnectionId { path: PathId, seq: u64 },
    /// MAX_PATH_ID.
    MaxPathId { max: PathId },
    /// ADD_ADDRESS.
    AddAddress { id: u32 },
    /// PATHS.
    Paths,
    /// CLOSE_PATH.
    ClosePath { path: PathId, error: Code },
    /// A frame that is never sent again: PING, IMMEDIATE_ACK, DATAGRAM, PATH_CHALLENGE,
    /// PATH_RESPONSE, PATHS_BLOCKED, PATH_CIDS_BLOCKED.
    Unreliable,
}

impl SentFrame {
    /// Whether a packet of such frames asks for no acknowledgement.
    #[inline]
    pub(crate) const fn is_ack(&self) -> bool {
        matches!(self, Self::Ack { .. } | Self::PathAck { .. })
    }
}

const _: () = assert!(size_of::<SentFrame>() <= 32);

/// The Initial or the Handshake packet number space, from the moment it has keys until they are
/// discarded (RFC 9001 §4.9).
pub(crate) struct HandshakeSpace {
    pub(crate) keys: Keys,
    pub(crate) crypto: CryptoStream,
    pub(crate) sent: SentSpace<SentFrame>,
    pub(crate) acks: AckPolicy,
    /// When an ack-eliciting packet last left.
    pub(crate) last_sent: Option<Timestamp>,
    /// Probes owed after a PTO (RFC 9002 §6.2.4).
    pub(crate) probes: u8,
}

impl HandshakeSpace {
    pub(crate) fn new(keys: Keys) -> Self {
        Self {
            keys,
            crypto: CryptoStream::default(),
            sent: SentSpace::new(),
            acks: AckPolicy::immediate(),
            last_sent: None,
            probes: 0,
        }
    }
}
