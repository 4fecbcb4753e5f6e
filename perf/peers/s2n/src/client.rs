//! The driving side: what s2n-quic does for each of the works of `corelane_bench_peer::tokio`.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use corelane_bench_peer::streams::{CHUNK, FLOOD, SINK};
use corelane_bench_peer::tokio::{Connect, Transport, drive};
use corelane_bench_peer::{ALPN, Client, Fault, Meter, Outcome, Resumption, SERVER_NAME, Work};
use s2n_quic::connection::Handle;
use s2n_quic::provider::datagram::default::Sender;
use s2n_quic::provider::tls::s2n_tls as tls;
use tls::callbacks::{
    ConnectionFuture, SessionTicket, SessionTicketCallback, VerifyHostNameCallback,
};

use super::server::take;
use super::{CHUNKS, datagrams, io, limits};

/// A ticket of s2n-tls is good for any number of connections.
const USES: usize = 1 << 40;

pub(super) async fn run(client: Client) -> Result<Outcome, Fault> {
    let resumption = Arc::new(Resumption::default());
    let (run, certificates) = (&client.run, &client.certificates);
    let mut tls = tls::Client::builder()
        .with_empty_trust_store()?
        .with_certificate(&certificates.authority[..])?
        .with_application_protocols([ALPN])?;
    if run.resume {
        let tickets = Tickets(Arc::new(Shared {
            ticket: Mutex::default(),
            resumption: resumption.clone(),
        }));
        tls = tls.with_verify_host_name_callback(tickets.clone())?;
        tls.config_mut()
            .set_session_ticket_callback(tickets.clone())?
            .set_connection_initializer(tickets)?;
    }
    let builder = s2n_quic::Client::builder()
        .with_tls(tls.build()?)?
        .with_io(io(run)?)?
        .with_limits(limits(run)?)?;
    let s2n = S2n {
        client: match run.work {
            Work::Datagram => builder.with_datagram(datagrams(run)?)?.start()?,
            _ => builder.start()?,
        },
        addr: client.addr,
    };
    drive(client, s2n, &resumption).await
}

/// The ticket for the next connections, taken from an earlier one.
#[derive(Clone)]
struct Tickets(Arc<Shared>);

struct Shared {
    ticket: Mutex<Option<Vec<u8>>>,
    resumption: Arc<Resumption>,
}

impl SessionTicketCallback for Tickets {
    fn on_session_ticket(&self, _: &mut tls::connection::Connection, ticket: &SessionTicket) {
        let mut data = vec![0; ticket.len().unwrap_or_default()];
        if ticket.data(&mut data).is_err() {
            return;
        }
        let mut kept = self.0.ticket.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.replace(data).is_none() {
            self.0.resumption.note_ticket(USES);
        }
    }
}

impl tls::config::ConnectionInitializer for Tickets {
    fn initialize_connection(
        &self,
        connection: &mut tls::connection::Connection,
    ) -> Result<Option<Pin<Box<dyn ConnectionFuture>>>, tls::error::Error> {
        let kept = self.0.ticket.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ticket) = kept.as_deref() {
            connection.set_session_ticket(ticket)?;
        }
        Ok(None)
    }
}

/// Asked where a certificate is verified, which a resumed connection has none of.
impl VerifyHostNameCallback for Tickets {
    fn verify_host_name(&self, name: &str) -> bool {
        self.0.resumption.note_full_handshake();
        name == SERVER_NAME
    }
}

#[derive(Clone)]
struct S2n {
    client: s2n_quic::Client,
    addr: SocketAddr,
}

impl Connect for S2n {
    type Connection = Handle;

    async fn connect(&self) -> Result<Handle, Fault> {
        let connect = s2n_quic::client::Connect::new(self.addr).with_server_name(SERVER_NAME);
        Ok(self.client.connect(connect).await?.handle())
    }

    fn close(connection: Handle) {
        connection.close(0u32.into());
    }

    fn is_open(connection: &Handle) -> bool {
        connection.clone().keep_alive(false).is_ok()
    }
}

impl Transport for S2n {
    async fn upload(mut connection: Handle, meter: Arc<Meter>) -> Result<(), Fault> {
        let mut stream = connection.open_bidirectional_stream().await?;
        stream.send(Bytes::from_static(&[SINK])).await?;
        let chunk = Bytes::from(vec![0x5a; CHUNK]);
        while !meter.is_stopped() {
            stream.send(chunk.clone()).await?;
        }
        Ok(stream.reset(0u32.into())?)
    }

    async fn download(mut connection: Handle, meter: Arc<Meter>) -> Result<(), Fault> {
        let stream = connection.open_bidirectional_stream().await?;
        let (mut receive, mut send) = stream.split();
        send.send(Bytes::from_static(&[FLOOD])).await?;
        send.finish()?;
        let mut chunks = [const { Bytes::new() }; CHUNKS];
        while !meter.is_stopped() {
            if !take(&mut receive, &mut chunks, &meter).await? {
                return Err("the server ended a stream".into());
            }
        }
        Ok(receive.stop_sending(0u32.into())?)
    }

    async fn request(connection: &Handle, request: Bytes) -> Result<usize, Fault> {
        let mut stream = connection.clone().open_bidirectional_stream().await?;
        stream.send(request).await?;
        stream.finish()?;
        let mut length = 0;
        while let Some(chunk) = stream.receive().await? {
            length += chunk.len();
        }
        Ok(length)
    }

    async fn datagrams(
        connection: Handle,
        datagram: Bytes,
        meter: Arc<Meter>,
    ) -> Result<(), Fault> {
        // As many at a time as the queue takes: each call locks the connection.
        let fill = |sender: &mut Sender, cx: &mut Context<'_>| {
            let mut sent = 0;
            while sent < CHUNKS as u64 {
                match sender.poll_send_datagram(&mut datagram.clone(), cx) {
                    Poll::Ready(Ok(())) => sent += 1,
                    Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault.to_string().into())),
                    Poll::Pending if sent > 0 => break,
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(Ok::<_, Fault>(sent))
        };
        while !meter.is_stopped() {
            let sent = poll_fn(|cx| {
                let sent = connection.datagram_mut(|sender| fill(sender, cx));
                sent.unwrap_or_else(|fault| Poll::Ready(Err(format!("{fault:?}").into())))
            });
            meter.failures.add(sent.await?);
        }
        Ok(())
    }
}
