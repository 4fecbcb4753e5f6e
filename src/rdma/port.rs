//! A provider as a shard drives it: what moves datagrams and time through it, beside the verbs.
//!
//! A device of the machine moves its own packets, so all of this has defaults that do nothing.

use super::ids::Gid;
use super::provider::Provider;
use crate::base::{RecvMeta, SocketId, Timestamp, Transmit};
use std::net::IpAddr;

/// One shard's share of a device.
pub trait Port: Provider {
    /// Whether a shared receive queue of one domain serves queue pairs of others. Where it does
    /// not, every queue pair has receives of its own.
    fn shares_receives(&self) -> bool {
        false
    }

    /// The GID with this address: its index, itself, and the UDP port that it hears.
    fn gid_of(&self, ip: IpAddr) -> Option<(u8, Gid, u16)>;

    /// Takes a train of the provider's own socket.
    fn handle_train(&mut self, now: Timestamp, meta: &RecvMeta, train: &mut [u8]) {
        let _ = (now, meta, train);
    }

    /// The socket that the next train would leave by.
    fn next_socket(&self) -> Option<SocketId> {
        None
    }

    /// Writes the next train to `buf`, 64 KiB.
    fn poll_transmit(&mut self, now: Timestamp, buf: &mut [u8]) -> Option<Transmit> {
        let _ = (now, buf);
        None
    }

    /// When [`Port::handle_timeout`] has something to do.
    fn poll_timeout(&self) -> Timestamp {
        Timestamp::NEVER
    }

    /// Does what is due.
    fn handle_timeout(&mut self, now: Timestamp) {
        let _ = now;
    }
}
