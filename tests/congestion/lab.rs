//! Flows of one client host to one server host over one bottleneck, each on shards of its own.

use super::common::certs::Identity;
use bytes::Bytes;
use corelane::base::{Rng, Timestamp};
use corelane::conn::{ConnId, Endpoint, EndpointConfig, Event, TransportConfig};
use corelane::io::sim::{LinkConfig, Network, NetworkStats, SimBackend};
use corelane::io::{Backend, IoConfig};
use corelane::recovery::Algorithm;
use corelane::shard::app::{Context, ShardApp};
use corelane::shard::mailbox::Mailbox;
use corelane::shard::steer::CidCodec;
use corelane::shard::{CodecCids, Shard};
use corelane::stream::{StreamEvent, Streams, Taken};
use corelane::wire::{Dir, StreamId};
use rustls::pki_types::ServerName;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
/// How often delays are looked at.
const SAMPLE: Duration = Duration::from_millis(10);

/// A bottleneck towards the server; the way back is as far and never full.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    pub mbps: u64,
    /// There and back with empty queues.
    pub rtt: Duration,
    /// The bottleneck's queue in bandwidth-delay products.
    pub queue_bdp: f64,
    pub loss: f64,
    /// Marks CE where that much waits, in bandwidth-delay products.
    pub mark: Option<f64>,
}

impl Path {
    fn links(&self) -> (LinkConfig, LinkConfig) {
        let bdp = self.mbps as f64 * 1e6 / 8.0 * self.rtt.as_secs_f64();
        let back = LinkConfig {
            delay: self.rtt / 2,
            mtu: 1500,
            ..LinkConfig::default()
        };
        let there = LinkConfig {
            rate_bps: Some(self.mbps * 1_000_000),
            queue_bytes: (bdp * self.queue_bdp) as u64,
            ecn_mark_bytes: self.mark.map(|share| (bdp * share) as u64),
            loss: self.loss,
            ..back
        };
        (there, back)
    }
}

/// One flow: always something to send, or so many bytes in every interval.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    pub algorithm: Algorithm,
    pub portion: Option<(usize, Duration)>,
    /// When it begins.
    pub starts: Duration,
}

impl Flow {
    pub fn new(algorithm: Algorithm) -> Self {
        Self {
            algorithm,
            portion: None,
            starts: Duration::ZERO,
        }
    }
}

/// Either end of a flow.
struct Bulk {
    flow: Option<(Flow, Timestamp)>,
    remote: SocketAddr,
    tls: Option<Arc<rustls::ClientConfig>>,
    transport: Arc<TransportConfig>,
    conn: Option<ConnId>,
    stream: Option<StreamId>,
    data: Bytes,
    /// Bytes that may be written now.
    allowed: usize,
    next_portion: Timestamp,
    received: u64,
    closed: bool,
}

impl Bulk {
    fn push(&mut self, ctx: &mut Context<'_>) {
        let (Some(conn), Some(stream)) = (self.conn, self.stream) else {
            return;
        };
        let Some(c) = ctx.connection(conn) else {
            return;
        };
        while self.allowed > 0 {
            let n = self.allowed.min(self.data.len());
            match c.streams_mut().write_bytes(stream, self.data.slice(..n)) {
                Ok(n) if n > 0 => self.allowed = self.allowed.saturating_sub(n),
                _ => return,
            }
        }
    }
}

impl ShardApp for Bulk {
    type Command = ();

    fn on_stream_data(
        &mut self,
        _: ConnId,
        _: &mut Streams,
        _: StreamId,
        data: &[u8],
        _: bool,
    ) -> Taken {
        self.received += data.len() as u64;
        Taken::All
    }

    fn on_event(&mut self, ctx: &mut Context<'_>, conn: ConnId, event: Event) {
        match event {
            Event::Connected if self.flow.is_some() => {
                let c = ctx.connection(conn).expect("connected");
                self.stream = c.streams_mut().open(Dir::Uni).ok();
                self.push(ctx);
            }
            Event::Stream(StreamEvent::Writable(_)) => self.push(ctx),
            Event::Stream(StreamEvent::Readable(id)) => {
                let c = ctx.connection(conn).expect("open");
                while let Ok(corelane::stream::ReadChunk::Data(d)) =
                    c.streams_mut().read_bytes(id, usize::MAX)
                {
                    self.received += d.len() as u64;
                }
            }
            Event::Closed(_) => self.closed = true,
            _ => {}
        }
    }

    fn on_turn(&mut self, ctx: &mut Context<'_>) -> Option<Timestamp> {
        let (flow, starts) = self.flow?;
        if ctx.now() < starts {
            return Some(starts);
        }
        if self.conn.is_none() {
            let socket = ctx.sockets().first()?.0;
            let name = ServerName::try_from("localhost").ok()?;
            let transport = Some(self.transport.clone());
            let tls = self.tls.clone()?;
            self.conn = ctx.connect(socket, self.remote, tls, name, transport).ok();
        }
        let (bytes, every) = flow.portion?;
        if ctx.now() >= self.next_portion {
            self.next_portion = ctx.now() + every;
            self.allowed = bytes;
            self.push(ctx);
        }
        Some(self.next_portion)
    }
}

/// Flows and their bottleneck.
pub struct Lab {
    network: Network,
    clients: Vec<Shard<Bulk>>,
    servers: Vec<Shard<Bulk>>,
    pub now: Timestamp,
    queue_delay: Vec<(Duration, u32)>,
    rtt: Duration,
}

impl Lab {
    pub fn new(seed: u64, path: Path, flows: &[Flow]) -> Self {
        let identity = Identity::fixed();
        let mut rng = Rng::from_u64(seed);
        let network = Network::new(rng.next_u64());
        let now = Timestamp::from_nanos(1_000_000_000);
        network.advance_to(now);
        let mut lab = Self {
            network,
            clients: Vec::new(),
            servers: Vec::new(),
            now,
            queue_delay: vec![(Duration::ZERO, 0); flows.len()],
            rtt: path.rtt,
        };
        lab.change(path);
        for (i, flow) in flows.iter().enumerate() {
            let mut transport = TransportConfig::default();
            transport.congestion = flow.algorithm;
            let transport = Arc::new(transport);
            let remote = SocketAddr::new(SERVER, 4433 + i as u16);
            let bulk = |flow: Option<Flow>, tls| Bulk {
                flow: flow.map(|f| (f, now + f.starts)),
                remote,
                tls,
                transport: transport.clone(),
                conn: None,
                stream: None,
                data: Bytes::from(vec![7; 1 << 20]),
                allowed: if flow.is_some_and(|f| f.portion.is_none()) {
                    usize::MAX
                } else {
                    0
                },
                next_portion: Timestamp::ZERO,
                received: 0,
                closed: false,
            };
            let mut config = EndpointConfig::new(rng.array());
            config.server = Some(Arc::new(identity.server_config(&[b"bulk"])));
            let shard = lab.shard(rng.next_u64(), config, remote, bulk(None, None));
            lab.servers.push(shard);
            let tls = Arc::new(identity.client_config(&[b"bulk"]));
            let config = EndpointConfig::new(rng.array());
            let local = SocketAddr::new(CLIENT, 5000 + i as u16);
            let app = bulk(Some(*flow), Some(tls));
            let shard = lab.shard(rng.next_u64(), config, local, app);
            lab.clients.push(shard);
        }
        lab
    }

    fn shard(
        &self,
        secret: u64,
        mut config: EndpointConfig,
        addr: SocketAddr,
        app: Bulk,
    ) -> Shard<Bulk> {
        let codec = Arc::new(CidCodec::new(secret, 8, 0, 1, None).expect("a codec"));
        config.cids = Box::new(CodecCids(codec.clone()));
        let io = IoConfig::default();
        let mut backend = SimBackend::new(&self.network, &[addr.ip()], &io).expect("a backend");
        let socket = backend.bind(addr).expect("a free address");
        let endpoint = Endpoint::new(config).expect("a valid configuration");
        let mailbox = Mailbox::build(1).remove(0);
        let backend = Backend::Sim(Box::new(backend));
        let sleep = Box::new(|_| {});
        let mut shard = Shard::new(self.now, 0, backend, endpoint, codec, mailbox, sleep, app);
        shard.note_socket(socket);
        shard
    }

    /// The path is another one from now on.
    pub fn change(&mut self, path: Path) {
        let (there, back) = path.links();
        self.network.link(CLIENT, SERVER, there);
        self.network.link(SERVER, CLIENT, back);
        self.rtt = path.rtt;
    }

    /// Runs for a span of virtual time.
    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        let mut next_sample = self.now;
        loop {
            let next = self.settle();
            if self.now >= next_sample {
                next_sample = self.now + SAMPLE;
                self.sample();
            }
            if self.now >= end {
                return;
            }
            let next = next.into_iter().chain(self.network.next_event()).min();
            self.now = next
                .unwrap_or(end)
                .max(self.now + Duration::from_nanos(1))
                .min(end);
            self.network.advance_to(self.now);
        }
    }

    fn settle(&mut self) -> Option<Timestamp> {
        loop {
            let mut busy = false;
            let mut next: Option<Timestamp> = None;
            for shard in self.servers.iter_mut().chain(&mut self.clients) {
                let turn = shard.run_once(self.now).expect("a turn");
                busy |= turn.worked || turn.busy;
                next = next.into_iter().chain(turn.next).min();
            }
            if !busy && !self.network.has_unread() {
                return next;
            }
        }
    }

    fn sample(&mut self) {
        for i in 0..self.clients.len() {
            if let Some(stats) = self.path_stats(i) {
                let queue = stats.smoothed_rtt.saturating_sub(self.rtt);
                let (sum, n) = &mut self.queue_delay[i];
                *sum += queue;
                *n += 1;
            }
        }
    }

    pub fn path_stats(&mut self, flow: usize) -> Option<corelane::conn::PathStats> {
        let id = self.clients[flow].app().conn?;
        let conn = self.clients[flow].endpoint().connection(id)?;
        Some(conn.path_stats())
    }

    pub fn stats(&mut self, flow: usize) -> corelane::conn::ConnectionStats {
        let id = self.clients[flow].app().conn.expect("begun");
        let endpoint = self.clients[flow].endpoint();
        endpoint.connection(id).expect("open").stats()
    }

    /// Mbit/s of payload that each flow brings over in the next `span`.
    pub fn mbps(&mut self, span: Duration) -> Vec<f64> {
        for (sum, n) in &mut self.queue_delay {
            (*sum, *n) = (Duration::ZERO, 0);
        }
        let before: Vec<u64> = self.servers.iter().map(|s| s.app().received).collect();
        self.run(span);
        let after = self.servers.iter().map(|s| s.app().received);
        after
            .zip(before)
            .map(|(a, b)| (a - b) as f64 * 8.0 / 1e6 / span.as_secs_f64())
            .collect()
    }

    /// How much longer than the path's own the smoothed RTT of a flow was, on average, since
    /// [`Lab::mbps`] was last asked.
    pub fn mean_queue_delay(&self, flow: usize) -> Duration {
        let (sum, n) = self.queue_delay[flow];
        sum / n.max(1)
    }

    pub fn network_stats(&self) -> NetworkStats {
        self.network.stats()
    }
}
