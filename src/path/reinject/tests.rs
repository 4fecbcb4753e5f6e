//! When something is sent again, where to, and how much of it.

use super::*;
use crate::path::schedule::PathStatus;
use proptest::prelude::*;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn at(n: u64) -> Timestamp {
    Timestamp::ZERO + ms(n)
}

fn path(id: u32, rtt: u64) -> PathView {
    PathView {
        has_rtt_sample: true,
        ..PathView::new(PathId(id), ms(rtt), 1200, 12_000)
    }
}

fn failed(mut path: PathView) -> PathView {
    path.potentially_failed = true;
    path
}

fn sent(time: u64) -> Outstanding {
    Outstanding {
        path: PathId(0),
        sent: at(time),
        deadline: None,
        reinjected: 0,
        was_on: PathIds::default(),
    }
}

fn default() -> Reinjector {
    Reinjector::new(ReinjectionConfig::default(), None)
}

fn ask(r: &mut Reinjector, now: u64, paths: &[PathView], what: &Outstanding) -> Verdict {
    r.verdict(&SchedulerContext::new(at(now), paths), what)
}

#[test]
fn an_overdue_acknowledgement_sends_it_again_elsewhere() {
    let paths = [path(0, 40), path(1, 60), path(2, 50)];
    let mut r = default();
    // 100 + 40 + 50 ms.
    assert_eq!(ask(&mut r, 100, &paths, &sent(100)), Verdict::At(at(190)));
    assert_eq!(ask(&mut r, 189, &paths, &sent(100)), Verdict::At(at(190)));
    assert_eq!(
        ask(&mut r, 190, &paths, &sent(100)),
        Verdict::Now(PathId(2))
    );
    let config = ReinjectionConfig {
        delay: None,
        ..ReinjectionConfig::default()
    };
    let mut r = Reinjector::new(config, None);
    assert_eq!(ask(&mut r, 9999, &paths, &sent(100)), Verdict::Never);
}

#[test]
fn a_failed_path_gives_up_what_it_has_at_once() {
    let mut r = default();
    let paths = [failed(path(0, 40)), path(1, 60)];
    assert_eq!(
        ask(&mut r, 101, &paths, &sent(100)),
        Verdict::Now(PathId(1))
    );
    // So does one that is gone.
    assert_eq!(
        ask(&mut r, 101, &paths[1..], &sent(100)),
        Verdict::Now(PathId(1))
    );
    let config = ReinjectionConfig {
        on_failure: false,
        ..ReinjectionConfig::default()
    };
    let mut r = Reinjector::new(config, None);
    assert_eq!(ask(&mut r, 101, &paths, &sent(100)), Verdict::At(at(190)));
}

/// Deadline 250, the target is 60 ms away: a copy leaves at 190, or later but not after 220.
#[test]
fn a_deadline_decides_earlier() {
    let mut r = default();
    let paths = [path(0, 100), path(1, 60)];
    let what = Outstanding {
        deadline: Some(at(250)),
        ..sent(140)
    };
    assert_eq!(ask(&mut r, 140, &paths, &what), Verdict::At(at(190)));
    assert_eq!(ask(&mut r, 190, &paths, &what), Verdict::Now(PathId(1)));
    assert_eq!(ask(&mut r, 220, &paths, &what), Verdict::Now(PathId(1)));
    // That copy is not followed by the next at once.
    let copy = Outstanding {
        path: PathId(1),
        sent: at(190),
        reinjected: 1,
        ..what
    };
    let verdict = ask(&mut r, 190, &[path(0, 10), path(1, 20)], &copy);
    assert_eq!(verdict, Verdict::At(at(260)));
    // Too late for any copy, also for one that is overdue.
    assert_eq!(ask(&mut r, 221, &paths, &what), Verdict::Never);
    assert_eq!(ask(&mut r, 300, &paths, &what), Verdict::Never);
    let config = ReinjectionConfig {
        deadlines: false,
        ..ReinjectionConfig::default()
    };
    let mut r = Reinjector::new(config, None);
    assert_eq!(ask(&mut r, 221, &paths, &what), Verdict::At(at(290)));
}

#[test]
fn nowhere_to_go() {
    let mut r = default();
    let mut other = path(1, 10);
    other.validated = false;
    for paths in [
        &[path(0, 40)][..],
        &[path(0, 40), other],
        &[path(0, 40), failed(path(1, 9))],
    ] {
        assert_eq!(ask(&mut r, 9999, paths, &sent(100)), Verdict::Never);
    }
}

#[test]
fn backup_paths_rescue_what_an_available_one_holds() {
    let mut r = default();
    let mut spare = path(1, 10);
    spare.peer_status = PathStatus::Backup;
    let paths = [path(0, 40), spare];
    assert_eq!(
        ask(&mut r, 190, &paths, &sent(100)),
        Verdict::Now(PathId(1))
    );
    let paths = [path(0, 40), spare, path(2, 90)];
    assert_eq!(
        ask(&mut r, 190, &paths, &sent(100)),
        Verdict::Now(PathId(2))
    );
}

#[test]
fn a_frame_is_repeated_so_often_and_no_more() {
    let mut r = default();
    let paths = [path(0, 40), path(1, 60)];
    for (reinjected, verdict) in [
        (1, Verdict::Now(PathId(1))),
        (2, Verdict::Never),
        (u8::MAX, Verdict::Never),
    ] {
        let what = Outstanding {
            reinjected,
            ..sent(100)
        };
        assert_eq!(ask(&mut r, 500, &paths, &what), verdict);
    }
}

#[test]
fn queues_are_limited_path_by_path() {
    let config = ReinjectionConfig {
        queue_limit: 2,
        ..ReinjectionConfig::default()
    };
    let mut r = Reinjector::new(config, None);
    let paths = [path(0, 40), path(1, 60)];
    for _ in 0..2 {
        assert_eq!(
            ask(&mut r, 500, &paths, &sent(100)),
            Verdict::Now(PathId(1))
        );
        r.on_queued(at(500), PathId(1));
    }
    assert_eq!(ask(&mut r, 500, &paths, &sent(100)), Verdict::Never);
    let others = [path(0, 40), path(1, 60), path(2, 50)];
    assert_eq!(
        ask(&mut r, 500, &others, &sent(100)),
        Verdict::Now(PathId(2))
    );
    r.on_dequeued(PathId(1));
    assert_eq!(
        ask(&mut r, 500, &paths, &sent(100)),
        Verdict::Now(PathId(1))
    );
    r.on_queued(at(500), PathId(1));
    r.path_removed(PathId(1));
    r.on_dequeued(PathId(1));
    assert_eq!(
        ask(&mut r, 500, &paths, &sent(100)),
        Verdict::Now(PathId(1))
    );
    assert_eq!(r.reinjected(), 3);
}

#[test]
fn frames_keep_their_distance() {
    let config = ReinjectionConfig {
        min_interval: ms(5),
        ..ReinjectionConfig::default()
    };
    let mut r = Reinjector::new(config, None);
    let paths = [path(0, 40), path(1, 60)];
    r.on_queued(at(500), PathId(1));
    assert_eq!(ask(&mut r, 504, &paths, &sent(100)), Verdict::At(at(505)));
    assert_eq!(
        ask(&mut r, 505, &paths, &sent(100)),
        Verdict::Now(PathId(1))
    );
}

#[test]
fn as_many_queues_as_paths() {
    let mut r = default();
    for id in 0..100 {
        r.on_queued(at(0), PathId(id));
    }
    assert_eq!(r.queues.len(), limits::PATHS);
    assert!(!r.queues.spilled());
}

#[test]
fn preferred_paths_come_first_where_they_are_usable() {
    let config = ReinjectionConfig {
        preferred: SmallVec::from_slice(&[PathId(0), PathId(3), PathId(1)]),
        ..ReinjectionConfig::default()
    };
    let mut r = Reinjector::new(config, None);
    let all = [path(0, 40), path(1, 60), path(2, 5), path(3, 90)];
    assert_eq!(ask(&mut r, 500, &all, &sent(100)), Verdict::Now(PathId(3)));
    let all = [path(0, 40), path(1, 60), path(2, 5), failed(path(3, 90))];
    assert_eq!(ask(&mut r, 500, &all, &sent(100)), Verdict::Now(PathId(1)));
    assert_eq!(ask(&mut r, 500, &all[..1], &sent(100)), Verdict::Never);
}

struct Highest;

impl TargetSelector for Highest {
    fn target(&mut self, ctx: &SchedulerContext<'_>, _: PathId) -> Option<PathId> {
        ctx.paths.iter().map(|p| p.id).max()
    }
}

#[test]
fn an_application_may_choose_among_what_is_usable() {
    let mut r = Reinjector::new(ReinjectionConfig::default(), Some(Box::new(Highest)));
    let all = [path(0, 40), path(1, 5), path(2, 60)];
    assert_eq!(ask(&mut r, 500, &all, &sent(100)), Verdict::Now(PathId(2)));
    let all = [path(0, 40), path(1, 5), failed(path(2, 60))];
    assert_eq!(ask(&mut r, 500, &all, &sent(100)), Verdict::Now(PathId(1)));
    // Not back to where it came from.
    let what = Outstanding {
        path: PathId(2),
        ..sent(100)
    };
    let all = [path(0, 40), path(1, 5), path(2, 60)];
    assert_eq!(ask(&mut r, 500, &all, &what), Verdict::Now(PathId(1)));
    assert!(format!("{r:?}").contains("reinjected"));
}

proptest! {
    /// Asking at the time that a verdict names never names an earlier one, and a target is never
    /// the original nor unusable.
    #[test]
    fn verdicts_lead_somewhere(
        rtts in proptest::collection::vec((0u64..500, any::<[bool; 2]>()), 0..8),
        (time, now) in (0u64..1000, 0u64..1000),
        deadline in proptest::option::of(0u64..2000),
        reinjected in 0u8..4,
    ) {
        let view = |(id, (rtt, flags)): (usize, &(u64, [bool; 2]))| PathView {
            validated: flags[0],
            potentially_failed: flags[1],
            ..path(id as u32, *rtt)
        };
        let paths: Vec<_> = rtts.iter().enumerate().map(view).collect();
        let mut r = default();
        let what = Outstanding { deadline: deadline.map(at), reinjected, ..sent(time) };
        let mut now = now.max(time);
        for _ in 0..3 {
            match ask(&mut r, now, &paths, &what) {
                Verdict::Now(id) => {
                    let target = &paths[id.0 as usize];
                    prop_assert!(id != what.path && target.validated && !target.potentially_failed);
                    prop_assert!(deadline.is_none_or(|d| now <= d));
                    return Ok(());
                }
                Verdict::At(next) => {
                    prop_assert!(next > at(now));
                    now = next.as_nanos() / 1_000_000;
                }
                Verdict::Never => return Ok(()),
            }
        }
        prop_assert!(false, "it never ends");
    }
}

/// Where the frames were before they do not go again, whoever chooses.
#[test]
fn no_path_gets_anything_twice() {
    let paths = [path(0, 40), path(1, 10), path(2, 50)];
    let mut what = sent(100);
    what.was_on.push(PathId(1));
    let mut r = default();
    assert_eq!(ask(&mut r, 500, &paths, &what), Verdict::Now(PathId(2)));
    let ctx = SchedulerContext::new(at(500), &paths);
    assert_eq!(r.target_of_lost(&ctx, &what), Some(PathId(2)));
    what.was_on.push(PathId(2));
    assert_eq!(ask(&mut r, 500, &paths, &what), Verdict::Never);
    assert_eq!(r.target_of_lost(&ctx, &what), None);
    what = sent(100);
    what.reinjected = 2;
    assert_eq!(r.target_of_lost(&ctx, &what), None);
}
