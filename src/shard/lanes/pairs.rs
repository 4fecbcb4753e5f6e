//! Whose queue pair it is, found at once for that of the last completion.

use crate::rdma::QueuePairId;
use crate::rdma::slots::Key;
use std::collections::HashMap;

/// Queue pairs and the lanes that they carry.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    keys: HashMap<QueuePairId, Key, foldhash::quality::RandomState>,
    /// The one that was found last, while it is there.
    near: Option<(QueuePairId, Key)>,
}

impl Pairs {
    pub fn insert(&mut self, qp: QueuePairId, key: Key) {
        self.near = None;
        self.keys.insert(qp, key);
    }

    pub fn remove(&mut self, qp: QueuePairId) {
        self.near = None;
        self.keys.remove(&qp);
    }

    pub fn clear(&mut self) {
        self.near = None;
        self.keys.clear();
    }

    pub fn get(&self, qp: QueuePairId) -> Option<Key> {
        self.keys.get(&qp).copied()
    }

    /// The same, and the next look for it finds it at once.
    #[inline]
    pub fn find(&mut self, qp: QueuePairId) -> Option<Key> {
        if let Some((last, key)) = self.near
            && last == qp
        {
            return Some(key);
        }
        let key = self.get(qp)?;
        self.near = Some((qp, key));
        Some(key)
    }

    /// The lanes.
    pub fn lanes(&self) -> impl Iterator<Item = Key> {
        self.keys.values().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_is_found_only_while_it_is_there() {
        let key = |slot| Key {
            slot,
            generation: 0,
        };
        let [a, b] = [1, 2].map(|n| QueuePairId(key(n)));
        let mut pairs = Pairs::default();
        assert_eq!(pairs.find(a), None);
        pairs.insert(a, key(7));
        pairs.insert(b, key(8));
        for _ in 0..2 {
            assert_eq!((pairs.find(a), pairs.find(a)), (Some(key(7)), Some(key(7))));
            assert_eq!((pairs.find(b), pairs.get(a)), (Some(key(8)), Some(key(7))));
        }
        // Another lane's now.
        pairs.insert(b, key(9));
        assert_eq!(pairs.find(b), Some(key(9)));
        pairs.remove(b);
        assert_eq!((pairs.find(b), pairs.lanes().count()), (None, 1));
        assert_eq!(pairs.find(a), Some(key(7)));
        pairs.clear();
        assert_eq!((pairs.find(a), pairs.get(a)), (None, None));
    }
}
