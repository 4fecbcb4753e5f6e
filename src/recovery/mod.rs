//! Loss recovery and congestion control: what RFC 9002 asks of a sender, and what RFC 9000 §13
//! asks of a receiver of packets.
//!
//! State machines over packet numbers, sizes and times. Nothing here reads a clock, knows a socket
//! or a stream, or looks inside a frame: what a packet carried is the caller's own `Copy` record,
//! kept by [`SentSpace`] and handed back once, when the packet is acknowledged or lost.
//!
//! One path has one [`Rtt`], one [`Controller`], one [`Pacer`], one [`MtuDiscovery`] and one
//! [`EcnValidator`]; each packet number space on it has one [`SentSpace`] and one [`AckPolicy`].

pub mod ack_frequency;
pub mod ack_policy;
pub mod ack_ranges;
pub mod cc;
pub mod ecn;
mod loss;
pub mod mtu;
pub mod pacer;
pub mod pto;
pub mod rtt;
pub mod sent;

pub use ack_frequency::{AckFrequencyRequests, AckNeed};
pub use ack_policy::AckPolicy;
pub use ack_ranges::AckRanges;
pub use cc::{AckEvent, Algorithm, Congestion, Controller, CoupledGroup, PacingRate};
pub use ecn::EcnValidator;
pub use loss::LostSummary;
pub use mtu::{MtuConfig, MtuDiscovery};
pub use pacer::{Pace, Pacer};
pub use rtt::Rtt;
pub use sent::{AckSummary, SentPacket, SentSpace};
