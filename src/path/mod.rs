//! One network path of a connection, and the set of them.
//!
//! A path owns everything that RFC 9002 and the multipath text keep per path: its addresses, its
//! connection IDs, round-trip times, congestion controller, pacer, MTU, ECN state, and the 1-RTT
//! packet number space with what was sent and what was received in it. A connection has one path
//! until the multipath extension opens more. Streams, keys and frames live elsewhere; `F` is the
//! connection's record of a frame that it sent.

pub mod candidates;
pub mod cids;
pub mod duplicate;
pub mod failure;
pub mod ids;
mod moves;
pub mod probe;
pub mod reinject;
pub mod schedule;
pub mod set;
pub mod spin;
pub mod status;
pub mod validate;

pub use crate::base::PathId;
use crate::base::{Ecn, FourTuple, Rng, SocketId, Timestamp, limits};
use crate::recovery::{
    AckPolicy, Algorithm, Controller, EcnValidator, MtuConfig, MtuDiscovery, Pace, Pacer, Rtt,
    SentSpace,
};
pub use cids::{LocalCids, RemoteCids};
use failure::FailureDetector;
pub use ids::PathLimits;
pub use moves::Former;
pub use probe::{Probe, Probes, Purpose};
pub use set::PathSet;
pub use spin::Spin;
pub use status::{PathStatus, Statuses};
use std::ops::ControlFlow;
use std::time::Duration;
pub use validate::Validation;

/// One part in so many of the packets that may be remembered is not for data.
const RESERVED: u64 = 8;
/// Packet numbers within which one is skipped on average, at least.
const SKIP_WITHIN: u64 = 128;

/// Round trips for which RTT samples of acknowledgements that came over the path itself keep out
/// others.
const OWN_SAMPLES_FOR: u32 = 8;

/// What a path is built from, out of the connection's configuration.
#[derive(Clone, Debug)]
pub struct PathConfig {
    /// RTT assumed before the first sample (RFC 9002 §6.2.2).
    pub initial_rtt: Duration,
    /// Congestion control algorithm.
    pub congestion: Algorithm,
    /// Whether sends are spread over the round trip (RFC 9002 §7.7).
    pub pacing: bool,
    /// Whether outgoing packets try ECN.
    pub ecn: bool,
    /// The longest delay of an acknowledgement that we announced.
    pub max_ack_delay: Duration,
    /// Datagram sizes and probing.
    pub mtu: MtuConfig,
}

/// How far a path has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathState {
    /// The peer has not answered on it yet: nothing goes there but what finds that out.
    Validating,
    /// In use, or ready for it.
    Open,
    /// Abandoned by either side (multipath §3.4): nothing is sent there, and what may still arrive
    /// is taken until the given time, which is not known before the peer has abandoned it too.
    Abandoned(Option<Timestamp>),
}

/// What a path counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathCounters {
    /// Bytes of UDP payload sent.
    pub bytes_sent: u64,
    /// Bytes of UDP payload received.
    pub bytes_received: u64,
    /// Packets acknowledged, but those of the handshake.
    pub packets_acked: u64,
    /// Bytes of them that were in flight.
    pub bytes_acked: u64,
    /// Packets declared lost, but those of the handshake and probes of the datagram size, whose
    /// loss is none of the path's.
    pub packets_lost: u64,
    /// Bytes of them that were in flight.
    pub bytes_lost: u64,
    /// Packets sent here that hold copies of what another path carried first.
    pub packets_duplicated: u64,
    /// Bytes of them.
    pub bytes_duplicated: u64,
    /// Packets sent here with what was lost or overdue on another path.
    pub packets_reinjected: u64,
    /// Bytes of them.
    pub bytes_reinjected: u64,
    /// Probe timeouts.
    pub ptos: u64,
    /// Times that it may have failed.
    pub failures: u64,
    /// Stream bytes sent here that had been sent before, here or elsewhere.
    pub bytes_retransmitted: u64,
    /// When a packet was last acknowledged.
    pub last_ack: Option<Timestamp>,
}

/// One path's whole state.
#[derive(Debug)]
pub struct Path<F: Copy> {
    /// Its identifier.
    pub id: PathId,
    /// The socket that it sends by.
    pub socket: SocketId,
    /// Its addresses.
    pub tuple: FourTuple,
    /// Round-trip times.
    pub rtt: Rtt,
    /// Congestion control.
    pub cc: Controller,
    /// Pacing.
    pub pacer: Pacer,
    /// Datagram size.
    pub mtu: MtuDiscovery,
    /// Explicit congestion notification.
    pub ecn: EcnValidator,
    /// 1-RTT (and 0-RTT) packets sent.
    pub sent: SentSpace<F>,
    /// 1-RTT packets received, and when to acknowledge them.
    pub acks: AckPolicy,
    /// The latency spin bit.
    pub spin: Spin,
    /// Address validation and the anti-amplification limit.
    pub validation: Validation,
    /// Addresses other than the one in use.
    pub probes: Probes,
    /// The last addresses that were proven, while the present ones are not or others were in use a
    /// moment ago.
    pub former: Option<Box<Former>>,
    /// Packets below this number were sent to other addresses: they tell nothing about these
    /// (RFC 9000 §9.4).
    pub first_pn: u64,
    /// The largest datagram that the peer takes.
    peer_mtu: u64,
    /// Connection IDs that the peer uses towards us.
    pub local_cids: LocalCids,
    /// Connection IDs that we use towards the peer.
    pub remote_cids: RemoteCids,
    /// Consecutive probe timeouts without an acknowledgement.
    pub pto_count: u32,
    /// Bytes in flight over all packet number spaces that run on this path.
    pub bytes_in_flight: u64,
    /// The congestion window, not the application, held the last train back.
    pub window_limited: bool,
    /// The ECN mark of the train being built.
    pub mark: Ecn,
    /// Bytes that pacing admits in the train being built.
    pub paced: u64,
    /// When the pacer lets the next train go, while it holds one back.
    pub paced_until: Option<Timestamp>,
    /// Probes owed after a PTO (RFC 9002 §6.2.4).
    pub owed_probes: u8,
    /// A PING is to be sent here.
    pub ping: bool,
    /// How far it has come.
    pub state: PathState,
    /// What each side would have the other use it for.
    pub status: Statuses,
    /// Its packets are acknowledged over another path.
    pub acks_away: bool,
    /// Its socket takes nothing now: what can goes by other paths.
    pub held: bool,
    /// When an acknowledgement last came over this path itself, and made an RTT sample; else never.
    own_sample: Timestamp,
    /// Notices that it may have failed; only where several paths are possible.
    pub failure: Option<Box<FailureDetector>>,
    /// What was in flight below this packet number went to other paths after a PTO.
    pub moved_below: u64,
    /// What it counted.
    pub counters: PathCounters,
    /// When a packet was last received.
    pub last_received: Timestamp,
    /// The next packet number to leave unused.
    pub skip_at: u64,
    /// Packet numbers that may be remembered: its share of them.
    most_tracked: u64,
}

impl<F: Copy> Path<F> {
    /// A path over `tuple` with nothing sent or received yet.
    pub fn new(
        id: PathId,
        socket: SocketId,
        tuple: FourTuple,
        config: &PathConfig,
        now: Timestamp,
    ) -> Self {
        let mtu = mtu(config, &tuple, u64::MAX);
        let size = mtu.current();
        Self {
            id,
            socket,
            tuple,
            rtt: Rtt::new(config.initial_rtt),
            cc: Controller::new(config.congestion, size),
            pacer: pacer(config),
            mtu,
            ecn: EcnValidator::new(config.ecn),
            sent: SentSpace::new(),
            acks: AckPolicy::delayed(config.max_ack_delay),
            spin: Spin::default(),
            validation: Validation::default(),
            probes: Probes::default(),
            former: None,
            first_pn: 0,
            peer_mtu: u64::MAX,
            local_cids: LocalCids::default(),
            remote_cids: RemoteCids::default(),
            pto_count: 0,
            bytes_in_flight: 0,
            window_limited: false,
            mark: Ecn::NotEct,
            paced: 0,
            paced_until: None,
            owed_probes: 0,
            ping: false,
            state: PathState::Open,
            status: Statuses::default(),
            acks_away: false,
            held: false,
            own_sample: Timestamp::NEVER,
            failure: None,
            moved_below: 0,
            counters: PathCounters::default(),
            last_received: now,
            skip_at: u64::MAX,
            most_tracked: limits::SENT_PACKETS as u64,
        }
    }

    /// Whether either side has abandoned it.
    #[inline]
    pub fn is_abandoned(&self) -> bool {
        matches!(self.state, PathState::Abandoned(_))
    }

    /// Whether packets may leave by it, if the anti-amplification limit admits them.
    pub fn can_send(&self) -> bool {
        !self.is_abandoned() && self.remote_cids.is_usable() && !self.held
    }

    /// Whether it has not answered for a probe timeout, or may have failed: what else works is
    /// better.
    pub fn is_suspect(&self) -> bool {
        self.pto_count > 0 || self.has_failed()
    }

    /// Whether it may have failed, as its detector says.
    pub fn has_failed(&self) -> bool {
        let detector = self.failure.as_deref();
        detector.is_some_and(FailureDetector::is_failed)
    }

    /// Whether an acknowledgement, which came over another path if `elsewhere`, makes an RTT sample
    /// (multipath §5.4). Those that come over the path itself are better; others count where there
    /// were none for a while, as from a peer that sends all of them over one path.
    pub fn admits_sample(&mut self, now: Timestamp, elsewhere: bool) -> bool {
        if !elsewhere {
            if !self.has_own_sample() && self.id != PathId::ZERO {
                self.rtt.restart_min();
            }
            self.own_sample = now;
            return true;
        }
        let lately = self.rtt.smoothed().saturating_mul(OWN_SAMPLES_FOR);
        if self.has_own_sample() && now < self.own_sample + lately {
            return false;
        }
        if self.has_own_sample() {
            self.own_sample = Timestamp::NEVER;
            self.rtt.restart_min();
        }
        true
    }

    /// Whether an acknowledgement came over this path itself, lately as far as RTT samples go.
    pub fn has_own_sample(&self) -> bool {
        self.own_sample != Timestamp::NEVER
    }

    /// Packets sent.
    pub fn packets_sent(&self) -> u64 {
        self.sent.packets_sent()
    }

    /// Bytes that the anti-amplification limit still admits.
    #[inline]
    pub fn allowance(&self) -> usize {
        usize::try_from(self.validation.allowance()).unwrap_or(usize::MAX)
    }

    /// Bytes that the congestion window still admits.
    #[inline]
    pub fn window_room(&self) -> u64 {
        match self.is_full() {
            true => 0,
            false => self.cc.window().saturating_sub(self.bytes_in_flight),
        }
    }

    /// Whether so many packets wait for an acknowledgement that what is left of its share of
    /// [`SENT_PACKETS`](limits::SENT_PACKETS) is for acknowledgements and probes.
    #[inline]
    pub const fn is_full(&self) -> bool {
        self.sent.tracked() >= self.most_tracked - self.most_tracked / RESERVED
    }

    /// Whether another packet can be remembered at all.
    #[inline]
    pub const fn remembers(&self) -> bool {
        self.sent.tracked() < self.most_tracked
    }

    /// Takes a limit on the datagram size that was learnt late.
    pub fn set_mtu_ceiling(&mut self, size: u64) {
        self.peer_mtu = size;
        if self.mtu.set_ceiling(size) {
            self.cc.on_mtu(self.mtu.current());
        }
    }

    /// Whether all that waits for an acknowledgement are probes of the datagram size, whose loss
    /// tells nothing of the size in use.
    pub fn only_probes_outstanding(&self) -> bool {
        let mut only = true;
        self.sent.for_each_outstanding(|_, packet, _| {
            only &= packet.mtu_probe || !packet.ack_eliciting;
            if only {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        only
    }

    /// Bytes that pacing admits now.
    #[inline]
    pub fn pacing_budget(&mut self, now: Timestamp) -> u64 {
        let pace = pace(&self.rtt, &self.cc, &self.mtu);
        self.pacer.budget(now, &pace)
    }

    /// When pacing lets the next train go; `None` when it holds none back.
    pub fn pacing_release(&self) -> Option<Timestamp> {
        let pace = pace(&self.rtt, &self.cc, &self.mtu);
        self.pacer.next_release(&pace)
    }

    /// The pacing rate, in bytes per second; zero when sending is not paced.
    pub fn pacing_rate(&self) -> u64 {
        let pace = pace(&self.rtt, &self.cc, &self.mtu);
        self.pacer.rate(&pace)
    }

    /// The number of the next packet, after leaving one unused where that is due.
    #[inline]
    pub fn next_packet_number(&mut self, rng: &mut Rng) -> u64 {
        if self.sent.next_packet_number() >= self.skip_at {
            self.skip_packet_number(rng);
        }
        self.sent.next_packet_number()
    }

    /// Leaves a packet number unused and chooses the next: about one in a congestion window, so
    /// that a peer that acknowledges what it has not received soon names one of them
    /// (RFC 9000 §21.4).
    #[cold]
    pub fn skip_packet_number(&mut self, rng: &mut Rng) {
        if self.skip_at != u64::MAX {
            self.sent.skip_packet_number();
        }
        let packets = self.cc.window() / self.mtu.current().max(1) as u64;
        let next = self.sent.next_packet_number();
        self.skip_at = next + 1 + rng.below(2 * packets.max(SKIP_WITHIN));
    }

    /// Starts congestion control and the backoff of probes afresh after a Retry (RFC 9002 §6.3).
    pub fn reset_for_retry(&mut self, config: &PathConfig) {
        self.cc = Controller::new(config.congestion, self.mtu.current());
        self.pacer = pacer(config);
        self.pto_count = 0;
    }
}

/// What the pacing rate follows from.
#[inline]
fn pace<'a>(rtt: &'a Rtt, cc: &Controller, mtu: &MtuDiscovery) -> Pace<'a> {
    Pace {
        rtt,
        window: cc.window(),
        in_slow_start: cc.in_slow_start(),
        mtu: mtu.current(),
        explicit: cc.pacing(),
    }
}

/// Datagram sizes of a path: IPv4's own length field admits less than IPv6's.
fn mtu(config: &PathConfig, tuple: &FourTuple, peer: u64) -> MtuDiscovery {
    let mut mtu = MtuDiscovery::new(config.mtu);
    mtu.set_ceiling(peer);
    if tuple.remote.is_ipv4() {
        mtu.set_ceiling(limits::MAX_UDP_PAYLOAD_V4 as u64);
    }
    mtu
}

fn pacer(config: &PathConfig) -> Pacer {
    if config.pacing {
        Pacer::new()
    } else {
        Pacer::disabled()
    }
}
