//! Counters that the shards write and the run reads: what exists now, and what was done.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// One shard's.
#[derive(Debug, Default)]
pub struct Gauges {
    /// Connections that exist now.
    pub connections: AtomicU64,
    /// Routes to them.
    pub routes: AtomicU64,
    /// Connections begun or accepted.
    pub begun: AtomicU64,
    /// Connections that were established.
    pub established: AtomicU64,
    /// Connections that ended.
    pub ended: AtomicU64,
    /// Of them, those that ended in a way that nobody meant.
    pub failed: AtomicU64,
    /// Streams opened.
    pub streams: AtomicU64,
    /// Streams abandoned by either side.
    pub resets: AtomicU64,
    /// Bytes that came back as they were sent.
    pub echoed: AtomicU64,
    /// Streams whose echo was not what was sent.
    pub wrong: AtomicU64,
    /// Datagrams sent.
    pub datagrams: AtomicU64,
    /// Key updates begun.
    pub key_updates: AtomicU64,
    /// Changes of a peer's address.
    pub migrations: AtomicU64,
}

/// All shards of one side added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// As in [`Gauges`], and so on.
    pub connections: u64,
    /// Routes now.
    pub routes: u64,
    /// Begun or accepted.
    pub begun: u64,
    /// Established.
    pub established: u64,
    /// Ended.
    pub ended: u64,
    /// Ended as nobody meant.
    pub failed: u64,
    /// Streams opened.
    pub streams: u64,
    /// Streams abandoned.
    pub resets: u64,
    /// Bytes echoed.
    pub echoed: u64,
    /// Echoes that were wrong.
    pub wrong: u64,
    /// Datagrams sent.
    pub datagrams: u64,
    /// Key updates.
    pub key_updates: u64,
    /// Address changes.
    pub migrations: u64,
}

impl Gauges {
    /// Adds one.
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Relaxed);
    }

    /// Says what exists now.
    pub fn set(&self, connections: usize, routes: usize) {
        self.connections.store(connections as u64, Relaxed);
        self.routes.store(routes as u64, Relaxed);
    }
}

/// The sum over shards.
pub fn sum<'a>(all: impl IntoIterator<Item = &'a Gauges>) -> Counts {
    let mut out = Counts::default();
    for g in all {
        for (to, from) in [
            (&mut out.connections, &g.connections),
            (&mut out.routes, &g.routes),
            (&mut out.begun, &g.begun),
            (&mut out.established, &g.established),
            (&mut out.ended, &g.ended),
            (&mut out.failed, &g.failed),
            (&mut out.streams, &g.streams),
            (&mut out.resets, &g.resets),
            (&mut out.echoed, &g.echoed),
            (&mut out.wrong, &g.wrong),
            (&mut out.datagrams, &g.datagrams),
            (&mut out.key_updates, &g.key_updates),
            (&mut out.migrations, &g.migrations),
        ] {
            *to += from.load(Relaxed);
        }
    }
    out
}
