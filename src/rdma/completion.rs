//! Completions: what became of a work request.
//!
//! Statuses have the names and the meaning of `ibv_wc_status`. A send queue's completions come in
//! the order of its requests. After the first that failed its queue pair is in error, and what was
//! still posted completes with [`Status::WrFlushErr`].

use super::error::Blame;
use super::ids::QueuePairId;
use std::fmt;

/// How a work request ended (`ibv_wc_status`, those of a reliable connection).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// It was done.
    Success,
    /// A message did not fit where it had to go.
    LocLenErr,
    /// The queue pair cannot do this.
    LocQpOpErr,
    /// An SGE names no memory of the domain, or memory that may not be used so.
    LocProtErr,
    /// The queue pair was in error before this was done.
    WrFlushErr,
    /// The peer's answer makes no sense.
    BadRespErr,
    /// The peer found the request invalid.
    RemInvReqErr,
    /// The peer's memory is not there or not for us.
    RemAccessErr,
    /// The peer failed.
    RemOpErr,
    /// The peer did not answer, however often it was asked.
    RetryExcErr,
    /// The peer had no receive posted, however long was waited.
    RnrRetryExcErr,
    /// The device failed.
    FatalErr,
    /// Anything else.
    GeneralErr,
}

impl Status {
    /// Whose fault it is; `None` for success and for what was flushed behind another's fault.
    pub const fn blame(self) -> Option<Blame> {
        match self {
            Self::Success | Self::WrFlushErr => None,
            Self::LocLenErr | Self::LocQpOpErr | Self::LocProtErr => Some(Blame::Misuse),
            Self::BadRespErr
            | Self::RemInvReqErr
            | Self::RemAccessErr
            | Self::RemOpErr
            | Self::RetryExcErr
            | Self::RnrRetryExcErr => Some(Blame::Peer),
            Self::FatalErr | Self::GeneralErr => Some(Blame::System),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Success => "success",
            Self::LocLenErr => "local length error",
            Self::LocQpOpErr => "local QP operation error",
            Self::LocProtErr => "local protection error",
            Self::WrFlushErr => "work request flushed",
            Self::BadRespErr => "bad response",
            Self::RemInvReqErr => "remote invalid request",
            Self::RemAccessErr => "remote access error",
            Self::RemOpErr => "remote operation error",
            Self::RetryExcErr => "transport retry counter exceeded",
            Self::RnrRetryExcErr => "receiver-not-ready retry counter exceeded",
            Self::FatalErr => "fatal device error",
            Self::GeneralErr => "general error",
        })
    }
}

/// What was done (`ibv_wc_opcode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CompletionOpcode {
    /// SEND, with immediate or without.
    Send,
    /// RDMA WRITE, with immediate or without.
    RdmaWrite,
    /// RDMA READ.
    RdmaRead,
    /// Compare-and-swap.
    CompSwap,
    /// Fetch-and-add.
    FetchAdd,
    /// A message was received.
    Recv,
    /// The peer wrote, with immediate.
    RecvRdmaWithImm,
}

/// An entry of a completion queue (`ibv_wc`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The request's own number.
    pub wr_id: u64,
    /// How it ended.
    pub status: Status,
    /// What was done; for a failed request, what was asked for.
    pub opcode: CompletionOpcode,
    /// Bytes received, or fetched; 0 unless successful.
    pub byte_len: u32,
    /// The peer's immediate.
    pub imm: Option<u32>,
    /// The queue pair.
    pub qp: QueuePairId,
    /// Its number.
    pub qpn: u32,
}
