//! What the state machine costs in bulk transfer: two endpoints in memory on one thread, trains
//! handed over without a network. Prints nanoseconds per packet for sending, receiving and
//! acknowledging, AEAD and header protection included.
//!
//! `cargo bench --bench core_bulk [-- MEGABYTES]`

use bytes::Bytes;
use corelane::base::{Ecn, FourTuple, RecvMeta, SocketId, Timestamp};
use corelane::conn::endpoint::Next;
use corelane::conn::{Application, ConnId, Endpoint, EndpointConfig, TransportConfig};
use corelane::recovery::MtuConfig;
use corelane::stream::{Streams, Taken};
use corelane::sys::clock::Clock;
use corelane::wire::{Dir, StreamId};
use rcgen::{CertificateParams, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

#[derive(Default)]
struct Counter {
    bytes: u64,
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

fn configs() -> (Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>) {
    let mut provider = rustls::crypto::ring::default_provider();
    provider
        .cipher_suites
        .retain(|s| s.suite() == rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    let provider = Arc::new(provider);
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".into()]).expect("a name");
    let cert = params.self_signed(&key).expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).expect("a root");
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(
            vec![cert.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .expect("a certificate");
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
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

fn main() {
    let megabytes: u64 = std::env::args()
        .filter_map(|a| a.parse().ok())
        .next()
        .unwrap_or(2_000);
    let (server_tls, client_tls) = configs();
    let (mut client, mut server) = (endpoint(None, 1), endpoint(Some(server_tls), 2));
    let mut app = Counter::default();
    let (mut up, mut down) = (wire(2, 1), wire(1, 2));
    let mut now = Clock::now();
    let name = ServerName::try_from("localhost").expect("a name");
    let id = client
        .connect(now, SocketId(0), down.path, client_tls, name, None)
        .expect("connects");
    for _ in 0..50 {
        now += Duration::from_micros(100);
        client.handle_timeout(now, id);
        send(&mut client, now, &mut up, None);
        recv(&mut server, now, &mut up, &mut app);
        send(&mut server, now, &mut down, None);
        recv(&mut client, now, &mut down, &mut app);
    }
    let conn = client.connection(id).expect("connected");
    let stream = conn.streams_mut().open(Dir::Uni).expect("a stream");
    let data = Bytes::from(vec![7; 256 * 1024]);
    let (mut sending, mut receiving, mut acking) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let (mut packets, mut acks) = (0, 0);
    while app.bytes < megabytes << 20 {
        client.wake(id);
        let t0 = Clock::now();
        send(&mut client, t0, &mut up, Some((&data, stream)));
        let t1 = Clock::now();
        packets += recv(&mut server, t1, &mut up, &mut app);
        send(&mut server, t1, &mut down, None);
        let t2 = Clock::now();
        acks += recv(&mut client, t2, &mut down, &mut app);
        let t3 = Clock::now();
        sending += t1 - t0;
        receiving += t2 - t1;
        acking += t3 - t2;
    }
    let per = |d: Duration| d.as_nanos() as f64 / packets as f64;
    let all = (sending + receiving + acking).as_nanos() as f64;
    println!("packets {packets}, acknowledgements {acks}");
    println!("send      {:7.1} ns/packet", per(sending));
    println!("receive   {:7.1} ns/packet, ACKs built", per(receiving));
    println!("be acked  {:7.1} ns/packet", per(acking));
    println!(
        "one core  {:7.2} Gbit/s of stream data",
        app.bytes as f64 * 8.0 / all
    );
}
