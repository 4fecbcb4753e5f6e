//! Sockets of the embedder's own: brought, connected, shared with another protocol.

use crate::certs::SERVER_NAME;
use crate::util::{ALPN, World, run};
use corelane::api::{Bytes, ConnectError, Demux, Endpoint, Idle, OtherDatagram};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

#[path = "../../examples/multi_dest.rs"]
mod multi_dest;

#[test]
fn the_example_of_two_destinations_runs() {
    multi_dest::main().expect("it ends well");
}

#[test]
fn a_brought_socket_is_used_and_shared_with_another_protocol() {
    run(|| async {
        let world = World::new();
        let server = world.server();
        let own = UdpSocket::bind("127.0.0.1:0").unwrap();
        let local = own.local_addr().unwrap();
        let tls = Arc::new(world.identity.client_config(&[ALPN]));
        let client = Endpoint::from_socket(own)
            .client(tls)
            .transport(world.transport.clone())
            .idle(Idle::Park)
            .demux(Demux::Rfc9443)
            .build()
            .unwrap();
        assert_eq!(client.local_addrs(), [local]);
        let connecting = client.connect(server.local_addr(), SERVER_NAME);
        let accepted = server.accept().await.unwrap().accept().await.unwrap();
        let connection = connecting.await.unwrap();
        assert_eq!(accepted.remote_address(), local);

        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let question = OtherDatagram {
            local,
            remote: peer.local_addr().unwrap(),
            data: Bytes::from_static(&[0, 1, 2]),
        };
        client.send_other(question.clone()).unwrap();
        let mut buf = [0; 10];
        let (len, from) = peer.recv_from(&mut buf).unwrap();
        assert_eq!((&buf[..len], from), (&[0, 1, 2][..], local));
        peer.send_to(&[1, 1, 9], local).unwrap();
        let answer = client.recv_other().await.unwrap();
        let data = Bytes::from_static(&[1, 1, 9]);
        assert_eq!(
            answer,
            OtherDatagram {
                data,
                ..question.clone()
            }
        );
        let data = Bytes::new();
        assert!(
            client
                .send_other(OtherDatagram { data, ..question })
                .is_err()
        );
        connection.close(0, b"");
        client.close(0, b"");
        assert_eq!(client.recv_other().await, None);
    });
}

#[test]
fn a_connected_endpoint_refuses_other_peers_with_what_to_do() {
    run(|| async {
        let world = World::new();
        let server = world.server();
        let remote = server.local_addr();
        let tls = Arc::new(world.identity.client_config(&[ALPN]));
        let client = world
            .builder()
            .client(tls)
            .connected(remote)
            .build()
            .unwrap();
        let connecting = client.connect(remote, SERVER_NAME);
        let accepted = server.accept().await.unwrap().accept().await.unwrap();
        let _connection = connecting.await.unwrap();
        assert_eq!(accepted.remote_address(), client.local_addr());
        let elsewhere = SocketAddr::from(([127, 0, 0, 1], 9));
        let refused = client.connect(elsewhere, SERVER_NAME).await.unwrap_err();
        assert!(matches!(refused, ConnectError::Endpoint(_)), "{refused:?}");
        assert!(refused.to_string().contains("not connected"), "{refused}");
    });
}

#[test]
fn a_second_connection_without_a_connection_id_is_told_why_it_is_refused() {
    run(|| async {
        let mut world = World::new();
        world.transport.zero_length_cid = true;
        let server = world.server();
        let client = world.client();
        let first = client.connect(server.local_addr(), SERVER_NAME);
        let accepted = server.accept().await.unwrap().accept().await.unwrap();
        let first = first.await.unwrap();
        let second = client.connect(server.local_addr(), SERVER_NAME).await;
        let text = second.unwrap_err().to_string();
        assert!(text.contains("zero_length_cid"), "{text}");
        first.close(0, b"");
        accepted.closed().await;
    });
}
