//! Two devices of `roce`, whose datagrams are moved from one to the other in virtual time.

use crate::link::Net;
use corelane::base::{Ecn, FourTuple, RecvMeta, Rng, SocketId, Timestamp};
use corelane::rdma::roce::{Config, Device};
use corelane::rdma::*;
use std::net::SocketAddr;

pub struct Memory {
    devices: [Device; 2],
    addrs: [SocketAddr; 2],
    now: Timestamp,
    train: Vec<u8>,
}

impl Memory {
    pub fn new(seed: u64) -> Self {
        let addrs: [SocketAddr; 2] =
            ["[fd00::1]:4791", "[fd00::2]:4791"].map(|a| a.parse().expect("an address"));
        let mut seed = seed;
        let devices = addrs.map(|addr| {
            seed += 1;
            Device::new(Config::new(SocketId(0), addr), Rng::from_u64(seed)).expect("a device")
        });
        Self {
            devices,
            addrs,
            now: Timestamp::from_nanos(1),
            train: vec![0; 65_536],
        }
    }
}

impl Net for Memory {
    fn dev(&mut self, end: usize) -> &mut dyn Provider {
        &mut self.devices[end]
    }

    fn place(&self, end: usize) -> AddressVector {
        AddressVector {
            sgid_index: 0,
            dgid: self.addrs[end].ip().into(),
            udp_port: self.addrs[end].port(),
        }
    }

    fn is_rxe(&self, _: usize) -> bool {
        false
    }

    fn arm(&mut self, _: usize, _: CompletionQueueId) {}

    fn wait(&mut self) {
        let mut moved = false;
        for from in 0..2 {
            let to = 1 - from;
            while let Some(t) = self.devices[from].poll_transmit(self.now, &mut self.train) {
                moved = true;
                let meta = RecvMeta {
                    socket: SocketId(0),
                    path: FourTuple::new(self.addrs[to], self.addrs[from]),
                    ecn: Ecn::NotEct,
                    segment_size: t.segment_size,
                };
                let train = &mut self.train[..t.len];
                self.devices[to].handle_train(self.now, &meta, train);
            }
        }
        if moved {
            return;
        }
        let next = self.devices.iter().map(|d| d.poll_timeout()).min();
        if let Some(at) = next.filter(|&at| at != Timestamp::NEVER) {
            self.now = self.now.max(at);
            for device in &mut self.devices {
                device.handle_timeout(self.now);
            }
        }
    }
}
