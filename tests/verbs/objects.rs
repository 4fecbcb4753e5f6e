//! Objects of a device: their states, the order in which they go, their limits, and many of them.

use crate::link::{CAP, Link, Net, Terms, all_access, connect, init_attr, rtr, rts};
use corelane::rdma::*;
use std::collections::HashSet;

pub fn states(net: &mut dyn Net) {
    for end in 0..2 {
        let av = AddressVector {
            sgid_index: net.place(end).sgid_index,
            ..net.place(1 - end)
        };
        let dev = net.dev(end);
        let (pd, cq) = (
            dev.alloc_pd().expect("made"),
            dev.create_cq(16).expect("made"),
        );
        let qp = dev.create_qp(pd, &init_attr(cq, None)).expect("made");
        let (terms, id) = (Terms::default(), qp.id);
        let (init, rts) = (
            InitAttr {
                access: all_access(),
            },
            rts(qp.psn, &terms),
        );
        let good = rtr(av, (1000, 1), &terms);
        let send = [SendRequest::new(1, SendOp::Send, Data::Inline(b"x"))];
        let recv = [RecvRequest {
            wr_id: 1,
            sges: &[],
        }];
        let is_state = |result: Result<(), RdmaError>| {
            assert!(matches!(result, Err(RdmaError::State { .. })), "{result:?}");
        };
        assert_eq!(dev.query_qp(id), Ok(QpState::Reset));
        dev.modify_to_err(id).expect("from any state");
        assert_eq!(dev.query_qp(id), Ok(QpState::Err));
        dev.modify_to_reset(id).expect("from any state");
        assert_eq!(dev.query_qp(id), Ok(QpState::Reset));
        is_state(dev.modify_to_rtr(id, &good));
        is_state(dev.modify_to_rts(id, &rts));
        is_state(dev.post_send(id, &send).map_err(|e| e.error));
        is_state(dev.post_recv(id, &recv).map_err(|e| e.error));
        dev.modify_to_init(id, &init).expect("INIT");
        assert_eq!(dev.query_qp(id), Ok(QpState::Init));
        is_state(dev.modify_to_init(id, &init));
        is_state(dev.post_send(id, &send).map_err(|e| e.error));
        dev.post_recv(id, &recv).expect("possible in INIT");
        // What the peer announced is looked at before anything changes.
        let bad: [fn(&mut RtrAttr); 5] = [
            |a| a.dest_qpn = 0,
            |a| a.rq_psn = 1 << 24,
            |a| a.av.dgid = Gid([0; 16]),
            |a| a.av.dgid = Gid([0xff; 16]),
            |a| a.av.udp_port = 0,
        ];
        for edit in bad {
            let mut attr = good;
            edit(&mut attr);
            let error = dev.modify_to_rtr(id, &attr).expect_err("refused");
            assert_eq!(error.blame(), Blame::Peer, "{error}");
        }
        let mut attr = good;
        attr.av.sgid_index = 200;
        let error = dev.modify_to_rtr(id, &attr);
        assert_eq!(error, Err(RdmaError::NoGid { index: 200 }));
        assert_eq!(dev.query_qp(id), Ok(QpState::Init));
        dev.modify_to_rtr(id, &good).expect("RTR");
        assert_eq!(dev.query_qp(id), Ok(QpState::Rtr));
        is_state(dev.post_send(id, &send).map_err(|e| e.error));
        dev.modify_to_rts(id, &rts).expect("RTS");
        assert_eq!(dev.query_qp(id), Ok(QpState::Rts));
        dev.destroy_qp(id).expect("gone");
        dev.destroy_cq(cq).expect("gone");
        dev.dealloc_pd(pd).expect("gone");
    }
}

pub fn teardown_order(net: &mut dyn Net) {
    for end in 0..2 {
        let dev = net.dev(end);
        let pd = dev.alloc_pd().expect("made");
        let cq = dev.create_cq(16).expect("made");
        let mr = dev.reg_mr(pd, 4096, all_access()).expect("made");
        let srq = dev.create_srq(pd, 16, 1).expect("made");
        let qp = dev.create_qp(pd, &init_attr(cq, Some(srq))).expect("made");
        let expected = Objects {
            domains: 1,
            regions: 1,
            registered: 4096,
            completion_queues: 1,
            shared_receive_queues: 1,
            queue_pairs: 1,
        };
        assert_eq!(dev.objects(), expected);
        let busy = |result: Result<(), RdmaError>, n| {
            let is = matches!(result, Err(RdmaError::Busy { users, .. }) if users == n);
            assert!(is, "{result:?}");
        };
        let gone = |result: Result<(), RdmaError>| {
            assert!(matches!(result, Err(RdmaError::Unknown(_))), "{result:?}");
        };
        busy(dev.destroy_cq(cq), 2);
        busy(dev.destroy_srq(srq), 1);
        busy(dev.dealloc_pd(pd), 3);
        assert_eq!(dev.objects(), expected, "a call that fails changes nothing");
        let receive = [RecvRequest {
            wr_id: 1,
            sges: &[],
        }];
        let error = dev.post_recv(qp.id, &receive).expect_err("shared");
        assert_eq!(error.error, RdmaError::SharedReceives);
        dev.destroy_qp(qp.id).expect("first");
        gone(dev.destroy_qp(qp.id));
        gone(dev.post_send(qp.id, &[]).map_err(|e| e.error));
        gone(dev.query_qp(qp.id).map(|_| ()));
        dev.destroy_srq(srq).expect("then");
        gone(dev.destroy_srq(srq));
        gone(dev.arm_srq(srq, 1));
        dev.destroy_cq(cq).expect("then");
        gone(dev.destroy_cq(cq));
        gone(dev.poll_cq(cq, &mut []).map(|_| ()));
        busy(dev.dealloc_pd(pd), 1);
        dev.dereg_mr(mr.id).expect("then");
        gone(dev.dereg_mr(mr.id));
        gone(dev.read(mr.id, 0, &mut []));
        dev.dealloc_pd(pd).expect("last");
        gone(dev.dealloc_pd(pd));
        assert_eq!(dev.objects(), Objects::default());
    }
}

pub fn limits(net: &mut dyn Net) {
    for end in 0..2 {
        let dev = net.dev(end);
        let a = dev.query_device();
        println!("        {a:?}");
        for n in [
            a.max_qp,
            a.max_qp_wr,
            a.max_sge,
            a.max_cq,
            a.max_cqe,
            a.max_mr,
        ] {
            assert!(n > 0, "{a:?}");
        }
        assert!(
            a.max_pd > 0 && a.max_srq > 0 && a.max_qp_rd_atom > 0,
            "{a:?}"
        );
        assert!(a.max_inline_data >= CAP.max_inline_data, "{a:?}");
        assert!(
            a.max_mr_size > 0 && a.max_registered > 0 && a.max_msg_sz > 0,
            "{a:?}"
        );
        let (pd, cq) = (
            dev.alloc_pd().expect("made"),
            dev.create_cq(16).expect("made"),
        );
        let before = dev.objects();
        let ours = |result: Result<(), RdmaError>| {
            let error = result.expect_err("too much");
            assert_eq!(error.blame(), Blame::Configuration, "{error}");
        };
        let edits: [fn(&mut QpCap, &DeviceAttr); 4] = [
            |c, a| c.max_send_wr = a.max_qp_wr + 1,
            |c, a| c.max_recv_wr = a.max_qp_wr + 1,
            |c, a| c.max_send_sge = a.max_sge + 1,
            |c, a| c.max_inline_data = a.max_inline_data + 1,
        ];
        for edit in edits {
            let mut attr = init_attr(cq, None);
            edit(&mut attr.cap, &a);
            ours(dev.create_qp(pd, &attr).map(|_| ()));
        }
        ours(dev.create_cq(0).map(|_| ()));
        ours(dev.create_cq(a.max_cqe + 1).map(|_| ()));
        ours(dev.create_srq(pd, a.max_qp_wr + 1, 1).map(|_| ()));
        let too_long = usize::try_from(a.max_mr_size).map_or(usize::MAX, |n| n.saturating_add(1));
        ours(dev.reg_mr(pd, too_long, Access::NONE).map(|_| ()));
        ours(dev.reg_mr(pd, 64, Access::REMOTE_WRITE).map(|_| ()));
        assert_eq!(dev.objects(), before);
        // What it says it can, it can.
        let mut attr = init_attr(cq, None);
        attr.cap.max_inline_data = a.max_inline_data;
        let qp = dev.create_qp(pd, &attr).expect("as much as it says");
        dev.destroy_qp(qp.id).expect("gone");
        dev.destroy_cq(cq).expect("gone");
        dev.dealloc_pd(pd).expect("gone");
        assert_eq!(dev.objects(), Objects::default());
    }
}

pub fn shared_receives(net: &mut dyn Net) {
    let terms = Terms {
        shared: true,
        ..Terms::default()
    };
    let mut link = Link::new(net, terms);
    let srq = link.ends[1].srq.expect("shared");
    for n in 0..6 {
        link.recv(1, 10 + n, 100 * n, 100);
    }
    link.dev(1).arm_srq(srq, 5).expect("armed");
    link.request(0, 1, SendOp::Send, 0, 8);
    link.success(1, 10);
    link.success(0, 1);
    let mut events = Vec::new();
    // Five wait, which is not fewer than five.
    events.extend(std::iter::from_fn(|| link.dev(1).get_async_event()));
    let limit = |events: &[AsyncEvent]| events.contains(&AsyncEvent::SrqLimitReached(srq));
    assert!(!limit(&events), "{events:?}");
    link.request(0, 2, SendOp::Send, 0, 8);
    link.success(1, 11);
    link.success(0, 2);
    link.until("the limit", |link| {
        events.extend(std::iter::from_fn(|| link.dev(1).get_async_event()));
        limit(&events)
    });
    let told = |e: &&AsyncEvent| **e == AsyncEvent::SrqLimitReached(srq);
    // It is armed for one time.
    link.request(0, 3, SendOp::Send, 0, 8);
    link.success(1, 12);
    link.success(0, 3);
    events.extend(std::iter::from_fn(|| link.dev(1).get_async_event()));
    assert_eq!(events.iter().filter(told).count(), 1, "{events:?}");
    // One in error says that it takes no more, but to rxe; what waits is for the others.
    let qp = link.ends[1].qp.id;
    link.dev(1).modify_to_err(qp).expect("ERR");
    if !link.net.is_rxe(1) {
        link.until("the last", |link| {
            events.extend(std::iter::from_fn(|| link.dev(1).get_async_event()));
            events.contains(&AsyncEvent::QpLastWqeReached(qp))
        });
    }
    link.assert_quiet();
    link.tear_down();
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd")
        .expect("readable")
        .count()
}

pub fn hundred(net: &mut dyn Net) {
    const PAIRS: usize = 100;
    let mut link = Link::new(net, Terms::default());
    let before = (descriptors(), [0, 1].map(|end| link.dev(end).objects()));
    let mut numbers = [HashSet::new(), HashSet::new()];
    let mut domains = [Vec::new(), Vec::new()];
    let pairs: Vec<[QueuePair; 2]> = (0..PAIRS)
        .map(|_| {
            [0, 1].map(|end| {
                let attr = init_attr(link.ends[end].cq, None);
                let dev = link.net.dev(end);
                let pd = dev.alloc_pd().expect("a domain for each");
                let mr = dev
                    .reg_mr(pd, 4096, all_access())
                    .expect("a region for each");
                domains[end].push((pd, mr));
                let qp = dev.create_qp(pd, &attr).expect("a queue pair");
                assert!(numbers[end].insert((qp.qpn, 0)), "a QPN twice");
                assert!(numbers[end].insert((qp.psn, 1)), "a PSN twice");
                qp
            })
        })
        .collect();
    for pair in &pairs {
        for end in 0..2 {
            let peer = pair[1 - end];
            let av = AddressVector {
                sgid_index: link.net.place(end).sgid_index,
                ..link.net.place(1 - end)
            };
            let peer = (peer.qpn, peer.psn);
            connect(link.net.dev(end), &pair[end], av, peer, &Terms::default());
        }
    }
    for (n, pair) in pairs.iter().enumerate() {
        let mr = domains[1][n].1;
        let receive = RecvRequest {
            wr_id: n as u64,
            sges: &[mr.sge(0, 64)],
        };
        link.dev(1)
            .post_recv(pair[1].id, &[receive])
            .expect("posted");
        let bytes = (n as u64).to_le_bytes();
        let send = SendRequest::new(n as u64, SendOp::Send, Data::Inline(&bytes));
        link.dev(0).post_send(pair[0].id, &[send]).expect("posted");
    }
    for end in [0, 1] {
        let mut all = link.completions(end, PAIRS);
        all.sort_by_key(|c| c.wr_id);
        for (n, c) in all.iter().enumerate() {
            let qp = pairs[n][end];
            let outcome = (c.wr_id, c.status, c.qp, c.qpn);
            assert_eq!(outcome, (n as u64, Status::Success, qp.id, qp.qpn));
        }
    }
    for (n, pair) in pairs.iter().enumerate() {
        let mut bytes = [0; 8];
        link.dev(1)
            .read(domains[1][n].1.id, 0, &mut bytes)
            .expect("read");
        assert_eq!(u64::from_le_bytes(bytes), n as u64);
        for end in 0..2 {
            let dev = link.net.dev(end);
            dev.destroy_qp(pair[end].id).expect("destroyed");
            let (pd, mr) = domains[end][n];
            dev.dereg_mr(mr.id).expect("removed");
            dev.dealloc_pd(pd).expect("removed");
        }
    }
    let after = (descriptors(), [0, 1].map(|end| link.dev(end).objects()));
    assert_eq!(after, before, "nothing is left");
    link.tear_down();
}
