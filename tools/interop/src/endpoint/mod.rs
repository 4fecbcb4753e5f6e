//! corelane as an endpoint of interop tests: hq-interop on the async face of the library.

mod client;
mod server;
mod tls;

pub use client::{Fetched, fetch};
pub use server::{Server, serve};

use corelane::api::{EngineConfig, Qlog, TransportConfig};
use corelane::wire::Version;
use corelane_hq::Case;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Handshakes under heavy loss take long; the runner bounds the whole.
const HANDSHAKE: Duration = Duration::from_secs(120);
/// A client's silence after which it makes itself heard.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// What a path of 1,500 bytes carries beside an IPv6 header.
const MTU: usize = 1452;
/// Paths of a connection, in the case that is about them.
const PATHS: u32 = 4;

/// Logs to QLOGDIR, if that is set and can be written to.
fn qlog() -> Option<&'static Qlog> {
    static QLOG: OnceLock<Option<Qlog>> = OnceLock::new();
    let begin = || Qlog::from_env().inspect_err(|e| eprintln!("QLOGDIR: {e}"));
    QLOG.get_or_init(|| begin().ok().flatten()).as_ref()
}

fn engine(bind: Option<SocketAddr>, case: Case) -> EngineConfig {
    let mut transport = TransportConfig::default();
    transport.handshake_deadline = HANDSHAKE;
    transport.max_idle_timeout = HANDSHAKE;
    transport.mtu.max = MTU;
    if bind.is_some() {
        // A client that only receives would not be found again at its new address.
        transport.keep_alive_interval = Some(KEEP_ALIVE);
    }
    // The runner's cases want at most 1,000 streams at a time, and windows that grow.
    transport.streams.max_streams_bidi = 100;
    transport.streams.stream_window = 256 << 10;
    transport.streams.connection_window = 512 << 10;
    if case == Case::V2 {
        // Client and server both prefer version 2, and the client begins with version 1.
        transport.versions = vec![Version::V2, Version::V1];
        transport.first_version = Some(Version::V1);
        transport.preferred_version = Some(Version::V2);
    }
    if case == Case::Multipath {
        transport.max_paths = PATHS;
    }
    transport.observers = qlog().map(Qlog::observers);
    let mut config = EngineConfig::new("interop");
    config.transport = Arc::new(transport);
    if let Some(addr) = bind {
        config.bind = corelane::shard::engine::Bind::Shared(addr);
    }
    config
}
