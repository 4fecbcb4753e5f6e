//! A provider that fails where it is told: whatever step of making a client fails, the steps before
//! it are undone.

use corelane::base::{Rng, SocketId};
use corelane::rdma::bootstrap::QueueTerms;
use corelane::rdma::parts::{Parts, Plan, Shared};
use corelane::rdma::quota::{Amount, Identity, Quotas};
use corelane::rdma::registry::{Owner, Registry};
use corelane::rdma::roce::{Config, Device};
use corelane::rdma::*;
use std::net::IpAddr;

/// Counts the steps down, and fails the one that finds none left. Removing never fails.
struct Failing {
    device: Device,
    left: u32,
    shares: bool,
}

impl Failing {
    fn step<T>(
        &mut self,
        f: impl FnOnce(&mut Device) -> Result<T, RdmaError>,
    ) -> Result<T, RdmaError> {
        let failed = RdmaError::System {
            op: "a test",
            errno: 12,
        };
        self.left = self.left.checked_sub(1).ok_or(failed)?;
        f(&mut self.device)
    }

    fn post(
        &mut self,
        f: impl FnOnce(&mut Device) -> Result<(), PostError>,
    ) -> Result<(), PostError> {
        let error = RdmaError::System {
            op: "a test",
            errno: 12,
        };
        let failed = PostError { index: 0, error };
        self.left = self.left.checked_sub(1).ok_or(failed)?;
        f(&mut self.device)
    }
}

impl Provider for Failing {
    fn query_device(&self) -> DeviceAttr {
        self.device.query_device()
    }
    fn objects(&self) -> Objects {
        self.device.objects()
    }
    fn alloc_pd(&mut self) -> Result<ProtectionDomainId, RdmaError> {
        self.step(Provider::alloc_pd)
    }
    fn dealloc_pd(&mut self, pd: ProtectionDomainId) -> Result<(), RdmaError> {
        self.device.dealloc_pd(pd)
    }
    fn reg_mr(
        &mut self,
        pd: ProtectionDomainId,
        len: usize,
        access: Access,
    ) -> Result<MemoryRegion, RdmaError> {
        self.step(|d| d.reg_mr(pd, len, access))
    }
    fn dereg_mr(&mut self, mr: MemoryRegionId) -> Result<(), RdmaError> {
        self.device.dereg_mr(mr)
    }
    fn read(&self, mr: MemoryRegionId, offset: u64, into: &mut [u8]) -> Result<(), RdmaError> {
        self.device.read(mr, offset, into)
    }
    fn write(&mut self, mr: MemoryRegionId, offset: u64, from: &[u8]) -> Result<(), RdmaError> {
        self.device.write(mr, offset, from)
    }
    fn create_cq(&mut self, cqe: u32) -> Result<CompletionQueueId, RdmaError> {
        self.step(|d| d.create_cq(cqe))
    }
    fn destroy_cq(&mut self, cq: CompletionQueueId) -> Result<(), RdmaError> {
        self.device.destroy_cq(cq)
    }
    fn poll_cq(
        &mut self,
        cq: CompletionQueueId,
        into: &mut [Completion],
    ) -> Result<usize, RdmaError> {
        self.device.poll_cq(cq, into)
    }
    fn create_srq(
        &mut self,
        pd: ProtectionDomainId,
        max_wr: u32,
        max_sge: u32,
    ) -> Result<SharedReceiveQueueId, RdmaError> {
        self.step(|d| d.create_srq(pd, max_wr, max_sge))
    }
    fn arm_srq(&mut self, srq: SharedReceiveQueueId, limit: u32) -> Result<(), RdmaError> {
        self.device.arm_srq(srq, limit)
    }
    fn destroy_srq(&mut self, srq: SharedReceiveQueueId) -> Result<(), RdmaError> {
        self.device.destroy_srq(srq)
    }
    fn post_srq_recv(
        &mut self,
        srq: SharedReceiveQueueId,
        batch: &[RecvRequest<'_>],
    ) -> Result<(), PostError> {
        self.post(|d| d.post_srq_recv(srq, batch))
    }
    fn create_qp(
        &mut self,
        pd: ProtectionDomainId,
        attr: &QpInitAttr,
    ) -> Result<QueuePair, RdmaError> {
        self.step(|d| d.create_qp(pd, attr))
    }
    fn modify_to_init(&mut self, qp: QueuePairId, attr: &InitAttr) -> Result<(), RdmaError> {
        self.step(|d| d.modify_to_init(qp, attr))
    }
    fn modify_to_rtr(&mut self, qp: QueuePairId, attr: &RtrAttr) -> Result<(), RdmaError> {
        self.step(|d| d.modify_to_rtr(qp, attr))
    }
    fn modify_to_rts(&mut self, qp: QueuePairId, attr: &RtsAttr) -> Result<(), RdmaError> {
        self.step(|d| d.modify_to_rts(qp, attr))
    }
    fn modify_to_err(&mut self, qp: QueuePairId) -> Result<(), RdmaError> {
        self.device.modify_to_err(qp)
    }
    fn modify_to_reset(&mut self, qp: QueuePairId) -> Result<(), RdmaError> {
        self.device.modify_to_reset(qp)
    }
    fn query_qp(&self, qp: QueuePairId) -> Result<QpState, RdmaError> {
        self.device.query_qp(qp)
    }
    fn destroy_qp(&mut self, qp: QueuePairId) -> Result<(), RdmaError> {
        self.device.destroy_qp(qp)
    }
    fn post_send(&mut self, qp: QueuePairId, batch: &[SendRequest<'_>]) -> Result<(), PostError> {
        self.device.post_send(qp, batch)
    }
    fn post_recv(&mut self, qp: QueuePairId, batch: &[RecvRequest<'_>]) -> Result<(), PostError> {
        self.post(|d| d.post_recv(qp, batch))
    }
    fn get_async_event(&mut self) -> Option<AsyncEvent> {
        self.device.get_async_event()
    }
}

impl Port for Failing {
    fn name(&self) -> &str {
        "failing"
    }
    fn shares_receives(&self) -> bool {
        self.shares
    }
    fn gid_of(&self, ip: IpAddr) -> Option<(u8, Gid, u16)> {
        self.device.gid_of(ip)
    }
}

fn plan() -> Plan {
    let config = corelane::shard::lanes::LaneConfig::default();
    Plan {
        window: 2,
        ..config.plan
    }
}

/// Makes a shard's objects and a client's, up to RTS; whether that went well.
fn build(port: &mut Failing, registry: &Registry, quotas: &Quotas) -> bool {
    let owner = (registry, Owner::Client(1));
    let Ok(shared) = Shared::build(port, registry, Owner::Shard(0), (64, 4, plan().slot)) else {
        return false;
    };
    let one = Amount {
        queue_pairs: 1,
        bytes: 1,
        requests: 1,
    };
    let reserved = quotas.reserve(Identity([1; 32]), one);
    assert!(reserved.is_some());
    let ip = IpAddr::from([10, 0, 0, 1]);
    let peer = QueueTerms {
        qpn: 7,
        psn: 9,
        gid: IpAddr::from([10, 0, 0, 2]).into(),
        udp_port: 4791,
        mtu: Mtu::Mtu1024,
        rd_atomic: 1,
    };
    let mut done = false;
    if let Ok(parts) = Parts::build(port, &shared, plan(), owner, reserved) {
        assert_eq!(quotas.identities(), 1);
        done = parts.connect(port, ip, &peer).is_ok();
        parts.tear_down(port);
    }
    shared.tear_down(port);
    done
}

#[test]
fn whatever_step_fails_those_before_it_are_undone() {
    for shares in [true, false] {
        let config = Config::new(SocketId(0), "10.0.0.1:4791".parse().unwrap());
        let device = Device::new(config, Rng::from_u64(1)).unwrap();
        let mut port = Failing {
            device,
            left: 0,
            shares,
        };
        let (registry, quotas) = (Registry::default(), Quotas::new(Amount::default()));
        let mut failed = 0;
        for steps in 0.. {
            port.left = steps;
            let done = build(&mut port, &registry, &quotas);
            assert_eq!(port.objects(), Objects::default(), "step {steps}");
            assert_eq!((registry.objects(), quotas.identities()), (Vec::new(), 0));
            if done {
                break;
            }
            failed += 1;
        }
        assert!(failed >= 10, "{failed} steps");
    }
}
