//! quinn as a peer: client and server in one process, a pinned thread with a single-threaded
//! runtime each, connected over loopback; for idle connections, in a process each.
//!
//! Streams open with one byte that says what the server does with them; see `server`. What the
//! profile does not set is quinn's default, but for the streams that a client may open.

mod client;
mod idle;
mod open;
mod server;

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Endpoint, EndpointConfig, MtuDiscoveryConfig, TokioRuntime, TransportConfig, VarInt};
use rustls::pki_types::CertificateDer;
use socket2::SockRef;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::clock::spawn_pinned;
use crate::meter::{Latency, Meter, Sample};
use crate::program::{Args, Profile, Work};
use crate::report::{Report, Workload};
use crate::tls::{self, Certificates, Sessions};

/// quinn's version in the lock file; the crate does not tell.
pub const VERSION: &str = "0.11.12";

/// What goes wrong in a run, as text for the person who started it.
pub type Fault = Box<dyn Error + Send + Sync>;

const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
const SOCKET_BUFFER: usize = 4 << 20;
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// The UDP payload from the first packet on, where it is not left to quinn. Above 6,500 bytes its
/// batches of ten exceed what UDP carries, and transfers stall.
fn payload(profile: Profile) -> Option<u16> {
    match profile {
        Profile::Default => None,
        Profile::Tuned => Some(1452),
        Profile::Jumbo => Some(6500),
    }
}

/// Does what the command line says.
///
/// # Errors
/// When a side cannot start, or ends before its time.
pub fn measure(args: &Args) -> Result<Report, Fault> {
    let workload = match args.work {
        Work::Idle => idle::run(args)?,
        work => {
            let (sample, latency) = run(args)?;
            let name = match work {
                Work::Bulk => "throughput",
                Work::Rr => "rr",
                Work::Handshake => "handshake",
                Work::Datagram | Work::Idle => "datagram",
            };
            Workload::new(name, &sample, latency.as_ref())
        }
    };
    let mut config = args.describe();
    config["udp_payload_bytes"] = payload(args.settings).into();
    config["crypto"] = "ring".into();
    Ok(Report::new("quinn", VERSION, config, workload))
}

/// Is the server of [`measure`] in another process, until standard input ends.
///
/// # Errors
/// When it cannot start.
pub fn serve(args: &Args) -> Result<(), Fault> {
    idle::serve(args)
}

/// Runs both sides in this process.
fn run(args: &Args) -> Result<(Sample, Option<Latency>), Fault> {
    let meter = Arc::new(Meter::default());
    let certificates = Certificates::make()?;
    let authority = certificates.authority.clone();
    let (stop_server, stopped) = oneshot::channel();
    let (tell_addr, addr) = mpsc::channel();
    let (set, counts) = (args.clone(), meter.clone());
    let (server_clock, server) = spawn_pinned("server-0", set.server_core, move || {
        let config = server_config(&set, certificates)?;
        runtime()?.block_on(server::run(&set, config, counts, tell_addr, stopped))
    })?;
    let Ok(addr) = addr.recv() else {
        server.join()??;
        return Err("the server ended before it listened".into());
    };

    let (tell_ready, ready) = mpsc::channel();
    let (set, counts) = (args.clone(), meter.clone());
    let (client_clock, client) = spawn_pinned("client-0", set.client_core, move || {
        let config = client_config(&set, authority.clone(), None)?;
        runtime()?.block_on(async {
            let endpoint = client_endpoint(&set, config)?;
            client::run(&set, endpoint, authority, counts, addr, tell_ready).await
        })
    })?;
    let sample = match ready.recv() {
        Ok(()) => meter.measure(args.warm_up(), args.window(), client_clock, server_clock),
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
    if args.work == Work::Datagram {
        // The client counts what it sends as failed until it has arrived.
        sample.failures = sample.failures.saturating_sub(sample.operations);
    }
    Ok((sample, latency))
}

fn runtime() -> Result<Runtime, Fault> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

fn server_config(args: &Args, certificates: Certificates) -> Result<quinn::ServerConfig, Fault> {
    let tls = certificates.server(args.settings, args.resume)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(transport(args));
    Ok(config)
}

fn client_config(
    args: &Args,
    authority: CertificateDer<'static>,
    sessions: Option<&Arc<Sessions>>,
) -> Result<quinn::ClientConfig, Fault> {
    let tls = tls::client(authority, args.settings, sessions)?;
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(transport(args));
    Ok(config)
}

fn client_endpoint(args: &Args, config: quinn::ClientConfig) -> Result<Endpoint, Fault> {
    let mut endpoint = endpoint(args, None)?;
    endpoint.set_default_client_config(config);
    Ok(endpoint)
}

/// Within a runtime.
fn endpoint(args: &Args, server: Option<quinn::ServerConfig>) -> Result<Endpoint, Fault> {
    let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let mut config = EndpointConfig::default();
    if let Some(payload) = payload(args.settings) {
        let options = SockRef::from(&socket);
        options.set_recv_buffer_size(SOCKET_BUFFER)?;
        options.set_send_buffer_size(SOCKET_BUFFER)?;
        // The default announces 1,472 bytes.
        config.max_udp_payload_size(payload.max(1472))?;
    }
    let runtime = Arc::new(TokioRuntime);
    Ok(Endpoint::new(config, server, socket, runtime)?)
}

fn transport(args: &Args) -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport.max_concurrent_bidi_streams(VarInt::from_u32(1024));
    if let Some(payload) = payload(args.settings) {
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(payload);
        transport
            .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
            .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
            .send_window(u64::from(STREAM_WINDOW))
            .datagram_receive_buffer_size(Some(8 << 20))
            .datagram_send_buffer_size(1 << 20)
            .initial_mtu(payload)
            .mtu_discovery_config(Some(discovery));
    }
    if args.work == Work::Idle {
        let timeout = IDLE_TIMEOUT.try_into();
        transport.max_idle_timeout(Some(timeout.expect("ten minutes are a valid timeout")));
    }
    Arc::new(transport)
}

#[cfg(test)]
mod tests;
