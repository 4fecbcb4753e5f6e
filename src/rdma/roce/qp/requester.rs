//! The requester: which packet of which request comes next, and when to send again.
//!
//! Everything between `una` and the cursor is on its way. Loss, however it shows, takes the cursor
//! back to `una` (go-back-N): packets are made anew from the request and its memory each time.
//! READs and atomics wait for their answers in the order of their requests.

use super::send_queue::{SendQueue, Wqe};
use super::train::Planned;
use super::window::{Window, is_full};
use super::{Ctx, Qp};
use crate::base::Timestamp;
use crate::base::limits::{MAX_TRAIN_BYTES, MAX_TRAIN_SEGMENTS, ROCE_PACKETS_PER_ACK};
use crate::rdma::attr::{QpCap, QpState, RtsAttr, timeout_nanos};
use crate::rdma::completion::Status;
use crate::rdma::roce::memory::Span;
use crate::rdma::roce::wire::headers::{BTH, ICRC, RETH};
use crate::rdma::roce::wire::{AtomicEth, Ext, Opcode, Place, Psn, Reth};
use crate::rdma::work::SendOp;
use std::time::Duration;

/// Numbers under way at once, so that ahead and behind can be told apart.
const MAX_NUMBERS: u32 = 1 << 22;

#[derive(Debug)]
pub(super) struct Requester {
    pub queue: SendQueue,
    /// The first number that no request has.
    next: Psn,
    /// The number behind the last that was ever sent.
    pub sent: Psn,
    /// The oldest number that was not acknowledged or answered.
    pub una: Psn,
    /// The request of the next packet, and which of its packets it is.
    cursor: u64,
    packet: u32,
    /// Packets of SENDs and WRITEs between `una` and the cursor.
    flight: u32,
    /// READs and atomics that were sent and not answered.
    fetching: u32,
    since_ack_request: u32,
    /// How much may be under way.
    pub window: Window,
    /// The missing answer that was asked for again already.
    gap: Option<Psn>,
    /// When to send again for want of an answer.
    timer: Timestamp,
    /// Until when the peer asked us to wait.
    pub waits_until: Timestamp,
    timeout: Option<Duration>,
    retries: u8,
    retries_left: u8,
    pub rnr_retries: u8,
    pub rnr_left: u8,
    max_fetching: u32,
    /// Bytes of data in a whole train of WRITEs where each packet is one, those without immediate
    /// data; 0 where they are not split.
    train: usize,
}

impl Requester {
    pub fn new(cap: &QpCap) -> Self {
        Self {
            queue: SendQueue::new(cap),
            next: Psn::default(),
            sent: Psn::default(),
            una: Psn::default(),
            cursor: 0,
            packet: 0,
            flight: 0,
            fetching: 0,
            since_ack_request: 0,
            window: Window::default(),
            gap: None,
            timer: Timestamp::NEVER,
            waits_until: Timestamp::NEVER,
            timeout: None,
            retries: 0,
            retries_left: 0,
            rnr_retries: 0,
            rnr_left: 0,
            max_fetching: 0,
            train: 0,
        }
    }

    pub fn start(&mut self, attr: &RtsAttr) {
        let psn = Psn::new(attr.sq_psn);
        (self.next, self.sent, self.una) = (psn, psn, psn);
        self.timeout = timeout_nanos(attr.timeout).map(Duration::from_nanos);
        (self.retries, self.retries_left) = (attr.retry_cnt, attr.retry_cnt);
        (self.rnr_retries, self.rnr_left) = (attr.rnr_retry, attr.rnr_retry);
        self.max_fetching = attr.max_rd_atomic.into();
        self.window = Window::default();
        self.train = 0;
        self.stop();
    }

    /// From now on long WRITEs are asked for packet by packet; false when some are there already,
    /// which go on as they began.
    pub fn split_writes(&mut self, mtu: u32) -> bool {
        let idle = self.queue.front().is_none();
        if idle {
            let packet = mtu as usize + BTH + RETH + ICRC;
            let packets = (MAX_TRAIN_BYTES / packet).min(MAX_TRAIN_SEGMENTS);
            self.train = packets * mtu as usize;
        }
        idle
    }

    /// A window of whole trains: what is left of one costs as much as another.
    #[inline]
    pub fn whole_trains(&self, window: usize) -> usize {
        match self.train {
            0 => window,
            train if window < train => window,
            train => window - window % train,
        }
    }

    /// Nothing is under way any more.
    pub fn stop(&mut self) {
        (self.cursor, self.packet) = (self.queue.head(), 0);
        (self.flight, self.fetching, self.gap) = (0, 0, None);
        (self.timer, self.waits_until) = (Timestamp::NEVER, Timestamp::NEVER);
    }

    #[inline]
    pub fn deadline(&self) -> Timestamp {
        self.timer.min(self.waits_until)
    }

    /// Whether every packet of every request was sent.
    #[inline]
    pub fn is_done(&self) -> bool {
        self.queue.get(self.cursor).is_none()
    }

    /// Whether SENDs or WRITEs are under way.
    pub fn is_busy(&self) -> bool {
        self.flight > 0
    }

    /// Whether anything is under way.
    fn outstanding(&self) -> bool {
        if self.cursor != self.queue.head() {
            return self.cursor > self.queue.head();
        }
        let first = self.queue.front().filter(|w| w.begun());
        first.is_some_and(|w| w.first.plus(self.packet).since(self.una) > 0)
    }

    /// Something was acknowledged up to `una`: counters begin anew, and the cursor is not behind.
    pub fn progressed(&mut self, now: Timestamp) {
        (self.retries_left, self.rnr_left, self.gap) = (self.retries, self.rnr_retries, None);
        let head = self.queue.head();
        if self.cursor < head {
            (self.cursor, self.packet) = (head, 0);
        }
        let done = self.done_of_head();
        if self.cursor == head && self.packet < done {
            self.packet = done;
        }
        self.timer = match self.timeout {
            Some(timeout) if self.outstanding() => now + timeout,
            _ => Timestamp::NEVER,
        };
    }

    /// Packets of the oldest request that are acknowledged or answered.
    pub fn done_of_head(&self) -> u32 {
        let head = self.queue.front().filter(|w| w.begun());
        head.map_or(0, |w| self.una.since(w.first).max(0) as u32)
    }

    /// Moves `una` over packets of SENDs and WRITEs.
    pub fn acknowledged(&mut self, to: Psn) {
        let n = to.since(self.una).max(0) as u32;
        self.flight = self.flight.saturating_sub(n);
        self.una = to;
    }

    /// Takes the oldest request out, which is done.
    pub fn pop(&mut self) -> Option<Wqe> {
        let wqe = self.queue.pop()?;
        if wqe.op.fetches() && wqe.begun() {
            self.fetching = self.fetching.saturating_sub(1);
        }
        Some(wqe)
    }

    /// Back to the oldest packet that is not acknowledged.
    pub fn rewind(&mut self) {
        (self.cursor, self.packet) = (self.queue.head(), self.done_of_head());
        (self.flight, self.timer) = (0, Timestamp::NEVER);
        // The first packet sent again asks for an answer.
        self.since_ack_request = ROCE_PACKETS_PER_ACK;
    }

    /// Back, unless this very answer was asked for again already.
    pub fn rewind_to_gap(&mut self) -> bool {
        if self.gap == Some(self.una) {
            return false;
        }
        self.gap = Some(self.una);
        self.rewind();
        true
    }

    /// Uses up one retry and goes back; false when none is left.
    pub fn retry(&mut self) -> bool {
        let Some(left) = self.retries_left.checked_sub(1) else {
            return false;
        };
        self.retries_left = left;
        self.window.lost();
        self.rewind();
        true
    }

    /// The request that nothing stands before and that cannot be done.
    #[inline]
    fn fault(&self) -> Option<Status> {
        if !self.queue.faulty {
            return None;
        }
        let head = self.queue.front()?;
        head.fault.filter(|_| self.cursor == self.queue.head())
    }

    /// Whether a packet may be sent now, with so many bytes of SENDs and WRITEs under way at most.
    #[inline]
    pub fn may_send(&self, mtu: u32, window: usize) -> bool {
        self.admitted(mtu, window).is_some()
    }

    /// The request whose packet may be sent now, the number of its first and how many it takes.
    #[inline]
    fn admitted(&self, mtu: u32, window: usize) -> Option<(&Wqe, Psn, u32)> {
        if self.waits_until != Timestamp::NEVER {
            return None;
        }
        let wqe = self.queue.get(self.cursor)?;
        if wqe.fault.is_some() {
            return None;
        }
        let (first, packets) = if wqe.begun() {
            (wqe.first, wqe.packets)
        } else {
            let packets = wqe.packets_at(mtu);
            let fetch_waits = || wqe.op.fetches() && self.fetching >= self.max_fetching;
            let fenced = wqe.fence && self.fetching > 0;
            // A message of its own may take all numbers, two may not take more.
            let numbers = || self.next.plus(packets).since(self.una).unsigned_abs();
            let numbers_used = || self.next != self.una && numbers() > MAX_NUMBERS;
            if fenced || fetch_waits() || numbers_used() {
                return None;
            }
            (self.next, packets)
        };
        // A window that has become smaller is full, too; but an answer must be on its way.
        let waits = self.since_ack_request == 0 && is_full(window, self.flight, mtu);
        (!waits || wqe.op.fetches()).then_some((wqe, first, packets))
    }

    /// The next packet, when one may be sent now.
    #[inline]
    pub fn plan(&self, mtu: u32, window: usize) -> Option<Planned> {
        let (wqe, first, packets) = self.admitted(mtu, window)?;
        if wqe.op.fetches() {
            return Some(self.plan_fetch(wqe, first, mtu));
        }
        let offset = self.packet.saturating_mul(mtu);
        let place = Place::of(self.packet, packets);
        let payload = wqe.len.saturating_sub(offset).min(mtu);
        let (opcode, ext) = match wqe.op {
            SendOp::RdmaWrite(remote) if self.train > 0 => {
                let reth = Reth {
                    addr: remote.addr.wrapping_add(offset.into()),
                    rkey: remote.rkey,
                    len: payload,
                };
                (Opcode::write(Place::Only, false), Ext::Reth(reth))
            }
            _ => message_packet(wqe, place),
        };
        Some(Planned {
            opcode,
            ext,
            psn: first.plus(self.packet),
            offset,
            payload,
            ack_req: self.asks(place, is_full(window, self.flight + 1, mtu)),
            solicited: wqe.solicited && place.ends(),
        })
    }

    /// Whether this packet asks for an acknowledgement: none that could be the last for a while
    /// may go without. Completions of what others follow come with theirs.
    #[inline]
    fn asks(&self, place: Place, stalls: bool) -> bool {
        if stalls || self.since_ack_request >= ROCE_PACKETS_PER_ACK {
            return true;
        }
        if !place.ends() {
            return false;
        }
        let goes_on = |next: &Wqe| !next.op.fetches() && !next.fence && next.fault.is_none();
        !self.queue.get(self.cursor + 1).is_some_and(goes_on)
    }

    fn plan_fetch(&self, wqe: &Wqe, first: Psn, mtu: u32) -> Planned {
        let offset = self.packet.saturating_mul(mtu);
        let (opcode, ext) = match wqe.op {
            SendOp::AtomicCmpAndSwp {
                remote,
                compare,
                swap,
            } => (
                Opcode::CompareSwap,
                Ext::Atomic(AtomicEth {
                    addr: remote.addr,
                    rkey: remote.rkey,
                    swap_add: swap,
                    compare,
                }),
            ),
            SendOp::AtomicFetchAndAdd { remote, add } => (
                Opcode::FetchAdd,
                Ext::Atomic(AtomicEth {
                    addr: remote.addr,
                    rkey: remote.rkey,
                    swap_add: add,
                    compare: 0,
                }),
            ),
            // A READ that was answered in part asks for the rest.
            SendOp::RdmaRead(remote)
            | SendOp::RdmaWrite(remote)
            | SendOp::RdmaWriteWithImm(remote, _) => (
                Opcode::ReadRequest,
                Ext::Reth(Reth {
                    addr: remote.addr.wrapping_add(offset.into()),
                    rkey: remote.rkey,
                    len: wqe.len.saturating_sub(offset),
                }),
            ),
            SendOp::Send | SendOp::SendWithImm(_) => (Opcode::SendOnly, Ext::None),
        };
        Planned {
            opcode,
            ext,
            psn: first.plus(self.packet),
            offset,
            payload: 0,
            ack_req: true,
            solicited: false,
        }
    }

    /// A planned packet was written.
    #[inline]
    pub fn commit(&mut self, planned: &Planned, mtu: u32, now: Timestamp) {
        let cursor = self.cursor;
        let Some(wqe) = self.queue.get_mut(cursor) else {
            return;
        };
        let fetches = wqe.op.fetches();
        if !wqe.begun() {
            wqe.first = self.next;
            wqe.packets = wqe.packets_at(mtu);
            self.next = wqe.end();
            self.fetching += u32::from(fetches);
        }
        let (end, packets) = (wqe.end(), wqe.packets);
        if fetches {
            (self.cursor, self.packet) = (cursor + 1, 0);
            self.advance_sent(end);
        } else {
            self.packet += 1;
            self.flight += 1;
            self.advance_sent(planned.psn.plus(1));
            if self.packet >= packets {
                (self.cursor, self.packet) = (cursor + 1, 0);
            }
        }
        self.since_ack_request = match planned.ack_req {
            true => 0,
            false => self.since_ack_request.saturating_add(1),
        };
        if self.timer == Timestamp::NEVER
            && let Some(timeout) = self.timeout
        {
            self.timer = now + timeout;
        }
    }

    #[inline]
    fn advance_sent(&mut self, to: Psn) {
        if to.since(self.sent) > 0 {
            self.sent = to;
        }
    }

    /// Copies the data of a planned packet.
    #[inline]
    pub fn fill(&self, ctx: &Ctx<'_>, planned: &Planned, out: &mut [u8]) -> bool {
        let Some(wqe) = self.queue.get(self.cursor) else {
            return false;
        };
        self.queue.copy(ctx.memory, wqe, planned.offset, out)
    }

    /// Where the data of a planned packet stands, if in one piece of registered memory.
    #[inline]
    pub fn piece(&self, ctx: &Ctx<'_>, planned: &Planned) -> Option<(Span, u32)> {
        let wqe = self.queue.get(self.cursor)?;
        let len = planned.payload as usize;
        self.queue.piece(ctx.memory, wqe, planned.offset, len)
    }

    /// The memory of the request at the cursor is gone: it fails when its turn comes.
    pub fn mark_fault(&mut self) {
        self.queue.mark_fault(self.cursor);
    }
}

/// Opcode and headers of a packet of a SEND or WRITE.
#[inline]
fn message_packet(wqe: &Wqe, place: Place) -> (Opcode, Ext) {
    let (op, remote, imm) = match wqe.op {
        SendOp::Send => (Opcode::send(place, false), None, None),
        SendOp::SendWithImm(imm) => (Opcode::send(place, true), None, Some(imm)),
        SendOp::RdmaWrite(remote) => (Opcode::write(place, false), Some(remote), None),
        SendOp::RdmaWriteWithImm(remote, imm) => {
            (Opcode::write(place, true), Some(remote), Some(imm))
        }
        _ => (Opcode::send(place, false), None, None),
    };
    let reth = remote.filter(|_| place.begins()).map(|remote| Reth {
        addr: remote.addr,
        rkey: remote.rkey,
        len: wqe.len,
    });
    let ext = match (reth, imm.filter(|_| place.ends())) {
        (None, None) => Ext::None,
        (None, Some(imm)) => Ext::Imm(imm),
        (Some(reth), None) => Ext::Reth(reth),
        (Some(reth), Some(imm)) => Ext::RethImm(reth, imm),
    };
    (op, ext)
}

impl Qp {
    /// Time has passed: a wait of the requester may be over.
    pub fn on_timeout(&mut self, ctx: &mut Ctx<'_>) {
        if self.state != QpState::Rts {
            return;
        }
        let r = &mut self.requester;
        if r.waits_until <= ctx.now {
            r.waits_until = Timestamp::NEVER;
        }
        if r.timer <= ctx.now {
            r.timer = Timestamp::NEVER;
            ctx.stats.timeouts += 1;
            ctx.stats.rewinds += 1;
            if !r.retry() {
                self.fail_oldest(ctx, Status::RetryExcErr);
            }
        }
        self.settle(ctx);
    }

    /// Does what is due at once: fails the oldest request if it cannot be done, and ends a queue
    /// pair that lost a completion.
    #[inline]
    pub fn settle(&mut self, ctx: &mut Ctx<'_>) {
        if self.state == QpState::Rts
            && let Some(status) = self.requester.fault()
        {
            self.fail_oldest(ctx, status);
        }
        if self.lost_completion && self.state != QpState::Err {
            ctx.event(crate::rdma::AsyncEvent::QpFatal(self.id()));
            self.enter_err(ctx);
        }
    }
}
