//! The async face over real sockets: on an executor of one thread that knows nothing of I/O, and on
//! tokio. Every test runs under a watchdog, so that a lost wake-up is a failure and not a hang.

#[path = "common/certs.rs"]
#[allow(dead_code, reason = "made for more tests than these")]
mod certs;

#[path = "api/adapters.rs"]
mod adapters;
#[path = "api/auto.rs"]
mod auto;
#[path = "api/cancel.rs"]
mod cancel;
#[path = "api/connections.rs"]
mod connections;
#[path = "api/early.rs"]
mod early;
#[path = "api/moves.rs"]
mod moves;
#[path = "api/namespace.rs"]
mod namespace;
#[path = "api/paths.rs"]
mod paths;
#[path = "api/seeing.rs"]
mod seeing;
#[path = "api/sockets.rs"]
mod sockets;
#[path = "api/streams.rs"]
mod streams;
#[path = "api/util.rs"]
mod util;
