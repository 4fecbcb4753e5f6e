//! TCP with TLS 1.3 by rustls, measured over loopback: what QUIC replaces. The command line and the
//! frame are `corelane_bench_peer`'s.
//!
//! Bulk data and requests use blocking sockets (`blocking`), the fastest that one connection has;
//! many connections use tokio (`connections`). TCP has no streams: requests under way at a time are
//! pipelined on one connection, each answer waits for those before it, and several bulk streams are
//! refused, as datagrams are. The kernel sizes the buffers: it does that better than a number.

mod blocking;
mod connections;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;

use corelane_bench_peer::{
    Client, Fault, Outcome, Peer, Run, Server, Work, rustls as tls, tokio as run_on_tokio,
};
use serde_json::json;

struct Tcp;

fn main() -> ExitCode {
    corelane_bench_peer::main::<Tcp>()
}

impl Peer for Tcp {
    const NAME: &'static str = "tcp+rustls";
    const PACKAGE: &'static str = "rustls";

    fn refuses(run: &Run) -> Option<String> {
        match run.work {
            Work::Datagram => Some("TCP has no datagrams".into()),
            Work::Up | Work::Down if run.streams > 1 => {
                Some("a connection of TCP is one stream".into())
            }
            _ => None,
        }
    }

    fn settings(run: &Run) -> serde_json::Value {
        let mut settings = json!({
            "crypto": tls::provider_name(run),
            "nodelay": run.profile.is_tuned(),
            "pipelined": run.work == Work::RequestResponse,
        });
        if run.profile.is_tuned() {
            settings["cipher_suite"] = "TLS13_AES_128_GCM_SHA256".into();
        }
        settings
    }

    fn serve(server: Server) -> Result<(), Fault> {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let addr = listener.local_addr()?;
        match server.run.work {
            Work::Handshake | Work::Idle => {
                let serving = connections::serve(&server, listener, addr);
                run_on_tokio::runtime()?.block_on(serving)
            }
            _ => blocking::serve(&server, &listener, addr),
        }
    }

    fn drive(client: Client) -> Result<Outcome, Fault> {
        match client.run.work {
            Work::Handshake | Work::Idle => {
                run_on_tokio::runtime()?.block_on(connections::drive(client))
            }
            _ => blocking::drive(&client),
        }
    }
}
