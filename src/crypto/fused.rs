//! Keys that encrypt the end of a packet from where the application left it, which spares the copy
//! into the packet.
//!
//! rustls's packet keys seal in place only, and come in boxes that tell nothing of their contents.
//! A key that can do more says so when it is asked, by way of a method that rustls's interface does
//! have: [`of`] asks, [`answer`] is called by the key. Keys of other providers do not answer, and
//! everything works without.

use rustls::quic::PacketKey;
use std::cell::Cell;
use std::sync::Arc;

/// A packet key that can seal more than what lies in the packet.
pub(crate) trait Fused: Send + Sync {
    /// Seals `head` in place and `tail` to the start of `end`, which has its length and
    /// [`super::TAG_LEN`] bytes for the tag. `None` where the lengths do not fit.
    fn seal(
        &self,
        path_id: u32,
        pn: u64,
        header: &[u8],
        head: &mut [u8],
        tail: &[u8],
        end: &mut [u8],
    ) -> Option<()>;
}

thread_local! {
    static ASKING: Cell<bool> = const { Cell::new(false) };
    static ANSWER: Cell<Option<Arc<dyn Fused>>> = const { Cell::new(None) };
}

/// What `key` is, if it can seal a tail.
pub(super) fn of(key: &dyn PacketKey) -> Option<Arc<dyn Fused>> {
    ASKING.set(true);
    let _ = key.tag_len();
    ASKING.set(false);
    ANSWER.take()
}

/// Called by `tag_len` of a key that can.
#[cfg_attr(not(feature = "aws-lc-rs"), expect(dead_code, reason = "no key can"))]
pub(super) fn answer(key: impl FnOnce() -> Arc<dyn Fused>) {
    if ASKING.get() {
        ANSWER.set(Some(key()));
    }
}
