//! Session tickets of a client that resumes, and how many of its handshakes were full ones all the
//! same.
//!
//! A server says that it resumes by not showing a certificate; so a client counts those it verifies.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::Semaphore;

use crate::Fault;

/// What all connections of a client share.
#[derive(Debug)]
pub struct Resumption {
    uses: Semaphore,
    full: AtomicU64,
}

impl Default for Resumption {
    fn default() -> Self {
        Self {
            uses: Semaphore::new(0),
            full: AtomicU64::new(0),
        }
    }
}

impl Resumption {
    /// A session ticket has come that is good for so many connections.
    pub fn note_ticket(&self, uses: usize) {
        self.uses.add_permits(uses);
    }

    /// How many connections have a ticket waiting for them.
    pub fn uses(&self) -> usize {
        self.uses.available_permits()
    }

    /// Waits for a ticket for the next connection.
    ///
    /// # Errors
    /// Never: nobody closes this.
    pub async fn ticket(&self) -> Result<(), Fault> {
        self.uses.acquire().await?.forget();
        Ok(())
    }

    /// A server has shown its certificate.
    pub fn note_full_handshake(&self) {
        self.full.fetch_add(1, Relaxed);
    }

    /// How many have.
    pub fn full_handshakes(&self) -> u64 {
        self.full.load(Relaxed)
    }
}
