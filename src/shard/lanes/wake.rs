//! A device that moves its own packets: what wakes the shard for it, and what it has to say.
//!
//! While the shard turns, its completion queue is polled each turn and nothing is armed. Before it
//! sleeps the queue is armed, and one more turn polls it: what came before does not tell. Events
//! are read when their descriptors say so, and now and then by a shard that never sleeps.

use super::app::LaneApp;
use super::handle::Lanes;
use super::host::{Host, LaneShard};
use crate::base::Timestamp;
use crate::io::{IoError, WatchId};
use crate::rdma::slots::Key;
use crate::rdma::{AsyncEvent, Port, WakeFor};
use crate::shard::Context;
use std::time::Duration;

/// How often a shard that is awake looks for events: each look is a few system calls.
const LOOK: Duration = Duration::from_millis(10);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Wakes {
    watched: Vec<(WatchId, WakeFor)>,
    /// The next completion ends a sleep.
    armed: bool,
    /// The last poll found something: look again before sleeping.
    found: bool,
    /// When to look for events; at once after one was told.
    look: Timestamp,
    /// The port is down: queue pairs wait for it to no end.
    down: bool,
    /// The device, or the completion queue, has failed for good.
    lost: bool,
}

impl Wakes {
    pub fn new() -> Self {
        Self {
            watched: Vec::new(),
            armed: false,
            found: false,
            look: Timestamp::ZERO,
            down: false,
            lost: false,
        }
    }

    /// Whether there is more to do before a sleep.
    pub fn found(&self) -> bool {
        self.found
    }

    /// What a poll of the completion queue found.
    pub fn on_polled(&mut self, any: bool) {
        self.found = any && !self.watched.is_empty();
        self.armed &= !any;
    }

    /// Queue pairs are gone: completions of others may have been taken off the queue meanwhile.
    pub fn on_removed(&mut self) {
        self.on_polled(true);
    }
}

impl<P: Port> Host<P> {
    /// Whether queue pairs can be made and used now.
    pub(super) fn has_device(&self) -> bool {
        self.port.is_some() && self.shared.is_some() && !self.wakes.down && !self.wakes.lost
    }

    /// Has the shard wake for the device.
    pub(super) fn watch_device(&mut self, ctx: &mut Context<'_>) -> Result<(), IoError> {
        let fds = self.port.as_ref().map(Port::wake_fds).unwrap_or_default();
        for (what, fd) in fds {
            match ctx.watch(fd) {
                Ok(id) => self.wakes.watched.push((id, what)),
                Err(error) => {
                    self.unwatch_device(ctx);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    pub(super) fn unwatch_device(&mut self, ctx: &mut Context<'_>) {
        for (id, _) in self.wakes.watched.drain(..) {
            ctx.unwatch(id);
        }
    }

    pub(super) fn on_device_readable(&mut self, id: WatchId) {
        let found = self.wakes.watched.iter().find(|(is, _)| *is == id);
        match found.map(|(_, what)| *what) {
            Some(WakeFor::Completions) => {
                self.wakes.armed = false;
                if let Some(port) = &mut self.port {
                    port.ack_cq_events();
                }
            }
            Some(WakeFor::Events) => self.wakes.look = Timestamp::ZERO,
            None => {}
        }
    }

    /// Arms the completion queue for a sleep; whether it was armed already.
    pub(super) fn arm(&mut self) -> bool {
        let (Some(shared), Some(port)) = (&self.shared, &mut self.port) else {
            return true;
        };
        if port.before_sleep() {
            return false;
        }
        if self.wakes.watched.is_empty() || self.wakes.armed || self.wakes.lost {
            return true;
        }
        if let Err(error) = port.req_notify_cq(shared.cq) {
            tracing::error!(%error, "no completion would end a sleep");
            self.lose_device();
            return false;
        }
        self.wakes.armed = true;
        false
    }

    /// Every lane leaves its queue pair, and no other gets one.
    pub(super) fn lose_device(&mut self) {
        self.wakes.lost = true;
        self.leave_queues("the device failed");
    }

    /// Gives a lost device back once no lane is on its queue pairs: who removes it may be waiting
    /// for that. Lanes keep the bytes of their memory.
    pub(super) fn retire_device(&mut self, ctx: &mut Context<'_>) {
        if !self.wakes.lost || self.port.is_none() || !self.parting.is_empty() {
            return;
        }
        let all: Vec<Key> = self.by_conn.values().copied().collect();
        for key in all {
            if let (Some(s), Some(port)) = (self.sessions.get_mut(key), &mut self.port) {
                s.leave_device(port);
            }
        }
        self.by_qp.clear();
        tracing::warn!(
            shard = self.shard,
            "the device is given back: lanes run over QUIC"
        );
        self.give_back(ctx);
    }

    fn leave_queues(&mut self, why: &str) {
        let all: Vec<Key> = self.by_qp.lanes().collect();
        for key in all {
            self.fail_over(key, why);
        }
    }

    fn on_device_event(&mut self, event: AsyncEvent) {
        match event {
            AsyncEvent::QpFatal(qp) | AsyncEvent::QpReqErr(qp) | AsyncEvent::QpAccessErr(qp) => {
                if let Some(key) = self.by_qp.get(qp) {
                    self.fail_over(key, "the device says that it failed");
                }
            }
            AsyncEvent::CqErr(_) | AsyncEvent::DeviceFatal => self.lose_device(),
            AsyncEvent::PortErr => {
                self.wakes.down = true;
                self.leave_queues("the device's port is down");
            }
            AsyncEvent::PortActive => self.wakes.down = false,
            AsyncEvent::CommEst(_)
            | AsyncEvent::QpLastWqeReached(_)
            | AsyncEvent::SrqLimitReached(_) => {}
        }
    }
}

impl<P: Port, A: LaneApp<P>> LaneShard<P, A> {
    /// Brings what the device has to say to whom it concerns, when it is time to ask.
    pub(super) fn hear_device(&mut self, now: Timestamp) {
        let wakes = &mut self.host.wakes;
        if !wakes.watched.is_empty() {
            if now < wakes.look {
                return;
            }
            wakes.look = now + LOOK;
        }
        while let Some(event) = self.host.port.as_mut().and_then(P::get_async_event) {
            // The device's answer to our own teardown.
            if matches!(event, AsyncEvent::QpLastWqeReached(_)) {
                tracing::debug!(?event, "the device tells");
                continue;
            }
            self.host.on_device_event(event);
            let host = &mut self.host;
            self.app.on_device_event(&mut Lanes { now, host }, event);
        }
    }
}
