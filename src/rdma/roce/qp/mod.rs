//! One reliable-connected queue pair: both of its halves, its state and its path.
//!
//! The requester ([`requester`] sends, [`answers`] takes what comes back) and the responder
//! ([`responder`] takes requests, [`respond`] answers) know nothing of each other but that they
//! share a path and fail together ([`flush`]). Time is an argument; what must be sent is asked for
//! one packet at a time ([`train`]).

mod answers;
mod flush;
mod owed;
mod requester;
mod respond;
mod responder;
mod send_queue;
mod train;
mod window;

use super::config::Config;
use super::memory::{Memory, Span};
use super::queues::{CompletionQueue, RecvQueue, SharedRecvQueue};
use super::stats::Stats;
use super::wire::Icrc;
use crate::base::net::canonical;
use crate::base::{BoundedQueue, FourTuple, SocketId, Timestamp};
use crate::rdma::access::Access;
use crate::rdma::attr::{InitAttr, QpInitAttr, QpState, RtrAttr, RtsAttr};
use crate::rdma::completion::Completion;
use crate::rdma::error::RdmaError;
use crate::rdma::event::AsyncEvent;
use crate::rdma::ids::{CompletionQueueId, QueuePairId, SharedReceiveQueueId};
use crate::rdma::slots::{Key, Slots};
use crate::rdma::work::{RecvRequest, SendRequest, Sge};
use requester::Requester;
use responder::Responder;

/// The rest of the device, as one queue pair may use it.
pub(super) struct Ctx<'a> {
    pub memory: &'a mut Memory,
    pub cqs: &'a mut Slots<CompletionQueue>,
    pub srqs: &'a mut Slots<SharedRecvQueue>,
    pub events: &'a mut BoundedQueue<AsyncEvent>,
    pub stats: &'a mut Stats,
    pub config: &'a Config,
    /// Queue pairs that share what may be under way.
    pub busy: usize,
    pub now: Timestamp,
}

impl Ctx<'_> {
    pub fn event(&mut self, event: AsyncEvent) {
        if self.events.push(event).is_err() {
            self.stats.events_lost += 1;
        }
    }
}

/// Where packets go and come from.
#[derive(Debug)]
pub(super) struct Path {
    pub socket: SocketId,
    /// It is a user of the device's connected socket.
    pub direct: bool,
    pub addresses: FourTuple,
    pub mtu: u32,
    pub dest_qpn: u32,
    pub sent: Icrc,
    pub received: Icrc,
    /// The addresses of the packets that were last taken, for which `received` is.
    pub taken: Option<FourTuple>,
}

impl Path {
    /// Whether packets between these addresses are this path's. The peer's port may be another for
    /// each packet; the checksum is set to it.
    #[inline]
    pub fn takes(&mut self, way: &FourTuple) -> bool {
        self.taken.as_ref() == Some(way) || self.look_at(way)
    }

    fn look_at(&mut self, way: &FourTuple) -> bool {
        let (from, mut to) = (canonical(way.remote), canonical(way.local));
        let expected = &self.addresses;
        if to.ip().is_unspecified() {
            to.set_ip(expected.local.ip());
        }
        if from.ip() != expected.remote.ip() || to.ip() != expected.local.ip() {
            return false;
        }
        if !self.received.is_between(from, to) {
            self.received = Icrc::new(from, to);
        }
        self.taken = Some(*way);
        true
    }
}

#[derive(Debug)]
pub(super) struct Qp {
    /// Its own key; set once it is known.
    pub key: Key,
    pub qpn: u32,
    /// The number that was drawn for it to begin with.
    pub drawn_psn: u32,
    pub pd: Key,
    pub send_cq: Key,
    pub recv_cq: Key,
    pub srq: Option<Key>,
    pub state: QpState,
    access: Access,
    sig_all: bool,
    pub path: Option<Path>,
    pub rq: RecvQueue,
    requester: Requester,
    responder: Responder,
    /// A completion was lost: this queue pair cannot go on.
    lost_completion: bool,
    /// The peer's first packet has been told of.
    greeted: bool,
    /// The last train left answers behind.
    answers_first: bool,
    /// Counted among the device's queue pairs with something under way.
    pub busy: bool,
    /// In the device's list of queue pairs with something to send.
    pub queued: bool,
    /// In the device's list of queue pairs that hold an acknowledgement back.
    pub holding: bool,
    /// The earliest entry of this queue pair in the device's timers.
    pub armed: Timestamp,
}

impl Qp {
    pub fn new(qpn: u32, drawn_psn: u32, pd: Key, attr: &QpInitAttr, max_sge: u32) -> Self {
        let own_receives = if attr.srq.is_some() {
            0
        } else {
            attr.cap.max_recv_wr
        };
        Self {
            key: Key {
                slot: u32::MAX,
                generation: 0,
            },
            qpn,
            drawn_psn,
            pd,
            send_cq: attr.send_cq.0,
            recv_cq: attr.recv_cq.0,
            srq: attr.srq.map(|s| s.0),
            state: QpState::Reset,
            access: Access::NONE,
            sig_all: attr.sq_sig_all,
            path: None,
            rq: RecvQueue::new(own_receives, attr.cap.max_recv_sge),
            requester: Requester::new(&attr.cap),
            responder: Responder::new(max_sge as usize),
            lost_completion: false,
            greeted: false,
            answers_first: false,
            busy: false,
            queued: false,
            holding: false,
            armed: Timestamp::NEVER,
        }
    }

    pub fn id(&self) -> QueuePairId {
        QueuePairId(self.key)
    }

    pub fn enter_init(&mut self, attr: &InitAttr) {
        self.state = QpState::Init;
        self.access = attr.access;
    }

    pub fn enter_rtr(&mut self, attr: &RtrAttr, path: Path) {
        self.state = QpState::Rtr;
        self.path = Some(path);
        self.responder.start(attr);
    }

    pub fn enter_rts(&mut self, attr: &RtsAttr) {
        self.state = QpState::Rts;
        self.requester.start(attr);
    }

    /// From now on long WRITEs leave packet by packet; false when some are posted already.
    pub fn split_writes(&mut self) -> bool {
        let mtu = self.path.as_ref().map_or(0, |path| path.mtu);
        self.requester.split_writes(mtu)
    }

    /// Whether SENDs or WRITEs are under way.
    #[inline]
    pub fn is_busy(&self) -> bool {
        self.requester.is_busy()
    }

    /// When something is due without a packet.
    #[inline]
    pub fn deadline(&self) -> Timestamp {
        self.requester.deadline()
    }

    /// Since when an acknowledgement is held back.
    #[inline]
    pub fn held_since(&self) -> Option<Timestamp> {
        self.responder.owed.held_since()
    }

    /// What is held back may leave.
    pub fn release(&mut self) {
        self.responder.owed.release();
    }

    /// Counts a completion in; a queue without room for it ends the queue pair.
    fn complete(&mut self, ctx: &mut Ctx<'_>, cq: Key, completion: Completion) {
        let Some(queue) = ctx.cqs.get_mut(cq) else {
            return;
        };
        if queue.push(completion) {
            return;
        }
        self.lost_completion = true;
        let first = !std::mem::replace(&mut queue.overrun, true);
        ctx.stats.cq_overruns += 1;
        if first {
            ctx.event(AsyncEvent::CqErr(CompletionQueueId(cq)));
        }
    }

    /// Takes the oldest receive: its number, and how much it holds, unless some of that is not
    /// there. Its pieces, checked, are the responder's. `None` when there is none.
    fn take_receive(&mut self, ctx: &mut Ctx<'_>) -> Option<(u64, Option<u32>)> {
        let mut limit = 0;
        let (queue, pd) = match self.srq {
            None => (&mut self.rq, self.pd),
            Some(key) => {
                let shared = ctx.srqs.get_mut(key)?;
                limit = shared.limit as usize;
                (&mut shared.queue, shared.pd)
            }
        };
        let (wr_id, sges, near) = queue.take()?;
        let spans = &mut self.responder.spans;
        spans.clear();
        let capacity = match sges {
            [one] => {
                let span = ctx.memory.local(pd, one, true, near);
                spans.extend(span);
                span.map(|span| span.len)
            }
            _ => name_all(ctx.memory, (pd, near), sges, spans),
        };
        if queue.len() < limit {
            self.tell_limit(ctx);
        }
        Some((wr_id, capacity))
    }

    /// The shared receive queue has become as short as was to be told, once.
    #[cold]
    fn tell_limit(&self, ctx: &mut Ctx<'_>) {
        if let Some(key) = self.srq
            && let Some(shared) = ctx.srqs.get_mut(key)
        {
            shared.limit = 0;
            ctx.event(AsyncEvent::SrqLimitReached(SharedReceiveQueueId(key)));
        }
    }
}

/// Checks a receive's pieces; how much they hold, unless one is not there.
fn name_all(
    memory: &Memory,
    (pd, near): (Key, &mut Option<Key>),
    sges: &[Sge],
    spans: &mut Vec<Span>,
) -> Option<u32> {
    let mut capacity = Some(0u32);
    for sge in sges {
        let span = memory.local(pd, sge, true, near);
        spans.extend(span);
        capacity = capacity.and_then(|sum| Some(sum.saturating_add(span?.len)));
    }
    capacity
}

impl Qp {
    /// Adds a request to the send queue. One that is flushed at once is still completed.
    pub fn post_send(
        &mut self,
        ctx: &mut Ctx<'_>,
        request: &SendRequest<'_>,
        max_message: u32,
    ) -> Result<(), RdmaError> {
        if !matches!(self.state, QpState::Rts | QpState::Err) {
            return Err(RdmaError::State {
                call: "post_send",
                state: self.state,
                allowed: "Rts",
            });
        }
        let queue = &mut self.requester.queue;
        queue.post(ctx.memory, self.pd, request, max_message)?;
        if self.state == QpState::Err {
            self.flush_posted(ctx);
        }
        Ok(())
    }

    /// Adds a receive to this queue pair's own queue.
    pub fn post_recv(
        &mut self,
        ctx: &mut Ctx<'_>,
        request: &RecvRequest<'_>,
    ) -> Result<(), RdmaError> {
        if self.srq.is_some() {
            return Err(RdmaError::SharedReceives);
        }
        if self.state == QpState::Reset {
            return Err(RdmaError::State {
                call: "post_recv",
                state: self.state,
                allowed: "Init, Rtr and Rts",
            });
        }
        self.rq.post(request)?;
        if self.state == QpState::Err {
            self.flush_posted(ctx);
        }
        Ok(())
    }
}
