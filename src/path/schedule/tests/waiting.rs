//! ECF and BLEST: when the fast path is full, is waiting for it better?

use super::*;

/// A full fast path and a slow one with room, with deviations of zero.
fn pair(fast_rtt: u64, slow_rtt: u64) -> [PathView; 2] {
    [full(path(0, fast_rtt)), path(1, slow_rtt)]
}

fn pending(selector: &mut Selector, now: u64, paths: &[PathView], bytes: u64) -> Decision {
    let mut ctx = SchedulerContext::new(at(now), paths);
    ctx.packet.bytes_pending = bytes;
    selector.select(&ctx)
}

fn waits(decision: Decision) -> bool {
    matches!(decision, Decision::Wait { .. })
}

/// Windows of 12,000 bytes, 10 ms and 100 ms.
#[test]
fn ecf_waits_while_the_fast_path_would_finish_first() {
    // One packet: n = 1 + 1, 2 * 10 ms < 100 ms, and 1 * 100 ms >= 2 * 10 ms: wait.
    let mut s = selector("ecf");
    assert!(waits(pending(&mut s, 1000, &pair(10, 100), 1200)));
    // 96,000 bytes: n = 1 + 8, 9 * 10 ms < 100 ms, 8 * 100 ms >= 20 ms: wait.
    let mut s = selector("ecf");
    assert!(waits(pending(&mut s, 1000, &pair(10, 100), 96_000)));
    // 108,000 bytes: n = 1 + 9, 10 * 10 ms is not below 100 ms: both paths together.
    let mut s = selector("ecf");
    let decision = pending(&mut s, 1000, &pair(10, 100), 108_000);
    assert_eq!(decision, Decision::Send(PathId(1)));
    // Equal paths: 2 * 50 ms is not below 50 ms.
    let mut s = selector("ecf");
    let decision = pending(&mut s, 1000, &pair(50, 50), 1200);
    assert_eq!(decision, Decision::Send(PathId(1)));
    // 50 and 99 ms: 100 ms is not below 99 ms.
    let mut s = selector("ecf");
    let decision = pending(&mut s, 1000, &pair(50, 99), 1200);
    assert_eq!(decision, Decision::Send(PathId(1)));
}

#[test]
fn ecf_needs_the_slow_path_to_be_slower_than_two_round_trips() {
    // Deviation 30 ms on the slow path: 2 * 40 < 70 + 30, but 70 < 2 * 40 + 30: use the slow one.
    let mut paths = pair(40, 70);
    paths[1].rtt_var = ms(30);
    let mut s = selector("ecf");
    let decision = pending(&mut s, 1000, &paths, 1200);
    assert_eq!(decision, Decision::Send(PathId(1)));
    // The deviation alone makes no wait either: 2 * 40 is not below 70.
    let decision = pending(&mut selector("ecf"), 1000, &pair(40, 70), 1200);
    assert_eq!(decision, Decision::Send(PathId(1)));
}

/// Once waiting, it goes on up to a quarter beyond: 120 ms < 1.25 * 100 ms.
#[test]
fn ecf_has_a_margin_while_it_waits() {
    let mut s = selector("ecf");
    assert!(waits(pending(&mut s, 1000, &pair(10, 100), 96_000)));
    assert!(waits(pending(&mut s, 1000, &pair(10, 100), 132_000)));
    // n = 1 + 11.5: 125 ms is not below 125 ms. From then on without the margin.
    assert!(!waits(pending(&mut s, 1000, &pair(10, 100), 138_000)));
    assert!(!waits(pending(&mut s, 1000, &pair(10, 100), 132_000)));
}

/// 10 and 30 ms, r = 3: X = (12,000 + 1200 * (3 - 1) / 2) * 3 = 39,600; times 1.2 = 47,520. The
/// slow path holds one packet of 1,200 and the window is the credit and 12,000 under way.
#[test]
fn blest_leaves_the_window_to_the_fast_path() {
    let mut s = selector("blest");
    let mut with_credit = |credit| {
        let paths = pair(10, 30);
        let mut ctx = SchedulerContext::new(at(1000), &paths);
        ctx.flow_credit = credit;
        s.select(&ctx)
    };
    // 36,720 + 12,000 - 1,200 = 47,520 is enough, a byte less is not.
    assert_eq!(with_credit(36_720), Decision::Send(PathId(1)));
    assert!(waits(with_credit(36_719)));
    // Without a limit there is nothing to block.
    assert_eq!(with_credit(u64::MAX), Decision::Send(PathId(1)));
}

#[test]
fn blest_counts_what_the_slow_path_holds() {
    let mut paths = pair(10, 30);
    paths[1].bytes_in_flight = 6000;
    let mut ctx = SchedulerContext::new(at(1000), &paths);
    // 36,720 + 18,000 - 7,200 = 47,520: under way on the slow path is held either way.
    ctx.flow_credit = 36_720;
    assert!(!waits(selector("blest").select(&ctx)));
    ctx.flow_credit = 36_719;
    assert!(waits(selector("blest").select(&ctx)));
}

/// Once a slow round trip of 30 ms: up by 0.04 if the window blocked, else down by 0.01.
#[test]
fn blest_adapts_its_correction() {
    let mut blest = Blest::default();
    let paths = pair(10, 30);
    let mut lambda = |now, blocked| {
        if blocked {
            blest.on_flow_blocked(at(now));
        }
        blest.select(&SchedulerContext::new(at(now), &paths));
        (blest.lambda() * 100.0).round() as u32
    };
    assert_eq!(lambda(1000, true), 120);
    assert_eq!(lambda(1029, true), 120);
    assert_eq!(lambda(1030, false), 124);
    assert_eq!(lambda(1059, false), 124);
    assert_eq!(lambda(1060, false), 123);
    let ends = [true, false].map(|blocked| {
        let base = if blocked { 2000 } else { 20_000 };
        (0..50).map(|n| lambda(base + n * 30, blocked)).last()
    });
    assert_eq!(ends, [Some(130), Some(100)]);
}

/// The fast path as soon as it has room, whatever waits.
#[test]
fn the_fast_path_goes_first() {
    for kind in ["ecf", "blest"] {
        let mut s = selector(kind);
        let decision = pending(&mut s, 1000, &[path(0, 10), path(1, 100)], 1 << 30);
        assert_eq!(decision, Decision::Send(PathId(0)), "{kind}");
    }
}

fn no_credit<'a>(now: u64, paths: &'a [PathView]) -> SchedulerContext<'a> {
    let mut ctx = SchedulerContext::new(at(now), paths);
    ctx.packet.bytes_pending = 1200;
    ctx.flow_credit = 1200;
    ctx
}

/// A dead path holds nothing up for longer than a probe timeout's time: 10 ms and 4 * 5 ms.
#[test]
fn waiting_ends_when_acknowledgements_stay_away() {
    for kind in ["ecf", "blest"] {
        let mut s = selector(kind);
        let mut paths = pair(10, 100);
        paths[0].rtt_var = ms(5);
        let until = Some(at(1030));
        let wait = Decision::Wait { until };
        assert_eq!(s.select(&no_credit(1000, &paths)), wait, "{kind}");
        assert_eq!(s.select(&no_credit(1029, &paths)), wait, "{kind}");
        let slow = Decision::Send(PathId(1));
        assert_eq!(s.select(&no_credit(1030, &paths)), slow, "{kind}");
        assert_eq!(s.select(&no_credit(1031, &paths)), slow, "{kind}");
        // It lives after all.
        s.on_acked(at(1040), PathId(0), 1200);
        let wait = Decision::Wait {
            until: Some(at(1070)),
        };
        assert_eq!(s.select(&no_credit(1040, &paths)), wait, "{kind}");
    }
}

/// A wait that ended in sending is over: the next has its whole time.
#[test]
fn each_wait_has_its_own_time() {
    for kind in ["ecf", "blest"] {
        let mut s = selector(kind);
        assert!(waits(s.select(&no_credit(1000, &pair(10, 100)))), "{kind}");
        let free = [path(0, 10), path(1, 100)];
        assert!(!waits(s.select(&no_credit(1005, &free))), "{kind}");
        assert!(waits(s.select(&no_credit(1500, &pair(10, 100)))), "{kind}");
    }
}

#[test]
fn a_wait_for_the_pacer_ends_with_its_release() {
    for kind in ["ecf", "blest"] {
        let mut paths = [path(0, 10), path(1, 100)];
        paths[0].pacing_release = Some(at(1002));
        let wait = Decision::Wait {
            until: Some(at(1002)),
        };
        assert_eq!(selector(kind).select(&no_credit(1000, &paths)), wait);
        // Full, though nothing is under way: nothing would end the wait.
        let mut paths = pair(10, 100);
        (paths[0].congestion_window, paths[0].bytes_in_flight) = (0, 0);
        let slow = Decision::Send(PathId(1));
        assert_eq!(selector(kind).select(&no_credit(1000, &paths)), slow);
    }
}

/// Waiting brings it there in 15 ms; before that only the other path can.
#[test]
fn a_deadline_ends_the_wait() {
    for kind in ["ecf", "blest"] {
        let paths = pair(10, 100);
        let mut ctx = no_credit(1000, &paths);
        ctx.packet.deadline = Some(at(1015));
        assert!(waits(selector(kind).select(&ctx)), "{kind}");
        ctx.packet.deadline = Some(at(1014));
        assert!(!waits(selector(kind).select(&ctx)), "{kind}");
    }
}
