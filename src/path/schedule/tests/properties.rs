//! Whatever the paths look like: only usable ones are chosen, none starves, nothing stalls.

use super::*;
use proptest::prelude::*;

fn any_path(id: u32) -> impl Strategy<Value = PathView> {
    let numbers = (0u64..2_000_000, 0u64..500_000, 0u64..40_000, 0u64..40_000);
    let release = prop_oneof![Just(None), (0u64..4000).prop_map(Some)];
    let flags = any::<[bool; 5]>();
    (numbers, release, flags).prop_map(move |(n, release, flags)| PathView {
        rtt_var: Duration::from_micros(n.1),
        has_rtt_sample: flags[0],
        bytes_in_flight: n.3,
        pacing_release: release.map(at),
        validated: flags[1],
        potentially_failed: flags[2],
        our_status: [PathStatus::Available, PathStatus::Backup][usize::from(flags[3])],
        peer_status: [PathStatus::Available, PathStatus::Backup][usize::from(flags[4])],
        ..PathView::new(PathId(id), Duration::from_micros(n.0), MTU, n.2)
    })
}

fn any_paths() -> impl Strategy<Value = Vec<PathView>> {
    (0usize..=8).prop_flat_map(|n| (0..n as u32).map(any_path).collect::<Vec<_>>())
}

/// The class that a path may be chosen from, by the rules as they are written down.
fn class(path: &PathView) -> u8 {
    match (path.validated, path.potentially_failed, path.is_backup()) {
        (false, ..) => u8::MAX,
        (true, false, false) => 0,
        (true, false, true) => 1,
        (true, true, _) => 2,
    }
}

fn ids(decision: Decision) -> Vec<PathId> {
    match decision {
        Decision::Send(id) => vec![id],
        Decision::Redundant(ids) => ids.as_slice().to_vec(),
        _ => Vec::new(),
    }
}

proptest! {
    #[test]
    fn only_usable_paths_are_chosen(
        steps in proptest::collection::vec((any_paths(), 0u64..2000, any::<u64>()), 1..8)
    ) {
        for kind in ALL {
            let (mut s, mut twin) = (selector(kind), selector(kind));
            for (paths, now, amount) in &steps {
                let mut ctx = SchedulerContext::new(at(*now), paths);
                ctx.flow_credit = *amount;
                ctx.packet.bytes_pending = amount.rotate_left(32);
                let decision = s.select(&ctx);
                prop_assert_eq!(decision, twin.select(&ctx), "{}", kind);
                let best = paths.iter().map(class).min().unwrap_or(u8::MAX);
                let chosen = ids(decision);
                for id in &chosen {
                    let path = &paths[id.0 as usize];
                    prop_assert!(path.can_send(ctx.now), "{kind}: {path:?}");
                    prop_assert_eq!(class(path), best, "{}", kind);
                    prop_assert!(path.validated);
                    for s in [&mut s, &mut twin] {
                        s.on_sent(ctx.now, *id, MTU as u64);
                    }
                }
                let usable = best < u8::MAX;
                prop_assert_eq!(decision == Decision::Nothing, !usable, "{}", kind);
                // Only these three ever hold back what could leave.
                let could = paths.iter().any(|p| class(p) == best && p.can_send(ctx.now));
                if !["ecf", "blest", "backup"].contains(&kind) {
                    prop_assert_eq!(!chosen.is_empty(), usable && could, "{}", kind);
                }
                if let Decision::Wait { until: Some(until) } = decision {
                    prop_assert!(until > ctx.now, "{kind}: a wait without end of asking");
                }
            }
        }
    }

    /// Paths with delays and windows, acknowledged after a round trip, one of them dead from the
    /// start. All that waits gets across, and a fair scheduler uses each living path.
    #[test]
    fn nothing_stalls_and_fair_ones_starve_nobody(
        rtts in proptest::collection::vec(1u64..200, 2..6),
        windows in proptest::collection::vec(2u64..40, 6),
        dead in proptest::option::of(0usize..6),
    ) {
        for kind in ALL {
            let mut world = World::new(kind, &rtts, &windows, dead);
            let sent = world.run(400);
            let dead = dead.filter(|d| *d < rtts.len());
            let living = sent.iter().enumerate().filter(|(i, _)| Some(*i) != dead);
            let total: u64 = living.clone().map(|(_, n)| n).sum();
            // A scheduler for one path rides the dead one until someone calls it failed.
            let stuck = kind == "backup" && dead == Some(0);
            prop_assert!(total >= 400 || stuck, "{kind}: {sent:?} {rtts:?}");
            if ["round-robin", "weighted:0=3,1=1", "redundant"].contains(&kind) {
                prop_assert!(living.clone().all(|(_, n)| *n > 0), "{kind}: {sent:?}");
            }
        }
    }
}

/// Packets under way, and a clock that moves to whatever comes next.
struct World {
    selector: Selector,
    paths: Vec<PathView>,
    dead: Option<usize>,
    under_way: Vec<(Timestamp, usize)>,
    now: Timestamp,
}

impl World {
    fn new(kind: &str, rtts: &[u64], windows: &[u64], dead: Option<usize>) -> Self {
        let path = |(i, rtt): (usize, &u64)| PathView {
            rtt_var: ms(rtt / 4),
            congestion_window: windows[i] * MTU as u64,
            ..path(i as u32, *rtt)
        };
        Self {
            selector: selector(kind),
            paths: rtts.iter().enumerate().map(path).collect(),
            dead,
            under_way: Vec::new(),
            now: at(1000),
        }
    }

    /// Brings `count` packets across; returns how many each path was given.
    fn run(&mut self, count: u64) -> Vec<u64> {
        let mut sent = vec![0; self.paths.len()];
        let mut left = count;
        for _ in 0..100_000 {
            let mut ctx = SchedulerContext::new(self.now, &self.paths);
            ctx.packet.bytes_pending = left * MTU as u64;
            ctx.flow_credit = 64 * 1024;
            let decision = self.selector.select(&ctx);
            let chosen = ids(decision);
            for id in &chosen {
                let i = id.0 as usize;
                self.selector.on_sent(self.now, *id, MTU as u64);
                self.paths[i].bytes_in_flight += MTU as u64;
                sent[i] += 1;
                if Some(i) != self.dead {
                    let back = self.now + self.paths[i].smoothed_rtt;
                    self.under_way.push((back, i));
                }
            }
            if chosen.iter().any(|id| Some(id.0 as usize) != self.dead) {
                left -= 1;
                if left == 0 {
                    break;
                }
            }
            if chosen.is_empty() && !self.advance(decision) {
                break;
            }
        }
        sent
    }

    /// To the next acknowledgement or the end of the wait; false when neither comes.
    fn advance(&mut self, decision: Decision) -> bool {
        let timer = match decision {
            Decision::Wait { until } => until,
            _ => None,
        };
        let ack = self.under_way.iter().map(|u| u.0).min();
        let Some(next) = ack.into_iter().chain(timer).min() else {
            return false;
        };
        self.now = self.now.max(next);
        let now = self.now;
        for (back, i) in std::mem::take(&mut self.under_way) {
            if back > now {
                self.under_way.push((back, i));
            } else {
                self.paths[i].bytes_in_flight -= MTU as u64;
                let id = self.paths[i].id;
                self.selector.on_acked(now, id, MTU as u64);
            }
        }
        true
    }
}
