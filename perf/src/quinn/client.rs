//! The side that drives: as many workers at a time as the settings say, each in a loop until the
//! meter stops it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use bytes::Bytes;
use quinn::{Connection, Endpoint, VarInt};
use rustls::pki_types::CertificateDer;

use super::server::{CHUNK, CHUNKS, ECHO, FLOOD, SINK, take};
use super::{Fault, client_config, open};
use crate::clock::now;
use crate::meter::{Latency, Meter, new_latency};
use crate::program::{Args, Direction, Work};
use crate::tls::{SERVER_NAME, Sessions};

/// What every worker has.
struct Worker {
    endpoint: Endpoint,
    connection: Connection,
    addr: SocketAddr,
    meter: Arc<Meter>,
    args: Args,
    authority: CertificateDer<'static>,
    /// Full handshakes where sessions are resumed.
    full: Arc<AtomicU64>,
}

pub(super) async fn run(
    args: &Args,
    endpoint: Endpoint,
    authority: CertificateDer<'static>,
    meter: Arc<Meter>,
    addr: SocketAddr,
    ready: mpsc::Sender<()>,
) -> Result<Option<Latency>, Fault> {
    let connection = endpoint.connect(addr, SERVER_NAME)?.await?;
    ready.send(())?;
    // An open loop has one worker, which begins requests as they are due.
    let parallel = args.rate.map_or(args.streams, |_| 1);
    let full = Arc::new(AtomicU64::new(0));
    let mut workers = Vec::new();
    for _ in 0..parallel {
        let worker = Worker {
            endpoint: endpoint.clone(),
            connection: connection.clone(),
            addr,
            meter: meter.clone(),
            args: args.clone(),
            authority: authority.clone(),
            full: full.clone(),
        };
        workers.push(tokio::spawn(async move { worker.run().await }));
    }
    let mut all: Option<Latency> = None;
    for worker in workers {
        let latency = worker.await??;
        match (&mut all, latency) {
            (Some(all), Some(latency)) => all.add(latency)?,
            (all, latency) => *all = latency,
        }
    }
    connection.close(VarInt::from_u32(0), b"");
    // Each worker's first connection has nothing to resume.
    match full.load(Relaxed).saturating_sub(u64::from(parallel)) {
        0 => Ok(all),
        n => Err(format!("{n} handshakes resumed nothing").into()),
    }
}

/// Sends a request on a stream of its own and takes its answer.
pub(super) async fn request(connection: &Connection, request: &[u8]) -> Result<(), Fault> {
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(request).await?;
    send.finish()?;
    let answer = recv.read_to_end(request.len()).await?;
    if answer.len() != request.len() {
        return Err(format!("an answer of {} bytes", answer.len()).into());
    }
    Ok(())
}

/// Counts what began, or was due, at `begin`.
pub(super) fn count(meter: &Meter, latency: &mut Latency, begin: Instant) {
    meter.operations.add(1);
    if meter.is_measuring() {
        let nanos = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        latency.saturating_record(nanos.max(1));
    }
}

impl Worker {
    async fn run(&self) -> Result<Option<Latency>, Fault> {
        match (self.args.work, self.args.direction) {
            (Work::Bulk, Direction::Up) => self.up().await.map(|()| None),
            (Work::Bulk, Direction::Down) => self.down().await.map(|()| None),
            (Work::Datagram, _) => self.datagrams().await.map(|()| None),
            (Work::Rr, _) => self.requests().await.map(Some),
            (Work::Handshake, _) if self.args.resume => self.resumed().await.map(Some),
            (Work::Handshake, _) => self.handshakes().await.map(Some),
            (Work::Idle, _) => Err("idle connections have a process each side".into()),
        }
    }

    async fn up(&self) -> Result<(), Fault> {
        let (mut send, _recv) = self.connection.open_bi().await?;
        send.write_all(&[SINK]).await?;
        let chunk = Bytes::from(vec![0x5a; CHUNK]);
        while !self.meter.is_stopped() {
            send.write_chunk(chunk.clone()).await?;
        }
        Ok(send.reset(VarInt::from_u32(0))?)
    }

    async fn down(&self) -> Result<(), Fault> {
        let (mut send, mut recv) = self.connection.open_bi().await?;
        send.write_all(&[FLOOD]).await?;
        send.finish()?;
        let mut chunks = [const { Bytes::new() }; CHUNKS];
        while !self.meter.is_stopped() {
            if !take(&mut recv, &mut chunks, &self.meter).await? {
                return Err("the server ended a stream".into());
            }
        }
        Ok(recv.stop(VarInt::from_u32(0))?)
    }

    async fn requests(&self) -> Result<Latency, Fault> {
        let mut bytes = vec![0x5a; self.args.size.max(1) as usize];
        bytes[0] = ECHO;
        if let Some(rate) = self.args.rate {
            return open::run(&self.connection, &self.meter, bytes, rate).await;
        }
        let mut latency = new_latency();
        while !self.meter.is_stopped() {
            let begin = now();
            request(&self.connection, &bytes).await?;
            count(&self.meter, &mut latency, begin);
        }
        Ok(latency)
    }

    async fn handshakes(&self) -> Result<Latency, Fault> {
        let mut latency = new_latency();
        while !self.meter.is_stopped() {
            let begin = now();
            let connection = self.endpoint.connect(self.addr, SERVER_NAME)?.await?;
            count(&self.meter, &mut latency, begin);
            connection.close(VarInt::from_u32(0), b"");
        }
        Ok(latency)
    }

    /// A connection stays until it has brought the ticket of the next one.
    async fn resumed(&self) -> Result<Latency, Fault> {
        let sessions = Sessions::new(self.full.clone());
        let config = client_config(&self.args, self.authority.clone(), Some(&sessions))?;
        let mut latency = new_latency();
        let mut has_ticket = false;
        while !self.meter.is_stopped() {
            let begin = now();
            let connecting = self
                .endpoint
                .connect_with(config.clone(), self.addr, SERVER_NAME)?;
            let connection = connecting.await?;
            if has_ticket {
                count(&self.meter, &mut latency, begin);
            }
            tokio::select! {
                () = sessions.ticket() => has_ticket = true,
                why = connection.closed() => return Err(why.into()),
            }
            connection.close(VarInt::from_u32(0), b"");
        }
        Ok(latency)
    }

    /// Sent datagrams count as failed; what arrives is taken off at the end.
    async fn datagrams(&self) -> Result<(), Fault> {
        let datagram = Bytes::from(vec![0x5a; self.args.size as usize]);
        while !self.meter.is_stopped() {
            self.connection.send_datagram_wait(datagram.clone()).await?;
            self.meter.failures.add(1);
        }
        Ok(())
    }
}
