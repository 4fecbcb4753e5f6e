//! Two endpoints in memory, datagrams from the client to the server: the state machine's work
//! without a network, step by step, for what is counted or timed around it.

use super::certs::Identity;
use corelane::base::{Ecn, FourTuple, RecvMeta, SocketId, Timestamp};
use corelane::conn::{Application, ConnId, Endpoint, EndpointConfig, Event, TransportConfig};
use corelane::recovery::MtuConfig;
use corelane::sys::clock::Clock;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How the server's application takes datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taking {
    /// As they come, straight from the packet.
    Shown,
    /// From the queue, all that wait at a time.
    Batch,
    /// From the queue, one by one, each its own `Bytes`.
    Single,
}

/// Counts what it is shown.
#[derive(Debug)]
pub struct Counter {
    pub taking: Taking,
    pub count: u64,
    pub bytes: u64,
}

impl Counter {
    fn see(&mut self, data: &[u8]) {
        self.count += 1;
        self.bytes += data.len() as u64;
    }
}

impl Application for Counter {
    #[inline]
    fn on_datagram(&mut self, _: ConnId, data: &[u8]) -> bool {
        let taken = self.taking == Taking::Shown;
        if taken {
            self.see(data);
        }
        taken
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

/// Lets every ready connection write its trains; tells whether one takes datagrams again.
fn send(e: &mut Endpoint, now: Timestamp, wire: &mut Wire) -> bool {
    wire.trains.clear();
    let (mut len, mut unblocked) = (0, false);
    while let Some(id) = e.poll_ready() {
        let Some(conn) = e.connection(id) else {
            continue;
        };
        while let Some(event) = conn.poll_event() {
            unblocked |= event == Event::DatagramsUnblocked;
        }
        while let Some(room) = wire.buf.get_mut(len..len + 65_507) {
            let Some(t) = conn.poll_transmit(now, room) else {
                break;
            };
            wire.trains.push((t.len, t.segment_size));
            len += t.len;
        }
        let _ = e.finish(id);
    }
    unblocked
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

/// A connection over which datagrams of one length go.
pub struct Datagrams {
    client: Endpoint,
    server: Endpoint,
    conn: ConnId,
    accepted: ConnId,
    data: Vec<u8>,
    up: Wire,
    down: Wire,
    blocked: bool,
    pub app: Counter,
}

/// What one step took, and what it moved.
#[derive(Clone, Copy, Debug, Default)]
pub struct Step {
    /// Queueing by the client's application.
    pub queueing: Duration,
    /// Building the client's trains.
    pub sending: Duration,
    /// Taking them in at the server; what is shown to the application included.
    pub receiving: Duration,
    /// Taking datagrams from the queue.
    pub taking: Duration,
    /// Building acknowledgements, and taking them in at the client.
    pub acking: Duration,
    /// Packets of the client.
    pub packets: u64,
    /// Datagrams queued.
    pub queued: u64,
}

impl Datagrams {
    /// Connects, with packets of 1,452 bytes.
    pub fn connect(len: usize, taking: Taking) -> Self {
        let identity = Identity::generate();
        let mut client = endpoint(None, 1);
        let mut server = endpoint(Some(Arc::new(identity.server_config(&[]))), 2);
        let mut app = Counter {
            taking,
            count: 0,
            bytes: 0,
        };
        let (mut up, mut down) = (wire(2, 1), wire(1, 2));
        let mut now = Clock::now();
        let name = ServerName::try_from("localhost").expect("a name");
        let tls = Arc::new(identity.client_config(&[]));
        let conn = client
            .connect(now, SocketId(0), down.path, tls, name, None)
            .expect("connects");
        let mut accepted = None;
        for _ in 0..50 {
            now += Duration::from_micros(100);
            client.handle_timeout(now, conn);
            send(&mut client, now, &mut up);
            recv(&mut server, now, &mut up, &mut app);
            accepted = accepted.or_else(|| server.id_at(0));
            send(&mut server, now, &mut down);
            recv(&mut client, now, &mut down, &mut app);
        }
        Self {
            client,
            server,
            conn,
            accepted: accepted.expect("a connection"),
            data: vec![7; len],
            up,
            down,
            blocked: false,
            app,
        }
    }

    /// A queue's worth there, as far as the window lets it; acknowledgements back.
    pub fn step(&mut self) -> Step {
        let mut step = Step::default();
        let t0 = Clock::now();
        self.client.wake(self.conn);
        let client = self.client.connection(self.conn).expect("connected");
        if !std::mem::replace(&mut self.blocked, true) {
            let mut batch = client.datagram_batch().expect("datagrams are taken");
            while batch.push(&self.data).is_ok() {
                step.queued += 1;
            }
        }
        let t1 = Clock::now();
        self.blocked = !send(&mut self.client, t1, &mut self.up);
        let t2 = Clock::now();
        step.packets = recv(&mut self.server, t2, &mut self.up, &mut self.app);
        let t3 = Clock::now();
        let server = self.server.connection(self.accepted).expect("connected");
        match self.app.taking {
            Taking::Shown => {}
            Taking::Batch => {
                server.recv_datagrams(|data| self.app.see(data));
            }
            Taking::Single => {
                while let Some(data) = server.recv_datagram() {
                    self.app.see(&data);
                }
            }
        }
        let t4 = Clock::now();
        send(&mut self.server, t4, &mut self.down);
        recv(&mut self.client, t4, &mut self.down, &mut self.app);
        step.queueing = t1 - t0;
        step.sending = t2 - t1;
        step.receiving = t3 - t2;
        step.taking = t4 - t3;
        step.acking = Clock::now() - t4;
        step
    }
}
