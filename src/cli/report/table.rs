//! Results as tables for people: the workloads, their latencies, and one line per interval.
//!
//! Columns are as wide as their widest cell; what was not measured is a dash.

use super::hist::Percentiles;
use super::json::{Interval, Packets, Workload};
use super::units;

/// What the columns that sound alike mean.
pub const LEGEND: &str = "\
failed: requests, handshakes or datagrams that came to nothing, warm-up left out
lost: QUIC packets declared lost, warm-up included; data in them was sent again
";

/// One row per workload: what moved, how fast, and what it cost.
pub fn workloads(workloads: &[Workload]) -> String {
    let header = [
        "workload",
        "backend",
        "conns",
        "streams",
        "time",
        "data",
        "goodput",
        "ops/s",
        "failed",
        "CPU",
        "CPU s/GiB",
        "lost",
        "UDP size",
        "train",
    ];
    let rows = workloads.iter().map(|w| {
        vec![
            w.name.clone(),
            w.backend.clone(),
            w.connections.to_string(),
            w.streams.to_string(),
            format!("{:.2} s", w.duration_seconds),
            units::bytes(w.bytes),
            units::bits_per_second(w.goodput_bits_per_second),
            units::count(w.operations_per_second),
            w.failures.to_string(),
            or_dash(w.cpu_utilization_percent.local.map(units::percent)),
            or_dash(w.cpu_seconds_per_gib.map(|s| format!("{s:.3}"))),
            or_dash(w.packets.map(|p| p.lost.to_string())),
            or_dash(w.udp_payload_bytes.map(|n| n.to_string())),
            or_dash(w.packets.and_then(train)),
        ]
    });
    table(&header, 2, rows.collect())
}

/// Datagrams in a send, on average.
fn train(packets: Packets) -> Option<String> {
    let trains = packets.trains_sent as f64;
    (trains > 0.0).then(|| format!("{:.1}", packets.datagrams_sent as f64 / trains))
}

/// One row per latency distribution of the workloads; empty when none measured one.
pub fn latencies(workloads: &[Workload]) -> String {
    let mut rows = Vec::new();
    for w in workloads {
        match (&w.latency_ns, &w.service_latency_ns) {
            (Some(response), Some(service)) => {
                rows.push((format!("{} (response)", w.name), response));
                rows.push((format!("{} (service)", w.name), service));
            }
            (Some(latency), None) => rows.push((w.name.clone(), latency)),
            (None, _) => {}
        }
    }
    let rows: Vec<(&str, &Percentiles)> =
        rows.iter().map(|(name, p)| (name.as_str(), *p)).collect();
    percentiles(&rows)
}

/// One row per named distribution; empty without rows.
pub fn percentiles(distributions: &[(&str, &Percentiles)]) -> String {
    if distributions.is_empty() {
        return String::new();
    }
    let header = [
        "latency", "count", "min", "p50", "p90", "p99", "p99.9", "p99.99", "max",
    ];
    let rows = distributions.iter().map(|(name, p)| {
        let mut row = vec![name.to_string(), p.count.to_string()];
        row.extend([p.min, p.p50, p.p90, p.p99, p.p999, p.p9999, p.max].map(units::nanoseconds));
        row
    });
    table(&header, 1, rows.collect())
}

/// One interval in a line, for progress: when, how much, how fast, and the median and 99th
/// percentile.
pub fn interval(interval: &Interval) -> String {
    let mut line = format!(
        "{:>6.2}-{:<6.2} s  {:>10}  {:>15}",
        interval.start_seconds,
        interval.end_seconds,
        units::bytes(interval.bytes),
        units::bits_per_second(interval.goodput_bits_per_second),
    );
    if interval.operations > 0 {
        line += &format!(
            "  {:>8} ops/s",
            units::count(interval.operations_per_second)
        );
    }
    if let Some(p) = &interval.latency_ns {
        let (p50, p99) = (units::nanoseconds(p.p50), units::nanoseconds(p.p99));
        line += &format!("  p50 {p50}, p99 {p99}");
    }
    if interval.omitted {
        line + "  (omitted)"
    } else {
        line
    }
}

fn or_dash(cell: Option<String>) -> String {
    cell.unwrap_or_else(|| "-".into())
}

/// A header, a rule and rows; the first `left` columns are flush left, numbers flush right.
pub(super) fn table(header: &[&str], left: usize, rows: Vec<Vec<String>>) -> String {
    let mut lines = vec![header.iter().map(ToString::to_string).collect()];
    lines.extend(rows);
    let width = |column: usize| {
        let cells = lines
            .iter()
            .map(|row: &Vec<String>| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut out = String::new();
    for (n, row) in lines.iter().enumerate() {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            line += &if column < left {
                format!("{gap}{cell:<width$}")
            } else {
                format!("{gap}{cell:>width$}")
            };
        }
        out += line.trim_end();
        out.push('\n');
        if n == 0 {
            let total = widths.iter().sum::<usize>() + 2 * (widths.len() - 1);
            out += &"─".repeat(total);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::report::hist::Latency;
    use crate::cli::report::json::tests::sample;
    use std::time::Duration;

    fn latency() -> Latency {
        let mut latency = Latency::new();
        (1..=1000).for_each(|n| latency.record_ns(n * 1000));
        latency
    }

    #[test]
    fn workloads_line_up() {
        let quiet = Workload {
            name: "handshake".into(),
            backend: "mmsg".into(),
            ..Workload::default()
        };
        let table = workloads(&[sample("throughput", None), quiet]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[2].starts_with("throughput  uring        2        4  10.00 s  10.0 GiB"));
        assert!(lines[2].contains("8.59 Gbits/sec  12.3 k"), "{}", lines[2]);
        assert!(
            lines[2].ends_with("150.0 %      1.500     5         -      -"),
            "{}",
            lines[2]
        );
        assert!(
            lines[3].ends_with(
                "0.00 bits/sec       0       0        -          -     -         -      -"
            )
        );
        assert_eq!(lines[1].chars().count(), lines[2].chars().count());
    }

    #[test]
    fn percentiles_line_up() {
        let summary = latency().summary().unwrap();
        let expected = "\
latency  count      min     p50     p90     p99   p99.9   p99.99      max
─────────────────────────────────────────────────────────────────────────
rr        1000  1.00 µs  500 µs  900 µs  990 µs  999 µs  1.00 ms  1.00 ms
";
        assert_eq!(percentiles(&[("rr", &summary)]), expected);
        assert_eq!(percentiles(&[]), "");
    }

    #[test]
    fn an_open_loop_shows_both_latencies() {
        let latency = latency();
        let mut workload = sample("rr", Some(&latency));
        assert_eq!(
            latencies(std::slice::from_ref(&workload)).lines().count(),
            3
        );
        workload.service_latency_ns = latency.summary();
        let table = latencies(&[workload, sample("throughput", None)]);
        assert!(table.contains("rr (response)") && table.contains("rr (service)"));
        assert_eq!(table.lines().count(), 4);
    }

    #[test]
    fn an_interval_is_a_line() {
        let second = Duration::from_secs(1);
        let mut line = Interval::new("rr", (second, 2 * second), 1 << 30, 5000, Some(&latency()));
        assert_eq!(
            interval(&line),
            "  1.00-2.00   s    1.00 GiB   8.59 Gbits/sec    5.00 k ops/s  p50 500 µs, p99 990 µs"
        );
        (line.operations, line.latency_ns, line.omitted) = (0, None, true);
        assert_eq!(
            interval(&line),
            "  1.00-2.00   s    1.00 GiB   8.59 Gbits/sec  (omitted)"
        );
    }
}
