//! What the peer answers: acknowledgements, refusals, READ responses, results of atomics.
//!
//! Requests complete strictly in order. A SEND or WRITE is done when anything behind it is
//! acknowledged; a READ or atomic only by its own answer, so an acknowledgement beyond one that was
//! not answered means that the answer is lost. An answer to nothing that was sent is dropped.

use super::{Ctx, Qp};
use crate::base::Timestamp;
use crate::rdma::attr::{QpState, rnr_nanos};
use crate::rdma::completion::{Completion, Status};
use crate::rdma::roce::wire::headers::Syndrome;
use crate::rdma::roce::wire::{Aeth, Ext, Kind, Packet, Psn};
use std::time::Duration;

impl Qp {
    /// Takes a packet for the requester.
    #[inline]
    pub fn on_answer(&mut self, ctx: &mut Ctx<'_>, packet: &Packet<'_>) {
        if self.state != QpState::Rts {
            ctx.stats.unknown_qp += 1;
            return;
        }
        let psn = packet.bth.psn;
        // Nothing that was never sent can be answered; nothing is answered twice.
        if psn.since(self.requester.una) < 0 || psn.since(self.requester.sent) >= 0 {
            ctx.stats.stale_answers += 1;
            return;
        }
        match (packet.opcode.kind(), packet.ext) {
            (Kind::Acknowledge, Ext::Aeth(aeth)) => self.on_acknowledge(ctx, psn, aeth),
            (Kind::ReadResponse, _) => self.on_read_response(ctx, packet),
            (Kind::AtomicAcknowledge, Ext::AtomicAck(_, found)) => {
                self.on_atomic(ctx, psn, found);
            }
            _ => ctx.stats.stale_answers += 1,
        }
        self.settle(ctx);
    }

    fn on_acknowledge(&mut self, ctx: &mut Ctx<'_>, psn: Psn, aeth: Aeth) {
        match Syndrome::parse(aeth.syndrome) {
            Syndrome::Ack => {
                if !self.acknowledge(ctx, psn.plus(1)) {
                    self.answer_lost(ctx);
                }
            }
            Syndrome::RnrNak(code) => self.on_rnr(ctx, psn, code),
            Syndrome::SequenceError => {
                ctx.stats.sequence_naks_received += 1;
                if !self.acknowledge(ctx, psn) {
                    self.answer_lost(ctx);
                } else if self.requester.waits_until == Timestamp::NEVER {
                    ctx.stats.rewinds += 1;
                    if !self.requester.retry() {
                        self.fail_oldest(ctx, Status::RetryExcErr);
                    }
                }
            }
            Syndrome::InvalidRequest => self.fail_at(ctx, psn, Status::RemInvReqErr),
            Syndrome::RemoteAccess => self.fail_at(ctx, psn, Status::RemAccessErr),
            Syndrome::RemoteOperational => self.fail_at(ctx, psn, Status::RemOpErr),
            Syndrome::Reserved => self.fail_at(ctx, psn, Status::BadRespErr),
        }
    }

    /// The peer has no receive: wait as long as it says, then go on from there.
    fn on_rnr(&mut self, ctx: &mut Ctx<'_>, psn: Psn, code: u8) {
        ctx.stats.rnr_naks_received += 1;
        if !self.acknowledge(ctx, psn) {
            self.answer_lost(ctx);
            return;
        }
        let r = &mut self.requester;
        if r.waits_until != Timestamp::NEVER {
            return;
        }
        if r.rnr_retries < 7 {
            let Some(left) = r.rnr_left.checked_sub(1) else {
                self.fail_oldest(ctx, Status::RnrRetryExcErr);
                return;
            };
            r.rnr_left = left;
        }
        ctx.stats.rewinds += 1;
        r.rewind();
        r.waits_until = ctx.now + Duration::from_nanos(rnr_nanos(code));
    }

    /// Takes what `psn` implies as done, as far as that goes.
    pub fn acknowledge_before(&mut self, ctx: &mut Ctx<'_>, psn: Psn) {
        self.acknowledge(ctx, psn);
    }

    /// Takes everything before `to` as done. False when an answer that has not come stands between.
    #[inline]
    fn acknowledge(&mut self, ctx: &mut Ctx<'_>, to: Psn) -> bool {
        let before = self.requester.una;
        let mut all = true;
        while to.since(self.requester.una) > 0 {
            let Some(head) = self.requester.queue.front().filter(|w| w.begun()) else {
                break;
            };
            if head.op.fetches() {
                all = false;
                break;
            }
            let end = head.end();
            if to.since(end) < 0 {
                self.requester.acknowledged(to);
                break;
            }
            self.requester.acknowledged(end);
            self.complete_oldest(ctx, 0);
        }
        let packets = self.requester.una.since(before).max(0) as usize;
        if packets > 0 {
            let mtu = self.path.as_ref().map_or(0, |p| p.mtu);
            self.requester.window.earn(packets * mtu as usize);
            self.requester.progressed(ctx.now);
        }
        all
    }

    /// The oldest request is done.
    fn complete_oldest(&mut self, ctx: &mut Ctx<'_>, byte_len: u32) {
        let Some(wqe) = self.requester.pop() else {
            return;
        };
        if wqe.signaled || self.sig_all {
            let completion = Completion {
                wr_id: wqe.wr_id,
                status: Status::Success,
                opcode: wqe.opcode(),
                byte_len,
                imm: None,
                qp: self.id(),
                qpn: self.qpn,
            };
            self.complete(ctx, self.send_cq, completion);
        }
    }

    /// An answer that must have been sent is not there: ask for it again, once.
    fn answer_lost(&mut self, ctx: &mut Ctx<'_>) {
        if self.requester.rewind_to_gap() {
            ctx.stats.rewinds += 1;
        }
    }

    /// Whether the answer `psn` is for the oldest request, once what it implies is acknowledged.
    fn is_next_answer(&mut self, ctx: &mut Ctx<'_>, psn: Psn, atomic: bool) -> bool {
        let owner = self.requester.queue.owner(psn);
        let fits = owner.is_some_and(|w| w.op.fetches() && w.op.is_atomic() == atomic);
        if !fits {
            ctx.stats.stale_answers += 1;
            return false;
        }
        if self.acknowledge(ctx, psn) && psn == self.requester.una {
            return true;
        }
        self.answer_lost(ctx);
        false
    }

    fn on_read_response(&mut self, ctx: &mut Ctx<'_>, packet: &Packet<'_>) {
        let psn = packet.bth.psn;
        if !self.is_next_answer(ctx, psn, false) {
            return;
        }
        let Some(mtu) = self.path.as_ref().map(|p| p.mtu) else {
            return;
        };
        let r = &mut self.requester;
        let Some(head) = r.queue.front() else {
            return;
        };
        let at = r.done_of_head().saturating_mul(mtu);
        let left = head.len.saturating_sub(at);
        let (full, last) = (left > mtu, packet.opcode.place().ends());
        if packet.payload.len() != left.min(mtu) as usize || full == last {
            self.fail_oldest(ctx, Status::BadRespErr);
            return;
        }
        let spans = r.queue.spans(head);
        if !ctx.memory.scatter(spans, at, packet.payload) {
            self.fail_oldest(ctx, Status::LocProtErr);
            return;
        }
        let len = head.len;
        r.una = psn.plus(1);
        if last {
            self.complete_oldest(ctx, len);
        }
        self.requester.progressed(ctx.now);
    }

    fn on_atomic(&mut self, ctx: &mut Ctx<'_>, psn: Psn, found: u64) {
        if !self.is_next_answer(ctx, psn, true) {
            return;
        }
        let r = &mut self.requester;
        let Some(head) = r.queue.front() else {
            return;
        };
        let spans = r.queue.spans(head);
        if !ctx.memory.scatter(spans, 0, &found.to_ne_bytes()) {
            self.fail_oldest(ctx, Status::LocProtErr);
            return;
        }
        r.una = psn.plus(1);
        self.complete_oldest(ctx, 8);
        self.requester.progressed(ctx.now);
    }
}
