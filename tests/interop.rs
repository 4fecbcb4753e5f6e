//! Files exchanged with an independent implementation, quinn, over real sockets: each as client and
//! as server, clean and through a relay that loses packets, on both backends; and with ourselves on
//! several shards.

mod common;

use common::certs::Identity;
use common::file_app::{FileApp, Job};
use common::files::{ALPN, File, Hash, Request, hash};
use common::quinn_peer;
use common::relay::{Faults, Relay};
use corelane::conn::{ConnectionError, TransportConfig};
use corelane::io::Choice;
use corelane::shard::engine::{Bind, Engine, EngineConfig, Idle};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

fn files() -> Vec<File> {
    [
        ("empty", 0),
        ("one", 1),
        ("small", 1000),
        ("mid", 300_000),
        ("large", 3_000_000),
    ]
    .map(|(name, size)| File::new(name, size))
    .to_vec()
}

fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn config(name: &str, backend: Choice) -> EngineConfig {
    let mut config = EngineConfig::new(name);
    config.backend = backend;
    config.idle = Idle::Park;
    config.bind = Bind::Each(Ipv4Addr::LOCALHOST.into());
    config
}

/// What a side that takes so many paths offers; quinn takes one.
fn offering(paths: u32) -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport.max_paths = paths;
    Arc::new(transport)
}

fn server(identity: &Identity, backend: Choice, shards: usize, paths: u32) -> Engine<FileApp> {
    let mut config = config("server", backend);
    config.shards = shards;
    config.transport = offering(paths);
    config.bind = Bind::Shared(loopback());
    config.server = Some(Arc::new(identity.server_config(&[ALPN])));
    Engine::start(&config, |_| FileApp::server(&files())).expect("the server starts")
}

/// Runs a client to its end and returns the hashes of the answers.
fn client(
    identity: &Identity,
    backend: Choice,
    remote: SocketAddr,
    requests: Vec<Vec<u8>>,
    paths: u32,
) -> Vec<Hash> {
    let job = Job {
        remote,
        tls: Arc::new(identity.client_config(&[ALPN])),
        transport: offering(paths),
        requests,
        stop: true,
    };
    let engine = Engine::start(&config("client", backend), |_| FileApp::client(job.clone()))
        .expect("the client starts");
    let app = engine.join().expect("the client ends").remove(0).app;
    assert_eq!(
        (app.faults, app.closed),
        (vec![], vec![ConnectionError::LocallyClosed])
    );
    app.answers
        .into_iter()
        .map(|a| hash(&a.expect("an answer")))
        .collect()
}

fn gets() -> (Vec<Vec<u8>>, Vec<Hash>) {
    let files = files();
    let requests = files
        .iter()
        .map(|f| Request::Get(&f.name).to_bytes())
        .collect();
    (requests, files.iter().map(File::hash).collect())
}

fn puts() -> (Vec<Vec<u8>>, Vec<Hash>) {
    let files = files();
    let requests = files
        .iter()
        .map(|f| Request::Put(&f.name, &f.contents()).to_bytes())
        .collect();
    // The answer is the hash itself; ours is the hash of that.
    (requests, files.iter().map(|f| hash(&f.hash())).collect())
}

fn against_quinn_server(backend: Choice, faults: Faults, paths: u32) {
    let identity = Identity::generate();
    let server = quinn_peer::Server::start(&identity, &files()).expect("quinn starts");
    let relay = Relay::start(server.addr(), 7, faults, faults).expect("the relay starts");
    for (requests, expected) in [gets(), puts()] {
        assert_eq!(
            client(&identity, backend, relay.addr(), requests, paths),
            expected
        );
    }
}

fn against_quinn_client(backend: Choice, faults: Faults, paths: u32) {
    let identity = Identity::generate();
    let mut server = server(&identity, backend, 1, paths);
    let relay = Relay::start(server.local_addrs()[0], 8, faults, faults).expect("the relay starts");
    let files = files();
    let names: Vec<&str> = files.iter().map(|f| f.name.as_str()).collect();
    let expected: Vec<Hash> = files.iter().map(File::hash).collect();
    let ca = &identity.ca;
    let got = quinn_peer::fetch_all(relay.addr(), "localhost", ca, &names).expect("fetches");
    assert_eq!(got, expected);
    let put = quinn_peer::put_all(relay.addr(), "localhost", ca, &files).expect("puts");
    assert_eq!(put, expected);
    server.stop();
    for report in server.join().expect("the server ends") {
        assert_eq!(report.app.faults, Vec::<String>::new());
    }
}

#[test]
fn quinn_serves_us_on_uring() {
    against_quinn_server(Choice::Auto, Faults::default(), 1);
}

#[test]
fn quinn_serves_us_on_mmsg() {
    against_quinn_server(Choice::Mmsg, Faults::default(), 1);
}

#[test]
fn quinn_serves_us_with_loss() {
    against_quinn_server(Choice::Auto, Faults::loss(0.02), 1);
}

#[test]
fn we_serve_quinn_on_uring() {
    against_quinn_client(Choice::Auto, Faults::default(), 1);
}

#[test]
fn we_serve_quinn_on_mmsg() {
    against_quinn_client(Choice::Mmsg, Faults::default(), 1);
}

#[test]
fn we_serve_quinn_with_loss() {
    against_quinn_client(Choice::Auto, Faults::loss(0.02), 1);
}

/// We would have several paths, quinn does not know of such: one it is (multipath §2).
#[test]
fn quinn_serves_us_who_offer_several_paths() {
    against_quinn_server(Choice::Mmsg, Faults::default(), 4);
}

/// The same, the other way round.
#[test]
fn we_offer_several_paths_and_serve_quinn() {
    against_quinn_client(Choice::Mmsg, Faults::default(), 4);
}

/// quinn sends us early data.
#[test]
fn we_take_quinns_early_data() {
    let identity = Identity::generate();
    let mut tls = identity.server_config(&[ALPN]);
    tls.max_early_data_size = u32::MAX;
    let mut config = config("server", Choice::Auto);
    config.bind = Bind::Shared(loopback());
    config.server = Some(Arc::new(tls));
    config.shards = 2;
    let mut server =
        Engine::start(&config, |_| FileApp::server(&files())).expect("the server starts");
    let addr = server.local_addrs()[0];
    let got = quinn_peer::fetch_early(addr, "localhost", &identity.ca, "mid").expect("fetches");
    let mid = files().iter().find(|f| f.name == "mid").map(File::hash);
    assert_eq!((Some(got.0), Some(got.1), got.2), (mid, mid, true));
    server.stop();
    for report in server.join().expect("the server ends") {
        assert_eq!(report.app.faults, Vec::<String>::new());
    }
}

/// quinn takes early data from us.
#[test]
fn quinn_takes_our_early_data() {
    let identity = Identity::generate();
    let server = quinn_peer::Server::start(&identity, &files()).expect("quinn starts");
    let mut tls = identity.client_config(&[ALPN]);
    tls.enable_early_data = true;
    let endpoint = corelane::api::Endpoint::builder()
        .client(Arc::new(tls))
        .idle(Idle::Park)
        .build()
        .expect("the client starts");
    let expected = files().iter().find(|f| f.name == "mid").map(File::hash);
    futures_executor::block_on(async {
        let mut sent_early = false;
        // On a busy machine the handshake may be faster than this thread.
        for n in 0..100 {
            let connecting = endpoint.connect(server.addr(), "localhost").into_early();
            let connection = connecting.await.expect("connects");
            let (mut send, mut recv) = connection.open_bi().await.expect("a stream");
            let request = Request::Get("mid").to_bytes();
            send.write_all(&request).await.expect("sends");
            send.finish().expect("open");
            let answer = recv.read_to_end(1 << 20).await.expect("an answer");
            assert_eq!(Some(hash(&answer)), expected);
            assert_eq!(connection.early_data_accepted().await, Ok(n > 0));
            let stats = connection.stats().await.expect("alive");
            connection.close(0, b"");
            sent_early = stats.zero_rtt_packets_sent > 0;
            if sent_early {
                break;
            }
        }
        assert!(sent_early, "no 0-RTT packet was ever sent");
        endpoint.wait_idle().await;
    });
}

/// Loopback carries the largest datagrams there are, and discovery finds them.
#[test]
fn datagrams_grow_to_what_the_interface_carries() {
    let identity = Identity::generate();
    for (ip, largest) in [
        (IpAddr::from(Ipv4Addr::LOCALHOST), 65_507),
        (IpAddr::from(Ipv6Addr::LOCALHOST), 65_488),
    ] {
        let mut config = config("server", Choice::Auto);
        config.bind = Bind::Shared(SocketAddr::new(ip, 0));
        config.server = Some(Arc::new(identity.server_config(&[ALPN])));
        let big = [File::new("big", 30_000_000)];
        let mut server =
            Engine::start(&config, |_| FileApp::server(&big)).expect("the server starts");
        let put = Request::Put("big", &big[0].contents()).to_bytes();
        let job = Job {
            remote: server.local_addrs()[0],
            tls: Arc::new(identity.client_config(&[ALPN])),
            transport: Arc::new(TransportConfig::default()),
            requests: vec![put],
            stop: true,
        };
        config.bind = Bind::Each(ip);
        config.server = None;
        let client =
            Engine::start(&config, |_| FileApp::client(job.clone())).expect("the client starts");
        let app = client.join().expect("the client ends").remove(0).app;
        assert_eq!(app.faults, Vec::<String>::new());
        assert_eq!(app.mtu, largest);
        server.stop();
        server.join().expect("the server ends");
    }
}

#[test]
fn four_shards_serve_us() {
    let identity = Identity::generate();
    for backend in [Choice::Auto, Choice::Mmsg] {
        let mut server = server(&identity, backend, 4, 1);
        let addr = server.local_addrs()[0];
        for _ in 0..8 {
            let (requests, expected) = gets();
            assert_eq!(client(&identity, backend, addr, requests, 1), expected);
        }
        server.stop();
        let reports = server.join().expect("the server ends");
        let accepted: u64 = reports.iter().map(|r| r.endpoint.accepted).sum();
        assert_eq!(accepted, 8);
    }
}
