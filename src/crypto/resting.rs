//! Keys in two forms: ready for use, and small, for connections that rest.
//!
//! A key that is ready is its schedule and tables, more than half a kilobyte for each of packet
//! and header; the key itself is some dozens of bytes. Both forms are whole keys: the small one
//! prepares itself anew for each packet, so that a forgotten change of form costs time and nothing
//! else.
//!
//! rustls's keys come in boxes that tell nothing of their contents. One that has two forms gives
//! the other when it is asked, by way of a method that rustls's interface does have, as in `fused`:
//! [`packet`] and [`header`] ask, [`answer_packet`] and [`answer_header`] are called by the keys.
//! Keys of other providers do not answer, and stay as they are.

use rustls::quic::{HeaderProtectionKey, PacketKey};
use std::cell::Cell;

/// What a key is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Quick to use.
    Ready,
    /// Quick to keep.
    Small,
}

thread_local! {
    static ASKED: Cell<Option<Form>> = const { Cell::new(None) };
    static PACKET: Cell<Option<Box<dyn PacketKey>>> = const { Cell::new(None) };
    static HEADER: Cell<Option<Box<dyn HeaderProtectionKey>>> = const { Cell::new(None) };
}

/// Brings `key` into `form`, if it has it and is not in it.
pub(super) fn packet(key: &mut Box<dyn PacketKey>, form: Form) {
    ASKED.set(Some(form));
    let _ = key.tag_len();
    ASKED.set(None);
    if let Some(other) = PACKET.take() {
        *key = other;
    }
}

/// Brings `key` into `form`, if it has it and is not in it.
pub(super) fn header(key: &mut Box<dyn HeaderProtectionKey>, form: Form) {
    ASKED.set(Some(form));
    let _ = key.sample_len();
    ASKED.set(None);
    if let Some(other) = HEADER.take() {
        *key = other;
    }
}

/// Called by `tag_len` of a packet key that can be of `form`, and is not.
#[cfg_attr(not(feature = "aws-lc-rs"), expect(dead_code, reason = "no key can"))]
pub(super) fn answer_packet(form: Form, key: impl FnOnce() -> Option<Box<dyn PacketKey>>) {
    if ASKED.get() == Some(form) {
        PACKET.set(key());
    }
}

/// Called by `sample_len` of a header key that can be of `form`, and is not.
#[cfg_attr(not(feature = "aws-lc-rs"), expect(dead_code, reason = "no key can"))]
pub(super) fn answer_header(
    form: Form,
    key: impl FnOnce() -> Option<Box<dyn HeaderProtectionKey>>,
) {
    if ASKED.get() == Some(form) {
        HEADER.set(key());
    }
}
