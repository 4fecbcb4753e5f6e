//! What a scheduler sees and what it answers: plain values, filled in by the connection.
//!
//! Most of a [`PathView`] changes with an acknowledgement only; the connection may keep views and
//! renew what a sent packet changes.

use super::Candidates;
use crate::base::{Timestamp, limits};
use crate::path::{PathId, PathStatus};
use std::time::Duration;

/// Packets under way on a path without a round-trip time, so that it gets one.
const MEASURING_PACKETS: u64 = 2;

/// One path, as far as the choice goes.
#[derive(Clone, Copy, Debug)]
pub struct PathView {
    /// Its identifier.
    pub id: PathId,
    /// `smoothed_rtt`, or what is assumed before the first sample.
    pub smoothed_rtt: Duration,
    /// `rttvar`.
    pub rtt_var: Duration,
    /// `min_rtt`; zero before the first sample.
    pub min_rtt: Duration,
    /// There was a sample.
    pub has_rtt_sample: bool,
    /// The congestion window, in bytes.
    pub congestion_window: u64,
    /// Bytes in flight.
    pub bytes_in_flight: u64,
    /// When pacing lets the next packet leave; `None` when it holds none back.
    pub pacing_release: Option<Timestamp>,
    /// The pacing rate, in bytes per second; zero when sending is not paced.
    pub pacing_rate: u64,
    /// The peer's address is validated (RFC 9000 §8).
    pub validated: bool,
    /// How we see it.
    pub our_status: PathStatus,
    /// How the peer asked us to see it.
    pub peer_status: PathStatus,
    /// Acknowledgements have stayed away for so long that it may be dead.
    pub potentially_failed: bool,
    /// How long what already waits for this path on this host takes to leave.
    pub queue_delay: Duration,
    /// The datagram size, in bytes.
    pub mtu: usize,
    /// Bytes sent on it so far.
    pub bytes_sent: u64,
}

impl PathView {
    /// A validated, available path that was never used.
    pub const fn new(id: PathId, smoothed_rtt: Duration, mtu: usize, window: u64) -> Self {
        Self {
            id,
            smoothed_rtt,
            rtt_var: Duration::ZERO,
            min_rtt: Duration::ZERO,
            has_rtt_sample: false,
            congestion_window: window,
            bytes_in_flight: 0,
            pacing_release: None,
            pacing_rate: 0,
            validated: true,
            our_status: PathStatus::Available,
            peer_status: PathStatus::Available,
            potentially_failed: false,
            queue_delay: Duration::ZERO,
            mtu,
            bytes_sent: 0,
        }
    }

    /// Either side wants it as a backup only.
    #[inline]
    pub const fn is_backup(&self) -> bool {
        matches!(self.our_status, PathStatus::Backup)
            || matches!(self.peer_status, PathStatus::Backup)
    }

    /// The congestion window admits another datagram.
    #[inline]
    pub const fn has_room(&self) -> bool {
        self.congestion_window.saturating_sub(self.bytes_in_flight) >= self.mtu as u64
    }

    /// Neither the window nor the pacer holds a datagram back.
    #[inline]
    pub fn can_send(&self, now: Timestamp) -> bool {
        self.has_room() && self.pacing_release.is_none_or(|release| release <= now)
    }

    /// The answer when nothing but this path may serve.
    #[inline]
    pub const fn wait(&self) -> Decision {
        Decision::Wait {
            until: if self.has_room() {
                self.pacing_release
            } else {
                None
            },
        }
    }

    /// A round trip that begins with what waits on this host.
    #[inline]
    pub fn latency(&self) -> Duration {
        self.smoothed_rtt.saturating_add(self.queue_delay)
    }

    /// It has no round-trip time, and not enough under way to get one.
    #[inline]
    pub const fn wants_measuring(&self) -> bool {
        let enough = MEASURING_PACKETS * self.mtu as u64;
        !self.has_rtt_sample && self.bytes_in_flight < enough
    }
}

/// The packet that asks for a path.
#[derive(Clone, Copy, Debug, Default)]
pub struct PacketView {
    /// It holds nothing but acknowledgements: neither window nor pacer applies. A connection asks
    /// about none of these, which leave on the path that they are about.
    pub acks_only: bool,
    /// It repeats something that was lost.
    pub retransmission: bool,
    /// Bytes that wait to be sent on whatever path, this packet's included.
    pub bytes_pending: u64,
    /// The urgency of its most urgent stream, 0 to 7, 0 being the most urgent (RFC 9218 §4.1).
    pub urgency: u8,
    /// When its first stream is of no use any more, if it was told so for that one
    /// (`Connection::set_stream_deadline`).
    pub deadline: Option<Timestamp>,
}

/// A path that the application or the connection chose itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// That path.
    pub path: PathId,
    /// Whether another may serve once this one is gone or may have failed.
    pub fallback: bool,
}

impl Pin {
    /// To that path, while it works.
    pub const fn to(path: PathId) -> Self {
        Self {
            path,
            fallback: true,
        }
    }

    /// To that path and no other.
    pub const fn only(path: PathId) -> Self {
        Self {
            path,
            fallback: false,
        }
    }
}

/// Everything that a decision follows from.
#[derive(Clone, Copy, Debug)]
pub struct SchedulerContext<'a> {
    /// The time.
    pub now: Timestamp,
    /// Every open path, validated or not; at most [`Candidates::MAX`] are looked at.
    pub paths: &'a [PathView],
    /// The packet.
    pub packet: PacketView,
    /// Where it has to go.
    pub pin: Option<Pin>,
    /// Bytes that the peer's connection flow control still admits.
    pub flow_credit: u64,
}

impl<'a> SchedulerContext<'a> {
    /// Any packet over `paths`, not pinned, with much waiting behind it.
    pub const fn new(now: Timestamp, paths: &'a [PathView]) -> Self {
        Self {
            now,
            paths,
            packet: PacketView {
                acks_only: false,
                retransmission: false,
                bytes_pending: u64::MAX,
                urgency: 3,
                deadline: None,
            },
            pin: None,
            flow_credit: u64::MAX,
        }
    }

    /// The paths that may be chosen from.
    #[inline]
    pub fn candidates(&self) -> Candidates {
        Candidates::of(self.now, self.paths)
    }

    /// The path of that identifier.
    #[inline]
    pub fn path(&self, id: PathId) -> Option<&'a PathView> {
        self.paths.iter().find(|p| p.id == id)
    }

    /// A path that should get this packet in order to be measured. What is in a hurry or was lost
    /// before is not risked.
    #[inline]
    pub fn to_measure(&self, candidates: &Candidates) -> Option<PathId> {
        if self.packet.retransmission || self.packet.deadline.is_some() {
            return None;
        }
        let unmeasured = candidates.sendable(self.paths);
        let unmeasured = unmeasured.filter(|p| p.wants_measuring());
        unmeasured.map(|p| p.id).min()
    }

    /// The answer when no candidate can send now: the first that only pacing holds back says when
    /// to ask again.
    pub fn wait(&self, candidates: &Candidates) -> Decision {
        if candidates.is_empty() {
            return Decision::Nothing;
        }
        let paced = candidates.usable(self.paths).filter(|p| p.has_room());
        Decision::Wait {
            until: paced.filter_map(|p| p.pacing_release).min(),
        }
    }
}

/// What to do with the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It leaves on that path.
    Send(PathId),
    /// It leaves on the first of these paths, and copies on the others.
    Redundant(PathIds),
    /// Not now, though there are paths: ask again at that time, or when an acknowledgement or a
    /// change of the paths comes first.
    Wait {
        /// `None`: an acknowledgement or a change alone.
        until: Option<Timestamp>,
    },
    /// There is no usable path.
    Nothing,
}

/// A few different paths, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathIds {
    ids: [PathId; limits::PATHS],
    len: u8,
}

impl PathIds {
    /// Adds a path; false when it is there or no more fit.
    pub fn push(&mut self, id: PathId) -> bool {
        if self.as_slice().contains(&id) {
            return false;
        }
        let Some(slot) = self.ids.get_mut(usize::from(self.len)) else {
            return false;
        };
        *slot = id;
        self.len += 1;
        true
    }

    /// The paths.
    pub fn as_slice(&self) -> &[PathId] {
        self.ids.get(..usize::from(self.len)).unwrap_or(&[])
    }
}
