//! One endpoint and one scripted peer in memory, virtual time: whatever the peer sends is handled
//! at once, and everything that the endpoint answers is opened and kept.

use super::pair::Recorder;
use super::raw_peer::{Packet, RawPeer};
use corelane::base::{Ecn, FourTuple, RecvMeta, Rng, SocketId, Timestamp};
use corelane::conn::endpoint::Next;
use corelane::conn::{
    ConnId, Connection, ConnectionError, Endpoint, EndpointConfig, Event, PrefixCaps,
    TransportConfig,
};
use corelane::crypto::Session;
use corelane::wire::frame::Frame;
use corelane::wire::{Code, ConnectionId, PacketType, Side, TransportParameters};
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Generous transport parameters for the scripted peer.
pub fn params() -> TransportParameters {
    TransportParameters {
        max_idle_timeout: Duration::from_secs(3600),
        initial_max_data: 1 << 30,
        initial_max_stream_data_bidi_local: 1 << 30,
        initial_max_stream_data_bidi_remote: 1 << 30,
        initial_max_stream_data_uni: 1 << 30,
        initial_max_streams_bidi: 100,
        initial_max_streams_uni: 100,
        active_connection_id_limit: 4,
        max_datagram_frame_size: 65_535,
        ..TransportParameters::default()
    }
}

/// What the test changes before the first packet.
pub struct Plan {
    pub transport: TransportConfig,
    pub params: TransportParameters,
    pub max_half_open: Option<usize>,
    /// Both sides offer early data.
    pub early: bool,
    pub prefix_caps: PrefixCaps,
    pub seed: u64,
}

impl Default for Plan {
    fn default() -> Self {
        let mut transport = TransportConfig::default();
        transport.max_idle_timeout = Duration::from_secs(7200);
        Self {
            transport,
            params: params(),
            max_half_open: None,
            early: false,
            prefix_caps: PrefixCaps::default(),
            seed: 1,
        }
    }
}

/// See the module.
pub struct Attack {
    pub now: Timestamp,
    pub endpoint: Endpoint,
    pub app: Recorder,
    pub peer: RawPeer,
    pub peer_addr: SocketAddr,
    pub addr: SocketAddr,
    pub ecn: Ecn,
    pub conn: Option<ConnId>,
    pub events: Vec<Event>,
    /// Packets that the endpoint sent, opened.
    pub inbox: Vec<Packet>,
    /// Datagrams that the endpoint sent, as they were, with where they went.
    pub datagrams: Vec<(SocketAddr, Vec<u8>)>,
    /// Bytes that went each way.
    pub sent_to_endpoint: usize,
    pub sent_by_endpoint: usize,
    params: TransportParameters,
    pub identity: super::certs::Identity,
    /// Early data is offered on both sides, and sessions outlive connections.
    server_tls: Arc<rustls::ServerConfig>,
    client_tls: Arc<rustls::ClientConfig>,
    timers: std::collections::BTreeMap<ConnId, Timestamp>,
}

impl Attack {
    fn new(plan: Plan, is_server: bool) -> Self {
        let identity = super::certs::Identity::generate();
        let mut rng = Rng::from_u64(plan.seed);
        let mut server_tls = identity.server_config(&[]);
        let mut client_tls = identity.client_config(&[]);
        if plan.early {
            server_tls.max_early_data_size = u32::MAX;
            client_tls.enable_early_data = true;
        }
        let server_tls = Arc::new(server_tls);
        let mut config = EndpointConfig::new(rng.array());
        config.transport = Arc::new(plan.transport);
        if is_server {
            config.server = Some(server_tls.clone());
        }
        if let Some(n) = plan.max_half_open {
            config.max_half_open = n;
        }
        config.prefix_caps = plan.prefix_caps;
        let scid = ConnectionId::new(&rng.array::<8>()).expect("8 bytes");
        Self {
            now: Timestamp::from_nanos(1_000_000_000),
            endpoint: Endpoint::new(config).expect("a valid configuration"),
            app: Recorder::default(),
            peer: RawPeer::server(scid),
            peer_addr: SocketAddr::from(([127, 0, 0, 1], 1000)),
            addr: SocketAddr::from(([127, 0, 0, 1], 2000)),
            ecn: Ecn::NotEct,
            conn: None,
            events: Vec::new(),
            inbox: Vec::new(),
            datagrams: Vec::new(),
            sent_to_endpoint: 0,
            sent_by_endpoint: 0,
            params: plan.params,
            identity,
            server_tls,
            client_tls: Arc::new(client_tls),
            timers: Default::default(),
        }
    }

    /// The endpoint is a server; nothing was sent yet.
    pub fn on_server(plan: Plan) -> Self {
        let mut a = Self::new(plan, true);
        a.new_client(7);
        a
    }

    /// Makes the scripted peer a fresh client whose connection IDs follow from `seed`.
    pub fn new_client(&mut self, seed: u64) {
        let mut rng = Rng::from_u64(seed);
        let scid = ConnectionId::new(&rng.array::<8>()).expect("8 bytes");
        let dcid = ConnectionId::new(&rng.array::<8>()).expect("8 bytes");
        let mut params = self.params.clone();
        params.initial_source_connection_id.get_or_insert(scid);
        let mut encoded = Vec::new();
        params.encode(Side::Client, &mut encoded, &mut rng);
        self.new_client_with(scid, dcid, encoded);
    }

    /// The same, with transport parameters as bytes.
    pub fn new_client_with(&mut self, scid: ConnectionId, dcid: ConnectionId, encoded: Vec<u8>) {
        let tls = self.client_tls.clone();
        let name = ServerName::try_from("localhost").expect("a name");
        let session = Session::client(tls, name, encoded).expect("a session");
        self.peer = RawPeer::client(session, scid, dcid);
        self.conn = None;
    }

    /// The endpoint is a client that has sent its first flight, which the peer has read.
    pub fn on_client(plan: Plan) -> Self {
        let mut a = Self::new(plan, false);
        a.begin_client();
        a.collect();
        a
    }

    /// Has the endpoint begin another connection, to a peer that knows nothing yet.
    pub fn begin_client(&mut self) {
        let name = ServerName::try_from("localhost").expect("a name");
        let tls = self.client_tls.clone();
        let tuple = FourTuple::new(self.addr, self.peer_addr);
        let id = self
            .endpoint
            .connect(self.now, SocketId(0), tuple, tls, name, None)
            .expect("connects");
        self.peer = RawPeer::server(self.peer.scid);
        self.conn = Some(id);
        self.events.clear();
        self.inbox.clear();
        self.datagrams.clear();
    }

    /// Has the scripted server know no session from before.
    pub fn lose_sessions(&mut self) {
        let mut tls = rustls::ServerConfig::clone(&self.server_tls);
        tls.session_storage = rustls::server::ServerSessionMemoryCache::new(16);
        self.server_tls = Arc::new(tls);
    }

    /// Exchanges flights, whatever comes of it.
    pub fn exchange(&mut self) {
        for _ in 0..6 {
            for datagram in self.peer.flight() {
                self.send(&datagram);
            }
            self.run(Duration::from_millis(1));
        }
    }

    /// Closes the connection, lets it end, and forgets it.
    pub fn end(&mut self) {
        let now = self.now;
        self.connection().close(now, 0, b"");
        self.run(Duration::from_secs(60));
        assert!(self.endpoint.is_empty());
        self.app.accepted.clear();
        self.events.clear();
        self.inbox.clear();
        self.datagrams.clear();
        self.timers.clear();
    }

    /// As a server, answers the client's first flight that was collected.
    pub fn start_server(&mut self, change: impl FnOnce(&mut TransportParameters)) {
        let first = self.inbox.first().expect("the client's Initial").clone();
        let mut params = self.params.clone();
        params.original_destination_connection_id = Some(first.dcid);
        params.initial_source_connection_id = Some(self.peer.scid);
        change(&mut params);
        let mut encoded = Vec::new();
        params.encode(Side::Server, &mut encoded, &mut Rng::from_u64(3));
        let tls = self.server_tls.clone();
        self.peer.session = Some(Session::server(tls, encoded).expect("a session"));
        // What came before there was a session to read it.
        self.peer.spaces[0].forget_received();
        let first = self.datagrams[0].1.clone();
        self.peer.receive(&first);
    }

    /// A connected server endpoint whose client is the scripted peer.
    pub fn server() -> Self {
        Self::server_with(Plan::default())
    }

    pub fn server_with(plan: Plan) -> Self {
        let mut a = Self::on_server(plan);
        a.handshake();
        a
    }

    /// A connected client endpoint whose server is the scripted peer.
    pub fn client() -> Self {
        Self::client_with(Plan::default())
    }

    pub fn client_with(plan: Plan) -> Self {
        let mut a = Self::on_client(plan);
        a.start_server(|_| {});
        a.handshake();
        a.one_rtt(&[0x1e]);
        a.run(Duration::from_millis(100));
        a
    }

    /// Exchanges flights until both are done, and clears what was collected.
    pub fn handshake(&mut self) {
        self.exchange();
        assert!(!self.peer.is_handshaking(), "{:?}", self.events);
        assert!(self.events.contains(&Event::Connected), "{:?}", self.events);
        self.ack_all();
        self.inbox.clear();
        self.datagrams.clear();
    }

    /// Which side the endpoint is.
    pub fn side(&self) -> Side {
        self.peer.side.peer()
    }

    pub fn connection(&mut self) -> &mut Connection {
        let id = self.conn.expect("a connection");
        self.endpoint.wake(id);
        self.endpoint
            .connection(id)
            .expect("the connection is there")
    }

    /// Sends a datagram from the peer's address and collects what comes back at once.
    pub fn send(&mut self, datagram: &[u8]) {
        self.send_from(self.peer_addr, datagram);
    }

    pub fn send_from(&mut self, from: SocketAddr, datagram: &[u8]) {
        self.deliver(from, datagram);
        self.collect();
    }

    /// Hands over a datagram without letting the endpoint answer yet.
    pub fn deliver(&mut self, from: SocketAddr, datagram: &[u8]) {
        self.deliver_at(self.addr, from, datagram);
    }

    /// Hands over a datagram that was sent to another address of the endpoint, which is its second
    /// socket's.
    pub fn deliver_at(&mut self, at: SocketAddr, from: SocketAddr, datagram: &[u8]) {
        let meta = RecvMeta {
            socket: SocketId(u32::from(at != self.addr)),
            path: FourTuple::new(at, from),
            ecn: self.ecn,
            segment_size: datagram.len().max(1),
        };
        self.sent_to_endpoint += datagram.len();
        let mut bytes = datagram.to_vec();
        self.endpoint
            .handle_train(self.now, &meta, &mut bytes, &mut self.app);
        if let Some(id) = self.app.accepted.last() {
            self.conn = Some(*id);
        }
    }

    /// Sends frames in a 1-RTT packet.
    pub fn one_rtt(&mut self, frames: &[u8]) {
        let packet = self.peer.packet(PacketType::OneRtt, frames);
        self.send(&packet);
    }

    /// Acknowledges everything received in the Data space.
    pub fn ack_all(&mut self) {
        let space = &mut self.peer.spaces[2];
        if space.received.is_empty() {
            return;
        }
        space.owes_ack = false;
        let frame = super::raw_peer::ack_frame(&space.ranges());
        self.one_rtt(&frame);
    }

    /// Lets the endpoint do all that is due now.
    pub fn collect(&mut self) {
        let mut buf = vec![0; 65_535];
        let mut out = Vec::new();
        for _ in 0..10_000 {
            let Some(id) = self.endpoint.poll_ready() else {
                break;
            };
            let conn = self.endpoint.connection(id).expect("ready");
            while let Some(event) = conn.poll_event() {
                if self.conn == Some(id) {
                    self.events.push(event);
                }
            }
            while let Some(t) = conn.poll_transmit(self.now, &mut buf) {
                let datagrams = buf[..t.len].chunks(t.segment_size);
                out.extend(datagrams.map(|b| (t.path, b.to_vec())));
            }
            match self.endpoint.finish(id) {
                Next::Timeout(at) => self.timers.insert(id, at),
                Next::Quiet | Next::Gone => self.timers.remove(&id),
            };
        }
        assert!(
            !self.endpoint.has_ready(),
            "the endpoint does not come to rest"
        );
        while let Some(t) = self.endpoint.poll_transmit(&mut buf) {
            out.push((t.path, buf[..t.len].to_vec()));
        }
        for (path, bytes) in out {
            let to = path.remote;
            self.sent_by_endpoint += bytes.len();
            let packets = self.peer.receive(&bytes);
            self.inbox.extend(packets.into_iter().map(|p| Packet {
                from: Some(path.local),
                to: Some(to),
                ..p
            }));
            self.datagrams.push((to, bytes));
        }
    }

    /// When the endpoint wants to be woken.
    pub fn timeout(&self) -> Option<Timestamp> {
        self.timers.values().min().copied()
    }

    /// Lets time pass: the endpoint's timers fire, the peer says nothing.
    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        for _ in 0..100_000 {
            let due: Vec<ConnId> = self
                .timers
                .iter()
                .filter(|(_, at)| **at <= self.now)
                .map(|(id, _)| *id)
                .collect();
            for id in due {
                self.timers.remove(&id);
                self.endpoint.handle_timeout(self.now, id);
            }
            self.collect();
            match self.timeout().filter(|at| *at <= end) {
                Some(at) => self.now = self.now.max(at),
                None => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("the endpoint's timers do not come to rest");
    }

    /// Runs, acknowledging everything every `step`.
    pub fn run_acking(&mut self, span: Duration, step: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.run(step);
            if self.peer.spaces[2].owes_ack {
                self.ack_all();
            }
        }
    }

    /// How the endpoint's connection ended.
    pub fn closed(&self) -> Option<ConnectionError> {
        self.events.iter().find_map(|e| match e {
            Event::Closed(why) => Some(why.clone()),
            _ => None,
        })
    }

    /// The code with which the endpoint called the peer's doing an error.
    pub fn blamed(&self) -> Option<Code> {
        match self.closed()? {
            ConnectionError::PeerMisbehaved(e) => Some(e.code),
            _ => None,
        }
    }

    /// The codes and frame types of CONNECTION_CLOSE frames that came.
    pub fn closes(&self) -> Vec<(PacketType, Code, Option<u64>)> {
        let mut out = Vec::new();
        for p in &self.inbox {
            for f in p.frames() {
                if let Frame::ConnectionClose(c) = f {
                    out.push((p.ty, c.error, c.frame_type));
                }
            }
        }
        out
    }

    /// Asserts that the endpoint blamed the peer with `code` and told it so.
    #[track_caller]
    pub fn expect_error(&mut self, code: Code, what: &str) {
        assert_eq!(self.blamed(), Some(code), "{what}: {:?}", self.closed());
        assert!(
            self.closes().iter().any(|c| c.1 == code),
            "{what}: the peer is told"
        );
    }

    /// Asserts that the connection lives and still answers.
    #[track_caller]
    pub fn expect_alive(&mut self) {
        self.inbox.clear();
        assert_eq!(self.closed(), None);
        self.one_rtt(&[0x01]);
        self.one_rtt(&[0x01]);
        self.run(Duration::from_millis(100));
        let last = self.peer.spaces[2].next_pn - 1;
        let acked = self
            .inbox
            .iter()
            .any(|p| p.has(|f| matches!(f, Frame::Ack(a) if a.largest == last)));
        assert!(acked, "a PING is acknowledged");
    }
}
