//! Resumed sessions and early data through the async face.

use super::certs::SERVER_NAME;
use super::util::{ALPN, Pair, World, run, run_tokio};
use corelane::api::{Connection, ConnectionError, EngineError};
use corelane::crypto::ConfigError;
use std::sync::Arc;

/// Endpoints that offer early data both ways, over so many shards.
fn pair(world: &World) -> Pair {
    let mut server = world.identity.server_config(&[ALPN]);
    server.max_early_data_size = u32::MAX;
    let mut client = world.identity.client_config(&[ALPN]);
    client.enable_early_data = true;
    Pair {
        server: world
            .builder()
            .server(Arc::new(server), "127.0.0.1:0".parse().unwrap())
            .build()
            .unwrap(),
        client: world.builder().client(Arc::new(client)).build().unwrap(),
    }
}

/// A connection that leaves a session behind.
async fn warm_up(pair: &Pair) {
    let (client, server) = pair.connect().await;
    assert!(!client.is_resumed());
    assert_eq!(client.early_data_accepted().await, Ok(false));
    assert_eq!(server.early_data_accepted().await, Ok(false));
    // The ticket comes right behind the handshake; what follows it has come later.
    let mut send = server.open_uni().await.unwrap();
    send.write_all(b"after the ticket").await.unwrap();
    send.finish().unwrap();
    let mut recv = client.accept_uni().await.unwrap();
    assert!(!recv.is_early());
    recv.read_to_end(100).await.unwrap();
    client.close(0, b"");
    server.closed().await;
}

async fn ask(client: &Connection, question: &[u8]) -> Vec<u8> {
    let (mut send, mut recv) = client.open_bi().await.unwrap();
    send.write_all(question).await.unwrap();
    send.finish().unwrap();
    recv.read_to_end(1 << 20).await.unwrap().to_vec()
}

#[test]
fn early_data_goes_with_the_handshake_and_is_known_for_what_it_is() {
    run_tokio(|| async {
        let mut world = World::new();
        world.shards = 2;
        let pair = pair(&world);
        warm_up(&pair).await;
        let addr = pair.server.local_addr();
        let server = pair.server.clone();
        let (sent, wait) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(async move {
            let incoming = server.accept().await.unwrap();
            // Until here the handshake cannot go on, and what is early comes before its end.
            wait.await.unwrap();
            let connection = incoming.accept().into_early().await.unwrap();
            let (mut send, mut recv) = connection.accept_bi().await.unwrap();
            assert!(recv.is_early());
            let question = recv.read_to_end(1 << 20).await.unwrap();
            send.write_all(&question).await.unwrap();
            send.finish().unwrap();
            assert_eq!(connection.early_data_accepted().await, Ok(true));
            // Later streams are not early.
            let (mut send, mut recv) = connection.accept_bi().await.unwrap();
            assert!(!recv.is_early());
            recv.read_to_end(100).await.unwrap();
            send.finish().unwrap();
            connection.closed().await
        });
        let connection = pair.client.connect(addr, SERVER_NAME).into_early();
        let connection = connection.await.unwrap();
        let question = super::util::pattern(5_000, 3);
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(&question).await.unwrap();
        send.finish().unwrap();
        while connection.stats().await.unwrap().zero_rtt_packets_sent < 5 {
            tokio::task::yield_now().await;
        }
        sent.send(()).unwrap();
        assert_eq!(recv.read_to_end(1 << 20).await.unwrap(), question);
        assert_eq!(connection.early_data_accepted().await, Ok(true));
        assert!(connection.is_resumed());
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(b"late").await.unwrap();
        send.finish().unwrap();
        // The answer's end says that the stream was taken before the close.
        recv.read_to_end(100).await.unwrap();
        connection.close(1, b"");
        let why = serving.await.unwrap();
        assert!(matches!(
            why,
            ConnectionError::ApplicationClosed { code: 1, .. }
        ));
    });
}

#[test]
fn without_a_session_early_is_as_soon_as_ever() {
    run(|| async {
        let world = World::new();
        let pair = pair(&world);
        let connecting = pair
            .client
            .connect(pair.server.local_addr(), SERVER_NAME)
            .into_early();
        let accepted = pair.server.accept().await.unwrap().accept().into_early();
        let server = accepted.await.unwrap();
        let client = connecting.await.unwrap();
        assert_eq!(client.early_data_accepted().await, Ok(false));
        assert_eq!(client.alpn(), Some(ALPN));
        drop(server);
    });
}

/// A server that has lost its sessions: what was written early arrives all the same.
#[test]
fn rejected_early_data_arrives_after_the_handshake() {
    run_tokio(|| async {
        let world = World::new();
        let first = pair(&world);
        warm_up(&first).await;
        let second = pair(&world);
        let server = second.server.clone();
        let serving = tokio::spawn(async move {
            let connection = server.accept().await.unwrap().accept().await.unwrap();
            let (mut send, mut recv) = connection.accept_bi().await.unwrap();
            assert!(!recv.is_early());
            let question = recv.read_to_end(1 << 20).await.unwrap();
            send.write_all(&question).await.unwrap();
            send.finish().unwrap();
            connection.closed().await
        });
        let addr = second.server.local_addr();
        let connection = first.client.connect(addr, SERVER_NAME).into_early();
        let connection = connection.await.unwrap();
        let question = super::util::pattern(20_000, 3);
        assert_eq!(ask(&connection, &question).await, question);
        assert_eq!(connection.early_data_accepted().await, Ok(false));
        connection.close(0, b"");
        serving.await.unwrap();
    });
}

#[test]
fn a_server_that_could_be_replayed_does_not_start() {
    let world = World::new();
    let mut tls = world.identity.server_config(&[ALPN]);
    tls.max_early_data_size = u32::MAX;
    tls.ticketer = rustls::crypto::ring::Ticketer::new().unwrap();
    let started = world
        .builder()
        .server(Arc::new(tls), "127.0.0.1:0".parse().unwrap())
        .build();
    assert!(matches!(
        started.err(),
        Some(EngineError::Config(ConfigError::EarlyDataTicketer))
    ));
}
