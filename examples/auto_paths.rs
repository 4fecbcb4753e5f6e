//! A client that opens its paths by itself, one from each address of this host that reaches the
//! server, and follows addresses as they come and go. Here the addresses are named, as loopback has
//! but one; without that the kernel tells of them, and a laptop that joins a second network has a
//! second path a moment later.

use corelane::api::{Connection, Endpoint, PathEvent, PathState, TransportConfig};
use std::error::Error;
use std::net::IpAddr;

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

/// Waits until a path has come up and another has gone, as often as is said.
async fn wait_for(connection: &Connection, mut up: usize, mut gone: usize) -> Outcome {
    while up + gone > 0 {
        let event = connection.path_event().await?;
        println!("client: {event:?}");
        match event {
            PathEvent::Validated(_) => up = up.saturating_sub(1),
            PathEvent::Abandoned { .. } => gone = gone.saturating_sub(1),
            _ => {}
        }
    }
    send(connection).await?;
    for path in connection.paths().await? {
        if path.state == PathState::Open {
            let sent = path.counters.bytes_sent;
            println!("path {} from {}: {sent} bytes", path.id, path.tuple.local);
        }
    }
    Ok(())
}

async fn run(client: &Endpoint, server: &Endpoint) -> Outcome {
    let ip = |last| IpAddr::from([127, 0, 0, last]);
    // Without this line: what the kernel says.
    client.set_local_addresses(Some(&[ip(2), ip(3)]));
    let connection = client.connect(server.local_addr(), "localhost").await?;
    wait_for(&connection, 2, 0).await?;
    // One network is left, another joined.
    client.set_local_addresses(Some(&[ip(3), ip(4)]));
    wait_for(&connection, 1, 1).await?;
    connection.close(0, b"done");
    Ok(())
}

fn main() -> Outcome {
    let (server_tls, client_tls) = tls::configs().map_err(|e| e.to_string())?;
    let mut transport = TransportConfig::default();
    transport.max_paths = 4;
    // How many a client wants; a server has no use for it.
    transport.multipath.auto_paths = Some(4);
    let builder = Endpoint::builder().transport(transport);
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
