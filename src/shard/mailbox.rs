//! What one shard gets from others: datagrams that landed on the wrong core, and commands.
//!
//! Every ordered pair of shards has a wait-free ring of its own; shard i reaches j through ring
//! (i, j) and nothing else. A parcel is a run of datagrams for one destination, copied into a
//! buffer that goes home through a return ring, so that nothing is allocated once a pair is warm. A
//! ring or a pool that is full drops and counts, and never blocks.
//!
//! Commands of application handles come through one bounded queue a shard. Waking the destination
//! is the caller's for parcels (once a turn, [`Mailbox::for_each_fresh`]) and the handle's own for
//! commands. Which shard a datagram belongs to is [`super::steer`]'s to say.

use crate::base::limits;
use crate::io::RecvMeta;
use crossbeam::queue::ArrayQueue;
use rtrb::{Consumer, Producer, PushError, RingBuffer};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Bytes of a small buffer: any single datagram on a path of the Internet.
const SMALL: usize = 2048;
/// Bytes of a large buffer: any train.
const LARGE: usize = 64 * 1024;
/// Runs of one shard that are looked at before another shard's.
const TURN: usize = 16;

/// A run of datagrams under way between two shards.
struct Parcel {
    meta: RecvMeta,
    len: u32,
    buffer: Box<[u8]>,
}

/// Buffers of one size: those at home, and how many there are in all.
struct Pool {
    home: Vec<Box<[u8]>>,
    made: usize,
    most: usize,
    size: usize,
}

impl Pool {
    fn new(size: usize, most: usize) -> Self {
        Self {
            home: Vec::new(),
            made: 0,
            most,
            size,
        }
    }

    fn take(&mut self) -> Option<Box<[u8]>> {
        if let Some(buffer) = self.home.pop() {
            return Some(buffer);
        }
        if self.made == self.most {
            return None;
        }
        self.made += 1;
        Some(vec![0; self.size].into())
    }
}

/// The sending end of a pair.
struct Outlet {
    ring: Producer<Parcel>,
    returns: Consumer<Box<[u8]>>,
    small: Pool,
    large: Pool,
    /// Something was sent that the destination has not been woken for.
    fresh: bool,
}

impl Outlet {
    /// Sends a copy; false when there is no room.
    fn send(&mut self, meta: &RecvMeta, bytes: &[u8]) -> bool {
        if self.ring.is_full() {
            return false;
        }
        let large = bytes.len() > SMALL;
        if self.pool(large).home.is_empty() {
            self.collect();
        }
        let Some(mut buffer) = self.pool(large).take() else {
            return false;
        };
        let Some(room) = buffer.get_mut(..bytes.len()) else {
            self.pool(large).home.push(buffer);
            return false;
        };
        room.copy_from_slice(bytes);
        let parcel = Parcel {
            meta: *meta,
            len: bytes.len() as u32,
            buffer,
        };
        if let Err(PushError::Full(parcel)) = self.ring.push(parcel) {
            self.pool(large).home.push(parcel.buffer);
            return false;
        }
        self.fresh = true;
        true
    }

    /// Takes the buffers home that came back.
    fn collect(&mut self) {
        while let Ok(buffer) = self.returns.pop() {
            let large = buffer.len() > SMALL;
            self.pool(large).home.push(buffer);
        }
    }

    fn pool(&mut self, large: bool) -> &mut Pool {
        if large {
            &mut self.large
        } else {
            &mut self.small
        }
    }
}

/// The receiving end of a pair.
struct Inlet {
    ring: Consumer<Parcel>,
    returns: Producer<Box<[u8]>>,
}

impl Inlet {
    /// Shows at most `most` runs and sends their buffers home, all at once: the cores pass the
    /// cache lines of both rings' ends to and fro once for all of them.
    fn take(
        &mut self,
        most: usize,
        received: &mut u64,
        sink: &mut dyn FnMut(&RecvMeta, &mut [u8]),
    ) -> usize {
        let waiting = self.ring.slots().min(most);
        // There is room for every buffer of the pair.
        let (Ok(parcels), Ok(home)) = (
            self.ring.read_chunk(waiting),
            self.returns.write_chunk_uninit(waiting),
        ) else {
            return 0;
        };
        home.fill_from_iter(parcels.into_iter().map(|mut parcel| {
            if let Some(bytes) = parcel.buffer.get_mut(..parcel.len as usize) {
                *received += datagrams(&parcel.meta, bytes.len());
                sink(&parcel.meta, bytes);
            }
            parcel.buffer
        }))
    }
}

/// What passed through a mailbox, in datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MailboxStats {
    /// Handed to another shard.
    pub sent: u64,
    /// Dropped because the way to the other shard was full.
    pub dropped: u64,
    /// Received from other shards.
    pub received: u64,
}

/// One shard's place among the others. `C` is what application handles say to it.
pub struct Mailbox<C> {
    outlets: Vec<Option<Outlet>>,
    inlets: Vec<Inlet>,
    /// The inlet to look at first.
    turn: usize,
    commands: Arc<Commands<C>>,
    stats: MailboxStats,
}

impl<C> fmt::Debug for Mailbox<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox")
            .field("shards", &self.outlets.len())
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

impl<C> Mailbox<C> {
    /// The mailboxes of `shards` shards, in their order, with a ring between every two.
    pub fn build(shards: usize) -> Vec<Self> {
        Self::with_capacity(shards, limits::MAILBOX_DATAGRAMS, limits::MAILBOX_COMMANDS)
    }

    fn with_capacity(shards: usize, parcels: usize, commands: usize) -> Vec<Self> {
        let mut boxes: Vec<Self> = (0..shards)
            .map(|_| Self {
                outlets: (0..shards).map(|_| None).collect(),
                inlets: Vec::new(),
                turn: 0,
                commands: Arc::new(Commands {
                    queue: ArrayQueue::new(commands),
                    open: AtomicBool::new(true),
                }),
                stats: MailboxStats::default(),
            })
            .collect();
        let large = limits::MAILBOX_TRAINS.min(parcels);
        for (from, to) in (0..shards).flat_map(|i| (0..shards).map(move |j| (i, j))) {
            if from == to {
                continue;
            }
            let (send, receive) = RingBuffer::new(parcels);
            // Room for every buffer of the pair: a return never fails.
            let (give_back, returns) = RingBuffer::new(parcels + large);
            boxes[from].outlets[to] = Some(Outlet {
                ring: send,
                returns,
                small: Pool::new(SMALL, parcels),
                large: Pool::new(LARGE, large),
                fresh: false,
            });
            boxes[to].inlets.push(Inlet {
                ring: receive,
                returns: give_back,
            });
        }
        boxes
    }

    /// Copies a run of datagrams to another shard; all but the last are `meta.segment_size` bytes
    /// long. False, and counted, when the way is full, or there is no such other shard. The socket
    /// in `meta` is the sender's: the receiver has its own for that address.
    pub fn send(&mut self, to: usize, meta: &RecvMeta, bytes: &[u8]) -> bool {
        let outlet = self.outlets.get_mut(to).and_then(Option::as_mut);
        let sent = outlet.is_some_and(|outlet| outlet.send(meta, bytes));
        let datagrams = datagrams(meta, bytes.len());
        if sent {
            self.stats.sent += datagrams;
        } else {
            self.stats.dropped += datagrams;
        }
        sent
    }

    /// Names every shard that was sent something since the last call, so that the caller wakes it.
    pub fn for_each_fresh(&mut self, mut wake: impl FnMut(usize)) {
        for (shard, outlet) in self.outlets.iter_mut().enumerate() {
            if let Some(outlet) = outlet
                && std::mem::take(&mut outlet.fresh)
            {
                wake(shard);
            }
        }
    }

    /// Shows at most `budget` runs from other shards, which take turns, and returns how many. The
    /// bytes are valid inside `sink` only, which may change them.
    pub fn recv(&mut self, budget: usize, sink: &mut dyn FnMut(&RecvMeta, &mut [u8])) -> usize {
        let mut runs = 0;
        let mut silent = 0;
        while runs < budget && silent < self.inlets.len() {
            let Some(inlet) = self.inlets.get_mut(self.turn) else {
                self.turn = 0;
                continue;
            };
            self.turn += 1;
            let most = TURN.min(budget - runs);
            let took = inlet.take(most, &mut self.stats.received, sink);
            silent = if took == 0 { silent + 1 } else { 0 };
            runs += took;
        }
        runs
    }

    /// The oldest command.
    pub fn next_command(&mut self) -> Option<C> {
        self.commands.queue.pop()
    }

    /// Whether there is anything to receive, of either kind.
    pub fn has_mail(&self) -> bool {
        !self.commands.queue.is_empty() || self.inlets.iter().any(|inlet| !inlet.ring.is_empty())
    }

    /// A handle that sends commands here from any thread, and calls `wake` after each.
    pub fn command_sender(&self, wake: impl Fn() + Send + Sync + 'static) -> CommandSender<C> {
        CommandSender {
            commands: self.commands.clone(),
            wake: Arc::new(wake),
        }
    }

    /// What passed so far.
    pub fn stats(&self) -> MailboxStats {
        self.stats
    }
}

impl<C> Drop for Mailbox<C> {
    fn drop(&mut self) {
        self.commands.close();
    }
}

fn datagrams(meta: &RecvMeta, len: usize) -> u64 {
    len.div_ceil(meta.segment_size.max(1)) as u64
}

struct Commands<C> {
    queue: ArrayQueue<C>,
    open: AtomicBool,
}

impl<C> Commands<C> {
    /// Takes no more commands and drops those that nobody will read.
    fn close(&self) {
        self.open.store(false, Ordering::SeqCst);
        // With the fence in `send`: either we see a command here, or its sender sees us closed.
        fence(Ordering::SeqCst);
        self.clear();
    }

    fn clear(&self) {
        while self.queue.pop().is_some() {}
    }
}

/// Why a command was not taken; it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError<C> {
    /// Too many commands wait; later there may be room.
    #[error("the shard has too many commands waiting; try again later")]
    Full(C),
    /// The shard has ended.
    #[error("the shard has ended")]
    Closed(C),
}

/// Sends commands to one shard from any thread.
pub struct CommandSender<C> {
    commands: Arc<Commands<C>>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl<C> Clone for CommandSender<C> {
    fn clone(&self) -> Self {
        Self {
            commands: self.commands.clone(),
            wake: self.wake.clone(),
        }
    }
}

impl<C> fmt::Debug for CommandSender<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandSender")
            .field("waiting", &self.commands.queue.len())
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

impl<C> CommandSender<C> {
    /// Queues a command and wakes the shard. A command that the shard does not come to before it
    /// ends is dropped.
    pub fn send(&self, command: C) -> Result<(), SendError<C>> {
        if self.is_closed() {
            return Err(SendError::Closed(command));
        }
        self.commands.queue.push(command).map_err(SendError::Full)?;
        fence(Ordering::SeqCst);
        if self.is_closed() {
            // The shard ended meanwhile and may not have seen this one.
            self.commands.clear();
        }
        (self.wake)();
        Ok(())
    }

    /// Whether the shard has ended.
    pub fn is_closed(&self) -> bool {
        !self.commands.open.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests;
