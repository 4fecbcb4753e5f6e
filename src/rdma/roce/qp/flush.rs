//! The end of a queue pair: the request at fault completes with its status, everything else that is
//! posted as flushed, each exactly once.

use super::{Ctx, Path, Qp};
use crate::rdma::access::Access;
use crate::rdma::attr::QpState;
use crate::rdma::completion::{Completion, CompletionOpcode, Status};
use crate::rdma::event::AsyncEvent;
use crate::rdma::roce::wire::Psn;

impl Qp {
    /// The oldest request fails, and with it the queue pair.
    #[cold]
    pub fn fail_oldest(&mut self, ctx: &mut Ctx<'_>, status: Status) {
        self.flush_oldest(ctx, status);
        self.enter_err(ctx);
    }

    /// The request that `psn` belongs to fails, and with it the queue pair. Those before it are
    /// done as far as the peer's word goes, and flushed as far as it does not.
    #[cold]
    pub fn fail_at(&mut self, ctx: &mut Ctx<'_>, psn: Psn, status: Status) {
        self.acknowledge_before(ctx, psn);
        while let Some(head) = self.requester.queue.front() {
            let at_fault = !head.begun() || psn.since(head.end()) < 0;
            if at_fault {
                break;
            }
            self.flush_oldest(ctx, Status::WrFlushErr);
        }
        self.fail_oldest(ctx, status);
    }

    /// Completes the oldest request without success.
    fn flush_oldest(&mut self, ctx: &mut Ctx<'_>, status: Status) -> bool {
        let Some(wqe) = self.requester.pop() else {
            return false;
        };
        let completion = Completion {
            wr_id: wqe.wr_id,
            status,
            opcode: wqe.opcode(),
            byte_len: 0,
            imm: None,
            qp: self.id(),
            qpn: self.qpn,
        };
        self.complete(ctx, self.send_cq, completion);
        true
    }

    /// Completes a receive without success.
    pub fn flush_receive(&mut self, ctx: &mut Ctx<'_>, wr_id: u64, status: Status) {
        let completion = Completion {
            wr_id,
            status,
            opcode: CompletionOpcode::Recv,
            byte_len: 0,
            imm: None,
            qp: self.id(),
            qpn: self.qpn,
        };
        self.complete(ctx, self.recv_cq, completion);
    }

    /// Everything ends here, what is owed to the peer too.
    pub fn enter_err(&mut self, ctx: &mut Ctx<'_>) {
        self.end(ctx);
        self.responder.hush();
    }

    /// The state becomes ERR and everything posted is flushed. What is owed to the peer stays.
    pub fn end(&mut self, ctx: &mut Ctx<'_>) {
        let before = std::mem::replace(&mut self.state, QpState::Err);
        self.flush_posted(ctx);
        self.requester.stop();
        if before != QpState::Err && self.srq.is_some() {
            ctx.event(AsyncEvent::QpLastWqeReached(self.id()));
        }
    }

    /// Flushes what is posted.
    pub fn flush_posted(&mut self, ctx: &mut Ctx<'_>) {
        while self.flush_oldest(ctx, Status::WrFlushErr) {}
        self.end_receive(ctx, Status::WrFlushErr);
        while let Some((wr_id, ..)) = self.rq.take() {
            self.flush_receive(ctx, wr_id, Status::WrFlushErr);
        }
    }

    /// As it was made: nothing posted, nothing under way, no completions for it. The way it went.
    pub fn reset(&mut self) -> Option<Path> {
        let path = self.path.take();
        self.state = QpState::Reset;
        self.access = Access::NONE;
        while self.requester.pop().is_some() {}
        self.requester.stop();
        self.responder.abandon();
        self.responder.hush();
        self.rq.clear();
        (self.lost_completion, self.greeted) = (false, false);
        path
    }
}
