//! What BBR knows of the path over time: the bandwidth of the last two probing cycles, the degree
//! of aggregation, and the smallest round-trip times (draft-ietf-ccwg-bbr-06 §5.5.2 to §5.5.9 and
//! §5.3.4.3). Bandwidth is bytes per second.

use crate::base::Timestamp;
use std::time::Duration;

/// How long a smallest RTT stands (`MinRTTFilterLen`).
const MIN_RTT_WINDOW: Duration = Duration::from_secs(10);
/// Time between probes of the smallest RTT; the draft makes all flows use the same (§5.3.4.2).
const PROBE_RTT_INTERVAL: Duration = Duration::from_secs(5);
/// Round trips of half the window over which aggregation is remembered (`ExtraAckedFilterLen`).
const EXTRA_ACKED_ROUNDS: u64 = 5;

/// The largest bandwidth of the present probing cycle and the one before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MaxBw {
    previous: f64,
    current: f64,
}

impl MaxBw {
    pub(super) const fn get(&self) -> f64 {
        self.previous.max(self.current)
    }

    pub(super) const fn update(&mut self, bw: f64) {
        self.current = self.current.max(bw);
    }

    /// A probing cycle ends. One without samples forgets nothing.
    pub(super) fn advance(&mut self) {
        if self.current > 0.0 {
            self.previous = self.current;
            self.current = 0.0;
        }
    }
}

/// `BBR.extra_acked` (§5.5.9): by how much acknowledgements come in lumps.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExtraAcked {
    pub(super) interval_start: Timestamp,
    delivered: u64,
    /// The largest of the present half of the window and of the one before.
    halves: [u64; 2],
    half_start: u64,
}

impl ExtraAcked {
    pub(super) const fn new() -> Self {
        Self {
            interval_start: Timestamp::ZERO,
            delivered: 0,
            halves: [0; 2],
            half_start: 0,
        }
    }

    pub(super) fn get(&self) -> u64 {
        self.halves[0].max(self.halves[1])
    }

    /// `acked` bytes were delivered at `now` in round `round`; `bw` were expected. In Startup only
    /// one round is remembered.
    pub(super) fn update(
        &mut self,
        now: Timestamp,
        acked: u64,
        bw: f64,
        window: u64,
        round: u64,
        startup: bool,
    ) {
        let mut expected = bw * (now - self.interval_start).as_secs_f64();
        if self.delivered as f64 <= expected {
            self.delivered = 0;
            self.interval_start = now;
            expected = 0.0;
        }
        self.delivered += acked;
        let extra = ((self.delivered as f64 - expected) as u64).min(window);
        let half = if startup { 1 } else { EXTRA_ACKED_ROUNDS };
        if round >= self.half_start + half {
            self.half_start = round;
            self.halves = if startup { [0; 2] } else { [0, self.halves[0]] };
        }
        self.halves[0] = self.halves[0].max(extra);
    }
}

/// The smallest RTT, and when to look for it again (§5.3.4.3).
#[derive(Clone, Copy, Debug)]
pub(super) struct MinRtt {
    /// `BBR.min_rtt`; `None` before the first sample.
    pub(super) value: Option<Duration>,
    stamp: Timestamp,
    probe_value: Duration,
    pub(super) probe_stamp: Timestamp,
    /// `BBR.probe_rtt_expired`.
    pub(super) expired: bool,
}

impl MinRtt {
    pub(super) const fn new() -> Self {
        Self {
            value: None,
            stamp: Timestamp::ZERO,
            probe_value: Duration::MAX,
            probe_stamp: Timestamp::ZERO,
            expired: false,
        }
    }

    pub(super) fn update(&mut self, now: Timestamp, rtt: Duration) {
        let first = self.value.is_none();
        self.expired = !first && now > self.probe_stamp + PROBE_RTT_INTERVAL;
        if rtt < self.probe_value || self.expired {
            self.probe_value = rtt;
            self.probe_stamp = now;
        }
        let old = now > self.stamp + MIN_RTT_WINDOW;
        if self.value.is_none_or(|min| self.probe_value < min) || old {
            self.value = Some(self.probe_value);
            self.stamp = self.probe_stamp;
        }
    }
}
