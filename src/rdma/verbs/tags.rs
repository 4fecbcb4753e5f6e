//! What a work request was, kept beside the device's own queues: the program's number, and what was
//! asked for, which a device does not tell of a request that failed.
//!
//! A tag goes to the device in the request's number and comes back in its completion.

use crate::rdma::completion::CompletionOpcode;
use crate::rdma::error::RdmaError;
use crate::rdma::work::{SendOp, SendRequest};
use std::collections::VecDeque;

/// Which table a completion's request is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    /// The send queue of the queue pair that the completion names.
    Send,
    /// Its receive queue.
    Recv,
    /// The shared receive queue in this slot of the device's table.
    Srq(u32),
}

const SRQ_BITS: u32 = 30;

/// A place in a table, as the device carries it: two bits of kind, 30 of slot, 32 of place.
pub(super) const fn pack(queue: Queue, at: u32) -> u64 {
    let (kind, slot) = match queue {
        Queue::Send => (0, 0),
        Queue::Recv => (1, 0),
        Queue::Srq(slot) => (2, slot),
    };
    kind << (32 + SRQ_BITS) | (slot as u64) << 32 | at as u64
}

/// The reverse of [`pack`].
pub(super) const fn unpack(tag: u64) -> (Queue, u32) {
    let slot = (tag >> 32) as u32 & ((1 << SRQ_BITS) - 1);
    let queue = match tag >> (32 + SRQ_BITS) {
        0 => Queue::Send,
        1 => Queue::Recv,
        _ => Queue::Srq(slot),
    };
    (queue, tag as u32)
}

/// A request in a send queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub wr_id: u64,
    pub opcode: CompletionOpcode,
    /// Bytes that success brings.
    pub fetched: u32,
    pub at: u32,
}

/// The requests of one send queue, in order.
#[derive(Debug)]
pub(super) struct Sends {
    sent: VecDeque<Sent>,
    depth: u32,
    next: u32,
}

impl Sends {
    pub fn new(depth: u32) -> Self {
        Self {
            sent: VecDeque::with_capacity(depth as usize),
            depth,
            next: 0,
        }
    }

    /// Takes a request in, unless the queue is full.
    pub fn add(&mut self, request: &SendRequest<'_>, len: u32) -> Result<u64, RdmaError> {
        if self.sent.len() >= self.depth as usize {
            return Err(RdmaError::QueueFull {
                what: "send queue",
                depth: self.depth,
            });
        }
        let at = self.next;
        self.next = at.wrapping_add(1);
        self.sent.push_back(Sent {
            wr_id: request.wr_id,
            opcode: match request.op {
                SendOp::Send | SendOp::SendWithImm(_) => CompletionOpcode::Send,
                SendOp::RdmaWrite(_) | SendOp::RdmaWriteWithImm(..) => CompletionOpcode::RdmaWrite,
                SendOp::RdmaRead(_) => CompletionOpcode::RdmaRead,
                SendOp::AtomicCmpAndSwp { .. } => CompletionOpcode::CompSwap,
                SendOp::AtomicFetchAndAdd { .. } => CompletionOpcode::FetchAdd,
            },
            fetched: if request.op.fetches() { len } else { 0 },
            at,
        });
        Ok(pack(Queue::Send, at))
    }

    /// Takes back the newest `count`, which the device refused.
    pub fn undo(&mut self, count: usize) {
        self.sent.truncate(self.sent.len().saturating_sub(count));
        self.next = self.next.wrapping_sub(count as u32);
    }

    /// The request that completed; those before it, without a completion of their own, are done.
    pub fn complete(&mut self, at: u32) -> Option<Sent> {
        let head = self.sent.front()?.at;
        let ahead = at.wrapping_sub(head) as usize;
        if ahead >= self.sent.len() {
            return None;
        }
        self.sent.drain(..ahead);
        self.sent.pop_front()
    }

    pub fn clear(&mut self) {
        self.sent.clear();
    }
}

/// The requests of one receive queue, which may complete in any order where it is shared.
#[derive(Debug)]
pub(super) struct Recvs {
    /// The program's numbers; `None` in places that are free.
    posted: Vec<Option<u64>>,
    free: Vec<u32>,
    depth: u32,
}

impl Recvs {
    pub fn new(depth: u32) -> Self {
        Self {
            posted: vec![None; depth as usize],
            free: (0..depth).rev().collect(),
            depth,
        }
    }

    /// Takes a request in, unless the queue is full.
    pub fn add(&mut self, wr_id: u64) -> Result<u32, RdmaError> {
        let full = RdmaError::QueueFull {
            what: "receive queue",
            depth: self.depth,
        };
        let at = self.free.pop().ok_or(full)?;
        if let Some(place) = self.posted.get_mut(at as usize) {
            *place = Some(wr_id);
        }
        Ok(at)
    }

    /// The number of the request that completed, or was refused.
    pub fn complete(&mut self, at: u32) -> Option<u64> {
        let wr_id = self.posted.get_mut(at as usize)?.take()?;
        self.free.push(at);
        Some(wr_id)
    }

    pub fn clear(&mut self) {
        *self = Self::new(self.depth);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rdma::work::{Data, Remote};

    #[test]
    fn tags_come_back_as_they_were() {
        for queue in [
            Queue::Send,
            Queue::Recv,
            Queue::Srq(0),
            Queue::Srq(0x3fff_ffff),
        ] {
            for at in [0, 7, u32::MAX] {
                assert_eq!(unpack(pack(queue, at)), (queue, at));
            }
        }
    }

    #[test]
    fn a_completion_ends_the_requests_before_it() {
        let mut sends = Sends::new(3);
        sends.next = u32::MAX; // wraps
        let remote = Remote { addr: 0, rkey: 0 };
        let mut at = Vec::new();
        for n in 0..3 {
            let op = [
                SendOp::Send,
                SendOp::RdmaRead(remote),
                SendOp::RdmaWrite(remote),
            ][n];
            let request = SendRequest::new(n as u64, op, Data::Inline(&[]));
            at.push(unpack(sends.add(&request, 5).unwrap()).1);
        }
        let more = SendRequest::new(9, SendOp::Send, Data::Inline(&[]));
        assert!(matches!(
            sends.add(&more, 0),
            Err(RdmaError::QueueFull { depth: 3, .. })
        ));
        let read = sends.complete(at[1]).unwrap();
        assert_eq!((read.wr_id, read.fetched), (1, 5));
        assert!(sends.complete(at[0]).is_none(), "done before");
        sends.add(&more, 0).unwrap();
        sends.undo(1);
        assert_eq!(
            sends.complete(at[2]).map(|s| (s.wr_id, s.fetched)),
            Some((2, 0))
        );
        assert!(sends.complete(at[2]).is_none());
    }

    #[test]
    fn receives_complete_in_any_order_and_once() {
        let mut recvs = Recvs::new(2);
        let (a, b) = (recvs.add(10).unwrap(), recvs.add(11).unwrap());
        assert!(recvs.add(12).is_err());
        assert_eq!((recvs.complete(b), recvs.complete(b)), (Some(11), None));
        assert_eq!(recvs.add(12), Ok(b));
        assert_eq!((recvs.complete(a), recvs.complete(b)), (Some(10), Some(12)));
        assert_eq!(recvs.complete(7), None);
    }
}
