//! What queue pairs are for, each operation with what both sides must see of it.

use crate::link::{CAP, Link, Net, Terms, pattern};
use corelane::rdma::*;

/// Nothing, less than a packet, exactly one, several, and several with a rest.
const LENGTHS: [usize; 6] = [0, 1, 1000, 1024, 4096, 9001];

pub fn send(net: &mut dyn Net) {
    let mut link = Link::new(net, Terms::default());
    for (n, len) in LENGTHS.into_iter().enumerate() {
        let (wr_id, bytes) = (n as u64, pattern(n as u8, len));
        link.fill(0, 0, &bytes);
        link.recv(1, 100 + wr_id, 16_384, 16_384);
        link.request(0, wr_id, SendOp::Send, 0, len as u32);
        let got = link.success(1, 100 + wr_id);
        assert_eq!((got.opcode, got.imm), (CompletionOpcode::Recv, None));
        assert_eq!(got.byte_len, len as u32);
        assert_eq!(link.bytes(1, 16_384, len), bytes);
        let sent = link.success(0, wr_id);
        assert_eq!((sent.opcode, sent.byte_len), (CompletionOpcode::Send, 0));
    }
    // Gathered from three pieces, scattered to two; then inline.
    let mr = [link.ends[0].mr, link.ends[1].mr];
    link.fill(0, 0, b"onetwothree");
    let pieces = [mr[0].sge(6, 5), mr[0].sge(0, 3), mr[0].sge(3, 3)];
    let places = [mr[1].sge(10, 4), mr[1].sge(0, 10)];
    let qp = link.ends[1].qp.id;
    let receive = RecvRequest {
        wr_id: 7,
        sges: &places,
    };
    link.dev(1).post_recv(qp, &[receive]).expect("posted");
    link.post(0, SendRequest::new(8, SendOp::Send, Data::Sges(&pieces)));
    assert_eq!(link.success(1, 7).byte_len, 11);
    assert_eq!(link.bytes(1, 10, 4), b"thre");
    assert_eq!(link.bytes(1, 0, 7), b"eonetwo");
    link.success(0, 8);
    link.recv(1, 9, 0, 64);
    let mut inline = *b"inline data is copied while posting";
    let request = SendRequest::new(10, SendOp::Send, Data::Inline(&inline));
    link.post(0, request);
    inline.fill(0);
    assert_eq!(link.success(1, 9).byte_len, inline.len() as u32);
    let bytes = link.bytes(1, 0, inline.len());
    assert_eq!(bytes, b"inline data is copied while posting");
    link.success(0, 10);
    link.assert_quiet();
    link.tear_down();
}

pub fn send_with_imm(net: &mut dyn Net) {
    let mut link = Link::new(net, Terms::default());
    for len in [0, 3000] {
        link.recv(1, 1, 0, 4096);
        link.request(0, 2, SendOp::SendWithImm(0x0102_0304), 0, len);
        let got = link.success(1, 1);
        let expected = (CompletionOpcode::Recv, len, Some(0x0102_0304));
        assert_eq!((got.opcode, got.byte_len, got.imm), expected);
        let sent = link.success(0, 2);
        assert_eq!((sent.opcode, sent.imm), (CompletionOpcode::Send, None));
    }
    link.tear_down();
}

pub fn write(net: &mut dyn Net) {
    let mut link = Link::new(net, Terms::default());
    for (n, len) in LENGTHS.into_iter().enumerate() {
        let bytes = pattern(n as u8, len);
        link.fill(0, 3, &bytes);
        let to = link.remote(1, 1000);
        link.request(0, 1, SendOp::RdmaWrite(to), 3, len as u32);
        let sent = link.success(0, 1);
        assert_eq!(
            (sent.opcode, sent.byte_len),
            (CompletionOpcode::RdmaWrite, 0)
        );
        assert_eq!(link.bytes(1, 1000, len), bytes);
    }
    // The peer sees nothing of it, and nothing beside what was written changed.
    assert_eq!(link.bytes(1, 0, 1000), vec![0; 1000]);
    assert_eq!(link.bytes(1, 1000 + 9001, 100), vec![0; 100]);
    link.assert_quiet();
    link.tear_down();
}

pub fn write_with_imm(net: &mut dyn Net) {
    let mut link = Link::new(net, Terms::default());
    for len in [0, 5000] {
        let bytes = pattern(9, len);
        link.fill(0, 0, &bytes);
        // Its own memory is not touched: the receive only completes.
        link.recv(1, 1, 0, 16);
        let to = link.remote(1, 20_000);
        let op = SendOp::RdmaWriteWithImm(to, 0xfeed_f00d);
        link.request(0, 2, op, 0, len as u32);
        let got = link.success(1, 1);
        assert_eq!(got.opcode, CompletionOpcode::RecvRdmaWithImm);
        assert_eq!((got.byte_len, got.imm), (len as u32, Some(0xfeed_f00d)));
        assert_eq!(link.bytes(1, 20_000, len), bytes);
        assert_eq!(link.success(0, 2).opcode, CompletionOpcode::RdmaWrite);
        assert_eq!(link.bytes(1, 0, 16), [0; 16]);
    }
    link.tear_down();
}

pub fn read(net: &mut dyn Net) {
    let mut link = Link::new(net, Terms::default());
    for (n, len) in LENGTHS.into_iter().enumerate() {
        let bytes = pattern(n as u8, len);
        link.fill(1, 77, &bytes);
        let from = link.remote(1, 77);
        link.request(0, 1, SendOp::RdmaRead(from), 5, len as u32);
        let got = link.success(0, 1);
        assert_eq!(got.opcode, CompletionOpcode::RdmaRead);
        assert_eq!(got.byte_len, len as u32);
        assert_eq!(link.bytes(0, 5, len), bytes);
    }
    link.assert_quiet();
    link.tear_down();
}

/// An 8-byte word of the memory of the machine that has it.
fn word(link: &mut Link<'_>, end: usize, at: u64) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&link.bytes(end, at, 8));
    u64::from_ne_bytes(bytes)
}

pub fn compare_and_swap(net: &mut dyn Net) {
    let mut link = Link::new(net, Terms::default());
    let begin = 0x0102_0304_0506_0708u64;
    link.fill(1, 64, &begin.to_ne_bytes());
    let remote = link.remote(1, 64);
    let swap = |link: &mut Link<'_>, compare, swap| {
        let op = SendOp::AtomicCmpAndSwp {
            remote,
            compare,
            swap,
        };
        link.request(0, 1, op, 8, 8);
        let got = link.success(0, 1);
        assert_eq!((got.opcode, got.byte_len), (CompletionOpcode::CompSwap, 8));
        (word(link, 0, 8), word(link, 1, 64))
    };
    assert_eq!(swap(&mut link, begin, 42), (begin, 42));
    assert_eq!(swap(&mut link, begin, 43), (42, 42), "not what was there");
    assert_eq!(swap(&mut link, 42, u64::MAX), (42, u64::MAX));
    link.assert_quiet();
    link.tear_down();
}

pub fn fetch_and_add(net: &mut dyn Net) {
    let mut link = Link::new(net, Terms::default());
    link.fill(1, 64, &(u64::MAX - 1).to_ne_bytes());
    let remote = link.remote(1, 64);
    let mut expected = u64::MAX - 1;
    for add in [1, 3, 0, 1 << 40] {
        link.request(0, 1, SendOp::AtomicFetchAndAdd { remote, add }, 8, 8);
        let got = link.success(0, 1);
        assert_eq!((got.opcode, got.byte_len), (CompletionOpcode::FetchAdd, 8));
        assert_eq!(word(&mut link, 0, 8), expected);
        expected = expected.wrapping_add(add);
        assert_eq!(word(&mut link, 1, 64), expected);
    }
    link.tear_down();
}

pub fn both_ways(net: &mut dyn Net) {
    let mut link = Link::new(net, Terms::default());
    const ROUNDS: u64 = 8;
    for end in 0..2 {
        link.fill(end, 0, &pattern(end as u8, 5000));
        for n in 0..ROUNDS {
            link.recv(end, 100 + n, 10_000 + 2000 * n, 2000);
        }
    }
    for n in 0..ROUNDS {
        for end in 0..2 {
            link.request(end, n, SendOp::Send, n, 1500 + n as u32);
            let to = link.remote(1 - end, 40_000 + 2000 * n);
            link.request(end, 50 + n, SendOp::RdmaWrite(to), 2 * n, 2000);
        }
    }
    for end in 0..2 {
        let all = link.completions(end, 3 * ROUNDS as usize);
        assert!(all.iter().all(|c| c.status == Status::Success), "{all:?}");
        // Each queue completes in its own order.
        let (received, sent): (Vec<Completion>, Vec<_>) =
            all.iter().partition(|c| c.opcode == CompletionOpcode::Recv);
        assert!(received.iter().map(|c| c.wr_id).eq(100..100 + ROUNDS));
        let expected = (0..ROUNDS).flat_map(|n| [n, 50 + n]);
        assert!(sent.iter().map(|c| c.wr_id).eq(expected));
        let source = pattern(1 - end as u8, 5000);
        for n in 0..ROUNDS as usize {
            let at = 10_000 + 2000 * n as u64;
            assert_eq!(link.bytes(end, at, 1500 + n), source[n..1500 + 2 * n]);
            let at = 40_000 + 2000 * n as u64;
            assert_eq!(link.bytes(end, at, 2000), source[2 * n..2000 + 2 * n]);
        }
    }
    link.assert_quiet();
    link.tear_down();
}

pub fn unsignaled(net: &mut dyn Net) {
    let mut link = Link::new(net, Terms::default());
    let (mr, qp) = (link.ends[0].mr, link.ends[0].qp.id);
    let depth = u64::from(CAP.max_send_wr);
    for round in 0..4 {
        link.fill(0, 0, &pattern(round, 64));
        let to = |n| Remote {
            addr: link.ends[1].mr.addr + 64 * n,
            rkey: link.ends[1].mr.rkey,
        };
        let sges = [mr.sge(0, 64)];
        let batch: Vec<SendRequest<'_>> = (0..depth + 3)
            .map(|n| {
                let request = SendRequest::new(n, SendOp::RdmaWrite(to(n)), Data::Sges(&sges));
                if n + 1 == depth {
                    request
                } else {
                    request.unsignaled()
                }
            })
            .collect();
        // The queue takes what it holds, and gives the places back with the one completion.
        let error = link.dev(0).post_send(qp, &batch).expect_err("too many");
        assert_eq!(error.index as u64, depth);
        let full = RdmaError::QueueFull {
            what: "send queue",
            depth: CAP.max_send_wr,
        };
        assert_eq!(error.error, full);
        link.success(0, depth - 1);
        for n in 0..depth {
            assert_eq!(link.bytes(1, 64 * n, 64), pattern(round, 64));
        }
        link.assert_quiet();
    }
    link.tear_down();
}
