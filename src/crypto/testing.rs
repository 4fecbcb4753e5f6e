//! What the tests of this layer share: hexadecimal, keys from secrets, and configurations with
//! certificates made on the spot.

use super::{Key, KeyChange, Keys, NextKeys, Session};
use crate::wire::{Side, TransportError};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::CryptoProvider;
use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedCipherSuite};
use std::sync::Arc;

/// Bytes from hexadecimal digits; anything else is skipped.
pub fn hex(digits: &str) -> Vec<u8> {
    let nibbles: Vec<u8> = digits
        .chars()
        .filter_map(|c| c.to_digit(16))
        .map(|d| d as u8)
        .collect();
    nibbles.chunks(2).map(|n| n[0] << 4 | n[1]).collect()
}

pub fn ring_provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// A key of ChaCha20-Poly1305 or AES-256-GCM, the suites with keys of 32 bytes.
pub fn key(suite: SupportedCipherSuite, key: [u8; 32], iv: [u8; 12], hp: [u8; 32]) -> Key {
    let quic = suite.tls13().unwrap().quic_suite().unwrap().quic;
    Key {
        packet: quic.packet_key(AeadKey::from(key), Iv::from(iv)),
        header: quic.header_protection_key(AeadKey::from(hp)),
    }
}

/// A certificate authority.
pub struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub fn new() -> Self {
        Self::named("the tests' authority")
    }

    pub fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for `name` and its key, after `adjust` had its way.
    pub fn issue(
        &self,
        name: &str,
        adjust: impl FnOnce(&mut CertificateParams),
    ) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        adjust(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        (
            vec![cert.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
    }

    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }

    pub fn client(&self) -> ClientConfig {
        self.client_with(ring_provider())
    }

    pub fn client_with(&self, provider: CryptoProvider) -> ClientConfig {
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"test".to_vec()];
        config
    }

    pub fn server(&self, adjust: impl FnOnce(&mut CertificateParams)) -> ServerConfig {
        self.server_with(ring_provider(), adjust)
    }

    pub fn server_with(
        &self,
        provider: CryptoProvider,
        adjust: impl FnOnce(&mut CertificateParams),
    ) -> ServerConfig {
        let (chain, key) = self.issue("localhost", adjust);
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![b"test".to_vec()];
        config
    }
}

pub fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

/// One end of a handshake in memory, with the keys it was given.
pub struct End {
    pub session: Session,
    pub handshake: Option<Keys>,
    pub one_rtt: Option<(Keys, NextKeys)>,
}

impl End {
    pub fn new(session: Session) -> Self {
        Self {
            session,
            handshake: None,
            one_rtt: None,
        }
    }

    /// What this end has to send, cut where its level changes.
    pub fn flights(&mut self) -> Vec<Vec<u8>> {
        let mut flights = Vec::new();
        loop {
            let mut flight = Vec::new();
            let change = self.session.write_crypto(&mut flight);
            if !flight.is_empty() {
                flights.push(flight);
            }
            match change {
                Some(KeyChange::Handshake(keys)) => assert!(self.handshake.replace(keys).is_none()),
                Some(KeyChange::OneRtt(keys, next)) => {
                    assert!(self.one_rtt.replace((keys, next)).is_none());
                }
                None => return flights,
            }
        }
    }
}

/// Runs a handshake to its end, session tickets included, or to the side that fails.
pub fn handshake(client: &mut End, server: &mut End) -> Result<(), (Side, TransportError)> {
    for _ in 0..4 {
        for flight in client.flights() {
            let read = server.session.read_crypto(&flight);
            read.map_err(|error| (Side::Server, error))?;
        }
        for flight in server.flights() {
            let read = client.session.read_crypto(&flight);
            read.map_err(|error| (Side::Client, error))?;
        }
    }
    assert!(!client.session.is_handshaking() && !server.session.is_handshaking());
    Ok(())
}
