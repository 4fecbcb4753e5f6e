//! What goes wrong between two queue pairs, and that each side is told as the standard says.

use crate::link::{Link, Net, Terms, init_attr};
use corelane::rdma::*;

/// One that must fail with `status`, and one behind it that is flushed; then both are in ERR.
fn refused(link: &mut Link<'_>, op: SendOp, at: u64, len: u32, status: Status) {
    refused_as(link, op, at, len, &[status]);
}

/// The same, where the peer's device may choose.
fn refused_as(link: &mut Link<'_>, op: SendOp, at: u64, len: u32, statuses: &[Status]) {
    link.request(0, 1, op, at, len);
    link.request(0, 2, SendOp::Send, 0, 8);
    let failed = link.completions(0, 2);
    assert!(statuses.contains(&failed[0].status), "{:?}", failed[0]);
    let behind = (failed[0].wr_id, failed[1].wr_id, failed[1].status);
    assert_eq!(behind, (1, 2, Status::WrFlushErr));
    let expected = match op {
        SendOp::RdmaRead(_) => CompletionOpcode::RdmaRead,
        SendOp::RdmaWrite(_) => CompletionOpcode::RdmaWrite,
        SendOp::AtomicFetchAndAdd { .. } => CompletionOpcode::FetchAdd,
        _ => CompletionOpcode::Send,
    };
    assert_eq!(failed[0].opcode, expected, "what was asked for");
    assert_eq!((failed[0].byte_len, failed[0].imm), (0, None));
    assert_eq!(link.state(0), QpState::Err);
}

/// Each of these ends its queue pair, so each has a link of its own.
fn each(net: &mut dyn Net, ops: &[fn(Remote) -> SendOp], remote: impl Fn(&mut Link<'_>) -> Remote) {
    for op in ops {
        let mut link = Link::new(net, Terms::default());
        link.fill(1, 0, &[0x5a; 4096]);
        let remote = remote(&mut link);
        let op = op(remote);
        refused(&mut link, op, 0, 8, Status::RemAccessErr);
        link.until_state(1, QpState::Err);
        assert_eq!(link.bytes(1, 0, 4096), [0x5a; 4096], "nothing was touched");
        link.tear_down();
    }
}

const fn add(remote: Remote) -> SendOp {
    SendOp::AtomicFetchAndAdd { remote, add: 1 }
}

const ALL: &[fn(Remote) -> SendOp] = &[SendOp::RdmaWrite, SendOp::RdmaRead, add];

pub fn wrong_rkey(net: &mut dyn Net) {
    each(net, ALL, |link| Remote {
        rkey: link.ends[1].mr.rkey ^ 0x5500,
        ..link.remote(1, 0)
    });
}

pub fn out_of_range(net: &mut dyn Net) {
    each(net, ALL, |link| link.remote(1, crate::link::REGION as u64));
    each(net, ALL, |link| Remote {
        addr: link.ends[1].mr.addr - 8,
        ..link.remote(1, 0)
    });
    // The last byte alone is too far, and whoever adds up carelessly wraps.
    let far = crate::link::REGION as u64 - 7;
    each(net, &ALL[..2], |link| link.remote(1, far));
    each(net, &ALL[..2], |link| Remote {
        addr: u64::MAX - 3,
        ..link.remote(1, 0)
    });
}

pub fn foreign_domain(net: &mut dyn Net) {
    // The key is right, and another client's.
    let dev = net.dev(1);
    let pd = dev.alloc_pd().expect("a domain");
    let mr = dev
        .reg_mr(pd, 4096, crate::link::all_access())
        .expect("a region");
    let remote = Remote {
        addr: mr.addr,
        rkey: mr.rkey,
    };
    for op in ALL {
        let mut link = Link::new(net, Terms::default());
        refused(&mut link, op(remote), 0, 8, Status::RemAccessErr);
        link.until_state(1, QpState::Err);
        link.dismantle();
    }
    let mut word = [1; 8];
    net.dev(1).read(mr.id, 0, &mut word).expect("read");
    assert_eq!(word, [0; 8], "nothing was touched");
    net.dev(1).dereg_mr(mr.id).expect("removed");
    net.dev(1).dealloc_pd(pd).expect("removed");

    // The same on our own side, where it is a fault of the program's.
    let own = net.dev(0).alloc_pd().expect("a domain");
    let foreign = net.dev(0).reg_mr(own, 64, Access::LOCAL_WRITE);
    let foreign = foreign.expect("a region");
    let mut link = Link::new(net, Terms::default());
    let sges = [foreign.sge(0, 8)];
    link.post(0, SendRequest::new(3, SendOp::Send, Data::Sges(&sges)));
    let failed = link.completion(0);
    let names: &[Status] = match link.net.is_rxe(0) {
        true => &[Status::LocProtErr, Status::LocQpOpErr],
        false => &[Status::LocProtErr],
    };
    assert!(names.contains(&failed.status), "{failed:?}");
    link.dismantle();
    net.dev(0).dereg_mr(foreign.id).expect("removed");
    net.dev(0).dealloc_pd(own).expect("removed");
    assert_eq!(net.dev(0).objects(), Objects::default());
}

pub fn missing_rights(net: &mut dyn Net) {
    for (op, rights) in [
        (
            SendOp::RdmaWrite as fn(Remote) -> SendOp,
            Access::REMOTE_READ,
        ),
        (SendOp::RdmaRead, Access::REMOTE_WRITE),
        (add, Access::REMOTE_WRITE),
    ] {
        let mut link = Link::new(net, Terms::default());
        let pd = link.ends[1].pd;
        let access = rights | Access::LOCAL_WRITE;
        let mr = link.dev(1).reg_mr(pd, 64, access).expect("a region");
        let remote = Remote {
            addr: mr.addr,
            rkey: mr.rkey,
        };
        refused(&mut link, op(remote), 0, 8, Status::RemAccessErr);
        link.dev(1).dereg_mr(mr.id).expect("removed");
        link.tear_down();
    }
}

pub fn too_short(net: &mut dyn Net) {
    let mut link = Link::new(net, Terms::default());
    link.fill(1, 0, &[7; 200]);
    link.recv(1, 5, 0, 100);
    // To rxe, a receive that is too short is one that makes no sense.
    let (theirs, own): (&[Status], &[Status]) = match link.net.is_rxe(1) {
        true => (
            &[Status::RemInvReqErr, Status::RemOpErr],
            &[Status::LocLenErr, Status::LocQpOpErr],
        ),
        false => (&[Status::RemInvReqErr], &[Status::LocLenErr]),
    };
    refused_as(&mut link, SendOp::Send, 0, 101, theirs);
    let got = link.completion(1);
    assert_eq!((got.wr_id, got.opcode), (5, CompletionOpcode::Recv));
    assert!(own.contains(&got.status), "{got:?}");
    assert_eq!(link.bytes(1, 100, 100), [7; 100], "nothing behind its end");
    link.until_state(1, QpState::Err);
    link.tear_down();
}

pub fn rnr_then_ready(net: &mut dyn Net) {
    let mut link = Link::new(net, Terms::default());
    link.fill(0, 0, b"patience");
    link.request(0, 1, SendOp::Send, 0, 8);
    // It is not lost: what is written after it waits behind it.
    let to = link.remote(1, 500);
    link.request(0, 2, SendOp::RdmaWrite(to), 0, 8);
    for _ in 0..4 {
        link.net.wait();
    }
    link.assert_quiet();
    assert_eq!(link.bytes(1, 500, 8), [0; 8]);
    link.recv(1, 3, 0, 64);
    assert_eq!(link.success(1, 3).byte_len, 8);
    link.success(0, 1);
    link.success(0, 2);
    assert_eq!(link.bytes(1, 500, 8), b"patience");
    assert_eq!(link.bytes(1, 0, 8), b"patience");
    link.tear_down();
}

pub fn rnr_exceeded(net: &mut dyn Net) {
    let terms = Terms {
        rnr_retry: 2,
        ..Terms::default()
    };
    let mut link = Link::new(net, terms);
    link.request(0, 1, SendOp::Send, 0, 8);
    let failed = link.completion(0);
    assert_eq!((failed.wr_id, failed.status), (1, Status::RnrRetryExcErr));
    assert_eq!(link.state(0), QpState::Err);
    // The other side did nothing wrong.
    assert_eq!(link.state(1), QpState::Rts);
    link.tear_down();
}

pub fn nobody_there(net: &mut dyn Net) {
    let terms = Terms {
        timeout: 14,
        retry_cnt: 1,
        ..Terms::default()
    };
    let mut link = Link::new(net, terms);
    let gone = link.ends[1].qp.id;
    link.dev(1).destroy_qp(gone).expect("destroyed");
    link.request(0, 1, SendOp::Send, 0, 8);
    let failed = link.completion(0);
    assert_eq!((failed.wr_id, failed.status), (1, Status::RetryExcErr));
    assert_eq!(link.state(0), QpState::Err);
    let (pd, cq) = (link.ends[1].pd, link.ends[1].cq);
    link.ends[1].qp = link
        .dev(1)
        .create_qp(pd, &init_attr(cq, None))
        .expect("another");
    link.tear_down();
}

pub fn flush(net: &mut dyn Net) {
    let mut link = Link::new(net, Terms::default());
    for n in 0..3 {
        link.recv(1, 10 + n, 0, 64);
    }
    let qp = link.ends[1].qp.id;
    link.dev(1).modify_to_err(qp).expect("ERR");
    assert_eq!(link.state(1), QpState::Err);
    let flushed = link.completions(1, 3);
    for (n, c) in (10..).zip(&flushed) {
        let outcome = (c.wr_id, c.status, c.opcode, c.byte_len);
        assert_eq!(outcome, (n, Status::WrFlushErr, CompletionOpcode::Recv, 0));
    }
    // What is posted from now on is flushed too.
    link.request(1, 20, SendOp::Send, 0, 8);
    let c = link.completion(1);
    let outcome = (c.wr_id, c.status, c.opcode);
    assert_eq!(outcome, (20, Status::WrFlushErr, CompletionOpcode::Send));
    link.recv(1, 21, 0, 64);
    let c = link.completion(1);
    assert_eq!((c.wr_id, c.status), (21, Status::WrFlushErr));
    link.assert_quiet();
    link.tear_down();
}

pub fn reset(net: &mut dyn Net) {
    let mut link = Link::new(net, Terms::default());
    for round in 0..2 {
        for end in 0..2 {
            let qp = link.ends[end].qp.id;
            link.recv(end, 99, 0, 64);
            link.dev(end).modify_to_reset(qp).expect("RESET");
            assert_eq!(link.state(end), QpState::Reset);
        }
        link.assert_quiet();
        link.connect();
        link.fill(0, 0, &[round; 8]);
        link.recv(1, 1, 64, 64);
        link.request(0, 2, SendOp::Send, 0, 8);
        link.success(1, 1);
        link.success(0, 2);
        assert_eq!(link.bytes(1, 64, 8), [round; 8]);
    }
    link.assert_quiet();
    link.tear_down();
}
