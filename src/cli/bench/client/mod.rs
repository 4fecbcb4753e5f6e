//! The client's application on one shard: it opens connections, puts one workload's load on them
//! and records what comes back.
//!
//! The coordinator (`bench::run`) gives the orders; how a load works is in the modules below, one
//! each. Connections that fail are counted, and the first reason is kept.

mod bulk;
mod datagram;
mod handshake;
mod paths;
mod rr;

use super::live::{Counters, Live};
use super::plan::{Share, Work};
use super::protocol::{Gather, Header, SNAPSHOT_LEN, Snapshot};
use super::table::ByConn;
use super::tally::Tally;
use crate::cli::paths::Ways;
use crate::cli::report::hist::OpenLoop;
use crate::cli::tls;
use bulk::BulkLoad;
use corelane::base::Timestamp;
use corelane::conn::{ConnId, ConnectionError, Event};
use corelane::shard::{Context, ShardApp};
use corelane::stream::{Streams, Taken};
use corelane::wire::{Dir, StreamId};
use datagram::DatagramLoad;
use handshake::HandshakeLoad;
use paths::Paths;
use rr::RrLoad;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;

/// Handshakes of one shard under way at a time while connections are opened.
const OPENING: usize = 32;

/// What the coordinator says to every client shard.
pub enum Order {
    /// Opens so many connections beside those of the run, closes them and counts them.
    WarmUp(usize),
    /// Opens the connections.
    Open,
    /// Begins the load.
    Start,
    /// Gives back the latencies recorded so far and goes on with this empty record.
    Cut(Box<OpenLoop>),
    /// Asks the other host what it received.
    Query,
    /// Stops sending new operations.
    Cease,
    /// Closes every connection.
    Close,
}

/// Whom to connect to, and how.
#[derive(Clone)]
pub struct Target {
    /// The server.
    pub addr: SocketAddr,
    /// The name that its certificate must have.
    pub name: ServerName<'static>,
    /// TLS.
    pub tls: Arc<rustls::ClientConfig>,
    /// Whether the server is another process, which has to be asked for what it received.
    pub remote: bool,
    /// Over which paths.
    pub ways: Ways,
}

/// What all loads need of their shard.
struct Common {
    target: Target,
    live: Arc<Live>,
    shard: usize,
    record: Box<OpenLoop>,
    /// No new operations.
    ceased: bool,
}

impl Common {
    #[inline]
    fn counters(&self) -> &Counters {
        self.live.shard(self.shard)
    }

    /// Begins a connection; what prevents it is trouble.
    fn connect(&self, ctx: &mut Context<'_>) -> Option<ConnId> {
        let &(socket, _) = ctx.sockets().first()?;
        let t = &self.target;
        match ctx.connect(socket, t.addr, t.tls.clone(), t.name.clone(), None) {
            Ok(conn) => Some(conn),
            Err(e) => {
                self.live.report_trouble(|| e.to_string());
                self.counters().failures.add(1);
                None
            }
        }
    }

    /// Opens a stream and writes its header.
    fn open_stream(&self, streams: &mut Streams, header: &Header) -> Option<StreamId> {
        let opened = streams
            .open(Dir::Bi)
            .map_err(|e| e.to_string())
            .and_then(|id| {
                streams
                    .write(id, &header.encode())
                    .map_err(|e| e.to_string())
                    .map(|_| id)
            });
        match opened {
            Ok(id) => Some(id),
            Err(e) => {
                self.live
                    .report_trouble(|| format!("cannot open a stream: {e}"));
                self.counters().failures.add(1);
                None
            }
        }
    }
}

/// The load of one workload.
enum Load {
    Bulk(BulkLoad),
    Rr(RrLoad),
    Handshake(HandshakeLoad),
    Datagram(DatagramLoad),
}

#[derive(Default)]
struct Conn {
    established: bool,
    /// It only warms up.
    brief: bool,
    control: Option<Control>,
}

/// The stream on which the other host is asked.
struct Control {
    id: StreamId,
    gather: Gather<SNAPSHOT_LEN>,
    latest: Snapshot,
}

/// The application. See the module's documentation.
pub struct ClientApp {
    common: Common,
    load: Load,
    conns: ByConn<Conn>,
    /// Connections still to be begun.
    to_open: usize,
    records: mpsc::Sender<Box<OpenLoop>>,
    /// What the connections that ended had counted.
    pub tally: Tally,
    /// The connections' further paths.
    pub paths: Paths,
}

impl ClientApp {
    /// The application of one shard with its share of the work.
    pub fn new(
        target: Target,
        share: Share,
        live: Arc<Live>,
        records: mpsc::Sender<Box<OpenLoop>>,
    ) -> Self {
        let load = match share.work {
            Work::Bulk(bulk) => Load::Bulk(BulkLoad::new(bulk, share.streams)),
            Work::Rr(rr) => Load::Rr(RrLoad::new(rr)),
            Work::Handshake { parallel, resume } => {
                Load::Handshake(HandshakeLoad::new(parallel, resume))
            }
            Work::Datagram(datagram) => Load::Datagram(DatagramLoad::new(datagram)),
        };
        Self {
            paths: Paths::new(target.ways.clone()),
            common: Common {
                target,
                live,
                shard: share.shard,
                record: Box::default(),
                ceased: false,
            },
            load,
            conns: ByConn::default(),
            to_open: share.connections,
            records,
            tally: Tally::default(),
        }
    }

    fn open_next(&mut self, ctx: &mut Context<'_>) {
        if self.to_open == 0 || self.common.ceased {
            return;
        }
        self.to_open -= 1;
        if let Some(conn) = self.common.connect(ctx) {
            self.conns.insert(conn, Conn::default());
        }
    }

    fn warm_up(&mut self, ctx: &mut Context<'_>) {
        if let Some(conn) = self.common.connect(ctx) {
            let brief = Conn {
                brief: true,
                ..Conn::default()
            };
            self.conns.insert(conn, brief);
        }
    }

    fn is_brief(&mut self, conn: ConnId) -> bool {
        self.conns.get_mut(conn).is_some_and(|c| c.brief)
    }

    fn start(&mut self, ctx: &mut Context<'_>) {
        if let Load::Handshake(load) = &mut self.load {
            load.start(&mut self.common, ctx);
            return;
        }
        let established = self.conns.iter_mut().filter(|(_, c)| c.established);
        let conns: Vec<ConnId> = established.map(|(id, _)| id).collect();
        match &mut self.load {
            Load::Bulk(load) => load.start(&mut self.common, ctx, &conns),
            Load::Rr(load) => load.start(&mut self.common, ctx, &conns),
            Load::Datagram(load) => load.start(&mut self.common, ctx, &conns),
            Load::Handshake(_) => {}
        }
    }

    fn query(&mut self, ctx: &mut Context<'_>) {
        for (conn, c) in self.conns.iter_mut() {
            if let (Some(control), Some(connection)) = (&c.control, ctx.connection(conn)) {
                // A connection that cannot be asked is missed by the coordinator.
                let _ = connection.streams_mut().write(control.id, &[0]);
            }
        }
    }

    fn on_connected(&mut self, ctx: &mut Context<'_>, conn: ConnId) {
        if let Load::Handshake(load) = &mut self.load {
            load.on_connected(&mut self.common, ctx, conn);
            return;
        }
        if self.is_brief(conn) {
            let now = ctx.now();
            if let Some(connection) = ctx.connection(conn) {
                connection.close(now, 0, b"");
            }
            return;
        }
        if let Some(c) = self.conns.get_mut(conn) {
            c.established = true;
            if self.common.target.remote
                && let Some(connection) = ctx.connection(conn)
            {
                let streams = connection.streams_mut();
                c.control = self
                    .common
                    .open_stream(streams, &Header::Control)
                    .map(|id| {
                        // Asking should not wait behind what is asked about; it can only fail for a
                        // stream that has just ended.
                        let _ = streams.set_priority(id, 1);
                        Control {
                            id,
                            gather: Gather::default(),
                            latest: Snapshot::default(),
                        }
                    });
            }
        }
        if self.paths.wanted() > 0 && !self.paths.is_auto() {
            self.paths.begin(&self.common, ctx, conn);
        } else {
            self.common.counters().connected.add(1);
        }
        self.open_next(ctx);
    }

    fn on_closed(&mut self, ctx: &mut Context<'_>, conn: ConnId, why: &ConnectionError) {
        let mut refused = None;
        if let Some(connection) = ctx.connection(conn) {
            self.tally.add(connection);
            refused = connection.session().failure().map(tls::explain);
        }
        self.paths.on_closed(ctx.now(), conn, ctx.connection(conn));
        let failed = !self.common.ceased && *why != ConnectionError::LocallyClosed;
        if failed {
            self.common.counters().failures.add(1);
            let addr = self.common.target.addr;
            // What TLS says names the cause, such as the certificate that was found.
            self.common.live.report_trouble(|| match refused {
                Some(tls) => format!("connection to {addr}: not trusted: {tls}"),
                None => format!("connection to {addr}: {why}"),
            });
        }
        if self.is_brief(conn) {
            self.conns.remove(conn);
            self.common.counters().warmed_up.add(1);
            return;
        }
        match &mut self.load {
            Load::Handshake(load) => load.on_closed(&mut self.common, ctx, conn),
            Load::Rr(load) => load.on_closed(conn),
            Load::Bulk(load) => load.on_closed(conn),
            Load::Datagram(load) => load.on_closed(conn),
        }
        if self.conns.remove(conn).is_some_and(|c| !c.established) {
            self.open_next(ctx);
        }
        self.common.counters().closed.add(1);
    }

    /// Takes the other host's answers and publishes the sums.
    fn on_control_data(&mut self, conn: ConnId, id: StreamId, mut data: &[u8]) -> bool {
        let Some(control) = self.conns.get_mut(conn).and_then(|c| c.control.as_mut()) else {
            return false;
        };
        if control.id != id {
            return false;
        }
        let counters = self.common.live.shard(self.common.shard);
        while let Some(bytes) = control.gather.take(&mut data) {
            let new = Snapshot::decode(&bytes);
            let old = std::mem::replace(&mut control.latest, new);
            counters
                .remote_bytes
                .add(new.bytes.saturating_sub(old.bytes));
            counters
                .remote_datagrams
                .add(new.datagrams.saturating_sub(old.datagrams));
            let more = new.datagram_bytes.saturating_sub(old.datagram_bytes);
            counters.remote_datagram_bytes.add(more);
            counters.remote_cpu_ns.set(new.cpu_ns);
            counters.answers.add(1);
        }
        true
    }
}

impl ShardApp for ClientApp {
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
        if self.common.target.remote && self.on_control_data(conn, id, data) {
            return Taken::All;
        }
        match &mut self.load {
            Load::Bulk(load) => load.on_data(&self.common, id, data, fin),
            Load::Rr(load) => load.on_data(&mut self.common, conn, streams, id, data),
            Load::Handshake(_) | Load::Datagram(_) => {}
        }
        Taken::All
    }

    fn on_event(&mut self, ctx: &mut Context<'_>, conn: ConnId, event: Event) {
        self.paths.watch(ctx, conn, &event);
        match event {
            Event::Connected => self.on_connected(ctx, conn),
            Event::Closed(why) => self.on_closed(ctx, conn, &why),
            Event::Path(event) if self.paths.on_event(&self.common, conn, event) => {
                self.common.counters().connected.add(1);
            }
            Event::HandshakeConfirmed => {
                if let Load::Handshake(load) = &mut self.load {
                    load.on_confirmed(&mut self.common, ctx, conn);
                }
            }
            Event::Stream(event) => match &mut self.load {
                Load::Bulk(load) => load.on_event(&self.common, ctx, conn, event),
                Load::Rr(load) => load.on_event(&mut self.common, ctx, conn, event),
                Load::Handshake(_) | Load::Datagram(_) => {}
            },
            Event::DatagramsUnblocked => {
                if let Load::Datagram(load) = &mut self.load {
                    load.fill(&self.common, ctx, conn);
                }
            }
            _ => {}
        }
    }

    fn on_command(&mut self, ctx: &mut Context<'_>, order: Order) {
        match order {
            Order::WarmUp(connections) => (0..connections).for_each(|_| self.warm_up(ctx)),
            Order::Open => (0..OPENING).for_each(|_| self.open_next(ctx)),
            Order::Start => self.start(ctx),
            Order::Cut(empty) => {
                let full = std::mem::replace(&mut self.common.record, empty);
                // A coordinator that is gone wants no record.
                let _ = self.records.send(full);
            }
            Order::Query => self.query(ctx),
            Order::Cease => self.common.ceased = true,
            Order::Close => {
                self.common.ceased = true;
                let now = ctx.now();
                ctx.endpoint().close_all(now, 0, b"");
            }
        }
    }

    #[inline]
    fn wants_turn(&self) -> bool {
        self.paths.wants_turn()
    }

    fn polls(&self) -> bool {
        false
    }

    fn on_turn(&mut self, ctx: &mut Context<'_>) -> Option<Timestamp> {
        let paths = self.paths.go_on(&self.common, ctx);
        let load = match &mut self.load {
            Load::Bulk(load) => load.on_turn(&self.common, ctx),
            Load::Rr(load) => load.on_turn(&mut self.common, ctx),
            Load::Datagram(load) => load.on_turn(&self.common, ctx),
            Load::Handshake(_) => None,
        };
        load.into_iter().chain(paths).min()
    }
}
