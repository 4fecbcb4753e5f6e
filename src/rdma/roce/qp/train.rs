//! Packets into trains: equal segments that leave with one call, answers before requests.
//!
//! A message's FIRST packet is longer than its MIDDLE ones by its RETH, so it begins a train that
//! the next packet ends; from there on all segments are equal. Packets are written where they leave
//! from, and their data is copied once, out of registered memory.

use super::{Ctx, Qp};
use crate::base::limits::{MAX_TRAIN_BYTES, MAX_TRAIN_SEGMENTS};
use crate::base::{Ecn, Transmit};
use crate::rdma::attr::QpState;
use crate::rdma::roce::config::Identification;
use crate::rdma::roce::wire::headers::DEFAULT_PKEY;
use crate::rdma::roce::wire::packet::{packet_len, write};
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

/// What was written of a train.
#[derive(Default)]
struct Train {
    len: usize,
    segment: usize,
    count: u16,
}

impl Qp {
    /// Whether a packet may be sent now.
    pub fn has_output(&self, ctx: &Ctx<'_>) -> bool {
        let Some(path) = &self.path else {
            return false;
        };
        self.plan(path.mtu, window(ctx, path.mtu)).is_some()
    }

    #[inline]
    fn plan(&self, mtu: u32, window: u32) -> Option<(Half, Planned)> {
        if let Some(planned) = self.responder.plan(mtu) {
            return Some((Half::Responder, planned));
        }
        if self.state != QpState::Rts {
            return None;
        }
        let planned = self.requester.plan(mtu, window)?;
        Some((Half::Requester, planned))
    }

    /// Writes the next train to `buf`, which must hold at least one packet.
    pub fn build(&mut self, ctx: &mut Ctx<'_>, buf: &mut [u8]) -> Option<Transmit> {
        let path = self.path.as_ref()?;
        let (mtu, socket, addresses) = (path.mtu, path.socket, path.addresses);
        let window = window(ctx, mtu);
        let room = buf.len().min(MAX_TRAIN_BYTES);
        let buf = buf.get_mut(..room)?;
        let mut train = Train::default();
        while usize::from(train.count) < MAX_TRAIN_SEGMENTS {
            let Some((half, planned)) = self.plan(mtu, window) else {
                break;
            };
            let len = packet_len(&planned.ext, planned.payload as usize);
            if train.count > 0 && len > train.segment {
                break;
            }
            let Some(out) = buf.get_mut(train.len..train.len + len) else {
                break;
            };
            if !self.write_packet(ctx, half, &planned, out, train.count) {
                // What cannot be sent has failed now, and the peer may have to be told.
                self.fail_fill(ctx, half);
                if train.count == 0 {
                    continue;
                }
                break;
            }
            if train.count == 0 {
                train.segment = len;
            }
            train.len += len;
            train.count += 1;
            if len < train.segment {
                break;
            }
        }
        if train.count == 0 {
            return None;
        }
        ctx.stats.packets_sent += u64::from(train.count);
        ctx.stats.trains_sent += 1;
        Some(Transmit {
            socket,
            path: addresses,
            ecn: Ecn::NotEct,
            segment_size: train.segment,
            len: train.len,
        })
    }

    /// Writes one packet and moves on; false when its data is gone.
    #[inline]
    fn write_packet(
        &mut self,
        ctx: &mut Ctx<'_>,
        half: Half,
        planned: &Planned,
        out: &mut [u8],
        place: u16,
    ) -> bool {
        let Some(path) = &mut self.path else {
            return false;
        };
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
        let (requester, responder) = (&self.requester, &self.responder);
        let written = write(
            out,
            bth,
            &planned.ext,
            planned.payload as usize,
            |data| match half {
                Half::Requester => requester.fill(ctx, planned, data),
                Half::Responder => responder.fill(ctx, planned, data),
            },
        );
        if written.is_none() {
            return false;
        }
        let identification = match ctx.config.identification {
            Identification::Ascending => place,
            Identification::Zero => 0,
        };
        path.sent.seal(out, identification);
        match half {
            Half::Requester => self.requester.commit(planned, path.mtu, ctx.now),
            Half::Responder => self.responder.commit(planned, ctx.stats),
        }
        true
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

/// Packets of SENDs and WRITEs that may be under way.
fn window(ctx: &Ctx<'_>, mtu: u32) -> u32 {
    (ctx.config.window / mtu.max(1) as usize).clamp(2, 1 << 20) as u32
}
