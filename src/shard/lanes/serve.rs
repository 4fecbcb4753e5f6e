//! Frames as they arrive, by either way, and operations over streams.

use super::app::{Consume, LaneApp, OpError, Operation};
use super::handle::Lanes;
use super::host::{Host, LaneShard, News};
use super::session::{Carrier, LaneId, Pending, Session, State};
use crate::base::{Timestamp, limits};
use crate::rdma::lane::{Frame, Kind};
use crate::rdma::slots::Key;
use crate::rdma::{Access, Port};

/// Bytes of a piece of a long operation over a stream.
const PIECE: u32 = 32 * 1024;
const DONE: u64 = 0;
const REFUSED: u64 = 1;

/// A frame's header and body; `None` for what is no frame.
type Parsed<'a> = Option<(Frame, &'a [u8])>;

fn u64_at(body: &[u8], at: usize) -> Option<u64> {
    let bytes = body.get(at..at.checked_add(8)?)?;
    bytes.try_into().ok().map(u64::from_be_bytes)
}

impl<P: Port> Host<P> {
    /// Says that there is room again, to an application that found none.
    pub(super) fn room(&mut self, key: Key) {
        if let Some(s) = self.sessions.get_mut(key)
            && std::mem::take(&mut s.wants_room)
        {
            self.tell(key, News::Room);
        }
    }

    /// Asks for an operation by frames, a long one in pieces.
    pub(super) fn write_operation(&mut self, key: Key, pending: Pending) {
        let port = self.port.as_ref();
        let Some(s) = self.sessions.get_mut(key) else {
            return;
        };
        let frame = |kind, number| Frame {
            kind,
            tag: 0,
            number,
            ack: 0,
        };
        let (local, remote, len) = pending.op.span();
        match pending.op {
            Operation::CompareSwap { compare, swap, .. } => {
                let body = [remote, compare, swap].map(u64::to_be_bytes).concat();
                s.say_frame(&frame(Kind::CompareSwap, 0), &body);
                s.stream_operation(pending);
            }
            Operation::FetchAdd { add, .. } => {
                let body = [remote, add].map(u64::to_be_bytes).concat();
                s.say_frame(&frame(Kind::FetchAdd, 0), &body);
                s.stream_operation(pending);
            }
            Operation::Write { .. } | Operation::Read { .. } => {
                let mut at = 0;
                loop {
                    let n = (len - at).min(PIECE);
                    let (local, remote) = (local + u64::from(at), remote + u64::from(at));
                    let op = if matches!(pending.op, Operation::Write { .. }) {
                        let mut body = vec![0; n as usize];
                        s.region.read(port, local, &mut body);
                        s.say_frame(&frame(Kind::Write, remote), &body);
                        Operation::Write {
                            local,
                            remote,
                            len: n,
                        }
                    } else {
                        s.say_frame(&frame(Kind::Read, remote), &n.to_be_bytes());
                        Operation::Read {
                            local,
                            remote,
                            len: n,
                        }
                    };
                    at += n;
                    let last = at == len;
                    s.stream_operation(Pending {
                        op,
                        last,
                        ..pending
                    });
                    if last {
                        break;
                    }
                }
            }
        }
        self.touch(key);
    }

    /// Serves an operation of the peer; its answer, or `None` where it is refused.
    fn serve_operation(&mut self, key: Key, frame: &Frame, body: &[u8]) -> Option<Vec<u8>> {
        let s = self.sessions.get_mut(key)?;
        let allowed = s.plan.access;
        let mut found = [0; 8];
        match frame.kind {
            Kind::Write if allowed.has(Access::REMOTE_WRITE) => {
                let done = s.region.write(self.port.as_mut(), frame.number, body);
                done.then(Vec::new)
            }
            Kind::Read if allowed.has(Access::REMOTE_READ) => {
                let len = u32::from_be_bytes(body.try_into().ok()?).min(limits::LANE_SLOT.1 as u32);
                let mut bytes = vec![0; len as usize];
                let done = s.region.read(self.port.as_ref(), frame.number, &mut bytes);
                done.then_some(bytes)
            }
            Kind::CompareSwap | Kind::FetchAdd if allowed.has(Access::REMOTE_ATOMIC) => {
                let at = u64_at(body, 0).filter(|at| at.is_multiple_of(8))?;
                let (a, b) = (u64_at(body, 8)?, u64_at(body, 16));
                if !s.region.read(self.port.as_ref(), at, &mut found) {
                    return None;
                }
                // Memory has the machine's byte order, as atomics of a queue pair leave it.
                let before = u64::from_ne_bytes(found);
                let after = match frame.kind {
                    Kind::FetchAdd => before.wrapping_add(a),
                    _ if before == a => b?,
                    _ => before,
                };
                let done = s.region.write(self.port.as_mut(), at, &after.to_ne_bytes());
                done.then(|| found.to_vec())
            }
            _ => None,
        }
    }

    /// The peer answered the oldest operation.
    fn on_answer(&mut self, key: Key, frame: &Frame, body: &[u8]) {
        let Some(s) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(pending) = s.take_streamed() else {
            self.misbehaved(key, "an answer to nothing".into());
            return;
        };
        let (local, _, len) = pending.op.span();
        let fetches = !matches!(pending.op, Operation::Write { .. });
        let mut result = if frame.number == DONE {
            Ok(())
        } else {
            Err(OpError::Refused)
        };
        if result.is_ok() && fetches {
            let fits = body.len() == len as usize;
            if !fits || !s.region.write(self.port.as_mut(), local, body) {
                result = Err(OpError::Refused);
            }
        }
        if result.is_err() && !pending.last {
            // The rest of a long operation is answered, too; the application hears of it once.
            forget_pieces(s, &pending);
        }
        if pending.last || result.is_err() {
            if pending.id != FORGOTTEN {
                self.tell(key, News::Done(pending.id, result));
            }
            self.room(key);
        }
    }
}

/// The name of pieces whose operation has failed already. Applications may use it as well: they do
/// not hear of such an operation's end.
const FORGOTTEN: u64 = u64::MAX;

fn forget_pieces(s: &mut Session, failed: &Pending) {
    for piece in s.ops.iter_mut().take_while(|p| p.id == failed.id) {
        piece.id = FORGOTTEN;
        if piece.last {
            break;
        }
    }
}

impl<P: Port, A: LaneApp<P>> LaneShard<P, A> {
    /// A frame by the queue pair: nothing but messages and what tells of them.
    pub(super) fn on_queue_frame(&mut self, now: Timestamp, key: Key, frame: Parsed<'_>) {
        self.take_frame(now, key, frame, true);
    }

    /// A frame by the stream.
    pub(super) fn on_frame(&mut self, now: Timestamp, key: Key, frame: Parsed<'_>) {
        self.take_frame(now, key, frame, false);
    }

    fn take_frame(&mut self, now: Timestamp, key: Key, parsed: Parsed<'_>, by_queue: bool) {
        let Some((frame, body)) = parsed else {
            self.host
                .misbehaved(key, "the peer sent what is no frame".into());
            return;
        };
        let Some(s) = self.host.sessions.get_mut(key) else {
            return;
        };
        let counted = matches!(frame.kind, Kind::Message | Kind::Ack);
        if by_queue && (!counted || s.server && s.carrier == Carrier::Returning) {
            let why = "an operation in a message, or a message too early";
            return self.host.misbehaved(key, why.into());
        }
        if s.state == State::Greeting && s.carrier != Carrier::Stream {
            // The queue pair was faster than the stream: who sends is ready.
            s.early = true;
            return self.take_early(now, key, parsed, by_queue);
        }
        if !counted {
            self.on_operation(key, &frame, body);
            return self.host.pump(key);
        }
        let room = s.flow.on_ack(frame.ack);
        let fresh = room.and_then(|_| match frame.kind {
            Kind::Message => s.flow.on_message(frame.number),
            _ => Ok(false),
        });
        if room == Ok(true) {
            self.host.room(key);
        }
        match fresh {
            Ok(true) => self.deliver(now, key, frame.tag, body),
            Ok(false) => self.host.pump(key),
            Err(e) => self.host.misbehaved(key, e.to_string()),
        }
    }

    #[cold]
    fn take_early(&mut self, now: Timestamp, key: Key, parsed: Parsed<'_>, by_queue: bool) {
        self.host.ready(key, true);
        self.take_frame(now, key, parsed, by_queue);
    }

    /// An operation over the stream, or an answer to one; never on the way of a message.
    #[cold]
    fn on_operation(&mut self, key: Key, frame: &Frame, body: &[u8]) {
        if frame.kind == Kind::Done {
            return self.host.on_answer(key, frame, body);
        }
        let answer = self.host.serve_operation(key, frame, body);
        if let Some(s) = self.host.sessions.get_mut(key) {
            let done = Frame {
                kind: Kind::Done,
                tag: 0,
                number: if answer.is_some() { DONE } else { REFUSED },
                ack: 0,
            };
            s.say_frame(&done, answer.as_deref().unwrap_or_default());
            self.host.touch(key);
        }
    }

    /// A message, which the application has not seen yet.
    fn deliver(&mut self, now: Timestamp, key: Key, tag: u32, body: &[u8]) {
        // What happened before the message is told before it.
        if !self.host.news.is_empty() {
            self.bring_news(now);
        }
        let host = &mut self.host;
        let lanes = &mut Lanes { now, host };
        let consumed = self.app.on_message(lanes, LaneId(key), tag, body) == Consume::Now;
        let host = &mut self.host;
        let Some(s) = host.sessions.get_mut(key) else {
            return;
        };
        s.flow.consume(u64::from(consumed));
        // Its connection is left alone, unless this may have been the last message.
        let last = s.peer_total.is_some();
        let pumped = s.pump_queue(key, &mut host.gathered);
        if last {
            host.touch(key);
        }
        if !pumped {
            host.pump(key);
        }
    }
}
