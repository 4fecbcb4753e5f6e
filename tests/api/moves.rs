//! Moving connections and endpoints over real sockets.

use super::certs::SERVER_NAME;
use super::util::{ALPN, Pair, World, run};
use corelane::api::{
    Choice, Connection, Endpoint, MigrateError, MigrationError, PathEvent, PathId,
};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Sends something over a fresh stream and back.
async fn echo(client: &Connection, server: &Connection) {
    let data = vec![7; 100_000];
    let (mut send, mut recv) = client.open_bi().await.unwrap();
    send.write_all(&data).await.unwrap();
    send.finish().unwrap();
    let (mut answer, mut question) = server.accept_bi().await.unwrap();
    let got = question.read_to_end(1 << 20).await.unwrap();
    answer.write_all(&got).await.unwrap();
    answer.finish().unwrap();
    let got = recv.read_to_end(1 << 20).await.unwrap();
    assert_eq!(got, data);
}

/// Moves as soon as that is possible: the handshake is confirmed, a connection ID is there.
async fn move_to(client: &Connection, server: &Connection, local: SocketAddr) -> SocketAddr {
    loop {
        match client.migrate_to(local).await {
            Ok(addr) => return addr,
            Err(MigrationError::Refused(
                MigrateError::NotConfirmed | MigrateError::NoConnectionId,
            )) => echo(client, server).await,
            Err(e) => panic!("{e}"),
        }
    }
}

fn pair(world: &World, backend: Choice) -> Pair {
    let tls = Arc::new(world.identity.server_config(&[ALPN]));
    let server = world.builder().backend(backend).server(tls, any_port());
    let tls = Arc::new(world.identity.client_config(&[ALPN]));
    let client = world.builder().backend(backend).client(tls);
    Pair {
        server: server.build().unwrap(),
        client: client.build().unwrap(),
    }
}

#[test]
fn a_connection_moves_from_socket_to_socket() {
    run(|| async {
        for backend in [Choice::Auto, Choice::Mmsg] {
            let world = World::new();
            let pair = pair(&world, backend);
            let (client, server) = pair.connect().await;
            let mut before = server.remote_address();
            let mut left = Vec::new();
            for _ in 0..6 {
                let local = move_to(&client, &server, any_port()).await;
                echo(&client, &server).await;
                let seen = server.remote_address();
                assert_eq!(seen.port(), local.port());
                assert_ne!(seen, before);
                let (id, remote) = (PathId(0), seen);
                let moved = PathEvent::PeerMoved { id, remote };
                while server.path_event().await.unwrap() != moved {}
                let proven = PathEvent::PeerMoveValidated { id, remote };
                while server.path_event().await.unwrap() != proven {}
                before = seen;
                left.push(local);
            }
            assert!(server.stats().await.unwrap().migrations >= 6);
            // A socket that is there already serves as well.
            let here = left.pop().unwrap();
            assert_eq!(move_to(&client, &server, here).await, here);
            client.close(0, b"");
            pair.client.wait_idle().await;
            // What was left is closed, so that others can have it.
            for addr in left {
                while UdpSocket::bind(addr).is_err() {
                    std::thread::yield_now();
                }
            }
        }
    });
}

#[test]
fn a_move_that_cannot_be_says_why_and_changes_nothing() {
    run(|| async {
        let world = World::new();
        let pair = world.pair();
        let (client, server) = pair.connect().await;
        echo(&client, &server).await;
        let done = server.migrate_to(any_port()).await;
        assert!(matches!(
            done,
            Err(MigrationError::Refused(MigrateError::Server))
        ));
        let nobodys = "192.0.2.1:0".parse().unwrap();
        let done = client.migrate_to(nobodys).await;
        assert!(matches!(done, Err(MigrationError::Bind(addr, _)) if addr == nobodys));
        echo(&client, &server).await;
        server.close(0, b"");
        client.closed().await;
        let done = client.migrate_to(any_port()).await;
        assert!(matches!(done, Err(MigrationError::ConnectionLost(_))));
    });
}

#[test]
fn an_endpoint_moves_with_all_its_connections() {
    run(|| async {
        let mut world = World::new();
        world.shards = 2;
        let pair = world.pair();
        let mut conns = Vec::new();
        for _ in 0..4 {
            let (client, server) = pair.connect().await;
            // After this a move is possible, and it does not change where the rest begins.
            move_to(&client, &server, any_port()).await;
            echo(&client, &server).await;
            conns.push((client, server));
        }
        let moved = |conns: &[(Connection, Connection)], ports: &[u16]| {
            let at = |(_, server): &(Connection, Connection)| server.remote_address().port();
            conns.iter().all(|c| ports.contains(&at(c)))
        };
        let mut ports = Vec::new();
        // Connections that had no connection ID to spare are asked again.
        while ports.is_empty() || !moved(&conns, &ports) {
            let addrs = pair.client.rebind(any_port()).unwrap();
            assert_eq!(addrs.len(), 2);
            ports = addrs.iter().map(SocketAddr::port).collect();
            for _ in 0..3 {
                for (client, server) in &conns {
                    echo(client, server).await;
                }
            }
        }
        let (client, server) = pair.connect().await;
        echo(&client, &server).await;
        assert!(
            moved(&[(client, server)], &ports),
            "new ones leave from there"
        );
        let taken = UdpSocket::bind(any_port()).unwrap();
        assert!(pair.client.rebind(taken.local_addr().unwrap()).is_err());
    });
}

#[test]
fn clients_go_to_the_preferred_address() {
    run(|| async {
        for (shards, backend) in [(1, Choice::Auto), (3, Choice::Auto), (3, Choice::Mmsg)] {
            let mut world = World::new();
            world.shards = shards;
            let tls = Arc::new(world.identity.server_config(&[ALPN]));
            let server: Endpoint = world
                .builder()
                .backend(backend)
                .server(tls, any_port())
                .preferred_address("127.0.0.2:0".parse().unwrap())
                .build()
                .unwrap();
            let client = world.client();
            for _ in 0..6 {
                let connecting = client.connect(server.local_addr(), SERVER_NAME);
                let theirs = server.accept().await.unwrap().accept().await.unwrap();
                let ours = connecting.await.unwrap();
                while ours.remote_address().ip().to_string() != "127.0.0.2" {
                    echo(&ours, &theirs).await;
                }
                echo(&ours, &theirs).await;
                assert_ne!(ours.remote_address().port(), server.local_addr().port());
            }
        }
    });
}
