//! One run from the first thread to the last: starts engines, opens connections, warms up, measures
//! in intervals, asks the other host, ends everything.
//!
//! The coordinator sleeps between intervals and touches nothing that shards touch on their way,
//! except counters that it reads.

use super::Failure;
use super::apart;
use super::client::{ClientApp, Order, Target};
use super::failover::Failover;
use super::live::Live;
use super::plan::{Spec, Work};
use super::results::{Measured, Results, Told};
use super::server::{self, ServerApp, ServerConfig};
use super::tally::Tally;
use crate::cli::report::hist::OpenLoop;
use crate::cli::report::json::{Interval, Packets};
use crate::cli::report::meter::Usage;
use crate::cli::report::paths::SeenPath;
use crate::cli::see::Seeing;
use crate::cli::signal;
use corelane::base::Timestamp;
use corelane::shard::ShardApp;
use corelane::shard::engine::{Bind, Engine, EngineConfig, ShardReport};
use corelane::sys::clock::Clock;
use corelane_relay::Relay;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

/// How long connections may take to be there before the run is given up.
pub(super) const CONNECT_TIME: Duration = Duration::from_secs(15);
/// How long shards may take to answer an order.
pub(super) const ORDER_TIME: Duration = Duration::from_secs(5);
/// The time after the last operation in which what is under way may still arrive.
pub(super) const DRAIN: Duration = Duration::from_millis(200);
/// The longest sleep of the coordinator: so soon it sees that a run is over.
const STEP: Duration = Duration::from_millis(5);
/// The same while it looks for times without delivery.
const WATCH_STEP: Duration = Duration::from_millis(1);

/// Where the server of a run is.
pub enum Place {
    /// In this process, with this engine.
    Here(Box<EngineConfig>),
    /// In another process of this program.
    Apart(apart::Server),
    /// Somewhere else.
    Away,
}

/// A run under way.
pub struct Run<'a> {
    pub(super) spec: &'a Spec,
    interval: Duration,
    server: Option<Engine<ServerApp>>,
    pub(super) apart: Option<apart::Server>,
    pub(super) client: Engine<ClientApp>,
    server_live: Arc<Live>,
    pub(super) client_live: Arc<Live>,
    client_records: mpsc::Receiver<Box<OpenLoop>>,
    server_records: mpsc::Receiver<Box<OpenLoop>>,
    pub(super) before: Usage,
    /// What is between client and server.
    relay: Option<Relay>,
    failover: RefCell<Option<Failover>>,
}

/// Counters of all sides at one moment.
#[derive(Clone, Copy)]
struct Sample {
    at: Timestamp,
    bytes: u64,
    operations: u64,
    remote_cpu: Duration,
    /// Datagrams given to the transport, and those that arrived.
    datagrams: (u64, u64),
    failures: u64,
}

impl<'a> Run<'a> {
    /// Starts the engines, the server's where it is in this process.
    pub fn new(
        spec: &'a Spec,
        interval: Duration,
        mut client: EngineConfig,
        mut target: Target,
        mut place: Place,
        see: &Seeing,
    ) -> Result<Self, Failure> {
        see.engine(&mut client);
        see.client(&mut target.tls);
        if let Place::Here(server) = &mut place {
            see.engine(server);
            server.server.iter_mut().for_each(|tls| see.server(tls));
        }
        let mut relay = None;
        let (server_tx, server_records) = mpsc::channel();
        let server_live = Live::new(match &place {
            Place::Here(server) => server.shards,
            Place::Apart(_) | Place::Away => 0,
        });
        let server = match &place {
            Place::Here(config) => {
                let engine = Engine::start(config, |shard| {
                    let records = Some(server_tx.clone());
                    let config = ServerConfig {
                        max_connections: usize::MAX,
                        records,
                    };
                    ServerApp::new(shard, server_live.clone(), config)
                })?;
                if let Some(addr) = engine.local_addrs().first() {
                    relay = lead(&mut client, &mut target, *addr)?;
                }
                Some(engine)
            }
            Place::Apart(_) | Place::Away => None,
        };
        let (client_tx, client_records) = mpsc::channel();
        let shards = client.shards;
        let client_live = Live::new(shards);
        let client = Engine::start(&client, |shard| {
            let share = spec.share(shard, shards);
            ClientApp::new(
                target.clone(),
                share,
                client_live.clone(),
                client_tx.clone(),
            )
        })?;
        let readers = server.iter().map(Engine::metrics_reader);
        see.show(readers.chain([client.metrics_reader()]).collect());
        let before = usage()?;
        Ok(Self {
            spec,
            interval,
            server,
            apart: match place {
                Place::Apart(server) => Some(server),
                Place::Here(_) | Place::Away => None,
            },
            client,
            server_live,
            client_live,
            client_records,
            server_records,
            before,
            relay,
            failover: RefCell::new(None),
        })
    }

    /// Does what the workload asks for and adds the totals to `results`. `tell` hears of every
    /// interval.
    pub fn measure(
        mut self,
        results: &mut Results,
        mut tell: impl FnMut(Told<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let outcome = self.drive(results, &mut tell);
        let trouble = self.client_live.trouble();
        let spec = self.spec;
        let idle = spec.idle;
        let (server_live, client_live) = (self.server_live.clone(), self.client_live.clone());
        let shards = (
            self.client.senders().len(),
            self.server
                .as_ref()
                .map_or(0, |server| server.senders().len()),
        );
        let failover = self.failover.take().map(|f| f.outcome());
        let (packets, tally, backend, paths) = self.end();
        let mut measured = outcome?;
        (measured.packets, measured.tally, measured.backend) = (packets, tally, backend);
        (measured.paths, measured.failover) = (paths, failover);
        if let (Work::Datagram(_), false) = (&spec.work, measured.remote) {
            let sent = client_live.sum(|c| &c.datagrams_sent);
            let received = server_live.sum(|c| &c.datagrams);
            measured.failures = missing(measured.datagrams_before, (sent, received));
        }
        if idle && measured.operations < spec.connections as u64 {
            measured.failures = spec.connections as u64 - measured.operations;
        }
        let nothing = measured.operations == 0 && measured.bytes == 0;
        if let (true, Some(trouble)) = (nothing, trouble) {
            return Err(Failure::Failed(trouble));
        }
        results.add(spec, shards, measured);
        Ok(())
    }

    fn drive(
        &mut self,
        results: &mut Results,
        tell: &mut impl FnMut(Told<'_>) -> Result<(), Failure>,
    ) -> Result<Measured, Failure> {
        if self.spec.idle {
            return self.idle();
        }
        self.order(|| Order::Open)?;
        self.await_connections()?;
        let mut measured = Measured::default();
        // Counted from before the first byte, so that an amount of data is counted whole.
        let mut usage_from = usage()?;
        let mut from = self.sample()?;
        let start = Clock::now();
        from.at = start;
        *self.failover.get_mut() = self.spec.kill.map(|n| Failover::new(self.spec, n, start));
        self.order(|| Order::Start)?;
        let (warm, end) = (
            start + self.spec.omit,
            start + self.spec.omit + self.spec.time,
        );
        let mut omitted = !self.spec.omit.is_zero();
        let mut begin = from;
        let by_bytes = self.spec.bytes().is_some();
        // Data that comes only once must not be waited for in vain.
        let end = if by_bytes { Timestamp::NEVER } else { end };
        loop {
            let until = (from.at + self.interval).min(if omitted { warm } else { end });
            let over = self.sleep_until(until)?;
            let mut to = self.sample()?;
            if over && !signal::came() {
                to.at = self.finished_at().unwrap_or(to.at);
            }
            let record = self.cut()?;
            let span = (from.at - start, to.at - start);
            let (bytes, operations) = (to.bytes - from.bytes, to.operations - from.operations);
            let latency = (!record.response.is_empty()).then_some(&record.response);
            let mut interval = Interval::new(&self.spec.name, span, bytes, operations, latency);
            interval.omitted = omitted;
            tell(Told::Interval(&interval))?;
            // A log cannot mark what is left out, and readers add up what it has.
            if !omitted {
                tell(Told::Latency {
                    record: &record,
                    span,
                    name: &self.spec.name,
                })?;
            }
            results.intervals.push(interval);
            if !omitted {
                measured.record.merge(&record);
            }
            from = to;
            if omitted && to.at >= warm {
                (omitted, begin, usage_from) = (false, to, usage()?);
            }
            if over || to.at >= end {
                break;
            }
        }
        measured.spent = usage()?.since(&usage_from);
        measured.duration = from.at - begin.at;
        measured.bytes = from.bytes - begin.bytes;
        measured.operations = from.operations - begin.operations;
        measured.failures = from.failures - begin.failures;
        measured.datagrams_before = begin.datagrams;
        self.conclude(&mut measured, begin, from)?;
        Ok(measured)
    }

    /// Lets what is under way arrive, and asks the other host for the last time.
    fn conclude(&self, measured: &mut Measured, from: Sample, to: Sample) -> Result<(), Failure> {
        self.order(|| Order::Cease)?;
        thread::sleep(DRAIN);
        measured.remote = self.is_remote();
        if measured.remote {
            measured.remote_cpu = Some(to.remote_cpu.saturating_sub(from.remote_cpu));
            self.query()?;
            if matches!(self.spec.work, Work::Datagram(_)) {
                let sent = self.client_live.sum(|c| &c.datagrams_sent);
                let received = self.client_live.sum(|c| &c.remote_datagrams);
                measured.failures = missing(measured.datagrams_before, (sent, received));
            }
        }
        Ok(())
    }

    /// Whether the server is on another host.
    pub(super) fn is_remote(&self) -> bool {
        self.server.is_none() && self.apart.is_none()
    }

    /// Waits until every connection is there, or one has failed.
    pub(super) fn await_connections(&self) -> Result<(), Failure> {
        let begin = Clock::now();
        let wanted = self.spec.connections as u64;
        loop {
            if self.client_live.sum(|c| &c.connected) >= wanted {
                return Ok(());
            }
            if let Some(trouble) = self.client_live.trouble() {
                return Err(Failure::Failed(trouble));
            }
            if signal::came() {
                return Err(Failure::Stopped);
            }
            let waited = Clock::now() - begin;
            if waited > CONNECT_TIME + Duration::from_millis(wanted) {
                let there = self.client_live.sum(|c| &c.connected);
                return Err(Failure::Failed(format!(
                    "only {there} of {wanted} connections were established in {} s",
                    waited.as_secs()
                )));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sleeps until `until`; true when the work was done, or a signal came, before. Fails when no
    /// connection is left.
    pub(super) fn sleep_until(&self, until: Timestamp) -> Result<bool, Failure> {
        let streams = match self.spec.work {
            Work::Bulk(b) if b.bytes.is_some() => {
                self.spec.streams * (usize::from(b.send) + usize::from(b.receive))
            }
            _ => usize::MAX,
        };
        loop {
            if self.client_live.sum(|c| &c.finished) >= streams as u64 {
                return Ok(true);
            }
            let connections = self.spec.connections as u64;
            if connections > 0 && self.client_live.sum(|c| &c.closed) >= connections {
                let why = self.client_live.trouble();
                let why = why.unwrap_or_else(|| "every connection has ended".into());
                return Err(Failure::Failed(why));
            }
            if signal::came() {
                return Ok(true);
            }
            let left = until - Clock::now();
            if left.is_zero() {
                return Ok(false);
            }
            let step = if self.watch() { WATCH_STEP } else { STEP };
            thread::sleep(left.min(step));
        }
    }

    /// Looks whether anything is delivered, where that is what is measured.
    fn watch(&self) -> bool {
        let mut failover = self.failover.borrow_mut();
        let Some(failover) = failover.as_mut() else {
            return false;
        };
        let bytes = self.client_live.sum(|c| &c.bytes) + self.server_live.sum(|c| &c.bytes);
        failover.look(Clock::now(), bytes, self.relay.as_ref());
        true
    }

    /// When the last stream was done.
    fn finished_at(&self) -> Option<Timestamp> {
        let at = self.client_live.max(|c| &c.finished_at);
        (at > 0).then(|| Timestamp::from_nanos(at))
    }

    /// Reads all counters, the other host's included.
    fn sample(&self) -> Result<Sample, Failure> {
        let (server, client) = (&self.server_live, &self.client_live);
        if self.server.is_none() {
            self.query()?;
        }
        let at = Clock::now();
        // Requests are counted where their answers arrive, everything else where it arrives.
        let far = |bytes: u64| {
            if matches!(self.spec.work, Work::Rr(_)) {
                0
            } else {
                bytes
            }
        };
        let streams = server.sum(|c| &c.bytes) + client.sum(|c| &c.remote_bytes);
        let datagram_bytes =
            server.sum(|c| &c.datagram_bytes) + client.sum(|c| &c.remote_datagram_bytes);
        let datagrams = server.sum(|c| &c.datagrams) + client.sum(|c| &c.remote_datagrams);
        Ok(Sample {
            at,
            bytes: client.sum(|c| &c.bytes) + far(streams) + datagram_bytes,
            operations: client.sum(|c| &c.operations) + datagrams,
            remote_cpu: Duration::from_nanos(client.max(|c| &c.remote_cpu_ns)),
            datagrams: (client.sum(|c| &c.datagrams_sent), datagrams),
            failures: client.sum(|c| &c.failures),
        })
    }

    /// Asks the other host about every connection and waits for the answers.
    fn query(&self) -> Result<(), Failure> {
        let live = &self.client_live;
        let open = live
            .sum(|c| &c.connected)
            .saturating_sub(live.sum(|c| &c.closed));
        let wanted = live.sum(|c| &c.answers) + open;
        self.order(|| Order::Query)?;
        let begin = Clock::now();
        while live.sum(|c| &c.answers) < wanted {
            if Clock::now() - begin > ORDER_TIME {
                return Err(Failure::Failed(
                    "the server does not answer any more".into(),
                ));
            }
            thread::sleep(Duration::from_micros(100));
        }
        Ok(())
    }

    /// Takes the latencies that all shards recorded since the last time.
    pub(super) fn cut(&self) -> Result<OpenLoop, Failure> {
        self.order(|| Order::Cut(Box::default()))?;
        let mut all = OpenLoop::default();
        let lost = |_| Failure::Failed("a shard does not answer".into());
        for _ in self.client.senders() {
            all.merge(&*self.client_records.recv_timeout(ORDER_TIME).map_err(lost)?);
        }
        if let (Some(server), Work::Datagram(_)) = (&self.server, &self.spec.work) {
            send(server, || server::Order::Cut(Box::default()))?;
            for _ in server.senders() {
                all.merge(&*self.server_records.recv_timeout(ORDER_TIME).map_err(lost)?);
            }
        }
        Ok(all)
    }

    pub(super) fn order(&self, order: impl Fn() -> Order) -> Result<(), Failure> {
        send(&self.client, order)
    }

    /// Closes connections, stops and joins all shards, and sums up what they counted.
    fn end(mut self) -> (Option<Packets>, Tally, String, Vec<SeenPath>) {
        // Shards that are gone have nothing to close.
        let _ = self.order(|| Order::Close);
        let begin = Clock::now();
        let open = || {
            let live = [&self.server_live, &self.client_live];
            live.iter()
                .any(|l| l.sum(|c| &c.closed) < l.sum(|c| &c.connected))
        };
        while open() && Clock::now() - begin < DRAIN {
            thread::sleep(Duration::from_millis(1));
        }
        let backend = self.client.backend().to_owned();
        let mut packets = Packets::default();
        let mut tally = Tally::default();
        let mut paths = Vec::new();
        self.client.stop();
        let mut whole = true;
        match self.client.join() {
            Ok(reports) => {
                sum(&mut packets, &mut tally, &reports, |app| app.tally);
                paths.extend(
                    reports
                        .iter()
                        .flat_map(|r| r.app.paths.seen.iter().copied()),
                );
            }
            Err(_) => whole = false,
        }
        if let Some(mut server) = self.server {
            server.stop();
            match server.join() {
                Ok(reports) => sum(&mut packets, &mut tally, &reports, |app| app.tally),
                Err(_) => whole = false,
            }
        }
        (whole.then_some(packets), tally, backend, paths)
    }
}

/// Has the client's connections go to `server`, through the links if there are any.
fn lead(
    client: &mut EngineConfig,
    target: &mut Target,
    server: SocketAddr,
) -> Result<Option<Relay>, Failure> {
    let relay = target.ways.relay(server)?;
    target.addr = relay.as_ref().map_or(server, Relay::addr);
    client.bind = if target.ways.is_plain() {
        Bind::Connected(target.addr)
    } else {
        super::connected(&target.ways, target.addr, client.shards)?
    };
    Ok(relay)
}

/// Datagrams sent and not received since the warm-up, from the counts at its end and at the end of
/// all. Those that were under way at its end count as received after it; they are few.
fn missing(before: (u64, u64), after: (u64, u64)) -> u64 {
    let (sent, received) = (after.0 - before.0, after.1 - before.1);
    sent.saturating_sub(received)
}

/// Adds what the shards of one side counted.
fn sum<A>(
    packets: &mut Packets,
    tally: &mut Tally,
    reports: &[ShardReport<A>],
    of: impl Fn(&A) -> Tally,
) {
    for report in reports {
        let t = of(&report.app);
        tracing::info!(shard = ?report.shard, endpoint = ?report.endpoint, connections = ?t, "end");
        tracing::info!(io = ?report.io, "end");
        packets.sent += t.sent;
        packets.received += t.received;
        packets.lost += t.lost;
        packets.bytes_retransmitted += t.bytes_again;
        packets.duplicated += t.duplicated;
        packets.reinjected += t.reinjected;
        packets.trains_sent += report.io.tx_trains;
        packets.trains_received += report.io.rx_trains;
        packets.datagrams_sent += report.io.tx_datagrams;
        packets.datagrams_received += report.io.rx_datagrams;
        packets.cross_shard += report.shard.adopted;
        packets.cross_shard_dropped += report.shard.forward_dropped;
        packets.probe_timeouts += t.ptos;
        packets.congestion_events += t.congestion_events;
        tally.merge(&t);
    }
}

/// Gives an order to every shard; waits where one is busy.
fn send<A: ShardApp + Send + 'static>(
    engine: &Engine<A>,
    order: impl Fn() -> A::Command,
) -> Result<(), Failure> {
    use corelane::shard::mailbox::SendError;
    for sender in engine.senders() {
        let mut command = order();
        loop {
            match sender.send(command) {
                Ok(()) => break,
                Err(SendError::Full(back)) => {
                    command = back;
                    thread::sleep(Duration::from_millis(1));
                }
                Err(_) => return Err(Failure::Failed("a shard has ended before its time".into())),
            }
        }
    }
    Ok(())
}

pub(super) fn usage() -> Result<Usage, Failure> {
    Usage::read().map_err(|e| Failure::Failed(format!("cannot read /proc/self: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_lost_in_the_warm_up_do_not_count_as_failed() {
        assert_eq!(missing((100, 60), (200, 150)), 10);
        assert_eq!(missing((100, 60), (200, 160)), 0);
        // Some of the warm-up's came after its end.
        assert_eq!(missing((100, 60), (200, 165)), 0);
    }
}
