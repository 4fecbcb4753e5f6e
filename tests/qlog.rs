//! qlog as viewers read it: well-formed, with the fields that they need, and true: its packets are
//! the packets that the connection counted.

mod common;

use bytes::Bytes;
use common::attack::{Attack, Plan};
use common::pair::{CLIENT, Pair, SERVER, Setup};
use common::raw_peer::payload;
use corelane::base::{FourTuple, Rng, SocketId};
use corelane::conn::{ConnectionStats, TransportConfig};
use corelane::path::PathStatus;
use corelane::shard::qlog::Qlog;
use corelane::wire::Dir;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Event names of qlog 0.3 that qvis knows.
const NAMES: &[&str] = &[
    "connectivity:connection_started",
    "connectivity:connection_state_updated",
    "connectivity:connection_closed",
    "connectivity:mtu_updated",
    "connectivity:path_assigned",
    "transport:parameters_set",
    "transport:packet_sent",
    "transport:packet_received",
    "transport:packet_dropped",
    "recovery:metrics_updated",
    "recovery:congestion_state_updated",
    "recovery:packet_lost",
    "security:key_updated",
];

fn dir(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("qlog-{name}"));
    let _ = std::fs::remove_dir_all(&dir);
    dir
}

fn logged(qlog: &Qlog) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport.observers = Some(qlog.observers());
    transport
}

/// A file, read as RFC 7464 says.
struct Log {
    header: Value,
    events: Vec<Value>,
}

impl Log {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("a file of UTF-8");
        assert!(text.starts_with('\u{1e}') && text.ends_with('\n'));
        let parse = |r: &str| serde_json::from_str(r).expect("a JSON value");
        let mut records = text.split('\u{1e}').skip(1).map(parse);
        Self {
            header: records.next().expect("a header"),
            events: records.collect(),
        }
    }

    fn of_role(dir: &Path, role: &str) -> Self {
        let suffix = format!("_{role}.sqlog");
        let files = std::fs::read_dir(dir).expect("the directory");
        let mut found = files
            .map(|f| f.unwrap().path())
            .filter(|p| p.to_string_lossy().ends_with(&suffix));
        let path = found.next().expect("a file for the role");
        assert!(found.next().is_none(), "one file for a connection");
        let log = Self::read(&path);
        log.check(&path, role);
        log
    }

    /// What every viewer needs.
    fn check(&self, path: &Path, role: &str) {
        let h = &self.header;
        assert_eq!(
            (&h["qlog_version"], &h["qlog_format"]),
            (&"0.3".into(), &"JSON-SEQ".into())
        );
        assert_eq!(h["trace"]["vantage_point"]["type"], role);
        let common = &h["trace"]["common_fields"];
        assert_eq!(common["time_format"], "relative");
        assert!(common["reference_time"].as_f64().unwrap() > 1.6e12);
        let name = format!("{}_{role}.sqlog", common["ODCID"].as_str().unwrap());
        assert_eq!(path.file_name().unwrap().to_str(), Some(name.as_str()));
        let mut time = 0.0;
        for e in &self.events {
            let at = e["time"].as_f64().expect("a time");
            assert!(at >= time, "time goes forwards");
            time = at;
            let name = e["name"].as_str().expect("a name");
            assert!(NAMES.contains(&name), "{name}");
            let d = e["data"].as_object().expect("data");
            if name.starts_with("transport:packet_") && name != "transport:packet_dropped" {
                let types = ["initial", "handshake", "1RTT"];
                let ty = d["header"]["packet_type"].as_str().unwrap();
                assert!(types.contains(&ty), "{ty}");
                assert!(d["header"]["packet_number"].is_u64());
                assert!(d["raw"]["length"].as_u64().unwrap() > 0);
                let frames = d["frames"].as_array().unwrap();
                assert!(frames.iter().all(|f| f["frame_type"].is_string()));
                assert!(!frames.is_empty(), "no packet is without frames");
            }
        }
    }

    fn count(&self, name: &str) -> u64 {
        self.events.iter().filter(|e| e["name"] == name).count() as u64
    }

    fn find(&self, name: &str) -> impl Iterator<Item = &Value> {
        let of = self.events.iter().filter(move |e| e["name"] == name);
        of.map(|e| &e["data"]).collect::<Vec<_>>().into_iter()
    }

    /// The packets and losses are those that the connection counted.
    fn agrees_with(&self, stats: &ConnectionStats) {
        assert_eq!(self.count("transport:packet_sent"), stats.packets_sent);
        assert_eq!(
            self.count("transport:packet_received"),
            stats.packets_received
        );
        assert_eq!(self.count("recovery:packet_lost"), stats.packets_lost);
        let dropped: u64 = self
            .find("transport:packet_dropped")
            .map(|d| d["count"].as_u64().unwrap())
            .sum();
        assert_eq!(
            dropped,
            stats.packets_dropped + stats.packets_duplicate + stats.packets_undecryptable
        );
    }

    /// Bytes of stream data in the packets of one direction, by offset.
    fn stream_bytes(&self, name: &str) -> u64 {
        let mut pieces = BTreeMap::new();
        for d in self.find(name) {
            for f in d["frames"].as_array().unwrap() {
                if f["frame_type"] == "stream" {
                    let (at, len) = (f["offset"].as_u64(), f["length"].as_u64());
                    let longest = pieces.entry(at.unwrap()).or_insert(0);
                    *longest = len.unwrap().max(*longest);
                }
            }
        }
        let end = |(at, len): (&u64, &u64)| at + len;
        pieces.iter().map(end).max().unwrap_or(0)
    }
}

#[test]
fn a_lossy_transfer_is_logged_as_it_was_counted() {
    let dir = dir("lossy");
    let qlog = Qlog::to_dir(&dir).expect("a writable directory");
    let mut pair = Pair::new(Setup {
        client: logged(&qlog),
        server: logged(&qlog),
        ..Setup::default()
    });
    let (client, server) = pair.connected();
    let mut rng = Rng::from_u64(3);
    pair.filter = Box::new(move |p| match rng.next_u64() % 50 {
        0 => vec![],
        _ => vec![p],
    });
    let data = Bytes::from(vec![5; 1_000_000]);
    let streams = pair.conn(CLIENT, client).streams_mut();
    let id = streams.open(Dir::Uni).expect("a stream");
    assert_eq!(streams.write_bytes(id, data.clone()), Ok(data.len()));
    streams.finish(id).expect("open");
    pair.run(20 * SECOND);
    assert!(pair.conn(CLIENT, client).update_keys());
    pair.run(SECOND);
    let now = pair.now;
    pair.conn(CLIENT, client)
        .close(now, 7, b"that was \"all\"\x1e");
    pair.run(Duration::from_millis(20));
    let stats = [(CLIENT, client), (SERVER, server)].map(|(side, id)| pair.conn(side, id).stats());
    drop(pair);
    qlog.flush();

    let [of_client, of_server] = ["client", "server"].map(|role| Log::of_role(&dir, role));
    of_client.agrees_with(&stats[0]);
    of_server.agrees_with(&stats[1]);
    assert!(stats[0].packets_lost > 0 && stats[0].key_updates == 1);
    let odcid = |log: &Log| log.header["trace"]["common_fields"]["ODCID"].clone();
    assert_eq!(
        odcid(&of_client),
        odcid(&of_server),
        "one name for both ends"
    );
    for (log, name) in [
        (&of_client, "transport:packet_sent"),
        (&of_server, "transport:packet_received"),
    ] {
        assert_eq!(log.stream_bytes(name), data.len() as u64);
    }
    let triggers = |log: &Log| -> Vec<Value> {
        let updates = log.find("security:key_updated");
        updates.map(|d| d["trigger"].clone()).collect()
    };
    assert_eq!(triggers(&of_client), ["local_update", "local_update"]);
    assert_eq!(triggers(&of_server), ["remote_update", "remote_update"]);
    let closed = of_server.find("connectivity:connection_closed").next();
    let closed = closed.expect("the end");
    assert_eq!(
        (&closed["owner"], &closed["application_code"]),
        (&"remote".into(), &7.into())
    );
    let phases: Vec<&Value> = of_client
        .find("connectivity:connection_state_updated")
        .map(|d| &d["new"])
        .collect();
    assert_eq!(phases.first().unwrap(), &"handshake_started");
    assert!(phases.contains(&&"handshake_confirmed".into()));
    assert_eq!(phases.last().unwrap(), &"closing");
    let owners: Vec<&Value> = of_client
        .find("transport:parameters_set")
        .map(|d| &d["owner"])
        .collect();
    assert_eq!(owners, ["local", "remote"]);
    let last = of_client.find("recovery:metrics_updated").last().unwrap();
    assert!(last.as_object().unwrap().len() <= 8);
    assert_eq!(qlog.stats().dropped_events, 0);
}

#[test]
fn a_peer_that_moves_is_seen_moving() {
    let dir = dir("moving");
    let qlog = Qlog::to_dir(&dir).expect("a writable directory");
    let mut pair = Pair::new(Setup {
        server: logged(&qlog),
        ..Setup::default()
    });
    let (client, _) = pair.connected();
    pair.filter = Box::new(|mut p| {
        if p.from == CLIENT {
            p.source.set_port(1001);
        }
        vec![p]
    });
    let streams = pair.conn(CLIENT, client).streams_mut();
    let id = streams.open(Dir::Uni).expect("a stream");
    streams.write(id, b"from elsewhere").expect("open");
    pair.run(SECOND);
    drop(pair);
    qlog.flush();
    let log = Log::of_role(&dir, "server");
    let moved = log.find("connectivity:path_assigned").next();
    assert_eq!(moved.expect("a path")["path_remote"]["port_v4"], 1001);
}

#[test]
fn whatever_a_peer_sends_is_logged_as_json() {
    let dir = dir("hostile");
    let qlog = Qlog::to_dir(&dir).expect("a writable directory");
    let mut rng = Rng::from_u64(9);
    for n in 0..60 {
        let mut a = Attack::on_server(Plan {
            transport: logged(&qlog),
            seed: n,
            ..Plan::default()
        });
        a.new_client(1000 + n);
        a.handshake();
        let len = (rng.next_u64() % 300 + 1) as usize;
        let noise: Vec<u8> = (0..len).map(|_| rng.next_u64() as u8).collect();
        let mut frames = payload(corelane::wire::frame::write_ping);
        // A close with a phrase of noise, or the noise itself.
        if n % 2 == 0 {
            frames.extend([0x1d, 0x40, 0x07, 0x40 | (len >> 8) as u8, len as u8]);
        }
        frames.extend(noise);
        a.one_rtt(&frames);
        a.run(SECOND);
    }
    qlog.flush();
    assert_eq!(qlog.stats().failed_writes, 0);
    let mut files = 0;
    for file in std::fs::read_dir(&dir).expect("the directory") {
        let path = file.unwrap().path();
        Log::read(&path).check(&path, "server");
        files += 1;
    }
    assert_eq!(files, 60);
}

#[test]
fn a_connection_that_never_was_leaves_no_file() {
    let dir = dir("noise");
    let qlog = Qlog::to_dir(&dir).expect("a writable directory");
    let mut a = Attack::on_server(Plan {
        transport: logged(&qlog),
        ..Plan::default()
    });
    let mut initial = a.peer.flight().remove(0);
    let last = initial.len() - 1;
    initial[last] ^= 1;
    a.send(&initial);
    a.run(SECOND);
    assert!(a.endpoint.is_empty());
    drop(a);
    qlog.flush();
    assert_eq!(std::fs::read_dir(&dir).expect("the directory").count(), 0);
    assert_eq!(qlog.stats().files, 0);
}

/// Round trips, windows and packets are told of every path, by its number.
#[test]
fn every_path_is_logged_by_its_number() {
    let dir = dir("paths");
    let qlog = Qlog::to_dir(&dir).expect("a writable directory");
    let mut transport = logged(&qlog);
    transport.max_paths = 4;
    let mut pair = Pair::new(Setup {
        client: transport.clone(),
        server: transport,
        ..Setup::default()
    });
    let (client, server) = pair.connected();
    let second = SocketAddr::from(([127, 0, 0, 2], 1001));
    pair.sides[CLIENT].more.push(second);
    let (now, remote) = (pair.now, pair.sides[SERVER].addr);
    let tuple = FourTuple::new(second, remote);
    let conn = pair.conn(CLIENT, client);
    conn.open_path(now, SocketId(1), tuple, PathStatus::Available)
        .expect("opens");
    pair.run(SECOND);
    let data = Bytes::from(vec![5; 1_000_000]);
    let streams = pair.conn(CLIENT, client).streams_mut();
    let id = streams.open(Dir::Uni).expect("a stream");
    assert_eq!(streams.write_bytes(id, data.clone()), Ok(data.len()));
    streams.finish(id).expect("open");
    pair.run(5 * SECOND);
    let stats = [(CLIENT, client), (SERVER, server)].map(|(side, id)| pair.conn(side, id).stats());
    drop(pair);
    qlog.flush();

    let logs = ["client", "server"].map(|role| Log::of_role(&dir, role));
    for (log, stats) in logs.iter().zip(&stats) {
        log.agrees_with(stats);
        let assigned = log.find("connectivity:path_assigned");
        let ids: Vec<&Value> = assigned.map(|d| &d["path_id"]).collect();
        assert_eq!(ids, ["1"]);
        let of = |name: &str, path: &Value| -> Vec<&Value> {
            let events = log.events.iter();
            let of = events.filter(|e| e["name"] == name && e["path"] == *path);
            of.map(|e| &e["data"]).collect()
        };
        for path in [Value::Null, "1".into()] {
            let metrics = of("recovery:metrics_updated", &path);
            for key in ["smoothed_rtt", "congestion_window", "bytes_in_flight"] {
                assert!(metrics.iter().any(|m| m[key].is_number()), "{path} {key}");
            }
            assert!(!of("connectivity:mtu_updated", &path).is_empty());
            for name in ["transport:packet_sent", "transport:packet_received"] {
                let packets = of(name, &path);
                let packets = packets
                    .iter()
                    .filter(|p| p["header"]["packet_type"] == "1RTT");
                let numbers = packets.map(|p| p["header"]["packet_number"].as_u64());
                let numbers: Vec<u64> = numbers.map(|n| n.expect("a number")).collect();
                let distinct: BTreeSet<u64> = numbers.iter().copied().collect();
                assert!(numbers.len() > 10, "{path} {name}");
                assert_eq!(distinct.len(), numbers.len(), "a space of its own");
            }
        }
    }
}
