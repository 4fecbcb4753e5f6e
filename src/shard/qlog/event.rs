//! What is observed of a connection as qlog records: version 0.3, JSON-SEQ (RFC 7464), with the
//! event names and fields that qvis reads.
//!
//! A record is bounded whatever the packet holds: what exceeds
//! [`QLOG_RECORD_BYTES`](limits::QLOG_RECORD_BYTES) is left out and said to be.

use super::frame::frame;
use super::json::Object;
use crate::base::{FourTuple, Timestamp, limits};
use crate::conn::ConnectionError;
use crate::conn::observe::{Begun, Observed, Phase, RecoveryState, SeenPacket, role};
use crate::path::PathId;
use crate::wire::{Code, PacketType, TransportParameters};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// RFC 7464: what a record begins with.
const RECORD_SEPARATOR: u8 = 0x1e;
/// The exponent of a peer that has not said another (RFC 9000 §18.2).
const ACK_DELAY_EXPONENT: u8 = 3;

/// Turns one connection's events into records.
pub(super) struct Recorder {
    begun: Begun,
    /// The wall clock when it began.
    unix_time: Duration,
    /// What both sides' acknowledgement delays are scaled by: ours, the peer's.
    exponents: [u8; 2],
    /// What was last written of paths, at most [`PATH_RECORDS`](limits::PATH_RECORDS).
    recovery: Vec<(PathId, RecoveryState)>,
}

impl Recorder {
    pub(super) fn new(begun: &Begun, unix_time: Duration) -> Self {
        Self {
            begun: *begun,
            unix_time,
            exponents: [ACK_DELAY_EXPONENT; 2],
            recovery: Vec::new(),
        }
    }

    /// Writes the header, which says when time 0 is, and the first event.
    pub(super) fn begin(&self, out: &mut Vec<u8>) {
        let begun = &self.begun;
        out.push(RECORD_SEPARATOR);
        {
            let mut head = Object::begin(out);
            head.text("qlog_version", "0.3");
            head.text("qlog_format", "JSON-SEQ");
            head.text("title", "corelane");
            let mut trace = head.object("trace");
            let mut vantage = trace.object("vantage_point");
            vantage.text("name", "corelane");
            vantage.text("type", role(begun.side));
            drop(vantage);
            let mut common = trace.object("common_fields");
            common.hex("ODCID", begun.original_dcid.as_slice());
            common.hex("group_id", begun.original_dcid.as_slice());
            common.text("time_format", "relative");
            common.millis("reference_time", self.unix_time);
        }
        out.push(b'\n');
        self.event(begun.now, "connectivity:connection_started", out, |d| {
            let FourTuple { local, remote } = begun.path;
            d.text("ip_version", if remote.is_ipv4() { "v4" } else { "v6" });
            d.text("src_ip", &local.ip().to_string());
            d.text("dst_ip", &remote.ip().to_string());
            d.text("protocol", "QUIC");
            d.number("src_port", local.port().into());
            d.number("dst_port", remote.port().into());
            d.hex("src_cid", begun.local_scid.as_slice());
        });
    }

    /// Writes what an event is worth.
    pub(super) fn record(&mut self, now: Timestamp, event: &Observed<'_>, out: &mut Vec<u8>) {
        match *event {
            Observed::PacketSent(p) => self.packet(now, "transport:packet_sent", &p, 0, out),
            Observed::PacketReceived(p) => {
                self.packet(now, "transport:packet_received", &p, 1, out);
            }
            Observed::PacketLost {
                path,
                ty,
                number,
                size,
            } => {
                self.event_on(path, now, "recovery:packet_lost", out, |d| {
                    header(d, ty, number);
                    d.object("raw").number("length", size as u64);
                });
            }
            Observed::PacketsDropped {
                undecryptable,
                duplicate,
                other,
            } => {
                self.dropped(now, [undecryptable, duplicate, other], out);
            }
            Observed::Parameters(peers, p) => {
                if let Some(exponent) = self.exponents.get_mut(usize::from(peers)) {
                    *exponent = p.ack_delay_exponent.min(20);
                }
                self.event(now, "transport:parameters_set", out, |d| {
                    d.text("owner", if peers { "remote" } else { "local" });
                    parameters(d, p);
                });
            }
            Observed::Recovery(path, state) => self.recovery(now, path, state, out),
            Observed::Phase(phase) => {
                self.event(now, "connectivity:connection_state_updated", out, |d| {
                    d.text("new", phase_name(phase));
                });
            }
            Observed::KeysUpdated {
                generation,
                by_peer,
            } => self.keys(now, generation, by_peer, out),
            Observed::PathChanged { path, to, .. } => {
                self.event(now, "connectivity:path_assigned", out, |d| {
                    d.text("path_id", &name(path));
                    endpoint(&mut d.object("path_remote"), to.remote);
                    endpoint(&mut d.object("path_local"), to.local);
                });
            }
            Observed::MtuChanged(path, mtu) => {
                self.event_on(path, now, "connectivity:mtu_updated", out, |d| {
                    d.number("new", mtu as u64);
                });
            }
            Observed::Closed(why) => {
                self.event(now, "connectivity:connection_closed", out, |d| {
                    closed(d, why);
                });
            }
        }
    }

    /// Packets that were dropped: they did not decrypt, were known, or anything else.
    fn dropped(&self, now: Timestamp, counts: [u64; 3], out: &mut Vec<u8>) {
        let triggers = ["decryption_failure", "duplicate", "general"];
        for (trigger, count) in triggers.into_iter().zip(counts).filter(|(_, n)| *n > 0) {
            self.event(now, "transport:packet_dropped", out, |d| {
                d.text("trigger", trigger);
                d.number("count", count);
            });
        }
    }

    /// Says that records are missing.
    pub(super) fn gap(&self, now: Timestamp, lost: u64, out: &mut Vec<u8>) {
        self.event(now, "loglevel:warning", out, |d| {
            d.text("message", "events were dropped: the disk was too slow");
            d.number("dropped_events", lost);
        });
    }

    fn event(
        &self,
        now: Timestamp,
        event: &str,
        out: &mut Vec<u8>,
        data: impl FnOnce(&mut Object<'_>),
    ) {
        self.event_on(PathId::ZERO, now, event, out, data);
    }

    /// One that is about a path.
    fn event_on(
        &self,
        path: PathId,
        now: Timestamp,
        event: &str,
        out: &mut Vec<u8>,
        data: impl FnOnce(&mut Object<'_>),
    ) {
        out.push(RECORD_SEPARATOR);
        {
            let mut o = Object::begin(out);
            o.millis("time", now - self.begun.now);
            o.text("name", event);
            if path != PathId::ZERO {
                o.text("path", &name(path));
            }
            data(&mut o.object("data"));
        }
        out.push(b'\n');
    }

    fn packet(
        &self,
        now: Timestamp,
        name: &str,
        packet: &SeenPacket<'_>,
        owner: usize,
        out: &mut Vec<u8>,
    ) {
        // RFC 9000 §18.2: the exponent is that of 1-RTT packets.
        let exponent = match packet.ty {
            PacketType::OneRtt => self.exponents.get(owner).copied(),
            _ => None,
        };
        let exponent = exponent.unwrap_or(ACK_DELAY_EXPONENT);
        let end = out.len() + limits::QLOG_RECORD_BYTES;
        self.event_on(packet.path, now, name, out, |d| {
            header(d, packet.ty, packet.number);
            let mut raw = d.object("raw");
            raw.number("length", packet.size as u64);
            raw.number("payload_length", packet.payload.len() as u64);
            drop(raw);
            let mut frames = d.array("frames");
            let mut omitted = 0;
            for f in packet.frames() {
                if frames.written() < end {
                    frame(&mut frames.object(), &f, exponent, end);
                } else {
                    omitted += 1;
                }
            }
            drop(frames);
            if omitted > 0 {
                d.number("frames_omitted", omitted);
            }
        });
    }

    fn recovery(&mut self, now: Timestamp, path: PathId, s: RecoveryState, out: &mut Vec<u8>) {
        let before = self.note_recovery(path, s);
        let is_new = |same: fn(&RecoveryState, &RecoveryState) -> bool| {
            before.as_ref().is_none_or(|b| !same(b, &s))
        };
        self.event_on(path, now, "recovery:metrics_updated", out, |d| {
            let times = [
                ("min_rtt", s.min_rtt, before.map(|b| b.min_rtt)),
                (
                    "smoothed_rtt",
                    s.smoothed_rtt,
                    before.map(|b| b.smoothed_rtt),
                ),
                ("latest_rtt", s.latest_rtt, before.map(|b| b.latest_rtt)),
                ("rtt_variance", s.rttvar, before.map(|b| b.rttvar)),
            ];
            for (key, value, old) in times {
                if old != Some(value) && !value.is_zero() {
                    d.millis(key, value);
                }
            }
            if is_new(|a, b| a.pto_count == b.pto_count) {
                d.number("pto_count", s.pto_count.into());
            }
            if is_new(|a, b| a.congestion_window == b.congestion_window) {
                d.number("congestion_window", s.congestion_window);
            }
            if is_new(|a, b| a.bytes_in_flight == b.bytes_in_flight) {
                d.number("bytes_in_flight", s.bytes_in_flight);
            }
            if is_new(|a, b| a.ssthresh == b.ssthresh) && s.ssthresh != u64::MAX {
                d.number("ssthresh", s.ssthresh);
            }
        });
        if is_new(|a, b| a.slow_start == b.slow_start) {
            self.event_on(path, now, "recovery:congestion_state_updated", out, |d| {
                let new = if s.slow_start {
                    "slow_start"
                } else {
                    "congestion_avoidance"
                };
                d.text("new", new);
            });
        }
    }

    /// Keeps what is written of a path, and returns what was written before.
    fn note_recovery(&mut self, path: PathId, s: RecoveryState) -> Option<RecoveryState> {
        if let Some((_, known)) = self.recovery.iter_mut().find(|(p, _)| *p == path) {
            return Some(std::mem::replace(known, s));
        }
        // Of those that are there no more, the oldest goes first.
        if self.recovery.len() >= limits::PATH_RECORDS {
            self.recovery.remove(0);
        }
        self.recovery.push((path, s));
        None
    }

    /// Both directions move together; the keys themselves are nobody's business here.
    fn keys(&self, now: Timestamp, generation: u64, by_peer: bool, out: &mut Vec<u8>) {
        for key in ["client_1rtt_secret", "server_1rtt_secret"] {
            self.event(now, "security:key_updated", out, |d| {
                d.text("key_type", key);
                d.number("generation", generation);
                let trigger = if by_peer {
                    "remote_update"
                } else {
                    "local_update"
                };
                d.text("trigger", trigger);
            });
        }
    }
}

/// What a path is called: the first is the one that qlog means by no name.
fn name(path: PathId) -> String {
    match path {
        PathId::ZERO => String::new(),
        _ => path.0.to_string(),
    }
}

fn header(d: &mut Object<'_>, ty: PacketType, number: u64) {
    let mut header = d.object("header");
    let ty = match ty {
        PacketType::Initial => "initial",
        PacketType::Handshake => "handshake",
        PacketType::ZeroRtt => "0RTT",
        PacketType::OneRtt => "1RTT",
    };
    header.text("packet_type", ty);
    header.number("packet_number", number);
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Handshaking => "handshake_started",
        Phase::Complete => "handshake_complete",
        Phase::Confirmed => "handshake_confirmed",
        Phase::Closing => "closing",
        Phase::Draining => "draining",
        Phase::Drained => "closed",
    }
}

fn endpoint(d: &mut Object<'_>, addr: SocketAddr) {
    let (ip, port) = match addr.ip() {
        IpAddr::V4(_) => ("ip_v4", "port_v4"),
        IpAddr::V6(_) => ("ip_v6", "port_v6"),
    };
    d.text(ip, &addr.ip().to_string());
    d.number(port, addr.port().into());
}

fn parameters(d: &mut Object<'_>, p: &TransportParameters) {
    let cids = [
        (
            "original_destination_connection_id",
            &p.original_destination_connection_id,
        ),
        (
            "initial_source_connection_id",
            &p.initial_source_connection_id,
        ),
        ("retry_source_connection_id", &p.retry_source_connection_id),
    ];
    for (key, cid) in cids {
        if let Some(cid) = cid {
            d.hex(key, cid.as_slice());
        }
    }
    d.bool("disable_active_migration", p.disable_active_migration);
    let numbers = [
        ("max_idle_timeout", p.max_idle_timeout.as_millis() as u64),
        ("max_udp_payload_size", p.max_udp_payload_size),
        ("ack_delay_exponent", p.ack_delay_exponent.into()),
        ("max_ack_delay", p.max_ack_delay.as_millis() as u64),
        ("active_connection_id_limit", p.active_connection_id_limit),
        ("initial_max_data", p.initial_max_data),
        (
            "initial_max_stream_data_bidi_local",
            p.initial_max_stream_data_bidi_local,
        ),
        (
            "initial_max_stream_data_bidi_remote",
            p.initial_max_stream_data_bidi_remote,
        ),
        ("initial_max_stream_data_uni", p.initial_max_stream_data_uni),
        ("initial_max_streams_bidi", p.initial_max_streams_bidi),
        ("initial_max_streams_uni", p.initial_max_streams_uni),
        ("max_datagram_frame_size", p.max_datagram_frame_size),
    ];
    for (key, value) in numbers {
        d.number(key, value);
    }
    if let Some(max) = p.initial_max_path_id {
        d.number("initial_max_path_id", max.0.into());
    }
}

fn closed(d: &mut Object<'_>, why: &ConnectionError) {
    let remote = matches!(
        why,
        ConnectionError::ClosedByPeer { .. }
            | ConnectionError::ApplicationClosed { .. }
            | ConnectionError::Reset
    );
    d.text("owner", if remote { "remote" } else { "local" });
    let trigger = match why {
        ConnectionError::PeerMisbehaved(e) => {
            code(d, "connection_code", e.code);
            "error"
        }
        ConnectionError::ClosedByPeer { code: c, .. } => {
            code(d, "connection_code", *c);
            if *c == Code::NO_ERROR {
                "clean"
            } else {
                "error"
            }
        }
        ConnectionError::ApplicationClosed { code, .. } => {
            d.number("application_code", *code);
            "application"
        }
        ConnectionError::LocallyClosed => "application",
        ConnectionError::TimedOut => "idle_timeout",
        ConnectionError::HandshakeTimedOut => "handshake_timeout",
        ConnectionError::Reset => "stateless_reset",
        ConnectionError::VersionMismatch => "version_mismatch",
        _ => "clean",
    };
    d.text("trigger", trigger);
    d.text("reason", cut(&why.to_string()));
}

/// RFC 9000's codes by the names that qlog gives them, others as numbers.
pub(super) fn code(d: &mut Object<'_>, key: &'static str, code: Code) {
    match code.name().filter(|_| code.alert().is_none()) {
        Some(name) => d.text(key, &name.to_ascii_lowercase()),
        None => d.number(key, code.0),
    }
}

/// The beginning of what a peer has written.
pub(super) fn cut(text: &str) -> &str {
    let mut end = text.len().min(limits::REASON_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// The name of a connection's file: what both sides have in common, and which this is.
pub(super) fn file_stem(begun: &Begun) -> String {
    format!("{}_{}", begun.original_dcid, role(begun.side))
}
