//! NEW_TOKEN frames (RFC 9000 §8.1.3, §19.7): a server's token for the next connection, repeated
//! until it is acknowledged; a client's, on their way to the endpoint's store.
//!
//! The endpoint makes tokens and hands them to the store; the connection says when one is due and
//! carries it.

use super::Connection;
use super::endpoint::{ConnId, Endpoint};
use super::space::SentFrame;
use crate::base::{BoundedQueue, limits};
use crate::wire::{Side, TransportError, Version, Writer, frame};
use std::borrow::Cow;
use std::iter;
use std::net::IpAddr;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct NewTokens {
    /// The address that the last token was made for.
    issued_for: Option<IpAddr>,
    /// The newest token, until it is acknowledged.
    token: Vec<u8>,
    /// Which one it is.
    seq: u64,
    /// It is to be sent.
    queued: bool,
    /// What came and is not yet in the store.
    received: Option<Box<BoundedQueue<Vec<u8>>>>,
    server_name: Box<str>,
}

impl NewTokens {
    /// Gives back memory that is not in use.
    pub(super) fn rest(&mut self) {
        if !self.has_received() {
            self.received = None;
        }
        self.token.shrink_to(0);
    }

    #[inline]
    fn has_received(&self) -> bool {
        self.received.as_ref().is_some_and(|q| !q.is_empty())
    }

    #[inline]
    pub(super) fn wants_to_send(&self) -> bool {
        self.queued
    }

    /// Writes the frame, if one is to be sent and fits.
    #[inline]
    pub(super) fn write(&mut self, w: &mut Writer<'_>, scratch: &mut Vec<SentFrame>) {
        if self.queued && w.remaining() >= frame::new_token_size(self.token.len()) {
            frame::write_new_token(w, &self.token);
            self.queued = false;
            scratch.push(SentFrame::NewToken { seq: self.seq });
        }
    }

    pub(super) fn on_acked(&mut self, seq: u64) {
        if seq == self.seq {
            self.token = Vec::new();
            self.queued = false;
        }
    }

    /// One for an address that the client has left is of no use any more.
    pub(super) fn on_lost(&mut self, seq: u64) {
        self.queued |= seq == self.seq && !self.token.is_empty();
    }
}

/// The name under which a server's tokens of a version are kept: a token of one version is none
/// for another (RFC 9369 §5). No server's name has a space in it.
pub(super) fn tokens_of(server: &str, version: Version) -> Cow<'_, str> {
    match version {
        Version::V1 => Cow::Borrowed(server),
        Version::V2 => Cow::Owned(format!("{server} v2")),
    }
}

impl Endpoint {
    /// Makes the token that a connection's client is to have; keeps those that its server gave.
    pub(super) fn pass_tokens(&mut self, id: ConnId) {
        let seconds = self.clock.as_nanos() / 1_000_000_000;
        let Some(conn) = self.connection(id) else {
            return;
        };
        let version = conn.version();
        if let Some(ip) = conn.token_wanted() {
            let mut token = Vec::with_capacity(64);
            let key = self.token_key(version).clone();
            key.new_token(&mut self.rng, ip, seconds, &mut token);
            if let Some(conn) = self.connection(id) {
                conn.issue_token(ip, token);
            }
        } else if conn.new_tokens.has_received() {
            let store = self.tokens.clone();
            if let Some(conn) = self.connection(id) {
                let tokens = &mut conn.new_tokens;
                let name = tokens_of(&tokens.server_name, version);
                for token in tokens
                    .received
                    .iter_mut()
                    .flat_map(|q| iter::from_fn(|| q.pop()))
                {
                    store.insert(&name, token);
                }
            }
        }
    }
}

impl Connection {
    /// The address for which the peer is to get a token; give it to [`Connection::issue_token`].
    pub(crate) fn token_wanted(&self) -> Option<IpAddr> {
        if self.side == Side::Client || !self.config.new_tokens || !self.state.is_confirmed() {
            return None;
        }
        let path = self.main_path();
        let ip = path.tuple.remote.ip();
        let wanted = self.new_tokens.issued_for != Some(ip) && path.validation.is_validated();
        wanted.then_some(ip)
    }

    /// Whether the endpoint is to make a token, or to keep some.
    #[inline]
    pub(super) fn wants_tokens_passed(&self) -> bool {
        self.new_tokens.has_received() || self.token_wanted().is_some()
    }

    /// Sends the peer a token, made for `ip`.
    pub(crate) fn issue_token(&mut self, ip: IpAddr, token: Vec<u8>) {
        let tokens = &mut self.new_tokens;
        tokens.issued_for = Some(ip);
        tokens.seq += 1;
        tokens.queued = !token.is_empty();
        tokens.token = token;
    }

    /// Whom a client connects to: its tokens are kept under that name.
    pub(super) fn set_server_name(&mut self, name: Box<str>) {
        self.new_tokens.server_name = name;
    }

    pub(super) fn on_new_token(&mut self, token: &[u8]) -> Result<(), TransportError> {
        if self.side == Side::Server {
            return Err(TransportError::protocol_violation(
                "a client sent NEW_TOKEN",
            ));
        }
        if token.is_empty() {
            return Err(TransportError::frame_encoding_error("an empty token"));
        }
        // One that leaves an Initial packet no room for its ClientHello is of no use, and nobody
        // needs more than the store takes.
        if token.len() <= limits::TOKEN_BYTES {
            let queue = || Box::new(BoundedQueue::new(limits::TOKENS_OF_SERVER));
            let received = self.new_tokens.received.get_or_insert_with(queue);
            let _ = received.push(token.to_vec());
        }
        Ok(())
    }
}
