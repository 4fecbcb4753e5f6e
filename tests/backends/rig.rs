//! What the suite needs from the world around a backend, for kernel sockets and for simulated ones.
//!
//! A [`Rig`] is a backend with a way to bind sockets and to let time pass; it dereferences to the
//! backend. On the kernel a socket is bound by the system and time passes by itself. In the
//! simulator [`SimBackend::bind`] makes sockets, and the rig, as the driver of the network, moves
//! time to the next arrival whenever a test waits.

use corelane::base::{Ecn, FourTuple};
use corelane::io::sim::{LinkConfig, Network, SimBackend};
use corelane::io::{
    Backend, Choice, IoConfig, IoError, RecvMeta, SocketId, SocketOptions, Transmit,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// Where a test runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    Mmsg,
    Uring,
    Sim,
}

impl On {
    /// What the backend calls itself.
    pub fn name(self) -> &'static str {
        match self {
            On::Mmsg => "mmsg",
            On::Uring => "uring",
            On::Sim => "sim",
        }
    }
}

/// What lies behind a backend's sockets.
#[derive(Clone)]
pub enum World {
    /// The machine's loopback interface.
    Kernel,
    /// A network in memory; the addresses are those of a loopback interface.
    Simulated(Network),
}

impl World {
    /// A peer that is none of the backend's sockets.
    pub fn outside(&self) -> Outside {
        match self {
            World::Kernel => Outside::Kernel(UdpSocket::bind("127.0.0.1:0").unwrap()),
            World::Simulated(network) => Outside::Simulated(network.clone()),
        }
    }

    /// An address of this machine at which nobody is.
    pub fn nobody(&self) -> SocketAddr {
        match self {
            World::Kernel => {
                let gone = UdpSocket::bind("127.0.0.1:0").unwrap();
                gone.local_addr().unwrap()
            }
            World::Simulated(_) => "127.0.0.1:9".parse().unwrap(),
        }
    }

    /// Fails unless the socket that had this address has left it.
    pub fn assert_free(&self, addr: SocketAddr) {
        match self {
            World::Kernel => drop(UdpSocket::bind(addr).unwrap()),
            // Simulated sockets share an address as with SO_REUSEPORT, so that binding proves
            // nothing; a datagram that reaches nobody does.
            World::Simulated(network) => {
                settle(network);
                let before = network.stats().unreachable;
                self.outside().send_to(b"?", addr);
                assert_eq!(network.stats().unreachable, before + 1, "{addr} is taken");
            }
        }
    }
}

/// Sends to a backend's sockets from outside of it.
pub enum Outside {
    Kernel(UdpSocket),
    Simulated(Network),
}

impl Outside {
    /// Sends a datagram, which has arrived when this returns.
    pub fn send_to(&self, bytes: &[u8], to: SocketAddr) {
        match self {
            Outside::Kernel(socket) => {
                socket.send_to(bytes, to).unwrap();
            }
            Outside::Simulated(network) => {
                let from = SocketAddr::from(([127, 0, 0, 9], 9999));
                network.inject(from, to, Ecn::NotEct, bytes);
                settle(network);
            }
        }
    }
}

/// Lets everything that is under way arrive.
fn settle(network: &Network) {
    while let Some(at) = network.next_event() {
        network.advance_to(at);
    }
}

/// What one receive showed, copied out.
#[derive(Debug)]
pub struct Got {
    pub meta: RecvMeta,
    pub data: Vec<u8>,
}

impl Got {
    pub fn segments(&self) -> Vec<&[u8]> {
        self.data.chunks(self.meta.segment_size).collect()
    }
}

/// A backend and its world.
pub struct Rig {
    backend: Backend,
    world: World,
}

impl Deref for Rig {
    type Target = Backend;
    fn deref(&self) -> &Backend {
        &self.backend
    }
}

impl DerefMut for Rig {
    fn deref_mut(&mut self) -> &mut Backend {
        &mut self.backend
    }
}

impl Rig {
    pub fn open(on: On) -> Option<Self> {
        Self::open_with(on, &IoConfig::default())
    }

    /// A rig, or `None` with a line that says why this machine has no such backend.
    pub fn open_with(on: On, config: &IoConfig) -> Option<Self> {
        let choice = match on {
            On::Mmsg => Choice::Mmsg,
            On::Uring => Choice::Uring,
            On::Sim => return Some(Self::simulated(config)),
        };
        match Backend::open(choice, config) {
            Ok(backend) => Some(Self {
                backend,
                world: World::Kernel,
            }),
            Err(e @ IoError::Unavailable { .. }) => {
                eprintln!("skipped: {e}");
                None
            }
            Err(e) => panic!("{e}"),
        }
    }

    /// A backend alone on a network, whose host has the addresses of a loopback interface.
    fn simulated(config: &IoConfig) -> Self {
        let network = Network::new(1);
        let v4 = [1, 2, 3, 77].map(|last| IpAddr::from(Ipv4Addr::new(127, 0, 0, last)));
        let hosts: Vec<IpAddr> = v4.into_iter().chain([Ipv6Addr::LOCALHOST.into()]).collect();
        let backend = SimBackend::new(&network, &hosts, config).unwrap();
        Self {
            backend: Backend::Sim(Box::new(backend)),
            world: World::Simulated(network),
        }
    }

    pub fn world(&self) -> &World {
        &self.world
    }

    /// Opens a socket. In the simulator trains stay together or not by the link's configuration,
    /// which follows the first socket's.
    pub fn try_bind(&mut self, addr: &str, options: SocketOptions) -> Result<SocketId, IoError> {
        match (&mut self.backend, &self.world) {
            (Backend::Sim(backend), World::Simulated(network)) => {
                network.default_link(LinkConfig {
                    gro: f64::from(u8::from(options.gro)),
                    ..LinkConfig::default()
                });
                backend.bind(addr.parse().unwrap())
            }
            (backend, _) => backend.add_socket(UdpSocket::bind(addr).unwrap(), options),
        }
    }

    pub fn bind_with(&mut self, addr: &str, options: SocketOptions) -> (SocketId, SocketAddr) {
        let id = self.try_bind(addr, options).unwrap();
        (id, self.local_addr(id).unwrap())
    }

    pub fn bind(&mut self, addr: &str) -> (SocketId, SocketAddr) {
        self.bind_with(addr, SocketOptions::default())
    }

    /// Whether this world has the address.
    pub fn has(&self, addr: &str) -> bool {
        match self.world {
            World::Kernel => UdpSocket::bind(addr).is_ok(),
            World::Simulated(_) => true,
        }
    }

    /// Fills a buffer and queues it.
    pub fn put(&mut self, data: &[u8], transmit: Transmit) {
        let mut buffer = self.tx_buffer().expect("a send buffer is free");
        self.tx_slice(&mut buffer)[..data.len()].copy_from_slice(data);
        self.send(buffer, transmit);
    }

    /// Fills a buffer and sends it at once.
    pub fn put_now(&mut self, data: &[u8], transmit: Transmit) {
        let mut buffer = self.tx_buffer().expect("a send buffer is free");
        self.tx_slice(&mut buffer)[..data.len()].copy_from_slice(data);
        self.send_now(buffer, transmit).unwrap();
    }

    /// Fills a buffer and sends it with pieces that stand elsewhere.
    pub fn put_gathered(&mut self, held: &[u8], transmit: Transmit, pieces: &[(usize, &[u8])]) {
        let mut buffer = self.tx_buffer().expect("a send buffer is free");
        self.tx_slice(&mut buffer)[..held.len()].copy_from_slice(held);
        self.send_gathered(buffer, transmit, pieces);
    }

    /// Lets some time pass, less if something arrives.
    fn pause(&mut self) {
        self.backend.wait(Some(Duration::from_millis(20))).unwrap();
        if let World::Simulated(network) = &self.world
            && let Some(at) = network.next_event()
        {
            network.advance_to(at);
        }
    }

    /// Receives until `done` says so.
    pub fn until(&mut self, mut done: impl FnMut(&[Got]) -> bool) -> Vec<Got> {
        let mut got = Vec::new();
        self.flush().unwrap();
        for _ in 0..1000 {
            self.recv(&mut |meta, data| {
                got.push(Got {
                    meta: *meta,
                    data: data.to_vec(),
                });
                data.fill(0xee); // The sink may write.
            })
            .unwrap();
            if done(&got) {
                return got;
            }
            self.pause();
        }
        panic!("only {} trains came; {:?}", got.len(), self.stats());
    }

    pub fn receive(&mut self, trains: usize) -> Vec<Got> {
        self.until(|got| got.len() >= trains)
    }

    pub fn receive_bytes(&mut self, bytes: usize) -> Vec<Got> {
        self.until(|got| got.iter().map(|g| g.data.len()).sum::<usize>() >= bytes)
    }

    /// Send buffers that can be had.
    pub fn free_buffers(&mut self) -> usize {
        let held: Vec<_> = std::iter::from_fn(|| self.tx_buffer()).collect();
        held.len()
    }
}

/// A transmit of one datagram.
pub fn to(socket: SocketId, local: SocketAddr, remote: SocketAddr, len: usize) -> Transmit {
    Transmit {
        socket,
        path: FourTuple::new(local, remote),
        ecn: Ecn::NotEct,
        segment_size: len,
        len,
    }
}
