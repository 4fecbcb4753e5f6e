//! One turn of a shard, always in the same order: reap, route, hand over; drain mailboxes; timers;
//! the application; trains; submit. And what comes between turns: sleeping.

use super::app::Bridge;
use super::{Glances, Shard, ShardApp, ShardStats, Turn, timer_key};
use crate::base::limits::GATHER_PIECES;
use crate::base::{RecvMeta, Timestamp, Transmit};
use crate::conn::endpoint::Next;
use crate::conn::{ConnId, Endpoint};
use crate::io::{Arrival, IoError, TxBuffer};
use std::cell::Cell;

/// Trains that one connection sends before others have their turn.
const TRAINS_PER_TURN: usize = 4;
/// Ends of streams taken in one turn, for the same reason: what many small requests are answered
/// with leaves while the rest is still to be read.
const MESSAGES_PER_TURN: u64 = 8;
/// Runs from other shards, and commands, taken in one turn.
const MAIL_PER_TURN: usize = 256;
/// Trains of handshakes taken in one turn. Each is as much work as thousands of other packets, and
/// what it is answered with leaves at the end of the turn: the peers should not have to wait for
/// all of them, nor work only while we do not.
const HANDSHAKES_PER_TURN: u64 = 8;
/// Trains that leave by the application's own sockets in one turn.
const OWN_TRAINS_PER_TURN: usize = 16;
/// Connections served in one turn.
const CONNECTIONS_PER_TURN: usize = 1024;
/// Turns in a row that only look for something received: the rest of a turn takes longer than a
/// look, and what comes meanwhile waits for it.
const GLANCES: u32 = 7;
/// A single packet below this length is no bulk data, bytes.
const SHORT: usize = 16 * 1024;
/// The wheel's key of the application.
const APP_TIMER: u32 = 0;

impl<A: ShardApp> Shard<A> {
    /// One turn at `now`. Never blocks; bounded work.
    ///
    /// # Errors
    /// The backend is broken for good: the shard cannot go on.
    pub fn run_once(&mut self, now: Timestamp) -> Result<Turn, IoError> {
        self.stats.turns += 1;
        let mut worked = self.receive(now)?;
        for _ in 1..self.looks {
            if worked {
                break;
            }
            worked = self.receive(now)?;
        }
        if !worked && self.may_glance(now) {
            return Ok(Turn {
                next: self.glances.until,
                ..Turn::default()
            });
        }
        worked |= self.drain_mailbox(now);
        worked |= self.tell_readable(now);
        worked |= self.expire(now);
        self.endpoint.expire_held(now);
        self.app_turn(now);
        // Before the connections, which have nothing to do with it.
        worked |= self.send_own(now)?;
        let (served, left) = self.serve(now)?;
        worked |= served;
        self.send_stateless();
        self.send_others();
        self.backend.flush()?;
        let busy = self.is_busy(left);
        let wake = &self.wake;
        self.mailbox.for_each_fresh(wake);
        self.note_turn(now, worked);
        let expiring = [self.wheel.next_deadline(), self.endpoint.poll_timeout()];
        let next = expiring.into_iter().flatten().min();
        let done = !worked && !busy && !self.stop && !self.endpoint.has_ready();
        let idle = done && self.looks > 1 && !self.app.polls();
        self.glances = Glances {
            left: if idle { GLANCES } else { 0 },
            until: next,
        };
        Ok(Turn {
            worked,
            busy: busy || self.mailbox.has_mail(),
            next,
            stopped: self.stop,
        })
    }

    /// Whether a turn in which nothing came may end there, as the last whole one found nothing to
    /// do either. Only shards that never sleep have such.
    #[inline]
    fn may_glance(&mut self, now: Timestamp) -> bool {
        let Glances { left, until } = &mut self.glances;
        let quiet = *left > 0 && until.is_none_or(|at| now < at);
        if !quiet || self.mailbox.has_mail() || self.app.wants_turn() {
            return false;
        }
        *left -= 1;
        true
    }

    fn receive(&mut self, now: Timestamp) -> Result<bool, IoError> {
        let Self {
            backend,
            endpoint,
            app,
            mailbox,
            codec,
            index,
            stats,
            demux,
            outbox,
            own: own_sockets,
            ..
        } = self;
        let own = *index;
        let (mut trains, mut others, mut own_trains) = (0, 0, false);
        let (before, handshakes) = (endpoint.handshake_trains(), Cell::new(0));
        let ends = Cell::new(0);
        let mut take = |endpoint: &mut Endpoint, app: &mut A, meta: &RecvMeta, data: &mut [u8]| {
            let foreign =
                |dcid: &[u8], meta: &RecvMeta, datagram: &mut [u8]| match codec.shard_of(dcid) {
                    Some(owner) if usize::from(owner) != own => {
                        count_forward(stats, mailbox.send(owner.into(), meta, datagram));
                        true
                    }
                    _ => false,
                };
            let ends = &ends;
            endpoint.handle_train(now, meta, data, &mut Bridge { app, foreign, ends });
            handshakes.set(endpoint.handshake_trains() - before);
        };
        backend.recv_ahead(&mut |arrival| {
            let (meta, data) = match arrival {
                Arrival::Coming(data) => {
                    endpoint.expect(data);
                    return true;
                }
                Arrival::Train(meta, data) => (meta, data),
            };
            trains += 1;
            if own_sockets.contains(&meta.socket) {
                own_trains = true;
                app.on_own_train(now, meta, data);
            } else if let Some(demux) = demux {
                demux.split(meta, data, &mut |quic, meta, part| {
                    if quic {
                        take(endpoint, app, meta, part);
                    } else {
                        others += 1;
                        app.on_other(outbox, meta, part);
                    }
                });
            } else {
                take(endpoint, app, meta, data);
            }
            handshakes.get() < HANDSHAKES_PER_TURN && ends.get() < MESSAGES_PER_TURN
        })?;
        self.stats.others += others;
        self.stats.trains += trains;
        if own_trains {
            self.app.on_own_trains(now);
            self.send_own(now)?;
        }
        Ok(trains > 0)
    }

    fn drain_mailbox(&mut self, now: Timestamp) -> bool {
        let Self {
            mailbox,
            endpoint,
            app,
            sockets,
            ..
        } = self;
        let runs = mailbox.recv(MAIL_PER_TURN, &mut |meta, data| {
            // The same train, by the socket of our own that is bound to the same address,
            // or at least to the same port.
            let port = meta.path.local.port();
            let ip = meta.path.local.ip();
            let own = sockets
                .iter()
                .filter(|(_, addr)| addr.port() == port)
                .max_by_key(|(_, addr)| (addr.ip() == ip, addr.ip().is_unspecified()));
            if let Some((socket, _)) = own {
                let meta = RecvMeta {
                    socket: *socket,
                    ..*meta
                };
                let foreign = |_: &[u8], _: &RecvMeta, _: &mut [u8]| false;
                endpoint.handle_train(
                    now,
                    &meta,
                    data,
                    &mut Bridge {
                        app: &mut *app,
                        foreign,
                        ends: &Cell::new(0),
                    },
                );
            }
        });
        self.stats.adopted += runs as u64;
        let mut commands = 0;
        while commands < MAIL_PER_TURN
            && let Some(command) = self.mailbox.next_command()
        {
            commands += 1;
            self.with_context(now, |app, ctx| app.on_command(ctx, command));
        }
        self.stats.commands += commands as u64;
        runs + commands > 0
    }

    /// Tells the application of watched descriptors.
    fn tell_readable(&mut self, now: Timestamp) -> bool {
        let mut told = false;
        while let Some(id) = self.backend.next_readable() {
            told = true;
            self.with_context(now, |app, ctx| app.on_readable(ctx, id));
        }
        told
    }

    fn expire(&mut self, now: Timestamp) -> bool {
        let mut worked = false;
        while let Some(key) = self.wheel.poll(now) {
            worked = true;
            if key != APP_TIMER
                && let Some(id) = self.endpoint.id_at(key - 1)
            {
                self.endpoint.handle_timeout(now, id);
            }
        }
        worked
    }

    fn app_turn(&mut self, now: Timestamp) {
        match self.with_context(now, |app, ctx| app.on_turn(ctx)) {
            Some(at) => self.wheel.set(APP_TIMER, at),
            None => self.wheel.clear(APP_TIMER),
        }
    }

    /// Events to the application, trains to the backend. Tells whether anything was done, and what
    /// is left to do. A connection whose socket takes no more does not hold up those on others.
    fn serve(&mut self, now: Timestamp) -> Result<(bool, Left), IoError> {
        let mut served = false;
        let mut left = Left::More;
        for _ in 0..CONNECTIONS_PER_TURN {
            if left == Left::NoBuffer {
                break;
            }
            let Some(id) = self.endpoint.poll_ready() else {
                left = Left::Nothing;
                break;
            };
            self.deliver_events(now, id);
            let sent = self.send_trains(now, id)?;
            served |= !matches!(sent, Sent::Blocked | Sent::NoBuffer);
            match sent {
                Sent::All => {}
                Sent::More => self.endpoint.wake(id),
                Sent::Blocked => self.blocked.push(id),
                Sent::NoBuffer => {
                    self.blocked.push(id);
                    left = Left::NoBuffer;
                }
            }
            match self.endpoint.finish(id) {
                Next::Timeout(at) => self.wheel.set(timer_key(id), at),
                Next::Quiet | Next::Gone => self.wheel.clear(timer_key(id)),
            }
        }
        for id in &self.blocked {
            self.endpoint.wake(*id);
        }
        Ok((served, left))
    }

    /// Whether another turn could do more at once. Connections that wait for room on their socket,
    /// or for a send buffer, are woken by the backend, unless the flush has made room: no
    /// completion is left then that would end a sleep.
    fn is_busy(&mut self, left: Left) -> bool {
        let own = self.app.next_own().filter(|s| self.backend.can_send(*s));
        if self.app.wants_turn() || (own.is_some() && self.backend.tx_buffer().is_some()) {
            self.blocked.clear();
            return true;
        }
        let mut room = left == Left::More;
        for id in self.blocked.drain(..) {
            let backend = &self.backend;
            room |= self.endpoint.connection(id).is_some_and(|conn| {
                if conn.is_multipath() {
                    conn.may_resume(|s| backend.can_send(s))
                } else {
                    backend.can_send(conn.next_socket())
                }
            });
        }
        match left {
            Left::NoBuffer => self.endpoint.has_ready() && self.backend.tx_buffer().is_some(),
            Left::More | Left::Nothing => self.endpoint.has_ready() && room,
        }
    }

    fn deliver_events(&mut self, now: Timestamp, id: ConnId) {
        while let Some(event) = self.endpoint.connection(id).and_then(|c| c.poll_event()) {
            self.with_context(now, |app, ctx| app.on_event(ctx, id, event));
        }
    }

    fn send_trains(&mut self, now: Timestamp, id: ConnId) -> Result<Sent, IoError> {
        for _ in 0..TRAINS_PER_TURN {
            let Some(conn) = self.endpoint.connection(id) else {
                return Ok(Sent::All);
            };
            let backend = &self.backend;
            let several = conn.is_multipath();
            // One socket that takes nothing does not hold up the others' paths.
            let held = several && conn.hold_paths(|s| backend.can_send(s));
            if !several && !backend.can_send(conn.next_socket()) {
                return Ok(if conn.wants_to_send() {
                    Sent::Blocked
                } else {
                    Sent::All
                });
            }
            let Some(mut buffer) = self.backend.tx_buffer() else {
                return Ok(if conn.wants_to_send() {
                    Sent::NoBuffer
                } else {
                    Sent::All
                });
            };
            let Some(transmit) = conn.poll_transmit(now, &mut buffer) else {
                return Ok(if held { Sent::Blocked } else { Sent::All });
            };
            let short = transmit.segments() == 1 && transmit.len < SHORT;
            let alone = short && !self.endpoint.has_ready();
            if alone {
                // The peer may well wait for this one, and most of what is left of the turn is
                // looking for more to do. A jumbo packet is a train of its own.
                self.backend.send_now(buffer, transmit)?;
            } else {
                self.backend.send(buffer, transmit);
            }
        }
        Ok(Sent::More)
    }

    fn send_stateless(&mut self) {
        while self.endpoint.has_stateless()
            && let Some(mut buffer) = self.backend.tx_buffer()
        {
            match self.endpoint.poll_transmit(&mut buffer) {
                Some(transmit) => self.backend.send(buffer, transmit),
                None => break,
            }
        }
    }

    /// What another protocol has to say on the same sockets.
    fn send_others(&mut self) {
        while !self.outbox.is_empty()
            && let Some(mut buffer) = self.backend.tx_buffer()
        {
            if let Some(transmit) = self.outbox.poll(&mut buffer) {
                self.backend.send(buffer, transmit);
            }
        }
    }

    /// Trains of the application's own sockets. Whether there were any.
    fn send_own(&mut self, now: Timestamp) -> Result<bool, IoError> {
        for sent in 0..OWN_TRAINS_PER_TURN {
            let next = self.app.next_own().filter(|s| self.backend.can_send(*s));
            let buffer = next.and_then(|_| self.backend.tx_buffer());
            let train = buffer.and_then(|mut b| Some((self.app.poll_own(now, &mut b)?, b)));
            let Some((transmit, buffer)) = train else {
                if sent > 0 {
                    self.backend.flush()?;
                }
                return Ok(sent > 0);
            };
            let short = transmit.segments() == 1 && transmit.len < SHORT;
            if self.app.own_piece(0).is_some() {
                self.send_gathered(buffer, transmit);
            } else if sent == 0 && short {
                // As with connections: the peer may well wait for it.
                self.backend.send_now(buffer, transmit)?;
            } else {
                self.backend.send(buffer, transmit);
            }
        }
        self.backend.flush()?;
        Ok(true)
    }

    /// Sends a train of which the application has pieces.
    fn send_gathered(&mut self, buffer: TxBuffer, transmit: Transmit) {
        let mut pieces = [(0, [].as_slice()); GATHER_PIECES];
        let mut count = 0;
        for place in &mut pieces {
            let Some(piece) = self.app.own_piece(count) else {
                break;
            };
            *place = piece;
            count += 1;
        }
        let pieces = pieces.get(..count).unwrap_or_default();
        self.backend.send_gathered(buffer, transmit, pieces);
    }

    /// Sleeps until something arrives, `until` passes or another thread calls. Returns early when
    /// something came in between.
    ///
    /// # Errors
    /// The backend is broken for good.
    pub fn park(&mut self, now: Timestamp, until: Option<Timestamp>) -> Result<(), IoError> {
        if !self.app.may_sleep() {
            return Ok(());
        }
        self.stats.parks += 1;
        let until = self.publish_before_sleep(now, until);
        self.backend.wait(until.map(|at| at - now))
    }
}

/// How a connection's turn to send ended.
enum Sent {
    All,
    More,
    /// Its socket takes no more for now.
    Blocked,
    /// All send buffers are in use.
    NoBuffer,
}

/// What a turn left of the connections with something to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    /// None but those whose sockets take no more.
    Nothing,
    /// Some that were not looked at, or want more.
    More,
    /// Some that need a send buffer.
    NoBuffer,
}

fn count_forward(stats: &mut ShardStats, taken: bool) {
    if taken {
        stats.forwarded += 1;
    } else {
        stats.forward_dropped += 1;
    }
}

#[cfg(test)]
mod tests;
