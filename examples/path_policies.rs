//! Which path a packet takes, what is sent on two, and what is sent again on another: each
//! scheduler in turn, then copies of a chosen stream, then reinjection with a target of one's own.

use corelane::api::{
    Connection, DuplicationConfig, Endpoint, PathId, PathOptions, ReinjectionConfig,
    SchedulerContext, SchedulerKind, TargetSelector, TransportConfig,
};
use std::error::Error;
use std::time::Duration;

mod tls;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// Sends again on the first path, whatever path it was that failed.
struct Home;

impl TargetSelector for Home {
    fn target(&mut self, _: &SchedulerContext<'_>, original: PathId) -> Option<PathId> {
        // None leaves the choice to the configuration.
        (original != PathId(0)).then_some(PathId(0))
    }
}

/// Sends so many bytes; with `copied` on both paths, if the connection copies what is chosen.
async fn send(connection: &Connection, bytes: usize, copied: bool) -> Outcome {
    let mut stream = connection.open_uni().await?;
    if copied {
        connection.duplicate_stream(stream.id(), true).await?;
    }
    // What comes later is of no use: its tail is sent on another path in time.
    let within = Some(Duration::from_secs(1));
    connection.set_stream_deadline(stream.id(), within).await?;
    stream.write_all(&vec![7; bytes]).await?;
    stream.finish()?;
    stream.stopped().await?;
    Ok(())
}

async fn show(what: &str, connection: &Connection) -> Outcome {
    for path in connection.paths().await? {
        let c = path.counters;
        println!(
            "{what}: path {} sent {} bytes, copies {}, again {}",
            path.id, c.bytes_sent, c.bytes_duplicated, c.bytes_reinjected,
        );
    }
    Ok(())
}

async fn run(client: &Endpoint, server: &Endpoint, what: &str) -> Outcome {
    let connection = client.connect(server.local_addr(), "localhost").await?;
    let path = PathOptions::from("127.0.0.2:0".parse()?);
    connection.open_path(path).await?;
    send(&connection, 4 << 20, false).await?;
    show(what, &connection).await?;
    if what == "ecf" {
        // Off by default; a budget bounds what copies add.
        let copies = DuplicationConfig {
            permille: 1000,
            burst: 1 << 20,
            ..DuplicationConfig::default()
        };
        connection.set_duplication(Some(copies)).await?;
        let again = ReinjectionConfig {
            delay: Some(Duration::from_millis(20)),
            ..ReinjectionConfig::default()
        };
        let home: Box<dyn TargetSelector> = Box::new(Home);
        connection.set_reinjection(Some(again), Some(home)).await?;
        send(&connection, 100_000, true).await?;
        show("with copies", &connection).await?;
        println!("{:?}", connection.copy_stats().await?);
    }
    connection.close(0, b"done");
    Ok(())
}

fn main() -> Outcome {
    let kinds = [
        "ecf",
        "min-rtt:0.5",
        "low-latency",
        "round-robin",
        "blest",
        "redundant",
    ];
    for what in kinds.into_iter().chain(["weighted:0=3,1=1", "backup"]) {
        let (server_tls, client_tls) = tls::configs().map_err(|e| e.to_string())?;
        let mut transport = TransportConfig::default();
        transport.max_paths = 2;
        transport.multipath.scheduler = what.parse::<SchedulerKind>()?;
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
                        stream.read_to_end(8 << 20).await?;
                    }
                }
                Outcome::Ok(())
            })
        });
        futures_executor::block_on(async {
            run(&client, &server, what).await?;
            client.wait_idle().await;
            server.close(0, b"");
            Outcome::Ok(())
        })?;
        serving.join().map_err(|_| "the server panicked")??;
    }
    Ok(())
}
