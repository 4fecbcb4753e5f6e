//! The device: its objects, and datagrams in and out.
//!
//! Sans-I/O like the rest of the engine: [`handle_train`](Device::handle_train) takes datagrams in,
//! [`poll_transmit`](Device::poll_transmit) gives trains out,
//! [`poll_timeout`](Device::poll_timeout) says when to call
//! [`handle_timeout`](Device::handle_timeout). Nothing on this way allocates.

use super::config::{Config, LocalAddress};
use super::direct::Direct;
use super::gather::Pieces;
use super::lists::Lists;
use super::memory::Memory;
use super::qp::{Ctx, Qp};
use super::queues::{CompletionQueue, SharedRecvQueue};
use super::stats::Stats;
use super::wire::headers::{BTH, Bth, DEFAULT_PKEY, ICRC};
use super::wire::packet::Malformed;
use super::wire::{Packet, Refusal, Verdict};
use crate::base::{BoundedQueue, RecvMeta, Rng, SocketId, Timestamp, Transmit, limits};
use crate::rdma::attr::QpState;
use crate::rdma::error::RdmaError;
use crate::rdma::event::AsyncEvent;
use crate::rdma::ids::{Gid, MemoryRegionId, QueuePairId};
use crate::rdma::slots::{Key, Slots};
use std::collections::{HashMap, HashSet};

/// A partition's number without its membership bit.
const PKEY_MASK: u16 = 0x7fff;

/// A RoCE v2 device in user space.
#[derive(Debug)]
pub struct Device {
    pub(super) config: Config,
    pub(super) rng: Rng,
    pub(super) domains: Slots<u32>,
    pub(super) memory: Memory,
    pub(super) cqs: Slots<CompletionQueue>,
    pub(super) srqs: Slots<SharedRecvQueue>,
    pub(super) qps: Slots<Qp>,
    pub(super) qpns: HashMap<u32, Key, foldhash::quality::RandomState>,
    /// The number and key of the queue pair that the last packet was for, while it is there.
    near: Option<(u32, Key)>,
    pub(super) psns: HashSet<u32, foldhash::quality::RandomState>,
    pub(super) events: BoundedQueue<AsyncEvent>,
    stats: Stats,
    pub(super) lists: Lists,
    /// What the last train left in registered memory.
    pieces: Pieces,
    pub(super) direct: Direct,
}

/// One queue pair and the rest of the device, for as long as the queue pair is worked on.
macro_rules! parts {
    ($device:expr, $key:expr, $now:expr) => {
        $device.qps.get_mut($key).map(|qp| {
            let ctx = Ctx {
                memory: &mut $device.memory,
                cqs: &mut $device.cqs,
                srqs: &mut $device.srqs,
                events: &mut $device.events,
                stats: &mut $device.stats,
                config: &$device.config,
                busy: $device.lists.busy,
                now: $now,
            };
            (qp, ctx)
        })
    };
}

impl Device {
    /// A device with the addresses of `config`. `rng` makes keys, queue pair numbers and packet
    /// sequence numbers: seed it from the system's generator.
    pub fn new(config: Config, rng: Rng) -> Result<Self, RdmaError> {
        config.check()?;
        let attr = &config.attr;
        Ok(Self {
            domains: Slots::new(attr.max_pd as usize),
            memory: Memory::new(attr),
            cqs: Slots::new(attr.max_cq as usize),
            srqs: Slots::new(attr.max_srq as usize),
            qps: Slots::new(attr.max_qp as usize),
            qpns: HashMap::default(),
            near: None,
            psns: HashSet::default(),
            events: BoundedQueue::new(limits::RDMA_EVENTS),
            stats: Stats::default(),
            lists: Lists::new(config.ack_delay),
            pieces: Pieces::new(),
            direct: Direct::default(),
            config,
            rng,
        })
    }

    /// What happened so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The GID at `index` of the table.
    pub fn query_gid(&self, index: u8) -> Result<Gid, RdmaError> {
        self.address(index).map(|a| a.addr.ip().into())
    }

    pub(super) fn address(&self, index: u8) -> Result<LocalAddress, RdmaError> {
        let found = self.config.addresses.get(usize::from(index)).copied();
        found.ok_or(RdmaError::NoGid { index })
    }

    /// A region's bytes, without a copy.
    pub fn bytes(&self, mr: MemoryRegionId) -> Option<&[u8]> {
        self.memory.bytes(mr)
    }

    /// A region's bytes to write to, without a copy.
    pub fn bytes_mut(&mut self, mr: MemoryRegionId) -> Option<&mut [u8]> {
        self.memory.bytes_mut(mr)
    }

    /// Takes the datagrams of one train, UDP payloads of `meta.segment_size` bytes each but the
    /// last. The bytes are left as they were.
    pub fn handle_train(&mut self, now: Timestamp, meta: &RecvMeta, train: &mut [u8]) {
        if train.is_empty() || train.len() > meta.segment_size {
            return self.handle_packets(now, meta, train);
        }
        // Who waits for a short message waits for a train of one.
        if let Some(key) = self.addressee(train)
            && let Some((qp, mut ctx)) = parts!(self, key, now)
        {
            handle_packet(qp, &mut ctx, meta, 0, train);
            if self.lists.see(qp, &ctx) {
                self.trim();
            }
        }
    }

    fn handle_packets(&mut self, now: Timestamp, meta: &RecvMeta, train: &mut [u8]) {
        let mut longer = false;
        let packets = train.chunks_mut(meta.segment_size.max(1)).enumerate();
        let mut packets = packets.peekable();
        while let Some((n, packet)) = packets.next() {
            let Some(key) = self.addressee(packet) else {
                continue;
            };
            let Some((qp, mut ctx)) = parts!(self, key, now) else {
                continue;
            };
            handle_packet(qp, &mut ctx, meta, n as u16, packet);
            // A train is mostly one queue pair's.
            let qpn = Some(qp.qpn);
            while let Some((n, packet)) = packets.next_if(|(_, p)| Bth::qpn_of(p) == qpn) {
                ctx.stats.packets_received += 1;
                handle_packet(qp, &mut ctx, meta, n as u16, packet);
            }
            longer |= self.lists.see(qp, &ctx);
        }
        if longer {
            self.trim();
        }
    }

    /// The queue pair that a packet is for.
    #[inline]
    fn addressee(&mut self, packet: &[u8]) -> Option<Key> {
        self.stats.packets_received += 1;
        let Some(qpn) = Bth::qpn_of(packet) else {
            self.stats.malformed += 1;
            return None;
        };
        let key = self.key_of(qpn);
        self.stats.unknown_qp += u64::from(key.is_none());
        key
    }

    /// The queue pair with a number. Mostly that of the last train.
    #[inline]
    fn key_of(&mut self, qpn: u32) -> Option<Key> {
        if let Some((last, key)) = self.near
            && last == qpn
        {
            return Some(key);
        }
        let key = *self.qpns.get(&qpn)?;
        self.near = Some((qpn, key));
        Some(key)
    }

    /// A number is no longer a queue pair's.
    pub(super) fn forget(&mut self, qpn: u32) {
        self.qpns.remove(&qpn);
        self.near = self.near.filter(|(last, _)| *last != qpn);
    }

    /// Writes the next train to `buf`, if there is one. `buf` must hold a packet of the largest MTU
    /// in use and 44 bytes beside it; 64 KiB hold the longest train. Each queue pair has a train in
    /// turn.
    pub fn poll_transmit(&mut self, now: Timestamp, buf: &mut [u8]) -> Option<Transmit> {
        self.next_train(now, buf, false)
    }

    /// The same, but long data stays in registered memory: `buf` has the rest, without gaps, and
    /// [`piece`](Self::piece) tells what comes where. The train's length is that of both.
    pub fn poll_gather(&mut self, now: Timestamp, buf: &mut [u8]) -> Option<Transmit> {
        self.next_train(now, buf, true)
    }

    /// The `n`th piece of the last train of [`poll_gather`](Self::poll_gather): how many bytes of
    /// its buffer go before it, and its bytes.
    #[inline]
    pub fn piece(&self, n: usize) -> Option<(usize, &[u8])> {
        self.pieces.get(n, &self.memory)
    }

    #[inline]
    fn next_train(&mut self, now: Timestamp, buf: &mut [u8], gather: bool) -> Option<Transmit> {
        self.pieces.clear();
        let first = self.lists.ready.pop_front()?;
        match self.build(first, now, buf, gather) {
            None => self.build_later(now, buf, gather),
            built => built,
        }
    }

    /// The first queue pair in the list had nothing to send.
    #[cold]
    fn build_later(&mut self, now: Timestamp, buf: &mut [u8], gather: bool) -> Option<Transmit> {
        while let Some(key) = self.lists.ready.pop_front() {
            let built = self.build(key, now, buf, gather);
            if built.is_some() {
                return built;
            }
        }
        None
    }

    /// A train of one queue pair, which goes to the end of the list when there is more.
    #[inline]
    fn build(
        &mut self,
        key: Key,
        now: Timestamp,
        buf: &mut [u8],
        gather: bool,
    ) -> Option<Transmit> {
        let (qp, mut ctx) = parts!(self, key, now)?;
        // Without a train there was nothing to send, or no room for it.
        let pieces = gather.then_some(&mut self.pieces);
        let built = qp.build(&mut ctx, buf, pieces);
        qp.queued = matches!(built, Some((_, true)));
        if qp.queued {
            self.lists.ready.push_back(key);
        }
        if self.lists.arm(qp) {
            self.trim();
        }
        built.map(|(train, _)| train)
    }

    /// The socket that the next train would leave by; `None` when nothing waits to be sent.
    #[inline]
    pub fn next_socket(&self) -> Option<SocketId> {
        let first = self.lists.ready.front()?;
        self.socket_of(first).or_else(|| self.later_socket())
    }

    #[inline]
    fn socket_of(&self, key: &Key) -> Option<SocketId> {
        Some(self.qps.get(*key)?.path.as_ref()?.socket)
    }

    /// The first in the list is gone.
    #[cold]
    fn later_socket(&self) -> Option<SocketId> {
        self.lists.ready.iter().find_map(|key| self.socket_of(key))
    }

    /// The socket that was asked for is there, or cannot be had: its users send by it from now on.
    pub(super) fn connected(&mut self, socket: Option<SocketId>) {
        self.direct.connected(socket);
        let Some(socket) = self.direct.socket() else {
            return;
        };
        for key in self.qpns.values() {
            let path = self.qps.get_mut(*key).and_then(|qp| qp.path.as_mut());
            if let Some(path) = path.filter(|path| path.direct) {
                path.socket = socket;
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do, or earlier;
    /// [`Timestamp::NEVER`] when nothing waits.
    pub fn poll_timeout(&self) -> Timestamp {
        self.lists.next()
    }

    /// Lets go what is held back, as before a sleep: whether there was something.
    pub fn release(&mut self) -> bool {
        let held = !self.lists.holding.is_empty();
        while let Some((_, key)) = self.lists.holding.pop_front() {
            self.release_one(key, Timestamp::ZERO);
        }
        held
    }

    /// A queue pair's place in the list has come.
    fn release_one(&mut self, key: Key, now: Timestamp) {
        if let Some(qp) = self.qps.get_mut(key) {
            qp.holding = false;
            qp.release();
            self.touch(key, now);
        }
    }

    /// Acknowledgements that waited long enough.
    fn release_due(&mut self, now: Timestamp) {
        while let Some((at, key)) = self.lists.holding.front().copied()
            && at <= now
        {
            self.lists.holding.pop_front();
            let delay = self.config.ack_delay;
            let held = self.qps.get_mut(key).map(|qp| (qp.held_since(), qp));
            match held {
                // What it stood for has left; this came later.
                Some((Some(since), _)) if since + delay > now => {
                    self.lists.holding.push_back((since + delay, key));
                }
                Some((Some(_), _)) => self.release_one(key, now),
                Some((None, qp)) => qp.holding = false,
                None => {}
            }
        }
    }

    /// Does what is due: requests are sent again, or fail.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.release_due(now);
        while let Some((at, key)) = self.lists.timers.pop(now) {
            let Some((qp, mut ctx)) = parts!(self, key, now) else {
                continue;
            };
            if qp.armed != at {
                continue; // an earlier entry has been here
            }
            qp.armed = Timestamp::NEVER;
            if qp.deadline() <= now {
                qp.on_timeout(&mut ctx);
            }
            self.touch(key, now);
        }
    }

    /// Runs `work` on a queue pair, and sees to what follows from it.
    pub(super) fn with_qp<T>(
        &mut self,
        qp: QueuePairId,
        work: impl FnOnce(&mut Qp, &mut Ctx<'_>) -> T,
    ) -> Option<T> {
        let (found, mut ctx) = parts!(self, qp.0, Timestamp::ZERO)?;
        let done = work(found, &mut ctx);
        if self.lists.see(found, &ctx) {
            self.trim();
        }
        Some(done)
    }

    /// Something happened to a queue pair: it may have something to send, and another deadline.
    fn touch(&mut self, key: Key, now: Timestamp) {
        if let Some((qp, ctx)) = parts!(self, key, now)
            && self.lists.see(qp, &ctx)
        {
            self.trim();
        }
    }

    /// There is another entry in the timers.
    fn trim(&mut self) {
        let qps = &self.qps;
        let armed = |key| qps.get(key).map(|q| q.armed);
        self.lists.timers.trim(qps.len(), armed);
    }
}

/// Checks a packet against its queue pair, and gives it to the half that it is for.
fn handle_packet(qp: &mut Qp, ctx: &mut Ctx<'_>, meta: &RecvMeta, place: u16, packet: &mut [u8]) {
    if !matches!(qp.state, QpState::Rtr | QpState::Rts) {
        ctx.stats.unknown_qp += 1;
        return;
    }
    let Some(path) = &mut qp.path else {
        return;
    };
    if !path.takes(&meta.path) {
        ctx.stats.wrong_path += 1;
        return;
    }
    if packet.len() < BTH + ICRC {
        ctx.stats.malformed += 1;
        return;
    }
    match path.received.check(packet, place) {
        Verdict::Good => {}
        Verdict::Identified(_) => ctx.stats.identified += 1,
        Verdict::Bad => {
            ctx.stats.bad_icrc += 1;
            return;
        }
    }
    match Packet::parse(packet) {
        Ok(packet) if packet.bth.pkey & PKEY_MASK != DEFAULT_PKEY & PKEY_MASK => {
            ctx.stats.wrong_path += 1;
        }
        Ok(packet) if packet.opcode.is_request() => qp.on_request(ctx, &packet),
        Ok(packet) => qp.on_answer(ctx, &packet),
        Err(Malformed::Opcode(Refusal::Unsupported, bth)) => qp.on_unsupported(ctx, bth.psn),
        Err(Malformed::Opcode(Refusal::Congestion, _)) => ctx.stats.congestion_notifications += 1,
        Err(Malformed::Opcode(Refusal::Foreign, _)) => ctx.stats.foreign_opcodes += 1,
        Err(_) => ctx.stats.malformed += 1,
    }
}
