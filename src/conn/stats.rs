//! Counters of one connection.

use crate::stream::DatagramStats;
use std::time::Duration;

/// What a connection counted since it began. Packets that were dropped are counted by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// UDP datagrams received.
    pub udp_datagrams_received: u64,
    /// Bytes of UDP payload received.
    pub udp_bytes_received: u64,
    /// UDP datagrams sent.
    pub udp_datagrams_sent: u64,
    /// Bytes of UDP payload sent.
    pub udp_bytes_sent: u64,
    /// QUIC packets received and authenticated.
    pub packets_received: u64,
    /// QUIC packets sent.
    pub packets_sent: u64,
    /// Packets declared lost.
    pub packets_lost: u64,
    /// Packets declared lost whose acknowledgement came after all.
    pub packets_spuriously_lost: u64,
    /// Packets that failed authentication.
    pub packets_undecryptable: u64,
    /// Packets that had been received before.
    pub packets_duplicate: u64,
    /// Packets dropped for another reason: wrong version, no keys, malformed.
    pub packets_dropped: u64,
    /// Acknowledgement frames sent.
    pub acks_sent: u64,
    /// Probe timeouts that fired.
    pub ptos: u64,
    /// Times the congestion window was reduced.
    pub congestion_events: u64,
    /// Key updates, by either side.
    pub key_updates: u64,
    /// 0-RTT packets sent.
    pub zero_rtt_packets_sent: u64,
    /// 0-RTT packets received and authenticated.
    pub zero_rtt_packets_received: u64,
    /// Times the peer's address changed.
    pub migrations: u64,
    /// Frames that led nowhere, as [`TransportConfig::glitches`](super::TransportConfig) counts
    /// them.
    pub glitches: u64,
    /// Paths opened beside the first, by either side.
    pub paths_opened: u64,
    /// Paths abandoned, by either side.
    pub paths_abandoned: u64,
    /// Times that a path may have failed.
    pub path_failures: u64,
    /// Datagrams of the application (RFC 9221), those that were dropped for want of room included.
    pub datagrams: DatagramStats,
}

/// Adds the growth of each field. The pattern names them all, so that none is forgotten.
macro_rules! grow {
    ($sum:expr, $from:expr, $to:expr, $ty:ident { $($field:ident),* } $(, $nested:ident)?) => {
        let $ty { $($field: _,)* $($nested: _)? } = $to;
        $($sum.$field += $to.$field.saturating_sub($from.$field);)*
    };
}

impl ConnectionStats {
    /// Adds what a connection counted between `from` and `to`.
    pub(super) fn grow(&mut self, from: &Self, to: &Self) {
        grow!(
            self,
            from,
            to,
            ConnectionStats {
                udp_datagrams_received,
                udp_bytes_received,
                udp_datagrams_sent,
                udp_bytes_sent,
                packets_received,
                packets_sent,
                packets_lost,
                packets_spuriously_lost,
                packets_undecryptable,
                packets_duplicate,
                packets_dropped,
                acks_sent,
                ptos,
                congestion_events,
                key_updates,
                zero_rtt_packets_sent,
                zero_rtt_packets_received,
                migrations,
                glitches,
                paths_opened,
                paths_abandoned,
                path_failures
            },
            datagrams
        );
        let (sum, from, to) = (&mut self.datagrams, &from.datagrams, &to.datagrams);
        grow!(
            sum,
            from,
            to,
            DatagramStats {
                tx,
                tx_too_large,
                rx,
                rx_dropped
            }
        );
    }
}

/// What is known of one path now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathStats {
    /// Smoothed round-trip time.
    pub smoothed_rtt: Duration,
    /// The latest sample of the round-trip time; zero before the first.
    pub latest_rtt: Duration,
    /// Smallest round-trip time seen.
    pub min_rtt: Duration,
    /// Round-trip time variation.
    pub rttvar: Duration,
    /// Congestion window in bytes.
    pub congestion_window: u64,
    /// Bytes in flight.
    pub bytes_in_flight: u64,
    /// UDP payload size in use, in bytes.
    pub mtu: usize,
}
