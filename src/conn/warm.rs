//! Brings a connection's memory near before its turn, while others have theirs: among thousands,
//! each has left the near caches when its next packet comes, and waiting for its lines one after
//! another would cost more than the packet itself.
//!
//! In steps, for one step finds what the next asks for: the connection, its path and what else it
//! points to, its keys. The endpoint takes them some turns ahead. All are hints and change nothing.

use super::Connection;
use super::endpoint::{ConnId, Endpoint};
use super::router::Route;
use crate::mem::prefetch;
use crate::wire::{ConnectionId, header};

/// Connections that the near caches hold anyway.
const NEAR: usize = 64;

/// Whose trains come next.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// The connection ID of the last one.
    dcid: ConnectionId,
    /// The last first.
    whose: [Option<ConnId>; 3],
}

impl Connection {
    /// The first step.
    #[inline]
    pub(super) fn warm(&self) {
        prefetch(&self.paths);
        prefetch(&self.streams);
        prefetch(&self.timers);
        prefetch(&self.state);
        prefetch(&self.datagrams);
        prefetch(&self.one_rtt_crypto);
        prefetch(&self.stats);
        prefetch(&self.new_tokens);
        prefetch(&self.events);
        prefetch(&self.one_rtt);
        prefetch(&self.zero_rtt);
        prefetch(&self.ids.version);
        prefetch(&self.peer_params);
    }

    /// The second step.
    #[inline]
    pub(super) fn warm_parts(&self) {
        if let Some(keys) = self.one_rtt.as_deref() {
            prefetch(keys);
        }
        prefetch(self.paths.current());
        self.streams.warm();
    }

    /// The third step.
    #[inline]
    pub(super) fn warm_keys(&self) {
        self.paths.current().sent.warm();
        if let Some(keys) = self.one_rtt.as_deref() {
            keys.warm();
        }
        self.paths.current().sent.warm();
    }
}

impl Endpoint {
    /// The memory of the connections whose turns to send come next.
    #[inline]
    pub(super) fn warm_ready(&self) {
        if self.entries.len() > NEAR {
            self.warm_steps([2, 1, 0].map(|turns| self.ready.get(turns).copied()));
        }
    }

    /// Tells of a train before its turn, by its first bytes: its connection's memory comes near
    /// meanwhile. Call it once for each, in the order in which they come, up to three ahead of
    /// [`Endpoint::handle_train`]. Nothing but time depends on it.
    pub fn expect(&mut self, data: &[u8]) {
        if self.entries.len() <= NEAR {
            return;
        }
        let Some(dcid) = header::dcid(data, self.cids.len()) else {
            return;
        };
        let last = self.expected.whose[0];
        if last.is_some() && self.expected.dcid.as_slice() == dcid {
            return;
        }
        let Some(Route::Connection(id)) = self.router.get(dcid) else {
            return;
        };
        self.expected.dcid = ConnectionId::new(dcid).unwrap_or_default();
        let [first, second, _] = self.expected.whose;
        self.expected.whose = [Some(id), first, second];
        self.warm_steps(self.expected.whose);
    }

    fn warm_steps(&self, [first, second, third]: [Option<ConnId>; 3]) {
        let conn = |id: ConnId| Some(&*self.entries.get(id.index() as usize)?.as_ref()?.conn);
        if let Some(conn) = first.and_then(conn) {
            conn.warm();
        }
        if let Some(conn) = second.and_then(conn) {
            conn.warm_parts();
        }
        if let Some(conn) = third.and_then(conn) {
            conn.warm_keys();
        }
    }
}
