//! Packets into trains: equal segments that leave with one call, requests before answers.
//!
//! An acknowledgement is the shortest packet there is, so it ends a train of requests and costs no
//! call of its own. Answers that a train had no place for begin the next one, and so do those
//! behind a single short request, which leaves at once.
//!
//! A WRITE's FIRST packet is longer than its MIDDLE ones by its RETH, so it begins a train that the
//! next packet ends; from there on all segments are equal. Split WRITEs have equal packets, and
//! their trains go on over the end of each. Data is copied once, out of registered memory, to where
//! it leaves from, or stays there ([`Pieces`]).

use super::{Ctx, Qp};
use crate::base::limits::{MAX_TRAIN_BYTES, MAX_TRAIN_SEGMENTS, ROCE_WINDOW, ROCE_WINDOW_OF_ALL};
use crate::base::{Ecn, Transmit};
use crate::rdma::attr::QpState;
use crate::rdma::roce::config::Identification;
use crate::rdma::roce::gather::Pieces;
use crate::rdma::roce::wire::headers::{AETH, BTH, DEFAULT_PKEY, ICRC};
use crate::rdma::roce::wire::packet::{packet_len, write, write_headers};
use crate::rdma::roce::wire::{Bth, Ext, Opcode, Psn};

/// A packet that may be sent now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planned {
    pub opcode: Opcode,
    pub ext: Ext,
    pub psn: Psn,
    /// Where in its message the data begins.
    pub offset: u32,
    /// Bytes of data.
    pub payload: u32,
    pub ack_req: bool,
    pub solicited: bool,
}

/// Which half a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    Responder,
    Requester,
}

/// A packet below this length carries no bulk data, bytes.
pub(super) const SHORT: usize = 512;
/// Bytes of an acknowledgement.
const ANSWER: usize = BTH + AETH + ICRC;

/// So many queue pairs with something under way have to share; fewer have what each may.
const SHARERS: usize = ROCE_WINDOW_OF_ALL / ROCE_WINDOW + 1;

/// Whose packet comes next, which, and its bytes.
type Next = (Half, Planned, usize);

/// What was written of a train.
#[derive(Default)]
struct Train {
    len: usize,
    /// Bytes of it that are in the buffer.
    held: usize,
    segment: usize,
    count: u16,
    /// Whose packet is the first.
    first: Option<Half>,
    /// Nothing else may be sent now.
    drained: bool,
}

impl Qp {
    /// Whether a packet may be sent now.
    pub fn has_output(&self, ctx: &Ctx<'_>) -> bool {
        let Some(path) = &self.path else {
            return false;
        };
        let owes = self.responder.has_output() && self.responder.plan(path.mtu).is_some();
        let may = self.state == QpState::Rts;
        owes || (may && self.requester.may_send(path.mtu, self.window(ctx)))
    }

    /// Bytes of SENDs and WRITEs that may be under way.
    #[inline]
    fn window(&self, ctx: &Ctx<'_>) -> usize {
        let share = match ctx.busy {
            // A window of the largest size each.
            0..SHARERS => ROCE_WINDOW,
            busy => ROCE_WINDOW_OF_ALL / busy,
        };
        let window = self.requester.window.bytes(ctx.config.window.min(share));
        self.requester.whole_trains(window)
    }

    #[inline]
    fn plan(&self, mtu: u32, window: usize) -> Option<(Half, Planned)> {
        let answer = || Some((Half::Responder, self.responder.plan(mtu)?));
        let request = || {
            let may = self.state == QpState::Rts;
            let planned = may.then(|| self.requester.plan(mtu, window)).flatten()?;
            Some((Half::Requester, planned))
        };
        if self.answers_first {
            answer().or_else(request)
        } else {
            request().or_else(answer)
        }
    }

    /// The next packet of a train: one that is no longer than the first and that `room` holds.
    #[inline]
    fn plan_next(&self, train: &mut Train, mtu: u32, window: usize, room: usize) -> Option<Next> {
        let Some((half, planned)) = self.plan(mtu, window) else {
            train.drained = true;
            return None;
        };
        let fits = |len| train.count == 0 || len <= train.segment.min(room);
        let len = packet_len(&planned.ext, planned.payload as usize);
        if half == Half::Requester && self.responder.has_output() {
            // The last place is the answer's.
            let last = usize::from(train.count) + 1 == MAX_TRAIN_SEGMENTS;
            if !fits(len) || last || len + ANSWER > room {
                let planned = self.responder.plan(mtu)?;
                let len = packet_len(&planned.ext, planned.payload as usize);
                return fits(len).then_some((Half::Responder, planned, len));
            }
        }
        // A short request alone may well be waited for, and a train of two takes the kernel longer.
        let single = train.count == 1 && train.first == Some(Half::Requester);
        let alone = half == Half::Responder && single && train.segment < SHORT;
        (fits(len) && !alone).then_some((half, planned, len))
    }

    /// Writes the next train to `buf`, which must hold at least one packet, but for what is left in
    /// registered memory where there are `pieces`; the train, and whether there is more to send.
    pub fn build(
        &mut self,
        ctx: &mut Ctx<'_>,
        buf: &mut [u8],
        mut pieces: Option<&mut Pieces>,
    ) -> Option<(Transmit, bool)> {
        let path = self.path.as_ref()?;
        let (mtu, socket, addresses) = (path.mtu, path.socket, path.addresses);
        let window = self.window(ctx);
        let room = buf.len().min(MAX_TRAIN_BYTES);
        let buf = buf.get_mut(..room)?;
        let mut train = Train::default();
        while usize::from(train.count) < MAX_TRAIN_SEGMENTS {
            let left = room - train.len;
            let next = self.plan_next(&mut train, mtu, window, left);
            let Some((half, planned, len)) = next else {
                break;
            };
            let Some(out) = buf.get_mut(train.held..train.held + len) else {
                break;
            };
            let pieces = pieces.as_deref_mut().map(|p| (p, train.held));
            let Some(held) = self.write_packet(ctx, (half, &planned), out, train.count, pieces)
            else {
                // What cannot be sent has failed now, and the peer may have to be told.
                self.fail_fill(ctx, half);
                if train.count == 0 {
                    continue;
                }
                break;
            };
            if train.count == 0 {
                (train.segment, train.first) = (len, Some(half));
            }
            train.len += len;
            train.held += held;
            train.count += 1;
            if len < train.segment {
                break;
            }
            // Mostly there is nothing else, and to plan takes longer than to see it.
            train.drained = self.requester.is_done() && !self.responder.has_output();
            if train.drained {
                break;
            }
        }
        self.answers_first = self.responder.has_output();
        if train.count == 0 {
            return None;
        }
        ctx.stats.packets_sent += u64::from(train.count);
        ctx.stats.trains_sent += 1;
        let transmit = Transmit {
            socket,
            path: addresses,
            ecn: Ecn::NotEct,
            segment_size: train.segment,
            len: train.len,
        };
        Some((transmit, !train.drained && self.has_output(ctx)))
    }

    /// Writes one packet and moves on: how much of it is in `out`; `None` when its data is gone.
    /// With `pieces`, and the bytes of the buffer before `out`, long data stays where it is.
    #[inline]
    fn write_packet(
        &mut self,
        ctx: &mut Ctx<'_>,
        (half, planned): (Half, &Planned),
        out: &mut [u8],
        place: u16,
        pieces: Option<(&mut Pieces, usize)>,
    ) -> Option<usize> {
        let path = self.path.as_mut()?;
        let bth = Bth {
            opcode: planned.opcode as u8,
            solicited: planned.solicited,
            pad: 0,
            version: 0,
            pkey: DEFAULT_PKEY,
            qpn: path.dest_qpn,
            ack_req: planned.ack_req,
            psn: planned.psn,
        };
        let identification = match ctx.config.identification {
            Identification::Ascending => place,
            Identification::Zero => 0,
        };
        let (requester, responder) = (&self.requester, &self.responder);
        let payload = planned.payload as usize;
        let piece = pieces.filter(|(p, _)| p.take(payload)).and_then(|p| {
            let stands = match half {
                Half::Requester => requester.piece(ctx, planned),
                Half::Responder => responder.piece(ctx, planned),
            };
            Some((p, stands?))
        });
        let held = if let Some(((pieces, before), (span, offset))) = piece {
            let data = ctx.memory.slice(&span, offset, payload)?;
            let headers = write_headers(out, bth, &planned.ext)?;
            let out = out.get_mut(..headers + ICRC)?;
            path.sent.seal_around(out, data, identification);
            pieces.push(before + headers, (span, offset), payload);
            out.len()
        } else {
            let fill = |data: &mut [u8]| match half {
                Half::Requester => requester.fill(ctx, planned, data),
                Half::Responder => responder.fill(ctx, planned, data),
            };
            write(out, bth, &planned.ext, payload, fill)?;
            path.sent.seal(out, identification);
            out.len()
        };
        match half {
            Half::Requester => self.requester.commit(planned, path.mtu, ctx.now),
            Half::Responder => self.responder.commit(planned, ctx.stats),
        }
        Some(held)
    }

    /// The memory behind a planned packet is no longer registered.
    #[cold]
    fn fail_fill(&mut self, ctx: &mut Ctx<'_>, half: Half) {
        match half {
            Half::Requester => {
                self.requester.mark_fault();
                self.settle(ctx);
            }
            Half::Responder => self.fail_response(ctx),
        }
    }
}
