//! TLS through rustls's QUIC interface, packet and header protection, key update and tokens.
//!
//! The cryptography is the provider's: this layer decides which key applies to which packet, counts
//! what the AEAD limits ask to count, and turns failures into the RFC's error codes. It neither
//! reads a clock nor keeps timers; times are arguments. Randomness is an argument too, seeded by
//! [`random::seed`]; only rustls draws its own (and asks its own clock about certificates). Packet
//! layout lives in `wire`, CRYPTO reassembly and timers in `conn`.
#![forbid(unsafe_code)]

mod after;
#[cfg(feature = "aws-lc-rs")]
pub mod aws_lc;
mod chains;
pub mod client_hello;
pub mod early;
mod fused;
pub mod keys;
pub mod nonce;
pub mod protect;
mod provider;
pub mod random;
pub(crate) mod remains;
pub mod reset;
mod resting;
pub mod retry;
pub mod tickets;
pub mod tls;
pub mod token;
mod traffic;
pub mod update;

pub use keys::{InitialSuite, Key, Keys, NextKeys, initial_keys};
pub use protect::{
    SAMPLE_LEN, SealError, TAG_LEN, Undecryptable, Unprotected, open, seal, unprotect,
};
pub use provider::default_provider;
pub use reset::ResetKey;
pub use tls::{ConfigError, ExportError, KeyChange, Session};
pub use token::{Lifetimes, Token, TokenError, TokenKey};
pub use update::{AeadLimits, OneRttKeys, OpenError, Opened, UpdateNotAllowed, UsedKeys};

/// An encryption level: which keys protect a packet (RFC 9001 §2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// Keys that anyone who sees the first packet can derive.
    Initial,
    /// Early data, client to server only.
    ZeroRtt,
    /// Handshake keys.
    Handshake,
    /// Application data.
    OneRtt,
}

impl Level {
    /// The packet number space that packets of this level count in (RFC 9000 §12.3).
    #[inline]
    pub const fn space(self) -> Space {
        match self {
            Self::Initial => Space::Initial,
            Self::Handshake => Space::Handshake,
            Self::ZeroRtt | Self::OneRtt => Space::Data,
        }
    }
}

/// A packet number space (RFC 9000 §12.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Space {
    /// Initial packets.
    Initial,
    /// Handshake packets.
    Handshake,
    /// 0-RTT and 1-RTT packets.
    Data,
}

#[cfg(test)]
mod testing;
