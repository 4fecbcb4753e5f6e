//! Connections without a connection ID of their own, told apart by the addresses of what arrives.
//!
//! Such a connection has its socket and its peer's address to itself (RFC 9000 §5.1): a second one
//! between the same two addresses could not be told from it, and is not added. A local address that
//! is unspecified, since the system chooses it, stands for every address of the socket. Those that
//! have a connection ID are not here and share all of these addresses.

use super::endpoint::{ConnId, ConnectError, Endpoint};
use crate::base::{FourTuple, SocketId};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// Local addresses and the connections that have them.
type SamePeer = SmallVec<[(IpAddr, ConnId); 1]>;

/// From addresses to connections. The hash is keyed; only this side's calls to connect add to it.
#[derive(Debug, Default)]
pub(super) struct Tuples {
    table: HashMap<(SocketId, SocketAddr), SamePeer>,
    len: usize,
}

/// Whether two local addresses of one socket may be the same.
fn may_be_same(a: IpAddr, b: IpAddr) -> bool {
    a == b || a.is_unspecified() || b.is_unspecified()
}

impl Tuples {
    /// Whether a connection is there that these addresses cannot be told from.
    pub(super) fn is_taken(&self, socket: SocketId, tuple: &FourTuple) -> bool {
        self.get(socket, tuple).is_some()
    }

    /// Adds a connection; false when another has its addresses.
    pub(super) fn insert(&mut self, socket: SocketId, tuple: &FourTuple, id: ConnId) -> bool {
        if self.is_taken(socket, tuple) {
            return false;
        }
        let same_peer = self.table.entry((socket, tuple.remote)).or_default();
        same_peer.push((tuple.local.ip(), id));
        self.len += 1;
        true
    }

    /// The connection that a datagram with these addresses is for. Where the system did not tell
    /// the address that it was sent to, and several would do, the packet protection decides.
    pub(super) fn get(&self, socket: SocketId, tuple: &FourTuple) -> Option<ConnId> {
        let same_peer = self.table.get(&(socket, tuple.remote))?;
        let local = tuple.local.ip();
        let found = same_peer.iter().find(|(ip, _)| may_be_same(*ip, local))?;
        Some(found.1)
    }

    /// Removes a connection that was added with these addresses.
    pub(super) fn remove(&mut self, socket: SocketId, tuple: &FourTuple, id: ConnId) {
        let key = (socket, tuple.remote);
        let Some(same_peer) = self.table.get_mut(&key) else {
            return;
        };
        let before = same_peer.len();
        same_peer.retain(|(_, other)| *other != id);
        self.len -= before - same_peer.len();
        if same_peer.is_empty() {
            self.table.remove(&key);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Endpoint {
    /// Whether a connection without a connection ID can be told from the others.
    pub(super) fn admit_without_cid(
        &self,
        socket: SocketId,
        tuple: &FourTuple,
    ) -> Result<(), ConnectError> {
        if self.steered {
            return Err(ConnectError::Steered);
        }
        if self.router.has_addresses(socket, tuple) {
            return Err(ConnectError::SameAddresses(tuple.remote));
        }
        Ok(())
    }

    /// Several endpoints share this one's address and are told apart by connection IDs.
    pub fn set_steered(&mut self) {
        self.steered = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(local: &str, remote: &str) -> FourTuple {
        FourTuple::new(local.parse().unwrap(), remote.parse().unwrap())
    }

    fn id(n: u32) -> ConnId {
        ConnId::for_tests(n)
    }

    const A: SocketId = SocketId(0);
    const B: SocketId = SocketId(1);

    #[test]
    fn an_unspecified_local_address_stands_for_every_one() {
        let mut t = Tuples::default();
        let any = tuple("0.0.0.0:9", "192.0.2.1:443");
        assert!(t.insert(A, &any, id(1)));
        let told = tuple("10.0.0.1:9", "192.0.2.1:443");
        assert_eq!(t.get(A, &told), Some(id(1)), "packet info tells more");
        assert!(!t.insert(A, &told, id(2)));
        assert!(!t.insert(A, &any, id(2)));
        t.remove(A, &any, id(1));
        assert!(t.insert(A, &told, id(2)));
        assert!(!t.insert(A, &any, id(3)), "it could leave from the same");
    }

    #[test]
    fn sockets_peers_and_local_addresses_tell_connections_apart() {
        let mut t = Tuples::default();
        let all = [
            (A, tuple("10.0.0.1:9", "192.0.2.1:443")),
            (A, tuple("10.0.0.2:9", "192.0.2.1:443")),
            (A, tuple("10.0.0.1:9", "192.0.2.1:444")),
            (A, tuple("10.0.0.1:9", "192.0.2.2:443")),
            (B, tuple("10.0.0.1:8", "192.0.2.1:443")),
            (A, tuple("[2001:db8::1]:9", "[2001:db8::2]:443")),
        ];
        for (n, (socket, tuple)) in all.iter().enumerate() {
            assert!(t.insert(*socket, tuple, id(n as u32)));
        }
        for (n, (socket, tuple)) in all.iter().enumerate() {
            assert_eq!(t.get(*socket, tuple), Some(id(n as u32)));
        }
        assert_eq!(t.len(), all.len());
        assert_eq!(t.get(A, &tuple("10.0.0.3:9", "192.0.2.1:443")), None);
        for (n, (socket, tuple)) in all.iter().enumerate() {
            t.remove(*socket, tuple, id(99));
            t.remove(*socket, tuple, id(n as u32));
        }
        assert!(t.is_empty() && t.table.is_empty());
    }
}
