//! Stateless reset tokens (RFC 9000 §10.3.2): a keyed hash of the connection ID.
//!
//! Every shard, and every later process with the same key, computes the same token for a connection
//! ID without remembering the connection.

use crate::base::limits::RESET_TOKEN_LEN;
use crate::wire::ConnectionId;
use ring::hmac;
use std::fmt;

/// The key that stateless reset tokens derive from.
#[derive(Clone)]
pub struct ResetKey(hmac::Key);

impl ResetKey {
    /// A key from 32 secret bytes.
    pub fn new(secret: [u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &secret))
    }

    /// The token for `cid`.
    pub fn reset_token(&self, cid: &ConnectionId) -> [u8; RESET_TOKEN_LEN] {
        let tag = hmac::sign(&self.0, cid.as_slice());
        let mut token = [0; RESET_TOKEN_LEN];
        for (to, from) in token.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        token
    }
}

impl fmt::Debug for ResetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResetKey(..)")
    }
}

/// Whether two reset tokens are the same, in a time that does not depend on where they differ
/// (RFC 9000 §10.3.1).
#[inline]
pub fn same_token(a: &[u8; RESET_TOKEN_LEN], b: &[u8; RESET_TOKEN_LEN]) -> bool {
    // The barrier keeps the difference whole: no comparison of single bytes can take its place.
    std::hint::black_box(u128::from_ne_bytes(*a) ^ u128::from_ne_bytes(*b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_follows_from_key_and_connection_id() {
        let key = ResetKey::new([1; 32]);
        let cid = ConnectionId::new(&[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
        let token = key.reset_token(&cid);
        assert_eq!(ResetKey::new([1; 32]).reset_token(&cid), token);
        assert_ne!(ResetKey::new([2; 32]).reset_token(&cid), token);
        for len in 0..8 {
            let shorter = ConnectionId::new(&cid.as_slice()[..len]).unwrap();
            assert_ne!(key.reset_token(&shorter), token);
        }
    }

    #[test]
    fn tokens_compare_by_every_bit() {
        let token = ResetKey::new([1; 32]).reset_token(&ConnectionId::EMPTY);
        assert!(same_token(&token, &token.clone()));
        for bit in 0..128 {
            let mut other = token;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!same_token(&token, &other), "bit {bit}");
        }
    }
}
