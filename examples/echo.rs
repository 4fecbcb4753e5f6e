//! Depth 3, the async face: a server that echoes streams, and a client of it, in one process. Any
//! executor will do; this one is a thread that polls.

use corelane::api::{Connection, Endpoint};
use std::error::Error;

mod tls;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

async fn serve(connection: Connection) -> Outcome {
    loop {
        let (mut send, mut recv) = connection.accept_bi().await?;
        while let Some(chunk) = recv.read_chunk(usize::MAX).await? {
            send.write_chunk(chunk).await?;
        }
        send.finish()?;
    }
}

async fn ask(endpoint: &Endpoint, server: &Endpoint) -> Outcome {
    let connection = endpoint.connect(server.local_addr(), "localhost").await?;
    for word in ["hello", "from", "a", "stream", "each"] {
        let (mut send, mut recv) = connection.open_bi().await?;
        send.write_all(word.as_bytes()).await?;
        send.finish()?;
        println!(
            "{}",
            String::from_utf8_lossy(&recv.read_to_end(1000).await?)
        );
    }
    connection.close(0, b"done");
    Ok(())
}

fn main() -> Outcome {
    let (server_tls, client_tls) = tls::configs().map_err(|e| e.to_string())?;
    let server = Endpoint::server(server_tls, "127.0.0.1:0".parse()?)?;
    let client = Endpoint::client(client_tls)?;

    let listener = server.clone();
    let serving = std::thread::spawn(move || {
        futures_executor::block_on(async {
            while let Some(incoming) = listener.accept().await {
                let connection = incoming.accept().await?;
                // Here one after the other; a task for each where there is a spawner.
                println!("{}", serve(connection).await.err().ok_or("no end")?);
            }
            Outcome::Ok(())
        })
    });
    futures_executor::block_on(async {
        ask(&client, &server).await?;
        client.wait_idle().await;
        server.close(0, b"");
        Outcome::Ok(())
    })?;
    serving.join().map_err(|_| "the server panicked")?
}
