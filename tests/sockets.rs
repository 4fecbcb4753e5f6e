//! Many connections and few sockets: one client socket for ten thousand connections to a hundred
//! destinations, wildcard and connected sockets, sockets that the embedder brings, and another
//! protocol beside QUIC. Loopback only, and the simulator.

mod common;

use common::certs::Identity;
use common::echo::{Echo, Many, Target, patient, shard};
use corelane::base::{Rng, Timestamp, limits};
use corelane::io::sim::{LinkConfig, Network, SimBackend};
use corelane::io::{Backend, Choice, Errno, IoConfig, IoError, SocketOptions};
use corelane::shard::Shard;
use corelane::shard::demux::Demux;
use corelane::shard::engine::{self, Bind, Engine, EngineConfig, Idle};
use corelane::shard::quic_lb::QuicLbConfig;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// Longer than any machine needs.
const PATIENCE: Duration = Duration::from_secs(300);

/// The kernel's backends that this machine has.
fn backends() -> Vec<Choice> {
    [Choice::Mmsg, Choice::Uring]
        .into_iter()
        .filter(
            |choice| match Backend::open(*choice, &IoConfig::default()) {
                Ok(_) => true,
                Err(e @ IoError::Unavailable { .. }) => {
                    eprintln!("skipped: {e}");
                    false
                }
                Err(e) => panic!("{e}"),
            },
        )
        .collect()
}

fn open(choice: Choice) -> Backend {
    Backend::open(choice, &IoConfig::default()).expect("a backend")
}

fn bound(addr: &str) -> UdpSocket {
    UdpSocket::bind(addr).expect("a free port")
}

/// Turns both shards on real sockets until `done`.
fn drive(
    server: &mut Shard<Echo>,
    client: &mut Shard<Many>,
    mut done: impl FnMut(&mut Shard<Echo>, &mut Shard<Many>) -> bool,
) {
    let start = engine::now();
    loop {
        let now = engine::now();
        let a = server.run_once(now).expect("the server goes on");
        let b = client.run_once(now).expect("the client goes on");
        if done(server, client) {
            return;
        }
        if now - start > PATIENCE {
            stuck(server, client);
        }
        if !(a.worked || a.busy || b.worked || b.busy) {
            client
                .park(now, Some(now + Duration::from_millis(1)))
                .expect("the client sleeps");
        }
    }
}

fn stuck(server: &mut Shard<Echo>, client: &mut Shard<Many>) -> ! {
    let app = client.app();
    let told = (app.done, app.closed, server.app().closed, &app.faults);
    eprintln!("answers, closed here and there, faults: {told:?}");
    eprintln!("{:?}", server.backend().stats());
    eprintln!("{:?}", client.backend().stats());
    let left = [server.endpoint().len(), client.endpoint().len()];
    panic!("the shards do not come to an end: {left:?} connections are left");
}

/// Closes what there is and waits until nothing is left of it.
fn wind_up(server: &mut Shard<Echo>, client: &mut Shard<Many>) {
    let ids: Vec<_> = client.endpoint().ids().collect();
    // A close that finds the server's socket full is not repeated to a peer that says nothing.
    for some in ids.chunks(50) {
        let due = server.app().closed + some.len();
        let now = engine::now();
        for id in some {
            client.with_context(now, |_, ctx| {
                let conn = ctx.connection(*id).expect("it was there");
                conn.close(now, 0, b"");
            });
        }
        drive(server, client, |server, _| server.app().closed == due);
    }
    drive(server, client, |server, client| {
        client.endpoint().is_empty() && server.endpoint().is_empty()
    });
    nothing_left(server, client);
}

fn nothing_left(server: &mut Shard<Echo>, client: &mut Shard<Many>) {
    for endpoint in [server.endpoint(), client.endpoint()] {
        assert_eq!((endpoint.len(), endpoint.routes()), (0, 0));
        assert!(!endpoint.has_ready());
    }
    assert_eq!(client.app().closed, client.app().done);
}

/// `count` connections in turn to each of the destinations; each destination's first has no
/// connection ID.
fn targets(count: usize, destinations: &[SocketAddr]) -> Vec<Target> {
    let rounds = destinations.len();
    let one = |n: usize| Target {
        remote: destinations[n % rounds],
        bare: n < rounds,
    };
    (0..count).map(one).collect()
}

#[test]
fn ten_thousand_connections_to_a_hundred_destinations_share_a_socket() {
    const CONNECTIONS: usize = 10_000;
    let identity = Identity::generate();
    let choice = *backends().last().expect("a backend");
    let now = engine::now();
    let mut server = shard(now, 1, open(choice), Some(&identity), Echo::default());
    let listening = bound("0.0.0.0:0");
    let port = listening.local_addr().expect("bound").port();
    let options = SocketOptions::default();
    server.add_socket(listening, options).expect("room");
    // One wildcard socket has all of these addresses.
    let destinations: Vec<SocketAddr> = (1..=100)
        .map(|n| SocketAddr::from(([127, 0, 1, n], port)))
        .collect();
    let app = Many::new(&identity, targets(CONNECTIONS, &destinations), 200);
    let mut client = shard(now, 2, open(choice), None, app);
    client
        .add_socket(bound("0.0.0.0:0"), options)
        .expect("room");
    drive(&mut server, &mut client, |_, client| {
        client.app().complete()
    });
    assert_eq!(client.app().faults, Vec::<String>::new());
    assert_eq!(
        (client.app().done, client.app().most),
        (CONNECTIONS, CONNECTIONS)
    );
    assert_eq!((client.sockets().len(), server.sockets().len()), (1, 1));
    assert_eq!(server.app().remotes.len(), 1, "one socket is one address");
    let addressed: HashSet<SocketAddr> = destinations.into_iter().collect();
    assert_eq!(server.app().locals, addressed);
    wind_up(&mut server, &mut client);
}

/// The same in virtual time, over links that lose, reorder and repeat.
#[test]
fn many_simulated_connections_to_a_hundred_destinations_share_a_socket() {
    const CONNECTIONS: usize = 1_000;
    let run = |seed: u64| {
        let identity = Identity::fixed();
        let network = Network::new(seed);
        let mut now = Timestamp::from_nanos(1_000_000_000);
        network.advance_to(now);
        network.default_link(LinkConfig {
            delay: Duration::from_millis(10),
            jitter: Duration::from_millis(2),
            loss: 0.02,
            duplicate: 0.02,
            reorder: 0.02,
            reorder_delay: Duration::from_millis(5),
            ..LinkConfig::default()
        });
        let hosts: Vec<IpAddr> = (1..=100)
            .map(|n| Ipv4Addr::new(10, 0, 1, n).into())
            .collect();
        let io = IoConfig::default();
        let sim = |hosts: &[IpAddr], addr: SocketAddr| {
            let mut backend = SimBackend::new(&network, hosts, &io).expect("memory");
            let id = backend.bind(addr).expect("a free address");
            (Backend::Sim(Box::new(backend)), id)
        };
        let (backend, id) = sim(&hosts, "0.0.0.0:443".parse().expect("an address"));
        let mut server = shard(now, seed, backend, Some(&identity), Echo::default());
        server.note_socket(id);
        let home = Ipv4Addr::new(10, 0, 2, 1).into();
        let (backend, id) = sim(&[home], "0.0.0.0:5000".parse().expect("an address"));
        let destinations: Vec<_> = hosts.iter().map(|ip| SocketAddr::new(*ip, 443)).collect();
        let app = Many::new(&identity, targets(CONNECTIONS, &destinations), 100);
        let mut client = shard(now, seed + 1, backend, None, app);
        client.note_socket(id);
        let end = now + Duration::from_secs(3600);
        let mut closing = false;
        while now < end {
            let a = server.run_once(now).expect("it goes on");
            let b = client.run_once(now).expect("it goes on");
            if a.worked || a.busy || b.worked || b.busy || network.has_unread() {
                continue;
            }
            if client.app().complete() && !std::mem::replace(&mut closing, true) {
                client.endpoint().close_all(now, 0, b"");
                continue;
            }
            if closing && client.endpoint().is_empty() && server.endpoint().is_empty() {
                break;
            }
            let next = [a.next, b.next, network.next_event()];
            now = next.into_iter().flatten().min().unwrap_or(end).max(now);
            network.advance_to(now);
        }
        assert_eq!(client.app().faults, Vec::<String>::new());
        assert_eq!(client.app().done, CONNECTIONS);
        nothing_left(&mut server, &mut client);
        assert_eq!(server.app().locals.len(), 100);
        (now, network.stats().sent)
    };
    assert_eq!(run(7), run(7), "a seed repeats exactly");
}

/// Packet info: the answer comes from the address that was asked, else the client would not take
/// it. A dual-stack wildcard has IPv4 addresses, too.
#[test]
fn a_wildcard_server_answers_from_the_address_that_was_addressed() {
    let identity = Identity::generate();
    for choice in backends() {
        for (listen, addresses) in [
            ("0.0.0.0:0", vec!["127.0.0.1", "127.0.0.2", "127.9.8.7"]),
            ("[::]:0", vec!["::1", "127.0.0.1", "127.0.0.2"]),
        ] {
            let Ok(listening) = UdpSocket::bind(listen) else {
                eprintln!("skipped: this machine has no IPv6");
                continue;
            };
            let port = listening.local_addr().expect("bound").port();
            let now = engine::now();
            let options = SocketOptions::default();
            let mut server = shard(now, 1, open(choice), Some(&identity), Echo::default());
            server.add_socket(listening, options).expect("room");
            let parse = |ip: &&str| SocketAddr::new(ip.parse().expect("an address"), port);
            let all: Vec<SocketAddr> = addresses.iter().map(parse).collect();
            let app = Many::new(&identity, targets(2 * all.len(), &all), 10);
            let mut client = shard(now, 2, open(choice), None, app);
            client.add_socket(bound(listen), options).expect("room");
            drive(&mut server, &mut client, |_, client| {
                client.app().complete()
            });
            assert_eq!(client.app().faults, Vec::<String>::new());
            assert_eq!(server.app().locals, all.into_iter().collect());
            wind_up(&mut server, &mut client);
        }
    }
}

#[test]
fn a_second_connection_without_a_connection_id_is_refused_on_the_same_four_tuple_only() {
    let identity = Identity::generate();
    let now = engine::now();
    let options = SocketOptions::default();
    let mut server = shard(now, 1, open(Choice::Mmsg), Some(&identity), Echo::default());
    let listening = bound("0.0.0.0:0");
    let port = listening.local_addr().expect("bound").port();
    server.add_socket(listening, options).expect("room");
    let to = |last: u8, bare| Target {
        remote: SocketAddr::from(([127, 0, 0, last], port)),
        bare,
    };
    let all = vec![
        to(1, true),
        to(1, false),
        to(1, true),
        to(2, true),
        to(2, false),
    ];
    let mut client = shard(
        now,
        2,
        open(Choice::Mmsg),
        None,
        Many::new(&identity, all, 10),
    );
    client
        .add_socket(bound("0.0.0.0:0"), options)
        .expect("room");
    drive(&mut server, &mut client, |_, client| {
        client.app().complete()
    });
    let [why] = client.app().faults.as_slice() else {
        panic!("{:?}", client.app().faults);
    };
    assert!(why.contains("another socket or local address"), "{why}");
    assert_eq!(client.app().done, 4);
    wind_up(&mut server, &mut client);
}

/// One socket that takes no more leaves the others' connections their turn and their buffers.
#[test]
fn a_full_socket_holds_up_no_other() {
    let identity = Identity::generate();
    let now = engine::now();
    let options = SocketOptions::default();
    let mut server = shard(now, 1, open(Choice::Mmsg), Some(&identity), Echo::default());
    let listening = bound("127.0.0.1:0");
    let remote = listening.local_addr().expect("bound");
    server.add_socket(listening, options).expect("room");
    let io = IoConfig {
        tx_buffers: 4,
        ..IoConfig::default()
    };
    let backend = Backend::open(Choice::Mmsg, &io).expect("a backend");
    let both = [false, false].map(|bare| Target { remote, bare });
    let mut app = Many::new(&identity, both.to_vec(), 2);
    app.a_socket_each = true;
    let mut client = shard(now, 2, backend, None, app);
    for _ in 0..2 {
        client
            .add_socket(bound("127.0.0.1:0"), options)
            .expect("room");
    }
    drive(&mut server, &mut client, |_, client| {
        client.app().complete()
    });
    let ids: Vec<_> = client.endpoint().ids().collect();
    let sockets = ids.clone().into_iter().map(|id| {
        let conn = client.endpoint().connection(id).expect("it is there");
        conn.socket()
    });
    assert_eq!(sockets.collect::<HashSet<_>>().len(), 2);
    // The first has more trains to send than its socket is given; the second has one datagram.
    let sent = |client: &mut Shard<Many>, n: usize| {
        let conn = client.endpoint().connection(ids[n]).expect("it is there");
        conn.stats().udp_datagrams_sent
    };
    let before = [sent(&mut client, 0), sent(&mut client, 1)];
    let now = engine::now();
    client.with_context(now, |_, ctx| {
        for (id, len) in [(ids[0], 1_000_000), (ids[1], 10)] {
            let streams = ctx.connection(id).expect("it is there").streams_mut();
            let stream = streams.open(corelane::wire::Dir::Bi).expect("a stream");
            streams.write(stream, &vec![7; len]).expect("room");
        }
    });
    client.run_once(now).expect("it goes on");
    assert!(sent(&mut client, 0) > before[0]);
    assert_eq!(sent(&mut client, 1), before[1] + 1, "in the same turn");
    let io = client.backend().stats();
    assert_eq!((io.tx_dropped, io.tx_over_share), (0, 0));
    wind_up(&mut server, &mut client);
}

/// STUN on QUIC's socket, in the same train and back out of it.
#[test]
fn another_protocol_shares_the_socket() {
    let identity = Identity::generate();
    for choice in backends() {
        let now = engine::now();
        let options = SocketOptions::default();
        let mut server = shard(now, 1, open(choice), Some(&identity), Echo::default());
        let listening = bound("127.0.0.1:0");
        let remote = listening.local_addr().expect("bound");
        server.add_socket(listening, options).expect("room");
        server.set_demux(Some(Demux::Rfc9443));
        let other = bound("127.0.0.1:0");
        let stun = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8];
        for _ in 0..3 {
            other.send_to(&stun, remote).expect("sent");
        }
        let target = Target {
            remote,
            bare: false,
        };
        let mut client = shard(
            now,
            2,
            open(choice),
            None,
            Many::new(&identity, vec![target], 1),
        );
        client
            .add_socket(bound("127.0.0.1:0"), options)
            .expect("room");
        drive(&mut server, &mut client, |server, client| {
            client.app().complete() && server.app().others.len() == 3
        });
        // The client would clear the fixed bit of every other packet, were it told that it may.
        assert!(patient().grease_quic_bit);
        assert_eq!(client.app().faults, Vec::<String>::new());
        assert!(server.app().others.iter().all(|o| *o == stun));
        assert_eq!(
            (server.stats().others, server.endpoint().stats().unroutable),
            (3, 0)
        );
        other.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut buf = [0; 100];
        for _ in 0..3 {
            let (len, from) = other.recv_from(&mut buf).expect("an answer");
            assert_eq!((&buf[..len], from), (&stun[..], remote));
        }
        wind_up(&mut server, &mut client);
    }
}

fn engine_config(name: &str, choice: Choice) -> EngineConfig {
    let mut config = EngineConfig::new(name);
    config.backend = choice;
    config.idle = Idle::Park;
    config.transport = Arc::new(patient());
    config
}

/// A server engine, and a client's shards that are told to stop when they have their answers.
fn exchange(
    identity: &Identity,
    server: EngineConfig,
    client: &EngineConfig,
    targets: impl Fn(SocketAddr) -> Vec<Target>,
) -> Vec<engine::ShardReport<Many>> {
    let mut server = EngineConfig {
        server: Some(Arc::new(identity.server_config(&[]))),
        ..server
    };
    server.idle = Idle::Park;
    let mut server = Engine::start(&server, |_| Echo::default()).expect("the server starts");
    let remote = server.local_addrs()[0];
    let client = Engine::start(client, |_| {
        let mut app = Many::new(identity, targets(remote), 10);
        app.stop = true;
        app
    });
    let reports = client.expect("the client starts").join().expect("it ends");
    server.stop();
    server.join().expect("it ends");
    reports
}

#[test]
fn a_connected_socket_speaks_to_its_peer_alone() {
    let identity = Identity::generate();
    for choice in backends() {
        let mut server = engine_config("server", choice);
        server.bind = Bind::Shared("127.0.0.1:0".parse().expect("an address"));
        server.server = Some(Arc::new(identity.server_config(&[])));
        let mut server = Engine::start(&server, |_| Echo::default()).expect("it starts");
        let remote = server.local_addrs()[0];
        let mut client = engine_config("client", choice);
        client.shards = 2;
        client.bind = Bind::Connected(remote);
        let elsewhere = SocketAddr::from(([127, 0, 0, 1], 9));
        let engine = Engine::start(&client, |_| {
            let all = [(remote, false), (elsewhere, false), (remote, true)];
            let all = all.map(|(remote, bare)| Target { remote, bare });
            let mut app = Many::new(&identity, all.to_vec(), 10);
            app.stop = true;
            app
        });
        let engine = engine.expect("it starts");
        assert!(engine.local_addrs().iter().all(|a| a.ip().is_loopback()));
        for report in engine.join().expect("it ends") {
            assert_eq!(report.app.done, 2);
            let [why] = report.app.faults.as_slice() else {
                panic!("{:?}", report.app.faults);
            };
            assert!(why.contains("is connected to"), "{why}");
        }
        server.stop();
        server.join().expect("it ends");
    }
}

/// ICMP errors reach connected sockets: they are counted, and the connection lives or dies by its
/// own timers.
#[test]
fn a_refused_connected_socket_is_counted_and_not_fatal() {
    let identity = Identity::generate();
    for choice in backends() {
        let gone = bound("127.0.0.1:0");
        let remote = gone.local_addr().expect("bound");
        let os = bound("127.0.0.1:0");
        os.connect(remote).expect("connected");
        drop(gone);
        let now = engine::now();
        let options = SocketOptions::default();
        let target = Target {
            remote,
            bare: false,
        };
        let app = Many::new(&identity, vec![target], 1);
        let mut client = shard(now, 2, open(choice), None, app);
        client.add_socket(os, options).expect("room");
        let refused = |c: &Shard<Many>| c.backend().stats().errors.of(Errno(libc::ECONNREFUSED));
        while refused(&client) == 0 {
            let now = engine::now();
            let turn = client.run_once(now).expect("not fatal");
            client.park(now, turn.next).expect("not fatal");
        }
        // Its server comes up late: the handshake goes on.
        let mut server = shard(now, 1, open(choice), Some(&identity), Echo::default());
        let listening = UdpSocket::bind(remote).expect("free again");
        server.add_socket(listening, options).expect("room");
        drive(&mut server, &mut client, |_, client| {
            client.app().complete()
        });
        wind_up(&mut server, &mut client);
    }
}

#[test]
fn the_embedder_brings_its_sockets() {
    let identity = Identity::generate();
    for choice in backends() {
        let own = [bound("127.0.0.1:0"), bound("127.0.0.1:0")];
        let addrs = own.each_ref().map(|s| s.local_addr().expect("bound"));
        let mut client = engine_config("client", choice);
        client.shards = 2;
        client.bind = Bind::sockets(own);
        let group = corelane::sys::reuseport::bind_group(SocketAddr::from(([127, 0, 0, 1], 0)), 3);
        let mut server = engine_config("server", choice);
        server.shards = 3;
        server.bind = Bind::sockets(group.expect("three sockets"));
        let reports = exchange(&identity, server, &client, |remote| {
            let bare = |n| n == 0;
            (0..9)
                .map(|n| Target {
                    remote,
                    bare: bare(n),
                })
                .collect()
        });
        for (report, addr) in reports.iter().zip(addrs) {
            assert_eq!(report.app.faults, Vec::<String>::new());
            assert_eq!((report.app.done, report.app.local), (9, Some(addr)));
        }
    }
}

/// QUIC-LB connection IDs are longer than ours; shards and zero-length ones get along with them.
#[test]
fn connection_ids_that_name_the_server_to_a_balancer() {
    let identity = Identity::generate();
    let mut server = engine_config("server", Choice::Auto);
    server.shards = 2;
    server.bind = Bind::Shared("127.0.0.1:0".parse().expect("an address"));
    server.quic_lb = Some(QuicLbConfig::nlb("0x0123456789abcdef").expect("a server ID"));
    let reports = exchange(
        &identity,
        server,
        &engine_config("client", Choice::Auto),
        |remote| {
            (0..20)
                .map(|n| Target {
                    remote,
                    bare: n == 0,
                })
                .collect()
        },
    );
    let app = &reports[0].app;
    assert_eq!((app.done, &app.faults), (20, &vec![]));
}

/// RFC 9000 §10.3: a stray for another shard's connection is answered with that connection's token,
/// wherever it came in.
#[test]
fn a_stray_for_another_shard_is_reset() {
    let identity = Identity::generate();
    let mut server = engine_config("server", Choice::Mmsg);
    server.shards = 4;
    server.bind = Bind::Shared("127.0.0.1:0".parse().expect("an address"));
    server.server = Some(Arc::new(identity.server_config(&[])));
    let mut server = Engine::start(&server, |_| Echo::default()).expect("it starts");
    let remote = server.local_addrs()[0];
    let mut rng = Rng::from_u64(1);
    let asker = bound("127.0.0.1:0");
    asker.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    for _ in 0..40 {
        let mut stray: [u8; 200] = rng.array();
        stray[0] = 0x40 | (stray[0] & 0x3f);
        let mut tokens = HashSet::new();
        for _ in 0..2 {
            asker.send_to(&stray, remote).expect("sent");
            let mut buf = [0; 300];
            let (len, _) = asker.recv_from(&mut buf).expect("a reset");
            assert!((limits::MIN_STATELESS_RESET..stray.len()).contains(&len));
            let (from, to) = (len - 16, len);
            tokens.insert(buf[from..to].to_vec());
        }
        assert_eq!(tokens.len(), 1, "one token for one connection ID");
    }
    server.stop();
    let reports = server.join().expect("it ends");
    let resets: Vec<u64> = reports.iter().map(|r| r.endpoint.resets).collect();
    assert_eq!(resets.iter().sum::<u64>(), 80);
    assert!(
        resets.iter().all(|n| *n > 0),
        "every shard has its own: {resets:?}"
    );
}
