//! Addresses other than the one in use: those that the peer probes from, those that we would like
//! to move to, and the one that was left a moment ago (RFC 9000 §8.2, §9.1, §9.3.3).
//!
//! Each has its own validation and anti-amplification limit, and as a rule its own connection ID.
//! There are at most [`limits::PROBES`] at a time, each for a bounded time.

use super::validate::Validation;
use crate::base::{FourTuple, RecvMeta, SocketId, Timestamp, limits};
use smallvec::SmallVec;
use std::net::SocketAddr;

/// Why an address is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// We want to move there.
    Own,
    /// We want to move to the server's preferred address.
    Preferred,
    /// The peer was heard from there.
    Peer,
    /// It was in use, and may still be.
    Former,
}

/// One such address.
#[derive(Debug)]
pub struct Probe {
    /// Why.
    pub purpose: Purpose,
    /// The socket that reaches it.
    pub socket: SocketId,
    /// Both ends.
    pub tuple: FourTuple,
    /// The sequence number of the peer's connection ID for it; `None` where the one in use serves
    /// (RFC 9000 §9.5: the peer's address changed without its doing).
    pub cid: Option<u64>,
    /// Challenges, responses, limit.
    pub validation: Validation,
    /// The peer sends more than probes from there: it is moved to once it is validated
    /// (RFC 9000 §9.6.2).
    pub wanted: bool,
    /// When it is forgotten.
    pub expires: Timestamp,
}

impl Probe {
    /// Whether the datagram came this way.
    pub fn matches(&self, meta: &RecvMeta) -> bool {
        is_by(self.socket, &self.tuple, meta)
    }

    /// Whether something waits to be sent that the limit admits; `least` is the smallest datagram
    /// worth sending.
    fn is_ready(&self, least: u64) -> bool {
        self.validation.wants_to_send() && self.validation.allowance() >= least
    }
}

/// Whether a datagram came by a socket and addresses.
pub fn is_by(socket: SocketId, tuple: &FourTuple, meta: &RecvMeta) -> bool {
    socket == meta.socket
        && tuple.remote == meta.path.remote
        && same_end(tuple.local, meta.path.local)
}

/// Whether two ways to tell one of our addresses agree: what the system chose may not be known.
pub fn same_end(a: SocketAddr, b: SocketAddr) -> bool {
    let port = a.port() == b.port() || a.port() == 0 || b.port() == 0;
    port && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

/// All of them.
#[derive(Debug, Default)]
pub struct Probes(SmallVec<[Box<Probe>; 1]>);

impl Probes {
    /// Whether there is none: the usual case.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one. Where there is no room, the oldest that is only the peer's wish gives way and is
    /// returned; where there is none of those, the new one comes back.
    pub fn insert(&mut self, probe: Probe) -> Option<Box<Probe>> {
        let mut out = None;
        if self.0.len() >= limits::PROBES {
            match self.0.iter().position(|p| p.purpose == Purpose::Peer) {
                Some(at) => out = Some(self.0.remove(at)),
                None => return Some(Box::new(probe)),
            }
        }
        self.0.push(Box::new(probe));
        out
    }

    /// The one that a datagram came by.
    pub fn find(&mut self, meta: &RecvMeta) -> Option<&mut Probe> {
        self.0
            .iter_mut()
            .find(|p| p.matches(meta))
            .map(|p| &mut **p)
    }

    /// Takes out the first for which `is` holds.
    pub fn take(&mut self, is: impl Fn(&Probe) -> bool) -> Option<Box<Probe>> {
        let at = self.0.iter().position(|p| is(p))?;
        Some(self.0.remove(at))
    }

    /// Every one.
    pub fn iter(&self) -> impl Iterator<Item = &Probe> {
        self.0.iter().map(|p| &**p)
    }

    /// Every one.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Probe> {
        self.0.iter_mut().map(|p| &mut **p)
    }

    /// The first that has something to send.
    pub fn ready(&self, least: u64) -> Option<usize> {
        self.0.iter().position(|p| p.is_ready(least))
    }

    /// By its place, as [`Probes::ready`] gives it.
    pub fn at(&mut self, at: usize) -> Option<&mut Probe> {
        self.0.get_mut(at).map(|p| &mut **p)
    }

    /// When something is due.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.iter()
            .map(|p| p.validation.deadline().unwrap_or(p.expires).min(p.expires))
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(purpose: Purpose, port: u16) -> Probe {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Probe {
            purpose,
            socket: SocketId(0),
            tuple: FourTuple::new(at(1), at(port)),
            cid: None,
            validation: Validation::default(),
            wanted: false,
            expires: Timestamp::from_nanos(u64::from(port)),
        }
    }

    /// The cap on addresses looked at (RFC 9000 §21.9): a million of the peer's keep a few, and
    /// displace none of ours.
    #[test]
    fn the_peers_addresses_displace_each_other_only() {
        let mut probes = Probes::default();
        assert!(probes.insert(probe(Purpose::Own, 1)).is_none());
        assert!(probes.insert(probe(Purpose::Former, 2)).is_none());
        let given_up = (0..1_000_000u32)
            .filter_map(|n| probes.insert(probe(Purpose::Peer, n as u16)))
            .inspect(|p| assert_eq!(p.purpose, Purpose::Peer))
            .count();
        assert_eq!(probes.iter().count(), limits::PROBES);
        assert_eq!(given_up, 1_000_000 - (limits::PROBES - 2));
        assert!(probes.take(|p| p.purpose == Purpose::Own).is_some());
        while probes.take(|p| p.purpose == Purpose::Peer).is_some() {}
        for n in 0..limits::PROBES - 1 {
            assert!(probes.insert(probe(Purpose::Own, n as u16)).is_none());
        }
        let back = probes.insert(probe(Purpose::Peer, 9));
        assert_eq!(back.map(|p| p.tuple.remote.port()), Some(9), "no room");
    }

    #[test]
    fn the_earliest_deadline_counts() {
        let mut probes = Probes::default();
        assert_eq!(probes.deadline(), None);
        for port in [7, 3, 5] {
            assert!(probes.insert(probe(Purpose::Peer, port)).is_none());
        }
        assert_eq!(probes.deadline(), Some(Timestamp::from_nanos(3)));
    }
}
