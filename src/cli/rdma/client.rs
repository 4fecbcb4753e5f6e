//! `corelane rdma client` and `corelane rdma status`.

use super::app::{Order, Told};
use super::args::{ProviderArgs, RdmaClientArgs, RdmaStatusArgs};
use super::ends::{self, LaneEngine, Setup};
use crate::cli::args::{Cipher, ProviderArg, TrustArgs};
use crate::cli::provider::provider;
use crate::cli::tls::Trust;
use crate::cli::{Failure, output};
use corelane::rdma::bootstrap::ALPN;
use corelane::shard::engine::{Bind, Idle};
use corelane::shard::lanes::{LaneConfig, LaneId, Operation, Target};
use corelane::sys::affinity::Core;
use rustls::pki_types::ServerName;
use std::io::BufRead;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Messages of `auto` without a number.
const AUTO: usize = 5;

/// Whom the flags trust, and where.
pub fn target(addr: SocketAddr, trust: &TrustArgs) -> Result<Target, Failure> {
    let provider = provider(ProviderArg::default(), Cipher::Aes128)?;
    let mut tls = (*Trust::from_args(trust)?.client(provider, false)?).clone();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Target {
        addr,
        name: ServerName::from(addr.ip()),
        tls: Arc::new(tls),
    })
}

/// The own address towards a server.
fn towards(server: SocketAddr) -> Result<IpAddr, Failure> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => IpAddr::from([0; 4]),
        SocketAddr::V6(_) => IpAddr::from([0; 16]),
    };
    let asked = UdpSocket::bind((any, 0)).and_then(|s| {
        s.connect(server)?;
        s.local_addr()
    });
    let addr = asked.map_err(|e| Failure::Failed(format!("{server} cannot be reached: {e}")))?;
    Ok(addr.ip())
}

/// A client's engine with what it tells.
pub struct Client {
    pub engine: LaneEngine,
    pub told: mpsc::Receiver<Told>,
}

impl Client {
    /// Starts one at `ip`, pinned to cores if any are given; with RoCE in user space at that port,
    /// where it is wanted.
    pub fn start(
        ip: IpAddr,
        roce: Option<u16>,
        (cores, idle): (Vec<Core>, Idle),
        lanes: LaneConfig,
    ) -> Result<Self, Failure> {
        let (tell, told) = mpsc::channel();
        let setup = Self::setup(ip, roce, (cores, idle), lanes);
        let engine = ends::start(setup, Some(&tell))?;
        Ok(Self { engine, told })
    }

    /// Starts one at `ip` over whatever the flags say.
    fn start_over(ip: IpAddr, args: &ProviderArgs) -> Result<Self, Failure> {
        let (tell, told) = mpsc::channel();
        let setup = Self::setup(ip, None, Default::default(), LaneConfig::default());
        let ports = ends::ports_at(ip, args, setup.shards)?;
        let engine = ends::start_on(setup, ports, Some(&tell))?;
        Ok(Self { engine, told })
    }

    fn setup(
        ip: IpAddr,
        roce: Option<u16>,
        (cores, idle): (Vec<Core>, Idle),
        lanes: LaneConfig,
    ) -> Setup {
        Setup {
            name: "rdma-client",
            shards: 1,
            bind: Bind::Shared(SocketAddr::new(ip, 0)),
            cores,
            idle,
            server: None,
            roce: roce.map(|port| (ip, port)),
            lanes,
        }
    }

    /// Has the shard do something.
    pub fn order(&self, order: Order) -> Result<(), Failure> {
        let sender = self.engine.senders().first();
        let sent = sender.is_some_and(|s| s.send(order).is_ok());
        let gone = || Failure::Failed("the shard has ended".into());
        sent.then_some(()).ok_or_else(gone)
    }

    /// What it tells next.
    pub fn hear(&self) -> Result<Told, Failure> {
        let told = self.told.recv_timeout(PATIENCE);
        match told.map_err(|_| Failure::Failed("the server does not answer".into()))? {
            Told::Refused(e) => Err(Failure::Failed(e.to_string())),
            told => Ok(told),
        }
    }

    /// Opens a lane.
    pub fn open(
        &self,
        target: Target,
    ) -> Result<(LaneId, corelane::shard::lanes::LaneInfo), Failure> {
        self.order(Order::Connect(target))?;
        loop {
            match self.hear()? {
                Told::Open(lane, info) => return Ok((lane, info)),
                Told::Closed(why) => return Err(Failure::Failed(why.to_string())),
                _ => {}
            }
        }
    }

    /// Waits for the end of a lane.
    pub fn closed(&self) -> Result<(), Failure> {
        loop {
            if let Told::Closed(why) = self.hear()? {
                return match why {
                    corelane::shard::lanes::LaneEnd::Finished => Ok(()),
                    why => Err(Failure::Failed(why.to_string())),
                };
            }
        }
    }
}

/// `corelane rdma client`.
pub fn run(args: &RdmaClientArgs) -> Result<(), Failure> {
    let target = target(args.server, &args.trust)?;
    let client = Client::start_over(towards(args.server)?, &args.provider)?;
    let (lane, info) = client.open(target)?;
    let [qpn, psn, peer_qpn, peer_psn] = info.numbers;
    output::print(&format!(
        "client {}: over {}, QPN {qpn:#08x} PSN {psn:#08x}, peer QPN {peer_qpn:#08x} PSN \
         {peer_psn:#08x}, region of {} bytes\n",
        info.client,
        if info.rdma { "RDMA" } else { "QUIC" },
        info.remote_region
    ))?;
    message(&client)?;
    if args.commands.is_empty() {
        for line in std::io::stdin().lock().lines() {
            let line = line.map_err(|e| Failure::Failed(format!("standard input: {e}")))?;
            if !obey(&client, lane, line.trim())? {
                break;
            }
        }
    } else {
        for command in &args.commands {
            if !obey(&client, lane, command.trim())? {
                break;
            }
        }
    }
    client.order(Order::Close(lane))?;
    client.closed()?;
    ends::end(client.engine)
}

/// Prints the next message.
fn message(client: &Client) -> Result<(), Failure> {
    loop {
        match client.hear()? {
            Told::Message(data) => {
                return output::print(&format!("{}\n", String::from_utf8_lossy(&data)));
            }
            Told::Closed(why) => return Err(Failure::Failed(why.to_string())),
            _ => {}
        }
    }
}

/// Waits for an operation; what it brought.
fn done(client: &Client) -> Result<Vec<u8>, Failure> {
    loop {
        match client.hear()? {
            Told::Done(Ok(()), bytes) => return Ok(bytes),
            Told::Done(Err(e), _) => return Err(Failure::Failed(e.to_string())),
            Told::Closed(why) => return Err(Failure::Failed(why.to_string())),
            _ => {}
        }
    }
}

/// What can be commanded.
const COMMANDS: &str = "write send TEXT, write OFFSET TEXT, read OFFSET LENGTH, atomic add \
     OFFSET N, atomic swap OFFSET COMPARE SWAP, auto [N] or quit";

/// Does one command; whether to go on.
fn obey(client: &Client, lane: LaneId, line: &str) -> Result<bool, Failure> {
    let wrong = || Failure::Usage(format!("`{line}` is no command: {COMMANDS}"));
    let number = |word: Option<&str>| word.and_then(|w| w.parse::<u64>().ok()).ok_or_else(wrong);
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let mut words = rest.split_whitespace();
    match word {
        "" => {}
        "quit" => return Ok(false),
        "send" => {
            client.order(Order::Send(lane, 0, rest.as_bytes().to_vec()))?;
            message(client)?;
        }
        "auto" => {
            let count = if rest.is_empty() {
                AUTO
            } else {
                number(Some(rest))? as usize
            };
            for n in 1..=count {
                let text = format!("automatic message {n} of {count}");
                client.order(Order::Send(lane, 0, text.into_bytes()))?;
                message(client)?;
            }
        }
        "write" => {
            let (at, text) = rest.split_once(' ').ok_or_else(wrong)?;
            let at = number(Some(at))?;
            client.order(Order::Write(lane, at, text.into()))?;
            done(client)?;
            output::print(&format!("wrote {} bytes at {at}\n", text.len()))?;
        }
        "read" => {
            let at = number(words.next())?;
            let len = u32::try_from(number(words.next())?).map_err(|_| wrong())?;
            client.order(Order::Read(lane, at, len))?;
            let bytes = done(client)?;
            output::print(&format!("{}\n", String::from_utf8_lossy(&bytes)))?;
        }
        "atomic" => {
            let what = atomic(&mut words).ok_or_else(wrong)?;
            client.order(Order::Atomic(lane, what))?;
            let found = done(client)?.try_into().map_or(0, u64::from_ne_bytes);
            output::print(&format!("found {found}\n"))?;
        }
        _ => return Err(wrong()),
    }
    Ok(true)
}

/// The operation that `add OFFSET N` or `swap OFFSET COMPARE SWAP` asks for.
fn atomic<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Operation> {
    let kind = words.next();
    let mut number = || words.next()?.parse::<u64>().ok();
    let (remote, first) = (number()?, number()?);
    match kind? {
        "add" => Some(Operation::FetchAdd {
            local: 0,
            remote,
            add: first,
        }),
        "swap" => Some(Operation::CompareSwap {
            local: 0,
            remote,
            compare: first,
            swap: number()?,
        }),
        _ => None,
    }
}

/// `corelane rdma status`.
pub fn status(args: &RdmaStatusArgs) -> Result<(), Failure> {
    let target = target(args.server, &args.trust)?;
    let ip = towards(args.server)?;
    let client = Client::start(ip, None, (Vec::new(), Idle::Park), LaneConfig::default())?;
    client.order(Order::Status(target))?;
    let json = loop {
        match client.hear()? {
            Told::Status(json) => break json,
            Told::Closed(why) => return Err(Failure::Failed(why.to_string())),
            _ => {}
        }
    };
    output::print(&format!("{json}\n"))?;
    ends::end(client.engine)
}
