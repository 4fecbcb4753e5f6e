//! Throughput: data on streams, to the server, from it, or both ways.

use super::Common;
use crate::cli::bench::bulk::{ENDLESS, Pumped, Sender, Waiting};
use crate::cli::bench::plan::Bulk;
use crate::cli::bench::protocol::Header;
use crate::cli::bench::table::{ByConn, ByStream};
use corelane::base::Timestamp;
use corelane::conn::ConnId;
use corelane::shard::Context;
use corelane::stream::StreamEvent;
use corelane::sys::clock::Clock;
use corelane::wire::StreamId;

/// The load of one shard.
pub struct BulkLoad {
    plan: Bulk,
    /// Streams of each connection of this shard, in the order of the connections.
    streams: Vec<usize>,
    conns: ByConn<ByStream<Sender>>,
    waiting: Waiting<(ConnId, StreamId)>,
}

impl BulkLoad {
    pub fn new(plan: Bulk, streams: Vec<usize>) -> Self {
        Self {
            plan,
            streams,
            conns: ByConn::default(),
            waiting: Waiting::default(),
        }
    }

    pub fn start(&mut self, common: &mut Common, ctx: &mut Context<'_>, conns: &[ConnId]) {
        let now = Clock::now();
        for (&conn, count) in conns.iter().zip(std::mem::take(&mut self.streams)) {
            let Some(connection) = ctx.connection(conn) else {
                continue;
            };
            let streams = connection.streams_mut();
            let mut senders = ByStream::default();
            let plan = self.plan;
            for _ in 0..count {
                let header = Header::Bulk {
                    send: if plan.receive {
                        plan.bytes.unwrap_or(ENDLESS)
                    } else {
                        0
                    },
                    chunk: plan.chunk,
                    rate: plan.rate,
                };
                let Some(id) = common.open_stream(streams, &header) else {
                    break;
                };
                if plan.send {
                    let total = plan.bytes.unwrap_or(ENDLESS);
                    let sender = Sender::new(now, total, plan.chunk, plan.rate);
                    senders.get_or_insert_with(id, || sender);
                } else {
                    // Just opened: it can be ended.
                    let _ = streams.finish(id);
                }
            }
            let ids: Vec<StreamId> = senders.ids().collect();
            self.conns.insert(conn, senders);
            ids.into_iter()
                .for_each(|id| self.go_on(common, ctx, conn, id));
        }
    }

    #[inline]
    pub fn on_data(&mut self, common: &Common, _: StreamId, data: &[u8], fin: bool) {
        common.counters().bytes.add(data.len() as u64);
        if fin && self.plan.receive {
            common.counters().finished.add(1);
            common.counters().finished_at.set(Clock::now().as_nanos());
        }
    }

    pub fn on_event(
        &mut self,
        common: &Common,
        ctx: &mut Context<'_>,
        conn: ConnId,
        event: StreamEvent,
    ) {
        match event {
            StreamEvent::Writable(id) => self.go_on(common, ctx, conn, id),
            StreamEvent::Finished(_) if self.plan.send => {
                common.counters().finished.add(1);
                common.counters().finished_at.set(Clock::now().as_nanos());
            }
            StreamEvent::Stopped(id, code) | StreamEvent::Reset(id, code) => {
                common.counters().failures.add(1);
                let n = id.index();
                common
                    .live
                    .report_trouble(|| format!("the server ended stream {n} ({code})"));
            }
            _ => {}
        }
    }

    pub fn on_closed(&mut self, conn: ConnId) {
        self.conns.remove(conn);
    }

    pub fn on_turn(&mut self, common: &Common, ctx: &mut Context<'_>) -> Option<Timestamp> {
        self.waiting.next()?;
        while let Some((conn, id)) = self.waiting.take_due(ctx.now()) {
            self.go_on(common, ctx, conn, id);
        }
        self.waiting.next()
    }

    /// Writes what the stream takes, and its end after the last byte.
    fn go_on(&mut self, common: &Common, ctx: &mut Context<'_>, conn: ConnId, id: StreamId) {
        let Some(senders) = self.conns.get_mut(conn) else {
            return;
        };
        let Some(sender) = senders.get_mut(id).filter(|_| !common.ceased) else {
            return;
        };
        let Some(connection) = ctx.connection(conn) else {
            return;
        };
        let streams = connection.streams_mut();
        match sender.pump(Clock::now(), streams, id) {
            Pumped::Blocked => {}
            Pumped::Later(at) => self.waiting.add(at, (conn, id)),
            Pumped::Done => {
                senders.remove(id);
                // The last write succeeded, so the stream can be ended.
                let _ = streams.finish(id);
            }
            Pumped::Closed => {
                senders.remove(id);
            }
        }
    }
}
