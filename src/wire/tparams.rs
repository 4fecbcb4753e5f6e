//! Transport parameters (RFC 9000 §7.4, §18; RFC 9221 §3; RFC 9287 §3; RFC 9368 §3; multipath
//! §2.1; the ACK frequency extension; one of our own): what each end declares about itself inside
//! the TLS handshake.
//!
//! [`TransportParameters::decode`] accepts exactly what the RFCs permit the sender to send. Whether
//! the connection IDs in it match the packets seen (RFC 9000 §7.3) is for `conn` to check.

use super::cid::ConnectionId;
use super::error::TransportError;
use super::frame::stream::{MAX_STREAMS, Side};
use super::varint::{MAX, Reader, size};
use super::version::VersionInformation;
use crate::base::limits::{MAX_UDP_PAYLOAD, MIN_UDP_PAYLOAD, RESET_TOKEN_LEN, UNKNOWN_PARAMETERS};
use crate::base::{PathId, Rng};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::time::Duration;

mod id {
    pub const ORIGINAL_DESTINATION_CONNECTION_ID: u64 = 0x00;
    pub const MAX_IDLE_TIMEOUT: u64 = 0x01;
    pub const STATELESS_RESET_TOKEN: u64 = 0x02;
    pub const MAX_UDP_PAYLOAD_SIZE: u64 = 0x03;
    pub const INITIAL_MAX_DATA: u64 = 0x04;
    pub const INITIAL_MAX_STREAM_DATA_BIDI_LOCAL: u64 = 0x05;
    pub const INITIAL_MAX_STREAM_DATA_BIDI_REMOTE: u64 = 0x06;
    pub const INITIAL_MAX_STREAM_DATA_UNI: u64 = 0x07;
    pub const INITIAL_MAX_STREAMS_BIDI: u64 = 0x08;
    pub const INITIAL_MAX_STREAMS_UNI: u64 = 0x09;
    pub const ACK_DELAY_EXPONENT: u64 = 0x0a;
    pub const MAX_ACK_DELAY: u64 = 0x0b;
    pub const DISABLE_ACTIVE_MIGRATION: u64 = 0x0c;
    pub const PREFERRED_ADDRESS: u64 = 0x0d;
    pub const ACTIVE_CONNECTION_ID_LIMIT: u64 = 0x0e;
    pub const INITIAL_SOURCE_CONNECTION_ID: u64 = 0x0f;
    pub const RETRY_SOURCE_CONNECTION_ID: u64 = 0x10;
    pub const VERSION_INFORMATION: u64 = 0x11;
    pub const MAX_DATAGRAM_FRAME_SIZE: u64 = 0x20;
    pub const INITIAL_MAX_PATH_ID: u64 = 0x3e;
    pub const GREASE_QUIC_BIT: u64 = 0x2ab2;
    pub const MIN_ACK_DELAY: u64 = 0xff04_de1b;
    /// Of our own and registered nowhere: random, so that nobody else means something by it.
    pub const ADVERTISE_ADDRESSES: u64 = 0x394f_0935_b71d_0f89;
}

/// The largest ack_delay_exponent (RFC 9000 §18.2).
pub const MAX_ACK_DELAY_EXPONENT: u8 = 20;
/// max_ack_delay stays below this many milliseconds (RFC 9000 §18.2).
const MAX_ACK_DELAY_BOUND_MS: u64 = 1 << 14;

/// One end's transport parameters. Names and defaults are those of RFC 9000 §18.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportParameters {
    /// The client's first destination connection ID. Server only, and mandatory there.
    pub original_destination_connection_id: Option<ConnectionId>,
    /// Idle timeout in whole milliseconds; zero disables it.
    pub max_idle_timeout: Duration,
    /// The token of the connection ID negotiated in the handshake. Server only.
    pub stateless_reset_token: Option<[u8; RESET_TOKEN_LEN]>,
    /// The largest UDP payload that the sender takes, in bytes; at least 1,200.
    pub max_udp_payload_size: u64,
    /// Connection flow control limit, in bytes.
    pub initial_max_data: u64,
    /// Limit of bidirectional streams that the sender of the parameters opens, in bytes.
    pub initial_max_stream_data_bidi_local: u64,
    /// Limit of bidirectional streams that their receiver opens, in bytes.
    pub initial_max_stream_data_bidi_remote: u64,
    /// Limit of unidirectional streams that their receiver opens, in bytes.
    pub initial_max_stream_data_uni: u64,
    /// Bidirectional streams that their receiver may open; at most 2^60.
    pub initial_max_streams_bidi: u64,
    /// Unidirectional streams that their receiver may open; at most 2^60.
    pub initial_max_streams_uni: u64,
    /// The exponent that scales ACK Delay; at most 20.
    pub ack_delay_exponent: u8,
    /// The longest intended delay of an acknowledgment, in whole milliseconds; below 2^14 ms.
    pub max_ack_delay: Duration,
    /// Whether the sender does without active migration on the handshake's address.
    pub disable_active_migration: bool,
    /// Where the server would rather be reached. Server only.
    pub preferred_address: Option<PreferredAddress>,
    /// Connection IDs of the peer that the sender stores; at least 2.
    pub active_connection_id_limit: u64,
    /// The source connection ID of the sender's first Initial. Mandatory.
    pub initial_source_connection_id: Option<ConnectionId>,
    /// The source connection ID of the Retry. Server only.
    pub retry_source_connection_id: Option<ConnectionId>,
    /// The largest DATAGRAM frame that the sender takes, type and length included, in bytes; zero
    /// means none (RFC 9221 §3).
    pub max_datagram_frame_size: u64,
    /// The versions that the sender speaks (RFC 9368 §3).
    pub version_information: Option<VersionInformation>,
    /// Whether the sender takes packets with any value of the fixed bit (RFC 9287 §3).
    pub grease_quic_bit: bool,
    /// The shortest delay of an acknowledgement that may be asked of the sender, in whole
    /// microseconds and at most max_ack_delay; its presence permits the ACK_FREQUENCY and
    /// IMMEDIATE_ACK frames (ACK frequency extension).
    pub min_ack_delay: Option<Duration>,
    /// The largest path identifier that the sender takes; its presence declares the multipath
    /// extension (multipath §2.1).
    pub initial_max_path_id: Option<PathId>,
    /// Whether the sender speaks the frames of [`super::frame::address`]. Private: number
    /// 0x394f0935b71d0f89, without a value.
    pub advertise_addresses: bool,
}

/// The server's preferred address (RFC 9000 §9.6, §18.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreferredAddress {
    /// Its IPv4 address, if it has one there.
    pub v4: Option<SocketAddrV4>,
    /// Its IPv6 address, if it has one there.
    pub v6: Option<SocketAddrV6>,
    /// The connection ID of sequence number 1; not empty.
    pub cid: ConnectionId,
    /// That connection ID's stateless reset token.
    pub reset_token: [u8; RESET_TOKEN_LEN],
}

impl Default for TransportParameters {
    /// What a peer that sends nothing has declared.
    fn default() -> Self {
        Self {
            original_destination_connection_id: None,
            max_idle_timeout: Duration::ZERO,
            stateless_reset_token: None,
            max_udp_payload_size: MAX_UDP_PAYLOAD as u64,
            initial_max_data: 0,
            initial_max_stream_data_bidi_local: 0,
            initial_max_stream_data_bidi_remote: 0,
            initial_max_stream_data_uni: 0,
            initial_max_streams_bidi: 0,
            initial_max_streams_uni: 0,
            ack_delay_exponent: 3,
            max_ack_delay: Duration::from_millis(25),
            disable_active_migration: false,
            preferred_address: None,
            active_connection_id_limit: 2,
            initial_source_connection_id: None,
            retry_source_connection_id: None,
            max_datagram_frame_size: 0,
            version_information: None,
            grease_quic_bit: false,
            min_ack_delay: None,
            initial_max_path_id: None,
            advertise_addresses: false,
        }
    }
}

impl TransportParameters {
    /// Appends the encoding of what `side` declares, and one reserved parameter (RFC 9000 §18.1)
    /// of random number and content, so that peers keep ignoring what they do not know.
    ///
    /// Values equal to their default are left out. The server-only parameters are left out for a
    /// client.
    pub fn encode(&self, side: Side, out: &mut Vec<u8>, grease: &mut Rng) {
        let defaults = Self::default();
        let pairs = self.integers().into_iter().zip(defaults.integers());
        for ((id, value), (_, default)) in pairs {
            if value != default {
                put_integer(out, id, value);
            }
        }
        if self.disable_active_migration {
            put_bytes(out, id::DISABLE_ACTIVE_MIGRATION, &[]);
        }
        if let Some(cid) = &self.initial_source_connection_id {
            put_bytes(out, id::INITIAL_SOURCE_CONNECTION_ID, cid.as_slice());
        }
        if side.is_server() {
            self.encode_server_only(out);
        }
        self.encode_extensions(out, grease);
        // RFC 9000 §18.1: reserved numbers are 31 * N + 27.
        let number = 31 * grease.below((MAX - 27) / 31) + 27;
        let content: [u8; 16] = grease.array();
        let len = grease.below(content.len() as u64 + 1) as usize;
        put_bytes(out, number, content.get(..len).unwrap_or_default());
    }

    fn encode_extensions(&self, out: &mut Vec<u8>, grease: &mut Rng) {
        if let Some(information) = &self.version_information {
            let mut value = Vec::with_capacity(16);
            information.encode(&mut value, grease);
            put_bytes(out, id::VERSION_INFORMATION, &value);
        }
        if self.grease_quic_bit {
            put_bytes(out, id::GREASE_QUIC_BIT, &[]);
        }
        if let Some(delay) = self.min_ack_delay {
            let micros = u64::try_from(delay.as_micros()).unwrap_or(MAX).min(MAX);
            put_integer(out, id::MIN_ACK_DELAY, micros);
        }
        if let Some(max) = self.initial_max_path_id {
            put_integer(out, id::INITIAL_MAX_PATH_ID, max.0.into());
        }
        if self.advertise_addresses {
            put_bytes(out, id::ADVERTISE_ADDRESSES, &[]);
        }
    }

    fn encode_server_only(&self, out: &mut Vec<u8>) {
        if let Some(cid) = &self.original_destination_connection_id {
            put_bytes(out, id::ORIGINAL_DESTINATION_CONNECTION_ID, cid.as_slice());
        }
        if let Some(token) = &self.stateless_reset_token {
            put_bytes(out, id::STATELESS_RESET_TOKEN, token);
        }
        if let Some(cid) = &self.retry_source_connection_id {
            put_bytes(out, id::RETRY_SOURCE_CONNECTION_ID, cid.as_slice());
        }
        if let Some(preferred) = &self.preferred_address {
            let mut value = Vec::with_capacity(64);
            preferred.encode(&mut value);
            put_bytes(out, id::PREFERRED_ADDRESS, &value);
        }
    }

    /// The parameters that are one integer, with their numbers.
    fn integers(&self) -> [(u64, u64); 12] {
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(MAX).min(MAX);
        [
            (id::MAX_IDLE_TIMEOUT, millis(self.max_idle_timeout)),
            (id::MAX_UDP_PAYLOAD_SIZE, self.max_udp_payload_size),
            (id::INITIAL_MAX_DATA, self.initial_max_data),
            (
                id::INITIAL_MAX_STREAM_DATA_BIDI_LOCAL,
                self.initial_max_stream_data_bidi_local,
            ),
            (
                id::INITIAL_MAX_STREAM_DATA_BIDI_REMOTE,
                self.initial_max_stream_data_bidi_remote,
            ),
            (
                id::INITIAL_MAX_STREAM_DATA_UNI,
                self.initial_max_stream_data_uni,
            ),
            (id::INITIAL_MAX_STREAMS_BIDI, self.initial_max_streams_bidi),
            (id::INITIAL_MAX_STREAMS_UNI, self.initial_max_streams_uni),
            (id::ACK_DELAY_EXPONENT, u64::from(self.ack_delay_exponent)),
            (id::MAX_ACK_DELAY, millis(self.max_ack_delay)),
            (
                id::ACTIVE_CONNECTION_ID_LIMIT,
                self.active_connection_id_limit,
            ),
            (id::MAX_DATAGRAM_FRAME_SIZE, self.max_datagram_frame_size),
        ]
    }

    /// Reads what `sender` declared. Parameters of unknown number are ignored.
    ///
    /// Every error is TRANSPORT_PARAMETER_ERROR: a malformed encoding, a value out of its range, a
    /// duplicate, a server-only parameter from a client, a mandatory one that is missing. Of
    /// unknown parameters the first [`UNKNOWN_PARAMETERS`] are checked for duplicates.
    pub fn decode(sender: Side, encoded: &[u8]) -> Result<Self, TransportError> {
        let mut out = Self::default();
        let mut seen = Seen::default();
        let mut r = Reader::new(encoded);
        while !r.is_empty() {
            let (number, value) = next_parameter(&mut r)?;
            if !seen.insert(number) {
                return Err(invalid("a transport parameter appears twice"));
            }
            if sender.is_client() && is_server_only(number) {
                return Err(invalid("a client sent a server's transport parameter"));
            }
            match number {
                id::VERSION_INFORMATION => {
                    let information = VersionInformation::decode(sender.is_client(), value)?;
                    out.version_information = Some(information);
                }
                _ => out.set(number, value)?,
            }
        }
        out.check(sender)?;
        Ok(out)
    }

    fn set(&mut self, number: u64, value: &[u8]) -> Result<(), TransportError> {
        match number {
            id::ORIGINAL_DESTINATION_CONNECTION_ID => {
                self.original_destination_connection_id = Some(cid(value)?);
            }
            id::MAX_IDLE_TIMEOUT => self.max_idle_timeout = Duration::from_millis(integer(value)?),
            id::STATELESS_RESET_TOKEN => self.stateless_reset_token = Some(token(value)?),
            id::MAX_UDP_PAYLOAD_SIZE => match integer(value)? {
                n if n >= MIN_UDP_PAYLOAD as u64 => self.max_udp_payload_size = n,
                _ => return Err(invalid("max_udp_payload_size is below 1200")),
            },
            id::INITIAL_MAX_DATA => self.initial_max_data = integer(value)?,
            id::INITIAL_MAX_STREAM_DATA_BIDI_LOCAL => {
                self.initial_max_stream_data_bidi_local = integer(value)?;
            }
            id::INITIAL_MAX_STREAM_DATA_BIDI_REMOTE => {
                self.initial_max_stream_data_bidi_remote = integer(value)?;
            }
            id::INITIAL_MAX_STREAM_DATA_UNI => self.initial_max_stream_data_uni = integer(value)?,
            id::INITIAL_MAX_STREAMS_BIDI => self.initial_max_streams_bidi = streams(value)?,
            id::INITIAL_MAX_STREAMS_UNI => self.initial_max_streams_uni = streams(value)?,
            id::ACK_DELAY_EXPONENT => match integer(value)? {
                n if n <= u64::from(MAX_ACK_DELAY_EXPONENT) => self.ack_delay_exponent = n as u8,
                _ => return Err(invalid("ack_delay_exponent is above 20")),
            },
            id::MAX_ACK_DELAY => match integer(value)? {
                n if n < MAX_ACK_DELAY_BOUND_MS => self.max_ack_delay = Duration::from_millis(n),
                _ => return Err(invalid("max_ack_delay is 2^14 ms or more")),
            },
            id::DISABLE_ACTIVE_MIGRATION => match value {
                [] => self.disable_active_migration = true,
                _ => return Err(invalid("disable_active_migration has a value")),
            },
            id::PREFERRED_ADDRESS => {
                self.preferred_address = Some(PreferredAddress::decode(value)?);
            }
            id::ACTIVE_CONNECTION_ID_LIMIT => match integer(value)? {
                n if n >= 2 => self.active_connection_id_limit = n,
                _ => return Err(invalid("active_connection_id_limit is below 2")),
            },
            id::INITIAL_SOURCE_CONNECTION_ID => {
                self.initial_source_connection_id = Some(cid(value)?);
            }
            id::RETRY_SOURCE_CONNECTION_ID => self.retry_source_connection_id = Some(cid(value)?),
            id::MAX_DATAGRAM_FRAME_SIZE => self.max_datagram_frame_size = integer(value)?,
            id::GREASE_QUIC_BIT => match value {
                [] => self.grease_quic_bit = true,
                _ => return Err(invalid("grease_quic_bit has a value")),
            },
            id::MIN_ACK_DELAY => {
                self.min_ack_delay = Some(Duration::from_micros(integer(value)?));
            }
            // Multipath §2.1.
            id::INITIAL_MAX_PATH_ID => match u32::try_from(integer(value)?) {
                Ok(n) => self.initial_max_path_id = Some(PathId(n)),
                Err(_) => return Err(invalid("initial_max_path_id is above 2^32 - 1")),
            },
            id::ADVERTISE_ADDRESSES => match value {
                [] => self.advertise_addresses = true,
                _ => return Err(invalid("advertise_addresses has a value")),
            },
            // RFC 9000 §7.4.2: what is not supported is ignored.
            _ => {}
        }
        Ok(())
    }

    /// What only the whole set shows.
    fn check(&self, sender: Side) -> Result<(), TransportError> {
        // RFC 9000 §7.3
        let Some(source) = self.initial_source_connection_id else {
            return Err(invalid("initial_source_connection_id is missing"));
        };
        if sender.is_server() && self.original_destination_connection_id.is_none() {
            return Err(invalid("original_destination_connection_id is missing"));
        }
        if self.min_ack_delay.is_some_and(|d| d > self.max_ack_delay) {
            return Err(invalid("min_ack_delay is above max_ack_delay"));
        }
        // RFC 9000 §18.2, preferred_address.
        if source.is_empty() && self.preferred_address.is_some() {
            return Err(invalid(
                "preferred_address from a server with a zero-length connection ID",
            ));
        }
        Ok(())
    }
}

impl PreferredAddress {
    fn encode(&self, out: &mut Vec<u8>) {
        let v4 = self
            .v4
            .unwrap_or(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
        let v6 = self
            .v6
            .unwrap_or(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0));
        debug_assert!(!self.cid.is_empty(), "RFC 9000 §18.2 forbids it");
        out.extend_from_slice(&v4.ip().octets());
        out.extend_from_slice(&v4.port().to_be_bytes());
        out.extend_from_slice(&v6.ip().octets());
        out.extend_from_slice(&v6.port().to_be_bytes());
        out.push(self.cid.len() as u8);
        out.extend_from_slice(self.cid.as_slice());
        out.extend_from_slice(&self.reset_token);
    }

    fn decode(value: &[u8]) -> Result<Self, TransportError> {
        let mut r = Reader::new(value);
        let cut = |_| invalid("preferred_address is cut");
        let v4 = SocketAddrV4::new(
            Ipv4Addr::from(r.array::<4>().map_err(cut)?),
            r.u16().map_err(cut)?,
        );
        let v6 = SocketAddrV6::new(
            Ipv6Addr::from(r.array::<16>().map_err(cut)?),
            r.u16().map_err(cut)?,
            0,
            0,
        );
        let len = usize::from(r.u8().map_err(cut)?);
        let cid = cid(r.bytes(len).map_err(cut)?)?;
        if cid.is_empty() {
            return Err(invalid("preferred_address has a zero-length connection ID"));
        }
        let reset_token = r.array().map_err(cut)?;
        if !r.is_empty() {
            return Err(invalid("preferred_address is too long"));
        }
        Ok(Self {
            // All zeros stand for a family that the server does not offer.
            v4: (!v4.ip().is_unspecified() || v4.port() != 0).then_some(v4),
            v6: (!v6.ip().is_unspecified() || v6.port() != 0).then_some(v6),
            cid,
            reset_token,
        })
    }
}

/// The parameter numbers met so far.
#[derive(Default)]
struct Seen {
    /// Numbers below 64.
    low: u64,
    /// Those known here that are not: grease_quic_bit, min_ack_delay, advertise_addresses.
    extensions: [bool; 3],
    high: [u64; UNKNOWN_PARAMETERS],
    high_len: usize,
}

impl Seen {
    /// `false` when `number` was there before.
    fn insert(&mut self, number: u64) -> bool {
        if number < 64 {
            let bit = 1 << number;
            let fresh = self.low & bit == 0;
            self.low |= bit;
            return fresh;
        }
        match number {
            id::GREASE_QUIC_BIT => return !std::mem::replace(&mut self.extensions[0], true),
            id::MIN_ACK_DELAY => return !std::mem::replace(&mut self.extensions[1], true),
            id::ADVERTISE_ADDRESSES => return !std::mem::replace(&mut self.extensions[2], true),
            _ => {}
        }
        let met = self.high.get(..self.high_len).unwrap_or_default();
        if met.contains(&number) {
            return false;
        }
        if let Some(slot) = self.high.get_mut(self.high_len) {
            *slot = number;
            self.high_len += 1;
        }
        true
    }
}

#[cold]
fn invalid(reason: &'static str) -> TransportError {
    TransportError::transport_parameter_error(reason)
}

const fn is_server_only(number: u64) -> bool {
    matches!(
        number,
        id::ORIGINAL_DESTINATION_CONNECTION_ID
            | id::STATELESS_RESET_TOKEN
            | id::PREFERRED_ADDRESS
            | id::RETRY_SOURCE_CONNECTION_ID
    )
}

fn next_parameter<'a>(r: &mut Reader<'a>) -> Result<(u64, &'a [u8]), TransportError> {
    let cut = |_| invalid("the transport parameters are cut");
    let number = r.varint().map_err(cut)?;
    let len = r.varint().map_err(cut)?;
    Ok((number, r.bytes_u64(len).map_err(cut)?))
}

/// A value that is one varint and nothing else.
fn integer(value: &[u8]) -> Result<u64, TransportError> {
    let mut r = Reader::new(value);
    match r.varint() {
        Ok(n) if r.is_empty() => Ok(n),
        _ => Err(invalid(
            "an integer's length does not match its parameter's",
        )),
    }
}

/// A number of streams (RFC 9000 §4.6).
fn streams(value: &[u8]) -> Result<u64, TransportError> {
    match integer(value)? {
        n if n <= MAX_STREAMS => Ok(n),
        _ => Err(invalid("a stream limit above 2^60")),
    }
}

fn cid(value: &[u8]) -> Result<ConnectionId, TransportError> {
    ConnectionId::new(value).ok_or_else(|| invalid("a connection ID of more than 20 bytes"))
}

fn token(value: &[u8]) -> Result<[u8; RESET_TOKEN_LEN], TransportError> {
    value
        .try_into()
        .map_err(|_| invalid("stateless_reset_token is not 16 bytes"))
}

fn put_varint(out: &mut Vec<u8>, value: u64) {
    let mut buf = [0; 8];
    let mut w = super::varint::Writer::new(&mut buf);
    w.varint(value);
    out.extend_from_slice(w.written());
}

fn put_integer(out: &mut Vec<u8>, number: u64, value: u64) {
    put_varint(out, number);
    put_varint(out, size(value) as u64);
    put_varint(out, value);
}

fn put_bytes(out: &mut Vec<u8>, number: u64, value: &[u8]) {
    put_varint(out, number);
    put_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests;
