//! What `corelane rdma bench` found, as text and as the JSON that other benchmarks print.

use super::app::Loaded;
use super::args::RdmaBenchArgs;
use super::bench::{Place, depth_of};
use crate::cli::Failure;
use crate::cli::report::hist::Latency;
use crate::cli::report::json::SCHEMA_VERSION;
use crate::cli::report::machine::Machine;
use serde_json::{Value, json};
use std::time::Duration;

/// Bytes of one client, at both ends together.
#[derive(Clone, Copy)]
pub struct Memory {
    /// Resident memory that came with the clients since those that are left out, by their number.
    pub resident: u64,
    /// Registered memory of clients, by their number.
    pub registered: u64,
}

/// One measurement.
pub struct Figures {
    pub name: String,
    /// Over a queue pair, not over QUIC.
    pub rdma: bool,
    /// Clients there were.
    pub clients: usize,
    pub time: Duration,
    /// Of data.
    pub bytes: u64,
    pub operations: usize,
    /// Of each operation that is answered.
    pub latency: Latency,
    /// What each client takes at both ends together.
    pub memory: Option<Memory>,
}

impl Figures {
    /// What clients did at the same time.
    pub fn of(name: &str, rdma: bool, size: usize, loaded: &[Loaded]) -> Self {
        let mut latency = Latency::new();
        loaded.iter().for_each(|l| latency.merge(&l.latency));
        let operations = loaded.iter().map(|l| l.count).sum();
        Self {
            name: name.into(),
            rdma,
            clients: loaded.len(),
            time: loaded.iter().map(|l| l.time).max().unwrap_or_default(),
            bytes: (operations * size) as u64,
            operations,
            latency,
            memory: None,
        }
    }

    fn rate(&self, amount: f64) -> f64 {
        amount / self.time.as_secs_f64().max(1e-9)
    }

    fn over(&self, place: &Place) -> String {
        match &place.device {
            _ if !self.rdma => "QUIC".into(),
            Some(name) => format!("the RDMA device {name}"),
            None => "RoCE v2 in user space".into(),
        }
    }

    /// What carried it.
    fn carrier(&self, place: &Place) -> &'static str {
        match &place.device {
            _ if !self.rdma => "quic",
            Some(_) => "verbs",
            None => "roce",
        }
    }

    /// What a latency is of.
    fn timed(&self) -> &'static str {
        match self.name.as_str() {
            "latency" => "round_trip",
            "setup" => "opening",
            _ => "completion",
        }
    }

    fn to_text(&self, place: &Place, depth: usize) -> String {
        let clients = if self.clients == 1 {
            "client"
        } else {
            "clients"
        };
        let mut text = format!(
            "{}, {} {clients} over {}, ",
            self.name,
            self.clients,
            self.over(place)
        );
        if self.name != "setup" {
            text += &format!("{depth} under way: ");
        }
        let rate = self.rate(self.operations as f64);
        if self.bytes > 0 {
            let gbits = self.rate(self.bytes as f64 * 8.0) / 1e9;
            text += &format!("{gbits:.3} Gbit/s, ");
        }
        text += &format!("{rate:.0}/s");
        if let Some(l) = self.latency.summary() {
            let us = |ns: u64| ns as f64 / 1000.0;
            text += &format!(
                ", {} in microseconds p50 {:.1} p99 {:.1} p99.9 {:.1} max {:.1}",
                match self.timed() {
                    "round_trip" => "whole round trips",
                    other => other,
                },
                us(l.p50),
                us(l.p99),
                us(l.p999),
                us(l.max)
            );
        }
        if let Some(memory) = self.memory {
            let kib = |bytes: u64| bytes as f64 / 1024.0;
            text += &format!(
                ", {:.1} KiB each at both ends together, {:.1} KiB of it registered",
                kib(memory.resident),
                kib(memory.registered)
            );
        }
        text + "\n"
    }

    fn to_json(&self, place: &Place, depth: usize) -> Value {
        json!({
            "name": self.name,
            "carrier": self.carrier(place),
            "clients": self.clients,
            "depth": depth,
            "duration_seconds": self.time.as_secs_f64(),
            "bytes": self.bytes,
            "goodput_bits_per_second": self.rate(self.bytes as f64 * 8.0),
            "operations": self.operations,
            "operations_per_second": self.rate(self.operations as f64),
            "failures": 0,
            "latency_of": self.timed(),
            "latency_ns": self.latency.summary(),
            "memory_bytes_per_client": self.memory.map(|m| m.resident),
            "registered_bytes_per_client": self.memory.map(|m| m.registered),
        })
    }
}

/// All of them, as was asked.
pub fn report(
    args: &RdmaBenchArgs,
    place: &Place,
    size: usize,
    all: &[Figures],
    failure: Option<&Failure>,
) -> Result<String, Failure> {
    let depth = depth_of(args);
    if !args.json {
        return Ok(all.iter().map(|f| f.to_text(place, depth)).collect());
    }
    let measure = format!("{:?}", args.measure).to_lowercase();
    let document = json!({
        "schema_version": SCHEMA_VERSION,
        "tool": "corelane",
        "tool_version": env!("CARGO_PKG_VERSION"),
        "command": format!("rdma bench {measure}"),
        "machine": Machine::read(),
        "config": {
            "size_bytes": size,
            "mtu_bytes": args.mtu,
            "tx_depth": args.tx_depth,
            "ip": place.ip.to_string(),
            "device": place.device,
            "spin": args.spin,
            "events": args.events,
            "cores": args.cores,
        },
        "end": {
            "workloads": all.iter().map(|f| f.to_json(place, depth)).collect::<Vec<_>>(),
            "error": failure.map(ToString::to_string),
        },
    });
    let text = serde_json::to_string_pretty(&document);
    text.map(|t| t + "\n")
        .map_err(|e| Failure::Failed(e.to_string()))
}
