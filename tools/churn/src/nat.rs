//! A relay that behaves like a NAT with a short memory: every so often all of its clients come from
//! new ports. Datagrams that were on their way to the old ones are lost.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Clients of one relay, at most; datagrams of others are dropped.
const CLIENTS: usize = 64;
/// Datagrams taken from one socket before the next has its turn.
const BURST: usize = 256;

/// A relay in a thread of its own, until it is dropped.
pub struct Nat {
    addr: SocketAddr,
    rebinds: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Nat {
    /// A relay to `server` that forgets its ports `every` so often.
    ///
    /// # Errors
    /// No socket could be bound.
    pub fn start(server: SocketAddr, every: Duration) -> io::Result<Self> {
        let front = bind()?;
        let addr = front.local_addr()?;
        let (rebinds, stop) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (counter, ended) = (rebinds.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name("nat".to_owned())
            .spawn(move || relay(&front, server, every, &counter, &ended))?;
        Ok(Self {
            addr,
            rebinds,
            stop,
            thread: Some(thread),
        })
    }

    /// Where clients send to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Ports that were given up for new ones.
    pub fn rebinds(&self) -> u64 {
        self.rebinds.load(Relaxed)
    }
}

impl Drop for Nat {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed.
            let _ = thread.join();
        }
    }
}

fn bind() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn relay(
    front: &UdpSocket,
    server: SocketAddr,
    every: Duration,
    rebinds: &AtomicU64,
    stop: &AtomicBool,
) {
    let mut clients: HashMap<SocketAddr, UdpSocket> = HashMap::new();
    let mut buf = vec![0; 65_535];
    let mut forget_at = Instant::now() + every;
    while !stop.load(Relaxed) {
        let mut idle = true;
        for _ in 0..BURST {
            let Ok((n, from)) = front.recv_from(&mut buf) else {
                break;
            };
            idle = false;
            if clients.len() >= CLIENTS && !clients.contains_key(&from) {
                continue;
            }
            if let std::collections::hash_map::Entry::Vacant(place) = clients.entry(from)
                && let Ok(socket) = bind()
            {
                place.insert(socket);
            }
            if let Some(socket) = clients.get(&from) {
                // What the kernel does not take is lost, as on any network.
                let _ = socket.send_to(&buf[..n], server);
            }
        }
        for (client, socket) in &clients {
            for _ in 0..BURST {
                let Ok((n, _)) = socket.recv_from(&mut buf) else {
                    break;
                };
                idle = false;
                let _ = front.send_to(&buf[..n], client);
            }
        }
        if Instant::now() >= forget_at {
            forget_at += every;
            rebinds.fetch_add(clients.len() as u64, Relaxed);
            clients.clear();
        }
        if idle {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}
