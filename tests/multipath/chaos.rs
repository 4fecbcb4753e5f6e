//! Networks that no honest one is: most datagrams lost, late by seconds, copied, changed, sent
//! again from elsewhere, all paths dark at once; any scheduler, any policy, paths closed whatever
//! the other side thinks of them. Neither side ever blames the other, what was sent arrives once
//! the network is one again, and all is forgotten in the end. `CORELANE_SEEDS` as in `seeds`.

use crate::common::certs::Identity;
use crate::common::pair::{CLIENT, Pair, Passing, SERVER, Setup};
use crate::rig::*;
use bytes::Bytes;
use corelane::base::{FourTuple, Rng, SocketId, Timestamp};
use corelane::conn::{ConnectionError, PathInfo, TransportConfig};
use corelane::path::schedule::{Pin, SchedulerKind};
use corelane::path::{PathId, PathState, PathStatus};
use corelane::recovery::Algorithm;
use corelane::wire::{Code, StreamId};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the network does to a datagram, in thousandths.
#[derive(Clone, Default)]
struct Weather {
    loss: u64,
    copies: u64,
    late: u64,
    late_by: u64,
    flips: u64,
    /// Copies that seem to come from another address, ahead of the original.
    spoofed: u64,
    /// The port of the client's second address changes.
    rebound: u64,
    narrow: Option<(SocketAddr, usize)>,
    dark: Vec<SocketAddr>,
    deaf: Vec<SocketAddr>,
}

impl Weather {
    fn draw(rng: &mut Rng) -> Self {
        let mut some = |often: u64, most: u64| match rng.below(often) {
            0 => rng.below(most),
            _ => 0,
        };
        Self {
            loss: some(2, 450),
            copies: some(2, 300),
            late: some(2, 400),
            late_by: [3, 30, 300, 5000][some(1, 4) as usize],
            flips: some(4, 100),
            spoofed: some(4, 60),
            rebound: some(4, 100),
            narrow: None,
            dark: Vec::new(),
            deaf: Vec::new(),
        }
    }

    fn pass(&self, rng: &mut Rng, nat: &mut SocketAddr, mut p: Passing) -> Vec<Passing> {
        let inside = at(CLIENT_1);
        if p.to.ip() == inside.ip() {
            // Ports that the client had before lead to it, too: what a NAT has forgotten ends where
            // a client that only receives never speaks again.
            p.to = inside;
        }
        let gone = |a: &SocketAddr| self.dark.contains(a);
        if gone(&p.source) || gone(&p.to) || self.deaf.contains(&p.to) {
            return vec![];
        }
        let narrow = self.narrow.filter(|(from, _)| *from == p.source);
        if narrow.is_some_and(|(_, most)| p.bytes.len() > most) {
            return vec![];
        }
        if rng.below(1000) < self.loss {
            return vec![];
        }
        if p.source == inside {
            if rng.below(1000) < self.rebound {
                nat.set_port(20_000 + rng.below(20_000) as u16);
            }
            p.source = *nat;
        }
        let mut out = Vec::new();
        if p.from == CLIENT && rng.below(1000) < self.spoofed {
            let n = rng.below(200) as u8;
            let mut copy = copy_of(&p);
            copy.source = SocketAddr::from(([127, 7, 7, n], 4000 + u16::from(n)));
            out.push(copy);
        }
        if rng.below(1000) < self.copies {
            let mut copy = copy_of(&p);
            copy.now += Duration::from_millis(rng.below(2 * self.late_by));
            out.push(copy);
        }
        if rng.below(1000) < self.late {
            p.now += Duration::from_millis(rng.below(self.late_by));
        }
        if rng.below(1000) < self.flips && !p.bytes.is_empty() {
            let n = rng.below(p.bytes.len() as u64) as usize;
            p.bytes[n] ^= 1 << rng.below(8);
        }
        out.push(p);
        out
    }
}

fn copy_of(p: &Passing) -> Passing {
    let bytes = p.bytes.clone();
    Passing { bytes, ..*p }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn draw_config(rng: &mut Rng, seed: u64) -> TransportConfig {
    let mut c = config(2 + rng.below(7) as u32);
    c.max_idle_timeout = Duration::from_secs(600);
    c.congestion = [
        Algorithm::Cubic,
        Algorithm::NewReno,
        Algorithm::Bbr,
        Algorithm::Lia,
        Algorithm::Olia,
        Algorithm::Balia,
    ][rng.below(6) as usize];
    c.multipath.scheduler = match rng.below(8) {
        0 => SchedulerKind::RoundRobin,
        1 => SchedulerKind::LowLatency,
        2 => SchedulerKind::MinRtt { bias: 0.3 },
        3 => SchedulerKind::Ecf,
        4 => SchedulerKind::Blest,
        5 => SchedulerKind::Redundant { paths: u8::MAX },
        6 => SchedulerKind::Weighted(vec![(PathId(0), 3), (PathId(1), 1)]),
        _ => SchedulerKind::Backup,
    };
    c.multipath.failure.floor = ms(rng.below(500));
    c.multipath.failure.ptos = [None, Some(1), Some(2), Some(5)][rng.below(4) as usize];
    c.multipath.failure.abandon_after = match rng.below(3) {
        0 => Some(ms(rng.below(8000))),
        _ => None,
    };
    c.multipath.failure.probe_interval = ms(rng.below(3000));
    if rng.below(3) == 0 {
        c.key_update_packets = Some(1 + rng.below(60));
    }
    c.pacing = rng.below(4) > 0;
    c.ecn = rng.below(2) == 0;
    c.initial_rtt = ms([1, 50, 333, 2000][rng.below(4) as usize]);
    c.max_ack_delay = ms([1, 25, 200][rng.below(3) as usize]);
    c.keep_alive_interval = (rng.below(3) == 0).then(|| ms(100 + rng.below(5000)));
    crate::copies::draw(&mut c, seed);
    c
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    delivered: usize,
    ended: usize,
    opened: u64,
    abandoned: u64,
    moved: u64,
    updates: u64,
}

struct Run {
    rig: Rig,
    rng: Rng,
    weather: Arc<Mutex<Weather>>,
    sent: Vec<(usize, StreamId, usize)>,
    /// Either side gives paths up, or was told to: there may be none left.
    may_end: bool,
    outcome: Outcome,
}

impl Run {
    fn new(seed: u64, identity: &Identity) -> Self {
        let mut rng = Rng::from_u64(seed ^ 0x6368_616f_7300);
        let s = Setup {
            client: draw_config(&mut rng, seed),
            server: draw_config(&mut rng, !seed),
            seed,
        };
        let gives_up = |c: &TransportConfig| c.multipath.failure.abandon_after.is_some();
        let may_end = gives_up(&s.client) || gives_up(&s.server);
        let mut pair = Pair::with_identity(s, identity, |_| {}, |_| {});
        pair.delay = Duration::from_micros([10, 1000, 20_000, 120_000][rng.below(4) as usize]);
        let mut rig = Rig::from_pair(pair);
        let weather = Arc::new(Mutex::new(Weather::default()));
        let seen = weather.clone();
        let (mut nat, mut dice) = (at(CLIENT_1), Rng::from_u64(!seed));
        rig.pair.filter = Box::new(move |p| {
            let weather = seen.lock().expect("no panic");
            weather.pass(&mut dice, &mut nat, p)
        });
        Self {
            rig,
            rng,
            weather,
            sent: Vec::new(),
            may_end,
            outcome: Outcome::default(),
        }
    }

    fn side(&mut self) -> usize {
        self.rng.below(2) as usize
    }

    fn paths(&mut self, side: usize) -> Vec<PathInfo> {
        let id = self.rig.ids()[side];
        let paths = self.rig.pair.conn(side, id).paths();
        paths
            .filter(|p| !matches!(p.state, PathState::Abandoned(_)))
            .collect()
    }

    /// A path that is not the last, as far as this side knows: as the other sees it, it may be.
    fn some_path_to_close(&mut self, side: usize) -> Option<PathId> {
        let several = self.paths(side).len() > 1;
        self.may_end |= several;
        several.then(|| self.some_path(side)).flatten()
    }

    fn some_path(&mut self, side: usize) -> Option<PathId> {
        let paths = self.paths(side);
        let n = self.rng.below(paths.len().max(1) as u64) as usize;
        paths.get(n).map(|p| p.id)
    }

    fn change_weather(&mut self) {
        let rng = &mut self.rng;
        let addrs = [CLIENT_0, CLIENT_1, SERVER_0, SERVER_1].map(at);
        let one = addrs[rng.below(4) as usize];
        let mut w = self.weather.lock().expect("no panic");
        match rng.below(6) {
            0 => *w = Weather::draw(rng),
            1 => w.dark = vec![one],
            // Everything.
            2 => w.dark = addrs.to_vec(),
            3 => w.deaf = vec![one],
            4 => w.narrow = Some((one, 1200 + rng.below(100) as usize)),
            _ => {
                w.dark.clear();
                w.deaf.clear();
                w.narrow = None;
            }
        }
    }

    fn act(&mut self) {
        let side = self.side();
        let now = self.rig.pair.now;
        let status = [PathStatus::Available, PathStatus::Backup][self.side()];
        match self.rng.below(16) {
            0..=2 => self.open(status),
            3 | 4 => self.change_weather(),
            5 => {
                let Some(path) = self.some_path_to_close(side) else {
                    return;
                };
                self.conn(side, |c, _| {
                    let _ = c.close_path(now, path, Code::NO_ERROR);
                });
            }
            6 => {
                let Some(path) = self.some_path(side) else {
                    return;
                };
                self.conn(side, |c, _| {
                    let _ = c.set_path_status(path, status);
                });
            }
            7 => self.conn(side, |c, _| {
                c.update_keys();
            }),
            8 => self.migrate(now),
            9 => self.datagrams(side),
            10 => self.pinned(side),
            _ => {
                let bytes = 1 + self.rng.below(40_000) as usize;
                let id = self.rig.send(side, bytes);
                self.sent.push((side, id, bytes));
            }
        }
    }

    fn conn(&mut self, side: usize, act: impl FnOnce(&mut corelane::conn::Connection, Timestamp)) {
        let (now, id) = (self.rig.pair.now, self.rig.ids()[side]);
        act(self.rig.pair.conn(side, id), now);
    }

    fn open(&mut self, status: PathStatus) {
        let n = self.side();
        let local = at([CLIENT_0, CLIENT_1][n]);
        let remote = at([SERVER_0, SERVER_1][self.side()]);
        let tuple = FourTuple::new(local, remote);
        let _ = self.rig.open_over(n as u32, tuple, status);
    }

    fn migrate(&mut self, now: Timestamp) {
        let n = self.side();
        let local = at([CLIENT_0, CLIENT_1][n]);
        let Some(path) = self.some_path(CLIENT) else {
            return;
        };
        self.conn(CLIENT, |c, _| {
            if let Some(info) = c.path_info(path) {
                let tuple = FourTuple::new(local, info.tuple.remote);
                let _ = c.migrate_path(now, path, SocketId(n as u32), tuple);
            }
        });
    }

    fn datagrams(&mut self, side: usize) {
        let Some(path) = self.some_path(side) else {
            return;
        };
        self.conn(side, |c, _| {
            for n in 0..20u8 {
                let data = Bytes::from(vec![n; 1 + usize::from(n) * 40]);
                let _ = match n % 3 {
                    0 => c.send_datagram(data),
                    1 => c.send_datagram_on(Pin::to(path), data),
                    _ => c.send_duplicated_datagram(data),
                };
            }
        });
    }

    /// A stream that has a path of its own while that works, or a deadline.
    fn pinned(&mut self, side: usize) {
        let Some(path) = self.some_path(side) else {
            return;
        };
        let bytes = 1 + self.rng.below(40_000) as usize;
        let within = ms(self.rng.below(2000));
        let id = self.rig.send(side, bytes);
        self.sent.push((side, id, bytes));
        let pins = self.rng.below(2) == 0;
        self.conn(side, |c, now| {
            if pins {
                let _ = c.set_stream_path(id, Some(Pin::to(path)));
            } else {
                c.set_stream_deadline(id, Some(now + within));
                c.duplicate_stream(id, true);
            }
        });
    }

    /// How the connection ended, if it did; an error if it may not have.
    fn ended(&self) -> Result<bool, String> {
        let [a, b] = [CLIENT, SERVER].map(|side| self.rig.pair.closed(side));
        for why in [&a, &b].into_iter().flatten() {
            let fine = match why {
                ConnectionError::NoPath(_) => self.may_end,
                ConnectionError::ClosedByPeer { code, .. } => {
                    self.may_end && (*code == Code::NO_ERROR || code.0 == 0x3e76)
                }
                // The other side is gone without a word, or its word was lost.
                ConnectionError::TimedOut | ConnectionError::Reset => self.may_end,
                _ => false,
            };
            if !fine {
                return Err(format!("{a:?} {b:?} at {:?}", self.rig.pair.now));
            }
        }
        Ok(a.is_some() || b.is_some())
    }

    fn is_delivered(&self) -> bool {
        let mut sent = self.sent.iter();
        sent.all(|(side, id, bytes)| self.rig.has_exactly(*side, *id, *bytes))
    }

    fn go(mut self) -> Result<Outcome, String> {
        let mut over = false;
        for _ in 0..40 {
            self.act();
            let span = match self.rng.below(12) {
                0 => 1 + self.rng.below(15_000),
                _ => 1 + self.rng.below(200),
            };
            self.rig.run_ms(span);
            over = self.ended()?;
            if over {
                break;
            }
        }
        *self.weather.lock().expect("no panic") = Weather::default();
        for _ in 0..60 {
            if over || self.is_delivered() {
                break;
            }
            self.rig.run_ms(1000);
            over = self.ended()?;
        }
        if !over {
            self.settle()?;
        } else {
            self.outcome.ended = 1;
        }
        // Either side's draining lasts by its slowest path.
        for _ in 0..40 {
            self.rig.run_ms(60_000);
            let mut sides = self.rig.pair.sides.iter();
            if sides.all(|s| s.endpoint.is_empty() && s.endpoint.routes() == 0) {
                return Ok(self.outcome);
            }
        }
        Err("something is left".to_owned())
    }

    /// All arrived, and nothing is under way any more.
    fn settle(&mut self) -> Result<(), String> {
        if !self.is_delivered() {
            let rig = &self.rig;
            let missing = self.sent.iter();
            let missing: Vec<_> = missing
                .filter(|s| !rig.has_exactly(s.0, s.1, s.2))
                .collect();
            let n = missing.len();
            let sides = [CLIENT, SERVER].map(|side| self.paths(side));
            return Err(format!("{n} not delivered: {sides:#?}"));
        }
        self.outcome.delivered = self.sent.len();
        self.rig.run_ms(60_000);
        if self.ended()? {
            return Ok(());
        }
        for side in [CLIENT, SERVER] {
            let paths = self.paths(side);
            if let Some(p) = paths.iter().find(|p| p.stats.bytes_in_flight > 1500) {
                return Err(format!("side {side} does not come to rest: {p:#?}"));
            }
            let id = self.rig.ids()[side];
            let conn = self.rig.pair.conn(side, id);
            crate::copies::agreed(conn)?;
            let stats = conn.stats();
            self.outcome.opened += stats.paths_opened;
            self.outcome.abandoned += stats.paths_abandoned;
            self.outcome.moved += stats.migrations;
            self.outcome.updates += stats.key_updates;
            let counted: u64 = conn.paths().map(|p| p.counters.packets_lost).sum();
            if counted > stats.packets_lost {
                return Err(format!("side {side}: {counted} lost of {stats:?}"));
            }
        }
        self.conn(CLIENT, |c, now| c.close(now, 0, b""));
        Ok(())
    }
}

#[test]
fn chaos_is_survived() {
    let identity = Identity::fixed();
    let (mut sum, mut seeds) = (Outcome::default(), 0);
    for seed in crate::seeds::chosen(0..120) {
        let run = std::panic::AssertUnwindSafe(|| Run::new(seed, &identity).go());
        match std::panic::catch_unwind(run) {
            Ok(Ok(o)) => {
                sum.delivered += o.delivered;
                sum.ended += o.ended;
                sum.opened += o.opened;
                sum.abandoned += o.abandoned;
                sum.moved += o.moved;
                sum.updates += o.updates;
            }
            Ok(Err(why)) => panic!("CORELANE_SEEDS={seed}: {why}"),
            Err(_) => panic!("CORELANE_SEEDS={seed}"),
        }
        seeds += 1;
    }
    let much = sum.delivered > 4 * seeds && sum.ended < seeds * 2 / 3;
    let much = much && sum.opened > 200 && sum.abandoned > 100;
    let much = much && sum.moved > 100 && sum.updates > 200;
    assert!(seeds < 100 || much, "too little happened: {sum:?}");
}
