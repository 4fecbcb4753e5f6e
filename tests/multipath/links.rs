//! Links with a rate, a delay and a queue under the paths of connections between one client and one
//! server, and flows that always have something to send: what several paths are worth.

use crate::common::pair::{Passing, SERVER};
use crate::rig::*;
use corelane::base::{Rng, Timestamp};
use corelane::conn::{ConnId, PathInfo, TransportConfig};
use corelane::path::{PathId, PathStatus};
use corelane::wire::{Dir, StreamId};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One direction of a link.
#[derive(Clone, Debug)]
pub struct Link {
    /// Bits a second.
    pub rate: u64,
    pub delay: Duration,
    /// Bytes that wait at most.
    pub queue: usize,
    pub dark: bool,
    /// Drops at random from the half of the queue on, so that losses hit flows in proportion to
    /// what they send.
    pub early: Option<Rng>,
    busy_until: Timestamp,
}

/// The chance of an early drop just below the full queue.
const EARLY_DROP: f64 = 0.02;

impl Link {
    /// With a queue of 60 ms.
    pub fn new(mbps: u64, delay_ms: u64) -> Self {
        Self {
            rate: mbps * 1_000_000,
            delay: Duration::from_millis(delay_ms),
            queue: (mbps * 1_000_000 / 8 * 60 / 1000) as usize,
            dark: false,
            early: None,
            busy_until: Timestamp::ZERO,
        }
    }

    /// When a datagram of so many bytes arrives that is sent now; `None` when it never does.
    fn pass(&mut self, now: Timestamp, bytes: usize) -> Option<Timestamp> {
        let time = |bytes: usize| Duration::from_nanos(bytes as u64 * 8_000_000_000 / self.rate);
        let free = self.busy_until.max(now);
        if self.dark || free - now > time(self.queue) {
            return None;
        }
        if let Some(rng) = &mut self.early {
            let full = (free - now).as_secs_f64() / time(self.queue).as_secs_f64();
            if rng.chance((full - 0.5).max(0.0) * 2.0 * EARLY_DROP) {
                return None;
            }
        }
        self.busy_until = free + time(bytes);
        Some(self.busy_until + self.delay)
    }
}

/// The links: of each, there and back; and which the client's addresses are at.
#[derive(Clone, Debug)]
pub struct Net {
    pub links: Vec<[Link; 2]>,
    /// The link of the client's first and of its second address.
    pub by: [usize; 2],
}

impl Net {
    pub fn new(links: &[Link]) -> Self {
        let both = |l: &Link| [l.clone(), l.clone()];
        Self {
            links: links.iter().map(both).collect(),
            by: [0, 1],
        }
    }

    fn pass(&mut self, p: &Passing) -> Option<Timestamp> {
        let second = p.source == at(CLIENT_1) || p.to == at(CLIENT_1);
        let link = self.by[usize::from(second)];
        self.links[link][p.from].pass(p.now, p.bytes.len())
    }
}

/// A stream that never ends, and what the other side got of it.
#[derive(Clone, Debug)]
pub struct Flow {
    pub conn: [ConnId; 2],
    from: usize,
    stream: StreamId,
    /// When something was last delivered, and the longest time that nothing was.
    delivered: (usize, Timestamp),
    pub longest_stall: Duration,
}

/// See the module.
pub struct Lab {
    pub rig: Rig,
    pub net: Arc<Mutex<Net>>,
    pub flows: Vec<Flow>,
}

pub fn lab_config(change: impl Fn(&mut TransportConfig)) -> crate::common::pair::Setup {
    let mut s = setup(4);
    for config in [&mut s.client, &mut s.server] {
        config.streams.send_buffer = 16 << 20;
        change(config);
    }
    s
}

impl Lab {
    /// A connection with two paths over the links.
    pub fn new(net: Net, change: impl Fn(&mut TransportConfig)) -> Self {
        let mut rig = Rig::with(lab_config(change));
        let net = Arc::new(Mutex::new(net));
        let passing = net.clone();
        rig.pair.delay = Duration::ZERO;
        rig.pair.filter = Box::new(move |mut p| {
            let arrival = passing.lock().expect("no panic").pass(&p);
            let Some(at) = arrival else {
                return vec![];
            };
            p.now = at;
            vec![p]
        });
        Self {
            rig,
            net,
            flows: Vec::new(),
        }
        .with_second_path()
    }

    fn with_second_path(mut self) -> Self {
        let id = self.rig.open(PathStatus::Available).expect("opens");
        self.rig.run_ms(500);
        self.rig.expect_open(id);
        self
    }

    /// Begins to send on a new stream of the first connection.
    pub fn flow(&mut self, from: usize) -> usize {
        let conn = self.rig.ids();
        self.flow_of(conn, from)
    }

    /// Begins to send on a new stream of a connection.
    pub fn flow_of(&mut self, conn: [ConnId; 2], from: usize) -> usize {
        let streams = self.rig.pair.conn(from, conn[from]).streams_mut();
        let stream = streams.open(Dir::Uni).expect("a stream");
        self.flows.push(Flow {
            conn,
            from,
            stream,
            delivered: (0, self.rig.pair.now),
            longest_stall: Duration::ZERO,
        });
        self.flows.len() - 1
    }

    /// Another connection between the two, of one path over that client's address.
    pub fn connect(&mut self) -> [ConnId; 2] {
        let client = self.rig.pair.connect();
        self.rig.run_ms(500);
        let accepted = &self.rig.pair.sides[SERVER].app.accepted;
        [client, *accepted.last().expect("accepted")]
    }

    /// Runs for so long, in steps of a few milliseconds, with every flow full.
    pub fn run_ms(&mut self, ms: u64) {
        const STEP: u64 = 5;
        let piece = vec![0x5a; 1 << 20];
        for _ in 0..ms.div_ceil(STEP) {
            for flow in &self.flows {
                let streams = self
                    .rig
                    .pair
                    .conn(flow.from, flow.conn[flow.from])
                    .streams_mut();
                let waiting = streams.unacknowledged(flow.stream).unwrap_or(0);
                if waiting < 4 << 20 {
                    streams.write(flow.stream, &piece).expect("written");
                }
            }
            self.rig.run_ms(STEP);
            let now = self.rig.pair.now;
            for n in 0..self.flows.len() {
                let bytes = self.delivered(n);
                let flow = &mut self.flows[n];
                if bytes > flow.delivered.0 {
                    flow.delivered = (bytes, now);
                }
                flow.longest_stall = flow.longest_stall.max(now - flow.delivered.1);
            }
        }
    }

    /// Bytes of a flow that the other side's application has.
    pub fn delivered(&self, flow: usize) -> usize {
        let flow = &self.flows[flow];
        let to = 1 - flow.from;
        let key = (flow.conn[to].index(), flow.stream.0);
        let received = &self.rig.pair.sides[to].app.received;
        received.get(&key).map_or(0, Vec::len)
    }

    /// Mbit/s of each flow over so long.
    pub fn rates(&mut self, ms: u64) -> Vec<f64> {
        let all =
            |lab: &Self| -> Vec<usize> { (0..lab.flows.len()).map(|n| lab.delivered(n)).collect() };
        let before = all(self);
        self.run_ms(ms);
        let rate = |(a, b): (&usize, &usize)| (b - a) as f64 * 8.0 / 1000.0 / ms as f64;
        before.iter().zip(&all(self)).map(rate).collect()
    }

    pub fn darken(&self, link: usize, dark: bool) {
        for l in &mut self.net.lock().expect("no panic").links[link] {
            l.dark = dark;
        }
    }

    pub fn info(&mut self, side: usize, id: u32) -> PathInfo {
        self.rig.info(side, PathId(id)).expect("there")
    }
}
