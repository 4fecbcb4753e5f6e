//! Receive buffers that the kernel chooses from, and what it writes to them.
//!
//! Every buffer has room for the kernel's header, the sender's address, control data and the
//! largest train. A buffer belongs to the kernel from [`RxBuffers::recycle`] until a completion
//! names it, and to `recv` from then on.

use super::super::addr::Name;
use super::super::cmsg;
use super::super::socket::Socket;
use super::super::{IoError, IoStats, RecvMeta, SocketId};
use super::ring::Ring;
use crate::mem::{Pages, Region};
use io_uring::{opcode, squeue, types};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

/// `io_uring_recvmsg_out`: the lengths of name, control data and payload, and `msg_flags`.
const HEADER: usize = 16;
/// Room for the sender's address.
const NAME: usize = 32;
/// Where the payload begins; keeps it aligned to 16 bytes.
const PAYLOAD: usize = HEADER + NAME + cmsg::RECV_LEN;
/// The largest train and what precedes it.
const BUFFER: usize = PAYLOAD + 65_536;
const STRIDE: usize = BUFFER.next_multiple_of(4096);

const _: () = assert!(NAME >= size_of::<Name>() && PAYLOAD.is_multiple_of(16));

/// The ring of provided buffers, group 0 of its io_uring.
pub(super) struct RxBuffers {
    entries: Arc<Region>,
    buffers: Arc<Region>,
    /// What receives look like: the room for names and control data.
    template: Arc<Template>,
    count: u16,
    tail: u16,
}

struct Template(libc::msghdr);

// SAFETY: all pointers in a template are null; it carries lengths only.
unsafe impl Send for Template {}
// SAFETY: as above, and it is never written after its creation.
unsafe impl Sync for Template {}

impl RxBuffers {
    /// Maps buffers, rounded up to a power of two, and hands them all to the kernel.
    pub(super) fn register(ring: &Ring, buffers: usize, pages: Pages) -> Result<Self, IoError> {
        let count = buffers.clamp(2, 1 << 12).next_power_of_two();
        let map = |len, pages| Region::new(len, pages).map_err(|e| IoError::from_io("mmap", &e));
        let entries = map(count * size_of::<types::BufRingEntry>(), Pages::Base)?;
        let buffers = map(count * STRIDE, pages)?;
        // SAFETY: a msghdr of zeroes is a valid empty message.
        let mut template: libc::msghdr = unsafe { std::mem::zeroed() };
        template.msg_namelen = NAME as libc::socklen_t;
        template.msg_controllen = cmsg::RECV_LEN as _;
        let mut rx = Self {
            entries: Arc::new(entries),
            buffers: Arc::new(buffers),
            template: Arc::new(Template(template)),
            count: count as u16,
            tail: 0,
        };
        for buffer in 0..rx.count {
            rx.recycle(buffer);
        }
        // SAFETY: the entries are page-aligned, zeroed but for what `recycle` wrote, and live as
        // long as `rx`, which its owner drops after every operation has ended.
        unsafe { ring.register_buffers(rx.entries.as_ptr() as u64, rx.count) }?;
        Ok(rx)
    }

    /// Gives a buffer to the kernel.
    #[inline]
    pub(super) fn recycle(&mut self, buffer: u16) {
        debug_assert!(buffer < self.count);
        let entries = self.entries.as_ptr().cast::<types::BufRingEntry>();
        // `count` is a power of two, so the index wraps where the kernel's does.
        let slot = usize::from(self.tail & (self.count - 1));
        // SAFETY: `slot` is below `count`, and the region is page-aligned and large enough. The
        // kernel reads no entry at or beyond the tail, so this one is ours.
        let entry = unsafe { &mut *entries.add(slot) };
        entry.set_addr(self.buffers.as_ptr() as u64 + u64::from(buffer) * STRIDE as u64);
        entry.set_len(BUFFER as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the kernel defines the tail at this offset of the first entry, aligned as a
        // u16. Release: the entry is written before the kernel sees the new tail.
        unsafe {
            let tail = types::BufRingEntry::tail(entries).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }

    /// The `len` bytes that the kernel wrote to a buffer.
    ///
    /// # Safety
    ///
    /// The buffer was named by a completion and has not been recycled since, and no other slice
    /// of it is alive.
    #[inline]
    pub(super) unsafe fn bytes<'a>(&self, buffer: u16, len: usize) -> &'a mut [u8] {
        let at = usize::from(buffer.min(self.count - 1)) * STRIDE;
        // SAFETY: inside the region, initialised, and exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.buffers.as_ptr().add(at), len.min(BUFFER)) }
    }

    /// A multishot receive on the registered file `index`.
    pub(super) fn receive(&self, index: u32) -> squeue::Entry {
        opcode::RecvMsgMulti::new(types::Fixed(index), &raw const self.template.0, 0).build()
    }

    /// Leaves the memory to the process for ever.
    pub(super) fn leak(&self) {
        std::mem::forget(self.entries.clone());
        std::mem::forget(self.buffers.clone());
        std::mem::forget(self.template.clone());
    }
}

/// The parts of a filled buffer.
struct Parts<'a> {
    name: &'a [u8],
    control: &'a [u8],
    payload: &'a mut [u8],
    flags: i32,
}

/// Splits what the kernel wrote; `None` when it is shorter than its own header.
#[inline]
fn split(bytes: &mut [u8]) -> Option<Parts<'_>> {
    let (header, rest) = bytes.split_first_chunk_mut::<HEADER>()?;
    let (name, rest) = rest.split_first_chunk_mut::<NAME>()?;
    let (control, payload) = rest.split_first_chunk_mut::<{ cmsg::RECV_LEN }>()?;
    let word = |i: usize| {
        let four = header.get(i * 4..).and_then(|h| h.first_chunk::<4>());
        four.map_or(0, |b| u32::from_ne_bytes(*b))
    };
    let name_len = (word(0) as usize).min(NAME);
    let control_len = (word(1) as usize).min(cmsg::RECV_LEN);
    let payload_len = (word(2) as usize).min(payload.len());
    Some(Parts {
        name: name.get(..name_len)?,
        control: control.get(..control_len)?,
        payload: payload.get_mut(..payload_len)?,
        flags: word(3) as i32,
    })
}

/// The train in `bytes`, as far as its first reader cares.
#[inline]
pub(super) fn payload(bytes: &mut [u8]) -> Option<&[u8]> {
    Some(split(bytes)?.payload)
}

/// Shows the train in `bytes` to `sink`; whether there was one.
#[inline]
pub(super) fn show(
    bytes: &mut [u8],
    id: SocketId,
    socket: &Socket,
    stats: &mut IoStats,
    sink: &mut dyn FnMut(&RecvMeta, &mut [u8]),
) -> bool {
    let Some(parts) = split(bytes) else {
        stats.rx_truncated += 1;
        return false;
    };
    if parts.flags & libc::MSG_TRUNC != 0 {
        stats.rx_truncated += 1;
        return false;
    }
    let remote = Name::from_bytes(parts.name).read();
    let Some(remote) = remote.filter(|_| !parts.payload.is_empty()) else {
        stats.rx_empty += 1;
        return false;
    };
    let meta = socket.meta(id, remote, parts.control, parts.payload.len());
    stats.on_train(parts.payload.len(), meta.segment_size);
    sink(&meta, parts.payload);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_filled_buffer_is_split_at_the_reserved_lengths() {
        let mut b = vec![0u8; PAYLOAD + 10];
        for (i, n) in [16u32, 24, 10, libc::MSG_CTRUNC as u32].iter().enumerate() {
            b[i * 4..i * 4 + 4].copy_from_slice(&n.to_ne_bytes());
        }
        b[PAYLOAD..].fill(3);
        let p = split(&mut b).unwrap();
        assert_eq!((p.name.len(), p.control.len()), (16, 24));
        assert_eq!(
            (&p.payload[..], p.flags),
            (&[3u8; 10][..], libc::MSG_CTRUNC)
        );
        assert!(split(&mut b[..PAYLOAD - 1]).is_none());
    }

    proptest! {
        #[test]
        fn any_header_splits_without_panic(
            words in proptest::array::uniform4(any::<u32>()),
            len in 0usize..PAYLOAD + 50,
        ) {
            let mut b = vec![0u8; PAYLOAD + 50];
            for (i, n) in words.iter().enumerate() {
                b[i * 4..i * 4 + 4].copy_from_slice(&n.to_ne_bytes());
            }
            let _ = split(&mut b[..len]);
        }
    }
}
