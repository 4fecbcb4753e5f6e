//! Every workload for a moment: something is counted where it has to be.

use clap::Parser;

use super::*;

/// A command line, with both sides on one core and a short window.
pub(super) fn args(line: &str) -> Args {
    let short = "--seconds 0.3 --omit 0 --server-core 0 --client-core 0";
    let words = ["quinn-bench"].into_iter();
    let words = words.chain(line.split_whitespace());
    Args::parse_from(words.chain(short.split_whitespace()))
}

fn brief(line: &str) -> (Sample, Option<Latency>) {
    run(&args(line)).unwrap()
}

#[test]
fn bulk_moves_bytes_both_ways() {
    for line in ["--streams 2", "--direction down", "--settings default"] {
        let (sample, latency) = brief(line);
        assert!(sample.bytes > 0 && latency.is_none(), "{sample:?}");
        assert!(!sample.client_cpu.is_zero() && !sample.server_cpu.is_zero());
    }
}

#[test]
fn requests_and_handshakes_have_latencies() {
    for line in ["rr --streams 2", "rr --rate 500", "handshake --streams 2"] {
        let (sample, latency) = brief(&format!("--work {line}"));
        assert!(sample.operations > 0, "{sample:?}");
        assert!(latency.is_some_and(|l| !l.is_empty()));
    }
}

#[test]
fn resumed_handshakes_resume() {
    // A full handshake among them would be an error.
    let (sample, latency) = brief("--work handshake --resume --streams 2");
    assert!(sample.operations > 0 && latency.is_some(), "{sample:?}");
}

#[test]
fn datagrams_are_counted_where_they_arrive() {
    let (sample, latency) = brief("--work datagram --size 100");
    assert!(sample.operations > 0 && sample.bytes > 0, "{sample:?}");
    assert!(latency.is_none());
}

#[test]
fn the_version_is_the_one_in_the_lock_file() {
    let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock");
    let lock = std::fs::read_to_string(lock).unwrap();
    let entry = format!("name = \"quinn\"\nversion = \"{VERSION}\"\n");
    assert!(
        lock.contains(&entry),
        "the lock file has another quinn than {VERSION}"
    );
}
