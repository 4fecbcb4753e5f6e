//! corelane and noq over several paths, in one command: what two shaped links carry together, how
//! long nothing is delivered when one of them dies, whether paths that work are kept, and what
//! further paths cost on unshaped loopback.
//!
//! Programs run in turn, round after round, and medians are shown. Both are shaped by the same
//! relay, each in a process of its own.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use corelane_perf::compare::stats::Summary;
use corelane_perf::output::{self, tell};
use corelane_perf::{child, flags, places};
use serde::Serialize;
use serde_json::Value;

/// Measures corelane and noq over several paths on loopback.
#[derive(Parser)]
#[command(name = "multipath", version)]
struct Args {
    /// What to measure: mp-10-10, mp-10-60 (share of two links of 20 Mb/s), mp-blackhole (longest
    /// stall), mp-healthy (paths kept), mp-loopback (goodput of 1, 2 and 4 paths)
    #[arg(long, value_delimiter = ',', default_values_t = ALL.map(String::from))]
    cases: Vec<String>,
    /// Runs of each
    #[arg(long, default_value_t = 3, value_parser = flags::rounds)]
    rounds: usize,
    /// Seconds of a run
    #[arg(long, default_value_t = 8.0, value_parser = flags::window)]
    seconds: f64,
    /// The build of corelane [default: beside this program]
    #[arg(long, value_name = "FILE")]
    corelane: Option<PathBuf>,
    /// The build of noq's program [default: perf/peers/target/release/noq-multipath]
    #[arg(long, value_name = "FILE")]
    noq: Option<PathBuf>,
    /// Print the results as JSON
    #[arg(short = 'J', long)]
    json: bool,
}

const ALL: [&str; 5] = [
    "mp-10-10",
    "mp-10-60",
    "mp-blackhole",
    "mp-healthy",
    "mp-loopback",
];
/// The links of the shaped cases, and what they carry together.
const NEAR: &str = "delay=10,rate=20";
const FAR: &str = "delay=60,rate=20";
const SUM: f64 = 40e6;
/// Seconds left out before.
const OMIT: f64 = 2.0;
/// What starting, connecting and ending may take beyond the time that is measured.
const GRACE: Duration = Duration::from_secs(30);

/// One row: what is run, and what it showed.
#[derive(Serialize)]
struct Row {
    case: String,
    program: &'static str,
    paths: u8,
    /// Of each round; none where it failed.
    goodput_bits_per_second: Vec<Option<f64>>,
    longest_stall_ms: Vec<f64>,
    /// Paths that were open at the end.
    paths_open: Vec<u64>,
    /// Why runs failed.
    failures: Vec<String>,
    #[serde(skip)]
    is_shaped: bool,
    #[serde(skip)]
    command: Vec<String>,
}

fn main() -> ExitCode {
    match measure(&Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            tell(&format!("multipath: {error}"));
            ExitCode::from(2)
        }
    }
}

fn measure(args: &Args) -> Result<ExitCode, String> {
    if let Some(case) = args.cases.iter().find(|c| !ALL.contains(&c.as_str())) {
        let all = ALL.join(", ");
        return Err(format!("there is no case `{case}`: take {all}"));
    }
    let programs = Programs::find(args)?;
    let mut rows: Vec<Row> = args.cases.iter().flat_map(|c| rows(c, args)).collect();
    for _ in 0..args.rounds {
        for row in &mut rows {
            match run(row, args, &programs) {
                Ok(goodput) => row.goodput_bits_per_second.push(Some(goodput)),
                Err(why) => {
                    row.goodput_bits_per_second.push(None);
                    row.failures.push(why);
                }
            }
        }
    }
    let text = match args.json {
        true => serde_json::to_string_pretty(&rows).map_err(|e| e.to_string())? + "\n",
        false => table(&rows),
    };
    let failed = rows.iter().any(|r| !r.failures.is_empty());
    Ok(output::finish(&text, ExitCode::from(u8::from(failed))))
}

/// The two that are compared.
struct Programs {
    corelane: PathBuf,
    noq: PathBuf,
}

impl Programs {
    /// Finds them before anything is measured.
    fn find(args: &Args) -> Result<Self, String> {
        let beside = |_| places::beside().map(|directory| directory.join("corelane"));
        let corelane = args.corelane.clone().ok_or(()).or_else(beside)?;
        let noq = args.noq.clone();
        let noq = noq.unwrap_or_else(|| places::peers().join("noq-multipath"));
        Ok(Self {
            corelane: places::program(corelane, places::BUILD)?,
            noq: places::program(noq, places::BUILD_PEERS)?,
        })
    }
}

/// What a case runs.
fn rows(case: &str, args: &Args) -> Vec<Row> {
    let (links, kill, counts): (&[&str], bool, &[u8]) = match case {
        "mp-10-60" => (&[NEAR, FAR], false, &[2]),
        "mp-blackhole" => (&[NEAR, NEAR], true, &[2]),
        "mp-loopback" => (&[], false, &[1, 2, 4]),
        _ => (&[NEAR, NEAR], false, &[2]),
    };
    let mut rows = Vec::new();
    for &paths in counts {
        for program in ["corelane", "noq"] {
            let mut command = common(program, args, paths);
            for link in links {
                command.extend(["--link".into(), (*link).into()]);
            }
            if kill {
                command.extend(["--kill".into(), "0".into()]);
            }
            if program == "corelane" {
                let work = if kill { "failover" } else { "throughput" };
                command.splice(0..0, ["bench".into(), work.into()]);
                if links.is_empty() {
                    // The size that noq discovers at most.
                    command.extend(["--mtu".into(), "1452".into()]);
                }
            } else if case == "mp-healthy" {
                // Without it noq gives up no path at all, dead ones neither.
                command.extend(["--path-idle".into(), "5".into()]);
            }
            rows.push(Row {
                case: case.into(),
                program,
                paths,
                goodput_bits_per_second: Vec::new(),
                longest_stall_ms: Vec::new(),
                paths_open: Vec::new(),
                failures: Vec::new(),
                is_shaped: !links.is_empty(),
                command,
            });
        }
    }
    rows
}

fn common(program: &str, args: &Args, paths: u8) -> Vec<String> {
    let (time, omit) = match program {
        "corelane" => ("-t", "-O"),
        _ => ("--seconds", "--omit"),
    };
    let words = [
        "--json",
        "--paths",
        &paths.to_string(),
        time,
        &args.seconds.to_string(),
        omit,
        &OMIT.to_string(),
    ];
    words.map(String::from).to_vec()
}

/// Runs it once; returns the goodput.
fn run(row: &mut Row, args: &Args, programs: &Programs) -> Result<f64, String> {
    let program = match row.program {
        "corelane" => &programs.corelane,
        _ => &programs.noq,
    };
    let limit = Duration::from_secs_f64(OMIT + args.seconds) + GRACE;
    let text = child::output(Command::new(program).args(&row.command), limit);
    let text = text.map_err(|failed| failed.why)?;
    let report: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    // corelane's report has the workload further inside.
    let of = report.pointer("/end/workloads/0").unwrap_or(&report);
    let goodput = of["goodput_bits_per_second"].as_f64();
    let goodput = goodput.ok_or("a report without goodput")?;
    row.longest_stall_ms.extend(of["longest_stall_ms"].as_f64());
    let open = match &of["paths"] {
        Value::Array(paths) if !paths.is_empty() => {
            // One that the scheduler had no need of is as open as the others.
            let kept = |p: &&Value| p["state"] == "open" || p["state"] == "idle";
            Some(paths.iter().filter(kept).count() as u64)
        }
        _ => of["paths_open"].as_u64(),
    };
    row.paths_open.extend(open);
    Ok(goodput)
}

fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    Summary::of(values).map(|s| s.median)
}

/// Goodput beside one path of the same program, each round by itself: median and spread.
fn beside_one(row: &Row, rows: &[Row]) -> Option<String> {
    let is_one = |r: &&Row| r.case == row.case && r.program == row.program && r.paths == 1;
    let one = rows.iter().filter(|_| row.paths > 1).find(is_one)?;
    let (many, one) = (&row.goodput_bits_per_second, &one.goodput_bits_per_second);
    let ratios = many
        .iter()
        .zip(one)
        .filter_map(|(m, o)| Some((*m)? / (*o)?));
    let Summary {
        median, min, max, ..
    } = Summary::of(ratios)?;
    Some(format!("{median:.2} [{min:.2}..{max:.2}]"))
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| case | program | paths | goodput, Mb/s | of the links | of one path | \
         longest stall, ms | worst | paths kept |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let goodput = median(row.goodput_bits_per_second.iter().copied().flatten());
        let share = goodput.filter(|_| row.is_shaped).map(|g| g / SUM * 100.0);
        let worst = row.longest_stall_ms.iter().copied().reduce(f64::max);
        let kept = |open: &&u64| **open >= u64::from(row.paths);
        let whole = row.paths_open.iter().filter(kept).count();
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "—".into());
        text += &format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {whole} of {} runs |\n",
            row.case,
            row.program,
            row.paths,
            or_dash(goodput.map(|g| format!("{:.1}", g / 1e6))),
            or_dash(share.map(|s| format!("{s:.1} %"))),
            or_dash(beside_one(row, rows)),
            or_dash(median(row.longest_stall_ms.iter().copied()).map(|s| format!("{s:.0}"))),
            or_dash(worst.map(|s| format!("{s:.0}"))),
            row.paths_open.len(),
        );
        for why in &row.failures {
            text += &format!("{} {}: {why}\n", row.case, row.program);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_asked_for_the_same() {
        let args = Args::parse_from(["multipath"]);
        let all: Vec<Row> = args.cases.iter().flat_map(|c| rows(c, &args)).collect();
        assert_eq!(all.len(), 4 * 2 + 3 * 2);
        for pair in all.chunks(2) {
            let [a, b] = pair else { panic!("in pairs") };
            let links = |r: &Row| r.command.iter().filter(|w| w.starts_with("delay")).count();
            assert_eq!((a.program, b.program), ("corelane", "noq"));
            assert_eq!((&a.case, a.paths, links(a)), (&b.case, b.paths, links(b)));
        }
    }

    #[test]
    fn several_paths_are_held_against_one_of_the_same_round() {
        let args = Args::parse_from(["multipath"]);
        let mut all = rows("mp-loopback", &args);
        for (row, goodput) in all.iter_mut().zip([
            [10.0, 20.0, 30.0],
            [1.0, 1.0, 1.0],
            [9.0, 20.0, 33.0],
            [2.0, 2.0, 2.0],
            [8.0, 16.0, 24.0],
            [1.0, 1.0, 1.0],
        ]) {
            row.goodput_bits_per_second = goodput.map(Some).to_vec();
        }
        let ratios: Vec<_> = all.iter().map(|r| beside_one(r, &all)).collect();
        let text = |s: &str| Some(s.to_owned());
        assert_eq!(ratios[..2], [None, None]);
        assert_eq!(ratios[2], text("1.00 [0.90..1.10]"));
        assert_eq!(ratios[3], text("2.00 [2.00..2.00]"));
        assert_eq!(ratios[4], text("0.80 [0.80..0.80]"));
        // What failed is paired with nothing, and nothing with another round.
        all[2].goodput_bits_per_second[0] = None;
        all[0].goodput_bits_per_second[2] = None;
        assert_eq!(beside_one(&all[2], &all), text("1.00 [1.00..1.00]"));
        all[0].goodput_bits_per_second[1] = None;
        assert_eq!(beside_one(&all[2], &all), None, "no round has both");
    }
}
