//! Clauses of RFC 9000 §21 and advisories against other stacks, tried on the paths of one connection
//! (`tests/attacks/README.md` has the table). The scripted peer seals whatever it likes.

use crate::common::attack::{Attack, Plan};
use crate::common::counting::live;
use crate::common::raw_peer::{payload, stream_frame};
use crate::scripted::*;
use corelane::base::{Ecn, limits};
use corelane::conn::{ConnectionError, EarlyData, Event, PathEvent};
use corelane::crypto::Keys;
use corelane::path::{PathId, PathState, PathStatus};
use corelane::wire::frame::{self, Frame, PathFrame};
use corelane::wire::{Code, Dir, PacketType};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

fn victim(n: u16) -> SocketAddr {
    SocketAddr::from(([127, 66, (n >> 8) as u8, n as u8], 6000))
}

/// Packets of the least size, and no probes of larger ones.
fn small() -> Plan {
    let mut plan = plan();
    plan.transport.mtu.max = 1200;
    plan
}

/// How many bytes more this thread holds after `attack`, but for what the test keeps itself.
fn growth(s: &mut Several, attack: impl FnOnce(&mut Several)) -> isize {
    forget(s);
    let before = live();
    attack(s);
    forget(s);
    live() - before
}

fn forget(s: &mut Several) {
    s.read();
    s.a.inbox = Vec::new();
    s.a.datagrams = Vec::new();
    s.a.events = Vec::new();
    s.forget_received();
}

/// Has the endpoint write so much on a stream.
fn write(s: &mut Several, bytes: usize) {
    let streams = s.a.connection().streams_mut();
    let id = streams.open(Dir::Uni).expect("a stream");
    assert_eq!(streams.write(id, &vec![5; bytes]), Ok(bytes));
}

/// CVE-2025-4820: packet numbers are checked against what the path itself has sent, not against the
/// largest of all.
#[test]
fn cve_2025_4820_what_another_path_sent_is_not_acknowledged() {
    let sent = |s: &mut Several, path| {
        let info = s.a.connection().path_info(PathId(path));
        info.expect("there").packets_sent
    };
    let mut s = Several::two_paths(plan());
    for _ in 0..1000 {
        s.a.one_rtt(&[1]);
        s.a.one_rtt(&[1]);
    }
    assert!(sent(&mut s, 0) > 600 && sent(&mut s, 1) < 300);
    s.expect_alive();
    s.send(1, second(), &path_ack(1, &[400..=400]));
    s.expect_error(Code::PROTOCOL_VIOLATION, "a number of another path");
}

/// RFC 9000 §21.4, CVE-2025-4821: who acknowledges in advance is found out on each path.
#[test]
fn rfc9000_21_4_a_second_path_finds_out_who_acknowledges_in_advance() {
    let mut s = Several::two_paths(small());
    s.send(1, second(), &status(0, PathStatus::Backup, 1));
    write(&mut s, 3_000_000);
    for _ in 0..3000 {
        s.a.run(10 * MS);
        s.acknowledge_but(1);
        if s.a.closed().is_some() {
            break;
        }
        let largest = s.largest(1).expect("the path is used");
        s.send(1, second(), &path_ack(1, &[0..=largest]));
    }
    s.expect_error(Code::PROTOCOL_VIOLATION, "a number that was left out");
}

/// RFC 9000 §8.2.2, §21.5: an answer counts for the path whose packet holds it, and for what was
/// asked there.
#[test]
fn rfc9000_8_2_2_an_answer_off_the_path_proves_nothing() {
    let mut s = Several::server(plan());
    for (path, seq) in [(1, 0), (1, 1), (2, 0)] {
        s.issue(path, seq);
    }
    s.send(1, second(), &full_ping());
    let came = s.read();
    let asked = came.iter().filter(|(path, _)| *path == 1);
    let asked = asked.flat_map(|(_, p)| p.frames()).find_map(|f| match f {
        Frame::PathChallenge(data) => Some(data),
        _ => None,
    });
    let asked = asked.expect("the new path is challenged");
    let answer = |data: [u8; 8]| payload(|w| frame::write_path_response(w, &data));
    let home = s.a.peer_addr;
    s.send(0, home, &answer(asked));
    s.send(2, second(), &answer(asked));
    for n in 0..200u64 {
        s.send(1, second(), &answer(n.to_be_bytes()));
    }
    assert_eq!(s.state(1), Some(PathState::Validating));
    s.send(1, second(), &answer(asked));
    assert_eq!(s.state(1), Some(PathState::Open));
    s.expect_alive();
}

/// RFC 9000 §21.5, §9.3.2: packets of one path that seem to come from elsewhere lead three times
/// their bytes there, that path comes back, and no other moves.
#[test]
fn rfc9000_21_5_a_spoofed_source_moves_no_other_path_and_this_one_not_for_long() {
    let mut s = Several::two_paths(plan());
    write(&mut s, 1_000_000);
    for n in 0..40 {
        let frames = if n % 2 == 0 { vec![1] } else { full_ping() };
        let packet = s.packet(1, &frames);
        s.a.datagrams.clear();
        s.a.send_from(victim(n), &packet);
        s.a.run(100 * MS);
        let to = s.bytes_to(victim(n));
        assert!(to <= 3 * packet.len(), "{to} for {}", packet.len());
        let home = s.a.connection().path_info(PathId(0)).expect("there").tuple;
        assert_eq!(home.remote, s.a.peer_addr);
        s.settle(1, second());
        s.acknowledge();
        assert_eq!(s.bytes_to(victim(n)), to, "nothing more");
    }
    s.expect_alive();
}

/// RFC 9000 §21.3, §8.1: an address that is both followed and looked at from the preferred address
/// gets three times its bytes in all.
#[test]
fn rfc9000_21_3_a_datagram_counts_once() {
    let preferred = SocketAddr::from(([127, 0, 0, 9], 2001));
    let mut plan = plan();
    plan.transport.preferred_address.set(preferred);
    let mut s = Several::server(plan);
    for seq in 2..4 {
        s.issue(0, seq);
    }
    write(&mut s, 500_000);
    s.a.run(50 * MS);
    let mut came = 0;
    for n in 0..200u64 {
        let mut frames = payload(|w| frame::write_path_challenge(w, &n.to_be_bytes()));
        frames.push(1);
        let packet = s.packet(0, &frames);
        came += packet.len();
        match n {
            0 => s.a.deliver(victim(1), &packet),
            _ => s.a.deliver_at(preferred, victim(1), &packet),
        }
        s.a.collect();
        let to = s.bytes_to(victim(1));
        assert!(to <= 3 * came, "{to} for {came}");
        s.a.run(MS);
    }
    assert!(s.bytes_to(victim(1)) > came, "it is answered");
}

/// CVE-2026-12707, CVE-2025-29785: each packet from another address, on every path in turn, and no
/// probe ever answered.
#[test]
fn cve_2026_12707_storms_of_addresses_on_every_path_keep_no_state() {
    let mut s = Several::two_paths(plan());
    s.establish(2, SocketAddr::from(([127, 0, 0, 3], 1002)));
    let routes = s.a.endpoint.routes();
    let mut from: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    let mut to: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    for round in 0..2 {
        let grown = growth(&mut s, |s| {
            for n in 0..3000u16 {
                let mut frames = s.acks();
                frames.push(1);
                let packet = s.packet(u32::from(n % 3), &frames);
                let source = victim(n);
                *from.entry(source).or_default() += packet.len();
                s.a.send_from(source, &packet);
                s.a.run(Duration::from_micros(300));
                for (there, bytes) in s.a.datagrams.drain(..) {
                    *to.entry(there).or_default() += bytes.len();
                }
                s.read();
            }
        });
        // The first round fills what is bounded.
        assert!(round == 0 || grown < 64 * 1024, "{grown} bytes");
        assert!(s.a.endpoint.routes() <= routes);
    }
    for (there, bytes) in to {
        let came = from.get(&there).copied().unwrap_or(0);
        let own = [s.a.peer_addr, second()].contains(&there) || there.port() == 1002;
        assert!(own || bytes <= 3 * came, "{there}: {bytes} for {came}");
    }
    assert_eq!(s.a.closed(), None);
    let home = s.a.peer_addr;
    s.settle(0, home);
    s.settle(1, second());
    s.expect_alive();
}

/// s2n GHSA-rfhg: a path whose peer has issued no spare connection ID, and is moved all the same.
#[test]
fn ghsa_rfhg_connection_ids_of_a_path_run_out() {
    let mut s = Several::server(plan());
    s.issue(1, 0);
    s.settle(1, second());
    let dcid = s.cids[&(1, 1)];
    for n in 0..100 {
        // RFC 9000 §9.5: with another connection ID, and none to answer with.
        let packet = s.packet_at(1, &dcid, 1000 + u64::from(n), &[1]);
        s.a.datagrams.clear();
        s.a.send_from(victim(n), &packet);
        s.a.run(20 * MS);
        assert_eq!(s.bytes_to(victim(n)), 0);
    }
    let info = s.a.connection().path_info(PathId(1)).expect("there");
    assert_eq!(info.tuple.remote, second());
    // The one in use is retired without another: that is what the peer may not do.
    s.expect_alive();
    s.a.one_rtt(&new_cid(1, 1, 1));
    s.expect_alive();
    assert_eq!(s.state(1), Some(PathState::Open));
    // A client endpoint has none to move with, and says so.
    let mut s = Several::client(plan());
    s.issue(1, 0);
    let id = s.open_path().expect("opens");
    let (now, socket) = (s.a.now, corelane::base::SocketId(1));
    let tuple = corelane::base::FourTuple::new(victim(7), s.a.peer_addr);
    let conn = s.a.connection();
    assert!(conn.migrate_path(now, id, socket, tuple).is_err());
    s.expect_alive();
}

/// RFC 9001 §6 for all paths (multipath §2.5): packets of the old and the new phase overtake each
/// other on their paths, and both sides update at once.
#[test]
fn key_updates_race_between_paths() {
    let mut s = Several::two_paths(plan());
    for round in 0..20 {
        let old = [0, 1].map(|path| s.packet(path, &[1]));
        let now = s.a.now;
        s.a.peer.force_key_update(now);
        let before = s.a.connection().stats();
        if round % 4 == 3 {
            // The endpoint updates too, before it hears.
            assert!(s.a.connection().update_keys());
        }
        let new = [0, 1].map(|path| s.packet(path, &[1]));
        let (one, other) = (round % 2, 1 - round % 2);
        let from = [s.a.peer_addr, second()];
        for (path, packet) in [
            (one, &new[one]),
            (other, &old[other]),
            (one, &old[one]),
            (other, &new[other]),
        ] {
            s.a.send_from(from[path], packet);
        }
        let after = s.a.connection().stats();
        assert_eq!(after.packets_undecryptable, before.packets_undecryptable);
        assert_eq!(
            after.packets_received - before.packets_received,
            4,
            "{round}"
        );
        assert_eq!(after.key_updates, before.key_updates + 1);
        s.read();
        s.acknowledge();
        // Until the old keys are gone.
        s.a.run(Duration::from_secs(5));
        s.acknowledge();
    }
    s.expect_alive();
}

/// RFC 9000 §21.11, §10.3.1: a token counts for the path whose connection ID it belongs to, from
/// that path's address, while that path is in use.
#[test]
fn rfc9000_21_11_a_reset_token_is_bound_to_its_path() {
    let reset = |path: u32, seq: u64| {
        let mut datagram = vec![0x43; 40];
        datagram.extend(token_of(path, seq));
        datagram
    };
    let elsewhere = victim(1);
    let mut s = Several::two_paths(plan());
    s.issue(2, 0);
    let home = s.a.peer_addr;
    // Of another path, from another address, not in use.
    for (datagram, from) in [
        (reset(1, 0), home),
        (reset(1, 0), elsewhere),
        (reset(1, 1), second()),
        (reset(2, 0), second()),
        (reset(2, 0), home),
    ] {
        s.a.send_from(from, &datagram);
    }
    s.expect_alive();
    s.a.send_from(second(), &reset(1, 0));
    assert_eq!(s.a.closed(), Some(ConnectionError::Reset));
    // Multipath §3.4.2: the token of an abandoned path is none.
    let mut s = Several::two_paths(plan());
    s.a.one_rtt(&abandon(1));
    s.a.send_from(second(), &reset(1, 0));
    s.expect_alive();
}

/// RFC 9000 §21.10 on a second path: copies with other marks are not counted.
#[test]
fn rfc9000_21_10_copies_with_other_marks_on_a_second_path() {
    let mut s = Several::two_paths(plan());
    s.a.ecn = Ecn::Ect0;
    let packet = s.packet(1, &[1]);
    s.a.send_from(second(), &packet);
    s.a.ecn = Ecn::Ce;
    for _ in 0..10 {
        s.a.send_from(second(), &packet);
    }
    s.a.ecn = Ecn::NotEct;
    s.read();
    s.send(1, second(), &[1]);
    s.send(1, second(), &[1]);
    s.a.run(50 * MS);
    let came = s.read();
    let counts = came.iter().flat_map(|(_, p)| p.frames());
    let counts = counts.filter_map(|f| match f {
        Frame::PathAck { path, ack } if path == PathId(1) => ack.ecn,
        _ => None,
    });
    let last = counts.last().expect("counted");
    assert_eq!((last.ect0, last.ce), (1, 0));
}

/// CVE-2026-62815: a path is abandoned in the middle of a packet, and the rest of it is about that
/// path; packets of it follow, before and after it is forgotten.
#[test]
fn cve_2026_62815_a_path_abandoned_in_the_middle_of_a_packet() {
    for via in [0, 1] {
        let mut s = Several::two_paths(plan());
        write(&mut s, 50_000);
        let ranges = s.ranges(1);
        let mut frames = abandon(1);
        frames.extend(path_ack(1, &ranges));
        frames.extend(payload(|w| frame::write_path_challenge(w, &[9; 8])));
        frames.extend(payload(|w| frame::write_path_response(w, &[9; 8])));
        frames.extend(new_cid(1, 3, 2));
        frames.extend(status(1, PathStatus::Backup, 9));
        frames.extend(abandon(1));
        frames.extend(stream_frame(2, 0, b"data", true));
        let from = [s.a.peer_addr, second()];
        s.send(via, from[via as usize], &frames);
        assert!(matches!(s.state(1), Some(PathState::Abandoned(_))));
        for n in 0..200 {
            s.send(1, victim(n), &full_ping());
            s.send(1, second(), &frames);
            s.a.run(10 * MS);
            s.acknowledge();
        }
        assert_eq!(s.state(1), None, "forgotten");
        assert_eq!(s.bytes_to(victim(0)), 0);
        assert!(s.a.app.received.values().any(|data| data == b"data"));
        s.expect_alive();
    }
}

/// CVE-2026-63075, RFC 9000 §21.7: a peer that only sends on a second path and never acknowledges,
/// without gaps and with one before each packet.
#[test]
fn cve_2026_63075_pings_on_a_second_path_without_acknowledgements() {
    let mut s = Several::two_paths(small());
    for (round, gaps) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
        let grown = growth(&mut s, |s| {
            for _ in 0..20_000 {
                s.skip(1, gaps);
                s.send(1, second(), &[1]);
                s.read();
                s.a.datagrams.clear();
            }
        });
        // Gaps make this side ask for an acknowledgement, and what follows an unanswered question
        // is remembered, up to `SENT_PACKETS`.
        let most = if gaps == 0 { 64 << 10 } else { 20_000 * 128 };
        assert!(round == 0 || grown < most, "{grown} bytes");
    }
    s.a.run(50 * MS);
    s.skip(1, 1);
    s.send(1, second(), &[1]);
    s.a.run(50 * MS);
    for (_, p) in s.read() {
        for f in p.frames() {
            if let Frame::PathAck { ack, .. } = f {
                assert!(ack.ranges.count() <= limits::ACK_RANGES);
            }
        }
    }
    s.expect_alive();
}

/// Multipath §3.4: a path that this side abandons and its peer does not: what was remembered of its
/// packets goes all the same.
#[test]
fn a_path_that_the_peer_keeps_costs_little() {
    let mut s = Several::two_paths(plan());
    forget(&mut s);
    let before = live();
    for _ in 0..20_000 {
        s.skip(1, 1);
        s.send(1, second(), &[1]);
        s.read();
        s.a.datagrams.clear();
    }
    forget(&mut s);
    let grown = live() - before;
    assert!(grown > 512 << 10, "{grown} bytes while it is open");
    let now = s.a.now;
    let conn = s.a.connection();
    conn.close_path(now, PathId(1), Code::NO_ERROR)
        .expect("open");
    s.a.run(Duration::from_secs(10));
    assert_eq!(s.state(1), Some(PathState::Abandoned(None)));
    forget(&mut s);
    let grown = live() - before;
    assert!(grown < 128 << 10, "{grown} bytes");
    s.expect_alive();
}

/// RFC 9000 §21.9: frames about paths that change nothing cost no memory, and who sends too many
/// spends its budget.
#[test]
fn rfc9000_21_9_floods_of_frames_about_paths_keep_nothing() {
    let kinds: [fn(u64) -> Vec<u8>; 5] = [
        |n| {
            let kind = [PathStatus::Backup, PathStatus::Available][(n % 2) as usize];
            status((n % 4) as u32, kind, n)
        },
        |n| bytes(&PathFrame::PathsBlocked(PathId((n % 4) as u32))),
        |n| {
            let path = PathId((n % 4) as u32);
            bytes(&PathFrame::CidsBlocked { path, next_seq: 0 })
        },
        |n| bytes(&PathFrame::MaxPathId(PathId(3 + n as u32))),
        |n| new_cid(1 + (n % 3) as u32, 0, 0),
    ];
    for (kind, frame_of) in kinds.into_iter().enumerate() {
        for budget in [true, false] {
            let mut plan = plan();
            if !budget {
                plan.transport.glitches = None;
            }
            let mut s = Several::two_paths(plan);
            let from = s.a.peer_addr;
            let mut n = 0;
            let grown = growth(&mut s, |s| {
                for _ in 0..600 {
                    let frames: Vec<u8> = (n..n + 40).flat_map(frame_of).collect();
                    n += 40;
                    // The application polls nothing meanwhile.
                    let packet = s.packet(0, &frames);
                    s.a.deliver(from, &packet);
                }
                s.a.collect();
                let blamed = budget.then_some(Code::PROTOCOL_VIOLATION);
                assert_eq!(s.a.blamed(), blamed, "kind {kind}");
            });
            assert!(grown < 512 * 1024, "kind {kind}: {grown} bytes");
            if !budget {
                s.expect_alive();
            }
        }
    }
}

/// Multipath §4.7: what is said of an older limit is passed over.
#[test]
fn paths_blocked_below_the_limit_tells_nothing() {
    let mut s = Several::server(plan());
    for max in [0, 1, 2] {
        s.a.one_rtt(&bytes(&PathFrame::PathsBlocked(PathId(max))));
    }
    let blocked = |e: &Event| matches!(e, Event::Path(PathEvent::Blocked(_)));
    assert!(!s.a.events.iter().any(blocked));
    s.a.one_rtt(&bytes(&PathFrame::PathsBlocked(PathId(3))));
    assert!(s.a.events.iter().any(blocked));
    s.expect_alive();
}

/// Multipath §3.4: PATH_ABANDON is repeated until it is acknowledged, and waits once.
#[test]
fn an_unacknowledged_abandonment_is_said_once_a_packet() {
    let mut s = Several::two_paths(plan());
    for path in 1..4 {
        s.a.one_rtt(&abandon(path));
    }
    let mut said = 0;
    for _ in 0..100 {
        s.a.run(200 * MS);
        for (_, packet) in s.read() {
            for wanted in 1..4 {
                let is = |f: &Frame<'_>| matches!(f, Frame::Path(PathFrame::Abandon { path, .. }) if path.0 == wanted);
                let times = packet.frames().into_iter().filter(|f| is(f)).count();
                assert!(times <= 1, "{times} times");
                said += times;
            }
        }
    }
    assert!(said > 8, "{said}");
    s.acknowledge();
    s.expect_alive();
}

/// Early data that comes when its path is forgotten is nobody's: it is neither another path's, nor
/// can it be told from what came before.
#[test]
fn early_data_is_no_other_paths() {
    let mut plan = plan();
    plan.early = true;
    let mut a = Attack::server_with(plan);
    a.end();
    a.new_client(8);
    let session = a.peer.session.as_ref().expect("a session");
    let key = || session.zero_rtt_keys().expect("early data");
    let (local, remote) = (key(), key());
    a.peer.spaces[2].keys = Some(Keys { local, remote });
    let first = a.peer.flight().remove(0);
    a.send(&first);
    assert_eq!(a.connection().early_data(), EarlyData::Accepted);
    let early = a
        .peer
        .packet(PacketType::ZeroRtt, &stream_frame(2, 0, b"one", false));
    a.send(&early);
    let late = a.peer.packet_at(
        PacketType::ZeroRtt,
        9,
        &stream_frame(6, 0, b"x", false),
        |_| {},
    );
    a.peer.spaces[2].next_pn = 20;
    a.exchange();
    let mut s = Several::around(a);
    let taken = s.a.connection().stats().zero_rtt_packets_received;
    assert!(taken > 0);
    for seq in 0..2 {
        s.issue(1, seq);
    }
    s.settle(1, second());
    s.acknowledge();
    s.send(1, second(), &abandon(0));
    for _ in 0..20 {
        s.a.run(10 * MS);
        s.read();
        let ranges = s.ranges(1);
        s.send(1, second(), &path_ack(1, &ranges));
    }
    assert_eq!(s.state(0), None, "forgotten");
    for packet in [&early, &late] {
        s.a.send(packet);
    }
    let after = s.a.connection().stats().zero_rtt_packets_received;
    assert_eq!(after, taken, "dropped");
    assert_eq!(s.a.closed(), None);
}
