//! Certificate chains of peers, kept once for all connections of a thread that were shown the same.
//!
//! Connections of a client to one server each get a copy of its chain, a good part of what they
//! hold at rest. Chains are compared whole, and what nobody holds any more is forgotten; only the
//! few that came last are looked at (`limits::SHARED_CHAINS`).

use crate::base::limits;
use rustls::pki_types::CertificateDer;
use std::cell::RefCell;
use std::sync::{Arc, Weak};

/// Certificates, the peer's own first.
pub(super) type Chain = [CertificateDer<'static>];

thread_local! {
    /// The last one first.
    static KNOWN: RefCell<Vec<Weak<Chain>>> = const { RefCell::new(Vec::new()) };
}

/// The same chain, shared with the connections of this thread that have it already.
pub(super) fn shared(chain: &Chain) -> Arc<Chain> {
    KNOWN.with_borrow_mut(|known| {
        known.retain(|k| k.strong_count() > 0);
        let mut live = known.iter().map(Weak::upgrade);
        let found = live.position(|k| k.is_some_and(|k| *k == *chain));
        let shared = found.and_then(|at| known.remove(at).upgrade());
        let shared = shared.unwrap_or_else(|| chain.into());
        known.truncate(limits::SHARED_CHAINS - 1);
        known.insert(0, Arc::downgrade(&shared));
        shared
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(n: usize) -> Vec<CertificateDer<'static>> {
        [1, 2].map(|of| vec![of; n].into()).to_vec()
    }

    #[test]
    fn the_same_chain_is_kept_once_and_not_for_ever() {
        let (one, two) = (shared(&chain(1)), shared(&chain(2)));
        assert!(*one == *chain(1) && *two == *chain(2));
        assert!(Arc::ptr_eq(&one, &shared(&chain(1))));
        assert!(!Arc::ptr_eq(&one, &shared(&chain(1)[..1])));
        assert_eq!((Arc::strong_count(&one), Arc::strong_count(&two)), (1, 1));
        drop(one);
        shared(&chain(3));
        let held = KNOWN.with_borrow(|known| known.iter().filter(|k| k.strong_count() > 0).count());
        assert_eq!(held, 1, "the second alone");
    }

    #[test]
    fn chains_without_end_are_not_all_remembered() {
        let kept: Vec<_> = (0..100).map(|n| shared(&chain(n))).collect();
        assert_eq!(KNOWN.with_borrow(Vec::len), limits::SHARED_CHAINS);
        assert!(Arc::ptr_eq(&kept[99], &shared(&chain(99))));
        assert!(!Arc::ptr_eq(&kept[0], &shared(&chain(0))), "long ago");
    }
}
