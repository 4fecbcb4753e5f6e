//! rustls configurations of both roles: ALPN, what is trusted, which suites, where secrets go.

use corelane_hq::{Case, ClientArgs, ServerArgs};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, Error, KeyLogFile, RootCertStore,
    ServerConfig, SignatureScheme,
};
use std::path::Path;
use std::sync::Arc;

fn named<T, E: std::fmt::Display>(path: &Path, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|e| format!("{}: {e}", path.display()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = named(path, CertificateDer::pem_file_iter(path))?;
    named(path, all.collect())
}

fn provider(case: Case) -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    if case == Case::ChaCha20 {
        // Initial packets are protected with AES, which a provider must have besides.
        provider
            .cipher_suites
            .retain(|s| s.suite() == CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
    }
    Arc::new(provider)
}

pub(super) fn server(args: &ServerArgs) -> Result<Arc<ServerConfig>, String> {
    let chain = certificates(&args.cert)?;
    let key = named(&args.key, PrivateKeyDer::from_pem_file(&args.key))?;
    let config = ServerConfig::builder_with_provider(provider(Case::Transfer))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|b| b.with_no_client_auth().with_single_cert(chain, key));
    let mut config = config.map_err(|e| e.to_string())?;
    config.alpn_protocols = vec![corelane_hq::ALPN.to_vec()];
    config.key_log = Arc::new(KeyLogFile::new());
    if args.case == Case::ZeroRtt {
        config.max_early_data_size = u32::MAX;
    }
    Ok(Arc::new(config))
}

pub(super) fn client(args: &ClientArgs) -> Result<Arc<ClientConfig>, String> {
    let provider = provider(args.case);
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| e.to_string())?;
    let mut config = match &args.ca {
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(ca)? {
                named(ca, roots.add(certificate))?;
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_no_client_auth(),
    };
    config.alpn_protocols = vec![corelane_hq::ALPN.to_vec()];
    config.key_log = Arc::new(KeyLogFile::new());
    config.enable_early_data = args.case == Case::ZeroRtt;
    Ok(Arc::new(config))
}

/// Believes every certificate, but not every signature.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("QUIC has no TLS 1.2".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
