//! One run of quinn against itself over loopback, with the command line and the report of every
//! peer.

use std::process::ExitCode;

use clap::Parser;
use corelane_perf::program::Args;
use corelane_perf::quinn;

/// corelane's own program has this one, so its peers get it too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    if args.serve {
        return match quinn::serve(&args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(fault) => {
                eprintln!("{fault}");
                ExitCode::FAILURE
            }
        };
    }
    args.finish(quinn::measure(&args))
}
