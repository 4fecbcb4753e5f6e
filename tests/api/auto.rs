//! Paths that a client opens and gives up by itself, over real sockets: as addresses are named by
//! the application here, and as the kernel tells of them in `namespace`.

use super::certs::SERVER_NAME;
use super::paths::{addr, echo, wait_for, world};
use super::util::{ALPN, Pair, World, run};
use corelane::api::{Choice, Connection, PathEvent, PathInfo, PathState};
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;

fn auto(max: u32) -> World {
    let mut world = world();
    world.transport.multipath.auto_paths = Some(max);
    world
}

fn pair(world: &World, backend: Choice, bind: &str) -> Pair {
    let tls = Arc::new(world.identity.server_config(&[ALPN]));
    let server = world.builder().backend(backend);
    let server = server.server(tls, addr("127.0.0.1:0")).build().unwrap();
    let tls = Arc::new(world.identity.client_config(&[ALPN]));
    let client = world.builder().backend(backend).client(tls);
    let client = client.bind(addr(bind)).build().unwrap();
    Pair { server, client }
}

fn ips(all: &[&str]) -> Vec<IpAddr> {
    all.iter().map(|ip| ip.parse().unwrap()).collect()
}

async fn live(connection: &Connection) -> Vec<PathInfo> {
    let mut paths = connection.paths().await.unwrap();
    paths.retain(|p| !matches!(p.state, PathState::Abandoned(_)));
    paths
}

/// Sends back and forth until exactly these addresses have a path that carries data.
async fn until_from(client: &Connection, server: &Connection, wanted: &[&str]) -> Vec<PathInfo> {
    loop {
        echo(client, server).await;
        let paths = live(client).await;
        let mut from: Vec<_> = paths.iter().map(|p| p.tuple.local.ip()).collect();
        from.sort();
        if from == ips(wanted) && paths.iter().all(|p| p.state == PathState::Open) {
            return paths;
        }
    }
}

#[test]
fn paths_follow_the_addresses_that_are_named() {
    run(|| async {
        for backend in [Choice::Auto, Choice::Mmsg] {
            let pair = pair(&auto(4), backend, "0.0.0.0:0");
            let named = ips(&["127.0.0.2", "127.0.0.3"]);
            pair.client.set_local_addresses(Some(&named));
            let (client, server) = pair.connect().await;
            let all = ["0.0.0.0", "127.0.0.2", "127.0.0.3"];
            let before = until_from(&client, &server, &all).await;
            let named = ips(&["127.0.0.3", "127.0.0.4"]);
            pair.client.set_local_addresses(Some(&named));
            let all = ["0.0.0.0", "127.0.0.3", "127.0.0.4"];
            let after = until_from(&client, &server, &all).await;
            // What is there still stays as it is.
            assert_eq!(before[2].tuple, after[1].tuple);
            assert_eq!(before[2].id, after[1].id);
            let gone = before[1];
            let left =
                |e| matches!(e, PathEvent::Abandoned { id, by_peer: true, .. } if id == gone.id);
            wait_for(&server, left).await;
            while UdpSocket::bind(gone.tuple.local).is_err() {
                echo(&client, &server).await;
            }
            // Of each other connection, too, and with an address that this host has not.
            pair.client
                .set_local_addresses(Some(&ips(&["192.0.2.1", "127.0.0.5"])));
            let (second, theirs) = pair.connect().await;
            until_from(&second, &theirs, &["0.0.0.0", "127.0.0.5"]).await;
            until_from(&client, &server, &["0.0.0.0", "127.0.0.5"]).await;
        }
    });
}

#[test]
fn there_are_no_more_paths_than_wanted() {
    run(|| async {
        let pair = pair(&auto(2), Choice::Auto, "0.0.0.0:0");
        let named = ips(&["127.0.0.2", "127.0.0.3", "127.0.0.4"]);
        pair.client.set_local_addresses(Some(&named));
        let (client, server) = pair.connect().await;
        let paths = until_from(&client, &server, &["0.0.0.0", "127.0.0.2"]).await;
        // One in the place of one that the application closes.
        client.path(paths[1].id).close().await.unwrap();
        let paths = until_from(&client, &server, &["0.0.0.0", "127.0.0.3"]).await;
        assert_eq!(paths.len(), 2);
    });
}

#[test]
fn the_kernel_is_asked_where_nothing_is_named() {
    run(|| async {
        // The loopback interface has 127.0.0.1 and no other by its list, which is what counts.
        let pair = pair(&auto(4), Choice::Auto, "127.0.0.2:0");
        let (client, server) = pair.connect().await;
        until_from(&client, &server, &["127.0.0.1"]).await;
        // The address that the system chooses is no second one.
        let world = auto(4);
        let pair = self::pair(&world, Choice::Auto, "0.0.0.0:0");
        let (client, server) = pair.connect().await;
        let named = ips(&["127.0.0.9"]);
        pair.client.set_local_addresses(Some(&named));
        until_from(&client, &server, &["0.0.0.0", "127.0.0.9"]).await;
        pair.client.set_local_addresses(None);
        until_from(&client, &server, &["0.0.0.0"]).await;
    });
}

#[test]
fn a_server_that_takes_one_path_has_one() {
    run(|| async {
        let world = auto(4);
        let mut single = World::new();
        single.identity = world.identity;
        let server = single.server();
        let tls = Arc::new(single.identity.client_config(&[ALPN]));
        let client = single.builder().transport(world.transport).client(tls);
        let client = client.build().unwrap();
        client.set_local_addresses(Some(&ips(&["127.0.0.2"])));
        let connecting = client.connect(server.local_addr(), SERVER_NAME);
        let theirs = server.accept().await.unwrap().accept().await.unwrap();
        let ours = connecting.await.unwrap();
        for _ in 0..20 {
            echo(&ours, &theirs).await;
        }
        assert_eq!(ours.paths().await.unwrap().len(), 1);
    });
}
