//! Which connection a destination connection ID belongs to, and where connection IDs come from.
//!
//! A datagram goes by its connection ID first, then by a reset token, then, for connections that
//! have no connection ID, by its addresses (`tuples`).

use super::endpoint::ConnId;
use super::tuples::Tuples;
use crate::base::{FourTuple, RecvMeta, Rng, SocketId, limits};
use crate::path::cids::ResetToken;
use crate::wire::{ConnectionId, header};
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
    Held(u64),
}

/// The table from connection ID to connection. Its hash is keyed by chance, for peers choose some
/// of the keys; nothing depends on its order.
#[derive(Debug, Default)]
pub(super) struct Router {
    table: HashMap<ConnectionId, Route, foldhash::quality::RandomState>,
    /// Stateless reset tokens that end connections: a reset names no connection ID that is known
    /// (RFC 9000 §10.3.1). The keyed hash tells an observer of its time nothing about a token.
    resets: HashMap<ResetToken, ConnId>,
    /// Connections without a connection ID.
    tuples: Tuples,
}

impl Router {
    #[inline]
    pub(super) fn get(&self, cid: &[u8]) -> Option<Route> {
        self.table.get(&ConnectionId::new(cid)?).copied()
    }

    /// The connection without a connection ID that a datagram is for, when no connection ID led
    /// anywhere. What a long header names, or a reset token, is not for it.
    #[inline]
    pub(super) fn by_addresses(
        &self,
        meta: &RecvMeta,
        datagram: &[u8],
        dcid: &[u8],
    ) -> Option<Route> {
        if self.tuples.is_empty() {
            return None;
        }
        let long = datagram.first()? & header::FORM_LONG != 0;
        if (long && !dcid.is_empty()) || self.reset(datagram).is_some() {
            return None;
        }
        let id = self.tuples.get(meta.socket, &meta.path)?;
        Some(Route::Connection(id))
    }

    /// Whether a connection without a connection ID has these addresses.
    pub(super) fn has_addresses(&self, socket: SocketId, tuple: &FourTuple) -> bool {
        self.tuples.is_taken(socket, tuple)
    }

    /// Routes what comes from these addresses without a connection ID; false when another
    /// connection has them.
    pub(super) fn insert_addresses(
        &mut self,
        socket: SocketId,
        tuple: &FourTuple,
        id: ConnId,
    ) -> bool {
        self.tuples.insert(socket, tuple, id)
    }

    pub(super) fn remove_addresses(&mut self, socket: SocketId, tuple: &FourTuple, id: ConnId) {
        self.tuples.remove(socket, tuple, id);
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

    /// Changes the token by which the peer of `id` resets it.
    pub(super) fn set_reset_token(
        &mut self,
        id: ConnId,
        old: Option<ResetToken>,
        new: Option<ResetToken>,
    ) {
        if let Some(old) = old.filter(|t| self.resets.get(t) == Some(&id)) {
            self.resets.remove(&old);
        }
        if let Some(new) = new {
            self.resets.insert(new, id);
        }
    }

    /// The connection that a datagram resets, by its last bytes.
    pub(super) fn reset(&self, datagram: &[u8]) -> Option<ConnId> {
        // Whatever its first byte says: other versions may reset otherwise (RFC 9000 §10.3).
        if datagram.len() < limits::MIN_STATELESS_RESET {
            return None;
        }
        self.resets.get(datagram.last_chunk::<16>()?).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.table.len() + self.tuples.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::BuildHasher;

    /// A peer that knows how one process places its connection IDs knows nothing of another.
    #[test]
    fn no_two_routers_hash_alike() {
        let (a, b) = (Router::default(), Router::default());
        let cids = (0..64u64).filter_map(|n| ConnectionId::new(&n.to_be_bytes()));
        let alike = |cid: &ConnectionId| {
            a.table.hasher().hash_one(cid) == b.table.hasher().hash_one(cid)
                || a.resets.hasher().hash_one(cid) == b.resets.hasher().hash_one(cid)
        };
        assert_eq!(cids.filter(alike).count(), 0);
    }
}
