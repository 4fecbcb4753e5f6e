//! What every measured peer shares: the command line, the frame of two pinned threads with a
//! warm-up and a window, the server as a process of its own for idle connections, certificates, and
//! the report.
//!
//! An implementation is a [`Peer`]: a serving side, a driving side and its settings. [`main`] does
//! the rest. `tokio` has the driving side once for all peers that run on tokio, `rustls` their TLS.
//! Meters, clocks and the report are those of `corelane_perf`.

mod args;
mod certificates;
mod frame;
mod idle;
mod output;
mod pacer;
mod process;
pub mod requests;
mod resumption;
#[cfg(feature = "rustls")]
pub mod rustls;
mod stop;
pub mod streams;
pub mod tokio;
#[cfg(feature = "udp")]
pub mod udp;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use corelane_perf::output::tell;
use corelane_perf::program::{NOT_OFFERED, USAGE};

pub use args::{
    CONNECTION_WINDOW, IDLE_TIMEOUT, Profile, Run, SOCKET_BUFFER, STREAM_WINDOW, UDP_PAYLOAD, Work,
};
pub use certificates::Certificates;
pub use corelane_perf::clock::{now, unix_seconds};
pub use corelane_perf::meter::{Latency, Meter, new_latency};
pub use corelane_perf::tls::{ALPN, SERVER_NAME};
pub use frame::{Client, Outcome, Server};
pub use idle::{AT_A_TIME, SETTLE, WARM_UPS};
pub use pacer::{MAX_UNDER_WAY, Pacer, Timer};
pub use resumption::Resumption;
pub use stop::Stop;

/// corelane's own program has this one, so its peers get it too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What goes wrong in a run, as text for the person who started it.
pub type Fault = Box<dyn Error + Send + Sync>;

/// An implementation that is measured.
pub trait Peer: 'static {
    /// Its name in reports.
    const NAME: &'static str;
    /// The package whose version, as in the lock file, is the implementation's.
    const PACKAGE: &'static str;

    /// Why it cannot do that, as a sentence; none when it can.
    fn refuses(run: &Run) -> Option<String> {
        let _ = run;
        None
    }

    /// Its own settings for that run, for the report; an object.
    fn settings(run: &Run) -> serde_json::Value;

    /// The serving side, on a pinned thread: binds, calls [`Server::listening`], serves and counts
    /// until [`Server::stop`] is set.
    ///
    /// # Errors
    /// When it cannot start, or has to end before its time.
    fn serve(server: Server) -> Result<(), Fault>;

    /// The driving side, on a pinned thread: calls [`Client::ready`] when its work is about to
    /// begin, works and counts until the meter stops it.
    ///
    /// # Errors
    /// When it cannot start, or has to end before its time.
    fn drive(client: Client) -> Result<Outcome, Fault>;
}

/// The whole program of a peer: what its `main` returns.
pub fn main<P: Peer>() -> ExitCode {
    let args = args::Args::parse();
    let run = match args.run() {
        Ok(run) => run,
        Err(sentence) => return end::<P>(&sentence, USAGE),
    };
    if let Some(sentence) = P::refuses(&run) {
        return end::<P>(&sentence, NOT_OFFERED);
    }
    let done = match args.serve {
        Some(directory) => idle::serve::<P>(&run, &directory),
        None => measure::<P>(&run, args.json),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => end::<P>(&fault.to_string(), FAILED),
    }
}

/// The exit code of a run that failed.
const FAILED: u8 = 1;

fn end<P: Peer>(sentence: &str, code: u8) -> ExitCode {
    tell(&format!("{}: {sentence}", P::NAME));
    ExitCode::from(code)
}

fn measure<P: Peer>(run: &Run, json: bool) -> Result<(), Fault> {
    let measured = match run.work {
        Work::Idle => idle::run::<P>(run)?,
        _ => frame::run::<P>(run)?,
    };
    output::print::<P>(run, &measured, json)
}
