//! RoCE v2 in user space: the reliable-connected transport of InfiniBand over UDP datagrams.
//!
//! A [`Device`] is one shard's. It owns the registered memory, so a peer's WRITE and the
//! application's look at it are borrows of one owner and never race: no locks, no atomics, no
//! `unsafe`. Its caller moves the datagrams, and tells the time.
//!
//! IPv6 packets are verified in full. Of IPv4 packets a socket hides one field that the ICRC
//! covers; [`wire::icrc`] says what is verified then.

use super::attr::{DeviceAttr, Mtu};
use crate::base::limits;

mod config;
mod device;
mod direct;
mod gather;
mod lists;
mod memory;
mod objects;
mod port;
mod qp;
mod queues;
mod stats;
mod timers;
pub mod wire;

pub use config::{Config, Identification, LocalAddress, PORT};
pub use device::Device;
pub use stats::Stats;

/// What every device of this provider can do, unless configured to do less.
pub const DEVICE_ATTR: DeviceAttr = DeviceAttr {
    max_qp: limits::RDMA_QUEUE_PAIRS as u32,
    max_qp_wr: limits::RDMA_WORK_REQUESTS as u32,
    max_sge: limits::RDMA_SGES as u32,
    max_inline_data: limits::RDMA_INLINE_BYTES as u32,
    max_cq: limits::RDMA_QUEUES as u32,
    max_cqe: limits::RDMA_CQ_ENTRIES as u32,
    max_mr: limits::RDMA_REGIONS as u32,
    max_mr_size: limits::RDMA_REGION_BYTES as u64,
    max_registered: limits::RDMA_REGISTERED_BYTES as u64,
    max_pd: limits::RDMA_DOMAINS as u32,
    max_srq: limits::RDMA_QUEUES as u32,
    max_qp_rd_atom: limits::RDMA_READ_ATOMIC,
    max_msg_sz: limits::RDMA_MESSAGE_BYTES as u32,
    max_mtu: Mtu::Mtu4096,
};
