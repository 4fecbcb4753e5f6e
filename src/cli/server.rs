//! `corelane server`: serves the workloads until it is stopped.

use super::args::ServerArgs;
use super::bench::{Live, ServerApp, ServerConfig};
use super::{Failure, output, setup, tls};
use corelane::shard::engine::{Bind, Engine};
use corelane::sys::affinity;
use std::time::Duration;

/// Serves.
pub fn run(args: &ServerArgs) -> Result<(), Failure> {
    let shards = args
        .shards
        .unwrap_or_else(|| affinity::cores().len().min(255));
    let (cores, _) = setup::cores(&args.engine, shards, 0)?;
    let identity = match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => tls::Identity::read(cert, key)?,
        _ => tls::Identity::generate()?,
    };
    let fingerprint = identity.fingerprint();
    let transport = setup::transport(&args.engine, Duration::ZERO);
    let mut config = setup::engine("server", shards, cores, &args.engine, transport);
    config.bind = Bind::Shared(args.listen);
    config.server = Some(identity.server(args.resume)?);
    let live = Live::new(shards);
    let engine = Engine::start(&config, |shard| {
        let config = ServerConfig {
            max_connections: args.max_connections,
            records: None,
        };
        ServerApp::new(shard, live.clone(), config)
    })?;
    let addr = engine.local_addrs().first().copied().unwrap_or(args.listen);
    output::print(&format!(
        "listening on {addr}: {shards} {} on {}\ncertificate SHA-256 {fingerprint}\n",
        if shards == 1 { "shard" } else { "shards" },
        engine.backend(),
    ))?;
    // Until a signal ends the process, or a shard breaks.
    engine.join()?;
    Ok(())
}
