//! The sending end of bulk data: references to one static block, as fast as the stream takes them
//! or at a rate. Client and server use the same.

use bytes::Bytes;
use corelane::base::Timestamp;
use corelane::stream::{Streams, WriteError};
use corelane::wire::StreamId;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::OnceLock;
use std::time::Duration;

use super::protocol::MAX_MESSAGE;

/// Bytes without end: what a stream sends until it is stopped.
pub const ENDLESS: u64 = u64::MAX;
/// A paced stream writes this often at most; in between the tokens gather.
const PACE_STEP: Duration = Duration::from_millis(1);

/// The data that everything here sends: the same block again and again, never copied before it
/// stands in a packet.
pub fn payload() -> Bytes {
    static BLOCK: OnceLock<&'static [u8]> = OnceLock::new();
    Bytes::from_static(BLOCK.get_or_init(|| {
        let pattern = (0..MAX_MESSAGE).map(|n| (n % 251) as u8);
        Box::leak(pattern.collect::<Vec<u8>>().into_boxed_slice())
    }))
}

/// A rate that was begun at some time.
#[derive(Clone, Copy, Debug)]
struct Pace {
    start: Timestamp,
    bytes_per_second: u64,
    sent: u64,
}

impl Pace {
    /// Bytes that may leave now.
    fn allowance(&self, now: Timestamp) -> u64 {
        let elapsed = (now - self.start).as_nanos();
        let due = elapsed * u128::from(self.bytes_per_second) / 1_000_000_000;
        u64::try_from(due)
            .unwrap_or(u64::MAX)
            .saturating_sub(self.sent)
    }

    /// When `bytes` may leave.
    fn when(&self, bytes: u64) -> Timestamp {
        let total = u128::from(self.sent.saturating_add(bytes));
        let nanos = (total * 1_000_000_000).div_ceil(u128::from(self.bytes_per_second.max(1)));
        self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// What sends on one stream.
#[derive(Debug)]
pub struct Sender {
    left: u64,
    chunk: Bytes,
    pace: Option<Pace>,
}

/// How a sender's turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pumped {
    /// The stream takes no more for now; its Writable event follows.
    Blocked,
    /// The rate permits no more until then.
    Later(Timestamp),
    /// Everything was written.
    Done,
    /// The stream takes no more, ever.
    Closed,
}

impl Sender {
    /// Sends `total` bytes ([`ENDLESS`] without end) in writes of `chunk` bytes, at
    /// `bytes_per_second` counted from `now`; 0 is without limit.
    pub fn new(now: Timestamp, total: u64, chunk: u32, bytes_per_second: u64) -> Self {
        let block = payload();
        let chunk = block.slice(..(chunk as usize).clamp(1, block.len()));
        let pace = Pace {
            start: now,
            bytes_per_second,
            sent: 0,
        };
        Self {
            left: total,
            chunk,
            pace: (bytes_per_second > 0).then_some(pace),
        }
    }

    /// Writes what the stream and the rate permit.
    pub fn pump(&mut self, now: Timestamp, streams: &mut Streams, id: StreamId) -> Pumped {
        self.pump_to(now, |data| streams.write_bytes(id, data))
    }

    fn pump_to(
        &mut self,
        now: Timestamp,
        mut write: impl FnMut(Bytes) -> Result<usize, WriteError>,
    ) -> Pumped {
        loop {
            let want = self.left.min(self.chunk.len() as u64);
            if want == 0 {
                return Pumped::Done;
            }
            if let Some(pace) = &self.pace
                && pace.allowance(now) < want
            {
                return Pumped::Later(pace.when(want).max(now + PACE_STEP));
            }
            let data = match want as usize {
                whole if whole == self.chunk.len() => self.chunk.clone(),
                part => self.chunk.slice(..part),
            };
            let Ok(n) = write(data) else {
                return Pumped::Closed;
            };
            if self.left != ENDLESS {
                self.left -= n as u64;
            }
            if let Some(pace) = &mut self.pace {
                pace.sent += n as u64;
            }
            if (n as u64) < want {
                return Pumped::Blocked;
            }
        }
    }
}

/// Streams (`K` names them) that wait for their rate, the next one first.
#[derive(Debug)]
pub struct Waiting<K>(BinaryHeap<Reverse<(Timestamp, K)>>);

impl<K: Ord> Default for Waiting<K> {
    fn default() -> Self {
        Self(BinaryHeap::new())
    }
}

impl<K: Ord + Copy> Waiting<K> {
    /// A stream that may go on at `at`.
    pub fn add(&mut self, at: Timestamp, key: K) {
        self.0.push(Reverse((at, key)));
    }

    /// A stream whose time has come.
    pub fn take_due(&mut self, now: Timestamp) -> Option<K> {
        let Reverse((at, key)) = *self.0.peek()?;
        if at > now {
            return None;
        }
        self.0.pop();
        Some(key)
    }

    /// When the next one's time comes.
    pub fn next(&self) -> Option<Timestamp> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(millis)
    }

    /// Takes `room` bytes in all.
    fn room(mut room: usize, taken: &mut u64) -> impl FnMut(Bytes) -> Result<usize, WriteError> {
        move |data| {
            let n = data.len().min(room);
            room -= n;
            *taken += n as u64;
            Ok(n)
        }
    }

    #[test]
    fn a_total_is_sent_exactly() {
        let mut sender = Sender::new(at(0), 100_000, 64_000, 0);
        let mut taken = 0;
        assert_eq!(
            sender.pump_to(at(0), room(70_000, &mut taken)),
            Pumped::Blocked
        );
        assert_eq!(taken, 70_000);
        assert_eq!(
            sender.pump_to(at(0), room(70_000, &mut taken)),
            Pumped::Done
        );
        assert_eq!(taken, 100_000);
    }

    #[test]
    fn without_end_there_is_always_more() {
        let mut sender = Sender::new(at(0), ENDLESS, 1 << 20, 0);
        let mut taken = 0;
        assert_eq!(
            sender.pump_to(at(0), room(9 << 20, &mut taken)),
            Pumped::Blocked
        );
        assert_eq!(taken, 9 << 20);
        assert_eq!(
            sender.pump_to(at(0), |_| Err(WriteError::Unknown)),
            Pumped::Closed
        );
    }

    #[test]
    fn a_rate_is_kept_over_time() {
        // 1 MB/s in writes of 10 kB: one every 10 ms.
        let mut sender = Sender::new(at(0), ENDLESS, 10_000, 1_000_000);
        let (mut taken, mut now) = (0, at(0));
        while now < at(1000) {
            match sender.pump_to(now, room(usize::MAX, &mut taken)) {
                Pumped::Later(next) => {
                    assert!(next > now);
                    now = next;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(taken, 990_000);
    }

    #[test]
    fn the_earliest_waits_in_front() {
        let mut waiting = Waiting::default();
        assert_eq!((waiting.next(), waiting.take_due(at(9))), (None, None));
        for millis in [3, 1, 2] {
            waiting.add(at(millis), millis);
        }
        assert_eq!(waiting.next(), Some(at(1)));
        assert_eq!(waiting.take_due(at(0)), None);
        assert_eq!(waiting.take_due(at(2)), Some(1));
        assert_eq!(waiting.take_due(at(2)), Some(2));
        assert_eq!(waiting.take_due(at(2)), None);
    }
}
