//! quinn as a peer: client and server in one process, a pinned thread with a single-threaded
//! runtime each, connected over loopback.
//!
//! Streams open with one byte that says what the server does with them; see `server`. Settings
//! follow the comparison's profile, and everything else is quinn's default.

mod client;
mod server;

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Endpoint, EndpointConfig, MtuDiscoveryConfig, TokioRuntime, TransportConfig, VarInt};
use socket2::SockRef;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::clock::spawn_pinned;
use crate::meter::{Latency, Meter, Sample};
use crate::tls;

/// quinn's version in the lock file; the crate does not tell.
pub const VERSION: &str = "0.11.12";

/// What goes wrong in a run, as text for the person who started it.
pub type Fault = Box<dyn Error + Send + Sync>;

/// What the two sides do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Streams of bulk data from the client.
    Up,
    /// Streams of bulk data from the server.
    Down,
    /// Small requests, each on a new stream.
    RequestResponse,
    /// Connections, each closed as soon as its handshake is complete.
    Handshake,
    /// DATAGRAM frames from the client.
    Datagram,
}

/// A run's settings.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What the two sides do.
    pub work: Work,
    /// How many at a time: streams, requests or handshakes.
    pub parallel: usize,
    /// Bytes of a request and its answer, or of a datagram.
    pub size: usize,
    /// The UDP payload, from the first packet on, bytes.
    pub mtu: u16,
    /// A stream's receive window, and what a connection may have in flight, bytes.
    pub stream_window: u32,
    /// A connection's receive window, bytes.
    pub connection_window: u32,
    /// What is asked of the kernel for each socket and direction, bytes.
    pub socket_buffer: usize,
    /// The server's core.
    pub server_core: usize,
    /// The client's core.
    pub client_core: usize,
    /// Time before the window that is measured.
    pub warm_up: Duration,
    /// The window.
    pub window: Duration,
}

/// Runs it.
///
/// # Errors
/// When a side cannot start, or ends before its time.
pub fn run(settings: &Settings) -> Result<(Sample, Option<Latency>), Fault> {
    let meter = Arc::new(Meter::default());
    let (client_tls, server_tls) = tls::configs()?;
    let (stop_server, stopped) = oneshot::channel();
    let (tell_addr, addr) = mpsc::channel();
    let (set, counts) = (*settings, meter.clone());
    let (server_clock, server) = spawn_pinned("server-0", set.server_core, move || {
        let config = quinn::ServerConfig::with_crypto(Arc::new(
            QuicServerConfig::try_from(server_tls).map_err(Fault::from)?,
        ));
        runtime()?.block_on(server::run(&set, config, counts, tell_addr, stopped))
    })?;
    let Ok(addr) = addr.recv() else {
        server.join()??;
        return Err("the server ended before it listened".into());
    };

    let (tell_ready, ready) = mpsc::channel();
    let counts = meter.clone();
    let (client_clock, client) = spawn_pinned("client-0", set.client_core, move || {
        let config = quinn::ClientConfig::new(Arc::new(
            QuicClientConfig::try_from(client_tls).map_err(Fault::from)?,
        ));
        runtime()?.block_on(client::run(&set, config, counts, addr, tell_ready))
    })?;
    let sample = match ready.recv() {
        Ok(()) => meter.measure(set.warm_up, set.window, client_clock, server_clock),
        // It ended without a connection; joining it says why.
        Err(_) => Ok(Sample::default()),
    };
    meter.stop();
    let latency = client.join()?;
    drop(stop_server);
    server.join()??;
    // Why the client ended says more than that its clock is gone.
    let latency = latency?;
    let mut sample = sample?;
    if set.work == Work::Datagram {
        // The client counts what it sends as failed until it has arrived.
        sample.failures = sample.failures.saturating_sub(sample.operations);
    }
    Ok((sample, latency))
}

fn runtime() -> Result<Runtime, Fault> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

fn endpoint(settings: &Settings, server: Option<quinn::ServerConfig>) -> Result<Endpoint, Fault> {
    let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let options = SockRef::from(&socket);
    options.set_recv_buffer_size(settings.socket_buffer)?;
    options.set_send_buffer_size(settings.socket_buffer)?;
    let mut config = EndpointConfig::default();
    // The default announces 1,472 bytes.
    config.max_udp_payload_size(settings.mtu.max(1472))?;
    Ok(Endpoint::new(
        config,
        server,
        socket,
        Arc::new(TokioRuntime),
    )?)
}

fn transport(settings: &Settings) -> Arc<TransportConfig> {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(settings.mtu);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1024))
        .stream_receive_window(VarInt::from_u32(settings.stream_window))
        .receive_window(VarInt::from_u32(settings.connection_window))
        .send_window(u64::from(settings.stream_window))
        .datagram_receive_buffer_size(Some(8 << 20))
        .datagram_send_buffer_size(1 << 20)
        .initial_mtu(settings.mtu)
        .mtu_discovery_config(Some(discovery));
    Arc::new(transport)
}

#[cfg(test)]
mod tests;
