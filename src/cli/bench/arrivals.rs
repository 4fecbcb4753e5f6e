//! Datagrams that a server shard was shown and has not counted yet.
//!
//! Neighbours mostly come from one connection and with one time of sending: they are counted, and
//! their latency recorded, as one.

use super::live::Counters;
use crate::cli::report::hist::OpenLoop;
use corelane::base::Timestamp;
use corelane::conn::ConnId;
use corelane::sys::clock::Clock;

/// What arrived since the last count, all from one connection.
#[derive(Default)]
pub struct Arrivals {
    conn: Option<ConnId>,
    /// How many.
    pub count: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// The time that the newest ones begin with, and how many these are.
    stamp: Option<[u8; 8]>,
    alike: u64,
}

impl Arrivals {
    /// Notes a datagram. False when it is another connection's, and those before must be counted
    /// first.
    #[inline]
    pub fn add(&mut self, conn: ConnId, data: &[u8], record: Option<&mut OpenLoop>) -> bool {
        if self.conn != Some(conn) {
            if self.count > 0 {
                return false;
            }
            self.conn = Some(conn);
        }
        let stamp = data.first_chunk::<8>();
        if self.stamp.as_ref() != stamp {
            self.record(record);
            self.stamp = stamp.copied();
        }
        self.alike += 1;
        self.count += 1;
        self.bytes += data.len() as u64;
        true
    }

    /// Records the latency of those that are alike, as of now.
    fn record(&mut self, record: Option<&mut OpenLoop>) {
        let alike = std::mem::take(&mut self.alike);
        if let (Some(record), Some(stamp)) = (record, self.stamp.take())
            && alike > 0
        {
            let sent = Timestamp::from_nanos(u64::from_be_bytes(stamp));
            record.response.record_many(Clock::now() - sent, alike);
        }
    }

    /// Adds what was noted to the counters, and gives it back with the connection it came from;
    /// `None` when nothing was.
    pub fn take(
        &mut self,
        counters: &Counters,
        record: Option<&mut OpenLoop>,
    ) -> Option<(ConnId, u64, u64)> {
        let conn = self.conn.take()?;
        self.record(record);
        let (count, bytes) = (self.count, self.bytes);
        (self.count, self.bytes) = (0, 0);
        counters.datagrams.add(count);
        counters.datagram_bytes.add(bytes);
        Some((conn, count, bytes))
    }
}
