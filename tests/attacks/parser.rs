//! Bytes that parsers elsewhere fell over: types, lengths, truncation, numbers at the edge.

use crate::common::attack::{Attack, Plan};
use crate::common::raw_peer::{RawPeer, ack_frame, crypto_frame, payload, stream_frame};
use corelane::base::Rng;
use corelane::crypto::Session;
use corelane::wire::frame::{self, Frame, NewConnectionId};
use corelane::wire::header::{self, VERSION_1};
use corelane::wire::{
    Code, ConnectionId, Dir, PacketType, Reader, Side, TransportParameters, Writer, varint,
};
use rustls::pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;

pub fn cid(byte: u8) -> ConnectionId {
    ConnectionId::new(&[byte; 8]).expect("8 bytes")
}

fn bytes(write: &dyn Fn(&mut Writer<'_>)) -> Vec<u8> {
    payload(|w| write(w))
}

/// One frame of every type of RFC 9000 and RFC 9221, valid in itself.
pub fn one_of_each() -> Vec<Vec<u8>> {
    let new_cid = NewConnectionId {
        seq: 1,
        retire_prior_to: 0,
        cid: cid(9),
        reset_token: [1; 16],
    };
    vec![
        vec![0],
        vec![1],
        ack_frame(&[0..=0]),
        vec![3, 0, 0, 0, 0, 0, 0, 0],
        bytes(&|w| frame::write_reset_stream(w, 0, 1, 0)),
        bytes(&|w| frame::write_stop_sending(w, 1, 1)),
        crypto_frame(1000, b"later"),
        bytes(&|w| frame::write_new_token(w, b"token")),
        stream_frame(0, 0, b"x", false),
        bytes(&|w| frame::write_max_data(w, 5)),
        bytes(&|w| frame::write_max_stream_data(w, 1, 5)),
        bytes(&|w| frame::write_max_streams(w, Dir::Bi, 5)),
        bytes(&|w| frame::write_max_streams(w, Dir::Uni, 5)),
        bytes(&|w| frame::write_data_blocked(w, 5)),
        bytes(&|w| frame::write_stream_data_blocked(w, 0, 5)),
        bytes(&|w| frame::write_streams_blocked(w, Dir::Bi, 5)),
        bytes(&|w| frame::write_streams_blocked(w, Dir::Uni, 5)),
        bytes(&|w| frame::write_new_connection_id(w, &new_cid)),
        bytes(&|w| frame::write_retire_connection_id(w, 1)),
        bytes(&|w| frame::write_path_challenge(w, &[1; 8])),
        bytes(&|w| frame::write_path_response(w, &[1; 8])),
        vec![0x1c, 0, 0, 0],
        vec![0x1d, 0, 0],
        vec![0x1e],
        vec![0x31, 1, 7],
    ]
}

/// Types that no extension spoken here uses: below them are RFC 9000's and those that are.
fn unknown_type(rng: &mut Rng) -> u64 {
    const TAKEN: [u64; 4] = [0xaf, 0x2ab5, 0x3e75, 0x15_228c];
    loop {
        let ty = rng.next_u64() >> (2 + rng.below(56));
        if ty >= 0x40 && !TAKEN.iter().any(|t| t & !0xf == ty & !0xf) {
            return ty;
        }
    }
}

/// CVE-2023-42805: a frame type that nobody knows is FRAME_ENCODING_ERROR, whatever its size.
#[test]
fn cve_2023_42805_unknown_frame_types() {
    let mut rng = Rng::from_u64(42_805);
    for _ in 0..300 {
        let ty = unknown_type(&mut rng);
        let mut a = Attack::server();
        a.one_rtt(&payload(|w| {
            w.varint(ty);
            w.zeros(20);
        }));
        a.expect_error(Code::FRAME_ENCODING_ERROR, &format!("type {ty:#x}"));
    }
}

/// A server endpoint after a ClientHello with these bytes for transport parameters.
fn server_with_parameters(encoded: Vec<u8>) -> Attack {
    let mut a = Attack::on_server(Plan::default());
    a.new_client_with(cid(3), cid(4), encoded);
    for d in a.peer.flight() {
        a.send(&d);
    }
    a
}

/// A client endpoint after a server's flight with these bytes for transport parameters.
fn client_with_parameters(change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Attack {
    let mut a = Attack::on_client(Plan::default());
    let first = a.inbox.first().expect("an Initial").dcid;
    let params = TransportParameters {
        original_destination_connection_id: Some(first),
        initial_source_connection_id: Some(a.peer.scid),
        ..crate::common::attack::params()
    };
    let mut encoded = Vec::new();
    params.encode(Side::Server, &mut encoded, &mut Rng::from_u64(3));
    let tls = Arc::new(a.identity.server_config(&[]));
    let session = Session::server(tls, change(encoded)).expect("a session");
    a.peer.session = Some(session);
    a.peer.spaces[0].forget_received();
    let hello = a.datagrams[0].1.clone();
    a.peer.receive(&hello);
    for _ in 0..3 {
        for d in a.peer.flight() {
            a.send(&d);
        }
    }
    a
}

fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..=rng.below(4) {
        let at = rng.below(bytes.len().max(1) as u64) as usize;
        match rng.below(4) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at.min(bytes.len()), rng.next_u64() as u8),
            _ if at < bytes.len() => bytes[at] = rng.next_u64() as u8,
            _ => {}
        }
    }
}

/// CVE-2026-31812: transport parameters of any bytes end in an error or a handshake.
#[test]
fn cve_2026_31812_transport_parameters_of_any_bytes() {
    let valid = TransportParameters {
        initial_source_connection_id: Some(cid(3)),
        ..crate::common::attack::params()
    };
    let allowed = |code: Option<Code>| {
        code.is_none_or(|c| {
            c == Code::TRANSPORT_PARAMETER_ERROR || c == Code(0x11) || c.alert().is_some()
        })
    };
    let mut refused = 0;
    for seed in 0..200 {
        let mut rng = Rng::from_u64(seed);
        let mut encoded = Vec::new();
        valid.encode(Side::Client, &mut encoded, &mut rng);
        mutate(&mut rng, &mut encoded);
        let a = server_with_parameters(encoded);
        assert!(allowed(a.blamed()), "{seed}: {:?}", a.closed());
        refused += u32::from(a.blamed().is_some());
        let a = client_with_parameters(|mut encoded| {
            mutate(&mut rng, &mut encoded);
            encoded
        });
        assert!(allowed(a.blamed()), "{seed}: {:?}", a.closed());
        refused += u32::from(a.blamed().is_some());
    }
    assert!(refused > 100, "most of them cannot be read: {refused}");
}

/// neqo GHSA-56c6 and its kin: NEW_TOKEN is for clients.
#[test]
fn neqo_new_token_at_a_server() {
    let mut a = Attack::server();
    a.one_rtt(&payload(|w| frame::write_new_token(w, b"token")));
    a.expect_error(Code::PROTOCOL_VIOLATION, "NEW_TOKEN at a server");
}

/// neqo GHSA-95mj: tokens of every short length are no proof and no panic.
#[test]
fn neqo_short_tokens() {
    for len in 1..80usize {
        let mut a = Attack::on_server(Plan::default());
        for fill in [0u8, 1, 0xff] {
            a.new_client(len as u64 * 1000 + u64::from(fill));
            a.peer.token = vec![fill; len];
            let d = a.peer.flight().remove(0);
            a.send(&d);
        }
        assert!(a.app.incoming.iter().all(|validated| !validated), "{len}");
    }
}

/// neqo GHSA-hvhj: a Retry shorter than its integrity tag, at every length.
#[test]
fn neqo_a_retry_shorter_than_its_tag() {
    let mut a = Attack::on_client(Plan::default());
    let scid = a.inbox[0].scid;
    let whole = payload(|w| {
        header::write_retry(w, VERSION_1, &scid, &cid(5), b"");
        w.zeros(40);
    });
    for len in 0..whole.len() {
        a.send(&whole[..len]);
    }
    assert!(a.inbox.len() == 1 && a.closed().is_none());
    a.start_server(|_| {});
    a.handshake();
}

/// neqo GHSA-jfv6: limits at the edge of what a varint holds.
#[test]
fn neqo_limits_at_the_edge_of_a_varint() {
    let top = varint::MAX;
    let mut a = Attack::server();
    let id = a.connection().streams_mut().open(Dir::Bi).expect("open").0;
    a.one_rtt(&bytes(&|w| {
        frame::write_max_data(w, top);
        frame::write_max_stream_data(w, id, top);
        frame::write_data_blocked(w, top);
        frame::write_max_streams(w, Dir::Bi, 1 << 60);
        frame::write_streams_blocked(w, Dir::Uni, 1 << 60);
    }));
    let streams = a.connection().streams_mut();
    let id = streams.open(Dir::Bi).expect("many streams");
    assert_eq!(streams.write(id, b"x"), Ok(1));
    a.expect_alive();
    for write in [frame::write_max_streams, frame::write_streams_blocked] {
        let mut a = Attack::server();
        a.one_rtt(&bytes(&|w| write(w, Dir::Uni, (1 << 60) + 1)));
        a.expect_error(Code::FRAME_ENCODING_ERROR, "more than 2^60 streams");
    }
}

/// neqo GHSA-mfv9: STOP_SENDING and STREAM for one stream, in one packet and in either order.
#[test]
fn neqo_stop_sending_beside_stream() {
    let stop = bytes(&|w| frame::write_stop_sending(w, 0, 7));
    let data = stream_frame(0, 0, b"x", true);
    for order in [[&stop, &data], [&data, &stop]] {
        let mut a = Attack::server();
        a.one_rtt(&order.map(Vec::as_slice).concat());
        a.one_rtt(&stop);
        let resets = a.inbox.iter().flat_map(|p| p.frames());
        let resets =
            resets.filter(|f| matches!(f, Frame::ResetStream(r) if r.id == 0 && r.code == 7));
        assert_eq!(resets.count(), 1);
        assert_eq!(a.app.finished.len(), 1);
        a.expect_alive();
    }
}

/// CVE-2026-26080, CVE-2020-24944: a parser takes at least a byte a step, whatever is cut off.
#[test]
fn cve_2026_26080_every_step_of_a_parser_advances() {
    let all = one_of_each().concat();
    let mut inputs: Vec<Vec<u8>> = (0..all.len()).map(|n| all[..n].to_vec()).collect();
    inputs.extend((0..all.len()).map(|n| all[n..].to_vec()));
    let mut rng = Rng::from_u64(26_080);
    for _ in 0..20_000 {
        let mut junk = vec![0; rng.below(64) as usize];
        rng.fill(&mut junk);
        inputs.push(junk);
    }
    for input in &inputs {
        let mut r = Reader::new(input);
        let mut steps = 0;
        while !r.is_empty() && Frame::parse(&mut r).is_ok() {
            steps += 1;
            assert!(steps <= input.len(), "{input:02x?}");
        }
    }
}

/// CVE-2026-26081: each kind of packet cut at every byte, to a server and to a client, before and
/// after the handshake.
#[test]
fn cve_2026_26081_every_packet_cut_at_every_byte() {
    for established in [false, true] {
        for server in [true, false] {
            let mut a = match (server, established) {
                (true, true) => Attack::server(),
                (false, true) => Attack::client(),
                (true, false) => Attack::on_server(Plan::default()),
                (false, false) => {
                    let mut a = Attack::on_client(Plan::default());
                    a.start_server(|_| {});
                    a
                }
            };
            let mut packets = vec![retry(&a), version_negotiation(&a)];
            packets.push(a.peer.padded_initial(&[1], 1200));
            if established {
                let frames = one_of_each()[..4].concat();
                packets.push(a.peer.packet(PacketType::Handshake, &frames));
                packets.push(a.peer.packet(PacketType::OneRtt, &frames));
            }
            let before = a.sent_to_endpoint;
            for p in &packets {
                for cut in 0..p.len() {
                    a.send(&p[..cut]);
                    let mut padded = p[..cut].to_vec();
                    padded.resize(1200, 0);
                    a.send(&padded);
                }
            }
            assert!(a.sent_to_endpoint > before);
            assert_eq!(a.closed(), None, "server {server}, {established}");
            if established {
                a.expect_alive();
            } else {
                a.handshake();
            }
        }
    }
}

fn retry(a: &Attack) -> Vec<u8> {
    let mut out = payload(|w| {
        header::write_retry(w, VERSION_1, &a.peer.dcid, &a.peer.scid, b"a token");
    });
    let tag = corelane::crypto::retry::integrity_tag(corelane::wire::Version::V1, &[1; 8], &out);
    out.extend(tag.expect("a tag"));
    out
}

fn version_negotiation(a: &Attack) -> Vec<u8> {
    let (to, from) = (a.peer.dcid, a.peer.scid);
    payload(|w| {
        header::write_version_negotiation(w, 0, to.as_slice(), from.as_slice(), &[0x1a2a_3a4a]);
    })
}

/// CVE-2026-44436: connection IDs of every length that version 1 does not have, either one.
#[test]
fn cve_2026_44436_connection_ids_of_impossible_length() {
    let packet = |first: u8, dcid: usize, scid: usize| {
        let mut out = payload(|w| {
            w.u8(first);
            w.u32(VERSION_1);
            w.u8(dcid as u8);
            w.bytes(&vec![1; dcid]);
            w.u8(scid as u8);
            w.bytes(&vec![2; scid]);
            w.varint(0);
            w.varint(600);
        });
        out.resize(1300, 7);
        out
    };
    let mut server = Attack::on_server(Plan::default());
    let mut client = Attack::on_client(Plan::default());
    for first in [0xc3, 0xd3, 0xe3, 0xf0] {
        for len in 21..=255 {
            for (dcid, scid) in [(len, 8), (8, len), (len, len)] {
                for a in [&mut server, &mut client] {
                    a.send(&packet(first, dcid, scid));
                }
            }
        }
    }
    assert_eq!((server.endpoint.len(), server.datagrams.len()), (0, 0));
    assert_eq!(client.closed(), None);
}

/// CVE-2026-32179: acknowledged ranges that pass below zero, wherever in the frame.
#[test]
fn cve_2026_32179_ack_ranges_below_zero() {
    let ack = |largest: u64, first: u64, ranges: &[(u64, u64)]| {
        bytes(&|w| {
            w.u8(2);
            w.varint(largest);
            w.varint(0);
            w.varint(ranges.len() as u64);
            w.varint(first);
            for (gap, len) in ranges {
                w.varint(*gap);
                w.varint(*len);
            }
        })
    };
    let top = varint::MAX;
    for frame in [
        ack(0, 1, &[]),
        ack(5, 6, &[]),
        ack(0, top, &[]),
        ack(5, 1, &[(3, 0)]),
        ack(5, 1, &[(2, 1)]),
        ack(5, 0, &[(0, 0), (top, 0)]),
        ack(5, 0, &[(0, top)]),
        ack(5, 5, &[(0, 0)]),
    ] {
        let mut a = Attack::server();
        a.one_rtt(&frame);
        a.expect_error(Code::FRAME_ENCODING_ERROR, &format!("{frame:02x?}"));
    }
}

/// CVE-2025-4432: header protection samples of all ones, with the cipher whose counter they are.
#[test]
fn cve_2025_4432_header_protection_samples_of_all_ones() {
    let mut a = Attack::on_server(Plan::default());
    let mut tls = a.identity.client_config(&[]);
    let mut provider = rustls::crypto::ring::default_provider();
    // AES-128-GCM stays for Initial packets.
    provider
        .cipher_suites
        .retain(|s| !matches!(s.suite(), rustls::CipherSuite::TLS13_AES_256_GCM_SHA384));
    provider
        .cipher_suites
        .sort_by_key(|s| s.suite() != rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
    tls = client_with_provider(&a, provider, tls);
    start_client(&mut a, tls);
    a.handshake();
    let suite = a.connection().session().cipher_suite();
    assert_eq!(
        suite,
        Some(rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256)
    );
    let to = a.peer.dcid;
    for fill in [0xffu8, 0xfe, 0, 0x7f, 0x80] {
        for len in 21..80 {
            let mut junk = vec![fill; len];
            junk[0] = 0x40;
            junk[1..9].copy_from_slice(to.as_slice());
            a.send(&junk);
        }
    }
    a.expect_alive();
}

fn client_with_provider(
    a: &Attack,
    provider: rustls::crypto::CryptoProvider,
    like: rustls::ClientConfig,
) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(a.identity.ca.clone()).expect("a certificate");
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = like.alpn_protocols;
    config
}

/// Makes the scripted peer a client with this TLS configuration.
pub fn start_client(a: &mut Attack, tls: rustls::ClientConfig) {
    let params = TransportParameters {
        initial_source_connection_id: Some(cid(3)),
        ..crate::common::attack::params()
    };
    let mut encoded = Vec::new();
    params.encode(Side::Client, &mut encoded, &mut Rng::from_u64(1));
    let name = ServerName::try_from("localhost").expect("a name");
    let session = Session::client(Arc::new(tls), name, encoded).expect("a session");
    a.peer = RawPeer::client(session, cid(3), cid(4));
    a.conn = None;
}

/// What a fuzzer found in others (mvfst, xquic, Chromium): sealed junk, so that it is looked at.
#[test]
fn sealed_junk_of_any_kind_ends_in_an_error_of_the_rfcs() {
    for seed in 0..400 {
        let mut rng = Rng::from_u64(seed);
        let mut a = if seed % 2 == 0 {
            Attack::server()
        } else {
            Attack::client()
        };
        let mut all = one_of_each();
        for _ in 0..20 {
            let n = rng.below(all.len() as u64) as usize;
            let mut frames = all[n].clone();
            if rng.below(2) == 0 {
                frames.extend(all[rng.below(all.len() as u64) as usize].clone());
            }
            mutate(&mut rng, &mut frames);
            a.one_rtt(&frames);
            a.run(Duration::from_millis(rng.below(50)));
            if a.closed().is_some() {
                break;
            }
        }
        all.clear();
        if let Some(code) = a.blamed() {
            assert!(code.0 < 0x200, "seed {seed}: {code:?}");
        }
        a.run(Duration::from_secs(60));
    }
}
