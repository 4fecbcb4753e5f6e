//! Packet sequence numbers: 24 bits that wrap. Two of them are compared by their distance, which is
//! meaningful while it is below 2^23.

/// A packet sequence number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Psn(u32);

impl Psn {
    /// The low 24 bits of `value`.
    #[inline]
    pub const fn new(value: u32) -> Self {
        Self(value & 0xff_ffff)
    }

    /// As a number below 2^24.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The number `n` packets later.
    #[inline]
    pub const fn plus(self, n: u32) -> Self {
        Self::new(self.0.wrapping_add(n))
    }

    /// The number before.
    #[inline]
    pub const fn previous(self) -> Self {
        Self::new(self.0.wrapping_sub(1))
    }

    /// How far this is ahead of `other`; negative when it is behind. −2^23 to 2^23 − 1.
    #[inline]
    pub const fn since(self, other: Self) -> i32 {
        // The difference's sign bit is bit 23: shift it to bit 31 and back.
        (self.0.wrapping_sub(other.0) << 8) as i32 >> 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_wrap_at_24_bits() {
        assert_eq!(Psn::new(0xff_ffff).plus(1), Psn::new(0));
        assert_eq!(Psn::new(0).previous().get(), 0xff_ffff);
        assert_eq!(Psn::new(2).since(Psn::new(0xff_fffe)), 4);
        assert_eq!(Psn::new(0xff_fffe).since(Psn::new(2)), -4);
        assert_eq!(Psn::new(0x80_0000).since(Psn::new(0)), -(1 << 23));
        assert_eq!(Psn::new(0x7f_ffff).since(Psn::new(0)), (1 << 23) - 1);
    }

    proptest! {
        #[test]
        fn what_is_added_is_the_distance(start in any::<u32>(), n in 0u32..1 << 23) {
            let start = Psn::new(start);
            prop_assert_eq!(start.plus(n).since(start), n as i32);
            prop_assert_eq!(start.since(start.plus(n)), -(n as i32));
        }
    }
}
