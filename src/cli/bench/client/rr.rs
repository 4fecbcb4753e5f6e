//! Request and response: messages of fixed size on streams that live as long as the run, or on a
//! stream each.
//!
//! A closed loop has `depth` requests of each connection under way and begins the next when one is
//! answered. An open loop begins them on a schedule; one that finds no free place waits, and its
//! response time counts from the scheduled moment.

use super::Common;
use crate::cli::bench::bulk::payload;
use crate::cli::bench::plan::Rr;
use crate::cli::bench::protocol::Header;
use crate::cli::bench::table::{ByConn, ByStream};
use crate::cli::report::hist::Schedule;
use corelane::base::Timestamp;
use corelane::conn::ConnId;
use corelane::shard::Context;
use corelane::stream::{StreamEvent, Streams};
use corelane::sys::clock::Clock;
use corelane::wire::StreamId;

/// The load of one shard.
pub struct RrLoad {
    plan: Rr,
    conns: ByConn<ByStream<Place>>,
    schedule: Option<Schedule>,
    /// Open loop: places without a request. Those of a stream each name the connection alone.
    free: Vec<(ConnId, Option<StreamId>)>,
}

/// A stream, and the request on it.
#[derive(Clone, Copy)]
struct Place {
    intended: Timestamp,
    sent: Timestamp,
    /// Bytes of the request still to be written.
    to_write: usize,
    /// Bytes of the response still to come; 0 when there is no request.
    to_come: u64,
}

const IDLE: Place = Place {
    intended: Timestamp::ZERO,
    sent: Timestamp::ZERO,
    to_write: 0,
    to_come: 0,
};

impl RrLoad {
    pub fn new(plan: Rr) -> Self {
        Self {
            plan,
            conns: ByConn::default(),
            schedule: None,
            free: Vec::new(),
        }
    }

    fn header(&self) -> Header {
        Header::Respond {
            request: self.plan.length,
            response: self.plan.length,
        }
    }

    pub fn start(&mut self, common: &mut Common, ctx: &mut Context<'_>, conns: &[ConnId]) {
        for &conn in conns {
            let Some(connection) = ctx.connection(conn) else {
                continue;
            };
            self.conns.insert(conn, ByStream::default());
            for _ in 0..self.plan.depth {
                let id = if self.plan.new_stream {
                    None
                } else {
                    match common.open_stream(connection.streams_mut(), &self.header()) {
                        Some(id) => Some(id),
                        None => break,
                    }
                };
                self.free.push((conn, id));
            }
        }
        let now = Clock::now();
        if let Some(rate) = self.plan.rate {
            self.schedule = (!self.free.is_empty()).then(|| Schedule::new(now, rate));
            return;
        }
        for (conn, id) in std::mem::take(&mut self.free) {
            if let Some(connection) = ctx.connection(conn) {
                self.begin(common, conn, connection.streams_mut(), id, (now, now));
            }
        }
    }

    /// Sends a request on stream `id`, or on a new one. `times` are when it was due and when it
    /// is sent: in a closed loop the moment at which the answer before it was read.
    fn begin(
        &mut self,
        common: &Common,
        conn: ConnId,
        streams: &mut Streams,
        id: Option<StreamId>,
        (intended, sent): (Timestamp, Timestamp),
    ) {
        let header = self.header();
        let Some(id) = id.or_else(|| common.open_stream(streams, &header)) else {
            return;
        };
        let length = self.plan.length as usize;
        let place = Place {
            intended,
            sent,
            to_write: length,
            to_come: length as u64,
        };
        let Some(places) = self.conns.get_mut(conn) else {
            return;
        };
        let slot = places.get_or_insert_with(id, || IDLE);
        *slot = place;
        write(streams, id, slot, self.plan.new_stream);
    }

    pub fn on_data(
        &mut self,
        common: &mut Common,
        conn: ConnId,
        streams: &mut Streams,
        id: StreamId,
        data: &[u8],
    ) {
        common.counters().bytes.add(data.len() as u64);
        let Some(places) = self.conns.get_mut(conn) else {
            return;
        };
        let Some(place) = places.get_mut(id).filter(|p| p.to_come > 0) else {
            return;
        };
        place.to_come = place.to_come.saturating_sub(data.len() as u64);
        if place.to_come > 0 {
            return;
        }
        let (intended, sent) = (place.intended, place.sent);
        let done = Clock::now();
        common.counters().operations.add(1);
        match self.schedule {
            Some(_) => common.record.record(intended, sent, done),
            None => common.record.response.record(done - sent),
        }
        let id = (!self.plan.new_stream).then_some(id).or_else(|| {
            places.remove(id);
            None
        });
        if self.schedule.is_some() {
            self.free.push((conn, id));
        } else if !common.ceased && !self.plan.once {
            self.begin(common, conn, streams, id, (done, done));
        }
    }

    pub fn on_event(
        &mut self,
        common: &mut Common,
        ctx: &mut Context<'_>,
        conn: ConnId,
        event: StreamEvent,
    ) {
        match event {
            StreamEvent::Writable(id) => {
                let Some(connection) = ctx.connection(conn) else {
                    return;
                };
                let place = self
                    .conns
                    .get_mut(conn)
                    .and_then(|places| places.get_mut(id));
                if let Some(place) = place {
                    write(connection.streams_mut(), id, place, self.plan.new_stream);
                }
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
        self.free.retain(|(c, _)| *c != conn);
    }

    pub fn on_turn(&mut self, common: &mut Common, ctx: &mut Context<'_>) -> Option<Timestamp> {
        let mut schedule = self.schedule?;
        if common.ceased {
            return None;
        }
        let now = Clock::now();
        // Without a free place the next answer comes first; it brings a turn.
        while let Some(&(conn, id)) = self.free.last() {
            let Some(intended) = schedule.take_due(now) else {
                break;
            };
            self.free.pop();
            if let Some(connection) = ctx.connection(conn) {
                let times = (intended, Clock::now());
                self.begin(common, conn, connection.streams_mut(), id, times);
            }
        }
        self.schedule = Some(schedule);
        (!self.free.is_empty()).then(|| schedule.next())
    }
}

/// Writes what is left of a request.
fn write(streams: &mut Streams, id: StreamId, place: &mut Place, last: bool) {
    if place.to_write == 0 {
        return;
    }
    let block = payload();
    // A stream that takes no more shows it by an event.
    let n = streams
        .write_bytes(id, block.slice(..place.to_write))
        .unwrap_or(0);
    place.to_write -= n;
    if place.to_write == 0 && last {
        let _ = streams.finish(id);
    }
}
