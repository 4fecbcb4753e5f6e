//! `corelane rdma bench`: a server and its clients in this process, each side one shard on a core
//! of its own, over whichever provider.

use super::app::{Load, Loaded, Order, SINK, Told};
use super::args::{Measure, RdmaBenchArgs};
use super::client::Client;
use super::ends::{self, LaneEngine, Setup, server_tls};
use super::figures::{Figures, Memory, report};
use crate::cli::args::{Cipher, ProviderArg};
use crate::cli::provider::provider;
use crate::cli::report::hist::Latency;
use crate::cli::tls::{Identity, Trust, loopback_name};
use crate::cli::{Failure, output, setup, signal};
use corelane::rdma::Mtu;
use corelane::rdma::bootstrap::ALPN;
use corelane::rdma::registry::{ObjectKind, Owner, Registry};
use corelane::shard::engine::{Bind, Idle};
use corelane::shard::lanes::{LaneConfig, LaneEnd, LaneId, Operation, Target};
use corelane::sys::clock::Clock;
use corelane::sys::pages;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

/// What stands before a message's bytes.
const HEADER: usize = corelane::rdma::lane::HEADER;
/// Messages, and operations, that are under way at most.
const WINDOW: usize = 256;
const OPERATIONS: usize = 64;
/// Clients at which setup looks back, and those that share in `clients`.
const STAGES: [usize; 7] = [10, 20, 50, 100, 300, 1000, 3000];
const SHARERS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
/// Clients that come before what is counted: what all of them share is there then, and a table that
/// doubles for the next adds little to each.
const FIRST: usize = 100;

/// Both sides.
struct Rig {
    server: LaneEngine,
    served: Arc<AtomicUsize>,
    client: Client,
    target: Target,
    /// Of both sides.
    registries: [Registry; 2],
    /// Where both are, and the device of the kernel's that they are on.
    place: Place,
}

/// Where is measured.
pub struct Place {
    pub ip: IpAddr,
    /// Of the kernel's; `None` in user space, and over QUIC.
    pub device: Option<String>,
}

impl Rig {
    fn start(args: &RdmaBenchArgs, lanes: &dyn Fn() -> LaneConfig) -> Result<Self, Failure> {
        let idle = match (args.spin, args.events) {
            (true, _) => Idle::Spin,
            (false, true) => Idle::Park,
            (false, false) => Idle::default(),
        };
        let ip = args.ip.map_or_else(|| ends::place(&args.provider), Ok)?;
        let identity = Identity::generate()?;
        let provider = provider(ProviderArg::default(), Cipher::Aes128)?;
        let trust = Trust::Roots(identity.root().cloned().into_iter().collect());
        let mut tls = (*trust.client(provider, false)?).clone();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let (server_cores, client_cores) = setup::cores_of(&args.cores, 1, 1)?;
        let any = SocketAddr::new(ip, 0);
        let setup = Setup {
            name: "rdma-server",
            shards: 1,
            bind: Bind::Shared(any),
            cores: server_cores,
            idle,
            server: Some(server_tls(identity, None)?),
            lanes: lanes(),
        };
        let served = Arc::default();
        let at_server = setup.lanes.registry.clone();
        let at_client = lanes();
        let registries = [at_server, at_client.registry.clone()];
        let port = || ends::own_port(ip, &args.provider);
        let ports = port()?;
        let device = ports.as_ref().and_then(|p| p.device.clone());
        let server = ends::start(setup, ports, None, &served)?;
        let addr = server.local_addrs().first().copied().unwrap_or(any);
        Ok(Self {
            server,
            served,
            client: Client::start(ip, addr, port()?, (client_cores, idle), at_client)?,
            target: Target {
                addr,
                name: loopback_name(),
                tls: Arc::new(tls),
            },
            registries,
            place: Place { ip, device },
        })
    }

    /// Opens lanes one after another: they, how long each took, and whether all have RDMA.
    fn open(&self, count: usize) -> Result<(Vec<LaneId>, Latency, bool), Failure> {
        let (mut lanes, mut latency, mut rdma) = (Vec::with_capacity(count), Latency::new(), true);
        for _ in 0..count {
            let begin = Clock::now();
            let (lane, info, _) = self.client.connect(self.target.clone())?;
            latency.record(Clock::now() - begin);
            lanes.push(lane);
            rdma &= info.rdma;
            // The server's welcome is none of what is measured.
            while !matches!(self.client.hear()?, Told::Message(_)) {}
        }
        Ok((lanes, latency, rdma))
    }

    /// Registered bytes of each client, at both ends together.
    fn registered(&self, clients: usize) -> u64 {
        let objects = self.registries.iter().flat_map(Registry::objects);
        let of_clients =
            objects.filter(|o| o.kind == ObjectKind::Region && matches!(o.owner, Owner::Client(_)));
        of_clients.map(|o| o.detail).sum::<u64>() / clients.max(1) as u64
    }

    fn close(&self, lanes: &[LaneId]) -> Result<(), Failure> {
        for lane in lanes {
            self.client.order(Order::Close(*lane))?;
        }
        let mut left = lanes.len();
        while left > 0 {
            match self.client.hear()? {
                Told::Closed(LaneEnd::Finished) => left -= 1,
                Told::Closed(why) => return Err(self.client.ended(&why)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Puts a load on each lane and waits for all.
    fn load(&self, lanes: &[LaneId], load: &Load) -> Result<Vec<Loaded>, Failure> {
        for lane in lanes {
            self.client.order(Order::Load(*lane, load.clone()))?;
        }
        let mut all = Vec::with_capacity(lanes.len());
        while all.len() < lanes.len() {
            match self.client.hear() {
                Ok(Told::Loaded(one)) => all.push(one),
                Ok(Told::Closed(why)) => return Err(self.client.ended(&why)),
                Ok(_) => {}
                // What there is until then counts.
                Err(Failure::Stopped) => self.client.order(Order::Stop)?,
                Err(e) => return Err(e),
            }
        }
        Ok(all)
    }

    /// Goodbyes that are not agreed by then are not waited for.
    fn end(self) -> (Place, Result<(), Failure>) {
        let client = ends::end_within(self.client.engine, ends::GOODBYE, &self.client.open);
        let server = ends::end_within(self.server, ends::GOODBYE, &self.served);
        (self.place, client.and(server))
    }
}

/// Bytes of what is measured.
fn size_of(args: &RdmaBenchArgs) -> Result<usize, Failure> {
    let message = matches!(args.measure, Measure::Send | Measure::Latency);
    let most = if message {
        65_536 - HEADER as u64
    } else {
        1 << 30
    };
    let usual = match args.measure {
        Measure::Latency => 64,
        _ => 65_536.min(most),
    };
    let size = args.size.unwrap_or(usual);
    if size == 0 || size > most {
        return Err(Failure::Usage(format!("--size: 1 to {most} bytes")));
    }
    Ok(size as usize)
}

fn config(args: &RdmaBenchArgs, size: usize) -> Result<LaneConfig, Failure> {
    let mut config = LaneConfig::default();
    let mtu = Mtu::from_bytes(args.mtu);
    config.plan.mtu =
        mtu.ok_or_else(|| Failure::Usage("--mtu: 256, 512, 1024, 2048 or 4096".into()))?;
    let most = match args.measure {
        Measure::Send => WINDOW,
        Measure::Write | Measure::Read | Measure::Clients => OPERATIONS,
        Measure::Latency | Measure::Setup => usize::MAX,
    };
    if args.tx_depth > most {
        return Err(Failure::Usage(format!("--tx-depth: at most {most}")));
    }
    match args.measure {
        Measure::Send | Measure::Latency => {
            config.plan.slot = config.plan.slot.max((size + HEADER) as u32);
            config.plan.window = args.tx_depth.clamp(2, WINDOW) as u32;
        }
        Measure::Write | Measure::Read | Measure::Clients => {
            config.plan.region = config.plan.region.max(size);
            config.plan.operations = args.tx_depth as u32;
        }
        Measure::Setup => config.plan.region = 4096,
    }
    Ok(config)
}

/// Measures.
pub fn run(args: &RdmaBenchArgs) -> Result<(), Failure> {
    let size = size_of(args)?;
    let plan = config(args, size)?.plan;
    // Each side has quotas and a registry of its own.
    let lanes = || LaneConfig {
        plan,
        ..args.provider.lanes()
    };
    signal::catch()?;
    if args.measure == Measure::Setup {
        let fine = pages::base_only();
        fine.map_err(|e| Failure::Failed(format!("base pages cannot be asked for: {e}")))?;
    }
    let rig = Rig::start(args, &lanes)?;
    let mut figures = Vec::new();
    let outcome = match args.measure {
        Measure::Setup => setups(args, &rig, &mut figures),
        Measure::Clients => clients(args, &rig, size, &mut figures),
        _ => one(args, &rig, size, &mut figures),
    };
    let outcome = match signal::came() {
        true => outcome.and(Err(Failure::Stopped)),
        false => outcome,
    };
    let (place, ended) = rig.end();
    let outcome = outcome.and(ended);
    if outcome.is_ok() || !figures.is_empty() {
        let failure = outcome.as_ref().err();
        output::print(&report(args, &place, size, &figures, failure)?)?;
    }
    outcome
}

/// Messages or operations of a lane that are under way at a time.
pub fn depth_of(args: &RdmaBenchArgs) -> usize {
    if args.measure == Measure::Latency {
        1
    } else {
        args.tx_depth
    }
}

/// What to put on each lane, before what is measured or then.
fn load_of(args: &RdmaBenchArgs, size: usize, warming: bool) -> Load {
    let (local, remote, len) = (0, 0, size as u32);
    let counted = args.iters.filter(|_| args.measure != Measure::Clients);
    let (count, time) = match (warming, counted) {
        (false, Some(n)) => (n, None),
        (false, None) => (usize::MAX, Some(args.duration)),
        // Something crosses even where no time is left out.
        (true, _) => (usize::MAX, Some(args.omit.max(Duration::from_millis(1)))),
    };
    Load {
        operation: match args.measure {
            Measure::Write | Measure::Clients => Some(Operation::Write { local, remote, len }),
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
        time,
        depth: depth_of(args),
    }
}

/// One client.
fn one(
    args: &RdmaBenchArgs,
    rig: &Rig,
    size: usize,
    figures: &mut Vec<Figures>,
) -> Result<(), Failure> {
    let (lanes, _, rdma) = rig.open(1)?;
    rig.load(&lanes, &load_of(args, size, true))?;
    if signal::came() {
        return Ok(());
    }
    let loaded = rig.load(&lanes, &load_of(args, size, false))?;
    let name = format!("{:?}", args.measure).to_lowercase();
    figures.push(Figures::of(&name, rdma, size, &loaded));
    rig.close(&lanes)
}

/// More and more clients that write at once.
fn clients(
    args: &RdmaBenchArgs,
    rig: &Rig,
    size: usize,
    figures: &mut Vec<Figures>,
) -> Result<(), Failure> {
    let most = args.iters.unwrap_or(64);
    let (mut lanes, mut rdma) = (Vec::new(), true);
    for n in SHARERS.into_iter().filter(|n| *n <= most) {
        let (more, _, all) = rig.open(n - lanes.len())?;
        lanes.extend(more);
        rdma &= all;
        rig.load(&lanes, &load_of(args, size, true))?;
        if signal::came() {
            break;
        }
        let loaded = rig.load(&lanes, &load_of(args, size, false))?;
        figures.push(Figures::of("clients", rdma, size, &loaded));
    }
    rig.close(&lanes)
}

/// Resident bytes of this process, both sides.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

/// Clients that come and stay, and what each of the last ones took.
fn setups(args: &RdmaBenchArgs, rig: &Rig, figures: &mut Vec<Figures>) -> Result<(), Failure> {
    let most = args.iters.unwrap_or(1000);
    let (mut all, ..) = rig.open(FIRST)?;
    let (memory, mut before) = (resident(), 0);
    let stages = STAGES.into_iter().filter(|n| *n < most);
    for stage in stages.chain([most]) {
        let begin = Clock::now();
        let (lanes, latency, rdma) = rig.open(stage - before)?;
        let grown = resident().saturating_sub(memory);
        figures.push(Figures {
            name: "setup".into(),
            rdma,
            clients: stage,
            time: Clock::now() - begin,
            bytes: 0,
            operations: lanes.len(),
            latency,
            memory: Some(Memory {
                resident: grown / stage.max(1) as u64,
                registered: rig.registered(FIRST + stage),
            }),
        });
        all.extend(lanes);
        before = stage;
    }
    rig.close(&all)
}
