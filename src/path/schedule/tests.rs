//! What holds for every scheduler; each one's own rules are in the modules below.

use super::table::PathTable;
use super::*;
use crate::base::limits;
use std::time::Duration;

mod kinds;
mod properties;
mod waiting;

const MTU: usize = 1200;
const ALL: [&str; 8] = [
    "round-robin",
    "low-latency",
    "min-rtt:1",
    "ecf",
    "blest",
    "redundant",
    "weighted:0=3,1=1",
    "backup",
];
/// Those that look at round-trip times.
const BY_RTT: [&str; 4] = ["low-latency", "min-rtt:1", "ecf", "blest"];

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn at(n: u64) -> Timestamp {
    Timestamp::ZERO + ms(n)
}

/// A measured path with a window of ten packets.
fn path(id: u32, rtt: u64) -> PathView {
    PathView {
        min_rtt: ms(rtt),
        has_rtt_sample: true,
        ..PathView::new(PathId(id), ms(rtt), MTU, 10 * MTU as u64)
    }
}

fn full(mut path: PathView) -> PathView {
    path.bytes_in_flight = path.congestion_window;
    path
}

fn failed(mut path: PathView) -> PathView {
    path.potentially_failed = true;
    path
}

fn backup(mut path: PathView) -> PathView {
    path.our_status = PathStatus::Backup;
    path
}

fn unvalidated(mut path: PathView) -> PathView {
    path.validated = false;
    path
}

fn selector(kind: &str) -> Selector {
    Selector::new(&kind.parse().expect("a name"))
}

fn ask(selector: &mut Selector, paths: &[PathView]) -> Decision {
    selector.select(&SchedulerContext::new(at(1000), paths))
}

/// The path of a decision to send, the first of several.
fn chosen(decision: Decision) -> Option<u32> {
    match decision {
        Decision::Send(id) => Some(id.0),
        Decision::Redundant(ids) => ids.as_slice().first().map(|id| id.0),
        _ => None,
    }
}

/// How many of `count` packets go on each path, all acknowledged at once.
fn picks(selector: &mut Selector, paths: &[PathView], count: usize) -> Vec<usize> {
    let mut shares = vec![0; paths.len()];
    for _ in 0..count {
        let id = chosen(ask(selector, paths)).expect("a path");
        let at_place = paths.iter().position(|p| p.id.0 == id).expect("known");
        shares[at_place] += 1;
        selector.on_sent(at(1000), PathId(id), MTU as u64);
    }
    shares
}

#[test]
fn no_paths_no_choice() {
    for kind in ALL {
        let mut s = selector(kind);
        assert_eq!(ask(&mut s, &[]), Decision::Nothing, "{kind}");
        let none = [unvalidated(path(0, 10)), unvalidated(path(1, 10))];
        assert_eq!(ask(&mut s, &none), Decision::Nothing, "{kind}");
        assert_eq!(ask(&mut s, &none[..1]), Decision::Nothing, "{kind}");
    }
}

/// An address that proved nothing gets no data, however good it looks.
#[test]
fn an_unvalidated_path_is_never_chosen() {
    for kind in ALL {
        let paths = [path(0, 100), unvalidated(path(1, 1))];
        assert_eq!(picks(&mut selector(kind), &paths, 20), [20, 0], "{kind}");
    }
}

#[test]
fn a_failed_path_serves_only_when_all_have_failed() {
    for kind in ALL {
        let mut s = selector(kind);
        let paths = [failed(path(0, 1)), path(1, 100)];
        assert_eq!(picks(&mut s, &paths, 20), [0, 20], "{kind}");
        // A backup path comes before a failed one too.
        let paths = [failed(path(0, 1)), backup(path(1, 100))];
        assert_eq!(picks(&mut s, &paths, 20), [0, 20], "{kind}");
        let paths = [failed(path(0, 1)), failed(path(1, 100))];
        assert!(chosen(ask(&mut s, &paths)).is_some(), "{kind}");
        assert_eq!(picks(&mut s, &paths[..1], 1), [1], "{kind}");
    }
}

/// Windows and flights are looked at: nothing is assumed to have room.
#[test]
fn a_full_path_gets_nothing() {
    for kind in ALL {
        let mut s = selector(kind);
        let paths = [full(path(0, 1)), full(path(1, 100))];
        assert_eq!(
            ask(&mut s, &paths),
            Decision::Wait { until: None },
            "{kind}"
        );
        // Less than a datagram is no room.
        let mut almost = full(path(0, 1));
        almost.bytes_in_flight -= MTU as u64 - 1;
        let decision = ask(&mut s, &[almost, full(path(1, 100))]);
        assert_eq!(decision, Decision::Wait { until: None }, "{kind}");
    }
}

#[test]
fn pacing_says_when_to_ask_again() {
    for kind in ALL {
        let paced = |mut p: PathView, until| {
            p.pacing_release = Some(at(until));
            p
        };
        let mut s = selector(kind);
        let (first, second) = (paced(path(0, 10), 1003), paced(path(1, 10), 1005));
        let until = Some(at(1003));
        assert_eq!(
            ask(&mut s, &[first, second]),
            Decision::Wait { until },
            "{kind}"
        );
        assert_eq!(ask(&mut s, &[first]), Decision::Wait { until }, "{kind}");
        // A full path's pacer promises nothing.
        let until = if kind == "backup" {
            None
        } else {
            Some(at(1005))
        };
        let decision = ask(&mut s, &[full(first), second]);
        assert_eq!(decision, Decision::Wait { until }, "{kind}");
        // A release that is over holds nothing back.
        let due = paced(path(0, 10), 1000);
        assert_eq!(chosen(ask(&mut s, &[due, second])), Some(0), "{kind}");
    }
}

#[test]
fn backup_paths_serve_when_no_available_one_is_usable() {
    for kind in ALL {
        let mut s = selector(kind);
        let mut theirs = path(1, 1);
        theirs.peer_status = PathStatus::Backup;
        for spare in [backup(path(1, 1)), theirs] {
            assert_eq!(picks(&mut s, &[path(0, 100), spare], 20), [20, 0], "{kind}");
            // A full window hands nothing over.
            let decision = ask(&mut s, &[full(path(0, 100)), spare]);
            assert_eq!(decision, Decision::Wait { until: None }, "{kind}");
            for gone in [failed(path(0, 100)), unvalidated(path(0, 100))] {
                assert_eq!(picks(&mut s, &[gone, spare], 20), [0, 20], "{kind}");
            }
        }
    }
}

/// A path without a round-trip time gets two packets even where another is measured and better,
/// and again two once those are lost; then its time tells.
#[test]
fn an_unmeasured_path_is_measured() {
    for kind in BY_RTT {
        let mut s = selector(kind);
        let mut late = PathView::new(PathId(1), ms(333), MTU, 12_000);
        for _ in 0..3 {
            late.bytes_in_flight = 0;
            for _ in 0..2 {
                assert_eq!(chosen(ask(&mut s, &[path(0, 10), late])), Some(1), "{kind}");
                s.on_sent(at(1000), PathId(1), MTU as u64);
                late.bytes_in_flight += MTU as u64;
            }
            assert_eq!(chosen(ask(&mut s, &[path(0, 10), late])), Some(0), "{kind}");
            s.on_lost(at(1000), PathId(1), 2 * MTU as u64);
        }
        let decision = ask(&mut s, &[path(0, 10), path(1, 5)]);
        assert_eq!(chosen(decision), Some(1), "{kind}");
        // What is urgent or was lost is not risked.
        let paths = [path(0, 10), PathView::new(PathId(1), ms(333), MTU, 12_000)];
        let mut ctx = SchedulerContext::new(at(1000), &paths);
        ctx.packet.retransmission = true;
        assert_eq!(chosen(s.select(&ctx)), Some(0), "{kind}");
        ctx.packet.retransmission = false;
        ctx.packet.deadline = Some(at(2000));
        assert_eq!(chosen(s.select(&ctx)), Some(0), "{kind}");
    }
}

/// Ties go to the lower ID, in whatever order the paths stand.
#[test]
fn ties_go_to_the_lower_id() {
    for kind in ALL {
        for paths in [[path(2, 10), path(7, 10)], [path(7, 10), path(2, 10)]] {
            assert_eq!(chosen(ask(&mut selector(kind), &paths)), Some(2), "{kind}");
        }
    }
}

#[test]
fn a_pin_is_obeyed_and_falls_back_only_if_it_may() {
    for kind in ALL {
        let mut s = selector(kind);
        let mut pinned = |paths: &[PathView], fallback| {
            let mut ctx = SchedulerContext::new(at(1000), paths);
            let path = PathId(1);
            ctx.pin = Some(Pin { path, fallback });
            s.select(&ctx)
        };
        // Also on a backup path, and never anywhere else because the window is full.
        let wait = Decision::Wait { until: None };
        for fallback in [false, true] {
            let paths = [path(0, 1), backup(path(1, 100))];
            assert_eq!(chosen(pinned(&paths, fallback)), Some(1), "{kind}");
            let paths = [path(0, 1), full(path(1, 100))];
            assert_eq!(pinned(&paths, fallback), wait, "{kind}");
        }
        for unusable in [failed(path(1, 1)), unvalidated(path(1, 1))] {
            assert_eq!(pinned(&[path(0, 1), unusable], false), wait, "{kind}");
            assert_eq!(
                chosen(pinned(&[path(0, 1), unusable], true)),
                Some(0),
                "{kind}"
            );
        }
        assert_eq!(pinned(&[path(0, 1)], false), Decision::Nothing, "{kind}");
        assert_eq!(chosen(pinned(&[path(0, 1)], true)), Some(0), "{kind}");
    }
}

#[test]
fn acknowledgements_alone_need_no_room_and_count_for_nobody() {
    for kind in ALL {
        let mut s = selector(kind);
        let mut paced = full(path(1, 5));
        paced.pacing_release = Some(at(5000));
        let paths = [full(path(0, 10)), paced, unvalidated(path(2, 1))];
        let mut ctx = SchedulerContext::new(at(1000), &paths);
        ctx.packet.acks_only = true;
        assert_eq!(s.select(&ctx), Decision::Send(PathId(1)), "{kind}");
        let alone = [full(path(0, 10))];
        ctx.paths = &alone;
        assert_eq!(s.select(&ctx), Decision::Send(PathId(0)), "{kind}");
    }
}

/// A scheduler from outside that answers whatever comes to its mind.
struct Stubborn(Decision);

impl Scheduler for Stubborn {
    fn name(&self) -> &'static str {
        "stubborn"
    }

    fn select(&mut self, _: &SchedulerContext<'_>) -> Decision {
        self.0
    }
}

#[test]
fn a_foreign_scheduler_cannot_break_the_rules() {
    let mut both = PathIds::default();
    assert!(both.push(PathId(0)) && both.push(PathId(1)) && !both.push(PathId(0)));
    for decision in [Decision::Send(PathId(1)), Decision::Redundant(both)] {
        let factory = SchedulerFactory::new(move || Box::new(Stubborn(decision)));
        let mut s = Selector::new(&SchedulerKind::Custom(factory));
        assert_eq!(format!("{s:?}"), "Selector(\"stubborn\")");
        assert_eq!(ask(&mut s, &[path(0, 1), path(1, 1)]), decision);
        let wait = Decision::Wait { until: None };
        for bad in [unvalidated(path(1, 1)), full(path(1, 1)), path(2, 1)] {
            assert_eq!(ask(&mut s, &[path(0, 1), bad]), wait);
        }
    }
}

#[test]
fn a_table_keeps_as_many_paths_as_there_may_be() {
    let mut table = PathTable::default();
    for id in 0..limits::PATHS as u32 {
        *table.entry(PathId(id), 5) += 1;
    }
    assert_eq!(table.get(PathId(0)), Some(6));
    // One more: the oldest gives way.
    *table.entry(PathId(100), 7) += 1;
    assert_eq!(
        (table.get(PathId(0)), table.get(PathId(100))),
        (None, Some(8))
    );
    assert_eq!(
        (table.remove(PathId(1)), table.remove(PathId(1))),
        (Some(6), None)
    );
    assert_eq!(
        (table.get(PathId(2)), table.get(PathId(100))),
        (Some(6), Some(8))
    );
    assert_eq!(table.values_mut().count(), limits::PATHS - 1);
}

#[test]
fn a_set_of_paths_holds_as_many_as_there_may_be() {
    let mut ids = PathIds::default();
    for id in 0..limits::PATHS as u32 {
        assert!(ids.push(PathId(id)));
    }
    assert!(!ids.push(PathId(99)));
    assert_eq!(ids.as_slice().len(), limits::PATHS);
}
