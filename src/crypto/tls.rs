//! One TLS 1.3 handshake over CRYPTO bytes: rustls behind the engine's own types (RFC 9001 §4).
//!
//! rustls verifies, negotiates and derives; a [`Session`] passes bytes and keys on and turns what
//! rustls rejects into a CRYPTO_ERROR with the alert's code. Configurations are taken as they are.
//! Which level the bytes belong to, their order and how much is buffered is `conn`'s business.

use super::after::{After, OutOfTurn};
use super::early;
use super::keys::{Key, Keys, Next, NextKeys, quic_suite, rustls_version};
use super::remains::{self, Remains};
use super::traffic::{Derivation, Tap};
use crate::wire::{self, TransportError};
use rustls::crypto::CryptoProvider;
use rustls::crypto::tls13::OkmBlock;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::quic::{self, ClientConnection, Connection, ServerConnection};
use rustls::{
    AlertDescription, ClientConfig, Error, HandshakeType, PeerMisbehaved, ServerConfig,
    SupportedCipherSuite,
};
use std::fmt;
use std::sync::Arc;

/// A TLS configuration that QUIC cannot use, and what to change.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// TLS 1.3 is switched off.
    #[error(
        "the TLS configuration does not offer TLS 1.3, which QUIC requires: build it with \
         rustls::version::TLS13 among its protocol versions"
    )]
    NoTls13,
    /// No cipher suite of the provider has keys for QUIC.
    #[error(
        "no cipher suite of the TLS configuration supports QUIC: use a rustls crypto provider \
         whose TLS 1.3 suites have it, such as ring or aws-lc-rs"
    )]
    NoQuicSuite,
    /// Initial packets cannot be protected.
    #[error(
        "TLS_AES_128_GCM_SHA256, which protects QUIC's Initial packets, is not available: add it \
         to the crypto provider's cipher suites"
    )]
    NoInitialSuite,
    /// A server that limits early data, which QUIC does in another way.
    #[error(
        "max_early_data_size is {0}, and QUIC knows only 0 (no 0-RTT) and u32::MAX (0-RTT, \
         limited by flow control): set it to one of them"
    )]
    EarlyDataSize(u32),
    /// A server that offers early data with sessions that are good any number of times.
    #[error(
        "early data with stateless session tickets could be replayed without end: leave the \
         ticketer off, so that sessions are in session_storage and good once, or set \
         max_early_data_size to 0"
    )]
    EarlyDataTicketer,
    /// A server that offers early data and stores no sessions.
    #[error(
        "early data needs sessions that are stored, and session_storage stores none: give the \
         TLS configuration a storage, such as ServerSessionMemoryCache, or set \
         max_early_data_size to 0"
    )]
    EarlyDataStorage,
    /// A server that offers early data with a storage that gives a session more than once.
    #[error(
        "session_storage gives a session again after `take`, so early data could be replayed: \
         have `take` remove it, atomically, or set max_early_data_size to 0"
    )]
    EarlyDataReusable,
    /// rustls refuses for a reason of its own.
    #[error("the TLS configuration does not start a QUIC handshake: {0}")]
    Tls(#[from] Error),
}

/// Why no keying material was exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// There is no exporter secret before the handshake ends.
    #[error("keying material is available only after the handshake")]
    Handshaking,
    /// More bytes, or a longer label or context, than the exporter takes (RFC 8446 §7.5).
    #[error("the requested keying material or its label or context is too long or empty")]
    Length,
}

/// Keys that became available; data that TLS writes from now on belongs to their level.
#[derive(Debug)]
pub enum KeyChange {
    /// The Handshake level's keys.
    Handshake(Keys),
    /// The 1-RTT keys and what later generations derive from.
    OneRtt(Keys, NextKeys),
}

/// rustls's session, or what is left of it.
enum Tls {
    Whole(Box<Connection>),
    Done(Box<Remains>),
}

/// The TLS side of one connection.
///
/// It gives the handshake the properties that RFC 9000 §7 lists. What RFC 9001 asks of TLS itself,
/// rustls keeps in its QUIC mode: nothing older than TLS 1.3
/// (§4.2), the server's identity (§4.4) and no client authentication after the handshake, no TLS
/// KeyUpdate (§6), an application protocol in common (§8.1), the transport parameters' extension
/// (§8.2), neither EndOfEarlyData (§8.3) nor the compatibility mode (§8.4), no cipher suite without
/// header protection (§5.3, §5.4.1).
pub struct Session {
    tls: Tls,
    failure: Option<Box<Error>>,
    /// A client's, while it may still be moved to another version.
    tap: Option<Arc<Tap>>,
    /// The version that a client was moved to.
    moved: Option<wire::Version>,
    /// From when the secret is known until nothing of rustls is left.
    exporter: Option<Box<OkmBlock>>,
    /// What came to a client after the handshake.
    after: After,
}

impl Session {
    /// A client's session with the server `name`; `params` are its encoded transport parameters.
    ///
    /// # Errors
    /// [`ConfigError`] when QUIC cannot use `config`.
    pub fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        params: Vec<u8>,
    ) -> Result<Self, ConfigError> {
        Self::client_of(wire::Version::V1, config, name, params)
    }

    /// Like [`Session::client`], with the labels of `version`.
    ///
    /// # Errors
    /// [`ConfigError`] when QUIC cannot use `config`.
    pub fn client_of(
        version: wire::Version,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        params: Vec<u8>,
    ) -> Result<Self, ConfigError> {
        check_suites(config.crypto_provider())?;
        ClientConnection::new(config, rustls_version(version), name, params)
            .map(|tls| Self::new(tls.into()))
            .map_err(refused)
    }

    /// Like [`Session::client_of`], for a client whose session may [`Session::rest`].
    ///
    /// # Errors
    /// [`ConfigError`] when QUIC cannot use `config`.
    pub fn resting_client(
        version: wire::Version,
        config: &ClientConfig,
        name: ServerName<'static>,
        params: Vec<u8>,
    ) -> Result<Self, ConfigError> {
        let config = remains::tapped_client(config, config.key_log.clone());
        Self::client_of(version, config, name, params)
    }

    /// Like [`Session::resting_client`], for a client that lets the server choose another version:
    /// [`Session::move_to`] may follow.
    ///
    /// # Errors
    /// [`ConfigError`] when QUIC cannot use `config`.
    pub fn movable_client(
        version: wire::Version,
        config: &ClientConfig,
        name: ServerName<'static>,
        params: Vec<u8>,
    ) -> Result<Self, ConfigError> {
        let tap = Arc::new(Tap::new(config.key_log.clone()));
        let config = remains::tapped_client(config, tap.clone());
        let mut session = Self::client_of(version, config, name, params)?;
        session.tap = Some(tap);
        Ok(session)
    }

    /// The server chose no other version: what would serve to follow it is wiped.
    pub fn stay(&mut self) {
        if let Some(tap) = self.tap.take() {
            tap.close();
        }
    }

    /// The server chose another version (RFC 9368 §2.3): Handshake and 1-RTT keys are `version`'s.
    /// Call it before the first byte from the server is read. Early data keeps its keys.
    pub fn move_to(&mut self, version: wire::Version) {
        self.moved = Some(version);
    }

    /// A server's session; `params` are its encoded transport parameters.
    /// Keeps RFC 9001 §4.6.1.
    ///
    /// # Errors
    /// [`ConfigError`] when QUIC cannot use `config`.
    pub fn server(config: Arc<ServerConfig>, params: Vec<u8>) -> Result<Self, ConfigError> {
        Self::server_of(wire::Version::V1, config, params)
    }

    /// Like [`Session::server`], with the labels of `version`.
    ///
    /// # Errors
    /// [`ConfigError`] when QUIC cannot use `config`.
    pub fn server_of(
        version: wire::Version,
        config: Arc<ServerConfig>,
        params: Vec<u8>,
    ) -> Result<Self, ConfigError> {
        check_suites(config.crypto_provider())?;
        early::check(&config)?;
        ServerConnection::new(config, rustls_version(version), params)
            .map(|tls| Self::new(tls.into()))
            .map_err(refused)
    }

    fn new(tls: Connection) -> Self {
        Self {
            tls: Tls::Whole(Box::new(tls)),
            failure: None,
            tap: None,
            moved: None,
            exporter: None,
            after: After::default(),
        }
    }

    /// The handshake is confirmed and all that TLS wrote was taken: a server keeps only what may be
    /// asked for. Further CRYPTO bytes are errors from now on, as they would be to rustls.
    pub fn finish(&mut self) {
        if matches!(&self.tls, Tls::Whole(tls) if matches!(**tls, Connection::Server(_))) {
            self.reduce();
        }
    }

    /// The connection is idle: a client keeps only what may be asked for. It has the tickets that
    /// the server sends with the end of the handshake; what others still come pass unread.
    pub fn rest(&mut self) {
        if self.after.is_between() {
            self.reduce();
        }
    }

    fn reduce(&mut self) {
        if let Tls::Whole(tls) = &self.tls
            && !tls.is_handshaking()
            && self.failure.is_none()
            && let Some(exporter) = self.exporter.take()
            && let Some(remains) = Remains::of(tls, *exporter)
        {
            self.tls = Tls::Done(Box::new(remains));
        }
    }

    /// Takes CRYPTO bytes, in order. Bytes of different levels come in separate calls.
    /// Keeps RFC 9001 §4.6.1.
    ///
    /// # Errors
    /// CRYPTO_ERROR with the alert that TLS would send (RFC 9001 §4.8); the session is then dead.
    pub fn read_crypto(&mut self, data: &[u8]) -> Result<(), TransportError> {
        let tls = match &mut self.tls {
            Tls::Whole(tls) => tls,
            // RFC 9001 §6, RFC 8446 §4.6: of a client, nothing comes after the handshake.
            Tls::Done(remains) if !remains.is_client() => return Err(out_of_turn()),
            Tls::Done(_) => return self.after.read(data).map_err(|OutOfTurn| out_of_turn()),
        };
        if !tls.is_handshaking() && self.after.read(data).is_err() {
            self.after = After::default(); // rustls has the judgement
        }
        let read = tls.read_hs(data);
        if let Some(exporter) = remains::take_exporter() {
            self.exporter = Some(Box::new(exporter));
        }
        read.map_err(|error| {
            let alert = tls.alert().unwrap_or_else(|| alert_for(&error));
            let failure = failure_for(&error, alert);
            self.failure = Some(Box::new(error));
            failure
        })
    }

    /// Appends the CRYPTO bytes that TLS wants sent at the current level, then yields the next
    /// level's keys if they became available.
    ///
    /// Call until it returns `None`: bytes appended by one call belong to the level before the keys
    /// that the same call returns.
    pub fn write_crypto(&mut self, out: &mut Vec<u8>) -> Option<KeyChange> {
        let Tls::Whole(tls) = &mut self.tls else {
            return None;
        };
        let change = tls.write_hs(out)?;
        if let Some(version) = self.moved {
            return self.rederive(&change, version);
        }
        Some(match change {
            quic::KeyChange::Handshake { keys } => KeyChange::Handshake(keys.into()),
            quic::KeyChange::OneRtt { keys, next } => {
                KeyChange::OneRtt(keys.into(), NextKeys(Next::Tls(next)))
            }
        })
    }

    /// The same keys, of the version that a client was moved to.
    fn rederive(&self, change: &quic::KeyChange, version: wire::Version) -> Option<KeyChange> {
        let one_rtt = matches!(change, quic::KeyChange::OneRtt { .. });
        let secrets = self.tap.as_ref()?.take(one_rtt)?;
        let suite = self.suite()?;
        let mut derivation = Derivation::new(suite, version, wire::Side::Client, secrets)?;
        let keys = derivation.keys();
        Some(if one_rtt {
            derivation.update();
            KeyChange::OneRtt(keys, NextKeys(Next::Own(Box::new(derivation))))
        } else {
            KeyChange::Handshake(keys)
        })
    }

    /// Whether the handshake is still incomplete (RFC 9001 §4.1.1).
    pub fn is_handshaking(&self) -> bool {
        matches!(&self.tls, Tls::Whole(tls) if tls.is_handshaking())
    }

    /// What TLS rejected, in its own words; set once [`Self::read_crypto`] has failed.
    pub fn failure(&self) -> Option<&Error> {
        self.failure.as_deref()
    }

    /// The peer's encoded transport parameters; authentic only after the handshake (RFC 9001 §8.2),
    /// and gone once the session is finished with.
    pub fn peer_params(&self) -> Option<&[u8]> {
        match &self.tls {
            Tls::Whole(tls) => tls.quic_transport_parameters(),
            Tls::Done(_) => None,
        }
    }

    /// The application protocol agreed on, if any.
    pub fn alpn(&self) -> Option<&[u8]> {
        match &self.tls {
            Tls::Whole(tls) => tls.alpn_protocol(),
            Tls::Done(remains) => remains.alpn(),
        }
    }

    /// The name that the client asked for; `None` on a client, and before its ClientHello.
    pub fn server_name(&self) -> Option<&str> {
        match &self.tls {
            Tls::Whole(tls) => match &**tls {
                Connection::Client(_) => None,
                Connection::Server(server) => server.server_name(),
            },
            Tls::Done(remains) => remains.server_name(),
        }
    }

    /// The peer's certificate chain, its own certificate first.
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        match &self.tls {
            Tls::Whole(tls) => tls.peer_certificates(),
            Tls::Done(remains) => remains.certificates(),
        }
    }

    /// The cipher suite agreed on.
    pub fn cipher_suite(&self) -> Option<rustls::CipherSuite> {
        self.suite().map(|suite| suite.suite())
    }

    fn suite(&self) -> Option<SupportedCipherSuite> {
        match &self.tls {
            Tls::Whole(tls) => tls.negotiated_cipher_suite(),
            Tls::Done(remains) => Some(remains.suite()),
        }
    }

    /// Whether the handshake resumed an earlier session; `None` until that is known.
    pub fn is_resumed(&self) -> Option<bool> {
        let kind = match &self.tls {
            Tls::Whole(tls) => tls.handshake_kind(),
            Tls::Done(remains) => remains.kind(),
        };
        kind.map(|kind| kind == rustls::HandshakeKind::Resumed)
    }

    /// Fills `out` with keying material bound to this connection (RFC 8446 §7.5).
    ///
    /// # Errors
    /// [`ExportError`]; what `out` holds is then of no use.
    pub fn export_keying_material(
        &self,
        out: &mut [u8],
        label: &[u8],
        context: Option<&[u8]>,
    ) -> Result<(), ExportError> {
        if self.is_handshaking() {
            return Err(ExportError::Handshaking);
        }
        let done = match &self.tls {
            Tls::Whole(tls) => tls
                .export_keying_material(out, label, context)
                .ok()
                .map(drop),
            Tls::Done(remains) => remains.export(out, label, context),
        };
        done.ok_or(ExportError::Length)
    }

    /// The 0-RTT key: for sending on a client, for receiving on a server. `None` without early
    /// data.
    pub fn zero_rtt_keys(&self) -> Option<Key> {
        match &self.tls {
            Tls::Whole(tls) => tls.zero_rtt_keys().map(Key::from),
            Tls::Done(_) => None,
        }
    }

    /// Whether the server takes early data. A client knows once it has seen EncryptedExtensions, a
    /// server once it has read the ClientHello.
    pub fn early_data_accepted(&self) -> bool {
        let tls = match &self.tls {
            Tls::Whole(tls) => tls,
            Tls::Done(remains) => return remains.early_data_accepted(),
        };
        match &**tls {
            Connection::Client(client) => client.is_early_data_accepted(),
            Connection::Server(server) => server.zero_rtt_keys().is_some(),
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("is_handshaking", &self.is_handshaking())
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}

fn out_of_turn() -> TransportError {
    let alert = AlertDescription::UnexpectedMessage;
    TransportError::crypto(u8::from(alert), "a TLS message came out of turn")
}

fn check_suites(provider: &CryptoProvider) -> Result<(), ConfigError> {
    let mut tls13 = provider
        .cipher_suites
        .iter()
        .filter(|s| s.tls13().is_some());
    let Some(first) = tls13.next() else {
        return Err(ConfigError::NoTls13);
    };
    if std::iter::once(first)
        .chain(tls13)
        .any(|s| quic_suite(*s).is_some())
    {
        Ok(())
    } else {
        Err(ConfigError::NoQuicSuite)
    }
}

/// rustls's refusal to start. It alone knows the configured versions and says so in words.
fn refused(error: Error) -> ConfigError {
    match error {
        Error::General(why) if why.contains("TLS 1.3") => ConfigError::NoTls13,
        other => ConfigError::Tls(other),
    }
}

/// What TLS rejected, as QUIC calls it.
fn failure_for(error: &Error, alert: AlertDescription) -> TransportError {
    forbidden(error).unwrap_or_else(|| TransportError::crypto(u8::from(alert), reason_for(error)))
}

/// What QUIC forbids in TLS and names an error of its own for.
fn forbidden(error: &Error) -> Option<TransportError> {
    let reason = match error {
        // RFC 9001 §4.4: rustls itself takes CertificateRequest during the handshake.
        Error::InappropriateHandshakeMessage { got_type, .. }
            if *got_type == HandshakeType::CertificateRequest =>
        {
            "TLS client authentication after the handshake"
        }
        // RFC 9001 §4.6.1.
        Error::PeerMisbehaved(PeerMisbehaved::InvalidMaxEarlyDataSize) => {
            "a ticket with another max_early_data_size than QUIC's"
        }
        _ => return None,
    };
    Some(TransportError::protocol_violation(reason))
}

/// The alert for an error for which rustls queued none.
fn alert_for(error: &Error) -> AlertDescription {
    match error {
        Error::InvalidMessage(what) => AlertDescription::from(*what),
        Error::InvalidCertificate(what) => AlertDescription::from(what.clone()),
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            AlertDescription::UnexpectedMessage
        }
        Error::PeerMisbehaved(_) => AlertDescription::IllegalParameter,
        Error::PeerIncompatible(_) => AlertDescription::HandshakeFailure,
        Error::NoApplicationProtocol => AlertDescription::NoApplicationProtocol,
        Error::NoCertificatesPresented => AlertDescription::CertificateRequired,
        _ => AlertDescription::InternalError,
    }
}

/// What a peer may be told; [`Session::failure`] has the details.
fn reason_for(error: &Error) -> &'static str {
    match error {
        Error::InvalidMessage(_) => "a TLS message is malformed",
        Error::InvalidCertificate(_) => "the certificate is not accepted",
        Error::InvalidCertRevocationList(_) => "a certificate revocation list is not accepted",
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            "a TLS message came out of turn"
        }
        Error::PeerMisbehaved(_) => "TLS was violated",
        Error::PeerIncompatible(_) => "the two TLS configurations have nothing in common",
        Error::NoApplicationProtocol => "no application protocol in common",
        Error::NoCertificatesPresented => "a client certificate is required",
        Error::DecryptError => "the TLS handshake does not authenticate",
        _ => "the TLS handshake failed",
    }
}

#[cfg(test)]
mod tests;
