//! Queue pairs of libibverbs, and requests in the form that it takes them.

use super::{Cq, PORT, Pd, Qp, Srq, done, flags, ibv, made};
use crate::rdma::attr::{InitAttr, Mtu, QpCap, QpState, RtrAttr, RtsAttr};
use crate::rdma::error::RdmaError;
use crate::rdma::work::{Data, Remote, SendOp, SendRequest, Sge};
use ibv::ibv_qp_attr_mask as mask;
use std::ffi::c_int;
use std::mem;
use std::ptr;
use std::sync::Arc;

/// What a queue pair is made with.
pub(in crate::rdma::verbs) struct QpParts<'a> {
    pub pd: &'a Arc<Pd>,
    pub send_cq: &'a Arc<Cq>,
    pub recv_cq: &'a Arc<Cq>,
    pub srq: Option<&'a Arc<Srq>>,
    pub cap: QpCap,
    pub sq_sig_all: bool,
}

fn zeroed() -> ibv::ibv_qp_attr {
    // SAFETY: numbers, and unions of numbers, which may all be zero.
    unsafe { mem::zeroed() }
}

impl Qp {
    pub fn new(parts: &QpParts<'_>) -> Result<Self, RdmaError> {
        let own_receives = if parts.srq.is_some() {
            0
        } else {
            parts.cap.max_recv_wr
        };
        let mut attr = ibv::ibv_qp_init_attr {
            qp_context: ptr::null_mut(),
            send_cq: parts.send_cq.raw,
            recv_cq: parts.recv_cq.raw,
            srq: parts.srq.map_or(ptr::null_mut(), |s| s.raw),
            cap: ibv::ibv_qp_cap {
                max_send_wr: parts.cap.max_send_wr,
                max_recv_wr: own_receives,
                max_send_sge: parts.cap.max_send_sge,
                max_recv_sge: parts.cap.max_recv_sge,
                max_inline_data: parts.cap.max_inline_data,
            },
            qp_type: ibv::ibv_qp_type::IBV_QPT_RC,
            sq_sig_all: c_int::from(parts.sq_sig_all),
        };
        // SAFETY: what the attributes name is live, and kept so by the queue pair below.
        let raw = unsafe { ibv::ibv_create_qp(parts.pd.raw, &mut attr) };
        Ok(Self {
            raw: made("ibv_create_qp", raw)?,
            _parents: (
                parts.pd.clone(),
                [parts.send_cq.clone(), parts.recv_cq.clone()],
                parts.srq.cloned(),
            ),
        })
    }

    pub fn qpn(&self) -> u32 {
        // SAFETY: the queue pair is live, and its number does not change.
        unsafe { (*self.raw).qp_num }
    }

    fn modify(&self, mut attr: ibv::ibv_qp_attr, changed: &[mask]) -> Result<(), RdmaError> {
        let changed = changed.iter().fold(mask::IBV_QP_STATE.0, |a, m| a | m.0);
        // SAFETY: the queue pair is live, and the mask names the attributes that were set.
        done("ibv_modify_qp", unsafe {
            ibv::ibv_modify_qp(self.raw, &mut attr, changed as c_int)
        })
    }

    pub fn to_init(&self, init: &InitAttr) -> Result<(), RdmaError> {
        let mut attr = zeroed();
        attr.qp_state = ibv::ibv_qp_state::IBV_QPS_INIT;
        attr.port_num = PORT;
        attr.qp_access_flags = flags(init.access);
        let and = [
            mask::IBV_QP_PKEY_INDEX,
            mask::IBV_QP_PORT,
            mask::IBV_QP_ACCESS_FLAGS,
        ];
        self.modify(attr, &and)
    }

    pub fn to_rtr(&self, rtr: &RtrAttr) -> Result<(), RdmaError> {
        let mut attr = zeroed();
        attr.qp_state = ibv::ibv_qp_state::IBV_QPS_RTR;
        attr.path_mtu = match rtr.path_mtu {
            Mtu::Mtu256 => ibv::ibv_mtu::IBV_MTU_256,
            Mtu::Mtu512 => ibv::ibv_mtu::IBV_MTU_512,
            Mtu::Mtu1024 => ibv::ibv_mtu::IBV_MTU_1024,
            Mtu::Mtu2048 => ibv::ibv_mtu::IBV_MTU_2048,
            Mtu::Mtu4096 => ibv::ibv_mtu::IBV_MTU_4096,
        };
        attr.dest_qp_num = rtr.dest_qpn;
        attr.rq_psn = rtr.rq_psn;
        attr.max_dest_rd_atomic = rtr.max_dest_rd_atomic;
        attr.min_rnr_timer = rtr.min_rnr_timer;
        attr.ah_attr.is_global = 1;
        attr.ah_attr.port_num = PORT;
        attr.ah_attr.grh.dgid.raw = rtr.av.dgid.0;
        attr.ah_attr.grh.sgid_index = rtr.av.sgid_index;
        attr.ah_attr.grh.hop_limit = 64;
        let and = [
            mask::IBV_QP_AV,
            mask::IBV_QP_PATH_MTU,
            mask::IBV_QP_DEST_QPN,
            mask::IBV_QP_RQ_PSN,
            mask::IBV_QP_MAX_DEST_RD_ATOMIC,
            mask::IBV_QP_MIN_RNR_TIMER,
        ];
        self.modify(attr, &and)
    }

    pub fn to_rts(&self, rts: &RtsAttr) -> Result<(), RdmaError> {
        let mut attr = zeroed();
        attr.qp_state = ibv::ibv_qp_state::IBV_QPS_RTS;
        attr.sq_psn = rts.sq_psn;
        attr.timeout = rts.timeout;
        attr.retry_cnt = rts.retry_cnt;
        attr.rnr_retry = rts.rnr_retry;
        attr.max_rd_atomic = rts.max_rd_atomic;
        let and = [
            mask::IBV_QP_SQ_PSN,
            mask::IBV_QP_TIMEOUT,
            mask::IBV_QP_RETRY_CNT,
            mask::IBV_QP_RNR_RETRY,
            mask::IBV_QP_MAX_QP_RD_ATOMIC,
        ];
        self.modify(attr, &and)
    }

    pub fn to_err(&self) -> Result<(), RdmaError> {
        let mut attr = zeroed();
        attr.qp_state = ibv::ibv_qp_state::IBV_QPS_ERR;
        self.modify(attr, &[])
    }

    pub fn to_reset(&self) -> Result<(), RdmaError> {
        let mut attr = zeroed();
        attr.qp_state = ibv::ibv_qp_state::IBV_QPS_RESET;
        self.modify(attr, &[])
    }

    pub fn state(&self) -> Result<QpState, RdmaError> {
        use ibv::ibv_qp_state as is;
        let mut attr = zeroed();
        // SAFETY: pointers and numbers, which may all be zero; the call fills both in.
        let answer = unsafe {
            let mut init: ibv::ibv_qp_init_attr = mem::zeroed();
            let what = mask::IBV_QP_STATE.0 as c_int;
            ibv::ibv_query_qp(self.raw, &mut attr, what, &mut init)
        };
        done("ibv_query_qp", answer)?;
        Ok(match attr.qp_state {
            is::IBV_QPS_RESET => QpState::Reset,
            is::IBV_QPS_INIT => QpState::Init,
            is::IBV_QPS_RTR => QpState::Rtr,
            is::IBV_QPS_RTS => QpState::Rts,
            _ => QpState::Err,
        })
    }

    /// Posts what `scratch` has been filled with; how many, and why no more.
    pub fn post_send(&self, scratch: &mut Scratch) -> (usize, Result<(), RdmaError>) {
        let mut sges = scratch.sges.as_mut_ptr();
        let first = scratch.sends.as_mut_ptr();
        let count = scratch.sends.len();
        if count == 0 {
            return (0, Ok(()));
        }
        for (n, wr) in scratch.sends.iter_mut().enumerate() {
            wr.sg_list = sges;
            // SAFETY: the requests' SGEs stand behind each other in `sges`, and `next` is null
            // behind the last request.
            unsafe {
                sges = sges.add(wr.num_sge as usize);
                let more = n + 1 < count;
                wr.next = if more {
                    first.add(n + 1)
                } else {
                    ptr::null_mut()
                };
            }
        }
        let mut bad = ptr::null_mut();
        // SAFETY: the chain and its SGEs live until the call is done, which copies them. What
        // inline SGEs point at does too: `Scratch::send` is told so.
        let answer = unsafe { ibv::ibv_post_send(self.raw, first, &mut bad) };
        let posted = posted(first, bad, count, answer);
        (posted, done("ibv_post_send", answer))
    }

    /// Posts receives; how many, and why no more.
    pub fn post_recv(&self, scratch: &mut Scratch) -> (usize, Result<(), RdmaError>) {
        scratch.post_recvs("ibv_post_recv", |first, bad| {
            // SAFETY: a chain of whole requests whose SGEs live as long, made by `post_recvs`.
            unsafe { ibv::ibv_post_recv(self.raw, first, bad) }
        })
    }
}

/// How many of a chain were posted, if `bad` is the first that was not.
fn posted<T>(first: *mut T, bad: *mut T, count: usize, answer: c_int) -> usize {
    if answer == 0 {
        return count;
    }
    let bytes = (bad as usize).saturating_sub(first as usize);
    (bytes / mem::size_of::<T>()).min(count - 1)
}

/// Room for a batch of requests in libibverbs' form, used again and again.
#[derive(Default)]
pub(in crate::rdma::verbs) struct Scratch {
    sends: Vec<ibv::ibv_send_wr>,
    recvs: Vec<ibv::ibv_recv_wr>,
    sges: Vec<ibv::ibv_sge>,
}

// SAFETY: its pointers are dead but while a post, which borrows it, is under way.
unsafe impl Send for Scratch {}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}

impl Scratch {
    pub fn clear(&mut self) {
        self.sends.clear();
        self.recvs.clear();
        self.sges.clear();
    }

    fn pieces(&mut self, sges: &[Sge]) -> c_int {
        self.sges.extend(sges.iter().map(|s| ibv::ibv_sge {
            addr: s.addr,
            length: s.length,
            lkey: s.lkey,
        }));
        sges.len() as c_int
    }

    /// Adds a send.
    ///
    /// # Safety
    /// Inline data lives until the batch is posted or cleared.
    pub unsafe fn send(&mut self, tag: u64, request: &SendRequest<'_>) {
        use ibv::{ibv_send_flags as flags, ibv_wr_opcode as is};
        // SAFETY: numbers, null pointers, and unions of such, which may all be zero.
        let mut wr: ibv::ibv_send_wr = unsafe { mem::zeroed() };
        wr.wr_id = tag;
        for (wanted, flag) in [
            (request.signaled, flags::IBV_SEND_SIGNALED),
            (request.solicited, flags::IBV_SEND_SOLICITED),
            (request.fence, flags::IBV_SEND_FENCE),
            (
                matches!(request.data, Data::Inline(_)),
                flags::IBV_SEND_INLINE,
            ),
        ] {
            wr.send_flags |= if wanted { flag.0 } else { 0 };
        }
        wr.num_sge = match request.data {
            Data::Sges(sges) => self.pieces(sges),
            Data::Inline(bytes) => self.pieces(&[Sge {
                addr: bytes.as_ptr() as u64,
                length: bytes.len() as u32,
                lkey: 0,
            }]),
        };
        let (opcode, imm) = match request.op {
            SendOp::Send => (is::IBV_WR_SEND, 0),
            SendOp::SendWithImm(imm) => (is::IBV_WR_SEND_WITH_IMM, imm),
            SendOp::RdmaWrite(_) => (is::IBV_WR_RDMA_WRITE, 0),
            SendOp::RdmaWriteWithImm(_, imm) => (is::IBV_WR_RDMA_WRITE_WITH_IMM, imm),
            SendOp::RdmaRead(_) => (is::IBV_WR_RDMA_READ, 0),
            SendOp::AtomicCmpAndSwp { .. } => (is::IBV_WR_ATOMIC_CMP_AND_SWP, 0),
            SendOp::AtomicFetchAndAdd { .. } => (is::IBV_WR_ATOMIC_FETCH_AND_ADD, 0),
        };
        wr.opcode = opcode;
        wr.imm_data_invalidated_rkey_union.imm_data = imm.to_be();
        let atomic = |remote: Remote, compare_add, swap| ibv::atomic_t {
            remote_addr: remote.addr,
            compare_add,
            swap,
            rkey: remote.rkey,
        };
        match request.op {
            SendOp::Send | SendOp::SendWithImm(_) => {}
            SendOp::RdmaWrite(to) | SendOp::RdmaWriteWithImm(to, _) | SendOp::RdmaRead(to) => {
                wr.wr.rdma = ibv::rdma_t {
                    remote_addr: to.addr,
                    rkey: to.rkey,
                };
            }
            SendOp::AtomicCmpAndSwp {
                remote,
                compare,
                swap,
            } => wr.wr.atomic = atomic(remote, compare, swap),
            SendOp::AtomicFetchAndAdd { remote, add } => wr.wr.atomic = atomic(remote, add, 0),
        }
        self.sends.push(wr);
    }

    /// Adds a receive.
    pub fn recv(&mut self, tag: u64, sges: &[Sge]) {
        let num_sge = self.pieces(sges);
        self.recvs.push(ibv::ibv_recv_wr {
            wr_id: tag,
            next: ptr::null_mut(),
            sg_list: ptr::null_mut(),
            num_sge,
        });
    }

    /// Shows the tags of the receives that were not posted.
    pub fn unposted(&self, posted: usize, look: impl FnMut(u64)) {
        let tags = self.recvs.iter().skip(posted).map(|wr| wr.wr_id);
        tags.for_each(look);
    }

    /// Chains the receives and hands them to `post`.
    pub(super) fn post_recvs(
        &mut self,
        op: &'static str,
        post: impl FnOnce(*mut ibv::ibv_recv_wr, *mut *mut ibv::ibv_recv_wr) -> c_int,
    ) -> (usize, Result<(), RdmaError>) {
        let mut sges = self.sges.as_mut_ptr();
        let first = self.recvs.as_mut_ptr();
        let count = self.recvs.len();
        if count == 0 {
            return (0, Ok(()));
        }
        for (n, wr) in self.recvs.iter_mut().enumerate() {
            wr.sg_list = sges;
            // SAFETY: as for sends.
            unsafe {
                sges = sges.add(wr.num_sge as usize);
                let more = n + 1 < count;
                wr.next = if more {
                    first.add(n + 1)
                } else {
                    ptr::null_mut()
                };
            }
        }
        let mut bad = ptr::null_mut();
        let answer = post(first, &mut bad);
        (posted(first, bad, count, answer), done(op, answer))
    }
}
