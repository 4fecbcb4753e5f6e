//! Which Retry tokens were used: each begins one connection (RFC 9000 §8.1.4).
//!
//! The memory is exact. It has two generations of one token's lifetime each, so a token is
//! remembered until it has expired by itself; when a generation is full, further Retry tokens are
//! refused until the next begins. One endpoint's memory suffices: the answer to a Retry is
//! addressed to the connection ID in the token, which leads to the shard that made it.

use crate::base::limits;
use crate::crypto::token::TokenName;
use std::collections::HashSet;

/// See the module.
#[derive(Debug)]
pub(super) struct SpentTokens {
    /// Seconds that a token lives.
    lifetime: u64,
    /// When `current` began, in seconds.
    since: u64,
    current: HashSet<TokenName>,
    previous: HashSet<TokenName>,
}

impl SpentTokens {
    pub(super) fn new(lifetime: u64) -> Self {
        Self {
            lifetime,
            since: 0,
            current: HashSet::new(),
            previous: HashSet::new(),
        }
    }

    /// Whether a token may still be used at `now` (seconds).
    pub(super) fn admits(&mut self, token: &TokenName, now: u64) -> bool {
        self.rotate(now);
        self.current.len() < limits::SPENT_TOKENS
            && !self.current.contains(token)
            && !self.previous.contains(token)
    }

    /// Remembers that a token was used at `now` (seconds).
    pub(super) fn spend(&mut self, token: TokenName, now: u64) {
        self.rotate(now);
        if self.current.len() < limits::SPENT_TOKENS {
            self.current.insert(token);
        }
    }

    /// A token used in a generation was made before its end, so it has expired at the end of the
    /// next one. Seconds are whole, and an age of exactly `lifetime` is still good.
    fn rotate(&mut self, now: u64) {
        let span = self.lifetime + 1;
        if now < self.since + span {
            return;
        }
        let next = std::mem::take(&mut self.current);
        self.previous = if now < self.since + 2 * span {
            next
        } else {
            HashSet::new()
        };
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: u32) -> TokenName {
        let mut name = TokenName::default();
        name[..4].copy_from_slice(&n.to_be_bytes());
        name
    }

    #[test]
    fn a_token_is_good_once_for_as_long_as_it_lives() {
        for used_at in 1000..1040 {
            let mut spent = SpentTokens::new(15);
            // Others keep the generations turning at any phase.
            for now in 1000..used_at {
                spent.spend(name(now as u32), now);
            }
            assert!(spent.admits(&name(1), used_at));
            spent.spend(name(1), used_at);
            for later in used_at..=used_at + 15 {
                assert!(!spent.admits(&name(1), later), "{used_at} {later}");
                spent.spend(name(later as u32), later);
            }
        }
    }

    #[test]
    fn memory_is_bounded_and_what_does_not_fit_is_refused() {
        let mut spent = SpentTokens::new(15);
        for n in 0..limits::SPENT_TOKENS as u32 {
            assert!(spent.admits(&name(n), 100));
            spent.spend(name(n), 100);
        }
        let new = name(u32::MAX);
        assert!(!spent.admits(&new, 100), "there is no room to remember it");
        spent.spend(new, 100);
        assert_eq!(spent.current.len(), limits::SPENT_TOKENS);
        assert!(spent.admits(&new, 116), "the next generation has room");
        assert!(!spent.admits(&name(0), 116));
        assert!(spent.admits(&name(0), 132), "long expired by itself");
        assert!(spent.previous.is_empty());
    }
}
