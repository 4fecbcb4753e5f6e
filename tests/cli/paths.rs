//! Several paths: over loopback, through links, one killed, and between two processes.

use super::{Server, failure, report};
use serde_json::Value;

fn workload(report: &Value) -> &Value {
    &report["end"]["workloads"][0]
}

fn paths(report: &Value) -> &[Value] {
    let paths = workload(report)["paths"].as_array();
    paths.expect("a list").as_slice()
}

#[test]
fn paths_over_loopback_all_carry_data_and_are_told_apart() {
    let r = report("bench throughput --paths 3 --scheduler round-robin -t 500ms -O 0ms -J");
    assert_eq!(paths(&r).len(), 3);
    for (n, path) in paths(&r).iter().enumerate() {
        assert_eq!(path["id"], n);
        let local = path["local"].as_str().expect("an address");
        assert!(local.starts_with(&format!("127.0.0.{}:", n + 1)), "{local}");
        assert!(path["bytes_sent"].as_u64() > Some(10_000), "{path}");
    }
    assert_eq!(r["config"]["workloads"][0]["paths"], 3);
    let single = report("bench throughput -t 100ms -O 0ms -J");
    assert!(paths(&single).is_empty());
    assert_eq!(workload(&single)["longest_stall_ms"], Value::Null);
}

#[test]
fn paths_are_found_by_themselves_where_that_is_asked_for() {
    let r = report("bench throughput --paths 3 --auto-paths -t 1s -O 0ms -J");
    assert_eq!(paths(&r).len(), 3);
    for path in paths(&r) {
        let local = path["local"].as_str().expect("an address");
        let n = path["id"].as_u64().expect("a number") + 1;
        assert!(local.starts_with(&format!("127.0.0.{n}:")), "{local}");
        assert!(path["bytes_sent"].as_u64() > Some(10_000), "{path}");
        assert!(path["since_last_ack_ns"].as_u64().is_some(), "{path}");
        assert!(path["bytes_retransmitted"].as_u64().is_some(), "{path}");
    }
    // The same of a server of another process.
    let server = Server::start("--shards 1");
    let (addr, pin) = (&server.addr, &server.fingerprint);
    let r = report(&format!(
        "client {addr} rr --paths 2 --auto-paths --pin {pin} -t 1s -O 0ms -J"
    ));
    assert_eq!(paths(&r).len(), 2);
    let config = &r["config"]["paths"];
    assert_eq!(config["auto_paths"], true);
    assert_eq!(config["scheduler"], "low-latency");
    assert_eq!(config["failure_floor_seconds"], 0.2);
}

#[test]
fn a_killed_path_stalls_the_transfer_and_does_not_end_it() {
    let r = report(
        "bench failover --kill 1 -b 20M -t 2s -O 200ms -J \
         --link delay=5,rate=50 --link delay=8,rate=50 --reinject default",
    );
    let w = workload(&r);
    assert_eq!(w["killed_path"], 1);
    assert!(w["killed_at_seconds"].as_f64() >= Some(1.2));
    assert!(w["longest_stall_ms"].as_f64() > Some(0.0), "{w}");
    assert!(w["bytes"].as_u64() > Some(0));
    assert_eq!(paths(&r).len(), 2);
}

#[test]
fn a_killed_path_of_which_nothing_was_asked_is_not_said_to_be_open() {
    let r = report(
        "bench failover --kill 1 -b 20M -t 2s -O 200ms -J \
         --scheduler backup --link delay=5,rate=50",
    );
    assert_eq!(workload(&r)["killed_path"], 1);
    for path in paths(&r) {
        let number = |key: &str| path[key].as_u64();
        let asked = number("in_flight_bytes") > Some(0);
        let patience = number("smoothed_rtt_ns").map(|ns| (4 * ns).max(500_000_000));
        let heard_of = number("since_last_ack_ns").is_some_and(|ns| Some(ns) <= patience);
        let state = path["state"].as_str().expect("text");
        assert!(state != "open" || asked || heard_of, "{path}");
    }
}

#[test]
fn paths_lead_to_another_process() {
    let server = Server::start("--shards 2");
    let (addr, pin) = (&server.addr, &server.fingerprint);
    let local = "--local 127.0.0.1,127.0.0.2";
    let r = report(&format!(
        "client {addr} rr --paths 2 {local} --pin {pin} -t 300ms -O 0ms -J"
    ));
    assert_eq!(paths(&r).len(), 2);
    let few = Server::start("--shards 1 --paths 1");
    let (addr, pin) = (&few.addr, &few.fingerprint);
    let why = failure(
        &format!("client {addr} rr --paths 2 --pin {pin} -t 300ms"),
        1,
    );
    assert!(why.contains("several paths"), "{why}");
}

#[test]
fn flags_that_make_no_sense_are_told() {
    for (line, word) in [
        ("bench handshake --paths 2", "--paths"),
        ("bench throughput --kill 0", "--kill"),
        ("bench throughput --auto-paths", "--paths"),
        ("bench failover --paths 2 --kill 2", "--kill"),
        ("bench failover -n 1M", "-n"),
        ("bench throughput --paths 9", "8"),
        ("bench throughput --link speed=1", "queue-ms"),
        ("bench throughput --link delay=abc", "milliseconds"),
        ("bench throughput --link delay=1 --link delay=2", "--paths"),
        ("bench throughput --paths 2 --duplicate foo", "datagrams"),
        ("bench throughput --paths 2 --reinject foo=1", "interval"),
        ("bench throughput --paths 2 --scheduler min-rtt:7", "0 to 1"),
        (
            "bench throughput --paths 2 --scheduler redundant:9",
            "--paths",
        ),
        (
            "bench throughput --paths 2 --scheduler weighted:7=1",
            "path 7",
        ),
        ("bench throughput --scheduler ecf", "--paths"),
        ("bench throughput --duplicate all", "--paths"),
        ("bench throughput --reinject default", "--paths"),
        ("bench failover --paths 1", "--paths"),
        ("bench throughput --scheduler best", "best"),
        ("client 127.0.0.1:1 failover --insecure", "bench"),
    ] {
        let why = failure(line, 2);
        assert!(why.contains(word), "{line}: {why}");
    }
}
