//! What each shard of an engine last told of its lanes, so that any of them answers for all.
//!
//! A shard tells after each turn in which a lane, an object or a count changed, which is when
//! clients come and go: data passes no lock here. Nobody is woken, and nobody is waited for.

use super::host::Host;
use crate::rdma::{Objects, Port, Usage};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What happened on a shard's lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneStats {
    /// Lanes that opened, over queue pairs.
    pub opened_rdma: u64,
    /// Lanes that opened over streams.
    pub opened_quic: u64,
    /// Clients refused.
    pub refused: u64,
    /// Lanes that left their queue pair for their stream.
    pub fallbacks: u64,
    /// Lanes that came back to a queue pair.
    pub returned: u64,
    /// Lanes that ended.
    pub ended: u64,
    /// Peers that broke the rules of the bootstrap or the lane.
    pub misbehaved: u64,
}

impl LaneStats {
    pub(super) fn add(&mut self, more: &Self) {
        self.opened_rdma += more.opened_rdma;
        self.opened_quic += more.opened_quic;
        self.refused += more.refused;
        self.fallbacks += more.fallbacks;
        self.returned += more.returned;
        self.ended += more.ended;
        self.misbehaved += more.misbehaved;
    }
}

/// A shard's lanes and its share of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardStatus {
    /// Which shard.
    pub shard: usize,
    /// Lanes that are open.
    pub lanes: u64,
    /// What happened so far.
    pub stats: LaneStats,
    /// The provider, and the device's name where it has one; `None` without RDMA.
    pub provider: Option<String>,
    /// Whether new lanes get queue pairs.
    pub usable: bool,
    /// Whether the limits of `device` are those of all shards together.
    pub shared: bool,
    /// How often a peer was told that no receive was ready (RNR); `None` where nobody counts. Of a
    /// device that is shared, as [`ShardStatus::shared`] says, it is told with the device.
    pub not_ready: Option<u64>,
    /// What it has of the device.
    pub objects: Objects,
    /// The device's limits.
    pub device: Vec<Usage>,
    /// Its own.
    pub own: Vec<Usage>,
}

/// What every shard told last. Clones are the same board.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<BTreeMap<usize, ShardStatus>>>);

impl Board {
    fn tell(&self, status: ShardStatus) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(status.shard, status);
    }

    /// Every shard that has begun, in order.
    pub fn shards(&self) -> Vec<ShardStatus> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().cloned().collect()
    }
}

/// What changes when there is something to tell.
pub(super) type Told = (LaneStats, u64, usize, Option<Objects>, bool);

impl<P: Port> Host<P> {
    fn status_now(&self) -> ShardStatus {
        let port = self.port.as_ref();
        ShardStatus {
            shard: self.shard,
            lanes: self.lanes,
            stats: self.stats,
            provider: port.map(|p| p.name().to_owned()),
            usable: self.has_device(),
            shared: port.is_some_and(Port::is_shared),
            not_ready: port.filter(|p| !p.is_shared()).and_then(P::not_ready),
            objects: port.map(P::objects).unwrap_or_default(),
            device: port.map(Port::usage).unwrap_or_default(),
            own: self.own_usage(),
        }
    }

    /// Tells the board, if there is news.
    pub(super) fn publish(&mut self) {
        let objects = self.port.as_ref().map(P::objects);
        let (lanes, sessions) = (self.lanes, self.sessions.len());
        let now = (self.stats, lanes, sessions, objects, self.has_device());
        if self.told.as_ref() != Some(&now) {
            self.told = Some(now);
            self.config.board.tell(self.status_now());
        }
    }
}
