//! The paths among which a scheduler chooses, found in one pass.
//!
//! The best class that has a path is taken whole: available, else backup, else whatever is
//! validated. A path whose window is full still keeps its class: waiting for it is better than
//! what a backup path may cost.

use super::PathView;
use crate::base::Timestamp;

/// Sets of paths, as bits over their places in the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidates {
    usable: u32,
    sendable: u32,
}

impl Candidates {
    /// Paths that are looked at.
    pub const MAX: usize = u32::BITS as usize;

    /// Sorts `paths` out.
    #[inline]
    pub fn of(now: Timestamp, paths: &[PathView]) -> Self {
        let (mut available, mut backup, mut suspect, mut open) = (0, 0, 0, 0);
        let mut bit = 1u32;
        for path in paths.iter().take(Self::MAX) {
            if path.validated {
                if path.potentially_failed {
                    suspect |= bit;
                } else if path.is_backup() {
                    backup |= bit;
                } else {
                    available |= bit;
                }
                if path.can_send(now) {
                    open |= bit;
                }
            }
            bit = bit.wrapping_shl(1);
        }
        let usable = if available != 0 {
            available
        } else if backup != 0 {
            backup
        } else {
            suspect
        };
        Self {
            usable,
            sendable: usable & open,
        }
    }

    /// Nothing is usable.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.usable == 0
    }

    /// The path of the lowest latency, and that of the lowest latency that can send now; the same
    /// when the former can. `None` when none can send.
    #[inline]
    pub fn fastest<'a>(&self, paths: &'a [PathView]) -> Option<(&'a PathView, &'a PathView)> {
        let fast = self.usable(paths).min_by_key(|p| (p.latency(), p.id))?;
        let next = self.sendable(paths).min_by_key(|p| (p.latency(), p.id))?;
        Some((fast, next))
    }

    /// The paths to choose from, held back or not.
    #[inline]
    pub fn usable<'a>(
        &self,
        paths: &'a [PathView],
    ) -> impl Iterator<Item = &'a PathView> + use<'a> {
        Bits(self.usable, paths)
    }

    /// Those of them that can send now.
    #[inline]
    pub fn sendable<'a>(
        &self,
        paths: &'a [PathView],
    ) -> impl Iterator<Item = &'a PathView> + use<'a> {
        Bits(self.sendable, paths)
    }
}

/// The paths whose bits are set.
struct Bits<'a>(u32, &'a [PathView]);

impl<'a> Iterator for Bits<'a> {
    type Item = &'a PathView;

    #[inline]
    fn next(&mut self) -> Option<&'a PathView> {
        if self.0 == 0 {
            return None;
        }
        let path = self.1.get(self.0.trailing_zeros() as usize);
        self.0 &= self.0 - 1;
        path
    }
}
