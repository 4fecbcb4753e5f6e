//! Frames over queue pairs: posting, completions, and leaving a queue pair for the stream.

use super::app::{LaneApp, OpError, Operation};
use super::host::{Host, LaneShard, News, Parting};
use super::session::{Carrier, Pending, State};
use crate::base::{Timestamp, limits};
use crate::rdma::bootstrap::Message;
use crate::rdma::lane::{Frame, HEADER, Kind};
use crate::rdma::parts::INLINE;
use crate::rdma::slots::Key;
use crate::rdma::{
    Completion, CompletionOpcode, Data, Port, QueuePairId, RecvRequest, Remote, SendOp,
    SendRequest, Status,
};

/// Completions taken at once.
const BATCH: usize = 64;
/// What no device has written.
const NONE: Completion = Completion {
    wr_id: 0,
    status: Status::GeneralErr,
    opcode: CompletionOpcode::Send,
    byte_len: 0,
    imm: None,
    qp: QueuePairId(Key {
        slot: 0,
        generation: 0,
    }),
    qpn: 0,
};
/// Bytes of an acknowledgement, which is posted inline.
const ACK: usize = HEADER;

impl<P: Port> Host<P> {
    /// Sends what a lane may send now.
    pub(super) fn pump(&mut self, key: Key) {
        let Some(s) = self.sessions.get(key) else {
            return;
        };
        if !matches!(s.state, State::Open | State::Leaving | State::Left) {
            return;
        }
        match s.carrier {
            Carrier::Changing => {}
            Carrier::Queue => while self.post_message(key) {},
            Carrier::Stream => while self.write_message(key) {},
        }
        self.acknowledge(key);
    }

    /// Posts the next message; whether there was one and room for it.
    fn post_message(&mut self, key: Key) -> bool {
        let (Some(s), Some(port)) = (self.sessions.get_mut(key), &mut self.port) else {
            return false;
        };
        let (Some(number), true) = (s.flow.next(), s.has_slot(2)) else {
            return false;
        };
        let Some(parts) = &s.parts else {
            return false;
        };
        let (Some(qp), Some(mr)) = (parts.qp(), parts.send()) else {
            return false;
        };
        let (n, at) = s.place(number);
        let (tag, len) = s.messages.get(n).copied().unwrap_or_default();
        let frame = Frame {
            kind: Kind::Message,
            tag,
            number,
            ack: s.flow.ack(),
        };
        if port.write(mr.id, at, &frame.to_bytes()).is_err() {
            return false;
        }
        let len = HEADER as u32 + len;
        let sges = [mr.sge(at, len)];
        let (mut short, mut data) = ([0; INLINE as usize], Data::Sges(&sges));
        if port.prefers_inline()
            && len as usize <= parts.inline()
            && let Some(short) = short.get_mut(..len as usize)
            && port.read(mr.id, at, short).is_ok()
        {
            data = Data::Inline(short);
        }
        s.flow.on_sent();
        let (index, signaled) = s.next_request();
        let mut request = SendRequest::new(index, SendOp::Send, data);
        request.signaled = signaled;
        if let Err(error) = port.post_send(qp.id, &[request]) {
            self.fail_over(key, &error.to_string());
            return false;
        }
        true
    }

    fn write_message(&mut self, key: Key) -> bool {
        let Some(s) = self.sessions.get_mut(key) else {
            return false;
        };
        if s.backlog() > limits::LANE_BACKLOG {
            return false;
        }
        let Some(number) = s.flow.next() else {
            return false;
        };
        let (n, at) = s.place(number);
        let (tag, len) = s.messages.get(n).copied().unwrap_or_default();
        let frame = Frame {
            kind: Kind::Message,
            tag,
            number,
            ack: s.flow.ack(),
        };
        let mut body = std::mem::take(&mut self.scratch);
        body.clear();
        body.resize(len as usize, 0);
        s.send
            .read(self.port.as_ref(), at + HEADER as u64, &mut body);
        s.flow.on_sent();
        s.say_frame(&frame, &body);
        self.scratch = body;
        self.touch(key);
        true
    }

    /// Tells the peer what was consumed, if it may wait for that.
    fn acknowledge(&mut self, key: Key) {
        let Some(s) = self.sessions.get_mut(key) else {
            return;
        };
        if !s.flow.owes_ack() || s.carrier == Carrier::Changing {
            return;
        }
        let frame = Frame {
            kind: Kind::Ack,
            tag: 0,
            number: 0,
            ack: s.flow.ack(),
        };
        if s.carrier == Carrier::Stream {
            s.flow.on_told();
            s.say_frame(&frame, &[]);
            self.touch(key);
            return;
        }
        let qp = s.parts.as_ref().and_then(|p| p.qp());
        let (Some(qp), Some(port), true) = (qp, &mut self.port, s.has_slot(0)) else {
            return;
        };
        s.flow.on_told();
        let (index, signaled) = s.next_request();
        let bytes: [u8; ACK] = frame.to_bytes();
        let mut request = SendRequest::new(index, SendOp::Send, Data::Inline(&bytes));
        request.signaled = signaled;
        if let Err(error) = port.post_send(qp.id, &[request]) {
            self.fail_over(key, &error.to_string());
        }
    }

    /// Begins an operation that was checked.
    pub(super) fn begin_operation(&mut self, key: Key, id: u64, op: Operation) {
        let Some(s) = self.sessions.get_mut(key) else {
            return;
        };
        let pending = Pending {
            id,
            op,
            index: 0,
            last: true,
        };
        match s.carrier {
            Carrier::Stream => self.write_operation(key, pending),
            // Never posted, so an atomic may still be asked for.
            Carrier::Changing => s.ops.push_back(Pending {
                index: u64::MAX,
                ..pending
            }),
            Carrier::Queue => self.post_operation(key, pending),
        }
    }

    fn post_operation(&mut self, key: Key, mut pending: Pending) {
        let (Some(s), Some(port)) = (self.sessions.get_mut(key), &mut self.port) else {
            return;
        };
        let parts = s.parts.as_ref();
        let own = parts
            .and_then(|p| p.qp())
            .zip(parts.and_then(|p| p.region()));
        let peer = s.peer.and_then(|t| t.region);
        let (Some((qp, mr)), Some(peer)) = (own, peer) else {
            return;
        };
        let (local, remote, len) = pending.op.span();
        let remote = Remote {
            addr: peer.addr.wrapping_add(remote),
            rkey: peer.rkey,
        };
        let op = match pending.op {
            Operation::Write { .. } => SendOp::RdmaWrite(remote),
            Operation::Read { .. } => SendOp::RdmaRead(remote),
            Operation::CompareSwap { compare, swap, .. } => SendOp::AtomicCmpAndSwp {
                remote,
                compare,
                swap,
            },
            Operation::FetchAdd { add, .. } => SendOp::AtomicFetchAndAdd { remote, add },
        };
        let (index, _) = s.next_request();
        pending.index = index;
        s.ops.push_back(pending);
        let sges = [mr.sge(local, len)];
        let request = SendRequest::new(index, op, Data::Sges(&sges));
        if let Err(error) = port.post_send(qp.id, &[request]) {
            self.fail_over(key, &error.to_string());
        }
    }

    /// The queue pair is of no more use: the lane leaves it for its stream.
    pub(super) fn fail_over(&mut self, key: Key, why: &str) {
        let Some(s) = self.sessions.get_mut(key) else {
            return;
        };
        if s.carrier != Carrier::Queue {
            return;
        }
        s.carrier = Carrier::Changing;
        tracing::info!(client = s.client, why, "a lane leaves its queue pair");
        if let (Some(qp), Some(port)) = (s.parts.as_ref().and_then(|p| p.qp()), &mut self.port)
            && let Err(error) = port.modify_to_err(qp.id)
        {
            tracing::error!(%error, "a queue pair could not be stopped");
        }
        self.stats.fallbacks += 1;
        // What the queue pair received must be counted before the peer is told how much it was.
        self.parting.push(Parting::Queue(key));
    }

    /// All completions of the lane's queue pair were seen.
    pub(super) fn left_queue(&mut self, key: Key) {
        let Some(s) = self.sessions.get_mut(key) else {
            return;
        };
        if let (Some(parts), Some(port)) = (&mut s.parts, &mut self.port) {
            if let Some(qp) = parts.qp() {
                self.by_qp.remove(&qp.id);
            }
            parts.drop_queue(port);
        }
        // A client that is not ready is told when it is; one that goes without need not be.
        if s.state == State::Greeting || s.carrier != Carrier::Changing {
            return;
        }
        s.told_fallback = true;
        let received = s.flow.received();
        s.say(&Message::Fallback(received));
        self.touch(key);
        self.change(key);
    }

    /// The stream takes over once both sides have said what they received.
    pub(super) fn change(&mut self, key: Key) {
        let Some(s) = self.sessions.get_mut(key) else {
            return;
        };
        let (true, Some(received), Carrier::Changing) =
            (s.told_fallback, s.peer_fallback, s.carrier)
        else {
            return;
        };
        if s.flow.rewind(received).is_err() {
            self.misbehaved(key, "the peer counts messages wrongly".into());
            return;
        }
        s.carrier = Carrier::Stream;
        (s.posted, s.completed) = (0, 0);
        let ops = std::mem::take(&mut s.ops);
        self.tell(key, News::Fallback);
        // A message may say that what was written before it is there: operations go first. Doing
        // writes and reads again changes nothing; atomics would.
        for pending in ops {
            if pending.op.is_atomic() && pending.index != u64::MAX {
                self.tell(key, News::Done(pending.id, Err(OpError::Unknown)));
            } else {
                self.write_operation(key, pending);
            }
        }
        self.pump(key);
    }

    fn repost(&mut self, qp: QueuePairId, slot: u64) {
        let (Some(shared), Some(port)) = (&self.shared, &mut self.port) else {
            return;
        };
        let posted = match shared.receives {
            Some((srq, mr)) => {
                let sges = [mr.sge(slot * u64::from(shared.slot), shared.slot)];
                let request = RecvRequest {
                    wr_id: slot,
                    sges: &sges,
                };
                let posted = port.post_srq_recv(srq, &[request]);
                posted.map_err(|e| e.error)
            }
            None => {
                let session = self.by_qp.get(&qp).and_then(|k| self.sessions.get(*k));
                let Some(s) = session.filter(|s| s.carrier == Carrier::Queue) else {
                    return;
                };
                let parts = s.parts.as_ref();
                parts.map_or(Ok(()), |p| p.post_receive(port, slot))
            }
        };
        if let Err(error) = posted {
            tracing::error!(%error, "a receive could not be posted again");
        }
    }

    /// Copies a received message to the scratch buffer.
    fn fetch(&mut self, c: &Completion) -> Option<Vec<u8>> {
        let (shared, port) = (self.shared.as_ref()?, self.port.as_ref()?);
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        bytes.resize(c.byte_len as usize, 0);
        let (mr, at) = match shared.receives {
            Some((_, mr)) => (mr.id, c.wr_id * u64::from(shared.slot)),
            None => {
                let s = self.sessions.get(*self.by_qp.get(&c.qp)?)?;
                s.parts.as_ref()?.receive(c.wr_id)?
            }
        };
        port.read(mr, at, &mut bytes).ok()?;
        Some(bytes)
    }
}

impl<P: Port, A: LaneApp<P>> LaneShard<P, A> {
    /// Sees to everything that completed, and to what the device has to say.
    pub(super) fn poll_completions(&mut self, now: Timestamp) {
        let Some(cq) = self.host.shared.as_ref().map(|s| s.cq) else {
            return;
        };
        // Kept, for filling it anew would be the longest part of a turn without completions.
        let mut batch = std::mem::take(&mut self.host.completions);
        batch.resize(BATCH, NONE);
        let mut any = false;
        loop {
            let polled = self.host.port.as_mut().map(|p| p.poll_cq(cq, &mut batch));
            let n = match polled {
                Some(Ok(n)) => n,
                Some(Err(error)) => {
                    tracing::error!(%error, "completions cannot be taken");
                    return self.host.lose_device();
                }
                None => return,
            };
            any |= n > 0;
            for completion in batch.iter().take(n) {
                self.on_completion(now, completion);
            }
            if n < BATCH {
                break;
            }
        }
        self.host.completions = batch;
        self.host.wakes.on_polled(any);
        self.hear_device(now);
    }

    fn on_completion(&mut self, now: Timestamp, c: &Completion) {
        let key = self.host.by_qp.get(&c.qp).copied();
        let received = matches!(
            c.opcode,
            CompletionOpcode::Recv | CompletionOpcode::RecvRdmaWithImm
        );
        if !received {
            if let Some(key) = key {
                self.on_sent(key, c);
            }
            return;
        }
        if c.status == Status::Success
            && let Some(key) = key
            && let Some(bytes) = self.host.fetch(c)
        {
            self.host.repost(c.qp, c.wr_id);
            self.on_frame(now, key, &bytes);
            self.host.scratch = bytes;
        } else {
            self.host.repost(c.qp, c.wr_id);
            if let (Some(key), true) = (key, c.status != Status::Success) {
                self.host.fail_over(key, &c.status.to_string());
            }
        }
    }

    fn on_sent(&mut self, key: Key, c: &Completion) {
        let Some(s) = self.host.sessions.get_mut(key) else {
            return;
        };
        let failed = c.status != Status::Success;
        if !failed {
            s.completed = s.completed.max(c.wr_id + 1);
            if let Some(op) = s.take_operation(c.wr_id) {
                self.host.tell(key, News::Done(op.id, Ok(())));
                self.host.room(key);
                // A goodbye may wait for it.
                self.host.touch(key);
            }
            self.host.pump(key);
            return;
        }
        if matches!(c.status, Status::RemAccessErr | Status::RemInvReqErr)
            && let Some(op) = s.take_operation(c.wr_id)
        {
            self.host
                .tell(key, News::Done(op.id, Err(OpError::Refused)));
        }
        self.host.fail_over(key, &c.status.to_string());
    }
}
