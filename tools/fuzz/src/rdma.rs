//! RDMA's inputs: bootstrap messages, RoCE packets, and a whole device whose peer sends anything.
//!
//! A device and its numbers follow from one seed, so an input means the same packets in each run.
//! Packets given to the device carry a right ICRC, else nothing behind that check would be reached.

use corelane::base::{Ecn, FourTuple, RecvMeta, Rng, SocketId, Timestamp};
use corelane::rdma::bootstrap::{BootstrapError, Message, QueueTerms, Refusal, RegionTerms, Terms};
use corelane::rdma::lane::{self, Flow, Frame};
use corelane::rdma::roce::wire::headers::{DEFAULT_PKEY, ICRC};
use corelane::rdma::roce::wire::packet::write;
use corelane::rdma::roce::wire::{
    Aeth, AtomicEth, Bth, Ext, Icrc, Opcode, Packet, Psn, Reth, Verdict,
};
use corelane::rdma::roce::{Config, Device};
use corelane::rdma::*;
use std::net::SocketAddr;
use std::time::Duration;

const V6: [&str; 2] = ["[fd00::1]:4791", "[fd00::2]:4791"];
const V4: [&str; 2] = ["10.0.0.1:4791", "10.0.0.2:4791"];

fn addrs(of: [&str; 2]) -> [SocketAddr; 2] {
    of.map(|a| a.parse().expect("an address"))
}

/// A stream of messages, as a lane reads them; what is in a frame is a lane's frame.
pub fn run_bootstrap(mut input: &[u8]) {
    let mut flow = Flow::new(8);
    loop {
        let (message, len) = match Message::decode(input) {
            Ok(Some(found)) => found,
            Ok(None) => return,
            Err(BootstrapError::Version(v)) => return assert_ne!(v, bootstrap::VERSION),
            Err(_) => return,
        };
        assert!(bootstrap::HEADER <= len && len <= input.len());
        let mut again = Vec::new();
        message.encode(&mut again);
        assert_eq!(again.len(), len);
        assert_eq!(Message::decode(&again), Ok(Some((message, len))));
        if let Message::Frame(bytes) = message
            && let Some((frame, body)) = Frame::parse(bytes)
        {
            assert_eq!(bytes, [&frame.to_bytes()[..], body].concat());
            // Whatever a peer counts, the window holds.
            let _ = (flow.on_ack(frame.ack), flow.on_message(frame.number));
            flow.consume(frame.number % 2);
            assert!(flow.acked() <= flow.accepted() && flow.room() <= 8);
            assert!(flow.received() - flow.ack() <= 8);
        }
        input = &input[len..];
    }
}

pub fn messages() -> Vec<Vec<u8>> {
    let terms = Terms {
        slot: 4096,
        window: 8,
        operations: 16,
        queue: Some(QueueTerms {
            qpn: 0x1234,
            psn: 0xfe_dcba,
            gid: addrs(V6)[0].ip().into(),
            udp_port: 4791,
            mtu: Mtu::Mtu4096,
            rd_atomic: 8,
        }),
        region: Some(RegionTerms {
            addr: 0x7fff_0000_1000,
            len: 65_536,
            rkey: 0xdead_beef,
            access: Access::REMOTE_WRITE | Access::REMOTE_READ,
        }),
        returns: true,
        splits: true,
    };
    let bare = Terms {
        queue: None,
        region: None,
        ..terms
    };
    let frame = |kind, number| {
        let frame = Frame {
            kind,
            tag: 7,
            number,
            ack: 0,
        };
        [&frame.to_bytes()[..], &[9; 30]].concat()
    };
    let frames = [
        frame(lane::Kind::Message, 0),
        frame(lane::Kind::Message, 1),
        frame(lane::Kind::CompareSwap, 64),
    ];
    let messages = [
        Message::Hello(terms),
        Message::Welcome(77, terms),
        Message::Welcome(1, bare),
        Message::Refused(Refusal::Quota),
        Message::Ready(true),
        Message::Fallback(3),
        Message::Bye(4),
        Message::ByeAck(5),
        Message::StatusRequest,
        Message::Status(b"{}"),
        Message::Returned(terms.queue),
        Message::Returned(None),
        Message::Frame(&frames[0]),
        Message::Frame(&frames[1]),
        Message::Frame(&frames[2]),
    ];
    let encoded = messages.iter().map(|m| {
        let mut out = Vec::new();
        m.encode(&mut out);
        out
    });
    let mut out: Vec<Vec<u8>> = encoded.collect();
    out.push(out.concat());
    out
}

/// One UDP payload: what parses is written again as it was, and its ICRC is found and missed.
pub fn run_packet(input: &[u8]) {
    let mut input = input.to_vec();
    for (of, place) in [(V6, 0), (V4, 7)] {
        let [from, to] = addrs(of);
        let mut icrc = Icrc::new(from, to);
        icrc.check(&mut input, place);
        let mut sealed = input.clone();
        icrc.seal(&mut sealed, place);
        if sealed.len() < 16 {
            assert_eq!(icrc.check(&mut sealed, place), Verdict::Bad);
            continue;
        }
        let kept = sealed.clone();
        assert_eq!(icrc.check(&mut sealed, place), Verdict::Good);
        let last = sealed.len() - 1;
        sealed[last] ^= 1;
        assert_ne!(icrc.check(&mut sealed, place), Verdict::Good);
        assert_eq!(sealed[..last], kept[..last], "a check changes nothing");
    }
    let Ok(packet) = Packet::parse(&input) else {
        return;
    };
    let mut again = vec![0; input.len() + 64];
    let payload = packet.payload;
    let len = write(&mut again, packet.bth, &packet.ext, payload.len(), |out| {
        out.copy_from_slice(payload);
        true
    });
    let len = len.expect("there is room");
    let reread = Packet::parse(&again[..len]).expect("what was written reads back");
    // Padding may be longer than it has to be.
    assert!(len <= input.len() && reread.bth.pad <= 3);
    let same = (reread.opcode, reread.ext, reread.payload);
    assert_eq!(same, (packet.opcode, packet.ext, packet.payload));
    let bth = Bth {
        pad: packet.bth.pad,
        ..reread.bth
    };
    assert_eq!(bth, packet.bth);
}

/// A packet without its ICRC.
fn packet(to: u32, psn: u32, opcode: Opcode, ext: Ext, data: &[u8]) -> Vec<u8> {
    let bth = Bth {
        opcode: opcode as u8,
        solicited: false,
        pad: 0,
        version: 0,
        pkey: DEFAULT_PKEY,
        qpn: to,
        ack_req: true,
        psn: Psn::new(psn),
    };
    let mut out = vec![0; 2048];
    let len = write(&mut out, bth, &ext, data.len(), |place| {
        place.copy_from_slice(data);
        true
    });
    out.truncate(len.expect("it fits") - ICRC);
    out
}

/// One of every kind, to a queue pair that has a region and requests under way.
fn every(target: &Attacked) -> Vec<Vec<u8>> {
    let (qpn, psn, sent) = (target.qp.qpn, PEER_PSN, target.qp.psn);
    let reth = |len| Reth {
        addr: target.region.addr,
        rkey: target.region.rkey,
        len,
    };
    let aeth = |syndrome| Aeth { syndrome, msn: 1 };
    let atomic = Ext::Atomic(AtomicEth {
        addr: target.region.addr,
        rkey: target.region.rkey,
        swap_add: 1,
        compare: 0,
    });
    let full = [5; 256];
    let requests = [
        (Opcode::SendFirst, Ext::None, &full[..]),
        (Opcode::SendMiddle, Ext::None, &full),
        (Opcode::SendLast, Ext::None, &full[..9]),
        (Opcode::SendOnlyImm, Ext::Imm(1), &full[..10]),
        (Opcode::WriteFirst, Ext::Reth(reth(300)), &full),
        (Opcode::WriteLastImm, Ext::Imm(2), &full[..44]),
        (Opcode::WriteOnly, Ext::Reth(reth(64)), &full[..64]),
        (Opcode::WriteOnlyImm, Ext::RethImm(reth(3), 3), &full[..3]),
        (Opcode::ReadRequest, Ext::Reth(reth(1000)), &[]),
        // The READ takes four numbers.
        (Opcode::FetchAdd, atomic, &[]),
        (Opcode::CompareSwap, atomic, &[]),
    ];
    let mut out: Vec<Vec<u8>> = Vec::new();
    for (n, (opcode, ext, data)) in requests.into_iter().enumerate() {
        let number = psn + n as u32 + if n > 8 { 3 } else { 0 };
        out.push(packet(qpn, number, opcode, ext, data));
    }
    let ack = |n, syndrome| {
        packet(
            qpn,
            sent + n,
            Opcode::Acknowledge,
            Ext::Aeth(aeth(syndrome)),
            &[],
        )
    };
    out.extend([ack(0, 0x1f), ack(1, 0x60), ack(1, 0x2c), ack(1, 0x1f)]);
    let read = [
        (Opcode::ReadResponseFirst, Ext::Aeth(aeth(0x1f)), 256),
        (Opcode::ReadResponseMiddle, Ext::None, 256),
        (Opcode::ReadResponseLast, Ext::Aeth(aeth(0x1f)), 88),
    ];
    for (n, (opcode, ext, len)) in read.into_iter().enumerate() {
        out.push(packet(qpn, sent + 3 + n as u32, opcode, ext, &full[..len]));
    }
    let found = Ext::AtomicAck(aeth(0x1f), 8);
    out.push(packet(qpn, sent + 6, Opcode::AtomicAcknowledge, found, &[]));
    out
}

/// The number that the attacker's first request has.
const PEER_PSN: u32 = 0xff_fffa;

/// A device with two clients: the first is the attacker's, the second must not notice anything.
struct Attacked {
    device: Device,
    qp: QueuePair,
    region: MemoryRegion,
    other: QueuePair,
    other_region: MemoryRegion,
    cq: CompletionQueueId,
}

fn connect(device: &mut Device, qp: QueuePair, to: (SocketAddr, u32, u32)) {
    let access = Access::REMOTE_WRITE | Access::REMOTE_READ | Access::REMOTE_ATOMIC;
    let rtr = RtrAttr {
        av: AddressVector {
            sgid_index: 0,
            dgid: to.0.ip().into(),
            udp_port: to.0.port(),
        },
        path_mtu: Mtu::Mtu256,
        dest_qpn: to.1,
        rq_psn: to.2,
        max_dest_rd_atomic: 4,
        min_rnr_timer: 1,
    };
    let rts = RtsAttr {
        sq_psn: qp.psn,
        timeout: 14,
        retry_cnt: 3,
        rnr_retry: 3,
        max_rd_atomic: 4,
    };
    device
        .modify_to_init(qp.id, &InitAttr { access })
        .expect("INIT");
    device.modify_to_rtr(qp.id, &rtr).expect("RTR");
    device.modify_to_rts(qp.id, &rts).expect("RTS");
}

fn client(device: &mut Device, cq: CompletionQueueId) -> (QueuePair, MemoryRegion) {
    let pd = device.alloc_pd().expect("a domain");
    let access = Access::LOCAL_WRITE | Access::REMOTE_WRITE | Access::REMOTE_READ;
    let region = device
        .reg_mr(pd, 4096, access | Access::REMOTE_ATOMIC)
        .expect("a region");
    let cap = QpCap {
        max_send_wr: 8,
        max_recv_wr: 8,
        max_send_sge: 1,
        max_recv_sge: 1,
        max_inline_data: 0,
    };
    let attr = QpInitAttr {
        send_cq: cq,
        recv_cq: cq,
        srq: None,
        cap,
        sq_sig_all: true,
    };
    let qp = device.create_qp(pd, &attr).expect("a queue pair");
    (qp, region)
}

impl Attacked {
    fn new() -> Self {
        let [own, peer] = addrs(V6);
        let config = Config::new(SocketId(0), own);
        let mut device = Device::new(config, Rng::from_u64(5)).expect("a device");
        let cq = device.create_cq(256).expect("a queue");
        let (qp, region) = client(&mut device, cq);
        let (other, other_region) = client(&mut device, cq);
        connect(&mut device, qp, (peer, 0x77, PEER_PSN));
        connect(&mut device, other, (peer, 0x78, 0));
        Self {
            device,
            qp,
            region,
            other,
            other_region,
            cq,
        }
    }

    fn post(&mut self) {
        let remote = Remote {
            addr: 4096,
            rkey: 1,
        };
        let add = SendOp::AtomicFetchAndAdd { remote, add: 1 };
        let posted = [
            (SendOp::Send, 700),
            (SendOp::RdmaRead(remote), 600),
            (add, 8),
        ];
        let sges = [self.region.sge(0, 1024)];
        for wr_id in 0..4 {
            let recv = RecvRequest { wr_id, sges: &sges };
            self.device.post_recv(self.qp.id, &[recv]).expect("posted");
        }
        for (n, (op, len)) in posted.into_iter().enumerate() {
            let sges = [self.region.sge(0, len)];
            let request = SendRequest::new(n as u64, op, Data::Sges(&sges));
            self.device
                .post_send(self.qp.id, &[request])
                .expect("posted");
        }
    }

    fn completed(&mut self) -> Vec<Completion> {
        let none = Completion {
            wr_id: 0,
            status: Status::GeneralErr,
            opcode: CompletionOpcode::Send,
            byte_len: 0,
            imm: None,
            qp: self.qp.id,
            qpn: 0,
        };
        let mut some = vec![none; 64];
        let n = self.device.poll_cq(self.cq, &mut some).expect("polled");
        some.truncate(n);
        some
    }

    fn hear(&mut self, now: Timestamp, train: &mut [u8]) {
        let [own, peer] = addrs(V6);
        let meta = RecvMeta {
            socket: SocketId(0),
            path: FourTuple::new(own, peer),
            ecn: Ecn::NotEct,
            segment_size: train.len(),
        };
        self.device.handle_train(now, &meta, train);
    }

    /// Everything that it has to say; the second client's last word.
    fn speak(&mut self, now: Timestamp) -> Option<u8> {
        let mut buf = vec![0; 65_536];
        let mut last = None;
        for _ in 0..64 {
            let Some(t) = self.device.poll_gather(now, &mut buf) else {
                return last;
            };
            let (mut train, mut from, mut pieces) = (Vec::new(), 0, 0);
            while let Some((at, piece)) = self.device.piece(pieces) {
                train.extend_from_slice(&buf[from..at]);
                train.extend_from_slice(piece);
                (from, pieces) = (at, pieces + 1);
            }
            train.extend_from_slice(&buf[from..][..t.len - train.len()]);
            for packet in train.chunks_mut(t.segment_size) {
                let [own, peer] = addrs(V6);
                let verdict = Icrc::new(own, peer).check(packet, 0);
                assert_eq!(verdict, Verdict::Good);
                let said = Packet::parse(packet).expect("we send what parses");
                if said.bth.qpn == 0x78 {
                    last = Some(said.opcode as u8);
                }
            }
        }
        panic!("it does not stop");
    }
}

/// Packets, each behind its length in words of four bytes. The attacker's own requests, and answers
/// to what was asked of it, in any order and shape.
pub fn run_device(mut input: &[u8]) {
    let mut a = Attacked::new();
    let [own, peer] = addrs(V6);
    let mut icrc = Icrc::new(peer, own);
    let mut now = Timestamp::from_nanos(1);
    a.post();
    a.speak(now);
    while let Some((&words, rest)) = input.split_first() {
        let (body, rest) = rest.split_at((usize::from(words) * 4).min(rest.len()));
        input = rest;
        let mut packet = [body, &[0; ICRC]].concat();
        icrc.seal(&mut packet, 0);
        a.hear(now, &mut packet);
        a.speak(now);
        now += Duration::from_micros(10);
    }
    for _ in 0..8 {
        now += Duration::from_secs(1);
        a.device.handle_timeout(now);
        a.speak(now);
    }
    let n = a.completed().len();
    assert!(n <= 3 + 4, "a request or a receive completed twice");
    // The other client neither lost its queue pair nor its memory.
    let reth = Reth {
        addr: a.other_region.addr,
        rkey: a.other_region.rkey,
        len: 4,
    };
    let mut fine = packet(a.other.qpn, 0, Opcode::WriteOnly, Ext::Reth(reth), b"fine");
    fine.extend([0; ICRC]);
    icrc.seal(&mut fine, 0);
    let before = a.device.bytes(a.other_region.id).expect("there").to_vec();
    assert_eq!(before, vec![0; 4096], "its memory is its own");
    a.hear(now, &mut fine);
    assert_eq!(a.speak(now), Some(Opcode::Acknowledge as u8));
    let after = a.device.bytes(a.other_region.id).expect("there");
    assert_eq!(&after[..4], b"fine");
}

fn framed(packets: &[Vec<u8>]) -> Vec<u8> {
    let with_length = |p: &Vec<u8>| [&[(p.len() / 4) as u8][..], p].concat();
    packets.iter().flat_map(with_length).collect()
}

pub fn attacks() -> Vec<Vec<u8>> {
    let all = every(&Attacked::new());
    let mut out: Vec<Vec<u8>> = all
        .iter()
        .map(|p| framed(std::slice::from_ref(p)))
        .collect();
    out.push(framed(&all[..4]));
    out.push(framed(&all[4..11]));
    out.push(framed(&all[11..]));
    out.push(framed(&all));
    out
}

pub fn packets() -> Vec<Vec<u8>> {
    let mut all = every(&Attacked::new());
    for p in &mut all {
        p.extend([0; ICRC]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The unedited inputs do reach what they are for.
    #[test]
    fn the_corpus_is_understood() {
        let mut a = Attacked::new();
        let [own, peer] = addrs(V6);
        let now = Timestamp::from_nanos(1);
        a.post();
        a.speak(now);
        for mut packet in packets() {
            Icrc::new(peer, own).seal(&mut packet, 0);
            a.hear(now, &mut packet);
            a.speak(now);
        }
        let completed = a.completed();
        let done = completed.iter().filter(|c| c.status == Status::Success);
        let stats = a.device.stats();
        assert_eq!(done.count(), 3 + 4, "{stats:?} {completed:?}");
        assert_eq!((stats.malformed, stats.error_naks_sent), (0, 0));
        assert_eq!(a.device.query_qp(a.qp.id), Ok(QpState::Rts));
    }
}
