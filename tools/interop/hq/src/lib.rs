//! What every endpoint of the interop runner shares: its command line, its environment, files by
//! path, and hq-interop's one line of request.
//!
//! hq-interop is HTTP/0.9 over QUIC: a client opens a bidirectional stream, sends `GET /path` and a
//! line end, and finishes; the server answers with the file's bytes and finishes. Endpoints follow
//! the conventions of quic-interop-runner: `TESTCASE` names the case and an unknown one ends with
//! exit code 127; `REQUESTS` may hold the URLs; `SSLKEYLOGFILE` and `QLOGDIR` say where to log.
//!
//! It depends on nothing, so that peers with any transport can share it.

mod args;
mod case;
mod files;
mod url;

pub use args::{Args, ClientArgs, ServerArgs, USAGE, parse};
pub use case::Case;
pub use files::{Wanted, read, request, save};
pub use url::Url;

/// What hq-interop is called in ALPN.
pub const ALPN: &[u8] = b"hq-interop";
/// The exit code that says a case is not supported.
pub const UNSUPPORTED: u8 = 127;
/// Longest request line that a server reads.
pub const MAX_REQUEST: usize = 4096;
/// Largest file that a client takes.
pub const MAX_FILE: usize = 256 << 20;

/// Says where else the server listens; before [`announce`].
pub fn announce_also(addr: std::net::SocketAddr) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout().lock(), "also on {addr}");
}

/// Says that the server is ready, in the words that the runner waits for.
pub fn announce(addr: std::net::SocketAddr) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "listening on {addr}");
    let _ = out.flush();
}
