//! The driving side: one connection with its streams, requests or datagrams, or many connections
//! that are opened and closed or held.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use bytes::Bytes;
use corelane_bench_peer::requests::Requests;
use corelane_bench_peer::streams::{CHUNK, FLOOD, SINK};
use corelane_bench_peer::udp::Udp;
use corelane_bench_peer::{
    AT_A_TIME, Client, Fault, Latency, Outcome, SETTLE, Timer, WARM_UPS, Work, new_latency, now,
};

use crate::endpoint::{Endpoint, Quic};
use crate::requests::{self, Writer};
use crate::server::flood;
use crate::settings;

/// What is kept for a connection: when it began, and whether it has been counted.
#[derive(Default)]
struct Opened {
    since: Option<Instant>,
    is_counted: bool,
}

/// Works until the meter stops it.
pub fn run(client: Client) -> Result<Outcome, Fault> {
    let udp = Udp::bind(settings::socket_buffer(&client.run))?;
    let config = settings::client(&client.run, &client.certificates)?;
    let mut driver = Driver {
        endpoint: Endpoint::new(udp, config, false),
        scratch: vec![0; CHUNK],
        client,
    };
    match driver.client.run.work {
        Work::Up => driver.up(),
        Work::Down => driver.down(),
        Work::RequestResponse => driver.requests(),
        Work::Datagram => driver.datagrams(),
        Work::Handshake => driver.handshakes(),
        Work::Idle => driver.idle(),
    }
}

struct Driver {
    client: Client,
    endpoint: Endpoint<Opened>,
    scratch: Vec<u8>,
}

impl Driver {
    /// Opens the connection of a work that has one.
    fn connected(&mut self) -> Result<usize, Fault> {
        let at = self.endpoint.connect(self.client.addr, None)?;
        while !self.quic(at)?.is_established() {
            self.endpoint.turn(&[self.client.stop.as_fd()])?;
            self.flush_all()?;
        }
        self.client.ready();
        Ok(at)
    }

    fn quic(&mut self, at: usize) -> Result<&mut Quic, Fault> {
        match self.endpoint.get_mut(at) {
            Some(peer) => Ok(&mut peer.quic),
            None => Err("the connection ended".into()),
        }
    }

    fn flush_all(&mut self) -> Result<(), Fault> {
        for _ in 0..self.endpoint.queued() {
            if let Some(at) = self.endpoint.next() {
                self.endpoint.flush(at)?;
            }
        }
        Ok(())
    }

    /// Calls `step` after whatever happened to connection `at`, until the meter stops it, and
    /// closes the connection. While there is room for datagrams, it is called again without
    /// waiting.
    fn work(
        &mut self,
        at: usize,
        timer: Option<&Timer>,
        mut step: impl FnMut(&mut Quic, &mut [u8], &Client) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        while !self.client.meter.is_stopped() {
            // No other connection is there.
            self.endpoint.next();
            let Some(peer) = self.endpoint.get_mut(at) else {
                return Err("the connection ended".into());
            };
            step(&mut peer.quic, &mut self.scratch, &self.client)?;
            self.endpoint.flush(at)?;
            if self.client.run.work == Work::Datagram && !self.quic(at)?.is_dgram_send_queue_full()
            {
                self.endpoint.queue(at);
            }
            let stop = self.client.stop.as_fd();
            match timer {
                Some(timer) => self.endpoint.turn(&[stop, timer.as_fd()])?,
                None => self.endpoint.turn(&[stop])?,
            }
        }
        self.close(at)
    }

    fn close(&mut self, at: usize) -> Result<(), Fault> {
        if let Some(peer) = self.endpoint.get_mut(at) {
            // It may have been closed from the other side meanwhile.
            let _ = peer.quic.close(true, 0, b"");
        }
        Ok(self.endpoint.flush(at)?)
    }

    /// Opens the streams of bulk data with the byte that says what they are for.
    fn open_streams(&mut self, at: usize, kind: u8, is_end: bool) -> Result<Vec<u64>, Fault> {
        let streams = self.client.run.streams as u64;
        let quic = self.quic(at)?;
        let ids: Vec<u64> = (0..streams).map(|n| 4 * n).collect();
        for id in &ids {
            quic.stream_send(*id, &[kind], is_end)?;
        }
        Ok(ids)
    }

    fn up(&mut self) -> Result<Outcome, Fault> {
        let at = self.connected()?;
        let mut ids = self.open_streams(at, SINK, false)?;
        self.work(at, None, |quic, _, _| {
            flood(quic, &mut ids);
            Ok(())
        })?;
        Ok(Outcome::default())
    }

    fn down(&mut self) -> Result<Outcome, Fault> {
        let at = self.connected()?;
        self.open_streams(at, FLOOD, true)?;
        self.work(at, None, |quic, scratch, client| {
            while let Some(id) = quic.stream_readable_next() {
                while let Ok((size, is_end)) = quic.stream_recv(id, scratch) {
                    client.meter.bytes.add(size as u64);
                    if is_end {
                        return Err("the server ended a stream".into());
                    }
                }
            }
            Ok(())
        })?;
        Ok(Outcome::default())
    }

    fn requests(&mut self) -> Result<Outcome, Fault> {
        let run = self.client.run;
        let at = self.connected()?;
        let mut requests = Requests::new(&run)?;
        let mut writer = Writer::new(run.size);
        let timer = requests.timer();
        self.work(at, timer.as_deref(), |quic, scratch, client| {
            requests::read(quic, &mut requests, scratch, &client.meter)?;
            Ok(writer.write(quic, &mut requests)?)
        })?;
        Ok(Outcome {
            latency: Some(requests.into_latency()),
            ..Outcome::default()
        })
    }

    fn datagrams(&mut self) -> Result<Outcome, Fault> {
        let at = self.connected()?;
        let datagram = Bytes::from(vec![0x5a; self.client.run.size]);
        let longest = self.quic(at)?.dgram_max_writable_len();
        if longest.is_none_or(|longest| longest < datagram.len()) {
            return Err(format!("a datagram has {longest:?} bytes at most").into());
        }
        self.work(at, None, |quic, _, client| {
            let mut sent = 0;
            while quic.dgram_send_buf(datagram.clone()).is_ok() {
                sent += 1;
            }
            // Sent ones count as failures until they have arrived.
            client.meter.failures.add(sent);
            Ok(())
        })?;
        Ok(Outcome::default())
    }

    /// Begins a handshake.
    fn begin(&mut self, session: Option<&[u8]>) -> Result<usize, Fault> {
        let since = now();
        let at = self.endpoint.connect(self.client.addr, session)?;
        if let Some(peer) = self.endpoint.get_mut(at) {
            peer.app.since = Some(since);
        }
        Ok(at)
    }

    /// Waits until something happens, calls `done` with every connection that `is_done` since,
    /// once each, and sends what is to be sent.
    fn turn(
        &mut self,
        others: &[BorrowedFd<'_>],
        is_done: fn(&Quic) -> bool,
        mut done: impl FnMut(&mut Self, usize) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.endpoint.turn(others)?;
        for _ in 0..self.endpoint.queued() {
            let Some(at) = self.endpoint.next() else {
                break;
            };
            let Some(peer) = self.endpoint.get_mut(at) else {
                continue;
            };
            let is_counted = peer.app.is_counted;
            let is_done = is_done(&peer.quic);
            peer.app.is_counted |= is_done;
            if is_done && !is_counted {
                done(self, at)?;
            }
            self.endpoint.flush(at)?;
            if !is_done && self.endpoint.get_mut(at).is_none() {
                return Err("a handshake failed".into());
            }
        }
        Ok(())
    }

    fn handshakes(&mut self) -> Result<Outcome, Fault> {
        let run = self.client.run;
        let stop = self.client.stop.clone();
        let mut latency = new_latency();
        let mut session = None;
        if run.resume {
            self.begin(None)?;
            while session.is_none() {
                self.turn(&[stop.as_fd()], is_confirmed, |driver, at| {
                    session = driver.quic(at)?.session().map(<[u8]>::to_vec);
                    driver.close(at)
                })?;
            }
        }
        self.client.ready();
        for _ in 0..run.streams {
            self.begin(session.as_deref())?;
        }
        while !self.client.meter.is_stopped() {
            self.turn(&[stop.as_fd()], Quic::is_established, |driver, at| {
                driver.note_handshake(at, &mut latency, &mut session)?;
                // A close leaves alone: what ends the handshake has to go before it.
                driver.endpoint.flush(at)?;
                driver.close(at)?;
                driver.begin(session.as_deref()).map(|_| ())
            })?;
        }
        Ok(Outcome {
            latency: Some(latency),
            ..Outcome::default()
        })
    }

    /// Counts a handshake, and takes its ticket where the next is to resume.
    fn note_handshake(
        &mut self,
        at: usize,
        latency: &mut Latency,
        session: &mut Option<Vec<u8>>,
    ) -> Result<(), Fault> {
        let Some(peer) = self.endpoint.get_mut(at) else {
            return Ok(());
        };
        if let Some(session) = session {
            if !peer.quic.is_resumed() {
                return Err("the server did not resume a session".into());
            }
            if let Some(newer) = peer.quic.session() {
                session.clear();
                session.extend_from_slice(newer);
            }
        }
        self.client.meter.operations.add(1);
        if self.client.meter.is_measuring()
            && let Some(since) = peer.app.since
        {
            latency.saturating_record(u64::try_from(since.elapsed().as_nanos())?);
        }
        Ok(())
    }

    /// Opens `count` connections, some at a time.
    fn open(&mut self, count: usize) -> Result<Vec<usize>, Fault> {
        let stop = self.client.stop.clone();
        let (mut open, mut begun) = (Vec::with_capacity(count), 0);
        while open.len() < count && !stop.is_set() {
            while begun < count && begun - open.len() < AT_A_TIME {
                self.begin(None)?;
                begun += 1;
            }
            self.turn(&[stop.as_fd()], is_confirmed, |_, at| {
                open.push(at);
                Ok(())
            })?;
        }
        Ok(open)
    }

    fn idle(&mut self) -> Result<Outcome, Fault> {
        for at in self.open(WARM_UPS)? {
            self.close(at)?;
        }
        let (timer, settled) = (Timer::new()?, now() + SETTLE);
        timer.set(SETTLE)?;
        while now() < settled {
            self.turn(&[timer.as_fd()], is_confirmed, |_, _| Ok(()))?;
        }
        self.client.warmed_up()?;
        let held = self.open(self.client.run.connections)?;
        self.client.ready();
        let stop = self.client.stop.clone();
        while !stop.is_set() {
            self.turn(&[stop.as_fd()], is_confirmed, |_, _| Ok(()))?;
        }
        let open = held.iter().filter(|at| self.quic(**at).is_ok()).count();
        Ok(Outcome {
            open: open as u64,
            ..Outcome::default()
        })
    }
}

/// Whether the server has finished the handshake, too. quiche does not tell; the session ticket
/// comes together with HANDSHAKE_DONE.
fn is_confirmed(quic: &Quic) -> bool {
    quic.is_established() && quic.session().is_some()
}
