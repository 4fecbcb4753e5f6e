//! What a peer makes us remember, in bytes: each attack may cost its stated bound and no more.

use crate::common::attack::{Attack, Plan};
use crate::common::counting::live;
use crate::common::raw_peer::{crypto_frame, payload, stream_frame};
use crate::parser::cid;
use corelane::base::limits;
use corelane::conn::Decision;
use corelane::wire::header::{self, LongType, VERSION_1};
use corelane::wire::{Code, PacketType};
use std::time::Duration;

/// How many bytes more this thread holds after `attack`; what the scripted peer keeps for itself is
/// dropped on both sides of it.
pub fn growth(a: &mut Attack, attack: impl FnOnce(&mut Attack)) -> isize {
    forget(a);
    let before = live();
    attack(a);
    forget(a);
    live() - before
}

fn forget(a: &mut Attack) {
    a.inbox = Vec::new();
    a.datagrams = Vec::new();
    a.events = Vec::new();
    a.app.incoming = Vec::new();
    a.peer.undecryptable = Vec::new();
}

/// CVE-2025-54939 (QUIC-LEAK): ten coalesced packets for somebody else behind each datagram, before
/// the handshake is done; a million of them.
#[test]
fn cve_2025_54939_coalesced_packets_for_others_before_the_handshake() {
    let mut a = Attack::on_server(Plan::default());
    let hello = a.peer.flight().remove(0);
    a.send(&hello);
    let (mine, addr) = (a.peer.dcid, a.peer_addr);
    let mut datagram = Vec::new();
    for n in 0..11u8 {
        let to = if n == 0 { mine } else { cid(n) };
        datagram.extend(payload(|w| {
            let ty = LongType::Handshake;
            let o = header::write_long(w, ty, VERSION_1, &to, &cid(1), &[], 4);
            w.zeros(50);
            let end = w.position();
            o.patch_length(w, end);
        }));
    }
    a.deliver(addr, &datagram);
    let before = a.connection().stats().packets_dropped;
    let grown = growth(&mut a, |a| {
        for _ in 0..100_000 {
            a.deliver(addr, &datagram);
        }
        a.collect();
    });
    assert_eq!(a.connection().stats().packets_dropped - before, 1_000_000);
    assert!(grown < 16 * 1024, "{grown} bytes");
    assert_eq!(a.endpoint.len(), 1);
    a.handshake();
    a.expect_alive();
}

/// CVE-2026-14456: attempts that the application never decides about: a bounded number, each at
/// the size of its datagram, and none begins a handshake.
#[test]
fn cve_2026_14456_attempts_that_nobody_takes() {
    let mut a = Attack::on_server(Plan::default());
    a.app.decision = Some(Decision::Hold);
    let mut template = a.peer.flight().remove(0);
    let addr = a.peer_addr;
    let grown = growth(&mut a, |a| {
        for n in 0..20_000u64 {
            // Another destination connection ID; what is sealed under it is never looked at.
            template[6..14].copy_from_slice(&n.to_be_bytes());
            a.deliver(addr, &template);
        }
    });
    assert_eq!(a.endpoint.routes(), limits::ACCEPT_BACKLOG);
    assert_eq!(a.endpoint.len(), 0);
    let each = grown as usize / limits::ACCEPT_BACKLOG;
    assert!(each < 2 * template.len(), "{each} bytes an attempt");
}

/// RFC 9000 §21.8: the highest stream that may be opened costs what any other does.
#[test]
fn rfc9000_21_8_one_frame_for_the_highest_stream() {
    for ty in [0u64, 2] {
        let mut a = Attack::server();
        let top = 4 * (limits::STREAMS - 1) + ty;
        let grown = growth(&mut a, |a| a.one_rtt(&stream_frame(top, 0, b"x", false)));
        assert_eq!(a.connection().streams().len(), 1);
        assert!(grown < 16 * 1024, "{grown} bytes");
        a.one_rtt(&stream_frame(top + 4, 0, b"x", false));
        a.expect_error(Code::STREAM_LIMIT_ERROR, "one more");
    }
}

/// CVE-2026-10740: one datagram of CRYPTO frames all over the window.
#[test]
fn cve_2026_10740_crypto_frames_all_over_the_window() {
    let mut a = Attack::on_server(Plan::default());
    let mut frames = Vec::new();
    while frames.len() < 1100 {
        let n = frames.len() as u64;
        frames.extend(crypto_frame(1 + n * 59 % (limits::CRYPTO_WINDOW - 2), b"x"));
    }
    let first = a.peer.padded_initial(&crypto_frame(60_000, b"x"), 1200);
    a.send(&first);
    let d = a.peer.padded_initial(&frames, 1200);
    let grown = growth(&mut a, |a| a.send(&d));
    assert!(grown <= 2 * limits::CRYPTO_WINDOW as isize, "{grown} bytes");
    assert_eq!(a.closed(), None);
}

/// CVE-2023-39321, CVE-2023-39322: CRYPTO data after the handshake in single bytes with gaps, and a
/// message that is never finished.
#[test]
fn cve_2023_39322_split_messages_after_the_handshake() {
    for server in [true, false] {
        let mut a = if server {
            Attack::server()
        } else {
            Attack::client()
        };
        let from = a.peer.spaces[2].crypto_sent as u64;
        let mut code = None;
        let grown = growth(&mut a, |a| {
            for n in 0..20_000u64 {
                // Every second byte of the window, over and over.
                let at = 1 + 2 * n % (limits::CRYPTO_WINDOW - 2);
                a.one_rtt(&crypto_frame(from + at, b"\x04"));
                if a.closed().is_some() {
                    code = a.blamed();
                    break;
                }
            }
        });
        assert!(grown < 1 << 20, "{grown} bytes, server {server}");
        // More gaps than are kept: the code for CRYPTO data that cannot be (RFC 9000 §7.5).
        assert_eq!(code, Some(Code::CRYPTO_BUFFER_EXCEEDED));
    }
}

/// CVE-2022-30591: clients that keep a handshake open a byte at a time end at the deadline.
#[test]
fn cve_2022_30591_a_handshake_fed_a_byte_at_a_time() {
    let mut a = Attack::on_server(Plan::default());
    let hello = a.peer.spaces[0].crypto_out.clone();
    let mut seconds = 0;
    for (at, byte) in hello.iter().enumerate() {
        let d = a
            .peer
            .padded_initial(&crypto_frame(at as u64, &[*byte]), 1200);
        a.send(&d);
        a.run(Duration::from_secs(1));
        seconds += 1;
        if at > 0 && a.endpoint.is_empty() {
            break;
        }
    }
    assert!(
        seconds <= limits::HANDSHAKE_DEADLINE.as_secs() + 1,
        "{seconds} seconds"
    );
    assert_eq!((a.endpoint.len(), a.endpoint.routes()), (0, 0));
}

/// CVE-2023-36435, CVE-2024-26190: handshakes whose transport parameters fail leave nothing.
#[test]
fn cve_2024_26190_failed_transport_parameters_leave_nothing() {
    let mut a = Attack::on_server(Plan::default());
    let churn = |a: &mut Attack, from: u64| {
        for n in from..from + 60 {
            let scid = cid(n as u8);
            // An acknowledgement delay exponent that cannot be, behind a good parameter.
            let encoded = [&[0x0f, 8], scid.as_slice(), &[0x0a, 1, 30]].concat();
            a.new_client_with(scid, cid(n as u8 + 100), encoded);
            for d in a.peer.flight() {
                a.send(&d);
            }
            assert_eq!(a.blamed(), Some(Code::TRANSPORT_PARAMETER_ERROR));
            a.run(Duration::from_secs(60));
            forget(a);
        }
        a.new_client(1);
        a.app.accepted = Vec::new();
    };
    churn(&mut a, 0);
    let grown = growth(&mut a, |a| churn(a, 60));
    assert_eq!((a.endpoint.len(), a.endpoint.routes()), (0, 0));
    assert!(grown < 20_000, "{grown} bytes");
}

/// RFC 9000 §21.7: data in fragments, the first byte of each stream withheld: windows bound it.
#[test]
fn rfc9000_21_7_everything_but_the_first_byte() {
    let mut a = Attack::server();
    let window = Plan::default().transport.streams.connection_window;
    let grown = growth(&mut a, |a| {
        for n in 0..20u64 {
            for k in 0..200u64 {
                let f = stream_frame(4 * n, 1 + 1000 * k, &[7; 1000], false);
                let p = a.peer.packet(PacketType::OneRtt, &f);
                let addr = a.peer_addr;
                a.deliver(addr, &p);
            }
            a.collect();
            a.inbox.clear();
            a.datagrams.clear();
            if a.closed().is_some() {
                break;
            }
        }
    });
    assert!(grown < 2 * window as isize, "{grown} bytes");
}
