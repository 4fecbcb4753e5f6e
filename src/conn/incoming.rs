//! Connection attempts: what a server does with an Initial packet of an unknown connection.
//!
//! Size and token are checked first, without cryptography while the endpoint is saturated; then the
//! application decides. What it accepts becomes a connection only if a packet authenticates.

use super::admission::Prefix;
use super::application::FirstFlight;
use super::endpoint::{ConnId, Endpoint};
use super::guard::PortVerdict;
use super::handshake::HandshakeIds;
use super::router::Route;
use super::space::HandshakeSpace;
use super::version::{Negotiation, Upgrade, information};
use super::{Application, Connection, ConnectionInit, params};
use crate::base::{FourTuple, RecvMeta, Timestamp, limits};
use crate::crypto::token::TokenName;
use crate::crypto::{Session, Token, TokenError, token};
use crate::path::cids::ResetToken;
use crate::wire::error::Code;
use crate::wire::{ConnectionId, PreferredAddress, Side, TransportParameters, Version};
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// A connection attempt, as the application sees it before it decides.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Incoming {
    /// The client's address; proven only if `validated`.
    pub path: FourTuple,
    /// Whether a token proved the client's address.
    pub validated: bool,
}

/// What to do with a connection attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Begin the handshake.
    Accept,
    /// Answer CONNECTION_REFUSED.
    Refuse,
    /// Ask the client to prove its address first (RFC 9000 §8.1.2); refuses one that already has.
    Retry,
    /// Say nothing.
    Ignore,
    /// Keep it until [`Endpoint::decide`] is called with the identifier that
    /// [`Application::on_held`] gets, or the handshake's deadline has passed. At most
    /// [`limits::ACCEPT_BACKLOG`] wait; while so many do, every other attempt is ignored.
    Hold,
}

/// Names a held connection attempt, and never another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IncomingId(u64);

/// An Initial packet that may begin a connection.
pub(super) struct Attempt {
    version: Version,
    dcid: ConnectionId,
    scid: ConnectionId,
    odcid: ConnectionId,
    retry_scid: Option<ConnectionId>,
    meta: RecvMeta,
    validated: bool,
    /// The Retry token that it came with.
    token: Option<TokenName>,
    /// The network that it counts for, once it costs anything.
    prefix: Option<Prefix>,
}

struct Held {
    attempt: Attempt,
    datagram: Vec<u8>,
    since: Timestamp,
}

/// Attempts that wait for the application, the oldest first.
#[derive(Default)]
pub(super) struct HeldAttempts {
    waiting: BTreeMap<u64, Held>,
    next: u64,
}

impl HeldAttempts {
    fn is_full(&self) -> bool {
        self.waiting.len() >= limits::ACCEPT_BACKLOG
    }

    fn insert(&mut self, held: Held) -> u64 {
        let id = self.next;
        self.next += 1;
        self.waiting.insert(id, held);
        id
    }
}

impl Endpoint {
    /// Keeps RFC 9000 §8.1.3.
    #[expect(clippy::too_many_arguments, reason = "the parts of one Initial packet")]
    pub(super) fn on_initial(
        &mut self,
        now: Timestamp,
        meta: RecvMeta,
        version: Version,
        dcid: ConnectionId,
        scid: ConnectionId,
        token: &[u8],
        datagram: &mut [u8],
        app: &mut dyn Application,
    ) {
        // RFC 9000 §14.1 and §7.2: smaller datagrams and shorter connection IDs begin nothing.
        let fits = datagram.len() >= limits::MIN_UDP_PAYLOAD && dcid.len() >= 8;
        if self.server.is_none() || !fits {
            self.stats.unroutable += 1;
            return;
        }
        self.expire_held(now);
        if self.half_open >= self.max_half_open || self.held.is_full() {
            // Saturated: no cryptography, no answer.
            self.stats.ignored += 1;
            return;
        }
        let mut attempt = Attempt {
            version,
            dcid,
            scid,
            odcid: dcid,
            retry_scid: None,
            meta,
            validated: false,
            token: None,
            prefix: None,
        };
        // RFC 9000 §8.1.3: a bad token of NEW_TOKEN is no token; §8.1.4: then the limit holds.
        if !token.is_empty() && !self.take_token(now, &mut attempt, token) {
            self.refuse(&attempt, Code::INVALID_TOKEN);
            return;
        }
        let incoming = Incoming {
            path: meta.path,
            validated: attempt.validated,
        };
        let decision = app.on_incoming(&incoming);
        match self.admit(now, decision, &mut attempt) {
            Decision::Hold => self.hold(now, attempt, datagram, &incoming, app),
            decision => {
                self.carry_out(now, decision, attempt, datagram, app);
            }
        }
    }

    /// Whether clients at that port answer for a service that a datagram sets off.
    fn must_prove(&self, remote: SocketAddr) -> bool {
        self.transport.port_guard.verdict(remote.port()) == PortVerdict::Prove
    }

    /// Takes what a token proves; false when it is one to refuse (RFC 9000 §8.1.2).
    fn take_token(&mut self, now: Timestamp, attempt: &mut Attempt, token: &[u8]) -> bool {
        let seconds = now.as_nanos() / 1_000_000_000;
        self.stats.stateless_crypto += 1;
        match self.token_key(attempt.version).open(
            token,
            attempt.meta.path.remote,
            seconds,
            self.token_lifetimes,
        ) {
            Ok(Token::Retry { odcid, retry_scid })
                if retry_scid == attempt.dcid && self.is_unspent(token, seconds) =>
            {
                attempt.token = token::name(token);
                attempt.odcid = odcid;
                attempt.retry_scid = Some(retry_scid);
                attempt.validated = true;
            }
            Ok(Token::Retry { .. }) => {
                return false;
            }
            Ok(Token::NewToken { .. }) => attempt.validated = true,
            Err(TokenError::Expired { retry: true } | TokenError::OtherAddress { retry: true }) => {
                return false;
            }
            Err(_) => {}
        }
        true
    }

    /// RFC 9000 §8.1.4: a Retry token is good for one connection.
    fn is_unspent(&mut self, token: &[u8], seconds: u64) -> bool {
        token::name(token).is_some_and(|name| self.spent.admits(&name, seconds))
    }

    /// What a decision comes to, by the room that there is. Clients whose address is not proven are
    /// asked to prove it where there is little: the second half of the room is for those who did,
    /// and what is forged in a network's name does not count against it. Beyond that they wait.
    fn admit(&mut self, now: Timestamp, decision: Decision, attempt: &mut Attempt) -> Decision {
        match decision {
            Decision::Accept
                if !attempt.validated
                    && (self.is_half_full() || self.must_prove(attempt.meta.path.remote)) =>
            {
                Decision::Retry
            }
            Decision::Accept | Decision::Hold => {
                let (remote, proven) = (attempt.meta.path.remote, attempt.validated);
                attempt.prefix = self.admission.begin(now, remote.ip(), proven);
                if attempt.prefix.is_some() {
                    return decision;
                }
                self.stats.prefix_capped += 1;
                if attempt.validated {
                    Decision::Ignore
                } else {
                    Decision::Retry
                }
            }
            other => other,
        }
    }

    fn is_half_full(&self) -> bool {
        self.half_open >= self.max_half_open.div_ceil(2)
    }

    fn hold(
        &mut self,
        now: Timestamp,
        attempt: Attempt,
        datagram: &[u8],
        incoming: &Incoming,
        app: &mut dyn Application,
    ) {
        let dcid = attempt.dcid;
        let id = self.held.insert(Held {
            attempt,
            datagram: datagram.to_vec(),
            since: now,
        });
        // The client repeats itself meanwhile; those datagrams lead nowhere until the decision.
        self.router.insert(dcid, Route::Held(id));
        app.on_held(IncomingId(id), incoming);
    }

    /// When the oldest held attempt expires.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let (_, oldest) = self.held.waiting.first_key_value()?;
        Some(oldest.since + self.transport.handshake_deadline)
    }

    /// Forgets held attempts that nobody decided about in the time that a handshake has. Whoever
    /// decides later is told that no connection came of it.
    pub fn expire_held(&mut self, now: Timestamp) {
        while self.poll_timeout().is_some_and(|at| at <= now)
            && let Some((id, held)) = self.held.waiting.pop_first()
        {
            self.router.remove(&held.attempt.dcid, Route::Held(id));
            self.admission.end(held.attempt.prefix);
            self.stats.held_expired += 1;
        }
    }

    /// Decides about a held connection attempt; `None` when no connection came of it.
    pub fn decide(
        &mut self,
        now: Timestamp,
        id: IncomingId,
        decision: Decision,
        app: &mut dyn Application,
    ) -> Option<ConnId> {
        let Held {
            attempt,
            mut datagram,
            ..
        } = self.held.waiting.remove(&id.0)?;
        self.router.remove(&attempt.dcid, Route::Held(id.0));
        self.carry_out(now, decision, attempt, &mut datagram, app)
    }

    fn carry_out(
        &mut self,
        now: Timestamp,
        decision: Decision,
        attempt: Attempt,
        datagram: &mut [u8],
        app: &mut dyn Application,
    ) -> Option<ConnId> {
        if decision != Decision::Accept {
            self.ahead.forget(&attempt.dcid);
        }
        let prefix = attempt.prefix;
        match decision {
            Decision::Accept => {
                let id = self.accept(now, attempt, datagram, app);
                match id {
                    Some(id) => self.count_for(id, prefix),
                    None => self.admission.end(prefix),
                }
                return id;
            }
            Decision::Retry if attempt.retry_scid.is_none() => self.send_retry(now, &attempt),
            Decision::Refuse | Decision::Retry => {
                self.refuse(&attempt, Code::CONNECTION_REFUSED);
            }
            Decision::Ignore | Decision::Hold => self.stats.ignored += 1,
        }
        self.admission.end(prefix);
        None
    }

    /// Keeps RFC 9000 §8.1.4.
    fn accept(
        &mut self,
        now: Timestamp,
        attempt: Attempt,
        datagram: &mut [u8],
        app: &mut dyn Application,
    ) -> Option<ConnId> {
        let local_scid = self.fresh_cid();
        let mut params = params::local(&self.transport, local_scid);
        params.active_connection_id_limit = limits::ACTIVE_CIDS as u64;
        params.original_destination_connection_id = Some(attempt.odcid);
        params.retry_source_connection_id = attempt.retry_scid;
        params.stateless_reset_token = Some(self.reset_key.reset_token(&local_scid));
        let second = self.preferred_cid(&mut params);
        let (version, spoken) = (attempt.version, self.transport.spoken());
        params.version_information = Some(information(&spoken, version));
        let encoded = self.encode(&params, Side::Server);
        self.handshake_trains += 1;
        let (tls, suite) = self.server.as_ref()?;
        let session = Session::server_of(version, tls.of(version), encoded).ok()?;
        self.stats.stateless_crypto += 1;
        let keys = suite.keys(version.number(), attempt.dcid.as_slice(), Side::Server)?;
        let upgrade = Upgrade::new(&self.transport, version, |v| tls.of(v), &params);
        let ids = HandshakeIds::new(
            local_scid,
            attempt.odcid,
            Some(attempt.scid),
            attempt.retry_scid,
            Negotiation::server(version, spoken, upgrade),
        );
        let init = ConnectionInit {
            side: Side::Server,
            config: self.transport.clone(),
            session,
            ids,
            socket: attempt.meta.socket,
            tuple: attempt.meta.path,
            rng: self.rng.fork(),
        };
        let mut conn = Box::new(Connection::new(now, init, HandshakeSpace::new(keys)));
        if attempt.validated {
            conn.set_address_validated();
        }
        let mut cids = SmallVec::<[ConnectionId; 2]>::from_slice(&[local_scid]);
        if let Some((cid, token)) = second {
            conn.set_preferred_cid(cid, token);
            cids.push(cid);
        }
        let id = self.add(conn, &cids, Some(attempt.dcid));
        let meta = attempt.meta;
        let conn = self.connection(id)?;
        let mut sink = FirstFlight::new(app, id);
        conn.handle_train(now, &meta, datagram, &mut sink);
        if conn.stats().packets_received == 0 {
            // Not one authentic packet: no connection, whatever the header said.
            self.remove(id);
            self.stats.unroutable += 1;
            return None;
        }
        while let Some((meta, mut bytes)) = self.ahead.take(&attempt.dcid) {
            if let Some(conn) = self.connection(id) {
                conn.handle_train(now, &meta, &mut bytes, &mut sink);
            }
        }
        sink.tell();
        if let Some(token) = attempt.token {
            self.spent.spend(token, now.as_nanos() / 1_000_000_000);
        }
        self.stats.accepted += 1;
        Some(id)
    }

    /// Names the preferred address, where there is one, with a connection ID for it
    /// (RFC 9000 §9.6.1, §5.1.1). Without connection IDs of ours there can be none (§18.2).
    fn preferred_cid(
        &mut self,
        params: &mut TransportParameters,
    ) -> Option<(ConnectionId, ResetToken)> {
        let preferred = self.transport.preferred_address;
        if preferred.is_empty() || self.cids.is_empty() {
            return None;
        }
        let cid = self.fresh_cid();
        let reset_token = self.reset_key.reset_token(&cid);
        params.preferred_address = Some(PreferredAddress {
            v4: preferred.v4,
            v6: preferred.v6,
            cid,
            reset_token,
        });
        Some((cid, reset_token))
    }

    fn refuse(&mut self, attempt: &Attempt, code: Code) {
        let Some((_, suite)) = &self.server else {
            return;
        };
        let number = attempt.version.number();
        let Some(keys) = suite.keys(number, attempt.dcid.as_slice(), Side::Server) else {
            return;
        };
        self.stats.refused += 1;
        self.stats.stateless_crypto += 1;
        self.stateless.refuse(
            &attempt.meta,
            attempt.version,
            &attempt.dcid,
            &attempt.scid,
            &keys.local,
            code,
        );
    }

    fn send_retry(&mut self, now: Timestamp, attempt: &Attempt) {
        let scid = self.fresh_cid();
        let mut token = Vec::with_capacity(96);
        let key = self.token_key(attempt.version).clone();
        key.retry_token(
            &mut self.rng,
            attempt.meta.path.remote,
            &attempt.dcid,
            &scid,
            now.as_nanos() / 1_000_000_000,
            &mut token,
        );
        self.stats.retries += 1;
        self.stats.stateless_crypto += 1;
        self.stateless.retry(
            &attempt.meta,
            attempt.version,
            &attempt.dcid,
            &attempt.scid,
            &scid,
            &token,
        );
    }
}
