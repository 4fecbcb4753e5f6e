//! Handshakes that somebody meddles with: forged packets at every step, frames in every state,
//! messages at the wrong level, packets in any order while keys come and go.

use crate::common::attack::{Attack, Plan};
use crate::common::certs::Identity;
use crate::common::pair::{CLIENT, Pair, Passing, SERVER, Setup};
use crate::common::raw_peer::{RawPeer, ack_frame, crypto_frame, payload};
use crate::parser::{cid, one_of_each};
use corelane::base::Rng;
use corelane::conn::{Endpoint, EndpointConfig, Event};
use corelane::crypto::initial_keys;
use corelane::wire::header::{self, LongType, VERSION_1};
use corelane::wire::{Code, ConnectionId, PacketType, Side};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// What somebody on the path knows: the connection IDs that went by in the clear.
#[derive(Clone, Debug, Default)]
struct Seen {
    odcid: Option<ConnectionId>,
    client: Option<ConnectionId>,
    server: Option<ConnectionId>,
}

impl Seen {
    fn note(&mut self, p: &Passing) {
        let Ok(header::Header::Long { dcid, scid, .. }) = header::Header::parse(&p.bytes, 8) else {
            return;
        };
        if p.from == CLIENT {
            self.odcid.get_or_insert(dcid);
            self.client.get_or_insert(scid);
        } else {
            self.server.get_or_insert(scid);
        }
    }

    /// Packets for `to` as somebody who saw these IDs can make them. Initial keys are anyone's
    /// (RFC 9001 §5.2), so Initial packets with any frame but the connection's end can be forged
    /// in earnest; the others cannot be sealed.
    fn forgeries(&self, to: usize) -> Vec<Vec<u8>> {
        let other = cid(0xee);
        let odcid = self.odcid.unwrap_or(other);
        let (dcid, scid) = match to {
            CLIENT => (self.client.unwrap_or(other), self.server.unwrap_or(other)),
            _ => (self.server.unwrap_or(odcid), self.client.unwrap_or(other)),
        };
        let mut out = Vec::new();
        // A Version Negotiation that answers nothing, and one that lists the version in use.
        for (id, version) in [(other, 0x1a2a_3a4a), (odcid, VERSION_1)] {
            out.push(payload(|w| {
                let versions = [version];
                let (to, from) = (dcid.as_slice(), id.as_slice());
                header::write_version_negotiation(w, 0, to, from, &versions);
            }));
        }
        // A Retry with a tag over another connection ID.
        let mut retry = payload(|w| header::write_retry(w, VERSION_1, &dcid, &other, b"token"));
        let tag = corelane::crypto::retry::integrity_tag(
            corelane::wire::Version::V1,
            other.as_slice(),
            &retry,
        );
        retry.extend(tag.expect("a tag"));
        out.push(retry);
        // Initial packets under keys of another destination, and of another source.
        let close = [0x1c, 0, 0, 0];
        let keys = initial_keys(VERSION_1, other.as_slice(), side_of(1 - to));
        let mut peer = RawPeer::server(scid);
        (peer.dcid, peer.side) = (dcid, side_of(1 - to));
        peer.spaces[0].keys = keys;
        out.push(peer.padded_initial(&close, 1200));
        // Handshake and short packets of noise.
        let mut handshake = payload(|w| {
            let ty = LongType::Handshake;
            let o = header::write_long(w, ty, VERSION_1, &dcid, &scid, &[], 4);
            w.bytes(&[0x5a; 100]);
            let end = w.position();
            o.patch_length(w, end);
        });
        handshake.extend([0x40; 60]);
        out.push(handshake);
        let mut short = vec![0x41];
        short.extend(dcid.as_slice());
        short.extend([0xa5; 60]);
        out.push(short);
        out
    }
}

fn side_of(which: usize) -> Side {
    if which == CLIENT {
        Side::Client
    } else {
        Side::Server
    }
}

/// RFC 9000 §21.1, §21.2: packets forged at every step of the handshake, to either side, before the
/// true ones. The handshake completes, and nothing closes a connection that is confirmed.
#[test]
fn rfc9000_21_2_forged_packets_at_every_step_of_the_handshake() {
    for retry in [false, true] {
        let seen = Rc::new(RefCell::new(Seen::default()));
        let mut pair = Pair::new(Setup::default());
        pair.sides[SERVER].app.prove = retry;
        let knows = seen.clone();
        pair.filter = Box::new(move |p| {
            knows.borrow_mut().note(&p);
            let known = knows.borrow().clone();
            let mut out = Vec::new();
            for to in [CLIENT, SERVER] {
                let ports = [(CLIENT, 1000), (SERVER, 2000)];
                for bytes in known.forgeries(to) {
                    out.push(Passing {
                        from: 1 - to,
                        source: SocketAddr::from(([127, 0, 0, 1], ports[1 - to].1)),
                        to: p.to,
                        ecn: p.ecn,
                        bytes,
                        now: p.now,
                    });
                }
            }
            out.push(p);
            out
        });
        let client = pair.connect();
        pair.run(3 * SECOND);
        for side in [CLIENT, SERVER] {
            assert_eq!(pair.closed(side), None, "retry {retry}");
            assert!(pair.saw(side, &Event::Connected), "retry {retry}");
        }
        assert!(pair.saw(CLIENT, &Event::HandshakeConfirmed));
        assert!(pair.conn(CLIENT, client).stats().packets_received > 0);
    }
}

/// Table 3 of RFC 9000 §12.4, and §19 for who sends what: written down a second time.
fn is_admitted(ty: u64, packet: PacketType, sender: Side) -> bool {
    let role = sender == Side::Server || !matches!(ty, 0x07 | 0x1e);
    role && match packet {
        PacketType::Initial | PacketType::Handshake => {
            matches!(ty, 0x00..=0x03 | 0x06 | 0x1c)
        }
        PacketType::ZeroRtt => !matches!(ty, 0x02 | 0x03 | 0x06 | 0x07 | 0x19 | 0x1b | 0x1e),
        PacketType::OneRtt => true,
    }
}

/// Where a connection may be when a frame comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The endpoint has Handshake keys and waits for the peer's flight.
    Handshaking,
    Established,
    Closing,
    Draining,
}

fn endpoint_at(stage: Stage, server: bool) -> Attack {
    let mut a = if stage == Stage::Handshaking && server {
        let mut a = Attack::on_server(Plan::default());
        let hello = a.peer.flight().remove(0);
        a.send(&hello);
        a
    } else if stage == Stage::Handshaking {
        let mut a = Attack::on_client(Plan::default());
        a.start_server(|_| {});
        let hello = a.peer.spaces[0].crypto_out.clone();
        a.peer.spaces[0].crypto_sent = hello.len();
        let d = a.peer.padded_initial(&crypto_frame(0, &hello), 1200);
        a.send(&d);
        a
    } else if server {
        Attack::server()
    } else {
        Attack::client()
    };
    let now = a.now;
    match stage {
        Stage::Closing => a.connection().close(now, 1, b"mine"),
        Stage::Draining => a.one_rtt(&[0x1d, 0, 0]),
        _ => {}
    }
    a.collect();
    a.inbox.clear();
    a
}

/// CVE-2025-59530 and all of its kind: every frame, in every packet, in every state, to both roles.
#[test]
fn cve_2025_59530_every_frame_in_every_state_from_either_side() {
    let stages = [
        Stage::Handshaking,
        Stage::Established,
        Stage::Closing,
        Stage::Draining,
    ];
    let packets = [
        PacketType::Initial,
        PacketType::Handshake,
        PacketType::OneRtt,
    ];
    for stage in stages {
        for server in [true, false] {
            for frames in one_of_each() {
                for packet in packets {
                    frame_at(stage, server, packet, &frames);
                }
            }
        }
    }
}

fn frame_at(stage: Stage, server: bool, packet: PacketType, frames: &[u8]) {
    let mut a = endpoint_at(stage, server);
    let before = a.closed();
    let what = format!("{frames:02x?} in {packet:?}, {stage:?}, server {server}");
    if packet == PacketType::OneRtt && a.peer.one_rtt.is_none() {
        return; // a client has no keys for it yet: nothing that it could say
    }
    let datagram = match packet {
        PacketType::Initial => a.peer.padded_initial(frames, 1200),
        _ => a.peer.packet(packet, frames),
    };
    a.send(&datagram);
    a.run(Duration::from_millis(10));
    let ty = u64::from(frames[0]);
    let admitted = is_admitted(ty, packet, a.peer.side);
    match stage {
        Stage::Closing | Stage::Draining => assert_eq!(a.closed(), before, "{what}"),
        // RFC 9001 §4.9: the keys of the handshake are gone.
        Stage::Established if packet != PacketType::OneRtt => a.expect_alive(),
        // RFC 9001 §5.7: no 1-RTT packet counts before the handshake is complete.
        Stage::Handshaking if packet == PacketType::OneRtt => {
            assert_eq!(a.closed(), None, "{what}")
        }
        _ if !admitted => a.expect_error(Code::PROTOCOL_VIOLATION, &what),
        _ if matches!(ty, 0x1c | 0x1d) => assert!(a.closed().is_some() && a.blamed().is_none()),
        // An acknowledgement of what was not sent yet is one of the violations (§13.1).
        _ if matches!(ty, 0x02 | 0x03) => {}
        _ => assert_ne!(a.blamed(), Some(Code::PROTOCOL_VIOLATION), "{what}"),
    }
    a.run(30 * SECOND);
}

/// CVE-2023-46239: a handshake's packets in any order, doubled, with timers and keys in between.
#[test]
fn cve_2023_46239_packets_in_any_order_while_keys_come_and_go() {
    for seed in 0..120 {
        let mut rng = Rng::from_u64(seed);
        let server = seed % 2 == 0;
        let mut a = if server {
            Attack::on_server(Plan::default())
        } else {
            let mut a = Attack::on_client(Plan::default());
            a.start_server(|_| {});
            a
        };
        let mut waiting: Vec<Vec<u8>> = Vec::new();
        for _ in 0..60 {
            match rng.below(8) {
                0 => a.run(Duration::from_millis(rng.below(400))),
                1 => {
                    // Acknowledgements of nothing, in whatever space has keys.
                    for ty in [PacketType::Initial, PacketType::Handshake] {
                        let i = crate::common::raw_peer::index(ty);
                        let ranges = a.peer.spaces[i].ranges();
                        if a.peer.spaces[i].keys.is_some() && !ranges.is_empty() {
                            let ack = ack_frame(&ranges[..1]);
                            waiting.push(match ty {
                                PacketType::Initial => a.peer.padded_initial(&ack, 1200),
                                _ => a.peer.packet(ty, &ack),
                            });
                        }
                    }
                }
                2 | 3 => waiting.extend(a.peer.flight()),
                _ if waiting.is_empty() => waiting.extend(a.peer.flight()),
                n => {
                    let at = rng.below(waiting.len() as u64) as usize;
                    let d = waiting[at].clone();
                    if n != 4 {
                        waiting.swap_remove(at);
                    }
                    a.send(&d);
                }
            }
        }
        for d in waiting {
            a.send(&d);
        }
        a.handshake();
        if !server {
            a.one_rtt(&[0x1e]);
        }
        a.expect_alive();
    }
}

/// CVE-2026-44435: a ClientHello of more than 32 KB is a handshake like any other.
#[test]
fn cve_2026_44435_a_large_client_hello() {
    let identity = Identity::generate();
    let mut names: Vec<Vec<u8>> = (0..160u8).map(|n| vec![n; 240]).collect();
    names.push(b"last".to_vec());
    let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
    let mut pair = Pair::new(Setup::default());
    let mut config = EndpointConfig::new([7; 32]);
    config.server = Some(Arc::new(identity.server_config(&[b"last"])));
    pair.sides[SERVER].endpoint = Endpoint::new(config).expect("a valid configuration");
    pair.tls = Arc::new(identity.client_config(&names));
    let client = pair.connect();
    pair.run(5 * SECOND);
    assert!(
        pair.saw(CLIENT, &Event::HandshakeConfirmed),
        "{:?}",
        pair.closed(CLIENT)
    );
    assert_eq!(pair.conn(CLIENT, client).alpn(), Some(&b"last"[..]));
    assert!(pair.sent[CLIENT] > 38_000);
}

/// The same that never ends: what is announced is not allocated, and TLS refuses it.
#[test]
fn cve_2026_44435_a_client_hello_of_sixteen_megabytes() {
    let mut a = Attack::on_server(Plan::default());
    let mut data = vec![0; 1000];
    data[..4].copy_from_slice(&[1, 0xff, 0xff, 0xff]);
    for n in 0..200u64 {
        let d = a.peer.padded_initial(&crypto_frame(1000 * n, &data), 1200);
        a.send(&d);
        data.fill(0);
        if a.closed().is_some() {
            break;
        }
    }
    let code = a.blamed().expect("an error");
    assert!(
        code.alert().is_some() || code == Code::CRYPTO_BUFFER_EXCEEDED,
        "{code:?}"
    );
}

/// A TLS handshake message of this type with a plausible length.
fn message(ty: u8, len: usize) -> Vec<u8> {
    let mut out = vec![ty, 0, 0, len as u8];
    out.extend(vec![0; len]);
    out
}

/// CVE-2025-61730, RFC 9001 §4.1.3, §6: every handshake message at every level, to both roles. None
/// of them is due where it comes, and each ends the connection with a code of TLS or a violation.
#[test]
fn cve_2025_61730_every_message_at_every_level() {
    let messages = [0u8, 1, 2, 4, 5, 8, 11, 13, 15, 20, 24, 25, 67, 254, 255];
    let levels = [
        PacketType::Initial,
        PacketType::Handshake,
        PacketType::OneRtt,
    ];
    for server in [true, false] {
        for level in levels {
            for ty in messages {
                let stage = match level {
                    PacketType::OneRtt => Stage::Established,
                    _ => Stage::Handshaking,
                };
                let mut a = endpoint_at(stage, server);
                let space = crate::common::raw_peer::index(level);
                let at = a.peer.spaces[space].crypto_sent as u64;
                // A client takes tickets after the handshake, and a server's EncryptedExtensions
                // first; a message of zeros is neither.
                let frame = crypto_frame(at, &message(ty, 60));
                let d = match level {
                    PacketType::Initial => a.peer.padded_initial(&frame, 1200),
                    _ => a.peer.packet(level, &frame),
                };
                a.send(&d);
                let what = format!(
                    "message {ty} at {level:?}, server {server}: {:?}",
                    a.closed()
                );
                let code = a.blamed().unwrap_or_else(|| panic!("{what}"));
                let named = code.alert().is_some() || code == Code::PROTOCOL_VIOLATION;
                assert!(named, "{what}");
            }
        }
    }
}
