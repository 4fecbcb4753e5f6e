//! What the paths of a run's connections counted: in JSON, and as a table for people.

use super::json::Workload;
use super::{table, units};
use corelane::base::time::nanos;
use corelane::conn::PathInfo;
use corelane::path::{PathId, PathState, PathStatus};
use serde::Serialize;
use std::time::Duration;

/// Silence after which a path of which nothing is asked counts as idle, at least.
const IDLE_AFTER: Duration = Duration::from_millis(500);

/// A path when its connection ended.
#[derive(Clone, Copy, Debug)]
pub struct SeenPath {
    /// How it stood.
    pub info: PathInfo,
    /// How long no packet had been acknowledged; `None` where none ever was.
    pub since_last_ack: Option<Duration>,
}

/// What is known of a path: `silent` is how long nothing was acknowledged there.
fn state(info: &Known, silent: Option<Duration>) -> &'static str {
    let patience = IDLE_AFTER.max(4 * info.smoothed_rtt);
    let heard_of = silent.is_some_and(|silent| silent <= patience);
    match info.state {
        PathState::Validating => "validating",
        PathState::Abandoned(_) => "abandoned",
        PathState::Open if info.potentially_failed => "failed",
        PathState::Open if heard_of || info.bytes_in_flight > 0 => "open",
        PathState::Open => "idle",
    }
}

/// What the state follows from.
#[derive(Clone, Copy)]
struct Known {
    state: PathState,
    potentially_failed: bool,
    bytes_in_flight: u64,
    smoothed_rtt: Duration,
}

/// The paths of one identifier, of all connections, as the client had them at the end. Counts are
/// sums, the rest is the first connection's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PathReport {
    /// The identifier; 0 is the first path.
    pub id: u32,
    /// Connections that had it.
    pub connections: u64,
    /// The client's end.
    pub local: String,
    /// The server's end.
    pub remote: String,
    /// `validating`, `open`, `failed` (open, and it may have failed), `idle` (open, and nothing has
    /// been asked of it lately, so that nobody knows) or `abandoned`.
    pub state: &'static str,
    /// What the client would have it used for: `available` or `backup`.
    pub status: &'static str,
    /// Bytes of UDP payload sent.
    pub bytes_sent: u64,
    /// Bytes of UDP payload received.
    pub bytes_received: u64,
    /// QUIC packets sent.
    pub packets_sent: u64,
    /// QUIC packets acknowledged.
    pub packets_acked: u64,
    /// QUIC packets declared lost.
    pub packets_lost: u64,
    /// Bytes of these.
    pub bytes_lost: u64,
    /// Stream bytes sent here that had been sent before, here or elsewhere.
    pub bytes_retransmitted: u64,
    /// QUIC packets with copies of what another path carried first.
    pub packets_duplicated: u64,
    /// Bytes of these.
    pub bytes_duplicated: u64,
    /// QUIC packets with what was lost or overdue on another path.
    pub packets_reinjected: u64,
    /// Bytes of these.
    pub bytes_reinjected: u64,
    /// Probe timeouts.
    pub probe_timeouts: u64,
    /// Times that it may have failed.
    pub failures: u64,
    /// How long no packet had been acknowledged at the end; null where none ever was.
    pub since_last_ack_ns: Option<u64>,
    /// The smoothed round trip.
    pub smoothed_rtt_ns: u64,
    /// The latest round trip.
    pub latest_rtt_ns: u64,
    /// Its variation.
    pub rttvar_ns: u64,
    /// The smallest round trip.
    pub min_rtt_ns: u64,
    /// The congestion window.
    pub congestion_window_bytes: u64,
    /// Bytes in flight.
    pub in_flight_bytes: u64,
    /// The UDP payload in use.
    pub udp_payload_bytes: u64,
}

impl PathReport {
    fn new(seen: &SeenPath) -> Self {
        let info = &seen.info;
        let known = Known {
            state: info.state,
            potentially_failed: info.potentially_failed,
            bytes_in_flight: info.stats.bytes_in_flight,
            smoothed_rtt: info.stats.smoothed_rtt,
        };
        Self {
            id: info.id.0,
            connections: 0,
            local: info.tuple.local.to_string(),
            remote: info.tuple.remote.to_string(),
            state: state(&known, seen.since_last_ack),
            status: match info.status {
                PathStatus::Available => "available",
                PathStatus::Backup => "backup",
            },
            bytes_sent: 0,
            bytes_received: 0,
            packets_sent: 0,
            packets_acked: 0,
            packets_lost: 0,
            bytes_lost: 0,
            bytes_retransmitted: 0,
            packets_duplicated: 0,
            bytes_duplicated: 0,
            packets_reinjected: 0,
            bytes_reinjected: 0,
            probe_timeouts: 0,
            failures: 0,
            since_last_ack_ns: seen.since_last_ack.map(nanos),
            smoothed_rtt_ns: nanos(info.stats.smoothed_rtt),
            latest_rtt_ns: nanos(info.stats.latest_rtt),
            rttvar_ns: nanos(info.stats.rttvar),
            min_rtt_ns: nanos(info.stats.min_rtt),
            congestion_window_bytes: info.stats.congestion_window,
            in_flight_bytes: info.stats.bytes_in_flight,
            udp_payload_bytes: info.stats.mtu as u64,
        }
    }

    fn add(&mut self, info: &PathInfo) {
        let c = &info.counters;
        self.connections += 1;
        self.bytes_sent += c.bytes_sent;
        self.bytes_received += c.bytes_received;
        self.packets_sent += info.packets_sent;
        self.packets_acked += c.packets_acked;
        self.packets_lost += c.packets_lost;
        self.bytes_lost += c.bytes_lost;
        self.bytes_retransmitted += c.bytes_retransmitted;
        self.packets_duplicated += c.packets_duplicated;
        self.bytes_duplicated += c.bytes_duplicated;
        self.packets_reinjected += c.packets_reinjected;
        self.bytes_reinjected += c.bytes_reinjected;
        self.probe_timeouts += c.ptos;
        self.failures += c.failures;
    }
}

/// Sums up what the connections' paths counted, by identifier.
pub fn sum(paths: &[SeenPath]) -> Vec<PathReport> {
    let mut ids: Vec<PathId> = paths.iter().map(|p| p.info.id).collect();
    ids.sort();
    ids.dedup();
    let one = |id: PathId| {
        let mut of = paths.iter().filter(|p| p.info.id == id).peekable();
        let mut report = PathReport::new(of.peek()?);
        of.for_each(|path| report.add(&path.info));
        Some(report)
    };
    ids.into_iter().filter_map(one).collect()
}

/// What the columns of a table of paths mean.
pub const LEGEND: &str = "\
paths count from their beginning, warm-up included
resent: stream bytes that had been sent before, on this path or another
copies: QUIC packets that repeat what another path carries at the same time
again: QUIC packets with what was lost or is overdue on another path
PTOs: probe timeouts; suspected: times that the path may have failed
state failed: it may have failed, and has acknowledged nothing since
state idle: nothing was asked of it lately, so that nobody knows whether it works
";

/// A workload's paths, and what came of killing one; `None` where there was but one path.
pub fn text(workload: &Workload) -> Option<String> {
    if workload.paths.is_empty() {
        return None;
    }
    let mut text = format!(
        "\npaths of {}, as the client had them at the end\n",
        workload.name
    );
    text += &rows(&workload.paths);
    if let (Some(path), Some(stall)) = (workload.killed_path, workload.longest_stall_ms) {
        text += &format!("path {path} was killed; longest time without delivery: {stall:.1} ms\n");
    }
    Some(text)
}

/// One row per path.
fn rows(paths: &[PathReport]) -> String {
    let header = [
        "path",
        "from",
        "to",
        "state",
        "sent",
        "received",
        "packets",
        "lost",
        "resent",
        "copies",
        "again",
        "PTOs",
        "suspected",
        "RTT",
        "min RTT",
        "window",
        "in flight",
        "last ACK",
        "UDP size",
    ];
    let time = |ns| units::nanoseconds(ns);
    let row = |p: &PathReport| {
        vec![
            p.id.to_string(),
            p.local.clone(),
            p.remote.clone(),
            p.state.to_owned(),
            units::bytes(p.bytes_sent),
            units::bytes(p.bytes_received),
            p.packets_sent.to_string(),
            p.packets_lost.to_string(),
            units::bytes(p.bytes_retransmitted),
            p.packets_duplicated.to_string(),
            p.packets_reinjected.to_string(),
            p.probe_timeouts.to_string(),
            p.failures.to_string(),
            time(p.smoothed_rtt_ns),
            time(p.min_rtt_ns),
            units::bytes(p.congestion_window_bytes),
            units::bytes(p.in_flight_bytes),
            p.since_last_ack_ns.map_or_else(|| "-".into(), time),
            p.udp_payload_bytes.to_string(),
        ]
    };
    table::table(&header, 4, paths.iter().map(row).collect())
}

/// The time as milliseconds.
pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_which_nothing_was_asked_is_idle_and_not_open() {
        let ms = Duration::from_millis;
        let known = Known {
            state: PathState::Open,
            potentially_failed: false,
            bytes_in_flight: 0,
            smoothed_rtt: ms(20),
        };
        assert_eq!(state(&known, Some(ms(500))), "open");
        assert_eq!(state(&known, Some(ms(501))), "idle");
        assert_eq!(state(&known, None), "idle");
        let slow = Known {
            smoothed_rtt: ms(300),
            ..known
        };
        assert_eq!(state(&slow, Some(ms(1200))), "open");
        let asked = Known {
            bytes_in_flight: 1,
            ..known
        };
        assert_eq!(state(&asked, Some(ms(9000))), "open");
        let failed = Known {
            potentially_failed: true,
            ..asked
        };
        assert_eq!(state(&failed, Some(ms(9000))), "failed");
        let gone = Known {
            state: PathState::Abandoned(None),
            ..failed
        };
        assert_eq!(state(&gone, Some(ms(9000))), "abandoned");
    }
}
