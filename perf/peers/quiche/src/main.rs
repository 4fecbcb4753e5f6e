//! quiche as a measured program: its connections are driven by a loop of this program's own, one a
//! side, over a socket with GSO and GRO.

mod client;
mod endpoint;
mod requests;
mod server;
mod settings;

use std::process::ExitCode;

use corelane_bench_peer::{Client, Fault, Outcome, Peer, Run, Server};

struct Quiche;

impl Peer for Quiche {
    const NAME: &'static str = "quiche";
    const PACKAGE: &'static str = "quiche";

    fn settings(run: &Run) -> serde_json::Value {
        settings::describe(run)
    }

    fn serve(server: Server) -> Result<(), Fault> {
        server::run(server)
    }

    fn drive(client: Client) -> Result<Outcome, Fault> {
        client::run(client)
    }
}

fn main() -> ExitCode {
    corelane_bench_peer::main::<Quiche>()
}
