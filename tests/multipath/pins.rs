//! Streams and datagrams that are pinned to a path, and what a controller sees and decides.

use crate::common::pair::{CLIENT, SERVER};
use crate::rig::*;
use bytes::Bytes;
use corelane::base::{FourTuple, Timestamp};
use corelane::conn::{AddressConfig, PathController, PathControllers, PinError};
use corelane::path::reinject::{ReinjectionConfig, TargetSelector};
use corelane::path::schedule::{Decision, PathView, Pin, SchedulerContext};
use corelane::path::{PathId, PathStatus};
use corelane::stream::DatagramError;
use corelane::wire::{Code, Dir, StreamId};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A stream pinned to a path, with so many bytes and its end.
fn pinned(rig: &mut Rig, pin: Pin, bytes: usize) -> StreamId {
    let client = rig.client;
    let conn = rig.pair.conn(CLIENT, client);
    let streams = conn.streams_mut();
    let id = streams.open(Dir::Uni).unwrap();
    conn.set_stream_path(id, Some(pin)).unwrap();
    let streams = conn.streams_mut();
    assert_eq!(streams.write(id, &vec![7; bytes]), Ok(bytes));
    streams.finish(id).unwrap();
    id
}

/// Though the path is a backup that the scheduler would never choose.
#[test]
fn a_pinned_stream_goes_by_its_path_alone() {
    for path in [0, 1] {
        let mut rig = Rig::two_paths();
        let client = rig.client;
        let conn = rig.pair.conn(CLIENT, client);
        let backup = PathStatus::Backup;
        conn.set_path_status(PathId(path), backup).unwrap();
        rig.run_ms(100);
        rig.forget_traffic();
        let loose = rig.send(CLIENT, 500_000);
        let id = pinned(&mut rig, Pin::only(PathId(path)), 500_000);
        rig.run_ms(3000);
        assert!(rig.has(CLIENT, id, 500_000) && rig.has(CLIENT, loose, 500_000));
        for source in [CLIENT_0, CLIENT_1] {
            let bytes = rig.bytes_from(at(source));
            assert!((500_000..600_000).contains(&bytes), "{source:?}: {bytes}");
        }
        rig.expect_alive();
    }
}

#[test]
fn what_is_pinned_waits_for_its_path_or_falls_back() {
    let mut rig = Rig::two_paths();
    rig.deliver(CLIENT, 300_000, 1000);
    rig.darken(at(CLIENT_1));
    let patient = pinned(&mut rig, Pin::only(PathId(1)), 50_000);
    let other = pinned(&mut rig, Pin::to(PathId(1)), 50_000);
    rig.run_ms(2000);
    assert!(rig.has(CLIENT, other, 50_000), "another path serves");
    assert!(!rig.has(CLIENT, patient, 50_000), "it waits");
    rig.lighten();
    rig.run_ms(3000);
    assert!(rig.has(CLIENT, patient, 50_000));

    // Abandoned for good: one falls back, the other is let go by its application.
    let [patient, other] = [Pin::only, Pin::to].map(|p| pinned(&mut rig, p(PathId(1)), 900_000));
    let (now, client) = (rig.pair.now, rig.client);
    let conn = rig.pair.conn(CLIENT, client);
    conn.close_path(now, PathId(1), Code::NO_ERROR).unwrap();
    rig.run_ms(3000);
    assert!(rig.has(CLIENT, other, 900_000) && !rig.has(CLIENT, patient, 900_000));
    let conn = rig.pair.conn(CLIENT, client);
    conn.set_stream_path(patient, None).unwrap();
    rig.run_ms(3000);
    assert!(rig.has(CLIENT, patient, 900_000));
    rig.expect_alive();
}

#[test]
fn what_cannot_be_pinned_says_why() {
    let mut rig = Rig::new(0);
    let id = rig.send(CLIENT, 10);
    let client = rig.client;
    let conn = rig.pair.conn(CLIENT, client);
    let pin = Some(Pin::to(PathId(0)));
    assert_eq!(conn.set_stream_path(id, pin), Err(PinError::NotNegotiated));
    let mut rig = Rig::two_paths();
    let id = rig.send(CLIENT, 10);
    let client = rig.client;
    let conn = rig.pair.conn(CLIENT, client);
    let pin = |n| Some(Pin::to(PathId(n)));
    assert_eq!(conn.set_stream_path(id, pin(7)), Err(PinError::UnknownPath));
    let no_stream = StreamId(id.0 + 400);
    assert_eq!(
        conn.set_stream_path(no_stream, pin(1)),
        Err(PinError::UnknownStream)
    );
    let on = |conn: &mut corelane::conn::Connection, path, len| {
        conn.send_datagram_on(Pin::only(PathId(path)), Bytes::from(vec![1; len]))
    };
    assert_eq!(on(conn, 7, 10), Err(DatagramError::Unsupported));
    assert!(matches!(on(conn, 1, 5000), Err(DatagramError::TooLarge(_))));
    // The queue is bounded, many small ones included.
    let mut taken = 0;
    while on(conn, 1, 1).is_ok() {
        taken += 1;
    }
    assert_eq!(
        (taken, on(conn, 0, 1)),
        ((1 << 20) / 65, Err(DatagramError::Full))
    );
}

#[test]
fn pinned_datagrams_go_by_their_path() {
    let mut rig = Rig::two_paths();
    rig.pair.sides[SERVER].app.take_datagrams = usize::MAX;
    rig.forget_traffic();
    let client = rig.client;
    let send = |rig: &mut Rig, pin: Pin, from: u8| {
        for n in from..from + 100 {
            let data = Bytes::from(vec![n; 1000]);
            rig.pair
                .conn(CLIENT, client)
                .send_datagram_on(pin, data)
                .unwrap();
        }
        rig.run_ms(1000);
    };
    send(&mut rig, Pin::only(PathId(1)), 0);
    assert!(rig.bytes_from(at(CLIENT_1)) > 100_000);
    assert!(rig.bytes_from(at(CLIENT_0)) < 20_000);
    send(&mut rig, Pin::only(PathId(0)), 100);
    assert!(rig.bytes_from(at(CLIENT_0)) > 100_000);
    let firsts: Vec<u8> = rig.pair.sides[SERVER]
        .app
        .datagrams
        .iter()
        .map(|d| d[0])
        .collect();
    assert_eq!(firsts, (0..200).collect::<Vec<u8>>());
    let conn = rig.pair.conn(CLIENT, client);
    assert_eq!(conn.stats().datagrams.tx, 200);
    // Without its path, a datagram goes another way or nowhere.
    rig.darken(at(CLIENT_1));
    let witness = pinned(&mut rig, Pin::to(PathId(1)), 100);
    rig.run_ms(1500);
    assert!(rig.has(CLIENT, witness, 100));
    let conn = rig.pair.conn(CLIENT, client);
    for pin in [Pin::to(PathId(1)), Pin::only(PathId(1))] {
        let data = Bytes::from_static(b"last");
        conn.send_datagram_on(pin, data).unwrap();
    }
    rig.run_ms(1000);
    assert_eq!(rig.pair.sides[SERVER].app.datagrams.len(), 201);
    rig.expect_alive();
}

/// What a controller saw.
#[derive(Debug, Default)]
struct Seen {
    told: Vec<String>,
    sent: [u64; 4],
    acked: [u64; 4],
    states: u64,
}

struct Everything(Arc<Mutex<Seen>>);

impl Everything {
    fn tell(&self, what: String) {
        self.0.lock().unwrap().told.push(what);
    }
}

impl PathController for Everything {
    fn path_registered(&mut self, path: PathId, tuple: FourTuple) {
        self.tell(format!("registered {path} {}", tuple.local.port()));
    }
    fn path_added(&mut self, path: PathId, tuple: FourTuple) {
        self.tell(format!("added {path} {}", tuple.local.port()));
    }
    fn path_validated(&mut self, path: PathId) {
        self.tell(format!("validated {path}"));
    }
    fn path_abandoned(&mut self, path: PathId, _: Code, by_peer: bool) {
        self.tell(format!("abandoned {path} {by_peer}"));
    }
    fn peer_status(&mut self, path: PathId, status: PathStatus) {
        self.tell(format!("status {path} {status:?}"));
    }
    fn packet_sent(&mut self, _: Timestamp, path: PathId, bytes: u64) {
        self.0.lock().unwrap().sent[path.0 as usize] += bytes;
    }
    fn packet_acked(&mut self, _: Timestamp, path: PathId, bytes: u64) {
        self.0.lock().unwrap().acked[path.0 as usize] += bytes;
    }
    fn state_updated(&mut self, _: Timestamp, state: &PathView) {
        assert!(state.has_rtt_sample || state.id != PathId(0));
        self.0.lock().unwrap().states += 1;
    }
    /// Everything by the second path, once there is one.
    fn select_path(&mut self, ctx: &SchedulerContext<'_>) -> Option<Decision> {
        ctx.path(PathId(1)).map(|p| match p.can_send(ctx.now) {
            true => Decision::Send(p.id),
            false => p.wait(),
        })
    }
}

#[test]
fn a_controller_sees_everything_and_chooses() {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let mut s = setup(4);
    let shared = seen.clone();
    s.client.multipath.controller = Some(PathControllers::new(move |_| {
        Some(Box::new(Everything(shared.clone())))
    }));
    let mut rig = Rig::with(s).and_second();
    rig.forget_traffic();
    rig.deliver(CLIENT, 500_000, 3000);
    assert!(rig.bytes_from(at(CLIENT_1)) > 500_000);
    assert!(rig.bytes_from(at(CLIENT_0)) < 20_000);
    let (now, server) = (rig.pair.now, rig.server);
    let conn = rig.pair.conn(SERVER, server);
    conn.set_path_status(PathId(0), PathStatus::Backup).unwrap();
    conn.close_path(now, PathId(1), Code::NO_ERROR).unwrap();
    rig.run_ms(500);
    rig.deliver(CLIENT, 100_000, 1000);
    let seen = seen.lock().unwrap();
    let order = [
        "registered 0 1000",
        "added 1 1001",
        "validated 1",
        "status 0 Backup",
        "abandoned 1 true",
    ];
    let told: Vec<&str> = seen.told.iter().map(String::as_str).collect();
    let (a, b) = (&told[..3], &mut told[3..].to_vec());
    b.sort_unstable();
    assert_eq!(a, &order[..3]);
    assert_eq!(b, &["abandoned 1 true", "status 0 Backup"]);
    for path in [0, 1] {
        let (sent, acked) = (seen.sent[path], seen.acked[path]);
        assert!(acked > 100_000 && acked <= sent, "{acked} of {sent}");
    }
    assert!(seen.states > 20);
    rig.expect_alive();
}

/// Sends again on the third path, and keeps the addresses that the peer names.
struct Third(Arc<Mutex<Vec<SocketAddr>>>);

impl PathController for Third {
    fn peer_address(&mut self, address: SocketAddr) {
        self.0.lock().unwrap().push(address);
    }
    fn target_selector(&mut self) -> Option<Box<dyn TargetSelector>> {
        Some(Box::new(Self(self.0.clone())))
    }
}

impl TargetSelector for Third {
    fn target(&mut self, _: &SchedulerContext<'_>, _: PathId) -> Option<PathId> {
        Some(PathId(2))
    }
}

#[test]
fn a_controller_hears_of_addresses_and_says_where_to_reinject() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let mut s = setup(4);
    for config in [&mut s.client, &mut s.server] {
        let allow = vec![("127.0.0.0".parse().unwrap(), 8)];
        config.multipath.addresses = Some(AddressConfig { allow });
    }
    s.client.multipath.reinjection = Some(ReinjectionConfig {
        delay: Some(Duration::from_millis(2)),
        ..ReinjectionConfig::default()
    });
    let shared = heard.clone();
    let make = move |_| Some(Box::new(Third(shared.clone())) as Box<dyn PathController>);
    s.client.multipath.controller = Some(PathControllers::new(make));
    let mut rig = Rig::with(s).and_second();
    let server = rig.server;
    let conn = rig.pair.conn(SERVER, server);
    conn.advertise_address(at(SERVER_1)).unwrap();
    rig.run_ms(100);
    assert_eq!(*heard.lock().unwrap(), [at(SERVER_1)]);
    let tuple = FourTuple::new(at(CLIENT_1), at(SERVER_1));
    let third = rig.open_over(1, tuple, PathStatus::Available).unwrap();
    rig.run_ms(300);
    rig.expect_open(third);
    rig.darken(at(CLIENT_0));
    rig.deliver(CLIENT, 60_000, 2000);
    let again = [0, 1, 2].map(|id| rig.info(CLIENT, PathId(id)).unwrap().counters);
    let again = again.map(|c| c.packets_reinjected);
    assert!(again[2] > 0 && again[..2] == [0, 0], "{again:?}");
    rig.expect_alive();
}
