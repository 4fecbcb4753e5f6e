//! The program as people run it: exit codes, output, and client and server as two processes.
//!
//! Nothing here depends on how fast the machine is.
#![cfg(feature = "cli")]

#[path = "cli/paths.rs"]
mod paths;
#[path = "cli/rdma.rs"]
mod rdma;
#[path = "cli/seeing.rs"]
mod seeing;

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

fn corelane(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelane"));
    command.args(line.split_whitespace());
    command
}

fn run(line: &str) -> Output {
    corelane(line).output().expect("the program starts")
}

/// Runs a measurement that must succeed and returns its report.
fn report(line: &str) -> Value {
    let output = run(line);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{line}: {errors}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!(report["schema_version"], 1);
    assert_eq!(report["end"]["error"], Value::Null);
    report
}

/// Runs something that must fail with `code` and one line, and returns the line.
fn failure(line: &str, code: i32) -> String {
    let output = run(line);
    let errors = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(code), "{line}: {errors}");
    assert_eq!(errors.lines().count(), 1, "{line}: {errors}");
    assert!(errors.starts_with("corelane: "), "{errors}");
    assert!(
        output.stdout.is_empty(),
        "{line} failed and printed results"
    );
    errors
}

fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).expect("a writable directory");
    path
}

/// A server process that ends with the test.
struct Server {
    child: Child,
    addr: String,
    fingerprint: String,
}

impl Server {
    fn start(flags: &str) -> Self {
        let line = format!("server --listen 127.0.0.1:0 {flags}");
        let mut child = corelane(&line)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut line = || lines.next().expect("a line").expect("text");
        let listening = line();
        let addr = listening
            .strip_prefix("listening on ")
            .expect("the address");
        let addr = addr.split(": ").next().expect("the address").to_owned();
        let fingerprint = line();
        let fingerprint = fingerprint
            .strip_prefix("certificate SHA-256 ")
            .expect("it")
            .to_owned();
        Self {
            child,
            addr,
            fingerprint,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already, and then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn throughput_over_loopback_moves_data() {
    let report = report("bench throughput -t 1 -O 0 -i 0.5 -P 2 -J");
    let workload = &report["end"]["workloads"][0];
    assert_eq!(workload["name"], "throughput");
    assert_eq!(
        (
            workload["streams"].as_u64(),
            workload["server_shards"].as_u64()
        ),
        (Some(2), Some(1))
    );
    assert!(workload["goodput_bits_per_second"].as_f64() > Some(0.0));
    assert!(
        workload["cpu_utilization_percent"]["server"]
            .as_f64()
            .is_some()
    );
    assert!(workload["packets"]["sent"].as_u64() > Some(0));
    let intervals = report["intervals"].as_array().expect("intervals");
    assert!(!intervals.is_empty());
    let bytes: u64 = intervals.iter().filter_map(|i| i["bytes"].as_u64()).sum();
    assert_eq!(workload["bytes"].as_u64(), Some(bytes));
}

#[test]
fn an_amount_of_data_arrives_exactly() {
    for flags in ["", "-R", "--bidir"] {
        let report = report(&format!(
            "bench throughput -n 8M -P 4 -J --backend mmsg {flags}"
        ));
        let workload = &report["end"]["workloads"][0];
        let ways = if flags == "--bidir" { 2 } else { 1 };
        assert_eq!(
            workload["bytes"].as_u64(),
            Some(ways * (8 << 20)),
            "{flags}"
        );
        assert_eq!(workload["backend"], "mmsg");
    }
}

#[test]
fn an_open_loop_reports_both_latencies() {
    let report = report("bench rr --rate 200 -t 1 -O 0 -J --idle park");
    let workload = &report["end"]["workloads"][0];
    let count = |key: &str| workload[key]["count"].as_u64();
    assert!(count("latency_ns") > Some(0));
    assert_eq!(count("latency_ns"), count("service_latency_ns"));
    assert!(workload["latency_ns"]["p9999"].as_u64() >= workload["latency_ns"]["p50"].as_u64());
}

#[test]
fn every_workload_runs_with_several_shards() {
    for workload in [
        "rr --depth 4 --new-stream",
        "handshake -P 4",
        "handshake -P 4 --resume",
        "datagram -l 100 --rate 1000",
        "connections --connections 20",
    ] {
        let report = report(&format!(
            "bench {workload} -t 0.5 -J --shards 2 --idle park"
        ));
        let workload_report = &report["end"]["workloads"][0];
        assert!(
            workload_report["operations"].as_u64() > Some(0),
            "{workload}"
        );
        assert_eq!(workload_report["client_shards"], 2, "{workload}");
        assert!(
            workload_report["latency_ns"]["p50"].as_u64() > Some(0),
            "{workload}"
        );
    }
}

#[test]
fn the_server_may_be_a_process_of_its_own() {
    let line = "bench connections --apart --connections 20 -t 0.1 -J --idle park";
    let report = report(line);
    let workload = &report["end"]["workloads"][0];
    assert_eq!(
        (workload["name"].as_str(), workload["operations"].as_u64()),
        (Some("idle"), Some(20))
    );
    assert_eq!(
        (&workload["failures"], &workload["server_shards"]),
        (&0.into(), &0.into())
    );
    for side in ["client", "server"] {
        let memory = &workload["memory_bytes_per_connection"][side];
        assert!(memory.as_f64() >= Some(0.0), "{side}: {memory}");
        let cpu = &workload["cpu_utilization_percent"][side];
        assert!(cpu.as_f64() >= Some(0.0), "{side}: {cpu}");
    }
    assert!(failure("bench rr --apart", 2).contains("--apart"));
}

#[test]
fn latencies_are_written_to_files() {
    let path = |name| file(name, "");
    let (hgrm, hlog, svg) = (path("run.hgrm"), path("run.hlog"), path("run.svg"));
    let line = format!(
        "bench rr -t 0.4 -O 0 --idle park --hgrm {} --hlog {} --svg {}",
        hgrm.display(),
        hlog.display(),
        svg.display()
    );
    let output = run(&line);
    assert_eq!(output.status.code(), Some(0));
    let table = String::from_utf8(output.stdout).expect("text");
    assert!(
        table.contains("p99.9") && table.contains("goodput"),
        "{table}"
    );
    let text = |path: &PathBuf| std::fs::read_to_string(path).expect("a file");
    assert!(text(&hgrm).contains("#[Mean"));
    assert!(text(&hlog).lines().any(|l| l.contains("Tag=rr,")));
    assert!(text(&svg).starts_with("<svg"));

    // What is left out of the results is not in the log either.
    let line = format!(
        "bench rr -t 0.2 -O 0.2 --idle park -J --hlog {}",
        hlog.display()
    );
    let report = report(&line);
    let intervals = report["intervals"].as_array().expect("a list");
    let counted = intervals.iter().filter(|i| i["omitted"] == false);
    let counted = counted.filter(|i| !i["latency_ns"].is_null()).count();
    let logged = text(&hlog)
        .lines()
        .filter(|l| l.contains("Tag=rr,"))
        .count();
    assert_eq!(logged, counted);
    let end = &report["end"];
    assert!(end["rss_bytes_max"].as_u64() >= end["workloads"][0]["rss_bytes"].as_u64());
}

#[test]
fn two_processes_measure_each_other() {
    let server = Server::start("--shards 2 --idle park");
    let trust = format!("--pin {} --idle park -J", server.fingerprint);
    let of = |workload: &str| report(&format!("client {} {workload} {trust}", server.addr));

    let bulk = of("throughput -n 4M -P 3 --connections 2");
    let workload = &bulk["end"]["workloads"][0];
    assert!(workload["bytes"].as_u64() >= Some(4 << 20));
    assert_eq!(workload["server_shards"], 0);
    assert!(
        workload["cpu_utilization_percent"]["remote"]
            .as_f64()
            .is_some()
    );

    let reverse = of("throughput -t 0.3 -O 0.1 -R");
    assert!(reverse["end"]["workloads"][0]["bytes"].as_u64() > Some(0));
    for workload in ["rr -t 0.3 -O 0", "datagram -t 0.3 -O 0 -l 200 --rate 500"] {
        let report = of(workload);
        assert!(
            report["end"]["workloads"][0]["operations"].as_u64() > Some(0),
            "{workload}"
        );
    }
}

#[test]
fn a_server_that_is_not_the_expected_one_is_refused() {
    let server = Server::start("--shards 1 --idle park");
    let wrong = "00".repeat(32);
    let told = failure(&format!("client {} rr -t 1 --pin {wrong}", server.addr), 1);
    assert!(told.contains(&server.fingerprint), "{told}");
    let ca = std::env::temp_dir().join("corelane-no-such-authority.pem");
    let line = format!("client {} rr -t 1 --ca {}", server.addr, ca.display());
    assert!(failure(&line, 1).contains("cannot read certificates"));
}

#[test]
fn a_full_server_refuses_and_the_client_says_so() {
    let server = Server::start("--shards 1 --max-connections 5 --idle park");
    let line = format!(
        "client {} connections --connections 20 -t 0.1 --insecure",
        server.addr
    );
    let said = failure(&line, 1);
    assert!(said.contains("CONNECTION_REFUSED"), "{said}");
}

#[test]
fn files_that_are_no_certificates_fail_with_one_line() {
    let (cert, key) = (
        file("bad.crt", "not a certificate\n"),
        file("bad.key", "not a key\n"),
    );
    let line = format!("server --cert {} --key {}", cert.display(), key.display());
    assert!(failure(&line, 1).contains("bad.crt"));
    let line = "bench rr -t 1 --hgrm /nonexistent/directory/file";
    assert!(failure(line, 1).contains("cannot write /nonexistent/directory/file"));
}

#[test]
fn another_provider_runs_or_says_how_to_build_it() {
    let line = "bench throughput -n 64K -J --provider";
    let ring = report(&format!("{line} ring"));
    assert_eq!(ring["config"]["engine"]["provider"], "ring");
    let default = report("bench throughput -n 64K -J");
    let faster = cfg!(feature = "aws-lc-rs");
    assert_eq!(
        default["config"]["engine"]["provider"],
        if faster { "aws-lc-rs" } else { "ring" }
    );
    let line = format!("{line} aws-lc-rs");
    if cfg!(feature = "aws-lc-rs") {
        let report = report(&line);
        assert_eq!(report["config"]["engine"]["provider"], "aws-lc-rs");
        assert_eq!(report["end"]["workloads"][0]["bytes"], 65_536);
    } else {
        assert!(failure(&line, 2).contains("--features aws-lc-rs"));
    }
}

#[test]
fn wrong_command_lines_are_usage_errors() {
    for line in [
        "",
        "frobnicate",
        "bench frobnicate",
        "bench --frobnicate",
        "bench throughput -t soon",
        "bench throughput -P 0",
        "bench throughput --mtu 100",
        "bench rr -R",
        "bench --cores 100000",
        "bench --log =nonsense=",
        "client 127.0.0.1:x --insecure",
        "bench rr -t 0",
        "bench throughput --window 0",
        "client 127.0.0.1:1",
        "client 127.0.0.1:1 --pin 12",
        "server --listen elsewhere",
        "server --cert only.pem",
    ] {
        failure(line, 2);
    }
}

#[test]
fn help_and_doctor_succeed() {
    let help = run("bench --help");
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&help.stdout).contains("--new-stream"));
    let doctor = run("doctor");
    assert_eq!(doctor.status.code(), Some(0));
    let text = String::from_utf8(doctor.stdout).expect("text");
    for what in [
        "io_uring", "GSO", "GRO", "steering", "memlock", "governor", "MTU",
    ] {
        assert!(text.contains(what), "{what} is missing: {text}");
    }
}

/// A release build in a checkout says its commit, too; `perf` puts that beside what it measures.
#[test]
fn the_version_is_one_line_with_a_commit_or_without() {
    let output = run("--version");
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).expect("text");
    let rest = text.strip_prefix("corelane ").expect("the program's name");
    let (version, stamp) = rest
        .trim_end()
        .split_once(' ')
        .unwrap_or((rest.trim_end(), ""));
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    let stamp = stamp.trim_matches(['(', ')']).trim_end_matches('+');
    assert!(stamp.chars().all(|c| c.is_ascii_hexdigit()), "{text}");
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = corelane("bench --help")
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}
