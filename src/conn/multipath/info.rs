//! What an application may ask of a connection's paths, and say about them.

use super::super::{Connection, PathStats, SentFrame};
use super::ClosePathError;
use crate::base::{FourTuple, SocketId, Timestamp, limits};
use crate::path::{Path, PathCounters, PathId, PathState, PathStatus};
use std::time::Duration;

/// A path as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathInfo {
    /// Its identifier.
    pub id: PathId,
    /// The socket that it sends by.
    pub socket: SocketId,
    /// Its addresses.
    pub tuple: FourTuple,
    /// How far it has come.
    pub state: PathState,
    /// What we would have the peer use it for.
    pub status: PathStatus,
    /// What the peer would have us use it for; `None` while it has not said.
    pub peer_status: Option<PathStatus>,
    /// It has not acknowledged anything for so long that it may have failed
    /// ([`MultipathConfig::failure`](super::MultipathConfig)), as `PathEvent::PotentiallyFailed`
    /// told. Others are used while there are any, and after a probe timeout already.
    pub potentially_failed: bool,
    /// It has not answered for this many probe timeouts.
    pub pto_count: u32,
    /// Round-trip times, window, datagram size.
    pub stats: PathStats,
    /// Packets sent, but those of the handshake.
    pub packets_sent: u64,
    /// What it counted otherwise.
    pub counters: PathCounters,
}

impl PathInfo {
    /// How long no packet was acknowledged; `None` while none was.
    pub fn since_last_ack(&self, now: Timestamp) -> Option<Duration> {
        self.counters.last_ack.map(|at| now - at)
    }
}

pub(in super::super) fn stats_of(p: &Path<SentFrame>) -> PathStats {
    PathStats {
        smoothed_rtt: p.rtt.smoothed(),
        latest_rtt: p.rtt.latest(),
        min_rtt: p.rtt.min(),
        rttvar: p.rtt.var(),
        congestion_window: p.cc.window(),
        bytes_in_flight: p.bytes_in_flight,
        mtu: p.mtu.current(),
    }
}

impl Connection {
    /// The longest round trip of the paths in use: that of the slowest is how long what it lost
    /// holds up what others bring, and how much has to be taken meanwhile (RFC 6182 §5.3 has the
    /// same of MPTCP).
    #[inline]
    pub(in super::super) fn longest_rtt(&self) -> Duration {
        let hand = self.paths.current().rtt.smoothed();
        if self.paths.is_single() {
            return hand;
        }
        let works = |p: &&Path<SentFrame>| p.state == PathState::Open && !p.is_suspect();
        let others = self.paths.others().filter(works);
        others.map(|p| p.rtt.smoothed()).fold(hand, Duration::max)
    }

    /// The connection's paths, those included that were abandoned and are not forgotten yet, in the
    /// order of their identifiers.
    pub fn paths(&self) -> impl Iterator<Item = PathInfo> {
        let ids = self.paths.ids();
        ids.into_iter().filter_map(|id| self.path_info(id))
    }

    /// One path as it stands.
    pub fn path_info(&self, id: PathId) -> Option<PathInfo> {
        let p = self.paths.get(id)?;
        let mut counters = p.counters;
        if self.multipath.is_none() {
            counters.bytes_retransmitted = self.streams.bytes_again();
        }
        Some(PathInfo {
            id,
            socket: p.socket,
            tuple: p.tuple,
            state: p.state,
            status: p.status.ours(),
            peer_status: p.status.theirs(),
            potentially_failed: p.has_failed(),
            pto_count: p.pto_count,
            stats: stats_of(p),
            packets_sent: p.packets_sent(),
            counters,
        })
    }

    /// What paths had counted when they were forgotten: the latest
    /// [`PATHS`](limits::PATHS) of them, the oldest first.
    pub fn past_paths(&self) -> impl Iterator<Item = PathInfo> {
        let m = self.multipath.as_deref();
        m.into_iter().flat_map(|m| m.past.iter().copied())
    }

    /// A path is about to be forgotten: what it counted is kept.
    pub(super) fn keep_past(&mut self, id: PathId) {
        let info = self.path_info(id);
        if let (Some(info), Some(m)) = (info, self.multipath.as_deref_mut()) {
            if m.past.len() >= limits::PATHS {
                m.past.remove(0);
            }
            m.past.push(info);
        }
    }

    /// Says what a path is to be used for, by either side: this one keeps to it, the peer is told
    /// and may (multipath §3.3).
    ///
    /// # Errors
    /// As [`Connection::close_path`].
    pub fn set_path_status(
        &mut self,
        id: PathId,
        status: PathStatus,
    ) -> Result<(), ClosePathError> {
        if self.state.is_closed() {
            return Err(ClosePathError::Closed);
        }
        if self.multipath.is_none() {
            return Err(ClosePathError::NotNegotiated);
        }
        let path = self.paths.get_mut(id).filter(|p| !p.is_abandoned());
        path.ok_or(ClosePathError::Unknown)?.status.set(status);
        Ok(())
    }
}
