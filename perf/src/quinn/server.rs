//! The serving side. A stream's first byte decides: [`SINK`] takes everything that follows,
//! [`FLOOD`] sends until the client stops it, [`ECHO`] answers the bytes that came. Datagrams are
//! counted.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream, ServerConfig};
use tokio::sync::oneshot;

use super::{Fault, endpoint};
use crate::meter::Meter;
use crate::program::{Args, Work};

pub(super) const SINK: u8 = b'S';
pub(super) const FLOOD: u8 = b'F';
pub(super) const ECHO: u8 = b'E';

/// What the application writes at a time, bytes.
pub(super) const CHUNK: usize = 64 << 10;
const ECHO_MAX: usize = 1 << 20;
/// Chunks that one call of the application takes.
pub(super) const CHUNKS: usize = 64;

pub(super) async fn run(
    args: &Args,
    config: ServerConfig,
    meter: Arc<Meter>,
    tell_addr: mpsc::Sender<SocketAddr>,
    mut stopped: oneshot::Receiver<()>,
) -> Result<(), Fault> {
    let endpoint = endpoint(args, Some(config))?;
    tell_addr.send(endpoint.local_addr()?)?;
    let takes_datagrams = args.work == Work::Datagram;
    loop {
        tokio::select! {
            _ = &mut stopped => return Ok(()),
            incoming = endpoint.accept() => {
                let Some(incoming) = incoming else { return Ok(()) };
                let meter = meter.clone();
                tokio::spawn(async move {
                    // A handshake that fails shows on the client's side.
                    if let Ok(connection) = incoming.await {
                        serve(connection, meter, takes_datagrams).await;
                    }
                });
            }
        }
    }
}

async fn serve(connection: Connection, meter: Arc<Meter>, takes_datagrams: bool) {
    if takes_datagrams {
        let (of_datagrams, counts) = (connection.clone(), meter.clone());
        tokio::spawn(async move {
            while let Ok(datagram) = of_datagrams.read_datagram().await {
                counts.operations.add(1);
                counts.bytes.add(datagram.len() as u64);
            }
        });
    }
    while let Ok((send, recv)) = connection.accept_bi().await {
        let meter = meter.clone();
        // Clients break streams off at the end of a run.
        tokio::spawn(async move { serve_stream(send, recv, &meter).await });
    }
}

async fn serve_stream(
    mut send: SendStream,
    mut recv: RecvStream,
    meter: &Meter,
) -> Result<(), Fault> {
    let mut kind = [0];
    recv.read_exact(&mut kind).await?;
    match kind[0] {
        SINK => {
            let mut chunks = [const { Bytes::new() }; CHUNKS];
            while take(&mut recv, &mut chunks, meter).await? {}
        }
        FLOOD => {
            let chunk = Bytes::from(vec![0x5a; CHUNK]);
            loop {
                send.write_chunk(chunk.clone()).await?;
            }
        }
        ECHO => {
            let request = recv.read_to_end(ECHO_MAX).await?;
            let answer = [&kind[..], &request].concat();
            send.write_all(&answer).await?;
            send.finish()?;
        }
        other => return Err(format!("no stream begins with {other}").into()),
    }
    Ok(())
}

/// Takes what has come and counts it; false at the end of the stream.
pub(super) async fn take(
    recv: &mut RecvStream,
    chunks: &mut [Bytes; CHUNKS],
    meter: &Meter,
) -> Result<bool, Fault> {
    let Some(count) = recv.read_chunks(chunks).await? else {
        return Ok(false);
    };
    let bytes = chunks.iter_mut().take(count);
    meter
        .bytes
        .add(bytes.map(|c| std::mem::take(c).len() as u64).sum());
    Ok(true)
}
