//! The relay: a front that clients send to, a back per client that the server sees.

use crate::cross::{Cubic, SEGMENT};
use crate::link::{Fate, Link, LinkConfig, Passage};
use crate::log::{Counts, Direction, Entry, Log};
use crate::path::{Change, Event, PathConfig};
use crate::socket::Port;
use std::cell::RefCell;
use std::collections::BinaryHeap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
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
    /// address, the others stand for further addresses of the server. They share one link.
    pub fronts: Vec<(SocketAddr, SocketAddr)>,
    /// Further addresses with a link each. A client is another one to the server on each of them.
    pub paths: Vec<PathConfig>,
    /// What changes, and when. Path 0 is the link of `fronts`, if there are any.
    pub schedule: Vec<Event>,
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
            paths: Vec::new(),
            schedule: Vec::new(),
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

impl Config {
    /// These paths and no other address.
    pub fn of_paths(paths: Vec<PathConfig>) -> Self {
        Self {
            fronts: Vec::new(),
            paths,
            ..Self::new(UNUSED)
        }
    }

    /// The shaped links, each with its two directions.
    fn links(&self) -> impl Iterator<Item = (&LinkConfig, &LinkConfig)> {
        let shared = (!self.fronts.is_empty()).then_some((&self.up, &self.down));
        let own = self.paths.iter().map(|p| (&p.up, &p.down));
        shared.into_iter().chain(own)
    }

    fn check(&self) -> io::Result<()> {
        let links = self.links().count();
        let wrong = self.schedule.iter().find(|e| e.path >= links);
        match wrong {
            _ if links == 0 => Err(io::Error::other("a relay needs an address")),
            Some(e) => Err(io::Error::other(format!("there is no path {}", e.path))),
            None => Ok(()),
        }
    }
}

const UNUSED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What is asked of a running relay, and where the answer goes.
enum Order {
    Change(usize, Change, std::sync::mpsc::Sender<bool>),
    Count(std::sync::mpsc::Sender<Vec<(Counts, Counts)>>),
}

/// A running relay. Dropping it stops it.
pub struct Relay {
    addrs: Vec<SocketAddr>,
    orders: mpsc::UnboundedSender<Order>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Log>>,
}

impl Relay {
    /// Binds the fronts and starts.
    ///
    /// # Errors
    /// An address cannot be bound, there is none, or the schedule names a path that is not there.
    pub fn start(config: Config) -> io::Result<Self> {
        config.check()?;
        let (stop, stopped) = oneshot::channel();
        let (orders, ordered) = mpsc::unbounded_channel();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("relay".into())
            .spawn(move || run(config, stopped, ordered, &tell))?;
        let addrs = told
            .recv()
            .map_err(|_| io::Error::other("the relay's thread ended"))??;
        Ok(Self {
            addrs,
            orders,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where clients send to.
    pub fn addr(&self) -> SocketAddr {
        self.addrs[0]
    }

    /// All fronts and then all paths, in the order of the configuration.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Changes a path now: what comes to the relay after this returns meets the change. Paths count
    /// as in [`Config::schedule`]. False when there is no such path.
    pub fn change(&self, path: usize, change: Change) -> bool {
        let (done, is_done) = std::sync::mpsc::channel();
        let asked = self.orders.send(Order::Change(path, change, done));
        asked.is_ok() && is_done.recv() == Ok(true)
    }

    /// What came to each of [`Self::addrs`] so far, to the server and to clients.
    pub fn counts(&self) -> Vec<(Counts, Counts)> {
        let (tell, told) = std::sync::mpsc::channel();
        let asked = self.orders.send(Order::Count(tell));
        asked
            .ok()
            .and_then(|()| told.recv().ok())
            .unwrap_or_default()
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
    orders: mpsc::UnboundedReceiver<Order>,
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
        let fronts = match bind(&config) {
            Ok(fronts) => fronts,
            Err(e) => {
                let _ = tell.send(Err(e));
                return Log::default();
            }
        };
        let _ = tell.send(Ok(fronts.iter().map(|f| f.port.local).collect()));
        let mut ports: Vec<_> = fronts.iter().map(|f| f.port.clone()).collect();
        // Paths that share an address come one behind the other, or are bound apart.
        ports.dedup_by(|a, b| Rc::ptr_eq(a, b));
        let state = Rc::new(Shared {
            core: RefCell::new(Core::new(config, fronts)),
            changed: Notify::new(),
        });
        for port in ports {
            spawn_local(serve_front(state.clone(), port));
        }
        spawn_local(obey(state.clone(), orders));
        tokio::select! {
            _ = stopped => {}
            () = keep_time(&state) => {}
        }
        let mut core = state.core.borrow_mut();
        core.log.cross = (core.cross.delivered, core.cross.lost);
        std::mem::take(&mut core.log)
    })
}

/// An address that clients send to.
struct Front {
    port: Rc<Port>,
    /// Whose datagrams it takes; everybody's by default.
    client: Option<IpAddr>,
    to: SocketAddr,
    from: Option<IpAddr>,
    /// Its link. Those of a path serve it alone, and so do its clients' sockets before the server.
    link: usize,
    is_path: bool,
}

fn bind(config: &Config) -> io::Result<Vec<Front>> {
    let mut all: Vec<Front> = Vec::new();
    for &(listen, to) in &config.fronts {
        all.push(Front {
            port: Rc::new(Port::bind(listen)?),
            client: None,
            to,
            from: None,
            link: 0,
            is_path: false,
        });
    }
    let first = usize::from(!all.is_empty());
    for (n, path) in config.paths.iter().enumerate() {
        let last = n.checked_sub(1).and_then(|n| config.paths.get(n));
        let is_shared = last.is_some_and(|last| {
            last.listen == path.listen && last.client.is_some() && path.client.is_some()
        });
        let port = match all.last() {
            Some(last) if is_shared => last.port.clone(),
            _ => Rc::new(Port::bind(path.listen)?),
        };
        all.push(Front {
            port,
            client: path.client,
            to: path.to,
            from: path.from,
            link: first + n,
            is_path: true,
        });
    }
    Ok(all)
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
    fronts: Vec<Front>,
    flows: Vec<Flow>,
    links: Vec<[Link; 2]>,
    /// The next change is the last.
    schedule: Vec<Event>,
    /// Sockets that clients got by it and that nobody listens to yet.
    fresh: Vec<(usize, Rc<Port>)>,
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
    fn new(config: Config, fronts: Vec<Front>) -> Self {
        // Each direction of each path has its own chances, whatever the others carry.
        let links = config.links().zip(0u64..).map(|((up, down), n)| {
            let seed = config.seed ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            [
                Link::new(up.clone(), seed),
                Link::new(down.clone(), seed ^ 0x5bd1_e995),
            ]
        });
        let mut schedule = config.schedule.clone();
        // Stable, so that changes of one time keep their order once the last comes first.
        schedule.reverse();
        schedule.sort_by_key(|e| std::cmp::Reverse(e.at));
        Self {
            began: Instant::now(),
            links: links.collect(),
            schedule,
            fresh: Vec::new(),
            next_rebind: config.rebind.map(|r| r.every),
            config,
            flows: Vec::new(),
            due: BinaryHeap::new(),
            order: 0,
            rebound: 0,
            old: Vec::new(),
            cross: Cubic::default(),
            log: Log {
                fronts: vec![Default::default(); fronts.len()],
                ..Log::default()
            },
            fronts,
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
        self.change(now);
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
            self.link(front, direction).offer(now, data.len())
        };
        self.log.count(front, direction, data.len(), passage.fate);
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
                self.link(front, direction).corrupt(&mut data);
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

    fn link(&mut self, front: usize, direction: Direction) -> &mut Link {
        &mut self.links[self.fronts[front].link][direction as usize]
    }

    fn next(&self) -> Option<Duration> {
        let due = self.due.peek().map(|d| d.at);
        let change = self.schedule.last().map(|e| e.at);
        let cross = self.config.cross.then(|| self.cross.next()).flatten();
        let all = [due, self.next_rebind, cross, change];
        all.into_iter().flatten().min()
    }

    /// Lets out what is due. Returns the sockets that clients got anew.
    fn turn(&mut self) -> Vec<(usize, Rc<Port>)> {
        let now = self.now();
        let mut new = Vec::new();
        if self.next_rebind.is_some_and(|at| at <= now) {
            new = self.rebind_all(now);
        }
        self.change(now);
        new.append(&mut self.fresh);
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

    /// Makes the changes that are due.
    fn change(&mut self, now: Duration) {
        while let Some(event) = self.schedule.pop_if(|e| e.at <= now) {
            let new = self.apply(event.path, event.change);
            self.fresh.extend(new);
        }
    }

    /// Makes a change on a path that is there. Returns the sockets that clients got anew.
    fn apply(&mut self, path: usize, change: Change) -> Vec<(usize, Rc<Port>)> {
        let mut each = |direction: Option<Direction>, f: &dyn Fn(&mut Link)| {
            for d in [Direction::Up, Direction::Down] {
                if direction.is_none_or(|only| only == d) {
                    f(&mut self.links[path][d as usize]);
                }
            }
        };
        match change {
            Change::Blackhole(direction) => each(direction, &|link| link.switch(false)),
            Change::Restore => each(None, &|link| link.switch(true)),
            Change::Set(direction, knob) => each(direction, &|link| link.set(knob)),
            Change::Rebind => return self.rebind(Some(path)),
        }
        Vec::new()
    }

    fn leave(&self, due: &Due) {
        let flow = &self.flows[due.flow];
        let front = &self.fronts[due.front];
        match due.direction {
            // Translated where the link ends, as by a NAT before the server.
            Direction::Up => {
                flow.back.send(front.to, due.ecn, &due.data);
            }
            Direction::Down => {
                front.port.send(flow.client, due.ecn, &due.data);
            }
        }
    }

    fn compete(&mut self, now: Duration) {
        let back = self.config.up.delay;
        let rtt = back + self.config.down.delay * 2;
        self.cross.hear(now, rtt);
        while self.cross.may_send() {
            let passage = self.links[0][Direction::Down as usize].offer(now, SEGMENT);
            let heard = passage.at.first().map_or(now + rtt, |at| *at + back);
            self.cross.sent(heard, passage.fate.arrived());
        }
    }

    fn rebind_all(&mut self, now: Duration) -> Vec<(usize, Rc<Port>)> {
        let Some(rebind) = self.config.rebind else {
            return Vec::new();
        };
        self.next_rebind = Some(now + rebind.every);
        self.rebind(None)
    }

    /// Gives the clients, or those of one path, other sockets before the server.
    fn rebind(&mut self, path: Option<usize>) -> Vec<(usize, Rc<Port>)> {
        let on = |f: &Flow| path.is_none_or(|path| self.fronts[f.front].link == path);
        let flows: Vec<_> = (0..self.flows.len())
            .filter(|n| on(&self.flows[*n]))
            .collect();
        if flows.is_empty() {
            return Vec::new();
        }
        self.rebound += 1;
        self.log.rebindings = self.rebound;
        let mut new = Vec::new();
        for n in flows {
            if let Ok(port) = self.bind_back(self.flows[n].front) {
                let port = Rc::new(port);
                let old = std::mem::replace(&mut self.flows[n].back, port.clone());
                self.old.push(old);
                new.push((n, port));
            }
        }
        new
    }

    /// A socket that stands for a client of `front` before the server.
    fn bind_back(&self, front: usize) -> io::Result<Port> {
        let front = &self.fronts[front];
        if let Some(ip) = front.from {
            return Port::bind(SocketAddr::new(ip, 0));
        }
        let by_addr = self
            .config
            .rebind
            .is_some_and(|r| r.kind == RebindKind::Addr);
        let ip: IpAddr = match front.to {
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
        let is_path = self.fronts[front].is_path;
        let same = |f: &Flow| {
            let there = self.fronts[f.front].is_path;
            f.client == client && there == is_path && (!is_path || f.front == front)
        };
        if let Some(n) = self.flows.iter().rposition(same) {
            self.flows[n].front = front;
            return Some((n, None));
        }
        if self.flows.len() >= MAX_FLOWS {
            return None;
        }
        let back = Rc::new(self.bind_back(front).ok()?);
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
        if self.fronts[last].is_path || self.fronts[last].to == server {
            return last;
        }
        let same = |f: &Front| !f.is_path && f.to == server;
        self.fronts.iter().position(same).unwrap_or(last)
    }

    /// The front behind `port` that takes datagrams of `client`.
    fn front_for(&self, port: &Rc<Port>, client: SocketAddr) -> Option<usize> {
        let takes = |f: &Front| {
            Rc::ptr_eq(&f.port, port) && f.client.is_none_or(|only| only == client.ip())
        };
        self.fronts.iter().position(takes)
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

async fn obey(shared: Rc<Shared>, mut orders: mpsc::UnboundedReceiver<Order>) {
    while let Some(order) = orders.recv().await {
        let (path, change, done) = match order {
            Order::Change(path, change, done) => (path, change, done),
            Order::Count(tell) => {
                // Who asked may have given up, here and below.
                let _ = tell.send(shared.core.borrow().log.fronts.clone());
                continue;
            }
        };
        let exists = path < shared.core.borrow().links.len();
        if exists {
            let new = shared.core.borrow_mut().apply(path, change);
            for (flow, port) in new {
                spawn_local(serve_back(shared.clone(), flow, port));
            }
        }
        let _ = done.send(exists);
    }
}

async fn serve_front(shared: Rc<Shared>, port: Rc<Port>) {
    let mut buffer = vec![0; 1 << 17];
    loop {
        let each = |client, ecn, data: &[u8]| {
            let mut core = shared.core.borrow_mut();
            let Some(front) = core.front_for(&port, client) else {
                core.log.strangers += 1;
                return;
            };
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
