//! One lane's state at either end.

use super::app::{LaneEnd, LaneError, Operation};
use super::returns::Way;
use crate::base::Timestamp;
use crate::conn::ConnId;
use crate::rdma::bootstrap::{Message, Terms};
use crate::rdma::lane::{Flow, Frame, HEADER, Kind};
use crate::rdma::parts::{Parts, Plan};
use crate::rdma::quota::Reservation;
use crate::rdma::slots::Key;
use crate::rdma::{MemoryRegion, Port};
use crate::wire::StreamId;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Names a lane of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId(pub(super) Key);

/// How far a lane is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The connection is being made.
    Connecting,
    /// A hello, a welcome, or the word that the client is ready is waited for.
    Greeting,
    /// In use.
    Open,
    /// We said bye.
    Leaving,
    /// Both know how much there was; the connection is about to be closed.
    Left,
}

/// What carries frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    Stream,
    Queue,
    /// From the queue pair to the stream; nothing is sent until both said what they have.
    Changing,
    /// From the stream to another queue pair; nothing is sent until the peer is ready.
    Returning,
}

/// Memory of a lane: registered, or plain where there is no queue pair.
#[derive(Debug, Default)]
pub(super) enum Memory {
    #[default]
    None,
    Plain(Vec<u8>),
    Registered(MemoryRegion),
}

impl Memory {
    pub fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Plain(bytes) => bytes.len(),
            Self::Registered(mr) => mr.len,
        }
    }

    fn range(&self, at: u64, len: usize) -> Option<std::ops::Range<usize>> {
        let at = usize::try_from(at).ok()?;
        let end = at.checked_add(len).filter(|end| *end <= self.len())?;
        Some(at..end)
    }

    pub fn holds(&self, at: u64, len: usize) -> bool {
        self.range(at, len).is_some()
    }

    pub fn read<P: Port>(&self, port: Option<&P>, at: u64, into: &mut [u8]) -> bool {
        if let Self::Registered(mr) = self {
            return port.is_some_and(|p| p.read(mr.id, at, into).is_ok());
        }
        let Some(range) = self.range(at, into.len()) else {
            return false;
        };
        if let Self::Plain(bytes) = self {
            into.copy_from_slice(bytes.get(range).unwrap_or_default());
        }
        true
    }

    /// The same bytes, no longer registered.
    fn unregister<P: Port>(&mut self, port: &P) {
        let Self::Registered(mr) = self else {
            return;
        };
        let mut bytes = vec![0; mr.len];
        if let Err(error) = port.read(mr.id, 0, &mut bytes) {
            tracing::error!(%error, "a lane's memory is lost");
        }
        *self = Self::Plain(bytes);
    }

    #[inline]
    pub fn write<P: Port>(&mut self, port: Option<&mut P>, at: u64, from: &[u8]) -> bool {
        if let Self::Registered(mr) = self {
            return port.is_some_and(|p| p.write(mr.id, at, from).is_ok());
        }
        let Some(range) = self.range(at, from.len()) else {
            return false;
        };
        if let Self::Plain(bytes) = self {
            let place = bytes.get_mut(range).unwrap_or_default();
            place.copy_from_slice(from);
        }
        true
    }
}

/// The number of a request that no queue pair has.
pub(super) const UNPOSTED: u64 = u64::MAX;

/// An operation under way, or a piece of one over the stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub id: u64,
    pub op: Operation,
    /// The request's number in the send queue, or [`UNPOSTED`].
    pub index: u64,
    /// Messages that were accepted before it, and that it does not overtake.
    pub after: u64,
    /// Whether the application is told when it is done.
    pub last: bool,
}

/// A lane.
#[derive(Debug)]
pub(super) struct Session {
    pub server: bool,
    pub conn: Option<ConnId>,
    pub stream: Option<StreamId>,
    pub local: IpAddr,
    pub remote: SocketAddr,
    pub client: u64,
    pub state: State,
    pub carrier: Carrier,
    pub plan: Plan,
    pub peer: Option<Terms>,
    pub parts: Option<Parts>,
    pub send: Memory,
    pub region: Memory,
    pub flow: Flow,
    /// Tag and length of each message that the peer has not consumed, by number modulo the window.
    pub messages: Vec<(u32, u32)>,
    pub ops: VecDeque<Pending>,
    /// Of them and their pieces those that were asked for by the stream.
    pub streamed: usize,
    /// The newest of them, which wait to be posted.
    pub unposted: usize,
    /// It is among those that post something when the turn ends.
    pub gathered: bool,
    pub posted: u64,
    pub completed: u64,
    /// Received bytes of the stream that are not read yet.
    pub inbox: Vec<u8>,
    /// Bytes for the stream, from `out_at` on.
    pub out: Vec<u8>,
    pub out_at: usize,
    pub told_fallback: bool,
    pub peer_fallback: Option<u64>,
    /// How many messages the peer says there are.
    pub peer_total: Option<u64>,
    pub acked_bye: bool,
    /// A message came by the queue pair before the word that the client is ready.
    pub early: bool,
    /// The peer answered our goodbye.
    pub answered: bool,
    pub reservation: Option<Reservation>,
    /// The application found the lane full.
    pub wants_room: bool,
    pub status_only: bool,
    /// It counts among the lanes that are open.
    pub counted: bool,
    /// Why the lane has no queue pair.
    pub why_quic: Option<String>,
    pub deadline: Timestamp,
    /// Back to a queue pair.
    pub way: Way,
    pub dirty: bool,
    pub end: Option<LaneEnd>,
}

impl Session {
    pub fn new(server: bool, plan: Plan, deadline: Timestamp) -> Self {
        Self {
            server,
            conn: None,
            stream: None,
            local: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            remote: crate::base::net::UNSPECIFIED,
            client: 0,
            state: State::Connecting,
            carrier: Carrier::Stream,
            plan,
            peer: None,
            parts: None,
            send: Memory::None,
            region: Memory::None,
            flow: Flow::new(0),
            messages: Vec::new(),
            ops: VecDeque::new(),
            streamed: 0,
            unposted: 0,
            gathered: false,
            posted: 0,
            completed: 0,
            inbox: Vec::new(),
            out: Vec::new(),
            out_at: 0,
            told_fallback: false,
            peer_fallback: None,
            peer_total: None,
            acked_bye: false,
            early: false,
            answered: false,
            reservation: None,
            wants_room: false,
            status_only: false,
            counted: false,
            why_quic: None,
            deadline,
            way: Way::new(),
            dirty: false,
            end: None,
        }
    }

    /// Removes what the lane has of a device; what its memory holds stays.
    pub fn leave_device<P: Port>(&mut self, port: &mut P) {
        self.send.unregister(port);
        self.region.unregister(port);
        if let Some(mut parts) = self.parts.take() {
            // The identity is charged as before: the memory is there.
            self.reservation = self.reservation.take().or(parts.take_reservation());
            parts.tear_down(port);
        }
    }

    pub fn say(&mut self, message: &Message<'_>) {
        message.encode(&mut self.out);
    }

    /// A frame for the stream.
    pub fn say_frame(&mut self, frame: &Frame, body: &[u8]) {
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.extend(frame.to_bytes());
        bytes.extend_from_slice(body);
        self.say(&Message::Frame(&bytes));
    }

    pub fn backlog(&self) -> usize {
        self.out.len() - self.out_at
    }

    /// Messages and operations as the two sides agreed on them.
    pub fn agree(&mut self, peer: Terms) {
        self.plan.slot = self.plan.slot.min(peer.slot);
        self.plan.window = self.plan.window.min(peer.window);
        self.plan.operations = self.plan.operations.min(peer.operations);
        self.flow = Flow::new(self.plan.window);
        self.messages = vec![(0, 0); self.plan.window as usize];
        self.peer = Some(peer);
    }

    pub fn max_message(&self) -> usize {
        self.plan.slot as usize - HEADER
    }

    #[inline]
    pub fn place(&self, number: u64) -> (usize, u64) {
        let n = number % u64::from(self.plan.window.max(1));
        (n as usize, n * u64::from(self.plan.slot))
    }

    /// Has the lane post what it may when the turn ends.
    #[inline]
    pub fn gather(&mut self, key: Key, gathered: &mut Vec<Key>) {
        if !std::mem::replace(&mut self.gathered, true) {
            gathered.push(key);
        }
    }

    /// The same for one that is carried by its queue pair; whether it is.
    #[inline]
    pub fn pump_queue(&mut self, key: Key, gathered: &mut Vec<Key>) -> bool {
        let queue = self.carrier == Carrier::Queue;
        if queue && !self.gathered && self.is_in_use() {
            self.gather(key, gathered);
        }
        queue
    }

    /// Whether frames may be sent.
    pub fn is_in_use(&self) -> bool {
        matches!(self.state, State::Open | State::Leaving | State::Left)
    }

    /// The message to post when it is all that there is to post.
    #[inline]
    pub fn lone(&self) -> Option<u64> {
        let lone = self.unposted == 0 && self.flow.waiting() == 1 && self.has_slot(2);
        lone.then(|| self.flow.sent())
    }

    /// A message that was accepted: its frame's header, where it stands, and bytes of its body.
    #[inline]
    pub fn message(&self, number: u64) -> (Frame, u64, u32) {
        let (n, at) = self.place(number);
        let (tag, len) = self.messages.get(n).copied().unwrap_or_default();
        let frame = Frame {
            kind: Kind::Message,
            tag,
            number,
            ack: self.flow.ack(),
        };
        (frame, at, len)
    }

    pub fn is_open(&self) -> Result<(), LaneError> {
        let ok = self.state == State::Open && self.end.is_none();
        ok.then_some(()).ok_or(LaneError::Closed)
    }

    /// Whether a request may be posted, so that `spare` more still fit.
    pub fn has_slot(&self, spare: u32) -> bool {
        self.posted - self.completed + u64::from(spare) < u64::from(self.plan.send_depth())
    }

    /// The oldest operation, if it is the one of this request.
    pub fn take_operation(&mut self, index: u64) -> Option<Pending> {
        let oldest = self.ops.front().is_some_and(|op| op.index == index);
        oldest.then(|| self.ops.pop_front()).flatten()
    }

    /// Whether this frame may come by the stream now.
    pub fn takes_by_stream(&self, bytes: &[u8]) -> bool {
        match self.carrier {
            Carrier::Stream => true,
            Carrier::Queue | Carrier::Changing => false,
            Carrier::Returning if self.server => true,
            // The server has spoken its last but for answers.
            Carrier::Returning => Frame::parse(bytes).is_some_and(|(f, _)| f.kind == Kind::Done),
        }
    }

    /// An operation, or a piece of one, was asked for by the stream.
    pub fn stream_operation(&mut self, pending: Pending) {
        self.streamed += 1;
        self.ops.push_back(pending);
    }

    /// The oldest of those.
    pub fn take_streamed(&mut self) -> Option<Pending> {
        self.streamed = self.streamed.checked_sub(1)?;
        self.ops.pop_front()
    }

    /// Whether success of the request of this number is asked for.
    pub fn is_signaled(&self, index: u64) -> bool {
        let every = u64::from(self.plan.send_depth() / 4).max(1);
        index % every == every - 1
    }

    /// The next operation but `n` that waits to be posted.
    pub fn unposted(&self, n: usize) -> Option<&Pending> {
        let first = self.ops.len().checked_sub(self.unposted)?;
        self.ops.get(first + n)
    }

    /// What tells the peer how much was consumed.
    pub fn ack_frame(&self) -> Frame {
        Frame {
            kind: Kind::Ack,
            tag: 0,
            number: 0,
            ack: self.flow.ack(),
        }
    }
}
