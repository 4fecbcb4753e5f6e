//! What holds for every controller.

use super::*;
use proptest::prelude::*;
use std::time::Duration;

const ALGORITHMS: [Algorithm; 5] = [
    Algorithm::NewReno,
    Algorithm::Cubic,
    Algorithm::Lia,
    Algorithm::Olia,
    Algorithm::Balia,
];
const MTU: usize = 1200;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_nanos(ms * 1_000_000)
}

fn rtt() -> Rtt {
    let mut rtt = Rtt::default();
    rtt.on_sample(at(0), Duration::from_millis(50), Duration::ZERO);
    rtt
}

/// Fills the window at `sent` and has `bytes` of it acknowledged at `now`.
fn ack(c: &mut Controller, sent: u64, now: u64, bytes: u64) {
    let window = c.window();
    c.on_packet_sent(at(sent), window, 0);
    ack_of(c, sent, now, bytes, window, false);
}

fn ack_of(c: &mut Controller, sent: u64, now: u64, bytes: u64, flight: u64, app_limited: bool) {
    let rtt = rtt();
    c.on_ack(&AckEvent {
        now: at(now),
        acked_bytes: bytes,
        largest_acked_sent: at(sent),
        rtt: &rtt,
        app_limited,
        bytes_in_flight: flight,
        bytes_left: 0,
    });
}

/// A controller that has left slow start at `window` bytes, its recovery period over by 1 s.
fn avoiding(algorithm: Algorithm, window: u64) -> Controller {
    let mut c = Controller::new(algorithm, MTU);
    while c.window() < 2 * window {
        let room = (2 * window - c.window()).min(c.window());
        ack(&mut c, 10, 60, room);
    }
    c.on_congestion_event(at(100), at(50), Congestion::Loss(1));
    let c2 = c.window();
    assert!(c2 < 2 * window && !c.in_slow_start());
    c
}

#[test]
fn the_initial_window_follows_the_datagram_size() {
    // RFC 9002 §7.2: min(10 * size, max(14,720, 2 * size)).
    for (mtu, window) in [
        (1200, 12_000),
        (1452, 14_520),
        (1500, 14_720),
        (8972, 17_944),
        (65_507, 131_014),
    ] {
        for algorithm in ALGORITHMS {
            let mut c = Controller::new(algorithm, mtu);
            assert_eq!((c.window(), c.ssthresh()), (window, u64::MAX));
            assert!(c.in_slow_start() && c.algorithm() == algorithm);
            c.on_mtu(1200);
            assert_eq!(c.window(), 12_000);
        }
    }
}

#[test]
fn a_grown_window_keeps_its_bytes_when_datagrams_grow() {
    let mut c = Controller::new(Algorithm::Cubic, MTU);
    ack(&mut c, 10, 60, 12_000);
    assert_eq!(c.window(), 24_000);
    c.on_mtu(1452);
    assert_eq!(c.window(), 24_000);
    c.on_mtu(65_507);
    assert_eq!(c.window(), 131_014, "the floor is two datagrams");
}

#[test]
fn slow_start_doubles_a_used_window_every_round() {
    for algorithm in ALGORITHMS {
        let mut c = Controller::new(algorithm, MTU);
        for round in 1..=5 {
            let window = c.window();
            ack(&mut c, round * 50, round * 50 + 50, window);
            assert_eq!(c.window(), 2 * window);
        }
    }
}

#[test]
fn an_unused_window_does_not_grow() {
    for algorithm in ALGORITHMS {
        let mut c = Controller::new(algorithm, MTU);
        for i in 0..10_000 {
            c.on_packet_sent(at(i * 50), 1200, 0);
            ack_of(&mut c, i * 50, i * 50 + 50, 1200, 1200, true);
        }
        assert_eq!(c.window(), 12_000);
        // Nor beyond twice of what is used in slow start.
        let mut c = Controller::new(algorithm, MTU);
        for i in 0..1000 {
            c.on_packet_sent(at(i * 50), 30_000, 0);
            ack_of(&mut c, i * 50, i * 50 + 50, 30_000, 30_000, false);
        }
        assert!(c.window() <= 2 * 30_000 + 30_000, "{}", c.window());
        let mut c = avoiding(algorithm, 60_000);
        let window = c.window();
        for i in 20..10_000 {
            c.on_packet_sent(at(i * 50), 30_000, 0);
            ack_of(&mut c, i * 50, i * 50 + 50, 30_000, 30_000, false);
        }
        assert_eq!(c.window(), window);
    }
}

/// Two datagrams of 1,200 bytes are all that such a window admits, and less than three quarters.
#[test]
fn a_window_that_holds_no_other_datagram_is_used() {
    for (algorithm, before) in [(Algorithm::NewReno, 6800), (Algorithm::Cubic, 7100)] {
        let mut c = avoiding(algorithm, before);
        let mut now = 200;
        while c.window() >= 3600 {
            now += 100;
            c.on_congestion_event(at(now), at(now - 50), Congestion::Loss(1));
        }
        let window = c.window();
        assert!((3201..3600).contains(&window), "{window}");
        for n in 0..100 {
            let now = 2000 + 50 * n;
            let flight = c.window() / 1200 * 1200;
            c.on_packet_sent(at(now), 1200, flight - 1200);
            ack_of(&mut c, now, now + 50, flight, flight, false);
        }
        assert!(c.window() > 2 * window, "{algorithm:?}: {}", c.window());
    }
}

#[test]
fn several_acks_of_one_turn_all_count() {
    for algorithm in ALGORITHMS {
        let mut c = Controller::new(algorithm, MTU);
        c.on_packet_sent(at(10), 12_000, 0);
        for i in 0..10 {
            ack_of(&mut c, 10, 60, 1200, 12_000 - i * 1200, false);
        }
        assert_eq!(c.window(), 24_000);
    }
}

#[test]
fn congestion_shrinks_once_a_recovery_period() {
    for algorithm in ALGORITHMS {
        let after = match algorithm {
            Algorithm::Cubic => 8_400,
            _ => 6_000,
        };
        let mut c = Controller::new(algorithm, MTU);
        assert!(c.on_congestion_event(at(100), at(50), Congestion::Loss(1)));
        assert_eq!((c.window(), c.ssthresh()), (after, after));
        // More losses of what was sent before the period began, the moment itself included.
        assert!(!c.on_congestion_event(at(120), at(99), Congestion::Loss(5)));
        assert!(!c.on_congestion_event(at(130), at(100), Congestion::Ecn(1)));
        // No growth for what was sent before it either.
        ack(&mut c, 100, 150, after);
        assert_eq!(c.window(), after);
        // A packet sent since begins the next.
        assert!(c.on_congestion_event(at(200), at(101), Congestion::Ecn(1)));
        assert!(c.window() < after);
    }
}

#[test]
fn the_window_never_falls_below_two_datagrams() {
    for algorithm in ALGORITHMS {
        let mut c = Controller::new(algorithm, MTU);
        for i in 1..50 {
            c.on_congestion_event(at(i * 100), at(i * 100 - 1), Congestion::Loss(1));
        }
        assert_eq!(c.window(), 2400);
        c.on_persistent_congestion(at(1));
        assert_eq!(c.window(), 2400);
    }
}

#[test]
fn newreno_adds_a_datagram_per_window() {
    let mut c = avoiding(Algorithm::NewReno, 60_000);
    assert_eq!(c.window(), 60_000);
    for i in 0..50 {
        ack(&mut c, 1000 + i, 1050 + i, 1200);
        let expected = if i < 49 { 60_000 } else { 61_200 };
        assert_eq!(c.window(), expected);
    }
}

#[test]
fn slow_start_ends_exactly_at_the_threshold() {
    let mut c = Controller::new(Algorithm::NewReno, MTU);
    for i in 0..3 {
        let window = c.window();
        ack(&mut c, 10 + i, 60 + i, window);
    }
    c.on_congestion_event(at(100), at(90), Congestion::Loss(1));
    c.on_persistent_congestion(at(1));
    assert_eq!((c.window(), c.ssthresh()), (2400, 48_000));
    while c.in_slow_start() {
        let window = c.window();
        ack(&mut c, 1000, 1050, window);
    }
    // 2400 doubles to 38,400; of the next 38,400 bytes 9,600 reach the threshold and the rest is
    // not a window.
    assert_eq!(c.window(), 48_000);
}

#[test]
fn a_refuted_loss_restores_the_window() {
    for algorithm in ALGORITHMS {
        let mut c = Controller::new(algorithm, MTU);
        c.on_congestion_event(at(100), at(50), Congestion::Loss(2));
        c.on_congestion_event(at(110), at(60), Congestion::Loss(1));
        assert!(!c.on_spurious(2, at(100)));
        assert!(c.window() < 12_000);
        assert!(c.on_spurious(1, at(110)));
        assert_eq!((c.window(), c.ssthresh()), (12_000, u64::MAX));
        assert_eq!(c.spurious_events(), 1);
        assert!(!c.on_spurious(1, at(110)), "once");
    }
}

#[test]
fn a_loss_is_not_refuted_by_another_or_despite_ecn() {
    for algorithm in ALGORITHMS {
        let mut c = Controller::new(algorithm, MTU);
        c.on_congestion_event(at(100), at(50), Congestion::Loss(1));
        c.on_congestion_event(at(200), at(150), Congestion::Loss(1));
        let window = c.window();
        assert!(!c.on_spurious(1, at(100)), "of the period before");
        c.on_congestion_event(at(210), at(160), Congestion::Ecn(1));
        assert!(!c.on_spurious(1, at(200)), "the network said so itself");
        c.on_congestion_event(at(300), at(250), Congestion::Loss(1));
        c.on_persistent_congestion(at(1));
        assert!(!c.on_spurious(1, at(300)));
        assert!(c.window() < window);
        assert_eq!(c.spurious_events(), 0);
    }
}

#[test]
fn a_rising_delay_ends_the_first_slow_start() {
    for algorithm in ALGORITHMS {
        let mut c = Controller::new(algorithm, MTU);
        let mut now = 1000;
        for round in 0u64..20 {
            let mut sample = Rtt::default();
            sample.on_sample(
                at(0),
                Duration::from_millis(50 + 10 * round),
                Duration::ZERO,
            );
            let (window, sent) = (c.window(), now);
            c.on_packet_sent(at(sent), window, 0);
            now += 100;
            for i in 0..10 {
                c.on_ack(&AckEvent {
                    now: at(now + i),
                    acked_bytes: window / 10,
                    largest_acked_sent: at(sent - 1 + i / 9),
                    rtt: &sample,
                    app_limited: false,
                    bytes_in_flight: window,
                    bytes_left: 0,
                });
            }
            now += 9;
        }
        assert!(!c.in_slow_start(), "{algorithm:?}");
        assert!(c.ssthresh() < 1_000_000 && c.ssthresh() > 12_000);
    }
}

proptest! {
    #[test]
    fn windows_stay_sane(
        ops in proptest::collection::vec((0u8..12, 1u64..200_000, 0u64..500), 1..400),
        algorithm in proptest::sample::select(&ALGORITHMS[..])
    ) {
        let mut c = Controller::new(algorithm, MTU);
        let mut now = 1000;
        let mut largest_flight = 12_000;
        for (op, bytes, dt) in ops {
            now += dt;
            let before = c.window();
            match op {
                0..=7 => {
                    let flight = bytes.min(before);
                    largest_flight = largest_flight.max(flight);
                    c.on_packet_sent(at(now - 50), flight, 0);
                    ack_of(&mut c, now - 50, now, flight, flight, op == 7);
                    let most = before + flight.max(before / 2);
                    prop_assert!((before..=most).contains(&c.window()));
                }
                8 | 9 => {
                    let sent = at(now - dt.min(50));
                    let shrank = c.on_congestion_event(at(now), sent, Congestion::Loss(1));
                    prop_assert!(c.window() <= before);
                    prop_assert!(!shrank || c.ssthresh() == c.window());
                }
                10 => {
                    c.on_spurious(1, at(now));
                }
                _ => c.on_persistent_congestion(at(1)),
            }
            prop_assert!(c.window() >= 2400);
            prop_assert!(c.window() <= 3 * largest_flight, "grew unused");
        }
    }
}
