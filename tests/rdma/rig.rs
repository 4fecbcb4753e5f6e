//! A device with one queue pair and a region, ready to be connected to anything, and a scripted
//! peer that can say anything in any packet.

use corelane::base::limits::GATHER_PIECES;
use corelane::base::{Ecn, FourTuple, RecvMeta, Rng, SocketId, Timestamp, Transmit};
use corelane::rdma::roce::wire::packet::{packet_len, write};
use corelane::rdma::roce::wire::{Bth, Ext, Icrc, Opcode, Packet, Psn};
use corelane::rdma::roce::{Config, Device};
use corelane::rdma::*;
use std::net::SocketAddr;

/// Bytes of each side's region.
pub const REGION: usize = 1 << 20;
pub const EVERYTHING: [Access; 4] = [
    Access::LOCAL_WRITE,
    Access::REMOTE_WRITE,
    Access::REMOTE_READ,
    Access::REMOTE_ATOMIC,
];

pub fn all_access() -> Access {
    EVERYTHING.into_iter().fold(Access::NONE, |a, b| a | b)
}

/// One end of a connection.
pub struct Side {
    pub dev: Device,
    pub addr: SocketAddr,
    pub pd: ProtectionDomainId,
    pub cq: CompletionQueueId,
    pub mr: MemoryRegion,
    pub srq: Option<SharedReceiveQueueId>,
    pub qp: QueuePair,
    train: Vec<u8>,
    /// Trains so far.
    trains: u64,
}

/// What a connection is made with.
#[derive(Clone, Copy)]
pub struct Terms {
    pub mtu: Mtu,
    pub rd_atomic: u8,
    pub access: Access,
    pub timeout: u8,
    pub retry_cnt: u8,
    pub rnr_retry: u8,
    pub min_rnr_timer: u8,
}

impl Terms {
    pub fn new() -> Self {
        Self {
            mtu: Mtu::Mtu1024,
            rd_atomic: 4,
            access: all_access(),
            timeout: 8, // 1 ms
            retry_cnt: 7,
            rnr_retry: 7,
            min_rnr_timer: 1,
        }
    }
}

pub const CAP: QpCap = QpCap {
    max_send_wr: 64,
    max_recv_wr: 64,
    max_send_sge: 3,
    max_recv_sge: 3,
    max_inline_data: 64,
};

impl Side {
    pub fn new(addr: &str, seed: u64, shared: bool, edit: impl FnOnce(&mut Config)) -> Self {
        let addr: SocketAddr = addr.parse().unwrap();
        let mut config = Config::new(SocketId(3), addr);
        edit(&mut config);
        let mut dev = Device::new(config, Rng::from_u64(seed)).unwrap();
        let pd = dev.alloc_pd().unwrap();
        let cq = dev.create_cq(512).unwrap();
        let mr = dev.reg_mr(pd, REGION, all_access()).unwrap();
        let srq = shared.then(|| dev.create_srq(pd, 64, 3).unwrap());
        let attr = QpInitAttr {
            send_cq: cq,
            recv_cq: cq,
            srq,
            cap: CAP,
            sq_sig_all: false,
        };
        let qp = dev.create_qp(pd, &attr).unwrap();
        Self {
            dev,
            addr,
            pd,
            cq,
            mr,
            srq,
            qp,
            train: vec![0xa5; 65_536],
            trains: 0,
        }
    }

    /// To RTS, connected to `(address, QPN, PSN)`.
    pub fn connect(&mut self, peer: (SocketAddr, u32, u32), terms: &Terms) {
        let rtr = rtr(peer, terms);
        let access = terms.access;
        self.dev
            .modify_to_init(self.qp.id, &InitAttr { access })
            .unwrap();
        self.dev.modify_to_rtr(self.qp.id, &rtr).unwrap();
        let rts = RtsAttr {
            sq_psn: self.qp.psn,
            timeout: terms.timeout,
            retry_cnt: terms.retry_cnt,
            rnr_retry: terms.rnr_retry,
            max_rd_atomic: terms.rd_atomic,
        };
        self.dev.modify_to_rts(self.qp.id, &rts).unwrap();
    }

    pub fn name(&self) -> (SocketAddr, u32, u32) {
        (self.addr, self.qp.qpn, self.qp.psn)
    }

    pub fn post(&mut self, request: SendRequest<'_>) {
        self.dev.post_send(self.qp.id, &[request]).unwrap();
    }

    pub fn post_recv(&mut self, wr_id: u64, sges: &[Sge]) {
        let request = RecvRequest { wr_id, sges };
        match self.srq {
            Some(srq) => self.dev.post_srq_recv(srq, &[request]).unwrap(),
            None => self.dev.post_recv(self.qp.id, &[request]).unwrap(),
        }
    }

    pub fn completions(&mut self) -> Vec<Completion> {
        let none = Completion {
            wr_id: 0,
            status: Status::GeneralErr,
            opcode: CompletionOpcode::Send,
            byte_len: 0,
            imm: None,
            qp: self.qp.id,
            qpn: 0,
        };
        let (mut all, mut some) = (Vec::new(), [none; 16]);
        loop {
            let n = self.dev.poll_cq(self.cq, &mut some).unwrap();
            all.extend_from_slice(&some[..n]);
            if n < some.len() {
                return all;
            }
        }
    }

    /// What became of each request, without the rest.
    pub fn outcomes(&mut self) -> Vec<(u64, Status)> {
        self.completions()
            .iter()
            .map(|c| (c.wr_id, c.status))
            .collect()
    }

    pub fn events(&mut self) -> Vec<AsyncEvent> {
        std::iter::from_fn(|| self.dev.get_async_event()).collect()
    }

    pub fn state(&self) -> QpState {
        self.dev.query_qp(self.qp.id).unwrap()
    }

    /// The next train; long data of every second one is fetched from where it stands.
    pub fn transmit(&mut self, now: Timestamp) -> Option<(Transmit, Vec<u8>)> {
        self.trains += 1;
        if self.trains.is_multiple_of(2) {
            return self
                .gather(now)
                .map(|(transmit, bytes, _)| (transmit, bytes));
        }
        let transmit = self.dev.poll_transmit(now, &mut self.train)?;
        assert!(transmit.segments() <= 64 && transmit.len <= 65_507);
        assert_eq!(self.dev.piece(0), None);
        Some((transmit, self.train[..transmit.len].to_vec()))
    }

    /// The next train of pieces, put together, and how many there were.
    pub fn gather(&mut self, now: Timestamp) -> Option<(Transmit, Vec<u8>, usize)> {
        let transmit = self.dev.poll_gather(now, &mut self.train)?;
        assert!(transmit.segments() <= 64 && transmit.len <= 65_507);
        let (mut bytes, mut from, mut pieces) = (Vec::new(), 0, 0);
        while let Some((at, piece)) = self.dev.piece(pieces) {
            bytes.extend_from_slice(&self.train[from..at]);
            bytes.extend_from_slice(piece);
            (from, pieces) = (at, pieces + 1);
        }
        bytes.extend_from_slice(&self.train[from..][..transmit.len - bytes.len()]);
        assert!(pieces <= GATHER_PIECES);
        Some((transmit, bytes, pieces))
    }

    /// Removes everything, and sees that nothing is left.
    pub fn tear_down(mut self) {
        self.dev.destroy_qp(self.qp.id).unwrap();
        if let Some(srq) = self.srq {
            self.dev.destroy_srq(srq).unwrap();
        }
        self.dev.destroy_cq(self.cq).unwrap();
        self.dev.dereg_mr(self.mr.id).unwrap();
        self.dev.dealloc_pd(self.pd).unwrap();
        assert_eq!(self.dev.objects(), Objects::default());
    }
}

pub fn rtr((addr, dest_qpn, rq_psn): (SocketAddr, u32, u32), terms: &Terms) -> RtrAttr {
    RtrAttr {
        av: AddressVector {
            sgid_index: 0,
            dgid: addr.ip().into(),
            udp_port: addr.port(),
        },
        path_mtu: terms.mtu,
        dest_qpn,
        rq_psn,
        max_dest_rd_atomic: terms.rd_atomic,
        min_rnr_timer: terms.min_rnr_timer,
    }
}

pub fn meta(from: SocketAddr, to: SocketAddr, segment_size: usize) -> RecvMeta {
    RecvMeta {
        socket: SocketId(3),
        path: FourTuple::new(to, from),
        ecn: Ecn::NotEct,
        segment_size,
    }
}

/// A scripted peer of one side.
pub struct RawPeer {
    pub side: Side,
    pub addr: SocketAddr,
    /// The next number that the side expects, when the script sends as it should.
    pub psn: u32,
    pub now: Timestamp,
    icrc: Icrc,
}

pub const PEER_QPN: u32 = 0xbeef;

impl RawPeer {
    /// A side connected to a peer whose first number wraps soon.
    pub fn new(terms: Terms) -> Self {
        Self::with(terms, |_| ())
    }

    /// The same beside a device that is configured otherwise.
    pub fn with(terms: Terms, edit: impl FnOnce(&mut Config)) -> Self {
        let addr: SocketAddr = "[fd00::2]:4791".parse().unwrap();
        let mut side = Side::new("[fd00::1]:4791", 7, false, edit);
        let psn = 0xff_fffc;
        side.connect((addr, PEER_QPN, psn), &terms);
        Self {
            icrc: Icrc::new(addr, side.addr),
            side,
            addr,
            psn,
            now: Timestamp::from_nanos(1),
        }
    }

    pub fn bth(&self, opcode: Opcode, psn: u32, ack_req: bool) -> Bth {
        Bth {
            opcode: opcode as u8,
            solicited: false,
            pad: 0,
            version: 0,
            pkey: 0xffff,
            qpn: self.side.qp.qpn,
            ack_req,
            psn: Psn::new(psn),
        }
    }

    pub fn packet(&mut self, bth: Bth, ext: &Ext, data: &[u8]) -> Vec<u8> {
        let mut out = vec![0; packet_len(ext, data.len())];
        write(&mut out, bth, ext, data.len(), |d| {
            d.copy_from_slice(data);
            true
        })
        .unwrap();
        self.icrc.seal(&mut out, 0);
        out
    }

    /// Delivers bytes as they are.
    pub fn deliver(&mut self, packet: &[u8]) {
        let meta = meta(self.addr, self.side.addr, packet.len());
        let mut bytes = packet.to_vec();
        self.side.dev.handle_train(self.now, &meta, &mut bytes);
        assert_eq!(bytes, packet, "a received train is left as it was");
    }

    /// Sends a packet that asks for an acknowledgement.
    pub fn send(&mut self, opcode: Opcode, psn: u32, ext: Ext, data: &[u8]) {
        let bth = self.bth(opcode, psn, true);
        let packet = self.packet(bth, &ext, data);
        self.deliver(&packet);
    }

    /// Sends the next packet in order.
    pub fn next(&mut self, opcode: Opcode, ext: Ext, data: &[u8]) {
        self.send(opcode, self.psn, ext, data);
        self.psn += 1;
    }

    /// What the side sends now, packet by packet: opcode, number, what follows, data.
    pub fn answers(&mut self) -> Vec<(Opcode, u32, Ext, Vec<u8>)> {
        let mut all = Vec::new();
        let mut check = Icrc::new(self.side.addr, self.addr);
        while let Some((transmit, mut bytes)) = self.side.transmit(self.now) {
            for packet in bytes.chunks_mut(transmit.segment_size) {
                assert_eq!(
                    check.check(packet, 0),
                    corelane::rdma::roce::wire::Verdict::Good
                );
                let p = Packet::parse(packet).unwrap();
                assert_eq!(p.bth.qpn, PEER_QPN);
                all.push((p.opcode, p.bth.psn.get(), p.ext, p.payload.to_vec()));
            }
        }
        all
    }

    /// The syndrome and number of the one acknowledgement that the side sends now.
    pub fn acknowledgement(&mut self) -> (u8, u32) {
        match &self.answers()[..] {
            [(Opcode::Acknowledge, psn, Ext::Aeth(aeth), _)] => (aeth.syndrome, *psn),
            other => panic!("not one acknowledgement: {other:?}"),
        }
    }
}
