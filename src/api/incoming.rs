//! A client's attempt to connect, before anything was decided about it.

use super::connection::Connecting;
use super::error::RetryError;
use super::shared::{Command, ConnShared, Held, Ticket, Verdict};
use crate::conn::incoming::Decision;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// A client's attempt to connect. Dropping it refuses it.
#[must_use = "dropping an attempt refuses it"]
pub struct Incoming {
    /// There until it is decided about.
    held: Option<Held>,
    remote: SocketAddr,
    validated: bool,
}

impl Incoming {
    pub(super) fn new(held: Held) -> Self {
        Self {
            remote: held.remote,
            validated: held.validated,
            held: Some(held),
        }
    }

    /// The client's address. Anybody can claim it unless [`Incoming::address_validated`].
    pub fn remote_address(&self) -> SocketAddr {
        self.remote
    }

    /// Whether the client has proven by a token that it receives at its address.
    pub fn address_validated(&self) -> bool {
        self.validated
    }

    /// Begins the handshake. It goes on by itself; await the result for the connection, or drop it
    /// to abandon the attempt.
    pub fn accept(mut self) -> Connecting {
        let Some(held) = self.held.take() else {
            unreachable!("an attempt is decided about by what consumes it");
        };
        let shared = Arc::new(ConnShared::new(held.link.clone(), held.remote));
        let ticket = Ticket::new(shared.clone());
        decide(&held, Decision::Accept, Some(ticket));
        Connecting::begun(shared)
    }

    /// Tells the client CONNECTION_REFUSED.
    pub fn refuse(mut self) {
        self.decide(Decision::Refuse);
    }

    /// Has the client prove its address first (RFC 9000 §8.1.2); it then comes again, validated.
    ///
    /// # Errors
    /// [`RetryError`] with the attempt when it has done so.
    pub fn retry(mut self) -> Result<(), RetryError> {
        if self.validated {
            return Err(RetryError(self));
        }
        self.decide(Decision::Retry);
        Ok(())
    }

    /// Says nothing. The client tries on until it gives up, and each try may come as a new attempt.
    pub fn ignore(mut self) {
        self.decide(Decision::Ignore);
    }

    fn decide(&mut self, decision: Decision) {
        if let Some(held) = self.held.take() {
            decide(&held, decision, None);
        }
    }
}

fn decide(held: &Held, decision: Decision, ticket: Option<Ticket>) {
    held.link.send(Command::Decide(Box::new(Verdict {
        id: held.id,
        decision,
        ticket,
    })));
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.decide(Decision::Refuse);
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("remote_address", &self.remote)
            .field("address_validated", &self.validated)
            .finish_non_exhaustive()
    }
}
