//! A network that exists in memory only, in virtual time, from a seed.
//!
//! A [`Network`] is a handle; a [`SimBackend`] for every shard shares one. The same seed and the
//! same calls give the same datagrams at the same nanosecond. Time moves only in
//! [`Network::advance_to`]; whoever drives the shards runs them until none has work left, then
//! advances to the earliest of [`Network::next_event`] and the shards' own deadlines.
//!
//! Hosts are IP addresses. Each ordered pair of hosts has a link of its own ([`LinkConfig`]).
//! Several sockets bound to one address form a group, steered as SO_REUSEPORT steers.

mod backend;
mod link;
mod nat;
mod sockets;
#[cfg(test)]
mod tests;

pub use backend::SimBackend;
pub use link::{BurstLoss, LinkConfig, Loss, Passage};

use crate::base::{Ecn, FourTuple, Rng, Timestamp};
use crate::io::{IoError, Waker};
use link::Link;
use nat::Nat;
use sockets::{SocketKey, Sockets};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A datagram on its way, as a test's hooks see it.
#[derive(Clone, Copy, Debug)]
pub struct Passing<'a> {
    /// When it entered the network.
    pub now: Timestamp,
    /// Its source as the receiver sees it.
    pub from: SocketAddr,
    /// Its destination as the sender wrote it.
    pub to: SocketAddr,
    /// Its ECN field as the sender set it.
    pub ecn: Ecn,
    /// The UDP payload.
    pub bytes: &'a [u8],
}

/// What happened in a network so far, in datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkStats {
    /// Entered the network.
    pub sent: u64,
    /// Reached a socket; second copies count.
    pub delivered: u64,
    /// Lost at random or in a burst.
    pub lost: u64,
    /// Dropped by a full link queue.
    pub queue_dropped: u64,
    /// Larger than a link's MTU.
    pub too_large: u64,
    /// Vanished in a blackhole.
    pub blackholed: u64,
    /// Taken by the test's filter.
    pub filtered: u64,
    /// Addressed to a mapping that no longer exists.
    pub nat_dropped: u64,
    /// Addressed to nobody.
    pub unreachable: u64,
    /// Dropped by a socket's full receive buffer.
    pub receive_dropped: u64,
    /// Delivered a second time.
    pub duplicated: u64,
    /// Delivered with a flipped bit.
    pub corrupted: u64,
    /// Held back so that others overtook them.
    pub reordered: u64,
    /// Marked CE by a link.
    pub marked: u64,
}

/// One or more datagrams that arrive together.
#[derive(Debug)]
struct Train {
    path: FourTuple,
    ecn: Ecn,
    segment_size: usize,
    bytes: Vec<u8>,
}

impl Train {
    fn segments(&self) -> u64 {
        self.bytes.len().div_ceil(self.segment_size.max(1)) as u64
    }
}

/// An arrival; ordered by time, and by entry among equals.
struct Arrival {
    at: Timestamp,
    sequence: u64,
    train: Train,
}

impl Ord for Arrival {
    // Reversed: the heap's greatest element is the earliest arrival.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl PartialOrd for Arrival {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Arrival {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Arrival {}

struct Blackhole {
    from: Option<IpAddr>,
    to: Option<IpAddr>,
    window: Range<Timestamp>,
}

type Tap = Box<dyn FnMut(&Passing<'_>, &Result<Passage, Loss>) + Send>;
type Filter = Box<dyn FnMut(&Passing<'_>) -> bool + Send>;

struct State {
    now: Timestamp,
    seed: u64,
    sequence: u64,
    arrivals: BinaryHeap<Arrival>,
    default_link: LinkConfig,
    links: BTreeMap<(IpAddr, IpAddr), Link>,
    blackholes: Vec<Blackhole>,
    nat: Nat,
    sockets: Sockets,
    tap: Option<Tap>,
    filter: Option<Filter>,
    stats: NetworkStats,
}

/// A handle on a simulated network; clones are the same network.
#[derive(Clone)]
pub struct Network(Arc<Mutex<State>>);

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.lock();
        f.debug_struct("Network")
            .field("now", &s.now)
            .field("seed", &s.seed)
            .field("under_way", &s.arrivals.len())
            .field("stats", &s.stats)
            .finish_non_exhaustive()
    }
}

impl Network {
    /// A network without hosts at time zero.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            now: Timestamp::ZERO,
            seed,
            sequence: 0,
            arrivals: BinaryHeap::new(),
            default_link: LinkConfig::default(),
            links: BTreeMap::new(),
            blackholes: Vec::new(),
            nat: Nat::default(),
            sockets: Sockets::default(),
            tap: None,
            filter: None,
            stats: NetworkStats::default(),
        })))
    }

    /// Sets what links do that are not set otherwise, and that nothing has used yet.
    pub fn default_link(&self, config: LinkConfig) {
        self.lock().default_link = config;
    }

    /// Sets what the link from one host to another does, from now on. The other direction is a
    /// link of its own.
    pub fn link(&self, from: IpAddr, to: IpAddr, config: LinkConfig) {
        self.lock().link(from, to).config = config;
    }

    /// Sets the links of both directions between two hosts.
    pub fn link_both(&self, a: IpAddr, b: IpAddr, config: LinkConfig) {
        self.link(a, b, config);
        self.link(b, a, config);
    }

    /// Loses whatever enters between two hosts in a window of time; `None` means any host.
    pub fn blackhole(&self, from: Option<IpAddr>, to: Option<IpAddr>, window: Range<Timestamp>) {
        let mut state = self.lock();
        state.blackholes.push(Blackhole { from, to, window });
    }

    /// From a time on, the world sees what `host` sends as coming from `external`, and reaches it
    /// only there: earlier mappings, or its own address, are gone. Links stay the host's.
    pub fn rebind(&self, host: SocketAddr, external: SocketAddr, from: Timestamp) {
        self.lock().nat.map(host, external, from);
    }

    /// Steers datagrams to `address` among the sockets bound to it: the first datagram of a train
    /// goes in, the socket's place in the order of binding comes out. `None`, or a place where no
    /// socket is, falls back to a hash of the addresses. The function must not use the network.
    pub fn steer(
        &self,
        address: SocketAddr,
        program: impl FnMut(&[u8]) -> Option<usize> + Send + 'static,
    ) {
        self.lock().sockets.steer(address, Box::new(program));
    }

    /// Shows every datagram that enters, and what becomes of it. The hook must not use the
    /// network.
    pub fn tap(&self, hook: impl FnMut(&Passing<'_>, &Result<Passage, Loss>) + Send + 'static) {
        self.lock().tap = Some(Box::new(hook));
    }

    /// Lets a test choose what is lost: a datagram for which the hook says false goes no further.
    /// The hook must not use the network.
    pub fn filter(&self, hook: impl FnMut(&Passing<'_>) -> bool + Send + 'static) {
        self.lock().filter = Some(Box::new(hook));
    }

    /// Sends a datagram that no socket sent, from any address, as an attacker could.
    pub fn inject(&self, from: SocketAddr, to: SocketAddr, ecn: Ecn, bytes: &[u8]) {
        self.lock().transmit(from, to, ecn, bytes, bytes.len());
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.lock().now
    }

    /// When the next datagram arrives; `None` when nothing is under way.
    pub fn next_event(&self) -> Option<Timestamp> {
        self.lock().arrivals.peek().map(|arrival| arrival.at)
    }

    /// Moves time forward and delivers what arrives on the way. Time does not move back.
    pub fn advance_to(&self, time: Timestamp) {
        let mut state = self.lock();
        while state.arrivals.peek().is_some_and(|a| a.at <= time) {
            if let Some(arrival) = state.arrivals.pop() {
                state.now = state.now.max(arrival.at);
                state.deliver(arrival.train);
            }
        }
        state.now = state.now.max(time);
    }

    /// Whether a datagram waits in any socket.
    pub fn has_unread(&self) -> bool {
        self.lock().sockets.has_unread()
    }

    /// What happened so far.
    pub fn stats(&self) -> NetworkStats {
        self.lock().stats
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A hook that panicked fails its test; the state behind it is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bind(
        &self,
        hosts: &[IpAddr],
        address: SocketAddr,
        waker: Waker,
    ) -> Result<(SocketKey, SocketAddr), IoError> {
        self.lock().sockets.bind(hosts, address, waker)
    }
}

impl State {
    fn link(&mut self, from: IpAddr, to: IpAddr) -> &mut Link {
        let (config, seed) = (self.default_link, self.seed);
        self.links
            .entry((from, to))
            .or_insert_with(|| Link::new(config, Rng::from_u64(link_seed(seed, from, to))))
    }

    /// Puts the datagrams of one send on the way.
    fn transmit(
        &mut self,
        host: SocketAddr,
        to: SocketAddr,
        ecn: Ecn,
        bytes: &[u8],
        segment_size: usize,
    ) {
        let now = self.now;
        let from = self.nat.outward(host, now);
        let target = self.nat.inward(to, now).unwrap_or(to);
        let together = self.link(host.ip(), target.ip()).keeps_trains();
        let path = FourTuple::new(to, from);
        let mut open: Option<(Timestamp, Train)> = None;
        // An empty datagram is one, too.
        let empty = bytes.is_empty().then_some(bytes);
        for segment in empty.into_iter().chain(bytes.chunks(segment_size.max(1))) {
            let passing = Passing {
                now,
                from,
                to,
                ecn,
                bytes: segment,
            };
            let fate = self.pass(&passing, host.ip(), target.ip());
            if let Some(tap) = &mut self.tap {
                tap(&passing, &fate);
            }
            self.count(&fate, ecn);
            let Ok(passage) = fate else { continue };
            let single = |bytes: Vec<u8>| Train {
                path,
                ecn: passage.ecn,
                segment_size: bytes.len().max(1),
                bytes,
            };
            if let Some(at) = passage.copy_at {
                self.arrive(at, single(damaged(segment, &passage)));
            }
            if let Some((at, train)) = &mut open
                && together
                && !passage.reordered
                && train.ecn == passage.ecn
                && train.bytes.len() % train.segment_size == 0
                && segment.len() <= train.segment_size
            {
                train.bytes.extend(damaged(segment, &passage));
                *at = passage.at;
                continue;
            }
            let next = (passage.at, single(damaged(segment, &passage)));
            if passage.reordered {
                self.arrive(next.0, next.1);
            } else if let Some((at, train)) = open.replace(next) {
                self.arrive(at, train);
            }
        }
        if let Some((at, train)) = open {
            self.arrive(at, train);
        }
    }

    fn pass(&mut self, passing: &Passing<'_>, from: IpAddr, to: IpAddr) -> Result<Passage, Loss> {
        if self.filter.as_mut().is_some_and(|keep| !keep(passing)) {
            return Err(Loss::Filter);
        }
        let covers = |b: &Blackhole| {
            b.window.contains(&passing.now)
                && b.from.is_none_or(|ip| ip == from)
                && b.to.is_none_or(|ip| ip == to)
        };
        if self.blackholes.iter().any(covers) {
            return Err(Loss::Blackhole);
        }
        let headers = if to.is_ipv4() { 28 } else { 48 };
        self.link(from, to)
            .pass(passing.now, passing.bytes.len(), headers, passing.ecn)
    }

    fn count(&mut self, fate: &Result<Passage, Loss>, ecn: Ecn) {
        let stats = &mut self.stats;
        stats.sent += 1;
        match fate {
            Ok(passage) => {
                stats.duplicated += u64::from(passage.copy_at.is_some());
                stats.corrupted += u64::from(passage.corrupt_bit.is_some());
                stats.reordered += u64::from(passage.reordered);
                stats.marked += u64::from(passage.ecn != ecn);
            }
            Err(Loss::Random) => stats.lost += 1,
            Err(Loss::Queue) => stats.queue_dropped += 1,
            Err(Loss::TooLarge) => stats.too_large += 1,
            Err(Loss::Blackhole) => stats.blackholed += 1,
            Err(Loss::Filter) => stats.filtered += 1,
        }
    }

    fn arrive(&mut self, at: Timestamp, train: Train) {
        self.sequence += 1;
        self.arrivals.push(Arrival {
            at,
            sequence: self.sequence,
            train,
        });
    }

    fn deliver(&mut self, mut train: Train) {
        let segments = train.segments();
        let Some(host) = self.nat.inward(train.path.local, self.now) else {
            self.stats.nat_dropped += segments;
            return;
        };
        train.path.local = host;
        match self.sockets.deliver(train) {
            Ok(()) => self.stats.delivered += segments,
            Err(sockets::Refused::Nobody) => self.stats.unreachable += segments,
            Err(sockets::Refused::Full) => self.stats.receive_dropped += segments,
        }
    }
}

/// A datagram's bytes as they arrive.
fn damaged(segment: &[u8], passage: &Passage) -> Vec<u8> {
    let mut bytes = segment.to_vec();
    if let Some(bit) = passage.corrupt_bit
        && let Some(byte) = bytes.get_mut(bit / 8)
    {
        *byte ^= 1 << (bit % 8);
    }
    bytes
}

/// A link's own seed: FNV-1a over the network's seed and both hosts.
fn link_seed(seed: u64, from: IpAddr, to: IpAddr) -> u64 {
    let mut hash = seed ^ 0xcbf2_9ce4_8422_2325;
    for ip in [from, to] {
        let octets = match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        for octet in octets {
            hash = (hash ^ u64::from(octet)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash
}
