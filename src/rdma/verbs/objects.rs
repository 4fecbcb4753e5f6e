//! The device under verbs' names. Each call checks what can be checked here first, so that one that
//! fails changes nothing and says the same as it does with every other provider.

use super::context::{Kind, Target};
use super::device::{Completing, Counted, Device, Pair, Region, Shared, takes_port};
use super::ffi;
use super::memory::Bytes;
use super::requests::{attribute, check, fill_recvs, translate};
use super::tags::{Queue, Recvs, Sends, unpack};
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
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;

/// Bytes that are locked in memory at a time.
const PAGE: usize = 4096;

const NO_QP: RdmaError = RdmaError::Unknown("queue pair");
const NO_CQ: RdmaError = RdmaError::Unknown("completion queue");
const NO_SRQ: RdmaError = RdmaError::Unknown("shared receive queue");
const NO_PD: RdmaError = RdmaError::Unknown("protection domain");
const NO_MR: RdmaError = RdmaError::Unknown("memory region");

fn in_range(name: &'static str, value: u32, max: u32) -> Result<(), RdmaError> {
    match (1..=max).contains(&value) {
        true => Ok(()),
        false => attribute(
            name,
            value.into(),
            "at least 1, at most what the device can",
        ),
    }
}

/// An object may go once nothing but its table has it.
fn unused<T>(object: &Arc<T>, what: &'static str) -> Result<(), RdmaError> {
    match (Arc::strong_count(object) - 1) as u32 {
        0 => Ok(()),
        users => Err(RdmaError::Busy { what, users }),
    }
}

/// The tables are as long as the device's limits, which are claimed before.
fn insert<T>(table: &mut Slots<T>, what: &'static str, object: T) -> Result<Key, RdmaError> {
    let limit = table.limit() as u64;
    table
        .insert(object)
        .map_err(|_| RdmaError::Limit { what, limit })
}

impl Device {
    fn pair(&self, qp: QueuePairId) -> Result<&Pair, RdmaError> {
        self.qps.get(qp.0).ok_or(NO_QP)
    }

    /// Checks that a queue pair may go on to `next`.
    fn may_become(
        &self,
        qp: QueuePairId,
        next: QpState,
        call: &'static str,
        allowed: &'static str,
    ) -> Result<&Pair, RdmaError> {
        let pair = self.pair(qp)?;
        let state = pair.state;
        match state.may_become(next) {
            true => Ok(pair),
            false => Err(RdmaError::State {
                call,
                state,
                allowed,
            }),
        }
    }

    fn entered(&mut self, qp: QueuePairId, state: QpState) {
        if let Some(pair) = self.qps.get_mut(qp.0) {
            pair.state = state;
        }
    }

    fn pd(&self, pd: ProtectionDomainId) -> Result<&Arc<ffi::Pd>, RdmaError> {
        Ok(&self.domains.get(pd.0).ok_or(NO_PD)?.object)
    }

    fn cq(&self, cq: CompletionQueueId) -> Result<&Arc<ffi::Cq>, RdmaError> {
        Ok(&self.cqs.get(cq.0).ok_or(NO_CQ)?.cq.object)
    }

    /// Moves completions from a queue to `keep`, until `enough`; those of no live queue pair go.
    fn drain(
        &mut self,
        cq: Key,
        mut enough: impl FnMut() -> usize,
        mut keep: impl FnMut(Completion),
    ) -> Result<(), RdmaError> {
        let queue = self.cqs.get(cq).ok_or(NO_CQ)?.cq.object.clone();
        loop {
            let want = enough();
            let (qps, srqs, qpns) = (&mut self.qps, &mut self.srqs, &self.qpns);
            let got = queue.poll(want, |wc| {
                let key = qpns.get(&wc.qpn).copied();
                if let Some(completion) = translate(qps, srqs, key, wc) {
                    keep(completion);
                }
            })?;
            if got == 0 {
                return Ok(());
            }
        }
    }

    /// Takes all completions off a queue. Those that a queue pair left must not be there any more
    /// when its number is another's.
    fn keep_completions(&mut self, cq: Key) {
        let mut kept = VecDeque::new();
        if let Err(error) = self.drain(cq, || usize::MAX, |c| kept.push_back(c)) {
            tracing::error!(%error, "a completion queue cannot be read");
        }
        if let Some(queue) = self.cqs.get_mut(cq) {
            queue.kept.append(&mut kept);
        }
    }
}

impl Provider for Device {
    fn query_device(&self) -> DeviceAttr {
        self.context().attr
    }

    fn objects(&self) -> Objects {
        Objects {
            domains: self.domains.len(),
            regions: self.regions.len(),
            registered: self.registered,
            completion_queues: self.cqs.len(),
            shared_receive_queues: self.srqs.len(),
            queue_pairs: self.qps.len(),
        }
    }

    fn alloc_pd(&mut self) -> Result<ProtectionDomainId, RdmaError> {
        let claim = self.context().claim(Kind::Domains, 1)?;
        let object = Arc::new(ffi::Pd::new(&self.context().raw)?);
        let counted = Counted {
            object,
            _claim: claim,
        };
        insert(&mut self.domains, "protection domains", counted).map(ProtectionDomainId)
    }

    fn dealloc_pd(&mut self, pd: ProtectionDomainId) -> Result<(), RdmaError> {
        unused(self.pd(pd)?, "protection domain")?;
        let gone = self.domains.remove(pd.0).ok_or(NO_PD)?;
        Arc::into_inner(gone.object).map_or(Ok(()), ffi::Pd::close)
    }

    fn reg_mr(
        &mut self,
        pd: ProtectionDomainId,
        len: usize,
        access: Access,
    ) -> Result<MemoryRegion, RdmaError> {
        let pd = self.pd(pd)?.clone();
        let max = self.context().attr.max_mr_size;
        if len as u64 > max {
            let (what, limit) = ("bytes in one region", max);
            return Err(RdmaError::Limit { what, limit });
        }
        if access.remote_changes() && !access.has(Access::LOCAL_WRITE) {
            let allowed = "remote write and atomic need local write";
            return attribute("access", 0, allowed);
        }
        let claims = [
            self.context().claim(Kind::Regions, 1)?,
            // A page is locked as a whole.
            self.context()
                .claim(Kind::Bytes, len.next_multiple_of(PAGE) as u64)?,
        ];
        let addr = self.draw_addr();
        let mr = ffi::Mr::new(&pd, Bytes::new(len)?, addr, access)?;
        let (lkey, rkey) = mr.keys();
        let region = Region { mr, len, claims };
        let id = insert(&mut self.regions, "memory regions", region)?;
        self.registered += len;
        Ok(MemoryRegion {
            id: MemoryRegionId(id),
            addr,
            len,
            lkey,
            rkey,
        })
    }

    fn dereg_mr(&mut self, mr: MemoryRegionId) -> Result<(), RdmaError> {
        let gone = self.regions.remove(mr.0).ok_or(NO_MR)?;
        self.registered -= gone.len;
        let Region { mr, claims, .. } = gone;
        let ended = mr.close();
        drop(claims);
        ended
    }

    fn read(&self, mr: MemoryRegionId, offset: u64, into: &mut [u8]) -> Result<(), RdmaError> {
        let region = self.regions.get(mr.0).and_then(|r| r.mr.bytes());
        region.ok_or(NO_MR)?.read(offset, into)
    }

    fn write(&mut self, mr: MemoryRegionId, offset: u64, from: &[u8]) -> Result<(), RdmaError> {
        let region = self.regions.get(mr.0).and_then(|r| r.mr.bytes());
        region.ok_or(NO_MR)?.write(offset, from)
    }

    fn create_cq(&mut self, cqe: u32) -> Result<CompletionQueueId, RdmaError> {
        in_range("cqe", cqe, self.context().attr.max_cqe)?;
        let claim = self.context().claim(Kind::CompletionQueues, 1)?;
        let object = Arc::new(ffi::Cq::new(&self.channel, cqe)?);
        let address = object.address();
        let queue = Completing {
            cq: Counted {
                object,
                _claim: claim,
            },
            kept: VecDeque::new(),
        };
        let id = CompletionQueueId(insert(&mut self.cqs, "completion queues", queue)?);
        self.member.add(address, Target::Cq(id));
        Ok(id)
    }

    fn destroy_cq(&mut self, cq: CompletionQueueId) -> Result<(), RdmaError> {
        unused(self.cq(cq)?, "completion queue")?;
        let gone = self.cqs.remove(cq.0).ok_or(NO_CQ)?.cq;
        self.member.remove(gone.object.address());
        Arc::into_inner(gone.object).map_or(Ok(()), ffi::Cq::close)
    }

    fn poll_cq(
        &mut self,
        cq: CompletionQueueId,
        into: &mut [Completion],
    ) -> Result<usize, RdmaError> {
        let max = into.len();
        let (mut places, filled) = (into.iter_mut(), Cell::new(0));
        let mut fill = |completion| {
            if let Some(place) = places.next() {
                *place = completion;
                filled.set(filled.get() + 1);
            }
        };
        let kept = &mut self.cqs.get_mut(cq.0).ok_or(NO_CQ)?.kept;
        let live = |c: &Completion| self.qps.get(c.qp.0).is_some();
        while filled.get() < max
            && let Some(completion) = kept.pop_front()
        {
            if live(&completion) {
                fill(completion);
            }
        }
        self.drain(cq.0, || max - filled.get(), fill)?;
        Ok(filled.get())
    }

    fn create_srq(
        &mut self,
        pd: ProtectionDomainId,
        max_wr: u32,
        max_sge: u32,
    ) -> Result<SharedReceiveQueueId, RdmaError> {
        in_range("max_wr", max_wr, self.context().attr.max_qp_wr)?;
        in_range("max_sge", max_sge, self.context().attr.max_sge)?;
        let claim = self.context().claim(Kind::SharedReceiveQueues, 1)?;
        let object = Arc::new(ffi::Srq::new(self.pd(pd)?, max_wr, max_sge)?);
        let address = object.address();
        let shared = Shared {
            srq: Counted {
                object,
                _claim: claim,
            },
            pd: pd.0,
            recvs: Recvs::new(max_wr),
            max_sge: max_sge as usize,
        };
        let key = insert(&mut self.srqs, "shared receive queues", shared)?;
        let id = SharedReceiveQueueId(key);
        self.member.add(address, Target::Srq(id));
        Ok(id)
    }

    fn arm_srq(&mut self, srq: SharedReceiveQueueId, limit: u32) -> Result<(), RdmaError> {
        self.srqs.get(srq.0).ok_or(NO_SRQ)?.srq.object.arm(limit)
    }

    fn destroy_srq(&mut self, srq: SharedReceiveQueueId) -> Result<(), RdmaError> {
        let shared = self.srqs.get(srq.0).ok_or(NO_SRQ)?;
        unused(&shared.srq.object, "shared receive queue")?;
        let gone = self.srqs.remove(srq.0).ok_or(NO_SRQ)?.srq;
        self.member.remove(gone.object.address());
        Arc::into_inner(gone.object).map_or(Ok(()), ffi::Srq::close)
    }

    fn post_srq_recv(
        &mut self,
        srq: SharedReceiveQueueId,
        batch: &[RecvRequest<'_>],
    ) -> Result<(), PostError> {
        let whole = |error| PostError { index: 0, error };
        let shared = self.srqs.get_mut(srq.0).ok_or(whole(NO_SRQ))?;
        let queue = Queue::Srq(srq.0.slot);
        let (scratch, recvs) = (&mut self.scratch, &mut shared.recvs);
        let filled = fill_recvs(scratch, recvs, shared.max_sge, queue, batch);
        let (posted, ended) = shared.srq.object.post_recv(scratch);
        scratch.unposted(posted, |tag| {
            recvs.complete(unpack(tag).1);
        });
        ended.map_err(|error| PostError {
            index: posted,
            error,
        })?;
        filled
    }

    fn create_qp(
        &mut self,
        pd: ProtectionDomainId,
        attr: &QpInitAttr,
    ) -> Result<QueuePair, RdmaError> {
        attr.cap.check(&self.context().attr)?;
        let claim = self.context().claim(Kind::QueuePairs, 1)?;
        let domain = self.pd(pd)?;
        let (send_cq, recv_cq) = (self.cq(attr.send_cq)?, self.cq(attr.recv_cq)?);
        let shared = attr.srq.map(|srq| self.srqs.get(srq.0).ok_or(NO_SRQ));
        let shared = shared.transpose()?;
        if shared.is_some_and(|s| s.pd != pd.0) {
            return Err(RdmaError::ForeignDomain("shared receive queue"));
        }
        let qp = ffi::Qp::new(&ffi::QpParts {
            pd: domain,
            send_cq,
            recv_cq,
            srq: shared.map(|s| &s.srq.object),
            cap: attr.cap,
            sq_sig_all: attr.sq_sig_all,
        })?;
        let own_receives = match shared {
            Some(_) => 0,
            None => attr.cap.max_recv_wr,
        };
        let psn = self.context().clone().draw_psn(&mut self.rng);
        let (address, qpn, number) = (qp.address(), qp.qpn(), psn.number);
        let pair = Pair {
            qp,
            _claim: claim,
            _psn: psn,
            state: QpState::Reset,
            cqs: [attr.send_cq.0, attr.recv_cq.0],
            srq: attr.srq.map(|s| s.0),
            sends: Sends::new(attr.cap.max_send_wr),
            recvs: Recvs::new(own_receives),
            max_send_sge: attr.cap.max_send_sge as usize,
            max_recv_sge: attr.cap.max_recv_sge as usize,
            max_inline: attr.cap.max_inline_data as usize,
        };
        let id = QueuePairId(insert(&mut self.qps, "queue pairs", pair)?);
        self.qpns.insert(qpn, id.0);
        self.member.add(address, Target::Qp(id));
        Ok(QueuePair {
            id,
            qpn,
            psn: number,
        })
    }

    fn modify_to_init(&mut self, qp: QueuePairId, attr: &InitAttr) -> Result<(), RdmaError> {
        let pair = self.may_become(qp, QpState::Init, "modify_to_init", "Reset")?;
        pair.qp.to_init(attr)?;
        self.entered(qp, QpState::Init);
        Ok(())
    }

    fn modify_to_rtr(&mut self, qp: QueuePairId, attr: &RtrAttr) -> Result<(), RdmaError> {
        let pair = self.may_become(qp, QpState::Rtr, "modify_to_rtr", "Init")?;
        attr.check(&self.context().attr)?;
        let ours = self.context().gid(attr.av.sgid_index)?;
        if ours.ip().is_ipv4() != attr.av.dgid.ip().is_ipv4() {
            return Err(RdmaError::PeerAttribute {
                name: "GID",
                value: 0,
                allowed: "of our own address family",
            });
        }
        takes_port(attr.av.udp_port)?;
        pair.qp.to_rtr(attr)?;
        self.entered(qp, QpState::Rtr);
        Ok(())
    }

    fn modify_to_rts(&mut self, qp: QueuePairId, attr: &RtsAttr) -> Result<(), RdmaError> {
        let pair = self.may_become(qp, QpState::Rts, "modify_to_rts", "Rtr")?;
        attr.check(&self.context().attr)?;
        pair.qp.to_rts(attr)?;
        self.entered(qp, QpState::Rts);
        Ok(())
    }

    fn modify_to_err(&mut self, qp: QueuePairId) -> Result<(), RdmaError> {
        let pair = self.pair(qp)?;
        if pair.state == QpState::Reset {
            // The kernel knows no such step; nothing is posted, and nobody is told who we are.
            let access = Access::NONE;
            pair.qp.to_init(&InitAttr { access })?;
        }
        pair.qp.to_err()?;
        self.entered(qp, QpState::Err);
        Ok(())
    }

    fn modify_to_reset(&mut self, qp: QueuePairId) -> Result<(), RdmaError> {
        let pair = self.qps.get_mut(qp.0).ok_or(NO_QP)?;
        pair.qp.to_reset()?;
        pair.state = QpState::Reset;
        pair.sends.clear();
        pair.recvs.clear();
        Ok(())
    }

    fn query_qp(&self, qp: QueuePairId) -> Result<QpState, RdmaError> {
        self.pair(qp)?.qp.state()
    }

    fn destroy_qp(&mut self, qp: QueuePairId) -> Result<(), RdmaError> {
        let gone = self.qps.remove(qp.0).ok_or(NO_QP)?;
        self.qpns.remove(&gone.qp.qpn());
        self.member.remove(gone.qp.address());
        let closed = gone.qp.close();
        let [send, recv] = gone.cqs;
        self.keep_completions(send);
        if recv != send {
            self.keep_completions(recv);
        }
        closed
    }

    fn post_send(&mut self, qp: QueuePairId, batch: &[SendRequest<'_>]) -> Result<(), PostError> {
        let max_message = self.context().attr.max_msg_sz;
        let whole = |error| PostError { index: 0, error };
        let pair = self.qps.get_mut(qp.0).ok_or(whole(NO_QP))?;
        let state = pair.state;
        if !matches!(state, QpState::Rts | QpState::Err) {
            let (call, allowed) = ("post_send", "Rts");
            return Err(whole(RdmaError::State {
                call,
                state,
                allowed,
            }));
        }
        self.scratch.clear();
        let (mut filled, mut taken) = (Ok(()), 0);
        for (index, request) in batch.iter().enumerate() {
            let len = check(pair, request, max_message);
            match len.and_then(|len| pair.sends.add(request, len)) {
                // SAFETY: inline data is the batch's, which outlives the post below.
                Ok(tag) => unsafe { self.scratch.send(tag, request) },
                Err(error) => {
                    filled = Err(PostError { index, error });
                    break;
                }
            }
            taken += 1;
        }
        let (posted, ended) = pair.qp.post_send(&mut self.scratch);
        pair.sends.undo(taken - posted);
        ended.map_err(|error| PostError {
            index: posted,
            error,
        })?;
        filled
    }

    fn post_recv(&mut self, qp: QueuePairId, batch: &[RecvRequest<'_>]) -> Result<(), PostError> {
        let whole = |error| PostError { index: 0, error };
        let pair = self.qps.get_mut(qp.0).ok_or(whole(NO_QP))?;
        if pair.srq.is_some() {
            return Err(whole(RdmaError::SharedReceives));
        }
        let state = pair.state;
        if state == QpState::Reset {
            let (call, allowed) = ("post_recv", "Init, Rtr and Rts");
            return Err(whole(RdmaError::State {
                call,
                state,
                allowed,
            }));
        }
        let (scratch, recvs) = (&mut self.scratch, &mut pair.recvs);
        let filled = fill_recvs(scratch, recvs, pair.max_recv_sge, Queue::Recv, batch);
        let (posted, ended) = pair.qp.post_recv(scratch);
        scratch.unposted(posted, |tag| {
            recvs.complete(unpack(tag).1);
        });
        if state == QpState::Err && posted > 0 {
            // Some drivers look at the queue of one in error only when they are told so again.
            pair.qp.to_err().map_err(whole)?;
        }
        ended.map_err(|error| PostError {
            index: posted,
            error,
        })?;
        filled
    }

    fn get_async_event(&mut self) -> Option<AsyncEvent> {
        self.member.take_event()
    }
}
