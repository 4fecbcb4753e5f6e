//! The driving side: one connection with its streams or requests, or many connections that are
//! opened and closed or held.

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use corelane_bench_peer::requests::Requests;
use corelane_bench_peer::streams::{self, CHUNK, FLOOD, SINK};
use corelane_bench_peer::udp::Udp;
use corelane_bench_peer::{
    AT_A_TIME, Client, Fault, Latency, Meter, Outcome, SETTLE, Timer, WARM_UPS, Work, new_latency,
    now,
};
use tquic::{Connection, TransportHandler};

use crate::driver::{Driver, flood, write_all};
use crate::settings;

/// What the callbacks of tquic leave for the loop.
#[derive(Default)]
struct Events {
    /// Answers, where requests are measured: stream, bytes, and whether that is all.
    answers: Vec<(u64, usize, bool)>,
    /// Connections that this side did not close, and why they ended.
    closed: Vec<(u64, String)>,
}

/// Works until the meter stops it.
pub fn run(client: Client) -> Result<Outcome, Fault> {
    let udp = Udp::bind(settings::socket_buffer(&client.run))?;
    let config = settings::client(&client.run, &client.certificates)?;
    let events = Rc::new(RefCell::new(Events::default()));
    let handler = Handler {
        events: events.clone(),
        meter: client.meter.clone(),
        work: client.run.work,
        scratch: vec![0; CHUNK],
    };
    let mut load = Load {
        driver: Driver::new(udp, config, false, Box::new(handler)),
        events,
        under_way: Vec::new(),
        client,
    };
    match load.client.run.work {
        Work::Up => load.up(),
        Work::Down => load.down(),
        Work::RequestResponse => load.requests(),
        Work::Handshake => load.handshakes(),
        Work::Idle => load.idle(),
        Work::Datagram => Err("tquic has no DATAGRAM frames".into()),
    }
}

struct Load {
    client: Client,
    driver: Driver,
    events: Rc<RefCell<Events>>,
    /// Handshakes that the server has not confirmed, and when they began.
    under_way: Vec<(u64, Instant)>,
}

impl Load {
    /// Opens the connection of a work that has one.
    fn connected(&mut self) -> Result<u64, Fault> {
        let at = self.open(1)?;
        self.client.ready();
        at.first()
            .copied()
            .ok_or_else(|| "stopped before it began".into())
    }

    fn connection(&mut self, at: u64) -> Result<&mut Connection, Fault> {
        let found = self.driver.endpoint.conn_get_mut(at);
        found.ok_or_else(|| "the connection ended".into())
    }

    /// Calls `step` after whatever happened to connection `at`, until the meter stops it, and
    /// closes the connection.
    fn work(
        &mut self,
        at: u64,
        timer: Option<&Timer>,
        mut step: impl FnMut(&mut Connection, &mut Events, &Client) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        while !self.client.meter.is_stopped() {
            let Some(connection) = self.driver.endpoint.conn_get_mut(at) else {
                return Err("the connection ended".into());
            };
            step(connection, &mut self.events.borrow_mut(), &self.client)?;
            let stop = self.client.stop.as_fd();
            match timer {
                Some(timer) => self.driver.turn(&[stop, timer.as_fd()])?,
                None => self.driver.turn(&[stop])?,
            }
        }
        self.connection(at)?.close(true, 0, b"")?;
        self.driver.endpoint.process_connections()?;
        Ok(())
    }

    /// Opens the streams of bulk data with the byte that says what they are for.
    fn open_streams(&mut self, at: u64, kind: u8, is_end: bool) -> Result<Vec<u64>, Fault> {
        let streams = self.client.run.streams;
        let connection = self.connection(at)?;
        let mut ids = Vec::with_capacity(streams);
        for _ in 0..streams {
            let id = connection.stream_bidi_new(0, true)?;
            connection.stream_write(id, Bytes::copy_from_slice(&[kind]), is_end)?;
            connection.stream_want_read(id, true)?;
            ids.push(id);
        }
        Ok(ids)
    }

    fn up(&mut self) -> Result<Outcome, Fault> {
        let at = self.connected()?;
        let mut ids = self.open_streams(at, SINK, false)?;
        self.work(at, None, |connection, _, _| {
            flood(connection, &mut ids);
            Ok(())
        })?;
        Ok(Outcome::default())
    }

    fn down(&mut self) -> Result<Outcome, Fault> {
        let at = self.connected()?;
        self.open_streams(at, FLOOD, true)?;
        self.work(at, None, |_, _, _| Ok(()))?;
        Ok(Outcome::default())
    }

    fn requests(&mut self) -> Result<Outcome, Fault> {
        let run = self.client.run;
        let at = self.connected()?;
        let request = Bytes::from(streams::request(run.size));
        let mut requests = Requests::new(&run)?;
        let timer = requests.timer();
        let mut writer = Writer {
            request,
            stream: None,
            rest: None,
        };
        self.work(at, timer.as_deref(), |connection, events, client| {
            for (id, size, is_end) in events.answers.drain(..) {
                requests.answered(id / 4, size, is_end, &client.meter)?;
            }
            writer.write(connection, &mut requests)
        })?;
        Ok(Outcome {
            latency: Some(requests.into_latency()),
            ..Outcome::default()
        })
    }

    /// Begins a handshake.
    fn begin(&mut self, session: Option<&[u8]>) -> Result<(), Fault> {
        let since = now();
        let at = self.driver.connect(self.client.addr, session)?;
        self.under_way.push((at, since));
        Ok(())
    }

    /// Waits until something happens and returns the connections that the server has confirmed
    /// since, with when they began. The session ticket comes together with the confirmation.
    fn turn(&mut self, others: &[BorrowedFd<'_>]) -> Result<Vec<(u64, Instant)>, Fault> {
        self.driver.turn(others)?;
        let closed = std::mem::take(&mut self.events.borrow_mut().closed);
        let mut done = Vec::new();
        let endpoint = &mut self.driver.endpoint;
        self.under_way.retain(|&(at, since)| {
            let connection = endpoint.conn_get_mut(at);
            let is_done = connection.is_some_and(|c| c.is_confirmed() && c.session().is_some());
            if is_done {
                done.push((at, since));
            }
            !is_done
        });
        for (at, why) in closed {
            if self.under_way.iter().any(|(under_way, _)| *under_way == at) {
                return Err(format!("a handshake failed: {why}").into());
            }
        }
        Ok(done)
    }

    fn handshakes(&mut self) -> Result<Outcome, Fault> {
        let run = self.client.run;
        let stop = self.client.stop.clone();
        let mut latency = new_latency();
        let mut session = None;
        if run.resume {
            for at in self.open(1)? {
                let connection = self.connection(at)?;
                session = connection.session().map(<[u8]>::to_vec);
                connection.close(true, 0, b"")?;
            }
        }
        self.client.ready();
        for _ in 0..run.streams {
            self.begin(session.as_deref())?;
        }
        while !self.client.meter.is_stopped() {
            for (at, since) in self.turn(&[stop.as_fd()])? {
                self.note_handshake(since, &mut latency)?;
                let connection = self.connection(at)?;
                if let Some(session) = &mut session {
                    if !connection.is_resumed() {
                        return Err("the server did not resume a session".into());
                    }
                    if let Some(newer) = connection.session() {
                        session.clear();
                        session.extend_from_slice(newer);
                    }
                }
                connection.close(true, 0, b"")?;
                self.begin(session.as_deref())?;
            }
        }
        Ok(Outcome {
            latency: Some(latency),
            ..Outcome::default()
        })
    }

    fn note_handshake(&self, since: Instant, latency: &mut Latency) -> Result<(), Fault> {
        self.client.meter.operations.add(1);
        if self.client.meter.is_measuring() {
            latency.saturating_record(u64::try_from(since.elapsed().as_nanos())?);
        }
        Ok(())
    }

    /// Opens `count` connections, some at a time.
    fn open(&mut self, count: usize) -> Result<Vec<u64>, Fault> {
        let stop = self.client.stop.clone();
        let mut open = Vec::with_capacity(count);
        while open.len() < count && !stop.is_set() {
            while open.len() + self.under_way.len() < count && self.under_way.len() < AT_A_TIME {
                self.begin(None)?;
            }
            open.extend(self.turn(&[stop.as_fd()])?.iter().map(|(at, _)| at));
        }
        Ok(open)
    }

    fn idle(&mut self) -> Result<Outcome, Fault> {
        for at in self.open(WARM_UPS)? {
            self.connection(at)?.close(true, 0, b"")?;
        }
        let (timer, settled) = (Timer::new()?, now() + SETTLE);
        timer.set(SETTLE)?;
        while now() < settled {
            self.turn(&[timer.as_fd()])?;
        }
        self.client.warmed_up()?;
        let held = self.open(self.client.run.connections)?;
        self.client.ready();
        let stop = self.client.stop.clone();
        while !stop.is_set() {
            self.turn(&[stop.as_fd()])?;
        }
        let open = held.iter().filter(|at| self.connection(**at).is_ok());
        Ok(Outcome {
            open: open.count() as u64,
            ..Outcome::default()
        })
    }
}

/// Writes requests, each to a stream of its own as far as that takes it.
struct Writer {
    request: Bytes,
    /// Opened for the next request.
    stream: Option<u64>,
    /// What the stream of the last request has not taken yet.
    rest: Option<(u64, Bytes)>,
}

impl Writer {
    /// Begins what may begin, as far as the connection takes it.
    fn write(&mut self, connection: &mut Connection, requests: &mut Requests) -> Result<(), Fault> {
        while self.finish(connection)
            && let Some(since) = requests.due()
            && let Some(id) = self.open(connection)?
        {
            if 4 * requests.begin(since) != id {
                return Err(format!("stream {id} is not the next").into());
            }
            self.stream = None;
            self.rest = Some((id, self.request.clone()));
        }
        Ok(requests.set_timer()?)
    }

    /// A new stream, unless the server permits no more for now.
    fn open(&mut self, connection: &mut Connection) -> Result<Option<u64>, Fault> {
        if self.stream.is_none() {
            match connection.stream_bidi_new(0, true) {
                Ok(id) => {
                    connection.stream_want_read(id, true)?;
                    self.stream = Some(id);
                }
                Err(tquic::Error::StreamLimitError) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(self.stream)
    }

    /// Writes the rest of the last request. False when something is left.
    fn finish(&mut self, connection: &mut Connection) -> bool {
        let is_done = match &mut self.rest {
            Some((id, rest)) => write_all(connection, *id, rest),
            None => true,
        };
        if is_done {
            self.rest = None;
        }
        is_done
    }
}

/// What tquic calls.
struct Handler {
    events: Rc<RefCell<Events>>,
    meter: Arc<Meter>,
    work: Work,
    scratch: Vec<u8>,
}

impl TransportHandler for Handler {
    fn on_conn_created(&mut self, _: &mut Connection) {}

    fn on_conn_established(&mut self, _: &mut Connection) {}

    fn on_conn_closed(&mut self, connection: &mut Connection) {
        let Some(at) = connection.index() else {
            return;
        };
        if connection.local_error().is_some_and(|error| error.is_app) {
            // This side closed it.
            return;
        }
        let why = format!(
            "here {:?}, there {:?}, idle {}, reset {}",
            connection.local_error(),
            connection.peer_error(),
            connection.is_idle_timeout(),
            connection.is_reset(),
        );
        self.events.borrow_mut().closed.push((at, why));
    }

    fn on_stream_created(&mut self, _: &mut Connection, _: u64) {}

    fn on_stream_readable(&mut self, connection: &mut Connection, id: u64) {
        let events = &mut *self.events.borrow_mut();
        while let Ok((size, is_end)) = connection.stream_read(id, &mut self.scratch) {
            match self.work {
                Work::RequestResponse => events.answers.push((id, size, is_end)),
                _ => self.meter.bytes.add(size as u64),
            }
            if is_end {
                break;
            }
        }
    }

    fn on_stream_writable(&mut self, connection: &mut Connection, id: u64) {
        // What there is to write is written after each turn.
        let _ = connection.stream_want_write(id, false);
    }

    fn on_stream_closed(&mut self, _: &mut Connection, _: u64) {}

    fn on_new_token(&mut self, _: &mut Connection, _: Vec<u8>) {}
}
