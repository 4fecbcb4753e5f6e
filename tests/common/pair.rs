//! Two endpoints in memory, virtual time between them: what every test of the state machine alone
//! stands on. Datagrams pass through `filter`, which may change, drop or copy them.

use corelane::base::{Ecn, FourTuple, RecvMeta, Rng, SocketId, Timestamp};
use corelane::conn::endpoint::{ConnectError, Next};
use corelane::conn::{
    Application, ConnId, Connection, Decision, Endpoint, EndpointConfig, Event, Incoming,
    IncomingId, TransportConfig,
};
use corelane::stream::{Streams, Taken};
use corelane::wire::StreamId;
use rustls::pki_types::ServerName;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Client and server, as an index.
pub const CLIENT: usize = 0;
/// Client and server, as an index.
pub const SERVER: usize = 1;

/// Records what an endpoint was asked and told.
#[derive(Default)]
pub struct Recorder {
    /// What to do with clients.
    pub decision: Option<Decision>,
    /// Retry for every client whose address is not proven; goes before `decision`.
    pub prove: bool,
    /// Connections accepted.
    pub accepted: Vec<ConnId>,
    /// Stream bytes that came in order, by connection and stream.
    pub received: BTreeMap<(u32, u64), Vec<u8>>,
    /// Streams whose end came.
    pub finished: Vec<(u32, u64)>,
    /// Take nothing from the receive buffer: everything is read from the stream.
    pub refuse_data: bool,
    /// Take so many datagrams where they arrive; the others wait in the connection's queue.
    pub take_datagrams: usize,
    /// Datagrams that were taken.
    pub datagrams: Vec<Vec<u8>>,
    /// Attempts seen, with whether their address was validated.
    pub incoming: Vec<bool>,
    /// Attempts held.
    pub held: Vec<IncomingId>,
}

impl Application for Recorder {
    fn on_stream_data(
        &mut self,
        conn: ConnId,
        _: &mut Streams,
        id: StreamId,
        data: &[u8],
        fin: bool,
    ) -> Taken {
        if self.refuse_data {
            return Taken::Prefix(0);
        }
        self.received
            .entry((conn.index(), id.0))
            .or_default()
            .extend_from_slice(data);
        if fin {
            self.finished.push((conn.index(), id.0));
        }
        Taken::All
    }

    fn on_datagram(&mut self, _: ConnId, data: &[u8]) -> bool {
        let taken = self.take_datagrams > 0;
        if taken {
            self.take_datagrams -= 1;
            self.datagrams.push(data.to_vec());
        }
        taken
    }

    fn on_incoming(&mut self, incoming: &Incoming) -> Decision {
        self.incoming.push(incoming.validated);
        if self.prove && !incoming.validated {
            return Decision::Retry;
        }
        self.decision.unwrap_or(Decision::Accept)
    }

    fn on_held(&mut self, id: IncomingId, _: &Incoming) {
        self.held.push(id);
    }

    fn on_accepted(&mut self, conn: ConnId) {
        self.accepted.push(conn);
    }
}

/// One side.
pub struct Side {
    pub endpoint: Endpoint,
    pub app: Recorder,
    pub addr: SocketAddr,
    pub events: Vec<(ConnId, Event)>,
    /// Close with this code as soon as a connection is there.
    pub close_at_once: Option<u64>,
    timers: BTreeMap<ConnId, Timestamp>,
    inbox: VecDeque<(Timestamp, Passing)>,
    /// More sockets: the first of them has number 1.
    pub more: Vec<SocketAddr>,
}

impl Side {
    /// The socket that has the address; other addresses lead to the first socket, as a NAT's do.
    fn socket(&self, at: SocketAddr) -> (SocketId, SocketAddr) {
        match self.more.iter().position(|a| *a == at) {
            Some(n) => (SocketId(n as u32 + 1), at),
            None => (SocketId(0), self.addr),
        }
    }
}

/// A datagram on its way.
pub struct Passing {
    /// Who sent it: [`CLIENT`] or [`SERVER`].
    pub from: usize,
    pub source: SocketAddr,
    pub to: SocketAddr,
    pub ecn: Ecn,
    pub bytes: Vec<u8>,
    pub now: Timestamp,
}

type Filter = Box<dyn FnMut(Passing) -> Vec<Passing>>;

/// Both sides and what lies between.
pub struct Pair {
    pub now: Timestamp,
    pub sides: [Side; 2],
    pub delay: Duration,
    pub filter: Filter,
    pub tls: Arc<rustls::ClientConfig>,
    pub server_tls: Arc<rustls::ServerConfig>,
    /// Bytes sent by each side.
    pub sent: [usize; 2],
}

/// What a pair is made from.
pub struct Setup {
    pub client: TransportConfig,
    pub server: TransportConfig,
    pub seed: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            client: TransportConfig::default(),
            server: TransportConfig::default(),
            seed: 1,
        }
    }
}

impl Pair {
    pub fn new(setup: Setup) -> Self {
        Self::with_tls(setup, |_| {}, |_| {})
    }

    /// A pair whose TLS configurations were changed first.
    pub fn with_tls(
        setup: Setup,
        server: impl FnOnce(&mut rustls::ServerConfig),
        client: impl FnOnce(&mut rustls::ClientConfig),
    ) -> Self {
        Self::with_identity(setup, &super::certs::Identity::generate(), server, client)
    }

    /// The same, with a certificate of choice.
    pub fn with_identity(
        setup: Setup,
        certs: &super::certs::Identity,
        server: impl FnOnce(&mut rustls::ServerConfig),
        client: impl FnOnce(&mut rustls::ClientConfig),
    ) -> Self {
        let (mut server_tls, mut tls) = (certs.server_config(&[]), certs.client_config(&[]));
        server(&mut server_tls);
        client(&mut tls);
        let server_tls = Arc::new(server_tls);
        let mut rng = Rng::from_u64(setup.seed);
        let mut side = |transport: TransportConfig, server, port: u16| {
            let mut config = EndpointConfig::new(rng.array());
            config.transport = Arc::new(transport);
            config.server = server;
            Side {
                endpoint: Endpoint::new(config).expect("a valid configuration"),
                app: Recorder::default(),
                addr: SocketAddr::from(([127, 0, 0, 1], port)),
                events: Vec::new(),
                close_at_once: None,
                timers: BTreeMap::new(),
                inbox: VecDeque::new(),
                more: Vec::new(),
            }
        };
        let client = side(setup.client, None, 1000);
        let server = side(setup.server, Some(server_tls.clone()), 2000);
        Self {
            now: Timestamp::from_nanos(1_000_000_000),
            sides: [client, server],
            delay: Duration::from_millis(10),
            filter: Box::new(|p| vec![p]),
            tls: Arc::new(tls),
            server_tls,
            sent: [0, 0],
        }
    }

    pub fn connect(&mut self) -> ConnId {
        self.connect_with(None).expect("connects")
    }

    pub fn connect_with(
        &mut self,
        transport: Option<TransportConfig>,
    ) -> Result<ConnId, ConnectError> {
        let tuple = FourTuple::new(self.sides[CLIENT].addr, self.sides[SERVER].addr);
        let name = ServerName::try_from("localhost").expect("a name");
        let tls = self.tls.clone();
        let endpoint = &mut self.sides[CLIENT].endpoint;
        let transport = transport.map(Arc::new);
        endpoint.connect(self.now, SocketId(0), tuple, tls, name, transport)
    }

    /// Connects and runs until both sides have confirmed the handshake.
    pub fn connected(&mut self) -> (ConnId, ConnId) {
        let client = self.connect();
        self.run(Duration::from_millis(500));
        let server = *self.sides[SERVER].app.accepted.last().expect("accepted");
        assert!(self.saw(CLIENT, &Event::Connected) && self.saw(SERVER, &Event::Connected));
        (client, server)
    }

    pub fn conn(&mut self, side: usize, id: ConnId) -> &mut Connection {
        let endpoint = &mut self.sides[side].endpoint;
        endpoint.wake(id);
        endpoint.connection(id).expect("the connection is there")
    }

    pub fn saw(&self, side: usize, event: &Event) -> bool {
        self.sides[side].events.iter().any(|(_, e)| e == event)
    }

    /// How the connection of `side` ended, if it did.
    pub fn closed(&self, side: usize) -> Option<corelane::conn::ConnectionError> {
        self.sides[side].events.iter().find_map(|(_, e)| match e {
            Event::Closed(why) => Some(why.clone()),
            _ => None,
        })
    }

    /// Puts a datagram into a side's inbox, as if it came from `source`.
    pub fn inject(&mut self, to: usize, source: SocketAddr, bytes: Vec<u8>) {
        let now = self.now;
        let passing = Passing {
            from: 1 - to,
            source,
            to: self.sides[to].addr,
            ecn: Ecn::NotEct,
            bytes,
            now,
        };
        self.sides[to].inbox.push_back((now, passing));
    }

    /// Runs for a span of virtual time.
    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        for _ in 0..200_000 {
            let moved = self.turn(CLIENT) | self.turn(SERVER);
            if moved {
                continue;
            }
            let next = self.next_event().filter(|at| *at <= end);
            match next {
                Some(at) => self.now = self.now.max(at),
                None => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("the pair does not come to rest");
    }

    fn next_event(&self) -> Option<Timestamp> {
        let inboxes = self
            .sides
            .iter()
            .filter_map(|s| s.inbox.iter().map(|m| m.0).min());
        let timers = self
            .sides
            .iter()
            .filter_map(|s| s.timers.values().min().copied());
        inboxes.chain(timers).min()
    }

    fn turn(&mut self, which: usize) -> bool {
        let now = self.now;
        let mut moved = false;
        let mut out = Vec::new();
        let side = &mut self.sides[which];
        let mut later = VecDeque::new();
        for (at, mut p) in std::mem::take(&mut side.inbox) {
            if at > now {
                later.push_back((at, p));
                continue;
            }
            moved = true;
            let (socket, local) = side.socket(p.to);
            let meta = RecvMeta {
                socket,
                path: FourTuple::new(local, p.source),
                ecn: p.ecn,
                segment_size: p.bytes.len().max(1),
            };
            side.endpoint
                .handle_train(now, &meta, &mut p.bytes, &mut side.app);
        }
        side.inbox = later;
        let due: Vec<ConnId> = side
            .timers
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            moved = true;
            side.timers.remove(&id);
            side.endpoint.handle_timeout(now, id);
        }
        let mut buf = vec![0; 65_507];
        while let Some(id) = side.endpoint.poll_ready() {
            let conn = side.endpoint.connection(id).expect("ready");
            while let Some(event) = conn.poll_event() {
                if let (Event::Connected, Some(code)) = (&event, side.close_at_once) {
                    conn.close(now, code, b"at once");
                }
                side.events.push((id, event));
            }
            while let Some(t) = conn.poll_transmit(now, &mut buf) {
                out.extend(
                    buf[..t.len]
                        .chunks(t.segment_size)
                        .map(|b| (t.path, t.ecn, b.to_vec())),
                );
            }
            match side.endpoint.finish(id) {
                Next::Timeout(at) => {
                    side.timers.insert(id, at);
                }
                Next::Quiet | Next::Gone => {
                    side.timers.remove(&id);
                }
            }
        }
        while let Some(t) = side.endpoint.poll_transmit(&mut buf) {
            out.push((t.path, t.ecn, buf[..t.len].to_vec()));
        }
        for (path, ecn, bytes) in out {
            moved = true;
            self.sent[which] += bytes.len();
            self.deliver(which, path, ecn, bytes);
        }
        moved
    }

    fn deliver(&mut self, from: usize, path: FourTuple, ecn: Ecn, bytes: Vec<u8>) {
        let passing = Passing {
            from,
            source: path.local,
            to: path.remote,
            ecn,
            bytes,
            now: self.now,
        };
        for p in (self.filter)(passing) {
            // A filter may hold a datagram back.
            let at = self.now.max(p.now) + self.delay;
            self.sides[1 - p.from].inbox.push_back((at, p));
        }
    }
}
