//! What waits on this host for one path and leaves before a packet that any could carry: by it a
//! scheduler sees how much later that would leave there.
//!
//! Copies and what is reinjected go first, all of it; what is pinned takes turns with the rest, so
//! that a train of it is ahead at most. Estimated, from the path's own rate.

use super::copies::Copies;
use super::pins::Pinned;
use crate::base::limits;
use crate::path::schedule::PathView;
use crate::stream::Streams;
use std::time::Duration;

/// How long what waits for a path takes to leave.
#[inline]
pub(super) fn delay(
    view: &PathView,
    copies: Option<&Copies>,
    pinned: &Pinned,
    streams: &Streams,
) -> Duration {
    let copies = copies.filter(|c| c.is_waiting());
    if copies.is_none() && pinned.is_empty() && !streams.has_lanes() {
        return Duration::ZERO;
    }
    let mtu = view.mtu as u64;
    let first = copies.map_or(0, |c| c.packets_for(view.id) as u64 * mtu);
    let turn = pinned.bytes_for(view.id) + streams.bytes_pinned_to(view.id);
    let train = limits::MAX_TRAIN_SEGMENTS as u64 * mtu;
    time_of(first + turn.min(train), view)
}

/// How long so many bytes take to leave.
fn time_of(bytes: u64, view: &PathView) -> Duration {
    if bytes == 0 {
        return Duration::ZERO;
    }
    // Without a pace, a window leaves in a round trip.
    let (sent, time) = match view.pacing_rate {
        0 => (view.congestion_window.max(1), view.smoothed_rtt),
        rate => (rate, Duration::from_secs(1)),
    };
    let nanos = u128::from(bytes) * time.as_nanos() / u128::from(sent);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::PathId;

    #[test]
    fn bytes_leave_by_the_pace_or_by_the_window() {
        let ms = Duration::from_millis;
        let mut view = PathView::new(PathId(1), ms(50), 1_000, 20_000);
        assert_eq!(time_of(0, &view), Duration::ZERO);
        assert_eq!(time_of(10_000, &view), ms(25));
        view.pacing_rate = 1_000_000;
        assert_eq!(time_of(10_000, &view), ms(10));
        view.pacing_rate = 1;
        assert_eq!(time_of(u64::MAX, &view), Duration::from_nanos(u64::MAX));
    }
}
