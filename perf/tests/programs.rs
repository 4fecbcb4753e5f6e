//! The programs as people run them: what they refuse, what they say, and that they leave nothing
//! behind. Peers are scripts here, so that nothing depends on how fast the machine is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

const COMPARE: &str = env!("CARGO_BIN_EXE_compare");
const RDMA: &str = env!("CARGO_BIN_EXE_rdma");
const MULTIPATH: &str = env!("CARGO_BIN_EXE_multipath");
const PROFILE: &str = env!("CARGO_BIN_EXE_profile");
const REPORT: &str = r#"{"schema_version": 1, "tool": "x", "end": {"workloads": [
    {"name": "throughput", "duration_seconds": 1, "bytes": 9}]}}"#;

/// A directory of a test's own.
fn directory(test: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    if path.exists() {
        fs::remove_dir_all(&path).unwrap();
    }
    fs::create_dir_all(&path).unwrap();
    path
}

/// A program that is a script. Another process writes it: one that this process starts meanwhile
/// would hold the file open for writing, and nobody can run it then.
fn script(path: &Path, text: &str) {
    let write = r#"printf '#!/bin/sh\n%s\n' "$1" >"$2" && chmod 700 "$2""#;
    let mut command = Command::new("sh");
    command.args(["-c", write, "sh", text]).arg(path);
    assert!(command.status().unwrap().success());
}

/// One round of TCP alone, which is that script.
fn compare(test: &str, tcp: &str) -> Command {
    let directory = directory(test);
    script(&directory.join("tcp-bench"), tcp);
    let mut command = Command::new(COMPARE);
    command
        .args(["--peers", "tcp-rustls", "--rounds", "1", "--extra", "0"])
        .args(["--patience", "0", "--seconds", "0.01", "--omit", "0"])
        .arg("--peer-dir")
        .arg(&directory)
        .arg("--out")
        .arg(directory.join("out"));
    command
}

fn ended(output: &Output, code: i32, parts: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    for part in parts {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
}

#[test]
fn work_that_nobody_offers_is_an_error_that_says_why() {
    let mut command = compare("offered", "echo TCP has no datagrams >&2; exit 69");
    let output = command.args(["--cases", "datagram-100,rr-open"]).output();
    let said = [
        "nothing to compare",
        "TCP has no datagrams",
        "rr-64 is left out",
    ];
    ended(&output.unwrap(), 2, &said);
}

#[test]
fn a_case_without_a_row_among_others_is_no_success() {
    let mut command = compare("partly", &format!("echo '{REPORT}'"));
    let output = command
        .args(["--cases", "bulk-up,scale-2,rr-open"])
        .output();
    ended(&output.unwrap(), 1, &["rr-open is left out", "results: "]);
}

#[test]
fn peers_that_are_not_built_leave_nothing_to_compare() {
    let nowhere = directory("not-built");
    let mut command = Command::new(COMPARE);
    command
        .args(["--peers", "noq,tquic", "--peer-dir"])
        .arg(&nowhere);
    let output = command.output().unwrap();
    ended(
        &output,
        2,
        &["no row is left", "noq is left out", "perf/peers/setup"],
    );
}

#[test]
fn a_usage_error_of_a_peer_is_not_work_that_it_lacks() {
    let script = "echo 'error: unexpected argument --more' >&2; exit 2";
    let mut command = compare("usage", script);
    let output = command.args(["--row", "more=tcp-rustls --more"]).output();
    ended(
        &output.unwrap(),
        2,
        &["refuses its arguments", "unexpected argument"],
    );
}

#[test]
fn more_cores_than_there_are_is_said_before_anything_runs() {
    let mut command = compare("cores", "touch \"$0.ran\"; exit 1");
    let output = command.args(["--cases", "scale-64"]).output().unwrap();
    ended(&output, 2, &["scale-64 is left out: it needs 128 cores"]);
    assert!(
        !Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join("cores/tcp-bench.ran")
            .exists()
    );
}

#[test]
fn nobody_who_reads_is_no_reason_to_lose_results() {
    let mut command = compare("closed", &format!("echo '{REPORT}'"));
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("closed/out");
    let mut kinds: Vec<_> = fs::read_dir(out)
        .unwrap()
        .map(|entry| entry.unwrap().path().extension().unwrap().to_owned())
        .collect();
    kinds.sort();
    assert_eq!(kinds, ["json", "md", "svg"]);
}

#[test]
fn what_compare_started_ends_with_it() {
    let mut command = compare("killed", "echo $$ >\"$0.pid\"; exec sleep 600");
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("killed/tcp-bench.pid");
    // Both waits end long before, unless the machine stands still.
    let until = |done: &dyn Fn() -> bool| {
        let mut tries = (0..3000).map(|_| thread::sleep(Duration::from_millis(20)));
        tries.any(|()| done())
    };
    let pid = || fs::read_to_string(&file).ok()?.trim().parse::<u32>().ok();
    assert!(until(&|| pid().is_some()), "it never ran");
    child.kill().unwrap();
    child.wait().unwrap();
    let process = format!("/proc/{}/stat", pid().unwrap());
    // Dead, or waiting for whoever adopted it to look.
    let is_gone = || match fs::read_to_string(&process) {
        Ok(stat) => stat.contains(") Z "),
        Err(_) => true,
    };
    assert!(until(&is_gone), "{process} is still there");
}

#[test]
fn numbers_that_measure_nothing_are_refused_everywhere() {
    let quinn = env!("CARGO_BIN_EXE_quinn-bench");
    let ceiling = env!("CARGO_BIN_EXE_ceiling");
    for (program, flags) in [
        (COMPARE, &["--rounds=0", "--seconds=0", "--omit=nan"][..]),
        (
            MULTIPATH,
            &["--rounds=0", "--seconds=0", "--seconds=nan", "--seconds=-1"],
        ),
        (
            RDMA,
            &["--rounds=0", "--seconds=0", "--extra=18446744073709551615"],
        ),
        (quinn, &["--seconds=0", "--rate=5", "--omit=inf"]),
        (ceiling, &["--seconds=0", "--seconds=inf", "--omit=-1"]),
        (PROFILE, &["-F0", "-F99999999"]),
    ] {
        for flag in flags {
            let output = Command::new(program).arg(flag).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{program} {flag}: {said}");
            assert!(output.stdout.is_empty(), "{program} {flag}");
        }
    }
}

#[test]
fn programs_that_are_missing_are_known_before_anything_runs() {
    let nowhere = directory("nowhere");
    let run = |program: &str, flag: &str, value: &Path| {
        Command::new(program).arg(flag).arg(value).output().unwrap()
    };
    let build = "is missing: run `cargo build --release --workspace`";
    ended(&run(RDMA, "--bin-dir", &nowhere), 2, &[build]);
    ended(
        &run(RDMA, "--before", &nowhere.join("corelane")),
        2,
        &["is missing: run"],
    );
    let corelane = nowhere.join("corelane");
    ended(&run(MULTIPATH, "--corelane", &corelane), 2, &[build]);
    ended(&run(PROFILE, "--program", &corelane), 1, &[build]);
    script(&corelane, "exit 1");
    let mut command = Command::new(MULTIPATH);
    command
        .arg("--corelane")
        .arg(&corelane)
        .arg("--noq")
        .arg(nowhere.join("noq-multipath"));
    ended(
        &command.output().unwrap(),
        2,
        &["noq-multipath is missing: run `perf/peers/setup`"],
    );
}

#[test]
fn a_missing_perf_is_named_with_what_there_is_instead() {
    let directory = directory("no-perf");
    let program = directory.join("corelane");
    script(&program, "exit 0");
    let mut command = Command::new(PROFILE);
    let output = command
        .env("PATH", &directory)
        .arg("--program")
        .arg(program)
        .output();
    ended(
        &output.unwrap(),
        1,
        &["`perf` is not installed", "corelane-steps"],
    );
}
