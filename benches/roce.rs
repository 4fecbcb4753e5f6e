//! What RoCE costs without a network: nanoseconds per packet of RDMA WRITEs at MTU 4096, sent and
//! received, checksums included, and of small SENDs.
//!
//! `cargo bench --bench roce`

use corelane::base::{Ecn, RecvMeta, Rng, SocketId, Transmit};
use corelane::rdma::roce::{Config, Device};
use corelane::rdma::*;
use corelane::sys::clock::Clock;
use std::net::SocketAddr;
use std::time::Duration;

const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(150);
const REGION: usize = 1 << 20;

struct End {
    device: Device,
    cq: CompletionQueueId,
    mr: MemoryRegion,
    qp: QueuePair,
    addr: SocketAddr,
}

fn end(addr: &str, seed: u64) -> End {
    let addr = addr.parse().expect("an address");
    let config = Config::new(SocketId(0), addr);
    let mut device = Device::new(config, Rng::from_u64(seed)).expect("a device");
    let pd = device.alloc_pd().expect("a domain");
    let cq = device.create_cq(1024).expect("a queue");
    let access = Access::LOCAL_WRITE | Access::REMOTE_WRITE | Access::REMOTE_READ;
    let mr = device.reg_mr(pd, REGION, access).expect("a region");
    let cap = QpCap {
        max_send_wr: 128,
        max_recv_wr: 128,
        max_send_sge: 1,
        max_recv_sge: 1,
        max_inline_data: 64,
    };
    let attr = QpInitAttr {
        send_cq: cq,
        recv_cq: cq,
        srq: None,
        cap,
        sq_sig_all: false,
    };
    let qp = device.create_qp(pd, &attr).expect("a queue pair");
    End {
        device,
        cq,
        mr,
        qp,
        addr,
    }
}

impl End {
    fn connect(&mut self, to: (SocketAddr, u32, u32)) {
        let access = Access::REMOTE_WRITE | Access::REMOTE_READ;
        let rtr = RtrAttr {
            av: AddressVector {
                sgid_index: 0,
                dgid: to.0.ip().into(),
                udp_port: to.0.port(),
            },
            path_mtu: Mtu::Mtu4096,
            dest_qpn: to.1,
            rq_psn: to.2,
            max_dest_rd_atomic: 16,
            min_rnr_timer: 1,
        };
        let rts = RtsAttr {
            sq_psn: self.qp.psn,
            timeout: 18,
            retry_cnt: 7,
            rnr_retry: 7,
            max_rd_atomic: 16,
        };
        let device = &mut self.device;
        device
            .modify_to_init(self.qp.id, &InitAttr { access })
            .expect("INIT");
        device.modify_to_rtr(self.qp.id, &rtr).expect("RTR");
        device.modify_to_rts(self.qp.id, &rts).expect("RTS");
    }

    fn name(&self) -> (SocketAddr, u32, u32) {
        (self.addr, self.qp.qpn, self.qp.psn)
    }

    fn poll(&mut self) -> usize {
        let none = Completion {
            wr_id: 0,
            status: Status::GeneralErr,
            opcode: CompletionOpcode::Send,
            byte_len: 0,
            imm: None,
            qp: self.qp.id,
            qpn: 0,
        };
        let mut some = [none; 64];
        let n = self.device.poll_cq(self.cq, &mut some).expect("polled");
        assert!(some[..n].iter().all(|c| c.status == Status::Success));
        n
    }
}

/// Work of one direction, and the time that each side spent on it.
struct Pair {
    ends: [End; 2],
    train: Vec<u8>,
    spent: [Duration; 2],
    packets: u64,
    trains: u64,
}

impl Pair {
    fn new(v6: bool) -> Self {
        let addrs = if v6 {
            ["[fd00::1]:4791", "[fd00::2]:4791"]
        } else {
            ["10.0.0.1:4791", "10.0.0.2:4791"]
        };
        let mut ends = [end(addrs[0], 1), end(addrs[1], 2)];
        let names = [ends[0].name(), ends[1].name()];
        ends[0].connect(names[1]);
        ends[1].connect(names[0]);
        Self {
            ends,
            train: vec![0; 65_536],
            spent: [Duration::ZERO; 2],
            packets: 0,
            trains: 0,
        }
    }

    /// Takes every train of `from` to the other end.
    fn carry(&mut self, from: usize) {
        let mut at = Clock::now();
        loop {
            let end = &mut self.ends[from];
            let train: Option<Transmit> = end.device.poll_transmit(at, &mut self.train);
            let sent = Clock::now();
            self.spent[from] += sent - at;
            let Some(t) = train else {
                return;
            };
            if from == 0 {
                self.packets += t.segments() as u64;
                self.trains += 1;
            }
            let meta = RecvMeta {
                socket: SocketId(0),
                path: corelane::base::FourTuple::new(t.path.remote, t.path.local),
                ecn: Ecn::NotEct,
                segment_size: t.segment_size,
            };
            let device = &mut self.ends[1 - from].device;
            device.handle_train(sent, &meta, &mut self.train[..t.len]);
            at = Clock::now();
            self.spent[1 - from] += at - sent;
        }
    }

    fn turn(&mut self, post: &mut dyn FnMut(&mut [End; 2])) {
        let begin = Clock::now();
        post(&mut self.ends);
        self.spent[0] += Clock::now() - begin;
        self.carry(0);
        self.carry(1);
        for end in &mut self.ends {
            while end.poll() > 0 {}
        }
    }
}

/// Nanoseconds per packet at the sender and at the receiver, and packets per train; the least of
/// many rounds.
fn measure(v6: bool, mut post: impl FnMut(&mut [End; 2])) -> (f64, f64, f64) {
    let mut least = (f64::INFINITY, f64::INFINITY, 0.0);
    for _ in 0..ROUNDS {
        let mut pair = Pair::new(v6);
        let begin = Clock::now();
        while Clock::now() - begin < ROUND {
            pair.turn(&mut post);
        }
        let per = |n: usize| pair.spent[n].as_nanos() as f64 / pair.packets as f64;
        least.0 = per(0).min(least.0);
        least.1 = per(1).min(least.1);
        least.2 = pair.packets as f64 / pair.trains as f64;
    }
    least
}

/// Posts `count` writes of `len` bytes, the last of them signalled.
fn writes(ends: &mut [End; 2], count: u64, len: u32) {
    let remote = Remote {
        addr: ends[1].mr.addr,
        rkey: ends[1].mr.rkey,
    };
    for n in 0..count {
        let sges = [ends[0].mr.sge(n * u64::from(len), len)];
        let remote = Remote {
            addr: remote.addr + n * u64::from(len),
            ..remote
        };
        let mut request = SendRequest::new(n, SendOp::RdmaWrite(remote), Data::Sges(&sges));
        request.signaled = n + 1 == count;
        let id = ends[0].qp.id;
        ends[0].device.post_send(id, &[request]).expect("posted");
    }
}

fn sends(ends: &mut [End; 2]) {
    for n in 0..64 {
        let sges = [ends[1].mr.sge(n * 64, 64)];
        let recv = RecvRequest {
            wr_id: n,
            sges: &sges,
        };
        let id = ends[1].qp.id;
        ends[1].device.post_recv(id, &[recv]).expect("posted");
        let mut request = SendRequest::new(n, SendOp::Send, Data::Inline(&[7; 64]));
        request.signaled = n == 63;
        let id = ends[0].qp.id;
        ends[0].device.post_send(id, &[request]).expect("posted");
    }
}

fn main() {
    println!("nanoseconds per packet           sender  receiver  packets/train");
    type Post = fn(&mut [End; 2]);
    let works: [(&str, bool, Post); 4] = [
        ("WRITE 64 KiB, MTU 4096, IPv6", true, |e| {
            writes(e, 4, 65_536)
        }),
        ("WRITE 64 KiB, MTU 4096, IPv4", false, |e| {
            writes(e, 4, 65_536)
        }),
        ("WRITE 4 KiB, MTU 4096, IPv6", true, |e| writes(e, 32, 4096)),
        ("SEND 64 B, inline, IPv6", true, sends),
    ];
    for (name, v6, post) in works {
        let (sender, receiver, per) = measure(v6, post);
        println!("{name:<30} {sender:8.1}  {receiver:8.1}  {per:8.1}");
    }
}
