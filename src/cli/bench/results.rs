//! What the runs measured, and where it goes: standard output, and the files that were asked for.
//!
//! Files are made before anything is measured, so that a wrong path costs no time.

use super::failover::Outcome;
use super::plan::Spec;
use super::tally::Tally;
use crate::cli::args::{EngineArgs, LoadArgs};
use crate::cli::report::hist::{Latency, OpenLoop};
use crate::cli::report::hlog::Hlog;
use crate::cli::report::json::{Interval, Memory, Packets, Report, Totals, Workload};
use crate::cli::report::machine::Machine;
use crate::cli::report::meter::{Spent, Usage, percent_of};
use crate::cli::report::{hgrm, paths, plot, svg, table};
use crate::cli::{Failure, output};
use corelane::sys::clock::Clock;
use hdrhistogram::serialization::V2DeflateSerializer;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Columns and rows of the plot on the terminal.
const PLOT: (usize, usize) = (72, 10);

/// What one run measured.
#[derive(Debug, Default)]
pub struct Measured {
    /// How long.
    pub duration: Duration,
    /// Application data received.
    pub bytes: u64,
    /// Operations finished.
    pub operations: u64,
    /// The time in which they were, where that is not the run's.
    pub operations_time: Option<Duration>,
    /// Operations that failed.
    pub failures: u64,
    /// Datagrams sent and received before the measurement began.
    pub datagrams_before: (u64, u64),
    /// Latencies.
    pub record: OpenLoop,
    /// CPU and memory.
    pub spent: Spent,
    /// Resident memory before the first connection, where connections are what is measured.
    pub rss_before: Option<u64>,
    /// What the server's process used, where it is another one of this host.
    pub apart: Option<Apart>,
    /// The server is another host.
    pub remote: bool,
    /// Its CPU time.
    pub remote_cpu: Option<Duration>,
    /// Counters of the shards.
    pub packets: Option<Packets>,
    /// Counters of the connections.
    pub tally: Tally,
    /// The I/O backend.
    pub backend: String,
    /// The paths of the client's connections, where they had several.
    pub paths: Vec<paths::SeenPath>,
    /// A path was killed.
    pub failover: Option<Outcome>,
}

/// What a server in a process of its own used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Apart {
    /// CPU time.
    pub cpu: Duration,
    /// Memory that all connections together added.
    pub rss_bytes: u64,
}

/// What there is to tell while a run goes on.
pub enum Told<'a> {
    /// An interval is over.
    Interval(&'a Interval),
    /// The latencies of the interval.
    Latency {
        /// Them.
        record: &'a OpenLoop,
        /// The interval, since the start of the load.
        span: (Duration, Duration),
        /// The workload's name.
        name: &'a str,
    },
}

/// The results of all runs so far.
pub struct Results {
    report: Report,
    /// Intervals of all runs.
    pub intervals: Vec<Interval>,
    latencies: Vec<(String, Latency)>,
}

impl Results {
    /// No results yet; describes what is going to be measured and where.
    pub fn new(specs: &[Spec], engine: &EngineArgs, paths: serde_json::Value) -> Self {
        let command: Vec<String> = std::env::args_os()
            .map(|a| a.to_string_lossy().into_owned())
            .collect();
        let config = serde_json::json!({
            "engine": engine,
            "paths": paths,
            "workloads": specs.iter().map(Spec::describe).collect::<Vec<_>>(),
        });
        let report = Report::new(command.join(" "), Machine::read(), config, wall_clock());
        Self {
            report,
            intervals: Vec::new(),
            latencies: Vec::new(),
        }
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.report.end.workloads.is_empty()
    }

    /// Adds a run.
    pub fn add(&mut self, spec: &Spec, shards: (usize, usize), measured: Measured) {
        let record = &measured.record;
        let open = !record.service.is_empty();
        let mut workload = Workload::new(&Totals {
            name: &spec.name,
            backend: &measured.backend,
            client_shards: shards.0,
            server_shards: shards.1,
            connections: spec.connections as u64,
            streams: spec.streams as u64,
            duration: measured.duration,
            bytes: measured.bytes,
            operations: measured.operations,
            failures: measured.failures,
            latency: Some(&record.response),
            service_latency: open.then_some(&record.service),
            spent: Some(&measured.spent),
            remote_cpu_percent: measured
                .remote_cpu
                .map(|cpu| percent_of(cpu, measured.duration)),
            packets: measured.packets,
            udp_payload_bytes: Some(measured.tally.mtu as u64).filter(|n| *n > 0),
            min_rtt: measured.tally.min_rtt,
            rss_bytes_before: measured.rss_before,
        });
        if let Some(time) = measured.operations_time.filter(|t| !t.is_zero()) {
            workload.operations_per_second = measured.operations as f64 / time.as_secs_f64();
        }
        workload.paths = paths::sum(&measured.paths);
        let found = workload.paths.len();
        if spec.auto_paths && found < spec.paths {
            output::tell(&format!(
                "{}: --auto-paths found {found} of {} paths: the server takes no more, or no more \
                 addresses of this host reach it (--local names some)",
                spec.name, spec.paths
            ));
        }
        if let Some(outcome) = &measured.failover {
            workload.killed_path = Some(outcome.path);
            workload.killed_at_seconds = outcome.killed.map(|at| at.as_secs_f64());
            workload.longest_stall_ms = Some(paths::millis(outcome.longest_stall));
        }
        if let Some(apart) = &measured.apart {
            let cpu = percent_of(apart.cpu, measured.duration);
            workload.cpu_utilization_percent.server = Some(cpu);
            workload.memory_bytes_per_connection = Some(Memory {
                client: workload.rss_bytes_per_connection.unwrap_or_default(),
                server: apart.rss_bytes as f64 / spec.connections.max(1) as f64,
            });
        }
        self.report.end.workloads.push(workload);
        if !record.response.is_empty() {
            self.latencies
                .push((spec.name.clone(), record.response.clone()));
        }
    }

    /// No run follows; `failure` is why, if it is not that all are done.
    pub fn finish(&mut self, failure: Option<&Failure>) {
        self.report.intervals = std::mem::take(&mut self.intervals);
        // The kernel keeps the highest value only roughly, and what was seen is no guess.
        let kept = Usage::read().ok().and_then(|u| u.rss_bytes_max);
        let seen = self.report.end.workloads.iter().map(|w| w.rss_bytes);
        self.report.end.rss_bytes_max = seen.chain([kept]).flatten().max();
        self.report.end.error = failure.map(ToString::to_string);
    }

    /// Shows the results on standard output.
    pub fn print(&self, json: bool) -> Result<(), Failure> {
        if json {
            return output::print(&self.report.to_json());
        }
        let workloads = &self.report.end.workloads;
        let mut text = table::workloads(workloads);
        text += table::LEGEND;
        let memory = workloads.iter().filter_map(|w| {
            let kib = w.rss_bytes_per_connection? / 1024.0;
            if let Some(memory) = w.memory_bytes_per_connection {
                let server = memory.server / 1024.0;
                let name = &w.name;
                return Some(format!(
                    "{name}: {kib:.1} KiB of memory a connection at the client, {server:.1} KiB at \
                     the server\n"
                ));
            }
            let ends = if w.server_shards > 0 {
                "both ends"
            } else {
                "this end"
            };
            Some(format!(
                "{}: {kib:.1} KiB of memory a connection, {ends}\n",
                w.name
            ))
        });
        text.extend(memory);
        text.extend(workloads.iter().filter_map(paths::text));
        if workloads.iter().any(|w| !w.paths.is_empty()) {
            text += paths::LEGEND;
        }
        let latencies = table::latencies(workloads);
        if !latencies.is_empty() {
            text = text + "\n" + &latencies;
        }
        for (name, latency) in &self.latencies {
            let drawn = plot::spectrum(latency, PLOT.0, PLOT.1);
            text = text + "\nlatency of " + name + " by percentile\n" + &drawn;
        }
        output::print(&text)
    }
}

/// The files that were asked for.
pub struct Files {
    hgrm: Option<(PathBuf, File)>,
    svg: Option<(PathBuf, File)>,
    hlog: Option<(PathBuf, BufWriter<File>)>,
    serializer: V2DeflateSerializer,
}

impl Files {
    /// Makes them, empty.
    pub fn create(load: &LoadArgs) -> Result<Self, Failure> {
        let create = |path: &Option<PathBuf>| match path {
            Some(path) => match File::create(path) {
                Ok(file) => Ok(Some((path.clone(), file))),
                Err(e) => Err(Failure::file("write", path, e)),
            },
            None => Ok(None),
        };
        Ok(Self {
            hgrm: create(&load.hgrm)?,
            svg: create(&load.svg)?,
            hlog: create(&load.hlog)?.map(|(path, file)| (path, BufWriter::new(file))),
            serializer: V2DeflateSerializer::new(),
        })
    }

    /// The log of latencies, begun.
    pub fn hlog(&mut self) -> Result<Option<Log<'_>>, Failure> {
        let Some((path, file)) = &mut self.hlog else {
            return Ok(None);
        };
        let begun = Hlog::begin(file, &mut self.serializer, wall_clock(), "corelane");
        let log = begun.map_err(|e| Failure::file("write", path, e))?;
        Ok(Some(Log {
            path,
            log,
            begun: Clock::now().as_nanos(),
        }))
    }

    /// Writes what is written at the end.
    pub fn write(&mut self, results: &Results) -> Result<(), Failure> {
        let mut all = Latency::new();
        results.latencies.iter().for_each(|(_, l)| all.merge(l));
        if let Some((path, file)) = &mut self.hgrm {
            write(path, file, &hgrm::text(&all))?;
        }
        if let Some((path, file)) = &mut self.svg {
            let latencies: Vec<(&str, &Latency)> = results
                .latencies
                .iter()
                .map(|(name, l)| (name.as_str(), l))
                .collect();
            let report = &results.report;
            write(
                path,
                file,
                &svg::document(&report.command, &report.intervals, &latencies),
            )?;
        }
        if let Some((path, file)) = &mut self.hlog {
            file.flush().map_err(|e| Failure::file("write", path, e))?;
        }
        Ok(())
    }
}

fn write(path: &Path, file: &mut File, text: &str) -> Result<(), Failure> {
    file.write_all(text.as_bytes())
        .map_err(|e| Failure::file("write", path, e))
}

/// The log of latencies while it is written.
pub struct Log<'a> {
    path: &'a Path,
    log: Hlog<'a, BufWriter<File>>,
    begun: u64,
}

impl Log<'_> {
    /// Appends the latencies of an interval that has just ended.
    pub fn tell(&mut self, told: &Told<'_>) -> Result<(), Failure> {
        let Told::Latency { record, span, name } = told else {
            return Ok(());
        };
        if record.response.is_empty() {
            return Ok(());
        }
        let length = span.1.saturating_sub(span.0);
        let now = Duration::from_nanos(Clock::now().as_nanos().saturating_sub(self.begun));
        let appended = self.log.interval(
            &record.response,
            now.saturating_sub(length),
            length,
            Some(name),
        );
        appended.map_err(|e| Failure::file("write", self.path, e))
    }
}

fn wall_clock() -> SystemTime {
    SystemTime::UNIX_EPOCH + Clock::unix_time()
}
