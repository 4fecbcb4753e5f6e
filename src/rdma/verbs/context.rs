//! The process's one opening of a device, which the shards share: its limits and how much of them
//! is used, the packet sequence numbers that live queue pairs have, and where events go.
//!
//! The locks here are of creation, removal and events; no data passes them.

use super::ffi::{self, RawEvent};
use super::removal::Removal;
use super::{Unavailable, unlisted};
use crate::base::{Rng, limits};
use crate::rdma::attr::{DeviceAttr, QpCap};
use crate::rdma::error::RdmaError;
use crate::rdma::event::AsyncEvent;
use crate::rdma::ids::{CompletionQueueId, Gid, QueuePairId, SharedReceiveQueueId};
use crate::rdma::port::Usage;
use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// The devices that are open.
static OPEN: Mutex<Vec<(String, Weak<Context>)>> = Mutex::new(Vec::new());

/// What is left behind by a thread that panicked with a lock is whole: each change is one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a device has only so many of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Domains,
    Regions,
    Bytes,
    CompletionQueues,
    SharedReceiveQueues,
    QueuePairs,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Domains,
        Self::Regions,
        Self::Bytes,
        Self::CompletionQueues,
        Self::SharedReceiveQueues,
        Self::QueuePairs,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Domains => "protection domains",
            Self::Regions => "memory regions",
            Self::Bytes => "registered bytes",
            Self::CompletionQueues => "completion queues",
            Self::SharedReceiveQueues => "shared receive queues",
            Self::QueuePairs => "queue pairs",
        }
    }

    fn limit(self, attr: &DeviceAttr) -> u64 {
        match self {
            Self::Domains => attr.max_pd.into(),
            Self::Regions => attr.max_mr.into(),
            Self::Bytes => attr.max_registered,
            Self::CompletionQueues => attr.max_cq.into(),
            Self::SharedReceiveQueues => attr.max_srq.into(),
            Self::QueuePairs => attr.max_qp.into(),
        }
    }
}

/// An open device.
#[derive(Debug)]
pub(super) struct Context {
    pub name: String,
    pub raw: Arc<ffi::Context>,
    pub attr: DeviceAttr,
    used: [AtomicU64; Kind::ALL.len()],
    psns: Mutex<HashSet<u32>>,
    routes: Mutex<Routes>,
    removal: Removal,
    /// It is being removed: who opens the name now means another device.
    removed: AtomicBool,
    /// The addresses as last looked up, which takes a file each.
    gids: Mutex<Vec<(u8, Gid)>>,
}

/// Where events go.
#[derive(Debug, Default)]
struct Routes {
    /// Whose the object at an address is.
    objects: HashMap<usize, (u64, Target)>,
    members: HashMap<u64, Arc<Mailbox>>,
    next: u64,
}

/// An object's name in its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Cq(CompletionQueueId),
    Srq(SharedReceiveQueueId),
    Qp(QueuePairId),
}

/// A shard's events.
#[derive(Debug)]
struct Mailbox {
    events: Mutex<VecDeque<AsyncEvent>>,
    wake: File,
}

impl Mailbox {
    fn new() -> io::Result<Self> {
        // SAFETY: makes a descriptor that nobody else has.
        let wake = unsafe {
            let fd = libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Self {
            events: Mutex::default(),
            wake: wake.into(),
        })
    }

    fn push(&self, event: AsyncEvent) {
        let mut events = lock(&self.events);
        if events.len() >= limits::RDMA_EVENTS {
            tracing::warn!(?event, "an event that nobody takes is dropped");
            return;
        }
        events.push_back(event);
        // It fails only when it counts to the end of 64 bits, and is then readable anyway.
        let _ = (&self.wake).write(&1u64.to_ne_bytes());
    }
}

/// A shard's place among those that share a context; given back when dropped.
#[derive(Debug)]
pub(super) struct Member {
    context: Arc<Context>,
    id: u64,
    mailbox: Arc<Mailbox>,
}

/// So much of a limit; given back when dropped.
#[derive(Debug)]
pub(super) struct Claim {
    context: Arc<Context>,
    kind: Kind,
    amount: u64,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(used) = self.context.used.get(self.kind as usize) {
            used.fetch_sub(self.amount, Ordering::Relaxed);
        }
    }
}

/// A packet sequence number that no other live queue pair of the device begins with.
#[derive(Debug)]
pub(super) struct Psn {
    context: Arc<Context>,
    pub number: u32,
}

impl Drop for Psn {
    fn drop(&mut self) {
        lock(&self.context.psns).remove(&self.number);
    }
}

impl Context {
    /// The device of this name, or the first. It is opened once, and closed after its last user.
    pub fn open(name: Option<&str>) -> Result<Arc<Self>, Unavailable> {
        let name = match name {
            Some(name) => name.to_owned(),
            None => {
                let first = super::devices()?.into_iter().next();
                first.ok_or(Unavailable::NoDevice)?
            }
        };
        let mut open = lock(&OPEN);
        open.retain(|(_, context)| context.strong_count() > 0);
        let known = open.iter().filter(|(is, _)| *is == name);
        let mut known = known.filter_map(|(_, context)| context.upgrade());
        if let Some(context) = known.find(|c| !c.removed.load(Ordering::Relaxed)) {
            return Ok(context);
        }
        let raw = match ffi::Context::open(&name) {
            Ok(Some(opened)) => Arc::new(opened?),
            Ok(None) => return Err(Unavailable::NoSuchDevice(name)),
            Err(error) => return Err(unlisted(&error)),
        };
        let context = Arc::new(Self {
            attr: attributes(&raw)?,
            removal: Removal::of(&raw.node()),
            removed: AtomicBool::new(false),
            raw,
            name: name.clone(),
            used: Default::default(),
            psns: Mutex::default(),
            routes: Mutex::default(),
            gids: Mutex::default(),
        });
        open.push((name, Arc::downgrade(&context)));
        Ok(context)
    }

    /// One more user.
    pub fn join(self: &Arc<Self>) -> Result<Member, RdmaError> {
        let mailbox = Mailbox::new().map_err(|e| RdmaError::system("eventfd", &e))?;
        let mailbox = Arc::new(mailbox);
        let mut routes = lock(&self.routes);
        let id = routes.next;
        routes.next += 1;
        routes.members.insert(id, mailbox.clone());
        Ok(Member {
            context: self.clone(),
            id,
            mailbox,
        })
    }

    /// So much more of a limit, if it is left.
    pub fn claim(self: &Arc<Self>, kind: Kind, amount: u64) -> Result<Claim, RdmaError> {
        let (what, limit) = (kind.name(), kind.limit(&self.attr));
        let more = |used: u64| used.checked_add(amount).filter(|&n| n <= limit);
        let used = self.used.get(kind as usize);
        let taken = used.map(|u| u.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more));
        match taken {
            Some(Ok(before)) => {
                let now = |used| Usage { what, used, limit };
                if now(before + amount).is_near() && !now(before).is_near() {
                    let device = &self.name;
                    tracing::warn!(device, what, limit, "nine tenths of what there is are used");
                }
                Ok(Claim {
                    context: self.clone(),
                    kind,
                    amount,
                })
            }
            _ => Err(RdmaError::Limit { what, limit }),
        }
    }

    /// Every limit, and how much of it all shards use.
    pub fn usage(&self) -> Vec<Usage> {
        let of = |(kind, used): (Kind, &AtomicU64)| Usage {
            what: kind.name(),
            used: used.load(Ordering::Relaxed),
            limit: kind.limit(&self.attr),
        };
        Kind::ALL.into_iter().zip(&self.used).map(of).collect()
    }

    /// Readable when the device may be being removed.
    pub fn removal_fd(&self) -> Option<BorrowedFd<'_>> {
        self.removal.wake_fd()
    }

    /// The driver's own count of answers that no receive was ready, under rxe's name for it.
    pub fn not_ready(&self) -> Option<u64> {
        let device = &self.name;
        let path = format!("/sys/class/infiniband/{device}/ports/1/hw_counters/send_rnr_err");
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    }

    /// A number of 24 random bits.
    pub fn draw_psn(self: &Arc<Self>, rng: &mut Rng) -> Psn {
        let mut psns = lock(&self.psns);
        loop {
            let number = rng.below(1 << 24) as u32;
            if psns.insert(number) {
                let context = self.clone();
                return Psn { context, number };
            }
        }
    }

    /// Our GID at `index`.
    pub fn gid(&self, index: u8) -> Result<Gid, RdmaError> {
        self.raw.query_gid(index).ok_or(RdmaError::NoGid { index })
    }

    /// The GIDs of RoCE v2, with their indices.
    pub fn gids(&self) -> Vec<(u8, Gid)> {
        let is_v2 = |index: &u8| {
            let device = &self.name;
            let path = format!("/sys/class/infiniband/{device}/ports/1/gid_attrs/types/{index}");
            // One that is not there has no type; reading it fails.
            std::fs::read_to_string(path).is_ok_and(|kind| kind.trim() == "RoCE v2")
        };
        let gid = |index| Some((index, self.raw.query_gid(index)?));
        let gids: Vec<(u8, Gid)> = (0..=u8::MAX).filter(is_v2).filter_map(gid).collect();
        lock(&self.gids).clone_from(&gids);
        gids
    }

    /// The GID of an address of ours, if the device has it now.
    pub fn gid_of(&self, ip: IpAddr) -> Option<(u8, Gid)> {
        let is = |gid: &(u8, Gid)| gid.1.ip() == ip;
        let known = lock(&self.gids).iter().copied().find(is);
        let still = known.filter(|(index, gid)| self.raw.query_gid(*index) == Some(*gid));
        still.or_else(|| self.gids().into_iter().find(is))
    }
}

impl Routes {
    fn route(&self, event: RawEvent) {
        let everywhere = |event| self.members.values().for_each(|m| m.push(event));
        let to = |address: usize, make: fn(Target) -> Option<AsyncEvent>| {
            let Some((member, target)) = self.objects.get(&address) else {
                return; // removed meanwhile
            };
            if let (Some(mailbox), Some(event)) = (self.members.get(member), make(*target)) {
                mailbox.push(event);
            }
        };
        macro_rules! of {
            ($address:expr, $kind:ident, $event:ident) => {
                to($address, |target| match target {
                    Target::$kind(id) => Some(AsyncEvent::$event(id)),
                    _ => None,
                })
            };
        }
        match event {
            RawEvent::CqErr(at) => of!(at, Cq, CqErr),
            RawEvent::QpFatal(at) => of!(at, Qp, QpFatal),
            RawEvent::QpReqErr(at) => of!(at, Qp, QpReqErr),
            RawEvent::QpAccessErr(at) => of!(at, Qp, QpAccessErr),
            RawEvent::CommEst(at) => of!(at, Qp, CommEst),
            RawEvent::QpLastWqeReached(at) => of!(at, Qp, QpLastWqeReached),
            RawEvent::SrqLimitReached(at) => of!(at, Srq, SrqLimitReached),
            RawEvent::PortActive => everywhere(AsyncEvent::PortActive),
            RawEvent::PortErr => everywhere(AsyncEvent::PortErr),
            RawEvent::DeviceFatal => everywhere(AsyncEvent::DeviceFatal),
            RawEvent::Other => {}
        }
    }
}

impl Member {
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Readable when another shard has taken an event of this one's.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.mailbox.wake.as_fd()
    }

    /// Events of the object at `address` are for us.
    pub fn add(&self, address: usize, target: Target) {
        let mut routes = lock(&self.context.routes);
        routes.objects.insert(address, (self.id, target));
    }

    /// They no longer are. Before the object goes: afterwards the address may be another's.
    pub fn remove(&self, address: usize) {
        lock(&self.context.routes).objects.remove(&address);
    }

    /// The oldest event of ours. Those that the device has are given to their owners first.
    pub fn take_event(&self) -> Option<AsyncEvent> {
        let routes = lock(&self.context.routes);
        let context = &self.context;
        while context.raw.take_event(|event| routes.route(event)) {}
        if context.removal.has_come() {
            context.removed.store(true, Ordering::Relaxed);
            routes.route(RawEvent::DeviceFatal);
        }
        drop(routes);
        let mut events = lock(&self.mailbox.events);
        if events.len() <= 1 {
            let mut count = [0; 8];
            // Nothing there to read is what is wanted.
            let _ = (&self.mailbox.wake).read(&mut count);
        }
        events.pop_front()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut routes = lock(&self.context.routes);
        routes.members.remove(&self.id);
        routes.objects.retain(|_, (member, _)| *member != self.id);
    }
}

/// What the device can do, within what we can and what may be locked in memory.
fn attributes(raw: &Arc<ffi::Context>) -> Result<DeviceAttr, RdmaError> {
    let device = raw.query()?;
    let ours = |n: u32, limit: usize| n.min(limit as u32);
    Ok(DeviceAttr {
        max_qp: ours(device.max_qp, limits::RDMA_QUEUE_PAIRS),
        max_qp_wr: ours(device.max_qp_wr, limits::RDMA_WORK_REQUESTS),
        max_sge: ours(device.max_sge, limits::RDMA_SGES),
        max_inline_data: max_inline(raw)?,
        max_cq: device.max_cq,
        max_cqe: ours(device.max_cqe, limits::RDMA_CQ_ENTRIES),
        max_mr: ours(device.max_mr, limits::RDMA_REGIONS),
        max_mr_size: device.max_mr_size.min(limits::RDMA_REGION_BYTES as u64),
        max_registered: lockable().min(limits::RDMA_REGISTERED_BYTES as u64),
        max_pd: ours(device.max_pd, limits::RDMA_DOMAINS),
        max_srq: ours(device.max_srq, limits::RDMA_QUEUES),
        max_msg_sz: ours(device.max_msg_sz, limits::RDMA_MESSAGE_BYTES),
        ..device
    })
}

/// Devices do not tell how much goes inline, but refuse a queue pair that wants more.
fn max_inline(raw: &Arc<ffi::Context>) -> Result<u32, RdmaError> {
    let pd = Arc::new(ffi::Pd::new(raw)?);
    let channel = Arc::new(ffi::Channel::new(raw)?);
    let cq = Arc::new(ffi::Cq::new(&channel, 1)?);
    for bytes in [limits::RDMA_INLINE_BYTES as u32, 512, 256, 220, 128, 64, 32] {
        let cap = QpCap {
            max_send_wr: 1,
            max_recv_wr: 1,
            max_send_sge: 1,
            max_recv_sge: 1,
            max_inline_data: bytes,
        };
        let parts = ffi::QpParts {
            pd: &pd,
            send_cq: &cq,
            recv_cq: &cq,
            srq: None,
            cap,
            sq_sig_all: false,
        };
        if ffi::Qp::new(&parts).is_ok() {
            return Ok(bytes);
        }
    }
    Ok(0)
}

/// Bytes that may be locked in memory by whom we are, which registering does.
fn lockable() -> u64 {
    const CAP_IPC_LOCK: u64 = 1 << 14;
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    if effective.unwrap_or(0) & CAP_IPC_LOCK != 0 {
        return u64::MAX;
    }
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the call fills in two numbers.
    match unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) } {
        0 => limit.rlim_cur,
        _ => 0,
    }
}
