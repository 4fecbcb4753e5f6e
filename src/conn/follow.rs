//! A server follows its client (RFC 9000 §9.3): NAT rebinding and migration.
//!
//! A packet that is the newest of its path and not a probe moves the path to the address it came
//! from; that address is then validated, under the anti-amplification limit, and given up for the
//! one before if it does not answer. To its own preferred address a server moves only once the
//! client has answered there (RFC 9000 §9.6.2).

use super::Connection;
use super::events::Event;
use super::input::Packet;
use super::multipath::PathEvent;
use crate::base::{RecvMeta, Timestamp};
use crate::path::probe::{is_by, same_end};
use crate::path::{PathState, Probe, Purpose};
use crate::wire::Side;

impl Connection {
    /// Compares the addresses that the newest 1-RTT packet came by with the path's (RFC 9000 §9).
    #[inline]
    pub(super) fn check_address(&mut self, now: Timestamp, packet: &Packet<'_>, probing: bool) {
        if self.side == Side::Client || packet.meta.path == self.paths.current().tuple {
            return;
        }
        // RFC 9000 §9.1: probing packets move nothing.
        if !probing && self.state.is_confirmed() {
            self.consider_following(now, packet);
        }
    }

    #[cold]
    fn consider_following(&mut self, now: Timestamp, packet: &Packet<'_>) {
        let path = self.paths.current();
        // One that was abandoned goes nowhere any more.
        if path.is_abandoned() || is_by(path.socket, &path.tuple, packet.meta) {
            return;
        }
        if !same_end(path.tuple.local, packet.meta.path.local) {
            // RFC 9000 §9.6.2: from then on it is the preferred address alone.
            if self.at_preferred {
                return;
            }
            let Some(probe) = self.peer_probe(now, packet) else {
                return;
            };
            if !probe.validation.is_validated() || probe.validation.is_challenging() {
                probe.wanted = true;
                return;
            }
            self.at_preferred = true;
        }
        self.follow(now, packet);
    }

    /// The peer is at another address on the path in hand.
    pub(super) fn note_peer_moved(&mut self) {
        let path = self.paths.current();
        let (id, remote) = (path.id, path.tuple.remote);
        let moved = PathEvent::PeerMoved { id, remote };
        // Of a peer that moves with every packet, only the last address is told.
        let told_of = |newest: &Event| match newest {
            Event::Path(PathEvent::PeerMoved { id, .. }) => Some(*id),
            _ => None,
        };
        let outdated = |newest: &Event| told_of(newest) == Some(id);
        if !self.events.supersede(Event::Path(moved), outdated) {
            self.events.push(Event::PeerAddressChanged);
            self.push_path_event(moved);
        }
    }

    /// The peer answered at the address that it moved to on the path in hand.
    pub(super) fn note_peer_proven(&mut self) {
        let path = self.paths.current();
        let (id, remote) = (path.id, path.tuple.remote);
        self.events.push(Event::PeerAddressValidated);
        self.push_path_event(PathEvent::PeerMoveValidated { id, remote });
    }

    /// Goes on at the new addresses and validates them (RFC 9000 §8.2.1, §9, §9.3, §9.6.3).
    fn follow(&mut self, now: Timestamp, packet: &Packet<'_>) {
        let meta = packet.meta;
        let path = self.paths.current_mut();
        let present = path.tuple;
        if path.former.as_ref().is_some_and(|f| f.tuple == meta.path) {
            self.stats.migrations += 1;
            path.local_cids.on_move(packet.dcid);
            if self.move_back(now) {
                self.note_peer_moved();
                self.open_where_proven();
            }
            return;
        }
        if !self
            .config
            .port_guard
            .admits(present.remote, meta.path.remote)
        {
            return;
        }
        let path = self.paths.current_mut();
        let own = path.probes.find(meta).and_then(|p| p.cid);
        let own = own.filter(|seq| path.remote_cids.get(*seq).is_some());
        let needs = path.local_cids.is_new(packet.dcid) && !path.remote_cids.active().is_empty();
        let cid = match own {
            None if needs => match path.remote_cids.take_spare() {
                // RFC 9000 §9.5: nothing may go there before the client issues another one.
                None => return,
                spare => spare,
            },
            own => own,
        };
        path.local_cids.on_move(packet.dcid);
        let validation = match path.probes.take(|p| p.matches(meta)) {
            Some(probe) => probe.validation,
            None => self.challenge(now, Some(packet.size)),
        };
        self.change_path(now, meta.socket, meta.path, cid, validation);
        if self.paths.current().validation.is_validated() {
            self.note_peer_proven();
            self.open_where_proven();
        }
    }

    /// A path that was still being validated is open where nothing more is asked of the addresses
    /// that it went to.
    fn open_where_proven(&mut self) {
        let path = self.paths.current();
        if path.state == PathState::Validating
            && path.validation.is_validated()
            && !path.validation.is_challenging()
        {
            self.on_new_path_validated();
        }
    }

    /// The record of an address that the peer was heard from, begun where there is none. `None` for
    /// addresses that nothing is to be sent to.
    pub(super) fn peer_probe(&mut self, now: Timestamp, packet: &Packet<'_>) -> Option<&mut Probe> {
        let meta = packet.meta;
        let path = self.paths.current_mut();
        if path.probes.find(meta).is_none() {
            self.begin_peer_probe(now, packet)?;
        }
        self.paths.current_mut().probes.find(meta)
    }

    fn begin_peer_probe(&mut self, now: Timestamp, packet: &Packet<'_>) -> Option<()> {
        let meta = packet.meta;
        let present = self.paths.current().tuple;
        let other_end = !same_end(present.local, meta.path.local);
        let admitted = self.side == Side::Server
            && self.state.is_confirmed()
            && self
                .config
                .port_guard
                .admits(present.remote, meta.path.remote)
            && (!other_end || self.has_preferred() && !self.at_preferred);
        if !admitted {
            return None;
        }
        let path = self.paths.current_mut();
        let apart = path.local_cids.is_new(packet.dcid) || other_end;
        let cid = if apart && !path.remote_cids.active().is_empty() {
            Some(path.remote_cids.take_spare()?)
        } else {
            None
        };
        // RFC 9000 §8.1: what came from the path's own address has counted there.
        let same = present.remote == meta.path.remote;
        let proven = path.validation.is_validated() && same;
        let received = (!proven).then_some(if same { 0 } else { packet.size });
        let validation = self.challenge(now, received);
        let probe = self.probe_of(now, Purpose::Peer, meta.socket, meta.path, cid, validation);
        self.insert_probe(probe).then_some(())
    }

    /// Whether a datagram came from where the peer was last proven to be: what it sent before it
    /// noticed that we moved to its preferred address.
    #[cold]
    pub(super) fn is_former(&self, meta: &RecvMeta) -> bool {
        let former = self.paths.current().former.as_ref();
        former.is_some_and(|f| f.tuple.remote == meta.path.remote)
    }
}
