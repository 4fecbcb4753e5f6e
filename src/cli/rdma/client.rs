//! `corelane rdma client` and `corelane rdma status`.

use super::app::{Order, Told};
use super::args::{RdmaClientArgs, RdmaStatusArgs, ShowArgs};
use super::command::{Command, shown};
use super::ends::{self, LaneEngine, Setup};
use crate::cli::args::{Cipher, ProviderArg, TrustArgs};
use crate::cli::provider::provider;
use crate::cli::tls::{Identity, Trust};
use crate::cli::{Failure, output, signal, tls};
use corelane::rdma::bootstrap::ALPN;
use corelane::shard::engine::{Bind, Idle};
use corelane::shard::lanes::{LaneConfig, LaneEnd, LaneError, LaneId, LaneInfo, Ports, Target};
use corelane::sys::affinity::Core;
use corelane::sys::clock::Clock;
use rustls::pki_types::ServerName;
use std::cell::Cell;
use std::io::BufRead;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

/// How long an answer may take at least.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often to look for signals.
const STEP: Duration = Duration::from_millis(20);
/// How long a client that fails, or is stopped, waits for the server's goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// Whom the flags trust, where, and as whom.
fn target(addr: SocketAddr, trust: &TrustArgs, show: &ShowArgs) -> Result<Target, Failure> {
    let provider = provider(ProviderArg::default(), Cipher::Aes128)?;
    let own = show.cert.as_deref().zip(show.key.as_deref());
    let own = own
        .map(|(cert, key)| Identity::read(cert, key))
        .transpose()?;
    let mut tls = (*Trust::from_args(trust)?.client_as(own, provider, false)?).clone();
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

/// What the end of a lane to `server` means, and what to look at.
fn ended(server: SocketAddr, why: &LaneEnd) -> Failure {
    let why = why.to_string();
    let firewall = "is a server there (ss -lun on its host), and does UDP get through?";
    Failure::Failed(match why.as_str() {
        _ if why == LaneEnd::Finished.to_string() => {
            format!("{server} ended the lane in good order: the server is shutting down")
        }
        _ if why.contains("alert 116") => {
            format!("{server} asks for a certificate of clients: show one with --cert and --key")
        }
        _ if why.contains("alert 120") => format!(
            "{server} serves something else than lanes: its TLS does not know the ALPN protocol \
             {}; is `corelane rdma server` at another port?",
            String::from_utf8_lossy(ALPN)
        ),
        _ if tls::shown().is_some() => format!(
            "{server} shows a certificate with the fingerprint {}, not the one given; if that is \
             the server you mean, give --pin that",
            tls::shown().map_or(String::new(), |f| f.to_string())
        ),
        _ if why.contains("took too long") || why.contains("timed out") => {
            format!("{server}: {why}; {firewall}")
        }
        _ => format!("{server}: {why}"),
    })
}

/// A client's engine with what it tells.
pub struct Client {
    pub engine: LaneEngine,
    pub told: mpsc::Receiver<Told>,
    /// Of whom sentences speak.
    server: SocketAddr,
    /// How many lanes are open.
    pub open: Arc<AtomicUsize>,
    /// A signal was taken notice of: what is waited for now is the end.
    stopping: Cell<bool>,
    /// How long an answer may take.
    patience: Duration,
}

impl Client {
    /// Starts one of a shard at `ip`, pinned to cores if any are given, over a port if there is
    /// one.
    pub fn start(
        ip: IpAddr,
        server: SocketAddr,
        ports: Option<Ports>,
        (cores, idle): (Vec<Core>, Idle),
        lanes: LaneConfig,
    ) -> Result<Self, Failure> {
        let (tell, told) = mpsc::channel();
        let setup = Setup {
            name: "rdma-client",
            shards: 1,
            bind: Bind::Shared(SocketAddr::new(ip, 0)),
            cores,
            idle,
            server: None,
            lanes,
        };
        let patience = PATIENCE.max(setup.lanes.patience);
        let open = Arc::default();
        Ok(Self {
            engine: ends::start(setup, ports, Some(&tell), &open)?,
            told,
            server,
            open,
            stopping: Cell::new(false),
            patience,
        })
    }

    /// Has the shard do something.
    pub fn order(&self, order: Order) -> Result<(), Failure> {
        let sender = self.engine.senders().first();
        let sent = sender.is_some_and(|s| s.send(order).is_ok());
        let gone = || Failure::Failed("the shard has ended".into());
        sent.then_some(()).ok_or_else(gone)
    }

    /// What it tells next. A signal is [`Failure::Stopped`], once.
    pub fn hear(&self) -> Result<Told, Failure> {
        let until = Clock::now() + self.patience;
        loop {
            match self.told.recv_timeout(STEP) {
                // Not to be had as it was asked for.
                Ok(Told::Refused(
                    e @ (LaneError::Range { .. } | LaneError::Alignment(_) | LaneError::TooLong(_)),
                )) => return Err(Failure::Usage(e.to_string())),
                Ok(Told::Refused(e)) => return Err(Failure::Failed(e.to_string())),
                Ok(told) => return Ok(told),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::Failed("the shard has ended".into()));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.look_for_signals()?;
            if Clock::now() >= until {
                return Err(Failure::Failed(format!(
                    "{} does not answer; is the server still there (`corelane rdma status`)?",
                    self.server
                )));
            }
        }
    }

    fn look_for_signals(&self) -> Result<(), Failure> {
        if signal::came() && !self.stopping.replace(true) {
            return Err(Failure::Stopped);
        }
        Ok(())
    }

    /// Opens a lane.
    pub fn connect(&self, target: Target) -> Result<(LaneId, LaneInfo, Option<String>), Failure> {
        self.order(Order::Connect(target))?;
        loop {
            match self.hear()? {
                Told::Open(lane, info, why_quic) => return Ok((lane, info, why_quic)),
                Told::Closed(why) => return Err(self.ended(&why)),
                _ => {}
            }
        }
    }

    /// What the end of a lane means.
    pub fn ended(&self, why: &LaneEnd) -> Failure {
        ended(self.server, why)
    }

    /// Waits for the end of a lane.
    pub fn closed(&self) -> Result<(), Failure> {
        loop {
            if let Told::Closed(why) = self.hear()? {
                return match why {
                    LaneEnd::Finished => Ok(()),
                    why => Err(self.ended(&why)),
                };
            }
        }
    }

    /// Ends the engine. After a goodbye nothing is waited for: the peer needs nothing more.
    fn end(self, outcome: Result<(), Failure>) -> Result<(), Failure> {
        let ended = ends::end_within(self.engine, GOODBYE, &self.open);
        outcome.and(ended)
    }
}

/// `corelane rdma client`.
pub fn run(args: &RdmaClientArgs) -> Result<(), Failure> {
    let commands = Command::parse_all(&args.commands).map_err(Failure::Usage)?;
    let target = target(args.server, &args.trust, &args.show)?;
    signal::catch()?;
    let ip = towards(args.server)?;
    let ports = ends::ports_at(ip, &args.provider, 1)?;
    let lanes = args.provider.lanes();
    let client = Client::start(ip, args.server, ports, Default::default(), lanes)?;
    let outcome = converse(&client, target, &commands, args.require_rdma);
    client.end(outcome)
}

/// From a lane's opening to its goodbye.
fn converse(
    client: &Client,
    target: Target,
    commands: &[Command],
    require_rdma: bool,
) -> Result<(), Failure> {
    let (lane, info, why_quic) = client.connect(target)?;
    let why = why_quic.as_deref().unwrap_or("for no known reason");
    let over = if info.rdma {
        let [qpn, psn, peer_qpn, peer_psn] = info.numbers;
        format!("RDMA, QPN {qpn:#08x} PSN {psn:#08x}, peer QPN {peer_qpn:#08x} PSN {peer_psn:#08x}")
    } else if require_rdma {
        return Err(Failure::Failed(format!(
            "{}: no RDMA: {why}; the server's log says more with --log info",
            client.server
        )));
    } else {
        format!("QUIC ({why})")
    };
    output::print(&format!(
        "client {}: over {over}, region of {} bytes\n",
        info.client, info.remote_region
    ))?;
    message(client)?;
    if commands.is_empty() {
        read_lines(client, lane)?;
    } else {
        for command in commands {
            if !obey(client, lane, command)? {
                break;
            }
        }
    }
    client.order(Order::Close(lane))?;
    client.closed()
}

/// Commands of standard input, until its end. A line that is none is said to be, and others go on.
fn read_lines(client: &Client, lane: LaneId) -> Result<(), Failure> {
    let (give, lines) = mpsc::sync_channel(1);
    // Reading cannot be interrupted: it has a thread, which the process leaves behind.
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let last = line.is_err();
            if give.send(line).is_err() || last {
                break;
            }
        }
    });
    loop {
        match lines.recv_timeout(STEP) {
            Ok(Ok(line)) => match Command::parse(&line) {
                Ok(command) => match obey(client, lane, &command) {
                    Ok(true) => {}
                    Ok(false) => return Ok(()),
                    Err(Failure::Usage(sentence)) => output::complain(&sentence),
                    Err(e) => return Err(e),
                },
                Err(sentence) => output::complain(&sentence),
            },
            Ok(Err(e)) => return Err(Failure::Failed(format!("standard input: {e}"))),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => match client.told.try_recv() {
                Ok(Told::Closed(why)) => return Err(client.ended(&why)),
                Ok(_) | Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => {
                    return Err(Failure::Failed("the shard has ended".into()));
                }
            },
        }
        client.look_for_signals()?;
    }
}

/// Prints the next message.
fn message(client: &Client) -> Result<(), Failure> {
    loop {
        match client.hear()? {
            Told::Message(data) => {
                return output::print(&format!("{}\n", String::from_utf8_lossy(&data)));
            }
            Told::Closed(why) => return Err(client.ended(&why)),
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
            Told::Closed(why) => return Err(client.ended(&why)),
            _ => {}
        }
    }
}

/// Does one command; whether to go on.
fn obey(client: &Client, lane: LaneId, command: &Command) -> Result<bool, Failure> {
    match command {
        Command::Nothing => {}
        Command::Quit => return Ok(false),
        Command::Send(text) => {
            client.order(Order::Send(lane, 0, text.as_bytes().to_vec()))?;
            message(client)?;
        }
        Command::Auto(count) => {
            for n in 1..=*count {
                let text = format!("automatic message {n} of {count}");
                client.order(Order::Send(lane, 0, text.into_bytes()))?;
                message(client)?;
            }
        }
        Command::Write(at, text) => {
            client.order(Order::Write(lane, *at, text.clone().into()))?;
            done(client)?;
            output::print(&format!("wrote {} bytes at {at}\n", text.len()))?;
        }
        Command::Read(at, len) => {
            client.order(Order::Read(lane, *at, *len))?;
            output::print(&format!("{}\n", shown(&done(client)?)))?;
        }
        Command::Atomic(what) => {
            client.order(Order::Atomic(lane, *what))?;
            let found = done(client)?.try_into().map_or(0, u64::from_ne_bytes);
            output::print(&format!("found {found}\n"))?;
        }
    }
    Ok(true)
}

/// `corelane rdma status`.
pub fn status(args: &RdmaStatusArgs) -> Result<(), Failure> {
    let target = target(args.server, &args.trust, &args.show)?;
    let ip = towards(args.server)?;
    let idle = (Vec::new(), Idle::Park);
    signal::catch()?;
    let client = Client::start(ip, args.server, None, idle, LaneConfig::default())?;
    let outcome = client.order(Order::Status(target)).and_then(|()| {
        loop {
            match client.hear()? {
                Told::Status(json) => return output::print(&format!("{json}\n")),
                Told::Closed(why) => return Err(client.ended(&why)),
                _ => {}
            }
        }
    });
    client.end(outcome)
}
