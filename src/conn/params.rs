//! Our transport parameters, out of the configuration (RFC 9000 §18.2).

use super::TransportConfig;
use crate::wire::{ConnectionId, TransportParameters};

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
        initial_max_streams_bidi: s.max_bidi_streams,
        initial_max_streams_uni: s.max_uni_streams,
        ack_delay_exponent: config.ack_delay_exponent,
        max_ack_delay: config.max_ack_delay,
        max_datagram_frame_size: (config.datagram_receive_buffer as u64).min(u16::MAX.into()),
        initial_source_connection_id: Some(scid),
        ..TransportParameters::default()
    }
}
