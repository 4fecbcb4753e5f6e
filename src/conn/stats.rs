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
    /// Frames that led nowhere, as [`TransportConfig::glitches`](super::TransportConfig) counts them.
    pub glitches: u64,
    /// Datagrams of the application (RFC 9221), those that were dropped for want of room included.
    pub datagrams: DatagramStats,
}

/// What is known of one path now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathStats {
    /// Smoothed round-trip time.
    pub smoothed_rtt: Duration,
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
