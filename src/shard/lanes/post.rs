//! What a turn of the shard gathered for queue pairs, posted at its end: each lane's messages,
//! operations and acknowledgement as one list, for which the device is rung once, and so the
//! receives that were used. A turn ends with each batch of completions as well; but receives that
//! a train of a device in user space used wait for the turn's own end, as the next train does.
//!
//! Messages and operations go in the order in which they were asked for. What a provider refused,
//! and what stood behind it, was never posted: messages are still to be sent, operations still to
//! be done, by whatever carries the lane next.

use super::app::Operation;
use super::host::Host;
use super::session::{Carrier, Session};
use crate::rdma::lane::HEADER;
use crate::rdma::parts::{INLINE, POSTS, Parts, post_receives};
use crate::rdma::slots::Key;
use crate::rdma::{
    Data, MemoryRegion, Port, PostError, QueuePair, QueuePairId, Remote, SendOp, SendRequest, Sge,
};
use smallvec::SmallVec;

/// What a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Message,
    Operation,
    Ack,
}

/// A request that is about to be posted.
pub(super) struct Planned {
    what: What,
    op: SendOp,
    sge: Sge,
    /// Its bytes are the ones that stand inline at its place.
    inline: bool,
}

/// What a lane posts with.
struct Means {
    qp: QueuePair,
    /// The memory that messages are sent from.
    send: MemoryRegion,
    /// The own region.
    region: MemoryRegion,
    /// Bytes that may be given inline, 0 where that is of no use.
    inline: usize,
}

impl Means {
    fn of(parts: &Parts, prefers_inline: bool) -> Option<Self> {
        let (qp, send) = (parts.qp()?, parts.send()?);
        Some(Self {
            qp,
            send,
            // Without a region there are only operations of no bytes.
            region: parts.region().unwrap_or(send),
            inline: if prefers_inline { parts.inline() } else { 0 },
        })
    }
}

/// The bytes of an inline message at its place in a batch.
fn inline_at(inline: &[u8], n: usize, len: u32) -> Option<&[u8]> {
    let at = n * INLINE as usize;
    inline.get(at..at + len as usize)
}

/// The next message but `n`, its frame in place; `None` when its memory is gone.
fn plan_message<P: Port>(
    port: &mut P,
    s: &Session,
    means: &Means,
    number: u64,
    inline: &mut [u8],
) -> Option<Planned> {
    let (frame, at, len) = s.message(number);
    let mr = &means.send;
    port.write(mr.id, at, &frame.to_bytes()).ok()?;
    let len = HEADER as u32 + len;
    let short = (len as usize <= means.inline)
        .then(|| inline.get_mut(..len as usize))
        .flatten();
    Some(Planned {
        what: What::Message,
        op: SendOp::Send,
        sge: mr.sge(at, len),
        inline: short.is_some_and(|short| port.read(mr.id, at, short).is_ok()),
    })
}

fn plan_operation(s: &Session, means: &Means, op: &Operation) -> Option<Planned> {
    let peer = s.peer?.region?;
    let (local, remote, len) = op.span();
    let remote = Remote {
        addr: peer.addr.wrapping_add(remote),
        rkey: peer.rkey,
    };
    let send_op = match *op {
        Operation::Write { .. } => SendOp::RdmaWrite(remote),
        Operation::Read { .. } => SendOp::RdmaRead(remote),
        Operation::CompareSwap { compare, swap, .. } => SendOp::AtomicCmpAndSwp {
            remote,
            compare,
            swap,
        },
        Operation::FetchAdd { add, .. } => SendOp::AtomicFetchAndAdd { remote, add },
    };
    Some(Planned {
        what: What::Operation,
        op: send_op,
        sge: means.region.sge(local, len),
        inline: false,
    })
}

/// What a lane posts next, as far as one list holds it.
fn plan<P: Port>(
    port: &mut P,
    s: &Session,
    means: &Means,
    (batch, inline): (&mut Vec<Planned>, &mut Vec<u8>),
) {
    batch.clear();
    let (mut messages, mut operations) = (0, 0);
    if means.inline > 0 {
        inline.resize(POSTS * INLINE as usize, 0);
    }
    while batch.len() < POSTS {
        let taken = batch.len() as u32;
        let op = s.unposted(operations);
        let planned = if let Some(op) = op.filter(|op| op.after <= s.flow.sent() + messages) {
            operations += 1;
            let free = s.has_slot(taken);
            free.then(|| plan_operation(s, means, &op.op)).flatten()
        } else if let Some(number) = s.flow.next_but(messages)
            && s.has_slot(taken + 2)
        {
            messages += 1;
            let at = batch.len() * INLINE as usize;
            let inline = inline.get_mut(at..).unwrap_or_default();
            plan_message(port, s, means, number, inline)
        } else {
            None
        };
        match planned {
            Some(planned) => batch.push(planned),
            None => break,
        }
    }
    // A message tells it as well.
    let owes = messages == 0 && s.flow.owes_ack();
    if owes && batch.len() < POSTS && s.has_slot(batch.len() as u32) {
        batch.push(Planned {
            what: What::Ack,
            op: SendOp::Send,
            sge: means.send.sge(0, 0),
            inline: true,
        });
    }
}

/// Posts a batch as one list.
fn post<P: Port>(
    port: &mut P,
    s: &Session,
    qp: QueuePairId,
    (batch, inline): (&[Planned], &[u8]),
) -> Result<(), PostError> {
    let ack = s.ack_frame().to_bytes();
    // For one none is made.
    if let [one] = batch {
        return port.post_send(qp, &[request(s, 0, one, (inline, &ack))]);
    }
    let all = batch.iter().enumerate();
    let requests: SmallVec<[SendRequest<'_>; POSTS]> = all
        .map(|(n, planned)| request(s, n, planned, (inline, &ack)))
        .collect();
    port.post_send(qp, &requests)
}

/// The request at a place of a batch.
#[inline]
fn request<'a>(
    s: &Session,
    n: usize,
    planned: &'a Planned,
    (inline, ack): (&'a [u8], &'a [u8]),
) -> SendRequest<'a> {
    let data = match planned.what {
        What::Ack => Some(ack),
        _ if planned.inline => inline_at(inline, n, planned.sge.length),
        _ => None,
    };
    let data = match data {
        Some(bytes) => Data::Inline(bytes),
        None => Data::Sges(std::slice::from_ref(&planned.sge)),
    };
    let index = s.posted + n as u64;
    let mut request = SendRequest::new(index, planned.op, data);
    request.signaled = planned.what == What::Operation || s.is_signaled(index);
    request
}

/// Posts the one message that a lane has to post; not when its memory is gone.
fn post_message<P: Port>(port: &mut P, s: &mut Session, number: u64) -> Result<(), PostError> {
    let found = s.parts.as_ref().and_then(|p| p.qp().zip(p.send()));
    let Some((qp, mr)) = found else {
        return Ok(());
    };
    let (frame, at, len) = s.message(number);
    if port.write(mr.id, at, &frame.to_bytes()).is_err() {
        return Ok(());
    }
    let sge = mr.sge(at, HEADER as u32 + len);
    let data = Data::Sges(std::slice::from_ref(&sge));
    let mut request = SendRequest::new(s.posted, SendOp::Send, data);
    request.signaled = s.is_signaled(s.posted);
    port.post_send(qp.id, &[request])?;
    s.flow.on_sent();
    s.posted += 1;
    Ok(())
}

/// Counts requests as posted.
fn note(s: &mut Session, posted: &[Planned]) {
    for planned in posted {
        match planned.what {
            What::Message => s.flow.on_sent(),
            What::Ack => s.flow.on_told(),
            What::Operation => {
                let first = s.ops.len() - s.unposted;
                if let Some(op) = s.ops.get_mut(first) {
                    op.index = s.posted;
                    s.unposted -= 1;
                }
            }
        }
        s.posted += 1;
    }
}

impl<P: Port> Host<P> {
    /// Posts all that was gathered.
    pub(super) fn ring(&mut self) {
        // First, for what is sent below lets peers send again.
        self.post_receives();
        self.send_gathered();
    }

    /// Posts what was gathered to be sent.
    pub(super) fn send_gathered(&mut self) {
        for at in 0..self.gathered.len() {
            if let Some(key) = self.gathered.get(at).copied() {
                while self.post_some(key) {}
            }
        }
        self.gathered.clear();
    }

    /// Posts what a lane has to post, as far as one list holds it; whether there may be more.
    fn post_some(&mut self, key: Key) -> bool {
        let (Some(s), Some(port)) = (self.sessions.get_mut(key), &mut self.port) else {
            return false;
        };
        s.gathered = false;
        if !s.is_in_use() || s.carrier != Carrier::Queue {
            return false;
        }
        // Mostly it is one message, for which no list is made.
        let Some(number) = s.lone().filter(|_| !port.prefers_inline()) else {
            return self.post_batch(key);
        };
        if let Err(refused) = post_message(port, s, number) {
            self.fail_over(key, &refused.error.to_string());
        }
        false
    }

    /// The same by a list.
    fn post_batch(&mut self, key: Key) -> bool {
        let (Some(s), Some(port)) = (self.sessions.get_mut(key), &mut self.port) else {
            return false;
        };
        let prefers = port.prefers_inline();
        let Some(means) = s.parts.as_ref().and_then(|p| Means::of(p, prefers)) else {
            return false;
        };
        let batch = &mut self.batch;
        plan(port, s, &means, (batch, &mut self.inline));
        if batch.is_empty() {
            return false;
        }
        match post(port, s, means.qp.id, (batch, &self.inline)) {
            Ok(()) => {
                note(s, batch);
                batch.len() == POSTS
            }
            Err(refused) => {
                note(s, batch.get(..refused.index).unwrap_or_default());
                self.fail_over(key, &refused.error.to_string());
                false
            }
        }
    }

    /// A receive was used, and what it brought was copied.
    pub(super) fn repost(&mut self, qp: QueuePairId, place: u64) {
        self.receives.push((qp, place));
        if self.receives.len() >= POSTS {
            self.post_receives();
        }
    }

    fn post_receives(&mut self) {
        if self.receives.is_empty() {
            return;
        }
        let mut used = std::mem::take(&mut self.receives);
        if self.shared.as_ref().is_some_and(|s| s.receives.is_some()) {
            let posted = self.post_shared(&used);
            used.drain(..posted);
        } else {
            for some in used.chunk_by(|a, b| a.0 == b.0) {
                self.post_own(some);
            }
            used.clear();
        }
        self.receives = used;
    }

    /// Posts receives of all lanes; how many. Those that were refused are posted with the next.
    fn post_shared(&mut self, used: &[(QueuePairId, u64)]) -> usize {
        let (Some(shared), Some(port)) = (&self.shared, &mut self.port) else {
            return used.len();
        };
        let Some((srq, mr)) = shared.receives else {
            return used.len();
        };
        let mut posted = 0;
        for some in used.chunks(POSTS) {
            let places = some.iter().map(|(_, place)| *place);
            let done = post_receives(&mr, shared.slot, places, |b| port.post_srq_recv(srq, b));
            if let Err(refused) = done {
                tracing::error!(error = %refused.error, "a receive could not be posted again");
                return posted + refused.index;
            }
            posted += some.len();
        }
        posted
    }

    /// Posts receives of one queue pair. One that does not take them is left: its peer may send
    /// what there is no place for.
    fn post_own(&mut self, used: &[(QueuePairId, u64)]) {
        let key = used.first().and_then(|(qp, _)| self.by_qp.get(*qp));
        let session = key.and_then(|key| Some((key, self.sessions.get(key)?)));
        // A server may be the first to use a queue pair that both come back to.
        let used_now = |s: &Session| matches!(s.carrier, Carrier::Queue | Carrier::Returning);
        let Some((key, s)) = session.filter(|(_, s)| used_now(s)) else {
            return;
        };
        let (Some(parts), Some(port)) = (&s.parts, &mut self.port) else {
            return;
        };
        for some in used.chunks(POSTS) {
            let places = some.iter().map(|(_, place)| *place);
            if let Err(refused) = parts.post_receives(port, places) {
                return self.fail_over(key, &refused.error.to_string());
            }
        }
    }
}
