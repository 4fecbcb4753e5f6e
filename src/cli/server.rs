//! `corelane server`: serves the workloads until it is stopped.

use super::args::{Cipher, ServerArgs};
use super::bench::{Live, Order, ServerApp, ServerConfig};
use super::provider::provider;
use super::see::Seeing;
use super::{Failure, output, setup, signal, tls};
use corelane::shard::engine::{Bind, Engine};
use corelane::sys::affinity;
use corelane::sys::clock::Clock;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// How often to look for signals.
const STEP: Duration = Duration::from_millis(20);
/// How long to wait for connections to close.
const DRAIN: Duration = Duration::from_millis(500);

/// Serves.
pub fn run(args: &ServerArgs) -> Result<(), Failure> {
    let fits = args.policy.check(args.paths, true);
    fits.map_err(Failure::Usage)?;
    signal::catch()?;
    let shards = args
        .shards
        .unwrap_or_else(|| affinity::cores().len().min(255));
    let (cores, _) = setup::cores(&args.engine, shards, 0)?;
    let identity = match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => tls::Identity::read(cert, key)?,
        _ => tls::Identity::generate()?,
    };
    let fingerprint = identity.fingerprint();
    let see = Seeing::begin(&args.see)?;
    let mut transport = setup::transport(&args.engine, Duration::ZERO);
    let settings = Arc::make_mut(&mut transport);
    settings.max_paths = args.paths as u32;
    settings.multipath = args.policy.config().map_err(Failure::Usage)?;
    let mut config = setup::engine("server", shards, cores, &args.engine, transport);
    config.bind = Bind::Shared(args.listen);
    let mut tls = identity.server(provider(args.engine.provider, Cipher::Aes128)?, args.resume)?;
    see.server(&mut tls);
    config.server = Some(tls);
    see.engine(&mut config);
    config.quic_lb.clone_from(&args.server_id);
    let live = Live::new(shards);
    let engine = Engine::start(&config, |shard| {
        let config = ServerConfig {
            max_connections: args.max_connections,
            records: None,
        };
        ServerApp::new(shard, live.clone(), config)
    });
    let engine = engine.map_err(|e| Failure::start(e, "--listen"))?;
    see.show(vec![engine.metrics_reader()]);
    let addr = engine.local_addrs().first().copied().unwrap_or(args.listen);
    output::print(&format!(
        "listening on {addr}: {shards} {} on {}\ncertificate SHA-256 {fingerprint}\n",
        if shards == 1 { "shard" } else { "shards" },
        engine.backend(),
    ))?;
    let ended = serve(engine, &live);
    see.end();
    ended
}

/// Waits until a signal comes, or a shard breaks; then tells the clients.
fn serve(mut engine: Engine<ServerApp>, live: &Live) -> Result<(), Failure> {
    while !signal::came() && !engine.has_ended() {
        thread::sleep(STEP);
    }
    for sender in engine.senders() {
        // A shard that is gone, or too busy for a word, is ended all the same.
        let _ = sender.send(Order::Close);
    }
    let begin = Clock::now();
    let open = || live.sum(|c| &c.closed) < live.sum(|c| &c.connected);
    while open() && !engine.has_ended() && Clock::now() - begin < DRAIN {
        thread::sleep(Duration::from_millis(1));
    }
    engine.stop();
    engine.join()?;
    Ok(())
}
