//! The serving side: a task for each connection and each stream, as noq's users have it.

use std::sync::Arc;

use bytes::Bytes;
use corelane_bench_peer::streams::{CHUNK, ECHO, ECHO_MAX, FLOOD, SINK};
use corelane_bench_peer::tokio::stopped;
use corelane_bench_peer::{Fault, Meter, Server, Work, rustls as tls};
use noq::crypto::rustls::QuicServerConfig;
use noq::{Connection, RecvStream, SendStream, ServerConfig, VarInt};

use super::{CHUNKS, endpoint, transport};

pub(super) async fn run(server: Server) -> Result<(), Fault> {
    let crypto = tls::server_config(&server.run, &server.certificates)?;
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(crypto)?));
    config.transport_config(transport(&server.run)?);
    let endpoint = endpoint(&server.run, Some(config))?;
    server.listening(endpoint.local_addr()?);
    let accepting = tokio::spawn(accept(endpoint.clone(), server.run.work, server.meter));
    stopped(&server.stop).await?;
    accepting.abort();
    endpoint.close(VarInt::from_u32(0), b"");
    Ok(())
}

async fn accept(endpoint: noq::Endpoint, work: Work, meter: Arc<Meter>) {
    while let Some(incoming) = endpoint.accept().await {
        let meter = meter.clone();
        tokio::spawn(async move {
            // A handshake that fails shows on the client's side.
            let Ok(connection) = incoming.await else {
                return;
            };
            if work == Work::Datagram {
                count_datagrams(&connection, &meter).await;
            } else {
                serve(connection, meter).await;
            }
        });
    }
}

async fn count_datagrams(connection: &Connection, meter: &Meter) {
    let mut datagrams = [const { Bytes::new() }; CHUNKS];
    while let Ok(count) = connection.read_many_datagrams(&mut datagrams).await {
        meter.operations.add(count as u64);
        let bytes = datagrams.iter_mut().take(count);
        meter
            .bytes
            .add(bytes.map(|d| std::mem::take(d).len() as u64).sum());
    }
}

async fn serve(connection: Connection, meter: Arc<Meter>) {
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
    let Some(first) = recv.read_chunk(usize::MAX).await? else {
        return Err("an empty stream".into());
    };
    match first.first() {
        Some(&SINK) => {
            let mut chunks = [const { Bytes::new() }; CHUNKS];
            while take(&mut recv, &mut chunks, meter).await? {}
            Ok(())
        }
        Some(&FLOOD) => {
            let chunk = Bytes::from(vec![0x5a; CHUNK]);
            loop {
                send.write_chunk(chunk.clone()).await?;
            }
        }
        Some(&ECHO) => {
            let rest = recv.read_to_end(ECHO_MAX).await?;
            let answer = match rest.is_empty() {
                true => first,
                false => [&first[..], &rest].concat().into(),
            };
            send.write_chunk(answer).await?;
            Ok(send.finish()?)
        }
        _ => Err("no stream begins so".into()),
    }
}

/// Chunks of a stream on their way to nowhere.
pub(super) type Chunks = [Bytes; CHUNKS];

/// Takes what has come and counts it; false at the end of the stream.
pub(super) async fn take(
    recv: &mut RecvStream,
    chunks: &mut Chunks,
    meter: &Meter,
) -> Result<bool, Fault> {
    let Some(count) = recv.read_many_chunks(chunks).await? else {
        return Ok(false);
    };
    let bytes = chunks.iter_mut().take(count);
    meter
        .bytes
        .add(bytes.map(|c| std::mem::take(c).len() as u64).sum());
    Ok(true)
}
