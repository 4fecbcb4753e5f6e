//! Work requests: what an application asks a queue pair to do.
//!
//! A request borrows its pieces of memory's names (SGEs) while it is posted; the memory itself must
//! stay registered until the request's completion, or the request fails with
//! [`super::Status::LocProtErr`]. Inline data is copied at once.

use super::ids::MemoryRegionId;

/// A registered piece of memory of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sge {
    /// Address in the region's own numbering: see [`MemoryRegion::addr`].
    pub addr: u64,
    /// Bytes.
    pub length: u32,
    /// The region's local key.
    pub lkey: u32,
}

/// A memory region as its owner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRegion {
    /// Its name here.
    pub id: MemoryRegionId,
    /// Address of its first byte in work requests and for peers.
    pub addr: u64,
    /// Bytes.
    pub len: usize,
    /// What names it in SGEs.
    pub lkey: u32,
    /// What a peer needs to reach it.
    pub rkey: u32,
}

impl MemoryRegion {
    /// The piece of `length` bytes from `offset`. It is checked where it is used.
    pub const fn sge(&self, offset: u64, length: u32) -> Sge {
        Sge {
            addr: self.addr.wrapping_add(offset),
            length,
            lkey: self.lkey,
        }
    }
}

/// Memory of the peer, as it announced it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Address in the peer's numbering.
    pub addr: u64,
    /// The peer's key.
    pub rkey: u32,
}

/// What to do (`ibv_wr_opcode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOp {
    /// A message into the peer's next receive.
    Send,
    /// The same with 32 bits beside it.
    SendWithImm(u32),
    /// Bytes into the peer's memory, unseen by it.
    RdmaWrite(Remote),
    /// The same; consumes a receive of the peer, which completes with the 32 bits.
    RdmaWriteWithImm(Remote, u32),
    /// Bytes out of the peer's memory.
    RdmaRead(Remote),
    /// Puts `swap` where `compare` is; the 8 bytes before come back. The address is a multiple of
    /// 8.
    AtomicCmpAndSwp {
        /// Where.
        remote: Remote,
        /// What has to be there.
        compare: u64,
        /// What will then be there.
        swap: u64,
    },
    /// Adds, wrapping; the 8 bytes before come back. The address is a multiple of 8.
    AtomicFetchAndAdd {
        /// Where.
        remote: Remote,
        /// How much.
        add: u64,
    },
}

impl SendOp {
    /// Whether the answer brings data that is written to the request's SGEs.
    pub const fn fetches(&self) -> bool {
        matches!(
            self,
            Self::RdmaRead(_) | Self::AtomicCmpAndSwp { .. } | Self::AtomicFetchAndAdd { .. }
        )
    }

    /// Whether it is one of the two atomics, whose data are 8 bytes.
    pub const fn is_atomic(&self) -> bool {
        matches!(
            self,
            Self::AtomicCmpAndSwp { .. } | Self::AtomicFetchAndAdd { .. }
        )
    }
}

/// The bytes of a request.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// Registered memory: gathered by SEND and WRITE, scattered to by READ and atomics.
    Sges(&'a [Sge]),
    /// Copied while posting, for SEND and WRITE of at most the queue pair's `max_inline_data`.
    Inline(&'a [u8]),
}

/// A request for the send queue.
#[derive(Clone, Copy, Debug)]
pub struct SendRequest<'a> {
    /// The application's own number; comes back in the completion.
    pub wr_id: u64,
    /// What to do.
    pub op: SendOp,
    /// With which bytes.
    pub data: Data<'a>,
    /// Whether success makes a completion. Failure always does. A queue's slots come back with
    /// completions: signal at least one request in each queue's length.
    pub signaled: bool,
    /// Whether the peer's completion is a solicited one, which wakes who waits for such only.
    pub solicited: bool,
    /// Wait until earlier READs and atomics are done.
    pub fence: bool,
}

impl<'a> SendRequest<'a> {
    /// A signalled request without further flags.
    pub const fn new(wr_id: u64, op: SendOp, data: Data<'a>) -> Self {
        Self {
            wr_id,
            op,
            data,
            signaled: true,
            solicited: false,
            fence: false,
        }
    }

    /// The same request, whose success makes no completion.
    pub const fn unsignaled(mut self) -> Self {
        self.signaled = false;
        self
    }
}

/// A request for a receive queue.
#[derive(Clone, Copy, Debug)]
pub struct RecvRequest<'a> {
    /// The application's own number; comes back in the completion.
    pub wr_id: u64,
    /// Where a message goes, in this order.
    pub sges: &'a [Sge],
}
