//! One UDP socket, two destinations: a client with connections to two servers at once, all from the
//! same port, told apart by connection ID; and one to each server that has no connection ID, told
//! apart by its addresses. Both servers run in this process.

use corelane::api::{Connection, Endpoint, Idle, TransportConfig};
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

mod tls;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Accepts connections and tells each what its address looks like from here.
async fn serve(server: Endpoint) {
    while let Some(incoming) = server.accept().await {
        let server_addr = server.local_addr();
        tokio::spawn(async move {
            let Ok(connection) = incoming.accept().await else {
                return;
            };
            let seen = format!("{server_addr} sees {}", connection.remote_address());
            if let Ok(mut send) = connection.open_uni().await {
                // A client that has gone away wants no answer.
                let _ = send.write_all(seen.as_bytes()).await;
                let _ = send.finish();
            }
            connection.closed().await;
        });
    }
}

async fn hear(connection: &Connection) -> Outcome<String> {
    let mut recv = connection.accept_uni().await?;
    Ok(String::from_utf8(recv.read_to_end(1000).await?.into())?)
}

/// Public for the test that runs it.
#[tokio::main]
pub async fn main() -> Outcome<()> {
    let (server_tls, client_tls) = tls::configs()?;
    let mut servers: Vec<SocketAddr> = Vec::new();
    for address in ["127.0.0.1:0", "127.0.0.2:0"] {
        let server = Endpoint::builder()
            .server(server_tls.clone(), address.parse()?)
            .idle(Idle::Park)
            .build()?;
        servers.push(server.local_addr());
        tokio::spawn(serve(server));
    }

    let client = Endpoint::builder()
        .client(client_tls.clone())
        .idle(Idle::Park)
        .build()?;
    let mut bare = TransportConfig::default();
    bare.zero_length_cid = true;
    let bare = Arc::new(bare);
    let mut connections = Vec::new();
    for server in &servers {
        // Any number of these between the same two addresses,
        for _ in 0..2 {
            connections.push(client.connect(*server, "localhost").await?);
        }
        // and one of these.
        let with =
            || client.connect_with(*server, "localhost", client_tls.clone(), Some(bare.clone()));
        connections.push(with().await?);
        if let Err(why) = with().await {
            println!("a second one: {why}");
        }
    }
    let port = client.local_addr().port();
    for connection in &connections {
        let heard = hear(connection).await?;
        println!("{heard}");
        if !heard.ends_with(&format!(":{port}")) {
            return Err("it came from another socket".into());
        }
    }
    println!(
        "{} connections to {} servers from one socket, port {port}",
        connections.len(),
        servers.len(),
    );
    client.close(0, b"done");
    client.wait_idle().await;
    Ok(())
}
