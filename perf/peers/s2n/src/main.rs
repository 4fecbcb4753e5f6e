//! s2n-quic, measured over loopback: its command line and frame are `corelane_bench_peer`'s, its
//! sides stand in `client` and `server`.
//!
//! TLS is s2n-tls with its own default policy, which prefers TLS_AES_128_GCM_SHA256 and cannot be
//! cut down to one suite. In `default` everything but certificates is the library's; `tuned` and
//! `jumbo` have the comparison's packets, windows and buffers. Congestion control and pacing are
//! s2n-quic's always.

mod client;
mod server;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use corelane_bench_peer::{
    CONNECTION_WINDOW, Client, Fault, IDLE_TIMEOUT, Outcome, Peer, Profile, Run, SOCKET_BUFFER,
    STREAM_WINDOW, Server, UDP_PAYLOAD, Work, tokio as run_on_tokio,
};
use s2n_quic::provider::datagram::default as datagram;
use s2n_quic::provider::io::tokio::Provider as Io;
use s2n_quic::provider::limits::Limits;
use serde_json::json;

/// What s2n-quic counts as packet beside the UDP payload: headers of IPv4 and UDP.
const HEADERS: u16 = 28;
/// The fastest of the larger payloads; 65,507 has crashed it.
const JUMBO: u16 = 9001 - HEADERS;
/// Datagrams that wait; a longer queue for sending loses more.
const DATAGRAM_SEND: usize = 256;
const DATAGRAM_RECEIVE: usize = 8192;
/// Chunks that one call of the application takes.
const CHUNKS: usize = 64;

struct S2n;

fn main() -> ExitCode {
    corelane_bench_peer::main::<S2n>()
}

impl Peer for S2n {
    const NAME: &'static str = "s2n-quic";
    const PACKAGE: &'static str = "s2n-quic";

    fn settings(run: &Run) -> serde_json::Value {
        let mut settings = json!({ "crypto": "s2n-tls" });
        if let Some(payload) = payload(run) {
            settings["mtu_bytes"] = payload.into();
            settings["stream_window_bytes"] = STREAM_WINDOW.into();
            settings["connection_window_bytes"] = CONNECTION_WINDOW.into();
            settings["socket_buffer_bytes"] = SOCKET_BUFFER.into();
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

fn io(run: &Run) -> Result<Io, Fault> {
    let mut io = Io::builder().with_receive_address(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    if let Some(payload) = payload(run) {
        io = io
            .with_max_mtu(payload + HEADERS)?
            .with_initial_mtu(payload + HEADERS)?
            .with_send_buffer_size(SOCKET_BUFFER)?
            .with_recv_buffer_size(SOCKET_BUFFER)?;
    }
    Ok(io.build()?)
}

fn limits(run: &Run) -> Result<Limits, Fault> {
    let mut limits = Limits::new();
    if run.work == Work::Idle {
        limits = limits.with_max_idle_timeout(IDLE_TIMEOUT)?;
    }
    if run.profile.is_tuned() {
        let streams = run.concurrent_streams() as u64;
        limits = limits
            .with_data_window(CONNECTION_WINDOW.into())?
            .with_bidirectional_local_data_window(STREAM_WINDOW.into())?
            .with_bidirectional_remote_data_window(STREAM_WINDOW.into())?
            .with_max_send_buffer_size(STREAM_WINDOW)?
            .with_max_open_local_bidirectional_streams(streams)?
            .with_max_open_remote_bidirectional_streams(streams)?;
    }
    Ok(limits)
}

/// The queues of datagrams; without them connections carry none, and cost less.
fn datagrams(run: &Run) -> Result<datagram::Endpoint, Fault> {
    let (send, receive) = match run.profile {
        // What its queues have by themselves; an endpoint without capacities passes nothing.
        Profile::Default => (200, 200),
        _ => (DATAGRAM_SEND, DATAGRAM_RECEIVE),
    };
    let endpoint = datagram::Endpoint::builder()
        .with_send_capacity(send)?
        .with_recv_capacity(receive)?;
    Ok(endpoint.build()?)
}
