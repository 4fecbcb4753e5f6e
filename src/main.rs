//! The `corelane` program: everything it does is in `cli`.

mod cli;

use std::process::ExitCode;

// The library brings no allocator; a program that measures wants one that scales with threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run()
}
