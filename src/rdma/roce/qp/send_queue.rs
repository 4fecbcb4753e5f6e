//! The send queue: requests in order, from posting to completion.
//!
//! A ring with a fixed number of slots; SGEs, inline data and requests of a slot stand in arrays of
//! their own, so posting and completing allocate nothing. Requests are named by a sequence number
//! that never repeats.

use crate::rdma::attr::QpCap;
use crate::rdma::completion::{CompletionOpcode, Status};
use crate::rdma::error::RdmaError;
use crate::rdma::roce::memory::{Memory, Span};
use crate::rdma::roce::wire::Psn;
use crate::rdma::slots::Key;
use crate::rdma::work::{Data, SendOp, SendRequest, Sge};
use std::collections::VecDeque;

/// A request under way.
#[derive(Debug)]
pub(super) struct Wqe {
    pub wr_id: u64,
    pub op: SendOp,
    /// Bytes of its message.
    pub len: u32,
    /// Where in the ring its memory is named, or its inline bytes stand.
    slot: u32,
    spans: u8,
    inline: bool,
    pub signaled: bool,
    pub solicited: bool,
    pub fence: bool,
    /// It cannot be done, and fails when its turn comes.
    pub fault: Option<Status>,
    /// The number of its first packet, once it has begun.
    pub first: Psn,
    /// Numbers that it takes; 0 until it has begun.
    pub packets: u32,
}

impl Wqe {
    /// What its completion says was done.
    pub fn opcode(&self) -> CompletionOpcode {
        match self.op {
            SendOp::Send | SendOp::SendWithImm(_) => CompletionOpcode::Send,
            SendOp::RdmaWrite(_) | SendOp::RdmaWriteWithImm(..) => CompletionOpcode::RdmaWrite,
            SendOp::RdmaRead(_) => CompletionOpcode::RdmaRead,
            SendOp::AtomicCmpAndSwp { .. } => CompletionOpcode::CompSwap,
            SendOp::AtomicFetchAndAdd { .. } => CompletionOpcode::FetchAdd,
        }
    }

    /// Whether its packets have numbers.
    pub fn begun(&self) -> bool {
        self.packets > 0
    }

    /// The number behind its last.
    pub fn end(&self) -> Psn {
        self.first.plus(self.packets)
    }

    /// How many numbers it takes.
    pub fn packets_at(&self, mtu: u32) -> u32 {
        if self.len <= mtu || self.op.is_atomic() {
            return 1;
        }
        self.len.div_ceil(mtu.max(1)).max(1)
    }
}

#[derive(Debug)]
pub(super) struct SendQueue {
    wqes: VecDeque<Wqe>,
    /// The sequence number of the oldest request.
    head: u64,
    /// The slot of the next that is posted.
    next_slot: usize,
    depth: usize,
    spans: Box<[Span]>,
    max_sge: usize,
    inline: Box<[u8]>,
    max_inline: usize,
    /// The region of the last request.
    near: Option<Key>,
    /// There was a request that could not be done.
    pub faulty: bool,
}

impl SendQueue {
    pub fn new(cap: &QpCap) -> Self {
        let depth = cap.max_send_wr as usize;
        let (max_sge, max_inline) = (cap.max_send_sge as usize, cap.max_inline_data as usize);
        Self {
            wqes: VecDeque::with_capacity(depth),
            head: 0,
            next_slot: 0,
            depth,
            spans: vec![Span::default(); depth * max_sge].into(),
            max_sge,
            inline: vec![0; depth * max_inline].into(),
            max_inline,
            near: None,
            faulty: false,
        }
    }

    /// The sequence number of the oldest request, or of the next one posted.
    pub fn head(&self) -> u64 {
        self.head
    }

    pub fn front(&self) -> Option<&Wqe> {
        self.wqes.front()
    }

    #[inline]
    pub fn get(&self, seq: u64) -> Option<&Wqe> {
        self.wqes.get(seq.checked_sub(self.head)? as usize)
    }

    #[inline]
    pub fn get_mut(&mut self, seq: u64) -> Option<&mut Wqe> {
        self.wqes.get_mut(seq.checked_sub(self.head)? as usize)
    }

    pub fn pop(&mut self) -> Option<Wqe> {
        let wqe = self.wqes.pop_front()?;
        self.head += 1;
        Some(wqe)
    }

    /// The begun request that `psn` belongs to.
    pub fn owner(&self, psn: Psn) -> Option<&Wqe> {
        let after = |w: &Wqe| w.begun() && psn.since(w.end()) >= 0;
        let wqe = self.wqes.get(self.wqes.partition_point(after))?;
        (wqe.begun() && psn.since(wqe.first) >= 0).then_some(wqe)
    }

    /// A request's registered memory.
    #[inline]
    pub fn spans(&self, wqe: &Wqe) -> &[Span] {
        let at = wqe.slot as usize * self.max_sge;
        let range = at..at + usize::from(wqe.spans);
        self.spans.get(range).unwrap_or_default()
    }

    /// Copies a piece of a request's message; false when its memory is gone.
    #[inline]
    pub fn copy(&self, memory: &Memory, wqe: &Wqe, at: u32, out: &mut [u8]) -> bool {
        if !wqe.inline {
            return memory.gather(self.spans(wqe), at, out);
        }
        let begin = wqe.slot as usize * self.max_inline + at as usize;
        match self.inline.get(begin..begin + out.len()) {
            Some(bytes) => {
                out.copy_from_slice(bytes);
                true
            }
            None => false,
        }
    }

    /// Where a piece of a request's message stands in registered memory, if in one region.
    #[inline]
    pub fn piece(&self, memory: &Memory, wqe: &Wqe, at: u32, len: usize) -> Option<(Span, u32)> {
        let named = (!wqe.inline).then(|| self.spans(wqe))?;
        memory.piece(named, at, len)
    }

    pub fn post(
        &mut self,
        memory: &Memory,
        pd: Key,
        request: &SendRequest<'_>,
        max_message: u32,
    ) -> Result<(), RdmaError> {
        if self.wqes.len() >= self.depth {
            return Err(RdmaError::QueueFull {
                what: "send queue",
                depth: self.depth as u32,
            });
        }
        let len = self.check(request, max_message)?;
        let slot = self.next_slot;
        let (mut spans, mut inline, mut fault) = (0, false, None);
        match request.data {
            Data::Inline(bytes) => {
                inline = true;
                let at = slot * self.max_inline;
                if let Some(out) = self.inline.get_mut(at..at + bytes.len()) {
                    out.copy_from_slice(bytes);
                }
            }
            Data::Sges(sges) => {
                spans = sges.len() as u8;
                let at = slot * self.max_sge;
                let fetches = request.op.fetches();
                let mut named = true;
                match sges {
                    [one] => named = self.name(memory, pd, (at, one), fetches),
                    _ => {
                        for piece in (at..).zip(sges) {
                            named &= self.name(memory, pd, piece, fetches);
                        }
                    }
                }
                if !named {
                    fault = Some(Status::LocProtErr);
                    self.faulty = true;
                }
            }
        }
        self.wqes.push_back(Wqe {
            wr_id: request.wr_id,
            op: request.op,
            len,
            slot: slot as u32,
            spans,
            inline,
            signaled: request.signaled,
            solicited: request.solicited,
            fence: request.fence,
            fault,
            first: Psn::default(),
            packets: 0,
        });
        self.next_slot = if slot + 1 < self.depth { slot + 1 } else { 0 };
        Ok(())
    }

    /// Checks a piece of memory for its place; false where there is none such.
    #[inline]
    fn name(&mut self, memory: &Memory, pd: Key, (at, sge): (usize, &Sge), fetches: bool) -> bool {
        let found = memory.local(pd, sge, fetches, &mut self.near);
        if let (Some(found), Some(span)) = (found, self.spans.get_mut(at)) {
            *span = found;
        }
        found.is_some()
    }

    /// The memory of a request is gone: it fails when its turn comes.
    pub fn mark_fault(&mut self, seq: u64) {
        if let Some(wqe) = self.get_mut(seq) {
            wqe.fault = Some(Status::LocProtErr);
            self.faulty = true;
        }
    }

    /// The bytes of a request's message, if it can be posted.
    fn check(&self, request: &SendRequest<'_>, max_message: u32) -> Result<u32, RdmaError> {
        let refuse = |name, value, allowed| {
            Err(RdmaError::Attribute {
                name,
                value,
                allowed,
            })
        };
        let len: u64 = match request.data {
            Data::Inline(bytes) if request.op.fetches() => {
                return refuse("inline data", bytes.len() as u64, "only what is sent");
            }
            Data::Inline(bytes) if bytes.len() > self.max_inline => {
                let allowed = "at most max_inline_data";
                return refuse("bytes of inline data", bytes.len() as u64, allowed);
            }
            Data::Inline(bytes) => bytes.len() as u64,
            Data::Sges(sges) if sges.len() > self.max_sge => {
                return refuse("number of SGEs", sges.len() as u64, "at most max_send_sge");
            }
            Data::Sges([one]) => one.length.into(),
            Data::Sges(sges) => sges.iter().map(|s| u64::from(s.length)).sum(),
        };
        if request.op.is_atomic() && len != 8 {
            return refuse("bytes of an atomic", len, "8");
        }
        if len > u64::from(max_message) {
            return refuse("bytes of a message", len, "at most max_msg_sz");
        }
        Ok(len as u32)
    }
}
