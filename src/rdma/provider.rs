//! The interface that each provider of queue pairs serves: libibverbs' calls under libibverbs'
//! names, with IDs for pointers.
//!
//! Calls neither block nor read a clock. Every object names those it stands on, and a device keeps
//! count: what others use cannot be removed, so a teardown in the wrong order is an error and not a
//! dangling pointer.

use super::access::Access;
use super::attr::{DeviceAttr, InitAttr, QpInitAttr, QpState, RtrAttr, RtsAttr};
use super::completion::Completion;
use super::error::{PostError, RdmaError};
use super::event::AsyncEvent;
use super::ids::{
    CompletionQueueId, MemoryRegionId, ProtectionDomainId, QueuePairId, SharedReceiveQueueId,
};
use super::work::{MemoryRegion, RecvRequest, SendRequest};

/// Live objects of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    /// Protection domains.
    pub domains: usize,
    /// Memory regions.
    pub regions: usize,
    /// Bytes of them.
    pub registered: usize,
    /// Completion queues.
    pub completion_queues: usize,
    /// Shared receive queues.
    pub shared_receive_queues: usize,
    /// Queue pairs.
    pub queue_pairs: usize,
}

impl Objects {
    /// Those of another device as well.
    pub(crate) fn add(&mut self, more: &Self) {
        self.domains += more.domains;
        self.regions += more.regions;
        self.registered += more.registered;
        self.completion_queues += more.completion_queues;
        self.shared_receive_queues += more.shared_receive_queues;
        self.queue_pairs += more.queue_pairs;
    }
}

/// A queue pair as created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuePair {
    /// Its name here.
    pub id: QueuePairId,
    /// Its number for the peer, 24 bits.
    pub qpn: u32,
    /// A packet sequence number to begin with, 24 bits: random, and no other live queue pair's.
    pub psn: u32,
}

/// One device, or one shard's share of it.
pub trait Provider {
    /// What it can do.
    fn query_device(&self) -> DeviceAttr;
    /// What it has.
    fn objects(&self) -> Objects;

    /// A new protection domain.
    fn alloc_pd(&mut self) -> Result<ProtectionDomainId, RdmaError>;
    /// Removes one that nothing is in.
    fn dealloc_pd(&mut self, pd: ProtectionDomainId) -> Result<(), RdmaError>;

    /// Maps and registers `len` zeroed bytes.
    fn reg_mr(
        &mut self,
        pd: ProtectionDomainId,
        len: usize,
        access: Access,
    ) -> Result<MemoryRegion, RdmaError>;
    /// Removes a region at once. Requests that still name it fail.
    fn dereg_mr(&mut self, mr: MemoryRegionId) -> Result<(), RdmaError>;
    /// Copies out of a region.
    fn read(&self, mr: MemoryRegionId, offset: u64, into: &mut [u8]) -> Result<(), RdmaError>;
    /// Copies into a region.
    fn write(&mut self, mr: MemoryRegionId, offset: u64, from: &[u8]) -> Result<(), RdmaError>;

    /// A completion queue of `cqe` entries.
    fn create_cq(&mut self, cqe: u32) -> Result<CompletionQueueId, RdmaError>;
    /// Removes one that no queue pair uses.
    fn destroy_cq(&mut self, cq: CompletionQueueId) -> Result<(), RdmaError>;
    /// Moves the oldest completions to `into`; how many.
    fn poll_cq(
        &mut self,
        cq: CompletionQueueId,
        into: &mut [Completion],
    ) -> Result<usize, RdmaError>;

    /// A receive queue for many queue pairs of one domain.
    fn create_srq(
        &mut self,
        pd: ProtectionDomainId,
        max_wr: u32,
        max_sge: u32,
    ) -> Result<SharedReceiveQueueId, RdmaError>;
    /// Arms [`AsyncEvent::SrqLimitReached`]: once fewer than `limit` requests wait; 0 disarms.
    fn arm_srq(&mut self, srq: SharedReceiveQueueId, limit: u32) -> Result<(), RdmaError>;
    /// Removes one that no queue pair uses.
    fn destroy_srq(&mut self, srq: SharedReceiveQueueId) -> Result<(), RdmaError>;
    /// Adds receives, in this order.
    fn post_srq_recv(
        &mut self,
        srq: SharedReceiveQueueId,
        batch: &[RecvRequest<'_>],
    ) -> Result<(), PostError>;

    /// A reliable-connected queue pair in RESET.
    fn create_qp(
        &mut self,
        pd: ProtectionDomainId,
        attr: &QpInitAttr,
    ) -> Result<QueuePair, RdmaError>;
    /// RESET → INIT.
    fn modify_to_init(&mut self, qp: QueuePairId, attr: &InitAttr) -> Result<(), RdmaError>;
    /// INIT → RTR.
    fn modify_to_rtr(&mut self, qp: QueuePairId, attr: &RtrAttr) -> Result<(), RdmaError>;
    /// RTR → RTS.
    fn modify_to_rts(&mut self, qp: QueuePairId, attr: &RtsAttr) -> Result<(), RdmaError>;
    /// Any state → ERR: what is posted is flushed.
    fn modify_to_err(&mut self, qp: QueuePairId) -> Result<(), RdmaError>;
    /// Any state → RESET: what is posted is forgotten.
    fn modify_to_reset(&mut self, qp: QueuePairId) -> Result<(), RdmaError>;
    /// Its state.
    fn query_qp(&self, qp: QueuePairId) -> Result<QpState, RdmaError>;
    /// Removes it with what is posted, without completions.
    fn destroy_qp(&mut self, qp: QueuePairId) -> Result<(), RdmaError>;
    /// Adds requests to the send queue, in this order. Possible in RTS; in ERR they are flushed.
    fn post_send(&mut self, qp: QueuePairId, batch: &[SendRequest<'_>]) -> Result<(), PostError>;
    /// Adds receives, in this order. Possible but in RESET; in ERR they are flushed.
    fn post_recv(&mut self, qp: QueuePairId, batch: &[RecvRequest<'_>]) -> Result<(), PostError>;

    /// The oldest asynchronous event.
    fn get_async_event(&mut self) -> Option<AsyncEvent>;
}
