//! Connection IDs of one path (RFC 9000 §5.1): those that the peer sends to, and those that we
//! send to.
//!
//! Both sides are bounded: at most [`limits::ACTIVE_CIDS`] active each way, at most
//! [`limits::PENDING_RETIREMENTS`] retirements unacknowledged. Which bytes a connection ID has is
//! the endpoint's choice: it hands them in, and takes back what was retired.

use crate::base::limits;
use crate::crypto::reset::same_token;
use crate::wire::{ConnectionId, TransportError, varint};
use smallvec::SmallVec;

/// A stateless reset token (RFC 9000 §10.3).
pub type ResetToken = [u8; limits::RESET_TOKEN_LEN];

#[derive(Clone, Copy, Debug)]
struct Issued {
    seq: u64,
    cid: ConnectionId,
    token: ResetToken,
    /// A NEW_CONNECTION_ID frame for it waits to be sent.
    announce: bool,
}

/// What a NEW_CONNECTION_ID frame of ours says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Sequence number.
    pub seq: u64,
    /// The connection ID.
    pub cid: ConnectionId,
    /// Its reset token.
    pub token: ResetToken,
}

/// Connection IDs that we issued and that the peer puts in its packets.
#[derive(Debug, Default)]
pub struct LocalCids {
    issued: SmallVec<[Issued; limits::ACTIVE_CIDS]>,
    /// How many of them are to be announced.
    unannounced: u32,
    next_seq: u64,
    /// How many the peer stores (its active_connection_id_limit); 0 until its parameters came.
    peer_limit: u32,
    retired: Vec<ConnectionId>,
    /// The one that the peer used when it last moved.
    moved_with: u64,
}

impl LocalCids {
    /// The connection ID of the handshake, which needs no frame; its sequence number is 0.
    pub fn set_first(&mut self, cid: ConnectionId) {
        self.issued.push(Issued {
            seq: 0,
            cid,
            token: [0; limits::RESET_TOKEN_LEN],
            announce: false,
        });
        self.next_seq = 1;
    }

    /// The connection ID of our preferred address, which the transport parameters announce; its
    /// sequence number is 1 (RFC 9000 §5.1.1).
    pub fn set_second(&mut self, cid: ConnectionId, token: ResetToken) {
        self.issued.push(Issued {
            seq: 1,
            cid,
            token,
            announce: false,
        });
        self.next_seq = 2;
    }

    /// The sequence number of the connection ID that is issued next.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Nothing more is announced: the path was abandoned (multipath §3.4).
    pub fn abandon(&mut self) {
        for i in &mut self.issued {
            i.announce = false;
        }
        self.unannounced = 0;
        self.peer_limit = 0;
    }

    /// How many more to issue for a path that is not in use yet: one to use, and one to move with.
    pub fn wanted_ahead(&self) -> usize {
        let target = (self.peer_limit as usize).min(limits::CIDS_AHEAD);
        target.saturating_sub(self.issued.len())
    }

    /// The peer's active_connection_id_limit came.
    pub fn set_peer_limit(&mut self, limit: u64) {
        self.peer_limit = u32::try_from(limit).unwrap_or(u32::MAX);
    }

    /// How many more connection IDs to issue.
    /// Keeps RFC 9000 §19.15.
    // RFC 9000 §5.1.1.
    pub fn wanted(&self) -> usize {
        if self.issued.first().is_some_and(|i| i.cid.is_empty()) {
            return 0;
        }
        let target = (self.peer_limit as usize).min(limits::ACTIVE_CIDS);
        target.saturating_sub(self.issued.len())
    }

    /// Issues one more; it is announced with the next packet.
    /// Keeps RFC 9000 §5.1.1.
    pub fn issue(&mut self, cid: ConnectionId, token: ResetToken) {
        self.issued.push(Issued {
            seq: self.next_seq,
            cid,
            token,
            announce: true,
        });
        self.unannounced += 1;
        self.next_seq += 1;
    }

    /// Whether an announcement waits.
    #[inline]
    pub fn wants_to_send(&self) -> bool {
        self.unannounced > 0
    }

    /// The next announcement, which counts as sent.
    pub fn poll_announcement(&mut self) -> Option<Announcement> {
        let i = self.issued.iter_mut().find(|i| i.announce)?;
        i.announce = false;
        self.unannounced -= 1;
        Some(Announcement {
            seq: i.seq,
            cid: i.cid,
            token: i.token,
        })
    }

    /// The packet that announced `seq` was lost.
    pub fn on_lost(&mut self, seq: u64) {
        if let Some(i) = self.issued.iter_mut().find(|i| i.seq == seq)
            && !i.announce
        {
            i.announce = true;
            self.unannounced += 1;
        }
    }

    /// RETIRE_CONNECTION_ID arrived in a packet that was sent to `used` (RFC 9000 §19.16).
    pub fn on_retire(&mut self, seq: u64, used: &ConnectionId) -> Result<(), TransportError> {
        if self.issued.first().is_some_and(|i| i.cid.is_empty()) {
            return Err(TransportError::protocol_violation(
                "retires a connection ID where none is used",
            ));
        }
        if seq >= self.next_seq {
            return Err(TransportError::protocol_violation(
                "retires a connection ID never issued",
            ));
        }
        let Some(at) = self.issued.iter().position(|i| i.seq == seq) else {
            return Ok(());
        };
        if self.issued[at].cid == *used {
            return Err(TransportError::protocol_violation(
                "retires the connection ID of the packet that says so",
            ));
        }
        let gone = self.issued.remove(at);
        self.unannounced -= u32::from(gone.announce);
        self.retired.push(gone.cid);
        Ok(())
    }

    /// Whether connection IDs are to be issued or to be forgotten.
    #[inline]
    pub fn wants_upkeep(&self) -> bool {
        !self.retired.is_empty() || self.wanted() > 0
    }

    /// A connection ID that no longer routes here.
    pub fn poll_retired(&mut self) -> Option<ConnectionId> {
        self.retired.pop()
    }

    /// Every connection ID that routes here.
    pub fn iter(&self) -> impl Iterator<Item = &ConnectionId> {
        self.issued.iter().map(|i| &i.cid)
    }

    /// Whether `used` is another connection ID than the peer used when it moved before: where it
    /// comes from a new address, the peer moved on purpose and must not be linkable
    /// (RFC 9000 §9.5).
    pub fn is_new(&self, used: &[u8]) -> bool {
        let issued = self.issued.iter().find(|i| i.cid.as_slice() == used);
        issued.is_some_and(|i| i.seq != self.moved_with)
    }

    /// The peer moved and sends to `used` now.
    pub fn on_move(&mut self, used: &[u8]) {
        if let Some(i) = self.issued.iter().find(|i| i.cid.as_slice() == used) {
            self.moved_with = i.seq;
        }
    }

    /// Whether `cid` is one of ours.
    pub fn contains(&self, cid: &ConnectionId) -> bool {
        self.iter().any(|c| c == cid)
    }
}

#[derive(Clone, Copy, Debug)]
struct Remote {
    seq: u64,
    cid: ConnectionId,
    token: Option<ResetToken>,
    /// Used, or to be used, towards another address than the one in use: for that one alone
    /// (RFC 9000 §9.5).
    taken: bool,
}

/// Connection IDs that the peer issued and that we send to.
#[derive(Debug, Default)]
pub struct RemoteCids {
    /// The one in use is first.
    known: SmallVec<[Remote; limits::ACTIVE_CIDS]>,
    retire_prior_to: u64,
    /// Above the highest sequence number that was ever used: what comes below it and is not known
    /// was retired.
    used_below: u64,
    /// The path is not in use yet: its connection IDs may come in any order.
    waiting: bool,
    /// Sequence numbers whose RETIRE_CONNECTION_ID waits to be sent.
    to_retire: Vec<u64>,
    /// RETIRE_CONNECTION_ID frames sent and not acknowledged.
    retiring: u32,
}

impl RemoteCids {
    /// Those of a path that is not in use yet.
    pub fn waiting() -> Self {
        Self {
            waiting: true,
            ..Self::default()
        }
    }

    /// The path is used from now on.
    pub fn start_use(&mut self) {
        self.waiting = false;
        self.settle_active();
    }

    /// The path was not used after all.
    pub fn end_use(&mut self) {
        self.waiting = true;
        self.used_below = 0;
    }

    /// Whether the path can be sent to.
    #[inline]
    pub fn is_usable(&self) -> bool {
        !self.known.is_empty()
    }

    /// Whether the peer issued a connection ID here.
    pub fn contains(&self, cid: &ConnectionId) -> bool {
        self.known.iter().any(|r| r.cid == *cid)
    }

    /// The sequence number of the connection ID that is expected next.
    pub fn next_seq(&self) -> u64 {
        let known = self.known.iter().map(|r| r.seq + 1).max();
        // After the last there is none that a frame could name.
        self.used_below.max(known.unwrap_or(0)).min(varint::MAX)
    }

    /// Everything is retired without a word: the path was abandoned (multipath §3.4).
    pub fn abandon(&mut self) {
        self.known.clear();
        self.to_retire.clear();
        self.retiring = 0;
    }

    /// The connection ID of the handshake: the first choice, then what the peer's packets name.
    pub fn set_first(&mut self, cid: ConnectionId) {
        self.known.clear();
        self.used_below = 1;
        self.known.push(Remote {
            seq: 0,
            cid,
            token: None,
            taken: false,
        });
    }

    /// The reset token of the handshake's connection ID, from the transport parameters.
    pub fn set_first_token(&mut self, token: ResetToken) {
        if let Some(r) = self.known.iter_mut().find(|r| r.seq == 0) {
            r.token = Some(token);
        }
    }

    /// The connection ID to send to.
    #[inline]
    pub fn active(&self) -> ConnectionId {
        self.known.first().map_or(ConnectionId::EMPTY, |r| r.cid)
    }

    /// The length of the connection ID to send to.
    #[inline]
    pub fn active_len(&self) -> usize {
        self.known.first().map_or(0, |r| r.cid.len())
    }

    /// NEW_CONNECTION_ID arrived (RFC 9000 §19.15): retires what it asks to (§5.1.2), then adds it
    /// within our limit (§5.1.1).
    pub fn on_new(
        &mut self,
        seq: u64,
        retire_prior_to: u64,
        cid: ConnectionId,
        token: ResetToken,
    ) -> Result<(), TransportError> {
        if self.known.first().is_some_and(|r| r.cid.is_empty()) {
            return Err(TransportError::protocol_violation(
                "issues a connection ID where it uses none",
            ));
        }
        for r in &self.known {
            let same_seq = r.seq == seq;
            let same_cid = r.cid == cid;
            if same_seq != same_cid || (same_seq && r.token.is_some_and(|t| t != token)) {
                return Err(TransportError::protocol_violation(
                    "a connection ID is issued twice",
                ));
            }
        }
        let repeated = self.known.iter().any(|r| r.seq == seq);
        self.retire_prior_to = self.retire_prior_to.max(retire_prior_to);
        if !repeated && (seq < self.retire_prior_to || seq < self.used_below) {
            // RFC 9000 §19.15: told to retire it before it came, or moved on past it: not used.
            if !self.to_retire.contains(&seq) {
                self.retire(seq)?;
            }
        } else if !repeated {
            let at = self
                .known
                .iter()
                .position(|r| r.seq > seq)
                .unwrap_or(self.known.len());
            self.known.insert(
                at,
                Remote {
                    seq,
                    cid,
                    token: Some(token),
                    taken: false,
                },
            );
        }
        let old: SmallVec<[u64; limits::ACTIVE_CIDS]> = self
            .known
            .iter()
            .map(|r| r.seq)
            .filter(|s| *s < self.retire_prior_to)
            .collect();
        for seq in old {
            self.known.retain(|r| r.seq != seq);
            self.retire(seq)?;
        }
        self.settle_active();
        if self.known.is_empty() {
            return Err(TransportError::protocol_violation(
                "retires every connection ID",
            ));
        }
        if self.known.len() > limits::ACTIVE_CIDS {
            return Err(TransportError::connection_id_limit_error(
                "more connection IDs than active_connection_id_limit",
            ));
        }
        Ok(())
    }

    /// Keeps RFC 9000 §5.1.2.
    fn retire(&mut self, seq: u64) -> Result<(), TransportError> {
        if self.to_retire.len() + self.retiring as usize >= limits::PENDING_RETIREMENTS {
            return Err(TransportError::connection_id_limit_error(
                "too many retirements unacknowledged",
            ));
        }
        self.to_retire.push(seq);
        Ok(())
    }

    /// The one in use may have been retired: another takes its place, at best one that no other
    /// address has seen.
    fn settle_active(&mut self) {
        if let Some(at) = self.known.iter().position(|r| !r.taken) {
            // The rest stays in order of sequence numbers.
            if let Some(part) = self.known.get_mut(..=at) {
                part.rotate_right(1);
            }
        }
        if let Some(first) = self.known.first_mut() {
            first.taken = false;
            if !self.waiting {
                self.used_below = self.used_below.max(first.seq + 1);
            }
        }
    }

    /// Whether an address other than the one in use can be sent to. Each use of a connection ID
    /// ends in a retirement, so those that are under way count.
    pub fn has_spare(&self) -> bool {
        let taken = self.known.iter().filter(|r| r.taken).count();
        taken + self.to_retire.len() + (self.retiring as usize) < limits::PENDING_RETIREMENTS / 2
            && self.known.iter().skip(1).any(|r| !r.taken)
    }

    /// Sets an unused connection ID aside for another address than the one in use
    /// (RFC 9000 §9.5); returns its sequence number. `None` when the peer issued no more.
    pub fn take_spare(&mut self) -> Option<u64> {
        if !self.has_spare() {
            return None;
        }
        let spare = self.known.iter_mut().skip(1).find(|r| !r.taken)?;
        spare.taken = true;
        self.used_below = self.used_below.max(spare.seq + 1);
        Some(spare.seq)
    }

    /// The connection ID of that sequence number, unless it was retired.
    pub fn get(&self, seq: u64) -> Option<ConnectionId> {
        self.known.iter().find(|r| r.seq == seq).map(|r| r.cid)
    }

    /// The sequence number of the one in use.
    pub fn active_seq(&self) -> u64 {
        self.known.first().map_or(0, |r| r.seq)
    }

    /// Puts the connection ID of that sequence number to use on this path; the one before stays set
    /// aside until it is retired. False when it is not known.
    pub fn activate(&mut self, seq: u64) -> bool {
        let Some(at) = self.known.iter().position(|r| r.seq == seq) else {
            return false;
        };
        if let Some(first) = self.known.first_mut().filter(|_| at > 0) {
            first.taken = true;
        }
        if let Some(part) = self.known.get_mut(..=at) {
            part.rotate_right(1);
        }
        if let Some(first) = self.known.first_mut() {
            first.taken = false;
        }
        true
    }

    /// Retires a connection ID that an address other than the one in use had.
    pub fn release(&mut self, seq: u64) {
        let at = self.known.iter().skip(1).position(|r| r.seq == seq);
        if let Some(at) = at {
            self.known.remove(at + 1);
            self.to_retire.push(seq);
        }
    }

    /// Whether a retirement waits to be sent.
    pub fn wants_to_send(&self) -> bool {
        !self.to_retire.is_empty()
    }

    /// The next sequence number to retire, which counts as sent.
    pub fn poll_retire(&mut self) -> Option<u64> {
        let seq = self.to_retire.pop()?;
        self.retiring += 1;
        Some(seq)
    }

    /// RETIRE_CONNECTION_ID was acknowledged.
    pub fn on_retire_acked(&mut self) {
        self.retiring = self.retiring.saturating_sub(1);
    }

    /// RETIRE_CONNECTION_ID was lost.
    pub fn on_retire_lost(&mut self, seq: u64) {
        self.retiring = self.retiring.saturating_sub(1);
        self.to_retire.push(seq);
    }

    /// The token that resets this path: the one of the connection ID in use. Tokens of connection
    /// IDs not used yet, or retired, count for nothing (RFC 9000 §10.3.1).
    #[inline]
    pub fn active_token(&self) -> Option<ResetToken> {
        self.known.first()?.token
    }

    /// The same, where it lies.
    #[inline]
    pub fn active_token_ref(&self) -> Option<&ResetToken> {
        self.known.first()?.token.as_ref()
    }

    /// Whether `token` resets this path.
    pub fn is_reset_token(&self, token: &ResetToken) -> bool {
        self.active_token().is_some_and(|t| same_token(&t, token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::error::Code;

    fn cid(n: u64) -> ConnectionId {
        ConnectionId::new(&n.to_be_bytes()).expect("8 bytes")
    }

    fn remote() -> RemoteCids {
        let mut r = RemoteCids::default();
        r.set_first(cid(0));
        r
    }

    /// Multipath §3.2: what is issued for a path before its use may come in any order, and none of
    /// it is used up.
    #[test]
    fn connection_ids_wait_for_their_path() {
        let mut r = RemoteCids::waiting();
        assert!(!r.is_usable() && r.next_seq() == 0);
        assert_eq!(r.on_new(1, 0, cid(11), [1; 16]), Ok(()));
        assert_eq!(r.on_new(0, 0, cid(10), [0; 16]), Ok(()));
        assert!(r.is_usable() && !r.wants_to_send() && r.next_seq() == 2);
        r.start_use();
        assert_eq!(r.active(), cid(10));
        r.end_use();
        assert_eq!(r.on_new(2, 0, cid(12), [2; 16]), Ok(()));
        r.start_use();
        assert!(r.contains(&cid(12)));
        r.abandon();
        assert!(!r.is_usable() && !r.wants_to_send() && r.active_token().is_none());
    }

    /// RFC 9000 §19.15: the number is a varint, and so is the one that PATH_CIDS_BLOCKED names.
    #[test]
    fn the_largest_number_has_no_next() {
        let mut r = RemoteCids::waiting();
        assert_eq!(r.on_new(varint::MAX, 0, cid(1), [1; 16]), Ok(()));
        assert_eq!(r.next_seq(), varint::MAX);
        r.start_use();
        assert_eq!((r.active(), r.next_seq()), (cid(1), varint::MAX));
    }

    #[test]
    fn rising_retire_prior_to_without_acks_is_bounded() {
        let mut r = remote();
        let err = (1..1000u64).find_map(|n| {
            let out = r.on_new(n, n, cid(n), [n as u8; 16]).err();
            while r.poll_retire().is_some() {}
            out
        });
        assert_eq!(err.map(|e| e.code), Some(Code::CONNECTION_ID_LIMIT_ERROR));
        assert!(r.known.len() <= limits::ACTIVE_CIDS + 1);
    }

    #[test]
    fn more_than_the_limit_is_an_error() {
        let mut r = remote();
        for n in 1..limits::ACTIVE_CIDS as u64 {
            assert_eq!(r.on_new(n, 0, cid(n), [1; 16]), Ok(()));
        }
        let e = r.on_new(99, 0, cid(99), [1; 16]).expect_err("one too many");
        assert_eq!(e.code, Code::CONNECTION_ID_LIMIT_ERROR);
    }

    #[test]
    fn the_same_frame_twice_is_no_error_but_a_different_one_is() {
        let mut r = remote();
        assert_eq!(r.on_new(1, 0, cid(1), [1; 16]), Ok(()));
        assert_eq!(r.on_new(1, 0, cid(1), [1; 16]), Ok(()));
        assert!(r.on_new(1, 0, cid(2), [1; 16]).is_err());
        assert!(r.on_new(2, 0, cid(1), [1; 16]).is_err());
        assert!(r.on_new(1, 0, cid(1), [2; 16]).is_err());
    }

    #[test]
    fn a_retirement_comes_back_when_lost() {
        let mut r = remote();
        assert_eq!(r.on_new(1, 1, cid(1), [1; 16]), Ok(()));
        assert_eq!(r.active(), cid(1));
        assert_eq!(r.poll_retire(), Some(0));
        r.on_retire_lost(0);
        assert_eq!(r.poll_retire(), Some(0));
        r.on_retire_acked();
        assert_eq!((r.poll_retire(), r.retiring), (None, 0));
    }

    #[test]
    fn retiring_is_checked_against_what_was_issued_and_used() {
        let mut l = LocalCids::default();
        l.set_first(cid(0));
        l.set_peer_limit(4);
        assert_eq!(l.wanted(), 3);
        l.issue(cid(1), [0; 16]);
        assert_eq!(l.poll_announcement().map(|a| a.seq), Some(1));
        assert!(l.on_retire(2, &cid(0)).is_err(), "never issued");
        assert!(l.on_retire(0, &cid(0)).is_err(), "carries the packet");
        assert_eq!(l.on_retire(0, &cid(1)), Ok(()));
        assert_eq!(l.on_retire(0, &cid(1)), Ok(()), "a repeat is ignored");
        assert_eq!(l.poll_retired(), Some(cid(0)));
        assert_eq!(l.wanted(), 3);
    }

    #[test]
    fn only_tokens_in_use_reset() {
        let mut r = remote();
        assert!(!r.is_reset_token(&[0; 16]));
        assert_eq!(r.on_new(1, 0, cid(1), [9; 16]), Ok(()));
        assert!(!r.is_reset_token(&[9; 16]), "not in use yet");
        assert_eq!(r.take_spare(), Some(1));
        assert!(!r.is_reset_token(&[9; 16]), "not in use on this path");
        assert!(r.activate(1));
        assert!(r.is_reset_token(&[9; 16]) && !r.is_reset_token(&[8; 16]));
        assert_eq!(r.on_new(2, 2, cid(2), [7; 16]), Ok(()));
        assert!(!r.is_reset_token(&[9; 16]));
    }

    #[test]
    fn spares_are_taken_used_and_retired() {
        let mut r = remote();
        assert_eq!(r.take_spare(), None);
        for n in 1..limits::ACTIVE_CIDS as u64 {
            assert_eq!(r.on_new(n, 0, cid(n), [n as u8; 16]), Ok(()));
        }
        assert_eq!((r.take_spare(), r.take_spare()), (Some(1), Some(2)));
        assert_eq!(r.active(), cid(0), "the one in use stays");
        assert!(r.activate(2));
        assert_eq!((r.active(), r.active_seq()), (cid(2), 2));
        assert_eq!(r.get(0), Some(cid(0)), "set aside");
        r.release(0);
        r.release(2);
        assert_eq!(r.active(), cid(2), "the one in use is not released");
        assert_eq!((r.poll_retire(), r.poll_retire()), (Some(0), None));
        // It comes again, after it was retired: not as a new one.
        assert_eq!(r.on_new(1, 0, cid(1), [1; 16]), Ok(()));
        r.release(1);
        assert_eq!(r.poll_retire(), Some(1));
        assert_eq!(r.on_new(1, 0, cid(1), [1; 16]), Ok(()));
        assert_eq!((r.get(1), r.poll_retire()), (None, Some(1)));
    }

    /// CVE-2025-7054 class: everything that is known is to go at once.
    #[test]
    fn all_connection_ids_may_be_retired_at_once() {
        let mut r = remote();
        for n in 1..4 {
            assert_eq!(r.on_new(n, 0, cid(n), [n as u8; 16]), Ok(()));
        }
        assert_eq!(r.take_spare(), Some(1));
        assert_eq!(r.on_new(9, 9, cid(9), [9; 16]), Ok(()));
        assert_eq!((r.active(), r.known.len()), (cid(9), 1));
        let retired: Vec<u64> = std::iter::from_fn(|| r.poll_retire()).collect();
        assert_eq!(retired.len(), 4);
        assert!(!r.activate(1), "gone");
    }

    /// The one in use goes, and the only other is another address's: it has to do for both.
    #[test]
    fn one_that_was_set_aside_takes_over_when_no_other_is_left() {
        let mut r = remote();
        assert_eq!(r.on_new(1, 0, cid(1), [1; 16]), Ok(()));
        assert_eq!(r.take_spare(), Some(1));
        assert_eq!(r.on_new(1, 1, cid(1), [1; 16]), Ok(()));
        assert_eq!((r.active(), r.known.len()), (cid(1), 1));
    }

    #[test]
    fn retirements_without_acknowledgement_bound_what_can_be_taken() {
        let mut r = remote();
        let mut moves = 0;
        for n in 1..100 {
            assert_eq!(r.on_new(n, 0, cid(n), [1; 16]), Ok(()));
            let before = r.active_seq();
            if let Some(seq) = r.take_spare() {
                moves += 1;
                assert!(r.activate(seq));
                r.release(before);
                while r.poll_retire().is_some() {}
            } else {
                break;
            }
        }
        assert_eq!(moves, limits::PENDING_RETIREMENTS / 2);
    }
}
