//! One outgoing train and the message that carries it, for both kernel backends.
//!
//! A [`Train`] owns its buffer until the kernel has taken every byte. Usually it leaves in one
//! message with UDP_SEGMENT; where the kernel refuses that, the same train goes on segment by
//! segment from where it stands. A refusal alone is not believed: only when a single segment then
//! passes is the socket switched for good, since a segment over the interface's MTU is refused
//! with the same errno.

use super::addr::Name;
use super::cmsg::Control;
use super::errno::Errno;
use super::socket::Socket;
use super::stats::IoStats;
use super::{Transmit, TxBuffer};
use crate::base::limits;

/// A queued or sent train.
#[derive(Debug)]
pub(super) struct Train {
    buffer: TxBuffer,
    transmit: Transmit,
    /// Bytes that the kernel has taken.
    sent: usize,
    /// Leaves segment by segment.
    single: bool,
    /// Why UDP_SEGMENT was refused for this train.
    refused: Option<Errno>,
}

/// What became of an attempt to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// More of the train is to be sent.
    More,
    /// The train is done with: sent or dropped.
    Done,
}

impl Train {
    /// A train ready to send; `None` (dropped and counted) when `transmit` does not describe what
    /// one message can carry.
    pub(super) fn new(
        buffer: TxBuffer,
        transmit: Transmit,
        socket: &Socket,
        stats: &mut IoStats,
    ) -> Option<Self> {
        let segments = transmit.segments();
        let fits = transmit.len <= buffer.len()
            && transmit.segment_size <= usize::from(u16::MAX)
            && (segments == 1
                || (segments <= limits::MAX_TRAIN_SEGMENTS
                    && transmit.len <= limits::MAX_TRAIN_BYTES));
        if transmit.len == 0 || !fits {
            debug_assert!(false, "not a train: {transmit:?}");
            stats.tx_dropped += segments as u64;
            stats.errors.count(Errno(libc::EINVAL));
            return None;
        }
        Some(Self {
            single: !socket.gso || segments == 1,
            buffer,
            transmit,
            sent: 0,
            refused: None,
        })
    }

    /// Bytes of the message that starts at `offset`; zero past the end.
    pub(super) fn message_len(&self, offset: usize) -> usize {
        let left = self.transmit.len.saturating_sub(offset);
        if self.single {
            left.min(self.transmit.segment_size.max(1))
        } else {
            left
        }
    }

    /// Bytes that the kernel has taken.
    pub(super) fn sent(&self) -> usize {
        self.sent
    }

    fn datagrams(&self, bytes: usize) -> u64 {
        bytes.div_ceil(self.transmit.segment_size.max(1)) as u64
    }

    /// The kernel took the message that [`message_len`](Self::message_len) describes.
    #[inline]
    pub(super) fn on_sent(&mut self, socket: &mut Socket, stats: &mut IoStats) -> Progress {
        let bytes = self.message_len(self.sent);
        stats.tx_trains += 1;
        stats.tx_datagrams += self.datagrams(bytes);
        stats.tx_bytes += bytes as u64;
        self.sent += bytes;
        if let Some(errno) = self.refused.take()
            && socket.gso
        {
            socket.gso = false;
            stats.gso_refused += 1;
            tracing::warn!(
                local = %socket.bound,
                %errno,
                "this socket sends segments one by one: the kernel refuses UDP_SEGMENT"
            );
        }
        if self.sent >= self.transmit.len {
            Progress::Done
        } else {
            Progress::More
        }
    }

    /// The message was refused for good. `More` means that the rest is worth sending singly.
    pub(super) fn on_refused(&mut self, errno: Errno, stats: &mut IoStats) -> Progress {
        stats.errors.count(errno);
        if !self.single && errno.may_be_segmentation() {
            self.single = true;
            self.refused = Some(errno);
            return Progress::More;
        }
        // The segments are of one size and go one way: what stopped one stops the rest.
        self.drop_rest(stats);
        Progress::Done
    }

    /// Counts what was not sent as dropped.
    pub(super) fn drop_rest(&mut self, stats: &mut IoStats) {
        stats.tx_dropped += self.datagrams(self.transmit.len.saturating_sub(self.sent));
        self.sent = self.transmit.len;
    }
}

/// A `msghdr` and everything that it points to, for one message in flight.
///
/// The pointers are set by [`prepare`](Self::prepare) and stay good while neither this value nor
/// the train moves; a backend keeps messages boxed.
#[repr(C)]
pub(super) struct Message {
    header: libc::msghdr,
    iov: libc::iovec,
    name: Name,
    control: Control,
}

// SAFETY: the pointers inside refer to the value itself and to a pool's buffer, neither of which
// is tied to a thread; they are only followed by the kernel during an operation.
unsafe impl Send for Message {}

impl Message {
    pub(super) fn new() -> Self {
        Self {
            // SAFETY: a msghdr of zeroes is a valid empty message.
            header: unsafe { std::mem::zeroed() },
            iov: libc::iovec {
                iov_base: std::ptr::null_mut(),
                iov_len: 0,
            },
            name: Name::empty(),
            control: Control::new(),
        }
    }

    /// Fills the message with the part of `train` that starts at `offset`, and returns the header
    /// for the kernel.
    #[inline]
    pub(super) fn prepare(
        &mut self,
        train: &Train,
        offset: usize,
        socket: &Socket,
    ) -> *const libc::msghdr {
        let len = train.message_len(offset);
        // SAFETY: `offset` is at most the train's length, which its buffer holds.
        let bytes = unsafe { train.buffer.lease().as_ptr().add(offset) };
        self.point_to(bytes, len, &train.transmit, socket)
    }

    /// The same for all of a train that was never queued.
    #[inline]
    pub(super) fn prepare_all(
        &mut self,
        buffer: &TxBuffer,
        transmit: &Transmit,
        socket: &Socket,
    ) -> *const libc::msghdr {
        let bytes = buffer.lease().as_ptr();
        self.point_to(bytes, transmit.len, transmit, socket)
    }

    #[inline]
    fn point_to(
        &mut self,
        bytes: *mut u8,
        len: usize,
        t: &Transmit,
        socket: &Socket,
    ) -> *const libc::msghdr {
        self.control.clear();
        if len > t.segment_size {
            // `Train::new` has checked that it fits.
            self.control.push_segment_size(t.segment_size as u16);
        }
        // IPv4 control messages belong to mapped peers of an IPv6 socket, too.
        let v4 = t.path.remote.is_ipv4();
        let default = if v4 { socket.tos } else { socket.traffic_class };
        let tos = t.ecn.in_tos(default);
        if tos != default {
            self.control.push_tos(tos, v4);
        }
        if socket.wildcard {
            let source = t.path.local.ip().to_canonical();
            if !source.is_unspecified() && source.is_ipv4() == v4 {
                self.control.push_source(source);
            }
        }
        self.iov.iov_base = bytes.cast();
        self.iov.iov_len = len;
        if socket.peer == Some(t.path.remote) {
            (self.header.msg_name, self.header.msg_namelen) = (std::ptr::null_mut(), 0);
        } else {
            let (name, name_len) = Name::new(t.path.remote, socket.v6);
            self.name = name;
            self.header.msg_name = (&raw mut self.name).cast();
            self.header.msg_namelen = name_len;
        }
        self.header.msg_iov = &raw mut self.iov;
        self.header.msg_iovlen = 1;
        self.header.msg_controllen = self.control.len() as _;
        self.header.msg_control = if self.control.len() == 0 {
            std::ptr::null_mut()
        } else {
            self.control.as_mut_ptr().cast()
        };
        &raw const self.header
    }

    /// The header as [`prepare`](Self::prepare) left it; its pointers point into `self`.
    pub(super) fn header(&self) -> libc::msghdr {
        self.header
    }
}

#[cfg(test)]
mod tests;
