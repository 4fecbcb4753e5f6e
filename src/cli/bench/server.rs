//! The server's application on one shard: it does what the headers of streams ask for.
//!
//! Clients are strangers. What a stream costs is a fixed-size entry, streams are as many as the
//! transport permits, connections as many as [`ServerApp::new`] was told; what the server owes a
//! client is a number, not memory.

use super::arrivals::Arrivals;
use super::bulk::{Pumped, Sender, Waiting, payload};
use super::live::Live;
use super::protocol::{BAD_HEADER, Gather, HEADER_LEN, Header, Snapshot};
use super::table::{ByConn, ByStream};
use super::tally::Tally;
use crate::cli::report::hist::OpenLoop;
use crate::cli::report::meter;
use corelane::base::Timestamp;
use corelane::conn::incoming::{Decision, Incoming};
use corelane::conn::{ConnId, Event};
use corelane::shard::{Context, ShardApp};
use corelane::stream::{StreamEvent, Streams, Taken};
use corelane::sys::clock::Clock;
use corelane::wire::StreamId;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

/// The process's CPU time is asked for at most this often: a client may ask without end.
const CPU_EVERY: Duration = Duration::from_millis(10);

/// What the run's coordinator says to a server shard of its own process.
pub enum Order {
    /// Gives back the latencies recorded so far and goes on with this empty record.
    Cut(Box<OpenLoop>),
    /// Closes every connection and takes no more.
    Close,
}

/// What a server shard is started with, beyond its shared counters.
pub struct ServerConfig {
    /// Connections at a time; more are refused.
    pub max_connections: usize,
    /// Where latencies go when client and server share a clock; `None` records none.
    pub records: Option<mpsc::Sender<Box<OpenLoop>>>,
}

/// The application. See the module's documentation.
pub struct ServerApp {
    shard: usize,
    live: Arc<Live>,
    config: ServerConfig,
    record: Box<OpenLoop>,
    arrivals: Arrivals,
    conns: ByConn<Conn>,
    open: usize,
    waiting: Waiting<(ConnId, StreamId)>,
    cpu: (Timestamp, u64),
    /// What the connections that ended had counted.
    pub tally: Tally,
}

#[derive(Default)]
struct Conn {
    streams: ByStream<Role>,
    bytes: u64,
    datagrams: u64,
    datagram_bytes: u64,
}

/// What is going on on a stream.
enum Role {
    /// Its header is not complete.
    Unknown(Gather<HEADER_LEN>),
    Control,
    /// Data comes until `ended`; data goes while there is a sender.
    Bulk {
        sender: Option<Sender>,
        ended: bool,
    },
    Respond {
        request: u64,
        response: u64,
        have: u64,
        owed: u64,
        ended: bool,
    },
}

/// Whether a stream's entry is still needed.
#[derive(PartialEq, Eq)]
enum Fate {
    Stays,
    Over,
}

impl ServerApp {
    /// The application of shard `shard`.
    pub fn new(shard: usize, live: Arc<Live>, config: ServerConfig) -> Self {
        Self {
            shard,
            live,
            config,
            record: Box::default(),
            arrivals: Arrivals::default(),
            conns: ByConn::default(),
            open: 0,
            waiting: Waiting::default(),
            cpu: (Timestamp::ZERO, 0),
            tally: Tally::default(),
        }
    }

    fn answer(&mut self, conn: ConnId, streams: &mut Streams, id: StreamId) -> Fate {
        self.count_datagrams();
        let now = Clock::now();
        if self.cpu.1 == 0 || now - self.cpu.0 >= CPU_EVERY {
            let cpu = meter::process_cpu().unwrap_or_default();
            self.cpu = (now, u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX));
        }
        let Some(c) = self.conns.get_mut(conn) else {
            return Fate::Over;
        };
        let snapshot = Snapshot {
            bytes: c.bytes,
            datagrams: c.datagrams,
            datagram_bytes: c.datagram_bytes,
            cpu_ns: self.cpu.1,
            now_ns: now.as_nanos(),
        };
        let bytes = snapshot.encode();
        // A client that asks and does not read gets no part of an answer.
        match streams.write(id, &bytes) {
            Ok(n) if n == bytes.len() => Fate::Stays,
            _ => {
                let _ = streams.reset(id, BAD_HEADER);
                Fate::Over
            }
        }
    }

    /// Datagrams that could not be shown when they came.
    fn on_datagrams(&mut self, ctx: &mut Context<'_>, conn: ConnId) {
        if let Some(connection) = ctx.connection(conn) {
            connection.recv_datagrams(|data| self.note_datagram(conn, data));
        }
    }

    #[inline]
    fn note_datagram(&mut self, conn: ConnId, data: &[u8]) {
        let recorded = self.config.records.is_some();
        let record = recorded.then_some(&mut *self.record);
        if !self.arrivals.add(conn, data, record) {
            self.count_datagrams();
            let record = recorded.then_some(&mut *self.record);
            self.arrivals.add(conn, data, record);
        }
    }

    fn count_datagrams(&mut self) {
        let counters = self.live.shard(self.shard);
        let record = self.config.records.is_some().then_some(&mut *self.record);
        if let Some((conn, count, bytes)) = self.arrivals.take(counters, record)
            && let Some(c) = self.conns.get_mut(conn)
        {
            c.datagrams += count;
            c.datagram_bytes += bytes;
        }
    }

    fn on_stream_event(&mut self, ctx: &mut Context<'_>, conn: ConnId, event: StreamEvent) {
        let Some(c) = self.conns.get_mut(conn) else {
            return;
        };
        // Not through the context: the connection is having its turn to send.
        let Some(connection) = ctx.endpoint().connection(conn) else {
            return;
        };
        let streams = connection.streams_mut();
        match event {
            // Streams are found by their first bytes; this only lets the next ones come.
            StreamEvent::Opened(dir) => while streams.accept(dir).is_some() {},
            StreamEvent::Writable(id) => self.go_on(ctx, conn, id),
            StreamEvent::Stopped(id, _) => match c.streams.get_mut(id) {
                Some(Role::Bulk {
                    sender,
                    ended: false,
                }) => *sender = None,
                _ => {
                    c.streams.remove(id);
                }
            },
            StreamEvent::Reset(id, _) => {
                c.streams.remove(id);
                // It may have ended on our side, too; then there is nothing to reset.
                let _ = streams.reset(id, 0);
            }
            // The sink takes everything, so that nothing waits to be read.
            StreamEvent::Readable(_) | StreamEvent::Finished(_) | StreamEvent::Available(_) => {}
        }
    }

    /// Writes what a stream still has to send.
    fn go_on(&mut self, ctx: &mut Context<'_>, conn: ConnId, id: StreamId) {
        let Some(connection) = ctx.connection(conn) else {
            return;
        };
        let Some(c) = self.conns.get_mut(conn) else {
            return;
        };
        let Some(role) = c.streams.get_mut(id) else {
            return;
        };
        let streams = connection.streams_mut();
        let fate = match role {
            Role::Bulk { sender, ended } => {
                pump(&mut self.waiting, sender, streams, (conn, id));
                bulk_fate(sender, *ended, streams, id)
            }
            Role::Respond { owed, ended, .. } => respond(streams, id, owed, *ended),
            Role::Unknown(_) | Role::Control => Fate::Stays,
        };
        if fate == Fate::Over {
            c.streams.remove(id);
        }
    }
}

impl ShardApp for ServerApp {
    type Command = Order;

    #[inline]
    fn on_stream_data(
        &mut self,
        conn: ConnId,
        streams: &mut Streams,
        id: StreamId,
        data: &[u8],
        fin: bool,
    ) -> Taken {
        let Some(c) = self.conns.get_mut(conn) else {
            return Taken::All;
        };
        let role = c
            .streams
            .get_or_insert_with(id, || Role::Unknown(Gather::default()));
        let mut rest = data;
        if let Role::Unknown(gather) = role {
            match begin(gather, &mut rest, streams, id) {
                Some(Ok(new)) => *role = new,
                Some(Err(())) => {
                    c.streams.remove(id);
                    return Taken::All;
                }
                None if fin => {
                    refuse(streams, id);
                    c.streams.remove(id);
                    return Taken::All;
                }
                None => return Taken::All,
            }
        }
        let counted = !matches!(role, Role::Control);
        if counted && !rest.is_empty() {
            c.bytes += rest.len() as u64;
            self.live.shard(self.shard).bytes.add(rest.len() as u64);
        }
        let fate = match role {
            Role::Bulk { sender, ended } => {
                *ended |= fin;
                if rest.len() < data.len() {
                    // The header has just been read.
                    pump(&mut self.waiting, sender, streams, (conn, id));
                }
                bulk_fate(sender, *ended, streams, id)
            }
            Role::Respond {
                request,
                response,
                have,
                owed,
                ended,
            } => {
                let total = *have + rest.len() as u64;
                *owed = owed.saturating_add(total / *request * *response);
                *have = total % *request;
                *ended |= fin;
                respond(streams, id, owed, *ended)
            }
            Role::Control if fin => finish(streams, id),
            Role::Control if rest.is_empty() => Fate::Stays,
            Role::Control => self.answer(conn, streams, id),
            Role::Unknown(_) => Fate::Stays,
        };
        if fate == Fate::Over
            && let Some(c) = self.conns.get_mut(conn)
        {
            c.streams.remove(id);
        }
        Taken::All
    }

    #[inline]
    fn on_datagram(&mut self, conn: ConnId, data: &[u8]) -> bool {
        self.note_datagram(conn, data);
        true
    }

    fn on_event(&mut self, ctx: &mut Context<'_>, conn: ConnId, event: Event) {
        match event {
            Event::Connected => self.live.shard(self.shard).connected.add(1),
            Event::Stream(event) => self.on_stream_event(ctx, conn, event),
            Event::DatagramReceived => self.on_datagrams(ctx, conn),
            Event::Closed(why) => {
                tracing::debug!(?conn, %why, "connection closed");
                if let Some(connection) = ctx.connection(conn) {
                    self.tally.add(connection);
                }
                if self.conns.remove(conn).is_some() {
                    self.open -= 1;
                }
                self.live.shard(self.shard).closed.add(1);
            }
            _ => {}
        }
    }

    fn on_incoming(&mut self, _: &Incoming) -> Decision {
        if self.open < self.config.max_connections {
            Decision::Accept
        } else {
            Decision::Refuse
        }
    }

    fn on_accepted(&mut self, conn: ConnId) {
        self.conns.insert(conn, Conn::default());
        self.open += 1;
    }

    fn on_command(&mut self, ctx: &mut Context<'_>, order: Order) {
        let Order::Cut(empty) = order else {
            self.config.max_connections = 0;
            let now = ctx.now();
            ctx.endpoint().close_all(now, 0, b"the server ends");
            return;
        };
        self.count_datagrams();
        let full = std::mem::replace(&mut self.record, empty);
        if let Some(records) = &self.config.records {
            // A coordinator that is gone wants no record.
            let _ = records.send(full);
        }
    }

    fn polls(&self) -> bool {
        false
    }

    fn on_turn(&mut self, ctx: &mut Context<'_>) -> Option<Timestamp> {
        self.count_datagrams();
        let now = self.waiting.next().map(|_| ctx.now())?;
        while let Some((conn, id)) = self.waiting.take_due(now) {
            self.go_on(ctx, conn, id);
        }
        self.waiting.next()
    }
}

/// Reads a stream's header; `None` until it is complete.
fn begin(
    gather: &mut Gather<HEADER_LEN>,
    data: &mut &[u8],
    streams: &mut Streams,
    id: StreamId,
) -> Option<Result<Role, ()>> {
    let header = gather.take(data)?;
    Some(match Header::decode(&header) {
        Ok(Header::Control) => {
            // Bulk data must not delay what tells about it.
            let _ = streams.set_priority(id, 1);
            Ok(Role::Control)
        }
        Ok(Header::Bulk { send, chunk, rate }) => {
            let sender = (send > 0).then(|| Sender::new(Clock::now(), send, chunk, rate));
            Ok(Role::Bulk {
                sender,
                ended: false,
            })
        }
        Ok(Header::Respond { request, response }) => Ok(Role::Respond {
            request: request.into(),
            response: response.into(),
            have: 0,
            owed: 0,
            ended: false,
        }),
        Err(error) => {
            tracing::debug!(%error, "a stream begins with what is no header");
            refuse(streams, id);
            Err(())
        }
    })
}

/// Ends both sides of a stream that asks for nothing that is known.
fn refuse(streams: &mut Streams, id: StreamId) {
    // Either side may have ended already.
    let _ = streams.stop_sending(id, BAD_HEADER);
    let _ = streams.reset(id, BAD_HEADER);
}

fn finish(streams: &mut Streams, id: StreamId) -> Fate {
    // A client that stopped the stream does not wait for its end.
    let _ = streams.finish(id);
    Fate::Over
}

/// Lets a sender write; takes it away when it is done.
fn pump(
    waiting: &mut Waiting<(ConnId, StreamId)>,
    sender: &mut Option<Sender>,
    streams: &mut Streams,
    (conn, id): (ConnId, StreamId),
) {
    let Some(s) = sender else { return };
    match s.pump(Clock::now(), streams, id) {
        Pumped::Blocked => {}
        Pumped::Later(at) => waiting.add(at, (conn, id)),
        Pumped::Done | Pumped::Closed => *sender = None,
    }
}

/// A stream of data is over when neither side has more.
fn bulk_fate(sender: &Option<Sender>, ended: bool, streams: &mut Streams, id: StreamId) -> Fate {
    if sender.is_none() && ended {
        finish(streams, id)
    } else {
        Fate::Stays
    }
}

/// Writes what is owed on a stream of requests, and its end after the last.
fn respond(streams: &mut Streams, id: StreamId, owed: &mut u64, ended: bool) -> Fate {
    let block = payload();
    while *owed > 0 {
        let want = (*owed).min(block.len() as u64) as usize;
        match streams.write_bytes(id, block.slice(..want)) {
            Ok(n) => {
                *owed -= n as u64;
                if n < want {
                    return Fate::Stays;
                }
            }
            Err(_) => return Fate::Over,
        }
    }
    if ended {
        finish(streams, id)
    } else {
        Fate::Stays
    }
}
