//! A competing flow that exists only on the link: segments in, acknowledgements and losses out.
//!
//! It behaves like one TCP bulk transfer with CUBIC (RFC 9438): slow start, a loss noticed one
//! round trip after the segment was dropped and answered once a round trip by a window of 0.7, then
//! growth by the cubic function. It needs no sockets and shares the very queue of the tested flow.

use std::collections::VecDeque;
use std::time::Duration;

/// Bytes of UDP payload that one segment stands for on the link.
pub const SEGMENT: usize = 1472;
const C: f64 = 0.4;
const BETA: f64 = 0.7;
const INITIAL_WINDOW: f64 = 10.0;

/// One bulk transfer under CUBIC.
#[derive(Clone, Debug)]
pub struct Cubic {
    window: f64,
    threshold: f64,
    w_max: f64,
    epoch: Option<Duration>,
    /// Losses before this belong to an episode that was answered.
    recovery_until: Duration,
    in_flight: usize,
    /// What the sender will hear and when: true for an acknowledgement.
    news: VecDeque<(Duration, bool)>,
    /// Segments that arrived.
    pub delivered: u64,
    /// Segments that were dropped.
    pub lost: u64,
}

impl Default for Cubic {
    fn default() -> Self {
        Self {
            window: INITIAL_WINDOW,
            threshold: f64::INFINITY,
            w_max: 0.0,
            epoch: None,
            recovery_until: Duration::ZERO,
            in_flight: 0,
            news: VecDeque::new(),
            delivered: 0,
            lost: 0,
        }
    }
}

impl Cubic {
    /// Whether the window lets a segment out.
    pub fn may_send(&self) -> bool {
        (self.in_flight as f64) < self.window.floor()
    }

    /// A segment was offered to the link; the sender hears of its fate at `at`.
    pub fn sent(&mut self, at: Duration, arrives: bool) {
        self.in_flight += 1;
        let place = self.news.partition_point(|(t, _)| *t <= at);
        self.news.insert(place, (at, arrives));
    }

    /// When there is news next.
    pub fn next(&self) -> Option<Duration> {
        self.news.front().map(|(t, _)| *t)
    }

    /// Hears what is due; `rtt` is about what a round trip takes now.
    pub fn hear(&mut self, now: Duration, rtt: Duration) {
        while let Some(&(at, arrived)) = self.news.front().filter(|(t, _)| *t <= now) {
            self.news.pop_front();
            self.in_flight -= 1;
            if arrived {
                self.delivered += 1;
                self.on_ack(at);
            } else {
                self.lost += 1;
                self.on_loss(at, rtt);
            }
        }
    }

    fn on_ack(&mut self, now: Duration) {
        if self.window < self.threshold {
            self.window += 1.0;
            return;
        }
        let epoch = *self.epoch.get_or_insert(now);
        let t = now.saturating_sub(epoch).as_secs_f64();
        let k = (self.w_max * (1.0 - BETA) / C).cbrt();
        let target = C * (t - k).powi(3) + self.w_max;
        // RFC 9438 §4.4 and §4.5, without the TCP-friendly region: the link's RTT is short.
        if target > self.window {
            self.window += ((target - self.window) / self.window).min(0.5);
        } else {
            self.window += 0.01 / self.window;
        }
    }

    fn on_loss(&mut self, now: Duration, rtt: Duration) {
        if now < self.recovery_until {
            return;
        }
        self.recovery_until = now + rtt;
        self.w_max = self.window;
        self.window = (self.window * BETA).max(2.0);
        self.threshold = self.window;
        self.epoch = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{Link, LinkConfig};

    #[test]
    fn alone_on_a_link_it_fills_most_of_it() {
        let ms = Duration::from_millis(1);
        let config = LinkConfig {
            delay: ms * 15,
            rate: Some(10_000_000),
            queue: 25,
            ..LinkConfig::default()
        };
        let (mut link, mut flow) = (Link::new(config, 1), Cubic::default());
        let mut now = Duration::ZERO;
        while now < Duration::from_secs(30) {
            flow.hear(now, ms * 60);
            while flow.may_send() {
                let passage = link.offer(now, SEGMENT);
                let heard = passage.at.first().map_or(now + ms * 60, |at| *at + ms * 15);
                flow.sent(heard, passage.fate.arrived());
            }
            now = flow.next().unwrap_or(now + ms);
        }
        let rate = flow.delivered as f64 * 12_000.0 / 30.0;
        assert!(rate > 9_000_000.0, "{rate}");
        assert!(flow.lost > 0, "the queue of 25 overflows");
    }
}
