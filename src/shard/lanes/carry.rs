//! Frames by whichever way a lane has: what it may send now, completions, and leaving a queue pair
//! for the stream. What goes over a queue pair is gathered, and posted by `post.rs`.

use super::app::{LaneApp, OpError, Operation};
use super::host::{Host, LaneShard, News, Parting};
use super::session::{Carrier, Pending, State, UNPOSTED};
use crate::base::{Timestamp, limits};
use crate::rdma::bootstrap::Message;
use crate::rdma::lane::{Frame, HEADER};
use crate::rdma::slots::Key;
use crate::rdma::{Completion, CompletionOpcode, Port, QueuePairId, Status};

/// Completions taken at once.
pub(super) const BATCH: usize = 64;
/// What no device has written.
pub(super) const NONE: Completion = Completion {
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

impl<P: Port> Host<P> {
    /// Sends what a lane may send now.
    pub(super) fn pump(&mut self, key: Key) {
        let Some(s) = self.sessions.get_mut(key) else {
            return;
        };
        if s.pump_queue(key, &mut self.gathered) || !s.is_in_use() {
            return;
        }
        if s.carrier == Carrier::Stream {
            while self.write_message(key) {}
            self.acknowledge(key);
        }
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
        let (frame, at, len) = s.message(number);
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

    /// Tells the peer over the stream what was consumed, if it may wait for that.
    fn acknowledge(&mut self, key: Key) {
        let Some(s) = self.sessions.get_mut(key) else {
            return;
        };
        if !s.flow.owes_ack() {
            return;
        }
        let frame = s.ack_frame();
        s.flow.on_told();
        s.say_frame(&frame, &[]);
        self.touch(key);
    }

    /// Begins an operation that was checked.
    pub(super) fn begin_operation(&mut self, key: Key, id: u64, op: Operation) {
        let Some(s) = self.sessions.get_mut(key) else {
            return;
        };
        let pending = Pending {
            id,
            op,
            index: UNPOSTED,
            after: s.flow.accepted(),
            last: true,
        };
        match s.carrier {
            Carrier::Stream => self.write_operation(key, pending),
            Carrier::Changing | Carrier::Returning => s.ops.push_back(pending),
            Carrier::Queue => {
                s.ops.push_back(pending);
                s.unposted += 1;
                s.gather(key, &mut self.gathered);
            }
        }
    }

    /// The queue pair is of no more use: the lane leaves it for its stream.
    pub(super) fn fail_over(&mut self, key: Key, why: &str) {
        let Some(s) = self.sessions.get_mut(key) else {
            return;
        };
        if s.carrier != Carrier::Queue {
            // One that is not in use yet is left once it is.
            s.way.broken |= s.way.asked || s.carrier == Carrier::Returning;
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
                self.by_qp.remove(qp.id);
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
        (s.posted, s.completed, s.unposted) = (0, 0, 0);
        let ops = std::mem::take(&mut s.ops);
        self.tell(key, News::Fallback);
        // A message may say that what was written before it is there: operations go first. Doing
        // writes and reads again changes nothing; atomics would.
        for pending in ops {
            if pending.op.is_atomic() && pending.index != UNPOSTED {
                self.tell(key, News::Done(pending.id, Err(OpError::Unknown)));
            } else {
                self.write_operation(key, pending);
            }
        }
        self.pump(key);
        self.on_left(key);
    }

    /// Copies a received message to the beginning of the scratch buffer.
    fn fetch(&mut self, c: &Completion) -> Option<Vec<u8>> {
        let (shared, port) = (self.shared.as_ref()?, self.port.as_ref()?);
        let len = c.byte_len as usize;
        let (mr, at) = match shared.receives {
            Some((_, mr)) => (mr.id, c.wr_id * u64::from(shared.slot)),
            None => {
                let s = self.sessions.get(self.by_qp.get(c.qp)?)?;
                s.parts.as_ref()?.receive(c.wr_id)?
            }
        };
        let mut bytes = std::mem::take(&mut self.scratch);
        if bytes.len() < len {
            bytes.resize(len, 0);
        }
        let read = bytes.get_mut(..len).map(|into| port.read(mr, at, into));
        if matches!(read, Some(Ok(()))) {
            return Some(bytes);
        }
        self.scratch = bytes;
        None
    }
}

impl<P: Port, A: LaneApp<P>> LaneShard<P, A> {
    /// Sees to everything that completed; whether the device is there. `ring` posts what was
    /// gathered for that.
    pub(super) fn poll_completions(&mut self, now: Timestamp, ring: fn(&mut Host<P>)) -> bool {
        let mut any = false;
        loop {
            let Some(n) = self.poll_batch(now) else {
                return false;
            };
            if n > 0 {
                any = true;
                ring(&mut self.host);
            }
            if n < BATCH {
                break;
            }
        }
        self.host.wakes.on_polled(any);
        true
    }

    /// Sees to so many completions at most; `None` where there are none to be had.
    fn poll_batch(&mut self, now: Timestamp) -> Option<usize> {
        let host = &mut self.host;
        let (shared, port) = (host.shared.as_ref()?, host.port.as_mut()?);
        let n = match port.poll_cq(shared.cq, &mut host.completions) {
            Ok(n) => n,
            Err(error) => {
                tracing::error!(%error, "completions cannot be taken");
                self.host.lose_device();
                return None;
            }
        };
        for at in 0..n {
            if let Some(completion) = self.host.completions.get(at).copied() {
                self.on_completion(now, completion);
            }
        }
        Some(n)
    }

    fn on_completion(&mut self, now: Timestamp, c: Completion) {
        let key = self.host.by_qp.find(c.qp);
        let received = matches!(
            c.opcode,
            CompletionOpcode::Recv | CompletionOpcode::RecvRdmaWithImm
        );
        if !received {
            if let Some(key) = key {
                self.on_sent(key, &c);
            }
            return;
        }
        if c.status == Status::Success
            && let Some(key) = key
            && let Some(bytes) = self.host.fetch(&c)
        {
            self.host.repost(c.qp, c.wr_id);
            let frame = bytes.get(..c.byte_len as usize).and_then(Frame::parse);
            self.on_queue_frame(now, key, frame);
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
