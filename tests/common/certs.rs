//! A certificate authority and a leaf for `localhost`, made anew for every test, and the rustls
//! configurations of both sides that go with them.
//!
//! The provider is always named: a build with several providers has no default.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// The name that the leaf is for.
pub const SERVER_NAME: &str = "localhost";

/// A server's certificate with its key, and the authority that clients trust.
pub struct Identity {
    /// The authority's certificate; not part of what the server sends.
    pub ca: CertificateDer<'static>,
    /// The leaf, P-256, for [`SERVER_NAME`].
    pub cert: CertificateDer<'static>,
    /// The leaf's key, PKCS #8.
    pub key: PrivateKeyDer<'static>,
}

impl Identity {
    /// A new authority and a new leaf.
    pub fn generate() -> Self {
        let new_key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a P-256 key");
        Self::of(&new_key(), &new_key())
    }

    /// The same authority and leaf every time: with Ed25519, whose signatures all have one length,
    /// so that a simulation's packets do too.
    pub fn fixed() -> Self {
        let key = |byte: u8| {
            // RFC 8410 §7: a PKCS #8 private key.
            let mut der = vec![
                0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 32,
            ];
            der.extend([byte; 32]);
            let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(der));
            KeyPair::from_der_and_sign_algo(&der, &PKCS_ED25519).expect("an Ed25519 key")
        };
        Self::of(&key(1), &key(2))
    }

    fn of(ca_key: &KeyPair, key: &KeyPair) -> Self {
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        ca.distinguished_name
            .push(DnType::CommonName, "corelane test authority");
        let ca_cert = ca.self_signed(ca_key).expect("a self-signed certificate");

        let mut leaf = CertificateParams::new(vec![SERVER_NAME.into()]).expect("a valid name");
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.distinguished_name
            .push(DnType::CommonName, SERVER_NAME);
        let cert = leaf
            .signed_by(key, &Issuer::from_params(&ca, ca_key))
            .expect("a signed certificate");

        Self {
            ca: ca_cert.der().clone(),
            cert: cert.der().clone(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        }
    }

    /// TLS 1.3 for a server with this identity.
    pub fn server_config(&self, alpn: &[&[u8]]) -> ServerConfig {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![self.cert.clone()], self.key.clone_key())
            .expect("the key belongs to the certificate");
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config
    }

    /// TLS 1.3 for a client that trusts this identity's authority and nobody else.
    pub fn client_config(&self, alpn: &[&[u8]]) -> ClientConfig {
        client_config(&self.ca, alpn)
    }
}

/// TLS 1.3 for a client that trusts `ca` and nobody else.
pub fn client_config(ca: &CertificateDer<'static>, alpn: &[&[u8]]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone()).expect("a certificate");
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

/// The provider of every configuration here: the one that programs take.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(corelane::crypto::default_provider())
}
