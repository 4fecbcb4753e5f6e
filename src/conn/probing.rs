//! Datagrams to and from addresses that are not in use: challenges and answers (RFC 9000 §8.2).
//!
//! They hold probing frames alone, go out whatever the congestion window says, and their loss tells
//! nothing of the path in use (RFC 9000 §9.4): the challenge has its own timer.

use super::Connection;
use super::events::Event;
use super::input::Packet;
use super::migrate::MigrationFailure;
use super::space::SentFrame;
use super::train::MIN_PACKET;
use crate::base::{Ecn, Timestamp, Transmit, limits};
use crate::path::probe::is_by;
use crate::path::validate::{Response, ValidationTimeout};
use crate::path::{Path, Probe, Purpose};
use crate::wire::{Side, frame};
use smallvec::SmallVec;

/// The smallest datagram with one such frame.
const LEAST: u64 = MIN_PACKET as u64 + 1;

/// Whether a datagram waits for an address beside the path's own.
#[inline]
pub(super) fn is_probing(path: &Path<SentFrame>) -> bool {
    !path.probes.is_empty() && path.probes.ready(LEAST).is_some()
}

impl Connection {
    /// Whether a datagram waits for an address that is not in use.
    #[inline]
    pub(super) fn has_probe_to_send(&self) -> bool {
        is_probing(self.paths.current())
    }

    /// The socket that the next datagram leaves by.
    pub fn next_socket(&self) -> crate::base::SocketId {
        let path = self.next_path();
        let probe = path.probes.ready(LEAST);
        probe
            .and_then(|at| path.probes.iter().nth(at))
            .map_or(path.socket, |p| p.socket)
    }

    /// Adds an address to look at; false when there is no room.
    pub(super) fn insert_probe(&mut self, probe: Probe) -> bool {
        let (socket, tuple) = (probe.socket, probe.tuple);
        let path = self.paths.current_mut();
        let Some(out) = path.probes.insert(probe) else {
            return true;
        };
        if let Some(seq) = out.cid {
            path.remote_cids.release(seq);
        }
        (out.socket, out.tuple) != (socket, tuple)
    }

    /// Stops looking at addresses.
    pub(super) fn forget_probes(&mut self, which: impl Fn(&Probe) -> bool) {
        let path = self.paths.current_mut();
        while let Some(probe) = path.probes.take(&which) {
            if let Some(seq) = probe.cid {
                path.remote_cids.release(seq);
            }
        }
    }

    /// Stops trying to move, and says so.
    pub(super) fn give_up_probes(&mut self, purpose: Purpose, why: MigrationFailure) {
        while let Some(probe) = self
            .paths
            .current_mut()
            .probes
            .take(|p| p.purpose == purpose)
        {
            self.end_probe(&probe, why);
        }
    }

    fn end_probe(&mut self, probe: &Probe, why: MigrationFailure) {
        let path = self.paths.current_mut();
        if let Some(seq) = probe.cid {
            path.remote_cids.release(seq);
        }
        match probe.purpose {
            Purpose::Own | Purpose::Preferred => {
                self.events.push(Event::MigrationFailed(probe.tuple, why));
            }
            // Nobody is there any more: there is nothing to return to. A client keeps it, for a
            // server that goes to its preferred address follows late.
            Purpose::Former if self.side == Side::Server && path.validation.is_validated() => {
                path.former = None;
            }
            Purpose::Former | Purpose::Peer => {}
        }
    }

    /// A challenge. One beyond the caps is ignored: the peer repeats it.
    pub(super) fn on_path_challenge(&mut self, now: Timestamp, packet: &Packet<'_>, data: [u8; 8]) {
        let path = self.paths.current_mut();
        if is_by(path.socket, &path.tuple, packet.meta) {
            path.validation.on_challenge(data);
            // RFC 9000 §9.3.3: more than a probe, so that a peer that was led astray comes back.
            path.ping = true;
            return;
        }
        // RFC 9000 §8.2.2: the answer goes where the challenge came from.
        if let Some(probe) = self.peer_probe(now, packet) {
            probe.validation.on_challenge(data);
        }
    }

    /// A datagram for an address that is not in use.
    /// Keeps RFC 9000 §8.2.1, §8.2.2.
    pub(super) fn poll_probe(&mut self, now: Timestamp, buf: &mut [u8]) -> Option<Transmit> {
        loop {
            let path = self.paths.current_mut();
            let at = path.probes.ready(LEAST)?;
            let probe = path.probes.at(at)?;
            let dcid = match probe.cid {
                None => Some(path.remote_cids.active()),
                Some(seq) => path.remote_cids.get(seq),
            };
            let Some(dcid) = dcid else {
                self.renew_cid(at);
                continue;
            };
            let allowance = usize::try_from(probe.validation.allowance()).unwrap_or(usize::MAX);
            let size = limits::MIN_UDP_PAYLOAD.min(allowance).min(buf.len());
            let mut room = size.checked_sub(MIN_PACKET)? / frame::PATH_CHALLENGE_SIZE + 1;
            let mut responses: SmallVec<[[u8; 8]; limits::PATH_RESPONSES]> = SmallVec::new();
            while room > 0
                && let Some(data) = probe.validation.poll_response()
            {
                room -= 1;
                responses.push(data);
            }
            let full = size >= limits::MIN_UDP_PAYLOAD;
            let challenge = (room > 0)
                .then(|| probe.validation.poll_challenge(now, full))
                .flatten();
            // The marks on this datagram say nothing about the path in use.
            let mark = std::mem::replace(&mut path.mark, Ecn::NotEct);
            let len = self.probe_packet(now, buf.get_mut(..size)?, dcid, |w| {
                for data in &responses {
                    frame::write_path_response(w, data);
                }
                if let Some(data) = challenge {
                    frame::write_path_challenge(w, &data);
                }
            });
            let path = self.paths.current_mut();
            path.mark = mark;
            let probe = path.probes.at(at).filter(|_| len > 0)?;
            probe.validation.on_sent(len);
            self.stats.udp_datagrams_sent += 1;
            self.stats.udp_bytes_sent += len as u64;
            return Some(Transmit {
                socket: probe.socket,
                path: probe.tuple,
                ecn: Ecn::NotEct,
                segment_size: len,
                len,
            });
        }
    }

    /// The peer took back a connection ID that an address had: it gets another, or is given up.
    #[cold]
    fn renew_cid(&mut self, at: usize) {
        let path = self.paths.current_mut();
        let spare = path.remote_cids.take_spare();
        let Some(probe) = path.probes.at(at) else {
            return;
        };
        probe.cid = spare;
        if spare.is_none() {
            let (socket, tuple) = (probe.socket, probe.tuple);
            if let Some(probe) = path.probes.take(|p| (p.socket, p.tuple) == (socket, tuple)) {
                self.end_probe(&probe, MigrationFailure::NoConnectionId);
            }
        }
    }

    /// A response, from wherever it comes (RFC 9000 §8.2.3).
    /// Keeps RFC 9000 §8.2.2.
    pub(super) fn on_path_response(&mut self, now: Timestamp, data: [u8; 8]) {
        let path = self.paths.current_mut();
        match path.validation.on_response(now, data) {
            Response::Stray => self.on_probe_response(now, data),
            Response::Address => {}
            Response::Path => self.on_path_validated(),
        }
    }

    #[cold]
    fn on_probe_response(&mut self, now: Timestamp, data: [u8; 8]) {
        let (_, patience) = self.patience();
        let path = self.paths.current_mut();
        let mut answered = None;
        for probe in path.probes.iter_mut() {
            if probe.validation.on_response(now, data) == Response::Path {
                probe.expires = now + patience;
                answered = Some((probe.purpose, probe.socket, probe.tuple, probe.wanted));
            }
        }
        let Some((purpose, socket, tuple, wanted)) = answered else {
            return;
        };
        let arrives = match self.side {
            Side::Client => matches!(purpose, Purpose::Own | Purpose::Preferred),
            Side::Server => wanted,
        };
        if !arrives {
            return;
        }
        let path = self.paths.current_mut();
        let taken = path.probes.take(|p| (p.socket, p.tuple) == (socket, tuple));
        let Some(probe) = taken else { return };
        // For a client, any other address of the server is its preferred one.
        let present = path.tuple.remote;
        self.at_preferred |= wanted || (self.side == Side::Client && tuple.remote != present);
        if purpose == Purpose::Preferred {
            // RFC 9000 §9.6.3: the server's original address is of no more interest.
            self.give_up_probes(Purpose::Own, MigrationFailure::Replaced);
        }
        self.change_path(now, socket, tuple, probe.cid, probe.validation);
        self.on_path_validated();
    }

    /// Time has passed for addresses that are not in use.
    pub(super) fn on_probe_timeout(&mut self, now: Timestamp) {
        let path = self.paths.current_mut();
        for probe in path.probes.iter_mut() {
            if probe.validation.on_timeout(now) == ValidationTimeout::Failed {
                probe.expires = now;
            }
        }
        while let Some(probe) = self.paths.current_mut().probes.take(|p| p.expires <= now) {
            self.end_probe(&probe, MigrationFailure::NoAnswer);
        }
    }
}
