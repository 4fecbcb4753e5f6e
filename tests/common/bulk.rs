//! Two endpoints in memory, one bulk stream from the client to the server: the state machine's work
//! without a network, step by step, for what is counted or timed around it.

use super::certs::Identity;
use bytes::Bytes;
use corelane::base::{Ecn, FourTuple, RecvMeta, SocketId, Timestamp};
use corelane::conn::endpoint::Next;
use corelane::conn::{
    Application, ConnId, Connection, Endpoint, EndpointConfig, Event, PathInfo, TransportConfig,
};
use corelane::path::{PathState, PathStatus};
use corelane::recovery::MtuConfig;
use corelane::stream::{StreamEvent, Streams, Taken};
use corelane::sys::clock::Clock;
use corelane::wire::{Dir, StreamId};
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Counts what comes and, as an echo, sends it back.
#[derive(Default)]
pub struct Counter {
    pub bytes: u64,
    pub datagrams: u64,
    pub echo: bool,
}

impl Application for Counter {
    fn on_stream_data(
        &mut self,
        _: ConnId,
        streams: &mut Streams,
        id: StreamId,
        data: &[u8],
        fin: bool,
    ) -> Taken {
        self.bytes += data.len() as u64;
        if self.echo {
            let _ = streams.write(id, data);
            let _ = fin && streams.finish(id).is_ok();
        }
        Taken::All
    }
}

/// Trains from one endpoint: how long each is, where it was cut and how the other end sees it come.
struct Wire {
    buf: Vec<u8>,
    trains: Vec<(usize, RecvMeta)>,
}

fn endpoint(server: Option<Arc<rustls::ServerConfig>>, seed: u8, paths: u32) -> Endpoint {
    let mut transport = TransportConfig::default();
    transport.mtu = MtuConfig::fixed(1452);
    transport.pacing = false;
    transport.max_paths = paths;
    let mut config = EndpointConfig::new([seed; 32]);
    config.transport = Arc::new(transport);
    config.server = server;
    Endpoint::new(config).expect("an endpoint")
}

/// What a connection has to send before each of its trains.
#[derive(Clone)]
enum Work {
    Nothing,
    /// As much of these bytes as the stream takes.
    Stream(StreamId, Bytes),
    /// So many datagrams with these bytes.
    Datagrams(usize, Bytes),
}

impl Work {
    fn queue(&self, conn: &mut Connection) {
        match self {
            Self::Nothing => {}
            Self::Stream(id, data) => {
                let _ = conn.streams_mut().write_bytes(*id, data.clone());
            }
            Self::Datagrams(n, data) => {
                for _ in 0..*n {
                    let _ = conn.send_datagram(data.clone());
                }
            }
        }
    }
}

/// Takes what a connection has to tell; returns how many datagrams came.
fn drain(conn: &mut Connection) -> u64 {
    let mut datagrams = 0;
    while let Some(event) = conn.poll_event() {
        match event {
            Event::Stream(StreamEvent::Opened(dir)) => {
                while conn.streams_mut().accept(dir).is_some() {}
            }
            Event::DatagramReceived => {
                while conn.recv_datagram().is_some() {
                    datagrams += 1;
                }
            }
            _ => {}
        }
    }
    datagrams
}

/// Lets every ready connection write its trains; returns how many datagrams had come.
fn send(e: &mut Endpoint, now: Timestamp, wire: &mut Wire, work: &Work) -> u64 {
    wire.trains.clear();
    let (mut len, mut datagrams) = (0, 0);
    while let Some(id) = e.poll_ready() {
        let Some(conn) = e.connection(id) else {
            continue;
        };
        datagrams += drain(conn);
        for _ in 0..4 {
            work.queue(conn);
            let Some(room) = wire.buf.get_mut(len..len + 65_507) else {
                break;
            };
            let Some(t) = conn.poll_transmit(now, room) else {
                break;
            };
            let meta = RecvMeta {
                socket: SocketId(0),
                path: FourTuple::new(t.path.remote, t.path.local),
                ecn: Ecn::NotEct,
                segment_size: t.segment_size,
            };
            wire.trains.push((t.len, meta));
            len += t.len;
        }
        let _: Next = e.finish(id);
    }
    datagrams
}

fn recv(e: &mut Endpoint, now: Timestamp, wire: &mut Wire, app: &mut Counter) -> u64 {
    let (mut at, mut packets) = (0, 0);
    for (len, meta) in &wire.trains {
        e.handle_train(now, meta, &mut wire.buf[at..at + len], app);
        at += len;
        packets += len.div_ceil(meta.segment_size) as u64;
    }
    packets
}

fn wire() -> Wire {
    Wire {
        buf: vec![0; 4 * 65_536],
        trains: Vec::new(),
    }
}

/// From the client's address `n` to the server's.
fn way(n: u8) -> FourTuple {
    let addr = |last, port| SocketAddr::from(([127, 0, 0, last], port));
    FourTuple::new(addr(n, u16::from(n)), addr(100, 100))
}

/// A connection that has a stream open, and data without end for it; unless it is given other
/// work.
pub struct Bulk {
    client: Endpoint,
    server: Endpoint,
    conn: ConnId,
    work: Work,
    up: Wire,
    down: Wire,
    /// What the server's application took.
    pub app: Counter,
}

/// What one step took, and what it moved.
#[derive(Clone, Copy, Debug, Default)]
pub struct Step {
    /// Building the client's trains.
    pub sending: Duration,
    /// Taking them in at the server, and building its acknowledgements.
    pub receiving: Duration,
    /// Taking those in at the client.
    pub acking: Duration,
    /// Packets of the client.
    pub packets: u64,
    /// Packets of the server.
    pub acks: u64,
}

impl Bulk {
    /// Connects, with packets of 1,452 bytes.
    pub fn connect() -> Self {
        Self::connect_as(&Identity::generate(), Clock::now())
    }

    /// Connects at this time to a server with this identity.
    pub fn connect_as(identity: &Identity, now: Timestamp) -> Self {
        Self::connect_over(1, identity, now)
    }

    /// Connects over so many paths.
    pub fn connect_over(paths: u8, identity: &Identity, mut now: Timestamp) -> Self {
        let most = u32::from(paths);
        let mut client = endpoint(None, 1, most);
        let tls = identity.server_config(&[]);
        let mut server = endpoint(Some(Arc::new(tls)), 2, most);
        let mut app = Counter::default();
        let (mut up, mut down) = (wire(), wire());
        let name = ServerName::try_from("localhost").expect("a name");
        let tls = Arc::new(identity.client_config(&[]));
        let conn = client
            .connect(now, SocketId(0), way(1), tls, name, None)
            .expect("connects");
        let mut open = 1;
        for _ in 0..100 {
            now += Duration::from_micros(100);
            if let Some(c) = client.connection(conn).filter(|_| open < paths) {
                // Not before the server has given connection IDs for it.
                let usual = PathStatus::Available;
                let opened = c.open_path(now, SocketId(0), way(open + 1), usual);
                open += u8::from(opened.is_ok());
            }
            client.handle_timeout(now, conn);
            send(&mut client, now, &mut up, &Work::Nothing);
            recv(&mut server, now, &mut up, &mut app);
            send(&mut server, now, &mut down, &Work::Nothing);
            recv(&mut client, now, &mut down, &mut app);
        }
        let c = client.connection(conn).expect("connected");
        let is_open = |p: &PathInfo| p.state == PathState::Open;
        assert_eq!(c.paths().filter(is_open).count(), usize::from(paths));
        let stream = c.streams_mut().open(Dir::Uni).expect("a stream");
        let data = Bytes::from(vec![7; 256 * 1024]);
        Self {
            client,
            server,
            conn,
            work: Work::Stream(stream, data),
            up,
            down,
            app,
        }
    }

    /// Instead of a stream: before each of up to four trains so many datagrams of this length.
    pub fn send_datagrams(&mut self, many: usize, len: usize) {
        self.work = Work::Datagrams(many, Bytes::from(vec![7; len]));
    }

    /// Instead of a stream without end: one for each call, with a request of this length. The
    /// server sends it back.
    pub fn request(&mut self, len: usize) {
        let conn = self.client.connection(self.conn).expect("connected");
        let stream = conn.streams_mut().open(Dir::Bi).expect("a stream");
        let written = conn.streams_mut().write(stream, &[7; 1024][..len]);
        assert_eq!(written, Ok(len), "there is room for a request");
        let finished = conn.streams_mut().finish(stream);
        finished.expect("nobody ended it before");
        self.work = Work::Nothing;
        self.app.echo = true;
    }

    /// The client sends a few trains.
    pub fn send(&mut self, now: Timestamp) {
        self.client.wake(self.conn);
        send(&mut self.client, now, &mut self.up, &self.work);
    }

    /// The server takes them and builds its acknowledgements; returns how many packets they were.
    pub fn receive(&mut self, now: Timestamp) -> u64 {
        let packets = recv(&mut self.server, now, &mut self.up, &mut self.app);
        let datagrams = send(&mut self.server, now, &mut self.down, &Work::Nothing);
        self.app.datagrams += datagrams;
        packets
    }

    /// The client takes the acknowledgements; returns how many packets they were.
    pub fn be_acked(&mut self, now: Timestamp) -> u64 {
        recv(&mut self.client, now, &mut self.down, &mut self.app)
    }

    /// A few trains there, their acknowledgements back.
    pub fn step(&mut self) -> Step {
        let t0 = Clock::now();
        self.send(t0);
        let t1 = Clock::now();
        let packets = self.receive(t1);
        let t2 = Clock::now();
        let acks = self.be_acked(t2);
        Step {
            sending: t1 - t0,
            receiving: t2 - t1,
            acking: Clock::now() - t2,
            packets,
            acks,
        }
    }
}
