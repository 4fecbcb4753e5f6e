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
    /// Packets that may be under way, of `config` bytes at most.
    #[inline]
    pub fn packets(&self, config: usize, mtu: u32) -> u32 {
        (config.min(self.allowed) / mtu.max(1) as usize).clamp(2, 1 << 20) as u32
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_while_nothing_is_lost_and_shrinks_for_long() {
        let mut w = Window::default();
        let packets = |w: &Window| w.packets(usize::MAX, 4096) as usize * 4096;
        assert_eq!(packets(&w), ROCE_WINDOW_START);
        assert_eq!(w.packets(8192, 4096), 2);
        w.earn(ROCE_WINDOW_START - 1);
        assert_eq!(packets(&w), ROCE_WINDOW_START);
        w.earn(1);
        assert_eq!(packets(&w), ROCE_WINDOW_START + ROCE_WINDOW_STEP);
        for _ in 0..100 {
            w.earn(ROCE_WINDOW);
        }
        assert_eq!(packets(&w), ROCE_WINDOW, "and no further");
        w.lost();
        assert_eq!(packets(&w), ROCE_WINDOW / 2);
        for _ in 0..PATIENCE - 1 {
            w.earn(ROCE_WINDOW / 2);
        }
        assert_eq!(packets(&w), ROCE_WINDOW / 2);
        w.earn(ROCE_WINDOW);
        w.earn(ROCE_WINDOW);
        assert_eq!(packets(&w), ROCE_WINDOW / 2 + ROCE_WINDOW_STEP);
        for _ in 0..20 {
            w.lost();
        }
        assert_eq!(packets(&w), ROCE_WINDOW_STEP);
    }
}
