//! Two endpoints in memory, one bulk stream from the client to the server: the state machine's work
//! without a network, step by step, for what is counted or timed around it.

use super::certs::Identity;
use bytes::Bytes;
use corelane::base::{Ecn, FourTuple, RecvMeta, SocketId, Timestamp};
use corelane::conn::endpoint::Next;
use corelane::conn::{Application, ConnId, Endpoint, EndpointConfig, TransportConfig};
use corelane::recovery::MtuConfig;
use corelane::stream::{Streams, Taken};
use corelane::sys::clock::Clock;
use corelane::wire::{Dir, StreamId};
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

#[derive(Default)]
pub struct Counter {
    pub bytes: u64,
}

impl Application for Counter {
    fn on_stream_data(
        &mut self,
        _: ConnId,
        _: &mut Streams,
        _: StreamId,
        data: &[u8],
        _: bool,
    ) -> Taken {
        self.bytes += data.len() as u64;
        Taken::All
    }
}

/// Trains from one endpoint, with where each was cut.
struct Wire {
    buf: Vec<u8>,
    trains: Vec<(usize, usize)>,
    path: FourTuple,
}

fn endpoint(server: Option<Arc<rustls::ServerConfig>>, seed: u8) -> Endpoint {
    let mut transport = TransportConfig::default();
    transport.mtu = MtuConfig::fixed(1452);
    transport.pacing = false;
    let mut config = EndpointConfig::new([seed; 32]);
    config.transport = Arc::new(transport);
    config.server = server;
    Endpoint::new(config).expect("an endpoint")
}

/// Lets every ready connection write its trains.
fn send(e: &mut Endpoint, now: Timestamp, wire: &mut Wire, data: Option<(&Bytes, StreamId)>) {
    wire.trains.clear();
    let mut len = 0;
    while let Some(id) = e.poll_ready() {
        let Some(conn) = e.connection(id) else {
            continue;
        };
        while conn.poll_event().is_some() {}
        for _ in 0..4 {
            if let Some((data, stream)) = data {
                let _ = conn.streams_mut().write_bytes(stream, data.clone());
            }
            let Some(room) = wire.buf.get_mut(len..len + 65_507) else {
                break;
            };
            let Some(t) = conn.poll_transmit(now, room) else {
                break;
            };
            wire.trains.push((t.len, t.segment_size));
            len += t.len;
        }
        let _: Next = e.finish(id);
    }
}

fn recv(e: &mut Endpoint, now: Timestamp, wire: &mut Wire, app: &mut Counter) -> u64 {
    let (mut at, mut packets) = (0, 0);
    for (len, segment_size) in &wire.trains {
        let meta = RecvMeta {
            socket: SocketId(0),
            path: wire.path,
            ecn: Ecn::NotEct,
            segment_size: *segment_size,
        };
        e.handle_train(now, &meta, &mut wire.buf[at..at + len], app);
        at += len;
        packets += len.div_ceil(*segment_size) as u64;
    }
    packets
}

fn wire(to: u16, from: u16) -> Wire {
    let addr = |port| SocketAddr::from(([127, 0, 0, 1], port));
    Wire {
        buf: vec![0; 4 * 65_536],
        trains: Vec::new(),
        path: FourTuple::new(addr(to), addr(from)),
    }
}

/// A connection that has a stream open, and data without end for it.
pub struct Bulk {
    client: Endpoint,
    server: Endpoint,
    conn: ConnId,
    stream: StreamId,
    data: Bytes,
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
        let identity = Identity::generate();
        let mut client = endpoint(None, 1);
        let mut server = endpoint(Some(Arc::new(identity.server_config(&[]))), 2);
        let mut app = Counter::default();
        let (mut up, mut down) = (wire(2, 1), wire(1, 2));
        let mut now = Clock::now();
        let name = ServerName::try_from("localhost").expect("a name");
        let tls = Arc::new(identity.client_config(&[]));
        let conn = client
            .connect(now, SocketId(0), down.path, tls, name, None)
            .expect("connects");
        for _ in 0..50 {
            now += Duration::from_micros(100);
            client.handle_timeout(now, conn);
            send(&mut client, now, &mut up, None);
            recv(&mut server, now, &mut up, &mut app);
            send(&mut server, now, &mut down, None);
            recv(&mut client, now, &mut down, &mut app);
        }
        let c = client.connection(conn).expect("connected");
        let stream = c.streams_mut().open(Dir::Uni).expect("a stream");
        let data = Bytes::from(vec![7; 256 * 1024]);
        Self {
            client,
            server,
            conn,
            stream,
            data,
            up,
            down,
            app,
        }
    }

    /// A few trains there, their acknowledgements back.
    pub fn step(&mut self) -> Step {
        self.client.wake(self.conn);
        let t0 = Clock::now();
        let data = Some((&self.data, self.stream));
        send(&mut self.client, t0, &mut self.up, data);
        let t1 = Clock::now();
        let packets = recv(&mut self.server, t1, &mut self.up, &mut self.app);
        send(&mut self.server, t1, &mut self.down, None);
        let t2 = Clock::now();
        let acks = recv(&mut self.client, t2, &mut self.down, &mut self.app);
        Step {
            sending: t1 - t0,
            receiving: t2 - t1,
            acking: Clock::now() - t2,
            packets,
            acks,
        }
    }
}
