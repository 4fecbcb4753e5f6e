//! The traits that other code expects of byte streams, each behind a feature: `tokio` for tokio's,
//! `futures-io` for those of the futures crates.
//!
//! Flushing does nothing, for what was written is on its way; shutting down or closing finishes
//! the stream.

use super::error::WriteError;
use super::send_stream::SendStream;
use std::io;

/// Finishes a stream; one that was finished before is no error.
fn finish(stream: &mut SendStream) -> io::Result<()> {
    match stream.finish() {
        Ok(()) | Err(WriteError::Closed) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

#[cfg(feature = "futures-io")]
mod futures {
    use super::finish;
    use crate::api::{RecvStream, SendStream};
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    impl futures_io::AsyncRead for RecvStream {
        fn poll_read(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            out: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            Self::poll_read(self.get_mut(), cx, out).map_err(Into::into)
        }
    }

    impl futures_io::AsyncWrite for SendStream {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            data: &[u8],
        ) -> Poll<io::Result<usize>> {
            Self::poll_write(self.get_mut(), cx, data).map_err(Into::into)
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(finish(self.get_mut()))
        }
    }
}

#[cfg(feature = "tokio")]
mod tokio {
    use super::finish;
    use crate::api::{RecvStream, SendStream};
    use ::tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll, ready};

    impl AsyncRead for RecvStream {
        fn poll_read(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            out: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let n = ready!(Self::poll_read(
                self.get_mut(),
                cx,
                out.initialize_unfilled()
            ))?;
            out.advance(n);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for SendStream {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            data: &[u8],
        ) -> Poll<io::Result<usize>> {
            Self::poll_write(self.get_mut(), cx, data).map_err(Into::into)
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(finish(self.get_mut()))
        }
    }
}
