//! Datagrams (RFC 9221): as many as the transport takes, or at a rate whether or not it does.
//!
//! Each begins with the time at which it was given to the transport, which means something to a
//! receiver that shares the clock.

use super::Common;
use crate::cli::bench::bulk::payload;
use crate::cli::bench::plan::Datagram;
use crate::cli::report::hist::Schedule;
use bytes::{Bytes, BytesMut};
use corelane::base::Timestamp;
use corelane::conn::{ConnId, Connection};
use corelane::shard::Context;
use corelane::stream::DatagramError;
use corelane::sys::clock::Clock;

/// Bytes of the block that datagrams are cut from.
const BLOCK: usize = 64 * 1024;

/// The load of one shard.
pub struct DatagramLoad {
    plan: Datagram,
    block: BytesMut,
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
            block: BytesMut::new(),
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
        while !common.ceased && self.send(common, connection) {}
    }

    /// Sends one; false when the transport takes no more for now.
    fn send(&mut self, common: &Common, connection: &mut Connection) -> bool {
        let data = self.next();
        match connection.send_datagram(data) {
            Ok(()) => {
                common.counters().datagrams_sent.add(1);
                true
            }
            Err(DatagramError::Full) => false,
            Err(e) => {
                common.counters().failures.add(1);
                let len = self.plan.length;
                common
                    .live
                    .report_trouble(|| format!("a datagram of {len} bytes: {e}"));
                false
            }
        }
    }

    fn next(&mut self) -> Bytes {
        let len = self.plan.length;
        if self.block.len() < len {
            self.block = BytesMut::zeroed(BLOCK.max(len));
            let filler = payload();
            let filled = self.block.len().min(filler.len());
            self.block[..filled].copy_from_slice(&filler[..filled]);
        }
        let mut one = self.block.split_to(len);
        let stamp = Clock::now().as_nanos().to_be_bytes();
        let n = stamp.len().min(len);
        one[..n].copy_from_slice(&stamp[..n]);
        one.freeze()
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
            if let Some(connection) = ctx.connection(conn)
                && !self.send(common, connection)
            {
                // An open loop does not wait: what the transport does not take now is lost.
                common.counters().datagrams_sent.add(1);
            }
        }
        self.schedule.map(|s| s.next())
    }
}
