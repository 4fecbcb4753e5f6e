//! The application of a shard that serves handles: their wishes go to lanes, and what lanes tell
//! goes to those who wait.

use super::shared::{Answer, Command, Hub, LaneShared, Out};
use super::{ANSWER, FIRST_RESERVED_TAG};
use crate::rdma::AnyDevice;
use crate::shard::lanes::{Consume, LaneApp, LaneEnd, LaneError, LaneId, LaneInfo, Lanes, OpError};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A lane's own part.
struct Entry {
    shared: Arc<LaneShared>,
    /// What found the lane full, and waits for room.
    waiting: Option<Out>,
    operations: HashMap<u64, Answer>,
    requests: HashMap<u32, Answer>,
    /// Numbers that operations and requests had last.
    last: (u64, u32),
    /// Messages that the lane was told are consumed.
    consumed: u64,
    closed: bool,
}

impl Entry {
    fn new(shared: Arc<LaneShared>) -> Self {
        Self {
            shared,
            waiting: None,
            operations: HashMap::new(),
            requests: HashMap::new(),
            last: (0, 0),
            consumed: 0,
            closed: false,
        }
    }

    /// A request's mark that no other has.
    fn mark(&mut self) -> u32 {
        loop {
            self.last.1 = (self.last.1 + 1) % ANSWER;
            if !self.requests.contains_key(&self.last.1) {
                return self.last.1;
            }
        }
    }
}

type Handle<'a> = Lanes<'a, AnyDevice>;

/// See the module.
pub struct Driver {
    hub: Arc<Hub>,
    shard: usize,
    lanes: HashMap<LaneId, Entry>,
}

impl Driver {
    pub fn new(hub: Arc<Hub>, shard: usize) -> Self {
        Self {
            hub,
            shard,
            lanes: HashMap::new(),
        }
    }

    fn connect(&mut self, lanes: &mut Handle<'_>, command: Command) {
        let Command::Connect(target, ticket, status_only) = command else {
            return;
        };
        let Some(shared) = ticket.take() else {
            return;
        };
        let begun = match status_only {
            true => lanes.status(*target),
            false => lanes.connect(*target),
        };
        match begun {
            Ok(lane) => {
                let _ = shared.id.set(lane);
                self.lanes.insert(lane, Entry::new(shared));
                self.look(lanes, lane);
            }
            Err(e) => shared.close(LaneEnd::Failed(e.to_string())),
        }
    }

    fn obey(&mut self, lanes: &mut Handle<'_>, command: Command) {
        match command {
            Command::Connect(..) => self.connect(lanes, command),
            Command::Look(shared) => {
                if let Some(lane) = shared.id.get() {
                    self.look(lanes, *lane);
                }
            }
            Command::Wake => {}
            Command::Shutdown => lanes.shutdown(),
        }
    }

    /// Does what handles ask of a lane, until it is full.
    fn look(&mut self, lanes: &mut Handle<'_>, lane: LaneId) {
        let Some(entry) = self.lanes.get_mut(&lane) else {
            return;
        };
        let shared = entry.shared.clone();
        // Takes over what the handle that set it did before.
        shared.called.swap(false, Ordering::SeqCst);
        let mut told = false;
        let taken = shared.taken.load(Ordering::Relaxed);
        if taken > entry.consumed {
            lanes.consume(lane, taken - entry.consumed);
            entry.consumed = taken;
        }
        while let Some(out) = entry.waiting.take().or_else(|| shared.outbox.pop()) {
            if let Some(full) = one(lanes, lane, entry, out, &mut told) {
                entry.waiting = Some(full);
                break;
            }
        }
        if shared.closing.load(Ordering::SeqCst) && !entry.closed {
            entry.closed = true;
            let rest = std::iter::from_fn(|| entry.waiting.take().or_else(|| shared.outbox.pop()));
            rest.for_each(Out::refuse);
            lanes.close(lane);
            told = true;
        }
        if told {
            shared.waiters.notify();
        }
    }
}

/// Does one thing; gives it back where the lane is full.
fn one(
    lanes: &mut Handle<'_>,
    lane: LaneId,
    entry: &mut Entry,
    out: Out,
    told: &mut bool,
) -> Option<Out> {
    let (answer, result) = match out {
        Out::Send(tag, data, answer) => match lanes.send(lane, tag, &data) {
            Err(LaneError::Full) => return Some(Out::Send(tag, data, answer)),
            done => (answer, done.map(|()| Bytes::new())),
        },
        Out::Request(data, answer) => {
            let mark = entry.mark();
            match lanes.send(lane, FIRST_RESERVED_TAG | mark, &data) {
                Err(LaneError::Full) => return Some(Out::Request(data, answer)),
                Ok(()) => {
                    entry.requests.insert(mark, answer);
                    return None;
                }
                Err(e) => (answer, Err(e)),
            }
        }
        Out::Operate(what, answer) => {
            let id = entry.last.0 + 1;
            match lanes.operate(lane, id, what) {
                Err(LaneError::Full) => return Some(Out::Operate(what, answer)),
                Ok(()) => {
                    entry.last.0 = id;
                    entry.operations.insert(id, answer);
                    return None;
                }
                Err(e) => (answer, Err(e)),
            }
        }
        Out::Fill(at, data, answer) => {
            let done = lanes.write(lane, at, &data);
            (answer, done.map(|()| Bytes::new()))
        }
        Out::Look(at, len, answer) => {
            // No more than a region can have is made room for.
            let mut bytes = vec![0; len.min(crate::base::limits::LANE_REGION)];
            let done = lanes.read(lane, at, &mut bytes);
            (answer, done.map(|()| bytes.into()))
        }
    };
    answer.set(result.map_err(Into::into));
    *told = true;
    None
}

impl LaneApp<AnyDevice> for Driver {
    type Command = Command;

    fn polls(&self) -> bool {
        false
    }

    fn on_open(&mut self, lanes: &mut Handle<'_>, lane: LaneId, info: &LaneInfo) {
        if let Some(entry) = self.lanes.get(&lane) {
            let _ = entry.shared.info.set(*info);
            entry.shared.waiters.notify();
            self.look(lanes, lane);
            return;
        }
        let Some(link) = self.hub.links.get(self.shard) else {
            return;
        };
        let shared = Arc::new(LaneShared::new(link.clone()));
        let _ = (shared.id.set(lane), shared.info.set(*info));
        self.lanes.insert(lane, Entry::new(shared.clone()));
        self.hub.accepted.push(shared);
        self.hub.waiters.notify();
    }

    fn on_message(&mut self, _: &mut Handle<'_>, lane: LaneId, tag: u32, data: &[u8]) -> Consume {
        let Some(entry) = self.lanes.get_mut(&lane) else {
            return Consume::Now;
        };
        let data = Bytes::copy_from_slice(data);
        if tag >= FIRST_RESERVED_TAG && tag & ANSWER != 0 {
            // One that nobody waits for any more, or ever did, is nobody's.
            if let Some(answer) = entry.requests.remove(&(tag & (ANSWER - 1))) {
                answer.set(Ok(data));
                entry.shared.waiters.notify();
            }
            return Consume::Now;
        }
        entry.shared.inbox.push((tag, data));
        entry.shared.waiters.notify();
        Consume::Later
    }

    fn on_done(&mut self, _: &mut Handle<'_>, lane: LaneId, op: u64, result: Result<(), OpError>) {
        let Some(entry) = self.lanes.get_mut(&lane) else {
            return;
        };
        if let Some(answer) = entry.operations.remove(&op) {
            answer.set(result.map(|()| Bytes::new()).map_err(Into::into));
            entry.shared.waiters.notify();
        }
    }

    fn on_room(&mut self, lanes: &mut Handle<'_>, lane: LaneId) {
        self.look(lanes, lane);
    }

    fn on_fallback(&mut self, _: &mut Handle<'_>, lane: LaneId) {
        if let Some(entry) = self.lanes.get(&lane) {
            entry.shared.fallen_back.store(true, Ordering::Relaxed);
        }
    }

    fn on_status(&mut self, _: &mut Handle<'_>, lane: LaneId, json: &str) {
        if let Some(entry) = self.lanes.get(&lane) {
            let _ = entry.shared.status.set(json.to_owned());
            entry.shared.waiters.notify();
        }
    }

    fn on_closed(&mut self, _: &mut Handle<'_>, lane: LaneId, why: &LaneEnd) {
        if let Some(entry) = self.lanes.remove(&lane) {
            entry.shared.close(why.clone());
        }
    }

    fn on_command(&mut self, lanes: &mut Handle<'_>, command: Command) {
        self.obey(lanes, command);
        let link = self.hub.links.get(self.shard).cloned();
        while let Some(command) = link.as_ref().and_then(|l| l.overflow.pop()) {
            self.obey(lanes, command);
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        for (_, entry) in self.lanes.drain() {
            entry
                .shared
                .close(LaneEnd::Lost("the shard has ended".into()));
        }
        self.hub.one_is_over();
    }
}
