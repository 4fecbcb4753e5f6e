//! The short cases of the matrix between corelane and itself, and the program's exit codes.

use corelane_interop::matrix::{self, Case, Options, Outcome, Peer, Peers};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_corelane-interop");

fn play(dir: &str, names: &[&str]) {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(dir);
    let wanted = |c: &Case| names.contains(&c.name);
    let cases: Vec<_> = matrix::cases().into_iter().filter(wanted).collect();
    assert_eq!(cases.len(), names.len());
    let options = Options {
        peers: Peers {
            corelane: PathBuf::from(PROGRAM),
            dir: out.clone(),
        },
        pairs: matrix::pairs(&[Peer::Corelane]),
        cases,
        jobs: 4,
        out: out.clone(),
        seed: 1,
    };
    let report = matrix::run(&options, |_| {}).unwrap();
    for cell in &report.cells {
        let passed = matches!(cell.outcome, Outcome::Passed(_));
        assert!(
            passed,
            "{}: {:?}; see {}",
            cell.case,
            cell.outcome,
            out.display()
        );
    }
    assert_eq!(report.cells.len(), names.len());
    fs::remove_dir_all(out).unwrap();
}

#[test]
fn handshakes_pass() {
    play(
        "handshakes",
        &[
            "handshake",
            "retry",
            "resumption",
            "amplificationlimit",
            "zerortt",
            "v2",
        ],
    );
}

#[test]
fn transfers_pass() {
    play(
        "transfers",
        &[
            "chacha20",
            "keyupdate",
            "ecn",
            "multiplexing",
            "connectionmigration",
            "multipath",
        ],
    );
}

#[test]
fn a_lossy_transfer_passes() {
    play("lossy", &["transferloss", "transfercorruption"]);
}

#[test]
fn unknown_cases_end_with_127_and_wrong_calls_with_2() {
    let run = |case: &str, args: &[&str]| {
        let status = Command::new(PROGRAM)
            .args(args)
            .env("TESTCASE", case)
            .status();
        status.unwrap().code()
    };
    let client = [
        "client",
        "--out",
        "x",
        "--insecure",
        "https://localhost:1/x",
    ];
    assert_eq!(run("http3", &client), Some(127));
    assert_eq!(run("transfer", &["client", "--out", "x"]), Some(2));
    assert_eq!(run("transfer", &["--help"]), Some(0));
    let server = [
        "server",
        "--listen",
        "127.0.0.1:0",
        "--root",
        ".",
        "--cert",
        "none",
        "--key",
        "none",
    ];
    assert_eq!(run("transfer", &server), Some(1));
}

#[test]
fn a_peer_that_is_not_built_leaves_its_cells_empty() {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("absent");
    let options = Options {
        peers: Peers {
            corelane: PathBuf::from(PROGRAM),
            dir: out.clone(),
        },
        pairs: matrix::pairs(&[Peer::Quiche]),
        cases: matrix::cases().into_iter().take(1).collect(),
        jobs: 1,
        out: out.clone(),
        seed: 1,
    };
    let report = matrix::run(&options, |_| {}).unwrap();
    assert!(report.cells.iter().all(|c| c.outcome == Outcome::Absent));
    assert_eq!(report.unexplained().count(), 0);
    let text = report.to_string();
    assert!(text.contains("quiche server | quiche client"), "{text}");
    fs::remove_dir_all(out).unwrap();
}
