//! What paths count adds up: every byte that was in flight is acknowledged, lost or still in
//! flight, as the controller hears of it and as the counters have it, whatever was lost, copied,
//! reinjected or abandoned.

use crate::common::pair::{CLIENT, Pair, SERVER};
use crate::rig::*;
use corelane::base::Timestamp;
use corelane::conn::multipath::{PathController, PathControllers};
use corelane::conn::{PathEvent, PathInfo};
use corelane::path::duplicate::DuplicationConfig;
use corelane::path::reinject::ReinjectionConfig;
use corelane::path::{PathCounters, PathId};
use corelane::wire::Code;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Bytes of a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    sent: u64,
    acked: u64,
    lost: u64,
}

/// Adds up what it hears.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<BTreeMap<PathId, Told>>>);

impl Ledger {
    fn of(&self, id: PathId) -> Told {
        *self.0.lock().unwrap().entry(id).or_default()
    }
}

impl PathController for Ledger {
    fn packet_sent(&mut self, _: Timestamp, path: PathId, bytes: u64) {
        self.0.lock().unwrap().entry(path).or_default().sent += bytes;
    }
    fn packet_acked(&mut self, _: Timestamp, path: PathId, bytes: u64) {
        self.0.lock().unwrap().entry(path).or_default().acked += bytes;
    }
    fn packet_lost(&mut self, _: Timestamp, path: PathId, bytes: u64) {
        self.0.lock().unwrap().entry(path).or_default().lost += bytes;
    }
}

/// Two paths, each side with a ledger, under copies and reinjection; the second path carries no
/// datagram above 1,300 bytes, so that probes of larger ones are lost there.
fn kept() -> (Rig, [Ledger; 2]) {
    let ledgers = [Ledger::default(), Ledger::default()];
    let mut s = setup(4);
    for (config, ledger) in [&mut s.client, &mut s.server].into_iter().zip(&ledgers) {
        let ledger = ledger.clone();
        let make = move |_| Some(Box::new(ledger.clone()) as Box<dyn PathController>);
        config.multipath.controller = Some(PathControllers::new(make));
        config.multipath.duplication = Some(DuplicationConfig {
            all: true,
            permille: 300,
            ..DuplicationConfig::default()
        });
        config.multipath.reinjection = Some(ReinjectionConfig::default());
    }
    let rig = Rig::with(s);
    rig.shrink(at(CLIENT_1), 1300);
    let mut rig = rig.and_second();
    rig.run_ms(500);
    (rig, ledgers)
}

/// What was there before the ledger counts: the handshake's.
type Base = [BTreeMap<PathId, (Told, PathInfo)>; 2];

fn base(rig: &mut Rig, ledgers: &[Ledger; 2]) -> Base {
    [CLIENT, SERVER].map(|side| {
        let conn = rig.ids()[side];
        let paths: Vec<_> = rig.pair.conn(side, conn).paths().collect();
        let each = paths.into_iter();
        each.map(|p| (p.id, (ledgers[side].of(p.id), p))).collect()
    })
}

/// Each path adds up.
#[track_caller]
fn expect_balance(rig: &mut Rig, ledgers: &[Ledger; 2], base: &Base) {
    for side in [CLIENT, SERVER] {
        let conn = rig.ids()[side];
        let conn = rig.pair.conn(side, conn);
        let paths: Vec<_> = conn.past_paths().chain(conn.paths()).collect();
        for info in paths {
            let now = ledgers[side].of(info.id);
            let (then, before) = base[side][&info.id];
            let (sent, acked) = (now.sent - then.sent, now.acked - then.acked);
            let lost = now.lost - then.lost;
            let (c, b): (PathCounters, PathCounters) = (info.counters, before.counters);
            let what = format!("side {side}: {now:?} after {then:?}, {info:?}");
            let flight = before.stats.bytes_in_flight + sent;
            assert_eq!(flight, acked + lost + info.stats.bytes_in_flight, "{what}");
            assert_eq!(c.bytes_acked - b.bytes_acked, acked, "{what}");
            assert!(
                c.packets_acked + c.packets_lost <= info.packets_sent,
                "{what}"
            );
            // Probes of the datagram size are no loss of the path.
            assert_eq!(c.packets_lost == 0, c.bytes_lost == 0, "{what}");
            assert!(c.bytes_lost <= c.packets_lost * 1452, "{what}");
            assert!(c.bytes_lost - b.bytes_lost <= lost, "{what}");
        }
    }
}

#[test]
fn bytes_in_flight_are_acknowledged_lost_or_still_there() {
    let (mut rig, ledgers) = kept();
    let base = base(&mut rig, &ledgers);
    for side in [CLIENT, SERVER] {
        let lost = rig.info(side, PathId(1)).unwrap().counters;
        assert_eq!((lost.packets_lost, lost.bytes_lost), (0, 0), "{lost:?}");
    }
    let probes: u64 = [0, 1]
        .map(|side| ledgers[side].of(PathId(1)).lost)
        .iter()
        .sum();
    assert!(probes > 1300, "probes are lost, and told of");
    rig.trouble(30);
    for round in 0..60 {
        if round % 10 == 0 {
            rig.send(CLIENT, 300_000);
            rig.send(SERVER, 300_000);
        }
        rig.run_ms(37);
        expect_balance(&mut rig, &ledgers, &base);
    }
    let lost = rig.info(CLIENT, PathId(0)).unwrap().counters.packets_lost;
    assert!(lost > 0, "there was loss to count");
    rig.expect_alive();
}

/// Multipath §3.4.3: what an abandoned path has in flight when it is forgotten counts as lost. It
/// was abandoned before anything said that it may have failed, and nothing says so afterwards.
#[test]
fn a_path_that_is_forgotten_leaves_nothing_in_flight() {
    let (mut rig, ledgers) = kept();
    let base = base(&mut rig, &ledgers);
    let stream = rig.send(CLIENT, 400_000);
    rig.run_ms(8);
    rig.darken(at(CLIENT_1));
    let before = loop {
        rig.run_ms(1);
        let info = rig.info(CLIENT, PathId(1)).unwrap();
        if info.pto_count > 0 {
            break info;
        }
    };
    // One probe timeout is no failure.
    assert_eq!(
        (before.potentially_failed, before.counters.failures),
        (false, 0)
    );
    assert!(before.stats.bytes_in_flight > 0, "{before:?}");
    let (now, client) = (rig.pair.now, rig.client);
    let conn = rig.pair.conn(CLIENT, client);
    conn.close_path(now, PathId(1), Code::NO_ERROR).unwrap();
    rig.run_ms(5000);
    assert!(rig.has(CLIENT, stream, 400_000));
    expect_balance(&mut rig, &ledgers, &base);
    let past: Vec<_> = rig.pair.conn(CLIENT, client).past_paths().collect();
    let gone = past.first().expect("it is forgotten");
    assert_eq!((gone.id, gone.stats.bytes_in_flight), (PathId(1), 0));
    assert!(gone.counters.packets_lost > before.counters.packets_lost);
    assert_eq!(gone.counters.failures, 0);
    assert!(!rig.saw(CLIENT, PathEvent::PotentiallyFailed(PathId(1))));
    rig.expect_alive();
}

/// What the handshake loses is none of the packets that a path counts as sent.
#[test]
fn losses_of_the_handshake_are_not_the_paths() {
    let mut pair = Pair::new(setup(4));
    let mut first = true;
    pair.filter = Box::new(
        move |p| match p.from == SERVER && std::mem::take(&mut first) {
            true => vec![],
            false => vec![p],
        },
    );
    let client = pair.connect();
    pair.run(Duration::from_secs(5));
    let server = *pair.sides[SERVER].app.accepted.last().expect("accepted");
    let mut rig = Rig::around(pair, client, server);
    let lost = rig.pair.conn(SERVER, server).stats().packets_lost;
    let counters = rig.info(SERVER, PathId(0)).unwrap().counters;
    assert!(
        lost > 0 && counters.packets_lost == 0,
        "{lost} {counters:?}"
    );
    assert_eq!(counters.bytes_lost, 0);
}
