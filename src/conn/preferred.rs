//! The server's preferred address (RFC 9000 §9.6): a client moves there once the handshake is
//! confirmed and the address has answered.

use super::Connection;
use super::events::Event;
use super::migrate::MigrationFailure;
use crate::base::{FourTuple, SocketId, Timestamp};
use crate::path::Purpose;
use crate::wire::{PreferredAddress, Side};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

/// Where a server would rather be reached, by address family. Every address needs a socket of the
/// server, or something that leads to one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PreferredAddresses {
    /// For clients over IPv4.
    pub v4: Option<SocketAddrV4>,
    /// For clients over IPv6.
    pub v6: Option<SocketAddrV6>,
}

impl PreferredAddresses {
    /// Whether none is given.
    pub fn is_empty(&self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }

    /// Adds an address in place of another of its family.
    pub fn set(&mut self, addr: SocketAddr) {
        match addr {
            SocketAddr::V4(v4) => self.v4 = Some(v4),
            SocketAddr::V6(v6) => self.v6 = Some(v6),
        }
    }
}

/// The preferred address of the family of `like`, for the sockets of one family reach no other.
pub(super) fn of_family(p: &PreferredAddress, like: SocketAddr) -> Option<SocketAddr> {
    if like.is_ipv4() {
        p.v4.map(SocketAddr::V4)
    } else {
        p.v6.map(SocketAddr::V6)
    }
}

impl Connection {
    /// Whether this side is a server that has named a preferred address.
    pub(super) fn has_preferred(&self) -> bool {
        self.side == Side::Server && !self.config.preferred_address.is_empty()
    }

    /// The handshake is confirmed: looks at the server's preferred address, if it has one that this
    /// client may be sent to.
    pub(super) fn begin_preferred(&mut self, now: Timestamp) {
        let path = self.paths.current();
        let (socket, local) = (path.socket, path.tuple.local);
        if self.side == Side::Client && self.config.follow_preferred_address {
            self.probe_preferred(now, socket, local);
        }
    }

    /// The client is moving: the preferred address is to be reached from its new address, too.
    pub(super) fn repeat_preferred(&mut self, now: Timestamp, socket: SocketId, local: SocketAddr) {
        let probes = &self.paths.current().probes;
        if probes.iter().any(|p| p.purpose == Purpose::Preferred) {
            self.forget_probes(|p| p.purpose == Purpose::Preferred);
            self.probe_preferred(now, socket, local);
        }
    }

    /// Asks at the preferred address; until it answers, nothing but probes goes there (RFC 9000
    /// §9.6.2, §21.5.3), and everything else to the address in use (§9.6.1). It is this
    /// connection's alone.
    fn probe_preferred(&mut self, now: Timestamp, socket: SocketId, local: SocketAddr) {
        let present = self.paths.current().tuple.remote;
        let preferred = self.peer_params.preferred_address.as_deref();
        let Some(remote) = preferred.and_then(|p| of_family(p, present)) else {
            return;
        };
        let admitted = self.config.port_guard.admits(present, remote);
        if remote == present || !admitted || self.ids.local_scid.is_empty() {
            return;
        }
        let tuple = FourTuple::new(local, remote);
        let Some(seq) = self.paths.current_mut().remote_cids.take_spare() else {
            let why = MigrationFailure::NoConnectionId;
            self.events.push(Event::MigrationFailed(tuple, why));
            return;
        };
        let validation = self.challenge(now, None);
        let probe = self.probe_of(
            now,
            Purpose::Preferred,
            socket,
            tuple,
            Some(seq),
            validation,
        );
        self.insert_probe(probe);
    }
}
