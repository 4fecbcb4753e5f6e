//! The one command: corelane, its peers and the machine's ceilings on the same work, interleaved.
//!
//! It builds nothing; `perf/run` builds and then runs this. Progress goes to stderr, the tables to
//! stdout, every run to a JSON file and the medians to a picture, both written after each case.

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use corelane_perf::clock;
use corelane_perf::compare::case::{Case, RATE_FROM, Work};
use corelane_perf::compare::peer::Settings;
use corelane_perf::compare::results::{Comparison, Files};
use corelane_perf::compare::rounds::{Plan, Rounds};
use corelane_perf::compare::row::{self, Places, Row, Wanted};
use corelane_perf::compare::run::Run;
use corelane_perf::compare::{metric, noise, stats, table, targets};
use corelane_perf::program::Profile;

/// Measures corelane beside its peers over loopback.
#[derive(Parser)]
#[command(name = "compare", version)]
struct Args {
    /// Rounds that shall count, for each case
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Rounds made beyond that when noisy ones were discarded [default: as many as rounds]
    #[arg(long)]
    extra: Option<u16>,
    /// Seconds measured in each run
    #[arg(long, default_value_t = 3.0, value_parser = clock::seconds)]
    seconds: f64,
    /// Seconds left out before
    #[arg(long, default_value_t = 0.5, value_parser = clock::seconds)]
    omit: f64,
    /// How implementations are configured
    #[arg(long, value_enum, default_value = "tuned")]
    settings: Profile,
    /// Cases, separated by commas, or `all`; numbers in their names may be others
    #[arg(long, value_delimiter = ',', default_value = "bulk-up,bulk-down")]
    cases: Vec<String>,
    /// Rows, separated by commas [default: all]
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// One more row: a program with more arguments, as in `mmsg=corelane --backend mmsg`
    #[arg(long = "row", value_name = "NAME=PROGRAM ARGUMENTS")]
    rows: Vec<String>,
    /// More arguments for every row of corelane, separated by spaces
    #[arg(long, allow_hyphen_values = true, default_value = "")]
    corelane_args: String,
    /// Seconds to wait for a quiet machine before each run
    #[arg(long, default_value_t = 5.0, value_parser = clock::seconds)]
    patience: f64,
    /// Directory of the workspace's programs [default: where this one is]
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Directory of the other peers' programs [default: perf/peers/target/release]
    #[arg(long)]
    peer_dir: Option<PathBuf>,
    /// Directory for the results [default: perf/results]
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    match compare(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::from(2)
        }
    }
}

/// True when every program gave a result in every case that it offers.
fn compare(args: &Args) -> Result<bool, String> {
    if args.seconds == 0.0 {
        return Err("nothing can be measured in no time: give --seconds".into());
    }
    let cases = Case::list(&args.cases, args.settings == Profile::Jumbo)?;
    let (rows, missing) = row::rows(&args.wanted(), &args.places()?)?;
    let files = Files::begin(&args.out(), args.settings)?;
    for sentence in &missing {
        eprintln!("{sentence}");
        show(&format!("{sentence}\n"));
    }
    let mut results = Vec::new();
    for case in cases {
        let Some(case) = rated(case, &results, &rows) else {
            eprintln!("no open loop: no QUIC peer has a rate in {RATE_FROM}");
            continue;
        };
        let rounds = args.run(&case, &rows);
        show(&table::case(&case, &rounds, &rows));
        results.push((case, rounds));
        // After each case, so that an end before the last leaves what there is.
        let comparison = Comparison {
            settings: args.settings(),
            rounds: args.rounds.into(),
            rows: &rows,
            missing: &missing,
            results: &results,
            verdicts: &targets::judge(args.settings, &results, &rows),
        };
        comparison.save(&files)?;
    }
    let verdicts = targets::judge(args.settings, &results, &rows);
    if !verdicts.is_empty() {
        show(&table::verdicts(&verdicts));
    }
    if !results.is_empty() {
        for path in files.paths() {
            eprintln!("results: {}", path.display());
        }
    }
    let complete = |(case, rounds): &(Case, Rounds)| {
        rows.iter().all(|row| {
            let asked = rounds
                .runs
                .iter()
                .any(|r| r.peer == row.name && r.is_offered);
            !asked || stats::metric(rounds, &row.name, &case.metrics()[0]).is_some()
        })
    };
    Ok(results.iter().all(complete))
}

/// Prints, even where nobody reads on: the files are still to be written.
fn show(text: &str) {
    let _ = writeln!(stdout(), "{text}");
}

/// The case with the rate that another one's results give it, if it needs one.
fn rated(case: Case, results: &[(Case, Rounds)], rows: &[Row]) -> Option<Case> {
    if case.work != (Work::OpenLoop { rate: None }) {
        return Some(case);
    }
    let (_, rounds) = results.iter().find(|(other, _)| other.name == RATE_FROM)?;
    let (_, best) = stats::best(rounds, rows, &metric::RATE)?;
    let rate = Some((best.median / 2.0) as u32).filter(|rate| *rate > 0);
    let work = rate.map(|_| Work::OpenLoop { rate })?;
    Some(Case { work, ..case })
}

impl Args {
    fn settings(&self) -> Settings {
        Settings {
            seconds: self.seconds,
            omit: self.omit,
            profile: self.settings,
        }
    }

    fn wanted(&self) -> Wanted {
        Wanted {
            names: self.peers.clone(),
            rows: self.rows.clone(),
            subject: self
                .corelane_args
                .split_whitespace()
                .map(String::from)
                .collect(),
        }
    }

    fn places(&self) -> Result<Places, String> {
        let here = match &self.bin_dir {
            Some(directory) => directory.clone(),
            None => std::env::current_exe()
                .ok()
                .and_then(|path| path.parent().map(Path::to_path_buf))
                .ok_or("cannot tell where this program is: give --bin-dir")?,
        };
        let peers = self.peer_dir.clone();
        let peers = peers.unwrap_or_else(|| package().join("peers/target/release"));
        Ok(Places { here, peers })
    }

    fn out(&self) -> PathBuf {
        let out = self.out.clone();
        out.unwrap_or_else(|| package().join("results"))
    }

    fn run(&self, case: &Case, rows: &[Row]) -> Rounds {
        let plan = Plan {
            rounds: self.rounds.into(),
            extra: self.extra.unwrap_or(self.rounds).into(),
        };
        let patience = Duration::from_secs_f64(self.patience);
        let mut quiet = || {
            // Without `/proc` the run itself says so.
            let _ = noise::wait_for_quiet(patience);
        };
        let mut after = |run: &Run| progress(case, run);
        Rounds::run(rows, case, &self.settings(), plan, &mut quiet, &mut after)
    }
}

/// This package's directory: cargo says it, else it is looked for from the working directory.
fn package() -> PathBuf {
    match std::env::var_os("CARGO_MANIFEST_DIR") {
        Some(package) => package.into(),
        None => "perf".into(),
    }
}

fn progress(case: &Case, run: &Run) {
    let outcome = match (&run.workload, &run.error) {
        (Some(workload), _) => table::brief(&case.metrics()[0], workload),
        (None, error) => {
            let error = error.as_deref().unwrap_or("no result");
            let what = if run.is_offered {
                "failed"
            } else {
                "not offered"
            };
            format!("{what}: {error}")
        }
    };
    let noisy = if run.is_noisy { ", noisy" } else { "" };
    eprintln!(
        "{} round {} {}: {outcome}, others {:.2} cores{noisy}",
        case.name, run.round, run.peer, run.noise_cores
    );
}
