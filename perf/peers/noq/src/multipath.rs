//! noq over several paths: bulk data to a server in this process, through links that are shaped
//! apart if that is asked for, one of which may be killed halfway. Prints one JSON object: goodput,
//! the longest time without delivery, and the paths that were still there at the end.
//!
//! All settings but the number of paths are noq's own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use corelane_bench_peer::Fault;
use corelane_perf::program::Profile;
use corelane_perf::tls::{self, Certificates, SERVER_NAME};
use corelane_perf::{flags, output};
use corelane_relay::{Change, Config, LinkConfig, PathConfig, Relay};
use noq::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use noq::{
    ClientConfig, Connection, Endpoint, EndpointConfig, FourTuple, Path, PathError, PathStatus,
    ServerConfig, TokioRuntime, TransportConfig, VarInt,
};

/// How often deliveries are looked for.
const STEP: Duration = Duration::from_millis(1);
/// Bytes of a write.
const CHUNK: usize = 1 << 20;
/// UDP payload that a link carries, and how long datagrams wait for it, as `corelane bench` has it.
const LINK: (usize, Duration) = (1472, Duration::from_millis(50));

/// Measures noq over several paths on loopback.
#[derive(Parser)]
struct Args {
    /// Paths
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=8))]
    paths: u8,
    /// The links, as `corelane bench --link` takes them
    #[arg(long)]
    link: Vec<String>,
    /// The path that is killed halfway
    #[arg(long)]
    kill: Option<usize>,
    /// Seconds after which a path that hears nothing is given up
    #[arg(long, value_parser = flags::window)]
    path_idle: Option<f64>,
    /// Seconds to measure
    #[arg(long, default_value_t = 5.0, value_parser = flags::window)]
    seconds: f64,
    /// Seconds to leave out before
    #[arg(long, default_value_t = 1.0, value_parser = flags::seconds)]
    omit: f64,
    /// Print JSON, which is the only form
    #[arg(short = 'J', long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match measure(&args) {
        Ok(report) => output::finish(&format!("{report}\n"), ExitCode::SUCCESS),
        Err(fault) => {
            output::tell(&format!("noq: {fault}"));
            ExitCode::FAILURE
        }
    }
}

fn runtime(core: usize) -> Result<tokio::runtime::Runtime, Fault> {
    core_affinity::set_for_current(core_affinity::CoreId { id: core });
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_all().build()?)
}

fn transport(args: &Args) -> Result<Arc<TransportConfig>, Fault> {
    let mut transport = TransportConfig::default();
    transport.max_concurrent_multipath_paths(u32::from(args.paths.max(2)));
    if let Some(idle) = args.path_idle {
        let idle = Duration::from_secs_f64(idle);
        transport.default_path_max_idle_timeout(Some(idle));
        transport.default_path_keep_alive_interval(Some(idle / 3));
    }
    Ok(Arc::new(transport))
}

/// The relay before the server, if there are links.
fn relay(args: &Args, server: SocketAddr) -> Result<Option<Relay>, Fault> {
    let Some(last) = args.link.last() else {
        return Ok(None);
    };
    let mut paths = Vec::new();
    for n in 0..args.paths {
        let text = args.link.get(usize::from(n)).unwrap_or(last);
        let mut link = LinkConfig {
            mtu: LINK.0,
            queue: usize::MAX,
            queue_time: Some(LINK.1),
            ..LinkConfig::default()
        };
        for change in Change::parse(text)? {
            let Change::Set(None, knob) = change else {
                return Err(format!("`{text}` is not the same in both directions").into());
            };
            link.set(knob);
        }
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        paths.push(PathConfig {
            client: Some(local(n)),
            ..PathConfig::new(here, server).with_link(link)
        });
    }
    Ok(Some(Relay::start(Config::of_paths(paths))?))
}

fn local(path: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, path + 1).into()
}

fn measure(args: &Args) -> Result<serde_json::Value, Fault> {
    if let Some(path) = args.kill
        && (args.link.is_empty() || path >= usize::from(args.paths))
    {
        return Err(format!("--kill {path}: there is no such path with a --link").into());
    }
    let certificates = Certificates::make()?;
    let authority = certificates.authority.clone();
    let crypto = certificates.server(Profile::Default, false)?;
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(crypto)?));
    config.transport_config(transport(args)?);
    let bytes = Arc::new(AtomicU64::new(0));
    let (tell, told) = std::sync::mpsc::channel();
    let counted = bytes.clone();
    std::thread::spawn(move || {
        let served = || -> Result<(), Fault> { runtime(0)?.block_on(serve(config, counted, tell)) };
        if let Err(fault) = served() {
            output::tell(&format!("noq: {fault}"));
        }
    });
    let server = told.recv()?;
    let relay = relay(args, server)?;
    let addr = relay.as_ref().map_or(server, Relay::addr);
    let crypto = tls::client(authority, Profile::Default, None)?;
    let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(crypto)?));
    client.transport_config(transport(args)?);
    runtime(1)?.block_on(run(args, client, addr, &bytes, relay.as_ref()))
}

async fn serve(
    config: ServerConfig,
    bytes: Arc<AtomicU64>,
    tell: std::sync::mpsc::Sender<SocketAddr>,
) -> Result<(), Fault> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let runtime = Arc::new(TokioRuntime);
    let endpoint = Endpoint::new(EndpointConfig::default(), Some(config), socket, runtime)?;
    tell.send(endpoint.local_addr()?)?;
    while let Some(incoming) = endpoint.accept().await {
        let connection = incoming.await?;
        let bytes = bytes.clone();
        tokio::spawn(async move {
            while let Ok(mut recv) = connection.accept_uni().await {
                while let Ok(Some(chunk)) = recv.read_chunk(usize::MAX).await {
                    bytes.fetch_add(chunk.len() as u64, Relaxed);
                }
            }
        });
    }
    Ok(())
}

/// Opens the paths beside the first, as soon as the server permits.
async fn open(connection: &Connection, args: &Args, addr: SocketAddr) -> Result<Vec<Path>, Fault> {
    connection.handshake_confirmed().await?;
    let mut paths = Vec::new();
    for n in 1..args.paths {
        let tuple = FourTuple::new(addr, Some(local(n)));
        loop {
            match connection.open_path(tuple, PathStatus::Available).await {
                Ok(path) => break paths.push(path),
                Err(PathError::RemoteCidsExhausted) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(e) => return Err(e.into()),
            }
        }
    }
    Ok(paths)
}

async fn run(
    args: &Args,
    config: ClientConfig,
    addr: SocketAddr,
    bytes: &AtomicU64,
    relay: Option<&Relay>,
) -> Result<serde_json::Value, Fault> {
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let endpoint = Endpoint::client(any)?;
    endpoint.set_default_client_config(config);
    let connection = endpoint.connect(addr, SERVER_NAME)?.await?;
    let paths = open(&connection, args, addr).await?;
    let mut send = connection.open_uni().await?;
    tokio::spawn(async move {
        let chunk = Bytes::from(vec![0x5a; CHUNK]);
        while send.write_chunk(chunk.clone()).await.is_ok() {}
    });
    tokio::time::sleep(Duration::from_secs_f64(args.omit)).await;
    let begin = Instant::now();
    let window = Duration::from_secs_f64(args.seconds);
    let before = bytes.load(Relaxed);
    let (mut last, mut last_at, mut stall) = (before, begin, Duration::ZERO);
    let mut kill = args.kill;
    while begin.elapsed() < window {
        tokio::time::sleep(STEP).await;
        let (now, delivered) = (Instant::now(), bytes.load(Relaxed));
        stall = stall.max(now - last_at);
        if delivered != last {
            (last, last_at) = (delivered, now);
        }
        if let (Some(path), Some(relay)) = (kill, relay)
            && begin.elapsed() >= window / 2
        {
            relay.change(path, Change::Blackhole(None));
            kill = None;
        }
    }
    let (elapsed, moved) = (begin.elapsed(), last - before);
    let open = paths.iter().filter(|p| p.status().is_ok()).count()
        + usize::from(
            connection
                .path(noq::PathId::ZERO)
                .is_some_and(|p| p.status().is_ok()),
        );
    connection.close(VarInt::from_u32(0), b"");
    tokio::time::sleep(Duration::from_millis(20)).await;
    Ok(serde_json::json!({
        "goodput_bits_per_second": moved as f64 * 8.0 / elapsed.as_secs_f64(),
        "longest_stall_ms": stall.as_secs_f64() * 1e3,
        "paths_open": open,
    }))
}
