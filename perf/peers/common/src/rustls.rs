//! TLS of the peers that take rustls. In `tuned` and `jumbo` it is aws-lc-rs, its fastest provider,
//! with one cipher suite and one key exchange; in `default` ring with what rustls offers.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionStore, Resumption as Sessions, Tls12ClientSessionValue, Tls13ClientSessionValue,
    WebPkiServerVerifier,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, Error, NamedGroup, RootCertStore,
    ServerConfig, SignatureScheme,
};

use crate::{ALPN, Certificates, Fault, Resumption, Run};

/// The provider, for the report.
pub fn provider_name(run: &Run) -> &'static str {
    if run.profile.is_tuned() {
        "aws-lc-rs"
    } else {
        "ring"
    }
}

fn provider(run: &Run) -> Arc<CryptoProvider> {
    if !run.profile.is_tuned() {
        return Arc::new(ring::default_provider());
    }
    let mut provider = aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .retain(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
        .kx_groups
        .retain(|group| group.name() == NamedGroup::X25519);
    Arc::new(provider)
}

/// A server's configuration; where resumption is measured it keeps no state for a ticket.
///
/// # Errors
/// When rustls refuses the certificates.
pub fn server_config(run: &Run, certificates: &Certificates) -> Result<ServerConfig, Fault> {
    let leaf = CertificateDer::from_pem_slice(certificates.leaf.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(certificates.key.as_bytes())?;
    let mut config = ServerConfig::builder_with_provider(provider(run))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![leaf], key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    if run.resume {
        config.ticketer = if run.profile.is_tuned() {
            aws_lc_rs::Ticketer::new()?
        } else {
            ring::Ticketer::new()?
        };
    }
    Ok(config)
}

/// A client's configuration. It resumes only where that is measured.
///
/// # Errors
/// When rustls refuses the authority.
pub fn client_config(
    run: &Run,
    certificates: &Certificates,
    resumption: &Arc<Resumption>,
) -> Result<ClientConfig, Fault> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(
        certificates.authority.as_bytes(),
    )?)?;
    let builder = ClientConfig::builder_with_provider(provider(run))
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config = if run.resume {
        let inner = WebPkiServerVerifier::builder_with_provider(roots.into(), provider(run));
        let counting = Counting {
            inner: inner.build()?,
            resumption: resumption.clone(),
        };
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(counting))
            .with_no_client_auth()
    } else {
        builder.with_root_certificates(roots).with_no_client_auth()
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = if run.resume {
        Sessions::store(Arc::new(Tickets {
            unused: Mutex::default(),
            resumption: resumption.clone(),
        }))
    } else {
        Sessions::disabled()
    };
    Ok(config)
}

/// The usual verification, counted.
#[derive(Debug)]
struct Counting {
    inner: Arc<WebPkiServerVerifier>,
    resumption: Arc<Resumption>,
}

impl ServerCertVerifier for Counting {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.resumption.note_full_handshake();
        self.inner
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// How many tickets are kept.
const MAX_TICKETS: usize = 4096;

/// Tickets that have not been used: rustls takes each for one connection.
struct Tickets {
    unused: Mutex<Vec<Tls13ClientSessionValue>>,
    resumption: Arc<Resumption>,
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        let mut unused = self.unused.lock().unwrap_or_else(PoisonError::into_inner);
        if unused.len() < MAX_TICKETS {
            unused.push(value);
            self.resumption.note_ticket(1);
        }
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let mut unused = self.unused.lock().unwrap_or_else(PoisonError::into_inner);
        unused.pop()
    }
}
