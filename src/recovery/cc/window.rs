//! The congestion window and what every window-based controller does with it alike: slow start,
//! recovery periods, the floor, and noticing that a congestion event was none.

use super::hystart::HyStart;
use super::{AckEvent, Congestion};
use crate::base::Timestamp;

/// Datagrams in the smallest window: `kMinimumWindow` (RFC 9002 §7.2).
const MINIMUM_DATAGRAMS: u64 = 2;
/// Datagrams in the initial window, where that is not more bytes than the bound below
/// (RFC 9002 §7.2).
const INITIAL_DATAGRAMS: u64 = 10;
/// Bytes that bound the initial window (RFC 9002 §7.2).
const INITIAL_BYTES: u64 = 14_720;

/// A congestion window in bytes.
#[derive(Clone, Debug)]
pub(in crate::recovery) struct Window {
    congestion_window: u64,
    ssthresh: u64,
    mtu: u64,
    /// When the latest recovery period began. Packets sent until then are part of it.
    recovery_start: Option<Timestamp>,
    hystart: HyStart,
    /// Bytes in flight after the last packet sent: how full the window was when there was
    /// something to send.
    flight_when_sent: u64,
    /// The window is still the initial one.
    untouched: bool,
    /// Packets lost in the latest recovery period, as long as all of them may yet turn out to
    /// have arrived.
    unrefuted: Option<u32>,
    spurious_events: u64,
}

impl Window {
    pub(super) const fn new(mtu: usize) -> Self {
        let mtu = mtu as u64;
        Self {
            congestion_window: initial(mtu),
            ssthresh: u64::MAX,
            mtu,
            recovery_start: None,
            hystart: HyStart::new(),
            flight_when_sent: 0,
            untouched: true,
            unrefuted: None,
            spurious_events: 0,
        }
    }

    #[inline]
    pub(super) const fn congestion_window(&self) -> u64 {
        self.congestion_window
    }

    pub(super) const fn ssthresh(&self) -> u64 {
        self.ssthresh
    }

    pub(super) const fn mtu(&self) -> u64 {
        self.mtu
    }

    pub(super) const fn spurious_events(&self) -> u64 {
        self.spurious_events
    }

    #[inline]
    pub(super) const fn in_slow_start(&self) -> bool {
        self.congestion_window < self.ssthresh
    }

    const fn minimum(&self) -> u64 {
        MINIMUM_DATAGRAMS * self.mtu
    }

    #[inline]
    pub(super) fn on_packet_sent(&mut self, bytes: u64, bytes_in_flight: u64) {
        self.flight_when_sent = bytes_in_flight.saturating_add(bytes);
    }

    /// Whether packets sent at `sent` belong to the recovery period (RFC 9002 §7.3.2).
    #[inline]
    pub(super) fn in_recovery(&self, sent: Timestamp) -> bool {
        self.recovery_start.is_some_and(|start| sent <= start)
    }

    /// Whether the window limits sending, so that acknowledgements may raise it (RFC 9002 §7.8).
    ///
    /// What was in flight after the last packet sent decides, not what is in flight now: several
    /// ACKs of one turn each find less in flight, though the window was full when they were
    /// earned. Slow start may run ahead of the flight by a factor of two, so that the window can
    /// double while the pacer spreads the packets.
    #[inline]
    pub(super) fn is_used(&self, ack: &AckEvent<'_>) -> bool {
        let flight = self.flight_when_sent.max(ack.bytes_in_flight);
        if self.in_slow_start() {
            flight.saturating_mul(2) >= self.congestion_window
        } else {
            // A small window may be full with less than that: no other datagram fits.
            let full = flight.saturating_add(self.mtu) > self.congestion_window
                || flight.saturating_mul(4) >= self.congestion_window.saturating_mul(3);
            full && !ack.app_limited
        }
    }

    /// Grows in slow start. Returns the acknowledged bytes that are left for congestion avoidance
    /// because the threshold was reached.
    pub(super) fn slow_start(&mut self, ack: &AckEvent<'_>) -> u64 {
        let mut left = 0;
        if self.is_used(ack) {
            let growth = self.hystart.growth(ack.acked_bytes);
            let room = self.ssthresh - self.congestion_window;
            left = growth.saturating_sub(room);
            self.set(self.congestion_window.saturating_add(growth.min(room)));
        }
        // After the first slow start there is no search: ssthresh ends it (HyStart++ §4.3).
        if self.ssthresh == u64::MAX
            && self
                .hystart
                .on_ack(ack.now, ack.largest_acked_sent, ack.rtt.latest())
        {
            self.ssthresh = self.congestion_window;
        }
        left
    }

    /// Sets the window, not below its floor.
    #[inline]
    pub(super) fn set(&mut self, bytes: u64) {
        self.congestion_window = bytes.max(self.minimum());
        self.untouched = false;
    }

    /// Notes congestion signalled by packets of which the last was sent at `sent`. True when that
    /// begins a recovery period, so that the window has to shrink.
    pub(super) fn begin_recovery(
        &mut self,
        now: Timestamp,
        sent: Timestamp,
        congestion: Congestion,
    ) -> bool {
        let begins = !self.in_recovery(sent);
        self.unrefuted = match (congestion, self.unrefuted) {
            (Congestion::Ecn(_), _) => None,
            (Congestion::Loss(n), _) if begins => Some(n),
            (Congestion::Loss(n), Some(before)) => Some(before.saturating_add(n)),
            (Congestion::Loss(_), None) => None,
        };
        if begins {
            self.recovery_start = Some(now);
            self.hystart.stop();
        }
        begins
    }

    /// Shrinks to `bytes`, at which slow start ends from now on.
    pub(super) fn shrink(&mut self, bytes: u64) {
        self.set(bytes);
        self.ssthresh = self.congestion_window;
    }

    /// RFC 9002 §7.6.2, §B.8: the minimum window, and whatever is lost next starts a new period.
    pub(super) fn collapse(&mut self) {
        self.set(self.minimum());
        self.recovery_start = None;
        self.unrefuted = None;
    }

    /// `count` packets declared lost at `lost_at` or later arrived after all. True when that
    /// refutes every loss of the latest recovery period.
    pub(super) fn refute(&mut self, count: u32, lost_at: Timestamp) -> bool {
        let (Some(left), Some(start)) = (self.unrefuted, self.recovery_start) else {
            return false;
        };
        // Losses of an earlier period refute nothing of this one.
        if lost_at < start {
            return false;
        }
        let left = left.saturating_sub(count);
        self.unrefuted = (left > 0).then_some(left);
        if left == 0 {
            self.spurious_events += 1;
        }
        left == 0
    }

    /// Takes back a reduction: the window and threshold from before it.
    pub(super) fn restore(&mut self, congestion_window: u64, ssthresh: u64) {
        if self.congestion_window < congestion_window {
            self.set(congestion_window);
            self.ssthresh = ssthresh;
        }
    }

    /// Takes a new datagram size (RFC 9002 §7.2): the initial window follows it, a grown one keeps
    /// its bytes unless they are below the floor.
    pub(super) fn on_mtu(&mut self, mtu: usize) {
        self.mtu = mtu as u64;
        if self.untouched {
            self.congestion_window = initial(self.mtu);
        }
        self.congestion_window = self.congestion_window.max(self.minimum());
    }
}

/// The initial window for datagrams of `mtu` bytes (RFC 9002 §7.2).
pub(in crate::recovery) const fn initial(mtu: u64) -> u64 {
    let floor = MINIMUM_DATAGRAMS * mtu;
    let bound = if floor > INITIAL_BYTES {
        floor
    } else {
        INITIAL_BYTES
    };
    let window = INITIAL_DATAGRAMS * mtu;
    if window < bound { window } else { bound }
}
