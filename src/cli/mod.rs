//! The `corelane` program's own module tree; it uses the library as any embedder does.
//!
//! Results go to standard output, everything else to standard error. A failure is one sentence and
//! exit code 1, a wrong command line is one sentence and exit code 2.

mod args;
mod bench;
mod doctor;
mod exporter;
mod fail;
mod output;
mod paths;
mod policy;
mod provider;
mod rdma;
pub mod report;
mod see;
mod server;
mod setup;
mod signal;
mod tls;

use args::{Cli, Command};
use clap::Parser;
use clap::error::ErrorKind;
pub use fail::Failure;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Runs the program with the process's arguments.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => return usage(&e),
    };
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::complain(&failure.to_string());
            failure.exit_code()
        }
    }
}

fn dispatch(cli: Cli) -> Result<(), Failure> {
    log(&cli.log)?;
    match cli.command {
        Command::Bench(args) => bench::run(&args),
        Command::Server(args) => server::run(&args),
        Command::Client(args) => bench::run_remote(&args),
        Command::Rdma(args) => rdma::run(&args),
        Command::Doctor => doctor::run(),
    }
}

/// Help and versions are what was asked for; anything else is one sentence.
fn usage(e: &clap::Error) -> ExitCode {
    let text = e.render().to_string();
    match e.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => match output::print(&text) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => failure.exit_code(),
        },
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            output::complain("say what to do: bench, server, client, rdma or doctor; see `--help`");
            ExitCode::from(fail::USAGE)
        }
        _ => {
            // What follows the first paragraph repeats the help.
            let paragraph = text.split("\n\n").next().unwrap_or(&text);
            let sentence: Vec<&str> = paragraph.split_whitespace().collect();
            let sentence = sentence.join(" ");
            let sentence = sentence.strip_prefix("error: ").unwrap_or(&sentence);
            output::complain(&format!("{sentence}; see `--help`"));
            ExitCode::from(fail::USAGE)
        }
    }
}

/// Log lines go to standard error, as much as `filter` says.
fn log(filter: &str) -> Result<(), Failure> {
    let parsed = EnvFilter::try_new(filter);
    let filter = parsed.map_err(|e| Failure::Usage(format!("`{filter}` is no log filter: {e}")))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    Ok(())
}
