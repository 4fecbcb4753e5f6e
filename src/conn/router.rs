//! Which connection a destination connection ID belongs to, and where connection IDs come from.

use super::endpoint::ConnId;
use crate::base::{Rng, limits};
use crate::wire::ConnectionId;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Makes the connection IDs that an endpoint issues.
pub trait CidGenerator: Send {
    /// A fresh connection ID of [`CidGenerator::len`] bytes, unpredictable to an observer.
    fn issue(&mut self, rng: &mut Rng) -> ConnectionId;

    /// The length of every connection ID that this generator makes, in bytes.
    fn len(&self) -> usize;

    /// Whether they are zero-length.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Connection IDs of random bytes alone, for endpoints that need no steering.
#[derive(Clone, Copy, Debug)]
pub struct RandomCids;

impl CidGenerator for RandomCids {
    fn issue(&mut self, rng: &mut Rng) -> ConnectionId {
        ConnectionId::new(&rng.array::<{ limits::DEFAULT_CID_LEN }>()).unwrap_or_default()
    }

    fn len(&self) -> usize {
        limits::DEFAULT_CID_LEN
    }
}

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// To a connection.
    Connection(ConnId),
    /// To an incoming connection that waits for the application's decision.
    Held(u32),
}

/// The table from connection ID to connection. Its hash is keyed, for peers choose some of the
/// keys; nothing depends on its order.
#[derive(Debug, Default)]
pub(super) struct Router {
    table: HashMap<ConnectionId, Route>,
}

impl Router {
    #[inline]
    pub(super) fn get(&self, cid: &[u8]) -> Option<Route> {
        self.table.get(&ConnectionId::new(cid)?).copied()
    }

    /// Adds a route; false when the connection ID is taken.
    pub(super) fn insert(&mut self, cid: ConnectionId, route: Route) -> bool {
        match self.table.entry(cid) {
            Entry::Occupied(_) => false,
            Entry::Vacant(v) => {
                v.insert(route);
                true
            }
        }
    }

    /// Removes a route, if it still leads where the caller thinks.
    pub(super) fn remove(&mut self, cid: &ConnectionId, route: Route) {
        if self.table.get(cid) == Some(&route) {
            self.table.remove(cid);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }
}
