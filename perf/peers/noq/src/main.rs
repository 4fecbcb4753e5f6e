//! noq, measured over loopback: its command line and frame are `corelane_bench_peer`'s, its sides
//! stand in `client` and `server`.
//!
//! In `default` everything but certificates is noq's; `tuned` and `jumbo` have the comparison's
//! packets, windows, buffers and cipher. Congestion control and pacing are noq's always.

mod client;
mod server;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;

use corelane_bench_peer::{
    CONNECTION_WINDOW, Client, Fault, IDLE_TIMEOUT, Outcome, Peer, Profile, Run, SOCKET_BUFFER,
    STREAM_WINDOW, Server, UDP_PAYLOAD, Work, rustls as tls, tokio as run_on_tokio,
};
use noq::{
    Endpoint, EndpointConfig, MtuDiscoveryConfig, ServerConfig, TokioRuntime, TransportConfig,
    VarInt,
};
use serde_json::json;
use socket2::SockRef;

/// Above this its batches of ten packets exceed what one UDP datagram carries.
const JUMBO: u16 = 6500;
/// Datagrams that wait, bytes.
const DATAGRAM_SEND: usize = 1 << 20;
const DATAGRAM_RECEIVE: usize = 8 << 20;
/// Chunks that one call of the application takes.
const CHUNKS: usize = 64;

struct Noq;

fn main() -> ExitCode {
    corelane_bench_peer::main::<Noq>()
}

impl Peer for Noq {
    const NAME: &'static str = "noq";
    const PACKAGE: &'static str = "noq";

    fn settings(run: &Run) -> serde_json::Value {
        let mut settings = json!({ "crypto": tls::provider_name(run) });
        if let Some(payload) = payload(run) {
            settings["mtu_bytes"] = payload.into();
            settings["stream_window_bytes"] = STREAM_WINDOW.into();
            settings["connection_window_bytes"] = CONNECTION_WINDOW.into();
            settings["socket_buffer_bytes"] = SOCKET_BUFFER.into();
            settings["cipher_suite"] = "TLS13_AES_128_GCM_SHA256".into();
        }
        settings
    }

    fn serve(server: Server) -> Result<(), Fault> {
        run_on_tokio::runtime()?.block_on(server::run(server))
    }

    fn drive(client: Client) -> Result<Outcome, Fault> {
        run_on_tokio::runtime()?.block_on(client::run(client))
    }
}

/// The UDP payload that is set; none when it is the library's.
fn payload(run: &Run) -> Option<u16> {
    match run.profile {
        Profile::Default => None,
        Profile::Tuned => Some(UDP_PAYLOAD),
        Profile::Jumbo => Some(JUMBO),
    }
}

fn endpoint(run: &Run, server: Option<ServerConfig>) -> Result<Endpoint, Fault> {
    let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let mut config = EndpointConfig::default();
    if let Some(payload) = payload(run) {
        let options = SockRef::from(&socket);
        options.set_recv_buffer_size(SOCKET_BUFFER)?;
        options.set_send_buffer_size(SOCKET_BUFFER)?;
        // The default announces 1,472 bytes.
        config.max_udp_payload_size(payload.max(1472))?;
    }
    Ok(Endpoint::new(
        config,
        server,
        socket,
        Arc::new(TokioRuntime),
    )?)
}

fn transport(run: &Run) -> Result<Arc<TransportConfig>, Fault> {
    let mut transport = TransportConfig::default();
    if run.work == Work::Idle {
        transport.max_idle_timeout(Some(IDLE_TIMEOUT.try_into()?));
    }
    if let Some(payload) = payload(run) {
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(payload);
        let streams = VarInt::from_u64(run.concurrent_streams() as u64)?;
        transport
            .max_concurrent_bidi_streams(streams)
            .stream_receive_window(STREAM_WINDOW.into())
            .receive_window(CONNECTION_WINDOW.into())
            .send_window(STREAM_WINDOW.into())
            .datagram_receive_buffer_size(Some(DATAGRAM_RECEIVE))
            .datagram_send_buffer_size(DATAGRAM_SEND)
            .initial_mtu(payload)
            .mtu_discovery_config(Some(discovery));
    }
    Ok(Arc::new(transport))
}
