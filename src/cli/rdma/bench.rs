//! `corelane rdma bench`: one client and one server over loopback, or many of them.

use super::app::{Load, Order, SINK, Told};
use super::args::{Measure, RdmaBenchArgs};
use super::client::Client;
use super::ends::{self, Setup, server_tls};
use crate::cli::args::{Cipher, ProviderArg};
use crate::cli::provider::provider;
use crate::cli::report::hist::Latency;
use crate::cli::tls::{Identity, Trust, loopback_name};
use crate::cli::{Failure, output};
use corelane::rdma::Mtu;
use corelane::rdma::bootstrap::ALPN;
use corelane::shard::engine::{Bind, Idle};
use corelane::shard::lanes::{LaneConfig, LaneEnd, LaneId, LaneInfo, Operation, Target};
use corelane::sys::clock::Clock;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What stands before a message's bytes.
const HEADER: usize = corelane::rdma::lane::HEADER;

fn config(args: &RdmaBenchArgs, size: usize) -> Result<LaneConfig, Failure> {
    let mut config = LaneConfig::default();
    let mtu = Mtu::from_bytes(args.mtu);
    config.plan.mtu =
        mtu.ok_or_else(|| Failure::Usage("--mtu: 256, 512, 1024, 2048 or 4096".into()))?;
    match args.measure {
        Measure::Send | Measure::Latency => {
            config.plan.slot = config.plan.slot.max((size + HEADER) as u32);
            config.plan.window = args.tx_depth.clamp(2, 256) as u32;
        }
        Measure::Write | Measure::Read => {
            config.plan.region = config.plan.region.max(size);
            config.plan.operations = args.tx_depth.min(64) as u32;
        }
        Measure::Setup | Measure::Clients => config.plan.region = 4096,
    }
    Ok(config)
}

/// Measures.
pub fn run(args: &RdmaBenchArgs) -> Result<(), Failure> {
    let small = matches!(args.measure, Measure::Latency);
    let size = args.size.unwrap_or(if small { 64 } else { 65_536 });
    let most = if args.measure == Measure::Send || small {
        65_536 - HEADER as u64
    } else {
        1 << 30
    };
    let size = if args.size.is_none() {
        size.min(most)
    } else {
        size
    };
    if size == 0 || size > most {
        return Err(Failure::Usage(format!("--size: 1 to {most} bytes")));
    }
    let size = size as usize;
    let idle = if args.spin {
        Idle::Spin
    } else {
        Idle::default()
    };
    let identity = Identity::generate()?;
    let provider = provider(ProviderArg::default(), Cipher::Aes128)?;
    let trust = Trust::Roots(identity.root().cloned().into_iter().collect());
    let mut tls = (*trust.client(provider, false)?).clone();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let roce = (!args.no_rdma).then_some(0);
    let setup = Setup {
        name: "rdma-server",
        shards: 1,
        bind: Bind::Shared(SocketAddr::new(args.ip, 0)),
        idle,
        server: Some(server_tls(identity)?),
        roce: roce.map(|port| (args.ip, port)),
        lanes: config(args, size)?,
    };
    let server = ends::start(setup, None)?;
    let target = Target {
        addr: server
            .local_addrs()
            .first()
            .copied()
            .unwrap_or(SocketAddr::new(args.ip, 0)),
        name: loopback_name(),
        tls: Arc::new(tls),
    };
    let client = Client::start(args.ip, roce, idle, config(args, size)?)?;
    match args.measure {
        Measure::Setup => setups(args, &client, &target)?,
        Measure::Clients => clients(args, &client, &target)?,
        _ => load(args, &client, target, size)?,
    }
    ends::end(client.engine)?;
    ends::end(server)
}

fn load(args: &RdmaBenchArgs, client: &Client, target: Target, size: usize) -> Result<(), Failure> {
    let (lane, info) = client.open(target)?;
    // The server's welcome comes first, and is none of what is measured.
    while !matches!(client.hear()?, Told::Message(_)) {}
    let count = args.iters.unwrap_or(20_000);
    let (local, remote, len) = (0, 0, size as u32);
    let load = Load {
        operation: match args.measure {
            Measure::Write => Some(Operation::Write { local, remote, len }),
            Measure::Read => Some(Operation::Read { local, remote, len }),
            _ => None,
        },
        tag: if args.measure == Measure::Send {
            SINK
        } else {
            0
        },
        size,
        count,
        depth: if args.measure == Measure::Latency {
            1
        } else {
            args.tx_depth
        },
    };
    client.order(Order::Load(lane, load))?;
    let (time, times) = loop {
        match client.hear()? {
            Told::Loaded(time, times) => break (time, times),
            Told::Closed(why) => return Err(Failure::Failed(why.to_string())),
            _ => {}
        }
    };
    report(args, &info, size, count, time, &times)?;
    client.order(Order::Close(lane))?;
    client.closed()
}

fn over(rdma: bool) -> &'static str {
    if rdma {
        "RoCE v2 in user space"
    } else {
        "QUIC"
    }
}

fn report(
    args: &RdmaBenchArgs,
    info: &LaneInfo,
    size: usize,
    count: usize,
    time: Duration,
    times: &[u64],
) -> Result<(), Failure> {
    let seconds = time.as_secs_f64().max(1e-9);
    let rate = count as f64 / seconds;
    let mut text = format!(
        "{:?} over {}, {size} bytes, {count} times: {rate:.0}/s, {:.3} Gbit/s\n",
        args.measure,
        over(info.rdma),
        rate * size as f64 * 8.0 / 1e9
    );
    if args.measure != Measure::Send {
        text.push_str(&latencies(times));
    }
    output::print(&text)
}

fn latencies(times: &[u64]) -> String {
    let mut latency = Latency::new();
    times.iter().for_each(|ns| latency.record_ns(*ns));
    let us = |q| latency.at(q) as f64 / 1000.0;
    format!(
        "microseconds: p50 {:.1}, p99 {:.1}, p99.9 {:.1}, max {:.1}\n",
        us(0.5),
        us(0.99),
        us(0.999),
        us(1.0)
    )
}

fn setups(args: &RdmaBenchArgs, client: &Client, target: &Target) -> Result<(), Failure> {
    let count = args.iters.unwrap_or(100);
    let mut times = Vec::with_capacity(count);
    let mut rdma = true;
    for _ in 0..count {
        let begin = Clock::now();
        let (lane, info) = client.open(target.clone())?;
        times.push((Clock::now() - begin).as_nanos() as u64);
        rdma &= info.rdma;
        client.order(Order::Close(lane))?;
        client.closed()?;
    }
    output::print(&format!(
        "{count} lanes made and ended over {}\n{}",
        over(rdma),
        latencies(&times)
    ))
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

fn clients(args: &RdmaBenchArgs, client: &Client, target: &Target) -> Result<(), Failure> {
    let count = args.iters.unwrap_or(1000);
    let (begin, before) = (Clock::now(), resident());
    for _ in 0..count {
        client.order(Order::Connect(target.clone()))?;
    }
    let mut lanes: Vec<LaneId> = Vec::with_capacity(count);
    while lanes.len() < count {
        match client.hear()? {
            Told::Open(lane, _) => lanes.push(lane),
            Told::Closed(why) => return Err(Failure::Failed(why.to_string())),
            _ => {}
        }
    }
    let (time, bytes) = (Clock::now() - begin, resident().saturating_sub(before));
    output::print(&format!(
        "{count} clients at once: {:.1} microseconds and {} bytes each, both ends together\n",
        time.as_secs_f64() * 1e6 / count as f64,
        bytes / count as u64
    ))?;
    for lane in &lanes {
        client.order(Order::Close(*lane))?;
    }
    let mut left = lanes.len();
    while left > 0 {
        match client.hear()? {
            Told::Closed(LaneEnd::Finished) => left -= 1,
            Told::Closed(why) => return Err(Failure::Failed(why.to_string())),
            _ => {}
        }
    }
    Ok(())
}
