//! CUBIC (RFC 9438): after congestion the window returns to where it was along a cubic function of
//! time, lingers there, and then probes beyond; where that is slower than Reno would be, Reno's
//! estimate is followed.
//!
//! Windows are bytes; the RFC's segments are datagrams of the current size. Time in which the
//! application did not use the window does not count (RFC 9438 §5.8).

use super::window::Window;
use super::{AckEvent, Congestion};
use crate::base::Timestamp;

/// The multiplicative decrease factor (RFC 9438 §4.6).
const BETA: f64 = 0.7;
/// The aggressiveness, in segments per second cubed (RFC 9438 §5.1).
const C: f64 = 0.4;
/// Reno's additive increase that gives the same average window with `BETA` (RFC 9438 §4.3).
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// The variables of one congestion avoidance stage, which a spurious congestion event restores.
#[derive(Clone, Copy, Debug)]
struct Stage {
    /// `W_max`: the window before the last reduction; zero before any.
    w_max: f64,
    /// `K`: seconds from the start of the stage until the window is back at `w_max`.
    k: f64,
    /// When the stage began; moved on by the time in which the window was not used.
    epoch_start: Option<Timestamp>,
    /// `W_est`: what Reno's window would be.
    w_est: f64,
    /// The window before the last reduction, for Reno's increase.
    cwnd_prior: f64,
}

/// The CUBIC controller.
#[derive(Clone, Debug)]
pub struct Cubic {
    pub(super) window: Window,
    stage: Stage,
    /// The fraction of a byte that the window lags behind.
    carry: f64,
    /// When the stage last took in an acknowledgement.
    last_ack: Timestamp,
    /// The window, the threshold and the stage before the latest reduction, if there was one.
    before: Option<Box<(u64, u64, Stage)>>,
}

impl Cubic {
    /// A controller in slow start.
    pub(super) fn new(mtu: usize) -> Self {
        let stage = Stage {
            w_max: 0.0,
            k: 0.0,
            epoch_start: None,
            w_est: 0.0,
            cwnd_prior: 0.0,
        };
        Self {
            window: Window::new(mtu),
            stage,
            carry: 0.0,
            last_ack: Timestamp::ZERO,
            before: None,
        }
    }

    #[inline]
    pub(super) fn on_packet_sent(&mut self, now: Timestamp, bytes: u64, bytes_in_flight: u64) {
        if bytes_in_flight == 0 {
            // Nothing was on its way: the time since the last acknowledgement was idle.
            self.skip_time(now);
        }
        self.window.on_packet_sent(bytes, bytes_in_flight);
    }

    pub(super) fn on_ack(&mut self, ack: &AckEvent<'_>) {
        if self.window.in_recovery(ack.largest_acked_sent) {
            return;
        }
        let acked = if self.window.in_slow_start() {
            self.window.slow_start(ack)
        } else if self.window.is_used(ack) {
            ack.acked_bytes
        } else {
            self.skip_time(ack.now);
            0
        };
        if acked > 0 {
            self.avoid_congestion(ack, acked);
        }
    }

    /// Takes the time since the last acknowledgement out of the stage.
    fn skip_time(&mut self, now: Timestamp) {
        if let Some(start) = &mut self.stage.epoch_start {
            *start += now - self.last_ack;
            self.last_ack = now;
        }
    }

    /// `W_cubic(t)` (RFC 9438 §4.2), `t` in seconds since the stage began.
    fn w_cubic(&self, t: f64) -> f64 {
        let d = t - self.stage.k;
        C * self.window.mtu() as f64 * d * d * d + self.stage.w_max
    }

    fn avoid_congestion(&mut self, ack: &AckEvent<'_>, acked: u64) {
        let (cwnd, acked) = (self.window.congestion_window() as f64, acked as f64);
        let mtu = self.window.mtu() as f64;
        let start = match self.stage.epoch_start {
            Some(start) => start,
            None => self.begin_stage(ack.now, cwnd),
        };
        self.last_ack = ack.now;
        let t = (ack.now - start).as_secs_f64();

        // RFC 9438 §4.3: once Reno would be back where it was, it adds a segment per window.
        let alpha = if self.stage.w_est < self.stage.cwnd_prior {
            ALPHA
        } else {
            1.0
        };
        self.stage.w_est += alpha * mtu * acked / cwnd;

        let next = if self.w_cubic(t) < self.stage.w_est {
            self.stage.w_est.max(cwnd)
        } else {
            let target = self.w_cubic(t + ack.rtt.smoothed().as_secs_f64());
            cwnd + (target.clamp(cwnd, 1.5 * cwnd) - cwnd) * acked / cwnd
        };
        let next = next + self.carry;
        self.carry = next.fract();
        self.window.set(next as u64);
    }

    fn begin_stage(&mut self, now: Timestamp, cwnd: f64) -> Timestamp {
        let stage = &mut self.stage;
        if stage.w_max > cwnd {
            stage.k = ((stage.w_max - cwnd) / (C * self.window.mtu() as f64)).cbrt();
        } else {
            // RFC 9438 §4.8, §4.10: after slow start without loss, and after a timeout, the
            // plateau is here.
            stage.k = 0.0;
            stage.w_max = cwnd;
        }
        stage.w_est = cwnd;
        stage.epoch_start = Some(now);
        self.carry = 0.0;
        now
    }

    pub(super) fn on_congestion_event(
        &mut self,
        now: Timestamp,
        sent: Timestamp,
        congestion: Congestion,
    ) -> bool {
        if !self.window.begin_recovery(now, sent, congestion) {
            return false;
        }
        let window = self.window.congestion_window();
        let before = (window, self.window.ssthresh(), self.stage);
        match &mut self.before {
            Some(place) => **place = before,
            None => self.before = Some(Box::new(before)),
        }
        let cwnd = window as f64;
        // RFC 9438 §4.7, fast convergence: a flow that did not get back to its plateau leaves
        // room for others.
        self.stage.w_max = if cwnd < self.stage.w_max {
            cwnd * (1.0 + BETA) / 2.0
        } else {
            cwnd
        };
        self.stage.cwnd_prior = cwnd;
        self.stage.epoch_start = None;
        self.window.shrink((cwnd * BETA) as u64);
        true
    }

    pub(super) fn on_persistent_congestion(&mut self) {
        self.stage.w_max = 0.0;
        self.stage.epoch_start = None;
        self.window.collapse();
    }

    pub(super) fn on_spurious(&mut self, count: u32, lost_at: Timestamp) -> bool {
        let refuted = self.window.refute(count, lost_at);
        // RFC 9438 §4.9: not when the window has grown past it since.
        if let Some((congestion_window, ssthresh, stage)) = self.before.as_deref()
            && refuted
            && self.window.congestion_window() < *congestion_window
        {
            self.window.restore(*congestion_window, *ssthresh);
            self.stage = *stage;
            self.carry = 0.0;
        }
        refuted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::Rtt;
    use std::time::Duration;

    const MTU: usize = 1000;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_nanos(ms * 1_000_000)
    }

    fn rtt() -> Rtt {
        let mut rtt = Rtt::default();
        rtt.on_sample(at(0), Duration::from_millis(100), Duration::ZERO);
        rtt
    }

    /// A full window's acknowledgement `ms` after recovery began at 10 s.
    fn ack(c: &mut Cubic, ms: u64, bytes: u64) {
        let full = c.window.congestion_window();
        c.window.on_packet_sent(full, 0);
        c.on_ack(&AckEvent {
            now: at(10_000 + ms),
            acked_bytes: bytes,
            largest_acked_sent: at(10_000 + ms),
            rtt: &rtt(),
            app_limited: false,
            bytes_in_flight: full,
            bytes_left: 0,
        });
    }

    /// CUBIC after a loss at a window of 100 segments.
    fn after_loss() -> Cubic {
        let mut c = Cubic::new(MTU);
        c.window.set(100_000);
        assert!(c.on_congestion_event(at(10_000), at(9_900), Congestion::Loss(1)));
        assert_eq!(c.window.congestion_window(), 70_000);
        c
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-6 * b.abs().max(1.0), "{a} is not {b}");
    }

    #[test]
    fn the_cubic_function_passes_through_its_three_points() {
        let mut c = after_loss();
        ack(&mut c, 1, 0);
        ack(&mut c, 1, 1);
        // K = cbrt(30 / 0.4) = cbrt(75) = 4.217163...
        close(c.stage.k, 4.217_163_326_508_746);
        close(c.w_cubic(0.0), 70_000.0);
        close(c.w_cubic(c.stage.k), 100_000.0);
        close(c.w_cubic(2.0 * c.stage.k), 130_000.0);
        // 0.4 * (2 - 4.217163)^3 + 100 = 95.640253...
        close(c.w_cubic(2.0), 95_640.254_143_6);
    }

    #[test]
    fn at_first_reno_is_faster() {
        let mut c = after_loss();
        ack(&mut c, 1, 70_000);
        // W_cubic(0) = 70; W_est = 70 + 3 * 0.3 / 1.7 = 70.529411...
        assert_eq!(c.window.congestion_window(), 70_529);
        close(c.stage.w_est, 70_529.411_764_7);
    }

    #[test]
    fn in_the_concave_region_the_window_moves_towards_the_target() {
        let mut c = after_loss();
        ack(&mut c, 0, 0);
        ack(&mut c, 1, 1); // the stage begins at 10.001 s
        let before = c.window.congestion_window();
        ack(&mut c, 2001, before / 2);
        // Target W_cubic(2.1) = 0.4 * (2.1 - 4.217163)^3 + 100 = 96.204027...; half the window was
        // acknowledged, so half the way.
        let target = 96_204.0;
        let expected = before as f64 + (target - before as f64) / 2.0;
        assert!((c.window.congestion_window() as f64 - expected).abs() < 2.0);
    }

    #[test]
    fn growth_is_at_most_half_a_window_per_window() {
        let mut c = after_loss();
        ack(&mut c, 1, 1);
        let before = c.window.congestion_window();
        ack(&mut c, 60_000, before);
        assert_eq!(c.window.congestion_window(), before * 3 / 2);
    }

    #[test]
    fn fast_convergence_lowers_the_plateau() {
        let mut c = after_loss();
        ack(&mut c, 1, 70_000);
        let cwnd = c.window.congestion_window();
        assert!(c.on_congestion_event(at(10_500), at(10_400), Congestion::Ecn(1)));
        close(c.stage.w_max, cwnd as f64 * 0.85);
        assert_eq!(c.window.congestion_window(), (cwnd as f64 * 0.7) as u64);
    }

    #[test]
    fn reno_regains_a_segment_per_window_past_the_old_maximum() {
        let mut c = after_loss();
        ack(&mut c, 1, 1);
        c.stage.w_est = 100_000.0;
        let cwnd = c.window.congestion_window();
        ack(&mut c, 2, cwnd);
        close(c.stage.w_est, 101_000.0);
        assert_eq!(c.window.congestion_window(), 101_000);
    }

    #[test]
    fn unused_and_idle_time_does_not_count() {
        let mut c = after_loss();
        ack(&mut c, 1, 1);
        let cwnd = c.window.congestion_window();
        // An hour of acknowledgements of single packets, then of nothing at all.
        for i in 1..=3600 {
            c.on_packet_sent(at(10_001 + i * 1000 - 100), 1000, 0);
            c.on_ack(&AckEvent {
                now: at(10_001 + i * 1000),
                acked_bytes: 1000,
                largest_acked_sent: at(10_001 + i * 1000 - 100),
                rtt: &rtt(),
                app_limited: true,
                bytes_in_flight: 1000,
                bytes_left: 0,
            });
        }
        assert_eq!(c.window.congestion_window(), cwnd);
        c.on_packet_sent(at(20_000_000), cwnd, 0);
        ack(&mut c, 19_990_100, cwnd);
        // A tenth of a second of the stage has passed: the target is W_cubic(0.2) =
        // 0.4 * (0.2 - 4.217163)^3 + 100 = 74.069...
        assert_eq!(c.window.congestion_window(), 74_069);
        let t = at(20_000_100) - c.stage.epoch_start.expect("a stage");
        assert_eq!(t, Duration::from_millis(100));
    }

    #[test]
    fn leaving_slow_start_without_loss_puts_the_plateau_here() {
        let mut c = Cubic::new(MTU);
        c.window.shrink(50_000); // what HyStart++ does: ssthresh = cwnd
        ack(&mut c, 0, 1000);
        close(c.stage.k, 0.0);
        close(c.stage.w_max, 50_000.0);
    }

    #[test]
    fn a_timeout_restarts_from_the_minimum() {
        let mut c = after_loss();
        c.on_persistent_congestion();
        assert_eq!(c.window.congestion_window(), 2000);
        assert_eq!(c.window.ssthresh(), 70_000);
        assert!(c.window.in_slow_start());
        for ms in 1..=200 {
            let cwnd = c.window.congestion_window();
            if !c.window.in_slow_start() {
                break;
            }
            ack(&mut c, ms, cwnd);
        }
        assert!(c.window.congestion_window() >= 70_000);
        close(c.stage.k, 0.0);
        close(c.stage.w_max, 70_000.0);
    }
}
