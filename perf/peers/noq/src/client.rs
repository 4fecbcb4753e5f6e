//! The driving side: what noq does for each of the works of `corelane_bench_peer::tokio`.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use corelane_bench_peer::streams::{CHUNK, FLOOD, SINK};
use corelane_bench_peer::tokio::{Connect, Transport, drive};
use corelane_bench_peer::{Client, Fault, Meter, Outcome, Resumption, SERVER_NAME, rustls as tls};
use noq::crypto::rustls::QuicClientConfig;
use noq::{ClientConfig, Connection, Endpoint, VarInt};

use super::server::take;
use super::{CHUNKS, endpoint, transport};

pub(super) async fn run(client: Client) -> Result<Outcome, Fault> {
    let resumption = Arc::new(Resumption::default());
    let crypto = tls::client_config(&client.run, &client.certificates, &resumption)?;
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(crypto)?));
    config.transport_config(transport(&client.run)?);
    let endpoint = endpoint(&client.run, None)?;
    endpoint.set_default_client_config(config);
    let noq = Noq {
        endpoint,
        addr: client.addr,
    };
    drive(client, noq, &resumption).await
}

#[derive(Clone)]
struct Noq {
    endpoint: Endpoint,
    addr: SocketAddr,
}

impl Connect for Noq {
    type Connection = Connection;

    async fn connect(&self) -> Result<Connection, Fault> {
        Ok(self.endpoint.connect(self.addr, SERVER_NAME)?.await?)
    }

    fn close(connection: Connection) {
        connection.close(VarInt::from_u32(0), b"");
    }

    fn is_open(connection: &Connection) -> bool {
        connection.close_reason().is_none()
    }
}

impl Transport for Noq {
    async fn upload(connection: Connection, meter: Arc<Meter>) -> Result<(), Fault> {
        let (mut send, _recv) = connection.open_bi().await?;
        send.write_all(&[SINK]).await?;
        let chunk = Bytes::from(vec![0x5a; CHUNK]);
        while !meter.is_stopped() {
            send.write_chunk(chunk.clone()).await?;
        }
        Ok(send.reset(VarInt::from_u32(0))?)
    }

    async fn download(connection: Connection, meter: Arc<Meter>) -> Result<(), Fault> {
        let (mut send, mut recv) = connection.open_bi().await?;
        send.write_all(&[FLOOD]).await?;
        send.finish()?;
        let mut chunks = [const { Bytes::new() }; CHUNKS];
        while !meter.is_stopped() {
            if !take(&mut recv, &mut chunks, &meter).await? {
                return Err("the server ended a stream".into());
            }
        }
        Ok(recv.stop(VarInt::from_u32(0))?)
    }

    async fn request(connection: &Connection, request: Bytes) -> Result<usize, Fault> {
        let size = request.len();
        let (mut send, mut recv) = connection.open_bi().await?;
        send.write_chunk(request).await?;
        send.finish()?;
        Ok(recv.read_to_end(size).await?.len())
    }

    async fn datagrams(
        connection: Connection,
        datagram: Bytes,
        meter: Arc<Meter>,
    ) -> Result<(), Fault> {
        while !meter.is_stopped() {
            connection.send_datagram_wait(datagram.clone()).await?;
            meter.failures.add(1);
        }
        Ok(())
    }
}
