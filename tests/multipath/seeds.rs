//! Random paths from seeds: opened, closed, rebound, re-ranked, gone dark for a while, under loss,
//! reordering and key updates. Everything is delivered once and all is forgotten in the end; a
//! failure names its seed. `CORELANE_SEEDS=first..last` runs others, `CORELANE_SEEDS=n` one.

use crate::common::certs::Identity;
use crate::common::pair::{CLIENT, Pair, SERVER};
use crate::rig::*;
use corelane::base::{FourTuple, Rng};
use corelane::conn::PathInfo;
use corelane::path::{PathId, PathState, PathStatus};
use corelane::wire::{Code, StreamId};
use std::ops::Range;

/// The seeds of an ordinary run.
const SEEDS: Range<u64> = 0..2000;

fn seeds() -> Range<u64> {
    chosen(SEEDS)
}

/// The seeds that the environment names, or those of an ordinary run.
pub fn chosen(usual: Range<u64>) -> Range<u64> {
    let Ok(text) = std::env::var("CORELANE_SEEDS") else {
        return usual;
    };
    let number = |s: &str| s.parse::<u64>().expect("n or first..last");
    match text.split_once("..") {
        Some((first, last)) => number(first)..number(last),
        None => number(&text)..number(&text) + 1,
    }
}

/// What a run came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    opened: u32,
    closed: u32,
    moved: u64,
    updates: u64,
    datagrams: u64,
    copied: u64,
}

struct Run {
    rig: Rig,
    rng: Rng,
    sent: Vec<(usize, StreamId, usize)>,
    dark_for: u64,
    outcome: Outcome,
}

impl Run {
    fn new(seed: u64, identity: &Identity) -> Self {
        let mut rng = Rng::from_u64(seed);
        let mut s = setup(2 + rng.below(6) as u32);
        s.seed = seed;
        for config in [&mut s.client, &mut s.server] {
            if rng.below(2) == 0 {
                config.key_update_packets = Some(20 + rng.below(200));
            }
            crate::copies::draw(config, !seed ^ u64::from(config.max_paths));
        }
        let mut pair = Pair::with_identity(s, identity, |_| {}, |_| {});
        pair.delay = std::time::Duration::from_millis(1 + rng.below(40));
        let rig = Rig::from_pair(pair);
        rig.trouble([0, 10, 30, 100][rng.below(4) as usize]);
        Self {
            rig,
            rng,
            sent: Vec::new(),
            dark_for: 0,
            outcome: Outcome::default(),
        }
    }

    /// The paths that a side uses.
    fn in_use(&mut self, side: usize) -> Vec<(PathId, PathState)> {
        let id = self.rig.ids()[side];
        let paths = self.rig.pair.conn(side, id).paths();
        let mut paths: Vec<_> = paths.map(|p| (p.id, p.state)).collect();
        paths.retain(|(_, state)| !matches!(state, PathState::Abandoned(_)));
        paths
    }

    fn step(&mut self) {
        let ms = 1 + self.rng.below(150);
        self.rig.run_ms(ms);
        if self.dark_for > 0 {
            self.dark_for = self.dark_for.saturating_sub(ms);
            if self.dark_for == 0 {
                self.rig.lighten();
            }
        }
        match self.rng.below(8) {
            0 | 1 => self.open(),
            2 => self.close(),
            3 => self.restatus(),
            4 if self.dark_for == 0 => {
                let inside = at([CLIENT_0, CLIENT_1][self.rng.below(2) as usize]);
                self.rig.rebind(inside, 3000 + self.rng.below(9) as u16);
            }
            5 if self.dark_for == 0 => {
                let addr = [CLIENT_0, CLIENT_1, SERVER_1][self.rng.below(3) as usize];
                self.rig.darken(at(addr));
                self.dark_for = 1 + self.rng.below(1000);
            }
            6 => {
                let side = self.rng.below(2) as usize;
                let id = self.rig.ids()[side];
                self.rig.pair.conn(side, id).update_keys();
            }
            _ => {
                let side = self.rng.below(2) as usize;
                let bytes = 1 + self.rng.below(150_000) as usize;
                let id = self.rig.send(side, bytes);
                self.sent.push((side, id, bytes));
            }
        }
    }

    fn open(&mut self) {
        let n = self.rng.below(2);
        let local = at([CLIENT_0, CLIENT_1][n as usize]);
        let remote = at([SERVER_0, SERVER_1][self.rng.below(2) as usize]);
        let status = [PathStatus::Available, PathStatus::Backup][self.rng.below(2) as usize];
        let tuple = FourTuple::new(local, remote);
        let opened = self.rig.open_over(n as u32, tuple, status);
        self.outcome.opened += u32::from(opened.is_ok());
    }

    fn close(&mut self) {
        let both = [CLIENT, SERVER].map(|side| self.in_use(side));
        let open = both[0].iter().all(|(_, state)| *state == PathState::Open);
        if both[0] != both[1] || !open || both[0].len() < 2 {
            return;
        }
        let id = both[0][self.rng.below(both[0].len() as u64) as usize].0;
        let side = self.rng.below(2) as usize;
        let (now, conn) = (self.rig.pair.now, self.rig.ids()[side]);
        let conn = self.rig.pair.conn(side, conn);
        conn.close_path(now, id, Code::NO_ERROR).expect("open");
        self.outcome.closed += 1;
    }

    fn restatus(&mut self) {
        let side = self.rng.below(2) as usize;
        let paths = self.in_use(side);
        let id = paths[self.rng.below(paths.len() as u64) as usize].0;
        let status = [PathStatus::Available, PathStatus::Backup][self.rng.below(2) as usize];
        let conn = self.rig.ids()[side];
        let conn = self.rig.pair.conn(side, conn);
        conn.set_path_status(id, status).expect("in use");
    }

    fn is_delivered(&self) -> bool {
        let mut sent = self.sent.iter();
        sent.all(|(side, id, bytes)| self.rig.has_exactly(*side, *id, *bytes))
    }

    fn go(mut self) -> Result<Outcome, String> {
        for _ in 0..25 {
            self.step();
            for side in [CLIENT, SERVER] {
                if let Some(why) = self.rig.pair.closed(side) {
                    return Err(format!("side {side} is closed: {why}"));
                }
            }
        }
        self.rig.lighten();
        self.rig.trouble(0);
        for _ in 0..200 {
            self.rig.run_ms(100);
            if self.is_delivered() {
                break;
            }
        }
        if !self.is_delivered() {
            let missing = self
                .sent
                .iter()
                .filter(|s| !self.rig.has_exactly(s.0, s.1, s.2));
            return Err(format!("not delivered: {:?}", missing.collect::<Vec<_>>()));
        }
        // Long enough for a few probe timeouts of a path that has not measured its round trip.
        self.rig.run_ms(15_000);
        let ids = self.rig.ids();
        for (side, id) in ids.into_iter().enumerate() {
            let conn = self.rig.pair.conn(side, id);
            let in_use = |p: &PathInfo| !matches!(p.state, PathState::Abandoned(_));
            let mut paths = conn.paths().filter(in_use);
            if let Some(p) = paths.find(|p| p.stats.bytes_in_flight > 0) {
                return Err(format!("side {side} does not come to rest: {p:?}"));
            }
            drop(paths);
            self.outcome.copied += crate::copies::agreed(conn)?;
            let stats = conn.stats();
            self.outcome.moved += stats.migrations;
            self.outcome.updates += stats.key_updates;
            self.outcome.datagrams += stats.udp_datagrams_sent;
        }
        let now = self.rig.pair.now;
        self.rig.pair.conn(CLIENT, ids[CLIENT]).close(now, 0, b"");
        self.rig.run_ms(60_000);
        for side in &self.rig.pair.sides {
            if !side.endpoint.is_empty() || side.endpoint.routes() > 0 {
                return Err("something is left".to_owned());
            }
        }
        Ok(self.outcome)
    }
}

#[test]
fn everything_is_delivered_whatever_becomes_of_paths() {
    let identity = Identity::fixed();
    let mut sum = Outcome::default();
    for seed in seeds() {
        match Run::new(seed, &identity).go() {
            Ok(o) => {
                sum.opened += o.opened;
                sum.closed += o.closed;
                sum.moved += o.moved;
                sum.updates += o.updates;
                sum.copied += o.copied;
            }
            Err(why) => panic!("CORELANE_SEEDS={seed}: {why}"),
        }
    }
    let many = seeds().count() > 100;
    let all = sum.opened > 100 && sum.closed > 50 && sum.moved > 50 && sum.updates > 100;
    let all = all && sum.copied > 1000;
    assert!(!many || all, "too little happened: {sum:?}");
}

#[test]
fn a_seed_repeats_exactly() {
    let identity = Identity::fixed();
    for seed in 0..10 {
        let [a, b] = [(), ()].map(|()| Run::new(seed, &identity).go());
        assert_eq!(a, b, "seed {seed}");
    }
}
