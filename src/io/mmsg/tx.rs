//! Trains out: what is queued leaves with `sendmmsg`, a lone datagram and a train in pieces without
//! a queue.

use super::super::errno::{Class, Errno};
use super::super::gather;
use super::super::socket::{Socket, share};
use super::super::train::{Message, Progress, Train};
use super::super::{IoError, SocketId, Transmit, TxBuffer};
use super::{Entry, Mmsg};
use crate::base::limits::{MAX_TRAIN_BYTES, MAX_TRAIN_SEGMENTS};

impl Mmsg {
    pub(in crate::io) fn send(&mut self, buffer: TxBuffer, transmit: Transmit) {
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
    pub(in crate::io) fn send_now(
        &mut self,
        buffer: TxBuffer,
        transmit: Transmit,
    ) -> Result<(), IoError> {
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
        self.stats.syscalls += 1;
        let n = if entry.socket.is_plain(&transmit) {
            let bytes = buffer.get(..transmit.len).unwrap_or_default();
            send_plain(entry.socket.fd(), bytes)
        } else {
            message.prepare_all(&buffer, &transmit, &entry.socket);
            header.msg_hdr = message.header();
            // SAFETY: the header was set just now and points to a boxed message and to `buffer`.
            unsafe { send(entry.socket.fd(), std::slice::from_mut(header)) }
        };
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

    /// As [`Backend::send_gathered`](crate::io::Backend::send_gathered); false where it did not
    /// leave and is to be queued.
    pub(in crate::io) fn send_gathered(
        &mut self,
        buffer: &mut TxBuffer,
        transmit: &Transmit,
        pieces: &[(usize, &[u8])],
    ) -> bool {
        let segments = transmit.segments();
        let entry = self.sockets.get(transmit.socket.index());
        let (Some(Some(entry)), Some(message), [header, ..]) =
            (entry, self.messages.first_mut(), &mut *self.headers)
        else {
            return false;
        };
        let at_once = entry.queue.is_empty() && !entry.broken;
        let one = segments == 1 || entry.socket.gso;
        let fits = segments <= MAX_TRAIN_SEGMENTS && transmit.len <= MAX_TRAIN_BYTES;
        if !(at_once && one && fits) {
            return false;
        }
        let mut count = 0;
        let fits = gather::for_each_part(buffer, transmit.len, pieces, |part| {
            if let Some(iov) = self.iovs.get_mut(count) {
                iov.iov_base = part.as_ptr().cast_mut().cast();
                iov.iov_len = part.len();
            }
            count += 1;
        });
        if !fits || count > self.iovs.len() {
            return false;
        }
        message.prepare_all(buffer, transmit, &entry.socket);
        header.msg_hdr = message.header();
        header.msg_hdr.msg_iov = self.iovs.as_mut_ptr();
        header.msg_hdr.msg_iovlen = count as _;
        self.stats.syscalls += 1;
        // SAFETY: the header was set just now and points to a boxed message and to `count` vectors,
        // which were set just now as well, to bytes that are borrowed until behind the call.
        let n = unsafe { send(entry.socket.fd(), std::slice::from_mut(header)) };
        if n > 0 {
            self.stats.tx_trains += 1;
            self.stats.tx_datagrams += segments as u64;
            self.stats.tx_bytes += transmit.len as u64;
        }
        // Refused, it is queued and tried again; what it was refused for is seen to then.
        n > 0
    }

    #[inline]
    pub(in crate::io) fn flush(&mut self) -> Result<(), IoError> {
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

/// Sends a datagram of which a connected socket knows the rest: 1, or -1 and `errno`. Called
/// directly as below.
#[inline]
fn send_plain(fd: libc::c_int, bytes: &[u8]) -> libc::c_long {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let (at, len) = (bytes.as_ptr(), bytes.len());
    let nobody = std::ptr::null::<libc::c_void>();
    // SAFETY: the kernel reads `bytes`, and no address.
    let n = unsafe { libc::syscall(libc::SYS_sendto, fd, at, len, flags, nobody, 0) };
    if n < 0 { n } else { 1 }
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
