//! TLS of the peers that take rustls: an authority and a P-256 leaf made for the run, the chain
//! verified.
//!
//! Settings other than the default have one cipher suite and one key exchange for everybody.
//! Sessions are resumed only where that is measured; how many handshakes were full ones all the
//! same is counted, by the certificates that were verified.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
    WebPkiServerVerifier,
};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, NamedGroup, RootCertStore, ServerConfig,
    SignatureScheme,
};

use tokio::sync::Notify;

use crate::program::Profile;

/// The name that the leaf is for.
pub const SERVER_NAME: &str = "localhost";
/// The application protocol.
pub const ALPN: &[u8] = b"corelane-perf";

/// What goes wrong with certificates.
pub type Fault = Box<dyn Error + Send + Sync>;

/// An authority, and a server's certificate of it.
pub struct Certificates {
    /// The authority that clients trust.
    pub authority: CertificateDer<'static>,
    leaf: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
}

/// The ring provider: all that it has, or TLS_AES_128_GCM_SHA256 and X25519 alone.
fn provider(profile: Profile) -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    if profile != Profile::Default {
        provider
            .cipher_suites
            .retain(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256);
        provider
            .kx_groups
            .retain(|group| group.name() == NamedGroup::X25519);
    }
    Arc::new(provider)
}

impl Certificates {
    /// New ones.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn make() -> Result<Self, Fault> {
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
        Ok(Self {
            authority: ca_cert.der().clone(),
            leaf: cert.der().clone(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
        })
    }

    /// The server's configuration. With `resume`, each connection gets a ticket.
    ///
    /// # Errors
    /// When rustls refuses them.
    pub fn server(self, profile: Profile, resume: bool) -> Result<ServerConfig, Fault> {
        let mut server = ServerConfig::builder_with_provider(provider(profile))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![self.leaf], self.key.into())?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        if resume {
            server.ticketer = ring::Ticketer::new()?;
            server.send_tls13_tickets = 1;
        }
        Ok(server)
    }
}

/// A client's configuration. With `sessions`, it resumes them.
///
/// # Errors
/// When rustls refuses the authority.
pub fn client(
    authority: CertificateDer<'static>,
    profile: Profile,
    sessions: Option<&Arc<Sessions>>,
) -> Result<ClientConfig, Fault> {
    let mut roots = RootCertStore::empty();
    roots.add(authority)?;
    let builder = ClientConfig::builder_with_provider(provider(profile))
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut client = match sessions {
        None => builder.with_root_certificates(roots).with_no_client_auth(),
        Some(sessions) => {
            let verifier =
                WebPkiServerVerifier::builder_with_provider(roots.into(), provider(profile));
            let counting = Counting {
                verifier: verifier.build()?,
                sessions: sessions.clone(),
            };
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(counting))
                .with_no_client_auth()
        }
    };
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = match sessions {
        None => Resumption::disabled(),
        Some(sessions) => Resumption::store(sessions.clone()),
    };
    Ok(client)
}

/// The ticket of the last connection, for the next one. One client thread's connections that follow
/// each other have one of these.
#[derive(Debug, Default)]
pub struct Sessions {
    newest: Mutex<Option<Tls13ClientSessionValue>>,
    came: Notify,
    full: Arc<AtomicU64>,
}

impl Sessions {
    /// No ticket yet; counts handshakes that resume nothing in `full`.
    pub fn new(full: Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self {
            full,
            ..Self::default()
        })
    }

    fn newest(&self) -> MutexGuard<'_, Option<Tls13ClientSessionValue>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the ticket of the connection that has just been established.
    pub async fn ticket(&self) {
        self.came.notified().await;
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        *self.newest() = Some(ticket);
        self.came.notify_one();
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.newest().take()
    }
}

/// The usual verification, counted.
#[derive(Debug)]
struct Counting {
    verifier: Arc<WebPkiServerVerifier>,
    sessions: Arc<Sessions>,
}

impl ServerCertVerifier for Counting {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.sessions.full.fetch_add(1, Relaxed);
        self.verifier
            .verify_server_cert(leaf, chain, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
