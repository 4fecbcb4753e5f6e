//! RoCE v2 in user space beside what the machine's UDP allows and beside QUIC, in one command: RDMA
//! WRITEs of 64 KiB, messages of 64 bytes there and back, clients that share two cores, and what
//! each client costs.
//!
//! Programs run in turn, round after round; a round in which others used the machine is made again,
//! and ratios are formed within a round, as `compare` does it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use corelane_perf::compare::machine;
use corelane_perf::compare::noise::{LIMIT_CORES, Snapshot, wait_for_quiet};
use corelane_perf::compare::stats::Summary;
use corelane_perf::output::{self, tell};
use corelane_perf::{child, flags, places};
use serde::Serialize;
use serde_json::{Value, json};

/// Measures corelane's RDMA over loopback.
#[derive(Parser)]
#[command(name = "rdma", version)]
struct Args {
    /// Rounds that shall count
    #[arg(long, default_value_t = 5, value_parser = flags::rounds)]
    rounds: usize,
    /// Rounds made beyond that when noisy ones were discarded
    #[arg(long, default_value_t = 5, value_parser = flags::extra)]
    extra: usize,
    /// Seconds measured in each run
    #[arg(long, default_value_t = 2.0, value_parser = flags::window)]
    seconds: f64,
    /// Seconds left out before
    #[arg(long, default_value_t = 0.3, value_parser = flags::seconds)]
    omit: f64,
    /// Seconds to wait for a quiet machine before each run
    #[arg(long, default_value_t = 5.0, value_parser = flags::seconds)]
    patience: f64,
    /// Only these rows, separated by commas; their targets need both of their rows
    #[arg(long, value_delimiter = ',', default_values_t = ROWS.map(|r| r.name.to_owned()))]
    rows: Vec<String>,
    /// Directory of `corelane` and `ceiling` [default: where this one is]
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Another build of corelane, run as `before-write` and `before-latency` in the same rounds
    #[arg(long)]
    before: Option<PathBuf>,
    /// Print everything as JSON
    #[arg(short = 'J', long)]
    json: bool,
}

/// One program in one configuration.
#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    program: &'static str,
    arguments: &'static str,
}

/// Not spinning, as the rows beside it: two threads that never sleep stay where the host has put
/// them, however far apart, and others move back together when they wake each other.
const WRITE: &str = "rdma bench write -J -s 65536 -D {s} -O {o}";
const LATENCY: &str = "rdma bench latency --spin -J -s 64 -D {s} -O {o}";
const ROWS: [Row; 9] = [
    row(
        "udp",
        "ceiling",
        "--work up --cipher none --size 4096 --json --seconds {s} --omit {o}",
    ),
    row(
        "udp-echo",
        "ceiling",
        "--work echo --cipher none --size 64 --json --seconds {s} --omit {o}",
    ),
    row(
        "quic",
        "corelane",
        "bench throughput -l 64K --mtu 4096 --window 8M --no-pacing -J -t {s} -O {o}",
    ),
    row(
        "quic-jumbo",
        "corelane",
        "bench throughput -l 64K --mtu 65507 --window 8M --no-pacing -J -t {s} -O {o}",
    ),
    row("write", "corelane", WRITE),
    row(
        "write-spin",
        "corelane",
        "rdma bench write --spin -J -s 65536 -D {s} -O {o}",
    ),
    row("latency", "corelane", LATENCY),
    row("clients", "corelane", "rdma bench clients -J -D {s} -O {o}"),
    row("setup", "corelane", "rdma bench setup -J"),
];

const fn row(name: &'static str, program: &'static str, arguments: &'static str) -> Row {
    Row {
        name,
        program,
        arguments,
    }
}

/// What a run said.
#[derive(Serialize)]
struct Run {
    row: String,
    round: usize,
    noise_cores: f64,
    workloads: Vec<Value>,
    error: Option<String>,
}

impl Run {
    fn number(&self, path: &str) -> Option<f64> {
        self.workloads.first()?.pointer(path)?.as_f64()
    }
}

const GBITS: &str = "/goodput_bits_per_second";
const P50: &str = "/latency_ns/p50";
const MEMORY: &str = "/memory_bytes_per_client";

/// A ratio of two rows, at least or at most so much.
struct Target {
    what: &'static str,
    of: (&'static str, &'static str),
    over: (&'static str, &'static str),
    least: Option<f64>,
    most: Option<f64>,
}

const TARGETS: [Target; 4] = [
    Target {
        what: "64 KiB writes beside raw UDP with GSO and GRO: Gbit/s",
        of: ("write", GBITS),
        over: ("udp", GBITS),
        least: Some(0.6),
        most: None,
    },
    Target {
        what: "64 KiB writes beside QUIC in packets of 4,096 bytes: Gbit/s",
        of: ("write", GBITS),
        over: ("quic", GBITS),
        least: Some(1.0),
        most: None,
    },
    Target {
        what: "64 KiB writes beside QUIC in packets of 65,507 bytes: Gbit/s",
        of: ("write", GBITS),
        over: ("quic-jumbo", GBITS),
        least: Some(1.0),
        most: None,
    },
    Target {
        what: "64 bytes there and back beside a spinning echo over raw UDP: p50",
        of: ("latency", P50),
        over: ("udp-echo", P50),
        least: None,
        most: Some(1.4),
    },
];

/// Windows of the row with the most, at most.
const STAGES: f64 = 16.0;
/// What starting, a thousand clients and ending may take beyond them.
const GRACE: Duration = Duration::from_secs(120);

/// What shall not change with the number of clients.
struct Flat {
    what: &'static str,
    row: &'static str,
    path: &'static str,
    /// Only less than with the fewest is a change for the worse; else the least and the most of all
    /// stages are compared.
    may_rise: bool,
}

/// How far the extremes may be apart.
const SPREAD: f64 = 1.2;
const FLAT: [Flat; 3] = [
    Flat {
        what: "many clients together beside one: least Gbit/s",
        row: "clients",
        path: GBITS,
        may_rise: true,
    },
    Flat {
        what: "setup of one, 10 to 1,000 clients: most beside least",
        row: "setup",
        path: P50,
        may_rise: false,
    },
    Flat {
        what: "memory of one, 10 to 1,000 clients: most beside least",
        row: "setup",
        path: MEMORY,
        may_rise: false,
    },
];

fn main() -> ExitCode {
    let args = Args::parse();
    match measure(&args) {
        Ok(Rounds {
            runs,
            counted,
            only_noisy,
        }) => {
            let failed = runs.iter().any(|r| r.error.is_some());
            let text = match args.json {
                true => format!("{:#}\n", document(&args, &runs, &counted, only_noisy)),
                false if only_noisy => NOISY.to_owned() + &table(&runs, &counted),
                false => table(&runs, &counted),
            };
            output::finish(&text, ExitCode::from(u8::from(failed)))
        }
        Err(error) => {
            tell(&format!("rdma: {error}"));
            ExitCode::from(2)
        }
    }
}

fn document(args: &Args, runs: &[Run], counted: &[usize], only_noisy: bool) -> Value {
    let commit = |name: &str| machine::commit(&directory(args).ok()?.join(name));
    json!({
        "commit": commit("corelane"),
        "commit_before": args.before.as_ref().and_then(|file| machine::commit(file)),
        "runs": runs,
        "rounds_counted": counted,
        "only_noisy_rounds": only_noisy,
    })
}

fn directory(args: &Args) -> Result<PathBuf, String> {
    args.bin_dir.clone().map_or_else(places::beside, Ok)
}

/// What is run, found before anything is measured: names, programs and arguments.
fn programs(args: &Args) -> Result<Vec<(String, PathBuf, &'static str)>, String> {
    let directory = directory(args)?;
    let mut rows: Vec<(String, PathBuf, &str)> = Vec::new();
    if let Some(name) = args
        .rows
        .iter()
        .find(|n| !ROWS.iter().any(|r| r.name == *n))
    {
        let all = ROWS.map(|r| r.name).join(", ");
        return Err(format!("there is no row `{name}`: take {all}"));
    }
    for row in ROWS
        .iter()
        .filter(|r| args.rows.iter().any(|n| n == r.name))
    {
        let program = places::locate(&directory, row.program, places::BUILD)?;
        rows.push((row.name.into(), program, row.arguments));
    }
    if let Some(before) = &args.before {
        let before = places::program(before.clone(), "cargo build --release")?;
        rows.push(("before-write".into(), before.clone(), WRITE));
        rows.push(("before-latency".into(), before, LATENCY));
    }
    Ok(rows)
}

/// What stands above the tables where no round was quiet.
const NOISY: &str = "**Every round was noisy: these are no results.**\n\n";

struct Rounds {
    runs: Vec<Run>,
    /// Those that count: the quiet ones, or all where none was.
    counted: Vec<usize>,
    only_noisy: bool,
}

fn measure(args: &Args) -> Result<Rounds, String> {
    let rows = programs(args)?;
    let (mut runs, mut clean) = (Vec::new(), Vec::new());
    for round in 1..=args.rounds + args.extra {
        if clean.len() == args.rounds {
            break;
        }
        let mut is_quiet = true;
        for row in &rows {
            let run = once(row, args, round);
            tell(&format!(
                "{round} {}: {:.2} cores of others",
                run.row, run.noise_cores
            ));
            is_quiet &= run.noise_cores <= LIMIT_CORES;
            runs.push(run);
        }
        if is_quiet {
            clean.push(round);
        }
    }
    let only_noisy = clean.is_empty();
    let counted = match only_noisy {
        true => (1..=args.rounds + args.extra).collect(),
        false => clean,
    };
    Ok(Rounds {
        runs,
        counted,
        only_noisy,
    })
}

fn once((name, program, arguments): &(String, PathBuf, &str), args: &Args, round: usize) -> Run {
    let seconds = |text: &str, key: &str, value: f64| text.replace(key, &value.to_string());
    let line = seconds(&seconds(arguments, "{s}", args.seconds), "{o}", args.omit);
    let mut run = Run {
        row: name.clone(),
        round,
        noise_cores: f64::INFINITY,
        workloads: Vec::new(),
        error: None,
    };
    let done = (|| {
        let text = |e: std::io::Error| e.to_string();
        wait_for_quiet(Duration::from_secs_f64(args.patience)).map_err(text)?;
        let before = Snapshot::read().map_err(text)?;
        let limit = Duration::from_secs_f64((args.seconds + args.omit) * STAGES) + GRACE;
        let mut command = Command::new(program);
        let output = child::output(command.args(line.split_whitespace()), limit);
        run.noise_cores = before.others_since().map_err(text)?;
        let output = output.map_err(|failed| failed.why)?;
        let report: Value = serde_json::from_str(&output).map_err(|e| e.to_string())?;
        let workloads = report.pointer("/end/workloads").and_then(Value::as_array);
        run.workloads = workloads.cloned().ok_or("a report without workloads")?;
        Ok(())
    })();
    run.error = done.err();
    run
}

/// The middle of one number over the rounds that count.
fn middle(runs: &[&Run], row: &str, path: &str) -> Option<Summary> {
    let of = runs.iter().filter(|r| r.row == row);
    Summary::of(of.filter_map(|r| r.number(path)))
}

fn table(runs: &[Run], counted: &[usize]) -> String {
    let counts: Vec<&Run> = runs.iter().filter(|r| counted.contains(&r.round)).collect();
    let mut text =
        String::from("| | Gbit/s | p50 µs | p99 µs | p99.9 µs |\n|---|---|---|---|---|\n");
    let mut names: Vec<&str> = counts.iter().map(|r| r.row.as_str()).collect();
    names.dedup();
    names.sort_unstable();
    names.dedup();
    for name in names.iter().filter(|n| !["clients", "setup"].contains(n)) {
        let number = |path, scale: f64, digits| {
            let found = middle(&counts, name, path).filter(|s| s.median > 0.0);
            found.map_or("—".into(), |s| {
                let [m, low, high] = [s.median, s.min, s.max].map(|n| n / scale);
                format!("{m:.digits$} [{low:.digits$}..{high:.digits$}]")
            })
        };
        text += &format!(
            "| {name} | {} | {} | {} | {} |\n",
            number(GBITS, 1e9, 1),
            number(P50, 1e3, 2),
            number("/latency_ns/p99", 1e3, 1),
            number("/latency_ns/p999", 1e3, 1),
        );
    }
    text += "\n| | to reach | reached | holds |\n|---|---|---|---|\n";
    for target in &TARGETS {
        text += &verdict(&counts, target);
    }
    for flat in &FLAT {
        text += &flatness(&counts, flat);
    }
    text += &stages(&counts);
    for run in runs.iter().filter(|r| r.error.is_some()) {
        let why = run.error.as_deref().unwrap_or_default();
        text += &format!("{} in round {}: {why}\n", run.row, run.round);
    }
    text
}

/// A target's line: the ratio within each round.
fn verdict(runs: &[&Run], target: &Target) -> String {
    let of = |round: usize, (row, path): (&str, &str)| {
        let run = runs.iter().find(|r| r.round == round && r.row == row)?;
        run.number(path)
    };
    let mut rounds: Vec<usize> = runs.iter().map(|r| r.round).collect();
    rounds.dedup();
    let ratios = rounds
        .iter()
        .filter_map(|n| Some(of(*n, target.of)? / of(*n, target.over)?));
    let Some(s) = Summary::of(ratios) else {
        return String::new();
    };
    let low = target.least.is_none_or(|least| s.median >= least);
    let holds = low && target.most.is_none_or(|most| s.median <= most);
    let (word, bound) = match (target.least, target.most) {
        (Some(least), _) => ("at least", least),
        (None, most) => ("at most", most.unwrap_or_default()),
    };
    format!(
        "| {} | {word} {bound} | {:.2} [{:.2}..{:.2}] | {} |\n",
        target.what,
        s.median,
        s.min,
        s.max,
        if holds { "yes" } else { "**no**" }
    )
}

/// The middle over the rounds for each number of clients.
fn by_clients(runs: &[&Run], row: &str, path: &str) -> Vec<(u64, f64)> {
    let mut all: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for run in runs.iter().filter(|r| r.row == row) {
        for w in &run.workloads {
            let value = w.pointer(path).and_then(Value::as_f64);
            if let (Some(n), Some(value)) = (w["clients"].as_u64(), value) {
                all.entry(n).or_default().push(value);
            }
        }
    }
    let middle = |values| Summary::of(values).map_or(0.0, |s| s.median);
    all.into_iter().map(|(n, v)| (n, middle(v))).collect()
}

/// The line of something that shall be flat.
fn flatness(runs: &[&Run], flat: &Flat) -> String {
    let stages = by_clients(runs, flat.row, flat.path);
    let values = || stages.iter().map(|(_, v)| *v);
    let (least, most) = (
        values().fold(f64::INFINITY, f64::min),
        values().fold(0.0, f64::max),
    );
    let Some(first) = values().next().filter(|_| least > 0.0) else {
        return String::new();
    };
    let (ratio, bound, holds) = if flat.may_rise {
        let ratio = least / first;
        (
            ratio,
            format!("at least {:.2}", 1.0 / SPREAD),
            ratio * SPREAD >= 1.0,
        )
    } else {
        let ratio = most / least;
        (ratio, format!("at most {SPREAD}"), ratio <= SPREAD)
    };
    let word = if holds { "yes" } else { "**no**" };
    format!("| {} | {bound} | {ratio:.2} | {word} |\n", flat.what)
}

/// What changes with the number of clients.
fn stages(runs: &[&Run]) -> String {
    let mut text = String::new();
    for (row, path, scale, what) in [
        ("clients", GBITS, 1e9, "together, Gbit/s"),
        ("setup", P50, 1e3, "setup of one, µs"),
        ("setup", MEMORY, 1024.0, "memory of one at both ends, KiB"),
        (
            "setup",
            "/registered_bytes_per_client",
            1024.0,
            "registered of it, KiB",
        ),
    ] {
        let by_clients = by_clients(runs, row, path);
        if by_clients.is_empty() {
            continue;
        }
        let (mut head, mut line, mut body) = (String::new(), String::new(), String::new());
        for (n, value) in by_clients {
            head += &format!(" {n} |");
            line += "---|";
            body += &format!(" {:.1} |", value / scale);
        }
        text += &format!("\n| clients |{head}\n|---|{line}\n| {what} |{body}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(row: &str, round: usize, gbits: f64) -> Run {
        Run {
            row: row.into(),
            round,
            noise_cores: 0.0,
            workloads: vec![json!({ "goodput_bits_per_second": gbits })],
            error: None,
        }
    }

    #[test]
    fn a_verdict_is_of_ratios_within_a_round() {
        // The medians' ratio would be 1.
        let runs = [
            run("write", 1, 2.0),
            run("udp", 1, 10.0),
            run("write", 2, 10.0),
            run("udp", 2, 2.0),
            run("write", 3, 7.0),
            run("udp", 3, 10.0),
        ];
        let all: Vec<&Run> = runs.iter().collect();
        let line = verdict(&all, &TARGETS[0]);
        assert!(line.contains("0.70 [0.20..5.00] | yes"), "{line}");
        let line = verdict(&all[..2], &TARGETS[0]);
        assert!(line.contains("**no**"), "{line}");
        assert_eq!(verdict(&all, &TARGETS[1]), "", "nobody ran QUIC");
    }

    #[test]
    fn flat_is_within_a_fifth() {
        let stages = |values: &[f64]| {
            let stage =
                |(n, v): (usize, &f64)| json!({ "clients": n, "goodput_bits_per_second": v });
            let workloads = values.iter().enumerate().map(stage).collect();
            Run {
                workloads,
                ..run("clients", 1, 0.0)
            }
        };
        let line = |values: &[f64]| flatness(&[&stages(values)], &FLAT[0]);
        assert!(line(&[10.0, 14.0, 8.4]).contains("| 0.84 | yes"));
        assert!(line(&[10.0, 14.0, 8.2]).contains("| 0.82 | **no**"));
        let level = Flat {
            may_rise: false,
            ..FLAT[0]
        };
        let line = |values: &[f64]| flatness(&[&stages(values)], &level);
        assert!(line(&[10.0, 11.9, 11.0]).contains("| 1.19 | yes"));
        assert!(line(&[10.0, 11.0, 9.0]).contains("| 1.22 | **no**"));
        assert_eq!(flatness(&[], &level), "", "nobody measured it");
    }

    #[test]
    fn every_target_names_rows() {
        for target in &TARGETS {
            for (row, _) in [target.of, target.over] {
                assert!(ROWS.iter().any(|r| r.name == row), "{row}");
            }
        }
    }
}
