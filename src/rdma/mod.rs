//! RDMA: devices, protection domains, memory regions, completion queues and reliable-connected
//! queue pairs, under the names that verbs gives them.
//!
//! [`Provider`] is the interface. [`roce`] serves it in user space: RoCE v2 over UDP datagrams that
//! its caller sends and receives. [`verbs`] serves it with the kernel's devices. Nothing here knows
//! QUIC, a socket, a clock or a thread.
//!
//! **The data path is neither encrypted nor authenticated.** Who can see its packets can read and
//! forge them; a queue pair's numbers are hard to guess and nothing more.

mod access;
mod any;
pub mod attr;
pub mod bootstrap;
mod completion;
mod error;
mod event;
mod ids;
pub mod lane;
pub mod parts;
mod port;
mod provider;
pub mod quota;
pub mod registry;
pub mod roce;
mod room;
pub(crate) mod slots;
pub mod verbs;
mod work;

pub use access::Access;
pub use any::AnyDevice;
pub use attr::{
    AddressVector, DeviceAttr, InitAttr, Mtu, QpCap, QpInitAttr, QpState, RtrAttr, RtsAttr,
};
pub use completion::{Completion, CompletionOpcode, Status};
pub use error::{Blame, PostError, RdmaError};
pub use event::AsyncEvent;
pub use ids::{
    CompletionQueueId, Gid, MemoryRegionId, ProtectionDomainId, QueuePairId, SharedReceiveQueueId,
};
pub use port::{Port, SocketChange, Usage, WakeFor};
pub use provider::{Objects, Provider, QueuePair};
pub use work::{Data, MemoryRegion, RecvRequest, Remote, SendOp, SendRequest, Sge};
