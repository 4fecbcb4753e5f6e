//! The command line of a measured program, the same for every one, and what a run is.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum, value_parser};
use corelane_perf::flags::{seconds, window};

/// UDP payload of `tuned` from the first packet on, bytes.
pub const UDP_PAYLOAD: u16 = 1452;
/// A stream's receive window, `tuned` and `jumbo`, bytes.
pub const STREAM_WINDOW: u32 = 4 << 20;
/// A connection's receive window, `tuned` and `jumbo`, bytes.
pub const CONNECTION_WINDOW: u32 = 8 << 20;
/// What is asked of the kernel for each socket and direction, `tuned` and `jumbo`, bytes.
pub const SOCKET_BUFFER: usize = 4 << 20;
/// The idle timeout of connections that are held idle.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

const SIZE: u32 = 64;
const CONNECTIONS: u32 = 1000;

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Kind {
    Bulk,
    Rr,
    Handshake,
    Datagram,
    Idle,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// How an implementation is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// The library's defaults; only certificates are given.
    Default,
    /// The same packets, windows, buffers and cipher for everybody.
    Tuned,
    /// The same with the largest UDP payload that works.
    Jumbo,
}

impl Profile {
    /// Whether the library's defaults are left.
    pub fn is_tuned(self) -> bool {
        self != Self::Default
    }
}

/// Measures a transport over loopback: one server thread, one client thread.
#[derive(Parser)]
#[command(version)]
pub(crate) struct Args {
    /// What is measured
    #[arg(long, value_enum)]
    work: Kind,
    /// Where bulk data goes
    #[arg(long, value_enum, default_value = "up")]
    direction: Direction,
    /// Streams, requests or handshakes at a time
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u16).range(1..=4096))]
    streams: u16,
    /// Bytes of a request and its answer, or of a datagram
    #[arg(long, default_value_t = SIZE, value_parser = value_parser!(u32).range(1..=65_000))]
    size: u32,
    /// Requests a second at fixed times, whatever the answers do
    #[arg(long, value_parser = value_parser!(u32).range(1..=10_000_000))]
    rate: Option<u32>,
    /// Each handshake with a session ticket of an earlier connection
    #[arg(long)]
    resume: bool,
    /// Connections that are held idle
    #[arg(long, default_value_t = CONNECTIONS)]
    #[arg(value_parser = value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    /// How the implementation is set up
    #[arg(long, value_enum, default_value = "tuned")]
    settings: Profile,
    /// Seconds to measure
    #[arg(long, default_value_t = 3.0, value_parser = window)]
    seconds: f64,
    /// Seconds to leave out before
    #[arg(long, default_value_t = 0.5, value_parser = seconds)]
    omit: f64,
    /// The server's core
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// The client's core
    #[arg(long, default_value_t = 1)]
    client_core: usize,
    /// Print the report as JSON
    #[arg(short = 'J', long)]
    pub json: bool,
    /// Be the server of held connections, with the certificates of that directory
    #[arg(long, hide = true)]
    pub serve: Option<PathBuf>,
}

/// What the two sides do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Streams of bulk data from the client.
    Up,
    /// Streams of bulk data from the server.
    Down,
    /// Small requests, each on a new stream.
    RequestResponse,
    /// Connections, each closed as soon as its handshake is complete.
    Handshake,
    /// DATAGRAM frames from the client.
    Datagram,
    /// Connections that do nothing.
    Idle,
}

impl Work {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Up | Self::Down => "throughput",
            Self::RequestResponse => "rr",
            Self::Handshake => "handshake",
            Self::Datagram => "datagram",
            Self::Idle => "idle",
        }
    }
}

/// A run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// What the two sides do.
    pub work: Work,
    /// How the implementation is set up.
    pub profile: Profile,
    /// How many at a time: streams, requests or handshakes.
    pub streams: usize,
    /// Bytes of a request and its answer, or of a datagram.
    pub size: usize,
    /// Requests a second at fixed times; none when each follows an answer.
    pub rate: Option<u32>,
    /// Whether each handshake uses a ticket of an earlier one.
    pub resume: bool,
    /// How many connections are held idle.
    pub connections: usize,
    /// Time before the window that is measured.
    pub warm_up: Duration,
    /// The window.
    pub window: Duration,
    /// The server's core.
    pub server_core: usize,
    /// The client's core.
    pub client_core: usize,
}

impl Run {
    /// How many bidirectional streams of the client have to be possible at a time in `tuned`: what
    /// the work opens, and no fewer than implementations permit by default.
    pub fn concurrent_streams(&self) -> usize {
        match (self.work, self.rate) {
            (Work::RequestResponse, Some(_)) => crate::MAX_UNDER_WAY,
            (Work::Handshake | Work::Idle, _) => 100,
            _ => self.streams.max(100),
        }
    }
}

impl Args {
    /// The run that is asked for.
    ///
    /// # Errors
    /// A sentence when options contradict each other.
    pub fn run(&self) -> Result<Run, String> {
        if self.rate.is_some() && self.work != Kind::Rr {
            return Err("--rate is for --work rr".into());
        }
        if self.rate.is_some() && self.streams > 1 {
            return Err("--rate begins requests as they are due: without --streams".into());
        }
        if self.resume && self.work != Kind::Handshake {
            return Err("--resume is for --work handshake".into());
        }
        if self.direction == Direction::Down && self.work != Kind::Bulk {
            return Err("--direction down is for --work bulk".into());
        }
        if self.size != SIZE && !matches!(self.work, Kind::Rr | Kind::Datagram) {
            return Err("--size is for --work rr and datagram".into());
        }
        if self.connections != CONNECTIONS && self.work != Kind::Idle {
            return Err("--connections is for --work idle".into());
        }
        if self.streams > 1 && matches!(self.work, Kind::Datagram | Kind::Idle) {
            return Err("--streams is for --work bulk, rr and handshake".into());
        }
        let work = match self.work {
            Kind::Bulk if self.direction == Direction::Up => Work::Up,
            Kind::Bulk => Work::Down,
            Kind::Rr => Work::RequestResponse,
            Kind::Handshake => Work::Handshake,
            Kind::Datagram => Work::Datagram,
            Kind::Idle => Work::Idle,
        };
        Ok(Run {
            work,
            profile: self.settings,
            streams: usize::from(self.streams),
            size: self.size as usize,
            rate: self.rate,
            resume: self.resume,
            connections: self.connections as usize,
            warm_up: Duration::from_secs_f64(self.omit),
            window: Duration::from_secs_f64(self.seconds),
            server_core: self.server_core,
            client_core: self.client_core,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &str) -> Result<Run, String> {
        let words = ["program"].into_iter().chain(words.split_whitespace());
        let args = Args::try_parse_from(words).map_err(|e| e.to_string())?;
        args.run()
    }

    #[test]
    fn every_work_has_its_options() {
        let down = run("--work bulk --direction down --streams 8 --settings jumbo").unwrap();
        assert_eq!((down.work, down.streams), (Work::Down, 8));
        assert!(down.profile.is_tuned() && down.concurrent_streams() == 100);
        let open = run("--work rr --rate 1000 --size 100").unwrap();
        assert_eq!((open.rate, open.size), (Some(1000), 100));
        assert_eq!(open.concurrent_streams(), crate::MAX_UNDER_WAY);
        assert!(run("--work handshake --resume").unwrap().resume);
        let idle = run("--work idle --connections 10 --settings default").unwrap();
        assert_eq!((idle.work.name(), idle.connections), ("idle", 10));
        assert!(!idle.profile.is_tuned());
    }

    #[test]
    fn what_would_measure_something_else_is_refused() {
        for words in [
            "",
            "--work bulk --rate 5",
            "--work rr --resume",
            "--work datagram --direction down",
            "--work rr --streams 0",
            "--work rr --rate 0",
            "--work rr --size 65001",
            "--work rr --rate 5 --streams 2",
            "--work bulk --size 100",
            "--work rr --connections 10",
            "--work idle --streams 2",
            "--work bulk --seconds 0",
            "--work bulk --seconds inf",
        ] {
            assert!(run(words).is_err(), "{words}");
        }
    }
}
