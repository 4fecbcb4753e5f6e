//! Coupled controllers on a model of bottlenecks: packets, queues, acknowledgements and losses, and
//! nothing of the rest of a connection. What a flow of two paths gets, and what it leaves to
//! others.
//!
//! Queues drop at random from their half on, so that losses hit flows in proportion to what they
//! send and no phase effect decides; every course follows from its seed.

use corelane::base::{Rng, Timestamp};
use corelane::recovery::{AckEvent, Algorithm, Congestion, Controller, CoupledGroup, Rtt};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

const MTU: u64 = 1200;
const SEEDS: u64 = 4;
const COUPLED: [Algorithm; 3] = [Algorithm::Lia, Algorithm::Olia, Algorithm::Balia];
/// The chance of a drop just below the full queue.
const EARLY_DROP: f64 = 0.02;

/// A bottleneck.
struct Link {
    nanos_per_byte: f64,
    /// There and back with an empty queue.
    rtt: Duration,
    queue: f64,
    busy_until: Timestamp,
}

impl Link {
    /// With a queue of one bandwidth-delay product.
    fn new(mbps: u64, rtt_ms: u64) -> Self {
        let rtt = Duration::from_millis(rtt_ms);
        Self {
            nanos_per_byte: 8000.0 / mbps as f64,
            rtt,
            queue: mbps as f64 * 1e6 / 8.0 * rtt.as_secs_f64(),
            busy_until: Timestamp::ZERO,
        }
    }

    /// When a packet that comes now has passed; `None` when it is dropped.
    fn pass(&mut self, now: Timestamp, rng: &mut Rng) -> Option<Timestamp> {
        let waiting = (self.busy_until - now).as_nanos() as f64 / self.nanos_per_byte;
        let beyond_half = (waiting / self.queue - 0.5).max(0.0) * 2.0;
        if waiting + MTU as f64 > self.queue || rng.chance(beyond_half * EARLY_DROP) {
            return None;
        }
        let time = Duration::from_nanos((MTU as f64 * self.nanos_per_byte) as u64);
        self.busy_until = self.busy_until.max(now) + time;
        Some(self.busy_until)
    }
}

/// One path of a flow that always has something to send.
struct Sender {
    flow: usize,
    link: usize,
    cc: Controller,
    rtt: Rtt,
    in_flight: u64,
    delivered: u64,
}

/// A packet's fate reaches its sender. Field order is the heap's order: time, then age.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct News {
    time: Timestamp,
    number: u64,
    sender: usize,
    sent: Timestamp,
    arrived: bool,
}

struct Model {
    now: Timestamp,
    links: Vec<Link>,
    senders: Vec<Sender>,
    news: BinaryHeap<Reverse<News>>,
    count: u64,
    rng: Rng,
}

impl Model {
    /// Flows by algorithm and the links of their paths.
    fn new(seed: u64, links: Vec<Link>, flows: &[(Algorithm, &[usize])]) -> Self {
        let sender = |flow: usize, algorithm, link| Sender {
            flow,
            link,
            cc: Controller::new(algorithm, MTU as usize),
            rtt: Rtt::default(),
            in_flight: 0,
            delivered: 0,
        };
        let senders = flows.iter().enumerate().flat_map(|(i, (algorithm, path))| {
            path.iter().map(move |link| sender(i, *algorithm, *link))
        });
        Self {
            now: Timestamp::from_nanos(1),
            senders: senders.collect(),
            links,
            news: BinaryHeap::new(),
            count: 0,
            rng: Rng::from_u64(seed),
        }
    }

    fn send(&mut self, i: usize) {
        let sender = &mut self.senders[i];
        while sender.cc.window() >= sender.in_flight + MTU {
            sender.cc.on_packet_sent(self.now, MTU, sender.in_flight);
            sender.in_flight += MTU;
            let link = &mut self.links[sender.link];
            let passed = link.pass(self.now, &mut self.rng);
            // A loss shows when later packets are acknowledged.
            let at = passed.unwrap_or(link.busy_until.max(self.now));
            let jitter = Duration::from_nanos(self.rng.below(500_000));
            self.count += 1;
            self.news.push(Reverse(News {
                time: at + link.rtt + jitter,
                number: self.count,
                sender: i,
                sent: self.now,
                arrived: passed.is_some(),
            }));
        }
    }

    /// What a connection does before it hands an acknowledgement or a loss to a controller.
    fn couple(&mut self, i: usize) {
        let flow = self.senders[i].flow;
        let mut group = CoupledGroup::default();
        for (key, s) in self.senders.iter().enumerate() {
            if s.flow == flow {
                group.push(key as u32, &s.cc, &s.rtt);
            }
        }
        self.senders[i].cc.couple(&group, i as u32);
    }

    fn hear(&mut self, news: &News) {
        self.couple(news.sender);
        let now = self.now;
        let sender = &mut self.senders[news.sender];
        let before = sender.in_flight;
        sender.in_flight -= MTU;
        if !news.arrived {
            sender
                .cc
                .on_congestion_event(now, news.sent, Congestion::Loss(1));
            return;
        }
        sender.rtt.on_sample(now, now - news.sent, Duration::ZERO);
        sender.delivered += MTU;
        sender.cc.on_ack(&AckEvent {
            now,
            acked_bytes: MTU,
            largest_acked_sent: news.sent,
            rtt: &sender.rtt,
            app_limited: false,
            bytes_in_flight: before,
            bytes_left: sender.in_flight,
        });
    }

    fn run(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        for i in 0..self.senders.len() {
            self.send(i);
        }
        while let Some(Reverse(news)) = self.news.pop() {
            self.now = news.time;
            self.hear(&news);
            self.send(news.sender);
            if self.now >= end {
                return;
            }
        }
    }

    /// Mbit/s of each path over the next `seconds`.
    fn rates(&mut self, seconds: u64) -> Vec<f64> {
        let before: Vec<u64> = self.senders.iter().map(|s| s.delivered).collect();
        self.run(seconds);
        let after = self.senders.iter().zip(before);
        let rate = |bytes| bytes as f64 * 8.0 / 1e6 / seconds as f64;
        after
            .map(|(s, before)| rate(s.delivered - before))
            .collect()
    }
}

/// Mean rates of all paths, once they have run for a while.
fn mean_rates(links: impl Fn() -> Vec<Link>, flows: &[(Algorithm, &[usize])]) -> Vec<f64> {
    let mut mean = Vec::new();
    for seed in 0..SEEDS {
        let mut model = Model::new(seed, links(), flows);
        model.run(20);
        let rates = model.rates(100);
        mean.resize(rates.len(), 0.0);
        for (mean, rate) in mean.iter_mut().zip(rates) {
            *mean += rate / SEEDS as f64;
        }
    }
    mean
}

/// The model itself: two NewReno flows halve a path and fill it, and two uncoupled paths of one
/// flow take two thirds of it.
#[test]
fn uncoupled_paths_take_a_share_each() {
    let reno = Algorithm::NewReno;
    let links = || vec![Link::new(20, 40)];
    let rates = mean_rates(links, &[(reno, &[0]), (reno, &[0])]);
    assert!(rates.iter().all(|r| (9.0..11.0).contains(r)), "{rates:?}");
    let rates = mean_rates(links, &[(reno, &[0]), (reno, &[0, 0])]);
    assert!(rates[1] + rates[2] > 1.7 * rates[0], "{rates:?}");
}

/// RFC 6356 §2, goal 2: on a shared bottleneck no more than a flow of one path, and no less.
#[test]
fn coupled_paths_share_a_bottleneck_like_one_flow() {
    let reno: (Algorithm, &[usize]) = (Algorithm::NewReno, &[0]);
    for algorithm in COUPLED {
        for others in [1, 2] {
            let mut flows = vec![reno; others];
            flows.push((algorithm, &[0, 0]));
            let rates = mean_rates(|| vec![Link::new(50, 40)], &flows);
            let one = rates[..others].iter().sum::<f64>() / others as f64;
            let ratio = (rates[others] + rates[others + 1]) / one;
            assert!((0.85..1.15).contains(&ratio), "{algorithm:?} {rates:?}");
        }
    }
}

/// RFC 6356 §2, goal 1: at least what the best path alone would give; alone on two paths, both.
/// BALIA gives up three quarters of the slower one's window at a loss, as published, which a queue
/// of one bandwidth-delay product does not bridge.
#[test]
fn coupled_paths_fill_two_bottlenecks() {
    for (second, rtt, balia) in [(20, 40, 18.0), (5, 100, 4.0)] {
        let links = || vec![Link::new(20, 40), Link::new(second, rtt)];
        for algorithm in COUPLED {
            let rates = mean_rates(links, &[(algorithm, &[0, 1])]);
            let least = match algorithm {
                Algorithm::Balia => balia,
                _ => 0.9 * second as f64,
            };
            assert!(
                rates[0] > 18.0 && rates[1] > least,
                "{algorithm:?} {rates:?}"
            );
        }
    }
}

/// RFC 6356 §2, goal 3: traffic moves away from the path that others crowd.
#[test]
fn coupled_paths_leave_the_crowded_bottleneck() {
    let reno = Algorithm::NewReno;
    for algorithm in COUPLED {
        let flows: [(Algorithm, &[usize]); 4] = [
            (algorithm, &[0, 1]),
            (reno, &[1]),
            (reno, &[1]),
            (reno, &[1]),
        ];
        let rates = mean_rates(|| vec![Link::new(20, 40), Link::new(20, 40)], &flows);
        assert!(rates[0] > 18.0, "{algorithm:?} {rates:?}");
        // A fourth NewReno flow would have taken 5.
        assert!(rates[1] < 3.0, "{algorithm:?} {rates:?}");
    }
}
