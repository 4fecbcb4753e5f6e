//! The command line that every peer's program takes, and what it does with the answer.
//!
//! A program prints the report of `report` and ends with code 0. It ends with code 1 when the run
//! failed, with [`USAGE`] when the command line is wrong and with [`NOT_OFFERED`] when it does not
//! offer the work; a sentence on stderr says why.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::report::Report;
use crate::{flags, output};

/// The exit code for a wrong command line, which is clap's.
pub const USAGE: u8 = 2;
/// The exit code for work that the implementation does not have: EX_UNAVAILABLE of sysexits.h, with
/// which neither clap nor a panic nor a shell ends a program.
pub const NOT_OFFERED: u8 = 69;

const SIZE: u32 = 64;
const CONNECTIONS: u32 = 1000;

/// How an implementation is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// Nothing but certificates: the implementation's defaults
    Default,
    /// The same cipher, windows, buffers and 1,452-byte payloads for everybody
    Tuned,
    /// The same with the largest payloads that the implementation moves
    Jumbo,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Work {
    /// Streams that never end
    Bulk,
    /// Requests and answers, each pair on a stream of its own
    Rr,
    /// Connections that are closed as soon as they are established
    Handshake,
    /// DATAGRAM frames
    Datagram,
    /// Connections that do nothing
    Idle,
}

/// Where bulk data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Direction {
    /// From the client to the server
    Up,
    /// From the server to the client
    Down,
}

/// Measures an implementation against itself over loopback: one client thread, one server thread.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub struct Args {
    /// What is measured
    #[arg(long, value_enum, default_value = "bulk")]
    pub work: Work,
    /// Where bulk data goes
    #[arg(long, value_enum, default_value = "up")]
    pub direction: Direction,
    /// Streams, requests or handshakes at a time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub streams: u32,
    /// Bytes of a request and its answer, or of a datagram
    #[arg(long, default_value_t = SIZE, value_parser = clap::value_parser!(u32).range(1..=65_000))]
    pub size: u32,
    /// Requests a second, whatever the answers do: an open loop
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// Resume a session of an earlier connection with each handshake
    #[arg(long)]
    pub resume: bool,
    /// Idle connections
    #[arg(long, default_value_t = CONNECTIONS)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connections: u32,
    /// How the implementation is configured
    #[arg(long, value_enum, default_value = "tuned")]
    pub settings: Profile,
    /// Seconds to measure
    #[arg(long, default_value_t = 3.0, value_parser = flags::window)]
    pub seconds: f64,
    /// Seconds to leave out before
    #[arg(long, default_value_t = 0.5, value_parser = flags::seconds)]
    pub omit: f64,
    /// The server's core
    #[arg(long, default_value_t = 0)]
    pub server_core: usize,
    /// The client's core
    #[arg(long, default_value_t = 1)]
    pub client_core: usize,
    /// Print the report as JSON
    #[arg(short = 'J', long)]
    pub json: bool,
    /// Serve for a client in another process, and end when standard input does
    #[arg(long, hide = true)]
    pub serve: bool,
}

impl Args {
    /// Time that is measured.
    pub fn window(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// Time before it.
    pub fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.omit)
    }

    /// The settings, for the report.
    pub fn describe(&self) -> serde_json::Value {
        serde_json::json!({
            "work": format!("{:?}", self.work).to_lowercase(),
            "direction": format!("{:?}", self.direction).to_lowercase(),
            "streams": self.streams,
            "size_bytes": self.size,
            "rate_per_second": self.rate,
            "resume": self.resume,
            "connections": self.connections,
            "settings": format!("{:?}", self.settings).to_lowercase(),
            "server_core": self.server_core,
            "client_core": self.client_core,
        })
    }

    /// Whether every flag takes part in the work that is asked for.
    ///
    /// # Errors
    /// A sentence about one that does not.
    pub fn check(&self) -> Result<(), String> {
        if self.rate.is_some() && self.work != Work::Rr {
            return Err("--rate is for --work rr".into());
        }
        if self.rate.is_some() && self.streams > 1 {
            return Err("--rate begins requests as they are due: without --streams".into());
        }
        if self.resume && self.work != Work::Handshake {
            return Err("--resume is for --work handshake".into());
        }
        if self.direction == Direction::Down && self.work != Work::Bulk {
            return Err("--direction down is for --work bulk".into());
        }
        if self.size != SIZE && !matches!(self.work, Work::Rr | Work::Datagram) {
            return Err("--size is for --work rr and datagram".into());
        }
        if self.connections != CONNECTIONS && self.work != Work::Idle {
            return Err("--connections is for --work idle".into());
        }
        if self.streams > 1 && self.work == Work::Idle {
            return Err("--work idle has --connections, and no --streams".into());
        }
        Ok(())
    }

    /// Shows what a run came to, and is the program's end.
    pub fn finish(&self, outcome: Result<Report, impl std::fmt::Display>) -> ExitCode {
        match outcome {
            Ok(report) if self.json => output::finish(&report.to_json(), ExitCode::SUCCESS),
            Ok(report) => output::finish(&report.to_text(), ExitCode::SUCCESS),
            Err(fault) => {
                output::tell(&fault.to_string());
                ExitCode::FAILURE
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::case::{ALL, Case};
    use crate::compare::peer;

    #[test]
    fn what_the_comparison_asks_reads() {
        let ask = peer::find("quinn").unwrap().arguments;
        for profile in [Profile::Default, Profile::Tuned, Profile::Jumbo] {
            let settings = peer::Settings {
                seconds: 2.5,
                omit: 0.5,
                profile,
            };
            for name in ALL
                .iter()
                .filter(|name| !["rr-open", "scale-2"].contains(*name))
            {
                let words = ask(&Case::parse(name).unwrap(), &settings).unwrap();
                let all = ["program".to_string()].into_iter().chain(words);
                let args = Args::try_parse_from(all).unwrap();
                assert_eq!(
                    (args.settings, args.window()),
                    (profile, Duration::from_millis(2500))
                );
                assert!(args.json && !args.serve);
                assert_eq!(args.check(), Ok(()));
                assert_eq!(args.resume, name.ends_with("resumed"));
            }
        }
    }

    #[test]
    fn what_would_measure_something_else_is_refused() {
        let check = |words: &str| {
            let words = ["program"].into_iter().chain(words.split_whitespace());
            Args::try_parse_from(words).unwrap().check()
        };
        for words in [
            "--rate 5",
            "--work handshake --rate 5",
            "--work rr --rate 5 --streams 2",
            "--work rr --resume",
            "--work datagram --direction down",
            "--work bulk --size 100",
            "--work rr --connections 10",
            "--work idle --streams 2",
        ] {
            assert!(check(words).is_err(), "{words}");
        }
        assert_eq!(check("--work rr --rate 5"), Ok(()));
        for words in ["--seconds 0", "--omit -1", "--seconds inf", "--streams 0"] {
            let words = ["program"].into_iter().chain(words.split_whitespace());
            assert!(Args::try_parse_from(words).is_err());
        }
    }
}
