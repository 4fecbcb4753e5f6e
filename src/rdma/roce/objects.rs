//! The device under verbs' names: objects made, changed and removed, work posted and polled.
//!
//! Each call checks everything before it changes anything, so that a failed call changes nothing.

use super::device::Device;
use super::qp::{Ctx, Path, Qp};
use super::queues::{CompletionQueue, RecvQueue, SharedRecvQueue};
use super::wire::Icrc;
use crate::base::FourTuple;
use crate::rdma::access::Access;
use crate::rdma::attr::{DeviceAttr, InitAttr, QpInitAttr, QpState, RtrAttr, RtsAttr};
use crate::rdma::completion::Completion;
use crate::rdma::error::{PostError, RdmaError};
use crate::rdma::event::AsyncEvent;
use crate::rdma::ids::{
    CompletionQueueId, MemoryRegionId, ProtectionDomainId, QueuePairId, SharedReceiveQueueId,
};
use crate::rdma::provider::{Objects, Provider, QueuePair};
use crate::rdma::slots::{Key, Slots};
use crate::rdma::work::{MemoryRegion, RecvRequest, SendRequest};
use std::net::SocketAddr;

fn unused<T>(
    table: &mut Slots<T>,
    key: Key,
    what: &'static str,
    users: impl Fn(&T) -> u32,
) -> Result<(), RdmaError> {
    let users = users(table.get(key).ok_or(RdmaError::Unknown(what))?);
    if users > 0 {
        return Err(RdmaError::Busy { what, users });
    }
    table.remove(key);
    Ok(())
}

fn full<T>(table: &Slots<T>, what: &'static str) -> Result<(), RdmaError> {
    let limit = table.limit() as u64;
    match table.is_full() {
        true => Err(RdmaError::Limit { what, limit }),
        false => Ok(()),
    }
}

fn in_range(name: &'static str, value: u32, max: u32) -> Result<(), RdmaError> {
    let error = RdmaError::Attribute {
        name,
        value: value.into(),
        allowed: "at least 1, at most what the device can",
    };
    if (1..=max).contains(&value) {
        Ok(())
    } else {
        Err(error)
    }
}

/// Posts a batch one by one; the first that cannot be posted ends it.
fn each<T>(
    batch: &[T],
    mut post: impl FnMut(&T) -> Result<(), RdmaError>,
) -> Result<(), PostError> {
    for (index, request) in batch.iter().enumerate() {
        post(request).map_err(|error| PostError { index, error })?;
    }
    Ok(())
}

#[cold]
fn unknown_qp() -> Result<(), PostError> {
    let error = RdmaError::Unknown("queue pair");
    Err(PostError { index: 0, error })
}

impl Device {
    fn domain(&mut self, pd: ProtectionDomainId) -> Result<&mut u32, RdmaError> {
        let unknown = RdmaError::Unknown("protection domain");
        self.domains.get_mut(pd.0).ok_or(unknown)
    }

    /// One more, or one less, uses the objects that a queue pair stands on.
    fn count_users(&mut self, pd: Key, cqs: [Key; 2], srq: Option<Key>, more: bool) {
        let count = |n: &mut u32| *n = if more { *n + 1 } else { n.saturating_sub(1) };
        self.domains.get_mut(pd).into_iter().for_each(count);
        for cq in cqs {
            let users = self.cqs.get_mut(cq).map(|c| &mut c.users);
            users.into_iter().for_each(count);
        }
        let srq = srq.and_then(|key| self.srqs.get_mut(key));
        srq.map(|s| &mut s.users).into_iter().for_each(count);
    }

    /// A random number that no live queue pair has; 0, 1 and the last are the standard's.
    fn draw_qpn(&mut self) -> u32 {
        let (bits, shard) = (self.config.shard_bits, u32::from(self.config.shard));
        loop {
            let high = self.rng.below(1 << (24 - u32::from(bits))) as u32;
            let qpn = high << bits | shard;
            if (2..0xff_ffff).contains(&qpn) && !self.qpns.contains_key(&qpn) {
                return qpn;
            }
        }
    }

    fn draw_psn(&mut self) -> u32 {
        loop {
            let psn = self.rng.below(1 << 24) as u32;
            if self.psns.insert(psn) {
                return psn;
            }
        }
    }

    /// A queue pair goes this way no longer.
    fn part_with(&mut self, path: Option<Path>) {
        if path.is_some_and(|path| path.direct) {
            self.direct.leave();
        }
    }

    fn change<T>(
        &mut self,
        qp: QueuePairId,
        work: impl FnOnce(&mut Qp, &mut Ctx<'_>) -> T,
    ) -> Result<T, RdmaError> {
        let done = self.with_qp(qp, work);
        done.ok_or(RdmaError::Unknown("queue pair"))
    }

    /// Checks that a queue pair may go on to `next`.
    fn may_become(&self, qp: QueuePairId, next: QpState) -> Result<&Qp, RdmaError> {
        let found = self.qps.get(qp.0).ok_or(RdmaError::Unknown("queue pair"))?;
        let (call, allowed) = match next {
            QpState::Init => ("modify_to_init", "Reset"),
            QpState::Rtr => ("modify_to_rtr", "Init"),
            _ => ("modify_to_rts", "Rtr"),
        };
        if !found.state.may_become(next) {
            return Err(RdmaError::State {
                call,
                state: found.state,
                allowed,
            });
        }
        Ok(found)
    }
}

impl Provider for Device {
    fn query_device(&self) -> DeviceAttr {
        self.config.attr
    }

    fn objects(&self) -> Objects {
        let (regions, registered) = self.memory.counts();
        Objects {
            domains: self.domains.len(),
            regions,
            registered,
            completion_queues: self.cqs.len(),
            shared_receive_queues: self.srqs.len(),
            queue_pairs: self.qps.len(),
        }
    }

    fn alloc_pd(&mut self) -> Result<ProtectionDomainId, RdmaError> {
        let limit = self.domains.limit() as u64;
        let what = "protection domains";
        let made = self.domains.insert(0);
        made.map(ProtectionDomainId)
            .map_err(|_| RdmaError::Limit { what, limit })
    }

    fn dealloc_pd(&mut self, pd: ProtectionDomainId) -> Result<(), RdmaError> {
        unused(&mut self.domains, pd.0, "protection domain", |users| *users)
    }

    fn reg_mr(
        &mut self,
        pd: ProtectionDomainId,
        len: usize,
        access: Access,
    ) -> Result<MemoryRegion, RdmaError> {
        self.domain(pd)?;
        let region = self.memory.register(pd.0, len, access, &mut self.rng)?;
        *self.domain(pd)? += 1;
        Ok(region)
    }

    fn dereg_mr(&mut self, mr: MemoryRegionId) -> Result<(), RdmaError> {
        let pd = self.memory.deregister(mr);
        let pd = pd.ok_or(RdmaError::Unknown("memory region"))?;
        let users = self.domain(ProtectionDomainId(pd))?;
        *users = users.saturating_sub(1);
        Ok(())
    }

    #[inline]
    fn read(&self, mr: MemoryRegionId, offset: u64, into: &mut [u8]) -> Result<(), RdmaError> {
        let bytes = self.bytes(mr);
        let bytes = bytes.ok_or(RdmaError::Unknown("memory region"))?;
        let found = range_of(offset, into.len()).and_then(|range| bytes.get(range));
        let Some(from) = found else {
            return Err(out_of_range(offset, into.len(), bytes.len()));
        };
        into.copy_from_slice(from);
        Ok(())
    }

    #[inline]
    fn write(&mut self, mr: MemoryRegionId, offset: u64, from: &[u8]) -> Result<(), RdmaError> {
        let bytes = self.bytes_mut(mr);
        let bytes = bytes.ok_or(RdmaError::Unknown("memory region"))?;
        let region = bytes.len();
        let found = range_of(offset, from.len()).and_then(|range| bytes.get_mut(range));
        let Some(into) = found else {
            return Err(out_of_range(offset, from.len(), region));
        };
        into.copy_from_slice(from);
        Ok(())
    }

    fn create_cq(&mut self, cqe: u32) -> Result<CompletionQueueId, RdmaError> {
        in_range("cqe", cqe, self.config.attr.max_cqe)?;
        full(&self.cqs, "completion queues")?;
        let made = self.cqs.insert(CompletionQueue::new(cqe as usize));
        made.map(CompletionQueueId)
            .map_err(|_| RdmaError::Unknown("completion queue"))
    }

    fn destroy_cq(&mut self, cq: CompletionQueueId) -> Result<(), RdmaError> {
        unused(&mut self.cqs, cq.0, "completion queue", |c| c.users)
    }

    #[inline]
    fn poll_cq(
        &mut self,
        cq: CompletionQueueId,
        into: &mut [Completion],
    ) -> Result<usize, RdmaError> {
        let queue = self.cqs.get_mut(cq.0);
        let queue = queue.ok_or(RdmaError::Unknown("completion queue"))?;
        Ok(queue.poll(into))
    }

    fn create_srq(
        &mut self,
        pd: ProtectionDomainId,
        max_wr: u32,
        max_sge: u32,
    ) -> Result<SharedReceiveQueueId, RdmaError> {
        in_range("max_wr", max_wr, self.config.attr.max_qp_wr)?;
        in_range("max_sge", max_sge, self.config.attr.max_sge)?;
        self.domain(pd)?;
        full(&self.srqs, "shared receive queues")?;
        let made = self.srqs.insert(SharedRecvQueue {
            queue: RecvQueue::new(max_wr, max_sge),
            pd: pd.0,
            users: 0,
            limit: 0,
        });
        let key = made.map_err(|_| RdmaError::Unknown("shared receive queue"))?;
        *self.domain(pd)? += 1;
        Ok(SharedReceiveQueueId(key))
    }

    fn arm_srq(&mut self, srq: SharedReceiveQueueId, limit: u32) -> Result<(), RdmaError> {
        let queue = self.srqs.get_mut(srq.0);
        queue
            .ok_or(RdmaError::Unknown("shared receive queue"))?
            .limit = limit;
        Ok(())
    }

    fn destroy_srq(&mut self, srq: SharedReceiveQueueId) -> Result<(), RdmaError> {
        let pd = self.srqs.get(srq.0).map(|s| s.pd);
        unused(&mut self.srqs, srq.0, "shared receive queue", |s| s.users)?;
        if let Some(pd) = pd {
            let users = self.domain(ProtectionDomainId(pd))?;
            *users = users.saturating_sub(1);
        }
        Ok(())
    }

    fn post_srq_recv(
        &mut self,
        srq: SharedReceiveQueueId,
        batch: &[RecvRequest<'_>],
    ) -> Result<(), PostError> {
        each(batch, |request| {
            let queue = self.srqs.get_mut(srq.0);
            let queue = queue.ok_or(RdmaError::Unknown("shared receive queue"))?;
            queue.queue.post(request)
        })
    }

    fn create_qp(
        &mut self,
        pd: ProtectionDomainId,
        attr: &QpInitAttr,
    ) -> Result<QueuePair, RdmaError> {
        attr.cap.check(&self.config.attr)?;
        self.domain(pd)?;
        for cq in [attr.send_cq, attr.recv_cq] {
            let found = self.cqs.get(cq.0);
            found.ok_or(RdmaError::Unknown("completion queue"))?;
        }
        let mut max_sge = attr.cap.max_recv_sge;
        if let Some(srq) = attr.srq {
            let shared = self.srqs.get(srq.0);
            let shared = shared.ok_or(RdmaError::Unknown("shared receive queue"))?;
            max_sge = shared.queue.max_sge() as u32;
        }
        full(&self.qps, "queue pairs")?;
        let (qpn, psn) = (self.draw_qpn(), self.draw_psn());
        let made = self.qps.insert(Qp::new(qpn, psn, pd.0, attr, max_sge));
        let key = made.map_err(|_| RdmaError::Unknown("queue pair"))?;
        if let Some(qp) = self.qps.get_mut(key) {
            qp.key = key;
        }
        self.qpns.insert(qpn, key);
        let srq = attr.srq.map(|s| s.0);
        self.count_users(pd.0, [attr.send_cq.0, attr.recv_cq.0], srq, true);
        let id = QueuePairId(key);
        Ok(QueuePair { id, qpn, psn })
    }

    fn modify_to_init(&mut self, qp: QueuePairId, attr: &InitAttr) -> Result<(), RdmaError> {
        self.may_become(qp, QpState::Init)?;
        self.change(qp, |qp, _| qp.enter_init(attr))
    }

    fn modify_to_rtr(&mut self, qp: QueuePairId, attr: &RtrAttr) -> Result<(), RdmaError> {
        self.may_become(qp, QpState::Rtr)?;
        attr.check(&self.config.attr)?;
        let local = self.address(attr.av.sgid_index)?;
        let remote = SocketAddr::new(attr.av.dgid.ip(), attr.av.udp_port);
        if remote.is_ipv4() != local.addr.is_ipv4() {
            return Err(RdmaError::PeerAttribute {
                name: "GID",
                value: 0,
                allowed: "of another address family than our own",
            });
        }
        let addresses = FourTuple::new(local.addr, remote);
        let direct = self.direct.join(addresses, local.socket);
        let connected = self.direct.socket().filter(|_| direct);
        let path = Path {
            socket: connected.unwrap_or(local.socket),
            direct,
            addresses,
            mtu: attr.path_mtu.bytes() as u32,
            dest_qpn: attr.dest_qpn,
            sent: Icrc::new(local.addr, remote),
            received: Icrc::new(remote, local.addr),
            taken: None,
        };
        self.change(qp, |qp, _| qp.enter_rtr(attr, path))
    }

    fn modify_to_rts(&mut self, qp: QueuePairId, attr: &RtsAttr) -> Result<(), RdmaError> {
        self.may_become(qp, QpState::Rts)?;
        attr.check(&self.config.attr)?;
        self.change(qp, |qp, _| qp.enter_rts(attr))
    }

    fn modify_to_err(&mut self, qp: QueuePairId) -> Result<(), RdmaError> {
        self.change(qp, |qp, ctx| qp.enter_err(ctx))
    }

    fn modify_to_reset(&mut self, qp: QueuePairId) -> Result<(), RdmaError> {
        let path = self.change(qp, |qp, _| qp.reset())?;
        self.part_with(path);
        Ok(())
    }

    fn query_qp(&self, qp: QueuePairId) -> Result<QpState, RdmaError> {
        let found = self.qps.get(qp.0).map(|qp| qp.state);
        found.ok_or(RdmaError::Unknown("queue pair"))
    }

    fn destroy_qp(&mut self, qp: QueuePairId) -> Result<(), RdmaError> {
        let gone = self.qps.remove(qp.0);
        let gone = gone.ok_or(RdmaError::Unknown("queue pair"))?;
        self.forget(gone.qpn);
        self.part_with(gone.path);
        self.psns.remove(&gone.drawn_psn);
        self.lists.busy -= usize::from(gone.busy);
        self.count_users(gone.pd, [gone.send_cq, gone.recv_cq], gone.srq, false);
        Ok(())
    }

    fn post_send(&mut self, qp: QueuePairId, batch: &[SendRequest<'_>]) -> Result<(), PostError> {
        let max_message = self.config.attr.max_msg_sz;
        let posted = self.with_qp(qp, |qp, ctx| {
            let posted = each(batch, |request| qp.post_send(ctx, request, max_message));
            qp.settle(ctx);
            posted
        });
        posted.unwrap_or_else(unknown_qp)
    }

    fn post_recv(&mut self, qp: QueuePairId, batch: &[RecvRequest<'_>]) -> Result<(), PostError> {
        let posted = self.with_qp(qp, |qp, ctx| {
            each(batch, |request| qp.post_recv(ctx, request))
        });
        posted.unwrap_or_else(unknown_qp)
    }

    fn get_async_event(&mut self) -> Option<AsyncEvent> {
        self.events.pop()
    }
}

#[inline]
fn range_of(offset: u64, len: usize) -> Option<std::ops::Range<usize>> {
    let begin = usize::try_from(offset).ok()?;
    Some(begin..begin.checked_add(len)?)
}

#[cold]
fn out_of_range(offset: u64, len: usize, region: usize) -> RdmaError {
    RdmaError::OutOfRange {
        offset,
        len: len as u64,
        region: region as u64,
    }
}
