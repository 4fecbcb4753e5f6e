//! What handles of lanes and the drivers of the shards share: queues both ways, and who waits.
//!
//! A shard never waits for a handle: what both touch is a queue without locks, a place that is
//! filled once, or a number.

use super::{LaneFailure, Waiters};
use crate::shard::lanes::LaneError;
use crate::shard::lanes::{LaneEnd, LaneId, LaneInfo, Operation, Target};
use crate::shard::mailbox::{CommandSender, SendError};
use bytes::Bytes;
use crossbeam::queue::SegQueue;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// What a shard's driver is told.
pub enum Command {
    /// Begin a lane, or only ask for the status.
    Connect(Box<Target>, Ticket, bool),
    /// A handle has put something out.
    Look(Arc<LaneShared>),
    /// Others waited for room.
    Wake,
    Shutdown,
}

/// A lane that is to be begun: one whose shard ends before that has ended, too.
pub struct Ticket(Option<Arc<LaneShared>>);

impl Ticket {
    pub const fn new(lane: Arc<LaneShared>) -> Self {
        Self(Some(lane))
    }

    pub fn take(mut self) -> Option<Arc<LaneShared>> {
        self.0.take()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(lane) = self.0.take() {
            lane.close(LaneEnd::Lost("the shard has ended".into()));
        }
    }
}

/// What becomes of something that was asked for.
#[derive(Clone, Default)]
pub struct Answer(Arc<OnceLock<Result<Bytes, LaneFailure>>>);

impl Answer {
    pub fn set(&self, result: Result<Bytes, LaneFailure>) {
        // The first word counts.
        let _ = self.0.set(result);
    }

    pub fn get(&self) -> Option<Result<Bytes, LaneFailure>> {
        self.0.get().cloned()
    }
}

/// What a handle asks of its lane, in order.
pub enum Out {
    Send(u32, Bytes, Answer),
    Request(Bytes, Answer),
    Operate(Operation, Answer),
    Fill(u64, Bytes, Answer),
    Look(u64, usize, Answer),
}

impl Out {
    /// The lane takes no more.
    pub fn refuse(self) {
        let (Self::Send(.., answer)
        | Self::Request(_, answer)
        | Self::Operate(_, answer)
        | Self::Fill(.., answer)
        | Self::Look(.., answer)) = self;
        answer.set(Err(LaneError::Closed.into()));
    }
}

/// The way to one shard.
#[derive(Default)]
pub struct Link {
    sender: OnceLock<CommandSender<Command>>,
    /// What found the mailbox full.
    pub overflow: SegQueue<Command>,
}

impl Link {
    pub fn connect(&self, sender: CommandSender<Command>) {
        // Made once, by who starts the engine.
        let _ = self.sender.set(sender);
    }

    pub fn send(&self, command: Command) {
        let Some(sender) = self.sender.get() else {
            return;
        };
        if let Err(SendError::Full(command)) = sender.send(command) {
            self.overflow.push(command);
            // Full still, the shard looks here after emptying it; if not, this makes it look.
            let _ = sender.send(Command::Wake);
        }
        if sender.is_closed() {
            while self.overflow.pop().is_some() {}
        }
    }
}

/// What all shards and handles of an endpoint share.
pub struct Hub {
    pub links: Vec<Arc<Link>>,
    /// Lanes that clients opened; at most as many as shards may have.
    pub accepted: SegQueue<Arc<LaneShared>>,
    pub waiters: Waiters,
    running: AtomicUsize,
}

impl Hub {
    pub fn new(shards: usize) -> Self {
        Self {
            links: (0..shards).map(|_| Arc::default()).collect(),
            accepted: SegQueue::new(),
            waiters: Waiters::default(),
            running: AtomicUsize::new(shards),
        }
    }

    pub fn shut_down(&self) {
        self.links.iter().for_each(|l| l.send(Command::Shutdown));
    }

    /// A shard has ended.
    pub fn one_is_over(&self) {
        self.running.fetch_sub(1, Ordering::SeqCst);
        self.waiters.notify();
    }

    pub fn is_over(&self) -> bool {
        self.running.load(Ordering::SeqCst) == 0
    }
}

/// One lane.
pub struct LaneShared {
    pub link: Arc<Link>,
    pub waiters: Waiters,
    pub id: OnceLock<LaneId>,
    pub info: OnceLock<LaneInfo>,
    pub end: OnceLock<LaneEnd>,
    pub status: OnceLock<String>,
    pub fallen_back: AtomicBool,
    /// Messages that nobody took: a window at most.
    pub inbox: SegQueue<(u32, Bytes)>,
    /// Messages that were taken.
    pub taken: AtomicU64,
    pub outbox: SegQueue<Out>,
    /// Handles want it ended.
    pub closing: AtomicBool,
    /// The shard is about to look at the outbox.
    pub called: AtomicBool,
}

impl LaneShared {
    pub fn new(link: Arc<Link>) -> Self {
        Self {
            link,
            waiters: Waiters::default(),
            id: OnceLock::new(),
            info: OnceLock::new(),
            end: OnceLock::new(),
            status: OnceLock::new(),
            fallen_back: AtomicBool::new(false),
            inbox: SegQueue::new(),
            taken: AtomicU64::new(0),
            outbox: SegQueue::new(),
            closing: AtomicBool::new(false),
            called: AtomicBool::new(false),
        }
    }

    /// Asks something of the shard.
    pub fn put(self: &Arc<Self>, out: Out) {
        if self.end.get().is_some() {
            return;
        }
        self.outbox.push(out);
        self.call();
    }

    /// Has the shard look at the lane.
    pub fn call(self: &Arc<Self>) {
        if !self.called.swap(true, Ordering::SeqCst) {
            self.link.send(Command::Look(self.clone()));
        }
    }

    /// Has the lane end, after what it takes of what was asked for before.
    pub fn hang_up(self: &Arc<Self>) {
        self.closing.store(true, Ordering::SeqCst);
        self.call();
    }

    /// The lane is over; who waits is told.
    pub fn close(&self, why: LaneEnd) {
        // It ends once.
        let _ = self.end.set(why);
        while self.outbox.pop().is_some() {}
        self.waiters.notify();
    }
}
