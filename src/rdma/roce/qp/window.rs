//! How much of SENDs and WRITEs is under way: more once that much was taken, less after loss.
//!
//! RoCE v2 has no congestion control of its own; what can be lost between two shards is what the
//! receiver's socket has no room for. Its tail is found out by a timeout only, so a size that lost
//! something is not tried again soon.

use crate::base::limits::{ROCE_WINDOW, ROCE_WINDOW_START, ROCE_WINDOW_STEP};

/// Windows without loss after which the size that once lost something is tried again.
const PATIENCE: usize = 4096;

/// A queue pair's window, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    allowed: usize,
    /// How far it grows with each window that was taken.
    most: usize,
    /// Acknowledged since it changed.
    earned: usize,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            allowed: ROCE_WINDOW_START,
            most: ROCE_WINDOW,
            earned: 0,
        }
    }
}

impl Window {
    /// Bytes that may be under way, `config` at most.
    #[inline]
    pub fn bytes(&self, config: usize) -> usize {
        config.min(self.allowed)
    }

    /// So many bytes arrived.
    #[inline]
    pub fn earn(&mut self, bytes: usize) {
        self.earned += bytes;
        if self.earned < self.allowed {
            return;
        }
        if self.allowed < self.most {
            self.allowed = (self.allowed + ROCE_WINDOW_STEP).min(self.most);
            self.earned = 0;
        } else if self.earned / PATIENCE >= self.allowed {
            self.most = (self.most + ROCE_WINDOW_STEP).min(ROCE_WINDOW);
            self.earned = 0;
        }
    }

    /// Something was lost.
    pub fn lost(&mut self) {
        self.most = (self.allowed / 2).max(ROCE_WINDOW_STEP);
        (self.allowed, self.earned) = (self.most, 0);
    }
}

/// Whether so many packets under way leave no room for another in a window of so many bytes. Two
/// are always let go.
#[inline]
pub(super) const fn is_full(window: usize, packets: u32, mtu: u32) -> bool {
    packets >= 2 && (packets as usize + 1).saturating_mul(mtu as usize) > window
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_lets_go_what_fits_and_two_at_least() {
        for window in [0, 255, 256, 511, 512, 767, 768, 1 << 20] {
            for mtu in [256, 4096] {
                let most = (window / mtu as usize).max(2) as u32;
                for packets in [0, 1, 2, 3, most - 1, most, most + 1] {
                    assert_eq!(is_full(window, packets, mtu), packets >= most, "{window}");
                }
            }
        }
    }

    #[test]
    fn it_grows_while_nothing_is_lost_and_shrinks_for_long() {
        let mut w = Window::default();
        let bytes = |w: &Window| w.bytes(usize::MAX);
        assert_eq!(bytes(&w), ROCE_WINDOW_START);
        assert_eq!(w.bytes(8192), 8192);
        w.earn(ROCE_WINDOW_START - 1);
        assert_eq!(bytes(&w), ROCE_WINDOW_START);
        w.earn(1);
        assert_eq!(bytes(&w), ROCE_WINDOW_START + ROCE_WINDOW_STEP);
        for _ in 0..100 {
            w.earn(ROCE_WINDOW);
        }
        assert_eq!(bytes(&w), ROCE_WINDOW, "and no further");
        w.lost();
        assert_eq!(bytes(&w), ROCE_WINDOW / 2);
        for _ in 0..PATIENCE - 1 {
            w.earn(ROCE_WINDOW / 2);
        }
        assert_eq!(bytes(&w), ROCE_WINDOW / 2);
        w.earn(ROCE_WINDOW);
        w.earn(ROCE_WINDOW);
        assert_eq!(bytes(&w), ROCE_WINDOW / 2 + ROCE_WINDOW_STEP);
        for _ in 0..20 {
            w.lost();
        }
        assert_eq!(bytes(&w), ROCE_WINDOW_STEP);
    }
}
