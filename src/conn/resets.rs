//! Stateless resets as they arrive (RFC 9000 §10.3.1): datagrams that end in a token of the peer's.
//!
//! Tokens of connection IDs that are not in use, and of paths that were abandoned, count for
//! nothing. What resets we send is `stateless`'s business.

use super::Connection;
use super::error::ConnectionError;
use super::space::SentFrame;
use crate::base::{RecvMeta, Timestamp, limits};
use crate::path::Path;
use crate::path::cids::ResetToken;

impl Connection {
    /// RFC 9000 §10.3: other versions may reset in the form of a long header.
    pub(super) fn is_reset(&mut self, now: Timestamp, meta: &RecvMeta, datagram: &[u8]) -> bool {
        self.on_undecryptable(now, meta, datagram);
        self.state.is_closed()
    }

    /// A short-header packet that does not authenticate may be a stateless reset
    /// (RFC 9000 §10.3.1).
    pub(super) fn on_undecryptable(&mut self, now: Timestamp, meta: &RecvMeta, packet: &[u8]) {
        let Some(token) = packet
            .last_chunk()
            .filter(|_| packet.len() >= limits::MIN_STATELESS_RESET)
        else {
            return;
        };
        let there = self.paths.iter().any(|p| resets(p, meta, token));
        if there {
            self.on_stateless_reset(now);
        }
    }

    /// Whether a stateless reset that came by `meta` may be the peer's.
    pub(crate) fn is_reset_from(&self, meta: &RecvMeta, datagram: &[u8]) -> bool {
        let token = datagram.last_chunk();
        token.is_some_and(|token| self.paths.iter().any(|p| resets(p, meta, token)))
    }

    /// The peer has lost its state: nothing more is sent.
    /// Keeps RFC 9000 §10.3.1.
    pub(crate) fn on_stateless_reset(&mut self, now: Timestamp) {
        if !self.state.is_closed() {
            self.state.move_to_draining();
            self.events.push_closed(ConnectionError::Reset);
            self.start_drain_timer(now);
        }
    }
}

/// Whether a token, which came by `meta`, is the peer's for a path in use: it counts for the
/// address that its connection ID is used towards, and no other (RFC 9000 §10.3.1).
fn resets(path: &Path<SentFrame>, meta: &RecvMeta, token: &ResetToken) -> bool {
    let there = !path.is_abandoned() && path.tuple.remote == meta.path.remote;
    there && path.remote_cids.is_reset_token(token)
}
