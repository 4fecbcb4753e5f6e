//! What is fuzzed: a table of parsers with the inputs to start from and the checks on what comes
//! out. A target fails by panicking.

use crate::endpoints as ep;
use crate::{paths, rdma};
use corelane::base::{PathId, Rng};
use corelane::wire::frame::{
    self, AddAddress, AddressFrame, ConnectionClose, Dir, EcnCounts, Frame, NewConnectionId,
    PathFrame, PathStatus, Side, ack, stream,
};
use corelane::wire::header::{self, Header, LongType, VERSION_1, VERSION_2};
use corelane::wire::{
    Code, ConnectionId, PreferredAddress, Reader, TransportParameters, Version, VersionInformation,
    Writer, packet_number,
};
use std::time::Duration;

/// One parser, or one endpoint, under test.
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Valid inputs to mutate.
    pub corpus: fn() -> Vec<Vec<u8>>,
    /// Feeds one input; panics when a check fails.
    pub run: fn(&[u8]),
    /// How much longer an input takes than one of a parser.
    pub cost: u64,
}

/// Every target.
#[rustfmt::skip]
pub const TARGETS: &[Target] = &[
    Target { name: "header", corpus: headers, run: run_header, cost: 1 },
    Target { name: "frame", corpus: frames, run: run_frame, cost: 1 },
    Target { name: "tparams", corpus: parameters, run: run_parameters, cost: 1 },
    Target { name: "datagram", corpus: ep::handshakes, run: ep::run_datagram, cost: 100 },
    Target { name: "stream", corpus: ep::payloads, run: ep::run_payload, cost: 100 },
    Target { name: "paths", corpus: paths::corpus, run: paths::run, cost: 100 },
    Target { name: "bootstrap", corpus: rdma::messages, run: rdma::run_bootstrap, cost: 1 },
    Target { name: "roce", corpus: rdma::packets, run: rdma::run_packet, cost: 1 },
    Target { name: "device", corpus: rdma::attacks, run: rdma::run_device, cost: 50 },
];

/// The first byte of a header input is the local connection ID length, the rest the datagram.
fn run_header(input: &[u8]) {
    let Some((&cid_len, mut rest)) = input.split_first() else {
        return;
    };
    let cid_len = usize::from(cid_len) % 21;
    while let Ok(parsed) = Header::parse(rest, cid_len) {
        let routed = header::dcid(rest, cid_len).expect("what parses can be routed");
        match parsed {
            Header::Long {
                ty,
                version,
                dcid,
                scid,
                token,
                pn_offset,
                len,
            } => {
                assert_eq!(routed, dcid.as_slice());
                assert!(0 < pn_offset && pn_offset <= len && len <= rest.len());
                let mut buf = vec![0; input.len() + 64];
                let mut w = Writer::new(&mut buf);
                let at = header::write_long(&mut w, ty, version, &dcid, &scid, token, 1);
                at.patch_length(&mut w, at.packet_number);
                let again = Header::parse(w.written(), cid_len);
                let end = at.packet_number;
                let expected = Header::Long {
                    ty,
                    version,
                    dcid,
                    scid,
                    token,
                    pn_offset: end,
                    len: end,
                };
                assert_eq!(again, Ok(expected));
                rest = &rest[len..];
            }
            Header::Short { dcid, pn_offset } => {
                assert_eq!(routed, dcid.as_slice());
                assert!(dcid.len() == cid_len && pn_offset == 1 + cid_len);
                return;
            }
            Header::Retry { dcid, token, .. } => {
                assert_eq!(routed, dcid.as_slice());
                assert!(!token.is_empty());
                return;
            }
            Header::VersionNegotiation { dcid, versions, .. } => {
                assert_eq!(routed, dcid);
                assert!(versions.iter().count() > 0);
                return;
            }
            Header::UnknownVersion { version, dcid, .. } => {
                assert_eq!(routed, dcid);
                assert!(version != 0 && version != VERSION_1 && version != VERSION_2);
                return;
            }
        }
    }
}

fn headers() -> Vec<Vec<u8>> {
    let cid = |len: usize| ConnectionId::new(&vec![0xc; len]).unwrap_or_default();
    let mut out = Vec::new();
    let mut add = |write: &dyn Fn(&mut Writer<'_>)| {
        let mut buf = [0; 1500];
        buf[0] = 8;
        let mut w = Writer::new(&mut buf[1..]);
        write(&mut w);
        let len = w.position();
        out.push(buf[..1 + len].to_vec());
    };
    let long = |w: &mut Writer<'_>, ty, token: &[u8]| {
        let at = header::write_long(w, ty, VERSION_1, &cid(8), &cid(20), token, 2);
        packet_number::write(w, 300, 2);
        w.zeros(40);
        let end = w.position();
        at.patch_length(w, end);
    };
    add(&|w| long(w, LongType::Initial, &[]));
    add(&|w| long(w, LongType::Initial, &[7; 100]));
    add(&|w| long(w, LongType::ZeroRtt, &[]));
    add(&|w| long(w, LongType::Handshake, &[]));
    add(&|w| {
        long(w, LongType::Initial, b"token");
        long(w, LongType::Handshake, &[]);
        header::write_short(w, &cid(8), false, true, 1);
        w.zeros(30);
    });
    add(&|w| {
        header::write_retry(w, VERSION_1, &cid(0), &cid(8), b"token");
        w.zeros(header::RETRY_TAG_LEN);
    });
    add(&|w| {
        header::write_version_negotiation(w, 9, &[1; 255], &[2; 30], &[VERSION_1, VERSION_2]);
    });
    out
}

fn run_frame(input: &[u8]) {
    let mut r = Reader::new(input);
    let mut buf = vec![0; 2 * input.len() + 128];
    while !r.is_empty() {
        let before = r.position();
        let frame = match Frame::parse(&mut r) {
            Ok(frame) => frame,
            Err(e) => {
                assert!(matches!(
                    e.code,
                    Code::FRAME_ENCODING_ERROR | Code::PROTOCOL_VIOLATION
                ));
                return;
            }
        };
        assert!(r.position() > before, "a frame of no bytes");
        if let Frame::Ack(ack) | Frame::PathAck { ack, .. } = frame {
            check_ranges(&ack);
        }
        let mut w = Writer::new(&mut buf);
        assert!(frame.write(&mut w), "{frame:?} does not fit");
        let mut again = Reader::new(w.written());
        let reread = Frame::parse(&mut again).expect("what was written reads back");
        assert!(again.is_empty());
        assert_same(&frame, &reread);
    }
}

fn check_ranges(ack: &frame::Ack<'_>) {
    assert_eq!(
        ack.ranges.into_iter().next().map(|r| *r.end()),
        Some(ack.largest)
    );
    let mut smallest = None;
    for range in ack.ranges {
        assert!(range.start() <= range.end());
        // At least one packet number lies between two ranges.
        assert!(smallest.is_none_or(|s| range.end() + 1 < s));
        smallest = Some(*range.start());
    }
}

/// Equal, but for what writers cut.
fn assert_same(a: &Frame<'_>, b: &Frame<'_>) {
    match (a, b) {
        (Frame::Ack(a), Frame::Ack(b)) if a.ranges.len() > ack::MAX_WRITTEN_RANGES => {
            assert!(a.ranges.take(ack::MAX_WRITTEN_RANGES).eq(b.ranges));
        }
        (Frame::PathAck { path, ack }, Frame::PathAck { path: p, ack: a }) => {
            assert_eq!(path, p);
            assert_same(&Frame::Ack(*ack), &Frame::Ack(*a));
        }
        (Frame::ConnectionClose(a), Frame::ConnectionClose(b)) => {
            assert_eq!((a.error, a.frame_type), (b.error, b.frame_type));
            assert!(a.reason.starts_with(b.reason));
        }
        _ => assert_eq!(a, b),
    }
}

fn frames() -> Vec<Vec<u8>> {
    let cid = ConnectionId::new(&[0xc; 8]).unwrap_or_default();
    let new_cid = NewConnectionId {
        seq: 3,
        retire_prior_to: 2,
        cid,
        reset_token: [5; 16],
    };
    let ecn = EcnCounts {
        ect0: 70,
        ect1: 0,
        ce: 20_000,
    };
    let close = ConnectionClose {
        error: Code(0x0a),
        frame_type: Some(2),
        reason: b"why",
    };
    let application_close = ConnectionClose {
        frame_type: None,
        ..close
    };
    let many = || (1..60u64).rev().map(|n| 20 * n..=20 * n + 10);
    let writers: &[&dyn Fn(&mut Writer<'_>)] = &[
        &|w| w.zeros(20),
        &frame::write_ping,
        &|w| assert!(ack::write(w, [7..=1000, 0..=3], 9, None) == 2),
        &|w| assert!(ack::write(w, many(), 1 << 20, Some(ecn)) == 59),
        &|w| frame::write_reset_stream(w, 4, 99, 1 << 20),
        &|w| frame::write_stop_sending(w, 4, 1 << 40),
        &|w| {
            frame::write_crypto_header(w, 1200, 30);
            w.zeros(30);
        },
        &|w| frame::write_new_token(w, &[7; 70]),
        &|w| {
            stream::write_header(w, 9, 1 << 30, Some(20), true);
            w.zeros(20);
        },
        &|w| {
            stream::write_header(w, 9, 0, None, false);
            w.zeros(20);
        },
        &|w| frame::write_max_data(w, 1 << 33),
        &|w| frame::write_max_stream_data(w, 5, 100),
        &|w| frame::write_max_streams(w, Dir::Bi, 1 << 60),
        &|w| frame::write_data_blocked(w, 1 << 14),
        &|w| frame::write_stream_data_blocked(w, 8, 1 << 6),
        &|w| frame::write_streams_blocked(w, Dir::Uni, 7),
        &|w| frame::write_new_connection_id(w, &new_cid),
        &|w| frame::write_retire_connection_id(w, 1000),
        &|w| frame::write_path_challenge(w, b"abcdefgh"),
        &|w| frame::write_path_response(w, b"abcdefgh"),
        &|w| assert!(frame::write_connection_close(w, &close)),
        &|w| assert!(frame::write_connection_close(w, &application_close)),
        &frame::write_handshake_done,
        &|w| {
            frame::write_datagram_header(w, Some(10));
            w.zeros(10);
        },
        &|w| frame::write_datagram_header(w, None),
    ];
    let mut buf = [0; 1500];
    let mut out: Vec<Vec<u8>> = writers
        .iter()
        .map(|write| {
            let mut w = Writer::new(&mut buf);
            write(&mut w);
            w.written().to_vec()
        })
        .collect();
    out.extend(path_frames());
    out.push(out.concat());
    out
}

/// The frames of multipath and those that advertise addresses.
fn path_frames() -> Vec<Vec<u8>> {
    let (path, error) = (PathId(3), Code::PATH_UNSTABLE_OR_POOR);
    let status = |status| PathFrame::Status {
        path,
        status,
        seq: 7,
    };
    let new = NewConnectionId {
        seq: 3,
        retire_prior_to: 2,
        cid: ConnectionId::new(&[0xc; 8]).unwrap_or_default(),
        reset_token: [5; 16],
    };
    let address = |addr: [u8; 4]| AddAddress {
        id: 1,
        seq: 2,
        addr: (addr, 443).into(),
    };
    let frames = [
        Frame::Path(PathFrame::Abandon { path, error }),
        Frame::Path(status(PathStatus::Backup)),
        Frame::Path(status(PathStatus::Available)),
        Frame::Path(PathFrame::NewConnectionId { path, new }),
        Frame::Path(PathFrame::RetireConnectionId { path, seq: 1 }),
        Frame::Path(PathFrame::MaxPathId(PathId::MAX)),
        Frame::Path(PathFrame::PathsBlocked(path)),
        Frame::Path(PathFrame::CidsBlocked { path, next_seq: 4 }),
        Frame::Address(AddressFrame::AddAddress(address([192, 0, 2, 1]))),
        Frame::Address(AddressFrame::Paths {
            available: 2,
            active: 1,
        }),
        Frame::Address(AddressFrame::ClosePath {
            path,
            error,
            reason: b"why",
        }),
    ];
    let mut buf = [0; 256];
    let mut written = |write: &dyn Fn(&mut Writer<'_>) -> bool| {
        let mut w = Writer::new(&mut buf);
        assert!(write(&mut w));
        w.written().to_vec()
    };
    let acked = written(&|w| ack::write_path(w, path, [7..=1000, 0..=3], 9, None) == 2);
    let mut out = vec![acked];
    out.extend(frames.iter().map(|f| written(&|w| f.write(w))));
    out
}

/// The low bit of the first byte says whose parameters follow.
fn run_parameters(input: &[u8]) {
    let Some((&side, encoded)) = input.split_first() else {
        return;
    };
    let side = if side & 1 == 0 {
        Side::Client
    } else {
        Side::Server
    };
    match TransportParameters::decode(side, encoded) {
        Ok(mut params) => {
            // Of a list only known versions are kept, so an unknown choice has lost its list.
            let unknown = |i: &mut VersionInformation| Version::from_number(i.chosen).is_none();
            params.version_information.take_if(unknown);
            let mut out = Vec::new();
            params.encode(side, &mut out, &mut Rng::from_u64(encoded.len() as u64));
            assert_eq!(TransportParameters::decode(side, &out), Ok(params));
        }
        Err(e) => assert_eq!(e.code, Code::TRANSPORT_PARAMETER_ERROR),
    }
}

fn parameters() -> Vec<Vec<u8>> {
    let cid = |len: usize| ConnectionId::new(&vec![0xc; len]).unwrap_or_default();
    let client = TransportParameters {
        max_idle_timeout: Duration::from_secs(30),
        initial_max_data: 1 << 24,
        initial_max_stream_data_bidi_local: 1 << 20,
        initial_max_streams_bidi: 100,
        active_connection_id_limit: 4,
        initial_source_connection_id: Some(cid(8)),
        max_datagram_frame_size: 65_535,
        ..Default::default()
    };
    let server = TransportParameters {
        original_destination_connection_id: Some(cid(18)),
        stateless_reset_token: Some([1; 16]),
        max_udp_payload_size: 1472,
        initial_max_stream_data_bidi_remote: 1 << 20,
        initial_max_stream_data_uni: 1 << 20,
        initial_max_streams_uni: 100,
        ack_delay_exponent: 10,
        max_ack_delay: Duration::from_millis(100),
        disable_active_migration: true,
        preferred_address: Some(PreferredAddress {
            v4: Some(std::net::SocketAddrV4::new([192, 0, 2, 1].into(), 443)),
            v6: None,
            cid: cid(20),
            reset_token: [2; 16],
        }),
        retry_source_connection_id: Some(cid(0)),
        initial_max_path_id: Some(PathId(4)),
        advertise_addresses: true,
        ..client.clone()
    };
    let mut rng = Rng::from_u64(0);
    [
        (Side::Client, &client),
        (Side::Server, &client),
        (Side::Server, &server),
    ]
    .into_iter()
    .map(|(side, params)| {
        let mut out = vec![side as u8];
        params.encode(side, &mut out, &mut rng);
        out
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a run found: a client whose choice, in its list, is a version not known here.
    #[test]
    fn parameters_of_an_unknown_version_are_taken() {
        let mut input = vec![Side::Client as u8];
        let information = [[0x11, 8], [0xc; 2], [0xc; 2], [0xc; 2], [0xc; 2], [0xf, 0]];
        input.extend(information.concat());
        let decoded = TransportParameters::decode(Side::Client, &input[1..]);
        assert!(decoded.is_ok(), "{decoded:?}");
        run_parameters(&input);
    }
}
