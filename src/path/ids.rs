//! Which path identifiers either side may use (multipath §2.1, §3.4, §4.6).
//!
//! The peer may use as many as we would have paths, and one more for each that was abandoned, so
//! that paths can be opened without end. What is abandoned is kept for a while: identifiers are
//! given out only so far ahead of what is forgotten that at most twice as many exist at once.

use super::PathId;
use std::ops::RangeInclusive;

/// No identifiers.
#[expect(clippy::reversed_empty_ranges, reason = "none is meant")]
const EMPTY: RangeInclusive<u32> = 1..=0;

/// The limits of one connection.
#[derive(Clone, Debug)]
pub struct PathLimits {
    /// Paths that we would have at once.
    paths: u32,
    /// What the peer may use, as we told it.
    local_max: u32,
    /// The limit that the peer began with.
    peer_initial: u32,
    peer_max: u32,
    abandoned: u32,
    forgotten: u32,
    /// The peer is to be told of `local_max`.
    announce: bool,
}

impl PathLimits {
    /// The limits that the transport parameters set.
    pub fn new(local: PathId, peer: PathId) -> Self {
        Self {
            paths: local.0.saturating_add(1),
            local_max: local.0,
            peer_initial: peer.0,
            peer_max: peer.0,
            abandoned: 0,
            forgotten: 0,
            announce: false,
        }
    }

    /// The largest identifier that the peer may use.
    pub fn local_max(&self) -> PathId {
        PathId(self.local_max)
    }

    /// The largest identifier that we may use.
    pub fn peer_max(&self) -> PathId {
        PathId(self.peer_max)
    }

    /// The largest identifier that a path can have.
    pub fn usable_max(&self) -> PathId {
        PathId(self.local_max.min(self.peer_max))
    }

    /// MAX_PATH_ID came. False when it is below what the peer began with, which is a violation; one
    /// that raises nothing is ignored.
    #[must_use]
    pub fn on_max_path_id(&mut self, max: PathId) -> bool {
        self.peer_max = self.peer_max.max(max.0);
        max.0 >= self.peer_initial
    }

    /// A path was abandoned. Returns the identifiers that the peer may use from now on.
    pub fn on_abandoned(&mut self) -> RangeInclusive<u32> {
        self.abandoned = self.abandoned.saturating_add(1);
        self.raise()
    }

    /// The state of an abandoned path is gone. Returns as [`PathLimits::on_abandoned`] does.
    pub fn on_forgotten(&mut self) -> RangeInclusive<u32> {
        self.forgotten = self.forgotten.saturating_add(1);
        self.raise()
    }

    fn raise(&mut self) -> RangeInclusive<u32> {
        let gone = self
            .abandoned
            .min(self.forgotten.saturating_add(self.paths));
        let before = self.local_max;
        self.local_max = gone.saturating_add(self.paths - 1).max(before);
        self.announce |= self.local_max > before;
        match before.checked_add(1) {
            Some(first) => first..=self.local_max,
            // None is left, and the last must not be used again: it is part of nonces.
            None => EMPTY,
        }
    }

    /// Whether the peer is to be told.
    pub fn wants_to_send(&self) -> bool {
        self.announce
    }

    /// What to tell the peer, which counts as sent.
    pub fn poll(&mut self) -> Option<PathId> {
        std::mem::take(&mut self.announce).then_some(PathId(self.local_max))
    }

    /// The packet that told the peer was lost; an old limit is not repeated.
    pub fn on_lost(&mut self, max: PathId) {
        self.announce |= max.0 == self.local_max;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Multipath §4.6: a limit is raised as paths are abandoned, and what exists is bounded.
    #[test]
    fn identifiers_follow_what_was_abandoned() {
        let mut l = PathLimits::new(PathId(3), PathId(3));
        assert_eq!(l.on_abandoned(), 4..=4);
        assert_eq!(l.poll(), Some(PathId(4)));
        assert_eq!(l.poll(), None);
        for _ in 0..1_000_000 {
            let _ = l.on_abandoned();
        }
        assert_eq!(
            l.local_max(),
            PathId(7),
            "four are kept beside four new ones"
        );
        assert_eq!(l.on_forgotten(), 8..=8);
        l.on_lost(PathId(7));
        assert_eq!(l.poll(), Some(PathId(8)));
        l.on_lost(PathId(7));
        assert_eq!(l.poll(), None, "not repeated: a later one was sent");
    }

    /// Multipath §3.4: the last identifier is given out once, and no other follows it.
    #[test]
    fn identifiers_end_at_the_largest() {
        let mut l = PathLimits::new(PathId(1), PathId(u32::MAX));
        l.local_max = u32::MAX - 3;
        l.abandoned = u32::MAX - 4;
        l.forgotten = u32::MAX - 4;
        let mut given = Vec::new();
        for _ in 0..100 {
            given.extend(l.on_abandoned());
            given.extend(l.on_forgotten());
        }
        assert_eq!(given, [u32::MAX - 2, u32::MAX - 1, u32::MAX]);
        assert_eq!(l.usable_max(), PathId::MAX);
    }

    /// Multipath §4.6: what does not increase the limit is ignored, what is below the first is a
    /// violation.
    #[test]
    fn the_peers_limit_only_rises() {
        let mut l = PathLimits::new(PathId(7), PathId(2));
        assert!(l.on_max_path_id(PathId(5)) && l.on_max_path_id(PathId(3)));
        assert_eq!((l.peer_max(), l.usable_max()), (PathId(5), PathId(5)));
        assert!(!l.on_max_path_id(PathId(1)));
        assert!(l.on_max_path_id(PathId(u32::MAX)));
        assert_eq!(l.usable_max(), PathId(7));
    }
}
