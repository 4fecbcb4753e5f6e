//! The serving side: a task for each connection and each stream, as s2n-quic's users have it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use corelane_bench_peer::streams::{CHUNK, ECHO, FLOOD, SINK};
use corelane_bench_peer::tokio::stopped;
use corelane_bench_peer::{ALPN, Fault, Meter, Server, Work, unix_seconds};
use s2n_quic::Connection;
use s2n_quic::connection::Handle;
use s2n_quic::provider::datagram::default::Receiver;
use s2n_quic::provider::tls::s2n_tls as tls;
use s2n_quic::stream::{BidirectionalStream, ReceiveStream};

use super::{CHUNKS, datagrams, io, limits};

/// Seals tickets; any key does for a server of seconds.
const TICKET_KEY: [u8; 32] = [0x5a; 32];
/// So old is the key: a clock that was read a second later must not find it in the future.
const TICKET_KEY_AGE: u64 = 10;

pub(super) async fn run(server: Server) -> Result<(), Fault> {
    let (run, certificates) = (&server.run, &server.certificates);
    let mut tls = tls::Server::builder()
        .with_certificate(&certificates.leaf[..], &certificates.key[..])?
        .with_application_protocols([ALPN])?;
    if run.resume {
        let since = UNIX_EPOCH + Duration::from_secs(unix_seconds() - TICKET_KEY_AGE);
        tls.config_mut()
            .add_session_ticket_key(b"corelane-perf", &TICKET_KEY, since)?;
    }
    let builder = s2n_quic::Server::builder()
        .with_tls(tls.build()?)?
        .with_io(io(run)?)?
        .with_limits(limits(run)?)?;
    let listener = match run.work {
        Work::Datagram => builder.with_datagram(datagrams(run)?)?.start()?,
        _ => builder.start()?,
    };
    server.listening(listener.local_addr()?);
    let accepting = tokio::spawn(accept(listener, run.work, server.meter));
    stopped(&server.stop).await?;
    accepting.abort();
    Ok(())
}

async fn accept(mut listener: s2n_quic::Server, work: Work, meter: Arc<Meter>) {
    while let Some(connection) = listener.accept().await {
        let meter = meter.clone();
        tokio::spawn(async move {
            if work == Work::Datagram {
                count_datagrams(&connection.handle(), &meter).await;
            } else {
                serve(connection, meter).await;
            }
        });
    }
}

/// Counts until the connection ends.
async fn count_datagrams(connection: &Handle, meter: &Meter) {
    let receive = |receiver: &mut Receiver, cx: &mut Context<'_>| {
        let (mut count, mut bytes) = (0, 0);
        loop {
            match receiver.poll_recv_datagram(cx) {
                Poll::Ready(Ok(datagram)) => {
                    count += 1;
                    bytes += datagram.len() as u64;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(None),
                Poll::Pending if count > 0 => return Poll::Ready(Some((count, bytes))),
                Poll::Pending => return Poll::Pending,
            }
        }
    };
    loop {
        let received = poll_fn(|cx| {
            let received = connection.datagram_mut(|receiver| receive(receiver, cx));
            received.unwrap_or(Poll::Ready(None))
        });
        let Some((count, bytes)) = received.await else {
            return;
        };
        meter.operations.add(count);
        meter.bytes.add(bytes);
    }
}

async fn serve(mut connection: Connection, meter: Arc<Meter>) {
    while let Ok(Some(stream)) = connection.accept_bidirectional_stream().await {
        let meter = meter.clone();
        // Clients break streams off at the end of a run.
        tokio::spawn(async move { serve_stream(stream, &meter).await });
    }
}

async fn serve_stream(stream: BidirectionalStream, meter: &Meter) -> Result<(), Fault> {
    let (mut receive, mut send) = stream.split();
    let Some(first) = receive.receive().await? else {
        return Err("an empty stream".into());
    };
    match first.first() {
        Some(&SINK) => {
            let mut chunks = [const { Bytes::new() }; CHUNKS];
            while take(&mut receive, &mut chunks, meter).await? {}
            Ok(())
        }
        Some(&FLOOD) => {
            let chunk = Bytes::from(vec![0x5a; CHUNK]);
            loop {
                send.send(chunk.clone()).await?;
            }
        }
        Some(&ECHO) => {
            let answer = match receive.receive().await? {
                None => first,
                Some(second) => rest(&mut receive, &[first, second]).await?,
            };
            send.send(answer).await?;
            Ok(send.finish()?)
        }
        _ => Err("no stream begins so".into()),
    }
}

/// What has come, and what comes until the end of the stream.
async fn rest(receive: &mut ReceiveStream, begin: &[Bytes]) -> Result<Bytes, Fault> {
    let mut all = begin.concat();
    while let Some(chunk) = receive.receive().await? {
        all.extend_from_slice(&chunk);
    }
    Ok(all.into())
}

/// Takes what has come and counts it; false at the end of the stream.
pub(super) async fn take(
    receive: &mut ReceiveStream,
    chunks: &mut [Bytes; CHUNKS],
    meter: &Meter,
) -> Result<bool, Fault> {
    let (count, is_open) = receive.receive_vectored(chunks).await?;
    let bytes = chunks.iter_mut().take(count);
    meter
        .bytes
        .add(bytes.map(|c| std::mem::take(c).len() as u64).sum());
    Ok(is_open)
}
