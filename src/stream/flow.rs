//! Flow control (RFC 9000 §4): the limits that we give a peer, for a stream or the connection,
//! and the credit that it gives the connection.
//!
//! A receive window grows while the application keeps up with it: when a window's worth is
//! consumed within two round trips, the window and not the application was what held the peer
//! back, and it doubles up to its maximum. Credit is announced when half the window is consumed,
//! early enough that a peer at full speed does not stall for a round trip.

use crate::base::Timestamp;
use crate::wire::TransportError;
use crate::wire::varint::MAX;
use std::time::Duration;

/// Round trips within which a window's worth must be consumed for the window to grow.
const GROWTH_RTTS: u32 = 2;

/// The limit that we give the peer, in bytes from the start of the stream or connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecvWindow {
    /// What was last announced.
    limit: u64,
    /// How far ahead of what is consumed the limit is announced.
    size: u64,
    /// When and at which offset the current measurement of the application's speed began.
    since: (Timestamp, u64),
}

impl RecvWindow {
    pub(super) const fn new(size: u64, now: Timestamp) -> Self {
        let size = if size < MAX { size } else { MAX };
        Self {
            limit: size,
            size,
            since: (now, 0),
        }
    }

    /// The announced limit.
    #[inline]
    pub(super) const fn limit(&self) -> u64 {
        self.limit
    }

    #[cfg(test)]
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Whether, with everything below `consumed` taken by the application, a new limit is due: at
    /// half, without waiting until the peer says that it is blocked (RFC 9000 §4.2).
    #[inline]
    pub(super) const fn is_due(&self, consumed: u64) -> bool {
        self.limit.saturating_sub(consumed) <= self.size / 2 && self.limit < MAX
    }

    /// Adapts the size, to at most `max`. Called whenever [`RecvWindow::is_due`] turns true.
    pub(super) fn tune(&mut self, now: Timestamp, rtt: Duration, consumed: u64, max: u64) {
        let elapsed = now - self.since.0;
        let bytes = consumed.saturating_sub(self.since.1);
        // bytes / elapsed > size / (2 rtt), without division.
        let fast = u128::from(bytes) * (rtt * GROWTH_RTTS).as_nanos()
            > u128::from(self.size) * elapsed.as_nanos();
        if fast && self.size < max {
            self.size = self.size.saturating_mul(2).min(max);
        }
        self.since = (now, consumed);
    }

    /// Raises the limit to what is to be announced now, and returns it.
    pub(super) fn raise(&mut self, consumed: u64) -> u64 {
        self.limit = self.limit.max(consumed.saturating_add(self.size).min(MAX));
        self.limit
    }
}

/// Connection flow control in both directions.
#[derive(Debug)]
pub(super) struct ConnectionFlow {
    /// What we let the peer send, over all streams.
    pub(super) window: RecvWindow,
    /// Bytes received: the sum of every stream's highest offset.
    pub(super) received: u64,
    /// Of those, bytes that the application took or that were discarded.
    pub(super) consumed: u64,
    /// The peer's MAX_DATA.
    pub(super) peer_limit: u64,
    /// Bytes sent: the sum of every stream's highest offset sent.
    pub(super) sent: u64,
    /// The limit at which DATA_BLOCKED was last queued, plus one; 0 for never.
    pub(super) blocked_at: u64,
}

impl ConnectionFlow {
    pub(super) const fn new(window: u64) -> Self {
        Self {
            window: RecvWindow::new(window, Timestamp::ZERO),
            received: 0,
            consumed: 0,
            peer_limit: 0,
            sent: 0,
            blocked_at: 0,
        }
    }

    /// New bytes that may be sent.
    #[inline]
    pub(super) const fn credit(&self) -> u64 {
        self.peer_limit.saturating_sub(self.sent)
    }

    /// Counts `new` bytes received. RFC 9000 §4.1, §19.9: more than the limit is
    /// FLOW_CONTROL_ERROR.
    #[inline]
    pub(super) fn on_received(&mut self, new: u64) -> Result<(), TransportError> {
        let received = self.received.saturating_add(new);
        if received > self.window.limit() {
            return Err(TransportError::flow_control_error(
                "more data than MAX_DATA permits",
            ));
        }
        self.received = received;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(10);

    fn at(ms: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn credit_is_due_when_half_is_consumed() {
        let mut w = RecvWindow::new(1000, at(0));
        assert!(!w.is_due(499));
        assert!(w.is_due(500));
        assert_eq!(w.raise(500), 1500);
        assert!(!w.is_due(999));
        // The limit never falls.
        assert_eq!(w.raise(0), 1500);
    }

    #[test]
    fn the_window_doubles_for_a_fast_application_only() {
        let mut w = RecvWindow::new(1000, at(0));
        // A window's worth in exactly two round trips is not faster than that.
        w.tune(at(20), RTT, 1000, 4000);
        assert_eq!(w.size(), 1000);
        w.tune(at(29), RTT, 1500, 4000);
        assert_eq!(w.size(), 2000);
        w.tune(at(30), RTT, 3000, 4000);
        w.tune(at(31), RTT, 6000, 4000);
        assert_eq!(w.size(), 4000);
        w.tune(at(32), RTT, 60_000, 4000);
        assert_eq!(w.size(), 4000);
    }

    #[test]
    fn limits_end_at_the_largest_varint() {
        let mut w = RecvWindow::new(u64::MAX, at(0));
        assert_eq!(w.limit(), MAX);
        assert_eq!(w.raise(MAX), MAX);
        assert!(!w.is_due(MAX));
    }

    #[test]
    fn the_connection_limit_is_enforced_to_the_byte() {
        let mut flow = ConnectionFlow::new(100);
        assert_eq!(flow.on_received(100), Ok(()));
        let error = flow.on_received(1).unwrap_err();
        assert_eq!(error.code, crate::wire::Code::FLOW_CONTROL_ERROR);
    }
}
