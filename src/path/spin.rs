//! The latency spin bit of one path (RFC 9000 §17.4): an observer who sees it turn measures a round
//! trip.
//!
//! Off unless configured, and then still off for one path in sixteen, so that no path without it
//! stands out. Where it is off, the bit has a random value for each connection ID.

use crate::base::Rng;
use crate::wire::Side;

/// One in so many paths does without (RFC 9000 §17.4 asks for at least that).
const DISABLED_ONE_IN: u64 = 16;

/// The bit that leaves, and how it follows the one that comes (RFC 9000 §17.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spin {
    enabled: bool,
    value: bool,
}

impl Spin {
    /// A new path's, or that of a new connection ID on it.
    pub fn new(configured: bool, rng: &mut Rng) -> Self {
        let enabled = configured && rng.below(DISABLED_ONE_IN) != 0;
        Self {
            enabled,
            // RFC 9000 §17.4: zero at first where it is on, random where it is off.
            value: !enabled && rng.below(2) == 1,
        }
    }

    /// A packet authenticated whose number is larger than every one before (RFC 9000 §17.4).
    #[inline]
    pub fn on_newest(&mut self, side: Side, bit: bool) {
        if self.enabled {
            // A server reflects, a client inverts.
            self.value = bit ^ side.is_client();
        }
    }

    /// The bit of the next packet.
    #[inline]
    pub const fn value(&self) -> bool {
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_turns_once_a_round_trip() {
        let on = Spin {
            enabled: true,
            value: false,
        };
        let (mut client, mut server) = (on, on);
        let mut seen = Vec::new();
        for _ in 0..4 {
            server.on_newest(Side::Server, client.value());
            client.on_newest(Side::Client, server.value());
            seen.push(client.value());
        }
        assert_eq!(seen, [true, false, true, false]);
    }

    #[test]
    fn one_in_sixteen_stays_off_and_an_unconfigured_one_always() {
        let mut rng = Rng::from_u64(1);
        let on = (0..16_000).filter(|_| Spin::new(true, &mut rng).enabled);
        let off = 16_000 - on.count();
        assert!((800..1200).contains(&off), "{off}");
        let mut ones = 0;
        for _ in 0..1000 {
            let mut spin = Spin::new(false, &mut rng);
            let before = spin.value();
            spin.on_newest(Side::Server, !before);
            assert_eq!(spin.value(), before, "what comes is ignored");
            ones += u32::from(before);
        }
        assert!((400..600).contains(&ones), "{ones}");
    }
}
