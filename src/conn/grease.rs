//! The fixed bit with unpredictable values, for peers that declared to take it (RFC 9287).

use super::{Endpoint, TransportConfig};
use crate::base::Rng;
use crate::wire::header::FIXED_BIT;
use std::sync::Arc;

/// Clears the fixed bit of every other packet, on average, once switched on.
#[derive(Debug, Default)]
pub(super) struct FixedBit {
    on: bool,
    /// Random bits that are left, below a one that marks their end.
    bits: u64,
}

impl FixedBit {
    /// The peer takes any value (RFC 9287 §3.1).
    pub(super) fn switch_on(&mut self) {
        self.on = true;
    }

    /// Gives the fixed bit of a packet that is not sealed yet its value.
    #[inline]
    pub(super) fn apply(&mut self, packet: &mut [u8], rng: &mut Rng) {
        if self.on
            && let Some(first) = packet.first_mut()
        {
            if self.bits <= 1 {
                self.bits = rng.next_u64() | 1 << 63;
            }
            // Bit 0 of the pool in the place of 0x40: no branch to mispredict.
            *first &= !FIXED_BIT | ((self.bits & 1) as u8) << 6;
            self.bits >>= 1;
        }
    }
}

impl Endpoint {
    /// Takes and asks for packets with the fixed bit alone, whatever a configuration says: another
    /// protocol shares the sockets, and is told from QUIC by that bit (RFC 9287 §3.1).
    pub fn keep_fixed_bit(&mut self) {
        self.keeps_fixed_bit = true;
        self.transport = self.with_fixed_bit(self.transport.clone());
    }

    /// A connection's configuration, without greasing where that is not possible.
    pub(super) fn with_fixed_bit(&self, mut config: Arc<TransportConfig>) -> Arc<TransportConfig> {
        if self.keeps_fixed_bit && config.grease_quic_bit {
            Arc::make_mut(&mut config).grease_quic_bit = false;
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_packets_lose_the_bit_and_nothing_else() {
        let (mut bit, mut rng) = (FixedBit::default(), Rng::from_u64(1));
        let mut packet = [0xff, 1];
        bit.apply(&mut packet, &mut rng);
        assert_eq!(packet, [0xff, 1], "off until the peer is known to take it");
        bit.switch_on();
        let mut cleared = 0;
        for _ in 0..10_000 {
            let mut packet = [0xff, 1];
            bit.apply(&mut packet, &mut rng);
            assert_eq!((packet[0] | FIXED_BIT, packet[1]), (0xff, 1));
            cleared += u32::from(packet[0] & FIXED_BIT == 0);
        }
        assert!((4_700..5_300).contains(&cleared), "{cleared}");
    }
}
