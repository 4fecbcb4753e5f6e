//! The serving side: streams are taken, filled or answered as their first byte says.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use corelane_bench_peer::streams::{CHUNK, ECHO, ECHO_MAX, FLOOD, SINK};
use corelane_bench_peer::udp::Udp;
use corelane_bench_peer::{Fault, Meter, Server};
use tquic::{Connection, Shutdown, TransportHandler};

use crate::driver::{Driver, flood, write_all};
use crate::settings;

/// What a stream has begun.
enum Begun {
    Sink,
    Request(Vec<u8>),
}

/// What one connection wants to send.
#[derive(Default)]
struct Pending {
    floods: Vec<u64>,
    answers: Vec<(u64, Bytes)>,
}

impl Pending {
    /// Writes what the connection takes.
    fn write(&mut self, connection: &mut Connection) {
        self.answers
            .retain_mut(|(id, answer)| !write_all(connection, *id, answer));
        flood(connection, &mut self.floods);
    }
}

/// The streams that need more than one look.
#[derive(Default)]
struct Streams {
    /// By connection and stream.
    begun: HashMap<(u64, u64), Begun>,
    /// By connection.
    pending: HashMap<u64, Pending>,
}

/// Serves until it is told to stop.
pub fn run(server: Server) -> Result<(), Fault> {
    let udp = Udp::bind(settings::socket_buffer(&server.run))?;
    let config = settings::server(&server.run, &server.certificates)?;
    let streams = Rc::new(RefCell::new(Streams::default()));
    let handler = Handler {
        streams: streams.clone(),
        meter: server.meter.clone(),
        scratch: vec![0; CHUNK],
    };
    let mut driver = Driver::new(udp, config, true, Box::new(handler));
    server.listening(driver.local_addr());
    while !server.stop.is_set() {
        driver.turn(&[server.stop.as_fd()])?;
        streams.borrow_mut().pending.retain(|at, pending| {
            let Some(connection) = driver.endpoint.conn_get_mut(*at) else {
                return false;
            };
            pending.write(connection);
            !(pending.floods.is_empty() && pending.answers.is_empty())
        });
    }
    Ok(())
}

/// What tquic calls.
struct Handler {
    streams: Rc<RefCell<Streams>>,
    meter: Arc<Meter>,
    scratch: Vec<u8>,
}

impl TransportHandler for Handler {
    fn on_conn_created(&mut self, _: &mut Connection) {}

    fn on_conn_established(&mut self, _: &mut Connection) {}

    fn on_conn_closed(&mut self, connection: &mut Connection) {
        if let Some(at) = connection.index() {
            self.streams.borrow_mut().pending.remove(&at);
        }
    }

    fn on_stream_created(&mut self, connection: &mut Connection, id: u64) {
        // It is there: tquic has just said so.
        let _ = connection.stream_want_read(id, true);
    }

    fn on_stream_readable(&mut self, connection: &mut Connection, id: u64) {
        let Some(at) = connection.index() else {
            return;
        };
        let streams = &mut *self.streams.borrow_mut();
        // A stream that the client broke off, as it does at the end of a run, ends here.
        while let Ok((size, is_end)) = connection.stream_read(id, &mut self.scratch) {
            let data = &self.scratch[..size];
            streams.on_data(connection, (at, id), data, is_end, &self.meter);
            if is_end {
                break;
            }
        }
    }

    fn on_stream_writable(&mut self, connection: &mut Connection, id: u64) {
        // What is pending is written after each turn.
        let _ = connection.stream_want_write(id, false);
    }

    fn on_stream_closed(&mut self, connection: &mut Connection, id: u64) {
        if let Some(at) = connection.index() {
            self.streams.borrow_mut().begun.remove(&(at, id));
        }
    }

    fn on_new_token(&mut self, _: &mut Connection, _: Vec<u8>) {}
}

impl Streams {
    fn on_data(
        &mut self,
        connection: &mut Connection,
        (at, id): (u64, u64),
        data: &[u8],
        is_end: bool,
        meter: &Meter,
    ) {
        match (self.begun.get_mut(&(at, id)), data.first()) {
            (Some(Begun::Sink), _) => meter.bytes.add(data.len() as u64),
            (Some(Begun::Request(request)), _) if request.len() + data.len() <= ECHO_MAX => {
                request.extend_from_slice(data);
            }
            (None, Some(&SINK)) => {
                meter.bytes.add(data.len() as u64 - 1);
                self.begun.insert((at, id), Begun::Sink);
            }
            (None, Some(&FLOOD)) => self.pending.entry(at).or_default().floods.push(id),
            (None, Some(&ECHO)) if is_end => {
                self.answer(connection, (at, id), Bytes::copy_from_slice(data));
            }
            (None, Some(&ECHO)) => {
                let request = Begun::Request(data.to_vec());
                self.begun.insert((at, id), request);
            }
            (None, None) => {}
            _ => {
                // No stream of this protocol; both directions end.
                let _ = connection.stream_shutdown(id, Shutdown::Write, 0);
                let _ = connection.stream_shutdown(id, Shutdown::Read, 0);
            }
        }
        if is_end && let Some(Begun::Request(request)) = self.begun.remove(&(at, id)) {
            self.answer(connection, (at, id), request.into());
        }
    }

    fn answer(&mut self, connection: &mut Connection, (at, id): (u64, u64), mut answer: Bytes) {
        if !write_all(connection, id, &mut answer) {
            let pending = self.pending.entry(at).or_default();
            pending.answers.push((id, answer));
        }
    }
}
