//! One path is killed in mid-transfer, and the longest time in which nothing was delivered is
//! looked for.

use super::plan::Spec;
use corelane::base::Timestamp;
use corelane_relay::{Change, Relay};
use std::time::Duration;

/// What happens to which path, and what came of it.
#[derive(Debug)]
pub struct Failover {
    path: u32,
    at: Timestamp,
    from: Timestamp,
    start: Timestamp,
    killed: Option<Duration>,
    bytes: u64,
    last: Timestamp,
    longest: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Which path was killed.
    pub path: u32,
    /// When, since the start of the load, warm-up included.
    pub killed: Option<Duration>,
    /// The longest time without delivery, warm-up left out.
    pub longest_stall: Duration,
}

impl Failover {
    /// To be killed halfway through the measured time of a run that begins at `start`.
    pub fn new(spec: &Spec, path: u32, start: Timestamp) -> Self {
        let from = start + spec.omit;
        Self {
            path,
            at: from + spec.time / 2,
            from,
            start,
            killed: None,
            bytes: 0,
            last: from,
            longest: Duration::ZERO,
        }
    }

    /// So many bytes were delivered by `now`. Call it often.
    pub fn look(&mut self, now: Timestamp, bytes: u64, relay: Option<&Relay>) {
        if now < self.from {
            self.bytes = bytes;
            return;
        }
        self.longest = self.longest.max(now - self.last);
        if bytes != self.bytes {
            (self.bytes, self.last) = (bytes, now);
        }
        if self.killed.is_none() && now >= self.at {
            if let Some(relay) = relay {
                relay.change(self.path as usize, Change::Blackhole(None));
            }
            self.killed = Some(now - self.start);
        }
    }

    pub fn outcome(&self) -> Outcome {
        Outcome {
            path: self.path,
            killed: self.killed,
            longest_stall: self.longest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::plan::{Bulk, Work};

    #[test]
    fn the_longest_time_without_a_byte_is_found() {
        let ms = Duration::from_millis;
        let at = |n| Timestamp::ZERO + ms(n);
        let bulk = Bulk {
            send: true,
            receive: false,
            bytes: None,
            chunk: 1,
            rate: 0,
        };
        let spec = Spec {
            name: String::new(),
            work: Work::Bulk(bulk),
            connections: 1,
            streams: 1,
            time: ms(100),
            omit: ms(50),
            idle: false,
            paths: 2,
            auto_paths: false,
            kill: Some(1),
        };
        let mut failover = Failover::new(&spec, 1, at(1000));
        for (now, bytes) in [
            (1000, 0),
            // Nothing for 50 ms, in the warm-up.
            (1049, 10),
            (1055, 10),
            (1060, 20),
            (1101, 21),
            (1130, 21),
            (1131, 21),
        ] {
            failover.look(at(now), bytes, None);
        }
        let expected = Outcome {
            path: 1,
            killed: Some(ms(101)),
            longest_stall: ms(41),
        };
        assert_eq!(failover.outcome(), expected);
        // One that goes on counts as long as it is.
        failover.look(at(1199), 21, None);
        assert_eq!(failover.outcome().longest_stall, ms(98));
    }
}
