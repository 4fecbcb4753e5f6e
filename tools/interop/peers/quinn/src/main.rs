//! quinn as an endpoint of the interop runner: hq-interop client and server.

use corelane_hq::{Args, Case, ClientArgs, MAX_FILE, MAX_REQUEST, ServerArgs, Url, Wanted};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, Endpoint, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CipherSuite, KeyLogFile, RootCertStore};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    let args = match corelane_hq::parse(std::env::args().skip(1), |n| std::env::var(n).ok()) {
        Ok(Some(args)) => args,
        Ok(None) => return corelane_hq::UNSUPPORTED.into(),
        Err(why) => {
            eprintln!("{why}");
            return 2.into();
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    };
    // quinn speaks version 1 alone.
    let outcome = runtime.block_on(async {
        match &args {
            Args::Server(a) if a.case == Case::V2 => return Ok(false),
            Args::Client(a) if matches!(a.case, Case::V2 | Case::ConnectionMigration) => {
                return Ok(false);
            }
            Args::Server(a) => server(a).await,
            Args::Client(a) => client(a).await,
            Args::Help => {
                println!("{}", corelane_hq::USAGE);
                Ok(())
            }
        }
        .map(|()| true)
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => corelane_hq::UNSUPPORTED.into(),
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn transport() -> Outcome<Arc<TransportConfig>> {
    let mut transport = TransportConfig::default();
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(1452);
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(100))
        .max_idle_timeout(Some(IdleTimeout::try_from(Duration::from_secs(120))?))
        .stream_receive_window(VarInt::from_u32(1 << 20))
        .receive_window(VarInt::from_u32(2 << 20))
        .mtu_discovery_config(Some(mtu));
    Ok(Arc::new(transport))
}

fn provider(case: Case) -> Arc<rustls::crypto::CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    if case == Case::ChaCha20 {
        let chacha = CipherSuite::TLS13_CHACHA20_POLY1305_SHA256;
        provider.cipher_suites.retain(|s| s.suite() == chacha);
    }
    Arc::new(provider)
}

/// Protects Initial packets whatever the handshake offers.
fn initial_suite() -> Outcome<rustls::quic::Suite> {
    rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256
        .tls13()
        .and_then(|s| s.quic_suite())
        .ok_or_else(|| "no suite for Initial packets".into())
}

async fn server(args: &ServerArgs) -> Outcome<()> {
    let chain = CertificateDer::pem_file_iter(&args.cert)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&args.key)?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider(Case::Transfer))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    tls.alpn_protocols = vec![corelane_hq::ALPN.to_vec()];
    tls.key_log = Arc::new(KeyLogFile::new());
    if args.case == Case::ZeroRtt {
        tls.max_early_data_size = u32::MAX;
    }
    let crypto = QuicServerConfig::with_initial(Arc::new(tls), initial_suite()?)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport()?);
    if args.case == Case::ConnectionMigration {
        match args.preferred {
            Some(SocketAddr::V4(addr)) => config.preferred_address_v4(Some(addr)),
            Some(SocketAddr::V6(addr)) => config.preferred_address_v6(Some(addr)),
            None => &mut config,
        };
    }
    let endpoint = Endpoint::server(config, args.listen)?;
    corelane_hq::announce(endpoint.local_addr()?);
    let root = Arc::new(args.root.clone());
    while let Some(incoming) = endpoint.accept().await {
        if args.retry && !incoming.remote_address_validated() {
            let _ = incoming.retry();
            continue;
        }
        tokio::spawn(serve(incoming, root.clone()));
    }
    Ok(())
}

async fn serve(incoming: quinn::Incoming, root: Arc<PathBuf>) -> Outcome<()> {
    // 0-RTT requests are served before the handshake ends.
    let connection = match incoming.accept()?.into_0rtt() {
        Ok((connection, _)) => connection,
        Err(connecting) => connecting.await?,
    };
    loop {
        match connection.accept_bi().await {
            Ok((send, recv)) => tokio::spawn(answer(send, recv, root.clone())),
            Err(why) => {
                eprintln!("{}: {why}", connection.remote_address());
                return Ok(());
            }
        };
    }
}

async fn answer(
    mut send: quinn::SendStream,
    mut recv: quinn::RecvStream,
    root: Arc<PathBuf>,
) -> Outcome<()> {
    let request = recv.read_to_end(MAX_REQUEST).await?;
    match corelane_hq::read(&root, &request, true) {
        Wanted::File(path) => {
            send.write_all(&std::fs::read(path)?).await?;
            send.finish()?;
        }
        _ => send.reset(1u32.into())?,
    }
    Ok(())
}

async fn client(args: &ClientArgs) -> Outcome<()> {
    let mut roots = RootCertStore::empty();
    let ca = args.ca.as_ref().ok_or("this client wants --ca")?;
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }
    let mut tls = rustls::ClientConfig::builder_with_provider(provider(args.case))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![corelane_hq::ALPN.to_vec()];
    tls.key_log = Arc::new(KeyLogFile::new());
    tls.enable_early_data = args.case == Case::ZeroRtt;
    let crypto = QuicClientConfig::with_initial(Arc::new(tls), initial_suite()?)?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport()?);

    let first = args.urls.first().ok_or("no URL")?;
    let addr = first.resolve()?;
    let any: SocketAddr = match addr {
        SocketAddr::V4(_) => ([0u8; 4], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    let mut endpoint = Endpoint::client(args.bind.unwrap_or(any))?;
    endpoint.set_default_client_config(config);
    for (n, urls) in args.batches().into_iter().enumerate() {
        let connecting = endpoint.connect(addr, first.server_name())?;
        let connection = if args.case == Case::ZeroRtt && n > 0 {
            match connecting.into_0rtt() {
                Ok((connection, _)) => connection,
                Err(_) => return Err("no 0-RTT keys".into()),
            }
        } else {
            connecting.await?
        };
        let tasks: Vec<_> = urls
            .iter()
            .map(|url| tokio::spawn(get(connection.clone(), url.clone(), args.out.clone())))
            .collect();
        if args.case == Case::KeyUpdate {
            tokio::time::sleep(Duration::from_millis(200)).await;
            connection.force_key_update();
        }
        for task in tasks {
            task.await??;
        }
        connection.close(0u32.into(), b"");
    }
    endpoint.wait_idle().await;
    Ok(())
}

async fn get(connection: Connection, url: Url, out: PathBuf) -> Outcome<()> {
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(&corelane_hq::request(&url)).await?;
    send.finish()?;
    let data = recv.read_to_end(MAX_FILE).await?;
    Ok(corelane_hq::save(&out, &url, &data)?)
}
