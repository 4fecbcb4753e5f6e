//! The peer's address changes (RFC 9000 §9): NAT rebinding and migration as a server sees them.
//!
//! A packet that is the newest of its path and not a probe moves the path to the address it came
//! from; that address is then validated, under the anti-amplification limit, and given up for the
//! one before if it does not answer.

use super::Connection;
use super::events::Event;
use super::input::Packet;
use crate::base::{Ecn, FourTuple, SocketId, Timestamp, Transmit, limits};
use crate::path::Spin;
use crate::wire::{Side, frame};

/// An address from which the peer probes (RFC 9000 §9.1), and what to answer there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probed {
    socket: SocketId,
    tuple: FourTuple,
    data: [u8; 8],
    /// Bytes that may go there.
    room: usize,
}

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

    /// Keeps RFC 9000 §8.2.1, §9.3.
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
        if path.local_cids.on_move(packet.dcid) {
            path.remote_cids.rotate();
        }
        path.spin = Spin::new(self.config.spin_bit, &mut self.rng);
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

    /// A challenge beyond the caps is ignored: the peer repeats it.
    pub(super) fn on_path_challenge(&mut self, packet: &Packet<'_>, data: [u8; 8]) {
        let path = self.paths.primary_mut();
        let from = packet.meta.path;
        if from.remote == path.tuple.remote {
            path.validation.on_challenge(data);
            return;
        }
        // RFC 9000 §8.2.2: the answer goes where the challenge came from. One at a time waits for
        // an address, so a datagram with many challenges gets one answer, and not more than three
        // times its size.
        if self.probed.iter().all(|p| p.tuple != from) {
            let _ = self.probed.push(Probed {
                socket: packet.meta.socket,
                tuple: from,
                data,
                room: packet.size.saturating_mul(3),
            });
        }
    }

    /// A datagram that answers a challenge from an address that is not the path's.
    /// Keeps RFC 9000 §8.2.2.
    pub(super) fn answer_probe(&mut self, now: Timestamp, buf: &mut [u8]) -> Option<Transmit> {
        let probed = self.probed.pop()?;
        let size = limits::MIN_UDP_PAYLOAD.min(probed.room).min(buf.len());
        let path = self.paths.primary_mut();
        // The marks on this datagram say nothing about the path in use.
        let mark = std::mem::replace(&mut path.mark, Ecn::NotEct);
        let len = self.lone_packet(now, buf.get_mut(..size)?, false, |w| {
            frame::write_path_response(w, &probed.data);
        });
        self.paths.primary_mut().mark = mark;
        if len == 0 {
            return None;
        }
        self.stats.udp_datagrams_sent += 1;
        self.stats.udp_bytes_sent += len as u64;
        Some(Transmit {
            socket: probed.socket,
            path: probed.tuple,
            ecn: Ecn::NotEct,
            segment_size: len,
            len,
        })
    }

    /// Keeps RFC 9000 §8.2.2.
    pub(super) fn on_path_response(&mut self, data: [u8; 8]) {
        self.paths.primary_mut().validation.on_response(data);
    }
}
