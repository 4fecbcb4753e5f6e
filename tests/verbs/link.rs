//! Two connected queue pairs on two devices, and waiting for what becomes of requests.

use corelane::rdma::*;
use corelane::sys::clock::Clock;
use std::time::Duration;

/// Two devices that reach each other.
pub trait Net {
    /// One of the two: 0 asks and 1 answers, mostly.
    fn dev(&mut self, end: usize) -> &mut dyn Provider;
    /// Where a device is, for the other one.
    fn place(&self, end: usize) -> AddressVector;
    /// Whether a device is the kernel's rxe, which names some errors otherwise than the standard.
    fn is_rxe(&self, end: usize) -> bool;
    /// Before waiting: completions of this queue are waited for.
    fn arm(&mut self, end: usize, cq: CompletionQueueId);
    /// Lets something happen; returns early once something may have.
    fn wait(&mut self);
}

/// Only a failure waits so long.
const DEADLINE: Duration = Duration::from_secs(20);
pub const REGION: usize = 64 << 10;
pub const CAP: QpCap = QpCap {
    max_send_wr: 16,
    max_recv_wr: 16,
    max_send_sge: 3,
    max_recv_sge: 3,
    max_inline_data: 64,
};

pub fn all_access() -> Access {
    Access::LOCAL_WRITE | Access::REMOTE_WRITE | Access::REMOTE_READ | Access::REMOTE_ATOMIC
}

/// What connections are made with.
#[derive(Clone, Copy)]
pub struct Terms {
    pub mtu: Mtu,
    pub timeout: u8,
    pub retry_cnt: u8,
    pub rnr_retry: u8,
    pub shared: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            mtu: Mtu::Mtu1024,
            timeout: 18, // a second: emulation is slow, and nothing is lost
            retry_cnt: 7,
            rnr_retry: 7,
            shared: false,
        }
    }
}

/// One side's objects.
pub struct End {
    pub pd: ProtectionDomainId,
    pub cq: CompletionQueueId,
    pub mr: MemoryRegion,
    pub srq: Option<SharedReceiveQueueId>,
    pub qp: QueuePair,
}

pub struct Link<'a> {
    pub net: &'a mut dyn Net,
    pub ends: [End; 2],
    terms: Terms,
    /// Completions that were polled and not asked for yet.
    seen: [Vec<Completion>; 2],
}

pub fn init_attr(cq: CompletionQueueId, srq: Option<SharedReceiveQueueId>) -> QpInitAttr {
    QpInitAttr {
        send_cq: cq,
        recv_cq: cq,
        srq,
        cap: CAP,
        sq_sig_all: false,
    }
}

/// From RESET to RTS, connected to `peer` at `place`.
pub fn connect(
    dev: &mut dyn Provider,
    qp: &QueuePair,
    place: AddressVector,
    peer: (u32, u32),
    terms: &Terms,
) {
    let access = all_access();
    dev.modify_to_init(qp.id, &InitAttr { access })
        .expect("INIT");
    dev.modify_to_rtr(qp.id, &rtr(place, peer, terms))
        .expect("RTR");
    dev.modify_to_rts(qp.id, &rts(qp.psn, terms)).expect("RTS");
}

pub fn rtr(av: AddressVector, (dest_qpn, rq_psn): (u32, u32), terms: &Terms) -> RtrAttr {
    RtrAttr {
        av,
        path_mtu: terms.mtu,
        dest_qpn,
        rq_psn,
        max_dest_rd_atomic: 4,
        min_rnr_timer: 12,
    }
}

pub fn rts(sq_psn: u32, terms: &Terms) -> RtsAttr {
    RtsAttr {
        sq_psn,
        timeout: terms.timeout,
        retry_cnt: terms.retry_cnt,
        rnr_retry: terms.rnr_retry,
        max_rd_atomic: 4,
    }
}

pub fn none(qp: QueuePairId) -> Completion {
    Completion {
        wr_id: 0,
        status: Status::GeneralErr,
        opcode: CompletionOpcode::Send,
        byte_len: 0,
        imm: None,
        qp,
        qpn: 0,
    }
}

impl<'a> Link<'a> {
    pub fn new(net: &'a mut dyn Net, terms: Terms) -> Self {
        let ends = [0, 1].map(|end| {
            let dev = net.dev(end);
            let pd = dev.alloc_pd().expect("a domain");
            let cq = dev.create_cq(256).expect("a completion queue");
            let mr = dev.reg_mr(pd, REGION, all_access()).expect("a region");
            let srq = terms
                .shared
                .then(|| dev.create_srq(pd, 64, 3).expect("a shared receive queue"));
            let qp = dev.create_qp(pd, &init_attr(cq, srq)).expect("a pair");
            End {
                pd,
                cq,
                mr,
                srq,
                qp,
            }
        });
        let mut link = Self {
            net,
            ends,
            terms,
            seen: [Vec::new(), Vec::new()],
        };
        link.connect();
        link
    }

    /// Connects the two queue pairs, which are in RESET.
    pub fn connect(&mut self) {
        for end in 0..2 {
            let peer = &self.ends[1 - end].qp;
            let (peer, place) = ((peer.qpn, peer.psn), self.net.place(1 - end));
            let qp = self.ends[end].qp;
            let own = self.net.place(end).sgid_index;
            let av = AddressVector {
                sgid_index: own,
                ..place
            };
            connect(self.net.dev(end), &qp, av, peer, &self.terms);
        }
    }

    pub fn dev(&mut self, end: usize) -> &mut dyn Provider {
        self.net.dev(end)
    }

    pub fn post(&mut self, end: usize, request: SendRequest<'_>) {
        let qp = self.ends[end].qp.id;
        self.net.dev(end).post_send(qp, &[request]).expect("posted");
    }

    /// Posts a request over `len` bytes of the own region from `at`.
    pub fn request(&mut self, end: usize, wr_id: u64, op: SendOp, at: u64, len: u32) {
        let sges = [self.ends[end].mr.sge(at, len)];
        self.post(end, SendRequest::new(wr_id, op, Data::Sges(&sges)));
    }

    pub fn recv(&mut self, end: usize, wr_id: u64, at: u64, len: u32) {
        let sges = [self.ends[end].mr.sge(at, len)];
        let batch = [RecvRequest { wr_id, sges: &sges }];
        let dev = self.net.dev(end);
        match self.ends[end].srq {
            Some(srq) => dev.post_srq_recv(srq, &batch),
            None => dev.post_recv(self.ends[end].qp.id, &batch),
        }
        .expect("posted");
    }

    /// A place in the other side's region.
    pub fn remote(&self, end: usize, at: u64) -> Remote {
        let mr = &self.ends[end].mr;
        Remote {
            addr: mr.addr + at,
            rkey: mr.rkey,
        }
    }

    pub fn fill(&mut self, end: usize, at: u64, bytes: &[u8]) {
        let mr = self.ends[end].mr.id;
        self.net.dev(end).write(mr, at, bytes).expect("in range");
    }

    pub fn bytes(&mut self, end: usize, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mr = self.ends[end].mr.id;
        self.net
            .dev(end)
            .read(mr, at, &mut bytes)
            .expect("in range");
        bytes
    }

    fn poll(&mut self) {
        for end in 0..2 {
            let mut some = [none(self.ends[end].qp.id); 8];
            loop {
                let cq = self.ends[end].cq;
                let n = self.net.dev(end).poll_cq(cq, &mut some).expect("polled");
                self.seen[end].extend_from_slice(&some[..n]);
                if n == 0 {
                    break;
                }
            }
        }
    }

    /// Waits until `done`, which looks at what was polled of both sides.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let begin = Clock::now();
        loop {
            self.poll();
            if done(self) {
                return;
            }
            for end in 0..2 {
                self.net.arm(end, self.ends[end].cq);
            }
            self.poll();
            if done(self) {
                return;
            }
            let late = Clock::now() - begin > DEADLINE;
            assert!(!late, "{what}: only {:?}", self.seen);
            self.net.wait();
        }
    }

    /// The next `n` completions of a side.
    pub fn completions(&mut self, end: usize, n: usize) -> Vec<Completion> {
        self.until("completions", |link| link.seen[end].len() >= n);
        self.seen[end].drain(..n).collect()
    }

    /// The next completion of a side.
    pub fn completion(&mut self, end: usize) -> Completion {
        self.completions(end, 1)[0]
    }

    /// The next completion of a side, which must be a success.
    pub fn success(&mut self, end: usize, wr_id: u64) -> Completion {
        let c = self.completion(end);
        assert_eq!((c.wr_id, c.status), (wr_id, Status::Success), "{c:?}");
        let qp = &self.ends[end].qp;
        assert_eq!((c.qp, c.qpn), (qp.id, qp.qpn));
        c
    }

    /// Nothing completed that was not asked for.
    pub fn assert_quiet(&mut self) {
        self.poll();
        assert_eq!(self.seen, [vec![], vec![]], "nothing else completes");
    }

    pub fn state(&mut self, end: usize) -> QpState {
        let qp = self.ends[end].qp.id;
        self.net.dev(end).query_qp(qp).expect("there")
    }

    /// Waits until a queue pair has this state.
    pub fn until_state(&mut self, end: usize, state: QpState) {
        self.until("a state", |link| link.state(end) == state);
    }

    /// Removes what the link made.
    pub fn dismantle(&mut self) {
        for (n, end) in self.ends.iter().enumerate() {
            let dev = self.net.dev(n);
            dev.destroy_qp(end.qp.id).expect("destroyed");
            if let Some(srq) = end.srq {
                dev.destroy_srq(srq).expect("destroyed");
            }
            dev.destroy_cq(end.cq).expect("destroyed");
            dev.dereg_mr(end.mr.id).expect("removed");
            dev.dealloc_pd(end.pd).expect("removed");
        }
    }

    /// Removes everything, and sees that nothing is left.
    pub fn tear_down(mut self) {
        self.dismantle();
        for n in 0..2 {
            assert_eq!(self.net.dev(n).objects(), Objects::default());
        }
    }
}

/// Bytes that differ from their neighbours.
pub fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| {
            (i as u8)
                .wrapping_mul(7)
                .wrapping_add((i >> 8) as u8 ^ seed)
        })
        .collect()
}
