//! One shard's sockets on a simulated network: the kernel backends' contract in virtual time.
//!
//! The differences: sockets are bound by address ([`SimBackend::bind`]) on hosts that are named at
//! the start, `flush` always takes everything, and `wait` returns at once, since whoever drives the
//! network moves time.

use super::{Network, sockets::SocketKey};
use crate::base::{limits, net::canonical};
use crate::io::{
    Errno, IoConfig, IoError, IoStats, RecvMeta, SocketId, TX_BUFFER_LEN, Transmit, TxBuffer, Waker,
};
use crate::mem::Pool;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Trains shown in one `recv`.
const RECEIVES: usize = 64;

struct Socket {
    key: SocketKey,
    bound: SocketAddr,
}

/// A shard's way to a simulated network.
pub struct SimBackend {
    network: Network,
    hosts: Vec<IpAddr>,
    sockets: Vec<Option<Socket>>,
    limit: usize,
    /// The socket that `recv` looks at first.
    turn: usize,
    pool: Pool,
    queue: Vec<(TxBuffer, Transmit, SocketAddr)>,
    waker: Waker,
    stats: IoStats,
}

impl SimBackend {
    /// A backend whose sockets may be bound to these addresses; the first of a family is the
    /// source of what leaves a wildcard socket without one. Fails when there is no memory for the
    /// send buffers.
    pub fn new(network: &Network, hosts: &[IpAddr], config: &IoConfig) -> Result<Self, IoError> {
        let pool = Pool::new(config.tx_buffers.max(1), TX_BUFFER_LEN, config.pages)
            .map_err(|e| IoError::from_io("mmap", &e))?;
        Ok(Self {
            network: network.clone(),
            hosts: hosts.to_vec(),
            sockets: Vec::new(),
            limit: config.max_sockets,
            turn: 0,
            pool,
            queue: Vec::new(),
            waker: Waker::detached(),
            stats: IoStats::default(),
        })
    }

    /// Opens a socket on `address`: port 0 chooses one, an unspecified IP takes all hosts. Sockets
    /// on one address, of this backend or others, share it as with SO_REUSEPORT.
    pub fn bind(&mut self, address: SocketAddr) -> Result<SocketId, IoError> {
        if self.sockets.iter().flatten().count() >= self.limit {
            return Err(IoError::TooManySockets { limit: self.limit });
        }
        let (key, bound) = self
            .network
            .bind(&self.hosts, address, self.waker.clone())?;
        let socket = Some(Socket { key, bound });
        let index = match self.sockets.iter().position(Option::is_none) {
            Some(free) => {
                self.sockets[free] = socket;
                free
            }
            None => {
                self.sockets.push(socket);
                self.sockets.len() - 1
            }
        };
        Ok(SocketId(index as u32))
    }

    /// As [`Backend::remove_socket`](crate::io::Backend::remove_socket).
    pub fn remove_socket(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(id.index()).and_then(Option::take) else {
            return;
        };
        self.network.lock().sockets.unbind(socket.key);
        let stats = &mut self.stats;
        self.queue.retain(|(_, transmit, _)| {
            let keep = transmit.socket != id;
            stats.tx_dropped += if keep { 0 } else { transmit.segments() as u64 };
            keep
        });
    }

    /// As [`Backend::local_addr`](crate::io::Backend::local_addr).
    pub fn local_addr(&self, id: SocketId) -> Option<SocketAddr> {
        Some(self.socket(id)?.bound)
    }

    /// As [`Backend::recv`](crate::io::Backend::recv); sockets take turns, train by train.
    pub fn recv(&mut self, sink: &mut dyn FnMut(&RecvMeta, &mut [u8])) -> Result<usize, IoError> {
        let mut trains = 0;
        let mut silent = 0;
        while trains < RECEIVES && silent < self.sockets.len() {
            self.turn = (self.turn + 1) % self.sockets.len();
            let socket = self.sockets.get(self.turn).and_then(Option::as_ref);
            let key = socket.map(|socket| socket.key);
            let train = key.and_then(|key| self.network.lock().sockets.receive(key));
            let Some(mut train) = train else {
                silent += 1;
                continue;
            };
            silent = 0;
            if train.bytes.is_empty() {
                self.stats.rx_empty += 1;
                continue;
            }
            trains += 1;
            let meta = RecvMeta {
                socket: SocketId(self.turn as u32),
                path: train.path,
                ecn: train.ecn,
                segment_size: train.segment_size,
            };
            self.stats.on_train(train.bytes.len(), train.segment_size);
            sink(&meta, &mut train.bytes);
        }
        Ok(trains)
    }

    /// Whether `recv` would show something.
    pub fn readable(&self) -> bool {
        let network = self.network.lock();
        let mut open = self.sockets.iter().flatten();
        open.any(|socket| network.sockets.unread(socket.key))
    }

    /// As [`Backend::tx_buffer`](crate::io::Backend::tx_buffer).
    pub fn tx_buffer(&mut self) -> Option<TxBuffer> {
        self.pool.take().map(TxBuffer::new)
    }

    /// As [`Backend::tx_lent`](crate::io::Backend::tx_lent).
    pub fn tx_lent(&self) -> usize {
        self.pool.count() - self.pool.available()
    }

    /// As [`Backend::can_send`](crate::io::Backend::can_send).
    pub fn can_send(&self, id: SocketId) -> bool {
        self.socket(id).is_some()
    }

    /// As [`Backend::send`](crate::io::Backend::send).
    pub fn send(&mut self, buffer: TxBuffer, transmit: Transmit) {
        match self.check(&buffer, &transmit) {
            Ok(from) => self.queue.push((buffer, transmit, from)),
            Err(errno) => {
                self.stats.tx_dropped += transmit.segments() as u64;
                self.stats.errors.count(Errno(errno));
            }
        }
    }

    /// As [`Backend::flush`](crate::io::Backend::flush); nothing stays queued.
    pub fn flush(&mut self) -> Result<(), IoError> {
        let mut network = self.network.lock();
        for (buffer, transmit, from) in self.queue.drain(..) {
            let Some(bytes) = buffer.get(..transmit.len) else {
                continue;
            };
            let to = canonical(transmit.path.remote);
            network.transmit(from, to, transmit.ecn, bytes, transmit.segment_size);
            self.stats.tx_trains += 1;
            self.stats.tx_datagrams += transmit.segments() as u64;
            self.stats.tx_bytes += transmit.len as u64;
        }
        Ok(())
    }

    /// Flushes and returns at once.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<(), IoError> {
        let _ = timeout;
        self.waker.take_pending();
        self.flush()
    }

    /// As [`Backend::waker`](crate::io::Backend::waker): a wake leaves a mark until the next
    /// `wait`, and so does an arriving datagram.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// As [`Backend::stats`](crate::io::Backend::stats).
    pub fn stats(&self) -> &IoStats {
        &self.stats
    }

    /// The network it is on.
    pub fn network(&self) -> &Network {
        &self.network
    }

    fn socket(&self, id: SocketId) -> Option<&Socket> {
        self.sockets.get(id.index())?.as_ref()
    }

    /// The source address of a train, or the errno a kernel would give.
    fn check(&self, buffer: &TxBuffer, transmit: &Transmit) -> Result<SocketAddr, i32> {
        let bound = self.socket(transmit.socket).ok_or(libc::EBADF)?.bound;
        let segments = transmit.segments();
        let train = segments > 1;
        if transmit.len == 0
            || transmit.len > buffer.len()
            || transmit.segment_size == 0
            || segments > limits::MAX_TRAIN_SEGMENTS
            || train && transmit.len > limits::MAX_TRAIN_BYTES
        {
            debug_assert!(false, "not a train: {transmit:?}");
            return Err(libc::EINVAL);
        }
        let to_v4 = canonical(transmit.path.remote).is_ipv4();
        // A wildcard IPv6 socket is dual-stack; any other socket has one family.
        if to_v4 != bound.is_ipv4() && bound != SocketAddr::new([0u16; 8].into(), bound.port()) {
            return Err(libc::EAFNOSUPPORT);
        }
        // What an IPv4 header's length field can say.
        if transmit.segment_size.min(transmit.len) > if to_v4 { 65_507 } else { 65_527 } {
            return Err(libc::EMSGSIZE);
        }
        let wanted = canonical(transmit.path.local).ip();
        let ip = if !bound.ip().is_unspecified() {
            bound.ip()
        } else if !wanted.is_unspecified() {
            let ours = self.hosts.iter().find(|&&ip| ip == wanted);
            *ours.ok_or(libc::EADDRNOTAVAIL)?
        } else {
            let family = |ip: &&IpAddr| ip.is_ipv4() == to_v4;
            *self.hosts.iter().find(family).ok_or(libc::ENETUNREACH)?
        };
        Ok(SocketAddr::new(ip, bound.port()))
    }
}

impl Drop for SimBackend {
    fn drop(&mut self) {
        let mut network = self.network.lock();
        for socket in self.sockets.iter().flatten() {
            network.sockets.unbind(socket.key);
        }
    }
}
