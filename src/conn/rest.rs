//! An idle connection gives back what it can do without: rings of sent packets, tables of streams,
//! queues, the keys' schedules, a client's TLS session.
//!
//! Once in each idle period, some time after the last packet (`limits::REST_AFTER`), by a timer
//! that then stays silent until there is traffic again. What was given back is allocated again by
//! the first packets that need it. The handshake's own state goes earlier, with its keys.

use super::Connection;
use crate::base::Timestamp;

impl Connection {
    /// When [`Connection::rest`] is due; never before the handshake is confirmed, and at rest.
    pub(super) fn rest_deadline(&self) -> Timestamp {
        match self.state.is_confirmed() {
            true => self.timers.rest_at(self.largest_pto_nanos()),
            false => Timestamp::NEVER,
        }
    }

    /// Gives back memory that an idle connection does not use.
    pub(super) fn rest(&mut self) {
        self.timers.rested = true;
        self.session.rest();
        for path in self.paths.iter_mut() {
            path.sent.rest();
            path.acks.rest();
        }
        self.one_rtt_crypto.rest();
        self.streams.rest();
        self.datagrams.rest();
        self.events.rest();
        self.new_tokens.rest();
        self.scratch = Vec::new();
        self.early = Vec::new();
        self.rng.rest();
        if let Some(keys) = self.one_rtt.as_deref_mut() {
            keys.rest();
        }
    }
}
