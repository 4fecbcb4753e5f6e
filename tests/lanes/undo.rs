//! A provider that fails where it is told: whatever step of making a client fails, the steps before
//! it are undone.

use crate::faulty::{Faults, Faulty};
use corelane::base::{Rng, SocketId};
use corelane::rdma::bootstrap::QueueTerms;
use corelane::rdma::parts::{Parts, Plan, Shared};
use corelane::rdma::quota::{Amount, Identity, Quotas};
use corelane::rdma::registry::{Owner, Registry};
use corelane::rdma::roce::{Config, Device};
use corelane::rdma::*;
use std::net::IpAddr;

fn plan() -> Plan {
    let config = corelane::shard::lanes::LaneConfig::default();
    Plan {
        window: 2,
        ..config.plan
    }
}

/// Makes a shard's objects and a client's, up to RTS; whether that went well.
fn build(port: &mut Faulty, registry: &Registry, quotas: &Quotas) -> bool {
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
    if let Ok(mut parts) = Parts::build(port, &shared, plan(), owner, reserved) {
        assert_eq!(quotas.identities(), 1);
        done = parts.connect(port, ip, &peer, true).is_ok();
        // Another one, where the first was left.
        parts.drop_queue(port);
        let before = (port.objects(), registry.objects());
        if done && parts.renew(port, &shared, owner).is_err() {
            assert_eq!((port.objects(), registry.objects()), before);
            done = false;
        }
        done = done && parts.connect(port, ip, &peer, true).is_ok();
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
        let mut port = Faulty {
            device: device.into(),
            faults: Faults::default(),
            shares: Some(shares),
        };
        let (registry, quotas) = (Registry::default(), Quotas::new(Amount::default()));
        let mut failed = 0;
        for steps in 0.. {
            port.faults.fail_after(steps);
            let done = build(&mut port, &registry, &quotas);
            assert_eq!(port.objects(), Objects::default(), "step {steps}");
            assert_eq!((registry.objects(), quotas.identities()), (Vec::new(), 0));
            if done {
                break;
            }
            failed += 1;
        }
        assert!(failed >= 14, "{failed} steps");
    }
}
