//! The side that drives: as many workers at a time as the settings say, each in a loop until the
//! meter stops it.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use quinn::{ClientConfig, Connection, Endpoint, VarInt};

use super::server::{CHUNK, ECHO, FLOOD, SINK};
use super::{Fault, Settings, Work, endpoint, transport};
use crate::clock::now;
use crate::meter::{Latency, Meter, new_latency};
use crate::tls::SERVER_NAME;

/// What every worker has.
struct Worker {
    endpoint: Endpoint,
    connection: Connection,
    addr: SocketAddr,
    meter: Arc<Meter>,
    size: usize,
}

pub(super) async fn run(
    settings: &Settings,
    mut config: ClientConfig,
    meter: Arc<Meter>,
    addr: SocketAddr,
    ready: mpsc::Sender<()>,
) -> Result<Option<Latency>, Fault> {
    config.transport_config(transport(settings));
    let mut endpoint = endpoint(settings, None)?;
    endpoint.set_default_client_config(config);
    let connection = endpoint.connect(addr, SERVER_NAME)?.await?;
    ready.send(())?;
    let mut workers = Vec::new();
    for _ in 0..settings.parallel {
        let worker = Worker {
            endpoint: endpoint.clone(),
            connection: connection.clone(),
            addr,
            meter: meter.clone(),
            size: settings.size,
        };
        let work = settings.work;
        workers.push(tokio::spawn(async move { worker.run(work).await }));
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
    Ok(all)
}

impl Worker {
    async fn run(&self, work: Work) -> Result<Option<Latency>, Fault> {
        match work {
            Work::Up => self.up().await.map(|()| None),
            Work::Down => self.down().await.map(|()| None),
            Work::Datagram => self.datagrams().await.map(|()| None),
            Work::RequestResponse => self.requests().await.map(Some),
            Work::Handshake => self.handshakes().await.map(Some),
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
        while !self.meter.is_stopped() {
            let Some(chunk) = recv.read_chunk(usize::MAX, true).await? else {
                return Err("the server ended a stream".into());
            };
            self.meter.bytes.add(chunk.bytes.len() as u64);
        }
        Ok(recv.stop(VarInt::from_u32(0))?)
    }

    async fn requests(&self) -> Result<Latency, Fault> {
        let mut latency = new_latency();
        let mut request = vec![0x5a; self.size.max(1)];
        request[0] = ECHO;
        while !self.meter.is_stopped() {
            let begin = now();
            let (mut send, mut recv) = self.connection.open_bi().await?;
            send.write_all(&request).await?;
            send.finish()?;
            let answer = recv.read_to_end(request.len()).await?;
            if answer.len() != request.len() {
                return Err(format!("an answer of {} bytes", answer.len()).into());
            }
            self.count(&mut latency, begin)?;
        }
        Ok(latency)
    }

    async fn handshakes(&self) -> Result<Latency, Fault> {
        let mut latency = new_latency();
        while !self.meter.is_stopped() {
            let begin = now();
            let connection = self.endpoint.connect(self.addr, SERVER_NAME)?.await?;
            self.count(&mut latency, begin)?;
            connection.close(VarInt::from_u32(0), b"");
        }
        Ok(latency)
    }

    /// Sent datagrams count as failed; what arrives is taken off at the end.
    async fn datagrams(&self) -> Result<(), Fault> {
        let datagram = Bytes::from(vec![0x5a; self.size]);
        while !self.meter.is_stopped() {
            self.connection.send_datagram_wait(datagram.clone()).await?;
            self.meter.failures.add(1);
        }
        Ok(())
    }

    fn count(&self, latency: &mut Latency, begin: std::time::Instant) -> Result<(), Fault> {
        self.meter.operations.add(1);
        if self.meter.is_measuring() {
            let nanos = begin.elapsed().as_nanos();
            latency.record(u64::try_from(nanos)?.max(1))?;
        }
        Ok(())
    }
}
