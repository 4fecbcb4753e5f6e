//! What a connection is configured with.
//!
//! Every field has a default that suits a service on a data-centre or Internet path. Limits that
//! the embedder may not choose are in `base::limits`.

use super::glitch::GlitchLimit;
use super::guard::PortGuard;
use super::multipath::MultipathConfig;
use super::observe::Observers;
use super::preferred::PreferredAddresses;
use crate::base::limits;
use crate::path::PathConfig;
use crate::recovery::{Algorithm, MtuConfig};
use crate::stream::StreamConfig;
use crate::wire::Version;
use crate::wire::version::Versions;
use std::time::Duration;

/// Transport behaviour of a connection; shared by all connections of an endpoint.
///
/// ```
/// use corelane::conn::TransportConfig;
/// use std::time::Duration;
///
/// let mut transport = TransportConfig::default();
/// transport.max_idle_timeout = Duration::from_secs(5);
/// transport.keep_alive_interval = Some(Duration::from_secs(2));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TransportConfig {
    /// Closes silently after this long without a packet (RFC 9000 §10.1); the smaller of both
    /// sides' values counts; zero means never. Default 30 s.
    pub max_idle_timeout: Duration,
    /// Time for the handshake to finish. Default 10 s.
    pub handshake_deadline: Duration,
    /// Sends a PING after this long without having received anything. Default off.
    pub keep_alive_interval: Option<Duration>,
    /// RTT assumed before the first sample. Default 333 ms (RFC 9002 §6.2.2).
    pub initial_rtt: Duration,
    /// Congestion control. Default CUBIC.
    pub congestion: Algorithm,
    /// Spreads sends over the round trip (RFC 9002 §7.7). Default on.
    pub pacing: bool,
    /// Marks packets ECT(0) and reacts to CE (RFC 9000 §13.4). Default on.
    pub ecn: bool,
    /// Datagram sizes: where to start, how far to probe.
    pub mtu: MtuConfig,
    /// Largest UDP payload that we accept, told to the peer. Default 65,527.
    pub max_udp_payload_size: u16,
    /// Longest delay of an acknowledgement, told to the peer. Default 25 ms.
    pub max_ack_delay: Duration,
    /// Scales the delays in our acknowledgements (RFC 9000 §18.2), at most 20. Default 3.
    pub ack_delay_exponent: u8,
    /// Streams and flow control.
    pub streams: StreamConfig,
    /// Received datagrams (RFC 9221) held for the application, in bytes; beyond it the oldest is
    /// dropped and counted. 0 refuses datagrams. Default 1 MiB.
    pub datagram_receive_buffer: usize,
    /// Datagrams held for sending, in bytes. Default 1 MiB.
    pub datagram_send_buffer: usize,
    /// Tells clients of this server not to migrate from the address that they connected to
    /// (RFC 9000 §18.2). Those that do are followed all the same, as NATs make them. Default off.
    pub disable_active_migration: bool,
    /// Where this server would rather be reached (RFC 9000 §9.6). Default nowhere.
    pub preferred_address: PreferredAddresses,
    /// A client goes to the address that its server prefers. Default on.
    pub follow_preferred_address: bool,
    /// Ports that nothing is sent to on a peer's word. Default: those of services that a datagram
    /// sets off.
    pub port_guard: PortGuard,
    /// Updates the packet protection keys after this many packets. Default: only when the AEAD's
    /// limit nears (RFC 9001 §6.6).
    pub key_update_packets: Option<u64>,
    /// Who watches each connection, [`shard::qlog`](crate::shard::qlog) for one. Default nobody.
    pub observers: Option<Observers>,
    /// Closes a connection whose peer sends more frames that lead nowhere than this: streams that
    /// it opens and abandons or asks us to abandon, limits that raise nothing, connection IDs and
    /// tokens in circles (RFC 9000 §21.9). `None` admits any number. Default 10,000 at once and
    /// 1,000 a second.
    pub glitches: Option<GlitchLimit>,
    /// A server gives each client a token once its address is proven, so that the client's next
    /// connection begins with a proven address (RFC 9000 §8.1.3). Default on.
    pub new_tokens: bool,
    /// Connections begun here have no connection ID of their own: a few bytes less in each packet
    /// they receive. Their addresses tell them apart then, so that between a socket and a peer's
    /// address there is one at most, beside any number that have a connection ID. Connections that
    /// are accepted have one always. Default off.
    pub zero_length_cid: bool,
    /// QUIC versions that are spoken, most preferred first. A client begins with the first and
    /// offers the others: it follows a server that chooses one of them (RFC 9368), at once or by a
    /// Version Negotiation packet. A server takes any of them and answers others with that packet.
    /// An empty list is `[V1]`. Default `[V1, V2]`.
    ///
    /// Session tickets belong to a version (RFC 9369 §5): a client keeps them only of connections
    /// that stayed in the version that they began with. Clients that begin with different versions
    /// need a TLS configuration each.
    pub versions: Vec<Version>,
    /// A client begins with this one of `versions` though it prefers another: the one that the
    /// server most likely speaks (RFC 9368 §6). Default `None`: the first.
    pub first_version: Option<Version>,
    /// A server moves clients that offer it to this version of `versions`, without a round trip
    /// more (RFC 9368 §2.3); one that sends early data stays where it is. `None` keeps what the
    /// client began with. Default `None`.
    pub preferred_version: Option<Version>,
    /// Takes packets with any value of the bit that is otherwise fixed, and sends such packets to
    /// peers that take them (RFC 9287). Switch it off where QUIC is told by that bit from another
    /// protocol on the same socket. Default on.
    pub grease_quic_bit: bool,
    /// Turns the latency spin bit once a round trip, for observers on the path (RFC 9000 §17.4).
    /// Default off.
    pub spin_bit: bool,
    /// Paths that a connection may have at once, if the peer takes several too (multipath): at most
    /// 8, and none but the first by 0 or 1. Paths are opened by clients, with
    /// [`Connection::open_path`](super::Connection::open_path). Default 0.
    pub max_paths: u32,
    /// How several paths are used.
    pub multipath: MultipathConfig,
    /// Asks peers that support it to acknowledge less often while the congestion window is large
    /// (ACK frequency extension); never with BBR, which needs them. Default on.
    pub ack_frequency: bool,
    /// The shortest delay of an acknowledgement that a peer may ask of us by the ACK frequency
    /// extension, at most `max_ack_delay`; `None` does without the extension. Default 1 ms.
    pub min_ack_delay: Option<Duration>,
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            max_idle_timeout: Duration::from_secs(30),
            handshake_deadline: limits::HANDSHAKE_DEADLINE,
            keep_alive_interval: None,
            initial_rtt: Duration::from_millis(333),
            congestion: Algorithm::Cubic,
            pacing: true,
            ecn: true,
            mtu: MtuConfig::default(),
            max_udp_payload_size: limits::MAX_UDP_PAYLOAD as u16,
            max_ack_delay: Duration::from_millis(25),
            ack_delay_exponent: 3,
            streams: StreamConfig::default(),
            datagram_receive_buffer: limits::DATAGRAM_RECV_BYTES,
            datagram_send_buffer: limits::DATAGRAM_SEND_BYTES,
            disable_active_migration: false,
            preferred_address: PreferredAddresses::default(),
            follow_preferred_address: true,
            port_guard: PortGuard::default(),
            key_update_packets: None,
            observers: None,
            glitches: Some(GlitchLimit {
                burst: limits::GLITCH_BURST,
                per_second: limits::GLITCH_RATE,
            }),
            new_tokens: true,
            zero_length_cid: false,
            versions: Version::ALL.to_vec(),
            first_version: None,
            preferred_version: None,
            grease_quic_bit: true,
            spin_bit: false,
            max_paths: 0,
            multipath: MultipathConfig::default(),
            ack_frequency: true,
            min_ack_delay: Some(Duration::from_millis(1)),
        }
    }
}

impl TransportConfig {
    /// The versions that are spoken, each once; at least one.
    pub(crate) fn spoken(&self) -> Versions {
        let mut out = Versions::new();
        for version in &self.versions {
            if !out.contains(version) {
                out.push(*version);
            }
        }
        if out.is_empty() {
            out.push(Version::V1);
        }
        out
    }

    /// The part that a path is built from.
    pub(crate) fn path(&self) -> PathConfig {
        PathConfig {
            initial_rtt: self.initial_rtt,
            congestion: self.congestion,
            pacing: self.pacing,
            ecn: self.ecn,
            max_ack_delay: self.max_ack_delay,
            mtu: self.mtu,
        }
    }
}
