//! What the responder sends: answers to READs and atomics in their order, then one acknowledgement
//! or refusal for everything up to it.
//!
//! Acknowledgements are cumulative, so however many a train of requests asks for, one leaves. What
//! was answered is kept, as many as the peer may have under way, to be answered again: a READ from
//! its memory, an atomic from what it found.

use super::responder::{Refused, Responder};
use super::train::Planned;
use super::{Ctx, Qp};
use crate::rdma::roce::memory::Span;
use crate::rdma::roce::stats::Stats;
use crate::rdma::roce::wire::headers::Syndrome;
use crate::rdma::roce::wire::{Aeth, Ext, Opcode, Place, Psn, Reth};

/// A READ or atomic of the peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resource {
    first: Psn,
    /// Numbers that it takes.
    pub packets: u32,
    what: What,
    /// The packet that this round of answers began with.
    from: u32,
    /// The next packet to send.
    next: u32,
    /// Packets of this round end here.
    end: u32,
    /// Bytes of the READ, up to which this round goes.
    stop: u32,
    /// The first round is over.
    pub answered: bool,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Read { reth: Reth, span: Span },
    Atomic { found: u64 },
}

impl Resource {
    pub fn read(first: Psn, reth: Reth, span: Span, mtu: u32) -> Self {
        let packets = reth.len.div_ceil(mtu.max(1)).max(1);
        Self {
            first,
            packets,
            what: What::Read { reth, span },
            from: 0,
            next: 0,
            end: packets,
            stop: reth.len,
            answered: false,
        }
    }

    pub fn atomic(first: Psn, found: u64) -> Self {
        Self {
            first,
            packets: 1,
            what: What::Atomic { found },
            from: 0,
            next: 0,
            end: 1,
            stop: 0,
            answered: false,
        }
    }

    fn owes(&self) -> bool {
        self.next < self.end
    }
}

impl Responder {
    /// Answers a READ again, or the rest of it; false when it is not remembered.
    pub fn replay_read(&mut self, psn: Psn, again: &Reth, mtu: u32) -> bool {
        let belongs = |r: &&mut Resource| {
            let n = psn.since(r.first);
            n >= 0 && n < r.packets as i32
        };
        let Some(resource) = self.resources.iter_mut().find(belongs) else {
            return false;
        };
        let What::Read { reth, .. } = resource.what else {
            return false;
        };
        let n = psn.since(resource.first).max(0) as u32;
        let offset = n.saturating_mul(mtu);
        let same = again.rkey == reth.rkey
            && again.addr == reth.addr.wrapping_add(offset.into())
            && again.len <= reth.len.saturating_sub(offset);
        if !same {
            return false;
        }
        if resource.owes() && resource.next <= n {
            return true; // on its way
        }
        resource.stop = offset.saturating_add(again.len);
        (resource.from, resource.next) = (n, n);
        resource.end = n.saturating_add(again.len.div_ceil(mtu.max(1)).max(1));
        self.owes = true;
        true
    }

    /// Tells again what an atomic found; false when it is not remembered.
    pub fn replay_atomic(&mut self, psn: Psn) -> bool {
        let atomic = |r: &&mut Resource| matches!(r.what, What::Atomic { .. }) && r.first == psn;
        let Some(resource) = self.resources.iter_mut().find(atomic) else {
            return false;
        };
        resource.next = 0;
        self.owes = true;
        true
    }

    /// Whether anything is owed to the peer.
    #[inline]
    pub fn has_output(&self) -> bool {
        self.owes || self.owed.due().is_some()
    }

    /// The next packet, if one is owed.
    #[inline]
    pub fn plan(&self, mtu: u32) -> Option<Planned> {
        if self.owes
            && let Some(resource) = self.resources.iter().find(|r| r.owes())
        {
            return Some(self.plan_answer(resource, mtu));
        }
        let syndrome = self.owed.due()?;
        let psn = match syndrome {
            Syndrome::Ack => self.expected.previous(),
            _ => self.expected,
        };
        let ext = Ext::Aeth(self.aeth(syndrome));
        Some(answer(Opcode::Acknowledge, ext, psn))
    }

    fn aeth(&self, syndrome: Syndrome) -> Aeth {
        Aeth {
            syndrome: syndrome.to_byte(),
            msn: self.msn,
        }
    }

    fn plan_answer(&self, resource: &Resource, mtu: u32) -> Planned {
        let aeth = self.aeth(Syndrome::Ack);
        let n = resource.next;
        let psn = resource.first.plus(n);
        match resource.what {
            What::Atomic { found } => {
                answer(Opcode::AtomicAcknowledge, Ext::AtomicAck(aeth, found), psn)
            }
            What::Read { .. } => {
                let count = resource.end.saturating_sub(resource.from);
                let place = Place::of(n.saturating_sub(resource.from), count);
                let ext = match place {
                    Place::Middle => Ext::None,
                    _ => Ext::Aeth(aeth),
                };
                let offset = n.saturating_mul(mtu);
                Planned {
                    offset,
                    payload: resource.stop.saturating_sub(offset).min(mtu),
                    ..answer(Opcode::read_response(place), ext, psn)
                }
            }
        }
    }

    /// Copies the data of a planned answer.
    #[inline]
    pub fn fill(&self, ctx: &Ctx<'_>, planned: &Planned, out: &mut [u8]) -> bool {
        if out.is_empty() {
            return true;
        }
        let owing = self.resources.iter().find(|r| r.owes());
        let Some(What::Read { span, .. }) = owing.map(|r| r.what) else {
            return false;
        };
        let Some(bytes) = ctx.memory.slice(&span, planned.offset, out.len()) else {
            return false;
        };
        out.copy_from_slice(bytes);
        true
    }

    /// Where the data of a planned packet stands.
    #[inline]
    pub fn piece(&self, ctx: &Ctx<'_>, planned: &Planned) -> Option<(Span, u32)> {
        let owing = self.resources.iter().find(|r| r.owes());
        let Some(What::Read { span, .. }) = owing.map(|r| r.what) else {
            return None;
        };
        let len = planned.payload as usize;
        ctx.memory.piece(&[span], planned.offset, len)
    }

    /// A planned packet was written.
    #[inline]
    pub fn commit(&mut self, planned: &Planned, stats: &mut Stats) {
        if planned.opcode == Opcode::Acknowledge {
            self.owed.clear();
            stats.acks_sent += 1;
            return;
        }
        if let Some(resource) = self.resources.iter_mut().find(|r| r.owes()) {
            resource.next += 1;
            resource.answered |= !resource.owes();
        }
        self.owes = self.resources.iter().any(Resource::owes);
    }
}

fn answer(opcode: Opcode, ext: Ext, psn: Psn) -> Planned {
    Planned {
        opcode,
        ext,
        psn,
        offset: 0,
        payload: 0,
        ack_req: false,
        solicited: false,
    }
}

impl Qp {
    /// The memory of a READ went away before it was answered.
    pub fn fail_response(&mut self, ctx: &mut Ctx<'_>) {
        self.responder.hush();
        self.refuse(ctx, Refused::Failed);
    }
}
