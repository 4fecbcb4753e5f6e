//! What the connections of one shard had counted when they ended.

use corelane::conn::Connection;
use std::time::Duration;

/// Sums and extremes over connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// QUIC packets sent.
    pub sent: u64,
    /// QUIC packets received and authenticated.
    pub received: u64,
    /// QUIC packets declared lost.
    pub lost: u64,
    /// Of these, packets whose acknowledgement came after all.
    pub spuriously_lost: u64,
    /// Stream bytes that had been sent before.
    pub bytes_again: u64,
    /// Packets of copies on several paths.
    pub duplicated: u64,
    /// Packets sent again on another path before they counted as lost, or at once when they did.
    pub reinjected: u64,
    /// Probe timeouts.
    pub ptos: u64,
    /// Reductions of the congestion window.
    pub congestion_events: u64,
    /// The largest UDP payload in use.
    pub mtu: usize,
    /// The smallest round trip.
    pub min_rtt: Option<Duration>,
}

impl Tally {
    /// Adds a connection's counters.
    pub fn add(&mut self, connection: &Connection) {
        let (stats, path) = (connection.stats(), connection.path_stats());
        let copies = connection.copy_stats();
        self.merge(&Self {
            sent: stats.packets_sent,
            received: stats.packets_received,
            lost: stats.packets_lost,
            spuriously_lost: stats.packets_spuriously_lost,
            bytes_again: connection.streams().stats().tx_bytes_again,
            duplicated: copies.duplicated_packets + copies.redundant_packets,
            reinjected: copies.reinjected_packets,
            ptos: stats.ptos,
            congestion_events: stats.congestion_events,
            mtu: path.mtu,
            min_rtt: (!path.min_rtt.is_zero()).then_some(path.min_rtt),
        });
    }

    /// Adds another shard's sums.
    pub fn merge(&mut self, other: &Self) {
        self.sent += other.sent;
        self.received += other.received;
        self.lost += other.lost;
        self.spuriously_lost += other.spuriously_lost;
        self.bytes_again += other.bytes_again;
        self.duplicated += other.duplicated;
        self.reinjected += other.reinjected;
        self.ptos += other.ptos;
        self.congestion_events += other.congestion_events;
        self.mtu = self.mtu.max(other.mtu);
        self.min_rtt = match (self.min_rtt, other.min_rtt) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_and_extremes_stay() {
        let ms = Duration::from_millis;
        let mut all = Tally {
            sent: 1,
            mtu: 1200,
            min_rtt: None,
            ..Tally::default()
        };
        all.merge(&Tally {
            sent: 2,
            lost: 1,
            mtu: 9000,
            min_rtt: Some(ms(3)),
            ..Tally::default()
        });
        all.merge(&Tally {
            mtu: 1452,
            min_rtt: Some(ms(2)),
            ..Tally::default()
        });
        all.merge(&Tally::default());
        let expected = Tally {
            sent: 3,
            lost: 1,
            mtu: 9000,
            min_rtt: Some(ms(2)),
            ..Tally::default()
        };
        assert_eq!(all, expected);
    }
}
