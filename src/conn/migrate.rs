//! The peer's address changes (RFC 9000 §9): NAT rebinding and migration as a server sees them.
//!
//! A packet that is the newest of its path and not a probe moves the path to the address it came
//! from; that address is then validated, under the anti-amplification limit, and given up for the
//! one before if it does not answer.

use super::Connection;
use super::events::Event;
use super::input::Packet;
use crate::base::Timestamp;
use crate::wire::Side;

impl Connection {
    /// Compares the address that a 1-RTT packet came from with the path's.
    #[inline]
    pub(super) fn check_address(&mut self, now: Timestamp, packet: &Packet<'_>, probing: bool) {
        let path = self.paths.primary();
        if packet.meta.path.remote == path.tuple.remote {
            return;
        }
        // RFC 9000 §9: only clients migrate; §9.1: probing packets move nothing.
        if self.side == Side::Client || probing || !self.state.is_confirmed() {
            return;
        }
        self.move_to(now, packet);
    }

    #[cold]
    fn move_to(&mut self, now: Timestamp, packet: &Packet<'_>) {
        self.stats.migrations += 1;
        let data = self.rng.array();
        let config = self.config.path();
        let path = self.paths.primary_mut();
        let interval = path.rtt.pto(self.peer_params.max_ack_delay);
        // RFC 9000 §8.2.4: three times the larger of the present and the initial probe timeout.
        let patience = interval.max(config.initial_rtt * 3) * 3;
        let before = (path.socket, path.tuple);
        let returned = path
            .validation
            .previous()
            .is_some_and(|(_, t)| t.remote == packet.meta.path.remote);
        let same_host = path.tuple.remote.ip() == packet.meta.path.remote.ip();
        path.socket = packet.meta.socket;
        path.tuple = packet.meta.path;
        if returned {
            path.validation.resume();
        } else {
            path.validation
                .start(now, before, packet.size, data, interval, patience);
            if !same_host {
                // RFC 9000 §9.4: a change of port alone keeps what was learned of the path.
                path.reset_for_new_address(&config);
            }
        }
        self.events.push(Event::PeerAddressChanged);
    }

    pub(super) fn on_path_response(&mut self, data: [u8; 8]) {
        self.paths.primary_mut().validation.on_response(data);
    }
}
