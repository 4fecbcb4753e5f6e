//! The backend for machines without io_uring: epoll, `recvmmsg` and `sendmmsg`.
//!
//! Each socket has its own queue. When its send buffer is full the queue stays, in order, and is
//! tried again at every flush; `wait` watches it for room. Other sockets are not held up. With
//! up to three sockets `recv` asks them directly, with more it asks epoll which are worth asking.
//! Epoll gets to know a socket when it is first asked: the kernel tells it of every datagram that
//! comes or has left, which a shard that never sleeps has no use for. What comes alone to a
//! connected socket is received with less ado (`alone`).

mod alone;
mod epoll;
mod rx;
mod tx;

use super::errno::{Class, Errno};
use super::socket::{Socket, share};
use super::train::{Message, Train};
use super::watch::{WatchId, Watches};
use super::{
    Arrival, IoConfig, IoError, IoStats, SocketId, SocketOptions, TX_BUFFER_LEN, TxBuffer, Waker,
};
use crate::base::limits::GATHER_PIECES;
use crate::mem::Pool;
use alone::Alone;
use epoll::Epoll;
use rx::RxBatch;
use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Messages in one `sendmmsg`.
const BATCH: usize = 16;
/// Events taken from epoll at a time; more sockets take turns.
const EVENTS: usize = 64;
/// Up to so many sockets are read without asking epoll.
pub(super) const DIRECT: usize = 3;
/// Looks in a row that bring nothing before a socket beside a busy one is looked at less often.
const SILENT: u32 = 64;
/// How often then: once in so many calls.
const SELDOM: u32 = 16;
/// What epoll reports for the waker.
const WAKER: u64 = u64::MAX;
/// What it reports for a watched descriptor, beside its number; for sockets it is less.
const WATCHED: u64 = 1 << 32;

/// Parts of a train in pieces: before each, and behind the last.
const PARTS: usize = 2 * GATHER_PIECES + 1;
const NO_PART: libc::iovec = libc::iovec {
    iov_base: std::ptr::null_mut(),
    iov_len: 0,
};

struct Entry {
    socket: Socket,
    alone: Alone,
    queue: VecDeque<Train>,
    /// Epoll knows the socket.
    known: bool,
    /// The socket did not take the queue's first train; epoll watches for room.
    full: bool,
    /// Given up after an error that was reported.
    broken: bool,
    /// Looks in a row that brought nothing.
    silence: u32,
}

/// See the module's description.
pub struct Mmsg {
    epoll: Epoll,
    waker: Waker,
    sockets: Vec<Option<Entry>>,
    open: usize,
    limit: usize,
    pool: Pool,
    /// A buffer that has left at once, for the next train: to give it back and to take it again
    /// are four atomic operations.
    kept: Option<TxBuffer>,
    /// Sockets with something queued, each once.
    dirty: Vec<SocketId>,
    /// Sockets that epoll does not know yet.
    unknown: usize,
    /// Taken by `flush` while it walks `dirty`.
    spare: Vec<SocketId>,
    messages: Box<[Message]>,
    headers: Box<[libc::mmsghdr]>,
    /// Where the parts of a train in pieces are.
    iovs: Box<[libc::iovec]>,
    rx: RxBatch,
    events: Box<[libc::epoll_event]>,
    /// Events that `wait` brought and `recv` has not looked at.
    fresh: usize,
    /// Calls of `recv`.
    calls: u32,
    watches: Watches,
    stats: IoStats,
}

// SAFETY: the raw pointers in `headers` and `iovs` point into `messages`, the pool's buffers and
// what was borrowed for one call; they are set anew before every call.
unsafe impl Send for Mmsg {}

impl Mmsg {
    /// Opens the backend; it has no sockets yet.
    pub fn new(config: &IoConfig) -> Result<Self, IoError> {
        let epoll = Epoll::new()?;
        let waker = Waker::new()?;
        epoll.add(waker.event_fd(), WAKER, false)?;
        let pool = Pool::new(config.tx_buffers.max(1), TX_BUFFER_LEN, config.pages)
            .map_err(|e| IoError::from_io("mmap", &e))?;
        // SAFETY: an mmsghdr of zeroes is a valid empty message.
        let no_header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        Ok(Self {
            epoll,
            waker,
            sockets: Vec::new(),
            open: 0,
            limit: config.max_sockets,
            pool,
            kept: None,
            dirty: Vec::new(),
            unknown: 0,
            spare: Vec::new(),
            messages: std::iter::repeat_with(Message::new).take(BATCH).collect(),
            headers: vec![no_header; BATCH].into(),
            iovs: vec![NO_PART; PARTS].into(),
            rx: RxBatch::new(config.rx_buffers, config.pages)?,
            events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS].into(),
            fresh: 0,
            calls: 0,
            watches: Watches::default(),
            stats: IoStats::default(),
        })
    }

    pub(super) fn add_socket(
        &mut self,
        os: UdpSocket,
        options: SocketOptions,
    ) -> Result<SocketId, IoError> {
        if self.open >= self.limit {
            return Err(IoError::TooManySockets { limit: self.limit });
        }
        let socket = Socket::new(os, &options)?;
        socket.set_blocking(false)?;
        let index = match self.sockets.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.sockets.push(None);
                self.sockets.len() - 1
            }
        };
        if let Some(slot) = self.sockets.get_mut(index) {
            *slot = Some(Entry {
                alone: Alone::of(&socket),
                socket,
                queue: VecDeque::new(),
                known: false,
                full: false,
                broken: false,
                silence: 0,
            });
        }
        self.open += 1;
        self.unknown += 1;
        let id = SocketId(index as u32);
        if self.open > DIRECT
            && let Err(e) = self.introduce()
        {
            self.remove_socket(id);
            return Err(e);
        }
        Ok(id)
    }

    pub(super) fn remove_socket(&mut self, id: SocketId) {
        let Some(mut entry) = self.sockets.get_mut(id.index()).and_then(Option::take) else {
            return;
        };
        for train in &mut entry.queue {
            train.drop_rest(&mut self.stats);
        }
        self.unknown -= usize::from(!entry.known);
        self.dirty.retain(|&d| d != id);
        // Events that `wait` brought may name it; the id may soon mean another socket.
        self.fresh = 0;
        self.open -= 1;
        // Closing the descriptor removes it from epoll.
    }

    pub(super) fn local_addr(&self, id: SocketId) -> Option<SocketAddr> {
        Some(self.sockets.get(id.index())?.as_ref()?.socket.bound)
    }

    pub(super) fn socket(&self, id: SocketId) -> Option<&Socket> {
        Some(&self.sockets.get(id.index())?.as_ref()?.socket)
    }

    pub(super) fn peer_addr(&self, id: SocketId) -> Option<SocketAddr> {
        self.sockets.get(id.index())?.as_ref()?.socket.peer
    }

    pub(super) fn recv(
        &mut self,
        sink: &mut dyn FnMut(Arrival<'_>) -> bool,
    ) -> Result<usize, IoError> {
        let mut trains = 0;
        let mut result = Ok(());
        if self.open <= DIRECT {
            self.calls = self.calls.wrapping_add(1);
            let all = std::mem::take(&mut self.fresh) > 0
                || self.calls.is_multiple_of(SELDOM)
                || !self.is_any_busy();
            for index in 0..self.sockets.len() {
                if !all && self.is_silent(index) {
                    continue;
                }
                let one = self.recv_on(SocketId(index as u32), sink);
                trains += one.as_ref().map_or(0, |n| *n);
                result = result.and(one.map(drop));
            }
        } else {
            if self.fresh == 0 {
                self.poll(Some(Duration::ZERO))?;
            }
            for i in 0..std::mem::take(&mut self.fresh) {
                let Some(event) = self.events.get(i).copied() else {
                    break;
                };
                if event.u64 < WATCHED && event.events & libc::EPOLLOUT as u32 != event.events {
                    let one = self.recv_on(SocketId(event.u64 as u32), sink);
                    trains += one.as_ref().map_or(0, |n| *n);
                    result = result.and(one.map(drop));
                }
            }
        }
        // An error of one socket must not hide that others have shown their trains.
        match result {
            Err(e) if trains == 0 => Err(e),
            Err(error) => {
                tracing::error!(%error, "a socket is given up");
                Ok(trains)
            }
            Ok(()) => Ok(trains),
        }
    }

    /// Whether a socket has brought nothing for some time.
    #[inline]
    fn is_silent(&self, index: usize) -> bool {
        let entry = self.sockets.get(index).and_then(Option::as_ref);
        entry.is_none_or(|e| e.silence > SILENT)
    }

    #[inline]
    fn is_any_busy(&self) -> bool {
        (0..self.sockets.len()).any(|index| !self.is_silent(index))
    }

    fn recv_on(
        &mut self,
        id: SocketId,
        sink: &mut dyn FnMut(Arrival<'_>) -> bool,
    ) -> Result<usize, IoError> {
        let Some(Some(entry)) = self.sockets.get_mut(id.index()) else {
            return Ok(0);
        };
        if entry.broken {
            return Ok(0);
        }
        self.stats.syscalls += 1;
        let (socket, alone) = (&entry.socket, &mut entry.alone);
        let received = match alone.is_on() {
            true => self
                .rx
                .receive_alone(socket, alone, id, &mut self.stats, sink),
            false => self.rx.receive(socket, alone, id, &mut self.stats, sink),
        };
        match received {
            Ok(trains) => {
                entry.silence = 0;
                Ok(trains)
            }
            Err(errno) => match errno.class() {
                Class::Later => {
                    entry.silence = entry.silence.saturating_add(1);
                    entry.alone.missed(&entry.socket);
                    Ok(0)
                }
                Class::Drop(_) => {
                    self.stats.errors.count(errno);
                    Ok(0)
                }
                Class::Broken(_) => {
                    self.stats.errors.count(errno);
                    let op = "recvmmsg";
                    Err(self.give_up(id, op, errno))
                }
            },
        }
    }

    /// Marks a socket broken, drops what it has queued and takes it from epoll, which would
    /// report it for ever.
    fn give_up(&mut self, id: SocketId, op: &'static str, errno: Errno) -> IoError {
        if let Some(Some(entry)) = self.sockets.get_mut(id.index()) {
            entry.broken = true;
            for mut train in entry.queue.drain(..) {
                train.drop_rest(&mut self.stats);
            }
            if entry.known {
                let fd = entry.socket.fd();
                self.epoll.remove(fd);
            }
        }
        IoError::Socket {
            socket: id,
            op,
            errno,
        }
    }

    #[inline]
    pub(super) fn tx_buffer(&mut self) -> Option<TxBuffer> {
        self.kept
            .take()
            .or_else(|| self.pool.take().map(TxBuffer::new))
    }

    /// As [`Backend::tx_lent`](crate::io::Backend::tx_lent).
    pub(super) fn tx_lent(&self) -> usize {
        self.pool.count() - self.pool.available() - usize::from(self.kept.is_some())
    }

    #[inline]
    pub(super) fn can_send(&self, id: SocketId) -> bool {
        match self.sockets.get(id.index()) {
            Some(Some(e)) => !e.broken && e.queue.len() < share(self.pool.count(), self.open),
            _ => false,
        }
    }

    /// Has epoll watch for room exactly while the socket is full.
    fn set_full(&mut self, id: SocketId, full: bool) -> Result<(), IoError> {
        let Some(Some(entry)) = self.sockets.get_mut(id.index()) else {
            return Ok(());
        };
        if entry.full == full {
            return Ok(());
        }
        entry.full = full;
        if !entry.known {
            return Ok(());
        }
        let fd = entry.socket.fd();
        self.epoll.change(fd, u64::from(id.0), full)
    }

    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> Result<(), IoError> {
        self.flush()?;
        let told = self.watches.any_readable();
        let result = if self.waker.prepare_sleep() && !told {
            self.stats.sleeps += 1;
            self.poll(timeout)
        } else {
            Ok(())
        };
        self.waker.awake();
        result
    }

    /// Has epoll watch the sockets that it does not know.
    fn introduce(&mut self) -> Result<(), IoError> {
        for (index, entry) in self.sockets.iter_mut().enumerate() {
            let Some(entry) = entry.as_mut().filter(|e| !e.known) else {
                continue;
            };
            // One that is broken would be reported for ever.
            if !entry.broken {
                let (fd, id) = (entry.socket.fd(), index as u64);
                self.epoll.add(fd, id, entry.full)?;
            }
            entry.known = true;
            self.unknown -= 1;
        }
        Ok(())
    }

    /// Asks epoll; what it says stays in `events` for `recv`.
    fn poll(&mut self, timeout: Option<Duration>) -> Result<(), IoError> {
        if self.unknown > 0 {
            self.introduce()?;
        }
        self.stats.syscalls += 1;
        self.fresh = match self.epoll.wait(&mut self.events, timeout) {
            Ok(n) => n,
            Err(Errno(libc::EINTR)) => 0,
            Err(errno) => {
                let op = "epoll_wait";
                return Err(IoError::System { op, errno });
            }
        };
        let mut woken = false;
        for event in self.events.iter().take(self.fresh) {
            match event.u64 {
                WAKER => woken = true,
                id @ WATCHED.. => self.watches.note(WatchId(id as u32)),
                _ => {}
            }
        }
        if woken {
            let mut count = [0u8; 8];
            // SAFETY: eight writable bytes. The descriptor is readable, so this does not block:
            // nobody else reads it.
            unsafe { libc::read(self.waker.event_fd(), count.as_mut_ptr().cast(), 8) };
        }
        Ok(())
    }

    pub(super) fn watch(&mut self, fd: OwnedFd) -> Result<WatchId, IoError> {
        let id = self.watches.add(fd)?;
        let fd = self.watches.fd(id).unwrap_or(-1);
        let data = WATCHED | u64::from(id.0);
        let added = self.epoll.add(fd, data, false);
        if added.is_err() {
            self.watches.remove(id);
        }
        added.map(|()| id)
    }

    pub(super) fn unwatch(&mut self, id: WatchId) {
        if let Some(fd) = self.watches.fd(id) {
            // The description may be open elsewhere, so closing this would not do.
            self.epoll.remove(fd);
        }
        self.watches.remove(id);
    }

    #[inline]
    pub(super) fn next_readable(&mut self) -> Option<WatchId> {
        self.watches.next_readable()
    }

    pub(super) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    pub(super) fn stats(&self) -> &IoStats {
        &self.stats
    }
}
