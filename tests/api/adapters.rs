//! The traits of byte streams. With `--features tokio,futures-io`; nothing without.

#[cfg(feature = "futures-io")]
#[test]
fn streams_are_byte_streams_of_the_futures_crates() {
    use super::util::{World, pattern, run};
    use futures_io::{AsyncRead, AsyncWrite};
    use std::future::poll_fn;
    use std::pin::Pin;

    run(|| async {
        let (client, server) = World::new().pair().connect().await;
        let mut send = client.open_uni().await.unwrap();
        let data = pattern(50_000, 1);
        let mut at = 0;
        while at < data.len() {
            at += poll_fn(|cx| AsyncWrite::poll_write(Pin::new(&mut send), cx, &data[at..]))
                .await
                .unwrap();
        }
        poll_fn(|cx| AsyncWrite::poll_flush(Pin::new(&mut send), cx))
            .await
            .unwrap();
        poll_fn(|cx| AsyncWrite::poll_close(Pin::new(&mut send), cx))
            .await
            .unwrap();
        let mut recv = server.accept_uni().await.unwrap();
        let (mut got, mut part) = (Vec::new(), [0; 999]);
        loop {
            let n = poll_fn(|cx| AsyncRead::poll_read(Pin::new(&mut recv), cx, &mut part))
                .await
                .unwrap();
            if n == 0 {
                break;
            }
            got.extend_from_slice(&part[..n]);
        }
        assert!(got == data);
    });
}

#[cfg(feature = "tokio")]
#[test]
fn streams_are_byte_streams_of_tokio() {
    use super::util::{World, pattern, run_tokio};
    use std::io::ErrorKind;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    run_tokio(|| async {
        let (client, server) = World::new().pair().connect().await;
        let (mut send, mut recv) = client.open_bi().await.unwrap();
        let data = pattern(2_000_000, 1);
        let sent = data.clone();
        let writing = tokio::spawn(async move {
            AsyncWriteExt::write_all(&mut send, &sent).await.unwrap();
            send.flush().await.unwrap();
            send.shutdown().await.unwrap();
            send.shutdown().await.unwrap();
            AsyncWriteExt::write(&mut send, b"x")
                .await
                .unwrap_err()
                .kind()
        });
        let (mut answer, mut question) = server.accept_bi().await.unwrap();
        let echoing = tokio::spawn(async move {
            tokio::io::copy(&mut question, &mut answer).await.unwrap();
            answer.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        AsyncReadExt::read_to_end(&mut recv, &mut got)
            .await
            .unwrap();
        assert!(got == data);
        echoing.await.unwrap();
        assert_eq!(writing.await.unwrap(), ErrorKind::BrokenPipe);
        client.close(0, b"");
        server.closed().await;
        let mut lost = Vec::new();
        let (kind, _) = match client.open_uni().await {
            Err(_) => (ErrorKind::NotConnected, 0),
            Ok(_) => (
                ErrorKind::Other,
                AsyncReadExt::read_to_end(&mut recv, &mut lost)
                    .await
                    .unwrap(),
            ),
        };
        assert_eq!(kind, ErrorKind::NotConnected);
    });
}
