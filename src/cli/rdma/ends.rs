//! Engines with lanes, and the server.

use super::app::{CliApp, Order, Told};
use super::args::RdmaServerArgs;
use crate::cli::args::{Cipher, ProviderArg};
use crate::cli::provider::provider;
use crate::cli::tls::Identity;
use crate::cli::{Failure, output, signal};
use corelane::conn::TransportConfig;
use corelane::rdma::bootstrap::ALPN;
use corelane::rdma::roce::Device;
use corelane::shard::Context;
use corelane::shard::engine::{Bind, Engine, EngineConfig, Idle};
use corelane::shard::lanes::{LaneConfig, LaneShard, RoceSetup};
use corelane::sys::affinity::Core;
use corelane::sys::netlink::RouteWatcher;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

const STEP: Duration = Duration::from_millis(20);
/// How long the kernel may take to name its addresses, in steps of a millisecond.
const PATIENCE: u32 = 200;

/// An engine whose shards have lanes.
pub type LaneEngine = Engine<LaneShard<Device, CliApp>>;

/// How an engine is made.
pub struct Setup {
    pub name: &'static str,
    pub shards: usize,
    pub bind: Bind,
    pub cores: Vec<Core>,
    pub idle: Idle,
    pub server: Option<Arc<rustls::ServerConfig>>,
    /// Where RoCE is; `None` goes without.
    pub roce: Option<(IpAddr, u16)>,
    pub lanes: LaneConfig,
}

/// Starts an engine; what its lanes tell goes to `told`, or messages go back where there is none.
pub fn start(setup: Setup, told: Option<&mpsc::Sender<Told>>) -> Result<LaneEngine, Failure> {
    let mut config = EngineConfig::new(setup.name);
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout = Duration::from_secs(30);
    transport.keep_alive_interval = Some(Duration::from_secs(10));
    transport.streams.max_streams_bidi = 1;
    config.transport = Arc::new(transport);
    config.shards = setup.shards;
    config.bind = setup.bind;
    config.cores = setup.cores;
    config.idle = setup.idle;
    config.server = setup.server;
    let mut sockets = Vec::new();
    if let Some((ip, port)) = setup.roce {
        let own = if ip.is_unspecified() {
            addresses(ip)?
        } else {
            Vec::new()
        };
        for n in 0..setup.shards {
            let port = if port == 0 {
                0
            } else {
                port.saturating_add(n as u16)
            };
            let bound = RoceSetup::bind(ip, port, &own);
            sockets.push(Some(bound.map_err(|e| {
                Failure::Failed(format!(
                    "cannot bind RoCE to {}: {e}",
                    SocketAddr::new(ip, port)
                ))
            })?));
        }
    }
    let engine = Engine::start(&config, |shard| {
        let setup_of = sockets.get_mut(shard).and_then(Option::take);
        let open = move |ctx: &mut Context<'_>| setup_of.map_or(Ok(None), |s| s.open(ctx));
        LaneShard::new(setup.lanes.clone(), open, CliApp::new(told.cloned()))
    });
    engine.map_err(|e| Failure::start(e, "--listen"))
}

/// This machine's addresses of the family of `ip`.
fn addresses(ip: IpAddr) -> Result<Vec<IpAddr>, Failure> {
    let failed = |e| Failure::Failed(format!("cannot ask for this machine's addresses: {e}"));
    let mut watcher = RouteWatcher::new().map_err(failed)?;
    let mut events = Vec::new();
    for _ in 0..PATIENCE {
        watcher.read(&mut events).map_err(failed)?;
        if watcher.is_settled() {
            break;
        }
        thread::sleep(Duration::from_millis(1));
    }
    let all = watcher.addresses().map(|a| a.ip);
    Ok(all
        .filter(|a| ip.is_ipv6() || a.is_ipv4())
        .take(256)
        .collect())
}

/// TLS of a server of lanes.
pub fn server_tls(identity: Identity) -> Result<Arc<rustls::ServerConfig>, Failure> {
    let provider = provider(ProviderArg::default(), Cipher::Aes128)?;
    let mut tls = (*identity.server(provider, false)?).clone();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(tls))
}

/// Ends every shard of an engine in order.
pub fn end(engine: LaneEngine) -> Result<(), Failure> {
    for sender in engine.senders() {
        // A shard that is gone has ended.
        let _ = sender.send(Order::Shutdown);
    }
    engine.join()?;
    Ok(())
}

/// `corelane rdma server`.
pub fn serve(args: &RdmaServerArgs) -> Result<(), Failure> {
    signal::catch()?;
    let identity = match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => Identity::read(cert, key)?,
        _ => Identity::generate()?,
    };
    let fingerprint = identity.fingerprint();
    let setup = Setup {
        name: "rdma",
        shards: args.shards,
        bind: Bind::Shared(args.listen),
        cores: Vec::new(),
        idle: Idle::default(),
        server: Some(server_tls(identity)?),
        roce: (!args.no_rdma).then(|| (args.listen.ip(), args.roce_port)),
        lanes: LaneConfig::default(),
    };
    let engine = start(setup, None)?;
    let addr = engine.local_addrs().first().copied().unwrap_or(args.listen);
    let over = if args.no_rdma {
        "QUIC"
    } else {
        "RoCE v2 in user space, or QUIC"
    };
    output::print(&format!(
        "listening on {addr}: lanes over {over}\ncertificate SHA-256 {fingerprint}\n"
    ))?;
    if !args.no_rdma {
        output::tell("TLS protects the bootstrap; what goes over RDMA is NOT encrypted");
    }
    while !signal::came() && !engine.has_ended() {
        thread::sleep(STEP);
    }
    end(engine)
}
