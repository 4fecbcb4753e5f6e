//! A device that does what a test tells it to: it fails at a step, tells of something that happened
//! to it, or is gone. Everything else is the real one's.

use corelane::base::{RecvMeta, SocketId, Timestamp, Transmit};
use corelane::rdma::bootstrap::QueueTerms;
use corelane::rdma::*;
use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What happens to a device. Clones are the same.
#[derive(Clone, Default)]
pub struct Faults(Arc<Inner>);

struct Inner {
    /// Steps that succeed; the one that finds none left fails. Removing never does.
    left: AtomicU32,
    gone: AtomicBool,
    /// Steps that failed.
    failed: AtomicU32,
    /// The next list of sends that is longer is refused from here on.
    only: AtomicUsize,
    /// Sends that were posted with one call, at most.
    longest: AtomicUsize,
    /// Queue pairs that split what they write.
    split: AtomicUsize,
    /// What was posted since that was asked last: `s` for sends, `r` for shared receives.
    posted: Mutex<String>,
    events: Mutex<VecDeque<AsyncEvent>>,
    /// What to tell once a queue pair has come to this state.
    at: Mutex<Option<(QpState, AsyncEvent)>>,
    pairs: Mutex<HashMap<u32, QueuePairId>>,
    /// What wakes the shard for events, where it is to sleep.
    wake: Option<(UnixStream, UnixStream)>,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            left: AtomicU32::new(u32::MAX),
            gone: AtomicBool::default(),
            failed: AtomicU32::new(0),
            only: AtomicUsize::new(usize::MAX),
            longest: AtomicUsize::new(0),
            split: AtomicUsize::new(0),
            posted: Mutex::default(),
            events: Mutex::default(),
            at: Mutex::default(),
            pairs: Mutex::default(),
            wake: None,
        }
    }
}

impl Faults {
    /// Those of a device whose events wake its shard.
    pub fn that_wake() -> Self {
        let (told, tell) = UnixStream::pair().expect("a pair");
        told.set_nonblocking(true).expect("so");
        Self(Arc::new(Inner {
            wake: Some((told, tell)),
            ..Inner::default()
        }))
    }

    /// Has the step after so many fail, and each later one.
    pub fn fail_after(&self, steps: u32) {
        self.0.left.store(steps, Ordering::Relaxed);
    }

    /// How many have.
    pub fn failed(&self) -> u32 {
        self.0.failed.load(Ordering::Relaxed)
    }

    /// Has the next list of more than `count` sends refused behind the first `count`.
    pub fn post_only(&self, count: usize) {
        self.0.only.store(count, Ordering::Relaxed);
    }

    /// Sends that were posted with one call, at most.
    pub fn longest(&self) -> usize {
        self.0.longest.load(Ordering::Relaxed)
    }

    /// How many queue pairs split what they write, those that are gone included.
    pub fn split(&self) -> usize {
        self.0.split.load(Ordering::Relaxed)
    }

    /// What was posted since the last call of this: `s` for sends, `r` for shared receives.
    pub fn posted(&self) -> String {
        std::mem::take(&mut self.0.posted.lock().expect("no panic"))
    }

    fn post(&self, what: char) {
        self.0.posted.lock().expect("no panic").push(what);
    }

    /// The device tells this.
    pub fn tell(&self, event: AsyncEvent) {
        self.0.events.lock().expect("no panic").push_back(event);
        if let Some((_, tell)) = &self.0.wake {
            let _ = { tell }.write(&[1]).expect("room");
        }
    }

    /// The device tells this once, when a queue pair has come to this state.
    pub fn tell_at(&self, state: QpState, event: AsyncEvent) {
        *self.0.at.lock().expect("no panic") = Some((state, event));
    }

    fn reached(&self, state: QpState) {
        let mut at = self.0.at.lock().expect("no panic");
        if let Some((_, event)) = at.take_if(|(s, _)| *s == state) {
            self.tell(event);
        }
    }

    /// The queue pair of this number.
    pub fn pair(&self, qpn: u32) -> QueuePairId {
        self.0.pairs.lock().expect("no panic")[&qpn]
    }

    /// From now on every call fails, and no packet comes or goes.
    pub fn take_away(&self) {
        self.0.gone.store(true, Ordering::Relaxed);
    }

    fn is_gone(&self) -> bool {
        self.0.gone.load(Ordering::Relaxed)
    }

    fn live(&self) -> Result<(), RdmaError> {
        (!self.is_gone()).then_some(()).ok_or(FAILED)
    }

    fn step(&self) -> Result<(), RdmaError> {
        self.live()?;
        let less = |n: u32| {
            if n == u32::MAX {
                Some(n)
            } else {
                n.checked_sub(1)
            }
        };
        let left = &self.0.left;
        let done = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        done.map(drop).map_err(|_| {
            self.0.failed.fetch_add(1, Ordering::Relaxed);
            FAILED
        })
    }
}

const FAILED: RdmaError = RdmaError::System {
    op: "a test",
    errno: libc::EIO,
};

fn none_posted(error: RdmaError) -> PostError {
    PostError { index: 0, error }
}

/// See the module's documentation.
pub struct Faulty {
    pub device: AnyDevice,
    pub faults: Faults,
    /// Whether receives are shared; `None` where the device says so.
    pub shares: Option<bool>,
}

impl Provider for Faulty {
    fn query_device(&self) -> DeviceAttr {
        self.device.query_device()
    }
    fn objects(&self) -> Objects {
        self.device.objects()
    }
    fn alloc_pd(&mut self) -> Result<ProtectionDomainId, RdmaError> {
        self.faults.step()?;
        self.device.alloc_pd()
    }
    fn dealloc_pd(&mut self, pd: ProtectionDomainId) -> Result<(), RdmaError> {
        self.faults.live()?;
        self.device.dealloc_pd(pd)
    }
    fn reg_mr(
        &mut self,
        pd: ProtectionDomainId,
        len: usize,
        access: Access,
    ) -> Result<MemoryRegion, RdmaError> {
        self.faults.step()?;
        self.device.reg_mr(pd, len, access)
    }
    fn dereg_mr(&mut self, mr: MemoryRegionId) -> Result<(), RdmaError> {
        self.faults.live()?;
        self.device.dereg_mr(mr)
    }
    fn read(&self, mr: MemoryRegionId, offset: u64, into: &mut [u8]) -> Result<(), RdmaError> {
        self.device.read(mr, offset, into)
    }
    fn write(&mut self, mr: MemoryRegionId, offset: u64, from: &[u8]) -> Result<(), RdmaError> {
        self.device.write(mr, offset, from)
    }
    fn create_cq(&mut self, cqe: u32) -> Result<CompletionQueueId, RdmaError> {
        self.faults.step()?;
        self.device.create_cq(cqe)
    }
    fn destroy_cq(&mut self, cq: CompletionQueueId) -> Result<(), RdmaError> {
        self.faults.live()?;
        self.device.destroy_cq(cq)
    }
    fn poll_cq(
        &mut self,
        cq: CompletionQueueId,
        into: &mut [Completion],
    ) -> Result<usize, RdmaError> {
        self.faults.live()?;
        self.device.poll_cq(cq, into)
    }
    fn create_srq(
        &mut self,
        pd: ProtectionDomainId,
        max_wr: u32,
        max_sge: u32,
    ) -> Result<SharedReceiveQueueId, RdmaError> {
        self.faults.step()?;
        self.device.create_srq(pd, max_wr, max_sge)
    }
    fn arm_srq(&mut self, srq: SharedReceiveQueueId, limit: u32) -> Result<(), RdmaError> {
        self.device.arm_srq(srq, limit)
    }
    fn destroy_srq(&mut self, srq: SharedReceiveQueueId) -> Result<(), RdmaError> {
        self.faults.live()?;
        self.device.destroy_srq(srq)
    }
    fn post_srq_recv(
        &mut self,
        srq: SharedReceiveQueueId,
        batch: &[RecvRequest<'_>],
    ) -> Result<(), PostError> {
        self.faults.step().map_err(none_posted)?;
        self.faults.post('r');
        self.device.post_srq_recv(srq, batch)
    }
    fn create_qp(
        &mut self,
        pd: ProtectionDomainId,
        attr: &QpInitAttr,
    ) -> Result<QueuePair, RdmaError> {
        self.faults.step()?;
        let made = self.device.create_qp(pd, attr)?;
        let mut pairs = self.faults.0.pairs.lock().expect("no panic");
        pairs.insert(made.qpn, made.id);
        Ok(made)
    }
    fn modify_to_init(&mut self, qp: QueuePairId, attr: &InitAttr) -> Result<(), RdmaError> {
        self.faults.step()?;
        self.device.modify_to_init(qp, attr)?;
        self.faults.reached(QpState::Init);
        Ok(())
    }
    fn modify_to_rtr(&mut self, qp: QueuePairId, attr: &RtrAttr) -> Result<(), RdmaError> {
        self.faults.step()?;
        self.device.modify_to_rtr(qp, attr)
    }
    fn modify_to_rts(&mut self, qp: QueuePairId, attr: &RtsAttr) -> Result<(), RdmaError> {
        self.faults.step()?;
        self.device.modify_to_rts(qp, attr)?;
        self.faults.reached(QpState::Rts);
        Ok(())
    }
    fn modify_to_err(&mut self, qp: QueuePairId) -> Result<(), RdmaError> {
        self.faults.live()?;
        self.device.modify_to_err(qp)
    }
    fn modify_to_reset(&mut self, qp: QueuePairId) -> Result<(), RdmaError> {
        self.faults.live()?;
        self.device.modify_to_reset(qp)
    }
    fn query_qp(&self, qp: QueuePairId) -> Result<QpState, RdmaError> {
        self.device.query_qp(qp)
    }
    fn destroy_qp(&mut self, qp: QueuePairId) -> Result<(), RdmaError> {
        self.faults.live()?;
        self.device.destroy_qp(qp)
    }
    fn post_send(&mut self, qp: QueuePairId, batch: &[SendRequest<'_>]) -> Result<(), PostError> {
        self.faults.live().map_err(none_posted)?;
        self.faults.post('s');
        let told = &self.faults.0;
        told.longest.fetch_max(batch.len(), Ordering::Relaxed);
        let index = told.only.load(Ordering::Relaxed);
        if index < batch.len() {
            told.only.store(usize::MAX, Ordering::Relaxed);
            self.device.post_send(qp, &batch[..index])?;
            let error = FAILED;
            return Err(PostError { index, error });
        }
        self.device.post_send(qp, batch)
    }
    fn post_recv(&mut self, qp: QueuePairId, batch: &[RecvRequest<'_>]) -> Result<(), PostError> {
        self.faults.step().map_err(none_posted)?;
        self.device.post_recv(qp, batch)
    }
    fn get_async_event(&mut self) -> Option<AsyncEvent> {
        if let Some((told, _)) = &self.faults.0.wake {
            // Nothing there to read is what is wanted.
            while matches!({ told }.read(&mut [0; 64]), Ok(1..)) {}
        }
        let told = self.faults.0.events.lock().expect("no panic").pop_front();
        told.or_else(|| self.device.get_async_event())
    }
}

impl Port for Faulty {
    fn name(&self) -> &str {
        self.device.name()
    }
    fn shares_receives(&self) -> bool {
        self.shares.unwrap_or_else(|| self.device.shares_receives())
    }
    fn splits_writes(&self) -> bool {
        self.device.splits_writes()
    }
    fn split_writes(&mut self, qp: QueuePairId) -> Result<(), RdmaError> {
        self.faults.step()?;
        self.faults.0.split.fetch_add(1, Ordering::Relaxed);
        self.device.split_writes(qp)
    }
    fn prefers_inline(&self) -> bool {
        self.device.prefers_inline()
    }
    fn not_ready(&self) -> Option<u64> {
        self.device.not_ready()
    }
    fn gid_of(&self, ip: IpAddr) -> Option<(u8, Gid, u16)> {
        self.device.gid_of(ip)
    }
    fn takes(&self, peer: &QueueTerms) -> Result<(), RdmaError> {
        self.device.takes(peer)
    }
    fn moves_itself(&self) -> bool {
        self.device.moves_itself()
    }
    fn is_shared(&self) -> bool {
        self.device.is_shared()
    }
    fn usage(&self) -> Vec<Usage> {
        self.device.usage()
    }
    fn socket_change(&mut self) -> Option<SocketChange> {
        self.device.socket_change()
    }
    fn connected(&mut self, socket: Option<SocketId>) {
        self.device.connected(socket);
    }
    fn handle_train(&mut self, now: Timestamp, meta: &RecvMeta, train: &mut [u8]) {
        if !self.faults.is_gone() {
            self.device.handle_train(now, meta, train);
        }
    }
    fn next_socket(&self) -> Option<SocketId> {
        self.device.next_socket().filter(|_| !self.faults.is_gone())
    }
    fn poll_transmit(&mut self, now: Timestamp, buf: &mut [u8]) -> Option<Transmit> {
        self.device.poll_transmit(now, buf)
    }
    fn poll_gather(&mut self, now: Timestamp, buf: &mut [u8]) -> Option<Transmit> {
        self.device.poll_gather(now, buf)
    }
    fn piece(&self, n: usize) -> Option<(usize, &[u8])> {
        self.device.piece(n)
    }
    fn poll_timeout(&self) -> Timestamp {
        self.device.poll_timeout()
    }
    fn handle_timeout(&mut self, now: Timestamp) {
        self.device.handle_timeout(now);
    }
    fn wake_fds(&self) -> Vec<(WakeFor, BorrowedFd<'_>)> {
        let mut all = self.device.wake_fds();
        let own = self.faults.0.wake.as_ref();
        all.extend(own.map(|(told, _)| (WakeFor::Events, told.as_fd())));
        all
    }
    fn req_notify_cq(&mut self, cq: CompletionQueueId) -> Result<(), RdmaError> {
        self.device.req_notify_cq(cq)
    }
    fn ack_cq_events(&mut self) {
        self.device.ack_cq_events();
    }
}
