//! A connection over several paths: a server with two addresses, a client that opens a path from
//! another address of its own and one to the server's second, what both sides hear of it, and the
//! statistics of each path.

use corelane::api::{Connection, Endpoint, PathOptions, SocketOptions, TransportConfig, now};
use std::error::Error;

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

/// Receives until the connection is closed, and tells what happens to its paths.
async fn serve(connection: Connection) -> Outcome {
    while let Ok(mut stream) = connection.accept_uni().await {
        println!("server: {} bytes", stream.read_to_end(1 << 20).await?.len());
    }
    while let Ok(event) = connection.path_event().await {
        println!("server: {event:?}");
    }
    Ok(())
}

async fn run(client: &Endpoint, server: &Endpoint) -> Outcome {
    // Sockets are added, and removed, while endpoints run; `device` binds one to an interface.
    let second = server.add_socket(&SocketOptions::at("127.0.0.9:0".parse()?))?;
    let connection = client.connect(server.local_addr(), "localhost").await?;
    let from = PathOptions::from("127.0.0.2:0".parse()?);
    let path = connection.open_path(from).await?;
    let spare = PathOptions::from("127.0.0.3:0".parse()?).to(second[0]);
    let spare = connection.open_path(spare.backup()).await?;
    for _ in 0..4 {
        send(&connection).await?;
    }
    for path in connection.paths().await? {
        let (ends, s, c) = (path.tuple, path.stats, path.counters);
        println!(
            "path {}: {} -> {}, {:?}",
            path.id, ends.local, ends.remote, path.status
        );
        println!(
            "  RTT {:?} (latest {:?}, least {:?}), {} of {} bytes in flight",
            s.smoothed_rtt, s.latest_rtt, s.min_rtt, s.bytes_in_flight, s.congestion_window
        );
        println!(
            "  sent {} bytes, {} of them again; lost {}, copies {}, reinjected {} packets",
            c.bytes_sent,
            c.bytes_retransmitted,
            c.packets_lost,
            c.packets_duplicated,
            c.packets_reinjected,
        );
        // None where nothing was acknowledged yet.
        let silent = path.since_last_ack(now());
        println!("  failed {} times, last ACK {silent:?} ago", c.failures);
    }
    // What is on its way over a path that is closed arrives by another.
    path.close().await?;
    spare
        .set_status(corelane::api::PathStatus::Available)
        .await?;
    send(&connection).await?;
    connection.close(0, b"done");
    Ok(())
}

fn main() -> Outcome {
    let (server_tls, client_tls) = tls::configs().map_err(|e| e.to_string())?;
    let mut transport = TransportConfig::default();
    // Both sides have to say so; otherwise there is one path.
    transport.max_paths = 4;
    let builder = Endpoint::builder().transport(transport);
    let server = builder.clone().server(server_tls, "127.0.0.1:0".parse()?);
    let server = server.build()?;
    let client = builder.client(client_tls).build()?;

    let listener = server.clone();
    let serving = std::thread::spawn(move || {
        futures_executor::block_on(async {
            while let Some(incoming) = listener.accept().await {
                serve(incoming.accept().await?).await?;
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
