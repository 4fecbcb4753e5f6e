//! s2n-quic, with rustls, as an endpoint of the interop runner: hq-interop client and server.

use bytes::Bytes;
use corelane_hq::{Args, Case, ClientArgs, MAX_FILE, MAX_REQUEST, ServerArgs, Url, Wanted};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CipherSuite, KeyLogFile, RootCertStore};
use s2n_quic::client::Connect;
use s2n_quic::connection::Handle;
use s2n_quic::provider::endpoint_limits::{ConnectionAttempt, Limiter, Outcome as Decision};
use s2n_quic::provider::io::tokio::Provider as Io;
use s2n_quic::provider::limits::Limits;
use s2n_quic::provider::tls::rustls as tls;
use s2n_quic::stream::BidirectionalStream;
use s2n_quic::{Client, Connection, Server};
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
    let supported = match &args {
        // It has neither 0-RTT nor version 2 nor a preferred address to offer.
        Args::Server(a) => !matches!(a.case, Case::ZeroRtt | Case::V2 | Case::ConnectionMigration),
        // Nor does it move to one or update keys when asked to.
        Args::Client(a) => !matches!(
            a.case,
            Case::ZeroRtt | Case::V2 | Case::ConnectionMigration | Case::KeyUpdate
        ),
        Args::Help => true,
    };
    if !supported {
        return corelane_hq::UNSUPPORTED.into();
    }
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
    let outcome = runtime.block_on(async {
        match &args {
            Args::Server(a) => server(a).await,
            Args::Client(a) => client(a).await,
            Args::Help => {
                println!("{}", corelane_hq::USAGE);
                Ok(())
            }
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn limits() -> Outcome<Limits> {
    let patience = Duration::from_secs(120);
    Ok(Limits::new()
        .with_max_idle_timeout(patience)?
        .with_max_handshake_duration(patience)?
        .with_max_open_remote_bidirectional_streams(100)?
        .with_data_window(2 << 20)?
        .with_bidirectional_local_data_window(1 << 20)?
        .with_bidirectional_remote_data_window(1 << 20)?)
}

fn provider(case: Case) -> Arc<rustls::crypto::CryptoProvider> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    if case == Case::ChaCha20 {
        let chacha = CipherSuite::TLS13_CHACHA20_POLY1305_SHA256;
        provider.cipher_suites.retain(|s| s.suite() == chacha);
    }
    Arc::new(provider)
}

/// Everybody proves their address.
struct Suspicious;

impl Limiter for Suspicious {
    fn on_connection_attempt(&mut self, _: &ConnectionAttempt<'_>) -> Decision {
        Decision::retry()
    }
}

async fn server(args: &ServerArgs) -> Outcome<()> {
    let chain = CertificateDer::pem_file_iter(&args.cert)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&args.key)?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider(Case::Transfer))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![corelane_hq::ALPN.to_vec()];
    config.key_log = Arc::new(KeyLogFile::new());
    let io = Io::builder().with_receive_address(args.listen)?.build()?;
    let builder = Server::builder()
        .with_tls(tls::Server::from(config))?
        .with_io(io)?
        .with_limits(limits()?)?;
    let mut server = if args.retry {
        builder.with_endpoint_limits(Suspicious)?.start()?
    } else {
        builder.start()?
    };
    corelane_hq::announce(server.local_addr()?);
    let root = Arc::new(args.root.clone());
    while let Some(connection) = server.accept().await {
        tokio::spawn(serve(connection, root.clone()));
    }
    Ok(())
}

async fn serve(mut connection: Connection, root: Arc<PathBuf>) {
    loop {
        match connection.accept_bidirectional_stream().await {
            Ok(Some(stream)) => tokio::spawn(answer(stream, root.clone())),
            Ok(None) => return,
            Err(why) => return eprintln!("{why}"),
        };
    }
}

async fn answer(mut stream: BidirectionalStream, root: Arc<PathBuf>) -> Outcome<()> {
    let request = read(&mut stream, MAX_REQUEST).await?;
    match corelane_hq::read(&root, &request, true) {
        Wanted::File(path) => {
            stream.send(Bytes::from(std::fs::read(path)?)).await?;
            stream.close().await?;
        }
        _ => stream.reset(1u32.into())?,
    }
    Ok(())
}

async fn read(stream: &mut BidirectionalStream, most: usize) -> Outcome<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(chunk) = stream.receive().await? {
        all.extend_from_slice(&chunk);
        if all.len() > most {
            return Err("too long".into());
        }
    }
    Ok(all)
}

async fn client(args: &ClientArgs) -> Outcome<()> {
    let mut roots = RootCertStore::empty();
    let ca = args.ca.as_ref().ok_or("this client wants --ca")?;
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }
    let mut config = rustls::ClientConfig::builder_with_provider(provider(args.case))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![corelane_hq::ALPN.to_vec()];
    config.key_log = Arc::new(KeyLogFile::new());

    let first = args.urls.first().ok_or("no URL")?;
    let addr = first.resolve()?;
    let any: SocketAddr = match addr {
        SocketAddr::V4(_) => ([0u8; 4], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    let io = Io::builder()
        .with_receive_address(args.bind.unwrap_or(any))?
        .build()?;
    let client = Client::builder()
        .with_tls(tls::Client::from(config))?
        .with_io(io)?
        .with_limits(limits()?)?
        .start()?;
    for urls in args.batches() {
        let connect = Connect::new(addr).with_server_name(first.server_name());
        let connection = client.connect(connect).await?;
        let tasks: Vec<_> = urls
            .iter()
            .map(|url| tokio::spawn(get(connection.handle(), url.clone(), args.out.clone())))
            .collect();
        for task in tasks {
            task.await??;
        }
        connection.close(0u32.into());
    }
    // Closing does not wait for anything to be sent.
    tokio::time::sleep(Duration::from_millis(200)).await;
    Ok(())
}

async fn get(mut connection: Handle, url: Url, out: PathBuf) -> Outcome<()> {
    let mut stream = connection.open_bidirectional_stream().await?;
    stream.send(Bytes::from(corelane_hq::request(&url))).await?;
    stream.finish()?;
    let data = read(&mut stream, MAX_FILE).await?;
    Ok(corelane_hq::save(&out, &url, &data)?)
}
