//! `corelane rdma`: lanes from the command line, over RoCE v2 in user space where both sides have
//! it and over QUIC where not.

mod app;
mod args;
mod bench;
mod client;
mod command;
mod ends;
mod figures;

use super::Failure;
pub use args::RdmaArgs;
use args::RdmaCommand;

/// Does what the arguments say.
pub fn run(args: &RdmaArgs) -> Result<(), Failure> {
    match &args.command {
        RdmaCommand::Server(args) => ends::serve(args),
        RdmaCommand::Client(args) => client::run(args),
        RdmaCommand::Status(args) => client::status(args),
        RdmaCommand::Bench(args) => bench::run(args),
    }
}
