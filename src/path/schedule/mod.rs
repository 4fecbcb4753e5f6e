//! Which path the next packet takes, where a connection has several.
//!
//! A [`Scheduler`] looks at plain views of the paths and of the packet and answers with a
//! [`Decision`]; it sends nothing itself. What is common to all of them, pins, packets of
//! acknowledgements alone, a single path and the check of the answer, is [`Selector`]'s, which a
//! connection holds. [`SchedulerKind`] names the schedulers that are built in.
//!
//! Every scheduler keeps to [`Candidates`]: no path that is not validated, none that may have
//! failed while another has not, no backup path while an available one is usable, and none whose
//! congestion window or pacer holds it back. Decisions follow from their inputs alone: no clock, no
//! randomness, ties go to the lower path ID.

mod backup;
mod blest;
mod candidates;
mod context;
mod ecf;
mod kind;
mod low_latency;
mod min_rtt;
mod patience;
mod redundant;
mod round_robin;
mod selector;
mod table;
mod weighted;

use super::PathId;
use crate::base::Timestamp;
pub use crate::path::PathStatus;
pub use backup::Backup;
pub use blest::Blest;
pub use candidates::Candidates;
pub use context::{Decision, PacketView, PathIds, PathView, Pin, SchedulerContext};
pub use ecf::Ecf;
pub use kind::{ParseSchedulerError, SchedulerFactory, SchedulerKind};
pub use low_latency::LowLatency;
pub use min_rtt::MinRtt;
pub use redundant::Redundant;
pub use round_robin::RoundRobin;
pub use selector::Selector;
pub use weighted::Weighted;

/// Chooses paths for packets.
///
/// `select` is on the packet path: no allocation, and time in proportion to the number of paths.
/// What it decided happens when `on_sent` says so; until then it may be asked again.
pub trait Scheduler: Send {
    /// A short name for logs.
    fn name(&self) -> &'static str;

    /// Where the packet of `ctx` goes now.
    fn select(&mut self, ctx: &SchedulerContext<'_>) -> Decision;

    /// A packet of `bytes` bytes that counts as in flight left on `path`, whoever chose it. May be
    /// called once a train, with its bytes.
    fn on_sent(&mut self, _now: Timestamp, _path: PathId, _bytes: u64) {}

    /// `bytes` bytes sent on `path` were acknowledged.
    fn on_acked(&mut self, _now: Timestamp, _path: PathId, _bytes: u64) {}

    /// `bytes` bytes sent on `path` were declared lost.
    fn on_lost(&mut self, _now: Timestamp, _path: PathId, _bytes: u64) {}

    /// The peer's connection flow control held data back while a congestion window had room.
    fn on_flow_blocked(&mut self, _now: Timestamp) {}

    /// `path` may be chosen from now on.
    fn path_added(&mut self, _path: PathId) {}

    /// `path` will not be seen again: path IDs are not used twice.
    fn path_removed(&mut self, _path: PathId) {}
}

#[cfg(test)]
mod tests;
