//! The lanes of a shard as their application uses them.

use super::app::{LaneError, LaneInfo, Operation, Target};
use super::board::LaneStats;
use super::board::ShardStatus;
use super::host::Host;
use super::session::{Carrier, LaneId, Session, State};
use crate::base::Timestamp;
use crate::rdma::bootstrap::Message;
use crate::rdma::lane::HEADER;
use crate::rdma::registry::Registry;
use crate::rdma::slots::Key;
use crate::rdma::{Access, DeviceAttr, Objects, Port, Usage};

/// The shard's lanes during a callback.
pub struct Lanes<'a, P: Port> {
    pub(super) now: Timestamp,
    pub(super) host: &'a mut Host<P>,
}

impl<P: Port> Lanes<'_, P> {
    /// The turn's time.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    fn open(&mut self, lane: LaneId) -> Result<&mut Session, LaneError> {
        let session = self.host.sessions.get_mut(lane.0);
        let session = session.ok_or(LaneError::Closed)?;
        session.is_open().map(|()| session)
    }

    fn begin(&mut self, target: Target, status_only: bool) -> Result<LaneId, LaneError> {
        let (at, plan) = (self.now + self.host.config.patience, self.host.config.plan);
        let mut session = Session::new(false, plan, Timestamp::NEVER);
        session.status_only = status_only;
        let inserted = self.host.sessions.insert(session);
        let key = inserted.map_err(|_| LaneError::TooMany)?;
        self.host.set_deadline(key, at);
        self.host.to_connect.push_back((key, target));
        Ok(LaneId(key))
    }

    /// Begins a lane; `on_open` or `on_closed` follows.
    ///
    /// # Errors
    /// [`LaneError::TooMany`].
    pub fn connect(&mut self, target: Target) -> Result<LaneId, LaneError> {
        self.begin(target, false)
    }

    /// Asks a server what it has; `on_status` follows, then `on_closed`.
    ///
    /// # Errors
    /// [`LaneError::TooMany`].
    pub fn status(&mut self, target: Target) -> Result<LaneId, LaneError> {
        self.begin(target, true)
    }

    /// Sends a message. What is accepted is delivered once and in order, over whatever carries it,
    /// unless the connection is lost.
    ///
    /// # Errors
    /// [`LaneError`]; nothing was accepted then.
    pub fn send(&mut self, lane: LaneId, tag: u32, data: &[u8]) -> Result<(), LaneError> {
        let host = &mut *self.host;
        let session = host.sessions.get_mut(lane.0).ok_or(LaneError::Closed)?;
        session.is_open()?;
        if data.len() > session.max_message() {
            return Err(LaneError::TooLong(session.max_message()));
        }
        if session.peer_total.is_some() {
            return Err(LaneError::Closed);
        }
        let Some(number) = session.flow.accept() else {
            session.wants_room = true;
            return Err(LaneError::Full);
        };
        let (n, at) = session.place(number);
        if let Some(message) = session.messages.get_mut(n) {
            *message = (tag, data.len() as u32);
        }
        let at = at + HEADER as u64;
        session.send.write(host.port.as_mut(), at, data);
        if !session.pump_queue(lane.0, &mut host.gathered) {
            host.pump(lane.0);
        }
        Ok(())
    }

    /// Begins a one-sided operation; `on_done` follows with `op`. The own region's bytes must stay
    /// as they are until then.
    ///
    /// # Errors
    /// [`LaneError`]; nothing was begun then.
    pub fn operate(&mut self, lane: LaneId, op: u64, what: Operation) -> Result<(), LaneError> {
        let session = self.open(lane)?;
        let (local, remote, len) = what.span();
        let peer = session
            .peer
            .and_then(|t| t.region)
            .ok_or(LaneError::Access)?;
        let needed = match what {
            Operation::Write { .. } => Access::REMOTE_WRITE,
            Operation::Read { .. } => Access::REMOTE_READ,
            _ => Access::REMOTE_ATOMIC,
        };
        if !peer.access.has(needed) {
            return Err(LaneError::Access);
        }
        if what.is_atomic() && !remote.is_multiple_of(8) {
            return Err(LaneError::Alignment(remote));
        }
        let end = remote.checked_add(len.into());
        if end.is_none_or(|end| end > peer.len) {
            return Err(LaneError::Range {
                whose: "the peer's",
                at: remote,
                len: len.into(),
                region: peer.len,
            });
        }
        if !session.region.holds(local, len as usize) {
            return Err(out_of_own(session, local, len as usize));
        }
        if session.peer_total.is_some() {
            return Err(LaneError::Closed);
        }
        let whole = session.ops.iter().filter(|p| p.last).count();
        let others = session.plan.window + session.unposted as u32;
        if whole >= session.plan.operations as usize || !session.has_slot(others) {
            session.wants_room = true;
            return Err(LaneError::Full);
        }
        self.host.begin_operation(lane.0, op, what);
        Ok(())
    }

    /// The application is done with `n` more messages for which it answered
    /// [`Consume::Later`](super::Consume::Later).
    pub fn consume(&mut self, lane: LaneId, n: u64) {
        if let Some(s) = self.host.sessions.get_mut(lane.0) {
            s.flow.consume(n);
            self.host.pump(lane.0);
        }
    }

    /// Copies out of the own region.
    ///
    /// # Errors
    /// [`LaneError::Range`], [`LaneError::Closed`].
    pub fn read(&self, lane: LaneId, at: u64, into: &mut [u8]) -> Result<(), LaneError> {
        let session = self.host.sessions.get(lane.0).ok_or(LaneError::Closed)?;
        let done = session.region.read(self.host.port.as_ref(), at, into);
        done.then_some(())
            .ok_or_else(|| out_of_own(session, at, into.len()))
    }

    /// Copies into the own region.
    ///
    /// # Errors
    /// [`LaneError::Range`], [`LaneError::Closed`].
    pub fn write(&mut self, lane: LaneId, at: u64, from: &[u8]) -> Result<(), LaneError> {
        let (sessions, port) = (&mut self.host.sessions, self.host.port.as_mut());
        let session = sessions.get_mut(lane.0).ok_or(LaneError::Closed)?;
        let done = session.region.write(port, at, from);
        done.then_some(())
            .ok_or_else(|| out_of_own(session, at, from.len()))
    }

    /// What a lane is; `None` before it is open and after its end.
    pub fn info(&self, lane: LaneId) -> Option<LaneInfo> {
        self.host.info(lane.0)
    }

    /// Why a lane opened over QUIC; `None` where it did not.
    pub fn why_quic(&self, lane: LaneId) -> Option<&str> {
        self.host.sessions.get(lane.0)?.why_quic.as_deref()
    }

    /// Messages that the lane would take now, and operations under way.
    pub fn load(&self, lane: LaneId) -> (u64, usize) {
        let session = self.host.sessions.get(lane.0);
        session.map_or((0, 0), |s| (s.flow.room(), s.ops.len()))
    }

    /// Leaves the queue pair for the stream now, as after its failure; for drills.
    pub fn fall_back(&mut self, lane: LaneId) {
        self.host.fail_over(lane.0, "asked to");
    }

    /// Ends a lane: once the peer has every accepted message and we have its, or after the
    /// configured patience. `on_closed` says which.
    pub fn close(&mut self, lane: LaneId) {
        let at = self.now + self.host.config.patience;
        self.host.leave(lane.0, at);
    }

    /// Ends all lanes like [`Lanes::close`], takes no more, and then ends the shard.
    pub fn shutdown(&mut self) {
        self.host.closing = true;
        let keys: Vec<Key> = self.host.by_conn.values().copied().collect();
        for key in keys {
            self.close(LaneId(key));
        }
    }

    /// Lanes there are, in whatever state.
    pub fn count(&self) -> usize {
        self.host.sessions.len()
    }

    /// What happened so far.
    pub fn stats(&self) -> LaneStats {
        self.host.stats
    }

    /// The registry of all objects.
    pub fn registry(&self) -> &Registry {
        &self.host.config.registry
    }

    /// The device's limits and what it has; `None` without one.
    pub fn device(&self) -> Option<(DeviceAttr, Objects)> {
        let port = self.host.port.as_ref()?;
        Some((port.query_device(), port.objects()))
    }

    /// Every shard of the engine, as each last told of itself; this one as it is now.
    pub fn shards(&mut self) -> Vec<ShardStatus> {
        self.host.publish();
        self.host.config.board.shards()
    }

    /// Every limit that clients come up against, with what is used of it.
    pub fn usage(&self) -> Vec<Usage> {
        self.host.usage()
    }

    /// The provider.
    pub fn port(&self) -> Option<&P> {
        self.host.port.as_ref()
    }
}

fn out_of_own(session: &Session, at: u64, len: usize) -> LaneError {
    LaneError::Range {
        whose: "the own",
        at,
        len: len as u64,
        region: session.region.len() as u64,
    }
}

impl<P: Port> Host<P> {
    pub(super) fn info(&self, key: Key) -> Option<LaneInfo> {
        let s = self.sessions.get(key)?;
        let peer = s.peer?;
        let rdma = s.carrier == Carrier::Queue;
        let own = s.parts.as_ref().and_then(|p| p.qp()).filter(|_| rdma);
        let theirs = peer.queue.filter(|_| rdma);
        let numbers = [
            own.map_or(0, |q| q.qpn),
            own.map_or(0, |q| q.psn),
            theirs.map_or(0, |q| q.qpn),
            theirs.map_or(0, |q| q.psn),
        ];
        Some(LaneInfo {
            client: s.client,
            peer: s.remote,
            rdma,
            numbers,
            remote_region: peer.region.map_or(0, |r| r.len),
            max_message: s.max_message(),
            returns: s.way.count,
        })
    }

    /// Says bye.
    pub(super) fn leave(&mut self, key: Key, at: Timestamp) {
        let Some(s) = self.sessions.get_mut(key) else {
            return;
        };
        match s.state {
            State::Open => {
                let total = s.flow.accepted();
                s.state = State::Leaving;
                s.say(&Message::Bye(total));
                self.set_deadline(key, at);
                self.touch(key);
            }
            State::Connecting | State::Greeting => {
                self.end(key, super::LaneEnd::Failed("it was given up".into()));
            }
            State::Leaving | State::Left => {}
        }
    }
}
