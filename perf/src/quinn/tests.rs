//! Every workload for a moment: something is counted where it has to be.

use super::*;

fn brief(work: Work, size: usize) -> (Sample, Option<Latency>) {
    let settings = Settings {
        work,
        parallel: 2,
        size,
        mtu: 1452,
        stream_window: 4 << 20,
        connection_window: 8 << 20,
        socket_buffer: 1 << 20,
        server_core: 0,
        client_core: 0,
        warm_up: Duration::ZERO,
        window: Duration::from_millis(300),
    };
    run(&settings).unwrap()
}

#[test]
fn bulk_moves_bytes_both_ways() {
    for work in [Work::Up, Work::Down] {
        let (sample, latency) = brief(work, 0);
        assert!(sample.bytes > 0 && latency.is_none(), "{sample:?}");
        assert!(!sample.client_cpu.is_zero() && !sample.server_cpu.is_zero());
    }
}

#[test]
fn requests_and_handshakes_have_latencies() {
    for work in [Work::RequestResponse, Work::Handshake] {
        let (sample, latency) = brief(work, 64);
        assert!(sample.operations > 0, "{sample:?}");
        assert!(latency.is_some_and(|l| !l.is_empty()));
    }
}

#[test]
fn datagrams_are_counted_where_they_arrive() {
    let (sample, latency) = brief(Work::Datagram, 100);
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
