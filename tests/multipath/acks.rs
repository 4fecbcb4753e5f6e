//! What a connection of several paths asks of the peer's acknowledgements: one sequence of
//! requests, of which each suits the path that needs acknowledgements soonest.

use crate::common::pair::{CLIENT, SERVER};
use crate::rig::*;
use bytes::Bytes;
use corelane::base::Timestamp;
use corelane::conn::observe::{Observed, Observer, Observers};
use corelane::path::{PathId, PathStatus};
use corelane::wire::frame::{AckFrequency, Frame};
use corelane::wire::{Code, Dir, StreamId};
use std::sync::{Arc, Mutex};

type Requests = Arc<Mutex<Vec<AckFrequency>>>;

/// Keeps the ACK_FREQUENCY frames that are sent.
struct Listener(Requests);

impl Observer for Listener {
    fn observe(&mut self, _: Timestamp, event: &Observed<'_>) {
        if let Observed::PacketSent(packet) = event {
            for f in packet.frames() {
                if let Frame::AckFrequency(f) = f {
                    self.0.lock().expect("no panic").push(f);
                }
            }
        }
    }
}

/// A connection whose client sends without end, and what it asks.
struct Course {
    rig: Rig,
    requests: Requests,
    stream: StreamId,
}

impl Course {
    /// With one path, which loses a datagram of a hundred: slow start ends.
    fn new() -> Self {
        let requests = Requests::default();
        let kept = requests.clone();
        let mut setup = setup(4);
        setup.client.observers = Some(Observers::new(move |_| {
            Some(Box::new(Listener(kept.clone())) as Box<dyn Observer>)
        }));
        let mut rig = Rig::with(setup);
        rig.lose(at(CLIENT_0), 1);
        let client = rig.client;
        let streams = rig.pair.conn(CLIENT, client).streams_mut();
        let stream = streams.open(Dir::Uni).expect("a stream");
        Self {
            rig,
            requests,
            stream,
        }
    }

    fn run_ms(&mut self, ms: u64) {
        let client = self.rig.client;
        for _ in 0..ms.div_ceil(5) {
            let streams = self.rig.pair.conn(CLIENT, client).streams_mut();
            let data = Bytes::from(vec![7; 1_000_000]);
            streams.write_bytes(self.stream, data).expect("open");
            self.rig.run_ms(5);
        }
    }

    fn last(&self) -> Option<AckFrequency> {
        self.requests.lock().expect("no panic").last().copied()
    }

    /// Runs until the newest request says something.
    #[track_caller]
    fn expect(&mut self, what: impl Fn(&AckFrequency) -> bool) {
        for _ in 0..1000 {
            if self.last().is_some_and(|f| what(&f)) {
                return;
            }
            self.run_ms(5);
        }
        panic!("{:?}", self.requests.lock().expect("no panic"));
    }

    /// Acknowledgements that the server has sent, and packets that it has received.
    fn acks_of_packets(&mut self) -> [u64; 2] {
        let server = self.rig.server;
        let stats = self.rig.pair.conn(SERVER, server).stats();
        [stats.acks_sent, stats.packets_received]
    }
}

#[track_caller]
fn expect_one_sequence(requests: &Requests) {
    let requests = requests.lock().expect("no panic");
    let numbers: Vec<u64> = requests.iter().map(|f| f.seq).collect();
    let expected: Vec<u64> = (0..requests.len() as u64).collect();
    assert_eq!(numbers, expected);
}

/// ACK frequency §4: the frame is about the whole connection. While a second path is in slow start
/// every second packet is acknowledged, whatever the first would do with.
#[test]
fn requests_suit_the_path_that_needs_acknowledgements_soonest() {
    let mut c = Course::new();
    c.expect(|f| f.threshold > 1);
    c.rig.lose(at(CLIENT_0), 0);
    c.expect(|f| f.threshold >= 4);
    let second = c.rig.open(PathStatus::Available).expect("opens");
    c.expect(|f| f.threshold == 1);
    c.rig.expect_open(second);
    // It leaves slow start at its first loss, and then needs no more of them than the other.
    c.rig.lose(at(CLIENT_1), 1);
    c.expect(|f| f.threshold > 1);
    expect_one_sequence(&c.requests);
    c.rig.expect_alive();
}

/// The numbers go on where the path ends that carried the first requests.
#[test]
fn requests_outlive_the_first_path() {
    let mut c = Course::new();
    c.expect(|f| f.threshold > 1);
    c.rig.open(PathStatus::Available).expect("opens");
    c.run_ms(100);
    let (now, client) = (c.rig.pair.now, c.rig.client);
    let conn = c.rig.pair.conn(CLIENT, client);
    let closed = conn.close_path(now, PathId::ZERO, Code::APPLICATION_ABANDON_PATH);
    assert_eq!(closed, Ok(()));
    c.expect(|f| f.threshold == 1);
    c.rig.lose(at(CLIENT_1), 1);
    c.expect(|f| f.threshold > 1);
    expect_one_sequence(&c.requests);
    let before = c.acks_of_packets();
    c.run_ms(100);
    let after = c.acks_of_packets();
    let [acks, packets] = [0, 1].map(|n| after[n] - before[n]);
    assert!(packets > 50 && acks * 3 < packets, "{acks} of {packets}");
    c.rig.expect_alive();
}
