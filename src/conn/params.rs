//! Our transport parameters, out of the configuration, and what stays of the peer's (RFC 9000
//! §18.2).

use super::TransportConfig;
use crate::base::limits;
use crate::wire::{ConnectionId, PreferredAddress, TransportParameters};
use std::time::Duration;

/// What a connection still asks of the peer's parameters after they were applied.
#[derive(Debug)]
pub(super) struct PeerParams {
    pub(super) max_ack_delay: Duration,
    pub(super) preferred_address: Option<Box<PreferredAddress>>,
    pub(super) max_udp_payload_size: u16,
    pub(super) ack_delay_exponent: u8,
    pub(super) disable_active_migration: bool,
}

impl Default for PeerParams {
    fn default() -> Self {
        Self::of(&TransportParameters::default())
    }
}

impl PeerParams {
    pub(super) fn of(params: &TransportParameters) -> Self {
        Self {
            max_ack_delay: params.max_ack_delay,
            preferred_address: params.preferred_address.map(Box::new),
            // No UDP payload is larger.
            max_udp_payload_size: params.max_udp_payload_size.try_into().unwrap_or(u16::MAX),
            ack_delay_exponent: params.ack_delay_exponent,
            disable_active_migration: params.disable_active_migration,
        }
    }
}

/// The parameters that both roles send; a server adds its own.
pub(super) fn local(config: &TransportConfig, scid: ConnectionId) -> TransportParameters {
    let s = &config.streams;
    TransportParameters {
        max_idle_timeout: config.max_idle_timeout,
        max_udp_payload_size: u64::from(config.max_udp_payload_size),
        initial_max_data: s.connection_window,
        initial_max_stream_data_bidi_local: s.stream_window,
        initial_max_stream_data_bidi_remote: s.stream_window,
        initial_max_stream_data_uni: s.stream_window,
        initial_max_streams_bidi: s.max_streams_bidi,
        initial_max_streams_uni: s.max_streams_uni,
        ack_delay_exponent: config.ack_delay_exponent,
        max_ack_delay: config.max_ack_delay,
        max_datagram_frame_size: max_datagram_frame_size(config),
        disable_active_migration: config.disable_active_migration,
        grease_quic_bit: config.grease_quic_bit,
        min_ack_delay: super::ack_frequency::min_ack_delay(config),
        // Multipath §2.1: not beside zero-length connection IDs.
        initial_max_path_id: super::multipath::initial_max_path_id(config)
            .filter(|_| !scid.is_empty()),
        advertise_addresses: super::multipath::advertises_addresses(config) && !scid.is_empty(),
        initial_source_connection_id: Some(scid),
        ..TransportParameters::default()
    }
}

/// The limits that a server's clients may count on, whatever their connection.
pub(super) fn server(config: &TransportConfig) -> TransportParameters {
    TransportParameters {
        active_connection_id_limit: limits::ACTIVE_CIDS as u64,
        ..local(config, ConnectionId::EMPTY)
    }
}

/// The largest DATAGRAM frame that we take; 0 refuses them (RFC 9221 §3).
pub(super) fn max_datagram_frame_size(config: &TransportConfig) -> u64 {
    (config.datagram_receive_buffer as u64).min(u16::MAX.into())
}
