//! tquic as a measured program: its endpoints are driven by a loop of this program's own, one a
//! side, over a socket with GSO and GRO.

mod client;
mod driver;
mod server;
mod settings;

use std::process::ExitCode;

use corelane_bench_peer::{Client, Fault, Outcome, Peer, Run, Server, Work};

struct Tquic;

impl Peer for Tquic {
    const NAME: &'static str = "tquic";
    const PACKAGE: &'static str = "tquic";

    fn refuses(run: &Run) -> Option<String> {
        (run.work == Work::Datagram).then(|| "it has no DATAGRAM frames".into())
    }

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
    corelane_bench_peer::main::<Tquic>()
}
