//! Where a client keeps the tokens that servers gave it for later connections (RFC 9000 §8.1.3).

use crate::base::limits;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

/// Keeps tokens by the server's name. Shared by whoever should profit of each other's tokens, such
/// as the shards of an engine; it is asked once a connection, and told about as often.
pub trait TokenStore: Send + Sync {
    /// Keeps a token of `server`. It may drop this or any other.
    fn insert(&self, server: &str, token: Vec<u8>);

    /// A token of `server`, the newest first. It must not give it again: who sees a token twice
    /// knows that both connections are one client's. RFC 9000 §8.1.3: nor one of another server.
    fn take(&self, server: &str) -> Option<Vec<u8>>;
}

#[derive(Debug, Default)]
struct Server {
    tokens: VecDeque<Vec<u8>>,
    /// When it was last given a token.
    at: u64,
}

/// Tokens in memory, for so many servers; the server that has been silent longest makes room.
#[derive(Debug)]
pub struct TokenMemory {
    servers: Mutex<(HashMap<String, Server>, u64)>,
    max_servers: usize,
}

impl Default for TokenMemory {
    fn default() -> Self {
        Self::new(limits::TOKEN_SERVERS)
    }
}

impl TokenMemory {
    /// Room for `max_servers` servers, with [`limits::TOKENS_OF_SERVER`] tokens each.
    pub fn new(max_servers: usize) -> Self {
        Self {
            servers: Mutex::default(),
            max_servers,
        }
    }
}

impl TokenStore for TokenMemory {
    fn insert(&self, server: &str, token: Vec<u8>) {
        let mut guard = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let (servers, clock) = &mut *guard;
        *clock += 1;
        if !servers.contains_key(server) && servers.len() >= self.max_servers {
            let oldest = servers.iter().min_by_key(|(_, s)| s.at);
            let Some(oldest) = oldest.map(|(name, _)| name.clone()) else {
                return;
            };
            servers.remove(&oldest);
        }
        let server = servers.entry(server.to_owned()).or_default();
        server.at = *clock;
        if server.tokens.len() >= limits::TOKENS_OF_SERVER {
            server.tokens.pop_front();
        }
        server.tokens.push_back(token);
    }

    fn take(&self, server: &str) -> Option<Vec<u8>> {
        let mut guard = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let (servers, _) = &mut *guard;
        let known = servers.get_mut(server)?;
        let token = known.tokens.pop_back();
        if known.tokens.is_empty() {
            servers.remove(server);
        }
        token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_comes_once_the_newest_first() {
        let store = TokenMemory::default();
        for n in 0..10 {
            store.insert("a", vec![n]);
        }
        store.insert("b", vec![77]);
        let of = |name: &str| -> Vec<u8> {
            std::iter::from_fn(|| store.take(name))
                .map(|t| t[0])
                .collect()
        };
        let newest = (10 - limits::TOKENS_OF_SERVER as u8..10).rev();
        assert_eq!(of("a"), newest.collect::<Vec<_>>());
        assert_eq!((of("a"), of("b")), (vec![], vec![77]));
        assert!(store.servers.lock().unwrap().0.is_empty());
    }

    #[test]
    fn the_server_that_was_silent_longest_makes_room() {
        let store = TokenMemory::new(2);
        for name in ["a", "b", "a", "c"] {
            store.insert(name, vec![1]);
        }
        assert_eq!(store.servers.lock().unwrap().0.len(), 2);
        assert!(store.take("b").is_none());
        assert!(store.take("a").is_some() && store.take("c").is_some());
        let none = TokenMemory::new(0);
        none.insert("a", vec![1]);
        assert!(none.take("a").is_none());
    }
}
