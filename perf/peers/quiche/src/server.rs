//! The serving side: streams are taken, filled or answered as their first byte says, datagrams are
//! counted.

use std::collections::HashMap;
use std::os::fd::AsFd;

use bytes::Bytes;
use corelane_bench_peer::streams::{CHUNK, ECHO, ECHO_MAX, FLOOD, SINK};
use corelane_bench_peer::udp::Udp;
use corelane_bench_peer::{Fault, Meter, Server};
use quiche::Error;

use crate::endpoint::{Endpoint, Peer, Quic};
use crate::settings;

static FILL: [u8; CHUNK] = [0x5a; CHUNK];

/// What a stream has begun.
enum Begun {
    Sink,
    Request(Vec<u8>),
}

/// The streams of one connection that need more than one look.
#[derive(Default)]
pub struct Streams {
    begun: HashMap<u64, Begun>,
    floods: Vec<u64>,
    answers: Vec<(u64, Bytes)>,
}

/// Serves until it is told to stop.
pub fn run(server: Server) -> Result<(), Fault> {
    let udp = Udp::bind(settings::socket_buffer(&server.run))?;
    let config = settings::server(&server.run, &server.certificates)?;
    let mut endpoint = Endpoint::<Streams>::new(udp, config, true);
    server.listening(endpoint.local_addr());
    let mut scratch = vec![0; CHUNK];
    while !server.stop.is_set() {
        endpoint.turn(&[server.stop.as_fd()])?;
        for _ in 0..endpoint.queued() {
            let Some(at) = endpoint.next() else {
                break;
            };
            if let Some(peer) = endpoint.get_mut(at) {
                serve(peer, &mut scratch, &server.meter);
            }
            endpoint.flush(at)?;
        }
    }
    Ok(())
}

fn serve(peer: &mut Peer<Streams>, scratch: &mut [u8], meter: &Meter) {
    let Peer { quic, app, .. } = peer;
    if !quic.is_established() {
        return;
    }
    take_datagrams(quic, meter);
    while let Some(id) = quic.stream_readable_next() {
        // A stream that the client broke off, as it does at the end of a run, ends here.
        while let Ok((size, is_end)) = quic.stream_recv(id, scratch) {
            app.on_data(quic, id, &scratch[..size], is_end, meter);
            if is_end {
                break;
            }
        }
    }
    app.answers
        .retain_mut(|(id, answer)| !send_all(quic, *id, answer, true));
    flood(quic, &mut app.floods);
}

fn take_datagrams(quic: &mut Quic, meter: &Meter) {
    let (mut count, mut bytes) = (0, 0);
    while let Ok(datagram) = quic.dgram_recv_buf() {
        count += 1;
        bytes += datagram.len() as u64;
    }
    if count > 0 {
        meter.operations.add(count);
        meter.bytes.add(bytes);
    }
}

impl Streams {
    fn on_data(&mut self, quic: &mut Quic, id: u64, data: &[u8], is_end: bool, meter: &Meter) {
        match (self.begun.get_mut(&id), data.first()) {
            (Some(Begun::Sink), _) => meter.bytes.add(data.len() as u64),
            (Some(Begun::Request(request)), _) if request.len() + data.len() <= ECHO_MAX => {
                request.extend_from_slice(data);
            }
            (None, Some(&SINK)) => {
                meter.bytes.add(data.len() as u64 - 1);
                self.begun.insert(id, Begun::Sink);
            }
            (None, Some(&FLOOD)) => self.floods.push(id),
            (None, Some(&ECHO)) if is_end => self.answer(quic, id, Bytes::copy_from_slice(data)),
            (None, Some(&ECHO)) => {
                self.begun.insert(id, Begun::Request(data.to_vec()));
            }
            (None, None) => {}
            _ => {
                // No stream of this protocol; both directions end.
                let _ = quic.stream_shutdown(id, quiche::Shutdown::Write, 0);
                let _ = quic.stream_shutdown(id, quiche::Shutdown::Read, 0);
            }
        }
        if is_end && let Some(Begun::Request(request)) = self.begun.remove(&id) {
            self.answer(quic, id, request.into());
        }
    }

    fn answer(&mut self, quic: &mut Quic, id: u64, mut answer: Bytes) {
        if !send_all(quic, id, &mut answer, true) {
            self.answers.push((id, answer));
        }
    }
}

/// Gives the rest of `data` to the stream. True when nothing is left, or the stream has ended.
pub fn send_all(quic: &mut Quic, id: u64, data: &mut Bytes, is_end: bool) -> bool {
    match quic.stream_send_zc(id, data.clone(), is_end) {
        Ok((_, None)) => true,
        Ok((_, Some(rest))) => {
            *data = rest;
            false
        }
        Err(Error::Done | Error::StreamLimit) => false,
        Err(_) => true,
    }
}

/// Fills the streams `ids` in turn, a chunk each, as long as any takes something.
pub fn flood(quic: &mut Quic, ids: &mut Vec<u64>) {
    let mut takes = !ids.is_empty();
    while takes {
        takes = false;
        ids.retain(|id| {
            match quic.stream_send_zc(*id, Bytes::from_static(&FILL), false) {
                Ok((_, rest)) => takes |= rest.is_none(),
                Err(Error::Done) => {}
                Err(_) => return false,
            }
            true
        });
    }
    // The connection's window may end within a round: another begins the next one.
    if ids.len() > 1 {
        ids.rotate_left(1);
    }
}
