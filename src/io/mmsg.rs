//! The backend for machines without io_uring: epoll, `recvmmsg` and `sendmmsg`.
//!
//! Each socket has its own queue. When its send buffer is full the queue stays, in order, and is
//! tried again at every flush; `wait` watches it for room. Other sockets are not held up. With
//! one or two sockets `recv` asks them directly, with more it asks epoll which are worth asking.
//! Epoll gets to know a socket when it is first asked: the kernel tells it of every datagram that
//! comes or has left, which a shard that never sleeps has no use for.

mod epoll;
mod rx;

use super::errno::{Class, Errno};
use super::socket::{Socket, share};
use super::train::{Message, Progress, Train};
use super::watch::{WatchId, Watches};
use super::{
    Arrival, IoConfig, IoError, IoStats, SocketId, SocketOptions, TX_BUFFER_LEN, Transmit,
    TxBuffer, Waker,
};
use crate::mem::Pool;
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
pub(super) const DIRECT: usize = 2;
/// Looks in a row that bring nothing before a socket beside a busy one is looked at less often.
const SILENT: u32 = 64;
/// How often then: once in so many calls.
const SELDOM: u32 = 4;
/// What epoll reports for the waker.
const WAKER: u64 = u64::MAX;
/// What it reports for a watched descriptor, beside its number; for sockets it is less.
const WATCHED: u64 = 1 << 32;

struct Entry {
    socket: Socket,
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
    rx: RxBatch,
    events: Box<[libc::epoll_event]>,
    /// Events that `wait` brought and `recv` has not looked at.
    fresh: usize,
    /// Calls of `recv`.
    calls: u32,
    watches: Watches,
    stats: IoStats,
}

// SAFETY: the raw pointers in `headers` point into `messages` and the pool's buffers, which move
// with the value on the heap; they are set anew before every call.
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
        match self.rx.receive(&entry.socket, id, &mut self.stats, sink) {
            Ok(trains) => {
                entry.silence = 0;
                Ok(trains)
            }
            Err(errno) => match errno.class() {
                Class::Later => {
                    entry.silence = entry.silence.saturating_add(1);
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

    pub(super) fn send(&mut self, buffer: TxBuffer, transmit: Transmit) {
        let id = transmit.socket;
        let room = share(self.pool.count(), self.open);
        let Some(Some(entry)) = self.sockets.get_mut(id.index()) else {
            self.stats.tx_dropped += transmit.segments() as u64;
            self.stats.errors.count(Errno(libc::EBADF));
            return;
        };
        if entry.broken {
            self.stats.tx_dropped += transmit.segments() as u64;
            return;
        }
        if entry.full && entry.queue.len() >= room {
            self.stats.tx_dropped += transmit.segments() as u64;
            self.stats.tx_over_share += transmit.segments() as u64;
            return;
        }
        if let Some(train) = Train::new(buffer, transmit, &entry.socket, &mut self.stats) {
            if entry.queue.is_empty() {
                self.dirty.push(id);
            }
            entry.queue.push_back(train);
        }
    }

    /// As [`Backend::send_now`](crate::io::Backend::send_now). A single datagram that nothing is
    /// queued before is not queued itself.
    pub(super) fn send_now(&mut self, buffer: TxBuffer, transmit: Transmit) -> Result<(), IoError> {
        let id = transmit.socket;
        let alone = self.dirty.is_empty()
            && (1..=buffer.len()).contains(&transmit.len)
            && (transmit.len..=usize::from(u16::MAX)).contains(&transmit.segment_size);
        let entry = self.sockets.get_mut(id.index()).and_then(Option::as_mut);
        let (Some(entry), Some(message), [header, ..]) = (
            entry.filter(|e| alone && !e.broken),
            self.messages.first_mut(),
            &mut *self.headers,
        ) else {
            self.send(buffer, transmit);
            return self.flush();
        };
        message.prepare_all(&buffer, &transmit, &entry.socket);
        header.msg_hdr = message.header();
        self.stats.syscalls += 1;
        // SAFETY: the header was set just now and points to a boxed message and to `buffer`.
        let n = unsafe { send(entry.socket.fd(), std::slice::from_mut(header)) };
        if n > 0 {
            self.stats.tx_trains += 1;
            self.stats.tx_datagrams += 1;
            self.stats.tx_bytes += transmit.len as u64;
            self.kept = Some(buffer);
            return Ok(());
        }
        let errno = Errno::last();
        self.send(buffer, transmit);
        self.dirty.clear();
        if self.refused(id, errno)? {
            return self.flush_socket(id);
        }
        Ok(())
    }

    #[inline]
    pub(super) fn flush(&mut self) -> Result<(), IoError> {
        if self.dirty.is_empty() {
            return Ok(());
        }
        self.flush_dirty()
    }

    fn flush_dirty(&mut self) -> Result<(), IoError> {
        let mut result = Ok(());
        let mut ids = std::mem::replace(&mut self.dirty, std::mem::take(&mut self.spare));
        for id in ids.drain(..) {
            result = result.and(self.flush_socket(id));
        }
        self.spare = ids;
        result
    }

    /// Sends what it can of one socket's queue.
    fn flush_socket(&mut self, id: SocketId) -> Result<(), IoError> {
        loop {
            let Some(Some(entry)) = self.sockets.get_mut(id.index()) else {
                return Ok(());
            };
            let filled = fill(entry, &mut self.messages, &mut self.headers);
            if filled == 0 {
                return self.set_full(id, false);
            }
            self.stats.syscalls += 1;
            let headers = self.headers.get_mut(..filled).unwrap_or_default();
            // SAFETY: these headers were set by `fill` just now and point to boxed messages and to
            // buffers that the queue's trains own.
            let n = unsafe { send(entry.socket.fd(), headers) };
            if n > 0 {
                for _ in 0..n {
                    entry.advance(|train, socket| train.on_sent(socket, &mut self.stats));
                }
                continue;
            }
            let errno = Errno::last();
            if !self.refused(id, errno)? {
                return Ok(());
            }
        }
    }

    /// The kernel did not take the head of a socket's queue: whether to go on with what is left.
    #[cold]
    fn refused(&mut self, id: SocketId, errno: Errno) -> Result<bool, IoError> {
        match errno.class() {
            Class::Later if errno == Errno(libc::EINTR) => {}
            Class::Later => {
                self.stats.tx_full += 1;
                self.dirty.push(id);
                self.set_full(id, true)?;
                return Ok(false);
            }
            Class::Broken(_) if errno != Errno(libc::EOPNOTSUPP) => {
                self.stats.errors.count(errno);
                return Err(self.give_up(id, "sendmmsg", errno));
            }
            Class::Drop(_) | Class::Broken(_) => {
                if let Some(Some(entry)) = self.sockets.get_mut(id.index()) {
                    entry.advance(|train, _| train.on_refused(errno, &mut self.stats));
                }
            }
        }
        Ok(true)
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

impl Entry {
    /// Tells the first train what became of its message and removes it if that was its last.
    fn advance(&mut self, what: impl FnOnce(&mut Train, &mut Socket) -> Progress) {
        if let Some(train) = self.queue.front_mut()
            && what(train, &mut self.socket) == Progress::Done
        {
            self.queue.pop_front();
        }
    }
}

/// Sends messages: how many the kernel took, or -1 and `errno`. The calls are made directly: the
/// library's are cancellation points, which cost a lone small datagram some of its latency.
///
/// # Safety
/// Every header points to what it says, until the call returns.
unsafe fn send(fd: libc::c_int, headers: &mut [libc::mmsghdr]) -> libc::c_long {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    if let [one] = headers {
        let header = &mut one.msg_hdr;
        // SAFETY: as the caller promises; a train is in one piece.
        let n = unsafe {
            if header.msg_control.is_null() && header.msg_iovlen == 1 {
                // The shorter call: it has no header to copy.
                let libc::iovec { iov_base, iov_len } = *header.msg_iov;
                let (name, name_len) = (header.msg_name, header.msg_namelen);
                libc::syscall(
                    libc::SYS_sendto,
                    fd,
                    iov_base,
                    iov_len,
                    flags,
                    name,
                    name_len,
                )
            } else {
                libc::syscall(libc::SYS_sendmsg, fd, &raw mut *header, flags)
            }
        };
        return if n < 0 { n } else { 1 };
    }
    let (first, count) = (headers.as_mut_ptr(), headers.len());
    // SAFETY: as the caller promises.
    unsafe { libc::syscall(libc::SYS_sendmmsg, fd, first, count, flags) }
}

/// Writes messages for the head of the queue; one a train, or one a segment. Returns how many.
fn fill(entry: &mut Entry, messages: &mut [Message], headers: &mut [libc::mmsghdr]) -> usize {
    let mut slots = messages.iter_mut().zip(headers.iter_mut());
    let mut filled = 0;
    for train in &entry.queue {
        let mut offset = train.sent();
        loop {
            let len = train.message_len(offset);
            if len == 0 {
                break;
            }
            let Some((message, header)) = slots.next() else {
                return filled;
            };
            message.prepare(train, offset, &entry.socket);
            header.msg_hdr = message.header();
            offset += len;
            filled += 1;
        }
    }
    filled
}
