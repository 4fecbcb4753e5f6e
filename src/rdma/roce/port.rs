//! The device as a shard drives it.

use super::device::Device;
use crate::base::net::canonical;
use crate::base::{RecvMeta, SocketId, Timestamp, Transmit};
use crate::rdma::error::RdmaError;
use crate::rdma::ids::{Gid, QueuePairId};
use crate::rdma::port::{Port, SocketChange};
use std::net::IpAddr;

impl Port for Device {
    fn name(&self) -> &str {
        "roce"
    }

    fn shares_receives(&self) -> bool {
        true
    }

    fn splits_writes(&self) -> bool {
        true
    }

    fn split_writes(&mut self, qp: QueuePairId) -> Result<(), RdmaError> {
        match self.with_qp(qp, |qp, _| qp.split_writes()) {
            Some(true) => Ok(()),
            Some(false) => Err(RdmaError::Busy {
                what: "queue pair",
                users: 1,
            }),
            None => Err(RdmaError::Unknown("queue pair")),
        }
    }

    fn gid_of(&self, ip: IpAddr) -> Option<(u8, Gid, u16)> {
        let ip = ip.to_canonical();
        let of_ip = |a: &&super::config::LocalAddress| canonical(a.addr).ip() == ip;
        let addresses = &self.config.addresses;
        let index = addresses.iter().position(|a| of_ip(&a))?;
        let addr = addresses.get(index)?.addr;
        Some((index as u8, addr.ip().into(), addr.port()))
    }

    fn not_ready(&self) -> Option<u64> {
        Some(self.stats().rnr_naks_sent)
    }

    #[inline]
    fn socket_change(&mut self) -> Option<SocketChange> {
        self.direct.change()
    }

    fn connected(&mut self, socket: Option<SocketId>) {
        Device::connected(self, socket);
    }

    fn handle_train(&mut self, now: Timestamp, meta: &RecvMeta, train: &mut [u8]) {
        Device::handle_train(self, now, meta, train);
    }

    fn next_socket(&self) -> Option<SocketId> {
        Device::next_socket(self)
    }

    fn poll_transmit(&mut self, now: Timestamp, buf: &mut [u8]) -> Option<Transmit> {
        Device::poll_transmit(self, now, buf)
    }

    fn poll_gather(&mut self, now: Timestamp, buf: &mut [u8]) -> Option<Transmit> {
        Device::poll_gather(self, now, buf)
    }

    #[inline]
    fn piece(&self, n: usize) -> Option<(usize, &[u8])> {
        Device::piece(self, n)
    }

    fn poll_timeout(&self) -> Timestamp {
        Device::poll_timeout(self)
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        Device::handle_timeout(self, now);
    }

    fn before_sleep(&mut self) -> bool {
        self.release()
    }
}
