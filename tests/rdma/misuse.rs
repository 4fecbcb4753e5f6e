//! The device against its own application: wrong order, wrong state, wrong owner, too much of
//! anything. Each is a clear error that changes nothing, and numbers are not guessed from others.

use crate::rig::{CAP, RawPeer, Side, Terms, all_access, rtr};
use corelane::base::limits;
use corelane::rdma::roce::wire::{Ext, Opcode};
use corelane::rdma::*;
use std::collections::HashSet;

fn side() -> Side {
    Side::new("10.0.0.1:4791", 1, false, |_| ())
}

fn init_attr(side: &Side) -> QpInitAttr {
    QpInitAttr {
        send_cq: side.cq,
        recv_cq: side.cq,
        srq: None,
        cap: CAP,
        sq_sig_all: true,
    }
}

#[test]
fn states_are_entered_in_order_and_work_is_posted_in_the_right_ones() {
    let mut s = side();
    let qp = s.qp.id;
    let peer = ("10.0.0.2:4791".parse().unwrap(), 99, 1);
    let rtr = rtr(peer, &Terms::new());
    let rts = RtsAttr {
        sq_psn: 1,
        timeout: 14,
        retry_cnt: 7,
        rnr_retry: 7,
        max_rd_atomic: 1,
    };
    let init = InitAttr {
        access: all_access(),
    };
    let send = SendRequest::new(1, SendOp::Send, Data::Inline(b"x"));
    let recv = RecvRequest {
        wr_id: 1,
        sges: &[],
    };
    let is_state = |r: Result<(), RdmaError>| {
        assert!(matches!(r, Err(RdmaError::State { .. })), "{r:?}");
    };
    let is_state_post = |r: Result<(), PostError>| is_state(r.map_err(|e| e.error));
    is_state(s.dev.modify_to_rtr(qp, &rtr));
    is_state(s.dev.modify_to_rts(qp, &rts));
    is_state_post(s.dev.post_recv(qp, &[recv]));
    is_state_post(s.dev.post_send(qp, &[send]));
    s.dev.modify_to_init(qp, &init).unwrap();
    is_state(s.dev.modify_to_init(qp, &init));
    is_state(s.dev.modify_to_rts(qp, &rts));
    is_state_post(s.dev.post_send(qp, &[send]));
    s.dev.post_recv(qp, &[recv]).unwrap();
    // What the peer announced is checked before anything changes.
    let bad = |edit: fn(&mut RtrAttr)| {
        let mut attr = rtr;
        edit(&mut attr);
        attr
    };
    for attr in [
        bad(|a| a.dest_qpn = 0),
        bad(|a| a.rq_psn = 1 << 24),
        bad(|a| a.av.dgid = Gid([0; 16])),
        bad(|a| a.av.dgid = Gid([0xfd; 16])),
    ] {
        let error = s.dev.modify_to_rtr(qp, &attr).unwrap_err();
        assert_eq!(error.blame(), Blame::Peer, "{error}");
    }
    let error = s.dev.modify_to_rtr(qp, &bad(|a| a.av.sgid_index = 1));
    assert_eq!(error, Err(RdmaError::NoGid { index: 1 }));
    assert_eq!(s.state(), QpState::Init);
    s.dev.modify_to_rtr(qp, &rtr).unwrap();
    is_state_post(s.dev.post_send(qp, &[send]));
    s.dev.modify_to_rts(qp, &rts).unwrap();
    s.dev.post_send(qp, &[send]).unwrap();
    s.dev.modify_to_err(qp).unwrap();
    let flushed = [(1, Status::WrFlushErr), (1, Status::WrFlushErr)];
    assert_eq!(s.outcomes(), flushed);
    s.dev.post_send(qp, &[send]).unwrap();
    s.dev.post_recv(qp, &[recv]).unwrap();
    assert_eq!(s.outcomes(), flushed);
    // And round again, without a trace.
    s.dev.modify_to_reset(qp).unwrap();
    s.dev.modify_to_init(qp, &init).unwrap();
    s.dev.post_recv(qp, &[recv]).unwrap();
    s.dev.modify_to_rtr(qp, &rtr).unwrap();
    s.dev.modify_to_rts(qp, &rts).unwrap();
    s.dev.post_send(qp, &[send]).unwrap();
    s.dev.modify_to_reset(qp).unwrap();
    assert_eq!(
        (s.outcomes(), s.transmit(corelane::base::Timestamp::ZERO)),
        (vec![], None)
    );
    s.tear_down();
}

#[test]
fn what_is_in_use_stays_and_what_is_gone_is_unknown() {
    let mut s = Side::new("10.0.0.1:4791", 1, true, |_| ());
    let (cq, pd, srq, qp, mr) = (s.cq, s.pd, s.srq.unwrap(), s.qp.id, s.mr.id);
    let busy = |r: Result<(), RdmaError>, n| {
        assert!(
            matches!(r, Err(RdmaError::Busy { users, .. }) if users == n),
            "{r:?}"
        );
    };
    busy(s.dev.destroy_cq(cq), 2);
    busy(s.dev.dealloc_pd(pd), 3);
    busy(s.dev.destroy_srq(srq), 1);
    let gone = |r: Result<(), RdmaError>| assert!(matches!(r, Err(RdmaError::Unknown(_))), "{r:?}");
    s.dev.destroy_qp(qp).unwrap();
    gone(s.dev.destroy_qp(qp));
    gone(s.dev.modify_to_err(qp));
    gone(s.dev.post_send(qp, &[]).map_err(|e| e.error));
    gone(s.dev.post_recv(qp, &[]).map_err(|e| e.error));
    s.dev.destroy_srq(srq).unwrap();
    gone(s.dev.destroy_srq(srq));
    s.dev.destroy_cq(cq).unwrap();
    gone(s.dev.destroy_cq(cq));
    gone(s.dev.poll_cq(cq, &mut []).map(|_| ()));
    busy(s.dev.dealloc_pd(pd), 1);
    s.dev.dereg_mr(mr).unwrap();
    gone(s.dev.dereg_mr(mr));
    gone(s.dev.read(mr, 0, &mut []));
    s.dev.dealloc_pd(pd).unwrap();
    gone(s.dev.dealloc_pd(pd));
    gone(s.dev.reg_mr(pd, 1, Access::NONE).map(|_| ()));
    assert_eq!(s.dev.objects(), Objects::default());
}

#[test]
fn owners_and_ranges_are_checked() {
    let mut s = Side::new("10.0.0.1:4791", 1, true, |_| ());
    let other = s.dev.alloc_pd().unwrap();
    let attr = QpInitAttr {
        srq: s.srq,
        ..init_attr(&s)
    };
    // A shared receive queue brings its own domain, which its requests are checked against.
    let foreign = s.dev.create_qp(other, &attr).unwrap();
    s.dev.destroy_qp(foreign.id).unwrap();
    let recv = RecvRequest {
        wr_id: 1,
        sges: &[],
    };
    let shared = s.dev.post_recv(s.qp.id, &[recv]).unwrap_err();
    assert_eq!(shared.error, RdmaError::SharedReceives);
    let len = s.mr.len as u64;
    for (offset, n) in [(len, 1), (len - 1, 2), (u64::MAX, 1)] {
        let error = s.dev.write(s.mr.id, offset, &vec![0; n]);
        assert!(matches!(error, Err(RdmaError::OutOfRange { .. })));
    }
    s.dev.write(s.mr.id, len - 2, b"ab").unwrap();
    let mut back = [0; 2];
    s.dev.read(s.mr.id, len - 2, &mut back).unwrap();
    assert_eq!(&back, b"ab");
}

#[test]
fn requests_that_cannot_be_posted_leave_those_before_them_posted() {
    let mut peer = RawPeer::new(Terms::new());
    let mr = peer.side.mr;
    let s = &mut peer.side;
    let one = [mr.sge(0, 1)];
    let four = [mr.sge(0, 1); 4];
    let remote = Remote { addr: 0, rkey: 0 };
    let add = SendOp::AtomicFetchAndAdd { remote, add: 1 };
    let good = SendRequest::new(1, SendOp::Send, Data::Sges(&one));
    for (op, data) in [
        (SendOp::Send, Data::Inline(&[0; 65])),
        (SendOp::Send, Data::Sges(&four)),
        (SendOp::RdmaRead(remote), Data::Inline(b"x")),
        (add, Data::Sges(&one)),
        (SendOp::Send, Data::Sges(&[mr.sge(0, (1 << 30) + 1)])),
    ] {
        let error = s
            .dev
            .post_send(s.qp.id, &[good, SendRequest::new(2, op, data), good]);
        let error = error.unwrap_err();
        assert!(
            matches!(error.error, RdmaError::Attribute { .. }),
            "{error}"
        );
        assert_eq!(error.index, 1);
    }
    // Five are in, of a queue of 64.
    let error = s.dev.post_send(s.qp.id, &[good; 64]).unwrap_err();
    assert!(matches!(
        error.error,
        RdmaError::QueueFull { depth: 64, .. }
    ));
    assert_eq!(error.index, 59);
    let recv = RecvRequest {
        wr_id: 1,
        sges: &four,
    };
    assert_eq!(s.dev.post_recv(s.qp.id, &[recv]).unwrap_err().index, 0);
    let recv = RecvRequest {
        wr_id: 1,
        sges: &one,
    };
    assert_eq!(s.dev.post_recv(s.qp.id, &[recv; 65]).unwrap_err().index, 64);
}

#[test]
fn limits_are_errors_of_that_call_alone() {
    let mut s = Side::new("10.0.0.1:4791", 1, true, |c| {
        c.attr.max_pd = 1;
        c.attr.max_cq = 1;
        c.attr.max_mr = 1;
        c.attr.max_srq = 1;
        c.attr.max_qp = 1;
    });
    let before = s.dev.objects();
    let limit = |r: Result<(), RdmaError>| {
        let error = r.unwrap_err();
        assert!(
            matches!(error, RdmaError::Limit { limit: 1, .. }),
            "{error}"
        );
        assert_eq!(error.blame(), Blame::Configuration);
    };
    limit(s.dev.alloc_pd().map(|_| ()));
    limit(s.dev.create_cq(1).map(|_| ()));
    limit(s.dev.reg_mr(s.pd, 1, Access::NONE).map(|_| ()));
    limit(s.dev.create_srq(s.pd, 1, 1).map(|_| ()));
    let attr = init_attr(&s);
    limit(s.dev.create_qp(s.pd, &attr).map(|_| ()));
    for (depth, sge) in [(0, 1), (limits::RDMA_WORK_REQUESTS as u32 + 1, 1), (1, 17)] {
        let error = s.dev.create_srq(s.pd, depth, sge).unwrap_err();
        assert!(matches!(error, RdmaError::Attribute { .. }));
    }
    for depth in [0, limits::RDMA_CQ_ENTRIES as u32 + 1] {
        assert!(s.dev.create_cq(depth).is_err());
    }
    let cap = QpCap {
        max_inline_data: limits::RDMA_INLINE_BYTES as u32 + 1,
        ..CAP
    };
    assert!(s.dev.create_qp(s.pd, &QpInitAttr { cap, ..attr }).is_err());
    assert_eq!(s.dev.objects(), before);
    s.tear_down();
}

#[test]
fn a_completion_queue_that_is_not_polled_ends_those_that_use_it() {
    let mut peer = RawPeer::new(Terms::new());
    let s = &mut peer.side;
    let (old, pd) = (s.qp.id, s.pd);
    s.dev.destroy_qp(old).unwrap();
    let small = s.dev.create_cq(2).unwrap();
    let attr = QpInitAttr {
        recv_cq: small,
        ..init_attr(s)
    };
    s.qp = s.dev.create_qp(pd, &attr).unwrap();
    s.connect((peer.addr, crate::rig::PEER_QPN, peer.psn), &Terms::new());
    for n in 0..4 {
        s.post_recv(n, &[s.mr.sge(0, 64)]);
    }
    for _ in 0..3 {
        peer.next(Opcode::SendOnly, Ext::None, b"x");
    }
    let s = &mut peer.side;
    let expected = [AsyncEvent::CqErr(small), AsyncEvent::QpFatal(s.qp.id)];
    assert_eq!((s.events(), s.state()), (expected.into(), QpState::Err));
    assert!(s.dev.stats().cq_overruns >= 1);
}

#[test]
fn a_shared_receive_queue_tells_when_it_runs_low_and_who_stops_taking() {
    let mut s = Side::new("[fd00::1]:4791", 1, true, |_| ());
    let mut peer = RawPeer::new(Terms::new());
    s.connect((peer.addr, crate::rig::PEER_QPN, peer.psn), &Terms::new());
    peer.side = s;
    let (srq, qp) = (peer.side.srq.unwrap(), peer.side.qp.id);
    for n in 0..4 {
        peer.side.post_recv(n, &[]);
    }
    peer.side.dev.arm_srq(srq, 3).unwrap();
    for _ in 0..4 {
        peer.next(Opcode::SendOnly, Ext::None, b"");
    }
    peer.side.dev.modify_to_err(qp).unwrap();
    let expected = [
        AsyncEvent::SrqLimitReached(srq),
        AsyncEvent::QpLastWqeReached(qp),
    ];
    assert_eq!(peer.side.events(), expected);
}

#[test]
fn events_that_nobody_takes_are_bounded() {
    let mut s = Side::new("10.0.0.1:4791", 1, true, |_| ());
    for _ in 0..limits::RDMA_EVENTS + 10 {
        s.dev.modify_to_err(s.qp.id).unwrap();
        s.dev.modify_to_reset(s.qp.id).unwrap();
    }
    assert_eq!(s.events().len(), limits::RDMA_EVENTS);
    assert_eq!(s.dev.stats().events_lost, 10);
}

#[test]
fn numbers_and_keys_are_unique_and_spread() {
    let mut s = Side::new("10.0.0.1:4791", 1, false, |c| {
        (c.shard_bits, c.shard) = (4, 9)
    });
    let attr = QpInitAttr {
        cap: QpCap {
            max_send_wr: 1,
            max_recv_wr: 1,
            max_send_sge: 1,
            max_recv_sge: 1,
            max_inline_data: 0,
        },
        ..init_attr(&s)
    };
    let (mut qpns, mut psns, mut keys) = (HashSet::new(), HashSet::new(), HashSet::new());
    let mut high = [0; 16];
    for _ in 0..10_000 {
        let qp = s.dev.create_qp(s.pd, &attr).unwrap();
        assert!(qp.qpn < 1 << 24 && qp.qpn & 15 == 9 && qp.psn < 1 << 24);
        assert!(
            qpns.insert(qp.qpn) && psns.insert(qp.psn),
            "given out twice"
        );
        high[(qp.psn >> 20) as usize] += 1;
    }
    // Chi-square with 15 degrees of freedom: above 45 once in 10,000.
    let chi: f64 = high
        .iter()
        .map(|&n| (n as f64 - 625.0).powi(2) / 625.0)
        .sum();
    assert!(chi < 45.0, "{chi}: {high:?}");
    for _ in 0..100 {
        let mr = s.dev.reg_mr(s.pd, 1, Access::NONE).unwrap();
        assert!(keys.insert(mr.rkey) && mr.addr.is_multiple_of(4096));
    }
    let mut sorted: Vec<u32> = keys.into_iter().collect();
    sorted.sort_unstable();
    let near = sorted.windows(2).filter(|w| w[1] - w[0] < 1 << 12).count();
    assert!(near < 3, "keys that lie close together");
}
