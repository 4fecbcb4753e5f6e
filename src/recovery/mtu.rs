//! Datagram size discovery: DPLPMTUD (RFC 8899) as QUIC does it (RFC 9000 §14.3).
//!
//! Starting from a size that every path carries, sizes that links are likely to have are probed in
//! ascending order, then the interval that is left is halved. One probe is on its way at a time;
//! a size counts as too large when three were lost. When packets above the base size stop arriving
//! the path has become a black hole, and the base size is used until the search begins anew. There
//! is no size below 1,200 bytes (RFC 9000 §14, §14.2).

use crate::base::{Timestamp, limits};
use std::time::Duration;

/// Probes of one size that must be lost before it counts as too large: `MAX_PROBES`
/// (RFC 8899 §5.1.2).
const MAX_PROBES: u8 = 3;
/// Time after which a finished search begins anew: `PMTU_RAISE_TIMER` (RFC 8899 §5.1.1).
const RAISE_INTERVAL: Duration = Duration::from_secs(600);
/// Time after a black hole until the search begins anew.
const BLACK_HOLE_PAUSE: Duration = Duration::from_secs(60);
/// Loss events or probe timeouts, with nothing above the base size acknowledged in between, that
/// make a black hole.
const BLACK_HOLE_EVENTS: u8 = 3;
/// The search ends when the interval is this small: more is not worth probes.
const PRECISION: usize = 16;
/// UDP payloads of likely links: Ethernet and jumbo frames over IPv6 and IPv4, a step towards
/// loopback, and loopback itself over IPv6 (its MTU is 65,536).
const LIKELY: [usize; 6] = [1452, 1472, 8952, 8972, 16_384, 65_488];

/// How the datagram size of a path is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MtuConfig {
    /// The size at the start, in bytes of UDP payload.
    pub initial: usize,
    /// The largest size to try.
    pub max: usize,
    /// Probe for larger sizes; otherwise `initial` stays.
    pub discover: bool,
}

impl Default for MtuConfig {
    fn default() -> Self {
        Self {
            initial: limits::MIN_UDP_PAYLOAD,
            max: limits::MAX_UDP_PAYLOAD,
            discover: true,
        }
    }
}

impl MtuConfig {
    /// A size that is never changed.
    pub const fn fixed(size: usize) -> Self {
        Self {
            initial: size,
            max: size,
            discover: false,
        }
    }
}

/// The datagram size of one path, and the search for a larger one.
#[derive(Clone, Debug)]
pub struct MtuDiscovery {
    current: usize,
    /// Where a black hole falls back to.
    base: usize,
    /// The largest size that both ends allow.
    ceiling: usize,
    /// The largest size not known to be too large.
    high: usize,
    /// The probe on its way.
    in_flight: Option<usize>,
    /// Probes lost of the size now being probed.
    lost: u8,
    /// When the next search begins; `None` while one goes on.
    next_search: Option<Timestamp>,
    /// Events that point at a black hole.
    suspicion: u8,
    black_holes: u64,
    discover: bool,
}

impl MtuDiscovery {
    /// Discovery that starts with the first [`MtuDiscovery::poll_probe`]. Sizes are held to what
    /// QUIC allows.
    pub fn new(config: MtuConfig) -> Self {
        let allowed = limits::MIN_UDP_PAYLOAD..=limits::MAX_UDP_PAYLOAD;
        let initial = config.initial.clamp(*allowed.start(), *allowed.end());
        let ceiling = config.max.clamp(initial, *allowed.end());
        Self {
            current: initial,
            base: limits::MIN_UDP_PAYLOAD,
            ceiling,
            high: ceiling,
            in_flight: None,
            lost: 0,
            next_search: None,
            suspicion: 0,
            black_holes: 0,
            discover: config.discover,
        }
    }

    /// Bytes of UDP payload that a datagram may have now.
    #[inline]
    pub const fn current(&self) -> usize {
        self.current
    }

    /// Black holes found.
    pub const fn black_holes(&self) -> u64 {
        self.black_holes
    }

    /// Takes the peer's `max_udp_payload_size`, or another limit learnt late. True when the current
    /// size shrank.
    pub fn set_ceiling(&mut self, size: u64) -> bool {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        self.ceiling = self.ceiling.min(size.max(limits::MIN_UDP_PAYLOAD));
        self.high = self.high.min(self.ceiling);
        let shrinks = self.current > self.ceiling;
        self.current = self.current.min(self.ceiling);
        shrinks
    }

    /// The size of a probe to send now, if one is due: a datagram of exactly that size with PING
    /// and PADDING. The caller reports its fate, or calls [`MtuDiscovery::cancel_probe`].
    #[inline]
    pub fn poll_probe(&mut self, now: Timestamp) -> Option<usize> {
        if !self.may_probe(now) {
            return None;
        }
        if self.next_search.take().is_some() {
            self.high = self.ceiling;
            self.lost = 0;
        }
        let size = self.next_size();
        match size {
            Some(_) => self.in_flight = size,
            None => self.next_search = Some(now + RAISE_INTERVAL),
        }
        size
    }

    /// Whether [`poll_probe`](Self::poll_probe) may have one.
    #[inline]
    pub fn may_probe(&self, now: Timestamp) -> bool {
        self.discover && self.in_flight.is_none() && self.next_search.is_none_or(|at| at <= now)
    }

    /// The size to probe next; `None` when the search is over.
    fn next_size(&self) -> Option<usize> {
        if self.current >= self.high {
            return None;
        }
        let likely = LIKELY.into_iter().chain([self.ceiling]);
        let next = likely.filter(|&s| self.current < s && s <= self.high).min();
        if next.is_some() {
            return next;
        }
        let interval = self.high - self.current;
        (interval > PRECISION).then_some(self.current + interval.div_ceil(2))
    }

    /// The probe that [`MtuDiscovery::poll_probe`] asked for was not sent.
    pub fn cancel_probe(&mut self) {
        self.in_flight = None;
    }

    /// A probe of `size` bytes was acknowledged. True when the current size grew.
    pub fn on_probe_acked(&mut self, size: usize) -> bool {
        if self.in_flight == Some(size) {
            self.in_flight = None;
            self.lost = 0;
        }
        let grows = self.current < size && size <= self.ceiling;
        if grows {
            self.current = size;
            // A late acknowledgement of a probe given up for lost proves it wrong.
            self.high = self.high.max(size);
            self.suspicion = 0;
        }
        grows
    }

    /// A probe of `size` bytes was lost.
    pub fn on_probe_lost(&mut self, size: usize) {
        if self.in_flight != Some(size) {
            return;
        }
        self.in_flight = None;
        self.lost += 1;
        if self.lost >= MAX_PROBES {
            self.exclude(size);
        }
    }

    /// The system refused to send a datagram of `size` bytes (EMSGSIZE): no use in trying again.
    pub fn on_too_large(&mut self, size: usize) {
        if self.in_flight == Some(size) {
            self.in_flight = None;
        }
        if size > self.current {
            self.exclude(size);
        }
    }

    fn exclude(&mut self, size: usize) {
        self.lost = 0;
        self.high = self.high.min(size.saturating_sub(1)).max(self.current);
    }

    /// Packets were acknowledged, of which the largest had `max_size` bytes.
    #[inline]
    pub fn on_packets_acked(&mut self, max_size: u16) {
        if usize::from(max_size) > self.base {
            self.suspicion = 0;
        }
    }

    /// Packets other than probes were lost at once, of which the largest had `max_size` bytes.
    /// True when that reveals a black hole: the current size is the base size then.
    pub fn on_packets_lost(&mut self, now: Timestamp, max_size: u16) -> bool {
        usize::from(max_size) > self.base && self.suspect(now)
    }

    /// A probe timeout went by (RFC 9002 §6.2). True as for [`MtuDiscovery::on_packets_lost`].
    pub fn on_pto(&mut self, now: Timestamp) -> bool {
        self.suspect(now)
    }

    /// RFC 8899 §4.3.
    fn suspect(&mut self, now: Timestamp) -> bool {
        if !self.discover || self.current <= self.base {
            return false;
        }
        self.suspicion += 1;
        if self.suspicion < BLACK_HOLE_EVENTS {
            return false;
        }
        self.suspicion = 0;
        self.black_holes += 1;
        self.current = self.base;
        self.in_flight = None;
        self.lost = 0;
        self.next_search = Some(now + BLACK_HOLE_PAUSE);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(s: u64) -> Timestamp {
        Timestamp::from_nanos(s * 1_000_000_000)
    }

    /// Probes on a path that carries `limit` bytes until the search is over; how many it took.
    fn search(mtu: &mut MtuDiscovery, limit: usize, now: Timestamp) -> usize {
        let mut probes = 0;
        while let Some(size) = mtu.poll_probe(now) {
            assert_eq!(mtu.poll_probe(now), None, "one at a time");
            assert!(size > mtu.current());
            probes += 1;
            assert!(probes < 200, "the search ends");
            if size <= limit {
                assert!(mtu.on_probe_acked(size));
                assert_eq!(mtu.current(), size);
            } else {
                mtu.on_probe_lost(size);
            }
        }
        probes
    }

    fn found(limit: usize) -> (usize, usize) {
        let mut mtu = MtuDiscovery::new(MtuConfig::default());
        let probes = search(&mut mtu, limit, at(0));
        (mtu.current(), probes)
    }

    #[test]
    fn loopback_reaches_the_largest_datagram() {
        assert_eq!(found(65_527), (65_527, 7));
        let mut v4 = MtuDiscovery::new(MtuConfig {
            max: 65_507,
            ..MtuConfig::default()
        });
        search(&mut v4, 65_507, at(0));
        assert_eq!(v4.current(), 65_507);
    }

    #[test]
    fn likely_links_are_found_exactly() {
        for size in LIKELY {
            assert_eq!(found(size).0, size);
        }
        // 1472 is found with two probes; what is beyond costs three losses a step.
        let (_, probes) = found(1472);
        assert!(probes <= 2 + 3 * 10, "{probes}");
        assert_eq!(found(1200).0, 1200);
        assert_eq!(found(1400).0, 1389); // the midpoints 1326, 1389 and no closer than 16
    }

    #[test]
    fn a_size_is_too_large_after_three_losses() {
        let mut mtu = MtuDiscovery::new(MtuConfig::default());
        for _ in 0..3 {
            assert_eq!(mtu.poll_probe(at(0)), Some(1452));
            mtu.on_probe_lost(1452);
            mtu.on_probe_lost(1452); // counted once
        }
        let next = mtu.poll_probe(at(0)).expect("search goes on");
        assert!(next < 1452);
        // The system's refusal takes one.
        mtu.on_too_large(next);
        assert!(mtu.poll_probe(at(0)).is_some_and(|size| size < next));
    }

    #[test]
    fn an_unsent_probe_is_asked_for_again() {
        let mut mtu = MtuDiscovery::new(MtuConfig::default());
        assert_eq!(mtu.poll_probe(at(0)), Some(1452));
        mtu.cancel_probe();
        assert_eq!(mtu.poll_probe(at(0)), Some(1452));
    }

    #[test]
    fn a_finished_search_begins_anew_after_ten_minutes() {
        let mut mtu = MtuDiscovery::new(MtuConfig::default());
        search(&mut mtu, 1472, at(0));
        assert_eq!(mtu.poll_probe(at(599)), None);
        assert_eq!(search(&mut mtu, 65_527, at(600)), 5);
        assert_eq!(mtu.current(), 65_527);
    }

    #[test]
    fn the_peers_limit_is_kept() {
        let mut mtu = MtuDiscovery::new(MtuConfig::default());
        assert!(!mtu.set_ceiling(1500));
        search(&mut mtu, 65_527, at(0));
        assert_eq!(mtu.current(), 1500);
        assert!(mtu.set_ceiling(1300));
        assert_eq!(mtu.current(), 1300);
        // Nonsense below the minimum is not followed.
        assert!(mtu.set_ceiling(0));
        assert_eq!(mtu.current(), 1200);
        assert!(!mtu.set_ceiling(u64::MAX));
    }

    #[test]
    fn a_fixed_size_stays() {
        let mut mtu = MtuDiscovery::new(MtuConfig::fixed(8972));
        assert_eq!((mtu.current(), mtu.poll_probe(at(0))), (8972, None));
        for _ in 0..10 {
            assert!(!mtu.on_pto(at(0)) && !mtu.on_packets_lost(at(0), 8972));
        }
        assert_eq!(mtu.current(), 8972);
    }

    #[test]
    fn a_black_hole_falls_back_and_searches_later() {
        let mut mtu = MtuDiscovery::new(MtuConfig::default());
        search(&mut mtu, 65_527, at(0));
        assert!(!mtu.on_packets_lost(at(1), 60_000) && !mtu.on_pto(at(1)));
        // Something large arrived: no black hole.
        mtu.on_packets_acked(1201);
        assert!(!mtu.on_pto(at(2)) && !mtu.on_pto(at(2)));
        // Small packets prove nothing, neither way.
        mtu.on_packets_acked(1200);
        assert!(!mtu.on_packets_lost(at(2), 1200));
        assert!(mtu.on_pto(at(2)));
        assert_eq!((mtu.current(), mtu.black_holes()), (1200, 1));
        assert!(!mtu.on_pto(at(2)), "no further down");
        assert_eq!(mtu.poll_probe(at(61)), None);
        search(&mut mtu, 1472, at(62));
        assert_eq!(mtu.current(), 1472);
    }

    #[test]
    fn a_late_acknowledgement_still_counts() {
        let mut mtu = MtuDiscovery::new(MtuConfig::default());
        search(&mut mtu, 1200, at(0));
        assert!(mtu.on_probe_acked(1452));
        assert_eq!(mtu.current(), 1452);
        assert!(!mtu.on_probe_acked(1452));
    }

    proptest! {
        #[test]
        fn the_search_ends_close_below_the_limit(
            limit in 1200usize..70_000, max in 1200usize..65_527, initial in 0usize..3000
        ) {
            let mut mtu = MtuDiscovery::new(MtuConfig { initial, max, discover: true });
            let start = mtu.current();
            let probes = search(&mut mtu, limit.max(start), at(0));
            let best = limit.max(start).min(max.max(start));
            prop_assert!(mtu.current() <= best);
            prop_assert!(best - mtu.current() <= PRECISION);
            prop_assert!(probes <= 60, "{} probes", probes);
        }
    }
}
