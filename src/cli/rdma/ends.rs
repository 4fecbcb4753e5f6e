//! Engines with lanes, and the server.

use super::app::{CliApp, Order, Told};
use super::args::{ProviderArgs, ProviderName, RdmaServerArgs};
use crate::cli::args::{Cipher, ProviderArg};
use crate::cli::provider::provider;
use crate::cli::tls::Identity;
use crate::cli::{Failure, output, signal};
use corelane::conn::TransportConfig;
use corelane::rdma::AnyDevice;
use corelane::rdma::bootstrap::ALPN;
use corelane::rdma::verbs::Unavailable;
use corelane::shard::Context;
use corelane::shard::engine::{Bind, Engine, EngineConfig, Idle};
use corelane::shard::lanes::{LaneConfig, LaneShard, PortConfig, Ports};
use corelane::sys::affinity::Core;
use corelane::sys::clock::Clock;
use corelane::sys::netlink::RouteWatcher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

const STEP: Duration = Duration::from_millis(20);
/// How long a server that ends waits for its clients' goodbyes.
pub const GOODBYE: Duration = Duration::from_secs(3);
/// How long the kernel may take to name its addresses, in steps of a millisecond.
const PATIENCE: u32 = 200;

/// An engine whose shards have lanes.
pub type LaneEngine = Engine<LaneShard<AnyDevice, CliApp>>;

/// How an engine is made.
pub struct Setup {
    pub name: &'static str,
    pub shards: usize,
    pub bind: Bind,
    pub cores: Vec<Core>,
    pub idle: Idle,
    pub server: Option<Arc<rustls::ServerConfig>>,
    pub lanes: LaneConfig,
}

/// What the flags ask for at `ip`.
fn asked_for(ip: IpAddr, args: &ProviderArgs) -> PortConfig {
    let mut config = PortConfig::new(ip);
    config.provider = args.rdma_provider.into();
    config.device.clone_from(&args.rdma_device);
    config.roce_port = args.roce_port;
    config
}

/// The loopback interface's address: of IPv6, whose packets are checked in full and leave by a
/// connected socket, where there is IPv6.
fn loopback() -> IpAddr {
    let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    match UdpSocket::bind((v6, 0)) {
        Ok(_) => v6,
        Err(_) => Ipv4Addr::LOCALHOST.into(),
    }
}

/// Where to be when the flags leave it open: where the device is that they choose, else on the
/// loopback interface.
pub fn place(args: &ProviderArgs) -> Result<IpAddr, Failure> {
    let loopback = loopback();
    if args.no_rdma || args.rdma_provider == ProviderName::Roce {
        return Ok(loopback);
    }
    match asked_for(IpAddr::from([0; 4]), args).device_address() {
        Ok(ip) => Ok(ip),
        Err(_) if args.rdma_provider == ProviderName::Auto && args.rdma_device.is_none() => {
            Ok(loopback)
        }
        Err(missing) => Err(Failure::Failed(missing.to_string())),
    }
}

/// The ports of a shard on this machine that measures: in user space the system chooses the UDP
/// port, for nobody else has to know it.
pub fn own_port(ip: IpAddr, args: &ProviderArgs) -> Result<Option<Ports>, Failure> {
    if args.no_rdma {
        return Ok(None);
    }
    let mut config = asked_for(ip, args);
    config.roce_port = config.roce_port.or(Some(0));
    ports(config, 1).map(Some)
}

/// The ports that the flags ask for at `ip`; one line says which these are.
pub fn ports_at(ip: IpAddr, args: &ProviderArgs, shards: usize) -> Result<Option<Ports>, Failure> {
    if args.no_rdma {
        return Ok(None);
    }
    let ports = ports(asked_for(ip, args), shards)?;
    match (&ports.device, &ports.missing) {
        (Some(device), _) => output::tell(&format!("RDMA by the device {device}")),
        // Nobody asked for what no build or machine without devices can have.
        (None, Some(Unavailable::NotBuilt | Unavailable::NoDriver | Unavailable::NoDevice)) => {
            let missing = ports.missing.as_ref().map(ToString::to_string);
            tracing::debug!(missing, "RDMA in user space");
        }
        (None, Some(missing)) => output::tell(&format!("{missing}; RDMA in user space")),
        (None, None) => {}
    }
    Ok(Some(ports))
}

fn ports(mut config: PortConfig, shards: usize) -> Result<Ports, Failure> {
    if config.ip.is_unspecified() {
        config.addresses = addresses(config.ip)?;
    }
    let ports = config.ports(shards);
    ports.map_err(|e| Failure::Failed(e.to_string()))
}

/// Starts an engine over these ports; without any, lanes run over QUIC. What its lanes tell goes to
/// `told`, or messages go back where there is none. `open` counts the lanes that are.
pub fn start(
    setup: Setup,
    ports: Option<Ports>,
    told: Option<&mpsc::Sender<Told>>,
    open: &Arc<AtomicUsize>,
) -> Result<LaneEngine, Failure> {
    let mut config = EngineConfig::new(setup.name);
    let mut transport = TransportConfig::default();
    let patience = setup.lanes.patience;
    transport.max_idle_timeout = patience.max(Duration::from_secs(30));
    transport.handshake_deadline = transport.handshake_deadline.max(patience);
    transport.keep_alive_interval = Some(Duration::from_secs(10));
    transport.streams.max_streams_bidi = 1;
    config.transport = Arc::new(transport);
    config.shards = setup.shards;
    config.bind = setup.bind;
    config.cores = setup.cores;
    config.idle = setup.idle;
    config.server = setup.server;
    let mut setups = ports.into_iter().flat_map(|p| p.setups);
    let engine = Engine::start(&config, |_| {
        let setup_of = setups.next();
        let port = move |ctx: &mut Context<'_>| setup_of.map_or(Ok(None), |s| s.open(ctx));
        LaneShard::new(
            setup.lanes.clone(),
            port,
            CliApp::new(told.cloned(), open.clone()),
        )
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

/// TLS of a server of lanes, for clients of these authorities alone where some are named.
pub fn server_tls(
    identity: Identity,
    clients: Option<&Path>,
) -> Result<Arc<rustls::ServerConfig>, Failure> {
    let provider = provider(ProviderArg::default(), Cipher::Aes128)?;
    let mut tls = (*identity.server_for(clients, provider, false)?).clone();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(tls))
}

/// Ends every shard of an engine in order, but for lanes whose peers do not answer within `wait`:
/// what waits for them is left as it is, for the process is about to end.
pub fn end_within(engine: LaneEngine, wait: Duration, open: &AtomicUsize) -> Result<(), Failure> {
    for sender in engine.senders() {
        // A shard that is gone has ended.
        let _ = sender.send(Order::Shutdown);
    }
    let until = Clock::now() + wait;
    // Steps since the last lane ended: its connection's last packet has left by then, and what the
    // connection would still wait for is of no use.
    let mut alone = 0;
    while !engine.is_over() {
        alone += u32::from(open.load(Ordering::Relaxed) == 0);
        if alone > 2 || Clock::now() >= until {
            std::mem::forget(engine);
            return Ok(());
        }
        thread::sleep(STEP);
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
    let ports = ports_at(args.listen.ip(), &args.provider, args.shards)?;
    let over = match &ports {
        None => "QUIC".to_owned(),
        Some(Ports { device: None, .. }) => "RoCE v2 in user space, or QUIC".to_owned(),
        Some(Ports {
            device: Some(name), ..
        }) => format!("the RDMA device {name}, or QUIC"),
    };
    let setup = Setup {
        name: "rdma",
        shards: args.shards,
        bind: Bind::Shared(args.listen),
        cores: Vec::new(),
        idle: Idle::default(),
        server: Some(server_tls(identity, args.client_ca.as_deref())?),
        lanes: args.provider.lanes(),
    };
    let protected = ports.is_none();
    let open = Arc::new(AtomicUsize::new(0));
    let engine = start(setup, ports, None, &open)?;
    let addr = engine.local_addrs().first().copied().unwrap_or(args.listen);
    output::print(&format!(
        "listening on {addr}: lanes over {over}\ncertificate SHA-256 {fingerprint}\n"
    ))?;
    if !protected {
        output::tell("TLS protects the bootstrap; what goes over RDMA is NOT encrypted");
    }
    while !signal::came() && !engine.has_ended() {
        thread::sleep(STEP);
    }
    match open.load(Ordering::Relaxed) {
        0 => {}
        n => output::tell(&format!("waiting for {n} lanes; Ctrl-C again ends at once")),
    }
    end_within(engine, GOODBYE, &open)
}
