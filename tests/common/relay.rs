//! A UDP relay on the loopback address that treats datagrams badly, for tests with two programs or
//! two implementations that only meet over real sockets.
//!
//! Each client gets an upstream socket of its own, so the server sees as many peers as there are.
//! What happens to the n-th datagram of a client in one direction follows from the seed alone,
//! whatever the other clients do. Bounded in clients and in memory: it holds back one datagram per
//! lane. It stops, threads and all, when it is dropped. Kernel queues still drop what overflows
//! them; that part is not seeded.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use corelane::base::Rng;
use socket2::SockRef;

/// The most clients of a relay; datagrams of further ones are dropped and counted.
pub const CLIENTS_MAX: usize = 64;

/// How long a thread sleeps at most before it looks whether it has to end. Also how long a datagram
/// is held back when no other follows it.
const TICK: Duration = Duration::from_millis(10);
const BUFFER_BYTES: usize = 4 << 20;

/// What happens to the datagrams of one direction. Chances are from 0 to 1, each independent of
/// the others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Chance that a datagram is lost.
    pub loss: f64,
    /// Chance that a burst of losses begins with this datagram.
    pub burst: f64,
    /// How many datagrams in a row a burst takes.
    pub burst_len: u32,
    /// Chance that a datagram is delivered twice.
    pub duplicate: f64,
    /// Chance that a datagram is delivered after its successor.
    pub reorder: f64,
}

impl Faults {
    /// Independent losses and nothing else.
    pub fn loss(chance: f64) -> Self {
        Self {
            loss: chance,
            ..Self::default()
        }
    }
}

/// What happened in one direction, all clients together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Datagrams that arrived.
    pub received: u64,
    /// Datagrams sent on, copies included.
    pub forwarded: u64,
    /// Lost on purpose, bursts included.
    pub lost: u64,
    /// Of these, by bursts.
    pub lost_in_bursts: u64,
    /// Sent on twice.
    pub duplicated: u64,
    /// Sent on after their successor.
    pub reordered: u64,
    /// Dropped because there are [`CLIENTS_MAX`] clients already.
    pub refused: u64,
    /// Not sent on because a socket refused them.
    pub errors: u64,
}

/// Where the lanes of one direction count.
#[derive(Default)]
pub struct Shared {
    received: AtomicU64,
    forwarded: AtomicU64,
    lost: AtomicU64,
    lost_in_bursts: AtomicU64,
    duplicated: AtomicU64,
    reordered: AtomicU64,
    refused: AtomicU64,
    errors: AtomicU64,
}

impl Shared {
    /// The counts now.
    pub fn snapshot(&self) -> Counts {
        Counts {
            received: self.received.load(Relaxed),
            forwarded: self.forwarded.load(Relaxed),
            lost: self.lost.load(Relaxed),
            lost_in_bursts: self.lost_in_bursts.load(Relaxed),
            duplicated: self.duplicated.load(Relaxed),
            reordered: self.reordered.load(Relaxed),
            refused: self.refused.load(Relaxed),
            errors: self.errors.load(Relaxed),
        }
    }
}

/// The way of one client's datagrams in one direction; decides, and has no socket.
pub struct Lane {
    faults: Faults,
    rng: Rng,
    burst_left: u32,
    held: Option<Vec<u8>>,
    counts: Arc<Shared>,
}

impl Lane {
    /// A lane whose decisions follow from `rng`.
    pub fn new(faults: Faults, rng: Rng, counts: Arc<Shared>) -> Self {
        Self {
            faults,
            rng,
            burst_left: 0,
            held: None,
            counts,
        }
    }

    /// Decides about one datagram and hands what is delivered now to `send`.
    pub fn pass(&mut self, datagram: &[u8], send: &mut dyn FnMut(&[u8]) -> io::Result<usize>) {
        self.counts.received.fetch_add(1, Relaxed);
        let f = self.faults;
        // As many draws whatever comes out, so that one setting does not shift the others.
        let [lose, burst, duplicate, reorder] =
            [f.loss, f.burst, f.duplicate, f.reorder].map(|chance| self.rng.chance(chance));
        if burst && self.burst_left == 0 {
            self.burst_left = f.burst_len;
        }
        let in_burst = self.burst_left > 0;
        self.burst_left = self.burst_left.saturating_sub(1);
        if lose || in_burst {
            self.counts.lost.fetch_add(1, Relaxed);
            self.counts
                .lost_in_bursts
                .fetch_add(u64::from(in_burst), Relaxed);
            return;
        }
        if reorder && self.held.is_none() {
            self.held = Some(datagram.to_vec());
            return;
        }
        self.deliver(datagram, send);
        if duplicate {
            self.counts.duplicated.fetch_add(1, Relaxed);
            self.deliver(datagram, send);
        }
        if self.flush(send) {
            self.counts.reordered.fetch_add(1, Relaxed);
        }
    }

    /// Delivers what is held back; false when nothing is.
    pub fn flush(&mut self, send: &mut dyn FnMut(&[u8]) -> io::Result<usize>) -> bool {
        let held = self.held.take();
        if let Some(datagram) = &held {
            self.deliver(datagram, send);
        }
        held.is_some()
    }

    fn deliver(&self, datagram: &[u8], send: &mut dyn FnMut(&[u8]) -> io::Result<usize>) {
        let counter = match send(datagram) {
            Ok(_) => &self.counts.forwarded,
            // The other end is gone or its queue is full: a loss like any other.
            Err(_) => &self.counts.errors,
        };
        counter.fetch_add(1, Relaxed);
    }
}

/// A running relay.
pub struct Relay {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    up: Arc<Shared>,
    down: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Starts a relay to `server`. `up` is what happens from clients to the server.
    pub fn start(server: SocketAddr, seed: u64, up: Faults, down: Faults) -> io::Result<Self> {
        let front = socket()?;
        let addr = front.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let (up_counts, down_counts) = (Arc::new(Shared::default()), Arc::new(Shared::default()));
        let mut hub = Hub {
            front: Arc::new(front),
            server,
            faults: (up, down),
            counts: (up_counts.clone(), down_counts.clone()),
            rng: Rng::from_u64(seed),
            stop: stop.clone(),
            clients: HashMap::new(),
            threads: Vec::new(),
        };
        let thread = std::thread::Builder::new()
            .name("relay-up".into())
            .spawn(move || hub.run())?;
        Ok(Self {
            addr,
            stop,
            up: up_counts,
            down: down_counts,
            thread: Some(thread),
        })
    }

    /// Where clients send to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What happened so far from clients to the server.
    pub fn up(&self) -> Counts {
        self.up.snapshot()
    }

    /// What happened so far from the server to clients.
    pub fn down(&self) -> Counts {
        self.down.snapshot()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        // A second panic while one unwinds would hide the first.
        if let (Some(Err(_)), false) = (ended, std::thread::panicking()) {
            panic!("the relay panicked");
        }
    }
}

/// A socket on the loopback address whose reads return after [`TICK`] at the latest.
fn socket() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(TICK))?;
    // The kernel grants what it allows; less only means more real losses.
    let _ = SockRef::from(&socket).set_recv_buffer_size(BUFFER_BYTES);
    Ok(socket)
}

/// The thread that receives from all clients.
struct Hub {
    front: Arc<UdpSocket>,
    server: SocketAddr,
    faults: (Faults, Faults),
    counts: (Arc<Shared>, Arc<Shared>),
    rng: Rng,
    stop: Arc<AtomicBool>,
    clients: HashMap<SocketAddr, (Arc<UdpSocket>, Lane)>,
    threads: Vec<JoinHandle<()>>,
}

impl Hub {
    fn run(&mut self) {
        let mut buffer = vec![0; 1 << 16];
        while !self.stop.load(Relaxed) {
            match self.front.recv_from(&mut buffer) {
                Ok((len, client)) => self.receive(client, &buffer[..len]),
                // Nothing for a while: what waits for a successor has waited enough.
                Err(_) => {
                    for (upstream, lane) in self.clients.values_mut() {
                        lane.flush(&mut |datagram| upstream.send(datagram));
                    }
                }
            }
        }
        for thread in self.threads.drain(..) {
            thread.join().expect("a relay thread panicked");
        }
    }

    fn receive(&mut self, client: SocketAddr, datagram: &[u8]) {
        if !self.clients.contains_key(&client) {
            let added = if self.clients.len() < CLIENTS_MAX {
                self.add(client).is_ok()
            } else {
                false
            };
            if !added {
                self.counts.0.refused.fetch_add(1, Relaxed);
            }
        }
        if let Some((upstream, lane)) = self.clients.get_mut(&client) {
            lane.pass(datagram, &mut |d| upstream.send(d));
        }
    }

    fn add(&mut self, client: SocketAddr) -> io::Result<()> {
        let upstream = socket()?;
        upstream.connect(self.server)?;
        let upstream = Arc::new(upstream);
        let up = Lane::new(self.faults.0, self.rng.fork(), self.counts.0.clone());
        let mut down = Lane::new(self.faults.1, self.rng.fork(), self.counts.1.clone());
        let (source, front, stop) = (upstream.clone(), self.front.clone(), self.stop.clone());
        let thread = std::thread::Builder::new()
            .name("relay-down".into())
            .spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                let mut send = |datagram: &[u8]| front.send_to(datagram, client);
                while !stop.load(Relaxed) {
                    match source.recv(&mut buffer) {
                        Ok(len) => down.pass(&buffer[..len], &mut send),
                        Err(_) => _ = down.flush(&mut send),
                    }
                }
            })?;
        self.threads.push(thread);
        self.clients.insert(client, (upstream, up));
        Ok(())
    }
}
