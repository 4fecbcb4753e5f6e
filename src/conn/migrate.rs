//! A client moves to another address (RFC 9000 §9.2), and how a move ends on either side.
//!
//! The new addresses are probed first, with a connection ID of their own; they are moved to once
//! they answer. A client whose old address is gone moves at once and asks afterwards. What a server
//! does about a client that moved is in `follow`, datagrams to addresses not in use in `probing`.

use super::Connection;
use super::ack_frequency::requests_of;
use super::events::Event;
use super::space::SentFrame;
use crate::base::{FourTuple, SocketId, Timestamp};
use crate::path::validate::Start;
use crate::path::{Path, PathId, PathState, Probe, Purpose, Spin, Validation};
use crate::wire::{Code, Side};
use std::net::SocketAddr;
use std::time::Duration;

/// Why a client may not move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// Servers stay where they are (RFC 9000 §9).
    #[error("only a client moves its connection; a server can name a preferred address")]
    Server,
    /// The connection is over.
    #[error("the connection is over")]
    Closed,
    /// It is too early (RFC 9000 §9).
    #[error("the handshake is not confirmed yet: wait for the event that says so")]
    NotConfirmed,
    /// The server forbids it (RFC 9000 §18.2).
    #[error("the server forbids migration (disable_active_migration): connect anew instead")]
    Disabled,
    /// One side uses a zero-length connection ID: addresses alone tell the connection apart
    /// (RFC 9000 §9.5).
    #[error(
        "a zero-length connection ID is found by its addresses alone: connect anew, with \
         connection IDs"
    )]
    ZeroLength,
    /// A new address needs a connection ID of the peer that no other has seen (RFC 9000 §9.5).
    #[error("the server has issued no spare connection ID: try again in a few round trips")]
    NoConnectionId,
    /// The server is neither in use nor preferred there (RFC 9000 §9).
    #[error("{0} is not the address of the server in use, nor its preferred one")]
    Remote(SocketAddr),
    /// The path is not open.
    #[error("there is no such path, or it is not open")]
    NoPath,
    /// Too many addresses are being probed.
    #[error("too many addresses are being probed: wait for one to answer or fail")]
    Busy,
    /// No socket of this shard is bound there, or none that reaches the server.
    #[error("no socket of this shard reaches the server from there: give it one first")]
    Socket,
}

/// Why a move did not come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MigrationFailure {
    /// No answer came over the new addresses in time (RFC 9000 §8.2.4).
    #[error("the server did not answer over the new addresses")]
    NoAnswer,
    /// The server took back the connection ID that the move needs.
    #[error("the server has taken back its spare connection IDs")]
    NoConnectionId,
    /// Another move took its place.
    #[error("another move took its place")]
    Replaced,
}

/// The round-trip time that RFC 9002 §6.2.2 assumes of a path before it is measured.
const INITIAL_RTT: Duration = Duration::from_millis(333);

impl Connection {
    /// Moves a client to `tuple.local` on `socket`: probes from there, and goes on there once the
    /// server answers. [`Event::Migrated`] or [`Event::MigrationFailed`] tells the outcome; until
    /// then, and after a failure, everything goes on at the present address. `tuple.remote` is the
    /// server's address in use, or its preferred one.
    ///
    /// # Errors
    /// [`MigrateError`]; nothing was sent then.
    pub fn migrate(
        &mut self,
        now: Timestamp,
        socket: SocketId,
        tuple: FourTuple,
    ) -> Result<(), MigrateError> {
        let id = self.main_path().id;
        self.migrate_path(now, id, socket, tuple)
    }

    /// Moves one of several paths of a client as [`Connection::migrate`] moves the only one, while
    /// the others go on (multipath §3.1.2).
    ///
    /// # Errors
    /// [`MigrateError`]; nothing was sent then.
    pub fn migrate_path(
        &mut self,
        now: Timestamp,
        id: PathId,
        socket: SocketId,
        tuple: FourTuple,
    ) -> Result<(), MigrateError> {
        if !self.paths.select(id) || self.paths.current().state != PathState::Open {
            return Err(MigrateError::NoPath);
        }
        self.may_migrate(tuple.remote)?;
        let path = self.paths.current();
        if (path.socket, path.tuple) == (socket, tuple) {
            self.events.push(Event::Migrated(tuple));
            return Ok(());
        }
        self.give_up_probes(Purpose::Own, MigrationFailure::Replaced);
        let seq = self.paths.current_mut().remote_cids.take_spare();
        let seq = seq.ok_or(MigrateError::NoConnectionId)?;
        let validation = self.challenge(now, None);
        let probe = self.probe_of(now, Purpose::Own, socket, tuple, Some(seq), validation);
        if !self.insert_probe(probe) {
            return Err(MigrateError::Busy);
        }
        // RFC 9000 §9.6.3: the preferred address is validated from the new address, too.
        self.repeat_preferred(now, socket, tuple.local);
        Ok(())
    }

    /// Moves a client as [`Connection::migrate`] does, but without waiting for an answer: for when
    /// the present address is lost. A preferred address cannot be moved to this way (RFC 9000
    /// §9.6.2). After [`Event::MigrationFailed`] the connection stays there until it is moved again
    /// or idles out.
    ///
    /// # Errors
    /// [`MigrateError`]; nothing was sent then.
    pub fn migrate_at_once(
        &mut self,
        now: Timestamp,
        socket: SocketId,
        tuple: FourTuple,
    ) -> Result<(), MigrateError> {
        self.take_main_path();
        self.may_migrate(tuple.remote)?;
        if tuple.remote != self.paths.current().tuple.remote {
            return Err(MigrateError::Remote(tuple.remote));
        }
        self.give_up_probes(Purpose::Own, MigrationFailure::Replaced);
        let seq = self.paths.current_mut().remote_cids.take_spare();
        let seq = seq.ok_or(MigrateError::NoConnectionId)?;
        let validation = self.challenge(now, None);
        self.change_path(now, socket, tuple, Some(seq), validation);
        self.repeat_preferred(now, socket, tuple.local);
        Ok(())
    }

    /// Where a socket at `local` reaches the server: at its address in use, or at its preferred one
    /// if that alone is of the socket's family (RFC 9000 §9.6.3).
    pub fn remote_from(&self, local: SocketAddr) -> Option<SocketAddr> {
        let present = self.main_path().tuple.remote;
        let dual = local.is_ipv6() && local.ip().is_unspecified();
        if local.is_ipv4() == present.is_ipv4() || dual {
            return Some(present);
        }
        let preferred = self.peer_params.preferred_address.as_deref()?;
        super::preferred::of_family(preferred, local)
            .filter(|remote| self.config.port_guard.admits(present, *remote))
    }

    /// Whether a client could move now, to go on with the server at `remote` (RFC 9000 §9, §18.2).
    fn may_migrate(&self, remote: SocketAddr) -> Result<(), MigrateError> {
        let path = self.paths.current();
        let preferred = self.peer_params.preferred_address.as_deref();
        let known = remote == path.tuple.remote
            || preferred.is_some_and(|p| super::preferred::of_family(p, remote) == Some(remote));
        if self.side == Side::Server {
            Err(MigrateError::Server)
        } else if self.state.is_closed() {
            Err(MigrateError::Closed)
        } else if !self.state.is_confirmed() {
            Err(MigrateError::NotConfirmed)
        } else if self.peer_params.disable_active_migration
            && !self.at_preferred
            && remote == path.tuple.remote
        {
            Err(MigrateError::Disabled)
        } else if path.remote_cids.active().is_empty() || self.ids.local_scid.is_empty() {
            Err(MigrateError::ZeroLength)
        } else if !known {
            Err(MigrateError::Remote(remote))
        } else if !path.remote_cids.has_spare() {
            Err(MigrateError::NoConnectionId)
        } else {
            Ok(())
        }
    }

    /// How often an address is asked, and for how long (RFC 9000 §8.2.4, §9.4): three times the
    /// larger of the present and the initial probe timeout. The present one is that of the slowest
    /// path: a new one knows nothing yet of the hosts at its ends, which may be slow themselves.
    /// For the same reason an optimistic initial round-trip time shortens it no further.
    pub(super) fn patience(&self) -> (Duration, Duration) {
        let pto = |path: &Path<SentFrame>| path.rtt.pto(self.peer_params.max_ack_delay);
        let interval = pto(self.paths.current());
        let used = self.paths.iter().filter(|p| !p.is_abandoned());
        let longest = used.map(pto).fold(interval, Duration::max);
        let initial = self.config.initial_rtt.max(INITIAL_RTT) * 3;
        (interval, longest.max(initial) * 3)
    }

    /// A validation that begins with a challenge of random data (RFC 9000 §8.2.1). `received` bytes
    /// came from there already; `None` where no limit holds.
    pub(super) fn challenge(&mut self, now: Timestamp, received: Option<usize>) -> Validation {
        let mut validation = Validation::default();
        validation.start(now, self.challenge_start(received));
        validation
    }

    /// What such a validation is begun with.
    pub(super) fn challenge_start(&mut self, received: Option<usize>) -> Start {
        let (interval, patience) = self.patience();
        Start {
            data: [self.rng.array(), self.rng.array()],
            interval,
            patience,
            received,
        }
    }

    /// An address to look at for a while, at most twice as long as an answer may take.
    pub(super) fn probe_of(
        &self,
        now: Timestamp,
        purpose: Purpose,
        socket: SocketId,
        tuple: FourTuple,
        cid: Option<u64>,
        validation: Validation,
    ) -> Probe {
        let (_, patience) = self.patience();
        Probe {
            purpose,
            socket,
            tuple,
            cid,
            validation,
            wanted: false,
            expires: now + patience * 2,
        }
    }

    /// Goes on at other addresses, with the connection ID of that number where one is given. The
    /// addresses left are looked at for a while longer: the peer may still ask there, and a server
    /// must ask, for its client may never have left (RFC 9000 §9.3.3).
    pub(super) fn change_path(
        &mut self,
        now: Timestamp,
        socket: SocketId,
        tuple: FourTuple,
        cid: Option<u64>,
        validation: Validation,
    ) {
        self.stats.migrations += 1;
        let config = self.config.path();
        let path = self.paths.current_mut();
        let left = (path.socket, path.tuple);
        let old = path.remote_cids.active_seq();
        let changed = cid.is_some_and(|seq| seq != old && path.remote_cids.activate(seq));
        let keep = same_hosts(&path.tuple, &tuple);
        let looks_back = path.validation.is_validated().then(|| self.look_back(now));
        let path = self.paths.current_mut();
        path.move_to(socket, tuple, keep, &config);
        path.spin = Spin::new(self.config.spin_bit, &mut self.rng);
        path.validation = validation;
        if !keep && let Some(requests) = requests_of(&mut self.ack_frequency) {
            requests.on_new_path();
        }
        self.leave(now, left, changed.then_some(old), looks_back);
        if self.side == Side::Client {
            // The server follows the first packet that is more than a probe.
            self.paths.current_mut().ping = true;
        } else if left.1.remote != tuple.remote {
            self.note_peer_moved();
        }
    }

    /// How proven addresses are looked at after they were left: a server asks there, but not more
    /// often than a lost packet would be repeated.
    fn look_back(&mut self, now: Timestamp) -> Validation {
        let (pto, _) = self.patience();
        if self.side == Side::Server && now >= self.looked_back + pto {
            self.looked_back = now;
            return self.challenge(now, None);
        }
        let mut proven = Validation::default();
        proven.set_validated();
        proven
    }

    /// Addresses were left, and the connection ID for them, if it changed.
    fn leave(
        &mut self,
        now: Timestamp,
        (socket, tuple): (SocketId, FourTuple),
        cid: Option<u64>,
        looks_back: Option<Validation>,
    ) {
        self.paths.current_mut().paced_until = None;
        if let Some(validation) = looks_back {
            self.forget_probes(|p| p.purpose == Purpose::Former);
            let probe = self.probe_of(now, Purpose::Former, socket, tuple, cid, validation);
            self.insert_probe(probe);
        } else if let Some(seq) = cid {
            self.paths.current_mut().remote_cids.release(seq);
        }
    }

    /// The path in use is validated, the datagram size included.
    pub(super) fn on_path_validated(&mut self) {
        let path = self.paths.current();
        if path.state == PathState::Validating {
            return self.on_new_path_validated();
        }
        let tuple = path.tuple;
        match self.side {
            Side::Client => self.events.push(Event::Migrated(tuple)),
            Side::Server => self.note_peer_proven(),
        }
    }

    /// The path in use did not answer: a server goes back to where its client was last proven to
    /// be (RFC 9000 §9.3.2); a client has nowhere better to go.
    pub(super) fn on_path_failed(&mut self, now: Timestamp) {
        let path = self.paths.current();
        let (id, tuple) = (path.id, path.tuple);
        if path.state == PathState::Validating {
            return self.on_new_path_failed(now);
        }
        if self.side == Side::Client {
            let why = MigrationFailure::NoAnswer;
            self.events.push(Event::MigrationFailed(tuple, why));
            return;
        }
        if self.move_back(now) {
            self.note_peer_moved();
        } else if !self.paths.current().validation.is_validated() {
            if self.multipath.is_some() && !self.paths.is_single() {
                self.abandon_path(now, id, Code::PATH_UNSTABLE_OR_POOR, false);
            } else {
                self.end_silently(super::ConnectionError::TimedOut);
            }
        }
    }

    /// Returns to the addresses proven before, and to their connection ID if that is still known.
    pub(super) fn move_back(&mut self, now: Timestamp) -> bool {
        let config = self.config.path();
        let path = self.paths.current_mut();
        let left = (path.socket, path.tuple);
        let looks_back = path.validation.is_validated().then(|| self.look_back(now));
        let path = self.paths.current_mut();
        if !path.move_back(&config) {
            return false;
        }
        if let Some(requests) = requests_of(&mut self.ack_frequency) {
            requests.on_new_path();
        }
        path.spin = Spin::new(self.config.spin_bit, &mut self.rng);
        let (back, old) = (path.tuple, path.remote_cids.active_seq());
        let looked_at = path
            .probes
            .take(|p| p.purpose == Purpose::Former && p.tuple == back);
        let own = match looked_at {
            Some(p) => p.cid,
            // Its connection ID is retired; what the addresses left have seen is not for it.
            None => path.remote_cids.take_spare(),
        };
        let changed = own.is_some_and(|seq| seq != old && path.remote_cids.activate(seq));
        self.leave(now, left, changed.then_some(old), looks_back);
        true
    }
}

/// Whether no more than a port differs.
fn same_hosts(a: &FourTuple, b: &FourTuple) -> bool {
    a.remote.ip() == b.remote.ip() && a.local.ip() == b.local.ip()
}
