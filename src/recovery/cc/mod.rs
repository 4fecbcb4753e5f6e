//! Congestion control: one controller a path, chosen by [`Algorithm`].
//!
//! An enum rather than a trait object: the set is closed, the calls are on the packet path, and a
//! match inlines. What all window-based controllers share (slow start with HyStart++, recovery
//! periods, the floor, whether the window is used, spurious losses) is `window.rs`; BBR keeps a
//! model of the path instead (`bbr/`).

mod bbr;
mod coupled;
mod cubic;
mod hystart;
mod newreno;
mod window;

use super::rtt::Rtt;
use crate::base::Timestamp;
pub use bbr::{Bbr, PacingRate};
use coupled::Kind;
pub use coupled::{Coupled, CoupledGroup};
pub use cubic::Cubic;
pub use newreno::NewReno;
pub(super) use window::initial as initial_window;

/// The congestion control algorithms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// RFC 9002 §7, with HyStart++.
    NewReno,
    /// CUBIC (RFC 9438), with HyStart++.
    #[default]
    Cubic,
    /// BBR version 3 (draft-ietf-ccwg-bbr-06). It needs pacing.
    Bbr,
    /// LIA (RFC 6356): coupled with the connection's other paths; alone, NewReno.
    Lia,
    /// OLIA (draft-khalili-mptcp-congestion-control-05), coupled like LIA.
    Olia,
    /// BALIA (draft-walid-mptcp-congestion-control-04), coupled like LIA.
    Balia,
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
    /// Bytes in flight now, without what the frame acknowledged and what it revealed as lost.
    pub bytes_left: u64,
}

/// A signal of congestion.
#[derive(Clone, Copy, Debug)]
pub enum Congestion {
    /// That many packets were declared lost.
    Loss(u32),
    /// The peer counted that many more packets marked CE.
    Ecn(u64),
}

/// A congestion controller.
#[derive(Clone, Debug)]
pub enum Controller {
    /// RFC 9002 §7.
    NewReno(NewReno),
    /// RFC 9438.
    Cubic(Cubic),
    /// draft-ietf-ccwg-bbr-06; large, and used by few connections.
    Bbr(Box<Bbr>),
    /// LIA, OLIA or BALIA.
    Coupled(Coupled),
}

/// Calls the same method on whichever controller there is; BBR may need another.
macro_rules! each {
    ($self:expr, $c:ident => $call:expr) => {
        each!($self, $c => $call, $call)
    };
    ($self:expr, $c:ident => $call:expr, $bbr:expr) => {
        match $self {
            Controller::NewReno($c) => $call,
            Controller::Cubic($c) => $call,
            Controller::Coupled($c) => $call,
            Controller::Bbr($c) => $bbr,
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
            Algorithm::Bbr => Self::Bbr(Box::new(Bbr::new(mtu))),
            Algorithm::Lia => Self::Coupled(Coupled::new(Kind::Lia, mtu)),
            Algorithm::Olia => Self::Coupled(Coupled::new(Kind::Olia, mtu)),
            Algorithm::Balia => Self::Coupled(Coupled::new(Kind::Balia, mtu)),
        }
    }

    /// The algorithm.
    pub const fn algorithm(&self) -> Algorithm {
        match self {
            Self::NewReno(_) => Algorithm::NewReno,
            Self::Cubic(_) => Algorithm::Cubic,
            Self::Bbr(_) => Algorithm::Bbr,
            Self::Coupled(c) => match c.kind {
                Kind::Lia => Algorithm::Lia,
                Kind::Olia => Algorithm::Olia,
                Kind::Balia => Algorithm::Balia,
            },
        }
    }

    /// Whether it looks at the connection's other paths, so that [`Controller::couple`] is due
    /// before each acknowledgement.
    #[inline]
    pub const fn is_coupled(&self) -> bool {
        matches!(self, Self::Coupled(_))
    }

    /// Tells it of the connection's paths, of which this is the one pushed under `key`: before
    /// [`Controller::on_ack`], and before [`Controller::on_congestion_event`] where that comes
    /// first. It holds until the next acknowledgement. Controllers that are not coupled ignore it.
    #[inline]
    pub fn couple(&mut self, group: &CoupledGroup, key: u32) {
        if let Self::Coupled(c) = self {
            c.couple(group, key);
        }
    }

    /// The congestion window: bytes that may be in flight.
    #[inline]
    pub fn window(&self) -> u64 {
        each!(self, c => c.window.congestion_window(), c.congestion_window())
    }

    /// How fast to send and how much at once, where the algorithm says so; otherwise the rate
    /// follows from the window.
    #[inline]
    pub const fn pacing(&self) -> Option<PacingRate> {
        match self {
            Self::Bbr(c) => Some(c.pacing()),
            _ => None,
        }
    }

    /// The slow start threshold in bytes; `u64::MAX` before the first congestion, and with BBR.
    pub fn ssthresh(&self) -> u64 {
        match self {
            Self::NewReno(c) => c.window.ssthresh(),
            Self::Cubic(c) => c.window.ssthresh(),
            Self::Coupled(c) => c.window.ssthresh(),
            Self::Bbr(_) => u64::MAX,
        }
    }

    /// Whether the window still grows exponentially; the pacer sends ahead of it then.
    #[inline]
    pub fn in_slow_start(&self) -> bool {
        each!(self, c => c.window.in_slow_start(), c.in_startup())
    }

    /// `bytes` left, before which `bytes_in_flight` were in flight. May be called once a train.
    #[inline]
    pub fn on_packet_sent(&mut self, now: Timestamp, bytes: u64, bytes_in_flight: u64) {
        match self {
            Self::NewReno(c) => c.window.on_packet_sent(bytes, bytes_in_flight),
            Self::Coupled(c) => c.window.on_packet_sent(bytes, bytes_in_flight),
            Self::Cubic(c) => c.on_packet_sent(now, bytes, bytes_in_flight),
            Self::Bbr(c) => c.on_packet_sent(now, bytes, bytes_in_flight),
        }
    }

    /// Everything that waited to be sent has left: what follows is limited by the application.
    #[inline]
    pub fn on_out_of_data(&mut self, now: Timestamp) {
        if let Self::Bbr(c) = self {
            c.on_out_of_data(now);
        }
    }

    /// Packet `pn` of `bytes` bytes, sent at `sent`, was declared lost and is a congestion signal.
    /// [`Controller::on_congestion_event`] follows for all of them.
    #[inline]
    pub fn on_packet_lost(&mut self, now: Timestamp, pn: u64, sent: Timestamp, bytes: u64) {
        if let Self::Bbr(c) = self {
            c.on_packet_lost(now, pn, sent, bytes);
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
    pub fn on_persistent_congestion(&mut self, now: Timestamp) {
        each!(self, c => c.on_persistent_congestion(), c.on_persistent_congestion(now));
    }

    /// `count` packets declared lost at `lost_at` or later arrived after all. When those are all
    /// that made the window shrink, it is restored. Returns whether it was.
    pub fn on_spurious(&mut self, count: u32, lost_at: Timestamp) -> bool {
        each!(self, c => c.on_spurious(count, lost_at))
    }

    /// The datagram size changed to `mtu` bytes.
    pub fn on_mtu(&mut self, mtu: usize) {
        each!(self, c => c.window.on_mtu(mtu), c.on_mtu(mtu));
    }

    /// Congestion events that turned out to be spurious and were undone.
    pub fn spurious_events(&self) -> u64 {
        each!(self, c => c.window.spurious_events(), c.spurious_events())
    }
}

#[cfg(test)]
mod tests;
