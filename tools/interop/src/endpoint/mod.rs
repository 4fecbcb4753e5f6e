//! corelane as an endpoint of interop tests: hq-interop on the async face of the library.

mod client;
mod server;
mod tls;

pub use client::{Fetched, fetch};
pub use server::{Server, serve};

use corelane::api::{EngineConfig, TransportConfig};
use corelane_hq::Case;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Whether corelane plays a case.
pub fn supports(case: Case) -> bool {
    !matches!(case, Case::ZeroRtt | Case::V2 | Case::ConnectionMigration)
}

/// Handshakes under heavy loss take long; the runner bounds the whole.
const HANDSHAKE: Duration = Duration::from_secs(120);
/// What a path of 1,500 bytes carries beside an IPv6 header.
const MTU: usize = 1452;

fn engine(bind: Option<SocketAddr>) -> EngineConfig {
    let mut transport = TransportConfig::default();
    transport.handshake_deadline = HANDSHAKE;
    transport.max_idle_timeout = HANDSHAKE;
    transport.mtu.max = MTU;
    // The runner's cases want at most 1,000 streams at a time, and windows that grow.
    transport.streams.max_streams_bidi = 100;
    transport.streams.stream_window = 256 << 10;
    transport.streams.connection_window = 512 << 10;
    let mut config = EngineConfig::new("interop");
    config.transport = Arc::new(transport);
    if let Some(addr) = bind {
        config.bind = corelane::shard::engine::Bind::Shared(addr);
    }
    config
}
