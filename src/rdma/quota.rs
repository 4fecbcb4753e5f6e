//! What one identity may have of a server's devices, over all shards.
//!
//! Asked before anything is allocated, and given back when the reservation is dropped. The lock is
//! taken when clients come and go, never on the data path.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Who a client is: a digest of its certificate, or its address where it showed none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity(pub [u8; 32]);

/// An amount, or a limit, of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    /// Queue pairs.
    pub queue_pairs: u64,
    /// Registered bytes.
    pub bytes: u64,
    /// Requests that may be outstanding.
    pub requests: u64,
}

impl Amount {
    /// Nothing.
    pub const NONE: Self = Self {
        queue_pairs: 0,
        bytes: 0,
        requests: 0,
    };

    fn plus(self, other: Self) -> Option<Self> {
        Some(Self {
            queue_pairs: self.queue_pairs.checked_add(other.queue_pairs)?,
            bytes: self.bytes.checked_add(other.bytes)?,
            requests: self.requests.checked_add(other.requests)?,
        })
    }

    fn minus(self, other: Self) -> Self {
        Self {
            queue_pairs: self.queue_pairs.saturating_sub(other.queue_pairs),
            bytes: self.bytes.saturating_sub(other.bytes),
            requests: self.requests.saturating_sub(other.requests),
        }
    }

    const fn within(self, limit: Self) -> bool {
        self.queue_pairs <= limit.queue_pairs
            && self.bytes <= limit.bytes
            && self.requests <= limit.requests
    }
}

impl Default for Amount {
    /// The default limit of an identity.
    fn default() -> Self {
        Self {
            queue_pairs: 4096,
            bytes: 1 << 30,
            requests: 1 << 20,
        }
    }
}

/// The quotas of a server.
#[derive(Clone, Debug)]
pub struct Quotas(Arc<(Amount, Mutex<HashMap<Identity, Amount>>)>);

impl Quotas {
    /// So much for each identity.
    pub fn new(limit: Amount) -> Self {
        Self(Arc::new((limit, Mutex::default())))
    }

    /// Takes `amount` of what `identity` may have; `None` when it is too much.
    pub fn reserve(&self, identity: Identity, amount: Amount) -> Option<Reservation> {
        let (limit, used) = &*self.0;
        let mut used = used.lock().unwrap_or_else(PoisonError::into_inner);
        let before = used.get(&identity).copied().unwrap_or(Amount::NONE);
        let after = before.plus(amount).filter(|a| a.within(*limit))?;
        used.insert(identity, after);
        Some(Reservation {
            quotas: self.clone(),
            identity,
            amount,
        })
    }

    /// Identities that have something.
    pub fn identities(&self) -> usize {
        self.0
            .1
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }
}

/// An amount that is taken until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    quotas: Quotas,
    identity: Identity,
    amount: Amount,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let used = &self.quotas.0.1;
        let mut used = used.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(amount) = used.get_mut(&self.identity) {
            *amount = amount.minus(self.amount);
            if *amount == Amount::NONE {
                used.remove(&self.identity);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_gets_its_share_and_gives_it_back() {
        let one = Amount {
            queue_pairs: 1,
            bytes: 10,
            requests: 5,
        };
        let limit = Amount {
            queue_pairs: 2,
            bytes: 100,
            requests: 10,
        };
        let quotas = Quotas::new(limit);
        let (a, b) = (Identity([1; 32]), Identity([2; 32]));
        let first = quotas.reserve(a, one).unwrap();
        let second = quotas.reserve(a, one);
        assert!(second.is_some() && quotas.reserve(a, one).is_none());
        assert!(quotas.reserve(b, one).is_some());
        drop(first);
        assert!(quotas.reserve(a, Amount { bytes: 91, ..one }).is_none());
        assert!(
            quotas
                .reserve(
                    a,
                    Amount {
                        bytes: u64::MAX,
                        ..one
                    }
                )
                .is_none()
        );
        assert!(quotas.reserve(a, one).is_some());
        drop(second);
        assert_eq!(quotas.identities(), 0);
    }
}
