//! The program's application of lanes: it does what it is told, tells what happens, and at a server
//! gives messages back.

use corelane::rdma::{AnyDevice, AsyncEvent};
use corelane::shard::lanes::{
    Consume, LaneApp, LaneEnd, LaneError, LaneId, LaneInfo, Lanes, OpError, Operation, Target,
};
use corelane::sys::clock::Clock;
use std::collections::HashMap;
use std::sync::mpsc;
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
    Shutdown,
}

/// What it hears.
#[derive(Debug)]
pub enum Told {
    Open(LaneId, LaneInfo),
    Message(Vec<u8>),
    Done(Result<(), OpError>, Vec<u8>),
    Refused(LaneError),
    Status(String),
    Loaded(Duration, Vec<u64>),
    Closed(LaneEnd),
}

/// So many messages or operations, as many at once as the lane takes.
#[derive(Clone)]
pub struct Load {
    /// `None` for messages.
    pub operation: Option<Operation>,
    pub tag: u32,
    pub size: usize,
    pub count: usize,
    pub depth: usize,
}

struct Running {
    load: Load,
    begin: corelane::base::Timestamp,
    sent: usize,
    done: usize,
    starts: std::collections::VecDeque<corelane::base::Timestamp>,
    times: Vec<u64>,
}

/// The application.
pub struct CliApp {
    told: Option<mpsc::Sender<Told>>,
    running: HashMap<LaneId, Running>,
    /// Bytes of the own region that an operation brings.
    brings: HashMap<LaneId, usize>,
    data: Vec<u8>,
}

impl CliApp {
    /// One that tells, at a client, or gives back, at a server.
    pub fn new(told: Option<mpsc::Sender<Told>>) -> Self {
        Self {
            told,
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
        let l = &r.load;
        self.data.resize(l.size.max(self.data.len()), 7);
        while r.sent < l.count && r.sent - r.done < l.depth {
            let now = Clock::now();
            let begun = match l.operation {
                None => {
                    // The last comes back, and with it the word that all others came.
                    let tag = if r.sent + 1 == l.count { 0 } else { l.tag };
                    lanes.send(lane, tag, self.data.get(..l.size).unwrap_or_default())
                }
                Some(what) => lanes.operate(lane, 1, what),
            };
            match begun {
                Ok(()) => {
                    r.sent += 1;
                    r.starts.push_back(now);
                    if l.operation.is_none() && l.tag == SINK && r.sent < l.count {
                        r.done += 1;
                        r.starts.clear();
                    }
                }
                Err(LaneError::Full) => return,
                Err(e) => {
                    self.running.remove(&lane);
                    self.say(Told::Refused(e));
                    return;
                }
            }
        }
    }

    fn one_done(&mut self, lanes: &mut Lanes<'_, AnyDevice>, lane: LaneId) -> bool {
        let Some(r) = self.running.get_mut(&lane) else {
            return false;
        };
        let now = Clock::now();
        if let Some(start) = r.starts.pop_front() {
            r.times.push((now - start).as_nanos() as u64);
        }
        r.done += 1;
        if r.done < r.load.count {
            self.go_on(lanes, lane);
        } else if let Some(r) = self.running.remove(&lane) {
            self.say(Told::Loaded(now - r.begin, r.times));
        }
        true
    }
}

impl LaneApp<AnyDevice> for CliApp {
    type Command = Order;

    fn on_open(&mut self, lanes: &mut Lanes<'_, AnyDevice>, lane: LaneId, info: &LaneInfo) {
        if self.told.is_none() {
            let over = if info.rdma { "RDMA" } else { "QUIC" };
            let hello = format!(
                "welcome, client {}: this lane runs over {over}",
                info.client
            );
            // A new lane has room.
            let _ = lanes.send(lane, 0, hello.as_bytes());
        }
        self.say(Told::Open(lane, *info));
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
                let running = Running {
                    begin: Clock::now(),
                    sent: 0,
                    done: 0,
                    starts: Default::default(),
                    times: Vec::with_capacity(load.count),
                    load,
                };
                self.running.insert(lane, running);
                self.go_on(lanes, lane);
                Ok(())
            }
            Order::Close(lane) => {
                lanes.close(lane);
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
