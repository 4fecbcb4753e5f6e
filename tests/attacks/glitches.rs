//! The budget for frames that lead nowhere (RFC 9000 §21.9): who spends it is closed, who stays
//! within its rate is not, and nobody else can spend it.

use crate::common::attack::{Attack, Plan};
use crate::common::raw_peer::{payload, stream_frame};
use corelane::conn::{ConnectionError, GlitchLimit};
use corelane::wire::frame::{self, NewConnectionId};
use corelane::wire::{Code, Dir, PacketType, Writer};
use std::time::Duration;

const LIMIT: GlitchLimit = GlitchLimit {
    burst: 100,
    per_second: 10,
};

fn plan() -> Plan {
    let mut plan = Plan::default();
    plan.transport.glitches = Some(LIMIT);
    plan
}

/// Opens a stream of the peer's and abandons it.
fn churn(n: u64) -> Vec<u8> {
    let id = 4 * n + 2;
    let mut f = stream_frame(id, 0, b"x", false);
    f.extend(payload(|w| frame::write_reset_stream(w, id, 1, 1)));
    f
}

fn accept_all(a: &mut Attack) {
    let streams = a.connection().streams_mut();
    while streams.poll_event().is_some() {}
    while streams.accept(Dir::Uni).is_some() {}
    a.ack_all();
}

/// s2n GHSA-475v, CVE-2023-44487's kin: streams opened and reset without end.
#[test]
fn ghsa_475v_streams_opened_and_reset_without_end_close_the_connection() {
    let mut a = Attack::server_with(plan());
    let mut n = 0;
    while a.closed().is_none() {
        a.one_rtt(&churn(n));
        if a.closed().is_none() {
            accept_all(&mut a);
        }
        n += 1;
        assert!(n <= u64::from(LIMIT.burst) + 1, "it goes on for ever");
    }
    assert_eq!(n, u64::from(LIMIT.burst) + 1);
    a.expect_error(Code::PROTOCOL_VIOLATION, "rapid reset");
    match a.closed() {
        Some(ConnectionError::PeerMisbehaved(e)) => assert!(e.reason.contains("lead nowhere")),
        other => panic!("{other:?}"),
    }
}

/// Below the rate it goes on for ever.
#[test]
fn rfc9000_21_9_streams_abandoned_within_the_rate_are_admitted() {
    let mut a = Attack::server_with(plan());
    for n in 0..1000 {
        a.one_rtt(&churn(n));
        accept_all(&mut a);
        a.run(Duration::from_millis(101));
    }
    assert_eq!(a.connection().stats().glitches, 1000);
    a.expect_alive();
}

/// The default ends a flood, and `None` ends none.
#[test]
fn rfc9000_21_9_the_budget_is_the_embedders_choice() {
    for (limit, closes) in [(Plan::default().transport.glitches, true), (None, false)] {
        let mut plan = Plan::default();
        plan.transport.glitches = limit;
        let mut a = Attack::server_with(plan);
        let flood = payload(|w| {
            for _ in 0..200 {
                frame::write_max_data(w, 1);
            }
        });
        for _ in 0..200 {
            a.one_rtt(&flood);
        }
        assert_eq!(a.blamed(), closes.then_some(Code::PROTOCOL_VIOLATION));
    }
}

/// Each kind of frame that leads nowhere is charged once, and those that lead somewhere are not.
#[test]
fn rfc9000_21_9_what_counts_and_what_does_not() {
    let f = |write: &dyn Fn(&mut Writer<'_>)| payload(|w| write(w));
    let cid = |seq| NewConnectionId {
        seq,
        retire_prior_to: 0,
        cid: crate::parser::cid(seq as u8 + 100),
        reset_token: [seq as u8; 16],
    };
    let mut a = Attack::server_with(plan());
    a.ack_all();
    let id = a.connection().streams_mut().open(Dir::Bi).expect("open").0;
    let cases: Vec<(&str, u64, Vec<u8>)> = vec![
        ("PING", 0, vec![1]),
        ("PADDING", 0, vec![0; 30]),
        ("data", 0, stream_frame(0, 0, b"x", false)),
        ("the same data", 0, stream_frame(0, 0, b"x", false)),
        ("nothing", 1, stream_frame(0, 1, b"", false)),
        ("an end", 0, stream_frame(0, 1, b"", true)),
        (
            "a raised limit",
            0,
            f(&|w| frame::write_max_data(w, 1 << 40)),
        ),
        (
            "the same limit",
            1,
            f(&|w| frame::write_max_data(w, 1 << 40)),
        ),
        (
            "a stream's limit",
            0,
            f(&|w| frame::write_max_stream_data(w, id, 1 << 40)),
        ),
        (
            "a lower one",
            1,
            f(&|w| frame::write_max_stream_data(w, id, 1 << 39)),
        ),
        (
            "more streams, which nobody waits for",
            0,
            f(&|w| frame::write_max_streams(w, Dir::Bi, 1 << 40)),
        ),
        (
            "fewer streams",
            1,
            f(&|w| frame::write_max_streams(w, Dir::Bi, 1)),
        ),
        (
            "STOP_SENDING",
            1,
            f(&|w| frame::write_stop_sending(w, id, 1)),
        ),
        (
            "a connection ID",
            1,
            f(&|w| frame::write_new_connection_id(w, &cid(1))),
        ),
        (
            "a challenge",
            0,
            f(&|w| frame::write_path_challenge(w, &[1; 8])),
        ),
    ];
    for (what, cost, frames) in cases {
        let before = a.connection().stats().glitches;
        a.one_rtt(&frames);
        assert_eq!(a.closed(), None, "{what}");
        assert_eq!(a.connection().stats().glitches - before, cost, "{what}");
    }
}

/// What the network can cause spends nothing: duplicates, forgeries, changes of address.
#[test]
fn rfc9000_21_9_nobody_on_the_path_can_spend_the_budget() {
    let mut a = Attack::server_with(plan());
    let once = a.peer.packet(PacketType::OneRtt, &churn(0));
    let mut bent = once.clone();
    *bent.last_mut().expect("bytes") ^= 1;
    for n in 0..1000u16 {
        a.send(&once);
        a.send(&bent);
        let from = std::net::SocketAddr::from(([127, 0, 0, 1], 5000 + n % 7));
        let ping = a.peer.packet(PacketType::OneRtt, &[1]);
        a.send_from(from, &ping);
    }
    assert_eq!(a.connection().stats().glitches, 1);
    assert_eq!(a.closed(), None);
}
