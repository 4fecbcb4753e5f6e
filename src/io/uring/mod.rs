//! The io_uring backend: multishot receive into provided buffers, GSO sends, one ring a shard.
//!
//! All sockets share the ring, its table of registered files and one group of receive buffers.
//! Completions are taken off the ring by `reap` alone, wherever room or news is needed;
//! receives then wait in `ready` until `recv` shows them. With DEFER_TASKRUN the kernel completes
//! receives only when asked, and says through a flag in the ring that it has something: a shard
//! that spins reads two words of memory a turn and enters the kernel only when there is news.
//!
//! Memory that the kernel may touch is freed only once no operation is left; see [`Drop`].

mod ring;
mod rx;
mod tx;
mod watch;

use super::errno::{Class, Errno};
use super::socket::{Socket, share};
use super::train::Train;
use super::watch::Watches;
use super::{
    AHEAD, Arrival, IoConfig, IoError, IoStats, RecvMeta, SocketId, SocketOptions, TX_BUFFER_LEN,
    TxBuffer, Waker,
};
use crate::mem::Pool;
use io_uring::{cqueue, opcode, types};
pub use ring::TaskRun;
use ring::{Completion, Kind, Ring};
use rx::RxBuffers;
use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;
use tx::Slot;

/// Trains shown by one `recv`.
const RECV_BOUND: usize = 64;
/// Tries to get cancelled operations back before their memory is left alone.
const CANCEL_TRIES: usize = 64;

struct Entry {
    socket: Socket,
    /// A multishot receive is in the kernel or on its way.
    armed: bool,
    /// Trains queued or in the kernel.
    sending: usize,
    /// Given up after an error that was reported.
    broken: bool,
}

/// One place in the table of sockets and of registered files.
#[derive(Default)]
struct Place {
    entry: Option<Entry>,
    /// Operations in the kernel that name this place; it is used again when there are none.
    operations: usize,
}

/// See the module's description.
pub struct Uring {
    ring: Ring,
    rx: RxBuffers,
    slots: Box<[Slot]>,
    pool: Pool,
    waker: Waker,
    /// What the eventfd read of the waker writes to.
    wake_count: Box<[u8; 8]>,
    wake_armed: bool,
    places: Vec<Place>,
    open: usize,
    limit: usize,
    /// Receives that were reaped and not shown.
    ready: VecDeque<Completion>,
    /// Of those, how many were told of already.
    told: usize,
    /// Sockets whose receive ended or has not begun.
    rearm: Vec<u32>,
    /// Operations that the kernel has, or will have with the next submission.
    operations: usize,
    watches: Watches,
    stats: IoStats,
}

impl Uring {
    /// Opens a ring. [`IoError::Unavailable`] says what the kernel lacks or forbids.
    pub fn new(config: &IoConfig) -> Result<Self, IoError> {
        let ring = Ring::open()?;
        let limit = ring.register_files(config.max_sockets)?;
        let rx = RxBuffers::register(&ring, config.rx_buffers, config.pages)?;
        let pool = Pool::new(config.tx_buffers.max(1), TX_BUFFER_LEN, config.pages)
            .map_err(|e| IoError::from_io("mmap", &e))?;
        Ok(Self {
            slots: std::iter::repeat_with(Slot::new)
                .take(pool.count())
                .collect(),
            rx,
            pool,
            waker: Waker::new()?,
            wake_count: Box::new([0; 8]),
            wake_armed: false,
            places: Vec::new(),
            open: 0,
            limit,
            ready: VecDeque::with_capacity(config.rx_buffers + 16),
            told: 0,
            rearm: Vec::new(),
            operations: 0,
            watches: Watches::default(),
            stats: IoStats::default(),
            ring,
        })
    }

    /// How the kernel hands completions over, for `doctor`.
    pub fn task_run(&self) -> TaskRun {
        self.ring.task_run()
    }

    pub(super) fn add_socket(
        &mut self,
        os: UdpSocket,
        options: SocketOptions,
    ) -> Result<SocketId, IoError> {
        let full = IoError::TooManySockets { limit: self.limit };
        let unused = |p: &Place| p.entry.is_none() && p.operations == 0;
        let index = match self.places.iter().position(unused) {
            Some(free) => free,
            None if self.places.len() < self.limit => {
                self.places.push(Place::default());
                self.places.len() - 1
            }
            None => return Err(full),
        };
        let socket = Socket::new(os, &options)?;
        socket.set_blocking(true)?;
        self.ring.set_file(index as u32, socket.fd())?;
        if let Some(place) = self.places.get_mut(index) {
            place.entry = Some(Entry {
                socket,
                armed: false,
                sending: 0,
                broken: false,
            });
        }
        self.open += 1;
        // The receive is armed by the thread that drives the ring, which may not be this one.
        self.rearm.push(index as u32);
        Ok(SocketId(index as u32))
    }

    pub(super) fn remove_socket(&mut self, id: SocketId) {
        let Some(entry) = self.places.get_mut(id.index()).and_then(|p| p.entry.take()) else {
            return;
        };
        self.open -= 1;
        self.rearm.retain(|&r| r != id.0);
        if self.operations_of(id) > 0 {
            let all = types::CancelBuilder::fd(types::Fixed(id.0)).all();
            self.cancel(all);
            // A cancelled operation completes in task work, which takes another turn. Should some
            // be left, their completions free the place later.
            for _ in 0..4 {
                if self.operations_of(id) == 0 {
                    break;
                }
                let _ = self.ring.submit(&mut self.stats);
                self.reap();
            }
        }
        let rx = &mut self.rx;
        self.told = 0;
        self.ready.retain(|c| {
            let other = c.index != id.0;
            if !other {
                c.buffer().inspect(|&b| rx.recycle(b));
            }
            other
        });
        // Without this the table would keep the socket open. There is no other way to fail than
        // to be on a thread that does not own the ring, where nothing else works either.
        let _ = self.ring.set_file(id.0, -1);
        drop(entry);
    }

    fn operations_of(&self, id: SocketId) -> usize {
        self.places.get(id.index()).map_or(0, |p| p.operations)
    }

    fn cancel(&mut self, which: types::CancelBuilder) {
        let entry = opcode::AsyncCancel2::new(which).build();
        // SAFETY: a cancellation refers to no memory.
        if unsafe { self.ring.push(entry, Kind::Cancel, 0, &mut self.stats) }.is_ok() {
            self.operations += 1;
        }
    }

    pub(super) fn local_addr(&self, id: SocketId) -> Option<SocketAddr> {
        Some(self.places.get(id.index())?.entry.as_ref()?.socket.bound)
    }

    pub(super) fn socket(&self, id: SocketId) -> Option<&Socket> {
        Some(&self.places.get(id.index())?.entry.as_ref()?.socket)
    }

    pub(super) fn peer_addr(&self, id: SocketId) -> Option<SocketAddr> {
        self.places.get(id.index())?.entry.as_ref()?.socket.peer
    }

    /// Takes every completion off the ring. Bounded: receives need buffers, which only `recv`
    /// gives back, and sends need slots.
    #[inline]
    fn reap(&mut self) {
        while let Some(c) = self.ring.next() {
            match c.kind {
                Kind::Receive => self.on_receive(c),
                Kind::Send => self.on_sent(c),
                Kind::Wake => {
                    self.wake_armed = false;
                    self.operations -= 1;
                }
                Kind::Cancel => self.operations -= 1,
                Kind::Watch => self.on_watched(c),
            }
        }
    }

    fn on_receive(&mut self, c: Completion) {
        let Some(place) = self.places.get_mut(c.index as usize) else {
            return;
        };
        if !cqueue::more(c.flags) {
            self.operations -= 1;
            place.operations -= 1;
            if let Some(entry) = &mut place.entry {
                entry.armed = false;
                self.rearm.push(c.index);
            }
        }
        if place.entry.is_some() {
            self.ready.push_back(c);
        } else if let Some(buffer) = c.buffer() {
            self.rx.recycle(buffer);
        }
    }

    #[inline]
    pub(super) fn recv(
        &mut self,
        sink: &mut dyn FnMut(Arrival<'_>) -> bool,
    ) -> Result<usize, IoError> {
        if !self.ring.has_completions() && self.ring.needs_enter() {
            self.ring.submit(&mut self.stats)?;
        }
        self.reap();
        let mut trains = 0;
        let mut result = Ok(());
        let mut more = true;
        while more
            && trains < RECV_BOUND
            && let Some(c) = self.ready.pop_front()
        {
            self.told = self.told.saturating_sub(1);
            self.tell(sink);
            match self.show(c, &mut |meta, data| {
                more = sink(Arrival::Train(meta, data));
            }) {
                Ok(shown) => trains += usize::from(shown),
                Err(e) => result = Err(e),
            }
        }
        if !self.rearm.is_empty() {
            self.arm_receives()?;
        }
        // An error of one socket must not hide that others have shown their trains.
        match result {
            Err(error) if trains > 0 => {
                tracing::error!(%error, "a socket is given up");
                Ok(trains)
            }
            Err(e) => Err(e),
            Ok(()) => Ok(trains),
        }
    }

    /// Tells of the receives that come next.
    #[inline]
    fn tell(&mut self, sink: &mut dyn FnMut(Arrival<'_>) -> bool) {
        while self.told < AHEAD
            && let Some(c) = self.ready.get(self.told)
        {
            self.told += 1;
            if let (Some(buffer), Ok(len)) = (c.buffer(), usize::try_from(c.result)) {
                // SAFETY: the completion says that the kernel has handed `buffer` to us with `len`
                // bytes written; it is recycled after it was shown, and no slice of it outlives
                // this loop's body.
                let bytes = unsafe { self.rx.bytes(buffer, len) };
                if let Some(payload) = rx::payload(bytes) {
                    sink(Arrival::Coming(payload));
                }
            }
        }
    }

    /// Shows one receive and gives its buffer back; whether there was a train in it.
    #[inline]
    fn show(
        &mut self,
        c: Completion,
        sink: &mut dyn FnMut(&RecvMeta, &mut [u8]),
    ) -> Result<bool, IoError> {
        let place = self.places.get_mut(c.index as usize);
        let Some(entry) = place.and_then(|p| p.entry.as_mut()) else {
            return Ok(false);
        };
        let Ok(len) = usize::try_from(c.result) else {
            return self.on_receive_error(SocketId(c.index), Errno(-c.result));
        };
        let Some(buffer) = c.buffer() else {
            return Ok(false);
        };
        let id = SocketId(c.index);
        // SAFETY: the completion says that the kernel has handed `buffer` to us with `len` bytes
        // written, and it is recycled below and only there.
        let bytes = unsafe { self.rx.bytes(buffer, len) };
        let shown = rx::show(bytes, id, &entry.socket, &mut self.stats, sink);
        self.rx.recycle(buffer);
        Ok(shown)
    }

    #[cold]
    fn on_receive_error(&mut self, id: SocketId, errno: Errno) -> Result<bool, IoError> {
        match errno.class() {
            // Every buffer was in use. They come back as they are shown; the receive starts anew.
            _ if errno == Errno(libc::ENOBUFS) => self.stats.rx_no_buffer += 1,
            Class::Later => {}
            Class::Drop(_) => self.stats.errors.count(errno),
            Class::Broken(_) => {
                self.stats.errors.count(errno);
                let place = self.places.get_mut(id.index());
                if let Some(entry) = place.and_then(|p| p.entry.as_mut()) {
                    entry.broken = true;
                }
                return Err(IoError::Socket {
                    socket: id,
                    op: "recvmsg",
                    errno,
                });
            }
        }
        Ok(false)
    }

    fn arm_receives(&mut self) -> Result<(), IoError> {
        while let Some(index) = self.rearm.pop() {
            let Some(place) = self.places.get_mut(index as usize) else {
                continue;
            };
            let Some(entry) = &mut place.entry else {
                continue;
            };
            if entry.armed || entry.broken {
                continue;
            }
            let receive = self.rx.receive(index);
            // SAFETY: the template and the buffers belong to `rx`, which outlives the operation.
            unsafe {
                self.ring
                    .push(receive, Kind::Receive, index, &mut self.stats)
            }?;
            entry.armed = true;
            place.operations += 1;
            self.operations += 1;
        }
        Ok(())
    }

    #[inline]
    pub(super) fn tx_buffer(&mut self) -> Option<TxBuffer> {
        if let Some(lease) = self.pool.take() {
            return Some(TxBuffer::new(lease));
        }
        self.reap();
        self.pool.take().map(TxBuffer::new)
    }

    /// As [`Backend::tx_lent`](crate::io::Backend::tx_lent).
    pub(super) fn tx_lent(&self) -> usize {
        self.pool.count() - self.pool.available()
    }

    #[inline]
    pub(super) fn can_send(&self, id: SocketId) -> bool {
        match self.places.get(id.index()).and_then(|p| p.entry.as_ref()) {
            Some(e) => !e.broken && e.sending < share(self.pool.count(), self.open),
            None => false,
        }
    }

    /// Whether some socket would not be given another send buffer.
    fn is_short(&self) -> bool {
        let most = share(self.pool.count(), self.open);
        let mut open = self.places.iter().filter_map(|p| p.entry.as_ref());
        self.pool.available() == 0 || open.any(|e| e.sending >= most)
    }

    #[inline]
    pub(super) fn flush(&mut self) -> Result<(), IoError> {
        if !self.rearm.is_empty() && self.ready.is_empty() {
            self.arm_receives()?;
        }
        self.arm_watches()?;
        if self.ring.needs_enter() {
            self.ring.submit(&mut self.stats)?;
            self.reap();
        }
        Ok(())
    }

    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> Result<(), IoError> {
        if !self.wake_armed {
            let fd = types::Fd(self.waker.event_fd());
            let read = opcode::Read::new(fd, self.wake_count.as_mut_ptr(), 8).build();
            // SAFETY: `wake_count` is boxed, eight bytes long and outlives the operation; the
            // descriptor belongs to `waker`.
            unsafe { self.ring.push(read, Kind::Wake, 0, &mut self.stats) }?;
            self.wake_armed = true;
            self.operations += 1;
        }
        // Most sends complete as they are submitted: done first, they do not end the sleep, unless
        // somebody may wait for their buffers.
        let was_short = self.is_short();
        self.reap();
        self.flush()?;
        let freed = was_short && !self.is_short();
        let told = freed || self.watches.any_readable();
        if told || !self.ready.is_empty() || timeout == Some(Duration::ZERO) {
            return Ok(());
        }
        let result = if self.waker.prepare_sleep() {
            self.stats.sleeps += 1;
            self.ring.wait(timeout, &mut self.stats)
        } else {
            Ok(())
        };
        self.waker.awake();
        self.reap();
        result
    }

    pub(super) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    pub(super) fn stats(&self) -> &IoStats {
        &self.stats
    }
}

impl Drop for Uring {
    /// Cancels what is in flight and waits for it, so that the kernel is done with our memory
    /// before it is freed. Where that cannot be (the ring belongs to another thread) the memory
    /// is left to the process: closing a ring ends its operations some time later.
    fn drop(&mut self) {
        // Without its socket a train is not continued.
        let entries = self.places.iter_mut().map(|p| p.entry.take());
        drop(entries.collect::<Vec<_>>());
        if self.ring.has_entered() {
            self.cancel_all();
        }
        // Closing a ring closes its files some time later; ports should be free at once.
        self.ring.unregister_files();
    }
}

impl Uring {
    fn cancel_all(&mut self) {
        self.cancel(types::CancelBuilder::any());
        for attempt in 0..CANCEL_TRIES {
            let turn = if attempt < 4 {
                self.ring.submit(&mut self.stats)
            } else {
                self.ring
                    .wait(Some(Duration::from_millis(1)), &mut self.stats)
            };
            self.reap();
            if self.operations == 0 || turn.is_err() {
                break;
            }
        }
        if self.operations > 0 {
            std::mem::forget(std::mem::take(&mut self.slots));
            std::mem::forget(std::mem::take(&mut self.wake_count));
            self.rx.leak();
        }
    }
}
