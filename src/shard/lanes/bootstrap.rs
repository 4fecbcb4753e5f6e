//! The bootstrap as it goes: a lane's stream is read, answered and written, step by step.

use super::app::{LaneApp, LaneEnd};
use super::host::{Host, LaneShard, News};
use super::session::{Carrier, Memory, Session, State};
use crate::base::{Timestamp, limits};
use crate::rdma::bootstrap::{ALPN, BootstrapError, Message, QueueTerms, Refusal, Terms};
use crate::rdma::lane::Frame;
use crate::rdma::parts::{Parts, Plan};
use crate::rdma::quota::{Amount, Identity, Reservation};
use crate::rdma::registry::Owner;
use crate::rdma::slots::Key;
use crate::rdma::{Port, RdmaError};
use crate::shard::Context;
use crate::stream::ReadOutcome;
use crate::wire::Dir;
use std::net::IpAddr;

/// Codes with which a lane's connection is closed.
const FINISHED: u64 = 0;
const FAILED: u64 = 1;
const REFUSED: u64 = 2;
/// What a TLS configuration without the protocol's name is told.
const OTHER_PROTOCOL: &str = "TLS did not agree on the ALPN protocol corelane-rdma/1";

/// A plan as far as both ends can have it.
fn common(own: Plan, peer: &Terms) -> Plan {
    Plan {
        slot: own.slot.min(peer.slot),
        window: own.window.min(peer.window),
        operations: own.operations.min(peer.operations),
        ..own
    }
}

fn identity(certificate: Option<&[u8]>, remote: IpAddr) -> Identity {
    let mut id = Identity([0; 32]);
    match certificate {
        Some(der) => {
            let digest = ring::digest::digest(&ring::digest::SHA256, der);
            id.0.copy_from_slice(digest.as_ref());
        }
        None => {
            let (address, _) = id.0.split_at_mut(16);
            address.copy_from_slice(&crate::rdma::Gid::from(remote).0);
        }
    }
    id
}

impl<P: Port> Host<P> {
    /// Objects of a lane over a queue pair; `None` where there is no provider.
    fn parts(
        &mut self,
        plan: Plan,
        client: u64,
        reservation: &mut Option<Reservation>,
    ) -> Option<Result<Parts, RdmaError>> {
        if !self.has_device() {
            return None;
        }
        let (port, shared) = (self.port.as_mut()?, self.shared.as_ref()?);
        let owner = (&self.config.registry, Owner::Client(client));
        Some(Parts::build(port, shared, plan, owner, reservation.take()))
    }

    fn adopt(&mut self, key: Key, parts: Option<Parts>) {
        let Some(s) = self.sessions.get_mut(key) else {
            return;
        };
        if let Some(parts) = &parts {
            s.send = parts.send().map_or(Memory::None, Memory::Registered);
            s.region = parts.region().map_or(Memory::None, Memory::Registered);
            if let Some(qp) = parts.qp() {
                self.by_qp.insert(qp.id, key);
            }
        } else {
            let len = s.plan.slot as usize * s.plan.window as usize;
            s.send = Memory::Plain(vec![0; len]);
            s.region = Memory::Plain(vec![0; s.plan.region]);
        }
        s.parts = parts;
    }

    fn terms(&self, s: &Session) -> Terms {
        let port = self.port.as_ref();
        let queue = s.parts.as_ref().zip(port);
        let region = match &s.parts {
            Some(parts) => parts.region_terms(),
            None => Some(crate::rdma::bootstrap::RegionTerms {
                addr: 0,
                len: s.region.len() as u64,
                rkey: 0,
                access: s.plan.access,
            }),
        };
        Terms {
            slot: s.plan.slot,
            window: s.plan.window,
            operations: s.plan.operations,
            queue: queue.and_then(|(parts, port)| parts.queue_terms(port, s.local)),
            region,
            returns: self.config.returns.is_some(),
            splits: self.splits(),
        }
    }

    /// Whether long writes of both ends are to go packet by packet.
    pub(super) fn splits(&self) -> bool {
        self.config.splits_writes && self.port.as_ref().is_some_and(Port::splits_writes)
    }

    /// The client's first word.
    fn greet(&mut self, key: Key) {
        let client = self.config.registry.client();
        let plan = self.config.plan;
        if let Some(s) = self.sessions.get_mut(key) {
            s.state = State::Greeting;
            if s.status_only {
                s.say(&Message::StatusRequest);
                return;
            }
        }
        let (parts, why_quic) = match self.parts(plan, client, &mut None) {
            Some(Ok(parts)) => (Some(parts), None),
            Some(Err(error)) => {
                tracing::warn!(%error, "a lane goes without a queue pair");
                (None, Some(error.to_string()))
            }
            None => (None, Some("there is no RDMA at this end".into())),
        };
        if let Some(s) = self.sessions.get_mut(key) {
            s.why_quic = why_quic;
        }
        self.adopt(key, parts);
        let Some(s) = self.sessions.get(key) else {
            return;
        };
        let terms = self.terms(s);
        if let Some(s) = self.sessions.get_mut(key) {
            s.say(&Message::Hello(terms));
        }
    }

    fn refuse(&mut self, key: Key, why: Refusal) {
        self.stats.refused += 1;
        if let Some(s) = self.sessions.get_mut(key) {
            s.say(&Message::Refused(why));
            // Closing at once would take the word back. The client closes, or patience does.
            s.state = State::Left;
            self.touch(key);
        }
    }

    /// Whether a queue pair may send to where the peer says that its own is. Anywhere else than
    /// where the peer itself is, others would get what they did not ask for.
    pub(super) fn may_send_to(&self, s: &Session, queue: &QueueTerms) -> bool {
        self.config.foreign_gids || queue.gid.ip() == s.remote.ip().to_canonical()
    }

    /// Whether our device reaches the peer's, from the address that the connection has; why not.
    pub(super) fn can_reach(&self, s: &Session, queue: Option<&QueueTerms>) -> Result<(), String> {
        let queue = queue.ok_or("the client has no queue pair")?;
        let port = self.port.as_ref().filter(|_| self.has_device());
        let port = port.ok_or("there is no RDMA at this end")?;
        port.takes(queue).map_err(|e| e.to_string())?;
        let gid = port.gid_of(s.local).map(drop);
        gid.ok_or_else(|| format!("no RDMA at {}, where the client connects to", s.local))
    }

    /// A client's offer: everything is checked and reserved before anything is made.
    fn on_hello(&mut self, key: Key, peer: Terms, who: Identity) {
        if self.closing {
            return self.refuse(key, Refusal::Closing);
        }
        let plan = common(self.config.plan, &peer);
        let Some(s) = self.sessions.get(key) else {
            return;
        };
        if peer.queue.is_some_and(|q| !self.may_send_to(s, &q)) {
            tracing::warn!(client = %s.remote, "a client names another's address");
            return self.refuse(key, Refusal::Terms);
        }
        let reached = self.can_reach(s, peer.queue.as_ref());
        let wants_queue = reached.is_ok();
        let shared = self.shared.as_ref().is_none_or(|s| s.receives.is_some());
        let amount = Amount {
            queue_pairs: u64::from(wants_queue),
            bytes: plan.bytes(wants_queue && !shared) as u64,
            requests: u64::from(plan.window) + u64::from(plan.operations),
        };
        let Some(reservation) = self.config.quotas.reserve(who, amount) else {
            return self.refuse(key, Refusal::Quota);
        };
        let mut reservation = Some(reservation);
        let client = self.config.registry.client();
        let mut parts = None;
        if wants_queue {
            match self.parts(plan, client, &mut reservation) {
                Some(Ok(made)) => parts = Some(made),
                Some(Err(error)) => {
                    tracing::warn!(client, %error, "a client is refused");
                    return self.refuse(key, Refusal::Resources);
                }
                None => {}
            }
        }
        let Some(s) = self.sessions.get_mut(key) else {
            return;
        };
        s.client = client;
        s.plan = plan;
        s.reservation = reservation;
        s.why_quic = reached.err();
        let local = s.local;
        self.adopt(key, parts);
        let splits = peer.splits && self.splits();
        if let (Some(queue), Some(s), Some(port)) =
            (&peer.queue, self.sessions.get_mut(key), &mut self.port)
            && let Some(parts) = &s.parts
        {
            match parts.connect(port, local, queue, splits) {
                Ok(()) => s.carrier = Carrier::Queue,
                Err(error) => {
                    tracing::warn!(client, %error, "a client's terms cannot be met");
                    return self.refuse(key, Refusal::Terms);
                }
            }
        }
        let Some(s) = self.sessions.get(key) else {
            return;
        };
        let terms = self.terms(s);
        if let Some(s) = self.sessions.get_mut(key) {
            s.agree(peer);
            s.say(&Message::Welcome(client, terms));
        }
    }

    /// The server's answer.
    fn on_welcome(&mut self, key: Key, client: u64, peer: Terms) {
        let Some(s) = self.sessions.get_mut(key) else {
            return;
        };
        s.client = client;
        s.agree(peer);
        let (local, mut ready) = (s.local, false);
        let Some(s) = self.sessions.get(key) else {
            return;
        };
        let mut why_quic = match peer.queue {
            None => Some(format!("the server has no RDMA at {}", s.remote.ip())),
            Some(q) if !self.may_send_to(s, &q) => Some(format!(
                "the server's queue pair is at {}, its connection at {}",
                q.gid.ip(),
                s.remote.ip()
            )),
            Some(_) => None,
        };
        if !self.has_device() {
            why_quic = Some("the RDMA device of this end is not usable".into());
        }
        let queue = peer.queue.filter(|_| why_quic.is_none());
        let splits = peer.splits && self.splits();
        if let (Some(parts), Some(queue), Some(port)) = (&s.parts, queue, &mut self.port) {
            match parts.connect(port, local, &queue, splits) {
                Ok(()) => ready = true,
                Err(error) => why_quic = Some(error.to_string()),
            }
        }
        if let Some(s) = self.sessions.get_mut(key) {
            // What is missing here was known before.
            s.why_quic = s.why_quic.take().or(why_quic);
            s.say(&Message::Ready(ready));
        }
        self.settle(key, ready);
    }
}

impl<P: Port, A: LaneApp<P>> LaneShard<P, A> {
    /// Reads, answers and writes a lane's stream.
    pub(super) fn serve(&mut self, ctx: &mut Context<'_>, key: Key) {
        let now = ctx.now();
        self.arrive(ctx, key);
        self.read(ctx, key);
        self.host.pump(key);
        self.host.part_with(key, now);
        self.write(ctx, key);
    }

    /// What a lane learns of its connection.
    fn arrive(&mut self, ctx: &mut Context<'_>, key: Key) {
        let patience = self.host.config.patience;
        let Some(s) = self.host.sessions.get_mut(key) else {
            return;
        };
        let Some(conn) = s.conn.and_then(|id| ctx.connection(id)) else {
            return;
        };
        let path = conn.path();
        s.local = path.local.ip().to_canonical();
        s.remote = path.remote;
        if s.server && s.deadline == Timestamp::NEVER && s.state == State::Greeting {
            self.host.set_deadline(key, ctx.now() + patience);
        } else if s.state == State::Connecting && s.stream.is_none() {
            // Refused until the handshake is complete.
            if let Ok(stream) = conn.streams_mut().open(Dir::Bi) {
                s.stream = Some(stream);
                match conn.alpn() == Some(ALPN) {
                    true => self.host.greet(key),
                    false => self.host.misbehaved(key, OTHER_PROTOCOL.into()),
                }
            }
        }
    }

    fn read(&mut self, ctx: &mut Context<'_>, key: Key) {
        loop {
            let Some(s) = self.host.sessions.get_mut(key) else {
                return;
            };
            // What an answer would be added to must be taken first.
            if s.end.is_some() || s.backlog() > limits::LANE_BACKLOG {
                return;
            }
            let mut inbox = std::mem::take(&mut s.inbox);
            let (now, mut at) = (ctx.now(), 0);
            while let Some(bytes) = inbox.get(at..) {
                match Message::decode(bytes) {
                    Ok(None) => break,
                    Ok(Some((message, len))) => {
                        at += len;
                        self.on_bootstrap(ctx, now, key, message);
                    }
                    Err(error) => {
                        self.on_bad(key, error);
                        break;
                    }
                }
                let s = self.host.sessions.get(key);
                if s.is_none_or(|s| s.end.is_some() || s.backlog() > limits::LANE_BACKLOG) {
                    break;
                }
            }
            inbox.drain(..at.min(inbox.len()));
            let Some(s) = self.host.sessions.get_mut(key) else {
                return;
            };
            s.inbox = inbox;
            // What was left to the stream while the inbox was full.
            let (Some(conn), Some(stream)) = (s.conn, s.stream) else {
                return;
            };
            let mut more = [0; 4096];
            let connection = ctx.connection(conn);
            let read = connection.and_then(|c| c.streams_mut().read(stream, &mut more).ok());
            match read {
                Some(ReadOutcome::Data(n)) => {
                    s.inbox.extend_from_slice(more.get(..n).unwrap_or_default());
                }
                _ => return,
            }
        }
    }

    fn on_bad(&mut self, key: Key, error: BootstrapError) {
        let greeting = |s: &Session| s.server && s.state == State::Greeting;
        if matches!(error, BootstrapError::Version(_))
            && self.host.sessions.get(key).is_some_and(greeting)
        {
            self.host.stats.misbehaved += 1;
            return self.host.refuse(key, Refusal::Version);
        }
        self.host.misbehaved(key, error.to_string());
    }

    fn on_bootstrap(&mut self, ctx: &mut Context<'_>, now: Timestamp, key: Key, m: Message<'_>) {
        let Some(s) = self.host.sessions.get_mut(key) else {
            return;
        };
        let (server, state) = (s.server, s.state);
        let fresh = s.peer.is_none();
        if server && fresh {
            let conn = s.conn.and_then(|c| ctx.connection(c));
            if conn.is_none_or(|c| c.alpn() != Some(ALPN)) {
                return self.host.misbehaved(key, OTHER_PROTOCOL.into());
            }
        }
        match m {
            Message::Hello(terms) if server && state == State::Greeting && fresh => {
                let connection = s.conn.and_then(|c| ctx.connection(c));
                let shown =
                    connection.and_then(|c| c.session().peer_certificates()?.first().cloned());
                let who = identity(shown.as_deref(), s.remote.ip());
                self.host.on_hello(key, terms, who);
            }
            Message::Welcome(client, terms) if !server && state == State::Greeting && fresh => {
                self.host.on_welcome(key, client, terms);
            }
            Message::Refused(why) if !server && state == State::Greeting => {
                self.host.end(key, LaneEnd::Refused(why));
            }
            Message::Ready(queue) if server && state == State::Greeting && !fresh => {
                self.host.ready(key, queue);
            }
            Message::Ready(true) if server && s.early => s.early = false,
            Message::Ready(ready) if s.carrier == Carrier::Returning && (ready || server) => {
                self.host.on_return_ready(key, ready);
            }
            Message::Return(queue) if server && matches!(state, State::Open | State::Leaving) => {
                self.host.on_return(key, &queue, now);
            }
            Message::Returned(answer) if s.way.asked => self.host.on_returned(key, answer),
            Message::StatusRequest if server && state == State::Greeting && fresh => {
                let status = self.host.status();
                if let Some(s) = self.host.sessions.get_mut(key) {
                    s.say(&Message::Status(status.as_bytes()));
                }
            }
            Message::Status(json) if s.status_only => {
                let json = String::from_utf8_lossy(json).into_owned();
                s.state = State::Left;
                self.host.tell(key, News::Status(json));
                self.host.end(key, LaneEnd::Finished);
            }
            Message::Fallback(n) if matches!(state, State::Open | State::Leaving) => {
                self.host.on_fallback(key, n);
            }
            Message::Bye(n) if matches!(state, State::Open | State::Leaving) => {
                s.peer_total = Some(n);
            }
            Message::ByeAck(n) if state == State::Leaving => {
                s.peer_total = Some(n);
                s.answered = true;
            }
            Message::Frame(bytes) if matches!(state, State::Open | State::Leaving) => {
                if s.takes_by_stream(bytes) {
                    self.on_frame(now, key, Frame::parse(bytes));
                } else {
                    self.host
                        .misbehaved(key, "a frame on the wrong carrier".into());
                }
            }
            _ => self.host.misbehaved(key, "a message out of turn".into()),
        }
    }

    fn write(&mut self, ctx: &mut Context<'_>, key: Key) {
        let Some(s) = self.host.sessions.get_mut(key) else {
            return;
        };
        let Some(connection) = s.conn.and_then(|id| ctx.connection(id)) else {
            return;
        };
        if let Some(stream) = s.stream
            && s.backlog() > 0
        {
            let bytes = s.out.get(s.out_at..).unwrap_or_default();
            match connection.streams_mut().write(stream, bytes) {
                Ok(n) => s.out_at += n,
                Err(_) => s.out_at = s.out.len(),
            }
            if s.out_at == s.out.len() {
                s.out.clear();
                s.out_at = 0;
            }
        }
        if let Some(end) = &s.end {
            let (code, why) = match end {
                LaneEnd::Finished => (FINISHED, String::new()),
                LaneEnd::Refused(why) => (REFUSED, why.to_string()),
                LaneEnd::Failed(why) | LaneEnd::Lost(why) => (FAILED, why.clone()),
            };
            let now = ctx.now();
            if let Some(connection) = s.conn.and_then(|id| ctx.connection(id)) {
                connection.close(now, code, why.as_bytes());
            }
        }
    }
}
