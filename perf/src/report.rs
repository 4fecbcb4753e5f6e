//! What a measured program prints: the part of corelane's report that a comparison reads, with the
//! same keys, units and meaning, so that every peer is read by the same code.
//!
//! Goodput is application data that arrived. CPU shares are in percent of one core.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::meter::{Latency, Sample};

/// The version of corelane's schema that these keys are from.
pub const SCHEMA_VERSION: u32 = 1;

/// The document.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The implementation measured.
    pub tool: String,
    /// Its version.
    #[serde(default)]
    pub tool_version: String,
    /// The settings that took part.
    #[serde(default)]
    pub config: serde_json::Value,
    /// The totals.
    pub end: End,
}

/// The totals of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct End {
    /// One entry per workload.
    pub workloads: Vec<Workload>,
    /// Why the run ended early; null when it did not.
    #[serde(default)]
    pub error: Option<String>,
}

/// The totals of one workload, without its warm-up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Workload {
    /// `throughput`, `rr`, `handshake`, `datagram` or `idle`.
    pub name: String,
    /// How long it was measured.
    pub duration_seconds: f64,
    /// Application data received.
    pub bytes: u64,
    /// The same as a rate.
    pub goodput_bits_per_second: f64,
    /// Operations finished: requests answered, handshakes, datagrams received; of idle connections,
    /// those that are still open.
    pub operations: u64,
    /// The same as a rate.
    pub operations_per_second: f64,
    /// Operations that failed: of datagrams, those sent that did not arrive.
    pub failures: u64,
    /// Latency of an operation.
    pub latency_ns: Option<Percentiles>,
    /// CPU time of both sides.
    pub cpu_seconds: Option<f64>,
    /// CPU time of both sides per GiB of application data.
    pub cpu_seconds_per_gib: Option<f64>,
    /// Who used the CPU.
    pub cpu_utilization_percent: CpuUtilization,
    /// Resident memory that an idle connection adds to each side's process.
    pub memory_bytes_per_connection: Option<Memory>,
}

/// Bytes of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// In the client's process.
    pub client: Option<f64>,
    /// In the server's process.
    pub server: Option<f64>,
}

/// Shares of CPU, in percent of one core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuUtilization {
    /// The client's threads.
    pub client: Option<f64>,
    /// The server's threads.
    pub server: Option<f64>,
}

/// A latency distribution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Percentiles {
    /// Latencies recorded.
    pub count: u64,
    /// The median.
    pub p50: u64,
    /// 90 % did not exceed this.
    pub p90: u64,
    /// 99 % did not exceed this.
    pub p99: u64,
    /// 99.9 % did not exceed this.
    pub p999: u64,
    /// 99.99 % did not exceed this.
    pub p9999: u64,
    /// The maximum.
    pub max: u64,
}

impl Percentiles {
    /// The summary of a histogram, if it holds anything.
    pub fn of(latency: &Latency) -> Option<Self> {
        let at = |quantile| latency.value_at_quantile(quantile);
        (!latency.is_empty()).then(|| Self {
            count: latency.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: latency.max(),
        })
    }
}

impl Workload {
    /// The totals with their rates.
    pub fn new(name: &str, sample: &Sample, latency: Option<&Latency>) -> Self {
        let seconds = sample.elapsed.as_secs_f64();
        let rate = |amount: f64| if seconds > 0.0 { amount / seconds } else { 0.0 };
        let share = |cpu: Duration| Some(rate(cpu.as_secs_f64() * 100.0));
        let cpu = (sample.client_cpu + sample.server_cpu).as_secs_f64();
        Self {
            name: name.into(),
            duration_seconds: seconds,
            bytes: sample.bytes,
            goodput_bits_per_second: rate(sample.bytes as f64 * 8.0),
            operations: sample.operations,
            operations_per_second: rate(sample.operations as f64),
            failures: sample.failures,
            latency_ns: latency.and_then(Percentiles::of),
            cpu_seconds: Some(cpu),
            cpu_seconds_per_gib: (sample.bytes > 0).then(|| cpu / gib(sample.bytes)),
            cpu_utilization_percent: CpuUtilization {
                client: share(sample.client_cpu),
                server: share(sample.server_cpu),
            },
            memory_bytes_per_connection: None,
        }
    }

    /// CPU seconds of one side, from its share.
    pub fn cpu_seconds_of(&self, share_percent: Option<f64>) -> Option<f64> {
        Some(share_percent? / 100.0 * self.duration_seconds)
    }

    /// CPU seconds of one side per GiB of application data, from its share.
    pub fn cpu_seconds_per_gib_of(&self, share_percent: Option<f64>) -> Option<f64> {
        let cpu = self.cpu_seconds_of(share_percent)?;
        (self.bytes > 0).then(|| cpu / gib(self.bytes))
    }
}

impl Report {
    /// The document of a finished run of one workload.
    pub fn new(tool: &str, version: &str, config: serde_json::Value, workload: Workload) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            tool: tool.into(),
            tool_version: version.into(),
            config,
            end: End {
                workloads: vec![workload],
                error: None,
            },
        }
    }

    /// The document as indented text with a final line end.
    pub fn to_json(&self) -> String {
        let text = serde_json::to_string_pretty(self);
        text.expect("plain structs with string keys serialize") + "\n"
    }

    /// The totals for people, one line a workload.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for w in &self.end.workloads {
            let cpu = w.cpu_utilization_percent;
            let per_gib = |share| match w.cpu_seconds_per_gib_of(share) {
                Some(seconds) => format!("{seconds:.3}"),
                None => "-".into(),
            };
            text += &format!(
                "{} {}: {:.3} Gbit/s, {:.0} operations/s, CPU s/GiB client {} server {}, \
                 busy client {:.0} % server {:.0} %",
                self.tool,
                w.name,
                w.goodput_bits_per_second / 1e9,
                w.operations_per_second,
                per_gib(cpu.client),
                per_gib(cpu.server),
                cpu.client.unwrap_or_default(),
                cpu.server.unwrap_or_default(),
            );
            if let Some(l) = w.latency_ns {
                let us = |ns: u64| ns as f64 / 1000.0;
                text += &format!(
                    ", latency µs p50 {:.1} p99 {:.1} p99.9 {:.1} max {:.1}",
                    us(l.p50),
                    us(l.p99),
                    us(l.p999),
                    us(l.max)
                );
            }
            if let Some(memory) = w.memory_bytes_per_connection {
                let kib = |bytes: Option<f64>| bytes.unwrap_or_default() / 1024.0;
                text += &format!(
                    ", {} connections open, KiB each client {:.1} server {:.1}",
                    w.operations,
                    kib(memory.client),
                    kib(memory.server)
                );
            }
            text.push('\n');
        }
        text
    }
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::new_latency;

    #[test]
    fn rates_and_costs_follow_from_a_sample() {
        let sample = Sample {
            elapsed: Duration::from_secs(2),
            bytes: 1 << 30,
            operations: 10,
            failures: 1,
            client_cpu: Duration::from_secs(1),
            server_cpu: Duration::from_secs(2),
        };
        let mut latency = new_latency();
        latency.record(1000).unwrap();
        let w = Workload::new("throughput", &sample, Some(&latency));
        assert_eq!(w.goodput_bits_per_second, 4.0 * f64::from(1 << 30));
        assert_eq!((w.operations_per_second, w.failures), (5.0, 1));
        assert_eq!(w.cpu_seconds_per_gib, Some(3.0));
        let cpu = w.cpu_utilization_percent;
        assert_eq!((cpu.client, cpu.server), (Some(50.0), Some(100.0)));
        assert_eq!(w.cpu_seconds_per_gib_of(cpu.server), Some(2.0));
        assert_eq!(w.latency_ns.map(|l| (l.count, l.p50)), Some((1, 1000)));
        assert_eq!(w.cpu_seconds_per_gib_of(None), None);
    }

    #[test]
    fn nothing_measured_divides_by_nothing() {
        let w = Workload::new("rr", &Sample::default(), Some(&new_latency()));
        assert_eq!((w.goodput_bits_per_second, w.latency_ns), (0.0, None));
        assert_eq!(w.cpu_seconds_per_gib, None);
    }

    #[test]
    fn a_report_of_corelane_reads_with_keys_that_only_it_has() {
        let text = r#"{
            "schema_version": 1, "tool": "corelane", "tool_version": "0.1.0", "command": "bench",
            "machine": {"cores": 2}, "config": {"mtu": 1452}, "intervals": [],
            "end": {"rss_bytes_max": 5, "error": null, "workloads": [{
                "name": "throughput", "backend": "uring", "client_shards": 1,
                "duration_seconds": 2.0, "bytes": 1073741824,
                "goodput_bits_per_second": 4294967296.0, "operations": 0,
                "operations_per_second": 0.0, "failures": 0, "latency_ns": null,
                "cpu_seconds": 3.0, "cpu_seconds_per_gib": 3.0,
                "cpu_utilization_percent": {"local": 150.0, "client": 50.0, "server": null},
                "packets": null}]}}"#;
        let report: Report = serde_json::from_str(text).unwrap();
        let w = &report.end.workloads[0];
        assert_eq!(
            w.cpu_seconds_per_gib_of(w.cpu_utilization_percent.client),
            Some(1.0)
        );
        assert_eq!(w.cpu_utilization_percent.server, None);
        let again: Report = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(&again.end.workloads[0], w);
    }
}
