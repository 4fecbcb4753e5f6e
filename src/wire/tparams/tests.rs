//! Transport parameters: what comes back, and everything that must be refused.

use super::*;
use crate::wire::error::Code;
use crate::wire::version::Version;

fn cid_of(len: usize) -> ConnectionId {
    ConnectionId::new(&vec![0xc1; len]).unwrap()
}

/// A server's parameters with every field away from its default.
fn full() -> TransportParameters {
    TransportParameters {
        original_destination_connection_id: Some(cid_of(8)),
        max_idle_timeout: Duration::from_millis(30_000),
        stateless_reset_token: Some([7; 16]),
        max_udp_payload_size: 1472,
        initial_max_data: MAX,
        initial_max_stream_data_bidi_local: 1,
        initial_max_stream_data_bidi_remote: 2,
        initial_max_stream_data_uni: 3,
        initial_max_streams_bidi: MAX_STREAMS,
        initial_max_streams_uni: 5,
        ack_delay_exponent: 20,
        max_ack_delay: Duration::from_millis(16_383),
        disable_active_migration: true,
        preferred_address: Some(PreferredAddress {
            v4: Some("192.0.2.1:443".parse().unwrap()),
            v6: None,
            cid: cid_of(20),
            reset_token: [9; 16],
        }),
        active_connection_id_limit: 8,
        initial_source_connection_id: Some(cid_of(20)),
        retry_source_connection_id: Some(cid_of(0)),
        max_datagram_frame_size: 65_535,
        version_information: Some(VersionInformation {
            chosen: Version::V1.number(),
            available: Version::ALL.into_iter().collect(),
        }),
        grease_quic_bit: true,
        min_ack_delay: Some(Duration::from_micros(16_383_000)),
        initial_max_path_id: Some(PathId::MAX),
        advertise_addresses: true,
    }
}

fn encode(params: &TransportParameters, side: Side) -> Vec<u8> {
    let mut out = Vec::new();
    params.encode(side, &mut out, &mut Rng::from_u64(3));
    out
}

/// The least that a client sends, and then `number` with `value`.
fn client_with(number: u64, value: &[u8]) -> Result<TransportParameters, TransportError> {
    let mut out = Vec::new();
    put_bytes(&mut out, id::INITIAL_SOURCE_CONNECTION_ID, &[1]);
    put_bytes(&mut out, number, value);
    TransportParameters::decode(Side::Client, &out)
}

/// The least that a server sends, and then `number` with `value`.
fn server_with(number: u64, value: &[u8]) -> Result<TransportParameters, TransportError> {
    let mut out = Vec::new();
    put_bytes(&mut out, id::INITIAL_SOURCE_CONNECTION_ID, &[1]);
    if number != id::ORIGINAL_DESTINATION_CONNECTION_ID {
        put_bytes(&mut out, id::ORIGINAL_DESTINATION_CONNECTION_ID, &[2]);
    }
    put_bytes(&mut out, number, value);
    TransportParameters::decode(Side::Server, &out)
}

fn varint(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, value);
    out
}

#[track_caller]
fn refused(result: Result<TransportParameters, TransportError>, reason: &str) {
    let e = result.expect_err(reason);
    assert_eq!(e.code, Code::TRANSPORT_PARAMETER_ERROR);
    assert!(e.reason.contains(reason), "{} is not {reason}", e.reason);
}

#[test]
fn a_servers_parameters_come_back_as_they_were() {
    let params = full();
    let encoded = encode(&params, Side::Server);
    assert_eq!(
        TransportParameters::decode(Side::Server, &encoded),
        Ok(params)
    );
}

#[test]
fn a_client_never_sends_what_only_a_server_may() {
    let encoded = encode(&full(), Side::Client);
    let expected = TransportParameters {
        original_destination_connection_id: None,
        stateless_reset_token: None,
        preferred_address: None,
        retry_source_connection_id: None,
        ..full()
    };
    assert_eq!(
        TransportParameters::decode(Side::Client, &encoded),
        Ok(expected)
    );
}

#[test]
fn what_is_left_out_has_the_rfcs_default() {
    let minimal = TransportParameters {
        initial_source_connection_id: Some(cid_of(0)),
        ..Default::default()
    };
    // One parameter of two bytes, and the reserved one.
    let encoded = encode(&minimal, Side::Client);
    assert_eq!(encoded.get(..2), Some(&[0x0f, 0][..]));
    let decoded = TransportParameters::decode(Side::Client, &encoded).unwrap();
    assert_eq!(decoded, minimal);
    assert_eq!(decoded.max_udp_payload_size, 65_527);
    assert_eq!(decoded.ack_delay_exponent, 3);
    assert_eq!(decoded.max_ack_delay, Duration::from_millis(25));
    assert_eq!(decoded.active_connection_id_limit, 2);
}

#[test]
fn one_reserved_parameter_is_always_there_and_varies() {
    let params = TransportParameters {
        initial_source_connection_id: Some(cid_of(4)),
        ..Default::default()
    };
    let mut rng = Rng::from_u64(11);
    let mut numbers = Vec::new();
    for _ in 0..64 {
        let mut out = Vec::new();
        params.encode(Side::Client, &mut out, &mut rng);
        let mut r = Reader::new(&out);
        next_parameter(&mut r).unwrap();
        let (number, value) = next_parameter(&mut r).unwrap();
        assert_eq!(number % 31, 27);
        assert!(value.len() <= 16 && r.is_empty());
        numbers.push(number);
    }
    numbers.dedup();
    assert!(numbers.len() > 60);
}

#[test]
fn values_out_of_range_are_refused() {
    let cases = [
        (id::MAX_UDP_PAYLOAD_SIZE, 1199, "max_udp_payload_size"),
        (id::ACK_DELAY_EXPONENT, 21, "ack_delay_exponent"),
        (id::MAX_ACK_DELAY, 1 << 14, "max_ack_delay"),
        (id::ACTIVE_CONNECTION_ID_LIMIT, 1, "active_connection_id"),
        (id::INITIAL_MAX_STREAMS_BIDI, MAX_STREAMS + 1, "2^60"),
        (id::INITIAL_MAX_STREAMS_UNI, MAX_STREAMS + 1, "2^60"),
    ];
    for (number, value, reason) in cases {
        refused(client_with(number, &varint(value)), reason);
        refused(server_with(number, &varint(value)), reason);
    }
    assert!(client_with(id::MAX_UDP_PAYLOAD_SIZE, &varint(1200)).is_ok());
    assert!(client_with(id::MAX_IDLE_TIMEOUT, &varint(MAX)).is_ok());
}

#[test]
fn values_of_the_wrong_shape_are_refused() {
    for number in [
        id::MAX_IDLE_TIMEOUT,
        id::MAX_UDP_PAYLOAD_SIZE,
        id::INITIAL_MAX_DATA,
        id::INITIAL_MAX_STREAM_DATA_BIDI_LOCAL,
        id::INITIAL_MAX_STREAM_DATA_BIDI_REMOTE,
        id::INITIAL_MAX_STREAM_DATA_UNI,
        id::INITIAL_MAX_STREAMS_BIDI,
        id::INITIAL_MAX_STREAMS_UNI,
        id::ACK_DELAY_EXPONENT,
        id::MAX_ACK_DELAY,
        id::ACTIVE_CONNECTION_ID_LIMIT,
        id::MAX_DATAGRAM_FRAME_SIZE,
    ] {
        for value in [&[][..], &[0x40], &[0x05, 0x05], &[0x80, 0, 0, 5, 0]] {
            refused(client_with(number, value), "an integer's length");
        }
    }
    refused(
        client_with(id::DISABLE_ACTIVE_MIGRATION, &[0]),
        "disable_active_migration",
    );
    for len in [0, 15, 17] {
        refused(
            server_with(id::STATELESS_RESET_TOKEN, &vec![0; len]),
            "stateless_reset_token",
        );
    }
    for len in [21, 64, 255] {
        for number in [
            id::ORIGINAL_DESTINATION_CONNECTION_ID,
            id::RETRY_SOURCE_CONNECTION_ID,
        ] {
            refused(server_with(number, &vec![0; len]), "more than 20 bytes");
        }
        let mut only = Vec::new();
        put_bytes(&mut only, id::INITIAL_SOURCE_CONNECTION_ID, &vec![0; len]);
        refused(
            TransportParameters::decode(Side::Client, &only),
            "more than 20 bytes",
        );
    }
}

#[test]
fn server_only_parameters_from_a_client_are_refused() {
    let mut preferred = Vec::new();
    full().preferred_address.unwrap().encode(&mut preferred);
    for (number, value) in [
        (id::ORIGINAL_DESTINATION_CONNECTION_ID, &[1][..]),
        (id::STATELESS_RESET_TOKEN, &[1; 16]),
        (id::PREFERRED_ADDRESS, &preferred),
        (id::RETRY_SOURCE_CONNECTION_ID, &[1]),
    ] {
        refused(client_with(number, value), "a client sent");
        assert!(server_with(number, value).is_ok());
    }
}

#[test]
fn duplicates_are_refused_known_or_not() {
    for number in [id::INITIAL_MAX_DATA, 27, 63, 64, 31 * 1000 + 27, MAX] {
        let mut out = Vec::new();
        put_bytes(&mut out, id::INITIAL_SOURCE_CONNECTION_ID, &[1]);
        put_bytes(&mut out, number, &[1]);
        assert!(TransportParameters::decode(Side::Client, &out).is_ok());
        put_bytes(&mut out, number, &[1]);
        refused(TransportParameters::decode(Side::Client, &out), "twice");
    }
}

#[test]
fn more_unknown_parameters_than_are_remembered_are_ignored() {
    let mut out = Vec::new();
    put_bytes(&mut out, id::INITIAL_SOURCE_CONNECTION_ID, &[1]);
    for n in 0..10 * UNKNOWN_PARAMETERS as u64 {
        put_bytes(&mut out, 1000 + n, &[0; 3]);
    }
    assert!(TransportParameters::decode(Side::Client, &out).is_ok());
    // A duplicate is found among the remembered ones and not among the others.
    let last = 1000 + UNKNOWN_PARAMETERS as u64 - 1;
    let mut twice = out.clone();
    put_bytes(&mut twice, last + 1, &[]);
    assert!(TransportParameters::decode(Side::Client, &twice).is_ok());
    put_bytes(&mut out, last, &[]);
    refused(TransportParameters::decode(Side::Client, &out), "twice");
}

#[test]
fn mandatory_parameters_are_missed() {
    refused(
        TransportParameters::decode(Side::Client, &[]),
        "initial_source_connection_id",
    );
    let mut out = Vec::new();
    put_bytes(&mut out, id::INITIAL_SOURCE_CONNECTION_ID, &[1]);
    assert!(TransportParameters::decode(Side::Client, &out).is_ok());
    refused(
        TransportParameters::decode(Side::Server, &out),
        "original_destination_connection_id",
    );
}

#[test]
fn a_preferred_address_is_checked_in_every_part() {
    let preferred = full().preferred_address.unwrap();
    let mut value = Vec::new();
    preferred.encode(&mut value);
    let decoded = server_with(id::PREFERRED_ADDRESS, &value).unwrap();
    assert_eq!(decoded.preferred_address, Some(preferred));
    for cut in 0..value.len() {
        refused(
            server_with(id::PREFERRED_ADDRESS, &value[..cut]),
            "preferred_address",
        );
    }
    let mut long = value.clone();
    long.push(0);
    refused(server_with(id::PREFERRED_ADDRESS, &long), "too long");
    // The length of the connection ID follows 4 + 2 + 16 + 2 bytes of addresses.
    for (len, reason) in [(0, "zero-length"), (21, "more than 20")] {
        let mut bad = value[..24].to_vec();
        bad.push(len);
        bad.resize(24 + 1 + usize::from(len) + 16, 0);
        refused(server_with(id::PREFERRED_ADDRESS, &bad), reason);
    }
    let without_cid = TransportParameters {
        initial_source_connection_id: Some(ConnectionId::EMPTY),
        ..full()
    };
    refused(
        TransportParameters::decode(Side::Server, &encode(&without_cid, Side::Server)),
        "zero-length",
    );
}

#[test]
fn a_cut_anywhere_is_refused_or_leaves_whole_parameters() {
    let params = full();
    let encoded = encode(&params, Side::Server);
    let mut ends = vec![0];
    let mut r = Reader::new(&encoded);
    while next_parameter(&mut r).is_ok() {
        ends.push(r.position());
    }
    for cut in 0..encoded.len() {
        let result = TransportParameters::decode(Side::Server, &encoded[..cut]);
        if !ends.contains(&cut) {
            refused(result, "cut");
        }
    }
}

#[test]
fn extensions_are_checked() {
    refused(client_with(id::GREASE_QUIC_BIT, &[1]), "has a value");
    let p = client_with(id::GREASE_QUIC_BIT, &[]).expect("empty is right");
    assert!(p.grease_quic_bit && p.min_ack_delay.is_none());
    // 25 ms of max_ack_delay unless said otherwise.
    let p = client_with(id::MIN_ACK_DELAY, &varint(25_000)).expect("as long");
    assert_eq!(p.min_ack_delay, Some(Duration::from_millis(25)));
    refused(
        client_with(id::MIN_ACK_DELAY, &varint(25_001)),
        "above max_ack_delay",
    );
    refused(
        client_with(id::MIN_ACK_DELAY, &varint(MAX)),
        "above max_ack_delay",
    );
    refused(client_with(id::MIN_ACK_DELAY, &[]), "integer");
    refused(client_with(id::VERSION_INFORMATION, &[0, 0, 0]), "cut");
    refused(server_with(id::VERSION_INFORMATION, &[0; 4]), "version 0");
}

/// Known parameters of high number are told apart from the unknown ones, however many came before.
#[test]
fn an_extension_appears_once_behind_any_number_of_unknown_parameters() {
    for number in [id::GREASE_QUIC_BIT, id::MIN_ACK_DELAY] {
        let value: &[u8] = if number == id::MIN_ACK_DELAY {
            &[5]
        } else {
            &[]
        };
        let mut out = Vec::new();
        put_bytes(&mut out, id::INITIAL_SOURCE_CONNECTION_ID, &[1]);
        for n in 0..2 * UNKNOWN_PARAMETERS as u64 {
            put_bytes(&mut out, 10_000_000 + n, &[]);
        }
        put_bytes(&mut out, number, value);
        assert!(TransportParameters::decode(Side::Client, &out).is_ok());
        put_bytes(&mut out, number, value);
        refused(TransportParameters::decode(Side::Client, &out), "twice");
    }
}

/// Multipath §2.1: 0 declares the extension, and nothing above 2^32 − 1 is possible.
#[test]
fn the_largest_path_identifier_has_32_bits() {
    let of = |n: u64| client_with(0x3e, &varint(n));
    for n in [0, 1, u32::MAX] {
        let read = of(n.into()).map(|p| p.initial_max_path_id);
        assert_eq!(read, Ok(Some(PathId(n))));
    }
    for n in [1 << 32, MAX] {
        refused(of(n), "initial_max_path_id");
    }
    refused(client_with(0x3e, &[]), "length");
    let params = TransportParameters {
        initial_source_connection_id: Some(cid_of(1)),
        initial_max_path_id: Some(PathId::ZERO),
        ..Default::default()
    };
    let encoded = encode(&params, Side::Client);
    assert!(encoded.windows(3).any(|w| w == [0x3e, 1, 0]));
}

#[test]
fn advertising_addresses_is_declared_once_and_without_a_value() {
    let number = 0x394f_0935_b71d_0f89;
    assert!(
        number <= MAX && number % 31 != 27,
        "eight bytes, not reserved"
    );
    let declared = client_with(number, &[]).map(|p| p.advertise_addresses);
    assert_eq!(declared, Ok(true));
    refused(client_with(number, &[0]), "advertise_addresses");
    let mut twice = Vec::new();
    put_bytes(&mut twice, id::INITIAL_SOURCE_CONNECTION_ID, &[1]);
    put_bytes(&mut twice, number, &[]);
    put_bytes(&mut twice, number, &[]);
    refused(TransportParameters::decode(Side::Client, &twice), "twice");
}
