//! Sockets of one's own choice for the paths of a connection: added and removed while it runs, and
//! bound to one network interface where the system permits that. Each packet of a path leaves from
//! that path's address and interface, whatever the routes say. All of it is loopback here; between
//! hosts there would be the names and the addresses of two networks.

use corelane::api::{Connection, Endpoint, PathOptions, SocketOptions, TransportConfig};
use std::error::Error;
use std::net::SocketAddr;

mod tls;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// Sends a megabyte.
async fn send(connection: &Connection) -> Outcome {
    let mut stream = connection.open_uni().await?;
    stream.write_all(&[7; 1 << 20]).await?;
    stream.finish()?;
    stream.stopped().await?;
    Ok(())
}

/// A socket on that interface, or on any where the system does not permit that.
fn socket_on(client: &Endpoint, at: SocketAddr, device: &str) -> Outcome<SocketAddr> {
    let options = SocketOptions::at(at);
    let bound = client.add_socket(&options.clone().device(device));
    let added = bound.or_else(|error| {
        println!("the routes decide instead: {error}");
        client.add_socket(&options)
    })?;
    // One for each shard, of which there is one here.
    Ok(*added.first().ok_or("there is a shard")?)
}

async fn run(client: &Endpoint, server: &Endpoint) -> Outcome {
    let connection = client.connect(server.local_addr(), "localhost").await?;
    let mut sockets = Vec::new();
    for (n, device) in [(2, "lo"), (3, "lo")] {
        let at = SocketAddr::from(([127, 0, 0, n], 0));
        let local = socket_on(client, at, device)?;
        let path = connection.open_path(PathOptions::from(local)).await?;
        println!("path {} from {local} by {device}", path.id());
        sockets.push(local);
    }
    send(&connection).await?;
    for path in connection.paths().await? {
        let (c, local) = (path.counters, path.tuple.local);
        println!("path {} from {local}: {} bytes", path.id, c.bytes_sent);
    }
    // With a socket go its paths, and nothing else.
    for local in sockets {
        client.remove_socket(local);
    }
    send(&connection).await?;
    connection.close(0, b"done");
    Ok(())
}

fn main() -> Outcome {
    let (server_tls, client_tls) = tls::configs().map_err(|e| e.to_string())?;
    let mut transport = TransportConfig::default();
    transport.max_paths = 4;
    let builder = Endpoint::builder().transport(transport).shards(1);
    let server = builder.clone().server(server_tls, "127.0.0.1:0".parse()?);
    let server = server.build()?;
    let client = builder.client(client_tls).build()?;

    let listener = server.clone();
    let serving = std::thread::spawn(move || {
        futures_executor::block_on(async {
            while let Some(incoming) = listener.accept().await {
                let connection = incoming.accept().await?;
                while let Ok(mut stream) = connection.accept_uni().await {
                    stream.read_to_end(1 << 20).await?;
                }
            }
            Outcome::Ok(())
        })
    });
    futures_executor::block_on(async {
        run(&client, &server).await?;
        client.wait_idle().await;
        server.close(0, b"");
        Outcome::Ok(())
    })?;
    serving.join().map_err(|_| "the server panicked")?
}
