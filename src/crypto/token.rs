//! Address validation tokens: what a server hands out in Retry packets and NEW_TOKEN frames
//! (RFC 9000 §8.1), sealed so that only its own process reads or makes them (§8.1.4), each of a
//! kind (§8.1.1) and like no other (§8.1.3).
//!
//! A token is a generation byte, a random salt and the AES-256-GCM sealing of its content under a
//! key that HMAC-SHA256 derives from salt and secret: each token has a key of its own, so no nonce
//! can repeat however many are made. Times are unix seconds given by the caller. A token stays good
//! until it expires; a caller who wants each to work once remembers its [`name`].

use crate::base::Rng;
use crate::base::net::canonical;
use crate::wire::{ConnectionId, Reader, Truncated};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use smallvec::SmallVec;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

const SALT_LEN: usize = 16;
const TAG_LEN: usize = 16;
/// Generation and salt, in the clear.
const HEADER_LEN: usize = 1 + SALT_LEN;
/// Kind, time, address with port, and two connection IDs with their lengths.
const CONTENT_MAX: usize = 1 + 8 + (1 + 16 + 2) + 2 * (1 + 20);
/// The longest token that we make, in bytes.
pub const MAX_TOKEN_LEN: usize = HEADER_LEN + CONTENT_MAX + TAG_LEN;

const KIND_RETRY: u8 = 0;
const KIND_NEW_TOKEN: u8 = 1;

/// What a valid token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// The client answers our Retry.
    Retry {
        /// The Destination Connection ID of its very first Initial, for the transport parameter
        /// original_destination_connection_id.
        odcid: ConnectionId,
        /// The Source Connection ID of our Retry; the answer must be addressed to it.
        retry_scid: ConnectionId,
    },
    /// The client had a connection from this address before.
    NewToken {
        /// When the token was issued, in unix seconds.
        issued: u64,
    },
}

/// Tells a token from all others that we make.
pub type TokenName = [u8; SALT_LEN];

/// The name of a token; `None` for what is too short to be one. Whether it is authentic,
/// [`TokenKey::open`] says.
pub fn name(token: &[u8]) -> Option<TokenName> {
    token.get(1..)?.first_chunk().copied()
}

/// Why a token validates nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It was not made with our keys. Proceed as if there were no token (RFC 9000 §8.1.3).
    #[error("the token is not one of ours")]
    Unreadable,
    /// It is too old, or from the future.
    #[error("the token has expired")]
    Expired {
        /// Whether it came in a Retry: then RFC 9000 §8.1.2 asks to close with INVALID_TOKEN.
        retry: bool,
    },
    /// It was made for another address.
    #[error("the token belongs to another address")]
    OtherAddress {
        /// Whether it came in a Retry: then RFC 9000 §8.1.2 asks to close with INVALID_TOKEN.
        retry: bool,
    },
}

/// How long tokens are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of Retry tokens: a round trip and some patience.
    pub retry: Duration,
    /// Of NEW_TOKEN tokens.
    pub new_token: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            retry: Duration::from_secs(15),
            new_token: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// The secrets that tokens are made with: the current one and, after a rotation, the one before.
#[derive(Clone)]
pub struct TokenKey {
    generation: u8,
    current: hmac::Key,
    previous: Option<hmac::Key>,
}

impl TokenKey {
    /// A key from 32 secret bytes.
    pub fn new(secret: [u8; 32]) -> Self {
        Self {
            generation: 0,
            current: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            previous: None,
        }
    }

    /// Makes tokens with a new secret from now on. Those of the last one are still good, those of
    /// the one before it no longer.
    pub fn rotate(&mut self, secret: [u8; 32]) {
        let new = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        self.previous = Some(std::mem::replace(&mut self.current, new));
        self.generation = self.generation.wrapping_add(1);
    }

    /// Appends a Retry token to `out`: good for `addr`, port included, from `now` (unix seconds).
    pub fn retry_token(
        &self,
        rng: &mut Rng,
        addr: SocketAddr,
        odcid: &ConnectionId,
        retry_scid: &ConnectionId,
        now: u64,
        out: &mut Vec<u8>,
    ) {
        let addr = canonical(addr);
        let mut content = content(KIND_RETRY, now, addr.ip());
        content.extend_from_slice(&addr.port().to_be_bytes());
        for cid in [odcid, retry_scid] {
            content.push(cid.len() as u8);
            content.extend_from_slice(cid.as_slice());
        }
        self.seal(rng, content, out);
    }

    /// Appends a token for a NEW_TOKEN frame to `out`: good for `ip` from `now` (unix seconds).
    pub fn new_token(&self, rng: &mut Rng, ip: IpAddr, now: u64, out: &mut Vec<u8>) {
        self.seal(
            rng,
            content(KIND_NEW_TOKEN, now, canonical(SocketAddr::new(ip, 0)).ip()),
            out,
        );
    }

    /// Opens a token that a client at `addr` presents at `now` (unix seconds).
    /// Keeps RFC 9000 §8.1.4.
    ///
    /// # Errors
    /// [`TokenError`]; no content makes this panic or allocate.
    pub fn open(
        &self,
        token: &[u8],
        addr: SocketAddr,
        now: u64,
        lifetimes: Lifetimes,
    ) -> Result<Token, TokenError> {
        let mut sealed = Content::new();
        let content = self
            .unseal(token, &mut sealed)
            .ok_or(TokenError::Unreadable)?;
        // Authentic content parses: it is our own.
        let content = Claims::parse(content).map_err(|_| TokenError::Unreadable)?;
        let addr = canonical(addr);
        let (retry, lifetime) = match content.token {
            Token::Retry { .. } => (true, lifetimes.retry),
            Token::NewToken { .. } => (false, lifetimes.new_token),
        };
        if content.ip != addr.ip() || content.port.is_some_and(|port| port != addr.port()) {
            return Err(TokenError::OtherAddress { retry });
        }
        // Servers that share a key may differ in their clocks, so the future counts like the past.
        if now.abs_diff(content.issued) > lifetime.as_secs() {
            return Err(TokenError::Expired { retry });
        }
        Ok(content.token)
    }

    /// Keeps RFC 9000 §8.1.3, §8.1.4.
    fn seal(&self, rng: &mut Rng, mut content: Content, out: &mut Vec<u8>) {
        let mut header = [0; HEADER_LEN];
        rng.fill(&mut header);
        header[0] = self.generation;
        let tag = aead(&self.current, &header).and_then(|aead| {
            aead.seal_in_place_separate_tag(nonce(), Aad::from(header), &mut content)
                .ok()
        });
        // Always there: the key has the length that AES-256 takes, and the content is short.
        if let Some(tag) = tag {
            out.extend_from_slice(&header);
            out.extend_from_slice(&content);
            out.extend_from_slice(tag.as_ref());
        }
    }

    /// Keeps RFC 9000 §8.1.4.
    fn unseal<'a>(&self, token: &[u8], buf: &'a mut Content) -> Option<&'a [u8]> {
        if token.len() > MAX_TOKEN_LEN {
            return None;
        }
        let (header, sealed) = token.split_first_chunk::<HEADER_LEN>()?;
        let key = if header[0] == self.generation {
            &self.current
        } else if header[0] == self.generation.wrapping_sub(1) {
            self.previous.as_ref()?
        } else {
            return None;
        };
        buf.extend_from_slice(sealed);
        let content = aead(key, header)?
            .open_in_place(nonce(), Aad::from(header), buf)
            .ok()?;
        Some(content)
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey(generation {})", self.generation)
    }
}

/// The key of one token: its salt under the secret.
fn aead(secret: &hmac::Key, header: &[u8; HEADER_LEN]) -> Option<LessSafeKey> {
    let key = hmac::sign(secret, header);
    UnboundKey::new(&AES_256_GCM, key.as_ref())
        .ok()
        .map(LessSafeKey::new)
}

/// The nonce of a key that seals once.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// Room for any token or its plaintext, in place.
type Content = SmallVec<[u8; 128]>;
const _: () = assert!(MAX_TOKEN_LEN <= 128);

/// What every token starts with: kind, time, IP.
/// Keeps RFC 9000 §8.1.4.
fn content(kind: u8, now: u64, ip: IpAddr) -> Content {
    let mut out = Content::new();
    out.push(kind);
    out.extend_from_slice(&now.to_be_bytes());
    match ip {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out
}

/// A token's plaintext, read.
struct Claims {
    issued: u64,
    ip: IpAddr,
    port: Option<u16>,
    token: Token,
}

impl Claims {
    /// Keeps RFC 9000 §8.1.1.
    fn parse(content: &[u8]) -> Result<Self, Truncated> {
        let mut r = Reader::new(content);
        let kind = r.u8()?;
        let issued = u64::from_be_bytes(r.array()?);
        let ip = match r.u8()? {
            4 => IpAddr::V4(Ipv4Addr::from(r.array::<4>()?)),
            _ => IpAddr::V6(Ipv6Addr::from(r.array::<16>()?)),
        };
        let (port, token) = if kind == KIND_RETRY {
            let port = r.u16()?;
            let odcid = Self::cid(&mut r)?;
            let retry_scid = Self::cid(&mut r)?;
            (Some(port), Token::Retry { odcid, retry_scid })
        } else {
            (None, Token::NewToken { issued })
        };
        Ok(Self {
            issued,
            ip,
            port,
            token,
        })
    }

    fn cid(r: &mut Reader<'_>) -> Result<ConnectionId, Truncated> {
        let len = usize::from(r.u8()?);
        ConnectionId::new(r.bytes(len)?).ok_or(Truncated)
    }
}

#[cfg(test)]
mod tests;
