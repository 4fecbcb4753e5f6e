//! Every metric by its name, its meaning and its place in [`ShardMetrics`].

use super::ShardMetrics;
use crate::conn::totals::RTT_BOUNDS_US;
use crate::io::stats::ErrnoCounts;

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It may fall, too.
    Gauge,
}

/// One metric.
pub struct Metric {
    /// Its name, as Prometheus has it.
    pub name: &'static str,
    /// What it means.
    pub help: &'static str,
    /// How it behaves.
    pub kind: Kind,
    pub(super) get: fn(&ShardMetrics) -> u64,
    set: fn(&mut ShardMetrics, u64),
}

macro_rules! metrics {
    ($($kind:ident $name:literal $help:literal => $($field:ident).+;)*) => {
        pub(super) const TABLE: &[Metric] = &[$(Metric {
            name: concat!("corelane_", $name),
            help: $help,
            kind: Kind::$kind,
            get: |m| m.$($field).+,
            set: |m, n| m.$($field).+ = n,
        },)*];
    };
}

metrics! {
    Gauge "connections_open" "Connections that exist." => open_connections;
    Gauge "connections_half_open"
        "Accepted connections whose handshake has not finished." => half_open;
    Counter "shard_turns_total" "Turns of the shard's loop." => shard.turns;
    Counter "shard_parks_total" "Times the shard slept." => shard.parks;
    Counter "shard_trains_total" "Trains that the shard's sockets received." => shard.trains;
    Counter "shard_forwarded_total" "Datagrams handed to other shards." => shard.forwarded;
    Counter "shard_forward_dropped_total"
        "Datagrams for other shards that were dropped, their ring being full."
        => shard.forward_dropped;
    Counter "shard_adopted_total" "Trains that other shards handed over." => shard.adopted;
    Counter "shard_others_total"
        "Datagrams received that are another protocol's." => shard.others;
    Counter "shard_commands_total" "Commands from application handles." => shard.commands;
    Counter "endpoint_connected_total" "Connections begun by this side." => endpoint.connected;
    Counter "endpoint_accepted_total" "Connections accepted." => endpoint.accepted;
    Counter "endpoint_refused_total" "Attempts refused with an answer." => endpoint.refused;
    Counter "endpoint_ignored_total" "Attempts dropped without an answer." => endpoint.ignored;
    Counter "endpoint_retries_total" "Retry packets sent." => endpoint.retries;
    Counter "endpoint_version_negotiations_total"
        "Version Negotiation packets sent." => endpoint.version_negotiations;
    Counter "endpoint_resets_total" "Stateless resets sent." => endpoint.resets;
    Counter "endpoint_prefix_capped_total"
        "Attempts from a network that had all it may." => endpoint.prefix_capped;
    Counter "endpoint_held_expired_total"
        "Held attempts that were not decided about in time." => endpoint.held_expired;
    Counter "endpoint_stateless_crypto_total"
        "Cryptographic operations for what is no connection." => endpoint.stateless_crypto;
    Counter "endpoint_unroutable_total" "Datagrams that led nowhere." => endpoint.unroutable;
    Counter "io_rx_trains_total" "Receives with at least one datagram." => io.rx_trains;
    Counter "io_rx_datagrams_total" "Datagrams received." => io.rx_datagrams;
    Counter "io_rx_bytes_total" "Bytes of UDP payload received." => io.rx_bytes;
    Counter "io_rx_truncated_total"
        "Receives dropped because they were longer than a buffer." => io.rx_truncated;
    Counter "io_rx_empty_total" "Datagrams without payload." => io.rx_empty;
    Counter "io_rx_no_buffer_total"
        "Times that the kernel found no receive buffer." => io.rx_no_buffer;
    Counter "io_tx_trains_total" "Sends that the kernel took." => io.tx_trains;
    Counter "io_tx_datagrams_total" "Datagrams that the kernel took." => io.tx_datagrams;
    Counter "io_tx_bytes_total" "Bytes of UDP payload that the kernel took." => io.tx_bytes;
    Counter "io_tx_dropped_total" "Datagrams that did not leave." => io.tx_dropped;
    Counter "io_tx_over_share_total"
        "Datagrams that did not leave, their socket holding its share of the send buffers."
        => io.tx_over_share;
    Counter "io_tx_full_total" "Times that a socket's send buffer was full." => io.tx_full;
    Counter "io_gso_refused_total"
        "Sockets on which the kernel refused UDP_SEGMENT." => io.gso_refused;
    Counter "io_syscalls_total" "System calls to submit, send, receive or poll." => io.syscalls;
    Counter "io_sleeps_total" "Times that the backend slept." => io.sleeps;
    Counter "connection_udp_datagrams_received_total"
        "UDP datagrams that connections received." => connections.udp_datagrams_received;
    Counter "connection_udp_bytes_received_total"
        "Bytes of UDP payload that connections received." => connections.udp_bytes_received;
    Counter "connection_udp_datagrams_sent_total"
        "UDP datagrams that connections sent." => connections.udp_datagrams_sent;
    Counter "connection_udp_bytes_sent_total"
        "Bytes of UDP payload that connections sent." => connections.udp_bytes_sent;
    Counter "connection_packets_received_total"
        "QUIC packets received and authenticated." => connections.packets_received;
    Counter "connection_packets_sent_total" "QUIC packets sent." => connections.packets_sent;
    Counter "connection_packets_lost_total"
        "QUIC packets declared lost; what they carried was sent again." => connections.packets_lost;
    Counter "connection_packets_spuriously_lost_total"
        "QUIC packets declared lost whose acknowledgement came after all."
        => connections.packets_spuriously_lost;
    Counter "connection_packets_undecryptable_total"
        "QUIC packets that failed authentication." => connections.packets_undecryptable;
    Counter "connection_packets_duplicate_total"
        "QUIC packets that had been received before." => connections.packets_duplicate;
    Counter "connection_packets_dropped_total"
        "QUIC packets dropped for another reason." => connections.packets_dropped;
    Counter "connection_acks_sent_total"
        "Acknowledgement frames sent." => connections.acks_sent;
    Counter "connection_ptos_total" "Probe timeouts that fired." => connections.ptos;
    Counter "connection_congestion_events_total"
        "Reductions of the congestion window." => connections.congestion_events;
    Counter "connection_key_updates_total"
        "Key updates, by either side." => connections.key_updates;
    Counter "connection_zero_rtt_packets_sent_total"
        "0-RTT packets sent, of all packets." => connections.zero_rtt_packets_sent;
    Counter "connection_zero_rtt_packets_received_total"
        "0-RTT packets received, of all packets." => connections.zero_rtt_packets_received;
    Counter "connection_glitches_total"
        "Frames of peers that led nowhere." => connections.glitches;
    Counter "connection_migrations_total"
        "Changes of a peer's address." => connections.migrations;
    Counter "connection_paths_opened_total"
        "Paths opened beside a connection's first." => connections.paths_opened;
    Counter "connection_paths_abandoned_total"
        "Paths abandoned." => connections.paths_abandoned;
    Counter "connection_path_failures_total"
        "Times that a path was taken to have failed." => connections.path_failures;
    Counter "connection_datagrams_sent_total"
        "DATAGRAM frames sent." => connections.datagrams.tx;
    Counter "connection_datagrams_too_large_total"
        "DATAGRAM frames that outgrew the path before they were sent, and were dropped."
        => connections.datagrams.tx_too_large;
    Counter "connection_datagrams_received_total"
        "DATAGRAM frames received." => connections.datagrams.rx;
    Counter "connection_datagrams_dropped_total"
        "DATAGRAM frames received and dropped, the application not reading in time."
        => connections.datagrams.rx_dropped;
}

/// Errnos, by name.
pub(super) const ERRORS: (&str, &str) = (
    "corelane_io_errors_total",
    "Errnos that sends and receives gave.",
);
/// The histogram.
pub(super) const RTT: (&str, &str) = (
    "corelane_connection_rtt_seconds",
    "Smoothed round-trip times of connections when they ended.",
);

const BUCKETS: usize = RTT_BOUNDS_US.len() + 1;
/// Values of one shard.
pub(super) const SLOTS: usize = TABLE.len() + ErrnoCounts::LEN + BUCKETS + 1;

/// Name, help and kind of every metric with a value for each shard; errnos and the histogram of
/// round trips come on top.
pub fn list() -> &'static [Metric] {
    TABLE
}

/// Tells every value with its slot.
pub(super) fn write(m: &ShardMetrics, mut put: impl FnMut(usize, u64)) {
    let table = TABLE.iter().map(|entry| (entry.get)(m));
    let errors = m.io.errors.raw().iter().copied();
    let rtt = m.rtt.buckets.iter().copied().chain([m.rtt.sum_us]);
    let all = table.chain(errors).chain(rtt);
    all.enumerate().for_each(|(slot, n)| put(slot, n));
}

/// Sets every value from its slot.
pub(super) fn read(m: &mut ShardMetrics, get: impl Fn(usize) -> u64) {
    let mut slots = 0..SLOTS;
    let mut next = || slots.next().map_or(0, &get);
    for entry in TABLE {
        (entry.set)(m, next());
    }
    let errors = m.io.errors.raw_mut().iter_mut();
    for n in errors.chain(&mut m.rtt.buckets) {
        *n = next();
    }
    m.rtt.sum_us = next();
}
