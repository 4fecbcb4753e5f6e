//! quinn as server and as client of the file exchange of `files`: an implementation of QUIC that
//! shares no code with this one.
//!
//! Both run in threads of their own and look synchronous from outside. The server stops when it is
//! dropped; whatever hangs ends by the idle timeout of the connection.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, ServerConfig, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use super::certs::{Identity, client_config};
use super::files::{ALPN, FILE_MAX, File, Hash, NOT_FOUND, REQUEST_MAX, Request, hash};

/// Anything that goes wrong between the peers, as text for a test's failure.
pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// A quinn server on the loopback address.
pub struct Server {
    addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server that has `files`, and takes whatever is put.
    pub fn start(identity: &Identity, files: &[File]) -> Result<Self> {
        // quinn takes early data when TLS does.
        let mut tls = identity.server_config(&[ALPN]);
        tls.max_early_data_size = u32::MAX;
        let tls = QuicServerConfig::try_from(tls)?;
        let config = ServerConfig::with_crypto(Arc::new(tls));
        let files: Arc<[File]> = files.into();
        let runtime = runtime()?;
        let endpoint = {
            let _context = runtime.enter();
            Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into())?
        };
        let addr = endpoint.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("quinn-server".into())
            .spawn(move || runtime.block_on(serve(endpoint, files, stopped)))?;
        Ok(Self {
            addr,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(JoinHandle::join);
        // A second panic while one unwinds would hide the first.
        if let (Some(Err(_)), false) = (ended, std::thread::panicking()) {
            panic!("the quinn server panicked");
        }
    }
}

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

async fn serve(endpoint: Endpoint, files: Arc<[File]>, mut stopped: oneshot::Receiver<()>) {
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => {
                    let files = files.clone();
                    tokio::spawn(async move {
                        // A handshake that fails shows on the other side.
                        if let Ok(connecting) = incoming.accept()
                            && let Ok((connection, _)) = connecting.into_0rtt()
                        {
                            serve_connection(connection, files).await;
                        }
                    });
                }
                None => break,
            },
        }
    }
    endpoint.close(VarInt::from_u32(0), b"");
}

async fn serve_connection(connection: Connection, files: Arc<[File]>) {
    while let Ok((send, recv)) = connection.accept_bi().await {
        let files = files.clone();
        // A stream that breaks off takes its answer with it, and nothing else.
        tokio::spawn(async move { answer(send, recv, &files).await });
    }
}

async fn answer(mut send: SendStream, mut recv: RecvStream, files: &[File]) -> Result<()> {
    let stream = recv.read_to_end(REQUEST_MAX + FILE_MAX).await?;
    let Some(bytes) = Request::parse(&stream).and_then(|request| request.answer(files)) else {
        send.reset(VarInt::from_u32(NOT_FOUND))?;
        return Ok(());
    };
    send.write_all(&bytes).await?;
    send.finish()?;
    Ok(())
}

/// Fetches every one of `names` over one connection, all streams at once. The hashes are of what
/// arrived, in the order of the names.
pub fn fetch_all(
    addr: SocketAddr,
    server_name: &str,
    ca: &CertificateDer<'static>,
    names: &[&str],
) -> Result<Vec<Hash>> {
    let requests = names.iter().map(|name| Request::Get(name).to_bytes());
    let answers = exchange(addr, server_name, ca, requests.collect())?;
    Ok(answers.iter().map(|bytes| hash(bytes)).collect())
}

/// Puts every one of `files` over one connection, all streams at once. The hashes are those that
/// the server answers, in the order of the files.
pub fn put_all(
    addr: SocketAddr,
    server_name: &str,
    ca: &CertificateDer<'static>,
    files: &[File],
) -> Result<Vec<Hash>> {
    let requests = files
        .iter()
        .map(|file| Request::Put(&file.name, &file.contents()).to_bytes());
    let answers = exchange(addr, server_name, ca, requests.collect())?;
    let hashes = answers.into_iter().map(|bytes| Ok(bytes[..].try_into()?));
    hashes.collect()
}

/// Sends every request on a stream of its own and returns the answers in the same order.
fn exchange(
    addr: SocketAddr,
    server_name: &str,
    ca: &CertificateDer<'static>,
    requests: Vec<Vec<u8>>,
) -> Result<Vec<Vec<u8>>> {
    let tls = QuicClientConfig::try_from(client_config(ca, &[ALPN]))?;
    let runtime = runtime()?;
    runtime.block_on(async {
        let mut endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
        endpoint.set_default_client_config(ClientConfig::new(Arc::new(tls)));
        let connection = endpoint.connect(addr, server_name)?.await?;
        let mut streams = Vec::new();
        for request in requests {
            let connection = connection.clone();
            streams.push(tokio::spawn(
                async move { ask(&connection, &request).await },
            ));
        }
        let mut answers = Vec::new();
        for stream in streams {
            answers.push(stream.await??);
        }
        connection.close(VarInt::from_u32(0), b"");
        endpoint.wait_idle().await;
        Ok(answers)
    })
}

async fn ask(connection: &Connection, request: &[u8]) -> Result<Vec<u8>> {
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(request).await?;
    send.finish()?;
    Ok(recv.read_to_end(FILE_MAX).await?)
}

/// Fetches `name` over a connection, then again as early data of a second one. Returns the hashes,
/// and whether the server took the early data.
pub fn fetch_early(
    addr: SocketAddr,
    server_name: &str,
    ca: &CertificateDer<'static>,
    name: &str,
) -> Result<(Hash, Hash, bool)> {
    let mut tls = client_config(ca, &[ALPN]);
    tls.enable_early_data = true;
    let tls = QuicClientConfig::try_from(tls)?;
    let runtime = runtime()?;
    runtime.block_on(async {
        let mut endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
        endpoint.set_default_client_config(ClientConfig::new(Arc::new(tls)));
        let request = Request::Get(name).to_bytes();
        let connection = endpoint.connect(addr, server_name)?.await?;
        let first = ask(&connection, &request).await?;
        connection.close(VarInt::from_u32(0), b"");
        let connecting = endpoint.connect(addr, server_name)?;
        let early = connecting.into_0rtt();
        let (connection, accepted) = early.map_err(|_| "there is no session to resume")?;
        let second = ask(&connection, &request).await?;
        let accepted = accepted.await;
        connection.close(VarInt::from_u32(0), b"");
        endpoint.wait_idle().await;
        Ok((hash(&first), hash(&second), accepted))
    })
}
