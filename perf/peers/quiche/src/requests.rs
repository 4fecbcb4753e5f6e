//! Requests on a connection of quiche: each is written to a stream of its own as far as that takes
//! it, and its answer is read as it comes.

use std::io;

use bytes::Bytes;
use corelane_bench_peer::requests::Requests;
use corelane_bench_peer::{Fault, Meter, streams};

use crate::endpoint::Quic;
use crate::server::send_all;

/// What is written when a request may begin.
pub struct Writer {
    request: Bytes,
    /// What a stream has not taken yet.
    rest: Option<(u64, Bytes)>,
}

impl Writer {
    /// For requests of `size` bytes.
    pub fn new(size: usize) -> Self {
        Self {
            request: streams::request(size).into(),
            rest: None,
        }
    }

    /// Begins what may begin, as far as the connection takes it.
    ///
    /// # Errors
    /// When the timer of requests at fixed times cannot be set.
    pub fn write(&mut self, quic: &mut Quic, requests: &mut Requests) -> io::Result<()> {
        while self.finish(quic)
            && quic.peer_streams_left_bidi() > 0
            && let Some(since) = requests.due()
        {
            let id = 4 * requests.begin(since);
            self.rest = Some((id, self.request.clone()));
        }
        requests.set_timer()
    }

    /// Writes the rest of the last request. False when something is left.
    fn finish(&mut self, quic: &mut Quic) -> bool {
        let is_done = match &mut self.rest {
            Some((id, rest)) => send_all(quic, *id, rest, true),
            None => true,
        };
        if is_done {
            self.rest = None;
        }
        is_done
    }
}

/// Reads the answers that have come.
///
/// # Errors
/// When an answer is not what was asked for.
pub fn read(
    quic: &mut Quic,
    requests: &mut Requests,
    scratch: &mut [u8],
    meter: &Meter,
) -> Result<(), Fault> {
    while let Some(id) = quic.stream_readable_next() {
        while let Ok((size, is_end)) = quic.stream_recv(id, scratch) {
            requests.answered(id / 4, size, is_end, meter)?;
            if is_end {
                break;
            }
        }
    }
    Ok(())
}
