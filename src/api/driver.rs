//! The application on each shard behind the async face: takes what handles ask for to the shard's
//! connections, and what the connections tell to the handles.
//!
//! It runs on the shard's thread, so it never waits: queues to handles have windows and what
//! exceeds them stays in the connection, where flow control holds the peer.

mod conn;
mod moves;
mod paths;
mod stream;

use super::error::{ConnectError, MigrationError};
use super::shared::{Attempt, Command, Held, Hub, Link, OtherDatagram, Ticket, Verdict};
use crate::base::{FourTuple, RecvMeta, SocketId, Timestamp};
use crate::conn::incoming::{Decision, Incoming, IncomingId};
use crate::conn::{ConnId, ConnectionError, Event};
use crate::shard::auto::AutoPaths;
use crate::shard::demux::Outbox;
use crate::shard::{Context, ShardApp};
use crate::stream::{Streams, Taken};
use crate::wire::StreamId;
use bytes::Bytes;
use conn::ConnDriver;
use moves::Added;
use paths::Opening;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use stream::Block;

/// How often closed connections are looked for whether they are gone, which takes three PTOs.
const SCAN: Duration = Duration::from_millis(5);

/// The application on one shard.
pub(super) struct Driver {
    hub: Arc<Hub>,
    link: Arc<Link>,
    /// By [`ConnId::index`].
    conns: Vec<Option<Box<ConnDriver>>>,
    /// Streams that got bytes this turn.
    dirty: Vec<(ConnId, StreamId)>,
    block: Block,
    /// Attempts that found no room in the backlog.
    surplus: Vec<IncomingId>,
    /// Connections that are closed and not gone.
    draining: Vec<(ConnId, Ticket)>,
    scan_at: Timestamp,
    /// The endpoint's close was carried out.
    closed: bool,
    added: Added,
    /// Paths to open as soon as the peer has issued what they need.
    opening: Vec<Opening>,
    /// Sockets for paths that connections open by themselves.
    auto: AutoPaths,
}

impl Driver {
    pub(super) fn new(hub: Arc<Hub>, link: Arc<Link>) -> Self {
        Self {
            hub,
            link,
            conns: Vec::new(),
            dirty: Vec::new(),
            block: Block::default(),
            surplus: Vec::new(),
            draining: Vec::new(),
            scan_at: Timestamp::ZERO,
            closed: false,
            added: Added::default(),
            opening: Vec::new(),
            auto: AutoPaths::default(),
        }
    }

    #[inline]
    fn conn(&mut self, id: ConnId) -> Option<&mut Box<ConnDriver>> {
        self.conns
            .get_mut(id.index() as usize)?
            .as_mut()
            .filter(|c| c.id == id)
    }

    fn begin(&mut self, ctx: &mut Context<'_>, id: ConnId, ticket: Ticket) {
        let index = id.index() as usize;
        if self.conns.len() <= index {
            self.conns.resize_with(index + 1, || None);
        }
        let Some(place) = self.conns.get_mut(index) else {
            return;
        };
        let driver = place.insert(Box::new(ConnDriver::new(id, ticket)));
        // It may have been abandoned already.
        let now = ctx.now();
        if let Some(conn) = ctx.connection(id) {
            driver.work(now, conn);
        }
    }

    fn connect(&mut self, ctx: &mut Context<'_>, mut attempt: Attempt) {
        let Some(ticket) = attempt.ticket.take() else {
            return;
        };
        if self.hub.is_closed() || ticket.shared.close.get().is_some() {
            return;
        }
        let begun = match self.way_to(ctx, attempt.remote) {
            Some(socket) => ctx
                .connect(
                    socket,
                    attempt.remote,
                    attempt.tls.clone(),
                    attempt.name.clone(),
                    attempt.transport.take(),
                )
                .map_err(ConnectError::from),
            None => Err(ConnectError::Family(attempt.remote)),
        };
        match begun {
            Ok(id) => self.begin(ctx, id, ticket),
            Err(e) => {
                // The one reason; dropping the ticket makes it known.
                ticket.shared.fail(e);
            }
        }
    }

    fn decide(&mut self, ctx: &mut Context<'_>, verdict: Verdict) {
        let closed = self.hub.closed.get().is_some();
        let decision = if closed {
            Decision::Refuse
        } else {
            verdict.decision
        };
        let begun = ctx.decide(verdict.id, decision);
        match (begun, verdict.ticket) {
            (Some(id), Some(ticket)) => self.begin(ctx, id, ticket),
            (None, Some(ticket)) if !closed => {
                ticket.shared.fail(ConnectError::NotAuthentic);
            }
            _ => {}
        }
    }

    /// Sends what another protocol has to say. What a socket does not take is dropped, as UDP does.
    fn send_others(&mut self, ctx: &mut Context<'_>) {
        let others = &self.link.others;
        if !others.called.swap(false, Ordering::SeqCst) {
            return;
        }
        while let Some(other) = others.queue.pop() {
            let port = other.local.port();
            let bound = |(_, addr): &&(SocketId, SocketAddr)| port == 0 || addr.port() == port;
            let socket = ctx.sockets().iter().find(bound).map(|(id, _)| *id);
            if let Some(socket) = socket {
                let path = FourTuple::new(other.local, other.remote);
                let _ = ctx.outbox().send(socket, path, &other.data);
            }
        }
    }

    /// Carries out what became of the endpoint as a whole.
    fn look(&mut self, ctx: &mut Context<'_>) {
        self.send_others(ctx);
        if let Some((code, reason)) = self.hub.closed.get()
            && !std::mem::replace(&mut self.closed, true)
        {
            let now = ctx.now();
            for id in self.conns.iter().flatten().map(|c| c.id) {
                if let Some(conn) = ctx.connection(id) {
                    conn.close(now, *code, reason);
                }
            }
        }
        if self.hub.is_closed() {
            // Those that came in while it was being closed; dropping them refuses them.
            while let Some(held) = self.hub.backlog.0.pop() {
                drop(super::Incoming::new(held));
            }
        }
        if self.hub.abandoned.load(Ordering::SeqCst) && self.link.open.load(Ordering::SeqCst) == 0 {
            ctx.stop();
        }
    }

    /// Lets go of connections that are gone; says when to look again.
    fn scan(&mut self, ctx: &mut Context<'_>) -> Option<Timestamp> {
        let now = ctx.now();
        if !self.draining.is_empty() && now >= self.scan_at {
            self.scan_at = now + SCAN;
            let endpoint = ctx.endpoint();
            self.draining
                .retain(|(id, _)| endpoint.connection(*id).is_some());
            self.close_unused(ctx);
        }
        if self.added.look_at.is_some_and(|at| now >= at) {
            self.close_unused(ctx);
        }
        let scan = (!self.draining.is_empty()).then_some(self.scan_at);
        scan.into_iter().chain(self.added.look_at).min()
    }
}

/// The socket that reaches `remote`: one of its family, or one of IPv6 that takes both.
fn socket_for(sockets: &[(SocketId, SocketAddr)], remote: SocketAddr) -> Option<SocketId> {
    let same = sockets
        .iter()
        .find(|(_, addr)| addr.is_ipv4() == remote.is_ipv4());
    let both = || {
        let dual = |addr: &SocketAddr| addr.is_ipv6() && addr.ip().is_unspecified();
        sockets
            .iter()
            .find(|(_, addr)| remote.is_ipv4() && dual(addr))
    };
    same.or_else(both).map(|(id, _)| *id)
}

impl ShardApp for Driver {
    type Command = Command;

    #[inline]
    fn on_stream_data(
        &mut self,
        conn: ConnId,
        _: &mut Streams,
        id: StreamId,
        data: &[u8],
        fin: bool,
    ) -> Taken {
        let Self {
            conns,
            block,
            dirty,
            ..
        } = self;
        let driver = conns
            .get_mut(conn.index() as usize)
            .and_then(Option::as_mut);
        let Some(driver) = driver.filter(|c| c.id == conn) else {
            return Taken::Prefix(0);
        };
        let (taken, fresh) = driver.offer(id, block, data, fin);
        if fresh {
            dirty.push((conn, id));
        }
        taken
    }

    fn on_event(&mut self, ctx: &mut Context<'_>, conn: ConnId, event: Event) {
        self.auto.on_event(ctx, conn, &event);
        // Not through the context: the connection is having its turn to send.
        let connection = ctx.endpoint().connection(conn);
        if let Event::Closed(why) = event {
            let place = self.conns.get_mut(conn.index() as usize);
            let driver = place.and_then(|p| p.take_if(|c| c.id == conn));
            let drained = connection.as_ref().is_none_or(|c| c.is_drained());
            if let Some(driver) = driver {
                let ticket = driver.close(connection, why);
                if !drained {
                    self.draining.push((conn, ticket));
                }
            }
            self.close_unused(ctx);
        } else if let (Some(driver), Some(connection)) = (self.conn(conn), connection) {
            let moved = match &event {
                Event::Migrated(tuple) => Some((*tuple, Ok(tuple.local))),
                Event::MigrationFailed(tuple, why) => {
                    Some((*tuple, Err(MigrationError::Failed(*why))))
                }
                _ => None,
            };
            driver.on_event(connection, event);
            if let Some((tuple, outcome)) = moved {
                self.on_moved(ctx, conn, tuple, &outcome);
            }
        }
    }

    fn on_incoming(&mut self, _: &Incoming) -> Decision {
        if self.hub.is_closed() {
            return Decision::Refuse;
        }
        if self.hub.backlog.0.is_full() {
            // An answer would cost more than the question; clients ask again.
            return Decision::Ignore;
        }
        Decision::Hold
    }

    fn on_held(&mut self, id: IncomingId, incoming: &Incoming) {
        let held = Held {
            link: self.link.clone(),
            id,
            remote: incoming.path.remote,
            validated: incoming.validated,
        };
        match self.hub.backlog.0.push(held) {
            Ok(()) => self.hub.waiters.notify(),
            // Other shards were faster.
            Err(held) => self.surplus.push(held.id),
        }
    }

    fn on_other(&mut self, _: &mut Outbox, meta: &RecvMeta, datagram: &[u8]) {
        let other = OtherDatagram {
            local: meta.path.local,
            remote: meta.path.remote,
            data: Bytes::copy_from_slice(datagram),
        };
        // Nobody reads, or not fast enough: the oldest is the least use.
        let _ = self.hub.others.queue.force_push(other);
        self.hub.others.waiters.notify();
    }

    fn on_command(&mut self, ctx: &mut Context<'_>, command: Command) {
        match command {
            Command::Conn(shared) => {
                let now = ctx.now();
                if let Some(id) = shared.id.get()
                    && let Some(driver) = self.conn(*id)
                    && let Some(conn) = ctx.connection(*id)
                {
                    driver.work(now, conn);
                }
            }
            Command::Connect(attempt) => self.connect(ctx, *attempt),
            Command::Decide(verdict) => self.decide(ctx, *verdict),
            Command::Move(order) => self.begin_move(ctx, *order),
            Command::OpenPath(order) => self.open_path(ctx, *order),
            Command::Rebind(socket) => self.rebind(ctx, socket),
            Command::AddSocket(socket) => self.keep_socket(ctx, socket),
            Command::RemoveSocket(addr) => self.give_up_sockets(ctx, addr),
            Command::LocalAddresses(given) => self.auto.set_addresses(given),
            Command::Look => self.look(ctx),
        }
    }

    #[inline]
    fn wants_turn(&self) -> bool {
        self.auto.wants_turn()
    }

    fn polls(&self) -> bool {
        false
    }

    fn on_turn(&mut self, ctx: &mut Context<'_>) -> Option<Timestamp> {
        while let Some(command) = self.link.overflow.pop() {
            self.on_command(ctx, command);
        }
        while let Some((conn, stream)) = self.dirty.pop() {
            if let Some(driver) = self.conn(conn) {
                driver.flush(stream);
            }
        }
        while let Some(id) = self.surplus.pop() {
            ctx.decide(id, Decision::Ignore);
        }
        let retry = self.retry_paths(ctx);
        let auto = self.auto.turn(ctx);
        let scan = self.scan(ctx);
        scan.into_iter().chain(retry).chain(auto).min()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let open = self.conns.iter().flatten().count();
        if open > 0 {
            tracing::error!(open, "a shard ended under its connections");
        }
        // Who waits for connection attempts waits in vain from now on.
        let _ = self.hub.closed.set((0, Vec::new()));
        self.hub.waiters.notify();
        self.hub.others.waiters.notify();
        for driver in self.conns.drain(..).flatten() {
            drop(driver.close(None, ConnectionError::EndpointClosed));
        }
        while self.link.overflow.pop().is_some() {}
    }
}
