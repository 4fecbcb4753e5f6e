//! A hostile peer that says anything: frames about paths with random values in random order, sealed
//! by it, on any path, from any address, to either side. Nothing panics, what is kept is bounded,
//! and in the end all is forgotten; a failure names its seed. `CORELANE_SEEDS` as in `seeds`.

use crate::common::attack::Plan;
use crate::common::counting::live;
use crate::common::raw_peer::{payload, stream_frame};
use crate::scripted::*;
use corelane::base::{FourTuple, Rng, SocketId, limits};
use corelane::conn::AddressConfig;
use corelane::path::{PathId, PathState, PathStatus};
use corelane::wire::frame::{self, AddAddress, AddressFrame, Frame, NewConnectionId, PathFrame};
use corelane::wire::{Code, ConnectionId, Dir};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// What one connection may hold after all of it, in bytes: its windows, sixteen paths, its events.
const MOST: isize = 8 << 20;

fn plan_of(seed: u64, rng: &mut Rng) -> Plan {
    let mut plan = plan();
    plan.seed = seed;
    plan.transport.max_paths = 2 + rng.below(7) as u32;
    plan.transport.glitches = None;
    plan.transport.multipath.addresses = Some(AddressConfig::default());
    plan.transport.multipath.auto_paths = (rng.below(2) == 0).then_some(4);
    plan.params.initial_max_path_id = Some(PathId(rng.below(9) as u32));
    plan.params.advertise_addresses = rng.below(2) == 0;
    crate::copies::draw(&mut plan.transport, seed);
    plan
}

struct Noise {
    s: Several,
    rng: Rng,
    /// One value in so many is wild; 0 for none.
    wild: u64,
    /// The next number of a connection ID of ours, by path.
    seqs: Vec<u64>,
    /// Challenges that wait for an answer, and packets that may be sent again.
    asked: VecDeque<(u32, [u8; 8])>,
    old: VecDeque<Vec<u8>>,
    sent: u64,
}

impl Noise {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::from_u64(seed ^ 0x6e6f_6973_6500);
        let plan = plan_of(seed, &mut rng);
        let s = match rng.below(2) {
            0 => Several::server(plan),
            _ => Several::client(plan),
        };
        let wild = [0, 0, 2000, 300, 20][rng.below(5) as usize];
        Self {
            s,
            rng,
            wild,
            seqs: vec![0; 64],
            asked: VecDeque::new(),
            old: VecDeque::new(),
            sent: 0,
        }
    }

    fn is_wild(&mut self) -> bool {
        self.wild > 0 && self.rng.below(self.wild) == 0
    }

    /// `n` and below, or anything at all.
    fn value(&mut self, n: u64) -> u64 {
        if !self.is_wild() {
            return self.rng.below(n + 1);
        }
        let edge = [
            0,
            63,
            16_383,
            (1 << 30) - 1,
            u32::MAX.into(),
            1 << 32,
            (1 << 62) - 1,
        ];
        match self.rng.below(2) {
            0 => edge[self.rng.below(edge.len() as u64) as usize],
            _ => self.rng.below(1 << 62),
        }
    }

    fn path(&mut self) -> PathId {
        let most = self.limit();
        PathId(self.value(most.into()) as u32)
    }

    /// The largest identifier that the endpoint has named, or may soon.
    fn limit(&self) -> u32 {
        let named = self.s.cids.keys().map(|(path, _)| *path).max();
        named.unwrap_or(0)
    }

    fn frame(&mut self) -> Vec<u8> {
        let path = self.path();
        let frame = match self.rng.below(22) {
            0 if self.rng.below(4) == 0 => PathFrame::Abandon {
                path,
                error: Code(self.value(5)),
            },
            2 | 3 => PathFrame::Status {
                path,
                status: [PathStatus::Available, PathStatus::Backup][self.rng.below(2) as usize],
                seq: self.value(1000),
            },
            4..=6 => return self.new_cid(path),
            7 => {
                // One that is not in use, as far as this peer knows.
                let own = self.s.cids.range((path.0, 0)..=(path.0, u64::MAX));
                let spare = own.skip(1).last().map(|(key, _)| key.1);
                match spare.filter(|_| self.rng.below(3) == 0) {
                    Some(seq) => PathFrame::RetireConnectionId { path, seq },
                    None => return vec![1],
                }
            }
            8 => PathFrame::MaxPathId(PathId((8 + self.value(40)) as u32)),
            9 => PathFrame::PathsBlocked(path),
            10 => {
                let own = self.s.cids.range((path.0, 0)..=(path.0, u64::MAX));
                let next_seq = own.last().map_or(0, |(key, _)| key.1);
                let next_seq = if self.is_wild() {
                    self.value(9)
                } else {
                    next_seq
                };
                PathFrame::CidsBlocked { path, next_seq }
            }
            11 | 12 => {
                let ranges = match self.is_wild() {
                    true => vec![0..=self.value(50)],
                    false => self.s.ranges(path.0),
                };
                return match ranges.is_empty() || path == PathId(0) {
                    true => vec![1],
                    false => path_ack(path.0, &ranges),
                };
            }
            13 => return payload(|w| frame::write_path_challenge(w, &self.rng.array())),
            14 => {
                let data = self.rng.array();
                return payload(|w| frame::write_path_response(w, &data));
            }
            15 => {
                let (id, at) = (self.rng.below(10), self.rng.below(5000));
                let id = id * 4 + u64::from(self.s.a.side() == corelane::wire::Side::Client);
                return stream_frame(id, at, &[3; 60], false);
            }
            16 => return self.address(path),
            17 if self.is_wild() => {
                let mut noise = vec![0; 1 + self.rng.below(40) as usize];
                self.rng.fill(&mut noise);
                return noise;
            }
            18 => return vec![0; 1 + self.rng.below(1100) as usize],
            _ => return vec![1],
        };
        bytes(&frame)
    }

    fn new_cid(&mut self, path: PathId) -> Vec<u8> {
        let (path, wild) = (path.0, self.is_wild());
        let Some(next) = self.seqs.get_mut(path as usize).filter(|_| !wild) else {
            let seq = self.value(20);
            let new = NewConnectionId {
                seq,
                retire_prior_to: self.rng.below(seq + 1),
                cid: ConnectionId::new(&self.rng.array::<9>()).expect("9 bytes"),
                reset_token: self.rng.array(),
            };
            let path = PathId(path);
            return bytes(&PathFrame::NewConnectionId { path, new });
        };
        if path == 0 && *next == 0 {
            *next = 1;
        }
        let seq = *next;
        *next += 1;
        new_cid(path, seq, seq.saturating_sub(2 + self.rng.below(2)))
    }

    fn address(&mut self, path: PathId) -> Vec<u8> {
        if !self.s.a.connection().advertises_addresses() && !self.is_wild() {
            return vec![1];
        }
        let addr = SocketAddr::from(([127, 9, 9, self.rng.below(250) as u8], 4433));
        let frame = match self.rng.below(6) {
            0 => AddressFrame::ClosePath {
                path,
                error: Code::NO_ERROR,
                reason: b"so",
            },
            1 => AddressFrame::Paths {
                available: self.value(9),
                active: self.value(9),
            },
            _ => AddressFrame::AddAddress(AddAddress {
                id: self.value(30),
                seq: self.value(100_000),
                addr,
            }),
        };
        payload(|w| frame.write(w))
    }

    fn from(&mut self) -> SocketAddr {
        if self.s.a.side() == corelane::wire::Side::Client && self.rng.below(10) > 0 {
            return self.s.a.peer_addr;
        }
        match self.rng.below(12) {
            0 => SocketAddr::from(([127, 5, 0, self.rng.below(99) as u8], 5000)),
            n if n % 3 == 1 => second(),
            n if n % 3 == 2 => SocketAddr::from(([127, 0, 0, 3], 1002)),
            _ => self.s.a.peer_addr,
        }
    }

    fn packet(&mut self) {
        let mut frames = Vec::new();
        for _ in 0..1 + self.rng.below(6) {
            frames.extend(self.frame());
        }
        if let Some((path, data)) = self.asked.pop_front().filter(|_| self.rng.below(4) > 0) {
            let answer = payload(|w| frame::write_path_response(w, &data));
            self.one(path, &answer);
        }
        frames.truncate(1400);
        let n = self.rng.below(self.s.cids.len() as u64 + 3);
        let path = self.s.cids.keys().nth(n as usize).map_or(0, |key| key.0);
        self.one(path, &frames);
    }

    fn one(&mut self, path: u32, frames: &[u8]) {
        if self.rng.below(20) == 0 {
            let numbers = self.rng.below(300);
            self.s.skip(path, numbers);
        }
        let known = path == 0 || self.s.cids.keys().any(|key| key.0 == path);
        if !known {
            return;
        }
        let packet = self.s.packet(path, frames);
        self.sent += 1;
        let from = self.from();
        if self.rng.below(10) > 0 {
            self.s.a.deliver(from, &packet);
        }
        self.old.push_back(packet);
        if self.old.len() > 20 {
            self.old.pop_front();
        }
    }

    /// What the endpoint's application does meanwhile.
    fn application(&mut self) {
        let path = PathId(self.rng.below(9) as u32);
        let (now, addr, peer) = (self.s.a.now, self.s.a.addr, self.s.a.peer_addr);
        let kind = self.rng.below(14);
        let backup = self.rng.below(2) == 0;
        let port = 7000 + self.rng.below(3) as u16;
        let conn = self.s.a.connection();
        match kind {
            0 | 1 => {
                let tuple = FourTuple::new(addr, peer);
                let _ = conn.open_path(now, SocketId(0), tuple, PathStatus::Available);
            }
            2 => {
                let _ = conn.close_path(now, path, Code::NO_ERROR);
            }
            3 => {
                let status = [PathStatus::Available, PathStatus::Backup][usize::from(backup)];
                let _ = conn.set_path_status(path, status);
            }
            4 => {
                conn.update_keys();
            }
            5 => {
                let tuple = FourTuple::new(SocketAddr::new(addr.ip(), port), peer);
                let _ = conn.migrate_path(now, path, SocketId(0), tuple);
            }
            6 | 7 => {
                let streams = conn.streams_mut();
                if let Ok(id) = streams.open(Dir::Uni) {
                    let _ = streams.write(id, &[4; 20_000]);
                    let _ = streams.finish(id);
                }
            }
            8 if self.rng.below(4) == 0 => {
                // One packet at least is of the keys before.
                self.one(0, &[1]);
                self.s.a.peer.force_key_update(now);
            }
            9 => {
                if let Some(packet) = self.old.front().cloned() {
                    let from = self.from();
                    self.s.a.deliver(from, &packet);
                }
            }
            _ => {}
        }
    }

    fn read(&mut self) {
        self.s.a.collect();
        for (path, packet) in self.s.read() {
            for f in packet.frames() {
                if let Frame::PathChallenge(data) = f {
                    self.asked.push_back((path, data));
                }
            }
        }
        self.asked.truncate(20);
        if self.rng.below(3) > 0 && self.s.a.closed().is_none() {
            self.s.a.ack_all();
        }
        self.s.a.datagrams = Vec::new();
        let keep = |e: &corelane::conn::Event| matches!(e, corelane::conn::Event::Closed(_));
        self.s.a.events.retain(keep);
    }

    fn check(&mut self) -> Result<(), String> {
        if self.s.a.closed().is_some() {
            return Ok(());
        }
        let conn = self.s.a.connection();
        let (mut open, mut all) = (0, 0);
        for p in conn.paths() {
            all += 1;
            open += usize::from(!matches!(p.state, PathState::Abandoned(_)));
        }
        if open > limits::PATHS || all > limits::PATH_RECORDS {
            return Err(format!("{open} paths of {all}"));
        }
        if conn.peer_addresses().count() > limits::PEER_ADDRESSES {
            return Err("too many addresses".to_owned());
        }
        let routes = self.s.a.endpoint.routes();
        match routes > 4 * limits::PATH_RECORDS + 4 {
            true => Err(format!("{routes} routes")),
            false => Ok(()),
        }
    }

    /// Whether the connection lived to the end of the noise, and how many paths it had.
    fn go(mut self) -> Result<(bool, u64), String> {
        let before = live();
        for _ in 0..150 {
            if self.s.a.closed().is_some() {
                break;
            }
            for _ in 0..1 + self.rng.below(4) {
                self.packet();
            }
            self.application();
            self.read();
            let long = self.rng.below(30) == 0;
            let us = self.rng.below(if long { 5_000_000 } else { 20_000 });
            self.s.a.run(Duration::from_micros(us));
            self.read();
            self.check()?;
        }
        let held = live() - before;
        if held > MOST {
            return Err(format!("{held} bytes"));
        }
        let lives = self.s.a.closed().is_none();
        let opened = match lives {
            true => self.s.a.connection().stats().paths_opened,
            false => 0,
        };
        // The peer is gone, and the connection after it.
        self.s.a.run(Duration::from_secs(8000));
        match self.s.a.endpoint.is_empty() && self.s.a.endpoint.routes() == 0 {
            true => Ok((lives, opened)),
            false => Err("something is left".to_owned()),
        }
    }
}

#[test]
fn noise_about_paths_is_survived() {
    let (mut lived, mut opened, mut seeds) = (0, 0, 0);
    for seed in crate::seeds::chosen(0..150) {
        let noise = Noise::new(seed);
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| noise.go())) {
            Ok(Ok((lives, paths))) => {
                lived += u64::from(lives);
                opened += paths;
            }
            Ok(Err(why)) => panic!("CORELANE_SEEDS={seed}: {why}"),
            Err(_) => panic!("CORELANE_SEEDS={seed}"),
        }
        seeds += 1;
    }
    let many = seeds >= 100;
    assert!(
        !many || (lived > seeds / 4 && opened > seeds),
        "{lived} {opened}"
    );
}
