//! The keys of one encryption level, and the Initial keys that both sides derive from a connection
//! ID (RFC 9001 §5.2).
//!
//! Initial packets are AES-128-GCM whatever the handshake later agrees on, so a provider that
//! leaves that suite out still gets Initial keys, from ring. Key update lives in `update`.

use super::tls::ConfigError;
use super::traffic::Derivation;
use crate::wire::{self, Side};
use rustls::crypto::CryptoProvider;
use rustls::quic::{HeaderProtectionKey, PacketKey, PacketKeySet, Suite, Version};
use rustls::{CipherSuite, ClientConfig, ServerConfig, SupportedCipherSuite};
use std::fmt;

/// Protects one direction of one encryption level.
pub struct Key {
    /// Seals or opens payloads.
    pub packet: Box<dyn PacketKey>,
    /// Masks or unmasks headers; outlives key updates (RFC 9001 §6.1).
    pub header: Box<dyn HeaderProtectionKey>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl From<rustls::quic::DirectionalKeys> for Key {
    fn from(keys: rustls::quic::DirectionalKeys) -> Self {
        Self {
            packet: keys.packet,
            header: keys.header,
        }
    }
}

/// Both directions of one encryption level.
#[derive(Debug)]
pub struct Keys {
    /// Protects what we send.
    pub local: Key,
    /// Removes the protection of what we receive.
    pub remote: Key,
}

impl From<rustls::quic::Keys> for Keys {
    fn from(keys: rustls::quic::Keys) -> Self {
        Self {
            local: keys.local.into(),
            remote: keys.remote.into(),
        }
    }
}

/// The secrets from which every later generation of 1-RTT packet keys follows (RFC 9001 §6.1).
pub struct NextKeys(pub(super) Next);

/// Who derives them: rustls, or we where the version changed.
pub(super) enum Next {
    Tls(rustls::quic::Secrets),
    Own(Box<Derivation>),
}

impl NextKeys {
    /// Derives the next generation and stays where it is.
    pub(super) fn peek(&self) -> PacketKeySet {
        match &self.0 {
            Next::Tls(secrets) => secrets.clone().next_packet_keys(),
            Next::Own(derivation) => derivation.packet_keys(),
        }
    }

    /// Derives the next generation and moves on.
    pub(super) fn derive(&mut self) -> PacketKeySet {
        match &mut self.0 {
            Next::Tls(secrets) => secrets.next_packet_keys(),
            Next::Own(derivation) => derivation.next_packet_keys(),
        }
    }
}

pub(super) fn rustls_side(side: Side) -> rustls::Side {
    match side {
        Side::Client => rustls::Side::Client,
        Side::Server => rustls::Side::Server,
    }
}

pub(super) fn rustls_version(version: wire::Version) -> Version {
    match version {
        wire::Version::V1 => Version::V1,
        wire::Version::V2 => Version::V2,
    }
}

impl fmt::Debug for NextKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NextKeys(..)")
    }
}

/// Where Initial keys come from: TLS_AES_128_GCM_SHA256 of some provider.
#[derive(Clone, Copy)]
pub struct InitialSuite(Suite);

impl InitialSuite {
    /// The suite of the provider that `config` was built with, or ring's where that one lacks it.
    ///
    /// # Errors
    /// [`ConfigError::NoInitialSuite`] when neither offers it to QUIC.
    pub fn of_client(config: &ClientConfig) -> Result<Self, ConfigError> {
        Self::of_provider(config.crypto_provider())
    }

    /// Like [`Self::of_client`], for a server's configuration.
    ///
    /// # Errors
    /// [`ConfigError::NoInitialSuite`] when neither offers it to QUIC.
    pub fn of_server(config: &ServerConfig) -> Result<Self, ConfigError> {
        Self::of_provider(config.crypto_provider())
    }

    /// ring's suite, for endpoints that have no configuration at hand.
    ///
    /// # Errors
    /// [`ConfigError::NoInitialSuite`] when ring was built without it.
    pub fn ring() -> Result<Self, ConfigError> {
        quic_suite(rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256)
            .map(Self)
            .ok_or(ConfigError::NoInitialSuite)
    }

    fn of_provider(provider: &CryptoProvider) -> Result<Self, ConfigError> {
        provider
            .cipher_suites
            .iter()
            .filter(|s| s.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256)
            .find_map(|s| quic_suite(*s))
            .map_or_else(Self::ring, |suite| Ok(Self(suite)))
    }

    /// The Initial keys for `dcid`, the Destination Connection ID of the client's first Initial
    /// packet (after a Retry: of the first one sent in answer to it). `None` for a version that we
    /// do not know.
    pub fn keys(&self, version: u32, dcid: &[u8], side: Side) -> Option<Keys> {
        let version = rustls_version(wire::Version::from_number(version)?);
        Some(self.0.keys(dcid, rustls_side(side), version).into())
    }
}

impl fmt::Debug for InitialSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InitialSuite({:?})", self.0.suite)
    }
}

/// Whether and how QUIC may use a cipher suite.
pub(super) fn quic_suite(suite: SupportedCipherSuite) -> Option<Suite> {
    suite.tls13()?.quic_suite()
}

/// Initial keys from ring's suite; see [`InitialSuite::keys`].
pub fn initial_keys(version: u32, dcid: &[u8], side: Side) -> Option<Keys> {
    InitialSuite::ring().ok()?.keys(version, dcid, side)
}
