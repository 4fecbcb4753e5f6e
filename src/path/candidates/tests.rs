//! Pairs that can work, in an order that makes use of what there is, and none twice.

use super::*;
use Unusable::{Family, Link, Loopback, NoHost, State};
use proptest::prelude::*;
use std::collections::HashSet;

const NOW: Timestamp = Timestamp::from_nanos(1_000_000_000);

fn on(interface: u32, ip: &str) -> LocalAddress {
    LocalAddress {
        ip: ip.parse().unwrap(),
        interface,
        state: AddressState::Preferred,
    }
}

fn sock(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn tuple(local: &str, remote: &str) -> FourTuple {
    FourTuple::new(sock(local), sock(remote))
}

#[test]
fn impossible_pairs_are_told_apart() {
    for (local, remote, expected) in [
        ("192.0.2.1", "198.51.100.1:443", Ok(())),
        ("10.0.0.1", "198.51.100.1:443", Ok(())),
        ("2001:db8::1", "[2001:db8:9::1]:443", Ok(())),
        ("192.0.2.1", "[2001:db8::1]:443", Err(Family)),
        ("2001:db8::1", "198.51.100.1:443", Err(Family)),
        // An IPv4 address in IPv6 notation is one.
        ("192.0.2.1", "[::ffff:198.51.100.1]:443", Ok(())),
        ("192.0.2.1", "198.51.100.1:0", Err(NoHost)),
        ("192.0.2.1", "0.0.0.0:443", Err(NoHost)),
        ("0.0.0.0", "198.51.100.1:443", Err(NoHost)),
        ("192.0.2.1", "224.0.0.1:443", Err(NoHost)),
        ("192.0.2.1", "255.255.255.255:443", Err(NoHost)),
        ("2001:db8::1", "[ff02::1]:443", Err(NoHost)),
        // Loopback is chosen for loopback, and for nothing else.
        ("127.0.0.1", "127.0.0.2:443", Ok(())),
        ("::1", "[::1]:443", Ok(())),
        ("127.0.0.1", "198.51.100.1:443", Err(Loopback)),
        ("192.0.2.1", "127.0.0.1:443", Err(Loopback)),
        ("2001:db8::1", "[::1]:443", Err(Loopback)),
        // Link-local addresses stay on their link.
        ("fe80::1", "[fe80::2%7]:443", Ok(())),
        ("fe80::1", "[fe80::2%8]:443", Err(Link)),
        ("fe80::1", "[fe80::2]:443", Err(Link)),
        ("fe80::1", "[2001:db8::1]:443", Err(Link)),
        ("2001:db8::1", "[fe80::2%7]:443", Err(Link)),
        ("169.254.1.1", "169.254.1.2:443", Ok(())),
        ("169.254.1.1", "198.51.100.1:443", Err(Link)),
        ("192.0.2.1", "169.254.1.2:443", Err(Link)),
    ] {
        assert_eq!(
            check(&on(7, local), sock(remote)),
            expected,
            "{local} to {remote}"
        );
    }
    for state in [AddressState::Tentative, AddressState::Deprecated] {
        let local = LocalAddress {
            state,
            ..on(7, "2001:db8::1")
        };
        assert_eq!(check(&local, sock("[2001:db8:9::1]:443")), Err(State));
    }
}

fn choose(
    locals: &[LocalAddress],
    remotes: &[&str],
    present: &[FourTuple],
    max: usize,
) -> Vec<FourTuple> {
    let remotes: Vec<_> = remotes.iter().map(|r| sock(r)).collect();
    let choice = Choice {
        locals,
        ports: &[],
        local_port: 5000,
        remotes: &remotes,
        present,
        failures: &Failures::default(),
        max,
    };
    candidates(NOW, &choice)
}

#[test]
fn every_interface_comes_before_any_comes_twice() {
    let locals = [
        on(1, "127.0.0.1"),
        on(2, "192.0.2.1"),
        on(2, "192.0.2.2"),
        on(2, "2001:db8::1"),
        on(3, "10.0.0.1"),
    ];
    let remotes = ["198.51.100.1:443", "198.51.100.2:443"];
    let present = [tuple("192.0.2.1:5000", "198.51.100.1:443")];
    let all = [
        tuple("10.0.0.1:5000", "198.51.100.1:443"),
        tuple("192.0.2.2:5000", "198.51.100.1:443"),
        tuple("192.0.2.1:5000", "198.51.100.2:443"),
        tuple("192.0.2.2:5000", "198.51.100.2:443"),
        tuple("10.0.0.1:5000", "198.51.100.2:443"),
    ];
    assert_eq!(choose(&locals, &remotes, &present, 9), all);
    for max in 0..5 {
        assert_eq!(choose(&locals, &remotes, &present, max), all[..max]);
    }
}

#[test]
fn a_path_that_is_there_is_not_a_candidate() {
    let locals = [on(2, "192.0.2.1")];
    for present in [
        tuple("192.0.2.1:5000", "198.51.100.1:443"),
        // The system chose its source.
        tuple("0.0.0.0:5000", "198.51.100.1:443"),
    ] {
        let none = choose(&locals, &["198.51.100.1:443"], &[present], 9);
        assert_eq!(none, []);
    }
    // One address on two interfaces, one remote address twice and in two notations.
    let twice = [on(2, "192.0.2.1"), on(3, "192.0.2.1")];
    let remotes = [
        "198.51.100.1:443",
        "198.51.100.1:443",
        "[::ffff:198.51.100.1]:443",
    ];
    let one = choose(&twice, &remotes, &[], 9);
    assert_eq!(one, [tuple("192.0.2.1:5000", "198.51.100.1:443")]);
}

#[test]
fn a_link_local_pair_names_its_link() {
    let locals = [on(7, "fe80::1"), on(8, "fe80::1")];
    let only = choose(&locals, &["[fe80::2%8]:443"], &[], 9);
    assert_eq!(only, [tuple("[fe80::1%8]:5000", "[fe80::2%8]:443")]);
}

#[test]
fn there_are_never_more_than_paths() {
    let locals: Vec<_> = (1..40u8)
        .map(|n| on(n.into(), &format!("192.0.2.{n}")))
        .collect();
    let many = choose(&locals, &["198.51.100.1:443"], &[], usize::MAX);
    assert_eq!(many.len(), limits::PATHS);
}

#[test]
fn what_failed_waits_longer_each_time() {
    let pair = tuple("192.0.2.1:5000", "198.51.100.1:443");
    let mut failures = Failures::default();
    let mut now = NOW;
    let mut last = Duration::ZERO;
    for n in 0..20 {
        failures.note(now, pair);
        assert!(failures.is_waiting(now, &pair));
        let until = failures.next(now).unwrap();
        let wait = until.saturating_since(now);
        assert!(wait > last || wait == LONGEST_WAIT, "{n}: {wait:?}");
        assert!(!failures.is_waiting(until, &pair));
        (last, now) = (wait, until);
    }
    assert_eq!(last, LONGEST_WAIT);
    failures.note(now, pair);
    failures.clear(pair);
    failures.note(now, pair);
    assert_eq!(failures.next(now), Some(now + FIRST_WAIT), "it starts over");
    failures.clear_local(pair.local.ip());
    assert!(!failures.is_waiting(now, &pair));
}

#[test]
fn failures_are_bounded_and_the_worst_stay() {
    let mut failures = Failures::default();
    let pair = |n: u16| tuple("192.0.2.1:5000", &format!("198.51.100.1:{n}"));
    failures.note(NOW, pair(1));
    failures.note(NOW, pair(1));
    for n in 2..2 * limits::FAILED_PAIRS as u16 {
        failures.note(NOW, pair(n));
    }
    assert_eq!(failures.0.len(), limits::FAILED_PAIRS);
    assert!(failures.is_waiting(NOW, &pair(1)));
    let locals = [on(2, "192.0.2.1")];
    let choice = Choice {
        locals: &locals,
        ports: &[],
        local_port: 5000,
        remotes: &[pair(1).remote],
        present: &[],
        failures: &failures,
        max: 9,
    };
    assert_eq!(candidates(NOW, &choice), []);
    let later = NOW + LONGEST_WAIT;
    assert_eq!(candidates(later, &choice), [pair(1)]);
}

proptest! {
    /// Whatever addresses there are: pairs that can work, each once, and all of them in the end.
    #[test]
    fn candidates_can_work_and_are_exhausted(
        locals in prop::collection::vec((any::<bool>(), 0..6u8, 1..4u32, 0..3u8), 0..8),
        remotes in prop::collection::vec((any::<bool>(), 0..6u8), 0..4),
        max in 0..12usize,
    ) {
        let ip = |v6: bool, n: u8| -> IpAddr {
            let (v4, v6_ip) = match n {
                0 => ("127.0.0.1", "::1"),
                1 => ("169.254.0.1", "fe80::1"),
                2 => ("192.0.2.1", "2001:db8::1"),
                3 => ("0.0.0.0", "::"),
                4 => ("198.51.100.1", "2001:db8::2"),
                _ => ("224.0.0.1", "ff02::1"),
            };
            if v6 { v6_ip } else { v4 }.parse().unwrap()
        };
        let states = [AddressState::Preferred, AddressState::Deprecated, AddressState::Tentative];
        let locals: Vec<_> = locals
            .into_iter()
            .map(|(v6, n, interface, state)| LocalAddress {
                ip: ip(v6, n),
                interface,
                state: states[usize::from(state)],
            })
            .collect();
        let remotes: Vec<_> = remotes
            .into_iter()
            .map(|(v6, n)| SocketAddr::new(ip(v6, n), 443))
            .collect();
        let failures = Failures::default();
        let mut present = Vec::new();
        let mut choice = Choice {
            locals: &locals,
            ports: &[],
            local_port: 5000,
            remotes: &remotes,
            present: &[],
            failures: &failures,
            max,
        };
        let got = candidates(NOW, &choice);
        let unique: HashSet<_> = got.iter().collect();
        prop_assert_eq!(unique.len(), got.len());
        for tuple in &got {
            let can = |l: &LocalAddress| l.ip == tuple.local.ip() && check(l, tuple.remote).is_ok();
            prop_assert!(locals.iter().any(can), "{:?}", tuple);
        }
        choice.max = limits::PATHS;
        let all = candidates(NOW, &choice);
        prop_assert_eq!(&all[..max.min(all.len())], &got[..]);
        present.extend(&all);
        choice.present = &present;
        if all.len() < limits::PATHS {
            prop_assert_eq!(candidates(NOW, &choice), vec![]);
        }
    }
}
