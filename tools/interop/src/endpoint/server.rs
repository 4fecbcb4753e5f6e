//! The server: files of a directory, one for each stream.

use super::{engine, tls};
use corelane::api::{
    Bytes, Connection, Endpoint, EndpointBuilder, Incoming, RecvStream, SendStream,
};
use corelane_hq::{Case, MAX_REQUEST, ServerArgs, Wanted};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;

/// The code of a reset stream whose request names no file.
const NOT_FOUND: u64 = 1;

/// A server whose socket is bound.
pub struct Server {
    endpoint: Endpoint,
    root: Arc<PathBuf>,
    retry: bool,
    second: Option<SocketAddr>,
}

/// An address of `ip` that is free now.
fn spare(ip: IpAddr) -> io::Result<SocketAddr> {
    UdpSocket::bind((ip, 0))?.local_addr()
}

impl Server {
    /// Binds.
    ///
    /// # Errors
    /// A file or the address is no good.
    pub fn bind(args: &ServerArgs) -> Result<Self, String> {
        let tls = tls::server(args)?;
        let mut config = engine(None, args.case);
        let mut second = None;
        if let Some(told) = args
            .preferred
            .filter(|_| args.case == Case::ConnectionMigration)
        {
            // What clients are told leads to a second socket by way of the network.
            let addr = spare(args.listen.ip()).map_err(|e| e.to_string())?;
            config.also.push(addr);
            let transport = Arc::make_mut(&mut config.transport);
            transport.preferred_address.set(told);
            second = Some(addr);
        }
        let endpoint = EndpointBuilder::from_config(config)
            .server(tls, args.listen)
            .build()
            .map_err(|e| e.to_string())?;
        Ok(Self {
            endpoint,
            root: Arc::new(args.root.clone()),
            retry: args.retry,
            second,
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.endpoint.local_addr()
    }

    /// Serves for ever; in a tokio runtime.
    pub async fn run(self) {
        while let Some(incoming) = self.endpoint.accept().await {
            if self.retry && !incoming.address_validated() {
                // Not validated, so that it cannot have been asked before.
                let _ = incoming.retry();
                continue;
            }
            tokio::spawn(connection(incoming, self.root.clone()));
        }
    }
}

/// Binds, says so, and serves for ever; in a tokio runtime.
///
/// # Errors
/// As [`Server::bind`].
pub async fn serve(args: &ServerArgs) -> Result<(), String> {
    let server = Server::bind(args)?;
    if let Some(second) = server.second {
        corelane_hq::announce_also(second);
    }
    corelane_hq::announce(server.addr());
    server.run().await;
    Ok(())
}

async fn connection(incoming: Incoming, root: Arc<PathBuf>) {
    let remote = incoming.remote_address();
    // A file does no harm when it is asked for twice.
    let connection: Connection = match incoming.accept().into_early().await {
        Ok(connection) => connection,
        Err(why) => return eprintln!("{remote}: {why}"),
    };
    while let Ok((send, recv)) = connection.accept_bi().await {
        tokio::spawn(answer(send, recv, root.clone()));
    }
    eprintln!("{remote}: {}", connection.closed().await);
}

/// One request. Errors end the stream, and the client sees that.
async fn answer(mut send: SendStream, mut recv: RecvStream, root: Arc<PathBuf>) {
    let mut request = Vec::new();
    let wanted = loop {
        match recv.read_chunk(MAX_REQUEST).await {
            Ok(Some(chunk)) => request.extend_from_slice(&chunk),
            Ok(None) => break corelane_hq::read(&root, &request, true),
            Err(_) => return,
        }
        match corelane_hq::read(&root, &request, false) {
            Wanted::Incomplete => {}
            wanted => break wanted,
        }
    };
    let data = match wanted {
        Wanted::File(path) => std::fs::read(path).ok(),
        _ => None,
    };
    let Some(data) = data else {
        let _ = send.reset(NOT_FOUND);
        return;
    };
    if send.write_chunk(Bytes::from(data)).await.is_ok() {
        let _ = send.finish();
        // The connection stays as long as a handle of it does.
        let _ = send.stopped().await;
    }
}
