//! Futures that are dropped midway lose nothing.

use super::certs::SERVER_NAME;
use super::util::{World, pattern, run};
use bytes::Bytes;
use corelane::api::ConnectionError;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Polls a future once and drops it; it must not have been ready.
fn poll_and_drop<F: Future>(future: F) {
    let polled = pin!(future).poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Pending));
}

#[test]
fn dropped_accepts_leave_the_streams_to_others() {
    run(|| async {
        let (client, server) = World::new().pair().connect().await;
        for i in 0..20u8 {
            poll_and_drop(server.accept_bi());
            poll_and_drop(server.accept_uni());
            let (mut send, mut recv) = client.open_bi().await.unwrap();
            send.write_all(&[i]).await.unwrap();
            poll_and_drop(recv.read(&mut [0; 4]));
            poll_and_drop(recv.read_chunk(4));
            poll_and_drop(send.stopped());
            drop(send);
            let (mut answer, mut question) = server.accept_bi().await.unwrap();
            answer
                .write_all(&question.read_to_end(1).await.unwrap())
                .await
                .unwrap();
            drop(answer);
            assert_eq!(recv.read_to_end(1).await.unwrap(), [i].as_slice());
        }
    });
}

#[test]
fn dropped_opens_lose_no_stream() {
    run(|| async {
        let mut world = World::new();
        world.transport.streams.max_streams_bidi = 3;
        let (client, _server) = world.pair().connect().await;
        let mut streams = Vec::new();
        for _ in 0..3 {
            let polled = pin!(client.open_bi()).poll(&mut Context::from_waker(Waker::noop()));
            // Ready if it got what was opened for the one that was dropped.
            streams.push(match polled {
                Poll::Ready(stream) => stream.unwrap(),
                Poll::Pending => client.open_bi().await.unwrap(),
            });
        }
        let ids: Vec<u64> = streams.iter().map(|(send, _)| send.id().index()).collect();
        assert_eq!(ids, [0, 1, 2]);
        poll_and_drop(client.open_bi());
    });
}

#[test]
fn dropped_reads_and_writes_lose_no_bytes() {
    run(|| async {
        let (client, server) = World::new().pair().connect().await;
        let data = pattern(3_000_000, 1);
        let expected = data.clone();
        let writer = std::thread::spawn(move || {
            futures_executor::block_on(async {
                let mut send = client.open_uni().await.unwrap();
                let mut at = 0;
                while at < data.len() {
                    // Polled once and, if it waits, dropped and tried again.
                    let now =
                        pin!(send.write(&data[at..])).poll(&mut Context::from_waker(Waker::noop()));
                    at += match now {
                        Poll::Ready(n) => n.unwrap(),
                        Poll::Pending => send.write(&data[at..]).await.unwrap(),
                    };
                    let chunk = Bytes::copy_from_slice(&data[at..data.len().min(at + 100)]);
                    let len = chunk.len();
                    if let Poll::Ready(done) =
                        pin!(send.write_chunk(chunk)).poll(&mut Context::from_waker(Waker::noop()))
                    {
                        done.unwrap();
                        at += len;
                    }
                }
                send.finish().unwrap();
                assert_eq!(send.stopped().await, Ok(None));
            });
        });
        let mut recv = server.accept_uni().await.unwrap();
        let mut got = Vec::new();
        loop {
            let polled = pin!(recv.read_chunk(5000)).poll(&mut Context::from_waker(Waker::noop()));
            let chunk = match polled {
                Poll::Ready(chunk) => chunk.unwrap(),
                Poll::Pending => recv.read_chunk(5000).await.unwrap(),
            };
            match chunk {
                Some(chunk) => got.extend_from_slice(&chunk),
                None => break,
            }
        }
        assert!(got == expected);
        writer.join().unwrap();
    });
}

#[test]
fn dropped_waits_for_datagrams_answers_and_attempts_lose_nothing() {
    run(|| async {
        let pair = World::new().pair();
        poll_and_drop(pair.server.accept());
        let (client, server) = pair.connect().await;
        for i in 0..50u8 {
            poll_and_drop(server.read_datagram());
            let stats = client.stats();
            let _ = pin!(stats).poll(&mut Context::from_waker(Waker::noop()));
            client.send_datagram(Bytes::from(vec![i])).await.unwrap();
            assert_eq!(server.read_datagram().await.unwrap(), vec![i]);
        }
        poll_and_drop(client.closed());
        poll_and_drop(pair.client.wait_idle());
        assert!(client.stats().await.is_ok());
        client.close(0, b"");
        server.closed().await;
    });
}

#[test]
fn a_dropped_attempt_is_abandoned() {
    run(|| async {
        let pair = World::new().pair();
        let connecting = pair.client.connect(pair.server.local_addr(), SERVER_NAME);
        let accepting = pair.server.accept().await.unwrap().accept();
        drop(connecting);
        match accepting.await {
            // The handshake may have been complete already, or end without a word.
            Ok(connection) => drop(connection.closed().await),
            Err(e) => drop(e),
        }
        pair.client.wait_idle().await;

        let connecting = pair.client.connect(pair.server.local_addr(), SERVER_NAME);
        let accepting = pair.server.accept().await.unwrap().accept();
        drop(accepting);
        match connecting.await {
            Ok(connection) => {
                let why = connection.closed().await;
                assert!(matches!(
                    why,
                    ConnectionError::ApplicationClosed { code: 0, .. }
                ));
            }
            Err(e) => drop(e),
        }
        pair.server.wait_idle().await;
    });
}
