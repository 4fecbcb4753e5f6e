//! The responder: serves the peer's requests in the order of their numbers.
//!
//! What is expected is served; what is ahead is refused once, with the number expected; what is
//! behind was served before, and is acknowledged or answered again without being done again. A
//! request that is wrong in itself is refused with the standard's code and ends the queue pair: the
//! peer's other queue pairs, and other peers, notice nothing.

use super::owed::Owed;
use super::respond::Resource;
use super::train::SHORT;
use super::{Ctx, Qp};
use crate::rdma::access::Access;
use crate::rdma::attr::{QpState, RtrAttr};
use crate::rdma::completion::{Completion, CompletionOpcode, Status};
use crate::rdma::event::AsyncEvent;
use crate::rdma::roce::memory::Span;
use crate::rdma::roce::wire::headers::Syndrome;
use crate::rdma::roce::wire::{Ext, Kind, Packet, Place, Psn, Reth};
use std::collections::VecDeque;
use std::time::Duration;

/// The message whose packets are coming in.
#[derive(Clone, Copy, Debug)]
enum Message {
    None,
    /// A SEND into a receive; its pieces stand in `spans`.
    Send {
        wr_id: u64,
        at: u32,
        capacity: u32,
    },
    Write {
        span: Span,
        at: u32,
        len: u32,
    },
}

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// No receive is posted.
    NotReady,
    /// It makes no sense, or is not allowed on this queue pair.
    Invalid,
    /// The memory is not there or not for the peer.
    Access,
    /// Our own memory is not there.
    Failed,
}

#[derive(Debug)]
pub(super) struct Responder {
    /// The number of the next request.
    pub expected: Psn,
    /// Messages completed.
    pub msn: u32,
    message: Message,
    /// The pieces of its receive.
    pub spans: Vec<Span>,
    /// A gap, or the want of a receive, was told; until it is over nothing is said again.
    silent: bool,
    /// What the peer is to be told once everything before it is answered.
    pub owed: Owed,
    /// READs and atomics, oldest first, those that are answered too.
    pub resources: VecDeque<Resource>,
    /// Some of them have something to send.
    pub owes: bool,
    max_resources: usize,
    rnr_timer: u8,
}

impl Responder {
    pub fn new(max_sge: usize) -> Self {
        Self {
            expected: Psn::default(),
            msn: 0,
            message: Message::None,
            spans: Vec::with_capacity(max_sge),
            silent: false,
            owed: Owed::default(),
            resources: VecDeque::new(),
            owes: false,
            max_resources: 0,
            rnr_timer: 0,
        }
    }

    pub fn start(&mut self, attr: &RtrAttr) {
        self.expected = Psn::new(attr.rq_psn);
        self.msn = 0;
        self.max_resources = attr.max_dest_rd_atomic.into();
        self.resources = VecDeque::with_capacity(self.max_resources);
        self.rnr_timer = attr.min_rnr_timer;
        self.message = Message::None;
        self.silent = false;
        self.hush();
    }

    /// Nothing is owed to the peer any more.
    pub fn hush(&mut self) {
        self.owed.clear();
        self.resources.clear();
        self.owes = false;
    }

    fn completed_message(&mut self) {
        self.msn = self.msn.wrapping_add(1) & 0xff_ffff;
    }

    /// The number of the receive that a message goes into, which it will not fill.
    pub fn abandon(&mut self) -> Option<u64> {
        match std::mem::replace(&mut self.message, Message::None) {
            Message::Send { wr_id, .. } => Some(wr_id),
            _ => None,
        }
    }

    /// Room for one more READ or atomic: the oldest that was answered makes it.
    fn make_room(&mut self) -> Result<(), Refused> {
        if self.resources.len() < self.max_resources {
            return Ok(());
        }
        // A peer that keeps to its number has the oldest's answer before it asks for another.
        match self.resources.front() {
            Some(oldest) if oldest.answered => {
                self.resources.pop_front();
                Ok(())
            }
            _ => Err(Refused::Invalid),
        }
    }
}

impl Qp {
    /// Takes a packet for the responder.
    #[inline]
    pub fn on_request(&mut self, ctx: &mut Ctx<'_>, packet: &Packet<'_>) {
        let ahead = packet.bth.psn.since(self.responder.expected);
        if ahead != 0 {
            self.out_of_order(ctx, packet, ahead > 0);
            return;
        }
        if self.state == QpState::Rtr && !std::mem::replace(&mut self.greeted, true) {
            ctx.event(AsyncEvent::CommEst(self.id()));
        }
        match self.serve(ctx, packet) {
            Ok(numbers) => {
                let r = &mut self.responder;
                r.expected = r.expected.plus(numbers);
                r.silent = false;
                let asks = packet.bth.ack_req && packet.opcode.has_payload();
                if asks && ctx.config.ack_delay > Duration::ZERO && is_short_send(packet) {
                    r.owed.tell_later(ctx.now);
                } else if asks || r.owed.due().is_some() {
                    // What was to be told of this number is over, and acknowledged what came
                    // before.
                    r.owed.tell(Syndrome::Ack);
                }
            }
            Err(refused) => self.refuse(ctx, refused),
        }
        self.settle(ctx);
    }

    /// A request of a reliable connection whose opcode we do not offer.
    pub fn on_unsupported(&mut self, ctx: &mut Ctx<'_>, psn: Psn) {
        if psn == self.responder.expected {
            self.refuse(ctx, Refused::Invalid);
        }
    }

    fn out_of_order(&mut self, ctx: &mut Ctx<'_>, packet: &Packet<'_>, ahead: bool) {
        if ahead {
            ctx.stats.out_of_sequence += 1;
            if !std::mem::replace(&mut self.responder.silent, true) {
                self.responder.owed.tell(Syndrome::SequenceError);
                ctx.stats.sequence_naks_sent += 1;
            }
            return;
        }
        ctx.stats.duplicates += 1;
        let mtu = self.path.as_ref().map_or(0, |p| p.mtu);
        let psn = packet.bth.psn;
        let known = match (packet.opcode.kind(), packet.ext) {
            (Kind::ReadRequest, Ext::Reth(reth)) => self.responder.replay_read(psn, &reth, mtu),
            (Kind::Atomic, _) => self.responder.replay_atomic(psn),
            _ => {
                let r = &mut self.responder;
                r.owed.tell(r.owed.due().unwrap_or(Syndrome::Ack));
                true
            }
        };
        ctx.stats.forgotten += u64::from(!known);
    }

    /// Tells the peer, and unless it may try again, ends the queue pair.
    #[cold]
    pub(super) fn refuse(&mut self, ctx: &mut Ctx<'_>, refused: Refused) {
        let id = self.id();
        let (syndrome, event) = match refused {
            Refused::NotReady => {
                ctx.stats.rnr_naks_sent += 1;
                self.responder.silent = true;
                let told = Syndrome::RnrNak(self.responder.rnr_timer);
                self.responder.owed.tell(told);
                return;
            }
            Refused::Invalid => (Syndrome::InvalidRequest, AsyncEvent::QpReqErr(id)),
            Refused::Access => (Syndrome::RemoteAccess, AsyncEvent::QpAccessErr(id)),
            Refused::Failed => (Syndrome::RemoteOperational, AsyncEvent::QpFatal(id)),
        };
        ctx.stats.error_naks_sent += 1;
        ctx.event(event);
        self.end(ctx);
        // What was served before is still answered, then this is told.
        self.responder.owed.tell(syndrome);
    }

    /// Does what the expected packet asks for; how many numbers it takes.
    #[inline]
    fn serve(&mut self, ctx: &mut Ctx<'_>, packet: &Packet<'_>) -> Result<u32, Refused> {
        let mtu = self.path.as_ref().map_or(0, |p| p.mtu);
        let place = packet.opcode.place();
        if place.begins() != matches!(self.responder.message, Message::None) {
            return Err(Refused::Invalid);
        }
        match (packet.opcode.kind(), packet.ext) {
            (Kind::Send, ext) => {
                right_length(place, packet.payload, mtu)?;
                let imm = match ext {
                    Ext::Imm(imm) => Some(imm),
                    _ => None,
                };
                self.serve_send(ctx, place, packet.payload, imm)
            }
            (Kind::Write, ext) => {
                right_length(place, packet.payload, mtu)?;
                let (reth, imm) = match ext {
                    Ext::Reth(reth) => (Some(reth), None),
                    Ext::RethImm(reth, imm) => (Some(reth), Some(imm)),
                    Ext::Imm(imm) => (None, Some(imm)),
                    _ => (None, None),
                };
                self.serve_write(ctx, place, packet.payload, reth, imm)
            }
            (Kind::ReadRequest, Ext::Reth(reth)) => self.serve_read(ctx, packet.bth.psn, reth, mtu),
            (Kind::Atomic, Ext::Atomic(atomic)) => self.serve_atomic(ctx, packet, atomic),
            _ => Err(Refused::Invalid),
        }
    }

    fn serve_send(
        &mut self,
        ctx: &mut Ctx<'_>,
        place: Place,
        payload: &[u8],
        imm: Option<u32>,
    ) -> Result<u32, Refused> {
        let (wr_id, begin, capacity) = match self.responder.message {
            _ if place.begins() => {
                let (wr_id, capacity) = self.take_receive(ctx).ok_or(Refused::NotReady)?;
                let Some(capacity) = capacity else {
                    self.flush_receive(ctx, wr_id, Status::LocProtErr);
                    return Err(Refused::Failed);
                };
                (wr_id, 0, capacity)
            }
            Message::Send {
                wr_id,
                at,
                capacity,
            } => (wr_id, at, capacity),
            _ => return Err(Refused::Invalid),
        };
        let at = begin.saturating_add(payload.len() as u32);
        let (status, refused) = if at > capacity {
            (Status::LocLenErr, Refused::Invalid)
        } else if !ctx.memory.scatter(&self.responder.spans, begin, payload) {
            (Status::LocProtErr, Refused::Failed)
        } else {
            if place.ends() {
                self.responder.message = Message::None;
                self.responder.completed_message();
                self.received(ctx, wr_id, CompletionOpcode::Recv, at, imm);
            } else {
                self.responder.message = Message::Send {
                    wr_id,
                    at,
                    capacity,
                };
            }
            return Ok(1);
        };
        self.responder.message = Message::None;
        self.flush_receive(ctx, wr_id, status);
        Err(refused)
    }

    fn serve_write(
        &mut self,
        ctx: &mut Ctx<'_>,
        place: Place,
        payload: &[u8],
        reth: Option<Reth>,
        imm: Option<u32>,
    ) -> Result<u32, Refused> {
        let (span, at, len) = match (reth, self.responder.message) {
            (Some(reth), Message::None) => {
                let span = self.reach(ctx, &reth, Access::REMOTE_WRITE)?;
                (span, 0, reth.len)
            }
            (None, Message::Write { span, at, len }) => (span, at, len),
            _ => return Err(Refused::Invalid),
        };
        let left = len.saturating_sub(at);
        let n = payload.len() as u32;
        if n > left || place.ends() != (n == left) {
            return Err(Refused::Invalid);
        }
        if ctx.memory.slice(&span, at, payload.len()).is_none() {
            return Err(Refused::Access);
        }
        if let Some(imm) = imm {
            let (wr_id, _) = self.take_receive(ctx).ok_or(Refused::NotReady)?;
            self.received(
                ctx,
                wr_id,
                CompletionOpcode::RecvRdmaWithImm,
                len,
                Some(imm),
            );
        }
        if let Some(out) = ctx.memory.slice_mut(&span, at, payload.len()) {
            out.copy_from_slice(payload);
        }
        self.responder.message = if place.ends() {
            self.responder.completed_message();
            Message::None
        } else {
            let at = at.saturating_add(n);
            Message::Write { span, at, len }
        };
        Ok(1)
    }

    fn serve_read(
        &mut self,
        ctx: &mut Ctx<'_>,
        psn: Psn,
        reth: Reth,
        mtu: u32,
    ) -> Result<u32, Refused> {
        let span = self.reach(ctx, &reth, Access::REMOTE_READ)?;
        self.responder.make_room()?;
        let resource = Resource::read(psn, reth, span, mtu);
        let packets = resource.packets;
        self.responder.resources.push_back(resource);
        self.responder.owes = true;
        self.responder.completed_message();
        Ok(packets)
    }

    fn serve_atomic(
        &mut self,
        ctx: &mut Ctx<'_>,
        packet: &Packet<'_>,
        atomic: crate::rdma::roce::wire::AtomicEth,
    ) -> Result<u32, Refused> {
        if !atomic.addr.is_multiple_of(8) {
            return Err(Refused::Invalid);
        }
        let reth = Reth {
            addr: atomic.addr,
            rkey: atomic.rkey,
            len: 8,
        };
        let span = self.reach(ctx, &reth, Access::REMOTE_ATOMIC)?;
        self.responder.make_room()?;
        let bytes = ctx.memory.slice_mut(&span, 0, 8);
        let bytes = bytes.and_then(|b| b.first_chunk_mut::<8>());
        let bytes = bytes.ok_or(Refused::Access)?;
        let found = u64::from_ne_bytes(*bytes);
        let compares = packet.opcode == crate::rdma::roce::wire::Opcode::CompareSwap;
        let new = match compares {
            true if found == atomic.compare => atomic.swap_add,
            true => found,
            false => found.wrapping_add(atomic.swap_add),
        };
        *bytes = new.to_ne_bytes();
        let resource = Resource::atomic(packet.bth.psn, found);
        self.responder.resources.push_back(resource);
        self.responder.owes = true;
        self.responder.completed_message();
        Ok(1)
    }

    /// The memory that a peer names, if this queue pair lets it.
    fn reach(&self, ctx: &Ctx<'_>, reth: &Reth, needed: Access) -> Result<Span, Refused> {
        if !self.access.has(needed) || reth.len > ctx.config.attr.max_msg_sz {
            return Err(Refused::Invalid);
        }
        let span = ctx
            .memory
            .remote(self.pd, reth.rkey, reth.addr, reth.len, needed);
        span.ok_or(Refused::Access)
    }

    /// A message is whole.
    fn received(
        &mut self,
        ctx: &mut Ctx<'_>,
        wr_id: u64,
        opcode: CompletionOpcode,
        byte_len: u32,
        imm: Option<u32>,
    ) {
        let completion = Completion {
            wr_id,
            status: Status::Success,
            opcode,
            byte_len,
            imm,
            qp: self.id(),
            qpn: self.qpn,
        };
        self.complete(ctx, self.recv_cq, completion);
    }

    /// The receive of the message at hand fails.
    pub fn end_receive(&mut self, ctx: &mut Ctx<'_>, status: Status) {
        let Some(wr_id) = self.responder.abandon() else {
            return;
        };
        self.flush_receive(ctx, wr_id, status);
    }
}

/// A message that is a single short packet: what answers are made of.
fn is_short_send(packet: &Packet<'_>) -> bool {
    let single = packet.opcode.place() == Place::Only;
    single && packet.opcode.kind() == Kind::Send && packet.payload.len() < SHORT
}

/// Packets but the last are full, and no packet is longer than that.
fn right_length(place: Place, payload: &[u8], mtu: u32) -> Result<(), Refused> {
    let (n, mtu) = (payload.len(), mtu as usize);
    let right = match place {
        Place::First | Place::Middle => n == mtu,
        Place::Last => n > 0 && n <= mtu,
        Place::Only => n <= mtu,
    };
    if right { Ok(()) } else { Err(Refused::Invalid) }
}
