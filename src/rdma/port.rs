//! A provider as a shard drives it: what moves datagrams and time through it, beside the verbs.
//!
//! A device of the machine moves its own packets, so all of this has defaults that do nothing.

use super::bootstrap::QueueTerms;
use super::error::RdmaError;
use super::ids::{CompletionQueueId, Gid, QueuePairId};
use super::provider::Provider;
use crate::base::{FourTuple, RecvMeta, SocketId, Timestamp, Transmit};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

/// What a descriptor that became readable tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WakeFor {
    /// A completion, of a queue that was armed.
    Completions,
    /// Asynchronous events.
    Events,
}

/// What a provider with sockets of the shard's wants done about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketChange {
    /// Another socket at the local address, beside that one, connected to the remote address.
    Connect {
        /// The provider's own, which hears all others.
        beside: SocketId,
        /// The addresses.
        way: FourTuple,
    },
    /// That one is of no more use.
    Close(SocketId),
}

/// How much of a limit is used, by everyone who shares the device in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// What there is only so much of.
    pub what: &'static str,
    /// How much is used.
    pub used: u64,
    /// How much there is.
    pub limit: u64,
}

impl Usage {
    /// Whether a tenth or less is left.
    pub const fn is_near(&self) -> bool {
        self.used >= self.limit - self.limit / 10
    }
}

/// One shard's share of a device.
pub trait Port: Provider {
    /// The provider's name, and the device's where it has one.
    fn name(&self) -> &str;

    /// Whether the device moves packets without being called, and completions come at any time.
    fn moves_itself(&self) -> bool {
        false
    }

    /// Whether a shared receive queue of one domain serves queue pairs of others. Where it does
    /// not, every queue pair has receives of its own.
    fn shares_receives(&self) -> bool {
        false
    }

    /// Whether a short message is cheaper to give inline than by its place in registered memory,
    /// from where the device would have to fetch it.
    fn prefers_inline(&self) -> bool {
        false
    }

    /// The GID with this address: its index, itself, and the UDP port that it hears.
    fn gid_of(&self, ip: IpAddr) -> Option<(u8, Gid, u16)>;

    /// Whether a queue pair here can be connected to the peer's. Where it cannot, both go without.
    ///
    /// # Errors
    /// Why it cannot.
    fn takes(&self, peer: &QueueTerms) -> Result<(), RdmaError> {
        let _ = peer;
        Ok(())
    }

    /// Whether all shards of the process share the device: its limits are then theirs together, and
    /// [`Port::usage`] tells what all of them use.
    fn is_shared(&self) -> bool {
        false
    }

    /// Every limit, and how much of it is used.
    fn usage(&self) -> Vec<Usage> {
        let (attr, has) = (self.query_device(), self.objects());
        let of = |what, used: usize, limit| Usage {
            what,
            used: used as u64,
            limit,
        };
        vec![
            of("queue pairs", has.queue_pairs, attr.max_qp.into()),
            of("protection domains", has.domains, attr.max_pd.into()),
            of("memory regions", has.regions, attr.max_mr.into()),
            of("registered bytes", has.registered, attr.max_registered),
            of(
                "completion queues",
                has.completion_queues,
                attr.max_cq.into(),
            ),
            of(
                "shared receive queues",
                has.shared_receive_queues,
                attr.max_srq.into(),
            ),
        ]
    }

    /// Whether queue pairs here send faster where the peer lets them
    /// [split](Port::split_writes) what they write.
    fn splits_writes(&self) -> bool {
        false
    }

    /// In RTS, before anything is posted: a long RDMA WRITE without immediate data is asked for as
    /// one RDMA WRITE ONLY for each packet, still with one completion. What is then refused midway
    /// was written in part.
    ///
    /// # Errors
    /// No such queue pair, or it has work.
    fn split_writes(&mut self, qp: QueuePairId) -> Result<(), RdmaError> {
        let _ = qp;
        Ok(())
    }

    /// How often a peer was told that no receive was ready (RNR), by all that the device has;
    /// `None` where the device does not count it.
    fn not_ready(&self) -> Option<u64> {
        None
    }

    /// What is to be done about its sockets, told once.
    fn socket_change(&mut self) -> Option<SocketChange> {
        None
    }

    /// The socket that [`SocketChange::Connect`] asked for; `None` where it cannot be had.
    fn connected(&mut self, socket: Option<SocketId>) {
        let _ = socket;
    }

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

    /// The same; what [`Port::piece`] tells of then is not in `buf`, which has the rest without
    /// gaps. The train's length is that of both.
    fn poll_gather(&mut self, now: Timestamp, buf: &mut [u8]) -> Option<Transmit> {
        self.poll_transmit(now, buf)
    }

    /// The `n`th piece of the last train of [`Port::poll_gather`]: how many bytes of its buffer go
    /// before it, and its bytes. At most [`GATHER_PIECES`](crate::base::limits::GATHER_PIECES).
    fn piece(&self, n: usize) -> Option<(usize, &[u8])> {
        let _ = n;
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

    /// The shard is about to sleep: what waited for more leaves now. Whether there was something.
    fn before_sleep(&mut self) -> bool {
        false
    }

    /// What becomes readable when a queue that was armed has a completion, or when an asynchronous
    /// event waits. None for a provider whose completions come of its own calls.
    fn wake_fds(&self) -> Vec<(WakeFor, BorrowedFd<'_>)> {
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
