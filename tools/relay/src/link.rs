//! One direction of a link: what happens to each datagram and when it comes out.
//!
//! Pure: time and randomness are arguments, so that a seed repeats every decision for the same
//! arrivals. A datagram first meets the faults of the path, then a queue before a transmitter of
//! limited rate, then the propagation delay.

use std::collections::VecDeque;
use std::time::Duration;

/// What one direction does to datagrams. Probabilities are from 0 to 1.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// Propagation delay.
    pub delay: Duration,
    /// Bits per second of the transmitter; `None` for no limit.
    pub rate: Option<u64>,
    /// Datagrams that wait for the transmitter; more are dropped.
    pub queue: usize,
    /// Bytes that wait for the transmitter, headers included; who finds more there is dropped.
    pub queue_bytes: Option<usize>,
    /// The longest wait for the transmitter; a datagram that would wait longer is dropped.
    pub queue_time: Option<Duration>,
    /// Largest UDP payload that fits; larger datagrams are dropped.
    pub mtu: usize,
    /// Probability that a datagram is lost.
    pub loss: f64,
    /// Probability that a datagram's bytes are changed.
    pub corrupt: f64,
    /// Most datagrams that `loss` and `corrupt` hit in a row; 0 for no bound.
    pub burst: u32,
    /// Bursts of loss: the probabilities to enter one and to leave it, both per datagram.
    pub bursts: Option<(f64, f64)>,
    /// Probability that a datagram comes twice.
    pub duplicate: f64,
    /// Probability that a datagram comes `reorder_by` later than its turn.
    pub reorder: f64,
    /// See `reorder`.
    pub reorder_by: Duration,
}

impl Default for LinkConfig {
    /// A perfect link.
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            rate: None,
            queue: 1000,
            queue_bytes: None,
            queue_time: None,
            mtu: 65_527,
            loss: 0.0,
            corrupt: 0.0,
            burst: 0,
            bursts: None,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_by: Duration::from_millis(10),
        }
    }
}

/// One property of a link, for changing it underway; see [`LinkConfig`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "each is the field of LinkConfig of that name")]
pub enum Knob {
    Delay(Duration),
    Rate(Option<u64>),
    Queue(usize),
    QueueBytes(Option<usize>),
    QueueTime(Option<Duration>),
    Mtu(usize),
    Loss(f64),
    Corrupt(f64),
    Duplicate(f64),
    Reorder(f64),
    ReorderBy(Duration),
}

impl LinkConfig {
    /// Turns one knob.
    pub fn set(&mut self, knob: Knob) {
        match knob {
            Knob::Delay(d) => self.delay = d,
            Knob::Rate(r) => self.rate = r,
            Knob::Queue(n) => self.queue = n,
            Knob::QueueBytes(n) => self.queue_bytes = n,
            Knob::QueueTime(d) => self.queue_time = d,
            Knob::Mtu(n) => self.mtu = n,
            Knob::Loss(p) => self.loss = p,
            Knob::Corrupt(p) => self.corrupt = p,
            Knob::Duplicate(p) => self.duplicate = p,
            Knob::Reorder(p) => self.reorder = p,
            Knob::ReorderBy(d) => self.reorder_by = d,
        }
    }
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was delivered as it was.
    Delivered,
    /// It was delivered with changed bytes.
    Corrupted,
    /// It was lost by chance.
    Lost,
    /// The queue was full.
    Overflow,
    /// It was larger than the link carries.
    TooLarge,
    /// The link was off.
    Blackholed,
    /// It was selected to be dropped.
    Selected,
}

impl Fate {
    /// Whether the other side got it, unchanged.
    pub fn arrived(self) -> bool {
        self == Self::Delivered
    }
}

/// The decision about one datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// What became of it.
    pub fate: Fate,
    /// When it comes out; twice when it is duplicated, not at all when it is dropped.
    pub at: Vec<Duration>,
}

impl Passage {
    pub(crate) fn dropped(fate: Fate) -> Self {
        Self {
            fate,
            at: Vec::new(),
        }
    }
}

/// A small seeded generator (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        p > 0.0 && ((self.next() >> 11) as f64) < p * (1u64 << 53) as f64
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// One direction.
#[derive(Clone, Debug)]
pub struct Link {
    config: LinkConfig,
    random: Random,
    /// When those that wait for the transmitter, or are on it, are through.
    departures: VecDeque<Duration>,
    in_burst: bool,
    hit_in_a_row: u32,
    is_off: bool,
}

/// Bytes of IP and UDP headers that the transmitter sends with each datagram.
const HEADERS: usize = 28;

impl Link {
    /// A link with nothing on it.
    pub fn new(config: LinkConfig, seed: u64) -> Self {
        Self {
            config,
            random: Random::new(seed),
            departures: VecDeque::new(),
            in_burst: false,
            hit_in_a_row: 0,
            is_off: false,
        }
    }

    /// Switches the link off or on; what is on it comes out.
    pub fn switch(&mut self, on: bool) {
        self.is_off = !on;
    }

    /// Changes one property; what is on the link goes on as it was.
    pub fn set(&mut self, knob: Knob) {
        self.config.set(knob);
    }

    /// A datagram of `size` bytes arrives at the link.
    pub fn offer(&mut self, now: Duration, size: usize) -> Passage {
        // Every draw is made for every datagram, so that one fault does not shift the others.
        let lost = self.random.chance(self.config.loss);
        let corrupt = self.random.chance(self.config.corrupt);
        let twice = self.random.chance(self.config.duplicate);
        let late = self.random.chance(self.config.reorder);
        let turn = self
            .random
            .chance(match (self.config.bursts, self.in_burst) {
                (None, _) => 0.0,
                (Some((enter, _)), false) => enter,
                (Some((_, leave)), true) => leave,
            });
        self.in_burst ^= turn;
        let bounded = self.config.burst > 0 && self.hit_in_a_row >= self.config.burst;
        let (lost, corrupt) = (lost && !bounded, corrupt && !bounded);
        self.hit_in_a_row = if lost || corrupt {
            self.hit_in_a_row + 1
        } else {
            0
        };
        if self.is_off {
            return Passage::dropped(Fate::Blackholed);
        }
        if size > self.config.mtu {
            return Passage::dropped(Fate::TooLarge);
        }
        if lost || self.in_burst {
            return Passage::dropped(Fate::Lost);
        }
        let Some(sent) = self.transmit(now, size) else {
            return Passage::dropped(Fate::Overflow);
        };
        let extra = if late {
            self.config.reorder_by
        } else {
            Duration::ZERO
        };
        let at = sent + self.config.delay + extra;
        Passage {
            fate: if corrupt {
                Fate::Corrupted
            } else {
                Fate::Delivered
            },
            at: if twice { vec![at, at] } else { vec![at] },
        }
    }

    /// When the last bit is on the wire; `None` when the queue is full.
    fn transmit(&mut self, now: Duration, size: usize) -> Option<Duration> {
        let Some(rate) = self.config.rate else {
            return Some(now);
        };
        while self.departures.front().is_some_and(|&t| t <= now) {
            self.departures.pop_front();
        }
        // The one on the transmitter does not wait.
        if self.departures.len() > self.config.queue {
            return None;
        }
        let bits = ((size + HEADERS) * 8) as u64;
        let start = self.departures.back().copied().unwrap_or(now).max(now);
        if self.is_full(start - now, rate) {
            return None;
        }
        let sent = start + Duration::from_nanos(bits * 1_000_000_000 / rate.max(1));
        self.departures.push_back(sent);
        Some(sent)
    }

    /// Whether a datagram that would wait so long is one too many.
    fn is_full(&self, wait: Duration, rate: u64) -> bool {
        let bytes = wait.as_nanos() * u128::from(rate) / 8_000_000_000;
        let too_many = |max: usize| bytes > max as u128;
        self.config.queue_bytes.is_some_and(too_many)
            || self.config.queue_time.is_some_and(|max| wait > max)
    }

    /// Changes some bytes of a datagram.
    pub fn corrupt(&mut self, data: &mut [u8]) {
        for _ in 0..3 {
            if !data.is_empty() {
                let at = self.random.below(data.len());
                data[at] ^= (self.random.next() | 1) as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn fates(config: LinkConfig, n: u32) -> Vec<Fate> {
        let mut link = Link::new(config, 7);
        (0..n).map(|k| link.offer(MS * k, 1200).fate).collect()
    }

    #[test]
    fn a_transmitter_spaces_datagrams_and_its_queue_overflows() {
        let mut link = Link::new(
            LinkConfig {
                delay: MS * 15,
                rate: Some(10_000_000),
                queue: 25,
                ..LinkConfig::default()
            },
            1,
        );
        let all: Vec<_> = (0..40).map(|_| link.offer(Duration::ZERO, 1222)).collect();
        assert!(all[..26].iter().all(|p| p.fate == Fate::Delivered));
        assert!(all[26..].iter().all(|p| p.fate == Fate::Overflow));
        // 1,250 bytes at 10 Mb/s are a millisecond.
        assert_eq!(all[0].at, [MS * 16]);
        assert_eq!(all[25].at, [MS * 41]);
        assert_eq!(link.offer(MS * 2, 1222).at, [MS * 42]);
    }

    #[test]
    fn a_queue_is_as_long_in_bytes_or_in_time_as_told() {
        let slow = LinkConfig {
            rate: Some(10_000_000),
            ..LinkConfig::default()
        };
        let bytes = LinkConfig {
            queue_bytes: Some(25 * 1250),
            ..slow.clone()
        };
        let time = LinkConfig {
            queue_time: Some(MS * 25),
            ..slow
        };
        for config in [bytes, time] {
            let mut link = Link::new(config, 1);
            let fates: Vec<_> = (0..40).map(|_| link.offer(MS, 1222).fate).collect();
            let taken = fates.iter().filter(|f| f.arrived()).count();
            assert_eq!(taken, 26, "one on the transmitter and 25 behind it");
            assert!(fates[26..].iter().all(|f| *f == Fate::Overflow));
            assert_eq!(link.offer(MS * 2, 1222).fate, Fate::Delivered);
        }
    }

    #[test]
    fn a_link_changes_underway_and_an_outage_shifts_no_chance() {
        let lossy = || LinkConfig {
            loss: 0.5,
            ..LinkConfig::default()
        };
        let (mut a, mut b) = (Link::new(lossy(), 5), Link::new(lossy(), 5));
        for n in 0..300 {
            b.switch(!(100..200).contains(&n));
            let (a, b) = (a.offer(MS * n, 100).fate, b.offer(MS * n, 100).fate);
            let off = (100..200).contains(&n);
            assert_eq!(b, if off { Fate::Blackholed } else { a });
        }
        b.set(Knob::Loss(0.0));
        b.set(Knob::Delay(MS * 9));
        assert_eq!(b.offer(MS, 100).at, [MS * 10]);
    }

    #[test]
    fn loss_is_as_likely_as_asked_and_never_longer_in_a_row() {
        let config = LinkConfig {
            loss: 0.3,
            burst: 3,
            ..LinkConfig::default()
        };
        let fates = fates(config, 10_000);
        let lost = fates.iter().filter(|f| **f == Fate::Lost).count();
        assert!((2800..3050).contains(&lost), "{lost}");
        let run = fates
            .split(|f| *f == Fate::Delivered)
            .map(<[Fate]>::len)
            .max();
        assert_eq!(run, Some(3));
    }

    #[test]
    fn bursts_take_many_in_a_row() {
        let config = LinkConfig {
            bursts: Some((0.01, 0.1)),
            ..LinkConfig::default()
        };
        let fates = fates(config, 10_000);
        let lost = fates.iter().filter(|f| **f == Fate::Lost).count();
        assert!((600..1300).contains(&lost), "{lost}");
        let run = fates
            .split(|f| *f == Fate::Delivered)
            .map(<[Fate]>::len)
            .max();
        assert!(run > Some(10), "{run:?}");
    }

    #[test]
    fn duplicates_reordering_and_corruption_happen() {
        let config = LinkConfig {
            duplicate: 0.1,
            reorder: 0.1,
            corrupt: 0.1,
            ..LinkConfig::default()
        };
        let mut link = Link::new(config, 3);
        let all: Vec<_> = (0..1000).map(|_| link.offer(MS, 100)).collect();
        let count = |f: &dyn Fn(&Passage) -> bool| all.iter().filter(|p| f(p)).count();
        assert!((60..150).contains(&count(&|p| p.at.len() == 2)));
        assert!((60..150).contains(&count(&|p| p.at[0] == MS * 11)));
        assert!((60..150).contains(&count(&|p| p.fate == Fate::Corrupted)));
        let mut data = [0u8; 100];
        link.corrupt(&mut data);
        assert_ne!(data, [0; 100]);
    }

    #[test]
    fn what_is_too_large_does_not_fit() {
        let config = LinkConfig {
            mtu: 1472,
            ..LinkConfig::default()
        };
        let mut link = Link::new(config, 1);
        assert_eq!(link.offer(MS, 1472).fate, Fate::Delivered);
        assert_eq!(link.offer(MS, 1473).fate, Fate::TooLarge);
    }

    #[test]
    fn a_seed_repeats() {
        let config = || LinkConfig {
            loss: 0.2,
            corrupt: 0.1,
            ..LinkConfig::default()
        };
        assert_eq!(fates(config(), 500), fates(config(), 500));
    }
}
