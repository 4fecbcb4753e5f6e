//! What RFC 9002 and RFC 9001 §6 ask beside the ordinary: Retry, probes over several spaces,
//! acknowledgements that wait for their keys.

use crate::common::pair::{CLIENT, Pair, Passing, SERVER, Setup};
use corelane::base::Timestamp;
use corelane::conn::Event;
use corelane::recovery::Algorithm;
use corelane::wire::header::{Header, LongType};
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
    let seen: Rc<RefCell<Vec<(Timestamp, Vec<LongType>)>>> = Rc::default();
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

/// RFC 9002 §5.3: the time that an acknowledgement waits for keys is no part of the round trip.
#[test]
fn an_acknowledgement_that_waited_for_keys_gives_a_true_round_trip() {
    let mut pair = Pair::new(patient());
    // The server's Initial packets are late; its Handshake packets, which hold the acknowledgement
    // of nothing yet, and all later ones come in time and wait for the keys.
    let mut held: Vec<Passing> = Vec::new();
    let mut since = None;
    pair.filter = Box::new(move |p| {
        let initial = p.from == SERVER && types(&p.bytes).contains(&LongType::Initial);
        if initial && since.is_none() {
            since = Some(p.now);
            held.push(p);
            return vec![];
        }
        let mut out = vec![p];
        if since.is_some_and(|at| out[0].now > at + 500 * MS) {
            out.append(&mut held);
        }
        out
    });
    let client = pair.connect();
    pair.run(20 * SECOND);
    assert!(pair.saw(CLIENT, &Event::HandshakeConfirmed));
    let stats = pair.conn(CLIENT, client).path_stats();
    assert!(stats.min_rtt <= 21 * MS, "{stats:?}");
}
