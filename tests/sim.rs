//! Random faults against the whole engine, from seeds: everything is delivered, everything is
//! forgotten, and a failure prints the seed that repeats it.
//!
//! `CORELANE_SEEDS=first..last` runs other seeds, `CORELANE_SEEDS=n` one.

mod common;

use common::certs::Identity;
use common::world::World;
use corelane::conn::EarlyData;
use std::ops::Range;

/// The seeds of an ordinary run.
const SEEDS: Range<u64> = 0..1000;

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("CORELANE_SEEDS") else {
        return SEEDS;
    };
    let number = |s: &str| {
        s.parse::<u64>()
            .expect("CORELANE_SEEDS is n or first..last")
    };
    match text.split_once("..") {
        Some((first, last)) => number(first)..number(last),
        None => number(&text)..number(&text) + 1,
    }
}

fn run(shards: usize) {
    let identity = Identity::fixed();
    let (mut forwarded, mut moves) = (0, 0);
    let (mut accepted, mut rejected) = (0, 0);
    for seed in seeds() {
        let world = World::new(seed, shards, &identity);
        match world.run() {
            Ok(outcome) => {
                forwarded += outcome.forwarded;
                moves += outcome.moves;
                accepted += u32::from(outcome.early == EarlyData::Accepted);
                rejected += u32::from(outcome.early == EarlyData::Rejected);
            }
            Err(why) => panic!("CORELANE_SEEDS={seed} with {shards} shards: {why}"),
        }
    }
    let many = seeds().count() > 100;
    assert!(!many || moves > 0, "no client ever moved");
    assert!(
        shards == 1 || !many || forwarded > 0,
        "no datagram ever changed shards"
    );
    assert!(
        !many || (accepted > 10 && rejected > 10),
        "early data was accepted {accepted} times and rejected {rejected} times"
    );
}

#[test]
fn nothing_is_lost_with_one_shard() {
    run(1);
}

#[test]
fn nothing_is_lost_with_four_shards() {
    run(4);
}

#[test]
fn nothing_is_lost_over_several_paths() {
    let identity = Identity::fixed();
    for shards in [1, 4] {
        let mut opened = 0;
        for seed in seeds().step_by(2) {
            match World::with_paths(seed, shards, &identity, true).run() {
                Ok(outcome) => opened += outcome.paths,
                Err(why) => {
                    panic!("CORELANE_SEEDS={seed} with {shards} shards, several paths: {why}")
                }
            }
        }
        let many = seeds().count() > 100;
        assert!(!many || opened > 100, "{opened} paths were opened");
    }
}

#[test]
fn a_seed_repeats_exactly() {
    let identity = Identity::fixed();
    for seed in 0..20 {
        let [a, b] = [(), ()].map(|()| World::new(seed, 4, &identity).run());
        assert_eq!(a, b, "seed {seed}");
        let [a, b] = [(), ()].map(|()| World::with_paths(seed, 4, &identity, true).run());
        assert_eq!(a, b, "seed {seed}, several paths");
    }
}
