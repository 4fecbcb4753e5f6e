//! A provider as a shard drives it: what moves datagrams and time through it, beside the verbs.
//!
//! A device of the machine moves its own packets, so all of this has defaults that do nothing.

use super::error::RdmaError;
use super::ids::{CompletionQueueId, Gid};
use super::provider::Provider;
use crate::base::{RecvMeta, SocketId, Timestamp, Transmit};
use std::net::IpAddr;
use std::os::fd::RawFd;

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

    /// What becomes readable when a queue that was armed has a completion, or an asynchronous event
    /// waits. None for a provider whose completions come of its own calls.
    fn wake_fds(&self) -> Vec<RawFd> {
        Vec::new()
    }

    /// Before sleep: makes the next completion of `cq` readable. Poll once more afterwards, for
    /// what came before does not tell.
    fn req_notify_cq(&mut self, cq: CompletionQueueId) -> Result<(), RdmaError> {
        let _ = cq;
        Ok(())
    }

    /// After sleep: completions are no longer readable, until a queue is armed again.
    fn ack_cq_events(&mut self) {}
}
