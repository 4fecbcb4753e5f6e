//! Connections: how they begin, what they tell, how they end.

use super::certs::{Identity, SERVER_NAME};
use super::util::{ALPN, Pair, World, run, run_tokio};
use bytes::Bytes;
use corelane::api::{
    Choice, ConnectError, ConnectionError, EndpointBuilder, EngineConfig, Idle, SendDatagramError,
};
use corelane::base::limits;
use corelane::wire::Code;
use std::collections::VecDeque;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn both_sides_know_what_the_handshake_established() {
    run(|| async {
        let world = World::new();
        let (client, server) = world.pair().connect().await;
        assert_eq!((client.alpn(), server.alpn()), (Some(ALPN), Some(ALPN)));
        assert_eq!(
            (client.server_name(), server.server_name()),
            (None, Some(SERVER_NAME))
        );
        let certificates = client.peer_certificates().unwrap();
        assert_eq!(certificates, std::slice::from_ref(&world.identity.cert));
        assert_eq!(server.peer_certificates(), None);
        assert!(!client.is_resumed());
        assert_eq!(client.remote_address().ip(), server.remote_address().ip());

        let (mut here, mut there) = ([0; 32], [0; 32]);
        client
            .export_keying_material(&mut here, b"label", Some(b"context"))
            .await
            .unwrap();
        server
            .export_keying_material(&mut there, b"label", Some(b"context"))
            .await
            .unwrap();
        assert_eq!(here, there);
        client
            .export_keying_material(&mut there, b"other", None)
            .await
            .unwrap();
        assert_ne!(here, there);

        assert!(client.stats().await.unwrap().packets_received > 0);
        assert!(client.path_stats().await.unwrap().mtu >= limits::MIN_UDP_PAYLOAD);
        server.close(3, b"bye");
        assert_eq!(
            client.closed().await,
            ConnectionError::ApplicationClosed {
                code: 3,
                reason: b"bye".to_vec()
            }
        );
        assert!(client.stats().await.unwrap().packets_received > 0);
        assert_eq!(server.closed().await, ConnectionError::LocallyClosed);
        assert_eq!(
            client.open_bi().await.unwrap_err(),
            client.close_reason().unwrap()
        );
    });
}

#[test]
fn keys_can_be_updated() {
    run(|| async {
        let (client, server) = World::new().pair().connect().await;
        let mut updated = false;
        for round in 0..100u8 {
            let mut send = client.open_uni().await.unwrap();
            send.write_all(&[round]).await.unwrap();
            send.finish().unwrap();
            let mut recv = server.accept_uni().await.unwrap();
            assert_eq!(recv.read_to_end(1).await.unwrap(), [round].as_slice());
            assert_eq!(send.stopped().await, Ok(None));
            updated |= !updated && client.update_keys().await.unwrap();
        }
        assert!(updated);
        assert!(server.stats().await.unwrap().key_updates > 0);
    });
}

#[test]
fn datagrams_go_both_ways_and_their_limits_are_told() {
    run(|| async {
        let (client, server) = World::new().pair().connect().await;
        for i in 0..200u8 {
            client
                .send_datagram(Bytes::from(vec![i; 100]))
                .await
                .unwrap();
            let got = server.read_datagram().await.unwrap();
            server.send_datagram(got).await.unwrap();
            assert_eq!(client.read_datagram().await.unwrap(), vec![i; 100]);
        }
        // More than the way to the handle holds, before anybody reads.
        for i in 0..300u16 {
            client
                .send_datagram(Bytes::copy_from_slice(&i.to_be_bytes()))
                .await
                .unwrap();
        }
        for i in 0..300u16 {
            assert_eq!(
                server.read_datagram().await.unwrap(),
                i.to_be_bytes().as_slice()
            );
        }
        let stats = server.stats().await.unwrap().datagrams;
        assert_eq!((stats.tx, stats.rx, stats.rx_dropped), (200, 500, 0));
        let long = Bytes::from(vec![0; 1 << 17]);
        assert!(matches!(
            client.send_datagram(long).await,
            Err(SendDatagramError::TooLarge { max }) if max > 1000
        ));
        client.close(1, b"");
        server.closed().await;
        let over = server.send_datagram(Bytes::new()).await;
        assert!(matches!(over, Err(SendDatagramError::ConnectionLost(_))));
        assert!(server.read_datagram().await.is_err());
    });
}

#[test]
fn datagrams_go_in_batches() {
    run(|| async {
        let (client, server) = World::new().pair().connect().await;
        // More than the ways between handles and shards hold; long ones among them.
        let datagram = |i: u16| {
            let mut data = vec![0; if i.is_multiple_of(7) { 700 } else { 30 }];
            data[..2].copy_from_slice(&i.to_be_bytes());
            Bytes::from(data)
        };
        let mut batch: VecDeque<Bytes> = (0..2000).map(datagram).collect();
        client.send_datagrams(&mut batch).await.unwrap();
        assert!(batch.is_empty());
        let mut got = Vec::new();
        while got.len() < 2000 {
            let before = got.len();
            let n = server.read_datagrams(&mut got).await.unwrap();
            assert!(n > 0 && got.len() == before + n);
        }
        assert_eq!(got, (0..2000).map(datagram).collect::<Vec<_>>());
        // What does not fit stays, with what comes after it.
        let max = client.max_datagram_size().unwrap();
        let mut batch: VecDeque<Bytes> = [1, max + 1, 2].map(|n| vec![0; n].into()).into();
        let sent = client.send_datagrams(&mut batch).await;
        assert_eq!(sent, Err(SendDatagramError::TooLarge { max }));
        assert_eq!((batch.len(), batch[0].len()), (2, max + 1));
        server.close(1, b"");
        client.closed().await;
        batch.pop_front();
        let sent = client.send_datagrams(&mut batch).await;
        assert!(matches!(sent, Err(SendDatagramError::ConnectionLost(_))));
    });
}

#[test]
fn a_peer_without_datagrams_is_told_apart() {
    run(|| async {
        let mut world = World::new();
        world.transport.datagram_receive_buffer = 0;
        let (client, _server) = world.pair().connect().await;
        assert_eq!(client.max_datagram_size(), None);
        let sent = client.send_datagram(Bytes::from_static(b"x")).await;
        assert_eq!(sent, Err(SendDatagramError::Unsupported));
    });
}

#[test]
fn attempts_are_accepted_refused_sent_back_and_ignored() {
    run(|| async {
        let mut world = World::new();
        let pair = world.pair();
        let connect = || pair.client.connect(pair.server.local_addr(), SERVER_NAME);

        let connecting = connect();
        let incoming = pair.server.accept().await.unwrap();
        assert_eq!(
            incoming.remote_address().port(),
            pair.client.local_addr().port()
        );
        assert!(!incoming.address_validated());
        incoming.refuse();
        let refused = |e| {
            matches!(e, ConnectError::Connection(ConnectionError::ClosedByPeer { code, .. })
                if code == Code::CONNECTION_REFUSED)
        };
        assert!(refused(connecting.await.unwrap_err()));

        let connecting = connect();
        drop(pair.server.accept().await.unwrap());
        assert!(refused(connecting.await.unwrap_err()));

        let connecting = connect();
        pair.server.accept().await.unwrap().retry().unwrap();
        let incoming = pair.server.accept().await.unwrap();
        assert!(incoming.address_validated());
        let incoming = incoming.retry().unwrap_err().0;
        let accepted = incoming.accept().await.unwrap();
        assert_eq!(connecting.await.unwrap().alpn(), accepted.alpn());

        world.transport.handshake_deadline = Duration::from_millis(300);
        let hasty = world.client();
        let connecting = hasty.connect(pair.server.local_addr(), SERVER_NAME);
        pair.server.accept().await.unwrap().ignore();
        // It tries again meanwhile, and is ignored until it gives up.
        let server = pair.server.clone();
        let ignoring = std::thread::spawn(move || {
            futures_executor::block_on(async {
                while let Some(incoming) = server.accept().await {
                    incoming.ignore();
                }
            });
        });
        let failed = connecting.await.unwrap_err();
        assert!(matches!(
            failed,
            ConnectError::Connection(ConnectionError::HandshakeTimedOut)
        ));
        pair.server.close(0, b"");
        ignoring.join().unwrap();
    });
}

#[test]
fn a_wrong_certificate_is_the_peers_fault() {
    run(|| async {
        let world = World::new();
        let stranger = Identity::generate();
        let server = world.server();
        let trusts_others = Arc::new(stranger.client_config(&[ALPN]));
        let client = world.builder().client(trusts_others).build().unwrap();
        let connecting = client.connect(server.local_addr(), SERVER_NAME);
        let accepted = server.accept().await.unwrap().accept().await;
        let failed = connecting.await.unwrap_err();
        assert!(matches!(
            failed,
            ConnectError::Tls(rustls::Error::InvalidCertificate(_))
        ));
        let told = failed.to_string();
        assert!(
            told.starts_with("the peer failed this side's TLS checks"),
            "{told}"
        );
        assert!(told.contains("issuer"), "{told}");
        // The server hears that its certificate was not taken.
        assert!(matches!(
            accepted,
            Err(ConnectError::Connection(
                ConnectionError::ClosedByPeer { .. }
            ))
        ));

        let client = world.client();
        let connecting = client.connect(server.local_addr(), "elsewhere.example");
        let accepting = server.accept().await.unwrap().accept();
        assert!(matches!(connecting.await, Err(ConnectError::Tls(_))));
        assert!(accepting.await.is_err());
    });
}

#[test]
fn what_cannot_begin_says_why() {
    run(|| async {
        let world = World::new();
        let (server, client) = (world.server(), world.client());
        let addr = server.local_addr();
        let failed = server.connect(addr, SERVER_NAME).await.unwrap_err();
        assert!(matches!(failed, ConnectError::NoClientConfig));
        let failed = client.connect(addr, "no name").await.unwrap_err();
        assert!(matches!(failed, ConnectError::ServerName(name) if name == "no name"));
        let nowhere = "127.0.0.1:0".parse().unwrap();
        let failed = client.connect(nowhere, SERVER_NAME).await.unwrap_err();
        assert!(matches!(failed, ConnectError::Address(addr) if addr == nowhere));
        let v6 = "[::1]:1".parse().unwrap();
        let failed = client.connect(v6, SERVER_NAME).await.unwrap_err();
        assert!(matches!(failed, ConnectError::Family(addr) if addr == v6));
        client.close(0, b"");
        let failed = client.connect(addr, SERVER_NAME).await.unwrap_err();
        assert!(matches!(
            failed,
            ConnectError::Connection(ConnectionError::EndpointClosed)
        ));
        assert_eq!(client.open_connections(), 0);
    });
}

#[test]
fn nobody_at_home_times_out() {
    run(|| async {
        let mut world = World::new();
        world.transport.handshake_deadline = Duration::from_millis(300);
        // Bound, so that the system does not say that it is closed; read by nobody.
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = world.client();
        let failed = client
            .connect(silent.local_addr().unwrap(), SERVER_NAME)
            .await
            .unwrap_err();
        assert!(matches!(
            failed,
            ConnectError::Connection(ConnectionError::HandshakeTimedOut)
        ));
        client.wait_idle().await;
    });
}

#[test]
fn a_silent_connection_times_out_on_both_sides() {
    run(|| async {
        let mut world = World::new();
        world.transport.max_idle_timeout = Duration::from_millis(400);
        let pair = world.pair();
        let (client, server) = pair.connect().await;
        assert_eq!(client.closed().await, ConnectionError::TimedOut);
        assert_eq!(server.closed().await, ConnectionError::TimedOut);
    });
}

#[test]
fn the_last_handle_closes_and_streams_are_handles() {
    run(|| async {
        let pair = World::new().pair();
        let (client, server) = pair.connect().await;
        let (mut send, recv) = client.open_bi().await.unwrap();
        drop((client, recv));
        send.write_all(b"still here").await.unwrap();
        let (_answer, mut question) = server.accept_bi().await.unwrap();
        let mut got = [0; 10];
        question.read_exact(&mut got).await.unwrap();
        drop(send);
        let code = |e| matches!(e, ConnectionError::ApplicationClosed { code: 0, .. });
        assert!(code(server.closed().await));
        pair.client.wait_idle().await;
        pair.server.wait_idle().await;
    });
}

#[test]
fn an_endpoint_closes_gracefully_under_open_streams() {
    run(|| async {
        let pair = World::new().pair();
        let (client, server) = pair.connect().await;
        let (mut send, mut recv) = client.open_bi().await.unwrap();
        send.write_all(b"half a sentence").await.unwrap();
        let (_answer, mut question) = server.accept_bi().await.unwrap();
        let waiting = pair.server.clone();
        let accepting = std::thread::spawn(move || futures_executor::block_on(waiting.accept()));
        pair.server.close(9, b"maintenance");
        assert!(accepting.join().unwrap().is_none());
        let why = ConnectionError::ApplicationClosed {
            code: 9,
            reason: b"maintenance".to_vec(),
        };
        assert_eq!(client.closed().await, why);
        assert!(recv.read(&mut [0; 8]).await.is_err());
        let end = question.read_to_end(100).await;
        assert!(end.is_err());
        pair.server.wait_idle().await;
        assert_eq!(pair.server.open_connections(), 0);
        let late = pair
            .client
            .connect(pair.server.local_addr(), SERVER_NAME)
            .await;
        assert!(late.is_err());
    });
}

#[test]
fn shards_outlive_their_endpoint_by_their_connections() {
    run(|| async {
        let pair = World::new().pair();
        let (client, server) = pair.connect().await;
        drop(pair);
        let mut send = client.open_uni().await.unwrap();
        send.write_all(b"on").await.unwrap();
        send.finish().unwrap();
        let mut recv = server.accept_uni().await.unwrap();
        assert_eq!(recv.read_to_end(2).await.unwrap(), b"on".as_slice());
        client.close(0, b"");
        server.closed().await;
    });
}

#[test]
fn one_endpoint_connects_to_itself() {
    run(|| async {
        let world = World::new();
        let mut config = EngineConfig::new("itself");
        config.server = Some(Arc::new(world.identity.server_config(&[ALPN])));
        let endpoint = corelane::api::EndpointBuilder::from_config(config)
            .bind("127.0.0.1:0".parse().unwrap())
            .client(Arc::new(world.identity.client_config(&[ALPN])))
            .build()
            .unwrap();
        let connecting = endpoint.connect(endpoint.local_addr(), SERVER_NAME);
        let accepted = endpoint.accept().await.unwrap().accept().await.unwrap();
        let connected = connecting.await.unwrap();
        assert_eq!(connected.remote_address(), accepted.remote_address());
        assert_eq!(endpoint.open_connections(), 2);
        assert!(["uring", "mmsg"].contains(&endpoint.backend()));
    });
}

#[test]
fn many_connections_share_two_shards() {
    run_tokio(|| async {
        let mut world = World::new();
        world.shards = 2;
        let pair = world.pair();
        assert_eq!(pair.client.local_addrs().len(), 2);
        let server = pair.server.clone();
        tokio::spawn(async move {
            while let Some(incoming) = server.accept().await {
                tokio::spawn(async move {
                    let connection = incoming.accept().await.unwrap();
                    let (mut send, mut recv) = connection.accept_bi().await.unwrap();
                    send.write_all(&recv.read_to_end(100).await.unwrap())
                        .await
                        .unwrap();
                    send.finish().unwrap();
                    connection.closed().await;
                });
            }
        });
        let tasks: Vec<_> = (0..60u8)
            .map(|i| {
                let connecting = pair.client.connect(pair.server.local_addr(), SERVER_NAME);
                tokio::spawn(async move {
                    let connection = connecting.await.unwrap();
                    let (mut send, mut recv) = connection.open_bi().await.unwrap();
                    send.write_all(&[i; 50]).await.unwrap();
                    send.finish().unwrap();
                    assert_eq!(recv.read_to_end(50).await.unwrap(), [i; 50].as_slice());
                    connection.close(0, b"");
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        pair.client.wait_idle().await;
        pair.server.wait_idle().await;
    });
}

#[test]
fn every_peer_hears_of_the_end_however_few_the_send_buffers() {
    for backend in [Choice::Auto, Choice::Mmsg] {
        run_tokio(move || async move {
            let world = World::new();
            let mut config = EngineConfig::new("client");
            config.idle = Idle::Park;
            config.io.tx_buffers = 1;
            config.backend = backend;
            let tls = Arc::new(world.identity.client_config(&[ALPN]));
            let pair = Pair {
                server: world.server(),
                client: EndpointBuilder::from_config(config)
                    .client(tls)
                    .build()
                    .unwrap(),
            };
            let mut both = Vec::new();
            for _ in 0..300 {
                both.push(pair.connect().await);
            }
            // A shard that slept with a free buffer would let them expire without a word.
            pair.client.close(7, b"");
            for (_, server) in &both {
                let why = server.closed().await;
                assert!(
                    matches!(why, ConnectionError::ApplicationClosed { code: 7, .. }),
                    "{why}"
                );
            }
        });
    }
}

#[test]
fn a_full_backlog_ignores_until_there_is_room() {
    run_tokio(|| async {
        const SURPLUS: usize = 10;
        let world = World::new();
        let pair = world.pair();
        let mut attempts = tokio::task::JoinSet::new();
        for _ in 0..limits::ACCEPT_BACKLOG + SURPLUS {
            attempts.spawn(pair.client.connect(pair.server.local_addr(), SERVER_NAME));
        }
        let refused = |outcome: Result<_, ConnectError>| {
            matches!(outcome, Err(ConnectError::Connection(ConnectionError::ClosedByPeer {
                code, ..
            })) if code == Code::CONNECTION_REFUSED)
        };
        // As many as wait, those that found no room when they first came, and those again whose
        // refusal was lost.
        let refuse = async {
            while let Some(incoming) = pair.server.accept().await {
                incoming.refuse();
            }
        };
        let end = async {
            while let Some(outcome) = attempts.join_next().await {
                assert!(refused(outcome.unwrap()));
            }
        };
        tokio::select! {
            () = refuse => panic!("the server's endpoint ended"),
            () = end => {}
        }
    });
}
