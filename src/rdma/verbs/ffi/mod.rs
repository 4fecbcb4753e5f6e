//! libibverbs, called: the one module that names the binding, so that another is a change of one
//! line. Queue pairs and posting to them are in [`qp`].
//!
//! Each object owns its handle and keeps those that it stands on alive, so nothing is removed
//! before what uses it, whatever the order in which the owners are dropped. Everything here may be
//! called from any thread, as libibverbs promises, and waits for nothing.

mod qp;

use super::memory::Bytes;
use crate::rdma::access::Access;
use crate::rdma::attr::{DeviceAttr, Mtu};
use crate::rdma::completion::Status;
use crate::rdma::error::RdmaError;
use crate::rdma::ids::Gid;
use rdma_sys as ibv;
use std::ffi::{CStr, c_int};
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr;
use std::sync::Arc;

pub(super) use qp::{QpParts, Scratch};

/// The port of a device that is used.
const PORT: u8 = 1;

/// Ends a call that answers with an errno, or with −1 and the errno elsewhere.
fn done(op: &'static str, answer: c_int) -> Result<(), RdmaError> {
    match answer {
        0 => Ok(()),
        errno if errno > 0 => Err(RdmaError::System { op, errno }),
        _ => Err(RdmaError::system(op, &io::Error::last_os_error())),
    }
}

/// Ends a call that answers with an object.
fn made<T>(op: &'static str, object: *mut T) -> Result<*mut T, RdmaError> {
    if object.is_null() {
        return Err(RdmaError::system(op, &io::Error::last_os_error()));
    }
    Ok(object)
}

/// A handle that is removed once: by `close`, which tells what went wrong, or when dropped.
macro_rules! handle {
    ($(#[$doc:meta])* $name:ident($raw:ty) by $destroy:ident on ($($parent:ty),*)) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $name {
            raw: *mut $raw,
            /// What it stands on, removed after it.
            _parents: ($($parent,)*),
        }
        // SAFETY: libibverbs serializes what threads do to one object, and no object has a thread.
        unsafe impl Send for $name {}
        // SAFETY: as for `Send`.
        unsafe impl Sync for $name {}

        impl $name {
            fn release(&mut self) -> c_int {
                let raw = mem::replace(&mut self.raw, ptr::null_mut());
                if raw.is_null() {
                    return 0;
                }
                // SAFETY: `raw` came from the call that makes such objects, is removed nowhere
                // else, and the objects that stand on it keep its owner alive.
                unsafe { ibv::$destroy(raw) }
            }

            /// What names the object in asynchronous events.
            #[allow(dead_code, reason = "not every object has events")]
            pub fn address(&self) -> usize {
                self.raw as usize
            }

            /// Removes it.
            #[allow(dead_code, reason = "some are only dropped")]
            pub fn close(mut self) -> Result<(), RdmaError> {
                done(stringify!($destroy), self.release())
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                let answer = self.release();
                if answer != 0 {
                    tracing::warn!(answer, concat!(stringify!($destroy), " failed"));
                }
            }
        }
    };
}

handle!(
    /// An open device.
    Context(ibv::ibv_context) by ibv_close_device on ()
);
handle!(
    /// A protection domain.
    Pd(ibv::ibv_pd) by ibv_dealloc_pd on (Arc<Context>)
);
handle!(
    /// Where completion queues tell that something came.
    Channel(ibv::ibv_comp_channel) by ibv_destroy_comp_channel on (Arc<Context>)
);
handle!(
    /// A completion queue.
    Cq(ibv::ibv_cq) by ibv_destroy_cq on (Arc<Channel>)
);
handle!(
    /// A shared receive queue.
    Srq(ibv::ibv_srq) by ibv_destroy_srq on (Arc<Pd>)
);
handle!(
    /// A registration of memory; [`Mr`] adds the memory.
    Registration(ibv::ibv_mr) by ibv_dereg_mr on (Arc<Pd>)
);
handle!(
    /// A queue pair.
    Qp(ibv::ibv_qp) by ibv_destroy_qp on (Arc<Pd>, [Arc<Cq>; 2], Option<Arc<Srq>>)
);

/// The names of the machine's devices.
pub(super) fn devices() -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    with_devices(|name, _| {
        names.push(name.to_owned());
        None::<()>
    })?;
    Ok(names)
}

/// Shows each device to `look` until it answers.
fn with_devices<T>(
    mut look: impl FnMut(&str, *mut ibv::ibv_device) -> Option<T>,
) -> io::Result<Option<T>> {
    let mut count = 0;
    // SAFETY: the call writes the length of the list that it answers with.
    let list = unsafe { ibv::ibv_get_device_list(&mut count) };
    if list.is_null() {
        return Err(io::Error::last_os_error());
    }
    let mut found = None;
    for n in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: the list has `count` devices, whose names are strings for as long as it is.
        let (device, name) = unsafe {
            let device = *list.add(n);
            (device, CStr::from_ptr(ibv::ibv_get_device_name(device)))
        };
        found = look(&name.to_string_lossy(), device);
        if found.is_some() {
            break;
        }
    }
    // SAFETY: the list is no longer used; an opened device holds its own reference.
    unsafe { ibv::ibv_free_device_list(list) };
    Ok(found)
}

fn nonblocking(fd: RawFd) -> Result<(), RdmaError> {
    // SAFETY: reads and sets the flags of a descriptor that the caller has open.
    let answer = unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK)
    };
    done("fcntl", answer.min(0))
}

/// What an asynchronous event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RawEvent {
    CqErr(usize),
    QpFatal(usize),
    QpReqErr(usize),
    QpAccessErr(usize),
    CommEst(usize),
    QpLastWqeReached(usize),
    SrqLimitReached(usize),
    PortActive,
    PortErr,
    DeviceFatal,
    /// One that says nothing about a reliable connection.
    Other,
}

impl Context {
    /// Opens the device of this name; `None` when there is none.
    pub fn open(name: &str) -> io::Result<Option<Result<Self, RdmaError>>> {
        with_devices(|is, device| {
            if is != name {
                return None;
            }
            // SAFETY: `device` is of a list that is not freed yet.
            let raw = made("ibv_open_device", unsafe { ibv::ibv_open_device(device) });
            Some(raw.and_then(|raw| {
                let context = Self { raw, _parents: () };
                nonblocking(context.async_fd())?;
                Ok(context)
            }))
        })
    }

    /// The name of the device's node.
    pub fn node(&self) -> String {
        // SAFETY: the context is open and keeps its device, whose name ends with a zero.
        let name = unsafe { CStr::from_ptr((*(*self.raw).device).dev_name.as_ptr()) };
        name.to_string_lossy().into_owned()
    }

    /// Readable while an asynchronous event waits.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: open as long as the context is, which the result borrows.
        unsafe { BorrowedFd::borrow_raw(self.async_fd()) }
    }

    fn async_fd(&self) -> RawFd {
        // SAFETY: the context is open, and its descriptor does not change.
        unsafe { (*self.raw).async_fd }
    }

    /// What the device and its port can do. Inline data is not among what a device tells.
    pub fn query(&self) -> Result<DeviceAttr, RdmaError> {
        // SAFETY: both are plain numbers, which the calls fill in.
        let (device, port) = unsafe {
            let mut device: ibv::ibv_device_attr = mem::zeroed();
            done(
                "ibv_query_device",
                ibv::ibv_query_device(self.raw, &mut device),
            )?;
            let mut port: ibv::ibv_port_attr = mem::zeroed();
            let answer = ibv::___ibv_query_port(self.raw, PORT, &mut port);
            done("ibv_query_port", answer)?;
            (device, port)
        };
        let count = |n: c_int| u32::try_from(n).unwrap_or(0);
        let rd_atom = device.max_qp_rd_atom.min(device.max_qp_init_rd_atom);
        Ok(DeviceAttr {
            max_qp: count(device.max_qp),
            max_qp_wr: count(device.max_qp_wr.min(device.max_srq_wr)),
            max_sge: count(device.max_sge.min(device.max_srq_sge)),
            max_inline_data: 0,
            max_cq: count(device.max_cq),
            max_cqe: count(device.max_cqe),
            max_mr: count(device.max_mr),
            max_mr_size: device.max_mr_size,
            max_registered: u64::MAX,
            max_pd: count(device.max_pd),
            max_srq: count(device.max_srq),
            max_qp_rd_atom: rd_atom.clamp(0, 255) as u8,
            max_msg_sz: port.max_msg_sz,
            max_mtu: match port.active_mtu {
                ibv::ibv_mtu::IBV_MTU_4096 => Mtu::Mtu4096,
                ibv::ibv_mtu::IBV_MTU_2048 => Mtu::Mtu2048,
                ibv::ibv_mtu::IBV_MTU_1024 => Mtu::Mtu1024,
                ibv::ibv_mtu::IBV_MTU_512 => Mtu::Mtu512,
                _ => Mtu::Mtu256,
            },
        })
    }

    /// The GID at `index`, unless there is none.
    pub fn query_gid(&self, index: u8) -> Option<Gid> {
        let mut gid = ibv::ibv_gid { raw: [0; 16] };
        // SAFETY: the call fills in the 16 bytes, which are plain in each reading of the union.
        let (answer, raw) = unsafe {
            let answer = ibv::ibv_query_gid(self.raw, PORT, c_int::from(index), &mut gid);
            (answer, gid.raw)
        };
        (answer == 0 && raw != [0; 16]).then_some(Gid(raw))
    }

    /// Shows the oldest asynchronous event to `look`; false when there is none. Its object is not
    /// removed before `look` is done.
    pub fn take_event(&self, look: impl FnOnce(RawEvent)) -> bool {
        let mut event = MaybeUninit::<ibv::ibv_async_event>::zeroed();
        let at = event.as_mut_ptr();
        // SAFETY: the call fills in the event. Its kind is read as a number, for a later kernel may
        // tell of what the binding's enumeration does not have.
        let kind = unsafe {
            if ibv::ibv_get_async_event(self.raw, at) != 0 {
                return false;
            }
            ptr::addr_of!((*at).event_type).cast::<u32>().read()
        };
        use ibv::ibv_event_type as is;
        let one_of = |kinds: &[is]| kinds.iter().any(|&k| k as u32 == kind);
        // SAFETY: reads the union's bytes as the address that they are for these kinds, and as a
        // number without a use for others; nothing is followed.
        let object = unsafe { (*at).element.qp as usize };
        look(match kind {
            _ if one_of(&[is::IBV_EVENT_CQ_ERR]) => RawEvent::CqErr(object),
            _ if one_of(&[is::IBV_EVENT_QP_FATAL]) => RawEvent::QpFatal(object),
            _ if one_of(&[is::IBV_EVENT_QP_REQ_ERR]) => RawEvent::QpReqErr(object),
            _ if one_of(&[is::IBV_EVENT_QP_ACCESS_ERR]) => RawEvent::QpAccessErr(object),
            _ if one_of(&[is::IBV_EVENT_COMM_EST]) => RawEvent::CommEst(object),
            _ if one_of(&[is::IBV_EVENT_QP_LAST_WQE_REACHED]) => RawEvent::QpLastWqeReached(object),
            _ if one_of(&[is::IBV_EVENT_SRQ_LIMIT_REACHED]) => RawEvent::SrqLimitReached(object),
            _ if one_of(&[is::IBV_EVENT_PORT_ACTIVE]) => RawEvent::PortActive,
            _ if one_of(&[is::IBV_EVENT_PORT_ERR]) => RawEvent::PortErr,
            _ if one_of(&[is::IBV_EVENT_DEVICE_FATAL]) => RawEvent::DeviceFatal,
            _ => RawEvent::Other,
        });
        // SAFETY: it was got above, and is acknowledged once.
        unsafe { ibv::ibv_ack_async_event(at) };
        true
    }
}

impl Pd {
    pub fn new(context: &Arc<Context>) -> Result<Self, RdmaError> {
        // SAFETY: the context is open.
        let raw = unsafe { ibv::ibv_alloc_pd(context.raw) };
        Ok(Self {
            raw: made("ibv_alloc_pd", raw)?,
            _parents: (context.clone(),),
        })
    }
}

impl Channel {
    pub fn new(context: &Arc<Context>) -> Result<Self, RdmaError> {
        // SAFETY: the context is open.
        let raw = unsafe { ibv::ibv_create_comp_channel(context.raw) };
        let channel = Self {
            raw: made("ibv_create_comp_channel", raw)?,
            _parents: (context.clone(),),
        };
        nonblocking(channel.fd())?;
        Ok(channel)
    }

    /// Readable once an armed queue has something.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: open as long as the channel is, which the result borrows.
        unsafe { BorrowedFd::borrow_raw(self.fd()) }
    }

    fn fd(&self) -> RawFd {
        // SAFETY: the channel is live, and its descriptor does not change.
        unsafe { (*self.raw).fd }
    }

    /// Takes and acknowledges what queues told.
    pub fn take(&self) {
        let (mut cq, mut of) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the call fills in both. A queue is not removed before its events are
        // acknowledged, so `cq` is live.
        while unsafe { ibv::ibv_get_cq_event(self.raw, &mut cq, &mut of) } == 0 {
            // SAFETY: as above; this one event was not acknowledged yet.
            unsafe { ibv::ibv_ack_cq_events(cq, 1) };
        }
    }
}

/// A completion as the device tells it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wc {
    pub tag: u64,
    pub status: Status,
    pub byte_len: u32,
    /// Valid for receives.
    pub imm: Option<u32>,
    /// The peer wrote.
    pub written: bool,
    pub qpn: u32,
}

impl Cq {
    pub fn new(channel: &Arc<Channel>, cqe: u32) -> Result<Self, RdmaError> {
        let cqe = c_int::try_from(cqe).unwrap_or(c_int::MAX);
        // SAFETY: channel and context are live, and the former is the latter's.
        let raw = unsafe {
            let context = (*channel.raw).context;
            ibv::ibv_create_cq(context, cqe, ptr::null_mut(), channel.raw, 0)
        };
        Ok(Self {
            raw: made("ibv_create_cq", raw)?,
            _parents: (channel.clone(),),
        })
    }

    /// Shows at most `max` completions to `look`; how many there were.
    pub fn poll(&self, max: usize, mut look: impl FnMut(Wc)) -> Result<usize, RdmaError> {
        const AT_ONCE: usize = 16;
        let mut wcs = [const { MaybeUninit::<ibv::ibv_wc>::uninit() }; AT_ONCE];
        let want = max.min(AT_ONCE);
        // SAFETY: there is room for `want` entries, of which the call fills in as many as it says.
        let got = unsafe { ibv::ibv_poll_cq(self.raw, want as c_int, wcs.as_mut_ptr().cast()) };
        let Ok(got) = usize::try_from(got) else {
            return Err(RdmaError::System {
                op: "ibv_poll_cq",
                errno: libc::EIO,
            });
        };
        for wc in wcs.iter().take(got) {
            // SAFETY: one of those that were filled in; the immediate is plain in each reading.
            look(unsafe { completion(wc.assume_init_ref()) });
        }
        Ok(got)
    }

    /// Tells the channel of the next completion.
    pub fn arm(&self) -> Result<(), RdmaError> {
        // SAFETY: the queue is live.
        done("ibv_req_notify_cq", unsafe {
            ibv::ibv_req_notify_cq(self.raw, 0)
        })
    }
}

/// # Safety
/// The entry is one that a poll filled in.
unsafe fn completion(wc: &ibv::ibv_wc) -> Wc {
    use ibv::{ibv_wc_opcode as what, ibv_wc_status as is};
    // SAFETY: four plain bytes in each reading of the union.
    let imm = u32::from_be(unsafe { wc.imm_data_invalidated_rkey_union.imm_data });
    let with_imm = wc.wc_flags & ibv::ibv_wc_flags::IBV_WC_WITH_IMM.0 != 0;
    Wc {
        tag: wc.wr_id,
        status: match wc.status {
            is::IBV_WC_SUCCESS => Status::Success,
            is::IBV_WC_LOC_LEN_ERR => Status::LocLenErr,
            is::IBV_WC_LOC_QP_OP_ERR => Status::LocQpOpErr,
            is::IBV_WC_LOC_PROT_ERR | is::IBV_WC_LOC_ACCESS_ERR => Status::LocProtErr,
            is::IBV_WC_WR_FLUSH_ERR => Status::WrFlushErr,
            is::IBV_WC_BAD_RESP_ERR => Status::BadRespErr,
            is::IBV_WC_REM_INV_REQ_ERR => Status::RemInvReqErr,
            is::IBV_WC_REM_ACCESS_ERR => Status::RemAccessErr,
            is::IBV_WC_REM_OP_ERR | is::IBV_WC_REM_ABORT_ERR => Status::RemOpErr,
            is::IBV_WC_RETRY_EXC_ERR | is::IBV_WC_RESP_TIMEOUT_ERR => Status::RetryExcErr,
            is::IBV_WC_RNR_RETRY_EXC_ERR => Status::RnrRetryExcErr,
            is::IBV_WC_FATAL_ERR => Status::FatalErr,
            _ => Status::GeneralErr,
        },
        byte_len: wc.byte_len,
        imm: with_imm.then_some(imm),
        written: wc.opcode == what::IBV_WC_RECV_RDMA_WITH_IMM,
        qpn: wc.qp_num,
    }
}

fn flags(access: Access) -> u32 {
    use ibv::ibv_access_flags as is;
    [
        (Access::LOCAL_WRITE, is::IBV_ACCESS_LOCAL_WRITE),
        (Access::REMOTE_WRITE, is::IBV_ACCESS_REMOTE_WRITE),
        (Access::REMOTE_READ, is::IBV_ACCESS_REMOTE_READ),
        (Access::REMOTE_ATOMIC, is::IBV_ACCESS_REMOTE_ATOMIC),
    ]
    .iter()
    .filter(|(ours, _)| access.has(*ours))
    .fold(0, |all, (_, theirs)| all | theirs.0)
}

/// Registered memory.
#[derive(Debug)]
pub(super) struct Mr {
    registration: Option<Registration>,
    bytes: Option<Bytes>,
}

impl Mr {
    /// Registers `bytes`, whose first is at `iova` for work requests and for peers.
    pub fn new(pd: &Arc<Pd>, bytes: Bytes, iova: u64, access: Access) -> Result<Self, RdmaError> {
        // SAFETY: the mapping is as long as it says, and `Mr` keeps it for as long as the
        // registration lives. No reference to its bytes exists, so the device may write there.
        let raw = unsafe {
            let (at, len) = (bytes.as_ptr().cast(), bytes.len());
            ibv::ibv_reg_mr_iova(pd.raw, at, len, iova, flags(access) as c_int)
        };
        let registration = Registration {
            raw: made("ibv_reg_mr", raw)?,
            _parents: (pd.clone(),),
        };
        Ok(Self {
            registration: Some(registration),
            bytes: Some(bytes),
        })
    }

    /// Local and remote key.
    pub fn keys(&self) -> (u32, u32) {
        let raw = self
            .registration
            .as_ref()
            .map_or(ptr::null_mut(), |r| r.raw);
        if raw.is_null() {
            return (0, 0);
        }
        // SAFETY: the registration is live.
        unsafe { ((*raw).lkey, (*raw).rkey) }
    }

    pub fn bytes(&self) -> Option<&Bytes> {
        self.bytes.as_ref()
    }

    /// Ends the registration, then unmaps.
    pub fn close(mut self) -> Result<(), RdmaError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), RdmaError> {
        let ended = self.registration.take().map_or(Ok(()), Registration::close);
        if ended.is_err() {
            // The device may still write there: better lost than given to somebody else.
            mem::forget(self.bytes.take());
        }
        ended
    }
}

impl Drop for Mr {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(%error, "a memory region stays mapped");
        }
    }
}

impl Srq {
    pub fn new(pd: &Arc<Pd>, max_wr: u32, max_sge: u32) -> Result<Self, RdmaError> {
        let mut attr = ibv::ibv_srq_init_attr {
            srq_context: ptr::null_mut(),
            attr: ibv::ibv_srq_attr {
                max_wr,
                max_sge,
                srq_limit: 0,
            },
        };
        // SAFETY: the domain is live, and the attributes are whole.
        let raw = unsafe { ibv::ibv_create_srq(pd.raw, &mut attr) };
        Ok(Self {
            raw: made("ibv_create_srq", raw)?,
            _parents: (pd.clone(),),
        })
    }

    pub fn arm(&self, srq_limit: u32) -> Result<(), RdmaError> {
        let mut attr = ibv::ibv_srq_attr {
            max_wr: 0,
            max_sge: 0,
            srq_limit,
        };
        let mask = ibv::ibv_srq_attr_mask::IBV_SRQ_LIMIT.0;
        // SAFETY: the queue is live, and the mask names the one attribute that is meant.
        done("ibv_modify_srq", unsafe {
            ibv::ibv_modify_srq(self.raw, &mut attr, mask as c_int)
        })
    }

    /// Posts receives; how many, and why no more.
    pub fn post_recv(&self, scratch: &mut Scratch) -> (usize, Result<(), RdmaError>) {
        scratch.post_recvs("ibv_post_srq_recv", |first, bad| {
            // SAFETY: a chain of whole requests whose SGEs live as long, made by `post_recvs`.
            unsafe { ibv::ibv_post_srq_recv(self.raw, first, bad) }
        })
    }
}
