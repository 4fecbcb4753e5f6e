//! `recvmmsg` into buffers of the backend's own: everything that one call needs, set up once.

use super::super::addr::Name;
use super::super::cmsg;
use super::super::errno::Errno;
use super::super::socket::Socket;
use super::super::{AHEAD, Arrival, IoError, IoStats, SocketId, TX_BUFFER_LEN};
use super::alone::{Alone, SHORT};
use crate::mem::{Pages, Region};

/// Trains in one `recvmmsg`: enough to amortise the call, few enough that the buffers stay in
/// cache.
const BATCH: usize = 8;
/// A train is at most 65,535 bytes.
const BUFFER: usize = TX_BUFFER_LEN;

/// Room for the control data of one receive.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct ControlRoom([u8; cmsg::RECV_LEN]);

/// Buffers and headers for one `recvmmsg`.
pub(super) struct RxBatch {
    buffers: Region,
    names: Box<[Name]>,
    controls: Box<[ControlRoom]>,
    /// Kept for the headers that point to them.
    _iovs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    /// The last call brought nothing: the next asks for one train, which is the shorter call and
    /// does not look for a second before the first is shown.
    waiting: bool,
}

impl RxBatch {
    pub(super) fn new(buffers: usize, pages: Pages) -> Result<Self, IoError> {
        let count = buffers.clamp(1, BATCH);
        let region =
            Region::new(count * BUFFER, pages).map_err(|e| IoError::from_io("mmap", &e))?;
        let mut names = vec![Name::empty(); count].into_boxed_slice();
        let mut controls = vec![ControlRoom([0; cmsg::RECV_LEN]); count].into_boxed_slice();
        let mut iovs: Box<[libc::iovec]> = (0..count)
            .map(|i| libc::iovec {
                // SAFETY: the region is `count` buffers long.
                iov_base: unsafe { region.as_ptr().add(i * BUFFER) }.cast(),
                iov_len: BUFFER,
            })
            .collect();
        let headers = names
            .iter_mut()
            .zip(controls.iter_mut())
            .zip(iovs.iter_mut())
            .map(|((name, control), iov)| {
                // SAFETY: an mmsghdr of zeroes is a valid empty message.
                let mut h: libc::mmsghdr = unsafe { std::mem::zeroed() };
                h.msg_hdr.msg_name = std::ptr::from_mut(name).cast();
                h.msg_hdr.msg_control = std::ptr::from_mut(control).cast();
                h.msg_hdr.msg_iov = iov;
                h.msg_hdr.msg_iovlen = 1;
                h
            })
            .collect();
        Ok(Self {
            buffers: region,
            names,
            controls,
            _iovs: iovs,
            headers,
            waiting: false,
        })
    }

    /// One `recvmmsg` or `recvmsg`; shows every train to `sink` and returns how many the call
    /// brought, dropped ones included.
    pub(super) fn receive(
        &mut self,
        socket: &Socket,
        alone: &mut Alone,
        id: SocketId,
        stats: &mut IoStats,
        sink: &mut dyn FnMut(Arrival<'_>) -> bool,
    ) -> Result<usize, Errno> {
        if self.waiting {
            self.receive_one(socket)?;
            self.waiting = false;
            let single = self.show(0, socket, id, stats, sink);
            alone.heard(single);
            return Ok(1);
        }
        let got = self.receive_many(socket);
        self.waiting = got.is_err();
        let n = got?;
        for i in 1..n.min(AHEAD) {
            self.tell(i, sink);
        }
        for i in 0..n {
            if i + AHEAD < n {
                self.tell(i + AHEAD, sink);
            }
            let single = self.show(i, socket, id, stats, sink);
            alone.heard(single && n == 1);
        }
        Ok(n)
    }

    /// The same with one `recvfrom`, of a socket that hands over nothing else.
    #[inline]
    pub(super) fn receive_alone(
        &mut self,
        socket: &Socket,
        alone: &mut Alone,
        id: SocketId,
        stats: &mut IoStats,
        sink: &mut dyn FnMut(Arrival<'_>) -> bool,
    ) -> Result<usize, Errno> {
        // SAFETY: the first buffer is that long, and nothing else refers to it; no address is
        // asked for. Called directly as below.
        let n = unsafe {
            libc::syscall(
                libc::SYS_recvfrom,
                socket.fd(),
                self.buffers.as_ptr(),
                BUFFER,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut::<libc::c_void>(),
                std::ptr::null_mut::<libc::c_void>(),
            )
        };
        let len = usize::try_from(n).map_err(|_| Errno::last())?;
        alone.came(socket, len);
        let Some(remote) = socket.peer.filter(|_| len > 0) else {
            stats.rx_empty += 1;
            return Ok(1);
        };
        let meta = socket.meta(id, remote, &[], len);
        stats.on_train(len, len);
        let data = self.bytes(0, len);
        sink(Arrival::Train(&meta, data));
        Ok(1)
    }

    #[inline]
    fn receive_one(&mut self, socket: &Socket) -> Result<(), Errno> {
        let Some(header) = self.headers.first_mut() else {
            return Err(Errno(libc::EINVAL));
        };
        prepare(header);
        let name = header.msg_hdr.msg_name;
        if socket.peer.is_some() {
            // Known, and the kernel takes time to write it.
            (header.msg_hdr.msg_name, header.msg_hdr.msg_namelen) = (std::ptr::null_mut(), 0);
        }
        // SAFETY: the header points to a name or none, control room, an iovec and a buffer, all
        // owned by `self` on the heap, with their true lengths. The call is made directly: the
        // library's is a cancellation point, which costs a spinning thread a tenth of its turns.
        let n = unsafe {
            libc::syscall(
                libc::SYS_recvmsg,
                socket.fd(),
                &raw mut header.msg_hdr,
                libc::MSG_DONTWAIT,
            )
        };
        header.msg_hdr.msg_name = name;
        header.msg_len = u32::try_from(n).map_err(|_| Errno::last())?;
        Ok(())
    }

    fn receive_many(&mut self, socket: &Socket) -> Result<usize, Errno> {
        self.headers.iter_mut().for_each(prepare);
        // SAFETY: every header points to a name, control room, an iovec and a buffer, all owned by
        // `self` on the heap, with their true lengths.
        let n = unsafe {
            libc::recvmmsg(
                socket.fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        usize::try_from(n).map_err(|_| Errno::last())
    }

    /// The bytes of a train that the last call brought.
    #[inline]
    fn bytes(&mut self, i: usize, len: usize) -> &mut [u8] {
        let at = i.min(self.headers.len() - 1) * BUFFER;
        // SAFETY: inside the region, which is as many buffers long as there are headers and was
        // zeroed when it was mapped; nothing else refers to it until the next call.
        unsafe { std::slice::from_raw_parts_mut(self.buffers.as_ptr().add(at), len.min(BUFFER)) }
    }

    #[inline]
    fn tell(&mut self, i: usize, sink: &mut dyn FnMut(Arrival<'_>) -> bool) {
        let len = self.headers.get(i).map_or(0, |h| h.msg_len as usize);
        sink(Arrival::Coming(self.bytes(i, len)));
    }

    /// Whether it was one short datagram.
    #[inline]
    fn show(
        &mut self,
        i: usize,
        socket: &Socket,
        id: SocketId,
        stats: &mut IoStats,
        sink: &mut dyn FnMut(Arrival<'_>) -> bool,
    ) -> bool {
        let (Some(header), Some(name), Some(control)) =
            (self.headers.get(i), self.names.get(i), self.controls.get(i))
        else {
            return false;
        };
        let len = (header.msg_len as usize).min(BUFFER);
        let control_len = header.msg_hdr.msg_controllen.min(cmsg::RECV_LEN);
        let control = control.0.get(..control_len).unwrap_or(&[]);
        if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
            stats.rx_truncated += 1;
            return false;
        }
        let remote = socket.peer.or_else(|| name.read());
        let Some(remote) = remote.filter(|_| len > 0) else {
            stats.rx_empty += 1;
            return false;
        };
        let meta = socket.meta(id, remote, control, len);
        stats.on_train(len, meta.segment_size);
        let data = self.bytes(i, len);
        sink(Arrival::Train(&meta, data));
        len <= SHORT.min(meta.segment_size)
    }
}

/// Gives a header the lengths that the kernel overwrites.
#[inline]
fn prepare(header: &mut libc::mmsghdr) {
    header.msg_hdr.msg_namelen = size_of::<Name>() as libc::socklen_t;
    header.msg_hdr.msg_controllen = cmsg::RECV_LEN as _;
}
