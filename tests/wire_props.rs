//! Properties of the wire layer over generated input: whatever is written reads back the same,
//! and no bytes at all make a parser panic, stand still or read outside of what it was given.

use corelane::base::{PathId, Rng};
use corelane::wire::error::Code;
use corelane::wire::frame::{
    self, AckFrequency, AddAddress, AddressFrame, ConnectionClose, Dir, EcnCounts, Frame,
    NewConnectionId, PacketType, PathFrame, PathStatus, ResetStream, Side, Stream, StreamId, ack,
    stream,
};
use corelane::wire::header::{self, Header, LongType, VERSION_1, VERSION_2};
use corelane::wire::varint::MAX;
use corelane::wire::version::{Version, VersionInformation, Versions};
use corelane::wire::{
    ConnectionId, PreferredAddress, Reader, TransportParameters, Writer, packet_number,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::RangeInclusive;
use std::time::Duration;

/// Numbers that a varint carries, each of its four sizes as likely.
fn varint() -> impl Strategy<Value = u64> {
    prop_oneof![0..1u64 << 6, 0..1u64 << 14, 0..1u64 << 30, 0..=MAX]
}

fn cid(min: usize) -> impl Strategy<Value = ConnectionId> {
    vec(any::<u8>(), min..=20).prop_map(|b| ConnectionId::new(&b).expect("at most 20 bytes"))
}

fn dir() -> impl Strategy<Value = Dir> {
    prop_oneof![Just(Dir::Bi), Just(Dir::Uni)]
}

fn ecn() -> impl Strategy<Value = EcnCounts> {
    (varint(), varint(), varint()).prop_map(|(ect0, ect1, ce)| EcnCounts { ect0, ect1, ce })
}

/// Descending ranges with gaps between them.
fn ack_ranges() -> impl Strategy<Value = Vec<RangeInclusive<u64>>> {
    let steps = vec((0..1u64 << 20, 0..1u64 << 20), 1..80);
    (1u64 << 30..=MAX, steps).prop_map(|(largest, steps)| {
        let mut next = largest;
        let mut out = Vec::new();
        for (below, gap) in steps {
            out.push(next - below..=next);
            next -= below + gap + 2;
        }
        out
    })
}

/// A frame that owns its parts, to be borrowed as a [`Frame`].
#[derive(Clone, Debug)]
enum Owned {
    Ack(
        Option<PathId>,
        Vec<RangeInclusive<u64>>,
        u64,
        Option<EcnCounts>,
    ),
    ClosePath(PathId, u64, Vec<u8>),
    Crypto(u64, Vec<u8>),
    NewToken(Vec<u8>),
    Stream(u64, u64, Vec<u8>, bool),
    Close(u64, Option<u64>, Vec<u8>),
    Datagram(Vec<u8>),
    Plain(Frame<'static>),
}

impl Owned {
    fn write(&self, w: &mut Writer<'_>) -> bool {
        let frame = match self {
            Self::Ack(path, ranges, delay, ecn) => {
                let ranges = ranges.iter().cloned();
                return match path {
                    Some(path) => ack::write_path(w, *path, ranges, *delay, *ecn) > 0,
                    None => ack::write(w, ranges, *delay, *ecn) > 0,
                };
            }
            Self::ClosePath(path, error, reason) => Frame::Address(AddressFrame::ClosePath {
                path: *path,
                error: Code(*error),
                reason,
            }),
            Self::Crypto(offset, data) => Frame::Crypto {
                offset: *offset,
                data,
            },
            Self::NewToken(token) => Frame::NewToken(token),
            Self::Stream(id, offset, data, fin) => Frame::Stream(Stream {
                id: *id,
                offset: *offset,
                data,
                fin: *fin,
            }),
            Self::Close(error, frame_type, reason) => Frame::ConnectionClose(ConnectionClose {
                error: Code(*error),
                frame_type: *frame_type,
                reason,
            }),
            Self::Datagram(data) => Frame::Datagram(data),
            Self::Plain(frame) => *frame,
        };
        frame.write(w)
    }

    fn is(&self, frame: &Frame<'_>) -> bool {
        match (self, frame) {
            (Self::Ack(Some(path), ranges, delay, ecn), Frame::PathAck { path: p, ack }) => {
                path == p && Self::Ack(None, ranges.clone(), *delay, *ecn).is(&Frame::Ack(*ack))
            }
            (
                Self::ClosePath(path, error, reason),
                Frame::Address(AddressFrame::ClosePath {
                    path: p,
                    error: e,
                    reason: r,
                }),
            ) => (path, Code(*error), &reason[..]) == (p, *e, *r),
            (Self::Ack(None, ranges, delay, ecn), Frame::Ack(read)) => {
                let sent = ranges.len().min(ack::MAX_WRITTEN_RANGES);
                read.largest == *ranges[0].end()
                    && read.delay == *delay
                    && read.ecn == *ecn
                    && read.ranges.eq(ranges[..sent].iter().cloned())
            }
            (Self::Crypto(offset, data), Frame::Crypto { offset: o, data: d }) => {
                (offset, &data[..]) == (o, d)
            }
            (Self::NewToken(token), Frame::NewToken(read)) => token == read,
            (Self::Stream(id, offset, data, fin), Frame::Stream(s)) => {
                (*id, *offset, &data[..], *fin) == (s.id, s.offset, s.data, s.fin)
            }
            (Self::Close(error, frame_type, reason), Frame::ConnectionClose(c)) => {
                (Code(*error), *frame_type) == (c.error, c.frame_type)
                    && reason.starts_with(c.reason)
                    // What is missing is beyond the limit, or part of a character at it.
                    && (reason.len() == c.reason.len() || c.reason.len() > 252)
            }
            (Self::Datagram(data), Frame::Datagram(read)) => data == read,
            (Self::Plain(frame), read) => frame == read,
            _ => false,
        }
    }
}

fn path_id() -> impl Strategy<Value = PathId> {
    prop_oneof![0..1u32 << 6, any::<u32>()].prop_map(PathId)
}

fn new_cid() -> impl Strategy<Value = NewConnectionId> {
    (
        varint(),
        any::<prop::sample::Index>(),
        cid(1),
        any::<[u8; 16]>(),
    )
        .prop_map(|(seq, retire, cid, reset_token)| NewConnectionId {
            seq,
            retire_prior_to: retire.index(seq as usize + 1) as u64,
            cid,
            reset_token,
        })
}

fn path_frame() -> impl Strategy<Value = PathFrame> {
    let status = prop_oneof![Just(PathStatus::Backup), Just(PathStatus::Available)];
    let numbered = || (path_id(), varint());
    prop_oneof![
        numbered().prop_map(|(path, error)| PathFrame::Abandon {
            path,
            error: Code(error)
        }),
        (numbered(), status).prop_map(|((path, seq), status)| PathFrame::Status {
            path,
            status,
            seq
        }),
        (path_id(), new_cid()).prop_map(|(path, new)| PathFrame::NewConnectionId { path, new }),
        numbered().prop_map(|(path, seq)| PathFrame::RetireConnectionId { path, seq }),
        path_id().prop_map(PathFrame::MaxPathId),
        path_id().prop_map(PathFrame::PathsBlocked),
        numbered().prop_map(|(path, next_seq)| PathFrame::CidsBlocked { path, next_seq }),
    ]
}

fn address_frame() -> impl Strategy<Value = AddressFrame<'static>> {
    let ip = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from)
    ];
    prop_oneof![
        (varint(), varint(), ip, 1..=u16::MAX).prop_map(|(id, seq, ip, port)| {
            let addr = SocketAddr::new(ip, port);
            AddressFrame::AddAddress(AddAddress { id, seq, addr })
        }),
        (varint(), varint())
            .prop_map(|(available, active)| AddressFrame::Paths { available, active }),
    ]
}

fn plain_frame() -> impl Strategy<Value = Frame<'static>> {
    let count = || 0..=1u64 << 60;
    prop_oneof![
        Just(Frame::Padding),
        Just(Frame::Ping),
        Just(Frame::HandshakeDone),
        Just(Frame::ImmediateAck),
        (varint(), varint(), varint(), varint()).prop_map(
            |(seq, threshold, max_ack_delay, reordering)| {
                Frame::AckFrequency(AckFrequency {
                    seq,
                    threshold,
                    max_ack_delay,
                    reordering,
                })
            }
        ),
        (varint(), varint(), varint()).prop_map(|(id, code, final_size)| {
            Frame::ResetStream(ResetStream {
                id,
                code,
                final_size,
            })
        }),
        (varint(), varint()).prop_map(|(id, code)| Frame::StopSending { id, code }),
        varint().prop_map(Frame::MaxData),
        (varint(), varint()).prop_map(|(id, max)| Frame::MaxStreamData { id, max }),
        (dir(), count()).prop_map(|(dir, max)| Frame::MaxStreams { dir, max }),
        varint().prop_map(Frame::DataBlocked),
        (varint(), varint()).prop_map(|(id, limit)| Frame::StreamDataBlocked { id, limit }),
        (dir(), count()).prop_map(|(dir, limit)| Frame::StreamsBlocked { dir, limit }),
        new_cid().prop_map(Frame::NewConnectionId),
        path_frame().prop_map(Frame::Path),
        address_frame().prop_map(Frame::Address),
        varint().prop_map(Frame::RetireConnectionId),
        any::<[u8; 8]>().prop_map(Frame::PathChallenge),
        any::<[u8; 8]>().prop_map(Frame::PathResponse),
    ]
}

fn owned_frame() -> impl Strategy<Value = Owned> {
    let bytes = || vec(any::<u8>(), 0..300);
    // The end of the data is at most 2^62 - 1.
    let offset = || prop_oneof![varint().prop_map(|v| v.min(MAX - 300)), Just(0)];
    prop_oneof![
        (
            option::of(path_id()),
            ack_ranges(),
            varint(),
            option::of(ecn())
        )
            .prop_map(|(p, r, d, e)| Owned::Ack(p, r, d, e)),
        (path_id(), varint(), bytes()).prop_map(|(p, e, r)| Owned::ClosePath(p, e, r)),
        (offset(), bytes()).prop_map(|(o, d)| Owned::Crypto(o, d)),
        vec(any::<u8>(), 1..300).prop_map(Owned::NewToken),
        (varint(), offset(), bytes(), any::<bool>())
            .prop_map(|(i, o, d, f)| Owned::Stream(i, o, d, f)),
        (varint(), option::of(varint()), vec(any::<u8>(), 0..400))
            .prop_map(|(e, t, r)| Owned::Close(e, t, r)),
        bytes().prop_map(Owned::Datagram),
        plain_frame().prop_map(Owned::Plain),
    ]
}

fn params() -> impl Strategy<Value = TransportParameters> {
    let flow = (varint(), varint(), varint(), varint());
    let limits = (0..=1u64 << 60, 0..=1u64 << 60, 2..=MAX, varint());
    let timing = (varint(), 1200..=MAX, 0..=20u8, 0..1u64 << 14);
    let ids = (
        cid(0),
        cid(1),
        option::of(cid(0)),
        option::of(any::<[u8; 16]>()),
    );
    let preferred = option::of((
        option::of((any::<[u8; 4]>(), 1..=u16::MAX)),
        option::of((any::<[u8; 16]>(), 1..=u16::MAX)),
        cid(1),
        any::<[u8; 16]>(),
    ));
    let versions = option::of((1..=u32::MAX, vec(version(), 0..4)));
    let paths = (option::of(path_id()), any::<bool>());
    let extensions = (versions, any::<bool>(), option::of(0..=1u64 << 40), paths);
    let flags = (any::<bool>(), extensions);
    (flow, limits, timing, ids, preferred, flags).prop_map(
        |(flow, limits, timing, ids, preferred, (disable_active_migration, extensions))| {
            TransportParameters {
                original_destination_connection_id: Some(ids.0),
                max_idle_timeout: Duration::from_millis(timing.0),
                stateless_reset_token: ids.3,
                max_udp_payload_size: timing.1,
                initial_max_data: flow.0,
                initial_max_stream_data_bidi_local: flow.1,
                initial_max_stream_data_bidi_remote: flow.2,
                initial_max_stream_data_uni: flow.3,
                initial_max_streams_bidi: limits.0,
                initial_max_streams_uni: limits.1,
                ack_delay_exponent: timing.2,
                max_ack_delay: Duration::from_millis(timing.3),
                disable_active_migration,
                preferred_address: preferred.map(|(v4, v6, cid, reset_token)| PreferredAddress {
                    v4: v4.map(|(ip, port)| SocketAddrV4::new(ip.into(), port)),
                    v6: v6.map(|(ip, port)| SocketAddrV6::new(ip.into(), port, 0, 0)),
                    cid,
                    reset_token,
                }),
                active_connection_id_limit: limits.2,
                initial_source_connection_id: Some(ids.1),
                retry_source_connection_id: ids.2,
                max_datagram_frame_size: limits.3,
                version_information: extensions.0.map(|(chosen, list)| {
                    let mut available = Versions::new();
                    for version in list {
                        if !available.contains(&version) {
                            available.push(version);
                        }
                    }
                    // A client lists what it chose.
                    let chosen = available.first().map_or(chosen, |v| v.number());
                    VersionInformation { chosen, available }
                }),
                grease_quic_bit: extensions.1,
                min_ack_delay: extensions
                    .2
                    .map(|us| Duration::from_micros(us.min(timing.3 * 1000))),
                initial_max_path_id: extensions.3.0,
                advertise_addresses: extensions.3.1,
            }
        },
    )
}

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V1), Just(Version::V2)]
}

fn long_type() -> impl Strategy<Value = LongType> {
    prop_oneof![
        Just(LongType::Initial),
        Just(LongType::ZeroRtt),
        Just(LongType::Handshake)
    ]
}

/// Bytes that look like a sequence of frames more often than noise does.
fn frame_like() -> impl Strategy<Value = Vec<u8>> {
    // Types of one byte, and those of two that begin like our long ones.
    let ty = prop_oneof![
        4 => (0..0x40u8).prop_map(|t| vec![t]),
        1 => (0x75..=0x7cu8).prop_map(|t| vec![0x7e, t]),
        1 => (0x40..=0x42u8).prop_map(|t| vec![0x40, t]),
    ];
    let chunk = (ty, vec(prop_oneof![0..0x40u8, any::<u8>()], 0..24)).prop_map(|(t, rest)| {
        let mut out = t;
        out.extend(rest);
        out
    });
    prop_oneof![
        vec(any::<u8>(), 0..1500),
        vec(chunk, 0..12).prop_map(|c| c.concat())
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn frames_read_back_in_sequence(frames in vec(owned_frame(), 1..12)) {
        let mut buf = vec![0; 64 * 1024];
        let mut w = Writer::new(&mut buf);
        let mut ends = Vec::new();
        for frame in &frames {
            prop_assert!(frame.write(&mut w));
            ends.push(w.position());
        }
        let mut r = Reader::new(w.written());
        for (i, frame) in frames.iter().enumerate() {
            if r.position() >= ends[i] {
                // The frame before this one took the whole run of padding.
                prop_assert!(matches!(frame, Owned::Plain(Frame::Padding)));
                continue;
            }
            let read = Frame::parse(&mut r);
            let read = read.map_err(|e| TestCaseError::fail(format!("{e} for {frame:?}")))?;
            prop_assert!(frame.is(&read), "{:?} became {:?}", frame, read);
            if read == Frame::Padding {
                prop_assert!(ends[i..].contains(&r.position()));
            } else {
                prop_assert_eq!(r.position(), ends[i]);
            }
            prop_assert!(Frame::allowed_in(read.ty(), PacketType::OneRtt));
        }
        prop_assert!(r.is_empty());
    }

    #[test]
    fn a_frame_that_does_not_fit_writes_nothing(frame in owned_frame(), room in 0usize..64) {
        let mut buf = vec![0; room];
        let mut w = Writer::new(&mut buf);
        if frame.write(&mut w) {
            let mut r = Reader::new(w.written());
            prop_assert!(Frame::parse(&mut r).is_ok());
            prop_assert!(r.is_empty());
        } else {
            prop_assert_eq!(w.position(), 0);
        }
    }

    #[test]
    fn a_stream_frame_may_fill_the_packet(
        id in varint(),
        offset in varint().prop_map(|v| v.min(MAX - 2000)),
        data in vec(any::<u8>(), 0..1500),
        fin: bool,
    ) {
        let mut buf = vec![0; stream::header_size(id, offset, None) + data.len()];
        let mut w = Writer::new(&mut buf);
        stream::write_header(&mut w, id, offset, None, fin);
        w.bytes(&data);
        prop_assert_eq!(w.remaining(), 0);
        let read = Frame::parse(&mut Reader::new(&buf));
        prop_assert_eq!(read, Ok(Frame::Stream(Stream { id, offset, data: &data, fin })));
        let kind = StreamId(id);
        prop_assert_eq!(StreamId::new(kind.initiator(), kind.dir(), kind.index()), kind);
    }

    #[test]
    fn long_headers_read_back(
        ty in long_type(),
        version in version(),
        dcid in cid(0),
        scid in cid(0),
        token in vec(any::<u8>(), 0..300),
        pn in 0..=MAX,
        pn_len in 1usize..=4,
        payload in 0usize..1500,
        trailing in vec(any::<u8>(), 0..100),
    ) {
        let mut buf = vec![0; 2500];
        let mut w = Writer::new(&mut buf);
        let version = version.number();
        let at = header::write_long(&mut w, ty, version, &dcid, &scid, &token, pn_len);
        prop_assert_eq!(
            w.position(),
            header::long_size(ty, dcid.len(), scid.len(), token.len())
        );
        packet_number::write(&mut w, pn, pn_len);
        w.zeros(payload);
        let len = w.position();
        at.patch_length(&mut w, len);
        w.bytes(&trailing);
        let token = if ty == LongType::Initial { &token[..] } else { &[] };
        prop_assert_eq!(
            Header::parse(w.written(), 8),
            Ok(Header::Long {
                ty,
                version,
                dcid,
                scid,
                token,
                pn_offset: at.packet_number,
                len,
            })
        );
        prop_assert_eq!(header::dcid(w.written(), 8), Some(dcid.as_slice()));
    }

    #[test]
    fn short_headers_read_back(
        dcid in cid(0),
        spin: bool,
        phase: bool,
        pn_len in 1usize..=4,
    ) {
        let mut buf = [0; 64];
        let mut w = Writer::new(&mut buf);
        let pn_offset = header::write_short(&mut w, &dcid, spin, phase, pn_len);
        packet_number::write(&mut w, 7, pn_len);
        let first = w.written()[0];
        prop_assert_eq!(first & header::SPIN != 0, spin);
        prop_assert_eq!(first & header::KEY_PHASE != 0, phase);
        prop_assert_eq!(usize::from(first & header::PN_LEN_MASK) + 1, pn_len);
        prop_assert_eq!(first & header::RESERVED_SHORT, 0);
        let read = Header::parse(w.written(), dcid.len());
        prop_assert_eq!(read, Ok(Header::Short { dcid, pn_offset }));
        prop_assert_eq!(header::dcid(w.written(), dcid.len()), Some(dcid.as_slice()));
    }

    #[test]
    fn retry_and_version_negotiation_read_back(
        dcid in cid(0),
        scid in cid(0),
        token in vec(any::<u8>(), 1..300),
        integrity_tag: [u8; 16],
        long in (vec(any::<u8>(), 0..=255), vec(any::<u8>(), 0..=255)),
        versions in vec(any::<u32>(), 1..10),
        unused: u8,
    ) {
        let mut buf = vec![0; 1000];
        let mut w = Writer::new(&mut buf);
        header::write_retry(&mut w, VERSION_1, &dcid, &scid, &token);
        w.bytes(&integrity_tag);
        let token = &token[..];
        let version = VERSION_1;
        prop_assert_eq!(
            Header::parse(w.written(), 8),
            Ok(Header::Retry { version, dcid, scid, token, integrity_tag })
        );

        let mut w = Writer::new(&mut buf);
        header::write_version_negotiation(&mut w, unused, &long.0, &long.1, &versions);
        prop_assert_eq!(
            w.position(),
            header::version_negotiation_size(long.0.len(), long.1.len(), versions.len())
        );
        match Header::parse(w.written(), 8) {
            Ok(Header::VersionNegotiation { dcid, scid, versions: read }) => {
                prop_assert_eq!((dcid, scid), (&long.0[..], &long.1[..]));
                prop_assert_eq!(read.iter().collect::<Vec<_>>(), versions);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn transport_parameters_read_back(params in params(), seed: u64) {
        let mut out = Vec::new();
        params.encode(Side::Server, &mut out, &mut Rng::from_u64(seed));
        prop_assert_eq!(TransportParameters::decode(Side::Server, &out), Ok(params));
        let refused = TransportParameters::decode(Side::Client, &out).map_err(|e| e.code);
        prop_assert_eq!(refused, Err(Code::TRANSPORT_PARAMETER_ERROR));
    }

    #[test]
    fn any_bytes_as_frames(bytes in frame_like()) {
        let mut r = Reader::new(&bytes);
        while !r.is_empty() {
            let before = r.position();
            match Frame::parse(&mut r) {
                Ok(frame) => {
                    prop_assert!(r.position() > before);
                    if let Frame::Ack(ack) | Frame::PathAck { ack, .. } = frame {
                        let mut last = None;
                        for range in ack.ranges {
                            prop_assert!(range.start() <= range.end());
                            prop_assert!(last.is_none_or(|l| *range.end() < l));
                            last = range.start().checked_sub(1);
                        }
                    }
                }
                Err(e) => {
                    prop_assert!(
                        matches!(e.code, Code::FRAME_ENCODING_ERROR | Code::PROTOCOL_VIOLATION)
                    );
                    break;
                }
            }
        }
    }

    #[test]
    fn any_bytes_as_a_datagram(
        mut bytes in vec(any::<u8>(), 0..200),
        version in prop_oneof![Just(0u32), Just(VERSION_1), Just(VERSION_2), any::<u32>()],
        cid_len in 0usize..=20,
        lens in (0u8..24, 0u8..24),
    ) {
        if let Some(field) = bytes.get_mut(1..5) {
            field.copy_from_slice(&version.to_be_bytes());
        }
        // Connection ID lengths that fit more often than random ones do.
        if let Some(len) = bytes.get_mut(5) {
            *len = lens.0;
        }
        if let Some(len) = bytes.get_mut(6 + usize::from(lens.0)) {
            *len = lens.1;
        }
        let mut rest = &bytes[..];
        while let Ok(parsed) = Header::parse(rest, cid_len) {
            prop_assert!(header::dcid(rest, cid_len).is_some());
            match parsed {
                Header::Long { pn_offset, len, .. } => {
                    prop_assert!(0 < pn_offset && pn_offset <= len && len <= rest.len());
                    rest = &rest[len..];
                }
                Header::Short { pn_offset, .. } => {
                    prop_assert!(pn_offset <= rest.len());
                    break;
                }
                _ => break,
            }
        }
    }

    #[test]
    fn any_bytes_as_transport_parameters(bytes in vec(any::<u8>(), 0..300)) {
        for side in [Side::Client, Side::Server] {
            if let Err(e) = TransportParameters::decode(side, &bytes) {
                prop_assert_eq!(e.code, Code::TRANSPORT_PARAMETER_ERROR);
            }
        }
    }

    #[test]
    fn sizes_bound_what_control_frames_take(a in varint(), b in varint(), c in varint()) {
        let mut buf = [0; frame::RESET_STREAM_SIZE];
        let mut w = Writer::new(&mut buf);
        frame::write_reset_stream(&mut w, a, b, c);
        let mut w = Writer::new(&mut buf[..frame::MAX_STREAM_DATA_SIZE]);
        frame::write_max_stream_data(&mut w, a, b);
        let mut w = Writer::new(&mut buf[..frame::STREAM_DATA_BLOCKED_SIZE]);
        frame::write_stream_data_blocked(&mut w, a, b);
        let mut w = Writer::new(&mut buf[..frame::STOP_SENDING_SIZE]);
        frame::write_stop_sending(&mut w, a, b);
        for (bound, write) in [
            (frame::MAX_DATA_SIZE, frame::write_max_data as fn(&mut Writer<'_>, u64)),
            (frame::DATA_BLOCKED_SIZE, frame::write_data_blocked),
            (frame::RETIRE_CONNECTION_ID_SIZE, frame::write_retire_connection_id),
        ] {
            let mut w = Writer::new(&mut buf[..bound]);
            write(&mut w, a);
            prop_assert_eq!(w.position(), 1 + corelane::wire::varint::size(a));
        }
    }
}
