//! Peers that try to make an endpoint remember too much: everything stays bounded.
//!
//! What the process has allocated is counted, so a bound is a number of bytes.

use crate::common::attack::{Attack, Plan};
use crate::common::counting::{Counting, live};
use crate::common::raw_peer::{ack_frame, crypto_frame, payload, stream_frame};
use corelane::base::Rng;
use corelane::wire::frame::{self, Frame};
use corelane::wire::{Code, PacketType};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `attack` and gives how many bytes more are allocated afterwards. What the scripted peer
/// keeps for itself is dropped first.
fn growth(a: &mut Attack, attack: impl FnOnce(&mut Attack)) -> isize {
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
    a.peer.undecryptable = Vec::new();
    a.app.received.clear();
    let newest = a.peer.spaces[2].received.last().copied();
    a.peer.spaces[2].received = newest.into_iter().collect();
}

/// Delivers a packet without the scripted peer keeping answers.
fn feed(a: &mut Attack, frames: &[u8]) {
    let p = a.peer.packet(PacketType::OneRtt, frames);
    let addr = a.peer_addr;
    a.deliver(addr, &p);
    a.collect();
    a.inbox.clear();
    a.datagrams.clear();
    a.events.clear();
}

/// CVE-2026-25800 class: single bytes with gaps between them cost no more than flow control allows.
#[test]
fn streams_of_single_bytes_with_gaps_are_bounded() {
    let mut a = Attack::server();
    let mut ended = None;
    let grown = growth(&mut a, |a| {
        'all: for n in 0..100u64 {
            for at in 0..2000u64 {
                let f = stream_frame(4 * n, 1 + 2 * at, b"x", false);
                a.one_rtt(&f);
                if let Some(code) = a.blamed() {
                    ended = Some((n, at, code));
                    break 'all;
                }
            }
        }
    });
    let (_, at, code) = ended.expect("too many gaps are an error");
    assert_eq!(code, Code::PROTOCOL_VIOLATION);
    assert!(at <= corelane::base::limits::STREAM_GAPS as u64 + 1);
    assert!(grown < 1 << 20, "{grown} bytes");
}

/// The same, spread over as many streams as there may be, each below the cap of gaps.
#[test]
fn gaps_over_many_streams_cost_no_more_than_the_windows() {
    let mut a = Attack::server();
    let window = Plan::default().transport.streams.connection_window as isize;
    let grown = growth(&mut a, |a| {
        for n in 0..200u64 {
            let frames: Vec<u8> = (0..100u64)
                .flat_map(|at| stream_frame(4 * n, 1 + 2 * at, b"x", false))
                .collect();
            feed(a, &frames);
        }
    });
    assert_eq!(a.closed(), None);
    assert!(
        grown < 2 * window,
        "{grown} bytes for 20,000 bytes received"
    );
}

/// One byte at the far end of every stream: no buffer of the window's size each.
#[test]
fn a_byte_at_the_end_of_a_window_does_not_allocate_the_window() {
    let mut a = Attack::server();
    let grown = growth(&mut a, |a| {
        for n in 0..15u64 {
            let f = stream_frame(4 * n, 100_000, b"x", false);
            feed(a, &f);
        }
    });
    assert_eq!(a.closed(), None);
    assert!(grown < 200_000, "{grown} bytes");
}

/// CVE-2026-10740 class: CRYPTO data at a high offset.
#[test]
fn crypto_data_with_gaps_is_bounded() {
    let mut a = Attack::on_server(Plan::default());
    let mut rng = Rng::from_u64(1);
    let first = a.peer.padded_initial(&crypto_frame(60_000, b"x"), 1200);
    a.send(&first);
    let grown = growth(&mut a, |a| {
        for _ in 0..3000 {
            let at = 1 + rng.below(65_000);
            let d = a.peer.padded_initial(&crypto_frame(at, b"x"), 1200);
            a.send(&d);
            if a.closed().is_some() {
                break;
            }
        }
    });
    assert_eq!(
        a.closed(),
        None,
        "forgotten by the flood's own cleaning at most"
    );
    assert!(grown < 1 << 20, "{grown} bytes");
}

/// CVE-2024-1765 class: CRYPTO data after the handshake, whole or never finished.
#[test]
fn crypto_floods_after_the_handshake_are_refused_or_bounded() {
    // An unknown handshake message, complete.
    let mut a = Attack::server();
    a.one_rtt(&crypto_frame(0, b"\x18\x00\x00\x01\x00"));
    assert!(
        a.blamed().is_some_and(|c| c.alert().is_some()),
        "{:?}",
        a.closed()
    );
    for server in [true, false] {
        let mut a = if server {
            Attack::server()
        } else {
            Attack::client()
        };
        let grown = growth(&mut a, |a| {
            // One message of 16 MB that never ends.
            let mut offset = 0;
            let mut data = vec![0; 1000];
            data[..4].copy_from_slice(&[4, 0xff, 0xff, 0xff]);
            for _ in 0..5000u64 {
                let f = crypto_frame(offset, &data);
                let p = a.peer.packet(PacketType::OneRtt, &f);
                let addr = a.peer_addr;
                a.deliver(addr, &p);
                a.collect();
                offset += 1000;
                data.fill(0);
                if a.closed().is_some() {
                    break;
                }
            }
        });
        assert!(grown < 1 << 20, "{grown} bytes, server {server}");
    }
}

/// New session tickets without end: a client keeps what its TLS configuration keeps.
#[test]
fn new_tokens_without_end_are_not_kept() {
    let mut a = Attack::client();
    let token = payload(|w| frame::write_new_token(w, &[7; 1000]));
    let grown = growth(&mut a, |a| {
        for _ in 0..5000 {
            feed(a, &token);
        }
    });
    assert!(grown < 200_000, "{grown} bytes");
    a.expect_alive();
}

/// CVE-2026-63075 class: a peer that only sends, for an hour; our acknowledgements are never
/// acknowledged, and what is remembered of them stays bounded.
#[test]
fn an_hour_of_pings_without_acknowledgements_is_bounded() {
    let mut a = Attack::server();
    let hour = |a: &mut Attack| {
        for _ in 0..36_000 {
            a.now += 100 * MS;
            a.run(Duration::ZERO);
            feed(a, &[1]);
        }
    };
    a.ack_all();
    hour(&mut a);
    let grown = growth(&mut a, hour);
    assert!(grown < 100_000, "{grown} bytes in the second hour");
    assert_eq!(a.closed(), None);
}

/// The same with a gap before every packet: ranges are bounded.
#[test]
fn packet_numbers_with_gaps_without_end_are_bounded() {
    let mut a = Attack::server();
    a.ack_all();
    let skipping = |a: &mut Attack| {
        for _ in 0..20_000 {
            a.peer.spaces[2].next_pn += 1;
            feed(a, &[1]);
        }
    };
    skipping(&mut a);
    let grown = growth(&mut a, skipping);
    // Ranges are capped. What was sent is remembered from the first packet on that the peer should
    // have acknowledged and did not, up to `SENT_PACKETS`: some 64 bytes an acknowledgement.
    assert!(grown < 20_000 * 128, "{grown} bytes");
    a.expect_alive();
}

/// CVE-2023-44487's kin (§21.9): streams opened and reset without end.
#[test]
fn streams_opened_and_reset_without_end_leave_nothing() {
    let mut plan = Plan::default();
    // Memory must not depend on the budget that ends such a connection by default.
    plan.transport.glitches = None;
    let mut a = Attack::server_with(plan);
    let churn = |a: &mut Attack, from: u64| {
        for n in from..from + 5000 {
            let id = 4 * n + 2;
            let mut f = stream_frame(id, 0, b"x", false);
            f.extend(payload(|w| frame::write_reset_stream(w, id, 1, 1)));
            feed(a, &f);
            if n % 10 == 0 {
                a.ack_all();
                a.inbox.clear();
            }
            let streams = a.connection().streams_mut();
            while streams.poll_event().is_some() {}
            while streams.accept(corelane::wire::Dir::Uni).is_some() {}
        }
    };
    churn(&mut a, 0);
    let grown = growth(&mut a, |a| churn(a, 5000));
    assert_eq!(a.closed(), None);
    assert!(grown < 200_000, "{grown} bytes");
    assert!(a.connection().streams().len() <= 1024);
}

/// Datagrams that nobody reads: the oldest go.
#[test]
fn unread_datagrams_are_bounded() {
    let mut a = Attack::server();
    let cap = Plan::default().transport.datagram_receive_buffer as isize;
    let data = payload(|w| {
        frame::write_datagram_header(w, Some(1000));
        w.zeros(1000);
    });
    let grown = growth(&mut a, |a| {
        for _ in 0..10_000 {
            feed(a, &data);
        }
        // Empty ones cost nothing by their bytes; they are bounded all the same.
        for _ in 0..1000 {
            feed(a, &[0x31, 0].repeat(500));
        }
    });
    assert!(grown < 4 * cap, "{grown} bytes");
    a.expect_alive();
}

/// Frames that ask for an answer of their own, by the thousand, while nothing is acknowledged.
#[test]
fn blocked_frames_and_limits_without_end_are_bounded() {
    let mut plan = Plan::default();
    // Memory must not depend on the budget that ends such a connection by default.
    plan.transport.glitches = None;
    let mut a = Attack::server_with(plan);
    a.ack_all();
    let flood: Vec<u8> = (0..40u64)
        .flat_map(|n| {
            payload(|w| {
                frame::write_data_blocked(w, n);
                frame::write_streams_blocked(w, corelane::wire::Dir::Bi, n);
                frame::write_stream_data_blocked(w, 4 * n, n);
                frame::write_max_data(w, n);
                frame::write_max_streams(w, corelane::wire::Dir::Uni, n);
            })
        })
        .collect();
    feed(&mut a, &flood);
    let grown = growth(&mut a, |a| {
        for _ in 0..10_000 {
            feed(a, &flood);
        }
    });
    assert!(grown < 100_000, "{grown} bytes");
    a.expect_alive();
}

/// STOP_SENDING for streams again and again (RFC 9000 §3.5).
#[test]
fn stop_sending_without_end_is_one_reset() {
    let mut a = Attack::server();
    let id = a
        .connection()
        .streams_mut()
        .open(corelane::wire::Dir::Bi)
        .expect("a stream");
    a.connection()
        .streams_mut()
        .write(id, &[1; 5000])
        .expect("room");
    a.collect();
    a.inbox.clear();
    let stop = payload(|w| frame::write_stop_sending(w, id.0, 9));
    for _ in 0..1000 {
        a.one_rtt(&stop);
    }
    let resets = a
        .inbox
        .iter()
        .flat_map(|p| p.frames())
        .filter(|f| matches!(f, Frame::ResetStream(_)))
        .count();
    assert_eq!(resets, 1);
    a.expect_alive();
}

/// §21.7: a peer that withholds acknowledgements holds the sender at its window.
#[test]
fn withheld_acknowledgements_hold_the_sender_at_its_window() {
    let mut a = Attack::server();
    a.ack_all();
    let id = a
        .connection()
        .streams_mut()
        .open(corelane::wire::Dir::Uni)
        .expect("a stream");
    let n = a.connection().streams_mut().write(id, &[1; 4_000_000]);
    assert!(n.is_ok());
    let sent = a.sent_by_endpoint;
    a.run(10 * SECOND);
    let sent = a.sent_by_endpoint - sent;
    // The window, the probes of larger sizes, and two probes a timeout.
    assert!(sent < 400_000, "{sent} bytes without an acknowledgement");
}

/// Undecryptable packets are dropped and cost nothing that stays.
#[test]
fn junk_without_end_leaves_nothing() {
    let mut a = Attack::server();
    let cid = a.peer.dcid;
    let grown = growth(&mut a, |a| {
        let mut rng = Rng::from_u64(5);
        let addr = a.peer_addr;
        for n in 0..50_000 {
            let mut junk = vec![0; 30 + rng.below(100) as usize];
            rng.fill(&mut junk);
            if n % 2 == 0 {
                junk[0] = 0x40 | (junk[0] & 0x3f);
                junk[1..9].copy_from_slice(cid.as_slice());
            }
            a.deliver(addr, &junk);
            a.collect();
            a.datagrams.clear();
            a.peer.undecryptable.clear();
        }
    });
    assert!(grown < 100_000, "{grown} bytes");
    assert_eq!(a.endpoint.len(), 1);
    a.expect_alive();
}

/// CVE-2023-50247 class: connections that come and go leave nothing behind.
#[test]
fn connections_that_come_and_go_leave_nothing() {
    let mut a = Attack::on_server(Plan::default());
    let churn = |a: &mut Attack, from: u64| {
        for n in from..from + 60 {
            a.new_client(n);
            a.events.clear();
            match n % 3 {
                0 => {
                    a.handshake();
                    a.one_rtt(&[0x1d, 0, 0]);
                }
                1 => {
                    let hello = a.peer.flight().remove(0);
                    a.send(&hello);
                }
                _ => {
                    let bad = a.peer.padded_initial(&crypto_frame(0, &[9; 100]), 1200);
                    a.send(&bad);
                }
            }
            a.run(60 * SECOND);
        }
        a.new_client(1);
        a.app.accepted = Vec::new();
        a.app.incoming = Vec::new();
    };
    churn(&mut a, 100);
    let grown = growth(&mut a, |a| churn(a, 1000));
    assert_eq!((a.endpoint.len(), a.endpoint.routes()), (0, 0));
    assert!(grown < 100_000, "{grown} bytes");
}

/// ACK frames without end, of the same packets, in every shape (RFC 9000 §13.1).
#[test]
fn repeated_and_overlapping_acks_change_nothing() {
    let mut a = Attack::server();
    a.run(SECOND);
    a.ack_all();
    let acked: Vec<u64> = a.peer.spaces[2].received.iter().copied().collect();
    let before = a.connection().path_stats();
    let (first, last) = (acked[0], *acked.last().expect("some"));
    for _ in 0..2000 {
        a.one_rtt(&ack_frame(&[last..=last]));
        a.one_rtt(&ack_frame(&[first..=first]));
    }
    let after = a.connection().path_stats();
    assert_eq!(before.congestion_window, after.congestion_window);
    assert_eq!(after.bytes_in_flight, 0);
    a.expect_alive();
}
