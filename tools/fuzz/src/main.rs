//! `corelane-fuzz [target|all] [--seconds N] [--seed S]`: feeds mutated inputs to corelane's
//! parsers and endpoints and checks what they make of them. `--seconds` is for each target named;
//! without a name, all of them share it.
//!
//! Needs nothing but stable Rust. A run follows from its seed: what it prints on a finding (exit
//! code 1) repeats with `--seed S`, or at once with `--input HEX`. Build without `--release` to
//! have overflow checks and debug assertions as oracles too.

mod common;
mod endpoints;
mod mutate;
mod paths;
mod rdma;
mod targets;

use common::scripted;
use corelane::base::Rng;
use mutate::Mutator;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use targets::{TARGETS, Target};

const USAGE: &str = "usage: corelane-fuzz [target|all|list] [--seconds N] [--seed S] [--input HEX]";
/// Inputs between two looks at the clock.
const BATCH: u64 = 256;

struct Options {
    targets: Vec<&'static Target>,
    /// For each target.
    time: Duration,
    seed: u64,
    input: Option<Vec<u8>>,
}

/// An input that a target did not survive.
struct Finding {
    input: Vec<u8>,
    message: String,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|a| a == "list") {
        for target in TARGETS {
            println!("{}", target.name);
        }
        return ExitCode::SUCCESS;
    }
    let options = match parse(&args) {
        Ok(options) => options,
        Err(e) => {
            eprintln!("corelane-fuzz: {e}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    panic::set_hook(Box::new(|info| {
        *lock(&LAST_PANIC) = info.to_string();
    }));
    for target in &options.targets {
        let result = match &options.input {
            Some(input) => run_one(target, input).map_or(Ok(1), Err),
            None => fuzz(target, options.seed, options.time),
        };
        match result {
            Ok(runs) => println!("{}: {runs} inputs, seed {}", target.name, options.seed),
            Err(finding) => {
                println!("{}: {}", target.name, finding.message);
                println!("seed {}", options.seed);
                println!("input {}", to_hex(&finding.input));
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// Runs `target` on mutated inputs for `time`; how many, or the first that failed.
fn fuzz(target: &Target, seed: u64, time: Duration) -> Result<u64, Finding> {
    let mut mutator = Mutator::new((target.corpus)(), Rng::from_u64(seed));
    for input in mutator.corpus() {
        if let Some(finding) = run_one(target, input) {
            return Err(finding);
        }
    }
    let start = now();
    let mut runs = 0;
    while now().duration_since(start) < time {
        for _ in 0..BATCH / target.cost.min(BATCH) + 1 {
            let input = mutator.next_input();
            if let Some(finding) = run_one(target, input) {
                return Err(finding);
            }
        }
        runs += BATCH / target.cost.min(BATCH) + 1;
    }
    Ok(runs)
}

/// What the panic hook saw last.
static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

fn lock(m: &Mutex<String>) -> std::sync::MutexGuard<'_, String> {
    m.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn run_one(target: &Target, input: &[u8]) -> Option<Finding> {
    panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input)))
        .err()
        .map(|_| Finding {
            input: input.to_vec(),
            message: std::mem::take(&mut lock(&LAST_PANIC)),
        })
}

fn parse(args: &[String]) -> Result<Options, String> {
    let mut targets = Vec::new();
    let mut time = Duration::from_secs(10);
    let mut seed = None;
    let mut input = None;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || {
            args.next()
                .ok_or_else(|| format!("{arg} needs a value"))
                .map(String::as_str)
        };
        match arg.as_str() {
            "--seconds" => time = Duration::from_secs(number(arg, value()?)?),
            "--seed" => seed = Some(number(arg, value()?)?),
            "--input" => input = Some(from_hex(value()?).ok_or("--input takes hex digits")?),
            "all" => targets.extend(TARGETS),
            name => match TARGETS.iter().find(|t| t.name == name) {
                Some(target) => targets.push(target),
                None => return Err(format!("there is no target or option {name:?}")),
            },
        }
    }
    if targets.is_empty() {
        targets.extend(TARGETS);
        time /= TARGETS.len() as u32;
    }
    Ok(Options {
        targets,
        time,
        seed: seed.unwrap_or_else(seed_from_clock),
        input,
    })
}

fn number(option: &str, value: &str) -> Result<u64, String> {
    value
        .parse()
        .map_err(|_| format!("{option} takes a number, not {value:?}"))
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    let digits = digits?;
    let bytes = digits.chunks_exact(2);
    bytes
        .remainder()
        .is_empty()
        .then(|| bytes.map(|d| (d[0] << 4 | d[1]) as u8).collect())
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a program of its own that runs for a given time"
)]
fn now() -> Instant {
    Instant::now()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a seed that differs between runs; it is printed"
)]
fn seed_from_clock() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_survives_a_short_run() {
        for target in TARGETS {
            let mut mutator = Mutator::new((target.corpus)(), Rng::from_u64(1));
            for _ in 0..20_000 / target.cost {
                let input = mutator.next_input();
                if let Some(f) = run_one(target, input) {
                    panic!("{}: {} on {}", target.name, f.message, to_hex(&f.input));
                }
            }
        }
    }

    #[test]
    fn a_panic_is_a_finding_with_its_input() {
        let target = Target {
            name: "picky",
            corpus: || vec![vec![0; 4]],
            run: |input| assert!(input.len() < 8, "too long"),
            cost: 1,
        };
        let Err(finding) = fuzz(&target, 5, Duration::from_secs(60)) else {
            panic!("no finding");
        };
        assert!(finding.input.len() >= 8);
        assert!(run_one(&target, &finding.input).is_some());
        assert!(run_one(&target, &[0; 7]).is_none());
    }

    #[test]
    fn inputs_follow_from_the_seed() {
        let inputs = |seed| {
            let mut mutator = Mutator::new((TARGETS[0].corpus)(), Rng::from_u64(seed));
            let mut out = Vec::new();
            for _ in 0..50 {
                out.push(mutator.next_input().to_vec());
            }
            out
        };
        assert_eq!(inputs(3), inputs(3));
        assert_ne!(inputs(3), inputs(4));
    }

    #[test]
    fn hex_and_arguments() {
        assert_eq!(from_hex("00ff1a"), Some(vec![0, 0xff, 0x1a]));
        assert_eq!(to_hex(&[0, 0xff, 0x1a]), "00ff1a");
        assert_eq!(from_hex("0"), None);
        assert_eq!(from_hex("zz"), None);
        let args = |text: &str| parse(&text.split(' ').map(String::from).collect::<Vec<_>>());
        let options = args("frame header --seconds 3 --seed 9").expect("good arguments");
        assert_eq!((options.targets.len(), options.seed), (2, 9));
        assert_eq!(args("all").map_or(0, |o| o.targets.len()), TARGETS.len());
        for bad in ["nothing", "frame --seed", "frame --seconds x"] {
            assert!(args(bad).is_err(), "{bad}");
        }
    }
}
