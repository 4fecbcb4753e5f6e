//! Completion queues and receive queues: rings of fixed length that allocate when they are made.

use crate::rdma::completion::Completion;
use crate::rdma::error::RdmaError;
use crate::rdma::slots::Key;
use crate::rdma::work::{RecvRequest, Sge};
use std::collections::VecDeque;

/// A completion queue.
#[derive(Debug)]
pub(super) struct CompletionQueue {
    entries: VecDeque<Completion>,
    depth: usize,
    /// Queue pairs that complete here, counted once for each direction.
    pub users: u32,
    /// A completion was lost.
    pub overrun: bool,
}

impl CompletionQueue {
    pub fn new(depth: usize) -> Self {
        Self {
            entries: VecDeque::with_capacity(depth),
            depth,
            users: 0,
            overrun: false,
        }
    }

    /// Adds a completion; false when there is no room for it.
    #[inline]
    pub fn push(&mut self, completion: Completion) -> bool {
        if self.entries.len() >= self.depth {
            return false;
        }
        self.entries.push_back(completion);
        true
    }

    #[inline]
    pub fn poll(&mut self, into: &mut [Completion]) -> usize {
        let mut n = 0;
        while let Some(to) = into.get_mut(n)
            && let Some(from) = self.entries.front()
        {
            *to = *from;
            self.entries.pop_front();
            n += 1;
        }
        n
    }
}

/// Receives waiting for messages, of one queue pair or of many.
#[derive(Debug)]
pub(super) struct RecvQueue {
    /// Number and SGEs of each slot of the ring.
    requests: Box<[(u64, u8)]>,
    /// `max_sge` for each.
    sges: Box<[Sge]>,
    max_sge: usize,
    /// The slot of the oldest request.
    head: usize,
    /// Requests there are.
    len: usize,
    /// The region of the last that was taken.
    near: Option<Key>,
}

impl RecvQueue {
    pub fn new(depth: u32, max_sge: u32) -> Self {
        let (depth, max_sge) = (depth as usize, max_sge as usize);
        let none = Sge {
            addr: 0,
            length: 0,
            lkey: 0,
        };
        Self {
            requests: vec![(0, 0); depth].into(),
            sges: vec![none; depth * max_sge].into(),
            max_sge,
            head: 0,
            len: 0,
            near: None,
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn max_sge(&self) -> usize {
        self.max_sge
    }

    pub fn post(&mut self, request: &RecvRequest<'_>) -> Result<(), RdmaError> {
        let n = request.sges.len();
        if n > self.max_sge {
            return Err(RdmaError::Attribute {
                name: "number of SGEs",
                value: n as u64,
                allowed: "at most max_recv_sge",
            });
        }
        if self.len >= self.requests.len() {
            return Err(RdmaError::QueueFull {
                what: "receive queue",
                depth: self.requests.len() as u32,
            });
        }
        let slot = self.wrap(self.head + self.len);
        let at = slot * self.max_sge;
        if let Some(sges) = self.sges.get_mut(at..at + n) {
            sges.copy_from_slice(request.sges);
        }
        if let Some(entry) = self.requests.get_mut(slot) {
            *entry = (request.wr_id, n as u8);
            self.len += 1;
        }
        Ok(())
    }

    /// The oldest request's number and SGEs, removed, and the region of the last that was taken.
    #[inline]
    pub fn take(&mut self) -> Option<(u64, &[Sge], &mut Option<Key>)> {
        let left = self.len.checked_sub(1)?;
        let (wr_id, n) = *self.requests.get(self.head)?;
        let at = self.head * self.max_sge;
        (self.head, self.len) = (self.wrap(self.head + 1), left);
        let sges = self.sges.get(at..at + usize::from(n))?;
        Some((wr_id, sges, &mut self.near))
    }

    /// A slot of the ring, of which `at` is at most one round ahead.
    #[inline]
    fn wrap(&self, at: usize) -> usize {
        if at >= self.requests.len() {
            at - self.requests.len()
        } else {
            at
        }
    }

    pub fn clear(&mut self) {
        self.len = 0;
    }
}

/// A receive queue of many queue pairs.
#[derive(Debug)]
pub(super) struct SharedRecvQueue {
    pub queue: RecvQueue,
    pub pd: Key,
    /// Queue pairs that receive from here.
    pub users: u32,
    /// Tell when fewer wait; 0 for never.
    pub limit: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receives_come_out_in_order_with_their_own_pieces() {
        let mut q = RecvQueue::new(3, 2);
        let sge = |n: u64| Sge {
            addr: n,
            length: 1,
            lkey: 2,
        };
        for round in 0..10 {
            for n in 0..3 {
                let sges = [sge(round), sge(n)];
                let sges = &sges[..n as usize % 3];
                q.post(&RecvRequest { wr_id: n, sges }).unwrap();
            }
            let more = RecvRequest {
                wr_id: 9,
                sges: &[],
            };
            assert!(matches!(
                q.post(&more),
                Err(RdmaError::QueueFull { depth: 3, .. })
            ));
            for n in 0..3 {
                let sges = [sge(round), sge(n)];
                let sges = &sges[..n as usize % 3];
                assert_eq!(q.take(), Some((n, sges, &mut None)));
            }
            assert_eq!(q.take(), None);
            q.post(&more).unwrap();
            assert_eq!((q.len(), q.take().map(|r| r.0)), (1, Some(9)));
        }
        let sges = &[sge(1); 3];
        assert!(q.post(&RecvRequest { wr_id: 1, sges }).is_err());
    }

    #[test]
    fn a_queue_of_no_length_takes_nothing() {
        let mut q = RecvQueue::new(0, 1);
        let request = RecvRequest {
            wr_id: 1,
            sges: &[],
        };
        assert!(q.post(&request).is_err());
        assert_eq!(q.take(), None);
    }
}
