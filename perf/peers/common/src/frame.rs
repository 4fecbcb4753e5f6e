//! The frame of a run: a pinned thread for each side, the warm-up and the window between them, and
//! an end on time even when a side hangs.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use corelane_perf::clock::{CpuClock, spawn_pinned};
use corelane_perf::meter::{Latency, Meter, Sample};

use crate::{Certificates, Fault, Peer, Run, Stop, Work, process};

/// How long a side may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(20);
/// The same where many connections have to be opened first.
const LONG_PATIENCE: Duration = Duration::from_secs(300);

/// What the serving side gets.
pub struct Server {
    /// The run.
    pub run: Run,
    /// What it shows.
    pub certificates: Arc<Certificates>,
    /// What it counts into.
    pub meter: Arc<Meter>,
    /// When it has to end: after the client.
    pub stop: Stop,
    events: Sender<Event>,
}

impl Server {
    /// Clients can connect to `addr` now.
    pub fn listening(&self, addr: SocketAddr) {
        // Nobody listens any more when the run has failed.
        let _ = self.events.send(Event::Listening(addr));
    }
}

/// What the driving side gets.
pub struct Client {
    /// The run.
    pub run: Run,
    /// What it trusts.
    pub certificates: Arc<Certificates>,
    /// What it counts into. It is also the flag that stops the client.
    pub meter: Arc<Meter>,
    /// Set together with the meter's: for waiting where nothing happens.
    pub stop: Stop,
    /// Where the server listens.
    pub addr: SocketAddr,
    server_pid: u32,
    memory_before: Arc<Mutex<Option<Memory>>>,
    events: Sender<Event>,
}

impl Client {
    /// The work begins: connections that it needs are open.
    pub fn ready(&self) {
        let _ = self.events.send(Event::Ready);
    }

    /// With [`Work::Idle`]: [`crate::WARM_UPS`] connections have been opened and closed, and
    /// [`crate::SETTLE`] has passed.
    ///
    /// # Errors
    /// When the server has ended.
    pub fn warmed_up(&self) -> Result<(), Fault> {
        let memory = Memory::of(self.server_pid)?;
        *self
            .memory_before
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(memory);
        Ok(())
    }
}

/// What the driving side tells at its end.
#[derive(Default)]
pub struct Outcome {
    /// Latencies of operations that ended in the window.
    pub latency: Option<Latency>,
    /// With [`Work::Idle`]: connections that were still open after the window.
    pub open: u64,
}

/// Resident memory of both processes, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub client: u64,
    pub server: u64,
}

impl Memory {
    /// Of this process and another.
    pub(crate) fn of(server_pid: u32) -> Result<Self, Fault> {
        Ok(Self {
            client: process::memory(std::process::id())?,
            server: process::memory(server_pid)?,
        })
    }
}

/// What a run has found.
pub(crate) struct Measured {
    pub sample: Sample,
    pub latency: Option<Latency>,
    /// Memory for each connection that is held.
    pub memory: Option<Memory>,
}

pub(crate) enum Event {
    Listening(SocketAddr),
    Ready,
    ServerEnded(Result<(), Fault>),
    ClientEnded(Result<Outcome, Fault>),
}

/// Tells the end of a thread, that of a panic too.
struct Announce<T> {
    events: Sender<Event>,
    result: Option<Result<T, Fault>>,
    event: fn(Result<T, Fault>) -> Event,
}

impl<T> Drop for Announce<T> {
    fn drop(&mut self) {
        let result = self.result.take();
        let result = result.unwrap_or_else(|| Err("a thread panicked".into()));
        let _ = self.events.send((self.event)(result));
    }
}

fn spawn<T: 'static>(
    name: &str,
    core: usize,
    events: Sender<Event>,
    event: fn(Result<T, Fault>) -> Event,
    body: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<CpuClock, Fault> {
    let (clock, _) = spawn_pinned(name, core, move || {
        let mut announce = Announce {
            events,
            result: None,
            event,
        };
        announce.result = Some(body());
    })?;
    Ok(clock)
}

/// Starts the serving side; its address comes as an event.
pub(crate) fn start_server<P: Peer>(
    run: &Run,
    certificates: Arc<Certificates>,
    meter: Arc<Meter>,
    stop: Stop,
    events: &Sender<Event>,
) -> Result<CpuClock, Fault> {
    let server = Server {
        run: *run,
        certificates,
        meter,
        stop,
        events: events.clone(),
    };
    let core = run.server_core;
    spawn(
        "server-0",
        core,
        events.clone(),
        Event::ServerEnded,
        move || P::serve(server),
    )
}

/// A driving side that has been started.
pub(crate) struct Started {
    pub clock: CpuClock,
    pub stop: Stop,
    pub memory_before: Arc<Mutex<Option<Memory>>>,
}

/// Starts the driving side; that it is ready comes as an event.
pub(crate) fn start_client<P: Peer>(
    run: &Run,
    certificates: Arc<Certificates>,
    meter: Arc<Meter>,
    (addr, server_pid): (SocketAddr, u32),
    events: &Sender<Event>,
) -> Result<Started, Fault> {
    let (stop, memory_before) = (Stop::new()?, Arc::default());
    let client = Client {
        run: *run,
        certificates,
        meter,
        stop: stop.clone(),
        addr,
        server_pid,
        memory_before: Arc::clone(&memory_before),
        events: events.clone(),
    };
    let core = run.client_core;
    let clock = spawn(
        "client-0",
        core,
        events.clone(),
        Event::ClientEnded,
        move || P::drive(client),
    )?;
    Ok(Started {
        clock,
        stop,
        memory_before,
    })
}

/// The next event, which has to come in time.
pub(crate) fn next(events: &Receiver<Event>, patience: Duration) -> Result<Event, Fault> {
    events.recv_timeout(patience).map_err(|e| match e {
        RecvTimeoutError::Timeout => format!("nothing happened for {patience:?}").into(),
        RecvTimeoutError::Disconnected => "both sides ended".into(),
    })
}

/// The address at which the server listens.
pub(crate) fn listening(events: &Receiver<Event>) -> Result<SocketAddr, Fault> {
    match next(events, PATIENCE)? {
        Event::Listening(addr) => Ok(addr),
        Event::ServerEnded(Err(fault)) => Err(fault),
        _ => Err("the server ended before it listened".into()),
    }
}

/// Waits until the driving side is ready.
pub(crate) fn ready(work: Work, events: &Receiver<Event>) -> Result<(), Fault> {
    let patience = match work {
        Work::Idle => LONG_PATIENCE,
        _ => PATIENCE,
    };
    match next(events, patience)? {
        Event::Ready => Ok(()),
        Event::ClientEnded(Err(fault)) | Event::ServerEnded(Err(fault)) => Err(fault),
        _ => Err("a side ended before the work began".into()),
    }
}

/// Waits for the end of the driving side.
pub(crate) fn client_ended(events: &Receiver<Event>) -> Result<Outcome, Fault> {
    match next(events, PATIENCE)? {
        Event::ClientEnded(result) => result,
        Event::ServerEnded(Err(fault)) => Err(fault),
        _ => Err("the server ended before the client".into()),
    }
}

/// Runs both sides in this process.
pub(crate) fn run<P: Peer>(run: &Run) -> Result<Measured, Fault> {
    let certificates = Arc::new(Certificates::make()?);
    let meter = Arc::new(Meter::default());
    let (tell, events) = channel();
    let stop = Stop::new()?;
    let server = start_server::<P>(
        run,
        certificates.clone(),
        meter.clone(),
        stop.clone(),
        &tell,
    )?;
    let at = (listening(&events)?, std::process::id());
    let client = start_client::<P>(run, certificates, meter.clone(), at, &tell)?;
    ready(run.work, &events)?;
    let sample = meter.measure(run.warm_up, run.window, client.clock, server);
    meter.stop();
    client.stop.set();
    // Why the client ended says more than that its clock is gone.
    let outcome = client_ended(&events)?;
    let mut sample = sample?;
    stop.set();
    // Libraries in C clean up at the end of the process: no thread may use them then.
    match next(&events, PATIENCE)? {
        Event::ServerEnded(result) => result?,
        _ => return Err("the client went on after its end".into()),
    }
    if run.work == Work::Datagram {
        // The client counts what it sends as failed until it has arrived.
        sample.failures = sample.failures.saturating_sub(sample.operations);
    }
    Ok(Measured {
        sample,
        latency: outcome.latency,
        memory: None,
    })
}

#[cfg(test)]
mod tests;
