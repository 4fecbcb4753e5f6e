//! The 1-RTT keys of a connection: key update (RFC 9001 §6) and AEAD usage limits (§6.6).
//!
//! One key phase serves all paths, and so do the counters. The next generation is derived before it
//! is needed, so that a packet that starts an update opens in the time any other takes (§6.3): by
//! the first packet after [`OneRttKeys::rest`], whatever its phase, and else with an update. Only
//! the first waits until a connection has come to more than its handshake, for before that
//! everybody knows the key phase. The previous receive key stays until the time that the caller
//! sets (three PTO, §6.5). The caller says when the handshake is confirmed and what was
//! acknowledged; timers and closing are its own.

use super::fused::{self, Fused};
use super::keys::{Key, Keys, NextKeys};
use super::protect::{self, SealError, Undecryptable};
use super::resting::{self, Form};
use crate::base::{Timestamp, limits};
use crate::mem::prefetch;
use crate::wire::TransportError;
use crate::wire::header::KEY_PHASE;
use rustls::quic::{HeaderProtectionKey, PacketKey};
use smallvec::SmallVec;
use std::fmt;
use std::sync::Arc;

/// Packets that the confidentiality limit keeps back, so that a CONNECTION_CLOSE can still leave.
const CLOSING_RESERVE: u64 = 64;
/// Packets sealed before the second generation of keys is derived: many connections never come to
/// so many, and none of those updates.
const READY_AFTER: u64 = 16;

/// How often one key may be used (RFC 9001 §6.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AeadLimits {
    /// Packets sealed with one generation of keys.
    pub confidentiality: u64,
    /// Packets that fail to authenticate over the connection's life.
    pub integrity: u64,
}

impl AeadLimits {
    /// What the cipher suite of `key` permits.
    pub fn of(key: &Key) -> Self {
        Self {
            confidentiality: key.packet.confidentiality_limit(),
            integrity: key.packet.integrity_limit(),
        }
    }
}

/// Which generation of keys opened a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsedKeys {
    /// The current ones.
    Current,
    /// The current ones, and it was the first packet to arrive under them since an update of either
    /// side: call [`OneRttKeys::keep_previous_until`] with a time three PTO ahead.
    New,
    /// The ones before the last update.
    Previous,
}

/// A packet that authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Bytes of plaintext behind the header.
    pub len: usize,
    /// The keys that opened it.
    pub keys: UsedKeys,
}

/// Why a 1-RTT packet was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It does not authenticate: drop it.
    #[error(transparent)]
    Undecryptable(#[from] Undecryptable),
    /// KEY_UPDATE_ERROR or AEAD_LIMIT_REACHED: close the connection.
    #[error(transparent)]
    Fatal(#[from] TransportError),
}

/// A key update cannot start now (RFC 9001 §6.1, §6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a key update needs a confirmed handshake, an acknowledgment of a packet of the current key \
     phase, and the keys before it to be gone"
)]
pub struct UpdateNotAllowed;

/// The keys of the 1-RTT level, over all their generations.
pub struct OneRttKeys {
    local: Key,
    /// The same packet key as `local`'s, where it can seal a tail.
    fused: Option<Arc<dyn Fused>>,
    remote: Key,
    /// The key phase bit of the current generation, in both directions.
    phase: bool,
    /// Whether there is no previous receive key: the ordinary case, in which nothing is tracked.
    settled: bool,
    /// Settled, and the next receive key is at hand, or not needed yet.
    plain: bool,
    /// The keys are in their form for resting.
    small: bool,
    /// Whether a packet of the current phase that we sent was acknowledged.
    acked: bool,
    /// Whether a packet of the current phase was received.
    received: bool,
    confirmed: bool,
    /// Packets sealed in the current phase.
    sealed: u64,
    /// From this count on, `begin_packet` looks for a way out.
    update_at: u64,
    /// From this count on, it looks whether there is anything to do.
    look_at: u64,
    failed: u64,
    limits: AeadLimits,
    updates: u64,
    previous: Option<Box<dyn PacketKey>>,
    previous_until: Option<Timestamp>,
    /// The next generation's receive key; `None` at rest, and at first.
    next: Option<Box<dyn PacketKey>>,
    /// What the next generation follows from.
    secrets: NextKeys,
    sent_from: PathMarks,
    received_from: PathMarks,
}

impl OneRttKeys {
    /// The first generation, under the limits of its cipher suite.
    pub fn new(keys: Keys, next: NextKeys) -> Self {
        let limits = AeadLimits::of(&keys.local);
        Self::with_limits(keys, next, limits)
    }

    /// The first generation, under `limits` where they are lower than the cipher suite's.
    pub fn with_limits(keys: Keys, next: NextKeys, limits: AeadLimits) -> Self {
        let suite = AeadLimits::of(&keys.local);
        let limits = AeadLimits {
            confidentiality: limits.confidentiality.min(suite.confidentiality),
            integrity: limits.integrity.min(suite.integrity),
        };
        // Early enough that a round trip at any packet rate still fits below the limit.
        let update_at = limits.confidentiality / 2;
        Self {
            fused: fused::of(&*keys.local.packet),
            local: keys.local,
            remote: keys.remote,
            phase: false,
            settled: true,
            plain: true,
            small: false,
            acked: false,
            received: false,
            confirmed: false,
            sealed: 0,
            update_at,
            look_at: update_at.min(READY_AFTER),
            failed: 0,
            limits,
            updates: 0,
            previous: None,
            previous_until: None,
            next: None,
            secrets: next,
            sent_from: PathMarks::default(),
            received_from: PathMarks::default(),
        }
    }

    /// Brings both packet keys near; a hint.
    #[inline]
    pub fn warm(&self) {
        prefetch(&*self.local.packet);
        prefetch(&*self.local.header);
        prefetch(&*self.remote.packet);
        prefetch(&*self.remote.header);
    }

    /// Updates the keys already after so many packets, where that is sooner than the AEAD's limit
    /// makes it.
    pub fn set_update_after(&mut self, packets: u64) {
        self.update_at = self.update_at.min(packets.max(1));
        self.look_at = self.look_at.min(self.update_at);
    }

    /// The key phase bit for the header of the next packet. Call before each packet is built: this
    /// is where a due key update happens (RFC 9001 §5.3, §6.6).
    ///
    /// # Errors
    /// AEAD_LIMIT_REACHED when the limit is near and no update is possible; [`Self::phase_bit`] and
    /// [`Self::seal`] then still serve the few packets that close the connection.
    #[inline]
    pub fn begin_packet(&mut self) -> Result<u8, TransportError> {
        if self.sealed >= self.look_at {
            self.relieve()?;
        }
        Ok(self.phase_bit())
    }

    /// The key phase bit of the current generation, in its place in the first byte.
    #[inline]
    pub const fn phase_bit(&self) -> u8 {
        if self.phase { KEY_PHASE } else { 0 }
    }

    /// Seals one packet in place; see [`protect::seal`]. Its header carries [`Self::phase_bit`].
    /// Keeps RFC 9001 §6.4.
    ///
    /// # Errors
    /// [`SealError`].
    #[inline]
    pub fn seal(
        &mut self,
        path_id: u32,
        pn: u64,
        packet: &mut [u8],
        pn_offset: usize,
        pn_len: usize,
    ) -> Result<(), SealError> {
        if self.sealed >= self.limits.confidentiality {
            return Err(SealError::LimitReached);
        }
        self.sealed += 1;
        if !self.acked {
            self.sent_from.lower(path_id, pn);
        }
        protect::seal(&self.local, path_id, pn, packet, pn_offset, pn_len)
    }

    /// Whether [`Self::seal_with_tail`] takes a tail that is not empty.
    #[inline]
    pub fn takes_tail(&self) -> bool {
        self.fused.is_some()
    }

    /// Like [`Self::seal`], for a packet that ends with the bytes of `tail`, for which it has only
    /// the room, and with that for the tag.
    ///
    /// # Errors
    /// [`SealError`].
    #[inline]
    pub fn seal_with_tail(
        &mut self,
        path_id: u32,
        pn: u64,
        packet: &mut [u8],
        (pn_offset, pn_len): (usize, usize),
        tail: &[u8],
    ) -> Result<(), SealError> {
        let Some(fused) = &self.fused else {
            return match tail {
                [] => self.seal(path_id, pn, packet, pn_offset, pn_len),
                _ => Err(SealError::Refused),
            };
        };
        if self.sealed >= self.limits.confidentiality {
            return Err(SealError::LimitReached);
        }
        self.sealed += 1;
        if !self.acked {
            self.sent_from.lower(path_id, pn);
        }
        let number = (path_id, pn);
        let header_key = &*self.local.header;
        protect::seal_with_tail(
            &**fused,
            header_key,
            number,
            packet,
            (pn_offset, pn_len),
            tail,
        )
    }

    /// What [`protect::unprotect`] needs; the same in every generation.
    #[inline]
    pub fn header_key(&self) -> &dyn HeaderProtectionKey {
        self.remote.header.as_ref()
    }

    /// Opens one packet in place, with the keys that its key phase and number call for.
    ///
    /// The header must be unprotected. `largest_received` is the largest packet number that was
    /// opened on this path before.
    ///
    /// # Errors
    /// [`OpenError::Undecryptable`] for a packet to drop, [`OpenError::Fatal`] to close.
    #[inline]
    pub fn open(
        &mut self,
        path_id: u32,
        pn: u64,
        largest_received: Option<u64>,
        packet: &mut [u8],
        header_len: usize,
    ) -> Result<Opened, OpenError> {
        let phase = packet.first().is_some_and(|first| first & KEY_PHASE != 0);
        if phase != self.phase || !self.plain {
            return self.open_around_update(
                phase,
                path_id,
                pn,
                largest_received,
                packet,
                header_len,
            );
        }
        match protect::open(self.remote.packet.as_ref(), path_id, pn, packet, header_len) {
            Ok(len) => Ok(Opened {
                len,
                keys: UsedKeys::Current,
            }),
            Err(Undecryptable) => Err(self.count_failure()),
        }
    }

    #[inline(never)]
    fn open_around_update(
        &mut self,
        phase: bool,
        path_id: u32,
        pn: u64,
        largest_received: Option<u64>,
        packet: &mut [u8],
        header_len: usize,
    ) -> Result<Opened, OpenError> {
        if self.small {
            self.wake();
        }
        let secrets = &self.secrets;
        // Whatever the packet's phase, so that its time tells nothing of it.
        let next = self.next.get_or_insert_with(|| secrets.peek().remote);
        self.plain = self.settled;
        if self.settled && phase == self.phase {
            return self.open(path_id, pn, largest_received, packet, header_len);
        }
        // RFC 9001 §6.5: a packet of the other phase is older than the current one when its number
        // is below the first of the current phase, and newer when it is above. A path on which the
        // current phase has not arrived can only still carry the older.
        let is_previous = self
            .received_from
            .get(path_id)
            .is_none_or(|first| pn < first);
        let (key, keys) = match &self.previous {
            _ if phase == self.phase && self.received => (&self.remote.packet, UsedKeys::Current),
            _ if phase == self.phase => (&self.remote.packet, UsedKeys::New),
            Some(previous) if is_previous => (previous, UsedKeys::Previous),
            _ => (&*next, UsedKeys::New),
        };
        // RFC 9001 §5.5: a packet that does not open changes nothing, whatever its phase says.
        let Ok(len) = protect::open(key.as_ref(), path_id, pn, packet, header_len) else {
            return Err(self.count_failure());
        };
        if phase != self.phase && keys == UsedKeys::New {
            self.on_peer_update(pn, largest_received)?;
        }
        if keys != UsedKeys::Previous {
            self.received = true;
            self.received_from.lower(path_id, pn);
        }
        Ok(Opened { len, keys })
    }

    /// Follows the peer into the next phase, with our own sending too (RFC 9001 §6.2).
    fn on_peer_update(&mut self, pn: u64, largest_received: Option<u64>) -> Result<(), OpenError> {
        // RFC 9001 §6.4: a higher packet number never comes with older keys.
        if largest_received.is_some_and(|largest| pn < largest) {
            return Err(TransportError::key_update_error(
                "new keys on a lower packet number than old keys",
            )
            .into());
        }
        // RFC 9001 §6.2: nobody updates twice before the other side has answered once.
        if self.updates > 0 && self.sealed == 0 {
            return Err(TransportError::key_update_error(
                "two key updates without an acknowledgment",
            )
            .into());
        }
        self.advance();
        Ok(())
    }

    /// Learns that the peer acknowledged `largest_acked` on a path, in a packet that `carried_by`
    /// opened. The number must be one that was sent.
    ///
    /// # Errors
    /// KEY_UPDATE_ERROR when the peer acknowledges the current phase without using it.
    #[inline]
    pub fn on_ack(
        &mut self,
        path_id: u32,
        largest_acked: u64,
        carried_by: UsedKeys,
    ) -> Result<(), TransportError> {
        if self.acked {
            return Ok(());
        }
        let first = self.sent_from.get(path_id);
        if first.is_some_and(|first| largest_acked >= first) {
            // RFC 9001 §6.2: the acknowledgment of an update comes under updated keys.
            if carried_by == UsedKeys::Previous {
                return Err(TransportError::key_update_error(
                    "an update acknowledged with old keys",
                ));
            }
            self.acked = true;
        }
        Ok(())
    }

    /// Permits key updates from now on (RFC 9001 §6.1).
    pub fn on_handshake_confirmed(&mut self) {
        self.confirmed = true;
    }

    /// Whether [`Self::initiate_update`] would succeed.
    /// Keeps RFC 9001 §6.1.
    pub fn can_update(&self) -> bool {
        self.confirmed && self.acked && self.settled
    }

    /// Moves both directions to the next generation; packets built from now on tell the peer.
    ///
    /// # Errors
    /// [`UpdateNotAllowed`] too early.
    pub fn initiate_update(&mut self) -> Result<(), UpdateNotAllowed> {
        if !self.can_update() {
            return Err(UpdateNotAllowed);
        }
        self.advance();
        Ok(())
    }

    /// Sets when the previous receive key goes: three PTO (of the slowest path) after a packet was
    /// opened with [`UsedKeys::New`].
    pub fn keep_previous_until(&mut self, at: Timestamp) {
        if self.previous.is_some() {
            self.previous_until = Some(at);
        }
    }

    /// When [`Self::on_timeout`] is due.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.previous_until
    }

    /// Forgets the previous receive key if its time has come (RFC 9001 §6.5).
    pub fn on_timeout(&mut self, now: Timestamp) {
        if self.previous_until.is_some_and(|at| at <= now) {
            self.previous = None;
            self.previous_until = None;
            self.settled = true;
            self.plain = self.next.is_some();
        }
    }

    /// Gives back what an idle connection can do without: the next receive key, and what the keys
    /// are prepared for their use with. The next packet, sent or received, makes both again.
    pub fn rest(&mut self) {
        if !self.settled {
            return;
        }
        self.next = None;
        self.plain = false;
        self.look_at = 0;
        self.fused = None;
        self.reshape(Form::Small);
    }

    /// Prepares the keys that [`Self::rest`] made small.
    fn wake(&mut self) {
        self.reshape(Form::Ready);
        self.fused = fused::of(&*self.local.packet);
    }

    fn reshape(&mut self, form: Form) {
        for key in [&mut self.local, &mut self.remote] {
            resting::packet(&mut key.packet, form);
            resting::header(&mut key.header, form);
        }
        self.small = form == Form::Small;
    }

    /// Adds failures that other levels counted; the integrity limit is the connection's.
    ///
    /// # Errors
    /// AEAD_LIMIT_REACHED.
    pub fn add_failures(&mut self, packets: u64) -> Result<(), TransportError> {
        self.failed = self.failed.saturating_add(packets);
        if self.failed > self.limits.integrity {
            return Err(TransportError::aead_limit_reached("integrity limit"));
        }
        Ok(())
    }

    /// Packets that failed to authenticate.
    pub const fn failures(&self) -> u64 {
        self.failed
    }

    /// Key updates so far, of either side.
    pub const fn updates(&self) -> u64 {
        self.updates
    }

    #[cold]
    fn count_failure(&mut self) -> OpenError {
        match self.add_failures(1) {
            Ok(()) => Undecryptable.into(),
            Err(fatal) => fatal.into(),
        }
    }

    #[cold]
    fn relieve(&mut self) -> Result<(), TransportError> {
        if self.small {
            self.wake();
        }
        let secrets = &self.secrets;
        self.next.get_or_insert_with(|| secrets.peek().remote);
        self.look_at = self.update_at;
        if self.sealed < self.update_at {
            return Ok(());
        }
        if self.can_update() {
            self.advance();
            return Ok(());
        }
        let limit = self.limits.confidentiality;
        if self.sealed >= limit - CLOSING_RESERVE.min(limit / 4) {
            return Err(TransportError::aead_limit_reached("confidentiality limit"));
        }
        Ok(())
    }

    /// Keeps RFC 9001 §6.1.
    fn advance(&mut self) {
        if self.small {
            self.wake();
        }
        let current = self.secrets.derive();
        self.next = Some(self.secrets.peek().remote);
        self.fused = fused::of(&*current.local);
        self.local.packet = current.local;
        self.previous = Some(std::mem::replace(&mut self.remote.packet, current.remote));
        self.previous_until = None;
        self.phase = !self.phase;
        self.settled = false;
        self.plain = false;
        self.acked = false;
        self.received = false;
        self.sealed = 0;
        self.updates += 1;
        self.sent_from.clear();
        self.received_from.clear();
    }
}

impl fmt::Debug for OneRttKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OneRttKeys")
            .field("updates", &self.updates)
            .field("sealed", &self.sealed)
            .field("failed", &self.failed)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// The lowest packet number of a phase on each path that carried one.
#[derive(Default)]
struct PathMarks(SmallVec<[(u32, u64); 1]>);

impl PathMarks {
    #[inline]
    fn get(&self, path_id: u32) -> Option<u64> {
        self.0
            .iter()
            .find(|mark| mark.0 == path_id)
            .map(|mark| mark.1)
    }

    /// Notes `pn`. Paths beyond the limit go unnoted: their packets then count as older.
    #[inline]
    fn lower(&mut self, path_id: u32, pn: u64) {
        if let Some(mark) = self.0.iter_mut().find(|mark| mark.0 == path_id) {
            mark.1 = mark.1.min(pn);
        } else if self.0.len() < limits::PATH_RECORDS {
            self.0.push((path_id, pn));
        }
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests;
