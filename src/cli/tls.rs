//! Certificates and TLS configurations of the program: made, read, or recognised by fingerprint.
//!
//! Servers without a certificate make one (ECDSA P-256) that lives as long as the process. Clients
//! verify by certificate authority or by fingerprint; trusting anybody has to be asked for.

use super::Failure;
use super::args::TrustArgs;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionStore, Resumption};
use rustls::client::{Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig};
use rustls::{Error, NamedGroup, OtherError, SignatureScheme};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What both ends of a measurement speak; another version of the protocol gets another name.
pub const ALPN: &[u8] = b"corelane-bench/1";
/// The name in certificates that the program makes.
const NAME: &str = "localhost";
/// Sessions that either side stores at most.
const SESSIONS: usize = 1024;

/// A certificate chain and its private key.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// A certificate that signs itself.
    pub fn generate() -> Result<Self, Failure> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned(), "127.0.0.1".to_owned()]);
        let made = made.map_err(|e| Failure::Failed(format!("cannot make a certificate: {e}")))?;
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        Ok(Self {
            chain: vec![made.cert.der().clone()],
            key,
        })
    }

    /// A certificate chain and a key from PEM files.
    pub fn read(cert: &Path, key: &Path) -> Result<Self, Failure> {
        let chain = certificates(cert)?;
        let key_file = key;
        let key = PrivateKeyDer::from_pem_file(key_file)
            .map_err(|e| Failure::file("read a private key from", key_file, e))?;
        Ok(Self { chain, key })
    }

    /// The SHA-256 of the first certificate.
    pub fn fingerprint(&self) -> Fingerprint {
        self.chain
            .first()
            .map_or(Fingerprint([0; 32]), Fingerprint::of)
    }

    /// The certificate that a client has to trust.
    pub fn root(&self) -> Option<&CertificateDer<'static>> {
        self.chain.last()
    }

    /// The server's side of TLS; with `resume` it gives each client a session.
    pub fn server(
        self,
        provider: Arc<CryptoProvider>,
        resume: bool,
    ) -> Result<Arc<ServerConfig>, Failure> {
        self.server_for(None, provider, resume)
    }

    /// The same, for clients alone that show a certificate of an authority in this file.
    pub fn server_for(
        self,
        clients: Option<&Path>,
        provider: Arc<CryptoProvider>,
        resume: bool,
    ) -> Result<Arc<ServerConfig>, Failure> {
        let refused = |e| Failure::Failed(format!("the certificate and its key do not serve: {e}"));
        let verifier = match clients {
            None => WebPkiClientVerifier::no_client_auth(),
            Some(file) => {
                let roots = Arc::new(roots(certificates(file)?)?);
                let made = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
                let no_use = |e| Failure::file("verify clients by", file, e);
                made.build().map_err(no_use)?
            }
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(refused)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain, self.key)
            .map_err(refused)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Where every handshake is measured in full, a ticket is work that no client uses.
        config.send_tls13_tickets = usize::from(resume);
        config.session_storage = rustls::server::ServerSessionMemoryCache::new(SESSIONS);
        Ok(Arc::new(config))
    }
}

/// Whom a client trusts.
pub enum Trust {
    /// Servers with a certificate of one of these.
    Roots(Vec<CertificateDer<'static>>),
    /// The server with this certificate.
    Pin(Fingerprint),
    /// Anybody.
    Anybody,
}

impl Trust {
    /// What the flags say.
    pub fn from_args(args: &TrustArgs) -> Result<Self, Failure> {
        if let Some(file) = &args.ca {
            return Ok(Self::Roots(certificates(file)?));
        }
        match &args.pin {
            Some(hex) => Fingerprint::parse(hex).map(Self::Pin).ok_or_else(|| {
                Failure::Usage(format!(
                    "`{hex}` is no SHA-256 fingerprint: write 64 hexadecimal digits"
                ))
            }),
            None => Ok(Self::Anybody),
        }
    }

    /// The client's side of TLS, and with `resume` the sessions that it has.
    pub fn client(
        self,
        provider: Arc<CryptoProvider>,
        resume: bool,
    ) -> Result<Arc<ClientConfig>, Failure> {
        self.client_as(None, provider, resume)
    }

    /// The same, for a client that shows who it is.
    pub fn client_as(
        self,
        identity: Option<Identity>,
        provider: Arc<CryptoProvider>,
        resume: bool,
    ) -> Result<Arc<ClientConfig>, Failure> {
        let algorithms = provider.signature_verification_algorithms;
        let refused = |e: Error| Failure::Failed(format!("TLS refuses the settings: {e}"));
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(refused)?;
        let recognise = |pin| Arc::new(Recognise { pin, algorithms });
        let builder = match self {
            Self::Roots(certificates) => builder.with_root_certificates(roots(certificates)?),
            Self::Pin(pin) => builder
                .dangerous()
                .with_custom_certificate_verifier(recognise(Some(pin))),
            Self::Anybody => builder
                .dangerous()
                .with_custom_certificate_verifier(recognise(None)),
        };
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let made = builder.with_client_auth_cert(own.chain, own.key);
                made.map_err(refused)?
            }
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = if resume {
            Resumption::store(Arc::new(Sessions::default()))
        } else {
            Resumption::disabled()
        };
        Ok(Arc::new(config))
    }
}

/// Sessions of the one server that a client measures: as many as it has handshakes under way, of
/// which rustls's own storage keeps eight.
#[derive(Debug, Default)]
struct Sessions(Mutex<VecDeque<Tls13ClientSessionValue>>);

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

    fn insert_tls13_ticket(&self, _: ServerName<'static>, session: Tls13ClientSessionValue) {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= SESSIONS {
            sessions.pop_front();
        }
        sessions.push_back(session);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.pop_back()
    }
}

/// The name that a loopback client expects in a made certificate.
pub fn loopback_name() -> ServerName<'static> {
    ServerName::try_from(NAME).expect("a constant DNS name")
}

fn roots(certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let added = roots.add(certificate);
        added.map_err(|e| Failure::Failed(format!("TLS refuses an authority: {e}")))?;
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let refused = |e| Failure::file("read certificates from", file, e);
    let parsed = CertificateDer::pem_file_iter(file).map_err(refused)?;
    let chain = parsed.collect::<Result<Vec<_>, _>>().map_err(refused)?;
    if chain.is_empty() {
        return Err(Failure::file(
            "read certificates from",
            file,
            "there is none in it",
        ));
    }
    Ok(chain)
}

/// The SHA-256 of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    fn of(certificate: &CertificateDer<'_>) -> Self {
        let digest = ::ring::digest::digest(&::ring::digest::SHA256, certificate);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }

    /// Reads hexadecimal digits; colons between them are allowed.
    fn parse(text: &str) -> Option<Self> {
        let digits = text.chars().filter(|c| *c != ':');
        let values: Option<Vec<u32>> = digits.map(|c| c.to_digit(16)).collect();
        let values = values.filter(|v| v.len() == 64)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(values.chunks_exact(2)) {
            *byte = pair.iter().fold(0, |sum, digit| sum << 4 | *digit as u8);
        }
        Some(Self(bytes))
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// Accepts one certificate, or any, without asking who signed it. The handshake still proves that
/// the server has the certificate's key.
#[derive(Debug)]
struct Recognise {
    pin: Option<Fingerprint>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// What a TLS error says to a user: a verifier's own words, which rustls shows as code.
pub fn explain(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(rustls::CertificateError::Other(own)) => own.0.to_string(),
        other => other.to_string(),
    }
}

static SHOWN: OnceLock<Fingerprint> = OnceLock::new();

/// The fingerprint of a server that had another than it should.
pub fn shown() -> Option<Fingerprint> {
    SHOWN.get().copied()
}

/// The server has another certificate than it should.
#[derive(Debug, thiserror::Error)]
#[error("the server's certificate has the fingerprint {0}, not the one given")]
struct WrongCertificate(Fingerprint);

impl ServerCertVerifier for Recognise {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = Fingerprint::of(end_entity);
        match self.pin {
            Some(pin) if pin != found => {
                // The first is kept; a process has one server.
                let _ = SHOWN.set(found);
                let wrong = OtherError(Arc::new(WrongCertificate(found)));
                Err(Error::InvalidCertificate(rustls::CertificateError::Other(
                    wrong,
                )))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
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
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_read_as_they_print() {
        let made = Identity::generate().unwrap().fingerprint();
        assert_eq!(Fingerprint::parse(&made.to_string()), Some(made));
        let colons = made
            .to_string()
            .as_bytes()
            .chunks(2)
            .map(String::from_utf8_lossy)
            .fold(String::new(), |all, pair| {
                if all.is_empty() {
                    pair.into()
                } else {
                    format!("{all}:{pair}")
                }
            });
        assert_eq!(Fingerprint::parse(&colons), Some(made));
        for wrong in ["", "00", &"0".repeat(63), &"g".repeat(64)] {
            assert_eq!(Fingerprint::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_pin_knows_its_certificate_and_no_other() {
        let (one, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let provider = rustls::crypto::ring::default_provider();
        let algorithms = provider.signature_verification_algorithms;
        let verifier = Recognise {
            pin: Some(one.fingerprint()),
            algorithms,
        };
        let verify = |identity: &Identity| {
            let name = loopback_name();
            let now = UnixTime::since_unix_epoch(std::time::Duration::ZERO);
            verifier.verify_server_cert(&identity.chain[0], &[], &name, &[], now)
        };
        assert!(verify(&one).is_ok());
        assert!(verify(&other).is_err());
    }
}
