//! One direction between two hosts: what it does to a datagram that enters it.
//!
//! In this order, as on a real path: too large for the MTU, queued behind others (and marked or
//! dropped when the queue is long), sent at the link's rate, lost, delayed, reordered, damaged,
//! doubled. Every link draws from its own generator, so that what happens on one does not depend
//! on the traffic of another. Blackholes and address translation are the network's.

use crate::base::{Ecn, Rng, Timestamp};
use std::time::Duration;

/// Loss that comes in bursts: a two-state Markov chain, one step a datagram (Gilbert-Elliott).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BurstLoss {
    /// Probability of a burst beginning at a datagram.
    pub enter: f64,
    /// Probability of a burst ending at a datagram.
    pub leave: f64,
    /// Probability of loss inside of a burst.
    pub loss: f64,
}

/// What a link does. Probabilities are per datagram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkConfig {
    /// Propagation delay.
    pub delay: Duration,
    /// Additional delay, uniform between zero and this. Does not reorder by itself.
    pub jitter: Duration,
    /// Bits a second, IP headers included; no limit and no queue when `None`.
    pub rate_bps: Option<u64>,
    /// Bytes that wait for the link before it drops; only with a rate.
    pub queue_bytes: u64,
    /// Bytes that wait before an ECN-capable datagram is marked; only with a rate.
    pub ecn_mark_bytes: Option<u64>,
    /// Probability of loss, independent of other datagrams.
    pub loss: f64,
    /// Loss in bursts, on top of `loss`.
    pub burst_loss: Option<BurstLoss>,
    /// Probability that a datagram is held back by `reorder_delay`, and others overtake it.
    pub reorder: f64,
    /// How long a reordered datagram is held back.
    pub reorder_delay: Duration,
    /// Probability that a datagram arrives twice.
    pub duplicate: f64,
    /// Probability that one bit of a datagram is flipped, and the UDP checksum does not notice.
    pub corrupt: f64,
    /// The largest IP packet; larger ones vanish without a word, as on a path that drops ICMP.
    pub mtu: usize,
    /// Probability that the datagrams of one send stay together and arrive as one train (GRO).
    pub gro: f64,
}

impl Default for LinkConfig {
    /// A millisecond away, otherwise perfect, and as wide as a loopback interface.
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(1),
            jitter: Duration::ZERO,
            rate_bps: None,
            queue_bytes: 256 * 1024,
            ecn_mark_bytes: None,
            loss: 0.0,
            burst_loss: None,
            reorder: 0.0,
            reorder_delay: Duration::from_millis(5),
            duplicate: 0.0,
            corrupt: 0.0,
            mtu: 65_575,
            gro: 0.0,
        }
    }
}

/// Why a datagram did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The link lost it, at random or in a burst.
    Random,
    /// The link's queue was full.
    Queue,
    /// It was larger than the link's MTU.
    TooLarge,
    /// A blackhole was open.
    Blackhole,
    /// The test's filter took it.
    Filter,
}

/// What a link did with a datagram that it did not lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// When it arrives.
    pub at: Timestamp,
    /// Its ECN field at arrival.
    pub ecn: Ecn,
    /// When a second copy arrives.
    pub copy_at: Option<Timestamp>,
    /// Which bit was flipped.
    pub corrupt_bit: Option<usize>,
    /// Whether it was held back so that others overtake it.
    pub reordered: bool,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) config: LinkConfig,
    rng: Rng,
    /// When the last queued datagram has been sent.
    busy_until: Timestamp,
    /// When the last datagram that kept its place arrives.
    last_arrival: Timestamp,
    in_burst: bool,
}

impl Link {
    pub(super) fn new(config: LinkConfig, rng: Rng) -> Self {
        Self {
            config,
            rng,
            busy_until: Timestamp::ZERO,
            last_arrival: Timestamp::ZERO,
            in_burst: false,
        }
    }

    /// Whether the datagrams of a send that begins now stay together.
    pub(super) fn keeps_trains(&mut self) -> bool {
        draw(&mut self.rng, self.config.gro)
    }

    /// Sends a datagram of `payload` bytes with `headers` bytes around it into the link.
    pub(super) fn pass(
        &mut self,
        now: Timestamp,
        payload: usize,
        headers: usize,
        ecn: Ecn,
    ) -> Result<Passage, Loss> {
        let size = payload + headers;
        if size > self.config.mtu {
            return Err(Loss::TooLarge);
        }
        let (sent, ecn) = self.enqueue(now, size as u64, ecn)?;
        if self.loses() {
            return Err(Loss::Random);
        }
        let config = &self.config;
        let reordered = draw(&mut self.rng, config.reorder);
        let mut at = sent + config.delay + jitter(&mut self.rng, config.jitter);
        if reordered {
            at += config.reorder_delay;
        } else {
            at = at.max(self.last_arrival);
            self.last_arrival = at;
        }
        let copy_at = draw(&mut self.rng, config.duplicate)
            .then(|| at + jitter(&mut self.rng, config.delay + config.jitter));
        let corrupt_bit = (payload > 0 && draw(&mut self.rng, config.corrupt))
            .then(|| self.rng.below(payload as u64 * 8) as usize);
        Ok(Passage {
            at,
            ecn,
            copy_at,
            corrupt_bit,
            reordered,
        })
    }

    /// Waits behind what is queued; says when the last bit has been sent.
    fn enqueue(&mut self, now: Timestamp, size: u64, ecn: Ecn) -> Result<(Timestamp, Ecn), Loss> {
        let Some(rate) = self.config.rate_bps else {
            return Ok((now, ecn));
        };
        let rate = u128::from(rate.max(1));
        let waiting = (self.busy_until - now).as_nanos() * rate / 8_000_000_000;
        let after = waiting.saturating_add(u128::from(size));
        // A datagram that meets an idle link is never too long for the queue.
        if waiting > 0 && after > u128::from(self.config.queue_bytes) {
            return Err(Loss::Queue);
        }
        let marked = |limit: u64| waiting > u128::from(limit) && ecn != Ecn::NotEct;
        let ecn = if self.config.ecn_mark_bytes.is_some_and(marked) {
            Ecn::Ce
        } else {
            ecn
        };
        let takes = u128::from(size) * 8_000_000_000 / rate;
        let takes = Duration::from_nanos(u64::try_from(takes).unwrap_or(u64::MAX));
        self.busy_until = self.busy_until.max(now) + takes;
        Ok((self.busy_until, ecn))
    }

    fn loses(&mut self) -> bool {
        let mut lost = draw(&mut self.rng, self.config.loss);
        if let Some(burst) = self.config.burst_loss {
            let turn = if self.in_burst {
                burst.leave
            } else {
                burst.enter
            };
            self.in_burst ^= draw(&mut self.rng, turn);
            lost |= self.in_burst && draw(&mut self.rng, burst.loss);
        }
        lost
    }
}

/// Chance that leaves the generator alone where there is nothing to decide.
fn draw(rng: &mut Rng, p: f64) -> bool {
    p > 0.0 && (p >= 1.0 || rng.chance(p))
}

fn jitter(rng: &mut Rng, most: Duration) -> Duration {
    let most = crate::base::time::nanos(most);
    if most == 0 {
        return Duration::ZERO;
    }
    Duration::from_nanos(rng.below(most.saturating_add(1)))
}
