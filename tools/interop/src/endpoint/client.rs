//! The client: fetches files over one or more connections, as the case says.

use super::{engine, tls};
use corelane::api::{Connection, Endpoint, EndpointBuilder};
use corelane_hq::{Case, ClientArgs, Url};
use std::net::SocketAddr;
use std::time::Duration;

/// What a client did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Files that are complete and saved.
    pub files: usize,
    /// Connections that were used.
    pub connections: usize,
    /// Of those, resumed ones.
    pub resumed: usize,
}

/// Fetches everything; in a tokio runtime.
///
/// # Errors
/// The first thing that failed, in a sentence.
pub async fn fetch(args: &ClientArgs) -> Result<Fetched, String> {
    let Some(first) = args.urls.first() else {
        return Ok(Fetched::default());
    };
    let addr = first.resolve()?;
    let any: SocketAddr = match addr {
        SocketAddr::V4(_) => ([0u8; 4], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    let endpoint = EndpointBuilder::from_config(engine(Some(args.bind.unwrap_or(any)), args.case))
        .client(tls::client(args)?)
        .build()
        .map_err(|e| e.to_string())?;
    let mut done = Fetched::default();
    for urls in args.batches() {
        batch(&endpoint, addr, urls, args, &mut done).await?;
    }
    endpoint.wait_idle().await;
    if let Some(qlog) = super::qlog() {
        qlog.flush();
    }
    Ok(done)
}

async fn batch(
    endpoint: &Endpoint,
    addr: SocketAddr,
    urls: &[Url],
    args: &ClientArgs,
    done: &mut Fetched,
) -> Result<(), String> {
    let began = crate::clock::now();
    let mut connecting = endpoint.connect(addr, urls[0].server_name());
    if args.case == Case::ZeroRtt {
        connecting = connecting.into_early();
    }
    let connection = connecting.await.map_err(|e| format!("connecting: {e}"))?;
    done.connections += 1;
    let tasks: Vec<_> = urls
        .iter()
        .map(|url| tokio::spawn(get(connection.clone(), url.clone(), args.out.clone())))
        .collect();
    if args.case == Case::KeyUpdate {
        update_keys(&connection).await?;
    }
    for task in tasks {
        task.await.map_err(|e| e.to_string())??;
        done.files += 1;
    }
    done.resumed += usize::from(connection.is_resumed());
    eprintln!("{} files in {:?}", urls.len(), began.elapsed());
    if let Ok(stats) = connection.stats().await {
        eprintln!("{stats:?}");
    }
    connection.close(0, b"");
    Ok(())
}

/// Moves to new keys as soon as the handshake is confirmed.
async fn update_keys(connection: &Connection) -> Result<(), String> {
    loop {
        match connection.update_keys().await {
            Ok(true) => return Ok(()),
            Ok(false) => tokio::time::sleep(Duration::from_millis(2)).await,
            Err(why) => return Err(format!("updating keys: {why}")),
        }
    }
}

async fn get(connection: Connection, url: Url, out: std::path::PathBuf) -> Result<(), String> {
    let failed = |what: &str, why: &dyn std::fmt::Display| format!("{url}: {what}: {why}");
    let (mut send, mut recv) = connection
        .open_bi()
        .await
        .map_err(|e| failed("opening a stream", &e))?;
    send.write_all(&corelane_hq::request(&url))
        .await
        .map_err(|e| failed("asking", &e))?;
    send.finish().map_err(|e| failed("asking", &e))?;
    let data = recv
        .read_to_end(corelane_hq::MAX_FILE)
        .await
        .map_err(|e| failed("reading", &e))?;
    corelane_hq::save(&out, &url, &data).map_err(|e| failed("saving", &e))
}
