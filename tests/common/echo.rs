//! A server that sends back what it gets, and a client of many connections from one socket, each of
//! which has one request; on shards that the test turns itself.

use super::certs::{Identity, SERVER_NAME};
use corelane::base::{RecvMeta, Rng, Timestamp};
use corelane::conn::{ConnId, Endpoint, EndpointConfig, Event, TransportConfig};
use corelane::io::Backend;
use corelane::shard::demux::Outbox;
use corelane::shard::mailbox::Mailbox;
use corelane::shard::steer::CidCodec;
use corelane::shard::{CodecCids, Context, Shard, ShardApp};
use corelane::stream::{StreamEvent, Streams, Taken};
use corelane::wire::{Dir, StreamId};
use rustls::pki_types::ServerName;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Settings under which nothing ends by itself, however busy the machine is.
pub fn patient() -> TransportConfig {
    let mut t = TransportConfig::default();
    t.max_idle_timeout = Duration::from_secs(600);
    t.handshake_deadline = Duration::from_secs(600);
    t
}

/// Sends back what comes, on streams and beside QUIC.
#[derive(Default)]
pub struct Echo {
    /// Our ends of the connections.
    pub locals: HashSet<SocketAddr>,
    /// Their ends.
    pub remotes: HashSet<SocketAddr>,
    /// Connections that are over.
    pub closed: usize,
    /// Datagrams that were not QUIC.
    pub others: Vec<Vec<u8>>,
}

impl ShardApp for Echo {
    type Command = ();

    fn on_stream_data(
        &mut self,
        _: ConnId,
        streams: &mut Streams,
        id: StreamId,
        data: &[u8],
        fin: bool,
    ) -> Taken {
        let _ = streams.write(id, data);
        if fin {
            let _ = streams.finish(id);
        }
        Taken::All
    }

    fn on_event(&mut self, ctx: &mut Context<'_>, conn: ConnId, event: Event) {
        let Some(conn) = ctx.connection(conn) else {
            return;
        };
        self.closed += usize::from(matches!(event, Event::Closed(_)));
        match event {
            Event::Connected => {
                self.locals.insert(conn.path().local);
                self.remotes.insert(conn.path().remote);
            }
            Event::Stream(StreamEvent::Opened(dir)) => {
                while conn.streams_mut().accept(dir).is_some() {}
            }
            _ => {}
        }
    }

    fn on_other(&mut self, out: &mut Outbox, meta: &RecvMeta, datagram: &[u8]) {
        self.others.push(datagram.to_vec());
        out.send(meta.socket, meta.path, datagram).expect("room");
    }
}

/// Where one connection goes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub remote: SocketAddr,
    /// Without a connection ID of the client's.
    pub bare: bool,
}

/// A client of many connections.
pub struct Many {
    pub targets: Vec<Target>,
    /// Handshakes and requests under way at a time.
    pub at_once: usize,
    tls: Arc<rustls::ClientConfig>,
    transport: [Arc<TransportConfig>; 2],
    next: usize,
    /// Which target a connection is for, and what came of its answer.
    conns: HashMap<ConnId, (usize, Vec<u8>)>,
    /// Connections whose answer came.
    pub done: usize,
    /// Connections that are over.
    pub closed: usize,
    /// Each connection leaves from the next of the shard's sockets.
    pub a_socket_each: bool,
    /// End the shard's loop when every answer is there and every connection closed.
    pub stop: bool,
    closing: bool,
    /// The address of the first socket.
    pub local: Option<SocketAddr>,
    /// The most there were at a time.
    pub most: usize,
    /// What should not have happened, and connections that were refused here.
    pub faults: Vec<String>,
}

impl Many {
    pub fn new(identity: &Identity, targets: Vec<Target>, at_once: usize) -> Self {
        let mut bare = patient();
        bare.zero_length_cid = true;
        Self {
            targets,
            at_once,
            tls: Arc::new(identity.client_config(&[])),
            transport: [Arc::new(patient()), Arc::new(bare)],
            next: 0,
            conns: HashMap::new(),
            done: 0,
            closed: 0,
            a_socket_each: false,
            stop: false,
            closing: false,
            local: None,
            most: 0,
            faults: Vec::new(),
        }
    }

    /// Whether every connection has had its answer or was refused.
    pub fn complete(&self) -> bool {
        self.next == self.targets.len() && self.conns.len() == self.done
    }

    fn begin(&mut self, ctx: &mut Context<'_>) {
        let target = self.targets[self.next];
        let sockets = ctx.sockets();
        self.local = Some(sockets[0].1);
        let at = if self.a_socket_each { self.next } else { 0 };
        let socket = sockets[at % sockets.len()].0;
        let name = ServerName::try_from(SERVER_NAME).expect("a name");
        let transport = self.transport[usize::from(target.bare)].clone();
        match ctx.connect(
            socket,
            target.remote,
            self.tls.clone(),
            name,
            Some(transport),
        ) {
            Ok(id) => {
                self.conns.insert(id, (self.next, Vec::new()));
            }
            Err(e) => self.faults.push(e.to_string()),
        }
        self.next += 1;
    }
}

fn question(n: usize) -> Vec<u8> {
    format!("connection {n}").into_bytes()
}

impl ShardApp for Many {
    type Command = ();

    fn on_stream_data(
        &mut self,
        conn: ConnId,
        _: &mut Streams,
        _: StreamId,
        data: &[u8],
        fin: bool,
    ) -> Taken {
        if let Some((n, answer)) = self.conns.get_mut(&conn) {
            answer.extend_from_slice(data);
            if fin {
                self.done += 1;
                if *answer != question(*n) {
                    self.faults.push(format!("{n} was answered {answer:?}"));
                }
            }
        }
        Taken::All
    }

    fn on_event(&mut self, ctx: &mut Context<'_>, conn: ConnId, event: Event) {
        match event {
            Event::Connected => {
                let n = self.conns[&conn].0;
                let streams = ctx.connection(conn).expect("it has an event").streams_mut();
                let id = streams.open(Dir::Bi).expect("the first stream");
                streams.write(id, &question(n)).expect("room");
                streams.finish(id).expect("open");
            }
            Event::Closed(_) => self.closed += 1,
            _ => {}
        }
    }

    fn on_turn(&mut self, ctx: &mut Context<'_>) -> Option<Timestamp> {
        while self.next < self.targets.len() && self.conns.len() - self.done < self.at_once {
            self.begin(ctx);
        }
        self.most = self.most.max(ctx.endpoint().len());
        if self.stop && self.complete() && !std::mem::replace(&mut self.closing, true) {
            let now = ctx.now();
            ctx.endpoint().close_all(now, 0, b"");
        }
        if self.closing && ctx.endpoint().is_empty() {
            ctx.stop();
        }
        // Connections leave at the end of a turn, and nobody tells.
        let soon = ctx.now() + Duration::from_millis(5);
        self.closing.then_some(soon)
    }
}

/// A shard by itself, over a backend whose sockets are still to be added.
pub fn shard<A: ShardApp>(
    now: Timestamp,
    seed: u64,
    backend: Backend,
    identity: Option<&Identity>,
    app: A,
) -> Shard<A> {
    let mut rng = Rng::from_u64(seed);
    let codec = Arc::new(CidCodec::new(rng.next_u64(), 8, 0, 1, None).expect("a codec"));
    let mut config = EndpointConfig::new(rng.array());
    config.transport = Arc::new(patient());
    config.server = identity.map(|i| Arc::new(i.server_config(&[])));
    config.cids = Box::new(CodecCids(codec.clone()));
    let endpoint = Endpoint::new(config).expect("a valid configuration");
    let mailbox = Mailbox::build(1).remove(0);
    let wake = Box::new(|_| {});
    Shard::new(now, 0, backend, endpoint, codec, mailbox, wake, app)
}
