//! What RFC 9002 and RFC 9001 §6 ask beside the ordinary: Retry, probes over several spaces,
//! acknowledgements that wait for their keys.

use crate::common::attack::{Attack, Plan};
use crate::common::pair::{CLIENT, Pair, Passing, SERVER, Setup};
use crate::common::raw_peer::ack_frame;
use corelane::base::Timestamp;
use corelane::recovery::Algorithm;
use corelane::wire::frame::Frame;
use corelane::wire::header::{Header, LongType};
use corelane::wire::{Code, PacketType};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn patient() -> Setup {
    let mut setup = Setup::default();
    setup.client.handshake_deadline = 60 * SECOND;
    setup.server.handshake_deadline = 60 * SECOND;
    setup
}

/// The long packet types of a datagram.
fn types(mut rest: &[u8]) -> Vec<LongType> {
    let mut out = Vec::new();
    while let Ok(Header::Long { ty, len, .. }) = Header::parse_greased(rest, 8) {
        out.push(ty);
        rest = rest.get(len..).unwrap_or_default();
    }
    out
}

/// When a datagram left, and what was in it.
type Flight = (Timestamp, Vec<LongType>);

/// When each datagram of a side left.
type Times = Rc<RefCell<Vec<Timestamp>>>;

fn lossy(times: &Times, side: usize, lost: impl Fn(usize) -> bool + 'static) -> Filter {
    let times = times.clone();
    Box::new(move |p| {
        if p.from != side {
            return vec![p];
        }
        let n = times.borrow().len();
        times.borrow_mut().push(p.now);
        if lost(n) { vec![] } else { vec![p] }
    })
}

type Filter = Box<dyn FnMut(Passing) -> Vec<Passing>>;

/// RFC 9002 §6.3: a Retry resets loss recovery, the backoff of probes with it.
#[test]
fn a_retry_resets_the_backoff() {
    for algorithm in [Algorithm::Cubic, Algorithm::Bbr] {
        let mut setup = patient();
        setup.client.congestion = algorithm;
        let mut pair = Pair::new(setup);
        pair.sides[SERVER].app.prove = true;
        let times: Times = Times::default();
        // The first, then two probes twice are lost; one more pair brings a Retry, whose answer is
        // lost in turn.
        pair.filter = lossy(&times, CLIENT, |n| n != 5);
        pair.connect();
        pair.run(12 * SECOND);
        let times = times.borrow();
        let retried = times
            .iter()
            .position(|t| *t == times[5] + 20 * MS)
            .expect("the answer to the Retry");
        let before = times[5] - times[4].min(times[3]);
        let next = times[retried..]
            .iter()
            .find(|t| **t > times[retried])
            .expect("a probe");
        let gap = *next - times[retried];
        // 333 ms and four times half of that.
        assert!(gap < 1100 * MS && before > 1900 * MS, "{gap:?} {before:?}");
    }
}

/// RFC 9002 §6.2.4: a probe of the Initial space takes along what the Handshake space has in
/// flight.
#[test]
fn an_initial_probe_brings_handshake_data_along() {
    let mut pair = Pair::new(patient());
    let seen: Rc<RefCell<Vec<Flight>>> = Rc::default();
    let log = seen.clone();
    pair.filter = Box::new(move |p| {
        if p.from == CLIENT {
            return vec![p];
        }
        log.borrow_mut().push((p.now, types(&p.bytes)));
        vec![]
    });
    pair.connect();
    pair.run(5 * SECOND);
    let seen = seen.borrow();
    let first = seen[0].0;
    let initial = |t: &[LongType]| t.contains(&LongType::Initial);
    let later: Vec<_> = seen
        .iter()
        .filter(|(at, types)| *at > first && initial(types))
        .collect();
    assert!(later.len() >= 2, "{seen:?}");
    let both = later
        .iter()
        .filter(|(_, types)| types.contains(&LongType::Handshake));
    assert!(both.count() >= 1, "{seen:?}");
}

/// RFC 9000 §13.2.5: the time that a packet waited for its keys is part of the delay that its
/// acknowledgement reports, so that the peer's round-trip time is the network's.
#[test]
fn the_wait_for_keys_is_reported_as_delay() {
    let mut a = Attack::on_server(Plan::default());
    for datagram in a.peer.flight() {
        a.send(&datagram);
    }
    a.run(MS);
    let finished = a.peer.flight();
    a.one_rtt(&[1]);
    a.run(200 * MS);
    a.inbox.clear();
    for datagram in finished {
        a.send(&datagram);
    }
    a.run(30 * MS);
    let delay = |f: &Frame<'_>| match f {
        // In units of eight microseconds (§18.2).
        Frame::Ack(ack) => 8 * MS / 1000 * ack.delay as u32,
        _ => Duration::ZERO,
    };
    assert!(
        a.inbox
            .iter()
            .any(|p| p.ty == PacketType::OneRtt && p.has(|f| delay(f) >= 200 * MS)),
        "{:?}",
        a.inbox
    );
}

/// CVE-2025-4820 class: a number counts as sent only where it was, in its own space of its own
/// path, however high the numbers of another have risen.
#[test]
fn an_acknowledgement_beyond_what_its_own_space_sent_is_a_protocol_violation() {
    let mut a = Attack::on_server(Plan::default());
    for datagram in a.peer.flight() {
        a.send(&datagram);
    }
    let highest = |a: &Attack, space: usize| a.peer.spaces[space].received.iter().max().copied();
    let initial = highest(&a, 0).expect("a ServerHello");
    let frame = ack_frame(&[initial + 1..=initial + 1]);
    let datagram = a.peer.padded_initial(&frame, 1200);
    a.send(&datagram);
    a.expect_error(Code::PROTOCOL_VIOLATION, "an Initial packet never sent");

    let mut a = Attack::server();
    let data = highest(&a, 2).expect("1-RTT packets");
    a.one_rtt(&ack_frame(&[data + 1000..=data + 1000]));
    a.expect_error(Code::PROTOCOL_VIOLATION, "a 1-RTT packet never sent");
}

/// CVE-2026-32179 class: ranges that would go below zero.
#[test]
fn acknowledgement_ranges_below_zero_are_a_frame_encoding_error() {
    // Largest, delay, count, first range; then gap and length of each further range.
    for frame in [
        &[2u8, 0, 0, 0, 1][..],
        &[2, 1, 0, 1, 0, 0, 0],
        &[2, 1, 0, 1, 1, 0, 0],
        &[2, 5, 0, 1, 0, 2, 2],
        &[
            2, 5, 0, 1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0,
        ],
        &[2, 5, 0, 2, 0, 0, 0, 0x40, 0xff, 0],
        &[3, 0, 0, 0, 1, 0, 0, 0],
    ] {
        let mut a = Attack::server();
        a.one_rtt(frame);
        a.expect_error(Code::FRAME_ENCODING_ERROR, &format!("{frame:?}"));
    }
}
