//! `corelane bench` and `corelane client`: measurements, one workload after the other.
//!
//! The coordinator in `run` starts shards, gives orders and reads counters; `server` and `client`
//! are the applications on the shards, which share nothing but what `live` and `protocol` say.
//! `plan` turns flags into workloads, `results` turns what was measured into output.

mod apart;
mod arrivals;
mod bulk;
mod client;
mod failover;
mod idle;
mod live;
mod plan;
mod protocol;
mod results;
mod run;
mod server;
mod table;
mod tally;

use super::args::{BenchArgs, ClientArgs, EngineArgs, LoadArgs, SeeArgs};
use super::output::{self, Progress};
use super::paths::{LinkArgs, Ways};
use super::provider::provider;
use super::see::Seeing;
use super::{Failure, setup, signal, tls};
use client::Target;
use corelane::conn::TransportConfig;
use corelane::shard::engine::{Bind, EngineConfig};
use corelane::sys::affinity::Core;
pub use live::Live;
use plan::Spec;
use results::Results;
use run::{Place, Run};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
pub use server::{Order, ServerApp, ServerConfig};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// The links of `failover` unless told otherwise: far enough for a round trip to show.
const FAILOVER_LINK: &str = "delay=10,rate=100";

/// Measures over loopback.
pub fn run(args: &BenchArgs) -> Result<(), Failure> {
    let server_shards = args.server_shards.or(args.shards).unwrap_or(1);
    let client_shards = args.client_shards.or(args.shards).unwrap_or(1);
    let mut specs = plan::specs(args.workload, &args.load, client_shards)?;
    plan::with_paths(&mut specs, args.workload, &args.paths, &args.links)?;
    let (server_cores, client_cores) = setup::cores(&args.engine, server_shards, client_shards)?;
    if args.serve_apart {
        return apart::serve(args, server_shards, server_cores);
    }
    if args.apart {
        for spec in &mut specs {
            if !spec.idle || spec.time > apart::LONGEST {
                let why = "--apart is for connections only, and for 300 s at most";
                return Err(Failure::Usage(why.into()));
            }
            spec.name = "idle".into();
        }
    }
    let sides = (server_shards, server_cores, client_shards, client_cores);
    let provider = provider(args.engine.provider, args.load.cipher)?;
    let paths = args.paths.describe(&args.links);
    measure(&specs, &args.load, &args.engine, &args.see, paths, |spec| {
        loopback(spec, args, &provider, &sides)
    })
}

/// Measures against a server on another host.
pub fn run_remote(args: &ClientArgs) -> Result<(), Failure> {
    let mut specs = plan::specs(args.workload, &args.load, args.shards)?;
    let links = LinkArgs::default();
    plan::with_paths(&mut specs, args.workload, &args.paths, &links)?;
    if specs.iter().any(|s| s.kill.is_some()) {
        let why = "failover is for `bench`: the paths that it kills are in this process";
        return Err(Failure::Usage(why.into()));
    }
    let near = matches!(args.server.ip(), IpAddr::V4(ip) if ip.is_loopback());
    let ways = Ways::new(&args.paths, &links, near)?;
    if let Some(caution) = ways.caution() {
        output::tell(&caution);
    }
    let (_, cores) = setup::cores(&args.engine, 0, args.shards)?;
    let trust = tls::Trust::from_args(&args.trust)?;
    let target = Target {
        addr: args.server,
        name: ServerName::from(args.server.ip()),
        tls: trust.client(
            provider(args.engine.provider, args.load.cipher)?,
            args.load.resume,
        )?,
        remote: true,
        ways,
    };
    let paths = args.paths.describe(&links);
    measure(&specs, &args.load, &args.engine, &args.see, paths, |spec| {
        let any: IpAddr = match args.server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let mut client = client_engine(spec, &args.engine, args.shards, cores.clone(), any);
        let mut target = target.clone();
        target.ways.paths = spec.paths;
        args.paths
            .apply(Arc::make_mut(&mut client.transport), spec.paths)?;
        if !target.ways.is_plain() {
            client.bind = connected(&target.ways, target.addr, args.shards)?;
        }
        Ok((client, target, Place::Away))
    })
}

/// Runs each workload on engines of its own, which `prepare` configures, and shows the results.
/// What was measured before a failure is shown as well.
fn measure(
    specs: &[Spec],
    load: &LoadArgs,
    engine: &EngineArgs,
    see: &SeeArgs,
    paths: serde_json::Value,
    prepare: impl Fn(&Spec) -> Result<(EngineConfig, Target, Place), Failure>,
) -> Result<(), Failure> {
    signal::catch()?;
    let see = Seeing::begin(see)?;
    let progress = Progress::new();
    let mut files = results::Files::create(load)?;
    let mut hlog = files.hlog()?;
    let mut results = Results::new(specs, engine, paths);
    let mut failure = None;
    for spec in specs {
        progress.line(&format!("{}:", spec.name));
        let outcome = prepare(spec).and_then(|(client, target, place)| {
            Run::new(spec, load.interval, client, target, place, &see)?.measure(
                &mut results,
                |what| {
                    if let results::Told::Interval(interval) = &what {
                        progress.line(&super::report::table::interval(interval));
                    }
                    hlog.as_mut().map_or(Ok(()), |hlog| hlog.tell(&what))
                },
            )
        });
        let outcome = match signal::came() {
            true => outcome.and(Err(Failure::Stopped)),
            false => outcome,
        };
        if let Err(e) = outcome {
            failure = Some(e);
            break;
        }
    }
    drop(hlog);
    see.end();
    results.finish(failure.as_ref());
    files.write(&results)?;
    if load.json || !results.is_empty() {
        results.print(load.json)?;
    }
    failure.map_or(Ok(()), Err)
}

/// Server shards and client shards, with a certificate made for the run: both in this process, or
/// the server's apart.
fn loopback(
    spec: &Spec,
    args: &BenchArgs,
    provider: &Arc<CryptoProvider>,
    (server_shards, server_cores, client_shards, client_cores): &(
        usize,
        Vec<Core>,
        usize,
        Vec<Core>,
    ),
) -> Result<(EngineConfig, Target, Place), Failure> {
    let here: IpAddr = Ipv4Addr::LOCALHOST.into();
    let time = if args.apart {
        apart::LONGEST
    } else {
        spec.time + spec.omit
    };
    let mut transport = setup::transport(&args.engine, time);
    args.paths
        .apply(Arc::make_mut(&mut transport), spec.paths)?;
    let mut addr = SocketAddr::new(here, 0);
    let (trust, place) = if args.apart {
        let server = apart::Server::start()?;
        addr = server.addr;
        (server.trust()?, Place::Apart(server))
    } else {
        let identity = tls::Identity::generate()?;
        let roots = identity.root().cloned().into_iter().collect();
        let cores = server_cores.clone();
        let transport = transport.clone();
        let server = server_engine(args, identity, provider, *server_shards, cores, transport)?;
        (tls::Trust::Roots(roots), Place::Here(Box::new(server)))
    };
    let mut ways = Ways::new(&args.paths, &args.links, true)?;
    ways.paths = spec.paths;
    if spec.kill.is_some() {
        ways.default_link(FAILOVER_LINK)?;
    }
    let target = Target {
        addr,
        name: tls::loopback_name(),
        tls: trust.client(provider.clone(), args.load.resume)?,
        remote: false,
        ways,
    };
    let cores = client_cores.clone();
    let mut client = setup::engine("client", *client_shards, cores, &args.engine, transport);
    client.bind = Bind::Each(here);
    Ok((client, target, place))
}

/// A socket of each shard for the first path of its connections.
fn connected(ways: &Ways, server: SocketAddr, shards: usize) -> Result<Bind, Failure> {
    let sockets = (0..shards).map(|_| ways.socket(0, server));
    Ok(Bind::sockets(sockets.collect::<Result<Vec<_>, _>>()?))
}

/// The engine of a loopback server.
fn server_engine(
    args: &BenchArgs,
    identity: tls::Identity,
    provider: &Arc<CryptoProvider>,
    shards: usize,
    cores: Vec<Core>,
    transport: Arc<TransportConfig>,
) -> Result<EngineConfig, Failure> {
    let mut server = setup::engine("server", shards, cores, &args.engine, transport);
    server.bind = Bind::Shared(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0));
    server.server = Some(identity.server(provider.clone(), args.load.resume)?);
    Ok(server)
}

fn client_engine(
    spec: &Spec,
    args: &EngineArgs,
    shards: usize,
    cores: Vec<Core>,
    from: IpAddr,
) -> EngineConfig {
    let time: Duration = spec.time + spec.omit;
    let mut config = setup::engine("client", shards, cores, args, setup::transport(args, time));
    config.bind = Bind::Each(from);
    config
}
