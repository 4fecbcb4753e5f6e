//! Who may do what with a memory region, or through a queue pair (`ibv_access_flags`).
//!
//! The owner may always read its own regions. A remote operation needs its flag in both places.

use std::fmt;
use std::ops::BitOr;

/// A set of permissions; none by default.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Access(u8);

impl Access {
    /// Receives, READs and atomics of the owner may write here.
    pub const LOCAL_WRITE: Self = Self(1);
    /// The peer may RDMA WRITE.
    pub const REMOTE_WRITE: Self = Self(2);
    /// The peer may RDMA READ.
    pub const REMOTE_READ: Self = Self(4);
    /// The peer may compare-and-swap and fetch-and-add.
    pub const REMOTE_ATOMIC: Self = Self(8);
    /// The owner reads, and nothing else.
    pub const NONE: Self = Self(0);

    /// Whether all of `needed` are here.
    #[inline]
    pub const fn has(self, needed: Self) -> bool {
        self.0 & needed.0 == needed.0
    }

    /// Whether a peer may change the memory.
    pub const fn remote_changes(self) -> bool {
        self.0 & (Self::REMOTE_WRITE.0 | Self::REMOTE_ATOMIC.0) != 0
    }
}

impl BitOr for Access {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut set = f.debug_set();
        for (flag, name) in [
            (Self::LOCAL_WRITE, "local write"),
            (Self::REMOTE_WRITE, "remote write"),
            (Self::REMOTE_READ, "remote read"),
            (Self::REMOTE_ATOMIC, "remote atomic"),
        ] {
            if self.has(flag) {
                set.entry(&format_args!("{name}"));
            }
        }
        set.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_add_up() {
        let both = Access::LOCAL_WRITE | Access::REMOTE_READ;
        assert!(both.has(Access::REMOTE_READ) && both.has(both) && both.has(Access::NONE));
        assert!(!both.has(Access::REMOTE_WRITE | Access::REMOTE_READ));
        assert!(!both.remote_changes() && (both | Access::REMOTE_ATOMIC).remote_changes());
        assert_eq!(format!("{both:?}"), "{local write, remote read}");
        assert_eq!(Access::default(), Access::NONE);
    }
}
