//! How much of a server one network may have: handshakes under way and handshakes begun a second,
//! counted by prefix.
//!
//! What is counted is what costs: attempts that got as far as TLS or wait for the application. The
//! table is bounded by the half-open limit where no rate is set, and by [`limits::PREFIXES`]
//! otherwise; prefixes that find it full share one entry. Its hash is keyed. Clients that proved
//! their address are counted apart: what is forged in a network's name must not shut out its owner.
//! What happens to an attempt beyond the cap is `incoming`'s.

use crate::base::{Timestamp, limits};
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// What one network may have of an endpoint that accepts connections.
///
/// An IPv4 address is what one customer gets, or shares with many others; a home gets an IPv6
/// prefix of 56 bits (RFC 6177 §2), so that counting by address would count nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixCaps {
    /// Leading bits of an IPv4 address that make a prefix, at most 32. Default 32.
    pub v4_bits: u8,
    /// Leading bits of an IPv6 address that make a prefix, at most 128. Default 56.
    pub v6_bits: u8,
    /// Handshakes under way from one prefix, at most: so many of clients that proved their
    /// address, and so many of others. Default a quarter of [`limits::HALF_OPEN`].
    pub half_open: u32,
    /// Handshakes that one prefix may begin a second, in the long run, with proof and without
    /// each; zero sets no bound, which is the default.
    pub rate: u32,
    /// Handshakes that it may begin at once, when it has begun none for a while. Default 256.
    pub burst: u32,
}

impl Default for PrefixCaps {
    fn default() -> Self {
        Self {
            v4_bits: 32,
            v6_bits: 56,
            half_open: limits::HALF_OPEN as u32 / 4,
            rate: 0,
            burst: 256,
        }
    }
}

/// What is counted as one: clients of a network that proved their address, or its others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Prefix {
    network: Network,
    proven: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Network {
    V4(u32),
    V6(u128),
    /// All that found no room in the table.
    Others,
}

#[derive(Debug)]
struct Usage {
    half_open: u32,
    /// When the handshakes begun so far are paid for at the permitted rate: a token bucket in one
    /// number.
    paid_at: Timestamp,
}

#[derive(Debug)]
pub(super) struct Admission {
    caps: PrefixCaps,
    table: HashMap<Prefix, Usage>,
    /// When the table was last searched for prefixes to forget.
    swept_at: Timestamp,
}

impl Admission {
    pub(super) fn new(caps: PrefixCaps) -> Self {
        Self {
            caps,
            table: HashMap::new(),
            swept_at: Timestamp::ZERO,
        }
    }

    fn network(&self, ip: IpAddr) -> Network {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let drop = 32u32.saturating_sub(self.caps.v4_bits.into());
                Network::V4(ip.to_bits().checked_shr(drop).unwrap_or(0))
            }
            IpAddr::V6(ip) => {
                let drop = 128u32.saturating_sub(self.caps.v6_bits.into());
                Network::V6(ip.to_bits().checked_shr(drop).unwrap_or(0))
            }
        }
    }

    /// Time that one handshake takes of the permitted rate.
    fn price(&self) -> Duration {
        let second = Duration::from_secs(1);
        second.checked_div(self.caps.rate).unwrap_or(Duration::ZERO)
    }

    /// Begins a handshake from `ip`, which is proven or only claimed; give the result to
    /// [`Admission::end`] when it has ended. `None` when its prefix has all it may.
    pub(super) fn begin(&mut self, now: Timestamp, ip: IpAddr, proven: bool) -> Option<Prefix> {
        let mut prefix = Prefix {
            network: self.network(ip),
            proven,
        };
        if !self.table.contains_key(&prefix) && !self.has_room(now) {
            prefix.network = Network::Others;
        }
        let (price, caps) = (self.price(), self.caps);
        let usage = self.table.entry(prefix).or_insert(Usage {
            half_open: 0,
            paid_at: now,
        });
        let ahead = usage.paid_at.max(now) + price;
        let too_fast = ahead.saturating_since(now) > price * caps.burst.max(1);
        if usage.half_open >= caps.half_open || too_fast {
            return None;
        }
        usage.half_open += 1;
        usage.paid_at = ahead;
        Some(prefix)
    }

    /// A handshake has completed or failed.
    pub(super) fn end(&mut self, prefix: Option<Prefix>) {
        let Some(prefix) = prefix else { return };
        if let Some(usage) = self.table.get_mut(&prefix) {
            usage.half_open = usage.half_open.saturating_sub(1);
            // What is left to pay is remembered, until a search finds it paid.
            if usage.half_open == 0 && self.caps.rate == 0 {
                self.table.remove(&prefix);
            }
        }
    }

    fn has_room(&mut self, now: Timestamp) -> bool {
        if self.table.len() < limits::PREFIXES {
            return true;
        }
        // A search costs as much as the table is large: one a second is enough.
        if now.saturating_since(self.swept_at) >= Duration::from_secs(1) {
            self.swept_at = now;
            self.table
                .retain(|_, usage| usage.half_open > 0 || usage.paid_at > now);
        }
        self.table.len() < limits::PREFIXES
    }

    /// Prefixes in the table.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.table.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_nanos(1_000_000_000);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn admission(half_open: u32, rate: u32, burst: u32) -> Admission {
        Admission::new(PrefixCaps {
            half_open,
            rate,
            burst,
            ..PrefixCaps::default()
        })
    }

    #[test]
    fn a_prefix_has_so_many_handshakes_and_gets_them_back() {
        let mut a = admission(2, 0, 1);
        let first = a.begin(START, ip("192.0.2.1"), false);
        let second = a.begin(START, ip("::ffff:192.0.2.1"), false);
        assert!(first.is_some() && first == second, "mapped is the same");
        assert_eq!(a.begin(START, ip("192.0.2.1"), false), None);
        assert!(a.begin(START, ip("192.0.2.2"), false).is_some());
        a.end(first);
        assert!(a.begin(START, ip("192.0.2.1"), false).is_some());
        let home = a.begin(START, ip("2001:db8:0:1100::1"), false);
        assert_eq!(a.begin(START, ip("2001:db8:0:11ff:9::2"), false), home);
        assert_eq!(a.begin(START, ip("2001:db8:0:1101::3"), false), None);
        assert!(a.begin(START, ip("2001:db8:0:1200::3"), false).is_some());
    }

    #[test]
    fn what_is_claimed_takes_nothing_from_what_is_proven() {
        let mut a = admission(1, 10, 1);
        let owner = ip("192.0.2.1");
        assert!(a.begin(START, owner, false).is_some());
        assert_eq!(a.begin(START, owner, false), None);
        let proven = a.begin(START, owner, true);
        assert!(proven.is_some());
        assert_eq!(a.begin(START, owner, true), None);
        a.end(proven);
        let later = START + Duration::from_secs(1);
        assert_eq!(a.begin(later, owner, false), None, "under way still");
        assert!(a.begin(later, owner, true).is_some());
    }

    #[test]
    fn nothing_stays_of_what_has_ended() {
        let mut a = admission(10, 0, 1);
        let all: Vec<_> = (0..1000u32)
            .map(|n| a.begin(START, IpAddr::V4(n.into()), false))
            .collect();
        assert_eq!(a.len(), 1000);
        all.into_iter().for_each(|p| a.end(p));
        assert_eq!(a.len(), 0);
    }

    #[test]
    fn a_rate_lets_a_burst_pass_and_then_its_share() {
        let mut a = admission(1000, 10, 5);
        let client = ip("192.0.2.1");
        let mut begun = |now| {
            let mut n = 0;
            while let Some(p) = a.begin(now, client, false) {
                a.end(Some(p));
                n += 1;
            }
            n
        };
        assert_eq!(begun(START), 5);
        assert_eq!(begun(START + Duration::from_millis(99)), 0);
        assert_eq!(begun(START + Duration::from_millis(100)), 1);
        assert_eq!(begun(START + Duration::from_millis(400)), 3);
        assert_eq!(begun(START + Duration::from_secs(60)), 5, "no more saved");
    }

    #[test]
    fn a_full_table_puts_the_rest_together_and_empties_in_time() {
        let mut a = admission(8, 1, 1);
        for n in 0..2 * limits::PREFIXES as u32 {
            let p = a.begin(START, IpAddr::V4(n.into()), false);
            assert_eq!(p.is_some(), n <= limits::PREFIXES as u32, "{n}");
            a.end(p);
        }
        assert_eq!(a.len(), limits::PREFIXES + 1);
        let later = START + Duration::from_secs(5);
        assert!(a.begin(later, ip("203.0.113.1"), false).is_some());
        assert_eq!(a.len(), 1);
    }

    #[test]
    fn any_number_of_bits_is_a_prefix() {
        for (v4_bits, v6_bits) in [(0, 0), (24, 64), (32, 128), (255, 255)] {
            let caps = PrefixCaps {
                v4_bits,
                v6_bits,
                ..PrefixCaps::default()
            };
            let mut a = Admission::new(caps);
            assert!(a.begin(START, ip("255.255.255.255"), false).is_some());
            assert!(a.begin(START, ip("ffff::1"), false).is_some());
        }
    }
}
