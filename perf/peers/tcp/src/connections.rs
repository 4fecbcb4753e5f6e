//! Many connections on tokio: handshakes, and connections that are held idle.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use corelane_bench_peer::tokio::{Connect, connections, stopped};
use corelane_bench_peer::{Client, Fault, Outcome, Resumption, SERVER_NAME, Server, rustls as tls};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub(super) async fn serve(
    server: &Server,
    listener: TcpListener,
    addr: SocketAddr,
) -> Result<(), Fault> {
    let config = tls::server_config(&server.run, &server.certificates)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let nodelay = server.run.profile.is_tuned();
    server.listening(addr);
    let accepting = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                socket.set_nodelay(nodelay)?;
                // A handshake that fails shows on the client's side.
                let mut stream = acceptor.accept(socket).await?;
                stream.read(&mut [0]).await
            });
        }
    });
    stopped(&server.stop).await?;
    accepting.abort();
    Ok(())
}

pub(super) async fn drive(client: Client) -> Result<Outcome, Fault> {
    let resumption = Arc::new(Resumption::default());
    let config = tls::client_config(&client.run, &client.certificates, &resumption)?;
    let connector = Connector {
        tls: TlsConnector::from(Arc::new(config)),
        addr: client.addr,
        nodelay: client.run.profile.is_tuned(),
        is_read: client.run.resume,
    };
    connections(client, connector, &resumption).await
}

#[derive(Clone)]
struct Connector {
    tls: TlsConnector,
    addr: SocketAddr,
    nodelay: bool,
    /// Whether tickets are wanted: they come only to who reads.
    is_read: bool,
}

/// A connection; dropping it closes it.
enum Link {
    Held(Box<TlsStream<TcpStream>>),
    Read(AbortHandle),
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Self::Read(reader) = self {
            reader.abort();
        }
    }
}

impl Connect for Connector {
    type Connection = Arc<Link>;

    async fn connect(&self) -> Result<Arc<Link>, Fault> {
        let socket = TcpStream::connect(self.addr).await?;
        socket.set_nodelay(self.nodelay)?;
        let mut stream = self.tls.connect(SERVER_NAME.try_into()?, socket).await?;
        if !self.is_read {
            return Ok(Arc::new(Link::Held(Box::new(stream))));
        }
        let reader = tokio::spawn(async move { stream.read(&mut [0]).await });
        Ok(Arc::new(Link::Read(reader.abort_handle())))
    }

    fn close(connection: Arc<Link>) {
        drop(connection);
    }

    fn is_open(connection: &Arc<Link>) -> bool {
        let Link::Held(stream) = &**connection else {
            return true;
        };
        let socket = stream.get_ref().0;
        loop {
            // Session tickets may lie there unread; behind them is the end, if it has come.
            match socket.try_read(&mut [0; 1024]) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(e) => return e.kind() == std::io::ErrorKind::WouldBlock,
            }
        }
    }
}
