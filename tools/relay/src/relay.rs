//! The relay: a front that clients send to, a back per client that the server sees.

use crate::cross::{Cubic, SEGMENT};
use crate::link::{Fate, Link, LinkConfig, Passage};
use crate::log::{Direction, Entry, Log};
use crate::socket::Port;
use std::cell::RefCell;
use std::collections::BinaryHeap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep_until};

/// Clients that one relay serves; datagrams of more are ignored.
const MAX_FLOWS: usize = 4096;

/// What changes when a client is rebound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebindKind {
    /// The port.
    Port,
    /// The address, to the next of 127.0.0.0/8, and the port.
    Addr,
}

/// When and how clients are rebound.
#[derive(Clone, Copy, Debug)]
pub struct Rebind {
    /// The time between rebindings.
    pub every: Duration,
    /// What changes.
    pub kind: RebindKind,
}

/// A relay's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients send to and where their datagrams go; port 0 for any. The first is the relay's
    /// address, the others stand for further addresses of the server.
    pub fronts: Vec<(SocketAddr, SocketAddr)>,
    /// Client to server.
    pub up: LinkConfig,
    /// Server to client.
    pub down: LinkConfig,
    /// Client datagrams, counted from 1, that are dropped.
    pub drop_client: Option<RangeInclusive<u64>>,
    /// The link is on for the first time and off for the second, and so on.
    pub blackhole: Option<(Duration, Duration)>,
    /// Rebinding of clients.
    pub rebind: Option<Rebind>,
    /// A bulk transfer under CUBIC competes on the way to the clients.
    pub cross: bool,
    /// Keeps each datagram in the log.
    pub capture: bool,
    /// What chance depends on.
    pub seed: u64,
}

impl Config {
    /// A perfect link on loopback to `server`.
    pub fn new(server: SocketAddr) -> Self {
        let front: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        Self {
            fronts: vec![(SocketAddr::new(front, 0), server)],
            up: LinkConfig::default(),
            down: LinkConfig::default(),
            drop_client: None,
            blackhole: None,
            rebind: None,
            cross: false,
            capture: false,
            seed: 1,
        }
    }
}

/// A running relay. Dropping it stops it.
pub struct Relay {
    addrs: Vec<SocketAddr>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Log>>,
}

impl Relay {
    /// Binds the fronts and starts.
    ///
    /// # Errors
    /// A front cannot be bound.
    pub fn start(config: Config) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("relay".into())
            .spawn(move || run(config, stopped, &tell))?;
        let addrs = told
            .recv()
            .map_err(|_| io::Error::other("the relay's thread ended"))??;
        Ok(Self {
            addrs,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where clients send to.
    pub fn addr(&self) -> SocketAddr {
        self.addrs[0]
    }

    /// All fronts, in the order of the configuration.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Stops, and tells what was seen.
    pub fn stop(mut self) -> Log {
        self.end()
    }

    fn end(&mut self) -> Log {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let thread = self.thread.take();
        thread.and_then(|t| t.join().ok()).unwrap_or_default()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.end();
    }
}

type Bound = Result<Vec<SocketAddr>, io::Error>;

fn run(
    config: Config,
    stopped: oneshot::Receiver<()>,
    tell: &std::sync::mpsc::Sender<Bound>,
) -> Log {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => {
            let _ = tell.send(Err(e));
            return Log::default();
        }
    };
    LocalSet::new().block_on(&runtime, async {
        let bound: Result<Vec<_>, _> = config.fronts.iter().map(|(a, _)| Port::bind(*a)).collect();
        let fronts: Vec<Rc<Port>> = match bound {
            Ok(ports) => ports.into_iter().map(Rc::new).collect(),
            Err(e) => {
                let _ = tell.send(Err(e));
                return Log::default();
            }
        };
        let _ = tell.send(Ok(fronts.iter().map(|p| p.local).collect()));
        let state = Rc::new(Shared {
            core: RefCell::new(Core::new(config, fronts.clone())),
            changed: Notify::new(),
        });
        for (n, port) in fronts.into_iter().enumerate() {
            spawn_local(serve_front(state.clone(), n, port));
        }
        tokio::select! {
            _ = stopped => {}
            () = keep_time(&state) => {}
        }
        let mut core = state.core.borrow_mut();
        core.log.cross = (core.cross.delivered, core.cross.lost);
        std::mem::take(&mut core.log)
    })
}

struct Shared {
    core: RefCell<Core>,
    /// An earlier deadline than the timer waits for may exist.
    changed: Notify,
}

/// A client.
struct Flow {
    client: SocketAddr,
    /// The front that it used last.
    front: usize,
    back: Rc<Port>,
}

/// A datagram on the link; the earliest is the greatest.
struct Due {
    at: Duration,
    order: u64,
    direction: Direction,
    flow: usize,
    front: usize,
    ecn: u8,
    data: Vec<u8>,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

struct Core {
    config: Config,
    began: Instant,
    fronts: Vec<Rc<Port>>,
    flows: Vec<Flow>,
    links: [Link; 2],
    due: BinaryHeap<Due>,
    order: u64,
    next_rebind: Option<Duration>,
    rebound: u32,
    /// Old sockets of clients, so that the server's datagrams to them vanish without an ICMP error.
    old: Vec<Rc<Port>>,
    cross: Cubic,
    log: Log,
}

impl Core {
    fn new(config: Config, fronts: Vec<Rc<Port>>) -> Self {
        Self {
            began: Instant::now(),
            links: [
                Link::new(config.up.clone(), config.seed),
                Link::new(config.down.clone(), config.seed ^ 0x5bd1_e995),
            ],
            next_rebind: config.rebind.map(|r| r.every),
            config,
            fronts,
            flows: Vec::new(),
            due: BinaryHeap::new(),
            order: 0,
            rebound: 0,
            old: Vec::new(),
            cross: Cubic::default(),
            log: Log::default(),
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn off(&self, now: Duration) -> bool {
        self.config.blackhole.is_some_and(|(on, off)| {
            let period = (on + off).as_nanos().max(1);
            now.as_nanos() % period >= on.as_nanos()
        })
    }

    /// The fate of a datagram that came to the relay, which goes onto the link or nowhere.
    fn enter(&mut self, direction: Direction, flow: usize, front: usize, ecn: u8, data: &[u8]) {
        let now = self.now();
        let number = match direction {
            Direction::Up => self.log.up.datagrams + 1,
            Direction::Down => 0,
        };
        let selected = self.config.drop_client.as_ref();
        let passage = if self.off(now) {
            Passage::dropped(Fate::Blackholed)
        } else if selected.is_some_and(|range| range.contains(&number)) {
            Passage::dropped(Fate::Selected)
        } else {
            self.links[direction as usize].offer(now, data.len())
        };
        self.log.count(direction, data.len(), passage.fate);
        if self.config.capture {
            self.log.entries.push(Entry {
                at: now,
                direction,
                flow,
                rebound: self.rebound,
                front,
                ecn,
                fate: passage.fate,
                data: data.to_vec(),
            });
        }
        for at in passage.at {
            let mut data = data.to_vec();
            if passage.fate == Fate::Corrupted {
                self.links[direction as usize].corrupt(&mut data);
            }
            self.order += 1;
            self.due.push(Due {
                at,
                order: self.order,
                direction,
                flow,
                front,
                ecn,
                data,
            });
        }
    }

    fn next(&self) -> Option<Duration> {
        let due = self.due.peek().map(|d| d.at);
        let cross = self.config.cross.then(|| self.cross.next()).flatten();
        [due, self.next_rebind, cross].into_iter().flatten().min()
    }

    /// Lets out what is due. Returns the sockets that clients got anew.
    fn turn(&mut self) -> Vec<(usize, Rc<Port>)> {
        let now = self.now();
        let mut new = Vec::new();
        if self.next_rebind.is_some_and(|at| at <= now) {
            new = self.rebind(now);
        }
        while self.due.peek().is_some_and(|d| d.at <= now) {
            if let Some(due) = self.due.pop() {
                self.leave(&due);
            }
        }
        if self.config.cross {
            self.compete(now);
        }
        new
    }

    fn leave(&self, due: &Due) {
        let flow = &self.flows[due.flow];
        match due.direction {
            // Translated where the link ends, as by a NAT before the server.
            Direction::Up => {
                flow.back
                    .send(self.config.fronts[due.front].1, due.ecn, &due.data);
            }
            Direction::Down => {
                self.fronts[due.front].send(flow.client, due.ecn, &due.data);
            }
        }
    }

    fn compete(&mut self, now: Duration) {
        let back = self.config.up.delay;
        let rtt = back + self.config.down.delay * 2;
        self.cross.hear(now, rtt);
        while self.cross.may_send() {
            let passage = self.links[Direction::Down as usize].offer(now, SEGMENT);
            let heard = passage.at.first().map_or(now + rtt, |at| *at + back);
            self.cross.sent(heard, passage.fate.arrived());
        }
    }

    fn rebind(&mut self, now: Duration) -> Vec<(usize, Rc<Port>)> {
        let Some(rebind) = self.config.rebind else {
            return Vec::new();
        };
        self.next_rebind = Some(now + rebind.every);
        if self.flows.is_empty() {
            return Vec::new();
        }
        self.rebound += 1;
        self.log.rebindings = self.rebound;
        let mut new = Vec::new();
        for n in 0..self.flows.len() {
            if let Ok(port) = self.bind_back() {
                let port = Rc::new(port);
                let old = std::mem::replace(&mut self.flows[n].back, port.clone());
                self.old.push(old);
                new.push((n, port));
            }
        }
        new
    }

    /// A socket that stands for a client before the server.
    fn bind_back(&self) -> io::Result<Port> {
        let by_addr = self
            .config
            .rebind
            .is_some_and(|r| r.kind == RebindKind::Addr);
        let ip: IpAddr = match self.config.fronts[0].1 {
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            SocketAddr::V4(_) if by_addr => {
                Ipv4Addr::new(127, 0, 0, 2 + (self.rebound % 250) as u8).into()
            }
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        };
        Port::bind(SocketAddr::new(ip, 0))
    }

    /// The flow of a client, new or not, and its socket if it is new.
    fn flow_of(&mut self, client: SocketAddr, front: usize) -> Option<(usize, Option<Rc<Port>>)> {
        if let Some(n) = self.flows.iter().rposition(|f| f.client == client) {
            self.flows[n].front = front;
            return Some((n, None));
        }
        if self.flows.len() >= MAX_FLOWS {
            return None;
        }
        let back = Rc::new(self.bind_back().ok()?);
        self.flows.push(Flow {
            client,
            front,
            back: back.clone(),
        });
        Some((self.flows.len() - 1, Some(back)))
    }

    /// The front through which the server's datagram from `server` goes back.
    fn front_of(&self, flow: usize, server: SocketAddr) -> usize {
        let last = self.flows[flow].front;
        if self.config.fronts[last].1 == server {
            return last;
        }
        let same = |(_, to): &(SocketAddr, SocketAddr)| *to == server;
        self.config.fronts.iter().position(same).unwrap_or(last)
    }
}

async fn keep_time(shared: &Rc<Shared>) {
    loop {
        let (new, next) = {
            let mut core = shared.core.borrow_mut();
            let new = core.turn();
            (new, core.next().map(|at| core.began + at))
        };
        for (flow, port) in new {
            spawn_local(serve_back(shared.clone(), flow, port));
        }
        match next {
            Some(at) => tokio::select! {
                () = sleep_until(at) => {}
                () = shared.changed.notified() => {}
            },
            None => shared.changed.notified().await,
        }
    }
}

async fn serve_front(shared: Rc<Shared>, front: usize, port: Rc<Port>) {
    let mut buffer = vec![0; 1 << 17];
    loop {
        let each = |client, ecn, data: &[u8]| {
            let mut core = shared.core.borrow_mut();
            if let Some((flow, back)) = core.flow_of(client, front) {
                core.enter(Direction::Up, flow, front, ecn, data);
                if let Some(back) = back {
                    spawn_local(serve_back(shared.clone(), flow, back));
                }
            }
        };
        if port.receive(&mut buffer, each).await.is_err() {
            return;
        }
        shared.changed.notify_one();
    }
}

async fn serve_back(shared: Rc<Shared>, flow: usize, port: Rc<Port>) {
    let mut buffer = vec![0; 1 << 17];
    loop {
        let each = |server, ecn, data: &[u8]| {
            let mut core = shared.core.borrow_mut();
            if Rc::ptr_eq(&core.flows[flow].back, &port) {
                let front = core.front_of(flow, server);
                core.enter(Direction::Down, flow, front, ecn, data);
            } else {
                core.log.stale += 1;
            }
        };
        if port.receive(&mut buffer, each).await.is_err() {
            return;
        }
        shared.changed.notify_one();
    }
}
