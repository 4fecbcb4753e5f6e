//! Each scheduler's own rule, and the names.

use super::*;

#[test]
fn round_robin_shares_exactly() {
    let mut s = selector("round-robin");
    let two = [path(0, 10), path(1, 90)];
    assert_eq!(picks(&mut s, &two, 100), [50, 50]);
    let four = [path(0, 10), path(1, 90), path(5, 1), path(9, 1)];
    assert_eq!(picks(&mut s, &four, 100), [25; 4]);
    // Those that cannot send are left out, and the rest share.
    let some = [
        path(0, 10),
        full(path(1, 10)),
        failed(path(5, 1)),
        path(9, 1),
    ];
    assert_eq!(picks(&mut s, &some, 100), [50, 0, 0, 50]);
}

/// Packets of a lifetime do not count: a late path takes turns from its first packet on.
#[test]
fn round_robin_gives_a_late_path_its_turn_and_no_more() {
    let mut s = selector("round-robin");
    assert_eq!(
        picks(&mut s, &[path(0, 10), full(path(1, 10))], 1000),
        [1000, 0]
    );
    assert_eq!(picks(&mut s, &[path(0, 10), path(1, 10)], 100), [50, 50]);
}

/// Asking twice before a packet leaves changes nothing.
#[test]
fn round_robin_moves_on_when_a_packet_left() {
    let mut s = selector("round-robin");
    let paths = [path(0, 10), path(1, 10)];
    for _ in 0..3 {
        assert_eq!(chosen(ask(&mut s, &paths)), Some(0));
    }
    s.on_sent(at(1000), PathId(0), 1);
    assert_eq!(chosen(ask(&mut s, &paths)), Some(1));
}

#[test]
fn low_latency_takes_the_lowest_latency_load_included() {
    let mut s = selector("low-latency");
    let (slow, mut fast) = (path(0, 50), path(1, 20));
    assert_eq!(picks(&mut s, &[slow, fast], 50), [0, 50]);
    fast.queue_delay = ms(31);
    assert_eq!(picks(&mut s, &[slow, fast], 50), [50, 0]);
    fast.queue_delay = ms(29);
    assert_eq!(picks(&mut s, &[slow, fast], 50), [0, 50]);
    assert_eq!(picks(&mut s, &[slow, full(fast)], 50), [50, 0]);
}

/// Bias 1: only round-trip times. 0: only shares. Half: the unused one of two that are alike.
#[test]
fn min_rtt_follows_its_bias() {
    let alike = [path(0, 50), path(1, 51)];
    let mut s = selector("min-rtt:1");
    s.on_sent(at(0), PathId(0), 100 * MTU as u64);
    assert_eq!(picks(&mut s, &alike, 100), [100, 0]);

    let mut s = selector("min-rtt:0");
    let shares = picks(&mut s, &[path(0, 5), path(1, 500)], 100);
    assert!((45..=55).contains(&shares[0]), "{shares:?}");

    // Path 0: 0.5 * 1 + 0.5 * (1 - 1) = 0.5. Path 1: 0.5 * 50/51 + 0.5 * (1 - 0) = 0.99.
    let mut s = selector("min-rtt:0.5");
    s.on_sent(at(0), PathId(0), MTU as u64);
    assert_eq!(chosen(ask(&mut s, &alike)), Some(1));

    // RTTs of 10 and 40 ms balance where 0.5 + 0.5 (1 - x) = 0.125 + 0.5 x: x = 0.875.
    let shares = picks(
        &mut selector("min-rtt:0.5"),
        &[path(0, 10), path(1, 40)],
        1000,
    );
    assert!((865..=885).contains(&shares[0]), "{shares:?}");
}

/// The policy named after RTT and shares is not the one of latency alone.
#[test]
fn min_rtt_is_what_its_name_builds() {
    let kind: SchedulerKind = "min-rtt".parse().expect("a name");
    assert_eq!(kind.build().name(), "min-rtt");
    let shares = picks(&mut Selector::new(&kind), &[path(0, 10), path(1, 11)], 100);
    assert!(shares[1] > 30, "{shares:?}");
}

#[test]
fn min_rtt_clamps_its_bias() {
    assert_eq!(MinRtt::new(-3.0).bias(), 0.0);
    assert_eq!(MinRtt::new(7.5).bias(), 1.0);
    assert_eq!(MinRtt::new(f64::NAN).bias(), 1.0);
    assert_eq!(MinRtt::new(0.25).bias(), 0.25);
}

/// What was sent long ago is forgotten: the late path gets at most a window more than its share.
#[test]
fn min_rtt_forgets() {
    let mut s = selector("min-rtt:0");
    s.on_sent(at(0), PathId(0), 1 << 40);
    let paths = [path(0, 10), path(1, 10)];
    let first = picks(&mut s, &paths, 600);
    let then = picks(&mut s, &paths, 1000);
    assert!((450..=550).contains(&then[0]), "{first:?} {then:?}");
    // A path that is gone takes its bytes with it.
    s.scheduler().path_removed(PathId(0));
    let fresh = picks(&mut s, &[path(1, 10), path(2, 10)], 1000);
    assert!((400..=600).contains(&fresh[0]), "{fresh:?}");
}

#[test]
fn redundant_sends_copies_where_there_is_room() {
    let paths = [path(0, 30), path(1, 10), full(path(2, 1)), path(3, 20)];
    let ids = |kind| match ask(&mut selector(kind), &paths) {
        Decision::Redundant(ids) => ids.as_slice().iter().map(|id| id.0).collect(),
        Decision::Send(id) => vec![id.0],
        _ => Vec::new(),
    };
    assert_eq!(ids("redundant"), [1, 3, 0]);
    assert_eq!(ids("redundant:2"), [1, 3]);
    assert_eq!(ids("redundant:1"), [1]);
    let none = Selector::from(Box::new(Redundant::new(0)) as Box<dyn Scheduler>);
    assert_eq!(ask(&mut { none }, &paths), Decision::Send(PathId(1)));
}

#[test]
fn weighted_shares_converge() {
    let mut s = selector("weighted:0=3,1=1");
    assert_eq!(picks(&mut s, &[path(0, 10), path(1, 90)], 400), [300, 100]);
    // A path without a weight has 1.
    let shares = picks(&mut s, &[path(0, 10), path(1, 90), path(2, 1)], 1000);
    assert!(
        shares[0].abs_diff(600) < 5 && shares[1].abs_diff(200) < 5,
        "{shares:?}"
    );
    // Bytes count, not packets.
    let mut s = selector("weighted");
    let (paths, mut bytes) = ([path(0, 10), path(1, 10)], [0, 0]);
    for _ in 0..1000 {
        let id = chosen(ask(&mut s, &paths)).expect("a path");
        let size = if id == 0 { 1200 } else { 300 };
        s.on_sent(at(0), PathId(id), size);
        bytes[id as usize] += size;
    }
    assert!(bytes[0].abs_diff(bytes[1]) <= 2400, "{bytes:?}");
}

#[test]
fn weighted_lets_a_path_lag_a_little_only() {
    let mut s = selector("weighted:0=1,1=1");
    assert_eq!(picks(&mut s, &[path(0, 10), path(1, 10)], 10), [5, 5]);
    let lone = [path(0, 10), full(path(1, 10))];
    assert_eq!(picks(&mut s, &lone, 10_000), [10_000, 0]);
    // 64 KiB are 54.6 packets ahead, then halves.
    let shares = picks(&mut s, &[path(0, 10), path(1, 10)], 1000);
    assert!((520..=530).contains(&shares[1]), "{shares:?}");
    // A new path starts level.
    let shares = picks(&mut s, &[path(0, 10), path(7, 10)], 1000);
    assert!(shares[0].abs_diff(500) <= 30, "{shares:?}");
}

#[test]
fn weighted_virtual_times_do_not_overflow() {
    let mut s = selector("weighted:0=2,1=1");
    let paths = [path(0, 10), path(1, 10)];
    let mut bytes = [0u128; 2];
    for _ in 0..3000 {
        let id = chosen(ask(&mut s, &paths)).expect("a path");
        s.on_sent(at(0), PathId(id), 1 << 44);
        bytes[id as usize] += 1 << 44;
    }
    let ratio = bytes[0] as f64 / bytes[1] as f64;
    assert!((1.9..2.1).contains(&ratio), "{ratio}");
}

#[test]
fn backup_uses_one_path_at_a_time() {
    let mut s = selector("backup");
    let paths = [path(3, 1), path(1, 90), path(2, 10)];
    assert_eq!(picks(&mut s, &paths, 20), [0, 20, 0]);
    let wait = Decision::Wait { until: None };
    assert_eq!(ask(&mut s, &[path(3, 1), full(path(1, 90))]), wait);
    let paths = [path(3, 1), failed(path(1, 90)), path(2, 10)];
    assert_eq!(picks(&mut s, &paths, 20), [0, 0, 20]);
}

#[test]
fn names_round_trip() {
    for name in [
        "round-robin",
        "low-latency",
        "min-rtt:0.25",
        "ecf",
        "blest",
        "redundant",
        "redundant:2",
        "weighted",
        "weighted:0=3,1=1,4294967295=7",
        "backup",
    ] {
        let kind: SchedulerKind = name.parse().expect(name);
        assert_eq!(kind.to_string(), name);
        assert_eq!(kind.to_string().parse::<SchedulerKind>(), Ok(kind.clone()));
        assert!(name.starts_with(kind.build().name()), "{name}");
    }
    assert_eq!(SchedulerKind::default(), SchedulerKind::LowLatency);
}

#[test]
fn wrong_names_say_why() {
    for (text, why) in [
        ("fastest", "no scheduler `fastest`"),
        ("", "no scheduler ``"),
        ("ecf:1", "takes no argument"),
        ("min-rtt:NaN", "a number from 0 to 1"),
        ("min-rtt:7", "a number from 0 to 1"),
        ("min-rtt:-1", "a number from 0 to 1"),
        ("redundant:0", "1 to 255"),
        ("redundant:256", "1 to 255"),
        ("weighted:0", "PATH=WEIGHT"),
        ("weighted:x=1", "a path ID"),
        ("weighted:0=-1", "a weight is a number"),
        ("weighted:0=0", "1 at least"),
        ("weighted:0=1,0=2", "one weight"),
    ] {
        let error = text.parse::<SchedulerKind>().expect_err(text).to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
    let many: Vec<_> = (0..65).map(|n| format!("{n}=1")).collect();
    let error = format!("weighted:{}", many.join(",")).parse::<SchedulerKind>();
    assert!(error.is_err());
}
