//! Sending, acknowledging and losing packets: RFC 9002's rules by hand, then against a naive model.

use super::*;
use crate::base::limits;
use crate::recovery::{LostSummary, Rtt};
use crate::wire::Code;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const MAX_ACK_DELAY: Duration = Duration::from_millis(25);

fn at(ms: u64) -> Timestamp {
    Timestamp::from_nanos(ms * 1_000_000)
}

fn packet(now: Timestamp, size: u16) -> SentPacket {
    SentPacket {
        time_sent: now,
        size,
        ack_eliciting: true,
        in_flight: true,
        mtu_probe: false,
        app_limited: false,
        spare: false,
        ecn: Ecn::NotEct,
    }
}

fn ack_only(now: Timestamp) -> SentPacket {
    SentPacket {
        ack_eliciting: false,
        in_flight: false,
        ..packet(now, 40)
    }
}

/// An RTT of 100 ms without variation: loss delay 112.5 ms, PTO 101 ms + delay.
fn rtt_100ms() -> Rtt {
    let mut rtt = Rtt::default();
    for _ in 0..100 {
        rtt.on_sample(at(0), Duration::from_millis(100), Duration::ZERO);
    }
    rtt
}

fn ack(
    space: &mut SentSpace<u32>,
    ranges: &[RangeInclusive<u64>],
) -> Result<(AckSummary, Vec<u64>), TransportError> {
    let mut acked = Vec::new();
    let summary = space.on_ack_received(ranges.iter().cloned(), |pn, _, frames| {
        assert_eq!(frames, [pn as u32, pn as u32 + 1]);
        acked.push(pn);
    })?;
    Ok((summary, acked))
}

fn lose(space: &mut SentSpace<u32>, now: Timestamp, rtt: &Rtt) -> (LostSummary, Vec<u64>) {
    let mut lost = Vec::new();
    let summary = space.detect_lost(now, rtt, MAX_ACK_DELAY, |pn, _, _| lost.push(pn));
    (summary, lost)
}

/// A space that has sent packets 0..`n`, one a millisecond, 1000 bytes each.
fn sent(n: u64) -> SentSpace<u32> {
    let mut space = SentSpace::new();
    for pn in 0..n {
        let frames = [pn as u32, pn as u32 + 1];
        assert_eq!(space.on_packet_sent(packet(at(pn), 1000), &frames), pn);
    }
    space
}

#[test]
fn an_ack_settles_packets_once() {
    let mut space = sent(10);
    assert_eq!(space.bytes_in_flight(), 10_000);
    let (s, acked) = ack(&mut space, &[4..=6, 0..=1]).expect("sent");
    assert_eq!(acked, [4, 5, 6, 0, 1]);
    assert_eq!((s.newly_acked, s.acked_bytes), (5, 5000));
    assert_eq!(s.largest_newly_acked, Some((6, at(6))));
    assert!(s.largest_is_new && s.largest_advanced && s.acked_ack_eliciting);
    assert_eq!(
        (space.bytes_in_flight(), space.ack_eliciting_in_flight()),
        (5000, 5)
    );
    let (s, acked) = ack(&mut space, &[4..=6, 0..=2]).expect("sent");
    assert_eq!(acked, [2]);
    assert!(!s.largest_is_new && !s.largest_advanced);
    assert_eq!(s.largest_newly_acked, Some((2, at(2))));
    let (s, acked) = ack(&mut space, &[0..=9]).expect("sent");
    assert_eq!(acked, [3, 7, 8, 9]);
    assert!(s.newly_acked_any() && space.is_empty());
    assert_eq!(
        (space.bytes_in_flight(), space.largest_acked()),
        (0, Some(9))
    );
    assert_eq!(space.last_ack_eliciting_sent(), Some(at(9)));
    assert_eq!(space.times().last_ack_eliciting_sent, None);
    space.on_packet_sent(packet(at(20), 1000), &[10, 11]);
    assert_eq!(space.times().last_ack_eliciting_sent, Some(at(20)));
}

#[test]
fn acks_of_what_was_not_sent_are_violations() {
    let mut space = sent(3);
    let err = ack(&mut space, &[1..=3]).expect_err("3 was not sent");
    assert_eq!(err.code, Code::PROTOCOL_VIOLATION);
    assert_eq!(space.bytes_in_flight(), 3000, "nothing was taken from it");
    let err = ack(&mut SentSpace::new(), &[0..=0]).expect_err("nothing was sent");
    assert_eq!(err.code, Code::PROTOCOL_VIOLATION);
}

#[test]
fn acks_of_skipped_numbers_are_violations() {
    let mut space = sent(3);
    assert_eq!(space.skip_packet_number(), 3);
    assert_eq!(space.next_packet_number(), 4);
    space.on_packet_sent(packet(at(4), 1000), &[4, 5]);
    let mut honest = space.clone();
    let (_, acked) = ack(&mut honest, &[4..=4, 0..=2]).expect("honest");
    assert_eq!(acked, [4, 0, 1, 2]);
    assert!(honest.is_empty());
    // Later ACKs repeat old ranges, and the honest ones do not span the gap.
    assert!(ack(&mut honest, &[4..=4, 0..=2]).is_ok());
    let err = ack(&mut space, &[0..=4]).expect_err("3 was skipped");
    assert_eq!(err.code, Code::PROTOCOL_VIOLATION);
    // The space still works for the packet that closes the connection.
    space.on_packet_sent(packet(at(5), 1000), &[1]);
    // A number skipped on an empty space is no different.
    let mut space = SentSpace::<u32>::new();
    space.skip_packet_number();
    assert!(space.is_empty());
    assert!(ack(&mut space, &[0..=0]).is_err());
}

#[test]
fn three_later_packets_make_a_loss() {
    // RFC 9002 §6.1.1: 4 acknowledged; 0 and 1 are three or more below, 2 and 3 are not.
    let mut space = sent(6);
    ack(&mut space, &[4..=4]).expect("sent");
    let (s, lost) = lose(&mut space, at(10), &rtt_100ms());
    assert_eq!(lost, [0, 1]);
    assert_eq!((s.count, s.bytes, s.max_size), (2, 2000, 1000));
    assert_eq!(s.largest_lost_sent, Some(at(1)));
    assert!(!s.persistent_congestion);
    assert_eq!(space.bytes_in_flight(), 3000);
    // 2 was sent at 2 ms: lost 112.5 ms later, 3 a millisecond after that.
    let ns = |us: u64| Timestamp::from_nanos(us * 1000);
    assert_eq!(space.loss_time(), Some(ns(114_500)));
    let (_, lost) = lose(&mut space, ns(114_499), &rtt_100ms());
    assert!(lost.is_empty());
    let (_, lost) = lose(&mut space, ns(114_500), &rtt_100ms());
    assert_eq!(lost, [2]);
    assert_eq!(space.loss_time(), Some(ns(115_500)));
    let (_, lost) = lose(&mut space, ns(200_000), &rtt_100ms());
    assert_eq!(lost, [3]);
    // 5 is above the largest acknowledged: no time makes it lost.
    let (_, lost) = lose(&mut space, at(1_000_000), &rtt_100ms());
    assert!(lost.is_empty() && space.loss_time().is_none());
    assert_eq!(space.bytes_in_flight(), 1000);
}

#[test]
fn at_tiny_rtts_the_granularity_bounds_the_time_threshold() {
    let mut rtt = Rtt::default();
    rtt.on_sample(at(0), Duration::from_micros(30), Duration::ZERO);
    let mut space = sent(2);
    ack(&mut space, &[1..=1]).expect("sent");
    let (_, lost) = lose(&mut space, Timestamp::from_nanos(999_999), &rtt);
    assert!(lost.is_empty());
    assert_eq!(space.loss_time(), Some(at(1)));
    assert_eq!(lose(&mut space, at(1), &rtt).1, [0]);
}

#[test]
fn a_late_ack_of_a_lost_packet_is_recognised_for_a_while() {
    let mut space = sent(10);
    ack(&mut space, &[9..=9]).expect("sent");
    assert_eq!(lose(&mut space, at(10), &rtt_100ms()).1.len(), 7);
    assert_eq!(space.lost_remembered(), 7);
    let (s, acked) = ack(&mut space, &[9..=9, 2..=4]).expect("sent");
    assert_eq!((s.spurious_losses, acked.len()), (3, 0));
    assert_eq!(s.spurious_lost_at, Some(at(10)));
    assert!(!s.newly_acked_any());
    // Once counted, not counted again.
    let (s, _) = ack(&mut space, &[9..=9, 2..=5]).expect("sent");
    assert_eq!(s.spurious_losses, 1);
    // One PTO (126 ms) later they are forgotten; 7 and 8 became lost by time meanwhile.
    lose(&mut space, at(10 + 126), &rtt_100ms());
    assert_eq!(space.lost_remembered(), 3 + 2);
    lose(&mut space, at(10 + 128), &rtt_100ms());
    assert_eq!(space.lost_remembered(), 2);
}

#[test]
fn remembered_losses_are_bounded() {
    let n = limits::LOST_PACKETS as u64 + 500;
    let mut space = sent(n);
    ack(&mut space, &[n - 1..=n - 1]).expect("sent");
    lose(&mut space, at(n), &rtt_100ms());
    assert_eq!(space.lost_remembered(), limits::LOST_PACKETS);
    let (s, _) = ack(&mut space, &[0..=n - 1]).expect("sent");
    assert_eq!(s.spurious_losses as usize, limits::LOST_PACKETS);
}

/// Sends at the given times (ms), acknowledges the last, and asks whether the losses establish
/// persistent congestion.
fn persistent(times: &[u64], acked: &[u64], rtt: &Rtt) -> bool {
    let mut space = SentSpace::<u32>::new();
    for &ms in times {
        space.on_packet_sent(packet(at(ms), 1000), &[]);
    }
    let last = times.len() as u64 - 1;
    let mut ranges = vec![last..=last];
    ranges.extend(acked.iter().rev().map(|&pn| pn..=pn));
    space
        .on_ack_received(ranges.into_iter(), |_, _, _| {})
        .expect("sent");
    lose(&mut space, at(1_000_000), rtt).0.persistent_congestion
}

#[test]
fn persistent_congestion_needs_a_long_run_of_losses() {
    // smoothed 100 ms, rttvar near 0: (100 + 1 + 25) * 3 = 378 ms.
    let rtt = rtt_100ms();
    let span = rtt.persistent_congestion_duration(MAX_ACK_DELAY);
    assert_eq!(span.as_millis(), 378);
    assert!(persistent(&[1, 200, 380, 500], &[], &rtt));
    assert!(!persistent(&[1, 200, 379, 500], &[], &rtt));
    // An acknowledged packet in between breaks the run.
    assert!(!persistent(&[1, 200, 380, 500], &[1], &rtt));
    assert!(persistent(&[1, 2, 200, 390, 500], &[0], &rtt));
    // Packets sent before the first sample do not count, and without one nothing does.
    assert!(!persistent(&[0, 200, 378, 500], &[], &rtt));
    assert!(!persistent(&[1, 200, 5000, 9000], &[], &Rtt::default()));
}

#[test]
fn a_lost_mtu_probe_is_no_congestion_signal() {
    let mut space = SentSpace::<u32>::new();
    let probe = SentPacket {
        mtu_probe: true,
        ..packet(at(0), 9000)
    };
    space.on_packet_sent(probe, &[]);
    for pn in 1..5 {
        space.on_packet_sent(packet(at(pn), 1000), &[]);
    }
    space
        .on_ack_received([1..=4].into_iter(), |_, _, _| {})
        .expect("sent");
    let (s, lost) = lose(&mut space, at(5), &rtt_100ms());
    assert_eq!(lost, [0]);
    assert_eq!((s.mtu_probe_lost, s.bytes), (Some(9000), 9000));
    assert_eq!((s.count, s.largest_lost_sent, s.max_size), (0, None, 0));
    assert_eq!(space.bytes_in_flight(), 0);
}

#[test]
fn unanswered_acks_do_not_pile_up() {
    let mut space = SentSpace::<u32>::new();
    for i in 0..100_000 {
        space.on_packet_sent(ack_only(at(i)), &[1]);
    }
    assert!(space.ring.len() <= 2 * ACK_ONLY_KEPT as usize);
    assert!(space.frames.len() <= 4 * ACK_ONLY_KEPT as usize);
    assert_eq!(space.bytes_in_flight(), 0);
    assert!(space.tracked() <= ACK_ONLY_KEPT + 1);
    // An outstanding packet at the front holds them.
    let mut space = SentSpace::<u32>::new();
    space.on_packet_sent(packet(at(0), 1000), &[0, 1]);
    for _ in 0..10_000 {
        space.on_packet_sent(ack_only(at(1)), &[]);
    }
    assert_eq!(space.tracked(), 10_001);
    ack(&mut space, &[0..=0]).expect("sent");
    assert!(space.tracked() <= 10_000);
}

#[test]
fn a_steady_window_allocates_nothing() {
    let mut space = SentSpace::<u32>::new();
    let mut rings = None;
    for round in 0..200u64 {
        for _ in 0..100 {
            let pn = space.next_packet_number() as u32;
            space.on_packet_sent(packet(at(round), 1200), &[pn, pn + 1]);
        }
        let (s, _) = ack(&mut space, &[0..=round * 100 + 99]).expect("sent");
        assert_eq!(s.newly_acked, 100);
        if round == 1 {
            rings = Some((space.ring.as_ptr(), space.frames.as_ptr()));
        }
    }
    assert_eq!(rings, Some((space.ring.as_ptr(), space.frames.as_ptr())));
}

#[test]
fn discarding_hands_out_what_is_outstanding() {
    let mut space = sent(5);
    ack(&mut space, &[1..=2]).expect("sent");
    let mut seen = Vec::new();
    let bytes = space.discard(|pn, _, frames| {
        assert_eq!(frames.len(), 2);
        seen.push(pn);
    });
    assert_eq!((seen, bytes), (vec![0, 3, 4], 3000));
    assert!(space.is_empty() && space.bytes_in_flight() == 0);
    assert_eq!(space.on_packet_sent(packet(at(9), 1000), &[5, 6]), 5);
    assert_eq!(ack(&mut space, &[5..=5]).expect("sent").1, [5]);
}

#[test]
fn the_summary_tells_ecn_and_application_limits() {
    let mut space = SentSpace::<u32>::new();
    for (i, ecn) in [Ecn::Ect0, Ecn::Ect1, Ecn::NotEct, Ecn::Ect0]
        .into_iter()
        .enumerate()
    {
        let p = SentPacket {
            ecn,
            app_limited: i == 3,
            size: 100 * (4 - i as u16),
            ..packet(at(0), 0)
        };
        space.on_packet_sent(p, &[]);
    }
    let s = space
        .on_ack_received([0..=2].into_iter(), |_, _, _| {})
        .expect("sent");
    assert_eq!(
        (s.ect0, s.ect1, s.app_limited, s.max_size),
        (1, 1, false, 400)
    );
    let s = space
        .on_ack_received([0..=3].into_iter(), |_, _, _| {})
        .expect("sent");
    assert_eq!(
        (s.ect0, s.ect1, s.app_limited, s.max_size),
        (1, 0, true, 100)
    );
}

/// Every packet ever sent, and what became of it.
#[derive(Default)]
struct Model {
    sent: BTreeMap<u64, (SentPacket, Vec<u32>, &'static str)>,
    next_frame: u32,
}

impl Model {
    fn settle(&mut self, pn: u64, packet: &SentPacket, frames: &[u32], fate: &'static str) {
        let entry = self.sent.get_mut(&pn).expect("reported packets were sent");
        assert_eq!(entry.2, "outstanding", "{pn} reported twice");
        assert_eq!((&entry.0, entry.1.as_slice()), (packet, frames));
        entry.2 = fate;
    }

    fn outstanding(&self) -> impl Iterator<Item = (&u64, &SentPacket)> {
        self.sent
            .iter()
            .filter(|(_, e)| e.2 == "outstanding")
            .map(|(pn, e)| (pn, &e.0))
    }

    /// Takes note of what the space may forget unreported: packets that elicit no acknowledgement,
    /// when they are old.
    fn forget(&mut self, space: &SentSpace<u32>) {
        let mut kept = BTreeSet::new();
        space.for_each_outstanding(|pn, _, _| {
            kept.insert(pn);
            ControlFlow::Continue(())
        });
        for (pn, entry) in &mut self.sent {
            let old = pn + ACK_ONLY_KEPT < space.next_packet_number();
            if entry.2 == "outstanding" && !entry.0.ack_eliciting && old && !kept.contains(pn) {
                entry.2 = "forgotten";
            }
        }
    }

    fn check(&self, space: &SentSpace<u32>) {
        let flight: u64 = self
            .outstanding()
            .filter(|(_, p)| p.in_flight)
            .map(|(_, p)| u64::from(p.size))
            .sum();
        assert_eq!(space.bytes_in_flight(), flight);
        let eliciting = self.outstanding().filter(|(_, p)| p.ack_eliciting).count();
        assert_eq!(space.ack_eliciting_in_flight(), eliciting);
        let mut seen = Vec::new();
        space.for_each_outstanding(|pn, _, _| {
            seen.push(pn);
            ControlFlow::Continue(())
        });
        assert_eq!(
            seen,
            self.outstanding().map(|(pn, _)| *pn).collect::<Vec<_>>()
        );
        assert_eq!(space.is_empty(), seen.is_empty());
    }
}

proptest! {
    #[test]
    fn every_frame_is_reported_once(
        ops in proptest::collection::vec((0u8..10, 0u64..40, 0u64..8), 1..300)
    ) {
        let mut space = SentSpace::<u32>::new();
        let mut model = Model::default();
        let mut now = at(1);
        let rtt = rtt_100ms();
        let mut lost_total = 0u64;
        let mut spurious = 0u64;
        for (op, a, b) in ops {
            now += Duration::from_millis(b);
            match op {
                0..=4 => {
                    for i in 0..=a {
                        let mut p = packet(now, 100 + (a * 10) as u16);
                        p.ack_eliciting = i % 5 != 4;
                        p.in_flight = i % 7 != 6 || p.ack_eliciting;
                        let n = ((i + b) % 9) as u32;
                        let frames: Vec<u32> = (model.next_frame..model.next_frame + n).collect();
                        model.next_frame += n;
                        let pn = space.on_packet_sent(p, &frames);
                        model.sent.insert(pn, (p, frames, "outstanding"));
                    }
                    model.forget(&space);
                }
                5 => {
                    space.skip_packet_number();
                }
                6 | 7 => {
                    // Acknowledge two ranges counted down from the newest packet.
                    let top = space.next_packet_number().saturating_sub(b * 3);
                    let cut = top.saturating_sub(a);
                    let below = (cut.saturating_sub(9), cut.saturating_sub(5));
                    let ranges: Vec<_> = [(cut, top), below]
                        .into_iter()
                        .filter(|(s, e)| s < e)
                        .map(|(s, e)| s..=e - 1)
                        .collect();
                    if ranges.is_empty()
                        || ranges.iter().any(|r| r.clone().any(|pn| !model.sent.contains_key(&pn)))
                    {
                        continue;
                    }
                    let s = space
                        .on_ack_received(ranges.into_iter(), |pn, p, f| {
                            model.settle(pn, p, f, "acked");
                        })
                        .expect("all were sent");
                    spurious += u64::from(s.spurious_losses);
                }
                8 => {
                    let s = space.detect_lost(now, &rtt, MAX_ACK_DELAY, |pn, p, f| {
                        model.settle(pn, p, f, "lost");
                    });
                    lost_total += u64::from(s.count);
                    if let Some(at) = space.loss_time() {
                        assert!(at > now);
                    }
                }
                _ if a == 0 => {
                    space.discard(|pn, p, f| model.settle(pn, p, f, "discarded"));
                }
                _ => {}
            }
            model.check(&space);
            prop_assert!(spurious <= lost_total);
        }
    }
}
