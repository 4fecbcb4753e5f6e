//! A device of either provider, chosen when the program runs.

use super::access::Access;
use super::attr::{DeviceAttr, InitAttr, QpInitAttr, QpState, RtrAttr, RtsAttr};
use super::bootstrap::QueueTerms;
use super::completion::Completion;
use super::error::{PostError, RdmaError};
use super::event::AsyncEvent;
use super::ids::{
    CompletionQueueId, Gid, MemoryRegionId, ProtectionDomainId, QueuePairId, SharedReceiveQueueId,
};
use super::port::{Port, SocketChange, Usage, WakeFor};
use super::provider::{Objects, Provider, QueuePair};
use super::roce;
#[cfg(feature = "rdma-verbs")]
use super::verbs;
use super::work::{MemoryRegion, RecvRequest, SendRequest};
use crate::base::{RecvMeta, SocketId, Timestamp, Transmit};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

/// One shard's share of a device, whoever provides it.
#[derive(Debug)]
pub enum AnyDevice {
    /// RoCE v2 in user space.
    Roce(Box<roce::Device>),
    /// A device of the kernel's.
    #[cfg(feature = "rdma-verbs")]
    Verbs(Box<verbs::Device>),
}

impl AnyDevice {
    /// The device, where it is one in user space.
    pub const fn as_roce(&self) -> Option<&roce::Device> {
        match self {
            Self::Roce(d) => Some(d),
            #[cfg(feature = "rdma-verbs")]
            Self::Verbs(_) => None,
        }
    }
}

impl From<roce::Device> for AnyDevice {
    fn from(device: roce::Device) -> Self {
        Self::Roce(Box::new(device))
    }
}

#[cfg(feature = "rdma-verbs")]
impl From<verbs::Device> for AnyDevice {
    fn from(device: verbs::Device) -> Self {
        Self::Verbs(Box::new(device))
    }
}

macro_rules! each {
    ($any:expr, $device:ident => $call:expr) => {
        match $any {
            AnyDevice::Roce($device) => $call,
            #[cfg(feature = "rdma-verbs")]
            AnyDevice::Verbs($device) => $call,
        }
    };
}

impl Provider for AnyDevice {
    fn query_device(&self) -> DeviceAttr {
        each!(self, d => Provider::query_device(&**d))
    }
    fn objects(&self) -> Objects {
        each!(self, d => Provider::objects(&**d))
    }
    fn alloc_pd(&mut self) -> Result<ProtectionDomainId, RdmaError> {
        each!(self, d => Provider::alloc_pd(&mut **d))
    }
    fn dealloc_pd(&mut self, pd: ProtectionDomainId) -> Result<(), RdmaError> {
        each!(self, d => Provider::dealloc_pd(&mut **d, pd))
    }
    fn reg_mr(
        &mut self,
        pd: ProtectionDomainId,
        len: usize,
        access: Access,
    ) -> Result<MemoryRegion, RdmaError> {
        each!(self, d => Provider::reg_mr(&mut **d, pd, len, access))
    }
    fn dereg_mr(&mut self, mr: MemoryRegionId) -> Result<(), RdmaError> {
        each!(self, d => Provider::dereg_mr(&mut **d, mr))
    }
    #[inline]
    fn read(&self, mr: MemoryRegionId, offset: u64, into: &mut [u8]) -> Result<(), RdmaError> {
        each!(self, d => Provider::read(&**d, mr, offset, into))
    }
    #[inline]
    fn write(&mut self, mr: MemoryRegionId, offset: u64, from: &[u8]) -> Result<(), RdmaError> {
        each!(self, d => Provider::write(&mut **d, mr, offset, from))
    }
    fn create_cq(&mut self, cqe: u32) -> Result<CompletionQueueId, RdmaError> {
        each!(self, d => Provider::create_cq(&mut **d, cqe))
    }
    fn destroy_cq(&mut self, cq: CompletionQueueId) -> Result<(), RdmaError> {
        each!(self, d => Provider::destroy_cq(&mut **d, cq))
    }
    #[inline]
    fn poll_cq(
        &mut self,
        cq: CompletionQueueId,
        into: &mut [Completion],
    ) -> Result<usize, RdmaError> {
        each!(self, d => Provider::poll_cq(&mut **d, cq, into))
    }
    fn create_srq(
        &mut self,
        pd: ProtectionDomainId,
        max_wr: u32,
        max_sge: u32,
    ) -> Result<SharedReceiveQueueId, RdmaError> {
        each!(self, d => Provider::create_srq(&mut **d, pd, max_wr, max_sge))
    }
    fn arm_srq(&mut self, srq: SharedReceiveQueueId, limit: u32) -> Result<(), RdmaError> {
        each!(self, d => Provider::arm_srq(&mut **d, srq, limit))
    }
    fn destroy_srq(&mut self, srq: SharedReceiveQueueId) -> Result<(), RdmaError> {
        each!(self, d => Provider::destroy_srq(&mut **d, srq))
    }
    #[inline]
    fn post_srq_recv(
        &mut self,
        srq: SharedReceiveQueueId,
        batch: &[RecvRequest<'_>],
    ) -> Result<(), PostError> {
        each!(self, d => Provider::post_srq_recv(&mut **d, srq, batch))
    }
    fn create_qp(
        &mut self,
        pd: ProtectionDomainId,
        attr: &QpInitAttr,
    ) -> Result<QueuePair, RdmaError> {
        each!(self, d => Provider::create_qp(&mut **d, pd, attr))
    }
    fn modify_to_init(&mut self, qp: QueuePairId, attr: &InitAttr) -> Result<(), RdmaError> {
        each!(self, d => Provider::modify_to_init(&mut **d, qp, attr))
    }
    fn modify_to_rtr(&mut self, qp: QueuePairId, attr: &RtrAttr) -> Result<(), RdmaError> {
        each!(self, d => Provider::modify_to_rtr(&mut **d, qp, attr))
    }
    fn modify_to_rts(&mut self, qp: QueuePairId, attr: &RtsAttr) -> Result<(), RdmaError> {
        each!(self, d => Provider::modify_to_rts(&mut **d, qp, attr))
    }
    fn modify_to_err(&mut self, qp: QueuePairId) -> Result<(), RdmaError> {
        each!(self, d => Provider::modify_to_err(&mut **d, qp))
    }
    fn modify_to_reset(&mut self, qp: QueuePairId) -> Result<(), RdmaError> {
        each!(self, d => Provider::modify_to_reset(&mut **d, qp))
    }
    fn query_qp(&self, qp: QueuePairId) -> Result<QpState, RdmaError> {
        each!(self, d => Provider::query_qp(&**d, qp))
    }
    fn destroy_qp(&mut self, qp: QueuePairId) -> Result<(), RdmaError> {
        each!(self, d => Provider::destroy_qp(&mut **d, qp))
    }
    #[inline]
    fn post_send(&mut self, qp: QueuePairId, batch: &[SendRequest<'_>]) -> Result<(), PostError> {
        each!(self, d => Provider::post_send(&mut **d, qp, batch))
    }
    #[inline]
    fn post_recv(&mut self, qp: QueuePairId, batch: &[RecvRequest<'_>]) -> Result<(), PostError> {
        each!(self, d => Provider::post_recv(&mut **d, qp, batch))
    }
    #[inline]
    fn get_async_event(&mut self) -> Option<AsyncEvent> {
        each!(self, d => Provider::get_async_event(&mut **d))
    }
}

impl Port for AnyDevice {
    fn name(&self) -> &str {
        each!(self, d => Port::name(&**d))
    }
    fn moves_itself(&self) -> bool {
        each!(self, d => Port::moves_itself(&**d))
    }
    fn shares_receives(&self) -> bool {
        each!(self, d => Port::shares_receives(&**d))
    }
    fn splits_writes(&self) -> bool {
        each!(self, d => Port::splits_writes(&**d))
    }
    fn split_writes(&mut self, qp: QueuePairId) -> Result<(), RdmaError> {
        each!(self, d => Port::split_writes(&mut **d, qp))
    }
    fn prefers_inline(&self) -> bool {
        each!(self, d => Port::prefers_inline(&**d))
    }
    fn gid_of(&self, ip: IpAddr) -> Option<(u8, Gid, u16)> {
        each!(self, d => Port::gid_of(&**d, ip))
    }
    fn takes(&self, peer: &QueueTerms) -> Result<(), RdmaError> {
        each!(self, d => Port::takes(&**d, peer))
    }
    fn not_ready(&self) -> Option<u64> {
        each!(self, d => Port::not_ready(&**d))
    }
    fn is_shared(&self) -> bool {
        each!(self, d => Port::is_shared(&**d))
    }
    fn usage(&self) -> Vec<Usage> {
        each!(self, d => Port::usage(&**d))
    }
    #[inline]
    fn handle_train(&mut self, now: Timestamp, meta: &RecvMeta, train: &mut [u8]) {
        each!(self, d => Port::handle_train(&mut **d, now, meta, train))
    }
    #[inline]
    fn next_socket(&self) -> Option<SocketId> {
        each!(self, d => Port::next_socket(&**d))
    }
    #[inline]
    fn poll_transmit(&mut self, now: Timestamp, buf: &mut [u8]) -> Option<Transmit> {
        each!(self, d => Port::poll_transmit(&mut **d, now, buf))
    }
    #[inline]
    fn socket_change(&mut self) -> Option<SocketChange> {
        each!(self, d => Port::socket_change(&mut **d))
    }
    fn connected(&mut self, socket: Option<SocketId>) {
        each!(self, d => Port::connected(&mut **d, socket));
    }
    fn poll_gather(&mut self, now: Timestamp, buf: &mut [u8]) -> Option<Transmit> {
        each!(self, d => Port::poll_gather(&mut **d, now, buf))
    }
    #[inline]
    fn piece(&self, n: usize) -> Option<(usize, &[u8])> {
        each!(self, d => Port::piece(&**d, n))
    }
    #[inline]
    fn poll_timeout(&self) -> Timestamp {
        each!(self, d => Port::poll_timeout(&**d))
    }
    #[inline]
    fn handle_timeout(&mut self, now: Timestamp) {
        each!(self, d => Port::handle_timeout(&mut **d, now))
    }
    fn before_sleep(&mut self) -> bool {
        each!(self, d => Port::before_sleep(&mut **d))
    }
    fn wake_fds(&self) -> Vec<(WakeFor, BorrowedFd<'_>)> {
        each!(self, d => Port::wake_fds(&**d))
    }
    fn req_notify_cq(&mut self, cq: CompletionQueueId) -> Result<(), RdmaError> {
        each!(self, d => Port::req_notify_cq(&mut **d, cq))
    }
    fn ack_cq_events(&mut self) {
        each!(self, d => Port::ack_cq_events(&mut **d))
    }
}
