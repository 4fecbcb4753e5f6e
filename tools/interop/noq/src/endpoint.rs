//! Endpoints of either implementation, with several paths on both sides, and the certificate that
//! goes with them.

use crate::peer::{Peer, Which};
use crate::{Fault, Kind};
use corelane::api::{Idle, TransportConfig};
use noq::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

const SERVER_NAME: &str = "localhost";
const ALPN: &[u8] = b"several paths";
/// Longer than any test: nothing but what a test is about ends a connection.
const IDLE: Duration = Duration::from_secs(600);

/// Whether the server took early data, once that is known.
pub type Accepted = Pin<Box<dyn Future<Output = bool> + Send>>;

/// A server's certificate, and the configurations of both sides that go with it.
pub struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
}

impl Identity {
    /// A new one.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make() -> Result<Self, Fault> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = CertificateParams::new(vec![SERVER_NAME.into()])?.self_signed(&key)?;
        Ok(Self {
            certificate: certificate.der().clone(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
        })
    }

    fn server(&self) -> Result<ServerConfig, Fault> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key().into())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.max_early_data_size = u32::MAX;
        Ok(config)
    }

    fn client(&self) -> Result<ClientConfig, Fault> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.enable_early_data = true;
        Ok(config)
    }
}

/// An endpoint of either implementation.
pub enum Endpoint {
    /// This one.
    Corelane(corelane::api::Endpoint),
    /// The other one.
    Noq(noq::Endpoint),
}

fn ours(paths: u32) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport.max_paths = paths;
    transport.max_idle_timeout = IDLE;
    transport.handshake_deadline = IDLE;
    transport
}

fn theirs(paths: u32) -> Result<Arc<noq::TransportConfig>, Fault> {
    let mut transport = noq::TransportConfig::default();
    // One path is what a noq without the extension has.
    if paths > 1 {
        transport.max_concurrent_multipath_paths(paths);
    }
    transport.max_idle_timeout(Some(IDLE.try_into()?));
    Ok(Arc::new(transport))
}

impl Endpoint {
    /// A server on loopback that takes so many paths; in a tokio runtime.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn server(kind: Kind, identity: &Identity, paths: u32) -> Result<Self, Fault> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Ok(match kind {
            Kind::Corelane => {
                let builder = corelane::api::Endpoint::builder().transport(ours(paths));
                let builder = builder.server(Arc::new(identity.server()?), addr);
                Self::Corelane(builder.idle(Idle::Park).build()?)
            }
            Kind::Noq => {
                let tls = QuicServerConfig::try_from(identity.server()?)?;
                let mut config = noq::ServerConfig::with_crypto(Arc::new(tls));
                config.transport_config(theirs(paths)?);
                Self::Noq(noq::Endpoint::server(config, addr)?)
            }
        })
    }

    /// A client at every address that takes so many paths; in a tokio runtime.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn client(kind: Kind, identity: &Identity, paths: u32) -> Result<Self, Fault> {
        Ok(match kind {
            Kind::Corelane => {
                let builder = corelane::api::Endpoint::builder().transport(ours(paths));
                let builder = builder.client(Arc::new(identity.client()?));
                Self::Corelane(builder.idle(Idle::Park).build()?)
            }
            Kind::Noq => {
                let endpoint = noq::Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into())?;
                let tls = QuicClientConfig::try_from(identity.client()?)?;
                let mut config = noq::ClientConfig::new(Arc::new(tls));
                config.transport_config(theirs(paths)?);
                endpoint.set_default_client_config(config);
                Self::Noq(endpoint)
            }
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// It is gone.
    pub fn addr(&self) -> Result<SocketAddr, Fault> {
        Ok(match self {
            Self::Corelane(endpoint) => endpoint.local_addr(),
            Self::Noq(endpoint) => endpoint.local_addr()?,
        })
    }

    /// Connects, and waits until the handshake is confirmed where that can be waited for.
    ///
    /// # Errors
    /// There is no connection.
    pub async fn connect(&self, addr: SocketAddr) -> Result<Peer, Fault> {
        Ok(Peer::new(match self {
            Self::Corelane(endpoint) => Which::Corelane(endpoint.connect(addr, SERVER_NAME).await?),
            Self::Noq(endpoint) => {
                let connection = endpoint.connect(addr, SERVER_NAME)?.await?;
                connection.handshake_confirmed().await?;
                Which::Noq(connection)
            }
        }))
    }

    /// Connects with a session of an earlier connection, at once.
    ///
    /// # Errors
    /// There is no such session, or no connection.
    pub async fn connect_early(&self, addr: SocketAddr) -> Result<(Peer, Accepted), Fault> {
        Ok(match self {
            Self::Corelane(endpoint) => {
                let connecting = endpoint.connect(addr, SERVER_NAME).into_early();
                let connection = connecting.await?;
                let asked = connection.clone();
                let taken = async move { asked.early_data_accepted().await == Ok(true) };
                (Peer::new(Which::Corelane(connection)), Box::pin(taken))
            }
            Self::Noq(endpoint) => {
                let connecting = endpoint.connect(addr, SERVER_NAME)?;
                let early = connecting.into_0rtt();
                let (connection, taken) = early.map_err(|_| "there is no session to resume")?;
                (Peer::new(Which::Noq(connection)), Box::pin(taken))
            }
        })
    }

    /// The next connection of a client, from when data can be sent and received on it.
    ///
    /// # Errors
    /// There is none.
    pub async fn accept(&self) -> Result<Peer, Fault> {
        Ok(Peer::new(match self {
            Self::Corelane(endpoint) => {
                let incoming = endpoint.accept().await.ok_or("the endpoint is closed")?;
                Which::Corelane(incoming.accept().into_early().await?)
            }
            Self::Noq(endpoint) => {
                let incoming = endpoint.accept().await.ok_or("the endpoint is closed")?;
                let early = incoming.accept()?.into_0rtt();
                Which::Noq(early.map_err(|_| "a server has 0.5-RTT always")?.0)
            }
        }))
    }
}
