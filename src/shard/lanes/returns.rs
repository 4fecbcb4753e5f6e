//! The way back: a lane that left its queue pair for its stream gets another.
//!
//! The client asks, after a wait that doubles. Each end makes a queue pair in what the lane still
//! has of memory, and is charged for. Three words on the stream then say where messages change
//! over: behind the server's terms no message of its own follows there, behind the client's word
//! that it is ready none of the client's, and the server's word that it heard that lets the client
//! go on. Who has spoken pauses, and nobody reads the queue pair before the stream: nothing is
//! overtaken. What fails on the way leaves the lane on its stream, or has it leave the new queue
//! pair as it left the old one.

use super::host::{Host, News};
use super::session::{Carrier, State};
use crate::base::{Timestamp, limits};
use crate::rdma::bootstrap::{Message, QueueTerms};
use crate::rdma::registry::Owner;
use crate::rdma::slots::Key;
use crate::rdma::{Port, RdmaError};
use std::time::Duration;

/// How a client's lane tries to come back to a queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Returns {
    /// How long after it left; each further try waits twice as long. At least 100 ms.
    pub first: Duration,
    /// The longest wait. A queue pair that lasted so long was a good one: tries count anew.
    pub most: Duration,
    /// Tries before the lane stays on its stream.
    pub tries: u32,
}

impl Default for Returns {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            most: Duration::from_secs(30),
            tries: 16,
        }
    }
}

impl Returns {
    /// How long to wait after so many tries.
    fn wait(&self, tries: u32) -> Duration {
        let factor = 1u32.checked_shl(tries).unwrap_or(u32::MAX);
        let wait = self.first.saturating_mul(factor).min(self.most);
        wait.max(limits::LANE_RETURN_EVERY)
    }
}

/// How far a lane is on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// At a client: the server's answer is waited for.
    pub asked: bool,
    /// The new queue pair failed before both ends used it.
    pub broken: bool,
    /// At a client: when to ask.
    pub at: Timestamp,
    /// Tries since a queue pair lasted.
    pub tries: u32,
    /// Since when there is a queue pair, or was.
    pub since: Timestamp,
    /// How often the lane came back.
    pub count: u32,
    /// At a server: how often the client may still ask, and when that was counted.
    allowance: (u32, Timestamp),
}

impl Way {
    pub const fn new() -> Self {
        Self {
            asked: false,
            broken: false,
            at: Timestamp::NEVER,
            tries: 0,
            since: Timestamp::ZERO,
            count: 0,
            allowance: (limits::LANE_RETURNS, Timestamp::ZERO),
        }
    }

    /// Takes one of a client's questions into account; false when it asks too often.
    fn allow(&mut self, now: Timestamp) -> bool {
        let (left, counted) = self.allowance;
        let passed = (now - counted).as_millis() / limits::LANE_RETURN_EVERY.as_millis().max(1);
        let more = u32::try_from(passed).unwrap_or(u32::MAX);
        let left = left.saturating_add(more).min(limits::LANE_RETURNS);
        let counted = if more > 0 { now } else { counted };
        self.allowance = (left.saturating_sub(1), counted);
        left > 0
    }
}

impl<P: Port> Host<P> {
    /// Has the lane ask for another queue pair when it has waited, if it may.
    pub(super) fn plan_return(&mut self, key: Key) {
        let (now, lost) = (self.now, self.port.is_none());
        let (Some(returns), Some(s)) = (self.config.returns, self.sessions.get_mut(key)) else {
            return;
        };
        let theirs = s.peer.is_some_and(|peer| peer.returns);
        if s.server || !theirs || lost || s.parts.is_none() || s.state != State::Open {
            return;
        }
        if s.way.tries >= returns.tries {
            tracing::info!(client = s.client, "a lane stays on its stream");
            return;
        }
        let at = now + returns.wait(s.way.tries);
        s.way.tries += 1;
        s.way.at = at;
        self.returns.insert((at, key));
    }

    /// The queue pair was left; one that lasted forgives the tries before it.
    pub(super) fn on_left(&mut self, key: Key) {
        let now = self.now;
        if let (Some(returns), Some(s)) = (self.config.returns, self.sessions.get_mut(key))
            && s.way.since + returns.most <= now
        {
            s.way.tries = 0;
        }
        self.plan_return(key);
    }

    /// Lanes whose wait is over ask.
    pub(super) fn ask_due(&mut self, now: Timestamp) {
        while let Some(&(at, key)) = self.returns.first()
            && at <= now
        {
            self.returns.pop_first();
            if let Some(s) = self.sessions.get_mut(key) {
                s.way.at = Timestamp::NEVER;
                self.ask(key, now);
            }
        }
    }

    fn ask(&mut self, key: Key, now: Timestamp) {
        let patience = self.config.patience;
        let Some(s) = self.sessions.get(key) else {
            return;
        };
        let free = s.carrier == Carrier::Stream && !s.way.asked && s.peer_total.is_none();
        if !free || s.is_open().is_err() {
            return;
        }
        match self.make_queue(key) {
            Ok(terms) => {
                if let Some(s) = self.sessions.get_mut(key) {
                    (s.way.asked, s.way.broken) = (true, false);
                    s.say(&Message::Return(terms));
                    self.set_deadline(key, now + patience);
                    self.touch(key);
                }
            }
            Err(error) => {
                tracing::info!(%error, "a lane cannot come back to a queue pair yet");
                self.plan_return(key);
            }
        }
    }

    /// Makes another queue pair; nothing is left of it where a step fails.
    fn make_queue(&mut self, key: Key) -> Result<QueueTerms, RdmaError> {
        const NONE: RdmaError = RdmaError::Unknown("RDMA device");
        if !self.has_device() {
            return Err(NONE);
        }
        let (Some(port), Some(shared)) = (&mut self.port, &self.shared) else {
            return Err(NONE);
        };
        let Some(s) = self.sessions.get_mut(key) else {
            return Err(NONE);
        };
        let (client, local) = (s.client, s.local);
        let parts = s.parts.as_mut().ok_or(NONE)?;
        parts.renew(port, shared, (&self.config.registry, Owner::Client(client)))?;
        let (qp, terms) = (parts.qp(), parts.queue_terms(port, local));
        let (Some(qp), Some(terms)) = (qp, terms) else {
            parts.drop_queue(port);
            return Err(RdmaError::NoGid { index: 0 });
        };
        self.by_qp.insert(qp.id, key);
        Ok(terms)
    }

    /// A queue pair that carried nothing goes.
    fn drop_new_queue(&mut self, key: Key) {
        if let Some(s) = self.sessions.get_mut(key)
            && let (Some(parts), Some(port)) = (&mut s.parts, &mut self.port)
        {
            if let Some(qp) = parts.qp() {
                self.by_qp.remove(qp.id);
            }
            parts.drop_queue(port);
        }
    }

    /// No step is waited for any more. A goodbye keeps its own deadline.
    fn is_done_waiting(&mut self, key: Key) {
        let s = self.sessions.get(key);
        if s.is_some_and(|s| s.state == State::Open && !s.acked_bye) {
            self.set_deadline(key, Timestamp::NEVER);
        }
    }

    /// At a server: a client's lane wants another queue pair.
    pub(super) fn on_return(&mut self, key: Key, queue: &QueueTerms, now: Timestamp) {
        let (patience, returns) = (self.config.patience, self.config.returns);
        let Some(s) = self.sessions.get_mut(key) else {
            return;
        };
        if s.carrier != Carrier::Stream || !s.way.allow(now) {
            return self.misbehaved(key, "the peer asks too often for a queue pair".into());
        }
        let stays = returns.is_none() || s.state != State::Open || s.peer_total.is_some();
        let Some(s) = self.sessions.get(key).filter(|_| !stays) else {
            return self.refuse_return(key, "the lane ends, or is to stay on its stream");
        };
        let whole = s.parts.as_ref().is_some_and(|p| p.qp().is_none());
        if !whole || !self.may_send_to(s, queue) {
            return self.refuse_return(key, "it had no queue pair, or was at another address");
        }
        if let Err(why) = self.can_reach(s, Some(queue)) {
            return self.refuse_return(key, &why);
        }
        let made = self.make_queue(key);
        let connected = made.and_then(|terms| self.connect_queue(key, queue).map(|()| terms));
        match (connected, self.sessions.get_mut(key)) {
            (Ok(terms), Some(s)) => {
                (s.carrier, s.way.broken) = (Carrier::Returning, false);
                s.say(&Message::Returned(Some(terms)));
                self.set_deadline(key, now + patience);
                self.touch(key);
            }
            (Err(error), _) => {
                self.drop_new_queue(key);
                self.refuse_return(key, &error.to_string());
            }
            (Ok(_), None) => {}
        }
    }

    fn refuse_return(&mut self, key: Key, why: &str) {
        if let Some(s) = self.sessions.get_mut(key) {
            tracing::info!(client = s.client, why, "a lane gets no other queue pair");
            s.say(&Message::Returned(None));
            self.touch(key);
        }
    }

    fn connect_queue(&mut self, key: Key, queue: &QueueTerms) -> Result<(), RdmaError> {
        const NONE: RdmaError = RdmaError::Unknown("queue pair");
        let splits = self.splits();
        let (Some(s), Some(port)) = (self.sessions.get_mut(key), &mut self.port) else {
            return Err(NONE);
        };
        let parts = s.parts.as_ref().ok_or(NONE)?;
        let splits = splits && s.peer.as_ref().is_some_and(|peer| peer.splits);
        parts.connect(port, s.local, queue, splits)?;
        if let Some(peer) = &mut s.peer {
            peer.queue = Some(*queue);
        }
        Ok(())
    }

    /// At a client: the server's answer. All that it sent by the stream was read before.
    pub(super) fn on_returned(&mut self, key: Key, answer: Option<QueueTerms>) {
        let Some(s) = self.sessions.get_mut(key) else {
            return;
        };
        s.way.asked = false;
        let broken = s.way.broken || !self.has_device();
        let mut ready = false;
        if let (Some(queue), Some(s)) = (answer, self.sessions.get(key))
            && !broken
            && self.may_send_to(s, &queue)
        {
            let connected = self.connect_queue(key, &queue);
            ready = connected.is_ok();
        }
        if answer.is_some()
            && let Some(s) = self.sessions.get_mut(key)
        {
            s.say(&Message::Ready(ready));
            if ready {
                s.carrier = Carrier::Returning;
            }
            self.touch(key);
        }
        if ready {
            return;
        }
        self.drop_new_queue(key);
        self.is_done_waiting(key);
        self.plan_return(key);
    }

    /// The other end's word that it is ready, or at a server that it is not.
    pub(super) fn on_return_ready(&mut self, key: Key, ready: bool) {
        let Some(s) = self.sessions.get_mut(key) else {
            return;
        };
        if !ready {
            s.carrier = Carrier::Stream;
            self.drop_new_queue(key);
            self.is_done_waiting(key);
            return self.pump(key);
        }
        // The peer answered each before it said that it is ready.
        if s.streamed > 0 {
            return self.misbehaved(key, "an operation without its answer".into());
        }
        if s.server {
            s.say(&Message::Ready(true));
        }
        s.carrier = Carrier::Queue;
        (s.posted, s.completed, s.unposted) = (0, 0, s.ops.len());
        (s.told_fallback, s.peer_fallback) = (false, None);
        (s.way.since, s.way.count) = (self.now, s.way.count.saturating_add(1));
        let broken = std::mem::take(&mut s.way.broken);
        tracing::info!(client = s.client, "a lane is back on a queue pair");
        self.stats.returned += 1;
        self.is_done_waiting(key);
        self.touch(key);
        self.tell(key, News::Return);
        if broken {
            self.fail_over(key, "the new queue pair failed");
        } else {
            self.pump(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let returns = Returns::default();
        let waits: Vec<u64> = (0..7).map(|n| returns.wait(n).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(returns.wait(u32::MAX), returns.most);
        let hasty = Returns {
            first: Duration::ZERO,
            ..returns
        };
        assert_eq!(hasty.wait(3), limits::LANE_RETURN_EVERY);
    }

    #[test]
    fn who_asks_again_and_again_is_found_out_and_who_waits_is_not() {
        let mut way = Way::new();
        let mut now = Timestamp::ZERO;
        for _ in 0..limits::LANE_RETURNS {
            assert!(way.allow(now));
        }
        assert!(!way.allow(now));
        for _ in 0..100 {
            now += limits::LANE_RETURN_EVERY;
            assert!(way.allow(now));
        }
        assert!(!way.allow(now));
        now += limits::LANE_RETURN_EVERY * 1000;
        let often = (0..1000).take_while(|_| way.allow(now)).count();
        assert_eq!(often, limits::LANE_RETURNS as usize);
    }
}
