//! Metrics as text that Prometheus scrapes (exposition format 0.0.4).

use super::table::{ERRORS, Kind, RTT, TABLE};
use super::{Metrics, ShardMetrics};
use crate::conn::totals::RTT_BOUNDS_US;
use crate::io::stats::ErrnoCounts;
use std::fmt::Write;

/// All metrics of these engines, each with the labels `engine` and `shard`. Names of engines must
/// differ.
pub fn prometheus(engines: &[Metrics]) -> String {
    let mut out = String::new();
    let shards: Vec<(String, &ShardMetrics)> = engines
        .iter()
        .flat_map(|e| {
            let label = |n| format!("engine=\"{}\",shard=\"{n}\"", escape(&e.engine));
            e.shards.iter().enumerate().map(move |(n, s)| (label(n), s))
        })
        .collect();
    for entry in TABLE {
        let kind = match entry.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        head(&mut out, (entry.name, entry.help), kind);
        for (labels, shard) in &shards {
            line(&mut out, entry.name, "", labels, (entry.get)(shard));
        }
    }
    head(&mut out, ERRORS, "counter");
    for (labels, shard) in &shards {
        let counts = ErrnoCounts::names().zip(shard.io.errors.raw());
        for (errno, n) in counts.filter(|(_, n)| **n > 0) {
            let labels = format!("{labels},errno=\"{errno}\"");
            line(&mut out, ERRORS.0, "", &labels, *n);
        }
    }
    head(&mut out, RTT, "histogram");
    for (labels, shard) in &shards {
        histogram(&mut out, labels, shard);
    }
    out
}

fn histogram(out: &mut String, labels: &str, shard: &ShardMetrics) {
    let mut below = 0;
    let bounds = RTT_BOUNDS_US.iter().map(|us| seconds(*us));
    let bounds = bounds.chain(["+Inf".to_owned()]);
    for (bound, n) in bounds.zip(shard.rtt.buckets) {
        below += n;
        let labels = format!("{labels},le=\"{bound}\"");
        line(out, RTT.0, "_bucket", &labels, below);
    }
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{}_sum{{{labels}}} {}",
        RTT.0,
        seconds(shard.rtt.sum_us)
    );
    line(out, RTT.0, "_count", labels, below);
}

fn head(out: &mut String, (name, help): (&str, &str), kind: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, suffix: &str, labels: &str, value: u64) {
    let _ = writeln!(out, "{name}{suffix}{{{labels}}} {value}");
}

/// Microseconds as seconds, without the noise of binary fractions.
fn seconds(us: u64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A label's value.
fn escape(value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    value.replace('\n', "\\n")
}
