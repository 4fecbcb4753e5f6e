//! The report as one JSON document with a versioned schema.
//!
//! Every key that has a unit names it, bit rates are of application data, and what was not measured
//! is null. A key is never given another meaning: that, and removing one, raises the version.

use std::time::{Duration, SystemTime};

use corelane::base::time::nanos;
use serde::Serialize;

use super::hist::{Latency, Percentiles};
use super::machine::Machine;
use super::meter::{Spent, percent_of};
use super::paths::PathReport;

/// The version of the layout below.
pub const SCHEMA_VERSION: u32 = 1;

/// The document.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// `corelane`.
    pub tool: &'static str,
    /// The program's version.
    pub tool_version: &'static str,
    /// The command and its flags as given.
    pub command: String,
    /// What it ran on.
    pub machine: Machine,
    /// Every setting that took part, defaults included.
    pub config: serde_json::Value,
    /// When it began.
    pub start: Start,
    /// What each interval measured, in the order of time.
    pub intervals: Vec<Interval>,
    /// The totals.
    pub end: End,
}

/// The beginning of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Start {
    /// Seconds since 1970.
    pub unix_seconds: f64,
    /// The same as a date, RFC 3339.
    pub utc: String,
}

/// One interval of one workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// The workload's name.
    pub workload: String,
    /// Begin, since the start of the workload.
    pub start_seconds: f64,
    /// End, since the start of the workload.
    pub end_seconds: f64,
    /// Whether it belongs to the warm-up that the totals leave out.
    pub omitted: bool,
    /// Application data received.
    pub bytes: u64,
    /// The same as a rate.
    pub goodput_bits_per_second: f64,
    /// Operations finished.
    pub operations: u64,
    /// The same as a rate.
    pub operations_per_second: f64,
    /// Latency of the operations that finished in the interval.
    pub latency_ns: Option<Percentiles>,
}

/// The totals of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct End {
    /// One entry per workload.
    pub workloads: Vec<Workload>,
    /// The most resident memory of the process.
    pub rss_bytes_max: Option<u64>,
    /// Why the run ended early; null when it did not.
    pub error: Option<String>,
}

/// The totals of one workload, without its warm-up.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Workload {
    /// `throughput`, `rr`, `handshake`, `datagram`, `connections`, `failover`, or `idle` for
    /// connections to a process of its own.
    pub name: String,
    /// The I/O backend that ran: `uring` or `mmsg`.
    pub backend: String,
    /// Shards of the client side; 0 when it ran elsewhere.
    pub client_shards: usize,
    /// Shards of the server side; 0 when it ran elsewhere.
    pub server_shards: usize,
    /// Connections.
    pub connections: u64,
    /// Streams at a time, of all connections.
    pub streams: u64,
    /// How long it was measured.
    pub duration_seconds: f64,
    /// Application data received.
    pub bytes: u64,
    /// The same as a rate.
    pub goodput_bits_per_second: f64,
    /// Operations finished.
    pub operations: u64,
    /// The same as a rate.
    pub operations_per_second: f64,
    /// Operations that failed.
    pub failures: u64,
    /// Latency of an operation. Open loop: from the intended start.
    pub latency_ns: Option<Percentiles>,
    /// Open loop only: from the real start, without the time that a late request waited.
    pub service_latency_ns: Option<Percentiles>,
    /// CPU time of this process.
    pub cpu_seconds: Option<f64>,
    /// CPU time of this process per GiB of application data.
    pub cpu_seconds_per_gib: Option<f64>,
    /// CPU time over wall-clock time; 100 is one core.
    pub cpu_utilization_percent: CpuUtilization,
    /// What went over the network.
    pub packets: Option<Packets>,
    /// The largest UDP payload that a connection came to use.
    pub udp_payload_bytes: Option<u64>,
    /// The smallest round trip that a connection saw.
    pub min_rtt_ns: Option<u64>,
    /// Resident memory at the end.
    pub rss_bytes: Option<u64>,
    /// Resident memory that each connection added.
    pub rss_bytes_per_connection: Option<f64>,
    /// The same of both sides, where the server ran in a process of its own.
    pub memory_bytes_per_connection: Option<Memory>,
    /// Each path, where connections had several.
    pub paths: Vec<PathReport>,
    /// Failover only: the path that was killed.
    pub killed_path: Option<u32>,
    /// Failover only: when, since the start of the workload, warm-up included, as intervals' times.
    pub killed_at_seconds: Option<f64>,
    /// Failover only: the longest time without delivery, warm-up left out.
    pub longest_stall_ms: Option<f64>,
}

/// Memory of both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    /// The client's process.
    pub client: f64,
    /// The server's process.
    pub server: f64,
}

/// Shares of CPU, in percent of one core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct CpuUtilization {
    /// This process.
    pub local: Option<f64>,
    /// This process in user space.
    pub local_user: Option<f64>,
    /// This process in the kernel.
    pub local_system: Option<f64>,
    /// The client's shards, where they run in this process.
    pub client: Option<f64>,
    /// The server's shards, where they run in this process.
    pub server: Option<f64>,
    /// The other host, as it reported.
    pub remote: Option<f64>,
}

/// Counters of all shards of this process, from the first packet of the workload to its last, the
/// warm-up included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Packets {
    /// QUIC packets sent.
    pub sent: u64,
    /// QUIC packets received and authenticated.
    pub received: u64,
    /// QUIC packets declared lost.
    pub lost: u64,
    /// Stream bytes sent that had been sent before.
    pub bytes_retransmitted: u64,
    /// QUIC packets with copies of what another path carried.
    pub duplicated: u64,
    /// QUIC packets whose content went again by another path, before they counted as lost or at
    /// once when they did.
    pub reinjected: u64,
    /// Times that a congestion window was reduced.
    pub congestion_events: u64,
    /// Probe timeouts.
    pub probe_timeouts: u64,
    /// UDP datagrams sent.
    pub datagrams_sent: u64,
    /// UDP datagrams received.
    pub datagrams_received: u64,
    /// Sends of up to 64 datagrams each.
    pub trains_sent: u64,
    /// Receives of up to 64 datagrams each.
    pub trains_received: u64,
    /// Datagrams that another shard had received.
    pub cross_shard: u64,
    /// Of these, dropped because the ring was full.
    pub cross_shard_dropped: u64,
}

/// What one workload measured, before rates are taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals<'a> {
    /// The workload's name.
    pub name: &'a str,
    /// The I/O backend that ran.
    pub backend: &'a str,
    /// Shards of the client side in this process.
    pub client_shards: usize,
    /// Shards of the server side in this process.
    pub server_shards: usize,
    /// Connections.
    pub connections: u64,
    /// Streams at a time.
    pub streams: u64,
    /// How long it was measured.
    pub duration: Duration,
    /// Application data received.
    pub bytes: u64,
    /// Operations finished.
    pub operations: u64,
    /// Operations that failed.
    pub failures: u64,
    /// Latencies; of an open loop, those from the intended start.
    pub latency: Option<&'a Latency>,
    /// Of an open loop, those from the real start.
    pub service_latency: Option<&'a Latency>,
    /// CPU time and memory. Threads are told apart by names that begin with `client` or `server`.
    pub spent: Option<&'a Spent>,
    /// The other host's CPU share.
    pub remote_cpu_percent: Option<f64>,
    /// The shards' counters.
    pub packets: Option<Packets>,
    /// The largest UDP payload in use.
    pub udp_payload_bytes: Option<u64>,
    /// The smallest round trip.
    pub min_rtt: Option<Duration>,
    /// Resident memory before the first connection.
    pub rss_bytes_before: Option<u64>,
}

impl Report {
    /// A report without results yet.
    pub fn new(
        command: String,
        machine: Machine,
        config: serde_json::Value,
        start: SystemTime,
    ) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            tool: "corelane",
            tool_version: env!("CARGO_PKG_VERSION"),
            command,
            machine,
            config,
            start: Start::new(start),
            intervals: Vec::new(),
            end: End::default(),
        }
    }

    /// The document as indented text with a final line end.
    pub fn to_json(&self) -> String {
        let text = serde_json::to_string_pretty(self);
        text.expect("plain structs with string keys serialize") + "\n"
    }
}

impl Start {
    /// The moment `time`, to the millisecond; times before 1970 count as 1970.
    pub fn new(time: SystemTime) -> Self {
        let since = time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let millis = since.as_millis() as f64;
        Self {
            unix_seconds: millis / 1000.0,
            utc: utc(since.as_secs()),
        }
    }
}

/// The date and time of a Unix time, RFC 3339 in UTC.
fn utc(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // Years counted from 1 March: the leap day comes last, so that months have fixed offsets.
    let day = days + 719_468;
    let (era, day_of_era) = (day / 146_097, day % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// `amount` a second, 0 when no time passed.
fn rate(amount: f64, duration: Duration) -> f64 {
    if duration.is_zero() {
        0.0
    } else {
        amount / duration.as_secs_f64()
    }
}

impl Interval {
    /// What was done from `from` to `to`, both since the start of the workload.
    pub fn new(
        workload: &str,
        (from, to): (Duration, Duration),
        bytes: u64,
        operations: u64,
        latency: Option<&Latency>,
    ) -> Self {
        let length = to.saturating_sub(from);
        Self {
            workload: workload.into(),
            start_seconds: from.as_secs_f64(),
            end_seconds: to.as_secs_f64(),
            omitted: false,
            bytes,
            goodput_bits_per_second: rate(bytes as f64 * 8.0, length),
            operations,
            operations_per_second: rate(operations as f64, length),
            latency_ns: latency.and_then(Latency::summary),
        }
    }
}

impl Workload {
    /// The totals with their rates.
    pub fn new(totals: &Totals) -> Self {
        let cpu_seconds = totals.spent.map(|s| s.cpu().as_secs_f64());
        let gib = totals.bytes as f64 / f64::from(1 << 30);
        let rss_bytes = totals.spent.and_then(|s| s.rss_bytes);
        let added = rss_bytes.zip(totals.rss_bytes_before);
        Self {
            name: totals.name.into(),
            backend: totals.backend.into(),
            client_shards: totals.client_shards,
            server_shards: totals.server_shards,
            connections: totals.connections,
            streams: totals.streams,
            duration_seconds: totals.duration.as_secs_f64(),
            bytes: totals.bytes,
            goodput_bits_per_second: rate(totals.bytes as f64 * 8.0, totals.duration),
            operations: totals.operations,
            operations_per_second: rate(totals.operations as f64, totals.duration),
            failures: totals.failures,
            latency_ns: totals.latency.and_then(Latency::summary),
            service_latency_ns: totals.service_latency.and_then(Latency::summary),
            cpu_seconds,
            cpu_seconds_per_gib: cpu_seconds.filter(|_| totals.bytes > 0).map(|s| s / gib),
            cpu_utilization_percent: CpuUtilization::new(totals),
            packets: totals.packets,
            udp_payload_bytes: totals.udp_payload_bytes,
            min_rtt_ns: totals.min_rtt.map(nanos),
            rss_bytes,
            rss_bytes_per_connection: added
                .filter(|_| totals.connections > 0)
                .map(|(now, before)| now.saturating_sub(before) as f64 / totals.connections as f64),
            memory_bytes_per_connection: None,
            paths: Vec::new(),
            killed_path: None,
            killed_at_seconds: None,
            longest_stall_ms: None,
        }
    }
}

impl CpuUtilization {
    fn new(totals: &Totals) -> Self {
        let of = |cpu: Duration| percent_of(cpu, totals.duration);
        let threads = |prefix, shards| {
            totals
                .spent
                .filter(|_| shards > 0)
                .map(|s| of(s.cpu_of(prefix)))
        };
        Self {
            local: totals.spent.map(|s| of(s.cpu())),
            local_user: totals.spent.map(|s| of(s.user)),
            local_system: totals.spent.map(|s| of(s.system)),
            client: threads("client", totals.client_shards),
            server: threads("server", totals.server_shards),
            remote: totals.remote_cpu_percent,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cli::report::meter::ThreadUsage;

    /// A finished workload with round numbers, for this and other modules' tests.
    pub(crate) fn sample(name: &str, latency: Option<&Latency>) -> Workload {
        let spent = Spent {
            user: Duration::from_secs(6),
            system: Duration::from_secs(9),
            rss_bytes: Some(3 << 20),
            rss_bytes_max: Some(4 << 20),
            threads: vec![ThreadUsage {
                tid: 1,
                name: "client-0".into(),
                cpu: Duration::from_secs(5),
            }],
        };
        Workload::new(&Totals {
            name,
            backend: "uring",
            client_shards: 1,
            connections: 2,
            streams: 4,
            duration: Duration::from_secs(10),
            bytes: 10 << 30,
            operations: 123_456,
            latency,
            spent: Some(&spent),
            packets: Some(Packets {
                sent: 1000,
                lost: 5,
                ..Packets::default()
            }),
            rss_bytes_before: Some(1 << 20),
            ..Totals::default()
        })
    }

    #[test]
    fn rates_follow_from_totals() {
        let w = sample("throughput", None);
        assert_eq!(w.goodput_bits_per_second, 8.0 * f64::from(1 << 30));
        assert_eq!(w.operations_per_second, 12_345.6);
        assert_eq!(
            (w.cpu_seconds, w.cpu_seconds_per_gib),
            (Some(15.0), Some(1.5))
        );
        let cpu = w.cpu_utilization_percent;
        assert_eq!(
            (cpu.local, cpu.local_user, cpu.local_system),
            (Some(150.0), Some(60.0), Some(90.0))
        );
        assert_eq!(
            (cpu.client, cpu.server, cpu.remote),
            (Some(50.0), None, None)
        );
        assert_eq!(w.rss_bytes_per_connection, Some(f64::from(1 << 20)));
    }

    #[test]
    fn nothing_measured_divides_by_nothing() {
        let w = Workload::new(&Totals::default());
        assert_eq!(
            (w.goodput_bits_per_second, w.cpu_seconds_per_gib),
            (0.0, None)
        );
        assert_eq!(w.rss_bytes_per_connection, None);
        let spent = Spent::default();
        let w = Workload::new(&Totals {
            spent: Some(&spent),
            ..Totals::default()
        });
        assert_eq!((w.cpu_seconds, w.cpu_seconds_per_gib), (Some(0.0), None));
    }

    #[test]
    fn dates_are_rfc_3339() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(seconds), expected);
        }
    }

    /// The names that scripts read. A change here is a change of the schema's version.
    #[test]
    fn the_schema_has_its_keys() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_millis(1500);
        let config = serde_json::json!({"duration_seconds": 10});
        let mut report = Report::new("bench".into(), Machine::default(), config, start);
        let mut latency = Latency::new();
        latency.record_ns(1000);
        let second = Duration::from_secs(1);
        report.intervals.push(Interval::new(
            "rr",
            (second, 2 * second),
            125,
            1,
            Some(&latency),
        ));
        report.end.workloads.push(sample("rr", Some(&latency)));
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        for (pointer, expected) in [
            ("/schema_version", "1"),
            ("/tool", "\"corelane\""),
            ("/command", "\"bench\""),
            ("/machine/kernel", "null"),
            ("/machine/rmem_max_bytes", "null"),
            ("/config/duration_seconds", "10"),
            ("/start/unix_seconds", "1.5"),
            ("/start/utc", "\"1970-01-01T00:00:01Z\""),
            ("/intervals/0/workload", "\"rr\""),
            ("/intervals/0/start_seconds", "1.0"),
            ("/intervals/0/omitted", "false"),
            ("/intervals/0/goodput_bits_per_second", "1000.0"),
            ("/intervals/0/latency_ns/p50", "1000"),
            ("/end/workloads/0/name", "\"rr\""),
            ("/end/workloads/0/goodput_bits_per_second", "8589934592.0"),
            ("/end/workloads/0/latency_ns/p50", "1000"),
            ("/end/workloads/0/latency_ns/p90", "1000"),
            ("/end/workloads/0/latency_ns/p99", "1000"),
            ("/end/workloads/0/latency_ns/p999", "1000"),
            ("/end/workloads/0/latency_ns/p9999", "1000"),
            ("/end/workloads/0/latency_ns/max", "1000"),
            ("/end/workloads/0/service_latency_ns", "null"),
            ("/end/workloads/0/cpu_seconds_per_gib", "1.5"),
            ("/end/workloads/0/cpu_utilization_percent/local", "150.0"),
            ("/end/workloads/0/cpu_utilization_percent/remote", "null"),
            ("/end/workloads/0/packets/lost", "5"),
            ("/end/error", "null"),
        ] {
            let value = json.pointer(pointer).map(ToString::to_string);
            assert_eq!(value.as_deref(), Some(expected), "{pointer}");
        }
    }
}
