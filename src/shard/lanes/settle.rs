//! What a lane comes to: open over what both ends can, from its queue pair to its stream, and ended
//! by agreement.

use super::app::LaneEnd;
use super::host::{Host, News};
use super::session::{Carrier, State};
use crate::base::Timestamp;
use crate::rdma::Port;
use crate::rdma::bootstrap::Message;
use crate::rdma::slots::Key;

impl<P: Port> Host<P> {
    /// The lane is open, over what both can.
    pub(super) fn settle(&mut self, key: Key, queue: bool) {
        let Some(s) = self.sessions.get_mut(key) else {
            return;
        };
        s.state = State::Open;
        s.carrier = if queue {
            Carrier::Queue
        } else {
            let unknown = || "the peer did not take its queue pair".to_owned();
            let why = s.why_quic.get_or_insert_with(unknown);
            tracing::info!(peer = %s.remote, why, "a lane runs over QUIC");
            Carrier::Stream
        };
        if !queue && let (Some(parts), Some(port)) = (&mut s.parts, &mut self.port) {
            if let Some(qp) = parts.qp() {
                self.by_qp.remove(qp.id);
            }
            // Nothing was posted but receives of its own, which go with it.
            parts.drop_queue(port);
        }
        let opened = if queue {
            &mut self.stats.opened_rdma
        } else {
            &mut self.stats.opened_quic
        };
        *opened += 1;
        self.lanes += u64::from(!std::mem::replace(&mut s.counted, true));
        self.set_deadline(key, Timestamp::NEVER);
        let now = self.now;
        if let Some(s) = self.sessions.get_mut(key) {
            s.way.since = now;
        }
        if let Some(info) = self.info(key) {
            self.tell(key, News::Open(info));
        }
    }

    /// The client is ready. Of a queue pair that was left meanwhile it hears now.
    pub(super) fn ready(&mut self, key: Key, queue: bool) {
        let Some(s) = self.sessions.get(key) else {
            return;
        };
        let left = s.carrier == Carrier::Changing;
        let queue = queue && s.carrier != Carrier::Stream;
        self.settle(key, queue);
        if let Some(s) = self.sessions.get_mut(key)
            && left
            && queue
        {
            s.carrier = Carrier::Changing;
            // Where it is still there, its last completions are waited for.
            if s.parts.as_ref().is_none_or(|p| p.qp().is_none()) {
                self.left_queue(key);
            }
        }
    }

    pub(super) fn on_fallback(&mut self, key: Key, received: u64) {
        let Some(s) = self.sessions.get_mut(key) else {
            return;
        };
        let none = matches!(s.carrier, Carrier::Stream | Carrier::Returning);
        if none || s.peer_fallback.is_some() {
            return self.misbehaved(key, "a fallback from nothing".into());
        }
        s.peer_fallback = Some(received);
        self.fail_over(key, "the peer has left it");
        self.change(key);
    }

    /// How far a goodbye is.
    pub(super) fn part_with(&mut self, key: Key, now: Timestamp) {
        let patience = self.config.patience;
        let Some(s) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(total) = s.peer_total.filter(|n| s.flow.received() >= *n) else {
            return;
        };
        if s.flow.received() > total {
            return self.misbehaved(key, "more messages than the peer says".into());
        }
        // What we began is not left undone; a deadline ends the waiting.
        if !s.ops.is_empty() {
            return;
        }
        match s.state {
            // We asked, and have everything.
            State::Leaving if s.answered => {
                s.state = State::Left;
                self.end(key, LaneEnd::Finished);
            }
            State::Open | State::Leaving if !s.acked_bye => {
                s.acked_bye = true;
                let ours = s.flow.accepted();
                s.say(&Message::ByeAck(ours));
                self.set_deadline(key, now + patience);
            }
            _ => {}
        }
    }
}
