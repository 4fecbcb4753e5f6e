//! What an embedder sees of its endpoints: counters while they run, logs of what they did.

use super::util::{Pair, World, pattern, run};
use corelane::api::{MetricsReader, Qlog, ShardMetrics};
use std::path::Path;
use std::time::Duration;

/// Moves a megabyte from the client to the server, closes and ends both endpoints.
async fn transfer(pair: Pair) {
    let (client, server) = pair.connect().await;
    let data = pattern(1 << 20, 7);
    let mut send = client.open_uni().await.unwrap();
    let reading = std::thread::spawn(move || {
        futures_executor::block_on(async {
            let mut recv = server.accept_uni().await.unwrap();
            let got = recv.read_to_end(1 << 21).await.unwrap();
            server.close(0, b"");
            got
        })
    });
    send.write_all(&data).await.unwrap();
    send.finish().unwrap();
    // Whoever has the last byte says when it is over.
    client.closed().await;
    assert!(reading.join().unwrap() == data);
    pair.client.wait_idle().await;
    pair.server.wait_idle().await;
}

/// The counters once the shards have ended, and with them everything that could change.
fn last(reader: &MetricsReader) -> ShardMetrics {
    loop {
        let total = reader.read().total();
        let gone = total.rtt.buckets.iter().sum::<u64>();
        if total.open_connections == 0 && gone == 1 {
            // The last copy may have been made while it was read.
            return reader.read().total();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn count(dir: &Path, role: &str, name: &str) -> u64 {
    let suffix = format!("_{role}.sqlog");
    let files = std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().path());
    let files: Vec<_> = files
        .filter(|p| p.to_string_lossy().ends_with(&suffix))
        .collect();
    assert_eq!(files.len(), 1, "a file for the connection");
    let text = std::fs::read_to_string(&files[0]).unwrap();
    let records = text.split('\u{1e}').skip(1);
    records
        .map(|r| serde_json::from_str::<serde_json::Value>(r).expect("JSON"))
        .filter(|r| r["name"] == name)
        .count() as u64
}

#[test]
fn logs_and_counters_of_a_transfer_agree() {
    run(|| async {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("api-qlog");
        let _ = std::fs::remove_dir_all(&dir);
        let qlog = Qlog::to_dir(&dir).unwrap();
        let mut world = World::new();
        world.transport.observers = Some(qlog.observers());
        let pair = world.pair();
        let readers = [
            ("client", pair.client.metrics_reader()),
            ("server", pair.server.metrics_reader()),
        ];
        transfer(pair).await;
        for (role, reader) in readers {
            let m = last(&reader);
            qlog.flush();
            let c = m.connections;
            assert!(c.packets_sent > 0 && c.packets_received > 0);
            assert_eq!(count(&dir, role, "transport:packet_sent"), c.packets_sent);
            let received = count(&dir, role, "transport:packet_received");
            assert_eq!(received, c.packets_received);
            assert_eq!(count(&dir, role, "recovery:packet_lost"), c.packets_lost);
            assert!(m.io.rx_bytes >= c.udp_bytes_received);
            assert_eq!(m.endpoint.accepted + m.endpoint.connected, 1);
        }
        assert_eq!(qlog.stats().files, 2);
    });
}

#[test]
fn counters_are_seen_while_shards_sleep() {
    run(|| async {
        let mut world = World::new();
        world.shards = 2;
        let pair = world.pair();
        let (client, server) = pair.connect().await;
        // Both sides come to rest, and what they counted until then is there.
        loop {
            let m = pair.server.metrics();
            assert_eq!(m.shards.len(), 2);
            let total = m.total();
            if total.open_connections == 1 && total.connections.packets_received > 2 {
                assert_eq!(total.half_open, 0);
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let stats = client.stats().await.unwrap();
        while pair.client.metrics().total().connections.packets_sent < stats.packets_sent {
            std::thread::sleep(Duration::from_millis(2));
        }
        drop((client, server));
    });
}
