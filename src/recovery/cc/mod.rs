//! Congestion control: one controller a path, chosen by [`Algorithm`].
//!
//! An enum rather than a trait object: the set is closed, the calls are on the packet path, and a
//! match inlines. What all window-based controllers share (slow start with HyStart++, recovery
//! periods, the floor, whether the window is used, spurious losses) is `window.rs`.

mod cubic;
mod hystart;
mod newreno;
mod window;

use super::rtt::Rtt;
use crate::base::Timestamp;
pub use cubic::Cubic;
pub use newreno::NewReno;

/// The congestion control algorithms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// RFC 9002 §7, with HyStart++.
    NewReno,
    /// CUBIC (RFC 9438), with HyStart++.
    #[default]
    Cubic,
}

/// One ACK frame as congestion control sees it.
#[derive(Clone, Copy, Debug)]
pub struct AckEvent<'a> {
    /// When it arrived.
    pub now: Timestamp,
    /// Bytes that left flight by it.
    pub acked_bytes: u64,
    /// When the largest packet that it newly acknowledges was sent.
    pub largest_acked_sent: Timestamp,
    /// The path's round-trip times, this frame's sample included.
    pub rtt: &'a Rtt,
    /// The application limited sending when that packet left.
    pub app_limited: bool,
    /// Bytes in flight before the frame.
    pub bytes_in_flight: u64,
}

/// A signal of congestion.
#[derive(Clone, Copy, Debug)]
pub enum Congestion {
    /// That many packets were declared lost.
    Loss(u32),
    /// The peer counted packets marked CE.
    Ecn,
}

/// A congestion controller.
#[derive(Clone, Debug)]
pub enum Controller {
    /// RFC 9002 §7.
    NewReno(NewReno),
    /// RFC 9438.
    Cubic(Cubic),
}

/// Calls the same method on whichever controller there is.
macro_rules! each {
    ($self:expr, $c:ident => $call:expr) => {
        match $self {
            Controller::NewReno($c) => $call,
            Controller::Cubic($c) => $call,
        }
    };
}

impl Controller {
    /// A controller in slow start with the initial window of RFC 9002 §7.2, for datagrams of `mtu`
    /// bytes.
    pub fn new(algorithm: Algorithm, mtu: usize) -> Self {
        match algorithm {
            Algorithm::NewReno => Self::NewReno(NewReno::new(mtu)),
            Algorithm::Cubic => Self::Cubic(Cubic::new(mtu)),
        }
    }

    /// The algorithm.
    pub const fn algorithm(&self) -> Algorithm {
        match self {
            Self::NewReno(_) => Algorithm::NewReno,
            Self::Cubic(_) => Algorithm::Cubic,
        }
    }

    /// The congestion window: bytes that may be in flight.
    #[inline]
    pub fn window(&self) -> u64 {
        each!(self, c => c.window.congestion_window())
    }

    /// The slow start threshold in bytes; `u64::MAX` before the first congestion.
    pub fn ssthresh(&self) -> u64 {
        each!(self, c => c.window.ssthresh())
    }

    /// Whether the window still grows exponentially; the pacer sends ahead of it then.
    #[inline]
    pub fn in_slow_start(&self) -> bool {
        each!(self, c => c.window.in_slow_start())
    }

    /// `bytes` left, before which `bytes_in_flight` were in flight. May be called once a train.
    #[inline]
    pub fn on_packet_sent(&mut self, now: Timestamp, bytes: u64, bytes_in_flight: u64) {
        match self {
            Self::NewReno(c) => c.window.on_packet_sent(bytes, bytes_in_flight),
            Self::Cubic(c) => c.on_packet_sent(now, bytes, bytes_in_flight),
        }
    }

    /// An ACK frame took bytes out of flight.
    #[inline]
    pub fn on_ack(&mut self, ack: &AckEvent<'_>) {
        each!(self, c => c.on_ack(ack));
    }

    /// Congestion was signalled by packets of which the last was sent at `sent`. The window shrinks
    /// once a recovery period (RFC 9002 §7.3.2). Returns whether it shrank.
    /// Keeps RFC 9002 §7.
    pub fn on_congestion_event(
        &mut self,
        now: Timestamp,
        sent: Timestamp,
        congestion: Congestion,
    ) -> bool {
        each!(self, c => c.on_congestion_event(now, sent, congestion))
    }

    /// Persistent congestion was established (RFC 9002 §7.6.2): back to the minimum window. Called
    /// after [`Controller::on_congestion_event`] for the same losses.
    pub fn on_persistent_congestion(&mut self) {
        each!(self, c => c.on_persistent_congestion());
    }

    /// `count` packets declared lost at `lost_at` or later arrived after all. When those are all
    /// that made the window shrink, it is restored. Returns whether it was.
    pub fn on_spurious(&mut self, count: u32, lost_at: Timestamp) -> bool {
        each!(self, c => c.on_spurious(count, lost_at))
    }

    /// The datagram size changed to `mtu` bytes.
    pub fn on_mtu(&mut self, mtu: usize) {
        each!(self, c => c.window.on_mtu(mtu));
    }

    /// Congestion events that turned out to be spurious and were undone.
    pub fn spurious_events(&self) -> u64 {
        each!(self, c => c.window.spurious_events())
    }
}

#[cfg(test)]
mod tests;
