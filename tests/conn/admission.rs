//! What a server does when it is asked for more than it has: networks at their caps, no room at
//! all, attempts that nobody decides about, handshakes that never end.

use crate::common::attack::{Attack, Plan};
use crate::common::raw_peer::crypto_frame;
use corelane::base::limits;
use corelane::conn::{Decision, PrefixCaps};
use std::net::SocketAddr;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn from(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 4000))
}

/// A first Initial of a client that has not been seen.
fn hello(a: &mut Attack, seed: u64) -> Vec<u8> {
    a.new_client(seed);
    a.peer.flight().remove(0)
}

/// Does as the last Retry said.
fn proven_hello(a: &mut Attack) -> Option<Vec<u8>> {
    let (scid, token) = a.peer.retries.pop()?;
    a.peer.dcid = scid;
    a.peer.set_initial_keys(scid);
    a.peer.token = token;
    a.peer.spaces[0].crypto_sent = 0;
    Some(a.peer.flight().remove(0))
}

fn capped(half_open: u32, rate: u32, burst: u32) -> Plan {
    let mut prefix_caps = PrefixCaps::default();
    (prefix_caps.half_open, prefix_caps.rate, prefix_caps.burst) = (half_open, rate, burst);
    Plan {
        prefix_caps,
        ..Plan::default()
    }
}

/// A network that has all it may is asked for proof; who proves counts apart, since the others may
/// be forged, and has a limit, too; other networks are not concerned.
#[test]
fn a_network_has_so_many_handshakes_under_way() {
    let mut a = Attack::on_server(capped(5, 0, 1));
    for n in 0..50 {
        let hello = hello(&mut a, 100 + n);
        a.send_from(from(1), &hello);
    }
    let stats = a.endpoint.stats();
    assert_eq!(
        (a.endpoint.len(), stats.retries, stats.prefix_capped),
        (5, 45, 45)
    );
    for n in 0..8 {
        let first = hello(&mut a, 500 + n);
        a.send_from(from(1), &first);
        let proven = proven_hello(&mut a).expect("a Retry");
        a.send_from(from(1), &proven);
    }
    let stats = a.endpoint.stats();
    assert_eq!((a.endpoint.len(), stats.ignored), (10, 3));
    for n in 0..5 {
        let hello = hello(&mut a, 900 + n);
        a.send_from(from(2), &hello);
    }
    assert_eq!(
        (a.endpoint.len(), a.endpoint.stats().prefix_capped),
        (15, 45 + 8 + 3)
    );
    // What has ended counts no more, however it ended.
    a.run(30 * SECOND);
    assert_eq!((a.endpoint.len(), a.endpoint.routes()), (0, 0));
    a.new_client(5);
    a.events.clear();
    a.handshake();
    let mut all = 0;
    for n in 0..50 {
        let hello = hello(&mut a, 2000 + n);
        a.send(&hello);
        all = a.endpoint.len();
    }
    assert_eq!(all, 1 + 5, "the completed handshake counts no more");
}

#[test]
fn a_network_begins_so_many_handshakes_a_second() {
    let mut a = Attack::on_server(capped(1000, 10, 4));
    let begun = |a: &mut Attack, n: u64| {
        let before = a.endpoint.stats().accepted;
        for n in n..n + 20 {
            let hello = hello(a, n);
            a.send_from(from(1), &hello);
        }
        a.endpoint.stats().accepted - before
    };
    assert_eq!(begun(&mut a, 100), 4);
    a.now += Duration::from_millis(250);
    assert_eq!(begun(&mut a, 200), 2);
    a.now += 60 * SECOND;
    assert_eq!(begun(&mut a, 300), 4);
}

/// Attempts that the application holds count for their network as well.
#[test]
fn one_network_does_not_fill_the_backlog() {
    let mut a = Attack::on_server(capped(5, 0, 1));
    a.app.decision = Some(Decision::Hold);
    for n in 0..20 {
        let hello = hello(&mut a, 100 + n);
        a.send_from(from(1), &hello);
    }
    assert_eq!((a.endpoint.routes(), a.endpoint.stats().retries), (5, 15));
    let hello = hello(&mut a, 999);
    a.send_from(from(2), &hello);
    assert_eq!(a.endpoint.routes(), 6);
}

/// quinn d4fc3ef's lesson: with no room, an Initial costs no cryptography, whatever it carries, and
/// gets no answer.
#[test]
fn saturation_is_refused_without_cryptography() {
    let mut a = Attack::on_server(Plan {
        max_half_open: Some(4),
        ..Plan::default()
    });
    let mut token = Vec::new();
    for n in 0..100 {
        let mut datagram = hello(&mut a, 100 + n);
        a.send(&datagram);
        if let Some(proven) = proven_hello(&mut a) {
            token.clone_from(&a.peer.token);
            datagram = proven;
            a.send(&datagram);
        }
    }
    assert_eq!(a.endpoint.len(), 4);
    a.datagrams.clear();
    let before = a.endpoint.stats();
    for n in 0..1000 {
        a.new_client(10_000 + n);
        if n % 2 == 0 {
            a.peer.token.clone_from(&token);
        }
        let datagram = a.peer.flight().remove(0);
        a.send(&datagram);
    }
    let after = a.endpoint.stats();
    assert_eq!(after.stateless_crypto, before.stateless_crypto);
    assert_eq!(after.ignored, before.ignored + 1000);
    assert!(a.datagrams.is_empty() && before.stateless_crypto > 0);
}

/// Resets that could not be sent are not computed.
#[test]
fn strays_beyond_what_is_answered_cost_no_cryptography() {
    let mut a = Attack::on_server(Plan::default());
    let mut stray = [0x45; 100];
    for n in 0..1000u16 {
        stray[1..3].copy_from_slice(&n.to_be_bytes());
        a.deliver(from(1), &stray);
    }
    let stats = a.endpoint.stats();
    assert_eq!(stats.resets, stats.stateless_crypto);
    assert!((1..=64).contains(&stats.resets), "{stats:?}");
}

#[test]
fn held_attempts_expire() {
    let mut a = Attack::on_server(capped(limits::ACCEPT_BACKLOG as u32, 0, 1));
    a.app.decision = Some(Decision::Hold);
    for n in 0..100 {
        let hello = hello(&mut a, 100 + n);
        a.send(&hello);
    }
    assert_eq!(a.endpoint.routes(), 100);
    let due = a
        .endpoint
        .poll_timeout()
        .expect("they are not kept for ever");
    assert_eq!(due, a.now + limits::HANDSHAKE_DEADLINE);
    a.now = due;
    a.endpoint.expire_held(a.now);
    assert_eq!(a.endpoint.routes(), 0);
    assert_eq!(a.endpoint.stats().held_expired, 100);
    assert_eq!(a.endpoint.poll_timeout(), None);
    // A decision that comes too late meets nobody, and not whoever came after.
    let held = std::mem::take(&mut a.app.held);
    let hello = hello(&mut a, 999);
    a.send(&hello);
    let (now, first) = (a.now, held[0]);
    let began = a.endpoint.decide(now, first, Decision::Accept, &mut a.app);
    assert_eq!((began, a.endpoint.routes(), a.endpoint.len()), (None, 1, 0));
}

/// CVE-2022-30591: a ClientHello that arrives a byte at a time holds its place until the deadline
/// and not longer, however busy it keeps the server.
#[test]
fn a_slow_client_hello_ends_at_the_deadline() {
    let mut a = Attack::on_server(Plan::default());
    a.peer.drive_tls();
    let hello = a.peer.spaces[0].crypto_out.clone();
    let start = a.now;
    let mut at = 0;
    while a.endpoint.stats().accepted == 0 || !a.endpoint.is_empty() {
        let byte = &hello[at..=at];
        let padded = a.peer.padded_initial(&crypto_frame(at as u64, byte), 1200);
        a.send(&padded);
        at = (at + 1).min(hello.len() - 2);
        a.run(Duration::from_millis(100));
        let took = a.now - start;
        assert!(
            took < 3 * limits::HANDSHAKE_DEADLINE,
            "still there after {took:?}"
        );
    }
    assert!(a.now - start >= limits::HANDSHAKE_DEADLINE);
    assert_eq!(a.endpoint.routes(), 0);
}
