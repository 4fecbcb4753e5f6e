//! The one place of these programs that reads the clock.

use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "these programs run in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
