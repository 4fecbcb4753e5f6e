//! One run of quinn against itself over loopback, with the command line and the report of every
//! peer.

use std::process::ExitCode;

use clap::Parser;
use corelane_perf::program::{Args, USAGE};
use corelane_perf::{output, quinn};

/// corelane's own program has this one, so its peers get it too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(sentence) = args.check() {
        output::tell(&format!("quinn-bench: {sentence}"));
        return ExitCode::from(USAGE);
    }
    if args.serve {
        return match quinn::serve(&args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(fault) => {
                output::tell(&format!("quinn-bench: {fault}"));
                ExitCode::FAILURE
            }
        };
    }
    args.finish(quinn::measure(&args))
}
