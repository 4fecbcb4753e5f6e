//! A part of what handles and shards share that most connections never need: made by the handle
//! that first uses it. A shard only looks whether it is there, which blocks on nothing.

use std::sync::OnceLock;

/// See the module.
pub(super) struct Lazy<T>(OnceLock<Box<T>>);

impl<T> Lazy<T> {
    pub(super) const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// What was made, if it was.
    pub(super) fn get(&self) -> Option<&T> {
        self.0.get().map(|made| &**made)
    }

    /// What was made, or is made now.
    pub(super) fn make(&self, new: impl FnOnce() -> T) -> &T {
        self.0.get_or_init(|| Box::new(new()))
    }
}
