//! The program's application of lanes: it does what it is told, tells what happens, and at a server
//! gives messages back.

use crate::cli::report::hist::Latency;
use corelane::base::Timestamp;
use corelane::rdma::{AnyDevice, AsyncEvent};
use corelane::shard::lanes::{
    Consume, LaneApp, LaneEnd, LaneError, LaneId, LaneInfo, Lanes, OpError, Operation, Target,
};
use corelane::sys::clock::Clock;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// The mark of messages that a server keeps; others come back.
pub const SINK: u32 = 1;

/// What the program asks for.
pub enum Order {
    Connect(Target),
    Status(Target),
    Send(LaneId, u32, Vec<u8>),
    Write(LaneId, u64, Vec<u8>),
    Read(LaneId, u64, u32),
    Atomic(LaneId, Operation),
    Load(LaneId, Load),
    Close(LaneId),
    /// Loads end with what they have.
    Stop,
    Shutdown,
}

/// What it hears.
#[derive(Debug)]
pub enum Told {
    /// A lane, and why it has no queue pair.
    Open(LaneId, LaneInfo, Option<String>),
    Message(Vec<u8>),
    Done(Result<(), OpError>, Vec<u8>),
    Refused(LaneError),
    Status(String),
    Loaded(Loaded),
    Closed(LaneEnd),
}

/// Messages or operations, so many or for so long, and as many at once as the lane takes.
#[derive(Clone)]
pub struct Load {
    /// `None` for messages.
    pub operation: Option<Operation>,
    pub tag: u32,
    pub size: usize,
    pub count: usize,
    pub time: Option<Duration>,
    pub depth: usize,
}

/// What became of a load.
#[derive(Debug)]
pub struct Loaded {
    pub time: Duration,
    pub count: usize,
    pub latency: Latency,
}

struct Running {
    load: Load,
    begin: Timestamp,
    until: Timestamp,
    sent: usize,
    done: usize,
    /// The message that comes back when all others came is under way.
    ending: bool,
    starts: VecDeque<Timestamp>,
    latency: Latency,
}

impl Running {
    fn new(load: Load) -> Self {
        let begin = Clock::now();
        Self {
            begin,
            until: load.time.map_or(Timestamp::NEVER, |time| begin + time),
            sent: 0,
            done: 0,
            ending: false,
            starts: VecDeque::with_capacity(load.depth),
            latency: Latency::new(),
            load,
        }
    }

    /// Messages that stay at the server.
    fn is_one_way(&self) -> bool {
        self.load.operation.is_none() && self.load.tag == SINK
    }

    fn is_enough(&self, now: Timestamp) -> bool {
        self.sent >= self.load.count || now >= self.until
    }

    /// Another was begun.
    fn begun(&mut self, now: Timestamp, last: bool) {
        self.sent += 1;
        self.ending |= last;
        if self.is_one_way() && !last {
            self.done += 1;
        } else {
            self.starts.push_back(now);
        }
    }
}

/// The application.
pub struct CliApp {
    told: Option<mpsc::Sender<Told>>,
    /// Lanes that are open, of all shards together.
    open: Arc<AtomicUsize>,
    here: HashSet<LaneId>,
    running: HashMap<LaneId, Running>,
    /// Bytes of the own region that an operation brings.
    brings: HashMap<LaneId, usize>,
    data: Vec<u8>,
}

impl CliApp {
    /// One that tells, at a client, or gives back, at a server.
    pub fn new(told: Option<mpsc::Sender<Told>>, open: Arc<AtomicUsize>) -> Self {
        Self {
            told,
            open,
            here: HashSet::new(),
            running: HashMap::new(),
            brings: HashMap::new(),
            data: Vec::new(),
        }
    }

    fn say(&self, told: Told) {
        if let Some(to) = &self.told {
            // The program may have heard enough.
            let _ = to.send(told);
        }
    }

    /// Keeps a load's lane full.
    fn go_on(&mut self, lanes: &mut Lanes<'_, AnyDevice>, lane: LaneId) {
        let Some(r) = self.running.get_mut(&lane) else {
            return;
        };
        self.data.resize(r.load.size.max(self.data.len()), 7);
        let data = self.data.get(..r.load.size).unwrap_or_default();
        loop {
            let now = Clock::now();
            let (enough, one_way) = (r.is_enough(now), r.is_one_way());
            if r.sent == r.done && if one_way { r.ending } else { enough } {
                break;
            }
            if r.ending || (enough && !one_way) || r.sent - r.done >= r.load.depth {
                return;
            }
            // The last comes back, and with it the word that all others came.
            let last = one_way && (r.sent + 1 >= r.load.count || enough);
            let begun = match r.load.operation {
                None => lanes.send(lane, if last { 0 } else { r.load.tag }, data),
                Some(what) => lanes.operate(lane, 1, what),
            };
            match begun {
                Ok(()) => r.begun(now, last),
                Err(LaneError::Full) => return,
                Err(e) => {
                    self.running.remove(&lane);
                    self.say(Told::Refused(e));
                    return;
                }
            }
        }
        if let Some(r) = self.running.remove(&lane) {
            self.say(Told::Loaded(Loaded {
                time: Clock::now() - r.begin,
                count: r.done,
                latency: r.latency,
            }));
        }
    }

    fn one_done(&mut self, lanes: &mut Lanes<'_, AnyDevice>, lane: LaneId) -> bool {
        let Some(r) = self.running.get_mut(&lane) else {
            return false;
        };
        if let Some(start) = r.starts.pop_front() {
            r.latency.record(Clock::now() - start);
        }
        r.done += 1;
        self.go_on(lanes, lane);
        true
    }
}

impl LaneApp<AnyDevice> for CliApp {
    type Command = Order;

    fn polls(&self) -> bool {
        false
    }

    fn on_open(&mut self, lanes: &mut Lanes<'_, AnyDevice>, lane: LaneId, info: &LaneInfo) {
        if self.here.insert(lane) {
            self.open.fetch_add(1, Ordering::Relaxed);
        }
        if self.told.is_none() {
            let over = if info.rdma { "RDMA" } else { "QUIC" };
            let hello = format!(
                "welcome, client {}: this lane runs over {over}",
                info.client
            );
            // A new lane has room.
            let _ = lanes.send(lane, 0, hello.as_bytes());
        }
        let why = lanes.why_quic(lane).map(str::to_owned);
        self.say(Told::Open(lane, *info, why));
    }

    fn on_message(
        &mut self,
        lanes: &mut Lanes<'_, AnyDevice>,
        lane: LaneId,
        tag: u32,
        data: &[u8],
    ) -> Consume {
        if self.told.is_none() {
            if tag != SINK && lanes.send(lane, tag, data).is_err() {
                tracing::debug!("a client does not take its answers");
            }
        } else if !self.one_done(lanes, lane) {
            self.say(Told::Message(data.to_vec()));
        }
        Consume::Now
    }

    fn on_done(
        &mut self,
        lanes: &mut Lanes<'_, AnyDevice>,
        lane: LaneId,
        _: u64,
        result: Result<(), OpError>,
    ) {
        if self.one_done(lanes, lane) {
            return;
        }
        let mut bytes = vec![0; self.brings.remove(&lane).unwrap_or(0)];
        // It holds what was asked for, for that was checked.
        let _ = lanes.read(lane, 0, &mut bytes);
        self.say(Told::Done(result, bytes));
    }

    fn on_room(&mut self, lanes: &mut Lanes<'_, AnyDevice>, lane: LaneId) {
        self.go_on(lanes, lane);
    }

    fn on_status(&mut self, _: &mut Lanes<'_, AnyDevice>, _: LaneId, json: &str) {
        self.say(Told::Status(json.to_owned()));
    }

    fn on_closed(&mut self, _: &mut Lanes<'_, AnyDevice>, lane: LaneId, why: &LaneEnd) {
        self.running.remove(&lane);
        if self.here.remove(&lane) {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
        self.say(Told::Closed(why.clone()));
    }

    fn on_device_event(&mut self, _: &mut Lanes<'_, AnyDevice>, event: AsyncEvent) {
        tracing::warn!(?event, "the device tells");
    }

    fn on_command(&mut self, lanes: &mut Lanes<'_, AnyDevice>, order: Order) {
        let done = match order {
            Order::Connect(target) => lanes.connect(target).map(drop),
            Order::Status(target) => lanes.status(target).map(drop),
            Order::Send(lane, tag, data) => lanes.send(lane, tag, &data),
            Order::Write(lane, remote, data) => lanes.write(lane, 0, &data).and_then(|()| {
                let len = data.len() as u32;
                lanes.operate(
                    lane,
                    1,
                    Operation::Write {
                        local: 0,
                        remote,
                        len,
                    },
                )
            }),
            Order::Read(lane, remote, len) => {
                self.brings.insert(lane, len as usize);
                lanes.operate(
                    lane,
                    1,
                    Operation::Read {
                        local: 0,
                        remote,
                        len,
                    },
                )
            }
            Order::Atomic(lane, what) => {
                self.brings.insert(lane, 8);
                lanes.operate(lane, 1, what)
            }
            Order::Load(lane, load) => {
                self.running.insert(lane, Running::new(load));
                self.go_on(lanes, lane);
                Ok(())
            }
            Order::Close(lane) => {
                lanes.close(lane);
                Ok(())
            }
            Order::Stop => {
                let all: Vec<LaneId> = self.running.keys().copied().collect();
                for lane in all {
                    if let Some(r) = self.running.get_mut(&lane) {
                        r.until = r.begin;
                    }
                    self.go_on(lanes, lane);
                }
                Ok(())
            }
            Order::Shutdown => {
                lanes.shutdown();
                Ok(())
            }
        };
        if let Err(e) = done {
            self.say(Told::Refused(e));
        }
    }
}
