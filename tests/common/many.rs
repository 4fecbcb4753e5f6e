//! Two endpoints in memory with many connections between them, on one thread: what is measured of a
//! connection among others, its memory and its cost, without a network.

use super::certs::Identity;
use bytes::Bytes;
use corelane::base::{Ecn, FourTuple, RecvMeta, SocketId, Timestamp};
use corelane::conn::endpoint::Next;
use corelane::conn::{Application, ConnId, Endpoint, EndpointConfig, TransportConfig};
use corelane::recovery::MtuConfig;
use corelane::shard::wheel::Wheel;
use corelane::stream::{Streams, Taken};
use corelane::wire::{Dir, StreamId};
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// When virtual time begins.
const START: Timestamp = Timestamp::from_nanos(1 << 40);
/// Trains that are announced before they are handed over.
const AHEAD: usize = 3;
/// Bytes of a buffer that trains are collected in.
const ROOM: usize = 4 * 65_536;

/// Counts stream bytes, and at a server answers what ends with as many bytes of its own.
#[derive(Default)]
pub struct Answer {
    pub bytes: u64,
    /// Requests answered, or answers received.
    pub ends: u64,
    answers: bool,
}

impl Application for Answer {
    fn on_stream_data(
        &mut self,
        _: ConnId,
        streams: &mut Streams,
        id: StreamId,
        data: &[u8],
        fin: bool,
    ) -> Taken {
        self.bytes += data.len() as u64;
        if fin {
            self.ends += 1;
            if self.answers && id.dir() == Dir::Bi {
                let _ = streams.write(id, data);
                let _ = streams.finish(id);
            }
        }
        Taken::All
    }
}

/// One side: an endpoint, its application and the trains that it has written.
pub struct Party {
    pub endpoint: Endpoint,
    pub app: Answer,
    buf: Vec<u8>,
    trains: Vec<(usize, usize)>,
    /// When each connection, by its index, asked to be called.
    timers: Wheel,
    /// The path as the other side sees it.
    towards: FourTuple,
}

impl Party {
    fn new(server: Option<Arc<rustls::ServerConfig>>, seed: u8, to: u16, from: u16) -> Self {
        let mut transport = TransportConfig::default();
        transport.mtu = MtuConfig::fixed(1452);
        transport.pacing = false;
        transport.max_idle_timeout = Duration::from_secs(600);
        let mut config = EndpointConfig::new([seed; 32]);
        config.transport = Arc::new(transport);
        config.max_half_open = usize::MAX;
        let answers = server.is_some();
        config.server = server;
        let addr = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            endpoint: Endpoint::new(config).expect("an endpoint"),
            app: Answer {
                answers,
                ..Answer::default()
            },
            buf: vec![0; ROOM],
            trains: Vec::with_capacity(64),
            timers: Wheel::new(START),
            towards: FourTuple::new(addr(to), addr(from)),
        }
    }

    /// Lets ready connections write their trains, as many as fit.
    fn send(&mut self, now: Timestamp) {
        self.trains.clear();
        let mut len = 0;
        while len + 65_507 <= self.buf.len()
            && let Some(id) = self.endpoint.poll_ready()
        {
            let Some(conn) = self.endpoint.connection(id) else {
                continue;
            };
            while conn.poll_event().is_some() {}
            while let Some(room) = self.buf.get_mut(len..len + 65_507)
                && let Some(t) = conn.poll_transmit(now, room)
            {
                self.trains.push((t.len, t.segment_size));
                len += t.len;
            }
            if conn.wants_to_send() && len + 65_507 > self.buf.len() {
                self.endpoint.wake(id);
            }
            match self.endpoint.finish(id) {
                Next::Timeout(at) => self.timers.set(id.index(), at),
                Next::Quiet | Next::Gone => self.timers.clear(id.index()),
            }
        }
    }

    /// Takes in what the other side has written. Returns its packets.
    fn recv(&mut self, now: Timestamp, from: &mut Self) -> u64 {
        let (mut at, mut packets) = (0, 0);
        let mut ahead = 0;
        let mut coming = from.trains.iter();
        let mut expect = |endpoint: &mut Endpoint, buf: &[u8]| {
            if let Some((len, _)) = coming.next() {
                endpoint.expect(&buf[ahead..]);
                ahead += len;
            }
        };
        for _ in 0..AHEAD {
            expect(&mut self.endpoint, &from.buf);
        }
        for (len, segment_size) in &from.trains {
            expect(&mut self.endpoint, &from.buf);
            let meta = RecvMeta {
                socket: SocketId(0),
                path: from.towards,
                ecn: Ecn::NotEct,
                segment_size: *segment_size,
            };
            let train = &mut from.buf[at..at + len];
            self.endpoint.handle_train(now, &meta, train, &mut self.app);
            at += len;
            packets += len.div_ceil(*segment_size) as u64;
        }
        packets
    }

    /// When the first timer is due, or a little before.
    pub fn next_timer(&self) -> Timestamp {
        self.timers.next_deadline().unwrap_or(Timestamp::NEVER)
    }

    fn expire(&mut self, now: Timestamp) -> usize {
        let mut fired = 0;
        while let Some(index) = self.timers.poll(now) {
            if let Some(id) = self.endpoint.id_at(index) {
                fired += 1;
                self.endpoint.handle_timeout(now, id);
            }
        }
        fired
    }
}

/// Many connections. Time is virtual.
pub struct Many {
    pub client: Party,
    pub server: Party,
    pub conns: Vec<ConnId>,
    pub now: Timestamp,
    /// Time that a flight takes.
    pub tick: Duration,
    tls: Arc<rustls::ClientConfig>,
    /// Called before either side works: `true` for the client.
    pub watch: fn(bool),
}

impl Many {
    pub fn new() -> Self {
        let identity = Identity::generate();
        let server = Arc::new(identity.server_config(&[]));
        Self {
            client: Party::new(None, 1, 2, 1),
            server: Party::new(Some(server), 2, 1, 2),
            conns: Vec::new(),
            now: START,
            tick: Duration::from_micros(20),
            tls: Arc::new(identity.client_config(&[])),
            watch: |_| {},
        }
    }

    /// Opens `count` connections more, one after another.
    pub fn connect(&mut self, count: usize) {
        for _ in 0..count {
            (self.watch)(true);
            let name = ServerName::try_from("localhost").expect("a name");
            let path = self.server.towards;
            let tls = self.tls.clone();
            let conn = self
                .client
                .endpoint
                .connect(self.now, SocketId(0), path, tls, name, None);
            self.conns.push(conn.expect("connects"));
            self.settle();
        }
    }

    /// Hands trains over until neither side has more to say. Returns how many packets there were.
    pub fn settle(&mut self) -> u64 {
        let mut packets = 0;
        loop {
            let moved = self.exchange();
            if moved == 0 && !self.client.endpoint.has_ready() {
                return packets;
            }
            packets += moved;
        }
    }

    /// One flight of the client's and one of the server's. Returns their packets.
    pub fn exchange(&mut self) -> u64 {
        self.now += self.tick;
        (self.watch)(true);
        self.client.send(self.now);
        (self.watch)(false);
        let mut packets = self.server.recv(self.now, &mut self.client);
        self.server.send(self.now);
        (self.watch)(true);
        packets += self.client.recv(self.now, &mut self.server);
        packets
    }

    /// Lets time pass, timers firing as they fall due. Returns how many fired.
    pub fn wait(&mut self, time: Duration) -> usize {
        let until = self.now + time;
        let mut fired = 0;
        loop {
            let next = self.client.next_timer().min(self.server.next_timer());
            if next > until {
                self.now = until;
                return fired;
            }
            self.now = self.now.max(next);
            (self.watch)(true);
            fired += self.client.expire(self.now);
            (self.watch)(false);
            fired += self.server.expire(self.now);
            self.settle();
        }
    }

    /// A request of `data` on a stream of its own, at the connection of that number.
    pub fn request(&mut self, conn: usize, data: &Bytes) {
        let id = self.conns[conn];
        (self.watch)(true);
        let c = self.client.endpoint.connection(id).expect("open");
        let streams = c.streams_mut();
        let stream = streams.open(Dir::Bi).expect("a stream");
        streams.write(stream, data).expect("room");
        streams.finish(stream).expect("open");
        self.client.endpoint.wake(id);
    }
}
