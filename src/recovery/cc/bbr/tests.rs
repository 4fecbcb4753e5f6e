//! BBR step by step, against values computed by hand.

use super::*;
use crate::base::limits;
use crate::recovery::Rtt;
use proptest::prelude::*;

const MTU: usize = 1000;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_nanos(1_000_000_000 + ms * 1_000_000)
}

fn rtt(ms: u64) -> Rtt {
    let mut rtt = Rtt::default();
    rtt.on_sample(at(0), Duration::from_millis(ms), Duration::ZERO);
    rtt
}

/// A path of `rate` bytes a millisecond, `rtt` ms and no queue limit, and a sender that always has
/// something: the flight of each millisecond leaves at once, its acknowledgement comes when the
/// bottleneck has passed it and `rtt` is over.
struct Bench {
    bbr: Bbr,
    rate: u64,
    rtt: u64,
    now: u64,
    in_flight: u64,
    /// When sent, when acknowledged, bytes.
    flight: std::collections::VecDeque<(u64, u64, u64)>,
    /// In microseconds.
    busy_until: u64,
    estimates: Rtt,
    tokens: f64,
    pn: u64,
}

impl Bench {
    fn new(rate: u64, rtt: u64) -> Self {
        Self {
            bbr: Bbr::new(MTU),
            rate,
            rtt,
            now: 0,
            in_flight: 0,
            flight: std::collections::VecDeque::new(),
            busy_until: 0,
            estimates: Rtt::default(),
            tokens: 10_000.0,
            pn: 0,
        }
    }

    fn step(&mut self) {
        self.now += 1;
        while let Some(&(sent, acked, bytes)) = self.flight.front() {
            if acked > self.now {
                break;
            }
            self.flight.pop_front();
            let sample = Duration::from_millis(self.now - sent);
            self.estimates
                .on_sample(at(self.now), sample, Duration::ZERO);
            let ack = AckEvent {
                now: at(self.now),
                acked_bytes: bytes,
                largest_acked_sent: at(sent),
                rtt: &self.estimates,
                app_limited: false,
                bytes_in_flight: self.in_flight,
                bytes_left: self.in_flight - bytes,
            };
            self.in_flight -= bytes;
            self.bbr.on_ack(&ack);
        }
        let earned = self.bbr.pacing().rate / 1000.0;
        self.tokens = (self.tokens + earned).min(earned + self.bbr.pacing().quantum as f64);
        let room = self.bbr.congestion_window().saturating_sub(self.in_flight);
        let bytes = (self.tokens.max(0.0) as u64).min(room) / MTU as u64 * MTU as u64;
        if bytes == 0 {
            return;
        }
        self.tokens -= bytes as f64;
        self.bbr.on_packet_sent(at(self.now), bytes, self.in_flight);
        self.pn += 1;
        self.in_flight += bytes;
        self.busy_until = self.busy_until.max(1000 * self.now) + 1000 * bytes / self.rate;
        let acked = self.busy_until.div_ceil(1000) + self.rtt;
        self.flight.push_back((self.now, acked, bytes));
    }

    /// The latest train is lost.
    fn lose_last(&mut self) {
        let (sent, _, bytes) = self.flight.pop_back().expect("a flight");
        self.in_flight -= bytes;
        for n in 0..bytes / MTU as u64 {
            self.bbr
                .on_packet_lost(at(self.now), 10_000 + self.pn + n, at(sent), MTU as u64);
        }
        let loss = Congestion::Loss((bytes / MTU as u64) as u32);
        self.bbr.on_congestion_event(at(self.now), at(sent), loss);
    }

    fn run_until(&mut self, what: impl Fn(&Bbr) -> bool) {
        for _ in 0..30_000 {
            if what(&self.bbr) {
                return;
            }
            self.step();
        }
        panic!("never: {:?}", self.bbr.state);
    }
}

#[test]
fn a_rate_sample_is_what_was_delivered_over_the_longer_interval() {
    let mut s = Sampler::new();
    // 10 kB at 0 and 10 kB at 10 ms; acknowledged at 40 and at 60 ms.
    s.on_sent(at(0), 10_000, 0);
    s.on_sent(at(10), 10_000, 10_000);
    let min = Duration::from_millis(40);
    let rs = s.on_ack(at(40), 10_000, at(0), min).expect("known");
    assert_eq!((rs.delivered, rs.prior_delivered), (10_000, 0));
    assert_eq!(rs.delivery_rate, 250_000.0);
    // From 0, when the first left, to 60 ms: 20 kB. Sending took 10 ms only.
    let rs = s.on_ack(at(60), 10_000, at(10), min).expect("known");
    assert!((rs.delivery_rate - 20_000.0 / 0.06).abs() < 1.0);
    assert_eq!((rs.tx_in_flight, rs.lost), (20_000, 0));
    assert_eq!(rs.rtt, Duration::from_millis(50));
    // Nothing in flight: the next interval begins with what is sent.
    s.on_sent(at(1000), 5_000, 0);
    s.lost += 700;
    let rs = s.on_ack(at(1040), 5_000, at(1000), min).expect("known");
    assert_eq!(rs.delivery_rate, 125_000.0);
    assert_eq!(rs.lost, 700);
}

#[test]
fn a_sample_shorter_than_the_smallest_rtt_has_no_rate() {
    let mut s = Sampler::new();
    s.on_sent(at(0), 10_000, 0);
    let rs = s
        .on_ack(at(30), 10_000, at(0), Duration::from_millis(31))
        .expect("known");
    assert_eq!((rs.delivery_rate, rs.delivered), (0.0, 10_000));
}

#[test]
fn samples_are_app_limited_until_the_gap_has_left_the_path() {
    let mut s = Sampler::new();
    let min = Duration::from_millis(10);
    s.on_sent(at(0), 3_000, 0);
    s.on_out_of_data(at(2));
    s.check_app_limited(at(2), 3_000, 10_000);
    assert!(!s.is_app_limited(), "pacing would not have sent more");
    s.check_app_limited(at(3), 10_000, 10_000);
    assert!(!s.is_app_limited(), "the window would not have either");
    s.check_app_limited(at(3), 3_000, 10_000);
    assert!(s.is_app_limited());
    s.on_sent(at(3), 1_000, 3_000);
    let rs = s.on_ack(at(40), 3_000, at(0), min).expect("known");
    assert!(!rs.app_limited && s.is_app_limited());
    let rs = s.on_ack(at(43), 1_000, at(3), min).expect("known");
    assert!(rs.app_limited && !s.is_app_limited());
}

#[test]
fn records_are_one_a_train_and_bounded() {
    let mut s = Sampler::new();
    for pn in 0..64 {
        s.on_sent(at(1), 1_000, pn * 1_000);
    }
    assert_eq!(s.records(), 1);
    assert_eq!(s.sent_at(at(1)).expect("one").tx_in_flight, 64_000);
    assert!(s.sent_at(at(0)).is_none());
    for ms in 2..2 * limits::SEND_RECORDS as u64 {
        s.on_sent(at(ms), 1_000, 64_000);
    }
    assert_eq!(s.records(), limits::SEND_RECORDS);
    let last = at(2 * limits::SEND_RECORDS as u64);
    assert!(s.sent_at(last).is_some(), "later trains join the last");
    s.forget(last, last, Duration::from_millis(1));
    assert_eq!(s.records(), 0);
}

#[test]
fn the_first_rate_is_the_initial_window_in_a_round_trip() {
    let mut b = Bbr::new(MTU);
    assert_eq!(b.congestion_window(), 10_000);
    // 2.77 * 10 kB in 1 ms, until an RTT is known.
    assert_eq!(b.pacing().rate, 2.77e7);
    b.on_packet_sent(at(0), 10_000, 0);
    let rtt = rtt(100);
    b.on_ack(&AckEvent {
        now: at(100),
        acked_bytes: 10_000,
        largest_acked_sent: at(0),
        rtt: &rtt,
        app_limited: false,
        bytes_in_flight: 10_000,
        bytes_left: 0,
    });
    // The sample is 10 kB in 100 ms; times 2.77 less one percent is below what it was.
    assert!((b.pacing().rate - 277_000.0).abs() < 1.0);
    assert_eq!(b.bw, 100_000.0);
    assert_eq!(b.pacing().quantum, 2_000);
    assert_eq!(b.congestion_window(), 20_000);
}

#[test]
fn startup_finds_the_rate_then_drains_and_probes() {
    // 5 MB/s, 40 ms: 200 kB.
    let mut b = Bench::new(5_000, 40);
    b.run_until(|b| b.state == State::Drain);
    assert!(b.now < 800, "{} ms", b.now);
    let max = b.bbr.max_bw.get();
    assert!((4.7e6..5.2e6).contains(&max), "{max}");
    b.run_until(|b| b.state != State::Drain);
    assert!(b.bbr.state.is_probe_bw());
    let flight = b.in_flight;
    assert!(flight <= 215_000, "{flight}");
    assert_eq!(b.bbr.min_rtt.value, Some(Duration::from_millis(41)));
    for state in [State::Cruise, State::Refill, State::Up, State::Down] {
        b.run_until(|b| b.state == state);
        assert!(b.bbr.congestion_window() <= 520_000);
    }
}

#[test]
fn a_smallest_rtt_that_is_five_seconds_old_is_looked_for_again() {
    let mut b = Bench::new(5_000, 40);
    b.run_until(|b| b.state == State::ProbeRtt);
    assert!((5_000..6_500).contains(&b.now), "{} ms", b.now);
    // Half of the pipe: 100 kB.
    b.run_until(|b| b.probe_rtt_done.is_some());
    let window = b.bbr.congestion_window();
    assert!((90_000..=105_000).contains(&window), "{window}");
    let began = b.now;
    b.run_until(|b| b.state == State::Cruise);
    assert!((200..300).contains(&(b.now - began)));
    assert!(b.bbr.congestion_window() > 200_000, "restored");
}

#[test]
fn loss_beside_probing_keeps_seven_tenths_or_what_was_delivered() {
    let mut b = Bench::new(5_000, 40);
    b.run_until(|b| b.state == State::Cruise);
    b.lose_last();
    assert!(b.bbr.bounds.bw_shortterm.is_infinite(), "once a round");
    b.run_until(|b| b.bounds.bw_shortterm.is_finite());
    let bw = b.bbr.bounds.bw_shortterm;
    assert!((4.0e6..=5.2e6).contains(&bw), "{bw}: what was delivered");
    assert!(b.bbr.congestion_window() <= b.bbr.bounds.inflight_shortterm);
    b.run_until(|b| b.state == State::Refill);
    assert!(b.bbr.bounds.bw_shortterm.is_infinite(), "forgotten");
}

#[test]
fn a_probe_that_loses_too_much_sets_the_long_term_bound() {
    let mut b = Bench::new(5_000, 40);
    b.run_until(|b| b.state == State::Up);
    for _ in 0..20 {
        b.step();
    }
    let flight = b.in_flight;
    while b.bbr.state == State::Up {
        b.lose_last();
    }
    assert_eq!(b.bbr.state, State::Down);
    let bound = b.bbr.bounds.inflight_longterm;
    assert!(
        bound <= flight + 10_000 && bound >= flight * 7 / 10,
        "{bound}"
    );
    assert!(b.bbr.bounds.prev_probe_too_high);
    // The losses were none: the bound goes, and the probe begins again.
    let losses = b.bbr.bounds.unrefuted().expect("losses only");
    assert!(b.bbr.on_spurious(losses, at(b.now)));
    assert_eq!(b.bbr.state, State::Refill);
    assert_eq!(b.bbr.bounds.inflight_longterm, UNBOUNDED);
    assert_eq!(b.bbr.spurious_events(), 1);
}

#[test]
fn marks_are_congestion_that_nothing_refutes() {
    let mut b = Bench::new(5_000, 40);
    b.run_until(|b| b.state == State::Up);
    let now = at(b.now);
    for _ in 0..20 {
        b.step();
    }
    // A fifth of the flight marked is above two percent.
    assert!(
        b.bbr
            .on_congestion_event(at(b.now), now, Congestion::Ecn(40))
    );
    assert_eq!(b.bbr.state, State::Down);
    assert_ne!(b.bbr.bounds.inflight_longterm, UNBOUNDED);
    assert!(!b.bbr.on_spurious(40, at(b.now)));
    assert!(
        !b.bbr
            .on_congestion_event(at(b.now), now, Congestion::Ecn(1)),
        "the same episode"
    );
}

/// RFC 9002 §7.6.2: `kMinimumWindow` after persistent congestion; what was known of the path counts
/// again once something comes through.
#[test]
fn persistent_congestion_leaves_two_datagrams_until_an_acknowledgement() {
    let mut b = Bench::new(5_000, 40);
    b.run_until(|b| b.state == State::Cruise);
    let before = b.bbr.congestion_window();
    b.bbr.on_persistent_congestion(at(b.now));
    assert_eq!(b.bbr.congestion_window(), 2_000);
    b.flight.clear();
    b.in_flight = 0;
    b.run_until(|b| b.collapsed_at.is_none());
    let after = b.bbr.congestion_window();
    assert!(after > before / 2 && after <= before, "{after}");
}

#[test]
fn startup_ends_when_a_round_loses_in_six_places() {
    for (places, ends) in [(5, false), (7, true)] {
        let mut b = Bench::new(5_000, 40);
        b.run_until(|b| b.bw > 2.0e6);
        assert_eq!(b.bbr.state, State::Startup);
        let sent = at(b.flight.back().expect("a flight").0);
        for n in 0..places {
            b.bbr.on_packet_lost(at(b.now), 100 + 2 * n, sent, 3_000);
        }
        let until = b.now + 75;
        while b.now < until && b.bbr.state == State::Startup {
            b.step();
        }
        assert_eq!(b.bbr.full_bw.reached, ends, "{places} places");
        assert_eq!(b.bbr.bounds.inflight_longterm != UNBOUNDED, ends);
    }
}

#[test]
fn the_filter_forgets_after_two_cycles_that_measured() {
    let mut f = MaxBw::default();
    f.update(10.0);
    f.advance();
    f.update(6.0);
    assert_eq!(f.get(), 10.0);
    f.advance();
    assert_eq!(f.get(), 6.0);
    f.advance();
    assert_eq!(f.get(), 6.0, "a cycle without samples");
}

#[test]
fn aggregation_is_what_came_beyond_the_rate() {
    let mut e = ExtraAcked::new();
    let mut acked = |ms, bytes, round| {
        e.update(at(ms), bytes, 1e6, 1 << 20, round, false);
        e.get()
    };
    assert_eq!(acked(0, 20_000, 1), 20_000);
    // 10 ms later 10 kB were expected and 5 kB more came.
    assert_eq!(acked(10, 5_000, 2), 20_000);
    assert_eq!(acked(12, 30_000, 3), 43_000);
    // It is remembered for five to ten rounds.
    assert_eq!(acked(500, 1_000, 8), 43_000);
    assert!(acked(600, 1_000, 13) < 43_000);
}

proptest! {
    #[test]
    fn nothing_overflows_and_the_window_has_a_floor(
        steps in proptest::collection::vec((0u8..6, 0u64..2_000_000, 0u64..100_000), 1..300)
    ) {
        let mut b = Bbr::new(MTU);
        let (mut now, mut flight, mut sent) = (1_000_000_000u64, 0u64, 0u64);
        for (what, ns, bytes) in steps {
            now += ns;
            let t = Timestamp::from_nanos(now);
            match what {
                0 | 1 => {
                    b.on_packet_sent(t, bytes, flight);
                    (flight, sent) = (flight + bytes, now);
                }
                2 | 3 => {
                    let acked = bytes.min(flight);
                    let mut rtt = Rtt::default();
                    rtt.on_sample(t, Duration::from_nanos(ns), Duration::ZERO);
                    b.on_ack(&AckEvent {
                        now: t,
                        acked_bytes: acked,
                        largest_acked_sent: Timestamp::from_nanos(sent.saturating_sub(ns)),
                        rtt: &rtt,
                        app_limited: false,
                        bytes_in_flight: flight,
                        bytes_left: flight - acked,
                    });
                    flight -= acked;
                }
                4 => {
                    let lost = bytes.min(flight);
                    b.on_packet_lost(t, now, Timestamp::from_nanos(sent), lost);
                    b.on_congestion_event(t, Timestamp::from_nanos(sent), Congestion::Loss(1));
                    flight -= lost;
                }
                _ if bytes % 3 == 0 => b.on_persistent_congestion(t),
                _ if bytes % 3 == 1 => { b.on_congestion_event(t, t, Congestion::Ecn(bytes)); }
                _ => { b.on_spurious(1, t); b.on_out_of_data(t); }
            }
            prop_assert!(b.congestion_window() >= 2_000);
            prop_assert!(b.pacing().rate.is_finite() && b.pacing().rate > 0.0);
            prop_assert!(b.pacing().quantum >= 2_000);
        }
    }
}
