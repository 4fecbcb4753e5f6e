//! Headers against the RFCs' examples, every limit of theirs, and every cut.

use super::*;
use crate::base::limits::MAX_CID_LEN;
use crate::wire::packet_number;

fn hex(s: &str) -> Vec<u8> {
    let digits: Vec<u8> = s
        .chars()
        .filter_map(|c| c.to_digit(16))
        .map(|d| d as u8)
        .collect();
    digits.chunks(2).map(|d| d[0] << 4 | d[1]).collect()
}

fn cid(bytes: &[u8]) -> ConnectionId {
    ConnectionId::new(bytes).unwrap()
}

/// A packet of `ty` with `payload` zero bytes after a two-byte packet number.
fn long_packet(ty: LongType, token: &[u8], payload: usize) -> Vec<u8> {
    long_packet_of(VERSION_1, ty, token, payload)
}

fn long_packet_of(version: u32, ty: LongType, token: &[u8], payload: usize) -> Vec<u8> {
    let mut buf = [0; 2048];
    let mut w = Writer::new(&mut buf);
    let at = write_long(
        &mut w,
        ty,
        version,
        &cid(&[1, 2, 3, 4]),
        &cid(&[5]),
        token,
        2,
    );
    assert_eq!(at.packet_number, long_size(ty, 4, 1, token.len()));
    packet_number::write(&mut w, 0x1234, 2);
    w.zeros(payload);
    let end = w.position();
    at.patch_length(&mut w, end);
    w.written().to_vec()
}

#[test]
fn the_rfcs_client_initial_header() {
    // RFC 9001 §A.2, unprotected: the packet number 2 in four bytes, 1,162 bytes of payload and
    // 16 of tag.
    let expected = hex("c300000001088394c8f03e5157080000449e00000002");
    let dcid = cid(&hex("8394c8f03e515708"));
    let mut buf = [0; 1200];
    let mut w = Writer::new(&mut buf);
    let at = write_long(
        &mut w,
        LongType::Initial,
        VERSION_1,
        &dcid,
        &ConnectionId::EMPTY,
        &[],
        4,
    );
    packet_number::write(&mut w, 2, 4);
    assert_eq!((at.start, at.packet_number), (0, 18));
    w.zeros(1162 + 16);
    let end = w.position();
    at.patch_length(&mut w, end);
    assert_eq!(&w.written()[..22], &expected[..]);
    assert_eq!(
        Header::parse(w.written(), 8),
        Ok(Header::Long {
            ty: LongType::Initial,
            version: VERSION_1,
            dcid,
            scid: ConnectionId::EMPTY,
            token: &[],
            pn_offset: 18,
            len: 1200,
        })
    );
}

#[test]
fn the_rfcs_retry_packet() {
    // RFC 9001 §A.4
    let packet = hex("ff000000010008f067a5502a4262b5746f6b656e04a265ba2eff4d829058fb3f0f2496ba");
    let scid = cid(&hex("f067a5502a4262b5"));
    let tag: [u8; 16] = hex("04a265ba2eff4d829058fb3f0f2496ba").try_into().unwrap();
    assert_eq!(
        Header::parse(&packet, 8),
        Ok(Header::Retry {
            version: VERSION_1,
            dcid: ConnectionId::EMPTY,
            scid,
            token: b"token",
            integrity_tag: tag,
        })
    );
    let mut buf = [0; 64];
    let mut w = Writer::new(&mut buf);
    write_retry(&mut w, VERSION_1, &ConnectionId::EMPTY, &scid, b"token");
    w.bytes(&tag);
    assert_eq!(w.written(), &packet[..]);
}

#[test]
fn a_retry_needs_a_token_and_a_tag() {
    let mut buf = [0; 64];
    let mut w = Writer::new(&mut buf);
    write_retry(&mut w, VERSION_1, &cid(&[1]), &cid(&[2]), &[]);
    w.zeros(RETRY_TAG_LEN);
    let end = w.position();
    assert_eq!(
        Header::parse(&buf[..end], 8),
        Err(HeaderError::NoRetryToken)
    );
    for cut in 0..end {
        assert_eq!(Header::parse(&buf[..cut], 8), Err(HeaderError::Truncated));
    }
}

#[test]
fn version_negotiation_carries_connection_ids_of_any_length() {
    for (dcid, scid) in [(0, 0), (8, 8), (20, 21), (255, 255), (0, 255)] {
        let (dcid, scid) = (vec![0xd; dcid], vec![0x5; scid]);
        let size = version_negotiation_size(dcid.len(), scid.len(), 2);
        let mut buf = vec![0; size];
        let mut w = Writer::new(&mut buf);
        write_version_negotiation(&mut w, 0xff, &dcid, &scid, &[VERSION_1, 0x0a1a_2a3a]);
        assert_eq!(w.remaining(), 0);
        let Ok(Header::VersionNegotiation {
            dcid: d,
            scid: s,
            versions,
        }) = Header::parse(&buf, 8)
        else {
            panic!("no Version Negotiation packet");
        };
        assert_eq!((d, s), (&dcid[..], &scid[..]));
        assert_eq!(
            versions.iter().collect::<Vec<_>>(),
            [VERSION_1, 0x0a1a_2a3a]
        );
        assert!(versions.contains(VERSION_1) && !versions.contains(VERSION_2));
        // The unused bits carry nothing: not even the fixed bit is needed.
        buf[0] = FORM_LONG;
        assert!(matches!(
            Header::parse(&buf, 8),
            Ok(Header::VersionNegotiation { .. })
        ));
        // RFC 8999 §6: a version in part, and none at all.
        for cut in [1, 3, 5, 8] {
            assert_eq!(
                Header::parse(&buf[..size - cut], 8),
                Err(HeaderError::VersionList)
            );
        }
    }
}

#[test]
fn other_versions_show_their_invariants_only() {
    for (dcid, scid) in [(0, 0), (20, 20), (21, 255), (255, 21)] {
        let (dcid, scid) = (vec![0xd; dcid], vec![0x5; scid]);
        for first in [FORM_LONG, 0xff] {
            let mut buf = [0; 600];
            let mut w = Writer::new(&mut buf);
            write_invariants(&mut w, first, 3, &dcid, &scid);
            assert_eq!(
                Header::parse(w.written(), 8),
                Ok(Header::UnknownVersion {
                    version: 3,
                    dcid: &dcid,
                    scid: &scid,
                })
            );
        }
    }
}

#[test]
fn version_1_refuses_connection_ids_of_21_to_255_bytes() {
    for len in MAX_CID_LEN + 1..=255 {
        for (dcid, scid) in [(len, 0), (0, len), (len, len)] {
            for first in [0xc0, 0xd0, 0xe0, 0xf0] {
                let mut buf = [0; 1200];
                let mut w = Writer::new(&mut buf);
                write_invariants(&mut w, first, VERSION_1, &vec![1; dcid], &vec![2; scid]);
                assert_eq!(
                    Header::parse(&buf, 8),
                    Err(HeaderError::ConnectionIdTooLong)
                );
            }
        }
    }
    for len in 0..=MAX_CID_LEN {
        let mut buf = [0; 1200];
        let mut w = Writer::new(&mut buf);
        write_invariants(&mut w, 0xe0, VERSION_1, &vec![1; len], &vec![2; len]);
        assert!(matches!(Header::parse(&buf, 8), Ok(Header::Long { .. })));
    }
}

#[test]
fn version_2_has_other_type_bits() {
    // RFC 9369 §3.2: Initial 1, 0-RTT 2, Handshake 3, Retry 0.
    for (ty, bits) in [
        (LongType::Initial, 0x10),
        (LongType::ZeroRtt, 0x20),
        (LongType::Handshake, 0x30),
    ] {
        let mut packet = long_packet_of(VERSION_2, ty, &[], 20);
        assert_eq!(packet[0] & LONG_TYPE_MASK, bits);
        let parsed = Header::parse(&packet, 8);
        assert!(
            matches!(parsed, Ok(Header::Long { ty: t, version: VERSION_2, .. }) if t == ty),
            "{parsed:?}"
        );
        packet[0] &= !FIXED_BIT;
        assert_eq!(Header::parse(&packet, 8), Err(HeaderError::FixedBit));
    }
    // RFC 9369 §A.4
    let packet = hex("cf6b3343cf0008f067a5502a4262b5746f6b656ec8646ce8bfe33952d955543665dcc7b6");
    let scid = cid(&hex("f067a5502a4262b5"));
    assert!(matches!(
        Header::parse(&packet, 8),
        Ok(Header::Retry { version: VERSION_2, token: b"token", scid: s, .. }) if s == scid
    ));
    let mut buf = [0; 64];
    let mut w = Writer::new(&mut buf);
    write_retry(&mut w, VERSION_2, &ConnectionId::EMPTY, &scid, b"token");
    assert_eq!(w.written(), &packet[..packet.len() - RETRY_TAG_LEN]);
}

/// RFC 9287 §3.
#[test]
fn a_greased_header_is_read_with_either_value_of_the_fixed_bit() {
    let mut packets = vec![vec![FIXED_BIT; 40]];
    for version in [VERSION_1, VERSION_2] {
        packets.extend(
            [LongType::Initial, LongType::ZeroRtt, LongType::Handshake]
                .map(|ty| long_packet_of(version, ty, &[], 20)),
        );
    }
    for mut packet in packets {
        let with = packet.clone();
        packet[0] &= !FIXED_BIT;
        let parsed = Header::parse_greased(&packet, 8);
        match (parsed, Header::parse(&with, 8)) {
            (Ok(Header::Short { pn_offset: a, .. }), Ok(Header::Short { pn_offset: b, .. })) => {
                assert_eq!(a, b);
            }
            (greased, plain) => assert!(greased.is_ok() && greased == plain, "{greased:?}"),
        }
        assert_eq!(Header::parse(&packet, 8), Err(HeaderError::FixedBit));
    }
}

#[test]
fn the_fixed_bit_is_required_of_version_1() {
    for ty in [LongType::Initial, LongType::ZeroRtt, LongType::Handshake] {
        let mut packet = long_packet(ty, &[], 20);
        packet[0] &= !FIXED_BIT;
        assert_eq!(Header::parse(&packet, 8), Err(HeaderError::FixedBit));
    }
    let mut retry = hex("ff000000010008f067a5502a4262b5746f6b656e04a265ba2eff4d829058fb3f0f2496ba");
    retry[0] &= !FIXED_BIT;
    assert_eq!(Header::parse(&retry, 8), Err(HeaderError::FixedBit));
    assert_eq!(Header::parse(&[0; 40], 8), Err(HeaderError::FixedBit));
}

#[test]
fn a_long_header_cut_at_any_byte_is_truncated() {
    for ty in [LongType::Initial, LongType::ZeroRtt, LongType::Handshake] {
        let packet = long_packet(ty, b"a token", 20);
        assert!(Header::parse(&packet, 8).is_ok());
        for cut in 0..packet.len() {
            assert_eq!(
                Header::parse(&packet[..cut], 8),
                Err(HeaderError::Truncated),
                "{ty:?} cut at {cut}"
            );
        }
    }
}

#[test]
fn coalesced_packets_are_read_one_after_the_other() {
    let initial = long_packet(LongType::Initial, b"a token", 100);
    let handshake = long_packet(LongType::Handshake, &[], 50);
    let mut datagram = initial.clone();
    datagram.extend_from_slice(&handshake);
    let mut buf = [0; 64];
    let mut w = Writer::new(&mut buf);
    let pn = write_short(&mut w, &cid(&[1, 2, 3, 4]), true, true, 3);
    assert_eq!(
        (pn, w.written()[0]),
        (short_size(4), 0x40 | 0x20 | 0x04 | 2)
    );
    w.zeros(30);
    datagram.extend_from_slice(w.written());

    let Ok(Header::Long {
        ty: LongType::Initial,
        token: b"a token",
        len,
        ..
    }) = Header::parse(&datagram, 4)
    else {
        panic!("no Initial");
    };
    assert_eq!(len, initial.len());
    let Ok(Header::Long {
        ty: LongType::Handshake,
        token: &[],
        len,
        ..
    }) = Header::parse(&datagram[len..], 4)
    else {
        panic!("no Handshake");
    };
    assert_eq!(len, handshake.len());
    assert_eq!(
        Header::parse(&datagram[initial.len() + len..], 4),
        Ok(Header::Short {
            dcid: cid(&[1, 2, 3, 4]),
            pn_offset: 5,
        })
    );
}

#[test]
fn short_headers_of_every_connection_id_length() {
    let packet = [0x5f; 40];
    for len in 0..=MAX_CID_LEN {
        let Ok(Header::Short { dcid, pn_offset }) = Header::parse(&packet, len) else {
            panic!("no short header");
        };
        assert_eq!((dcid.len(), pn_offset), (len, 1 + len));
        for cut in 0..=len {
            assert_eq!(
                Header::parse(&packet[..cut], len),
                Err(HeaderError::Truncated)
            );
        }
    }
}

#[test]
fn routing_reads_the_destination_whatever_the_version() {
    let short = [0x40, 1, 2, 3, 4, 5];
    assert_eq!(dcid(&short, 4), Some(&[1, 2, 3, 4][..]));
    assert_eq!(dcid(&short, 5), Some(&[1, 2, 3, 4, 5][..]));
    assert_eq!(dcid(&short, 6), None);
    assert_eq!(dcid(&[], 0), None);
    for (version, len) in [(0, 0), (VERSION_1, 8), (VERSION_2, 20), (7, 255)] {
        let bytes = vec![0xd; len];
        let mut buf = [0; 600];
        let mut w = Writer::new(&mut buf);
        write_invariants(&mut w, FORM_LONG, version, &bytes, &[1]);
        assert_eq!(dcid(w.written(), 8), Some(&bytes[..]));
        for cut in 0..6 + len {
            assert_eq!(dcid(&buf[..cut], 8), None);
        }
    }
}
