//! What each side would have the other use a path for (multipath §3.3, §4.3).
//!
//! Both statuses are wishes: who sends decides. Each side numbers what it says of a path; what
//! comes late says what no longer counts.

pub use crate::wire::frame::PathStatus;

/// The statuses of one path.
#[derive(Clone, Copy, Debug)]
pub struct Statuses {
    ours: PathStatus,
    /// The sequence number of what we said last; 0 before we said anything.
    ours_seq: u64,
    announce: bool,
    theirs: Option<(PathStatus, u64)>,
}

impl Default for Statuses {
    fn default() -> Self {
        Self {
            ours: PathStatus::Available,
            ours_seq: 0,
            announce: false,
            theirs: None,
        }
    }
}

impl Statuses {
    /// What we said, or would say.
    pub fn ours(&self) -> PathStatus {
        self.ours
    }

    /// What the peer said last; `None` while it has said nothing.
    pub fn theirs(&self) -> Option<PathStatus> {
        self.theirs.map(|(status, _)| status)
    }

    /// Whether either side would have the path used for nothing while another works.
    pub fn is_backup(&self) -> bool {
        self.ours == PathStatus::Backup || self.theirs() == Some(PathStatus::Backup)
    }

    /// We change our mind; true when the peer is to be told. That a path is available goes without
    /// saying, until something else was said.
    pub fn set(&mut self, status: PathStatus) -> bool {
        if self.ours == status {
            return false;
        }
        self.ours = status;
        self.ours_seq += 1;
        self.announce = true;
        true
    }

    /// The peer says what it would like; true when that changes anything. A frame that is not
    /// newer than the newest is ignored.
    pub fn on_frame(&mut self, status: PathStatus, seq: u64) -> bool {
        if self.theirs.is_some_and(|(_, newest)| seq <= newest) {
            return false;
        }
        let before = self.theirs.replace((status, seq));
        before.map(|(status, _)| status) != Some(status)
    }

    /// Whether the peer is to be told.
    pub fn wants_to_send(&self) -> bool {
        self.announce
    }

    /// What to tell the peer, which counts as sent.
    pub fn poll(&mut self) -> Option<(PathStatus, u64)> {
        std::mem::take(&mut self.announce).then_some((self.ours, self.ours_seq))
    }

    /// The packet that said it was lost: it is repeated if it is the last thing that was said.
    pub fn on_lost(&mut self, seq: u64) {
        self.announce |= seq == self.ours_seq;
    }
}

#[cfg(test)]
mod tests {
    use super::PathStatus::{Available, Backup};
    use super::*;

    /// Multipath §4.3: a frame is ignored if one of an equal or higher number came before.
    #[test]
    fn what_comes_late_is_ignored() {
        let mut s = Statuses::default();
        assert_eq!(s.theirs(), None);
        assert!(s.on_frame(Backup, 5));
        assert!(!s.on_frame(Available, 5) && !s.on_frame(Available, 4));
        assert_eq!(s.theirs(), Some(Backup));
        assert!(!s.on_frame(Backup, 6), "nothing new");
        assert!(s.on_frame(Available, 7));
    }

    /// Multipath §4.3: numbers rise, and only the last status is repeated.
    #[test]
    fn only_the_last_status_is_repeated() {
        let mut s = Statuses::default();
        assert!(!s.set(Available) && !s.wants_to_send());
        assert!(s.set(Backup));
        assert_eq!(s.poll(), Some((Backup, 1)));
        assert!(s.set(Available) && !s.set(Available));
        assert_eq!(s.poll(), Some((Available, 2)));
        s.on_lost(1);
        assert_eq!(s.poll(), None);
        s.on_lost(2);
        assert_eq!(s.poll(), Some((Available, 2)));
    }
}
