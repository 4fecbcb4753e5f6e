//! Requests on their way to the device, checked as every provider checks them, and completions on
//! their way back.

use super::device::{Pair, Shared};
use super::ffi::{self, Wc};
use super::tags::{Queue, Recvs, pack, unpack};
use crate::rdma::attr::QpState;
use crate::rdma::completion::{Completion, CompletionOpcode, Status};
use crate::rdma::error::{PostError, RdmaError};
use crate::rdma::ids::QueuePairId;
use crate::rdma::slots::{Key, Slots};
use crate::rdma::work::{Data, RecvRequest, SendRequest};

pub(super) fn attribute<T>(
    name: &'static str,
    value: u64,
    allowed: &'static str,
) -> Result<T, RdmaError> {
    Err(RdmaError::Attribute {
        name,
        value,
        allowed,
    })
}

/// Checks a request as its queue pair must; the bytes of its message.
pub(super) fn check(
    pair: &Pair,
    request: &SendRequest<'_>,
    max_message: u32,
) -> Result<u32, RdmaError> {
    let len: u64 = match request.data {
        Data::Inline(bytes) if request.op.fetches() => {
            return attribute("inline data", bytes.len() as u64, "only what is sent");
        }
        Data::Inline(bytes) if bytes.len() > pair.max_inline => {
            let allowed = "at most max_inline_data";
            return attribute("bytes of inline data", bytes.len() as u64, allowed);
        }
        Data::Inline(bytes) => bytes.len() as u64,
        Data::Sges(sges) if sges.len() > pair.max_send_sge => {
            return attribute("number of SGEs", sges.len() as u64, "at most max_send_sge");
        }
        Data::Sges(sges) => sges.iter().map(|s| u64::from(s.length)).sum(),
    };
    if request.op.is_atomic() && len != 8 {
        return attribute("bytes of an atomic", len, "8");
    }
    if len > u64::from(max_message) {
        return attribute("bytes of a message", len, "at most max_msg_sz");
    }
    Ok(len as u32)
}

/// Fills `scratch` with receives up to the first that cannot be posted.
pub(super) fn fill_recvs(
    scratch: &mut ffi::Scratch,
    recvs: &mut Recvs,
    max_sge: usize,
    queue: Queue,
    batch: &[RecvRequest<'_>],
) -> Result<(), PostError> {
    scratch.clear();
    for (index, request) in batch.iter().enumerate() {
        let n = request.sges.len();
        let place = match n <= max_sge {
            true => recvs.add(request.wr_id),
            false => attribute("number of SGEs", n as u64, "at most max_recv_sge"),
        };
        let at = place.map_err(|error| PostError { index, error })?;
        scratch.recv(pack(queue, at), request.sges);
    }
    Ok(())
}

/// What the device told, in the program's terms; `None` when its request is gone.
pub(super) fn translate(
    qps: &mut Slots<Pair>,
    srqs: &mut Slots<Shared>,
    key: Option<Key>,
    wc: Wc,
) -> Option<Completion> {
    let (queue, at) = unpack(wc.tag);
    let shared = match queue {
        // A receive comes back to its shared queue even when its queue pair is gone.
        Queue::Srq(slot) => {
            let srq = srqs.key_at(slot).and_then(|key| srqs.get_mut(key));
            srq.and_then(|s| s.recvs.complete(at))
        }
        _ => None,
    };
    let key = key?;
    let pair = qps.get_mut(key)?;
    let ok = wc.status == Status::Success;
    if !ok {
        pair.state = QpState::Err;
    }
    let (wr_id, opcode, byte_len, imm) = match queue {
        Queue::Send => {
            let sent = pair.sends.complete(at)?;
            (sent.wr_id, sent.opcode, sent.fetched, None)
        }
        Queue::Recv | Queue::Srq(_) => {
            let wr_id = match queue {
                Queue::Recv => pair.recvs.complete(at),
                _ => shared,
            };
            let opcode = match wc.written && ok {
                true => CompletionOpcode::RecvRdmaWithImm,
                false => CompletionOpcode::Recv,
            };
            (wr_id?, opcode, wc.byte_len, wc.imm)
        }
    };
    Some(Completion {
        wr_id,
        status: wc.status,
        opcode,
        byte_len: if ok { byte_len } else { 0 },
        imm: imm.filter(|_| ok),
        qp: QueuePairId(key),
        qpn: wc.qpn,
    })
}
