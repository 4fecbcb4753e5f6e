//! Streams: data, flow control, ends, resets, stops.

use super::util::{Pair, World, pattern, run, run_tokio};
use bytes::Bytes;
use corelane::api::{
    Connection, ConnectionError, ReadError, ReadExactError, ReadToEndError, RecvStream, SendStream,
    WriteError,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

async fn echo(mut send: SendStream, mut recv: RecvStream) {
    while let Some(chunk) = recv.read_chunk(usize::MAX).await.unwrap() {
        send.write_chunk(chunk).await.unwrap();
    }
    send.finish().unwrap();
    assert_eq!(send.stopped().await, Ok(None));
}

async fn echo_streams(pair: Pair, streams: usize) {
    let (client, server) = pair.connect().await;
    let serving = async {
        for _ in 0..streams {
            let (send, recv) = server.accept_bi().await.unwrap();
            echo(send, recv).await;
        }
    };
    let asking = async {
        for i in 0..streams {
            let (mut send, mut recv) = client.open_bi().await.unwrap();
            let data = pattern(i * 1000, i as u64);
            send.write_all(&data).await.unwrap();
            send.finish().unwrap();
            assert_eq!(send.id(), recv.id());
            assert_eq!(recv.read_to_end(data.len()).await.unwrap(), data);
        }
    };
    both(serving, asking).await;
}

/// Waits for two futures at once.
pub async fn both<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (std::pin::pin!(a), std::pin::pin!(b));
    let (mut x, mut y) = (None, None);
    std::future::poll_fn(move |cx| {
        if x.is_none()
            && let std::task::Poll::Ready(v) = a.as_mut().poll(cx)
        {
            x = Some(v);
        }
        if y.is_none()
            && let std::task::Poll::Ready(v) = b.as_mut().poll(cx)
        {
            y = Some(v);
        }
        match (x.take(), y.take()) {
            (Some(x), Some(y)) => std::task::Poll::Ready((x, y)),
            (a, b) => {
                (x, y) = (a, b);
                std::task::Poll::Pending
            }
        }
    })
    .await
}

#[test]
fn several_streams_are_echoed() {
    run(|| echo_streams(World::new().pair(), 20));
}

#[test]
fn several_streams_are_echoed_at_once_on_tokio() {
    run_tokio(|| async {
        let (client, server) = World::new().pair().connect().await;
        let serving = tokio::spawn(async move {
            while let Ok((send, recv)) = server.accept_bi().await {
                tokio::spawn(echo(send, recv));
            }
        });
        let asking: Vec<_> = (0..16)
            .map(|i| {
                let client = client.clone();
                tokio::spawn(async move {
                    let (mut send, mut recv) = client.open_bi().await.unwrap();
                    let data = pattern(100_000, i);
                    let sent = data.clone();
                    let sending = tokio::spawn(async move { send.write_all(&sent).await });
                    assert_eq!(recv.read_to_end(1 << 20).await.unwrap(), data);
                    sending.await.unwrap().unwrap();
                })
            })
            .collect();
        for task in asking {
            task.await.unwrap();
        }
        client.close(0, b"");
        serving.await.unwrap();
    });
}

/// Writes `data` and counts, reads as much and compares; never more under way than `bound`.
async fn transfer(from: Connection, to: Connection, len: usize, bound: usize) {
    let written = Arc::new(AtomicUsize::new(0));
    let count = written.clone();
    let writing = tokio::spawn(async move {
        let mut send = from.open_uni().await.unwrap();
        let data = pattern(len, 7);
        while count.load(Ordering::SeqCst) < len {
            let at = count.load(Ordering::SeqCst);
            let n = send.write(&data[at..]).await.unwrap();
            count.fetch_add(n, Ordering::SeqCst);
        }
        send.finish().unwrap();
        assert_eq!(send.stopped().await, Ok(None));
    });
    let reading = tokio::spawn(async move {
        let mut recv = to.accept_uni().await.unwrap();
        let (expected, mut at) = (pattern(len, 7), 0);
        while let Some(chunk) = recv.read_chunk(10_000).await.unwrap() {
            assert_eq!(chunk, expected[at..at + chunk.len()]);
            at += chunk.len();
            // A write may be read before its writer has counted it.
            let ahead = written.load(Ordering::SeqCst).saturating_sub(at);
            assert!(ahead <= bound, "{ahead} bytes under way");
        }
        assert_eq!(at, len);
    });
    writing.await.unwrap();
    reading.await.unwrap();
}

#[test]
fn ten_megabytes_go_each_way_within_the_windows() {
    run_tokio(|| async {
        let mut world = World::new();
        let streams = &mut world.transport.streams;
        (streams.stream_window, streams.stream_window_max) = (100_000, 100_000);
        streams.send_buffer = 100_000;
        let (client, server) = world.pair().connect().await;
        // Both handles' windows, the stream's buffer, and what flow control permits.
        let bound = 2 * 512 * 1024 + 100_000 + 100_000;
        let there = tokio::spawn(transfer(client.clone(), server.clone(), 10_000_000, bound));
        let back = tokio::spawn(transfer(server.clone(), client.clone(), 10_000_000, bound));
        there.await.unwrap();
        back.await.unwrap();
    });
}

#[test]
fn a_stream_that_nobody_reads_holds_its_writer_back() {
    run_tokio(|| async {
        let mut world = World::new();
        world.transport.streams.send_buffer = 10_000;
        world.transport.streams.stream_window = 10_000;
        world.transport.streams.stream_window_max = 10_000;
        let (client, server) = world.pair().connect().await;
        let mut send = client.open_uni().await.unwrap();
        let writing = tokio::spawn(async move {
            let mut written = 0;
            while let Ok(n) = send.write(&[1; 10_000]).await {
                written += n;
            }
            written
        });
        // The reader takes the stream and then does nothing; the writer ends with the connection.
        let recv = server.accept_uni().await.unwrap();
        let (mut other, mut answer) = client.open_bi().await.unwrap();
        let asking = tokio::spawn(async move {
            other.write_all(&pattern(3_000_000, 1)).await.unwrap();
        });
        let serving = server.clone();
        tokio::spawn(async move {
            let (send, recv) = serving.accept_bi().await.unwrap();
            echo(send, recv).await;
        });
        // While that other stream moves, this one must not.
        assert_eq!(
            answer.read_to_end(3_000_000).await.unwrap(),
            pattern(3_000_000, 1)
        );
        asking.await.unwrap();
        client.close(0, b"");
        let written = writing.await.unwrap();
        assert!(written <= 2 * 512 * 1024 + 10_000 + 10_000, "{written}");
        drop(recv);
    });
}

#[test]
fn reset_and_stop_carry_their_codes() {
    run(|| async {
        let (client, server) = World::new().pair().connect().await;
        let (mut send, mut recv) = client.open_bi().await.unwrap();
        send.write_all(b"something").await.unwrap();
        let (mut answer, mut question) = server.accept_bi().await.unwrap();
        let mut some = [0; 9];
        question.read_exact(&mut some).await.unwrap();

        send.reset(17).unwrap();
        assert_eq!(send.write(b"more").await, Err(WriteError::Closed));
        assert_eq!(send.finish(), Err(WriteError::Closed));
        assert_eq!(question.read(&mut some).await, Err(ReadError::Reset(17)));
        assert_eq!(question.read(&mut some).await, Err(ReadError::Reset(17)));

        recv.stop(18);
        assert_eq!(recv.read(&mut some).await, Err(ReadError::Stopped));
        assert_eq!(answer.stopped().await, Ok(Some(18)));
        assert_eq!(answer.write(b"more").await, Err(WriteError::Stopped(18)));
        assert_eq!(answer.reset(1), Err(WriteError::Stopped(18)));
    });
}

#[test]
fn a_dropped_sender_finishes_and_a_dropped_receiver_stops() {
    run(|| async {
        let (client, server) = World::new().pair().connect().await;
        let (mut send, recv) = client.open_bi().await.unwrap();
        send.write_all(&pattern(300_000, 1)).await.unwrap();
        drop((send, recv));
        let (mut answer, mut question) = server.accept_bi().await.unwrap();
        assert_eq!(
            question.read_to_end(300_000).await.unwrap(),
            pattern(300_000, 1)
        );
        assert_eq!(answer.stopped().await, Ok(Some(0)));
    });
}

#[test]
fn limits_and_early_ends_are_told() {
    run(|| async {
        let (client, server) = World::new().pair().connect().await;
        for _ in 0..2 {
            let mut send = client.open_uni().await.unwrap();
            send.set_priority(3);
            send.write_chunk(Bytes::from_static(b"12345"))
                .await
                .unwrap();
            send.finish().unwrap();
        }
        let mut recv = server.accept_uni().await.unwrap();
        assert_eq!(recv.read_to_end(4).await, Err(ReadToEndError::TooLong(4)));
        let mut recv = server.accept_uni().await.unwrap();
        let mut six = [0; 6];
        assert_eq!(
            recv.read_exact(&mut six).await,
            Err(ReadExactError::FinishedEarly(5))
        );
        assert_eq!(&six, b"12345\0");
        assert_eq!(recv.read(&mut six).await, Ok(None));
    });
}

#[test]
fn opening_waits_for_the_peers_limit() {
    run(|| async {
        let mut world = World::new();
        world.transport.streams.max_streams_uni = 2;
        let (client, server) = world.pair().connect().await;
        let opening = async {
            for i in 0..50u8 {
                let mut send = client.open_uni().await.unwrap();
                send.write_all(&[i]).await.unwrap();
            }
        };
        let reading = async {
            for i in 0..50u8 {
                let mut recv = server.accept_uni().await.unwrap();
                assert_eq!(recv.read_to_end(1).await.unwrap(), [i].as_slice());
            }
        };
        both(opening, reading).await;
    });
}

#[test]
fn what_arrived_before_the_end_can_be_read_after_it() {
    run(|| async {
        let (client, server) = World::new().pair().connect().await;
        let mut send = server.open_uni().await.unwrap();
        // More than the way from shard to handle holds.
        send.write_all(&pattern(900_000, 5)).await.unwrap();
        let mut recv = client.accept_uni().await.unwrap();
        send.finish().unwrap();
        assert_eq!(send.stopped().await, Ok(None));
        let mut open = server.open_uni().await.unwrap();
        server.close(5, b"enough");
        let why = client.closed().await;
        assert_eq!(
            why,
            ConnectionError::ApplicationClosed {
                code: 5,
                reason: b"enough".to_vec()
            }
        );
        assert_eq!(
            recv.read_to_end(900_000).await.unwrap(),
            pattern(900_000, 5)
        );
        server.closed().await;
        let lost = WriteError::ConnectionLost(ConnectionError::LocallyClosed);
        assert_eq!(open.write(b"x").await, Err(lost));
        assert_eq!(open.stopped().await, Err(ConnectionError::LocallyClosed));
    });
}
