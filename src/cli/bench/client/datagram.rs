//! Datagrams (RFC 9221): as many as the transport takes, or at a rate whether or not it does.
//!
//! Each begins with the time at which it was given to the transport, which means something to a
//! receiver that shares the clock. Few that are given in a row have the same time.

use super::Common;
use crate::cli::bench::bulk::payload;
use crate::cli::bench::plan::Datagram;
use crate::cli::report::hist::Schedule;
use corelane::base::Timestamp;
use corelane::conn::{ConnId, DatagramBatch};
use corelane::shard::Context;
use corelane::stream::DatagramError;
use corelane::sys::clock::Clock;

/// Datagrams that are given to the transport with one time: they take it less than a microsecond.
const SAME_TIME: u64 = 32;

/// The load of one shard.
pub struct DatagramLoad {
    plan: Datagram,
    conns: Vec<ConnId>,
    /// With a rate: when the next one is due.
    schedule: Option<Schedule>,
    /// The connection whose turn it is.
    turn: usize,
}

impl DatagramLoad {
    pub fn new(plan: Datagram) -> Self {
        Self {
            plan,
            conns: Vec::new(),
            schedule: None,
            turn: 0,
        }
    }

    pub fn start(&mut self, common: &mut Common, ctx: &mut Context<'_>, conns: &[ConnId]) {
        self.conns = conns.to_vec();
        match self.plan.rate {
            Some(rate) if !conns.is_empty() => {
                self.schedule = Some(Schedule::new(Clock::now(), rate));
            }
            Some(_) => {}
            None => conns.iter().for_each(|&conn| self.fill(common, ctx, conn)),
        }
    }

    /// Gives the connection as many as it takes.
    pub fn fill(&mut self, common: &Common, ctx: &mut Context<'_>, conn: ConnId) {
        if self.plan.rate.is_some() || !self.conns.contains(&conn) {
            return;
        }
        let Some(connection) = ctx.connection(conn) else {
            return;
        };
        let mut batch = match connection.datagram_batch() {
            Ok(batch) => batch,
            Err(e) => return self.refused(common, e),
        };
        while !common.ceased && self.send(common, &mut batch, SAME_TIME) == SAME_TIME {}
    }

    /// Sends `count` that are alike; returns how many the transport took, fewer when it takes no
    /// more for now.
    fn send(&self, common: &Common, batch: &mut DatagramBatch<'_>, count: u64) -> u64 {
        let len = self.plan.length;
        let stamp = Clock::now().as_nanos().to_be_bytes();
        let filler = payload();
        let mut taken = 0;
        while taken < count {
            let pushed = batch.push_with(len, |data| {
                for block in data.chunks_mut(filler.len()) {
                    block.copy_from_slice(&filler[..block.len()]);
                }
                match data.first_chunk_mut() {
                    Some(head) => *head = stamp,
                    None => data.copy_from_slice(&stamp[..len]),
                }
            });
            match pushed {
                Ok(()) => taken += 1,
                Err(DatagramError::Full) => break,
                Err(e) => {
                    self.refused(common, e);
                    break;
                }
            }
        }
        common.counters().datagrams_sent.add(taken);
        taken
    }

    #[cold]
    fn refused(&self, common: &Common, e: DatagramError) {
        common.counters().failures.add(1);
        let len = self.plan.length;
        let trouble = || format!("a datagram of {len} bytes: {e}");
        common.live.report_trouble(trouble);
    }

    pub fn on_closed(&mut self, conn: ConnId) {
        self.conns.retain(|c| *c != conn);
    }

    pub fn on_turn(&mut self, common: &Common, ctx: &mut Context<'_>) -> Option<Timestamp> {
        let now = Clock::now();
        while self.schedule.as_mut()?.take_due(now).is_some() {
            if common.ceased || self.conns.is_empty() {
                return None;
            }
            self.turn = (self.turn + 1) % self.conns.len();
            let conn = self.conns[self.turn];
            let Some(connection) = ctx.connection(conn) else {
                continue;
            };
            let taken = match connection.datagram_batch() {
                Ok(mut batch) => self.send(common, &mut batch, 1),
                Err(e) => {
                    self.refused(common, e);
                    0
                }
            };
            if taken == 0 {
                // An open loop does not wait: what the transport does not take now is lost.
                common.counters().datagrams_sent.add(1);
            }
        }
        self.schedule.map(|s| s.next())
    }
}
