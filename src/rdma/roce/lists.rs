//! Whose turn it is: queue pairs with something to send, with a deadline, and with an
//! acknowledgement that they hold back.

use super::qp::{Ctx, Qp};
use super::timers::Timers;
use crate::base::Timestamp;
use crate::rdma::slots::Key;
use std::collections::VecDeque;
use std::time::Duration;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Lists {
    pub timers: Timers,
    /// Queue pairs that hold an acknowledgement back, and until when; each once.
    pub holding: VecDeque<(Timestamp, Key)>,
    /// Queue pairs with something to send, each once.
    pub ready: VecDeque<Key>,
    /// Queue pairs with SENDs and WRITEs under way.
    pub busy: usize,
    ack_delay: Duration,
}

impl Lists {
    pub fn new(ack_delay: Duration) -> Self {
        Self {
            timers: Timers::default(),
            holding: VecDeque::new(),
            ready: VecDeque::new(),
            busy: 0,
            ack_delay,
        }
    }

    /// The earliest deadline, or a time before it.
    pub fn next(&self) -> Timestamp {
        let held = self.holding.front().map_or(Timestamp::NEVER, |h| h.0);
        self.timers.next().min(held)
    }

    /// Something happened to a queue pair: it may have something to send, and another deadline.
    /// Whether the timers have become longer.
    #[inline]
    pub fn see(&mut self, qp: &mut Qp, ctx: &Ctx<'_>) -> bool {
        if !qp.queued && qp.has_output(ctx) {
            qp.queued = true;
            self.ready.push_back(qp.key);
        }
        if let Some(since) = qp.held_since()
            && !std::mem::replace(&mut qp.holding, true)
        {
            self.holding.push_back((since + self.ack_delay, qp.key));
        }
        self.arm(qp)
    }

    /// A queue pair's deadline may be another. Whether the timers have become longer.
    #[inline]
    pub fn arm(&mut self, qp: &mut Qp) -> bool {
        let busy = qp.is_busy();
        let before = std::mem::replace(&mut qp.busy, busy);
        self.busy = self.busy + usize::from(busy) - usize::from(before);
        self.timers.arm(qp.key, qp.deadline(), &mut qp.armed)
    }
}
