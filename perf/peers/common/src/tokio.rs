//! The driving side of the peers that run on tokio: every work over the few things that a
//! [`Transport`] does, each operation a task of a single-threaded runtime.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::{
    AT_A_TIME, Client, Fault, Latency, MAX_UNDER_WAY, Meter, Outcome, Pacer, Resumption, Run,
    SETTLE, Stop, Timer, WARM_UPS, Work, new_latency, now, streams,
};

/// How long a ticket may take.
const TICKET_PATIENCE: Duration = Duration::from_secs(5);

/// A client that opens connections.
pub trait Connect: Clone + Send + Sync + 'static {
    /// A connection. The last of its clones closes it, or [`close`](Self::close) does.
    type Connection: Clone + Send + Sync + 'static;

    /// Opens one, up to the end of its handshake.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection, Fault>> + Send;

    /// Closes it, without waiting.
    fn close(connection: Self::Connection);

    /// Whether it lives.
    fn is_open(connection: &Self::Connection) -> bool;
}

/// A client whose connections have streams and datagrams.
pub trait Transport: Connect {
    /// Sends a stream of bulk data until the meter stops it.
    fn upload(
        connection: Self::Connection,
        meter: Arc<Meter>,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Receives and counts one.
    fn download(
        connection: Self::Connection,
        meter: Arc<Meter>,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Sends a request on a stream of its own and returns the length of the answer.
    fn request(
        connection: &Self::Connection,
        request: Bytes,
    ) -> impl Future<Output = Result<usize, Fault>> + Send;

    /// Sends datagrams as fast as they are taken, each counted as a failure.
    fn datagrams(
        connection: Self::Connection,
        datagram: Bytes,
        meter: Arc<Meter>,
    ) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// A runtime as users of one core have it.
///
/// # Errors
/// When the system has no resources for it.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Something of this crate that is waited for.
struct Fd<T>(T);

impl<T: AsFd> AsRawFd for Fd<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl<T: AsFd> AsFd for Fd<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Registers a descriptor with the runtime, for reading.
fn register<T: AsFd>(owner: T) -> io::Result<AsyncFd<Fd<T>>> {
    // SAFETY: the callers pass owners of a descriptor that always return the same one; the
    // registration owns them, so that it is open for as long.
    unsafe { AsyncFd::register_with_interest(Fd(owner), Interest::READABLE) }.map_err(Into::into)
}

/// Returns when `stop` is set.
///
/// # Errors
/// Outside of a runtime.
pub async fn stopped(stop: &Stop) -> Result<(), Fault> {
    let fd = register(stop.clone())?;
    while !stop.is_set() {
        fd.readable().await?.clear_ready();
    }
    Ok(())
}

/// Does what the run asks for, within a runtime.
///
/// # Errors
/// When the transport fails.
pub async fn drive<T: Transport>(
    client: Client,
    transport: T,
    resumption: &Arc<Resumption>,
) -> Result<Outcome, Fault> {
    match client.run.work {
        Work::Handshake | Work::Idle => connections(client, transport, resumption).await,
        _ => {
            let connection = transport.connect().await?;
            client.ready();
            let done = over::<T>(&client, &connection).await;
            T::close(connection);
            // The close has to leave before the runtime ends.
            tokio::time::sleep(Duration::from_millis(20)).await;
            done
        }
    }
}

/// The work of one connection.
async fn over<T: Transport>(client: &Client, connection: &T::Connection) -> Result<Outcome, Fault> {
    let Run { work, size, .. } = client.run;
    let latencies = Latencies::new(&client.meter);
    let mut workers = JoinSet::new();
    for _ in 0..client.run.streams {
        let (connection, meter) = (connection.clone(), client.meter.clone());
        match work {
            Work::Up => workers.spawn(T::upload(connection, meter)),
            Work::Down => workers.spawn(T::download(connection, meter)),
            Work::Datagram => {
                let datagram = Bytes::from(vec![0x5a; size]);
                workers.spawn(T::datagrams(connection, datagram, meter))
            }
            _ if client.run.rate.is_none() => {
                workers.spawn(requests::<T>(connection, size, latencies.clone()))
            }
            _ => break,
        };
    }
    if let Some(rate) = client.run.rate {
        at_rate::<T>(connection, (rate, size), &latencies).await?;
    }
    // The first that fails says why.
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    Ok(Outcome {
        latency: latencies.take(),
        open: 0,
    })
}

/// Counts operations and their latencies for all tasks of the client's thread.
#[derive(Clone)]
struct Latencies {
    meter: Arc<Meter>,
    histogram: Arc<Mutex<Latency>>,
}

impl Latencies {
    fn new(meter: &Arc<Meter>) -> Self {
        Self {
            meter: meter.clone(),
            histogram: Arc::new(Mutex::new(new_latency())),
        }
    }

    fn record(&self, begin: Instant) {
        self.meter.operations.add(1);
        if self.meter.is_measuring() {
            let nanos = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let mut histogram = self
                .histogram
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            histogram.saturating_record(nanos.max(1));
        }
    }

    fn take(&self) -> Option<Latency> {
        let histogram = self
            .histogram
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        (!histogram.is_empty()).then(|| histogram.clone())
    }
}

/// One request after the other.
async fn requests<T: Transport>(
    connection: T::Connection,
    size: usize,
    latencies: Latencies,
) -> Result<(), Fault> {
    let request = Bytes::from(streams::request(size));
    while !latencies.meter.is_stopped() {
        let begin = now();
        answered::<T>(&connection, request.clone()).await?;
        latencies.record(begin);
    }
    Ok(())
}

async fn answered<T: Transport>(connection: &T::Connection, request: Bytes) -> Result<(), Fault> {
    let size = request.len();
    match T::request(connection, request).await? {
        length if length == size => Ok(()),
        length => Err(format!("an answer of {length} bytes").into()),
    }
}

/// Requests at fixed times. Those that are due beyond [`MAX_UNDER_WAY`] wait, and their time counts.
async fn at_rate<T: Transport>(
    connection: &T::Connection,
    (rate, size): (u32, usize),
    latencies: &Latencies,
) -> Result<(), Fault> {
    let request = Bytes::from(streams::request(size));
    let timer = register(Timer::new()?)?;
    let room = Arc::new(Semaphore::new(MAX_UNDER_WAY));
    let mut under_way = JoinSet::new();
    let mut pacer = Pacer::new(now(), rate);
    while !latencies.meter.is_stopped() {
        let Some(due) = pacer.take(now()) else {
            timer
                .get_ref()
                .0
                .set(pacer.next().saturating_duration_since(now()))?;
            let mut fired = timer.readable().await?;
            fired.clear_ready_matching(Ready::READABLE);
            continue;
        };
        let permit = room.clone().acquire_owned().await?;
        let (connection, request) = (connection.clone(), request.clone());
        let latencies = latencies.clone();
        under_way.spawn(async move {
            let done = answered::<T>(&connection, request).await;
            latencies.record(due);
            drop(permit);
            done
        });
        while let Some(done) = under_way.try_join_next() {
            done??;
        }
    }
    // What is under way ends with the connection.
    under_way.shutdown().await;
    Ok(())
}

/// [`Work::Handshake`] and [`Work::Idle`], for which connections need not carry anything.
///
/// # Errors
/// When connections fail.
pub async fn connections<C: Connect>(
    client: Client,
    connector: C,
    resumption: &Arc<Resumption>,
) -> Result<Outcome, Fault> {
    match client.run.work {
        Work::Handshake => handshakes(&client, &connector, resumption).await,
        _ => hold(&client, &connector).await,
    }
}

async fn handshakes<T: Connect>(
    client: &Client,
    transport: &T,
    resumption: &Arc<Resumption>,
) -> Result<Outcome, Fault> {
    let is_resumed = client.run.resume;
    let warm_ups = if is_resumed { client.run.streams } else { 1 };
    let warm_ups = open(transport, warm_ups).await?;
    if is_resumed {
        first_tickets(resumption, client.run.streams).await?;
    }
    warm_ups.into_iter().for_each(T::close);
    let full = resumption.full_handshakes();
    let latencies = Latencies::new(&client.meter);
    client.ready();
    let mut workers = JoinSet::new();
    for _ in 0..client.run.streams {
        let (transport, latencies) = (transport.clone(), latencies.clone());
        let resumption = resumption.clone();
        workers.spawn(async move {
            let mut last = None;
            while !latencies.meter.is_stopped() {
                if is_resumed {
                    // The tickets of a connection come after its handshake.
                    resumption.ticket().await?;
                }
                if let Some(last) = last.take() {
                    T::close(last);
                }
                let begin = now();
                let connection = transport.connect().await?;
                latencies.record(begin);
                if is_resumed {
                    last = Some(connection);
                } else {
                    T::close(connection);
                }
            }
            if let Some(last) = last {
                T::close(last);
            }
            Ok::<_, Fault>(())
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    match resumption.full_handshakes() - full {
        0 => Ok(Outcome {
            latency: latencies.take(),
            open: 0,
        }),
        full => Err(format!("{full} connections were not resumed").into()),
    }
}

async fn first_tickets(resumption: &Resumption, count: usize) -> Result<(), Fault> {
    let patience = now() + TICKET_PATIENCE;
    while resumption.uses() < count {
        if now() > patience {
            return Err("the server gave no session tickets".into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Opens connections and holds them until the end.
async fn hold<T: Connect>(client: &Client, transport: &T) -> Result<Outcome, Fault> {
    for connection in open(transport, WARM_UPS).await? {
        T::close(connection);
    }
    tokio::time::sleep(SETTLE).await;
    client.warmed_up()?;
    let connections = open(transport, client.run.connections).await?;
    client.ready();
    stopped(&client.stop).await?;
    let open = connections.iter().filter(|c| T::is_open(c)).count() as u64;
    connections.into_iter().for_each(T::close);
    Ok(Outcome {
        latency: None,
        open,
    })
}

/// Opens `count` connections, [`AT_A_TIME`] at a time.
async fn open<T: Connect>(transport: &T, count: usize) -> Result<Vec<T::Connection>, Fault> {
    let mut connections = Vec::with_capacity(count);
    let mut under_way = JoinSet::new();
    let mut begun = 0;
    while connections.len() < count {
        while begun < count && under_way.len() < AT_A_TIME {
            let transport = transport.clone();
            under_way.spawn(async move { transport.connect().await });
            begun += 1;
        }
        if let Some(opened) = under_way.join_next().await {
            connections.push(opened??);
        }
    }
    Ok(connections)
}
