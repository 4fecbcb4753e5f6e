//! Two ends under random loss, reordering, duplication and acknowledgment: everything arrives
//! exactly once, every stream is forgotten, no counter drifts.

use super::*;
use crate::base::Rng;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn byte(id: StreamId, offset: u64) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9).wrapping_add(id.0 * 31) >> 4) as u8
}

/// What one stream carries one way.
#[derive(Clone, Copy, Debug)]
struct Plan {
    len: u64,
    /// Where the sender resets it, if it does.
    reset_at: Option<u64>,
    /// Where the receiver stops it, if it does.
    stop_at: Option<u64>,
}

#[derive(Debug, Default)]
struct Progress {
    written: u64,
    closed: bool,
    read: u64,
    over: bool,
}

type Ways = BTreeMap<StreamId, (Plan, Progress)>;

struct End {
    streams: Streams,
    /// Packets sent whose fate is open: frames, and their records.
    flight: Vec<(Vec<u8>, Vec<SentFrame>)>,
    sending: Ways,
    receiving: Ways,
    takes: Rng,
}

/// Takes a random part of each offer, and checks every byte.
struct Checker<'a> {
    receiving: &'a mut Ways,
    rng: &'a mut Rng,
}

fn check_bytes(receiving: &mut Ways, id: StreamId, data: &[u8]) {
    let progress = &mut receiving.get_mut(&id).unwrap().1;
    assert!(!progress.over);
    for b in data {
        assert_eq!(*b, byte(id, progress.read), "{id:?} at {}", progress.read);
        progress.read += 1;
    }
}

impl StreamSink for Checker<'_> {
    fn on_stream_data(&mut self, _: &mut Streams, id: StreamId, data: &[u8], fin: bool) -> Taken {
        let n = match self.rng.below(4) {
            0 => 0,
            1 => self.rng.below(data.len() as u64 + 1) as usize,
            _ => {
                check_bytes(self.receiving, id, data);
                let (plan, progress) = self.receiving.get_mut(&id).unwrap();
                if fin {
                    assert_eq!(progress.read, plan.len);
                    progress.over = true;
                }
                return Taken::All;
            }
        };
        check_bytes(self.receiving, id, &data[..n]);
        Taken::Prefix(n)
    }
}

impl End {
    fn new(side: Side, config: &StreamConfig, seed: u64) -> Self {
        Self {
            streams: streams(side, config, config),
            flight: Vec::new(),
            sending: BTreeMap::new(),
            receiving: BTreeMap::new(),
            takes: Rng::from_u64(seed ^ side as u64),
        }
    }

    /// Writes on every stream that exists here.
    fn write(&mut self, rng: &mut Rng) {
        for (&id, (plan, p)) in &mut self.sending {
            let begun = id.initiator() == self.streams.side || p.written > 0;
            if p.closed || !(begun || self.streams.find(id).is_some()) {
                continue;
            }
            let end = plan.reset_at.unwrap_or(plan.len);
            let n = (1 + rng.below(3000)).min(end - p.written);
            let data: Vec<u8> = (p.written..p.written + n).map(|o| byte(id, o)).collect();
            let wrote = if rng.chance(0.5) {
                self.streams.write(id, &data)
            } else {
                self.streams.write_bytes(id, Bytes::from(data))
            };
            match wrote {
                Ok(n) => p.written += n as u64,
                Err(WriteError::Stopped(9) | WriteError::Unknown) => p.closed = true,
                Err(e) => panic!("{id:?}: {e}"),
            }
            if !p.closed && p.written == end {
                p.closed = true;
                match plan.reset_at {
                    Some(_) => self.streams.reset(id, 7).unwrap(),
                    None => self.streams.finish(id).unwrap(),
                }
            }
        }
    }

    fn read(&mut self, rng: &mut Rng) {
        let ids: Vec<_> = self.receiving.keys().copied().collect();
        for id in ids {
            if self.receiving[&id].1.over || self.streams.find(id).is_none() {
                continue;
            }
            let (plan, p) = &self.receiving[&id];
            if plan.stop_at.is_some_and(|at| p.read >= at) {
                self.streams.stop_sending(id, 9).unwrap();
                self.receiving.get_mut(&id).unwrap().1.over = true;
                continue;
            }
            let mut buf = vec![0; 1 + rng.below(5000) as usize];
            match self.streams.read(id, &mut buf) {
                Ok(ReadOutcome::Data(n)) => check_bytes(&mut self.receiving, id, &buf[..n]),
                Ok(ReadOutcome::Blocked) => {}
                Ok(ReadOutcome::Finished) => {
                    let (plan, p) = self.receiving.get_mut(&id).unwrap();
                    assert_eq!(p.read, plan.len);
                    p.over = true;
                }
                Err(ReadError::Reset(code)) => {
                    assert_eq!(code, 7);
                    self.receiving.get_mut(&id).unwrap().1.over = true;
                }
                Err(e) => panic!("{id:?}: {e}"),
            }
        }
    }

    fn poll(&mut self) {
        while let Some(event) = self.streams.poll_event() {
            match event {
                StreamEvent::Reset(id, code) => {
                    assert_eq!(code, 7);
                    self.receiving.get_mut(&id).unwrap().1.over = true;
                }
                StreamEvent::Stopped(id, code) => {
                    assert_eq!(code, 9);
                    self.sending.get_mut(&id).unwrap().1.closed = true;
                }
                StreamEvent::Finished(id) => {
                    let (plan, p) = &self.sending[&id];
                    assert_eq!(p.written, plan.len);
                }
                StreamEvent::Opened(dir) => while self.streams.accept(dir).is_some() {},
                _ => {}
            }
        }
    }

    fn send(&mut self, rng: &mut Rng) {
        for _ in 0..1 + rng.below(8) {
            if !self.streams.wants_to_send() {
                return;
            }
            let packet = packet(&mut self.streams, 60 + rng.below(1400) as usize);
            assert!(
                !packet.1.is_empty(),
                "who wants to send has something to send"
            );
            self.flight.push(packet);
        }
    }

    /// Decides the fate of some packets, in any order. With `loss` some never arrive, and some
    /// are declared lost that do.
    fn settle(&mut self, other: &mut Self, rng: &mut Rng, now: Timestamp, loss: f64) {
        for _ in 0..rng.below(10) {
            if self.flight.is_empty() {
                return;
            }
            let late = rng.below(self.flight.len() as u64);
            let at = if rng.chance(0.7) { 0 } else { late };
            let (bytes, sent) = self.flight.remove(at as usize);
            let arrives = !rng.chance(loss);
            let copies = if arrives { 1 + rng.below(2) } else { 0 };
            for _ in 0..copies {
                let mut sink = Checker {
                    receiving: &mut other.receiving,
                    rng: &mut other.takes,
                };
                input(&mut other.streams, now, &bytes, &mut sink).unwrap();
            }
            if !arrives || rng.chance(loss) {
                sent.iter().for_each(|f| self.streams.on_lost(*f));
            }
            if arrives {
                sent.iter().for_each(|f| self.streams.on_acked(*f));
            }
            if rng.chance(loss) {
                // A second word about a packet that was settled.
                sent.iter().for_each(|f| self.streams.on_lost(*f));
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.streams.is_empty() && self.flight.is_empty() && !self.streams.wants_to_send()
    }
}

fn plan(rng: &mut Rng) -> Plan {
    let len = match rng.below(4) {
        0 => 0,
        1 => rng.below(100),
        _ => rng.below(20_000),
    };
    let cut = |rng: &mut Rng| rng.chance(0.15).then(|| rng.below(len + 1));
    Plan {
        len,
        reset_at: cut(rng),
        stop_at: cut(rng),
    }
}

fn open(a: &mut End, b: &mut End, rng: &mut Rng) -> bool {
    let dir = if rng.chance(0.5) { Dir::Bi } else { Dir::Uni };
    let Ok(id) = a.streams.open(dir) else {
        return false;
    };
    a.streams.set_priority(id, rng.below(3) as i8).unwrap();
    let out = plan(rng);
    a.sending.insert(id, (out, Progress::default()));
    b.receiving.insert(id, (out, Progress::default()));
    if dir == Dir::Bi {
        let back = plan(rng);
        a.receiving.insert(id, (back, Progress::default()));
        b.sending.insert(id, (back, Progress::default()));
    }
    true
}

fn run(seed: u64, count: usize, loss: f64) {
    let mut rng = Rng::from_u64(seed);
    let config = StreamConfig {
        max_streams_bidi: 5,
        max_streams_uni: 3,
        stream_window: 3000,
        stream_window_max: 9000,
        connection_window: 7000,
        connection_window_max: 20_000,
        send_buffer: 5000,
    };
    let mut a = End::new(Side::Client, &config, seed);
    let mut b = End::new(Side::Server, &config, seed);
    let (mut opened, mut now, mut steps) = (0, Timestamp::ZERO, 0);
    while opened < count || !a.is_idle() || !b.is_idle() {
        steps += 1;
        assert!(
            steps < 200_000,
            "seed {seed}: {:?} {:?}",
            a.streams,
            b.streams
        );
        now += Duration::from_micros(rng.below(3000));
        opened += usize::from(opened < count && open(&mut a, &mut b, &mut rng));
        opened += usize::from(opened < count && open(&mut b, &mut a, &mut rng));
        for end in [&mut a, &mut b] {
            end.write(&mut rng);
            end.send(&mut rng);
        }
        a.settle(&mut b, &mut rng, now, loss);
        b.settle(&mut a, &mut rng, now, loss);
        for end in [&mut a, &mut b] {
            end.read(&mut rng);
            end.poll();
        }
    }
    check(seed, &a, &b);
    check(seed, &b, &a);
}

fn check(seed: u64, a: &End, b: &End) {
    for (id, (plan, p)) in &b.receiving {
        assert!(p.over, "seed {seed}: {id:?} never ended");
        if plan.reset_at.is_none() && plan.stop_at.is_none() {
            assert_eq!(p.read, plan.len, "seed {seed}: {id:?}");
        }
    }
    let (sa, sb) = (a.streams.stats(), b.streams.stats());
    assert_eq!(sa.tx_bytes, sb.rx_bytes, "seed {seed}");
    assert_eq!(sb.rx_bytes, sb.rx_bytes_consumed, "seed {seed}");
    assert_eq!(sa.streams_opened, sa.streams_closed, "seed {seed}");
    assert_eq!(sa.streams_opened, sb.streams_opened, "seed {seed}");
    for ids in &a.streams.peer {
        let (opened, closed) = ids.counts();
        assert_eq!(opened, closed, "seed {seed}");
    }
    assert!(a.streams.index.is_empty());
}

#[test]
fn everything_arrives_over_a_perfect_network() {
    (0..20).for_each(|seed| run(seed, 30, 0.0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn everything_arrives_whatever_is_lost(seed: u64, count in 1usize..40, loss in 0.0f64..0.5) {
        run(seed, count, loss);
    }
}
