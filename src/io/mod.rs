//! Moving UDP datagrams: one [`Backend`], several ways to the network.
//!
//! [`uring`] is the default; [`mmsg`] is the same contract on epoll for kernels and containers
//! without io_uring. A backend belongs to one shard, holds its sockets, receives whole GRO trains
//! into buffers of its own and sends whole GSO trains from leased ones. Bytes are opaque here.
//!
//! Nothing that the network does is an error: refused, unreachable or oversized datagrams are
//! counted in [`IoStats`]. `recv` and `flush` never block, and `flush` makes no system call when
//! there is nothing to do. Only `wait` sleeps.

mod addr;
mod arrival;
mod cmsg;
pub mod errno;
pub mod error;
mod gather;
pub mod mmsg;
pub mod probe;
pub mod sim;
mod socket;
pub mod sockopt;
pub mod stats;
mod train;
pub mod uring;
pub mod waker;
mod watch;

pub use arrival::{AHEAD, Arrival};
pub use errno::Errno;
pub use error::IoError;
pub use sockopt::SocketOptions;
pub use stats::IoStats;
pub use waker::Waker;
pub use watch::WatchId;

pub use crate::base::{RecvMeta, SocketId, Transmit};

use crate::base::limits;
use crate::mem::{Lease, Pages};
use std::net::{SocketAddr, UdpSocket};
use std::ops::{Deref, DerefMut};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

/// Bytes of one send buffer; a train is at most [`limits::MAX_TRAIN_BYTES`], a single datagram at
/// most [`limits::MAX_UDP_PAYLOAD`].
pub const TX_BUFFER_LEN: usize = 64 * 1024;

/// A send buffer: fill it, then give it to [`Backend::send`] or back. Dropping it gives it back,
/// too.
#[derive(Debug)]
pub struct TxBuffer(Lease);

impl TxBuffer {
    /// A send buffer in leased memory.
    pub fn new(lease: Lease) -> Self {
        Self(lease)
    }

    fn lease(&self) -> &Lease {
        &self.0
    }
}

impl Deref for TxBuffer {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for TxBuffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// What a backend is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoConfig {
    /// Receive buffers of 64 KiB each and a little room; a power of two for io_uring, which
    /// rounds up.
    pub rx_buffers: usize,
    /// Send buffers of 64 KiB each.
    pub tx_buffers: usize,
    /// Sockets at a time.
    pub max_sockets: usize,
    /// The pages behind the buffers.
    pub pages: Pages,
}

impl Default for IoConfig {
    fn default() -> Self {
        Self {
            rx_buffers: 16,
            tx_buffers: 16,
            max_sockets: limits::SOCKETS,
            pages: Pages::Base,
        }
    }
}

/// Which backend to open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// io_uring, or the fallback where io_uring is not to be had. A shard that never sleeps
    /// ([`Idle::Spin`](crate::shard::engine::Idle)) has the fallback while it has one or two
    /// sockets: asking them directly is the shorter way for a single datagram.
    #[default]
    Auto,
    /// io_uring or an error.
    Uring,
    /// The fallback.
    Mmsg,
}

impl Choice {
    /// What to open for a shard that never sleeps and has so many sockets.
    pub(crate) fn spinning(self, sockets: usize) -> Self {
        match self {
            Self::Auto if sockets < mmsg::DIRECT => Self::Mmsg,
            other => other,
        }
    }
}

/// A shard's way to the network.
pub enum Backend {
    /// io_uring.
    Uring(Box<uring::Uring>),
    /// epoll, `recvmmsg` and `sendmmsg`.
    Mmsg(Box<mmsg::Mmsg>),
    /// A network in virtual time.
    Sim(Box<sim::SimBackend>),
}

macro_rules! each {
    ($self:expr, $b:ident => $call:expr) => {
        match $self {
            Backend::Uring($b) => $call,
            Backend::Mmsg($b) => $call,
            Backend::Sim($b) => $call,
        }
    };
}

impl Backend {
    /// Opens a backend. With [`Choice::Auto`] one log line says why, if it is not io_uring.
    pub fn open(choice: Choice, config: &IoConfig) -> Result<Self, IoError> {
        let error = match choice {
            Choice::Mmsg => return Ok(Self::Mmsg(Box::new(mmsg::Mmsg::new(config)?))),
            Choice::Auto | Choice::Uring => match uring::Uring::new(config) {
                Ok(ring) => return Ok(Self::Uring(Box::new(ring))),
                Err(e) => e,
            },
        };
        if choice == Choice::Uring {
            return Err(error);
        }
        tracing::warn!(%error, "using epoll and sendmmsg instead of io_uring");
        Ok(Self::Mmsg(Box::new(mmsg::Mmsg::new(config)?)))
    }

    /// Its name: `uring`, `mmsg` or `sim`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Uring(_) => "uring",
            Self::Mmsg(_) => "mmsg",
            Self::Sim(_) => "sim",
        }
    }

    /// Takes over a bound socket and begins to receive on it.
    pub fn add_socket(
        &mut self,
        socket: UdpSocket,
        options: SocketOptions,
    ) -> Result<SocketId, IoError> {
        match self {
            Self::Uring(b) => b.add_socket(socket, options),
            Self::Mmsg(b) => b.add_socket(socket, options),
            Self::Sim(_) => Err(IoError::Simulated),
        }
    }

    /// Closes a socket. What it has received and not shown yet, and what it has queued and not
    /// sent, is dropped; an unknown id does nothing.
    pub fn remove_socket(&mut self, id: SocketId) {
        each!(self, b => b.remove_socket(id));
    }

    /// The address a socket is bound to; `None` for an unknown id.
    pub fn local_addr(&self, id: SocketId) -> Option<SocketAddr> {
        each!(self, b => b.local_addr(id))
    }

    /// The one peer that a connected socket hears and sends to; `None` for any other.
    pub fn peer_addr(&self, id: SocketId) -> Option<SocketAddr> {
        match self {
            Self::Uring(b) => b.peer_addr(id),
            Self::Mmsg(b) => b.peer_addr(id),
            Self::Sim(_) => None,
        }
    }

    /// A socket at `local`, where socket `id` is, that is connected to `peer`, to be added. Until
    /// then nobody reads what that peer sends from `peer`; socket `id` hears all others.
    pub fn socket_beside(
        &self,
        id: SocketId,
        local: SocketAddr,
        peer: SocketAddr,
    ) -> Result<UdpSocket, IoError> {
        let socket = match self {
            Self::Uring(b) => b.socket(id),
            Self::Mmsg(b) => b.socket(id),
            Self::Sim(_) => return Err(IoError::Simulated),
        };
        let unknown = IoError::System {
            op: "socket",
            errno: Errno(libc::EBADF),
        };
        socket.ok_or(unknown)?.beside(local, peer)
    }

    /// Shows received trains to `sink`, in order of arrival per socket, and returns how many. The
    /// bytes are valid inside `sink` only, which may change them. Never blocks; bounded work.
    #[inline]
    pub fn recv(&mut self, sink: &mut dyn FnMut(&RecvMeta, &mut [u8])) -> Result<usize, IoError> {
        self.recv_while(&mut |meta, data| {
            sink(meta, data);
            true
        })
    }

    /// Like [`recv`](Self::recv), until `sink` says that it has enough for now. What the kernel
    /// handed over in one call is shown all the same; the rest comes with the next call.
    #[inline]
    pub fn recv_while(
        &mut self,
        sink: &mut dyn FnMut(&RecvMeta, &mut [u8]) -> bool,
    ) -> Result<usize, IoError> {
        self.recv_ahead(&mut |arrival| match arrival {
            Arrival::Coming(_) => true,
            Arrival::Train(meta, data) => sink(meta, data),
        })
    }

    /// Like [`recv_while`](Self::recv_while); `sink` also hears of trains that are there, up to
    /// [`AHEAD`] before their turn and in their order, where the backend knows.
    #[inline]
    pub fn recv_ahead(
        &mut self,
        sink: &mut dyn FnMut(Arrival<'_>) -> bool,
    ) -> Result<usize, IoError> {
        match self {
            Self::Uring(b) => b.recv(sink),
            Self::Mmsg(b) => b.recv(sink),
            Self::Sim(b) => b.recv(&mut |meta, data| {
                sink(Arrival::Train(meta, data));
            }),
        }
    }

    /// A send buffer of [`TX_BUFFER_LEN`] bytes; `None` while all are lent or in flight.
    #[inline]
    pub fn tx_buffer(&mut self) -> Option<TxBuffer> {
        each!(self, b => b.tx_buffer())
    }

    /// Send buffers that are lent or in flight now.
    pub fn tx_lent(&self) -> usize {
        each!(self, b => b.tx_lent())
    }

    /// The buffer's bytes; the same as dereferencing it.
    #[inline]
    pub fn tx_slice<'a>(&mut self, buffer: &'a mut TxBuffer) -> &'a mut [u8] {
        buffer
    }

    /// Whether a train given to [`send`](Self::send) would be taken: false while the socket holds
    /// its share of the send buffers, or is not there.
    #[inline]
    pub fn can_send(&self, id: SocketId) -> bool {
        each!(self, b => b.can_send(id))
    }

    /// Queues a train; it leaves at the next [`flush`](Self::flush). One that cannot be queued is
    /// dropped and counted.
    #[inline]
    pub fn send(&mut self, buffer: TxBuffer, transmit: Transmit) {
        each!(self, b => b.send(buffer, transmit));
    }

    /// [`send`](Self::send) and [`flush`](Self::flush) in one, for a train that the peer may well
    /// wait for.
    #[inline]
    pub fn send_now(&mut self, buffer: TxBuffer, transmit: Transmit) -> Result<(), IoError> {
        if let Self::Mmsg(b) = self {
            return b.send_now(buffer, transmit);
        }
        self.send(buffer, transmit);
        self.flush()
    }

    /// Sends a train of which `pieces` are not in the buffer: with each, how many bytes of the
    /// buffer go before it. The buffer has the rest, without gaps, and `transmit` tells of both.
    /// Where it does not leave at once the pieces are copied, and it is queued as with
    /// [`send`](Self::send).
    #[inline]
    pub fn send_gathered(
        &mut self,
        mut buffer: TxBuffer,
        mut transmit: Transmit,
        pieces: &[(usize, &[u8])],
    ) {
        if let Self::Mmsg(b) = self
            && b.send_gathered(&mut buffer, &transmit, pieces)
        {
            return;
        }
        if !gather::fill_in(&mut buffer, transmit.len, pieces) {
            // No train, which is dropped and counted.
            transmit.len = 0;
        }
        self.send(buffer, transmit);
    }

    /// Gives a buffer back unsent; the same as dropping it.
    pub fn release(&mut self, buffer: TxBuffer) {
        drop(buffer);
    }

    /// Hands what is queued to the kernel. Trains that a socket does not take now stay queued.
    #[inline]
    pub fn flush(&mut self) -> Result<(), IoError> {
        each!(self, b => b.flush())
    }

    /// Flushes, then sleeps until something arrives, a queued train can leave, the waker calls or
    /// `timeout` passes (`None`: no limit). May return early.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<(), IoError> {
        each!(self, b => b.wait(timeout))
    }

    /// Has [`wait`](Self::wait) end when `fd` is readable, too, and
    /// [`next_readable`](Self::next_readable) tell of it. Whoever is told reads all there is.
    pub fn watch(&mut self, fd: OwnedFd) -> Result<WatchId, IoError> {
        match self {
            Self::Uring(b) => b.watch(fd),
            Self::Mmsg(b) => b.watch(fd),
            Self::Sim(_) => Err(IoError::Simulated),
        }
    }

    /// The same with a duplicate of `fd`.
    pub fn watch_duplicate(&mut self, fd: BorrowedFd<'_>) -> Result<WatchId, IoError> {
        let owned = fd.try_clone_to_owned();
        self.watch(owned.map_err(|e| IoError::from_io("dup", &e))?)
    }

    /// Closes a watched descriptor; an unknown id does nothing.
    pub fn unwatch(&mut self, id: WatchId) {
        match self {
            Self::Uring(b) => b.unwatch(id),
            Self::Mmsg(b) => b.unwatch(id),
            Self::Sim(_) => {}
        }
    }

    /// A watched descriptor that was readable. After a sleep it tells of every one; a shard that
    /// does not sleep hears of them where the backend comes by them without asking.
    #[inline]
    pub fn next_readable(&mut self) -> Option<WatchId> {
        match self {
            Self::Uring(b) => b.next_readable(),
            Self::Mmsg(b) => b.next_readable(),
            Self::Sim(_) => None,
        }
    }

    /// A handle that ends [`wait`](Self::wait) from any thread.
    pub fn waker(&self) -> Waker {
        each!(self, b => b.waker())
    }

    /// What happened so far.
    pub fn stats(&self) -> &IoStats {
        each!(self, b => b.stats())
    }
}
