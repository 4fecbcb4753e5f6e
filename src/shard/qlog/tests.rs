//! Records, their bounds, and what becomes of those that find no room.

use super::*;
use crate::base::FourTuple;
use crate::base::net::UNSPECIFIED;
use crate::conn::observe::{Phase, SeenPacket};
use crate::path::PathId;
use crate::wire::{ConnectionId, PacketType, Side};
use serde_json::Value;

fn begun() -> Begun {
    Begun::new(
        Timestamp::from_nanos(5_000_000),
        Side::Server,
        ConnectionId::new(&[0xab; 8]).unwrap(),
        ConnectionId::new(&[1; 8]).unwrap(),
        FourTuple::new(UNSPECIFIED, UNSPECIFIED),
    )
}

fn dir(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("corelane-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    dir
}

fn records(bytes: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(bytes).expect("UTF-8");
    let records = text.split('\u{1e}').skip(1);
    records
        .map(|r| serde_json::from_str(r).expect("JSON"))
        .collect()
}

fn sent(payload: &[u8]) -> Observed<'_> {
    Observed::PacketSent(SeenPacket::new(
        PathId::ZERO,
        PacketType::OneRtt,
        7,
        1200,
        payload,
    ))
}

#[test]
fn a_record_is_bounded_whatever_the_packet_holds() {
    let recorder = &mut Recorder::new(&begun(), Duration::ZERO);
    // As many frames as a datagram holds, and one with as many ranges.
    let pings = vec![1; 65_000];
    let mut ranges = vec![2, 0xbf, 0xff, 0xff, 0xff, 0, 0x7f, 0xff, 0];
    ranges.extend([0; 2 * 0x3fff]);
    for payload in [pings, ranges] {
        let mut out = Vec::new();
        recorder.record(Timestamp::from_nanos(6_000_000), &sent(&payload), &mut out);
        assert!(out.len() < limits::QLOG_RECORD_BYTES + 1024);
        let record = &records(&out)[0];
        assert_eq!(record["time"], 1.0);
        let frames = record["data"]["frames"].as_array().unwrap();
        let whole = record["data"]["frames_omitted"].as_u64().unwrap_or(0) + frames.len() as u64;
        match frames[0]["acked_ranges"].as_array() {
            Some(ranges) => {
                let omitted = frames[0]["ranges_omitted"].as_u64().unwrap_or(0);
                let told = ranges.len() + omitted as usize;
                assert_eq!(told, limits::ACK_FRAME_RANGES);
            }
            None => assert_eq!(whole, 65_000, "what is missing is told"),
        }
    }
}

#[test]
fn a_peers_words_are_text_and_nothing_else() {
    let recorder = &mut Recorder::new(&begun(), Duration::ZERO);
    let mut payload = vec![0x1d, 7, 12];
    payload.extend(b"\"}\x1e\n\0\\\xff\xc3\x28'\xe2\x82");
    let mut out = Vec::new();
    recorder.record(Timestamp::from_nanos(5_000_000), &sent(&payload), &mut out);
    let record = &records(&out)[0];
    let close = &record["data"]["frames"][0];
    assert_eq!(close["error_space"], "application");
    assert!(close["reason"].as_str().unwrap().starts_with("\"}\u{1e}\n"));
}

#[test]
fn what_is_lost_for_want_of_room_is_counted_and_told() {
    // No thread takes from this queue until the test does.
    let (sender, tasks) = mpsc::sync_channel(1);
    let qlog = Qlog {
        sender,
        counts: Arc::default(),
        dir: PathBuf::new(),
    };
    let mut log = Log::begin(&begun(), &qlog);
    let mut now = Timestamp::from_nanos(5_000_000);
    for _ in 0..4 {
        now += PATIENCE;
        log.observe(now, &sent(&[1]));
    }
    // The first was taken; three were not.
    assert_eq!(qlog.stats().dropped_events, 3);
    let Ok(Task::Append(_, first)) = tasks.try_recv() else {
        panic!("records");
    };
    assert_eq!(records(&first)[0]["qlog_format"], "JSON-SEQ");
    log.observe(now + PATIENCE, &sent(&[1]));
    let Ok(Task::Append(_, second)) = tasks.try_recv() else {
        panic!("records");
    };
    let second = records(&second);
    assert_eq!(second[0]["name"], "loglevel:warning");
    assert_eq!(second[0]["data"]["dropped_events"], 3);
    assert_eq!(second[1]["name"], "transport:packet_sent");
}

#[test]
fn a_file_that_lost_its_beginning_gets_another() {
    let (sender, tasks) = mpsc::sync_channel(0);
    let qlog = Qlog {
        sender,
        counts: Arc::default(),
        dir: PathBuf::new(),
    };
    let mut log = Log::begin(&begun(), &qlog);
    log.observe(Timestamp::from_nanos(60_000_000), &sent(&[1]));
    assert_eq!(qlog.stats().dropped_events, 1);
    drop(tasks);
    let names: Vec<Value> = records(&log.records)
        .into_iter()
        .map(|r| r["name"].clone())
        .collect();
    let started = Value::from("connectivity:connection_started");
    assert_eq!(names, [Value::Null, started, "loglevel:warning".into()]);
}

#[test]
fn a_name_is_taken_at_most_so_often() {
    let dir = dir("names");
    let qlog = Qlog::to_dir(&dir).unwrap();
    for _ in 0..20 {
        let mut log = Log::begin(&begun(), &qlog);
        log.observe(Timestamp::from_nanos(6_000_000), &sent(&[1]));
    }
    // One that never saw a packet.
    let mut log = Log::begin(&begun(), &qlog);
    log.observe(begun().now, &Observed::Phase(Phase::Handshaking));
    drop(log);
    qlog.flush();
    let stats = qlog.stats();
    assert_eq!((stats.files, stats.failed_writes), (16, 4));
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 16);
    assert!(dir.join("abababababababab_server.sqlog").exists());
    assert!(dir.join("abababababababab_server-15.sqlog").exists());
    std::fs::remove_dir_all(&dir).unwrap();
}

/// What a reader needs of a multipath connection: which frame, and about which path.
#[test]
fn frames_of_multipath_name_their_path() {
    let payload = [
        &[0x3e, 2, 9, 0, 0, 1][..],
        &[0x7e, 0x75, 1, 0x3e],
        &[0x7e, 0x76, 1, 4],
        &[0x7e, 0x7a, 5],
        &[0x40, 0x40, 1, 2, 4, 192, 0, 2, 7, 0x11, 0x51],
    ];
    let recorder = &mut Recorder::new(&begun(), Duration::ZERO);
    let mut out = Vec::new();
    let payload = payload.concat();
    recorder.record(Timestamp::from_nanos(5_000_000), &sent(&payload), &mut out);
    let record = records(&out).pop().expect("a record");
    let expected = serde_json::json!([
        {"frame_type": "path_ack", "path_id": 2, "ack_delay": 0.0, "acked_ranges": [[8, 9]]},
        {"frame_type": "path_abandon", "path_id": 1, "error_code": "application_abandon_path"},
        {"frame_type": "path_status_backup", "path_id": 1, "path_status_sequence_number": 4},
        {"frame_type": "max_path_id", "maximum_path_id": 5},
        {
            "frame_type": "add_address", "address_id": 1, "sequence_number": 2,
            "ip": "192.0.2.7", "port": 4433
        },
    ]);
    assert_eq!(record["data"]["frames"], expected);
}
