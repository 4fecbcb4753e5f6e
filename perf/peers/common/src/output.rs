//! The report of a run on standard output.

use corelane_perf::output;
use corelane_perf::report::{Report, Workload};
use serde_json::{Value, json};

use crate::frame::{Measured, Memory};
use crate::{Fault, Peer, Profile, Run};

/// The versions of all peers.
const LOCK: &str = include_str!("../../Cargo.lock");

pub(crate) fn print<P: Peer>(run: &Run, measured: &Measured, json: bool) -> Result<(), Fault> {
    let workload = Workload::new(run.work.name(), &measured.sample, measured.latency.as_ref());
    let version = version(LOCK, P::PACKAGE).unwrap_or_default();
    let report = Report::new(P::NAME, version, config(run, P::settings(run)), workload);
    if json {
        let text = serde_json::to_string_pretty(&document(&report, measured.memory)?)?;
        return Ok(output::print(&(text + "\n"))?);
    }
    let mut text = report.to_text();
    if let Some(Memory { client, server }) = measured.memory {
        text += &format!("memory of a connection: client {client} B, server {server} B\n");
    }
    Ok(output::print(&text)?)
}

/// The version of a package in a lock file.
fn version<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let entry = format!("name = \"{package}\"\nversion = \"");
    let (_, rest) = lock.split_once(&entry)?;
    rest.split_once('"').map(|(version, _)| version)
}

fn config(run: &Run, own: Value) -> Value {
    let mut config = json!({
        "settings": match run.profile {
            Profile::Default => "default",
            Profile::Tuned => "tuned",
            Profile::Jumbo => "jumbo",
        },
        "reverse": run.work == crate::Work::Down,
        "parallel": run.streams,
        "size_bytes": run.size,
        "rate_per_second": run.rate,
        "resume": run.resume,
        "connections": run.connections,
        "server_core": run.server_core,
        "client_core": run.client_core,
    });
    if let (Some(config), Value::Object(own)) = (config.as_object_mut(), own) {
        config.extend(own);
    }
    config
}

/// The report with the memory of a connection, where that was measured.
fn document(report: &Report, memory: Option<Memory>) -> Result<Value, Fault> {
    let mut document = serde_json::to_value(report)?;
    if let Some(Memory { client, server }) = memory {
        document["end"]["workloads"][0]["memory_bytes_per_connection"] =
            json!({ "client": client, "server": server });
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane_perf::meter::Sample;

    #[test]
    fn a_version_is_the_one_in_the_lock_file() {
        let lock = "[[package]]\nname = \"ab\"\nversion = \"1.2.3\"\nsource = \"x\"\n";
        assert_eq!(version(lock, "ab"), Some("1.2.3"));
        assert_eq!(version(lock, "b"), None);
        assert!(version(LOCK, "rustls").is_some());
    }

    #[test]
    fn memory_is_part_of_the_workload() {
        let workload = Workload::new("idle", &Sample::default(), None);
        let report = Report::new("x", "1", json!({}), workload);
        let memory = Memory {
            client: 1,
            server: 2,
        };
        let with = document(&report, Some(memory)).unwrap();
        let of = &with["end"]["workloads"][0]["memory_bytes_per_connection"];
        assert_eq!(of, &json!({ "client": 1, "server": 2 }));
        let without = document(&report, None).unwrap();
        assert!(without["end"]["workloads"][0]["memory_bytes_per_connection"].is_null());
        let read: Report = serde_json::from_value(with).unwrap();
        assert_eq!(read.end.workloads[0].name, "idle");
    }
}
