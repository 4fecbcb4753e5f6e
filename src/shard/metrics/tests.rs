use super::table::TABLE;
use super::*;
use crate::io::errno::Errno;
use std::collections::BTreeSet;

/// Metrics in which every slot has a value of its own.
fn distinct() -> ShardMetrics {
    let mut m = ShardMetrics::default();
    table::read(&mut m, |slot| slot as u64 + 1);
    m
}

#[test]
fn every_counter_has_its_metric() {
    // A number for each field, as Debug shows them.
    let fields = |text: String| text.matches(": 0").count();
    let metrics = |prefix: &str| TABLE.iter().filter(|e| e.name.starts_with(prefix)).count();
    let d = ShardMetrics::default();
    assert_eq!(fields(format!("{:?}", d.shard)), metrics("corelane_shard_"));
    assert_eq!(
        fields(format!("{:?}", d.endpoint)),
        metrics("corelane_endpoint_")
    );
    assert_eq!(fields(format!("{:?}", d.io)), metrics("corelane_io_"));
    let connection = metrics("corelane_connection_");
    assert_eq!(fields(format!("{:?}", d.connections)), connection);
}

#[test]
fn names_follow_the_conventions() {
    let mut seen = BTreeSet::new();
    for e in TABLE {
        assert!(seen.insert(e.name), "{} is there twice", e.name);
        let fits = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(e.name.chars().all(fits), "{}", e.name);
        assert_eq!(
            e.kind == Kind::Counter,
            e.name.ends_with("_total"),
            "{}",
            e.name
        );
        assert!(
            e.help.ends_with('.') && !e.help.contains('\n'),
            "{}",
            e.name
        );
    }
}

#[test]
fn what_is_written_is_read_back() {
    let m = distinct();
    let mut slots = vec![0; SLOTS];
    table::write(&m, |slot, n| slots[slot] = n);
    assert!(slots.iter().enumerate().all(|(i, n)| *n == i as u64 + 1));
    let mut twice = m.clone();
    twice.add(&m);
    table::write(&twice, |slot, n| assert_eq!(n, 2 * (slot as u64 + 1)));
    let metrics = Metrics {
        engine: String::new(),
        shards: vec![m.clone(), m],
    };
    assert_eq!(metrics.total(), twice);
}

#[test]
fn prometheus_reads_the_text() {
    let mut m = ShardMetrics::default();
    m.shard.turns = 7;
    m.rtt.buckets[0] = 2;
    m.rtt.buckets[14] = 1;
    m.rtt.sum_us = 2_000_100;
    m.io.errors.count(Errno(libc::EMSGSIZE));
    let engine = |name: &str| Metrics {
        engine: name.into(),
        shards: vec![m.clone(); 2],
    };
    let text = prometheus(&[engine("a"), engine("b\"\\")]);
    let turns = "\
# HELP corelane_shard_turns_total Turns of the shard's loop.
# TYPE corelane_shard_turns_total counter
corelane_shard_turns_total{engine=\"a\",shard=\"0\"} 7
corelane_shard_turns_total{engine=\"a\",shard=\"1\"} 7
corelane_shard_turns_total{engine=\"b\\\"\\\\\",shard=\"0\"} 7
corelane_shard_turns_total{engine=\"b\\\"\\\\\",shard=\"1\"} 7
";
    assert!(text.contains(turns), "{text}");
    for line in [
        "corelane_io_errors_total{engine=\"a\",shard=\"0\",errno=\"EMSGSIZE\"} 1",
        "corelane_connection_rtt_seconds_bucket{engine=\"a\",shard=\"1\",le=\"0.00005\"} 2",
        "corelane_connection_rtt_seconds_bucket{engine=\"a\",shard=\"1\",le=\"1\"} 2",
        "corelane_connection_rtt_seconds_bucket{engine=\"a\",shard=\"1\",le=\"+Inf\"} 3",
        "corelane_connection_rtt_seconds_sum{engine=\"a\",shard=\"1\"} 2.0001",
        "corelane_connection_rtt_seconds_count{engine=\"a\",shard=\"1\"} 3",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
    let families = text.lines().filter(|l| l.starts_with("# TYPE"));
    let names: Vec<&str> = families.clone().collect();
    assert_eq!(names.len(), families.collect::<BTreeSet<_>>().len());
}
