//! TLS of the peers that take rustls: an authority and a P-256 leaf made for the run, the chain
//! verified, no resumption, and one cipher suite and key exchange for everybody.

use std::error::Error;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{CipherSuite, ClientConfig, NamedGroup, RootCertStore, ServerConfig};

/// The name that the leaf is for.
pub const SERVER_NAME: &str = "localhost";
/// The application protocol.
pub const ALPN: &[u8] = b"corelane-perf";

/// TLS_AES_128_GCM_SHA256 and X25519 by ring, and nothing else.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider
        .cipher_suites
        .retain(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
        .kx_groups
        .retain(|group| group.name() == NamedGroup::X25519);
    Arc::new(provider)
}

/// Configurations of a client and a server that accept each other.
///
/// # Errors
/// When a certificate cannot be made.
pub fn configs() -> Result<(ClientConfig, ServerConfig), Box<dyn Error + Send + Sync>> {
    let ca_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    ca.distinguished_name
        .push(DnType::CommonName, "corelane-perf authority");
    let ca_cert = ca.self_signed(&ca_key)?;

    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut leaf = CertificateParams::new(vec![SERVER_NAME.into()])?;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let cert = leaf.signed_by(&key, &Issuer::from_params(&ca, &ca_key))?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());

    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.into())?;
    server.alpn_protocols = vec![ALPN.to_vec()];

    let mut roots = RootCertStore::empty();
    roots.add(ca_cert.der().clone())?;
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = rustls::client::Resumption::disabled();
    Ok((client, server))
}
