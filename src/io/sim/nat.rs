//! Addresses that a translator changes under a running connection.
//!
//! A mapping takes effect at its time and replaces the host's earlier one; what is then sent to the
//! earlier address is lost, as with a home router that forgot a binding.

use crate::base::Timestamp;
use std::net::SocketAddr;

#[derive(Debug)]
struct Mapping {
    from: Timestamp,
    host: SocketAddr,
    external: SocketAddr,
}

/// The mappings of a network, in the order in which they take effect.
#[derive(Debug, Default)]
pub(super) struct Nat(Vec<Mapping>);

impl Nat {
    pub(super) fn map(&mut self, host: SocketAddr, external: SocketAddr, from: Timestamp) {
        let place = self.0.partition_point(|m| m.from <= from);
        self.0.insert(
            place,
            Mapping {
                from,
                host,
                external,
            },
        );
    }

    /// The address under which the world sees `host`.
    pub(super) fn outward(&self, host: SocketAddr, now: Timestamp) -> SocketAddr {
        self.current(host, now).unwrap_or(host)
    }

    /// The host behind `external`; `None` when no mapping leads anywhere any more.
    pub(super) fn inward(&self, external: SocketAddr, now: Timestamp) -> Option<SocketAddr> {
        if self.0.is_empty() {
            return Some(external);
        }
        let behind = self
            .0
            .iter()
            .find(|m| m.external == external && self.current(m.host, now) == Some(external));
        match behind {
            Some(mapping) => Some(mapping.host),
            None if self.current(external, now).is_some() => None,
            // An external address that was given up does not become a host's own.
            None if self.0.iter().any(|m| m.external == external) => None,
            None => Some(external),
        }
    }

    fn current(&self, host: SocketAddr, now: Timestamp) -> Option<SocketAddr> {
        let so_far = self.0.partition_point(|m| m.from <= now);
        let mut latest_first = self.0.iter().take(so_far).rev();
        latest_first.find(|m| m.host == host).map(|m| m.external)
    }
}
