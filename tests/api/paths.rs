//! Several paths of one connection over real sockets: 127.0.0.x and ::1, both backends, one and
//! several shards.

use super::certs::SERVER_NAME;
use super::util::{ALPN, Pair, World, run};
use corelane::api::{
    AddressConfig, AdvertiseError, Bind, Bytes, Choice, ClosePathError, Connection, Endpoint,
    OpenPathError, Path, PathError, PathEvent, PathId, PathInfo, PathOptions, PathState,
    PathStatus, PinError, SocketOptions,
};
use corelane::shard::engine::EngineConfig;
use corelane::sys::reuseport;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

const BACKENDS: [Choice; 2] = [Choice::Auto, Choice::Mmsg];

pub fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Takes several paths, and expects the round trips of loopback.
pub fn world() -> World {
    let mut world = World::new();
    world.transport.max_paths = 4;
    world.transport.initial_rtt = Duration::from_millis(20);
    world
}

fn pair(world: &World, backend: Choice) -> Pair {
    let tls = Arc::new(world.identity.server_config(&[ALPN]));
    let server = world.builder().backend(backend);
    let server = server.server(tls, addr("127.0.0.1:0")).build().unwrap();
    let tls = Arc::new(world.identity.client_config(&[ALPN]));
    let client = world.builder().backend(backend).client(tls).build();
    let client = client.unwrap();
    Pair { server, client }
}

/// Sends something over a fresh stream and back.
pub async fn echo(client: &Connection, server: &Connection) {
    let data = vec![7; 100_000];
    let (mut send, mut recv) = client.open_bi().await.unwrap();
    let there = async {
        send.write_all(&data).await.unwrap();
        send.finish().unwrap();
    };
    let back = async {
        let (mut answer, mut question) = server.accept_bi().await.unwrap();
        let got = question.read_to_end(1 << 20).await.unwrap();
        answer.write_all(&got).await.unwrap();
        answer.finish().unwrap();
    };
    there.await;
    back.await;
    assert_eq!(recv.read_to_end(1 << 20).await.unwrap(), data);
}

/// Reads what happened to paths until `wanted` did.
pub async fn wait_for(connection: &Connection, wanted: impl Fn(PathEvent) -> bool) -> PathEvent {
    loop {
        let event = connection.path_event().await.unwrap();
        if wanted(event) {
            return event;
        }
    }
}

async fn info(path: &Path) -> PathInfo {
    path.stats().await.unwrap().expect("the path is there")
}

/// Sends back and forth until the path has carried something.
async fn use_it(path: &Path, client: &Connection, server: &Connection) {
    let before = info(path).await.packets_sent;
    for other in client.paths().await.unwrap() {
        let status = if other.id == path.id() {
            PathStatus::Available
        } else {
            PathStatus::Backup
        };
        let told = client.path(other.id).set_status(status).await;
        assert!(told.is_ok() || matches!(other.state, PathState::Abandoned(_)));
    }
    while info(path).await.packets_sent < before + 50 {
        echo(client, server).await;
    }
}

#[test]
fn paths_open_carry_and_close_and_both_sides_hear_of_it() {
    run(|| async {
        for backend in BACKENDS {
            let pair = pair(&world(), backend);
            let (client, server) = pair.connect().await;
            assert!(client.is_multipath() && server.is_multipath());
            let mut paths = Vec::new();
            for (n, local) in ["127.0.0.2:0", "127.0.0.3:0"].into_iter().enumerate() {
                let path = client.open_path(PathOptions::from(addr(local))).await;
                let path = path.unwrap();
                assert_eq!(path.id(), PathId(n as u32 + 1));
                let seen = |e| e == PathEvent::Validated(path.id());
                wait_for(&server, seen).await;
                let at = info(&path).await;
                assert_eq!(at.tuple.local.ip(), addr(local).ip());
                assert_eq!(at.state, PathState::Open);
                let theirs = info(&server.path(path.id())).await;
                assert_eq!(theirs.tuple.remote, at.tuple.local);
                paths.push(path);
            }
            assert_eq!(server.paths().await.unwrap().len(), 3);
            for path in &paths {
                use_it(path, &client, &server).await;
            }
            let [first, second] = &paths[..] else {
                panic!("two were opened")
            };
            let status = PathEvent::Status(first.id(), PathStatus::Backup);
            wait_for(&server, |e| e == status).await;
            first.close().await.unwrap();
            let gone =
                |e| matches!(e, PathEvent::Abandoned { id, by_peer: true, .. } if id == first.id());
            wait_for(&server, gone).await;
            let again = first.close().await;
            let unknown = PathError::Unusable(ClosePathError::Unknown);
            assert_eq!(again.unwrap_err().to_string(), unknown.to_string());
            // A server closes paths as well.
            let third = client
                .open_path(PathOptions::from(addr("127.0.0.4:0")))
                .await;
            let third = third.unwrap();
            assert_eq!(third.id(), PathId(3));
            server.path(second.id()).close().await.unwrap();
            let gone = |e| match e {
                PathEvent::Abandoned { id, by_peer, .. } => by_peer && id == second.id(),
                _ => false,
            };
            wait_for(&client, gone).await;
            use_it(&third, &client, &server).await;
            client.close(0, b"");
            let last = client.paths().await.unwrap();
            assert!(last.iter().any(|p| p.id == third.id()));
        }
    });
}

#[test]
fn paths_are_opened_past_the_first_identifiers() {
    run(|| async {
        let pair = pair(&world(), Choice::Auto);
        let (client, server) = pair.connect().await;
        for n in 1..10 {
            let path = another(&client).await;
            assert_eq!(path.id(), PathId(n));
            echo(&client, &server).await;
            path.close().await.unwrap();
        }
    });
}

/// A further path, once those that were closed no longer count: three probe timeouts after both
/// sides know (multipath §3.4).
async fn another(client: &Connection) -> Path {
    for _ in 0..1000 {
        match client.open_path(PathOptions::default().backup()).await {
            Ok(path) => return path,
            Err(PathError::Refused(OpenPathError::NoPathId | OpenPathError::NoConnectionId)) => {
                // The shards have threads of their own.
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(why) => panic!("{why}"),
        }
    }
    panic!("closed paths count for ever");
}

#[test]
fn what_cannot_be_opened_says_why_and_changes_nothing() {
    run(|| async {
        let world = world();
        let pair = pair(&world, Choice::Auto);
        let (client, server) = pair.connect().await;
        let refused = |e: Result<Path, PathError>| match e {
            Err(PathError::Refused(why)) => why,
            other => panic!("{other:?}"),
        };
        let here = PathOptions::default();
        assert_eq!(refused(server.open_path(here).await), OpenPathError::Server);
        let nobodys = addr("192.0.2.1:0");
        let done = client.open_path(PathOptions::from(nobodys)).await;
        assert!(matches!(done, Err(PathError::Bind(addr, _)) if addr == nobodys));
        let done = client.open_path(PathOptions::from(addr("[::1]:0"))).await;
        assert!(matches!(done, Err(PathError::Family { .. })));
        let deaf = UdpSocket::bind("127.0.0.1:0").unwrap();
        let there = PathOptions::from(addr("127.0.0.2:0")).to(deaf.local_addr().unwrap());
        let done = client.open_path(there).await;
        let from = addr("127.0.0.2:0").ip();
        assert!(matches!(done, Err(PathError::NoAnswer(local)) if local.ip() == from));
        for _ in 0..3 {
            client.open_path(here).await.unwrap();
        }
        assert_eq!(
            refused(client.open_path(here).await),
            OpenPathError::NoPathId
        );
        echo(&client, &server).await;
        server.close(0, b"");
        client.closed().await;
        let done = client.open_path(here).await;
        assert!(matches!(done, Err(PathError::ConnectionLost(_))));

        let single = World::new();
        let pair = single.pair();
        let (client, server) = pair.connect().await;
        assert!(!client.is_multipath());
        assert_eq!(
            refused(client.open_path(here).await),
            OpenPathError::NotNegotiated
        );
        assert_eq!(client.paths().await.unwrap().len(), 1);
        let done = client.path(PathId(0)).set_status(PathStatus::Backup).await;
        assert!(matches!(
            done,
            Err(PathError::Unusable(ClosePathError::NotNegotiated))
        ));
        echo(&client, &server).await;
    });
}

#[test]
fn a_path_moves_and_its_sockets_are_closed_behind_it() {
    run(|| async {
        for backend in BACKENDS {
            let pair = pair(&world(), backend);
            let (client, server) = pair.connect().await;
            let path = client
                .open_path(PathOptions::from(addr("127.0.0.2:0")))
                .await;
            let path = path.unwrap();
            let left = info(&path).await.tuple.local;
            let here = path.migrate_to(addr("127.0.0.3:0")).await.unwrap();
            assert_eq!(info(&path).await.tuple.local, here);
            use_it(&path, &client, &server).await;
            assert_eq!(info(&server.path(path.id())).await.tuple.remote, here);
            // The other path is where it was.
            let first = info(&client.path(PathId(0))).await.tuple.local;
            assert_eq!(first.port(), pair.client.local_addr().port());
            path.close().await.unwrap();
            for addr in [left, here] {
                while UdpSocket::bind(addr).is_err() {
                    echo(&client, &server).await;
                }
            }
        }
    });
}

#[test]
fn a_socket_at_all_addresses_serves_paths_from_each() {
    run(|| async {
        for backend in BACKENDS {
            let pair = pair(&world(), backend);
            let (client, server) = pair.connect().await;
            let mut local = pair.client.local_addr();
            assert!(local.ip().is_unspecified());
            local.set_ip(addr("127.0.0.7:0").ip());
            let path = client.open_path(PathOptions::from(local)).await.unwrap();
            use_it(&path, &client, &server).await;
            assert_eq!(info(&server.path(path.id())).await.tuple.remote, local);
            let socket = info(&path).await.socket;
            assert_eq!(info(&client.path(PathId(0))).await.socket, socket);
        }
    });
}

#[test]
fn sockets_are_added_and_removed_while_connections_run() {
    run(|| async {
        for (shards, backend) in [(1, Choice::Auto), (3, Choice::Auto), (3, Choice::Mmsg)] {
            let mut world = world();
            world.shards = shards;
            let pair = pair(&world, backend);
            let add = |endpoint: &Endpoint, at: &str, device: Option<&str>| {
                let mut options = SocketOptions::at(addr(at));
                options.device = device.map(str::to_owned);
                endpoint.add_socket(&options)
            };
            let third = add(&pair.server, "127.0.0.3:0", None).unwrap();
            assert_eq!(third.len(), shards);
            let six = add(&pair.server, "[::1]:0", None).unwrap();
            assert!(add(&pair.server, "192.0.2.1:0", None).is_err());
            assert!(add(&pair.server, "127.0.0.1:0", Some("no-such-device")).is_err());
            // Whoever connects may do so there.
            let connecting = pair.client.connect(third[0], SERVER_NAME);
            let server = pair.server.accept().await.unwrap().accept().await.unwrap();
            let client = connecting.await.unwrap();
            echo(&client, &server).await;
            let v6 = PathOptions::from(addr("[::1]:0")).to(six[0]);
            let v6 = client.open_path(v6).await.unwrap();
            use_it(&v6, &client, &server).await;
            let v4 = PathOptions::from(addr("127.0.0.4:0")).to(pair.server.local_addr());
            let v4 = client.open_path(v4).await.unwrap();
            use_it(&v4, &client, &server).await;
            assert_eq!(
                info(&server.path(v4.id())).await.tuple.local,
                pair.server.local_addr()
            );
            // What is removed takes its paths with it, and nothing else.
            pair.server.remove_socket(six[0]);
            let gone =
                |e| matches!(e, PathEvent::Abandoned { id, by_peer: true, .. } if id == v6.id());
            wait_for(&client, gone).await;
            while UdpSocket::bind(six[0]).is_err() {
                echo(&client, &server).await;
            }
            echo(&client, &server).await;
            match add(&pair.client, "127.0.0.5:0", Some("lo")) {
                Ok(own) => {
                    // One of the shards' is the connection's.
                    let mut opened = false;
                    for at in own {
                        let path = client.open_path(PathOptions::from(at)).await;
                        opened |= path.is_ok();
                    }
                    assert!(opened);
                }
                Err(e) => println!("skipped: {e}"),
            }
        }
    });
}

#[test]
fn streams_and_datagrams_keep_to_the_path_they_are_pinned_to() {
    run(|| async {
        let pair = pair(&world(), Choice::Auto);
        let (client, server) = pair.connect().await;
        let path = client.open_path(PathOptions::from(addr("127.0.0.2:0")));
        let path = path.await.unwrap();
        let first = client.path(PathId(0));
        for (by, other) in [(&path, &first), (&first, &path)] {
            let before = info(other).await.counters.bytes_sent;
            let mut send = client.open_uni().await.unwrap();
            by.pin(send.id(), false).await.unwrap();
            send.write_all(&vec![1; 200_000]).await.unwrap();
            send.finish().unwrap();
            let mut recv = server.accept_uni().await.unwrap();
            assert_eq!(recv.read_to_end(1 << 20).await.unwrap().len(), 200_000);
            assert!(info(by).await.counters.bytes_sent > 200_000);
            assert!(info(other).await.counters.bytes_sent < before + 100_000);
            let data = Bytes::from_static(b"by this path");
            by.send_datagram(data.clone(), false).await.unwrap();
            assert_eq!(server.read_datagram().await.unwrap(), data);
        }
        let (send, _recv) = client.open_bi().await.unwrap();
        path.pin(send.id(), true).await.unwrap();
        client.unpin(send.id()).await.unwrap();
        let nowhere = client.path(PathId(7)).pin(send.id(), true).await;
        assert!(matches!(
            nowhere,
            Err(PathError::Pin(PinError::UnknownPath))
        ));
    });
}

#[test]
fn the_last_socket_stays() {
    run(|| async {
        let pair = pair(&world(), Choice::Auto);
        let (client, server) = pair.connect().await;
        pair.client.remove_socket(pair.client.local_addr());
        pair.server.remove_socket(pair.server.local_addr());
        echo(&client, &server).await;
    });
}

#[test]
fn a_server_tells_of_an_address_and_a_client_goes_there() {
    run(|| async {
        let mut world = world();
        let second = addr("127.0.0.9:0");
        let allow = vec![(second.ip(), 32)];
        world.transport.multipath.addresses = Some(AddressConfig { allow });
        let pair = pair(&world, Choice::Auto);
        let second = pair.server.add_socket(&SocketOptions::at(second)).unwrap()[0];
        let (client, server) = pair.connect().await;
        let other = addr("127.0.0.8:9");
        let refused = server.advertise_address(other).await;
        assert_eq!(refused, Err(AdvertiseError::NotAllowed(other)));
        assert_eq!(server.advertise_address(second).await, Ok(()));
        let named = |e| matches!(e, PathEvent::PeerAddress { addr, .. } if addr == second);
        wait_for(&client, named).await;
        let there = PathOptions::from(addr("127.0.0.2:0")).to(second);
        let path = client.open_path(there).await.unwrap();
        assert_eq!(info(&path).await.tuple.remote, second);
        use_it(&path, &client, &server).await;
        client.close(0, b"");
        server.closed().await;
        let over = server.advertise_address(second).await;
        assert_eq!(over, Err(AdvertiseError::Closed));
    });
}

#[test]
fn paths_that_reach_the_wrong_shard_are_handed_over() {
    run(|| async {
        for backend in BACKENDS {
            let mut world = world();
            let group = reuseport::bind_group(addr("127.0.0.1:0"), 3).unwrap();
            let spare = group[0].try_clone().unwrap();
            let mut config = EngineConfig::new("steered-wrong");
            config.bind = Bind::sockets(group);
            config.server = Some(Arc::new(world.identity.server_config(&[ALPN])));
            config.transport = Arc::new(world.transport.clone());
            config.shards = 3;
            config.backend = backend;
            let server = corelane::api::EndpointBuilder::from_config(config).build();
            let server = server.unwrap();
            world.shards = 1;
            let client = world.client();
            let mut connections = Vec::new();
            for _ in 0..8 {
                let connecting = client.connect(server.local_addr(), SERVER_NAME);
                let theirs = server.accept().await.unwrap().accept().await.unwrap();
                connections.push((connecting.await.unwrap(), theirs));
            }
            // From now on the kernel gives everything to the first shard.
            let first = libc_return(0);
            reuseport::attach(&spare, &[first]).unwrap();
            for (ours, theirs) in &connections {
                let path = ours.open_path(PathOptions::from(addr("127.0.0.2:0"))).await;
                use_it(&path.unwrap(), ours, theirs).await;
                assert_eq!(theirs.paths().await.unwrap().len(), 2);
            }
            drop(connections);
            server.close(0, b"");
            server.wait_idle().await;
            let shards = server.metrics().shards;
            let handed: u64 = shards.iter().map(|s| s.shard.forwarded).sum();
            assert!(handed > 0, "{backend:?}: all belonged to the first shard");
        }
    });
}

/// The instruction that returns a constant.
fn libc_return(k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k,
    }
}
